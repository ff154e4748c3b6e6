"""The wires that the load speaks, as dialogues of literal bytes: whole, and byte by byte."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from bench.protocols import MARKER, TEXT_BYTES, WIRES, Entrance, Part, RefusedError, text


@dataclass(frozen=True)
class Dialogue:
    """What one who enters as "anna" says, and the server, by turns. After the server's last words anna is in."""

    wire: str
    ours: tuple[bytes, ...]
    theirs: tuple[bytes, ...]


DIALOGUES = {
    "json": Dialogue(
        "json",
        (b'{"command": "login", "username": "anna", "password": "secret of anna"}\n',),
        (b'{"type":"users","users":["bob"],"joined":["bob"],"left":[]}\n{"type":"login","users":["bob","anna"]}\n',),
    ),
    "frames": Dialogue(
        "frames",
        (b"C\0\0\0\4anna", b"C\0\0\0\x0esecret of anna"),
        (b"C\0\0\0\x0cPASSWORD new", b"C\0\0\0\x0bWELCOME newD\0\0\0\x10PUBLIC bob 1 2\nx"),
    ),
    "datagram, as its frames": Dialogue(
        "datagram",
        (b"C\0\0\0\4anna", b"C\0\0\0\x0esecret of anna"),
        (b"C\0\0\0\x11PASSWORD existing", b"C\0\0\0\x10WELCOME existing"),
    ),
    "raw": Dialogue("raw", (b"R",), (b".",)),
    "nats": Dialogue(
        "nats",
        (b'CONNECT {"verbose":false,"pedantic":false,"echo":false}\r\nSUB c 1\r\nPING\r\n',),
        (b'INFO {"server_id":"X","max_payload":1048576}\r\nPONG\r\n',),
    ),
    "irc": Dialogue(
        "irc",
        (b"NICK anna\r\nUSER anna 0 * :anna\r\n", b"JOIN #c\r\n"),
        (
            b":irc 001 anna :Welcome\r\n:irc 422 anna :MOTD File is missing\r\n",
            b":anna!a@h JOIN :#c\r\n:irc 353 anna = #c :anna\r\n:irc 366 anna #c :End of NAMES list\r\n",
        ),
    ),
    "irc, with a ping and a message of the day": Dialogue(
        "irc",
        (b"NICK anna\r\nUSER anna 0 * :anna\r\n", b"PONG :366\r\n", b"JOIN #c\r\n"),
        (b":irc NOTICE * :hello\r\nPING :366\r\n", b":irc 376 anna :End of MOTD\r\n", b":irc 366 anna #c :End\r\n"),
    ),
    "mqtt": Dialogue(
        "mqtt",
        (b"\x10\x11\0\4MQTT\5\2\0\0\0\0\4anna", b"\x82\7\0\1\0\0\1c\4"),
        # The first is as long as packets whose length takes two bytes.
        (b"\x20\x83\1\0\0\x80" + b"\x21" * 128, b"\x30\4\0\1c\0\x90\4\0\1\0\0"),
    ),
}
REFUSALS = {
    "a wrong password": ("json", b'{"type":"error","code":"wrong_password","message":"x"}\n', "wrong_password"),
    "a goodbye": ("json", b'{"type":"bye","reason":"not logged in"}\n', "not logged in"),
    "a denial": ("frames", b"C\0\0\0\x0aDENIED No.", "DENIED No."),
    "an opening that is refused": ("datagram", b"C\0\0\0\x16ERROR server_full Full", "server_full"),
    "an error": ("frames", b"C\0\0\0\x16ERROR server_full Full", "server_full"),
    "too many connections": ("nats", b"-ERR 'maximum connections exceeded'\r\n", "maximum connections"),
    "a ban": ("irc", b"ERROR :Closing link\r\n", "Closing link"),
    "a bad client": ("mqtt", b"\x20\3\0\x87\0", "87"),
    "no subscription": ("mqtt", b"\x20\3\0\0\0\x90\4\0\1\0\x87", "87"),
}


def hear(entrance: Entrance, pieces: list[bytes]) -> tuple[bytes, bool]:
    """What is answered to these pieces, and whether one is in then."""
    answers = b""
    try:
        for piece in pieces:
            answers += entrance.send(piece)
    except StopIteration:
        return answers, True
    return answers, False


@pytest.mark.parametrize("is_whole", [True, False], ids=["whole", "byte by byte"])
@pytest.mark.parametrize("dialogue", DIALOGUES.values(), ids=DIALOGUES)
def test_the_way_in_is_found(dialogue: Dialogue, *, is_whole: bool) -> None:
    entrance = WIRES[dialogue.wire].enter("anna", Part.HEARS)
    assert next(entrance) == dialogue.ours[0]
    for theirs, ours in zip(dialogue.theirs, (*dialogue.ours[1:], None), strict=True):
        pieces = [theirs] if is_whole else [theirs[i : i + 1] for i in range(len(theirs))]
        assert hear(entrance, pieces) == (ours or b"", ours is None)


def test_the_floor_is_told_who_speaks() -> None:
    assert next(WIRES["raw"].enter("anna", Part.SPEAKS)) == b"S"


@pytest.mark.parametrize(("wire", "theirs", "named"), REFUSALS.values(), ids=REFUSALS)
def test_who_is_not_let_in_says_why(wire: str, theirs: bytes, named: str) -> None:
    entrance = WIRES[wire].enter("anna", Part.HEARS)
    next(entrance)
    with pytest.raises(RefusedError, match=named):
        hear(entrance, [theirs])


TEXT = b"|0000000000000042" + b"x" * 47
FRAMES = {
    "json": b'{"command":"PM","message":"' + TEXT + b'"}\n',
    "frames": b"C\0\0\0\2PMD\0\0\0\x40" + TEXT,
    "datagram": b"C\0\0\0\2PMD\0\0\0\x40" + TEXT,
    "raw": TEXT + b"\n",
    "nats": b"PUB c 64\r\n" + TEXT + b"\r\n",
    "irc": b"PRIVMSG #c :" + TEXT + b"\r\n",
    "mqtt": b"\x30\x44\0\1c\0" + TEXT,
}


def test_there_is_a_frame_here_for_every_wire() -> None:
    assert FRAMES.keys() == WIRES.keys()


@pytest.mark.parametrize("wire", FRAMES)
def test_a_frame_holds_its_text_and_one_marker(wire: str) -> None:
    assert text(42) == TEXT
    assert len(TEXT) == TEXT_BYTES
    assert WIRES[wire].frame(TEXT) == FRAMES[wire]
    assert FRAMES[wire].count(MARKER) == 1
