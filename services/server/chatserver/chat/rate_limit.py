"""Rates of a user: a token bucket for each user and kind of request, over all of the user's connections.

The state of a bucket is one number, the time at which it will be full again. It follows the generic cell rate algorithm
(ITU-T I.371): each token moves that time by one interval, and a token is due when the time is at most ``burst``
intervals ahead. Tokens are due in the order in which they were taken, so connections that share a bucket wait in order.
A full bucket needs no memory.
"""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from chatprotocol.duration import format_wait
from chatprotocol.errors import ErrorCode, RequestError
from chatserver.counters import Counters

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

# Number of buckets from which on the full ones are forgotten, whenever the number has doubled.
_FORGET_FROM = 1_024
# Error of sums of fractions.
_ROUNDING_SECONDS = 1e-6


class RateLimit:
    """A bucket of ``burst`` tokens for each key, into which ``rate`` tokens flow in a second. For any thread."""

    def __init__(
        self,
        name: str,
        burst: float,
        rate: float,
        counters: Counters | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``name`` is that of the setting, for the counters. With ``rate`` 0 there is no limit."""
        self._name = name
        self._counters = counters or Counters()
        self._clock = clock
        # Guards everything below; the interval and the burst are also read without it.
        self._lock = threading.Lock()
        self.change(burst, rate)
        # The times at which the buckets will be full.
        self._full_at: dict[Hashable, float] = {}
        self._forget_from = _FORGET_FROM

    def change(self, burst: float, rate: float) -> None:
        """Change the limit, from now on."""
        with self._lock:
            self._interval_seconds = 1 / rate if rate else 0.0
            self._burst = burst
            self._burst_seconds = burst * self._interval_seconds

    @property
    def is_off(self) -> bool:
        """True if there is no limit."""
        return not self._interval_seconds

    def take(self, key: Hashable, delay_max_seconds: float = 0.0, count: float = 1) -> float:
        """Take a token, or a number of them; return the time until it is due, in seconds: 0 if it was in the bucket.

        More tokens than the burst are never in the bucket; they count as the burst. RequestError: it is due later than
        ``delay_max_seconds`` from now. Then none was taken.
        """
        delay_seconds = self._take(key, delay_max_seconds, min(count, self._burst))
        if delay_seconds:
            self._counters.limits_hit[self._name] += 1
        if delay_seconds > delay_max_seconds:
            retry_seconds = math.ceil(10 * (delay_seconds - delay_max_seconds)) / 10
            reason = f"You do this too often; try again in {format_wait(retry_seconds)}."
            raise RequestError(ErrorCode.RATE_LIMITED, reason, retry_seconds=retry_seconds)
        return delay_seconds

    def is_empty(self, key: Hashable) -> bool:
        """True if no token is in the bucket."""
        return self._take(key, -1.0, 1) > 0

    def take_all(self, key: Hashable, count: int) -> bool:
        """Take a number of tokens if all of them are in the bucket; otherwise take none, and return False."""
        return not self._take(key, 0.0, count)

    def _take(self, key: Hashable, delay_max_seconds: float, count: float) -> float:
        """Return the time until the last token is due; they are taken if it is at most ``delay_max_seconds``."""
        if not self._interval_seconds:
            return 0.0
        with self._lock:
            now = self._clock()
            full_at = max(self._full_at.get(key, now), now) + count * self._interval_seconds
            delay_seconds = full_at - now - self._burst_seconds
            if delay_seconds < _ROUNDING_SECONDS:
                delay_seconds = 0.0
            if delay_seconds <= delay_max_seconds:
                self._full_at[key] = full_at
                if len(self._full_at) >= self._forget_from:
                    self._full_at = {each: at for each, at in self._full_at.items() if at > now}
                    self._forget_from = max(_FORGET_FROM, 2 * len(self._full_at))
        return delay_seconds

    def __len__(self) -> int:
        """The number of remembered buckets."""
        return len(self._full_at)


def _no_limit() -> RateLimit:
    return RateLimit("", 1, 0)


@dataclass(frozen=True)
class UserLimits:
    """The limits of a user. They don't apply to operators of the server, nor to exempt addresses."""

    messages: RateLimit = field(default_factory=_no_limit)
    message_delay_seconds: float = 0.0
    queries: RateLimit = field(default_factory=_no_limit)
    # Requests of all kinds but messages, before the login as well.
    requests: RateLimit = field(default_factory=_no_limit)
    # Rooms that a user makes: their ids are never used again.
    rooms: RateLimit = field(default_factory=_no_limit)

    @property
    def are_off(self) -> bool:
        """True if there is no limit."""
        return all(each.is_off for each in (self.messages, self.queries, self.requests, self.rooms))
