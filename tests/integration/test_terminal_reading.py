"""The program ``chatclient`` at a terminal: columns, history, who comes and goes, and being told."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from integration.desk import Desk, rows_of

from ops.window import BACKSPACE, ENTER, control

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from integration.room import Room


@pytest.fixture
def desk(room: Room, tmp_path: Path) -> Iterator[Desk]:
    with Desk(room.server.port, tmp_path) as desk:
        yield desk


# --- columns ---


def test_time_name_and_text_stand_in_columns(room: Room, desk: Desk) -> None:
    bob = room.enter("bob")
    longest = room.enter("a" * 32)
    alice = desk.sit(columns=80)
    bob.say("hello everyone")
    bob.ask(command="DM", to="alice", message="psst")
    bob.next("sent")
    bob.say("one\ntwo\r\n  three")
    bob.say("word " * 30 + "end")
    longest.say("a long name")
    alice.until_shows("a long name")
    at = alice.everything().index(alice.row_with("hello everyone"))
    shown = [re.sub(r"^\d\d:\d\d", "12:00", row) for row in alice.everything()[at : at + 10]]
    assert shown == [
        "12:00              bob │ hello everyone",
        "12:00      bob » alice │ psst",
        "12:00              bob │ one",
        "                       │ two",
        "                       │   three",
        "12:00              bob │ word word word word word word word word word word word",
        "                       │ word word word word word word word word word word word",
        "                       │ word word word word word word word word end",
        f"12:00 {'a' * 32} │",
        "                       │ a long name",
    ]


def test_below_eighty_columns_names_have_less_room_and_below_sixty_there_are_no_columns(room: Room, desk: Desk) -> None:
    bob = room.enter("bob")
    alice = desk.sit(columns=60, rows=40)
    bob.say("hello " * 12)
    alice.until(lambda: len(rows_of(alice, "hello")) == 2, "it is wrapped")
    at = alice.everything().index(alice.row_with("bob │ hello"))
    assert alice.everything()[at][5:] == "    bob │ hello hello hello hello hello hello hello"
    assert alice.everything()[at + 1] == " " * 13 + "│ hello hello hello hello hello"
    alice.resize(30, 40)
    alice.until_line("alice>")
    bob.say("there " * 6)
    alice.until(lambda: len(rows_of(alice, "there")) == 2, "it is wrapped")
    at = alice.everything().index(alice.row_with("there"))
    assert re.fullmatch(r"\d\d:\d\d bob", alice.everything()[at - 2])
    assert alice.everything()[at - 1] == "  there there there there"
    assert alice.everything()[at] == "  there there"
    bob.say("short")
    alice.until_shows("bob │ short")


@pytest.mark.parametrize(
    "text",
    [
        "漢字かな交じり文" * 8,
        "e\u0301a\u0308o\u0302" * 40,
        "🙂👍" * 30,
        "한국어 " * 20,
        "\U0001f469\u200d\U0001f4bb x " * 15,
    ],
)
def test_the_gutter_stays_straight_for_wide_and_combining_letters(room: Room, desk: Desk, text: str) -> None:
    bob = room.enter("bob")
    alice = desk.sit(columns=70)
    bob.say(text)
    bob.say("fence")
    alice.until_shows("│ fence")
    begin, end = alice.place("bob │").row, alice.place("│ fence").row
    rows = range(alice.place("/help lists the commands.").row + 1, end)
    assert len(rows) >= 2
    assert [alice.cell(row, 15).data for row in rows] == ["│"] * len(rows)
    assert begin == end
    joined = "".join(alice.rows()[row].split("│", 1)[1].strip() for row in rows)
    letters = [letter for letter in joined if letter.isalpha() or ord(letter) > 0x1F000]
    assert len(letters) >= len([each for each in text if each.isalpha() and not each.isascii()]) * 0.4
    assert all(alice.cell(row, 69).data == " " for row in rows), "nothing touches the window's edge"


def test_a_half_typed_wide_line_keeps_its_cursor(room: Room, desk: Desk) -> None:
    bob = room.enter("bob")
    alice = desk.sit()
    alice.type("漢字é🙂")
    alice.until_line("alice> 漢字é🙂")
    bob.say("hello")
    alice.until_shows("bob │ hello")
    alice.until_line("alice> 漢字é🙂")
    assert alice.cursor.column == len("alice> ") + 2 + 2 + 1 + 2


@pytest.mark.parametrize("joins", [True, False], ids=["joined", "each for itself"])
def test_a_line_with_emoji_of_several_code_points_is_cleared_and_its_prompt_stays(
    room: Room, desk: Desk, joins: bool
) -> None:
    """Terminals differ in how wide they draw them, so the prompt must not depend on it."""
    bob = room.enter("bob")
    alice = desk.sit(columns=60, joins=joins)
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
    alice.type(text)
    alice.until(lambda: alice.cursor_row.endswith(" x"), "it is typed again")
    alice.type(control("c"))
    alice.until_line("alice>")


def test_a_name_has_one_colour_in_every_window_and_direct_messages_stand_out(room: Room, desk: Desk) -> None:
    bob = room.enter("bob")
    alice, carol = desk.sit(), desk.sit("carol")
    bob.say("to all of you")
    bob.ask(command="DM", to="alice", message="to one of you")
    alice.until_shows("bob │ to all of you", "bob » alice │ to one of you")
    carol.until_shows("bob │ to all of you")
    colour = alice.look_of("bob │ to all").fg
    assert colour not in ("default", alice.look_of("to all").fg)
    assert carol.look_of("bob │ to all").fg == colour
    assert alice.look_of("bob » alice").fg == colour
    assert alice.look_of("to one").fg == "magenta"
    assert "to one of you" not in carol.text()


# --- history ---


def test_a_login_shows_the_last_twenty_messages_and_those_that_waited_each_once(room: Room, desk: Desk) -> None:
    bob = room.enter("bob")
    was_here = room.enter("alice")
    for number in range(30):
        bob.say(f"public {number:02}")
        was_here.next("broadcast")
    was_here.close()
    room.wait_for_connections(1)
    bob.ask(command="DM", to="alice", message="waits for you")
    bob.next("sent")
    for number in range(30, 40):
        bob.say(f"public {number:02}")
    alice = desk.sit()
    alice.until_shows("─── now ───")
    bob.say("live")
    alice.until_shows("bob │ live")
    rows = alice.everything()
    begin = next(number for number, row in enumerate(rows) if row.startswith("─── the last 20 messages ───"))
    end = next(number for number, row in enumerate(rows) if row.startswith("─── now ───"))
    block = [row.split("│ ")[1] for row in rows[begin:end] if "│" in row]
    new = next(number for number, row in enumerate(rows) if row.startswith("─── new since you were here ───"))
    assert rows[new + 1].endswith("waits for you")
    before, behind = ([f"public {n:02}" for n in each] for each in (range(21, 30), range(30, 40)))
    assert block == [*before, "waits for you", *behind]
    assert not [row for row in rows[:begin] + rows[end:] if "public" in row or "waits for" in row]
    assert alice.text().count("waits for you") == 1


def test_a_line_marks_the_public_messages_that_came_while_nobody_was_there(room: Room, desk: Desk) -> None:
    bob = room.enter("bob")
    alice = desk.sit()
    bob.say("seen")
    alice.until_shows("bob │ seen")
    alice.type("EX", ENTER)
    room.wait_for_connections(1)
    bob.say("missed")
    again = desk.sit()
    again.until_shows("─── now ───")
    rows = again.everything()
    new = next(number for number, row in enumerate(rows) if row.startswith("─── new since you were here ───"))
    assert rows[new - 1].endswith("bob │ seen")
    assert rows[new + 1].endswith("bob │ missed")


def test_direct_messages_that_waited_are_shown_though_newer_ones_came(room: Room, desk: Desk) -> None:
    room.enter("alice").close()
    bob = room.enter("bob")
    room.wait_for_connections(1)
    for number in range(3):
        bob.ask(command="DM", to="alice", message=f"waits {number}")
        bob.next("sent")
    for number in range(30):
        bob.say(f"public {number:02}")
    alice = desk.sit()
    alice.until_shows("─── now ───")
    assert [row.split("│ ")[1] for row in rows_of(alice, "waits")] == ["waits 0", "waits 1", "waits 2"]
    assert [row.split("│ ")[1] for row in rows_of(alice, "public")] == [f"public {n:02}" for n in range(10, 30)]
    assert alice.bells <= 1


def test_history_n_shows_n(room: Room, desk: Desk) -> None:
    bob = room.enter("bob")
    for number in range(30):
        bob.say(f"public {number:02}")
    alice = desk.sit()
    alice.until_shows("public 29", "─── now ───")
    alice.type("/history 2", ENTER)
    alice.until_shows("─── the last 2 messages ───")
    alice.until(lambda: len(rows_of(alice, "─── now ───")) == 2, "it ends")
    assert len(rows_of(alice, "public 29")) == len(rows_of(alice, "public 28")) == 2
    assert len(rows_of(alice, "public 27")) == 1
    alice.type("CH 0", ENTER)
    alice.until_shows("CH takes a number from 1 to 500")


def test_search_shows_what_it_finds_and_says_when_that_is_nothing(room: Room, desk: Desk) -> None:
    bob = room.enter("bob")
    bob.say("the late train")
    bob.say("something else")
    alice = desk.sit()
    alice.until_shows("─── now ───")
    alice.type("/search train LATE", ENTER)
    alice.until_shows("─── 1 message found: train LATE ───")
    alice.until(lambda: len(rows_of(alice, "the late train")) == 2, "it is found")
    assert len(rows_of(alice, "something else")) == 1
    alice.type("/search zeppelin", ENTER)
    alice.until_shows("Nothing was found: zeppelin")


def test_each_new_day_has_a_rule(room: Room, desk: Desk) -> None:
    bob = room.enter("bob")
    bob.say("hello")
    alice = desk.sit(columns=80)
    alice.until_shows("bob │ hello")
    pattern = r"─── (Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day, \d{1,2} [A-Z][a-z]+ \d{4} ─+"
    assert re.fullmatch(pattern, alice.everything()[0])


# --- who is there ---


def test_who_comes_and_goes_is_shown_and_can_be_hidden(room: Room, desk: Desk) -> None:
    alice = desk.sit()
    hidden = desk.sit("hank", "--hide-joins")
    carol = room.enter("carol")
    alice.until_shows("* │ carol joined")
    alice.type("/joins", ENTER)
    alice.until_shows("Joins and leaves are hidden from now on.")
    hidden.type("/joins", ENTER)
    hidden.until_shows("Joins and leaves are shown from now on.")
    carol.close()
    hidden.until_shows("* │ carol left")
    assert "carol joined" not in hidden.text()
    bob = room.enter("bob")
    bob.say("fence")
    alice.until_shows("│ fence")
    assert "carol left" not in alice.text()
    assert "bob joined" not in alice.text()


def test_users_are_told_when_asked_for(room: Room, desk: Desk) -> None:
    for name in ("bob", "Carol"):
        room.enter(name)
    alice = desk.sit(CHAT_HIDE_JOINS="yes")
    alice.type("/users", ENTER)
    alice.until(lambda: len(rows_of(alice, "3 online: alice, bob, Carol")) == 2, "it is told")


# --- being told ---


def test_the_bell_rings_for_a_mention_and_not_for_own_messages(room: Room, desk: Desk) -> None:
    bob = room.enter("bob")
    bob.say("alice was mentioned before")
    alice = desk.sit()
    alice.until_shows("─── now ───")
    bob.say("malice is no mention, alices neither")
    alice.type("I am alice", ENTER)
    alice.until_shows("alice │ I am alice")
    alice.type("DM alice to myself", ENTER)
    alice.until_shows("alice │ I am alice", "alice » alice │ to myself", "malice is no mention")
    assert alice.bells == 0
    bob.say("what about ALICE?")
    alice.until_shows("what about ALICE?")
    alice.until(lambda: alice.bells == 1, "it rings")
    assert alice.look_of("what about").bold
    assert not alice.look_of("malice").bold


def test_the_bell_rings_for_a_direct_message_and_not_for_history(room: Room, desk: Desk) -> None:
    bob = room.enter("bob")
    bob.say("alice was mentioned before")
    alice = desk.sit()
    alice.until_shows("─── now ───")
    alice.type("CH", ENTER)
    alice.until(lambda: len(rows_of(alice, "─── now ───")) == 2, "the history is shown")
    assert alice.bells == 0
    bob.ask(command="DM", to="alice", message="for you alone")
    alice.until_shows("for you alone")
    alice.until(lambda: alice.bells == 1, "it rings")
    assert alice.look_of("for you alone").bold


@pytest.mark.parametrize("how", ["flag", "setting", "typed"])
def test_quiet_rings_no_bell_and_shows_nothing_in_bold(room: Room, desk: Desk, how: str) -> None:
    bob = room.enter("bob")
    alice = desk.sit("alice", *(["--quiet"] if how == "flag" else []), CHAT_QUIET="yes" if how == "setting" else "no")
    if how == "typed":
        alice.type("/quiet", ENTER)
        alice.until_shows("No bell and no highlight from now on.")
    bob.say("hello alice")
    bob.ask(command="DM", to="alice", message="for you")
    alice.until_shows("hello alice", "for you")
    alice.until(lambda: "· quiet ·" in alice.row_with("connected"), "the status line says so")
    assert not alice.look_of("hello alice").bold
    assert alice.bells == 0
    alice.type("/quiet", ENTER)
    alice.until_shows("Bell and highlight are on.")
    bob.say("alice, again")
    alice.until(lambda: alice.bells == 1, "it rings again")


# --- safety valves ---


def test_a_long_message_is_shown_up_to_sixty_rows(room: Room, desk: Desk) -> None:
    bob = room.enter("bob")
    alice = desk.sit()
    alice.type("here")
    bob.say("x\n" * 4_000 + "the end")
    alice.until_shows("(3941 more lines are not shown)")
    alice.until_line("alice> here")
    assert "the end" not in alice.text()
    assert len([row for row in alice.everything() if row.endswith("│ x")]) == 60


def test_of_a_flood_the_last_messages_are_shown_and_a_line_says_how_many_are_not(room: Room, desk: Desk) -> None:
    """The program is stopped meanwhile, so all of them come in a few frames. Who is named is always told."""
    bob = room.enter("bob")
    alice = desk.sit()
    alice.type("steady")
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
    shown = [int(re.search(r"flood (\d+)", row)[1]) for row in rows_of(alice, "│ flood ")]  # type: ignore[index]
    assert sum(int(each.replace(",", "")) for each in notices) == 3_000 - len(shown) > 2_000
    assert shown == sorted(set(shown))
    assert 5 in shown
    assert alice.bells == 1
    alice.type(control("c"), "EX", ENTER)
    assert alice.until_end() == 0
