"""Another program changes the data folder: confirmed messages are in it, and missing ones are reported."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from integration.room import Peer
from reliability.program import Program

if TYPE_CHECKING:
    from pathlib import Path


def say_all(port: int, count: int) -> list[int]:
    """The ids of the confirmed messages."""
    with closing(Peer(port)) as peer:
        peer.login("alice")
        return [peer.say(f"text {number}")["id"] for number in range(count)]


def errors(peer: Peer, port: int) -> list[str]:
    """The errors of a message and of a new account."""
    peer.ask(command="PM", message="hello", nonce="n")
    with closing(Peer(port)) as newcomer:
        newcomer.ask(command="login", username="newcomer", password="secret")
        return [peer.next("error")["code"], newcomer.next("error")["code"]]


@pytest.mark.parametrize("is_replaced", [True, pytest.param(False, marks=pytest.mark.long)])
def test_moved_data_folder_confirms_nothing(tmp_path: Path, is_replaced: bool) -> None:
    """Promise: a confirmed message is stored. When the folder is back, everything works again."""
    with Program(tmp_path) as program, closing(Peer(program.port)) as alice:
        alice.login("alice")
        first = alice.say("hello")["id"]
        moved = tmp_path / "moved"
        program.data.rename(moved)
        if is_replaced:
            shutil.copytree(moved, program.data, ignore=shutil.ignore_patterns("*.sock"))
        for _ in range(2):
            assert errors(alice, program.port) == ["internal"] * 2
        if is_replaced:
            shutil.rmtree(program.data)
        moved.rename(program.data)
        assert alice.say("hello", nonce="n")["id"] == first + 1
        program.wait_until(lambda: "journal recovered" in program.log(), "the line in the log")
        program.kill()
        program.start()
        with closing(Peer(program.port)) as again:
            assert again.login("alice")["last_id"] == first + 1
        log = program.log()
        program.data.rename(moved)
        assert program.stop() == 0
    assert log.count("removed or replaced while the server runs") == 1
    assert log.count("journal recovered") == 1
    assert "Traceback" not in log


def test_truncated_log_is_reported_and_no_id_is_used_twice(tmp_path: Path) -> None:
    with Program(tmp_path) as program:
        confirmed = say_all(program.port, 50)
        program.kill()
        log = program.data / "chat.db-wal"
        os.truncate(log, log.stat().st_size // 2)
        program.start()
        assert say_all(program.port, 1) == [confirmed[-1] + 1]
        said = program.log()
    assert said.count("[WARNING] history renewed reason=database_older") == 1
    assert f"expected_last_id={confirmed[-1]} next_id={confirmed[-1] + 1}" in said


def test_restore_beside_an_old_log_is_refused(tmp_path: Path) -> None:
    """The log of the old database would undo it. A restore without the log is reported."""
    with Program(tmp_path) as program:
        say_all(program.port, 10)
        with closing(sqlite3.connect(program.data / "chat.db")) as connection:
            connection.execute(f"VACUUM INTO '{tmp_path}/backup.db'")
        say_all(program.port, 5)
        program.kill()
        shutil.copy(tmp_path / "backup.db", program.data / "chat.db")
        with pytest.raises(AssertionError, match="it ended with 2"):
            program.start()
        assert f"chatserver: The write-ahead log {program.data}/chat.db-wal is not of the database" in program.log()

        for each in program.data.glob("chat.db*"):
            each.unlink()
        with pytest.raises(AssertionError, match="it ended with 2"):
            program.start()
        assert f"chatserver: The database {program.data}/chat.db is missing or empty" in program.log()

        shutil.copy(tmp_path / "backup.db", program.data / "chat.db")
        program.start()
        assert say_all(program.port, 1) == [16]
        assert program.log().count("[WARNING] history renewed reason=database_older") == 1
