"""Fixtures: a real server in this process, on a free port, with a data folder of its own."""

from __future__ import annotations

import io
import itertools
import random
import threading
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from certificates import Authority
from integration.cluster import Cluster
from integration.room import Room, ServerLog, appoint, wait_for
from integration.terminals import Terminals

from chatserver.config import load_config
from chatserver.log import configure_log
from ops.nats_servers import bind_free_port

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from chatserver.config import Config

_numbers = itertools.count(1)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return _config_in(tmp_path)


def _config_in(folder: Path) -> Config:
    flags = f"--host 127.0.0.1 --port 0 --data {folder}/data --hash-time-cost 1 --hash-memory-kib 8 --disk-reserve 0"
    return load_config(flags.split(), {})


@pytest.fixture
def log() -> ServerLog:
    return ServerLog()


@pytest.fixture
def open_room(config: Config, log: ServerLog) -> Iterator[Callable[..., Room]]:
    """Opens rooms with other settings, and closes them. No thread may be left."""
    configure_log("info", "text", log)
    before = set(threading.enumerate())
    with ExitStack() as rooms:

        def open_room(tls_client: ssl.SSLContext | None = None, **settings: Any) -> Room:
            room = Room(replace(config, **settings), tls_client)
            rooms.callback(room.close)
            return room

        yield open_room
    print(log.getvalue())  # shown when the test fails
    wait_for(lambda: set(threading.enumerate()) <= before, "the end of the threads")


@pytest.fixture
def kept_port() -> Iterator[int]:
    """A port for a server that is started again. No other program gets it meanwhile."""
    with bind_free_port() as kept:
        yield int(kept.getsockname()[1])


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    """A random generator with the same seed in each run of the test."""
    return random.Random(request.node.name)


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def open_tls_room(open_room: Callable[..., Room], authority: Authority, tmp_path: Path) -> Callable[..., Room]:
    """Opens rooms with a certificate, in which all peers over TCP are encrypted."""
    files = authority.write(tmp_path)
    return partial(open_room, authority.client_context(), tls_cert=files.certificate, tls_key=files.key)


@pytest.fixture
def room(open_room: Callable[..., Room]) -> Room:
    return open_room()


@pytest.fixture(scope="module")
def shared_room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    """One server for all tests of a module. Users and texts of earlier tests are in it, so use fresh_name()."""
    configure_log("info", "text", io.StringIO())
    room = Room(_config_in(tmp_path_factory.mktemp("shared")))
    yield room
    room.close()
    assert not room.has_crashed


@pytest.fixture(scope="module")
def moderated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    """Like ``shared_room``, with ``op`` as an operator of the server."""
    configure_log("info", "text", io.StringIO())
    config = _config_in(tmp_path_factory.mktemp("moderated"))
    room = Room(config)
    room.enter("op")
    room.close()
    appoint(config, "op")
    room = Room(config)
    yield room
    room.close()
    assert not room.has_crashed


@pytest.fixture
def fresh_name() -> Callable[[str], str]:
    """Returns a username that no other test uses: ``alice17``."""
    return lambda name: f"{name}{next(_numbers)}"


@pytest.fixture
def terminals(room: Room, tmp_path: Path) -> Iterator[Terminals]:
    with Terminals(room.server.port, tmp_path) as terminals:
        yield terminals


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path)
    yield cluster
    cluster.close()
