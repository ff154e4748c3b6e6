"""The client at a terminal: columns, history, users, bells and floods."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from integration.terminals import rows_with, texts_with

from ops.window import BACKSPACE, ENTER, control

if TYPE_CHECKING:
    from integration.room import Room
    from integration.terminals import Terminals

    from ops.window import Window


def rule(window: Window, text: str) -> int:
    """The number of the row that begins with this rule."""
    return next(number for number, row in enumerate(window.everything()) if row.startswith(f"─── {text} ─"))


# --- columns ---


def test_time_name_and_text_are_in_columns(room: Room, terminals: Terminals) -> None:
    """Below 80 columns names have less room, below 60 there are no columns."""
    bob, longest = room.enter("bob"), room.enter("a" * 32)
    alice = terminals.log_in(columns=80, rows=40)
    bob.say("hello everyone")
    bob.ask(command="DM", to="alice", message="psst")
    bob.next("sent")
    bob.say("one\ntwo\r\n  three")
    bob.say("word " * 15 + "end")
    longest.say("a long name")
    alice.until_shows("a long name")
    rows = [re.sub(r"^\d\d:\d\d", "12:00", row) for row in alice.everything()]
    day = r"─── (Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day, \d{1,2} [A-Z][a-z]+ \d{4} ─+"
    assert re.fullmatch(day, rows[0])
    at = rows.index("12:00              bob │ hello everyone")
    assert rows[at + 1 : at + 9] == [
        "12:00      bob » alice │ psst",
        "12:00              bob │ one",
        "                       │ two",
        "                       │   three",
        "12:00              bob │ word word word word word word word word word word word",
        "                       │ word word word word end",
        f"12:00 {'a' * 32} │",
        "                       │ a long name",
    ]
    alice.resize(60, 40)
    alice.until_line("alice>")
    bob.say("there " * 12)
    alice.until(lambda: len(rows_with(alice, "there")) == 2, "it is wrapped")
    assert [row[5:] for row in alice.everything() if "there" in row] == [
        "    bob │ there there there there there there there",
        "        │ there there there there there",
    ]
    alice.resize(30, 40)
    alice.until_line("alice>")
    bob.say("narrow " * 5)
    alice.until(lambda: len(rows_with(alice, "narrow")) == 2, "it is wrapped")
    at = alice.everything().index("  narrow narrow narrow narrow")
    assert re.fullmatch(r"\d\d:\d\d bob", alice.everything()[at - 1])


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


# --- history ---


def test_login_shows_recent_messages_and_those_that_waited_once(room: Room, terminals: Terminals) -> None:
    """Between two rules; a third one is before the first new message. None of them rings more than once."""
    bob = room.enter("bob")
    was_here = room.enter("alice")
    for number in range(30):
        bob.say(f"public {number:02}")
        was_here.next("broadcast")
    was_here.close()
    room.wait_for_connections(1)
    bob.ask(command="DM", to="alice", message="waits for you, public")
    bob.next("sent")
    for number in range(30, 40):
        bob.say(f"public {number:02}")
    alice = terminals.log_in()
    alice.until_shows("─── now ───")
    bob.say("live")
    alice.until_shows("bob │ live")
    rows = alice.everything()
    begin, new, end = (rule(alice, text) for text in ("the last 20 messages", "new since you were here", "now"))
    seen, missed = ([f"public {n:02}" for n in each] for each in (range(21, 30), range(30, 40)))
    assert [row.split("│ ")[1] for row in rows[begin:new] if "│" in row] == seen
    assert [row.split("│ ")[1] for row in rows[new:end] if "│" in row] == ["waits for you, public", *missed]
    assert texts_with(alice, "public") == [*seen, "waits for you, public", *missed]
    assert alice.bells <= 1


# --- users, bells and floods ---


def test_joins_and_leaves_are_shown_and_can_be_hidden(room: Room, terminals: Terminals) -> None:
    alice, hidden = terminals.log_in(), terminals.log_in("hank", "--hide-joins")
    carol = room.enter("Carol")
    alice.until_shows("* │ Carol joined")
    alice.type("/joins", ENTER)
    alice.until_shows("Joins and leaves are hidden from now on.")
    hidden.type("/joins", ENTER)
    hidden.until_shows("Joins and leaves are shown from now on.")
    alice.type("/users", ENTER)
    alice.until_shows("3 online: alice, Carol, hank")
    carol.close()
    hidden.until_shows("* │ Carol left")
    assert "Carol joined" not in hidden.text()
    room.enter("bob").say("fence")
    alice.until_shows("│ fence")
    assert "Carol left" not in alice.text()
    assert "bob joined" not in alice.text()


def test_bell_rings_for_mentions_and_direct_messages(room: Room, terminals: Terminals) -> None:
    """Not for own messages, nor for the history. Such a message is bold."""
    bob = room.enter("bob")
    bob.say("alice was mentioned before")
    alice = terminals.log_in()
    alice.until_shows("─── now ───")
    bob.say("malice is no mention, alices neither")
    for line, shown in (("I am alice", "alice │ I am alice"), ("DM alice to myself", "alice » alice │ to myself")):
        alice.type(line, ENTER)
        alice.until_shows(shown)
    alice.until_shows("malice is no mention")
    assert alice.bells == 0
    bob.say("what about ALICE?")
    alice.until_shows("what about ALICE?")
    alice.until(lambda: alice.bells == 1, "it rings")
    assert (alice.look_of("what about").bold, alice.look_of("malice").bold) == (True, False)
    other = terminals.log_in("carol")
    bob.ask(command="DM", to="carol", message="for you alone")
    other.until(lambda: other.bells == 1, "it rings")
    assert other.look_of("for you alone").bold


def test_flood_shows_the_newest_messages_and_counts_the_others(room: Room, terminals: Terminals) -> None:
    """The client is paused, so that all are drawn at once. A mention is always shown. A long message is cut."""
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
    assert sum(int(each.replace(",", "")) for each in notices) == 3_000 - len(shown) > 2_000
    assert shown == sorted(set(shown))
    assert 5 in shown
    assert alice.bells == 1
