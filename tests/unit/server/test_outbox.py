"""Streams and outboxes: what is due, whatever part of it a socket takes at a time."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatserver.transport import memory_file
from chatserver.transport import outbox as outbox_module
from chatserver.transport import stream as stream_module
from chatserver.transport.carrier import TcpSocket
from chatserver.transport.outbox import UNREAD_MAX_BYTES, Outbox
from chatserver.transport.stream import AHEAD_MAX_BYTES, SEND_MAX_BYTES, SPAN_MIN_BYTES, Span, Stream

from .rooms import DEADLINE_SECONDS, bytes_stream, eventually, in_background, must_end, publish, put, release, splice
from .scene import LISTENERS, MUCH, Listener, Scene, Step, room_step, scripts, small, someone, take

KEPT_BYTES = 1_000_000


def new_outbox(stream: Stream) -> Outbox:
    return Outbox(TcpSocket(None), stream, "1@test", lambda _: None)  # type: ignore[arg-type]


def following(stream: Stream) -> Outbox:
    """An outbox that follows and was released."""
    outbox = new_outbox(stream)
    outbox.follow()
    outbox.release([])
    return outbox


def in_step(stream: Stream) -> Outbox:
    """An outbox that was sent all that is shown, and is due nothing else."""
    outbox = following(stream)
    assert outbox.catch_up(stream.end)
    return outbox


def due(outbox: Outbox, offered: int | None = None) -> bytes:
    """What would be sent next, where everything that is shown was offered, or so much of it."""
    what = outbox.next_span(outbox.stream.end if offered is None else offered)
    return outbox.stream.slice(*what) if isinstance(what, Span) else b"".join(what)


def splice_at_tail(outbox: Outbox, *events: bytes) -> None:
    """Tell one connection something between what was said and what will be."""
    splice(outbox, outbox.stream.tail, outbox.stream.tail, *events)


def drain(outbox: Outbox) -> bytes:
    """Take everything that is due, as a socket does that is never full."""
    taken = b""
    while part := due(outbox):
        outbox.note_sent(len(part))
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
                    if not self._scene.listeners[number].outbox.in_step:
                        self._visit(number, bytes_taken)
            case ("visit", int(who), int(most_bytes)):
                self._visit(who, most_bytes)
            case _:
                self._scene.play(step)

    def _advance(self, most_bytes: int, taken: Sequence[int]) -> None:
        """Offer more of the stream. Those in step are sent it at once."""
        start, end = self._offered, min(self._scene.stream.end, self._offered + most_bytes)
        self._offered = end
        if start == end:
            return
        for number, listener in enumerate(self._scene.listeners):
            if listener not in self._in_step:
                continue
            is_in_step = listener.outbox.in_step
            self._let_others_go_on(number)
            sent_bytes = min(taken[number], end - start) if is_in_step else 0
            listener.hear(self._scene.stream.slice(start, start + sent_bytes), end)
            if start + sent_bytes < end:
                self._let_out(listener, start + sent_bytes)

    def _visit(self, number: int, most_bytes: int) -> None:
        """Send what one of them is due, as much of it as its socket takes."""
        listener = self._scene.listeners[number]
        if listener in self._in_step:
            self._let_out(listener, self._offered)
        data = due(listener.outbox, self._offered)
        assert bool(data) == bool(listener.sendable(self._offered))
        self._let_others_go_on(number)
        listener.hear(data[:most_bytes], self._offered)
        listener.outbox.note_sent(len(data[:most_bytes]))
        if listener.outbox.catch_up(self._offered):
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
            assert listener.outbox.lag_bytes() == listener.outbox._unread_bytes() == 0
            assert listener.outbox.in_step == listener.follows

    def _let_out(self, listener: Listener, cursor: int) -> None:
        self._in_step.remove(listener)
        listener.outbox.fall_behind(cursor)


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
    with small(segment_bytes=segment_bytes, span_bytes=span_bytes, send_bytes=send_bytes, pieces=pieces) as stream:
        rounds = Rounds(Scene(stream, [new_outbox(stream) for _ in held], held))
        for each in script:
            rounds.play(each)
        rounds.finish()


@pytest.mark.parametrize("answers", [[b"welcome"], [b"welcome", b"missed"]])
def test_each_answer_to_a_login_is_sent_by_itself(stream: Stream, answers: list[bytes]) -> None:
    """Simple clients take what one read returns for one answer; what others do meanwhile comes behind it."""
    outbox = new_outbox(stream)
    outbox.follow()
    publish(stream, b"update")
    put(outbox, *answers[:-1])
    release(outbox, answers[-1])

    for answer in [*answers, b"update"]:
        assert outbox.next_span(stream.end) == [answer]
        outbox.note_sent(len(answer))


@pytest.mark.parametrize("is_released", [False, True])
def test_the_rest_of_a_large_answer_is_not_copied(stream: Stream, is_released: bool) -> None:
    """It may be megabytes, and there may be no memory for them a second time."""
    outbox = following(stream) if is_released else new_outbox(stream)
    put(outbox, b"a large answer")
    (whole,) = outbox.next_span(stream.end)
    outbox.note_sent(len(b"a large "))
    (rest,) = outbox.next_span(stream.end)
    assert isinstance(rest, memoryview)
    assert rest.obj is whole
    put(outbox, b", and another one")
    assert drain(outbox) == b"answer, and another one"


@given(before=st.integers(1, 400), after=st.integers(0, 5))
def test_many_answers_before_the_release_all_come_before_the_stream(before: int, after: int) -> None:
    """Promise: one order. Somebody may ask much before logging in."""
    with closing(bytes_stream()) as stream:
        outbox = new_outbox(stream)
        outbox.follow()
        for number in range(before):
            put(outbox, b"<%d>" % number)
        publish(stream, b"(stream)")
        outbox.release([])
        for number in range(after):
            put(outbox, b"[%d]" % number)

        expected = b"".join(b"<%d>" % number for number in range(before)) + b"(stream)"
        assert drain(outbox) == expected + b"".join(b"[%d]" % number for number in range(after))


# --- one thing at a time ---


def new_watched_outbox(stream: Stream) -> tuple[Outbox, list[Outbox]]:
    """An outbox in step, and what it wakes the courier for from then on."""
    woken: list[Outbox] = []
    outbox = Outbox(TcpSocket(None), stream, "1@test", woken.append)  # type: ignore[arg-type]
    outbox.follow()
    outbox.release([])
    assert outbox.catch_up(stream.end)
    woken.clear()
    return outbox, woken


def test_an_answer_by_itself_wakes_the_courier(stream: Stream) -> None:
    outbox, woken = new_watched_outbox(stream)
    put(outbox, b"ready")

    assert woken == [outbox]
    assert drain(outbox) == b"ready"


def test_an_answer_that_is_not_alone_goes_out_with_what_is_spliced_in_next(stream: Stream) -> None:
    """It is due at once, and comes before the other; one system call is enough for both."""
    outbox, woken = new_watched_outbox(stream)
    put(outbox, b"ready ", alone=False)
    assert woken == []
    assert not outbox.in_step, "what everybody hears must not overtake it"
    start, end = stream.append([b"what it said"])  # type: ignore[list-item]
    splice(outbox, start, end, b"sent")
    stream.flush()

    assert due(outbox) == b"ready sent"
    drain(outbox)
    put(outbox, b"ready ", alone=False)
    assert woken == []
    splice_at_tail(outbox, b"stored")
    assert woken == [outbox]
    assert drain(outbox) == b"ready stored"


def test_what_a_dialect_has_no_word_for_leaves_an_outbox_in_step(stream: Stream) -> None:
    """An update of who is online is for nobody there: thousands are not to fall out of step for it."""
    outbox, woken = new_watched_outbox(stream)
    publish(stream, b"one")
    outbox.fall_behind(0)
    drain(outbox)
    assert outbox.catch_up(stream.end)
    splice_at_tail(outbox, b"")
    splice_at_tail(outbox)

    assert outbox.in_step
    assert woken == []
    assert outbox.lag_bytes() == 0


def test_what_is_left_out_of_the_stream_is_left_out_though_nothing_comes_in_its_place(stream: Stream) -> None:
    outbox, _ = new_watched_outbox(stream)
    start, end = stream.append([b"not for you"])  # type: ignore[list-item]
    splice(outbox, start, end)
    stream.flush()
    publish(stream, b"for all")

    assert not outbox.in_step
    assert drain(outbox) == b"for all"


@pytest.fixture
def stream() -> Iterator[Stream]:
    with closing(bytes_stream(KEPT_BYTES)) as stream:
        yield stream


def test_an_outbox_that_follows_nothing_sends_answers_only(stream: Stream) -> None:
    outbox = new_outbox(stream)
    publish(stream, b"not for strangers")
    put(outbox, b"one", b"two")

    assert drain(outbox) == b"onetwo"


def test_what_is_shown_is_kept_back_until_the_release(stream: Stream) -> None:
    """Promise: once. What was missed comes before anything new."""
    outbox = new_outbox(stream)
    outbox.follow()
    publish(stream, b"new")
    put(outbox, b"missed ")
    assert drain(outbox) == b"missed "
    put(outbox, b"more ")
    outbox.release([])

    assert drain(outbox) == b"more new"


def test_what_was_appended_and_not_shown_is_not_due(stream: Stream) -> None:
    """Promise: seen means stored."""
    outbox = following(stream)
    stream.append([b"hidden"])  # type: ignore[list-item]

    assert stream.end == 0
    assert due(outbox) == b""
    stream.flush()
    assert due(outbox) == b"hidden"


def test_an_answer_stands_behind_what_was_shown_before_it(stream: Stream) -> None:
    outbox = following(stream)
    publish(stream, b"one ")
    put(outbox, b"answer ")
    publish(stream, b"two")

    assert drain(outbox) == b"one answer two"


def test_after_leaving_what_was_shown_is_still_due_and_nothing_else(stream: Stream) -> None:
    outbox = following(stream)
    publish(stream, b"one ")
    outbox.unfollow()
    publish(stream, b"two")
    splice_at_tail(outbox, b"told")
    put(outbox, b"bye")

    assert not outbox.is_drained()
    assert drain(outbox) == b"one bye"
    assert not stream.followed


def test_an_outbox_is_drained_when_it_is_finished_and_everything_was_sent(stream: Stream) -> None:
    outbox = following(stream)
    publish(stream, b"one")
    assert not outbox.is_drained()
    outbox.unfollow()
    outbox.finish()
    assert not outbox.is_drained()
    drain(outbox)
    assert outbox.is_drained()


@pytest.mark.parametrize("is_released", [False, True])
def test_behind_the_last_word_nothing_is_said(stream: Stream, is_released: bool) -> None:
    """Promise: shutdown. The reader may be about to answer when the goodbye is said."""
    outbox = following(stream) if is_released else new_outbox(stream)
    outbox.finish([b"bye"])  # type: ignore[list-item]
    put(outbox, b"answer")
    publish(stream, b"one")

    assert drain(outbox) == b"bye"
    assert outbox.is_drained()


@pytest.mark.parametrize("then", [False, True])
def test_who_was_to_be_hung_up_on_is_hung_up_on_however_it_is_finished_then(stream: Stream, then: bool) -> None:
    """Its reader finishes it as well, when it sees the end."""
    outbox = new_outbox(stream)
    outbox.finish()
    assert not outbox.hangs_up
    outbox.finish(hang_up=True)
    outbox.finish(hang_up=then)

    assert outbox.hangs_up


def test_who_is_hung_up_on_is_sent_what_is_due_before(stream: Stream) -> None:
    outbox = new_outbox(stream)
    put(outbox, b"one ")
    outbox.finish([b"bye"], hang_up=True)  # type: ignore[list-item]
    put(outbox, b"two")

    assert not outbox.is_drained()
    assert drain(outbox) == b"one bye"
    assert outbox.is_drained()


@pytest.mark.parametrize("is_released", [False, True])
def test_what_a_dialect_has_no_bytes_for_is_not_waited_for(stream: Stream, is_released: bool) -> None:
    outbox = following(stream) if is_released else new_outbox(stream)
    put(outbox, b"")
    put(outbox)
    outbox.finish()

    assert outbox.next_span(stream.end) == []
    assert outbox.is_drained()


@pytest.mark.parametrize("leaves_first", [False, True])
def test_what_is_new_does_not_follow_a_gap(stream: Stream, leaves_first: bool) -> None:
    """Promise: once. One that ends before it was given all that it missed is sent its last answers, and nothing live.

    The courier ends it first when its peer has gone; it leaves first when the disk could not be read.
    """
    outbox = new_outbox(stream)
    outbox.follow()
    publish(stream, b"one")
    splice(outbox, 3, 3, b"told")
    if leaves_first:
        outbox.unfollow()
    put(outbox, b"bye")
    outbox.finish()

    assert drain(outbox) == b"bye"
    if not leaves_first:
        outbox.unfollow()
    assert drain(outbox) == b""
    assert outbox.is_drained()


@pytest.mark.parametrize("told", [b"", b"told"])
def test_one_send_takes_no_more_of_the_stream_than_its_share(stream: Stream, told: bytes) -> None:
    """Promise: nobody waits for the slow, nor for one who is due a lot."""
    outbox = following(stream)
    splice(outbox, 0, 0, told)
    publish(stream, b"x" * (3 * SEND_MAX_BYTES))

    assert due(outbox) == told + b"x" * SEND_MAX_BYTES


def test_with_no_edits_what_is_due_is_one_piece_however_many_messages_it_is(stream: Stream) -> None:
    outbox = following(stream)
    for number in range(100):
        publish(stream, b"<%d>" % number)

    assert outbox.next_span(stream.end) == [b"".join(b"<%d>" % number for number in range(100))]


def test_many_small_insertions_at_one_place_are_one(stream: Stream) -> None:
    """Promise: memory stays bounded. What is kept beside each costs more than a short message itself."""
    outbox = following(stream)
    for tell in (splice_at_tail, put):
        for number in range(1_000):
            tell(outbox, b"%d " % (number % 10))

    assert outbox.next_span(stream.end) == [b"".join(b"%d " % (number % 10) for number in range(1_000))] * 2


def test_an_insertion_does_not_grow_for_ever(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each time it grows it is copied."""
    monkeypatch.setattr(outbox_module, "_JOIN_MAX_BYTES", 10)
    outbox = following(stream)
    for number in range(7):
        splice_at_tail(outbox, b"1234%d" % number)

    assert outbox.next_span(stream.end) == [b"1234012341", b"1234212343", b"1234412345", b"12346"]


def test_what_an_answer_and_what_others_say_at_one_place_are_counted_apart(stream: Stream) -> None:
    """Who is disconnected for being slow is so for what others say; who is read no further, for all of it."""
    outbox = following(stream)
    for tell, data in ((put, b"12"), (splice_at_tail, b"345"), (put, b"6789"), (splice_at_tail, b"0")):
        tell(outbox, data)

    assert due(outbox) == b"1234567890"
    counted = []
    while outbox._unread_bytes():
        counted.append((outbox.lag_bytes(), outbox.has_unsent_replies))
        outbox.note_sent(1)
    assert [lag for lag, _ in counted] == [4, 4, 4, 3, 2, 1, 1, 1, 1, 1]
    assert [owes for _, owes in counted] == [True] * 9 + [False]


def test_an_outbox_wakes_the_courier_for_what_only_it_is_due(stream: Stream) -> None:
    woken: list[Outbox] = []
    outbox = Outbox(TcpSocket(None), stream, "1@test", woken.append)  # type: ignore[arg-type]
    for act in (
        lambda: put(outbox, b"x"),
        lambda: outbox.release([]),
        outbox.finish,
    ):
        act()
    assert woken == [outbox] * 3
    outbox.follow()
    splice(outbox, 0, 0, b"x")
    assert len(woken) == 4


# --- long stretches, which the kernel sends from memory that all share ---


def test_what_is_long_is_due_as_a_stretch_of_the_stream(stream: Stream) -> None:
    outbox = following(stream)
    publish(stream, b"x" * SPAN_MIN_BYTES)

    assert outbox.next_span(stream.end - 1) == [b"x" * (SPAN_MIN_BYTES - 1)]
    assert outbox.next_span(stream.end) == Span(0, SPAN_MIN_BYTES)


def test_a_stretch_ends_where_something_of_its_own_is_due(stream: Stream) -> None:
    """Promise: one order."""
    outbox = following(stream)
    publish(stream, b"x" * SPAN_MIN_BYTES)
    put(outbox, b"answer")
    publish(stream, b"y" * SPAN_MIN_BYTES)

    assert outbox.next_span(stream.end) == Span(0, SPAN_MIN_BYTES)
    outbox.note_sent(SPAN_MIN_BYTES)
    assert outbox.next_span(stream.end) == [b"answer", b"y" * SPAN_MIN_BYTES]
    outbox.note_sent(6)
    assert outbox.next_span(stream.end) == Span(SPAN_MIN_BYTES, 2 * SPAN_MIN_BYTES)


def test_a_stretch_does_not_reach_over_the_end_of_its_segment() -> None:
    """The kernel sends from one piece of memory at a time."""
    with small(segment_bytes=10, span_bytes=4, send_bytes=8, pieces=9) as stream:
        outbox = following(stream)
        publish(stream, b"x" * 25)
        spans = []
        while isinstance(span := outbox.next_span(stream.end), Span):
            spans.append(span)
            outbox.note_sent(span.end - span.start)

        assert spans == [(0, 8), (8, 10), (10, 18), (18, 20), (20, 25)]


# --- in step: due just what all are offered ---


def test_who_was_sent_all_and_is_due_nothing_of_its_own_is_in_step(stream: Stream) -> None:
    outbox = following(stream)
    publish(stream, b"one")
    assert not outbox.catch_up(stream.end)
    drain(outbox)

    assert outbox.catch_up(stream.end)
    publish(stream, b"two")
    assert outbox.in_step


def test_who_is_in_step_keeps_no_queues(stream: Stream) -> None:
    """Promise: memory stays bounded. Empty ones of ten thousand connections are 15 MiB."""
    outbox = new_outbox(stream)
    put(outbox, b"answer")
    outbox.follow()
    outbox.release([])
    put(outbox, b"another")
    drain(outbox)

    assert outbox.catch_up(0)
    assert (outbox._replies.maxlen, outbox._edits.maxlen) == (0, 0)


ends_of_being_in_step: dict[str, Callable[[Outbox], None]] = {
    "it is answered": lambda outbox: put(outbox, b"x"),
    "it is told something": lambda outbox: splice_at_tail(outbox, b"x"),
    "something is not for it": lambda outbox: splice(outbox, outbox.stream.tail, outbox.stream.tail + 9),
    "it leaves": Outbox.unfollow,
    "it is finished": Outbox.finish,
}


@pytest.mark.parametrize("what", ends_of_being_in_step)
def test_who_is_given_something_of_its_own_is_in_step_no_more(stream: Stream, what: str) -> None:
    """Promise: one order. Else the courier would send it the stream past the place of that."""
    outbox = in_step(stream)
    ends_of_being_in_step[what](outbox)
    assert not outbox.in_step

    outbox.fall_behind(stream.end)
    assert not outbox.catch_up(stream.end)


def test_who_is_held_or_a_stranger_is_not_in_step(stream: Stream) -> None:
    """Promise: once. What it missed comes before anything new."""
    outbox = new_outbox(stream)
    assert not outbox.catch_up(0)
    outbox.follow()
    put(outbox, b"what it missed")
    assert not outbox.catch_up(0)
    outbox.release([])
    assert not outbox.catch_up(0)
    drain(outbox)
    assert outbox.catch_up(0)


def test_who_is_not_where_the_others_are_is_not_in_step(stream: Stream) -> None:
    publish(stream, b"12345")
    outbox = following(stream)

    assert not outbox.catch_up(3)
    assert due(outbox, 3) == b""
    publish(stream, b"67890")
    assert not outbox.catch_up(10)
    assert due(outbox, 10) == b"67890"


def test_who_falls_out_goes_on_where_its_socket_was_full(stream: Stream) -> None:
    outbox = in_step(stream)
    publish(stream, b"12345")
    outbox.fall_behind(2)

    assert not outbox.in_step
    assert outbox.lag_bytes() == 3
    assert drain(outbox) == b"345"
    assert outbox.catch_up(5)


def test_a_follower_is_given_no_more_than_what_is_offered_to_all(stream: Stream) -> None:
    outbox = following(stream)
    publish(stream, b"one ")
    put(outbox, b"answer ")
    publish(stream, b"two")

    assert [due(outbox, offered) for offered in (0, 3, 4, 6, 11)] == [
        b"",
        b"one",
        b"one answer ",
        b"one answer tw",
        b"one answer two",
    ]


def test_who_has_left_does_not_wait_for_what_is_offered_to_the_others(stream: Stream) -> None:
    """Whoever says goodbye is told goodbye, however far the courier is behind."""
    outbox = following(stream)
    publish(stream, b"one ")
    put(outbox, b"answer ")
    outbox.unfollow()
    put(outbox, b"bye")

    assert due(outbox, 0) == b"one answer bye"


# --- how far behind ---


def test_a_lag_is_what_was_shown_and_told_and_not_sent(stream: Stream) -> None:
    """Promise: nobody waits for the slow."""
    outbox = following(stream)
    put(outbox, b"an answer is the peer's own doing")
    drain(outbox)
    publish(stream, b"12345")
    splice_at_tail(outbox, b"123")
    assert outbox.lag_bytes() == 8
    outbox.note_sent(2)
    assert outbox.lag_bytes() == 6
    outbox.note_sent(3)
    assert outbox.lag_bytes() == 3
    outbox.note_sent(3)
    assert outbox.lag_bytes() == 0


def test_who_left_lags_no_further_behind(stream: Stream) -> None:
    outbox = following(stream)
    outbox.unfollow()
    publish(stream, b"12345")

    assert outbox.lag_bytes() == 0


def test_what_a_stream_has_forgotten_is_a_lookup_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: nobody waits for the slow. The stream does not grow for them either."""
    monkeypatch.setattr(memory_file, "SEGMENT_BYTES", 4)
    with closing(bytes_stream(kept_bytes=10)) as stream:
        slow = following(stream)
        for _ in range(10):
            publish(stream, b"12345")
            stream.offered(stream.end)

        with pytest.raises(LookupError):
            slow.next_span(stream.end)
        with pytest.raises(LookupError):
            stream.send(-1, Span(0, 4))
        assert len(stream._file._segments) * 4 <= 10 + 2 * 4


def test_what_is_within_the_kept_bytes_is_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_file, "SEGMENT_BYTES", 4)
    with closing(bytes_stream(kept_bytes=10)) as stream:
        publish(stream, b"x" * 101)
        stream.offered(101)
        outbox = following(stream)
        publish(stream, b"12345")
        publish(stream, b"67890")
        stream.offered(111)

        assert drain(outbox) == b"1234567890"


def test_what_was_not_offered_yet_is_not_forgotten_however_much_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: nobody is called slow because the server is."""
    monkeypatch.setattr(memory_file, "SEGMENT_BYTES", 4)
    with closing(bytes_stream(kept_bytes=10)) as stream:
        outbox = following(stream)
        publish(stream, b"x" * 100)
        stream.offered(9)

        assert drain(outbox) == b"x" * 100


# --- waiting ---


@pytest.fixture
def full(stream: Stream) -> Iterator[Outbox]:
    """An outbox whose peer has left too much unread."""
    outbox = following(stream)
    put(outbox, b"x" * (UNREAD_MAX_BYTES + 10))
    yield outbox
    outbox.finish()


def test_there_is_room_while_little_is_unread(stream: Stream) -> None:
    outbox = following(stream)
    put(outbox, b"x" * UNREAD_MAX_BYTES)
    publish(stream, b"x" * KEPT_BYTES)

    outbox.wait_for_room()


def test_a_reader_waits_until_its_peer_has_read(full: Outbox) -> None:
    """Promise: back-pressure. A peer that does not read its answers is not read either."""
    waiter = in_background(full.wait_for_room)
    eventually(lambda: full._drained is not None and full._drained._waiters)  # type: ignore[attr-defined]
    full.note_sent(9)
    assert waiter.is_alive()
    full.note_sent(1)
    must_end(waiter)


def test_a_reader_waits_for_what_others_told_its_peer_too(stream: Stream) -> None:
    outbox = following(stream)
    splice_at_tail(outbox, b"x" * (UNREAD_MAX_BYTES + 1))
    waiter = in_background(outbox.wait_for_room)
    eventually(lambda: outbox._drained is not None and outbox._drained._waiters)  # type: ignore[attr-defined]
    outbox.note_sent(1)
    must_end(waiter)


def test_a_reader_is_let_go_at_the_end(full: Outbox) -> None:
    waiter = in_background(full.wait_for_room)
    eventually(lambda: full._drained is not None)
    full.finish()
    must_end(waiter)
    full.wait_for_room()


def test_nothing_is_collected_for_a_peer_that_is_gone(full: Outbox) -> None:
    """Promise: memory stays bounded. Whoever asks for a long history and hangs up is not sent it into memory."""
    full.finish()
    before = full._unread_bytes()
    put(full, b"x" * 1000)

    assert full._unread_bytes() == before


# --- the stream and the courier ---


def test_a_writer_waits_while_the_courier_has_more_than_its_share_to_offer(stream: Stream) -> None:
    """Promise: back-pressure."""
    publish(stream, b"x" * AHEAD_MAX_BYTES)
    stream.wait_for_sender()
    publish(stream, b"x")
    writer = in_background(stream.wait_for_sender)
    eventually(lambda: stream._offering._waiters)  # type: ignore[attr-defined]
    assert writer.is_alive()
    stream.offered(1)
    must_end(writer)


def test_what_is_told_beside_the_stream_holds_the_writer_up_too(stream: Stream) -> None:
    """Promise: nobody is called slow because the server is."""
    splice(following(stream), 0, 0, b"x" * (AHEAD_MAX_BYTES + 1))
    writer = in_background(stream.wait_for_sender)
    eventually(lambda: stream._offering._waiters)  # type: ignore[attr-defined]
    stream.offered(0)
    must_end(writer)


def test_a_wait_for_the_round_ends_with_the_round(stream: Stream) -> None:
    stream.wait_for_sender(0, DEADLINE_SECONDS)
    publish(stream, b"ab")
    writer = in_background(lambda: stream.wait_for_sender(0, 2 * DEADLINE_SECONDS))
    eventually(lambda: stream._offering._waiters)  # type: ignore[attr-defined]
    stream.offered(1)
    eventually(lambda: stream._offering._waiters)  # type: ignore[attr-defined]
    assert writer.is_alive()
    stream.offered(2)
    must_end(writer)


def test_a_wait_for_the_round_has_an_end(stream: Stream) -> None:
    """Promise: the slow make nobody wait. A courier that has much to do does not keep messages from the disk."""
    publish(stream, b"ab")
    must_end(in_background(lambda: stream.wait_for_sender(0, 0.001)))


def test_nobody_waits_for_the_round_of_a_courier_that_has_ended(stream: Stream) -> None:
    publish(stream, b"ab")
    stream.abandon()
    must_end(in_background(lambda: stream.wait_for_sender(0, 2 * DEADLINE_SECONDS)))


def test_a_held_outbox_does_not_wait_for_what_it_is_told(stream: Stream) -> None:
    """It can't be sent before the release, which comes after the wait: a login would wait for itself."""
    outbox = new_outbox(stream)
    outbox.follow()
    splice(outbox, 0, 0, b"x" * (UNREAD_MAX_BYTES + 1))

    assert outbox.wait_for_room()


def test_showing_nothing_shows_nothing_and_takes_no_memory(stream: Stream) -> None:
    stream.flush()

    assert (stream.tail, stream.end) == (0, 0)
    assert not stream._file._segments


@given(
    chunks=st.lists(st.binary(min_size=1, max_size=6), min_size=1, max_size=8),
    segment_bytes=st.integers(1, 9),
    data=st.data(),
)
def test_a_slice_is_the_bytes_between_two_positions(
    chunks: list[bytes], segment_bytes: int, data: st.DataObject
) -> None:
    with small(segment_bytes=segment_bytes, span_bytes=1, send_bytes=1, pieces=1) as stream:
        for chunk in chunks:
            publish(stream, chunk)
        whole = b"".join(chunks)
        start = data.draw(st.integers(0, len(whole) - 1))
        end = data.draw(st.integers(start + 1, len(whole)))

        assert stream.slice(start, end) == stream.slice(start, end) == whole[start:end]


def test_what_is_appended_together_is_where_one_after_the_other_would_be(stream: Stream) -> None:
    assert stream.append([b"one", b"", b"two"]) == (0, 6)  # type: ignore[list-item]
    assert stream.append([]) == (6, 6)
    assert stream.append([b"three"]) == (6, 11)  # type: ignore[list-item]
    stream.flush()

    assert stream.slice(0, 11) == b"onetwothree"


def test_the_share_of_the_courier_is_smaller_than_what_a_stream_keeps() -> None:
    assert stream_module.AHEAD_MAX_BYTES < 8 * 1024 * 1024


def test_a_send_that_takes_its_full_share_is_long_enough_to_be_followed_by_another() -> None:
    """The courier comes back to those whose send was long: so it must call long whatever was cut to the share."""
    assert SPAN_MIN_BYTES <= SEND_MAX_BYTES <= memory_file.SEGMENT_BYTES
