"""Catching up: waiting for what another server of a shared log has stored, and this one may not have yet."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Pause between two looks at what another server has stored, such as a message: short at first, because this server
# mostly is a moment behind, and then longer, because thousands of logins may wait.
_LOOK_PAUSE_SECONDS = 0.02
_LOOK_PAUSE_MAX_SECONDS = 0.5


class CatchUp:
    """The waits of logins for other servers. For any thread."""

    def __init__(self, max_seconds: float = 0.0, clock: Callable[[], float] = time.monotonic) -> None:
        """``max_seconds`` is the longest wait; 0: there is no other server. ``clock`` returns seconds."""
        self.max_seconds = max_seconds
        self._clock = clock
        # Set once, at shutdown.
        self._is_stopping = False

    def stop(self) -> None:
        """End all waits at shutdown, each after its next look."""
        self._is_stopping = True

    def looks(self, max_seconds: float = math.inf) -> Iterator[None]:
        """Yield once for each look at what another server may have stored; between looks, sleep longer and longer.

        At least once; for no more than ``max_seconds``, nor the longest wait, nor after :meth:`stop`.
        """
        max_seconds = min(max_seconds, self.max_seconds)
        began_at, pause_seconds = self._clock(), _LOOK_PAUSE_SECONDS
        while True:
            yield
            if self._is_stopping or self._clock() - began_at >= max_seconds:
                return
            time.sleep(pause_seconds)
            pause_seconds = min(2 * pause_seconds, _LOOK_PAUSE_MAX_SECONDS)
