"""A network that loses, repeats and reorders, and two ends of a session on it. Time is a number that is counted on."""

import heapq
import math
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from itertools import count
from random import Random
from typing import NamedTuple, Protocol

from chatprotocol.udp.arq import RECEIVE_WINDOW, Arq, Frame
from chatprotocol.udp.handshake import UdpHandshake
from chatprotocol.udp.packet import ACK, NO_SESSION, Datagram, cookie_payload, pack, read_opening, unpack
from chatprotocol.wire.frames_text import COMMAND

SESSION = 0x0123456789ABCDEF
COOKIE = bytes.fromhex("0123456789abcdef")
# Longer than that no session of a test takes.
_ALL_OVER_SECONDS = 3_600.0
# To and fro a datagram takes this time, if it is not held up.
_USUAL_SECONDS = 0.01


class Weather(NamedTuple):
    """How likely each of these is to happen to one datagram."""

    lost: float = 0.0
    repeated: float = 0.0
    # Held up by up to so many seconds, so that others pass.
    reordered: float = 0.0
    held_seconds: float = 1.0
    # Of several that are the same so many are lost in a row at most.
    lost_in_a_row: float = math.inf


class End(Protocol):
    """One who says and hears."""

    heard: list[Frame]

    @property
    def is_done(self) -> bool:
        """Has all that it has to say been acknowledged?"""

    @property
    def look_at(self) -> float:
        """Before this time it has nothing to do."""

    def due(self, now: float) -> list[bytes]:
        """What it sends by itself."""

    def take(self, packet: bytes, now: float) -> list[bytes]:
        """What it answers."""

    def why_lost(self, now: float) -> str:
        """Why it has given the other one up."""


class Network:
    """Carries packets to the ends, of which there are two: what one sends goes to the other."""

    def __init__(self, seed: int, weather: Weather) -> None:
        self._random = Random(seed)
        self._weather = weather
        self._tie_break = count()
        self._on_the_way: list[tuple[float, int, int, bytes]] = []
        self._lost_in_a_row: Counter[tuple[int, bytes]] = Counter()
        # How many were sent to each.
        self.sent_to = [0, 0]

    @property
    def next_at(self) -> float:
        """When the next one arrives."""
        return self._on_the_way[0][0] if self._on_the_way else math.inf

    def send(self, to: int, packets: Iterable[bytes], now: float) -> None:
        for packet in packets:
            self.sent_to[to] += 1
            same = (to, packet)
            if self._happens(self._weather.lost) and self._lost_in_a_row[same] < self._weather.lost_in_a_row:
                self._lost_in_a_row[same] += 1
                continue
            self._lost_in_a_row[same] = 0
            for _ in range(2 if self._happens(self._weather.repeated) else 1):
                held = self._happens(self._weather.reordered) * self._random.uniform(0, self._weather.held_seconds)
                arrives_at = now + _USUAL_SECONDS / 2 + held
                heapq.heappush(self._on_the_way, (arrives_at, next(self._tie_break), to, packet))

    def arriving(self, now: float) -> list[tuple[int, bytes]]:
        found = []
        while self.next_at <= now:
            _, _, to, packet = heapq.heappop(self._on_the_way)
            found.append((to, packet))
        return found

    def _happens(self, likelihood: float) -> bool:
        return self._random.random() < likelihood


def converse(network: Network, ends: Sequence[End]) -> float:
    """Let both say all that they have to say, and everything arrive; or one give the other up. How long it took."""
    now = 0.0
    while now < _ALL_OVER_SECONDS and not any(end.why_lost(now) for end in ends):
        for number, end in enumerate(ends):
            network.send(1 - number, end.due(now), now)
        if network.next_at == math.inf and all(end.is_done for end in ends):
            return now
        soon = min(network.next_at, *(end.look_at for end in ends))
        now = max(soon, math.nextafter(now, math.inf))  # time goes on, though less than a sum can tell
        for number, packet in network.arriving(now):
            network.send(1 - number, ends[number].take(packet, now), now)
    return now


class Side:
    """One end of a session that is there already. Each frame is said at its time."""

    def __init__(self, said: Iterable[tuple[float, Frame]], start: int = 1, full: tuple[float, float] = (0, 0)) -> None:
        """``start`` is the first sequence number, ``full`` is from when to when there is no room."""
        self.heard: list[Frame] = []
        self.arq: Arq | None = Arq(SESSION, 0.0)
        self.arq._next_out = self.arq._next_in = start
        self._to_say = deque(sorted(said, key=lambda each: each[0]))
        self._full_from, self._full_until = full

    @property
    def is_done(self) -> bool:
        return not self._to_say and self.arq is not None and not self.arq.unacknowledged_bytes

    @property
    def look_at(self) -> float:
        assert self.arq is not None
        return min(self.arq.look_at, self._to_say[0][0] if self._to_say else math.inf)

    def due(self, now: float) -> list[bytes]:
        assert self.arq is not None
        while self._to_say and self._to_say[0][0] <= now:
            self.arq.put([self._to_say.popleft()[1]])
        return self.arq.due(now)

    def take(self, packet: bytes, now: float) -> list[bytes]:
        datagram = unpack(packet)
        assert datagram is not None
        return self.take_datagram(datagram, now)

    def take_datagram(self, datagram: Datagram, now: float) -> list[bytes]:
        if self.arq is None or datagram.session != self.arq.session:
            return []
        has_room = not self._full_from <= now < self._full_until
        arrival = self.arq.receive(datagram, now, has_room=has_room)
        assert has_room or datagram.kind == ACK or not arrival.frames
        assert len(self.arq._early) < RECEIVE_WINDOW
        self.heard += arrival.frames
        return arrival.acks

    def why_lost(self, now: float) -> str:
        return self.arq.why_lost(now) if self.arq is not None else ""


class ClientSide(Side):
    """A client: it has to open the session first."""

    def __init__(self, text: bytes, said: Iterable[tuple[float, Frame]]) -> None:
        super().__init__(said)
        self.arq = None
        self._handshake = UdpHandshake(text, 0.0)

    @property
    def look_at(self) -> float:
        return self._handshake.look_at if self.arq is None else super().look_at

    def due(self, now: float) -> list[bytes]:
        return self._handshake.due(now) if self.arq is None else super().due(now)

    def take_datagram(self, datagram: Datagram, now: float) -> list[bytes]:
        if self.arq is None:
            opened = self._handshake.receive_reply(datagram, now)
            assert not isinstance(opened, bytes)
            self.arq = opened
        return super().take_datagram(datagram, now)


class ServerSide(Side):
    """A server: it keeps nothing before its cookie has come back."""

    def __init__(self, said: Iterable[tuple[float, Frame]]) -> None:
        super().__init__(said)
        self.arq = None
        # Who came in; once, if all is well.
        self.opened: list[bytes] = []

    @property
    def is_done(self) -> bool:
        return bool(self.opened) and super().is_done

    @property
    def look_at(self) -> float:
        return super().look_at if self.arq is not None else math.inf

    def due(self, now: float) -> list[bytes]:
        return super().due(now) if self.arq is not None else []

    def take_datagram(self, datagram: Datagram, now: float) -> list[bytes]:
        if datagram.session != NO_SESSION:
            return super().take_datagram(datagram, now)
        text, cookie = read_opening(datagram.payload)
        if cookie is None:
            answer = cookie_payload(COOKIE)
            assert len(answer) <= len(datagram.payload)
            return [pack(Datagram(COMMAND, NO_SESSION, 0, answer))]
        assert cookie == COOKIE
        if self.arq is None:
            self.arq = Arq(SESSION, now)
            self.opened.append(text)
        return []
