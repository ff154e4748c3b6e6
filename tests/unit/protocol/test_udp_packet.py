"""Packets over UDP: their bytes, openings and cookies."""

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

COOKIE = bytes.fromhex("0123456789abcdef")


@pytest.mark.parametrize(
    ("data", "datagram"),
    [
        (bytes.fromhex("43 0000000000000000 00000000 616c696365"), Datagram(ord("C"), NO_SESSION, 0, b"alice")),
        (bytes.fromhex("64 0123456789abcdef 00000005 68"), Datagram(PIECE, 0x0123456789ABCDEF, 5, b"h")),
        (bytes.fromhex("41 ffffffffffffffff ffffffff"), Datagram(ACK, SESSION_MAX, 2**32 - 1)),
        (bytes.fromhex("ff 0000000000000001 00000002 ff00"), Datagram(255, 1, 2, b"\xff\0")),
        (b"C\0\0\0\0\0\0\0\1\0\0\0\2" + b"x" * 65_000, Datagram(ord("C"), 1, 2, b"x" * 65_000)),
    ],
    ids=lambda value: f"{value!r:.60}",
)
def test_packet_has_the_bytes_of_the_wire_page(data: bytes, datagram: Datagram) -> None:
    assert pack(datagram) == data
    assert unpack(data) == datagram


def test_packet_shorter_than_a_header_is_not_a_datagram() -> None:
    assert HEADER_BYTES == 13
    assert [unpack(b"\xff" * size) for size in range(13)] == [None] * 13
    assert READ_BYTES > 13 + 1_200, "a read detects a payload over the limit"


@pytest.mark.parametrize(
    ("payload", "opening"),
    [
        (b"alice", Opening(b"alice", None)),
        (b"alice bm-pm            ", Opening(b"alice bm-pm", None)),
        (b"alice 0123456789abcdef", Opening(b"alice", COOKIE)),
        (b"\nalice  bm-pm\t0123456789abcdef\r\n", Opening(b"alice  bm-pm", COOKIE)),
        (b"alice" + b" " * 1_100 + b"0123456789abcdef" + b" " * 79, Opening(b"alice", COOKIE)),
        # Padded with zero bytes; not UTF-8.
        (b"\xff\0 0123456789abcdef\0\0", Opening(b"\xff", COOKIE)),
        # The last of two cookies; a name that looks like a cookie.
        (b"0000000000000000 0123456789abcdef", Opening(b"0000000000000000", COOKIE)),
        (b" 0123456789abcdef ", Opening(b"0123456789abcdef", None)),
        # Almost a cookie: upper case, too short, too long, not separated, not the last word, not ASCII.
        (b"alice 0123456789ABCDEF", Opening(b"alice 0123456789ABCDEF", None)),
        (b"alice 0123456789abcde", Opening(b"alice 0123456789abcde", None)),
        (b"alice 0123456789abcdef0", Opening(b"alice 0123456789abcdef0", None)),
        (b"alice0123456789abcdef", Opening(b"alice0123456789abcdef", None)),
        (b"alice 0123456789abcdef x", Opening(b"alice 0123456789abcdef x", None)),
        ("alice \u0660123456789abcdef".encode(), Opening("alice \u0660123456789abcdef".encode(), None)),
        (b" " * 1_200, Opening(b"", None)),
    ],
    ids=lambda value: f"{value!r:.60}",
)
def test_opening_is_a_name_and_an_optional_cookie(payload: bytes, opening: Opening) -> None:
    assert read_opening(payload) == opening


@pytest.mark.parametrize("cookie", [COOKIE, bytes(8), b"\xff" * 8])
def test_cookie_returns_as_it_was_sent(cookie: bytes) -> None:
    payload = cookie_payload(cookie)
    assert payload == b"COOKIE " + cookie.hex().encode()
    assert OPENING_BYTES == len(payload) == 23, "no amplification: the request is as long as the answer"
    word = read_cookie(payload)
    assert word is not None
    assert read_opening(b"alice " + word) == Opening(b"alice", cookie)
