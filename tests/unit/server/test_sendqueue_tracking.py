"""SendQueue.track: report a number after the peer's system has acknowledged all earlier data, and never too early."""

import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reliability.peers import lose_what_arrives

from chatserver.net.sender import LINGER_SECONDS, Sender
from chatserver.net.sendqueue import SendQueue, Shared, State
from chatserver.net.transport import TcpTransport

from .helpers import bytes_broadcast, eventually, insert, publish, put
from .udp_line import Clock


class FakeTransport(SimpleNamespace):
    """Its positions are moved by the test. ``interrupt`` is called when the server asks for them."""

    is_socket = True
    write_max_bytes = 1_000_000
    unsent_bytes = 0
    sent = 0
    reached = 0
    interrupt: Callable[[], object] = staticmethod(lambda: None)

    def unacknowledged_bytes(self) -> int:
        self.interrupt()
        return self.sent - self.reached

    def acknowledged(self) -> int:
        return self.reached

    def written(self) -> int:
        return self.sent


@contextmanager
def new_queue(
    transport: FakeTransport, *, is_held: bool = False, wake: Callable[[SendQueue], None] = lambda _: None
) -> Iterator[SendQueue]:
    with closing(bytes_broadcast()) as broadcast:
        send_queue = SendQueue(transport, "bytes", b"".join, "1@test", wake)  # type: ignore[arg-type]
        send_queue.follow(broadcast)
        if not is_held:
            send_queue.release([])
        yield send_queue


def send(send_queue: SendQueue, transport: FakeTransport, most_bytes: int) -> None:
    """Do what the sender does in a visit."""
    (broadcast,) = send_queue.buffers
    broadcast.advance()
    due = send_queue.next_data()
    size = due.end - due.start if isinstance(due, Shared) else sum(map(len, due))
    send_queue.note_sent(min(size, most_bytes))
    transport.sent += min(size, most_bytes)


steps = st.sampled_from(["track", "track all", "publish", "reply", "send", "acknowledge", "check"])


@given(st.lists(st.tuples(steps, st.integers(1, 40)), max_size=40))
def test_number_is_reported_after_all_earlier_data_is_acknowledged(script: list[tuple[str, int]]) -> None:
    """Promise: a direct message that has not reached its recipient is delivered at the next login."""
    transport = FakeTransport()
    with new_queue(transport) as send_queue:
        reported: list[int] = []
        queued = 0
        # The position that must be acknowledged before each number.
        needed: dict[int, int] = {-1: 0}
        for what, size in script:
            match what:
                case "track" | "track all":
                    if what == "track":
                        queued += size
                        insert(send_queue, b"d" * size)
                    needed[len(needed) - 1] = queued
                    send_queue.track(len(needed) - 2, reported.append)
                case "publish":
                    queued += size
                    publish(send_queue.buffers[0], b"p" * size)
                case "reply":
                    queued += size
                    put(send_queue, b"a" * size)
                case "send":
                    send(send_queue, transport, size)
                case "acknowledge":
                    transport.reached = min(transport.sent, transport.reached + size)
                case _:
                    send_queue.check_acknowledged()
            assert transport.reached >= needed[max(reported, default=-1)]
            assert reported == sorted(set(reported))
        while transport.sent < queued:
            send(send_queue, transport, 1_000)
        publish(send_queue.buffers[0], b"never acknowledged")
        for _ in range(2):  # one check takes the position, one sees that it was reached, for each of two numbers
            send_queue.check_acknowledged()
            transport.reached = queued
            send_queue.check_acknowledged()
        assert max(reported, default=-1) == len(needed) - 2
        assert not send_queue.is_tracked


def test_two_threads_check_at_the_same_time() -> None:
    """The second one reports a number and tracks the next while the first one asks for the positions."""
    reported: list[int] = []
    transport = FakeTransport()
    with new_queue(transport) as send_queue:

        def interrupt() -> None:
            if not reported:
                reported.append(0)
                send_queue.check_acknowledged()
                send_queue.track(2, reported.append)

        transport.interrupt = interrupt
        send_queue.track(1, reported.append)
        send_queue.check_acknowledged()
        send_queue.check_acknowledged()
    assert sorted(set(reported)) == [0, 1, 2]


def test_nothing_is_reported_if_the_socket_may_be_closed() -> None:
    """Its descriptor may belong to another connection by then."""
    reported: list[int] = []
    transport = FakeTransport()
    with new_queue(transport) as send_queue:
        transport.interrupt = send_queue.stop_tracking
        send_queue.track(1, reported.append)
        send_queue.check_acknowledged()
    assert reported == []


def test_finished_queue_tracks_nothing() -> None:
    with new_queue(FakeTransport()) as send_queue:
        send_queue.finish()
        send_queue.track(2, lambda _: None)
        assert not send_queue.is_tracked


def test_numbers_of_dropped_data_are_forgotten() -> None:
    """A queue that ends while it is held drops the data that waits. Its number would delay the close."""
    with new_queue(FakeTransport(), is_held=True) as send_queue:
        insert(send_queue, b"never sent")
        send_queue.track(1, lambda _: None)
        send_queue.finish()
        assert not send_queue.is_tracked


def test_caught_up_queue_counts_the_offered_data_as_sent() -> None:
    """Its own position is stale."""
    reported: list[int] = []
    with new_queue(FakeTransport()) as send_queue:
        (broadcast,) = send_queue.buffers
        assert send_queue.catch_up(send_queue.buffers)
        publish(broadcast, b"hello")
        broadcast.advance()
        broadcast.note_offered()
        send_queue.track(1, reported.append)
        send_queue.check_acknowledged()
        assert reported == [1]
        assert send_queue.caught_up
        send_queue.unfollow(broadcast)
        send_queue.track(2, reported.append)
        send_queue.check_acknowledged()
        assert reported == [1, 2]


def test_sender_is_woken_if_a_number_waits_for_a_round_that_may_be_over_for_the_queue() -> None:
    """It may have sent the data to this queue already. The number must not wait for the next message."""
    woken: list[SendQueue] = []
    reported: list[int] = []
    with new_queue(FakeTransport(), wake=woken.append) as send_queue:
        (broadcast,) = buffers = send_queue.buffers
        assert send_queue.catch_up(buffers)
        send_queue.track(1, reported.append)
        publish(broadcast, b"hello")
        broadcast.advance()
        woken.clear()
        send_queue.track(2, reported.append)
        assert woken == [send_queue]
        broadcast.note_offered()
        send_queue.fall_behind(buffers)
        send_queue.check_acknowledged()
        assert reported == [2]


@pytest.mark.parametrize("is_second", [False, True])
def test_rest_of_a_short_send_is_not_counted_as_sent(is_second: bool) -> None:
    """A number is tracked while the sender writes the data before it, of which the socket takes a part."""
    transport = FakeTransport()
    reported: list[int] = []
    with new_queue(transport) as send_queue, closing(bytes_broadcast()) as second:
        send_queue.follow(second)
        first, _ = buffers = send_queue.buffers
        short, whole = (second, first) if is_second else (first, second)
        assert send_queue.catch_up(buffers)
        publish(short, b"0123456789")
        publish(whole, b"abc")
        for buffer in buffers:
            buffer.advance()
        transport.sent = transport.reached = 7
        send_queue.track(1, reported.append)
        send_queue.fall_behind(buffers, Shared(short, 4, 10), is_begun=True)
        send_queue.check_acknowledged()
        assert reported == []
        (rest,) = send_queue.next_data()
        assert rest == b"456789"
        send_queue.note_sent(6)
        transport.sent = transport.reached = 13
        send_queue.check_acknowledged()
        assert reported == [1]


# --- with a sender, over TCP ---


class Connection:
    """A sender and a connection that it sends to."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.broadcast = bytes_broadcast()
        self.sender = Sender(1_000_000, lambda _: None, clock=clock)
        self.sender.add_buffer(self.broadcast)
        with socket.create_server(("127.0.0.1", 0)) as listening:
            self.peer = socket.create_connection(listening.getsockname())
            sock, _ = listening.accept()
        sock.setblocking(False)
        self.send_queue = SendQueue(TcpTransport(sock), "bytes", b"".join, "1@test", self.sender.mark_ready)
        self.reported: list[int] = []
        self.sender.add()
        self.sender.start()
        self.send_queue.follow(self.broadcast)
        self.send_queue.release([])
        eventually(lambda: self.send_queue.caught_up)

    def insert(self, number: int, text: bytes) -> None:
        """Send an event to this connection alone, and track its number."""
        insert(self.send_queue, text)
        self.send_queue.track(number, self.reported.append)

    def end(self) -> None:
        self.send_queue.unfollow(self.broadcast)
        self.send_queue.finish()
        self.sender.close_when_drained(self.send_queue)

    def close(self) -> None:
        if self.send_queue.state < State.DRAINING:
            self.end()
        self.sender.stop(0.0)
        self.broadcast.close()
        self.peer.close()


def test_data_in_the_peers_system_counts_before_and_after_the_end() -> None:
    """The peer reads nothing until the connection has ended."""
    with closing(Connection()) as connection:
        connection.insert(1, b"one")
        connection.insert(2, b"two")
        eventually(lambda: 2 in connection.reported)
        connection.send_queue.track(3, connection.reported.append)  # the sender has nothing to send
        eventually(lambda: 3 in connection.reported)
        connection.insert(4, b"end")
        connection.end()
        assert connection.peer.recv(9, socket.MSG_WAITALL) == b"onetwoend"
        eventually(lambda: 4 in connection.reported)


@pytest.mark.parametrize("is_lost", [False, True])
def test_broadcast_data_before_the_end_is_reported_if_it_arrived(is_lost: bool) -> None:
    """The queue is caught up, so the sender keeps its position."""
    with closing(Connection()) as connection:
        if is_lost:
            lose_what_arrives(connection.peer)
        publish(connection.broadcast, b"hello")
        connection.sender.wake()
        eventually(lambda: connection.broadcast.offered_end == connection.broadcast.end)
        connection.send_queue.unfollow(connection.broadcast)
        publish(connection.broadcast, b"not for this connection")
        connection.send_queue.track(1, connection.reported.append)
        connection.send_queue.check_acknowledged()
        if not is_lost:
            eventually(lambda: 1 in connection.reported)
            assert not connection.send_queue.is_tracked
        connection.end()
    assert set(connection.reported) == (set() if is_lost else {1})


@pytest.mark.parametrize("is_reset_first", [True, False])
def test_reset_connection_is_closed_without_waiting_for_acknowledgements(is_reset_first: bool) -> None:
    """None can arrive. The server would wait for LINGER_SECONDS, and for its whole time limit when it is stopped."""
    clock = Clock()
    with closing(Connection(clock)) as connection:
        transport = connection.send_queue.transport
        lose_what_arrives(connection.peer)
        connection.insert(1, b"lost")
        eventually(transport.unacknowledged_bytes)
        if not is_reset_first:
            connection.end()
        connection.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.peer.close()
        eventually(lambda: transport.is_lost or transport.descriptor == -1)
        if is_reset_first:
            connection.end()
        clock.now += 0.0 if is_reset_first else LINGER_SECONDS / 2  # later it is noticed by the periodic check
        connection.sender.wake()
        eventually(lambda: transport.descriptor == -1)
    assert connection.reported == []
