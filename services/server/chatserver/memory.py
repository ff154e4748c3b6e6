"""Memory accounting: requests are rejected while memory is short, before an allocation fails.

C code whose allocation fails may crash the whole process: msgspec's encoder does, and others may. So large uses claim
their memory first and are rejected while memory is short: new connections, and answers with messages.
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

# Margin below which memory is short: an eighth of the limit, at most 64 MiB. It covers unclaimed memory: messages that
# wait for the disk (32 MiB), hashes (19 MiB each), answers of a few messages.
_MARGIN_DIVISOR: Final = 8
_MARGIN_MAX_BYTES: Final = 64 * 1024 * 1024
# Maximum age of a reading: a reading takes 40 µs, and more in a control group.
READING_SECONDS: Final = 0.1


class ShortOfMemoryError(Exception):
    """The claimed memory is not available now."""


class Memory:
    """Grants claims of memory. For any thread.

    Claims since the reading before the last one count as used, because the last reading may not include them yet.
    """

    def __init__(self, read: Callable[[], int | None], clock: Callable[[], float]) -> None:
        """``read`` returns the bytes left above the margin, None if unknown: see SystemMemory.spare_bytes."""
        self._read = read
        self._clock = clock
        # Guards all attributes below. Held during a reading, which uses /proc and /sys but no disk.
        self._lock = threading.Lock()
        self._spare: int | None = None
        self._read_at = -READING_SECONDS
        self._claimed = 0
        self._claimed_before = 0

    def claim(self, size_bytes: int) -> None:
        """Reserve memory that is about to be allocated. Raises ShortOfMemoryError if it is not available."""
        with self._lock:
            if self._available_bytes() < size_bytes:
                raise ShortOfMemoryError
            self._claimed += size_bytes

    def is_short(self) -> bool:
        """True if no memory is left above the margin."""
        with self._lock:
            return self._available_bytes() <= 0

    def _available_bytes(self) -> float:
        now = self._clock()
        if now - self._read_at >= READING_SECONDS:
            self._read_at = now
            try:
                self._spare = self._read()
            except MemoryError:
                self._spare = 0
            self._claimed_before, self._claimed = self._claimed, 0
        return float("inf") if self._spare is None else self._spare - self._claimed - self._claimed_before


class SystemMemory:
    """The memory of this process under its tightest limit: address space, control group (version 2) or machine."""

    def __init__(self, groups: Sequence[Path] | None = None) -> None:
        """``groups``: folders of the control group and its ancestors; by default ``limited_groups()``."""
        self._groups = limited_groups() if groups is None else groups

    def spare_bytes(self) -> int | None:
        """Bytes left above the margin; negative if memory is short. None if no limit can be read."""
        spare: int | None = None
        for free, limit in self._readings():
            left = free - min(limit // _MARGIN_DIVISOR, _MARGIN_MAX_BYTES)
            spare = left if spare is None else min(left, spare)
        return spare

    def limit_bytes(self) -> int | None:
        """The tightest limit; None if none can be read."""
        return min((limit for _, limit in self._readings()), default=None)

    def _readings(self) -> Iterator[tuple[int, int]]:
        """For each limit: the free bytes, and the limit in bytes."""
        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        with suppress(OSError, ValueError):
            if limit != resource.RLIM_INFINITY:
                pages = int(Path("/proc/self/statm").read_bytes().split()[0])
                yield limit - pages * resource.getpagesize(), limit
        for group in self._groups:
            with suppress(OSError, ValueError):  # ValueError: the limit is "max"
                limit = int((group / "memory.max").read_bytes())
                used = int((group / "memory.current").read_bytes())
                cache = _fields(group / "memory.stat", (b"active_file", b"inactive_file"))
                yield limit - used + sum(cache), limit
        with suppress(OSError, ValueError):
            total, available = _fields(Path("/proc/meminfo"), (b"MemTotal:", b"MemAvailable:"))
            yield available * 1024, total * 1024


def trim_heap() -> None:
    """Give free memory inside the heap back to the system. It takes 1 ms, or 40 ms for 700 MB: call it rarely."""
    with suppress(AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def no_limit(_: int) -> None:
    """A replacement for :meth:`Memory.claim` that grants everything."""


def limited_groups(
    root: Path = Path("/sys/fs/cgroup"), memberships: Path = Path("/proc/self/cgroup")
) -> Sequence[Path]:
    """Folders of this process's control group and its ancestors that have a memory limit file."""
    with suppress(OSError):
        for line in memberships.read_text().splitlines():
            if line.startswith("0::/"):
                group = root / os.path.normpath(line[4:] or ".")
                return [each for each in (group, *group.parents) if (each / "memory.max").exists()]
    return ()


def _fields(path: Path, names: tuple[bytes, ...]) -> Sequence[int]:
    """The numbers in the lines that begin with these names. Raises ValueError if a name is missing, OSError."""
    found = dict(line.split(maxsplit=2)[:2] for line in path.read_bytes().splitlines())
    try:
        return [int(found[name]) for name in names]
    except KeyError as error:
        raise ValueError(str(path)) from error


def share_of_memory(percent: int) -> int:
    """So much of the memory that this process may have, in bytes; sys.maxsize if no limit can be read."""
    limit_bytes = SystemMemory().limit_bytes()
    return sys.maxsize if limit_bytes is None else limit_bytes * percent // 100


def system_memory() -> Memory:
    """The Memory of this process, with the real clock."""
    return Memory(SystemMemory().spare_bytes, time.monotonic)
