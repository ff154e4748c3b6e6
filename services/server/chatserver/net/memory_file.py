"""A growing file in memory, addressed by positions; old data is discarded.

The file consists of segments of equal size, because the system can free a file in memory from its end only. One thread
appends, and one thread reads and discards. The caller ensures that data is read only after it was written.

A segment is a descriptor, from which the kernel can send. If there is no free one, or the file has its maximum, it is a
bytearray.
"""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

# Segment size: a send never crosses the end of a segment, and data is discarded in whole segments.
SEGMENT_BYTES = 2 * 1024 * 1024
# Maximum segments opened in advance: later there may be no free descriptor, and all connections need the segments.
_SPARE_MAX = 16


def open_unnamed_file() -> int:
    """A descriptor of a temporary file without a name. Raises OSError."""
    with tempfile.TemporaryFile(buffering=0) as file:
        return os.dup(file.fileno())


def open_memory() -> int:
    """A descriptor of a file in memory, or of an unnamed file if the system has none. Raises OSError."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("chat stream", os.MFD_CLOEXEC)
    return open_unnamed_file()


class MemoryFile:
    """Bytes in files that the kernel can send from: all connections share them, and nothing is copied per socket.

    ``kept_bytes`` is the expected size; the descriptors for that size are opened at once. With 0 none are.
    """

    def __init__(
        self,
        kept_bytes: int = 0,
        segment_bytes: int = SEGMENT_BYTES,
        open_segment: Callable[[], int] = open_memory,
        pwrite: Callable[[int, memoryview, int], int] = os.pwrite,
        descriptors_max: int = sys.maxsize,
    ) -> None:
        """Segments beyond ``descriptors_max`` have no descriptor."""
        self._segment_bytes = segment_bytes
        self._open_segment = open_segment
        self._pwrite = pwrite
        self._descriptors_max = descriptors_max
        # Each segment by its number; segment n begins at position n * segment_bytes.
        self._segments: dict[int, int | bytearray] = {}
        # Segments without data.
        spare = min(kept_bytes // segment_bytes + 2, _SPARE_MAX) if kept_bytes else 0
        self._spare = [open_segment() for _ in range(spare)]
        self._spare_max = max(spare, 1)
        self._oldest = 0
        # The end of the oldest segment.
        self.oldest_end = segment_bytes
        self._end = 0

    def append(self, data: bytes) -> None:
        """Write at the end. For the thread that writes."""
        view = memoryview(data)
        while view:
            number, offset = divmod(self._end, self._segment_bytes)
            if number not in self._segments:
                self._segments[number] = self._take_segment()
            segment, part = self._segments[number], view[: self._segment_bytes - offset]
            if isinstance(segment, int):
                written = self._pwrite(segment, part, offset)
            else:
                written = len(part)
                segment[offset : offset + written] = part
            self._end += written
            view = view[written:]

    def read(self, start: int, end: int) -> bytes:
        """The bytes from start to end. LookupError: they were discarded."""
        parts = []
        while start < end:
            segment, offset, size = self._locate(start, end)
            if isinstance(segment, int):
                parts.append(os.pread(segment, size, offset))
            else:
                parts.append(bytes(segment[offset : offset + size]))
            start += size
        return b"".join(parts)

    def send(self, target: int, start: int, end: int) -> int:
        """Send these bytes to a socket, up to the end of the segment; returns the number of bytes sent.

        LookupError: they were discarded. OSError: from the socket.
        """
        segment, offset, size = self._locate(start, end)
        if isinstance(segment, int):
            return os.sendfile(target, segment, offset, size)
        return os.write(target, memoryview(segment)[offset : offset + size])

    @property
    def oldest_start(self) -> int:
        """The start of the oldest segment."""
        return self.oldest_end - self._segment_bytes

    def discard_before(self, before: int) -> None:
        """Discard the segments that end at or before this position. For the thread that reads."""
        while self.oldest_end <= before:
            segment = self._segments.pop(self._oldest)
            # The kernel keeps the pages of unfinished sends.
            if isinstance(segment, int) and len(self._spare) < self._spare_max:
                os.ftruncate(segment, 0)
                self._spare.append(segment)
            elif isinstance(segment, int):
                os.close(segment)
            self._oldest += 1
            self.oldest_end += self._segment_bytes

    def close(self) -> None:
        """Close all descriptors. No thread may use the file afterwards."""
        for segment in [*self._segments.values(), *self._spare]:
            if isinstance(segment, int):
                os.close(segment)
        self._segments.clear()
        self._spare.clear()

    def _take_segment(self) -> int | bytearray:
        if self._spare:
            return self._spare.pop()
        if sum(isinstance(each, int) for each in [*self._segments.values()]) < self._descriptors_max:
            with suppress(OSError):
                return self._open_segment()
        return bytearray(self._segment_bytes)

    def _locate(self, start: int, end: int) -> tuple[int | bytearray, int, int]:
        """Segment, offset and size of the part of these bytes that lies in the segment of ``start``."""
        number, offset = divmod(start, self._segment_bytes)
        return self._segments[number], offset, min(end - start, self._segment_bytes - offset)
