"""The wire protocol datagram: the steps of frames over UDP. Wire format: docs/wire/datagram.md.

In this module a datagram is a frame: kind, payload length, payload. chatprotocol.udp.arq delivers the frames once and
in order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from chatprotocol.errors import ErrorCode, ProtocolError, RequestError
from chatprotocol.keywords import PING
from chatprotocol.limits import DATAGRAM_PAYLOAD_MAX_BYTES, FRAME_MAX_BYTES
from chatprotocol.requests import Ping, Unreadable
from chatprotocol.udp.packet import PIECE
from chatprotocol.wire.base import Sniff
from chatprotocol.wire.frames_text import COMMAND, DATA, EventReader, event_steps, read_requests, request_step
from chatprotocol.wire.readers import ANY_KIND, HEADER_BYTES, FrameBuffer, frame

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from chatprotocol.events import Event, EventBatch
    from chatprotocol.requests import Request
    from chatprotocol.udp.arq import Frame
    from chatprotocol.wire.frames_text import Step

_KINDS: Final = bytes((COMMAND, DATA, PIECE))
# Size limit of all pieces of one payload together.
_JOINED_MAX_BYTES: Final = FRAME_MAX_BYTES - HEADER_BYTES
_PING: Final = PING.encode()


def _to_frames(steps: Iterable[Step]) -> Iterator[Frame]:
    """Yield a frame for each step, or several for long data."""
    for kind, payload in steps:
        start = 0
        while kind == DATA and len(payload) - start > DATAGRAM_PAYLOAD_MAX_BYTES:
            yield PIECE, payload[start : start + DATAGRAM_PAYLOAD_MAX_BYTES]
            start += DATAGRAM_PAYLOAD_MAX_BYTES
        yield kind, payload[start:] if start else payload


class _Pieces:
    """Reassembly buffer for data in pieces."""

    __slots__ = ("_data", "is_incomplete", "problem")

    def __init__(self) -> None:
        self._data = bytearray()
        # True after the first piece. A piece may be empty.
        self.is_incomplete = False
        # The error of an invalid piece. It makes the whole data invalid.
        self.problem: RequestError | None = None

    def add(self, payload: bytes) -> None:
        """Add a piece that is not the last one."""
        self.is_incomplete = True
        if len(self._data) + len(payload) > _JOINED_MAX_BYTES:
            reason = f"The pieces of a payload have {_JOINED_MAX_BYTES:,} bytes at most together; nothing was done."
            self.problem = RequestError(ErrorCode.TOO_LONG, reason)
        if self.problem is None:
            self._data += payload
        else:
            self._data.clear()

    def end(self, payload: bytes) -> bytes:
        """Add the last piece and return the whole payload. Raises RequestError if a piece was invalid."""
        self.add(payload)
        joined, problem = bytes(self._data), self.problem
        self.drop()
        if problem is not None:
            raise problem
        return joined

    def mark_invalid(self, problem: RequestError) -> None:
        """Record an invalid piece. :meth:`end` reports it once."""
        self.is_incomplete = True
        self.problem = problem

    def drop(self) -> None:
        """Drop all pieces."""
        self._data.clear()
        self.is_incomplete = False
        self.problem = None


class RequestDecoder:
    """The server's side of a session. It returns commands and data; their meaning depends on the earlier steps."""

    __slots__ = ("_frames", "_pieces")

    def __init__(self) -> None:
        self._frames = FrameBuffer(ANY_KIND, FRAME_MAX_BYTES)
        self._pieces = _Pieces()

    def decode(self, data: bytes) -> list[Request]:
        """The requests that are complete after this piece. An invalid frame becomes one Unreadable."""
        was_broken = self._frames.problem is not None
        found = [request for each in self._frames.split(data) for request in self._read(*each)]
        problem = self._frames.problem
        if problem is not None and not was_broken:
            found.append(Unreadable(problem.code, problem.reason, closes=True))
        return found

    def _read(self, kind: int, payload: bytes) -> list[Request]:
        if kind == COMMAND and payload.strip() == _PING:
            return [Ping()]  # allowed between any two steps; it does not change the state
        found: list[Request] = []
        if kind not in (DATA, PIECE) and self._pieces.is_incomplete:
            self._pieces.drop()
            found.append(Unreadable(ErrorCode.BAD_REQUEST, "Pieces of data (d) were not ended by a datagram D."))
        try:
            _check(kind, payload)
            if kind == PIECE:
                self._pieces.add(payload)
                return found
            if self._pieces.is_incomplete:
                payload = self._pieces.end(payload)
        except RequestError as error:
            if kind == PIECE:
                self._pieces.mark_invalid(error)
                return found
            self._pieces.drop()
            return [*found, Unreadable(error.code, error.reason)]
        return found + read_requests([(kind, payload)])

    def end(self) -> list[Request]:
        """An Unreadable if the session ended inside of data."""
        if not self.is_incomplete:
            return []
        return [Unreadable(ErrorCode.BAD_REQUEST, "The session ended in the middle of data.")]

    @property
    def is_incomplete(self) -> bool:
        """True if data or a frame is incomplete."""
        return self._pieces.is_incomplete or bool(self._frames.rest)


def _check(kind: int, payload: bytes) -> None:
    """Raises RequestError if the kind is unknown or the payload too long."""
    if kind not in _KINDS:
        raise RequestError(
            ErrorCode.BAD_REQUEST, f"A datagram begins with C, D, d or A, not with the byte 0x{kind:02x}."
        )
    if len(payload) > DATAGRAM_PAYLOAD_MAX_BYTES:
        limit = f"{DATAGRAM_PAYLOAD_MAX_BYTES:,} bytes at most"
        raise RequestError(
            ErrorCode.TOO_LONG, f"The payload of a datagram has {limit}; send longer data in pieces (d)."
        )


class EventDecoder:
    """The client's side of a session. Unknown commands are skipped."""

    def __init__(self) -> None:
        self._frames = FrameBuffer(_KINDS, FRAME_MAX_BYTES)
        self._pieces = _Pieces()
        self._reader = EventReader(Datagram.name)

    def decode(self, data: bytes) -> list[Event]:
        """The events that are complete after this piece. Raises ProtocolError for an invalid one."""
        found: list[Event] = []
        for kind, payload in self._frames.split(data):
            if kind == PIECE:
                self._pieces.add(payload)
            elif kind == DATA and self._pieces.is_incomplete:
                found += self._reader.read([(DATA, self._join(payload))])
            else:
                found += self._reader.read([(kind, payload)])
        if self._frames.problem is not None:
            raise ProtocolError(f"The server sent an invalid datagram. {self._frames.problem.reason}")
        return found

    def _join(self, payload: bytes) -> bytes:
        try:
            return self._pieces.end(payload)
        except RequestError as error:
            raise ProtocolError(f"The server sent too much data. {error.reason}") from error


class Datagram:
    """Typed frames over UDP: like Frames, but payloads are short, and longer data is sent in pieces."""

    name = "datagram"
    connections = 1
    opening = None

    def sniff(self, _: bytes) -> Sniff:
        """Return NO: this protocol is not used over TCP."""
        return Sniff.NO

    def request_decoder(self) -> RequestDecoder:
        """Return the decoder for the server's side of a new session."""
        return RequestDecoder()

    def encode(self, event: Event) -> bytes:
        """Encode as one frame for each datagram."""
        return self.encode_all((event,))

    def encode_all(self, items: Sequence[Event | EventBatch]) -> bytes:
        """Encode as one frame for each datagram."""
        steps = (step for each in items for step in event_steps(each, DATAGRAM_PAYLOAD_MAX_BYTES))
        return b"".join([frame(*each) for each in _to_frames(steps)])

    def event_decoder(self) -> EventDecoder:
        """Return the decoder for the client's side of a new session."""
        return EventDecoder()

    def connection_for(self, _: Request) -> int:
        """Return 0: there is one session."""
        return 0

    def encode_request(self, request: Request) -> bytes:
        """Encode as one frame for each datagram."""
        if isinstance(request, Ping):
            return frame(COMMAND, _PING)
        kind, payload = request_step(request)
        if kind == COMMAND and len(payload) > DATAGRAM_PAYLOAD_MAX_BYTES:
            # No name, password or keyword may be this long: the server rejects the truncated one as well.
            payload = payload[:DATAGRAM_PAYLOAD_MAX_BYTES].decode(errors="ignore").encode()
        return b"".join([frame(*each) for each in _to_frames([(kind, payload)])])
