"""The sender: writes to all transports and waits for none. The tests run its rounds, over socket pairs."""

import gc
import os
import select
import socket
import ssl
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from random import Random
from typing import Any

import pytest
from certificates import Authority
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from chatprotocol.udp.arq import RESEND_SECONDS, SEND_WINDOW
from chatprotocol.wire.readers import frame
from chatserver.net.broadcast import AHEAD_MAX_BYTES, SEND_MAX_BYTES, SPAN_MIN_BYTES, BroadcastBuffer, SendLimits, Span
from chatserver.net.certificates import load
from chatserver.net.sender import LINGER_SECONDS, STALL_SECONDS, Sender
from chatserver.net.sendqueue import SendQueue, State
from chatserver.net.tls import TlsTransport
from chatserver.net.transport import TcpTransport, Transport

from .helpers import (
    DEADLINE_SECONDS,
    assert_waits,
    bytes_broadcast,
    eventually,
    given_pieces,
    in_background,
    insert,
    memory_descriptors,
    must_end,
    publish,
    put,
    replace,
)
from .send_model import (
    LISTENERS,
    ROOMS,
    SendModel,
    Step,
    random_listener,
    random_step,
    random_take,
    scripts,
    small_limits,
)
from .tls_peer import TlsPeer
from .udp_line import Clock, UdpLine

LAG_MAX_BYTES = 1_000_000


class PlainTransport(TcpTransport):
    """Can be referred to weakly."""


class RecordingBroadcast(BroadcastBuffer):
    """Notes the parts of it that are read, and those that are sent from shared memory."""

    def __init__(self) -> None:
        super().__init__(b"".join, 4 * LAG_MAX_BYTES)  # type: ignore[arg-type]
        self.slices: list[Span] = []
        self.sends: list[Span] = []

    def slice(self, start: int, end: int) -> bytes:
        self.slices.append(Span(start, end))
        return super().slice(start, end)

    def send(self, descriptor: int, span: Span) -> int:
        self.sends.append(span)
        return super().send(descriptor, span)


class Peer:
    """The other end of a connection, and the connection's send queue."""

    def __init__(self, sock: socket.socket, send_queue: SendQueue, run: Callable[[], None]) -> None:
        self.sock = sock
        self.send_queue = send_queue
        self._run = run
        self.has_seen_end = False

    def received(self) -> bytes:
        """All that is sent while this peer reads."""
        data = b""
        while True:
            self._run()
            try:
                part = self.sock.recv(1_000_000)
            except BlockingIOError:
                return data
            if not part:
                self.has_seen_end = True
                return data
            data += part


class SenderFixture:
    """A sender, one buffer or several, and peers. Without :meth:`start` the test's thread runs the rounds."""

    def __init__(self, *broadcasts: BroadcastBuffer, **options: Any) -> None:
        self.recording = RecordingBroadcast()
        self.broadcasts = broadcasts or (self.recording,)
        self.broadcast = self.broadcasts[0]
        self.clock = Clock()
        self.crashes: list[str] = []
        options.setdefault("clock", self.clock)
        self.sender = Sender(LAG_MAX_BYTES, self.crashes.append, **options)
        for each in self.broadcasts:
            self.sender.add_buffer(each)
        self._sockets: list[socket.socket] = []
        # Queues whose readers have not ended.
        self._read: list[SendQueue] = []
        self._has_thread = False
        self._is_stopped = False

    def start(self) -> None:
        self._has_thread = True
        self.sender.start()

    def run(self) -> None:
        """Run rounds until there is no work."""
        if not self._has_thread:
            assert any(not self.sender.run_round(wait=False) for _ in range(1_000)), "the sender never rests"

    def pass_time(self, seconds: float) -> None:
        self.clock.now += seconds
        self.sender.wake()
        self.run()

    def peer(
        self,
        *,
        follows: bool = True,
        broadcast: BroadcastBuffer | None = None,
        transport: Callable[[socket.socket], Transport] = PlainTransport,
    ) -> Peer:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        self._sockets += (ours, theirs)
        label = f"{len(self._sockets) // 2}@test"
        carrier = transport(ours)
        send_queue = SendQueue(carrier, "bytes", b"".join, label, self.sender.mark_ready, given_pieces)
        carrier.set_wake(partial(self.sender.mark_ready, send_queue))
        self.add(send_queue, broadcast or self.broadcast, follows=follows)
        return Peer(theirs, send_queue, self.run)

    def udp_queue(self, line: UdpLine, *, follows: bool = True) -> SendQueue:
        """The send queue of a session over UDP."""
        send_queue = SendQueue(line.transport, "bytes", b"".join, "udp@test", self.sender.mark_ready)
        line.transport.set_wake(partial(self.sender.mark_ready, send_queue))
        self.add(send_queue, self.broadcast, follows=follows)
        return send_queue

    def add(self, send_queue: SendQueue, broadcast: BroadcastBuffer, *, follows: bool) -> None:
        self.sender.add()
        self._read.append(send_queue)
        if follows:
            send_queue.follow(broadcast)
            send_queue.release([])
        self.run()

    def publish(self, *events: bytes) -> None:
        publish(self.broadcast, *events)
        self.sender.wake()
        self.run()

    def put(self, send_queue: SendQueue, *events: bytes) -> None:
        put(send_queue, *events)
        self.run()

    def retire(self, send_queue: SendQueue) -> None:
        """Its reader ends: it leaves the room, and its transport is to be closed."""
        self._read.remove(send_queue)
        for broadcast in self.broadcasts:
            send_queue.unfollow(broadcast)
        if send_queue.state < State.DRAINING:
            send_queue.finish()
        self.sender.close_when_drained(send_queue)
        self.run()

    def stop(self, timeout_seconds: float = 0) -> None:
        self._is_stopped = True
        self.sender.stop(timeout_seconds)

    def close(self) -> None:
        if not self._is_stopped:
            for send_queue in list(self._read):
                self.retire(send_queue)
            self.stop()
        for sock in self._sockets:
            sock.close()
        for broadcast in {*self.broadcasts, self.recording}:
            broadcast.close()


def is_closed(peer: Peer) -> bool:
    return peer.send_queue.state is State.CLOSED


def frames(count: int, text: bytes = b"%d") -> list[bytes]:
    """Numbered ones."""
    return [frame(ord("D"), text % number) for number in range(count)]


@pytest.fixture
def fixture() -> Iterator[SenderFixture]:
    with closing(SenderFixture()) as fixture:
        yield fixture


def test_broadcast_reaches_all_and_reply_reaches_one(fixture: SenderFixture) -> None:
    """One read of the buffer serves all connections that are caught up."""
    peers = [fixture.peer() for _ in range(20)]
    fixture.put(peers[7].send_queue, b"reply ")
    fixture.publish(b"one ", b"two")
    assert [peer.received() for peer in peers] == [b"one two"] * 7 + [b"reply one two"] + [b"one two"] * 12
    assert fixture.recording.slices == [Span(0, 7)]
    assert all(peer.send_queue.caught_up for peer in peers)


def test_lagging_peers_are_disconnected_and_logged(fixture: SenderFixture) -> None:
    """Promise: no client waits for a slow one. A peer that is more than the limit behind is disconnected."""
    line = UdpLine()
    lagging = [fixture.peer().send_queue, fixture.udp_queue(line)]
    quick = fixture.peer()
    with capture_logs() as log:
        for _ in range(20):
            fixture.publish(*frames(200, b"%01000d"))
            assert len(quick.received()) == 200 * 1_005
    assert [send_queue.state is State.CLOSED for send_queue in (*lagging, quick.send_queue)] == [True, True, False]
    for send_queue in lagging:
        assert send_queue.transport.read(1, DEADLINE_SECONDS) == b""
    assert {(entry["connection"], entry["limit_bytes"]) for entry in log} == {
        (send_queue.label, LAG_MAX_BYTES) for send_queue in lagging
    }


def test_peer_behind_discarded_data_is_disconnected() -> None:
    """Promise: memory stays bounded."""
    with closing(SenderFixture(bytes_broadcast(10_000, SendLimits(segment_bytes=1_000)))) as fixture:
        held = fixture.peer(follows=False)
        held.send_queue.follow(fixture.broadcast)
        for _ in range(3):
            fixture.publish(b"x" * 10_000)
        with capture_logs() as log:
            held.send_queue.release([])
            fixture.run()
        assert is_closed(held)
        assert len(log) == 1


def test_broadcast_goes_before_replies_to_many_others() -> None:
    """Thousands may send requests at once. Broadcast data does not wait for all the replies."""
    listener_has_news: list[bool] = []

    class Watched(TcpTransport):
        def write(self, pieces: Sequence[bytes | memoryview]) -> int:
            if not listener_has_news:
                publish(fixture.broadcast, b"news")
            listener_has_news.append(bool(select.select([listener.sock], [], [], 0)[0]))
            return super().write(pieces)

    with closing(SenderFixture(visits_max=2)) as fixture:
        listener = fixture.peer()
        asking = [fixture.peer(follows=False, transport=Watched) for _ in range(6)]
        for peer in asking:
            put(peer.send_queue, b"reply")
        assert [peer.received() for peer in asking] == [b"reply"] * 6
    assert listener_has_news == [False, False, True, True, True, True]


@pytest.mark.parametrize("size_bytes", [5, SPAN_MIN_BYTES])
def test_vanished_peers_are_given_up_without_disturbing_others(fixture: SenderFixture, size_bytes: int) -> None:
    """Promise: no client waits for another one. A reset connection can't be written to, that is all."""
    peers = [fixture.peer() for _ in range(30)]
    fixture.publish(b"unread")  # closing a socket with unread bytes resets the connection
    gone, stay = peers[::3], [peer for number, peer in enumerate(peers) if number % 3]
    for peer in gone:
        peer.sock.close()
    with capture_logs() as log:
        fixture.publish(b"x" * size_bytes)
        fixture.publish(b"hello")
    assert {peer.received() for peer in stay} == {b"unread" + b"x" * size_bytes + b"hello"}
    assert all(is_closed(peer) for peer in gone)
    assert log == []


@pytest.mark.parametrize("hang_up", [False, True])
def test_finished_queue_is_shut_and_stays_open_for_its_reader(fixture: SenderFixture, *, hang_up: bool) -> None:
    """A descriptor is never closed while a thread reads it. Without ``hang_up`` that thread still gets data."""
    peer = fixture.peer(follows=False)
    fixture.put(peer.send_queue, b"bye")
    peer.send_queue.finish(hang_up=hang_up)
    assert peer.received() == b"bye"
    assert peer.has_seen_end
    if hang_up:
        assert peer.send_queue.transport.read(1, DEADLINE_SECONDS) == b""
    else:
        peer.sock.sendall(b"z")
        assert peer.send_queue.transport.read(1, DEADLINE_SECONDS) == b"z"
    fixture.pass_time(100.0)
    assert peer.send_queue.transport.descriptor != -1
    fixture.retire(peer.send_queue)
    assert peer.send_queue.transport.descriptor == -1


@pytest.mark.parametrize("is_full_before", [False, True])
def test_hang_up_does_not_wait_for_full_socket(fixture: SenderFixture, *, is_full_before: bool) -> None:
    peer = fixture.peer(follows=False)
    put(peer.send_queue, b"x" * 3_000_000)
    if is_full_before:
        fixture.run()
    peer.send_queue.finish(hang_up=True)
    fixture.run()
    assert peer.send_queue.transport.read(1, DEADLINE_SECONDS) == b""
    assert is_closed(peer)


def test_unread_last_words_are_dropped_after_the_linger_time(fixture: SenderFixture) -> None:
    """Over UDP unread means not acknowledged."""
    line = UdpLine()
    queues = [fixture.peer(follows=False).send_queue, fixture.udp_queue(line, follows=False)]
    fixture.put(queues[0], b"x" * LAG_MAX_BYTES)
    fixture.put(queues[1], *frames(1))
    for send_queue in queues:
        fixture.retire(send_queue)
    for seconds, is_closed in ((LINGER_SECONDS - 0.1, False), (0.1, True)):
        fixture.pass_time(seconds)
        assert [queues[0].transport.descriptor == -1, line.transport.closed] == [is_closed] * 2


def test_peer_that_takes_no_replies_is_disconnected(fixture: SenderFixture) -> None:
    """A reply may be megabytes, which a peer that never reads would hold for ever. Broadcast data has the lag limit."""
    greedy, listener = fixture.peer(follows=False), fixture.peer()
    fixture.publish(b"x" * (LAG_MAX_BYTES - 1))
    fixture.put(greedy.send_queue, b"x" * 4_000_000)
    fixture.pass_time(STALL_SECONDS - 1)
    assert not is_closed(greedy)
    fixture.pass_time(1)
    assert is_closed(greedy)
    assert not is_closed(listener)


def test_short_memory_disconnects_the_peer_with_most_unsent_data() -> None:
    shortages = [True]
    with closing(SenderFixture(is_memory_short=lambda: bool(shortages) and shortages.pop())) as fixture:
        fixture.pass_time(1)
        modest, greedy, small = (fixture.peer() for _ in range(3))
        fixture.put(modest.send_queue, b"x" * 2_000_000)
        fixture.put(greedy.send_queue, b"x" * 3_000_000)
        fixture.put(small.send_queue, b"x" * 1_000)
        for broken in ([False, True, False], [True, True, False], [True, True, False]):
            shortages.append(True)
            fixture.pass_time(1)
            assert [is_closed(peer) for peer in (modest, greedy, small)] == broken


def test_unread_bytes_of_all_peers_are_limited_and_their_memory_is_trimmed() -> None:
    """Promise: memory stays bounded. The peers with the most unread bytes are disconnected, also before their login."""
    trims: list[int] = []
    with closing(SenderFixture(unread_max_bytes=15_000_000, trim=lambda: trims.append(1))) as fixture:
        fixture.pass_time(1)
        modest, greedy, stranger = fixture.peer(), fixture.peer(), fixture.peer(follows=False)
        fixture.put(modest.send_queue, b"x" * 9_000_000)
        fixture.put(greedy.send_queue, b"x" * 10_000_000)
        fixture.put(stranger.send_queue, b"x" * 11_000_000)
        fixture.pass_time(1)
        assert [is_closed(peer) for peer in (modest, greedy, stranger)] == [False, True, True]
        assert 8_000_000 < fixture.sender.unread_bytes < 15_000_000
        assert not trims
        assert len(modest.received()) == 9_000_000
        fixture.pass_time(1)
        fixture.pass_time(1)
        assert trims == [1]


def test_unread_bytes_of_rooms_count_once() -> None:
    """Promise: memory stays bounded. Each of many rooms may have a follower that does not read."""
    limits = SendLimits(segment_bytes=10_000)
    rooms = [BroadcastBuffer(b"".join, 2 * LAG_MAX_BYTES, limits, is_reserved=False) for _ in range(3)]  # type: ignore[arg-type]
    with closing(SenderFixture(*rooms, unread_max_bytes=1_500_000)) as fixture:
        fixture.pass_time(1)
        slow = [fixture.peer(broadcast=room) for room in rooms]
        more, quick = [fixture.peer(broadcast=rooms[2]) for _ in range(9)], fixture.peer(broadcast=rooms[0])
        for room, size in zip(rooms, (950_000, 800_000, 700_000), strict=True):
            for _ in range(10):
                publish(room, b"x" * (size // 10))
                fixture.sender.wake()
                fixture.run()
                quick.received()
        fixture.pass_time(1)
        assert [is_closed(peer) for peer in slow] == [True, False, False]
        assert not any(is_closed(peer) for peer in (*more, quick))
        assert 900_000 < fixture.sender.unread_bytes < 1_500_000
        for peer in (*slow[1:], *more):
            peer.received()
        fixture.pass_time(1)
        assert fixture.sender.unread_bytes < 100_000


def test_closed_connections_are_forgotten(fixture: SenderFixture) -> None:
    """Promise: memory stays bounded."""
    caught_up, full, held = fixture.peer(), fixture.peer(), fixture.peer(follows=False)
    held.send_queue.follow(fixture.broadcast)
    while full.send_queue.caught_up:
        fixture.publish(b"x" * 10_000)
        caught_up.received()
    transports = []
    for peer in (caught_up, full, held):
        transports.append(weakref.ref(peer.send_queue.transport))
        fixture.retire(peer.send_queue)
    fixture.pass_time(LINGER_SECONDS)
    del caught_up, full, held, peer
    gc.collect()
    assert [transport() for transport in transports] == [None] * 3


def test_long_data_is_sent_from_shared_memory(fixture: SenderFixture) -> None:
    late = fixture.peer(follows=False)
    late.send_queue.follow(fixture.broadcast)
    peers = [fixture.peer() for _ in range(3)]
    for size in (SPAN_MIN_BYTES - 1, SPAN_MIN_BYTES):
        fixture.publish(b"x" * size)
        assert [peer.received() for peer in peers] == [b"x" * size] * 3
    assert fixture.recording.sends == [Span(SPAN_MIN_BYTES - 1, 2 * SPAN_MIN_BYTES - 1)] * 3
    late.send_queue.release([])
    assert late.received() == b"x" * (2 * SPAN_MIN_BYTES - 1)
    assert fixture.recording.sends[3:] == [Span(0, 2 * SPAN_MIN_BYTES - 1)]


def test_writer_waits_until_the_sender_has_offered_enough(fixture: SenderFixture) -> None:
    """Promise: back-pressure. A buffer without followers counts as offered, too."""
    for size in (SEND_MAX_BYTES, SEND_MAX_BYTES, AHEAD_MAX_BYTES):
        publish(fixture.broadcast, b"x" * size)
    fixture.sender.run_round(wait=False)
    writer = in_background(fixture.broadcast.wait_for_sender)
    assert_waits(writer)
    fixture.sender.run_round(wait=False)
    must_end(writer)


def test_started_sender_sends_and_runs_checks_by_the_clock(fixture: SenderFixture) -> None:
    stalled = fixture.peer(follows=False)
    listener = fixture.peer()
    fixture.start()
    fixture.put(stalled.send_queue, b"x" * 4_000_000)
    listener.sock.settimeout(DEADLINE_SECONDS)
    fixture.publish(b"hello")
    assert listener.sock.recv(100) == b"hello"

    def is_given_up() -> bool:
        fixture.clock.now += STALL_SECONDS
        return is_closed(stalled)

    eventually(is_given_up)


@pytest.mark.parametrize("size", [3, LAG_MAX_BYTES])
def test_stop_closes_all_transports_and_waits_for_no_peer(fixture: SenderFixture, size: int) -> None:
    """Promise: shutdown. Peers that read are sent the last words first."""
    peers = [fixture.peer() for _ in range(10)]
    fixture.start()
    for peer in peers:
        put(peer.send_queue, b"x" * size)
        fixture.retire(peer.send_queue)
    must_end(in_background(lambda: fixture.stop(DEADLINE_SECONDS if size == 3 else 0)))
    assert size > 3 or [peer.received() for peer in peers] == [b"x" * size] * 10
    assert {peer.send_queue.transport.descriptor for peer in peers} == {-1}


def test_crashed_sender_releases_waiting_writers() -> None:
    """The journal waits for the sender. If it waited for a dead one, the server could not shut down."""

    def crash(*_: object) -> int:
        raise RuntimeError

    with closing(SenderFixture(bytes_broadcast(), write=crash)) as fixture:
        fixture.peer()
        with capture_logs():
            fixture.start()
            fixture.publish(b"x")
            eventually(lambda: fixture.crashes == ["sender"])
        publish(fixture.broadcast, b"x" * LAG_MAX_BYTES)
        must_end(in_background(fixture.broadcast.wait_for_sender))


# --- sessions over UDP: the transport is no socket, and datagrams are lost ---


@pytest.fixture
def line() -> UdpLine:
    return UdpLine()


def received(fixture: SenderFixture, line: UdpLine) -> bytes:
    """The frames that the peer of the line receives from now on."""
    found = b""
    while line.sock.sent:
        found += line.carry()
        fixture.run()
    return found


def test_udp_session_gets_broadcasts_and_replies_in_order(fixture: SenderFixture, line: UdpLine) -> None:
    """Promises: one room, one order. It is never written to like a socket, even if it has nothing of its own."""
    send_queue = fixture.udp_queue(line)
    peer = fixture.peer()
    said = frames(201, b"%0800d")
    reply = said.pop(50)
    for at in range(0, 200, 50):  # 40,000 bytes at once
        if at == 50:
            fixture.put(send_queue, reply)
        fixture.publish(*said[at : at + 50])
        assert peer.received() == b"".join(said[at : at + 50])
    assert received(fixture, line) == b"".join([*said[:50], reply, *said[50:]])
    assert not send_queue.caught_up
    assert len(fixture.recording.sends) == 4, "those of the other one"


def test_udp_session_without_acknowledgements_delays_no_other(fixture: SenderFixture, line: UdpLine) -> None:
    """Promise: no client waits for a slow one. The sender rests until there is room again."""
    fixture.udp_queue(line)
    quick = fixture.peer()
    said = frames(150, b"%01000d")
    for each in said:
        fixture.publish(each)
        assert quick.received() == each
    assert len(line.sock.sent) == SEND_WINDOW
    assert not fixture.sender.run_round(wait=False)
    line.acknowledge(2)
    assert not fixture.sender.run_round(wait=False), "the first one is still missing"
    line.acknowledge(1)
    fixture.run()
    assert len(line.sock.sent) == SEND_WINDOW + 2
    assert received(fixture, line) == b"".join(said)


def test_udp_session_is_closed_after_the_last_acknowledgement(fixture: SenderFixture, line: UdpLine) -> None:
    """Otherwise a lost datagram could not be sent again."""
    send_queue = fixture.udp_queue(line)
    fixture.publish(*frames(1))
    fixture.put(send_queue, *frames(1, b"bye %d"))
    fixture.retire(send_queue)
    line.new_packets()  # all are lost
    line.acknowledge(2)
    fixture.run()
    assert not line.transport.closed
    line.clock.now += RESEND_SECONDS
    line.transport.check_timeouts(line.clock.now)
    fixture.run()
    assert [datagram.payload for datagram in line.new_packets()] == [b"0"]
    line.acknowledge(1)
    fixture.run()
    assert line.transport.closed


def test_udp_hang_up_sends_the_last_words_first(fixture: SenderFixture, line: UdpLine) -> None:
    send_queue = fixture.udp_queue(line, follows=False)
    put(send_queue, *frames(1))
    send_queue.finish(hang_up=True)
    fixture.run()
    assert line.transport.read(1, DEADLINE_SECONDS) == b""
    assert received(fixture, line) == b"".join(frames(1))


def test_lost_peer_costs_a_slower_one_no_data() -> None:
    """Promise: no client waits for another one. What all others have is discarded when a peer is lost.

    Here that is found out during the first of three sends, of which another peer takes a part.
    """
    took: list[bytes] = []

    def write(descriptor: int, data: bytes) -> int:
        if descriptor == slow.send_queue.transport.descriptor and not took:
            took.append(data[:3])
            return os.write(descriptor, data[:3])
        return os.write(descriptor, data)

    limits = SendLimits(segment_bytes=10, span_min_bytes=1_000)
    with closing(SenderFixture(bytes_broadcast(LAG_MAX_BYTES, limits), write=write)) as fixture:
        lost, slow, quick = (fixture.peer() for _ in range(3))
        lost.sock.close()
        said = bytes(range(65, 90))
        fixture.publish(said)
        assert took == [said[:3]]
        assert (slow.received(), quick.received()) == (said, said)
        assert is_closed(lost)


def test_lack_of_memory_for_one_peer_ends_its_connection_only() -> None:
    """Promise: the server survives a lack of memory. TLS allocates for each record."""

    class Short(TcpTransport):
        is_plain = False

        def write(self, _: Sequence[bytes | memoryview]) -> int:
            raise MemoryError

    with closing(SenderFixture(bytes_broadcast(LAG_MAX_BYTES))) as fixture:
        short, other = fixture.peer(transport=Short), fixture.peer()
        fixture.publish(b"hello")
        assert other.received() == b"hello"
        assert is_closed(short)


@pytest.mark.parametrize("is_reserved", [False, True])
def test_peer_that_leaves_costs_a_slower_one_no_data(*, is_reserved: bool) -> None:
    """Promise: no client waits for another one. The one that leaves has everything; the other one has one byte."""

    class Slow(TcpTransport):
        def write(self, pieces: Sequence[bytes | memoryview]) -> int:
            leaving.send_queue.unfollow(buffer)
            return super().write([b"".join(pieces)[:1]])

    def write(descriptor: int, data: bytes) -> int:
        return os.write(descriptor, data if descriptor == leaving.send_queue.transport.descriptor else data[:1])

    limits = SendLimits(segment_bytes=10, span_min_bytes=1_000)
    buffer = BroadcastBuffer(b"".join, LAG_MAX_BYTES, limits, is_reserved=is_reserved)  # type: ignore[arg-type]
    with closing(SenderFixture(buffer, write=write)) as fixture:
        slow, leaving = fixture.peer(transport=Slow), fixture.peer()
        said = bytes(range(65, 90))
        publish(buffer, said)
        fixture.sender.run_round(wait=False)
        insert(slow.send_queue, b"!")
        assert (slow.received(), leaving.received()) == (said + b"!", said)


def test_own_message_is_skipped_while_a_slow_peer_is_lost() -> None:
    """The end of the slow peer discards data, but none that the sender has yet to pass over."""

    class Lost(TcpTransport):
        def write(self, _: Sequence[bytes | memoryview]) -> int:
            start, end = buffer.append([bytes(25)])  # type: ignore[list-item]
            replace(author.send_queue, buffer, start, end, b"sent")
            buffer.flush()
            raise ConnectionResetError

    def write(descriptor: int, data: bytes) -> int:
        return os.write(descriptor, data[:1] if descriptor == lost.send_queue.transport.descriptor else data)

    buffer = bytes_broadcast(LAG_MAX_BYTES, SendLimits(segment_bytes=10, span_min_bytes=1_000))
    with closing(SenderFixture(buffer, write=write)) as fixture:
        lost, author = fixture.peer(transport=Lost), fixture.peer()
        said = bytes(range(65, 80))
        publish(buffer, said)
        assert author.received() == said + b"sent"
        assert is_closed(lost)


# --- against the model ---


class Valve:
    """Stands for the system calls that send. They take as many bytes as the test says, while other threads go on."""

    def __init__(self) -> None:
        self.receive: dict[int, Callable[[bytes], None]] = {}
        self.reset: set[int] = set()
        # By descriptor: the number of bytes that the next send takes, and a step that another thread makes meanwhile.
        self.openings: dict[int, int] = {}
        self.meanwhile: dict[int, Step] = {}
        self.play: Callable[[Step], None] = lambda _: None

    def write(self, descriptor: int, data: bytes) -> int:
        self.play(self.meanwhile.pop(descriptor, ()))
        if descriptor in self.reset:
            raise ConnectionResetError
        opening = self.openings.get(descriptor, len(data))
        if not opening:
            raise BlockingIOError
        self.receive[descriptor](data[:opening])
        return min(opening, len(data))


class ValveBroadcast(BroadcastBuffer):
    def __init__(self, limits: SendLimits, valve: Valve, *, is_reserved: bool) -> None:
        super().__init__(b"".join, 1_000_000, limits, is_reserved=is_reserved)  # type: ignore[arg-type]
        self._valve = valve

    def send(self, descriptor: int, span: Span) -> int:
        return self._valve.write(descriptor, self.slice(*span))


class Rounds:
    """Plays a script: rounds of the sender, and what happens between and during them."""

    def __init__(self, fixture: SenderFixture, valve: Valve, model: SendModel, descriptors: list[int]) -> None:
        self._fixture = fixture
        self._valve = valve
        self._model = model
        self._descriptors = descriptors

    def play(self, step: Step) -> None:
        match step:
            case ("round", tuple(taken), (int(who), tuple(meanwhile))):
                self._valve.openings = dict(zip(self._descriptors, taken, strict=True))
                self._valve.meanwhile = {self._descriptors[who]: meanwhile}
                self._fixture.sender.run_round(wait=False)
            case ("reset", int(who)):
                self._valve.reset.add(self._descriptors[who])
            case _:
                self._model.play(step)

    def finish(self) -> None:
        """The sockets take everything, and there is nothing new."""
        self._valve.openings, self._valve.meanwhile = {}, {}
        self._fixture.run()


def sender_step(dice: Random) -> Step:
    """Many rounds, so that being caught up is the rule and not the exception."""
    (what,) = dice.choices(["round", "room", "reset"], [50, 50, 4])
    match what:
        case "round":
            taken = tuple(random_take(dice) for _ in range(LISTENERS))
            return what, taken, (random_listener(dice), random_step(dice))
        case "reset":
            return what, dice.randrange(1, LISTENERS)  # one listener always stays
        case _:
            return random_step(dice)


@pytest.fixture(scope="module")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Those of a server and of its client."""
    authority = Authority()
    return load(*authority.write(tmp_path_factory.mktemp("tls"))).context, authority.client_context()


@given(
    script=scripts(sender_step),
    held=st.tuples(*[st.booleans()] * LISTENERS),
    limits=small_limits,
    encrypted=st.tuples(*[st.booleans()] * LISTENERS),
)
def test_all_are_sent_everything_in_order_despite_short_sends_and_resets(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
    script: list[Step],
    held: tuple[bool, ...],
    limits: SendLimits,
    encrypted: tuple[bool, ...],
) -> None:
    """Promise: one order. When the sender rests, no data is unsent and all queues that follow are caught up.

    Some connections are encrypted: what they were sent is what arrives after decryption.
    """
    valve = Valve()

    class ValveTransport(TcpTransport):
        write_max_bytes = limits.send_max_bytes

        def write(self, pieces: Sequence[bytes | memoryview]) -> int:
            return valve.write(self.descriptor, b"".join(pieces))

    class ValveTlsTransport(TlsTransport):
        write_max_bytes = limits.send_max_bytes

        def __init__(self, sock: socket.socket) -> None:
            super().__init__(ValveTransport(sock), contexts[0])

    buffers = [ValveBroadcast(limits, valve, is_reserved=not room) for room in range(ROOMS)]
    with closing(SenderFixture(*buffers, write=valve.write)) as fixture:
        transports = [ValveTlsTransport if has_tls else ValveTransport for has_tls in encrypted]
        peers = [fixture.peer(follows=False, transport=transport) for transport in transports]
        descriptors = [peer.send_queue.transport.descriptor for peer in peers]
        shaken = [
            shake_hands(valve, peer, contexts[1]) if has_tls else None
            for peer, has_tls in zip(peers, encrypted, strict=True)
        ]
        model = SendModel(buffers, [peer.send_queue for peer in peers], held, fixture.sender.wake)
        for descriptor, listener, tls in zip(descriptors, model.listeners, shaken, strict=True):
            valve.receive[descriptor] = listener.receive if tls is None else decrypting(tls, listener.receive)
        valve.play = model.play
        rounds = Rounds(fixture, valve, model, descriptors)
        for step in script:
            rounds.play(step)
        for listener in model.listeners:
            listener.release()
        rounds.finish()

        for listener, descriptor in zip(model.listeners, descriptors, strict=True):
            if descriptor not in valve.reset:
                assert listener.has_received_all
                assert listener.send_queue.caught_up == bool(listener.rooms)
            fixture.retire(listener.send_queue)
        for peer in peers:
            assert peer.sock.recv(1) == b""
            assert peer.send_queue.transport.descriptor == -1


def shake_hands(valve: Valve, peer: Peer, context: ssl.SSLContext) -> TlsPeer:
    """Complete a handshake, while the valve lets everything pass."""
    client = TlsPeer(context)
    transport = peer.send_queue.transport
    assert isinstance(transport, TlsTransport)

    def receive(data: bytes) -> None:
        client.feed(data)
        peer.sock.sendall(client.says())

    valve.receive[transport.descriptor] = receive
    receive(b"")
    transport.handshake(DEADLINE_SECONDS, lambda step: step())
    return client


def decrypting(client: TlsPeer, receive: Callable[[bytes], None]) -> Callable[[bytes], None]:
    return lambda data: receive(client.feed(data))


def test_removed_buffer_is_closed_after_its_last_byte(fixture: SenderFixture) -> None:
    """A room without members costs no memory and no descriptor; who left it still gets what was said before."""
    before = memory_descriptors()
    room = bytes_broadcast(4 * LAG_MAX_BYTES)
    fixture.sender.add_buffer(room)
    peers = [fixture.peer() for _ in range(3)]
    for peer in peers:
        peer.send_queue.follow(room)
    fixture.publish(b"lobby ")
    publish(room, b"x" * 300_000)
    for peer in peers:
        peer.send_queue.unfollow(room)
    fixture.sender.remove_buffer(room)
    fixture.run()
    assert memory_descriptors() > before, "sockets are full"
    fixture.publish(b" lobby")
    assert [peer.received() for peer in peers] == [b"lobby " + b"x" * 300_000 + b" lobby"] * 3
    assert memory_descriptors() == before
    assert all(peer.send_queue.caught_up for peer in peers)


def test_room_keeps_what_a_follower_needs_and_no_more(fixture: SenderFixture, line: UdpLine) -> None:
    """Promise: memory stays bounded. There are many rooms, and a follower may never be caught up."""
    limits = SendLimits(segment_bytes=1_000)
    room = BroadcastBuffer(b"".join, LAG_MAX_BYTES, limits, is_reserved=False)  # type: ignore[arg-type]
    fixture.sender.add_buffer(room)
    slow, peer, login = fixture.udp_queue(line), fixture.peer(), fixture.peer(follows=False)
    before = memory_descriptors()
    for send_queue in (slow, peer.send_queue):
        send_queue.follow(room)
    said = frames(40, b"%0900d")
    for text in said[:20]:
        publish(room, text)
        fixture.sender.wake()
        fixture.run()
    assert received(fixture, line) == b"".join(said[:20])
    publish(room, said[20])
    fixture.run()
    assert memory_descriptors() <= before + 2
    login.send_queue.follow(room)
    for text in said[21:]:
        publish(room, text)
        fixture.sender.wake()
        fixture.run()
        received(fixture, line)
    login.send_queue.release([])
    fixture.run()
    assert login.received() == b"".join(said[21:])
    assert peer.received() == b"".join(said)
    publish(room, b"last")
    fixture.run()
    assert memory_descriptors() <= before + 2


def test_removed_buffer_releases_its_writer(fixture: SenderFixture) -> None:
    """The journal may wait for the sender while the last member of a room leaves."""
    room = bytes_broadcast(4 * LAG_MAX_BYTES)
    fixture.sender.add_buffer(room)
    publish(room, *[b"x" * SEND_MAX_BYTES] * 3)
    waiting = in_background(lambda: room.wait_for_sender(0))
    fixture.sender.remove_buffer(room)
    fixture.run()
    must_end(waiting)


def test_stop_closes_all_buffers() -> None:
    before = memory_descriptors()
    fixture = SenderFixture()
    room = bytes_broadcast(4 * LAG_MAX_BYTES)
    fixture.sender.add_buffer(room)
    fixture.stop()
    assert memory_descriptors() == before
    fixture.close()


def test_quiet_room_keeps_nothing_that_all_followers_have(fixture: SenderFixture) -> None:
    """Promise: memory stays bounded. The last slow follower reads, or is lost, after the last message."""
    limits = SendLimits(segment_bytes=1_000)
    room = BroadcastBuffer(b"".join, LAG_MAX_BYTES, limits, is_reserved=False)  # type: ignore[arg-type]
    fixture.sender.add_buffer(room)
    reader, slow, lost = (fixture.peer() for _ in range(3))
    before = memory_descriptors()
    for last in (slow, lost):
        for peer in (reader, last):
            peer.send_queue.follow(room)
            fixture.run()
            while peer.send_queue.caught_up:
                publish(room, b"x" * 20_000)
                fixture.run()
        assert memory_descriptors() > before + 20
        reader.received()
        assert memory_descriptors() > before + 20
        if last is slow:
            slow.received()
        else:
            lost.sock.close()
            fixture.publish(b"to all")
        assert memory_descriptors() <= before + 2
        slow.send_queue.unfollow(room)
