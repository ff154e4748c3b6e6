"""The program ``chatclient`` at a terminal: completion, what was typed before, pasting, slips, and commands."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from integration.desk import Desk, rows_of

from ops.window import ALT_ENTER, DOWN, ENTER, TAB, UP, control

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from integration.room import Peer, Room

    from ops.window import Window


@pytest.fixture
def desk(room: Room, tmp_path: Path) -> Iterator[Desk]:
    with Desk(room.server.port, tmp_path) as desk:
        yield desk


def clear(window: Window, prompt: str = "alice>") -> None:
    window.type(control("c"))
    window.until_line(prompt)


def texts_until_fence(bob: Peer) -> list[str]:
    """What others said to everybody, up to now."""
    return [each["message"] for each in bob.until_fence() if each["type"] == "broadcast"]


# --- completion, and what was typed before ---


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        ("DM car", "alice> DM carol"),
        ("@car", "alice> @carol"),
        ("car", "alice> carol:"),
        ("CAR", "alice> carol:"),
        ("what does car", "alice> what does carol"),
        ("/his", "alice> /history"),
        ("/us", "alice> /users"),
        ("/sea", "alice> /search"),
    ],
)
def test_tab_completes_names_and_commands(room: Room, desk: Desk, typed: str, line: str) -> None:
    room.enter("bob")
    room.enter("carol")
    alice = desk.sit()
    alice.type(typed)
    alice.until_line(f"alice> {typed}")
    alice.type(TAB)
    alice.until_line(line)


def test_where_several_names_fit_tab_shows_them_and_enter_takes_one_without_sending(room: Room, desk: Desk) -> None:
    bob = room.enter("bob")
    for name in ("barbara", "bertha"):
        room.enter(name)
    alice = desk.sit()
    alice.type("DM b")
    alice.until_line("alice> DM b")
    alice.type(TAB)
    alice.until(lambda: {"barbara", "bertha", "bob"} <= {row.strip() for row in alice.rows()}, "all are shown")
    alice.type(TAB)
    alice.until_line("alice> DM barbara")
    bob.say("meanwhile")
    alice.until_shows("bob │ meanwhile")
    alice.type(TAB)
    alice.until_line("alice> DM bertha")
    alice.type(TAB)
    alice.until_line("alice> DM bob")
    alice.type(ENTER)
    alice.until(lambda: not any(row.strip() == "bertha" for row in alice.rows()), "the names are gone")
    alice.until_line("alice> DM bob")
    alice.type("hello", ENTER)
    assert bob.next("direct")["message"] == "hello"


def test_the_recipient_of_a_dialogue_is_completed(room: Room, desk: Desk) -> None:
    bob = room.enter("bob")
    alice = desk.sit()
    alice.type("DM", ENTER)
    alice.until_line("recipient:")
    alice.type("b")
    alice.until_line("recipient: b")
    alice.type(TAB)
    alice.until_line("recipient: bob")
    alice.type(ENTER)
    alice.until_line("message for bob:")
    alice.type("hello", ENTER)
    assert bob.next("direct")["message"] == "hello"


def test_up_brings_back_what_was_typed(desk: Desk) -> None:
    alice = desk.sit()
    for text in ("first", "second\n"):
        alice.type(text.rstrip(), ENTER)
        alice.until_shows(f"alice │ {text.rstrip()}")
    for key, line in ((UP, "second"), (UP, "first"), (DOWN, "second"), (DOWN, "")):
        alice.type(key)
        alice.until_line(f"alice> {line}")


def test_a_line_that_was_searched_is_taken_over_and_not_sent(room: Room, desk: Desk) -> None:
    bob = room.enter("bob")
    alice = desk.sit()
    for text in ("hello world", "something else"):
        alice.type(text, ENTER)
        alice.until_shows(f"alice │ {text}")
    texts_until_fence(bob)
    alice.type(control("r"), "wor")
    alice.until(lambda: "search" in alice.text() and "`wor'" in alice.text(), "it is searched")
    alice.type(ENTER)
    alice.until_line("alice> hello world")
    assert texts_until_fence(bob) == []
    alice.type(ENTER)
    assert bob.next("broadcast")["message"] == "hello world"


def test_ctrl_c_leads_out_of_a_search(room: Room, desk: Desk) -> None:
    bob = room.enter("bob")
    alice = desk.sit()
    alice.type("hello world", ENTER)
    alice.until_shows("alice │ hello world")
    for keys in ("wor", ""):
        alice.type(control("r"), keys)
        alice.until(lambda: "search" in alice.text(), "it is searched")
        alice.type(control("c"))
        alice.until_line("alice>")
    alice.type("fence", ENTER)
    assert [bob.next("broadcast")["message"] for _ in range(2)] == ["hello world", "fence"]


# --- several lines ---


def test_a_paste_of_several_lines_is_one_message_sent_with_enter(room: Room, desk: Desk) -> None:
    bob = room.enter("bob")
    alice = desk.sit()
    alice.paste("one\r\ntwo\rthree\n")
    alice.until_line("  three")
    assert alice.rows()[alice.cursor.row - 2 : alice.cursor.row] == ["alice> one", "  two"]
    assert texts_until_fence(bob) == []
    alice.type(ENTER)
    assert bob.next("broadcast")["message"] == "one\ntwo\nthree"
    alice.until_shows("alice │ one", "│ two", "│ three")
    alice.until_line("alice>")


def test_alt_enter_is_a_line_break(room: Room, desk: Desk) -> None:
    bob = room.enter("bob")
    alice = desk.sit()
    alice.type("one", ALT_ENTER, "two", ENTER)
    assert bob.next("broadcast")["message"] == "one\ntwo"


@pytest.mark.parametrize("question", ["", "PM"])
def test_without_bracketed_paste_several_lines_are_one_message_too(room: Room, desk: Desk, question: str) -> None:
    """They come faster than anybody types; the last line break sends nothing."""
    bob = room.enter("bob")
    alice = desk.sit()
    if question:
        alice.type(question, ENTER)
        alice.until_line("message for all users:")
    alice.type(f"one{ENTER}two{ENTER}{ENTER}three{ENTER}")
    alice.until_line("  three")
    pasted_at = time.monotonic()
    alice.until(lambda: time.monotonic() > pasted_at + 0.1, "a person could have read it")
    alice.type(" and more")
    alice.until_line("  three and more")
    alice.type(ENTER)
    assert bob.next("broadcast")["message"] == "one\ntwo\n\nthree and more"


def test_a_paste_of_more_than_five_lines_is_asked_about(room: Room, desk: Desk) -> None:
    bob = room.enter("bob")
    alice = desk.sit()
    six = "\n".join(f"line {number}" for number in range(6))
    question = "Send these 6 lines as one message? Enter sends it, Ctrl-C does not."
    alice.paste(six)
    alice.until_line("  line 5")
    alice.type(ENTER)
    alice.until_shows(question)
    assert texts_until_fence(bob) == []
    alice.type(control("c"))
    alice.until_line("alice>")
    alice.paste(six)
    alice.until_line("  line 5")
    alice.type(ENTER)
    alice.until(lambda: len(rows_of(alice, question)) == 2, "it is asked again")
    assert texts_until_fence(bob) == []
    alice.type(ENTER)
    assert bob.next("broadcast")["message"] == six
    alice.until_line("alice>")


def test_a_paste_that_no_message_can_hold_is_refused_with_its_size(room: Room, desk: Desk) -> None:
    bob = room.enter("bob")
    alice = desk.sit()
    alice.type("before")
    alice.paste("é" * 4_097)
    alice.until_shows("8,194", "8,192")
    alice.until_line("alice> before")
    alice.type(ENTER)
    assert bob.next("broadcast")["message"] == "before"
    alice.until_shows("alice │ before")
    alice.paste("é" * 4_096)
    alice.until(lambda: "é" * 50 in alice.cursor_row, "it is taken")
    alice.type(ENTER)
    assert bob.next("broadcast")["message"] == "é" * 4_096


def test_a_paste_can_not_do_anything_by_itself(room: Room, desk: Desk) -> None:
    """Neither the sequences nor the keys in it."""
    bob = room.enter("bob")
    alice = desk.sit()
    alice.paste("EX\r\x03\x04\x1b]0;title\x07\x9b2J\0 end")
    alice.until(lambda: "end" in alice.cursor_row, "it is there")
    for attack in (b"\x1b]", b"\x9b2J", b"\x07"):
        assert attack not in alice.raw.replace("é".encode(), b"")
    assert texts_until_fence(bob) == []
    clear(alice)
    alice.type("still here", ENTER)
    assert bob.next("broadcast")["message"] == "still here"


# --- slips ---


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("/uesrs", "/users?"),
        ("/nonsense is said", "/nonsense"),
        ("BM hello", "BM"),
        ("exit", "/quit"),
        ("quit", "/quit"),
        ("help", "/help"),
        ("MD bob secret", "DM bob"),
        ("EX now", "EX takes no text"),
        ("/users now", "/users"),
        ("DM no-name hello", "A username is"),
    ],
)
def test_a_slip_is_not_sent(room: Room, desk: Desk, typed: str, said: str) -> None:
    bob = room.enter("bob")
    alice = desk.sit()
    alice.until(lambda: "2 online" in alice.row_with("connected"), "bob is known")
    alice.type(typed, ENTER)
    alice.until(lambda: any(said in row for row in rows_of(alice, " ! │ ")), f"it says {said}")
    alice.type("fence", ENTER)
    heard = []
    while "fence" not in heard:
        heard.append(bob.next("broadcast", "direct")["message"])
    assert heard == ["fence"]


@pytest.mark.parametrize("typed", ["exit the building", "I quit", "hey bob that is odd", "and/or", "? what"])
def test_what_is_no_slip_is_a_public_message(room: Room, desk: Desk, typed: str) -> None:
    bob = room.enter("bob")
    alice = desk.sit()
    alice.type(typed, ENTER)
    assert bob.next("broadcast")["message"] == typed
    alice.until_shows(f"alice │ {typed}")


# --- commands ---


def test_the_help_names_everything_that_can_be_typed(desk: Desk) -> None:
    alice = desk.sit()
    alice.type("/help", ENTER)
    alice.until_shows(
        *("PM [MESSAGE]", "DM [USER [MESSAGE]]", "CH [NUMBER]", "/users", "/history [NUMBER]", "/search WORDS"),
        *("/reply [MESSAGE]", "/joins", "/quiet", "/help", "/quit"),
    )
    assert rows_of(alice, "* │ EX ")


def test_reply_shows_to_whom_before_it_is_sent(room: Room, desk: Desk) -> None:
    bob = room.enter("bob")
    alice = desk.sit()
    alice.type("/reply hello", ENTER)
    alice.until_shows("You have received no direct message yet; nothing was sent.")
    bob.ask(command="DM", to="alice", message="a question")
    alice.until_shows("bob » alice │ a question")
    alice.type("/reply ")
    alice.until_line("alice> DM bob")
    alice.type("an answer", ENTER)
    assert bob.next("direct")["message"] == "an answer"
    alice.until_shows("alice » bob │ an answer")


def test_own_messages_are_shown_once_and_what_waits_for_somebody_says_so(room: Room, desk: Desk) -> None:
    room.enter("carol").close()
    room.wait_for_connections(0)
    alice = desk.sit()
    alice.type("DM carol sleep well", ENTER)
    alice.until_shows("alice » carol │ sleep well", "* │ not online; it is delivered at the next login")
    alice.type("DM nobody hello", ENTER)
    alice.until_shows("! │", "nothing was sent. It was: hello")
    alice.type("for all", ENTER)
    alice.until_shows("alice │ for all")
    assert len(rows_of(alice, "│ for all")) == 1
    assert len(rows_of(alice, "sleep well")) == 1
