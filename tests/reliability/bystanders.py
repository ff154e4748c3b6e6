"""Users who chat during an attack, and the server that they chat on: it has one processor."""

from __future__ import annotations

import os
import statistics
import time
from contextlib import closing
from typing import Self

from integration.room import Peer

ONE_PROCESSOR = ("taskset", "--cpu-list", str(min(os.sched_getaffinity(0))))
P99_MAX_SECONDS = 0.1
DELAYS_OF_A_LONG_TEST = 150
# Longest logins of a known user and of a new one. Short tests run beside others.
KNOWN_MAX_SECONDS = 0.5
NEW_MAX_SECONDS = 2.0 if os.environ.get("CHAT_TEST_LONG") else 5.0


def assert_quick(delays: list[float]) -> None:
    """The 99th percentile, or the median of a test that is too short for it."""
    is_long = len(delays) > DELAYS_OF_A_LONG_TEST
    found = statistics.quantiles(delays, n=100)[-1] if is_long else statistics.median(delays)
    print(f"{found * 1e3:.1f} ms, {'p99' if is_long else 'p50'} of {len(delays)}")
    assert found < P99_MAX_SECONDS, sorted(delays)[-10:]


def seconds_to_log_in(port: int, name: str, address: str) -> float:
    """Log in with the right password, which is never refused, and return how long that takes."""
    with closing(Peer(port, address)) as peer:
        began_at = time.monotonic()
        peer.login(name)
        return time.monotonic() - began_at


def assert_known_user_gets_in(port: int, name: str, address: str) -> None:
    """At once, in one of three tries: other tests may take the processor."""
    waits = [seconds_to_log_in(port, name, address)]
    while min(waits) >= KNOWN_MAX_SECONDS:
        assert len(waits) < 3, waits
        waits.append(seconds_to_log_in(port, name, address))


class Bystanders:
    """Two users who chat: the delays of their messages."""

    def __init__(self, port: int) -> None:
        self._one, self._other = Peer(port), Peer(port)
        for peer, name in ((self._one, "one"), (self._other, "other")):
            peer.login(name)
        self.delays: list[float] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._one.close()
        self._other.close()

    def chat(self, until: float) -> None:
        """Chat, twenty messages a second."""
        while (began_at := time.monotonic()) < until:
            self._one.ask(command="PM", message="hello")
            self._other.next("broadcast")
            self.delays.append(time.monotonic() - began_at)
            self._one.next("sent")
            time.sleep(0.05)

    def assert_quick(self) -> None:
        assert_quick(self.delays)
