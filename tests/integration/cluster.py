"""Servers that share a log on NATS, as whole processes."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

from integration.room import DEADLINE_SECONDS
from reliability.program import Program, own_environment

from ops.nats_servers import NatsServers

if TYPE_CHECKING:
    from pathlib import Path

HASHING = {"CHAT_HASH_TIME_COST": "1", "CHAT_HASH_MEMORY_KIB": "8"}


class Cluster:
    """A NATS server that the test starts, and chat servers with a folder each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.nats = NatsServers(folder / "nats")
        self.settings = HASHING | {
            "CHAT_NATS": self.nats.url,
            "CHAT_NATS_REPLICAS": "1",
            "CHAT_METRICS": "127.0.0.1:0",
        }

        self._servers: list[Program] = []

    def server(self, name: str, **settings: str) -> Program:
        """A server with the folder of this name."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        self._servers.append(server := Program(folder, "--server-name", name, **(self.settings | settings)))
        return server

    def close(self) -> None:
        for server in self._servers:
            server.kill()
            print(server.log())
        self.nats.close()

    def admin(self, server: Program, *words: str) -> tuple[int, str]:
        """The exit code and standard error of a command on the data folder of a server."""
        ended = self._admin(server, *words)
        return ended.returncode, ended.stderr

    def doctor(self, server: Program, **settings: str) -> list[dict[str, str]]:
        return [json.loads(line) for line in self._admin(server, "doctor", "--json", **settings).stdout.splitlines()]

    def _admin(self, server: Program, *words: str, **settings: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "chatserver", "admin", "--data", str(server.data), *words]
        environment = own_environment() | self.settings | settings
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=DEADLINE_SECONDS
        )
