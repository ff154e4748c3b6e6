"""Every dialect under hypothesis: everything that can be said arrives, and bytes of any kind do no harm."""

import itertools
import json
import string
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatprotocol import events, requests
from chatprotocol.errors import ErrorCode, ProtocolError
from chatprotocol.events import Event
from chatprotocol.limits import HISTORY_MAX_MESSAGES, ID_MAX, USERNAME_MAX_BYTES
from chatprotocol.requests import Request, Side
from chatprotocol.rules import unknown_user
from chatprotocol.wire import WireProtocol

from .samples import SAMPLES, SETTINGS, decode, unfold

every_protocol = pytest.mark.parametrize("protocol", SETTINGS.values(), ids=SETTINGS)

texts = st.text(max_size=40)
nonces = st.none() | texts
ids = st.integers(0, ID_MAX)
# From 1970 to the end of the calendar.
times_ms = st.integers(0, 253_402_300_799_999)
accounts = st.sampled_from(events.AccountKind)


class Sayings(NamedTuple):
    """What can be said in one dialect, and arrives as it was said."""

    requests: st.SearchStrategy[list[Request]]
    events: st.SearchStrategy[list[Event]]


def json_sayings() -> Sayings:
    names = st.lists(texts, max_size=4).map(tuple)
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
        st.builds(events.Welcome, accounts, texts, names, ids, st.none() | texts, st.none() | ids, st.none() | ids),
        messages,
        st.builds(lambda users, *news: events.Users(len(users), users, *news), names, names, names),
        st.builds(events.Users, st.integers(0, 10**6), st.none(), names, names),
        st.builds(events.Sent, ids, st.sampled_from(events.SentStatus), nonces),
        st.builds(events.History, st.lists(messages, max_size=4).map(tuple)),
        st.builds(events.User, texts, st.booleans()),
        st.builds(events.Found, texts, st.lists(messages, max_size=4).map(tuple), ids),
        st.builds(events.Refused, st.sampled_from(ErrorCode), texts, nonces),
        st.builds(events.Bye, texts),
        st.just(events.Pong()),
    )
    return Sayings(st.lists(requests_, max_size=6), st.lists(events_, max_size=6))


def frames_sayings() -> Sayings:
    name = st.text(string.ascii_letters + string.digits, min_size=1, max_size=USERNAME_MAX_BYTES)
    messages = st.builds(events.PublicMessage, ids, times_ms, name, texts) | st.builds(
        events.DirectMessage, ids, times_ms, name, st.just(""), texts
    )
    steps = st.builds(requests.Command, texts) | st.builds(requests.Data, texts)
    # They pour in: that is read in a way of its own.
    public = st.builds(
        lambda word, texts: [step for text in texts for step in (requests.Command(word), requests.Data(text))],
        st.sampled_from(["PM", "BM"]),
        st.lists(texts, max_size=8),
    )
    # TOO_MANY_ATTEMPTS is the same word as WRONG_PASSWORD; it is among the samples.
    codes = st.sampled_from([code for code in ErrorCode if code is not ErrorCode.TOO_MANY_ATTEMPTS])
    events_ = st.one_of(
        st.builds(events.PasswordPrompt, accounts),
        st.builds(events.Welcome, accounts, st.just(""), st.just(()), st.none()),
        messages,
        st.builds(events.Online, st.lists(name, max_size=4).map(tuple)),
        st.just(events.Ready()),
        st.builds(events.Sent, ids, st.sampled_from(events.SentStatus)),
        st.builds(events.History, st.lists(messages, max_size=4).map(tuple)),
        st.builds(events.Refused, codes, texts),
        texts.map(unknown_user).map(lambda refusal: events.Refused(refusal.code, refusal.reason, None, refusal.about)),
        # A goodbye without a reason is the one to somebody who left.
        st.builds(events.Bye, st.text(min_size=1, max_size=40)),
        st.just(events.Pong()),
    )
    several = st.lists(steps.map(lambda step: [step]) | public, max_size=6)
    return Sayings(several.map(lambda some: [step for each in some for step in each]), st.lists(events_, max_size=6))


def datagram_sayings() -> Sayings:
    """Those of frames, now and then so long that they go in pieces, and cut in the middle of a letter."""
    sayings = frames_sayings()
    long_texts = st.builds(
        lambda before, letter, times: before + letter * (times // len(letter.encode())),
        st.text(max_size=4),
        st.sampled_from(["x", "\u00e4", "\u20ac", "\U0001f600"]),
        st.sampled_from([1_150, 1_190, 1_200, 1_210, 2_400, 8_192, 65_000]),
    )
    long_message = st.builds(events.PublicMessage, ids, times_ms, st.just("bob"), long_texts)
    # A command that asks whether the server lives is read as that, and not as a step.
    steps = st.builds(requests.Command, texts.filter(lambda text: text.encode().strip() != b"PING"))
    one = steps | st.builds(requests.Data, texts | long_texts) | st.just(requests.Ping())
    long_history = st.lists(long_message, max_size=2).map(tuple).map(events.History)
    others = st.lists(long_message | long_history, max_size=2)
    return Sayings(
        st.builds(list.__add__, sayings.requests.filter(_asks_nothing), st.lists(one, max_size=6)),
        st.builds(list.__add__, sayings.events, others),
    )


def _asks_nothing(steps: list[Request]) -> bool:
    return not any(isinstance(step, requests.Command) and step.text.encode().strip() == b"PING" for step in steps)


def register_sayings() -> Sayings:
    name = st.text(string.ascii_letters + string.digits, min_size=1, max_size=USERNAME_MAX_BYTES)
    sides = st.sampled_from(Side)
    requests_ = st.one_of(
        st.builds(requests.Register, sides, name),
        st.builds(requests.Send, name, texts),
        st.builds(requests.Received, name),
        st.just(requests.NotReceived()),
    )
    refusals = [
        events.Refused(ErrorCode.BAD_USERNAME, "Malformed username"),
        events.Refused(ErrorCode.NOT_LOGGED_IN, "No user registered"),
        events.Refused(ErrorCode.BAD_REQUEST, "Header incomplete"),
    ]
    events_ = st.one_of(
        st.builds(events.Registered, sides, name),
        st.builds(events.Forwarded, name, texts),
        st.builds(events.Delivered, name),
        st.sampled_from([events.NotDelivered(), *refusals]),
    )
    return Sayings(st.lists(requests_, max_size=6), st.lists(events_, max_size=6))


SAYINGS = {
    "json": json_sayings(),
    "frames": frames_sayings(),
    "register": register_sayings(),
    "datagram": datagram_sayings(),
}


def cut(stream: bytes, data: st.DataObject) -> list[bytes]:
    """The stream in pieces, cut anywhere."""
    cuts = sorted(data.draw(st.sets(st.integers(0, len(stream)), max_size=8)))
    return [stream[start:end] for start, end in itertools.pairwise([0, *cuts, len(stream)])]


@every_protocol
@given(data=st.data())
def test_all_that_a_client_can_say_arrives_as_it_was_said(protocol: WireProtocol, data: st.DataObject) -> None:
    said = data.draw(SAYINGS[protocol.name].requests)
    stream = b"".join(map(protocol.encode_request, said))

    assert unfold(decode(protocol.request_decoder(), cut(stream, data))) == said


@every_protocol
@given(data=st.data())
def test_all_that_a_server_can_say_arrives_as_it_was_said(protocol: WireProtocol, data: st.DataObject) -> None:
    said = data.draw(SAYINGS[protocol.name].events)
    stream = b"".join(map(protocol.encode, said))

    assert decode(protocol.event_decoder(), cut(stream, data)) == said


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


def damaged(whole: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Something of which a part was replaced: often its end, or nothing by something."""

    @st.composite
    def damage(draw: st.DrawFn) -> bytes:
        encoded = draw(whole)
        start = draw(st.integers(0, len(encoded)))
        end = draw(st.just(start) | st.just(len(encoded)) | st.integers(start, len(encoded)))
        return encoded[:start] + draw(st.just(b"") | fragments) + encoded[end:]

    return damage()


def messes(whole: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Streams of what is whole, of what lacks its end, of what is damaged, and of what is nothing."""
    without_end = whole.map(lambda encoded: encoded[:-1])
    return st.lists(whole | without_end | damaged(whole) | fragments, max_size=8).map(b"".join)


def gist(request: Request) -> Request | ErrorCode:
    """A reason may name the byte where a parser stopped, counted from where the parser was let in."""
    return request.code if isinstance(request, requests.Unreadable) else request


@every_protocol
@settings(max_examples=300)
@given(data=st.data())
def test_any_bytes_in_any_pieces_are_the_same_requests_as_in_one_piece(
    protocol: WireProtocol, data: st.DataObject
) -> None:
    samples = SAMPLES[protocol.name]
    several = [samples.message * 5, *((request,) for request in samples.requests)]
    whole = st.sampled_from(several).map(lambda steps: b"".join(map(protocol.encode_request, steps)))
    stream = data.draw(messes(whole))
    in_one, in_pieces = protocol.request_decoder(), protocol.request_decoder()

    found = unfold(decode(in_pieces, cut(stream, data)))

    assert list(map(gist, found)) == list(map(gist, unfold(in_one.decode(stream))))
    assert in_pieces.end() == in_one.end()
    assert in_pieces.is_inside == in_one.is_inside


def understood(protocol: WireProtocol, parts: list[bytes]) -> list[Event] | None:
    """The events of a server that sends these pieces, None where it makes no sense."""
    try:
        return decode(protocol.event_decoder(), parts)
    except ProtocolError:
        return None


@every_protocol
@settings(max_examples=300)
@given(data=st.data())
def test_any_bytes_of_a_server_in_any_pieces_are_understood_or_not_but_do_no_other_harm(
    protocol: WireProtocol, data: st.DataObject
) -> None:
    whole = st.sampled_from(SAMPLES[protocol.name].said).map(protocol.encode)
    stream = data.draw(messes(whole))

    assert understood(protocol, cut(stream, data)) == understood(protocol, [stream])
