"""The dialect datagram, what a client sends: the literal bytes of datagrams, with their lengths, and what they ask.

Where each one ends is known by then: to the dialect it is a frame of its kind, its length and its payload.
"""

import pytest

from chatprotocol.errors import ErrorCode
from chatprotocol.requests import Command, Data, Ping, Request, Unreadable
from chatprotocol.wire import Datagram

from .samples import decode, held_bytes, pieces

PING = b"C\0\0\0\x04PING"
READY = b"C\0\0\0\x02PM"
# The longest payload of a datagram, and of all pieces together.
LONGEST = 1_200
LONGEST_TOGETHER = 65_531
# A piece that is as long as it may be; 54 of them are 64,800 bytes.
FULL_PIECE = b"d\0\0\x04\xb0" + b"x" * LONGEST


def read(data: bytes) -> list[Request]:
    """What one session asks that sends this and ends; fed whole and in pieces it must be the same."""
    found = []
    for size in (max(1, len(data)), 1, 2, 7, 4096):
        if len(data) / size > 2_000:
            continue
        decoder = Datagram().request_decoder()
        found.append([*decode(decoder, pieces(data, size)), *decoder.end()])
    for other in found[1:]:
        assert other == found[0], "in pieces it was something else than whole"
    return found[0]


def refusal(request: Request) -> tuple[ErrorCode, bool]:
    """The code of what can't be read, and whether the session ends with it."""
    assert isinstance(request, Unreadable)
    assert "\n" not in request.reason
    assert request.nonce is None
    return request.code, request.closes


def gist(requests: list[Request]) -> list[Request | ErrorCode]:
    """Of what can't be read, the code; the session never ends with it."""
    found: list[Request | ErrorCode] = []
    for request in requests:
        if isinstance(request, Unreadable):
            code, closes = refusal(request)
            assert not closes
            found.append(code)
        else:
            found.append(request)
    return found


def frame(kind: bytes, payload: bytes) -> bytes:
    return kind + len(payload).to_bytes(4, "big") + payload


# --- each step, as docs/wire/datagram.md spells it: literal bytes, and what is read from and written for it ---

BOTH_WAYS: list[tuple[bytes, Request]] = [
    # coming in
    (b"C\0\0\0\x05alice", Command("alice")),
    (b"C\0\0\0\x0balice bm-pm", Command("alice bm-pm")),
    (b"C\0\0\0\x06secret", Command("secret")),
    (b"C\0\0\0\x0da b \xe2\x82\xac  \xf0\x9f\x98\x80", Command("a b \u20ac  \U0001f600")),
    # the operations
    (bytes.fromhex("43 00 00 00 02 50 4d"), Command("PM")),
    (b"C\0\0\0\x02BM", Command("BM")),
    (b"C\0\0\0\x02DM", Command("DM")),
    (b"C\0\0\0\x02CH", Command("CH")),
    (b"C\0\0\0\x02EX", Command("EX")),
    (b"C\0\0\0\x03bob", Command("bob")),
    (b"D\0\0\0\x0fhello everybody", Data("hello everybody")),
    (b"C\0\0\0\x06CH 200", Command("CH 200")),
    (PING, Ping()),
    # near to the question whether the server lives, but none
    (b"C\0\0\0\x04ping", Command("ping")),
    (b"C\0\0\0\x06PING 1", Command("PING 1")),
    (b"C\0\0\0\x05PINGS", Command("PINGS")),
    (b"C\0\0\0\x05\0PING", Command("\0PING")),
    (b"C\0\0\0\x06\xc2\xa0PING", Command("\xa0PING")),
    (b"D\0\0\0\x04PING", Data("PING")),
    # spelled as they came: what they mean is for the dialogue to say
    (b"C\0\0\0\x04 PM\n", Command(" PM\n")),
    (b"C\0\0\0\0", Command("")),
    (b"D\0\0\0\0", Data("")),
    # texts: the length counts bytes
    (b"D\0\0\0\x0bthree\n\nline", Data("three\n\nline")),
    (b"D\0\0\0\x08\xe2\x82\xac \xf0\x9f\x98\x80", Data("\u20ac \U0001f600")),
    (b"D\0\0\0\x02\0\x1b", Data("\0\x1b")),
    (b"D\0\0\0\x07C\0\0\0\x02PM", Data("C\0\0\0\x02PM")),
    (b"D\0\0\0\x06d\0\0\0\x01x", Data("d\0\0\0\x01x")),
    # up to the limit of one datagram
    (b"C\0\0\x04\xb0" + b"x" * 1_200, Command("x" * 1_200)),
    (b"D\0\0\x04\xaf" + b"x" * 1_199, Data("x" * 1_199)),
    (b"D\0\0\x04\xb0" + b"x" * 1_200, Data("x" * 1_200)),
    # beyond it, in pieces
    (FULL_PIECE + b"D\0\0\0\x01y", Data("x" * 1_200 + "y")),
    (FULL_PIECE + b"D\0\0\x04\xb0" + b"y" * 1_200, Data("x" * 1_200 + "y" * 1_200)),
    (FULL_PIECE * 2 + b"D\0\0\0\x01y", Data("x" * 2_400 + "y")),
    (FULL_PIECE * 6 + b"D\0\0\x03\xe0" + b"y" * 992, Data("x" * 7_200 + "y" * 992)),
    # in the middle of a letter, too
    (
        b"d\0\0\x04\xb0" + b"\xe2\x82\xac" * 400 + b"D\0\0\0\x03\xe2\x82\xac",
        Data("\u20ac" * 401),
    ),
    (
        b"d\0\0\x04\xb0x" + b"\xe2\x82\xac" * 399 + b"\xe2\x82" + b"D\0\0\0\x01\xac",
        Data("x" + "\u20ac" * 400),
    ),
    (
        b"d\0\0\x04\xb0xyz" + b"\xf0\x9f\x98\x80" * 299 + b"\xf0" + b"D\0\0\0\x03\x9f\x98\x80",
        Data("xyz" + "\U0001f600" * 300),
    ),
    # up to the limit of them all
    (FULL_PIECE * 54 + b"D\0\0\x02\xda" + b"x" * 730, Data("x" * 65_530)),
    (FULL_PIECE * 54 + b"D\0\0\x02\xdb" + b"x" * 731, Data("x" * 65_531)),
]

# What is written of a command that no datagram holds: as much of it as one does, in whole letters.
WRITE_ONLY: list[tuple[Request, bytes]] = [
    (Command("x" * 1_201), b"C\0\0\x04\xb0" + b"x" * 1_200),
    (Command("x" * 100_000), b"C\0\0\x04\xb0" + b"x" * 1_200),
    (Command("\u20ac" * 401), b"C\0\0\x04\xb0" + b"\xe2\x82\xac" * 400),
    (Command("x" + "\u20ac" * 400), b"C\0\0\x04\xaex" + b"\xe2\x82\xac" * 399),
    (Command("xyz" + "\U0001f600" * 300), b"C\0\0\x04\xafxyz" + b"\xf0\x9f\x98\x80" * 299),
]

# What is read as well, though no client of ours writes it.
READ_ONLY: list[tuple[bytes, Request]] = [
    (b"C\0\0\0\x05PING ", Ping()),
    (b"C\0\0\0\x05 PING", Ping()),
    (b"C\0\0\0\x08 \tPING\r\n", Ping()),
    (b"C\0\0\x04\xb0PING" + b" " * 1_196, Ping()),
    # pieces as long as their sender likes
    (b"d\0\0\0\x03helD\0\0\0\x02lo", Data("hello")),
    (b"d\0\0\0\x01hd\0\0\0\x01eD\0\0\0\x03llo", Data("hello")),
    (b"d\0\0\0\x05helloD\0\0\0\0", Data("hello")),
    (b"d\0\0\0\0D\0\0\0\0", Data("")),
    (b"d\0\0\0\0d\0\0\0\0D\0\0\0\x05hello", Data("hello")),
    (b"d\0\0\0\x01\xe2d\0\0\0\x01\x82D\0\0\0\x01\xac", Data("\u20ac")),
    (b"d\0\0\0\x04PINGD\0\0\0\0", Data("PING")),
    (FULL_PIECE * 54 + b"d\0\0\x02\xdb" + b"x" * 731 + b"D\0\0\0\0", Data("x" * 65_531)),
]


@pytest.mark.parametrize(("data", "request_"), BOTH_WAYS, ids=lambda value: f"{value!r:.60}")
def test_datagrams_are_read_as_what_they_ask(data: bytes, request_: Request) -> None:
    assert read(data) == [request_]


@pytest.mark.parametrize(("data", "request_"), BOTH_WAYS, ids=lambda value: f"{value!r:.60}")
def test_what_is_asked_is_written_as_its_datagrams(data: bytes, request_: Request) -> None:
    assert Datagram().encode_request(request_) == data


@pytest.mark.parametrize(("request_", "data"), WRITE_ONLY, ids=lambda value: f"{value!r:.60}")
def test_a_command_that_is_too_long_is_cut(request_: Request, data: bytes) -> None:
    assert Datagram().encode_request(request_) == data
    assert len(read(data)) == 1


@pytest.mark.parametrize(("data", "request_"), READ_ONLY, ids=lambda value: f"{value!r:.60}")
def test_other_clients_spell_it_otherwise(data: bytes, request_: Request) -> None:
    assert read(data) == [request_]


@pytest.mark.parametrize("data", [data for data, _ in BOTH_WAYS + READ_ONLY], ids=lambda value: f"{value!r:.60}")
def test_what_was_asked_leaves_nothing_behind(data: bytes) -> None:
    decoder = Datagram().request_decoder()
    decoder.decode(data)

    assert not decoder.is_inside
    assert decoder.end() == []
    assert decoder.decode(READY) == [Command("PM")]


def test_a_dialogue_sent_ahead_is_read_step_by_step() -> None:
    stream = (
        b"C\0\0\0\x05aliceC\0\0\0\x06secret"
        b"C\0\0\0\x02PMD\0\0\0\x0fhello everybody"
        b"C\0\0\0\x02DMC\0\0\0\x03bobd\0\0\0\x02psD\0\0\0\x02st"
        b"C\0\0\0\x02CHC\0\0\0\x04PINGC\0\0\0\x02EX"
    )

    assert read(stream) == [
        Command("alice"),
        Command("secret"),
        Command("PM"),
        Data("hello everybody"),
        Command("DM"),
        Command("bob"),
        Data("psst"),
        Command("CH"),
        Ping(),
        Command("EX"),
    ]


def test_messages_that_pour_in_are_read_step_by_step() -> None:
    assert read(b"C\0\0\0\x02PMD\0\0\0\x05hello" * 20) == [Command("PM"), Data("hello")] * 20


# --- PING comes when it likes ---


@pytest.mark.parametrize("question", [PING, b"C\0\0\0\x06PING\r\n"])
@pytest.mark.parametrize("place", range(7))
def test_whether_the_server_lives_may_be_asked_at_every_place_even_between_pieces(question: bytes, place: int) -> None:
    frames = [READY, b"d\0\0\0\x02he", b"d\0\0\0\x01l", b"D\0\0\0\x02lo", READY, b"D\0\0\0\x01x"]
    frames.insert(place, question)

    found = read(b"".join(frames))

    assert [request for request in found if request != Ping()] == [
        Command("PM"),
        Data("hello"),
        Command("PM"),
        Data("x"),
    ]
    assert found.count(Ping()) == 1


def test_it_is_asked_before_the_pieces_around_it_are_a_text() -> None:
    assert read(b"d\0\0\0\x02he" + PING + b"D\0\0\0\x03llo") == [Ping(), Data("hello")]
    assert read(PING + b"d\0\0\0\x02he" + PING + PING) == [Ping(), Ping(), Ping(), *read(b"d\0\0\0\x02he")]


def test_it_does_not_save_pieces_that_are_too_long() -> None:
    data = b"d\0\0\x04\xb1" + b"x" * 1_201 + PING + b"D\0\0\0\x01x" + PING

    assert gist(read(data)) == [Ping(), ErrorCode.TOO_LONG, Ping()]


# --- what is over a limit ---


@pytest.mark.parametrize("kind", [b"C", b"D"])
@pytest.mark.parametrize("size", [1_201, 1_202, 8_192, 65_531])
def test_a_payload_of_more_than_1200_bytes_is_too_long(kind: bytes, size: int) -> None:
    (refused, after) = read(frame(kind, b"x" * size) + READY)

    assert refusal(refused) == (ErrorCode.TOO_LONG, False)
    assert isinstance(refused, Unreadable)
    assert "1,200 bytes" in refused.reason
    assert after == Command("PM")


@pytest.mark.parametrize("size", [1_201, 8_192])
@pytest.mark.parametrize(
    ("before", "behind"),
    [
        (b"", b""),
        (b"d\0\0\0\x01x", b""),
        (b"", b"d\0\0\0\x01x"),
        (FULL_PIECE * 3, FULL_PIECE * 60),
        (b"", frame(b"d", b"x" * 1_201) * 3),
    ],
    ids=lambda value: f"{value!r:.20} {len(value)}",
)
@pytest.mark.parametrize("end", [b"D\0\0\0\x01x", b"D\0\0\0\0", b"D\0\0\x04\xb0" + b"x" * 1_200])
def test_a_piece_of_more_than_1200_bytes_spoils_the_text_and_that_is_told_once(
    size: int, before: bytes, behind: bytes, end: bytes
) -> None:
    decoder = Datagram().request_decoder()
    assert decoder.decode(before + frame(b"d", b"x" * size) + behind) == []
    assert decoder.is_inside

    (refused,) = decoder.decode(end)

    assert refusal(refused) == (ErrorCode.TOO_LONG, False)
    assert not decoder.is_inside
    assert decoder.decode(READY + b"D\0\0\0\x01x") == [Command("PM"), Data("x")]


def test_a_last_piece_of_more_than_1200_bytes_spoils_the_text() -> None:
    data = FULL_PIECE + frame(b"D", b"x" * 1_201) + READY + b"D\0\0\0\x01x"

    assert gist(read(data)) == [ErrorCode.TOO_LONG, Command("PM"), Data("x")]


@pytest.mark.parametrize(
    "data",
    [
        FULL_PIECE * 54 + b"D\0\0\x02\xdc" + b"x" * 732,
        FULL_PIECE * 54 + b"D\0\0\x04\xb0" + b"x" * 1_200,
        FULL_PIECE * 54 + b"d\0\0\x02\xdb" + b"x" * 731 + b"D\0\0\0\x01x",
        FULL_PIECE * 54 + b"d\0\0\x02\xdc" + b"x" * 732 + b"D\0\0\0\0",
        FULL_PIECE * 55 + b"D\0\0\0\0",
        FULL_PIECE * 300 + b"D\0\0\0\x01x",
        b"d\0\0\0\x03xyz" * 21_844 + b"D\0\0\0\0",
    ],
    ids=lambda data: f"{len(data)} bytes",
)
def test_pieces_of_more_than_65531_bytes_together_are_too_long_and_that_is_told_once(data: bytes) -> None:
    (refused, *after) = read(data + READY + b"D\0\0\0\x01x")

    assert refusal(refused) == (ErrorCode.TOO_LONG, False)
    assert isinstance(refused, Unreadable)
    assert "65,531 bytes" in refused.reason
    assert after == [Command("PM"), Data("x")]


def test_what_was_too_long_counts_nothing_for_the_next_text() -> None:
    together = FULL_PIECE * 54 + b"D\0\0\x02\xdb" + b"x" * 731

    assert gist(read(FULL_PIECE * 55 + b"D\0\0\0\0" + together)) == [ErrorCode.TOO_LONG, Data("x" * 65_531)]
    assert gist(read(FULL_PIECE * 50 + READY + together))[1:] == [Command("PM"), Data("x" * 65_531)]
    assert read(together + together) == [Data("x" * 65_531)] * 2


@pytest.mark.parametrize(
    "piece", [FULL_PIECE, b"d\0\0\0\x02PM", b"d\0\0\0\0", frame(b"d", b"x" * 1_201)], ids=lambda p: f"{len(p)}"
)
def test_pieces_without_an_end_are_not_held_beyond_the_limit(piece: bytes) -> None:
    decoder = Datagram().request_decoder()
    empty = held_bytes(decoder)

    several = piece * (LONGEST // len(piece) * 20 + 1)
    for _ in range(3 * LONGEST_TOGETHER // len(several)):
        decoder.decode(several)
        assert held_bytes(decoder) - empty <= LONGEST_TOGETHER + LONGEST


# --- what is no datagram of the dialogue ---


@pytest.mark.parametrize("kind", [b"X", b"c", b"A", b"a", b"\0", b"\n", b"\xff", b"{"])
@pytest.mark.parametrize("payload", [b"", b"PM", b"PING", b"\xff", b"x" * 1_200, b"x" * 1_201], ids=lambda p: p[:5])
def test_an_unknown_kind_is_a_bad_request_and_the_session_goes_on(kind: bytes, payload: bytes) -> None:
    (before, refused, after) = read(READY + frame(kind, payload) + b"D\0\0\0\x01x")

    assert (before, after) == (Command("PM"), Data("x"))
    assert refusal(refused) == (ErrorCode.BAD_REQUEST, False)
    assert isinstance(refused, Unreadable)
    assert f"0x{kind[0]:02x}" in refused.reason


@pytest.mark.parametrize(
    ("other", "requests"),
    [
        (b"C\0\0\0\x02PM", [Command("PM")]),
        (b"C\0\0\0\0", [Command("")]),
        (b"C\0\0\0\x05PINGS", [Command("PINGS")]),
        (b"C\0\0\0\x01\xff", [ErrorCode.BAD_REQUEST]),
        (b"C\0\0\x04\xb1" + b"x" * 1_201, [ErrorCode.TOO_LONG]),
        (b"X\0\0\0\0", [ErrorCode.BAD_REQUEST]),
    ],
    ids=lambda value: f"{value!r:.30}",
)
@pytest.mark.parametrize("begun", [b"d\0\0\0\x02he", b"d\0\0\0\0", FULL_PIECE * 3, FULL_PIECE * 60], ids=len)
def test_what_comes_in_the_middle_of_pieces_ends_them_with_a_bad_request_and_counts(
    begun: bytes, other: bytes, requests: list[Request | ErrorCode]
) -> None:
    decoder = Datagram().request_decoder()
    assert decoder.decode(begun) == []

    found = gist(decoder.decode(other))

    assert found == [ErrorCode.BAD_REQUEST, *requests]
    assert not decoder.is_inside
    assert decoder.decode(b"D\0\0\0\x03llo") == [Data("llo")]


@pytest.mark.parametrize(
    "data",
    [
        b"D\0\0\0\x01\xff",
        b"C\0\0\0\x01\xff",
        b"D\0\0\0\x02\xe2\x82",
        b"C\0\0\0\x06PING \xff",
        b"d\0\0\0\x02\xe2\x82D\0\0\0\x01x",
        b"d\0\0\0\x01\x82D\0\0\0\x01\xac",
        b"d\0\0\0\x01\xffD\0\0\0\0",
        FULL_PIECE + b"D\0\0\0\x01\xac",
    ],
    ids=lambda data: f"{data!r:.40}",
)
def test_what_is_not_utf8_is_a_bad_request_and_the_session_goes_on(data: bytes) -> None:
    (before, refused, after) = read(READY + data + b"D\0\0\0\x01x")

    assert (before, after) == (Command("PM"), Data("x"))
    assert refusal(refused) == (ErrorCode.BAD_REQUEST, False)
    assert isinstance(refused, Unreadable)
    assert "UTF-8" in refused.reason


# --- the end ---


@pytest.mark.parametrize("data", [b"d\0\0\0\x02he", b"d\0\0\0\0", FULL_PIECE * 2, FULL_PIECE * 60, b"d\0\0\0\x02heD"])
def test_a_session_that_ends_in_the_middle_of_pieces_left_a_bad_request(data: bytes) -> None:
    (before, refused) = read(READY + data)

    assert before == Command("PM")
    assert refusal(refused) == (ErrorCode.BAD_REQUEST, False)
