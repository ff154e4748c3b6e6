"""The check at the start: lost data is noticed, and the ids of confirmed messages are not used again."""

import os
import shutil
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from chatserver.store.accounts import insert_account
from chatserver.store.database import Database
from chatserver.store.errors import StoreError
from chatserver.store.identity import read_history_id
from chatserver.store.message_table import insert_in_room, read_last_id
from chatserver.store.reconcile import reconcile
from chatserver.store.rooms import LOBBY_ID, end_room, insert_room
from chatserver.store.state import STATE_FILE, StateFile

CALLS_THAT_CHANGE_FILES = ("execute", "executescript", "pwrite", "close")


class Run:
    """A server's use of its database, from the start on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.database = Database(folder)
        try:
            with capture_logs() as log:
                self.last_id = reconcile(self.database)
        except BaseException:
            self.database.close()
            raise
        self.said = [entry["reason"] for entry in log if entry["event"] == "history renewed"]
        self.log = log

    def register(self, name: str) -> None:
        with self.database.transaction() as connection:
            account = insert_account(connection, name, "hash", 0)
        assert account is not None
        self.database.note_commit(self.last_id, account.id)

    def say(self, count: int) -> None:
        for _ in range(count):
            with self.database.transaction() as connection:
                insert_in_room(connection, LOBBY_ID, self.last_id + 1, 0, 1, ["text"], [None])
            self.last_id += 1
            self.database.note_commit(self.last_id, 0)

    def identity(self) -> str:
        with self.database.reading() as connection:
            return read_history_id(connection)

    def stored_upto(self) -> int:
        with self.database.reading() as connection:
            return read_last_id(connection)

    def kill(self, folder: Path) -> Path:
        """End; returns the folder as a ``kill -9`` would leave it."""
        shutil.copytree(self.folder, folder)
        self.database.close()
        return folder


def run_of(folder: Path, messages: int = 0) -> Run:
    """The first run in a folder."""
    run = Run(folder)
    run.register("alice")
    run.say(messages)
    return run


def restore(backup: Path, folder: Path) -> None:
    """Replace the database and its log."""
    for each in folder.glob("chat.db*"):
        each.unlink()
    shutil.copy(backup, folder / "chat.db")


def vacuum(folder: Path, backup: Path) -> None:
    with closing(sqlite3.connect(folder / "chat.db")) as connection:
        connection.execute(f"VACUUM INTO '{backup}'")


def backup_api(folder: Path, backup: Path) -> None:
    with closing(sqlite3.connect(folder / "chat.db")) as connection, closing(sqlite3.connect(backup)) as copy:
        connection.backup(copy)


def contents(folder: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in folder.iterdir() if not each.name.endswith("-shm")}


def error(folder: Path) -> str:
    """The error of a start that is refused. Nothing is changed."""
    before = contents(folder)
    with pytest.raises(StoreError) as error:
        Run(folder)
    assert contents(folder) == before
    return str(error.value)


@pytest.mark.parametrize("is_killed", [False, True])
def test_unchanged_database_is_accepted_silently(folder: Path, tmp_path: Path, is_killed: bool) -> None:
    run = run_of(folder, 10)
    assert run.said == []
    identity = run.identity()
    folder = run.kill(tmp_path / "killed") if is_killed else (run.database.close(), folder)[1]
    for _ in range(2):
        run = Run(folder)
        assert (run.said, run.identity(), run.last_id) == ([], identity, 10)
        run.database.close()


def test_newest_message_may_be_in_a_room_that_has_ended(folder: Path, tmp_path: Path) -> None:
    """Promise: no id is used twice, and lost data is reported."""
    run = run_of(folder, 1)
    vacuum(folder, tmp_path / "backup")
    with run.database.transaction() as connection:
        room_id = insert_room(connection, "dev", 0, is_private=False)
        assert room_id
        insert_in_room(connection, room_id, 2, 0, 1, ["text"], [None])
        end_room(connection, room_id)
    run.database.note_commit(2, 0)
    run.database.close()
    run = Run(folder)
    assert (run.said, run.last_id) == ([], 2)
    run.database.close()
    restore(tmp_path / "backup", folder)
    run = Run(folder)
    assert (run.said, run.last_id) == (["database_older"], 2)
    run.database.close()


def test_missing_identity_is_created(folder: Path) -> None:
    run = run_of(folder)
    first = run.identity()
    with run.database.transaction() as connection:
        connection.execute("DELETE FROM history_identity")
    run.database.close()
    created = []
    for _ in range(2):
        run = Run(folder)
        created.append(run.identity())
        run.database.close()
    assert created[0] == created[1] != first


@pytest.mark.long
def test_start_killed_at_any_step_raises_no_false_alarm(folder: Path, tmp_path: Path) -> None:
    killed = run_of(folder, 10).kill(tmp_path / "killed")
    assert (killed / "chat.db-wal").stat().st_size > 0
    copy = tmp_path / "copy"
    step, is_over = 1, False
    while not is_over:
        shutil.copytree(killed, copy)
        is_over = start_and_die(copy, (step + 1) // 2)
        again = copy.with_name("again")
        with closing(sqlite3.connect(copy / "chat.db")) as connection:
            if step % 2:  # killed after pages of the log were folded into the file, before the log was emptied
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
            shutil.copytree(copy, again)
        run = Run(again)
        assert (run.said, run.last_id) == ([], 10), f"killed at step {step / 2}"
        run.database.close()
        shutil.rmtree(copy)
        shutil.rmtree(again)
        step += 1
    assert step > 10


def start_and_die(folder: Path, step: int) -> bool:
    """Start in a process that ends before this of its calls that change files. Returns True if it makes fewer."""
    child = os.fork()
    if not child:
        left = step

        def count(_frame: object, event: str, called: object) -> None:
            nonlocal left
            left -= event == "c_call" and getattr(called, "__name__", "") in CALLS_THAT_CHANGE_FILES
            if not left:
                os._exit(9)

        sys.setprofile(count)
        Run(folder)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# Ways to lose the last messages and an account.
LOSSES: dict[str, Callable[[Path, Path], object]] = {
    "half of the log": lambda folder, _: os.truncate(folder / "chat.db-wal", 40_000),
    "the log": lambda folder, _: (folder / "chat.db-wal").unlink(),
    "all since a backup": lambda folder, backup: restore(backup, folder),
}


@pytest.mark.parametrize("lose", LOSSES.values(), ids=LOSSES)
def test_lost_messages_are_logged_once_and_their_ids_not_used_again(
    folder: Path, tmp_path: Path, lose: Callable[[Path, Path], object]
) -> None:
    run = run_of(folder)
    run.database.close()
    run = Run(folder)
    run.say(10)
    vacuum(folder, tmp_path / "backup.db")
    identity = run.identity()
    run.say(21)
    run.register("bob")
    killed = run.kill(tmp_path / "killed")
    lose(killed, tmp_path / "backup.db")

    run = Run(killed)
    assert run.said == ["database_older"]
    stored = run.stored_upto()
    assert stored < 31
    assert (run.log[0]["last_id"], run.log[0]["expected_last_id"], run.log[0]["next_id"]) == (stored, 31, 32)
    assert (run.log[0]["accounts"], run.log[0]["expected_accounts"]) == (1, 2)
    renewed = run.identity()
    assert renewed != identity
    run.database.close()
    run = Run(killed)
    assert (run.said, run.identity(), run.last_id) == ([], renewed, 31), "it is told once"
    run.say(1)
    assert run.stored_upto() == 32
    run.database.close()


def test_database_of_another_server_is_logged(folder: Path, tmp_path: Path) -> None:
    run_of(folder, 10).database.close()
    other = run_of(tmp_path / "other", 20)
    identity = other.identity()
    other.database.close()
    restore(tmp_path / "other" / "chat.db", folder)
    run = Run(folder)
    assert run.said == ["database_replaced"]
    assert run.identity() != identity
    assert run.last_id == 20
    run.database.close()


@pytest.mark.parametrize("content", [None, b"", b"\0" * 512, b'{"history_id": 7}'])
def test_database_without_its_state_gets_a_new_identity(folder: Path, content: bytes | None) -> None:
    """It may be a backup in an empty folder, and clients may have seen more messages."""
    run = run_of(folder, 10)
    identity = run.identity()
    run.database.close()
    (folder / STATE_FILE).unlink()
    if content is not None:
        (folder / STATE_FILE).write_bytes(content)
    run = Run(folder)
    assert run.said == ["state_missing"]
    assert run.identity() != identity
    assert run.last_id == 10
    run.database.close()


def test_state_file_is_private_and_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / STATE_FILE
    file = StateFile(path)
    for last_id in (2**53, 1):
        file.write(type(file.state)(history_id="0" * 32, last_id=last_id, run_ids=(2**31 - 1, 1)))
        assert StateFile(path).state == file.state
        assert path.stat().st_size == 512
    file.close()
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("with_state", [True, False])
@pytest.mark.parametrize("is_there", [True, False])
def test_missing_database_is_not_taken_for_a_new_server(
    folder: Path, tmp_path: Path, is_there: bool, with_state: bool
) -> None:
    """Without its state it is known by the log of a killed server. SQLite would delete that log."""
    run = run_of(folder, 10)
    killed = run.kill(tmp_path / "killed")
    (killed / "chat.db").unlink()
    if is_there:
        (killed / "chat.db").touch()
    (killed / ("chat.db-wal" if with_state else STATE_FILE)).unlink()
    assert "missing or empty, and there was one" in error(killed)
    for each in (STATE_FILE, "chat.db-wal"):
        (killed / each).unlink(missing_ok=True)
    run = Run(killed)
    assert (run.said, run.last_id) == ([], 0)
    run.database.close()


@pytest.mark.parametrize(
    ("back_up", "runs_later", "has_state"),
    [(vacuum, 0, True), (vacuum, 1, True), (backup_api, 0, True), (backup_api, 1, True), (vacuum, 0, False)],
)
def test_forgotten_log_beside_a_backup_does_not_undo_the_restore(
    folder: Path, tmp_path: Path, back_up: Callable[[Path, Path], None], runs_later: int, has_state: bool
) -> None:
    run = run_of(folder, 10)
    back_up(folder, tmp_path / "backup.db")
    for _ in range(runs_later):
        run.database.close()
        run = Run(folder)
    run.say(5)
    killed = run.kill(tmp_path / "killed")
    shutil.copy(tmp_path / "backup.db", killed / "chat.db")
    if not has_state:
        (killed / STATE_FILE).unlink()
    assert "chat.db-wal is not of the database" in error(killed)
    (killed / "chat.db-wal").unlink()
    (killed / "chat.db-shm").unlink()
    run = Run(killed)
    assert len(run.said) == 1
    assert run.stored_upto() == 10
    run.database.close()
