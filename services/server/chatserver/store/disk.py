"""The reserve of the disk: bytes that the server keeps free, because a full disk would stop it."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_log = structlog.get_logger()

# Interval of the readings: a server writes 100 MB in this time at most.
_READING_SECONDS = 1.0
# Free space from which on the reserve counts as restored, as a multiple of it: the state must not change each second.
_RESTORED_FACTOR = 1.05


class DiskReserve:
    """Tells if the reserve is used up. For the journal's thread; ``is_used`` may be read by any."""

    def __init__(
        self,
        folder: Path,
        reserve_bytes: int,
        statvfs: Callable[[Path], os.statvfs_result] = os.statvfs,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``reserve_bytes`` 0: no reserve."""
        self._folder = folder
        self._reserve_bytes = reserve_bytes
        self._statvfs = statvfs
        self._clock = clock
        self._read_at = -_READING_SECONDS
        self.is_used = False

    def check(self) -> bool:
        """Return ``is_used``, from a reading that is at most a second old."""
        now = self._clock()
        if self._reserve_bytes and now - self._read_at >= _READING_SECONDS:
            self._read_at = now
            with suppress(OSError):  # the next write reports the error
                found = self._statvfs(self._folder)
                self._note(found.f_bavail * found.f_frsize)
        return self.is_used

    def _note(self, free_bytes: int) -> None:
        if not self.is_used and free_bytes < self._reserve_bytes:
            self.is_used = True
            _log.error("disk reserve used", free_bytes=free_bytes, reserve_bytes=self._reserve_bytes)
        elif self.is_used and free_bytes >= _RESTORED_FACTOR * self._reserve_bytes:
            self.is_used = False
            _log.info("disk reserve restored", free_bytes=free_bytes, reserve_bytes=self._reserve_bytes)
