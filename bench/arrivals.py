"""What arrives: messages are counted, or each of them is timed. Pure."""

from __future__ import annotations

from array import array
from typing import Final

from bench.protocols import MARKER, NUMBER_DIGITS

# Below this, counting byte by byte is as fast as being clever.
_PLAIN_MAX_BYTES: Final = 1_024


class MarkerCount:
    """Counts the markers at the beginning of a buffer.

    Looking at each byte takes as long as everything else together. But a server's messages are mostly equally long: a
    slice with that step has a byte of each message, and if all of these are markers, there can be no other between
    them. Where one is not (an id has got one more digit, an update of who is online came between), all bytes are
    looked at, and the step is found anew.
    """

    def __init__(self, buffer: bytearray) -> None:
        self._buffer = buffer
        # The distance of neighbours, seen in a piece that had no marker elsewhere; 0 when there was none such.
        self._step = 0

    def count(self, size: int) -> int:
        """How many there are in the first ``size`` bytes."""
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


class Delays:
    """The time that each delivery took, from the pieces that came."""

    def __init__(self) -> None:
        # When each message was sent, by its number.
        self.sent_at: list[float] = []
        self.milliseconds = array("d")
        self._rests: dict[int, bytearray] = {}

    def note(self, fd: int, at: float, piece: bytearray) -> None:
        """A piece has come for one receiver; the messages in it are known by their numbers."""
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
