"""How much memory is left, so that running out of it is a refusal and not the end.

Code in C that is given no memory may crash the whole process: msgspec's encoder does, and others may. So what costs
much is claimed first, and refused while memory is short: new connections, and answers that hold messages.
"""

from __future__ import annotations

import os
import resource
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

# Memory is short if less than this part of a limit is left, but for large limits at less than so many bytes. It is for
# all that is not claimed: what waits for the disk (32 MiB), hashes (19 MiB each), answers of a few messages.
_MARGIN_PART: Final = 8
_MARGIN_MAX_BYTES: Final = 64 * 1024 * 1024
# How old a reading may be: one takes 40 µs, and more in a control group.
READING_SECONDS: Final = 0.1


class ShortOfMemoryError(Exception):
    """So much memory can't be spared now."""


class Memory:
    """Says whether there is memory for something. For any thread.

    What was claimed since the last reading but one is taken as used: it may not be in the reading yet.
    """

    def __init__(self, read: Callable[[], int | None], clock: Callable[[], float]) -> None:
        """``read`` returns how many bytes are left above the margin, None if that is not known: see SystemMemory."""
        self._read = read
        self._clock = clock
        # Guards everything below. It is held while the system is asked, which needs no disk.
        self._lock = threading.Lock()
        self._spare: int | None = None
        self._read_at = -READING_SECONDS
        self._claimed = 0
        self._claimed_before = 0

    def claim(self, size_bytes: int) -> None:
        """Say that so much is about to be used. Raises ShortOfMemoryError if there is not so much to spare."""
        with self._lock:
            if self._left() < size_bytes:
                raise ShortOfMemoryError
            self._claimed += size_bytes

    def is_short(self) -> bool:
        """True if there is nothing to spare."""
        with self._lock:
            return self._left() <= 0

    def _left(self) -> float:
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
    """The memory of this process, by the least of its limits: address space, control group (version 2), machine."""

    def __init__(self, groups: Sequence[Path] | None = None) -> None:
        """``groups`` are the folders of the control group and of those above it; by default they are looked up."""
        self._groups = limited_groups() if groups is None else groups

    def spare_bytes(self) -> int | None:
        """How much is left above the margin; negative if memory is short. None if the system does not tell."""
        spare: int | None = None
        for free, limit in self._readings():
            left = free - min(limit // _MARGIN_PART, _MARGIN_MAX_BYTES)
            spare = left if spare is None else min(left, spare)
        return spare

    def _readings(self) -> Iterator[tuple[int, int]]:
        """What is free of each limit, and the limit."""
        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        with suppress(OSError, ValueError):
            if limit != resource.RLIM_INFINITY:
                pages = int(Path("/proc/self/statm").read_bytes().split()[0])
                yield limit - pages * resource.getpagesize(), limit
        for group in self._groups:
            with suppress(OSError, ValueError):  # ValueError: "max" is no number
                limit = int((group / "memory.max").read_bytes())
                used = int((group / "memory.current").read_bytes())
                cache = _fields(group / "memory.stat", (b"active_file", b"inactive_file"))
                yield limit - used + sum(cache), limit
        with suppress(OSError, ValueError):
            total, available = _fields(Path("/proc/meminfo"), (b"MemTotal:", b"MemAvailable:"))
            yield available * 1024, total * 1024


def no_limit(_: int) -> None:
    """In the place of :meth:`Memory.claim`: there is memory for everything."""


def limited_groups(
    root: Path = Path("/sys/fs/cgroup"), memberships: Path = Path("/proc/self/cgroup")
) -> Sequence[Path]:
    """The folders of this process's control group and of those above it: each may have a limit."""
    with suppress(OSError):
        for line in memberships.read_text().splitlines():
            if line.startswith("0::/"):
                group = root / os.path.normpath(line[4:] or ".")
                return [each for each in (group, *group.parents) if (each / "memory.max").exists()]
    return ()


def _fields(path: Path, names: tuple[bytes, ...]) -> Sequence[int]:
    """The number after each of these words, which begin a line. ValueError: not all are there."""
    found = dict(line.split(maxsplit=2)[:2] for line in path.read_bytes().splitlines())
    try:
        return [int(found[name]) for name in names]
    except KeyError as error:
        raise ValueError(str(path)) from error


def system_memory() -> Memory:
    """That of this process."""
    return Memory(SystemMemory().spare_bytes, time.monotonic)
