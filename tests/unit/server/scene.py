"""A stream, those who listen to it, and beside each of them a simple model of what it should be sent."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import takewhile
from random import Random

import pytest
from hypothesis import note
from hypothesis import strategies as st

from chatserver.net import broadcast as broadcast_module
from chatserver.net import memory_file
from chatserver.net import sender as sender_module
from chatserver.net import sendqueue as send_queue_module
from chatserver.net.broadcast import BroadcastBuffer
from chatserver.net.sendqueue import SendQueue
from chatserver.net.transport import TcpTransport

from .rooms import bytes_broadcast, publish, put, release, splice

LISTENERS = 2
# What each is told along with the release.
LAST_WORD = b"last"
# More than any stream of the model holds.
MUCH = 100_000

Step = tuple[object, ...]


def take(dice: Random) -> int:
    """How much of a send a socket takes."""
    return dice.randrange(26) if dice.random() < 0.4 else MUCH


def someone(dice: Random) -> int:
    return dice.randrange(LISTENERS)


def room_step(dice: Random) -> Step:
    """What another thread does while the courier goes round."""
    (what,) = dice.choices(["publish", "put", "release", "leave"], [12, 6, 3, 1])
    match what:
        case "publish":
            return what, [_message(dice) for _ in range(dice.randint(1, 4))]
        case "put":
            return what, someone(dice), dice.randint(1, 9)
        case _:
            return what, someone(dice)


def _message(dice: Random) -> tuple[str, int, list[int]]:
    """What is said in a row, who says it publicly or whom it is said to directly, and how long each of it is."""
    kind = dice.choice(["public", "skipped", "direct"])
    somebody_else = LISTENERS
    return kind, dice.randint(0, somebody_else), [dice.randrange(10) for _ in range(dice.randint(1, 3))]


@st.composite
def scripts(draw: st.DrawFn, step: Callable[[Random], Step]) -> list[Step]:
    """A long random script. Of one that fails, hypothesis finds the shortest beginning that fails."""
    length = draw(st.integers(1, 80))
    dice = draw(st.randoms(use_true_random=True))
    script = [step(dice) for _ in range(length)]
    note("\n".join(map(str, script)))
    return script


class Listener:
    """An outbox, and beside it the reference: what is still to be sent, in order.

    Beside each piece stands how far the stream must have been offered before it may be sent.
    """

    def __init__(self, send_queue: SendQueue, *, is_held: bool) -> None:
        self.send_queue = send_queue
        send_queue.follow()
        self.follows = True
        self._is_held = True
        self._due: deque[tuple[int, bytes]] = deque()
        self._kept_back: list[tuple[int, bytes]] = []
        if not is_held:
            self.release()

    def expect(self, *pieces: tuple[int, bytes]) -> None:
        """It hears this from the room, if it listens."""
        if self.follows:
            (self._kept_back if self._is_held else self._due).extend(pieces)

    def put(self, data: bytes) -> None:
        """It is answered this: at once while it is held, else behind what is shown."""
        self._due.append((0 if self._is_held else self.send_queue.broadcast.end, data))
        put(self.send_queue, data)

    def release(self) -> None:
        self._due.append((0 if self._is_held else self.send_queue.broadcast.end, LAST_WORD))
        release(self.send_queue, LAST_WORD)
        self._is_held = False
        self._due += self._kept_back
        self._kept_back.clear()

    def leave(self) -> None:
        """Nobody leaves twice, or before it was given what it missed."""
        if self.follows and not self._is_held:
            self.send_queue.unfollow()
            self.follows = False

    def sendable(self, offered: int) -> bytes:
        """What may be sent now. One that has left waits for nobody."""
        return b"".join(data for _, data in takewhile(lambda due: not self.follows or due[0] <= offered, self._due))

    def hear(self, data: bytes, offered: int) -> None:
        """It was sent this."""
        assert self.sendable(offered).startswith(data)
        while data:
            ready_at, piece = self._due.popleft()
            if len(data) < len(piece):
                self._due.appendleft((ready_at, piece[len(data) :]))
            data = data[len(piece) :]

    def rest(self) -> bytes:
        """What it was not sent yet."""
        return b"".join(data for _, data in self._due)


class Scene:
    """One stream and its listeners, some still held. ``wake`` is called after something was shown."""

    def __init__(
        self,
        broadcast: BroadcastBuffer,
        send_queues: Sequence[SendQueue],
        held: Sequence[bool],
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        self.broadcast = broadcast
        self._wake = wake
        publish(broadcast, b"(before they came)")
        self.listeners = [
            Listener(send_queue, is_held=is_held) for send_queue, is_held in zip(send_queues, held, strict=True)
        ]
        self._deliveries = 0

    def _new_text(self, size: int) -> bytes:
        """Text in which a byte that is lost, doubled or misplaced is seen."""
        self._deliveries += size
        return bytes(33 + (self._deliveries - size + at) * 7 % 91 for at in range(size))

    def play(self, step: Step) -> None:
        match step:
            case ("publish", list(batch)):
                self._publish(batch)
            case ("put", int(who), int(size)):
                self.listeners[who].put(self._new_text(size))
            case ("release", int(who)):
                self.listeners[who].release()
            case ("leave", int(who)):
                self.listeners[who].leave()

    def _publish(self, batch: list[tuple[str, int, list[int]]]) -> None:
        for kind, who, text_sizes in batch:
            texts = [self._new_text(size) for size in text_sizes]
            if kind == "direct":
                self._tell(who, texts)
            else:
                self._say(who, texts, [self._new_text(3) for _ in texts] if kind == "public" else [])
        self.broadcast.flush()
        self._wake()

    def _tell(self, who: int, texts: list[bytes]) -> None:
        tail = self.broadcast.tail
        for listener in self.listeners[who : who + 1]:
            splice(listener.send_queue, tail, tail, *texts)
            listener.expect((tail, b"".join(texts)))

    def _say(self, who: int, texts: list[bytes], confirmations: list[bytes]) -> None:
        start, end = self.broadcast.append(texts)  # type: ignore[arg-type]
        for number, listener in enumerate(self.listeners):
            if number == who:
                splice(listener.send_queue, start, end, *confirmations)
                listener.expect((start, b"".join(confirmations)))
            else:
                listener.expect(*((start + at + 1, bytes([delivery])) for at, delivery in enumerate(b"".join(texts))))


@contextmanager
def small(*, segment_bytes: int, span_bytes: int, send_bytes: int, pieces: int) -> Iterator[BroadcastBuffer]:
    """A stream in a world where everything is so small that a few letters meet every limit."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory_file, "SEGMENT_BYTES", segment_bytes)
        patch.setattr(broadcast_module, "SEGMENT_BYTES", segment_bytes)
        patch.setattr(broadcast_module, "SEND_MAX_BYTES", send_bytes)
        patch.setattr(TcpTransport, "write_max_bytes", send_bytes)
        for module in (send_queue_module, sender_module):
            patch.setattr(module, "SPAN_MIN_BYTES", span_bytes)
        patch.setattr(send_queue_module, "SEND_MAX_PIECES", pieces)
        with closing(bytes_broadcast()) as broadcast:
            yield broadcast
