"""What ``docker compose`` does to a room in use: entering, and the demo, leave it as it is."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .harness.engine import Engine

DEMO = ("alice", "bob", "carol")


@pytest.fixture
def room(engine: Engine) -> Iterator[Engine]:
    """An engine with docker compose; what it has put up is taken down afterwards."""
    yield engine
    engine.compose("down", "--volumes")


def test_a_client_that_enters_does_not_recreate_a_running_server(room: Engine) -> None:
    """Though the settings have changed since the server was put up, as its image may have."""
    room.compose("up", "--detach", "server")
    before = room.compose("ps", "--quiet", "--no-trunc")
    shown = enter(room, "PM hello", CHAT_USERS_SECONDS="7")
    assert "[sent #1]" in shown
    assert room.compose("ps", "--quiet", "--no-trunc") == before


def test_a_misspelt_setting_reaches_the_server_which_warns_about_it(engine: Engine, tmp_path: Path) -> None:
    """What in .env is for the host and for clients does not."""
    (tmp_path / ".env").write_text("CHAT_REGISTRATON=closed\nCHAT_PORT=9998\nCHAT_PASSWORD=secret\n")
    config = json.loads(engine.compose("--project-directory", str(tmp_path), "config", "--format", "json", "server"))
    environment = config["services"]["server"]["environment"]
    assert environment["CHAT_REGISTRATON"] == "closed"
    assert (environment["CHAT_PORT"], environment["CHAT_PASSWORD"]) == ("9999", "")


def test_each_project_has_images_of_its_own(engine: Engine) -> None:
    """So that what another checkout or a test builds is not what this room runs next."""
    own, others = (
        set(engine.compose("--project-name", project, "--profile", "*", "config", "--images").split())
        for project in ("one", "another")
    )
    assert len(own) == len(others) == 2
    assert not own & others


def test_the_demo_is_played_until_somebody_else_uses_the_room(room: Engine) -> None:
    """Its users have passwords that nobody else can know. What has been played leaves the room as it is."""
    room.compose("up", "--detach", "server")
    room.compose("up", *DEMO)
    assert exit_codes(room) == [0, 0, 0]
    played = history(room)
    assert "carol: That was fun" in played

    enter(room, "/me waves", "PM hello", "EX")
    told = room.compose("up", *DEMO)
    assert exit_codes(room) == [0, 0, 0]
    assert len(re.findall(r"\[demo\] \w+ says nothing, because others use this room: zed$", told, re.MULTILINE)) == len(
        DEMO
    )
    assert history(room).split("\n")[-2].endswith("zed: hello")

    modes = room.compose("run", "--rm", "--entrypoint", "stat", "alice", "-c", "%a %u", "/demo/alice.password")
    assert "600 10001" in modes


def enter(room: Engine, *lines: str, **settings: str) -> str:
    """Enter as zed and type lines; returns what was shown."""
    typed = "".join(f"{line}\n" for line in ("password of zed", *lines))
    return room.compose("run", "--rm", "--no-TTY", "client", "zed", typed=typed, **settings)


def history(room: Engine) -> str:
    """What everybody has said so far, one message a line."""
    shown = enter(room, "CH 100", "EX")
    return "".join(f"{line}\n" for line in shown.splitlines() if line.startswith("[history #"))


def exit_codes(room: Engine) -> list[int]:
    """How the demo's clients ended."""
    api = room.client.api
    return [api.inspect_container(f"{room.project}-{name}-1")["State"]["ExitCode"] for name in DEMO]
