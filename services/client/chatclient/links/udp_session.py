"""Client side of one UDP session, from its first datagram to the server's goodbye. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from chatprotocol.errors import ErrorCode
from chatprotocol.events import Bye, Pong
from chatprotocol.keywords import PING
from chatprotocol.limits import FRAME_MAX_BYTES
from chatprotocol.wire.readers import ANY_KIND, FrameBuffer, frame
from chatprotocol.wire.steps import COMMAND

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chatprotocol.events import Event
    from chatprotocol.udp.arq import Arq
    from chatprotocol.udp.packet import Datagram
    from chatprotocol.wire.base import ClientProtocol

# Interval of pings while nothing else is sent: they keep the session alive.
_PING_SECONDS: Final = 15.0
# Silence after which a client with unacknowledged data tests whether the session still exists.
_PROBE_SECONDS: Final = 1.0
_NO_SESSION: Final = f"ERROR {ErrorCode.NO_SESSION}".encode()
# Padded to the length of the error: a server sends unknown clients no more bytes than it received.
_PING: Final = frame(COMMAND, PING.encode())
_PROBE: Final = (COMMAND, PING.encode().ljust(len(_NO_SESSION)))
# Copies of the acknowledgement of the goodbye: the client ends then, and can't acknowledge a retransmission.
_GOODBYE_ACKS: Final = 3


class SessionResult(NamedTuple):
    """Result of a datagram: acknowledgements to send, events, and the reason if the session has ended."""

    acks: Sequence[bytes]
    events: list[Event]
    end: str = ""


class UdpSession:
    """For one thread. Times are seconds of one monotonic clock."""

    def __init__(self, arq: Arq, protocol: ClientProtocol, now: float) -> None:
        self._arq = arq
        self._decoder = protocol.event_decoder()
        self._frames = FrameBuffer(ANY_KIND, FRAME_MAX_BYTES)
        # Time of the last request.
        self._requested_at = now
        # True if the existence of the session was tested since the last datagram.
        self._has_probed = False

    @property
    def next_check_at(self) -> float:
        """Time of the next call of datagrams_to_send()."""
        return min(self._arq.next_check_at, self._requested_at + _PING_SECONDS)

    def write(self, data: bytes, now: float) -> None:
        """Queue encoded frames."""
        self._arq.put(self._frames.split(data))
        self._requested_at = now

    def receive(self, datagram: Datagram, now: float) -> SessionResult:
        """Handle a datagram of the server. Raises ProtocolError."""
        if datagram.session != self._arq.session:
            return SessionResult([], [])
        is_outside_session = datagram.sequence == 0 and datagram.kind == COMMAND
        if is_outside_session and (datagram.payload + b" ").startswith(_NO_SESSION + b" "):
            return SessionResult([], [], "the server no longer knows this session")
        self._has_probed = False
        result = self._arq.receive(datagram, now)
        events = [event for each in result.frames for event in self._decoder.decode(frame(*each))]
        if any(isinstance(event, Bye) for event in events):
            return SessionResult([*result.acks] * _GOODBYE_ACKS, events, "the server closed the session")
        return SessionResult(result.acks, [event for event in events if not isinstance(event, Pong)])

    def datagrams_to_send(self, now: float) -> list[bytes]:
        """Datagrams to send now. Raises TimeoutError if the server is lost."""
        if reason := self._arq.lost_reason(now):
            raise TimeoutError(reason)
        if now >= self._requested_at + _PING_SECONDS:
            self.write(_PING, now)
        waiting_seconds = min(self._arq.silence_so_far(now), now - self._requested_at)
        if self._arq.unacknowledged_bytes and waiting_seconds >= _PROBE_SECONDS and not self._has_probed:
            self._has_probed = True
            self._arq.put([_PROBE])
        return self._arq.datagrams_to_send(now)
