"""The server as compose.yaml puts it up: in the project of the tests, on a free port, with the default settings."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from docker.errors import APIError

from .actors import Server
from .stack import Deployment

if TYPE_CHECKING:
    from .docker_stack import DockerStack
    from .engine import Engine


class ComposeProgram:
    """A container that docker compose starts and removes; its log is followed."""

    def __init__(self, engine: Engine) -> None:
        self._api = engine.client.api
        self._engine = engine
        self.container_id = ""
        self._log: Any = None

    def start(self) -> None:
        """Put it up, with a free port of this machine published."""
        self._engine.compose("up", "--detach", "--no-build", "server")
        (container,) = self._api.containers(filters={"label": f"com.docker.compose.project={self._engine.project}"})
        self.container_id = container["Id"]
        self._log = self._api.logs(self.container_id, stream=True, follow=True)

    def read(self) -> bytes:
        """Wait for output; nothing at its end."""
        data: bytes = next(self._log, b"")
        return data

    def write(self, data: bytes) -> None:
        """Nobody types at a server."""

    def end_input(self) -> None:
        """See :meth:`write`."""

    def send_signal(self, number: int) -> None:
        """Send a signal; nothing happens if it has ended."""
        with suppress(APIError):
            self._api.kill(self.container_id, int(number))

    def wait(self, seconds: float) -> int:
        """Wait for its end and return the exit code."""
        return int(self._api.wait(self.container_id, timeout=seconds)["StatusCode"])

    def close(self) -> None:
        """Take it down with all that belongs to it."""
        self.down("--volumes")

    def release(self) -> None:
        """Close the connection that follows the log."""
        if self._log is not None:
            self._log.close()
            self._log = None

    def down(self, *arguments: str) -> None:
        """Take it down."""
        self._engine.compose("down", *arguments)


class ComposeDeployment(Deployment):
    """``docker compose up`` and ``down``, of the server alone."""

    def __init__(self, engine: Engine, stack: DockerStack) -> None:
        self._program = ComposeProgram(engine)
        self._engine = engine
        self._stack = stack
        self._server = Server("server", self._program, stack.clock)
        stack.actors.append(self._server)

    def up(self) -> Server:
        """``docker compose up server``; then the server joins the network of the story's clients, too."""
        self._server.start()
        self._engine.client.api.connect_container_to_network(
            self._program.container_id, self._stack.network, aliases=["server"]
        )
        return self._server

    def down(self, *, with_data: bool) -> None:
        """``docker compose down``, with ``--volumes`` for the data."""
        self._program.down(*(["--volumes"] if with_data else []))
        self._server.join()
