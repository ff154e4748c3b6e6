"""One session over UDP, with the interface of a connected, non-blocking socket. It reads and writes encoded frames."""

from __future__ import annotations

import errno
import socket
from time import perf_counter
from typing import TYPE_CHECKING, Final

from chatprotocol.udp.packet import READ_BYTES, unpack
from chatprotocol.udp.session import SessionState, UdpClientSession
from chatprotocol.wire.readers import frame
from chatprotocol.wire.steps import COMMAND

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

# Interval at which a caller has to call send_due while it sends. PING_SECONDS is enough otherwise.
RESEND_CHECK_SECONDS: Final = 0.05
# Receive buffer of the socket: 64 datagrams of a server may be unacknowledged, and each may be sent twice.
_SOCKET_BUFFER_BYTES: Final = 1024 * 1024
# Maximum datagrams received per call: other sessions get their turn after it.
_RECEIVE_MAX: Final = 64
# Maximum unacknowledged frames: about as much as a TCP socket buffers.
_QUEUE_MAX_FRAMES: Final = 2_048
_SEND_MAX_BYTES: Final = 16 * 1024
_LOG_OUT: Final = frame(COMMAND, b"EX")


class UdpSocket:
    """The first frame sent is the name, and opens the session. The caller has to call :meth:`send_due`."""

    def __init__(self, port: int, receive_bytes: int = 0, clock: Callable[[], float] = perf_counter) -> None:
        """Connect to 127.0.0.1. ``receive_bytes`` is the size of the system's receive buffer. Raises OSError."""
        self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes or _SOCKET_BUFFER_BYTES)
            self._sock.setblocking(False)
            self._sock.connect(("127.0.0.1", port))
        except BaseException:
            self._sock.close()
            raise
        self._clock = clock
        self._session = UdpClientSession(clock())

    @property
    def is_open(self) -> bool:
        """True if the handshake is complete and the session is not over."""
        return self._session.state is SessionState.OPEN

    def fileno(self) -> int:
        """The descriptor of the socket."""
        return self._sock.fileno()

    def getsockname(self) -> tuple[str, int]:
        """The local address."""
        host, port = self._sock.getsockname()
        return host, port

    def close(self) -> None:
        """Close the socket without informing the server: see :meth:`log_out`."""
        self._sock.close()

    def recv_into(self, buffer: bytearray) -> int:
        """Acknowledge all datagrams, and copy the frames that are in order into the buffer. Returns 0 after a goodbye.

        Raises BlockingIOError if no frame is in order, and OSError if the server or the session has ended.
        """
        now = self._clock()
        try:
            for _ in range(_RECEIVE_MAX):
                datagram = unpack(self._sock.recv(READ_BYTES))
                if datagram is not None:
                    self._send_all(self._session.receive(datagram, now))
        except BlockingIOError:
            pass
        if self._session.state is SessionState.CLOSED:
            return 0
        if self._session.state is SessionState.UNKNOWN:
            raise ConnectionResetError(errno.ECONNRESET, self._session.state.value)
        if self._session.arq.has_unsent:
            self.send_due(now)
        frames = self._session.read()
        if not frames:
            raise BlockingIOError(errno.EAGAIN, "no new frame")
        buffer[: len(frames)] = frames
        return len(frames)

    def send(self, data: bytes | memoryview) -> int:
        """Queue frames; ``data`` may end inside one. Returns the number of bytes. Raises BlockingIOError if full."""
        if self._session.is_over:
            raise BrokenPipeError(errno.EPIPE, self._session.state.value)
        if self._session.arq.frames_queued - self._session.arq.acknowledged >= _QUEUE_MAX_FRAMES:
            raise BlockingIOError(errno.EAGAIN, "the send queue is full")
        piece = bytes(data[:_SEND_MAX_BYTES])
        self._send_all(self._session.write(piece, self._clock()))
        return len(piece)

    def send_due(self, now: float) -> None:
        """Send what the window allows, overdue retransmissions, and pings. Raises TimeoutError: the server is lost."""
        self._send_all(self._session.datagrams_to_send(now))
        if self._session.state is SessionState.LOST:
            raise TimeoutError(errno.ETIMEDOUT, self._session.lost_reason)

    def log_out(self) -> None:
        """Ask the server to end the session. :meth:`recv_into` then returns 0."""
        if self.is_open:
            self.send(_LOG_OUT)

    def _send_all(self, datagrams: Iterable[bytes]) -> None:
        for each in datagrams:
            try:
                self._sock.send(each)
            except BlockingIOError:  # counts as a lost datagram, which is resent
                return
