"""ARQ (automatic repeat request): one side of a session over UDP. Pure: no socket, thread, lock or clock.

UDP loses, repeats and reorders datagrams. An Arq at each end delivers frames once and in order (selective repeat).
The rules are those of docs/wire/datagram.md; decision 13 has the reasons for the numbers. Times are seconds of one
monotonic clock, passed in by the caller.

A frame to send has three states:

    waiting       put(): in _waiting, without a number
    in flight     datagrams_to_send(): in _in_flight under the next number; datagrams_to_send() sends it again when
                  resend_at has passed
    acknowledged  receive(ACK): removed from _in_flight

The wait before a resend starts at RESEND_SECONDS and doubles. After RESENDS_MAX resends and one more wait,
lost_reason() reports the peer as lost. It does the same after SILENCE_SECONDS without any datagram. Then the session is
over.

A received number has three states as well:

    unknown    not acknowledged; without room for it (has_room=False) or outside of the window it stays unknown
    early      acknowledged and kept in _early until all numbers before it have arrived
    delivered  below _next_in: returned by receive() once; later copies are only acknowledged again

Why this is correct:

- Once: a number below _next_in or in _early is never stored again. In order: only number _next_in is delivered, and
  _next_in grows by one with it.
- Nothing is lost: a frame is acknowledged only after it is stored, and is in flight until that acknowledgement arrives.
- The windows fit. A new number is less than SEND_WINDOW above the oldest in flight. The receiver has all numbers below
  that one, so its _next_in is no lower, and RECEIVE_WINDOW >= SEND_WINDOW covers every new number.
- _in_flight is ordered by number: numbers are added in order and a resend changes the entry in place. Its first key is
  the oldest in flight.
- 32 bits suffice: both ends stay within one window of each other, so the nearest whole number is the right one.
- _resend_at is never later than the first resend_at in _in_flight. It may be earlier, because an acknowledgement does
  not raise it; then one scan finds nothing and sets it to the exact value.

Callers: only a session (session.py) changes an Arq. The server's UdpTransport holds its lock for all calls except
next_check_at. The UDP listener's thread calls receive() and lost_reason(), the sender's thread put() and
datagrams_to_send(). A client uses one thread.
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

# First retransmission timeout. It doubles with each resend.
RESEND_SECONDS: Final = 0.2
# Resends of one datagram. If the timeout after the last one expires as well, the peer is lost.
RESENDS_MAX: Final = 8
# A peer that sends nothing for this long is lost.
SILENCE_SECONDS: Final = 60.0
# Maximum distance between the newest and the oldest unacknowledged datagram: a socket buffer of the default size holds
# this many of the longest datagrams.
SEND_WINDOW: Final = 64
# Lower limit of the send window. A loss may mean congestion, so each one halves the window (RFC 8085, section 3.1).
_SEND_WINDOW_MIN: Final = 16
# Accepted sequence numbers, from the next expected one. A datagram further ahead is dropped without acknowledgement.
RECEIVE_WINDOW: Final = 128

# Number of datagrams acknowledged twice, from a duplicate on: a duplicate shows that acknowledgements get lost.
_DOUBLE_ACKS: Final = 32

_SEQUENCES: Final = 2**32


class _InFlight:
    """An unacknowledged datagram."""

    __slots__ = ("data", "resend_at", "resends")

    def __init__(self, data: bytes, now: float) -> None:
        self.data = data
        self.resends = 0
        self.resend_at = now + RESEND_SECONDS


class ArqResult(NamedTuple):
    """The result of :meth:`Arq.receive`: acknowledgements to send at once, and the frames that are next in order."""

    acks: Sequence[bytes]
    frames: Sequence[Frame]


_NOTHING: Final = ArqResult([], [])


class Arq:
    """One side of one session. Not thread-safe: the caller holds a lock or uses one thread."""

    def __init__(
        self, session: int, now: float, *, silence_seconds: float = SILENCE_SECONDS, first_number: int = 1
    ) -> None:
        """``first_number`` is the first sequence number of both directions."""
        # A client sets it at the end of the handshake, before anything is sent.
        self.session = session
        self._silence_seconds = silence_seconds
        # Frames that were never sent; unacknowledged datagrams by number, the oldest first.
        self._waiting: deque[Frame] = deque()
        self._in_flight: dict[int, _InFlight] = {}
        # Numbers are unbounded here and modulo 2**32 on the wire.
        self._next_out = first_number
        self._next_in = first_number
        # Frames that arrived before their predecessors, by number.
        self._early: dict[int, Frame] = {}
        # Datagrams that are still to be acknowledged twice, including the last one.
        self._double_acks_left = 0
        self._received_at = now
        # Lower bound of all resend_at in _in_flight.
        self._resend_at = math.inf
        self._window = float(SEND_WINDOW)

    # --- sending ---

    def put(self, frames: Iterable[Frame]) -> None:
        """Queue frames. The caller then calls :meth:`datagrams_to_send` and sends what it returns."""
        self._waiting.extend(frames)

    def datagrams_to_send(self, now: float) -> list[bytes]:
        """The datagrams to send now: resends first, then new ones up to the window. The caller must send them."""
        datagrams = self._resend_overdue(now) if now >= self._resend_at else []
        room = min(self._room(), len(self._waiting))
        if room > 0:
            self._resend_at = min(self._resend_at, now + RESEND_SECONDS)
        for number in range(self._next_out, self._next_out + room):
            kind, payload = self._waiting.popleft()
            entry = _InFlight(datagram_header(kind, self.session, number % _SEQUENCES) + payload, now)
            self._in_flight[number] = entry
            datagrams.append(entry.data)
            self._next_out = number + 1
        return datagrams

    @property
    def may_send(self) -> bool:
        """True if the window has room for a new datagram."""
        return self._room() > 0

    def _room(self) -> int:
        """The room in the window; negative after the window has shrunk."""
        oldest = next(iter(self._in_flight), self._next_out)
        return math.ceil(self._window) - (self._next_out - oldest)

    @property
    def has_unsent(self) -> bool:
        """True if there are frames that were never sent."""
        return bool(self._waiting)

    @property
    def unacknowledged_bytes(self) -> int:
        """The bytes that the peer has not acknowledged: datagrams with headers, and payloads of waiting frames."""
        sent_bytes = sum(len(entry.data) for entry in self._in_flight.values())
        return sent_bytes + sum(len(payload) for _, payload in self._waiting)

    @property
    def acknowledged(self) -> int:
        """The number of frames, from the first one, that the peer has acknowledged without a gap."""
        return next(iter(self._in_flight), self._next_out) - 1

    @property
    def frames_queued(self) -> int:
        """The number of frames that were ever put."""
        return self._next_out - 1 + len(self._waiting)

    @property
    def next_check_at(self) -> float:
        """Before this time nothing needs to be sent again, and the peer isn't lost."""
        # The UDP listener reads this without the transport's lock, as a hint. Both attributes are replaced as a whole.
        # _received_at is written by the listener's own thread. A stale _resend_at costs one scan too early or one tick
        # of delay: lost_reason() and datagrams_to_send() decide, under the lock.
        return min(self._resend_at, self._received_at + self._silence_seconds)

    def lost_reason(self, now: float) -> str:
        """The reason why the peer is lost; empty while it isn't."""
        if now - self._received_at >= self._silence_seconds:
            return f"nothing was heard for {self._silence_seconds:g} s"
        if any(each.resends == RESENDS_MAX and now >= each.resend_at for each in self._in_flight.values()):
            return f"a datagram was sent {RESENDS_MAX + 1} times without an acknowledgement"
        return ""

    def silence_so_far(self, now: float) -> float:
        """Seconds since the last datagram of the peer."""
        return now - self._received_at

    def _resend_overdue(self, now: float) -> list[bytes]:
        overdue = [each for each in self._in_flight.values() if now >= each.resend_at and each.resends < RESENDS_MAX]
        for entry in overdue:
            entry.resends += 1
            entry.resend_at = now + RESEND_SECONDS * 2**entry.resends
        if overdue:
            self._window = max(_SEND_WINDOW_MIN, self._window / 2)
        self._resend_at = min((each.resend_at for each in self._in_flight.values()), default=math.inf)
        return [entry.data for entry in overdue]

    # --- receiving ---

    def receive(self, datagram: Datagram, now: float, *, has_room: bool = True) -> ArqResult:
        """Process a datagram of this session. The caller must send ``acks`` at once and use ``frames`` in order.

        Without room a new frame is dropped and not acknowledged, so the peer sends it again.
        """
        self._received_at = now
        if datagram.kind == ACK:
            self._remove_acknowledged(self._unwrap(datagram.sequence, self._next_out))
            return _NOTHING
        number = self._unwrap(datagram.sequence, self._next_in)
        if not 0 < number < self._next_in + RECEIVE_WINDOW:
            return _NOTHING
        is_known = number < self._next_in or number in self._early
        if not is_known and not has_room:
            return _NOTHING
        # A duplicate suggests that an acknowledgement was lost. It is less likely that two are lost.
        self._double_acks_left = _DOUBLE_ACKS if is_known else max(0, self._double_acks_left - 1)
        acks = [datagram_header(ACK, self.session, datagram.sequence)] * (2 if self._double_acks_left else 1)
        if is_known:
            return ArqResult(acks, [])
        self._early[number] = (datagram.kind, datagram.payload)
        frames = []
        while (frame := self._early.pop(self._next_in, None)) is not None:
            frames.append(frame)
            self._next_in += 1
        return ArqResult(acks, frames)

    def _remove_acknowledged(self, number: int) -> None:
        """Remove an acknowledged datagram; the window grows by one for each window that is acknowledged."""
        if self._in_flight.pop(number, None) is not None:
            self._window = min(SEND_WINDOW, self._window + 1 / self._window)

    @staticmethod
    def _unwrap(sequence: int, near: int) -> int:
        """The unbounded number nearest to ``near`` that has this sequence number (RFC 1982, serial numbers)."""
        ahead = (sequence - near) % _SEQUENCES
        return near + (ahead if ahead < _SEQUENCES // 2 else ahead - _SEQUENCES)
