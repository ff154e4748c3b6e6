"""Transports: the bytes of a connection, to its peer and back.

TcpTransport is here, TlsTransport in tls, UdpTransport in udp_transport.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import sys
import termios
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Protocol

from chatserver.net.broadcast import SEND_MAX_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from chatserver.net.read_turns import ReadTurns

# Time without input after which a reader is quiet and waits for its turn: see read_turns.
_ACTIVE_SECONDS = 1.0
# Only on Linux.
_QUICKACK: Final[int | None] = getattr(socket, "TCP_QUICKACK", None)
# Offset of tcpi_bytes_acked in struct tcp_info (linux/tcp.h): the bytes that the peer has acknowledged (RFC 4898).
_BYTES_ACKED_AT: Final = 120
_TCP_INFO_BYTES: Final = 128
# tcpi_state, the first byte of tcp_info, of a connection that is closed or was reset, and of one whose peer has closed
# its side (net/tcp_states.h).
_TCP_CLOSE: Final = 7
_TCP_CLOSE_WAIT: Final = 8


class Transport(Protocol):
    """A stream of bytes in both directions.

    The reader calls ``read``, ``note_login``, ``acknowledge`` and ``stop_reading``. All other methods are for the
    sender, or for the reader until the send queue exists, except those for any thread.
    """

    @property
    def is_socket(self) -> bool:
        """True if the sender may wait until :attr:`descriptor` is writable.

        Otherwise the transport wakes the sender when there is room for more data. Every transport wakes the sender when
        :meth:`flush` is needed.
        """

    @property
    def is_plain(self) -> bool:
        """True if bytes are sent as they are, and the sender may write them to :attr:`descriptor` itself."""

    @property
    def descriptor(self) -> int:
        """The descriptor of the socket; -1 if there is none, or it is closed."""

    @property
    def write_max_bytes(self) -> int:
        """Maximum useful size of one write."""

    @property
    def unsent_bytes(self) -> int:
        """Bytes that the transport keeps for its peer alone, and that the system has not taken. For any thread."""

    def read(self, size_bytes: int, timeout_seconds: float) -> bytes:
        """The next bytes; empty at the end. TimeoutError: nothing arrived within ``timeout_seconds``. OSError."""

    def note_login(self) -> None:
        """Prefer the reader to those whose peers have not logged in."""

    def stop_reading(self) -> None:
        """Release what the reader used. The reader's last call, before the close."""

    def acknowledge(self) -> None:
        """Acknowledge received data without delay, because the reader waits for more."""

    def write(self, pieces: Sequence[bytes | memoryview]) -> int:
        """Take the bytes that fit; returns their number. BlockingIOError: no room. OSError: the peer is lost."""

    def flush(self) -> None:
        """Send data that was taken and not sent yet, and retransmissions.

        BlockingIOError: the socket is full; call it again when the descriptor is writable. OSError: the peer is lost.
        """

    def set_wake(self, wake: Callable[[], None]) -> None:
        """Set the function that wakes the sender. The transport calls it in any thread, without a lock."""

    def end(self) -> None:
        """Announce that nothing more is written."""

    def hang_up(self) -> None:
        """Let the reader see the end, and let writes fail. For any thread."""

    def close(self) -> None:
        """Free all resources. The last call of all."""

    def unacknowledged_bytes(self) -> int:
        """Number of bytes that the peer has not acknowledged; the end may count as one. For any thread."""

    def acknowledged(self) -> int:
        """Position up to which the peer's system has acknowledged the written data. For any thread.

        Compare it only with positions of the same transport. It stays valid after the peer was lost.
        """

    def written(self) -> int:
        """Position of the end of the written data, or slightly more. For any thread, after the write."""

    @property
    def is_lost(self) -> bool:
        """True if the peer can't acknowledge anything any more, because the connection was reset or is lost."""

    @property
    def has_ended(self) -> bool:
        """True if the peer is lost or has closed its side: it sends nothing more, but may still read."""

    @property
    def can_be_closed(self) -> bool:
        """True if a close still delivers the data that was taken."""


class TcpTransport:
    """A TCP socket."""

    __slots__ = ("_active_seconds", "_sock", "_timeout_seconds", "_turns", "_waiter")

    is_socket = True
    is_plain = True
    can_be_closed = True
    unsent_bytes = 0
    # One connection must not occupy the sender for long.
    write_max_bytes = SEND_MAX_BYTES

    def __init__(
        self, sock: socket.socket, turns: ReadTurns | None = None, active_seconds: float = _ACTIVE_SECONDS
    ) -> None:
        """With ``turns`` a quiet reader waits for its turn, unless the system can't watch another socket."""
        self._sock = sock
        self._active_seconds = active_seconds
        self._timeout_seconds: float | None = None
        self._turns: ReadTurns | None = None
        if turns is not None:
            sock.setblocking(False)
            with suppress(OSError):
                self._waiter = turns.add(sock.fileno())
                self._turns = turns

    @property
    def descriptor(self) -> int:
        return self._sock.fileno()

    def read(self, size_bytes: int, timeout_seconds: float) -> bytes:
        """Wait for the socket while the reader is active, then for a turn."""
        turns = self._turns
        if turns is None:
            return self._read(size_bytes, timeout_seconds)
        if turns.try_activate(self._waiter):
            try:
                return self._read(size_bytes, min(timeout_seconds, self._active_seconds))
            except TimeoutError:
                if timeout_seconds <= self._active_seconds:
                    raise
            turns.deactivate(self._waiter)
            timeout_seconds -= self._active_seconds
        while True:
            turns.wait(self._waiter, timeout_seconds)
            try:
                return os.read(self._sock.fileno(), size_bytes)
            except BlockingIOError:
                continue
            finally:
                turns.end_turn()

    def _read(self, size_bytes: int, timeout_seconds: float) -> bytes:
        """Read with a timeout. The timeout is set only if it has changed, which saves a system call.

        Python keeps a socket with a timeout in non-blocking mode, which the sender needs.
        """
        if timeout_seconds != self._timeout_seconds:
            self._sock.settimeout(timeout_seconds)
            self._timeout_seconds = timeout_seconds
        return self._sock.recv(size_bytes)

    def note_login(self) -> None:
        """See Transport."""
        if self._turns is not None:
            self._waiter.is_user = True

    def stop_reading(self) -> None:
        """Remove the socket from the turns."""
        if self._turns is not None:
            self._turns.remove(self._waiter)

    def acknowledge(self) -> None:
        """See Transport. A peer with Nagle's algorithm waits for the acknowledgement before its next small segment.

        Linux delays acknowledgements by up to 40 ms, because a reply could carry them. Linux clears the option later.
        """
        if _QUICKACK is not None:
            with suppress(OSError):
                self._sock.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)

    def write(self, pieces: Sequence[bytes | memoryview]) -> int:
        return os.writev(self._sock.fileno(), pieces)

    def flush(self) -> None:
        """Do nothing: the system sends."""

    def set_wake(self, _: Callable[[], None]) -> None:
        """Do nothing: the sender waits for the socket."""

    def end(self) -> None:
        """Let the peer see the end."""
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)

    def hang_up(self) -> None:
        """Let the reader and the peer see the end."""
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the socket. Its reader must have ended."""
        self._sock.close()

    def unacknowledged_bytes(self) -> int:
        """See Transport; 0 if the system can't tell, or the socket is closed."""
        try:
            (count,) = struct.unpack("i", fcntl.ioctl(self._sock, termios.TIOCOUTQ, bytes(4)))
        except (OSError, ValueError):
            return 0
        return int(count)

    def acknowledged(self) -> int:
        """See Transport; 0 if the system can't tell. ``written`` is then 0 as well: all data counts as acknowledged."""
        if sys.platform != "linux":
            return 0
        try:
            info = self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
        except OSError:  # not a TCP socket, or closed
            return 0
        return int(struct.unpack_from("Q", info, _BYTES_ACKED_AT)[0])

    @property
    def is_lost(self) -> bool:
        """See Transport; always false if the system can't tell."""
        return self._tcp_state() == _TCP_CLOSE

    @property
    def has_ended(self) -> bool:
        """See Transport; always false if the system can't tell."""
        return self._tcp_state() in (_TCP_CLOSE, _TCP_CLOSE_WAIT)

    def _tcp_state(self) -> int:
        """The state of the connection in the system; 0 if the system can't tell."""
        if sys.platform != "linux":
            return 0
        try:
            return self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
        except OSError:  # not a TCP socket, or closed
            return 0

    def written(self) -> int:
        """See Transport. Data that is acknowledged between the two calls counts twice, so it is never too little."""
        return self.unacknowledged_bytes() + self.acknowledged() if sys.platform == "linux" else 0
