"""What every dialect keeps to, whatever its bytes look like. A new dialect is tested by being in DIALECTS."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatprotocol.errors import ErrorCode, ProtocolError
from chatprotocol.events import Event, PublicBatch, PublicMessage, Run, Sent, SentBatch, SentStatus, one_by_one
from chatprotocol.limits import FRAME_MAX_BYTES, LINE_MAX_BYTES
from chatprotocol.requests import CommandBatch, Request, Unreadable
from chatprotocol.wire import PROTOCOLS, SNIFF_MAX_BYTES, Decoder, Sniff, WireProtocol, by_name, sniff

from .samples import SAMPLES, SETTINGS, Samples, decode, held_bytes, pieces, unfold

T = TypeVar("T")

EVERY_REQUEST = tuple(request for samples in SAMPLES.values() for request in samples.requests)
EVERY_EVENT = tuple(event for samples in SAMPLES.values() for event in samples.said)

# What a decoder of any dialect may hold of what it was fed.
HELD_MAX_BYTES = max(LINE_MAX_BYTES, FRAME_MAX_BYTES)

every_protocol = pytest.mark.parametrize("protocol", SETTINGS.values(), ids=SETTINGS)
every_default = pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda protocol: protocol.name)
# A dialect that is not spoken over TCP has no opening, and is not sniffed.
over_tcp = pytest.mark.parametrize(
    ("protocol", "opening"),
    [
        pytest.param(protocol, protocol.opening, id=protocol.name)
        for protocol in PROTOCOLS
        if protocol.opening is not None
    ],
)


def with_each(argument: str, of: Callable[[Samples], Iterable[object]]) -> pytest.MarkDecorator:
    """The test is run for every dialect, with each of these samples of it."""
    cases = [
        pytest.param(protocol, sample, id=f"{name}-{sample!r:.100}")
        for name, protocol in SETTINGS.items()
        for sample in of(SAMPLES[protocol.name])
    ]
    return pytest.mark.parametrize(("protocol", argument), cases)


with_each_request = with_each("request_", lambda samples: (samples.login, *samples.requests))
with_each_event = with_each("event", lambda samples: samples.said)

# Bytes that mean something to one dialect or another come up often.
rubbish = st.lists(
    st.one_of(st.binary(max_size=200), st.text('{}[]":,\\\r\n CD\0', max_size=40).map(str.encode)), max_size=20
)

texts = st.lists(st.text(st.characters(codec="utf-8"), min_size=1), max_size=5)
runs = st.one_of(
    st.builds(PublicBatch, st.integers(1, 10**6), st.integers(0, 10**12), st.just("alice"), texts),
    st.builds(SentBatch, st.integers(1, 10**6), st.lists(st.one_of(st.none(), st.text(min_size=1)), max_size=5)),
)


def stream_of(protocol: WireProtocol, requests: Iterable[Request]) -> bytes:
    return b"".join(map(protocol.encode_request, requests))


def short(protocol: WireProtocol) -> list[Request]:
    """The requests that can be cut at every place in little time."""
    return [request for request in SAMPLES[protocol.name].requests if len(protocol.encode_request(request)) < 200]


def longest(protocol: WireProtocol) -> Request:
    return max(SAMPLES[protocol.name].requests, key=lambda request: len(protocol.encode_request(request)))


def cut_short(encoded: bytes) -> set[int]:
    """How many bytes of a request are surely not all of it; the last one may be a line end that can be missed."""
    return {1, 2, len(encoded) // 2, len(encoded) - 2}


# --- requests ---


@with_each_request
def test_a_request_arrives_as_it_was_sent(protocol: WireProtocol, request_: Request) -> None:
    assert protocol.request_decoder().decode(protocol.encode_request(request_)) == [request_]


@every_protocol
def test_several_requests_at_once_arrive_in_their_order(protocol: WireProtocol) -> None:
    requests = SAMPLES[protocol.name].requests

    assert unfold(protocol.request_decoder().decode(stream_of(protocol, requests))) == list(requests)


@every_protocol
def test_requests_cut_into_pieces_of_any_size_are_the_same_requests(protocol: WireProtocol) -> None:
    stream = stream_of(protocol, short(protocol))

    for size in range(1, len(stream) + 1):
        found = decode(protocol.request_decoder(), pieces(stream, size))
        assert unfold(found) == short(protocol), f"pieces of {size} bytes"


@every_protocol
def test_messages_that_pour_in_are_the_same_messages_cut_into_pieces_of_any_size(protocol: WireProtocol) -> None:
    before, *_, after = short(protocol)
    requests = [before, *SAMPLES[protocol.name].message * 12, after]
    stream = stream_of(protocol, requests)

    for size in range(1, len(stream) + 1):
        found = decode(protocol.request_decoder(), pieces(stream, size))
        assert unfold(found) == requests, f"pieces of {size} bytes"


@every_protocol
def test_a_long_request_byte_by_byte_is_the_same_request(protocol: WireProtocol) -> None:
    request = longest(protocol)

    assert decode(protocol.request_decoder(), pieces(protocol.encode_request(request), 1)) == [request]


@every_protocol
def test_a_request_over_the_limit_is_refused_with_the_limit_in_the_reason(protocol: WireProtocol) -> None:
    encoded = protocol.encode_request(SAMPLES[protocol.name].too_long)

    for size in (len(encoded), 1_000):
        (refused,) = decode(protocol.request_decoder(), pieces(encoded, size))

        assert isinstance(refused, Unreadable)
        assert refused.code is ErrorCode.TOO_LONG
        assert SAMPLES[protocol.name].limit in refused.reason


@with_each_request
def test_a_connection_that_ends_inside_a_request_has_not_made_it(protocol: WireProtocol, request_: Request) -> None:
    encoded = protocol.encode_request(request_)

    for size in cut_short(encoded):
        decoder = protocol.request_decoder()
        assert decoder.decode(encoded[:size]) == [], f"after {size} bytes"
        assert [type(each) for each in decoder.end()] == [Unreadable], f"after {size} bytes"


@with_each_request
def test_a_connection_that_ends_between_two_requests_is_no_error(protocol: WireProtocol, request_: Request) -> None:
    decoder = protocol.request_decoder()
    decoder.decode(protocol.encode_request(request_))

    assert decoder.end() == []


@with_each_request
def test_a_decoder_is_inside_of_a_request_from_its_first_byte_to_its_last(
    protocol: WireProtocol, request_: Request
) -> None:
    encoded = protocol.encode_request(request_)

    for size in cut_short(encoded):
        decoder = protocol.request_decoder()
        assert not decoder.is_inside
        decoder.decode(encoded[:size])
        assert decoder.is_inside, f"after {size} bytes"
        decoder.decode(encoded[size:])
        assert not decoder.is_inside, f"after {size} bytes and the rest"


@with_each_request
def test_the_half_request_behind_a_whole_one_is_one_that_a_decoder_is_inside_of(
    protocol: WireProtocol, request_: Request
) -> None:
    decoder = protocol.request_decoder()

    decoder.decode(protocol.encode_request(request_) + protocol.encode_request(request_)[:2])

    assert decoder.is_inside


@pytest.mark.parametrize(
    ("protocol", "request_"),
    [
        pytest.param(protocol, request, id=f"{name}-{request!r:.100}")
        for name, protocol in SETTINGS.items()
        for request in (*EVERY_REQUEST, CommandBatch("PM", ("hello",)), Unreadable(ErrorCode.BAD_JSON, "not JSON"))
        if type(request) not in set(map(type, SAMPLES[protocol.name].requests))
    ],
)
def test_no_client_can_send_what_is_no_request_of_its_dialect(protocol: WireProtocol, request_: Request) -> None:
    with pytest.raises(TypeError):
        protocol.encode_request(request_)


@every_protocol
def test_two_connections_share_nothing(protocol: WireProtocol) -> None:
    samples = SAMPLES[protocol.name]
    one, other = protocol.request_decoder(), protocol.request_decoder()

    one.decode(protocol.encode_request(samples.login)[:-5])

    assert not other.is_inside
    assert other.decode(stream_of(protocol, samples.message)) == list(samples.message)


# --- events ---


@with_each("arrival", lambda samples: samples.arrivals)
def test_of_each_event_there_arrives_what_the_dialect_can_carry(
    protocol: WireProtocol, arrival: tuple[Event, tuple[Event, ...]]
) -> None:
    event, arriving = arrival

    assert protocol.event_decoder().decode(protocol.encode(event)) == list(arriving)


@every_protocol
def test_events_cut_into_pieces_of_any_size_are_the_same_events(protocol: WireProtocol) -> None:
    samples = SAMPLES[protocol.name]
    stream = b"".join(map(protocol.encode, samples.said))
    arriving = [each for _, arrives in samples.arrivals for each in arrives]

    for size in range(1, len(stream) + 1):
        assert decode(protocol.event_decoder(), pieces(stream, size)) == arriving, f"pieces of {size} bytes"


@every_protocol
@given(data=st.data())
def test_what_is_encoded_together_is_what_would_be_one_by_one(protocol: WireProtocol, data: st.DataObject) -> None:
    said: list[Event | Run] = data.draw(
        st.lists(st.one_of(st.sampled_from(SAMPLES[protocol.name].said), runs), max_size=5)
    )

    assert protocol.encode_all(said) == b"".join(map(protocol.encode, one_by_one(said)))


def test_a_run_counts_its_ids_on() -> None:
    events = list(one_by_one([PublicBatch(7, 5, "alice", ["one", "two"]), SentBatch(8, (None, "n1"))]))

    assert events == [
        PublicMessage(7, 5, "alice", "one"),
        PublicMessage(8, 5, "alice", "two"),
        Sent(8, SentStatus.SENT),
        Sent(9, SentStatus.SENT, "n1"),
    ]


@pytest.mark.parametrize(
    ("protocol", "event"),
    [
        pytest.param(protocol, event, id=f"{name}-{event!r:.100}")
        for name, protocol in SETTINGS.items()
        for event in EVERY_EVENT
        if type(event) not in set(map(type, SAMPLES[protocol.name].said))
    ],
)
def test_an_event_that_the_dialect_has_no_word_for_is_nothing(protocol: WireProtocol, event: Event) -> None:
    assert protocol.encode_all([event, event]) == b""


# --- bytes of any kind ---


def held_of(fed: Decoder[Request], protocol: WireProtocol) -> int:
    """How many bytes of what it was fed the decoder keeps."""
    return held_bytes(fed) - held_bytes(protocol.request_decoder())


@with_each_request
def test_half_a_request_is_held(protocol: WireProtocol, request_: Request) -> None:
    """So that the tests below measure something."""
    half = protocol.encode_request(request_)[:4]
    decoder = protocol.request_decoder()

    decoder.decode(half)

    assert held_of(decoder, protocol) == len(half)


@every_protocol
@given(parts=rubbish)
def test_rubbish_never_raises_and_is_not_collected_for_ever(protocol: WireProtocol, parts: list[bytes]) -> None:
    decoder = protocol.request_decoder()

    for part in parts:
        decoder.decode(part)
        assert held_of(decoder, protocol) <= HELD_MAX_BYTES
    decoder.end()


@every_protocol
@given(parts=rubbish)
def test_rubbish_from_a_server_is_a_protocol_error_and_nothing_else(protocol: WireProtocol, parts: list[bytes]) -> None:
    decoder = protocol.event_decoder()

    with suppress(ProtocolError):
        decode(decoder, parts)


@every_protocol
@pytest.mark.parametrize(
    "letter",
    [
        b"x",
        b"{",
        b"[",
        b'"',
        b"\\",
        b"\0",
        b" ",
        b"\n",
        b"\xff",
        b"\xf0\x9f\x98\x80",
        b"C",
        b"D\0\0\0\2PM",
        b"d\0\0\0\2PM",
    ],
)
@pytest.mark.parametrize("begun", [0, 1, 5, 30, 40])
def test_a_flood_without_an_end_is_never_held_beyond_the_limit(
    protocol: WireProtocol, letter: bytes, begun: int
) -> None:
    """Memory stays bounded (DESIGN.md, Back-pressure)."""
    decoder = protocol.request_decoder()
    decoder.decode(protocol.encode_request(longest(protocol))[:begun])

    for _ in range(5 * HELD_MAX_BYTES // 1000):
        decoder.decode(letter * (1000 // len(letter)))
        assert held_of(decoder, protocol) <= HELD_MAX_BYTES


# --- whose is a connection? ---


@every_default
def test_a_login_is_sniffed_as_its_dialect_where_that_is_spoken_over_tcp(protocol: WireProtocol) -> None:
    login = protocol.encode_request(SAMPLES[protocol.name].login)

    for size in range(1, SNIFF_MAX_BYTES + 1):
        if protocol.opening is None:
            assert protocol.sniff(login[:size]) is Sniff.NO
        else:
            assert sniff(login[:size]) in (protocol, Sniff.MORE)
    if protocol.opening is not None:
        assert sniff(login) is sniff(login[:SNIFF_MAX_BYTES]) is protocol


@over_tcp
def test_the_opening_that_strangers_are_told_of_is_sniffed_as_its_dialect(protocol: WireProtocol, opening: str) -> None:
    assert sniff(opening.encode()) is protocol


@over_tcp
def test_the_opening_that_strangers_are_told_of_is_a_request(protocol: WireProtocol, opening: str) -> None:
    decoder = protocol.request_decoder()

    assert [type(each) for each in decoder.decode(opening.encode())] == [type(SAMPLES[protocol.name].login)]
    assert not decoder.is_inside


def test_all_dialects_but_the_one_of_datagrams_are_spoken_over_tcp() -> None:
    assert [protocol.name for protocol in PROTOCOLS if protocol.opening is None] == ["datagram"]


@every_default
def test_a_dialect_is_found_by_its_name_alone(protocol: WireProtocol) -> None:
    assert by_name(protocol.name) is protocol
