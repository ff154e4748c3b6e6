"""The dialect register, what a server says: events and the literal bytes that they are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatprotocol.errors import ErrorCode, ProtocolError
from chatprotocol.events import (
    AccountKind,
    Bye,
    Delivered,
    DirectMessage,
    Event,
    Forwarded,
    History,
    NotDelivered,
    Online,
    PasswordPrompt,
    Pong,
    PublicBatch,
    PublicMessage,
    Ready,
    Refused,
    Registered,
    Run,
    Sent,
    SentBatch,
    SentStatus,
    Users,
    Welcome,
)
from chatprotocol.limits import BODY_MAX_BYTES
from chatprotocol.requests import Send, Side
from chatprotocol.wire.register import DELIVERED_WORDS, FORWARD_MAX_LEAST_BYTES, LENGTH_UNITS, Register

from .samples import decode, pieces

NOON_MS = 1_769_860_800_123
HELLO = b"FORWARD alice\nContent-length: 5\n\nhello"
DELIVERED = b"SEND bob\n\n"

ARABIC = "\u0645\u0631\u062d\u0628\u0627"  # 5 letters of 2 bytes
ARABIC_BYTES = b"\xd9\x85\xd8\xb1\xd8\xad\xd8\xa8\xd8\xa7"
GRIN = "\U0001f600"  # 4 bytes
GRIN_BYTES = b"\xf0\x9f\x98\x80"

MALFORMED = Refused(ErrorCode.BAD_USERNAME, "Malformed username")
UNREGISTERED = Refused(ErrorCode.NOT_LOGGED_IN, "No user registered")
INCOMPLETE = Refused(ErrorCode.BAD_REQUEST, "Header incomplete")

either_length = pytest.mark.parametrize("length", LENGTH_UNITS)
either_word = pytest.mark.parametrize("word", DELIVERED_WORDS)

# Each row is one event of the wire: written exactly so, and read back. The settings make no difference.
BOTH_WAYS: list[tuple[Event, bytes]] = [
    # coming in
    (Registered(Side.SENDING, "alice"), b"REGISTERED TOSEND alice\n\n"),
    (Registered(Side.RECEIVING, "alice"), b"REGISTERED TORECV alice\n\n"),
    (Registered(Side.RECEIVING, "Alice7"), b"REGISTERED TORECV Alice7\n\n"),
    (MALFORMED, b"ERROR 100 Malformed username\n\n"),
    (UNREGISTERED, b"ERROR 101 No user registered\n\n"),
    # what could not be sent, or read
    (NotDelivered(), b"ERROR 102 Unable to send\n\n"),
    (INCOMPLETE, b"ERROR 103 Header incomplete\n\n"),
    # messages
    (Forwarded("alice", "hello"), b"FORWARD alice\nContent-length: 5\n\nhello"),
    (Forwarded("alice", "x"), b"FORWARD alice\nContent-length: 1\n\nx"),
    (Forwarded("alice", ""), b"FORWARD alice\nContent-length: 0\n\n"),
    (Forwarded("alice", "three\n\nlines\n"), b"FORWARD alice\nContent-length: 13\n\nthree\n\nlines\n"),
    (Forwarded("alice", "\n\n"), b"FORWARD alice\nContent-length: 2\n\n\n\n"),
    (Forwarded("alice", " x "), b"FORWARD alice\nContent-length: 3\n\n x "),
    (Forwarded("alice", "\r\n\0\x1b"), b"FORWARD alice\nContent-length: 4\n\n\r\n\0\x1b"),
    (Forwarded("alice", HELLO.decode()), b"FORWARD alice\nContent-length: 38\n\n" + HELLO),
    (Forwarded("z9", "x" * BODY_MAX_BYTES), b"FORWARD z9\nContent-length: 8192\n\n" + b"x" * 8_192),
    (Forwarded("a" * 32, "x"), b"FORWARD " + b"a" * 32 + b"\nContent-length: 1\n\nx"),
]

# A message, with a length that counts bytes, and with one that counts characters.
COUNTED: list[tuple[Event, bytes, bytes]] = [
    (
        Forwarded("alice", ARABIC),
        b"FORWARD alice\nContent-length: 10\n\n" + ARABIC_BYTES,
        b"FORWARD alice\nContent-length: 5\n\n" + ARABIC_BYTES,
    ),
    (
        Forwarded("alice", GRIN),
        b"FORWARD alice\nContent-length: 4\n\n" + GRIN_BYTES,
        b"FORWARD alice\nContent-length: 1\n\n" + GRIN_BYTES,
    ),
    (
        Forwarded("alice", f"{GRIN} {ARABIC}\n\n{GRIN}\n"),
        b"FORWARD alice\nContent-length: 22\n\n" + GRIN_BYTES + b" " + ARABIC_BYTES + b"\n\n" + GRIN_BYTES + b"\n",
        b"FORWARD alice\nContent-length: 11\n\n" + GRIN_BYTES + b" " + ARABIC_BYTES + b"\n\n" + GRIN_BYTES + b"\n",
    ),
    # one sign to the eye, three characters
    (
        Forwarded("alice", "\U0001f468\u200d\U0001f469"),
        b"FORWARD alice\nContent-length: 11\n\n\xf0\x9f\x91\xa8\xe2\x80\x8d\xf0\x9f\x91\xa9",
        b"FORWARD alice\nContent-length: 3\n\n\xf0\x9f\x91\xa8\xe2\x80\x8d\xf0\x9f\x91\xa9",
    ),
    (
        Forwarded("alice", "\ufeff\u20ac"),
        b"FORWARD alice\nContent-length: 6\n\n\xef\xbb\xbf\xe2\x82\xac",
        b"FORWARD alice\nContent-length: 2\n\n\xef\xbb\xbf\xe2\x82\xac",
    ),
    (
        Forwarded("alice", GRIN * 2_048),
        b"FORWARD alice\nContent-length: 8192\n\n" + GRIN_BYTES * 2_048,
        b"FORWARD alice\nContent-length: 2048\n\n" + GRIN_BYTES * 2_048,
    ),
]

# What is written of events that hold more than the dialect can carry, or that it has no word for.
WRITE_ONLY: list[tuple[Event | Run, bytes]] = [
    (PublicMessage(18, NOON_MS, "alice", "hello"), HELLO),
    (DirectMessage(19, NOON_MS, "alice", "bob", "hello"), HELLO),
    (DirectMessage(19, NOON_MS, "alice", "", "hello"), HELLO),
    # runs are single messages on the wire
    (
        PublicBatch(9, 5, "A", ("x", "", "two\nlines")),
        b"FORWARD A\nContent-length: 1\n\nxFORWARD A\nContent-length: 0\n\nFORWARD A\nContent-length: 9\n\ntwo\nlines",
    ),
    (PublicBatch(9, 5, "A", ()), b""),
    # the reasons are for the log: clients compare exactly
    (Refused(ErrorCode.BAD_USERNAME, "No.", about="ALL"), b"ERROR 100 Malformed username\n\n"),
    (Refused(ErrorCode.NOT_LOGGED_IN, "No."), b"ERROR 101 No user registered\n\n"),
    (Refused(ErrorCode.SERVER_FULL, "No."), b"ERROR 101 No user registered\n\n"),
    (Refused(ErrorCode.BAD_REQUEST, "No.", "7f"), b"ERROR 103 Header incomplete\n\n"),
    *(
        (Refused(code, "No."), b"ERROR 102 Unable to send\n\n")
        for code in ErrorCode
        if code not in {ErrorCode.BAD_USERNAME, ErrorCode.NOT_LOGGED_IN, ErrorCode.SERVER_FULL, ErrorCode.BAD_REQUEST}
    ),
    # no word
    (Users(2, ("alice", "bob"), ("bob",), ()), b""),
    (Online(("alice", "bob")), b""),
    (Sent(18, SentStatus.SENT), b""),
    (Sent(18, SentStatus.STORED, "7f"), b""),
    (SentBatch(9, (None, "7f")), b""),
    (PasswordPrompt(AccountKind.NEW), b""),
    (Welcome(AccountKind.NEW, "alice", ("alice", "bob"), 17), b""),
    (History((PublicMessage(18, NOON_MS, "alice", "hello"),)), b""),
    (Ready(), b""),
    (Pong(), b""),
    (Bye("The server is shutting down."), b""),
]

# What is read as well: other servers send it, though ours doesn't.
FORGIVEN: list[tuple[bytes, Event]] = [
    # either word confirms, whatever is set
    (b"SEND bob\n\n", Delivered("bob")),
    (b"SENT bob\n\n", Delivered("bob")),
    (b"SEND ALL\n\n", Delivered("ALL")),
    (b"Sent BoB\n\n", Delivered("BoB")),
    (b"SENT bob \r\n\r\n", Delivered("bob")),
    (b"\xef\xbb\xbfSENT bob\n\n", Delivered("bob")),
    (b"SEND\n\n", Delivered("")),
    (b"SENT\r\n\r\n", Delivered("")),
    # the number decides, not the text
    (b"ERROR 103 Header Incomplete\n\n", Refused(ErrorCode.BAD_REQUEST, "Header Incomplete")),
    (b"ERROR 103 header incomplete\n\n", Refused(ErrorCode.BAD_REQUEST, "header incomplete")),
    (b"ERROR 103\n\n", Refused(ErrorCode.BAD_REQUEST, "")),
    (b"ERROR 103 Unable to send\n\n", Refused(ErrorCode.BAD_REQUEST, "Unable to send")),
    (b"Error 100 Malformed Username \n \n", Refused(ErrorCode.BAD_USERNAME, "Malformed Username")),
    (b"ERROR 100\r\n\r\n", Refused(ErrorCode.BAD_USERNAME, "")),
    (b"ERROR 101  No User Registered\n\n", Refused(ErrorCode.NOT_LOGGED_IN, "No User Registered")),
    (b"ERROR 102 unable to send\n\n", NotDelivered()),
    (b"ERROR 102\n\n", NotDelivered()),
    # what no number says
    (b"ERROR 104 Teapot\n\n", NotDelivered()),
    (b"ERROR 1000 Malformed username\n\n", NotDelivered()),
    (b"ERROR Malformed username\n\n", NotDelivered()),
    (b"ERROR\n\n", NotDelivered()),
    # coming in
    (b"REGISTERED TOSEND alice \n\n", Registered(Side.SENDING, "alice")),
    (b"REGISTERED TORECV alice\n \n", Registered(Side.RECEIVING, "alice")),
    (b"REGISTERED  TORECV  alice\r\n\r\n", Registered(Side.RECEIVING, "alice")),
    (b"registered tosend Alice\n\n", Registered(Side.SENDING, "Alice")),
    (b"REGISTERED TOSEND\n\n", Registered(Side.SENDING, "")),
    # messages
    (b"FORWARD alice\r\nContent-Length: 5\r\n\r\nhello", Forwarded("alice", "hello")),
    (b"FORWARD alice \ncontent-length:5\n \nhello\n", Forwarded("alice", "hello")),
    (b"FORWARD alice\n Content-length: 5\n\n hello", Forwarded("alice", "hello")),
    (b"FORWARD alice\n Content-length: 5\n\nhello", Forwarded("alice", "hello")),
    (b"FORWARD alice\nContent-length: 5\n\n hell", Forwarded("alice", " hell")),
    (b"forward alice\nTime: 12:00\nContent-length: 5\n\nhello\r\n", Forwarded("alice", "hello")),
    (b"FORWARD\nContent-length: 5\n\nhello", Forwarded("", "hello")),
    # what is no text is shown as what nobody can read
    (b"FORWARD alice\nContent-length: 5\n\nhell\xff", Forwarded("alice", "hell\ufffd")),
    (b"FORWARD alice\nContent-length: 3\n\n\xed\xa0\x80", Forwarded("alice", "\ufffd" * 3)),
    (b"FORWARD al\xffice\nContent-length: 1\n\nx", Forwarded("al\ufffdice", "x")),
]

# Words of tomorrow, and what is near to one of ours.
UNKNOWN = [
    b"WEATHER\n\n",
    b"WEATHER windy\nContent-length: 16\n\nwith\n\nSEND bob\n\n",
    b"REGISTER TOSEND alice\n\n",
    b"RECEIVED alice\n\n",
    b"SENTbob\n\n",
    b"ERRORS 100\n\n",
    b"BYE\nsee you\n\n",
    b"\n\n \r\n",
]

# Of a server that makes no sense, with what is said of it.
NO_SECTIONS: list[tuple[bytes, str]] = [
    (b"FORWARD alice\n\n", "Content-length"),
    (b"FORWARD\n\n", "Content-length"),
    (b"FORWARD alice\nContent-length: -1\n\n", "'-1'"),
    (b"FORWARD alice\nContent-length: x\n\n", "'x'"),
    (b"FORWARD alice\nContent-length:\n\n", "''"),
    (b"FORWARD alice\nContent-length: " + b"x" * 900 + b"\n\n", "x" * 32),
    (b"FORWARD alice\nContent-length: 1\nContent-length: 2\n\n", "2 different"),
    (b"FORWARD alice\nContent-length: 65537\n\n", "65,537"),
    (b"WEATHER windy\nContent-length: 65537\n\n", "65,537"),
    (b"SEND bob\nContent-length: -1\n\n", "'-1'"),
    (b"REGISTERED\n\n", "''"),
    (b"REGISTERED alice\n\n", "'alice'"),
    (b"REGISTERED TOBOTH alice\n\n", "'TOBOTH'"),
    (b"REGISTERED TOSENDalice\n\n", "'TOSENDalice'"),
    (b"REGISTERED " + b"x" * 900 + b"\n\n", "'" + "x" * 32 + "'"),
    (b"HTTP/1.1 400 Bad Request\r\n\r\n", "HTTP/1.1"),
    (b'{"type":"pong"}\n\n', "TYPE"),
    (b"\0\n\n", "x00"),
    (b"\xff\n \n", "\ufffd"),
    (b"{" * 1_025, "1,024 bytes"),
    (b"x" * 70_000, "1,024 bytes"),
    (b"SEND " + b"b" * 1_018 + b"\n\n", "1,024 bytes"),
]


@either_word
@either_length
@pytest.mark.parametrize(("event", "data"), BOTH_WAYS, ids=lambda value: f"{value!r:.60}")
def test_an_event_is_written_as_its_section(event: Event, data: bytes, word: str, length: str) -> None:
    assert Register(word, length).encode(event) == data


@either_word
@either_length
@pytest.mark.parametrize(("event", "data"), BOTH_WAYS, ids=lambda value: f"{value!r:.60}")
def test_a_section_is_read_as_its_event(event: Event, data: bytes, word: str, length: str) -> None:
    for size in (len(data), 1, 2, 7):
        assert decode(Register(word, length).event_decoder(), pieces(data, size)) == [event]


@pytest.mark.parametrize(("event", "in_bytes", "in_characters"), COUNTED, ids=lambda value: f"{value!r:.60}")
def test_the_length_of_a_message_counts_bytes_or_characters_in_both_directions(
    event: Event, in_bytes: bytes, in_characters: bytes
) -> None:
    for length, data in (("bytes", in_bytes), ("characters", in_characters)):
        assert Register(length=length).encode(event) == data
        for size in (len(data), 1, 2, 7):
            decoder = Register(length=length).event_decoder()
            assert decode(decoder, pieces(data + DELIVERED, size)) == [event, Delivered("bob")]


@pytest.mark.parametrize(("to", "rest"), [("bob", b" bob\n\n"), ("ALL", b" ALL\n\n"), ("BoB", b" BoB\n\n")])
@either_length
def test_the_word_that_confirms_is_the_one_that_is_set(to: str, rest: bytes, length: str) -> None:
    assert Register("SEND", length).encode(Delivered(to)) == b"SEND" + rest
    assert Register("SENT", length).encode(Delivered(to)) == b"SENT" + rest


def test_where_nothing_is_set_send_confirms_and_lengths_count_bytes() -> None:
    assert Register().encode(Delivered("bob")) == b"SEND bob\n\n"
    assert Register().encode(Forwarded("alice", GRIN)) == b"FORWARD alice\nContent-length: 4\n\n" + GRIN_BYTES
    assert Register().event_decoder().decode(b"FORWARD alice\nContent-length: 4\n\n" + GRIN_BYTES) == [
        Forwarded("alice", GRIN)
    ]


@either_word
@either_length
@pytest.mark.parametrize(("event", "data"), WRITE_ONLY, ids=lambda value: f"{value!r:.60}")
def test_of_an_event_that_holds_more_there_is_written_what_the_wire_can_carry(
    event: Event | Run, data: bytes, word: str, length: str
) -> None:
    assert Register(word, length).encode(event) == data
    assert Register(word, length).encode_all([event, event]) == data * 2


def test_the_texts_of_a_run_are_counted_one_by_one() -> None:
    run = PublicBatch(9, 5, "A", (ARABIC, GRIN))

    assert Register().encode(run) == (
        b"FORWARD A\nContent-length: 10\n\n" + ARABIC_BYTES + b"FORWARD A\nContent-length: 4\n\n" + GRIN_BYTES
    )
    assert Register(length="characters").encode(run) == (
        b"FORWARD A\nContent-length: 5\n\n" + ARABIC_BYTES + b"FORWARD A\nContent-length: 1\n\n" + GRIN_BYTES
    )


def test_every_refusal_has_a_number() -> None:
    numbers = {data[:9] for event, data in WRITE_ONLY if isinstance(event, Refused)}

    assert {event.code for event, _ in WRITE_ONLY if isinstance(event, Refused)} == set(ErrorCode)
    assert numbers == {b"ERROR 100", b"ERROR 101", b"ERROR 102", b"ERROR 103"}


@either_word
@either_length
@pytest.mark.parametrize(("data", "event"), FORGIVEN, ids=repr)
def test_other_servers_are_understood_and_by_pieces_too(data: bytes, event: Event, word: str, length: str) -> None:
    for size in (len(data), 1, 2, 7):
        assert decode(Register(word, length).event_decoder(), pieces(data, size)) == [event]


@either_length
@pytest.mark.parametrize(
    ("data", "event"), [*FORGIVEN, *((data, event) for event, data in BOTH_WAYS if len(data) < 100)], ids=repr
)
def test_a_section_cut_in_two_anywhere_is_the_same_event(data: bytes, event: Event, length: str) -> None:
    for at in range(1, len(data)):
        decoder = Register(length=length).event_decoder()

        assert [*decoder.decode(data[:at]), *decoder.decode(data[at:])] == [event], f"cut at {at}"
        assert decoder.decode(HELLO) == [Forwarded("alice", "hello")]


@either_length
@pytest.mark.parametrize("data", UNKNOWN)
def test_unknown_words_are_passed_over_with_what_belongs_to_them(data: bytes, length: str) -> None:
    for size in (1_000, 1):
        decoder = Register(length=length).event_decoder()
        assert decode(decoder, pieces(DELIVERED + data + HELLO, size)) == [
            Delivered("bob"),
            Forwarded("alice", "hello"),
        ]


def test_a_conversation_that_comes_at_once_is_read_in_its_order() -> None:
    stream = b"REGISTERED TOSEND alice\n\nSENT bob\n\n\nERROR 102 Unable to send\n\n" + HELLO + b"\n" + HELLO

    assert Register().event_decoder().decode(stream) == [
        Registered(Side.SENDING, "alice"),
        Delivered("bob"),
        NotDelivered(),
        Forwarded("alice", "hello"),
        Forwarded("alice", "hello"),
    ]


# --- a server that makes no sense ---


@either_length
@pytest.mark.parametrize(("data", "said"), NO_SECTIONS, ids=lambda value: f"{value!r:.60}")
@pytest.mark.parametrize("before", [b"", DELIVERED, HELLO + b"\n"])
def test_what_is_no_section_is_a_protocol_error_of_one_line(data: bytes, said: str, before: bytes, length: str) -> None:
    for size in (len(before + data), 1_000, 7):
        with pytest.raises(ProtocolError) as error:
            decode(Register(length=length).event_decoder(), pieces(before + data, size))
        assert said in str(error.value)
        assert "\n" not in str(error.value)
        assert len(str(error.value)) < 300


@either_length
@pytest.mark.parametrize("data", [HELLO, DELIVERED, b"ERROR 102 Unable to send\n\n", b"WEATHER\n\n", b"x" * 1_024])
def test_half_a_section_is_as_good_as_none(data: bytes, length: str) -> None:
    for size in range(len(data)):
        assert Register(length=length).event_decoder().decode(data[:size]) == []


# --- size ---


@pytest.mark.parametrize("piece_bytes", [1, 1_000, 65_536, 200_000])
@pytest.mark.parametrize(
    ("length", "body", "text"),
    [
        ("bytes", b"x" * 65_536, "x" * 65_536),
        ("bytes", GRIN_BYTES * 16_384, GRIN * 16_384),
        ("characters", b"x" * 16_384, "x" * 16_384),
    ],
    ids=lambda value: f"{value!r:.20}",
)
def test_the_longest_message_that_a_server_may_send_is_read(
    length: str, body: bytes, text: str, piece_bytes: int
) -> None:
    event = Forwarded("alice", text)
    protocol = Register(length=length)
    size = len(body) if length == "bytes" else len(text)
    data = b"FORWARD alice\nContent-length: %d\n\n" % size + body

    assert protocol.encode(event) == data
    assert decode(protocol.event_decoder(), pieces(data + DELIVERED, piece_bytes)) == [event, Delivered("bob")]


@either_length
@pytest.mark.parametrize(("letters", "fits"), [(1_017, True), (1_018, False)])
def test_a_header_of_a_server_has_1024_bytes_at_most(letters: int, fits: bool, length: str) -> None:
    data = b"SEND " + b"b" * letters + b"\n\n"
    assert (len(data) == 1_024) is fits
    decoder = Register(length=length).event_decoder()

    if fits:
        assert decoder.decode(data + HELLO) == [Delivered("b" * letters), Forwarded("alice", "hello")]
    else:
        with pytest.raises(ProtocolError, match="1,024 bytes"):
            decoder.decode(data + HELLO)


@pytest.mark.parametrize(("length", "size"), [("bytes", 65_537), ("characters", 16_385)])
def test_a_message_of_a_server_that_is_over_the_limit_is_a_protocol_error(length: str, size: int) -> None:
    header = b"FORWARD alice\nContent-length: %d\n\n" % size

    with pytest.raises(ProtocolError, match="65,536 bytes"):
        Register(length=length).event_decoder().decode(header)


# --- both directions together ---


@either_word
@pytest.mark.parametrize(("length", "size"), [("bytes", b"16"), ("characters", b"8")])
def test_a_message_is_forwarded_with_the_length_that_it_was_sent_with(word: str, length: str, size: bytes) -> None:
    """Who counts characters reads what another one wrote who does."""
    protocol = Register(word, length)
    body = b"\nContent-length: " + size + b"\n\n" + ARABIC_BYTES + b" " + GRIN_BYTES + b"\n"

    (request,) = protocol.request_decoder().decode(b"SEND bob" + body)
    assert isinstance(request, Send)
    forwarded = protocol.encode(DirectMessage(1, NOON_MS, "alice", "bob", request.text))

    assert forwarded == b"FORWARD alice" + body
    assert protocol.event_decoder().decode(forwarded) == [Forwarded("alice", f"{ARABIC} {GRIN}\n")]


# --- texts that are cut ---


def parts_of(text: str, forward_max_bytes: int = FORWARD_MAX_LEAST_BYTES, sender: str = "alice") -> list[str]:
    """Each is a FORWARD within the limit."""
    register = Register(forward_max_bytes=forward_max_bytes)
    parts = register.split(PublicMessage(1, NOON_MS, sender, text))
    assert all(len(register.encode(part)) <= forward_max_bytes for part in parts)
    return [part.text for part in parts]


# "FORWARD alice\nContent-length: 256\n\n" has 35 bytes.
BODY_BYTES = FORWARD_MAX_LEAST_BYTES - 35


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("hello", ["hello"]),
        ("x" * BODY_BYTES, ["x" * BODY_BYTES]),
        ("x" * (BODY_BYTES + 1), ["x" * BODY_BYTES, "x"]),
        ("abc " * 100, [("abc " * 54) + "abc", "abc " * 45]),  # not inside the 56th word
        ("x" * BODY_BYTES + " y", ["x" * BODY_BYTES, "y"]),
        (" " + "x" * BODY_BYTES, [" " + "x" * (BODY_BYTES - 1), "x"]),
        (GRIN * 60, [GRIN * 55, GRIN * 5]),
        ("one\ntwo\r\n\r\n  three\r \n", ["one", "two", "  three"]),
        ("one\u2028two", ["one\u2028two"]),
    ],
)
def test_a_text_is_cut_at_lines_and_between_words_and_never_inside_a_character(text: str, parts: list[str]) -> None:
    assert parts_of(text) == parts


@given(
    st.text(st.sampled_from(f"a{GRIN}{ARABIC} \n\r\t"), min_size=1, max_size=1_000).filter(lambda text: text.strip()),
    st.integers(FORWARD_MAX_LEAST_BYTES, 600),
)
def test_of_a_text_that_is_cut_nothing_but_white_space_is_lost(text: str, forward_max_bytes: int) -> None:
    parts = parts_of(text, forward_max_bytes, "a" * 32)

    assert "".join("".join(parts).split()) == "".join(text.split())
    assert all(part.strip() for part in parts)


def test_unless_it_is_set_no_text_is_cut() -> None:
    message = PublicMessage(1, NOON_MS, "alice", "one\n" * (BODY_MAX_BYTES // 4))

    assert Register().split(message) == (message,)
