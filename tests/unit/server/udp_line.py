"""A UDP transport and its peer, joined by a recording socket. The test moves the clock and the packets."""

from collections import deque
from collections.abc import Iterable
from typing import Any

from chatprotocol.udp.packet import ACK, Datagram, unpack
from chatprotocol.udp.session import UdpSession
from chatserver.net.udp_transport import UdpTransport

ADDRESS = ("10.0.0.1", 4_711)
SESSION = 2**64 - 2
OPENING = b"alice"


class Clock:
    """A clock that the test moves."""

    def __init__(self, now: float = 1_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class RecordingSocket:
    """Records each packet and its destination. For any thread."""

    def __init__(self) -> None:
        self.sent: deque[tuple[bytes, object]] = deque()
        self.fault: OSError | None = None

    def sendto(self, data: bytes, address: object) -> int:
        if self.fault is not None:
            raise self.fault
        self.sent.append((data, address))
        return len(data)

    def take(self) -> list[tuple[Datagram, object]]:
        """The datagrams sent since the last call, with their destinations."""
        found: list[tuple[Datagram, object]] = []
        while self.sent:
            data, address = self.sent.popleft()
            datagram = unpack(data)
            assert datagram is not None
            found.append((datagram, address))
        return found


class UdpLine:
    """A UdpTransport and its peer, a UdpSession. Nothing moves between them unless the test moves it."""

    def __init__(self, **limits: int) -> None:
        self.clock = Clock()
        self.sock: Any = RecordingSocket()
        self.transport = UdpTransport(self.sock, ADDRESS, SESSION, OPENING, clock=self.clock, **limits)
        assert self.transport.read(100, 0.0) == b"C\0\0\0\5alice", "the opening comes first"
        self.peer = UdpSession(SESSION, self.clock.now)
        # Number of wakeups of the sender.
        self.wakeups = 0
        self.transport.set_wake(self._count_wakeup)

    def _count_wakeup(self) -> None:
        self.wakeups += 1

    def new_packets(self) -> list[Datagram]:
        """The datagrams sent since the last call."""
        found = self.sock.take()
        assert all(address == ADDRESS and datagram.session == SESSION for datagram, address in found)
        return [datagram for datagram, _ in found]

    def arrive(self, *datagrams: Datagram) -> None:
        """Let the datagrams arrive at the transport."""
        for datagram in datagrams:
            self.transport.receive(datagram, self.clock.now)

    def peer_sends(self, *frames: bytes) -> None:
        """Let the peer send the frames, up to its window."""
        self.arrive_packed(self.peer.write(b"".join(frames), self.clock.now))

    def arrive_packed(self, packets: Iterable[bytes]) -> None:
        self.arrive(*filter(None, map(unpack, packets)))

    def acknowledge(self, *sequences: int) -> None:
        self.arrive(*(Datagram(ACK, SESSION, sequence) for sequence in sequences))

    def carry(self) -> bytes:
        """Carry everything to the peer and its answers back, until nothing is left. Returns the frames it received."""
        found = b""
        while packets := self.new_packets():
            for datagram in packets:
                self.arrive_packed(self.peer.receive(datagram, self.clock.now))
                found += self.peer.read()
        return found

    def read(self) -> bytes:
        """The bytes that a reader gets without waiting; empty if there are none."""
        try:
            return self.transport.read(1_000_000, 0.0)
        except TimeoutError:
            return b""
