"""A backup is restored under clients that stay: they get what is new, and are told that messages may be missing."""

from __future__ import annotations

import os
import re
import select
import sqlite3
import subprocess
import sys
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from integration.room import Peer
from reliability.program import DEADLINE_SECONDS, Program, own_environment

from chatclient import ChatClient
from chatclient.client_protocol import PossibleGap
from chatprotocol.events import PublicMessage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


# The newest message when the backup is made, when the server stops, and when the client comes back.
BACKED_UP, SEEN, NEWEST = 10, 31, 15
FORMS = {
    "plain": r"\[public #(\d+) \S+\] \w+: (?P<text>.*)|\[error lost\] (?P<gap>more may have been missed .*)",
    "json": r'\{"type":"broadcast","id":(\d+),.*,"message":"(?P<text>.*)"\}|\{"type":"(?P<gap>gap)"\}',
}


class Watching:
    """The program ``chatclient``, of which a test reads the lines."""

    def __init__(self, process: subprocess.Popen[bytes], form: str) -> None:
        assert process.stdout is not None
        self._output = process.stdout.fileno()
        self._form = re.compile(FORMS[form])
        self._rest = b""
        while not any("welcome" in line or '"type":"login"' in line for line in self._lines("its welcome")):
            pass

    def heard(self, last: str) -> list[str]:
        """What was said until this one was, and ``gap`` where it was told that there may have been more."""
        found: list[str] = []
        while last not in found:
            shown = filter(None, map(self._form.fullmatch, self._lines(last)))
            found += ["gap" if each["gap"] else each["text"] for each in shown]
        return found

    def _lines(self, what: str) -> list[str]:
        assert select.select([self._output], [], [], DEADLINE_SECONDS)[0], f"{what} never came"
        *lines, self._rest = (self._rest + os.read(self._output, 65_536)).split(b"\n")
        return [line.decode() for line in lines]


@contextmanager
def watching(port: int, name: str, form: str) -> Iterator[Callable[[str], list[str]]]:
    """The real program stays in the room."""
    command = [sys.executable, "-m", "chatclient", f"--{form}", "127.0.0.1", str(port), name]
    with subprocess.Popen(
        command,
        env={**own_environment(), "CHAT_PASSWORD": "secret"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        try:
            yield Watching(process, form).heard
        finally:
            process.kill()


@contextmanager
def listening(port: int, name: str, protocol: str) -> Iterator[Callable[[str], list[str]]]:
    """A ChatClient stays in the room."""
    with ChatClient("127.0.0.1", port, dialect=protocol) as client:
        client.login(name, "secret")

        def heard(last: str) -> list[str]:
            found: list[str] = []
            for event in client.events(DEADLINE_SECONDS):
                if isinstance(event, PossibleGap):
                    found.append("gap")
                elif isinstance(event, PublicMessage):
                    found.append(event.text)
                    if event.text == last:
                        break
            return found

        yield heard


CLIENTS: dict[str, Callable[[int], Any]] = {
    "json": lambda port: listening(port, "bot", "json"),
    "frames": lambda port: listening(port, "bot", "frames"),
    "plain": lambda port: watching(port, "bob", "plain"),
    "json face": lambda port: watching(port, "bob", "json"),
}


def say(port: int, texts: list[str]) -> None:
    with closing(Peer(port)) as alice:
        alice.login("alice")
        for text in texts:
            alice.say(text)


# With the backup alone, as the README has it, the server notices that it was restored. If the whole folder is put back
# it can't: then only what its clients saw reveals it.
CASES = [("json", True), ("json", False), ("frames", True), ("frames", False), ("plain", True), ("json face", False)]


@pytest.mark.parametrize(("kind", "is_noticed"), CASES)
def test_a_client_that_stays_while_a_backup_is_restored_gets_what_is_new_and_is_told(
    tmp_path: Path, kind: str, is_noticed: bool
) -> None:
    """Promise: nothing is lost silently, and nothing shown twice."""
    before = [f"before {number}" for number in range(1, SEEN + 1)]
    after = [f"after {number}" for number in range(BACKED_UP + 1, NEWEST + 1)]
    with Program(tmp_path) as program, CLIENTS[kind](program.port) as heard:
        port = program.port
        say(port, before[:BACKED_UP])
        assert heard(before[BACKED_UP - 1]) == before[:BACKED_UP]
        with closing(sqlite3.connect(program.data / "chat.db")) as connection:
            connection.execute(f"VACUUM INTO '{program.data}/backup.db'")
        state = (program.data / "chat.state").read_bytes()
        say(port, before[BACKED_UP:])
        assert heard(before[-1]) == before[BACKED_UP:]
        assert program.stop() == 0

        for left_over in program.data.glob("chat.db-*"):
            left_over.unlink()
        (program.data / "backup.db").rename(program.data / "chat.db")
        if not is_noticed:
            (program.data / "chat.state").write_bytes(state)
        program.start()  # elsewhere: the client is to come back when it has gone on
        say(program.port, after)
        assert program.stop() == 0
        program.start(port)
        say(port, ["now"])
        assert heard("now") == ["gap", *after, "now"]
