"""The client at a terminal: columns of wide letters, and floods."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from integration.terminals import rows_with

from ops.window import BACKSPACE, ENTER, control

if TYPE_CHECKING:
    from integration.room import Room
    from integration.terminals import Terminals


# --- columns ---


def test_gutter_is_straight_beside_wide_and_combining_letters(room: Room, terminals: Terminals) -> None:
    bob = room.enter("bob")
    alice = terminals.log_in(columns=70, rows=40)
    alice.type("漢字é🙂")
    alice.until_line("alice> 漢字é🙂")
    texts = ["漢字かな交じり文" * 8, "e\u0301a\u0308o\u0302" * 40, "🙂👍" * 30, "\U0001f469\u200d\U0001f4bb x " * 15]
    for text in texts:
        bob.say(text)
    bob.say("fence")
    alice.until_shows("│ fence")
    begin, end = alice.place("commands.").row + 1, alice.place("│ fence").row
    assert end - begin >= 2 * len(texts)
    assert {alice.cell(row, 15).data for row in range(begin, end)} == {"│"}
    assert {alice.cell(row, 69).data for row in range(begin, end)} == {" "}, "no row touches the window's edge"
    alice.until_line("alice> 漢字é🙂")
    assert alice.cursor.column == len("alice> ") + 2 + 2 + 1 + 2


@pytest.mark.parametrize("joins", [True, False], ids=["one picture", "one picture each"])
def test_prompt_stays_with_emoji_of_several_code_points(room: Room, terminals: Terminals, joins: bool) -> None:
    """Terminals differ in how wide they draw them, so the position of the prompt must not depend on it."""
    bob = room.enter("bob")
    alice = terminals.log_in(columns=60, joins=joins)
    family, flag, thumb = "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f1e9\U0001f1ea", "\U0001f44d\U0001f3fd"
    text = f"{family} {flag} {thumb} \u2764\ufe0f 1\ufe0f\u20e3 x"
    alice.type(text, "end")
    alice.until(lambda: alice.cursor_row.endswith("xend"), "it is typed")
    assert alice.cursor_row[alice.cursor.column :] == ""
    alice.type(control("a"), ">")
    alice.until(lambda: alice.cursor_row.startswith("alice> >"), "it is typed at the beginning")
    alice.type(BACKSPACE, control("e"), BACKSPACE * 3)
    alice.until(lambda: alice.cursor_row.endswith(" x"), "it is shorter")
    bob.say("hello")
    alice.until_shows("bob │ hello")
    alice.until(lambda: re.match("alice> \U0001f468.* x$", alice.cursor_row), "the line is there")
    alice.type(ENTER)
    assert bob.next("broadcast")["message"] == text
    alice.until_line("alice>")


# --- users, bells and floods ---


def test_flood_shows_the_newest_messages_and_counts_the_others(room: Room, terminals: Terminals) -> None:
    """The client is paused, so that many are drawn at once. A mention is always shown. A long message is cut."""
    bob = room.enter("bob")
    alice = terminals.log_in()
    alice.type("steady")
    bob.say("x\n" * 4_000 + "the end")
    alice.until_shows("(3941 more lines are not shown)")
    assert len([row for row in alice.everything() if row.endswith("│ x")]) == 60
    alice.until_line("alice> steady")
    alice.pause()
    for number in range(3_000):
        bob.ask(command="PM", message=f"flood {number}" + (", alice" if number == 5 else ""))
    for _ in range(3_000):
        bob.next("sent")
    alice.go_on()
    alice.until_shows("flood 2999")
    alice.until_line("alice> steady")
    notices = re.findall(r"([\d,]+) messages came too fast to be shown; CH shows the newest", alice.text())
    shown = [int(re.search(r"flood (\d+)", row)[1]) for row in rows_with(alice, "│ flood ")]  # type: ignore[index]
    # A busy machine draws some at a time, and leaves fewer out.
    assert sum(int(each.replace(",", "")) for each in notices) == 3_000 - len(shown)
    assert shown == sorted(set(shown))
    assert 5 in shown
    assert alice.bells == 1


def test_joins_can_be_hidden(room: Room, terminals: Terminals) -> None:
    """With a flag, and with /joins."""
    bob = room.enter("bob")
    hank = terminals.log_in("hank", "--hide-joins")
    carol = room.enter("Carol")
    while "Carol" not in bob.next("users")["joined"]:
        pass
    carol.say("fence")
    hank.until_shows("│ fence")
    hank.type("/joins", ENTER)
    hank.until_shows("Joins and leaves are shown from now on.")
    carol.close()
    hank.until_shows("* │ Carol left")
    assert "Carol joined" not in hank.text()
