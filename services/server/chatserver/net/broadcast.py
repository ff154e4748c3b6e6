"""A stream: everything that everybody hears in one dialect, encoded once, and the cursors' way through it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, NamedTuple

from chatserver.net.memory_file import SEGMENT_BYTES, MemoryFile

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from chatprotocol.events import Event, Run

# The journal may be this far ahead of what the courier has offered to every socket. More would only make slices that
# fall out of the processor's cache; less would make it wait for nothing.
AHEAD_MAX_BYTES = 256 * 1024
# One send takes no more of the stream than this, so that no connection holds the courier for long.
SEND_MAX_BYTES = 256 * 1024
# From this size on, letting the kernel send from memory that all sockets share costs less than copying for each.
SPAN_MIN_BYTES = 32 * 1024


class Span(NamedTuple):
    """The stream's bytes from ``start`` to ``end``."""

    start: int
    end: int


class BroadcastBuffer:
    """Bytes with positions that only grow. What is older than ``kept_bytes`` is forgotten.

    The feed appends, and shows what it appended once the edits to it are in place. The courier reads up to :attr:`end`.
    """

    def __init__(self, encode: Callable[[Sequence[Event | Run]], bytes], kept_bytes: int) -> None:
        self.encode = encode
        self._kept_bytes = kept_bytes
        # The feed's own, under its lock: appended and not shown yet.
        self._staged: list[bytes] = []
        self._tail = 0
        # What was shown: the feed writes it, the courier reads and forgets it.
        self._file = MemoryFile(kept_bytes)
        # Guards everything below; notified when the courier has gone round.
        self._offering = threading.Condition()
        self._end = 0
        self._offered = 0
        self._beside = 0
        self._abandoned = False
        self._followers = 0

    @property
    def followed(self) -> bool:
        """Is anybody listening in this dialect?"""
        return self._followers > 0

    @property
    def tail(self) -> int:
        """Where the next event will begin. Under the feed's lock."""
        return self._tail

    @property
    def end(self) -> int:
        """What lies before this position may be sent."""
        return self._end

    def append(self, events: Sequence[Event | Run]) -> tuple[int, int]:
        """Encode events behind the others, unseen until :meth:`show`; where they begin and end."""
        data = self.encode(events)
        start = self._tail
        if data:  # the dialect may have no word for it
            self._staged.append(data)
            self._tail = start + len(data)
        return start, self._tail

    def flush(self) -> None:
        """Let everything that was appended be seen."""
        if self._staged:
            self._file.append(b"".join(self._staged))
            self._staged.clear()
            with self._offering:
                self._end = self._tail

    def wait_for_sender(self, ahead_max_bytes: int = AHEAD_MAX_BYTES, limit_seconds: float | None = None) -> None:
        """Wait while the courier has more than this still to offer, but for no longer than the limit.

        Without a size it is what writers may be ahead of the courier: they may not run away from it.
        """

        def is_near() -> bool:
            return self._abandoned or self._end - self._offered + self._beside <= ahead_max_bytes

        if not is_near():
            with self._offering:
                self._offering.wait_for(is_near, limit_seconds)

    def note_behind(self, size_bytes: int) -> None:
        """So much was put into outboxes beside the stream: the courier has that to offer, too."""
        with self._offering:
            self._beside += size_bytes

    def abandon(self) -> None:
        """The courier has ended: let nobody wait for it."""
        with self._offering:
            self._abandoned = True
            self._offering.notify_all()

    def close(self) -> None:
        """Nobody writes or reads any more."""
        self._file.close()

    def add_follower(self) -> int:
        """From now on somebody is due what is shown; returns the position where that begins."""
        with self._offering:
            self._followers += 1
            return self._end

    def remove_follower(self) -> int:
        """Somebody is due nothing from the returned position on."""
        with self._offering:
            self._followers -= 1
            return self._end

    # --- for the courier ---

    def offered(self, end: int) -> None:
        """Everything up to here was offered to every follower, and what was beside it."""
        with self._offering:
            self._offered = end
            self._beside = 0
            self._offering.notify_all()
        self._file.forget(end - self._kept_bytes)

    @property
    def offered_upto(self) -> int:
        """What lies before was offered to every follower; whoever is in step then was sent it. For any thread."""
        return self._offered

    def slice(self, start: int, end: int) -> bytes:
        """The bytes from start to end. LookupError: they were forgotten."""
        return self._file.read(start, end)

    def span(self, start: int, end: int) -> Span:
        """What one send may take of the bytes from start to end: it ends with its segment at the latest."""
        return Span(start, min(end, start + SEND_MAX_BYTES, (start // SEGMENT_BYTES + 1) * SEGMENT_BYTES))

    def send(self, descriptor: int, span: Span) -> int:
        """Send what a socket takes of these bytes; returns how many. LookupError: they were forgotten."""
        return self._file.send(descriptor, *span)
