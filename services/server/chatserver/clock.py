"""The timestamps of messages: the system clock, which may be set while the server runs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable

_log = structlog.get_logger()

# Largest backward step that is hidden: timestamps repeat until the clock has caught up, because a history whose times
# run backwards looks broken. A larger step means that the clock was or is wrong, and is not hidden. The order of
# messages does not depend on the clock: they are ordered by id.
STEP_MAX_MS: Final = 5_000


def wall_ms() -> int:
    """Milliseconds since 1970 UTC by the system clock."""
    return time.time_ns() // 1_000_000


def steady_ms() -> int:
    """Milliseconds since a fixed moment, unaffected by setting the system clock. CLOCK_BOOTTIME includes suspension."""
    return time.clock_gettime_ns(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)) // 1_000_000


class Clock:
    """Timestamps for one thread, the journal's."""

    def __init__(self, wall_ms: Callable[[], int] = wall_ms, steady_ms: Callable[[], int] = steady_ms) -> None:
        self._wall_ms = wall_ms
        self._steady_ms = steady_ms
        # System clock minus steady clock. It changes only if the system clock is set.
        self._ahead_ms = wall_ms() - steady_ms()
        self._last_ms = 0

    def now_ms(self) -> int:
        """Milliseconds since 1970 UTC; less than the previous value only if the clock went back by over STEP_MAX_MS."""
        now_ms = self._wall_ms()
        ahead_ms = now_ms - self._steady_ms()
        jump_ms = ahead_ms - self._ahead_ms
        if abs(jump_ms) > STEP_MAX_MS:
            self._ahead_ms = ahead_ms
            _log.warning("system clock jumped", seconds=round(jump_ms / 1_000))
        if 0 < self._last_ms - now_ms <= STEP_MAX_MS:
            return self._last_ms
        self._last_ms = now_ms
        return now_ms
