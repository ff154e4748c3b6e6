"""ARQ, one side of a session over UDP: numbering, resends, windows, acknowledgements and loss of the peer.

test_udp_network.py tests that frames arrive once and in order.
"""

from collections.abc import Iterable
from itertools import accumulate

import pytest

from chatprotocol.udp.arq import RECEIVE_WINDOW, RESENDS_MAX, SEND_WINDOW, Arq, ArqResult, Frame
from chatprotocol.udp.packet import ACK, PIECE, Datagram, unpack

SESSION = 0x0123456789ABCDEF
C, D = ord("C"), ord("D")
# The times at which an unacknowledged datagram is sent again, and the time at which the peer is lost.
RESENT_AT = list(accumulate([0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6]))
LOST_AT = RESENT_AT[-1] + 51.2
MOMENT = 0.001
NOTHING = ArqResult([], [])


def frames(count: int) -> list[Frame]:
    return [(D, b"%d" % number) for number in range(1, count + 1)]


def data(sequence: int, payload: bytes | None = None) -> Datagram:
    """A datagram of the peer; its payload is its number."""
    return Datagram(D, SESSION, sequence, b"%d" % sequence if payload is None else payload)


def ack(sequence: int) -> Datagram:
    return Datagram(ACK, SESSION, sequence)


def numbers(packets: Iterable[bytes]) -> list[int]:
    """The sequence numbers of packets."""
    found = []
    for packet in packets:
        datagram = unpack(packet)
        assert datagram is not None
        assert datagram.session == SESSION
        found.append(datagram.sequence)
    return found


def outcome(received: ArqResult) -> tuple[list[int], list[bytes]]:
    """The acknowledged numbers, and the delivered payloads."""
    assert all(len(packet) == 13 and packet[:1] == b"A" for packet in received.acks)
    return numbers(received.acks), [payload for _, payload in received.frames]


def acknowledge(arq: Arq, now: float, sequences: Iterable[int]) -> None:
    for sequence in sequences:
        assert arq.receive(ack(sequence), now) == NOTHING


@pytest.fixture
def arq() -> Arq:
    return Arq(SESSION, 0.0)


def test_frames_are_sent_once_numbered_from_1(arq: Arq) -> None:
    assert arq.datagrams_to_send(0.0) == []
    arq.put([(C, b"PM"), (PIECE, b"hel")])
    arq.put([(D, b"lo"), (C, b"")])
    assert arq.datagrams_to_send(0.0) == [
        b"C\x01\x23\x45\x67\x89\xab\xcd\xef\0\0\0\1PM",
        b"d\x01\x23\x45\x67\x89\xab\xcd\xef\0\0\0\2hel",
        b"D\x01\x23\x45\x67\x89\xab\xcd\xef\0\0\0\3lo",
        b"C\x01\x23\x45\x67\x89\xab\xcd\xef\0\0\0\4",
    ]
    assert arq.datagrams_to_send(0.1) == []


def test_each_datagram_is_acknowledged_separately(arq: Arq) -> None:
    arq.put(frames(5))
    arq.datagrams_to_send(0.0)
    acknowledge(arq, 0.1, [4, 2, 2])
    assert arq.receive(Datagram(ACK, SESSION, 4, b"a payload"), 0.1) == NOTHING
    assert numbers(arq.datagrams_to_send(0.2)) == [1, 3, 5]
    acknowledge(arq, 0.3, [1, 3, 5])
    assert arq.datagrams_to_send(1_000.0) == []


@pytest.mark.parametrize("sequence", [0, 2, 65, 2**31 + 1, 2**32 - 1])
def test_acknowledgement_of_unsent_number_is_ignored(arq: Arq, sequence: int) -> None:
    arq.put(frames(1))
    arq.datagrams_to_send(0.0)
    acknowledge(arq, 0.1, [sequence])
    arq.put(frames(2))
    assert numbers(arq.datagrams_to_send(0.2)) == [1, 2, 3]
    assert numbers(arq.datagrams_to_send(0.6 + MOMENT)) == [1, 2, 3]


def test_progress_is_counted_in_frames_and_bytes(arq: Arq) -> None:
    """A waiting frame counts its payload, a sent one its header as well."""
    arq.put([(D, b"x" * 1_000)] * 64)
    arq.put([(D, b"x" * 7)] * 2)
    assert arq.unacknowledged_bytes == 64_000 + 14
    arq.datagrams_to_send(0.0)
    assert (arq.unacknowledged_bytes, arq.frames_queued, arq.acknowledged) == (64 * 1_013 + 14, 66, 0)
    acknowledge(arq, 0.1, [64, 2])
    assert (arq.unacknowledged_bytes, arq.acknowledged) == (62 * 1_013 + 14, 0)
    acknowledge(arq, 0.1, [1])
    assert arq.acknowledged == 2
    arq.datagrams_to_send(0.1)
    assert arq.unacknowledged_bytes == 61 * 1_013 + 2 * 20
    acknowledge(arq, 0.1, range(1, 67))
    assert (arq.unacknowledged_bytes, arq.frames_queued, arq.acknowledged) == (0, 66, 66)


def test_unacknowledged_datagram_is_resent_8_times_with_doubled_waits(arq: Arq) -> None:
    """look_at is the time of each resend, and finally the time at which the peer is lost."""
    arq.put([(C, b"PM")])
    (packet,) = arq.datagrams_to_send(0.0)
    for time in RESENT_AT:
        acknowledge(arq, time, [99])  # keeps the peer alive
        assert arq.next_check_at == time
        assert arq.datagrams_to_send(time - MOMENT) == []
        assert arq.datagrams_to_send(time) == [packet], f"after {time} s"
        assert arq.datagrams_to_send(time) == []
        assert arq.lost_reason(time) == ""
    assert len(RESENT_AT) == RESENDS_MAX == 8
    acknowledge(arq, 100.0, [99])
    assert arq.next_check_at == LOST_AT
    assert arq.datagrams_to_send(LOST_AT) == []
    assert arq.lost_reason(LOST_AT - MOMENT) == ""
    assert arq.lost_reason(LOST_AT) == "a datagram was sent 9 times without an acknowledgement"
    acknowledge(arq, LOST_AT, [1])
    assert arq.lost_reason(LOST_AT) == ""
    arq.datagrams_to_send(LOST_AT)
    assert arq.next_check_at == LOST_AT + 60, "nothing is in flight"


def test_each_datagram_has_its_own_resend_time(arq: Arq) -> None:
    """A late resend counts its next wait from the time at which it was sent."""
    for start in (0.0, 0.05, 0.15):
        arq.put(frames(1))
        assert len(arq.datagrams_to_send(start)) == 1
    acknowledge(arq, 0.16, [2])
    assert numbers(arq.datagrams_to_send(0.2)) == [1]
    assert arq.datagrams_to_send(0.35 - MOMENT) == []
    assert numbers(arq.datagrams_to_send(0.5)) == [3]
    assert numbers(arq.datagrams_to_send(0.6 + MOMENT)) == [1]
    assert arq.datagrams_to_send(0.9 - MOMENT) == []
    assert numbers(arq.datagrams_to_send(0.9 + MOMENT)) == [3]


@pytest.mark.parametrize(
    "heard", [data(1), data(0), data(1 + RECEIVE_WINDOW), ack(99), Datagram(0, SESSION, 1, b"?")], ids=repr
)
@pytest.mark.parametrize("has_room", [True, False])
def test_any_datagram_of_the_peer_ends_its_silence(heard: Datagram, has_room: bool) -> None:
    arq = Arq(SESSION, 1_000.0)
    assert arq.next_check_at == 1_060.0
    arq.receive(heard, 1_059.0, has_room=has_room)
    assert (arq.silence_so_far(1_059.0), arq.silence_so_far(1_062.5)) == (0.0, 3.5)
    assert arq.next_check_at == 1_119.0
    assert arq.lost_reason(1_119.0 - MOMENT) == ""
    assert arq.lost_reason(1_119.0) == "nothing was heard for 60 s"


def test_own_datagrams_do_not_end_the_silence() -> None:
    arq = Arq(SESSION, 0.0, silence_seconds=2.5)
    arq.put(frames(1))
    for time in (0.0, *RESENT_AT[:3]):
        arq.datagrams_to_send(time)
    assert arq.next_check_at == 2.5
    assert arq.lost_reason(2.5) == "nothing was heard for 2.5 s"


def test_newest_datagram_is_less_than_64_above_the_oldest_in_flight(arq: Arq) -> None:
    arq.put(frames(200))
    assert (arq.may_send, arq.has_unsent) == (True, True)
    assert numbers(arq.datagrams_to_send(0.0)) == list(range(1, 65))
    assert SEND_WINDOW == 64
    acknowledge(arq, 0.1, range(2, 65))
    assert (arq.may_send, arq.has_unsent) == (False, True)
    assert arq.datagrams_to_send(0.1) == []
    acknowledge(arq, 0.1, [1])
    assert (arq.may_send, arq.has_unsent) == (True, True)
    assert numbers(arq.datagrams_to_send(0.1)) == list(range(65, 129))
    acknowledge(arq, 0.1, [65, 66, 68])
    assert numbers(arq.datagrams_to_send(0.1)) == [129, 130]


@pytest.mark.parametrize(("resends", "window"), [(0, 64), (1, 32), (2, 16), (3, 16), (8, 16)])
def test_each_resend_halves_the_window_down_to_16(arq: Arq, resends: int, window: int) -> None:
    times = [0.0, *RESENT_AT[:resends]]
    arq.put(frames(1))
    for time in times:
        assert numbers(arq.datagrams_to_send(time)) == [1]
    arq.put(frames(200))
    assert 1 + len(arq.datagrams_to_send(times[-1])) == window


def test_resends_of_one_moment_halve_the_window_once(arq: Arq) -> None:
    """Datagrams in flight beyond the smaller window stay in flight."""
    arq.put(frames(200))
    arq.datagrams_to_send(0.0)
    assert len(arq.datagrams_to_send(0.2)) == 64
    acknowledge(arq, 0.3, range(1, 31))
    assert not arq.may_send, "34 are still in flight"
    acknowledge(arq, 0.3, range(31, 65))
    assert 32 <= len(arq.datagrams_to_send(0.3)) <= 34  # acknowledgements widen the window


def test_each_acknowledged_window_widens_the_window_by_one_up_to_64(arq: Arq) -> None:
    arq.put(frames(1))
    arq.datagrams_to_send(0.0)
    arq.put(frames(3_000))
    in_flight = numbers(arq.datagrams_to_send(0.2))
    windows = []
    for _ in range(40):
        windows.append(len(in_flight))
        acknowledge(arq, 0.2, in_flight)
        in_flight = numbers(arq.datagrams_to_send(0.2))
    assert windows == [*range(32, 64), *[64] * 8]


@pytest.mark.parametrize("has_room", [True, False])
def test_duplicate_is_acknowledged_twice_and_not_delivered(arq: Arq, has_room: bool) -> None:
    for number in (1, 2, 5):
        arq.receive(data(number), 0.0)
    for number in (1, 2, 5, 5):
        assert outcome(arq.receive(data(number, b"other"), 0.0, has_room=has_room)) == ([number, number], [])
    arq.receive(data(3), 0.0)
    assert outcome(arq.receive(data(4), 0.0))[1] == [b"4", b"5"]


def test_acknowledgements_are_doubled_for_32_datagrams_from_a_duplicate(arq: Arq) -> None:
    """A duplicate shows that acknowledgements get lost. A datagram without acknowledgement does not count."""
    following = iter(range(2, 1_000))
    arq.receive(data(1), 0.0)
    for _ in range(2):
        assert outcome(arq.receive(data(1), 0.0)) == ([1, 1], [])
        assert arq.receive(data(0), 0.0) == NOTHING
        counts = [len(arq.receive(data(next(following)), 0.0).acks) for _ in range(100)]
        assert counts == [2] * 31 + [1] * 69


def test_receive_window_holds_128_datagrams(arq: Arq) -> None:
    """A datagram ahead of the window is dropped, and accepted when it is sent again later."""
    assert RECEIVE_WINDOW == 128
    assert arq.receive(data(129), 0.0) == NOTHING
    for number in range(128, 1, -1):
        assert outcome(arq.receive(data(number), 0.0)) == ([number], [])
    assert outcome(arq.receive(data(1), 0.0)) == ([1], [b"%d" % number for number in range(1, 129)])
    assert outcome(arq.receive(data(129), 0.0)) == ([129], [b"129"])


@pytest.mark.parametrize("sequence", [0, 131, 1_000, 2**31, 2**31 + 1, 2**32 - 1])
def test_datagram_outside_of_the_window_is_dropped(arq: Arq, sequence: int) -> None:
    for number in (1, 2):
        arq.receive(data(number), 0.0)
    assert arq.receive(data(sequence), 0.0) == NOTHING
    assert outcome(arq.receive(data(3), 0.0)) == ([3], [b"3"])


def test_new_datagram_without_room_is_dropped(arq: Arq) -> None:
    """Also if acknowledgements are doubled, and if it would complete early datagrams. An acknowledgement needs none."""
    for number in (1, 1, 4):
        arq.receive(data(number), 0.0)
    arq.put(frames(1))
    arq.datagrams_to_send(0.0)
    arq.receive(ack(1), 0.0, has_room=False)
    for number in (2, 3, 128):
        assert arq.receive(data(number), 0.0, has_room=False) == NOTHING
    assert arq.unacknowledged_bytes == 0
    assert outcome(arq.receive(data(3), 0.0)) == ([3, 3], [])
    assert outcome(arq.receive(data(2), 0.0)) == ([2, 2], [b"2", b"3", b"4"])
