"""A simulated network that loses, repeats and reorders packets. Time is simulated, too."""

import heapq
import math
from collections import Counter
from collections.abc import Iterable
from itertools import count
from random import Random
from typing import NamedTuple

# One-way delay of a packet that is not held up.
DELAY_SECONDS = 0.005


class Faults(NamedTuple):
    """Probability of each fault for one packet."""

    lost: float = 0.0
    repeated: float = 0.0
    # Delayed by up to ``late_seconds``, so that others overtake it.
    late: float = 0.0
    late_seconds: float = 1.0
    # Maximum number of identical packets that are lost in a row.
    lost_in_a_row: float = math.inf


class Network:
    """Carries packets between two ends: a packet of one goes to the other."""

    def __init__(self, seed: int, faults: Faults) -> None:
        self.sent_to = [0, 0]
        self._random = Random(seed)
        self.faults = faults
        self._order = count()
        self._under_way: list[tuple[float, int, int, bytes]] = []
        self._lost_in_a_row: Counter[tuple[int, bytes]] = Counter()

    @property
    def next_at(self) -> float:
        """Arrival time of the next packet."""
        return self._under_way[0][0] if self._under_way else math.inf

    def send(self, to: int, packets: Iterable[bytes], now: float) -> None:
        for packet in packets:
            self.sent_to[to] += 1
            key = (to, packet)
            if self._happens(self.faults.lost) and self._lost_in_a_row[key] < self.faults.lost_in_a_row:
                self._lost_in_a_row[key] += 1
                continue
            self._lost_in_a_row[key] = 0
            for _ in range(2 if self._happens(self.faults.repeated) else 1):
                late = self._happens(self.faults.late) * self._random.uniform(0, self.faults.late_seconds)
                heapq.heappush(self._under_way, (now + DELAY_SECONDS + late, next(self._order), to, packet))

    def arrive(self, now: float) -> Iterable[tuple[int, bytes]]:
        while self.next_at <= now:
            _, _, to, packet = heapq.heappop(self._under_way)
            yield to, packet

    def _happens(self, probability: float) -> bool:
        return self._random.random() < probability
