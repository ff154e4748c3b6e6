"""Frames over UDP, with the interface of a connected socket. Lost frames are resent; duplicates are dropped."""

from __future__ import annotations

import errno
import socket
from collections import deque
from time import perf_counter
from typing import TYPE_CHECKING, Final

from chatprotocol.limits import FRAME_MAX_BYTES
from chatprotocol.udp.arq import Arq
from chatprotocol.udp.handshake import UdpHandshake
from chatprotocol.udp.packet import ACK, HEADER_BYTES, READ_BYTES, unpack
from chatprotocol.wire.readers import FrameBuffer, frame
from chatprotocol.wire.steps import COMMAND, DATA

if TYPE_CHECKING:
    from chatprotocol.udp.arq import Frame
    from chatprotocol.udp.packet import Datagram

# Interval at which a caller has to call send_due.
RESEND_CHECK_SECONDS: Final = 0.05
# Interval of keep_alive: the server ends a session after 60 s of silence.
KEEP_ALIVE_SECONDS: Final = 15.0
# Receive buffer of the socket: 64 datagrams of a server may be unacknowledged, and each may be sent twice.
_SOCKET_BUFFER_BYTES: Final = 1024 * 1024
# Maximum datagrams received per call: other sessions get their turn after it.
_RECEIVE_MAX: Final = 64
# Maximum unsent frames: about as much as a TCP socket buffers.
_QUEUE_MAX_FRAMES: Final = 2_048
_SEND_MAX_BYTES: Final = 16 * 1024
# Copies of each acknowledgement after the server's last datagram: if all are lost, the server resends until its time
# limit.
_LAST_ACKS: Final = 3
_ACK: Final = bytes([ACK])
_KEEP_ALIVE: Final = frame(COMMAND, b"PING")
_LOG_OUT: Final = frame(COMMAND, b"EX")
_GOODBYE: Final = b"BYE"


class ReceiveBuffer:
    """Restores the order of the datagrams of one session, and drops duplicates. Faster than chatprotocol's Arq.

    A load receives fewer than 2**32 datagrams, so each number occurs once.
    """

    def __init__(self) -> None:
        # The number of the next datagram in order.
        self.next = 1
        # Frames of datagrams with a higher number.
        self._early: dict[int, bytes] = {}

    def add(self, data: bytes) -> bytes:
        """The frames that are now in order; empty for a duplicate, or while an earlier datagram is missing."""
        number = int.from_bytes(data[HEADER_BYTES - 4 : HEADER_BYTES], "big")
        frames = frame(data[0], data[HEADER_BYTES:])
        if number != self.next:
            if number > self.next:
                self._early[number] = frames
            return b""
        self.next = number + 1
        while self._early and self.next in self._early:
            frames += self._early.pop(self.next)
            self.next += 1
        return frames


class UdpSession:
    """One session, with the interface of a connected, non-blocking socket. It reads and writes a stream of frames.

    The first frame sent is the name, and opens the session. The caller has to call :meth:`send_due` every
    RESEND_CHECK_SECONDS while it sends, and :meth:`keep_alive` every KEEP_ALIVE_SECONDS.
    """

    def __init__(self, port: int, receive_bytes: int = 0) -> None:
        """Connect to 127.0.0.1. ``receive_bytes`` is the size of the system's receive buffer. Raises OSError."""
        self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes or _SOCKET_BUFFER_BYTES)
            self._sock.setblocking(False)
            self._sock.connect(("127.0.0.1", port))
        except BaseException:
            self._sock.close()
            raise
        self._handshake: UdpHandshake | None = None
        # Only the sending half is used. None until the handshake is complete.
        self._arq: Arq | None = None
        self._frames = FrameBuffer(bytes([COMMAND, DATA]), FRAME_MAX_BYTES)
        # Frames that do not fit into the window of _arq.
        self._queue: deque[Frame] = deque()
        self._received = ReceiveBuffer()
        # The number of the server's last datagram, if it has arrived.
        self._last: int | None = None
        self._has_received = False

    @property
    def is_over(self) -> bool:
        """True if the server has ended the session and all its datagrams have arrived."""
        return self._last is not None and self._last < self._received.next

    @property
    def is_open(self) -> bool:
        """True if the handshake is complete and the session is not over."""
        return self._arq is not None and not self.is_over

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

    # --- receiving ---

    def recv_into(self, buffer: bytearray) -> int:
        """Acknowledge all datagrams, and copy the frames that are in order into the buffer. Returns 0 at the end.

        Raises BlockingIOError if no frame is in order, and OSError if the server has ended.
        """
        found = []
        receive, send, add = self._sock.recv, self._sock.send, self._received.add
        try:
            for _ in range(_RECEIVE_MAX):
                data = receive(READ_BYTES)
                if data[0] == DATA:  # nearly all datagrams to a receiver
                    send(_ACK + data[1:HEADER_BYTES])
                    found.append(add(data))
                else:
                    found.append(self._receive_other(data))
        except BlockingIOError:
            pass
        self._has_received = True
        frames = b"".join(found)
        if self.is_over:
            return 0
        if not frames:
            raise BlockingIOError(errno.EAGAIN, "no new frame")
        buffer[: len(frames)] = frames
        return len(frames)

    def _receive_other(self, data: bytes) -> bytes:
        """Handle an acknowledgement, a command, or a datagram of the handshake."""
        datagram = unpack(data)
        if datagram is None:
            return b""
        now = perf_counter()
        if self._arq is None:
            return self._receive_handshake(datagram, data, now)
        if datagram.kind == ACK:
            self._arq.receive(datagram, now)
            self.send_due(now)
            return b""
        if not datagram.sequence:
            raise ConnectionResetError(errno.ECONNRESET, datagram.payload.decode(errors="replace"))
        if datagram.payload.startswith(_GOODBYE):
            self._last = datagram.sequence
        for _ in range(1 if self._last is None else _LAST_ACKS):
            self._sock.send(_ACK + data[1:HEADER_BYTES])
        return self._received.add(data)

    def _receive_handshake(self, datagram: Datagram, data: bytes, now: float) -> bytes:
        if self._handshake is None:
            return b""
        answer = self._handshake.handle_reply(datagram, now)
        if isinstance(answer, Arq):
            self._arq = answer
            return self._receive_other(data)
        if answer is not None:
            return frame(COMMAND, answer)
        self.send_due(now)
        return b""

    # --- sending ---

    def send(self, data: bytes | memoryview) -> int:
        """Queue frames; ``data`` may end inside one. Returns the number of bytes. Raises BlockingIOError if full."""
        if self.is_over:
            raise BrokenPipeError(errno.EPIPE, "the session is over")
        if len(self._queue) >= _QUEUE_MAX_FRAMES:
            raise BlockingIOError(errno.EAGAIN, "the send queue is full")
        piece = bytes(data[:_SEND_MAX_BYTES])
        self._queue.extend(self._frames.split(piece))
        now = perf_counter()
        if self._handshake is None and self._queue:
            _, name = self._queue.popleft()
            self._handshake = UdpHandshake(name, now)
        self.send_due(now)
        return len(piece)

    def send_due(self, now: float) -> None:
        """Send queued frames as the window allows, and overdue retransmissions."""
        if self._arq is not None:
            self._send_all(self._arq.datagrams_to_send(now))
            while self._queue and self._arq.may_send:
                self._arq.put([self._queue.popleft()])
                self._send_all(self._arq.datagrams_to_send(now))
        elif self._handshake is not None:
            self._send_all(self._handshake.datagrams_to_send(now))

    def keep_alive(self) -> None:
        """Send a PING if nothing was received since the last call: each acknowledgement keeps the session alive."""
        if self.is_open and not self._has_received:
            self.send(_KEEP_ALIVE)
        self._has_received = False

    def log_out(self) -> None:
        """Ask the server to end the session. :meth:`recv_into` then returns 0."""
        if self.is_open:
            self.send(_LOG_OUT)

    def _send_all(self, datagrams: list[bytes]) -> None:
        for each in datagrams:
            try:
                self._sock.send(each)
            except BlockingIOError:  # counts as a lost datagram, which is resent
                return
