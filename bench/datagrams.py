"""Frames over UDP, behind the face of a connected socket: what is lost is sent again, what comes twice counts once."""

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
from chatprotocol.wire.frames_text import COMMAND, DATA
from chatprotocol.wire.readers import FrameBuffer, frame

if TYPE_CHECKING:
    from chatprotocol.udp.arq import Frame
    from chatprotocol.udp.packet import Datagram

# So often it is to be looked what must be sent again.
TEND_SECONDS: Final = 0.05
# Who has said nothing for so long says that it is still there; a server waits 60 s.
STAY_SECONDS: Final = 15.0
# Room for what comes while others are read: a server has 64 datagrams under way, and may send them twice.
_KEPT_BYTES: Final = 1024 * 1024
# Received in a row; then it is the others' turn.
_READ_MAX: Final = 64
# Said and not sent yet: about what a socket of TCP takes. And how much is looked at in one piece.
_QUEUE_MAX_FRAMES: Final = 2_048
_SAY_MAX_BYTES: Final = 16 * 1024
# The last answer can't be asked for again: whoever has said it knows that it came from these.
_LAST_ACKS: Final = 3
_ACK: Final = bytes([ACK])
_STAY: Final = frame(COMMAND, b"PING")
_LEAVE: Final = frame(COMMAND, b"EX")
_LEFT: Final = b"BYE"


class Inbox:
    """What has come in one session: each datagram once, and in order. Pure, and cheaper than chatprotocol.udp.arq.

    A load comes to fewer than 2**32 datagrams, so a number is never used twice.
    """

    def __init__(self) -> None:
        # The number of the one that is next in order.
        self.next = 1
        # Frames that have come before their time, by their number.
        self._early: dict[int, bytes] = {}

    def take(self, data: bytes) -> bytes:
        """The frames that are next with this datagram; none when it came before, or is too early."""
        number = int.from_bytes(data[HEADER_BYTES - 4 : HEADER_BYTES], "big")
        whole = frame(data[0], data[HEADER_BYTES:])
        if number != self.next:
            if number > self.next:
                self._early[number] = whole
            return b""
        self.next = number + 1
        while self._early and self.next in self._early:
            whole += self._early.pop(self.next)
            self.next += 1
        return whole


class Link:
    """One session, which takes and gives what a connected, non-blocking socket does: frames, in whichever pieces.

    The first frame that is sent says who it is, and opens the session. Beside that, :meth:`tend` is to be called now
    and then while something is said, and :meth:`stay` while nothing is.
    """

    def __init__(self, port: int, receive_bytes: int = 0) -> None:
        """To 127.0.0.1. ``receive_bytes`` is the size of the system's buffer. Raises OSError."""
        self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes or _KEPT_BYTES)
            self._sock.setblocking(False)
            self._sock.connect(("127.0.0.1", port))
        except BaseException:
            self._sock.close()
            raise
        self._handshake: UdpHandshake | None = None
        # Its sending half, and what it has no room for yet.
        self._arq: Arq | None = None
        self._frames = FrameBuffer(bytes([COMMAND, DATA]), FRAME_MAX_BYTES)
        self._queue: deque[Frame] = deque()
        self._inbox = Inbox()
        # The number of the server's last datagram, once that has come.
        self._last: int | None = None
        self._has_heard = False

    @property
    def is_over(self) -> bool:
        """Has the server said goodbye, and all before it has come?"""
        return self._last is not None and self._last < self._inbox.next

    @property
    def is_open(self) -> bool:
        """Is there a session, which the server has not ended?"""
        return self._arq is not None and not self.is_over

    def fileno(self) -> int:
        """The socket's descriptor, for a poller."""
        return self._sock.fileno()

    def close(self) -> None:
        """Without a word, which over UDP tells the server nothing: see :meth:`leave`."""
        self._sock.close()

    # --- receiving ---

    def recv_into(self, buffer: bytearray) -> int:
        """Acknowledge what has come, and put what is next of it into the buffer, as frames; 0 is the end.

        Raises BlockingIOError when nothing is next, and OSError when the server is not there any more.
        """
        found = []
        receive, send, take = self._sock.recv, self._sock.send, self._inbox.take
        try:
            for _ in range(_READ_MAX):
                data = receive(READ_BYTES)
                if data[0] == DATA:  # nearly all that comes to those who only hear
                    send(_ACK + data[1:HEADER_BYTES])
                    found.append(take(data))
                else:
                    found.append(self._take_other(data))
        except BlockingIOError:
            pass
        self._has_heard = True
        whole = b"".join(found)
        if self.is_over:
            return 0
        if not whole:
            raise BlockingIOError(errno.EAGAIN, "nothing new has come")
        buffer[: len(whole)] = whole
        return len(whole)

    def _take_other(self, data: bytes) -> bytes:
        """An acknowledgement, a command, or what comes before there is a session."""
        datagram = unpack(data)
        if datagram is None:
            return b""
        now = perf_counter()
        if self._arq is None:
            return self._open(datagram, data, now)
        if datagram.kind == ACK:
            self._arq.receive(datagram, now)
            self.tend(now)
            return b""
        if not datagram.sequence:
            raise ConnectionResetError(errno.ECONNRESET, datagram.payload.decode(errors="replace"))
        if datagram.payload.startswith(_LEFT):
            self._last = datagram.sequence
        for _ in range(1 if self._last is None else _LAST_ACKS):
            self._sock.send(_ACK + data[1:HEADER_BYTES])
        return self._inbox.take(data)

    def _open(self, datagram: Datagram, data: bytes, now: float) -> bytes:
        if self._handshake is None:
            return b""
        answer = self._handshake.receive_reply(datagram, now)
        if isinstance(answer, Arq):
            self._arq = answer
            return self._take_other(data)
        if answer is not None:
            return frame(COMMAND, answer)
        self.tend(now)
        return b""

    # --- sending ---

    def send(self, data: bytes | memoryview) -> int:
        """Take frames to be sent; returns how many bytes. Raises BlockingIOError while there is room for none."""
        if self.is_over:
            raise BrokenPipeError(errno.EPIPE, "the session is over")
        if len(self._queue) >= _QUEUE_MAX_FRAMES:
            raise BlockingIOError(errno.EAGAIN, "too much is not acknowledged")
        part = bytes(data[:_SAY_MAX_BYTES])
        self._queue.extend(self._frames.split(part))
        now = perf_counter()
        if self._handshake is None and self._queue:
            _, who = self._queue.popleft()
            self._handshake = UdpHandshake(who, now)
        self.tend(now)
        return len(part)

    def tend(self, now: float) -> None:
        """Send what is due: for the first time, or once more."""
        if self._arq is not None:
            self._send_all(self._arq.due(now))
            while self._queue and self._arq.may_send:
                self._arq.put([self._queue.popleft()])
                self._send_all(self._arq.due(now))
        elif self._handshake is not None:
            self._send_all(self._handshake.due(now))

    def stay(self) -> None:
        """Be there still, if nothing was heard since this was called last: what is heard was acknowledged."""
        if self.is_open and not self._has_heard:
            self.send(_STAY)
        self._has_heard = False

    def leave(self) -> None:
        """Ask for the end, which then comes as that of a connection does."""
        if self.is_open:
            self.send(_LEAVE)

    def _send_all(self, datagrams: list[bytes]) -> None:
        for each in datagrams:
            try:
                self._sock.send(each)
            except BlockingIOError:  # as good as lost on the way: it is sent again
                return
