"""The start of a server that shares its log: the waits, with their reasons, and their end by a signal.

The main thread takes the steps, one after the other: open the log, make the data folder ready for it, catch up. Steps
that block are calls in a thread of their own, so that a signal ends the start at once. While the server waits, it
reports the reason: every few seconds in its own log, and in the health check and ``/readyz``.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeVar

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable

    from chatserver.journal.log import Log
    from chatserver.store.log_position import LogPosition

_T = TypeVar("_T")

_log = structlog.get_logger()

_POLL_SECONDS: Final = 0.05
# Interval of the event "start waits", and the pause after an error of NATS.
_REPORT_SECONDS: Final = 5.0
_RETRY_SECONDS: Final = 0.5


class StartStoppedError(Exception):
    """A signal ended the start."""


class CatchingUp(Protocol):
    """The part of the journal that the start uses."""

    @property
    def position(self) -> LogPosition: ...

    @property
    def awaits_name(self) -> bool: ...

    def wait_until_ready(self, timeout_seconds: float) -> bool: ...


class LogStart:
    """The steps of the start. ``reason`` is for any thread.

    ``pause`` waits a number of seconds, and returns true if the server is to end.
    """

    def __init__(self, log: Log, pause: Callable[[float], bool], clock: Callable[[], float] = time.monotonic) -> None:
        self._shared_log = log
        self._pause = pause
        self._clock = clock
        self._report_at = clock() + _REPORT_SECONDS
        # Why the server takes no clients yet, as in "it waits for NATS: NATS has no quorum".
        self.reason = "it waits for NATS: it is connecting"

    def open(self) -> None:
        """Wait until the log is open. Raises LogError, StartStoppedError."""
        while not self._shared_log.wait_until_open(0.0):
            self._wait(f"it waits for NATS: {self._shared_log.find_problem() or 'it is connecting'}")

    def do(self, reason: str, step: Callable[[], _T]) -> _T:
        """Take a step that may block, until it succeeds. OSError: it is taken again. Raises the others of the step."""
        while True:
            call = _Call(step)
            call.start()
            while not call.has_ended:
                self._wait(reason)
            try:
                return call.result()
            except (ConnectionError, TimeoutError) as error:
                problem = f"it waits for NATS: {error.strerror or error}"
            except OSError as error:  # of NATS without a number, or of the disk
                cause = "it waits for NATS" if error.errno is None else "it can't write to its disk"
                problem = f"{cause}: {error.strerror or error}"
            retry_at = self._clock() + _RETRY_SECONDS
            while self._clock() < retry_at:
                self._wait(problem)

    def catch_up(self, journal: CatchingUp) -> None:
        """Wait until the journal has applied all that was confirmed before. Raises StartStoppedError."""
        began_at, first = self._clock(), journal.position.number
        while not journal.wait_until_ready(0.0):
            if problem := self._shared_log.find_problem():
                reason = f"it waits for NATS: {problem}"
            elif journal.awaits_name:
                reason = "it waits for the end of another server with its name"
            elif to_go := max(0, self._shared_log.last_number() - journal.position.number):
                reason = f"it is catching up: {to_go:,} records to go"
            else:
                reason = "it waits until its start is in the shared log"
            self._wait(reason)
        seconds = round(self._clock() - began_at, 1)
        _log.info("caught up", records=journal.position.number - first, seconds=seconds)
        self.reason = ""

    def _wait(self, reason: str) -> None:
        self.reason = reason
        if self._clock() >= self._report_at:
            self._report_at = self._clock() + _REPORT_SECONDS
            _log.info("start waits", reason=reason)
        if self._pause(_POLL_SECONDS):
            raise StartStoppedError


class _Call(Generic[_T]):
    """A call in a thread of its own, which may outlive the start."""

    def __init__(self, step: Callable[[], _T]) -> None:
        self._step = step
        self._results: list[_T] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="start", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        try:
            self._results.append(self._step())
        except BaseException as error:  # raised by result()
            self._error = error

    @property
    def has_ended(self) -> bool:
        return not self._thread.is_alive()

    def result(self) -> _T:
        if self._error is not None:
            raise self._error
        return self._results[0]
