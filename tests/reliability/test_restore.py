"""A backup is restored while clients stay: they get the new messages, and a warning that some may be missing."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from integration.room import Peer
from reliability.program import DEADLINE_SECONDS, Program

from chatclient import ChatClient
from chatprotocol.events import PublicMessage
from chatprotocol.wire.base import PossibleGap

if TYPE_CHECKING:
    from pathlib import Path

# The newest message when the backup is made, when the server stops, and when the client reconnects.
BACKED_UP, SEEN, NEWEST = 10, 31, 15


def read_until(client: ChatClient, last: str) -> list[str]:
    """The next texts up to this one; a warning is ``gap``."""
    found: list[str] = []
    for event in client.events(DEADLINE_SECONDS):
        if isinstance(event, PossibleGap | PublicMessage):
            found.append("gap" if isinstance(event, PossibleGap) else event.text)
        if last in found:
            break
    return found


def say(port: int, texts: list[str]) -> None:
    with closing(Peer(port)) as alice:
        alice.login("alice")
        for text in texts:
            alice.say(text)


LONG = pytest.mark.long


@pytest.mark.parametrize(
    ("protocol", "is_noticed"),
    [
        ("json", True),
        ("frames", False),
        pytest.param("json", False, marks=LONG),
        pytest.param("frames", True, marks=LONG),
    ],
)
def test_restored_backup_gives_new_messages_and_a_warning(tmp_path: Path, protocol: str, is_noticed: bool) -> None:
    """Promise: no message is lost silently, and none is shown twice.

    After a restore of the database alone the server notices that it is older. After a restore of the whole folder it
    cannot, and only the ids that its clients saw reveal it.
    """
    before = [f"before {number}" for number in range(1, SEEN + 1)]
    after = [f"after {number}" for number in range(BACKED_UP + 1, NEWEST + 1)]
    with Program(tmp_path) as program:
        port = program.port
        with ChatClient("127.0.0.1", port, dialect=protocol) as client:
            client.login("bot", "secret")
            say(port, before[:BACKED_UP])
            assert read_until(client, before[BACKED_UP - 1]) == before[:BACKED_UP]
            with closing(sqlite3.connect(program.data / "chat.db")) as connection:
                connection.execute(f"VACUUM INTO '{program.data}/backup.db'")
            state = (program.data / "chat.state").read_bytes()
            say(port, before[BACKED_UP:])
            assert read_until(client, before[-1]) == before[BACKED_UP:]
            assert program.stop() == 0

            for left_over in program.data.glob("chat.db-*"):
                left_over.unlink()
            (program.data / "backup.db").rename(program.data / "chat.db")
            if not is_noticed:
                (program.data / "chat.state").write_bytes(state)
            program.start()  # on another port, so that the client does not reconnect yet
            say(program.port, after)
            assert program.stop() == 0
            program.start(port)
            say(port, ["now"])
            assert read_until(client, "now") == ["gap", *after, "now"]
