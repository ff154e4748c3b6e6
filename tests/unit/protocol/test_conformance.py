"""What every dialect keeps to, whatever its bytes look like. A new dialect is tested by being in DIALECTS."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatprotocol.dialects import DIALECTS, SNIFF_MAX_BYTES, Decoder, Dialect, Sniff, by_name, sniff
from chatprotocol.errors import ErrorCode, ProtocolError
from chatprotocol.events import Event, PublicMessage, PublicRun, Run, Sent, SentRun, SentStatus, one_by_one
from chatprotocol.limits import FRAME_MAX_BYTES, LINE_MAX_BYTES
from chatprotocol.requests import CommandRun, Request, Unreadable

from .samples import SAMPLES, SETTINGS, Samples, decode, held_bytes, pieces, unfold

T = TypeVar("T")

EVERY_REQUEST = tuple(request for samples in SAMPLES.values() for request in samples.requests)
EVERY_EVENT = tuple(event for samples in SAMPLES.values() for event in samples.said)

# What a decoder of any dialect may hold of what it was fed.
HELD_MAX_BYTES = max(LINE_MAX_BYTES, FRAME_MAX_BYTES)

every_dialect = pytest.mark.parametrize("dialect", SETTINGS.values(), ids=SETTINGS)
every_default = pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
# A dialect that is not spoken over TCP has no opening, and is not sniffed.
over_tcp = pytest.mark.parametrize(
    ("dialect", "opening"),
    [pytest.param(dialect, dialect.opening, id=dialect.name) for dialect in DIALECTS if dialect.opening is not None],
)


def with_each(argument: str, of: Callable[[Samples], Iterable[object]]) -> pytest.MarkDecorator:
    """The test is run for every dialect, with each of these samples of it."""
    cases = [
        pytest.param(dialect, sample, id=f"{name}-{sample!r:.100}")
        for name, dialect in SETTINGS.items()
        for sample in of(SAMPLES[dialect.name])
    ]
    return pytest.mark.parametrize(("dialect", argument), cases)


with_each_request = with_each("request_", lambda samples: (samples.login, *samples.requests))
with_each_event = with_each("event", lambda samples: samples.said)

# Bytes that mean something to one dialect or another come up often.
rubbish = st.lists(
    st.one_of(st.binary(max_size=200), st.text('{}[]":,\\\r\n CD\0', max_size=40).map(str.encode)), max_size=20
)

texts = st.lists(st.text(st.characters(codec="utf-8"), min_size=1), max_size=5)
runs = st.one_of(
    st.builds(PublicRun, st.integers(1, 10**6), st.integers(0, 10**12), st.just("alice"), texts),
    st.builds(SentRun, st.integers(1, 10**6), st.lists(st.one_of(st.none(), st.text(min_size=1)), max_size=5)),
)


def stream_of(dialect: Dialect, requests: Iterable[Request]) -> bytes:
    return b"".join(map(dialect.encode_request, requests))


def short(dialect: Dialect) -> list[Request]:
    """The requests that can be cut at every place in little time."""
    return [request for request in SAMPLES[dialect.name].requests if len(dialect.encode_request(request)) < 200]


def longest(dialect: Dialect) -> Request:
    return max(SAMPLES[dialect.name].requests, key=lambda request: len(dialect.encode_request(request)))


def cut_short(encoded: bytes) -> set[int]:
    """How many bytes of a request are surely not all of it; the last one may be a line end that can be missed."""
    return {1, 2, len(encoded) // 2, len(encoded) - 2}


# --- requests ---


@with_each_request
def test_a_request_arrives_as_it_was_sent(dialect: Dialect, request_: Request) -> None:
    assert dialect.request_decoder().decode(dialect.encode_request(request_)) == [request_]


@every_dialect
def test_several_requests_at_once_arrive_in_their_order(dialect: Dialect) -> None:
    requests = SAMPLES[dialect.name].requests

    assert unfold(dialect.request_decoder().decode(stream_of(dialect, requests))) == list(requests)


@every_dialect
def test_requests_cut_into_pieces_of_any_size_are_the_same_requests(dialect: Dialect) -> None:
    stream = stream_of(dialect, short(dialect))

    for size in range(1, len(stream) + 1):
        found = decode(dialect.request_decoder(), pieces(stream, size))
        assert unfold(found) == short(dialect), f"pieces of {size} bytes"


@every_dialect
def test_messages_that_pour_in_are_the_same_messages_cut_into_pieces_of_any_size(dialect: Dialect) -> None:
    before, *_, after = short(dialect)
    requests = [before, *SAMPLES[dialect.name].message * 12, after]
    stream = stream_of(dialect, requests)

    for size in range(1, len(stream) + 1):
        found = decode(dialect.request_decoder(), pieces(stream, size))
        assert unfold(found) == requests, f"pieces of {size} bytes"


@every_dialect
def test_a_long_request_byte_by_byte_is_the_same_request(dialect: Dialect) -> None:
    request = longest(dialect)

    assert decode(dialect.request_decoder(), pieces(dialect.encode_request(request), 1)) == [request]


@every_dialect
def test_a_request_over_the_limit_is_refused_with_the_limit_in_the_reason(dialect: Dialect) -> None:
    encoded = dialect.encode_request(SAMPLES[dialect.name].too_long)

    for size in (len(encoded), 1_000):
        (refused,) = decode(dialect.request_decoder(), pieces(encoded, size))

        assert isinstance(refused, Unreadable)
        assert refused.code is ErrorCode.TOO_LONG
        assert SAMPLES[dialect.name].limit in refused.reason


@with_each_request
def test_a_connection_that_ends_inside_a_request_has_not_made_it(dialect: Dialect, request_: Request) -> None:
    encoded = dialect.encode_request(request_)

    for size in cut_short(encoded):
        decoder = dialect.request_decoder()
        assert decoder.decode(encoded[:size]) == [], f"after {size} bytes"
        assert [type(each) for each in decoder.end()] == [Unreadable], f"after {size} bytes"


@with_each_request
def test_a_connection_that_ends_between_two_requests_is_no_error(dialect: Dialect, request_: Request) -> None:
    decoder = dialect.request_decoder()
    decoder.decode(dialect.encode_request(request_))

    assert decoder.end() == []


@with_each_request
def test_a_decoder_is_inside_of_a_request_from_its_first_byte_to_its_last(dialect: Dialect, request_: Request) -> None:
    encoded = dialect.encode_request(request_)

    for size in cut_short(encoded):
        decoder = dialect.request_decoder()
        assert not decoder.is_inside
        decoder.decode(encoded[:size])
        assert decoder.is_inside, f"after {size} bytes"
        decoder.decode(encoded[size:])
        assert not decoder.is_inside, f"after {size} bytes and the rest"


@with_each_request
def test_the_half_request_behind_a_whole_one_is_one_that_a_decoder_is_inside_of(
    dialect: Dialect, request_: Request
) -> None:
    decoder = dialect.request_decoder()

    decoder.decode(dialect.encode_request(request_) + dialect.encode_request(request_)[:2])

    assert decoder.is_inside


@pytest.mark.parametrize(
    ("dialect", "request_"),
    [
        pytest.param(dialect, request, id=f"{name}-{request!r:.100}")
        for name, dialect in SETTINGS.items()
        for request in (*EVERY_REQUEST, CommandRun("PM", ("hello",)), Unreadable(ErrorCode.BAD_JSON, "not JSON"))
        if type(request) not in set(map(type, SAMPLES[dialect.name].requests))
    ],
)
def test_no_client_can_send_what_is_no_request_of_its_dialect(dialect: Dialect, request_: Request) -> None:
    with pytest.raises(TypeError):
        dialect.encode_request(request_)


@every_dialect
def test_two_connections_share_nothing(dialect: Dialect) -> None:
    samples = SAMPLES[dialect.name]
    one, other = dialect.request_decoder(), dialect.request_decoder()

    one.decode(dialect.encode_request(samples.login)[:-5])

    assert not other.is_inside
    assert other.decode(stream_of(dialect, samples.message)) == list(samples.message)


# --- events ---


@with_each("arrival", lambda samples: samples.arrivals)
def test_of_each_event_there_arrives_what_the_dialect_can_carry(
    dialect: Dialect, arrival: tuple[Event, tuple[Event, ...]]
) -> None:
    event, arriving = arrival

    assert dialect.event_decoder().decode(dialect.encode(event)) == list(arriving)


@every_dialect
def test_events_cut_into_pieces_of_any_size_are_the_same_events(dialect: Dialect) -> None:
    samples = SAMPLES[dialect.name]
    stream = b"".join(map(dialect.encode, samples.said))
    arriving = [each for _, arrives in samples.arrivals for each in arrives]

    for size in range(1, len(stream) + 1):
        assert decode(dialect.event_decoder(), pieces(stream, size)) == arriving, f"pieces of {size} bytes"


@every_dialect
@given(data=st.data())
def test_what_is_encoded_together_is_what_would_be_one_by_one(dialect: Dialect, data: st.DataObject) -> None:
    said: list[Event | Run] = data.draw(
        st.lists(st.one_of(st.sampled_from(SAMPLES[dialect.name].said), runs), max_size=5)
    )

    assert dialect.encode_all(said) == b"".join(map(dialect.encode, one_by_one(said)))


def test_a_run_counts_its_ids_on() -> None:
    events = list(one_by_one([PublicRun(7, 5, "alice", ["one", "two"]), SentRun(8, (None, "n1"))]))

    assert events == [
        PublicMessage(7, 5, "alice", "one"),
        PublicMessage(8, 5, "alice", "two"),
        Sent(8, SentStatus.SENT),
        Sent(9, SentStatus.SENT, "n1"),
    ]


@pytest.mark.parametrize(
    ("dialect", "event"),
    [
        pytest.param(dialect, event, id=f"{name}-{event!r:.100}")
        for name, dialect in SETTINGS.items()
        for event in EVERY_EVENT
        if type(event) not in set(map(type, SAMPLES[dialect.name].said))
    ],
)
def test_an_event_that_the_dialect_has_no_word_for_is_nothing(dialect: Dialect, event: Event) -> None:
    assert dialect.encode_all([event, event]) == b""


# --- bytes of any kind ---


def held_of(fed: Decoder[Request], dialect: Dialect) -> int:
    """How many bytes of what it was fed the decoder keeps."""
    return held_bytes(fed) - held_bytes(dialect.request_decoder())


@with_each_request
def test_half_a_request_is_held(dialect: Dialect, request_: Request) -> None:
    """So that the tests below measure something."""
    half = dialect.encode_request(request_)[:4]
    decoder = dialect.request_decoder()

    decoder.decode(half)

    assert held_of(decoder, dialect) == len(half)


@every_dialect
@given(parts=rubbish)
def test_rubbish_never_raises_and_is_not_collected_for_ever(dialect: Dialect, parts: list[bytes]) -> None:
    decoder = dialect.request_decoder()

    for part in parts:
        decoder.decode(part)
        assert held_of(decoder, dialect) <= HELD_MAX_BYTES
    decoder.end()


@every_dialect
@given(parts=rubbish)
def test_rubbish_from_a_server_is_a_protocol_error_and_nothing_else(dialect: Dialect, parts: list[bytes]) -> None:
    decoder = dialect.event_decoder()

    with suppress(ProtocolError):
        decode(decoder, parts)


@every_dialect
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
def test_a_flood_without_an_end_is_never_held_beyond_the_limit(dialect: Dialect, letter: bytes, begun: int) -> None:
    """Memory stays bounded (DESIGN.md, Back-pressure)."""
    decoder = dialect.request_decoder()
    decoder.decode(dialect.encode_request(longest(dialect))[:begun])

    for _ in range(5 * HELD_MAX_BYTES // 1000):
        decoder.decode(letter * (1000 // len(letter)))
        assert held_of(decoder, dialect) <= HELD_MAX_BYTES


# --- whose is a connection? ---


@every_default
def test_a_login_is_sniffed_as_its_dialect_where_that_is_spoken_over_tcp(dialect: Dialect) -> None:
    login = dialect.encode_request(SAMPLES[dialect.name].login)

    for size in range(1, SNIFF_MAX_BYTES + 1):
        if dialect.opening is None:
            assert dialect.sniff(login[:size]) is Sniff.NO
        else:
            assert sniff(login[:size]) in (dialect, Sniff.MORE)
    if dialect.opening is not None:
        assert sniff(login) is sniff(login[:SNIFF_MAX_BYTES]) is dialect


@over_tcp
def test_the_opening_that_strangers_are_told_of_is_sniffed_as_its_dialect(dialect: Dialect, opening: str) -> None:
    assert sniff(opening.encode()) is dialect


@over_tcp
def test_the_opening_that_strangers_are_told_of_is_a_request(dialect: Dialect, opening: str) -> None:
    decoder = dialect.request_decoder()

    assert [type(each) for each in decoder.decode(opening.encode())] == [type(SAMPLES[dialect.name].login)]
    assert not decoder.is_inside


def test_all_dialects_but_the_one_of_datagrams_are_spoken_over_tcp() -> None:
    assert [dialect.name for dialect in DIALECTS if dialect.opening is None] == ["datagram"]


@every_default
def test_a_dialect_is_found_by_its_name_alone(dialect: Dialect) -> None:
    assert by_name(dialect.name) is dialect
