"""Send queues and the buffer that they follow: the data to send next, however much of it a socket takes at a time."""

import gc
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatserver.net.broadcast import AHEAD_MAX_BYTES, SEND_MAX_BYTES, SPAN_MIN_BYTES, BroadcastBuffer, SendLimits, Span
from chatserver.net.sendqueue import UNREAD_MAX_BYTES, SendQueue
from chatserver.net.transport import TcpTransport

from .helpers import DEADLINE_SECONDS, assert_waits, bytes_broadcast, in_background, insert, must_end, publish, put
from .send_model import (
    LISTENERS,
    MUCH,
    Listener,
    SendModel,
    Step,
    random_listener,
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


def new_queue(broadcast: BroadcastBuffer, wake: Callable[[SendQueue], None] = lambda _: None) -> SendQueue:
    transport = type("", (TcpTransport,), {"write_max_bytes": broadcast.limits.send_max_bytes})(None)
    return SendQueue(transport, broadcast, "1@test", wake)


def following(broadcast: BroadcastBuffer) -> SendQueue:
    """A queue that follows and is not held."""
    send_queue = new_queue(broadcast)
    send_queue.follow()
    send_queue.release([])
    return send_queue


def next_data(send_queue: SendQueue, offered: int | None = None) -> bytes:
    """The data of the next send, with all of the buffer offered, or a part of it."""
    span = send_queue.next_span(send_queue.broadcast.end if offered is None else offered)
    return send_queue.broadcast.slice(*span) if isinstance(span, Span) else b"".join(span)


def drain(send_queue: SendQueue) -> bytes:
    """Everything that is sent to a socket that is never full."""
    taken = b""
    while part := next_data(send_queue):
        send_queue.note_sent(len(part))
        taken += part
    return taken


def insert_at_tail(send_queue: SendQueue, *events: bytes) -> None:
    insert(send_queue, send_queue.broadcast.tail, send_queue.broadcast.tail, *events)


class Rounds:
    """The sender's rule in small: how much is offered, and how much of it each socket takes, is in the script."""

    def __init__(self, model: SendModel) -> None:
        self._model = model
        self._caught_up: list[Listener] = []
        self._offered = 0
        self._meanwhile: dict[int, Step] = {}

    def play(self, step: Step) -> None:
        match step:
            case ("round", int(most_bytes), tuple(taken), (int(who), tuple(meanwhile))):
                self._meanwhile = {who: meanwhile}
                self._advance(most_bytes, taken)
                for number, bytes_taken in enumerate(taken):
                    if not self._model.listeners[number].send_queue.caught_up:
                        self._visit(number, bytes_taken)
            case ("visit", int(who), int(most_bytes)):
                self._visit(who, most_bytes)
            case _:
                self._model.play(step)

    def _advance(self, most_bytes: int, taken: Sequence[int]) -> None:
        """Offer more of the buffer, and send it to the queues that are caught up."""
        start, end = self._offered, min(self._model.broadcast.end, self._offered + most_bytes)
        self._offered = end
        if start == end:
            return
        for number, listener in enumerate(self._model.listeners):
            if listener not in self._caught_up:
                continue
            is_caught_up = listener.send_queue.caught_up
            self._let_others_run(number)
            sent_bytes = min(taken[number], end - start) if is_caught_up else 0
            listener.receive(self._model.broadcast.slice(start, start + sent_bytes), end)
            if start + sent_bytes < end:
                self._fall_behind(listener, start + sent_bytes)

    def _visit(self, number: int, most_bytes: int) -> None:
        listener = self._model.listeners[number]
        if listener in self._caught_up:
            self._fall_behind(listener, self._offered)
        data = next_data(listener.send_queue, self._offered)
        assert bool(data) == bool(listener.sendable(self._offered))
        self._let_others_run(number)
        listener.receive(data[:most_bytes], self._offered)
        listener.send_queue.note_sent(len(data[:most_bytes]))
        if listener.send_queue.catch_up(self._offered):
            self._caught_up.append(listener)

    def _let_others_run(self, number: int) -> None:
        """Another thread makes a step while this queue's data is sent."""
        self._model.play(self._meanwhile.pop(number, ()))

    def _fall_behind(self, listener: Listener, cursor: int) -> None:
        self._caught_up.remove(listener)
        listener.send_queue.fall_behind(cursor)

    def finish(self) -> None:
        """Everything is offered, and the sockets take it all."""
        self._meanwhile = {}
        self._advance(MUCH, [MUCH] * LISTENERS)
        for number, listener in enumerate(self._model.listeners):
            listener.release()
            while listener.sendable(self._offered):
                self._visit(number, MUCH)
            self._visit(number, MUCH)
            assert listener.rest() == b""
            assert listener.send_queue.lag_bytes() == listener.send_queue.kept_bytes == 0
            assert listener.send_queue.caught_up == listener.follows


def round_step(dice: Random) -> Step:
    """Many rounds, so that being caught up is the rule and not the exception."""
    (what,) = dice.choices(["round", "visit", "room"], [5, 1, 4])
    match what:
        case "round":
            taken = tuple(random_take(dice) for _ in range(LISTENERS))
            return what, random_take(dice), taken, (random_listener(dice), random_step(dice))
        case "visit":
            return what, random_listener(dice), random_take(dice)
        case _:
            return random_step(dice)


@given(script=scripts(round_step), held=st.tuples(*[st.booleans()] * LISTENERS), limits=small_limits)
def test_sent_data_is_the_buffer_with_its_edits(script: list[Step], held: tuple[bool, ...], limits: SendLimits) -> None:
    """Promise: one order. However little is offered and taken at a time, nothing is lost, doubled or out of place."""
    with closing(bytes_broadcast(limits=limits)) as broadcast:
        rounds = Rounds(SendModel(broadcast, [new_queue(broadcast) for _ in held], held))
        for step in script:
            rounds.play(step)
        rounds.finish()


def test_replies_before_the_release_are_sent_one_at_a_time(broadcast: BroadcastBuffer) -> None:
    """Simple clients take the result of one read for one reply. The buffer comes after all of them."""
    send_queue = new_queue(broadcast)
    send_queue.follow()
    publish(broadcast, b"update")
    put(send_queue, b"welcome")
    send_queue.release([b"missed"])  # type: ignore[list-item]
    for data in (b"welcome", b"missed", b"update"):
        assert send_queue.next_span(broadcast.end) == [data]
        send_queue.note_sent(len(data))


@pytest.mark.parametrize("is_released", [False, True])
def test_rest_of_large_reply_is_not_copied(broadcast: BroadcastBuffer, *, is_released: bool) -> None:
    """It may be megabytes, and there may be no memory for a second copy."""
    send_queue = following(broadcast) if is_released else new_queue(broadcast)
    put(send_queue, b"a large reply")
    (whole,) = send_queue.next_span(broadcast.end)
    send_queue.note_sent(len(b"a large "))
    (rest,) = send_queue.next_span(broadcast.end)
    assert isinstance(rest, memoryview)
    assert rest.obj is whole
    put(send_queue, b", and another one")
    assert drain(send_queue) == b"reply, and another one"


def test_small_insertions_at_one_position_are_joined_up_to_a_limit(broadcast: BroadcastBuffer) -> None:
    """Promise: memory stays bounded. An edit costs more than a short message; a joined one is copied as it grows."""
    send_queue = following(broadcast)
    for add in (insert_at_tail, put):
        for _ in range(1_000):
            add(send_queue, b"0123456789")
    sizes = [len(piece) for piece in send_queue.next_span(broadcast.end)]
    assert sum(sizes) == 20_000
    assert len(sizes) < 10
    assert max(sizes) < 5_000


@pytest.mark.parametrize("told", [b"", b"told"])
def test_one_send_takes_a_limited_part_of_the_buffer(broadcast: BroadcastBuffer, told: bytes) -> None:
    """Promise: nobody waits for the slow, nor for a peer with much unsent data."""
    send_queue = following(broadcast)
    insert(send_queue, 0, 0, told)
    publish(broadcast, b"x" * (3 * SEND_MAX_BYTES))
    assert next_data(send_queue) == told + b"x" * SEND_MAX_BYTES


def test_long_data_is_a_span_that_ends_at_the_next_edit(broadcast: BroadcastBuffer) -> None:
    """Everything up to the next edit is one piece, however many messages it is."""
    send_queue = following(broadcast)
    publish(broadcast, *[b"x"] * SPAN_MIN_BYTES)
    put(send_queue, b"reply")
    publish(broadcast, b"y" * SPAN_MIN_BYTES)
    assert send_queue.next_span(SPAN_MIN_BYTES - 1) == [b"x" * (SPAN_MIN_BYTES - 1)]
    assert send_queue.next_span(broadcast.end) == Span(0, SPAN_MIN_BYTES)
    send_queue.note_sent(SPAN_MIN_BYTES)
    assert send_queue.next_span(broadcast.end) == [b"reply", b"y" * SPAN_MIN_BYTES]


def test_replies_alone_and_insertions_wake_the_sender(broadcast: BroadcastBuffer) -> None:
    woken: list[SendQueue] = []
    send_queue = new_queue(broadcast, woken.append)
    wakes: list[tuple[Callable[[], object], bool]] = [
        (lambda: put(send_queue, b"reply"), True),
        (send_queue.follow, False),
        (lambda: send_queue.release([]), True),
        (lambda: put(send_queue, b"ready ", wake=False), False),
        (lambda: insert_at_tail(send_queue, b"stored"), True),
        (lambda: insert_at_tail(send_queue, b""), False),
        (lambda: insert(send_queue, broadcast.tail, broadcast.tail + 9, b"sent"), False),  # the flush wakes it
        (send_queue.finish, True),
    ]
    for act, is_woken in wakes:
        act()
        assert woken == [send_queue] * is_woken
        woken.clear()


ends_of_being_caught_up: dict[str, Callable[[SendQueue], None]] = {
    "reply": lambda send_queue: put(send_queue, b"x"),
    "reply not alone": lambda send_queue: put(send_queue, b"x", wake=False),
    "insertion": lambda send_queue: insert_at_tail(send_queue, b"x"),
    "skip": lambda send_queue: insert(send_queue, send_queue.broadcast.tail, send_queue.broadcast.tail + 9),
    "unfollow": SendQueue.unfollow,
    "finish": SendQueue.finish,
}


@pytest.mark.parametrize("end", ends_of_being_caught_up)
def test_queue_with_data_of_its_own_is_not_caught_up(broadcast: BroadcastBuffer, end: str) -> None:
    """Promise: one order. Otherwise the sender would send the buffer past that data."""
    send_queue = following(broadcast)
    publish(broadcast, b"one")
    assert not send_queue.catch_up(broadcast.end)
    drain(send_queue)
    assert send_queue.catch_up(broadcast.end)
    insert_at_tail(send_queue, b"")  # an event that the protocol can't express changes nothing for thousands
    assert send_queue.caught_up
    ends_of_being_caught_up[end](send_queue)
    assert not send_queue.caught_up
    send_queue.fall_behind(broadcast.end)
    assert not send_queue.catch_up(broadcast.end)


def test_caught_up_queue_keeps_no_containers(broadcast: BroadcastBuffer) -> None:
    """Promise: memory stays bounded. Empty deques of ten thousand connections are 15 MiB."""
    send_queue = following(broadcast)
    put(send_queue, b"reply")
    drain(send_queue)
    assert send_queue.catch_up(0)
    deques = [each for each in gc.get_referents(send_queue) if isinstance(each, deque)]
    assert all(each.maxlen == 0 for each in deques)


@pytest.mark.parametrize("unfollows_first", [False, True])
def test_queue_that_ends_while_held_gets_no_live_data(broadcast: BroadcastBuffer, *, unfollows_first: bool) -> None:
    """Promise: once. New messages after a gap in the missed ones would hide the gap.

    The sender finishes first if the peer is lost; the session unfollows first if the disk can't be read.
    """
    send_queue = new_queue(broadcast)
    send_queue.follow()
    publish(broadcast, b"one")
    insert_at_tail(send_queue, b"told")
    if unfollows_first:
        send_queue.unfollow()
    put(send_queue, b"bye")
    send_queue.finish()
    assert drain(send_queue) == b"bye"
    if not unfollows_first:
        send_queue.unfollow()
    assert drain(send_queue) == b""
    assert send_queue.is_drained()


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
    assert not send_queue.is_drained()
    assert drain(send_queue) == (b"one two bye" if is_released else b"two bye")
    assert send_queue.is_drained()


def test_hang_up_is_not_taken_back_by_a_later_finish(broadcast: BroadcastBuffer) -> None:
    """The reader finishes the queue as well, when it sees the end."""
    send_queue = new_queue(broadcast)
    for hang_up, hangs_up in ((False, False), (True, True), (False, True)):
        send_queue.finish(hang_up=hang_up)
        assert send_queue.hangs_up == hangs_up


def test_lag_counts_unsent_broadcasts_and_insertions_but_no_replies(broadcast: BroadcastBuffer) -> None:
    """Promise: nobody waits for the slow. A reply is the peer's own doing."""
    send_queue = following(broadcast)
    publish(broadcast, b"12345")
    for add, data in ((put, b"12"), (insert_at_tail, b"345"), (put, b"6789"), (insert_at_tail, b"0")):
        add(send_queue, data)
    counted = []
    while next_data(send_queue):
        counted.append((send_queue.lag_bytes(), send_queue.has_unsent_replies))
        send_queue.note_sent(1)
    send_queue.unfollow()
    publish(broadcast, b"12345")
    assert [lag for lag, _ in counted] == [9, 8, 7, 6, 5, 4, 4, 4, 3, 2, 1, 1, 1, 1, 1]
    assert [replies for _, replies in counted] == [True] * 14 + [False]
    assert send_queue.lag_bytes() == 0


def test_buffer_keeps_what_was_not_offered_and_kept_bytes_of_the_rest() -> None:
    """Promise: nobody waits for the slow. The buffer does not grow for them; slow means slower than the sender."""
    with closing(bytes_broadcast(10, SendLimits(segment_bytes=4))) as broadcast:
        slow = following(broadcast)
        publish(broadcast, b"x" * 101)
        broadcast.note_offered(9)
        assert len(next_data(slow)) == 101
        broadcast.note_offered(101)
        with pytest.raises(LookupError):
            slow.next_span(broadcast.end)
        with pytest.raises(LookupError):
            broadcast.send(-1, Span(0, 4))
        quick = following(broadcast)
        publish(broadcast, b"1234567890")
        broadcast.note_offered(111)
        assert drain(quick) == b"1234567890"


def test_reader_waits_while_its_peer_leaves_too_much_unread(broadcast: BroadcastBuffer) -> None:
    """Promise: back-pressure. Data that others told the peer counts, broadcast data does not."""
    send_queue = following(broadcast)
    put(send_queue, b"x" * (UNREAD_MAX_BYTES - 10))
    publish(broadcast, b"x" * KEPT_BYTES)
    assert send_queue.wait_for_room()
    insert_at_tail(send_queue, b"x" * 20)
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


def test_held_queue_does_not_wait_for_insertions(broadcast: BroadcastBuffer) -> None:
    """They can't be sent before the release, which comes after the wait: a login would wait for itself."""
    send_queue = new_queue(broadcast)
    send_queue.follow()
    insert(send_queue, 0, 0, b"x" * (UNREAD_MAX_BYTES + 1))
    assert send_queue.wait_for_room()


@pytest.mark.parametrize("is_beside", [False, True])
def test_writer_waits_while_the_sender_has_too_much_to_offer(broadcast: BroadcastBuffer, *, is_beside: bool) -> None:
    """Promise: back-pressure. Insertions count, too: a peer is not called slow because the sender is."""
    publish(broadcast, b"x" * AHEAD_MAX_BYTES)
    broadcast.wait_for_sender()
    if is_beside:
        insert(following(broadcast), broadcast.tail, broadcast.tail, b"x")
    else:
        publish(broadcast, b"x")
    writer = in_background(broadcast.wait_for_sender)
    assert_waits(writer)
    broadcast.note_offered(1)
    must_end(writer)


@pytest.mark.parametrize("end", ["round", "limit", "abandon"])
def test_wait_for_a_round_ends_with_the_round_its_limit_or_the_sender(broadcast: BroadcastBuffer, end: str) -> None:
    """A busy sender does not keep messages from the disk for long."""
    broadcast.wait_for_sender(0, DEADLINE_SECONDS)
    publish(broadcast, b"ab")
    writer = in_background(lambda: broadcast.wait_for_sender(0, 0.001 if end == "limit" else 2 * DEADLINE_SECONDS))
    broadcast.note_offered(1)
    if end != "limit":
        assert_waits(writer)
    if end == "round":
        broadcast.note_offered(2)
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
