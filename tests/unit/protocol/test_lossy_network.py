"""Two sides of a session on a network that loses, repeats and reorders: everything arrives once and in order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatprotocol.udp.arq import Frame

from .network import ClientSide, Network, ServerSide, Side, Weather, converse

C, D, PIECE = ord("C"), ord("D"), ord("d")

# The storm of the acceptance test.
STORM = Weather(lost=0.2, repeated=0.1, reordered=0.2)
# Where of three that are the same one comes through, nobody may be given up.
fair_weathers = st.builds(
    Weather,
    lost=st.floats(0, 1),
    repeated=st.floats(0, 1),
    reordered=st.floats(0, 1),
    held_seconds=st.sampled_from([0.05, 0.3, 1.0]),
    lost_in_a_row=st.just(2),
)
weathers = st.builds(
    Weather,
    lost=st.floats(0, 1),
    repeated=st.floats(0, 1),
    reordered=st.floats(0, 1),
    held_seconds=st.sampled_from([0.05, 1.0, 20.0]),
    lost_in_a_row=st.sampled_from([2, 5, 100]),
)
seeds = st.integers(0, 2**32)
# The first number of either side: the last one that there is comes soon, or not at all.
starts = st.sampled_from([1, 1, 2**32 - 20, 2**32 - 1, 2**32])
# What is said, and when.
sayings = st.lists(
    st.tuples(
        st.just(0.0) | st.floats(0, 10),
        st.tuples(st.sampled_from([C, D, PIECE]), st.just(b"") | st.binary(max_size=3)),
    ),
    max_size=90,
)


def all_at_once(size: int, word: bytes) -> list[tuple[float, Frame]]:
    return [(0.0, (D, b"%s %d" % (word, number))) for number in range(size)]


def frames_of(said: list[tuple[float, Frame]]) -> list[Frame]:
    """In the order in which they are said."""
    return [frame for _, frame in sorted(said, key=lambda each: each[0])]


@pytest.mark.parametrize("seed", range(30))
def test_500_messages_each_way_arrive_once_and_in_order_in_a_storm(seed: int) -> None:
    there, back = all_at_once(500, b"there"), all_at_once(500, b"back")
    one, other = Side(there), Side(back)

    converse(Network(seed, STORM), [one, other])

    assert other.heard == frames_of(there)
    assert one.heard == frames_of(back)
    assert one.is_done
    assert other.is_done


@given(there=sayings, back=sayings, weather=fair_weathers, seed=seeds, start=starts)
def test_whatever_is_said_arrives_once_and_in_order_where_not_everything_is_lost(
    there: list[tuple[float, Frame]], back: list[tuple[float, Frame]], weather: Weather, seed: int, start: int
) -> None:
    one, other = Side(there, start), Side(back, start)

    converse(Network(seed, weather), [one, other])

    assert other.heard == frames_of(there)
    assert one.heard == frames_of(back)
    assert one.is_done
    assert other.is_done


@given(there=sayings, back=sayings, weather=weathers, seed=seeds)
def test_what_arrives_before_a_peer_is_given_up_is_the_beginning_of_what_was_said(
    there: list[tuple[float, Frame]], back: list[tuple[float, Frame]], weather: Weather, seed: int
) -> None:
    one, other = Side(there), Side(back)

    now = converse(Network(seed, weather), [one, other])

    assert other.heard == frames_of(there)[: len(other.heard)]
    assert one.heard == frames_of(back)[: len(one.heard)]
    if not (one.why_lost(now) or other.why_lost(now)):
        assert (len(one.heard), len(other.heard)) == (len(back), len(there))


def test_where_nothing_is_lost_nothing_is_sent_twice() -> None:
    one, other = Side(all_at_once(500, b"there")), Side(all_at_once(300, b"back"))
    network = Network(1, Weather())

    seconds = converse(network, [one, other])

    assert network.sent_to == [300 + 500, 500 + 300], "each with its acknowledgement"
    assert (len(one.heard), len(other.heard)) == (300, 500)
    assert seconds < 1


def test_where_nothing_arrives_both_know_it_after_60_seconds() -> None:
    one, other = Side(all_at_once(1, b"there")), Side([])
    network = Network(1, Weather(lost=1.0))

    assert converse(network, [one, other]) == 60.0

    assert one.why_lost(60.0) == other.why_lost(60.0) == "nothing was heard for 60 s"
    assert network.sent_to == [0, 9]


@pytest.mark.parametrize(("weather", "full_seconds"), [(Weather(), 40.0), (STORM, 1.0)], ids=["calm", "storm"])
def test_a_reader_that_has_no_room_for_a_while_misses_nothing(weather: Weather, full_seconds: float) -> None:
    there, back = all_at_once(300, b"there"), all_at_once(300, b"back")
    one, other = Side(there, full=(0.0, full_seconds)), Side(back)

    seconds = converse(Network(5, weather), [one, other])

    assert one.heard == frames_of(back)
    assert other.heard == frames_of(there), "the other way is not held up"
    assert seconds > full_seconds


# --- with the opening before ---


@given(there=sayings, back=sayings, weather=fair_weathers, seed=seeds)
def test_a_session_is_opened_once_and_all_that_is_said_in_it_arrives_once_and_in_order(
    there: list[tuple[float, Frame]], back: list[tuple[float, Frame]], weather: Weather, seed: int
) -> None:
    first = (0.0, (C, b"PASSWORD new"))  # without it the client does not know that it has a session
    client, server = ClientSide(b"alice", there), ServerSide([first, *back])

    converse(Network(seed, weather), [client, server])

    assert server.opened == [b"alice"]
    assert server.heard == frames_of(there)
    assert client.heard == frames_of([first, *back])
    assert client.is_done
    assert server.is_done


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("text", [b"a", b"alice bm-pm"])
def test_a_session_is_opened_in_a_storm(text: bytes, seed: int) -> None:
    there, back = all_at_once(50, b"there"), [(0.0, (C, b"PASSWORD new")), *all_at_once(50, b"back")]
    client, server = ClientSide(text, there), ServerSide(back)

    seconds = converse(Network(seed, STORM), [client, server])

    assert server.opened == [text]
    assert server.heard == frames_of(there)
    assert client.heard == frames_of(back)
    assert seconds < 60


def test_a_session_is_opened_with_two_datagrams_each_way() -> None:
    client, server = ClientSide(b"alice", []), ServerSide([(0.0, (C, b"PASSWORD new"))])
    network = Network(1, Weather())

    converse(network, [client, server])

    assert client.heard == [(C, b"PASSWORD new")]
    assert network.sent_to == [2, 3], "to the client, and with the acknowledgement to the server"
