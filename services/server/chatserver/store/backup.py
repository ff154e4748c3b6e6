"""Backups of the database while it is used, and restoring one.

Theory of operation
-------------------

A backup is one SQLite file, a copy of ``chat.db``. The search index is left out, because it can be rebuilt, and so is
``chat.state``: it must stay with the folder, to tell that a restored database is older (see ``reconcile.py``).

``write_backup`` uses VACUUM INTO on a connection that only reads. It copies one moment in one read transaction, while
the server commits. SQLite's interface for page by page copies would begin again after each commit. The copy goes to a
new file beside its destination. It is checked, synced and renamed, so the destination is always a complete backup.

``restore_backup`` holds the locks of the folder, so no server runs. It copies the backup into the folder under another
name and checks it. Only then it replaces files, in this order:

1. The database is renamed to ``chat.db.before-restore``. A server that starts in this moment refuses to make another
   one: see ``Database``.
2. Its write-ahead log (WAL), which may have the last messages, is renamed to ``chat.db.before-restore-wal``. It is
   never beside another database, which it would damage.
3. The search index is deleted, and the backup is renamed to ``chat.db``.

A process that is killed in between leaves all data in the folder, and a second restore completes it. A WAL without a
database then belongs to the newest one that was kept, if ``chat.state`` says so.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import sqlite3
from contextlib import ExitStack, closing, contextmanager, suppress
from itertools import count
from typing import TYPE_CHECKING, BinaryIO, Final, NamedTuple

from chatserver.store.database import DATABASE_FILE, may_own_wal
from chatserver.store.errors import StoreError, describe
from chatserver.store.files import LOCK_FILE, lock, owner_hint, size_of
from chatserver.store.log_position import LogPosition, read_position
from chatserver.store.schema_check import find_foreign_schema, find_foreign_value
from chatserver.store.search_index import remove_index
from chatserver.store.sqlite import connect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from chatserver.store.database import ReadOnlyDatabase

# Endings of files that are written, and renamed or deleted at the end.
_NEW: Final = ".new"
_BEFORE: Final = ".before-restore"
_COPY_BYTES: Final = 1024 * 1024


class UnusableBackupError(StoreError):
    """A backup is not a complete database that this server can use."""

    def __init__(self, problem: str) -> None:
        """``problem`` is a part of a sentence, as in "it is damaged"."""
        super().__init__(f"The backup can't be restored: {problem}. Nothing was changed.")
        self.problem = problem


class Copy(NamedTuple):
    """A copy of the database: its size, and its position in the shared log, if it follows one."""

    size_bytes: int
    position: LogPosition | None


def write_backup(database: ReadOnlyDatabase, path: Path, *, may_replace: bool) -> Copy:
    """Copy the database, which may be in use, to this file. Raises StoreError.

    After an error nothing has changed.
    """
    if path.name.startswith(("chat.", "search.")) and _is_same_folder(path.parent, database.path.parent):
        raise StoreError(f"{path} would be one of the server's own files; give the backup another name or folder.")
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise StoreError(f"{path} is not a regular file; name a new file for the backup.")
    if path.exists() and not may_replace:
        raise StoreError(f"{path} exists already; name a new file, or replace it with --replace.")
    with _new_file(path) as new, database.reading() as connection:
        copy = _copy_database(connection, database.path, new)
        new.replace(path)
        _sync_folder(path.parent)
    return copy


def stream_backup(database: ReadOnlyDatabase, output: BinaryIO) -> Copy:
    """Copy the database to a stream, by way of a file in the data folder. As :func:`write_backup`."""
    with copied(database.path, "backup") as (path, copy):
        with path.open("rb") as file:
            shutil.copyfileobj(file, output, _COPY_BYTES)
        output.flush()
        return copy


@contextmanager
def copied(database: Path, name: str) -> Iterator[tuple[Path, Copy]]:
    """A checked copy of the database in a file of this name in the data folder, for the time of the block.

    In the server it takes no reader from the pool, so that no query waits for it. Raises StoreError, sqlite3.Error.
    """
    with _new_file(database.with_name(name)) as new, closing(connect(database, "ro")) as connection:
        copy = _copy_database(connection, database, new)
        yield new, copy


def restore_backup(
    folder: Path,
    source: BinaryIO,
    schema: Mapping[int, str],
    *,
    may_replace: bool,
    examine: Callable[[sqlite3.Connection], str] = lambda _: "",
) -> list[Path]:
    """Put a backup in the place of the database of this folder. Returns the files that were kept aside.

    ``schema`` has the steps that the server knows: the backup must have the schema of one of them. ``examine`` returns
    why the backup can't be used, although it is complete; empty if it can.

    Raises StoreError: a server runs, or there is a database that must not be replaced. UnusableBackupError: the backup
    can't be used. After an error the server's files are unchanged.
    """
    database = folder / DATABASE_FILE
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with ExitStack() as locks:
            locks.enter_context(lock(folder / LOCK_FILE))
            if database.exists():
                locks.enter_context(lock(database))
            if database.exists() and not may_replace:
                raise StoreError(
                    f"The data folder {folder} has a database; with --replace it is kept as {DATABASE_FILE}{_BEFORE}."
                )
            with _new_file(database) as new:
                with new.open("r+b") as file:
                    shutil.copyfileobj(source, file, _COPY_BYTES)
                    os.fsync(file.fileno())
                _check_backup(new, schema, examine)
                return _replace(folder, new)
    except OSError as error:
        where = error.filename or folder
        raise StoreError(f"The backup can't be restored: {error.strerror} ({where}).{owner_hint(folder)}") from error


def _replace(folder: Path, new: Path) -> list[Path]:
    """Steps 1 to 3: see above."""
    database = folder / DATABASE_FILE
    wal = _wal_of(database)
    kept: list[Path] = []
    newest = None
    for number in count(1):
        aside = folder / f"{DATABASE_FILE}{_BEFORE}{'' if number == 1 else number}"
        if not aside.exists() and not _wal_of(aside).exists():
            break
        newest = aside
    with ExitStack() as undo:
        if database.exists():
            kept.append(database.rename(aside))
            undo.callback(aside.rename, database)
            _sync_folder(folder)
        elif newest is not None and not _wal_of(newest).exists() and _may_own_wal(newest):
            aside = newest
        if size_of(wal):
            kept.append(wal.rename(_wal_of(aside)))
            undo.callback(_wal_of(aside).rename, wal)
        wal.unlink(missing_ok=True)
        (folder / f"{DATABASE_FILE}-shm").unlink(missing_ok=True)
        remove_index(folder)
        _sync_folder(folder)
        new.replace(database)
        undo.pop_all()
    _sync_folder(folder)
    return kept


def _wal_of(database: Path) -> Path:
    return database.with_name(f"{database.name}-wal")


def _may_own_wal(aside: Path) -> bool:
    """True if a WAL in the folder may be that of this database, according to ``chat.state``."""
    with suppress(StoreError):  # it is damaged
        return may_own_wal(aside, aside.parent)
    return False


@contextmanager
def _new_file(path: Path) -> Iterator[Path]:
    """An empty private file beside the path; deleted at the end, if it has not been renamed. Raises StoreError.

    It is locked, because two commands may have the same destination. The file of a killed one is used again.
    """
    new = path.with_name(f"{path.name}{_NEW}")
    try:
        descriptor = os.open(new, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            found = os.fstat(descriptor)
            if not os.path.samestat(found, new.lstat()):
                raise BlockingIOError  # noqa: TRY301 -- it was renamed meanwhile
            if found.st_uid != os.geteuid() or found.st_nlink != 1:  # another user prepared it
                raise PermissionError(errno.EPERM, f"{new} exists already and is not private")
            os.fchmod(descriptor, 0o600)
            file.truncate(0)
            try:
                yield new
            finally:
                new.unlink(missing_ok=True)
    except BlockingIOError as error:
        raise StoreError(f"Another command is writing {path}; wait until it has ended.") from error
    except BrokenPipeError:
        raise
    except OSError as error:
        raise StoreError(f"{path} can't be written: {error.strerror or error}.") from error


def _copy_database(connection: sqlite3.Connection, database: Path, new: Path) -> Copy:
    """Fill the empty file with a checked and synced copy."""
    try:
        connection.execute("VACUUM INTO ?", (str(new.absolute()),))
        with closing(connect(new, "ro")) as copy:
            (verdict,) = copy.execute("PRAGMA quick_check(1)").fetchone()
            position = read_position(copy)
    except sqlite3.Error as error:
        raise StoreError(f"The backup failed, and its file was removed: {describe(error)}.") from error
    if verdict != "ok":
        raise StoreError(f"The database {database} is damaged; see `chatserver admin check`.")
    with new.open("rb") as file:
        os.fsync(file.fileno())
        return Copy(os.fstat(file.fileno()).st_size, position)


def _check_backup(path: Path, schema: Mapping[int, str], examine: Callable[[sqlite3.Connection], str]) -> None:
    """Raise UnusableBackupError if the file is not a complete database that this server can use.

    The schema comes first, because a check of the file would run what is in it.
    """
    problem = ""
    try:
        with closing(connect(path, "ro")) as connection:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version > max(schema):
                problem = f"a newer server wrote it (schema {version})"
            elif version < min(schema):
                problem = "it is not the database of a chat server"
            elif foreign := find_foreign_schema(connection, schema):
                problem = foreign
            elif connection.execute("PRAGMA integrity_check(1)").fetchone() != ("ok",):
                problem = "it is damaged"
            else:
                problem = find_foreign_value(connection) or examine(connection)
    except (sqlite3.Error, UnicodeError) as error:
        problem = f"it is not a database ({describe(error)})"
    finally:
        for ending in ("-wal", "-shm"):
            path.with_name(path.name + ending).unlink(missing_ok=True)
    if problem:
        raise UnusableBackupError(problem)


def _is_same_folder(one: Path, other: Path) -> bool:
    with suppress(OSError):
        return one.samefile(other)
    return False


def _sync_folder(folder: Path) -> None:
    """Make renames in the folder survive a power failure. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
