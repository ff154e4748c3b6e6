"""Failed logins: whoever guesses passwords is slowed down, and nobody else."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

# A person who has forgotten a password needs a few tries; a program that guesses needs millions.
FAILURES_MAX = 10
WINDOW_SECONDS = 60.0
# At about 500 bytes each. The oldest are forgotten first.
_REMEMBERED_MAX = 10_000


class LoginThrottle:
    """Counts wrong passwords by the peer's address and the account's name. For any thread.

    By both, so that nobody can lock another user out from elsewhere. ``clock`` counts seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        # Guards the failures: when each was, by (address, name), the key that failed last at the end.
        self._lock = threading.Lock()
        self._failures: dict[tuple[str, str], deque[float]] = {}

    def is_blocked(self, address: str, name_key: str) -> bool:
        """Have there been so many lately that the next try is refused unseen?"""
        with self._lock:
            times = self._failures.get((address, name_key), deque())
            recent = sum(at > self._clock() - WINDOW_SECONDS for at in times)
            return recent >= FAILURES_MAX

    def note_failure(self, address: str, name_key: str) -> None:
        """One more."""
        with self._lock:
            times = self._failures.pop((address, name_key), deque(maxlen=FAILURES_MAX))
            times.append(self._clock())
            self._failures[address, name_key] = times
            if len(self._failures) > _REMEMBERED_MAX:
                del self._failures[next(iter(self._failures))]
