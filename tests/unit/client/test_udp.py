"""The link over UDP, against a server that plays its part by hand: how a session is opened, used, and ended."""

import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from chatclient.links import udp, udp_session
from chatclient.links.connection import Connection, LinkDown, LinkLost, LinkUp
from chatclient.links.udp import UdpLink
from chatprotocol.errors import ErrorCode, ProtocolError
from chatprotocol.events import AccountKind, Bye, Event, PasswordPrompt, PublicMessage, Ready, Refused, Welcome
from chatprotocol.requests import Command, Data, Request
from chatprotocol.wire import Datagram

from .debts import patient
from .udp_server import COOKIE, DEADLINE_SECONDS, SESSION, UdpServer, opening, wire

NOON_MS = 1_769_860_800_123
PROMPT = PasswordPrompt(AccountKind.NEW)
# What asks whether there is a session is as long as the answer where there is none.
PROBE = "PING            "
GIVEN_UP = "the client closed the connection"


class Caller:
    """A link, and the thread that collects from it: what it reports, and how it ends."""

    def __init__(self, port: int, seconds: float) -> None:
        self.link = UdpLink(Datagram(), patient, ("127.0.0.1", port), seconds)
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._reason: str | None = None
        self._error: Exception | None = None
        # A collector that hangs fails the test that it belongs to, and must not keep all tests from ending.
        self._thread = threading.Thread(target=self._run, name="a collector", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._reason = self.link.receive(self._events.put)
        except Exception as error:
            self._error = error

    def sends(self, *requests: Request) -> None:
        for request in requests:
            self.link.send(request)

    def reports(self, *events: Event) -> None:
        """These come next."""
        for expected in events:
            assert self._events.get(timeout=DEADLINE_SECONDS) == expected

    def ends(self, reason: str, *events: Event) -> None:
        """The collecting ends because of that; before, it reports these."""
        self._join()
        assert self._error is None
        assert self._reason == reason
        self._reports_last(events)

    def fails(self, error_type: type[Exception], reason: str, *events: Event) -> None:
        """The collecting ends with an error that says so; before, it reports these."""
        self._join()
        assert isinstance(self._error, error_type), self._reason or self._error
        assert reason in str(self._error)
        self._reports_last(events)

    def close(self) -> None:
        """No thread is left."""
        self.link.shut_down()
        self._join()
        self.link.close()

    def _join(self) -> None:
        self._thread.join(DEADLINE_SECONDS)
        assert not self._thread.is_alive(), "it still collects"

    def _reports_last(self, events: tuple[Event, ...]) -> None:
        assert [self._events.get_nowait() for _ in range(self._events.qsize())] == list(events)


@contextmanager
def at_once(what: str) -> Iterator[None]:
    """Long before anybody would have run out of patience."""
    started = time.monotonic()
    yield
    assert time.monotonic() - started < DEADLINE_SECONDS / 2, f"{what} took {time.monotonic() - started:.1f} s"


@pytest.fixture
def servers() -> Iterator[Callable[[], UdpServer]]:
    """Makes servers."""
    with ExitStack() as made:

        def serve() -> UdpServer:
            server = UdpServer()
            made.callback(server.close)
            return server

        yield serve


@pytest.fixture
def server(servers: Callable[[], UdpServer]) -> UdpServer:
    return servers()


@pytest.fixture
def call() -> Iterator[Callable[..., Caller]]:
    """Makes callers; no thread of theirs may be left."""
    before = set(threading.enumerate())
    with ExitStack() as made:

        def call(port: int, seconds: float = 4 * DEADLINE_SECONDS, name: str | None = "alice") -> Caller:
            caller = Caller(port, seconds)
            made.callback(caller.close)
            if name is not None:
                caller.sends(Command(name))
            return caller

        yield call
    assert set(threading.enumerate()) <= before


@pytest.fixture
def inside(server: UdpServer, call: Callable[..., Caller]) -> Caller:
    """A caller with a session, who was asked for the password."""
    caller = call(server.port)
    server.opens()
    caller.reports(PROMPT)
    return caller


def free_port() -> int:
    """Nobody is there."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def public(message_id: int, text: str) -> str:
    return f"PUBLIC bob {message_id} {NOON_MS}\n{text}"


def public_event(message_id: int, text: str) -> PublicMessage:
    return PublicMessage(message_id, NOON_MS, "bob", text)


# --- opening ---


def test_a_session_is_opened_with_a_cookie(server: UdpServer, call: Callable[..., Caller]) -> None:
    caller = call(server.port)
    server.hears("C", 0, 0, opening("alice"))
    server.says("C", 0, 0, f"COOKIE {COOKIE}")
    server.hears("C", 0, 0, opening("alice", COOKIE))
    server.says("C", SESSION, 1, "PASSWORD new")
    server.hears("A", SESSION, 1)
    caller.reports(PROMPT)
    caller.sends(Command("secret"))
    server.hears("C", SESSION, 1, "secret")


def test_the_tradition_stands_before_the_cookie(server: UdpServer, call: Callable[..., Caller]) -> None:
    call(server.port, name="alice bm-pm")
    server.opens("alice bm-pm")


def test_a_name_that_is_long_enough_is_not_padded(server: UdpServer, call: Callable[..., Caller]) -> None:
    call(server.port, name="a" * 32)
    server.opens("a" * 32)


def test_a_cookie_that_is_too_old_is_replaced(server: UdpServer, call: Callable[..., Caller]) -> None:
    caller = call(server.port)
    server.hears("C", 0, 0, opening("alice"))
    for cookie in ("00000000000000aa", "00000000000000bb"):
        server.says("C", 0, 0, f"COOKIE {cookie}")
        with at_once("the answer to another cookie"):
            server.hears("C", 0, 0, opening("alice", cookie))
    server.says("C", SESSION, 1, "PASSWORD new")
    caller.reports(PROMPT)


def test_a_server_that_gives_one_cookie_after_the_other_is_not_followed_for_ever(
    server: UdpServer, call: Callable[..., Caller]
) -> None:
    call(server.port)
    server.hears("C", 0, 0, opening("alice"))
    cookies = [f"{number:016x}" for number in range(5)]
    for cookie in cookies[:4]:
        server.says("C", 0, 0, f"COOKIE {cookie}")
        server.hears("C", 0, 0, opening("alice", cookie))
    server.says("C", 0, 0, f"COOKIE {cookies[4]}")
    for _ in range(2):  # the last one that it took is sent again, and no other
        server.hears("C", 0, 0, opening("alice", cookies[3]))


def test_openings_that_are_lost_are_sent_again(server: UdpServer, call: Callable[..., Caller]) -> None:
    caller = call(server.port)
    for _ in range(3):
        server.hears("C", 0, 0, opening("alice"))
    server.says("C", 0, 0, f"COOKIE {COOKIE}")
    for _ in range(3):
        server.hears("C", 0, 0, opening("alice", COOKIE))
    server.says("C", SESSION, 1, "PASSWORD new")
    server.hears("A", SESSION, 1)
    caller.reports(PROMPT)


def test_a_first_datagram_that_comes_second_begins_the_session(server: UdpServer, call: Callable[..., Caller]) -> None:
    caller = call(server.port)
    server.hears("C", 0, 0, opening("alice"))
    server.says("C", 0, 0, f"COOKIE {COOKIE}")
    server.hears("C", 0, 0, opening("alice", COOKIE))
    server.says("D", SESSION, 2, public(7, "hello"))
    server.says("C", SESSION, 1, "PASSWORD new")
    caller.reports(PROMPT, public_event(7, "hello"))


@pytest.mark.parametrize("with_cookie", [False, True])
def test_an_error_in_place_of_a_session_is_reported(
    server: UdpServer, call: Callable[..., Caller], with_cookie: bool
) -> None:
    caller = call(server.port)
    server.hears("C", 0, 0, opening("alice"))
    if with_cookie:
        server.says("C", 0, 0, f"COOKIE {COOKIE}")
        server.hears("C", 0, 0, opening("alice", COOKIE))
    server.says("C", 0, 0, "ERROR server_full Full.")
    caller.ends("the server answered, but opened no session", Refused(ErrorCode.SERVER_FULL, "Full."))


def test_an_error_without_words_is_one_too(server: UdpServer, call: Callable[..., Caller]) -> None:
    caller = call(server.port)
    server.hears("C", 0, 0, opening("alice"))
    server.says("C", 0, 0, "ERROR shutting_down")
    caller.ends("the server answered, but opened no session", Refused(ErrorCode.SHUTTING_DOWN, ""))


def test_a_session_that_nobody_asked_for_is_none(server: UdpServer, call: Callable[..., Caller]) -> None:
    """Before there was a cookie; and datagrams that are too short are passed over as well."""
    caller = call(server.port)
    server.hears("C", 0, 0, opening("alice"))
    server.says("C", SESSION + 1, 1, "PASSWORD existing")
    server.says_bytes(b"C")
    server.says_bytes(b"")
    server.says("D", 0, 0, "ERROR server_full")
    server.says("C", 0, 0, f"COOKIE {COOKIE}")
    server.hears("C", 0, 0, opening("alice", COOKIE))
    server.says("C", SESSION, 1, "PASSWORD new")
    caller.reports(PROMPT)


def test_a_port_where_nobody_is_fails_at_once(call: Callable[..., Caller]) -> None:
    port = free_port()
    with at_once("the refusal"):
        call(port).fails(OSError, f"can't reach 127.0.0.1:{port} over UDP: Connection refused")


def test_a_server_that_does_not_answer_is_waited_for_as_long_as_was_said(
    server: UdpServer, call: Callable[..., Caller]
) -> None:
    started = time.monotonic()
    with at_once("half a second"):
        call(server.port, 0.5).fails(OSError, f"can't reach 127.0.0.1:{server.port} over UDP: no answer")
    assert time.monotonic() - started >= 0.5


# --- a name with several addresses ---


def resolve_to(monkeypatch: pytest.MonkeyPatch, *places: tuple[Any, ...]) -> None:
    """Let each name have these addresses."""
    families = {2: socket.AF_INET, 4: socket.AF_INET6}
    found = [(families[len(place)], socket.SOCK_DGRAM, socket.IPPROTO_UDP, "", place) for place in places]
    monkeypatch.setattr(udp.socket, "getaddrinfo", lambda *_, **__: found)


@pytest.mark.parametrize("refuses", ["IPv4", "IPv6"])
def test_where_the_first_address_refuses_the_second_one_is_tried(
    server: UdpServer, call: Callable[..., Caller], monkeypatch: pytest.MonkeyPatch, refuses: str
) -> None:
    """As with localhost, where the server listens to IPv4 only. A machine without IPv6 refuses by itself."""
    port = free_port()
    nobody = ("127.0.0.1", port) if refuses == "IPv4" else ("::1", port, 0, 0)
    resolve_to(monkeypatch, nobody, ("127.0.0.1", server.port))
    with at_once("the second address"):
        caller = call(port)
        server.opens()
        caller.reports(PROMPT)


def test_where_the_first_address_is_silent_the_second_one_is_tried(
    servers: Callable[[], UdpServer], call: Callable[..., Caller], monkeypatch: pytest.MonkeyPatch
) -> None:
    silent, server = servers(), servers()
    resolve_to(monkeypatch, ("127.0.0.1", silent.port), ("127.0.0.1", server.port))
    caller = call(silent.port, 2.0)
    silent.hears("C", 0, 0, opening("alice"))
    server.opens()
    caller.reports(PROMPT)


def test_all_addresses_together_are_waited_for_as_long_as_was_said(
    servers: Callable[[], UdpServer], call: Callable[..., Caller], monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = [servers() for _ in range(8)]
    resolve_to(monkeypatch, *(("127.0.0.1", each.port) for each in silent))
    started = time.monotonic()
    with at_once("a second"):  # eight of them would be too long
        caller = call(1, 1.0)
        for each in silent:
            each.hears("C", 0, 0, opening("alice"))
        caller.fails(OSError, "can't reach 127.0.0.1:1 over UDP: no answer")
    assert time.monotonic() - started >= 1.0


def test_a_name_that_cannot_be_one_has_no_link() -> None:
    with pytest.raises((OSError, UnicodeError)):
        UdpLink(Datagram(), patient, ("a" * 64 + ".example", 9_999), 1.0)


# --- a session ---


def test_what_is_sent_while_nothing_comes_goes_out_at_once(server: UdpServer, inside: Caller) -> None:
    for sequence, text in enumerate(("one", "two", "three"), 1):
        with at_once("a request"):
            inside.sends(Data(text))
            server.hears("D", SESSION, sequence, text)
        server.says("A", SESSION, sequence)


def test_what_comes_is_acknowledged_and_reported_in_order(server: UdpServer, inside: Caller) -> None:
    for sequence in (4, 3, 2, 3):
        server.says("D", SESSION, sequence, public(sequence, "hello"))
    inside.reports(*(public_event(number, "hello") for number in (2, 3, 4)))
    for sequence in (4, 3, 2, 3):
        server.hears("A", SESSION, sequence)


def test_many_that_come_together_are_all_reported(server: UdpServer, inside: Caller) -> None:
    """More than are read in a row."""
    count = 100
    for sequence in range(2, 2 + count):
        server.says("D", SESSION, sequence, public(sequence, "hello"))
    inside.reports(*(public_event(number, "hello") for number in range(2, 2 + count)))


def test_a_long_message_goes_out_in_pieces(server: UdpServer, inside: Caller) -> None:
    inside.sends(Data("x" * 2_500))
    for sequence, (kind, size) in enumerate((("d", 1_200), ("d", 1_200), ("D", 100)), 1):
        server.hears(kind, SESSION, sequence, "x" * size)


def test_what_is_lost_is_sent_again_until_it_is_acknowledged(server: UdpServer, inside: Caller) -> None:
    inside.sends(Command("secret"))
    for _ in range(3):
        server.hears("C", SESSION, 1, "secret")


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.2"])
def test_datagrams_from_strangers_are_not_heard(server: UdpServer, inside: Caller, address: str) -> None:
    """Though they know the session."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.bind((address, 0))
        stranger.sendto(wire("D", SESSION, 2, public(666, "forged")), server.client)
        stranger.sendto(wire("C", SESSION, 0, "ERROR no_session"), server.client)
    server.says("D", SESSION, 2, public(7, "hello"))
    inside.reports(public_event(7, "hello"))


def test_other_sessions_and_short_datagrams_are_passed_over(server: UdpServer, inside: Caller) -> None:
    server.says("D", SESSION + 1, 2, public(666, "of another session"))
    server.says("C", 0, 0, "ERROR server_full")
    server.says("C", 0, 0, f"COOKIE {COOKIE}")
    server.says_bytes(b"")
    server.says_bytes(wire("D", SESSION, 2)[:-1])
    server.says("D", SESSION, 2, public(7, "hello"))
    inside.reports(public_event(7, "hello"))


def test_who_says_nothing_sends_signs_of_life_and_reports_no_answers(
    server: UdpServer, call: Callable[..., Caller], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(udp_session, "_PING_SECONDS", 0.1)
    caller = call(server.port)
    server.opens()
    caller.reports(PROMPT)
    for sequence in (1, 2):
        server.hears("C", SESSION, sequence, "PING")
        server.says("A", SESSION, sequence)
        server.says("C", SESSION, 1 + sequence, "PONG")
        server.hears("A", SESSION, 1 + sequence)
    server.says("C", SESSION, 4, "READY")
    caller.reports(Ready())


def test_a_password_that_cannot_be_said_is_refused_and_another_one_goes_out(server: UdpServer, inside: Caller) -> None:
    inside.sends(Command("PING"))
    error = "In the wire format datagram, PING is the keepalive request; it can't be a password."
    inside.reports(Refused(ErrorCode.BAD_REQUEST, error))
    inside.sends(Command("secret"))
    server.hears("C", SESSION, 1, "secret")


# --- the end ---


def test_a_server_that_is_gone_right_after_its_goodbye_has_said_it(server: UdpServer, inside: Caller) -> None:
    server.says("C", SESSION, 2, "BYE the server is shutting down")
    server.close()
    inside.ends("the server closed the session", Bye("the server is shutting down"))


def test_the_goodbye_is_acknowledged_three_times_and_ends_it(server: UdpServer, inside: Caller) -> None:
    server.says("C", SESSION, 2, "BYE the server is shutting down")
    for _ in range(3):
        server.hears("A", SESSION, 2)
    inside.ends("the server closed the session", Bye("the server is shutting down"))


def test_a_server_that_does_not_know_the_session_any_more_ends_it_within_seconds(
    server: UdpServer, inside: Caller
) -> None:
    """It was started again, and answers nobody with more than was sent: only what asks for that is long enough."""
    with at_once("the end"):
        inside.sends(Command("PM"))
        server.hears("C", SESSION, 1, "PM")
        server.hears("C", SESSION, 2, PROBE)
        server.says("C", SESSION, 0, "ERROR no_session")
        inside.ends("the server no longer knows this session")


def test_that_is_noticed_with_nothing_said_too(
    server: UdpServer, call: Callable[..., Caller], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(udp_session, "_PING_SECONDS", 1.5)
    caller = call(server.port)
    server.opens()
    with at_once("the end"):
        server.hears("C", SESSION, 1, "PING")
        server.hears("C", SESSION, 2, PROBE)
        server.says("C", SESSION, 0, "ERROR no_session")
        caller.ends("the server no longer knows this session", PROMPT)


def test_a_server_that_is_gone_is_noticed_with_the_next_request(server: UdpServer, inside: Caller) -> None:
    server.close()
    with at_once("the end"):
        inside.sends(Command("secret"))
        inside.fails(ConnectionRefusedError, "Connection refused")


def test_a_server_that_falls_silent_is_lost(
    server: UdpServer, call: Callable[..., Caller], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chatprotocol.udp.arq.SILENCE_SECONDS", 0.5)
    caller = call(server.port)
    server.opens()
    caller.fails(TimeoutError, "nothing was heard for 0.5 s", PROMPT)


def test_a_server_that_makes_no_sense_is_told_as_what_it_is(server: UdpServer, inside: Caller) -> None:
    server.says("D", SESSION, 2, "no header")
    inside.fails(ProtocolError, "The server sent something that is no answer of the wire format datagram")


# --- somebody wants it to end ---


def test_who_shuts_it_before_the_first_request_ends_it(call: Callable[..., Caller]) -> None:
    caller = call(free_port(), name=None)
    with at_once("the end"):
        caller.link.shut_down()
        caller.ends(GIVEN_UP)


def test_who_shuts_it_while_a_session_is_being_opened_ends_it(server: UdpServer, call: Callable[..., Caller]) -> None:
    caller = call(server.port)
    server.hears("C", 0, 0, opening("alice"))
    with at_once("the end"):
        caller.link.shut_down()
        caller.close()


def test_who_shuts_it_then_lets_no_other_address_be_tried(
    servers: Callable[[], UdpServer], call: Callable[..., Caller], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = servers(), servers()
    resolve_to(monkeypatch, ("127.0.0.1", first.port), ("127.0.0.1", second.port))
    caller = call(1)
    first.hears("C", 0, 0, opening("alice"))
    caller.link.shut_down()
    caller.close()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as fence:
        fence.sendto(wire("C", 0, 0, "fence"), ("127.0.0.1", second.port))
    second.hears("C", 0, 0, "fence")


def test_who_shuts_it_in_the_middle_of_a_session_ends_it(inside: Caller) -> None:
    with at_once("the end"):
        inside.link.shut_down()
        inside.ends(GIVEN_UP)


def test_what_is_sent_after_the_end_is_lost_without_a_word(server: UdpServer, inside: Caller) -> None:
    server.says("C", SESSION, 2, "BYE")
    inside.ends("the server closed the session", Bye(""))
    inside.link.close()
    inside.sends(Command("PM"), Data("hello"))
    inside.link.shut_down()


def test_whoever_sends_does_not_wait_for_the_collector() -> None:
    """The bell rings for each request, and need not be heard for each."""
    link = UdpLink(Datagram(), patient, ("127.0.0.1", free_port()), 1.0)
    for number in range(5_000):
        link.send(Data(f"{number}"))
    link.shut_down()
    link.close()


def test_requests_by_the_thousand_are_all_sent(server: UdpServer, inside: Caller) -> None:
    count = 5_000
    inside.sends(*(Data(f"{number}") for number in range(1, 1 + count)))
    for sequence in range(1, 1 + count):
        server.hears("D", SESSION, sequence, f"{sequence}")
        server.says("A", SESSION, sequence)


# --- as the connection has it ---


def test_a_connection_opens_a_new_session_when_the_one_before_is_not_known_any_more(server: UdpServer) -> None:
    reports: queue.SimpleQueue[Any] = queue.SimpleQueue()
    connection = Connection(lambda address, seconds: UdpLink(Datagram(), patient, address, seconds), 30.0, reports.put)
    connection.start(("127.0.0.1", server.port))
    try:
        for session, end in ((SESSION, "ERROR no_session"), (SESSION + 1, "")):
            up = reports.get(timeout=DEADLINE_SECONDS)
            assert isinstance(up, LinkUp)
            up.link.send(Command("alice"))
            server.hears("C", 0, 0, opening("alice"))
            server.says("C", 0, 0, f"COOKIE {session:016x}")
            server.hears("C", 0, 0, opening("alice", f"{session:016x}"))
            server.says("C", session, 1, "WELCOME existing")
            server.hears("A", session, 1)
            assert isinstance(reports.get(timeout=DEADLINE_SECONDS), Welcome)
            if end:
                server.says("C", session, 0, end)
                down = reports.get(timeout=DEADLINE_SECONDS)
                assert down == LinkDown("the server no longer knows this session")
    finally:
        with at_once("the end"):
            connection.close()
    assert reports.get(timeout=DEADLINE_SECONDS) == LinkLost("the client closed the connection")


def test_a_connection_that_is_refused_says_so_with_the_address() -> None:
    port = free_port()
    reports: queue.SimpleQueue[Any] = queue.SimpleQueue()
    connection = Connection(lambda address, seconds: UdpLink(Datagram(), patient, address, seconds), 0.0, reports.put)
    connection.start(("127.0.0.1", port))
    reports.get(timeout=DEADLINE_SECONDS).link.send(Command("alice"))
    assert reports.get(timeout=DEADLINE_SECONDS) == LinkDown(
        f"can't reach 127.0.0.1:{port} over UDP: Connection refused"
    )
    connection.close()
