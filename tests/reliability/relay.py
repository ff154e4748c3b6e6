"""A relay of UDP packets that loses, repeats and reorders them."""

from __future__ import annotations

import selectors
import socket
import threading
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, Self, TypeAlias

if TYPE_CHECKING:
    import random

_READ_BYTES = 65_536
# Receive buffer: packets must be lost by chance only.
_BUFFER_BYTES = 4 * 1024 * 1024
# Losses of the same packet. One that is lost three times, and whose acknowledgement too, arrives after 13 s. Chance
# alone would lose one so often, once in a few hundred runs, that its session ends.
_LOST_MAX = 3

_Packet: TypeAlias = tuple[socket.socket, tuple[str, int], bytes]


class Faults(NamedTuple):
    """Shares of all packets."""

    lost: float
    repeated: float
    late: float


class Relay:
    """Carries packets to a port of this machine and back, each peer's through a socket of its own.

    A late packet is sent after the next one. Leaving the context ends its thread.
    """

    def __init__(self, port: int, chance: random.Random, faults: Faults) -> None:
        # Counts of packets. Written by the relay's thread.
        self.carried = self.lost = self.repeated = self.late = 0
        self.server = ("127.0.0.1", port)
        self._chance = chance
        self._faults = faults
        self._selector = selectors.DefaultSelector()
        self._front = self._open(None)
        self._front.bind(("127.0.0.1", 0))
        self.port = int(self._front.getsockname()[1])
        # By destination and packet.
        self._times_lost: Counter[tuple[tuple[str, int], bytes]] = Counter()
        self._backs: dict[tuple[str, int], socket.socket] = {}
        self._late: list[_Packet] = []
        self._stop_here, self._stop_there = socket.socketpair()
        self._selector.register(self._stop_here, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="relay")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_there.send(b"\0")
        self._thread.join()
        self._selector.close()
        for each in (self._front, self._stop_here, self._stop_there, *self._backs.values()):
            each.close()

    def _open(self, peer: tuple[str, int] | None) -> socket.socket:
        opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
        opened.setblocking(False)
        self._selector.register(opened, selectors.EVENT_READ, peer)
        return opened

    def _run(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._stop_here:
                    return
                with suppress(OSError):  # nothing more to read
                    while True:
                        data, source = key.fileobj.recvfrom(_READ_BYTES)
                        if key.data is not None:
                            self._carry(self._front, key.data, data)
                            continue
                        if source not in self._backs:
                            self._backs[source] = self._open(source)
                        self._carry(self._backs[source], self.server, data)

    def _carry(self, sock: socket.socket, to: tuple[str, int], data: bytes) -> None:
        self.carried += 1
        if self.loses(to, data):
            self.lost += 1
            return
        copies = 1 + self._happens(self._faults.repeated)
        self.repeated += copies - 1
        late, self._late = self._late, []
        for _ in range(copies):
            if self._happens(self._faults.late):
                self.late += 1
                self._late.append((sock, to, data))
            else:
                late.insert(0, (sock, to, data))
        for packet_socket, destination, packet in late:
            with suppress(OSError):  # equal to a loss
                packet_socket.sendto(packet, destination)

    def loses(self, to: tuple[str, int], data: bytes) -> bool:
        """True if this packet is to be lost."""
        is_lost = self._times_lost[to, data] < _LOST_MAX and self._happens(self._faults.lost)
        self._times_lost[to, data] += is_lost
        return is_lost

    def _happens(self, share: float) -> bool:
        return self._chance.random() < share
