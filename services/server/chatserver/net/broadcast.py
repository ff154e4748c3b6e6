"""The broadcast buffer of one protocol: public messages, encoded once and stored once for all connections."""

from __future__ import annotations

import threading
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
# Maximum pieces per send: one connection must not occupy the sender for long.
SEND_MAX_PIECES = 128


class SendLimits(NamedTuple):
    """Limits of one send, shared by a buffer and the send queues that follow it."""

    segment_bytes: int = SEGMENT_BYTES
    send_max_bytes: int = SEND_MAX_BYTES
    span_min_bytes: int = SPAN_MIN_BYTES
    send_max_pieces: int = SEND_MAX_PIECES


_LIMITS = SendLimits()


class Span(NamedTuple):
    """The buffer's bytes from ``start`` to ``end``."""

    start: int
    end: int


class BroadcastBuffer:
    """Bytes at growing positions. Data that is older than ``kept_bytes`` is discarded.

    The hub appends events, adds the edits to the send queues, and then flushes. The sender reads up to :attr:`end`.
    """

    def __init__(
        self, encode: Callable[[Sequence[Event | EventBatch]], bytes], kept_bytes: int, limits: SendLimits = _LIMITS
    ) -> None:
        self.encode = encode
        self.limits = limits
        self._kept_bytes = kept_bytes
        # Data that is appended and not flushed yet. For the hub, under its lock.
        self._staged: list[bytes] = []
        self._tail = 0
        # The flushed data: the hub appends, the sender reads and discards.
        self._file = MemoryFile(kept_bytes, limits.segment_bytes)
        # Guards everything below; notified after each round of the sender.
        self._progress = threading.Condition()
        self._end = 0
        self._offered = 0
        self._inserted_bytes = 0
        self._sender_ended = False
        self._followers = 0

    @property
    def has_followers(self) -> bool:
        """True if a connection follows this buffer."""
        return self._followers > 0

    @property
    def tail(self) -> int:
        """Position of the next event. Read it under the hub's lock."""
        return self._tail

    @property
    def end(self) -> int:
        """End of the flushed data, which may be sent."""
        return self._end

    def append(self, events: Sequence[Event | EventBatch]) -> tuple[int, int]:
        """Encode events and stage them until :meth:`flush`; returns the positions of their start and end."""
        data = self.encode(events)
        start = self._tail
        if data:  # the protocol may be unable to express the events
            self._staged.append(data)
            self._tail = start + len(data)
        return start, self._tail

    def flush(self) -> None:
        """Make all appended events available to the sender."""
        if self._staged:
            self._file.append(b"".join(self._staged))
            self._staged.clear()
            with self._progress:
                self._end = self._tail

    def wait_for_sender(self, ahead_max_bytes: int = AHEAD_MAX_BYTES, limit_seconds: float | None = None) -> None:
        """Wait until at most ``ahead_max_bytes`` are not offered to the followers yet, or until the time limit."""

        def is_close_enough() -> bool:
            return self._sender_ended or self._end - self._offered + self._inserted_bytes <= ahead_max_bytes

        if not is_close_enough():
            with self._progress:
                self._progress.wait_for(is_close_enough, limit_seconds)

    def note_inserted(self, size_bytes: int) -> None:
        """Count data that was inserted into send queues: the sender must send it as well."""
        with self._progress:
            self._inserted_bytes += size_bytes

    def note_sender_end(self) -> None:
        """Release all threads that wait for the sender, which has ended."""
        with self._progress:
            self._sender_ended = True
            self._progress.notify_all()

    def close(self) -> None:
        """Free the memory. No thread may use the buffer afterwards."""
        self._file.close()

    def add_follower(self) -> int:
        """Count a new follower; returns the position at which following begins."""
        with self._progress:
            self._followers += 1
            return self._end

    def remove_follower(self) -> int:
        """Count a follower that leaves; returns the position at which following ends."""
        with self._progress:
            self._followers -= 1
            return self._end

    # --- for the sender ---

    def note_offered(self, end: int) -> None:
        """Record that everything up to this position, and all insertions, were offered to all followers."""
        with self._progress:
            self._offered = end
            self._inserted_bytes = 0
            self._progress.notify_all()
        self._file.discard_before(end - self._kept_bytes)

    @property
    def offered_end(self) -> int:
        """Position up to which the data was offered to all followers, and sent to caught-up ones. For any thread."""
        return self._offered

    def slice(self, start: int, end: int) -> bytes:
        """The bytes from start to end. LookupError: they were discarded."""
        return self._file.read(start, end)

    def span(self, start: int, end: int) -> Span:
        """The first part of the bytes from start to end that one send may take; it ends with the segment at most."""
        limits = self.limits
        segment_end = (start // limits.segment_bytes + 1) * limits.segment_bytes
        return Span(start, min(end, start + limits.send_max_bytes, segment_end))

    def send(self, descriptor: int, span: Span) -> int:
        """Send these bytes to a socket; returns the number of bytes sent. LookupError: they were discarded. OSError."""
        return self._file.send(descriptor, *span)
