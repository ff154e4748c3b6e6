"""The protocols of the load, as dialogues of literal bytes: whole, and byte by byte."""

from __future__ import annotations

import pytest
from web_bytes import TEXT as TEXT_MESSAGE
from web_bytes import frame

from bench.protocols import MARKER, PROTOCOLS, TEXT_BYTES, Login, RefusedError, Role, text

HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
MASK = bytes(4)
# Protocol, bytes of the client, and the server's answer to each. The last answer accepts the login of anna.
LOGINS = {
    "json": (
        "json",
        (b'{"command": "login", "username": "anna", "password": "secret of anna"}\n',),
        (b'{"type":"users","users":["bob"],"joined":["bob"],"left":[]}\n{"type":"login","users":["bob","anna"]}\n',),
    ),
    "websocket": (
        "websocket",
        (
            HANDSHAKE,
            frame(TEXT_MESSAGE, b'{"command": "login", "username": "anna", "password": "secret of anna"}', mask=MASK),
        ),
        (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
            b'\x01\x7e\x00\xc8{"type":"users","users":["%s"]' % (b"x" * 172) + b'\x89\0\x80\1}\x81\x10{"type":"login"}',
        ),
    ),
    "frames": (
        "frames",
        (b"C\0\0\0\4anna", b"C\0\0\0\x0esecret of anna"),
        (b"C\0\0\0\x0cPASSWORD new", b"C\0\0\0\x0bWELCOME newD\0\0\0\x10PUBLIC bob 1 2\nx"),
    ),
    "raw": ("raw", (b"R",), (b".",)),
    "nats": (
        "nats",
        (b'CONNECT {"verbose":false,"pedantic":false,"echo":false}\r\nSUB c 1\r\nPING\r\n',),
        (b'INFO {"server_id":"X","max_payload":1048576}\r\nPONG\r\n',),
    ),
    "irc without a message of the day": (
        "irc",
        (b"NICK anna\r\nUSER anna 0 * :anna\r\n", b"JOIN #lobby\r\n"),
        (
            b":irc 001 anna :Welcome\r\n:irc 422 anna :MOTD File is missing\r\n",
            b":anna!a@h JOIN :#lobby\r\n:irc 353 anna = #lobby :anna\r\n:irc 366 anna #lobby :End of NAMES list\r\n",
        ),
    ),
    "irc with a ping": (
        "irc",
        (b"NICK anna\r\nUSER anna 0 * :anna\r\n", b"PONG :366\r\n", b"JOIN #lobby\r\n"),
        (b":irc NOTICE * :hello\r\nPING :366\r\n", b":irc 376 anna :End of MOTD\r\n", b":irc 366 anna #lobby :End\r\n"),
    ),
    "mqtt": (
        "mqtt",
        (b"\x10\x11\0\4MQTT\5\2\0\0\0\0\4anna", b"\x82\7\0\1\0\0\1c\4"),
        # The length of the first packet takes two bytes.
        (b"\x20\x83\1\0\0\x80" + b"\x21" * 128, b"\x30\4\0\1c\0\x90\4\0\1\0\0"),
    ),
}
REFUSALS = {
    "json error": ("json", b'{"type":"error","code":"wrong_password","message":"x"}\n', "wrong_password"),
    "json bye": ("json", b'{"type":"bye","reason":"not logged in"}\n', "not logged in"),
    "websocket": ("websocket", b"HTTP/1.1 429 Too Many Requests\r\n\r\n", "429"),
    "frames denied": ("frames", b"C\0\0\0\x0aDENIED No.", "DENIED No."),
    "frames error": ("frames", b"C\0\0\0\x16ERROR server_full Full", "server_full"),
    "nats": ("nats", b"-ERR 'maximum connections exceeded'\r\n", "maximum connections"),
    "irc": ("irc", b"ERROR :Closing link\r\n", "Closing link"),
    "mqtt connection": ("mqtt", b"\x20\3\0\x87\0", "87"),
    "mqtt subscription": ("mqtt", b"\x20\3\0\0\0\x90\4\0\1\0\x87", "87"),
}
TEXT = b"|0000000000000042" + b"x" * 47
FRAMES = {
    "json": b'{"command":"PM","message":"' + TEXT + b'"}\n',
    "json-tls": b'{"command":"PM","message":"' + TEXT + b'"}\n',
    "websocket": frame(TEXT_MESSAGE, b'{"command":"PM","message":"' + TEXT + b'"}', mask=MASK),
    "frames": b"C\0\0\0\2PMD\0\0\0\x40" + TEXT,
    "datagram": b"C\0\0\0\2PMD\0\0\0\x40" + TEXT,
    "raw": TEXT + b"\n",
    "nats": b"PUB c 64\r\n" + TEXT + b"\r\n",
    "irc": b"PRIVMSG #lobby :" + TEXT + b"\r\n",
    "mqtt": b"\x30\x44\0\1c\0" + TEXT,
}


def receive(login: Login, pieces: list[bytes]) -> tuple[bytes, bool]:
    """The answers to these pieces, and True if the login is then accepted."""
    answers = b""
    try:
        for piece in pieces:
            answers += login.send(piece)
    except StopIteration:
        return answers, True
    return answers, False


@pytest.mark.parametrize("is_whole", [True, False], ids=["whole", "byte by byte"])
@pytest.mark.parametrize(("protocol", "ours", "theirs"), LOGINS.values(), ids=LOGINS)
def test_login_of_each_protocol(
    protocol: str, ours: tuple[bytes, ...], theirs: tuple[bytes, ...], *, is_whole: bool
) -> None:
    login = PROTOCOLS[protocol].log_in("anna", Role.RECEIVER)
    assert next(login) == ours[0]
    for data, answer in zip(theirs, (*ours[1:], None), strict=True):
        pieces = [data] if is_whole else [data[i : i + 1] for i in range(len(data))]
        assert receive(login, pieces) == (answer or b"", answer is None)


@pytest.mark.parametrize(("protocol", "data", "reason"), REFUSALS.values(), ids=REFUSALS)
def test_refused_login_gives_the_reason(protocol: str, data: bytes, reason: str) -> None:
    login = PROTOCOLS[protocol].log_in("anna", Role.RECEIVER)
    next(login)
    with pytest.raises(RefusedError, match=reason):
        receive(login, [data])


def test_baseline_is_told_the_role() -> None:
    assert next(PROTOCOLS["raw"].log_in("anna", Role.SENDER)) == b"S"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_frame_contains_the_text_and_one_marker(protocol: str) -> None:
    assert text(42) == TEXT
    assert len(TEXT) == TEXT_BYTES
    assert PROTOCOLS[protocol].frame(TEXT) == FRAMES[protocol]
    assert FRAMES[protocol].count(MARKER) == 1
