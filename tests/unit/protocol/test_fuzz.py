"""Every protocol under hypothesis: random requests and events arrive, and random bytes do no harm."""

import json
import string
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatprotocol import events, requests
from chatprotocol.errors import ErrorCode, ProtocolError
from chatprotocol.events import Event
from chatprotocol.limits import FRAME_MAX_BYTES, HISTORY_MAX_MESSAGES, ID_MAX, LINE_MAX_BYTES, USERNAME_MAX_BYTES
from chatprotocol.requests import Request, Side
from chatprotocol.rules import unknown_user
from chatprotocol.wire import WireProtocol

from .samples import SAMPLES, SETTINGS, any_pieces, decode, gist, held_bytes, unfold

every_protocol = pytest.mark.parametrize("protocol", SETTINGS.values(), ids=SETTINGS)

texts = st.text(max_size=40)
names = st.text(string.ascii_letters + string.digits, min_size=1, max_size=USERNAME_MAX_BYTES)
nonces = st.none() | texts
ids = st.integers(0, ID_MAX)
# From 1970 to the end of the calendar.
times_ms = st.integers(0, 253_402_300_799_999)
accounts = st.sampled_from(events.AccountKind)


class Strategies(NamedTuple):
    """Requests and events that arrive unchanged in one protocol."""

    requests: st.SearchStrategy[list[Request]]
    events: st.SearchStrategy[list[Event]]


def json_strategies() -> Strategies:
    users = st.lists(texts, max_size=4).map(tuple)
    messages = st.builds(events.PublicMessage, ids, times_ms, texts, texts) | st.builds(
        events.DirectMessage, ids, times_ms, texts, texts, texts
    )
    requests_ = st.one_of(
        st.builds(requests.Login, texts, nonces, st.none() | ids, nonces),
        st.builds(requests.Password, texts),
        st.builds(requests.Say, texts, nonces),
        st.builds(requests.Whisper, texts, texts, nonces),
        st.builds(requests.AskHistory, st.integers(1, HISTORY_MAX_MESSAGES), st.none() | ids),
        st.builds(requests.ChangePassword, texts, texts),
        st.builds(requests.AskUser, texts),
        st.builds(requests.Search, texts, st.integers(1, HISTORY_MAX_MESSAGES), st.none() | ids),
        st.sampled_from([requests.AskUsers(), requests.Ping(), requests.Leave()]),
    )
    events_ = st.one_of(
        st.builds(events.PasswordPrompt, accounts),
        st.builds(events.Welcome, accounts, texts, users, ids, st.none() | texts, st.none() | ids, st.none() | ids),
        messages,
        st.builds(lambda users, *changes: events.Users(len(users), users, *changes), users, users, users),
        st.builds(events.Users, st.integers(0, 10**6), st.none(), users, users),
        st.builds(events.Sent, ids, st.sampled_from(events.SentStatus), nonces),
        st.builds(events.History, st.lists(messages, max_size=4).map(tuple)),
        st.builds(events.User, texts, st.booleans()),
        st.builds(events.Found, texts, st.lists(messages, max_size=4).map(tuple), ids),
        st.builds(events.Refused, st.sampled_from(ErrorCode), texts, nonces),
        st.builds(events.Bye, texts),
        st.just(events.Pong()),
    )
    return Strategies(st.lists(requests_, max_size=6), st.lists(events_, max_size=6))


def frames_strategies() -> Strategies:
    messages = st.builds(events.PublicMessage, ids, times_ms, names, texts) | st.builds(
        events.DirectMessage, ids, times_ms, names, st.just(""), texts
    )
    steps = st.builds(requests.Command, texts) | st.builds(requests.Data, texts)
    # Many public messages in a row are read as a batch.
    public = st.builds(
        lambda word, texts: [step for text in texts for step in (requests.Command(word), requests.Data(text))],
        st.sampled_from(["PM", "BM"]),
        st.lists(texts, max_size=8),
    )
    # TOO_MANY_ATTEMPTS has the same word as WRONG_PASSWORD; it is among the samples.
    codes = st.sampled_from([code for code in ErrorCode if code is not ErrorCode.TOO_MANY_ATTEMPTS])
    events_ = st.one_of(
        st.builds(events.PasswordPrompt, accounts),
        st.builds(events.Welcome, accounts, st.just(""), st.just(()), st.none()),
        messages,
        st.builds(events.Online, st.lists(names, max_size=4).map(tuple)),
        st.just(events.Ready()),
        st.builds(events.Sent, ids, st.sampled_from(events.SentStatus)),
        st.builds(events.History, st.lists(messages, max_size=4).map(tuple)),
        st.builds(events.Refused, codes, texts),
        texts.map(unknown_user).map(lambda error: events.Refused(error.code, error.reason, None, error.about)),
        # A Bye without a reason is the reply to Leave.
        st.builds(events.Bye, st.text(min_size=1, max_size=40)),
        st.just(events.Pong()),
    )
    several = st.lists(steps.map(lambda step: [step]) | public, max_size=6)
    return Strategies(several.map(lambda some: [step for each in some for step in each]), st.lists(events_, max_size=6))


def _is_ping(step: Request) -> bool:
    """True for the command that datagram reads as a Ping."""
    return isinstance(step, requests.Command) and step.text.encode().strip() == b"PING"


def datagram_strategies() -> Strategies:
    """As frames, with texts long enough to be split, also in the middle of a character."""
    frames = frames_strategies()
    long_texts = st.builds(
        lambda before, letter, times: before + letter * (times // len(letter.encode())),
        st.text(max_size=4),
        st.sampled_from(["x", "\u00e4", "\u20ac", "\U0001f600"]),
        st.sampled_from([1_150, 1_190, 1_200, 1_210, 2_400, 8_192, 65_000]),
    )
    long_message = st.builds(events.PublicMessage, ids, times_ms, st.just("bob"), long_texts)
    commands = st.builds(requests.Command, texts).filter(lambda step: not _is_ping(step))
    one = commands | st.builds(requests.Data, texts | long_texts) | st.just(requests.Ping())
    long_history = st.lists(long_message, max_size=2).map(tuple).map(events.History)
    return Strategies(
        st.builds(
            list.__add__,
            frames.requests.filter(lambda steps: not any(map(_is_ping, steps))),
            st.lists(one, max_size=6),
        ),
        st.builds(list.__add__, frames.events, st.lists(long_message | long_history, max_size=2)),
    )


def register_strategies() -> Strategies:
    sides = st.sampled_from(Side)
    requests_ = st.one_of(
        st.builds(requests.Register, sides, names),
        st.builds(requests.Send, names, texts),
        st.builds(requests.Received, names),
        st.just(requests.NotReceived()),
    )
    errors = [
        events.Refused(ErrorCode.BAD_USERNAME, "Malformed username"),
        events.Refused(ErrorCode.NOT_LOGGED_IN, "No user registered"),
        events.Refused(ErrorCode.BAD_REQUEST, "Header incomplete"),
    ]
    events_ = st.one_of(
        st.builds(events.Registered, sides, names),
        st.builds(events.Forwarded, names, texts),
        st.builds(events.Delivered, names),
        st.sampled_from([events.NotDelivered(), *errors]),
    )
    return Strategies(st.lists(requests_, max_size=6), st.lists(events_, max_size=6))


STRATEGIES = {
    "json": json_strategies(),
    "frames": frames_strategies(),
    "register": register_strategies(),
    "datagram": datagram_strategies(),
}


@every_protocol
@given(data=st.data())
def test_random_requests_arrive_as_sent(protocol: WireProtocol, data: st.DataObject) -> None:
    said = data.draw(STRATEGIES[protocol.name].requests)
    stream = b"".join(map(protocol.encode_request, said))

    assert unfold(decode(protocol.request_decoder(), data.draw(any_pieces(stream)))) == said


@every_protocol
@given(data=st.data())
def test_random_events_arrive_as_sent(protocol: WireProtocol, data: st.DataObject) -> None:
    said = data.draw(STRATEGIES[protocol.name].events)
    stream = b"".join(map(protocol.encode, said))

    assert decode(protocol.event_decoder(), data.draw(any_pieces(stream))) == said


# --- random bytes ---

# JSON values of every type, with known member names among them.
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["command", "message", "to", "nonce", "since", "limit", "x"]), inner, max_size=4
        )
    ),
    max_leaves=6,
).map(lambda value: json.dumps(value, ensure_ascii=False).encode())
# Bytes with a meaning in some protocol, bytes that are not text, and deep nesting.
fragments = st.one_of(
    json_values,
    st.binary(max_size=200),
    st.text('{}[]":,\\\r\n CD\0', max_size=8).map(str.encode),
    st.sampled_from([b"\n\n", b"\n \n", b"SEND bob\n", b" Content-length: 3\n\n", b"Content-length: -1\n", b"ERROR "]),
    st.sampled_from(
        [b"\r\n\r\n", b"Content-length: 2\n\n\xf0\x9f\x98", b"FORWARD bob\n", b"\n\n ", b"REGISTER TOSEND "]
    ),
    st.builds(
        lambda kind, size: kind + size.to_bytes(4), st.sampled_from([b"C", b"D", b"d"]), st.integers(0, 2**32 - 1)
    ),
    st.sampled_from(
        [b"d\0\0\0\0", b"d\0\0\0\1x", b"d\0\0\0\1\xe2", b"D\0\0\0\2\x82\xac", b"C\0\0\0\4PING", b"X\0\0\0\0"]
    ),
    st.builds(
        lambda letter, times: letter * times,
        st.sampled_from([b"[", b"]", b'{"":', b"{", b"}", b"\n", b" ", b'"', b"\\", b"\xff"]),
        st.sampled_from([2, 62, 63, 64, 65, 1_000]),
    ),
)


@st.composite
def damaged(draw: st.DrawFn, whole: st.SearchStrategy[bytes]) -> bytes:
    """Encoded bytes with a part replaced: often the end, or an insertion."""
    encoded = draw(whole)
    start = draw(st.integers(0, len(encoded)))
    end = draw(st.just(start) | st.just(len(encoded)) | st.integers(start, len(encoded)))
    return encoded[:start] + draw(st.just(b"") | fragments) + encoded[end:]


def mixed(whole: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Streams of whole, incomplete, damaged and random parts."""
    incomplete = whole.map(lambda encoded: encoded[:-1])
    return st.lists(whole | incomplete | damaged(whole) | fragments, max_size=8).map(b"".join)


@every_protocol
@given(data=st.data())
def test_random_bytes_in_any_pieces_are_the_same_requests(protocol: WireProtocol, data: st.DataObject) -> None:
    """A request decoder never raises, and holds no more than its limit."""
    samples = SAMPLES[protocol.name]
    several = [samples.message * 5, *((request,) for request in samples.requests)]
    stream = data.draw(mixed(st.sampled_from(several).map(lambda steps: b"".join(map(protocol.encode_request, steps)))))
    whole, cut = protocol.request_decoder(), protocol.request_decoder()
    empty_bytes = held_bytes(cut)
    found: list[Request] = []
    for part in data.draw(any_pieces(stream)):
        found += cut.decode(part)
        assert held_bytes(cut) - empty_bytes <= max(LINE_MAX_BYTES, FRAME_MAX_BYTES)

    assert list(map(gist, unfold(found))) == list(map(gist, unfold(whole.decode(stream))))
    assert cut.end() == whole.end()
    assert cut.is_inside == whole.is_inside


def events_or_error(protocol: WireProtocol, parts: list[bytes]) -> list[Event] | None:
    """The events of these pieces, or None if they are invalid."""
    try:
        return decode(protocol.event_decoder(), parts)
    except ProtocolError:
        return None


@every_protocol
@given(data=st.data())
def test_random_bytes_of_a_server_are_events_or_a_protocol_error(protocol: WireProtocol, data: st.DataObject) -> None:
    stream = data.draw(mixed(st.sampled_from(SAMPLES[protocol.name].said).map(protocol.encode)))

    assert events_or_error(protocol, data.draw(any_pieces(stream))) == events_or_error(protocol, [stream])
