"""Two buffers between the receiver thread and its consumer: a program or an event loop. Both are limited in size.

A full Inbox blocks the receiver thread. The socket is then not read, and the server disconnects this client like any
client that does not read. A Backlog holds events that happened while a program waited for an answer. A full Backlog
drops the oldest events: the answer arrives after them, so blocking would be a deadlock.

A signal such as that of Ctrl-C raises KeyboardInterrupt in a program between any two instructions. The consumer may
then close the client, so it must not hold a lock: an Event or a Condition, whose code is Python, could stay locked.
"""

import math
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final

from msgspec import Struct

# Maximum size of each buffer in memory: four times the longest history, 500 messages of 8,192 bytes.
WAITING_MAX_BYTES: Final = 16 * 1024 * 1024
# Longest wait of a consumer in one piece. A signal that arrives in the moment before a wait does not interrupt it.
_WAIT_MAX_SECONDS: Final = 1.0
# Approximate memory overhead per object.
_OBJECT_BYTES: Final = 64


def size_bytes(given: object) -> int:
    """Approximate memory size, in bytes."""
    if isinstance(given, str):
        return _OBJECT_BYTES + (len(given) if given.isascii() else 4 * len(given))
    if isinstance(given, tuple):
        return _OBJECT_BYTES + sum(8 + size_bytes(each) for each in given)
    if isinstance(given, dict):  # the tags of a line of IRC
        return _OBJECT_BYTES + sum(_OBJECT_BYTES + size_bytes(key) + size_bytes(each) for key, each in given.items())
    if isinstance(given, Struct):
        return _OBJECT_BYTES + sum(size_bytes(getattr(given, name)) for name in given.__struct_fields__)
    if given is None or isinstance(given, bool):  # one object for all
        return 8
    return _OBJECT_BYTES


class Inbox:
    """A queue with one consumer thread. Only received items count for the limit."""

    def __init__(self, max_bytes: int = WAITING_MAX_BYTES, monotonic: Callable[[], float] = time.monotonic) -> None:
        """``monotonic`` is the clock of :meth:`take`."""
        self._max_bytes = max_bytes
        self._monotonic = monotonic
        self._queue: queue.SimpleQueue[tuple[Any, int]] = queue.SimpleQueue()
        # Without a lock. The counters have one writer each: the receiver thread, and the consumer. put_received() says
        # that it waits before it reads _taken_bytes once more, and get() counts before it asks if anybody waits. So a
        # get() that put_received() has not seen ends the wait.
        self._put_bytes = self._taken_bytes = 0
        self._is_waiting = False
        # An item for each get() while put_received() waits, and for close().
        self._taken: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._is_closed = False
        # Called by put_received() and take(), once until the next take(): wakes an event loop.
        self.wake: Callable[[], None] = lambda: None
        # Held from a wakeup to the next take(): a flag that is tested and set in one step, for which nobody waits. With
        # two wakeups for a turn, each of which causes two more, an event loop would soon do nothing else.
        self._woken = threading.Lock()

    @property
    def is_empty(self) -> bool:
        """True if the queue is empty. For any thread."""
        return self._queue.empty()

    def put(self, given: object) -> None:
        """Add an item of the program itself. For any thread; never blocks."""
        self._queue.put((given, 0))

    def put_received(self, given: object) -> None:
        """Add a received item. For the receiver thread; blocks while the queue is above its limit and open."""
        while self._is_full():
            self._is_waiting = True
            if self._is_full():
                self._taken.get()
            self._is_waiting = False
        size = size_bytes(given)
        self._put_bytes += size
        self._queue.put((given, size))
        self._wake_once()

    def take(self, seconds: float) -> Iterator[Any]:
        """Remove and yield the items that are queued, for some seconds at most. If more are left, wake again."""
        if self._woken.locked():  # before it reads the queue; only take() releases it
            self._woken.release()
        until = self._monotonic() + seconds
        while self._monotonic() < until:
            try:
                yield self.get(0.0)
            except queue.Empty:
                return
        self._wake_once()

    def get(self, timeout_seconds: float | None = None) -> Any:
        """Remove and return the next item. For the consumer. Raises queue.Empty after the timeout."""
        until = math.inf if timeout_seconds is None else time.monotonic() + timeout_seconds
        while True:
            wait_seconds = min(until - time.monotonic(), _WAIT_MAX_SECONDS)
            try:
                given, size = self._queue.get(timeout=max(wait_seconds, 0.0))
            except queue.Empty:
                if wait_seconds < _WAIT_MAX_SECONDS:
                    raise
                continue
            self._taken_bytes += size
            if self._is_waiting:
                self._taken.put(None)
            return given

    def close(self) -> None:
        """Unblock put_received() now and from now on. For any thread."""
        self._is_closed = True
        self._taken.put(None)

    def _wake_once(self) -> None:
        if self._woken.acquire(blocking=False):
            self.wake()

    def _is_full(self) -> bool:
        return not self._is_closed and self._put_bytes - self._taken_bytes > self._max_bytes


class Backlog:
    """Events that the program has not read yet, oldest first. For one thread."""

    def __init__(self, max_bytes: int = WAITING_MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._kept: deque[tuple[Any, int]] = deque()
        self._kept_bytes = 0
        # Number of events dropped since the last take_dropped().
        self._dropped = 0

    def __bool__(self) -> bool:
        return bool(self._kept)

    def add(self, given: object) -> None:
        """Append an event. Above the size limit the oldest events are dropped."""
        size = size_bytes(given)
        self._kept.append((given, size))
        self._kept_bytes += size
        while self._kept_bytes > self._max_bytes:
            self.pop_oldest()
            self._dropped += 1

    def pop_oldest(self) -> Any:
        given, size = self._kept.popleft()
        self._kept_bytes -= size
        return given

    def take_dropped(self) -> int:
        """Number of events dropped since the last call."""
        dropped, self._dropped = self._dropped, 0
        return dropped
