"""The Docker engine: is there one, the images, docker compose, and what is removed at the end."""

from __future__ import annotations

import gc
import os
import subprocess
import uuid
import warnings
from pathlib import Path

import docker
from docker.errors import DockerException

from ops.base_image import base_image

from .stack import own_environment

_REPOSITORY = Path(__file__).resolve().parents[3]
# Every container, network and volume of these tests has it; its value is the session of the tests.
_LABEL = "chatroom.e2e"
# The first build installs packages.
_BUILD_SECONDS = 600
_PING_SECONDS = 5
# Under load an engine takes its time to start a container.
_CALL_SECONDS = 60
# The stories start and watch many containers at the same time.
_CALLS_AT_ONCE = 64


def engine_answers() -> bool:
    """Is there a Docker engine that answers soon?"""
    with warnings.catch_warnings():
        # The SDK forgets to close a socket that it could not connect; Python complains when it is collected.
        warnings.simplefilter("ignore", ResourceWarning)
        answers = _ping()
        gc.collect()
    return answers


def _ping() -> bool:
    try:
        engine = docker.from_env(timeout=_PING_SECONDS)
    except DockerException:
        return False
    try:
        return bool(engine.ping())
    except (DockerException, OSError):
        return False
    finally:
        engine.close()


class Engine:
    """The Docker engine for one session of the tests: its images, and what is removed at its end."""

    def __init__(self) -> None:
        self.client = docker.from_env(timeout=_CALL_SECONDS, max_pool_size=_CALLS_AT_ONCE)
        self.session = uuid.uuid4().hex[:8]
        self.labels = {_LABEL: self.session}
        # Of docker compose, which names the images after it: neither a room that runs here nor other tests are touched.
        self.project = f"chatroom-e2e-{self.session}"
        self.server_image = f"{self.project}-server"
        self.client_image = f"{self.project}-client"

    def build(self) -> None:
        """Build both images as they are in the repository."""
        self.compose("build", "--quiet", "server", "alice")

    def compose(self, *arguments: str, typed: str = "", **settings: str) -> str:
        """Run docker compose with the repository's compose.yaml in this session's project, and return what it printed.

        With the default settings, whatever this machine's .env says, and a free port. Raises AssertionError.
        """
        command = ["docker", "compose", "--file", str(_REPOSITORY / "compose.yaml")]
        command += ["--project-name", self.project, "--env-file", os.devnull, *arguments]
        done = subprocess.run(
            command,
            env={**base_image(), **own_environment(), "CHAT_PORT": "0", **settings},
            input=typed,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_BUILD_SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"{' '.join(command)} failed with {done.returncode}:\n{done.stdout}"
        return done.stdout

    def close(self) -> None:
        """Remove whatever a story has left behind, and the images; the builder keeps their layers."""
        api = self.client.api
        mine = {"label": f"{_LABEL}={self.session}"}
        for container in api.containers(all=True, filters=mine):
            api.remove_container(container["Id"], force=True, v=True)
        for network in api.networks(filters=mine):
            api.remove_network(network["Id"])
        for volume in api.volumes(filters=mine)["Volumes"] or []:
            api.remove_volume(volume["Name"])
        self.compose("down", "--volumes", "--remove-orphans", "--rmi", "all")
        self.client.close()
