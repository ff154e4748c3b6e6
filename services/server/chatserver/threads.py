"""The server's long-lived threads: each has a name, one owner that joins it, and one handler for all exceptions.

The death of a thread must end the process, even if other things fail. The usual reason is lack of memory, so each
later step may fail, too: the log, the main thread, the orderly shutdown. Therefore :meth:`Worker._run` reports the
crash before it logs it, and :meth:`Watchdog.trip` only stores a constant and releases a lock; neither allocates memory.
The watchdog thread runs from the start, because a new thread may be impossible later. After ``trip`` it waits for the
orderly shutdown and then ends the process with ``os._exit``.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import defaultdict
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Self

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

_log = structlog.get_logger()

# Delay of the forced exit: the orderly shutdown takes at most 8 s.
FORCED_EXIT_SECONDS: Final = 10.0
_EXIT_CRASHED: Final = 1

# Limits of log_stacks. Thousands of readers wait in the same place, so equal stacks are one entry.
_STACKS_MAX: Final = 200
_STACK_FRAMES_MAX: Final = 30
_STACK_NAMES_MAX: Final = 5


class StartError(Exception):
    """The server can't start. The text is one line with the reason and the remedy."""

    @classmethod
    def no_threads(cls, error: RuntimeError) -> Self:
        """The error for a thread that could not start: a limit of threads, or no memory for its stack."""
        return cls(
            f"The system refuses a thread ({error}); allow more threads (ulimit -u, the container's pids limit)."
        )

    @classmethod
    def no_memory(cls) -> Self:
        return cls("There is not enough memory to start; allow more memory (ulimit -v, the container's limit).")


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


def log_stacks() -> None:
    """Log the stacks of all threads, innermost call first. Equal stacks are one entry, with the names of the threads.

    The entries are warnings, because most levels show those. The other threads go on. Reads no source files, takes none
    of the server's locks but the log's, and shows no variables.
    """
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    by_stack: dict[str, list[str]] = defaultdict(list)
    frames = sys._current_frames()  # noqa: SLF001 - documented, in spite of its name
    for ident, innermost in frames.items():
        lines: list[str] = []
        frame: FrameType | None = innermost
        while frame is not None and len(lines) < _STACK_FRAMES_MAX:
            code = frame.f_code
            lines.append(f"  {code.co_filename}:{frame.f_lineno} {code.co_qualname}")
            frame = frame.f_back
        by_stack["\n".join(lines)].append(names.get(ident, str(ident)))
    # The rarest first: they are the most interesting, and must not be left out.
    stacks = sorted(by_stack.items(), key=lambda item: len(item[1]))
    for stack, its_names in stacks[:_STACKS_MAX]:
        shown = ", ".join(its_names[:_STACK_NAMES_MAX])
        _log.warning("stack", count=len(its_names), threads=shown, stack=stack)
    _log.warning("stacks logged", threads=len(frames), left_out=max(0, len(stacks) - _STACKS_MAX) or None)
