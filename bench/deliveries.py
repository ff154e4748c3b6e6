"""Counts deliveries, or measures the time of each. No sockets, no clock."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Final

from bench.protocols import MARKER, NUMBER_DIGITS

if TYPE_CHECKING:
    from collections.abc import Sequence

# Maximum size of pieces that are counted byte by byte: for small pieces the step does not pay.
_PLAIN_MAX_BYTES: Final = 1_024
# Header of a TLS record, which ends with the length of the rest, and the bytes of the rest in TLS 1.3 that are not
# data: a type and a tag (RFC 8446, section 5.2).
_HEADER_BYTES: Final = 5
_TAG_BYTES: Final = 17


class MarkerCounter:
    """Counts the markers in the first bytes of a buffer.

    Checking each byte takes as long as all the rest of the load. But most messages of a server have the same length. A
    slice with that step takes one byte of each message. If all these bytes are markers, there is no other marker
    between them. If one byte is not a marker (an id has one more digit, or a users event is between two messages), all
    bytes are checked, and the step is measured again.
    """

    def __init__(self, buffer: bytearray) -> None:
        self._buffer = buffer
        # Distance of adjacent markers in the last piece; 0 if the distances were not equal.
        self._step = 0

    def count(self, size: int) -> int:
        """The markers in the first ``size`` bytes."""
        buffer = self._buffer
        if size < _PLAIN_MAX_BYTES or not self._step:
            return self._count_all(size)
        first = buffer.find(MARKER, 0, size)
        column = buffer[first : size : self._step]
        found = column.count(MARKER)
        if first < 0 or found < len(column):
            return self._count_all(size)
        return found + buffer.count(MARKER, first + (found - 1) * self._step + 1, size)

    def _count_all(self, size: int) -> int:
        found = self._buffer.count(MARKER, 0, size)
        first = self._buffer.find(MARKER, 0, size)
        step = self._buffer.find(MARKER, first + 1, size) - first
        is_even = found > 1 and self._buffer[first:size:step].count(MARKER) == found
        self._step = step if is_even else 0
        return found


class RecordCounter:
    """Counts the plain bytes in complete TLS records, without decrypting them."""

    def __init__(self, buffer: bytearray) -> None:
        self._buffer = buffer
        # By connection: the begin of a header; or the bytes that its record lacks, and the record's plain bytes.
        self._open: dict[int, tuple[bytes, int, int]] = {}

    def count(self, fd: int, size: int) -> int:
        """The plain bytes of the records of the connection ``fd`` that end in the first ``size`` bytes."""
        header, missing, plain = self._open.get(fd, (b"", 0, 0))
        position = found = 0
        while position < size:
            if not missing:
                begin, position = position, min(size, position + _HEADER_BYTES - len(header))
                header += self._buffer[begin:position]
                if len(header) < _HEADER_BYTES:
                    break
                missing = int.from_bytes(header[-2:], "big")
                header, plain = b"", missing - _TAG_BYTES
            step = min(missing, size - position)
            position, missing = position + step, missing - step
            if not missing:
                found += plain
        self._open[fd] = header, missing, plain
        return found


class SampledCounter:
    """Counts the deliveries to receivers of which only the ``sample`` is decrypted.

    All get the same bytes. So the other receivers have as many messages for their bytes as the sample has, to within a
    message while the messages are on their way, and exactly when all have the same number of bytes.
    """

    def __init__(self, buffer: bytearray, sample: int) -> None:
        self._sample = sample
        self._markers = MarkerCounter(buffer)
        self._records = RecordCounter(buffer)
        self._sample_markers = self._sample_bytes = self._other_bytes = self._counted = 0

    def count(self, fd: int, size: int) -> int:
        """The change of the number of deliveries, after the receiver ``fd`` got the first ``size`` bytes."""
        if fd == self._sample:
            self._sample_markers += self._markers.count(size)
            self._sample_bytes += size
        else:
            self._other_bytes += self._records.count(fd, size)
        before = self._counted
        self._counted = self._sample_markers
        if self._sample_bytes:
            self._counted += self._other_bytes * self._sample_markers // self._sample_bytes
        return self._counted - before


class DeliveryTimes:
    """Measures the time of each delivery from the pieces that the receivers got."""

    def __init__(self) -> None:
        # The time at which each message was sent, by its number.
        self.sent_at: list[float] = []
        self.milliseconds = array("d")
        # The last piece of a receiver, from a marker on, if the message's number is incomplete.
        self._rests: dict[int, bytearray] = {}

    def add(self, fd: int, at: float, piece: bytearray) -> None:
        """Add the piece that the receiver ``fd`` got at the time ``at``."""
        if fd in self._rests:
            piece = self._rests.pop(fd) + piece
        begin = piece.find(MARKER)
        while begin >= 0:
            end = begin + 1 + NUMBER_DIGITS
            if len(piece) < end:
                self._rests[fd] = piece[begin:]
                return
            self.milliseconds.append((at - self.sent_at[int(piece[begin + 1 : end])]) * 1_000)
            begin = piece.find(MARKER, end)


class ConfirmationTimes:
    """Measures the time of each confirmation from the pieces that the senders got.

    Message ``n`` is of sender ``n % len(senders)``. A server confirms the messages of a sender in their order.
    """

    def __init__(self, marker: bytes, senders: Sequence[int], sent_at: Sequence[float]) -> None:
        self._marker = marker
        self._step = len(senders)
        self._sent_at = sent_at
        # The number of the next message of each sender, and the end of its last piece.
        self._next = {fd: number for number, fd in enumerate(senders)}
        self._rests = dict.fromkeys(senders, b"")
        self.milliseconds = array("d")

    def add(self, fd: int, at: float, piece: bytearray) -> None:
        """Add the piece that the sender ``fd`` got at the time ``at``."""
        *confirmed, rest = (self._rests[fd] + piece).split(self._marker)
        for _ in confirmed:
            self.milliseconds.append((at - self._sent_at[self._next[fd]]) * 1_000)
            self._next[fd] += self._step
        self._rests[fd] = rest[-len(self._marker) :]
