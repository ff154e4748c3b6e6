"""Login throttle: limits wrong passwords per address and name."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

# A person who has forgotten a password needs a few tries; a program that guesses needs millions.
FAILURES_MAX = 10
WINDOW_SECONDS = 60.0
# Maximum keys, at about 500 bytes each. The oldest are dropped first.
_REMEMBERED_MAX = 10_000


class LoginThrottle:
    """Counts wrong passwords by the peer's address and the account's name. For any thread.

    The address is part of the key so that a user can't be locked out from another address. ``clock`` returns seconds.
    """

    def __init__(self, clock: Callable[[], float], remembered_max: int = _REMEMBERED_MAX) -> None:
        self._clock = clock
        self._remembered_max = remembered_max
        # Guards _failures: times by (address, name); the latest key is last.
        self._lock = threading.Lock()
        self._failures: dict[tuple[str, str], deque[float]] = {}

    def is_blocked(self, address: str, name_key: str) -> bool:
        """True if FAILURES_MAX failures lie within the window."""
        with self._lock:
            times = self._failures.get((address, name_key), deque())
            recent = sum(at > self._clock() - WINDOW_SECONDS for at in times)
            return recent >= FAILURES_MAX

    def note_failure(self, address: str, name_key: str) -> None:
        """Count a wrong password."""
        with self._lock:
            times = self._failures.pop((address, name_key), deque(maxlen=FAILURES_MAX))
            times.append(self._clock())
            self._failures[address, name_key] = times
            if len(self._failures) > self._remembered_max:
                del self._failures[next(iter(self._failures))]
