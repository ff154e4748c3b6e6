"""The data folder is changed by others: what is confirmed is in it, and what is missing is told."""

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


def say_all(port: int, name: str, count: int) -> list[int]:
    """The ids that were confirmed."""
    with closing(Peer(port)) as peer:
        peer.login(name)
        return [peer.say(f"text {number}")["id"] for number in range(count)]


def refusals(peer: Peer, port: int) -> list[str]:
    """What is said to somebody who talks, and to somebody who wants to register."""
    peer.ask(command="PM", message="hello", nonce="n")
    with closing(Peer(port)) as newcomer:
        newcomer.ask(command="login", username="newcomer", password="secret")
        return [peer.next("error")["code"], newcomer.next("error")["code"]]


@pytest.mark.parametrize("is_replaced", [False, True])
def test_nothing_is_confirmed_while_the_data_folder_is_not_the_one_that_was_opened(
    tmp_path: Path, is_replaced: bool
) -> None:
    """Confirmed means stored; and when the folder is put back, all goes on."""
    with Program(tmp_path) as program, closing(Peer(program.port)) as alice:
        alice.login("alice")
        first = alice.say("hello")["id"]
        away = tmp_path / "away"
        program.data.rename(away)
        if is_replaced:
            shutil.copytree(away, program.data, ignore=shutil.ignore_patterns("*.sock"))
        assert refusals(alice, program.port) == ["internal"] * 2
        assert refusals(alice, program.port) == ["internal"] * 2
        if is_replaced:
            shutil.rmtree(program.data)
        away.rename(program.data)
        assert alice.say("hello", nonce="n")["id"] == first + 1
        program.wait_until(lambda: "journal recovered" in program.log(), "the line in the log")
        program.kill()
        program.start()
        with closing(Peer(program.port)) as again:
            assert again.login("alice")["last_id"] == first + 1
        log = program.log()
        program.data.rename(away)
        assert program.stop() == 0
    assert log.count("removed or replaced while the server runs") == 1
    assert log.count("journal recovered") == 1
    assert "Traceback" not in log


def test_what_a_cut_log_lost_is_told_and_its_ids_are_not_given_out_again(tmp_path: Path) -> None:
    with Program(tmp_path) as program:
        confirmed = say_all(program.port, "alice", 50)
        program.kill()
        log = program.data / "chat.db-wal"
        os.truncate(log, log.stat().st_size // 2)
        program.start()
        assert say_all(program.port, "alice", 1) == [confirmed[-1] + 1]
        said = program.log()
    assert said.count("[WARNING] history renewed reason=database_older") == 1
    assert f"expected_last_id={confirmed[-1]} next_id={confirmed[-1] + 1}" in said


def test_a_restore_is_told_and_a_forgotten_log_does_not_undo_it(tmp_path: Path) -> None:
    with Program(tmp_path) as program:
        say_all(program.port, "alice", 10)
        with closing(sqlite3.connect(program.data / "chat.db")) as connection:
            connection.execute(f"VACUUM INTO '{tmp_path}/backup.db'")
        say_all(program.port, "alice", 5)
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
        assert say_all(program.port, "alice", 1) == [16]
        assert program.log().count("[WARNING] history renewed reason=database_older") == 1
