"""The client at a terminal: texts of other users and of servers do not control it."""

from __future__ import annotations

import re
import unicodedata
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import pytest
from integration.fake_server import FakeServer, broadcast, serve_but, welcome

from ops.window import ENTER, TAB, control

if TYPE_CHECKING:
    from collections.abc import Iterator

    from integration.room import Peer, Room
    from integration.terminals import Terminals

    from ops.window import Window

# Texts that change a terminal, one of each kind; test_text.py has all characters. Their numbers do not occur in the
# client's own output.
ATTACKS: Final = {
    "copy to the clipboard": "\x1b]52;c;cm0gLXJmIC8=\x07",
    "a link": "\x1b]8;;http://evil.example\x1b\\click\x1b]8;;\x1b\\",
    "a title": "\x1b]0;owned\x07",
    "go up": "\x1b[97A\x1b[97Gowned",
    "go home and clear": "\x1b[H\x1b[2J\x1b[3J",
    "colour": "\x1b[38;5;199mpink\x1b[97;41m",
    "the other screen": "\x1b[?1049h",
    "cursor gone": "\x1b[?12;25l\x1b[?2026h",
    "ask for the cursor": "\x1b[6n\x1b[5n",
    "a device string": '\x1bP$q"p\x1b\\',
    "end of a paste": "\x1b[201~rm -rf /\r",
    "8-bit csi": "\x9b97A\x9b2J",
    "8-bit dcs, apc, pm, sos": "\x90q\x9c\x9fG\x9c\x9ep\x9c\x98s\x9c",
    "next line, reverse line": "\x85owned\x8d\x84",
    "bell": "\x07\x07\x07",
    "nul": "a\0b",
    "line separator": "one\u2028two\u2029three",
    "right to left": "\u202egnp.exe\u202c",
    "nothing to be seen": "a\u200bb\u2060c\ufeffd\u00ade\u180ef",
    "tags": "".join(chr(0xE0000 + ord(letter)) for letter in "hidden orders") + "\U000e007f",
    "fillers": "\u115f\u1160\u3164\uffa0",
    "private and no letters": "\ue000\ufdd0\uffff\U0010ffff",
}
# Texts that imitate rows of the client. Their lines may be broken only in the message column.
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

# The control sequences of the client itself.
OWN: Final = re.compile(rb"\x1b\[(?:[0-9;]*m|[0-9]{0,3}[ABCDGX]|[0-9]{0,2}[JK]|\?(?:1|7|12|25|2004)[hl])")


def assert_harmless(window: Window, bells: int = 0) -> None:
    """No byte of an attack was printed, and the window is as it should be."""
    rest = OWN.sub(b"", window.raw)
    rung, rest = rest.count(b"\x07"), rest.replace(b"\x07", b"")
    text = rest.decode()
    assert not {ascii(each) for each in text if not each.isprintable() and each not in "\r\n\u200c\u200d"}
    assert not {ascii(each) for each in text if each in "\u115f\u1160\u3164\uffa0"}
    assert b"\r" not in re.sub(rb"\r+\n|\r(?=$)", b"", re.sub(rb"\x1b\[[0-9;?]*[a-zA-Z]", b"", window.raw)).strip(b"\r")
    for name, attack in ATTACKS.items():
        sequences = re.findall(r"[\x1b\x9b][^\x1b]*", attack)
        assert not [each for each in sequences if each.encode() in window.raw and len(each) > 3], name
    assert rung == window.bells <= bells
    assert (window.title, window.shows_cursor) == ("", True)
    marks = [len(heap) for heap in re.findall(r"[\u0300-\u036f\u0489]+", window.raw.decode())]
    assert max(marks, default=0) <= 4


def assert_every_row_has_its_sender(window: Window) -> None:
    """Each row of bob's messages has his name, or is in the message column."""
    for row in window.everything():
        assert re.match(r"\d\d:\d\d |─── | +│|alice>|  |alice · |$|\(", row), row
        if "FAKE" in row:
            assert re.match(r"\d\d:\d\d +bob( » alice)? │ | +│ ", row), row


def send_attacks(bob: Peer, **members: str) -> None:
    for number, text in enumerate([*ATTACKS.values(), *FAKES.values(), ZALGO, LONG]):
        bob.ask(message=f"{number} begins {text} and ends", **members)
        bob.next("sent")
    bob.ask(message="that was all", **members)
    bob.next("sent")


COUNT: Final = len(ATTACKS) + len(FAKES) + 3


def test_live_messages_do_not_control_the_terminal(room: Room, terminals: Terminals) -> None:
    """Promise: public and direct messages do nothing but ring. Control characters are shown as escapes."""
    bob = room.enter("bob")
    alice = terminals.log_in(rows=40)
    alice.type("half a line")
    send_attacks(bob, command="PM")
    alice.until_shows("bob │ that was all")
    alice.until_line("alice> half a line")
    assert_harmless(alice, bells=3)  # a fake has her name
    assert alice.cursor.column == len("alice> half a line")
    for written in ("\\x1b]52;c;cm0gLXJmIC8=\\x07", "\\x9b97A", "\\u202e", "a\\x00b", "\\U000e0068"):
        assert written in alice.text()
    send_attacks(bob, command="DM", to="alice")
    alice.until_shows("bob » alice │ that was all")
    alice.until_line("alice> half a line")
    assert_harmless(alice, bells=COUNT)
    assert_every_row_has_its_sender(alice)


def test_stored_messages_do_not_control_the_terminal(room: Room, terminals: Terminals) -> None:
    """In the history, in messages that waited, and in the results of a search."""
    room.enter("alice").close()
    bob = room.enter("bob")
    room.wait_for_connections(1)
    send_attacks(bob, command="PM")
    send_attacks(bob, command="DM", to="alice")
    alice = terminals.log_in(rows=40)
    alice.until_shows("that was all")
    alice.type("CH 500", ENTER)
    alice.until_shows(f"─── the last {2 * COUNT} messages ───")
    alice.until(lambda: alice.text().count("bob » alice │ that was all") >= 2, "all is shown")
    alice.until_line("alice>")
    alice.type("/search begins", ENTER)
    alice.until_shows("─── 50 messages found: begins ───")
    alice.until_line("alice>")
    assert_harmless(alice, bells=COUNT)
    assert_every_row_has_its_sender(alice)


def test_pasted_attack_does_not_control_the_terminal(room: Room, terminals: Terminals) -> None:
    """Control sequences and keys in a paste have no effect: the client sends nothing, and stays."""
    bob = room.enter("bob")
    alice = terminals.log_in()
    alice.paste("EX\r\x03\x04" + "x".join(ATTACKS.values()).replace("\x1b[201~", ""))
    alice.until_shows("evil.example")
    rest = OWN.sub(b"", alice.raw).decode()
    assert not {each for each in rest if unicodedata.category(each) == "Cc" and each not in "\r\n"}
    assert alice.title == ""
    alice.type(control("c"))
    alice.until_line("alice>")
    alice.type("still here", ENTER)
    assert bob.next("broadcast")["message"] == "still here"


# --- a hostile server ---


def hostile_answers(evil: str) -> list[dict[str, Any]]:
    """Answers to a login with this text in all members."""
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


# A longer name would end the connection.
EVIL: Final = [
    "".join([*ATTACKS.values()][:11]),
    "".join([*ATTACKS.values()][11:]) + ZALGO,
    "bob\n12:00            carol │ FAKE\r12:00  carol │ FAKE",
]


@contextmanager
def answering(answers: list[dict[str, Any]]) -> Iterator[FakeServer]:
    """A server that answers a login so and ends the connection; later connections end at once."""
    with FakeServer(lambda _: [*answers, None], lambda _: [None]) as server:
        yield server


@pytest.mark.parametrize("evil", EVIL, ids=ascii)
def test_hostile_server_does_not_control_the_terminal(terminals: Terminals, evil: str) -> None:
    """Promise: no name, reason or word of a server is printed unescaped, in whichever answer."""
    with answering(hostile_answers(evil)) as server:
        alice = terminals.open(port=server.port, rows=40)
        alice.until_shows("that was all")
        alice.until(lambda: "connection lost" in alice.text() or alice.has_ended, "it has ended")
        alice.type(control("c"), control("d"))
        alice.until_end()
    assert_harmless(alice, bells=10)
    fakes = [row for row in alice.everything() if "FAKE" in row]
    assert not [row for row in fakes if not re.match(r" +│ |.*\\[nr]12:00", row)], "a line was broken"
    refused = {"type": "error", "code": "wrong_password", "message": evil}
    misunderstood = {"type": "sent", "id": 1, "status": evil}
    for answers in ([refused, {"type": "bye", "reason": evil}], [misunderstood]):
        with answering(answers) as server:
            alice = terminals.open(port=server.port)
            assert alice.until_end() in (1, 3)
        assert_harmless(alice)


def test_invalid_names_are_not_completed_nor_replied_to(terminals: Terminals) -> None:
    """The menu and the input line show names unescaped. The own name may be hostile, too."""
    evil = ["x\u202eevil", "x\x9b31mred", "x\x1b]0;owned\x07", "x\u2066y", "x\u200fz", "x y", "x" * 33]
    direct = [broadcast(8, "bob", "psst", type="direct", to="alice")]
    direct += [broadcast(9 + number, name, "psst", type="direct", to="alice") for number, name in enumerate(evil)]
    answers = [welcome("alice", *evil), *direct, {"type": "users", "joined": ["xenia", *evil], "left": [], "count": 9}]
    with FakeServer(serve_but("login", *answers)) as server:
        alice = terminals.log_in(port=server.port)
        alice.until_shows("xenia")
        for typed, key, line in (("DM x", TAB, "DM xenia"), ("x", TAB, "xenia:"), ("/reply", " ", "DM bob")):
            alice.type(typed)
            alice.until_line(f"alice> {typed}")
            alice.type(key)
            alice.until_line(f"alice> {line}")
            alice.type(control("c"))
            alice.until_line("alice>")
        assert_harmless(alice, bells=1 + len(evil))
    with answering([welcome("\x1b]0;owned\x07\u202e\nFAKE"), broadcast(2, "bob", "that was all")]) as server:
        alice = terminals.open(port=server.port)
        alice.until(lambda: "that was all" in alice.text() or alice.has_ended, "it is read")
    assert_harmless(alice, bells=1)
    assert not [row for row in alice.everything() if row.startswith("FAKE")]
