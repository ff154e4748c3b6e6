"""The data folder is moved while the server runs: nothing is confirmed that is not in it."""

from __future__ import annotations

import shutil
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from integration.room import Peer
from reliability.program import Program

if TYPE_CHECKING:
    from pathlib import Path


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
