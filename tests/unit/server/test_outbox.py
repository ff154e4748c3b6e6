"""Streams and outboxes: what is due, whatever part of it a socket takes at a time."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatserver.net import broadcast as broadcast_module
from chatserver.net import memory_file
from chatserver.net import sendqueue as send_queue_module
from chatserver.net.broadcast import AHEAD_MAX_BYTES, SEND_MAX_BYTES, SPAN_MIN_BYTES, BroadcastBuffer, Span
from chatserver.net.sendqueue import UNREAD_MAX_BYTES, SendQueue
from chatserver.net.transport import TcpTransport

from .rooms import DEADLINE_SECONDS, bytes_broadcast, eventually, in_background, must_end, publish, put, release, splice
from .scene import LISTENERS, MUCH, Listener, Scene, Step, room_step, scripts, small, someone, take

KEPT_BYTES = 1_000_000


def new_send_queue(broadcast: BroadcastBuffer) -> SendQueue:
    return SendQueue(TcpTransport(None), broadcast, "1@test", lambda _: None)  # type: ignore[arg-type]


def following(broadcast: BroadcastBuffer) -> SendQueue:
    """An outbox that follows and was released."""
    send_queue = new_send_queue(broadcast)
    send_queue.follow()
    send_queue.release([])
    return send_queue


def caught_up(broadcast: BroadcastBuffer) -> SendQueue:
    """An outbox that was sent all that is shown, and is due nothing else."""
    send_queue = following(broadcast)
    assert send_queue.catch_up(broadcast.end)
    return send_queue


def due(send_queue: SendQueue, offered: int | None = None) -> bytes:
    """What would be sent next, where everything that is shown was offered, or so much of it."""
    what = send_queue.next_span(send_queue.broadcast.end if offered is None else offered)
    return send_queue.broadcast.slice(*what) if isinstance(what, Span) else b"".join(what)


def splice_at_tail(send_queue: SendQueue, *events: bytes) -> None:
    """Tell one connection something between what was said and what will be."""
    splice(send_queue, send_queue.broadcast.tail, send_queue.broadcast.tail, *events)


def drain(send_queue: SendQueue) -> bytes:
    """Take everything that is due, as a socket does that is never full."""
    taken = b""
    while part := due(send_queue):
        send_queue.note_sent(len(part))
        taken += part
    return taken


# --- against a simple model, under hypothesis ---


class Rounds:
    """The courier's rule in small. A test says how much is offered, and how much of it each socket takes."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._in_step: list[Listener] = []
        self._offered = 0
        self._meanwhile: dict[int, Step] = {}

    def play(self, step: Step) -> None:
        match step:
            case ("round", int(most_bytes), tuple(taken), (int(who), tuple(meanwhile))):
                self._meanwhile = {who: meanwhile}
                self._advance(most_bytes, taken)
                for number, bytes_taken in enumerate(taken):
                    if not self._scene.listeners[number].send_queue.caught_up:
                        self._visit(number, bytes_taken)
            case ("visit", int(who), int(most_bytes)):
                self._visit(who, most_bytes)
            case _:
                self._scene.play(step)

    def _advance(self, most_bytes: int, taken: Sequence[int]) -> None:
        """Offer more of the stream. Those in step are sent it at once."""
        start, end = self._offered, min(self._scene.broadcast.end, self._offered + most_bytes)
        self._offered = end
        if start == end:
            return
        for number, listener in enumerate(self._scene.listeners):
            if listener not in self._in_step:
                continue
            is_in_step = listener.send_queue.caught_up
            self._let_others_go_on(number)
            sent_bytes = min(taken[number], end - start) if is_in_step else 0
            listener.hear(self._scene.broadcast.slice(start, start + sent_bytes), end)
            if start + sent_bytes < end:
                self._let_out(listener, start + sent_bytes)

    def _visit(self, number: int, most_bytes: int) -> None:
        """Send what one of them is due, as much of it as its socket takes."""
        listener = self._scene.listeners[number]
        if listener in self._in_step:
            self._let_out(listener, self._offered)
        data = due(listener.send_queue, self._offered)
        assert bool(data) == bool(listener.sendable(self._offered))
        self._let_others_go_on(number)
        listener.hear(data[:most_bytes], self._offered)
        listener.send_queue.note_sent(len(data[:most_bytes]))
        if listener.send_queue.catch_up(self._offered):
            self._in_step.append(listener)

    def _let_others_go_on(self, number: int) -> None:
        """While this one is sent something, other threads don't wait for that."""
        self._scene.play(self._meanwhile.pop(number, ()))

    def finish(self) -> None:
        """Everything is offered, and the sockets take it all."""
        self._meanwhile = {}
        self._advance(MUCH, [MUCH] * LISTENERS)
        for number, listener in enumerate(self._scene.listeners):
            listener.release()
            while listener.sendable(self._offered):
                self._visit(number, MUCH)
            self._visit(number, MUCH)
            assert listener.rest() == b""
            assert listener.send_queue.lag_bytes() == listener.send_queue._unread_bytes() == 0
            assert listener.send_queue.caught_up == listener.follows

    def _let_out(self, listener: Listener, cursor: int) -> None:
        self._in_step.remove(listener)
        listener.send_queue.fall_behind(cursor)


def step(dice: Random) -> Step:
    """Rounds stand behind most of what happens: being in step is the rule, not the exception."""
    (what,) = dice.choices(["round", "visit", "room"], [5, 1, 4])
    match what:
        case "round":
            return what, take(dice), tuple(take(dice) for _ in range(LISTENERS)), (someone(dice), room_step(dice))
        case "visit":
            return what, someone(dice), take(dice)
        case _:
            return room_step(dice)


@settings(max_examples=300)
@given(
    script=scripts(step),
    held=st.tuples(*[st.booleans()] * LISTENERS),
    pieces=st.integers(1, 5),
    send_bytes=st.integers(1, 40),
    span_bytes=st.integers(1, 20),
    segment_bytes=st.integers(5, 64),
)
def test_what_is_sent_is_the_stream_with_its_skips_and_insertions(
    script: list[Step],
    held: tuple[bool, ...],
    pieces: int,
    send_bytes: int,
    span_bytes: int,
    segment_bytes: int,
) -> None:
    """Promise: one order. However little is offered and taken at a time, nothing is lost, doubled or out of place."""
    with small(segment_bytes=segment_bytes, span_bytes=span_bytes, send_bytes=send_bytes, pieces=pieces) as broadcast:
        rounds = Rounds(Scene(broadcast, [new_send_queue(broadcast) for _ in held], held))
        for each in script:
            rounds.play(each)
        rounds.finish()


@pytest.mark.parametrize("answers", [[b"welcome"], [b"welcome", b"missed"]])
def test_each_answer_to_a_login_is_sent_by_itself(broadcast: BroadcastBuffer, answers: list[bytes]) -> None:
    """Simple clients take what one read returns for one answer; what others do meanwhile comes behind it."""
    send_queue = new_send_queue(broadcast)
    send_queue.follow()
    publish(broadcast, b"update")
    put(send_queue, *answers[:-1])
    release(send_queue, answers[-1])

    for answer in [*answers, b"update"]:
        assert send_queue.next_span(broadcast.end) == [answer]
        send_queue.note_sent(len(answer))


@pytest.mark.parametrize("is_released", [False, True])
def test_the_rest_of_a_large_answer_is_not_copied(broadcast: BroadcastBuffer, is_released: bool) -> None:
    """It may be megabytes, and there may be no memory for them a second time."""
    send_queue = following(broadcast) if is_released else new_send_queue(broadcast)
    put(send_queue, b"a large answer")
    (whole,) = send_queue.next_span(broadcast.end)
    send_queue.note_sent(len(b"a large "))
    (rest,) = send_queue.next_span(broadcast.end)
    assert isinstance(rest, memoryview)
    assert rest.obj is whole
    put(send_queue, b", and another one")
    assert drain(send_queue) == b"answer, and another one"


@given(before=st.integers(1, 400), after=st.integers(0, 5))
def test_many_answers_before_the_release_all_come_before_the_stream(before: int, after: int) -> None:
    """Promise: one order. Somebody may ask much before logging in."""
    with closing(bytes_broadcast()) as broadcast:
        send_queue = new_send_queue(broadcast)
        send_queue.follow()
        for number in range(before):
            put(send_queue, b"<%d>" % number)
        publish(broadcast, b"(stream)")
        send_queue.release([])
        for number in range(after):
            put(send_queue, b"[%d]" % number)

        expected = b"".join(b"<%d>" % number for number in range(before)) + b"(stream)"
        assert drain(send_queue) == expected + b"".join(b"[%d]" % number for number in range(after))


# --- one thing at a time ---


def new_watched_send_queue(broadcast: BroadcastBuffer) -> tuple[SendQueue, list[SendQueue]]:
    """An outbox in step, and what it wakes the courier for from then on."""
    woken: list[SendQueue] = []
    send_queue = SendQueue(TcpTransport(None), broadcast, "1@test", woken.append)  # type: ignore[arg-type]
    send_queue.follow()
    send_queue.release([])
    assert send_queue.catch_up(broadcast.end)
    woken.clear()
    return send_queue, woken


def test_an_answer_by_itself_wakes_the_courier(broadcast: BroadcastBuffer) -> None:
    send_queue, woken = new_watched_send_queue(broadcast)
    put(send_queue, b"ready")

    assert woken == [send_queue]
    assert drain(send_queue) == b"ready"


def test_an_answer_that_is_not_alone_goes_out_with_what_is_spliced_in_next(broadcast: BroadcastBuffer) -> None:
    """It is due at once, and comes before the other; one system call is enough for both."""
    send_queue, woken = new_watched_send_queue(broadcast)
    put(send_queue, b"ready ", alone=False)
    assert woken == []
    assert not send_queue.caught_up, "what everybody hears must not overtake it"
    start, end = broadcast.append([b"what it said"])  # type: ignore[list-item]
    splice(send_queue, start, end, b"sent")
    broadcast.flush()

    assert due(send_queue) == b"ready sent"
    drain(send_queue)
    put(send_queue, b"ready ", alone=False)
    assert woken == []
    splice_at_tail(send_queue, b"stored")
    assert woken == [send_queue]
    assert drain(send_queue) == b"ready stored"


def test_what_a_dialect_has_no_word_for_leaves_an_outbox_in_step(broadcast: BroadcastBuffer) -> None:
    """An update of who is online is for nobody there: thousands are not to fall out of step for it."""
    send_queue, woken = new_watched_send_queue(broadcast)
    publish(broadcast, b"one")
    send_queue.fall_behind(0)
    drain(send_queue)
    assert send_queue.catch_up(broadcast.end)
    splice_at_tail(send_queue, b"")
    splice_at_tail(send_queue)

    assert send_queue.caught_up
    assert woken == []
    assert send_queue.lag_bytes() == 0


def test_what_is_left_out_of_the_stream_is_left_out_though_nothing_comes_in_its_place(
    broadcast: BroadcastBuffer,
) -> None:
    send_queue, _ = new_watched_send_queue(broadcast)
    start, end = broadcast.append([b"not for you"])  # type: ignore[list-item]
    splice(send_queue, start, end)
    broadcast.flush()
    publish(broadcast, b"for all")

    assert not send_queue.caught_up
    assert drain(send_queue) == b"for all"


@pytest.fixture
def broadcast() -> Iterator[BroadcastBuffer]:
    with closing(bytes_broadcast(KEPT_BYTES)) as broadcast:
        yield broadcast


def test_an_outbox_that_follows_nothing_sends_answers_only(broadcast: BroadcastBuffer) -> None:
    send_queue = new_send_queue(broadcast)
    publish(broadcast, b"not for strangers")
    put(send_queue, b"one", b"two")

    assert drain(send_queue) == b"onetwo"


def test_what_is_shown_is_kept_back_until_the_release(broadcast: BroadcastBuffer) -> None:
    """Promise: once. What was missed comes before anything new."""
    send_queue = new_send_queue(broadcast)
    send_queue.follow()
    publish(broadcast, b"new")
    put(send_queue, b"missed ")
    assert drain(send_queue) == b"missed "
    put(send_queue, b"more ")
    send_queue.release([])

    assert drain(send_queue) == b"more new"


def test_what_was_appended_and_not_shown_is_not_due(broadcast: BroadcastBuffer) -> None:
    """Promise: seen means stored."""
    send_queue = following(broadcast)
    broadcast.append([b"hidden"])  # type: ignore[list-item]

    assert broadcast.end == 0
    assert due(send_queue) == b""
    broadcast.flush()
    assert due(send_queue) == b"hidden"


def test_an_answer_stands_behind_what_was_shown_before_it(broadcast: BroadcastBuffer) -> None:
    send_queue = following(broadcast)
    publish(broadcast, b"one ")
    put(send_queue, b"answer ")
    publish(broadcast, b"two")

    assert drain(send_queue) == b"one answer two"


def test_after_leaving_what_was_shown_is_still_due_and_nothing_else(broadcast: BroadcastBuffer) -> None:
    send_queue = following(broadcast)
    publish(broadcast, b"one ")
    send_queue.unfollow()
    publish(broadcast, b"two")
    splice_at_tail(send_queue, b"told")
    put(send_queue, b"bye")

    assert not send_queue.is_drained()
    assert drain(send_queue) == b"one bye"
    assert not broadcast.followed


def test_an_outbox_is_drained_when_it_is_finished_and_everything_was_sent(broadcast: BroadcastBuffer) -> None:
    send_queue = following(broadcast)
    publish(broadcast, b"one")
    assert not send_queue.is_drained()
    send_queue.unfollow()
    send_queue.finish()
    assert not send_queue.is_drained()
    drain(send_queue)
    assert send_queue.is_drained()


@pytest.mark.parametrize("is_released", [False, True])
def test_behind_the_last_word_nothing_is_said(broadcast: BroadcastBuffer, is_released: bool) -> None:
    """Promise: shutdown. The reader may be about to answer when the goodbye is said."""
    send_queue = following(broadcast) if is_released else new_send_queue(broadcast)
    send_queue.finish([b"bye"])  # type: ignore[list-item]
    put(send_queue, b"answer")
    publish(broadcast, b"one")

    assert drain(send_queue) == b"bye"
    assert send_queue.is_drained()


@pytest.mark.parametrize("then", [False, True])
def test_who_was_to_be_hung_up_on_is_hung_up_on_however_it_is_finished_then(
    broadcast: BroadcastBuffer, then: bool
) -> None:
    """Its reader finishes it as well, when it sees the end."""
    send_queue = new_send_queue(broadcast)
    send_queue.finish()
    assert not send_queue.hangs_up
    send_queue.finish(hang_up=True)
    send_queue.finish(hang_up=then)

    assert send_queue.hangs_up


def test_who_is_hung_up_on_is_sent_what_is_due_before(broadcast: BroadcastBuffer) -> None:
    send_queue = new_send_queue(broadcast)
    put(send_queue, b"one ")
    send_queue.finish([b"bye"], hang_up=True)  # type: ignore[list-item]
    put(send_queue, b"two")

    assert not send_queue.is_drained()
    assert drain(send_queue) == b"one bye"
    assert send_queue.is_drained()


@pytest.mark.parametrize("is_released", [False, True])
def test_what_a_dialect_has_no_bytes_for_is_not_waited_for(broadcast: BroadcastBuffer, is_released: bool) -> None:
    send_queue = following(broadcast) if is_released else new_send_queue(broadcast)
    put(send_queue, b"")
    put(send_queue)
    send_queue.finish()

    assert send_queue.next_span(broadcast.end) == []
    assert send_queue.is_drained()


@pytest.mark.parametrize("leaves_first", [False, True])
def test_what_is_new_does_not_follow_a_gap(broadcast: BroadcastBuffer, leaves_first: bool) -> None:
    """Promise: once. One that ends before it was given all that it missed is sent its last answers, and nothing live.

    The courier ends it first when its peer has gone; it leaves first when the disk could not be read.
    """
    send_queue = new_send_queue(broadcast)
    send_queue.follow()
    publish(broadcast, b"one")
    splice(send_queue, 3, 3, b"told")
    if leaves_first:
        send_queue.unfollow()
    put(send_queue, b"bye")
    send_queue.finish()

    assert drain(send_queue) == b"bye"
    if not leaves_first:
        send_queue.unfollow()
    assert drain(send_queue) == b""
    assert send_queue.is_drained()


@pytest.mark.parametrize("told", [b"", b"told"])
def test_one_send_takes_no_more_of_the_stream_than_its_share(broadcast: BroadcastBuffer, told: bytes) -> None:
    """Promise: nobody waits for the slow, nor for one who is due a lot."""
    send_queue = following(broadcast)
    splice(send_queue, 0, 0, told)
    publish(broadcast, b"x" * (3 * SEND_MAX_BYTES))

    assert due(send_queue) == told + b"x" * SEND_MAX_BYTES


def test_with_no_edits_what_is_due_is_one_piece_however_many_messages_it_is(broadcast: BroadcastBuffer) -> None:
    send_queue = following(broadcast)
    for number in range(100):
        publish(broadcast, b"<%d>" % number)

    assert send_queue.next_span(broadcast.end) == [b"".join(b"<%d>" % number for number in range(100))]


def test_many_small_insertions_at_one_place_are_one(broadcast: BroadcastBuffer) -> None:
    """Promise: memory stays bounded. What is kept beside each costs more than a short message itself."""
    send_queue = following(broadcast)
    for tell in (splice_at_tail, put):
        for number in range(1_000):
            tell(send_queue, b"%d " % (number % 10))

    assert send_queue.next_span(broadcast.end) == [b"".join(b"%d " % (number % 10) for number in range(1_000))] * 2


def test_an_insertion_does_not_grow_for_ever(broadcast: BroadcastBuffer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each time it grows it is copied."""
    monkeypatch.setattr(send_queue_module, "_JOIN_MAX_BYTES", 10)
    send_queue = following(broadcast)
    for number in range(7):
        splice_at_tail(send_queue, b"1234%d" % number)

    assert send_queue.next_span(broadcast.end) == [b"1234012341", b"1234212343", b"1234412345", b"12346"]


def test_what_an_answer_and_what_others_say_at_one_place_are_counted_apart(broadcast: BroadcastBuffer) -> None:
    """Who is disconnected for being slow is so for what others say; who is read no further, for all of it."""
    send_queue = following(broadcast)
    for tell, data in ((put, b"12"), (splice_at_tail, b"345"), (put, b"6789"), (splice_at_tail, b"0")):
        tell(send_queue, data)

    assert due(send_queue) == b"1234567890"
    counted = []
    while send_queue._unread_bytes():
        counted.append((send_queue.lag_bytes(), send_queue.has_unsent_replies))
        send_queue.note_sent(1)
    assert [lag for lag, _ in counted] == [4, 4, 4, 3, 2, 1, 1, 1, 1, 1]
    assert [owes for _, owes in counted] == [True] * 9 + [False]


def test_an_outbox_wakes_the_courier_for_what_only_it_is_due(broadcast: BroadcastBuffer) -> None:
    woken: list[SendQueue] = []
    send_queue = SendQueue(TcpTransport(None), broadcast, "1@test", woken.append)  # type: ignore[arg-type]
    for act in (
        lambda: put(send_queue, b"x"),
        lambda: send_queue.release([]),
        send_queue.finish,
    ):
        act()
    assert woken == [send_queue] * 3
    send_queue.follow()
    splice(send_queue, 0, 0, b"x")
    assert len(woken) == 4


# --- long stretches, which the kernel sends from memory that all share ---


def test_what_is_long_is_due_as_a_stretch_of_the_stream(broadcast: BroadcastBuffer) -> None:
    send_queue = following(broadcast)
    publish(broadcast, b"x" * SPAN_MIN_BYTES)

    assert send_queue.next_span(broadcast.end - 1) == [b"x" * (SPAN_MIN_BYTES - 1)]
    assert send_queue.next_span(broadcast.end) == Span(0, SPAN_MIN_BYTES)


def test_a_stretch_ends_where_something_of_its_own_is_due(broadcast: BroadcastBuffer) -> None:
    """Promise: one order."""
    send_queue = following(broadcast)
    publish(broadcast, b"x" * SPAN_MIN_BYTES)
    put(send_queue, b"answer")
    publish(broadcast, b"y" * SPAN_MIN_BYTES)

    assert send_queue.next_span(broadcast.end) == Span(0, SPAN_MIN_BYTES)
    send_queue.note_sent(SPAN_MIN_BYTES)
    assert send_queue.next_span(broadcast.end) == [b"answer", b"y" * SPAN_MIN_BYTES]
    send_queue.note_sent(6)
    assert send_queue.next_span(broadcast.end) == Span(SPAN_MIN_BYTES, 2 * SPAN_MIN_BYTES)


def test_a_stretch_does_not_reach_over_the_end_of_its_segment() -> None:
    """The kernel sends from one piece of memory at a time."""
    with small(segment_bytes=10, span_bytes=4, send_bytes=8, pieces=9) as broadcast:
        send_queue = following(broadcast)
        publish(broadcast, b"x" * 25)
        spans = []
        while isinstance(span := send_queue.next_span(broadcast.end), Span):
            spans.append(span)
            send_queue.note_sent(span.end - span.start)

        assert spans == [(0, 8), (8, 10), (10, 18), (18, 20), (20, 25)]


# --- in step: due just what all are offered ---


def test_who_was_sent_all_and_is_due_nothing_of_its_own_is_in_step(broadcast: BroadcastBuffer) -> None:
    send_queue = following(broadcast)
    publish(broadcast, b"one")
    assert not send_queue.catch_up(broadcast.end)
    drain(send_queue)

    assert send_queue.catch_up(broadcast.end)
    publish(broadcast, b"two")
    assert send_queue.caught_up


def test_who_is_in_step_keeps_no_queues(broadcast: BroadcastBuffer) -> None:
    """Promise: memory stays bounded. Empty ones of ten thousand connections are 15 MiB."""
    send_queue = new_send_queue(broadcast)
    put(send_queue, b"answer")
    send_queue.follow()
    send_queue.release([])
    put(send_queue, b"another")
    drain(send_queue)

    assert send_queue.catch_up(0)
    assert (send_queue._replies.maxlen, send_queue._edits.maxlen) == (0, 0)


ends_of_being_in_step: dict[str, Callable[[SendQueue], None]] = {
    "it is answered": lambda send_queue: put(send_queue, b"x"),
    "it is told something": lambda send_queue: splice_at_tail(send_queue, b"x"),
    "something is not for it": lambda send_queue: splice(
        send_queue, send_queue.broadcast.tail, send_queue.broadcast.tail + 9
    ),
    "it leaves": SendQueue.unfollow,
    "it is finished": SendQueue.finish,
}


@pytest.mark.parametrize("what", ends_of_being_in_step)
def test_who_is_given_something_of_its_own_is_in_step_no_more(broadcast: BroadcastBuffer, what: str) -> None:
    """Promise: one order. Else the courier would send it the stream past the place of that."""
    send_queue = caught_up(broadcast)
    ends_of_being_in_step[what](send_queue)
    assert not send_queue.caught_up

    send_queue.fall_behind(broadcast.end)
    assert not send_queue.catch_up(broadcast.end)


def test_who_is_held_or_a_stranger_is_not_in_step(broadcast: BroadcastBuffer) -> None:
    """Promise: once. What it missed comes before anything new."""
    send_queue = new_send_queue(broadcast)
    assert not send_queue.catch_up(0)
    send_queue.follow()
    put(send_queue, b"what it missed")
    assert not send_queue.catch_up(0)
    send_queue.release([])
    assert not send_queue.catch_up(0)
    drain(send_queue)
    assert send_queue.catch_up(0)


def test_who_is_not_where_the_others_are_is_not_in_step(broadcast: BroadcastBuffer) -> None:
    publish(broadcast, b"12345")
    send_queue = following(broadcast)

    assert not send_queue.catch_up(3)
    assert due(send_queue, 3) == b""
    publish(broadcast, b"67890")
    assert not send_queue.catch_up(10)
    assert due(send_queue, 10) == b"67890"


def test_who_falls_out_goes_on_where_its_socket_was_full(broadcast: BroadcastBuffer) -> None:
    send_queue = caught_up(broadcast)
    publish(broadcast, b"12345")
    send_queue.fall_behind(2)

    assert not send_queue.caught_up
    assert send_queue.lag_bytes() == 3
    assert drain(send_queue) == b"345"
    assert send_queue.catch_up(5)


def test_a_follower_is_given_no_more_than_what_is_offered_to_all(broadcast: BroadcastBuffer) -> None:
    send_queue = following(broadcast)
    publish(broadcast, b"one ")
    put(send_queue, b"answer ")
    publish(broadcast, b"two")

    assert [due(send_queue, offered) for offered in (0, 3, 4, 6, 11)] == [
        b"",
        b"one",
        b"one answer ",
        b"one answer tw",
        b"one answer two",
    ]


def test_who_has_left_does_not_wait_for_what_is_offered_to_the_others(broadcast: BroadcastBuffer) -> None:
    """Whoever says goodbye is told goodbye, however far the courier is behind."""
    send_queue = following(broadcast)
    publish(broadcast, b"one ")
    put(send_queue, b"answer ")
    send_queue.unfollow()
    put(send_queue, b"bye")

    assert due(send_queue, 0) == b"one answer bye"


# --- how far behind ---


def test_a_lag_is_what_was_shown_and_told_and_not_sent(broadcast: BroadcastBuffer) -> None:
    """Promise: nobody waits for the slow."""
    send_queue = following(broadcast)
    put(send_queue, b"an answer is the peer's own doing")
    drain(send_queue)
    publish(broadcast, b"12345")
    splice_at_tail(send_queue, b"123")
    assert send_queue.lag_bytes() == 8
    send_queue.note_sent(2)
    assert send_queue.lag_bytes() == 6
    send_queue.note_sent(3)
    assert send_queue.lag_bytes() == 3
    send_queue.note_sent(3)
    assert send_queue.lag_bytes() == 0


def test_who_left_lags_no_further_behind(broadcast: BroadcastBuffer) -> None:
    send_queue = following(broadcast)
    send_queue.unfollow()
    publish(broadcast, b"12345")

    assert send_queue.lag_bytes() == 0


def test_what_a_stream_has_forgotten_is_a_lookup_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: nobody waits for the slow. The stream does not grow for them either."""
    monkeypatch.setattr(memory_file, "SEGMENT_BYTES", 4)
    with closing(bytes_broadcast(kept_bytes=10)) as broadcast:
        slow = following(broadcast)
        for _ in range(10):
            publish(broadcast, b"12345")
            broadcast.offered(broadcast.end)

        with pytest.raises(LookupError):
            slow.next_span(broadcast.end)
        with pytest.raises(LookupError):
            broadcast.send(-1, Span(0, 4))
        assert len(broadcast._file._segments) * 4 <= 10 + 2 * 4


def test_what_is_within_the_kept_bytes_is_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_file, "SEGMENT_BYTES", 4)
    with closing(bytes_broadcast(kept_bytes=10)) as broadcast:
        publish(broadcast, b"x" * 101)
        broadcast.offered(101)
        send_queue = following(broadcast)
        publish(broadcast, b"12345")
        publish(broadcast, b"67890")
        broadcast.offered(111)

        assert drain(send_queue) == b"1234567890"


def test_what_was_not_offered_yet_is_not_forgotten_however_much_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: nobody is called slow because the server is."""
    monkeypatch.setattr(memory_file, "SEGMENT_BYTES", 4)
    with closing(bytes_broadcast(kept_bytes=10)) as broadcast:
        send_queue = following(broadcast)
        publish(broadcast, b"x" * 100)
        broadcast.offered(9)

        assert drain(send_queue) == b"x" * 100


# --- waiting ---


@pytest.fixture
def full(broadcast: BroadcastBuffer) -> Iterator[SendQueue]:
    """An outbox whose peer has left too much unread."""
    send_queue = following(broadcast)
    put(send_queue, b"x" * (UNREAD_MAX_BYTES + 10))
    yield send_queue
    send_queue.finish()


def test_there_is_room_while_little_is_unread(broadcast: BroadcastBuffer) -> None:
    send_queue = following(broadcast)
    put(send_queue, b"x" * UNREAD_MAX_BYTES)
    publish(broadcast, b"x" * KEPT_BYTES)

    send_queue.wait_for_room()


def test_a_reader_waits_until_its_peer_has_read(full: SendQueue) -> None:
    """Promise: back-pressure. A peer that does not read its answers is not read either."""
    waiter = in_background(full.wait_for_room)
    eventually(lambda: full._drained is not None and full._drained._waiters)  # type: ignore[attr-defined]
    full.note_sent(9)
    assert waiter.is_alive()
    full.note_sent(1)
    must_end(waiter)


def test_a_reader_waits_for_what_others_told_its_peer_too(broadcast: BroadcastBuffer) -> None:
    send_queue = following(broadcast)
    splice_at_tail(send_queue, b"x" * (UNREAD_MAX_BYTES + 1))
    waiter = in_background(send_queue.wait_for_room)
    eventually(lambda: send_queue._drained is not None and send_queue._drained._waiters)  # type: ignore[attr-defined]
    send_queue.note_sent(1)
    must_end(waiter)


def test_a_reader_is_let_go_at_the_end(full: SendQueue) -> None:
    waiter = in_background(full.wait_for_room)
    eventually(lambda: full._drained is not None)
    full.finish()
    must_end(waiter)
    full.wait_for_room()


def test_nothing_is_collected_for_a_peer_that_is_gone(full: SendQueue) -> None:
    """Promise: memory stays bounded. Whoever asks for a long history and hangs up is not sent it into memory."""
    full.finish()
    before = full._unread_bytes()
    put(full, b"x" * 1000)

    assert full._unread_bytes() == before


# --- the stream and the courier ---


def test_a_writer_waits_while_the_courier_has_more_than_its_share_to_offer(broadcast: BroadcastBuffer) -> None:
    """Promise: back-pressure."""
    publish(broadcast, b"x" * AHEAD_MAX_BYTES)
    broadcast.wait_for_sender()
    publish(broadcast, b"x")
    writer = in_background(broadcast.wait_for_sender)
    eventually(lambda: broadcast._offering._waiters)  # type: ignore[attr-defined]
    assert writer.is_alive()
    broadcast.offered(1)
    must_end(writer)


def test_what_is_told_beside_the_stream_holds_the_writer_up_too(broadcast: BroadcastBuffer) -> None:
    """Promise: nobody is called slow because the server is."""
    splice(following(broadcast), 0, 0, b"x" * (AHEAD_MAX_BYTES + 1))
    writer = in_background(broadcast.wait_for_sender)
    eventually(lambda: broadcast._offering._waiters)  # type: ignore[attr-defined]
    broadcast.offered(0)
    must_end(writer)


def test_a_wait_for_the_round_ends_with_the_round(broadcast: BroadcastBuffer) -> None:
    broadcast.wait_for_sender(0, DEADLINE_SECONDS)
    publish(broadcast, b"ab")
    writer = in_background(lambda: broadcast.wait_for_sender(0, 2 * DEADLINE_SECONDS))
    eventually(lambda: broadcast._offering._waiters)  # type: ignore[attr-defined]
    broadcast.offered(1)
    eventually(lambda: broadcast._offering._waiters)  # type: ignore[attr-defined]
    assert writer.is_alive()
    broadcast.offered(2)
    must_end(writer)


def test_a_wait_for_the_round_has_an_end(broadcast: BroadcastBuffer) -> None:
    """Promise: the slow make nobody wait. A courier that has much to do does not keep messages from the disk."""
    publish(broadcast, b"ab")
    must_end(in_background(lambda: broadcast.wait_for_sender(0, 0.001)))


def test_nobody_waits_for_the_round_of_a_courier_that_has_ended(broadcast: BroadcastBuffer) -> None:
    publish(broadcast, b"ab")
    broadcast.abandon()
    must_end(in_background(lambda: broadcast.wait_for_sender(0, 2 * DEADLINE_SECONDS)))


def test_a_held_outbox_does_not_wait_for_what_it_is_told(broadcast: BroadcastBuffer) -> None:
    """It can't be sent before the release, which comes after the wait: a login would wait for itself."""
    send_queue = new_send_queue(broadcast)
    send_queue.follow()
    splice(send_queue, 0, 0, b"x" * (UNREAD_MAX_BYTES + 1))

    assert send_queue.wait_for_room()


def test_showing_nothing_shows_nothing_and_takes_no_memory(broadcast: BroadcastBuffer) -> None:
    broadcast.flush()

    assert (broadcast.tail, broadcast.end) == (0, 0)
    assert not broadcast._file._segments


@given(
    chunks=st.lists(st.binary(min_size=1, max_size=6), min_size=1, max_size=8),
    segment_bytes=st.integers(1, 9),
    data=st.data(),
)
def test_a_slice_is_the_bytes_between_two_positions(
    chunks: list[bytes], segment_bytes: int, data: st.DataObject
) -> None:
    with small(segment_bytes=segment_bytes, span_bytes=1, send_bytes=1, pieces=1) as broadcast:
        for chunk in chunks:
            publish(broadcast, chunk)
        whole = b"".join(chunks)
        start = data.draw(st.integers(0, len(whole) - 1))
        end = data.draw(st.integers(start + 1, len(whole)))

        assert broadcast.slice(start, end) == broadcast.slice(start, end) == whole[start:end]


def test_what_is_appended_together_is_where_one_after_the_other_would_be(broadcast: BroadcastBuffer) -> None:
    assert broadcast.append([b"one", b"", b"two"]) == (0, 6)  # type: ignore[list-item]
    assert broadcast.append([]) == (6, 6)
    assert broadcast.append([b"three"]) == (6, 11)  # type: ignore[list-item]
    broadcast.flush()

    assert broadcast.slice(0, 11) == b"onetwothree"


def test_the_share_of_the_courier_is_smaller_than_what_a_stream_keeps() -> None:
    assert broadcast_module.AHEAD_MAX_BYTES < 8 * 1024 * 1024


def test_a_send_that_takes_its_full_share_is_long_enough_to_be_followed_by_another() -> None:
    """The courier comes back to those whose send was long: so it must call long whatever was cut to the share."""
    assert SPAN_MIN_BYTES <= SEND_MAX_BYTES <= memory_file.SEGMENT_BYTES
