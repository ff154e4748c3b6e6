"""The log: one line per event, as text or JSON. It never contains passwords or messages.

No thread of the server may wait for the reader of the log: a pipe that is not drained and a stopped terminal block a
write forever. So threads only format an entry and put it into a queue (:meth:`LogWriter.write`); the thread "log"
writes. That thread never holds the lock of the queue during a write, so ``write`` never blocks. If the queue is full,
the entry is dropped and counted; the count is written after the queued entries.

A peer must not fill the disk with the log: of the warnings of one kind about one address, the first ones of a minute
are written, and then their number (:class:`LineLimiter`).
"""

from __future__ import annotations

import logging
import math
import os
import select
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final, TextIO

import structlog
import structlog.tracebacks

from chatprotocol.address import network_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from structlog.types import EventDict, WrappedLogger

_log = structlog.get_logger()

# Maximum entries in the queue: 10,000 users who log in and disconnect at once cause this many.
QUEUE_MAX_ENTRIES: Final = 20_000
# Maximum text in the queue: about 200 characters per entry.
QUEUE_MAX_CHARACTERS: Final = 4 * 1024 * 1024
# Period of the limit of entries about one address.
_LIMIT_SECONDS: Final = 60.0
# Maximum kinds and addresses that are counted, at about 400 bytes each. The oldest are forgotten first.
_KINDS_MAX: Final = 10_000
_LEFT_OUT: Final = "log entries left out"
# Maximum entries per write: a failed write loses its entries.
_WRITE_MAX_ENTRIES: Final = 500
# Delay after a write that failed for lack of memory.
_MEMORY_PAUSE_SECONDS: Final = 0.1


class LineLimiter:
    """Leaves out warnings and errors of one kind about one address, after ``max_lines`` in a minute. For any thread.

    A kind is the event with its reason or code. The number of entries that were left out is logged with the first entry
    of any kind after the minute, and by :meth:`flush`. Entries that are not about an address are never left out.
    """

    def __init__(
        self, max_lines: int, clock: Callable[[], float] = time.monotonic, *, kinds_max: int = _KINDS_MAX
    ) -> None:
        """``max_lines`` of 0 is no limit."""
        self._max_lines = max_lines
        self._clock = clock
        self._kinds_max = kinds_max
        # Guards everything below. Reentrant, as in LogWriter.
        self._lock = threading.RLock()
        # The start of the minute, and the number of entries, by kind and address; oldest first.
        self._counts: dict[tuple[str, str, str], tuple[float, int]] = {}

    def __call__(self, _: WrappedLogger, level: str, event: EventDict) -> EventDict:
        """Pass the entry on, as a processor of structlog. Raises DropEvent."""
        if not self._max_lines or event["event"] == _LEFT_OUT:
            return event
        now = self._clock()
        self._log_counts(now - _LIMIT_SECONDS)
        address = str(event.get("address") or event.get("connection", "")).rpartition("@")[2]
        if level not in ("warning", "error") or not address:
            return event
        kind = (event["event"], str(event.get("reason") or event.get("code", "")), network_of(address))
        with self._lock:
            began_at, count = self._counts.get(kind, (now, 0))
            self._counts[kind] = (began_at, count + 1)
        if count >= self._max_lines:
            raise structlog.DropEvent
        return event

    def flush(self) -> None:
        """Log all numbers."""
        self._log_counts(math.inf)

    def _log_counts(self, until: float) -> None:
        """Forget the kinds whose minute began before ``until``, and log how many of their entries were left out."""
        ended: list[tuple[tuple[str, str, str], int]] = []
        with self._lock:
            while self._counts:
                kind, (began_at, count) = next(iter(self._counts.items()))
                if began_at > until and len(self._counts) <= self._kinds_max:
                    break
                del self._counts[kind]
                ended.append((kind, count - self._max_lines))
        for (like, reason, address), count in ended:
            if count > 0:
                _log.warning("log entries left out", like=like, reason=reason or None, address=address, count=count)

    def __len__(self) -> int:
        """Number of kinds in memory."""
        with self._lock:
            return len(self._counts)


class LogWriter:
    """A bounded queue of entries, and the thread that writes them to a descriptor.

    :meth:`write` is for any thread and never blocks. The writing thread is a daemon because a write may never return.
    """

    def __init__(
        self,
        descriptor: int,
        log_format: str,
        limiter: LineLimiter | None = None,
        *,
        max_entries: int = QUEUE_MAX_ENTRIES,
        max_characters: int = QUEUE_MAX_CHARACTERS,
    ) -> None:
        # Limits the entries before they are formatted: see configure_log.
        self.limiter = limiter
        self._descriptor = descriptor
        self._processors = _processors(log_format)
        self._max_entries = max_entries
        self._max_characters = max_characters
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        # Guards all attributes below. Reentrant: the garbage collector may run while a thread holds it, and an error in
        # a finalizer is logged.
        self._lock = threading.RLock()
        self._filled = threading.Condition(self._lock)
        self._queued: deque[str] = deque()
        self._queued_characters = 0
        # Entries that were dropped since the start, and those of them that were reported.
        self._dropped = 0
        self._reported = 0
        self._closed = False

    def start(self) -> None:
        """Start the thread. Raises RuntimeError if the system can't create one."""
        self._thread.start()

    def close(self, timeout_seconds: float) -> None:
        """Write the queued entries, waiting at most ``timeout_seconds``. Unwritten entries are lost."""
        if self.limiter is not None:
            self.limiter.flush()
        with self._lock:
            self._closed = True
            self._filled.notify()
        if self._thread.ident is not None:
            self._thread.join(timeout_seconds)

    def write(self, text: str) -> None:
        """Append an entry to the queue; drop and count it if the queue is full. For any thread."""
        with self._lock:
            if len(self._queued) >= self._max_entries or self._queued_characters + len(text) > self._max_characters:
                self._dropped += 1
                return
            self._queued.append(text)
            self._queued_characters += len(text)
            self._filled.notify()

    def flush(self) -> None:
        """Do nothing: :meth:`write` wakes the thread."""

    @property
    def dropped(self) -> int:
        """Entries that were dropped since the start. Read without the lock: one integer, for information."""
        return self._dropped

    def count_dropped(self, entries: int) -> None:
        """Add entries that were lost elsewhere to the count. For any thread."""
        with self._lock:
            self._dropped += entries

    def _run(self) -> None:
        while True:
            try:
                entries, dropped = self._wait_for_entries()
                if not entries:
                    return
                while entries:
                    self._write_entries([entries.popleft() for _ in range(min(len(entries), _WRITE_MAX_ENTRIES))])
                if dropped:  # all dropped entries are newer than the taken ones
                    self._write_all(self._dropped_line(dropped))
                    self._reported += dropped  # for this thread only
            except OSError:
                pass  # the count stays and is written later
            except MemoryError:
                time.sleep(_MEMORY_PAUSE_SECONDS)

    def _wait_for_entries(self) -> tuple[deque[str], int]:
        """Wait for entries; returns all queued ones, and the number of dropped ones. After ``close``, perhaps none."""
        with self._lock:
            while not (self._queued or self._closed):
                self._filled.wait()
            entries, self._queued = self._queued, deque()
            self._queued_characters = 0
            return entries, self._dropped - self._reported

    def _write_entries(self, entries: list[str]) -> None:
        """Write entries; count them as dropped if the reader is gone, the disk is full, or memory is short."""
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
            except BlockingIOError:  # another program made the shared pipe non-blocking
                poll = select.poll()
                poll.register(self._descriptor, select.POLLOUT)
                poll.poll()


def configure_log(level: str, log_format: str, file: LogWriter | TextIO) -> None:
    """Send entries of this level and above to the file, which must not block. A later call changes the level."""
    filtering = structlog.make_filtering_bound_logger(getattr(logging, level.upper()))
    count_dropped: Callable[[int], None] | None = getattr(file, "count_dropped", None)
    limiter: LineLimiter | None = getattr(file, "limiter", None)

    class SafeLogger(filtering):  # type: ignore[misc, valid-type]
        """A logger that never raises. An entry that can't be formatted, mostly for lack of memory, is dropped."""

        def _proxy_to_logger(self, method_name: str, event: str | None = None, **event_kw: Any) -> Any:
            try:
                return super()._proxy_to_logger(method_name, event, **event_kw)
            except Exception:
                if count_dropped is not None:
                    count_dropped(1)
                return None

    structlog.configure(
        processors=[*([limiter] if limiter is not None else []), *_processors(log_format)],
        wrapper_class=SafeLogger,
        logger_factory=structlog.WriteLoggerFactory(file),  # type: ignore[arg-type]
        cache_logger_on_first_use=False,
    )


def _processors(log_format: str) -> list[Any]:
    """The structlog processors that format an entry."""
    render: list[Any]
    if log_format == "json":
        # Local variables may contain passwords and messages.
        tracebacks = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        render = [structlog.processors.ExceptionRenderer(tracebacks), structlog.processors.JSONRenderer()]
    else:
        render = [structlog.processors.format_exc_info, _format_text]
    return [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        *render,
    ]


class LibraryLog(logging.Handler):
    """Routes the logs of libraries to this log. Python's default is standard error, which may block."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log one record."""
        _log.log(record.levelno, "library message", logger=record.name, text=record.getMessage())


def _format_text(_: WrappedLogger, __: str, event: EventDict) -> str:
    """``[INFO] event key=value ... time=...``, then the traceback or the stack of a thread on separate lines."""
    level = event.pop("level").upper()
    text = event.pop("event")
    if text == "waiting for connection":  # a fixed line: programs wait for it, and read the port from it
        text = f"Waiting for connection on port {event.pop('port')}..."
    traceback = event.pop("exception", None) or event.pop("stack", None)
    time = event.pop("time")
    details = "".join(f" {key}={_quoted(value)}" for key, value in event.items() if value is not None)
    line = f"[{level}] {text}{details} time={time}"
    return f"{line}\n{traceback}" if traceback else line


def _quoted(value: object) -> str:
    """One printable word unchanged; any other value as a quoted string with escapes."""
    text = str(value)
    return text if text.isprintable() and text and " " not in text else repr(text)
