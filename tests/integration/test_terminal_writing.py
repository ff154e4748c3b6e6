"""The client at a terminal: completion, history of lines and pastes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from integration.terminals import rows_with

from ops.window import ALT_ENTER, DOWN, ENTER, TAB, UP, control

if TYPE_CHECKING:
    from integration.room import Peer, Room
    from integration.terminals import Terminals

    from ops.window import Window


BEES = ["bob", "barbara", "bertha"]


def clear(window: Window) -> None:
    window.type(control("c"))
    window.until_line("alice>")


def texts_until_fence(bob: Peer) -> list[str]:
    """The public messages up to now."""
    return [each["message"] for each in bob.until_fence() if each["type"] == "broadcast"]


# --- completion and earlier lines ---


def test_tab_completes_names_and_commands(room: Room, terminals: Terminals) -> None:
    """If several names match, Tab shows them all, and the first Enter only accepts one."""
    bob = room.enter("bob")
    for name in ("carol", "barbara", "bertha"):
        room.enter(name)
    alice = terminals.log_in()
    alice.until(lambda: "5 online" in alice.row_with("connected"), "all are known")
    for typed, line in (("DM car", "DM carol"), ("@car", "@carol"), ("CAR", "carol:"), ("/sea", "/search")):
        alice.type(typed)
        alice.until_line(f"alice> {typed}")
        alice.type(TAB)
        alice.until_line(f"alice> {line}")
        clear(alice)
    alice.type("DM b")
    alice.until_line("alice> DM b")
    alice.type(TAB)
    alice.until(lambda: {"barbara", "bertha", "bob"} <= {row.strip() for row in alice.rows()}, "all are shown")
    alice.type(TAB)
    alice.until_line("alice> DM barbara")
    bob.say("meanwhile")
    alice.until_shows("bob │ meanwhile")
    for name in ("bertha", "bob"):
        alice.type(TAB)
        alice.until_line(f"alice> DM {name}")
    alice.type(ENTER)
    alice.until(lambda: not any(row.strip() == "bertha" for row in alice.rows()), "the names are gone")
    alice.until_line("alice> DM bob")
    alice.type("hello", ENTER)
    assert bob.next("direct")["message"] == "hello"
    alice.type("so b")
    alice.until_line("alice> so b")
    alice.type(TAB)
    alice.until(lambda: [row.strip() for row in alice.rows() if row.strip() in BEES] == BEES, "the speaker is first")
    alice.type(TAB)
    alice.until_line("alice> so bob")
    clear(alice)
    alice.type("DM", ENTER)
    alice.until_line("recipient:")
    alice.type("bo")
    alice.until_line("recipient: bo")
    alice.type(TAB)
    alice.until_line("recipient: bob")


def test_earlier_lines_come_back_and_can_be_searched(room: Room, terminals: Terminals) -> None:
    """A line that was found is not sent before Enter; Ctrl-C ends the search."""
    bob = room.enter("bob")
    alice = terminals.log_in()
    for text in ("hello world", "second"):
        alice.type(text, ENTER)
        alice.until_shows(f"alice │ {text}")
    for key, line in ((UP, "second"), (UP, "hello world"), (DOWN, "second"), (DOWN, "")):
        alice.type(key)
        alice.until_line(f"alice> {line}")
    assert texts_until_fence(bob) == ["hello world", "second"]
    for end in (control("c"), ENTER):
        alice.type(control("r"), "wor")
        alice.until(lambda: "search" in alice.text() and "`wor'" in alice.text(), "it is searched")
        alice.type(end)
        alice.until_line("alice>" if end == control("c") else "alice> hello world")
        assert texts_until_fence(bob) == []
    alice.type(ENTER)
    assert bob.next("broadcast")["message"] == "hello world"


# --- several lines ---


def test_paste_is_one_message_that_enter_sends(room: Room, terminals: Terminals) -> None:
    """More than five lines are sent after a second Enter only. Alt-Enter breaks a line, too."""
    bob = room.enter("bob")
    alice = terminals.log_in()
    alice.paste("one\r\ntwo\rthree\n")
    alice.until_line("  three")
    assert alice.rows()[alice.cursor.row - 2 : alice.cursor.row] == ["alice> one", "  two"]
    assert texts_until_fence(bob) == []
    alice.type(ALT_ENTER, "four", ENTER)
    assert bob.next("broadcast")["message"] == "one\ntwo\nthree\nfour"
    alice.until_shows("alice │ one", "│ two", "│ three", "│ four")
    six = "\n".join(f"line {number}" for number in range(6))
    question = "Send these 6 lines as one message? Enter"
    for count in (1, 2):
        alice.until_line("alice>")
        alice.paste(six)
        alice.until_line("  line 5")
        alice.type(ENTER)
        alice.until(lambda count=count: len(rows_with(alice, question)) == count, "it asks")  # type: ignore[misc]
        assert texts_until_fence(bob) == []
        alice.type(control("c") if count == 1 else ENTER)
    assert bob.next("broadcast")["message"] == six


def test_paste_over_the_limit_is_refused_with_its_size(room: Room, terminals: Terminals) -> None:
    bob = room.enter("bob")
    alice = terminals.log_in()
    alice.type("before")
    alice.paste("é" * 4_097)
    alice.until_shows("8,194", "8,192")
    alice.until_line("alice> before")
    clear(alice)
    alice.paste("é" * 4_096)
    alice.until(lambda: "é" * 50 in alice.cursor_row, "it is taken")
    alice.type(ENTER)
    assert bob.next("broadcast")["message"] == "é" * 4_096


@pytest.mark.parametrize("question", ["", "PM"])
def test_paste_without_bracketed_paste_is_one_message(room: Room, terminals: Terminals, question: str) -> None:
    """Its keys are faster than typing. The line break at its end sends nothing."""
    bob = room.enter("bob")
    alice = terminals.log_in()
    if question:
        alice.type(question, ENTER)
        alice.until_line("message for all users:")
    alice.type(f"one{ENTER}two{ENTER}{ENTER}three{ENTER}")
    alice.until_line("  three")
    pasted_at = time.monotonic()
    alice.until(lambda: time.monotonic() > pasted_at + 0.5, "the paste is over")
    alice.type(" and more")
    alice.until_line("  three and more")
    alice.type(ENTER)
    assert bob.next("broadcast")["message"] == "one\ntwo\n\nthree and more"
