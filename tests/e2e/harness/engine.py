"""The Docker engine: detection, the images, docker compose, and the removal of everything at the end."""

from __future__ import annotations

import fcntl
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
# The label of all containers, networks and volumes of these tests. Its value is the worker's project.
_LABEL = "chatroom.e2e"
# The first build installs packages.
_BUILD_SECONDS = 600
# Without an engine there is no socket, so nobody waits.
_PING_SECONDS = 60
# A busy engine needs seconds to start a container.
_CALL_SECONDS = 60
# A test starts and watches many containers at the same time.
_CALLS_AT_ONCE = 64


def engine_answers() -> bool:
    """True if a Docker engine answers."""
    with warnings.catch_warnings():
        # The SDK does not close a socket that it could not connect; Python warns when it is collected.
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
    """The Docker engine for one worker of the tests: its images, and everything that it has to remove at the end."""

    def __init__(self) -> None:
        self.client = docker.from_env(timeout=_CALL_SECONDS, max_pool_size=_CALLS_AT_ONCE)
        # A Compose project for each worker: the tests disturb neither each other nor a room that runs here. Compose
        # names the images after the project.
        self.project = f"chatroom-e2e-{uuid.uuid4().hex[:8]}"
        self.labels = {_LABEL: self.project}
        self.server_image = f"{self.project}-server"
        self.client_image = f"{self.project}-client"

    def build(self, lock: Path) -> None:
        """Build both images from the repository.

        All workers take the lock of this file first, so that the first one builds, and the others find its layers.
        """
        with lock.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            self.compose("build", "--quiet", "server", "alice")

    def compose(self, *arguments: str, typed: str = "", **settings: str) -> str:
        """Run docker compose with the repository's compose.yaml, and return its output.

        It uses the default settings, no .env, and a free port. Raises AssertionError.
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
        """Remove everything that the tests left, and the images. The build cache remains."""
        api = self.client.api
        own = {"label": f"{_LABEL}={self.project}"}
        for container in api.containers(all=True, filters=own):
            api.remove_container(container["Id"], force=True, v=True)
        for network in api.networks(filters=own):
            api.remove_network(network["Id"])
        for volume in api.volumes(filters=own)["Volumes"] or []:
            api.remove_volume(volume["Name"])
        self.compose("--profile", "*", "down", "--volumes", "--remove-orphans", "--rmi", "all")
        self.client.close()
