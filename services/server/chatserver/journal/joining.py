"""Joins the data folder of a server to a shared log, at each start and in the command ``share``.

Theory of operation
-------------------

The first record of a log is its Origin, which never changes. A database that follows a log stores its position: the id
of the log, and the number of the last record that it has applied. At the start there are four cases:

1. The database has a position. It must be one of this log: with the same id, and not beyond the end. Otherwise the
   folder belongs to another cluster, or the stream was deleted, or restored to an older state. Continuing would give
   two histories the same ids, so the server does not start.
2. The database is empty, and so is the log. The server creates the Origin, with the identity of its own empty history.
   Of several servers that do so at once one succeeds, and the others find its Origin: case 3.
3. The database is empty, and the log has records. ``prepare_folder`` has put the newest snapshot into the folder, which
   makes this case 1. Without a usable snapshot the database takes over the identity of the Origin and applies all
   records. If the log continues the data of one server (``has_base``), these are not in the records, and a snapshot is
   needed.
4. The database has data and no position. It is that of a single server, and ``share`` makes it the beginning of a new
   log, never the start: two servers with different data can't follow one log.

Each step can be repeated after a crash. A database takes over the Origin in one transaction, as position 1. ``share``
stores the id of the new log as position 0 before it creates the Origin with that id. So it recognizes its own Origin
when it is run again.
"""

from __future__ import annotations

import secrets
import time
from contextlib import closing
from typing import TYPE_CHECKING, Final

import structlog

from chatserver.journal.apply import Transaction, end_memberships
from chatserver.journal.log import LogError
from chatserver.journal.records import Origin, chain, decode, encode
from chatserver.store.backup import UnusableBackupError, copied, restore_backup
from chatserver.store.database import DATABASE_FILE, ReadOnlyDatabase, schema_files
from chatserver.store.errors import StoreError
from chatserver.store.files import size_of, touch_private
from chatserver.store.guests import release_all_names
from chatserver.store.identity import adopt_history_id, read_highest_id, read_history_id
from chatserver.store.log_position import LogPosition, forget_log, is_empty, read_position, write_position
from chatserver.store.message_table import read_last_time_ms
from chatserver.store.state import STATE_FILE, StateFile

if TYPE_CHECKING:
    from pathlib import Path

    from chatserver.journal.log import Log
    from chatserver.store.database import Database

_log = structlog.get_logger()

# A snapshot while it is downloaded, and while it is made, in the data folder.
_DOWNLOAD_FILE: Final = "snapshot.part"
_COPY_FILE: Final = "snapshot"
# Bytes of a random id of a log: 128 bits never repeat.
_ID_BYTES: Final = 16
# Time in which the end of the log becomes known. It lags while NATS elects a leader.
END_KNOWN_SECONDS: Final = 10.0
_POLL_SECONDS: Final = 0.1
_NO_SNAPSHOT: Final = (
    "The shared log continues the data of one server, and {problem}; run `chatserver admin snapshot FILE` on another "
    "server, and `chatserver admin restore FILE` on this one."
)


def prepare_folder(folder: Path, log: Log) -> None:
    """Put the newest snapshot of the log into a folder without data. Call it before the database is opened.

    The log is open. It blocks for a download. OSError: try again. Raises LogError, StoreError.
    """
    if not _is_unused(folder) or (first := log.read_first()) is None:
        return
    origin = _decode_origin(first)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = folder / _DOWNLOAD_FILE
    touch_private(part)
    try:
        number = log.get_snapshot(part)
        if number is not None:
            _log.info("snapshot loaded", record=number, bytes=part.stat().st_size)
            with part.open("rb") as file:
                restore_backup(
                    folder,
                    file,
                    schema_files(),
                    may_replace=True,  # an empty database
                    examine=lambda copy: _find_foreign(read_position(copy), origin),
                )
    except UnusableBackupError as error:
        if origin.has_base:
            raise LogError(_NO_SNAPSHOT.format(problem=f"its snapshot can't be used ({error.problem})")) from error
        _log.warning("snapshot unusable", reason=error.problem)
    finally:
        part.unlink(missing_ok=True)


def adopt_log(database: Database, log: Log, end_known_seconds: float = END_KNOWN_SECONDS) -> LogPosition:
    """Return the position from which the database follows the log, which is 1 at least.

    The log is open; its Origin is created if it is empty. It blocks. OSError: try again. Raises LogError, StoreError.
    """
    folder = database.path.parent
    with database.reading() as connection:
        position, has_data = read_position(connection), not is_empty(connection)
        history_id = read_history_id(connection)
    first = log.read_first()
    if position is not None:
        _check_position(folder, position, first, log, end_known_seconds)
        return position
    if has_data:
        remedy = "name an empty data folder" if first else "`chatserver admin share` begins the shared log with it"
        raise LogError(f"The data folder {folder} has the data of a single server; {remedy}.")
    if first is None:
        log.create_first(encode(Origin(secrets.token_hex(_ID_BYTES), history_id)))
        first = log.read_first()  # perhaps that of another server
        if first is None:
            raise OSError("the first record of the shared log is not stored yet")
    origin = _decode_origin(first)
    if origin.has_base:
        raise LogError(_NO_SNAPSHOT.format(problem="has no snapshot"))
    position = begin(origin)
    with database.transaction() as connection:
        adopt_history_id(connection, origin.history_id)
        write_position(connection, position)
    return position


def share(database: Database, log: Log) -> LogPosition:
    """Make the data of one server the beginning of a new log, and return the position.

    The log is open. No server runs, and the caller has called ``reconcile``. It blocks. A repeated call continues after
    a crash, or does nothing. OSError: try again. Raises LogError, StoreError.
    """
    with database.reading() as connection:
        position, history_id = read_position(connection), read_history_id(connection)
    first = log.read_first()
    if position is not None and position.number:
        _check_position(database.path.parent, position, first, log, END_KNOWN_SECONDS)
        return position
    if position is None:
        if first is not None:
            raise LogError(_used(log))
        position = LogPosition(secrets.token_hex(_ID_BYTES), 0, b"")
        with database.transaction() as connection:
            forget_log(connection)
            transaction = Transaction(connection, read_last_time_ms(connection), read_highest_id(connection))
            end_memberships(transaction, release_all_names(connection))
            write_position(connection, position)
    if first is None:
        log.create_first(encode(Origin(position.log_id, history_id, has_base=True)))
        first = log.read_first()
        if first is None:
            raise OSError("the first record of the shared log is not stored yet")
    origin = _decode_origin(first)
    is_own = origin.log_id == position.log_id
    with database.transaction() as connection:
        if is_own:
            write_position(connection, position := begin(origin))
        else:
            forget_log(connection)
    if not is_own:
        raise LogError(_used(log))
    return position


def upload_snapshot(folder: Path, log: Log) -> int:
    """Store a copy of the database, which may be in use, as the newest snapshot. Returns the number of its last record.

    It blocks. Raises OSError, StoreError.
    """
    failure: OSError | None = None
    with copied(folder / DATABASE_FILE, _COPY_FILE) as (path, copy):
        assert copy.position is not None, "the database follows a log"
        try:
            log.put_snapshot(copy.position.number, path)
        except OSError as error:  # of the log; in the block it would be taken for one of the file
            failure = error
    if failure is not None:
        raise failure
    _log.info("snapshot stored", record=copy.position.number, bytes=copy.size_bytes)
    return copy.position.number


def begin(origin: Origin) -> LogPosition:
    """The position of a database that has applied this first record."""
    return LogPosition(origin.log_id, 1, chain(b"", 1, [origin.log_id, origin.history_id, origin.has_base]))


def refuse_shared(database: Database) -> None:
    """Raise StoreError if the database follows a log: a single server must not change it."""
    with database.reading() as connection:
        position = read_position(connection)
    if position is not None:
        raise StoreError(
            f"The data folder {database.path.parent} follows a shared log; set CHAT_NATS, or run "
            "`chatserver admin unshare`, which makes it the folder of a single server."
        )


def _is_unused(folder: Path) -> bool:
    """True if the folder has no data, so that a snapshot may be put there."""
    database = folder / DATABASE_FILE
    try:
        if not size_of(database):
            # After the loss of a database the opening of a new one is refused, and so is this.
            return (
                not StateFile(folder / STATE_FILE).state.history_id and not (folder / f"{DATABASE_FILE}-wal").exists()
            )
        with closing(ReadOnlyDatabase(folder)) as found, found.reading() as connection:
            return is_empty(connection)
    except StoreError:  # of an older schema, or damaged: not empty in any case
        return False


def _decode_origin(first: bytes) -> Origin:
    record = decode(1, first)
    if not isinstance(record, Origin):
        raise LogError(
            "The first record of the shared log is not one of a chat server; name another stream (CHAT_NATS_STREAM)."
        )
    return record


def _check_position(folder: Path, position: LogPosition, first: bytes | None, log: Log, seconds: float) -> None:
    """Raise LogError if a database at this position can't follow the log."""
    if not position.number:
        raise LogError(
            f"The command `chatserver admin share` was interrupted for the data folder {folder}; run it again, or "
            "`chatserver admin unshare`."
        )
    if first is None:
        raise LogError(
            f"The shared log is empty, and the data folder {folder} has its first {position.number:,} records: the "
            "stream was deleted, or CHAT_NATS or CHAT_NATS_STREAM names another one; docs/cluster.md says how to "
            "restore it."
        )
    if problem := _find_foreign(position, _decode_origin(first)):
        raise LogError(
            f"The data folder {folder} can't be used: {problem}; set CHAT_NATS and CHAT_NATS_STREAM to its own log, or "
            "name an empty data folder."
        )
    give_up_at = time.monotonic() + seconds
    while position.number > (last := log.last_number()):
        if time.monotonic() >= give_up_at:
            raise LogError(
                f"The data folder {folder} has record {position.number:,}, and the shared log ends at {last:,}: the "
                "stream was restored to an older state; docs/cluster.md says how to begin a new one."
            )
        time.sleep(_POLL_SECONDS)


def _find_foreign(position: LogPosition | None, origin: Origin) -> str:
    """Return a part of a sentence if a database at this position follows another log, or none; otherwise empty."""
    if position is None:
        return "it is of a single server"
    return (
        "" if position.log_id == origin.log_id else "it is of another cluster, or the stream was deleted and made anew"
    )


def _used(log: Log) -> str:
    return (
        f"The shared log has {log.last_number():,} records already, and can't begin with the data of this folder; name "
        "a new stream (CHAT_NATS_STREAM), or start the server with an empty data folder, to join the others."
    )
