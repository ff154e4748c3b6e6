"""The monitor of the shared log: how far this server is behind it, and whether it is cut off from it.

The thread "log monitor" notes the end of the log once a second. The server was up to date at the time of a note when it
has applied that record; so its lag is the age of the oldest note whose record it has not applied. A comparison with the
present end would find some records in flight at any moment of a busy server, and the times in the records are those of
other machines' clocks.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Final

from chatserver.threads import Worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from chatserver.journal.log import Log

# Interval of the notes, and the precision of the lag.
NOTE_SECONDS: Final = 1.0
# A lag that users notice. A pause of the process of up to that time is no reason to send clients elsewhere.
LAG_MAX_SECONDS: Final = 5.0
# Time without the log after which another server serves new users better. NATS usually elects a leader in less.
CUT_OFF_SECONDS: Final = 10.0
# Notes that are kept: of ten minutes.
_NOTES_MAX: Final = 600


class LogMonitor:
    """The lag of this server, and what follows from it. For any thread, but ``note`` for one at a time.

    ``applied`` returns the number of the last record that this server has applied.
    """

    def __init__(
        self,
        log: Log,
        applied: Callable[[], int],
        on_crash: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._shared_log = log
        self._applied = applied
        self._clock = clock
        self._is_stopping = threading.Event()
        self._worker = Worker("log monitor", self._run, on_crash)
        # Times, and ends of the log that were not applied at these times.
        self._notes: deque[tuple[float, int]] = deque(maxlen=_NOTES_MAX)
        # Replaced by the thread, read by any.
        self._lag_seconds = 0.0
        self._cut_off_since: float | None = None

    def start(self) -> None:
        self._worker.start()

    def stop(self) -> None:
        self._is_stopping.set()
        self._worker.join()

    def _run(self) -> None:
        self.note()
        while not self._is_stopping.wait(NOTE_SECONDS):
            self.note()

    def note(self) -> None:
        """Compare this server with the log. For the thread of the monitor."""
        now, applied = self._clock(), self._applied()
        while self._notes and self._notes[0][1] <= applied:
            self._notes.popleft()
        self._lag_seconds = now - self._notes[0][0] if self._notes else 0.0
        if (last := self._shared_log.last_number()) > applied:
            self._notes.append((now, last))
        if not self._shared_log.find_problem():
            self._cut_off_since = None
        elif self._cut_off_since is None:
            self._cut_off_since = now

    @property
    def lag_seconds(self) -> float:
        """The age of the state that this server shows, as far as it knows the end of the log."""
        return self._lag_seconds

    @property
    def lag_records(self) -> int:
        """Number of records that exist and are not applied here, as far as it is known."""
        return max(0, self._shared_log.last_number() - self._applied())

    def find_problem(self) -> str:
        """Return why clients should prefer another server now; empty if they need not."""
        if problem := self._shared_log.find_problem():
            return problem
        if self._lag_seconds > LAG_MAX_SECONDS:
            return f"it is {self.lag_records:,} records ({self._lag_seconds:.0f} s) behind the shared log"
        return ""

    def find_refusal(self) -> str:
        """Return why new users are refused, as a part of a sentence; empty if they are not.

        It is patient: a new leader of NATS takes seconds, and all servers may be cut off at once.
        """
        since = self._cut_off_since
        if since is not None and self._clock() - since >= CUT_OFF_SECONDS:
            return self._shared_log.find_problem()
        return self.find_problem() if self._lag_seconds > LAG_MAX_SECONDS else ""
