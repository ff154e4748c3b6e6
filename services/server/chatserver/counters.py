"""Counters of events: plain numbers, which the metrics read on request."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from itertools import accumulate
from typing import Final

# Upper bounds of the buckets: a commit takes a millisecond on a fast disk, and seconds on one that is about to fail.
SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Histogram:
    """Numbers of observed times by upper bound. One thread observes; any thread may read."""

    __slots__ = ("_counts", "_sum")

    def __init__(self) -> None:
        self._counts = [0] * (len(SECONDS) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        """Add a time."""
        self._counts[bisect_left(SECONDS, seconds)] += 1
        self._sum += seconds

    def read(self) -> tuple[list[tuple[str, float]], float]:
        """Return the numbers of times up to each bound, as Prometheus defines them, and the sum of all times."""
        bounds = [*(f"{bound:g}" for bound in SECONDS), "+Inf"]
        return list(zip(bounds, accumulate(self._counts), strict=True)), self._sum


class Counters:
    """Numbers of events since the start. For any thread.

    Two threads that add to one counter in the same moment may lose one of the two: a lock would cost more than the
    error. Names are constants in the code, never input of a peer, so the dicts stay small.
    """

    def __init__(self) -> None:
        # Requests and connections that a limit refused or delayed, by the limit's setting.
        self.limits_hit: Counter[str] = Counter()
        # Rejected requests by error code.
        self.refusals: Counter[str] = Counter()
        # Logins by result: ok, wrong_password, banned and others.
        self.logins: Counter[str] = Counter()
        # For Connections, under its lock.
        self.accepted_connections = 0
        # For all readers.
        self.received_bytes = 0
        self.files_sent = 0
        # For the sender's thread. The times are from the publication of a commit until it was offered to all receivers.
        self.sent_bytes = 0
        self.delivery_seconds = Histogram()
        # For the journal's thread. A confirmation is counted once for each commit, for its oldest entry.
        self.commit_seconds = Histogram()
        self.confirmation_seconds = Histogram()
        self.publish_seconds = Histogram()
        # For the hub, under its lock. A message is delivered once to each connection of its receivers.
        self.public_messages = 0
        self.direct_messages = 0
        self.deliveries = 0
