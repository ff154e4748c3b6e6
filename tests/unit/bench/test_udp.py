"""A UDP socket of the load, against a socket that plays the server with literal datagrams."""

from __future__ import annotations

import select
import socket
from typing import TYPE_CHECKING

import pytest

from bench.udp import UdpSocket

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE_SECONDS = 20.0
SESSION = b"\1\2\3\4\5\6\7\x08"
NO_SESSION = bytes(8)
COOKIE = b"0123456789abcdef"
NAME = b"C\0\0\0\4anna"
# Longer than the time until the first resend.
RESEND_SECONDS = 0.25


def datagram(kind: bytes, number: int, payload: bytes = b"", session: bytes = SESSION) -> bytes:
    return kind + session + number.to_bytes(4, "big") + payload


class Server:
    """The server's socket, and the session under test, for which no time passes."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.settimeout(PATIENCE_SECONDS)
        self.socket.bind(("127.0.0.1", 0))
        self.sock = UdpSocket(self.socket.getsockname()[1], clock=lambda: self.now)
        self.buffer = bytearray(65_536)

    def close(self) -> None:
        self.sock.close()
        self.socket.close()

    def receive(self, count: int) -> list[bytes]:
        """Exactly ``count`` datagrams."""
        received = [self.socket.recv(2_048) for _ in range(count)]
        assert not select.select([self.socket], [], [], 0)[0], f"one more: {self.socket.recv(2_048)!r}"
        return received

    def send(self, *datagrams: bytes) -> bytes | None:
        """Returns the frames that the session has received after these datagrams; None if none is in order."""
        for each in datagrams:
            self.socket.sendto(each, self.sock.getsockname())
        assert select.select([self.sock], [], [], PATIENCE_SECONDS)[0]
        try:
            return bytes(self.buffer[: self.sock.recv_into(self.buffer)])
        except BlockingIOError:
            return None


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def opened(server: Server) -> Server:
    """The session is open, and the server has asked for the password in datagram 1."""
    server.sock.send(NAME)
    server.send(datagram(b"C", 0, b"COOKIE " + COOKIE, NO_SESSION))
    server.send(datagram(b"C", 1, b"PASSWORD new"))
    server.receive(3)
    return server


def test_arrivals_are_acknowledged_and_returned_once_in_order(opened: Server) -> None:
    second, third, fourth = (datagram(b"D", number, b"%d" % number) for number in (2, 3, 4))
    assert opened.send(fourth, third) is None
    assert opened.send(second, fourth) == b"D\0\0\0\1" + b"2D\0\0\0\1" + b"3D\0\0\0\1" + b"4"
    assert opened.receive(5) == [datagram(b"A", number) for number in (4, 3, 2, 4, 4)]


def test_first_frame_opens_the_session_and_is_not_sent_in_it(server: Server) -> None:
    assert server.sock.send(NAME) == len(NAME)
    server.sock.send_due(server.now + RESEND_SECONDS)
    assert server.receive(2) == [datagram(b"C", 0, b"anna".ljust(23), NO_SESSION)] * 2
    assert server.send(datagram(b"C", 0, b"COOKIE " + COOKIE, NO_SESSION)) is None
    assert server.receive(1) == [datagram(b"C", 0, (b"anna " + COOKIE).ljust(23), NO_SESSION)]
    assert not server.sock.is_open
    assert server.send(datagram(b"C", 1, b"PASSWORD new")) == b"C\0\0\0\x0cPASSWORD new"
    assert server.receive(1) == [datagram(b"A", 1)]
    assert server.sock.is_open
    server.sock.send(b"C\0\0\0\6secret")
    assert server.receive(1) == [datagram(b"C", 1, b"secret")]


def test_refusal_of_a_session_is_returned_as_a_frame(server: Server) -> None:
    server.sock.send(NAME)
    assert server.send(datagram(b"C", 0, b"ERROR server_full", NO_SESSION)) == b"C\0\0\0\x11ERROR server_full"
    assert not server.sock.is_open


def test_frames_cut_anywhere_are_sent_one_by_one_and_resent(opened: Server) -> None:
    for byte in b"C\0\0\0\2PMD\0\0\0\5hello":
        assert opened.sock.send(bytes([byte])) == 1
    first, second = datagram(b"C", 1, b"PM"), datagram(b"D", 2, b"hello")
    assert opened.receive(2) == [first, second]
    assert opened.send(datagram(b"A", 1)) is None
    opened.sock.send_due(opened.now)
    assert opened.receive(0) == []
    opened.sock.send_due(opened.now + RESEND_SECONDS)
    assert opened.receive(1) == [second]


def test_unacknowledged_datagrams_and_queued_frames_are_limited(opened: Server) -> None:
    frames = b"D\0\0\0\1x" * 1_000
    for _ in range(3):
        assert opened.sock.send(frames) == len(frames)
    with pytest.raises(BlockingIOError):
        opened.sock.send(frames)
    assert opened.receive(64) == [datagram(b"D", number, b"x") for number in range(1, 65)]
    opened.send(datagram(b"A", 1))
    assert opened.receive(1) == [datagram(b"D", 65, b"x")]


def test_idle_session_pings_when_it_is_due(opened: Server) -> None:
    opened.sock.send_due(opened.now + 14.0)
    assert opened.receive(0) == []
    opened.sock.send_due(opened.now + 15.0)
    assert opened.receive(1) == [datagram(b"C", 1, b"PING")]


def test_goodbye_ends_the_session_after_all_datagrams_before_it(opened: Server) -> None:
    opened.sock.log_out()
    assert opened.receive(1) == [datagram(b"C", 1, b"EX")]
    assert opened.send(datagram(b"A", 1), datagram(b"C", 3, b"BYE")) is None
    assert opened.receive(1) == [datagram(b"A", 3)]
    assert opened.sock.is_open
    assert opened.send(datagram(b"D", 2, b"x")) == b""
    assert opened.receive(3) == [datagram(b"A", 2)] * 3
    assert not opened.sock.is_open
    with pytest.raises(BrokenPipeError):
        opened.sock.send(b"C\0\0\0\2PM")


def test_session_that_the_server_does_not_know_is_lost(opened: Server) -> None:
    with pytest.raises(ConnectionResetError, match="the server no longer knows this session"):
        opened.send(datagram(b"C", 0, b"ERROR no_session There is no such session."))
