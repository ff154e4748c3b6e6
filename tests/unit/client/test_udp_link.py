"""UdpLink against a server played by a test: addresses, foreign datagrams, threads, and the end."""

import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from raw_steps import Command, Data, encode_request

from chatclient.inbox import Inbox
from chatclient.links.connection import Connection, LinkDown, LinkLost, LinkUp
from chatclient.links.udp import UdpLink
from chatprotocol.events import AccountKind, Bye, Event, PasswordPrompt, PublicMessage, Welcome
from chatprotocol.wire import Datagram

from .udp_server import COOKIE, DEADLINE_SECONDS, SESSION, UdpServer, opening, wire
from .watches import patient

PROMPT = PasswordPrompt(account=AccountKind.NEW)
Place = tuple[Any, ...]


class Caller:
    """A link and its receiver thread: the events that it reports, and how it ends."""

    def __init__(self, port: int, seconds: float, places: list[Place]) -> None:
        resolved = [
            (socket.AF_INET6 if len(place) == 4 else socket.AF_INET, socket.SOCK_DGRAM, 0, "", place)
            for place in places or [("127.0.0.1", port)]
        ]
        self.link = UdpLink(Datagram().client(), patient, ("a name", port), seconds, lambda *_, **__: resolved)
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._reason: str | None = None
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="receiver", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._reason = self.link.receive(self._events.put)
        except Exception as error:
            self._error = error

    def sends(self, *requests: Command | Data) -> None:
        for request in requests:
            self.link.send(encode_request(Datagram(), request))

    def reports(self, *events: Event) -> None:
        """These are the next events."""
        for expected in events:
            assert self._events.get(timeout=DEADLINE_SECONDS) == expected

    def ends(self, reason: str, *events: Event) -> None:
        """The receiver thread ends for this reason, after these events."""
        self._join()
        assert (self._error, self._reason) == (None, reason)
        assert [self._events.get_nowait() for _ in range(self._events.qsize())] == list(events)

    def fails(self, error_type: type[Exception], reason: str) -> None:
        """The receiver thread ends with this error."""
        self._join()
        assert isinstance(self._error, error_type), self._reason or self._error
        assert reason in str(self._error)

    def close(self) -> None:
        self.link.shut_down()
        self._join()
        self.link.close()

    def _join(self) -> None:
        self._thread.join(DEADLINE_SECONDS)
        assert not self._thread.is_alive(), "the receiver thread still runs"


Call = Callable[..., Caller]


@contextmanager
def at_once(what: str) -> Iterator[None]:
    """Long before a timeout."""
    started = time.monotonic()
    yield
    assert time.monotonic() - started < DEADLINE_SECONDS / 2, f"{what} took {time.monotonic() - started:.1f} s"


@pytest.fixture
def serve() -> Iterator[Callable[[], UdpServer]]:
    with ExitStack() as stack:

        def serve() -> UdpServer:
            server = UdpServer()
            stack.callback(server.close)
            return server

        yield serve


@pytest.fixture
def server(serve: Callable[[], UdpServer]) -> UdpServer:
    return serve()


@pytest.fixture
def call() -> Iterator[Callable[..., Caller]]:
    """Opens links; no thread of theirs may be left."""
    before = set(threading.enumerate())
    with ExitStack() as stack:

        def call(port: int, *places: Place, seconds: float = 40.0, name: str | None = "alice") -> Caller:
            caller = Caller(port, seconds, list(places))
            stack.callback(caller.close)
            if name is not None:
                caller.sends(Command(name))
            return caller

        yield call
    assert set(threading.enumerate()) <= before


@pytest.fixture
def inside(server: UdpServer, call: Call) -> Caller:
    """A caller with a session that was asked for its password."""
    caller = call(server.port)
    server.opens()
    caller.reports(PROMPT)
    return caller


@pytest.fixture
def closed_port(serve: Callable[[], UdpServer]) -> int:
    refusing = serve()
    refusing.refuse()
    return refusing.port


def public(message_id: int, text: str) -> tuple[str, PublicMessage]:
    """A message as the server sends it, and its event."""
    return f"PUBLIC bob {message_id} 5\n{text}", PublicMessage(message_id, 5, "bob", text)


HELLO_TEXT, HELLO = public(7, "hello")


def test_closed_port_fails_at_once(call: Call, closed_port: int) -> None:
    with at_once("the refusal"):
        call(closed_port).fails(OSError, f"can't reach a name:{closed_port} over UDP: Connection refused")


@pytest.mark.parametrize("first", ["IPv4", "IPv6"])
def test_second_address_is_tried_if_the_first_refuses(
    server: UdpServer, call: Call, closed_port: int, first: str
) -> None:
    """For example localhost, if the server listens on IPv4 only."""
    with at_once("the second address"):
        refusing = ("127.0.0.1", closed_port) if first == "IPv4" else ("::1", closed_port, 0, 0)
        caller = call(closed_port, refusing, ("127.0.0.1", server.port))
        server.opens()
        caller.reports(PROMPT)


def test_all_addresses_share_the_timeout(serve: Callable[[], UdpServer], call: Call) -> None:
    """A silent one is followed by the next."""
    silent = [serve() for _ in range(12)]
    started = time.monotonic()
    with at_once("two seconds"):
        caller = call(1, *(("127.0.0.1", each.port) for each in silent), seconds=2.0)
        for each in silent:
            each.hears("C", 0, 0, opening("alice"))
        caller.fails(OSError, "can't reach a name:1 over UDP: no answer")
    assert time.monotonic() - started >= 2.0


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.2"])
def test_foreign_datagrams_are_ignored(server: UdpServer, inside: Caller, address: str) -> None:
    """From strangers that know the session, and for other sessions."""
    forged = public(666, "forged")[0]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.bind((address, 0))
        stranger.sendto(wire("D", SESSION, 2, forged), server.client)
        stranger.sendto(wire("C", SESSION, 0, "ERROR no_session"), server.client)
    server.says("D", SESSION + 1, 2, forged)
    server.says("C", 0, 0, "ERROR server_full")
    server.says("C", 0, 0, f"COOKIE {COOKIE}")
    for short in (b"", wire("D", SESSION, 2)[:-1]):
        server.says_bytes(short)
    server.says("D", SESSION, 2, HELLO_TEXT)
    inside.reports(HELLO)


@pytest.mark.parametrize("is_gone", [False, True])
def test_goodbye_is_acknowledged_three_times(server: UdpServer, inside: Caller, is_gone: bool) -> None:
    """If the server has ended already, it counts all the same. A later request is lost without an error."""
    server.says("C", SESSION, 2, "BYE the server is shutting down")
    if is_gone:
        server.refuse()
    else:
        for _ in range(3):
            server.hears("A", SESSION, 2)
    inside.ends("the server closed the session", Bye("the server is shutting down"))
    inside.link.close()
    inside.sends(Command("PM"), Data("hello"))
    inside.link.shut_down()


def test_server_that_is_gone_is_noticed_with_the_next_request(server: UdpServer, inside: Caller) -> None:
    server.refuse()
    with at_once("the end"):
        inside.sends(Command("secret"))
        inside.fails(ConnectionRefusedError, "Connection refused")


@pytest.mark.parametrize("state", ["unused", "opening", "open"])
def test_shut_down_ends_the_link_in_any_state(serve: Callable[[], UdpServer], call: Call, state: str) -> None:
    """No other address is tried."""
    first, second = serve(), serve()
    places = [("127.0.0.1", each.port) for each in (first, second)]
    caller = call(1, *places, name=None if state == "unused" else "alice")
    match state:
        case "opening":
            first.hears("C", 0, 0, opening("alice"))
        case "open":
            first.opens()
    with at_once("the end"):
        caller.link.shut_down()
        if state == "opening":
            caller.fails(OSError, "can't reach a name:1 over UDP: no answer")
        else:
            caller.ends("the client closed the connection", *([PROMPT] if state == "open" else []))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as fence:
        fence.sendto(wire("C", 0, 0, "fence"), ("127.0.0.1", second.port))
    second.hears("C", 0, 0, "fence")


def test_connection_opens_a_new_session_after_a_restart(server: UdpServer) -> None:
    reports = Inbox()
    client = Datagram().client()
    connection = Connection(lambda address, seconds: UdpLink(client, patient, address, seconds), 30.0, reports)
    connection.start([("127.0.0.1", server.port)])
    try:
        for session in (SESSION, SESSION + 1):
            up = reports.get(timeout_seconds=DEADLINE_SECONDS)
            assert isinstance(up, LinkUp)
            up.link.send(encode_request(Datagram(), Command("alice")))
            server.opens(session=session, text="WELCOME existing")
            assert isinstance(reports.get(timeout_seconds=DEADLINE_SECONDS), Welcome)
            if session == SESSION:
                server.says("C", session, 0, "ERROR no_session")
                down = reports.get(timeout_seconds=DEADLINE_SECONDS)
                assert down == LinkDown("the server no longer knows this session")
    finally:
        with at_once("the end"):
            connection.close()
    assert reports.get(timeout_seconds=DEADLINE_SECONDS) == LinkLost("the client closed the connection")
