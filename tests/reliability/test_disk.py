"""The disk is full or fails: senders get errors, clients stay connected, and only stored messages are shown."""

from __future__ import annotations

import resource
from contextlib import closing
from typing import TYPE_CHECKING

from integration.room import Peer
from reliability.crowd import Crowd
from reliability.program import Program

if TYPE_CHECKING:
    from pathlib import Path

    from reliability.crowd import Member

# Space for some of the messages: SQLite writes pages of 4 KiB.
SPACE_BYTES = 256 * 1024
TEXT = "x" * 1_000


def limit_files(server: Program, left_bytes: int | None) -> None:
    """Let the system refuse to extend files by more than this; None ends that. SQLite gets an I/O error."""
    limit_bytes = resource.RLIM_INFINITY
    if left_bytes is not None:  # the write-ahead log is the longest file, so the server's own log can still grow
        limit_bytes = (server.data / "chat.db-wal").stat().st_size + left_bytes
    _, hard = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (limit_bytes, hard))


def say(crowd: Crowd, senders: list[Member], count: int) -> None:
    """Let each sender send messages to all and to the listener, and wait for their confirmations or errors."""
    total = len(senders[0].of("sent", "error")) + count
    for number in range(total - count, total):
        for sender in senders:
            to = {"command": "PM"} if number % 5 else {"command": "DM", "to": "listener"}
            sender.ask(**to, message=f"{sender.name} {number} {TEXT}", nonce=f"{number}")
    crowd.wait_until(lambda: all(len(sender.of("sent", "error")) == total for sender in senders), "all answers")


def test_full_disk_gives_errors_and_disconnects_no_client(tmp_path: Path) -> None:
    """Promise: afterwards everything works again, and the log has one line for each change."""
    with Program(tmp_path) as server, Crowd() as crowd:
        senders = crowd.enter(server.port, [f"sender{number}" for number in range(4)])
        (listener,) = crowd.enter(server.port, ["listener"])
        newcomer = crowd.connect(server.port, "newcomer")
        nonces = [f"{number}" for number in range(20)]
        limit_files(server, 0)
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

        limit_files(server, None)
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
        log = server.log()
    assert log.count("[ERROR] journal failed") == 1
    assert log.count("[INFO] journal recovered") == 1
    assert "Traceback" not in log


def test_disk_that_fills_up_stores_all_confirmed_messages(tmp_path: Path) -> None:
    """Promise: the confirmed, the visible and the stored messages are the same, also after a restart."""
    with Program(tmp_path) as server:
        with Crowd() as crowd:
            senders = crowd.enter(server.port, [f"sender{number}" for number in range(4)])
            (listener,) = crowd.enter(server.port, ["listener"])
            limit_files(server, SPACE_BYTES)
            for _ in range(10):
                say(crowd, senders, 20)
            confirmed = sorted(answer["id"] for sender in senders for answer in sender.of("sent"))
            errors = {answer["code"] for sender in senders for answer in sender.of("error")}
            crowd.wait_until(lambda: len(listener.of("broadcast", "direct")) == len(confirmed), "all confirmed ones")
            seen = listener.of("broadcast", "direct")
            assert not any(member.is_over for member in crowd.members)
            server.kill()
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
