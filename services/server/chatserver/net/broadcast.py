"""A broadcast buffer: the public messages of one room in one protocol, encoded and stored once for all connections.

Positions grow: ``tail`` is the end of the staged data, ``end`` the end of the flushed data, ``position`` the end of the
data that all caught-up queues have, and ``offered_end`` the value of ``position`` after the last complete round of the
sender. offered_end <= position <= end <= tail. The hub moves ``tail`` and ``end`` under its lock. The sender's thread
alone moves the others.

``position`` is always the end of a flush, hence the end of a message: a queue may follow several buffers, and no data
of another buffer may be sent inside a message.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from chatserver.net.memory_file import SEGMENT_BYTES, MemoryFile

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from chatprotocol.events import Event, EventBatch

# Maximum bytes that the journal publishes ahead of the sender. With more, the data would leave the processor's cache
# before it is sent; with less, the journal would often wait without need.
AHEAD_MAX_BYTES = 256 * 1024
# Maximum bytes per send: one connection must not occupy the sender for long.
SEND_MAX_BYTES = 256 * 1024
# Minimum size for sendfile from shared memory: for less data, a copy per socket costs less.
SPAN_MIN_BYTES = 32 * 1024


class SendLimits(NamedTuple):
    """Limits of one send of a buffer's data."""

    segment_bytes: int = SEGMENT_BYTES
    send_max_bytes: int = SEND_MAX_BYTES
    span_min_bytes: int = SPAN_MIN_BYTES
    descriptors_max: int = sys.maxsize


_LIMITS = SendLimits()
# Limits of rooms other than the lobby. Segments are small, because a quiet room keeps one. A slow follower needs dozens
# of them, and there may be a thousand rooms, so at most two of a room have a descriptor.
ROOM_LIMITS = SendLimits(segment_bytes=256 * 1024, descriptors_max=2)


class Span(NamedTuple):
    """The buffer's bytes from ``start`` to ``end``."""

    start: int
    end: int


class BroadcastBuffer:
    """Bytes at growing positions. Data that is older than ``kept_bytes``, or that all followers have, is discarded.

    The hub appends events, adds its segments to the send queues, and then flushes. The sender reads up to :attr:`end`.
    """

    def __init__(
        self,
        encode: Callable[[Sequence[Event | EventBatch]], bytes],
        kept_bytes: int,
        limits: SendLimits = _LIMITS,
        *,
        is_reserved: bool = True,
    ) -> None:
        """If ``is_reserved``, the descriptors for ``kept_bytes`` are opened at once; else when they are needed."""
        self.limits = limits
        self.is_reserved = is_reserved
        self._encode = encode
        self._kept_bytes = kept_bytes
        self._on_growth: Callable[[BroadcastBuffer], None] = lambda _: None
        # Data that is appended and not flushed yet. For the hub, under its lock.
        self._staged: list[bytes] = []
        # The four positions: see the top of this file. Other threads may read them.
        self.tail = 0
        self.end = 0
        self.position = 0
        self.offered_end = 0
        # The flushed data: the hub appends, the sender reads and discards.
        self._file = MemoryFile(
            kept_bytes if is_reserved else 0, limits.segment_bytes, descriptors_max=limits.descriptors_max
        )
        # Ends of the flushes after the position: the hub appends after it has moved the end, the sender removes.
        self._flushes: deque[int] = deque()
        # Guards everything below; notified after each round of the sender.
        self._progress = threading.Condition()
        self._inserted_bytes = 0
        self._sender_ended = False
        # Number of send queues that follow this buffer, or have unsent data of it. Any thread may read it.
        self.followers = 0

    # --- for the hub, under its lock ---

    def append(self, events: Sequence[Event | EventBatch]) -> tuple[int, int]:
        """Encode events and stage them until :meth:`flush`; returns the positions of their start and end."""
        return self.append_bytes(self._encode(events))

    def append_bytes(self, data: bytes) -> tuple[int, int]:
        """Stage bytes that are encoded already."""
        start = self.tail
        if data:  # the protocol may be unable to express the events
            self._staged.append(data)
            self.tail = start + len(data)
        return start, self.tail

    def flush(self) -> None:
        """Make all appended events available to the sender."""
        if self._staged:
            self._file.append(b"".join(self._staged))
            self._staged.clear()
            with self._progress:
                self.end = self.tail
                self._flushes.append(self.end)
            self._on_growth(self)

    def wait_for_sender(self, ahead_max_bytes: int = AHEAD_MAX_BYTES, limit_seconds: float | None = None) -> None:
        """Wait until at most ``ahead_max_bytes`` are not offered to the followers yet, or until the time limit.

        The caller holds no lock.
        """

        def is_close_enough() -> bool:
            return self._sender_ended or self.end - self.offered_end + self._inserted_bytes <= ahead_max_bytes

        if not is_close_enough():
            with self._progress:
                self._progress.wait_for(is_close_enough, limit_seconds)

    # --- for send queues ---

    def note_inserted(self, size_bytes: int) -> None:
        """Count data that was inserted into a send queue: the sender must send it as well."""
        with self._progress:
            self._inserted_bytes += size_bytes
        self._on_growth(self)

    def add_follower(self) -> int:
        """Count a new follower; returns the position at which following begins."""
        with self._progress:
            self.followers += 1
            return self.end

    def remove_follower(self) -> None:
        """Count a follower that has left and has no unsent data of this buffer."""
        with self._progress:
            self.followers -= 1

    def slice(self, start: int, end: int) -> bytes:
        """The bytes from start to end. LookupError: they were discarded."""
        return self._file.read(start, end)

    def span(self, start: int, end: int) -> Span:
        """The first part of the bytes from start to end that one send may take; it ends with the segment at most."""
        limits = self.limits
        segment_end = (start // limits.segment_bytes + 1) * limits.segment_bytes
        return Span(start, min(end, start + limits.send_max_bytes, segment_end))

    # --- for the sender ---

    def on_growth(self, call: Callable[[BroadcastBuffer], None]) -> None:
        """Set the function that is called after each flush and insertion, under the hub's lock."""
        self._on_growth = call

    def advance(self) -> int:
        """Move the position over the next flushes, as many as one send takes, or one; returns the old position."""
        start = self.position
        limit = start + self.limits.send_max_bytes
        while self._flushes and (self.position == start or self._flushes[0] <= limit):
            self.position = self._flushes.popleft()
        return start

    def note_offered(self, needed_from: int = 0) -> None:
        """Record that everything up to the position, and all insertions, were offered to all followers.

        No follower needs data before ``needed_from``. A new follower begins at the end, after the position.
        """
        with self._progress:
            self.offered_end = self.position
            self._inserted_bytes = 0
            self._progress.notify_all()
        self.discard_before(needed_from)

    @property
    def has_old_data(self) -> bool:
        """True if a segment could be discarded but for the followers."""
        return self._file.oldest_end <= self.position

    @property
    def held_bytes(self) -> int:
        """Bytes that are kept for followers that do not read; an estimate."""
        return self.position - self._file.oldest_start if self.has_old_data else 0

    def discard_before(self, needed_from: int) -> None:
        """Discard the data before ``needed_from``, which no follower needs, and all that is older than kept_bytes.

        Data after the position is kept: new followers do not need it, but the sender reads it for all that it still
        counts as caught up, also for a queue that has just left.
        """
        self._file.discard_before(min(self.position, max(needed_from, self.offered_end - self._kept_bytes)))

    def send(self, descriptor: int, span: Span) -> int:
        """Send these bytes to a socket; returns the number of bytes sent. LookupError: they were discarded. OSError."""
        return self._file.send(descriptor, *span)

    def note_sender_end(self) -> None:
        """Release all threads that wait for the sender, which has ended."""
        with self._progress:
            self._sender_ended = True
            self._progress.notify_all()

    def close(self) -> None:
        """Free the memory. No thread may use the buffer afterwards."""
        self._file.close()
