"""The wire protocol datagram: the steps of frames over UDP. Wire format: docs/wire/datagram.md.

In this module a datagram is a frame: kind, payload length, payload. chatprotocol.udp.session delivers the frames once
and in order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from chatprotocol.errors import ErrorCode, ProtocolError, RequestError
from chatprotocol.events import History
from chatprotocol.keywords import DEFAULT_KEYWORDS, PING
from chatprotocol.limits import DATAGRAM_PAYLOAD_MAX_BYTES, FRAME_MAX_BYTES
from chatprotocol.requests import Ping
from chatprotocol.udp.packet import PIECE
from chatprotocol.wire.base import ServerProtocol, Sniff, WireProtocol, join_pieces
from chatprotocol.wire.readers import ANY_KIND, HEADER_BYTES, FrameBuffer, frame
from chatprotocol.wire.step_texts import EventReader, event_steps, history_steps, without_updates
from chatprotocol.wire.steps import COMMAND, DATA, READY_STEP, ServerSteps, StepClient

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from chatprotocol.events import ChatHistoryItem, Event, EventBatch
    from chatprotocol.requests import Request, Unreadable
    from chatprotocol.udp.arq import Frame
    from chatprotocol.wire.base import ClientEvent

_KINDS: Final = bytes((COMMAND, DATA, PIECE))
# Size limit of all pieces of one payload together.
_JOINED_MAX_BYTES: Final = FRAME_MAX_BYTES - HEADER_BYTES
_PING: Final = PING.encode()


def in_pieces(kind: int, payload: bytes) -> Iterator[Frame]:
    """Yield one frame, or several for long data."""
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


class DatagramServer(ServerProtocol):
    """The server's half of one session."""

    __slots__ = ("_frames", "_pieces", "_steps")

    def __init__(self, steps: ServerSteps) -> None:
        self._frames = FrameBuffer(ANY_KIND, FRAME_MAX_BYTES)
        self._pieces = _Pieces()
        self._steps = steps

    def receive(self, data: bytes) -> Iterator[Request]:
        """Yield the requests that are complete after this piece. An invalid frame becomes one Unreadable."""
        was_broken = self._frames.problem is not None
        for each in self._frames.split(data):
            yield from self._read(*each)
        problem = self._frames.problem
        if problem is not None and not was_broken:
            yield self._steps.unreadable(problem.code, problem.reason, closes=True)

    def receive_end(self) -> list[Unreadable]:
        if not self.is_incomplete:
            return []
        return [self._steps.unreadable(ErrorCode.BAD_REQUEST, "The session ended in the middle of data.")]

    def data_to_send(self) -> bytes:
        """Return READY for each public message that was begun."""
        count, self._steps.ready_count = self._steps.ready_count, 0
        return _READY * count

    def encode(self, items: Sequence[Event | EventBatch]) -> bytes:
        return _encode(self._steps.login_events(items))

    def encode_long(self, event: Event, messages: Collection[ChatHistoryItem]) -> Iterator[bytes]:
        """Encode a history; the protocol has no other long answer."""
        steps = history_steps(messages) if isinstance(event, History) else ()
        return join_pieces(frame(*each) for step in steps for each in in_pieces(*step))

    @property
    def is_incomplete(self) -> bool:
        return self._pieces.is_incomplete or bool(self._frames.rest)

    def _read(self, kind: int, payload: bytes) -> Iterator[Request]:
        if kind == COMMAND and payload.strip() == _PING:
            yield Ping()  # allowed between any two steps; it does not change the state
            return
        if kind not in (DATA, PIECE) and self._pieces.is_incomplete:
            self._pieces.drop()
            yield self._steps.unreadable(ErrorCode.BAD_REQUEST, "Pieces of data (d) were not ended by a datagram D.")
        try:
            _check(kind, payload)
            if kind == PIECE:
                self._pieces.add(payload)
                return
            if self._pieces.is_incomplete:
                payload = self._pieces.end(payload)
        except RequestError as error:
            if kind == PIECE:
                self._pieces.mark_invalid(error)
                return
            self._pieces.drop()
            yield self._steps.unreadable(error.code, error.reason)
            return
        request = self._steps.read(kind, payload)
        if request is not None:
            yield request


_READY: Final = frame(*READY_STEP)


def _encode(items: Sequence[Event | EventBatch]) -> bytes:
    """Encode as one frame for each datagram."""
    steps = (step for each in items for step in event_steps(each, DATAGRAM_PAYLOAD_MAX_BYTES))
    return b"".join([frame(*each) for step in steps for each in in_pieces(*step)])


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

    def decode(self, data: bytes) -> list[ClientEvent]:
        """The events that are complete after this piece. Raises ProtocolError for an invalid one."""
        found: list[ClientEvent] = []
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


class Datagram(WireProtocol):
    """Typed frames over UDP: like Frames, but payloads are short, and longer data is sent in pieces."""

    name = "datagram"
    opening = None

    def sniff(self, _: bytes) -> Sniff:
        """Return NO: this protocol is not used over TCP."""
        return Sniff.NO

    def server(self) -> DatagramServer:
        return DatagramServer(ServerSteps())

    def encode_all(self, items: Sequence[Event | EventBatch]) -> bytes:
        return _encode(without_updates(items))

    def client(self, keywords: str = DEFAULT_KEYWORDS) -> StepClient:
        return StepClient(keywords, encode_step, EventDecoder, pings_anywhere=True)


def encode_step(kind: int, payload: bytes) -> bytes:
    """Encode a step of a client as one frame for each datagram."""
    if kind == COMMAND and len(payload) > DATAGRAM_PAYLOAD_MAX_BYTES:
        # No name, password or keyword may be this long: the server rejects the truncated one as well.
        payload = payload[:DATAGRAM_PAYLOAD_MAX_BYTES].decode(errors="ignore").encode()
    return b"".join([frame(*each) for each in in_pieces(kind, payload)])
