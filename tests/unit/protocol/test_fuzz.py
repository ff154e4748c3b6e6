"""Every dialect under hypothesis: everything that can be said arrives, and bytes of any kind do no harm."""

import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatprotocol import events, requests
from chatprotocol.dialects import DIALECTS, Dialect
from chatprotocol.errors import ErrorCode
from chatprotocol.events import Event
from chatprotocol.limits import HISTORY_MAX_MESSAGES, ID_MAX
from chatprotocol.requests import Request

from .samples import REQUESTS, decode

every_dialect = pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)

texts = st.text(max_size=40)
nonces = st.none() | texts
ids = st.integers(0, ID_MAX)
# From 1970 to the end of the calendar.
times_ms = st.integers(0, 253_402_300_799_999)
names = st.lists(texts, max_size=4).map(tuple)
messages = st.builds(events.PublicMessage, ids, times_ms, texts, texts) | st.builds(
    events.DirectMessage, ids, times_ms, texts, texts, texts
)
any_request = st.one_of(
    st.builds(requests.Login, texts, nonces, st.none() | ids),
    st.builds(requests.Password, texts),
    st.builds(requests.Say, texts, nonces),
    st.builds(requests.Whisper, texts, texts, nonces),
    st.builds(requests.AskHistory, st.integers(1, HISTORY_MAX_MESSAGES), st.none() | ids),
    st.sampled_from([requests.AskUsers(), requests.Ping(), requests.Leave()]),
)
any_event = st.one_of(
    st.builds(events.PasswordPrompt, st.sampled_from(events.AccountKind)),
    st.builds(events.Welcome, st.sampled_from(events.AccountKind), texts, names, ids),
    messages,
    st.builds(lambda users, *news: events.Users(len(users), users, *news), names, names, names),
    st.builds(events.Users, st.integers(0, 10**6), st.none(), names, names),
    st.builds(events.Sent, ids, st.sampled_from(events.SentStatus), nonces),
    st.builds(events.History, st.lists(messages, max_size=4).map(tuple)),
    st.builds(events.Refused, st.sampled_from(ErrorCode), texts, nonces),
    st.builds(events.Bye, texts),
    st.just(events.Pong()),
)


def cut(stream: bytes, data: st.DataObject) -> list[bytes]:
    """The stream in pieces, cut anywhere."""
    cuts = sorted(data.draw(st.sets(st.integers(0, len(stream)), max_size=8)))
    return [stream[start:end] for start, end in itertools.pairwise([0, *cuts, len(stream)])]


@every_dialect
@given(said=st.lists(any_request, max_size=6), data=st.data())
def test_all_that_a_client_can_say_arrives_as_it_was_said(
    dialect: Dialect, said: list[Request], data: st.DataObject
) -> None:
    stream = b"".join(map(dialect.encode_request, said))

    assert decode(dialect.request_decoder(), cut(stream, data)) == said


@every_dialect
@given(said=st.lists(any_event, max_size=6), data=st.data())
def test_all_that_a_server_can_say_arrives_as_it_was_said(
    dialect: Dialect, said: list[Event], data: st.DataObject
) -> None:
    stream = b"".join(map(dialect.encode, said))

    assert decode(dialect.event_decoder(), cut(stream, data)) == said


# --- bytes that nobody of ours would send ---

# Values of every type, with members that mean something among them.
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
# What means something to one dialect or another, what is no text, and what is deep.
fragments = st.one_of(
    json_values,
    st.binary(max_size=8),
    st.text('{}[]":,\\\r\n CD\0', max_size=8).map(str.encode),
    st.builds(
        lambda letter, times: letter * times,
        st.sampled_from([b"[", b"]", b'{"":', b"{", b"}", b"\n", b" ", b'"', b"\\", b"\xff"]),
        st.sampled_from([2, 62, 63, 64, 65, 1_000]),
    ),
)


@st.composite
def damaged(draw: st.DrawFn, dialect: Dialect) -> bytes:
    """A request of which a part was replaced: often its end, or nothing by something."""
    whole = dialect.encode_request(draw(st.sampled_from(REQUESTS)))
    start = draw(st.integers(0, len(whole)))
    end = draw(st.just(start) | st.just(len(whole)) | st.integers(start, len(whole)))
    return whole[:start] + draw(st.just(b"") | fragments) + whole[end:]


def gist(request: Request) -> Request | ErrorCode:
    """A reason may name the byte where a parser stopped, counted from where the parser was let in."""
    return request.code if isinstance(request, requests.Unreadable) else request


@every_dialect
@settings(max_examples=300)
@given(data=st.data())
def test_any_bytes_in_any_pieces_are_the_same_requests_as_in_one_piece(dialect: Dialect, data: st.DataObject) -> None:
    whole = st.sampled_from(REQUESTS).map(dialect.encode_request)
    without_end = whole.map(lambda encoded: encoded[:-1])
    stream = b"".join(data.draw(st.lists(whole | without_end | damaged(dialect) | fragments, max_size=8)))
    in_one, in_pieces = dialect.request_decoder(), dialect.request_decoder()

    assert list(map(gist, decode(in_pieces, cut(stream, data)))) == list(map(gist, in_one.feed(stream)))
    assert in_pieces.end() == in_one.end()
