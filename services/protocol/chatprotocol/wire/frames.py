"""The wire protocol frames: typed frames, C for commands and D for data. Wire format: docs/wire/frames.md."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from chatprotocol.errors import ErrorCode, ProtocolError
from chatprotocol.keywords import KEYWORD_SETS
from chatprotocol.limits import FRAME_MAX_BYTES
from chatprotocol.requests import CommandBatch, Unreadable
from chatprotocol.wire.base import Sniff
from chatprotocol.wire.frames_text import COMMAND, DATA, EventReader, event_steps, read_requests, request_step
from chatprotocol.wire.readers import HEADER_BYTES, FrameBuffer, frame, frame_header

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chatprotocol.events import Event, EventBatch
    from chatprotocol.requests import Request

_KINDS: Final = bytes((COMMAND, DATA))
_PAYLOAD_MAX_BYTES: Final = FRAME_MAX_BYTES - HEADER_BYTES


class RequestDecoder:
    """The server's side of a connection. It returns commands and data; their meaning depends on the earlier steps."""

    __slots__ = ("_frames",)

    def __init__(self) -> None:
        self._frames = FrameBuffer(_KINDS, FRAME_MAX_BYTES)

    def decode(self, data: bytes) -> list[Request]:
        """The requests of all complete frames. After an invalid frame, one Unreadable and then nothing."""
        for public in _PUBLIC_FRAMES:
            if data.count(public) >= _BATCH_MIN:
                return self._read_batch(public, data)
        return self._read(data)

    def _read(self, data: bytes) -> list[Request]:
        was_broken = self._frames.problem is not None
        found = read_requests(self._frames.split(data))
        problem = self._frames.problem
        if problem is not None and not was_broken:
            found.append(Unreadable(problem.code, problem.reason, closes=True))
        return found

    def _read_batch(self, public: bytes, data: bytes) -> list[Request]:
        """Split many public messages at their command frames, which takes half the time of reading each length.

        The split is correct only if the bytes between two command frames are exactly one data frame. Otherwise the
        frames are read one by one.
        """
        first, *between, last = data.split(public)
        found = self._read(first)
        is_between_frames = not self.is_incomplete and self._frames.problem is None
        if is_between_frames and (texts := _read_texts(between)) is not None:
            found.append(CommandBatch(_PUBLIC_FRAMES[public], texts))
            return found + self._read(public + last)
        return found + self._read(data[len(first) :])

    def end(self) -> list[Request]:
        """An Unreadable if the input ended inside a frame."""
        if not self.is_incomplete:
            return []
        reason = f"The connection ended inside a frame; {len(self._frames.rest)} bytes were dropped."
        return [Unreadable(ErrorCode.BAD_REQUEST, reason)]

    @property
    def is_incomplete(self) -> bool:
        """True if a frame is incomplete."""
        return bool(self._frames.rest)


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


class EventDecoder:
    """The client's side of a connection. Unknown commands are skipped."""

    def __init__(self) -> None:
        self._frames = FrameBuffer(_KINDS, FRAME_MAX_BYTES)
        self._reader = EventReader(Frames.name)

    def decode(self, data: bytes) -> list[Event]:
        """The events of all complete frames. Raises ProtocolError for an invalid one."""
        found = self._reader.read(self._frames.split(data))
        if self._frames.problem is not None:
            raise ProtocolError(f"The server sent an invalid frame. {self._frames.problem.reason}")
        return found


class Frames:
    """The wire protocol frames. Requests are Command and Data only; the server's FramesMachine interprets them."""

    name = "frames"
    connections = 1
    opening = "C\0\0\0\5alice"

    def sniff(self, first: bytes) -> Sniff:
        """Recognize a command frame: the first byte of every valid length is zero."""
        if first == b"C":
            return Sniff.MORE
        return Sniff.YES if first.startswith(b"C\0") else Sniff.NO

    def request_decoder(self) -> RequestDecoder:
        """Return the decoder for the server's side of a new connection."""
        return RequestDecoder()

    def encode(self, event: Event) -> bytes:
        """Encode as one frame, or several for a history."""
        return self.encode_all((event,))

    def encode_all(self, items: Sequence[Event | EventBatch]) -> bytes:
        """Encode as frames."""
        steps = [step for each in items for step in event_steps(each, _PAYLOAD_MAX_BYTES)]
        return b"".join([frame_header(kind, len(payload)) + payload for kind, payload in steps])

    def event_decoder(self) -> EventDecoder:
        """Return the decoder for the client's side of a new connection."""
        return EventDecoder()

    def connection_for(self, _: Request) -> int:
        """Return 0: there is one connection."""
        return 0

    def encode_request(self, request: Request) -> bytes:
        """Encode as one frame. Raises TypeError if the request is not a Command or Data."""
        return frame(*request_step(request))
