"""The server's long-lived threads: each has a name, one owner who joins it, and one place that catches all.

A thread that dies must end the process, whatever else fails. The usual reason is want of memory, so everything on the
way from the crash to the end may fail, too: the log, the queue that wakes the main thread, the orderly end. Therefore
:meth:`Worker._run` tells of the crash before it logs it, and :meth:`Watchdog.trip` only stores a constant and releases
a lock, neither of which needs memory. The watchdog's thread runs from the start, since later it may be impossible to
start one. Once it was tripped, it ends the process by ``os._exit``, unless that has ended in order by then.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable

_log = structlog.get_logger()

# The orderly end takes 8 s at most.
HARD_END_SECONDS: Final = 10.0
_EXIT_CRASHED: Final = 1


class Worker:
    """A thread that must not die: when its work raises, ``on_crash`` is told, and the server ends with an error."""

    def __init__(self, name: str, work: Callable[[], None], on_crash: Callable[[str], None]) -> None:
        self._work = work
        self._on_crash = on_crash
        self._name = name
        self._thread = threading.Thread(target=self._run, name=name)

    def start(self) -> None:
        """Start it; the caller joins it. RuntimeError: the system has no thread to give."""
        self._thread.start()

    def join(self) -> None:
        """Wait for its end; at once where it was never started."""
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            self._work()
        except BaseException:
            self._on_crash(self._name)  # first: to log it may fail
            _log.exception("A thread of the server died", thread=self._name)


class Watchdog:
    """Ends the process a while after :meth:`trip`, unless it has ended by itself."""

    def __init__(self, patience_seconds: float = HARD_END_SECONDS) -> None:
        self._patience_seconds = patience_seconds
        # Released by the crash; the thread waits for that.
        self._lock = threading.Lock()
        self._lock.acquire()
        self._release = self._lock.release
        self.tripped = False
        # A daemon: normally nothing ends it.
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def start(self) -> None:
        """Start to wait. RuntimeError: the system has no thread to give."""
        self._thread.start()

    def trip(self) -> None:
        """Something has crashed: the process ends within the time. Needs no memory. For any thread."""
        self.tripped = True
        with suppress(RuntimeError):  # it was released already
            self._release()

    def _run(self) -> None:
        self._lock.acquire()
        time.sleep(self._patience_seconds)
        os._exit(_EXIT_CRASHED)
