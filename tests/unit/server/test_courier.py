"""The courier: writes to all sockets, waits for none. The sockets are pairs inside this process."""

import os
import select
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from chatprotocol.udp.arq import RESEND_SECONDS, SEND_WINDOW
from chatprotocol.wire.readers import frame
from chatserver.net import broadcast as broadcast_module
from chatserver.net import memory_file
from chatserver.net import sender as sender_module
from chatserver.net import transport as transport_module
from chatserver.net.broadcast import AHEAD_MAX_BYTES, SEND_MAX_BYTES, SPAN_MIN_BYTES, BroadcastBuffer, Span
from chatserver.net.sender import Sender
from chatserver.net.sendqueue import SendQueue
from chatserver.net.transport import TcpTransport

from .lines import Line
from .rooms import DEADLINE_SECONDS, Gate, bytes_broadcast, eventually, in_background, must_end, publish, put, splice
from .scene import LISTENERS, Scene, Step, room_step, scripts, small, someone, take

LAG_MAX_BYTES = 1_000_000


class MessageBatch:
    """A courier, one stream or several, and peers at the other ends of socket pairs."""

    def __init__(
        self, *broadcasts: BroadcastBuffer, is_memory_short: Callable[[], bool] = lambda: False, visits_max: int = 500
    ) -> None:
        self.broadcasts = broadcasts or (bytes_broadcast(4 * LAG_MAX_BYTES),)
        self.broadcast = self.broadcasts[0]
        self.crashes: list[str] = []
        self.sender = Sender(self.broadcasts, LAG_MAX_BYTES, self.crashes.append, is_memory_short, visits_max)
        self._sockets: list[socket.socket] = []
        # Whose readers have not ended.
        self._read: list[SendQueue] = []
        self._is_stopped = False

    def peer(
        self,
        *,
        follows: bool = True,
        broadcast: BroadcastBuffer | None = None,
        transport: type[TcpTransport] = TcpTransport,
    ) -> tuple[socket.socket, SendQueue]:
        """A new connection; its peer's end, and its outbox."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.settimeout(DEADLINE_SECONDS)
        send_queue = SendQueue(
            transport(ours), broadcast or self.broadcast, f"{len(self._sockets) + 1}@test", self.sender.mark_ready
        )
        self._sockets += (ours, theirs)
        self.adopt(send_queue, follows=follows)
        return theirs, send_queue

    def adopt(self, send_queue: SendQueue, *, follows: bool) -> None:
        """Its reader has not ended."""
        self.sender.add()
        self._read.append(send_queue)
        if follows:
            send_queue.follow()
            send_queue.release([])

    def peers_in_step(self, count: int) -> list[tuple[socket.socket, SendQueue]]:
        """New connections that have nothing of their own to wait for."""
        peers = [self.peer() for _ in range(count)]
        eventually(lambda: all(send_queue.caught_up for _, send_queue in peers))
        return peers

    def publish(self, *events: bytes) -> None:
        publish(self.broadcast, *events)
        self.sender.wake()

    def retire(self, send_queue: SendQueue) -> None:
        """Its reader has ended, and it has left."""
        self._read.remove(send_queue)
        if send_queue.follows:
            send_queue.unfollow()
        send_queue.finish()
        self.sender.close_when_drained(send_queue)

    def stop(self, patience_seconds: float = 0) -> None:
        self._is_stopped = True
        self.sender.stop(patience_seconds)

    def close(self) -> None:
        if not self._is_stopped:
            for send_queue in list(self._read):
                self.retire(send_queue)
            self.stop()
        for sock in self._sockets:
            sock.close()
        for broadcast in self.broadcasts:
            broadcast.close()


@pytest.fixture
def resting_batch() -> Iterator[MessageBatch]:
    """One whose courier was not started yet."""
    with closing(MessageBatch()) as batch:
        yield batch


@pytest.fixture
def batch(resting_batch: MessageBatch) -> MessageBatch:
    resting_batch.sender.start()
    return resting_batch


def read(peer: socket.socket, size_bytes: int) -> bytes:
    data = b""
    while len(data) < size_bytes and (part := peer.recv(size_bytes - len(data))):
        data += part
    return data


def read_all(peer: socket.socket) -> bytes:
    """Until the other side is shut."""
    data = b""
    while part := peer.recv(1_000_000):
        data += part
    return data


def test_everybody_is_sent_what_is_published(batch: MessageBatch) -> None:
    peers = [batch.peer()[0] for _ in range(20)]
    batch.publish(b"hello")

    assert [read(peer, 5) for peer in peers] == [b"hello"] * 20


def test_an_answer_is_sent_to_the_one_who_asked(batch: MessageBatch) -> None:
    one, send_queue = batch.peer()
    other, _ = batch.peer()
    put(send_queue, b"answer ")
    batch.publish(b"hello")

    assert read(one, 12) == b"answer hello"
    assert read(other, 5) == b"hello"


def test_an_answer_that_is_not_alone_wakes_nobody_and_arrives_with_the_confirmation_behind_it(
    batch: MessageBatch,
) -> None:
    (one, send_queue), (other, other_send_queue) = batch.peers_in_step(2)
    put(send_queue, b"ready ", alone=False)
    for _ in range(2):  # rounds for somebody else are none for this one
        put(other_send_queue, b"fence")
        assert read(other, 5) == b"fence"
    one.setblocking(False)
    with pytest.raises(BlockingIOError):
        one.recv(1)
    one.settimeout(DEADLINE_SECONDS)
    start, end = batch.broadcast.append([b"what it says"])  # type: ignore[list-item]
    splice(send_queue, start, end, b"sent")
    batch.broadcast.flush()
    batch.sender.wake()

    assert one.recv(100) == b"ready sent"


def test_an_answer_that_is_not_alone_comes_before_what_is_spliced_in_next(batch: MessageBatch) -> None:
    """Of one that is not in step, perhaps in a send of its own."""
    ((one, send_queue),) = batch.peers_in_step(1)
    for _ in range(3):
        put(send_queue, b"ready ", alone=False)
        splice(send_queue, batch.broadcast.tail, batch.broadcast.tail, b"sent")

        assert read(one, 10) == b"ready sent"


def test_an_answer_by_itself_arrives_by_itself(batch: MessageBatch) -> None:
    ((one, send_queue),) = batch.peers_in_step(1)
    put(send_queue, b"ready", alone=True)

    assert read(one, 5) == b"ready"


def test_nobody_waits_for_one_who_reads_nothing(batch: MessageBatch) -> None:
    """Promise: nobody waits for the slow."""
    batch.peer()
    quick, _ = batch.peer()
    for _ in range(40):
        batch.publish(b"x" * 20_000)
        assert len(read(quick, 20_000)) == 20_000


def test_what_everybody_hears_is_sent_before_many_others_are_answered() -> None:
    """Thousands may ask something in the same moment. What is published meanwhile does not wait for all of them."""
    gate = Gate()
    heard: list[bool] = []

    class Watched(TcpTransport):
        def write(self, pieces: Sequence[bytes | memoryview]) -> int:
            if not gate.is_open:
                gate.pass_through()
            elif not heard:
                heard.append(False)
                batch.publish(b"news")
            else:
                heard.append(bool(select.select([listener], [], [], 0)[0]))
            return super().write(pieces)

    with closing(MessageBatch(visits_max=2)) as batch:
        batch.sender.start()
        ((listener, _),) = batch.peers_in_step(1)
        asking = [batch.peer(follows=False, transport=Watched) for _ in range(6)]
        put(asking[0][1], b"answer")
        gate.await_thread()
        for _, send_queue in asking[1:]:
            put(send_queue, b"answer")
        gate.open()
        assert [peer.recv(100) for peer, _ in asking] == [b"answer"] * len(asking)
    assert heard == [False, False, True, True, True]


def test_one_who_reads_late_gets_everything_in_order(batch: MessageBatch) -> None:
    """Promise: one order."""
    late, send_queue = batch.peer()
    sent = b""
    for number in range(90):
        chunk = b"%d " % number * 2000
        sent += chunk
        batch.publish(chunk)
    assert len(sent) < LAG_MAX_BYTES
    eventually(lambda: send_queue in batch.sender._full)

    assert read(late, len(sent)) == sent


def test_one_who_is_too_far_behind_is_disconnected_with_a_reason_in_the_log(batch: MessageBatch) -> None:
    """Promise: nobody waits for the slow. Who is more than the limit behind is disconnected."""
    slow, send_queue = batch.peer()
    quick, _ = batch.peer()
    with capture_logs() as log:
        for _ in range(20):
            batch.publish(b"x" * 200_000)
            read(quick, 200_000)
        eventually(lambda: send_queue.broken)
    read_all(slow)

    (entry,) = log
    assert entry["event"] == "Disconnected: it reads too slowly"
    assert entry["connection"] == send_queue.label
    assert entry["limit_bytes"] == LAG_MAX_BYTES
    batch.publish(b"hello")
    assert read(quick, 5) == b"hello"


def test_what_is_due_is_sent_before_our_side_is_shut(batch: MessageBatch) -> None:
    peer, send_queue = batch.peer()
    batch.publish(b"x" * 600_000)
    put(send_queue, b"bye")
    batch.retire(send_queue)

    assert read_all(peer) == b"x" * 600_000 + b"bye"
    eventually(lambda: send_queue.transport.descriptor == -1)
    assert send_queue.transport.descriptor == -1


@pytest.mark.parametrize("hangs_up", [False, True])
def test_after_the_last_byte_our_side_is_shut_and_where_it_hangs_up_the_other_one_too(
    batch: MessageBatch, *, hangs_up: bool
) -> None:
    """Where nobody hangs up, the reader still hears what the peer says."""
    peer, send_queue = batch.peer(follows=False)
    for delivery in (b"x", b"y"):  # each answer goes out by itself
        put(send_queue, delivery * 1_000)
    send_queue.finish(hang_up=hangs_up)
    assert read_all(peer) == b"x" * 1_000 + b"y" * 1_000

    eventually(lambda: send_queue.shut)
    if hangs_up:
        assert send_queue.transport.read(1, DEADLINE_SECONDS) == b""
    else:
        peer.sendall(b"z")
        assert send_queue.transport.read(1, DEADLINE_SECONDS) == b"z"


@pytest.mark.parametrize("is_full_before", [False, True])
def test_who_is_hung_up_on_and_does_not_read_is_not_waited_for(batch: MessageBatch, *, is_full_before: bool) -> None:
    """Its reader sees the end at once."""
    _, send_queue = batch.peer(follows=False)
    put(send_queue, b"x" * 3_000_000)
    if is_full_before:
        eventually(lambda: send_queue in batch.sender._full)
    send_queue.finish(hang_up=True)

    assert send_queue.transport.read(1, DEADLINE_SECONDS) == b""
    assert send_queue.broken


def test_a_socket_stays_open_until_its_reader_has_ended(batch: MessageBatch) -> None:
    """A descriptor is never closed under a thread that reads it."""
    peer, send_queue = batch.peer(follows=False)
    send_queue.finish()
    assert read_all(peer) == b""

    assert send_queue.transport.descriptor != -1
    batch.retire(send_queue)
    eventually(lambda: send_queue.transport.descriptor == -1)


def test_one_whose_peer_has_gone_is_given_up_and_the_others_go_on(batch: MessageBatch) -> None:
    gone, send_queue = batch.peer()
    stays, _ = batch.peer()
    gone.close()
    batch.publish(b"hello")
    assert read(stays, 5) == b"hello"
    eventually(lambda: send_queue.broken)
    batch.retire(send_queue)
    eventually(lambda: send_queue.transport.descriptor == -1)


def test_one_who_takes_nothing_is_closed_when_patience_ends(
    batch: MessageBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender_module, "LINGER_SECONDS", 0.0)
    _, send_queue = batch.peer(follows=False)
    put(send_queue, b"x" * LAG_MAX_BYTES)
    batch.retire(send_queue)

    eventually(lambda: send_queue.transport.descriptor == -1)


def test_the_end_sends_what_is_due_closes_every_socket_and_ends_the_thread(batch: MessageBatch) -> None:
    """Promise: shutdown."""
    peers = [batch.peer() for _ in range(10)]
    for _, send_queue in peers:
        put(send_queue, b"bye")
        batch.retire(send_queue)
    must_end(in_background(lambda: batch.stop(DEADLINE_SECONDS)))

    assert [read_all(peer) for peer, _ in peers] == [b"bye"] * 10
    assert {send_queue.transport.descriptor for _, send_queue in peers} == {-1}


def test_the_end_does_not_wait_for_one_who_takes_nothing(batch: MessageBatch) -> None:
    """Promise: shutdown."""
    _, send_queue = batch.peer(follows=False)
    put(send_queue, b"x" * LAG_MAX_BYTES)
    batch.retire(send_queue)
    must_end(in_background(batch.stop))

    assert send_queue.transport.descriptor == -1


def test_no_writer_waits_for_ever_for_a_courier_that_died(resting_batch: MessageBatch) -> None:
    """The journal waits for the courier; were it to wait for a dead one, the server could not even end."""
    batch = resting_batch
    batch.broadcast.span = None  # type: ignore[method-assign, assignment]
    with capture_logs():
        batch.sender.start()
        batch.publish(b"x" * LAG_MAX_BYTES)
        eventually(lambda: batch.crashes == ["sender"])
    must_end_here = in_background(batch.broadcast.wait_for_sender)
    must_end_here.join(1.0)
    has_ended = not must_end_here.is_alive()
    batch.broadcast.offered(batch.broadcast.end)  # lets it go in any case
    batch.stop()

    assert has_ended


def test_one_who_takes_no_answers_is_disconnected_in_the_end(
    batch: MessageBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer may be megabytes: who asks and never reads would hold them for ever."""
    monkeypatch.setattr(sender_module, "STALL_SECONDS", 0.05)
    monkeypatch.setattr(sender_module, "_TICK_SECONDS", 0.01)
    _, greedy = batch.peer(follows=False)
    _, listener = batch.peer()
    batch.publish(b"x" * (LAG_MAX_BYTES - 1))
    put(greedy, b"x" * 4_000_000)
    eventually(lambda: greedy.broken)

    assert not listener.broken, "what everybody hears has a limit of its own"


def test_while_memory_is_short_the_one_who_keeps_most_is_disconnected() -> None:
    shortages = [True]
    with closing(MessageBatch(is_memory_short=lambda: bool(shortages) and shortages.pop())) as batch:
        _, modest = batch.peer()
        _, greedy = batch.peer()
        put(modest, b"x" * 2_000_000)
        put(greedy, b"x" * 3_000_000)
        batch.sender.start()
        eventually(lambda: greedy.broken)
        assert not shortages
        assert not modest.broken


# --- in step: all who are due the same are sent the same ---


def test_those_in_step_share_one_reading_of_the_memory(batch: MessageBatch, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are, a round costs each of them a system call and nothing else."""
    peers = batch.peers_in_step(20)
    read_spans: list[tuple[int, int]] = []
    slice_ = batch.broadcast.slice
    monkeypatch.setattr(batch.broadcast, "slice", lambda *span: read_spans.append(span) or slice_(*span))  # type: ignore[func-returns-value]
    batch.publish(b"one ", b"two")

    assert [read(peer, 7) for peer, _ in peers] == [b"one two"] * 20
    assert read_spans == [(0, 7)]


def test_one_who_takes_only_a_part_falls_out_and_comes_back_in_step_with_nothing_lost_or_doubled(
    batch: MessageBatch,
) -> None:
    """Promises: one order, and nobody waits for the slow."""
    (slow, send_queue), (quick, other) = batch.peers_in_step(2)
    sent = b""
    while send_queue.caught_up:
        chunk = b"%d " % len(sent) * 1000
        sent += chunk
        batch.publish(chunk)
        assert read(quick, len(chunk)) == chunk
    batch.publish(b"(while it is behind)")
    assert read(quick, 20) == b"(while it is behind)"
    assert other.caught_up

    assert read(slow, len(sent) + 20) == sent + b"(while it is behind)"
    eventually(lambda: send_queue.caught_up)
    batch.publish(b"hello")
    assert read(slow, 5) == read(quick, 5) == b"hello"


def test_one_who_is_told_something_in_a_round_gets_it_at_its_place(batch: MessageBatch) -> None:
    """Promise: one order."""
    (told, told_send_queue), (sender, sender_send_queue), (skipped, skipped_send_queue), (other, _) = (
        batch.peers_in_step(4)
    )
    broadcast = batch.broadcast
    broadcast.append([b"one "])  # type: ignore[list-item]
    splice(told_send_queue, broadcast.tail, broadcast.tail, b"direct ")
    splice(sender_send_queue, *broadcast.append([b"two "]), b"sent ")  # type: ignore[list-item]
    splice(skipped_send_queue, *broadcast.append([b"three "]))  # type: ignore[list-item]
    batch.publish(b"four")

    assert read(told, 25) == b"one direct two three four"
    assert read(sender, 19) == b"one sent three four"
    assert read(skipped, 12) == b"one two four"
    assert read(other, 18) == b"one two three four"
    eventually(
        lambda: all(send_queue.caught_up for send_queue in (told_send_queue, sender_send_queue, skipped_send_queue))
    )


def test_one_who_leaves_is_sent_nothing_that_comes_after(batch: MessageBatch) -> None:
    (leaves, send_queue), (stays, _) = batch.peers_in_step(2)
    batch.publish(b"one ")
    send_queue.unfollow()
    batch.publish(b"two")
    put(send_queue, b"bye")
    batch.retire(send_queue)

    assert read_all(leaves) == b"one bye"
    assert read(stays, 7) == b"one two"


def test_one_who_leaves_is_sent_what_was_shown_before_though_it_was_not_offered_yet(
    resting_batch: MessageBatch,
) -> None:
    batch = resting_batch
    peer, send_queue = batch.peer()
    batch.publish(b"x" * (SEND_MAX_BYTES + 1))
    batch.retire(send_queue)
    batch.publish(b"(after it has left)")
    batch.sender.start()

    assert read_all(peer) == b"x" * (SEND_MAX_BYTES + 1)


@pytest.mark.parametrize("size_bytes", [5, SPAN_MIN_BYTES])
def test_peers_that_vanish_do_not_disturb_the_others_in_step(batch: MessageBatch, size_bytes: int) -> None:
    """Promise: nobody waits for another. A connection that was reset is one that can't be written to, and no more."""
    peers = batch.peers_in_step(30)
    batch.publish(b"unread")  # closing over unread bytes resets the connection
    for peer, _ in peers[::3]:
        peer.close()
    with capture_logs() as log:
        batch.publish(b"x" * size_bytes)
        batch.publish(b"hello")

        for number, (peer, _) in enumerate(peers):
            assert number % 3 == 0 or read(peer, size_bytes + 11) == b"unread" + b"x" * size_bytes + b"hello"
    eventually(lambda: all(send_queue.broken for _, send_queue in peers[::3]))
    assert not any(send_queue.broken for number, (_, send_queue) in enumerate(peers) if number % 3)
    assert log == []


def test_one_who_is_held_is_sent_no_more_than_its_answers(batch: MessageBatch) -> None:
    """Promise: once. What it missed comes before anything new."""
    newcomer, send_queue = batch.peer(follows=False)
    send_queue.follow()
    put(send_queue, b"welcome ")
    other, _ = batch.peer()
    batch.publish(b"new")
    assert read(other, 3) == b"new"
    put(send_queue, b"missed ")
    assert read(newcomer, 15) == b"welcome missed "
    send_queue.release([])

    assert read(newcomer, 3) == b"new"


def test_each_dialect_has_its_own_place_in_its_own_stream() -> None:
    json, frames = bytes_broadcast(), bytes_broadcast()
    with closing(MessageBatch(json, frames)) as batch:
        batch.sender.start()
        (one, _), (other, _) = batch.peer(broadcast=json), batch.peer(broadcast=frames)
        for text, longer_text in ((b"a", b"<a>"), (b"b", b"<b>")):
            publish(frames, longer_text)
            batch.publish(text)
            assert (read(one, 1), read(other, 3)) == (text, longer_text)


def test_what_nobody_is_left_to_hear_holds_no_writer_up(batch: MessageBatch) -> None:
    _, send_queue = batch.peer()
    send_queue.unfollow()
    batch.publish(b"x" * LAG_MAX_BYTES)

    must_end(in_background(batch.broadcast.wait_for_sender))


def test_a_writer_waits_for_what_was_not_offered_though_the_courier_goes_round(resting_batch: MessageBatch) -> None:
    """Promise: back-pressure."""
    batch = resting_batch
    batch.publish(b"x" * (AHEAD_MAX_BYTES + 2 * SEND_MAX_BYTES))
    batch.sender._go_round()
    writer = in_background(batch.broadcast.wait_for_sender)
    eventually(lambda: not writer.is_alive() or batch.broadcast._offering._waiters)  # type: ignore[attr-defined]
    assert writer.is_alive()
    batch.sender._go_round()

    must_end(writer)


def test_one_who_has_gone_is_forgotten(batch: MessageBatch) -> None:
    """Promise: memory stays bounded."""
    caught_up, behind = batch.peers_in_step(2)
    held = batch.peer(follows=False)
    held[1].follow()
    put(held[1], b"welcome")
    assert read(held[0], 7) == b"welcome"
    while behind[1].caught_up:
        batch.publish(b"x" * 10_000)
        read(caught_up[0], 10_000)
    for peer, send_queue in (caught_up, behind, held):
        peer.close()
        batch.retire(send_queue)
    eventually(lambda: {send_queue.transport.descriptor for _, send_queue in (caught_up, behind, held)} == {-1})

    followers = batch.sender._followers[batch.broadcast]
    assert not followers.caught_up
    assert not followers.behind
    assert not batch.sender._full


# --- long stretches: the kernel sends from memory that all share ---


@pytest.fixture
def spans(batch: MessageBatch, monkeypatch: pytest.MonkeyPatch) -> list[Span]:
    """What was sent from the shared memory."""
    spans: list[Span] = []
    send = batch.broadcast.send
    monkeypatch.setattr(batch.broadcast, "send", lambda number, span: spans.append(span) or send(number, span))  # type: ignore[func-returns-value]
    return spans


def test_what_is_long_is_sent_from_shared_memory_to_those_in_step(batch: MessageBatch, spans: list[Span]) -> None:
    peers = batch.peers_in_step(3)
    for size in (SPAN_MIN_BYTES - 1, SPAN_MIN_BYTES):
        batch.publish(b"x" * size)
        assert [read(peer, size) for peer, _ in peers] == [b"x" * size] * 3

    assert spans == [Span(SPAN_MIN_BYTES - 1, 2 * SPAN_MIN_BYTES - 1)] * 3


def test_what_is_long_is_sent_from_shared_memory_to_one_who_comes_behind(
    batch: MessageBatch, spans: list[Span]
) -> None:
    late, send_queue = batch.peer(follows=False)
    send_queue.follow()
    batch.publish(b"x" * SPAN_MIN_BYTES)
    put(send_queue, b"missed")
    assert read(late, 6) == b"missed"
    send_queue.release([])

    assert read(late, SPAN_MIN_BYTES) == b"x" * SPAN_MIN_BYTES
    assert spans == [Span(0, SPAN_MIN_BYTES)]


def test_what_reaches_over_the_border_of_two_segments_is_sent_whole(batch: MessageBatch) -> None:
    peers = batch.peers_in_step(3)
    size = memory_file.SEGMENT_BYTES - 10
    text = bytes(range(256)) * (size // 256 + 1)
    for start in range(0, size, 100_000):
        batch.publish(text[start : min(start + 100_000, size)])
        for peer, _ in peers:
            read(peer, min(100_000, size - start))
    batch.publish(text[: 2 * SPAN_MIN_BYTES])

    assert [read(peer, 2 * SPAN_MIN_BYTES) for peer, _ in peers] == [text[: 2 * SPAN_MIN_BYTES]] * 3


def test_one_who_is_behind_the_border_of_two_segments_is_sent_what_lies_beyond(batch: MessageBatch) -> None:
    """The end of a conversation does not wait for somebody to begin the next."""
    batch.publish(b"x" * (memory_file.SEGMENT_BYTES - 10))
    peer, send_queue = batch.peer(follows=False)
    send_queue.follow()
    batch.publish(b"y" * (SPAN_MIN_BYTES + 10))
    eventually(lambda: batch.broadcast._offered == batch.broadcast.end)
    send_queue.release([])

    assert read(peer, SPAN_MIN_BYTES + 10) == b"y" * (SPAN_MIN_BYTES + 10)


def test_one_who_is_behind_what_is_remembered_is_disconnected_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: memory stays bounded."""
    for module in (memory_file, broadcast_module):
        monkeypatch.setattr(module, "SEGMENT_BYTES", 1_000)
    with closing(MessageBatch(bytes_broadcast(kept_bytes=10_000))) as batch, capture_logs() as log:
        batch.sender.start()
        _, send_queue = batch.peer(follows=False)
        send_queue.follow()
        for _ in range(3):
            batch.publish(b"x" * 10_000)
        eventually(lambda: batch.broadcast._offered == 30_000)
        send_queue.release([])
        eventually(lambda: send_queue.broken)

    assert [entry["event"] for entry in log] == ["Disconnected: it reads too slowly"]


# --- sessions over UDP: the carrier is no socket, and not everything that was sent arrives ---


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch) -> Line:
    line = Line(monkeypatch)
    line.is_alone = False
    return line


def connect(batch: MessageBatch, line: Line, *, follows: bool = True) -> SendQueue:
    """The outbox of a session over UDP."""
    send_queue = SendQueue(line.transport, batch.broadcast, "udp@test", batch.sender.mark_ready)
    line.transport.call_when_due(partial(batch.sender.mark_ready, send_queue))
    batch.adopt(send_queue, follows=follows)
    return send_queue


def carry_until(line: Line, size: int) -> list[bytes]:
    """The peer acknowledges whatever comes, until it has heard so many frames."""
    eventually(lambda: line.carry() or len(line.heard) >= size)  # type: ignore[func-returns-value]
    return [frame(*each) for each in line.heard]


def frames(count: int, text: bytes = b"%d") -> list[bytes]:
    """Numbered ones."""
    return [frame(ord("D"), text % number) for number in range(count)]


def a_round_passes(batch: MessageBatch) -> None:
    """What the courier had to do before this is done."""
    peer, send_queue = batch.peer(follows=False)
    put(send_queue, b"fence")
    assert read(peer, 5) == b"fence"


def test_a_session_over_udp_is_sent_what_everybody_hears_and_what_it_is_answered(
    batch: MessageBatch, line: Line
) -> None:
    """Promises: one room, one order."""
    send_queue = connect(batch, line)
    other, _ = batch.peer()
    first, answer, last = frames(3)
    batch.publish(first)
    assert carry_until(line, 1) == [first]
    put(send_queue, answer)
    batch.publish(last)

    assert carry_until(line, 3) == [first, answer, last]
    assert read(other, 12) == first + last


def test_a_session_over_udp_is_never_written_to_like_a_socket(
    batch: MessageBatch, line: Line, spans: list[Span]
) -> None:
    """However much there is to be sent, and though it is due just what everybody is."""
    send_queue = connect(batch, line)
    ((other, _),) = batch.peers_in_step(1)
    said = frames(200, b"%0800d")
    for at in range(0, 200, 50):  # 40,000 bytes at once
        batch.publish(*said[at : at + 50])
        assert carry_until(line, at + 50) == said[: at + 50]
        assert read(other, 50 * 805) == b"".join(said[at : at + 50])

    a_round_passes(batch)
    assert not send_queue.caught_up
    assert len(spans) == 4, "those of the other one"


def test_a_session_whose_peer_acknowledges_nothing_holds_nobody_up(batch: MessageBatch, line: Line) -> None:
    """Promise: nobody waits for the slow."""
    send_queue = connect(batch, line)
    quick, _ = batch.peer()
    said = frames(150, b"%01000d")
    for each in said:
        batch.publish(each)
        assert read(quick, len(each)) == each
    assert len(line.sock.sent) == SEND_WINDOW
    assert send_queue not in batch.sender._full

    assert carry_until(line, 150) == said


def test_the_courier_rests_while_a_session_takes_nothing(
    resting_batch: MessageBatch, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes round for nobody before there is room, or it is time to send something again."""
    batch = resting_batch
    connect(batch, line)
    batch.publish(*frames(4_000))
    select = batch.sender._selector.select

    def look(timeout: float | None = None) -> Any:
        found = select(0)
        if not found and timeout != 0:
            raise Idle
        return found

    def rounds() -> int:
        for number in range(100):
            try:
                batch.sender._wait()
            except Idle:
                return number
            batch.sender._go_round()
        return 100

    with monkeypatch.context() as patch:
        patch.setattr(batch.sender._selector, "select", look)
        assert rounds() < 10
        assert rounds() == 0
        line.acknowledge(2)
        assert rounds() == 0
        line.acknowledge(1)
        assert 0 < rounds() < 10
        assert rounds() == 0
    batch.sender.start()


def test_what_is_not_acknowledged_is_sent_again(batch: MessageBatch, line: Line) -> None:
    connect(batch, line)
    batch.publish(*frames(3))
    eventually(lambda: len(line.sock.sent) == 3)
    sent = line.news()
    line.acknowledge(2)
    line.clock.now += RESEND_SECONDS
    assert line.transport.check_timeouts(line.clock.now) == ""
    eventually(lambda: len(line.sock.sent) == 2)

    assert line.news() == [sent[0], sent[2]]


def test_a_session_whose_peer_is_lost_is_given_up_and_its_reader_sees_the_end(batch: MessageBatch, line: Line) -> None:
    send_queue = connect(batch, line)
    stays, _ = batch.peer()
    line.clock.now += 60.0
    assert line.transport.check_timeouts(line.clock.now) == "nothing was heard for 60 s"
    assert line.transport.read(1, DEADLINE_SECONDS) == b""
    eventually(lambda: send_queue.broken)
    batch.publish(b"hello")
    assert read(stays, 5) == b"hello"
    batch.retire(send_queue)

    eventually(lambda: line.transport.closed)
    assert send_queue not in batch.sender._followers[batch.broadcast].behind
    assert line.news() == []


def test_a_session_that_is_too_far_behind_is_disconnected_with_a_reason_in_the_log(
    batch: MessageBatch, line: Line
) -> None:
    """Promise: nobody waits for the slow."""
    send_queue = connect(batch, line)
    with capture_logs() as log:
        for _ in range(20):
            batch.publish(*frames(100, b"%01000d"))
            a_round_passes(batch)
        eventually(lambda: send_queue.broken)

    assert [(entry["event"], entry["connection"]) for entry in log] == [
        ("Disconnected: it reads too slowly", "udp@test")
    ]
    assert line.transport.read(1, DEADLINE_SECONDS) == b""


def test_a_session_is_closed_when_its_peer_has_got_the_last(batch: MessageBatch, line: Line) -> None:
    """Else what was lost on the way could not be sent again."""
    send_queue = connect(batch, line)
    first, bye = frames(2)
    batch.publish(first)
    put(send_queue, bye)
    batch.retire(send_queue)
    eventually(lambda: send_queue.shut and len(line.sock.sent) == 2)
    for each in (2, 1):
        a_round_passes(batch)
        assert not line.transport.closed
        line.acknowledge(each)

    eventually(lambda: line.transport.closed)


def test_what_is_lost_is_sent_again_until_the_session_is_closed(batch: MessageBatch, line: Line) -> None:
    send_queue = connect(batch, line, follows=False)
    (bye,) = frames(1)
    put(send_queue, bye)
    batch.retire(send_queue)
    eventually(lambda: send_queue.shut)
    (sent,) = line.news()
    line.clock.now += RESEND_SECONDS
    line.transport.check_timeouts(line.clock.now)

    eventually(lambda: line.sock.sent)
    assert carry_until(line, 1) == [bye]
    assert (sent.sequence, sent.payload) == (1, b"0")
    eventually(lambda: line.transport.closed)


def test_a_session_whose_peer_does_not_acknowledge_the_last_is_closed_when_patience_ends(
    batch: MessageBatch, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender_module, "LINGER_SECONDS", 0.0)
    send_queue = connect(batch, line, follows=False)
    put(send_queue, *frames(1))
    batch.retire(send_queue)

    eventually(lambda: line.transport.closed)
    assert send_queue.broken


def test_the_end_waits_for_what_a_session_has_not_acknowledged(batch: MessageBatch, line: Line) -> None:
    """Promise: shutdown. But for no longer than it was told to."""
    send_queue = connect(batch, line, follows=False)
    put(send_queue, *frames(1))
    batch.retire(send_queue)
    end = in_background(lambda: batch.stop(DEADLINE_SECONDS))
    eventually(lambda: send_queue.shut)
    assert end.is_alive()
    assert not line.transport.closed
    line.acknowledge(1)

    must_end(end)
    assert line.transport.closed


def test_the_end_does_not_wait_for_ever_for_a_session(batch: MessageBatch, line: Line) -> None:
    """Promise: shutdown."""
    send_queue = connect(batch, line, follows=False)
    put(send_queue, *frames(1_000))
    batch.retire(send_queue)
    must_end(in_background(batch.stop))

    assert line.transport.closed


def test_a_session_that_is_hung_up_on_is_told_the_last_before_its_reader_sees_the_end(
    batch: MessageBatch, line: Line
) -> None:
    send_queue = connect(batch, line, follows=False)
    (bye,) = frames(1)
    put(send_queue, bye)
    send_queue.finish(hang_up=True)

    assert line.transport.read(1, DEADLINE_SECONDS) == b""
    assert carry_until(line, 1) == [bye]


# --- against a simple model, under hypothesis ---


class Valve:
    """Stands for what sends: takes so much of it as a test says, while other threads go on."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self.received: dict[int, bytes] = {
            listener.send_queue.transport.descriptor: b"" for listener in scene.listeners
        }
        self.reset: set[int] = set()
        # How much of a send is taken, and what somebody else does meanwhile; by the descriptor.
        self.openings: dict[int, int] = {}
        self.meanwhile: dict[int, Step] = {}

    def write(self, descriptor: int, data: bytes) -> int:
        if descriptor not in self.received:  # the doorbell
            return os.write(descriptor, data)
        self._scene.play(self.meanwhile.pop(descriptor, ()))
        if descriptor in self.reset:
            raise ConnectionResetError
        opening = self.openings.get(descriptor, len(data))
        if not opening:
            raise BlockingIOError
        self.received[descriptor] += data[:opening]
        return min(opening, len(data))

    def writev(self, descriptor: int, pieces: list[bytes]) -> int:
        return self.write(descriptor, b"".join(pieces))

    def sendfile(self, target: int, source: int, offset: int, size: int) -> int:
        return self.write(target, os.pread(source, size, offset))


class Idle(Exception):  # noqa: N818
    """The courier would wait."""


class Rounds:
    """The courier without its thread, so that a test says what happens when."""

    def __init__(self, sender: Sender, valve: Valve, scene: Scene) -> None:
        self._sender = sender
        self._valve = valve
        self._scene = scene
        self._descriptors = list(valve.received)
        self._select = sender._selector.select
        sender._selector.select = self._look  # type: ignore[method-assign]

    def _look(self, timeout: float | None = None) -> Any:
        found = self._select(0)
        if not found and timeout != 0:
            raise Idle
        return found

    def play(self, step: Step) -> None:
        match step:
            case ("round", tuple(taken), (int(who), tuple(meanwhile))):
                self._valve.openings = dict(zip(self._descriptors, taken, strict=True))
                self._valve.meanwhile = {self._descriptors[who]: meanwhile}
                self.go_round()
            case ("reset", int(who)):
                self._valve.reset.add(self._descriptors[who])
            case _:
                self._scene.play(step)

    def go_round(self) -> bool:
        """Go round as the courier does when it has something to do."""
        try:
            self._sender._wait()
        except Idle:
            return False
        self._sender._go_round()
        self._sender._close_retired()
        return True

    def finish(self) -> None:
        """The sockets take everything, and nothing comes any more."""
        self._valve.openings, self._valve.meanwhile = {}, {}
        assert any(not self.go_round() for _ in range(1_000)), "it goes round for ever"


def step(dice: Random) -> Step:
    """Rounds stand behind most of what happens: being in step is the rule, not the exception."""
    (what,) = dice.choices(["round", "room", "reset"], [50, 50, 1])
    match what:
        case "round":
            return what, tuple(take(dice) for _ in range(LISTENERS)), (someone(dice), room_step(dice))
        case "reset":
            return what, someone(dice)
        case _:
            return room_step(dice)


@settings(max_examples=200)
@given(
    script=scripts(step),
    held=st.tuples(*[st.booleans()] * LISTENERS),
    pieces=st.integers(1, 5),
    span_bytes=st.integers(1, 20),
    share_bytes=st.integers(0, 20),
    segment_bytes=st.integers(5, 64),
)
def test_everybody_is_sent_everything_whatever_the_sockets_take_and_whoever_vanishes(
    script: list[Step],
    held: tuple[bool, ...],
    pieces: int,
    span_bytes: int,
    share_bytes: int,
    segment_bytes: int,
) -> None:
    """Promise: one order. When the courier has nothing to do, nobody is due anything, and all are in step."""
    with (
        small(
            segment_bytes=segment_bytes, span_bytes=span_bytes, send_bytes=span_bytes + share_bytes, pieces=pieces
        ) as broadcast,
        closing(MessageBatch(broadcast)) as batch,
        pytest.MonkeyPatch.context() as patch,
    ):
        peers = [batch.peer(follows=False) for _ in held]
        scene = Scene(broadcast, [send_queue for _, send_queue in peers], held, batch.sender.wake)
        valve = Valve(scene)
        patch.setattr(sender_module, "os", SimpleNamespace(write=valve.write, read=os.read))
        patch.setattr(transport_module, "os", SimpleNamespace(writev=valve.writev))
        patch.setattr(memory_file.os, "sendfile", valve.sendfile)
        rounds = Rounds(batch.sender, valve, scene)
        for each in script:
            rounds.play(each)
        for listener in scene.listeners:
            listener.release()
        rounds.finish()

        for listener, (descriptor, received) in zip(scene.listeners, valve.received.items(), strict=True):
            if descriptor in valve.reset:
                assert listener.rest().startswith(received)
            else:
                assert listener.rest() == received
                assert listener.send_queue.caught_up == listener.follows
            batch.retire(listener.send_queue)
        rounds.finish()
        for peer, send_queue in peers:
            assert peer.recv(1) == b""
            assert send_queue.transport.descriptor == -1
