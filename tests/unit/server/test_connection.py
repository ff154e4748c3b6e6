"""A connection's reader thread: the wire protocol, time limits, read sizes, back-pressure and the end.

Time limits are tested with a transport that plays arrivals on a simulated clock; the rest with a socket pair.
"""

import queue
import socket
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

import pytest
from structlog.testing import capture_logs
from web_bytes import FIN, TEXT, frame, handshake, request
from web_bytes import PING as PING_FRAME
from web_bytes import PONG as PONG_FRAME

from chatprotocol.address import read_networks
from chatprotocol.events import Bye, Pong
from chatprotocol.requests import Leave, Ping, Request, StepLogin, Unreadable
from chatprotocol.wire import Register, WebSocket, by_name, protocols_with
from chatprotocol.wire.http import Page
from chatserver.net.connection import Connection, ConnectionServices
from chatserver.net.limits import ConnectionLimits
from chatserver.net.sender import Sender
from chatserver.net.sendqueue import ANSWER_MAX_BYTES, SendQueue, State
from chatserver.net.transport import TcpTransport

from .helpers import DEADLINE_SECONDS, FakeSession, eventually, in_background, must_end, read_all
from .udp_line import Clock

PING = b'{"command":"ping"}\n'
PONG = b'{"type":"pong"}\n'
BYE = b'{"type":"bye","reason":"x"}\n'
LEAVE = b'{"command":"EX"}\n'
FRAME = b"C\0\0\0\4PING"
# A request, and an incomplete one.
UNFINISHED = {"json": (PING, PING[:5]), "frames": (FRAME, b"D\0\0\0\5hel"), "frames, header": (FRAME, b"C\0")}
LOGIN_SECONDS = 10.0
Answer = Callable[[FakeSession, Clock], None]
DAY_SECONDS = 86_400.0


class ScriptedTransport:
    """Plays arrivals, in pairs of a time and bytes, on a clock that its reads move. At the end the peer is silent.

    A silent peer closes once the connection waits for a day.
    """

    is_socket = False
    descriptor = -1
    write_max_bytes = 1_000_000
    unsent_bytes = 0
    can_be_closed = True

    def __init__(self, clock: Clock, arrivals: Sequence[tuple[float, bytes]]) -> None:
        self._clock = clock
        self._arrivals = deque((clock.now + at, data) for at, data in arrivals)
        # The size of each read.
        self.sizes: list[int] = []
        self.written = b""
        self.closed = threading.Event()

    def read(self, size_bytes: int, timeout_seconds: float) -> bytes:
        assert timeout_seconds > 0, "0 means no limit to the system"
        self.sizes.append(size_bytes)
        if not self._arrivals and timeout_seconds >= DAY_SECONDS:
            return b""
        if not self._arrivals or self._arrivals[0][0] > self._clock.now + timeout_seconds:
            self._clock.now += timeout_seconds
            raise TimeoutError
        at, data = self._arrivals.popleft()
        self._clock.now = max(self._clock.now, at)
        if len(data) > size_bytes:
            self._arrivals.appendleft((at, data[size_bytes:]))
        return data[:size_bytes]

    def write(self, pieces: Sequence[bytes | memoryview]) -> int:
        self.written += b"".join(pieces)
        return sum(map(len, pieces))

    def close(self) -> None:
        self.closed.set()

    def unacknowledged_bytes(self) -> int:
        return 0

    def __getattr__(self, _: str) -> Callable[..., None]:
        """The rest of the interface does nothing."""
        return lambda *_: None


class Fixture:
    """One connection with a real sender and a fake session, which answers each request with a pong."""

    def __init__(
        self,
        transport: Any,
        clock: Clock | None = None,
        *,
        is_proxied: bool = False,
        login_seconds: float = LOGIN_SECONDS,
    ) -> None:
        self.sender = Sender(1_000_000, lambda _: None)
        more: dict[str, Any] = {} if clock is None else {"clock": clock}
        pages = {"/": Page("text/html", b"<p>", '"1"')}
        services = ConnectionServices(
            protocols_with(Register(), WebSocket(pages)),
            self.sender,
            login_seconds,
            self._open_session,
            ConnectionLimits(trusted_proxies=read_networks("192.0.2.1")),
            behind_proxy=(WebSocket(pages, keeps_alive=False),),
            **more,
        )
        self.ended: queue.SimpleQueue[Connection] = queue.SimpleQueue()
        self.connection = Connection(transport, "192.0.2.1", 1, services, self.ended.put, is_proxied=is_proxied)
        self.addresses: list[str] = []
        self.answer: Callable[[FakeSession], None] = pong
        self.session_type = FakeSession
        self.sessions: list[FakeSession] = []
        self._sender_works = False

    @property
    def session(self) -> FakeSession:
        (session,) = self.sessions
        return session

    def _open_session(self, send_queue: SendQueue, label: str, address: str, is_exempt: bool) -> FakeSession:
        assert (label, is_exempt) == (f"1@{address}", False)
        self.addresses.append(address)
        self.sessions.append(self.session_type(send_queue, answer=self.answer))
        return self.session

    def start(self) -> None:
        self.start_sender()
        self.connection.start()

    def start_sender(self) -> None:
        self._sender_works = True
        self.sender.start()

    def await_end(self) -> None:
        self.ended.get(timeout=DEADLINE_SECONDS)
        must_end(self.connection.thread)

    def close(self) -> None:
        if not self._sender_works:
            self.start_sender()
        self.sender.stop(0)


class Wire(Fixture):
    """Over a socket pair."""

    def __init__(self) -> None:
        ours, self.peer = socket.socketpair()
        self.peer.settimeout(DEADLINE_SECONDS)
        super().__init__(TcpTransport(ours), login_seconds=DAY_SECONDS)

    def reader_waits(self) -> bool:
        """True if the reader thread waits for its peer to read."""
        frame = sys._current_frames().get(self.connection.thread.ident or 0)
        return frame is not None and frame.f_code.co_name == "wait"

    def ask(self, data: bytes, answer: bytes) -> None:
        self.peer.sendall(data)
        assert self.read(len(answer)) == answer

    def read(self, size_bytes: int) -> bytes:
        data = b""
        while len(data) < size_bytes and (part := self.peer.recv(size_bytes - len(data))):
            data += part
        return data

    def close(self) -> None:
        self.peer.close()
        for session in self.sessions:
            session.send_queue.finish()  # frees the reader in any case
        if self.connection.thread.ident is not None:
            self.connection.drain()
            self.connection.disconnect()
            self.connection.join()
        super().close()


def pong(session: FakeSession) -> None:
    session.send_queue.put([Pong()])


def logs_in(session: FakeSession, _: Clock) -> None:
    session.is_logged_in = True
    pong(session)


@pytest.fixture
def wire() -> Iterator[Wire]:
    wire = Wire()
    yield wire
    wire.close()


class Played(Fixture):
    """A connection that has ended, and what it did."""

    def __init__(
        self,
        *arrivals: tuple[float, bytes],
        answer: Answer = lambda session, _: pong(session),
        session_type: type[FakeSession] = FakeSession,
        is_proxied: bool = False,
    ) -> None:
        self.clock = Clock()
        started_at = self.clock.now
        self.transport = ScriptedTransport(self.clock, arrivals)
        super().__init__(self.transport, self.clock, is_proxied=is_proxied)
        self.answer = lambda session: answer(session, self.clock)
        self.session_type = session_type
        with capture_logs() as log:
            self.start()
            self.await_end()
            assert self.transport.closed.wait(DEADLINE_SECONDS)
        self.close()
        self.log: list[Any] = [*log]
        # Up to 2 s of it are the wait for the peer to close.
        self.seconds = self.clock.now - started_at
        self.written = self.transport.written
        self.handled = self.session.handled if self.sessions else []
        self.calls = self.session.calls if self.sessions else []


def test_requests_are_handled_in_order_and_answered() -> None:
    """The requests of one read together, so that adjacent messages can be stored together. None after the last one."""
    played = Played((0, PING * 3), (1, PING + LEAVE + PING), (1, PING))
    assert played.session.reads == [[Ping()] * 3, [Ping(), Leave()]]
    assert played.written == PONG * 4 + BYE
    assert played.calls == ["end"]


def test_request_without_an_end_is_reported() -> None:
    played = Played((0, PING + b'{"command":'), (1, b""))
    assert isinstance(played.handled[-1], Unreadable)
    assert played.written == PONG * 2
    assert played.calls == ["end"]


@pytest.mark.parametrize(
    ("first", "protocol", "handled"),
    [
        (PING, "json", Ping()),
        (b"\xef\xbb\xbf" + PING, "json", Ping()),
        (FRAME, "frames", StepLogin("PING")),
        (b"REGISTER TOSEND carol\n\n", "register", None),
    ],
)
def test_first_bytes_decide_the_protocol(first: bytes, protocol: str, handled: Request | None) -> None:
    """Also one by one. A byte order mark is skipped."""
    for arrivals in ([(0.0, first)], [(0.1 * at, bytes([byte])) for at, byte in enumerate(first)]):
        played = Played(*arrivals, answer=logs_in)
        assert played.session.send_queue.protocol == protocol
        assert len(played.handled) == 1
        assert handled is None or played.handled == [handled]


@pytest.mark.parametrize("first", [b"GET/ HTTP/1.1\r\n\r\n", b"\0", b"hello\n", b"\x1b[2J", b"Chello", b"D\0\0\0\1x"])
def test_unknown_protocol_gets_one_line_of_help(first: bytes) -> None:
    """Without the peer's own text: it may be a password."""
    played = Played((0, first))
    line = played.written
    assert line.startswith(b"This is a chat room server. No wire format begins with the bytes ")
    assert rb'Begin with {"command":"login","username":"alice"} (json), or GET / HTTP/1.1 (websocket), or C\x0' in line
    assert line.endswith(rb"or REGISTER TOSEND alice\n\n (register), or NICK alice (irc)." + b"\n")
    assert line.removesuffix(b"\n").decode().isprintable()
    assert [(entry["event"], entry["reason"]) for entry in played.log] == [("connection rejected", "unknown_protocol")]
    assert not played.sessions


def test_peer_that_closes_at_once_has_no_session() -> None:
    played = Played((0, b""))
    assert not played.sessions
    assert (played.written, played.log) == (b"", [])


def test_failing_session_closes_its_own_connection() -> None:
    def fail(*_: object) -> NoReturn:
        raise ZeroDivisionError

    played = Played((0, PING), answer=fail)
    assert [entry["log_level"] for entry in played.log] == ["error"]
    assert played.calls == ["end"]


def test_session_that_cannot_end_ends_the_server(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its user would stay online for ever. The hook gets what is raised in a thread."""
    raised: queue.SimpleQueue[type[BaseException]] = queue.SimpleQueue()
    monkeypatch.setattr(threading, "excepthook", lambda crash: raised.put(crash.exc_type))

    def fail() -> NoReturn:
        raise MemoryError

    wire.answer = lambda session: setattr(session, "end", fail)
    wire.start()
    wire.peer.sendall(PING)
    wire.peer.shutdown(socket.SHUT_WR)
    wire.await_end()
    assert raised.get(timeout=DEADLINE_SECONDS) is MemoryError


def test_connection_that_was_displaced_before_its_first_request_answers_nothing(wire: Wire) -> None:
    """Its reader may be about to open the session. A login would wait although the slot belongs to another one."""
    wire.peer.sendall(PING)
    wire.connection.displace()
    wire.start()
    wire.await_end()
    assert wire.session.handled == []


def test_silent_peer_is_turned_away_after_the_login_time() -> None:
    played = Played()
    assert b"No request arrived for 10 s." in played.written
    assert LOGIN_SECONDS <= played.seconds <= LOGIN_SECONDS + 2


@pytest.mark.parametrize(
    "arrivals", [[(0.0, PING)], [(0.0, PING + PING[:5])], [(at * 3.0, PING) for at in range(10)]], ids=len
)
def test_login_must_be_complete_in_time(arrivals: list[tuple[float, bytes]]) -> None:
    """However much the peer says meanwhile."""
    played = Played(*arrivals)
    assert played.written == PONG * len([each for at, each in arrivals if at < LOGIN_SECONDS]) + BYE
    assert played.calls == ["time_out", "end"]
    assert LOGIN_SECONDS <= played.seconds <= LOGIN_SECONDS + 2


@pytest.mark.parametrize("logs_in", [False, True])
def test_time_limit_that_passes_during_an_answer(logs_in: bool) -> None:
    """It counts. A login is excepted: its password may be checked late."""

    def answer_slowly(session: FakeSession, clock: Clock) -> None:
        clock.now += 2 * LOGIN_SECONDS
        session.is_logged_in = logs_in
        pong(session)

    played = Played((0, PING), (1, PING), answer=answer_slowly)
    assert played.calls == (["end"] if logs_in else ["time_out", "end"])
    assert played.written == (PONG * 2 if logs_in else PONG + BYE)


def test_logged_in_peer_may_be_silent() -> None:
    """For days: longer than one read may take. White space is no incomplete request."""
    played = Played((0, PING + b" "), (3 * DAY_SECONDS, PING), answer=logs_in)
    assert played.handled == [Ping(), Ping()]
    assert played.calls == ["end"]


@pytest.mark.parametrize(("whole", "begun"), UNFINISHED.values(), ids=UNFINISHED)
@pytest.mark.parametrize("later", [0.0, 1_000.0])
def test_incomplete_request_times_out(whole: bytes, begun: bytes, later: float) -> None:
    arrivals = [(later, whole), (later, begun)] if later else [(0.0, whole + begun)]
    if later:
        arrivals.insert(0, (0.0, whole))
    played = Played(*arrivals, answer=logs_in)
    protocol = by_name("json" if whole == PING else "frames")
    assert played.written == protocol.encode_all([*[Pong()] * (2 if later else 1), Bye("x")])
    assert played.calls == ["time_out", "end"]
    assert later + LOGIN_SECONDS <= played.seconds <= later + LOGIN_SECONDS + 2


def test_each_read_restarts_the_time_of_an_incomplete_request() -> None:
    """A complete request ends it."""
    slowly = [(9.0 * at, bytes([byte])) for at, byte in enumerate(PING)]
    end = slowly[-1][0]
    played = Played((0, PING), *slowly, (end + 1_000, PING + PING[:5]), (end + 1_009, PING[5:]), answer=logs_in)
    assert played.handled == [Ping()] * 4
    assert played.calls == ["end"]


class LoggedInByAnother(FakeSession):
    """Logged in by another connection while its own login time ends: a guest has two."""

    _looks = 0

    @property
    def is_logged_in(self) -> bool:  # type: ignore[override]
        self._looks += 1
        return self._looks > 1

    @is_logged_in.setter
    def is_logged_in(self, _: bool) -> None:
        """The dataclass sets it."""


@pytest.mark.parametrize("begun", [b"", PING[:5]])
def test_login_by_another_connection_lifts_the_login_time(begun: bytes) -> None:
    """But not the time for an incomplete request."""
    played = Played((0, PING + begun), (1_000, b""), session_type=LoggedInByAnother)
    assert played.calls == (["time_out", "end"] if begun else ["end"])


HELLO = frame(TEXT, PING.strip())


def test_silent_peer_of_websocket_gets_a_ping_and_then_the_end() -> None:
    """Any byte is an answer."""
    played = Played((1, handshake()), (1, HELLO), (60, frame(PONG_FRAME)), answer=logs_in)
    assert played.written.count(bytes([FIN | PING_FRAME, 0])) == 2
    assert 150.0 <= played.seconds <= 152.0, "pings after 45 s, and 45 s after the answer"
    assert b"\x03\xf0you did not answer a ping within 45 s" in played.written.split(b"\x88")[-1]
    assert [(entry["event"], entry["reason"]) for entry in played.log] == [("disconnected", "peer_lost")]


def test_connection_that_fetched_files_is_closed_after_a_short_silence() -> None:
    """A browser keeps six of them. None is asked for a login."""
    played = Played((0, request("/")), (4, request("/")))
    assert played.written.count(b"HTTP/1.1 200 OK\r\n") == 2
    assert 9.0 <= played.seconds <= 11.0
    assert (played.connection.files_sent, played.calls, played.log) == (2, ["end"], [])


FORWARDED = request("/", X_Forwarded_For="203.0.113.9, 198.51.100.7, 192.0.2.1")


@pytest.mark.parametrize("pieces", [[FORWARDED + FORWARDED], [bytes([byte]) for byte in FORWARDED]])
def test_proxy_of_http_announces_the_address_in_the_request(pieces: list[bytes]) -> None:
    """And for one request only: the next one on the connection may be that of another client."""
    played = Played(*((0.0, piece) for piece in pieces), is_proxied=True)
    assert played.addresses == ["198.51.100.7"]
    assert played.written.count(b"HTTP/1.1 ") == 1
    assert b"\r\nConnection: close\r\n" in played.written


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (request("/", X="x" * 9_000), b"HTTP/1.1 431 "),
        (b"GET / HTTP/1.1\n\n", b"HTTP/1.1 400 "),
        (b"GET / HTTP/1.1\r\n", b""),
        (PING * 2, b""),
        (b"hello, this is neither", b""),
    ],
)
def test_proxy_that_announces_no_address_is_refused(sent: bytes, answer: bytes) -> None:
    played = Played((0, sent), is_proxied=True)
    assert played.written[:13] == answer
    assert not played.sessions


def test_read_size_follows_the_amount_of_data() -> None:
    """Promise: memory stays bounded. Ten thousand quiet connections wait with small buffers."""
    played = Played((0, PING), (1, PING * 9_000), (2, PING), answer=logs_in)
    small, large = 448, 56 * 1024
    # The first request; a full small read; large ones until one returns little; and the end.
    assert played.transport.sizes == [small, small, *[large] * 4, small, small]
    assert len(played.handled) == 9_002


def test_reads_before_the_login_are_small() -> None:
    """Promise: memory stays bounded. What is read at once is held until it is answered, and anybody may connect."""
    played = Played((0, PING * 1_000), (1, b""))
    assert set(played.transport.sizes) == {448}
    assert len(played.handled) == 1_000


def test_peer_that_does_not_read_is_not_read(wire: Wire) -> None:
    """Promise: back-pressure. However much a peer sends, memory stays bounded."""
    text = "x" * (ANSWER_MAX_BYTES // 4)
    wire.answer = lambda session: session.send_queue.put([Bye(text)])
    wire.connection.start()  # without its sender, as if the socket were full
    wire.peer.sendall(PING)
    eventually(lambda: wire.sessions and wire.session.handled)
    wire.peer.sendall(PING)
    eventually(lambda: wire.reader_waits() or len(wire.session.handled) == 2)
    assert wire.session.handled == [Ping()]
    wire.start_sender()
    answer = BYE.replace(b"x", text.encode())
    assert wire.read(2 * len(answer)) == answer * 2


def test_drained_peer_is_told_and_may_close_first(wire: Wire) -> None:
    """Promise: shutdown. Each client is told. It counts as told once its system has everything."""
    wire.start()
    assert "reader 1@192.0.2.1" in {thread.name for thread in threading.enumerate()}
    wire.ask(PING, PONG)
    assert not wire.connection.has_received_all()
    wire.connection.drain()
    eventually(lambda: wire.session.send_queue.state is State.SHUT)
    assert not wire.connection.has_received_all()
    assert read_all(wire.peer) == BYE
    eventually(wire.connection.has_received_all)
    wire.peer.close()
    must_end(in_background(wire.connection.join))
    assert wire.session.calls == ["say_bye"]


def test_drained_connection_reads_and_forgets(wire: Wire) -> None:
    """Promise: shutdown. Closing over unread bytes would destroy what the peer has not read."""
    wire.start()
    wire.ask(PING, PONG)
    wire.connection.drain()
    must_end(in_background(lambda: wire.peer.sendall(PING * 100_000)))
    assert wire.session.handled == [Ping()]
    assert read_all(wire.peer) == BYE


@pytest.mark.parametrize("says", [b"", PING])
def test_disconnect_ends_the_reader(wire: Wire, says: bytes) -> None:
    """Promise: shutdown within 8 s. A peer that has said nothing is disconnected by drain itself."""
    wire.start()
    if says:
        wire.ask(says, PONG)
    wire.connection.drain()
    if says:
        wire.connection.disconnect()
    must_end(in_background(wire.connection.join))


def test_reader_that_waits_for_its_peer_is_freed_by_the_shutdown(wire: Wire) -> None:
    """Promise: shutdown. Every thread is joined."""
    wire.answer = lambda session: session.send_queue.put([Bye("x" * (ANSWER_MAX_BYTES // 4 + 1))])
    wire.connection.start()
    wire.peer.sendall(PING)
    eventually(lambda: wire.sessions and wire.session.handled)
    wire.peer.sendall(PING)
    eventually(wire.reader_waits)
    wire.connection.drain()
    wire.connection.disconnect()
    must_end(in_background(wire.connection.join))
    assert wire.session.handled == [Ping()]
