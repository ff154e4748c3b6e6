"""Every protocol under hypothesis: random requests and events arrive, and random bytes do no harm."""

import json
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, TypeVar

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from raw_steps import Command, encode_request, new_reader, new_server, receive

from chatprotocol.errors import ProtocolError
from chatprotocol.events import Event, TimeMs
from chatprotocol.limits import FRAME_MAX_BYTES, ID_MAX, LINE_MAX_BYTES
from chatprotocol.requests import Request
from chatprotocol.wire import WireProtocol

from .samples import SAMPLES, SETTINGS, any_pieces, decode, gist, held_bytes, unfold

every_protocol = pytest.mark.parametrize("protocol", SETTINGS.values(), ids=SETTINGS)
Sample = TypeVar("Sample", Request, Event)

texts = st.text(max_size=40)
# Long enough to be split by datagram, also in the middle of a character.
long_texts = st.builds(
    lambda before, letter, size: before + letter * (size // len(letter.encode())),
    st.text(max_size=4),
    st.sampled_from(["x", "\u00e4", "\u20ac", "\U0001f600"]),
    st.sampled_from([1_150, 1_190, 1_200, 1_210, 2_400, 8_192]),
)
ids = st.integers(0, ID_MAX)
# Fields that can have any value in every protocol; times are from 1970 to the end of the calendar.
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    **dict.fromkeys(("nonce", "password", "words", "old", "new", "remember", "token"), texts),
    "text": texts | long_texts,
    **dict.fromkeys(("id", "since", "before", "last_id", "seen_id", "upto"), ids),
    "time_ms": st.integers(0, 253_402_300_799_999).map(TimeMs),
}


def varied(samples: Iterable[Sample]) -> st.SearchStrategy[Sample]:
    """Samples with random values."""

    def vary(sample: Any) -> st.SearchStrategy[Any]:
        names = [name for name in sample.__struct_fields__ if name in FIELDS and getattr(sample, name) is not None]
        fields = {"text": texts} if isinstance(sample, Command) else dict(FIELDS)  # a command is never split
        # The id of a message is a number, that of a session a text.
        fields |= {"id": texts} if isinstance(getattr(sample, "id", None), str) else {}
        return st.fixed_dictionaries({name: fields[name] for name in names}).map(
            lambda values: msgspec.structs.replace(sample, **values)
        )

    return st.sampled_from(list(samples)).flatmap(vary)


def with_text(sample: Sample, change: Callable[[str], str | None]) -> list[Sample]:
    """The sample with its text changed; none if it is refused."""
    if "text" not in sample.__struct_fields__ or isinstance(sample, Command):
        return [sample]
    text = change(sample.text)  # type: ignore[union-attr]
    return [] if text is None else [msgspec.structs.replace(sample, text=text)]


def is_ping(request: Request) -> bool:
    """True for a command that datagram reads as a Ping."""
    return isinstance(request, Command) and request.text.encode().strip() == b"PING"


@every_protocol
@given(data=st.data())
def test_random_requests_arrive_as_sent(protocol: WireProtocol, data: st.DataObject) -> None:
    """With many messages in the middle, which some decoders read as a batch."""
    samples = SAMPLES[protocol.name]
    several = st.lists(varied(samples.requests).filter(lambda request: not is_ping(request)), max_size=6)
    sent = [*data.draw(several), *samples.message * data.draw(st.integers(0, 12)), *data.draw(several)]
    stream = b"".join(map(partial(encode_request, protocol), sent))
    arriving = [each for request in sent for each in with_text(request, samples.arriving_text)]
    assert unfold(receive(new_server(protocol), *data.draw(any_pieces(stream)))) == arriving


@every_protocol
@given(data=st.data())
def test_random_events_arrive_as_sent(protocol: WireProtocol, data: st.DataObject) -> None:
    samples = SAMPLES[protocol.name]
    sent = data.draw(st.lists(varied(samples.events), max_size=6)) if samples.events else []
    stream = b"".join(protocol.encode_all([event]) for event in sent)
    shown = [each for event in sent for each in with_text(event, samples.shown_text)]
    assert decode(new_reader(protocol), data.draw(any_pieces(stream))) == shown


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
    stream = data.draw(
        mixed(st.sampled_from(several).map(lambda steps: b"".join(map(partial(encode_request, protocol), steps))))
    )
    whole, cut = new_server(protocol), new_server(protocol)
    empty_bytes = held_bytes(cut)
    found: list[Request] = []
    for part in data.draw(any_pieces(stream)):
        found += receive(cut, part)
        assert held_bytes(cut) - empty_bytes <= max(LINE_MAX_BYTES, FRAME_MAX_BYTES)
    assert list(map(gist, unfold(found))) == list(map(gist, unfold(receive(whole, stream))))
    assert cut.receive_end() == whole.receive_end()
    assert cut.is_incomplete == whole.is_incomplete


def events_or_error(protocol: WireProtocol, parts: list[bytes]) -> list[Event] | None:
    """The events of these pieces, or None if they are invalid."""
    try:
        return decode(new_reader(protocol), parts)
    except ProtocolError:
        return None


@every_protocol
@given(data=st.data())
def test_random_bytes_of_a_server_are_events_or_a_protocol_error(protocol: WireProtocol, data: st.DataObject) -> None:
    stream = data.draw(
        mixed(st.sampled_from(SAMPLES[protocol.name].said).map(lambda event: protocol.encode_all([event])))
    )
    assert events_or_error(protocol, data.draw(any_pieces(stream))) == events_or_error(protocol, [stream])
