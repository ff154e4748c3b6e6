"""A model of send queues: the messages that each member of some rooms is to get, and which of them have an order."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random

from hypothesis import note
from hypothesis import strategies as st

from chatserver.net.broadcast import BroadcastBuffer, SendLimits
from chatserver.net.sendqueue import SendQueue

from .helpers import insert, publish, put, release, replace

LISTENERS = 3
# The buffers, one for each room. All listeners begin in the first one.
ROOMS = 3
# More bytes than any run of the model appends.
MUCH = 100_000

Step = tuple[object, ...]

# So small that a few messages meet every limit.
small_limits = st.builds(
    lambda segment, span, more: SendLimits(segment, span + more, span),
    st.integers(5, 12) | st.integers(5, 64),
    st.integers(1, 20),
    st.integers(0, 20),
)
few_pieces = st.integers(1, 5)


def random_take(dice: Random) -> int:
    """The number of bytes that a socket takes of one send."""
    return dice.randrange(26) if dice.random() < 0.4 else MUCH


def random_listener(dice: Random) -> int:
    return dice.randrange(LISTENERS)


def random_room(dice: Random) -> int:
    return dice.randrange(ROOMS)


def random_step(dice: Random) -> Step:
    """Something that another thread does."""
    whats = ["publish", "put", "answer", "release", "follow", "unfollow", "finish"]
    (what,) = dice.choices(whats, [24, 10, 6, 6, 8, 6, 1])
    match what:
        case "publish":
            return what, [_random_batch(dice) for _ in range(dice.randint(1, 4))]
        case "put":
            return what, random_listener(dice), dice.randint(1, 9)
        case "answer":
            return what, random_listener(dice), [dice.randint(1, 9) for _ in range(3)], [_random_batch(dice)]
        case "release" | "finish":
            return what, random_listener(dice)
        case _:
            return what, random_listener(dice), random_room(dice)


def _random_batch(dice: Random) -> tuple[str, int, int, list[int]]:
    """Kind, room, sender or recipient, and sizes of the texts. The sender of a skipped batch gets no confirmation."""
    sizes = [dice.randrange(10) for _ in range(dice.randint(1, 3))]
    return dice.choice(["public", "skipped", "direct"]), random_room(dice), dice.randint(0, LISTENERS), sizes


@st.composite
def scripts(draw: st.DrawFn, step: Callable[[Random], Step]) -> list[Step]:
    """A random list of up to 80 steps. Hypothesis finds the shortest beginning that fails."""
    length = draw(st.integers(1, 80))
    dice = draw(st.randoms(use_true_random=True))
    script = [step(dice) for _ in range(length)]
    note("\n".join(map(str, script)))
    return script


@dataclass(eq=False)
class Message:
    """Bytes that must not be cut. Two messages have an order if they have a room in common, or are both private."""

    data: bytes
    rooms: frozenset[int]
    # True for replies, insertions and confirmations.
    is_private: bool
    # The end in the buffer of a public message: it is not to be seen before the flush, but soon after.
    end: int = 0

    def precedes(self, other: "Message") -> bool:
        return (self.is_private and other.is_private) or not self.rooms.isdisjoint(other.rooms)


class Listener:
    """A send queue, and the messages that it has still to send, in the order in which they were queued."""

    def __init__(self, send_queue: SendQueue, buffers: Sequence[BroadcastBuffer], *, is_held: bool) -> None:
        self.send_queue = send_queue
        self.rooms: set[int] = set()
        self._buffers = buffers
        self._is_held = True
        self._is_finished = False
        self._messages: list[Message] = []
        self._waiting: list[Message] = []
        # The message that was received in part.
        self._begun: Message | None = None
        self.follow(0)
        if not is_held:
            self.release()

    def follow(self, room: int) -> None:
        self.send_queue.follow(self._buffers[room])
        if not self._is_finished:
            self.rooms.add(room)

    def unfollow(self, room: int) -> None:
        self.send_queue.unfollow(self._buffers[room])
        self.rooms.discard(room)
        if not self.rooms:
            self._waiting.clear()

    def expect_public(self, room: int, data: bytes, end: int) -> None:
        if room in self.rooms and data:
            self._expect(Message(data, frozenset([room]), is_private=False, end=end))

    def expect_private(self, data: bytes, rooms: Sequence[int] = range(ROOMS)) -> None:
        """An insertion has an order with all rooms, a confirmation with one."""
        if self.rooms.intersection(rooms) and data:
            self._expect(Message(data, frozenset(rooms), is_private=True))

    def _expect(self, message: Message) -> None:
        (self._waiting if self._is_held else self._messages).append(message)

    def put(self, data: bytes) -> None:
        """A reply: sent at once while held, otherwise in its place."""
        self._expect_reply(data)
        put(self.send_queue, data)

    def _expect_reply(self, data: bytes) -> None:
        if not self._is_finished:
            self._messages.append(Message(data, frozenset(range(ROOMS)), is_private=True))

    def answer(self, pieces: Iterator[bytes]) -> None:
        """A long answer: what others say meanwhile waits for its end."""

        def expected() -> Iterator[bytes]:
            for piece in pieces:
                self._expect_reply(piece)
                yield piece

        was_held, self._is_held = self._is_held, True
        self.send_queue.put_long(expected(), ())  # type: ignore[arg-type]
        self._is_held = was_held
        if not was_held:
            self._messages += self._waiting
            self._waiting.clear()

    def finish(self) -> None:
        """Drop the messages that wait for the release; all others are still sent."""
        self.send_queue.finish()
        self._is_finished = True
        self._waiting.clear()
        self.rooms.clear()

    def release(self) -> None:
        self._expect_reply(b"olast")
        release(self.send_queue, b"olast")
        self._is_held = False
        self._messages += self._waiting
        self._waiting.clear()

    def _sendable(self) -> list[Message]:
        """The messages of which none must follow another one, or the one that was begun."""
        if self._begun is not None:
            return [self._begun]
        found: list[Message] = []
        for number, message in enumerate(self._messages):
            if not any(earlier.precedes(message) for earlier in self._messages[:number]):
                found.append(message)
        return found

    def is_due(self) -> bool:
        """True if a message must be sent now: it was offered to those that are caught up."""
        return any(
            message.is_private or all(message.end <= self._buffers[room].position for room in message.rooms)
            for message in self._sendable()
        )

    def receive(self, data: bytes) -> None:
        """Its peer was sent this. The first byte of a message tells its room."""
        while data:
            message = next(each for each in self._sendable() if data.startswith(each.data[: len(data)]))
            assert message.is_private or all(message.end <= self._buffers[room].end for room in message.rooms)
            taken = min(len(data), len(message.data))
            message.data, data = message.data[taken:], data[taken:]
            self._begun = message if message.data else None
            if not message.data:
                self._messages.remove(message)

    @property
    def has_received_all(self) -> bool:
        return not self._messages


class SendModel:
    """Some buffers and their listeners, some still held. ``wake`` is called after each flush."""

    def __init__(
        self,
        buffers: Sequence[BroadcastBuffer],
        send_queues: Sequence[SendQueue],
        held: Sequence[bool],
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        self.buffers = buffers
        self._wake = wake
        for buffer in buffers:
            publish(buffer, b"(before they follow)")
        self.listeners = [
            Listener(queue, buffers, is_held=is_held) for queue, is_held in zip(send_queues, held, strict=True)
        ]
        self._text_bytes = 0

    def _new_text(self, kind: str, size: int) -> bytes:
        """Text in which a lost, doubled or misplaced byte is seen; empty if ``size`` is 0."""
        self._text_bytes += size
        return bytes([*kind.encode(), *(48 + (self._text_bytes - at) * 7 % 43 for at in range(size))] if size else [])

    def play(self, step: Step) -> None:
        match step:
            case ("publish", list(batches)):
                for kind, room, who, sizes in batches:
                    if kind == "direct":
                        self._publish_direct(who, [self._new_text("o", size) for size in sizes])
                    else:
                        texts = [self._new_text("abc"[room], size) for size in sizes]
                        self._publish(room, who, texts, [self._new_text("o", 3)] if kind == "public" else [])
                for buffer in self.buffers:
                    buffer.flush()
                self._wake()
            case ("put", int(who), int(size)):
                self.listeners[who].put(self._new_text("o", size))
            case ("answer", int(who), list(sizes), list(batches)):
                self._answer(self.listeners[who], sizes, ("publish", batches))
            case ("release" | "finish" | "follow" | "unfollow" as method, int(who), *room):
                getattr(self.listeners[who], method)(*room)

    def _answer(self, listener: Listener, sizes: list[int], meanwhile: Step) -> None:
        def pieces() -> Iterator[bytes]:
            for number, size in enumerate(sizes):
                yield self._new_text("o", size)
                if not number:
                    self.play(meanwhile)

        listener.answer(pieces())

    def _publish_direct(self, recipient: int, texts: list[bytes]) -> None:
        for listener in self.listeners[recipient : recipient + 1]:
            insert(listener.send_queue, *texts)
            listener.expect_private(b"".join(texts))

    def _publish(self, room: int, sender: int, texts: list[bytes], confirmations: list[bytes]) -> None:
        buffer = self.buffers[room]
        start, end = buffer.append(texts)  # type: ignore[arg-type]
        for number, listener in enumerate(self.listeners):
            if number == sender:
                replace(listener.send_queue, buffer, start, end, *confirmations)
                listener.expect_private(b"".join(confirmations), [room])
                continue
            at = start
            for text in texts:
                at += len(text)
                listener.expect_public(room, text, at)
