"""What every dialect keeps to, whatever its bytes look like. A new dialect is tested by being in DIALECTS."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatprotocol.dialects import DIALECTS, SNIFF_MAX_BYTES, Dialect, Sniff, by_name, sniff
from chatprotocol.errors import ErrorCode, ProtocolError
from chatprotocol.events import Event, PublicMessage, PublicRun, Run, Sent, SentRun, SentStatus, one_by_one
from chatprotocol.limits import LINE_MAX_BYTES
from chatprotocol.requests import Request, Unreadable

from .samples import EVENTS, REQUESTS, decode, held_bytes, pieces

every_dialect = pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
# Bytes that mean something to one dialect or another come up often.
rubbish = st.lists(
    st.one_of(st.binary(max_size=200), st.text('{}[]":,\\\r\n CD\0', max_size=40).map(str.encode)), max_size=20
)

texts = st.lists(st.text(st.characters(codec="utf-8"), min_size=1), max_size=5)
runs = st.one_of(
    st.builds(PublicRun, st.integers(1, 10**6), st.integers(0, 10**12), st.just("alice"), texts),
    st.builds(SentRun, st.integers(1, 10**6), st.lists(st.one_of(st.none(), st.text(min_size=1)), max_size=5)),
)


@every_dialect
@pytest.mark.parametrize("request_", REQUESTS, ids=repr)
def test_a_request_arrives_as_it_was_sent(dialect: Dialect, request_: Request) -> None:
    assert dialect.request_decoder().feed(dialect.encode_request(request_)) == [request_]


@every_dialect
@pytest.mark.parametrize("event", EVENTS, ids=repr)
def test_an_event_arrives_as_it_was_said(dialect: Dialect, event: Event) -> None:
    assert dialect.event_decoder().feed(dialect.encode(event)) == [event]


@every_dialect
@given(said=st.lists(st.one_of(st.sampled_from(EVENTS), runs), max_size=5))
def test_what_is_encoded_together_is_what_would_be_one_by_one(dialect: Dialect, said: list[Event | Run]) -> None:
    assert dialect.encode_all(said) == b"".join(map(dialect.encode, one_by_one(said)))


def test_a_run_counts_its_ids_on() -> None:
    events = list(one_by_one([PublicRun(7, 5, "alice", ["one", "two"]), SentRun(8, (None, "n1"))]))

    assert events == [
        PublicMessage(7, 5, "alice", "one"),
        PublicMessage(8, 5, "alice", "two"),
        Sent(8, SentStatus.SENT),
        Sent(9, SentStatus.SENT, "n1"),
    ]


@every_dialect
def test_several_requests_at_once_arrive_in_their_order(dialect: Dialect) -> None:
    stream = b"".join(map(dialect.encode_request, REQUESTS))

    assert dialect.request_decoder().feed(stream) == list(REQUESTS)


@every_dialect
def test_requests_cut_into_pieces_of_any_size_are_the_same_requests(dialect: Dialect) -> None:
    short = [request for request in REQUESTS if len(dialect.encode_request(request)) < 200]
    stream = b"".join(map(dialect.encode_request, short))

    for size in range(1, len(stream) + 1):
        assert decode(dialect.request_decoder(), pieces(stream, size)) == short, f"pieces of {size} bytes"


@every_dialect
def test_events_cut_into_pieces_of_any_size_are_the_same_events(dialect: Dialect) -> None:
    stream = b"".join(map(dialect.encode, EVENTS))

    for size in range(1, len(stream) + 1):
        assert decode(dialect.event_decoder(), pieces(stream, size)) == list(EVENTS), f"pieces of {size} bytes"


@every_dialect
def test_a_long_request_byte_by_byte_is_the_same_request(dialect: Dialect) -> None:
    longest = max(REQUESTS, key=lambda request: len(dialect.encode_request(request)))

    assert decode(dialect.request_decoder(), pieces(dialect.encode_request(longest), 1)) == [longest]


@every_dialect
@given(parts=rubbish)
def test_rubbish_never_raises_and_is_not_collected_for_ever(dialect: Dialect, parts: list[bytes]) -> None:
    decoder = dialect.request_decoder()

    for part in parts:
        decoder.feed(part)
        assert held_bytes(decoder) <= LINE_MAX_BYTES
    decoder.end()


@every_dialect
@given(parts=rubbish)
def test_rubbish_from_a_server_is_a_protocol_error_and_nothing_else(dialect: Dialect, parts: list[bytes]) -> None:
    decoder = dialect.event_decoder()

    try:
        decode(decoder, parts)
        decoder.end()
    except ProtocolError:
        pass


@every_dialect
@pytest.mark.parametrize("letter", [b"x", b"{", b"[", b'"', b"\\", b"\0", b" ", b"\xff"])
def test_a_flood_without_an_end_is_never_held_beyond_the_limit(dialect: Dialect, letter: bytes) -> None:
    """Memory stays bounded (DESIGN.md, Back-pressure)."""
    decoder = dialect.request_decoder()

    for _ in range(5 * LINE_MAX_BYTES // 1000):
        decoder.feed(dialect.opening[:1].encode() + letter * 999)
        assert held_bytes(decoder) <= LINE_MAX_BYTES


@every_dialect
def test_a_request_over_the_limit_is_refused_with_the_limit_in_the_reason(dialect: Dialect) -> None:
    request = REQUESTS[4]
    encoded = dialect.encode_request(request)
    blown_up = encoded.replace(b"hello", b"h" * LINE_MAX_BYTES)

    (refused,) = dialect.request_decoder().feed(blown_up)

    assert isinstance(refused, Unreadable)
    assert refused.code is ErrorCode.TOO_LONG
    assert f"{LINE_MAX_BYTES:,}" in refused.reason


@every_dialect
@pytest.mark.parametrize("request_", REQUESTS, ids=repr)
def test_a_connection_that_ends_inside_a_request_has_not_made_it(dialect: Dialect, request_: Request) -> None:
    encoded = dialect.encode_request(request_)

    for size in {1, 2, len(encoded) // 2, len(encoded) - 2}:
        decoder = dialect.request_decoder()
        found = [*decoder.feed(encoded[:size]), *decoder.end()]
        assert [type(each) for each in found] == [Unreadable], f"after {size} bytes"


@every_dialect
def test_a_connection_that_ends_between_two_requests_is_no_error(dialect: Dialect) -> None:
    decoder = dialect.request_decoder()
    decoder.feed(dialect.encode_request(REQUESTS[0]))

    assert decoder.end() == []


@every_dialect
def test_no_client_can_send_an_unreadable_request(dialect: Dialect) -> None:
    with pytest.raises(TypeError):
        dialect.encode_request(Unreadable(ErrorCode.BAD_JSON, "not JSON"))


@every_dialect
def test_two_connections_share_nothing(dialect: Dialect) -> None:
    one, other = dialect.request_decoder(), dialect.request_decoder()
    half = dialect.encode_request(REQUESTS[1])[:-5]

    one.feed(half)

    assert other.feed(dialect.encode_request(REQUESTS[9])) == [REQUESTS[9]]


@every_dialect
def test_a_login_is_sniffed_as_its_dialect(dialect: Dialect) -> None:
    login = dialect.encode_request(REQUESTS[1])

    assert sniff(login) is dialect
    for size in range(1, SNIFF_MAX_BYTES + 1):
        assert sniff(login[:size]) in (dialect, Sniff.MORE)
    assert sniff(login[:SNIFF_MAX_BYTES]) is dialect


@every_dialect
def test_the_opening_that_strangers_are_told_of_is_sniffed_as_its_dialect(dialect: Dialect) -> None:
    assert sniff(dialect.opening.encode()) is dialect


@every_dialect
def test_a_dialect_is_found_by_its_name_alone(dialect: Dialect) -> None:
    assert by_name(dialect.name) is dialect
