"""Servers that share a log on NATS, as whole processes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from reliability.program import Program

from ops.nats_servers import NatsServers

if TYPE_CHECKING:
    from pathlib import Path


class Cluster:
    """A NATS server that the test starts, and chat servers with a folder each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.nats = NatsServers(folder / "nats")
        self.settings = {"CHAT_NATS": self.nats.url, "CHAT_NATS_REPLICAS": "1", "CHAT_METRICS": "127.0.0.1:0"}
        self._servers: list[Program] = []

    def server(self, name: str, **settings: str) -> Program:
        """A server with the folder of this name."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        self._servers.append(server := Program(folder, "--server-name", name, **(self.settings | settings)))
        return server

    def close(self) -> None:
        for server in self._servers:
            server.close()
            print(server.log())
        self.nats.close()

    def admin(self, server: Program, *words: str) -> tuple[int, str]:
        """The exit code and standard error of a command on the data folder of a server."""
        ended = server.administer(*words)
        return ended.returncode, ended.stderr

    def doctor(self, server: Program, **settings: str) -> list[dict[str, str]]:
        return [json.loads(line) for line in server.administer("doctor", "--json", **settings).stdout.splitlines()]
