"""The first bytes of a connection: whose are they?"""

import pytest

from chatprotocol.dialects import DIALECTS, SNIFF_MAX_BYTES, Dialect, Sniff, by_name, sniff
from chatprotocol.dialects.json import Json


class Greeting(Json):
    """A dialect that begins with a word, so that its first byte alone does not decide."""

    def __init__(self, word: bytes) -> None:
        self.word = word

    def sniff(self, first: bytes) -> Sniff:
        if first.startswith(self.word):
            return Sniff.YES
        return Sniff.MORE if self.word.startswith(first) else Sniff.NO


HELLO = Greeting(b"HELLO ")
HELP = Greeting(b"HELP ")


@pytest.mark.parametrize("first", [b"{", b"{}", b'{"command":"login"', b"{\0", b"{" * 64])
def test_a_brace_opens_json(first: bytes) -> None:
    assert sniff(first) is by_name("json")


@pytest.mark.parametrize("first", [b"C\0", b"C\0\0\0\5alice", b"C\0\0\0\0", b"C\0{", b"C\0\xff\xff\xff", b"C\0" * 32])
def test_a_command_whose_length_begins_with_a_zero_opens_frames(first: bytes) -> None:
    assert sniff(first) is by_name("frames")


def test_a_c_alone_is_not_decided_yet() -> None:
    assert sniff(b"C") is Sniff.MORE


@pytest.mark.parametrize(
    "first",
    [
        b"CX",
        b"CONNECT / HTTP/1.1\r\n",
        b"C\x01\0\0\0",
        b"C\xff",
        b"CC\0",
        b"D",
        b"D\0",
        b"D\0\0\0\5hello",
        b"c\0",
    ],
)
def test_what_is_near_to_a_first_command_is_nobodys(first: bytes) -> None:
    assert sniff(first) is Sniff.NO


@pytest.mark.parametrize("first", [b"x", b"\0", b"\n{", b" {", b"[", b'"', b"\xef\xbb\xbf{", b"GET / HTTP/1.1\r\n"])
def test_a_first_byte_that_fits_nothing_is_nobodys(first: bytes) -> None:
    assert sniff(first) is Sniff.NO


@pytest.mark.parametrize(
    ("first", "whose"),
    [
        (b"H", Sniff.MORE),
        (b"HEL", Sniff.MORE),
        (b"HELL", Sniff.MORE),
        (b"HELLO ", HELLO),
        (b"HELP me", HELP),
        (b"HEX", Sniff.NO),
        (b"X", Sniff.NO),
    ],
)
def test_what_one_dialect_denies_another_may_still_take(first: bytes, whose: Dialect | Sniff) -> None:
    assert sniff(first, (HELLO, HELP)) is whose


def test_the_first_dialect_that_says_yes_wins() -> None:
    first, second = Greeting(b"HE"), Greeting(b"HEL")

    assert sniff(b"HELLO", (first, second)) is first


def test_nobody_is_asked_for_more_bytes_for_ever() -> None:
    endless = Greeting(b"A" * 100)

    assert sniff(b"A" * (SNIFF_MAX_BYTES - 1), (endless,)) is Sniff.MORE
    assert sniff(b"A" * SNIFF_MAX_BYTES, (endless,)) is Sniff.NO


def test_every_dialect_has_a_name_of_its_own() -> None:
    names = [dialect.name for dialect in DIALECTS]

    assert len(set(names)) == len(names)


def test_there_is_no_dialect_of_an_unknown_name() -> None:
    with pytest.raises(KeyError):
        by_name("morse")
