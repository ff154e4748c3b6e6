"""The client at a terminal: deleted messages are replaced where they stand, and users who are put out are told why."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from integration.terminals import Terminals, rows_with, texts_with

from ops.window import ENTER, control

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from integration.room import Room

    Name = Callable[[str], str]


@pytest.fixture
def terminals(moderated: Room, tmp_path: Path) -> Iterator[Terminals]:
    with Terminals(moderated.server.port, tmp_path) as terminals:
        yield terminals


def test_deleted_message_is_replaced_in_a_window_with_space_and_in_a_full_one(
    moderated: Room, terminals: Terminals, fresh_name: Name
) -> None:
    """All other rows stay as they are, and stand once. A message above the window is told in a line."""
    bob = moderated.enter(fresh_name("bob"), moderation=True)
    window = terminals.log_in(fresh_name("alice"), rows=20, columns=80)

    def say(text: str) -> int:
        bob.ask(command="PM", message=text)
        return int(bob.next("sent")["id"])

    ids = [say(f"row {number}") for number in range(4)]
    window.until_shows("row 3")
    window.type("half a line")
    bob.ask(command="delete", id=ids[1])
    window.until_shows("(deleted by bob")
    window.until(lambda: texts_with(window, "│ row ") == ["row 0", "row 2", "row 3"], "the other rows")
    rows = [row for row in window.rows() if "│ row " in row or "(deleted by" in row]
    assert [row.split("│ ")[1][:8] for row in rows] == ["row 0", "(deleted", "row 2", "row 3"]
    assert window.rows()[window.cursor.row].endswith("> half a line")
    ids += [say(f"row {number}") for number in range(4, 40)]
    window.until_shows("row 39")
    before = window.everything()
    bob.ask(command="delete", id=ids[38])
    window.until(lambda: len(rows_with(window, "(deleted by")) == 2, "the second one is replaced")

    def changed() -> list[str]:
        return [old for old, new in zip(before, window.everything(), strict=False) if old != new]

    window.until(lambda: changed() == [row for row in before if "row 38" in row], "all other rows stay")
    assert len(window.everything()) == len(before)
    bob.ask(command="delete", id=ids[3])
    window.until_shows("deleted the message of bob")
    assert texts_with(window, "│ row ") == [f"row {number}" for number in range(40) if number not in (1, 38)]
    window.type(control("c"), "/ids", ENTER)
    window.until_shows("Numbers of messages are shown")
    last = say("last")
    window.until_shows(f"{last} bob")
    window.resize(70, 20)  # the terminal wraps the rows again, so it is not known where they stand
    bob.ask(command="delete", id=last)
    window.until(lambda: len(rows_with(window, "deleted the message of bob")) == 2, "the second one is told")
    assert texts_with(window, "│ last") == ["last"]


def test_user_who_is_kicked_reads_why_and_is_at_the_shell_again(
    moderated: Room, terminals: Terminals, fresh_name: Name
) -> None:
    op = moderated.enter("op", moderation=True)
    name = fresh_name("alice")
    window = terminals.log_in(name)
    op.ask(command="kick", username=name, reason="calm down")
    assert window.until_end() == 3
    assert len(rows_with(window, "calm down")) == 2  # the event, and the goodbye
