"""A channel: what a TCP socket is to other connections, to a session over UDP."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING, TypeAlias

from chatprotocol.limits import FRAME_MAX_BYTES
from chatprotocol.udp.arq import Arq
from chatprotocol.wire.readers import ANY_KIND, FrameBuffer, frame

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from chatprotocol.udp.arq import Frame
    from chatprotocol.udp.packet import Datagram

# A peer that sends more than this before it is read is not acknowledged any further, so it sends it again later. (What
# comes before its time is not counted: see chatprotocol.udp.arq.RECEIVE_WINDOW.)
_INBOX_MAX_BYTES = 64 * 1024
# So much is taken from the courier before it is sent; the rest stays in the stream, which there is only once.
_SEND_QUEUE_MAX_BYTES = 16 * 1024


# Of a peer, as the socket has it.
Address: TypeAlias = "tuple[object, ...]"


class UdpTransport:
    """One session's frames both ways, each once and in order, over a socket that it shares with all others.

    The door (see datagram.py) gives it what has come from its address, a reader thread takes that, and the courier
    sends.
    """

    __slots__ = (
        "_arq",
        "_arrived",
        "_ended",
        "_frames",
        "_hung_up",
        "_inbox",
        "_inbox_bytes",
        "_lock",
        "_refused",
        "_sock",
        "_wake",
        "address",
        "closed",
        "label",
        "lost",
        "opened_at",
        "opening",
    )

    is_socket = False
    descriptor = -1
    write_max_bytes = _SEND_QUEUE_MAX_BYTES

    def __init__(self, sock: socket.socket, address: Address, session: int, opening: bytes, now: float) -> None:
        self.address = address
        # What the peer said to get the session, and when.
        self.opening = opening
        self.opened_at = now
        # As the log names it.
        self.label = ""
        self._sock = sock
        # Set once there is an outbox.
        self._wake: Callable[[], None] = _no_session
        # The courier is done with it.
        self.closed = False
        # Why nothing can be said to the peer any more.
        self.lost = ""
        # Guards everything below but for single values, and is notified when the reader has something to read.
        self._lock = threading.Lock()
        self._arrived = threading.Condition(self._lock)
        self._arq = Arq(session, now)
        # What the courier has given of a frame that is not whole yet.
        self._frames = FrameBuffer(ANY_KIND, FRAME_MAX_BYTES)
        self._inbox: deque[bytes] = deque()
        self._inbox_bytes = 0
        # Was something given that there was no room for?
        self._refused = False
        self._ended = False
        self._hung_up = False

    @property
    def session(self) -> int:
        """Its number."""
        return self._arq.session

    # --- for the door's thread ---

    def deliver(self, frames: Sequence[Frame]) -> None:
        """Let the reader have these."""
        with self._lock:
            self._deliver(frames)

    def receive(self, datagram: Datagram, now: float) -> None:
        """A datagram of this session has come from its address: acknowledge it, and let the reader have the next."""
        with self._lock:
            has_room = self._inbox_bytes < _INBOX_MAX_BYTES
            arrival = self._arq.receive(datagram, now, has_room=has_room)
            if arrival.frames:
                self._deliver(arrival.frames)
            can_go_on = (self._refused or self._arq.is_waiting) and self._arq.may_send
            if self._ended and not self._arq.unacknowledged_bytes:  # the reader, and who is to close it, wait for that
                can_go_on = True
                self._arrived.notify()
        self._send(arrival.acks)
        if can_go_on:
            self._wake()

    def check_timeouts(self, now: float) -> str:
        """Is something to be sent again, or is the peer lost? Why, if it was not before."""
        if now < self._arq.look_at or self.lost:  # the first is a single value that others replace
            return ""
        with self._lock:
            self.lost = self._arq.why_lost(now)
            if self.lost:
                self._arrived.notify()
        self._wake()
        return self.lost

    # --- for the reader ---

    def read(self, size_bytes: int, patience_seconds: float) -> bytes:
        """Frames, in whichever pieces; nothing when the peer is lost, or was told the last that there is to tell."""
        with self._lock:
            if not self._arrived.wait_for(self._is_readable, patience_seconds):
                raise TimeoutError
            if not self._inbox:
                return b""
            data = self._inbox.popleft()
            if len(data) > size_bytes:
                self._inbox.appendleft(data[size_bytes:])
                data = data[:size_bytes]
            self._inbox_bytes -= len(data)
            return data

    def stop_reading(self) -> None:
        """Nothing is to be done here."""

    def acknowledge(self) -> None:
        """The datagram door does, whenever something has come."""

    # --- for the courier ---

    def call_when_due(self, wake: Callable[[], None]) -> None:
        """From then on it is woken."""
        self._wake = wake

    def write(self, pieces: Sequence[bytes | memoryview]) -> int:
        """Take frames to be sent, as many as there is room for."""
        with self._lock:
            self._check_peer()
            taken_bytes = 0
            for piece in pieces:
                room_bytes = _SEND_QUEUE_MAX_BYTES - taken_bytes if self._arq.may_send else 0
                part = bytes(piece[:room_bytes])
                self._arq.put(self._frames.split(part))
                taken_bytes += len(part)
                if len(part) < len(piece):
                    break
            self._refused = taken_bytes < sum(map(len, pieces))
            due = self._arq.due(time.monotonic())
        self._send(due)
        if not taken_bytes:
            raise BlockingIOError
        return taken_bytes

    def flush(self) -> None:
        """Send what may be sent now, for the first time or once more."""
        with self._lock:
            self._check_peer()
            due = self._arq.due(time.monotonic())
        self._send(due)

    def end(self) -> None:
        """Nothing more will be written. Over UDP there is no word for it."""
        with self._lock:
            self._ended = True
            self._arrived.notify()

    def hang_up(self) -> None:
        """Let the reader see the end, and the courier that nothing more can be sent. For any thread."""
        with self._lock:
            self._hung_up = True
            self._arrived.notify()
        self._wake()

    def close(self) -> None:
        """The door forgets it."""
        self.hang_up()
        self.closed = True
        self._wake = _no_session  # it refers to the outbox, which refers to this

    @property
    def can_be_closed(self) -> bool:
        """What is not acknowledged must be sent again."""
        return not self.unacknowledged_bytes()

    def unacknowledged_bytes(self) -> int:
        """What the peer has perhaps not got. For any thread."""
        with self._lock:
            return self._arq.unacknowledged_bytes

    def acknowledged(self) -> int:
        """How many frames the peer has of those that were written, without a gap. For any thread."""
        with self._lock:
            return self._arq.acknowledged

    def written(self) -> int:
        """How many frames were written. For any thread."""
        with self._lock:
            return self._arq.put_in_all

    def _send(self, datagrams: Sequence[bytes]) -> None:
        """What can't be sent now is as good as lost on the way: it is sent again."""
        for each in datagrams:
            try:
                self._sock.sendto(each, self.address)
            except OSError:
                continue

    # --- the lock is held ---

    def _deliver(self, frames: Sequence[Frame]) -> None:
        if not self._hung_up:
            data = b"".join([frame(*each) for each in frames])
            self._inbox.append(data)
            self._inbox_bytes += len(data)
            self._arrived.notify()

    def _is_readable(self) -> bool:
        is_told = self._ended and not self._arq.unacknowledged_bytes
        return bool(self._inbox or self.lost or self._hung_up or is_told)

    def _check_peer(self) -> None:
        if self.lost or self._hung_up:
            raise ConnectionAbortedError(self.lost)


def _no_session() -> None:
    """There is no outbox yet."""
