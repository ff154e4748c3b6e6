"""A fair queue of searches: one at a time for each user, and users who have searched little come first.

The order is that of start-time fair queueing. Each user has a *debt*: a time, which each search moves ahead by a
multiple of the seconds that it took. The key of a search is its arrival or its user's debt, whichever is later, and the
search with the earliest key runs next. So a user without a debt waits for a running search only.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Maximum searches that run at the same time. One processor is left for the delivery of messages.
SEARCHES_MAX = 2
# After a search of one second, its user comes after all users who have not searched for this number of seconds.
DEBT_FACTOR = 20.0
# Maximum wait of a search. Its client has waited for an answer for some time, and its thread is needed.
WAIT_SECONDS = 5.0


def _processors() -> int:
    """Number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class TurnsClosedError(Exception):
    """The server is shutting down, and runs no more searches."""


class NoTurnError(Exception):
    """The wait was too long: many users search."""


class _Ticket:
    """A search that waits. ``turn`` is set when it may run; ``turns.close`` sets it as well."""

    __slots__ = ("arrived_at", "turn", "user_id")

    def __init__(self, user_id: int, arrived_at: float) -> None:
        self.user_id = user_id
        self.arrived_at = arrived_at
        self.turn = threading.Event()


class SearchTurns:
    """Gives turns to searches. For any thread."""

    def __init__(
        self,
        searches_max: int | None = None,
        wait_seconds: float = WAIT_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``searches_max``: by default as many as there are processors, less one, at most SEARCHES_MAX."""
        self._searches_max = searches_max or max(1, min(SEARCHES_MAX, _processors() - 1))
        self._wait_seconds = wait_seconds
        self._clock = clock
        # Guards everything below.
        self._lock = threading.Lock()
        self._closed = False
        # Oldest first.
        self._waiting: list[_Ticket] = []
        # Users with a running search.
        self._running: set[int] = set()
        # Only users with a debt.
        self._debts: dict[int, float] = {}

    @property
    def waiting(self) -> int:
        """Number of searches that wait."""
        return len(self._waiting)

    def close(self) -> None:
        """Wake all searches that wait; they fail."""
        with self._lock:
            self._closed = True
            for ticket in self._waiting:
                ticket.turn.set()

    @contextmanager
    def turn(self, user_id: int) -> Iterator[None]:
        """Wait for the turn of a search of this user, which the block runs. Raises TurnsClosedError, NoTurnError."""
        ticket = _Ticket(user_id, self._clock())
        with self._lock:
            if self._closed:
                raise TurnsClosedError
            self._waiting.append(ticket)
            self._give_turns()
        if not ticket.turn.wait(self._wait_seconds):
            with self._lock:
                if not ticket.turn.is_set():
                    self._waiting.remove(ticket)
                    raise NoTurnError
        if self._closed:
            raise TurnsClosedError
        began_at = self._clock()
        try:
            yield
        finally:
            with self._lock:
                now = self._clock()
                self._running.remove(user_id)
                debt = max(began_at, self._debts.get(user_id, 0.0)) + DEBT_FACTOR * (now - began_at)
                self._debts = {each: until for each, until in self._debts.items() if until > now} | {user_id: debt}
                self._give_turns()

    # --- the lock is held ---

    def _give_turns(self) -> None:
        while len(self._running) < self._searches_max and not self._closed:
            possible = [ticket for ticket in self._waiting if ticket.user_id not in self._running]
            if not possible:
                return
            ticket = min(possible, key=lambda each: max(each.arrived_at, self._debts.get(each.user_id, 0.0)))
            self._waiting.remove(ticket)
            self._running.add(ticket.user_id)
            ticket.turn.set()
