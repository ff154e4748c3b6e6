"""The wire protocol register: literal bytes, and the requests and events that they are.

Round trips, pieces of any size, memory and random bytes are in test_conformance, which runs with both length units.
"""

import codecs
from collections.abc import Callable
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from raw_steps import encode_request, new_server, receive

from chatprotocol.errors import ErrorCode, ProtocolError
from chatprotocol.events import (
    AccountKind,
    Event,
    PublicBatch,
    PublicMessage,
    Refused,
    Sent,
    SentStatus,
    Welcome,
)
from chatprotocol.requests import Acknowledge, GuestLogin, Request, Say, Side, Unreadable, Whisper
from chatprotocol.wire import ServerProtocol
from chatprotocol.wire.base import Forwarded, Ready
from chatprotocol.wire.register import DELIVERED_WORDS, FORWARD_MAX_LEAST_BYTES, LENGTH_UNITS, Register

from .samples import decode, pieces, read_whole_and_cut

HELLO = b"SEND bob\nContent-length: 5\n\nhello"
FORWARD = b"FORWARD alice\nContent-length: 5\n\nhello"
GRIN = "\U0001f600"  # 4 bytes
MIXED = f"a{GRIN}\n\n\u0645\u20ac\n"  # 13 bytes, 7 characters
MIXED_BYTES = b"a\xf0\x9f\x98\x80\n\n\xd9\x85\xe2\x82\xac\n"

either_length = pytest.mark.parametrize("length", LENGTH_UNITS)


def read(data: bytes, length: str = "bytes") -> list[Request]:
    return read_whole_and_cut(Register(length=length), data)


def read_events(data: bytes, length: str = "bytes") -> list[Event]:
    """The events, which must be the same byte by byte."""
    whole, in_pieces = (
        decode(Register(length=length).client().event_decoder(), pieces(data, n)) for n in (len(data), 1)
    )
    assert whole == in_pieces
    return whole


# --- the bytes of docs/wire/register.md ---

REQUESTS: list[tuple[Request, bytes]] = [
    (GuestLogin(Side.SENDING, "alice"), b"REGISTER TOSEND alice\n\n"),
    (GuestLogin(Side.RECEIVING, "Alice7"), b"REGISTER TORECV Alice7\n\n"),
    (GuestLogin(Side.SENDING, "not a name"), b"REGISTER TOSEND not a name\n\n"),
    (Whisper("bob", "hello"), HELLO),
    (Say(""), b"SEND ALL\nContent-length: 0\n\n"),
    (Whisper("bob", HELLO.decode()), b"SEND bob\nContent-length: 33\n\n" + HELLO),
    (Whisper("bob", "\n\r\n \0\x1b"), b"SEND bob\nContent-length: 6\n\n\n\r\n \0\x1b"),
    (Whisper("bob", "x" * 8_193), b"SEND bob\nContent-length: 8193\n\n" + b"x" * 8_193),
    (Acknowledge("bob"), b"RECEIVED bob\n\n"),
    (Acknowledge(None), b"ERROR 103 Header Incomplete\n\n"),
]

DELIVERED = Sent(18, SentStatus.SENT)
WELCOME = Welcome(account=AccountKind.GUEST, username="Alice", users=(), last_id=None)
LOGIN = b"REGISTER TORECV alice\n\n"


@either_length
@pytest.mark.parametrize(("request_", "data"), REQUESTS, ids=lambda value: f"{value!r:.40}")
def test_request_bytes(request_: Request, data: bytes, length: str) -> None:
    assert encode_request(Register(length=length), request_) == data
    assert read(data + data, length) == [request_, request_]


@either_length
@pytest.mark.parametrize("text", ["hello", "", FORWARD.decode()])
def test_message_bytes(text: str, length: str) -> None:
    data = f"FORWARD alice\nContent-length: {len(text)}\n\n{text}".encode()
    assert Register(length=length).encode_all([PublicMessage(1, 5, "alice", text)]) == data
    assert read_events(data + data, length) == [Forwarded("alice", text)] * 2


# The section, and the error that answers it with a code of its own, before and after the registration.
ANSWERS: list[tuple[bytes, str, str]] = [
    (b"SEND BoB\nContent-length: 5\n\nhello", "101 No user registered", "102 Unable to send"),
    (b"RECEIVED bob\n\n", "101 No user registered", "103 Header incomplete"),
    (b"HELLO\n\n", "101 No user registered", "102 Unable to send"),
    (b"SEND bob\nContent-length: 1\n\n\xff", "101 No user registered", "102 Unable to send"),
    (b"SEND bob\n\n", "101 No user registered", "103 Header incomplete"),
]


@pytest.mark.parametrize("side", Side)
@pytest.mark.parametrize(("section", "before", "after"), ANSWERS, ids=lambda value: f"{value!r:.40}")
def test_number_of_an_error_depends_on_the_request_and_the_registration(
    section: bytes, before: str, after: str, side: Side
) -> None:
    """The reason is for the log: clients compare exactly."""
    for is_registered, text in ((False, before), (True, after)):
        server = Register().server()
        if is_registered:
            for _ in server.receive(f"REGISTER {side} alice\n\n".encode()):
                server.encode([WELCOME])
        (request,) = answered(server, section, Refused(ErrorCode.INTERNAL, "No.", "nonce"))
        assert request.answer == f"ERROR {text}\n\n".encode()
        assert isinstance(request.request, Unreadable) or is_registered
    assert server.encode([Refused(ErrorCode.BAD_REQUEST, "Too slow.")]) == b"ERROR 103 Header incomplete\n\n"


class Answered(NamedTuple):
    request: Request
    answer: bytes


def answered(server: ServerProtocol, data: bytes, answer: Event) -> list[Answered]:
    """The requests of the data, each answered with this event before the next one is taken."""
    return [Answered(request, server.encode([answer])) for request in server.receive(data)]


@pytest.mark.parametrize("code", [ErrorCode.BAD_USERNAME, ErrorCode.NOT_LOGGED_IN])
def test_error_of_the_registration_has_its_own_number(code: ErrorCode) -> None:
    """The name may be tried again; a second registration is refused."""
    errors = {
        ErrorCode.BAD_USERNAME: b"ERROR 100 Malformed username\n\n",
        ErrorCode.NOT_LOGGED_IN: b"ERROR 101 No user registered\n\n",
    }
    server = Register().server()
    login = GuestLogin(Side.RECEIVING, "alice")
    assert answered(server, LOGIN, Refused(code, "No.")) == [(login, errors[code])]
    assert answered(server, LOGIN, WELCOME) == [(login, b"REGISTERED TORECV alice\n\n")], "as the client spelled it"
    ((refused, answer),) = answered(server, LOGIN, Refused(ErrorCode.BAD_USERNAME, "No."))
    check_unreadable(refused, ErrorCode.BAD_USERNAME, "already", closes=False)
    assert answer == errors[ErrorCode.BAD_USERNAME]


def test_each_side_has_its_requests() -> None:
    sending, receiving = Register().server(), Register().server()
    assert answered(sending, b"REGISTER TOSEND alice\n\n", WELCOME)[0].answer == b"REGISTERED TOSEND alice\n\n"
    answered(receiving, LOGIN, WELCOME)
    for server in (sending, receiving):
        assert receive(server, b"RECEIVED bob\n\n") == [Acknowledge("bob")]
    assert receive(sending, HELLO) == [Whisper("bob", "hello")]
    assert receive(sending, b"SEND all\nContent-length: 5\n\nhello") == [Say("hello")]
    (refused,) = receive(receiving, HELLO)
    check_unreadable(refused, ErrorCode.BAD_REQUEST, "other one", closes=False)


@pytest.mark.parametrize("code", ErrorCode)
def test_peer_that_is_not_registered_gets_one_of_two_errors(code: ErrorCode) -> None:
    """And without TLS, if that is required, a third one: no session encodes it."""
    error = "100 Malformed username" if code is ErrorCode.BAD_USERNAME else "101 No user registered"
    refused = [Refused(code, "No.", "nonce")]
    assert Register().server().encode(refused) == f"ERROR {error}\n\n".encode()
    error = "101 TLS required" if code is ErrorCode.TLS_REQUIRED else error
    assert Register().encode_all(refused) == f"ERROR {error}\n\n".encode()


@pytest.mark.parametrize("word", DELIVERED_WORDS)
def test_delivered_word_is_a_setting(word: str) -> None:
    server = Register(word).server()
    answered(server, b"REGISTER TOSEND alice\n\n", WELCOME)
    sections = b"SEND BoB\nContent-length: 2\n\nhiSEND All\nContent-length: 2\n\nhi"
    answers = [each.answer for each in answered(server, sections, DELIVERED)]
    assert answers == [f"{word} BoB\n\n".encode(), f"{word} All\n\n".encode()]
    assert read_events(answers[0]) == [Sent(0, SentStatus.SENT)]


@pytest.mark.parametrize(("protocol", "size"), [(Register(), b"13"), (Register(length="characters"), b"7")])
def test_length_unit_is_a_setting(protocol: Register, size: bytes) -> None:
    """In both directions."""
    body = b"\nContent-length: " + size + b"\n\n" + MIXED_BYTES
    assert encode_request(protocol, Whisper("bob", MIXED)) == b"SEND bob" + body
    assert protocol.encode_all([PublicBatch(9, 5, "alice", (MIXED,))]) == b"FORWARD alice" + body
    for at in range(len(body)):
        requests, events = new_server(protocol), protocol.client().event_decoder()
        assert receive(requests, b"SEND bob" + body[:at], body[at:] + HELLO) == [
            Whisper("bob", MIXED),
            Whisper("bob", "hello"),
        ]
        assert decode(events, [b"FORWARD alice" + body[:at], body[at:]]) == [Forwarded("alice", MIXED)]


# --- accepted deviations ---

ACCEPTED_REQUESTS: list[tuple[bytes, Request]] = [
    # the end of a header
    (b"REGISTER TOSEND alice\n \n", GuestLogin(Side.SENDING, "alice")),
    (b"SEND bob\r\nContent-length: 5\r\n\r\nhello", Whisper("bob", "hello")),
    # case, and white space around names
    (b"register ToSend  Alice \t\n\n", GuestLogin(Side.SENDING, "Alice")),
    (b" send  BoB \nCONTENT-LENGTH:5\n\nhello", Whisper("BoB", "hello")),
    # the length
    (b"SEND bob\nContent-length:\t005 \n\nhello", Whisper("bob", "hello")),
    (b"SEND bob\nContent-length: 5\nContent-Length: 5\n\nhello", Whisper("bob", "hello")),
    (b"SEND bob\nX-Content-length: 7\nContent-length: 5\nDate: today\n\nhello", Whisper("bob", "hello")),
    # a space before the length, and then one before the body
    (b"SEND bob\n Content-length: 5\n \n hello", Whisper("bob", "hello")),
    (b"SEND bob\n Content-length: 5\n\n  hell", Whisper("bob", " hell")),
    (b"SEND bob\n Content-length: 5\n\nhello", Whisper("bob", "hello")),
    (b"SEND bob\n Content-length: 0\n\n ", Whisper("bob", "")),
    (b"SEND bob\nContent-length: 5\n\n hell", Whisper("bob", " hell")),
    # white space between sections
    (b"\n\r\n \nSEND bob\nContent-length: 5\n\nhello\r\n\n", Whisper("bob", "hello")),
    # answers
    (b"RECEIVED\n\n", Acknowledge("")),
    (b"error 5 whatever\r\n\r\n", Acknowledge(None)),
    # no name, no UTF-8 in a header, a body that is not needed
    (b"SEND\nContent-length: 5\n\nhello", Whisper("", "hello")),
    (b"SEND b\xffb\nContent-length: 5\n\nhello", Whisper("b\ufffdb", "hello")),
    (b"REGISTER TOSEND alice\nContent-length: 5\n\nhello", GuestLogin(Side.SENDING, "alice")),
]

# From other servers.
ACCEPTED_EVENTS: list[tuple[bytes, Event]] = [
    (b"Sent bob \r\n\r\n", Sent(0, SentStatus.SENT)),
    (b"\xef\xbb\xbfSEND\n\n", Sent(0, SentStatus.SENT)),
    # the number decides
    (b"Error 103 Unable to send\n\n", Refused(ErrorCode.BAD_REQUEST, "Unable to send")),
    (b"ERROR 100\r\n\r\n", Refused(ErrorCode.BAD_USERNAME, "")),
    (b"ERROR 1000 Malformed username\n\n", Refused(ErrorCode.INTERNAL, "Malformed username")),
    (b"ERROR\n\n", Refused(ErrorCode.INTERNAL, "")),
    (b"registered  TORECV  Alice \n\n", WELCOME),
    (b"REGISTERED tosend alice\n\n", Ready()),
    (b"FORWARD alice\n Content-length: 5\n\n hello", Forwarded("alice", "hello")),
    (b"FORWARD al\xffice\nContent-length: 4\n\nhel\xff\r\n", Forwarded("al\ufffdice", "hel\ufffd")),
]


@either_length
@pytest.mark.parametrize(("data", "request_"), ACCEPTED_REQUESTS, ids=repr)
def test_deviating_request_is_accepted(data: bytes, request_: Request, length: str) -> None:
    """The requests around it are not affected, and it may be cut anywhere."""
    assert read(HELLO + data + HELLO, length) == [Whisper("bob", "hello"), request_, Whisper("bob", "hello")]
    for at in range(1, len(data)):
        assert receive(new_server(Register(length=length)), *[data[:at], data[at:]]) == [request_]


@either_length
@pytest.mark.parametrize(("data", "event"), ACCEPTED_EVENTS, ids=repr)
def test_deviating_event_is_accepted(data: bytes, event: Event, length: str) -> None:
    assert read_events(data + FORWARD, length) == [event, Forwarded("alice", "hello")]


@pytest.mark.parametrize("data", [b"WEATHER windy\nContent-length: 10\n\nSEND bob\n\n", b"SENTbob\n\n", b"\n\n \r\n"])
def test_client_skips_unknown_words_with_their_body(data: bytes) -> None:
    assert read_events(data + FORWARD) == [Forwarded("alice", "hello")]


# --- errors after which the connection goes on ---

REFUSED: list[tuple[bytes, ErrorCode, str]] = [
    (b"HELLO\n\n", ErrorCode.UNKNOWN_COMMAND, "REGISTER"),
    (b"FORWARD alice\nContent-length: 5\n\nhello", ErrorCode.UNKNOWN_COMMAND, "REGISTER"),
    (b"SENDbob\nContent-length: 5\n\nhello", ErrorCode.UNKNOWN_COMMAND, "REGISTER"),
    (b"\xff\0\n\n", ErrorCode.UNKNOWN_COMMAND, "REGISTER"),
    (b"x" * 900 + b"\n\n", ErrorCode.UNKNOWN_COMMAND, "X" * 32 + "'"),
    (b"REGISTER alice\n\n", ErrorCode.UNKNOWN_COMMAND, "TOSEND"),
    (b"REGISTER TOSENDalice\n\n", ErrorCode.UNKNOWN_COMMAND, "TOSEND"),
    (b"SEND bob\nContent-length: 6\n\nhello\xff", ErrorCode.BAD_REQUEST, "UTF-8"),
    (b"SEND bob\nContent-length: 3\n\n\xed\xa0\x80", ErrorCode.BAD_REQUEST, "UTF-8"),
    (b"SEND bob\nContent-length: 3\n\n\xe2\x82x", ErrorCode.BAD_REQUEST, "UTF-8"),
]


@either_length
@pytest.mark.parametrize(("data", "code", "reason"), REFUSED, ids=lambda value: f"{value!r:.40}")
def test_refused_request_does_not_affect_others(data: bytes, code: ErrorCode, reason: str, length: str) -> None:
    """A byte that is not UTF-8 counts as one character."""
    first, refused, last = read(HELLO + data + HELLO, length)
    assert first == last == Whisper("bob", "hello")
    check_unreadable(refused, code, reason, closes=False)


@either_length
def test_incomplete_character_at_the_end_of_a_body_is_refused(length: str) -> None:
    """In characters, the decoder knows it at the next byte."""
    refused, last = read(b"SEND bob\nContent-length: 1\n\n\xe2" + HELLO, length)
    check_unreadable(refused, ErrorCode.BAD_REQUEST, "UTF-8", closes=False)
    assert last == Whisper("bob", "hello")


def check_unreadable(request: Request, code: ErrorCode, reason: str, *, closes: bool) -> None:
    assert isinstance(request, Unreadable)
    assert (request.code, request.closes) == (code, closes)
    assert reason in request.reason
    assert "\n" not in request.reason
    assert len(request.reason) < 200


# --- errors after which the next header can't be found ---

BROKEN: list[tuple[bytes, ErrorCode, str]] = [
    (b"SEND bob\n\n", ErrorCode.BAD_REQUEST, "none"),
    (b"SEND bob\nContent-length 5\nMy-Content-length: 5\n\n", ErrorCode.BAD_REQUEST, "none"),
    (b"SEND bob\nContent-length:\n\n", ErrorCode.BAD_REQUEST, "a number"),
    (b"SEND bob\nContent-length: -1\n\n", ErrorCode.BAD_REQUEST, "a number"),
    (b"SEND bob\nContent-length: 5_0\n\n", ErrorCode.BAD_REQUEST, "a number"),
    (b"SEND bob\nContent-length: \xd9\xa5\n\n", ErrorCode.BAD_REQUEST, "a number"),
    (b"SEND bob\nContent-length: " + b"x" * 900 + b"\n\n", ErrorCode.BAD_REQUEST, "a number"),
    (b"SEND bob\nContent-length: 5\n content-Length: 06\n\n", ErrorCode.BAD_REQUEST, "2 different"),
    (b"HELLO\nContent-length: x\n\n", ErrorCode.BAD_REQUEST, "a number"),
    (b"SEND bob\nContent-length: 65537\n\n", ErrorCode.TOO_LONG, "65,537"),
    (b"SEND bob\nContent-length: " + b"9" * 990 + b"\n\n", ErrorCode.TOO_LONG, "65,536 bytes"),
    (b"REGISTER TOSEND " + b"a" * 1_007 + b"\n\n", ErrorCode.BAD_REQUEST, "1,024 bytes"),
    (b"HELLO\n" + b"x\n" * 600, ErrorCode.BAD_REQUEST, "1,024 bytes"),
    (b"x" * 1_025, ErrorCode.BAD_REQUEST, "1,024 bytes"),
]


@either_length
@pytest.mark.parametrize(("data", "code", "reason"), BROKEN, ids=lambda value: f"{value!r:.40}")
def test_broken_header_closes_the_connection(data: bytes, code: ErrorCode, reason: str, length: str) -> None:
    """Earlier requests count, later bytes are not read, and the error is reported once."""
    first, refused = read(HELLO + data + HELLO, length)
    assert first == Whisper("bob", "hello")
    check_unreadable(refused, code, reason, closes=True)
    decoder = new_server(Register(length=length))
    receive(decoder, data)
    assert receive(decoder, HELLO) == decoder.receive_end() == []
    assert not decoder.is_incomplete


@either_length
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"FORWARD alice\n\n", "Content-length"),
        (b"SEND bob\nContent-length: x\n\n", "a number"),
        (b"FORWARD alice\nContent-length: 65537\n\n", "65,537"),
        (b"REGISTERED TOBOTH alice\n\n", "'TOBOTH'"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "HTTP/1.1"),
        (b"\0\n\n", "x00"),
        (b"x" * 70_000, "1,024 bytes"),
    ],
    ids=lambda value: f"{value!r:.40}",
)
def test_broken_event_is_a_protocol_error(data: bytes, reason: str, length: str) -> None:
    """A text of one line."""
    for size in (len(data), 7):
        with pytest.raises(ProtocolError) as error:
            decode(Register(length=length).client().event_decoder(), pieces(data, size))
        assert reason in str(error.value)
        assert "\n" not in str(error.value)
        assert len(str(error.value)) < 300


@pytest.mark.parametrize("data", [HELLO, b"SEND bob\n Content-length: 2\n\n \n\n", b"RECEIVED\n\n"], ids=repr)
def test_end_inside_a_section_is_an_error(data: bytes) -> None:
    for size in range(1, len(data)):
        first, refused = read(HELLO + b"\n" + data[:size])
        assert first == Whisper("bob", "hello")
        check_unreadable(refused, ErrorCode.BAD_REQUEST, "ended inside", closes=True)


# --- limits ---


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\n" + b" " * 500 + b"\n"], ids=len)
def test_header_has_1024_bytes_at_most(end: bytes) -> None:
    """With its empty line, but without white space before it."""
    name = "a" * (1_024 - len("RECEIVED ") - len(end))
    assert read(b"\n" * 2_000 + b"RECEIVED " + name.encode() + end) == [Acknowledge(name)]
    (refused,) = read(b"RECEIVED a" + name.encode() + end)
    check_unreadable(refused, ErrorCode.BAD_REQUEST, "1,024 bytes", closes=True)
    decoder = new_server(Register())
    assert receive(decoder, b"x" * 1_024) == []
    assert len(receive(decoder, b"x")) == 1, "it is refused at the first byte over the limit"


@pytest.mark.parametrize(("length", "size"), [("bytes", 65_536), ("characters", 16_384)])
def test_body_has_65536_bytes_or_16384_characters_at_most(length: str, size: int) -> None:
    """So many characters have that many bytes at most. The limit of a message is checked later."""
    text = GRIN * 16_384
    body = b"\nContent-length: %d\n\n" % size + text.encode()
    for piece_bytes in (1_000, 65_535, 200_000):
        requests = receive(new_server(Register(length=length)), *pieces(b"SEND bob" + body + HELLO, piece_bytes))
        assert requests == [Whisper("bob", text), Whisper("bob", "hello")]
    assert decode(Register(length=length).client().event_decoder(), [b"FORWARD bob" + body]) == [Forwarded("bob", text)]
    (refused,) = read(b"SEND bob\nContent-length: %d\n\n" % (size + 1), length)
    check_unreadable(refused, ErrorCode.TOO_LONG, f"{size + 1:,}", closes=True)


@pytest.fixture
def decoded_bytes(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Counts the bytes that incremental decoders are given."""
    sizes: list[int] = []

    class Counting(codecs.getincrementaldecoder("utf-8")):  # type: ignore[misc]
        def decode(self, data: bytes, final: bool = False) -> str:
            sizes.append(len(data))
            return str(super().decode(data, final))

    monkeypatch.setattr(codecs, "getincrementaldecoder", lambda _: Counting)
    return lambda: sum(sizes)


@pytest.mark.parametrize("piece_bytes", [1, 70_000])
@pytest.mark.parametrize("letter", ["x", GRIN])
def test_characters_are_counted_in_linear_time(letter: str, piece_bytes: int, decoded_bytes: Callable[[], int]) -> None:
    """Otherwise a body that arrives byte by byte would delay all other connections."""
    body = letter.encode() * 16_384
    decoder = new_server(Register(length="characters"))
    requests = receive(decoder, *pieces(b"SEND bob\nContent-length: 16384\n\n" + body, piece_bytes))
    assert requests == [Whisper("bob", letter * 16_384)]
    assert decoded_bytes() <= 100 * len(body)


# --- messages in parts ---


def parts_of(text: str, forward_max_bytes: int = FORWARD_MAX_LEAST_BYTES, sender: str = "alice") -> list[str]:
    """The parts; the FORWARD of each is within the limit."""
    register = Register(forward_max_bytes=forward_max_bytes)
    parts = register.split(PublicMessage(1, 5, sender, text))
    assert all(len(register.encode_all([part])) <= forward_max_bytes for part in parts)
    return [part.text for part in parts]


# Without "FORWARD alice\nContent-length: 256\n\n".
BODY_BYTES = FORWARD_MAX_LEAST_BYTES - 35


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("x" * BODY_BYTES, ["x" * BODY_BYTES]),
        ("x" * (BODY_BYTES + 1), ["x" * BODY_BYTES, "x"]),
        ("abc " * 100, [("abc " * 54) + "abc", "abc " * 45]),
        ("x" * BODY_BYTES + " y", ["x" * BODY_BYTES, "y"]),
        (" " + "x" * BODY_BYTES, [" " + "x" * (BODY_BYTES - 1), "x"]),
        (GRIN * 60, [GRIN * 55, GRIN * 5]),
        ("one\ntwo\r\n\r\n  three\r \n", ["one", "two", "  three"]),
        ("one\u2028two", ["one\u2028two"]),
    ],
)
def test_long_text_is_split_at_lines_words_and_characters(text: str, parts: list[str]) -> None:
    assert parts_of(text) == parts


@given(
    st.text(st.sampled_from(f"a{GRIN}\u0645 \n\r\t"), min_size=1, max_size=1_000).filter(lambda text: text.strip()),
    st.integers(FORWARD_MAX_LEAST_BYTES, 600),
)
def test_parts_lose_only_white_space(text: str, forward_max_bytes: int) -> None:
    parts = parts_of(text, forward_max_bytes, "a" * 32)
    assert "".join("".join(parts).split()) == "".join(text.split())
    assert all(part.strip() for part in parts)


def test_text_is_not_split_by_default() -> None:
    message = PublicMessage(1, 5, "alice", "one\n" * 2_048)
    assert Register().split(message) == (message,)
