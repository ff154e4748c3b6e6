"""The database file: opening it, its schema, the one connection that writes and the few that read."""

from __future__ import annotations

import fcntl
import os
import queue
import sqlite3
from contextlib import closing, contextmanager
from importlib import resources
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DATABASE_FILE = "chat.db"
LOCK_FILE = "chat.lock"

# Readers wait for each other here, not for the writer: in WAL mode neither waits for the other.
_READERS = 4
# Reading every page takes about a second for each gigabyte; a server must start at once.
_CHECK_MAX_BYTES = 64 * 1024 * 1024
# A larger write-ahead log makes reading slower; at this size it is folded into the file.
_LOG_MAX_BYTES = 16 * 1024 * 1024
# How every SQLite database begins (its file format, section 1.3).
_MAGIC = b"SQLite format 3\0"


class StoreError(Exception):
    """The data folder or the database can't be used. The text is one line for the person who runs the server."""


class Database:
    """``chat.db`` in a data folder, which this process has to itself.

    One connection writes, for the journal thread alone. The others read, for any thread, one at a time each.
    """

    def __init__(self, folder: Path) -> None:
        """Open it, make it if there is none, bring its schema up to date. Raises StoreError."""
        self.path = folder / DATABASE_FILE
        self._log_path = str(folder / f"{DATABASE_FILE}-wal")
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock_file = _lock(folder)
            try:
                self._writer = self._open()
            except BaseException:
                self._lock_file.close()
                raise
        except OSError as error:
            where = error.filename or folder
            raise StoreError(f"The data folder {folder} can't be used: {error.strerror or error} ({where}).") from error
        except sqlite3.Error as error:
            raise StoreError(f"The database {self.path} can't be used: {error}. Nothing was changed.") from error
        self._readers: queue.LifoQueue[sqlite3.Connection] = queue.LifoQueue()
        for _ in range(_READERS):
            self._readers.put(_connect_reader(self.path))

    def _open(self) -> sqlite3.Connection:
        if self.path.exists():
            _check(self.path)
        touch_private(self.path)
        writer = _connect(self.path)
        try:
            _use_log(writer, self.path)
            writer.execute("PRAGMA synchronous = FULL")
            _migrate(writer, self.path)
        except BaseException:
            writer.close()
            raise
        return writer

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Everything written inside reaches the disk together, or not at all. For the journal thread."""
        with transaction(self._writer) as writer:
            yield writer

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection that sees what is committed. For any thread; keep it no longer than a query takes.

        Raises StoreError when the disk can't be read.
        """
        reader = self._readers.get()
        try:
            yield reader
        except sqlite3.Error as error:
            raise StoreError(f"The database {self.path} can't be read: {error}.") from error
        finally:
            self._readers.put(reader)

    def trim_log(self) -> None:
        """Fold a write-ahead log that has grown large into the file. For the journal thread, between transactions.

        SQLite does so by itself only when no reader is in the way, and in a busy room there always is one. So they have
        to pause here for a moment.
        """
        if os.stat(self._log_path).st_size <= _LOG_MAX_BYTES:  # noqa: PTH116 -- after every commit, so cheaply
            return
        readers = [self._readers.get() for _ in range(_READERS)]
        try:
            self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            for reader in readers:
                self._readers.put(reader)

    def close(self) -> None:
        """Fold the write-ahead log into the file and let the folder go. Nothing may be reading or writing any more."""
        for _ in range(_READERS):
            self._readers.get().close()
        self._writer.close()
        self._lock_file.close()


@contextmanager
def transaction(writer: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """Everything written inside reaches the disk together, or not at all."""
    writer.execute("BEGIN IMMEDIATE")
    try:
        yield writer
        writer.execute("COMMIT")
    except BaseException:
        if writer.in_transaction:
            writer.execute("ROLLBACK")
        raise


def write_nothing_new(connection: sqlite3.Connection) -> None:
    """Write a page as it is, so that the commit needs the disk."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    connection.execute(f"PRAGMA user_version = {version}")


def touch_private(path: Path) -> None:
    """The files hold passwords' hashes and direct messages: nobody else's business."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))


def _lock(folder: Path) -> IO[str]:
    """Two servers on one database would give out the same ids."""
    lock_file = (folder / LOCK_FILE).open("a")
    try:
        fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock_file.close()
        raise StoreError(
            f"Another server uses the data folder {folder}; stop it first, or name another folder."
        ) from error
    return lock_file


def _connect(path: Path) -> sqlite3.Connection:
    # Transactions are begun and ended by hand; the threads that share a connection take turns.
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    # A large answer is sorted in memory: elsewhere there may be no room (a read-only container), or other eyes.
    connection.execute("PRAGMA temp_store = MEMORY")
    return connection


def _connect_reader(path: Path) -> sqlite3.Connection:
    reader = _connect(path)
    # The log is opened by the first query. Later there may be no descriptor left for it.
    reader.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    return reader


def _use_log(writer: sqlite3.Connection, path: Path) -> None:
    (mode,) = writer.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise StoreError(f"The data folder {path.parent} can't hold a write-ahead log; is it a network disk?")


def _check(path: Path) -> None:
    """Refuse a damaged file before anything is written to it."""
    with path.open("rb") as file:
        # SQLite takes a file that is shorter than its header for an empty database, and would write over it.
        if file.read(len(_MAGIC)) not in (b"", _MAGIC):
            raise _damaged(path, "it does not begin as one")
    # A connection that may write would fold the log of a killed server into the file when it closes.
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if path.stat().st_size > _CHECK_MAX_BYTES:
            return
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise _damaged(path, verdict)


def _damaged(path: Path, how: str) -> StoreError:
    return StoreError(
        f"The database {path} is damaged ({' '.join(how.split())}). Nothing was changed; put a backup in its place, "
        "or start with another data folder."
    )


def _migrate(writer: sqlite3.Connection, path: Path) -> None:
    """Apply the numbered schema files that the database has not seen, in one transaction, after a copy was made."""
    (version,) = writer.execute("PRAGMA user_version").fetchone()
    steps = _schema_files()
    newest = max(steps)
    if version > newest:
        raise StoreError(
            f"The database {path} was written by a newer server (schema {version}; this one knows {newest}). "
            "Nothing was changed."
        )
    if version == newest:
        return
    if version > 0:
        copy_path = path.with_name(f"{path.name}.before-{newest:04d}")
        touch_private(copy_path)
        with closing(sqlite3.connect(copy_path)) as copy:
            writer.backup(copy)
    pending = "\n".join(steps[number] for number in range(version + 1, newest + 1))
    try:
        writer.executescript(f"BEGIN IMMEDIATE;\n{pending}\nPRAGMA user_version = {newest};\nCOMMIT;")
    except sqlite3.Error:
        if writer.in_transaction:
            writer.execute("ROLLBACK")
        raise


def _schema_files() -> dict[int, str]:
    """The SQL of each schema step by its number: 0001_what_it_does.sql is step 1."""
    folder = resources.files("chatserver.store") / "schema"
    return {int(entry.name[:4]): entry.read_text() for entry in folder.iterdir() if entry.name.endswith(".sql")}
