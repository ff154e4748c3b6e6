"""The disk is full or fails: senders get errors, clients stay connected, and only stored messages are shown."""

from __future__ import annotations

import os
import resource
import subprocess
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from integration.room import Peer
from reliability.crowd import Crowd
from reliability.program import Program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from reliability.crowd import Member

    # Leaves the server this many bytes of the disk; None frees it again.
    LimitDisk = Callable[[Program, int | None], None]

# Space for some of the messages: SQLite writes pages of 4 KiB.
SPACE_BYTES = 256 * 1024
TEXT = "x" * 1_000


def limit_files(server: Program, left_bytes: int | None) -> None:
    """Let the system refuse to extend files by more than this; None ends that. SQLite gets an I/O error."""
    if server.process.poll() is not None:
        return
    limit_bytes = resource.RLIM_INFINITY
    if left_bytes is not None:  # the write-ahead log is the longest file, so the server's own log can still grow
        limit_bytes = (server.data / "chat.db-wal").stat().st_size + left_bytes
    _, hard = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (limit_bytes, hard))


def fill(filler: Path, left_bytes: int | None) -> None:
    """Fill the file system of this file but for some bytes; None empties it. SQLite gets ENOSPC."""
    filler.unlink(missing_ok=True)
    if left_bytes is not None:
        with filler.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4_096))
            except OSError:
                file.truncate(max(0, file.tell() - left_bytes))


@pytest.fixture(params=["file size", pytest.param("file system", marks=pytest.mark.long)])
def limit_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LimitDisk]:
    if request.param == "file size":
        yield limit_files
        return
    folder = tmp_path / "data"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False).returncode != 0:
        pytest.skip("this user can't mount a file system")
    yield lambda _, left_bytes: fill(folder / "filler", left_bytes)
    subprocess.run(["umount", str(folder)], check=True)


def say(crowd: Crowd, senders: list[Member], count: int) -> None:
    """Let each sender send messages to all and to the listener, and wait for their confirmations or errors."""
    total = len(senders[0].of("sent", "error")) + count
    for number in range(total - count, total):
        for sender in senders:
            to = {"command": "PM"} if number % 5 else {"command": "DM", "to": "listener"}
            sender.ask(**to, message=f"{sender.name} {number} {TEXT}", nonce=f"{number}")
    crowd.wait_until(lambda: all(len(sender.of("sent", "error")) == total for sender in senders), "all answers")


def test_full_disk_gives_errors_and_disconnects_no_client(tmp_path: Path, limit_disk: LimitDisk) -> None:
    """Promise: afterwards everything works again, and the log has one line for each change."""
    with Program(tmp_path) as server, Crowd() as crowd:
        senders = crowd.enter(server.port, [f"sender{number}" for number in range(4)])
        (listener,) = crowd.enter(server.port, ["listener"])
        newcomer = crowd.connect(server.port, "newcomer")
        nonces = [f"{number}" for number in range(20)]
        limit_disk(server, 0)
        say(crowd, senders, 20)
        for sender in senders:
            assert [(error["code"], error["nonce"]) for error in sender.of("error")] == [
                ("internal", nonce) for nonce in nonces
            ]
        assert listener.of("broadcast", "direct") == []
        newcomer.ask(command="login", username="newcomer", password="secret")
        crowd.wait_until(lambda: bool(newcomer.seen), "an answer to the newcomer")
        assert newcomer.seen[0]["code"] == "internal", "no account can be created"
        with closing(Peer(server.port)) as again:
            assert again.login("listener")["account"] == "existing"

        limit_disk(server, None)
        for sender in senders:
            sender.seen.clear()
        say(crowd, senders, 20)  # with the same nonces
        crowd.wait_until(lambda: len(listener.of("broadcast", "direct")) == 80, "all messages")
        for sender in senders:
            assert [confirmed["nonce"] for confirmed in sender.of("sent")] == nonces
        newcomer.ask(command="login", username="newcomer", password="secret")
        crowd.wait_until(lambda: len(newcomer.seen) > 1, "an answer to the newcomer")
        assert newcomer.seen[1]["account"] == "new"
        assert not any(member.is_over for member in crowd.members)
        assert server.stop() == 0
    log = server.log()
    assert log.count("[ERROR] journal failed") == 1
    assert log.count("[INFO] journal recovered") == 1
    assert "Traceback" not in log


def test_disk_that_fills_up_stores_all_confirmed_messages(tmp_path: Path, limit_disk: LimitDisk) -> None:
    """Promise: the confirmed, the visible and the stored messages are the same, also after a restart."""
    with Program(tmp_path) as server:
        with Crowd() as crowd:
            senders = crowd.enter(server.port, [f"sender{number}" for number in range(4)])
            (listener,) = crowd.enter(server.port, ["listener"])
            limit_disk(server, SPACE_BYTES)
            for _ in range(10):
                say(crowd, senders, 20)
            confirmed = sorted(answer["id"] for sender in senders for answer in sender.of("sent"))
            errors = {answer["code"] for sender in senders for answer in sender.of("error")}
            crowd.wait_until(lambda: len(listener.of("broadcast", "direct")) == len(confirmed), "all confirmed ones")
            seen = listener.of("broadcast", "direct")
            assert not any(member.is_over for member in crowd.members)
            server.kill()
        limit_disk(server, None)
        assert confirmed, "some were stored"
        assert errors == {"internal"}, "some were not"
        server.start()
        with closing(Peer(server.port)) as peer:
            peer.login("listener")
            peer.ask(command="CH", limit=500)
            stored = peer.next("history")["messages"]
            assert stored == seen
            assert [message["id"] for message in stored] == confirmed
            assert peer.say("there is space again")["id"] > confirmed[-1]
