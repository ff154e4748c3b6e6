"""The reject queue: connections over the limit are told so in their protocol, and the listener never waits for them."""

import selectors
import socket
from collections.abc import Iterator
from contextlib import closing, suppress

import pytest

from chatprotocol.errors import ErrorCode
from chatprotocol.events import Refused
from chatprotocol.wire import PROTOCOLS, by_name
from chatserver.net.reject_queue import RejectQueue
from chatserver.net.tls import ALERT_FULL

from .helpers import DEADLINE_SECONDS

FULL = Refused(ErrorCode.SERVER_FULL, "The server is full; try again later.")
IN_JSON, IN_FRAMES = by_name("json").encode_all([FULL]), by_name("frames").encode_all([FULL])
IN_HTTP = by_name("websocket").refusal(FULL)
IN_IRC = b"ERROR :Closing Link: The server is full; try again later.\r\n"
# Seconds that a peer has to say something, and then to read the answer.
SPEAK, READ = 1.0, 1.0
NOW = 1_000.0
QUEUE_MAX = 64


class Peer:
    def __init__(self, first: bytes) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.theirs.settimeout(DEADLINE_SECONDS)
        self.theirs.sendall(first)

    @property
    def is_open(self) -> bool:
        return self.ours.fileno() != -1

    def heard(self) -> bytes:
        """Everything that has arrived by now."""
        data = b""
        self.theirs.setblocking(False)
        with suppress(BlockingIOError):
            while part := self.theirs.recv(100_000):
                data += part
        return data


class Fixture:
    def __init__(self) -> None:
        self.queue = RejectQueue(PROTOCOLS)
        self._peers: list[Peer] = []
        self._is_closed = False

    def reject(self, first: bytes = b"", now: float = NOW) -> Peer:
        """Add a peer that has said this."""
        peer = Peer(first)
        self._peers.append(peer)
        self.queue.add(peer.ours, FULL, now)
        return peer

    def close_all(self) -> None:
        self._is_closed = True
        self.queue.close_all()

    def close(self) -> None:
        if not self._is_closed:
            self.close_all()
        for peer in self._peers:
            peer.ours.close()
            peer.theirs.close()


@pytest.fixture
def fixture() -> Iterator[Fixture]:
    with closing(Fixture()) as fixture:
        yield fixture


@pytest.mark.parametrize(
    ("first", "answer"),
    [
        (b'{"command":"login","username":"alice"}\n', IN_JSON),
        (b"C\0", IN_FRAMES),
        (b"C\0\0\0\5alice" * 10_000, IN_FRAMES),
        (b"C", IN_JSON),
        (b"GET / HTTP/1.1", IN_HTTP),
        (b"GET", IN_JSON),
        (b"NICK alice\r\nUSER a 0 * :a\r\n", IN_IRC),
        (b"NICK", IN_JSON),
        (b"\x16\x03\x01\x02\x00", ALERT_FULL),
    ],
)
def test_peer_that_spoke_is_told_at_once_in_its_protocol(fixture: Fixture, first: bytes, answer: bytes) -> None:
    """In json if the protocol is unknown, or not yet known; by an alert in TLS. Nothing more follows."""
    peer = fixture.reject(first)
    fixture.queue.check(NOW)
    assert peer.heard() == answer
    assert peer.theirs.recv(1) == b""
    assert b'"code":"server_full"' in IN_JSON
    assert IN_FRAMES[5:].startswith(b"ERROR server_full ")
    assert IN_HTTP.startswith(b"HTTP/1.1 503 ")
    assert IN_HTTP.endswith(IN_JSON)


def test_silent_peer_is_told_in_json_after_a_second(fixture: Fixture) -> None:
    """Each peer has its own time. A peer that speaks late, but in time, is told in its protocol."""
    peers = [fixture.reject(now=NOW + number / 10) for number in range(3)]
    peers[1].theirs.sendall(b"C\0")
    fixture.queue.check(NOW + SPEAK - 0.01)
    assert [peer.heard() for peer in peers] == [b"", IN_FRAMES, b""]
    fixture.queue.check(NOW + SPEAK)
    assert [peer.heard() for peer in peers] == [IN_JSON, b"", b""]
    fixture.queue.check(NOW + SPEAK + 0.2)
    assert peers[2].heard() == IN_JSON


@pytest.mark.parametrize("first", [b"", b"C\0\0\0\5alice"])
def test_peer_has_a_second_to_read_the_answer(fixture: Fixture, first: bytes) -> None:
    """Closing at once would destroy unread bytes."""
    peer = fixture.reject(first)
    told_at = NOW if first else NOW + SPEAK
    fixture.queue.check(told_at)
    fixture.queue.check(told_at + READ - 0.01)
    assert peer.is_open
    assert not fixture.queue.is_empty
    fixture.queue.check(told_at + READ)
    assert not peer.is_open
    assert fixture.queue.is_empty


def test_queue_is_readable_when_a_peer_speaks_for_the_first_time(fixture: Fixture) -> None:
    """Peers that go on talking, or leave after the answer, do not wake the listener."""
    with selectors.DefaultSelector() as selector:
        selector.register(fixture.queue, selectors.EVENT_READ)
        peer = fixture.reject()
        assert not selector.select(0)
        peer.theirs.sendall(b"{")
        assert selector.select(0)
        fixture.queue.check(NOW)
        peer.theirs.sendall(b"more")
        assert not selector.select(0)
        peer.theirs.close()
        assert not selector.select(0)
        gone = fixture.reject()
        gone.theirs.close()
        assert selector.select(0)
        fixture.queue.check(NOW)
        assert not selector.select(0)


def test_gone_or_full_peers_do_not_disturb_the_others(fixture: Fixture) -> None:
    gone, half_gone, full, well = (fixture.reject() for _ in range(4))
    gone.theirs.close()
    with suppress(BlockingIOError):
        while full.ours.send(b"x" * 10_000, socket.MSG_DONTWAIT):
            pass
    for peer in (half_gone, full, well):
        peer.theirs.sendall(b"C\0")
    half_gone.theirs.shutdown(socket.SHUT_WR)
    fixture.queue.check(NOW)
    assert [peer.heard() for peer in (half_gone, well)] == [IN_FRAMES] * 2
    fixture.queue.check(NOW + READ)
    assert fixture.queue.is_empty
    assert not any(peer.is_open for peer in (gone, half_gone, full, well))


def test_flood_evicts_told_peers_first_and_then_the_oldest(fixture: Fixture) -> None:
    """Promise: the descriptors that a flood costs are limited. Each peer gets an answer before it is closed."""
    silent = [fixture.reject() for _ in range(QUEUE_MAX - 2)]
    told = [fixture.reject(b"C\0"), fixture.reject(b"{")]
    fixture.queue.check(NOW)
    assert all(peer.is_open for peer in silent + told)
    late = [fixture.reject()]
    assert [peer.is_open for peer in told] == [False, True]
    late += [fixture.reject(), fixture.reject()]
    assert [peer.is_open for peer in (*told, *silent)] == [False] * 3 + [True] * (QUEUE_MAX - 3)
    fixture.queue.check(NOW + SPEAK)
    assert all(peer.heard() == IN_JSON for peer in silent + late)


def test_close_all_tells_and_closes_all_peers(fixture: Fixture) -> None:
    peers = [fixture.reject(), fixture.reject(b"C\0")]
    fixture.queue.check(NOW)
    peers.append(fixture.reject(b"C\0"))
    fixture.close_all()
    assert peers[0].heard() == IN_JSON
    for peer in peers[1:]:
        with suppress(ConnectionResetError):  # what it said was not read
            assert peer.heard() == IN_FRAMES
    assert not any(peer.is_open for peer in peers)
    assert fixture.queue.is_empty
