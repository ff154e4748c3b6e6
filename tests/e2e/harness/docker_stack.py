"""The docker stack: the server and each client have a container of their own, restricted as in compose.yaml."""

from __future__ import annotations

import socket
import subprocess
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from docker.errors import APIError, NotFound
from requests.exceptions import ConnectionError as EngineConnectionError
from requests.exceptions import ReadTimeout

from .programs import Server
from .stack import ADMIN_SECONDS, CHEAP_HASHES, Stack, check_exit, own_environment

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .engine import Engine
    from .programs import Runner

_PORT = 9999
# As in compose.yaml.
_RESTRICTIONS = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges:true")
# The engine sends output in frames: a byte for the stream, three zeros, four bytes for the length.
_FRAME_HEADER_BYTES = 8


class ContainerRunner:
    """A container, and the socket attached to its input and output."""

    def __init__(self, engine: Engine, settings: Mapping[str, Any]) -> None:
        self._api = engine.client.api
        self._settings = settings
        self._id = ""
        # The SDK's object owns the connection. Its socket can be read in another thread, and half closed.
        self._attached: Any = None
        self._socket: socket.socket | None = None

    def start(self) -> None:
        self.release()
        if not self._id:
            self._id = self._api.create_container(**self._settings)["Id"]
        # Before the start, so that no output is missed.
        self._attached = self._api.attach_socket(self._id, {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
        self._socket = getattr(self._attached, "_sock", self._attached)
        self._socket.settimeout(None)
        self._api.start(self._id)

    def read(self) -> bytes:
        header = self._receive(_FRAME_HEADER_BYTES)
        return self._receive(int.from_bytes(header[4:])) if header else b""

    def write(self, data: bytes) -> None:
        assert self._socket is not None
        self._socket.sendall(data)

    def end_input(self) -> None:
        assert self._socket is not None
        self._socket.shutdown(socket.SHUT_WR)

    def send_signal(self, number: int) -> None:
        with suppress(APIError):
            self._api.kill(self._id, int(number))

    def wait(self, seconds: float) -> int:
        try:
            return int(self._api.wait(self._id, timeout=seconds)["StatusCode"])
        except (ReadTimeout, EngineConnectionError) as error:
            raise TimeoutError from error

    def close(self) -> None:
        if self._id:
            with suppress(NotFound):
                self._api.remove_container(self._id, force=True, v=True)

    def release(self) -> None:
        if self._socket is not None:
            self._attached.close()
            self._socket.close()
            self._attached = self._socket = None

    @property
    def id(self) -> str:
        """The container's id; empty before its start."""
        return self._id

    @property
    def is_running(self) -> bool:
        try:
            return bool(self._api.inspect_container(self._id)["State"]["Running"])
        except NotFound:
            return False

    def published_port(self, port: int) -> int:
        """The port of this machine that leads to a port of the container."""
        return int(self._api.port(self._id, port)[0]["HostPort"])

    def _receive(self, size: int) -> bytes:
        """Exactly ``size`` bytes; empty at the end of the output."""
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
    """A network and a volume of its own for each test."""

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self._engine = engine
        name = f"chatroom-e2e-{uuid.uuid4().hex[:12]}"
        self._network = engine.client.api.create_network(name, labels=engine.labels)["Id"]
        self._volume = engine.client.api.create_volume(name, labels=engine.labels)["Name"]
        self._server: ContainerRunner | None = None

    @property
    def server_address(self) -> tuple[str, int]:
        return "server", _PORT

    @property
    def published_address(self) -> tuple[str, int]:
        assert self._server is not None
        return "127.0.0.1", self._server.published_port(_PORT)

    def start_server(self, **settings: str) -> Server:
        if self._server is not None:
            self._server.close()
        # As on the other stack, whose clients are on the same machine. New containers get addresses of earlier ones.
        environment = {**CHEAP_HASHES, "CHAT_EXEMPT": "0.0.0.0/0", **settings}
        options = self._container(self._engine.server_image, environment, aliases=["server"], binds=[self._data])
        # Clients wait for the line that the server prints; health checks would only cost time.
        options["healthcheck"] = {"test": ["NONE"]}
        options["ports"] = [_PORT]
        self._server = ContainerRunner(self._engine, options)
        server = Server("server", self._server, self.clock)
        self.programs.append(server)
        server.start()
        return server

    def admin(self, *arguments: str, typed: bytes = b"", code: int = 0) -> bytes:
        """Without a running server: in a container of its own, as ``docker compose run --rm server admin`` does it."""
        if self._server is not None and self._server.is_running:
            command = ["docker", "exec", "--interactive", self._server.id, "chatserver", "admin"]
        else:
            command = ["docker", "run", "--rm", "--interactive", "--network", "none", "--volume", self._data]
            command += [*_RESTRICTIONS, "--env", "CHAT_HASH_MEMORY_KIB=8", self._engine.server_image, "admin"]
        done = subprocess.run(
            [*command, *arguments],
            env=own_environment(),
            input=typed,
            capture_output=True,
            timeout=ADMIN_SECONDS,
            check=False,
        )
        return check_exit(done, code)

    def erase_data(self) -> None:
        assert self._server is not None
        self._server.close()
        self._engine.client.api.remove_volume(self._volume)
        self._volume = self._engine.client.api.create_volume(self._volume, labels=self._engine.labels)["Name"]

    @property
    def _data(self) -> str:
        return f"{self._volume}:/data"

    def script(self, text: str) -> str:
        raise NotImplementedError("the demo of docker compose plays a script in a container")

    def close(self) -> None:
        super().close()
        self._engine.client.api.remove_network(self._network)
        self._engine.client.api.remove_volume(self._volume)

    def _client_runner(self, arguments: Sequence[str], environment: Mapping[str, str]) -> Runner:
        settings = self._container(self._engine.client_image, {"CHAT_SERVER": "server", **environment})
        return ContainerRunner(self._engine, {**settings, "command": list(arguments), "stdin_open": True})

    def _terminal_command(self, arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
        """As ``docker compose run`` does it, which would need the network of a project."""
        command = ["docker", "run", "--rm", "--interactive", "--tty", "--network", self._network, *_RESTRICTIONS]
        for name, value in self._engine.labels.items():
            command += ["--label", f"{name}={value}"]
        command += ["--env", "CHAT_SERVER=server", "--env", "TERM=xterm-256color", self._engine.client_image]
        command += arguments
        return command, own_environment()

    def _container(
        self, image: str, environment: Mapping[str, str], aliases: Sequence[str] = (), binds: Sequence[str] = ()
    ) -> dict[str, Any]:
        """The settings of a container, restricted as in compose.yaml."""
        api = self._engine.client.api
        endpoint = api.create_endpoint_config(aliases=list(aliases))
        return {
            "image": image,
            "environment": dict(environment),
            "labels": self._engine.labels,
            "networking_config": api.create_networking_config({self._network: endpoint}),
            "host_config": api.create_host_config(
                network_mode=self._network,
                binds=list(binds),
                port_bindings={_PORT: ("127.0.0.1", None)} if image == self._engine.server_image else {},
                read_only=True,
                cap_drop=["ALL"],
                security_opt=["no-new-privileges:true"],
            ),
        }
