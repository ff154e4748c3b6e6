"""Two ends of a UDP session on a simulated network that loses, repeats and reorders packets. Time is simulated, too."""

import math
from collections import deque
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatprotocol.udp.arq import Arq, Frame
from chatprotocol.udp.handshake import UdpHandshake
from chatprotocol.udp.packet import ACK, NO_SESSION, PIECE, Datagram, cookie_payload, pack, read_opening, unpack

from .network import Faults, Network

SESSION = 0x0123456789ABCDEF
COOKIE = bytes.fromhex("0123456789abcdef")
C, D = ord("C"), ord("D")
PROMPT = (C, b"PASSWORD new")
# The longest simulated session.
END_SECONDS = 3_600.0
# A frame, and the time at which it is put.
Said = list[tuple[float, Frame]]


class End:
    """One end of an open session."""

    arq: Arq | None

    def __init__(self, said: Said, first_number: int = 1, full_seconds: float = 0.0) -> None:
        """``full_seconds`` is the time from the start during which there is no room."""
        self.arq = Arq(SESSION, 0.0, first_number=first_number)
        self.heard: list[Frame] = []
        self._to_say = deque(sorted(said, key=lambda each: each[0]))
        self._full_until = full_seconds

    @property
    def is_done(self) -> bool:
        """True if everything was said and acknowledged."""
        return not self._to_say and self.arq is not None and not self.arq.unacknowledged_bytes

    @property
    def look_at(self) -> float:
        if self.arq is None:
            return math.inf
        return min(self.arq.next_check_at, self._to_say[0][0] if self._to_say else math.inf)

    def due(self, now: float) -> list[bytes]:
        if self.arq is None:
            return []
        while self._to_say and self._to_say[0][0] <= now:
            self.arq.put([self._to_say.popleft()[1]])
        return self.arq.datagrams_to_send(now)

    def receive(self, datagram: Datagram, now: float) -> Sequence[bytes]:
        """Returns the answers."""
        if self.arq is None or datagram.session != self.arq.session:
            return []
        received = self.arq.receive(datagram, now, has_room=now >= self._full_until)
        assert now >= self._full_until or datagram.kind == ACK or not received.frames
        self.heard += received.frames
        return received.acks

    def lost_reason(self, now: float) -> str:
        return "" if self.arq is None else self.arq.lost_reason(now)


class Client(End):
    """It opens the session first."""

    def __init__(self, text: bytes, said: Said) -> None:
        super().__init__(said)
        self.arq = None
        self._handshake = UdpHandshake(text, 0.0)

    @property
    def look_at(self) -> float:
        return self._handshake.next_check_at if self.arq is None else super().look_at

    def due(self, now: float) -> list[bytes]:
        return self._handshake.datagrams_to_send(now) if self.arq is None else super().due(now)

    def receive(self, datagram: Datagram, now: float) -> Sequence[bytes]:
        if self.arq is None:
            opened = self._handshake.handle_reply(datagram, now)
            assert not isinstance(opened, bytes)
            self.arq = opened
        return super().receive(datagram, now)


class Server(End):
    """It keeps no state until its cookie comes back."""

    def __init__(self, said: Said) -> None:
        super().__init__(said)
        self.arq = None
        # The text of each opening with a cookie that opened a session.
        self.opened: list[bytes] = []

    def receive(self, datagram: Datagram, now: float) -> Sequence[bytes]:
        if datagram.session != NO_SESSION:
            return super().receive(datagram, now)
        text, cookie = read_opening(datagram.payload)
        if cookie is None:
            answer = cookie_payload(COOKIE)
            assert len(answer) <= len(datagram.payload), "no amplification"
            return [pack(Datagram(C, NO_SESSION, 0, answer))]
        assert cookie == COOKIE
        if self.arq is None:
            self.arq = Arq(SESSION, now)
            self.opened.append(text)
        return []


def converse(network: Network, ends: Sequence[End]) -> float:
    """Run until both ends have said everything and it has arrived, or one end gives up. Returns the time."""
    now = 0.0
    while now < END_SECONDS and not any(end.lost_reason(now) for end in ends):
        for number, end in enumerate(ends):
            network.send(1 - number, end.due(now), now)
        if network.next_at == math.inf and all(end.is_done for end in ends):
            return now
        following = min(network.next_at, *(end.look_at for end in ends))
        now = max(following, math.nextafter(now, math.inf))
        for number, packet in network.arrive(now):
            datagram = unpack(packet)
            assert datagram is not None
            network.send(1 - number, ends[number].receive(datagram, now), now)
    return now


def at_once(count: int, word: bytes) -> Said:
    return [(0.0, (D, b"%s %d" % (word, number))) for number in range(count)]


def frames_of(said: Said) -> list[Frame]:
    """In the order in which they are put."""
    return [frame for _, frame in sorted(said, key=lambda each: each[0])]


STORM = Faults(lost=0.2, repeated=0.1, late=0.2)
shares = st.floats(0, 1)
# With one of three identical packets arriving, neither end may give up.
fair_faults = st.builds(Faults, shares, shares, shares, st.sampled_from([0.05, 0.3, 1.0]), st.just(2))
any_faults = st.builds(Faults, shares, shares, shares, st.sampled_from([0.05, 1.0, 20.0]), st.sampled_from([2, 5, 100]))
seeds = st.integers(0, 2**32)
first_numbers = st.sampled_from([1, 1, 2**32 - 20, 2**32 - 1, 2**32])
kinds = st.sampled_from([C, D, PIECE])
sayings = st.lists(
    st.tuples(st.just(0.0) | st.floats(0, 10), st.tuples(kinds, st.just(b"") | st.binary(max_size=3))), max_size=90
)


@given(there=sayings, back=sayings, faults=fair_faults, seed=seeds, first_number=first_numbers)
def test_frames_arrive_once_and_in_order_on_a_fair_network(
    there: Said, back: Said, faults: Faults, seed: int, first_number: int
) -> None:
    one, other = End(there, first_number), End(back, first_number)
    converse(Network(seed, faults), [one, other])
    assert (other.heard, one.heard) == (frames_of(there), frames_of(back))
    assert one.is_done
    assert other.is_done


@given(there=sayings, back=sayings, faults=any_faults, seed=seeds)
def test_frames_heard_before_the_peer_is_lost_are_a_prefix(there: Said, back: Said, faults: Faults, seed: int) -> None:
    one, other = End(there), End(back)
    now = converse(Network(seed, faults), [one, other])
    assert other.heard == frames_of(there)[: len(other.heard)]
    assert one.heard == frames_of(back)[: len(one.heard)]
    if not (one.lost_reason(now) or other.lost_reason(now)):
        assert (len(one.heard), len(other.heard)) == (len(back), len(there))


@given(text=st.sampled_from([b"a", b"alice bm-pm"]), there=sayings, back=sayings, faults=fair_faults, seed=seeds)
def test_session_is_opened_once_on_a_fair_network(
    text: bytes, there: Said, back: Said, faults: Faults, seed: int
) -> None:
    said = [(0.0, PROMPT), *back]  # without a first datagram the client would not learn of its session
    client, server = Client(text, there), Server(said)
    converse(Network(seed, faults), [client, server])
    assert server.opened == [text]
    assert (server.heard, client.heard) == (frames_of(there), frames_of(said))
    assert client.is_done
    assert server.is_done


@pytest.mark.parametrize("seed", [0, 1, pytest.param(range(2, 60), marks=pytest.mark.long)], ids=str)
def test_500_messages_each_way_survive_a_storm(seed: int | range) -> None:
    """With 20 % lost, 10 % repeated and 20 % reordered packets, from the handshake on."""
    for each in [seed] if isinstance(seed, int) else seed:
        there, back = at_once(500, b"there"), [(0.0, PROMPT), *at_once(500, b"back")]
        client, server = Client(b"alice", there), Server(back)
        converse(Network(each, STORM), [client, server])
        assert (server.heard, client.heard) == (frames_of(there), frames_of(back))
        assert server.opened == [b"alice"]


def test_perfect_network_carries_each_packet_once() -> None:
    """Each frame with one acknowledgement; and the handshake with two packets each way."""
    client, server = Client(b"alice", at_once(500, b"there")), Server([(0.0, PROMPT), *at_once(300, b"back")])
    network = Network(1, Faults())
    assert converse(network, [client, server]) < 1
    assert network.sent_to == [1 + 301 + 500, 2 + 500 + 301], "to the client, and to the server"


def test_dead_network_is_noticed_at_both_ends_after_60_seconds() -> None:
    one, other = End(at_once(1, b"there")), End([])
    network = Network(1, Faults(lost=1.0))
    assert converse(network, [one, other]) == 60.0
    assert one.lost_reason(60.0) == other.lost_reason(60.0) == "nothing was heard for 60 s"
    assert network.sent_to == [0, 9]


@pytest.mark.parametrize(("faults", "full_seconds"), [(Faults(), 40.0), (STORM, 1.0)], ids=["calm", "storm"])
def test_full_receiver_gets_everything_once_it_has_room(faults: Faults, full_seconds: float) -> None:
    """Its own frames are not held up."""
    there, back = at_once(300, b"there"), at_once(300, b"back")
    one, other = End(there, full_seconds=full_seconds), End(back)
    assert converse(Network(5, faults), [one, other]) > full_seconds
    assert (other.heard, one.heard) == (frames_of(there), frames_of(back))
