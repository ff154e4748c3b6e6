"""The docker stack: the server and each client in a container of its own, hardened as in compose.yaml."""

from __future__ import annotations

import socket
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from docker.errors import APIError, NotFound
from requests.exceptions import ConnectionError as EngineConnectionError
from requests.exceptions import ReadTimeout

from .actors import Server
from .compose import ComposeDeployment
from .stack import CHEAP_HASHES, Stack, own_environment

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from .actors import Program
    from .engine import Engine

_PORT = 9999
# What was printed comes in frames: a byte for the stream, three of nothing, four for the length.
_FRAME_HEADER_BYTES = 8


class ContainerProgram:
    """A container and the socket that is attached to its input and output."""

    def __init__(self, engine: Engine, settings: Mapping[str, Any]) -> None:
        self._api = engine.client.api
        self._settings = settings
        self._id = ""
        # The SDK's object owns the connection; the socket inside of it can be read in another thread and half closed.
        self._attached: Any = None
        self._socket: socket.socket | None = None

    def start(self) -> None:
        """Start it, or start it again after it has ended."""
        self.release()
        if not self._id:
            self._id = self._api.create_container(**self._settings)["Id"]
        # Before the start, so that no output is missed.
        self._attached = self._api.attach_socket(self._id, {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
        self._socket = getattr(self._attached, "_sock", self._attached)
        self._socket.settimeout(None)
        self._api.start(self._id)

    def read(self) -> bytes:
        """Wait for output; nothing at its end."""
        header = self._receive(_FRAME_HEADER_BYTES)
        return self._receive(int.from_bytes(header[4:])) if header else b""

    def write(self, data: bytes) -> None:
        """Give it input."""
        assert self._socket is not None
        self._socket.sendall(data)

    def end_input(self) -> None:
        """It gets no more input."""
        assert self._socket is not None
        self._socket.shutdown(socket.SHUT_WR)

    def send_signal(self, number: int) -> None:
        """Send a signal; nothing happens if it has ended."""
        with suppress(APIError):
            self._api.kill(self._id, int(number))

    def wait(self, seconds: float) -> int:
        """Wait for its end and return the exit code. Raises TimeoutError."""
        try:
            return int(self._api.wait(self._id, timeout=seconds)["StatusCode"])
        except (ReadTimeout, EngineConnectionError) as error:
            raise TimeoutError from error

    def close(self) -> None:
        """End it, whatever it does, and remove it."""
        if self._id:
            with suppress(NotFound):
                self._api.remove_container(self._id, force=True, v=True)

    def published(self, port: int) -> int:
        """The port of this machine that leads to a port of the container."""
        return int(self._api.port(self._id, port)[0]["HostPort"])

    def release(self) -> None:
        """Close the connection to it."""
        if self._socket is not None:
            self._attached.close()
            self._socket.close()
            self._attached = self._socket = None

    def _receive(self, size: int) -> bytes:
        """Exactly so many bytes; nothing at the end."""
        assert self._socket is not None
        data = b""
        while len(data) < size:
            try:
                piece = self._socket.recv(size - len(data))
            except OSError:
                return b""
            if not piece:
                return b""
            data += piece
        return data


class DockerStack(Stack):
    """A network and a volume of its own for each story."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        super().__init__()
        self._engine = engine
        self._folder = folder
        self._name = f"chatroom-e2e-{uuid.uuid4().hex[:12]}"
        self._network = ""
        self._volume = ""
        self._client_binds: list[str] = []
        self._server: ContainerProgram | None = None

    @property
    def network(self) -> str:
        """The network in which the server is called server; made when it is needed first."""
        if not self._network:
            self._network = self._engine.client.api.create_network(self._name, labels=self._engine.labels)["Id"]
        return self._network

    @property
    def server_address(self) -> tuple[str, int]:
        """Where a client finds the server."""
        return "server", _PORT

    @property
    def door(self) -> tuple[str, int]:
        """Where this process finds the server."""
        assert self._server is not None
        return "127.0.0.1", self._server.published(_PORT)

    def start_server(self) -> Server:
        """Start the server with the story's data, and wait until it takes connections."""
        api = self._engine.client.api
        if not self._volume:
            self._volume = api.create_volume(self._name, labels=self._engine.labels)["Name"]
        binds = [f"{self._volume}:/data"]
        settings = self._container(self._engine.server_image, CHEAP_HASHES, aliases=["server"], binds=binds)
        # Clients wait for the line that the server prints; the probes would only cost time.
        settings["healthcheck"] = {"test": ["NONE"]}
        settings["ports"] = [_PORT]
        self._server = ContainerProgram(self._engine, settings)
        server = Server("server", self._server, self.clock)
        self.actors.append(server)
        server.start()
        return server

    def deployment(self) -> ComposeDeployment:
        """The server of a story that puts it up and takes it down itself."""
        return ComposeDeployment(self._engine, self)

    def script(self, text: str) -> str:
        """A file with this text; returns its path in a client's container."""
        path = self._folder / "script.chat"
        path.write_text(text, encoding="utf-8")
        # The container's user is a stranger here: it may read the file, and can't enter the folder.
        path.chmod(0o644)
        self._client_binds = [f"{path}:/tests/script.chat:ro"]
        return "/tests/script.chat"

    def close(self) -> None:
        """End everything that was started, and remove it."""
        super().close()
        api = self._engine.client.api
        if self._network:
            api.remove_network(self._network)
        if self._volume:
            api.remove_volume(self._volume)

    def _client_program(self, arguments: Sequence[str], environment: Mapping[str, str]) -> Program:
        settings = self._container(
            self._engine.client_image, {"CHAT_SERVER": "server", **environment}, self._client_binds
        )
        return ContainerProgram(self._engine, {**settings, "command": list(arguments), "stdin_open": True})

    def _at_terminal(self, arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
        """As ``docker compose run`` does it, which takes the network of a project."""
        command = ["docker", "run", "--rm", "--interactive", "--tty", "--network", self.network, "--read-only"]
        command += ["--cap-drop", "ALL", "--security-opt", "no-new-privileges:true"]
        for name, value in self._engine.labels.items():
            command += ["--label", f"{name}={value}"]
        command += ["--env", "CHAT_SERVER=server", "--env", "TERM=xterm-256color", self._engine.client_image]
        command += arguments
        return command, own_environment()

    def _container(
        self, image: str, environment: Mapping[str, str], binds: Sequence[str], aliases: Sequence[str] = ()
    ) -> dict[str, Any]:
        """The settings of a container, hardened as in compose.yaml."""
        api = self._engine.client.api
        endpoint = api.create_endpoint_config(aliases=list(aliases))
        return {
            "image": image,
            "environment": dict(environment),
            "labels": self._engine.labels,
            "networking_config": api.create_networking_config({self.network: endpoint}),
            "host_config": api.create_host_config(
                network_mode=self.network,
                binds=list(binds),
                port_bindings={_PORT: ("127.0.0.1", None)} if image == self._engine.server_image else {},
                read_only=True,
                cap_drop=["ALL"],
                security_opt=["no-new-privileges:true"],
            ),
        }
