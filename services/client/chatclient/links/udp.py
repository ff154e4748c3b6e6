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
from chatprotocol.udp.arq import Arq
from chatprotocol.udp.handshake import UdpHandshake
from chatprotocol.udp.packet import READ_BYTES, unpack
from chatprotocol.wire.readers import HEADER_BYTES, frame
from chatprotocol.wire.steps import COMMAND

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from chatclient.links.watch import Watch
    from chatprotocol.address import Address
    from chatprotocol.events import Event
    from chatprotocol.udp.packet import Datagram
    from chatprotocol.wire.base import ClientProtocol

# Maximum number of datagrams to read before requests are handled.
_READ_MAX: Final = 64


class _Opened(NamedTuple):
    """A new session and its first datagrams; or, with ``arq`` None, the server's rejection."""

    sock: _UdpSocket
    arq: Arq | None
    arrived: list[Datagram]


class UdpLink:
    """One session, which the first request opens. The receiver thread calls receive() and close()."""

    def __init__(
        self,
        protocol: ClientProtocol,
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
        self._socket_addresses = resolve(*address, type=socket.SOCK_DGRAM)
        self._timeout_seconds = seconds / len(self._socket_addresses)
        self._requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._wakeup, self._waker = socket.socketpair()
        self._wakeup.setblocking(False)
        self._is_shut = False

    def send(self, data: bytes, _: int = 0) -> None:
        """Queue encoded frames for the receiver thread. For any thread; never blocks."""
        self._requests.put(data)
        self._wake()

    def shut_down(self) -> None:
        """End the session: receive() returns. For any thread."""
        # Lock-free: set before the wakeup and never cleared. The receiver thread reads it after each wakeup.
        self._is_shut = True
        self._requests.put(None)  # the receiver thread may be waiting for the first request
        self._wake()

    def close(self) -> None:
        """Close the wakeup sockets. For the receiver thread, after receive()."""
        self._wakeup.close()
        self._waker.close()

    def receive(self, report: Callable[[Event], None]) -> str:
        """Open a session and report events until it ends. Returns the reason. Raises OSError, ProtocolError."""
        opening = self._requests.get()
        if opening is None:
            return "the client closed the connection"
        opened = self._open(opening[HEADER_BYTES:])
        with closing(opened.sock) as sock:
            if opened.arq is None:
                for event in self._protocol.event_decoder().decode(frame(COMMAND, opened.arrived[0].payload)):
                    report(event)
                return "the server answered, but opened no session"
            return self._run_session(sock, opened.arq, opened.arrived, report)

    def _open(self, text: bytes) -> _Opened:
        """Try the server's addresses in order until one answers. Raises OSError if none does."""
        reason = "no answer"
        for family, _, _, _, socket_address in self._socket_addresses:
            try:
                opened = self._open_at(family, socket_address, text)
            except OSError as error:
                reason = error.strerror or str(error)
                continue
            if opened is not None:
                return opened
        raise OSError(f"can't reach {format_address(self._address)} over UDP: {reason}")

    def _open_at(self, family: int, socket_address: Any, text: bytes) -> _Opened | None:
        """Open a session at one address. Returns None if there is no answer."""
        sock = _UdpSocket(family, socket_address, self._wakeup)
        opened = None
        try:
            handshake = UdpHandshake(text, time.monotonic())
            deadline = time.monotonic() + self._timeout_seconds
            while opened is None and not self._is_shut and (now := time.monotonic()) < deadline:
                sock.send(handshake.datagrams_to_send(now))
                arrived = sock.read(min(handshake.next_check_at, deadline))
                while arrived and (answer := handshake.handle_reply(arrived[0], time.monotonic())) is None:
                    del arrived[0]
                if arrived:
                    opened = _Opened(sock, answer if isinstance(answer, Arq) else None, arrived)
        finally:
            if opened is None:
                sock.close()
        return opened

    def _run_session(self, sock: _UdpSocket, arq: Arq, arrived: list[Datagram], report: Callable[[Event], None]) -> str:
        udp_session = UdpSession(arq, self._protocol, time.monotonic())
        while not self._is_shut:
            for datagram in arrived:
                result = udp_session.receive(datagram, time.monotonic())
                for event in result.events:
                    report(event)
                if result.events:
                    self._watch.note_received(result.events, time.monotonic())
                if result.end:
                    with suppress(ConnectionRefusedError):  # the server has ended already
                        sock.send(result.acks)
                    return result.end
                sock.send(result.acks)
            while not self._requests.empty():
                request = self._requests.get()
                if request is not None:
                    udp_session.write(request, time.monotonic())
            now = time.monotonic()
            self._watch.check(now)  # raises TimeoutError; its ping is not needed, because UdpSession sends pings
            sock.send(udp_session.datagrams_to_send(now))
            arrived = sock.read(min(udp_session.next_check_at, self._watch.next_check_at(now)))
        return "the client closed the connection"

    def _wake(self) -> None:
        with suppress(OSError):  # a wakeup is pending, or the sockets are closed
            self._waker.send(b"\0", socket.MSG_DONTWAIT)


class _UdpSocket:
    """A socket connected to one address, and the receiving end of the wakeup socket."""

    def __init__(self, family: int, socket_address: Any, wakeup: socket.socket) -> None:
        """Raises OSError."""
        self._wakeup = wakeup
        self._sock = socket.socket(family, socket.SOCK_DGRAM)
        try:
            self._sock.setblocking(False)
            self._sock.connect(socket_address)
            self._selector = selectors.DefaultSelector()
        except OSError:
            self._sock.close()
            raise
        self._selector.register(self._sock, selectors.EVENT_READ)
        self._selector.register(wakeup, selectors.EVENT_READ)

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
        if any(key.fileobj is self._wakeup for key, _ in ready):
            self._wakeup.recv(64)
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
