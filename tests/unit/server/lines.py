"""A line: a channel over a socket that only notes what is sent, a clock that stands still, and the peer."""

from collections import deque
from collections.abc import Callable, Iterable
from types import SimpleNamespace

import pytest

from chatprotocol.udp.arq import Arq, Frame
from chatprotocol.udp.packet import ACK, Datagram, unpack
from chatserver.net import udp_transport as transport_module
from chatserver.net.udp_transport import UdpTransport

ADDRESS = ("10.0.0.1", 4_711)
SESSION = 2**64 - 2
OPENING = b"alice"


class Clock:
    """Stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        return self.now

    def set_in(self, patch: pytest.MonkeyPatch, module: object) -> None:
        """Let the module have its time from here."""
        patch.setattr(module, "time", SimpleNamespace(monotonic=self.monotonic))


class NotingSocket:
    """Takes every datagram. For any thread."""

    def __init__(self, when_sent: Callable[[], None] = lambda: None) -> None:
        # What was sent whereto, and nobody has looked at.
        self.sent: deque[tuple[bytes, object]] = deque()
        self.fault: OSError | None = None
        self._when_sent = when_sent

    def sendto(self, data: bytes, address: object) -> int:
        self._when_sent()
        if self.fault is not None:
            raise self.fault
        self.sent.append((data, address))
        return len(data)


class Line:
    """A channel, and its peer as the engine plays it. Nothing is on its way by itself: a test carries it."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.clock = Clock()
        self.clock.set_in(patch, transport_module)
        self.sock = NotingSocket(self._check_nothing_is_held)
        self.transport = UdpTransport(self.sock, ADDRESS, SESSION, OPENING, self.clock.now)  # type: ignore[arg-type]
        self.peer = Arq(SESSION, self.clock.now)
        # What the peer was sent, in order; and how often the courier was called.
        self.heard: list[Frame] = []
        self.calls = 0
        # Is everything done by one thread? Then it shows whether something is done under the lock.
        self.is_alone = True
        self.transport.call_when_due(self._note_call)

    def _note_call(self) -> None:
        self._check_nothing_is_held()
        self.calls += 1

    def _check_nothing_is_held(self) -> None:
        assert not self.is_alone or not self.transport._lock.locked()

    def news(self) -> list[Datagram]:
        """What the channel has sent since somebody looked."""
        found: list[Datagram] = []
        while self.sock.sent:
            data, address = self.sock.sent.popleft()
            assert address == ADDRESS
            datagram = unpack(data)
            assert datagram is not None
            assert datagram.session == SESSION
            found.append(datagram)
        return found

    def give(self, *datagrams: Datagram) -> None:
        """These come to the channel."""
        for datagram in datagrams:
            self.transport.receive(datagram, self.clock.now)

    def say(self, *frames: Frame) -> None:
        """The peer says this, as far as it may."""
        self.peer.put(frames)
        self.give_all(self.peer.due(self.clock.now))

    def give_all(self, datagrams: Iterable[bytes]) -> None:
        for data in datagrams:
            datagram = unpack(data)
            assert datagram is not None
            self.give(datagram)

    def acknowledge(self, *sequences: int) -> None:
        """The peer has these."""
        self.give(*(Datagram(ACK, SESSION, sequence) for sequence in sequences))

    def carry(self) -> None:
        """Bring the peer everything that was sent, and its answers back; nothing is lost."""
        while news := self.news():
            for datagram in news:
                arrival = self.peer.receive(datagram, self.clock.now)
                self.heard += arrival.frames
                self.give_all(arrival.acks)

    def read(self) -> bytes:
        """What the reader would get without waiting."""
        try:
            return self.transport.read(1_000_000, 0.0)
        except TimeoutError:
            return b""
