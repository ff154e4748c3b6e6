"""The client at a terminal: prompt, password, status line, ways to leave, and terminals of little ability."""

from __future__ import annotations

import re
import signal
import time
from typing import TYPE_CHECKING

import pytest
from integration.terminals import Terminals, is_connected, rows_with, status

from ops.window import ALT_ENTER, BACKSPACE, DEADLINE_SECONDS, ENTER, ESCAPE, LEFT, UP, control

if TYPE_CHECKING:
    from integration.room import Peer, Room

    from ops.window import Window


def until_left(peer: Peer, name: str = "alice") -> None:
    while name not in peer.next("users")["left"]:
        pass


# --- half a line, while messages arrive ---


def test_half_typed_line_and_cursor_stay_while_messages_arrive(room: Room, terminals: Terminals) -> None:
    """Promise: no message disturbs the line; all are shown once, in order, above the only prompt."""
    bob = room.enter("bob")
    alice = terminals.log_in(rows=12)
    alice.type("what I was goig to say", LEFT * 8)
    before, after = "alice> what I was goi", "g to say"
    alice.until(lambda: (alice.cursor_row, alice.cursor.column) == (before + after, len(before)), "it is typed")
    for number, letter in enumerate("nnnn -er "):
        for each in range(30):
            bob.ask(command="PM", message=f"message {number} {each:02}")
        before += letter
        alice.type(letter)
        alice.until_shows(f"message {number} 29")
        alice.until_line(before + after)
        assert alice.cursor.column == len(before)
        assert alice.row_with(f"message {number} 29") == alice.rows()[alice.cursor.row - 1]
        assert is_connected(alice)
    shown = re.findall(r"bob │ message (\d+ \d+)", alice.text())
    assert shown == [f"{number} {each:02}" for number in range(9) for each in range(30)]
    assert sum("alice>" in row for row in alice.everything()) == 1


@pytest.mark.parametrize("terminal", [{}, {"XTERM_VERSION": "XTerm(379)"}], ids=["rewraps", "cuts"])
def test_resized_window_has_one_prompt_and_status_line(
    room: Room, terminals: Terminals, terminal: dict[str, str]
) -> None:
    """Promise: no copy of a long half typed line is left, and nothing above it is erased."""
    bob = room.enter("bob")
    alice = terminals.log_in(rows=20, **terminal)
    for number in range(20):
        bob.say(f"m{number:02}")
    alice.until_shows("m19")
    alice.type("one word after the other " * 6, LEFT * 20)
    alice.until(lambda: alice.text().count("after") == 6, "it is typed")
    for number, columns in enumerate((60, 40, 90, 31, 100)):
        alice.resize(columns, 20)
        bob.say(f"s{number:02}")
        alice.until_shows(f"s{number:02}")
        alice.until(lambda: is_connected(alice), "it is drawn below")
    for once in ("alice>", "connected"):
        alice.until(lambda once=once: sum(once in row for row in alice.everything()) == 1, f"one {once} is left")  # type: ignore[misc]
    found = re.findall(r"│ ([ms]\d\d)", alice.text())
    assert found == [*(f"m{number:02}" for number in range(20)), *(f"s{number:02}" for number in range(5))]


def test_line_typed_before_the_prompt_appears_is_sent(room: Room, terminals: Terminals) -> None:
    """It is not taken for a password."""
    bob = room.enter("bob")
    alice = terminals.open()
    alice.type("early", ENTER)
    assert bob.next("broadcast")["message"] == "early"
    alice.until_shows("alice │ early")


# --- passwords ---


def until_drawn(window: Window, count: int, *keys: str) -> None:
    """Type keys into the password, and wait until they are processed: the error about a paste is the fence."""
    window.type(*keys)
    window.paste("y" * 8_193)
    window.until(lambda: len(rows_with(window, "8,193")) == count, "the paste is refused")
    window.until_line("password:")
    assert window.cursor.column == len("password: ")


def printed(window: Window) -> bytes:
    """The output without control sequences, so that letters drawn one by one are together."""
    return re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]|[\r\n\b]", b"", window.raw)


def test_password_is_never_printed(room: Room, terminals: Terminals) -> None:
    """Promise: not on the screen, in no byte, and no key brings it back: yank, undo, history or search."""
    alice = terminals.open(CHAT_PASSWORD=None)
    alice.until_line("password:")
    until_drawn(alice, 1, control("r"), "Xana")
    until_drawn(alice, 2, control("s"), "du", LEFT, BACKSPACE, "Q", control("a"))
    until_drawn(alice, 3, control("k"), control("y"), f"{ESCAPE}y", "a long passphrase " * 20)
    alice.resize(60, 20)
    alice.resize(100, 30)
    alice.type(control("u"), "Xanadu", ENTER)
    alice.until_line("password again:")
    alice.type("Xanadu", ENTER)
    alice.until(lambda: is_connected(alice), "the password was accepted")
    for number, keys in enumerate((UP, control("y"), f"{control('y')}{ESCAPE}y", control("_"), f"{ESCAPE}.")):
        alice.type(keys, str(number))
        alice.until_line(f"alice> {number}")
        alice.type(control("c"))
        alice.until_line("alice>")
    for part in (b"Xana", b"nadu", b"du", b"Q", b"*" * 2, b"phrase", b"search"):
        assert part not in printed(alice)
    room.enter("alice", password="Xanadu")


def test_name_and_password_typed_ahead_are_not_a_message(room: Room, terminals: Terminals) -> None:
    """Programs type passwords for people before the question is there."""
    bob = room.enter("bob")
    alice = terminals.open("", CHAT_PASSWORD=None)
    alice.until_line("username:")
    alice.type("no name", ENTER)
    alice.until_shows("A username is 1 to 32 letters and digits")
    alice.type("alice", ENTER, "Xanadu", ENTER)
    alice.until_line("password again:")
    alice.type("Xanadu", ENTER)
    alice.until(lambda: is_connected(alice), "the password was accepted")
    alice.until_line("alice>")
    alice.type("hello", ENTER)
    assert bob.next("broadcast")["message"] == "hello"
    alice.until_shows("alice │ hello")
    assert b"Xanadu" not in printed(alice)
    assert b"waits for" not in printed(alice)
    room.enter("alice", password="Xanadu")


# --- leaving ---


def assert_restored(window: Window) -> None:
    """The terminal is as before: it echoes, shows the cursor, wraps, marks no pastes, and has no prompt."""
    assert window.echoes
    for turned_on, turned_off in ((rb"\x1b\[\?25h", rb"\x1b\[\?25l"), (rb"\x1b\[\?2004l", rb"\x1b\[\?2004h")):
        on, off = ([found.start() for found in re.finditer(each, window.raw)] for each in (turned_on, turned_off))
        assert max(on) > max(off, default=-1)
    assert window.raw.rfind(b"\x1b[?7h") > window.raw.rfind(b"\x1b[?7l")
    coloured = max(found.start() for found in re.finditer(rb"\x1b\[[0-9;]*[1-9]m", window.raw))
    assert window.raw.rfind(b"\x1b[0m") > coloured
    assert (window.cursor.column, window.cursor_row) == (0, "")
    assert not [row for row in window.rows() if row.startswith("alice>") or row.endswith(" connected")]


# Ctrl-D alone, a word that leaves, a signal during a half typed line.
@pytest.mark.parametrize("how", [control("d"), f"ex{ENTER}", signal.SIGTERM], ids=repr)
def test_leaving_restores_the_terminal_and_is_seen_by_others(
    room: Room, terminals: Terminals, how: str | signal.Signals
) -> None:
    bob = room.enter("bob")
    alice = terminals.log_in()
    if isinstance(how, str):
        alice.type(how)
    else:
        alice.type("half a line")
        alice.until_line("alice> half a line")
        alice.signal(how)
    assert alice.until_end() == 0
    assert_restored(alice)
    if isinstance(how, str):
        assert "You left." in alice.everything()[-1]
    until_left(bob)


def test_closed_window_ends_the_client(room: Room, terminals: Terminals) -> None:
    """With a goodbye if it is logged in."""
    bob = room.enter("bob")
    alice = terminals.log_in()
    alice.type("half a line")
    alice.until_line("alice> half a line")
    alice.hang_up()
    until_left(bob)
    for name, question in (("", "username:"), ("alice", "password:")):
        window = terminals.open(name, CHAT_PASSWORD=None)
        window.until_line(question)
        window.hang_up()


def test_signals_end_a_client_whose_terminal_is_blocked(room: Room, terminals: Terminals) -> None:
    """A second signal at least a second after the first. Signals that come together are one."""
    bob = room.enter("bob")
    alice = terminals.log_in()
    for _ in range(40):
        bob.say("x" * 8_000)
    alice.stall()
    give_up_at = time.monotonic() + DEADLINE_SECONDS
    while not alice.is_gone:
        assert time.monotonic() < give_up_at
        alice.signal(signal.SIGTERM)
        time.sleep(0.1)
    assert alice.until_end() == 1
    assert alice.echoes


def test_ctrl_c_and_ctrl_d_leave_only_an_empty_prompt(room: Room, terminals: Terminals) -> None:
    """Ctrl-C clears a line, or else cancels a question. Ctrl-D does not leave a line with text."""
    bob = room.enter("bob")
    alice = terminals.log_in()
    alice.type("never mind")
    alice.until_line("alice> never mind")
    alice.type(control("c"))
    alice.until_line("alice>")
    alice.type(control("c"))
    alice.until_shows("Ctrl-D or EX leaves.")
    alice.type("DM", ENTER)
    alice.until_line("recipient:")
    alice.type("b")
    alice.until_line("recipient: b")
    alice.type(control("c"))
    alice.until_line("recipient:")
    alice.type(control("c"))
    alice.until_line("alice>")
    alice.type("I am still here", control("d"), ENTER)
    assert bob.next("broadcast")["message"] == "I am still here"


@pytest.mark.parametrize(
    ("name", "question", "keys", "code"),
    [("", "username:", control("c"), 1), ("", "username:", f"EX{ENTER}", 2), ("alice", "password:", control("d"), 1)],
)
def test_client_can_be_left_before_the_login(
    terminals: Terminals, name: str, question: str, keys: str, code: int
) -> None:
    """Without an error message for a key."""
    window = terminals.open(name, CHAT_PASSWORD=None)
    window.until_line(question)
    window.type(keys)
    assert window.until_end() == code
    assert_restored(window)
    assert code == 2 or "!" not in window.text()


# --- operations and protocols ---


@pytest.mark.parametrize("protocol", ["json", "websocket", "datagram"])
def test_operations_work_the_same_over_all_protocols(room: Room, terminals: Terminals, protocol: str) -> None:
    bob = room.enter("bob")
    bob.say("before")
    alice = terminals.log_in("alice", "--dialect", protocol)
    assert re.fullmatch(rf"alice · 127.0.0.1:\d+ · {protocol}( · 2 online)? · connected", status(alice))
    alice.until_shows("─── the last message ───", "bob │ before", "─── now ───")
    alice.type("DM", ENTER)
    alice.until_line("recipient:")
    if protocol != "datagram":  # which learns it after the message
        alice.type("nobody", ENTER)
        alice.until_shows("! │ There is no user 'nobody'")
        alice.until_line("recipient:")
    bob.say("in between")
    alice.until_shows("bob │ in between")
    alice.until_line("recipient:")
    alice.type("bob", ENTER)
    alice.until_line("message for bob:")
    alice.type("for you", ENTER)
    assert bob.next("direct")["message"] == "for you"
    alice.until_shows("alice » bob │ for you")
    alice.type("PM", ENTER)
    alice.until_line("message for all users:")
    alice.type("EX", ENTER)  # the answer to a question is a message
    assert bob.next("broadcast")["message"] == "EX"
    alice.until_shows("alice │ EX")
    alice.type("for all", ALT_ENTER, "on two lines", ENTER)
    assert bob.next("broadcast")["message"] == "for all\non two lines"
    alice.until_shows("alice │ for all")
    count = alice.text().count("2 online: alice, bob")
    alice.type("/users", ENTER)
    alice.until(lambda: alice.text().count("2 online: alice, bob") == count + 1, "it is answered")
    alice.until_line("alice>")
    alice.type("CH", ENTER)
    alice.until_shows("─── the last 5 messages ───")
    alice.until(lambda: len(rows_with(alice, "─── now ───")) == 2, "the history is shown")
    assert len(rows_with(alice, "│ for you")) == 2
    alice.until_line("alice>")
    alice.type("EX", ENTER)
    assert alice.until_end() == 0
    assert_restored(alice)


def test_guest_is_asked_for_a_name_and_talks(room: Room, terminals: Terminals) -> None:
    carl = room.enter_guest("carl")
    window = terminals.open("", "--dialect", "register")
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


# --- terminals of little ability ---


def test_no_color_leaves_bold_only(room: Room, terminals: Terminals) -> None:
    bob = room.enter("bob")
    alice = terminals.log_in(NO_COLOR="1")
    bob.say("hello alice")
    alice.type("@bob direct", ENTER)
    alice.until_shows("hello alice", "alice » bob │ direct")
    assert alice.look_of("hello alice").bold
    assert not re.findall(rb"\x1b\[(?:[0-9]+;)*(?:3[0-8]|9[0-7]|4[0-8])(?:;[0-9]+)*m", alice.raw)


def test_plain_lines_without_a_capable_terminal(room: Room, terminals: Terminals) -> None:
    bob = room.enter("bob")
    alice = terminals.open("alice", TERM="dumb")
    alice.until_shows("[welcome new]")
    bob.say("hello")
    alice.until_shows("] bob: hello")
    alice.type("EX", ENTER)
    assert alice.until_end() == 0
    assert b"\x1b" not in alice.raw


def test_terminal_of_ascii_gets_ascii_only(room: Room, terminals: Terminals) -> None:
    bob = room.enter("bob")
    bob.say("größe 漢字 🙂")
    alice = terminals.log_in(LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    alice.until_shows("--- the last message ---", " bob | gr", "--- now ---")
    bob.ask(command="DM", to="alice", message="köln")
    alice.until_shows("bob > alice | k", " - connected")
    assert alice.raw.isascii()
