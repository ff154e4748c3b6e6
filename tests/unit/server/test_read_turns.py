"""Read turns: quiet readers wake up one after the other, and none is forgotten."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from queue import SimpleQueue
from types import SimpleNamespace
from typing import cast

import pytest

from chatserver.net.read_turns import ReadTurns, TurnOrder, Waiter
from chatserver.net.transport import TcpTransport

from .helpers import DEADLINE_SECONDS, in_background

READERS = 20


class Fixture:
    """Read turns without active readers, so that every read is a turn; and sockets."""

    def __init__(self) -> None:
        self.crashes: list[str] = []
        self._sockets: list[socket.socket] = []
        self._started: list[ReadTurns] = []
        self.turns = self.more_turns(active_max=0)

    def more_turns(self, active_max: int) -> ReadTurns:
        turns = ReadTurns(self.crashes.append, active_max)
        turns.start()
        self._started.append(turns)
        return turns

    def pair(self) -> tuple[socket.socket, socket.socket]:
        """The reader's end, and the peer's."""
        pair = socket.socketpair()
        self._sockets += pair
        for end in pair:
            end.settimeout(DEADLINE_SECONDS)
        return pair

    def waiter(self, turns: ReadTurns | None = None) -> Waiter:
        return (turns or self.turns).add(self.pair()[0].fileno())

    def stop(self) -> None:
        while self._started:
            self._started.pop().stop()

    def close(self) -> None:
        self.stop()
        for sock in self._sockets:
            sock.close()
        assert self.crashes == []


@pytest.fixture
def fixture() -> Iterator[Fixture]:
    fixture = Fixture()
    yield fixture
    fixture.close()


class Reader:
    def __init__(self, fixture: Fixture) -> None:
        self.ours, self.peer = fixture.pair()
        self.transport = TcpTransport(self.ours, fixture.turns)
        self._got: SimpleQueue[bytes | Exception] = SimpleQueue()
        self.thread = in_background(self._read)

    def _read(self) -> None:
        try:
            self._got.put(self.transport.read(100, DEADLINE_SECONDS))
        except OSError as error:
            self._got.put(error)

    def result(self) -> bytes | Exception:
        return self._got.get(timeout=DEADLINE_SECONDS)


def test_one_reader_at_a_time_is_awake() -> None:
    order = TurnOrder()
    waiters = [Waiter(descriptor) for descriptor in range(READERS)]
    for waiter in waiters:
        order.wait(waiter, deadline=60.0)
    order.note_readable(0)
    assert order.begin() is waiters[0]
    for descriptor in range(1, READERS // 2):
        order.note_readable(descriptor)
        assert order.begin() is None
    order.note_time(60.0)
    assert order.begin() is None
    assert [order.go_on() for _ in range(READERS)] == [*waiters[1:], None]
    order.wait(waiters[0])
    order.note_readable(0)
    assert order.begin() is waiters[0]


def test_users_and_strangers_alternate() -> None:
    """Thousands of strangers close at once; a user who is logged in does not wait for all of them.

    Users may have a time limit as well, such as that of a ping.
    """
    order = TurnOrder()
    for descriptor in range(READERS):
        waiter = Waiter(descriptor)
        waiter.is_user = descriptor >= READERS - 3
        order.wait(waiter, deadline=1.0)
    order.note_time(1.0)
    turns = [order.begin(), *(order.go_on() for _ in range(READERS - 1))]
    assert [turn is not None and turn.is_user for turn in turns] == [True, False] * 3 + [False] * (READERS - 6)


def test_reader_is_one_of_a_user_after_the_login(fixture: Fixture) -> None:
    waiter = fixture.waiter()
    turns = cast("ReadTurns", SimpleNamespace(add=lambda _: waiter))
    transport = TcpTransport(fixture.pair()[0], turns)
    assert not waiter.is_user
    transport.note_login()
    assert waiter.is_user


@pytest.mark.parametrize("event", ["data", "close", "hang up"])
def test_waiting_reader_sees_data_and_the_end(fixture: Fixture, event: str) -> None:
    reader = Reader(fixture)
    acts = {"data": lambda: reader.peer.send(b"hello"), "close": reader.peer.close, "hang up": reader.transport.hang_up}
    acts[event]()
    assert reader.result() == (b"hello" if event == "data" else b"")


def test_unread_data_is_reported_again(fixture: Fixture) -> None:
    """Sockets are armed for one event; a reader that took a part must not wait for more to come."""
    ours, peer = fixture.pair()
    transport = TcpTransport(ours, fixture.turns)
    peer.send(b"abc")
    assert [transport.read(1, DEADLINE_SECONDS) for _ in range(3)] == [b"a", b"b", b"c"]


def test_reader_that_finds_nothing_waits_again(fixture: Fixture) -> None:
    """The bytes that were reported are gone when its turn comes."""
    ours, peer = fixture.pair()
    first = fixture.turns.add(ours.fileno())
    peer.send(b"x")
    fixture.turns.wait(first, DEADLINE_SECONDS)  # keeps the turn
    second = Reader(fixture)
    second.peer.send(b"gone")
    taken = b""
    while not taken:
        with suppress(BlockingIOError):
            taken = second.ours.recv(100)
    fixture.turns.end_turn()
    second.peer.send(b"here")
    assert second.result() == b"here"


def test_number_of_active_readers_is_limited(fixture: Fixture) -> None:
    turns = fixture.more_turns(active_max=2)
    first, second, third, fourth = (fixture.waiter(turns) for _ in range(4))
    assert [turns.try_activate(waiter) for waiter in (first, first, second, third)] == [True, True, True, False]
    turns.remove(first)  # its reader has ended
    assert turns.try_activate(third)
    turns.deactivate(second)
    turns.deactivate(second)
    assert turns.try_activate(fourth)
    assert not turns.try_activate(second)


def test_active_reader_becomes_quiet_and_waits_for_a_turn(fixture: Fixture) -> None:
    """Its place among the active is then free."""
    turns = fixture.more_turns(active_max=1)
    ours, peer = fixture.pair()
    transport = TcpTransport(ours, turns, active_seconds=0.01)
    with pytest.raises(TimeoutError):
        transport.read(100, 0.02)
    assert turns.try_activate(fixture.waiter(turns))
    peer.send(b"hello")
    assert transport.read(100, DEADLINE_SECONDS) == b"hello"


def test_readers_end_with_the_thread(fixture: Fixture) -> None:
    """It may have crashed; the server then ends, and joins its readers."""
    waiting = Reader(fixture)
    late = TcpTransport(fixture.pair()[0], fixture.turns)
    fixture.stop()
    assert isinstance(waiting.result(), OSError)
    with pytest.raises(ConnectionAbortedError):
        late.read(100, DEADLINE_SECONDS)


def test_server_works_on_a_system_without_epoll() -> None:
    script = """
import select
for name in [name for name in vars(select) if "epoll" in name.lower()]:
    delattr(select, name)
import chatserver.app
"""
    subprocess.run([sys.executable, "-c", script], check=True)
