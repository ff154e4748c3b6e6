"""Streams and outboxes: what is due, whatever part of it a socket takes at a time."""

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatserver.transport import outbox as outbox_module
from chatserver.transport import stream as stream_module
from chatserver.transport.outbox import UNREAD_MAX_BYTES, Outbox
from chatserver.transport.stream import AHEAD_MAX_BYTES, Stream

from .rooms import eventually, in_background, must_end

KEPT_BYTES = 1_000_000


def new_stream(kept_bytes: int = KEPT_BYTES) -> Stream:
    """A stream whose events are bytes already."""
    return Stream(lambda event: event, kept_bytes)  # type: ignore[arg-type, return-value]


def new_outbox(stream: Stream) -> Outbox:
    return Outbox(None, stream, "1@test", lambda _: None)  # type: ignore[arg-type]


def following(stream: Stream) -> Outbox:
    """An outbox that follows and was released."""
    outbox = new_outbox(stream)
    outbox.follow()
    outbox.release()
    return outbox


def publish(stream: Stream, *events: bytes) -> None:
    for event in events:
        stream.append(event)  # type: ignore[arg-type]
    stream.show()


def put(outbox: Outbox, *events: bytes) -> None:
    outbox.put(events)  # type: ignore[arg-type]


def splice(outbox: Outbox, start: int, end: int, *events: bytes) -> None:
    outbox.splice(start, end, events)  # type: ignore[arg-type]


def due(outbox: Outbox) -> bytes:
    return b"".join(outbox.due())


def drain(outbox: Outbox) -> bytes:
    """Take everything that is due, as a socket does that is never full."""
    taken = b""
    while part := due(outbox):
        outbox.account(len(part))
        taken += part
    return taken


# --- against a simple model, under hypothesis ---


class Listener:
    """An outbox, and beside it a list of what it should send: the reference."""

    def __init__(self, stream: Stream) -> None:
        self.outbox = new_outbox(stream)
        self.outbox.follow()
        self.is_held = True
        self.sent = b""
        self._due: list[bytes] = []
        self._kept_back: list[bytes] = []

    def expect(self, data: bytes) -> None:
        """It hears this from the room."""
        (self._kept_back if self.is_held else self._due).append(data)

    def put(self, data: bytes) -> None:
        """It is answered this."""
        put(self.outbox, data)
        self._due.append(data)

    def release(self) -> None:
        self.outbox.release()
        self.is_held = False
        self._due += self._kept_back
        self._kept_back.clear()

    def send(self, most_bytes: int) -> None:
        """The socket takes a part of what is due."""
        offered = due(self.outbox)
        expected = b"".join(self._due)[len(self.sent) :]
        assert expected.startswith(offered)
        assert bool(offered) == bool(expected)
        taken = offered[:most_bytes]
        self.outbox.account(len(taken))
        self.sent += taken

    def drain(self) -> None:
        while due(self.outbox):
            self.send(1_000_000)
        assert self.sent == b"".join(self._due)
        assert self.outbox.lag_bytes() == 0
        assert self.outbox._unread_bytes() == 0


sizes = st.integers(0, 9)
listeners = st.integers(0, 1)
# Who says something publicly (2: somebody else), or to whom something is said directly, and how long it is.
messages = st.lists(st.tuples(st.sampled_from(["public", "skipped", "direct"]), st.integers(0, 2), sizes), max_size=5)
steps = st.one_of(
    st.tuples(st.just("publish"), messages),
    st.tuples(st.just("put"), listeners, st.integers(1, 9)),
    st.tuples(st.just("send"), listeners, st.integers(0, 25)),
    st.tuples(st.just("release"), listeners),
)


class Scene:
    """One stream and two listeners."""

    def __init__(self) -> None:
        self.stream = new_stream()
        publish(self.stream, b"(before they came)")
        self.listeners = [Listener(self.stream), Listener(self.stream)]
        self._letters = 0

    def new_text(self, size: int) -> bytes:
        """Text in which a byte that is lost, doubled or misplaced is seen."""
        self._letters += size
        return bytes(33 + (self._letters - size + at) * 7 % 91 for at in range(size))

    def publish(self, batch: list[tuple[str, int, int]]) -> None:
        for kind, who, size in batch:
            text = self.new_text(size)
            if kind == "direct":
                self._tell(who, text)
            else:
                self._say(who, text, confirmation=self.new_text(3) if kind == "public" else b"")
        self.stream.show()

    def _tell(self, who: int, text: bytes) -> None:
        for listener in self.listeners[who : who + 1]:
            splice(listener.outbox, self.stream.tail, self.stream.tail, text)
            listener.expect(text)

    def _say(self, who: int, text: bytes, confirmation: bytes) -> None:
        start, end = self.stream.append(text)  # type: ignore[arg-type]
        for number, listener in enumerate(self.listeners):
            if number == who:
                splice(listener.outbox, start, end, *([confirmation] if confirmation else []))
            listener.expect(confirmation if number == who else text)

    def play(self, step: tuple[object, ...]) -> None:
        match step:
            case ("publish", list(batch)):
                self.publish(batch)
            case ("put", int(who), int(size)):
                self.listeners[who].put(self.new_text(size))
            case ("send", int(who), int(most_bytes)):
                self.listeners[who].send(most_bytes)
            case ("release", int(who)):
                self.listeners[who].release()


@settings(max_examples=400)
@given(script=st.lists(steps, max_size=30), pieces=st.integers(1, 5), most_bytes=st.integers(1, 40))
def test_what_is_sent_is_the_stream_with_its_skips_and_insertions(
    script: list[tuple[object, ...]], pieces: int, most_bytes: int
) -> None:
    """Promise: one order. However little a socket takes at a time, nothing is lost, doubled or out of place."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outbox_module, "SEND_MAX_PIECES", pieces)
        patch.setattr(outbox_module, "SEND_MAX_BYTES", most_bytes)
        scene = Scene()
        for step in script:
            scene.play(step)
        for listener in scene.listeners:
            listener.release()
            listener.drain()


@given(before=st.integers(1, 400), after=st.integers(0, 5))
def test_many_answers_before_the_release_all_come_before_the_stream(before: int, after: int) -> None:
    """Promise: one order. Somebody may ask much before logging in."""
    stream = new_stream()
    outbox = new_outbox(stream)
    outbox.follow()
    for number in range(before):
        put(outbox, b"<%d>" % number)
    publish(stream, b"(stream)")
    outbox.release()
    for number in range(after):
        put(outbox, b"[%d]" % number)

    expected = b"".join(b"<%d>" % number for number in range(before)) + b"(stream)"
    assert drain(outbox) == expected + b"".join(b"[%d]" % number for number in range(after))


# --- one thing at a time ---


@pytest.fixture
def stream() -> Stream:
    return new_stream()


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
    outbox.release()

    assert drain(outbox) == b"more new"


def test_what_was_appended_and_not_shown_is_not_due(stream: Stream) -> None:
    """Promise: seen means stored."""
    outbox = following(stream)
    stream.append(b"hidden")  # type: ignore[arg-type]

    assert due(outbox) == b""
    assert not stream.has_news(stream.end)
    stream.show()
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
    splice(outbox, stream.tail, stream.tail, b"told")
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
def test_what_a_dialect_has_no_bytes_for_is_not_waited_for(stream: Stream, is_released: bool) -> None:
    outbox = following(stream) if is_released else new_outbox(stream)
    put(outbox, b"")
    put(outbox)
    outbox.finish()

    assert outbox.due() == []
    assert outbox.is_drained()


def test_what_is_new_does_not_follow_a_gap(stream: Stream) -> None:
    """One that ends before it was given all that it missed is sent its last answers, and nothing live."""
    outbox = new_outbox(stream)
    outbox.follow()
    publish(stream, b"one")
    outbox.splice(3, 3, [b"told"])  # type: ignore[list-item]
    put(outbox, b"bye")
    outbox.finish()

    assert drain(outbox) == b"bye"
    outbox.unfollow()
    assert drain(outbox) == b""
    assert outbox.is_drained()


def test_one_send_takes_no_more_of_the_stream_than_its_share(stream: Stream) -> None:
    outbox = following(stream)
    publish(stream, b"x" * (3 * outbox_module.SEND_MAX_BYTES))

    assert len(due(outbox)) == outbox_module.SEND_MAX_BYTES


def test_with_no_edits_what_is_due_is_one_piece_however_many_messages_it_is(stream: Stream) -> None:
    outbox = following(stream)
    for number in range(100):
        publish(stream, b"<%d>" % number)

    assert len(outbox.due()) == 1


def test_neighbours_are_given_the_same_piece(stream: Stream) -> None:
    one, other = following(stream), following(stream)
    publish(stream, b"one")
    publish(stream, b"two")

    assert one.due()[0] is other.due()[0]


def test_an_outbox_wakes_the_courier_for_what_only_it_is_due(stream: Stream) -> None:
    woken: list[Outbox] = []
    outbox = Outbox(None, stream, "1@test", woken.append)  # type: ignore[arg-type]
    for act in (
        lambda: put(outbox, b"x"),
        outbox.release,
        outbox.finish,
    ):
        act()
    assert woken == [outbox] * 3
    outbox.follow()
    splice(outbox, 0, 0, b"x")
    assert len(woken) == 4


# --- how far behind ---


def test_a_lag_is_what_was_shown_and_told_and_not_sent(stream: Stream) -> None:
    """Promise: nobody waits for the slow."""
    outbox = following(stream)
    put(outbox, b"an answer is the peer's own doing")
    drain(outbox)
    publish(stream, b"12345")
    splice(outbox, stream.tail, stream.tail, b"123")
    assert outbox.lag_bytes() == 8
    outbox.account(2)
    assert outbox.lag_bytes() == 6
    outbox.account(3)
    assert outbox.lag_bytes() == 3
    outbox.account(3)
    assert outbox.lag_bytes() == 0


def test_who_left_lags_no_further_behind(stream: Stream) -> None:
    outbox = following(stream)
    outbox.unfollow()
    publish(stream, b"12345")

    assert outbox.lag_bytes() == 0


def test_what_a_stream_has_forgotten_is_a_lookup_error() -> None:
    """Promise: nobody waits for the slow. The stream does not grow for them either."""
    stream = new_stream(kept_bytes=10)
    slow, quick = following(stream), following(stream)
    for number in range(10):
        publish(stream, b"1234%d" % number)
        assert drain(quick) == b"1234%d" % number

    with pytest.raises(LookupError):
        slow.due()
    assert sum(map(len, stream._chunks)) <= 15


def test_what_is_within_the_kept_bytes_is_not_forgotten() -> None:
    stream = new_stream(kept_bytes=10)
    publish(stream, b"x" * 100)
    outbox = following(stream)
    publish(stream, b"12345")
    publish(stream, b"67890")

    assert drain(outbox) == b"1234567890"


# --- waiting ---


@pytest.fixture
def full(stream: Stream) -> Iterator[Outbox]:
    """An outbox whose peer has left too much unread."""
    outbox = following(stream)
    put(outbox, b"x" * (UNREAD_MAX_BYTES + 10))
    yield outbox
    outbox.stop_waiting()


def test_there_is_room_while_little_is_unread(stream: Stream) -> None:
    outbox = following(stream)
    put(outbox, b"x" * UNREAD_MAX_BYTES)
    publish(stream, b"x" * KEPT_BYTES)

    outbox.wait_for_room()


def test_a_reader_waits_until_its_peer_has_read(full: Outbox) -> None:
    """Promise: back-pressure. A peer that does not read its answers is not read either."""
    waiter = in_background(full.wait_for_room)
    eventually(lambda: full._drained is not None and full._drained._waiters)  # type: ignore[attr-defined]
    full.account(9)
    assert waiter.is_alive()
    full.account(1)
    must_end(waiter)


def test_a_reader_waits_for_what_others_told_its_peer_too(stream: Stream) -> None:
    outbox = following(stream)
    splice(outbox, stream.tail, stream.tail, b"x" * (UNREAD_MAX_BYTES + 1))
    waiter = in_background(outbox.wait_for_room)
    eventually(lambda: outbox._drained is not None and outbox._drained._waiters)  # type: ignore[attr-defined]
    outbox.account(1)
    must_end(waiter)


@pytest.mark.parametrize("end", ["finish", "stop_waiting"])
def test_a_reader_is_let_go_at_the_end(full: Outbox, end: str) -> None:
    waiter = in_background(full.wait_for_room)
    eventually(lambda: full._drained is not None)
    getattr(full, end)()
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
    stream.wait_for_courier()
    publish(stream, b"x")
    writer = in_background(stream.wait_for_courier)
    eventually(lambda: stream._offering._waiters)  # type: ignore[attr-defined]
    assert writer.is_alive()
    stream.offered(1)
    must_end(writer)


def test_what_was_offered_is_not_offered_again(stream: Stream) -> None:
    publish(stream, b"one")
    assert stream.has_news(stream.end)
    publish(stream, b"two")
    stream.offered(3)

    assert stream.has_news(stream.end)
    stream.offered(6)
    assert not stream.has_news(stream.end)


def test_what_is_told_beside_the_stream_holds_the_writer_up_too(stream: Stream) -> None:
    """Promise: nobody is called slow because the server is."""
    following(stream).splice(0, 0, [b"x" * (AHEAD_MAX_BYTES + 1)])  # type: ignore[list-item]
    writer = in_background(stream.wait_for_courier)
    eventually(lambda: stream._offering._waiters)  # type: ignore[attr-defined]
    stream.offered(0)
    must_end(writer)


def test_a_held_outbox_does_not_wait_for_what_it_is_told(stream: Stream) -> None:
    """It can't be sent before the release, which comes after the wait: a login would wait for itself."""
    outbox = new_outbox(stream)
    outbox.follow()
    outbox.splice(0, 0, [b"x" * (UNREAD_MAX_BYTES + 1)])  # type: ignore[list-item]

    assert outbox.wait_for_room()


def test_showing_nothing_shows_nothing(stream: Stream) -> None:
    stream.show()

    assert (stream.tail, stream.end, stream.has_news(stream.end)) == (0, 0, False)


@given(chunks=st.lists(st.binary(min_size=1, max_size=6), min_size=1, max_size=8), data=st.data())
def test_a_slice_is_the_bytes_between_two_positions(chunks: list[bytes], data: st.DataObject) -> None:
    stream = new_stream()
    for chunk in chunks:
        publish(stream, chunk)
    whole = b"".join(chunks)
    start = data.draw(st.integers(0, len(whole) - 1))
    end = data.draw(st.integers(start + 1, len(whole)))

    assert bytes(stream.slice(start, end)) == bytes(stream.slice(start, end)) == whole[start:end]


def test_the_share_of_the_courier_is_smaller_than_what_a_stream_keeps() -> None:
    assert stream_module.AHEAD_MAX_BYTES < 8 * 1024 * 1024
