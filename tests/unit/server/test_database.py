"""The database file: created, reopened, migrated, refused."""

import hashlib
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from chatserver.store.accounts import Accounts
from chatserver.store.database import Database, schema_files
from chatserver.store.errors import DamagedError, StoreError
from chatserver.store.sqlite import ReaderPool

from .helpers import DEADLINE_SECONDS, assert_waits, in_background, must_end, register

FIRST = "CREATE TABLE one (x INTEGER); INSERT INTO one VALUES (7);"
SECOND = "ALTER TABLE one ADD COLUMN y INTEGER; UPDATE one SET y = x + 1;"
BROKEN = "CREATE TABLE two (x INTEGER); INSERT INTO nowhere VALUES (1);"
PAGE_BYTES = 4096
# Digest of the stored schema after each step.
RELEASED = {
    1: "a9d4941b",
    2: "6a71808a",
    3: "f55956f4",
    4: "54604d80",
    5: "0b1243b3",
    6: "2a5ce232",
    7: "ce14a84d",
    8: "66d67234",
    9: "33a44a57",
    10: "c77a93f7",
    11: "c0367a27",
}


def make(folder: Path, accounts: int = 0, schema: Mapping[int, str] | None = None) -> Path:
    """Create or open the database and close it again; returns its file."""
    with closing(Database(folder, schema)) as database:
        for number in range(accounts):
            register(database, f"user{number}")
    return folder / "chat.db"


def find(folder: Path, name: str) -> bool:
    with closing(Database(folder)) as database:
        return Accounts(database).find(name) is not None


def rejection(folder: Path, schema: Mapping[int, str] | None = None) -> str:
    """The error for a folder that can't be used: one line with its name. Nothing in it is changed."""
    before = contents(folder) if folder.is_dir() else {}
    with pytest.raises(StoreError) as error:
        Database(folder, schema).close()
    assert not before or contents(folder) == before
    text = str(error.value)
    assert len(text.splitlines()) == 1
    assert str(folder) in text
    return text


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes of every file that holds data."""
    files = {each.name: each.read_bytes() for each in folder.iterdir() if each.is_file()}
    return {name: data for name, data in files.items() if data and name not in ("chat.lock", "chat.db-shm")}


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_new_database_is_durable_and_sorts_in_memory(tmp_path: Path) -> None:
    """Promise: confirmed means stored. In WAL mode a commit reaches the disk with synchronous=FULL.

    A container has no folder for temporary files, and elsewhere other users could read them.
    """
    with closing(Database(tmp_path / "deep" / "data")) as database, database.reading() as reader:
        tables = {row[0] for row in reader.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
        assert tables >= {"account", "conversation", "membership", "message"}
        assert not tables & {"public_message", "direct_message"}
        with database.transaction() as writer:
            for pragma, value in (("journal_mode", "wal"), ("synchronous", 2), ("temp_store", 2)):
                assert writer.execute(f"PRAGMA {pragma}").fetchone() == (value,)
            assert reader.execute("PRAGMA temp_store").fetchone() == (2,)


def test_reopened_database_has_its_data_and_makes_no_copy(folder: Path) -> None:
    make(folder, accounts=3)
    assert find(folder, "user2")
    assert sorted(each.name for each in folder.iterdir()) == ["chat.db", "chat.lock", "chat.state"]


def test_database_may_be_a_symbolic_link(folder: Path) -> None:
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir(parents=True)
    (folder / "chat.db").symlink_to(elsewhere / "its.db")
    make(folder, accounts=1)
    assert find(folder, "user0")
    assert [path.name for path in elsewhere.iterdir()] == ["its.db"]


def test_files_are_private_whatever_the_umask(folder: Path) -> None:
    """Also the copy before a migration: it holds the same password hashes."""
    previous = os.umask(0)
    try:
        make(folder, schema={1: FIRST})
        with closing(Database(folder, {1: FIRST, 2: SECOND})):
            modes = {each.name: mode_of(each) for each in folder.glob("chat.*")}
    finally:
        os.umask(previous)
    assert mode_of(folder) == 0o700
    assert modes.keys() >= {"chat.db", "chat.db-wal", "chat.db-shm", "chat.db.before-0002", "chat.lock", "chat.state"}
    assert set(modes.values()) == {0o600}


def test_readable_files_are_made_private_at_the_start(folder: Path) -> None:
    """Such as a restored backup, or files of an older server."""
    make(folder)
    for name in ("chat.db", "chat.lock", "chat.db.before-0002", "search.db", "notes.txt"):
        (folder / name).touch()
        (folder / name).chmod(0o644)
    with capture_logs() as log:
        make(folder)
    assert {each.name for each in folder.iterdir() if mode_of(each) != 0o600} == {"notes.txt"}
    assert [entry["mode"] for entry in log] == ["644"] * 4


def test_reader_sees_committed_data_only(database: Database) -> None:
    accounts = Accounts(database)

    def insert(error: Exception | None = None) -> None:
        with database.transaction() as connection:
            connection.execute(
                "INSERT INTO account (id, name, name_key, password_hash, created_ms) VALUES (1, 'a', 'a', '', 0)"
            )
            assert accounts.find("a") is None
            if error:
                raise error

    with pytest.raises(RuntimeError):
        insert(RuntimeError())
    assert accounts.find("a") is None
    insert()
    assert accounts.find("a") is not None


def test_unreadable_text_is_not_quoted(folder: Path) -> None:
    with closing(Database(folder)) as database:
        with database.transaction() as connection:
            connection.execute(
                "INSERT INTO account (name, name_key, password_hash, created_ms)"
                " VALUES (CAST(x'736563726574ff' AS TEXT), 'a', '', 0)"
            )
        with pytest.raises(DamagedError, match="a text in it is not UTF-8") as error:
            Accounts(database).find("a")
    assert "secret" not in str(error.value)


def moved_away(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))


def replaced(folder: Path) -> None:
    moved_away(folder)
    shutil.copytree(folder.with_name("elsewhere"), folder)


def unlinked(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


@pytest.mark.parametrize("harm", [shutil.rmtree, moved_away, replaced, unlinked("chat.db"), unlinked("chat.db-wal")])
def test_commit_to_removed_files_fails(folder: Path, harm: Callable[[Path], None]) -> None:
    """Promise: confirmed means stored. Commits go on when the folder is back."""
    with closing(Database(folder)) as database:
        harm(folder)
        with pytest.raises(StoreError, match="removed or replaced while the server runs"):
            register(database, "alice")
        assert Accounts(database).find("alice") is None
        if harm is moved_away:
            folder.with_name("elsewhere").rename(folder)
            register(database, "alice")
    assert harm is not moved_away or find(folder, "alice")


def test_closing_leaves_the_log_of_another_server(folder: Path) -> None:
    """SQLite deletes the log by its name when the last connection is closed."""
    database = Database(folder)
    moved_away(folder)
    with closing(Database(folder)) as new:
        register(new, "alice")
        database.close()
        assert (folder / "chat.db-wal").stat().st_size > 0
        register(new, "bob")


def test_log_of_a_killed_server_is_read_at_the_next_start(large: Path, folder: Path, tmp_path: Path) -> None:
    """Promise: confirmed means stored. If the database is damaged, the log is left as it is."""
    shutil.copytree(large, folder)
    killed = tmp_path / "killed"
    with closing(Database(folder)) as database:
        register(database, "last")
        shutil.copytree(folder, killed)
        damaged = Path(shutil.copytree(folder, tmp_path / "damaged"))
    assert (damaged / "chat.db-wal").stat().st_size > 0
    corrupt(damaged / "chat.db", 8)
    assert "is damaged" in rejection(damaged)
    assert find(killed, "last")


def test_migration_applies_new_steps_in_order_after_a_copy(folder: Path) -> None:
    make(folder, schema={1: FIRST})
    steps = {1: FIRST, 2: SECOND, 3: "UPDATE one SET y = y * 10;"}
    with closing(Database(folder, steps)) as database, database.reading() as connection:
        assert connection.execute("SELECT x, y FROM one").fetchall() == [(7, 80)]
        assert connection.execute("PRAGMA user_version").fetchone() == (3,)
    with closing(sqlite3.connect(folder / "chat.db.before-0003")) as copy:
        assert copy.execute("SELECT * FROM one").fetchall() == [(7,)]
        assert copy.execute("PRAGMA user_version").fetchone() == (1,)
    assert "newer server (schema 3; this one knows 1)" in rejection(folder, {1: FIRST})


def test_failed_migration_changes_nothing(folder: Path) -> None:
    make(folder, schema={1: FIRST})
    with pytest.raises(StoreError, match="no such table: nowhere"):
        Database(folder, {1: FIRST, 2: SECOND, 3: BROKEN})
    with closing(Database(folder, {1: FIRST})) as database, database.reading() as connection:
        assert connection.execute("SELECT * FROM one").fetchall() == [(7,)]
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)


def test_released_schema_steps_are_unchanged() -> None:
    """Comments inside a statement are stored with the table. A new step gets a new number, and its digest a new row."""
    digests = {}
    with closing(sqlite3.connect(":memory:")) as connection:
        for number, sql in sorted(schema_files().items()):
            connection.executescript(sql)
            stored = connection.execute("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name").fetchall()
            digests[number] = hashlib.sha256("\n".join(text for (text,) in stored).encode()).hexdigest()[:8]
    assert digests == RELEASED


def test_folder_in_use_is_refused_with_its_holder(folder: Path) -> None:
    code = "import sys, pathlib; from chatserver.store.database import Database; Database(pathlib.Path(sys.argv[1]))"
    with closing(Database(folder)):
        with pytest.raises(StoreError, match=rf"Another server uses .* \(process {os.getpid()}, '.+'\); stop it first"):
            Database(folder)
        other = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=False)
        assert "Another server uses the data folder" in other.stderr
    make(folder)


def corrupt(path: Path, page: int) -> None:
    data = bytearray(path.read_bytes())
    data[page * PAGE_BYTES : (page + 1) * PAGE_BYTES] = b"\xaa" * PAGE_BYTES
    path.write_bytes(data)


damages: dict[str, Callable[[Path], object]] = {
    "rubbish": lambda path: path.write_bytes(b"rubbish" * 1000),
    "rubbish after the magic bytes": lambda path: path.write_bytes(b"SQLite format 3\0" + b"\xff" * 8000),
    "shorter than the header": lambda path: path.write_bytes(path.read_bytes()[:99]),
    "the first page": lambda path: path.write_bytes(path.read_bytes()[:PAGE_BYTES]),
    "half a page": lambda path: path.write_bytes(path.read_bytes()[: 3 * PAGE_BYTES + 17]),
    "damaged first page": lambda path: corrupt(path, 0),
    "damaged schema": lambda path: corrupt(path, 1),
    "damaged page": lambda path: corrupt(path, 8),
}


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a closed database with more than nine pages."""
    folder = tmp_path_factory.mktemp("large") / "data"
    assert make(folder, accounts=400).stat().st_size > 9 * PAGE_BYTES
    return folder


@pytest.mark.parametrize("damage", damages)
def test_damaged_database_is_refused_and_not_changed(large: Path, folder: Path, damage: str) -> None:
    """The folder is free again afterwards."""
    shutil.copytree(large, folder)
    path = folder / "chat.db"
    good = path.read_bytes()
    damages[damage](path)
    assert "chat.db" in rejection(folder)
    path.write_bytes(good)
    make(folder)


def test_unusable_path_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "data" / "chat.db").mkdir(parents=True)
    (tmp_path / "closed").mkdir(mode=0o500)
    assert "can't be used: it is not a folder" in rejection(tmp_path / "file")
    assert "can't be used: Not a directory" in rejection(tmp_path / "file" / "inner")
    assert "chat.db" in rejection(tmp_path / "data")
    assert os.geteuid() == 0 or "can't be used: Permission denied" in rejection(tmp_path / "closed")
    assert (tmp_path / "file").read_text() == "mine"


def test_state_file_that_cannot_be_written_is_logged_once_and_tried_again(folder: Path) -> None:
    path = folder / "chat.state"
    with closing(Database(folder)) as database:
        database.state_file.close()
        path.unlink()
        path.mkdir()
        with capture_logs() as log:
            database.note_commit(1, 0)
            database.note_commit(2, 0)
        path.rmdir()
        database.note_commit(3, 0)
    assert [each["event"] for each in log] == ["state file write failed"]
    assert b'"last_id":3' in path.read_bytes()


def test_large_log_is_truncated_after_a_backup_and_no_commit_waits_for_it(folder: Path) -> None:
    """A backup reads for minutes. SQLite would wait 5 s for it after each commit."""
    wal = folder / "chat.db-wal"

    def grow() -> None:
        with database.transaction() as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS more (data)")
            connection.execute("INSERT INTO more VALUES (zeroblob(24 * 1024 * 1024))")

    with closing(Database(folder)) as database, closing(sqlite3.connect(folder / "chat.db")) as backup:
        backup.execute("BEGIN")
        backup.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        times: list[float] = []
        for _ in range(3):
            grow()
            began = time.monotonic()
            database.truncate_log()
            times.append(time.monotonic() - began)
        assert min(times) < 2.5
        assert wal.stat().st_size > 0
        backup.rollback()
        grow()
        database.truncate_log()
        assert wal.stat().st_size == 0


def test_each_connection_of_a_pool_is_used_by_one_thread_at_a_time(tmp_path: Path) -> None:
    """More threads than connections: each gets one in the end, and a pause waits for all of them."""
    pool = ReaderPool(make(tmp_path), 2)
    used: set[int] = set()
    rounds: list[int] = []

    def read() -> None:
        for _ in range(300):
            reader = pool.take()
            assert id(reader) not in used
            used.add(id(reader))
            rounds.append(reader.execute("SELECT 1").fetchone()[0])
            used.remove(id(reader))
            pool.give_back(reader)

    threads = [in_background(read) for _ in range(8)]
    for _ in range(20):
        with pool.paused() as readers:
            assert len(readers) == 2
            assert not used
    for thread in threads:
        must_end(thread)
    assert len(rounds) == 8 * 300
    pool.close()


def test_pause_comes_before_readers_that_come_later(tmp_path: Path) -> None:
    """There are always more readers than connections, and a pause still begins."""
    pool = ReaderPool(make(tmp_path), 2)
    was_paused = threading.Event()

    def read() -> None:
        while not was_paused.is_set():
            reader = pool.take()
            reader.execute(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 999) SELECT max(i) FROM n"
            )
            pool.give_back(reader)

    def pause() -> None:
        with pool.paused():
            was_paused.set()

    threads = [in_background(read) for _ in range(6)]
    pausing = in_background(pause)
    is_in_time = was_paused.wait(DEADLINE_SECONDS)
    was_paused.set()  # the readers end
    for thread in (*threads, pausing):
        must_end(thread)
    assert is_in_time
    pool.close()


def test_second_pause_begins_after_the_first(tmp_path: Path) -> None:
    pool = ReaderPool(make(tmp_path), 2)
    with pool.paused():
        closing_pool = in_background(pool.close)
        assert_waits(closing_pool)
    must_end(closing_pool)


def test_commits_that_a_log_has_are_not_synced(folder: Path) -> None:
    """But the file is never damaged: NORMAL syncs before each checkpoint."""
    with closing(Database(folder, syncs=False)) as database, database.transaction() as connection:
        assert connection.execute("PRAGMA synchronous").fetchone() == (1,)
