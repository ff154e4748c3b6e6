"""The protocol frames: the literal bytes of docs/wire/frames.md, and the requests and events that they are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from raw_steps import Command, CommandBatch, Data, encode_request, new_server, receive

from chatprotocol.errors import ErrorCode, ProtocolError
from chatprotocol.events import (
    AccountKind,
    Bye,
    DirectMessage,
    Event,
    History,
    PasswordPrompt,
    Pong,
    PublicMessage,
    Refused,
    Sent,
    SentStatus,
    TimeMs,
    Users,
    UserUnknown,
    Welcome,
)
from chatprotocol.limits import BODY_MAX_BYTES, FRAME_MAX_BYTES, ID_MAX
from chatprotocol.requests import Request, Unreadable
from chatprotocol.wire.base import Online, Ready
from chatprotocol.wire.frames import Frames

from .samples import any_pieces, calls, decode, gist, pieces, read_whole_and_cut, refusal_of, unfold

PING = b"C\0\0\0\x04PING"
PM = b"C\0\0\0\x02PM"
BM = b"C\0\0\0\x02BM"
X = b"D\0\0\0\x01x"
# The longest payload: a frame with its header of five bytes has at most 65,536.
LONGEST = 65_531


def frame(kind: bytes, payload: bytes) -> bytes:
    return kind + len(payload).to_bytes(4, "big") + payload


def read(data: bytes) -> list[Request]:
    return read_whole_and_cut(Frames(), data)


# --- requests ---

# Encoded and decoded. Spelling is up to the server's state machine.
STEPS: list[tuple[bytes, Request]] = [
    (b"C\0\0\0\x0balice bm-pm", Command("alice bm-pm")),
    (b"C\0\0\0\x0da b \xe2\x82\xac  \xf0\x9f\x98\x80", Command("a b \u20ac  \U0001f600")),
    (bytes.fromhex("43 00 00 00 02 50 4d"), Command("PM")),
    (b"C\0\0\0\x04 pm\n", Command(" pm\n")),
    (b"D\0\0\0\x0fhello everybody", Data("hello everybody")),
    (b"C\0\0\0\0", Command("")),
    (b"D\0\0\0\0", Data("")),
    (b"D\0\0\0\x07a\r\n\n\0\x1bb", Data("a\r\n\n\0\x1bb")),
    (b"D\0\0\0\x03\xef\xbb\xbf", Data("\ufeff")),
    # payloads that look like frames
    (b"D\0\0\0\x07C\0\0\0\x02PM", Data("C\0\0\0\x02PM")),
    (b"C\0\0\0\x06D\0\0\0\x01x", Command("D\0\0\0\x01x")),
    # every byte of the length counts; the longest message and the longest frame
    (b"D\0\0\x01\0" + b"x" * 256, Data("x" * 256)),
    (b"D\0\0\x20\0" + b"\xf0\x9f\x98\x80" * 2048, Data("\U0001f600" * (BODY_MAX_BYTES // 4))),
    (b"C\0\0\xff\xfb" + b"x" * LONGEST, Command("x" * LONGEST)),
]

# Payloads that are not UTF-8: a stray byte, a cut letter, an overlong one, a surrogate, a number too large.
NOT_UTF8 = [b"hello\xff", b"\x80", b"\xe2\x82", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"]

# Bytes that can't begin a frame, the code of the error, and a part of its reason.
BROKEN: list[tuple[bytes, ErrorCode, str]] = [
    (b"c", ErrorCode.BAD_REQUEST, "0x63"),
    (b"d\0\0\0\0", ErrorCode.BAD_REQUEST, "0x64"),
    (b"\0", ErrorCode.BAD_REQUEST, "0x00"),
    (b"C\xff\xff\xff\xff", ErrorCode.TOO_LONG, "4,294,967,300"),
    (b"D\0\0\xff\xfc", ErrorCode.TOO_LONG, "65,537"),
]


@pytest.mark.parametrize(("data", "step"), STEPS, ids=lambda value: f"{value!r:.60}")
def test_step_is_its_frame(data: bytes, step: Request) -> None:
    assert read(data) == [step]
    assert encode_request(Frames(), step) == data


@pytest.mark.parametrize("payload", NOT_UTF8)
@pytest.mark.parametrize("kind", [b"C", b"D"])
def test_payload_that_is_not_utf8_is_one_error_between_good_frames(kind: bytes, payload: bytes) -> None:
    bad = frame(kind, payload)
    refused = refusal_of(Frames(), bad)
    assert (refused.code, refused.closes) == (ErrorCode.BAD_REQUEST, False)
    assert "UTF-8" in refused.reason
    good = Data("x")
    assert read((X + bad) * 2 + X) == [good, refused, good, refused, good]


@pytest.mark.parametrize(("broken", "code", "said"), BROKEN, ids=repr)
@pytest.mark.parametrize("before", [b"", PING * 3, b"D\0\0\0\x01\xff", (PM + X) * 3 + PM], ids=repr)
@pytest.mark.parametrize("after", [b"", PING, (PM + b"D\0\0\0\x05hello") * 8, b"C\xff\xff\xff\xff"], ids=len)
def test_invalid_header_is_one_error_that_closes_and_nothing_is_read_after_it(
    broken: bytes, code: ErrorCode, said: str, before: bytes, after: bytes
) -> None:
    *found, refused = read(before + broken + after)
    assert found == read(before)
    assert isinstance(refused, Unreadable)
    assert (refused.code, refused.closes) == (code, True)
    assert said in refused.reason
    decoder = new_server(Frames())
    receive(decoder, broken + after)
    assert receive(decoder, after) == receive(decoder, b"") == decoder.receive_end() == []
    assert not decoder.is_incomplete


@pytest.mark.parametrize("size", [1, 4, 5, 9])
def test_incomplete_frame_at_the_end_is_a_bad_request(size: int) -> None:
    *found, refused = read(PING + b"C\0\0\0\x05alice"[:size])
    assert found == [Command("PING")]
    assert isinstance(refused, Unreadable)
    assert (refused.code, refused.closes) == (ErrorCode.BAD_REQUEST, False)
    assert f" {size} bytes" in refused.reason


# --- many public messages at once: read as batches, and the same as one by one ---


def expand_batches(stream: bytes) -> list[Request | ErrorCode]:
    """The steps of complete C and D frames, read in the simplest way; the code for a payload that is not UTF-8."""
    found: list[Request | ErrorCode] = []
    while stream:
        end = 5 + int.from_bytes(stream[1:5], "big")
        try:
            text = stream[5:end].decode()
            found.append(Command(text) if stream[:1] == b"C" else Data(text))
        except UnicodeDecodeError:
            found.append(ErrorCode.BAD_REQUEST)
        stream = stream[end:]
    return found


# Payloads that look like frames: whole, cut, not UTF-8, and parts of a length.
bits = [PM, BM, PM[:-1], PM[1:], b"D\0\0\0\0", X, b"D", b"\0\0\0", b"\x02", b"\xff", b"x", b"\xe2\x82\xac"]
lookalikes = st.lists(st.sampled_from(bits), max_size=8).map(b"".join)
payloads = st.just(b"") | st.just(b"hello") | lookalikes | st.binary(max_size=20)
steps = st.one_of(
    st.builds(frame, st.sampled_from([b"C", b"D"]), payloads),
    st.sampled_from([PM, BM, b"C\0\0\0\x02DM", PING, b"C\0\0\0\x01\xff", b"D\0\0\0\x01\xff"]),
    st.builds(lambda kind, payload: PM + frame(kind, payload), st.sampled_from([b"C", b"D"]), payloads),
    st.builds(lambda payload: BM + frame(b"D", payload), payloads),
)
# Public messages of one keyword set; now and then with an unusual text, with another kind of frame, or without one.
floods = st.builds(
    lambda public, frames: b"".join(public + (frame(kind, text) if kind else b"") for kind, text in frames),
    st.sampled_from([PM, BM]),
    st.lists(
        st.tuples(
            st.sampled_from([b"D"] * 9 + [b"C", b""]),
            st.sampled_from([b"hello", b"x", b""]) | st.just(b"hello") | payloads,
        ),
        min_size=4,
        max_size=12,
    ),
)
inside_one_frame = st.builds(frame, st.sampled_from([b"C", b"D"]), floods)


@given(stream=st.lists(steps | floods | inside_one_frame, max_size=10).map(b"".join), data=st.data())
def test_batches_are_the_same_steps_as_one_by_one(stream: bytes, data: st.DataObject) -> None:
    decoder = new_server(Frames())
    found = unfold(receive(decoder, *data.draw(any_pieces(stream, 4))))
    assert list(map(gist, found)) == expand_batches(stream)
    assert not decoder.is_incomplete
    assert decoder.receive_end() == []


@pytest.mark.parametrize(("public", "word"), [(PM, "PM"), (BM, "BM")])
def test_public_messages_are_a_batch_up_to_the_last(public: bytes, word: str) -> None:
    """The last one may be incomplete."""
    data = public + b"D\0\0\0\x01a" + public + b"D\0\0\0\0" + public + b"D\0\0\0\x04\xf0\x9f\x98\x80" + public
    for last, requests in ((b"", [Command(word)]), (b"D\0\0\0\x01d", [Command(word), Data("d")])):
        found = receive(new_server(Frames()), PING + data + last)
        assert found == [Command("PING"), CommandBatch(word, ["a", "", "\U0001f600"]), *requests]


def test_public_messages_are_not_split_by_their_lengths() -> None:
    """The cost, counted in calls: less than half of that of single frames."""
    batch = (PM + b"D\0\0\0\x05hello") * 1_000
    single = (b"C\0\0\0\x02DM" + b"D\0\0\0\x05hello") * 1_000
    assert 2 * calls(lambda: receive(new_server(Frames()), batch)) < calls(
        lambda: receive(new_server(Frames()), single)
    )


@pytest.mark.parametrize(
    "unit",
    [(PM + b"D\0\0\0\x05hello") * 5 + PING, PM + b"D\0\0\0\x01\xff", PM, b"D\0\0\0\x1c" + PM * 4, BM + PM],
    ids=repr,
)
def test_lookalikes_of_public_messages_cost_linear_time(unit: bytes) -> None:
    def cost(times: int) -> int:
        return calls(lambda: receive(new_server(Frames()), unit * times))

    assert cost(400) < 4.5 * cost(100)


# --- events ---

NOON_MS = TimeMs(1_769_860_800_123)
HELLO = PublicMessage(18, NOON_MS, "bob", "hello everybody")
PSST = DirectMessage(19, NOON_MS, "bob", "", "hello you")
HELLO_FRAME = b"D\0\0\0\x2bPUBLIC bob 18 1769860800123\nhello everybody"
PSST_FRAME = b"D\0\0\0\x25DIRECT bob 19 1769860800123\nhello you"

# Encoded and decoded.
EVENTS: list[tuple[Event, bytes]] = [
    (PasswordPrompt(account=AccountKind.NEW), b"C\0\0\0\x0cPASSWORD new"),
    (Welcome(account=AccountKind.EXISTING, username="", users=(), last_id=None), b"C\0\0\0\x10WELCOME existing"),
    (
        Welcome(account=AccountKind.NEW, username="", users=(), last_id=None, history_id="9f86d081884c7d65"),
        b"C\0\0\0\x1cWELCOME new 9f86d081884c7d65",
    ),
    (Refused(ErrorCode.WRONG_PASSWORD, "Try again."), b"C\0\0\0\x11DENIED Try again."),
    (Sent(ID_MAX, SentStatus.SENT), b"C\0\0\0\x18SENT 9223372036854775807"),
    (Sent(18, SentStatus.STORED), b"C\0\0\0\x09STORED 18"),
    (
        UserUnknown(ErrorCode.UNKNOWN_USER, "There is no user 'no one'; nothing was sent.", about="no one"),
        b"C\0\0\0\x0dNOUSER no one",
    ),
    (UserUnknown(ErrorCode.UNKNOWN_USER, "There is no user ''; nothing was sent.", about=""), b"C\0\0\0\x07NOUSER "),
    (Refused(ErrorCode.UNKNOWN_USER, "Nobody."), b"C\0\0\0\x1aERROR unknown_user Nobody."),
    (Pong(), b"C\0\0\0\x04PONG"),
    (History(()), b"C\0\0\0\x09HISTORY 0"),
    (History((HELLO, PSST)), b"C\0\0\0\x09HISTORY 2" + HELLO_FRAME + PSST_FRAME),
    (HELLO, HELLO_FRAME),
    (PSST, PSST_FRAME),
    (PublicMessage(1, 0, "A", ""), b"D\0\0\0\x0dPUBLIC A 1 0\n"),
    (PublicMessage(1, 0, "A", "\r\n\0\x1b\u20ac"), b"D\0\0\0\x14PUBLIC A 1 0\n\r\n\0\x1b\xe2\x82\xac"),
    (DirectMessage(1, 0, "A", "", "DIRECT B 2 0\nx"), b"D\0\0\0\x1bDIRECT A 1 0\nDIRECT B 2 0\nx"),
    (
        PublicMessage(ID_MAX, 253_402_300_799_999, "A", "x"),
        b"D\0\0\0\x2ePUBLIC A 9223372036854775807 253402300799999\nx",
    ),
    (Bye("not logged in"), b"C\0\0\0\x11BYE not logged in"),
    *(
        (Refused(code, "\u00abNo.\u00bb"), frame(b"C", f"ERROR {code} \u00abNo.\u00bb".encode()))
        for code in ErrorCode
        if code not in (ErrorCode.WRONG_PASSWORD, ErrorCode.TOO_MANY_ATTEMPTS)
    ),
]

# Payloads of later servers, and the events that they are. Unknown commands are skipped.
LATER: list[tuple[bytes, list[Event]]] = [
    (b"ERROR teapot No.", [Refused(ErrorCode.INTERNAL, "No.")]),
    (b"ERROR too_long", [Refused(ErrorCode.TOO_LONG, "")]),
    (b"DENIED", [Refused(ErrorCode.WRONG_PASSWORD, "")]),
    (b"BYE ", [Bye("")]),
    (b"BYE replaced: by a newer one", [Bye("by a newer one", ErrorCode.REPLACED)]),
    (b"BYE internal: no such code", [Bye("internal: no such code")]),
    (b"PONG 12:00 UTC", [Pong()]),
    (b"ONLINE  alice  bob ", [Online(("alice", "bob"))]),
    *(
        (payload, [])
        for payload in (b"", b" ", b"WEATHER windy", b"ready", b"SENT18", b"BYE\nyou left", b"\0", b" PONG")
    ),
]

INVALID_MESSAGES = [
    # no header, or an incomplete one
    *(b"", b"hello", b"PUBLIC bob 18 1769860800123", b"PUBLIC bob 18\nhello", b"PUBLIC 18 1769860800123\nhello"),
    # other words, other white space
    *(b"public bob 18 17\nhello", b"SECRET bob 18 17\nhello", b"PUBLIC  bob 18 17\nhello", b"PUBLIC bob 18 17 \nhello"),
    *(b" PUBLIC bob 18 17\nhello", b"PUBLIC b\nob 18 17\nhello"),
    # numbers that are not [0-9]{1,19}
    *(b"PUBLIC bob -18 17\nhello", b"PUBLIC bob 18 noon\nhello", b"PUBLIC bob \xd9\xa1 17\nhello"),
    *(b"PUBLIC bob " + b"1" * 20 + b" 17\nhello", b"PUBLIC bob 18 " + b"1" * 5000 + b"\nhello"),
    # not UTF-8
    *(b"PUBLIC bob 18 17\n\xff", b"DIRECT b\xffb 18 17\nhello"),
]
INVALID_COMMANDS = [
    *(b"PASSWORD", b"PASSWORD old", b"PASSWORD new ", b"WELCOME", b"WELCOME NEW", b"\xff", b"ONLINE alice b\xffb"),
    *(b"SENT", b"STORED x", b"HISTORY -1", b"HISTORY 1.0", b"SENT 18 19", b"SENT  18", b"STORED \xd9\xa1"),
    *(b"HISTORY " + b"1" * 20, b"WELCOME " + b"x" * 60_000),
]


@pytest.mark.parametrize(("event", "data"), EVENTS, ids=lambda value: f"{value!r:.60}")
def test_event_is_its_frames(event: Event, data: bytes) -> None:
    assert Frames().encode_all([event]) == data
    assert Frames().client().event_decoder().decode(data) == [event]


@pytest.mark.parametrize(("payload", "events"), LATER, ids=repr)
def test_later_servers_are_understood(payload: bytes, events: list[Event]) -> None:
    assert Frames().client().event_decoder().decode(frame(b"C", payload) + frame(b"C", b"READY")) == [*events, Ready()]


@pytest.mark.parametrize(
    "data",
    [
        *(frame(b"D", payload) for payload in INVALID_MESSAGES),
        *(frame(b"C", payload) for payload in INVALID_COMMANDS),
        *(b"HTTP/1.1 400 Bad Request\r\n", b"\0", b"c", b"D\0\0\xff\xfc" + b"x" * 65_532, b"C\xff\xff\xff\xff"),
        b"C\0\0\0\x09HISTORY 2C\0\0\0\x09HISTORY 1",
        frame(b"C", b"HISTORY 10001"),
        frame(b"D", b"PUBLIC " + b"b" * 257 + b" 1 0\nx"),
    ],
    ids=lambda data: repr(data[:60]),
)
@pytest.mark.parametrize("before", [b"", b"C\0\0\0\x04PONG", b"C\0\0\0\x09HISTORY 1" + HELLO_FRAME], ids=len)
def test_invalid_event_is_a_protocol_error_of_one_short_line(data: bytes, before: bytes) -> None:
    for size in (len(before + data), 1_000):
        with pytest.raises(ProtocolError) as error:
            decode(Frames().client().event_decoder(), pieces(before + data, size))
        assert "\n" not in str(error.value)
        assert len(str(error.value)) < 300


@pytest.mark.parametrize(
    ("names", "data"), [(("alice", "bob"), b"C\0\0\0\x10ONLINE alice bob"), ((), b"C\0\0\0\x06ONLINE")]
)
def test_users_online_are_an_answer_and_no_update(names: tuple[str, ...], data: bytes) -> None:
    """A client would take an update for the answer to its next step."""
    assert Frames().server().encode([Users(users=names)]) == data
    assert Frames().encode_all([Users(users=names)]) == b""
    assert Frames().client().event_decoder().decode(data) == [Online(names)]


@pytest.mark.parametrize(("letters", "fits"), [(19, True), (20, False), (32, False)])
def test_online_users_are_truncated_to_one_frame(letters: int, fits: bool) -> None:
    names = tuple(f"{number:032d}" for number in range(1_985))
    last = "x" * letters
    data = Frames().server().encode([Users(users=(*names, last, "more"))])
    assert (len(data) == FRAME_MAX_BYTES) is fits
    assert Frames().client().event_decoder().decode(data) == [Online((*names, last) if fits else names)]


def test_longest_history_is_read() -> None:
    history = History((PublicMessage(1, NOON_MS, "b" * 32, "\U0001f600" * 2_048),) * 500)
    data = Frames().encode_all([history])
    decoder = Frames().client().event_decoder()
    assert decoder.decode(data[:-1]) == []
    assert decoder.decode(data[-1:]) == [history]


def test_endless_history_is_a_protocol_error() -> None:
    """A server can't fill the client's memory."""
    message = frame(b"D", b"PUBLIC A 1 0\n" + b"x" * 65_000)
    with pytest.raises(ProtocolError, match="a history of more than 67,108,864 bytes"):
        Frames().client().event_decoder().decode(b"C\0\0\0\x0dHISTORY 10000" + message * 1_100)


def test_history_ends_with_its_last_message() -> None:
    decoder = Frames().client().event_decoder()
    assert decoder.decode(b"C\0\0\0\x05READY" + HELLO_FRAME + b"C\0\0\0\x09HISTORY 2") == [Ready(), HELLO]
    assert decoder.decode(HELLO_FRAME) == []
    assert decoder.decode(PSST_FRAME + PSST_FRAME) == [History((HELLO, PSST)), PSST]
    assert decoder.decode(b"C\0\0\0\x09HISTORY 1" + PSST_FRAME + HELLO_FRAME) == [History((PSST,)), HELLO]
