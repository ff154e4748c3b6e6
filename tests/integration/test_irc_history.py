"""CHATHISTORY and MARKREAD of irc against a server: the messages of users of other protocols, and read marks."""

from __future__ import annotations

import base64
import re
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING

from integration.room import DEADLINE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from integration.room import Room

_CAPABILITIES = "sasl message-tags server-time batch draft/chathistory draft/read-marker"


class Irc:
    """A client of irc that has logged in with a password."""

    def __init__(self, connection: socket.socket, name: str, password: str) -> None:
        self._lines = connection.makefile("rw", encoding="utf-8", newline="\r\n")
        proof = base64.b64encode(f"\0{name}\0{password}".encode()).decode()
        self.ask(f"CAP REQ :{_CAPABILITIES}", f"NICK {name}", f"USER {name} 0 * :{name}", "AUTHENTICATE PLAIN")
        self.ask(f"AUTHENTICATE {proof}", "CAP END")
        self.until(r"^\S+ (376|422|90[24-8]) ")

    def ask(self, *lines: str) -> None:
        for line in lines:
            self._lines.write(f"{line}\r\n")
        self._lines.flush()

    def until(self, *patterns: str) -> list[str]:
        """The lines up to the first that has one of the patterns, which excludes tags."""
        found: list[str] = []
        while True:
            line = self._lines.readline().rstrip("\r\n")
            assert line, f"the connection ended after {found}"
            found.append(line)
            bare = re.sub(r"^@\S+ ", "", line)
            if any(re.search(pattern, bare) for pattern in patterns):
                return found

    def history(self, command: str) -> list[tuple[str, str]]:
        """Id and text of each message of the answer, which is one batch."""
        self.ask(f"CHATHISTORY {command}")
        lines = self.until(r" BATCH -", " FAIL ")
        assert re.search(r"BATCH \+\S+ chathistory ", lines[0]), lines
        return [re.search(r"[@;]msgid=(\d+).*? PRIVMSG \S+ :?(.*)", line).groups() for line in lines[1:-1]]  # type: ignore[union-attr,misc]

    def one(self, command: str) -> str:
        """The answer of one line, without its tags and source."""
        self.ask(command)
        (line,) = self.until(rf"\b{command.split(maxsplit=1)[0]} ")[-1:]
        return re.sub(r"^(@\S+ )?(:\S+ )?", "", line)


@contextmanager
def irc(room: Room, name: str) -> Iterator[Irc]:
    with socket.create_connection(("127.0.0.1", room.server.port), DEADLINE_SECONDS) as connection:
        yield Irc(connection, name, "secret")


def test_history_has_the_messages_of_other_protocols(shared_room: Room, fresh_name: Callable[[str], str]) -> None:
    """With the ids of json: before, after, around and between ids and times, which are excluded."""
    alice, bob = fresh_name("alice"), fresh_name("bob")
    writer = shared_room.enter(bob)
    shared_room.enter(alice)
    said = []
    for number in range(6):
        writer.ask(command="DM", to=alice, message=f"text {number}")
        said.append((str(writer.next("sent")["id"]), f"text {number}"))
    with irc(shared_room, alice) as client:
        assert client.history(f"LATEST {bob} * 3") == said[3:]
        assert client.history(f"LATEST {bob} msgid={said[3][0]} 50") == said[4:]
        assert client.history(f"BEFORE {bob} msgid={said[3][0]} 2") == said[1:3]
        assert client.history(f"AFTER {bob} msgid={said[1][0]} 2") == said[2:4]
        assert client.history(f"AROUND {bob} msgid={said[2][0]} 3") == said[1:4]
        assert client.history(f"BETWEEN {bob} msgid={said[0][0]} msgid={said[5][0]} 2") == said[1:3]
        assert client.history(f"BETWEEN {bob} msgid={said[5][0]} msgid={said[0][0]} 2") == said[3:5]
        assert client.history(f"AFTER {bob} timestamp=2000-01-01T00:00:00.000Z 2") == said[:2]
        assert client.history(f"BEFORE {bob} timestamp=2000-01-01T00:00:00.000Z 2") == []
        client.ask("CHATHISTORY TARGETS timestamp=2000-01-01T00:00:00.000Z timestamp=2100-01-01T00:00:00.000Z 50")
        targets = client.until(r"BATCH -")
        assert re.search(r"BATCH \+\S+ draft/chathistory-targets", targets[0])
        assert any(re.search(rf" CHATHISTORY TARGETS {bob} \d{{4}}-\S+Z$", line) for line in targets)


def test_read_mark_is_answered_and_told_to_the_other_client(
    shared_room: Room, fresh_name: Callable[[str], str]
) -> None:
    """An older time is answered with the one that is stored."""
    alice, bob = fresh_name("alice"), fresh_name("bob")
    shared_room.enter(alice)
    shared_room.enter(bob)
    older, newer = "timestamp=2020-01-01T00:00:00.000Z", "timestamp=2020-01-02T00:00:00.123Z"
    with irc(shared_room, alice) as phone, irc(shared_room, alice) as laptop:
        assert phone.one(f"MARKREAD {bob}") == f"MARKREAD {bob} *"
        assert phone.one(f"MARKREAD {bob} {newer}") == f"MARKREAD {bob} {newer}"
        assert laptop.until(r"MARKREAD ")[-1].endswith(f"MARKREAD {bob} {newer}")
        assert laptop.one(f"MARKREAD {bob} {older}") == f"MARKREAD {bob} {newer}"
        assert re.search("FAIL MARKREAD INVALID_PARAMS", laptop.one(f"MARKREAD {bob} yesterday"))
