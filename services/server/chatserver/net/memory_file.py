"""A file in memory that only grows at its end, by positions that only grow; what is old is forgotten."""

from __future__ import annotations

import os
import tempfile

# A piece of it never reaches over the end of a segment, and is forgotten no sooner than its whole segment.
SEGMENT_BYTES = 2 * 1024 * 1024
# Later there may be no descriptor left, and everybody who is in needs these. More than that are opened when needed.
_SPARE_MAX = 16


class MemoryFile:
    """Bytes that the kernel can send from, so that a thousand sockets share them and nothing is copied for each.

    It is kept in segments, for a file in memory can be shortened at its end only. One thread writes, and one reads and
    forgets; the caller sees to it that what is read was written before.
    """

    def __init__(self, kept_bytes: int = 0) -> None:
        """``kept_bytes`` is about how much there will be at once: the descriptors for that are taken at the start."""
        # The descriptor of each segment by its number: positions from number * SEGMENT_BYTES on.
        self._segments: dict[int, int] = {}
        self._spare = [_open_in_memory() for _ in range(min(kept_bytes // SEGMENT_BYTES + 2, _SPARE_MAX))]
        self._oldest = 0
        self._end = 0

    def append(self, data: bytes) -> None:
        """Write at the end. For the one thread that writes."""
        view = memoryview(data)
        while view:
            number, offset = divmod(self._end, SEGMENT_BYTES)
            if number not in self._segments:
                self._segments[number] = self._spare.pop() if self._spare else _open_in_memory()
            written = os.pwrite(self._segments[number], view[: SEGMENT_BYTES - offset], offset)
            self._end += written
            view = view[written:]

    def read(self, start: int, end: int) -> bytes:
        """The bytes from start to end. LookupError when they were forgotten."""
        parts = []
        while start < end:
            descriptor, offset, size = self._locate(start, end)
            parts.append(os.pread(descriptor, size, offset))
            start += size
        return b"".join(parts)

    def send(self, target: int, start: int, end: int) -> int:
        """Let the kernel send of these bytes what a socket takes now, up to the end of the segment; how many it took.

        LookupError when they were forgotten; OSErrors are the socket's.
        """
        descriptor, offset, size = self._locate(start, end)
        return os.sendfile(target, descriptor, offset, size)

    def forget(self, before: int) -> None:
        """Give back the segments that lie wholly before this position. For the one thread that reads."""
        while (self._oldest + 1) * SEGMENT_BYTES <= before:
            descriptor = self._segments.pop(self._oldest)
            # Pages that the kernel is still sending from live on without the file.
            os.ftruncate(descriptor, 0)
            self._spare.append(descriptor)
            self._oldest += 1

    def close(self) -> None:
        """Give back everything. Nobody may use it any more."""
        for descriptor in [*self._segments.values(), *self._spare]:
            os.close(descriptor)
        self._segments.clear()
        self._spare.clear()

    def _locate(self, start: int, end: int) -> tuple[int, int, int]:
        """Where the first of these bytes are: descriptor, offset in it, and how many are there."""
        number, offset = divmod(start, SEGMENT_BYTES)
        return self._segments[number], offset, min(end - start, SEGMENT_BYTES - offset)


def _open_in_memory() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("chat stream", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile(buffering=0) as file:
        return os.dup(file.fileno())
