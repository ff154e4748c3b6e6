"""The wire protocol frames: typed frames, C for commands and D for data. Wire format: docs/wire/frames.md.

This module splits the stream into frames. The steps in them, and the state of both sides, are in steps.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from chatprotocol.errors import ErrorCode, ProtocolError
from chatprotocol.events import History
from chatprotocol.keywords import DEFAULT_KEYWORDS, KEYWORD_SETS
from chatprotocol.limits import FRAME_MAX_BYTES
from chatprotocol.wire.base import ServerProtocol, Sniff, WireProtocol, join_pieces
from chatprotocol.wire.readers import HEADER_BYTES, FrameBuffer, frame, frame_header
from chatprotocol.wire.step_texts import EventReader, event_steps, history_steps, without_updates
from chatprotocol.wire.steps import COMMAND, DATA, READY_STEP, ServerSteps, StepClient

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from chatprotocol.events import ChatHistoryItem, Event, EventBatch
    from chatprotocol.requests import Request, Unreadable
    from chatprotocol.wire.base import ClientEvent

_KINDS: Final = bytes((COMMAND, DATA))
_PAYLOAD_MAX_BYTES: Final = FRAME_MAX_BYTES - HEADER_BYTES


class FramesServer(ServerProtocol):
    """The server's half of one connection."""

    __slots__ = ("_frames", "_steps")

    def __init__(self, steps: ServerSteps) -> None:
        self._frames = FrameBuffer(_KINDS, FRAME_MAX_BYTES)
        self._steps = steps

    def receive(self, data: bytes) -> Iterator[Request]:
        """Yield the requests of all complete frames. After an invalid frame, one Unreadable and then nothing."""
        for public in _PUBLIC_FRAMES:
            if data.count(public) >= _BATCH_MIN:
                return self._read_batch(public, data)
        return self._read(data)

    def receive_end(self) -> list[Unreadable]:
        if not self.is_incomplete:
            return []
        reason = f"The connection ended inside a frame; {len(self._frames.rest)} bytes were dropped."
        return [self._steps.unreadable(ErrorCode.BAD_REQUEST, reason)]

    def data_to_send(self) -> bytes:
        """Return READY for each public message that was begun."""
        count, self._steps.ready_count = self._steps.ready_count, 0
        return _READY * count

    def encode(self, items: Sequence[Event | EventBatch]) -> bytes:
        return _encode(self._steps.login_events(items))

    def encode_long(self, event: Event, messages: Collection[ChatHistoryItem]) -> Iterator[bytes]:
        """Encode a history; the protocol has no other long answer."""
        steps = history_steps(messages) if isinstance(event, History) else ()
        return join_pieces(frame(*step) for step in steps)

    @property
    def is_incomplete(self) -> bool:
        return bool(self._frames.rest)

    def _read(self, data: bytes) -> Iterator[Request]:
        was_broken = self._frames.problem is not None
        for kind, payload in self._frames.split(data):
            request = self._steps.read(kind, payload)
            if request is not None:
                yield request
        problem = self._frames.problem
        if problem is not None and not was_broken:
            yield self._steps.unreadable(problem.code, problem.reason, closes=True)

    def _read_batch(self, public: bytes, data: bytes) -> Iterator[Request]:
        """Split many public messages at their command frames, which takes half the time of reading each length.

        The split is correct only if the bytes between two command frames are exactly one data frame. Otherwise the
        frames are read one by one.
        """
        first, *between, last = data.split(public)
        yield from self._read(first)
        is_between_frames = not self.is_incomplete and self._frames.problem is None
        if is_between_frames and (texts := _read_texts(between)) is not None:
            yield from self._steps.read_public(_PUBLIC_FRAMES[public], texts)
            yield from self._read(public + last)
        else:
            yield from self._read(data[len(first) :])


# The command frame of a public message, in each keyword set.
_PUBLIC_FRAMES: Final = {frame(COMMAND, words.public.encode()): words.public for words in KEYWORD_SETS.values()}
# Minimum number of public messages for a batch: with fewer, the search costs more than it saves.
_BATCH_MIN: Final = 4


def _read_texts(pieces: Sequence[bytes]) -> list[str] | None:
    """The texts if each piece is exactly one data frame in UTF-8, otherwise None."""
    for piece in pieces:
        size_bytes = len(piece) - HEADER_BYTES
        if not 0 <= size_bytes <= _PAYLOAD_MAX_BYTES or piece[:HEADER_BYTES] != frame_header(DATA, size_bytes):
            return None
    try:
        return [piece[HEADER_BYTES:].decode() for piece in pieces]
    except UnicodeDecodeError:
        return None


_READY: Final = frame(*READY_STEP)


def _encode(items: Sequence[Event | EventBatch]) -> bytes:
    """Encode as frames."""
    steps = [step for each in items for step in event_steps(each, _PAYLOAD_MAX_BYTES)]
    return b"".join([frame_header(kind, len(payload)) + payload for kind, payload in steps])


class EventDecoder:
    """The client's reader of one connection. Unknown commands are skipped."""

    def __init__(self) -> None:
        self._frames = FrameBuffer(_KINDS, FRAME_MAX_BYTES)
        self._reader = EventReader(Frames.name)

    def decode(self, data: bytes) -> list[ClientEvent]:
        """The events of all complete frames. Raises ProtocolError for an invalid one."""
        found = self._reader.read(self._frames.split(data))
        if self._frames.problem is not None:
            raise ProtocolError(f"The server sent an invalid frame. {self._frames.problem.reason}")
        return found


class Frames(WireProtocol):
    """The wire protocol frames."""

    name = "frames"
    opening = "C\0\0\0\5alice"

    def sniff(self, first: bytes) -> Sniff:
        """Recognize a command frame: the first byte of every valid length is zero."""
        if first == b"C":
            return Sniff.MORE
        return Sniff.YES if first.startswith(b"C\0") else Sniff.NO

    def server(self) -> FramesServer:
        return FramesServer(ServerSteps())

    def encode_all(self, items: Sequence[Event | EventBatch]) -> bytes:
        return _encode(without_updates(items))

    def client(self, keywords: str = DEFAULT_KEYWORDS) -> StepClient:
        return StepClient(keywords, frame, EventDecoder)
