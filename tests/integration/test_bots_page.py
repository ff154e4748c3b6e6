"""The page for those who write bots, docs/bots.md: what it tells of the classes is so, and its programs work."""

from __future__ import annotations

import re
import subprocess
import sys
from inspect import Parameter, Signature, formatannotation, get_annotations, signature
from pathlib import Path
from typing import TYPE_CHECKING, ForwardRef, get_args

import chatclient
from chatclient import ChatClient
from chatclient.client import Happening
from chatprotocol.events import (
    Delivered,
    Event,
    NotDelivered,
    PasswordChanged,
    PasswordPrompt,
    Pong,
    Ready,
    Registered,
    User,
    Welcome,
)

if TYPE_CHECKING:
    from integration.room import Room

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "bots.md").read_text(encoding="utf-8")
PROGRAMS = re.findall("```python\n(.*?)```", PAGE, re.DOTALL)
DEADLINE_SECONDS = 30.0


def rows(section: str) -> dict[str, str]:
    """The table of a section: the second column by the first one, which is code."""
    text = re.split(r"^## ", PAGE.split(f"## {section}\n")[1], maxsplit=1, flags=re.MULTILINE)[0]
    found = re.findall(r"^\| `([^`]+)` \|(.*?)(?<!\\)\| ", text, re.MULTILINE)
    return {name: second.strip() for name, second in found}


def fields(kind: type) -> str:
    """As the page writes them."""
    return ", ".join(f"`{name}: {shown(hint)}`" for name, hint in get_annotations(kind).items())


def shown(hint: object) -> str:
    text = hint.__forward_arg__ if isinstance(hint, ForwardRef) else formatannotation(hint)
    return re.sub(r"\b(\w+\.)+", "", text).replace("|", r"\|")


def test_every_event_has_its_row_with_all_of_its_fields() -> None:
    assert {name: text for name, text in rows("Events").items() if name[0].isupper()} == {
        kind.__name__: fields(kind) for kind in get_args(Happening)
    }


def test_what_a_server_can_say_has_a_row_or_is_answered_by_the_client_itself() -> None:
    """Whoever adds a class to those of the protocol decides which of the two."""
    used_up = {Welcome, PasswordPrompt, PasswordChanged, Ready, Registered, Delivered, NotDelivered, Pong, User}
    assert {*get_args(Event)} - {*get_args(Happening)} == used_up


def test_whatever_a_row_names_can_be_imported_from_the_package() -> None:
    named = {*rows("Events"), *rows("Errors"), "Welcome", "AccountKind", "SentStatus", "Say", "Whisper"}
    assert {name for name in named if name[0].isupper()} <= {*chatclient.__all__}
    assert all(hasattr(chatclient, name) for name in chatclient.__all__)


def test_every_call_has_its_row() -> None:
    """With its arguments and their defaults."""
    calls = {row.partition("(")[0]: row for row in rows("Calls")}
    for name, row in calls.items():
        told = signature(ChatClient) if name == "ChatClient" else signature(getattr(ChatClient, name))
        arguments = [
            each.replace(annotation=Parameter.empty) for each in told.parameters.values() if each.name != "self"
        ]
        assert row.replace('"', "'") == f"{name}{Signature(arguments)}"
    assert {"connect", "login", "say", "whisper", "users", "history", "search", "events", "inject", "close"} < {*calls}


def test_the_example_is_the_one_that_is_tested() -> None:
    assert PROGRAMS[0] == (DOCS / "examples/echo_bot.py").read_text(encoding="utf-8")


def test_the_program_with_a_timer_works_as_it_is_written(room: Room) -> None:
    watcher = room.enter("watcher")
    program = PROGRAMS[1].replace("ChatClient()", f"ChatClient('127.0.0.1', {room.server.port})")
    program = program.replace("Timer(3.0", "Timer(0.0")
    subprocess.run([sys.executable, "-c", program], check=True, timeout=DEADLINE_SECONDS)

    said = [each["message"] for each in watcher.until_fence() if each["type"] == "broadcast"]
    assert said == ["time for tea"]
