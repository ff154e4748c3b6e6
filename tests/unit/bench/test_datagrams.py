"""Frames over UDP, behind the face of a socket: between it and a server's socket, literal datagrams."""

from __future__ import annotations

import select
import socket
from time import perf_counter
from typing import TYPE_CHECKING

import pytest

from bench.datagrams import Inbox, Link

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE_SECONDS = 5.0
SESSION = b"\1\2\3\4\5\6\7\x08"
NO_SESSION = bytes(8)
COOKIE = b"0123456789abcdef"
ANNA = b"C\0\0\0\4anna"
# Later than when something is sent again for the first time.
LATER_SECONDS = 0.25


def datagram(kind: bytes, number: int, payload: bytes = b"", session: bytes = SESSION) -> bytes:
    return kind + session + number.to_bytes(4, "big") + payload


class Server:
    """The other side, which says and hears nothing of its own accord."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.settimeout(PATIENCE_SECONDS)
        self.socket.bind(("127.0.0.1", 0))
        self.link = Link(self.socket.getsockname()[1])
        self.buffer = bytearray(65_536)

    def close(self) -> None:
        self.link.close()
        self.socket.close()

    def hear(self, count: int) -> list[bytes]:
        """So many datagrams, and no more have come."""
        heard = [self.socket.recv(2_048) for _ in range(count)]
        assert not select.select([self.socket], [], [], 0)[0], f"one more: {self.socket.recv(2_048)!r}"
        return heard

    def say(self, *datagrams: bytes) -> bytes:
        """What the link gives of them; nothing where it has nothing to give."""
        for each in datagrams:
            self.socket.sendto(each, self.link._sock.getsockname())
        assert select.select([self.link], [], [], PATIENCE_SECONDS)[0]
        try:
            return bytes(self.buffer[: self.link.recv_into(self.buffer)])
        except BlockingIOError:
            return b"(nothing)"


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def asked(server: Server) -> Server:
    """The client is in a session, and was asked for its password: the next numbers are 2 and 1."""
    server.link.send(ANNA)
    server.say(datagram(b"C", 0, b"COOKIE " + COOKIE, NO_SESSION))
    assert server.say(datagram(b"C", 1, b"PASSWORD new")) == b"C\0\0\0\x0cPASSWORD new"
    server.hear(3)
    return server


# --- once, and in order ---

ONE, TWO, THREE = (datagram(b"D", number, b"%d" % number) for number in (1, 2, 3))
FRAME_1, FRAME_2, FRAME_3 = (b"D\0\0\0\1%d" % number for number in (1, 2, 3))
ARRIVALS = {
    "in order": ([ONE, TWO, THREE], [FRAME_1, FRAME_2, FRAME_3]),
    "twice": ([ONE, ONE, TWO, ONE], [FRAME_1, b"", FRAME_2, b""]),
    "too early": ([TWO, ONE, THREE], [b"", FRAME_1 + FRAME_2, FRAME_3]),
    "too early, and twice": ([THREE, TWO, THREE, ONE, TWO], [b"", b"", b"", FRAME_1 + FRAME_2 + FRAME_3, b""]),
    "with a gap": ([ONE, THREE], [FRAME_1, b""]),
}


@pytest.mark.parametrize(("datagrams", "frames"), ARRIVALS.values(), ids=ARRIVALS)
def test_each_is_given_once_and_in_order_where_it_comes(datagrams: list[bytes], frames: list[bytes]) -> None:
    inbox = Inbox()
    assert [inbox.take(each) for each in datagrams] == frames


def test_what_comes_is_acknowledged_each_time_and_given_once(asked: Server) -> None:
    second, third = datagram(b"D", 2, b"2"), datagram(b"D", 3, b"3")
    assert asked.say(third) == b"(nothing)"
    assert asked.say(second, third) == FRAME_2 + FRAME_3
    assert asked.hear(3) == [datagram(b"A", number) for number in (3, 2, 3)]


# --- opening ---


def test_the_first_frame_opens_a_session_and_is_not_sent_in_it(server: Server) -> None:
    assert server.link.send(ANNA) == len(ANNA)
    assert server.hear(1) == [datagram(b"C", 0, b"anna".ljust(23), NO_SESSION)]
    assert not server.link.is_open
    assert server.say(datagram(b"C", 0, b"COOKIE " + COOKIE, NO_SESSION)) == b"(nothing)"
    assert server.hear(1) == [datagram(b"C", 0, (b"anna " + COOKIE).ljust(23), NO_SESSION)]
    assert server.say(datagram(b"C", 1, b"PASSWORD new")) == b"C\0\0\0\x0cPASSWORD new"
    assert server.hear(1) == [datagram(b"A", 1)]
    assert server.link.is_open
    server.link.send(b"C\0\0\0\6secret")
    assert server.hear(1) == [datagram(b"C", 1, b"secret")]


def test_an_opening_that_is_not_answered_is_sent_again(server: Server) -> None:
    server.link.send(ANNA)
    server.link.tend(perf_counter() + LATER_SECONDS)
    assert server.hear(2) == [datagram(b"C", 0, b"anna".ljust(23), NO_SESSION)] * 2


def test_why_there_is_no_session_is_given_as_a_frame(server: Server) -> None:
    server.link.send(ANNA)
    assert server.say(datagram(b"C", 0, b"ERROR server_full", NO_SESSION)) == b"C\0\0\0\x11ERROR server_full"
    assert not server.link.is_open


# --- sending ---


def test_frames_are_sent_as_datagrams_wherever_they_are_cut(asked: Server) -> None:
    said = b"C\0\0\0\2PMD\0\0\0\5helloC\0\0\0\2EX"
    for at in range(len(said)):
        assert asked.link.send(said[at : at + 1]) == 1
    payloads = ((b"C", b"PM"), (b"D", b"hello"), (b"C", b"EX"))
    assert asked.hear(3) == [datagram(kind, number, payload) for number, (kind, payload) in enumerate(payloads, 1)]


def test_what_is_not_acknowledged_is_sent_again(asked: Server) -> None:
    asked.link.send(b"C\0\0\0\2PMD\0\0\0\5hello")
    first, second = asked.hear(2)
    assert asked.say(datagram(b"A", 1)) == b"(nothing)"
    asked.link.tend(perf_counter())
    assert asked.hear(0) == []
    asked.link.tend(perf_counter() + LATER_SECONDS)
    assert asked.hear(1) == [second]
    assert first != second


def test_more_is_sent_when_what_was_sent_is_acknowledged(asked: Server) -> None:
    asked.link.send(b"D\0\0\0\1x" * 65)
    assert asked.hear(64) == [datagram(b"D", number, b"x") for number in range(1, 65)]
    asked.say(datagram(b"A", 1))
    assert asked.hear(1) == [datagram(b"D", 65, b"x")]


def test_a_server_that_acknowledges_nothing_is_not_sent_more_and_more(asked: Server) -> None:
    said = b"D\0\0\0\1x" * 1_000
    for _ in range(3):
        assert asked.link.send(said) == len(said)
    with pytest.raises(BlockingIOError):
        asked.link.send(said)


# --- being there, and leaving ---


def test_who_hears_nothing_says_that_it_is_there(asked: Server) -> None:
    asked.link.stay()  # it was asked for its password a moment ago
    assert asked.hear(0) == []
    asked.link.stay()
    assert asked.hear(1) == [datagram(b"C", 1, b"PING")]
    asked.say(datagram(b"A", 1), datagram(b"C", 2, b"PONG"))
    asked.hear(1)
    asked.link.stay()
    assert asked.hear(0) == []


def test_the_servers_goodbye_is_the_end(asked: Server) -> None:
    asked.link.leave()
    assert asked.hear(1) == [datagram(b"C", 1, b"EX")]
    assert asked.say(datagram(b"A", 1), datagram(b"C", 2, b"BYE")) == b""
    assert asked.hear(3) == [datagram(b"A", 2)] * 3
    assert not asked.link.is_open
    with pytest.raises(BrokenPipeError):
        asked.link.send(b"C\0\0\0\2PM")


def test_a_goodbye_that_comes_too_early_is_not_the_end_yet(asked: Server) -> None:
    assert asked.say(datagram(b"C", 3, b"BYE")) == b"(nothing)"
    assert asked.link.is_open
    assert asked.say(datagram(b"D", 2, b"x")) == b""
    assert not asked.link.is_open


def test_a_session_that_the_server_does_not_know_is_lost(asked: Server) -> None:
    with pytest.raises(ConnectionResetError, match="no_session"):
        asked.say(datagram(b"C", 0, b"ERROR no_session There is no such session."))


def test_a_server_that_is_not_there_any_more_is_noticed(asked: Server) -> None:
    asked.socket.close()
    asked.link.send(b"C\0\0\0\2PM")
    assert select.select([asked.link], [], [], PATIENCE_SECONDS)[0]
    with pytest.raises(ConnectionRefusedError):
        asked.link.recv_into(asked.buffer)
