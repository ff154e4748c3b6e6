"""The link over TCP: one or more sockets, as the protocol needs.

No thread blocks in a send. Data that the system does not accept immediately is kept, and the receiver thread sends it
when the socket is writable. So the receiver thread can end a connection to a server that does not read. The thread
always reads answers, even from a server that reads no requests until its answers are read. With TLS, each socket is a
TlsSocket.
"""

import selectors
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from chatclient.links.tls import TlsSocket
from chatclient.links.watch import Watch
from chatprotocol.address import Address
from chatprotocol.errors import ErrorCode
from chatprotocol.events import Pong, Refused
from chatprotocol.wire.base import ClientEvent, ClientProtocol, OwnAnswer

_READ_BYTES = 256 * 1024
# Time to read the other sockets after one socket has ended. The server closes all of them together.
_OTHERS_SECONDS = 0.2
# TCP keepalive and user timeout: detect a dead network within two minutes, or one minute if data was sent.
_LOST_SERVER_OPTIONS = (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4), ("TCP_USER_TIMEOUT", 60_000))
# Maximum unsent data: twice the size of all unconfirmed messages if every character is escaped. A larger amount means
# acknowledgements to a server that sends and does not read.
_UNSENT_MAX_BYTES: Final = 8 * 1024 * 1024


class TcpLink:
    """Connected sockets. The receiver thread calls receive() and close(); send() and shut_down() are for any thread."""

    def __init__(
        self,
        sockets: Sequence[socket.socket | TlsSocket],
        protocol: ClientProtocol,
        watch: Watch,
        others_seconds: float = _OTHERS_SECONDS,
    ) -> None:
        self._sockets = sockets
        self._protocol = protocol
        self._watch = watch
        self._others_seconds = others_seconds
        # Guards _unsent and keeps the bytes of one call together. No call under it blocks.
        self._send_lock = threading.Lock()
        self._unsent = [bytearray() for _ in sockets]
        # Wakes the receiver thread if there is unsent data.
        self._wakeup, self._waker = socket.socketpair()
        for each in (*sockets, self._wakeup, self._waker):
            each.setblocking(False)
        # True if a ping is unanswered. Written and read by the receiver thread only.
        self._has_pinged = False

    def send(self, data: bytes, connection: int = 0) -> None:
        """Send on the socket of this number. If that fails, the connection ends and the receiver thread reports it."""
        with self._send_lock:
            self._send(data, connection)

    def shut_down(self) -> None:
        """End the connection: receive() returns."""
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def receive(self, report: Callable[[ClientEvent], None]) -> str:
        """Report events until one socket has ended and the others were read.

        Returns the reason of the end. Raises OSError, and ProtocolError if the server breaks the protocol.
        """
        with selectors.DefaultSelector() as selector:
            for each in self._sockets:
                selector.register(each, selectors.EVENT_READ, self._protocol.event_decoder())
            selector.register(self._wakeup, selectors.EVENT_READ)
            others_until: float | None = None
            while len(selector.get_map()) > 1:
                now = time.monotonic()
                if others_until is None:
                    self._check_watch(now)
                elif now >= others_until:
                    break
                until = others_until or self._watch.next_check_at(now)
                for key, mask in selector.select(until - now):
                    if key.fileobj is self._wakeup:
                        self._start_writing(selector)
                        continue
                    if mask & selectors.EVENT_WRITE:
                        self._write_unsent(selector, key)
                    if mask & selectors.EVENT_READ and not self._read(key, report):
                        selector.unregister(key.fileobj)
                        others_until = time.monotonic() + self._others_seconds
        return "the server closed the connection"

    def close(self) -> None:
        """Close the sockets. For the receiver thread, after receive()."""
        for each in (*self._sockets, self._wakeup, self._waker):
            each.close()

    def _send(self, data: bytes, connection: int) -> None:
        """Requires the lock."""
        unsent = self._unsent[connection]
        sent_bytes = 0
        try:
            if not unsent:
                sent_bytes = self._sockets[connection].send(data)
        except BlockingIOError:
            pass
        except OSError:
            self.shut_down()
            return
        if sent_bytes == len(data):
            return
        unsent += data[sent_bytes:]
        if len(unsent) > _UNSENT_MAX_BYTES:
            self.shut_down()
        with suppress(OSError):  # a wakeup is pending, or the connection has ended
            self._waker.send(b"\0")

    def _check_watch(self, now: float) -> None:
        """Send a ping if the watch requests one. Raises TimeoutError if the server is lost.

        The lock is held for check and send, so that no request is sent between them.
        """
        with self._send_lock:
            if (ping := self._watch.check(now)) is not None:
                self._watch.note_ping(now)
                self._has_pinged = True
                self._send(*ping)

    def _start_writing(self, selector: selectors.BaseSelector) -> None:
        with suppress(BlockingIOError):
            self._wakeup.recv(64)
        with self._send_lock:
            for each, unsent in zip(self._sockets, self._unsent, strict=True):
                if unsent and each in selector.get_map():
                    key = selector.get_key(each)
                    selector.modify(each, selectors.EVENT_READ | selectors.EVENT_WRITE, key.data)

    def _write_unsent(self, selector: selectors.BaseSelector, key: selectors.SelectorKey) -> None:
        index = self._sockets.index(key.fileobj)
        with self._send_lock:
            unsent = self._unsent[index]
            with suppress(BlockingIOError):
                del unsent[: self._sockets[index].send(unsent)]
            if not unsent:
                selector.modify(key.fileobj, selectors.EVENT_READ, key.data)

    def _read(self, key: selectors.SelectorKey, report: Callable[[ClientEvent], None]) -> bool:
        """Read and report. Returns false at the end of the connection."""
        try:
            data = key.fileobj.recv(_READ_BYTES)  # type: ignore[union-attr]
        except BlockingIOError:
            return True
        events = key.data.decode(data)
        for event in events:
            if isinstance(event, OwnAnswer):
                self.send(event.data, self._sockets.index(key.fileobj))
            elif not self._answers_ping(event):
                report(event)
        if data:
            self._watch.note_received(events, time.monotonic())
        return bool(data)

    def _answers_ping(self, event: ClientEvent) -> bool:
        """True if the event answers a ping. A server that does not know pings answers with an error."""
        is_answer = isinstance(event, Pong) or (isinstance(event, Refused) and event.code is ErrorCode.UNKNOWN_COMMAND)
        if not (self._has_pinged and is_answer):
            return False
        self._has_pinged = False
        return True


def connect(
    protocol: ClientProtocol,
    watch: Callable[[], Watch],
    address: Address,
    seconds: float,
    tls: ssl.SSLContext | None = None,
) -> TcpLink:
    """Open the sockets that the protocol needs. Raises OSError, and UnicodeError for an invalid host name."""
    sockets: list[socket.socket | TlsSocket] = []
    try:
        while len(sockets) < protocol.connections:
            connected = _connect(address, seconds)
            sockets.append(connected if tls is None else TlsSocket(connected, tls, address[0]))
    except (OSError, UnicodeError):
        for each in sockets:
            each.close()
        raise
    return TcpLink(sockets, protocol, watch())


def _connect(address: Address, seconds: float) -> socket.socket:
    connected = socket.create_connection(address, seconds)
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _LOST_SERVER_OPTIONS:
        if option := getattr(socket, name, 0):  # some systems lack some of them
            connected.setsockopt(socket.IPPROTO_TCP, option, value)
    return connected
