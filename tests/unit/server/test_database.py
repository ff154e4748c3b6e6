"""The database file: made, reopened, migrated, refused."""

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from chatserver.store import database as database_module
from chatserver.store.accounts import Accounts
from chatserver.store.database import Database
from chatserver.store.errors import DamagedError, StoreError

from .rooms import register

FIRST = "CREATE TABLE one (x INTEGER);"
SECOND = "ALTER TABLE one ADD COLUMN y INTEGER; UPDATE one SET y = x + 1;"
BROKEN = "CREATE TABLE two (x INTEGER); INSERT INTO nowhere VALUES (1);"
PAGE_BYTES = 4096


@pytest.fixture
def schema(monkeypatch: pytest.MonkeyPatch) -> dict[int, str]:
    """The schema's steps, in place of the real ones."""
    steps: dict[int, str] = {1: FIRST}
    monkeypatch.setattr(database_module, "_schema_files", lambda: steps)
    return steps


def make(folder: Path, accounts: int = 0) -> Path:
    """A database that was closed again; returns its file."""
    database = Database(folder)
    for number in range(accounts):
        register(database, f"user{number}")
    database.close()
    return folder / "chat.db"


def refused(folder: Path) -> str:
    """Why the folder can't be used, in one line; nothing in it is changed by the refusal."""
    before = contents(folder) if folder.is_dir() else {}
    with pytest.raises(StoreError) as error:
        Database(folder).close()
    if before:
        assert contents(folder) == before
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


# --- made and reopened ---


def test_a_database_is_made_from_nothing_with_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "data"
    database = Database(folder)
    with database.reading() as connection:
        tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
        (version,) = connection.execute("PRAGMA user_version").fetchone()
    database.close()

    assert tables >= {"account", "public_message", "direct_message"}
    assert version >= 1


def test_every_commit_reaches_the_disk(database: Database) -> None:
    """Promise: confirmed means stored. In WAL mode that takes synchronous=FULL."""
    with database.transaction() as connection:
        pass
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)


def test_what_was_written_is_there_after_reopening(folder: Path) -> None:
    make(folder, accounts=3)

    database = Database(folder)
    assert Accounts(database).find("user2") is not None
    database.close()


def test_reopening_without_news_makes_no_copy(folder: Path) -> None:
    make(folder)
    make(folder)

    assert sorted(each.name for each in folder.iterdir()) == ["chat.db", "chat.lock", "chat.state"]


def test_files_and_folder_are_for_nobody_else(folder: Path) -> None:
    previous = os.umask(0)
    try:
        database = Database(folder)
        register(database, "alice")
    finally:
        os.umask(previous)

    assert mode_of(folder) == 0o700
    assert {each.name: mode_of(each) for each in folder.glob("chat.db*")} == {
        "chat.db": 0o600,
        "chat.db-shm": 0o600,
        "chat.db-wal": 0o600,
    }
    database.close()


def test_the_copy_before_a_migration_is_for_nobody_else_either(folder: Path, schema: dict[int, str]) -> None:
    """It holds the same password hashes."""
    make(folder)
    schema[2] = SECOND
    previous = os.umask(0)
    try:
        make(folder)
    finally:
        os.umask(previous)

    assert mode_of(folder / "chat.db.before-0002") == 0o600


def test_files_that_others_could_read_are_made_private_at_the_start(folder: Path) -> None:
    """Such as a backup that was restored, and what an older server left."""
    make(folder)
    for name in ("chat.db", "chat.lock", "chat.db.before-0002", "search.db"):
        (folder / name).touch()
        (folder / name).chmod(0o644)
    (folder / "notes.txt").touch(0o644)
    (folder / "notes.txt").chmod(0o644)
    with capture_logs() as log:
        make(folder)
    assert {each.name for each in folder.iterdir() if mode_of(each) != 0o600} == {"notes.txt"}
    assert len(log) == 4
    assert {entry["mode"] for entry in log} == {"644"}


# --- removed or replaced while it is open ---


def removed(folder: Path) -> None:
    shutil.rmtree(folder)


def moved_away(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))


def replaced(folder: Path) -> None:
    moved_away(folder)
    shutil.copytree(folder.with_name("elsewhere"), folder)


def unlinked(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


@pytest.mark.parametrize(
    "harm",
    [removed, moved_away, replaced, unlinked("chat.db"), unlinked("chat.db-wal")],
)
def test_nothing_is_committed_to_files_that_are_not_there_any_more(folder: Path, harm: Callable[[Path], None]) -> None:
    """Promise: confirmed means stored."""
    database = Database(folder)
    harm(folder)
    with pytest.raises(StoreError, match="removed or replaced while the server runs"):
        register(database, "alice")
    assert Accounts(database).find("alice") is None
    database.close()


def test_when_the_folder_comes_back_commits_go_on(folder: Path) -> None:
    database = Database(folder)
    moved_away(folder)
    with pytest.raises(StoreError):
        register(database, "alice")
    folder.with_name("elsewhere").rename(folder)
    register(database, "alice")
    database.close()

    again = Database(folder)
    assert Accounts(again).find("alice") is not None
    again.close()


def test_a_server_whose_folder_was_replaced_leaves_the_new_ones_log_alone(folder: Path) -> None:
    """SQLite deletes the log of the last connection that is closed, by its name."""
    database = Database(folder)
    moved_away(folder)
    new = Database(folder)
    register(new, "alice")
    database.close()
    assert (folder / "chat.db-wal").stat().st_size > 0
    register(new, "bob")
    new.close()


# --- what is said of damage ---


def test_a_text_that_cannot_be_read_is_not_quoted(folder: Path) -> None:
    database = Database(folder)
    with database.transaction() as connection:
        connection.execute("INSERT INTO account VALUES (1, CAST(x'736563726574ff' AS TEXT), 'a', '', 0, 0)")
    with pytest.raises(DamagedError) as error:
        Accounts(database).find("a")
    assert "secret" not in str(error.value)
    assert "a text in it is not UTF-8" in str(error.value)
    database.close()


# --- transactions ---


def test_a_transaction_that_raises_leaves_nothing(database: Database) -> None:
    def fail() -> None:
        with database.transaction() as connection:
            connection.execute("INSERT INTO account VALUES (1, 'a', 'a', 'hash', 0, 0)")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert Accounts(database).find("a") is None
    assert register(database, "a").name == "a"


def test_a_reader_sees_what_is_committed_and_nothing_else(database: Database) -> None:
    accounts = Accounts(database)
    with database.transaction() as connection:
        connection.execute("INSERT INTO account VALUES (1, 'a', 'a', 'hash', 0, 0)")
        assert accounts.find("a") is None
    assert accounts.find("a") is not None


# --- migrations ---


def test_new_schema_steps_are_applied_in_their_order(folder: Path, schema: dict[int, str]) -> None:
    with sqlite3.connect(make(folder)) as connection:
        connection.execute("INSERT INTO one VALUES (7)")
    connection.close()
    schema[2] = SECOND
    schema[3] = "UPDATE one SET y = y * 10;"

    database = Database(folder)
    with database.reading() as connection:
        assert connection.execute("SELECT x, y FROM one").fetchall() == [(7, 80)]
        assert connection.execute("PRAGMA user_version").fetchone() == (3,)
    database.close()


def test_a_copy_is_made_before_a_migration(folder: Path, schema: dict[int, str]) -> None:
    with sqlite3.connect(make(folder)) as connection:
        connection.execute("INSERT INTO one VALUES (7)")
    connection.close()
    schema[2] = SECOND
    make(folder)

    copy = sqlite3.connect(folder / "chat.db.before-0002")
    assert copy.execute("SELECT * FROM one").fetchall() == [(7,)]
    assert copy.execute("PRAGMA user_version").fetchone() == (1,)
    copy.close()


def test_a_migration_that_fails_changes_nothing_at_all(folder: Path, schema: dict[int, str]) -> None:
    with sqlite3.connect(make(folder)) as connection:
        connection.execute("INSERT INTO one VALUES (7)")
    connection.close()
    schema.update({2: SECOND, 3: BROKEN})

    with pytest.raises(StoreError, match="no such table: nowhere"):
        Database(folder)

    del schema[2], schema[3]
    database = Database(folder)
    with database.reading() as connection:
        assert connection.execute("SELECT * FROM one").fetchall() == [(7,)]
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
    database.close()


def test_the_database_of_a_newer_server_is_refused(folder: Path, schema: dict[int, str]) -> None:
    schema[2] = SECOND
    make(folder)
    del schema[2]

    assert "newer server (schema 2; this one knows 1)" in refused(folder)


def test_the_real_schema_steps_are_numbered_without_a_gap() -> None:
    steps = database_module._schema_files()

    assert sorted(steps) == list(range(1, len(steps) + 1))


# --- refused, and nothing overwritten ---


def test_a_folder_in_use_is_refused_and_free_again_afterwards(folder: Path) -> None:
    first = Database(folder)
    with pytest.raises(StoreError, match="Another server uses the data folder"):
        Database(folder)
    first.close()
    make(folder)


def test_the_database_may_be_a_symbolic_link_to_another_disk(folder: Path) -> None:
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir(parents=True)
    (folder / "chat.db").symlink_to(elsewhere / "its.db")
    make(folder)
    make(folder)
    assert [path.name for path in elsewhere.iterdir()] == ["its.db"]


def test_only_who_may_read_the_data_can_hold_the_lock_and_the_holder_is_named(folder: Path) -> None:
    first = Database(folder)
    assert mode_of(folder / "chat.lock") == 0o600
    with pytest.raises(StoreError, match=rf"\(process {os.getpid()}, '.+'\); stop it first"):
        Database(folder)
    first.close()


def test_a_folder_in_use_by_another_process_is_refused(folder: Path) -> None:
    code = "import sys, pathlib; from chatserver.store.database import Database; Database(pathlib.Path(sys.argv[1]))"
    first = Database(folder)
    other = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=False)
    first.close()

    assert "Another server uses the data folder" in other.stderr


def test_a_refused_database_leaves_the_folder_free(folder: Path) -> None:
    path = make(folder)
    good = path.read_bytes()
    path.write_bytes(b"rubbish" * 1000)
    refused(folder)
    path.write_bytes(good)
    make(folder)


@pytest.mark.parametrize("rubbish", [b"x", b"rubbish" * 1000, b"\0" * 8192, b"SQLite format 3\0" + b"\xff" * 8000])
def test_a_file_that_is_no_database_is_refused(folder: Path, rubbish: bytes) -> None:
    folder.mkdir()
    (folder / "chat.db").write_bytes(rubbish)

    assert "chat.db" in refused(folder)


@pytest.mark.parametrize("size_bytes", [1, 99, 511, 4095, PAGE_BYTES, 3 * PAGE_BYTES + 17])
def test_a_truncated_database_is_refused(folder: Path, size_bytes: int) -> None:
    path = make(folder, accounts=200)
    path.write_bytes(path.read_bytes()[:size_bytes])

    assert "chat.db" in refused(folder)


def corrupt(path: Path, page: int) -> None:
    data = bytearray(path.read_bytes())
    data[page * PAGE_BYTES : (page + 1) * PAGE_BYTES] = b"\xaa" * PAGE_BYTES
    path.write_bytes(data)


@pytest.mark.parametrize("page", [0, 1, 2, 3, 5, 8])
def test_a_database_with_a_damaged_page_is_refused(folder: Path, page: int) -> None:
    path = make(folder, accounts=400)
    assert path.stat().st_size > 9 * PAGE_BYTES
    corrupt(path, page)

    assert "chat.db" in refused(folder)


def test_a_damaged_database_that_was_not_closed_is_left_as_it_is_too(folder: Path, tmp_path: Path) -> None:
    """The write-ahead log of a killed server is not folded into a file that is refused."""
    make(folder, accounts=400)
    database = Database(folder)
    register(database, "last")
    killed = tmp_path / "killed"
    shutil.copytree(folder, killed)
    database.close()
    assert (killed / "chat.db-wal").stat().st_size > 0
    corrupt(killed / "chat.db", 8)

    refused(killed)


def test_a_killed_servers_log_is_read_at_the_next_start(folder: Path, tmp_path: Path) -> None:
    """Promise: confirmed means stored. A server that is killed at any moment loses no confirmed message."""
    database = Database(folder)
    register(database, "last")
    killed = tmp_path / "killed"
    shutil.copytree(folder, killed)
    database.close()

    reopened = Database(killed)
    assert Accounts(reopened).find("last") is not None
    reopened.close()


def test_a_file_in_the_way_of_the_folder_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("mine")

    assert "can't be used: File exists" in refused(tmp_path / "data")
    assert (tmp_path / "data").read_text() == "mine"


def test_a_file_in_the_way_of_the_folders_parent_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("mine")

    assert "can't be used: Not a directory" in refused(tmp_path / "data" / "inner")


def test_a_folder_in_the_place_of_the_file_is_one_clear_line(folder: Path) -> None:
    (folder / "chat.db").mkdir(parents=True)

    assert "chat.db" in refused(folder)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_one_clear_line(folder: Path) -> None:
    folder.mkdir(mode=0o500)

    assert "can't be used: Permission denied" in refused(folder)


def test_large_answers_are_sorted_in_memory(database: Database) -> None:
    """A container has no folder for temporary files, and elsewhere others could read them."""
    with database.transaction() as writer, database.reading() as reader:
        for connection in (writer, reader):
            assert connection.execute("PRAGMA temp_store").fetchone() == (2,)
