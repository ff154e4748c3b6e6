"""The dialect datagram, what a server says: events and the literal bytes of their datagrams, with their lengths.

Where each one ends is known by then: to the dialect it is a frame of its kind, its length and its payload.
"""

import pytest

from chatprotocol.errors import ErrorCode, ProtocolError
from chatprotocol.events import (
    AccountKind,
    Bye,
    DirectMessage,
    Event,
    History,
    Online,
    PasswordPrompt,
    Pong,
    PublicBatch,
    PublicMessage,
    Ready,
    Refused,
    Run,
    Sent,
    SentBatch,
    SentStatus,
    Users,
    Welcome,
)
from chatprotocol.limits import BODY_MAX_BYTES, ID_MAX
from chatprotocol.wire import Datagram, Frames

from .samples import FRAMES, decode, pieces

NOON_MS = 1_769_860_800_123
HELLO = PublicMessage(18, NOON_MS, "bob", "hello everybody")
PSST = DirectMessage(19, NOON_MS, "bob", "", "hello you")
HELLO_FRAME = b"D\0\0\0\x2bPUBLIC bob 18 1769860800123\nhello everybody"
PSST_FRAME = b"D\0\0\0\x25DIRECT bob 19 1769860800123\nhello you"
# A message of 13 bytes with its header: what is behind them fills the first piece.
HEADER = b"PUBLIC A 1 0\n"
FULL_FIRST = b"d\0\0\x04\xb0" + HEADER + b"x" * 1_187
FULL_PIECE = b"d\0\0\x04\xb0" + b"x" * 1_200

# Each row is one event of the wire: written exactly so, and read back.
BOTH_WAYS: list[tuple[Event, bytes]] = [
    # coming in
    (PasswordPrompt(AccountKind.NEW), b"C\0\0\0\x0cPASSWORD new"),
    (PasswordPrompt(AccountKind.EXISTING), b"C\0\0\0\x11PASSWORD existing"),
    (Welcome(AccountKind.NEW, "", (), None), b"C\0\0\0\x0bWELCOME new"),
    (Welcome(AccountKind.EXISTING, "", (), None), b"C\0\0\0\x10WELCOME existing"),
    (Welcome(AccountKind.NEW, "", (), None, "9f86d081884c7d65"), b"C\0\0\0\x1cWELCOME new 9f86d081884c7d65"),
    (Refused(ErrorCode.WRONG_PASSWORD, "Try again."), b"C\0\0\0\x11DENIED Try again."),
    # the operations
    (Ready(), b"C\0\0\0\x05READY"),
    (Sent(18, SentStatus.SENT), b"C\0\0\0\x07SENT 18"),
    (Sent(18, SentStatus.STORED), b"C\0\0\0\x09STORED 18"),
    (Sent(ID_MAX, SentStatus.SENT), b"C\0\0\0\x18SENT 9223372036854775807"),
    (
        Refused(ErrorCode.UNKNOWN_USER, "There is no user 'bob'; nothing was sent.", about="bob"),
        b"C\0\0\0\x0aNOUSER bob",
    ),
    (Online(("alice", "bob")), b"C\0\0\0\x10ONLINE alice bob"),
    (Online(()), b"C\0\0\0\x06ONLINE"),
    (Pong(), b"C\0\0\0\x04PONG"),
    (History(()), b"C\0\0\0\x09HISTORY 0"),
    (History((HELLO, PSST)), b"C\0\0\0\x09HISTORY 2" + HELLO_FRAME + PSST_FRAME),
    (
        History((PublicMessage(1, 0, "A", "x" * 1_188), PSST)),
        b"C\0\0\0\x09HISTORY 2" + FULL_FIRST + b"D\0\0\0\x01x" + PSST_FRAME,
    ),
    # what arrives by itself
    (HELLO, HELLO_FRAME),
    (PSST, PSST_FRAME),
    (PublicMessage(1, 0, "A", ""), b"D\0\0\0\x0dPUBLIC A 1 0\n"),
    (PublicMessage(1, 0, "A", "d\0\0\0\x01x"), b"D\0\0\0\x13PUBLIC A 1 0\nd\0\0\0\x01x"),
    (Bye("The server is shutting down."), b"C\0\0\0\x20BYE The server is shutting down."),
    # messages at and around the limit
    (PublicMessage(1, 0, "A", "x" * 1_186), b"D\0\0\x04\xaf" + HEADER + b"x" * 1_186),
    (PublicMessage(1, 0, "A", "x" * 1_187), b"D\0\0\x04\xb0" + HEADER + b"x" * 1_187),
    (PublicMessage(1, 0, "A", "x" * 1_188), FULL_FIRST + b"D\0\0\0\x01x"),
    (PublicMessage(1, 0, "A", "x" * 2_386), FULL_FIRST + b"D\0\0\x04\xaf" + b"x" * 1_199),
    (PublicMessage(1, 0, "A", "x" * 2_387), FULL_FIRST + b"D\0\0\x04\xb0" + b"x" * 1_200),
    (PublicMessage(1, 0, "A", "x" * 2_388), FULL_FIRST + FULL_PIECE + b"D\0\0\0\x01x"),
    (PublicMessage(1, 0, "A", "x" * BODY_MAX_BYTES), FULL_FIRST + FULL_PIECE * 5 + b"D\0\0\x03\xed" + b"x" * 1_005),
    # cut in the middle of a letter
    (
        PublicMessage(1, 0, "A", "xx" + "\u20ac" * 396),
        b"d\0\0\x04\xb0" + HEADER + b"xx" + b"\xe2\x82\xac" * 395 + b"D\0\0\0\x03\xe2\x82\xac",
    ),
    (
        PublicMessage(1, 0, "A", "\u20ac" * 396),
        b"d\0\0\x04\xb0" + HEADER + b"\xe2\x82\xac" * 395 + b"\xe2\x82" + b"D\0\0\0\x01\xac",
    ),
    (
        PublicMessage(1, 0, "A", "xx\U0001f600" + "\U0001f600" * 296),
        b"d\0\0\x04\xb0" + HEADER + b"xx" + b"\xf0\x9f\x98\x80" * 296 + b"\xf0" + b"D\0\0\0\x03\x9f\x98\x80",
    ),
    # when something is wrong
    (Refused(ErrorCode.BAD_REQUEST, "No."), b"C\0\0\0\x15ERROR bad_request No."),
    (Refused(ErrorCode.TOO_LONG, "No."), b"C\0\0\0\x12ERROR too_long No."),
    (Refused(ErrorCode.NO_SESSION, "No."), b"C\0\0\0\x14ERROR no_session No."),
    (Refused(ErrorCode.SERVER_FULL, "No."), b"C\0\0\0\x15ERROR server_full No."),
    (Refused(ErrorCode.SHUTTING_DOWN, "No."), b"C\0\0\0\x17ERROR shutting_down No."),
]

# What is written of events that hold more than the dialect can carry.
WRITE_ONLY: list[tuple[Event | Run, bytes]] = [
    (Bye("you left"), b"C\0\0\0\x03BYE"),
    (Welcome(AccountKind.NEW, "alice", ("alice", "bob"), 17), b"C\0\0\0\x0bWELCOME new"),
    (Users(2, ("alice", "bob"), ("bob",), ()), b""),
    (DirectMessage(19, NOON_MS, "bob", "alice", "hello you"), PSST_FRAME),
    (Sent(18, SentStatus.SENT, "7f"), b"C\0\0\0\x07SENT 18"),
    (Refused(ErrorCode.TOO_MANY_ATTEMPTS, "Wait."), b"C\0\0\0\x0cDENIED Wait."),
    # runs are single messages on the wire, each cut by itself
    (
        PublicBatch(9, 5, "A", ("x", "", "\u20ac")),
        b"D\0\0\0\x0ePUBLIC A 9 5\nxD\0\0\0\x0ePUBLIC A 10 5\nD\0\0\0\x11PUBLIC A 11 5\n\xe2\x82\xac",
    ),
    (
        PublicBatch(1, 0, "A", ("x" * 1_188, "y")),
        FULL_FIRST + b"D\0\0\0\x01xD\0\0\0\x0ePUBLIC A 2 0\ny",
    ),
    (SentBatch(9, (None, "7f")), b"C\0\0\0\x06SENT 9C\0\0\0\x07SENT 10"),
    (PublicBatch(9, 5, "A", ()), b""),
]

# What is read as well, though no server of ours writes it.
READ_ONLY: list[tuple[bytes, list[Event]]] = [
    (b"C\0\0\0\x0eERROR too_long", [Refused(ErrorCode.TOO_LONG, "")]),
    (b"C\0\0\0\x10ERROR no_session", [Refused(ErrorCode.NO_SESSION, "")]),
    (b"C\0\0\0\x10ERROR teapot No.", [Refused(ErrorCode.INTERNAL, "No.")]),
    (b"C\0\0\0\x07WEATHER", []),
    # pieces as long as their sender likes
    (b"d\0\0\0\x08PUBLIC Ad\0\0\0\x01 D\0\0\0\x051 0\nx", [PublicMessage(1, 0, "A", "x")]),
    (b"d\0\0\0\x0dPUBLIC A 1 0\nD\0\0\0\0", [PublicMessage(1, 0, "A", "")]),
    (b"d\0\0\0\0D\0\0\0\x0dPUBLIC A 1 0\n", [PublicMessage(1, 0, "A", "")]),
]

# What no client can make sense of.
NO_EVENTS: list[bytes] = [
    b"D\0\0\0\x05hello",
    b"d\0\0\0\x02heD\0\0\0\x03llo",
    b"d\0\0\0\x0dPUBLIC A 1 0\nD\0\0\0\x01\xff",
    b"d\0\0\0\x0fPUBLIC A 1 0\n\xe2\x82D\0\0\0\x01x",
    b"C\0\0\0\x04SENT",
    b"C\0\0\0\x01\xff",
    # kinds that are none; acknowledgements have been taken out by then
    b"X\0\0\0\0",
    b"A\0\0\0\0",
    b"\0\0\0\0\0",
    b"HTTP/1.1 400 Bad Request\r\n",
    b"D\0\x01\0\0",
    # more pieces than there may be
    FULL_FIRST + FULL_PIECE * 53 + b"D\0\0\x02\xdc" + b"x" * 732,
    FULL_FIRST + FULL_PIECE * 54 + b"D\0\0\0\0",
    FULL_FIRST + FULL_PIECE * 300 + b"D\0\0\0\0",
]


@pytest.mark.parametrize(("event", "data"), BOTH_WAYS, ids=lambda value: f"{value!r:.60}")
def test_an_event_is_written_as_its_datagrams(event: Event, data: bytes) -> None:
    assert Datagram().encode(event) == data


@pytest.mark.parametrize(("event", "data"), BOTH_WAYS, ids=lambda value: f"{value!r:.60}")
def test_datagrams_are_read_as_their_event(event: Event, data: bytes) -> None:
    for size in (len(data), 1_000, 1):
        assert decode(Datagram().event_decoder(), pieces(data, size)) == [event]


@pytest.mark.parametrize(("event", "data"), WRITE_ONLY, ids=lambda value: f"{value!r:.60}")
def test_of_an_event_that_holds_more_there_is_written_what_the_wire_can_carry(event: Event | Run, data: bytes) -> None:
    assert Datagram().encode_all([event]) == data


@pytest.mark.parametrize(("data", "events"), READ_ONLY, ids=lambda value: f"{value!r:.60}")
def test_other_servers_are_understood(data: bytes, events: list[Event]) -> None:
    assert Datagram().event_decoder().decode(data) == events
    assert Datagram().event_decoder().decode(data + b"C\0\0\0\x04PONG" + data) == [*events, Pong(), *events]


@pytest.mark.parametrize("event", FRAMES.said, ids=lambda value: f"{value!r:.60}")
def test_what_fits_one_datagram_is_said_as_in_frames(event: Event) -> None:
    assert Datagram().encode(event) == Frames().encode(event)


@pytest.mark.parametrize("data", NO_EVENTS, ids=lambda data: f"{data!r:.40} {len(data)}")
@pytest.mark.parametrize("before", [b"", b"C\0\0\0\x04PONG", b"C\0\0\0\x09HISTORY 2" + HELLO_FRAME], ids=len)
def test_what_makes_no_sense_is_a_protocol_error_of_one_line(data: bytes, before: bytes) -> None:
    for size in (len(before + data), 1_000):
        with pytest.raises(ProtocolError) as error:
            decode(Datagram().event_decoder(), pieces(before + data, size))
        assert "\n" not in str(error.value)
        assert len(str(error.value)) < 300


def test_pieces_of_65531_bytes_together_are_read() -> None:
    data = FULL_FIRST + FULL_PIECE * 53 + b"D\0\0\x02\xdb" + b"x" * 731

    assert Datagram().event_decoder().decode(data) == [PublicMessage(1, 0, "A", "x" * (65_531 - 13))]


@pytest.mark.parametrize("data", [FULL_FIRST, FULL_FIRST + FULL_PIECE * 3, b"d\0\0\0\0", b"D\0\0\0\x0dPUBLIC A"])
def test_half_an_event_is_as_good_as_none(data: bytes) -> None:
    assert Datagram().event_decoder().decode(data) == []


# --- who is online ---


@pytest.mark.parametrize(("letters", "fits"), [(5, True), (6, False)])
def test_who_is_online_fills_a_datagram_to_its_last_byte(letters: int, fits: bool) -> None:
    names = tuple(f"{number:032d}" for number in range(36))
    last = "x" * letters

    data = Datagram().encode(Online((*names, last)))

    assert (data[:5] == b"C\0\0\x04\xb0") is fits
    assert Datagram().event_decoder().decode(data) == [Online((*names, last) if fits else names)]


def test_of_those_who_are_online_as_many_are_named_as_fit_a_datagram() -> None:
    names = tuple(f"user{number:04d}" for number in range(1_000))

    data = Datagram().encode(Online(names))

    assert data[:5] == b"C\0\0\x04\xaa"
    assert len(data) == 5 + 6 + 9 * 132
    assert Datagram().event_decoder().decode(data) == [Online(names[:132])]
