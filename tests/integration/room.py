"""A server in this process, and peers that speak raw bytes to it."""

from __future__ import annotations

import json
import socket
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from chatserver.app import Server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chatserver.config import Config

DEADLINE_SECONDS = 20.0


class Peer:
    """One connection that speaks json by hand. Every read has a deadline."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), DEADLINE_SECONDS)
        self._buffer = b""

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def ask(self, **members: Any) -> None:
        self.send(json.dumps(members).encode() + b"\n")

    def line(self) -> bytes:
        """The next line; nothing when the server has closed."""
        while b"\n" not in self._buffer:
            data = self.socket.recv(65_536)
            if not data:
                return self._buffer
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def next(self, *types: str) -> dict[str, Any]:
        """The next object of one of these types; others, but errors, are passed over."""
        while line := self.line():
            answer: dict[str, Any] = json.loads(line)
            if answer["type"] in types:
                return answer
            assert answer["type"] != "error" or "error" in types, f"waiting for {types}, got {answer}"
        pytest.fail(f"the server closed while {types} was waited for")

    def until_fence(self) -> list[dict[str, Any]]:
        """Everything that comes before the answer to a ping that is sent now."""
        self.ask(command="ping")
        answers = []
        while (answer := json.loads(self.line()))["type"] != "pong":
            answers.append(answer)
        return answers

    def login(self, name: str, password: str = "secret", **members: Any) -> dict[str, Any]:
        self.ask(command="login", username=name, password=password, **members)
        return self.next("login")

    def say(self, text: str, **members: Any) -> dict[str, Any]:
        self.ask(command="PM", message=text, **members)
        return self.next("sent")

    def is_closed(self) -> bool:
        """Wait for the server to close; what comes before is passed over."""
        try:
            while self.socket.recv(65_536):
                pass
        except ConnectionResetError:
            pass
        return True

    def close(self) -> None:
        self.socket.close()


class Room:
    """A running server and its peers."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.has_crashed = False
        self._peers = ExitStack()
        self.server = Server(config, self._note_crash)
        self.server.start()
        self.is_stopped = False

    def _note_crash(self) -> None:
        self.has_crashed = True

    def peer(self) -> Peer:
        peer = Peer(self.server.port)
        self._peers.callback(peer.close)
        return peer

    def enter(self, name: str, **members: Any) -> Peer:
        peer = self.peer()
        peer.login(name, **members)
        return peer

    def stop(self) -> bool:
        self.is_stopped = True
        return self.server.stop()

    def close(self) -> None:
        self._peers.close()
        if not self.is_stopped:
            assert self.stop(), "a thread of the server died"


@contextmanager
def deadline(seconds: float, what: str) -> Iterator[None]:
    """Fail when the block takes longer."""
    started = time.monotonic()
    yield
    assert time.monotonic() - started < seconds, f"{what} took {time.monotonic() - started:.1f} s"
