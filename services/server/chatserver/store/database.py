"""The database file: opening it, its schema, the one connection that writes and the few that read."""

from __future__ import annotations

import os
import queue
import secrets
import sqlite3
from contextlib import ExitStack, closing, contextmanager, suppress
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from chatserver.store.errors import DamagedError, StoreError, describe, is_damage
from chatserver.store.files import LOCK_FILE, lock, make_private, touch_private, whose
from chatserver.store.state import STATE_FILE, State, StateFile

if TYPE_CHECKING:
    from collections.abc import Iterator

DATABASE_FILE = "chat.db"

# Readers wait for each other here, not for the writer: in WAL mode neither waits for the other.
_READERS = 4
# Reading every page takes about a second for each gigabyte; a server must start at once.
_CHECK_MAX_BYTES = 64 * 1024 * 1024
# A larger write-ahead log makes reading slower; at this size it is folded into the file.
_LOG_MAX_BYTES = 16 * 1024 * 1024
# How every SQLite database begins, and the length of its header (its file format, section 1.3).
_MAGIC = b"SQLite format 3\0"
_HEADER_BYTES = 100


class Database:
    """``chat.db`` in a data folder, which this process has to itself.

    One connection writes, for the journal thread alone. The others read, for any thread, one at a time each.

    To which file a write-ahead log belongs, SQLite does not know: it replays one that was forgotten beside a restored
    backup. So at each start a random number, the run id, goes into the header of the file itself (as SQLite's
    ``application_id``) and into ``chat.state``. The log of a killed server is replayed only onto a file that has the
    number of that server's run. The file never has another one while that log grows: before the number changes the log
    is empty, or the old and the new number are both noted. Backups of the same run have the number, too, but are no
    files with a log (VACUUM INTO), or have another count of changes to their schema (SQLite's backup interface).
    """

    def __init__(self, folder: Path) -> None:
        """Open it, make it if there is none, bring its schema up to date. Raises StoreError."""
        self.path = folder / DATABASE_FILE
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            # SQLite keeps it beside the file itself, which may be on another disk.
            self._log_path = f"{self.path.resolve() if self.path.is_symlink() else self.path}-wal"
            # What is opened here is closed last, and in reverse order: see _open.
            self._locks = ExitStack()
            self._locks.enter_context(lock(folder / LOCK_FILE))
            try:
                make_private(folder)
                self.state_file = StateFile(folder / STATE_FILE)
                self._writer = self._open()
                self._readers: queue.LifoQueue[sqlite3.Connection] = queue.LifoQueue()
                for _ in range(_READERS):
                    self._readers.put(_connect_reader(self.path))
            except BaseException:
                self._locks.close()
                raise
        except OSError as error:
            where = error.filename or folder
            raise StoreError(
                f"The data folder {folder} can't be used: {error.strerror or error} ({where}).{whose(folder)}"
            ) from error
        except (sqlite3.Error, UnicodeError) as error:
            raise StoreError(
                f"The database {self.path} can't be used: {describe(error)}. Nothing was changed.{whose(folder)}"
            ) from error
        # What must be there for a commit to last. SQLite does not look: it would write into files that were deleted.
        self._files = [(name, _file_id(os.stat(name))) for name in (str(self.path), self._log_path)]  # noqa: PTH116
        # The length of the log at the last look.
        self._log_bytes = 0

    def _open(self) -> sqlite3.Connection:
        # Before SQLite has it open: to close a file gives up all locks that this process has on it.
        header = _read_header(self.path)
        self._check_left(header)
        # A lock file that seems to be left over is soon removed, with the server running.
        self._locks.enter_context(lock(self.path))
        if header is not None:
            _check(self.path)
        writer = _connect(self.path)
        try:
            _use_log(writer, self.path)
            writer.execute("PRAGMA synchronous = FULL")
            _migrate(writer, self.path)
            self._begin_run(writer, header)
        except BaseException:
            writer.close()
            self.state_file.close()
            raise
        return writer

    def _check_left(self, header: _Header | None) -> None:
        """Refuse what SQLite would take for a new database, or would mix with another one."""
        state = self.state_file.state
        log_path = Path(self._log_path)
        log_bytes = log_path.stat().st_size if log_path.exists() else 0
        if header is None:
            if state.history_id or log_bytes:
                raise StoreError(
                    f"The database {self.path} is missing or empty, and there was one. Nothing was changed; put a "
                    f"backup in its place, or remove {STATE_FILE} and {DATABASE_FILE}-wal to begin anew."
                )
        elif log_bytes and not header.has_log_of(state):
            raise StoreError(
                f"The write-ahead log {self._log_path} is not of the database {self.path}, which was put in its place. "
                f"Nothing was changed; if {DATABASE_FILE} is a backup that no server has used since, remove "
                f"{DATABASE_FILE}-wal and {DATABASE_FILE}-shm; if they belong together, remove {STATE_FILE}."
            )

    def _begin_run(self, writer: sqlite3.Connection, header: _Header | None) -> None:
        """Mark the file, so that this run's write-ahead log can be told from any other's."""
        run_id = secrets.randbelow(2**31 - 1) + 1
        before = header.run_id if header else 0
        (cookie,) = writer.execute("PRAGMA schema_version").fetchone()
        cookies = [cookie, header.schema_cookie] if header else [cookie]
        state = replace(self.state_file.state, run_ids=(before, run_id), schema_cookie=min(cookies))
        self.state_file.write(state)
        self.state_file.sync()
        writer.execute(f"PRAGMA application_id = {run_id}")
        is_busy, *_ = writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if not is_busy:  # else another program is reading it: both may be found
            self.state_file.write(replace(state, run_ids=(run_id,), schema_cookie=cookie))

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Everything written inside reaches the disk together, or not at all. For the journal thread."""
        with transaction(self._writer) as writer:
            yield writer
            self._check_files()

    def _check_files(self) -> None:
        """Raise StoreError if something of the database was removed, or replaced by other files."""
        for name, file_id in self._files:
            reason = ""
            try:
                found = os.stat(name)  # noqa: PTH116 -- before every commit, so cheaply
            except OSError as error:
                found, reason = None, f" ({error.strerror})"
            if found is None or _file_id(found) != file_id:
                raise StoreError(
                    f"The file {name} was removed or replaced while the server runs{reason}. Nothing is stored until "
                    "it is put back, or the server is restarted."
                )
            self._log_bytes = found.st_size  # that of the last one, the log

    def note_commit(self, last_id: int, account_id: int) -> None:
        """Remember that messages and accounts up to these are in the database. For the journal thread.

        To be called after each commit, before anybody is told of it. Raises OSError.
        """
        state = self.state_file.state
        account_id = max(account_id, state.account_id)
        if last_id != state.last_id or account_id != state.account_id:
            highest_id = max(last_id, state.highest_id)
            self.state_file.write(replace(state, last_id=last_id, account_id=account_id, highest_id=highest_id))

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection that sees what is committed. For any thread; keep it no longer than a query takes.

        Raises StoreError when the disk can't be read, DamagedError when what is there is no database.
        """
        reader = self._readers.get()
        try:
            yield reader
        except (sqlite3.Error, UnicodeError) as error:
            problem = DamagedError if is_damage(error) else StoreError
            raise problem(f"The database {self.path} can't be read: {describe(error)}.") from error
        finally:
            self._readers.put(reader)

    def trim_log(self) -> None:
        """Fold a write-ahead log that has grown large into the file. For the journal thread, between transactions.

        SQLite does so by itself only when no reader is in the way, and in a busy room there always is one. So they have
        to pause here for a moment.
        """
        if self._log_bytes <= _LOG_MAX_BYTES:
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
        self._writer.close()  # it deletes the log, unless the file was moved: then that name may be another server's
        with suppress(OSError):
            self.state_file.sync()
        self.state_file.close()
        self._locks.close()


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


class _Header(NamedTuple):
    """What the header of a database file says, whatever a write-ahead log has on top of it."""

    run_id: int
    schema_cookie: int
    uses_log: bool

    def has_log_of(self, state: State) -> bool:
        """True if a write-ahead log beside the file may be its own."""
        if not self.uses_log:
            return False
        return not state.run_ids or (self.run_id in state.run_ids and self.schema_cookie >= state.schema_cookie)


def _read_header(path: Path) -> _Header | None:
    """The header of the file; None if there is no file, or nothing in it. Raises StoreError, OSError."""
    try:
        with path.open("rb") as file:
            data = file.read(_HEADER_BYTES)
    except FileNotFoundError:
        return None
    if not data:
        return None
    if len(data) < _HEADER_BYTES or not data.startswith(_MAGIC):
        # SQLite takes a file that is shorter than its header for an empty database, and would write over it.
        raise _damaged(path, "it does not begin as one")
    return _Header(
        run_id=int.from_bytes(data[68:72], "big"),
        schema_cookie=int.from_bytes(data[40:44], "big"),
        uses_log=data[18:20] == b"\2\2",
    )


def _file_id(found: os.stat_result) -> tuple[int, int]:
    """What tells a file from another one of the same name."""
    return found.st_dev, found.st_ino


def _connect(path: Path, mode: str = "rw") -> sqlite3.Connection:
    # Transactions are begun and ended by hand; the threads that share a connection take turns.
    address = f"{path.absolute().as_uri()}?mode={mode}"
    connection = sqlite3.connect(address, isolation_level=None, check_same_thread=False, uri=True)
    # A large answer is sorted in memory: elsewhere there may be no room (a read-only container), or other eyes.
    connection.execute("PRAGMA temp_store = MEMORY")
    return connection


def _connect_reader(path: Path) -> sqlite3.Connection:
    reader = _connect(path, "ro")
    # The log is opened by the first query. Later there may be no descriptor left for it.
    reader.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    return reader


def _use_log(writer: sqlite3.Connection, path: Path) -> None:
    (mode,) = writer.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise StoreError(f"The data folder {path.parent} can't hold a write-ahead log; is it a network disk?")


def _check(path: Path) -> None:
    """Refuse a damaged file before anything is written to it."""
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
