"""Counters of events, for the metrics."""

from __future__ import annotations

from collections import Counter


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
