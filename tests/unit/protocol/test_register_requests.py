"""The dialect register, what a client sends: literal bytes and the requests that they are."""

import pytest

from chatprotocol.errors import ErrorCode
from chatprotocol.limits import BODY_MAX_BYTES, HEADER_SECTION_MAX_BYTES, SECTION_BODY_MAX_BYTES
from chatprotocol.requests import NotReceived, Received, Request, Send, Side, Unreadable
from chatprotocol.requests import Register as Claim
from chatprotocol.wire.register import LENGTH_UNITS, Register

from .samples import decode, held_bytes, pieces

HELLO = b"SEND bob\nContent-length: 5\n\nhello"
RECEIVED = b"RECEIVED bob\n\n"

ARABIC = "\u0645\u0631\u062d\u0628\u0627"  # 5 letters of 2 bytes
ARABIC_BYTES = b"\xd9\x85\xd8\xb1\xd8\xad\xd8\xa8\xd8\xa7"
GRIN = "\U0001f600"  # 4 bytes
GRIN_BYTES = b"\xf0\x9f\x98\x80"

either_length = pytest.mark.parametrize("length", LENGTH_UNITS)


def read(data: bytes, length: str = "bytes") -> list[Request]:
    """The requests of one connection that sends this and closes; fed whole and in pieces it must be the same."""
    found = []
    for size in (max(1, len(data)), 1, 2, 7, 4096):
        if len(data) / size > 3_000:
            continue
        decoder = Register(length=length).request_decoder()
        found.append([*decode(decoder, pieces(data, size)), *decoder.end()])
    for other in found[1:]:
        assert other == found[0], "in pieces it was something else than whole"
    return found[0]


def refusal_of(data: bytes, length: str = "bytes") -> Unreadable:
    """The one request of this data, which can't be read."""
    (refused,) = read(data, length)
    assert isinstance(refused, Unreadable)
    assert "\n" not in refused.reason
    assert len(refused.reason) < 300
    assert refused.nonce is None
    return refused


# --- each request, as docs/wire/register.md spells it: literal bytes, and what is read from and written for it ---

# Where bytes and characters come to the same.
BOTH_WAYS: list[tuple[bytes, Request]] = [
    # coming in
    (b"REGISTER TOSEND alice\n\n", Claim(Side.SENDING, "alice")),
    (b"REGISTER TORECV alice\n\n", Claim(Side.RECEIVING, "alice")),
    (b"REGISTER TOSEND Alice7\n\n", Claim(Side.SENDING, "Alice7")),
    # what is no good name is for the rules to say
    (b"REGISTER TORECV al ice\n\n", Claim(Side.RECEIVING, "al ice")),
    (b"REGISTER TOSEND al-ice!\n\n", Claim(Side.SENDING, "al-ice!")),
    (b"REGISTER TOSEND ALL\n\n", Claim(Side.SENDING, "ALL")),
    (b"REGISTER TOSEND " + b"a" * 900 + b"\n\n", Claim(Side.SENDING, "a" * 900)),
    (b"REGISTER TOSEND " + ARABIC_BYTES + b"\n\n", Claim(Side.SENDING, ARABIC)),
    # messages
    (b"SEND bob\nContent-length: 5\n\nhello", Send("bob", "hello")),
    (b"SEND ALL\nContent-length: 15\n\nhello everybody", Send("ALL", "hello everybody")),
    (b"SEND all\nContent-length: 1\n\nx", Send("all", "x")),
    (b"SEND no one\nContent-length: 1\n\nx", Send("no one", "x")),
    (b"SEND bob\nContent-length: 0\n\n", Send("bob", "")),
    (b"SEND bob\nContent-length: 3\n\na\nb", Send("bob", "a\nb")),
    (b"SEND bob\nContent-length: 17\n\none\ntwo\n\n\nthree\n\n", Send("bob", "one\ntwo\n\n\nthree\n\n")),
    (b"SEND bob\nContent-length: 4\n\n\n\nhi", Send("bob", "\n\nhi")),
    (b"SEND bob\nContent-length: 2\n\n\n\n", Send("bob", "\n\n")),
    (b"SEND bob\nContent-length: 6\n\na\r\n\r\nb", Send("bob", "a\r\n\r\nb")),
    (b"SEND bob\nContent-length: 4\n\n hi ", Send("bob", " hi ")),
    (b"SEND bob\nContent-length: 3\n\n\t \r", Send("bob", "\t \r")),
    (b"SEND bob\nContent-length: 3\n\n\0\x1b\x7f", Send("bob", "\0\x1b\x7f")),
    # texts that look like requests
    (b"SEND bob\nContent-length: 14\n\nRECEIVED bob\n\n", Send("bob", "RECEIVED bob\n\n")),
    (b"SEND bob\nContent-length: 33\n\n" + HELLO, Send("bob", HELLO.decode())),
    (b"SEND bob\nContent-length: 19\n\nContent-length: 1\n\n", Send("bob", "Content-length: 1\n\n")),
    # long ones
    (b"SEND bob\nContent-length: 255\n\n" + b"x" * 255, Send("bob", "x" * 255)),
    (b"SEND bob\nContent-length: 8192\n\n" + b"x" * 8192, Send("bob", "x" * BODY_MAX_BYTES)),
    (b"SEND bob\nContent-length: 16384\n\n" + b"x" * 16_384, Send("bob", "x" * 16_384)),
    # answers
    (b"RECEIVED bob\n\n", Received("bob")),
    (b"RECEIVED b o b\n\n", Received("b o b")),
    (b"ERROR 103 Header Incomplete\n\n", NotReceived()),
]

# The same request, with a length that counts bytes, and with one that counts characters.
COUNTED: list[tuple[Request, bytes, bytes]] = [
    (
        Send("bob", ARABIC),
        b"SEND bob\nContent-length: 10\n\n" + ARABIC_BYTES,
        b"SEND bob\nContent-length: 5\n\n" + ARABIC_BYTES,
    ),
    (
        Send("bob", GRIN),
        b"SEND bob\nContent-length: 4\n\n" + GRIN_BYTES,
        b"SEND bob\nContent-length: 1\n\n" + GRIN_BYTES,
    ),
    (
        Send("ALL", f"{GRIN} {ARABIC}\n\n{GRIN}\n"),
        b"SEND ALL\nContent-length: 22\n\n" + GRIN_BYTES + b" " + ARABIC_BYTES + b"\n\n" + GRIN_BYTES + b"\n",
        b"SEND ALL\nContent-length: 11\n\n" + GRIN_BYTES + b" " + ARABIC_BYTES + b"\n\n" + GRIN_BYTES + b"\n",
    ),
    # one sign to the eye, three characters
    (
        Send("bob", "\U0001f468\u200d\U0001f469"),
        b"SEND bob\nContent-length: 11\n\n\xf0\x9f\x91\xa8\xe2\x80\x8d\xf0\x9f\x91\xa9",
        b"SEND bob\nContent-length: 3\n\n\xf0\x9f\x91\xa8\xe2\x80\x8d\xf0\x9f\x91\xa9",
    ),
    # a letter, and an accent that is put on it
    (
        Send("bob", "e\u0301"),
        b"SEND bob\nContent-length: 3\n\ne\xcc\x81",
        b"SEND bob\nContent-length: 2\n\ne\xcc\x81",
    ),
    (
        Send("bob", "\ufeff\u20ac"),
        b"SEND bob\nContent-length: 6\n\n\xef\xbb\xbf\xe2\x82\xac",
        b"SEND bob\nContent-length: 2\n\n\xef\xbb\xbf\xe2\x82\xac",
    ),
    (
        Send(ARABIC, "x"),
        b"SEND " + ARABIC_BYTES + b"\nContent-length: 1\n\nx",
        b"SEND " + ARABIC_BYTES + b"\nContent-length: 1\n\nx",
    ),
    (
        Send("bob", GRIN * 2_048),
        b"SEND bob\nContent-length: 8192\n\n" + GRIN_BYTES * 2_048,
        b"SEND bob\nContent-length: 2048\n\n" + GRIN_BYTES * 2_048,
    ),
]

# What is read as well: programs that are out there send it, though ours doesn't.
FORGIVEN: list[tuple[bytes, Request]] = [
    # a header's end that is no empty line
    (b"REGISTER TOSEND alice\n \n", Claim(Side.SENDING, "alice")),
    (b"REGISTER TOSEND alice\r\n\r\n", Claim(Side.SENDING, "alice")),
    (b"REGISTER TOSEND alice\n\r\n", Claim(Side.SENDING, "alice")),
    (b"REGISTER TOSEND alice\r\n\n", Claim(Side.SENDING, "alice")),
    (b"REGISTER TOSEND alice\n \t \r\n", Claim(Side.SENDING, "alice")),
    (b"SEND bob\nContent-length: 5\n \nhello", Send("bob", "hello")),
    (b"SEND bob\r\nContent-length: 5\r\n\r\nhello", Send("bob", "hello")),
    (b"RECEIVED bob\n \n", Received("bob")),
    (b"ERROR 103 Header Incomplete\r\n\r\n", NotReceived()),
    # white space around names and words
    (b"REGISTER TOSEND alice \n\n", Claim(Side.SENDING, "alice")),
    (b"REGISTER TORECV alice \t \n\n", Claim(Side.RECEIVING, "alice")),
    (b"REGISTER TORECV  alice\n\n", Claim(Side.RECEIVING, "alice")),
    (b"REGISTER  TORECV alice\n\n", Claim(Side.RECEIVING, "alice")),
    (b" REGISTER TORECV alice\n\n", Claim(Side.RECEIVING, "alice")),
    (b"SEND bob \nContent-length: 5\n\nhello", Send("bob", "hello")),
    (b"SEND  bob\nContent-length: 5\n\nhello", Send("bob", "hello")),
    (b"RECEIVED bob \n\n", Received("bob")),
    # words in any case, names as they came
    (b"register tosend Alice\n\n", Claim(Side.SENDING, "Alice")),
    (b"Register ToRecv Alice\n\n", Claim(Side.RECEIVING, "Alice")),
    (b"send BoB\nContent-length: 5\n\nhello", Send("BoB", "hello")),
    (b"Received BoB\n\n", Received("BoB")),
    (b"Error 103 Header Incomplete\n\n", NotReceived()),
    # spellings of the length
    (b"SEND bob\nContent-Length: 5\n\nhello", Send("bob", "hello")),
    (b"SEND bob\ncontent-length: 5\n\nhello", Send("bob", "hello")),
    (b"SEND bob\nCONTENT-LENGTH: 5\n\nhello", Send("bob", "hello")),
    (b"SEND bob\nContent-length:5\n\nhello", Send("bob", "hello")),
    (b"SEND bob\nContent-length : 5\n\nhello", Send("bob", "hello")),
    (b"SEND bob\nContent-length:\t5 \t\r\n\nhello", Send("bob", "hello")),
    (b"SEND bob\nContent-length: 005\n\nhello", Send("bob", "hello")),
    (b"SEND bob\nContent-length: 5\nContent-Length: 5\n\nhello", Send("bob", "hello")),
    (b"SEND bob\nColour: blue\nContent-length: 5\nX-Content-length: 7\n\nhello", Send("bob", "hello")),
    # a space before the length, and one before the body that does not count
    (b"SEND bob\n Content-length: 5\n\n hello", Send("bob", "hello")),
    (b"SEND bob\n Content-length: 5\n \n hello", Send("bob", "hello")),
    (b"SEND bob\n\tContent-length: 5\n\n hello", Send("bob", "hello")),
    (b"SEND bob\n  Content-length: 5\r\n\r\n hello", Send("bob", "hello")),
    (b"SEND bob\n Content-length: 5\n\nhello", Send("bob", "hello")),
    (b"SEND bob\n Content-length: 5\n\n  hell", Send("bob", " hell")),
    (b"SEND bob\n Content-length: 5\n\n\thell", Send("bob", "\thell")),
    (b"SEND bob\n Content-length: 5\n\n\nhell", Send("bob", "\nhell")),
    (b"SEND bob\n Content-length: 0\n\n ", Send("bob", "")),
    (b"SEND bob\n Content-length: 1\n\n  ", Send("bob", " ")),
    # without the first one the second one counts
    (b"SEND bob\nContent-length: 5\n\n hell", Send("bob", " hell")),
    # what is not counted behind a body, or stands in front of a header
    (b"SEND bob\nContent-length: 5\n\nhello\n", Send("bob", "hello")),
    (b"SEND bob\nContent-length: 5\n\nhello\r\n", Send("bob", "hello")),
    (b"SEND bob\nContent-length: 5\n\nhello\n\n\n", Send("bob", "hello")),
    (b"SEND bob\nContent-length: 5\n\nhello \t\n", Send("bob", "hello")),
    (b"\n\n" + RECEIVED, Received("bob")),
    (b"\r\n \n" + RECEIVED + b"\n", Received("bob")),
    # an answer that says less
    (b"RECEIVED\n\n", Received("")),
    (b"RECEIVED \n\n", Received("")),
    (b"RECEIVED\r\n\r\n", Received("")),
    (b"ERROR 103 Header incomplete\n\n", NotReceived()),
    (b"ERROR 103\n\n", NotReceived()),
    (b"ERROR\r\n\r\n", NotReceived()),
    (b"ERROR\n\n", NotReceived()),
    (b"ERROR 102 Unable to send\n\n", NotReceived()),
    # no name at all: for the rules to say
    (b"REGISTER TOSEND\n\n", Claim(Side.SENDING, "")),
    (b"SEND\nContent-length: 5\n\nhello", Send("", "hello")),
    (b"SEND \nContent-length: 5\n\nhello", Send("", "hello")),
    # no text where there should be some, in a header
    (b"REGISTER TOSEND al\xffice\n\n", Claim(Side.SENDING, "al\ufffdice")),
    (b"SEND b\xffb\nContent-length: 5\n\nhello", Send("b\ufffdb", "hello")),
    # a body where there should be none
    (b"REGISTER TOSEND alice\nContent-length: 5\n\nhello", Claim(Side.SENDING, "alice")),
    (b"RECEIVED bob\nContent-length: 0\n\n", Received("bob")),
]

# Headers of which nothing can be made, though it is known where they end; a body that belongs to one goes with it.
UNKNOWN: list[bytes] = [
    b"HELLO\n\n",
    b"x\n\n",
    b"{}\n\n",
    b"REGISTERED TOSEND alice\n\n",
    b"FORWARD alice\nContent-length: 5\n\nhello",
    b"SENT bob\n\n",
    b"SENDbob\nContent-length: 5\n\nhello",
    b"SEND\tbob\nContent-length: 5\n\nhello",
    b"LIST\nall of them\n\n",
    b"\0\n\n",
    b"\xff\xff\n\n",
    # the word is known, what stands behind it isn't
    b"REGISTER\n\n",
    b"REGISTER alice\n\n",
    b"REGISTER TOBOTH alice\n\n",
    b"REGISTER TOSENDalice\n\n",
    b"REGISTER SENDING alice\n\n",
    b"REGISTER alice TOSEND\n\n",
    b"REGISTER " + b"x" * 900 + b"\n\n",
    b"x" * 900 + b"\n\n",
]

NOT_UTF8: list[bytes] = [
    b"SEND bob\nContent-length: 1\n\n\xff",
    b"SEND bob\nContent-length: 1\n\n\x80",
    b"SEND bob\nContent-length: 2\n\n\xc0\xaf",
    b"SEND bob\nContent-length: 3\n\n\xed\xa0\x80",
    b"SEND bob\nContent-length: 4\n\n\xf4\x90\x80\x80",
    b"SEND bob\nContent-length: 6\n\nhello\xff",
    b"SEND bob\nContent-length: 3\n\n\xe2\x82x",
    b"SEND bob\n Content-length: 2\n\n \xffx",
]
# The first bytes of a letter, and no more of it.
CUT_LETTERS: list[bytes] = [
    b"SEND bob\nContent-length: 1\n\n\xe2",
    b"SEND bob\nContent-length: 2\n\n\xe2\x82",
    b"SEND bob\nContent-length: 3\n\n\xf0\x9f\x98",
    b"SEND bob\nContent-length: 6\n\nhello\xd9",
]

# Headers behind which nobody can tell where the next one begins, with the code, and what stands in the reason.
BROKEN: list[tuple[bytes, ErrorCode, str]] = [
    (b"SEND bob\n\n", ErrorCode.BAD_REQUEST, "none"),
    (b"SEND bob\r\n\r\n", ErrorCode.BAD_REQUEST, "none"),
    (b"SEND bob\n \n", ErrorCode.BAD_REQUEST, "none"),
    (b"SEND\n\n", ErrorCode.BAD_REQUEST, "none"),
    (b"send ALL\n\n", ErrorCode.BAD_REQUEST, "none"),
    (b"SEND bob Content-length: 5\n\n", ErrorCode.BAD_REQUEST, "none"),
    (b"SEND bob\nContent-length 5\n\n", ErrorCode.BAD_REQUEST, "none"),
    (b"SEND bob\nContent-size: 5\n\n", ErrorCode.BAD_REQUEST, "none"),
    (b"SEND bob\nContent length: 5\n\n", ErrorCode.BAD_REQUEST, "none"),
    (b"SEND bob\nMy-Content-length: 5\n\n", ErrorCode.BAD_REQUEST, "none"),
    (b"SEND bob\nContent-length:\n\n", ErrorCode.BAD_REQUEST, "''"),
    (b"SEND bob\nContent-length: \n\n", ErrorCode.BAD_REQUEST, "''"),
    (b"SEND bob\nContent-length: -1\n\n", ErrorCode.BAD_REQUEST, "'-1'"),
    (b"SEND bob\nContent-length: -0\n\n", ErrorCode.BAD_REQUEST, "'-0'"),
    (b"SEND bob\nContent-length: +5\n\n", ErrorCode.BAD_REQUEST, "'+5'"),
    (b"SEND bob\nContent-length: 5.0\n\n", ErrorCode.BAD_REQUEST, "'5.0'"),
    (b"SEND bob\nContent-length: 5,000\n\n", ErrorCode.BAD_REQUEST, "'5,000'"),
    (b"SEND bob\nContent-length: 5_0\n\n", ErrorCode.BAD_REQUEST, "'5_0'"),
    (b"SEND bob\nContent-length: 1e1\n\n", ErrorCode.BAD_REQUEST, "'1e1'"),
    (b"SEND bob\nContent-length: 0x5\n\n", ErrorCode.BAD_REQUEST, "'0x5'"),
    (b"SEND bob\nContent-length: 5 bytes\n\n", ErrorCode.BAD_REQUEST, "'5 bytes'"),
    (b"SEND bob\nContent-length: 5 5\n\n", ErrorCode.BAD_REQUEST, "'5 5'"),
    (b"SEND bob\nContent-length:: 5\n\n", ErrorCode.BAD_REQUEST, "': 5'"),
    (b"SEND bob\nContent-length: five\n\n", ErrorCode.BAD_REQUEST, "'five'"),
    (b"SEND bob\nContent-length: 5\0\n\n", ErrorCode.BAD_REQUEST, r"'5\x00'"),
    (b"SEND bob\nContent-length: \xd9\xa5\n\n", ErrorCode.BAD_REQUEST, "a number"),
    (b"SEND bob\nContent-length: \xef\xbc\x95\n\n", ErrorCode.BAD_REQUEST, "a number"),
    (b"SEND bob\nContent-length: \xff\n\n", ErrorCode.BAD_REQUEST, "a number"),
    (b"SEND bob\nContent-length: " + b"x" * 900 + b"\n\n", ErrorCode.BAD_REQUEST, "x" * 32 + "'"),
    (b"SEND bob\nContent-length: 5\nContent-length: 6\n\n", ErrorCode.BAD_REQUEST, "2 different"),
    (b"SEND bob\nContent-length: 5\n content-Length: 05\n\n", ErrorCode.BAD_REQUEST, "2 different"),
    (b"SEND bob\nContent-length: 5\nContent-length: x\nContent-length:\n\n", ErrorCode.BAD_REQUEST, "3 different"),
    # where no body is needed, a length is nonetheless one or none
    (b"RECEIVED bob\nContent-length: -1\n\n", ErrorCode.BAD_REQUEST, "'-1'"),
    (b"REGISTER TOSEND bob\nContent-length: 1\nContent-length: 2\n\n", ErrorCode.BAD_REQUEST, "2 different"),
    (b"HELLO\nContent-length: x\n\n", ErrorCode.BAD_REQUEST, "'x'"),
    # over the limit
    (b"SEND bob\nContent-length: 65537\n\n", ErrorCode.TOO_LONG, "65,537"),
    (b"SEND bob\n Content-length: 65537\n\n", ErrorCode.TOO_LONG, "65,537"),
    (b"SEND bob\nContent-length: 4294967296\n\n", ErrorCode.TOO_LONG, "4,294,967,296"),
    (b"SEND bob\nContent-length: 99999999999999999999\n\n", ErrorCode.TOO_LONG, "65,536 bytes"),
    (b"HELLO\nContent-length: 65537\n\n", ErrorCode.TOO_LONG, "65,537"),
    (b"x" * 1_025, ErrorCode.BAD_REQUEST, "1,024 bytes"),
    (b"x" * 70_000, ErrorCode.BAD_REQUEST, "1,024 bytes"),
    (b"REGISTER TOSEND " + b"a" * 1_007 + b"\n\n", ErrorCode.BAD_REQUEST, "1,024 bytes"),
    (b"SEND bob\nContent-length: 5" + b" " * 999 + b"\n\n", ErrorCode.BAD_REQUEST, "1,024 bytes"),
    (b"SEND bob\nContent-length: 5\n" + b" " * 1_000 + b"\n", ErrorCode.BAD_REQUEST, "1,024 bytes"),
    (b"HELLO\n" + b"x\n" * 600, ErrorCode.BAD_REQUEST, "1,024 bytes"),
]


@either_length
@pytest.mark.parametrize(("data", "request_"), BOTH_WAYS, ids=lambda value: f"{value!r:.60}")
def test_a_section_is_read_as_its_request(data: bytes, request_: Request, length: str) -> None:
    assert read(data, length) == [request_]


@either_length
@pytest.mark.parametrize(("data", "request_"), BOTH_WAYS, ids=lambda value: f"{value!r:.60}")
def test_a_request_is_written_as_its_section(data: bytes, request_: Request, length: str) -> None:
    assert Register(length=length).encode_request(request_) == data


@pytest.mark.parametrize(("request_", "in_bytes", "in_characters"), COUNTED, ids=lambda value: f"{value!r:.60}")
def test_the_length_of_a_body_counts_bytes_or_characters_in_both_directions(
    request_: Request, in_bytes: bytes, in_characters: bytes
) -> None:
    for length, data in (("bytes", in_bytes), ("characters", in_characters)):
        assert Register(length=length).encode_request(request_) == data
        assert read(data + RECEIVED, length) == [request_, Received("bob")]


def test_a_length_counts_bytes_where_nothing_was_set() -> None:
    data = b"SEND bob\nContent-length: 4\n\n" + GRIN_BYTES

    assert Register().encode_request(Send("bob", GRIN)) == data
    assert Register().request_decoder().decode(data) == [Send("bob", GRIN)]


@either_length
@pytest.mark.parametrize(("data", "request_"), FORGIVEN, ids=repr)
def test_what_other_programs_write_a_little_differently_is_read(data: bytes, request_: Request, length: str) -> None:
    assert read(data, length) == [request_]


@either_length
@pytest.mark.parametrize(("data", "request_"), FORGIVEN, ids=repr)
def test_what_is_forgiven_costs_the_requests_around_it_nothing(data: bytes, request_: Request, length: str) -> None:
    assert read(HELLO + data + RECEIVED + data + HELLO, length) == [
        Send("bob", "hello"),
        request_,
        Received("bob"),
        request_,
        Send("bob", "hello"),
    ]


@either_length
@pytest.mark.parametrize(
    ("data", "request_"), [(data, request) for data, request in BOTH_WAYS + FORGIVEN if len(data) < 100], ids=repr
)
def test_a_request_cut_in_two_anywhere_is_the_same_request(data: bytes, request_: Request, length: str) -> None:
    for at in range(1, len(data)):
        decoder = Register(length=length).request_decoder()

        assert [*decoder.decode(data[:at]), *decoder.decode(data[at:])] == [request_], f"cut at {at}"
        assert not decoder.is_inside


@pytest.mark.parametrize(("request_", "in_bytes", "in_characters"), COUNTED[:-1], ids=lambda value: f"{value!r:.60}")
def test_a_body_cut_inside_a_letter_is_the_same_body(request_: Request, in_bytes: bytes, in_characters: bytes) -> None:
    for length, data in (("bytes", in_bytes), ("characters", in_characters)):
        for at in range(1, len(data)):
            decoder = Register(length=length).request_decoder()
            assert decoder.decode(data[:at]) == [], f"cut at {at}"
            assert decoder.decode(data[at:]) == [request_], f"cut at {at}"


def test_a_connection_sent_ahead_is_read_request_by_request() -> None:
    stream = (
        b"REGISTER TOSEND alice\n\n"
        b"SEND bob\nContent-length: 5\n\nhello"
        b"SEND ALL\r\nContent-Length: 15\r\n\r\nhello everybody\n"
        b"SEND bob\n Content-length: 4\n \n psst"
        b"REGISTER TORECV alice \n \n"
        b"RECEIVED bob\n\nRECEIVED\n\nERROR 103 Header incomplete\n\n"
    )

    assert read(stream) == [
        Claim(Side.SENDING, "alice"),
        Send("bob", "hello"),
        Send("ALL", "hello everybody"),
        Send("bob", "psst"),
        Claim(Side.RECEIVING, "alice"),
        Received("bob"),
        Received(""),
        NotReceived(),
    ]


# --- what is no request, behind which the next one is found ---


@either_length
@pytest.mark.parametrize("data", UNKNOWN, ids=lambda data: repr(data[:40]))
def test_a_header_of_another_kind_is_refused_and_the_connection_goes_on(data: bytes, length: str) -> None:
    refused = refusal_of(data, length)

    assert (refused.code, refused.closes) == (ErrorCode.UNKNOWN_COMMAND, False)
    assert "REGISTER" in refused.reason
    assert read(RECEIVED + data + HELLO, length) == [Received("bob"), refused, Send("bob", "hello")]


@either_length
@pytest.mark.parametrize("data", NOT_UTF8)
def test_a_body_that_is_not_utf8_is_refused_and_the_connection_goes_on(data: bytes, length: str) -> None:
    """A byte that is no character counts as one."""
    refused = refusal_of(data, length)

    assert (refused.code, refused.closes) == (ErrorCode.BAD_REQUEST, False)
    assert "UTF-8" in refused.reason
    assert read(RECEIVED + data + HELLO, length) == [Received("bob"), refused, Send("bob", "hello")]


@pytest.mark.parametrize("data", CUT_LETTERS)
def test_a_body_that_ends_inside_a_letter_is_not_utf8(data: bytes) -> None:
    refused = refusal_of(data)

    assert (refused.code, refused.closes) == (ErrorCode.BAD_REQUEST, False)
    assert "UTF-8" in refused.reason


@either_length
@pytest.mark.parametrize("data", CUT_LETTERS)
def test_a_letter_that_is_not_whole_costs_the_next_request_nothing(data: bytes, length: str) -> None:
    """Where characters are counted, it is known with the next byte that it is none."""
    refused, *found = read(data + HELLO, length)

    assert isinstance(refused, Unreadable)
    assert (refused.code, refused.closes) == (ErrorCode.BAD_REQUEST, False)
    assert found == [Send("bob", "hello")]


# --- where nobody can tell any more where the next header begins ---


@either_length
@pytest.mark.parametrize(("data", "code", "said"), BROKEN, ids=lambda value: f"{value!r:.60}")
@pytest.mark.parametrize("before", [b"", RECEIVED, HELLO + b"\n", UNKNOWN[0], NOT_UTF8[0]], ids=repr)
def test_a_header_that_is_none_closes_the_connection_and_what_was_before_it_counts(
    data: bytes, code: ErrorCode, said: str, before: bytes, length: str
) -> None:
    *found, refused = read(before + data, length)

    assert found == read(before, length)
    assert isinstance(refused, Unreadable)
    assert (refused.code, refused.closes) == (code, True)
    assert said in refused.reason
    assert "\n" not in refused.reason
    assert len(refused.reason) < 200


@either_length
@pytest.mark.parametrize("data", [data for data, _, _ in BROKEN], ids=lambda data: repr(data[:60]))
@pytest.mark.parametrize("behind", [HELLO, b"x" * 70_000, b"\n\n", b"SEND bob\n\n"], ids=lambda data: repr(data[:9]))
def test_nothing_is_read_behind_a_header_that_is_none_and_it_is_reported_once(
    data: bytes, behind: bytes, length: str
) -> None:
    together, apart = Register(length=length).request_decoder(), Register(length=length).request_decoder()

    assert len(together.decode(data + behind)) == 1
    assert len(apart.decode(data)) == 1
    for decoder in (together, apart):
        assert decoder.decode(b"") == []
        assert decoder.decode(behind) == []
        assert decoder.decode(HELLO) == []
        assert not decoder.is_inside
        assert decoder.end() == []


# --- size ---

# A name that fills a header of 1,024 bytes, with its empty line.
LONGEST_NAME = "a" * 1_006


@either_length
def test_a_header_of_1024_bytes_is_read(length: str) -> None:
    data = b"REGISTER TOSEND " + LONGEST_NAME.encode() + b"\n\n"
    assert len(data) == HEADER_SECTION_MAX_BYTES == 1_024

    assert read(data + RECEIVED, length) == [Claim(Side.SENDING, LONGEST_NAME), Received("bob")]


@pytest.mark.parametrize("end", [b"\n\n", b"\n \n", b"\r\n\r\n", b"\n" + b" " * 500 + b"\n"], ids=len)
def test_every_byte_of_a_header_counts_up_to_the_end_of_its_empty_line(end: bytes) -> None:
    name = b"a" * (1_024 - len(b"RECEIVED ") - len(end))

    assert read(b"RECEIVED " + name + end) == [Received(name.decode())]
    refused = refusal_of(b"RECEIVED a" + name + end)
    assert (refused.code, refused.closes) == (ErrorCode.BAD_REQUEST, True)
    assert "1,024 bytes" in refused.reason


@pytest.mark.parametrize("letter", [b"x", b"\0", b"\xff", b"x\n", b"\n x", GRIN_BYTES], ids=repr)
def test_a_header_that_does_not_end_is_refused_with_its_1025th_byte(letter: bytes) -> None:
    data = b"x" + (letter * 1_024)[:1_024]
    decoder = Register().request_decoder()

    assert decoder.decode(data[:-1]) == []
    assert decoder.is_inside
    (refused,) = decoder.decode(data[-1:])
    assert isinstance(refused, Unreadable)
    assert (refused.code, refused.closes) == (ErrorCode.BAD_REQUEST, True)


@pytest.mark.parametrize("white", [b"\n", b"\r\n", b" ", b"\t"])
def test_white_space_before_a_header_does_not_count(white: bytes) -> None:
    stream = white * 2_000 + b"REGISTER TOSEND " + LONGEST_NAME.encode() + b"\n\n" + white * 2_000

    assert read(stream) == [Claim(Side.SENDING, LONGEST_NAME)]


@pytest.mark.parametrize("space", [b"", b" "])
@pytest.mark.parametrize("piece_bytes", [1, 1_000, 65_535, 65_536, 65_537, 200_000])
def test_a_body_of_65536_bytes_is_read(piece_bytes: int, space: bytes) -> None:
    body = GRIN_BYTES * 16_383 + b"last"
    assert len(body) == SECTION_BODY_MAX_BYTES == 65_536
    data = b"SEND bob\n" + space + b"Content-length: 65536\n\n" + space + body

    requests = decode(Register().request_decoder(), pieces(data + RECEIVED, piece_bytes))

    assert requests == [Send("bob", GRIN * 16_383 + "last"), Received("bob")]


@pytest.mark.parametrize("space", [b"", b" "])
@pytest.mark.parametrize("piece_bytes", [1_000, 65_535, 65_536, 65_537, 200_000])
def test_a_body_of_16384_characters_is_read_however_many_bytes_they_take(piece_bytes: int, space: bytes) -> None:
    for letter in ("x", ARABIC[0], "\u20ac", GRIN):
        body = space + letter.encode() * 16_384
        data = b"SEND bob\n" + space + b"Content-length: 16384\n\n" + body + RECEIVED

        requests = decode(Register(length="characters").request_decoder(), pieces(data, piece_bytes))

        assert requests == [Send("bob", letter * 16_384), Received("bob")]


@pytest.mark.parametrize("piece_bytes", [1, 1_000, 65_535, 65_536, 65_537, 200_000])
@pytest.mark.parametrize(("length", "size"), [("bytes", 65_537), ("characters", 16_385), ("characters", 65_536)])
def test_a_body_over_the_limit_is_refused_though_all_of_it_may_have_come(
    piece_bytes: int, length: str, size: int
) -> None:
    """As many characters as may take more bytes than that."""
    data = b"SEND bob\nContent-length: %d\n\n" % size + b"x" * size + RECEIVED

    (refused,) = decode(Register(length=length).request_decoder(), pieces(data, piece_bytes))

    assert isinstance(refused, Unreadable)
    assert (refused.code, refused.closes) == (ErrorCode.TOO_LONG, True)
    assert "65,536 bytes" in refused.reason
    assert f"{size:,}" in refused.reason


@pytest.mark.parametrize("text", ["x" * 8_192, "x" * 8_193, GRIN * 2_048, GRIN * 2_049, ARABIC * 819])
@either_length
def test_a_message_that_is_a_little_too_long_is_for_the_rules_to_refuse(text: str, length: str) -> None:
    protocol = Register(length=length)

    assert protocol.request_decoder().decode(protocol.encode_request(Send("bob", text))) == [Send("bob", text)]


@either_length
@pytest.mark.parametrize("piece_bytes", [999, 100_000])
@pytest.mark.parametrize(
    "stream",
    [
        b"x" * 300_000,
        b"\n" * 300_000,
        b"\r\n \t" * 75_000,
        HELLO * 9_000,
        (HELLO + b"\n") * 9_000,
        b"SEND bob\nContent-length: 16384\n\n" * 9_000,
        b"SEND bob\n Content-length: 16384\n\n" + GRIN_BYTES * 16_383,
        b"SEND bob\n Content-length: 16384\n\n " + GRIN_BYTES * 16_383,
        b"SEND bob\n Content-length: 65536\n\n " + b"x" * 65_535,
        b"SEND bob\nContent-length: 65536\n\n" + b"\xf0" * 65_535,
        b"REGISTER TOSEND alice\n" * 10_000,
        b"x\n" + b" " * 300_000,
    ],
    ids=lambda data: repr(data[:40]),
)
def test_a_connection_is_held_in_no_more_than_a_header_and_a_body(stream: bytes, piece_bytes: int, length: str) -> None:
    decoder = Register(length=length).request_decoder()
    empty_bytes = held_bytes(decoder)

    for piece in pieces(stream, piece_bytes):
        closing = [each for each in decoder.decode(piece) if isinstance(each, Unreadable) and each.closes]
        held = held_bytes(decoder) - empty_bytes
        assert held <= HEADER_SECTION_MAX_BYTES + SECTION_BODY_MAX_BYTES
        if closing:
            break


# --- the end ---


@either_length
@pytest.mark.parametrize(
    "data",
    [
        b"REGISTER TOSEND alice\n\n",
        b"SEND bob\nContent-length: 5\n\nhello",
        b"SEND bob\n Content-length: 5\n \n hello",
        b"SEND bob\nContent-length: 2\n\n\n\n",
        b"SEND bob\nContent-length: 1\n\n\xff",
        b"RECEIVED\n\n",
    ],
)
@pytest.mark.parametrize("before", [b"", RECEIVED, HELLO + b"\n"])
def test_a_connection_that_ends_inside_a_section_left_a_bad_request(data: bytes, before: bytes, length: str) -> None:
    for size in range(1, len(data)):
        *found, refused = read(before + data[:size], length)

        assert found == read(before, length)
        assert isinstance(refused, Unreadable)
        assert (refused.code, refused.closes) == (ErrorCode.BAD_REQUEST, True)
        assert "ended inside" in refused.reason


@either_length
@pytest.mark.parametrize(
    "data", [b"", b"\n", b" \r\n\n", RECEIVED, HELLO, HELLO + b"\n", HELLO + b"\r\n \n", *NOT_UTF8[:2], *UNKNOWN[:2]]
)
def test_an_end_between_two_sections_is_no_error(data: bytes, length: str) -> None:
    for size in (max(1, len(data)), 1):
        decoder = Register(length=length).request_decoder()
        decode(decoder, pieces(data, size))

        assert not decoder.is_inside
        assert decoder.end() == []
