"""irssi and WeeChat, as people use them, beside clients of json and frames: all see the same.

Each program runs in a pseudo-terminal, with a configuration of its own. The commands are those of docs/wire/irc.md. A
program that is not installed is left out: ``make irc-clients`` installs both.
"""

from __future__ import annotations

import os
import shutil
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from ops.window import ENTER, Window

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from integration.room import Room

    # Starts a client of the server: program, name, password (none: a guest).
    Start = Callable[..., Window]

pytestmark = pytest.mark.long

PROGRAMS = ["irssi", "weechat"]


def irssi_commands(port: int, sasl: tuple[str, str] | None) -> list[str]:
    login = "" if sasl is None else f"-sasl_username {sasl[0]} -sasl_password {sasl[1]} -sasl_mechanism PLAIN "
    return [f"/network add {login}chat", f"/server add -auto -network chat 127.0.0.1 {port}", "/connect chat"]


def weechat_commands(port: int, name: str, sasl: tuple[str, str] | None) -> list[str]:
    login = (
        []
        if sasl is None
        else [f"/set irc.server.chat.sasl_username {sasl[0]}", f"/set irc.server.chat.sasl_password {sasl[1]}"]
    )
    nicks = f"/set irc.server.chat.nicks {name},{name}2"
    return [f"/server add chat 127.0.0.1/{port}", nicks, *login, "/connect chat"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Window]]:
    with ExitStack() as windows:

        def start(program: str, port: int, name: str, password: str | None = None) -> Window:
            if shutil.which(program) is None:
                pytest.skip(f"{program} is not installed: make irc-clients")
            folder = tmp_path / f"{program}-{name}"
            folder.mkdir()
            sasl = None if password is None else (name, password)
            if program == "irssi":
                core = f'nick = "{name}"; user_name = "{name}";'
                other = f'"irc/core" = {{ alternate_nick = "{name}2"; }};'
                (folder / "config").write_text(f"servers = ();\nsettings = {{ core = {{ {core} }}; {other} }};\n")
                words, commands = [program, f"--home={folder}"], irssi_commands(port, sasl)
            else:
                commands = []
                words = [program, "-d", str(folder)]
                for command in ["/set irc.look.server_buffer independent", *weechat_commands(port, name, sasl)]:
                    words += ["-r", command]
            environment = {"TERM": "xterm", "LC_ALL": "C.UTF-8", "HOME": str(folder), "PATH": os.environ["PATH"]}
            window = Window(words, columns=140, rows=40, environment=environment, folder=str(folder))
            windows.enter_context(window)
            if commands:
                window.until_shows("Irssi v")
            for command in commands:
                window.type(command, ENTER)
            return window

        yield start


def enter(window: Window, channel: str, name: str) -> None:
    window.type(f"/join {channel}", ENTER)
    window.until(lambda: any(channel in row and name in row for row in window.everything()), f"{name} is in {channel}")


@pytest.mark.parametrize("program", PROGRAMS)
def test_talks_with_json_and_frames(program: str, start: Start, open_room: Callable[..., Room]) -> None:
    room = open_room()
    bob, frames = room.enter("bob"), room.enter_frames("fred")
    room.enter("alice").close()
    window = start(program, room.server.port, "alice", "secret")
    window.until_shows("Welcome to the")
    enter(window, "#lobby", "alice")
    window.type("hello from irc", ENTER)
    assert bob.next("broadcast")["message"] == "hello from irc"
    assert frames.next_message()[-1] == "hello from irc"
    bob.say("hello from json")
    window.until_shows("hello from json")


@pytest.mark.parametrize("program", PROGRAMS)
def test_wrong_password_is_told(program: str, start: Start, open_room: Callable[..., Room]) -> None:
    room = open_room()
    room.enter("alice").close()
    window = start(program, room.server.port, "alice", "wrong")
    window.until_shows("That is not the password of alice")


@pytest.mark.parametrize("program", PROGRAMS)
def test_taken_nick_falls_back_to_the_next_one(program: str, start: Start, open_room: Callable[..., Room]) -> None:
    room = open_room(guests="on")
    room.enter("alice")
    window = start(program, room.server.port, "alice")
    window.until_shows("Network, alice2")
