"""A talk: one session over UDP as the client has it, from its first datagram to the server's goodbye. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from chatprotocol.errors import ErrorCode
from chatprotocol.events import Bye, Pong, Refused
from chatprotocol.keywords import PING
from chatprotocol.limits import FRAME_MAX_BYTES
from chatprotocol.requests import Command, Ping
from chatprotocol.wire.frames_text import COMMAND
from chatprotocol.wire.readers import ANY_KIND, FrameBuffer, frame

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chatprotocol.events import Event
    from chatprotocol.requests import Request
    from chatprotocol.udp.arq import Arq
    from chatprotocol.udp.packet import Datagram
    from chatprotocol.wire import WireProtocol

# Who has nothing to say shows so often that it is there.
_PING_SECONDS: Final = 15.0
# Something is to be acknowledged, and nothing was heard for so long: is there still a session?
_DOUBT_SECONDS: Final = 1.0
_NO_SESSION: Final = f"ERROR {ErrorCode.NO_SESSION}".encode()
# As long as the answer where there is none: a server answers nobody whom it does not know with more than was sent.
_PROBE: Final = (COMMAND, PING.encode().ljust(len(_NO_SESSION)))
# How often that is acknowledged with which the goodbye came: when it comes again, nobody is there any more to do it.
_GOODBYE_ACKS: Final = 3


class Received(NamedTuple):
    """What follows from a datagram: what to send at once, what the server said, and why the session is over, if so."""

    acks: Sequence[bytes]
    events: list[Event]
    end: str = ""


class UdpSession:
    """Times are seconds of one clock."""

    def __init__(self, arq: Arq, protocol: WireProtocol, now: float) -> None:
        self._arq = arq
        self._protocol = protocol
        self._decoder = protocol.event_decoder()
        self._frames = FrameBuffer(ANY_KIND, FRAME_MAX_BYTES)
        # When something was said last.
        self._said_at = now
        # Was it asked whether there is a session, since something was heard?
        self._has_probed = False

    @property
    def look_at(self) -> float:
        """Before this time there is nothing to be sent."""
        return min(self._arq.look_at, self._said_at + _PING_SECONDS)

    def request(self, request: Request, now: float) -> Refused | None:
        """Say this to the server; or why that can't be said."""
        if isinstance(request, Command) and request.text.strip() == PING:
            reason = f"In the dialect {self._protocol.name} {PING} asks for a sign of life; it can't be a password."
            return Refused(ErrorCode.BAD_REQUEST, reason)
        self._arq.put(self._frames.split(self._protocol.encode_request(request)))
        self._said_at = now
        return None

    def receive(self, datagram: Datagram, now: float) -> Received:
        """The server has sent this. Raises ProtocolError."""
        if datagram.session != self._arq.session:
            return Received([], [])
        is_said_outside = datagram.sequence == 0 and datagram.kind == COMMAND
        if is_said_outside and (datagram.payload + b" ").startswith(_NO_SESSION + b" "):
            return Received([], [], "the server does not know this session any more")
        self._has_probed = False
        arrival = self._arq.receive(datagram, now)
        events = [event for each in arrival.frames for event in self._decoder.decode(frame(*each))]
        if any(isinstance(event, Bye) for event in events):
            return Received([*arrival.acks] * _GOODBYE_ACKS, events, "the server closed the session")
        return Received(arrival.acks, [event for event in events if not isinstance(event, Pong)])

    def due(self, now: float) -> list[bytes]:
        """What is to be sent now. Raises TimeoutError: the server is lost."""
        if reason := self._arq.why_lost(now):
            raise TimeoutError(reason)
        if now >= self._said_at + _PING_SECONDS:
            self.request(Ping(), now)
        waiting_seconds = min(self._arq.silent_seconds(now), now - self._said_at)
        if self._arq.unacknowledged_bytes and waiting_seconds >= _DOUBT_SECONDS and not self._has_probed:
            self._has_probed = True
            self._arq.put([_PROBE])
        return self._arq.due(now)
