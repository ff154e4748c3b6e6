"""The database file: opening it, its schema, one connection for writes and a pool for reads."""

from __future__ import annotations

import os
import secrets
import sqlite3
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import structlog
from msgspec.structs import replace

from chatserver.store.errors import DamagedError, StoreError, describe, is_damage
from chatserver.store.files import LOCK_FILE, lock, make_private, owner_hint, size_of
from chatserver.store.migration import migrate
from chatserver.store.schema_check import find_foreign_schema, find_foreign_value
from chatserver.store.sqlite import ReaderPool, connect, not_waiting, transaction
from chatserver.store.state import STATE_FILE, State, StateFile

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager

_log = structlog.get_logger()

DATABASE_FILE = "chat.db"

# Size of the read pool. A query waits for a free reader, never for the writer: in WAL mode neither blocks the other.
_READERS = 4
# Largest file that is checked at the start: reading every page takes about 1 s per gigabyte.
_CHECK_MAX_BYTES = 64 * 1024 * 1024
# Size of the write-ahead log (WAL) that triggers a checkpoint: a larger WAL makes reads slower.
_WAL_MAX_BYTES = 16 * 1024 * 1024
# The first bytes of a SQLite database and the length of its header (SQLite file format, section 1.3).
_MAGIC = b"SQLite format 3\0"
_HEADER_BYTES = 100
_FOREIGN_REMEDY = "put a backup in its place, or remove with the program sqlite3 what was added"


class Database:
    """``chat.db`` in a data folder that this process has locked for itself.

    One connection writes; only the journal thread uses it. The readers serve any thread, one thread at a time each.

    SQLite does not know to which file a write-ahead log (WAL) belongs. If a killed server left a WAL and the operator
    then restores a backup, SQLite would replay the WAL onto the backup. To prevent that, each start stores a random
    number, the run id, in the file header (as SQLite's ``application_id``) and in ``chat.state``. At the start there
    are four cases:

    1. The WAL is missing or empty: there is nothing to replay.
    2. ``chat.state`` has no run id, or that of the file: the WAL belongs to the file and is replayed.
    3. The file has another run id: the file was replaced, and the server refuses to start.
    4. The file is a backup of the same run, with the same run id. It is not in WAL mode (VACUUM INTO) or its schema
       cookie is lower (SQLite's backup interface): the server refuses to start.

    While ``_begin_run`` changes the run id, ``chat.state`` holds the old and the new one, and both count in case 2.
    """

    def __init__(self, folder: Path, schema: Mapping[int, str] | None = None, *, syncs: bool = True) -> None:
        """Open or create the database and migrate it to ``schema``, by default :func:`schema_files`. StoreError.

        Without ``syncs`` the last commits may be lost with the power of the machine, never a part of one: for a
        database that follows a log, which has them.
        """
        self._syncs = syncs
        self._schema = schema_files() if schema is None else schema
        self.path = folder / DATABASE_FILE
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            # SQLite resolves symbolic links: the WAL is beside the real file, perhaps on another disk.
            self._wal_path = f"{self.path.resolve() if self.path.is_symlink() else self.path}-wal"
            # The locks are released last, in reverse order: see _open.
            self._locks = ExitStack()
            self._locks.enter_context(lock(folder / LOCK_FILE))
            try:
                make_private(folder)
                self.state_file = StateFile(folder / STATE_FILE)
                self._writer = self._open()
                self._readers = ReaderPool(self.path, _READERS)
            except BaseException:
                self._locks.close()
                raise
        except OSError as error:
            where = error.filename or folder
            reason = "it is not a folder" if isinstance(error, FileExistsError) else error.strerror or error
            raise StoreError(
                f"The data folder {folder} can't be used: {reason} ({where}).{owner_hint(folder)}"
            ) from error
        except (sqlite3.Error, UnicodeError) as error:
            raise StoreError(
                f"The database {self.path} can't be used: {describe(error)}. Nothing was changed.{owner_hint(folder)}"
            ) from error
        # Files that must exist for a commit to last. SQLite does not check: it writes into deleted files.
        self._files = [(name, _file_id(os.stat(name))) for name in (str(self.path), self._wal_path)]  # noqa: PTH116
        # Length of the WAL at the last commit, and the length that triggers the next checkpoint.
        self._wal_bytes = 0
        self._wal_max_bytes = _WAL_MAX_BYTES
        # True while an error lasts, so that it is logged once.
        self._state_file_failing = False
        self._checkpoint_failing = False

    def _open(self) -> sqlite3.Connection:
        # Read before SQLite opens the file: closing a file releases all POSIX locks that this process has on it.
        header = _read_header(self.path)
        self._check_files_match(header)
        # A second lock, on the database itself: people remove lock files that look stale while the server runs.
        self._locks.enter_context(lock(self.path))
        if header is not None:
            _check(self.path, self._schema)
        writer = connect(self.path)
        try:
            _enable_wal(writer, self.path)
            writer.execute(f"PRAGMA synchronous = {'FULL' if self._syncs else 'NORMAL'}")
            migrate(writer, self.path, self._schema)
            self._begin_run(writer, header)
        except BaseException:
            writer.close()
            self.state_file.close()
            raise
        return writer

    def _check_files_match(self, header: _Header | None) -> None:
        """Raise StoreError if SQLite would start an empty database, or replay the WAL of another database."""
        state = self.state_file.state
        wal_bytes = size_of(Path(self._wal_path))
        if header is None:
            if state.history_id or wal_bytes:
                raise StoreError(
                    f"The database {self.path} is missing or empty, and there was one. Nothing was changed; put a "
                    f"backup in its place, or remove {STATE_FILE} and {DATABASE_FILE}-wal to start with an empty "
                    "database."
                )
        elif wal_bytes and not header.may_own_wal(state):
            raise StoreError(
                f"The write-ahead log {self._wal_path} is not of the database {self.path}, which was put in its place. "
                f"Nothing was changed; if {DATABASE_FILE} is a backup that no server has used since, remove "
                f"{DATABASE_FILE}-wal and {DATABASE_FILE}-shm; if they belong together, remove {STATE_FILE}."
            )

    def _begin_run(self, writer: sqlite3.Connection, header: _Header | None) -> None:
        """Store a new run id in the file and in chat.state, so that a later start recognizes this run's WAL."""
        run_id = secrets.randbelow(2**31 - 1) + 1
        before = header.run_id if header else 0
        (cookie,) = writer.execute("PRAGMA schema_version").fetchone()
        cookies = [cookie, header.schema_cookie] if header else [cookie]
        state = replace(self.state_file.state, run_ids=(before, run_id), schema_cookie=min(cookies))
        self.state_file.write(state)
        self.state_file.sync()
        writer.execute(f"PRAGMA application_id = {run_id}")
        is_busy, *_ = writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if not is_busy:  # if another program is reading, the file may keep the old run id, and chat.state keeps both
            self.state_file.write(replace(state, run_ids=(run_id,), schema_cookie=cookie))

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A transaction on the writer: committed at the end, rolled back if it raises. Journal thread only.

        Raises StoreError, before the commit, if a database file was removed or replaced.
        """
        with transaction(self._writer) as writer:
            yield writer
            self._check_files()

    def _check_files(self) -> None:
        """Raise StoreError if the database file or its WAL was removed or replaced."""
        for name, file_id in self._files:
            reason = ""
            try:
                found = os.stat(name)  # noqa: PTH116 -- runs before every commit, must be cheap
            except OSError as error:
                found, reason = None, f" ({error.strerror})"
            if found is None or _file_id(found) != file_id:
                raise StoreError(
                    f"The file {name} was removed or replaced while the server runs{reason}. Nothing is stored until "
                    "it is put back, or the server is restarted."
                )
            self._wal_bytes = found.st_size  # the WAL is the last of the files

    def note_commit(self, last_id: int, account_id: int) -> None:
        """Record in chat.state that messages and accounts up to these ids are committed. Journal thread only.

        Call it after each commit, before anything in the commit is confirmed or published. A failure is logged, and
        the next commit tries again.
        """
        state = self.state_file.state
        account_id = max(account_id, state.account_id)
        if last_id == state.last_id and account_id == state.account_id:
            return
        highest_id = max(last_id, state.highest_id)
        self._write_state(replace(state, last_id=last_id, account_id=account_id, highest_id=highest_id))

    def note_log_run(self, run: str) -> None:
        """Record in chat.state that this server begins a run in the shared log. Journal thread only.

        The next server of this folder knows then that the run is over. A failure is logged.
        """
        self._write_state(replace(self.state_file.state, log_run=run))

    def _write_state(self, state: State) -> None:
        try:
            self.state_file.write(state)
            self._state_file_failing = False
        except OSError as error:
            if not self._state_file_failing:
                _log.error("state file write failed", error=str(error))
            self._state_file_failing = True

    def reading(self) -> AbstractContextManager[sqlite3.Connection]:
        """A reader from the pool; it sees committed data. For any thread. Hold it for one query only.

        Waits for a free reader. Raises StoreError if the disk can't be read, DamagedError if the file is damaged.
        """
        return _Reading(self.path, self._readers)

    def truncate_log(self) -> None:
        """Checkpoint and truncate a large WAL. Journal thread only, between transactions.

        SQLite's automatic checkpoint resets the WAL only while no reader is active, and under load a reader is always
        active. This method takes all readers out of the pool during the checkpoint. It does not wait for the readers of
        other programs, such as a backup, which may take minutes: it tries again after the WAL has grown as much again.
        A failure is logged; the next commit tries again.
        """
        if self._wal_bytes <= self._wal_max_bytes:
            return
        try:
            with self._readers.paused(), not_waiting(self._writer):
                is_busy, *_ = self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            self._wal_max_bytes = _WAL_MAX_BYTES + (self._wal_bytes if is_busy else 0)
            self._checkpoint_failing = False
        except (sqlite3.Error, OSError) as error:
            if not self._checkpoint_failing:
                _log.error("checkpoint failed", error=describe(error))
            self._checkpoint_failing = True

    def close(self) -> None:
        """Checkpoint, close all connections and release the locks. No other thread may use the database any more."""
        self._readers.close()
        self._writer.close()  # deletes the WAL, unless the file was moved: another server may use that name then
        with suppress(OSError):
            self.state_file.sync()
        self.state_file.close()
        self._locks.close()


class ReadOnlyDatabase:
    """``chat.db``, opened by another process than the server, which may be running. Nothing is written. One thread."""

    def __init__(self, folder: Path) -> None:
        """Raises StoreError: there is no database, it is of another version or program, or it can't be read."""
        self.path = folder / DATABASE_FILE
        try:
            header = _read_header(self.path)
            if header is None:
                raise StoreError(f"There is no database in the data folder {folder}; name the right one with --data.")
            wal_path = Path(f"{self.path}-wal")
            if size_of(wal_path) and not may_own_wal(self.path, folder):
                raise StoreError(f"The write-ahead log {wal_path} does not belong to the database {self.path}.")
            self._connection = connect(self.path, "ro")
            with self.reading() as connection:
                (version,) = connection.execute("PRAGMA user_version").fetchone()
                newest = max(schema_files())
                problem = find_foreign_schema(connection, schema_files()) if version == newest else ""
        except OSError as error:
            reason = error.strerror or str(error)
            raise StoreError(f"The database {self.path} can't be read: {reason}.{owner_hint(folder)}") from error
        except sqlite3.Error as error:
            raise StoreError(f"The database {self.path} can't be read: {describe(error)}.") from error
        if problem:
            self.close()
            raise StoreError(f"The database {self.path} can't be read: {problem}; {_FOREIGN_REMEDY}.")
        if version != newest:
            self.close()
            raise StoreError(
                f"The database {self.path} has schema {version}, and this program knows {newest}; "
                + ("use the program of the server." if version > newest else "start the server once, to upgrade it.")
            )

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """The connection; each statement sees the committed data of its moment. Raises StoreError, DamagedError."""
        try:
            yield self._connection
        except (sqlite3.Error, UnicodeError) as error:
            raise _read_error(self.path, error) from error

    def close(self) -> None:
        self._connection.close()


class _Reading:
    """See :meth:`Database.reading`. Not a generator, which takes 2 us more: a login reads six times."""

    __slots__ = ("_path", "_reader", "_readers")

    def __init__(self, path: Path, readers: ReaderPool) -> None:
        self._path = path
        self._readers = readers

    def __enter__(self) -> sqlite3.Connection:
        self._reader = self._readers.take()
        return self._reader

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        self._readers.give_back(self._reader)
        if isinstance(error, (sqlite3.Error, UnicodeError)):
            raise _read_error(self._path, error) from error


def _read_error(path: Path, error: sqlite3.Error | UnicodeError) -> StoreError:
    problem = DamagedError if is_damage(error) else StoreError
    return problem(f"The database {path} can't be read: {describe(error)}.")


def may_own_wal(path: Path, folder: Path) -> bool:
    """True if the WAL in the folder may be of this database. A server that starts changes both files: look twice.

    Raises StoreError if the file is not a SQLite database, OSError.
    """
    for _ in range(2):
        header = _read_header(path)
        if header is not None and header.may_own_wal(StateFile(folder / STATE_FILE).state):
            return True
    return False


def touch_page(connection: sqlite3.Connection) -> None:
    """Rewrite one page unchanged, so that the commit of the transaction needs the disk."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    connection.execute(f"PRAGMA user_version = {version}")


class _Header(NamedTuple):
    """Fields of the header of the database file itself, without the changes in a WAL."""

    run_id: int
    schema_cookie: int
    uses_wal: bool

    def may_own_wal(self, state: State) -> bool:
        """True if a WAL beside the file may belong to the file, according to ``chat.state``."""
        if not self.uses_wal:
            return False
        return not state.run_ids or (self.run_id in state.run_ids and self.schema_cookie >= state.schema_cookie)


def _read_header(path: Path) -> _Header | None:
    """The header of the file; None if the file is missing or empty.

    Raises StoreError if the file is not a SQLite database, OSError.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_HEADER_BYTES)
    except FileNotFoundError:
        return None
    if not data:
        return None
    if len(data) < _HEADER_BYTES or not data.startswith(_MAGIC):
        # SQLite treats a file shorter than the header as an empty database and would overwrite it.
        raise _damaged_error(path, "the file header is not SQLite's")
    return _Header(
        run_id=int.from_bytes(data[68:72], "big"),
        schema_cookie=int.from_bytes(data[40:44], "big"),
        uses_wal=data[18:20] == b"\2\2",
    )


def _file_id(found: os.stat_result) -> tuple[int, int]:
    """Device and inode: they differ if the file was replaced by another one of the same name."""
    return found.st_dev, found.st_ino


def _enable_wal(writer: sqlite3.Connection, path: Path) -> None:
    (mode,) = writer.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise StoreError(f"The data folder {path.parent} can't hold a write-ahead log; is it a network disk?")


def _check(path: Path, schema: Mapping[int, str]) -> None:
    """Raise StoreError if the file is damaged, or not of a chat server, before anything is written to it."""
    # Read-only: a read-write connection would checkpoint the WAL of a killed server when it closes.
    with closing(connect(path, "ro")) as connection:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version <= max(schema) and (problem := find_foreign_schema(connection, schema)):
            raise StoreError(f"The database {path} can't be used: {problem}. Nothing was changed; {_FOREIGN_REMEDY}.")
        if path.stat().st_size > _CHECK_MAX_BYTES:
            return
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise _damaged_error(path, verdict)
        if version <= max(schema) and (problem := find_foreign_value(connection)):
            raise StoreError(f"The database {path} can't be used: {problem}. Nothing was changed; restore a backup.")


def _damaged_error(path: Path, how: str) -> StoreError:
    return StoreError(
        f"The database {path} is damaged ({' '.join(how.split())}). Nothing was changed; put a backup in its place, "
        "or start with another data folder."
    )


@cache
def schema_files() -> Mapping[int, str]:
    """Step number to SQL: ``0001_what_it_does.sql`` is step 1. They are read once."""
    folder = resources.files("chatserver.store") / "schema"
    return {int(entry.name[:4]): entry.read_text() for entry in folder.iterdir() if entry.name.endswith(".sql")}
