"""The time of messages, by the machine's clock, which may be set while the server runs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable

_log = structlog.get_logger()

# Corrections of the clock up to this size are normal, and a history whose times run back looks broken: the time stands
# still instead, no longer than that. A larger one is a clock that was wrong, before or now; order is by id anyway.
STEP_MAX_MS: Final = 5_000


def wall_ms() -> int:
    """Milliseconds since 1970 UTC, as the machine's clock has it."""
    return time.time_ns() // 1_000_000


def steady_ms() -> int:
    """Milliseconds since some moment, whatever the clock is set to; time in which the machine sleeps counts."""
    return time.clock_gettime_ns(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)) // 1_000_000


class Clock:
    """For one thread: the journal's."""

    def __init__(self, wall_ms: Callable[[], int] = wall_ms, steady_ms: Callable[[], int] = steady_ms) -> None:
        self._wall_ms = wall_ms
        self._steady_ms = steady_ms
        # How far the clock is ahead of the steady one: that changes only where it is set.
        self._ahead_ms = wall_ms() - steady_ms()
        self._last_ms = 0

    def now_ms(self) -> int:
        """Milliseconds since 1970 UTC; earlier than the one before only if the clock was set back by some seconds."""
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
