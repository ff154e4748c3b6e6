"""docs/bots.md: its tables are those of the classes, and its programs work."""

from __future__ import annotations

import re
import subprocess
import sys
from inspect import Parameter, Signature, formatannotation, get_annotations, signature
from pathlib import Path
from typing import TYPE_CHECKING, ForwardRef, get_args

import chatclient
from chatclient import ChatClient
from chatclient.client import ProgramEvent
from chatprotocol.events import (
    PasswordChanged,
    PasswordPrompt,
    Pong,
    User,
    Welcome,
)
from chatprotocol.wire.base import ClientEvent, IrcLine, Opened, OwnAnswer, Ready

if TYPE_CHECKING:
    from collections.abc import Callable

    from integration.room import Room

    Name = Callable[[str], str]

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "bots.md").read_text(encoding="utf-8")
PROGRAMS = re.findall("```python\n(.*?)```", PAGE, re.DOTALL)
DEADLINE_SECONDS = 30.0


def rows(section: str) -> dict[str, str]:
    """The table of a section: the second column by the first."""
    text = re.split(r"^## ", PAGE.split(f"## {section}\n")[1], maxsplit=1, flags=re.MULTILINE)[0]
    found = re.findall(r"^\| `([^`]+)` \|(.*?)(?<!\\)\| ", text, re.MULTILINE)
    return {name: second.strip() for name, second in found}


def fields(kind: type) -> str:
    hints = {name: hint for each in reversed(kind.__mro__) for name, hint in get_annotations(each).items()}
    return ", ".join(f"`{name}: {shown(hint)}`" for name, hint in hints.items() if not name.startswith("_"))


def shown(hint: object) -> str:
    text = hint.__forward_arg__ if isinstance(hint, ForwardRef) else formatannotation(hint)
    text = re.sub(r"\b(\w+\.)+", "", text)
    text = re.sub(r"Annotated\[(.+?), Meta\(max_length=\d+\)\]", r"\1", text)  # the program need not know the limit
    return re.sub(r"^Optional\[(.+)\]$", r"\1 | None", text).replace("|", r"\|")


def test_events_table_has_all_events_and_fields() -> None:
    assert {name: text for name, text in rows("Events").items() if name[0].isupper()} == {
        kind.__name__: fields(kind) for kind in get_args(ProgramEvent)
    }


def test_every_event_is_in_the_table_or_handled_by_the_client() -> None:
    handled = {Welcome, PasswordPrompt, PasswordChanged, Ready, Pong, User, Opened, OwnAnswer, IrcLine}
    assert {*get_args(ClientEvent)} - {*get_args(ProgramEvent)} == handled


def test_names_in_the_tables_are_exported() -> None:
    named = {*rows("Events"), *rows("Errors"), "Welcome", "AccountKind", "SentStatus", "Say", "Whisper"}
    assert {name for name in named if name[0].isupper()} <= {*chatclient.__all__}
    assert all(hasattr(chatclient, name) for name in chatclient.__all__)


def test_calls_table_has_all_arguments_and_defaults() -> None:
    calls = {row.partition("(")[0]: row for row in rows("Calls")}
    for name, row in calls.items():
        told = signature(ChatClient) if name == "ChatClient" else signature(getattr(ChatClient, name))
        arguments = [
            each.replace(annotation=Parameter.empty) for each in told.parameters.values() if each.name != "self"
        ]
        assert row.replace('"', "'") == f"{name}{Signature(arguments)}"
    rooms = {"rooms", "join", "part", "set_topic", "invite", "op", "deop"}
    moderation = {"kick", "ban", "unban", "mute", "unmute", "bans", "delete", "report", "audit", "ignore", "unignore"}
    others = {"connect", "login", "say", "whisper", "users", "history", "search", "events", "inject", "close"}
    assert rooms | moderation | {"ignored", "tokens", "revoke"} | others < {*calls}


def test_first_program_is_the_example_bot() -> None:
    assert PROGRAMS[0] == (DOCS / "examples/echo_bot.py").read_text(encoding="utf-8")


def test_program_with_a_token_works(room: Room, tmp_path: Path) -> None:
    """It needs the password once."""
    watcher = room.enter("watcher")
    program = PROGRAMS[1]
    for call in ("ChatClient()", "ChatClient(token"):
        program = program.replace(call, call.replace("(", f"(port={room.server.port}, ").replace(", )", ")"))
    for _ in range(2):
        subprocess.run([sys.executable, "-c", program], check=True, timeout=DEADLINE_SECONDS, cwd=tmp_path)
        assert watcher.next("broadcast")["message"] == "helper is back"
        program = program.replace('"secret"', '"wrong"')
    assert (tmp_path / "helper.token").stat().st_mode & 0o777 == 0o600


def test_program_in_a_room_works(room: Room) -> None:
    watcher = room.enter("watcher")
    program = PROGRAMS[2].replace("ChatClient()", f"ChatClient('127.0.0.1', {room.server.port})")
    watcher.ask(command="join", room="dev")
    watcher.next("joined")
    with subprocess.Popen([sys.executable, "-c", program]) as process:
        assert watcher.next("broadcast")["message"] == "hello, members of dev"
        watcher.ask(command="PM", room="dev", message="who is here?")
        assert watcher.next("broadcast")["message"] == "helper watcher"
        assert process.wait(DEADLINE_SECONDS) == 0


def test_program_that_moderates_works(moderated: Room, fresh_name: Name) -> None:
    mallory = moderated.enter(fresh_name("mallory"), moderation=True)
    program = PROGRAMS[3].replace("ChatClient()", f"ChatClient('127.0.0.1', {moderated.server.port})")
    with subprocess.Popen([sys.executable, "-c", program.replace('"guard"', '"op"')]) as process:
        while "op" not in mallory.next("users")["joined"]:
            pass
        mallory.ask(command="PM", message="buy now")
        number = mallory.next("sent")["id"]
        assert mallory.next("deleted") == {"type": "deleted", "id": number, "by": "op"}
        assert mallory.next("muted")["reason"] == "advertising"
        process.terminate()


def test_program_with_a_timer_works(room: Room) -> None:
    watcher = room.enter("watcher")
    program = PROGRAMS[4].replace("ChatClient()", f"ChatClient('127.0.0.1', {room.server.port})")
    program = program.replace("Timer(3.0", "Timer(0.0")
    subprocess.run([sys.executable, "-c", program], check=True, timeout=DEADLINE_SECONDS)
    said = [each["message"] for each in watcher.until_fence() if each["type"] == "broadcast"]
    assert said == ["time for tea"]
