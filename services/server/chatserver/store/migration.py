"""Brings the database of an older server to the present schema.

Theory of operation
-------------------

1. The disk must have room for a copy of the database, for its growth, and for the write-ahead log of one transaction.
2. A database that is not new is copied to ``chat.db.before-NNNN``, where NNNN is the new schema.
3. One transaction runs the SQL of all pending steps and sets ``user_version``. From here on an older server refuses the
   file.
4. Schema 4 leaves the messages in the tables public_message and direct_message. They are moved to the table message,
   oldest first, in transactions of 20,000 at most. Memory is bounded by that number, and pages that become free
   are used again. The last transaction drops the two tables.
5. The times of the messages that were there before schema 10 are noted in one transaction: see
   conversation_history.py. If that did not happen, a query compares more times, and the next block of ids notes them.

The tables are the state of the move: a message is in the old tables or in the new one, never in both, because one
transaction inserts and deletes it. A start after ``kill -9`` at any point finds the old tables and continues. It makes
no second copy, which would have a part of the messages in the new table. A process that is killed before the commit of
step 3 begins again with step 1.
"""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing
from typing import TYPE_CHECKING

import structlog

from chatserver.store.conversation_history import note_times
from chatserver.store.errors import StoreError, describe
from chatserver.store.files import touch_private
from chatserver.store.message_table import read_last_id
from chatserver.store.sqlite import transaction

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

_log = structlog.get_logger()

# Messages per transaction: about 0.1 s. The write-ahead log grows to 30 MB with short texts.
CHUNK_MESSAGES = 20_000
# The same with the longest texts.
_LOG_MAX_BYTES = 256 * 1024 * 1024
# Interval between reports of a long migration.
_REPORT_SECONDS = 5.0
# Space for a small database, whose growth is whole pages.
_SPARE_BYTES = 1024 * 1024
# Pages per step of a copy: 16 MiB.
_COPY_PAGES = 4096

_OLDEST = """
SELECT min(id) FROM (SELECT min(id) AS id FROM public_message UNION ALL SELECT min(id) FROM direct_message)
"""
_NEWEST = """
SELECT max(id) FROM (SELECT max(id) AS id FROM public_message UNION ALL SELECT max(id) FROM direct_message)
"""
_MOVE = (
    """
    INSERT INTO message (key, time_ms, sender_id, text, nonce)
    SELECT id, time_ms, sender_id, text, nonce FROM public_message WHERE id <= :upto ORDER BY id
    """,
    """
    INSERT INTO message (key, time_ms, sender_id, recipient_id, text, nonce)
    SELECT id - (1 << 40), time_ms, sender_id, recipient_id, text, nonce FROM direct_message
    WHERE id <= :upto ORDER BY id
    """,
    "DELETE FROM public_message WHERE id <= :upto",
    "DELETE FROM direct_message WHERE id <= :upto",
)


def _free_bytes(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def migrate(
    writer: sqlite3.Connection,
    path: Path,
    steps: Mapping[int, str],
    chunk_messages: int = CHUNK_MESSAGES,
    free_bytes: Callable[[Path], int] = _free_bytes,
) -> None:
    """Apply the pending steps, or continue with a migration that was interrupted. Raises StoreError, sqlite3.Error."""
    (version,) = writer.execute("PRAGMA user_version").fetchone()
    newest = max(steps)
    if version > newest:
        raise StoreError(
            f"The database {path} was written by a newer server (schema {version}; this one knows {newest}). "
            "Nothing was changed."
        )
    began = time.monotonic()
    if 0 < version < newest:
        _check_space(writer, path, free_bytes)
        copy_path = path.with_name(f"{path.name}.before-{newest:04d}")
        _log.info("database migrating", schema=newest, old_schema=version, copy=str(copy_path))
        _copy(writer, copy_path)
    if version < newest:
        pending = "\n".join(steps[number] for number in range(version + 1, newest + 1))
        _run(writer, f"{pending}\nPRAGMA user_version = {newest};")
    moves = _has_old_tables(writer)
    if moves:
        try:
            _move_messages(writer, chunk_messages)
        except sqlite3.Error as error:
            raise StoreError(
                f"The migration of the database {path} stopped: {describe(error)}. No message is lost; the next start "
                "continues it."
            ) from error
    if (moves or version < newest) and _has_table(writer, "message_times"):
        with transaction(writer) as connection:
            note_times(connection, read_last_id(connection))
    if version and (moves or version < newest):
        _log.info("database migrated", schema=newest, seconds=round(time.monotonic() - began, 1))


def _check_space(writer: sqlite3.Connection, path: Path, free_bytes: Callable[[Path], int]) -> None:
    """Raise StoreError if the disk has no room for the copy and for the growth of the database."""
    (size_bytes,) = writer.execute("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size").fetchone()
    # Five million short messages grow by a sixth. A log is at most as large as the grown database.
    growth_bytes = size_bytes // 4 + min(size_bytes + size_bytes // 4, _LOG_MAX_BYTES) + _SPARE_BYTES
    # The database may be a symbolic link to another disk; the copy is beside the link.
    needed = {path.resolve().parent: growth_bytes}
    if path.resolve().stat().st_dev == path.parent.stat().st_dev:
        needed = {path.parent: growth_bytes + size_bytes}
    else:
        needed[path.parent] = size_bytes
    for folder, needed_bytes in needed.items():
        left_bytes = free_bytes(folder)
        if left_bytes < needed_bytes:
            raise StoreError(
                f"The migration of the database {path} needs {needed_bytes / 1e6:,.1f} MB on the disk of {folder}, "
                f"which has {left_bytes / 1e6:,.1f} MB left. Nothing was changed; free the space, and start again."
            )


def _copy(writer: sqlite3.Connection, copy_path: Path) -> None:
    touch_private(copy_path)
    with closing(sqlite3.connect(copy_path)) as copy:
        writer.backup(copy, pages=_COPY_PAGES)


def _run(writer: sqlite3.Connection, script: str) -> None:
    try:
        writer.executescript(f"BEGIN IMMEDIATE;\n{script}\nCOMMIT;")
    except sqlite3.Error:
        if writer.in_transaction:
            writer.execute("ROLLBACK")
        raise


def _has_old_tables(writer: sqlite3.Connection) -> bool:
    """True between the SQL of schema 4 and the end of the move."""
    tables = writer.execute("SELECT name FROM sqlite_schema WHERE name IN ('public_message', 'message')").fetchall()
    return len(tables) > 1


def _has_table(writer: sqlite3.Connection, name: str) -> bool:
    return writer.execute("SELECT 1 FROM sqlite_schema WHERE name = ?", (name,)).fetchone() is not None


def _move_messages(writer: sqlite3.Connection, chunk_messages: int) -> None:
    (last_id,) = writer.execute(_NEWEST).fetchone()
    reported = time.monotonic()
    while (oldest_id := writer.execute(_OLDEST).fetchone()[0]) is not None:
        # Ids are dense, except after lost data: a chunk has at most as many messages as ids.
        upto = oldest_id + chunk_messages - 1
        with transaction(writer):
            for statement in _MOVE:
                writer.execute(statement, {"upto": upto})
        if time.monotonic() - reported >= _REPORT_SECONDS:
            reported = time.monotonic()
            _log.info("database migration progress", moved_id=min(upto, last_id), last_id=last_id)
    _run(writer, "DROP TABLE public_message; DROP TABLE direct_message;")
