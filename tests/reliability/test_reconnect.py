"""A client whose connection breaks repeatedly misses no message, and sends none twice."""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from integration.room import Peer
from reliability.crowd import Crowd
from reliability.history import Content, read_history
from reliability.program import Program, own_environment
from reliability.proxy import Proxy

from chatclient import ChatClient, PublicMessage

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from reliability.crowd import Member

    Line = dict[str, Any]

CLIENT = "client"
SPEAKERS = ["alice", "bob", "carol"]
# Messages that the client hears, and sends.
HEARD = 1_000
SAID = 200
DIRECT_SHARE = 0.1
# Messages that a program hears in all rooms together.
HEARD_IN_ROOMS = 400
# Deadline of each wait.
PATIENCE_SECONDS = 20.0
_READ_BYTES = 64 * 1024


class Speakers:
    """The other users. They are a few messages ahead of the client, so that it misses some while disconnected."""

    def __init__(
        self, members: list[Member], chance: random.Random, ahead_max: int, recipients: Sequence[str] = (CLIENT,)
    ) -> None:
        """``recipients``: those of direct messages."""
        self._members = members
        self._recipients = recipients
        self._chance = chance
        self._ahead_max = ahead_max
        self._said = 0

    def follow(self, heard: int) -> None:
        """The client has heard this number of messages."""
        ahead = self._chance.choice((1, 5, self._ahead_max))
        while self._said < min(HEARD, heard + ahead):
            self._said += 1
            self._chance.choice(self._members).ask(
                **message_to(f"message {self._said}", self._chance, self._recipients)
            )


class ClientProgram:
    """The program ``chatclient`` and what it hears and sends. The test reads its output and writes its input."""

    # A connection breaks after at most this many bytes in one direction: about sixty messages.
    CARRIED_MAX_BYTES = 12_000
    # Maximum number of messages that are missed at once.
    MISSED_MAX = 50
    # Recipients of its direct messages, and of those of the others.
    OTHERS: ClassVar[list[str]] = SPEAKERS
    RECIPIENTS: ClassVar[list[str]] = [CLIENT]
    FLAGS: tuple[str, ...] = ()

    _MESSAGE = re.compile(r"\[(?:public|direct) #(\d+) \S+\] (\w+)(?: -> (\w+))?: (.*)")
    _CONFIRMED = re.compile(r"\[(?:sent|stored) #(\d+)\].*")
    _OTHER = re.compile(r"\[(welcome new|back|lost|joined|left|bye|ask)\] .*")

    def __init__(self, port: int, chance: random.Random) -> None:
        self.heard: list[tuple[int, Content]] = []
        self.said: list[str] = []
        self.confirmed_ids: list[int] = []
        self._port = port
        self._chance = chance

    def run(self, speakers: Speakers) -> None:
        with subprocess.Popen(
            [sys.executable, "-m", "chatclient", "127.0.0.1", str(self._port), CLIENT, *self.FLAGS],
            env={**own_environment(), "CHAT_PASSWORD": "secret"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            output = process.stdout.fileno()
            try:
                for line in read_lines(output, lambda most: os.read(output, most)):
                    self._handle(line.decode())
                    speakers.follow(len(self.heard))
                    for message in self._next_messages():
                        command = f"DM {message['to']}" if "to" in message else "PM"
                        process.stdin.write(f"{command} {message['message']}\n".encode())
                        process.stdin.flush()
                    if self._is_done():
                        process.stdin.close()
                assert process.wait(PATIENCE_SECONDS) == 0
            finally:
                process.kill()

    def _is_done(self) -> bool:
        return len(self.heard) == HEARD and len(self.confirmed_ids) == SAID

    def _hear(self, message_id: int, content: Content) -> None:
        for last_id, _ in self.heard[-1:]:
            assert message_id > last_id, f"{message_id} came after {last_id}"
        self.heard.append((message_id, content))

    def _next_messages(self) -> list[Line]:
        """Some messages while there is more to hear, and then all the rest."""
        lines = []
        while len(self.said) < SAID and (len(self.heard) == HEARD or self._chance.random() < SAID / HEARD):
            lines.append(message_to(f"text {len(self.said)}", self._chance, self.OTHERS))
            self.said.append(lines[-1]["message"])
        return lines

    def _handle(self, line: str) -> None:
        if message := self._MESSAGE.fullmatch(line):
            self._hear(int(message[1]), Content(*message.group(2, 3, 4)))
        elif confirmed := self._CONFIRMED.fullmatch(line):
            self.confirmed_ids.append(int(confirmed[1]))
        else:
            assert self._OTHER.fullmatch(line), line


class WebSocketProgram(ClientProgram):
    """The same requests after a handshake, which breaks as well."""

    FLAGS = ("--dialect", "websocket")


class FramesProgram(ClientProgram):
    """A protocol without ``since`` and ``nonce``: the program searches the history, which shows 50 messages."""

    FLAGS = ("--dialect", "frames")
    MISSED_MAX = 30
    # Echoes of its own direct messages have no recipient in this protocol.
    OTHERS: ClassVar[list[str]] = []

    def _next_messages(self) -> list[Line]:
        """Before its first message the program cannot tell an own message in the history from an older one."""
        return super()._next_messages() if self.heard else []


class IrcProgram(ClientProgram):
    """The program asks for missed messages of the lobby.

    It never sends a direct message again, and misses those that the proxy has taken from the server and lost: IRC has
    no question for the direct messages of all users.
    """

    FLAGS = ("--dialect", "irc")
    MISSED_MAX = 30
    OTHERS: ClassVar[list[str]] = []
    RECIPIENTS: ClassVar[list[str]] = []


def message_to(text: str, chance: random.Random, others: Sequence[str]) -> Line:
    """A command that sends this to all, or to one of the others."""
    if others and chance.random() < DIRECT_SHARE:
        return {"command": "DM", "to": chance.choice(others), "message": text}
    return {"command": "PM", "message": text}


def read_lines(descriptor: int, read: Callable[[int], bytes]) -> Iterator[bytes]:
    """All complete lines up to the end."""
    unread = b""
    while True:
        assert select.select([descriptor], [], [], PATIENCE_SECONDS)[0], "no more input"
        data = read(_READ_BYTES)
        *lines, unread = (unread + data).split(b"\n")
        yield from lines
        if not data:
            return


@pytest.mark.long
@pytest.mark.parametrize("kind", [ClientProgram, WebSocketProgram, FramesProgram, IrcProgram])
def test_client_with_broken_connections_misses_nothing(
    tmp_path: Path, chance: random.Random, kind: type[ClientProgram]
) -> None:
    """Promise: each message of others arrives once and in order; each message of the client is stored once."""
    with Program(tmp_path) as program, Crowd() as crowd, Proxy(program.port, chance, kind.CARRIED_MAX_BYTES) as proxy:
        speakers = Speakers(crowd.enter(program.port, SPEAKERS), chance, kind.MISSED_MAX, kind.RECIPIENTS)
        client = kind(proxy.port, chance)
        client.run(speakers)
        history = read_history(program.port, CLIENT)
        with closing(Peer(program.port)) as again:
            again.login(CLIENT, since=max(client.heard[-1][0], *client.confirmed_ids))
            assert {answer["type"] for answer in again.until_fence()} <= {"users"}, "there is nothing new"
    print(Counter(proxy.cuts))
    own = {key: content for key, content in history.items() if content.sender == CLIENT}
    assert client.heard == [(key, content) for key, content in history.items() if key not in own]
    assert sorted(content.text for content in own.values()) == sorted(client.said)
    assert sorted(client.confirmed_ids) == list(own)
    assert {cut.how for cut in proxy.cuts if cut.is_inside_line} == {"close", "reset", "swallow"}


ROOMS = [None, "dev", "ops", "tea"]


def test_program_in_rooms_with_broken_connections_misses_nothing(tmp_path: Path, chance: random.Random) -> None:
    """Promise: each message of each room arrives once and in order; each own message is stored once, in its room."""
    heard: dict[str | None, list[int]] = {room: [] for room in ROOMS}
    said: dict[str | None, list[int]] = {room: [] for room in ROOMS}
    with (
        Program(tmp_path) as program,
        Proxy(program.port, chance, ClientProgram.CARRIED_MAX_BYTES) as proxy,
        closing(Peer(program.port)) as speaker,
        ChatClient("127.0.0.1", proxy.port) as client,
    ):
        client.login(CLIENT, "secret")
        speaker.login("alice")
        for room in ROOMS[1:]:
            client.join(str(room))
            speaker.ask(command="join", room=room)
        count = asked = 0
        while count < HEARD_IN_ROOMS:
            ahead = chance.choice((1, 5, ClientProgram.MISSED_MAX))
            while asked < min(HEARD_IN_ROOMS, count + ahead):
                speaker.ask(command="PM", room=chance.choice(ROOMS) or "lobby", message=f"message {asked}")
                asked += 1
            if chance.random() < SAID / HEARD:
                room = chance.choice(ROOMS)
                said[room].append(client.say(f"text in {room}", room) or 0)
            for event in client.events(PATIENCE_SECONDS):
                if isinstance(event, PublicMessage):
                    heard[event.room].append(event.id)
                    count += 1
                    break
        assert [each for each in client.events(0.2) if isinstance(each, PublicMessage)] == []
        for room in ROOMS:
            speaker.ask(command="CH", room=room or "lobby", limit=500)
            stored = speaker.next("history")["messages"]
            assert heard[room] == [each["id"] for each in stored if each["from"] == "alice"]
            assert said[room] == [each["id"] for each in stored if each["from"] == CLIENT]
    print(Counter(proxy.cuts))
    assert {cut.how for cut in proxy.cuts} == {"close", "reset", "swallow"}
