"""Snapshots of the store in NATS, with which new servers start: see joining.py.

The server that has written every SNAPSHOT_RECORDS-th record stores the snapshot: one server for each, without an
agreement. If it ends before it has done so, the next snapshot is that of the next such record. Without a snapshot, a
new server applies the whole log, which takes longer. If the log continues the data of one server, it can't.

The thread "snapshots" copies the database on a connection of its own, while the server commits, and sends the copy.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

import structlog

from chatserver.journal.joining import upload_snapshot
from chatserver.store.errors import StoreError
from chatserver.threads import Worker

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from chatserver.journal.log import Log

_log = structlog.get_logger()

# Interval of snapshots, in records. A new server applies at most as many records after its snapshot, in half a minute.
# Busy servers write them in some minutes, and a copy of a million messages takes a second.
SNAPSHOT_RECORDS: Final = 50_000
# Wait before another try.
_RETRY_SECONDS: Final = 60.0
# Time for a copy at shutdown. SQLite can't be told to stop; a copy that is not complete is removed later.
_CLOSING_SECONDS: Final = 1.0


class Snapshots:
    """Stores a snapshot after every ``records``-th record."""

    def __init__(
        self,
        folder: Path,
        log: Log,
        on_crash: Callable[[str], None],
        *,
        records: int = SNAPSHOT_RECORDS,
        retry_seconds: float = _RETRY_SECONDS,
    ) -> None:
        self._folder = folder
        self._shared_log = log
        self._records = records
        self._retry_seconds = retry_seconds
        self._is_needed = threading.Event()
        self._is_stopping = threading.Event()
        self._worker = Worker("snapshots", self._run, on_crash, daemon=True)

    def start(self) -> None:
        self._worker.start()

    def stop(self) -> None:
        self._is_stopping.set()
        self._is_needed.set()
        self._worker.join(_CLOSING_SECONDS)

    def note_own_record(self, number: int) -> None:
        """Report a record of this server that it has applied. For the thread of the journal."""
        if number % self._records == 0:
            self._is_needed.set()

    def _run(self) -> None:
        while True:
            self._is_needed.wait()
            if self._is_stopping.is_set():
                return
            self._is_needed.clear()
            try:
                upload_snapshot(self._folder, self._shared_log)
            except (OSError, StoreError) as error:
                if self._is_stopping.is_set():
                    return
                _log.warning("snapshot failed", error=str(error))
                self._is_stopping.wait(self._retry_seconds)
                self._is_needed.set()
