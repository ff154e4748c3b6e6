"""Detection of the protocol by the first bytes of a connection."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatprotocol.wire import PROTOCOLS, SNIFF_MAX_BYTES, Register, Sniff, WireProtocol, by_name, protocols_with, sniff
from chatprotocol.wire.json import Json

MARK = b"\xef\xbb\xbf"


class Greeting(Json):
    """A protocol that begins with a word, so that its first byte alone does not decide."""

    def __init__(self, word: bytes) -> None:
        self.word = word

    def sniff(self, first: bytes) -> Sniff:
        if first.startswith(self.word):
            return Sniff.YES
        return Sniff.MORE if self.word.startswith(first) else Sniff.NO


HELLO = Greeting(b"HELLO ")
HELP = Greeting(b"HELP ")


@pytest.mark.parametrize(
    ("first", "name"),
    [
        (b"{", "json"),
        (b"{\0", "json"),
        (MARK + b"{", "json"),
        (b"C\0", "frames"),
        (b"C\0\0\0\5alice", "frames"),
        (b"C\0\xff\xff\xff", "frames"),
        (b"C\0\0\0\0\0\0\0\0\0\0\0\0alice", "frames"),  # a first datagram, sent over TCP
        (b"REGISTER TOSEND alice\n\n", "register"),
        (MARK + b"REGISTER TOSEND alice\n\n", "register"),
        # out of place, and answered in register
        (b"SEND bob\nContent-length: 5\n\nhello", "register"),
        (b"RECEIVED bob\n\n", "register"),
        (b"ERROR 103 Header incomplete\n\n", "register"),
        *(
            (word + b" / HTTP/1.1\r\n", "websocket")
            for word in (b"GET", b"HEAD", b"POST", b"PUT", b"OPTIONS", b"PATCH")
        ),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "websocket"),
        *((word + b" x\r\n", "irc") for word in (b"CAP", b"nick", b"Pass", b"USER", b"PING", b"QUIT", b"AUTHENTICATE")),
    ],
)
def test_first_bytes_select_the_protocol(first: bytes, name: str) -> None:
    assert sniff(first) is sniff(first[:SNIFF_MAX_BYTES]) is by_name(name)


@pytest.mark.parametrize(
    "first",
    [MARK, b"C", b"GET", b"PATCH", b"OPTIONS", b"REGISTER", b"SEND", b"RECEIVED", b"ERROR", b"nick", b"AUTHENTICATE"],
)
def test_prefix_of_an_opening_needs_more_bytes(first: bytes) -> None:
    for size in range(1, len(first) + 1):
        assert sniff(first[:size]) is Sniff.MORE, f"after {size} bytes"


@pytest.mark.parametrize(
    "first",
    [
        # no opening at all
        *(b"x", b"\0", b"\n{", b" {", b"[", MARK + b"C\0", MARK + MARK + b"{", b"\xef\xbb{"),
        # near to HTTP: another method, no space, a byte order mark
        *(b"DELETE / HTTP/1.1\r\n", b"GET/", b"get / HTTP/1.1", b"PUSH ", b"POST/", b"PRI*", MARK + b"GET /"),
        # near to frames: another kind, another case, a length over the limit
        *(b"CONNECT / HTTP/1.1\r\n", b"C\x01\0\0\0", b"C\xff", b"CC\0", b"D\0\0\0\5hello", b"c\0"),
        # near to irc: another command, no space after it
        *(b"JOIN #lobby\r\n", b"CAPS ", b"CAP\r\n", b"NICK:alice", b"PASS\0", b"@a=b NICK x"),
        # near to register: another case, another word, no space after the word, something before it
        *(b"register TOSEND alice\n\n", b"r", b"REGISTERED ", b"REGISTER\n\n", b"REGISTER\0", b"RECEIVE ", b"SENT bob"),
        *(b"RF", b"EX", b"FORWARD alice\n", b"TOSEND alice\n\n", b"\nREGISTER TOSEND alice\n\n", b'"REGISTER '),
    ],
)
def test_other_first_bytes_match_no_protocol(first: bytes) -> None:
    assert sniff(first) is Sniff.NO


@pytest.mark.parametrize("word", ["SEND", "SENT"])
@pytest.mark.parametrize("length", ["bytes", "characters"])
def test_configured_register_is_detected(word: str, length: str) -> None:
    ours = Register(word, length)
    protocols = protocols_with(ours)
    assert sniff(b"REGISTER ", protocols) is by_name("register", protocols) is ours
    assert [protocol.name for protocol in protocols] == [protocol.name for protocol in PROTOCOLS]


@pytest.mark.parametrize(
    ("first", "found"), [(b"HE", Sniff.MORE), (b"HELLO ", HELLO), (b"HELP me", HELP), (b"HEX", Sniff.NO)]
)
def test_protocols_are_asked_independently_and_the_first_match_wins(first: bytes, found: WireProtocol | Sniff) -> None:
    assert sniff(first, (HELLO, HELP, Greeting(b"HEL"))) is found


@given(
    word=st.sampled_from(
        [b"{", b"C\0", b"REGISTER ", b"SEND ", b"RECEIVED ", b"ERROR ", b"PATCH ", b"AUTHENTICATE ", MARK + b"{", b""]
    ),
    size=st.integers(0, SNIFF_MAX_BYTES),
    rest=st.binary(min_size=1, max_size=SNIFF_MAX_BYTES),
)
def test_decision_stays_with_more_bytes(word: bytes, size: int, rest: bytes) -> None:
    first = (word[:size] + rest)[:SNIFF_MAX_BYTES]
    answers = [sniff(first[:size]) for size in range(1, len(first) + 1)]
    decided = [answer for answer in answers if answer is not Sniff.MORE]
    assert answers == [Sniff.MORE] * (len(answers) - len(decided)) + decided
    assert all(answer is decided[0] for answer in decided)


def test_detection_ends_at_its_limit() -> None:
    endless = Greeting(b"A" * 100)
    assert sniff(b"A" * (SNIFF_MAX_BYTES - 1), (endless,)) is Sniff.MORE
    assert sniff(b"A" * SNIFF_MAX_BYTES, (endless,)) is Sniff.NO


def test_unknown_name_has_no_protocol() -> None:
    with pytest.raises(KeyError):
        by_name("morse")
