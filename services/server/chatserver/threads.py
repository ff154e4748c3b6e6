"""The server's long-lived threads: each has a name, one owner that joins it, and one handler for all exceptions.

The death of a thread must end the process, even if other things fail. The usual reason is lack of memory, so each
later step may fail, too: the log, the main thread, the orderly shutdown. Therefore :meth:`Worker._run` reports the
crash before it logs it, and :meth:`Watchdog.trip` only stores a constant and releases a lock; neither allocates memory.
The watchdog thread runs from the start, because a new thread may be impossible later. After ``trip`` it waits for the
orderly shutdown and then ends the process with ``os._exit``.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Self

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable

_log = structlog.get_logger()

# Delay of the forced exit: the orderly shutdown takes at most 8 s.
FORCED_EXIT_SECONDS: Final = 10.0
_EXIT_CRASHED: Final = 1


class StartError(Exception):
    """The server can't start. The text is one line with the reason and the remedy."""

    @classmethod
    def no_threads(cls, error: RuntimeError) -> Self:
        """The error for a thread that could not start: a limit of threads, or no memory for its stack."""
        return cls(f"The system gives no more threads ({error}); allow more (ulimit -u, the container's pids limit).")

    @classmethod
    def no_memory(cls) -> Self:
        return cls("There is not enough memory to start; allow more (ulimit -v, the container's limit).")


class Worker:
    """A thread that must not die. If ``work`` raises, the thread calls ``on_crash`` with its name and ends.

    The process does not wait for a daemon when it ends.
    """

    def __init__(
        self, name: str, work: Callable[[], None], on_crash: Callable[[str], None], *, daemon: bool = False
    ) -> None:
        self._work = work
        self._on_crash = on_crash
        self._name = name
        self._thread = threading.Thread(target=self._run, name=name, daemon=daemon)

    def start(self) -> None:
        """Start the thread; the caller joins it. Raises RuntimeError if the system can't create one."""
        self._thread.start()

    def join(self, timeout_seconds: float | None = None) -> None:
        """Wait for the end of the thread; return immediately if it was never started."""
        if self._thread.ident is not None:
            self._thread.join(timeout_seconds)

    def _run(self) -> None:
        try:
            self._work()
        except BaseException:
            self._on_crash(self._name)  # first, because logging may fail
            _log.exception("thread died", thread=self._name)


class Watchdog:
    """Ends the process ``timeout_seconds`` after :meth:`trip`, unless the process has ended before."""

    def __init__(self, timeout_seconds: float = FORCED_EXIT_SECONDS) -> None:
        self._timeout_seconds = timeout_seconds
        # Locked until trip().
        self._lock = threading.Lock()
        self._lock.acquire()
        self._release = self._lock.release
        self.tripped = False
        # A daemon, because normally the thread never ends.
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def start(self) -> None:
        """Start the thread. Raises RuntimeError if the system can't create one."""
        self._thread.start()

    def trip(self) -> None:
        """Start the countdown to the forced exit. Allocates no memory. For any thread; repeated calls do nothing."""
        self.tripped = True
        with suppress(RuntimeError):  # already released
            self._release()

    def _run(self) -> None:
        self._lock.acquire()
        time.sleep(self._timeout_seconds)
        os._exit(_EXIT_CRASHED)
