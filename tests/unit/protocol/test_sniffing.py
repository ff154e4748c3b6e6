"""The first bytes of a connection: whose are they?"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatprotocol.wire import (
    PROTOCOLS,
    SNIFF_MAX_BYTES,
    Register,
    Sniff,
    WireProtocol,
    by_name,
    protocols_with,
    sniff,
)
from chatprotocol.wire.json import Json


class Greeting(Json):
    """A dialect that begins with a word, so that its first byte alone does not decide."""

    def __init__(self, word: bytes) -> None:
        self.word = word

    def sniff(self, first: bytes) -> Sniff:
        if first.startswith(self.word):
            return Sniff.YES
        return Sniff.MORE if self.word.startswith(first) else Sniff.NO


MARK = b"\xef\xbb\xbf"
HELLO = Greeting(b"HELLO ")
HELP = Greeting(b"HELP ")


@pytest.mark.parametrize("first", [b"{", b'{"command":"login"', b"{\0", b"{" * 64, MARK + b"{"])
def test_a_brace_opens_json(first: bytes) -> None:
    assert sniff(first) is by_name("json")


@pytest.mark.parametrize("first", [b"C\0", b"C\0\0\0\5alice", b"C\0\0\0\0", b"C\0{", b"C\0\xff\xff\xff", b"C\0" * 32])
def test_a_command_whose_length_begins_with_a_zero_opens_frames(first: bytes) -> None:
    assert sniff(first) is by_name("frames")


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_byte_order_mark_alone_is_not_decided_yet(size: int) -> None:
    assert sniff(MARK[:size]) is Sniff.MORE


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


@pytest.mark.parametrize(
    "first",
    [
        b"REGISTER TOSEND alice\n\n",
        b"REGISTER TORECV alice\n\n",
        b"REGISTER ",
        b"REGISTER {",
        b"REGISTER \n\n",
        # out of place, and answered so
        b"SEND bob\nContent-length: 5\n\nhello",
        b"SEND ",
        b"RECEIVED bob\n\n",
        b"RECEIVED ",
        b"ERROR 103 Header incomplete\n\n",
        b"ERROR ",
        MARK + b"REGISTER TOSEND alice\n\n",
    ],
)
def test_a_word_of_register_and_a_space_opens_register(first: bytes) -> None:
    assert sniff(first) is by_name("register")
    assert sniff(first[:SNIFF_MAX_BYTES]) is by_name("register")


@pytest.mark.parametrize("word", [b"REGISTER", b"SEND", b"RECEIVED", b"ERROR"])
def test_a_word_of_register_is_not_decided_before_the_space_behind_it(word: bytes) -> None:
    for size in range(1, len(word) + 1):
        assert sniff(word[:size]) is Sniff.MORE, f"after {size} bytes"


@pytest.mark.parametrize(
    "first",
    [
        b"register TOSEND alice\n\n",
        b"Register ",
        b"send bob\n",
        b"r",
        b"s",
        b"e",
        b"REGISTERED ",
        b"REGISTER\n\n",
        b"REGISTER\t",
        b"REGISTER\0",
        b"REGISTERTOSEND",
        b"RECEIVE ",
        b"RECEIVED\n\n",
        b"REC ",
        b"RES",
        b"REX",
        b"RF",
        b"R ",
        b"SENT bob\n\n",
        b"SENDER ",
        b"SEND\n",
        b"S\0",
        b"ERRORS ",
        b"ERROR\n",
        b"EX",
        b"FORWARD alice\n",
        b"TOSEND alice\n\n",
        b"\nREGISTER TOSEND alice\n\n",
        b" REGISTER TOSEND alice\n\n",
        b'"REGISTER ',
    ],
)
def test_what_is_near_to_a_word_of_register_is_nobodys(first: bytes) -> None:
    assert sniff(first) is Sniff.NO


@pytest.mark.parametrize("word", ["SEND", "SENT"])
@pytest.mark.parametrize("length", ["bytes", "characters"])
def test_a_dialect_that_was_set_is_the_one_that_is_found(word: str, length: str) -> None:
    ours = Register(word, length)
    protocols = protocols_with(ours)

    assert sniff(b"REGISTER ", protocols) is ours
    assert by_name("register", protocols) is ours
    assert sniff(b"REGIST", protocols) is Sniff.MORE
    assert sniff(b"{", protocols) is by_name("json", protocols)
    assert sniff(b"C\0", protocols) is by_name("frames", protocols)
    assert [protocol.name for protocol in protocols] == [protocol.name for protocol in PROTOCOLS]


@pytest.mark.parametrize(
    "first",
    [
        b"x",
        b"\0",
        b"\n{",
        b" {",
        b"[",
        b'"',
        MARK + b"C\0",
        MARK + MARK + b"{",
        b"\xef\xbb{",
        b"GET / HTTP/1.1\r\n",
        b"SSH-2.0-x\r\n",
    ],
)
def test_a_first_byte_that_fits_nothing_is_nobodys(first: bytes) -> None:
    assert sniff(first) is Sniff.NO


@pytest.mark.parametrize(
    "first",
    [
        b"C",
        b"C\0",
        b"C\0\0\0\0\0\0\0\0\0\0\0\0alice",
        b"C\0\0\0\5alice",
        b"D",
        b"d",
        b"d\0\0\0\0",
        b"A",
        b"{",
        b"REGISTER ",
        b"x" * 64,
    ],
)
def test_nothing_on_tcp_opens_datagram(first: bytes) -> None:
    assert by_name("datagram").sniff(first) is Sniff.NO
    assert sniff(first, (by_name("datagram"),)) is Sniff.NO


def test_a_first_datagram_sent_over_tcp_is_taken_for_frames() -> None:
    assert sniff(b"C\0\0\0\0\0\0\0\0\0\0\0\0alice") is by_name("frames")


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
def test_what_one_dialect_denies_another_may_still_take(first: bytes, whose: WireProtocol | Sniff) -> None:
    assert sniff(first, (HELLO, HELP)) is whose


def test_the_first_dialect_that_says_yes_wins() -> None:
    first, second = Greeting(b"HE"), Greeting(b"HEL")

    assert sniff(b"HELLO", (first, second)) is first


@given(
    word=st.sampled_from([b"{", b"C\0", b"REGISTER ", b"SEND ", b"RECEIVED ", b"ERROR ", MARK + b"{", b""]),
    size=st.integers(0, SNIFF_MAX_BYTES),
    rest=st.binary(min_size=1, max_size=SNIFF_MAX_BYTES),
)
def test_what_is_decided_stays_so_with_more_bytes(word: bytes, size: int, rest: bytes) -> None:
    first = (word[:size] + rest)[:SNIFF_MAX_BYTES]
    answers = [sniff(first[:size]) for size in range(1, len(first) + 1)]
    decided = [answer for answer in answers if answer is not Sniff.MORE]

    assert answers == [Sniff.MORE] * (len(answers) - len(decided)) + decided
    assert all(answer is decided[0] for answer in decided)


def test_nobody_is_asked_for_more_bytes_for_ever() -> None:
    endless = Greeting(b"A" * 100)

    assert sniff(b"A" * (SNIFF_MAX_BYTES - 1), (endless,)) is Sniff.MORE
    assert sniff(b"A" * SNIFF_MAX_BYTES, (endless,)) is Sniff.NO


def test_every_dialect_has_a_name_of_its_own() -> None:
    names = [protocol.name for protocol in PROTOCOLS]

    assert len(set(names)) == len(names)


def test_there_is_no_dialect_of_an_unknown_name() -> None:
    with pytest.raises(KeyError):
        by_name("morse")
