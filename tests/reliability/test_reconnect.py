"""A client whose connection breaks again and again misses nothing, and says nothing twice."""

from __future__ import annotations

import json
import os
import re
import select
import socket
import subprocess
import sys
from collections import Counter
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from integration.room import Peer
from reliability.crowd import Crowd
from reliability.history import Content, content_of, read_history
from reliability.program import Program, own_environment
from reliability.proxy import Proxy

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator
    from pathlib import Path

    from reliability.crowd import Member

    Line = dict[str, Any]

WANDERER = "wanderer"
TALKERS = ["alice", "bob", "carol"]
# What the wanderer hears, and what it says itself.
HEARD = 1_000
SAID = 200
DIRECT_PART = 0.1
# Nothing that is waited for here takes so long.
PATIENCE_SECONDS = 20.0
_READ_BYTES = 64 * 1024


class Talkers:
    """Those whom the wanderer hears. They are a few messages ahead of it, so that it misses some while it is away."""

    def __init__(self, members: list[Member], chance: random.Random, ahead_max: int) -> None:
        self._members = members
        self._chance = chance
        self._ahead_max = ahead_max
        self._said = 0

    def go_on(self, heard: int) -> None:
        """The wanderer has heard so much."""
        ahead = self._chance.choice((1, 5, self._ahead_max))
        while self._said < min(HEARD, heard + ahead):
            self._said += 1
            line = say(f"message {self._said}", self._chance, [WANDERER])
            self._chance.choice(self._members).ask(**line)


class Wanderer:
    """A client whose connection breaks again and again: what it hears and says."""

    # The connection breaks when so many bytes have gone one way at most: after thirty messages or so.
    CARRIED_MAX_BYTES = 6_000
    # So many messages are missed at most.
    MISSED_MAX = 50
    # Whom it writes to.
    OTHERS = TALKERS

    def __init__(self, port: int, chance: random.Random) -> None:
        self.heard: list[tuple[int, Content]] = []
        # Its own words: a connection that is lost, and not yet to the server, is another connection of the same user.
        self.echoed: list[tuple[int, Content]] = []
        self.said: list[str] = []
        self.confirmed_ids: list[int] = []
        self._port = port
        self._chance = chance

    def wander(self, talkers: Talkers) -> None:
        """Until all is heard, said and confirmed."""
        raise NotImplementedError

    def _is_done(self) -> bool:
        return len(self.heard) == HEARD and len(self.confirmed_ids) == SAID

    def _hear(self, message_id: int, content: Content) -> None:
        for last_id, _ in self.heard[-1:] + self.echoed[-1:]:
            assert message_id > last_id, f"{message_id} came after {last_id}"
        (self.echoed if content.sender == WANDERER else self.heard).append((message_id, content))

    def _next_words(self) -> list[Line]:
        """What it says now: something now and then, and the rest when there is nothing more to hear."""
        words = []
        while len(self.said) < SAID and (len(self.heard) == HEARD or self._chance.random() < SAID / HEARD):
            words.append(say(f"word {len(self.said)}", self._chance, self.OTHERS))
            self.said.append(words[-1]["message"])
        return words


class RawClient(Wanderer):
    """Does what docs/wire/json.md tells clients to do, and no more."""

    def __init__(self, port: int, chance: random.Random) -> None:
        super().__init__(port, chance)
        self._last_id: int | None = None
        self._unconfirmed: dict[str, Line] = {}

    def wander(self, talkers: Talkers) -> None:
        while not self._is_done():
            connected = socket.create_connection(("127.0.0.1", self._port), PATIENCE_SECONDS)
            with connected, suppress(ConnectionError):
                self._live(connected, talkers)

    def _live(self, connected: socket.socket, talkers: Talkers) -> None:
        """One connection, to its end."""
        since = {} if self._last_id is None else {"since": self._last_id}
        send(connected, {"command": "login", "username": WANDERER, "password": "secret", **since})
        for answer in read(connected):
            self._take(answer)
            if answer["type"] == "login":
                for line in self._unconfirmed.values():
                    send(connected, line)
            talkers.go_on(len(self.heard))
            new = [{**line, "nonce": line["message"]} for line in self._next_words()]
            self._unconfirmed |= {line["nonce"]: line for line in new}
            for line in new:
                send(connected, line)
            if self._is_done():
                return

    def _take(self, answer: dict[str, Any]) -> None:
        match answer["type"]:
            case "login":
                assert answer["last_id"] >= (self._last_id or 0)
                self._last_id = answer["last_id"] if self._last_id is None else self._last_id
            case "broadcast" | "direct":
                self._hear(answer["id"], content_of(answer))
                self._last_id = max(self._last_id or 0, answer["id"])
            case "sent":
                del self._unconfirmed[answer["nonce"]]
                self.confirmed_ids.append(answer["id"])
                self._last_id = max(self._last_id or 0, answer["id"])
            case other:
                assert other == "users", answer


class ClientProgram(Wanderer):
    """The program ``chatclient``, with a test in the place of the person who reads and types."""

    # It rests for a moment before it comes back; with more of them the test would take long.
    CARRIED_MAX_BYTES = 12_000

    _MESSAGE = re.compile(r"\[(?:public|direct) #(\d+) \S+\] (\w+)(?: -> (\w+))?: (.*)")
    _CONFIRMED = re.compile(r"\[(?:sent|stored) #(\d+)\].*")
    _OTHER = re.compile(r"\[(welcome new|back|lost|joined|left|bye|ask)\] .*")
    FLAGS: tuple[str, ...] = ()

    def wander(self, talkers: Talkers) -> None:
        with subprocess.Popen(
            [sys.executable, "-m", "chatclient", "127.0.0.1", str(self._port), WANDERER, *self.FLAGS],
            env={**own_environment(), "CHAT_PASSWORD": "secret"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as process:
            try:
                self._live(process, talkers)
                assert process.wait(PATIENCE_SECONDS) == 0
            finally:
                process.kill()

    def _live(self, process: subprocess.Popen[bytes], talkers: Talkers) -> None:
        """One run of the program, to its end."""
        assert process.stdin is not None
        assert process.stdout is not None
        for line in read_lines(process.stdout.fileno()):
            self._take(line)
            talkers.go_on(len(self.heard))
            for words in self._next_words():
                operation = f"DM {words['to']}" if "to" in words else "PM"
                process.stdin.write(f"{operation} {words['message']}\n".encode())
                process.stdin.flush()
            if self._is_done():
                process.stdin.close()

    def _take(self, line: str) -> None:
        if message := self._MESSAGE.fullmatch(line):
            self._hear(int(message[1]), Content(*message.group(2, 3, 4)))
        elif confirmed := self._CONFIRMED.fullmatch(line):
            self.confirmed_ids.append(int(confirmed[1]))
        else:
            assert self._OTHER.fullmatch(line), line


class StepwiseProgram(ClientProgram):
    """The same in a dialect without ``since`` and ``nonce``: it looks into the history, which shows 50 messages."""

    FLAGS = ("--dialect", "frames")
    MISSED_MAX = 30
    # This dialect does not tell to whom one's own messages went.
    OTHERS: ClassVar[list[str]] = []

    def _next_words(self) -> list[Line]:
        """Who has seen nothing yet can't tell an own message in the history from an older one."""
        return super()._next_words() if self.heard else []


def say(text: str, chance: random.Random, others: list[str]) -> Line:
    """A command that says it to everybody, or to one of the others."""
    if others and chance.random() < DIRECT_PART:
        return {"command": "DM", "to": chance.choice(others), "message": text}
    return {"command": "PM", "message": text}


def send(connected: socket.socket, line: Line) -> None:
    connected.sendall(json.dumps(line).encode() + b"\n")


def read(connected: socket.socket) -> Iterator[dict[str, Any]]:
    """What the server says, to the last whole line."""
    unread = b""
    while True:
        assert select.select([connected], [], [], PATIENCE_SECONDS)[0], "something is waited for that does not come"
        data = connected.recv(_READ_BYTES)
        if not data:
            return
        *lines, unread = (unread + data).split(b"\n")
        yield from map(json.loads, lines)


def read_lines(output: int) -> Iterator[str]:
    """What a program prints, to its end."""
    unread = b""
    while True:
        assert select.select([output], [], [], PATIENCE_SECONDS)[0], "something is waited for that is not printed"
        data = os.read(output, _READ_BYTES)
        *lines, unread = (unread + data).split(b"\n")
        yield from map(bytes.decode, lines)
        if not data:
            return


def news_for(name: str, port: int, since: int) -> list[dict[str, Any]]:
    """What is left to be told to a client that comes back now."""
    with closing(Peer(port)) as peer:
        peer.login(name, since=since)
        return [answer for answer in peer.until_fence() if answer["type"] != "users"]


@pytest.mark.parametrize("kind", [RawClient, ClientProgram, StepwiseProgram])
def test_a_client_whose_connection_breaks_again_and_again_misses_nothing_and_says_nothing_twice(
    tmp_path: Path, chance: random.Random, kind: type[Wanderer]
) -> None:
    """Every message of others once and in order, every message of one's own once."""
    with Program(tmp_path) as program, Crowd() as crowd, Proxy(program.port, chance, kind.CARRIED_MAX_BYTES) as proxy:
        talkers = Talkers(crowd.enter(program.port, TALKERS), chance, kind.MISSED_MAX)
        wanderer = kind(proxy.port, chance)
        wanderer.wander(talkers)
        history = read_history(program.port, WANDERER)
        newest_id = max(wanderer.heard[-1][0], *wanderer.confirmed_ids)
        assert news_for(WANDERER, program.port, since=newest_id) == []
    print(f"{Counter(proxy.cuts)}; {len(wanderer.echoed)} of its own words came back")
    own = {key: content for key, content in history.items() if content.sender == WANDERER}
    assert wanderer.heard == [(key, content) for key, content in history.items() if key not in own]
    assert sorted(content.text for content in own.values()) == sorted(wanderer.said)
    assert sorted(wanderer.confirmed_ids) == list(own)
    assert dict(wanderer.echoed).items() <= own.items()
    assert kind is RawClient or wanderer.echoed == [], "the program knows what it said itself"
    assert {cut.how for cut in proxy.cuts if cut.is_inside_a_line} == {"close", "reset", "swallow"}
