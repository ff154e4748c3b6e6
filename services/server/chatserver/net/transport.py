"""Carriers: what brings a connection's bytes to its peer and back. One is a TCP socket; over UDP see channel.py."""

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

# A reader that has read nothing for so long is quiet.
_ACTIVE_SECONDS = 1.0
# Linux alone has it.
_QUICKACK: Final[int | None] = getattr(socket, "TCP_QUICKACK", None)
# struct tcp_info (linux/tcp.h): tcpi_bytes_acked, what the peer's system has acknowledged, of RFC 4898.
_BYTES_ACKED_AT: Final = 120
_TCP_INFO_BYTES: Final = 128
# tcpi_state, the first byte of tcp_info, of a connection that is closed or was reset (net/tcp_states.h).
_TCP_CLOSE: Final = 7


class Transport(Protocol):
    """Bytes both ways. One thread reads; the rest is the courier's once there is an outbox, if nothing else is said."""

    @property
    def is_socket(self) -> bool:
        """Is there a socket that the courier may write to by itself, and wait for where it is full?

        Otherwise it wakes the courier when there is room again, or something to be sent once more.
        """

    @property
    def descriptor(self) -> int:
        """The socket's; -1 where there is none, or it is closed."""

    @property
    def write_max_bytes(self) -> int:
        """There is no use in writing more at once."""

    def read(self, size_bytes: int, patience_seconds: float) -> bytes:
        """The next bytes, nothing at the end. TimeoutError: there were none for so long. OSError."""

    def stop_reading(self) -> None:
        """The reader's last call, before anybody closes this."""

    def acknowledge(self) -> None:
        """Tell the peer's system now, and not some time later, that what it sent has come: the rest is waited for."""

    def write(self, pieces: Sequence[bytes | memoryview]) -> int:
        """Take as many bytes as there is room for now, and say how many. BlockingIOError: for none. OSError."""

    def flush(self) -> None:
        """Send what was taken and waits for its time. OSError."""

    def call_when_due(self, wake: Callable[[], None]) -> None:
        """What wakes the courier, for a carrier that has to. It is called from any thread, under no lock."""

    def end(self) -> None:
        """Nothing more will be written."""

    def hang_up(self) -> None:
        """Let the reader see the end, and take nothing more. For any thread."""

    def close(self) -> None:
        """The last thing that is done."""

    def unacknowledged_bytes(self) -> int:
        """On their way to the peer; the end may count as one. For any thread."""

    def acknowledged(self) -> int:
        """The position in all that was ever written up to which the peer's system has it. For any thread.

        A position is compared with those of the same carrier only. It can still be asked after the peer is lost.
        """

    def written(self) -> int:
        """The position of what was written last, or a little more; for any thread that knows that it was written."""

    @property
    def is_over(self) -> bool:
        """True if the peer can't acknowledge anything any more, because the connection was reset or is lost."""

    @property
    def can_be_closed(self) -> bool:
        """Does what was taken come to the peer even if this is closed?"""


class TcpTransport:
    """The system does it all."""

    __slots__ = ("_active_seconds", "_patience_seconds", "_sock", "_turns", "_waiter")

    is_socket = True
    can_be_closed = True
    # So that no connection holds the courier for long.
    write_max_bytes = SEND_MAX_BYTES

    def __init__(
        self, sock: socket.socket, turns: ReadTurns | None = None, active_seconds: float = _ACTIVE_SECONDS
    ) -> None:
        """With ``turns`` a quiet reader waits for its turn, unless the system can't watch one more socket."""
        self._sock = sock
        self._active_seconds = active_seconds
        self._patience_seconds: float | None = None
        self._turns: ReadTurns | None = None
        if turns is not None:
            sock.setblocking(False)
            with suppress(OSError):
                self._waiter = turns.add(sock.fileno())
                self._turns = turns

    @property
    def descriptor(self) -> int:
        """It is -1 once it is closed."""
        return self._sock.fileno()

    def read(self, size_bytes: int, patience_seconds: float) -> bytes:
        """Wait for the socket while the reader is active, then for a turn."""
        turns = self._turns
        if turns is None:
            return self._read(size_bytes, patience_seconds)
        if turns.be_active(self._waiter):
            try:
                return self._read(size_bytes, min(patience_seconds, self._active_seconds))
            except TimeoutError:
                if patience_seconds <= self._active_seconds:
                    raise
            turns.be_quiet(self._waiter)
            patience_seconds -= self._active_seconds
        while True:
            turns.wait(self._waiter, patience_seconds)
            try:
                return os.read(self._sock.fileno(), size_bytes)
            except BlockingIOError:
                continue
            finally:
                turns.pass_on()

    def _read(self, size_bytes: int, patience_seconds: float) -> bytes:
        """To say how long it may take is a system call, and seldom needed.

        The courier must never wait for a socket, so all are in non-blocking mode, as Python's are while they have some
        time-out.
        """
        if patience_seconds != self._patience_seconds:
            self._sock.settimeout(patience_seconds)
            self._patience_seconds = patience_seconds
        return self._sock.recv(size_bytes)

    def stop_reading(self) -> None:
        """The socket is not watched any more."""
        if self._turns is not None:
            self._turns.remove(self._waiter)

    def acknowledge(self) -> None:
        """A peer that writes in small pieces (Nagle's algorithm) sends the next one when the last is acknowledged.

        Linux puts that off for 40 ms, because an answer could carry it. The option holds until it does so again.
        """
        if _QUICKACK is not None:
            with suppress(OSError):
                self._sock.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)

    def write(self, pieces: Sequence[bytes | memoryview]) -> int:
        """One system call."""
        return os.writev(self._sock.fileno(), pieces)

    def flush(self) -> None:
        """Nothing waits here."""

    def call_when_due(self, _: Callable[[], None]) -> None:
        """The courier looks at the socket itself."""

    def end(self) -> None:
        """Lets the peer see the end."""
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)

    def hang_up(self) -> None:
        """Lets reader and peer see the end."""
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Of a socket that nobody reads any more."""
        self._sock.close()

    def unacknowledged_bytes(self) -> int:
        """0 where the system can't tell, or the socket is closed."""
        try:
            (count,) = struct.unpack("i", fcntl.ioctl(self._sock, termios.TIOCOUTQ, bytes(4)))
        except (OSError, ValueError):
            return 0
        return int(count)

    def acknowledged(self) -> int:
        """0 where the system can't tell: then what was written counts as acknowledged."""
        if sys.platform != "linux":
            return 0
        try:
            info = self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
        except OSError:  # not a TCP socket, or closed
            return 0
        return int(struct.unpack_from("Q", info, _BYTES_ACKED_AT)[0])

    @property
    def is_over(self) -> bool:
        """See Transport; always false if the system can't tell."""
        if sys.platform != "linux":
            return False
        try:
            return self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _TCP_CLOSE
        except OSError:  # not a TCP socket, or closed
            return False

    def written(self) -> int:
        """More than was written by what is acknowledged between the two calls, so never less."""
        return self.unacknowledged_bytes() + self.acknowledged() if sys.platform == "linux" else 0
