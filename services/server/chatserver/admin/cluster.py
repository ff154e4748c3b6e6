"""The commands ``share`` and ``unshare``: a data folder begins a shared log, or leaves one. No server runs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, TypeVar

from chatserver.admin.requests import AdminError
from chatserver.journal.joining import share, upload_snapshot
from chatserver.store.log_position import LogPosition, read_position
from chatserver.store.reconcile import find_missing, leave_log, reconcile

if TYPE_CHECKING:
    from collections.abc import Callable

    from chatserver.journal.log import Log
    from chatserver.store.database import Database

_T = TypeVar("_T")

# Time for NATS to answer, and to elect a leader after it was started.
_NATS_SECONDS: Final = 30.0
_RETRY_SECONDS: Final = 0.5
_CLOSING_SECONDS: Final = 2.0


def share_folder(database: Database, log: Log, nats_seconds: float = _NATS_SECONDS) -> LogPosition:
    """Begin a shared log with this database, and store a snapshot for other servers. Raises AdminError, LogError."""
    give_up_at = time.monotonic() + nats_seconds

    def persist(step: Callable[[], _T]) -> _T:
        while True:
            try:
                return step()
            except OSError as error:
                if time.monotonic() >= give_up_at:
                    raise AdminError(f"NATS failed: {error}; run this command again, which continues.") from error
            time.sleep(_RETRY_SECONDS)

    with database.reading() as connection:
        is_single = read_position(connection) is None
    if is_single:
        reconcile(database)  # the log begins with the identity of the history, which may have to be renewed
    log.start()
    try:
        if not log.wait_until_open(nats_seconds):
            reason = log.find_problem() or "it does not answer"
            raise AdminError(
                f"The shared log can't be used: {reason}. Correct CHAT_NATS, or start NATS; nothing was changed."
            )
        position = persist(lambda: share(database, log))
        persist(lambda: upload_snapshot(database.path.parent, log))
    finally:
        log.close(_CLOSING_SECONDS)
    return position


def unshare_folder(database: Database, *, is_complete: bool) -> LogPosition:
    """Make the database that of a single server, and return the position that it had. Raises AdminError, StoreError."""
    folder = database.path.parent
    with database.reading() as connection:
        position = read_position(connection)
    if position is None:
        raise AdminError(f"The data folder {folder} is that of a single server already.")
    if is_complete and (missing := find_missing(database)):
        raise AdminError(
            f"The data folder {folder} {missing}; start the server once, so that it gets everything from the shared "
            "log, or give --incomplete."
        )
    leave_log(database, is_complete=is_complete)
    return position
