"""The dialect frames, what a server says: events and the literal bytes that they are."""

import itertools

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
from chatprotocol.limits import BODY_MAX_BYTES, FRAME_MAX_BYTES, ID_MAX
from chatprotocol.wire import frames_text
from chatprotocol.wire.frames import Frames

from .samples import decode, pieces

NOON_MS = 1_769_860_800_123
HELLO = PublicMessage(18, NOON_MS, "bob", "hello everybody")
PSST = DirectMessage(19, NOON_MS, "bob", "", "hello you")
HELLO_FRAME = b"D\0\0\0\x2bPUBLIC bob 18 1769860800123\nhello everybody"
PSST_FRAME = b"D\0\0\0\x25DIRECT bob 19 1769860800123\nhello you"

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
    (
        Refused(ErrorCode.UNKNOWN_USER, "There is no user 'no one'; nothing was sent.", about="no one"),
        b"C\0\0\0\x0dNOUSER no one",
    ),
    (Refused(ErrorCode.UNKNOWN_USER, "There is no user ''; nothing was sent.", about=""), b"C\0\0\0\x07NOUSER "),
    (Refused(ErrorCode.UNKNOWN_USER, "Nobody."), b"C\0\0\0\x1aERROR unknown_user Nobody."),
    (Online(("alice", "bob")), b"C\0\0\0\x10ONLINE alice bob"),
    (Online(("alice",)), b"C\0\0\0\x0cONLINE alice"),
    (Online(()), b"C\0\0\0\x06ONLINE"),
    (Pong(), b"C\0\0\0\x04PONG"),
    (History(()), b"C\0\0\0\x09HISTORY 0"),
    (History((HELLO,)), b"C\0\0\0\x09HISTORY 1" + HELLO_FRAME),
    (History((HELLO, PSST)), b"C\0\0\0\x09HISTORY 2" + HELLO_FRAME + PSST_FRAME),
    (History((PSST,) * 50), b"C\0\0\0\x0aHISTORY 50" + PSST_FRAME * 50),
    # what arrives by itself
    (HELLO, HELLO_FRAME),
    (PSST, PSST_FRAME),
    (PublicMessage(1, 0, "A", ""), b"D\0\0\0\x0dPUBLIC A 1 0\n"),
    (DirectMessage(1, 0, "z9", "", "\n"), b"D\0\0\0\x0fDIRECT z9 1 0\n\n"),
    (PublicMessage(1, 0, "A", "three\n\nlines\n"), b"D\0\0\0\x1aPUBLIC A 1 0\nthree\n\nlines\n"),
    (PublicMessage(1, 0, "A", "\u20ac \U0001f600"), b"D\0\0\0\x15PUBLIC A 1 0\n\xe2\x82\xac \xf0\x9f\x98\x80"),
    (PublicMessage(1, 0, "A", "\r\n\0\x1b\x7f"), b"D\0\0\0\x12PUBLIC A 1 0\n\r\n\0\x1b\x7f"),
    (DirectMessage(1, 0, "A", "", "DIRECT B 2 0\nx"), b"D\0\0\0\x1bDIRECT A 1 0\nDIRECT B 2 0\nx"),
    (PublicMessage(1, 0, "A", "C\0\0\0\x03BYE"), b"D\0\0\0\x15PUBLIC A 1 0\nC\0\0\0\x03BYE"),
    (
        PublicMessage(ID_MAX, 253_402_300_799_999, "A", "x"),
        b"D\0\0\0\x2ePUBLIC A 9223372036854775807 253402300799999\nx",
    ),
    (PublicMessage(1, 0, "A", "x" * BODY_MAX_BYTES), b"D\0\0\x20\x0dPUBLIC A 1 0\n" + b"x" * 8192),
    (Bye("The server is shutting down."), b"C\0\0\0\x20BYE The server is shutting down."),
    (Bye("not logged in"), b"C\0\0\0\x11BYE not logged in"),
    # when something is wrong
    (Refused(ErrorCode.BAD_REQUEST, "No."), b"C\0\0\0\x15ERROR bad_request No."),
    (Refused(ErrorCode.UNKNOWN_COMMAND, "No."), b"C\0\0\0\x19ERROR unknown_command No."),
    (Refused(ErrorCode.NOT_LOGGED_IN, "No."), b"C\0\0\0\x17ERROR not_logged_in No."),
    (Refused(ErrorCode.BAD_USERNAME, "No."), b"C\0\0\0\x16ERROR bad_username No."),
    (Refused(ErrorCode.EMPTY_MESSAGE, "No."), b"C\0\0\0\x17ERROR empty_message No."),
    (Refused(ErrorCode.TOO_LONG, "No."), b"C\0\0\0\x12ERROR too_long No."),
    (Refused(ErrorCode.RATE_LIMITED, "No."), b"C\0\0\0\x16ERROR rate_limited No."),
    (Refused(ErrorCode.SERVER_FULL, "No."), b"C\0\0\0\x15ERROR server_full No."),
    (Refused(ErrorCode.NO_SESSION, "No."), b"C\0\0\0\x14ERROR no_session No."),
    (Refused(ErrorCode.SHUTTING_DOWN, "No."), b"C\0\0\0\x17ERROR shutting_down No."),
    (Refused(ErrorCode.INTERNAL, "No."), b"C\0\0\0\x12ERROR internal No."),
    (Refused(ErrorCode.BAD_JSON, "No."), b"C\0\0\0\x12ERROR bad_json No."),
    (
        Refused(ErrorCode.BAD_REQUEST, "\u00ab\u20ac\u00bb"),
        b"C\0\0\0\x19ERROR bad_request \xc2\xab\xe2\x82\xac\xc2\xbb",
    ),
]

# What is written of events that hold more than the dialect can carry.
WRITE_ONLY: list[tuple[Event | Run, bytes]] = [
    (Bye("you left"), b"C\0\0\0\x03BYE"),
    (Welcome(AccountKind.NEW, "alice", ("alice", "bob"), 17), b"C\0\0\0\x0bWELCOME new"),
    (Welcome(AccountKind.EXISTING, "alice", ("alice",), 0), b"C\0\0\0\x10WELCOME existing"),
    (Users(2, ("alice", "bob"), ("bob",), ()), b""),
    (Users(501, None, (), ("bob",)), b""),
    (DirectMessage(19, NOON_MS, "bob", "alice", "hello you"), PSST_FRAME),
    (
        History((DirectMessage(19, NOON_MS, "bob", "alice", "hello you"), HELLO)),
        b"C\0\0\0\x09HISTORY 2" + PSST_FRAME + HELLO_FRAME,
    ),
    (Sent(18, SentStatus.SENT, "7f"), b"C\0\0\0\x07SENT 18"),
    (Sent(18, SentStatus.STORED, "7f"), b"C\0\0\0\x09STORED 18"),
    (Refused(ErrorCode.TOO_LONG, "No.", "7f"), b"C\0\0\0\x12ERROR too_long No."),
    (Refused(ErrorCode.TOO_MANY_ATTEMPTS, "Wait."), b"C\0\0\0\x0cDENIED Wait."),
    (Refused(ErrorCode.BAD_USERNAME, "No.", about="ALL"), b"C\0\0\0\x16ERROR bad_username No."),
    (Refused(ErrorCode.UNKNOWN_USER, "Nobody is called so.", about="bob"), b"C\0\0\0\x0aNOUSER bob"),
    # runs are single messages on the wire
    (
        PublicBatch(9, 5, "A", ("x", "", "\u20ac")),
        b"D\0\0\0\x0ePUBLIC A 9 5\nxD\0\0\0\x0ePUBLIC A 10 5\nD\0\0\0\x11PUBLIC A 11 5\n\xe2\x82\xac",
    ),
    (SentBatch(9, (None, "7f")), b"C\0\0\0\x06SENT 9C\0\0\0\x07SENT 10"),
    (PublicBatch(9, 5, "A", ()), b""),
    (SentBatch(9, ()), b""),
]

# What is read as well, though no server of ours writes it.
READ_ONLY: list[tuple[bytes, list[Event]]] = [
    (b"C\0\0\0\x10ERROR teapot No.", [Refused(ErrorCode.INTERNAL, "No.")]),
    (b"C\0\0\0\x0eERROR too_long", [Refused(ErrorCode.TOO_LONG, "")]),
    (b"C\0\0\0\x05ERROR", [Refused(ErrorCode.INTERNAL, "")]),
    (b"C\0\0\0\x06DENIED", [Refused(ErrorCode.WRONG_PASSWORD, "")]),
    (b"C\0\0\0\x04BYE ", [Bye("")]),
    (b"C\0\0\0\x0cREADY steady", [Ready()]),
    (b"C\0\0\0\x0ePONG 12:00 UTC", [Pong()]),
    (b"C\0\0\0\x13ONLINE  alice  bob ", [Online(("alice", "bob"))]),
]

# Commands of tomorrow, and what is near to one of ours.
UNKNOWN = [b"", b" ", b"WEATHER", b"WEATHER windy", b"ready", b"Pong", b"SENT18", b"BYE\nyou left", b"\0", b" PONG"]

NO_MESSAGES = [
    b"",
    b"hello",
    b"PUBLIC bob 18 1769860800123",
    b"PUBLIC bob 18\nhello",
    b"PUBLIC 18 1769860800123\nhello",
    b"public bob 18 1769860800123\nhello",
    b"SECRET bob 18 1769860800123\nhello",
    b"PUBLIC  bob 18 1769860800123\nhello",
    b"PUBLIC bob  18 1769860800123\nhello",
    b"PUBLIC bob 18 1769860800123 \nhello",
    b"PUBLIC bob 18 1769860800123\rhello",
    b" PUBLIC bob 18 1769860800123\nhello",
    b"\nPUBLIC bob 18 1769860800123\nhello",
    b"PUBLIC b\nob 18 1769860800123\nhello",
    b"PUBLIC bob -18 1769860800123\nhello",
    b"PUBLIC bob +18 1769860800123\nhello",
    b"PUBLIC bob 1_8 1769860800123\nhello",
    b"PUBLIC bob 18.0 1769860800123\nhello",
    b"PUBLIC bob 18 noon\nhello",
    b"PUBLIC bob x 1769860800123\nhello",
    "PUBLIC bob \u0661\u0668 1769860800123\nhello".encode(),
    b"PUBLIC bob " + b"1" * 20 + b" 1769860800123\nhello",
    b"PUBLIC bob 18 " + b"1" * 5000 + b"\nhello",
    b"PUBLIC bob 18 1769860800123\n\xff",
    b"DIRECT b\xffb 18 1769860800123\nhello",
]

NO_COMMANDS = [
    b"PASSWORD",
    b"PASSWORD old",
    b"PASSWORD new ",
    b"WELCOME",
    b"WELCOME alice",
    b"WELCOME NEW",
    b"\xff",
    b"ONLINE alice b\xffb",
    *(
        word + rest
        for word, rest in itertools.product(
            [b"SENT", b"STORED", b"HISTORY"],
            [b"", b" ", b" x", b" -1", b" +1", b" 1.0", b" 18 19", b"  18", b" 18\n", b" \xd9\xa1", b" " + b"1" * 20],
        )
    ),
]


def frame(kind: bytes, payload: bytes) -> bytes:
    return kind + len(payload).to_bytes(4, "big") + payload


@pytest.mark.parametrize(("event", "data"), BOTH_WAYS, ids=lambda value: f"{value!r:.60}")
def test_an_event_is_written_as_its_frames(event: Event, data: bytes) -> None:
    assert Frames().encode(event) == data


@pytest.mark.parametrize(("event", "data"), BOTH_WAYS, ids=lambda value: f"{value!r:.60}")
def test_frames_are_read_as_their_event(event: Event, data: bytes) -> None:
    assert Frames().event_decoder().decode(data) == [event]


@pytest.mark.parametrize(("event", "data"), WRITE_ONLY, ids=lambda value: f"{value!r:.60}")
def test_of_an_event_that_holds_more_there_is_written_what_the_wire_can_carry(event: Event | Run, data: bytes) -> None:
    assert Frames().encode_all([event]) == data


@pytest.mark.parametrize(("data", "events"), READ_ONLY, ids=repr)
def test_a_server_of_tomorrow_is_understood(data: bytes, events: list[Event]) -> None:
    assert Frames().event_decoder().decode(data) == events


@pytest.mark.parametrize("payload", UNKNOWN)
def test_unknown_commands_are_passed_over(payload: bytes) -> None:
    stream = b"C\0\0\0\x05READY" + frame(b"C", payload) + b"C\0\0\0\x04PONG"

    assert Frames().event_decoder().decode(stream) == [Ready(), Pong()]


def test_every_code_is_told_except_by_those_that_a_password_was_denied_with() -> None:
    codes = {event.code for event, data in BOTH_WAYS if isinstance(event, Refused) and data[5:11] == b"ERROR "}

    assert codes == set(ErrorCode) - {ErrorCode.WRONG_PASSWORD, ErrorCode.TOO_MANY_ATTEMPTS}


# --- a server that makes no sense ---


@pytest.mark.parametrize("payload", NO_MESSAGES, ids=lambda payload: repr(payload[:60]))
@pytest.mark.parametrize("before", [b"", b"C\0\0\0\x04PONG", b"C\0\0\0\x09HISTORY 2" + HELLO_FRAME], ids=repr)
def test_data_that_is_no_message_is_a_protocol_error_of_one_line(payload: bytes, before: bytes) -> None:
    with pytest.raises(ProtocolError) as error:
        Frames().event_decoder().decode(before + frame(b"D", payload))
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300


@pytest.mark.parametrize("payload", NO_COMMANDS, ids=lambda payload: repr(payload[:60]))
def test_a_command_that_lacks_what_belongs_to_it_is_a_protocol_error_of_one_line(payload: bytes) -> None:
    with pytest.raises(ProtocolError) as error:
        Frames().event_decoder().decode(frame(b"C", payload))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 400 Bad Request\r\n",
        b"{",
        b"\0",
        b"c",
        b"C\0\x01\0\0",
        b"D\0\0\xff\xfc",
        b"D\0\0\xff\xfc" + b"x" * 65_532,
        b"C\xff\xff\xff\xff",
    ],
    ids=lambda data: repr(data[:30]),
)
@pytest.mark.parametrize("before", [b"", b"C\0\0\0\x04PONG"])
def test_what_is_no_frame_is_a_protocol_error_of_one_line(data: bytes, before: bytes) -> None:
    for size in (len(before + data), 1_000):
        with pytest.raises(ProtocolError) as error:
            decode(Frames().event_decoder(), pieces(before + data, size))
        assert "\n" not in str(error.value)


# --- size ---


def test_who_is_online_is_cut_to_what_one_frame_holds() -> None:
    names = tuple(f"{number:032d}" for number in range(3_000))

    data = Frames().encode(Online(names))

    assert data[:5] == b"C\0\0\xff\xe7"
    assert len(data) == 5 + 6 + 33 * 1_985 <= FRAME_MAX_BYTES
    assert Frames().event_decoder().decode(data) == [Online(names[:1_985])]


@pytest.mark.parametrize(("letters", "fits"), [(19, True), (20, False)])
def test_who_is_online_fills_a_frame_to_its_last_byte(letters: int, fits: bool) -> None:
    names = tuple(f"{number:032d}" for number in range(1_985))
    last = "x" * letters

    data = Frames().encode(Online((*names, last)))

    assert (len(data) == FRAME_MAX_BYTES == 65_536) is fits
    assert Frames().event_decoder().decode(data) == [Online((*names, last) if fits else names)]


def test_the_longest_history_that_a_server_may_send_is_read() -> None:
    message = PublicMessage(1, NOON_MS, "b" * 32, "\U0001f600" * 2_048)
    history = History((message,) * 500)
    data = Frames().encode(history)
    decoder = Frames().event_decoder()

    assert len(data) > 4_000_000
    assert decoder.decode(data[:-1]) == []
    assert decoder.decode(data[-1:]) == [history]


# --- what goes on over several frames ---


def test_a_history_is_one_event_when_its_last_message_has_come() -> None:
    decoder = Frames().event_decoder()

    assert decoder.decode(b"C\0\0\0\x09HISTORY 2") == []
    assert decoder.decode(HELLO_FRAME) == []
    assert decoder.decode(PSST_FRAME) == [History((HELLO, PSST))]
    assert decoder.decode(PSST_FRAME) == [PSST]


def test_a_history_begins_anew_with_the_next_one() -> None:
    stream = b"C\0\0\0\x09HISTORY 1" + HELLO_FRAME + b"C\0\0\0\x09HISTORY 0" + b"C\0\0\0\x09HISTORY 1" + PSST_FRAME

    assert Frames().event_decoder().decode(stream + HELLO_FRAME) == [
        History((HELLO,)),
        History(()),
        History((PSST,)),
        HELLO,
    ]


def test_messages_in_the_middle_of_a_dialogue_are_events_of_their_own() -> None:
    stream = b"C\0\0\0\x05READY" + HELLO_FRAME + b"C\0\0\0\x07SENT 20" + PSST_FRAME

    assert Frames().event_decoder().decode(stream) == [Ready(), HELLO, Sent(20, SentStatus.SENT), PSST]


@pytest.mark.parametrize("data", [b"C", b"C\0\0\0\x04PON", HELLO_FRAME[:-1], b"C\0\0\0\x09HISTORY 2" + HELLO_FRAME])
def test_half_an_event_is_as_good_as_none(data: bytes) -> None:
    decoder = Frames().event_decoder()

    assert decoder.decode(data) == []


def test_a_history_inside_another_one_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError, match="a history inside another one"):
        Frames().event_decoder().decode(b"C\0\0\0\x09HISTORY 2C\0\0\0\x09HISTORY 1")


def test_a_history_that_no_client_can_hold_is_a_protocol_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames_text, "_HISTORY_MAX_BYTES", 1_000)

    with pytest.raises(ProtocolError, match="a history of more than 1,000 bytes"):
        Frames().event_decoder().decode(b"C\0\0\0\x1bHISTORY 9999999999999999999" + HELLO_FRAME * 30)
    assert Frames().event_decoder().decode(b"C\0\0\0\x0aHISTORY 20" + HELLO_FRAME * 20) == [History((HELLO,) * 20)]


def test_an_error_repeats_only_the_beginning_of_what_the_server_sent() -> None:
    payload = b"WELCOME " + b"x" * 60_000

    with pytest.raises(ProtocolError) as error:
        Frames().event_decoder().decode(b"C" + len(payload).to_bytes(4, "big") + payload)

    assert len(str(error.value)) < 300
