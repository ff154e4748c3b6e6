"""The dialect frames: typed frames, C for commands and D for data, step by step. Its wire: docs/wire/frames.md."""

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

    from chatprotocol.events import Event, Run
    from chatprotocol.requests import Request

_KINDS: Final = bytes((COMMAND, DATA))
_PAYLOAD_MAX_BYTES: Final = FRAME_MAX_BYTES - HEADER_BYTES


class RequestDecoder:
    """The server's side of a connection: commands and data. What they mean depends on what went before."""

    __slots__ = ("_frames",)

    def __init__(self) -> None:
        self._frames = FrameBuffer(_KINDS, FRAME_MAX_BYTES)

    def decode(self, data: bytes) -> list[Request]:
        """What all frames say that are whole now. Behind a broken frame there is nothing."""
        for public in _PUBLIC_FRAMES:
            if data.count(public) >= _RUN_MIN:
                return self._read_runs(public, data)
        return self._read(data)

    def _read(self, data: bytes) -> list[Request]:
        was_broken = self._frames.problem is not None
        found = read_requests(self._frames.split(data))
        problem = self._frames.problem
        if problem is not None and not was_broken:
            found.append(Unreadable(problem.code, problem.reason, closes=True))
        return found

    def _read_runs(self, public: bytes, data: bytes) -> list[Request]:
        """Where public messages pour in, cut at their first steps: that takes half as long as to go by the lengths.

        It is right where all that lies between two of them is one frame of data.
        """
        first, *between, last = data.split(public)
        found = self._read(first)
        is_between_frames = not self.is_inside and self._frames.problem is None
        if is_between_frames and (texts := _read_texts(between)) is not None:
            found.append(CommandBatch(_PUBLIC_FRAMES[public], texts))
            return found + self._read(public + last)
        return found + self._read(data[len(first) :])

    def end(self) -> list[Request]:
        """What is left when the peer sends no more is a frame that was cut short."""
        if not self.is_inside:
            return []
        reason = f"The connection ended inside a frame; {len(self._frames.rest)} bytes were dropped."
        return [Unreadable(ErrorCode.BAD_REQUEST, reason)]

    @property
    def is_inside(self) -> bool:
        """Has a frame begun that is not whole yet?"""
        return bool(self._frames.rest)


# The first step of every public message, in either tradition.
_PUBLIC_FRAMES: Final = {frame(COMMAND, words.public.encode()): words.public for words in KEYWORD_SETS.values()}
# Below so many a run is not worth looking for.
_RUN_MIN: Final = 4


def _read_texts(pieces: Sequence[bytes]) -> list[str] | None:
    """The texts, if each piece is one frame of data, and nothing else."""
    for piece in pieces:
        size_bytes = len(piece) - HEADER_BYTES
        if not 0 <= size_bytes <= _PAYLOAD_MAX_BYTES or piece[:HEADER_BYTES] != frame_header(DATA, size_bytes):
            return None
    try:
        return [piece[HEADER_BYTES:].decode() for piece in pieces]
    except UnicodeDecodeError:
        return None


class EventDecoder:
    """The client's side of a connection. Commands that it does not know are passed over."""

    def __init__(self) -> None:
        self._frames = FrameBuffer(_KINDS, FRAME_MAX_BYTES)
        self._reader = EventReader(Frames.name)

    def decode(self, data: bytes) -> list[Event]:
        """Events of all frames that are whole now; ProtocolError where one is none of ours."""
        found = self._reader.read(self._frames.split(data))
        if self._frames.problem is not None:
            raise ProtocolError(f"The server sent something that is no frame. {self._frames.problem.reason}")
        return found


class Frames:
    """Typed frames. A client's requests are commands and data only: what they mean is for a dialogue to say."""

    name = "frames"
    connections = 1
    opening = "C\0\0\0\5alice"

    def sniff(self, first: bytes) -> Sniff:
        """A command opens, and no length is so great that its first byte were not zero."""
        if first == b"C":
            return Sniff.MORE
        return Sniff.YES if first.startswith(b"C\0") else Sniff.NO

    def request_decoder(self) -> RequestDecoder:
        """For the server's side of a new connection."""
        return RequestDecoder()

    def encode(self, event: Event) -> bytes:
        """A frame; a history is several."""
        return self.encode_all((event,))

    def encode_all(self, said: Sequence[Event | Run]) -> bytes:
        """The frames of each."""
        steps = [step for each in said for step in event_steps(each, _PAYLOAD_MAX_BYTES)]
        return b"".join([frame_header(kind, len(payload)) + payload for kind, payload in steps])

    def event_decoder(self) -> EventDecoder:
        """For the client's side of a new connection."""
        return EventDecoder()

    def connection_for(self, _: Request) -> int:
        """There is only one."""
        return 0

    def encode_request(self, request: Request) -> bytes:
        """One frame."""
        return frame(*request_step(request))
