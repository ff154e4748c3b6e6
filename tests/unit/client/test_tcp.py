"""The link over TCP: what it collects, what it sends, and when it gives up."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from chatclient.links.tcp import TcpLink
from chatclient.links.watch import Due, Watch
from chatprotocol.events import Bye, Event, Refused
from chatprotocol.requests import Command, Data, Say
from chatprotocol.wire import Frames
from chatprotocol.wire.json import Json

from .debts import Debts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chatprotocol.wire import WireProtocol

DEADLINE_SECONDS = 5.0
BYE = b'{"type":"bye","reason":"enough"}\n'
UNKNOWN = b'{"type":"error","code":"unknown_command","message":"?"}\n'


class Pair:
    """A link that collects in a thread of its own, and the server's end of it."""

    def __init__(self, debts: Debts, silence_seconds: float, protocol: WireProtocol) -> None:
        ours, self.server = socket.socketpair()
        self.server.settimeout(DEADLINE_SECONDS)
        self.link = TcpLink([ours], protocol, Watch(debts, silence_seconds, time.monotonic()))
        self.heard: list[Event] = []
        self.reason = ""
        self._thread = threading.Thread(target=self._collect, name="collector", daemon=True)
        self._thread.start()

    def _collect(self) -> None:
        try:
            self.reason = self.link.receive(self.heard.append)
        except OSError as error:
            self.reason = str(error)

    def reads(self, size_bytes: int) -> bytes:
        data = b""
        while len(data) < size_bytes and (more := self.server.recv(size_bytes - len(data))):
            data += more
        return data

    def ends(self) -> str:
        self._thread.join(DEADLINE_SECONDS)
        assert not self._thread.is_alive(), "it still collects"
        return self.reason

    def close(self) -> None:
        self.link.shut_down()
        self.ends()
        self.link.close()
        self.server.close()


@contextmanager
def pair(debts: Debts, silence_seconds: float = 0.2, protocol: WireProtocol | None = None) -> Iterator[Pair]:
    made = Pair(debts, silence_seconds, protocol or Json())
    try:
        yield made
    finally:
        made.close()


@pytest.mark.parametrize("due", [Due.LOGIN, Due.ANSWER])
def test_a_server_that_does_not_answer_is_given_up(due: Due) -> None:
    with pair(Debts(due)) as stopped:
        stopped.server.sendall(b'{"type":"lo')
        assert "answer" in stopped.ends()


def test_a_silent_server_is_pinged_and_the_answer_is_told_to_nobody() -> None:
    with pair(Debts()) as silent:
        for answer in (b'{"type":"pong"}\n', UNKNOWN + UNKNOWN + BYE):  # the second refusal answers something else
            assert silent.server.recv(100) == b'{"command":"ping"}\n'
            silent.server.sendall(answer)
        silent.server.shutdown(socket.SHUT_WR)
        assert silent.ends() == "the server closed the connection"
        assert [type(event) for event in silent.heard] == [Refused, Bye]


def test_a_server_that_answers_no_ping_is_lost() -> None:
    with pair(Debts()) as stopped:
        assert "was silent" in stopped.ends()


def test_a_ping_waits_for_the_end_of_an_operation() -> None:
    debts = Debts(ping=None)
    with pair(debts, protocol=Frames()) as dialogue:
        dialogue.link.send(Command("PM"))
        dialogue.link.send(Data("hello"))
        said = b"C\0\0\0\2PMD\0\0\0\5hello"
        assert dialogue.reads(len(said)) == said
        dialogue.server.settimeout(0.3)
        with pytest.raises(TimeoutError):
            dialogue.server.recv(1)
        dialogue.server.settimeout(DEADLINE_SECONDS)
        debts.ping = Command("PING")
        assert dialogue.server.recv(100) == b"C\0\0\0\4PING"


def test_an_error_that_answers_no_ping_is_told() -> None:
    with pair(Debts(), silence_seconds=60.0) as link:
        link.server.sendall(UNKNOWN)
        link.server.shutdown(socket.SHUT_WR)
        link.ends()
        assert [type(event) for event in link.heard] == [Refused]


def test_who_sends_to_a_server_that_does_not_read_waits_for_nothing() -> None:
    """What the system does not take is sent when there is room, in order."""
    texts = [f"{number} {'x' * 8_000}" for number in range(200)]
    with pair(Debts(), silence_seconds=60.0) as deaf:
        for text in texts[:100]:
            deaf.link.send(Say(text))
        deaf.server.sendall(BYE)  # it is heard nevertheless
        read = b""
        for text in texts[100:]:  # now there is room, but not for these
            read += deaf.server.recv(4_000)
            deaf.link.send(Say(text))
        all_bytes = b"".join(Json().encode_request(Say(text)) for text in texts)
        assert read + deaf.reads(len(all_bytes) - len(read)) == all_bytes
        deaf.server.shutdown(socket.SHUT_WR)
        deaf.ends()
        assert deaf.heard == [Bye("enough")]


def test_more_than_a_client_can_have_to_say_is_not_kept() -> None:
    with pair(Debts(), silence_seconds=60.0) as deaf:
        for _ in range(2_000):
            deaf.link.send(Say("x" * 8_000))
        assert deaf.ends()
