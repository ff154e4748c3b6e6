"""Connection: when it reconnects, how long it tries, and what it reports. The clock is the test's."""

import itertools
import math
import queue
import threading
from collections.abc import Callable, Iterable, Sequence

import pytest

from chatclient.inbox import Inbox
from chatclient.links.connection import Connection, LinkDown, LinkLost, LinkUp, Signal
from chatclient.links.servers import SERVER_REFUSALS
from chatclient.session import FINAL_REFUSALS
from chatprotocol.address import Address
from chatprotocol.errors import ErrorCode, ProtocolError
from chatprotocol.events import AccountKind, Bye, Event, PasswordPrompt, Refused, Welcome
from chatprotocol.wire.base import Ready

from .dialogue import FakeLink
from .samples import HELLO

ADDRESS = ("chat.example", 9999)
WELCOME = Welcome(account=AccountKind.EXISTING, username="alice", users=(), last_id=10)
DEADLINE_SECONDS = 20.0
REFUSED = OSError(111, "refused")
UNREACHABLE = LinkLost("can't reach chat.example:9999: refused")
SERVERS = [(name, 9999) for name in "abc"]
PROMPT = PasswordPrompt(account=AccountKind.EXISTING)
# Pauses of a server that can't be reached: doubled, up to the maximum.
PAUSES = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0]


class Clock(threading.Event):
    """The time, which passes only in a pause or a link; and the event that ends the pauses."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000.0
        self.pauses: list[float] = []
        self.closes_after = 1_000  # pauses, so that every test ends

    def monotonic(self) -> float:
        return self.now

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.pauses.append(timeout)
        self.now += timeout
        if len(self.pauses) >= self.closes_after:
            self.set()
        return self.is_set()


class ScriptedLink(FakeLink):
    """A connection: what the server sends on it, how long it is open, and how it ends."""

    def __init__(self, clock: Clock, *events: Event, seconds: float = 0.0, end: str | Exception = "closed") -> None:
        super().__init__()
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

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def clock() -> Clock:
    return Clock()


def run(
    clock: Clock,
    attempts: Iterable[ScriptedLink | Exception],
    retry_seconds: float = 60.0,
    jitter: Callable[[float, float], float] = max,
    servers: Sequence[Address] = (ADDRESS,),
    opened: list[str] | None = None,
    starts: int = 1,
) -> list[Event | Signal]:
    """Everything that is reported until LinkLost. After these attempts no server can be reached.

    ``opened`` gets the host of each attempt, and a slash for each pause. After the first LinkLost the connection is
    started again, until it was started ``starts`` times.
    """
    results = itertools.chain(attempts, itertools.repeat(REFUSED))
    opened = [] if opened is None else opened

    def open_link(server: Address, _: float) -> ScriptedLink:
        opened.extend("/" * (len(clock.pauses) - opened.count("/")))
        opened.append(server[0])
        if isinstance(result := next(results), Exception):
            raise result
        return result

    inbox = Inbox()
    connection = Connection(
        open_link,
        retry_seconds,
        inbox,
        monotonic=clock.monotonic,
        closing=clock,
        jitter=jitter,
        shuffle=lambda given, _: given,
    )
    told: list[Event | Signal] = []
    for _ in range(starts):
        connection.start(servers)
        told.append(inbox.get(DEADLINE_SECONDS))
        while not isinstance(told[-1], LinkLost):
            told.append(inbox.get(DEADLINE_SECONDS))
    connection.close()
    return told


def steady(clock: Clock, *events: Event, seconds: float = 100.0) -> ScriptedLink:
    """A connection with a login that is open for a while."""
    return ScriptedLink(clock, WELCOME, *events, seconds=seconds)


@pytest.mark.parametrize("welcome", [(), (WELCOME,)])
def test_server_that_ends_the_connection_on_purpose_is_not_asked_again(
    clock: Clock, welcome: tuple[Welcome, ...]
) -> None:
    """Promise: no loop of two clients that replace each other, or of one that was banned."""
    bye = Bye("replaced by a newer connection", ErrorCode.REPLACED)
    told = run(clock, [ScriptedLink(clock, *welcome, HELLO, bye), steady(clock)])
    assert told[1:] == [*welcome, HELLO, bye, LinkLost("replaced by a newer connection")]
    assert clock.pauses == []


def kinds(told: list[Event | Signal]) -> str:
    return " ".join(type(each).__name__ for each in told)


@pytest.mark.parametrize("error", [REFUSED, TimeoutError("timed out"), UnicodeError("label too long")])
def test_server_that_can_not_be_reached_at_first_is_not_tried_again(clock: Clock, error: Exception) -> None:
    assert run(clock, [error]) == [LinkLost(f"can't reach chat.example:9999: {error.args[-1]}")]
    assert clock.pauses == []


@pytest.mark.parametrize("event", [HELLO, Ready()])
def test_connection_that_ends_before_the_login_is_not_tried_again(clock: Clock, event: Event) -> None:
    """A guest is logged in with the second of its two connections."""
    link = ScriptedLink(clock, event)
    assert run(clock, [link]) == [LinkUp(link, ADDRESS), event, LinkDown("closed"), LinkLost("closed")]
    assert clock.pauses == []


def test_lost_connection_is_tried_again_with_growing_pauses_until_the_limit(clock: Clock) -> None:
    told = run(clock, [steady(clock)])
    assert kinds(told) == "LinkUp Welcome LinkDown LinkLost"
    assert told[-1] == UNREACHABLE
    assert clock.pauses[:7] == PAUSES
    assert set(clock.pauses[7:]) == {5.0}
    assert 60.0 <= sum(clock.pauses) < 66.0


def test_pauses_are_random_from_half_to_full(clock: Clock) -> None:
    """The clients of a restarted server must not reconnect all at once."""
    bounds: set[tuple[float, float]] = set()

    def jitter(*given: float) -> float:
        bounds.add(given)  # type: ignore[arg-type]
        return min(given)

    run(clock, [steady(clock)], jitter=jitter)
    assert bounds == {(0.5, 1.0)}
    assert clock.pauses[:3] == [0.05, 0.1, 0.2]


@pytest.mark.parametrize(("retry_seconds", "count"), [(0.0, 0), (math.inf, 500)])
def test_time_limit_may_be_zero_or_endless(clock: Clock, retry_seconds: float, count: int) -> None:
    """Closing ends the pause."""
    clock.closes_after = 500
    run(clock, [steady(clock)], retry_seconds)
    assert len(clock.pauses) == count


@pytest.mark.parametrize("seconds", [0.0, 5.0])
def test_limit_and_pauses_restart_after_a_connection_that_was_served(clock: Clock, seconds: float) -> None:
    """It was open for 5 s after the login, or another event followed the login."""
    links = [steady(clock, *([] if seconds else [HELLO]), seconds=seconds) for _ in range(20)]
    told = run(clock, [each for link in links for each in (link, *[REFUSED] * 10)])
    assert kinds(told).count("LinkUp") == 20
    assert [index for index, pause in enumerate(clock.pauses) if pause == 0.1] == [11 * number for number in range(20)]


NOT_SERVED: list[tuple[list[Event], str | Exception]] = [
    ([WELCOME], "closed"),
    ([WELCOME, Refused(ErrorCode.SERVER_FULL, "Full.")], "closed"),
    ([WELCOME, HELLO, Refused(ErrorCode.UNAVAILABLE, "No.", "n1")], "closed"),
    ([], "closed"),
    ([], OSError(104, "reset")),
    ([], ProtocolError("no json")),
]


@pytest.mark.parametrize(("events", "end"), NOT_SERVED)
def test_server_that_ends_each_connection_is_down(clock: Clock, events: list[Event], end: str | Exception) -> None:
    """It is full, crashes at each login, is unavailable for messages, or a proxy answers for it."""
    links = (ScriptedLink(clock, *events, seconds=0.01, end=end) for _ in range(10_000))
    told = run(clock, itertools.chain([steady(clock)], links))
    assert isinstance(told[-1], LinkLost)
    assert told[-1].reason in str(end)
    assert clock.pauses[:7] == PAUSES
    assert 60.0 <= sum(clock.pauses) < 66.0


def test_connection_closed_by_the_client_is_not_called_closed_by_the_server(clock: Clock) -> None:
    """The socket can't tell."""

    class ClosedByClient(ScriptedLink):
        def receive(self, report: Callable[[Event], None]) -> str:
            clock.set()
            return super().receive(report)

    told = run(clock, [ClosedByClient(clock, WELCOME, end="the server closed the connection")])
    assert kinds(told) == "LinkUp Welcome LinkLost"
    assert told[-1] == LinkLost("the client closed the connection")


def test_bug_in_the_receiver_thread_is_reported(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the client would wait forever. The hook gets what is raised in a thread."""
    raised: queue.SimpleQueue[type[BaseException]] = queue.SimpleQueue()
    monkeypatch.setattr(threading, "excepthook", lambda crash: raised.put(crash.exc_type))
    told = run(clock, [ScriptedLink(clock, end=ZeroDivisionError("oh"))])
    assert raised.get(timeout=DEADLINE_SECONDS) is ZeroDivisionError
    assert told[-1] == LinkLost("the receiver thread failed: ZeroDivisionError('oh')")


def test_each_link_is_closed(clock: Clock) -> None:
    links = [steady(clock), ScriptedLink(clock, end=OSError(104, "reset")), steady(clock)]
    run(clock, links, retry_seconds=5.0)
    assert all(link.is_closed for link in links)


# --- several servers ---


def refusal(code: ErrorCode) -> Refused:
    return Refused(code, "No.")


@pytest.mark.parametrize("seconds", [0.01, 100.0])
def test_rounds_begin_after_the_lost_server_and_pauses_are_between_rounds(clock: Clock, seconds: float) -> None:
    """The clients of a server that is gone reach another one after the first, short pause."""
    opened: list[str] = []
    first, second = (steady(clock, HELLO, seconds=seconds) for _ in range(2))
    attempts = [first, REFUSED, ScriptedLink(clock), *[REFUSED] * 4, second]
    told = run(clock, attempts, servers=SERVERS, opened=opened)
    assert "".join(opened).startswith("a/bca/bca/b/cab/cab/cab")
    assert clock.pauses[:6] == [0.1, 0.2, 0.4, 0.1, 0.2, 0.4]
    a, b, c = (f"can't reach {name}:9999: refused" for name in "abc")
    assert [each for each in told if isinstance(each, LinkDown | LinkLost)] == [
        LinkDown("closed", tries_next=True),
        LinkDown("closed", tries_next=True),
        LinkDown(f"{b}; c:9999: closed; {a}"),
        LinkDown("closed", tries_next=True),
        LinkDown(f"{c}; {a}; {b}"),
        LinkLost(f"{c}; {a}; {b}"),
    ]


@pytest.mark.parametrize("end", ["closed", OSError(104, "reset"), *sorted(SERVER_REFUSALS)])
def test_server_that_fails_at_the_first_login_is_followed_by_the_next(
    clock: Clock, end: str | Exception | ErrorCode
) -> None:
    """It ends the connection, or refuses the login for a reason of its own. Each server is tried once."""
    opened: list[str] = []
    events, how = ([refusal(end)], "closed") if isinstance(end, ErrorCode) else ([], end)
    told = run(
        clock, [ScriptedLink(clock, *events, end=how), REFUSED, steady(clock)], 0.0, servers=SERVERS, opened=opened
    )
    assert (opened, clock.pauses) == (["a", "b", "c"], [])
    assert [(each.server[0], each.tries_next) for each in told if isinstance(each, LinkUp)] == [
        ("a", True),
        ("c", False),
    ]
    assert kinds(told).replace("Refused ", "") == "LinkUp LinkDown LinkUp Welcome LinkDown LinkLost"
    again = Clock()
    told = run(again, [ScriptedLink(again, *events, end=how) for _ in SERVERS], servers=SERVERS)
    assert isinstance(told[-1], LinkLost)
    reason = "reset" if how != "closed" else "closed"
    assert told[-1].reason == f"a:9999: {reason}; b:9999: {reason}; c:9999: {reason}"


@pytest.mark.parametrize(
    "events",
    [
        [PROMPT],
        [PROMPT, refusal(ErrorCode.NOT_LOGGED_IN)],
        *([refusal(code)] for code in (*sorted(FINAL_REFUSALS), ErrorCode.TOO_MANY_ATTEMPTS, ErrorCode.RATE_LIMITED)),
    ],
    ids=repr,
)
def test_refusal_about_the_user_ends_the_round(clock: Clock, events: list[Event]) -> None:
    """No other server would answer otherwise; nor is a user asked twice. After a login the pause follows."""
    opened: list[str] = []
    assert isinstance(run(clock, [ScriptedLink(clock, *events)], servers=SERVERS, opened=opened)[-1], LinkLost)
    assert opened == ["a"]
    opened, again = [], Clock()
    told = run(again, [steady(again), ScriptedLink(again, *events)], servers=SERVERS, opened=opened)
    assert "".join(opened).startswith("a/b/cab")
    assert [each.tries_next for each in told if isinstance(each, LinkDown)][:2] == [True, False]


def test_refusal_after_the_password_may_be_the_servers(clock: Clock) -> None:
    """In frames each login has a prompt. The last answer decides."""
    opened: list[str] = []
    run(clock, [ScriptedLink(clock, PROMPT, refusal(ErrorCode.UNAVAILABLE))], servers=SERVERS, opened=opened)
    assert opened == ["a", "b", "c"]


def test_connection_that_is_started_again_begins_with_the_last_server(clock: Clock) -> None:
    """The user answers a question of this server."""
    opened: list[str] = []
    attempts = [REFUSED, ScriptedLink(clock, PROMPT), ScriptedLink(clock, PROMPT)]
    run(clock, attempts, servers=SERVERS, opened=opened, starts=3)
    assert "".join(opened) == "abbbca"


def test_order_of_the_servers_is_random() -> None:
    """The clients of a server that is gone spread over the others."""
    servers = [(name, 9999) for name in "abcdefgh"]
    firsts = set()
    for _ in range(200):
        opened: list[Address] = []

        def open_link(server: Address, _: float, opened: list[Address] = opened) -> ScriptedLink:
            opened.append(server)
            raise REFUSED

        inbox = Inbox()
        connection = Connection(open_link, 0.0, inbox)
        connection.start(servers)
        assert isinstance(inbox.get(DEADLINE_SECONDS), LinkLost)
        connection.close()
        assert sorted(opened) == servers
        firsts.add(opened[0])
    assert firsts == set(servers)  # one is missing in 1 of 5e10 runs


@pytest.mark.parametrize(("count", "seconds"), [(1, 10.0), (4, 2.5), (16, 2.0)])
def test_first_round_shares_its_timeout(clock: Clock, count: int, seconds: float) -> None:
    """A host that does not answer must not hide the others for long."""
    timeouts: set[float] = set()
    links = iter([steady(clock)])

    def open_link(server: Address, timeout_seconds: float) -> ScriptedLink:
        timeouts.add(timeout_seconds)
        if server != last:
            raise REFUSED
        return next(links)

    servers = [(f"server{number}", 9999) for number in range(count)]
    last = servers[-1]
    inbox = Inbox()
    connection = Connection(open_link, 0.0, inbox, closing=clock, shuffle=lambda given, _: given)
    connection.start(servers)
    while not isinstance(inbox.get(DEADLINE_SECONDS), LinkLost):
        pass
    connection.close()
    assert timeouts == {seconds}
