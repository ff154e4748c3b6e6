"""The connection that is tried again: how often, how long, and what is told of it. The clock is the test's."""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING

import pytest

from chatclient.links import connection
from chatclient.links.connection import Connection, LinkDown, LinkLost, LinkUp
from chatprotocol.errors import ProtocolError
from chatprotocol.events import AccountKind, PublicMessage, Registered, Welcome
from chatprotocol.requests import Side

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from chatclient.links.connection import Signal
    from chatprotocol.address import Address
    from chatprotocol.events import Event

ADDRESS = ("chat.example", 9999)
WELCOME = Welcome(AccountKind.EXISTING, "alice", (), 10)
HELLO = PublicMessage(11, 0, "bob", "hello")
# Nothing that a test does takes so long.
PATIENCE_SECONDS = 20.0


class Clock:
    """Time that passes only where somebody waits; it is the collector's, and so is what it waits with."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.pauses: list[float] = []
        self.is_closing = threading.Event()
        # After so many pauses the client is closed: nobody waits for ever.
        self.closes_after = 1_000

    def monotonic(self) -> float:
        return self.now

    def wait(self, seconds: float) -> bool:
        self.pauses.append(seconds)
        self.now += seconds
        if len(self.pauses) >= self.closes_after:
            self.is_closing.set()
        return self.is_closing.is_set()

    def is_set(self) -> bool:
        return self.is_closing.is_set()

    def set(self) -> None:
        self.is_closing.set()


class FakeLink:
    """A connection: what the server says on it, how long it stands, and why it ends."""

    def __init__(self, clock: Clock, *events: Event, seconds: float = 0.0, end: str | Exception = "closed") -> None:
        self._clock = clock
        self._events = events
        self._seconds = seconds
        self._end = end
        self.is_closed = False

    def receive(self, report: Callable[[Event], None]) -> str:
        for event in self._events:
            report(event)
        self._clock.now += self._seconds
        if isinstance(self._end, Exception):
            raise self._end
        return self._end

    def send(self, request: object) -> None:
        raise NotImplementedError

    def shut_down(self) -> None:
        """It ends by itself."""

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(connection, "time", clock)
    # The longest that each pause may be.
    monkeypatch.setattr(connection.random, "uniform", lambda _, most: most)
    return clock


def live(clock: Clock, attempts: Iterator[object], retry_seconds: float = 60.0) -> list[Event | Signal]:
    """Everything that is reported until the end; behind the given attempts the server can't be reached."""
    told: list[Event | Signal] = []

    def open_link(address: Address, _: float) -> FakeLink:
        assert address == ADDRESS
        attempt = next(attempts, None) or OSError(111, "refused")
        if isinstance(attempt, Exception):
            raise attempt
        assert isinstance(attempt, FakeLink)
        return attempt

    connected = Connection(open_link, retry_seconds, told.append)
    connected._closing = clock  # type: ignore[assignment]
    connected.start(ADDRESS)
    connected._receiver.join(PATIENCE_SECONDS)
    assert not connected._receiver.is_alive()
    return told


def steady(clock: Clock, *events: Event, seconds: float = 100.0) -> FakeLink:
    """A connection on which somebody was let in, and which stood for a while."""
    return FakeLink(clock, WELCOME, *events, seconds=seconds)


def kinds(told: list[Event | Signal]) -> list[str]:
    return [type(each).__name__ for each in told]


def test_a_server_that_cannot_be_reached_at_first_is_not_tried_again(clock: Clock) -> None:
    assert live(clock, iter([])) == [LinkLost("can't reach chat.example:9999: refused")]
    assert clock.pauses == []


@pytest.mark.parametrize("error", [UnicodeError("label too long"), TimeoutError("timed out"), OSError(113, "no route")])
def test_whatever_keeps_it_from_connecting_is_said(clock: Clock, error: Exception) -> None:
    (lost,) = live(clock, iter([error]))

    assert isinstance(lost, LinkLost)
    assert str(error.args[-1]) in lost.reason


def test_a_connection_that_ends_before_anybody_was_let_in_is_not_tried_again(clock: Clock) -> None:
    link = FakeLink(clock, HELLO)

    assert live(clock, iter([link])) == [LinkUp(link), HELLO, LinkDown("closed"), LinkLost("closed")]
    assert link.is_closed
    assert clock.pauses == []


def test_a_lost_connection_is_tried_again_with_growing_pauses_until_it_is_given_up(clock: Clock) -> None:
    told = live(clock, iter([steady(clock)]), retry_seconds=60.0)

    assert kinds(told) == ["LinkUp", "Welcome", "LinkDown", "LinkLost"]
    assert clock.pauses[:7] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0]
    assert set(clock.pauses[7:]) == {5.0}
    assert 60.0 <= sum(clock.pauses) < 66.0


def test_the_pauses_are_of_chance_up_to_half(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clients of a server that was restarted don't come all at once."""
    asked: list[tuple[float, float]] = []

    def uniform(least: float, most: float) -> float:
        asked.append((least, most))
        return least

    monkeypatch.setattr(connection.random, "uniform", uniform)
    live(clock, iter([steady(clock)]), retry_seconds=1.0)

    assert set(asked) == {(0.5, 1.0)}
    assert clock.pauses[:3] == [0.05, 0.1, 0.2]


def test_who_waits_for_ever_is_tried_for_ever(clock: Clock) -> None:
    clock.closes_after = 500
    told = live(clock, iter([steady(clock)]), retry_seconds=math.inf)

    assert kinds(told) == ["LinkUp", "Welcome", "LinkDown", "LinkLost"]
    assert len(clock.pauses) == 500
    assert sum(clock.pauses) > 40 * 60


def test_a_server_that_is_there_again_is_joined_and_patience_begins_anew(clock: Clock) -> None:
    refused = OSError(111, "refused")
    attempts = [steady(clock), *[refused] * 10, steady(clock, HELLO), *[refused] * 10, steady(clock)]
    told = live(clock, iter(attempts), retry_seconds=60.0)

    assert kinds(told) == [
        *("LinkUp", "Welcome", "LinkDown"),
        *("LinkUp", "Welcome", "PublicMessage", "LinkDown"),
        *("LinkUp", "Welcome", "LinkDown"),
        "LinkLost",
    ]
    # Two returns after eleven tries, each of which began with the shortest pause.
    assert [index for index, pause in enumerate(clock.pauses) if pause == 0.1] == [0, 11, 22]


@pytest.mark.parametrize("let_in", [WELCOME, Registered(Side.RECEIVING, "alice")])
def test_a_server_that_lets_somebody_in_and_falls_over_each_time_is_as_good_as_none(
    clock: Clock, let_in: Event
) -> None:
    links = (FakeLink(clock, let_in, seconds=0.01) for _ in range(10_000))
    told = live(clock, links, retry_seconds=60.0)

    assert isinstance(told[-1], LinkLost)
    assert clock.pauses[:7] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0]
    assert 60.0 <= clock.now - 1_000.0 < 70.0
    assert kinds(told).count("LinkUp") == len(clock.pauses) + 1


@pytest.mark.parametrize("end", ["closed", OSError(104, "reset"), ProtocolError("no json")])
def test_a_server_that_lets_nobody_in_any_more_is_as_good_as_none(clock: Clock, end: str | Exception) -> None:
    """It is full, or only a proxy is left of it."""
    links = (FakeLink(clock, end=end) for _ in range(10_000))

    def attempts() -> Iterator[FakeLink]:
        yield steady(clock)
        yield from links

    told = live(clock, attempts(), retry_seconds=60.0)
    assert isinstance(told[-1], LinkLost)
    assert 60.0 <= sum(clock.pauses) < 66.0
    assert str(told[-1].reason) in str(end)


def test_a_guest_with_the_first_of_two_connections_was_not_let_in(clock: Clock) -> None:
    link = FakeLink(clock, Registered(Side.SENDING, "alice"))

    assert kinds(live(clock, iter([link]))) == ["LinkUp", "Registered", "LinkDown", "LinkLost"]


def test_a_connection_that_stands_for_a_while_each_time_is_tried_again_for_ever(clock: Clock) -> None:
    links = [steady(clock, seconds=10.0) for _ in range(100)]
    told = live(clock, iter(links), retry_seconds=1.0)

    assert kinds(told).count("Welcome") == 100
    assert clock.pauses[:99] == [0.1] * 99


def test_without_patience_a_lost_connection_is_lost_for_good(clock: Clock) -> None:
    assert kinds(live(clock, iter([steady(clock)]), retry_seconds=0.0)) == ["LinkUp", "Welcome", "LinkDown", "LinkLost"]
    assert clock.pauses == []


def test_who_is_closed_in_a_pause_tries_no_more(clock: Clock) -> None:
    clock.closes_after = 3
    told = live(clock, iter([steady(clock)]), retry_seconds=math.inf)

    assert told[-1] == LinkLost("can't reach chat.example:9999: refused")
    assert len(clock.pauses) == 3


def test_a_connection_that_the_client_closes_is_not_said_to_be_closed_by_the_server(clock: Clock) -> None:
    """As after an interrupt that a hanging server doesn't answer. The socket can't tell who has closed it."""

    class ClosedByClient(FakeLink):
        def receive(self, report: Callable[[Event], None]) -> str:
            clock.set()
            return super().receive(report)

    told = live(clock, iter([ClosedByClient(clock, WELCOME, end="the server closed the connection")]))

    assert kinds(told) == ["LinkUp", "Welcome", "LinkLost"]
    assert told[-1] == LinkLost("the client closed the connection")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_fault_of_the_program_is_told_too(clock: Clock) -> None:
    """Nobody would notice otherwise, and wait for ever."""
    told = live(clock, iter([FakeLink(clock, end=ZeroDivisionError("oh"))]))

    assert told[-1] == LinkLost("the collector failed: ZeroDivisionError('oh')")


def test_each_link_is_closed_once_nobody_uses_it(clock: Clock) -> None:
    links = [steady(clock), FakeLink(clock, end=OSError(104, "reset")), steady(clock)]
    live(clock, iter(links), retry_seconds=5.0)

    assert all(link.is_closed for link in links)


def test_after_a_loss_for_good_it_can_be_started_once_more(clock: Clock) -> None:
    told: list[Event | Signal] = []
    links = iter([FakeLink(clock), FakeLink(clock)])
    connected = Connection(lambda *_: next(links), 60.0, told.append)
    for _ in range(2):
        connected.start(ADDRESS)
    connected.close()

    assert kinds(told) == ["LinkUp", "LinkDown", "LinkLost"] * 2
