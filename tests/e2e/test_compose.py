"""The images and compose.yaml. These stories run only if a Docker engine answers."""

from __future__ import annotations

import json
import re
import subprocess
import time
import urllib.request
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.parse import urlencode

import pytest

from .harness.process_stack import command_path
from .harness.stack import own_environment
from .harness.transcript import EXPECT_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .harness.engine import Engine

DEMO = ("alice", "bob", "carol")
CLUSTER = Path(__file__).parents[2] / "compose.cluster.yaml"
DASHBOARD = Path(__file__).parents[2] / "ops" / "observe" / "grafana" / "chat.json"
# The first build of an image installs packages.
BUILDS = pytest.mark.timeout(600, func_only=True)
# Six containers of a cluster start at once.
START_SECONDS = 2 * EXPECT_SECONDS


@pytest.fixture
def room(engine: Engine) -> Iterator[Engine]:
    """The engine with a server started by docker compose."""
    start_server(engine)
    yield engine
    engine.compose("down", "--volumes")


def start_server(room: Engine) -> None:
    """``docker compose up``, and wait until the server accepts connections."""
    room.compose("up", "--detach", "--no-build", "server")
    await_log(room.compose, "server")


def await_log(compose: Callable[..., str], service: str) -> None:
    """Wait until a server accepts connections."""
    deadline = time.monotonic() + START_SECONDS
    while "Waiting for connection" not in (log := compose("logs", service)):
        assert time.monotonic() < deadline, log


def run_client(room: Engine, *lines: str, password: str = "password of zed", **settings: str) -> str:
    """``docker compose run --rm client zed``, which types the password and these lines; returns its output."""
    typed = "".join(f"{line}\n" for line in (password, *lines))
    return room.compose("run", "--rm", "--no-TTY", "client", "zed", typed=typed, **settings)


def history(room: Engine) -> list[str]:
    shown = run_client(room, "CH 100", "EX")
    return [line for line in shown.splitlines() if line.startswith("[history #")]


def test_data_outlives_down_and_up(room: Engine) -> None:
    """Story 9: accounts and messages are on the volume, until ``down --volumes``. Password hashes have full cost."""
    assert "[welcome new] zed" in run_client(room, "PM remember me", "EX")
    room.compose("down")
    start_server(room)
    # The first line is the wrong password, the second one the right one.
    shown = run_client(room, "password of zed", "CH", "EX", password="looking glass")
    assert "[error wrong_password]" in shown
    assert "[welcome existing] zed" in shown
    assert "zed: remember me" in shown
    room.compose("down", "--volumes")
    start_server(room)
    shown = run_client(room, "CH", "EX", password="looking glass")
    assert "[welcome new] zed" in shown
    assert "[history 0]" in shown


def test_container_is_healthy_and_restricted(room: Engine) -> None:
    """The image's health check passes; the server is no root user, and can write to its data folder only."""
    api = room.client.api
    (container,) = api.containers(filters={"label": f"com.docker.compose.project={room.project}"})
    details = api.inspect_container(container["Id"])
    command, *arguments = details["Config"]["Healthcheck"]["Test"]
    assert command == "CMD"
    room.compose("exec", "--no-TTY", "server", *arguments)
    assert details["HostConfig"]["CapDrop"] == ["ALL"]
    assert details["HostConfig"]["SecurityOpt"] == ["no-new-privileges:true"]
    script = "id -u; touch /data/file && echo data; touch /tmp/file /opt/chat/file 2>/dev/null || echo read-only"
    shown = room.compose("exec", "--no-TTY", "server", "sh", "-c", script)
    assert shown.splitlines()[0] == "10001"
    assert "data" in shown.splitlines()
    assert shown.splitlines()[-1] == "read-only"


def test_udp_port_is_published(room: Engine) -> None:
    """A client of this machine joins over UDP."""
    host, _, port = room.compose("port", "--protocol", "udp", "server", "9999").strip().rpartition(":")
    done = subprocess.run(
        [command_path("chatclient"), "--udp", host, port, "zed"],
        env={**own_environment(), "CHAT_PASSWORD": "password of zed"},
        input="PM hello over UDP\nEX\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[sent #1]" in done.stdout
    assert history(room)[-1].endswith("zed: hello over UDP")


def test_client_does_not_recreate_a_running_server(room: Engine) -> None:
    """Even if the settings, or the image, have changed since the server was started."""
    before = room.compose("ps", "--quiet", "--no-trunc")
    assert "[sent #1]" in run_client(room, "PM hello", CHAT_USERS_SECONDS="7")
    assert room.compose("ps", "--quiet", "--no-trunc") == before


def test_demo_plays_only_in_an_unused_room(room: Engine) -> None:
    """The passwords of its users are random and private, and the room of others stays as it is."""
    room.compose("up", *DEMO)
    assert exit_codes(room) == [0, 0, 0]
    assert any("carol: That was fun" in line for line in history(room))
    run_client(room, "/me waves", "PM hello", "EX")
    output = room.compose("up", *DEMO)
    assert exit_codes(room) == [0, 0, 0]
    silent = re.findall(r"\[demo\] \w+ says nothing, because others use this room: zed$", output, re.MULTILINE)
    assert len(silent) == len(DEMO)
    assert history(room)[-1].endswith("zed: hello")
    modes = room.compose("run", "--rm", "--entrypoint", "stat", "alice", "-c", "%a %u", "/demo/alice.password")
    assert "600 10001" in modes


def exit_codes(room: Engine) -> list[int]:
    api = room.client.api
    return [api.inspect_container(f"{room.project}-{name}-1")["State"]["ExitCode"] for name in DEMO]


def test_env_file_reaches_the_server(engine: Engine, tmp_path: Path) -> None:
    """Also misspelt settings, which the server warns about; but not those of the host and of clients."""
    (tmp_path / ".env").write_text("CHAT_REGISTRATON=closed\nCHAT_PORT=9998\nCHAT_PASSWORD=secret\n")
    config = json.loads(engine.compose("--project-directory", str(tmp_path), "config", "--format", "json", "server"))
    environment = config["services"]["server"]["environment"]
    assert environment["CHAT_REGISTRATON"] == "closed"
    assert (environment["CHAT_PORT"], environment["CHAT_PASSWORD"]) == ("9999", "")


def test_each_project_has_images_of_its_own(engine: Engine) -> None:
    """A build in another checkout does not change the image of this room."""
    own, others = (
        set(engine.compose("--project-name", project, "--profile", "*", "config", "--images").split())
        for project in ("one", "another")
    )
    assert len(own) == len(others) == 3
    assert not own & others


@BUILDS
def test_prometheus_reads_the_server_and_answers_the_dashboard(engine: Engine) -> None:
    """With the profile observe. It also has the alerts, and none of them fires."""
    settings = {"CHAT_METRICS": "0.0.0.0:9464", "PROMETHEUS_PORT": "0"}
    engine.compose("--profile", "observe", "build", "--quiet", "prometheus", **settings)
    engine.compose("--profile", "observe", "up", "--detach", "--no-build", "server", "prometheus", **settings)
    try:
        address = engine.compose("--profile", "observe", "port", "prometheus", "9090", **settings).strip()
        # A read that fails on a busy machine is repeated after 5 s.
        deadline = time.monotonic() + START_SECONDS
        while not (found := prometheus(address, "query", query="sum(chat_connections_max)")):
            assert time.monotonic() < deadline, "Prometheus does not read the server"
            time.sleep(0.2)
        assert found[0]["value"][1] == "10000"
        panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
        for query in (target["expr"] for panel in panels for target in panel["targets"]):
            prometheus(address, "query", query=query.replace("$__rate_interval", "1m").replace("$instance", ".*"))
        states = {rule["name"]: rule["state"] for group in prometheus(address, "rules") for rule in group["rules"]}
        assert len(states) > 10
        assert [name for name, state in states.items() if state == "firing"] == []
    finally:
        engine.compose("--profile", "observe", "down", "--volumes", **settings)


@BUILDS
def test_cluster_serves_without_one_chat_server_and_one_nats_server(engine: Engine) -> None:
    """With compose.cluster.yaml. Clients use any of the chat servers, and reach no NATS server."""
    ports = {"CHAT_PORT_2": "0", "CHAT_PORT_3": "0"}
    cluster = partial(engine.compose, "--file", str(CLUSTER), **ports)
    servers, nats = ("server", "server2", "server3"), ("nats1", "nats2", "nats3")
    run = ("run", "--rm", "--no-TTY")
    typed = "password of zed\nPM {}\nCH\nEX\n"
    cluster("build", "--quiet", "nats1")
    try:
        cluster("up", "--detach", "--no-build", *nats, *servers)
        for name in servers:
            await_log(cluster, name)
        assert "[sent #1]" in cluster(*run, "client", "zed", typed=typed.format("all are here"))
        cluster("exec", "--no-TTY", "nats2", "python3", "/usr/local/lib/healthy.py")
        cluster("kill", "server", "nats1")
        shown = cluster(*run, "client", "zed", typed=typed.format("two of three are enough"))
        assert "zed: all are here" in shown
        assert "zed: two of three are enough" in shown
        script = (
            "import socket\ntry: socket.create_connection(('nats2', 4222), 5)\nexcept OSError: print('unreachable')"
        )
        assert "unreachable" in cluster(*run, "--entrypoint", "python3", "client", "-c", script)
    finally:
        cluster("down", "--volumes")


def prometheus(address: str, page: str, **asked: str) -> list[dict[str, Any]]:
    """Ask Prometheus; returns the result or the groups of rules. Nothing while it does not answer, or starts."""
    url = f"http://{address}/api/v1/{page}?{urlencode(asked)}"
    try:
        with urllib.request.urlopen(url, timeout=EXPECT_SECONDS) as answer:
            data = json.load(answer)["data"]
    except HTTPError as error:
        with error:
            if error.code == HTTPStatus.SERVICE_UNAVAILABLE:  # it reads its data
                return []
            raise AssertionError(f"{url}: {error.read().decode()}") from error
    except OSError:  # it does not listen yet
        return []
    found: list[dict[str, Any]] = data.get("result", data.get("groups"))
    return found
