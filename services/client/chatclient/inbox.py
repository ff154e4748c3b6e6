"""What waits to be used by a program, or by the reactor. A server can't make either of them grow without end.

The inbox makes the collector wait: while it does, the socket is not read, and a server that has too much for this
client disconnects it, as it does with everybody who does not read. The backlog holds what happened while the program
waited for something else; there the oldest is dropped, because the answer that is waited for comes behind it.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from typing import Any, Final

from msgspec import Struct

# Of each of the two, in memory. The longest history, 500 messages of 8,192 bytes, is a quarter of it.
WAITING_MAX_BYTES: Final = 16 * 1024 * 1024
# About what an object takes in memory besides its contents.
_OBJECT_BYTES: Final = 64


def size_bytes(given: object) -> int:
    """About how much memory it takes."""
    if isinstance(given, str):
        return _OBJECT_BYTES + (len(given) if given.isascii() else 4 * len(given))
    if isinstance(given, tuple):
        return _OBJECT_BYTES + sum(8 + size_bytes(each) for each in given)
    if isinstance(given, Struct):
        return _OBJECT_BYTES + sum(size_bytes(getattr(given, name)) for name in given.__struct_fields__)
    return _OBJECT_BYTES


class Inbox:
    """A queue that one thread takes from. What the collector puts is counted, and limited."""

    def __init__(self, max_bytes: int = WAITING_MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._queue: queue.SimpleQueue[tuple[Any, int]] = queue.SimpleQueue()
        # Each is written by one thread only: the collector, and whoever takes.
        self._put_bytes = self._taken_bytes = 0
        # Something was taken since this was cleared, or nothing will be any more.
        self._was_taken = threading.Event()
        self._is_closed = False

    @property
    def is_empty(self) -> bool:
        """True if nothing waits."""
        return self._queue.empty()

    def put(self, given: object) -> None:
        """Put what the program gives itself. For any thread; never waits."""
        self._queue.put((given, 0))

    def put_heard(self, given: object) -> None:
        """Put what was heard. For the collector; waits while too much waits already."""
        while True:
            self._was_taken.clear()
            if self._is_closed or self._put_bytes - self._taken_bytes <= self._max_bytes:
                break
            self._was_taken.wait()
        size = size_bytes(given)
        self._put_bytes += size
        self._queue.put((given, size))

    def get(self, timeout_seconds: float | None = None) -> Any:
        """Take the next one. Raises queue.Empty."""
        given, size = self._queue.get(timeout=timeout_seconds)
        if size:
            self._taken_bytes += size
            self._was_taken.set()
        return given

    def close(self) -> None:
        """Nobody need wait any more."""
        self._is_closed = True
        self._was_taken.set()


class Backlog:
    """What happened and was not looked at yet, oldest first. For one thread."""

    def __init__(self, max_bytes: int = WAITING_MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._kept: deque[tuple[Any, int]] = deque()
        self._kept_bytes = 0
        # How many were dropped since :meth:`take_dropped`.
        self._dropped = 0

    def __bool__(self) -> bool:
        """True if there is one to be taken."""
        return bool(self._kept)

    def add(self, given: object) -> None:
        """Keep it; of too much the oldest are dropped."""
        size = size_bytes(given)
        self._kept.append((given, size))
        self._kept_bytes += size
        while self._kept_bytes > self._max_bytes:
            self.pop_all()
            self._dropped += 1

    def pop_all(self) -> Any:
        """The oldest one."""
        given, size = self._kept.popleft()
        self._kept_bytes -= size
        return given

    def take_dropped(self) -> int:
        """How many were dropped since the last call."""
        dropped, self._dropped = self._dropped, 0
        return dropped
