"""The log: one line for each thing that happened, for people or for programs. Never passwords, never messages.

No thread that serves may wait for the reader of the log: a pipe that is not drained and a stopped terminal block a
write for ever. So threads only format an entry and put it into a queue (:meth:`LogWriter.write`); one thread writes.
The lock of the queue is never held during a write, so putting never blocks. What does not fit is dropped and counted,
and the count is written after the entries that came before it.
"""

from __future__ import annotations

import logging
import os
import select
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final, Protocol

import structlog
import structlog.tracebacks

if TYPE_CHECKING:
    from collections.abc import Callable

    from structlog.types import EventDict, WrappedLogger

_log = structlog.get_logger()

# Entries that may wait to be written: what 10,000 users who log in and leave at once cause.
WAITING_MAX_ENTRIES: Final = 20_000
# Their text: about 200 bytes each.
WAITING_MAX_CHARACTERS: Final = 4 * 1024 * 1024
# Entries that one write holds at most: little is lost when the reader goes away.
_WRITE_MAX_ENTRIES: Final = 500
# When there is no memory for a write, it is tried again after this long.
_MEMORY_PAUSE_SECONDS: Final = 0.1


class LogFile(Protocol):
    """Where the log goes. Neither method may block."""

    def write(self, text: str, /) -> object:
        """Take one entry: a line, with a traceback several."""

    def flush(self) -> object:
        """Called after each entry."""


class NoLog:
    """For a program that was started with its output closed."""

    def write(self, _: str) -> None:
        """Forget it."""

    def flush(self) -> None:
        """There is nothing."""


class LogWriter:
    """A bounded queue of entries, and the thread that writes them to a descriptor.

    :meth:`write` is for any thread and never blocks. The thread is a daemon: it may be stuck in a write at the end.
    """

    def __init__(
        self,
        descriptor: int,
        log_format: str,
        *,
        max_entries: int = WAITING_MAX_ENTRIES,
        max_characters: int = WAITING_MAX_CHARACTERS,
    ) -> None:
        self._descriptor = descriptor
        self._processors = _processors(log_format)
        self._max_entries = max_entries
        self._max_characters = max_characters
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        # Guards everything below. A thread may take it twice: the garbage collector may run while it is held, and an
        # error in a finalizer is logged.
        self._lock = threading.RLock()
        self._filled = threading.Condition(self._lock)
        self._waiting: deque[str] = deque()
        self._waiting_characters = 0
        self._dropped = 0
        self._closed = False

    def start(self) -> None:
        """Start to write. RuntimeError: the system has no thread to give."""
        self._thread.start()

    def close(self, patience_seconds: float) -> None:
        """Write what waits, for no longer than this; a reader that does not read by then loses it."""
        with self._lock:
            self._closed = True
            self._filled.notify()
        if self._thread.ident is not None:
            self._thread.join(patience_seconds)

    def write(self, text: str) -> None:
        """Put one entry into the queue, or drop it if the queue is full."""
        with self._lock:
            if len(self._waiting) >= self._max_entries or self._waiting_characters + len(text) > self._max_characters:
                self._dropped += 1
                return
            self._waiting.append(text)
            self._waiting_characters += len(text)
            self._filled.notify()

    def flush(self) -> None:
        """Nothing to do: the thread writes as soon as it can."""

    @property
    def dropped(self) -> int:
        """Entries that were lost, and not told of yet."""
        return self._dropped

    def count_dropped(self, entries: int) -> None:
        """Count entries that were lost outside of the queue."""
        with self._lock:
            self._dropped += entries

    def _run(self) -> None:
        while True:
            try:
                taken, dropped = self._take()
                if not taken:
                    return
                while taken:
                    self._write_entries([taken.popleft() for _ in range(min(len(taken), _WRITE_MAX_ENTRIES))])
                if dropped:  # what was dropped came after all that was taken
                    self._write_all(self._dropped_line(dropped))
                    self.count_dropped(-dropped)
            except OSError:
                pass  # the count is written later
            except MemoryError:
                time.sleep(_MEMORY_PAUSE_SECONDS)

    def _take(self) -> tuple[deque[str], int]:
        """All that waits, and how much was dropped after it; nothing at the end."""
        with self._lock:
            while not (self._waiting or self._closed):
                self._filled.wait()
            taken, self._waiting = self._waiting, deque()
            self._waiting_characters = 0
            return taken, self._dropped

    def _write_entries(self, entries: list[str]) -> None:
        """Write them, or count them as dropped: the reader has gone, the disk is full, or memory is short."""
        try:
            self._write_all("".join(entries))
        except (OSError, MemoryError):
            self.count_dropped(len(entries))

    def _dropped_line(self, count: int) -> str:
        event: Any = {"event": "log entries dropped", "count": count}
        for processor in self._processors:
            event = processor(None, "warning", event)
        return f"{event}\n"

    def _write_all(self, text: str) -> None:
        view = memoryview(text.encode("utf-8", "backslashreplace"))
        while view:
            try:
                view = view[os.write(self._descriptor, view) :]
            except BlockingIOError:  # another program that shares the pipe has set that
                poll = select.poll()
                poll.register(self._descriptor, select.POLLOUT)
                poll.poll()


def configure_log(level: str, log_format: str, file: LogFile) -> None:
    """Send the log to the file, from this level on. Called once, at the start."""
    filtering = structlog.make_filtering_bound_logger(getattr(logging, level.upper()))
    lost: Callable[[int], None] | None = getattr(file, "count_dropped", None)

    class Unfailing(filtering):  # type: ignore[misc, valid-type]
        """A logger that never raises: an entry that can't be made, for want of memory above all, is dropped."""

        def _proxy_to_logger(self, method_name: str, event: str | None = None, **event_kw: Any) -> Any:
            try:
                return super()._proxy_to_logger(method_name, event, **event_kw)
            except Exception:
                if lost is not None:
                    lost(1)
                return None

    structlog.configure(
        processors=_processors(log_format),
        wrapper_class=Unfailing,
        logger_factory=structlog.WriteLoggerFactory(file),  # type: ignore[arg-type]
        cache_logger_on_first_use=False,
    )


def _processors(log_format: str) -> list[Any]:
    """What makes the text of an entry."""
    render: list[Any]
    if log_format == "json":
        # Local variables hold passwords and messages.
        tracebacks = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        render = [structlog.processors.ExceptionRenderer(tracebacks), structlog.processors.JSONRenderer()]
    else:
        render = [structlog.processors.format_exc_info, _as_text]
    return [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        *render,
    ]


class LibraryLog(logging.Handler):
    """What libraries log goes the same way: by itself Python writes it to standard error, which may block as well."""

    def emit(self, record: logging.LogRecord) -> None:
        """One entry."""
        _log.log(record.levelno, "message of a library", logger=record.name, text=record.getMessage())


def _as_text(_: WrappedLogger, __: str, event: EventDict) -> str:
    """``[INFO] What happened. key=value ... time=...``; a traceback follows on lines of its own."""
    level = event.pop("level").upper()
    text = event.pop("event")
    traceback = event.pop("exception", None)
    time = event.pop("time")
    details = "".join(f" {key}={_quoted(value)}" for key, value in event.items() if value is not None)
    line = f"[{level}] {text}{details} time={time}"
    return f"{line}\n{traceback}" if traceback else line


def _quoted(value: object) -> str:
    """One word as it is, anything else in quotes with what is not printable escaped."""
    text = str(value)
    return text if text.isprintable() and text and " " not in text else repr(text)
