"""A connection's reader thread, over a socket pair: sniffing, time limits, back-pressure, the end."""

import os
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import NoReturn

import pytest
from structlog.testing import capture_logs

from chatprotocol.events import Bye, Pong
from chatprotocol.requests import Command, Leave, Ping, Unreadable
from chatprotocol.wire import PROTOCOLS, by_name
from chatserver.net import connection as connection_module
from chatserver.net.broadcast import BroadcastBuffer
from chatserver.net.connection import Connection, ConnectionServices
from chatserver.net.sender import Sender
from chatserver.net.sendqueue import UNREAD_MAX_BYTES, SendQueue
from chatserver.net.transport import TcpTransport

from .rooms import DEADLINE_SECONDS, FakeSession, eventually, in_background, must_end

PING = b'{"command":"ping"}\n'
PONG = b'{"type":"pong"}\n'
BYE = b'{"type":"bye","reason":"x"}\n'
FRAME = b"C\0\0\0\4PING"
# Of each dialect something whole, and something that has begun.
BEGUN = {"json": (PING, b'{"command":'), "frames": (FRAME, b"D\0\0\0\5hel"), "frames, a header": (FRAME, b"C\0")}


class Wire:
    """One connection with a real courier and a fake session."""

    def __init__(self, login_seconds: float = 1_000.0) -> None:
        self.broadcasts = {protocol.name: BroadcastBuffer(protocol.encode_all, 1_000_000) for protocol in PROTOCOLS}
        self.sender = Sender(list(self.broadcasts.values()), 1_000_000, lambda _: None)
        services = ConnectionServices(PROTOCOLS, self.broadcasts, self.sender, login_seconds, self._open_session)
        self._sender_works = False
        ours, self.peer = socket.socketpair()
        self.peer.settimeout(DEADLINE_SECONDS)
        self.ended: queue.SimpleQueue[Connection] = queue.SimpleQueue()
        self.connection = Connection(TcpTransport(ours), "test", 1, services, self.ended.put)
        self.session: FakeSession | None = None
        self.answer: Callable[[FakeSession], None] = lambda session: session.send_queue.put([Pong()])

    def _open_session(self, protocol: str, send_queue: SendQueue, label: str, address: str) -> FakeSession:
        self.session = FakeSession(send_queue, answer=self.answer, protocol=protocol)
        assert (label, address) == ("1@test", "test")
        return self.session

    def start(self) -> None:
        self.start_sender()
        self.connection.start()

    def start_sender(self) -> None:
        self._sender_works = True
        self.sender.start()

    def reader_waits(self) -> bool:
        """Does the reader thread wait for its peer to read?"""
        drained = self.session.send_queue._drained if self.session else None
        return drained is not None and bool(drained._waiters)  # type: ignore[attr-defined]

    def read(self, size_bytes: int) -> bytes:
        data = b""
        while len(data) < size_bytes and (part := self.peer.recv(size_bytes - len(data))):
            data += part
        return data

    def read_all(self) -> bytes:
        data = b""
        while part := self.peer.recv(1_000_000):
            data += part
        return data

    def await_end(self) -> None:
        self.ended.get(timeout=DEADLINE_SECONDS)

    def close(self) -> None:
        self.peer.close()
        if self.session is not None:
            self.session.send_queue.finish()  # lets the reader go in any case
        self.connection.drain()
        self.connection.disconnect()
        self.connection.join()
        self.connection.drain()
        if not self._sender_works:
            self.start_sender()
        self.sender.stop(0)
        for broadcast in self.broadcasts.values():
            broadcast.close()


@pytest.fixture
def wire() -> Iterator[Wire]:
    wire = Wire()
    yield wire
    wire.close()


@pytest.fixture
def open_wire() -> Iterator[Callable[[float], Wire]]:
    """Opens wires with a time to log in of their own, and closes them."""
    with ExitStack() as wires:
        yield lambda login_seconds: wires.enter_context(closing(Wire(login_seconds)))


def test_requests_are_handled_in_order_and_answered(wire: Wire) -> None:
    wire.start()
    wire.peer.sendall(PING * 3 + b'{"command":"EX"}\n')

    assert wire.read_all() == PONG * 3 + BYE
    wire.peer.close()
    wire.await_end()
    assert wire.session is not None
    assert wire.session.handled == [Ping(), Ping(), Ping(), Leave()]
    assert wire.session.calls == ["end"]


def test_what_came_in_one_read_is_handed_over_together(wire: Wire) -> None:
    """So that messages that stand together can be posted together."""
    wire.start()
    wire.peer.sendall(PING * 3)
    assert wire.read(3 * len(PONG)) == PONG * 3
    wire.peer.sendall(PING * 2)
    assert wire.read(2 * len(PONG)) == PONG * 2

    assert wire.session is not None
    assert wire.session.reads == [[Ping()] * 3, [Ping()] * 2]


def test_a_peer_that_sends_much_is_read_in_large_pieces_until_it_is_quiet(wire: Wire) -> None:
    """Promise: memory stays bounded. Ten thousand quiet connections wait with small buffers."""
    wire.answer = lambda session: setattr(session, "is_logged_in", True) or session.send_queue.put([Pong()])  # type: ignore[func-returns-value]
    wire.start()
    wire.peer.sendall(PING)
    assert wire.read(len(PONG)) == PONG
    count = 30_000 // len(PING)
    wire.peer.sendall(PING * count)
    assert wire.read(count * len(PONG)) == PONG * count
    wire.peer.sendall(PING)
    assert wire.read(len(PONG)) == PONG

    assert wire.session is not None
    assert len(wire.session.reads) == 4
    eventually(lambda: wire.connection._read_bytes < 512)


def test_who_is_not_logged_in_is_read_in_small_pieces(wire: Wire) -> None:
    """Promise: memory stays bounded. What is read at once is held until it is answered, and anybody may connect."""
    count = 3_000 // len(PING)
    wire.peer.sendall(PING * count)
    wire.start()
    assert wire.read(count * len(PONG)) == PONG * count

    assert wire.session is not None
    assert max(map(len, wire.session.reads)) <= 512 // len(PING) + 1


def test_after_the_last_request_nothing_more_is_handled(wire: Wire) -> None:
    wire.start()
    wire.peer.sendall(b'{"command":"EX"}\n')
    assert wire.read_all() == BYE
    wire.peer.sendall(PING)
    wire.peer.close()
    wire.await_end()

    assert wire.session is not None
    assert wire.session.handled == [Leave()]


def test_of_a_line_that_has_no_end_the_session_is_told(wire: Wire) -> None:
    wire.start()
    wire.peer.sendall(PING + b'{"command":')
    wire.peer.shutdown(socket.SHUT_WR)

    assert wire.read_all() == PONG * 2
    wire.await_end()
    assert wire.session is not None
    assert isinstance(wire.session.handled[-1], Unreadable)
    assert wire.session.calls == ["end"]


def test_a_connection_is_answered_in_the_dialect_that_it_begins_with(wire: Wire) -> None:
    """Though its first bytes come one by one."""
    wire.start()
    for byte in FRAME:
        wire.peer.sendall(bytes([byte]))
    pong = by_name("frames").encode(Pong())

    assert wire.read(len(pong)) == pong
    assert wire.session is not None
    assert wire.session.handled == [Command("PING")]


def test_a_byte_order_mark_at_the_beginning_is_no_part_of_what_is_said(wire: Wire) -> None:
    wire.start()
    for byte in b"\xef\xbb\xbf" + PING:
        wire.peer.sendall(bytes([byte]))

    assert wire.read(len(PONG)) == PONG
    assert wire.session is not None
    assert wire.session.handled == [Ping()]


@pytest.mark.parametrize(
    ("first", "protocol"), [(PING, "json"), (FRAME, "frames"), (b"REGISTER TOSEND carol\n\n", "register")]
)
def test_the_session_is_the_one_of_the_dialect_that_the_connection_begins_with(
    wire: Wire, first: bytes, protocol: str
) -> None:
    wire.start()
    wire.peer.sendall(first)
    eventually(lambda: wire.session is not None and wire.session.handled)

    assert wire.session is not None
    assert wire.session.protocol == protocol
    assert wire.session.send_queue.broadcast is wire.broadcasts[protocol]


@pytest.mark.parametrize("first", [b"GET / HTTP/1.1\r\n\r\n", b"\0", b"hello\n", b"\x1b[2J", b"Chello", b"D\0\0\0\1x"])
def test_a_stranger_gets_one_line_that_says_how_to_begin(wire: Wire, first: bytes) -> None:
    with capture_logs() as log:
        wire.start()
        wire.peer.sendall(first)
        line = wire.read_all()
        wire.peer.close()
        wire.await_end()

    assert line.startswith(b"This is a chat room server. ")
    assert line.count(b"\n") == 1
    assert rb'Begin with {"command":"login","username":"alice"} (json), or C\x00\x00\x00\x05alice (frames), or ' in line
    assert rb"or REGISTER TOSEND alice\n\n (register)." in line
    assert line.removesuffix(b"\n").decode().isprintable()
    assert [(entry["event"], entry["reason"]) for entry in log] == [("connection rejected", "unknown_protocol")]
    assert wire.session is None


def test_a_peer_that_says_nothing_and_closes_is_forgotten(wire: Wire) -> None:
    wire.start()
    wire.peer.close()
    wire.await_end()

    assert wire.session is None


def test_a_session_that_fails_closes_its_own_connection_only(wire: Wire) -> None:
    def fail(_: FakeSession) -> None:
        raise ZeroDivisionError

    wire.answer = fail
    with capture_logs() as log:
        wire.start()
        wire.peer.sendall(PING)
        assert wire.read_all() == b""
        wire.await_end()

    assert [entry["log_level"] for entry in log] == ["error"]
    assert wire.session is not None
    assert wire.session.calls == ["end"]


def test_a_session_that_cannot_end_ends_the_server(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its user would stay online for ever. What is raised in a thread comes to the hook."""
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


# --- the time to log in ---


def test_a_peer_that_says_nothing_in_its_time_is_turned_away() -> None:
    wire = Wire(login_seconds=0.001)
    with capture_logs():
        wire.start()
        assert b"Nothing was said for 0.001 s." in wire.read_all()
    wire.close()


def test_a_peer_that_does_not_log_in_in_its_time_is_timed_out() -> None:
    wire = Wire(login_seconds=0.2)
    wire.start()
    wire.peer.sendall(PING)

    assert wire.read_all() == PONG + BYE
    assert wire.session is not None
    assert wire.session.calls[:1] == ["time_out"]
    wire.close()


def test_a_peer_whose_time_passes_while_it_is_answered_is_timed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """No read without a limit: a time of 0 means for ever to the kernel."""
    wire = Wire(login_seconds=1_000.0)
    clock = connection_module.time.monotonic

    def answer_slowly(session: FakeSession) -> None:
        monkeypatch.setattr(connection_module.time, "monotonic", lambda: clock() + 2_000.0)
        session.send_queue.put([Pong()])

    wire.answer = answer_slowly
    wire.start()
    wire.peer.sendall(PING)
    assert wire.read(len(PONG)) == PONG
    wire.peer.settimeout(2.0)
    try:
        last = wire.read_all()
    except TimeoutError:
        last = b"(it still waits)"
    wire.close()

    assert last == BYE


def test_a_peer_that_has_logged_in_may_be_silent() -> None:
    wire = Wire(login_seconds=0.2)

    def log_in(session: FakeSession) -> None:
        session.is_logged_in = True
        session.send_queue.put([Pong()])

    wire.answer = log_in
    wire.start()
    wire.peer.sendall(PING)
    wire.read(len(PONG))
    wire.peer.settimeout(0.4)
    with pytest.raises(TimeoutError):
        wire.peer.recv(1)
    wire.close()


def test_a_peer_whose_time_passes_while_it_logs_in_is_not_timed_out(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have to wait long for its password to be checked."""
    clock = connection_module.time.monotonic

    def log_in_slowly(session: FakeSession) -> None:
        monkeypatch.setattr(connection_module.time, "monotonic", lambda: clock() + 2_000.0)
        session.is_logged_in = True
        session.send_queue.put([Pong()])

    wire.answer = log_in_slowly
    wire.start()
    for _ in range(2):
        wire.peer.sendall(PING)
        assert wire.read(len(PONG)) == PONG


def test_a_peer_that_was_silent_for_longer_than_a_read_may_take_is_answered_all_the_same(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "_FOREVER_SECONDS", 0.02)

    def log_in(session: FakeSession) -> None:
        session.is_logged_in = True
        session.send_queue.put([Pong()])

    wire.answer = log_in
    wire.start()
    wire.peer.sendall(PING)
    assert wire.read(len(PONG)) == PONG
    wire.peer.settimeout(0.1)
    with pytest.raises(TimeoutError):
        wire.peer.recv(1)
    wire.peer.settimeout(DEADLINE_SECONDS)
    wire.peer.sendall(PING)

    assert wire.read(len(PONG)) == PONG


def in_the_room_by_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose time to log in passes is logged in just then, by what another connection said."""
    read = Connection._read

    def read_and_log_in(connection: Connection, *, is_known: bool, is_inside: bool) -> bytes | None:
        data = read(connection, is_known=is_known, is_inside=is_inside)
        if data is None and not is_known:
            session = connection._session
            assert isinstance(session, FakeSession)
            session.is_logged_in = True
        return data

    monkeypatch.setattr(Connection, "_read", read_and_log_in)


def test_who_was_logged_in_meanwhile_by_another_connection_may_be_silent(
    open_wire: Callable[[float], Wire], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A guest has two. The one that was first may have waited for long."""
    in_the_room_by_then(monkeypatch)
    wire = open_wire(0.1)
    wire.start()
    wire.peer.sendall(PING)
    assert wire.read(len(PONG)) == PONG
    eventually(lambda: wire.session is not None and wire.session.is_logged_in)
    assert stays_silent(wire, 0.3)
    wire.peer.sendall(PING)

    assert wire.read(len(PONG)) == PONG
    assert wire.session is not None
    assert wire.session.calls == []


def test_who_was_logged_in_meanwhile_and_leaves_something_unfinished_is_timed_out(
    open_wire: Callable[[float], Wire], monkeypatch: pytest.MonkeyPatch
) -> None:
    in_the_room_by_then(monkeypatch)
    wire = open_wire(0.1)
    wire.start()
    wire.peer.sendall(PING + b'{"command":')

    assert wire.read_all() == PONG + BYE
    assert wire.session is not None
    assert wire.session.is_logged_in


# --- the time to complete what was begun ---


def log_in(session: FakeSession) -> None:
    session.is_logged_in = True
    session.send_queue.put([Pong()])


def stays_silent(wire: Wire, seconds: float) -> bool:
    """Is the peer told nothing for so long?"""
    wire.peer.settimeout(seconds)
    try:
        wire.peer.recv(1)
    except TimeoutError:
        return True
    finally:
        wire.peer.settimeout(DEADLINE_SECONDS)
    return False


@pytest.mark.parametrize(("whole", "begun"), BEGUN.values(), ids=BEGUN)
@pytest.mark.parametrize("at_once", [False, True])
def test_who_leaves_something_unfinished_is_timed_out(
    open_wire: Callable[[float], Wire], whole: bytes, begun: bytes, at_once: bool
) -> None:
    wire = open_wire(0.2)
    wire.answer = log_in
    wire.start()
    if at_once:
        wire.peer.sendall(whole + begun)
    else:
        wire.peer.sendall(whole)
        assert wire.peer.recv(100)
        wire.peer.sendall(begun)
    wire.peer.settimeout(2.0)
    try:
        told = wire.read_all()
    except TimeoutError:
        told = b"(it still waits)"
    wire.peer.close()
    wire.await_end()

    protocol = by_name("json" if whole == PING else "frames")
    assert told.removeprefix(protocol.encode(Pong())) == protocol.encode(Bye("x"))
    assert wire.session is not None
    assert wire.session.calls[:2] == ["time_out", "end"]


@pytest.mark.parametrize(("whole", "begun"), BEGUN.values(), ids=BEGUN)
def test_who_leaves_something_unfinished_before_the_login_is_timed_out(
    open_wire: Callable[[float], Wire], whole: bytes, begun: bytes
) -> None:
    wire = open_wire(0.2)
    wire.start()
    wire.peer.sendall(whole + begun)
    told = wire.read_all()

    protocol = by_name("json" if whole == PING else "frames")
    assert told == protocol.encode_all([Pong(), Bye("x")])


def test_who_completes_what_was_begun_may_be_silent_again(open_wire: Callable[[float], Wire]) -> None:
    """Whole and unfinished by turns: the limit is on while something is unfinished, and off again."""
    wire = open_wire(0.2)
    wire.answer = log_in
    wire.start()
    for _ in range(2):
        wire.peer.sendall(PING + PING[:5])
        assert wire.read(len(PONG)) == PONG, "it waits for the rest now"
        wire.peer.sendall(PING[5:])
        assert wire.read(len(PONG)) == PONG
        assert stays_silent(wire, 0.5)
    wire.peer.sendall(PING + b'{"command":')
    told = wire.read(len(PONG + BYE))

    assert told == PONG + BYE


def test_each_byte_of_something_unfinished_may_take_its_time(open_wire: Callable[[float], Wire]) -> None:
    wire = open_wire(0.4)
    wire.answer = log_in
    wire.start()
    wire.peer.sendall(PING)
    assert wire.read(len(PONG)) == PONG
    for byte in PING[:6]:
        wire.peer.sendall(bytes([byte]))
        assert stays_silent(wire, 0.1)
    wire.peer.sendall(PING[6:])
    told = wire.read(len(PONG))

    assert told == PONG


def test_white_space_is_nothing_that_has_begun(open_wire: Callable[[float], Wire]) -> None:
    wire = open_wire(0.1)
    wire.answer = log_in
    wire.start()
    wire.peer.sendall(PING + b" ")
    assert wire.read(len(PONG)) == PONG
    is_left_alone = stays_silent(wire, 0.3)

    assert is_left_alone


def test_whatever_a_peer_does_its_socket_never_makes_the_courier_wait(wire: Wire) -> None:
    """Promise: nobody waits for the slow. The courier writes without asking whether a socket would block."""
    blocking: list[bool] = []

    def note(session: FakeSession) -> None:
        blocking.append(os.get_blocking(session.send_queue.transport.descriptor))
        session.is_logged_in = len(blocking) > 1
        session.send_queue.put([Pong()])

    wire.answer = note
    wire.start()
    for _ in range(5):
        wire.peer.sendall(PING)
        assert wire.read(len(PONG)) == PONG
    wire.peer.sendall(b'{"command":"EX"}\n')
    assert wire.read_all() == BYE
    assert wire.session is not None
    blocking.append(
        os.get_blocking(wire.session.send_queue.transport.descriptor)
    )  # while it waits for the peer to close

    assert blocking == [False] * 6


# --- back-pressure ---


def test_a_peer_that_does_not_read_its_answers_is_not_read_further(wire: Wire) -> None:
    """Promise: back-pressure. However much a peer sends, memory stays bounded."""
    wire.answer = lambda session: session.send_queue.put([Bye("x" * UNREAD_MAX_BYTES)])
    wire.connection.start()  # the courier rests, as it does when a socket is full
    wire.peer.sendall(PING)
    eventually(lambda: wire.session is not None and wire.session.handled)
    wire.peer.sendall(PING)
    session = wire.session
    assert session is not None
    eventually(lambda: wire.reader_waits() or len(session.handled) == 2)
    assert session.handled == [Ping()]

    wire.start_sender()
    answer = BYE.replace(b"x", b"x" * UNREAD_MAX_BYTES)
    assert wire.read(2 * len(answer)) == answer * 2


# --- the end ---


def test_when_the_server_shuts_down_the_peer_is_told_and_may_close_first(wire: Wire) -> None:
    """Promise: shutdown. Each client is told."""
    wire.start()
    wire.peer.sendall(PING)
    wire.read(len(PONG))
    wire.connection.drain()

    assert wire.read_all() == BYE
    wire.peer.close()
    must_end(in_background(wire.connection.join))
    assert wire.session is not None
    assert wire.session.calls == ["say_bye"]


def test_while_the_server_shuts_down_what_comes_is_read_and_forgotten(wire: Wire) -> None:
    """Promise: shutdown. To close over unread bytes would destroy what the peer has not read."""
    wire.start()
    wire.peer.sendall(PING)
    wire.read(len(PONG))
    wire.connection.drain()
    much = in_background(lambda: wire.peer.sendall(PING * 100_000))

    must_end(much)
    assert wire.session is not None
    assert wire.session.handled == [Ping()]
    assert wire.read_all() == BYE


def test_a_peer_that_has_not_read_its_answers_has_not_been_told(wire: Wire) -> None:
    """Promise: shutdown. Until then its connection is not closed."""
    wire.start()
    wire.peer.sendall(PING)
    wire.read(len(PONG))
    assert not wire.connection.has_been_told()
    wire.connection.drain()
    eventually(lambda: wire.session is not None and wire.session.send_queue.shut)
    assert not wire.connection.has_been_told()
    wire.read_all()

    eventually(wire.connection.has_been_told)


def test_a_peer_that_does_not_close_is_cut_off(wire: Wire) -> None:
    """Promise: shutdown within 8 s."""
    wire.start()
    wire.peer.sendall(PING)
    wire.read(len(PONG))
    wire.connection.drain()
    wire.connection.disconnect()

    must_end(in_background(wire.connection.join))


def test_a_peer_that_has_said_nothing_is_cut_off_at_once(wire: Wire) -> None:
    """Promise: shutdown. Nothing is due to it, in no dialect."""
    wire.start()
    wire.connection.drain()

    must_end(in_background(wire.connection.join))
    assert wire.read_all() == b""


def test_a_reader_that_waits_for_its_peer_is_let_go_when_the_server_shuts_down(wire: Wire) -> None:
    """Promise: shutdown. Every thread is joined."""
    wire.answer = lambda session: session.send_queue.put([Bye("x" * (UNREAD_MAX_BYTES + 1))])
    wire.connection.start()
    wire.peer.sendall(PING)
    eventually(lambda: wire.session is not None and wire.session.handled)
    wire.peer.sendall(PING)
    eventually(wire.reader_waits)
    wire.connection.drain()
    wire.connection.disconnect()
    must_end(in_background(wire.connection.join))

    assert wire.session is not None
    assert wire.session.handled == [Ping()]


def test_a_readers_thread_has_a_name(wire: Wire) -> None:
    wire.start()

    assert "reader 1@test" in {thread.name for thread in threading.enumerate()}
