"""The process stack: the server and the clients are processes of this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ops.nats_servers import bind_free_port

from .programs import Server
from .stack import ADMIN_SECONDS, CHEAP_HASHES, Stack, check_exit, own_environment

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .programs import Runner

_READ_BYTES = 64 * 1024


class ProcessRunner:
    """A process. Standard error goes to standard output."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], folder: Path) -> None:
        self._command = command
        self._environment = environment
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
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
        assert self._process is not None
        assert self._process.stdout is not None
        return os.read(self._process.stdout.fileno(), _READ_BYTES)

    def write(self, data: bytes) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        view = memoryview(data)
        while view:
            view = view[self._process.stdin.write(view) :]

    def end_input(self) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.close()

    def send_signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self, seconds: float) -> int:
        assert self._process is not None
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired as error:
            raise TimeoutError from error

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def release(self) -> None:
        if self._process is not None:
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    pipe.close()


class ProcessStack(Stack):
    """All files are in one folder. The port is kept, also while no server runs."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self._reserved = bind_free_port()
        self._port = str(self._reserved.getsockname()[1])

    @property
    def server_address(self) -> tuple[str, int]:
        return "127.0.0.1", int(self._port)

    @property
    def published_address(self) -> tuple[str, int]:
        return self.server_address

    def start_server(self, **settings: str) -> Server:
        environment = {
            "CHAT_HOST": "127.0.0.1",
            "CHAT_PORT": self._port,
            "CHAT_DATA": str(self._folder / "data"),
            **CHEAP_HASHES,
            **settings,
        }
        server = Server("server", ProcessRunner([command_path("chatserver")], environment, self._folder), self.clock)
        self.programs.append(server)
        server.start()
        return server

    def admin(self, *arguments: str, typed: bytes = b"", code: int = 0) -> bytes:
        command = [command_path("chatserver"), "admin", "--data", str(self._folder / "data"), *arguments]
        environment = {**own_environment(), **CHEAP_HASHES}
        done = subprocess.run(
            command, env=environment, input=typed, capture_output=True, timeout=ADMIN_SECONDS, check=False
        )
        return check_exit(done, code)

    def erase_data(self) -> None:
        shutil.rmtree(self._folder / "data")

    def close(self) -> None:
        super().close()
        self._reserved.close()

    def script(self, text: str) -> str:
        path = self._folder / "script.chat"
        path.write_text(text, encoding="utf-8")
        return str(path)

    def _client_runner(self, arguments: Sequence[str], environment: Mapping[str, str]) -> Runner:
        command = [command_path("chatclient"), *arguments]
        return ProcessRunner(command, {**self._address_settings(), **environment}, self._folder)

    def _terminal_command(self, arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
        return [command_path("chatclient"), *arguments], {**own_environment(), **self._address_settings()}

    def _address_settings(self) -> dict[str, str]:
        return {"CHAT_SERVER": "127.0.0.1", "CHAT_PORT": self._port}


def command_path(name: str) -> str:
    """The console script in the environment that runs the tests."""
    return str(Path(sys.executable).parent / name)
