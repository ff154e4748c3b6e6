"""The UDP transport: one session over the shared UDP socket, with the interface of a TCP transport.

States: open; ended (:meth:`~UdpTransport.end`: nothing more is written, and unacknowledged frames are still resent);
lost (the listener's timeout check) or hung up (:meth:`~UdpTransport.hang_up`): nothing more is sent; closed
(:meth:`~UdpTransport.close`: the listener forgets it). A reader sees the end if the inbox is empty and the transport is
lost, hung up, or ended with everything acknowledged.

Threads. The listener calls ``deliver``, ``receive`` and ``check_timeouts``. One reader calls ``read``. The sender calls
``write``, ``flush``, ``end`` and ``close``. If a write takes less than it was given, ``_was_partial`` is set, and the
next ``receive`` that makes room wakes the sender. ``check_timeouts`` wakes it for retransmissions, which ``flush``
sends.

``_lock`` guards the state. Datagrams are sent and ``_wake`` is called without it. The order of datagrams does not
matter, because the ARQ numbers them.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING, TypeAlias

from chatprotocol.limits import FRAME_MAX_BYTES
from chatprotocol.udp.arq import SILENCE_SECONDS, Arq
from chatprotocol.wire.readers import ANY_KIND, FrameBuffer, frame

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from chatprotocol.udp.arq import Frame
    from chatprotocol.udp.packet import Datagram

# Maximum unread data per session: above it, datagrams are not acknowledged, so the peer resends them later. Datagrams
# that arrive out of order do not count; see chatprotocol.udp.arq.RECEIVE_WINDOW.
_INBOX_MAX_BYTES = 64 * 1024
# Maximum bytes per write. The rest stays in the broadcast buffer, which all sessions share.
_WRITE_MAX_BYTES = 16 * 1024


# A peer's address in the form of the socket module.
Address: TypeAlias = "tuple[object, ...]"


class UdpTransport:
    """One session's frames in both directions, each exactly once and in order, over a socket shared by all sessions."""

    __slots__ = (
        "_arq",
        "_clock",
        "_ended",
        "_frames",
        "_hung_up",
        "_inbox",
        "_inbox_bytes",
        "_inbox_max_bytes",
        "_lock",
        "_readable",
        "_sock",
        "_wake",
        "_was_partial",
        "address",
        "closed",
        "label",
        "lost_reason",
        "opened_at",
        "opening",
        "write_max_bytes",
    )

    is_socket = False
    descriptor = -1

    def __init__(
        self,
        sock: socket.socket,
        address: Address,
        session: int,
        opening: bytes,
        *,
        silence_seconds: float = SILENCE_SECONDS,
        inbox_max_bytes: int = _INBOX_MAX_BYTES,
        write_max_bytes: int = _WRITE_MAX_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.address = address
        # The text of the peer's opening, and its time of arrival.
        self.opening = opening
        self.opened_at = clock()
        self.write_max_bytes = write_max_bytes
        # The connection's name in the log.
        self.label = ""
        self._sock = sock
        self._clock = clock
        self._inbox_max_bytes = inbox_max_bytes
        # Set when the send queue is created.
        self._wake: Callable[[], None] = _do_nothing
        # Written by the sender, or by the reader if there is no send queue. The listener reads it without the lock: a
        # stale value only delays the removal.
        self.closed = False
        # The reason why the peer is lost, or empty.
        self.lost_reason = ""
        # Guards everything below and ``lost_reason``. The condition is notified when the reader can continue.
        self._lock = threading.Lock()
        self._readable = threading.Condition(self._lock)
        self._arq = Arq(session, self.opened_at, silence_seconds=silence_seconds)
        # Holds the written part of an incomplete frame.
        self._frames = FrameBuffer(ANY_KIND, FRAME_MAX_BYTES)
        self._inbox: deque[bytes] = deque()
        self._inbox_bytes = 0
        # True if the last write took less than it was given.
        self._was_partial = False
        self._ended = False
        self._hung_up = False

    @property
    def session(self) -> int:
        """The session number."""
        return self._arq.session

    # --- for the listener's thread ---

    def deliver(self, frames: Sequence[Frame]) -> None:
        """Pass frames to the reader."""
        with self._lock:
            self._add_to_inbox(frames)

    def receive(self, datagram: Datagram, now: float) -> None:
        """Process a datagram of this session: acknowledge it, and pass complete frames to the reader."""
        with self._lock:
            has_room = self._inbox_bytes < self._inbox_max_bytes
            result = self._arq.receive(datagram, now, has_room=has_room)
            if result.frames:
                self._add_to_inbox(result.frames)
            can_write = (self._was_partial or self._arq.has_unsent) and self._arq.may_send
            if self._ended and not self._arq.unacknowledged_bytes:  # the reader and the sender wait for the last ack
                can_write = True
                self._readable.notify()
        self._send(result.acks)
        if can_write:
            self._wake()

    def check_timeouts(self, now: float) -> str:
        """Wake the sender if a retransmission is pending. Returns the reason if the peer has just been lost, or ""."""
        # Read without the lock: next_check_at is a hint, and a stale value costs a check or delays it by a tick. Only
        # this thread writes lost_reason.
        if now < self._arq.next_check_at or self.lost_reason:  # nothing to do yet
            return ""
        with self._lock:
            self.lost_reason = self._arq.lost_reason(now)
            if self.lost_reason:
                self._readable.notify()
        self._wake()
        return self.lost_reason

    # --- for the reader ---

    def read(self, size_bytes: int, timeout_seconds: float) -> bytes:
        """Bytes of frames; empty at the end of the session. TimeoutError: nothing arrived in time."""
        with self._lock:
            if not self._readable.wait_for(self._is_readable, timeout_seconds):
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
        """Do nothing: the listener watches the socket."""

    def acknowledge(self) -> None:
        """Do nothing: :meth:`receive` acknowledges each datagram."""

    # --- for the sender ---

    def set_wake(self, wake: Callable[[], None]) -> None:
        """Set the function that wakes the sender."""
        self._wake = wake

    def write(self, pieces: Sequence[bytes | memoryview]) -> int:
        """Take the bytes that fit. BlockingIOError: no room. ConnectionAbortedError: the peer is lost."""
        with self._lock:
            self._check_peer()
            taken_bytes = 0
            for piece in pieces:
                room_bytes = self.write_max_bytes - taken_bytes if self._arq.may_send else 0
                part = bytes(piece[:room_bytes])
                self._arq.put(self._frames.split(part))
                taken_bytes += len(part)
                if len(part) < len(piece):
                    break
            self._was_partial = taken_bytes < sum(map(len, pieces))
            datagrams = self._arq.datagrams_to_send(self._clock())
        self._send(datagrams)
        if not taken_bytes:
            raise BlockingIOError
        return taken_bytes

    def flush(self) -> None:
        """Send new datagrams and retransmissions. ConnectionAbortedError: the peer is lost."""
        with self._lock:
            self._check_peer()
            datagrams = self._arq.datagrams_to_send(self._clock())
        self._send(datagrams)

    def end(self) -> None:
        """Note that nothing more is written. The peer is not informed."""
        with self._lock:
            self._ended = True
            self._readable.notify()

    def hang_up(self) -> None:
        """Let the reader see the end, and let writes fail. For any thread."""
        with self._lock:
            self._hung_up = True
            self._readable.notify()
        self._wake()

    def close(self) -> None:
        """Hang up, and let the listener forget this session."""
        self.hang_up()
        self.closed = True
        self._wake = _do_nothing  # breaks the reference cycle with the send queue

    @property
    def is_lost(self) -> bool:
        """True if the peer is lost."""
        # Read without the lock: the listener sets lost_reason once.
        return bool(self.lost_reason)

    @property
    def can_be_closed(self) -> bool:
        """True if all data is acknowledged: unacknowledged data may need a retransmission."""
        return not self.unacknowledged_bytes()

    def unacknowledged_bytes(self) -> int:
        """Bytes without an acknowledgement. For any thread."""
        with self._lock:
            return self._arq.unacknowledged_bytes

    def acknowledged(self) -> int:
        """Number of written frames that the peer has acknowledged without a gap. For any thread."""
        with self._lock:
            return self._arq.acknowledged

    def written(self) -> int:
        """Number of frames written. For any thread."""
        with self._lock:
            return self._arq.frames_queued

    def _send(self, datagrams: Sequence[bytes]) -> None:
        """Send datagrams. A failed send counts as a lost datagram, which is resent later."""
        for each in datagrams:
            try:
                self._sock.sendto(each, self.address)
            except OSError:
                continue

    # --- the lock is held ---

    def _add_to_inbox(self, frames: Sequence[Frame]) -> None:
        if not self._hung_up:
            data = b"".join([frame(*each) for each in frames])
            self._inbox.append(data)
            self._inbox_bytes += len(data)
            self._readable.notify()

    def _is_readable(self) -> bool:
        is_done = self._ended and not self._arq.unacknowledged_bytes
        return bool(self._inbox or self.lost_reason or self._hung_up or is_done)

    def _check_peer(self) -> None:
        if self.lost_reason or self._hung_up:
            raise ConnectionAbortedError(self.lost_reason)


def _do_nothing() -> None:
    """Do nothing: there is no send queue."""
