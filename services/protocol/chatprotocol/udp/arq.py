"""ARQ (automatic repeat request): one side of a session over UDP, which loses, repeats and reorders. Pure.

Frames go in at one side and come out at the other, each once and in order. Every datagram has a sequence number and is
acknowledged by itself (selective repeat); what is not acknowledged is sent again. Times are seconds of any one clock
that does not go back. The rules are those of docs/wire/datagram.md.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

from chatprotocol.udp.packet import ACK, datagram_header

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from chatprotocol.udp.packet import Datagram

# The kind and the payload of one datagram.
Frame = tuple[int, bytes]

# A datagram that is not acknowledged is sent again after this time, then after twice the time, and so on.
RESEND_SECONDS: Final = 0.2
# How often. When twice the last time has passed as well, the peer is lost.
RESENDS_MAX: Final = 8
# Nothing was heard for so long: the peer is lost.
SILENCE_SECONDS: Final = 60.0
# How far the newest datagram may be ahead of the oldest that is not acknowledged. The room that systems give a socket
# by default holds so many of the longest ones.
SEND_WINDOW: Final = 64
# What is lost may be lost because there was too much of it: then fewer are sent at a time (RFC 8085, section 3.1).
_SEND_WINDOW_MIN: Final = 16
# A datagram is taken if it is the next one or one of so many together with that; what is further ahead is as good as
# lost.
RECEIVE_WINDOW: Final = 128

# So many datagrams are acknowledged twice, beginning with one that was there already.
_DOUBLED: Final = 32

_SEQUENCES: Final = 2**32


class _Flight:
    """A datagram that was sent and is not acknowledged yet."""

    __slots__ = ("data", "resend_at", "resends")

    def __init__(self, data: bytes, now: float) -> None:
        self.data = data
        self.resends = 0
        self.resend_at = now + RESEND_SECONDS


class Received(NamedTuple):
    """What follows from a datagram that has come: what to send at once, and the frames that are next in order."""

    acks: Sequence[bytes]
    frames: Sequence[Frame]


_NOTHING: Final = Received([], [])


class Arq:
    """One side of one session. Not to be used by several threads at once."""

    __slots__ = (
        "_doubled",
        "_early",
        "_flying",
        "_heard_at",
        "_next_in",
        "_next_out",
        "_resend_at",
        "_waiting",
        "_window",
        "session",
    )

    def __init__(self, session: int, now: float) -> None:
        self.session = session
        # What is to be sent for the first time; what was sent, by its number, the oldest first.
        self._waiting: deque[Frame] = deque()
        self._flying: dict[int, _Flight] = {}
        # Numbers are whole here; on the wire they are cut to 32 bits.
        self._next_out = 1
        self._next_in = 1
        # What has come before its time, by its number.
        self._early: dict[int, Frame] = {}
        # So many acknowledgements are still to be said twice.
        self._doubled = 0
        self._heard_at = now
        # Nothing is to be sent again before this time.
        self._resend_at = math.inf
        self._window = float(SEND_WINDOW)

    # --- sending ---

    def put(self, frames: Iterable[Frame]) -> None:
        """Frames to be sent behind all others. They go out with the next :meth:`due`."""
        self._waiting.extend(frames)

    def due(self, now: float) -> list[bytes]:
        """The datagrams that are to be sent now: what is to be sent again, and what is new, as far as it may go out."""
        datagrams = self._take_overdue(now) if now >= self._resend_at else []
        room = min(self._room(), len(self._waiting))
        if room > 0:
            self._resend_at = min(self._resend_at, now + RESEND_SECONDS)
        for number in range(self._next_out, self._next_out + room):
            kind, payload = self._waiting.popleft()
            flight = _Flight(datagram_header(kind, self.session, number % _SEQUENCES) + payload, now)
            self._flying[number] = flight
            datagrams.append(flight.data)
            self._next_out = number + 1
        return datagrams

    @property
    def may_send(self) -> bool:
        """Would something new go out at once?"""
        return self._room() > 0

    def _room(self) -> int:
        """How many new ones would go out."""
        oldest = next(iter(self._flying), self._next_out)
        return math.ceil(self._window) - (self._next_out - oldest)

    @property
    def is_waiting(self) -> bool:
        """Is there something that was not sent even once?"""
        return bool(self._waiting)

    @property
    def unacknowledged_bytes(self) -> int:
        """How much the peer has perhaps not got yet, headers included where it was sent."""
        sent_bytes = sum(len(flight.data) for flight in self._flying.values())
        return sent_bytes + sum(len(payload) for _, payload in self._waiting)

    @property
    def acknowledged(self) -> int:
        """How many frames, counted from the first one, the peer has without a gap."""
        return next(iter(self._flying), self._next_out) - 1

    @property
    def put_in_all(self) -> int:
        """How many frames were ever put."""
        return self._next_out - 1 + len(self._waiting)

    @property
    def look_at(self) -> float:
        """Before this time neither is anything to be sent again, nor is the peer lost."""
        return min(self._resend_at, self._heard_at + SILENCE_SECONDS)

    def why_lost(self, now: float) -> str:
        """Why nothing more can be said to the peer; nothing while it can."""
        if now - self._heard_at >= SILENCE_SECONDS:
            return f"nothing was heard for {SILENCE_SECONDS:g} s"
        if any(each.resends == RESENDS_MAX and now >= each.resend_at for each in self._flying.values()):
            return f"a datagram was not acknowledged, and was sent {RESENDS_MAX + 1} times"
        return ""

    def silent_seconds(self, now: float) -> float:
        """How long nothing was heard of the peer."""
        return now - self._heard_at

    def _take_overdue(self, now: float) -> list[bytes]:
        overdue = [each for each in self._flying.values() if now >= each.resend_at and each.resends < RESENDS_MAX]
        for flight in overdue:
            flight.resends += 1
            flight.resend_at = now + RESEND_SECONDS * 2**flight.resends
        if overdue:
            self._window = max(_SEND_WINDOW_MIN, self._window / 2)
        self._resend_at = min((each.resend_at for each in self._flying.values()), default=math.inf)
        return [flight.data for flight in overdue]

    # --- receiving ---

    def receive(self, datagram: Datagram, now: float, *, has_room: bool = True) -> Received:
        """A datagram of this session has come. Where there is no room for more, what is new is as good as lost."""
        self._heard_at = now
        if datagram.kind == ACK:
            self._settle(self._whole(datagram.sequence, self._next_out))
            return _NOTHING
        number = self._whole(datagram.sequence, self._next_in)
        if not 0 < number < self._next_in + RECEIVE_WINDOW:
            return _NOTHING
        is_known = number < self._next_in or number in self._early
        if not is_known and not has_room:
            return _NOTHING
        # What comes again does so because its acknowledgement was lost, perhaps: two are not lost so easily.
        self._doubled = _DOUBLED if is_known else max(0, self._doubled - 1)
        acks = [datagram_header(ACK, self.session, datagram.sequence)] * (2 if self._doubled else 1)
        if is_known:
            return Received(acks, [])
        self._early[number] = (datagram.kind, datagram.payload)
        frames = []
        while (frame := self._early.pop(self._next_in, None)) is not None:
            frames.append(frame)
            self._next_in += 1
        return Received(acks, frames)

    def _settle(self, number: int) -> None:
        """The peer has this one."""
        if self._flying.pop(number, None) is not None:
            self._window = min(SEND_WINDOW, self._window + 1 / self._window)

    @staticmethod
    def _whole(sequence: int, near: int) -> int:
        """The whole number that is cut to this sequence number, and is the nearest one (RFC 1982, serial numbers)."""
        ahead = (sequence - near) % _SEQUENCES
        return near + (ahead if ahead < _SEQUENCES // 2 else ahead - _SEQUENCES)
