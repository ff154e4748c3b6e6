"""Sessions over UDP: a stream of encoded frames in each direction, in datagrams. Pure: no socket, thread or clock.

A session connects three parts: the :class:`Arq` (numbers, acknowledgements, retransmissions), the stream of frames that
wire/datagram.py encodes and decodes, and the rules of docs/wire/datagram.md for a session's begin and end. The server
uses UdpSession, any client UdpClientSession, which adds the handshake, pings and the server's goodbye.

    write(bytes) -> FrameBuffer -> Arq -> datagrams          datagrams -> Arq -> input -> read() -> bytes

Frames become bytes and are parsed again because the server's broadcast buffer is one byte stream for all sessions: it
is cut at any byte, and each session numbers its own datagrams. FrameBuffer holds the begun frame meanwhile. A frame is
one datagram: wire/datagram.py cuts long data into pieces and joins them, see decision 13.

States (SessionState): OPENING, in a client only, then OPEN, then one of the others, which are final. The caller asks
for the state after each call. Input that arrived before the end can still be read after it.

All methods return the datagrams that the caller must send at once. A datagram that can't be sent counts as lost. The
caller calls ``datagrams_to_send`` at ``next_check_at``. Times are seconds of one monotonic clock.
"""

from __future__ import annotations

import math
import sys
from enum import Enum
from typing import TYPE_CHECKING, Final

from chatprotocol.errors import ErrorCode
from chatprotocol.keywords import PING
from chatprotocol.limits import FRAME_MAX_BYTES
from chatprotocol.udp.arq import SILENCE_SECONDS, Arq
from chatprotocol.udp.handshake import UdpHandshake
from chatprotocol.udp.packet import NO_SESSION
from chatprotocol.wire.readers import ANY_KIND, FrameBuffer, frame
from chatprotocol.wire.steps import COMMAND

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chatprotocol.udp.arq import Frame
    from chatprotocol.udp.packet import Datagram

# Maximum unread input per session: above it, datagrams are not acknowledged, so the peer resends them later. Datagrams
# that arrive out of order do not count; see RECEIVE_WINDOW.
INPUT_MAX_BYTES: Final = 64 * 1024
# Interval of a client's pings while it writes nothing: they keep the session alive.
PING_SECONDS: Final = 15.0
# Silence after which a client with unacknowledged data tests whether the session still exists.
PROBE_SECONDS: Final = 1.0

_PING: Final = (COMMAND, PING.encode())
_NO_SESSION: Final = f"ERROR {ErrorCode.NO_SESSION}".encode()
# Padded to the length of the error: a server sends unknown clients no more bytes than it received.
_PROBE: Final = (COMMAND, PING.encode().ljust(len(_NO_SESSION)))
_GOODBYE: Final = b"BYE"
# Copies of the acknowledgement of the goodbye: the client ends then, and can't acknowledge a retransmission.
_GOODBYE_ACKS: Final = 3


class SessionState(Enum):
    """The state of a session. The last four values are texts for the user of a client."""

    OPENING = "the server has not answered yet"
    OPEN = "the session is open"
    REJECTED = "the server answered, but opened no session"
    CLOSED = "the server closed the session"
    UNKNOWN = "the server no longer knows this session"
    LOST = "the peer is lost"


class UdpSession:
    """One side of a session. Not thread-safe: the caller holds a lock or uses one thread."""

    __slots__ = ("_frames", "_input", "_input_max_bytes", "arq", "lost_reason", "state")

    def __init__(
        self,
        number: int,
        now: float,
        *,
        silence_seconds: float = SILENCE_SECONDS,
        input_max_bytes: int = INPUT_MAX_BYTES,
        first_input: bytes = b"",
    ) -> None:
        """``first_input`` is read before all datagrams: the opening's text is the session's first frame."""
        self.state = SessionState.OPEN
        # Details of the state LOST.
        self.lost_reason = ""
        # Others read the progress of the written data here. Only the session calls methods that change it.
        self.arq = Arq(number, now, silence_seconds=silence_seconds)
        # Holds the written part of an incomplete frame.
        self._frames = FrameBuffer(ANY_KIND, FRAME_MAX_BYTES)
        self._input = bytearray(first_input)
        self._input_max_bytes = input_max_bytes

    @property
    def is_over(self) -> bool:
        """True if the state is final."""
        return self.state not in (SessionState.OPENING, SessionState.OPEN)

    # --- sending ---

    def write(self, data: bytes, now: float) -> Sequence[bytes]:
        """Queue encoded frames; ``data`` may end inside one. There is no limit but the caller's, see Arq.may_send."""
        self.arq.put(self._frames.split(data))
        return self.arq.datagrams_to_send(now)

    def datagrams_to_send(self, now: float) -> Sequence[bytes]:
        """Retransmissions, and frames that fit into the window now."""
        return self.arq.datagrams_to_send(now)

    @property
    def next_check_at(self) -> float:
        """Before this time nothing needs to be sent again, and the peer isn't lost."""
        return self.arq.next_check_at

    def check_peer(self, now: float) -> bool:
        """Set the state LOST if an open session's peer is silent or acknowledges nothing. True if it has just done so.

        Call it at ``next_check_at``.
        """
        if self.state is not SessionState.OPEN or not (reason := self.arq.lost_reason(now)):
            return False
        self.lost_reason = reason
        self.state = SessionState.LOST
        return True

    def close(self) -> None:
        """End an open session without informing the peer: more input is acknowledged and discarded."""
        if self.state is SessionState.OPEN:
            self.state = SessionState.CLOSED

    # --- receiving ---

    def receive(self, datagram: Datagram, now: float) -> Sequence[bytes]:
        """Process a datagram of this session. Returns the acknowledgements."""
        acks, frames = self.arq.receive(datagram, now, has_room=len(self._input) < self._input_max_bytes)
        if frames and self.state is SessionState.OPEN:
            for kind, payload in frames:
                self._input += frame(kind, payload)
            self._note(frames)
        return acks

    def _note(self, frames: Sequence[Frame]) -> None:
        """Handle new input: a client ends the session after a goodbye."""

    @property
    def has_input(self) -> bool:
        """True if :meth:`read` returns something."""
        return bool(self._input)

    def read(self, size_bytes: int = sys.maxsize) -> bytes:
        """Remove and return encoded frames that arrived in order; the last one may be cut at ``size_bytes``."""
        data = bytes(self._input[:size_bytes])
        del self._input[:size_bytes]
        return data


class UdpClientSession(UdpSession):
    """The side that opens the session. The first frame written is the opening: a username, perhaps with options.

    It sends pings, so the answers (PONG) are in the input. Read the input after each datagram: a client has no limit.
    """

    __slots__ = ("_handshake", "_has_probed", "_ping_seconds", "_probe_seconds", "_written_at")

    def __init__(self, now: float, *, ping_seconds: float = PING_SECONDS, probe_seconds: float = PROBE_SECONDS) -> None:
        super().__init__(NO_SESSION, now)
        self.state = SessionState.OPENING
        self._ping_seconds = ping_seconds
        self._probe_seconds = probe_seconds
        # Begins with the first frame.
        self._handshake: UdpHandshake | None = None
        # Time of the last write or ping.
        self._written_at = now
        # True if the existence of the session was tested since the last datagram.
        self._has_probed = False

    def write(self, data: bytes, now: float) -> Sequence[bytes]:
        """Queue encoded frames, as in a UdpSession. The frames after the opening wait until the session is open."""
        frames = self._frames.split(data)
        if self._handshake is None and frames:
            (_, text), *frames = frames
            self._handshake = UdpHandshake(text, now)
        self.arq.put(frames)
        self._written_at = now
        return self.datagrams_to_send(now)

    def datagrams_to_send(self, now: float) -> Sequence[bytes]:
        """Check the peer. Returns the datagrams to send now, with pings and probes; none after the end."""
        if self.state is SessionState.OPENING and self._handshake is not None:
            return self._handshake.datagrams_to_send(now)
        if self.state is not SessionState.OPEN or self.check_peer(now):
            return []
        if now >= self._written_at + self._ping_seconds:
            self.arq.put([_PING])
            self._written_at = now
        waiting_seconds = min(self.arq.silence_so_far(now), now - self._written_at)
        if waiting_seconds >= self._probe_seconds and not self._has_probed and self.arq.unacknowledged_bytes:
            self._has_probed = True
            self.arq.put([_PROBE])
        return self.arq.datagrams_to_send(now)

    @property
    def next_check_at(self) -> float:
        """The time of the next ``datagrams_to_send``."""
        if self.state is SessionState.OPENING:
            return math.inf if self._handshake is None else self._handshake.next_check_at
        return min(self.arq.next_check_at, self._written_at + self._ping_seconds)

    def receive(self, datagram: Datagram, now: float) -> Sequence[bytes]:
        """Process a datagram of the server. Datagrams of other sessions are ignored."""
        if self.state is SessionState.OPENING:
            reply = self._handshake.handle_reply(datagram, now) if self._handshake is not None else None
            if isinstance(reply, bytes):
                self._input += frame(COMMAND, reply)
                self.state = SessionState.REJECTED
            if not isinstance(reply, int):
                return self.datagrams_to_send(now)  # after a cookie, the next request
            self.arq.session = reply
            self.state = SessionState.OPEN
            self._written_at = now
        if datagram.session != self.arq.session or self.state is not SessionState.OPEN:
            return []
        is_outside_session = datagram.sequence == 0 and datagram.kind == COMMAND
        if is_outside_session and (datagram.payload + b" ").startswith(_NO_SESSION + b" "):
            self.state = SessionState.UNKNOWN
            return []
        self._has_probed = False
        acks = super().receive(datagram, now)
        return [*acks] * _GOODBYE_ACKS if self.is_over else acks

    def _note(self, frames: Sequence[Frame]) -> None:
        for kind, payload in frames:
            if kind == COMMAND and payload.split(b" ", 1)[0] == _GOODBYE:
                self.state = SessionState.CLOSED
