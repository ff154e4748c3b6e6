"""The reject queue: connections that can't be accepted. Each gets the error in its protocol, and time to read it.

A peer that begins with TLS gets an alert.

A socket in the queue is *silent* until its first bytes arrive, which show its protocol, or until _FIRST_BYTES_SECONDS
have passed. Then the error is sent, and the socket is *closing*: it is closed after _READ_SECONDS, because a close with
unread input would reset the connection before the peer has read the error.
"""

from __future__ import annotations

import math
import selectors
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

from chatprotocol.wire import SNIFF_MAX_BYTES, Sniff, sniff
from chatserver.net.tls import ALERT_FULL, FIRST_BYTE

if TYPE_CHECKING:
    from chatprotocol.events import Refused
    from chatprotocol.wire import WireProtocol

# Time limit for the first bytes of a peer, and time for it to read the error.
_FIRST_BYTES_SECONDS = 1.0
_READ_SECONDS = 1.0
# Maximum sockets in the queue: it bounds the descriptors that a flood takes. The oldest are closed first.
_SOCKETS_MAX = 64


class RejectQueue:
    """Sockets of refused connections. For the listener's thread; no method blocks.

    A silent peer gets the error in the first of the protocols. The times are seconds of one clock.
    """

    def __init__(self, protocols: tuple[WireProtocol, ...]) -> None:
        self._protocols = protocols
        self._selector = selectors.DefaultSelector()
        # The error for each silent socket.
        self._errors: dict[socket.socket, Refused] = {}
        # Deadline of each socket, the oldest first.
        self._silent: dict[socket.socket, float] = {}
        self._closing: dict[socket.socket, float] = {}

    def fileno(self) -> int:
        """The descriptor for a selector: readable if a silent socket has input."""
        return self._selector.fileno()

    @property
    def is_empty(self) -> bool:
        """True if no socket needs :meth:`check`."""
        return not self._silent and not self._closing

    def add(self, sock: socket.socket, error: Refused, now: float) -> None:
        """Add a refused connection. It gets the error."""
        sock.setblocking(False)
        self._selector.register(sock, selectors.EVENT_READ)
        self._silent[sock] = now + _FIRST_BYTES_SECONDS
        self._errors[sock] = error
        if len(self._silent) + len(self._closing) > _SOCKETS_MAX:
            oldest = next(iter(self._closing or self._silent))
            if oldest in self._silent:
                self._reject(oldest, now)
            self._close(oldest)

    def check(self, now: float) -> None:
        """Send the error to sockets with input or after _FIRST_BYTES_SECONDS; close sockets after _READ_SECONDS."""
        for key, _ in self._selector.select(0):
            self._reject(key.fileobj, now)  # type: ignore[arg-type]
        for sock in _expired(self._silent, now):
            self._send_error(sock, self._protocols[0], now)
        for sock in _expired(self._closing, now):
            self._close(sock)

    def close_all(self) -> None:
        """Send the error to all silent sockets, and close everything."""
        self.check(math.inf)  # later than all deadlines
        self._selector.close()

    def _reject(self, sock: socket.socket, now: float) -> None:
        """Send the error in the protocol of the bytes received so far.

        More bytes are not awaited, because peers that send single bytes would keep this thread busy.
        """
        first_bytes = b""
        with suppress(OSError):
            first_bytes = sock.recv(SNIFF_MAX_BYTES, socket.MSG_PEEK)
        if first_bytes.startswith(FIRST_BYTE):
            self._send_error(sock, None, now)
            return
        found = sniff(first_bytes, self._protocols) if first_bytes else Sniff.NO
        self._send_error(sock, self._protocols[0] if isinstance(found, Sniff) else found, now)

    def _send_error(self, sock: socket.socket, protocol: WireProtocol | None, now: float) -> None:
        """Send the error in this protocol; None is TLS."""
        self._selector.unregister(sock)
        del self._silent[sock]
        error = self._errors.pop(sock)
        self._closing[sock] = now + _READ_SECONDS
        with suppress(OSError):
            data = ALERT_FULL if protocol is None else protocol.refusal(error)
            sock.send(data, socket.MSG_NOSIGNAL)
            sock.shutdown(socket.SHUT_WR)

    def _close(self, sock: socket.socket) -> None:
        del self._closing[sock]
        sock.close()


def _expired(deadlines: dict[socket.socket, float], now: float) -> list[socket.socket]:
    return [sock for sock, deadline in deadlines.items() if deadline <= now]
