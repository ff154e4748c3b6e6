"""The TCP transport: it never makes the sender wait, and loses nothing at the end."""

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from types import SimpleNamespace

import pytest

from chatserver.net.sendqueue import HALF_CLOSED_SECONDS, SendQueue
from chatserver.net.transport import TcpTransport

from .helpers import DEADLINE_SECONDS, eventually, in_background, must_end, read_all

MUCH = 10_000_000


class Pair:
    """A TCP connection within this machine."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            self.peer = socket.create_connection(listening.getsockname())
            self.ours, _ = listening.accept()
        self.peer.settimeout(DEADLINE_SECONDS)
        self.transport = TcpTransport(self.ours)

    def fill(self) -> int:
        """Write until the system takes no more; a moment later it may. Returns the bytes taken."""
        self.ours.setblocking(False)
        taken_bytes = 0
        with suppress(BlockingIOError):
            while True:
                taken_bytes += self.transport.write([b"x" * 100_000])
        return taken_bytes

    def close(self) -> None:
        self.ours.close()
        self.peer.close()


@pytest.fixture
def pair() -> Iterator[Pair]:
    pair = Pair()
    yield pair
    pair.close()


def test_read_returns_at_most_the_requested_bytes(pair: Pair) -> None:
    """And nothing at the end, or an error if nothing arrives in time."""
    with pytest.raises(TimeoutError):
        pair.transport.read(100, 0.001)
    pair.peer.sendall(b"hello")
    assert pair.transport.read(2, DEADLINE_SECONDS) == b"he"
    assert pair.transport.read(100, DEADLINE_SECONDS) == b"llo"
    pair.peer.close()
    assert pair.transport.read(100, DEADLINE_SECONDS) == b""


def test_timeout_is_set_only_if_it_changes() -> None:
    timeouts: list[float] = []
    transport = TcpTransport(SimpleNamespace(settimeout=timeouts.append, recv=lambda _: b"x"))  # type: ignore[arg-type]
    for timeout in (60.0, 60.0, 5.0, 5.0, 60.0):
        transport.read(1, timeout)
    assert timeouts == [60.0, 5.0, 60.0]


@pytest.mark.parametrize("timeout", [1e-9, 86_400.0])
def test_socket_is_non_blocking_after_a_read(pair: Pair, timeout: float) -> None:
    """Promise: no client waits for a slow one. The sender writes without asking whether a socket would block."""
    pair.peer.sendall(b"x")
    with suppress(TimeoutError):
        pair.transport.read(1, timeout)
    assert not os.get_blocking(pair.transport.descriptor)


def test_pieces_are_written_with_one_system_call() -> None:
    ours, peer = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, peer:
        assert TcpTransport(ours).write([b"one ", b"two ", b"three"]) == 13
        assert peer.recv(100) == b"one two three"


def test_full_socket_takes_a_part_and_then_nothing(pair: Pair) -> None:
    pair.ours.setblocking(False)
    taken_bytes = pair.transport.write([b"x" * MUCH, b"y"])
    assert 0 < taken_bytes < MUCH
    taken_bytes += pair.fill()
    pair.transport.end()
    assert read_all(pair.peer) == b"x" * taken_bytes


def test_unacknowledged_bytes_are_counted(pair: Pair) -> None:
    """None for a closed transport. The position moves with them."""
    assert pair.transport.unacknowledged_bytes() == 0
    start = pair.transport.acknowledged()
    taken_bytes = pair.fill()
    assert 0 < pair.transport.unacknowledged_bytes() <= taken_bytes
    assert start + taken_bytes <= pair.transport.written() + 1
    reader = in_background(lambda: read_all(pair.peer))
    eventually(lambda: pair.transport.unacknowledged_bytes() == 0)
    assert pair.transport.acknowledged() == start + taken_bytes
    pair.transport.end()
    must_end(reader)
    pair.transport.close()
    assert pair.transport.unacknowledged_bytes() == 0


def test_end_of_a_dead_or_closed_connection_is_no_error(pair: Pair) -> None:
    pair.transport.write([b"unread"])
    eventually(lambda: pair.transport.unacknowledged_bytes() == 0)
    pair.peer.close()  # with unread bytes: a reset
    for _ in range(2):
        pair.transport.end()
        pair.transport.hang_up()
        pair.transport.close()
    assert (pair.transport.is_socket, pair.transport.descriptor) == (True, -1)


def test_peer_that_closed_its_side_is_told_from_one_that_is_lost(pair: Pair) -> None:
    """A waiting request is dropped at once or after a second: the first peer may still read."""
    queue = SendQueue(pair.transport, "bytes", lambda _: b"", "1@test", lambda _: None, lambda _: iter(()))
    assert not queue.is_abandoned(1_000)
    pair.peer.send(b"login")
    pair.peer.shutdown(socket.SHUT_WR)
    eventually(lambda: pair.transport.has_ended)
    assert not pair.transport.is_lost
    assert not queue.is_abandoned(HALF_CLOSED_SECONDS)
    assert queue.is_abandoned(HALF_CLOSED_SECONDS + 0.1)
    pair.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    pair.peer.close()
    eventually(lambda: pair.transport.is_lost)
    assert queue.is_abandoned(0)


def test_request_of_a_queue_that_is_finished_is_abandoned(pair: Pair) -> None:
    """At shutdown."""
    queue = SendQueue(pair.transport, "bytes", lambda _: b"", "1@test", lambda _: None, lambda _: iter(()))
    queue.finish()
    assert queue.is_abandoned(0)
