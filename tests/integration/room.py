"""A server in this process, and peers that speak raw bytes to it."""

from __future__ import annotations

import json
import socket
import struct
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from chatserver.app import Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from chatserver.config import Config

DEADLINE_SECONDS = 20.0


class _Peer:
    """One connection that speaks some dialect by hand. Every read has a deadline."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), DEADLINE_SECONDS)
        self._buffer = b""

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

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


class Peer(_Peer):
    """One that speaks json."""

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


class FramesPeer(_Peer):
    """One that speaks frames. What arrives is told as its type, a space and its payload: ``C READY``."""

    def command(self, text: str) -> None:
        self.send(typed_frame(b"C", text.encode()))

    def data(self, text: str) -> None:
        self.send(typed_frame(b"D", text.encode()))

    def _has(self, size_bytes: int) -> bool:
        while len(self._buffer) < size_bytes:
            part = self.socket.recv(65_536)
            if not part:
                return False
            self._buffer += part
        return True

    def frame(self) -> str:
        """The next frame; nothing when the server has closed."""
        if not self._has(5):
            assert self._buffer == b"", f"the server closed inside a frame: {self._buffer!r}"
            return ""
        (size_bytes,) = struct.unpack(">I", self._buffer[1:5])
        assert self._has(5 + size_bytes), f"the server closed inside a frame: {self._buffer[:100]!r}"
        kind, payload = self._buffer[:1], self._buffer[5 : 5 + size_bytes]
        self._buffer = self._buffer[5 + size_bytes :]
        return f"{kind.decode()} {payload.decode()}"

    def next_command(self) -> str:
        """The payload of the next C frame; messages are passed over."""
        while text := self.frame():
            if text.startswith("C "):
                return text[2:]
        pytest.fail("the server closed while a command was waited for")

    def next_message(self) -> list[str]:
        """The next D frame: the words of its header, and its text."""
        text = self.frame()
        assert text.startswith("D "), f"waiting for a message, got {text!r}"
        header, _, body = text[2:].partition("\n")
        return [*header.split(" "), body]

    def until_fence(self) -> list[str]:
        """Everything that comes before the answer to a PING that is sent now."""
        self.command("PING")
        frames: list[str] = []
        while (text := self.frame()) != "C PONG":
            assert text, f"the server closed; before that came {frames}"
            frames.append(text)
        return frames

    def rest(self) -> list[str]:
        """All frames until the server closes."""
        frames = []
        while text := self.frame():
            frames.append(text)
        return frames

    def login(self, name: str, password: str = "secret") -> str:
        """The name may have the tradition behind it. What was missed comes next."""
        self.command(name)
        prompt = self.next_command()
        assert prompt.startswith("PASSWORD "), prompt
        self.command(password)
        welcome = self.next_command()
        assert welcome == prompt.replace("PASSWORD", "WELCOME"), welcome
        return welcome

    def say(self, text: str) -> int:
        """Returns the id."""
        self.command("PM")
        assert self.next_command() == "READY"
        self.data(text)
        return self._confirmed("SENT")

    def whisper(self, to: str, text: str, status: str = "SENT") -> int:
        """Returns the id."""
        self.command("DM")
        assert self.next_command().startswith("ONLINE ")
        self.command(to)
        self.data(text)
        return self._confirmed(status)

    def history(self, asked: str = "CH") -> list[list[str]]:
        """The messages, with nothing between them."""
        self.command(asked)
        word, count = self.next_command().split(" ")
        assert word == "HISTORY"
        return [self.next_message() for _ in range(int(count))]

    def _confirmed(self, status: str) -> int:
        word, number = self.next_command().split(" ")
        assert word == status
        return int(number)


def typed_frame(kind: bytes, payload: bytes) -> bytes:
    """As docs/wire/frames.md has it."""
    return kind + struct.pack(">I", len(payload)) + payload


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

    def frames_peer(self) -> FramesPeer:
        peer = FramesPeer(self.server.port)
        self._peers.callback(peer.close)
        return peer

    def enter(self, name: str, **members: Any) -> Peer:
        peer = self.peer()
        peer.login(name, **members)
        return peer

    def enter_frames(self, name: str, password: str = "secret") -> FramesPeer:
        peer = self.frames_peer()
        peer.login(name, password)
        return peer

    def wait_for_connections(self, count: int) -> None:
        """Until so many count: one that has ended does for a moment longer than its user is seen."""
        wait_for(lambda: len(self.server._listener._connections) == count, f"there are {count} connections")

    def stop(self) -> bool:
        self.is_stopped = True
        return self.server.stop()

    def close(self) -> None:
        self._peers.close()
        if not self.is_stopped:
            assert self.stop(), "a thread of the server died"


def wait_for(condition: Callable[[], object], what: str) -> None:
    """Look until it holds."""
    patience_ends = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < patience_ends, f"it never came to that: {what}"
        time.sleep(0.01)


@contextmanager
def deadline(seconds: float, what: str) -> Iterator[None]:
    """Fail when the block takes longer."""
    started = time.monotonic()
    yield
    assert time.monotonic() - started < seconds, f"{what} took {time.monotonic() - started:.1f} s"
