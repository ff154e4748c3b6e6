"""The dialect frames, what a client sends: literal bytes and the steps that they are."""

import pytest

from chatprotocol.errors import ErrorCode
from chatprotocol.limits import BODY_MAX_BYTES, FRAME_MAX_BYTES
from chatprotocol.requests import Command, CommandBatch, Data, Request, Unreadable
from chatprotocol.wire.frames import Frames

from .samples import decode, pieces, unfold

PING = b"C\0\0\0\x04PING"
# The longest payload: a frame has 65,536 bytes at most, with the five of its header.
LONGEST = 65_531


def read(data: bytes) -> list[Request]:
    """The steps of one connection that sends this and closes; fed whole and in pieces it must be the same."""
    found = []
    for size in (max(1, len(data)), 1, 2, 7, 4096):
        if len(data) / size > 2_000:
            continue
        decoder = Frames().request_decoder()
        found.append(unfold([*decode(decoder, pieces(data, size)), *decoder.end()]))
    for other in found[1:]:
        assert other == found[0], "in pieces it was something else than whole"
    return found[0]


def refusal_of(data: bytes) -> Unreadable:
    """The one request of this data, which can't be read."""
    (refused,) = read(data)
    assert isinstance(refused, Unreadable)
    assert "\n" not in refused.reason
    assert refused.nonce is None
    return refused


# --- each step, as docs/wire/frames.md spells it: literal bytes, and what is read from and written for it ---

BOTH_WAYS: list[tuple[bytes, Request]] = [
    # coming in
    (b"C\0\0\0\x05alice", Command("alice")),
    (b"C\0\0\0\x0balice bm-pm", Command("alice bm-pm")),
    (b"C\0\0\0\x0balice pm-dm", Command("alice pm-dm")),
    (b"C\0\0\0\x06secret", Command("secret")),
    (b"C\0\0\0\x0da b \xe2\x82\xac  \xf0\x9f\x98\x80", Command("a b \u20ac  \U0001f600")),
    # the operations
    (bytes.fromhex("43 00 00 00 02 50 4d"), Command("PM")),
    (b"C\0\0\0\x02PM", Command("PM")),
    (b"C\0\0\0\x02BM", Command("BM")),
    (b"C\0\0\0\x02DM", Command("DM")),
    (b"C\0\0\0\x02CH", Command("CH")),
    (b"C\0\0\0\x02EX", Command("EX")),
    (b"C\0\0\0\x03bob", Command("bob")),
    (b"D\0\0\0\x0fhello everybody", Data("hello everybody")),
    (b"C\0\0\0\x06CH 200", Command("CH 200")),
    (b"C\0\0\0\x05USERS", Command("USERS")),
    (b"C\0\0\0\x04PING", Command("PING")),
    # spelled as they came: what they mean is for the dialogue to say
    (b"C\0\0\0\x02pm", Command("pm")),
    (b"C\0\0\0\x04 PM\n", Command(" PM\n")),
    (b"C\0\0\0\x0dno such thing", Command("no such thing")),
    # no payload
    (b"C\0\0\0\0", Command("")),
    (b"D\0\0\0\0", Data("")),
    # texts: the length counts bytes
    (b"D\0\0\0\x01x", Data("x")),
    (b"D\0\0\0\x04a\r\nb", Data("a\r\nb")),
    (b"D\0\0\0\x0bthree\n\nline", Data("three\n\nline")),
    (b"D\0\0\0\x08\xe2\x82\xac \xf0\x9f\x98\x80", Data("\u20ac \U0001f600")),
    (b"D\0\0\0\x02\0\x1b", Data("\0\x1b")),
    (b"D\0\0\0\x03\xef\xbb\xbf", Data("\ufeff")),
    # a text that looks like frames
    (b"D\0\0\0\x07C\0\0\0\x02PM", Data("C\0\0\0\x02PM")),
    (b"D\0\0\0\x05D\0\0\0\0", Data("D\0\0\0\0")),
    (b"C\0\0\0\x06D\0\0\0\x01x", Command("D\0\0\0\x01x")),
    # every byte of the length counts
    (b"D\0\0\0\xff" + b"x" * 255, Data("x" * 255)),
    (b"D\0\0\x01\0" + b"x" * 256, Data("x" * 256)),
    (b"D\0\0\x20\0" + b"x" * 8192, Data("x" * BODY_MAX_BYTES)),
    (b"D\0\0\xff\xfb" + b"x" * LONGEST, Data("x" * LONGEST)),
    (b"C\0\0\xff\xfb" + b"x" * LONGEST, Command("x" * LONGEST)),
]

NOT_UTF8: list[bytes] = [
    b"D\0\0\0\x01\xff",
    b"C\0\0\0\x01\xff",
    b"D\0\0\0\x01\x80",
    b"D\0\0\0\x02\xe2\x82",
    b"D\0\0\0\x02\xc0\xaf",
    b"D\0\0\0\x03\xed\xa0\x80",
    b"D\0\0\0\x04\xf4\x90\x80\x80",
    b"D\0\0\0\x06hello\xff",
]

# What can't be the beginning of a frame, with the code of the refusal, and what stands in the reason.
BROKEN: list[tuple[bytes, ErrorCode, str]] = [
    (b"X", ErrorCode.BAD_REQUEST, "0x58"),
    (b"c", ErrorCode.BAD_REQUEST, "0x63"),
    (b"d\0\0\0\0", ErrorCode.BAD_REQUEST, "0x64"),
    (b"\0", ErrorCode.BAD_REQUEST, "0x00"),
    (b"\n", ErrorCode.BAD_REQUEST, "0x0a"),
    (b"\xff\0\0\0\x01x", ErrorCode.BAD_REQUEST, "0xff"),
    (b"C\xff\xff\xff\xff", ErrorCode.TOO_LONG, "4,294,967,300"),
    (b"D\xff\xff\xff\xff", ErrorCode.TOO_LONG, "4,294,967,300"),
    (b"D\x01\0\0\0", ErrorCode.TOO_LONG, "16,777,221"),
    (b"D\0\x01\0\0", ErrorCode.TOO_LONG, "65,541"),
    (b"D\0\0\xff\xfc", ErrorCode.TOO_LONG, "65,537"),
    (b"C\0\0\xff\xfc", ErrorCode.TOO_LONG, "65,537"),
]
# Public messages that pour in, which are read in a way of their own.
POUR = b"C\0\0\0\x02PMD\0\0\0\x05hello" * 8


@pytest.mark.parametrize(("data", "request_"), BOTH_WAYS, ids=lambda value: f"{value!r:.60}")
def test_a_frame_is_read_as_its_step(data: bytes, request_: Request) -> None:
    assert read(data) == [request_]


@pytest.mark.parametrize(("data", "request_"), BOTH_WAYS, ids=lambda value: f"{value!r:.60}")
def test_a_step_is_written_as_its_frame(data: bytes, request_: Request) -> None:
    assert Frames().encode_request(request_) == data


def test_a_dialogue_sent_ahead_is_read_step_by_step() -> None:
    stream = (
        b"C\0\0\0\x05aliceC\0\0\0\x06secret"
        b"C\0\0\0\x02PMD\0\0\0\x0fhello everybody"
        b"C\0\0\0\x02DMC\0\0\0\x03bobD\0\0\0\x04psst"
        b"C\0\0\0\x02CHC\0\0\0\x02EX"
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
        Command("EX"),
    ]


# --- what is no text ---


@pytest.mark.parametrize("data", NOT_UTF8)
def test_a_payload_that_is_not_utf8_is_a_bad_request_and_the_connection_goes_on(data: bytes) -> None:
    refused = refusal_of(data)

    assert (refused.code, refused.closes) == (ErrorCode.BAD_REQUEST, False)
    assert "UTF-8" in refused.reason


@pytest.mark.parametrize("data", NOT_UTF8)
def test_a_payload_that_is_not_utf8_costs_the_other_frames_nothing(data: bytes) -> None:
    bad = refusal_of(data)

    assert read(PING + data + b"D\0\0\0\x01x" + data + PING) == [
        Command("PING"),
        bad,
        Data("x"),
        bad,
        Command("PING"),
    ]


# --- where nobody can tell any more where the next frame begins ---


@pytest.mark.parametrize(("data", "code", "said"), BROKEN, ids=repr)
@pytest.mark.parametrize("before", [b"", PING, b"D\0\0\0\0", PING * 3, b"D\0\0\0\x01\xff"], ids=repr)
def test_what_is_no_frame_closes_the_connection_and_what_was_before_it_counts(
    data: bytes, code: ErrorCode, said: str, before: bytes
) -> None:
    *found, refused = read(before + data)

    assert found == read(before)
    assert isinstance(refused, Unreadable)
    assert (refused.code, refused.closes) == (code, True)
    assert said in refused.reason


@pytest.mark.parametrize("data", [data for data, _, _ in BROKEN])
@pytest.mark.parametrize("behind", [PING, b"x" * 70_000, b"X", b"C\xff\xff\xff\xff", POUR[:16]], ids=lambda b: b[:9])
def test_nothing_is_read_behind_what_is_no_frame_and_it_is_reported_once(data: bytes, behind: bytes) -> None:
    together, apart = Frames().request_decoder(), Frames().request_decoder()

    assert len(together.decode(data + behind)) == 1
    assert len(apart.decode(data)) == 1
    for decoder in (together, apart):
        assert decoder.decode(b"") == []
        assert decoder.decode(behind) == []
        assert decoder.decode(PING) == []
        assert not decoder.is_inside
        assert decoder.end() == []


@pytest.mark.parametrize("data", [data for data, _, _ in BROKEN])
def test_messages_that_pour_in_behind_what_is_no_frame_are_not_read_either(data: bytes) -> None:
    together, apart = Frames().request_decoder(), Frames().request_decoder()

    assert len(together.decode(data + POUR)) == 1
    assert len(apart.decode(data)) == 1
    for decoder in (together, apart):
        assert decoder.decode(POUR) == []


@pytest.mark.parametrize("size_bytes", [1, 2, 3, 4])
def test_a_length_is_not_judged_before_it_is_whole(size_bytes: int) -> None:
    decoder = Frames().request_decoder()

    assert decoder.decode(b"C\xff\xff\xff\xff"[:size_bytes]) == []
    assert decoder.is_inside


# --- size ---


@pytest.mark.parametrize("kind", [b"C", b"D"])
@pytest.mark.parametrize("piece_bytes", [1_000, 65_535, 65_536, 65_537, 200_000])
def test_a_frame_of_65536_bytes_is_read(kind: bytes, piece_bytes: int) -> None:
    data = kind + b"\0\0\xff\xfb" + b"x" * LONGEST
    assert len(data) == FRAME_MAX_BYTES == 65_536

    requests = decode(Frames().request_decoder(), pieces(data + PING, piece_bytes))

    assert requests == [(Command if kind == b"C" else Data)("x" * LONGEST), Command("PING")]


@pytest.mark.parametrize("kind", [b"C", b"D"])
@pytest.mark.parametrize("piece_bytes", [5, 1_000, 65_535, 65_536, 65_537, 200_000])
def test_a_frame_of_65537_bytes_is_refused_though_all_of_it_may_have_come(kind: bytes, piece_bytes: int) -> None:
    data = kind + b"\0\0\xff\xfc" + b"x" * (LONGEST + 1)

    (refused,) = decode(Frames().request_decoder(), pieces(data + PING, piece_bytes))

    assert isinstance(refused, Unreadable)
    assert (refused.code, refused.closes) == (ErrorCode.TOO_LONG, True)
    assert "65,536 bytes" in refused.reason
    assert "65,537" in refused.reason


def test_the_longest_message_fits_a_frame_whatever_its_letters() -> None:
    text = "\U0001f600" * (BODY_MAX_BYTES // 4)

    assert read(b"D\0\0\x20\0" + b"\xf0\x9f\x98\x80" * 2048) == [Data(text)]


# --- the end ---


@pytest.mark.parametrize("data", [b"C\0\0\0\x05alice", b"D\0\0\0\x01\xff", b"C\0\0\0\0", b"D\0\0\0\x05hello"])
@pytest.mark.parametrize("before", [b"", PING])
def test_a_connection_that_ends_in_the_middle_of_a_frame_left_a_bad_request(data: bytes, before: bytes) -> None:
    for size in range(1, len(data)):
        *found, refused = read(before + data[:size])

        assert found == read(before)
        assert isinstance(refused, Unreadable)
        assert (refused.code, refused.closes) == (ErrorCode.BAD_REQUEST, False)
        assert f" {size} bytes" in refused.reason


@pytest.mark.parametrize("data", [b"", PING, b"D\0\0\0\0", b"D\0\0\0\x01\xff"])
def test_an_end_between_two_frames_is_no_error(data: bytes) -> None:
    decoder = Frames().request_decoder()
    decoder.decode(data)

    assert not decoder.is_inside
    assert decoder.end() == []


# --- runs ---


@pytest.mark.parametrize("word", ["PM", "BM"])
def test_public_messages_that_pour_in_are_one_run_up_to_the_last(word: str) -> None:
    """The last one may not have come to its end."""
    first = b"C\0\0\0\x02" + word.encode()
    data = first + b"D\0\0\0\x01a" + first + b"D\0\0\0\0" + first + b"D\0\0\0\x04\xf0\x9f\x98\x80" + first

    for last, requests in ((b"", [Command(word)]), (b"D\0\0\0\x01d", [Command(word), Data("d")])):
        found = Frames().request_decoder().decode(PING + data + last)
        assert found == [Command("PING"), CommandBatch(word, ["a", "", "\U0001f600"]), *requests]


def test_a_run_is_the_steps_that_it_stands_for() -> None:
    assert list(CommandBatch("PM", ("a", "b"))) == [Command("PM"), Data("a"), Command("PM"), Data("b")]


@pytest.mark.parametrize(
    ("between", "requests"),
    [
        (b"C\0\0\0\x01a", [Command("a")]),
        (b"D\0\0\0\x01aD\0\0\0\x01b", [Data("a"), Data("b")]),
        (b"", []),
        (b"D\0\0\0\x01aC\0\0\0\x04PING", [Data("a"), Command("PING")]),
        (b"C\0\0\0\x02DM", [Command("DM")]),
    ],
)
def test_where_something_else_stands_between_them_every_step_is_read_by_itself(
    between: bytes, requests: list[Request]
) -> None:
    pm, text = b"C\0\0\0\x02PM", b"D\0\0\0\x01x"

    assert read((pm + text) * 3 + pm + between + (pm + text) * 3) == [
        *[Command("PM"), Data("x")] * 3,
        Command("PM"),
        *requests,
        *[Command("PM"), Data("x")] * 3,
    ]


def test_a_text_full_of_first_steps_is_a_text() -> None:
    text = "C\0\0\0\x02PM" * 6

    assert read(b"D\0\0\0\x2a" + text.encode()) == [Data(text)]
    assert read(b"C\0\0\0\x02PMD\0\0\0\x2a" + text.encode()) == [Command("PM"), Data(text)]


def test_a_text_that_looks_like_messages_pouring_in_is_a_text_though_its_beginning_came_before() -> None:
    decoder = Frames().request_decoder()

    assert decoder.decode(b"C\0\0\0\x02PMD\0\0\0\x88") == [Command("PM")]
    assert decoder.decode(POUR) == [Data(POUR.decode())]
    assert decoder.decode(POUR[:7]) == [Command("PM")]
