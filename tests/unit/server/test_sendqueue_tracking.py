"""What a connection's peer has acknowledged: told once it is sure, and never of what may be lost."""

import socket
from collections.abc import Iterator
from contextlib import closing
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reliability.peers import lose_what_arrives

from chatserver.net.broadcast import BroadcastBuffer, Span
from chatserver.net.sender import Sender
from chatserver.net.sendqueue import SendQueue
from chatserver.net.transport import TcpTransport

from .rooms import bytes_broadcast, eventually, publish, put, splice

HERE = "127.0.0.1"


class FakeCarrier(SimpleNamespace):
    """Positions that the test moves."""

    is_socket = True
    write_max_bytes = 1_000_000
    sent = 0
    reached = 0

    def unacknowledged_bytes(self) -> int:
        return self.sent - self.reached

    def acknowledged(self) -> int:
        return self.reached

    def written(self) -> int:
        return self.sent


def send(send_queue: SendQueue, transport: FakeCarrier, most_bytes: int) -> None:
    """What the courier does in a visit."""
    due = send_queue.next_span(send_queue.broadcast.end)
    size = due.end - due.start if isinstance(due, Span) else sum(map(len, due))
    send_queue.note_sent(min(size, most_bytes))
    transport.sent += min(size, most_bytes)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("track"), st.integers(1, 20)),
        st.tuples(st.just("track all"), st.just(0)),
        st.tuples(st.just("publish"), st.integers(1, 20)),
        st.tuples(st.just("answer"), st.integers(1, 20)),
        st.tuples(st.just("send"), st.integers(1, 40)),
        st.tuples(st.just("acknowledge"), st.integers(1, 40)),
        st.tuples(st.just("check"), st.just(0)),
    ),
    max_size=40,
)


@given(steps)
def test_a_number_is_told_when_all_that_came_before_it_is_acknowledged_and_not_earlier(
    script: list[tuple[str, int]],
) -> None:
    """Promise: a direct message that did not reach its recipient still waits for it."""
    with closing(bytes_broadcast()) as broadcast:
        transport = FakeCarrier()
        send_queue = SendQueue(transport, broadcast, "1@test", lambda _: None)  # type: ignore[arg-type]
        send_queue.follow()
        send_queue.release([])
        told: list[int] = []
        queued = 0
        # Up to which position each number is to be acknowledged, at the least.
        needed: dict[int, int] = {-1: 0}
        for what, size in script:
            match what:
                case "track":
                    queued += size
                    splice(send_queue, broadcast.tail, broadcast.tail, b"d" * size)
                    needed[len(needed) - 1] = queued
                    send_queue.track(len(needed) - 2, told.append)
                case "track all":
                    needed[len(needed) - 1] = queued
                    send_queue.track(len(needed) - 2, told.append)
                case "publish":
                    queued += size
                    publish(broadcast, b"p" * size)
                case "answer":
                    queued += size
                    put(send_queue, b"a" * size)
                case "send":
                    send(send_queue, transport, size)
                case "acknowledge":
                    transport.reached = min(transport.sent, transport.reached + size)
                case _:
                    send_queue.check_acknowledged()
            assert transport.reached >= needed[max(told, default=-1)]
            assert told == sorted(set(told))
        while transport.sent < queued:
            send(send_queue, transport, 1_000)
        publish(broadcast, b"never acknowledged")
        for _ in range(2):  # one look to take the position, one to see that it was reached, for each of two numbers
            send_queue.check_acknowledged()
            transport.reached = queued
            send_queue.check_acknowledged()

        assert max(told, default=-1) == len(needed) - 2
        assert not send_queue.is_tracked


def test_what_is_tracked_while_another_thread_tells_of_the_last_one_is_told_too() -> None:
    """The courier and the reader at its end may look at the same time."""
    told: list[int] = []

    class Interrupted(FakeCarrier):
        def unacknowledged_bytes(self) -> int:
            if not told:
                told.append(0)
                send_queue.check_acknowledged()
                send_queue.track(2, told.append)
            return 0

    with closing(bytes_broadcast()) as broadcast:
        send_queue = SendQueue(Interrupted(), broadcast, "1@test", lambda _: None)  # type: ignore[arg-type]
        send_queue.follow()
        send_queue.release([])
        send_queue.track(1, told.append)
        send_queue.check_acknowledged()
        send_queue.check_acknowledged()
    assert sorted(set(told)) == [0, 1, 2]


def test_nothing_is_told_if_the_carrier_may_have_been_closed_when_it_was_asked() -> None:
    """A socket's number may be another one's by then."""
    told: list[int] = []

    class Closing(FakeCarrier):
        def unacknowledged_bytes(self) -> int:
            send_queue.stop_tracking()
            return 0

    with closing(bytes_broadcast()) as broadcast:
        send_queue = SendQueue(Closing(), broadcast, "1@test", lambda _: None)  # type: ignore[arg-type]
        send_queue.follow()
        send_queue.release([])
        send_queue.track(1, told.append)
        send_queue.check_acknowledged()
    assert told == []


def test_what_is_queued_while_the_outbox_is_held_or_finished_is_not_told() -> None:
    """It is sent in another order than it was queued in, or not at all."""
    with closing(bytes_broadcast()) as broadcast:
        send_queue = SendQueue(FakeCarrier(), broadcast, "1@test", lambda _: None)  # type: ignore[arg-type]
        send_queue.follow()
        send_queue.track(1, lambda _: None)
        assert not send_queue.is_tracked
        send_queue.release([])
        send_queue.finish()
        send_queue.track(2, lambda _: None)
        assert not send_queue.is_tracked


def test_who_is_in_step_was_sent_what_was_offered() -> None:
    """The outbox's own cursor stands still then. Whoever comes again at once can't wait for the courier."""
    with closing(bytes_broadcast()) as broadcast:
        transport = FakeCarrier()
        send_queue = SendQueue(transport, broadcast, "1@test", lambda _: None)  # type: ignore[arg-type]
        send_queue.follow()
        send_queue.release([])
        assert send_queue.catch_up(broadcast.end)
        told: list[int] = []
        publish(broadcast, b"hello")
        send_queue.track(1, told.append)
        send_queue.check_acknowledged()
        assert told == []
        broadcast.offered(broadcast.end)
        send_queue.unfollow()
        send_queue.check_acknowledged()
        assert told == [1]


class Line:
    """A courier, and a connection over real TCP that it sends to."""

    def __init__(self) -> None:
        self.broadcast: BroadcastBuffer = bytes_broadcast()
        self.sender = Sender([self.broadcast], 1_000_000, lambda _: None)
        with socket.create_server((HERE, 0)) as listening:
            self.peer = socket.create_connection(listening.getsockname())
            sock, _ = listening.accept()
        sock.setblocking(False)
        self.send_queue = SendQueue(TcpTransport(sock), self.broadcast, "1@test", self.sender.mark_ready)
        self.told: list[int] = []
        self.sender.add()
        self.sender.start()
        self.send_queue.follow()
        self.send_queue.release([])
        eventually(lambda: self.send_queue.caught_up)

    def say(self, number: int, text: bytes) -> None:
        """Something for this connection alone; its number is told when it has arrived."""
        splice(self.send_queue, self.broadcast.tail, self.broadcast.tail, text)
        self.send_queue.track(number, self.told.append)

    def end(self) -> None:
        """Its reader has ended."""
        self.send_queue.unfollow()
        self.send_queue.finish()
        self.sender.close_when_drained(self.send_queue)

    def close(self) -> None:
        if self.send_queue.follows:
            self.end()
        self.sender.stop(0.0)
        self.broadcast.close()
        self.peer.close()


@pytest.fixture
def line() -> Iterator[Line]:
    with closing(Line()) as line:
        yield line


def test_over_tcp_a_number_is_told_though_nobody_reads(line: Line) -> None:
    """The peer's system has it; nothing more can be known."""
    line.say(1, b"one")
    line.say(2, b"two")
    eventually(lambda: 2 in line.told)

    assert line.peer.recv(6, socket.MSG_WAITALL) == b"onetwo"


def test_over_tcp_nothing_is_told_of_what_a_lost_network_swallowed() -> None:
    line = Line()
    with closing(line):
        line.say(1, b"one")
        eventually(lambda: line.told == [1])
        lose_what_arrives(line.peer)
        line.say(2, b"two")
        eventually(lambda: not line.send_queue.next_span(line.broadcast.end))
    line.send_queue.check_acknowledged()  # another thread may look just after the courier has closed the socket
    assert line.told == [1]


@pytest.mark.parametrize("is_lost", [False, True])
def test_what_everybody_heard_before_a_connection_ended_is_told_once_it_has_come(is_lost: bool) -> None:
    """Nothing was said to this connection alone: it is in step with the others, and the courier keeps its position."""
    line = Line()
    with closing(line):
        if is_lost:
            lose_what_arrives(line.peer)
        publish(line.broadcast, b"hello")
        line.sender.wake()
        eventually(lambda: line.broadcast.offered_upto == line.broadcast.end)
        line.send_queue.unfollow()
        line.send_queue.track(1, line.told.append)
        line.send_queue.check_acknowledged()
        if not is_lost:  # the acknowledgement may take a moment
            eventually(lambda: 1 in line.told)  # twice, if both threads look at the same moment
            assert not line.send_queue.is_tracked
        line.send_queue.finish()
        line.sender.close_when_drained(line.send_queue)
    assert set(line.told) == (set() if is_lost else {1})


def test_what_is_sent_at_the_end_is_told_too(line: Line) -> None:
    """The socket is closed after the acknowledgement, or when that does not come for some seconds."""
    line.say(1, b"goodbye")
    line.end()
    assert line.peer.recv(100, socket.MSG_WAITALL) == b"goodbye"

    eventually(lambda: line.told == [1])
