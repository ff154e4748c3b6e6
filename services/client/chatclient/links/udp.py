"""The link over UDP: one session over datagrams that may be lost, duplicated or reordered.

The receiver thread does all the work in receive(). Other threads only add requests to a queue and wake it.
"""

import queue
import selectors
import socket
import time
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from typing import Any, Final

from chatclient.links.watch import Watch
from chatprotocol.address import Address, format_address
from chatprotocol.events import Pong
from chatprotocol.udp.packet import READ_BYTES, Datagram, unpack
from chatprotocol.udp.session import SessionState, UdpClientSession
from chatprotocol.wire.base import ClientEvent, ClientProtocol

# Maximum number of datagrams to read before requests are handled.
_READ_MAX: Final = 64


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
        self._queued: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._wakeup, self._waker = socket.socketpair()
        self._wakeup.setblocking(False)
        self._is_shut = False

    def send(self, data: bytes, _: int = 0) -> None:
        """Queue encoded frames for the receiver thread. For any thread; never blocks."""
        self._queued.put(data)
        self._wake()

    def shut_down(self) -> None:
        """End the session: receive() returns. For any thread."""
        # Lock-free: set before the wakeup and never cleared. The receiver thread reads it after each wakeup.
        self._is_shut = True
        self._queued.put(None)  # the receiver thread may be waiting for the first request
        self._wake()

    def close(self) -> None:
        """Close the wakeup sockets. For the receiver thread, after receive()."""
        self._wakeup.close()
        self._waker.close()

    def receive(self, report: Callable[[ClientEvent], None]) -> str:
        """Open a session and report events until it ends. Returns the reason. Raises OSError, ProtocolError.

        The server's addresses are tried in order until one answers.
        """
        opening = self._queued.get()
        if opening is None:
            return "the client closed the connection"
        error = "no answer"
        for family, _, _, _, socket_address in self._socket_addresses:
            session = UdpClientSession(time.monotonic())
            try:
                with closing(_UdpSocket(family, socket_address, self._wakeup)) as sock:
                    end = self._run(sock, session, opening, report)
            except OSError as caught:
                if session.state is not SessionState.OPENING:
                    raise
                error = caught.strerror or str(caught)
                continue
            if end:
                return end
            if self._is_shut:
                break
        raise OSError(f"can't reach {format_address(self._address)} over UDP: {error}")

    def _run(
        self, sock: "_UdpSocket", session: UdpClientSession, opening: bytes, report: Callable[[ClientEvent], None]
    ) -> str:
        """Run a session at one address until it ends. Returns the reason; empty if there was no answer in time."""
        decoder = self._protocol.event_decoder()
        now = time.monotonic()
        open_by = now + self._timeout_seconds
        sock.send(session.write(opening, now))
        while not self._is_shut:
            now = time.monotonic()
            if session.state is not SessionState.OPENING:
                if data := self._take_queued():
                    sock.send(session.write(data, now))
                self._watch.check(now)  # raises TimeoutError; its ping is not needed, because the session sends pings
            elif now >= open_by:
                return ""
            sock.send(session.datagrams_to_send(now))
            if session.state is SessionState.LOST:
                raise TimeoutError(session.lost_reason)
            is_opening = session.state is SessionState.OPENING
            check_at = open_by if is_opening else self._watch.next_check_at(now)
            for datagram in sock.read(min(session.next_check_at, check_at)):
                answers = session.receive(datagram, time.monotonic())
                events = [event for event in decoder.decode(session.read()) if not isinstance(event, Pong)]
                for event in events:
                    report(event)
                if events:
                    self._watch.note_received(events, time.monotonic())
                if session.is_over:
                    with suppress(ConnectionRefusedError):  # the server has ended already
                        sock.send(answers)
                    return str(session.state.value)
                sock.send(answers)
        return "" if session.state is SessionState.OPENING else "the client closed the connection"

    def _take_queued(self) -> bytes:
        """The frames that other threads have queued since the last call."""
        found = []
        while not self._queued.empty():
            found.append(self._queued.get() or b"")
        return b"".join(found)

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
