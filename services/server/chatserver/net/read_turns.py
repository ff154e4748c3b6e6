"""Read turns: quiet readers wake up one at a time. Needs epoll (Linux).

Each connection has a thread. If thousands of them receive something in the same moment, thousands of threads compete
for the interpreter, and each of them requests it again at every switch interval. The requests alone take more time than
two processors have, and all other threads wait for seconds (docs/decisions/0021).

So a quiet reader does not wait for its socket. It waits for its own lock, which costs nothing while other threads run.
One thread waits for the sockets of all quiet readers, and queues the readers whose sockets are readable or whose time
limit has passed. The thread wakes the first reader in the queue. That reader reads once, and then wakes the next: that
is a turn. Readers that read often wait for their own sockets, because a turn costs two more switches of threads. The
number of these active readers is limited.

There are two queues: one for readers whose users are logged in (``is_user``), one for all others. Turns alternate
between the queues, so a user does not wait until thousands of new connections have had their turns, which takes
seconds.

Why no reader is forgotten:

- A waiter is in ``TurnOrder._waiting`` (and its socket is armed), or in ``_ready``, or awake. It moves under the lock.
- ``_is_awake`` means that a reader is awake and has not ended its turn. So if ``_ready`` is not empty, a reader is
  awake that will wake the first of ``_ready``. During a turn a reader does nothing that may block.
- An event for a descriptor that is not in ``_waiting`` is ignored: the reader is busy, and will arm the socket again,
  which reports any unread data.
- If a descriptor was closed and used again, a reader may wake up and find nothing. It then waits again.
"""

from __future__ import annotations

import select
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from chatserver.net.selector_thread import SelectorThread

if TYPE_CHECKING:
    from collections.abc import Callable

# Maximum readers that wait for their own sockets: all of them may wake up at once. In a small room all users who write
# are among them.
_ACTIVE_MAX = 16
# Interval of the scan for expired time limits.
_TICK_SECONDS = 0.25
# Minimum time limit that counts as no limit and is not checked.
_NO_LIMIT_SECONDS = 3_600.0
# Maximum events per poll. The rest follows with the next poll.
_EVENTS_MAX = 1_024


class Waiter:
    """A reader, and the socket that it reads."""

    __slots__ = ("descriptor", "has_timed_out", "is_active", "is_user", "wakeup")

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        # For the reader's thread.
        self.is_active = False
        # True after the login.
        self.is_user = False
        # Set before the reader is woken.
        self.has_timed_out = False
        # Released to wake the reader.
        self.wakeup = threading.Lock()
        self.wakeup.acquire()


class TurnOrder:
    """Whose turn it is: pure, with no lock, socket or clock. It never waits: each caller says what has happened."""

    def __init__(self) -> None:
        # The waiting reader and its deadline, by descriptor. No deadline: no time limit.
        self._waiting: dict[int, Waiter] = {}
        self._deadlines: dict[int, float] = {}
        # Readers that wait for their turns, by ``is_user``; the queue of the next turn; and true if a reader is awake.
        self._ready: dict[bool, deque[Waiter]] = {False: deque(), True: deque()}
        self._user_next = True
        self._is_awake = False

    def wait(self, waiter: Waiter, deadline: float | None = None) -> None:
        """A reader waits for its socket."""
        self._waiting[waiter.descriptor] = waiter
        if deadline is not None:
            self._deadlines[waiter.descriptor] = deadline

    def note_readable(self, descriptor: int) -> None:
        self._make_ready(descriptor, has_timed_out=False)

    def note_time(self, now: float) -> None:
        """Queue the readers whose deadlines have passed."""
        for descriptor in [each for each, deadline in self._deadlines.items() if deadline <= now]:
            self._make_ready(descriptor, has_timed_out=True)

    def begin(self) -> Waiter | None:
        """Return the reader that the caller must wake; None if one is awake, or none is ready."""
        return None if self._is_awake else self.go_on()

    def go_on(self) -> Waiter | None:
        """End the turn of the reader that is awake, and return the next one, which the caller must wake."""
        queue = self._ready[self._user_next] or self._ready[not self._user_next]
        self._user_next = not self._user_next
        self._is_awake = bool(queue)
        return queue.popleft() if queue else None

    def remove_all(self) -> list[Waiter]:
        """Remove and return all readers that are not awake."""
        removed = [*self._waiting.values(), *self._ready[False], *self._ready[True]]
        self._waiting.clear()
        self._deadlines.clear()
        for queue in self._ready.values():
            queue.clear()
        return removed

    def _make_ready(self, descriptor: int, *, has_timed_out: bool) -> None:
        """Queue the reader of this descriptor for its turn."""
        waiter = self._waiting.pop(descriptor, None)
        if waiter is not None:
            self._deadlines.pop(descriptor, None)
            waiter.has_timed_out = has_timed_out
            self._ready[waiter.is_user].append(waiter)


class ReadTurns:
    """Wakes readers one after the other. All methods but ``start`` and ``stop`` are for the reader's thread."""

    def __init__(self, on_crash: Callable[[str], None], active_max: int = _ACTIVE_MAX) -> None:
        self._active_max = active_max
        self._thread = SelectorThread("read turns", self._run, on_crash)
        self._epoll = select.epoll()
        # One-shot: further events are not reported while the reader handles this one.
        self._armed = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLONESHOT
        self._epoll.register(self._thread, select.EPOLLIN)
        # Guards everything below.
        self._lock = threading.Lock()
        self._active = 0
        self._order = TurnOrder()
        # True after the thread ended: no reader is woken any more.
        self._ended = False

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop and join the thread. All readers must have ended."""
        self._thread.stop()
        self._epoll.close()

    def add(self, descriptor: int) -> Waiter:
        """Register the socket of one reader. OSError: the system can't watch another socket. For any thread."""
        self._epoll.register(descriptor, select.EPOLLONESHOT)
        return Waiter(descriptor)

    def remove(self, waiter: Waiter) -> None:
        """Unregister the socket of a reader that has ended. The socket must still be open."""
        self.deactivate(waiter)
        self._epoll.unregister(waiter.descriptor)

    def try_activate(self, waiter: Waiter) -> bool:
        """True if the reader may wait for its own socket until :meth:`deactivate`. False if too many are active."""
        if not waiter.is_active:
            with self._lock:
                if self._active < self._active_max:
                    self._active += 1
                    waiter.is_active = True
        return waiter.is_active

    def deactivate(self, waiter: Waiter) -> None:
        """End the active state of the reader, so that another one may become active."""
        if waiter.is_active:
            waiter.is_active = False
            with self._lock:
                self._active -= 1

    def wait(self, waiter: Waiter, timeout_seconds: float) -> None:
        """Wait for this reader's turn: the socket is then probably readable. Call :meth:`end_turn` next.

        TimeoutError: the time limit has passed. ConnectionAbortedError: the thread has ended. After either error the
        reader has no turn.
        """
        with self._lock:
            if self._ended:
                raise ConnectionAbortedError
            is_limited = timeout_seconds < _NO_LIMIT_SECONDS
            self._order.wait(waiter, time.monotonic() + timeout_seconds if is_limited else None)
        self._epoll.modify(waiter.descriptor, self._armed)
        waiter.wakeup.acquire()
        if waiter.has_timed_out:
            waiter.has_timed_out = False
            self.end_turn()
            raise TimeoutError

    def end_turn(self) -> None:
        """Wake the next reader. Called after the read."""
        with self._lock:
            next_waiter = self._order.go_on()
        if next_waiter is not None:
            next_waiter.wakeup.release()

    def _run(self) -> None:
        try:
            self._wake_readers()
        finally:
            with self._lock:
                self._ended = True
                for waiter in self._order.remove_all():
                    waiter.wakeup.release()

    def _wake_readers(self) -> None:
        next_check_at = 0.0
        while True:
            readable = [descriptor for descriptor, _ in self._epoll.poll(_TICK_SECONDS, _EVENTS_MAX)]
            if self._thread.fileno() in readable:
                return
            now = time.monotonic()
            with self._lock:
                for descriptor in readable:
                    self._order.note_readable(descriptor)
                if now >= next_check_at:
                    next_check_at = now + _TICK_SECONDS
                    self._order.note_time(now)
                first = self._order.begin()
            if first is not None:
                first.wakeup.release()
