"""The disk is full, or fails: senders are told, nobody is sent away, and nothing is shown that is not stored."""

from __future__ import annotations

import os
import resource
import subprocess
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Protocol

import pytest
from integration.room import Peer
from reliability.crowd import Crowd
from reliability.program import Program

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from reliability.crowd import Member

DISK_BYTES = 4 * 1024 * 1024
PAGE_BYTES = 4_096
# Room for some of what is said, and not for all of it: SQLite writes whole pages of 4 KiB.
ROOM_BYTES = 256 * 1024
TEXT = "x" * 1_000


class Disk(Protocol):
    """Where the data is. At first there is room enough."""

    def fill(self, server: Program, room_bytes: int) -> None:
        """Leave no more room than this."""

    def free(self, server: Program) -> None:
        """Let there be room again."""


class FileSizeLimit:
    """The system refuses what would make a file longer: to SQLite that is an error of the disk."""

    def fill(self, server: Program, room_bytes: int) -> None:
        # The write-ahead log is the longest file: that of the server's own log may still grow.
        self._set(server, (server.data / "chat.db-wal").stat().st_size + room_bytes)

    def free(self, server: Program) -> None:
        with suppress(ProcessLookupError):  # it has ended, and its limits with it
            self._set(server, resource.RLIM_INFINITY)

    def _set(self, server: Program, most_bytes: int) -> None:
        _, hard = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (most_bytes, hard))


class SmallDisk:
    """A file system of its own, with a file in it that takes the room."""

    def __init__(self, mounted_at: Path) -> None:
        self._filler = mounted_at / "filler"

    def fill(self, server: Program, room_bytes: int) -> None:
        del server
        with self._filler.open("wb", buffering=0) as filler:
            try:
                while True:
                    filler.write(bytes(PAGE_BYTES))
            except OSError:
                filler.truncate(max(0, filler.tell() - room_bytes))

    def free(self, server: Program) -> None:
        del server
        self._filler.unlink()


@pytest.fixture(params=["a file size limit", "a small file system"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    if request.param == "a file size limit":
        yield FileSizeLimit()
        return
    folder = tmp_path / "data"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, check=False).returncode != 0:
        pytest.skip("no file system can be mounted by this user, or in this container")
    yield SmallDisk(folder)
    subprocess.run(["umount", str(folder)], check=True)


def say(crowd: Crowd, senders: list[Member], count: int) -> None:
    """Let each say so much to all, and to the listener, and wait until all of it is confirmed or refused."""
    due = len(senders[0].of("sent", "error")) + count
    for number in range(due - count, due):
        for sender in senders:
            message = {"message": f"{sender.name} {number} {TEXT}", "nonce": f"{number}"}
            if number % 5:
                sender.ask(command="PM", **message)
            else:
                sender.ask(command="DM", to="listener", **message)
    crowd.wait_until(lambda: all(len(sender.of("sent", "error")) == due for sender in senders), "all answers")


def test_when_the_disk_is_full_senders_are_told_and_nobody_is_disconnected(tmp_path: Path, disk: Disk) -> None:
    with Program(tmp_path) as server, Crowd() as crowd:
        senders = crowd.enter(server.port, [f"sender{number}" for number in range(4)])
        (listener,) = crowd.enter(server.port, ["listener"])
        newcomer = crowd.connect(server.port, "newcomer")
        disk.fill(server, 0)
        say(crowd, senders, 20)
        for sender in senders:
            assert [(refused["code"], refused["nonce"]) for refused in sender.of("error")] == [
                ("internal", f"{number}") for number in range(20)
            ]
        assert listener.of("broadcast", "direct") == []
        newcomer.ask(command="login", username="newcomer", password="secret")
        crowd.wait_until(lambda: bool(newcomer.seen), "an answer to the newcomer")
        assert newcomer.seen[0]["code"] == "internal", "nobody is registered"
        with closing(Peer(server.port)) as again:
            assert again.login("listener")["account"] == "existing", "who has an account comes in"

        disk.free(server)
        for sender in senders:
            sender.seen.clear()
        say(crowd, senders, 20)  # with the same nonces
        crowd.wait_until(lambda: len(listener.of("broadcast", "direct")) == 80, "all that is said")
        for sender in senders:
            assert [confirmed["nonce"] for confirmed in sender.of("sent")] == [f"{number}" for number in range(20)]
        newcomer.ask(command="login", username="newcomer", password="secret")
        crowd.wait_until(lambda: len(newcomer.seen) > 1, "an answer to the newcomer")
        assert newcomer.seen[1]["account"] == "new"
        assert not any(member.is_over for member in crowd.members)
        log = server.log()
    assert log.count("[ERROR] journal failed") == 1
    assert log.count("[INFO] journal recovered") == 1
    assert "Traceback" not in log


def test_when_the_disk_fills_up_what_is_confirmed_and_seen_is_what_is_stored(tmp_path: Path, disk: Disk) -> None:
    """Confirmed means stored, seen means stored: it is compared after a restart."""
    with Program(tmp_path) as server:
        with Crowd() as crowd:
            senders = crowd.enter(server.port, [f"sender{number}" for number in range(4)])
            (listener,) = crowd.enter(server.port, ["listener"])
            disk.fill(server, ROOM_BYTES)
            for _ in range(10):
                say(crowd, senders, 20)
            confirmed = sorted(answer["id"] for sender in senders for answer in sender.of("sent"))
            refused = [answer for sender in senders for answer in sender.of("error")]
            crowd.wait_until(lambda: len(listener.of("broadcast", "direct")) == len(confirmed), "what is confirmed")
            seen = listener.of("broadcast", "direct")
            assert not any(member.is_over for member in crowd.members)
            server.kill()
        assert confirmed, "some of it was stored"
        assert {answer["code"] for answer in refused} == {"internal"}, "some of it was not"
        disk.free(server)
        server.start()
        with closing(Peer(server.port)) as peer:
            peer.login("listener")
            peer.ask(command="CH", limit=500)
            stored = peer.next("history")["messages"]
            assert stored == seen
            assert [message["id"] for message in stored] == confirmed
            assert peer.say("there is room again")["id"] > confirmed[-1]
