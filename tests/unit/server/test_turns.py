"""Turns: quiet readers wake up one after the other, and none is forgotten."""

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from queue import SimpleQueue

import pytest

from chatserver.net.read_turns import ReadTurns, Waiter
from chatserver.net.transport import TcpTransport

from .rooms import DEADLINE_SECONDS, eventually, in_background, must_end

READERS = 20


class Room:
    """Turns, and sockets that are read with them. Nobody is active: every read is a turn."""

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
        """Our end, and the peer's."""
        pair = socket.socketpair()
        self._sockets += pair
        for end in pair:
            end.settimeout(DEADLINE_SECONDS)
        return pair

    def stop(self) -> None:
        while self._started:
            self._started.pop().stop()

    def close(self) -> None:
        self.stop()
        for sock in self._sockets:
            sock.close()
        assert self.crashes == []


@pytest.fixture
def room() -> Iterator[Room]:
    room = Room()
    yield room
    room.close()


class Reader:
    """Reads with turns in a thread of its own, once for each time it is asked to."""

    def __init__(self, room: Room, patience_seconds: float = DEADLINE_SECONDS) -> None:
        self.ours, self.peer = room.pair()
        self.transport = TcpTransport(self.ours, room.turns)
        self.got: SimpleQueue[bytes | Exception] = SimpleQueue()
        self.thread = in_background(lambda: self._read(patience_seconds))

    def _read(self, patience_seconds: float) -> None:
        try:
            self.got.put(self.transport.read(100, patience_seconds))
        except OSError as error:
            self.got.put(error)

    def result(self) -> bytes | Exception:
        return self.got.get(timeout=DEADLINE_SECONDS)


def test_one_reader_at_a_time_is_awake(room: Room) -> None:
    """All sockets are readable in the same moment; the others sleep until the one that is awake passes on."""
    awake: list[int] = []
    most: list[int] = []
    may_go = threading.Semaphore(0)
    pairs = [room.pair() for _ in range(READERS)]

    def read(number: int, waiter: Waiter) -> None:
        room.turns.wait(waiter, DEADLINE_SECONDS)
        awake.append(number)
        most.append(len(awake))
        may_go.acquire()
        awake.remove(number)
        room.turns.pass_on()

    threads = [
        in_background(lambda number=number, ours=ours: read(number, room.turns.add(ours.fileno())))  # type: ignore[misc]
        for number, (ours, _) in enumerate(pairs)
    ]
    for _, peer in pairs:
        peer.send(b"x")
    for count in range(1, READERS + 1):
        eventually(lambda count=count: len(most) == count)  # type: ignore[misc]
        may_go.release()
    for thread in threads:
        must_end(thread)
    assert most == [1] * READERS


def test_a_reader_without_a_time_limit_waits_for_one_turn_of_those_with_one(room: Room) -> None:
    """Thousands of strangers close at once; a user who is logged in does not wait for all of them."""
    turns = room.turns
    had: list[float] = []

    def read(waiter: Waiter, patience_seconds: float) -> None:
        turns.wait(waiter, patience_seconds)
        had.append(patience_seconds)
        turns.pass_on()

    pairs = [room.pair() for _ in range(9)]
    waiters = [turns.add(ours.fileno()) for ours, _ in pairs]
    pairs[0][1].send(b"x")
    turns.wait(waiters[0], DEADLINE_SECONDS)  # keeps the turn
    limits = [60.0] * 6 + [86_400.0] * 2
    threads = [in_background(partial(read, *each)) for each in zip(waiters[1:], limits, strict=True)]
    for _, peer in pairs[1:]:
        peer.send(b"x")
    eventually(lambda: turns.count_ready() == len(limits))
    turns.pass_on()
    for thread in threads:
        must_end(thread)
    assert sorted(had[:4]) == [60.0, 60.0, 86_400.0, 86_400.0]


def test_what_arrived_is_read(room: Room) -> None:
    reader = Reader(room)
    reader.peer.send(b"hello")
    assert reader.result() == b"hello"


@pytest.mark.parametrize("whose", ["peer's", "ours"])
def test_the_end_is_seen(room: Room, whose: str) -> None:
    """The peer closes, or the server hangs up."""
    reader = Reader(room)
    if whose == "ours":
        reader.transport.hang_up()
    else:
        reader.peer.close()
    assert reader.result() == b""


def test_what_is_left_unread_is_reported_again(room: Room) -> None:
    """The sockets are armed for one event; a reader that took a part of what came must not wait for more to come."""
    ours, peer = room.pair()
    transport = TcpTransport(ours, room.turns)
    peer.send(b"abc")
    assert [transport.read(1, DEADLINE_SECONDS) for _ in range(3)] == [b"a", b"b", b"c"]


def test_patience_ends_and_the_turn_is_passed_on(room: Room) -> None:
    ours, peer = room.pair()
    transport = TcpTransport(ours, room.turns)
    with pytest.raises(TimeoutError):
        transport.read(100, 0.01)
    peer.send(b"later")
    assert transport.read(100, DEADLINE_SECONDS) == b"later"


def test_a_reader_that_finds_nothing_waits_on(room: Room) -> None:
    """The bytes of which it was told are gone when its turn comes."""
    ours, peer = room.pair()
    first = room.turns.add(ours.fileno())
    peer.send(b"x")
    room.turns.wait(first, DEADLINE_SECONDS)  # keeps the turn
    second = Reader(room)
    second.peer.send(b"gone")
    taken = b""
    while not taken:
        with suppress(BlockingIOError):
            taken = second.ours.recv(100)
    room.turns.pass_on()
    second.peer.send(b"here")
    assert second.result() == b"here"


def test_the_number_of_active_readers_is_limited(room: Room) -> None:
    turns = room.more_turns(active_max=2)
    first, second, third = (turns.add(room.pair()[0].fileno()) for _ in range(3))
    for waiter in (first, first, second):
        assert turns.be_active(waiter)
    assert not turns.be_active(third)
    turns.remove(first)  # its reader has ended
    assert turns.be_active(third)
    turns.be_quiet(second)
    turns.be_quiet(second)
    fourth = turns.add(room.pair()[0].fileno())
    assert turns.be_active(fourth)
    assert not turns.be_active(second)


def test_readers_end_when_nobody_wakes_them_any_more(room: Room) -> None:
    """The thread may have crashed; the server ends then, and joins its readers."""
    waiting = Reader(room)
    late = TcpTransport(room.pair()[0], room.turns)
    room.stop()
    assert isinstance(waiting.result(), ConnectionAbortedError)
    with pytest.raises(ConnectionAbortedError):
        late.read(100, DEADLINE_SECONDS)


def test_a_quiet_active_reader_waits_for_a_turn(room: Room) -> None:
    """It is active for a second; what arrives after that is read in a turn, and its place is free."""
    turns = room.more_turns(active_max=1)
    ours, peer = room.pair()
    transport = TcpTransport(ours, turns)
    with pytest.raises(TimeoutError):
        transport.read(100, 1.1)
    other = turns.add(room.pair()[0].fileno())
    assert turns.be_active(other)
    peer.send(b"hello")
    assert transport.read(100, DEADLINE_SECONDS) == b"hello"


def test_a_system_without_epoll_has_a_server_without_turns() -> None:
    script = """
import select
for name in [name for name in vars(select) if "epoll" in name.lower()]:
    delattr(select, name)
import chatserver.app
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=DEADLINE_SECONDS)
