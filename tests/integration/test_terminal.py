"""The program ``chatclient`` at a terminal: the prompt, the password, the status line, and the way out."""

from __future__ import annotations

import re
import signal
import statistics
import time
from typing import TYPE_CHECKING

import pytest
from integration.desk import Desk, StandIn, at, close_window, is_in, rows_of, status

from ops.window import ALT_ENTER, BACKSPACE, ENTER, ESCAPE, LEFT, UP, control

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from integration.room import Peer, Room

    from ops.window import Window

HINT = "Ctrl-D or EX leaves."


@pytest.fixture
def desk(room: Room, tmp_path: Path) -> Iterator[Desk]:
    with Desk(room.server.port, tmp_path) as desk:
        yield desk


def say_all(bob: Peer, *texts: str) -> None:
    for text in texts:
        bob.say(text)


# --- what is half typed ---


def test_a_half_typed_line_and_its_cursor_stay_at_fifty_messages_a_second(room: Room, desk: Desk) -> None:
    bob = room.enter("bob")
    alice = desk.sit()
    alice.type("what I was goig to say", LEFT * 8)
    before, behind = "alice> what I was goi", "g to say"
    alice.until(lambda: (alice.cursor_row, alice.cursor.column) == (before + behind, len(before)), "it is typed")
    typed = ""
    for number in range(10):
        say_all(bob, *(f"message {number} {each}" for each in range(15)))
        typed += "nnnnn -er "[number]
        alice.type(typed[-1])
        alice.until_shows(f"message {number} 14")
        alice.until_line(before + typed + behind)
        assert alice.cursor.column == len(before + typed)
        assert alice.row_with(f"message {number} 14") == alice.rows()[alice.cursor.row - 1]
        assert is_in(alice)
    numbers = [re.findall(r"message (\d+ \d+)", row) for row in alice.everything()]
    assert [each for (each,) in filter(None, numbers)] == [f"{a} {b}" for a in range(10) for b in range(15)]
    prompts = [row for row in alice.everything() if row.startswith("alice>")]
    assert len(prompts) == 1, "a prompt was left behind above"


def test_a_burst_leaves_the_line_where_it_is(room: Room, desk: Desk) -> None:
    """Many at once, while each letter is typed."""
    bob = room.enter("bob")
    alice = desk.sit(rows=12)
    for number in range(200):
        bob.ask(command="PM", message=f"message {number}")
    for letter in "not lost":
        alice.type(letter)
    alice.until_shows("message 199")
    alice.until_line("alice> not lost")
    assert [row.split("│ ")[1] for row in rows_of(alice, "message ")[-200:]] == [f"message {n}" for n in range(200)]


def test_the_step_of_a_dialogue_stays_while_others_talk(room: Room, desk: Desk) -> None:
    bob = room.enter("bob")
    alice = desk.sit()
    alice.type("DM", ENTER)
    alice.until_line("recipient:")
    alice.type("bo")
    say_all(bob, *(f"first {number}" for number in range(40)))
    alice.until_shows("first 39")
    alice.until_line("recipient: bo")
    alice.type("b", ENTER)
    alice.until_line("message for bob:")
    alice.type("only y")
    say_all(bob, *(f"second {number}" for number in range(40)))
    alice.until_shows("second 39")
    alice.until_line("message for bob: only y")
    alice.type("ou", ENTER)
    direct = bob.next("direct")
    assert (direct["from"], direct["to"], direct["message"]) == ("alice", "bob", "only you")
    alice.until_shows("     alice » bob │ only you")
    alice.until_line("alice>")


# --- the password ---


def until_seen(window: Window, count: int, *keys: str) -> None:
    """Type it where a password is asked for, and wait until the window was drawn after it: the line is still empty."""
    window.type(*keys)
    window.paste("y" * 8_193)  # a complaint follows: it is the fence
    window.until(lambda: len(rows_of(window, "8,193")) == count, "it complains")
    window.until_line("password:")
    assert window.cursor.column == len("password: ")


def repeat(window: Window, *keys: str) -> None:
    """Type a new name's password a second time."""
    window.until_line("password again:")
    window.type(*keys, ENTER)


def letters_of(window: Window) -> bytes:
    """All that was drawn, without where and how: letters that are drawn one by one stand together."""
    return re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]|[\r\n\b]", b"", window.raw)


def test_a_password_is_nowhere(room: Room, desk: Desk) -> None:
    """Not on the screen, not in any byte, not behind the keys that bring something back."""
    room.enter("bob")
    alice = desk.open(CHAT_PASSWORD=None)
    alice.until_line("password:")
    until_seen(alice, 1, "Xana")
    until_seen(alice, 2, "du")
    until_seen(alice, 3, LEFT, BACKSPACE, "Q", control("a"))
    until_seen(alice, 4, control("k"), control("y"), f"{ESCAPE}y")
    alice.resize(60, 20)
    alice.resize(100, 30)
    alice.type(control("u"), "Xanadu", ENTER)
    repeat(alice, "Xanadu")
    alice.until(lambda: is_in(alice), "the password was taken")
    for number, keys in enumerate((UP, control("y"), f"{control('y')}{ESCAPE}y", control("_"), f"{ESCAPE}.")):
        alice.type(keys, str(number))
        alice.until_line(f"alice> {number}")
        alice.type(control("c"))
        alice.until_line("alice>")
    alice.type("/users", ENTER)
    alice.until_shows("2 online: alice, bob")
    alice.until_line("alice>")
    for part in (b"Xana", b"nadu", b"du", b"Q", b"*" * 2):
        assert part not in letters_of(alice)
    peer = room.enter("alice", password="Xanadu")
    peer.close()


def test_a_long_password_is_nowhere_either(desk: Desk) -> None:
    alice = desk.open(CHAT_PASSWORD=None)
    alice.until_line("password:")
    until_seen(alice, 1, "a long passphrase " * 20)
    alice.type(ENTER)
    repeat(alice, "a long passphrase " * 20)
    alice.until(lambda: is_in(alice), "the password was taken")
    alice.until_line("alice>")
    assert b"phrase" not in letters_of(alice)


@pytest.mark.parametrize("key", [control("r"), control("s")], ids=repr)
def test_where_a_password_is_asked_for_nothing_is_searched(room: Room, desk: Desk, key: str) -> None:
    alice = desk.open(CHAT_PASSWORD=None)
    alice.until_line("password:")
    until_seen(alice, 1, key, "Xana")
    alice.type(key, "du", ENTER)
    repeat(alice, "Xanadu")
    alice.until(lambda: is_in(alice), "the password was taken")
    assert b"Xana" not in letters_of(alice)
    assert "search" not in alice.text()
    room.enter("alice", password="Xanadu").close()


def test_a_name_and_a_password_that_are_typed_in_one_go_are_never_a_message(room: Room, desk: Desk) -> None:
    """As a program does that types passwords for people: the question is not there yet when the answer is."""
    bob = room.enter("bob")
    alice = desk.open("", CHAT_PASSWORD=None)
    alice.until_line("username:")
    alice.type("alice", ENTER, "Xanadu", ENTER)
    repeat(alice, "Xanadu")
    alice.until(lambda: is_in(alice), "the password was taken")
    alice.until_line("alice>")
    alice.type("hello", ENTER)
    assert bob.next("broadcast")["message"] == "hello"
    alice.until_shows("alice │ hello")
    assert b"Xanadu" not in letters_of(alice)
    assert b"waits for" not in letters_of(alice)
    room.enter("alice", password="Xanadu").close()


def test_a_wrong_password_is_asked_for_again_and_the_third_one_ends_with_3(room: Room, desk: Desk) -> None:
    room.enter("alice").close()
    alice = desk.open(CHAT_PASSWORD=None)
    for wrong in ("first9", "second9", "third9"):
        alice.until_line("password:")
        alice.type(wrong, ENTER)
        count = ("first9", "second9", "third9").index(wrong) + 1
        alice.until(lambda count=count: len(rows_of(alice, "! │")) >= count, "it is told")  # type: ignore[misc]
    assert alice.until_end() == 3
    for wrong in (b"first9", b"second9", b"third9"):
        assert wrong not in letters_of(alice)


# --- the status line ---


def test_the_status_line_says_who_where_how_and_how_many(room: Room, desk: Desk) -> None:
    bob = room.enter("bob")
    alice = desk.sit()
    where = f"alice · 127.0.0.1:{room.server.port} · json"
    alice.until(lambda: status(alice) == f"{where} · 2 online · connected", "two are online")
    assert alice.look_of("connected").fg == "green"
    bob.close()
    alice.until(lambda: status(alice) == f"{where} · 1 online · connected", "one is online")
    alice.resize(36, 20)
    alice.until(lambda: status(alice) == "alice · 1 online · connected", "it is short")
    alice.resize(12, 20)
    alice.until(lambda: status(alice) == "connected", "it is as short as it can be")


def test_a_window_that_becomes_narrow_and_wide_again_has_one_prompt_and_one_status_line(room: Room, desk: Desk) -> None:
    bob = room.enter("bob")
    alice = desk.sit()
    alice.type("half a line")
    alice.until_line("alice> half a line")
    for number, (columns, rows) in enumerate([(38, 20), (100, 30), (50, 12), (120, 40), (20, 10), (100, 30)]):
        alice.resize(columns, rows)
        bob.say(f"seen {number}")
        alice.until_shows(f"seen {number}")
        alice.until(lambda: alice.cursor_row.startswith("alice> half a"), "the line is there")
        assert sum("alice>" in row for row in alice.rows()) == 1
        assert sum(row.endswith("connected") for row in alice.rows()) == 1
    alice.until_line("alice> half a line")
    assert sum("alice>" in row for row in alice.everything()) == 1


@pytest.mark.parametrize("terminal", [{}, {"XTERM_VERSION": "XTerm(379)"}], ids=["wraps anew", "cuts"])
def test_a_long_half_typed_line_is_there_once_however_the_window_changes(
    room: Room, desk: Desk, terminal: dict[str, str]
) -> None:
    """Promise: no copy of the prompt is left, and nothing above it is erased."""
    bob = room.enter("bob")
    alice = desk.sit(rows=20, **terminal)
    say_all(bob, *(f"m{number:02}" for number in range(20)))
    alice.until_shows("m19")
    alice.type("one word after the other " * 6, LEFT * 20)
    alice.until(lambda: alice.text().count("after") == 6, "it is typed")
    for number, columns in enumerate((60, 40, 90, 31, 100)):
        alice.resize(columns, 20)
        bob.say(f"s{number:02}")
        alice.until_shows(f"s{number:02}")
        alice.until(lambda: is_in(alice), "it is drawn below")
    assert sum("alice>" in row for row in alice.everything()) == 1
    assert sum("connected" in row for row in alice.everything()) == 1
    found = re.findall(r"│ ([ms]\d\d)", alice.text())
    assert found == [*(f"m{number:02}" for number in range(20)), *(f"s{number:02}" for number in range(5))]


# --- the way out ---


def test_ctrl_c_clears_the_line_and_leads_out_of_a_dialogue(room: Room, desk: Desk) -> None:
    bob = room.enter("bob")
    alice = desk.sit()
    alice.type("never mind")
    alice.until_line("alice> never mind")
    alice.type(control("c"))
    alice.until_line("alice>")
    alice.type(control("c"))
    alice.until_shows(HINT)
    alice.type("DM", ENTER)
    alice.until_line("recipient:")
    alice.type("b")
    alice.until_line("recipient: b")
    alice.type(control("c"))
    alice.until_line("recipient:")
    alice.type(control("c"))
    alice.until_line("alice>")
    alice.type("PM", ENTER)
    alice.until_line("message for all users:")
    alice.type(control("c"))
    alice.until_line("alice>")
    alice.type("I am still here", ENTER)
    assert bob.next("broadcast")["message"] == "I am still here"


def assert_restored(window: Window) -> None:
    """As it was found: letters are echoed, the cursor is seen, what is pasted is not marked, the last row is done."""
    assert window.echoes
    for turned_on, turned_off in ((rb"\x1b\[\?25h", rb"\x1b\[\?25l"), (rb"\x1b\[\?2004l", rb"\x1b\[\?2004h")):
        on, off = ([found.start() for found in re.finditer(each, window.raw)] for each in (turned_on, turned_off))
        assert max(on) > max(off, default=-1)
    assert max(found.start() for found in re.finditer(rb"\x1b\[\?7h", window.raw)) > window.raw.rfind(b"\x1b[?7l")
    coloured = max(found.start() for found in re.finditer(rb"\x1b\[[0-9;]*[1-9]m", window.raw))
    assert window.raw.rfind(b"\x1b[0m") > coloured
    assert window.cursor.column == 0
    assert window.cursor_row == ""
    assert not [row for row in window.rows() if row.startswith("alice>") or row.endswith(" connected")]


@pytest.mark.parametrize("keys", [f"EX{ENTER}", f"ex{ENTER}", f"/quit{ENTER}", control("d")], ids=repr)
def test_leaving_ends_with_0_and_restores_the_terminal(room: Room, desk: Desk, keys: str) -> None:
    bob = room.enter("bob")
    alice = desk.sit()
    alice.type(keys)
    assert alice.until_end() == 0
    assert "You left." in alice.everything()[-1]
    assert_restored(alice)
    while bob.next("users")["left"] != ["alice"]:
        pass


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT], ids=lambda each: each.name)
def test_a_signal_restores_the_terminal_and_leaves_politely(room: Room, desk: Desk, number: signal.Signals) -> None:
    bob = room.enter("bob")
    alice = desk.sit()
    alice.type("half a line")
    alice.until_line("alice> half a line")
    alice.signal(number)
    assert alice.until_end() == 0
    assert_restored(alice)
    while bob.next("users")["left"] != ["alice"]:
        pass


def test_two_signals_end_it_though_the_terminal_takes_nothing_more(room: Room, desk: Desk) -> None:
    """A second apart: what comes together is one."""
    bob = room.enter("bob")
    alice = desk.sit()
    say_all(bob, *["x" * 8_000] * 40)
    alice.stall()
    alice.signal(signal.SIGTERM)
    time.sleep(1.0)
    alice.signal(signal.SIGTERM)
    assert alice.until_gone() == 1
    assert alice.echoes


def test_ctrl_d_on_a_line_with_letters_does_not_leave(room: Room, desk: Desk) -> None:
    bob = room.enter("bob")
    alice = desk.sit()
    alice.type("stay", control("d"), ENTER)
    assert bob.next("broadcast")["message"] == "stay"
    alice.until_shows("alice │ stay")


@pytest.mark.parametrize("key", [control("c"), control("d")], ids=repr)
@pytest.mark.parametrize(("name", "question"), [("", "username:"), ("alice", "password:")])
def test_before_being_in_ctrl_c_and_ctrl_d_leave_with_1(desk: Desk, name: str, question: str, key: str) -> None:
    """Nothing has failed, so nothing is complained of."""
    alice = desk.open(name, CHAT_PASSWORD=None)
    alice.until_line(question)
    alice.type(key)
    assert alice.until_end() == 1
    assert "!" not in alice.text()
    assert_restored(alice)


@pytest.mark.parametrize(("name", "question"), [("", "username:"), ("alice", "password:")])
def test_a_window_that_is_closed_before_somebody_is_in_ends_the_program(desk: Desk, name: str, question: str) -> None:
    window = desk.open(name, CHAT_PASSWORD=None)
    window.until_line(question)
    close_window(window)


def test_a_window_that_is_closed_ends_the_program_politely(room: Room, desk: Desk) -> None:
    bob = room.enter("bob")
    alice = desk.sit()
    alice.type("half a line")
    alice.until_line("alice> half a line")
    close_window(alice)
    while bob.next("users")["left"] != ["alice"]:
        pass


@pytest.mark.parametrize("keys", [control("d"), f"EX{ENTER}{control('d')}"], ids=repr)
def test_a_server_that_does_not_answer_a_goodbye_is_waited_for_five_seconds(desk: Desk, keys: str) -> None:
    with StandIn(at("EX")) as server:
        alice = desk.sit(port=server.port)
        started = time.monotonic()
        alice.type(keys)
        alice.until_end()
        assert len(server.asked) == 1
        assert server.asked_for("EX")
    assert time.monotonic() - started < 5 + 4
    assert_restored(alice)


def test_a_name_is_asked_for_and_ex_leaves_there(desk: Desk) -> None:
    window = desk.open("")
    window.until_line("username:")
    window.type("no name", ENTER)
    window.until_shows("A username is 1 to 32 letters and digits")
    window.until_line("username:")
    window.type("zoe", ENTER)
    window.until_line("zoe>")
    other = desk.open("")
    other.until_line("username:")
    other.type("EX", ENTER)
    assert other.until_end() == 2


# --- to begin ---


def test_the_prompt_is_there_soon(desk: Desk) -> None:
    """Half a second on a machine that does nothing else; here others may be at work."""
    durations_seconds = []
    for _ in range(3):
        started = time.monotonic()
        alice = desk.sit()
        durations_seconds.append(time.monotonic() - started)
        alice.close()
    assert statistics.median(durations_seconds) < 3


def test_what_is_typed_before_the_prompt_is_there_is_not_lost(room: Room, desk: Desk) -> None:
    bob = room.enter("bob")
    alice = desk.open()
    alice.type("early", ENTER)
    assert bob.next("broadcast")["message"] == "early"
    alice.until_shows("alice │ early")


def test_pm_dm_ch_and_ex_are_what_they_were_in_the_old_programs(room: Room, desk: Desk) -> None:
    bob = room.enter("bob")
    alice = desk.sit()
    alice.type("DM", ENTER)
    alice.until_line("recipient:")
    alice.type("bob", ENTER)
    alice.until_line("message for bob:")
    alice.type("for you", ENTER)
    assert bob.next("direct")["message"] == "for you"
    alice.until_shows("alice » bob │ for you")
    alice.type("PM", ENTER)
    alice.until_line("message for all users:")
    alice.type("EX", ENTER)  # here it is a message
    assert bob.next("broadcast")["message"] == "EX"
    alice.until_shows("alice │ EX")
    alice.until_line("alice>")
    alice.type("CH", ENTER)
    alice.until_shows("─── the last 2 messages ───")
    alice.until_shows("─── now ───")
    assert len(rows_of(alice, "alice » bob │ for you")) == 2
    alice.type("EX", ENTER)
    assert alice.until_end() == 0


def test_in_the_other_tradition_the_words_are_bm_and_pm(room: Room, desk: Desk) -> None:
    bob = room.enter("bob")
    alice = desk.sit("alice", "--ops", "bm-pm")
    alice.type("PM bob for you", ENTER)
    assert bob.next("direct")["message"] == "for you"
    alice.type("BM for all", ENTER)
    assert bob.next("broadcast")["message"] == "for all"
    alice.type("DM bob nothing", ENTER)
    alice.until_shows("DM is no operation")


def test_a_recipient_who_does_not_exist_is_refused_before_the_text_is_typed(room: Room, desk: Desk) -> None:
    room.enter("bob").close()
    alice = desk.sit("alice")
    alice.type("DM nobody", ENTER)
    alice.until_shows("! │ There is no user 'nobody'")
    alice.until_line("recipient:")
    alice.type("bob", ENTER)
    alice.until_line("message for bob:")


# --- other dialects, other terminals ---


@pytest.mark.parametrize("protocol", ["frames", "datagram"])
def test_the_terminal_is_the_same_over_frames_and_datagrams(room: Room, desk: Desk, protocol: str) -> None:
    bob = room.enter("bob")
    bob.say("before")
    alice = desk.sit("alice", "--dialect", protocol)
    assert re.fullmatch(rf"alice · 127.0.0.1:\d+ · {protocol}( · 2 online)? · connected", status(alice))
    alice.until_shows("─── the last message ───", "bob │ before", "─── now ───")
    alice.type("DM", ENTER)
    alice.until_line("recipient:")
    bob.say("in between")
    alice.until_shows("bob │ in between")
    alice.until_line("recipient:")
    alice.type("bob", ENTER)
    alice.until_line("message for bob:")
    alice.type("for you", ENTER)
    assert bob.next("direct")["message"] == "for you"
    alice.until_shows("alice » bob │ for you")
    alice.type("for all", ALT_ENTER, "on two lines", ENTER)
    assert bob.next("broadcast")["message"] == "for all\non two lines"
    alice.until_shows("alice │ for all")
    alice.type("/users", ENTER)
    alice.until(lambda: alice.text().count("2 online: alice, bob") == 2, "it is answered")
    alice.type("EX", ENTER)
    assert alice.until_end() == 0
    assert_restored(alice)


def test_a_guest_of_register_is_asked_for_a_name_and_has_a_prompt(room: Room, desk: Desk) -> None:
    carl = room.enter_guest("carl")
    window = desk.open("", "--dialect", "register")
    window.until_line("username:")
    window.type("gina", ENTER)
    window.until_line("gina>")
    window.type("@carl hello", ENTER)
    assert carl.take() == ("gina", "hello")
    window.until_shows("gina » carl │ hello")
    window.type("half")
    assert carl.say("gina", "hi gina") == b"SEND gina\n\n"
    window.until_shows("carl │ hi gina")
    window.until_line("gina> half")
    window.type(control("c"), "EX", ENTER)
    assert window.until_end() == 0


def test_without_colours_nothing_has_one(room: Room, desk: Desk) -> None:
    bob = room.enter("bob")
    alice = desk.sit(NO_COLOR="1")
    bob.say("hello alice")
    alice.type("@bob direct", ENTER)
    alice.until_shows("alice » bob │ direct")
    alice.type("/nonsense", ENTER)
    alice.until_shows("hello alice", "alice » bob │ direct", "There is no /nonsense")
    assert alice.look_of("hello alice").bold
    assert not re.findall(rb"\x1b\[(?:[0-9]+;)*(?:3[0-8]|9[0-7]|4[0-8])(?:;[0-9]+)*m", alice.raw)


@pytest.mark.parametrize("term", ["dumb", "unknown", None])
def test_a_terminal_that_can_do_nothing_gets_plain_lines(room: Room, desk: Desk, term: str | None) -> None:
    bob = room.enter("bob")
    alice = desk.open(TERM=term)
    alice.until_shows("[welcome new]")
    bob.say("hello")
    alice.until_shows("] bob: hello")
    alice.type("EX", ENTER)
    assert alice.until_end() == 0
    assert b"\x1b" not in alice.raw


def test_plain_is_plain_at_a_terminal_too(desk: Desk) -> None:
    alice = desk.open("alice", "--plain")
    alice.until_shows("[welcome new]")
    alice.type("EX", ENTER)
    assert alice.until_end() == 0
    assert b"\x1b" not in alice.raw


@pytest.mark.parametrize(
    "settings",
    [{"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, {"PYTHONIOENCODING": "ascii"}],
    ids=repr,
)
def test_a_terminal_that_knows_ascii_alone_gets_ascii_alone(room: Room, desk: Desk, settings: dict[str, str]) -> None:
    bob = room.enter("bob")
    bob.say("größe 漢字 🙂")
    alice = desk.sit(**settings)
    bob.ask(command="DM", to="alice", message="köln")
    alice.until_shows("--- the last message ---", " bob | gr", "bob > alice | k")
    assert " - connected" in status(alice)
    assert alice.raw.isascii()
