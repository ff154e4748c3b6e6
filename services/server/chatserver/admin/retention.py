"""The removal of old messages once a day, for the setting ``--retention-days``."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

import structlog

from chatserver.admin.changes import STEP_IDS
from chatserver.journal.base import JournalClosedError
from chatserver.journal.entries import Prune
from chatserver.threads import Worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from chatserver.journal.base import Journal

_log = structlog.get_logger()

_DAY_SECONDS: Final = 86_400
# Pause between two steps, in which the messages of users are committed.
_PAUSE_SECONDS: Final = 0.1
# Pause after a failure: the disk is full, or the shared log can't be written now.
RETRY_SECONDS: Final = 60.0


class Retention:
    """A thread that deletes messages older than a number of days: at the start, and then once a day."""

    def __init__(
        self,
        days: int,
        journal: Journal,
        now_ms: Callable[[], int],
        on_crash: Callable[[str], None],
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        """``now_ms`` returns milliseconds since 1970 UTC."""
        self._days = days
        self._journal = journal
        self._now_ms = now_ms
        self._retry_seconds = retry_seconds
        self._stopping = threading.Event()
        self._worker = Worker("retention", self._run, on_crash)

    def start(self) -> None:
        """Start the thread, if there is anything to do for it."""
        if self._days:
            self._worker.start()

    def stop(self) -> None:
        """Stop and join the thread, after the step that it makes."""
        self._stopping.set()
        self._worker.join()

    def _run(self) -> None:
        is_failing = False
        while not self._stopping.is_set():
            try:
                self._prune(self._now_ms() - self._days * _DAY_SECONDS * 1000)
            except OSError as error:
                if not is_failing:
                    _log.error("retention failed", error=str(error))
                is_failing = True
            except JournalClosedError:
                return
            else:
                is_failing = False
            self._stopping.wait(self._retry_seconds if is_failing else _DAY_SECONDS)

    def _prune(self, before_ms: int) -> None:
        count, after_id = 0, 0
        while not self._stopping.is_set():
            (removed,) = self._journal.append([Prune(before_ms, after_id, STEP_IDS)]).result()
            count += removed.messages
            if removed.after_id is None:
                break
            after_id = removed.after_id
            self._stopping.wait(_PAUSE_SECONDS)
        if count:
            _log.info("messages removed", count=count, days=self._days)
