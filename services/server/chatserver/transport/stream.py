"""A stream: everything that everybody hears in one dialect, encoded once, and the cursors' way through it."""

from __future__ import annotations

import threading
from bisect import bisect_right
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from chatprotocol.events import Event
    from chatserver.transport.outbox import Outbox

# The journal may be this far ahead of what the courier has offered to every socket. More would only make slices that
# fall out of the processor's cache; less would make it wait for nothing.
AHEAD_MAX_BYTES = 256 * 1024


class Stream:
    """Bytes with positions that only grow. What is older than ``kept_bytes`` is forgotten.

    The feed appends, and shows what it appended once the edits to it are in place. Outboxes read up to :attr:`end`.
    Chunks are never changed, so reading needs no copy and no lock but the one around the list of them.
    """

    def __init__(self, encode: Callable[[Event], bytes], kept_bytes: int) -> None:
        self.encode = encode
        self._kept_bytes = kept_bytes
        # The feed's own, under its lock: appended and not shown yet.
        self._hidden: list[bytes] = []
        self._tail = 0
        # Guards everything below; notified when the courier has gone round.
        self._offering = threading.Condition()
        self._starts: list[int] = []
        self._chunks: list[bytes] = []
        self._end = 0
        self._offered = 0
        self._beside = 0
        self._abandoned = False
        self._joined = (0, 0, b"")
        self._followers: set[Outbox] = set()

    @property
    def followed(self) -> bool:
        """Is anybody listening in this dialect?"""
        return bool(self._followers)

    @property
    def tail(self) -> int:
        """Where the next event will begin. Under the feed's lock."""
        return self._tail

    @property
    def end(self) -> int:
        """What lies before this position may be sent."""
        return self._end

    def append(self, event: Event) -> tuple[int, int]:
        """Encode an event behind the others, unseen until :meth:`show`; where it begins and ends."""
        data = self.encode(event)
        start = self._tail
        self._hidden.append(data)
        self._tail = start + len(data)
        return start, self._tail

    def show(self) -> None:
        """Let everything that was appended be seen."""
        if not self._hidden:
            return
        chunk = b"".join(self._hidden)
        self._hidden.clear()
        with self._offering:
            self._starts.append(self._end)
            self._chunks.append(chunk)
            self._end = self._tail
            self._forget()

    def wait_for_courier(self) -> None:
        """Wait while the courier has more than its share still to offer: writers may not run away from it."""
        with self._offering:
            self._offering.wait_for(
                lambda: self._abandoned or self._end - self._offered + self._beside <= AHEAD_MAX_BYTES
            )

    def note_beside(self, size_bytes: int) -> None:
        """So much was put into outboxes beside the stream: the courier has that to offer, too."""
        with self._offering:
            self._beside += size_bytes

    def abandon(self) -> None:
        """The courier has ended: let nobody wait for it."""
        with self._offering:
            self._abandoned = True
            self._offering.notify_all()

    def has_news(self, end: int) -> bool:
        """Is there something up to here that was not offered to the followers yet? For the courier."""
        return end > self._offered

    def offered(self, end: int) -> None:
        """Everything up to here was offered to every follower, and what was beside it. For the courier."""
        with self._offering:
            self._offered = end
            self._beside = 0
            self._offering.notify_all()

    def add_follower(self, outbox: Outbox) -> int:
        """From now on the outbox is due what is shown; returns the position where that begins."""
        with self._offering:
            self._followers.add(outbox)
            return self._end

    def remove_follower(self, outbox: Outbox) -> int:
        """The outbox is due nothing from the returned position on."""
        with self._offering:
            self._followers.discard(outbox)
            return self._end

    def followers(self) -> list[Outbox]:
        """Everybody who listens now."""
        with self._offering:
            return list(self._followers)

    def slice(self, start: int, end: int) -> bytes | memoryview:
        """The bytes from start to end. Neighbours ask for the same: the last answer is kept."""
        with self._offering:
            if self._joined[:2] == (start, end):
                return self._joined[2]
            first = bisect_right(self._starts, start) - 1
            if first < 0:
                raise LookupError(f"The stream has forgotten position {start}.")
            skipped = start - self._starts[first]
            chunks = self._chunks[first : bisect_right(self._starts, end - 1)]
        if len(chunks) == 1:
            return memoryview(chunks[0])[skipped : skipped + end - start]
        joined = b"".join(chunks)[skipped : skipped + end - start]
        self._joined = (start, end, joined)
        return joined

    def _forget(self) -> None:
        """Drop the chunks that nobody can ask for: who is so far behind is disconnected. The lock is held."""
        keep_from = bisect_right(self._starts, self._end - self._kept_bytes) - 1
        if keep_from > 0:
            del self._starts[:keep_from]
            del self._chunks[:keep_from]
