"""The UDP transport: one session over the shared UDP socket, with the interface of a TCP transport.

The session (chatprotocol.udp.session) computes; this class adds the socket, the threads and the end of writing. States:
open; ended (:meth:`~UdpTransport.end`: nothing more is written, and unacknowledged frames are still resent); the
session is LOST (the listener's timeout check) or CLOSED (:meth:`~UdpTransport.hang_up`): nothing more is sent; closed
(:meth:`~UdpTransport.close`: the listener forgets it). A reader sees the end if there is no input and the session is
LOST or CLOSED, or the transport ended with everything acknowledged.

Threads. The listener calls ``receive`` and ``check_timeouts``. One reader calls ``read``. The sender calls ``write``,
``flush``, ``end`` and ``close``. If a write takes less than it was given, ``_was_partial`` is set, and the next
``receive`` that makes room wakes the sender. ``check_timeouts`` wakes it for retransmissions, which ``flush`` sends.

``_lock`` guards the session. Datagrams are sent and ``_wake`` is called without it. The order of datagrams does not
matter, because the session numbers them.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, TypeAlias

from chatprotocol.udp.arq import SILENCE_SECONDS
from chatprotocol.udp.session import INPUT_MAX_BYTES, SessionState, UdpSession
from chatprotocol.wire.readers import frame
from chatprotocol.wire.steps import COMMAND

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from chatprotocol.udp.packet import Datagram

# Maximum bytes per write. The rest stays in the broadcast buffer, which all sessions share.
_WRITE_MAX_BYTES = 16 * 1024


# A peer's address in the form of the socket module.
Address: TypeAlias = "tuple[object, ...]"


class UdpTransport:
    """One session's frames in both directions, each exactly once and in order, over a socket shared by all sessions."""

    is_socket = False
    is_plain = False
    descriptor = -1
    # At most a window of a few frames waits for the peer.
    unsent_bytes = 0

    def __init__(
        self,
        sock: socket.socket,
        address: Address,
        number: int,
        opening: bytes,
        *,
        silence_seconds: float = SILENCE_SECONDS,
        input_max_bytes: int = INPUT_MAX_BYTES,
        write_max_bytes: int = _WRITE_MAX_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``opening`` is the text of the peer's opening: the session's first frame."""
        self.address = address
        self.number = number
        self.opening = opening
        self.opened_at = clock()
        self.write_max_bytes = write_max_bytes
        # The connection's name in the log.
        self.label = ""
        self._sock = sock
        self._clock = clock
        # Set when the send queue is created.
        self._wake: Callable[[], None] = _do_nothing
        # Written by the sender, or by the reader if there is no send queue. The listener reads it without the lock: a
        # stale value only delays the removal.
        self.closed = False
        # Guards everything below. The condition is notified when the reader can continue.
        self._lock = threading.Lock()
        self._readable = threading.Condition(self._lock)
        self._session = UdpSession(
            number,
            self.opened_at,
            silence_seconds=silence_seconds,
            input_max_bytes=input_max_bytes,
            first_input=frame(COMMAND, opening),
        )
        # True if the last write took less than it was given.
        self._was_partial = False
        self._ended = False

    # --- for the listener's thread ---

    def receive(self, datagram: Datagram, now: float) -> None:
        """Process a datagram of this session: acknowledge it, and pass complete frames to the reader."""
        with self._lock:
            acks = self._session.receive(datagram, now)
            arq = self._session.arq
            can_write = (self._was_partial or arq.has_unsent) and arq.may_send
            is_done = self._ended and not arq.unacknowledged_bytes  # the reader and the sender wait for the last ack
            if self._session.has_input or is_done:
                self._readable.notify()
        self._send(acks)
        if can_write or is_done:
            self._wake()

    def check_timeouts(self, now: float) -> str:
        """Wake the sender if a retransmission is pending. Returns the reason if the peer has just been lost, or ""."""
        # Read without the lock: next_check_at is a hint, and a stale value costs a check or delays it by a tick. Only
        # this thread sets the state LOST.
        if now < self._session.next_check_at or self.is_lost:  # nothing to do yet
            return ""
        with self._lock:
            is_lost = self._session.check_peer(now)
            if is_lost:
                self._readable.notify()
        self._wake()
        return self._session.lost_reason if is_lost else ""

    # --- for the reader ---

    def read(self, size_bytes: int, timeout_seconds: float) -> bytes:
        """Bytes of frames; empty at the end of the session. TimeoutError: nothing arrived in time."""
        with self._lock:
            if not self._readable.wait_for(self._is_readable, timeout_seconds):
                raise TimeoutError
            return self._session.read(size_bytes)

    def note_login(self) -> None:
        """Do nothing: the listener wakes the readers."""

    def stop_reading(self) -> None:
        """Do nothing: the listener watches the socket."""

    def acknowledge(self) -> None:
        """Do nothing: :meth:`receive` acknowledges each datagram."""

    # --- for the sender ---

    def set_wake(self, wake: Callable[[], None]) -> None:
        self._wake = wake

    def write(self, pieces: Sequence[bytes | memoryview]) -> int:
        """Take the bytes that fit. BlockingIOError: no room. ConnectionAbortedError: the peer is lost."""
        with self._lock:
            self._check_peer()
            room_bytes = self.write_max_bytes if self._session.arq.may_send else 0
            taken = bytearray()
            for piece in pieces:
                taken += piece[: room_bytes - len(taken)]
            self._was_partial = len(taken) < sum(map(len, pieces))
            datagrams = self._session.write(bytes(taken), self._clock())
        self._send(datagrams)
        if not taken:
            raise BlockingIOError
        return len(taken)

    def flush(self) -> None:
        """Send new datagrams and retransmissions. ConnectionAbortedError: the peer is lost."""
        with self._lock:
            self._check_peer()
            datagrams = self._session.datagrams_to_send(self._clock())
        self._send(datagrams)

    def end(self) -> None:
        """Note that nothing more is written. The peer is not informed."""
        with self._lock:
            self._ended = True
            self._readable.notify()

    def hang_up(self) -> None:
        with self._lock:
            self._session.close()
            self._readable.notify()
        self._wake()

    def close(self) -> None:
        """Hang up, and let the listener forget this session."""
        self.hang_up()
        self.closed = True
        self._wake = _do_nothing  # breaks the reference cycle with the send queue

    @property
    def is_lost(self) -> bool:
        # Read without the lock: the state LOST is final.
        return self._session.state is SessionState.LOST

    @property
    def has_ended(self) -> bool:
        """True if the session is over: a peer can't close one side of it."""
        # Read without the lock, as in is_lost.
        return self._session.state is not SessionState.OPEN

    @property
    def can_be_closed(self) -> bool:
        """True if all data is acknowledged: unacknowledged data may need a retransmission."""
        return not self.unacknowledged_bytes()

    def unacknowledged_bytes(self) -> int:
        """Bytes without an acknowledgement. For any thread."""
        with self._lock:
            return self._session.arq.unacknowledged_bytes

    def acknowledged(self) -> int:
        """Number of written frames that the peer has acknowledged without a gap. For any thread."""
        with self._lock:
            return self._session.arq.acknowledged

    def written(self) -> int:
        """Number of frames written. For any thread."""
        with self._lock:
            return self._session.arq.frames_queued

    def _send(self, datagrams: Sequence[bytes]) -> None:
        """Send datagrams. A failed send counts as a lost datagram, which is resent later."""
        for each in datagrams:
            try:
                self._sock.sendto(each, self.address)
            except OSError:
                continue

    # --- the lock is held ---

    def _is_readable(self) -> bool:
        is_done = self._ended and not self._session.arq.unacknowledged_bytes
        return self._session.has_input or self._session.state is not SessionState.OPEN or is_done

    def _check_peer(self) -> None:
        if self._session.state is not SessionState.OPEN:
            raise ConnectionAbortedError(self._session.lost_reason)


def _do_nothing() -> None:
    """Do nothing: there is no send queue."""
