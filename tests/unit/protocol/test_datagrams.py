"""Datagrams: literal bytes, and what they are; and how a session is opened."""

import pytest

from chatprotocol.udp.packet import (
    ACK,
    HEADER_BYTES,
    NO_SESSION,
    OPENING_BYTES,
    PIECE,
    READ_BYTES,
    SESSION_MAX,
    Datagram,
    Opening,
    cookie_payload,
    pack,
    read_cookie,
    read_opening,
    unpack,
)

# --- the header, as docs/wire/datagram.md spells it: literal bytes, and what is read from and written for it ---

BOTH_WAYS: list[tuple[bytes, Datagram]] = [
    (
        bytes.fromhex("43 00 00 00 00 00 00 00 00 00 00 00 00 61 6c 69 63 65"),
        Datagram(ord("C"), NO_SESSION, 0, b"alice"),
    ),
    (
        bytes.fromhex("44 01 23 45 67 89 ab cd ef 00 00 00 05 68 69"),
        Datagram(ord("D"), 0x0123456789ABCDEF, 5, b"hi"),
    ),
    (bytes.fromhex("64 01 23 45 67 89 ab cd ef 00 00 00 06 68"), Datagram(PIECE, 0x0123456789ABCDEF, 6, b"h")),
    (bytes.fromhex("41 01 23 45 67 89 ab cd ef 00 00 00 05"), Datagram(ACK, 0x0123456789ABCDEF, 5)),
    # every byte of the numbers counts, the first most
    (bytes.fromhex("41 00 00 00 00 00 00 00 01 00 00 00 01"), Datagram(ACK, 1, 1)),
    (bytes.fromhex("41 01 00 00 00 00 00 00 00 01 00 00 00"), Datagram(ACK, 2**56, 2**24)),
    (bytes.fromhex("41 80 00 00 00 00 00 00 00 80 00 00 00"), Datagram(ACK, 2**63, 2**31)),
    (bytes.fromhex("41 ff ff ff ff ff ff ff ff ff ff ff ff"), Datagram(ACK, SESSION_MAX, 2**32 - 1)),
    # any kind, and any payload: what they are good for is for others to say
    (bytes.fromhex("00 00 00 00 00 00 00 00 00 00 00 00 00"), Datagram(0, 0, 0)),
    (bytes.fromhex("ff 00 00 00 00 00 00 00 01 00 00 00 02 ff 00"), Datagram(255, 1, 2, b"\xff\0")),
    (b"A\0\0\0\0\0\0\0\1\0\0\0\2more", Datagram(ACK, 1, 2, b"more")),
    (b"C\0\0\0\0\0\0\0\1\0\0\0\2" + b"x" * 1_200, Datagram(ord("C"), 1, 2, b"x" * 1_200)),
    (b"C\0\0\0\0\0\0\0\1\0\0\0\2" + b"x" * 65_000, Datagram(ord("C"), 1, 2, b"x" * 65_000)),
]


@pytest.mark.parametrize(("data", "datagram"), BOTH_WAYS, ids=lambda value: f"{value!r:.60}")
def test_a_packet_is_read_as_its_datagram(data: bytes, datagram: Datagram) -> None:
    assert unpack(data) == datagram


@pytest.mark.parametrize(("data", "datagram"), BOTH_WAYS, ids=lambda value: f"{value!r:.60}")
def test_a_datagram_is_written_as_its_packet(data: bytes, datagram: Datagram) -> None:
    assert pack(datagram) == data


@pytest.mark.parametrize("whole", [b"C" + b"\0" * 12, b"A" * 13, b"\xff" * 13, b"GET / HTTP/1"], ids=repr)
def test_fewer_than_13_bytes_are_no_datagram(whole: bytes) -> None:
    for size in range(13):
        assert unpack(whole[:size]) is None


def test_a_datagram_has_13_bytes_before_its_payload_and_one_that_is_too_long_is_seen_to_be() -> None:
    assert HEADER_BYTES == 13
    assert READ_BYTES > 13 + 1_200


def test_the_kinds_are_letters() -> None:
    assert bytes((PIECE, ACK)) == b"dA"


# --- who comes in ---

COOKIE = bytes.fromhex("0123456789abcdef")

OPENINGS: list[tuple[bytes, Opening]] = [
    (b"alice", Opening(b"alice", None)),
    (b"alice" + b" " * 18, Opening(b"alice", None)),
    (b"alice bm-pm", Opening(b"alice bm-pm", None)),
    (b"alice bm-pm            ", Opening(b"alice bm-pm", None)),
    (b"alice 0123456789abcdef", Opening(b"alice", COOKIE)),
    (b"alice bm-pm 0123456789abcdef", Opening(b"alice bm-pm", COOKIE)),
    # with any white space around, as long as the words are apart
    (b"alice 0123456789abcdef ", Opening(b"alice", COOKIE)),
    (b" alice \t 0123456789abcdef\r\n", Opening(b"alice", COOKIE)),
    (b"\nalice  bm-pm\n0123456789abcdef\n", Opening(b"alice  bm-pm", COOKIE)),
    (b"alice" + b" " * 1_100 + b"0123456789abcdef" + b" " * 79, Opening(b"alice", COOKIE)),
    # the last one of two
    (b"alice 0000000000000000 0123456789abcdef", Opening(b"alice 0000000000000000", COOKIE)),
    (b"0000000000000000 0123456789abcdef", Opening(b"0000000000000000", COOKIE)),
    # a name may look like one
    (b"0123456789abcdef", Opening(b"0123456789abcdef", None)),
    (b"0123456789abcdef       ", Opening(b"0123456789abcdef", None)),
    (b" 0123456789abcdef", Opening(b"0123456789abcdef", None)),
    # what is near to one
    (b"alice 0123456789ABCDEF", Opening(b"alice 0123456789ABCDEF", None)),
    (b"alice 0123456789abcde", Opening(b"alice 0123456789abcde", None)),
    (b"alice 0123456789abcdef0", Opening(b"alice 0123456789abcdef0", None)),
    (b"alice 0123456789abcdeg", Opening(b"alice 0123456789abcdeg", None)),
    (b"alice0123456789abcdef", Opening(b"alice0123456789abcdef", None)),
    (b"alice 0123456789abcdef x", Opening(b"alice 0123456789abcdef x", None)),
    (b"alice 01234567 89abcdef", Opening(b"alice 01234567 89abcdef", None)),
    ("alice \u0660123456789abcdef".encode(), Opening("alice \u0660123456789abcdef".encode(), None)),
    # whether it is a name is not looked at here
    (b"", Opening(b"", None)),
    (b" " * 1_200, Opening(b"", None)),
    (b"\xff\0 0123456789abcdef\0\0", Opening(b"\xff", COOKIE)),
    (b"COOKIE 0123456789abcdef", Opening(b"COOKIE", COOKIE)),
    (b"x " * 600, Opening(b"x " * 599 + b"x", None)),
]


@pytest.mark.parametrize(("payload", "opening"), OPENINGS, ids=lambda value: f"{value!r:.60}")
def test_an_opening_is_who_comes_in_and_the_cookie_if_there_is_one(payload: bytes, opening: Opening) -> None:
    assert read_opening(payload) == opening


# --- cookies ---


@pytest.mark.parametrize(
    ("cookie", "payload"),
    [
        (COOKIE, b"COOKIE 0123456789abcdef"),
        (bytes(8), b"COOKIE 0000000000000000"),
        (b"\xff" * 8, b"COOKIE ffffffffffffffff"),
    ],
)
def test_a_cookie_goes_out_as_16_letters_and_comes_back_as_it_was(cookie: bytes, payload: bytes) -> None:
    assert cookie_payload(cookie) == payload
    assert read_cookie(payload) == payload[7:]
    assert read_opening(b"alice " + payload[7:]) == Opening(b"alice", cookie)


@pytest.mark.parametrize(
    ("payload", "word"),
    [
        # another server's may be longer, or no hexadecimal number: it is sent back as it is
        (b"COOKIE x", b"x"),
        (b"COOKIE 0123456789abcdef0123456789abcdef", b"0123456789abcdef0123456789abcdef"),
        (b"COOKIE", None),
        (b"COOKIE ", None),
        (b"cookie 0123456789abcdef", None),
        (b"COOKIES 0123456789abcdef", None),
        (b" COOKIE 0123456789abcdef", None),
        (b"COOKIE\n0123456789abcdef", None),
        (b"ERROR server_full The server is full.", None),
        (b"PASSWORD new", None),
        (b"", None),
    ],
)
def test_a_client_knows_a_cookie_when_it_sees_one(payload: bytes, word: bytes | None) -> None:
    assert read_cookie(payload) == word


def test_an_opening_is_as_long_as_its_answer_of_23_bytes() -> None:
    assert OPENING_BYTES == len(b"COOKIE 0123456789abcdef") == 23
