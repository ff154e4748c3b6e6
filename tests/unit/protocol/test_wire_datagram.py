"""The wire format datagram, in what it adds to frames: data in pieces, limits of a datagram, pings, unknown kinds.

The conformance suite tests what all wire formats share. Here a datagram is a frame: kind, payload length, payload.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from raw_steps import Command, Data, encode_request, new_server, receive

from chatprotocol.errors import ErrorCode, ProtocolError
from chatprotocol.events import Event, EventBatch, History, PublicBatch, PublicMessage, Users
from chatprotocol.limits import BODY_MAX_BYTES
from chatprotocol.requests import Ping, Request, Unreadable
from chatprotocol.wire import Datagram, Frames
from chatprotocol.wire.base import Online

from .samples import FRAMES, decode, pieces

# Limit of one payload, and of all pieces of one payload together.
PAYLOAD_MAX = 1_200
WHOLE_MAX = 65_531


def frame(kind: str, payload: bytes) -> bytes:
    return kind.encode("latin-1") + len(payload).to_bytes(4, "big") + payload


PING, PM, END, X = frame("C", b"PING"), frame("C", b"PM"), frame("D", b""), frame("D", b"x")
FULL_PIECE, LONG_PIECE = frame("d", b"x" * PAYLOAD_MAX), frame("d", b"x" * (PAYLOAD_MAX + 1))
# 54 full pieces and a last one reach the limit of all pieces together.
LAST_BYTES = WHOLE_MAX - 54 * PAYLOAD_MAX
BAD, TOO_LONG = ErrorCode.BAD_REQUEST, ErrorCode.TOO_LONG

texts = st.text(st.sampled_from("x\n\0\u20ac\U0001f600"), max_size=4 * PAYLOAD_MAX)


def read(data: bytes) -> list[Request | ErrorCode]:
    """The requests of a session that sends this and ends; an unreadable one as its code. No error closes a session."""
    found: list[Request | ErrorCode] = []
    decoder = new_server(Datagram())
    for request in [*receive(decoder, data), *decoder.receive_end()]:
        if not isinstance(request, Unreadable):
            found.append(request)
            continue
        assert (request.closes, request.nonce, "\n" in request.reason) == (False, None, False)
        found.append(request.code)
    return found


@given(text=texts)
def test_data_is_sent_in_pieces_of_1200_bytes(text: str) -> None:
    """Characters may be cut."""
    payload = text.encode()
    cut = [payload[at : at + PAYLOAD_MAX] for at in range(0, len(payload), PAYLOAD_MAX)] or [b""]
    expected = b"".join(frame("d", each) for each in cut[:-1]) + frame("D", cut[-1])
    assert encode_request(Datagram(), Data(text)) == expected
    assert read(expected + PM) == [Data(text), Command("PM")]


@pytest.mark.parametrize("size", [1_186, 1_187, 1_188, 2_387, 2_388, BODY_MAX_BYTES])
@pytest.mark.parametrize("letter", ["x", "\u20ac"])
def test_message_is_sent_in_pieces_of_1200_bytes(size: int, letter: str) -> None:
    message = PublicMessage(1, 0, "A", (letter * size).encode()[:size].decode(errors="ignore").ljust(1))
    payload = b"PUBLIC A 1 0\n" + message.text.encode()
    cut = [payload[at : at + PAYLOAD_MAX] for at in range(0, len(payload), PAYLOAD_MAX)]
    expected = b"".join(frame("d", each) for each in cut[:-1]) + frame("D", cut[-1])
    assert Datagram().encode_all([message]) == expected
    for size_bytes in (len(expected), 1_000, 7):
        assert decode(Datagram().client().event_decoder(), pieces(expected, size_bytes)) == [message]


def test_each_message_of_a_history_or_batch_has_its_own_pieces() -> None:
    long, short = PublicMessage(1, 0, "A", "x" * 1_188), PublicMessage(2, 0, "A", "y")
    both = frame("d", b"PUBLIC A 1 0\n" + b"x" * 1_187) + X + frame("D", b"PUBLIC A 2 0\ny")
    batch: list[Event | EventBatch] = [PublicBatch(1, 0, "A", (long.text, short.text))]
    assert Datagram().encode_all([History((long, short))]) == frame("C", b"HISTORY 2") + both
    assert Datagram().encode_all(batch) == both
    assert Datagram().client().event_decoder().decode(frame("C", b"HISTORY 2") + both) == [History((long, short))]


@pytest.mark.parametrize("event", FRAMES.said, ids=lambda value: f"{value!r:.60}")
def test_event_that_fits_one_datagram_is_encoded_as_in_frames(event: Event) -> None:
    assert Datagram().encode_all([event]) == Frames().encode_all([event])


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (frame("d", b"hel") + frame("D", b"lo"), "hello"),
        (frame("d", b"h") + frame("d", b"") + frame("D", b"i"), "hi"),
        (frame("d", b"") + END, ""),
        (frame("d", b"\xe2") + frame("d", b"\x82") + frame("D", b"\xac"), "\u20ac"),
        (frame("d", b"PING") + END, "PING"),
        (FULL_PIECE * 54 + frame("D", b"x" * LAST_BYTES), "x" * WHOLE_MAX),
        (FULL_PIECE * 54 + frame("d", b"x" * LAST_BYTES) + END, "x" * WHOLE_MAX),
    ],
    ids=lambda value: f"{value!r:.30}",
)
def test_pieces_of_any_length_are_joined(data: bytes, text: str) -> None:
    decoder = new_server(Datagram())
    assert [request for part in pieces(data, 1_000) for request in receive(decoder, part)] == [Data(text)]
    assert not decoder.is_incomplete
    assert receive(decoder, data) == [Data(text)], "nothing is left of the first one"


@pytest.mark.parametrize("ping", [PING, frame("C", b" \tPING\r\n"), frame("C", b"PING".ljust(PAYLOAD_MAX))])
@pytest.mark.parametrize("place", range(7))
def test_ping_is_read_anywhere_and_changes_nothing(ping: bytes, place: int) -> None:
    """Also between two pieces. It is answered before the data around it."""
    frames = [PM, frame("d", b"he"), frame("d", b"l"), frame("D", b"lo"), PM, X]
    frames.insert(place, ping)
    expected: list[Request] = [Command("PM"), Data("hello"), Command("PM"), Data("x")]
    expected.insert({0: 0, 1: 1, 2: 1, 3: 1, 4: 2, 5: 3, 6: 4}[place], Ping())
    assert read(b"".join(frames)) == expected


@pytest.mark.parametrize("text", ["ping", "PING 1", "PINGS", "\0PING", "\xa0PING"])
def test_command_that_resembles_a_ping_is_a_command(text: str) -> None:
    assert read(frame("C", text.encode())) == [Command(text)]
    assert read(frame("D", b"PING")) == [Data("PING")]


@pytest.mark.parametrize(
    "data",
    [
        frame("C", b"x" * 1_201),
        frame("D", b"x" * 1_201),
        frame("D", b"x" * WHOLE_MAX),
        LONG_PIECE + X,
        LONG_PIECE * 3 + END,
        FULL_PIECE + frame("D", b"x" * 1_201),
        FULL_PIECE * 3 + LONG_PIECE + FULL_PIECE * 60 + frame("D", b"x" * 1_200),
        FULL_PIECE * 54 + frame("D", b"x" * (LAST_BYTES + 1)),
        FULL_PIECE * 54 + frame("d", b"x" * (LAST_BYTES + 1)) + END,
        FULL_PIECE * 300 + X,
    ],
    ids=lambda data: f"{data[:1].decode()} {len(data)}",
)
def test_data_over_a_limit_is_refused_once(data: bytes) -> None:
    """The next requests count. Nothing is held of the refused data."""
    assert read(data + PM + X) == [TOO_LONG, Command("PM"), Data("x")]
    assert read(data + FULL_PIECE * 54 + frame("D", b"x" * LAST_BYTES)) == [TOO_LONG, Data("x" * WHOLE_MAX)]


@pytest.mark.parametrize(
    ("data", "limit"), [(LONG_PIECE + END, "1,200 bytes"), (FULL_PIECE * 55 + END, "65,531 bytes")]
)
def test_refusal_names_the_limit(data: bytes, limit: str) -> None:
    (refused,) = receive(new_server(Datagram()), data)
    assert isinstance(refused, Unreadable)
    assert limit in refused.reason


@pytest.mark.parametrize("letter", ["x", "\u20ac", "\U0001f600"])
def test_command_over_the_limit_is_cut_between_characters(letter: str) -> None:
    """The server refuses the cut one as well."""
    (request,) = read(encode_request(Datagram(), Command("x" + letter * 1_200)))
    assert isinstance(request, Command)
    assert request.text.strip(letter) in {"", "x"}
    assert PAYLOAD_MAX - 4 < len(request.text.encode()) <= PAYLOAD_MAX


@pytest.mark.parametrize(("letters", "fits"), [(5, True), (6, False)])
def test_online_names_as_many_users_as_fit_one_datagram(letters: int, fits: bool) -> None:
    names = tuple(f"{number:032d}" for number in range(36))
    last = "x" * letters
    data = Datagram().server().encode([Users(users=(*names, last))])
    assert (len(data) == 5 + PAYLOAD_MAX) is fits
    assert Datagram().client().event_decoder().decode(data) == [Online((*names, last) if fits else names)]


@pytest.mark.parametrize("kind", ["X", "c", "A", "\0", "\xff"])
@pytest.mark.parametrize("payload", [b"", b"PING", b"\xff", b"x" * 1_201], ids=len)
def test_unknown_kind_is_refused_with_its_byte(kind: str, payload: bytes) -> None:
    (before, refused, after) = receive(new_server(Datagram()), PM + frame(kind, payload) + X)
    assert (before, after) == (Command("PM"), Data("x"))
    assert isinstance(refused, Unreadable)
    assert (refused.code, refused.closes) == (BAD, False)
    assert f"0x{ord(kind):02x}" in refused.reason


@pytest.mark.parametrize(
    ("other", "found"),
    [
        (PM, Command("PM")),
        (frame("C", b"PINGS"), Command("PINGS")),
        (frame("C", b"\xff"), BAD),
        (frame("C", b"x" * 1_201), TOO_LONG),
        (frame("X", b""), BAD),
    ],
    ids=lambda value: f"{value!r:.30}",
)
@pytest.mark.parametrize("begun", [frame("d", b"he"), frame("d", b""), FULL_PIECE * 60], ids=len)
def test_other_kind_between_pieces_ends_them(begun: bytes, other: bytes, found: Request | ErrorCode) -> None:
    """One error for the pieces; the other datagram counts."""
    assert read(begun + other + frame("D", b"llo")) == [BAD, found, Data("llo")]


@pytest.mark.parametrize(
    "data",
    [
        frame("D", b"\xff"),
        frame("C", b"PING \xff"),
        frame("d", b"\xe2\x82") + X,
        frame("d", b"\xff") + END,
        FULL_PIECE + frame("D", b"\xac"),
    ],
    ids=lambda data: f"{data!r:.40}",
)
def test_data_that_is_not_utf8_is_refused(data: bytes) -> None:
    assert read(PM + data + X) == [Command("PM"), BAD, Data("x")]


@pytest.mark.parametrize("begun", [frame("d", b"he"), frame("d", b""), FULL_PIECE * 60, frame("d", b"he") + b"D"])
def test_session_that_ends_between_pieces_is_reported(begun: bytes) -> None:
    assert read(PM + begun) == [Command("PM"), BAD]


@pytest.mark.parametrize(
    "data",
    [
        frame("d", b"he") + frame("D", b"llo"),
        frame("d", b"PUBLIC A 1 0\n\xe2\x82") + X,
        frame("X", b""),
        frame("A", b""),
        b"HTTP/1.1 400 Bad Request\r\n",
        frame("d", b"PUBLIC A 1 0\n" + b"x" * 1_187) + FULL_PIECE * 300 + END,
    ],
    ids=lambda data: f"{data!r:.40}",
)
@pytest.mark.parametrize("before", [b"", frame("C", b"PONG"), frame("C", b"HISTORY 2")], ids=len)
def test_invalid_datagram_of_a_server_is_a_protocol_error(data: bytes, before: bytes) -> None:
    with pytest.raises(ProtocolError) as error:
        Datagram().client().event_decoder().decode(before + data)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300
