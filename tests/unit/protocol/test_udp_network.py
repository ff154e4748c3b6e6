"""Two ends of a UDP session on a simulated network that loses, repeats and reorders packets. Time is simulated, too."""

import math
from collections import deque
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatprotocol.udp.arq import Arq
from chatprotocol.udp.packet import NO_SESSION, PIECE, Datagram, cookie_payload, pack, read_opening, unpack
from chatprotocol.udp.session import INPUT_MAX_BYTES, UdpClientSession, UdpSession
from chatprotocol.wire.readers import frame

from .network import Faults, Network

SESSION = 0x0123456789ABCDEF
COOKIE = bytes.fromhex("0123456789abcdef")
C, D = ord("C"), ord("D")
PROMPT = frame(C, b"PASSWORD new")
# The longest simulated session.
END_SECONDS = 3_600.0
# An encoded frame, and the time at which it is written.
Said = list[tuple[float, bytes]]


class End:
    """One end of an open session."""

    def __init__(self, session: UdpSession | None, said: Said, full_seconds: float = 0.0) -> None:
        """``full_seconds`` is the time from the start during which nothing is read."""
        self.session = session
        self.heard = b""
        self._to_say = deque(sorted(said, key=lambda each: each[0]))
        self._full_until = full_seconds

    @property
    def is_done(self) -> bool:
        """True if everything was said and acknowledged."""
        return not self._to_say and self.session is not None and not self.session.arq.unacknowledged_bytes

    @property
    def is_over(self) -> bool:
        return self.session is not None and self.session.is_over

    @property
    def check_at(self) -> float:
        if self.session is None:
            return math.inf
        return min(self.session.next_check_at, self._to_say[0][0] if self._to_say else math.inf)

    def due(self, now: float) -> list[bytes]:
        if self.session is None:
            return []
        self.session.check_peer(now)
        found: list[bytes] = []
        while self._to_say and self._to_say[0][0] <= now:
            found += self.session.write(self._to_say.popleft()[1], now)
        if now >= self._full_until:
            self.heard += self.session.read()
        return [*found, *self.session.datagrams_to_send(now)]

    def receive(self, datagram: Datagram, now: float) -> Sequence[bytes]:
        """Returns the answers."""
        return [] if self.session is None else self.session.receive(datagram, now)


class Server(End):
    """It keeps no state until its cookie comes back."""

    def __init__(self, said: Said) -> None:
        super().__init__(None, said)
        # The text of each opening with a cookie that opened a session.
        self.opened: list[bytes] = []

    def receive(self, datagram: Datagram, now: float) -> Sequence[bytes]:
        if datagram.session != NO_SESSION:
            assert datagram.session == SESSION
            return super().receive(datagram, now)
        text, cookie = read_opening(datagram.payload)
        if cookie is None:
            answer = cookie_payload(COOKIE)
            assert len(answer) <= len(datagram.payload), "no amplification"
            return [pack(Datagram(C, NO_SESSION, 0, answer))]
        assert cookie == COOKIE
        if self.session is None:
            self.session = UdpSession(SESSION, now)
            self.opened.append(text)
        return []


def converse(network: Network, ends: Sequence[End]) -> float:
    """Run until both ends have said everything and it has arrived, or one end is lost. Returns the time."""
    now = 0.0
    while now < END_SECONDS:
        for number, end in enumerate(ends):
            network.send(1 - number, end.due(now), now)
        is_quiet = network.next_at == math.inf and all(end.is_done for end in ends)
        if is_quiet or any(end.is_over for end in ends):
            break
        following = min(network.next_at, *(end.check_at for end in ends))
        now = max(following, math.nextafter(now, math.inf))
        for number, packet in network.arrive(now):
            datagram = unpack(packet)
            assert datagram is not None
            network.send(1 - number, ends[number].receive(datagram, now), now)
    return now


def client(text: bytes, said: Said) -> End:
    """A client that opens a session. The simulated server answers no pings."""
    return End(UdpClientSession(0.0, ping_seconds=math.inf, probe_seconds=math.inf), [(-1.0, frame(C, text)), *said])


def at_once(count: int, word: bytes) -> Said:
    return [(0.0, frame(D, b"%s %d" % (word, number))) for number in range(count)]


def text_of(said: Said) -> bytes:
    """In the order in which it is written."""
    return b"".join(data for _, data in sorted(said, key=lambda each: each[0]))


STORM = Faults(lost=0.2, repeated=0.1, late=0.2)
shares = st.floats(0, 1)
# With one of three identical packets arriving, neither end may give up.
fair_faults = st.builds(Faults, shares, shares, shares, st.sampled_from([0.05, 0.3, 1.0]), st.just(2))
any_faults = st.builds(Faults, shares, shares, shares, st.sampled_from([0.05, 1.0, 20.0]), st.sampled_from([2, 5, 100]))
seeds = st.integers(0, 2**32)
first_numbers = st.sampled_from([1, 1, 2**32 - 20, 2**32 - 1, 2**32])
# BYE is the server's goodbye: the session ends.
payloads = st.just(b"") | st.binary(max_size=3).filter(lambda payload: payload != b"BYE")
frames = st.builds(frame, st.sampled_from([C, D, PIECE]), payloads)
sayings = st.lists(st.tuples(st.just(0.0) | st.floats(0, 10), frames), max_size=90)


@given(text=st.sampled_from([b"a", b"alice bm-pm"]), there=sayings, back=sayings, faults=fair_faults, seed=seeds)
def test_frames_arrive_once_and_in_order_on_a_fair_network(
    text: bytes, there: Said, back: Said, faults: Faults, seed: int
) -> None:
    """From the handshake on, which opens one session."""
    said = [(0.0, PROMPT), *back]  # without a first datagram the client would not learn of its session
    one, other = client(text, there), Server(said)
    converse(Network(seed, faults), [one, other])
    assert other.opened == [text]
    assert (other.heard, one.heard) == (text_of(there), text_of(said))
    assert one.is_done
    assert other.is_done


@given(there=sayings, back=sayings, faults=any_faults, seed=seeds, first_number=first_numbers)
def test_frames_before_a_loss_are_a_prefix(
    there: Said, back: Said, faults: Faults, seed: int, first_number: int
) -> None:
    """On any network everything arrives, or an end reports that the other one is lost."""
    sessions = [UdpSession(SESSION, 0.0) for _ in range(2)]
    for session in sessions:
        session.arq = Arq(SESSION, 0.0, first_number=first_number)
    one, other = End(sessions[0], there), End(sessions[1], back)
    converse(Network(seed, faults), [one, other])
    assert text_of(there).startswith(other.heard)
    assert text_of(back).startswith(one.heard)
    if not (one.is_over or other.is_over):
        assert (one.heard, other.heard) == (text_of(back), text_of(there))


@pytest.mark.parametrize("seed", [0, 1, pytest.param(range(2, 60), marks=pytest.mark.long)], ids=str)
def test_500_messages_each_way_survive_a_storm(seed: int | range) -> None:
    """With 20 % lost, 10 % repeated and 20 % reordered packets, from the handshake on."""
    for each in [seed] if isinstance(seed, int) else seed:
        there, back = at_once(500, b"there"), [(0.0, PROMPT), *at_once(500, b"back")]
        one, other = client(b"alice", there), Server(back)
        converse(Network(each, STORM), [one, other])
        assert (other.heard, one.heard) == (text_of(there), text_of(back))
        assert other.opened == [b"alice"]


def test_perfect_network_carries_each_packet_once() -> None:
    """Each frame with one acknowledgement; and the handshake with two packets each way."""
    one, other = client(b"alice", at_once(500, b"there")), Server([(0.0, PROMPT), *at_once(300, b"back")])
    network = Network(1, Faults())
    assert converse(network, [one, other]) < 1
    assert network.sent_to == [1 + 301 + 500, 2 + 500 + 301], "to the client, and to the server"


@pytest.mark.parametrize(("faults", "full_seconds"), [(Faults(), 40.0), (STORM, 1.0)], ids=["calm", "storm"])
def test_full_receiver_gets_everything_once_it_reads(faults: Faults, full_seconds: float) -> None:
    """Promise: back-pressure. Its own frames are not held up."""
    there = [(0.0, frame(D, b"%03d" % number * 400)) for number in range(100)]
    back = at_once(300, b"back")
    one = End(UdpSession(SESSION, 0.0), there)
    other = End(UdpSession(SESSION, 0.0), back, full_seconds)
    assert len(text_of(there)) > INPUT_MAX_BYTES
    assert converse(Network(5, faults), [one, other]) > full_seconds
    assert (other.heard, one.heard) == (text_of(there), text_of(back))
