"""Slots of connections: new ones, displaced ones and reserved ones."""

from __future__ import annotations

import socket
import threading
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from chatprotocol.address import read_networks
from chatprotocol.wire import PROTOCOLS
from chatserver.net.connection import Connection, ConnectionServices
from chatserver.net.connections import Connections, Slots
from chatserver.net.limits import ConnectionLimits, RefusedError
from chatserver.net.sender import Sender
from chatserver.net.transport import TcpTransport

from .helpers import DEADLINE_SECONDS, FakeSession, eventually, must_end

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from chatserver.net.sendqueue import SendQueue

PING = b'{"command":"ping"}\n'
EXEMPT = "10.0.0.1"


class Fixture:
    """Real connections over socket pairs. A session is logged in if its address ends with .7."""

    def __init__(self, slots: Slots, **more: Any) -> None:
        self.now = 0.0
        self.sender = Sender(1_000_000, lambda _: None)
        self.sender.start()
        limits = ConnectionLimits(exempt=read_networks("10.0.0.0/8"))
        services = ConnectionServices(
            PROTOCOLS, self.sender, 1_000.0, self._open_session, limits, clock=lambda: self.now
        )
        self.counters = services.counters
        self.connections = Connections(services, slots, **more)
        self.peers: list[socket.socket] = []
        # Called by the session of each request.
        self.answer: Callable[[FakeSession], None] = lambda _: None
        # Lets requests go on that wait for it.
        self.may_go_on = threading.Event()

    def _open_session(self, send_queue: SendQueue, _: str, address: str, __: bool) -> FakeSession:
        return FakeSession(send_queue, is_logged_in=address.endswith(".7"), answer=self.answer)

    def connect(self, address: str = "192.0.2.1") -> tuple[socket.socket, Connection]:
        """Connect, and wait until the reader waits for input."""
        ours, theirs = socket.socketpair()
        self.peers += [theirs]
        theirs.settimeout(DEADLINE_SECONDS)
        try:
            connection = self.connections.add(lambda: TcpTransport(ours), address)
        except RefusedError:
            ours.close()
            raise
        eventually(lambda: connection.is_silent)
        return theirs, connection

    def log_in(self) -> socket.socket:
        peer, connection = self.connect("192.0.2.7")
        peer.sendall(PING)
        eventually(lambda: connection.is_logged_in)
        return peer

    def close(self) -> None:
        self.may_go_on.set()
        self.connections.drain(0.0)
        self.sender.stop(0.0)
        for peer in self.peers:
            peer.close()


@pytest.fixture
def opened() -> Iterator[Callable[..., Fixture]]:
    with ExitStack() as stack:
        yield lambda *slots, **more: stack.enter_context(closing(Fixture(Slots(*slots), **more)))


def is_closed(peer: socket.socket) -> bool:
    """True after the server has closed; input is skipped."""
    while peer.recv(1_000):
        pass
    return True


@pytest.mark.parametrize(("total", "expected"), [(200, Slots(200, 50, 20)), (1, Slots(1, 1, 0)), (9, Slots(9, 2, 0))])
def test_slots_are_shares_of_all(total: int, expected: Slots) -> None:
    assert Slots.of(total, 25, 10) == expected


def test_new_connection_displaces_the_oldest_silent_one(opened: Callable[..., Fixture]) -> None:
    """Promise: silent connections keep no user out. Logged-in users stay connected."""
    fixture = opened(10, 2, 0)
    users = [fixture.log_in() for _ in range(3)]
    with capture_logs() as log:
        first, second, third, fourth = (fixture.connect()[0] for _ in range(4))
        assert is_closed(first)
        assert is_closed(second)
    assert [(entry["event"], entry["reason"]) for entry in log] == [("refusing connections", "waiting_limit")]
    assert fixture.counters.limits_hit == {"waiting_limit": 2}
    eventually(lambda: len(fixture.connections) == 5)
    for peer in (third, fourth, *users):
        peer.sendall(b'{"command":"x"}\n')
    fixture.log_in()


def test_silent_connection_is_displaced_if_all_slots_are_taken(opened: Callable[..., Fixture]) -> None:
    fixture = opened(3, 3, 0)
    users = [fixture.log_in() for _ in range(2)]
    silent, _ = fixture.connect()
    fixture.log_in()
    assert is_closed(silent)
    with pytest.raises(RefusedError, match="The server is full"):
        fixture.connect()
    assert fixture.counters.limits_hit["connection_limit"] == 1
    for user in users:
        user.sendall(b'{"command":"x"}\n')


def test_connection_whose_request_is_being_answered_is_not_displaced(opened: Callable[..., Fixture]) -> None:
    """A login may wait for the hash of its password. Logins must not displace each other."""
    fixture = opened(10, 1, 0)
    fixture.answer = lambda _: fixture.may_go_on.wait(DEADLINE_SECONDS) and None
    busy, connection = fixture.connect()
    busy.sendall(PING)
    eventually(lambda: not connection.is_silent)
    with pytest.raises(RefusedError, match="The server is full"):
        fixture.connect()
    fixture.connect(EXEMPT)
    fixture.may_go_on.set()
    eventually(lambda: connection.is_silent)
    fixture.connect()
    assert is_closed(busy)


def test_login_that_waits_for_its_turn_gives_way_after_silent_connections(opened: Callable[..., Fixture]) -> None:
    """Promise: tries of passwords that wait keep no user out, not even one that has just connected."""
    fixture = opened(10, 3, 0)

    def wait_for_turn(session: FakeSession) -> None:
        session.awaits_turn = True
        fixture.may_go_on.wait(DEADLINE_SECONDS)

    def try_to_log_in() -> socket.socket:
        peer, connection = fixture.connect()
        peer.sendall(PING)
        eventually(lambda: connection.awaits_turn)
        return peer

    fixture.answer = wait_for_turn
    trying = [try_to_log_in() for _ in range(2)]
    silent, _ = fixture.connect()
    fixture.now = 1.0
    new, new_connection = fixture.connect()
    assert is_closed(silent)
    for peer in trying:
        try_to_log_in()
        assert b"give way" in peer.recv(1_000)
    assert new_connection.is_silent
    new.sendall(PING)
    eventually(lambda: new_connection.awaits_turn)


def test_silent_connection_is_found_behind_others(opened: Callable[..., Fixture]) -> None:
    """A flood of connections looks at a few for each of them, and goes on with the next ones."""
    fixture = opened(10, 3, 0, looked_at_max=1)
    fixture.answer = lambda _: fixture.may_go_on.wait(DEADLINE_SECONDS) and None
    for _ in range(2):
        busy, connection = fixture.connect()
        busy.sendall(PING)
        eventually(lambda: not connection.is_silent)  # noqa: B023
    silent, _ = fixture.connect()
    for _ in range(2):
        with pytest.raises(RefusedError, match="The server is full"):
            fixture.connect()
    fixture.connect()
    assert is_closed(silent)


def test_last_slots_are_reserved(opened: Callable[..., Fixture]) -> None:
    """For logins of known users, who log in soon."""
    fixture = opened(4, 4, 2)
    connections = [fixture.connect()[1] for _ in range(2)]
    assert not fixture.connections.is_reserved()
    connections.append(fixture.connect()[1])
    assert fixture.connections.is_reserved()
    assert [each.login_seconds for each in connections] == [1_000.0, 1_000.0, 10.0]
    assert all(info.seconds < DEADLINE_SECONDS for info in fixture.connections.infos())


def test_slot_is_free_after_the_end(opened: Callable[..., Fixture]) -> None:
    fixture = opened(1, 1, 0)
    for _ in range(3):
        peer = fixture.log_in()
        peer.close()
        eventually(lambda: len(fixture.connections) == 0)


def test_exempt_peers_have_no_share(opened: Callable[..., Fixture]) -> None:
    """They are never displaced, and may be more than the share."""
    fixture = opened(4, 1, 2)
    exempt: list[Any] = [fixture.connect(EXEMPT)[1] for _ in range(3)]
    fixture.connect()
    assert [each.is_silent for each in exempt] == [True] * 3
    assert exempt[-1].login_seconds == 1_000.0


@pytest.mark.parametrize(("count", "expected"), [(7, []), (8, [1]), (12, [2])])
def test_memory_is_trimmed_after_a_crowd_has_left(
    opened: Callable[..., Fixture], count: int, expected: list[int]
) -> None:
    """Once, when three quarters of a large number have left."""
    trimmed: list[int] = []
    fixture = opened(20, 20, 0, trim=lambda: trimmed.append(len(fixture.connections)), trim_connections=8)
    for peer, connection in [fixture.connect() for _ in range(count)]:
        peer.close()
        must_end(connection.thread)
    assert trimmed == expected
