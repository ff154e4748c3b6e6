"""One side of a session over UDP: what it sends and when, what it acknowledges, and what it gives on."""

from collections.abc import Iterable
from itertools import accumulate

import pytest

from chatprotocol.udp.arq import RECEIVE_WINDOW, RESENDS_MAX, SEND_WINDOW, Arq, Frame, Received
from chatprotocol.udp.packet import ACK, Datagram, unpack

SESSION = 0x0123456789ABCDEF
C, D, PIECE = ord("C"), ord("D"), ord("d")
# When a datagram that was sent at 0 and is not acknowledged is sent again: after so many seconds each time.
RESENT_AT = list(accumulate([0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6]))
# When it is given up.
GIVEN_UP_AT = RESENT_AT[-1] + 51.2
# Less than anything is late.
MOMENT = 0.001


def some(size: int) -> list[Frame]:
    """So many frames, each with a payload of its own."""
    return [(D, b"%d" % number) for number in range(1, size + 1)]


def arrives(sequence: int, payload: bytes | None = None) -> Datagram:
    """One that the peer has sent."""
    return Datagram(D, SESSION, sequence, b"%d" % sequence if payload is None else payload)


def ack(sequence: int) -> Datagram:
    """The peer has what has this number."""
    return Datagram(ACK, SESSION, sequence)


def numbers(packets: Iterable[bytes]) -> list[int]:
    """The sequence numbers of what was sent."""
    datagrams = [unpack(packet) for packet in packets]
    assert all(datagram is not None and datagram.session == SESSION for datagram in datagrams)
    return [datagram.sequence for datagram in datagrams if datagram is not None]


def acknowledged(arrival: Received) -> list[int]:
    """The sequence numbers that are acknowledged, without a payload."""
    for packet in arrival.acks:
        assert packet[:9] == b"A\x01\x23\x45\x67\x89\xab\xcd\xef"
        assert len(packet) == 13
    return numbers(arrival.acks)


def texts(arrival: Received) -> list[bytes]:
    """What was given on."""
    return [payload for _, payload in arrival.frames]


def is_dropped(arrival: Received) -> bool:
    """It is as if it had not come: neither given on nor acknowledged."""
    return arrival == Received([], [])


def settle(arq: Arq, now: float, sequences: Iterable[int]) -> None:
    for sequence in sequences:
        assert is_dropped(arq.receive(ack(sequence), now))


def near_the_end() -> Arq:
    """A session in which 2**32 - 3 datagrams have gone each way."""
    arq = Arq(SESSION, 0.0)
    arq._next_out = arq._next_in = 2**32 - 2
    return arq


@pytest.fixture
def arq() -> Arq:
    return Arq(SESSION, 0.0)


# --- what is sent ---


def test_datagrams_are_numbered_from_1_and_sent_in_their_order(arq: Arq) -> None:
    arq.put([(C, b"PM"), (PIECE, b"hel")])
    arq.put([(D, b"lo"), (C, b"")])

    assert arq.due(0.0) == [
        b"C\x01\x23\x45\x67\x89\xab\xcd\xef\0\0\0\1PM",
        b"d\x01\x23\x45\x67\x89\xab\xcd\xef\0\0\0\2hel",
        b"D\x01\x23\x45\x67\x89\xab\xcd\xef\0\0\0\3lo",
        b"C\x01\x23\x45\x67\x89\xab\xcd\xef\0\0\0\4",
    ]


def test_what_was_sent_is_not_due_any_more(arq: Arq) -> None:
    assert arq.due(0.0) == []
    arq.put(some(2))

    assert numbers(arq.due(0.0)) == [1, 2]
    assert arq.due(0.0) == []
    arq.put(some(1))
    assert numbers(arq.due(0.1)) == [3]
    assert arq.due(0.1) == []


def test_each_datagram_is_acknowledged_by_itself(arq: Arq) -> None:
    arq.put(some(5))
    arq.due(0.0)

    settle(arq, 0.1, [4, 2])

    assert numbers(arq.due(0.2)) == [1, 3, 5]
    settle(arq, 0.3, [1, 3, 5])
    assert arq.due(1_000.0) == []


@pytest.mark.parametrize("sequence", [0, 2, 3, 65, 2**31, 2**31 + 1, 2**31 + 2, 2**32 - 1])
def test_an_acknowledgement_of_what_was_not_sent_says_nothing(arq: Arq, sequence: int) -> None:
    arq.put(some(1))
    arq.due(0.0)

    settle(arq, 0.1, [sequence])

    assert numbers(arq.due(0.2)) == [1]
    arq.put(some(2))
    assert numbers(arq.due(0.2)) == [2, 3]
    assert numbers(arq.due(0.6 + MOMENT)) == [1, 2, 3]


def test_a_second_acknowledgement_says_nothing(arq: Arq) -> None:
    arq.put(some(2))
    arq.due(0.0)

    settle(arq, 0.1, [1, 1, 1])

    assert arq.unacknowledged_bytes == 14
    assert numbers(arq.due(0.2)) == [2]


def test_an_acknowledgement_with_a_payload_is_one(arq: Arq) -> None:
    arq.put(some(1))
    arq.due(0.0)

    assert is_dropped(arq.receive(Datagram(ACK, SESSION, 1, b"PM"), 0.1))

    assert arq.unacknowledged_bytes == 0


# --- what is sent again ---


def test_what_is_not_acknowledged_is_sent_8_times_more_each_time_after_twice_the_time(arq: Arq) -> None:
    arq.put([(C, b"PM")])
    (packet,) = arq.due(0.0)

    for time in RESENT_AT:
        settle(arq, time, [99])  # the peer lives
        assert arq.due(time - MOMENT) == []
        assert arq.due(time) == [packet], f"after {time} s"
        assert arq.due(time) == []
    assert len(RESENT_AT) == RESENDS_MAX == 8
    assert RESENT_AT[-1] == pytest.approx(51.0)
    for time in (60.0, GIVEN_UP_AT - MOMENT, GIVEN_UP_AT, 1_000.0):
        assert arq.due(time) == []


def test_each_datagram_has_a_schedule_of_its_own(arq: Arq) -> None:
    for start in (0.0, 0.05, 0.15):
        arq.put(some(1))
        assert len(arq.due(start)) == 1
    settle(arq, 0.16, [2])

    assert numbers(arq.due(0.2)) == [1]
    assert arq.due(0.35 - MOMENT) == []
    assert numbers(arq.due(0.35 + MOMENT)) == [3]
    assert arq.due(0.6 - MOMENT) == []
    assert numbers(arq.due(0.6 + MOMENT)) == [1]
    assert numbers(arq.due(0.75 + 2 * MOMENT)) == [3]


def test_the_oldest_is_sent_again_first_and_before_what_is_new(arq: Arq) -> None:
    arq.put(some(3))
    arq.due(0.0)
    arq.put(some(2))

    assert numbers(arq.due(0.2)) == [1, 2, 3, 4, 5]


def test_who_comes_late_to_send_again_counts_from_then_on(arq: Arq) -> None:
    """So that after a pause of the machine all is not sent at once, time after time."""
    arq.put(some(1))
    arq.due(0.0)

    assert numbers(arq.due(10.0)) == [1]
    assert arq.due(10.4 - MOMENT) == []
    assert numbers(arq.due(10.4 + MOMENT)) == [1]
    assert arq.due(11.2 - MOMENT) == []
    assert numbers(arq.due(11.2 + 2 * MOMENT)) == [1]


@pytest.mark.parametrize("resends", range(1, 9))
def test_what_is_acknowledged_after_it_was_sent_again_is_sent_no_more(arq: Arq, resends: int) -> None:
    arq.put(some(1))
    arq.due(0.0)
    for time in RESENT_AT[:resends]:
        arq.due(time)

    settle(arq, RESENT_AT[resends - 1] + MOMENT, [1])

    assert arq.due(1_000.0) == []
    assert arq.unacknowledged_bytes == 0


# --- when the peer is lost ---


def test_a_peer_that_has_not_acknowledged_the_last_resend_in_twice_its_time_is_lost(arq: Arq) -> None:
    arq.put(some(1))
    arq.due(0.0)
    for time in RESENT_AT:
        settle(arq, time, [99])
        assert arq.why_lost(time) == ""
        arq.due(time)
    settle(arq, 100.0, [99])

    assert arq.why_lost(GIVEN_UP_AT - MOMENT) == ""
    assert arq.why_lost(GIVEN_UP_AT) == "a datagram was not acknowledged, and was sent 9 times"


@pytest.mark.parametrize("lost", [1, 2, 3])
def test_one_datagram_that_is_never_acknowledged_is_enough_to_lose_the_peer(arq: Arq, lost: int) -> None:
    arq.put(some(3))
    arq.due(0.0)
    settle(arq, 0.1, {1, 2, 3} - {lost})
    for time in RESENT_AT:
        assert numbers(arq.due(time)) == [lost]
    settle(arq, 100.0, [99])

    assert arq.why_lost(GIVEN_UP_AT - MOMENT) == ""
    assert "sent 9 times" in arq.why_lost(GIVEN_UP_AT)
    settle(arq, GIVEN_UP_AT, [lost])
    assert arq.why_lost(GIVEN_UP_AT) == ""


def test_a_peer_of_which_nothing_was_heard_for_60_seconds_is_lost(arq: Arq) -> None:
    assert arq.why_lost(0.0) == arq.why_lost(60 - MOMENT) == ""
    assert arq.why_lost(60.0) == "nothing was heard for 60 s"
    assert arq.why_lost(1_000.0) == "nothing was heard for 60 s"


@pytest.mark.parametrize(
    "heard",
    [
        arrives(1),
        arrives(2),
        arrives(0),
        arrives(1 + RECEIVE_WINDOW),
        arrives(2**32 - 1),
        ack(1),
        ack(99),
        Datagram(0, SESSION, 1, b"?"),
        Datagram(C, SESSION, 1, b"PING"),
    ],
    ids=lambda heard: f"{chr(heard.kind)} {heard.sequence}",
)
@pytest.mark.parametrize("has_room", [True, False])
def test_whatever_is_heard_shows_that_the_peer_lives(arq: Arq, heard: Datagram, has_room: bool) -> None:
    assert arq.silent_seconds(59.0) == 59.0

    arq.receive(heard, 59.0, has_room=has_room)

    assert arq.silent_seconds(59.0) == 0
    assert arq.silent_seconds(62.5) == 3.5
    assert arq.why_lost(59 + 60 - MOMENT) == ""
    assert arq.why_lost(59.0 + 60) == "nothing was heard for 60 s"


def test_what_is_sent_does_not_show_that_the_peer_lives(arq: Arq) -> None:
    for time in range(0, 60, 5):
        arq.put(some(1))
        arq.due(float(time))

    assert arq.silent_seconds(60.0) == 60.0
    assert arq.why_lost(60.0) == "nothing was heard for 60 s"


def test_silence_counts_from_the_beginning_of_the_session() -> None:
    arq = Arq(SESSION, 1_000.0)

    assert arq.silent_seconds(1_007.0) == 7.0
    assert arq.why_lost(1_060 - MOMENT) == ""
    assert arq.why_lost(1_060.0) != ""


# --- when to look again ---


def test_a_session_with_nothing_to_send_need_not_be_looked_at_before_it_was_silent_for_60_seconds(arq: Arq) -> None:
    assert arq.look_at == 60.0
    arq.receive(arrives(1), 7.0)
    assert arq.look_at == 67.0


def test_a_session_is_to_be_looked_at_when_something_is_to_be_sent_again_next(arq: Arq) -> None:
    arq.put(some(1))
    assert arq.look_at == 60.0
    arq.due(1.0)
    arq.put(some(1))
    arq.due(1.1)

    assert arq.look_at == pytest.approx(1.2)
    arq.due(1.2)
    assert arq.look_at == pytest.approx(1.3)
    arq.due(1.3)
    assert arq.look_at == pytest.approx(1.6)
    settle(arq, 1.4, [1, 2])
    arq.due(arq.look_at)
    assert arq.look_at == 61.4, "nothing is in flight any more"


def test_who_looks_only_when_it_is_time_to_sends_all_on_time_and_knows_at_once_that_the_peer_is_lost(arq: Arq) -> None:
    arq.put(some(1))
    arq.due(0.0)
    looked_at, sent_at = [], []
    while not arq.why_lost(arq.look_at):
        looked_at.append(arq.look_at)
        if arq.due(looked_at[-1]):
            sent_at.append(looked_at[-1])
        settle(arq, looked_at[-1] + MOMENT, [99])

    assert sent_at == RESENT_AT
    assert arq.look_at == GIVEN_UP_AT
    assert len(looked_at) < 20


def test_of_a_peer_that_says_nothing_at_all_nothing_is_hoped_for_beyond_60_seconds(arq: Arq) -> None:
    arq.put(some(1))
    arq.due(0.0)
    for time in RESENT_AT:
        arq.due(time)

    assert arq.look_at == 60.0
    assert arq.why_lost(60.0) == "nothing was heard for 60 s"


# --- how much is sent at a time ---


def test_64_datagrams_may_be_in_flight(arq: Arq) -> None:
    arq.put(some(200))
    assert arq.may_send
    assert arq.is_waiting

    assert numbers(arq.due(0.0)) == list(range(1, 65))
    assert len(range(1, 65)) == SEND_WINDOW == 64
    assert not arq.may_send
    assert arq.is_waiting
    assert arq.due(0.1) == []


def test_how_far_the_newest_may_be_ahead_counts_from_the_oldest_that_is_not_acknowledged(arq: Arq) -> None:
    """So that a peer never needs to hold more than that."""
    arq.put(some(200))
    arq.due(0.0)

    settle(arq, 0.1, range(2, 65))
    assert not arq.may_send
    assert arq.due(0.1) == []
    settle(arq, 0.1, [1])
    assert arq.may_send
    assert numbers(arq.due(0.1)) == list(range(65, 129))
    settle(arq, 0.1, [65, 66, 68])
    assert numbers(arq.due(0.1)) == [129, 130]


def test_whether_something_waits_or_may_be_sent_is_told(arq: Arq) -> None:
    assert (arq.is_waiting, arq.may_send) == (False, True)
    arq.put(some(64))
    assert (arq.is_waiting, arq.may_send) == (True, True)
    arq.due(0.0)
    assert (arq.is_waiting, arq.may_send) == (False, False)
    arq.put(some(1))
    assert (arq.is_waiting, arq.may_send) == (True, False)
    settle(arq, 0.1, [1])
    assert (arq.is_waiting, arq.may_send) == (True, True)
    arq.due(0.1)
    settle(arq, 0.1, range(2, 66))
    assert (arq.is_waiting, arq.may_send) == (False, True)


def test_what_the_peer_has_perhaps_not_got_is_counted_with_the_headers_of_what_was_sent(arq: Arq) -> None:
    assert arq.unacknowledged_bytes == 0
    arq.put([(D, b"x" * 1_000)] * 64)
    arq.put([(D, b"x" * 7)] * 2)
    assert arq.unacknowledged_bytes == 64_000 + 14
    arq.due(0.0)
    assert arq.unacknowledged_bytes == 64 * 1_013 + 14
    settle(arq, 0.1, [64])
    assert arq.unacknowledged_bytes == 63 * 1_013 + 14
    settle(arq, 0.1, [1])
    arq.due(0.1)
    assert arq.unacknowledged_bytes == 62 * 1_013 + 20 + 7
    settle(arq, 0.1, [2])
    arq.due(0.1)
    assert arq.unacknowledged_bytes == 61 * 1_013 + 2 * 20
    arq.due(0.4)
    assert arq.unacknowledged_bytes == 61 * 1_013 + 2 * 20
    settle(arq, 0.5, range(1, 67))
    assert arq.unacknowledged_bytes == 0


@pytest.mark.parametrize(("resends", "window"), [(0, 64), (1, 32), (2, 16), (3, 16), (8, 16)])
def test_when_something_had_to_be_sent_again_half_as_many_may_be_in_flight_but_at_least_16(
    arq: Arq, resends: int, window: int
) -> None:
    times = [0.0, *RESENT_AT[:resends]]
    arq.put(some(1))
    for time in times:
        assert numbers(arq.due(time)) == [1]
    arq.put(some(200))

    assert 1 + len(arq.due(times[-1])) == window


def test_what_is_to_be_sent_again_at_one_time_counts_once(arq: Arq) -> None:
    arq.put(some(200))
    arq.due(0.0)
    assert len(arq.due(0.2)) == 64

    settle(arq, 0.3, range(1, 65))

    assert 32 <= len(arq.due(0.3)) <= 34  # with what the acknowledgements have added


def test_each_round_of_acknowledgements_lets_one_more_fly_until_there_are_64(arq: Arq) -> None:
    arq.put(some(1))
    arq.due(0.0)
    arq.due(0.2)
    arq.put(some(3_000))
    flying = [1, *numbers(arq.due(0.2))]
    rounds = []
    for _ in range(40):
        rounds.append(len(flying))
        settle(arq, 0.2, flying)
        flying = numbers(arq.due(0.2))

    assert rounds == [*range(32, 64), *[64] * 8]


def test_what_flies_already_stays_when_fewer_may(arq: Arq) -> None:
    arq.put(some(65))
    arq.due(0.0)
    arq.due(0.2)

    settle(arq, 0.3, range(1, 31))
    assert not arq.may_send, "34 are in flight still"
    settle(arq, 0.3, [31, 32, 33])
    assert arq.may_send


# --- what arrives ---


def test_what_arrives_in_order_is_acknowledged_and_given_on_at_once(arq: Arq) -> None:
    arrival = arq.receive(Datagram(C, SESSION, 1, b"PASSWORD new"), 0.0)

    assert arrival == Received([b"A\x01\x23\x45\x67\x89\xab\xcd\xef\0\0\0\1"], [(C, b"PASSWORD new")])
    arrival = arq.receive(Datagram(PIECE, SESSION, 2, b"hel"), 0.0)
    assert arrival == Received([b"A\x01\x23\x45\x67\x89\xab\xcd\xef\0\0\0\2"], [(PIECE, b"hel")])


def test_what_kinds_there_are_is_not_for_this_side_to_say(arq: Arq) -> None:
    arrival = arq.receive(Datagram(0xFF, SESSION, 1, b"\xff" * 1_201), 0.0)

    assert acknowledged(arrival) == [1]
    assert arrival.frames == [(0xFF, b"\xff" * 1_201)]


def test_an_acknowledgement_is_not_acknowledged_and_not_given_on(arq: Arq) -> None:
    arq.put(some(1))
    arq.due(0.0)

    assert is_dropped(arq.receive(ack(1), 0.0))
    assert texts(arq.receive(arrives(1), 0.0)) == [b"1"]


@pytest.mark.parametrize(
    ("order", "given_on"),
    [
        ([2, 1], [[], [1, 2]]),
        ([3, 2, 1], [[], [], [1, 2, 3]]),
        ([2, 3, 1, 4], [[], [], [1, 2, 3], [4]]),
        ([1, 3, 5, 2, 4], [[1], [], [], [2, 3], [4, 5]]),
        ([4, 1, 3, 2], [[], [1], [], [2, 3, 4]]),
    ],
)
def test_what_comes_too_early_is_acknowledged_and_given_on_in_its_turn(
    arq: Arq, order: list[int], given_on: list[list[int]]
) -> None:
    arrivals = [arq.receive(arrives(number), 0.0) for number in order]

    assert [acknowledged(arrival) for arrival in arrivals] == [[number] for number in order]
    assert [texts(arrival) for arrival in arrivals] == [[b"%d" % number for number in some] for some in given_on]


@pytest.mark.parametrize("has_room", [True, False])
def test_what_comes_once_more_is_dropped_and_acknowledged_twice(arq: Arq, has_room: bool) -> None:
    for number in (1, 2, 3, 5):
        arq.receive(arrives(number), 0.0)

    for number in (1, 2, 3, 5, 5):
        arrival = arq.receive(arrives(number, b"something else"), 0.0, has_room=has_room)
        assert acknowledged(arrival) == [number, number]
        assert arrival.frames == []
    assert texts(arq.receive(arrives(4), 0.0)) == [b"4", b"5"]


def test_where_acknowledgements_are_lost_all_are_said_twice_for_a_while(arq: Arq) -> None:
    """About as long as a burst of losses may last."""
    arq.receive(arrives(1), 0.0)
    for _ in range(2):
        assert acknowledged(arq.receive(arrives(1), 0.0)) == [1, 1]
        assert is_dropped(arq.receive(arrives(0), 0.0)), "what is not acknowledged does not count"
        start = arq._next_in

        said = [len(arq.receive(arrives(number), 0.0).acks) for number in range(start, start + 100)]

        assert set(said) == {1, 2}
        assert said == sorted(said, reverse=True)
        assert 24 <= said.count(2) <= 32


def test_what_there_is_no_room_for_is_not_acknowledged_even_where_all_else_is_said_twice(arq: Arq) -> None:
    arq.receive(arrives(1), 0.0)
    arq.receive(arrives(1), 0.0)

    assert is_dropped(arq.receive(arrives(2), 0.0, has_room=False))
    assert acknowledged(arq.receive(arrives(2), 0.0)) == [2, 2]


def test_up_to_128_are_kept_until_it_is_their_turn(arq: Arq) -> None:
    early = range(2, 129)
    for number in reversed(early):
        assert acknowledged(arq.receive(arrives(number), 0.0)) == [number]

    assert texts(arq.receive(arrives(1), 0.0)) == [b"%d" % number for number in range(1, 129)]
    assert RECEIVE_WINDOW == 128


@pytest.mark.parametrize("ahead", [128, 129, 1_000, 2**31 - 2, 2**31 - 1])
def test_what_is_too_far_ahead_is_as_good_as_lost(arq: Arq, ahead: int) -> None:
    for number in (1, 2):
        arq.receive(arrives(number), 0.0)

    assert is_dropped(arq.receive(arrives(3 + ahead), 0.0))

    assert texts(arq.receive(arrives(3), 0.0)) == [b"3"]
    arrival = arq.receive(arrives(4 + 127), 0.0)
    assert (acknowledged(arrival), arrival.frames) == ([131], [])


def test_what_was_too_far_ahead_is_taken_when_it_comes_again_in_its_time(arq: Arq) -> None:
    assert is_dropped(arq.receive(arrives(129), 0.0))
    arq.receive(arrives(1), 0.0)
    assert acknowledged(arq.receive(arrives(129), 0.0)) == [129]

    last = [arq.receive(arrives(number), 0.0) for number in range(2, 129)][-1]

    assert texts(last) == [b"128", b"129"]


@pytest.mark.parametrize("sequence", [0, 2**32 - 1, 2**32 - 2, 2**31 + 1])
def test_before_the_first_there_is_nothing_that_were_to_be_acknowledged(arq: Arq, sequence: int) -> None:
    assert is_dropped(arq.receive(arrives(sequence), 0.0))
    arq.receive(arrives(1), 0.0)
    assert is_dropped(arq.receive(arrives(sequence), 0.0))
    assert texts(arq.receive(arrives(2), 0.0)) == [b"2"]


# --- no room ---


@pytest.mark.parametrize("sequence", [1, 2, 128])
def test_what_there_is_no_room_for_is_as_good_as_lost(arq: Arq, sequence: int) -> None:
    assert is_dropped(arq.receive(arrives(sequence), 0.0, has_room=False))

    arrival = arq.receive(arrives(sequence), 0.2)
    assert acknowledged(arrival) == [sequence], "it was not kept, so it is new"
    assert texts(arrival) == ([b"1"] if sequence == 1 else [])


def test_what_was_early_waits_until_there_is_room_for_what_is_before_it(arq: Arq) -> None:
    arq.receive(arrives(2), 0.0)

    assert is_dropped(arq.receive(arrives(1), 0.0, has_room=False))
    assert texts(arq.receive(arrives(1), 0.0)) == [b"1", b"2"]


def test_acknowledgements_need_no_room(arq: Arq) -> None:
    arq.put(some(1))
    arq.due(0.0)

    arq.receive(ack(1), 0.0, has_room=False)

    assert arq.unacknowledged_bytes == 0


# --- behind the number 2**32 - 1 stands 0 ---


def test_numbers_that_are_sent_go_on_with_0() -> None:
    arq = near_the_end()
    arq.put([(D, b"x")] * 4)

    packets = arq.due(0.0)

    assert [packet[9:13] for packet in packets] == [
        b"\xff\xff\xff\xfe",
        b"\xff\xff\xff\xff",
        b"\0\0\0\0",
        b"\0\0\0\1",
    ]


def test_acknowledgements_are_understood_on_both_sides_of_0() -> None:
    arq = near_the_end()
    arq.put(some(6))
    arq.due(0.0)

    settle(arq, 0.1, [0, 2**32 - 1, 2, 2**32 - 3, 4])

    assert numbers(arq.due(0.2)) == [2**32 - 2, 1, 3]
    settle(arq, 0.3, [2**32 - 2, 1, 3])
    assert arq.unacknowledged_bytes == 0


def test_no_more_than_64_are_in_flight_on_both_sides_of_0() -> None:
    arq = near_the_end()
    arq.put(some(200))

    assert len(arq.due(0.0)) == 64
    settle(arq, 0.1, [2**32 - 2])
    assert numbers(arq.due(0.1)) == [62]


def test_what_arrives_on_both_sides_of_0_is_given_on_in_order() -> None:
    arq = near_the_end()
    order = [1, 0, 2**32 - 1, 2**32 - 2, 2]

    arrivals = [arq.receive(arrives(number), 0.0) for number in order]

    assert [acknowledged(arrival) for arrival in arrivals] == [[number] for number in order]
    assert list(map(texts, arrivals)) == [[], [], [], [b"4294967294", b"4294967295", b"0", b"1"], [b"2"]]


def test_what_comes_once_more_from_before_0_is_known() -> None:
    arq = near_the_end()
    for number in (2**32 - 2, 2**32 - 1, 0, 1):
        arq.receive(arrives(number), 0.0)

    for number in (0, 1, 2**32 - 1, 2**32 - 2, 2**32 - 3, 2**32 - 1_000_000, 2**31 + 3):
        arrival = arq.receive(arrives(number), 0.0)
        assert (acknowledged(arrival), arrival.frames) == ([number, number], [])
    assert texts(arq.receive(arrives(2), 0.0)) == [b"2"]


def test_128_are_kept_on_both_sides_of_0() -> None:
    arq = near_the_end()

    assert acknowledged(arq.receive(arrives(125), 0.0)) == [125]
    assert is_dropped(arq.receive(arrives(126), 0.0))
    assert is_dropped(arq.receive(arrives(2**31 - 3), 0.0))
