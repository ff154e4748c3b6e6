"""A model of send queues: for each follower of one broadcast buffer, the bytes that are still to be sent, in order."""

from collections import deque
from collections.abc import Callable, Sequence
from itertools import takewhile
from random import Random

from hypothesis import note
from hypothesis import strategies as st

from chatserver.net.broadcast import BroadcastBuffer, SendLimits
from chatserver.net.sendqueue import SendQueue

from .helpers import insert, publish, put, release

LISTENERS = 2
# The reply that each gets with the release.
LAST_REPLY = b"last"
# More bytes than any run of the model appends.
MUCH = 100_000

Step = tuple[object, ...]

# So small that a few messages meet every limit.
small_limits = st.builds(
    lambda segment, span, more, pieces: SendLimits(segment, span + more, span, pieces),
    st.integers(5, 64),
    st.integers(1, 20),
    st.integers(0, 20),
    st.integers(1, 5),
)


def random_take(dice: Random) -> int:
    """The number of bytes that a socket takes of one send."""
    return dice.randrange(26) if dice.random() < 0.4 else MUCH


def random_listener(dice: Random) -> int:
    return dice.randrange(LISTENERS)


def random_step(dice: Random) -> Step:
    """Something that another thread does."""
    (what,) = dice.choices(["publish", "put", "release", "leave"], [12, 6, 3, 1])
    match what:
        case "publish":
            return what, [_random_batch(dice) for _ in range(dice.randint(1, 4))]
        case "put":
            return what, random_listener(dice), dice.randint(1, 9)
        case _:
            return what, random_listener(dice)


def _random_batch(dice: Random) -> tuple[str, int, list[int]]:
    """Kind, sender or recipient, and sizes of the texts. The sender of a skipped batch gets no confirmation."""
    sizes = [dice.randrange(10) for _ in range(dice.randint(1, 3))]
    return dice.choice(["public", "skipped", "direct"]), dice.randint(0, LISTENERS), sizes


@st.composite
def scripts(draw: st.DrawFn, step: Callable[[Random], Step]) -> list[Step]:
    """A random list of up to 80 steps. Hypothesis finds the shortest beginning that fails."""
    length = draw(st.integers(1, 80))
    dice = draw(st.randoms(use_true_random=True))
    script = [step(dice) for _ in range(length)]
    note("\n".join(map(str, script)))
    return script


class Listener:
    """A send queue and its model: pieces, each with the position that the buffer must be offered up to before it."""

    def __init__(self, send_queue: SendQueue, *, is_held: bool) -> None:
        self.send_queue = send_queue
        send_queue.follow()
        self.follows = True
        self._is_held = True
        self._pieces: deque[tuple[int, bytes]] = deque()
        self._held_back: list[tuple[int, bytes]] = []
        if not is_held:
            self.release()

    def expect(self, *pieces: tuple[int, bytes]) -> None:
        """Add broadcast data or insertions, if it follows."""
        if self.follows:
            (self._held_back if self._is_held else self._pieces).extend(pieces)

    def put(self, data: bytes) -> None:
        """A reply: sent at once while held, otherwise after the flushed data."""
        self._pieces.append((0 if self._is_held else self.send_queue.broadcast.end, data))
        put(self.send_queue, data)

    def release(self) -> None:
        self._pieces.append((0 if self._is_held else self.send_queue.broadcast.end, LAST_REPLY))
        release(self.send_queue, LAST_REPLY)
        self._is_held = False
        self._pieces += self._held_back
        self._held_back.clear()

    def leave(self) -> None:
        if self.follows and not self._is_held:
            self.send_queue.unfollow()
            self.follows = False

    def sendable(self, offered: int) -> bytes:
        """The bytes that may be sent now. A queue that does not follow need not wait for the others."""
        pieces = takewhile(lambda piece: not self.follows or piece[0] <= offered, self._pieces)
        return b"".join(data for _, data in pieces)

    def receive(self, data: bytes, offered: int) -> None:
        """Its peer was sent this."""
        assert self.sendable(offered).startswith(data)
        while data:
            offered_from, piece = self._pieces.popleft()
            if len(data) < len(piece):
                self._pieces.appendleft((offered_from, piece[len(data) :]))
            data = data[len(piece) :]

    def rest(self) -> bytes:
        """The bytes that were not sent yet."""
        return b"".join(data for _, data in self._pieces)


class SendModel:
    """One broadcast buffer and its listeners, some still held. ``wake`` is called after each flush."""

    def __init__(
        self,
        broadcast: BroadcastBuffer,
        send_queues: Sequence[SendQueue],
        held: Sequence[bool],
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        self.broadcast = broadcast
        self._wake = wake
        publish(broadcast, b"(before they follow)")
        self.listeners = [Listener(queue, is_held=is_held) for queue, is_held in zip(send_queues, held, strict=True)]
        self._text_bytes = 0

    def _new_text(self, size: int) -> bytes:
        """Text in which a lost, doubled or misplaced byte is seen."""
        self._text_bytes += size
        return bytes(33 + (self._text_bytes - size + at) * 7 % 91 for at in range(size))

    def play(self, step: Step) -> None:
        match step:
            case ("publish", list(batches)):
                for kind, who, sizes in batches:
                    texts = [self._new_text(size) for size in sizes]
                    if kind == "direct":
                        self._publish_direct(who, texts)
                    else:
                        self._publish(who, texts, [self._new_text(3) for _ in texts] if kind == "public" else [])
                self.broadcast.flush()
                self._wake()
            case ("put", int(who), int(size)):
                self.listeners[who].put(self._new_text(size))
            case ("release", int(who)):
                self.listeners[who].release()
            case ("leave", int(who)):
                self.listeners[who].leave()

    def _publish_direct(self, recipient: int, texts: list[bytes]) -> None:
        tail = self.broadcast.tail
        for listener in self.listeners[recipient : recipient + 1]:
            insert(listener.send_queue, tail, tail, *texts)
            listener.expect((tail, b"".join(texts)))

    def _publish(self, sender: int, texts: list[bytes], confirmations: list[bytes]) -> None:
        start, end = self.broadcast.append(texts)  # type: ignore[arg-type]
        for number, listener in enumerate(self.listeners):
            if number == sender:
                insert(listener.send_queue, start, end, *confirmations)
                listener.expect((start, b"".join(confirmations)))
            else:
                listener.expect(*((start + at + 1, bytes([byte])) for at, byte in enumerate(b"".join(texts))))
