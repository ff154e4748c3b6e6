"""The link over UDP: one session over datagrams that may be lost, duplicated or reordered.

The receiver thread does all the work in receive(). Other threads only add requests to a queue and wake it.
"""

from __future__ import annotations

import queue
import selectors
import socket
import time
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from chatclient.links.udp_session import UdpSession
from chatprotocol.address import format_address
from chatprotocol.requests import Command
from chatprotocol.udp.arq import Arq
from chatprotocol.udp.handshake import UdpHandshake
from chatprotocol.udp.packet import READ_BYTES, unpack
from chatprotocol.wire.frames_text import COMMAND
from chatprotocol.wire.readers import frame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from chatclient.links.watch import Watch
    from chatprotocol.address import Address
    from chatprotocol.events import Event
    from chatprotocol.requests import Request
    from chatprotocol.udp.packet import Datagram
    from chatprotocol.wire import WireProtocol

# Maximum number of datagrams to read before requests are handled.
_READ_MAX: Final = 64


class _Opened(NamedTuple):
    """A new session and its first datagrams; or, without arq, the server's answer that opened none."""

    wire: _Wire
    arq: Arq | None
    arrived: list[Datagram]


class UdpLink:
    """One session, which the first request opens. The receiver thread calls receive() and close()."""

    def __init__(
        self,
        protocol: WireProtocol,
        watch: Callable[[], Watch],
        address: Address,
        seconds: float,
        resolve: Callable[..., list[Any]] = socket.getaddrinfo,
    ) -> None:
        """``seconds`` is the handshake timeout. Raises OSError or UnicodeError if the name can't be resolved."""
        self._protocol = protocol
        self._watch = watch()
        self._address = address
        # All addresses of the name, tried in order.
        self._places = resolve(*address, type=socket.SOCK_DGRAM)
        self._timeout_seconds = seconds / len(self._places)
        self._requests: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._ear, self._bell = socket.socketpair()
        self._ear.setblocking(False)
        self._is_shut = False

    def send(self, request: Request) -> None:
        """Queue a request for the receiver thread. For any thread; never blocks."""
        self._requests.put(request)
        self._ring()

    def shut_down(self) -> None:
        """End the session: receive() returns. For any thread."""
        # Lock-free: set before the wakeup and never cleared. The receiver thread reads it after each wakeup.
        self._is_shut = True
        self._requests.put(None)  # the receiver thread may be waiting for the first request
        self._ring()

    def close(self) -> None:
        """Close the wakeup sockets. For the receiver thread, after receive()."""
        self._ear.close()
        self._bell.close()

    def receive(self, report: Callable[[Event], None]) -> str:
        """Open a session and report events until it ends. Returns the reason. Raises OSError, ProtocolError."""
        request = self._requests.get()
        if not isinstance(request, Command):
            return "the client closed the connection"
        opened = self._open(request.text.encode())
        with closing(opened.wire) as wire:
            if opened.arq is None:
                for event in self._protocol.event_decoder().decode(frame(COMMAND, opened.arrived[0].payload)):
                    report(event)
                return "the server answered, but opened no session"
            return self._converse(wire, opened.arq, opened.arrived, report)

    def _open(self, text: bytes) -> _Opened:
        """Try the server's addresses in order until one answers. Raises OSError if none does."""
        why = "no answer"
        for family, _, _, _, place in self._places:
            try:
                opened = self._open_at(family, place, text)
            except OSError as error:
                why = error.strerror or str(error)
                continue
            if opened is not None:
                return opened
        raise OSError(f"can't reach {format_address(self._address)} over UDP: {why}")

    def _open_at(self, family: int, place: Any, text: bytes) -> _Opened | None:
        """Open a session at one address. Returns None if there is no answer."""
        wire = _Wire(family, place, self._ear)
        opened = None
        try:
            handshake = UdpHandshake(text, time.monotonic())
            patience_ends = time.monotonic() + self._timeout_seconds
            while opened is None and not self._is_shut and (now := time.monotonic()) < patience_ends:
                wire.send(handshake.datagrams_to_send(now))
                arrived = wire.read(min(handshake.next_check_at, patience_ends))
                while arrived and (answer := handshake.handle_reply(arrived[0], time.monotonic())) is None:
                    del arrived[0]
                if arrived:
                    opened = _Opened(wire, answer if isinstance(answer, Arq) else None, arrived)
        finally:
            if opened is None:
                wire.close()
        return opened

    def _converse(self, wire: _Wire, arq: Arq, arrived: list[Datagram], report: Callable[[Event], None]) -> str:
        udp_session = UdpSession(arq, self._protocol, time.monotonic())
        while not self._is_shut:
            for datagram in arrived:
                heard = udp_session.receive(datagram, time.monotonic())
                for event in heard.events:
                    report(event)
                if heard.events:
                    self._watch.heard(heard.events, time.monotonic())
                if heard.end:
                    with suppress(ConnectionRefusedError):  # the server has ended already
                        wire.send(heard.acks)
                    return heard.end
                wire.send(heard.acks)
            while not self._requests.empty():
                request = self._requests.get()
                refused = udp_session.request(request, time.monotonic()) if request is not None else None
                if refused is not None:
                    report(refused)
            now = time.monotonic()
            self._watch.check(now)  # raises TimeoutError; its ping is not needed, because UdpSession sends pings
            wire.send(udp_session.datagrams_to_send(now))
            arrived = wire.read(min(udp_session.next_check_at, self._watch.look_at(now)))
        return "the client closed the connection"

    def _ring(self) -> None:
        with suppress(OSError):  # a wakeup is pending, or the sockets are closed
            self._bell.send(b"\0", socket.MSG_DONTWAIT)


class _Wire:
    """A socket connected to one address, and the receiving end of the wakeup socket."""

    def __init__(self, family: int, place: Any, ear: socket.socket) -> None:
        """Raises OSError."""
        self._ear = ear
        self._sock = socket.socket(family, socket.SOCK_DGRAM)
        try:
            self._sock.setblocking(False)
            self._sock.connect(place)
            self._selector = selectors.DefaultSelector()
        except OSError:
            self._sock.close()
            raise
        self._selector.register(self._sock, selectors.EVENT_READ)
        self._selector.register(ear, selectors.EVENT_READ)

    def close(self) -> None:
        """Close the socket. The wakeup socket stays open."""
        self._selector.close()
        self._sock.close()

    def send(self, datagrams: Iterable[bytes]) -> None:
        """Send datagrams. Raises ConnectionRefusedError if no server is there. Other errors count as lost datagrams."""
        for datagram in datagrams:
            try:
                self._sock.send(datagram)
            except ConnectionRefusedError:  # reports an earlier datagram
                raise
            except OSError:
                return

    def read(self, until: float) -> list[Datagram]:
        """Wait for a datagram, a wakeup or the time ``until``. Returns the datagrams. Raises ConnectionRefusedError."""
        ready = self._selector.select(max(0.0, until - time.monotonic()))
        if any(key.fileobj is self._ear for key, _ in ready):
            self._ear.recv(64)
        found: list[Datagram] = []
        try:
            while len(found) < _READ_MAX:
                datagram = unpack(self._sock.recv(READ_BYTES))
                if datagram is not None:
                    found.append(datagram)
        except ConnectionRefusedError:
            raise
        except OSError:  # no more datagrams, or a network error that may be temporary
            pass
        return found
