"""Send queues and the buffer that they follow: the data to send next, however much of it a socket takes at a time."""

import gc
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, nullcontext
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatprotocol.events import Pong
from chatserver.net.broadcast import AHEAD_MAX_BYTES, SEND_MAX_BYTES, SPAN_MIN_BYTES, BroadcastBuffer, SendLimits, Span
from chatserver.net.sendqueue import ANSWER_MAX_BYTES, SendQueue, Shared, State
from chatserver.net.transport import TcpTransport

from .helpers import (
    DEADLINE_SECONDS,
    assert_waits,
    bytes_broadcast,
    given_pieces,
    in_background,
    insert,
    must_end,
    publish,
    put,
    replace,
)
from .send_model import (
    LISTENERS,
    MUCH,
    ROOMS,
    Listener,
    SendModel,
    Step,
    few_pieces,
    random_listener,
    random_room,
    random_step,
    random_take,
    scripts,
    small_limits,
)

KEPT_BYTES = 1_000_000


@pytest.fixture
def broadcast() -> Iterator[BroadcastBuffer]:
    with closing(bytes_broadcast(KEPT_BYTES)) as broadcast:
        yield broadcast


def new_queue(
    broadcast: BroadcastBuffer, wake: Callable[[SendQueue], None] = lambda _: None, pieces_max: int = 128
) -> SendQueue:
    transport = type("", (TcpTransport,), {"write_max_bytes": broadcast.limits.send_max_bytes})(None)
    return SendQueue(transport, "bytes", b"".join, "1@test", wake, given_pieces, pieces_max=pieces_max)


def following(broadcast: BroadcastBuffer) -> SendQueue:
    """A queue that follows and is LIVE."""
    send_queue = new_queue(broadcast)
    send_queue.follow(broadcast)
    send_queue.release([])
    return send_queue


def offer(broadcast: BroadcastBuffer) -> None:
    """Offer everything that is flushed."""
    while broadcast.position < broadcast.end:
        broadcast.advance()


def next_data(send_queue: SendQueue) -> bytes:
    """The data of the next send."""
    data = send_queue.next_data()
    return data.buffer.slice(data.start, data.end) if isinstance(data, Shared) else b"".join(data)


def drain(send_queue: SendQueue) -> bytes:
    """Everything that is sent to a socket that is never full."""
    for broadcast in send_queue.buffers:
        offer(broadcast)
    taken = b""
    while part := next_data(send_queue):
        send_queue.note_sent(len(part))
        taken += part
    return taken


def is_drained(send_queue: SendQueue) -> bool:
    return send_queue.shut() is not None


class Rounds:
    """The sender's rule in small: how much of the data each socket takes is in the script."""

    def __init__(self, model: SendModel) -> None:
        self._model = model
        self._placed: dict[Listener, tuple[BroadcastBuffer, ...]] = {}
        self._meanwhile: dict[int, Step] = {}

    def play(self, step: Step) -> None:
        match step:
            case ("round", int(room), tuple(taken), (int(who), tuple(meanwhile))):
                self._meanwhile = {who: meanwhile}
                self._advance(self._model.buffers[room], taken)
                for number, bytes_taken in enumerate(taken):
                    if not self._model.listeners[number].send_queue.caught_up:
                        self._visit(number, bytes_taken)
            case ("visit", int(who), int(most_bytes)):
                self._visit(who, most_bytes)
            case _:
                self._model.play(step)

    def _advance(self, buffer: BroadcastBuffer, taken: Sequence[int]) -> None:
        """Offer more of a buffer, and send it to the queues that are caught up."""
        start = buffer.advance()
        end = buffer.position
        for number, listener in enumerate(self._model.listeners):
            if buffer not in self._placed.get(listener, ()) or start == end:
                continue
            is_caught_up = listener.send_queue.caught_up
            self._let_others_run(number)
            sent_upto = start + min(taken[number], end - start) if is_caught_up else start
            listener.receive(buffer.slice(start, sent_upto))
            if sent_upto < end:
                buffers = self._placed.pop(listener)
                unsent = Shared(buffer, sent_upto, end)
                listener.send_queue.fall_behind(buffers, unsent, is_begun=sent_upto > start)
        buffer.note_offered()

    def _visit(self, number: int, most_bytes: int) -> None:
        listener = self._model.listeners[number]
        if listener in self._placed:
            listener.send_queue.fall_behind(self._placed.pop(listener))
        data = next_data(listener.send_queue)
        assert data or not listener.is_due()
        buffers = listener.send_queue.buffers
        self._let_others_run(number)
        listener.receive(data[:most_bytes])
        listener.send_queue.note_sent(len(data[:most_bytes]))
        if listener.send_queue.catch_up(buffers):
            self._placed[listener] = buffers

    def _let_others_run(self, number: int) -> None:
        """Another thread makes a step while this queue's data is sent."""
        self._model.play(self._meanwhile.pop(number, ()))

    def finish(self) -> None:
        """Everything is offered, and the sockets take it all."""
        self._meanwhile = {}
        for buffer in self._model.buffers:
            while buffer.position < buffer.end:
                self._advance(buffer, [MUCH] * LISTENERS)
        for number, listener in enumerate(self._model.listeners):
            listener.release()
            while listener.is_due():
                self._visit(number, MUCH)
            self._visit(number, MUCH)
            assert listener.has_received_all
            assert listener.send_queue.lag_bytes() == listener.send_queue.kept_bytes == 0
            assert listener.send_queue.caught_up == bool(listener.rooms)
            assert set(listener.send_queue.buffers) == {self._model.buffers[room] for room in listener.rooms}
        for number, buffer in enumerate(self._model.buffers):
            assert bool(buffer.followers) == any(number in listener.rooms for listener in self._model.listeners)


def round_step(dice: Random) -> Step:
    """Many rounds, so that being caught up is the rule and not the exception."""
    (what,) = dice.choices(["round", "visit", "room"], [5, 1, 4])
    match what:
        case "round":
            taken = tuple(random_take(dice) for _ in range(LISTENERS))
            return what, random_room(dice), taken, (random_listener(dice), random_step(dice))
        case "visit":
            return what, random_listener(dice), random_take(dice)
        case _:
            return random_step(dice)


@given(
    script=scripts(round_step),
    held=st.tuples(*[st.booleans()] * LISTENERS),
    limits=small_limits,
    pieces_max=few_pieces,
)
def test_sent_data_has_all_rooms_and_own_messages_in_order(
    script: list[Step], held: tuple[bool, ...], limits: SendLimits, pieces_max: int
) -> None:
    """Promise: one order. However little is taken at a time, nothing is lost, doubled, cut or out of place."""
    with ExitStack() as stack:
        buffers = [stack.enter_context(closing(bytes_broadcast(limits=limits))) for _ in range(ROOMS)]
        queues = [new_queue(buffers[0], pieces_max=pieces_max) for _ in held]
        rounds = Rounds(SendModel(buffers, queues, held))
        for step in script:
            rounds.play(step)
        rounds.finish()


def test_rest_of_a_cut_send_goes_before_all_other_data(broadcast: BroadcastBuffer) -> None:
    """Promise: one order. No data of another buffer, and no reply, gets into a message."""
    with closing(bytes_broadcast()) as other:
        send_queue = following(other)
        send_queue.follow(broadcast)
        assert send_queue.catch_up(send_queue.buffers)
        publish(broadcast, b"one message")
        publish(other, b"(other)")
        offer(broadcast)
        put(send_queue, b"(reply)")
        send_queue.fall_behind(send_queue.buffers, Shared(broadcast, 4, 11), is_begun=True)
        assert drain(send_queue) == b"message(other)(reply)"


def test_replies_before_the_release_are_sent_one_at_a_time(broadcast: BroadcastBuffer) -> None:
    """Simple clients take the result of one read for one reply. The buffer comes after all of them."""
    send_queue = new_queue(broadcast)
    send_queue.follow(broadcast)
    publish(broadcast, b"update")
    put(send_queue, b"welcome")
    send_queue.release([b"missed"])  # type: ignore[list-item]
    for data in (b"welcome", b"missed", b"update"):
        offer(broadcast)
        assert send_queue.next_data() == [data]
        send_queue.note_sent(len(data))


@pytest.mark.parametrize("is_released", [False, True])
def test_rest_of_large_reply_is_not_copied(broadcast: BroadcastBuffer, *, is_released: bool) -> None:
    """It may be megabytes, and there may be no memory for a second copy."""
    send_queue = following(broadcast) if is_released else new_queue(broadcast)
    put(send_queue, b"a large reply")
    (whole,) = send_queue.next_data()
    send_queue.note_sent(len(b"a large "))
    (rest,) = send_queue.next_data()
    assert isinstance(rest, memoryview)
    assert rest.obj is whole
    put(send_queue, b", and another one")
    assert drain(send_queue) == b"reply, and another one"


def test_small_insertions_at_one_position_are_joined_up_to_a_limit(broadcast: BroadcastBuffer) -> None:
    """Promise: memory stays bounded. A segment costs as much as a short message; a joined one is copied as it grows."""
    send_queue = following(broadcast)
    for add in (insert, put):
        for _ in range(1_000):
            add(send_queue, b"0123456789")
    sizes = [len(piece) for piece in send_queue.next_data()]
    assert sum(sizes) == 20_000
    assert len(sizes) < 10
    assert max(sizes) < 5_000


@pytest.mark.parametrize("told", [b"", b"told"])
def test_one_send_takes_a_limited_part_of_the_buffer(broadcast: BroadcastBuffer, told: bytes) -> None:
    """Promise: no client waits for a slow one, or for a peer with much unsent data."""
    send_queue = following(broadcast)
    insert(send_queue, told)
    publish(broadcast, b"x" * (3 * SEND_MAX_BYTES))
    offer(broadcast)
    assert next_data(send_queue) == told + b"x" * SEND_MAX_BYTES


def test_long_data_is_a_span_that_ends_at_the_next_segment(broadcast: BroadcastBuffer) -> None:
    """Everything up to bytes of its own is one piece, however many messages it is."""
    send_queue = following(broadcast)
    publish(broadcast, *[b"x"] * SPAN_MIN_BYTES)
    put(send_queue, b"reply")
    publish(broadcast, b"y" * SPAN_MIN_BYTES)
    offer(broadcast)
    span = send_queue.next_data()
    assert isinstance(span, Shared)
    assert (span.buffer, span.start, span.end) == (broadcast, 0, SPAN_MIN_BYTES)
    send_queue.note_sent(1)
    assert send_queue.next_data() == [b"x" * (SPAN_MIN_BYTES - 1), b"reply", b"y" * SPAN_MIN_BYTES]


def test_replies_alone_and_insertions_wake_the_sender(broadcast: BroadcastBuffer) -> None:
    woken: list[SendQueue] = []
    send_queue = new_queue(broadcast, woken.append)
    wakes: list[tuple[Callable[[], object], bool]] = [
        (lambda: put(send_queue, b"reply"), True),
        (lambda: send_queue.follow(broadcast), False),
        (lambda: send_queue.release([]), True),
        (lambda: put(send_queue, b"ready ", wake=False), False),
        (lambda: insert(send_queue, b"stored"), True),
        (lambda: insert(send_queue, b""), False),
        (lambda: replace(send_queue, broadcast, 0, 9, b"sent"), False),  # the flush wakes it
        (lambda: send_queue.unfollow(broadcast), True),  # other sets of the sender
        (lambda: send_queue.follow(broadcast), True),
        (send_queue.finish, True),
    ]
    for act, is_woken in wakes:
        act()
        assert woken == [send_queue] * is_woken
        woken.clear()


ends_of_being_caught_up: dict[str, Callable[[SendQueue], None]] = {
    "reply": lambda send_queue: put(send_queue, b"x"),
    "reply not alone": lambda send_queue: put(send_queue, b"x", wake=False),
    "insertion": lambda send_queue: insert(send_queue, b"x"),
    "skip": lambda send_queue: replace(send_queue, send_queue.buffers[0], 3, 12),
    "unfollow": lambda send_queue: send_queue.unfollow(send_queue.buffers[0]),
    "finish": SendQueue.finish,
}


@pytest.mark.parametrize("end", ends_of_being_caught_up)
def test_queue_with_data_of_its_own_is_not_caught_up(broadcast: BroadcastBuffer, end: str) -> None:
    """Promise: one order. Otherwise the sender would send the buffer past that data."""
    send_queue = following(broadcast)
    publish(broadcast, b"one")
    offer(broadcast)
    assert not send_queue.catch_up(send_queue.buffers)
    drain(send_queue)
    assert send_queue.catch_up(send_queue.buffers)
    insert(send_queue, b"")  # an event that the protocol can't express changes nothing for thousands
    assert send_queue.caught_up
    ends_of_being_caught_up[end](send_queue)
    assert not send_queue.caught_up
    send_queue.fall_behind([broadcast])
    assert not send_queue.catch_up(send_queue.buffers)


def test_queue_that_follows_another_buffer_is_not_caught_up(broadcast: BroadcastBuffer) -> None:
    """Promise: one order. The sender has not yet put it into the set of that buffer, and would never send its data."""
    with closing(bytes_broadcast()) as other:
        send_queue = following(broadcast)
        buffers = send_queue.buffers
        assert send_queue.catch_up(buffers)
        send_queue.follow(other)
        assert not send_queue.caught_up
        assert not send_queue.catch_up(buffers)
        assert send_queue.catch_up(send_queue.buffers)


def test_caught_up_queue_takes_little_memory(broadcast: BroadcastBuffer) -> None:
    """Promise: memory stays bounded. 1 KiB more for each of ten thousand connections is 10 MiB."""
    send_queue = following(broadcast)
    for _ in range(1_000):
        insert(send_queue, b"x" * 5_000)
    drain(send_queue)
    assert send_queue.catch_up(send_queue.buffers)
    referents = [each for each in gc.get_referents(send_queue) if isinstance(each, (list, dict, tuple))]
    assert sys.getsizeof(send_queue) + sum(map(sys.getsizeof, referents)) < 700


@pytest.mark.parametrize("unfollows_first", [False, True])
def test_queue_that_ends_while_held_gets_no_live_data(broadcast: BroadcastBuffer, *, unfollows_first: bool) -> None:
    """Promise: once. New messages after a gap in the missed ones would hide the gap.

    The sender finishes first if the peer is lost; the session unfollows first if the disk can't be read.
    """
    send_queue = new_queue(broadcast)
    send_queue.follow(broadcast)
    publish(broadcast, b"one")
    insert(send_queue, b"told")
    if unfollows_first:
        send_queue.unfollow(broadcast)
    put(send_queue, b"bye")
    send_queue.finish()
    assert drain(send_queue) == b"bye"
    if not unfollows_first:
        send_queue.unfollow(broadcast)
    assert drain(send_queue) == b""
    assert is_drained(send_queue)


@pytest.mark.parametrize("is_released", [False, True])
def test_finished_queue_sends_pending_data_and_nothing_later(broadcast: BroadcastBuffer, *, is_released: bool) -> None:
    """Promises: shutdown; memory stays bounded. The reader may reply while another thread finishes the queue."""
    send_queue = following(broadcast) if is_released else new_queue(broadcast)
    publish(broadcast, b"one ")
    put(send_queue, b"two ")
    put(send_queue, b"")
    send_queue.finish([b"bye"])  # type: ignore[list-item]
    kept_bytes = send_queue.kept_bytes
    publish(broadcast, b"three")
    put(send_queue, b"reply")
    send_queue.finish([b"bye"])  # type: ignore[list-item]
    assert send_queue.kept_bytes == kept_bytes
    assert not is_drained(send_queue)
    assert drain(send_queue) == (b"one two bye" if is_released else b"two bye")
    assert is_drained(send_queue)


def test_hang_up_is_not_taken_back_by_a_later_finish(broadcast: BroadcastBuffer) -> None:
    """The reader finishes the queue as well, when it sees the end."""
    send_queue = new_queue(broadcast)
    for hang_up, state in ((False, State.DRAINING), (True, State.HANGING_UP), (False, State.HANGING_UP)):
        send_queue.finish(hang_up=hang_up)
        assert send_queue.state is state


def test_lag_counts_unsent_broadcasts_and_insertions_but_no_replies(broadcast: BroadcastBuffer) -> None:
    """Promise: no client waits for a slow one. A reply is the peer's own doing."""
    send_queue = following(broadcast)
    publish(broadcast, b"12345")
    for add, data in ((put, b"12"), (insert, b"345"), (put, b"6789"), (insert, b"0")):
        add(send_queue, data)
    offer(broadcast)
    counted = []
    while next_data(send_queue):
        counted.append((send_queue.lag_bytes(), send_queue.has_unsent_replies))
        send_queue.note_sent(1)
    send_queue.unfollow(broadcast)
    publish(broadcast, b"12345")
    assert [lag for lag, _ in counted] == [9, 8, 7, 6, 5, 4, 4, 4, 3, 2, 1, 1, 1, 1, 1]
    assert [replies for _, replies in counted] == [True] * 14 + [False]
    assert send_queue.lag_bytes() == 0


def test_buffer_keeps_what_was_not_offered_and_kept_bytes_of_the_rest() -> None:
    """Promise: no client waits for a slow one. The buffer does not grow for them; slow means slower than the sender."""
    with closing(bytes_broadcast(10, SendLimits(segment_bytes=4))) as broadcast:
        slow = following(broadcast)
        publish(broadcast, b"x" * 9)
        broadcast.advance()
        publish(broadcast, b"x" * 92)
        broadcast.note_offered()
        put(slow, b"")
        slow.unfollow(broadcast)
        assert len(next_data(slow)) == 101
        broadcast.advance()
        broadcast.note_offered()
        with pytest.raises(LookupError):
            slow.next_data()
        with pytest.raises(LookupError):
            broadcast.send(-1, Span(0, 4))
        quick = following(broadcast)
        publish(broadcast, b"1234567890")
        broadcast.advance()
        broadcast.note_offered()
        assert drain(quick) == b"1234567890"


def test_reader_waits_while_its_peer_leaves_too_much_unread(broadcast: BroadcastBuffer) -> None:
    """Promise: back-pressure. Data that others told the peer counts, broadcast data does not."""
    send_queue = following(broadcast)
    put(send_queue, b"x" * (ANSWER_MAX_BYTES // 4 - 10))
    publish(broadcast, b"x" * KEPT_BYTES)
    assert send_queue.wait_for_room()
    insert(send_queue, b"x" * 20)
    waiter = in_background(send_queue.wait_for_room)
    send_queue.note_sent(9)
    assert_waits(waiter)
    send_queue.note_sent(1)
    must_end(waiter)
    put(send_queue, b"x")
    waiter = in_background(send_queue.wait_for_room)
    assert_waits(waiter)
    send_queue.finish()
    must_end(waiter)
    assert not send_queue.wait_for_room()


def answering(broadcast: BroadcastBuffer, pieces: Iterable[bytes]) -> SendQueue:
    """A live queue whose long answers have these pieces."""
    transport = type("", (TcpTransport,), {"write_max_bytes": SEND_MAX_BYTES})(None)
    send_queue = SendQueue(transport, "bytes", b"".join, "1@test", lambda _: None, lambda *_: iter(pieces))
    send_queue.follow(broadcast)
    send_queue.release([])
    return send_queue


@pytest.mark.parametrize("ends", [False, True])
def test_long_answer_is_queued_as_the_peer_reads(broadcast: BroadcastBuffer, *, ends: bool) -> None:
    """Promise: memory stays bounded. Live data waits for the end of the answer; so does the end of the connection."""
    pieces = [b"%d" % (number % 10) * 32_768 for number in range(100)]
    send_queue = answering(broadcast, pieces)
    publish(broadcast, b"before ")
    reader = in_background(lambda: send_queue.put_long(Pong(), ()))
    taken = b""
    while len(taken) < 1_000_000:
        assert send_queue.kept_bytes < 200_000
        part = next_data(send_queue)[:50_000]
        taken += part
        send_queue.note_sent(len(part))
    assert_waits(reader)
    publish(broadcast, b" live")
    insert(send_queue, b" direct")
    if ends:
        send_queue.finish([b" bye"])  # type: ignore[list-item]
    while reader.is_alive() or next_data(send_queue):
        part = drain(send_queue)
        taken += part
    assert taken == b"before " + b"".join(pieces) + b" live direct" + (b" bye" if ends else b"")
    assert is_drained(send_queue) == ends


@pytest.mark.parametrize("end", ["lost peer", "error", "hang up"])
def test_incomplete_answer_is_the_last_data(broadcast: BroadcastBuffer, end: str) -> None:
    """Other data within half a line would be read as a part of it."""

    def pieces() -> Iterator[bytes]:
        yield b"half "
        publish(broadcast, b"live")
        if end == "error":
            raise MemoryError
        if end == "hang up":
            send_queue.finish([b"bye"], hang_up=True)  # type: ignore[list-item]
        else:
            send_queue.close()
        yield b"not queued"

    send_queue = answering(broadcast, pieces())
    with pytest.raises(MemoryError) if end == "error" else nullcontext():
        send_queue.put_long(Pong(), ())
    put(send_queue, b"reply")
    assert drain(send_queue) == (b"" if end == "lost peer" else b"half ")
    assert not send_queue.wait_for_room()


def test_unread_insertions_are_kept_in_the_shared_overflow(broadcast: BroadcastBuffer) -> None:
    """Promise: memory stays bounded. A burst to a peer that reads arrives whole; the numbers are reported after it."""
    with closing(bytes_broadcast(2_000_000)) as overflow:
        queues = []
        for _ in range(2):
            transport = type("", (TcpTransport,), {"write_max_bytes": SEND_MAX_BYTES})(None)
            send_queue = SendQueue(transport, "bytes", b"".join, "1@test", lambda _: None, overflow=overflow)
            send_queue.follow(broadcast)
            send_queue.release([])
            queues.append(send_queue)
        sent = [b"", b""]
        for number in range(5_000):
            text = b"%0100d" % number
            for at, send_queue in enumerate(queues):
                if number % (at + 1) == 0:
                    insert(send_queue, text)
                    send_queue.track(number, lambda _: None)
                    sent[at] += text
            if number % 1_000 == 0:
                publish(broadcast, b"all")
                sent = [each + b"all" for each in sent]
        assert [send_queue.lag_bytes() for send_queue in queues] == [len(each) for each in sent]
        assert all(send_queue.kept_bytes <= 128 * 1024 for send_queue in queues)
        assert [drain(send_queue) for send_queue in queues] == sent


def test_held_queue_does_not_wait_for_insertions(broadcast: BroadcastBuffer) -> None:
    """They can't be sent before the release, which comes after the wait: a login would wait for itself."""
    send_queue = new_queue(broadcast)
    send_queue.follow(broadcast)
    insert(send_queue, b"x" * (ANSWER_MAX_BYTES // 4 + 1))
    assert send_queue.wait_for_room()


@pytest.mark.parametrize("is_beside", [False, True])
def test_writer_waits_while_the_sender_has_too_much_to_offer(broadcast: BroadcastBuffer, *, is_beside: bool) -> None:
    """Promise: back-pressure. Insertions count, too: a peer is not called slow because the sender is."""
    publish(broadcast, b"x" * AHEAD_MAX_BYTES)
    broadcast.wait_for_sender()
    if is_beside:
        insert(following(broadcast), b"x")
    else:
        publish(broadcast, b"x")
    writer = in_background(broadcast.wait_for_sender)
    assert_waits(writer)
    broadcast.advance()
    broadcast.note_offered()
    must_end(writer)


@pytest.mark.parametrize("end", ["round", "limit", "abandon"])
def test_wait_for_a_round_ends_with_the_round_its_limit_or_the_sender(broadcast: BroadcastBuffer, end: str) -> None:
    """A busy sender does not keep messages from the disk for long."""
    broadcast.wait_for_sender(0, DEADLINE_SECONDS)
    publish(broadcast, b"a" * SEND_MAX_BYTES)
    publish(broadcast, b"b")
    writer = in_background(lambda: broadcast.wait_for_sender(0, 0.001 if end == "limit" else 2 * DEADLINE_SECONDS))
    broadcast.advance()
    broadcast.note_offered()
    if end != "limit":
        assert_waits(writer)
    if end == "round":
        broadcast.advance()
        broadcast.note_offered()
    elif end == "abandon":
        broadcast.note_sender_end()
    must_end(writer)


def test_appended_data_is_unseen_until_the_flush(broadcast: BroadcastBuffer) -> None:
    """Promise: seen means stored."""
    assert broadcast.append([b"one", b"", b"two"]) == (0, 6)  # type: ignore[list-item]
    assert broadcast.append([]) == (6, 6)
    assert broadcast.append([b"three"]) == (6, 11)  # type: ignore[list-item]
    assert (broadcast.end, broadcast.tail) == (0, 11)
    broadcast.flush()
    assert broadcast.end == 11
    assert broadcast.slice(0, 11) == b"onetwothree"
