"""What a TCP socket does for a connection: the courier never waits for it, and nothing is lost at the end."""

import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from types import SimpleNamespace

import pytest

from chatserver.net.transport import TcpTransport

from .rooms import DEADLINE_SECONDS, eventually, in_background, must_end

MUCH = 10_000_000


class Pair:
    """A connection of TCP inside this machine."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            self.peer = socket.create_connection(listening.getsockname())
            self.ours, _ = listening.accept()
        self.peer.settimeout(DEADLINE_SECONDS)
        self.transport = TcpTransport(self.ours)

    def fill(self) -> int:
        """Write until nothing more is taken; returns how much was."""
        self.ours.setblocking(False)
        taken_bytes = 0
        with suppress(BlockingIOError):
            while True:
                taken_bytes += self.transport.write([b"x" * 100_000])
        return taken_bytes

    def read_all(self) -> bytes:
        """Until the other side is shut."""
        data = b""
        while part := self.peer.recv(1_000_000):
            data += part
        return data

    def close(self) -> None:
        self.ours.close()
        self.peer.close()


@pytest.fixture
def pair() -> Iterator[Pair]:
    pair = Pair()
    yield pair
    pair.close()


# --- reading ---


def test_what_has_come_is_read_in_pieces_that_are_not_longer_than_was_asked(pair: Pair) -> None:
    pair.peer.sendall(b"hello")

    assert pair.transport.read(2, DEADLINE_SECONDS) == b"he"
    assert pair.transport.read(100, DEADLINE_SECONDS) == b"llo"


def test_who_says_nothing_for_so_long_is_reported(pair: Pair) -> None:
    with pytest.raises(TimeoutError):
        pair.transport.read(100, 0.001)
    pair.peer.sendall(b"x")

    assert pair.transport.read(100, DEADLINE_SECONDS) == b"x"


def test_the_end_is_read_as_nothing(pair: Pair) -> None:
    pair.peer.sendall(b"x")
    pair.peer.close()

    assert pair.transport.read(100, DEADLINE_SECONDS) == b"x"
    assert pair.transport.read(100, DEADLINE_SECONDS) == b""


def test_a_connection_that_was_reset_is_an_error(pair: Pair) -> None:
    pair.transport.write([b"unread"])
    eventually(lambda: pair.transport.unacknowledged_bytes() == 0)
    pair.peer.close()  # over unread bytes

    with pytest.raises(ConnectionResetError):
        pair.transport.read(100, DEADLINE_SECONDS)


def test_how_long_a_read_may_take_is_said_to_the_system_only_where_it_changes() -> None:
    said: list[float] = []
    transport = TcpTransport(SimpleNamespace(settimeout=said.append, recv=lambda _: b"x"))  # type: ignore[arg-type]
    for patience in (60.0, 60.0, 5.0, 5.0, 60.0):
        transport.read(1, patience)

    assert said == [60.0, 5.0, 60.0]


@pytest.mark.parametrize("patience", [1e-9, 0.5, 86_400.0])
def test_who_was_read_once_never_makes_the_courier_wait(pair: Pair, patience: float) -> None:
    """Promise: nobody waits for the slow. The courier writes without asking whether a socket would block."""
    pair.peer.sendall(b"x")
    try:
        pair.transport.read(1, patience)
    except TimeoutError:
        assert patience == 1e-9

    assert not os.get_blocking(pair.transport.descriptor)


# --- writing ---


def test_the_pieces_are_written_together() -> None:
    """In one system call: a socket of packets shows it."""
    ours, peer = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, peer:
        assert TcpTransport(ours).write([b"one ", b"two ", b"three"]) == 13

        assert peer.recv(100) == b"one two three"


def test_a_full_socket_takes_a_part_and_then_nothing(pair: Pair) -> None:
    pair.ours.setblocking(False)
    taken_bytes = pair.transport.write([b"x" * MUCH, b"y"])
    assert 0 < taken_bytes < MUCH
    taken_bytes += pair.fill()
    pair.transport.end()

    assert pair.read_all() == b"x" * taken_bytes


def test_to_write_to_one_who_has_gone_is_an_error(pair: Pair) -> None:
    pair.ours.setblocking(False)
    pair.peer.close()
    faults: list[Exception] = []

    def write() -> list[Exception]:
        try:
            pair.transport.write([b"x"])
        except OSError as error:
            faults.append(error)
        return faults

    eventually(write)
    assert isinstance(faults[0], ConnectionResetError | BrokenPipeError)


# --- the end ---


def test_after_the_end_the_peer_may_still_speak(pair: Pair) -> None:
    pair.transport.write([b"bye"])
    pair.transport.end()
    assert pair.read_all() == b"bye"
    pair.peer.sendall(b"x")

    assert pair.transport.read(1, DEADLINE_SECONDS) == b"x"


def test_who_hangs_up_lets_the_reader_and_the_peer_see_the_end(pair: Pair) -> None:
    """Of any thread, while the reader waits."""
    read: list[bytes] = []
    reader = in_background(lambda: read.append(pair.transport.read(100, DEADLINE_SECONDS)))
    pair.transport.hang_up()
    must_end(reader)

    assert read == [b""]
    assert pair.read_all() == b""


def test_the_end_of_one_that_is_gone_or_closed_is_no_error(pair: Pair) -> None:
    pair.transport.write([b"unread"])
    eventually(lambda: pair.transport.unacknowledged_bytes() == 0)
    pair.peer.close()
    for _ in range(2):
        pair.transport.end()
        pair.transport.hang_up()
        pair.transport.close()

    assert pair.transport.descriptor == -1


def test_it_can_be_closed_though_the_peer_has_not_got_everything(pair: Pair) -> None:
    """The system goes on with it."""
    taken_bytes = pair.fill()
    assert pair.transport.unacknowledged_bytes() > 0
    assert pair.transport.can_be_closed
    pair.transport.close()

    assert len(pair.read_all()) == taken_bytes


def test_what_the_peer_has_not_got_is_counted(pair: Pair) -> None:
    assert pair.transport.unacknowledged_bytes() == 0
    taken_bytes = pair.fill()
    assert 0 < pair.transport.unacknowledged_bytes() <= taken_bytes
    reader = in_background(pair.read_all)

    eventually(lambda: pair.transport.unacknowledged_bytes() == 0)
    pair.transport.end()
    must_end(reader)
    eventually(lambda: pair.transport.unacknowledged_bytes() == 0)


def test_of_a_closed_one_nothing_is_counted(pair: Pair) -> None:
    pair.fill()
    pair.transport.close()

    assert pair.transport.unacknowledged_bytes() == 0


# --- what the courier sees ---


def test_it_is_a_socket_until_it_is_closed(pair: Pair) -> None:
    assert pair.transport.is_socket
    assert pair.transport.descriptor == pair.ours.fileno()
    pair.transport.close()

    assert pair.transport.descriptor == -1


def test_nothing_waits_here_and_the_courier_is_not_called(pair: Pair) -> None:
    calls: list[str] = []
    pair.transport.call_when_due(lambda: calls.append("called"))
    pair.fill()
    pair.transport.flush()
    pair.peer.recv(MUCH)
    pair.transport.flush()

    assert calls == []
