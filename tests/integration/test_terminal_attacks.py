"""The program ``chatclient`` at a terminal: what others write does nothing to it, wherever it comes from."""

from __future__ import annotations

import json
import re
import socket
import threading
import unicodedata
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

import pytest
from integration.desk import Desk, StandIn, broadcast, is_in, serves, welcome

from ops.window import ENTER, TAB, control

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from integration.room import Peer, Room

    from ops.window import Window

# What is known to do harm in a terminal. Numbers that this program never writes make them known again in its output.
ATTACKS: Final = {
    "copy to the clipboard": "\x1b]52;c;cm0gLXJmIC8=\x07",
    "copy, ended by ST": "\x1b]52;c;cm0gLXJmIC8=\x1b\\",
    "a link": "\x1b]8;;http://evil.example\x1b\\click\x1b]8;;\x1b\\",
    "a title": "\x1b]0;owned\x07",
    "ask for the title": "\x1b[21t",
    "colours of the terminal": "\x1b]4;1;rgb:00/00/00\x07",
    "a picture of iTerm": "\x1b]1337;File=inline=1:AAAA\x07",
    "a notice": "\x1b]9;hello\x07\x1b]777;notify;a;b\x07",
    "go up": "\x1b[97A\x1b[97Gowned",
    "go home and clear": "\x1b[H\x1b[2J\x1b[3J",
    "clear a line": "\x1b[2K\x1b[1K",
    "colour": "\x1b[38;5;199mpink\x1b[97;41m",
    "invisible": "\x1b[8mhidden\x1b[28m",
    "the other screen": "\x1b[?1049h",
    "mouse": "\x1b[?1000h\x1b[?1003h\x1b[?1006h",
    "cursor gone": "\x1b[?12;25l\x1b[?2026h",
    "scroll region": "\x1b[3;5r",
    "insert lines": "\x1b[77L\x1b[77M\x1b[77P\x1b[77S",
    "ask for the cursor": "\x1b[6n\x1b[5n",
    "ask what it is": "\x1b[c\x1b[>c\x1bZ",
    "a device string": '\x1bP$q"p\x1b\\',
    "sixel": "\x1bPq#0;2;0;0;0#0~~@@\x1b\\",
    "reset": "\x1bc\x1b[!p",
    "charset": "\x1b(0qqq\x0e\x0f",
    "application keypad": "\x1b=\x1b>",
    "pm and apc": "\x1b^private\x1b\\\x1b_Gapc\x1b\\",
    "end of a paste": "\x1b[201~rm -rf /\r",
    "8-bit csi": "\x9b97A\x9b2J",
    "8-bit osc": "\x9d52;c;cm0=\x9c",
    "8-bit dcs, apc, pm, sos": "\x90q\x9c\x9fG\x9c\x9ep\x9c\x98s\x9c",
    "next line, reverse line": "\x85owned\x8d\x84",
    "bell": "\x07\x07\x07",
    "backspaces": "\b\b\b\b\b\b\b\b\b\b\b\b\bcarol",
    "nul": "a\0b",
    "delete": "\x7f\x7f\x7f",
    "vertical tab, form feed": "\x0bdown\x0cdown",
    "flow control": "\x11\x13\x1a\x05\x18",
    "separators of files": "\x1c\x1d\x1e\x1f",
    "line separator": "one\u2028two\u2029three",
    "right to left": "\u202egnp.exe\u202c",
    "isolates": "\u2066\u2067\u2068abc\u2069",
    "marks of direction": "\u200e\u200f\u061c",
    "nothing to be seen": "a\u200bb\u2060c\ufeffd\u00ade\u180ef",
    "invisible operators": "\u2061\u2062\u2063\u2064\u206a\u206f",
    "tags": "".join(chr(0xE0000 + ord(letter)) for letter in "hidden orders") + "\U000e007f",
    "fillers": "\u115f\u1160\u3164\uffa0",
    "annotations": "\ufff9x\ufffay\ufffbz",
    "private and no letters": "\ue000\ufdd0\uffff\U0010ffff",
}
# These break lines, which is allowed: behind the gutter.
FAKES: Final = {
    "a line of carol's": "hi\n12:00            carol │ FAKE",
    "carriage return": "hi\r12:00            carol │ FAKE",
    "both": "hi\r\n12:00            carol │ FAKE",
    "far right": "hi" + " " * 71 + "12:00            carol │ FAKE",
    "filled row": "hi" + " " * 98 + "12:00            carol │ FAKE",
    "a rule": "hi\n─── now ───────── FAKE",
    "a notice": "hi\n12:00                * │ FAKE carol joined",
    "a direct message": "hi\n12:00    carol » alice │ FAKE",
    "the prompt": "hi\nalice> FAKE",
    "tabs": "hi\n\t\t\t\tFAKE",
    "empty rows": "hi" + "\n" * 30 + "12:00            carol │ FAKE",
}
ZALGO: Final = "z" + "".join(chr(0x300 + each) for each in range(60)) + "a" + "\u0489" * 60
LONG: Final = "W" * 8_000

# What this program itself writes to a terminal.
_OWN: Final = re.compile(rb"\x1b\[(?:[0-9;]*m|[0-9]{0,3}[ABCDGX]|[0-9]{0,2}[JK]|\?(?:1|7|12|25|2004)[hl])")


@pytest.fixture
def desk(room: Room, tmp_path: Path) -> Iterator[Desk]:
    with Desk(room.server.port, tmp_path) as desk:
        yield desk


def assert_harmless(window: Window, bells: int = 0) -> None:
    """No byte of an attack has gone out, and nothing has happened to the window."""
    rest = _OWN.sub(b"", window.raw)
    rung, rest = rest.count(b"\x07"), rest.replace(b"\x07", b"")
    text = rest.decode()
    found = {each for each in text if not each.isprintable() and each not in "\r\n\u200c\u200d"}
    assert not found, f"these went out: {sorted(map(ascii, found))}"
    assert not {each for each in text if each in "\u115f\u1160\u3164\uffa0"}
    assert b"\r" not in re.sub(rb"\r+\n|\r(?=$)", b"", re.sub(rb"\x1b\[[0-9;?]*[a-zA-Z]", b"", window.raw)).strip(b"\r")
    for what, attack in ATTACKS.items():
        sequences = re.findall(r"[\x1b\x9b][^\x1b]*", attack)
        assert not [each for each in sequences if each.encode() in window.raw and len(each) > 3], what
    assert rung == window.bells <= bells
    assert window.title == ""
    assert window.shows_cursor


def assert_every_row_is_its_writers(window: Window) -> None:
    """What bob wrote has his name before it, or stands behind the gutter."""
    for row in window.everything():
        assert re.match(r"\d\d:\d\d |─── | +│|alice>|  |alice · |$|\(", row), row
        if "FAKE" in row:
            assert re.match(r"\d\d:\d\d +bob( » alice)? │ | +│ ", row), row


def attack(bob: Peer, **members: str) -> None:
    for number, text in enumerate([*ATTACKS.values(), *FAKES.values(), ZALGO, LONG]):
        bob.ask(message=f"{number} begins {text} and ends", **members)
        bob.next("sent")
    bob.ask(message="that was all", **members)
    bob.next("sent")


COUNT: Final = len(ATTACKS) + len(FAKES) + 3


def test_live_messages_do_nothing_to_the_terminal(room: Room, desk: Desk) -> None:
    bob = room.enter("bob")
    alice = desk.sit(rows=40)
    alice.type("half a line")
    attack(bob, command="PM")
    alice.until_shows("bob │ that was all")
    alice.until_line("alice> half a line")
    assert_harmless(alice, bells=3)  # where a fake has her name
    assert_every_row_is_its_writers(alice)
    assert alice.cursor.column == len("alice> half a line")
    shown = alice.text()
    for written in ("\\x1b]52;c;cm0gLXJmIC8=\\x07", "\\x9b97A", "\\u202e", "a\\x00b", "\\U000e0068"):
        assert written in shown
    marks = [len(heap) for heap in re.findall(r"[\u0300-\u036f\u0489]+", alice.raw.decode())]
    assert 0 < max(marks) <= 4


def test_direct_messages_do_nothing_but_ring(room: Room, desk: Desk) -> None:
    bob = room.enter("bob")
    alice = desk.sit(rows=40)
    alice.type("half a line")
    attack(bob, command="DM", to="alice")
    alice.until_shows("bob » alice │ that was all")
    alice.until_line("alice> half a line")
    assert_harmless(alice, bells=COUNT)
    assert_every_row_is_its_writers(alice)


@pytest.mark.parametrize("flags", [[], ["--dialect", "frames"], ["--dialect", "datagram"]], ids=repr)
def test_stored_messages_do_nothing_to_the_terminal(room: Room, desk: Desk, flags: list[str]) -> None:
    room.enter("alice").close()
    bob = room.enter("bob")
    room.wait_for_connections(1)
    attack(bob, command="PM")
    attack(bob, command="DM", to="alice")
    alice = desk.sit("alice", *flags, rows=40)
    alice.until_shows("that was all")
    alice.type("CH 500", ENTER)
    alice.until_shows(f"─── the last {2 * COUNT} messages ───")
    alice.type("half a line")
    alice.until(lambda: alice.text().count("bob » alice │ that was all") >= 2, "all is shown")
    if not flags:
        alice.type(control("c"), "/search begins", ENTER)
        alice.until_shows("─── 50 messages found: begins ───")
        alice.type("half a line")
    alice.until_line("alice> half a line")
    assert_harmless(alice, bells=COUNT)
    assert_every_row_is_its_writers(alice)


@pytest.mark.parametrize(("columns", "beginning"), [(64, r" +│ |\d\d:\d\d +bob │ "), (34, r"  |\d\d:\d\d bob │ ")])
def test_in_a_narrow_window_no_row_looks_like_another_ones_either(
    room: Room, desk: Desk, columns: int, beginning: str
) -> None:
    bob = room.enter("bob")
    alice = desk.sit(columns=columns, rows=40)
    texts = [*FAKES.values(), *(f"{'x' * each} 12:00 carol FAKE" for each in range(20, 40))]
    for text in texts:
        bob.say(text)
    bob.say("that was all")
    alice.until_shows("that was all")
    assert sum("FAKE" in row for row in alice.everything()) >= len(texts)
    assert not [row for row in alice.everything() if "FAKE" in row and not re.match(beginning, row)]


def test_what_a_visitor_pastes_back_is_harmless_while_it_waits(desk: Desk) -> None:
    """What is typed is shown by the prompt, and what waits above it."""
    alice = desk.sit()
    alice.paste("x".join(ATTACKS.values()).replace("\x1b[201~", ""))
    alice.until(lambda: "\x1b" not in alice.text() and len(alice.text()) > 500, "it is in the line")
    rest = _OWN.sub(b"", alice.raw)
    assert not {each for each in rest.decode() if unicodedata.category(each) == "Cc" and each not in "\r\n"}
    assert alice.title == ""


# --- a server that means ill ---


def hostile(evil: str) -> list[dict[str, Any]]:
    """A server's answers to a login, with ``evil`` wherever there is a text."""
    return [
        welcome("alice", evil),
        {"type": "users", "users": ["alice", evil, f"{evil}2"], "joined": [evil], "left": []},
        {"type": "users", "users": ["alice", evil], "joined": [], "left": [f"{evil}2"]},
        {"type": "history", "messages": [broadcast(1, evil, evil), broadcast(2, "bob", evil)]},
        broadcast(3, evil, "a sender"),
        broadcast(4, "bob", evil, type="direct", to=evil),
        broadcast(5, evil, evil, type="direct", to="alice"),
        {"type": "sent", "id": 6, "status": "sent", "nonce": evil},
        {"type": "error", "code": evil, "message": evil, "nonce": evil},
        {"type": "error", "code": "bad_request", "message": evil},
        {"type": "found", "words": evil, "messages": [broadcast(1, evil, evil)], "upto": 7},
        {"type": "prompt", "field": "password", "account": "existing"},
        {"type": evil},
        broadcast(8, "bob", "that was all"),
        {"type": "bye", "reason": evil},
    ]


@contextmanager
def answering(lines: list[dict[str, Any]]) -> Iterator[int]:
    """A server that says all that to whoever comes first, and ends the connection; to nobody else. Its port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            said = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection, suppress(OSError):
                    connection.recv(4_096)
                    connection.sendall(said)
                    connection.shutdown(socket.SHUT_WR)
                    while said and connection.recv(4_096):
                        pass
                said = b""

        thread = threading.Thread(target=serve, name="a server that means ill")
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize(
    "evil",
    ["".join(ATTACKS.values()), "bob\n12:00            carol │ FAKE", "x\r12:00  carol │ FAKE", ZALGO],
    ids=ascii,
)
def test_a_server_that_means_ill_does_nothing_to_the_terminal(desk: Desk, evil: str) -> None:
    """With names, reasons and words that no server of this project would say."""
    with answering(hostile(evil)) as port:
        alice = desk.open(port=port, rows=40)
        alice.until_shows("that was all")
        alice.until(lambda: "connection lost" in alice.text() or alice.has_ended, "it has ended")
        alice.type(control("c"), control("d"))
        alice.until_end()
    assert_harmless(alice, bells=10)
    fakes = [row for row in alice.everything() if "FAKE" in row]
    assert not [row for row in fakes if not re.match(r" +│ |.*\\[nr]12:00", row)], "a line was broken"
    marks = [len(heap) for heap in re.findall(r"[\u0300-\u036f\u0489]+", alice.raw.decode())]
    assert max(marks, default=0) <= 4


@pytest.mark.parametrize("evil", ["".join(ATTACKS.values()), "no\n12:00            carol │ FAKE"], ids=ascii)
def test_a_reason_to_let_nobody_in_does_nothing_either(desk: Desk, evil: str) -> None:
    refusal = {"type": "error", "code": "wrong_password", "message": evil}
    with answering([refusal, {"type": "bye", "reason": evil}]) as port:
        alice = desk.open(port=port)
        alice.until(lambda: alice.has_ended, "it has ended")
        assert alice.until_end() in (1, 3)
    assert_harmless(alice)


@pytest.mark.parametrize("evil", ["".join(ATTACKS.values()), "no\n12:00            carol │ FAKE", ZALGO], ids=ascii)
def test_an_answer_that_nobody_understands_is_told_without_harm(desk: Desk, evil: str) -> None:
    with answering([{"type": "sent", "id": 1, "status": evil}]) as port:
        alice = desk.open(port=port)
        alice.until_end()
    assert "no answer of the wire format json" in alice.text()
    assert_harmless(alice)


def test_a_name_that_is_given_back_differently_does_nothing(desk: Desk) -> None:
    """The prompt and the status line show it."""
    evil = "\x1b]0;owned\x07\u202e\nFAKE"
    with answering([welcome(evil), broadcast(1, "bob", f"hi {evil}"), broadcast(2, "bob", "that was all")]) as port:
        alice = desk.open(port=port)
        alice.until(lambda: "that was all" in alice.text() or alice.has_ended, "it is read")
    rest = _OWN.sub(b"", alice.raw).replace(b"\a", b"", alice.bells).decode()
    assert not {each for each in rest if unicodedata.category(each) in ("Cc", "Cf") and each not in "\r\n"}
    assert alice.title == ""
    assert not is_in(alice) or "FAKE" not in alice.rows()[0]


def test_names_that_nobody_can_have_are_not_completed_and_nobody_replies_to_them(desk: Desk) -> None:
    """A menu, and the line in which somebody types, show a name as it is."""
    evil = ["x\u202eevil", "x\x9b31mred", "x\x1b]0;owned\x07", "x\u2066y", "x\u200fz", "x y", "x" * 33]
    direct = [broadcast(8, "bob", "psst", type="direct", to="alice")]
    direct += [broadcast(9 + number, name, "psst", type="direct", to="alice") for number, name in enumerate(evil)]
    said = [welcome("alice", *evil), *direct, {"type": "users", "joined": ["xenia", *evil], "left": [], "count": 9}]
    with StandIn(lambda request: said if request["command"] == "login" else serves(request)) as server:  # type: ignore[misc]
        alice = desk.sit(port=server.port)
        alice.until_shows("xenia")
        alice.type("DM x")
        alice.until_line("alice> DM x")
        alice.type(TAB)
        alice.until_line("alice> DM xenia")
        alice.type(control("c"), "x")
        alice.until_line("alice> x")
        alice.type(TAB)
        alice.until_line("alice> xenia:")
        alice.type(control("c"), "/reply ")
        alice.until_line("alice> DM bob")
        assert_harmless(alice, bells=1 + len(evil))
