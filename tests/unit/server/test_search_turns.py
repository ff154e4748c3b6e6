"""Turns of searches, with a clock that the tests move."""

import threading

import pytest

from chatserver.store.search_turns import NoTurnError, SearchTurns, TurnsClosedError

from .helpers import assert_waits, eventually, in_background, must_end
from .udp_line import Clock


class Searches:
    """Searches in threads; each runs until it is told to end."""

    def __init__(self, turns: SearchTurns) -> None:
        self._turns = turns
        self.order: list[str] = []
        self.ends: dict[str, threading.Event] = {}
        self._threads: list[threading.Thread] = []

    def begin(self, user_id: int, name: str) -> None:
        self.ends[name] = threading.Event()

        def search() -> None:
            with self._turns.turn(user_id):
                self.order.append(name)
                self.ends[name].wait()

        self._threads.append(in_background(search))
        eventually(lambda: self._turns.waiting + len(self.order) == len(self.ends))

    def end(self, name: str) -> None:
        """Returns when the next one runs."""
        running = len(self.order)
        self.ends[name].set()
        eventually(lambda: len(self.order) > running)

    def end_all(self) -> None:
        for each in self.ends.values():
            each.set()
        for thread in self._threads:
            must_end(thread)


def test_user_who_has_not_searched_lately_is_next() -> None:
    """Promise: others do not wait for a flood of searches. Each user has one search at a time."""
    clock = Clock()
    searches = Searches(SearchTurns(searches_max=2, wait_seconds=1_000.0, clock=clock))
    for user_id in (1, 2):
        for number in range(3):
            searches.begin(user_id, f"flood {user_id} {number}")
    assert searches.order == ["flood 1 0", "flood 2 0"]
    clock.now += 1.0
    searches.end("flood 1 0")
    clock.now += 1.0
    searches.begin(3, "other")
    searches.end("flood 2 0")
    assert searches.order[2:] == ["flood 1 1", "other"]
    searches.end_all()


def test_search_waits_for_a_limited_time_and_not_after_the_end() -> None:
    turns = SearchTurns(searches_max=1, wait_seconds=0.01)
    with turns.turn(1):
        with pytest.raises(NoTurnError), turns.turn(2):
            pass
        turns.close()
    with pytest.raises(TurnsClosedError), turns.turn(3):
        pass


def test_end_wakes_searches_that_wait() -> None:
    """Promise: shutdown takes at most 8 s."""
    turns = SearchTurns(searches_max=1, wait_seconds=100.0)
    with turns.turn(1):

        def search() -> None:
            with pytest.raises(TurnsClosedError), turns.turn(2):
                pass

        waiter = in_background(search)
        assert_waits(waiter)
        turns.close()
        must_end(waiter)
