"""The Docker engine: is there one, the images, docker compose, and what is removed at the end."""

from __future__ import annotations

import gc
import subprocess
import uuid
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import docker
from docker.errors import DockerException

from .stack import own_environment

if TYPE_CHECKING:
    from collections.abc import Mapping

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


def compose(*arguments: str, environment: Mapping[str, str] | None = None) -> None:
    """Run docker compose with the repository's compose.yaml. Raises AssertionError with what it printed."""
    command = ["docker", "compose", "--file", str(_REPOSITORY / "compose.yaml"), *arguments]
    done = subprocess.run(
        command,
        env={**own_environment(), **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_BUILD_SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(command)} failed with {done.returncode}:\n{done.stdout}"


class Engine:
    """The Docker engine for one session of the tests: its images, and what is removed at its end."""

    def __init__(self) -> None:
        self.client = docker.from_env(timeout=_CALL_SECONDS, max_pool_size=_CALLS_AT_ONCE)
        self.session = uuid.uuid4().hex[:8]
        self.labels = {_LABEL: self.session}

    def build(self) -> None:
        """Build both images as they are in the repository."""
        compose("build", "--quiet", "server", "alice")

    def close(self) -> None:
        """Remove whatever a story has left behind."""
        api = self.client.api
        mine = {"label": f"{_LABEL}={self.session}"}
        for container in api.containers(all=True, filters=mine):
            api.remove_container(container["Id"], force=True, v=True)
        for network in api.networks(filters=mine):
            api.remove_network(network["Id"])
        for volume in api.volumes(filters=mine)["Volumes"] or []:
            api.remove_volume(volume["Name"])
        self.client.close()
