"""The process stack: the server and the clients as plain processes of this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .actors import Server
from .stack import CHEAP_HASHES, Deployment, Stack, own_environment

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .actors import Program

_READ_BYTES = 64 * 1024


class ProcessProgram:
    """A process; its error output is read together with its output."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], folder: Path) -> None:
        self._command = command
        self._environment = environment
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, or start it again after it has ended."""
        self.release()
        self._process = subprocess.Popen(
            self._command,
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self._folder,
            env={**own_environment(), **self._environment},
        )

    def read(self) -> bytes:
        """Wait for output; nothing at its end."""
        assert self._process is not None
        assert self._process.stdout is not None
        return os.read(self._process.stdout.fileno(), _READ_BYTES)

    def write(self, data: bytes) -> None:
        """Give it input."""
        assert self._process is not None
        assert self._process.stdin is not None
        view = memoryview(data)
        while view:
            view = view[self._process.stdin.write(view) :]

    def end_input(self) -> None:
        """It gets no more input."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.close()

    def send_signal(self, number: int) -> None:
        """Send a signal; nothing happens if it has ended."""
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self, seconds: float) -> int:
        """Wait for its end and return the exit code. Raises TimeoutError."""
        assert self._process is not None
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired as error:
            raise TimeoutError from error

    def close(self) -> None:
        """End it, whatever it does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def release(self) -> None:
        """Close what is left of it."""
        if self._process is not None:
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    pipe.close()


class ProcessStack(Stack):
    """Data, scripts and working directories are in one folder; the port is a free one."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self._data = folder / "data"
        self._port = ""

    @property
    def server_address(self) -> tuple[str, int]:
        """Where a client finds the server."""
        return "127.0.0.1", int(self._port)

    @property
    def door(self) -> tuple[str, int]:
        """Where this process finds the server."""
        return self.server_address

    def start_server(self) -> Server:
        """Start the server with the story's data, and wait until it takes connections."""
        return self.start_server_with(CHEAP_HASHES)

    def start_server_with(self, settings: Mapping[str, str]) -> Server:
        """The same, with these settings."""
        environment = {"CHAT_HOST": "127.0.0.1", "CHAT_PORT": "0", "CHAT_DATA": str(self._data), **settings}
        server = Server("server", ProcessProgram([_command("chatserver")], environment, self._folder), self.clock)
        self.actors.append(server)
        self._port = str(server.start())
        # When it is started again, its clients look for it where it was.
        environment["CHAT_PORT"] = self._port
        return server

    def deployment(self) -> ProcessDeployment:
        """The server of a story that puts it up and takes it down itself."""
        return ProcessDeployment(self, self._data)

    def script(self, text: str) -> str:
        """A file with this text; returns its path."""
        path = self._folder / "script.chat"
        path.write_text(text, encoding="utf-8")
        return str(path)

    def _client_program(self, arguments: Sequence[str], environment: Mapping[str, str]) -> Program:
        where = {"CHAT_SERVER": "127.0.0.1", "CHAT_PORT": self._port}
        return ProcessProgram([_command("chatclient"), *arguments], {**where, **environment}, self._folder)

    def _at_terminal(self, arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
        where = {"CHAT_SERVER": "127.0.0.1", "CHAT_PORT": self._port}
        return [_command("chatclient"), *arguments], {**own_environment(), **where}


class ProcessDeployment(Deployment):
    """The data folder stays, or is removed."""

    def __init__(self, stack: ProcessStack, data: Path) -> None:
        self._stack = stack
        self._data = data
        self._server: Server | None = None

    def up(self) -> Server:
        """Start a server on the data folder."""
        self._server = self._stack.start_server_with({})
        return self._server

    def down(self, *, with_data: bool) -> None:
        """Stop it; with its data, remove the folder."""
        assert self._server is not None
        assert self._server.stop() == 0
        if with_data:
            shutil.rmtree(self._data)


def _command(name: str) -> str:
    """The console script in the environment that runs the tests."""
    return str(Path(sys.executable).parent / name)
