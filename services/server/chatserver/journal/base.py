"""The base of both journals: the inbox, the subscribers, and the values that callers and subscribers see.

Theory of operation
-------------------

Callers append entries to the inbox. Any thread may call; most callers are reader threads. The thread of the journal
takes the whole inbox and applies it (:class:`LocalJournal`), or publishes it for all servers (:class:`SharedJournal`).

States: open, closed, ended.

* open -> closed: ``stop``, or a crash of the thread. Every later call raises JournalClosedError.
* closed -> ended: the thread has processed the rest of the inbox and the deferred entries. After a crash, it fails all
  entries that are not complete with JournalClosedError instead. ``_ended`` is set in both cases.

A small inbox with messages is given a few milliseconds more by the ``gather`` functions of the subscribers, and while
the reserve of the disk is used up, appends that need space fail at once.

An append without entries is a fence: it is over after the subscribers know of all entries that any reader of the
database can see. In a LocalJournal, it is also over after all entries that were appended before it; in a SharedJournal
these may be in flight for any time.

Deferred entries are not urgent: delivery marks, the ends of guests' claims, and the times at which networks and session
tokens were used. A commit for each would cost a sync each, so they wait for the next one, or for the end of the server.
They come first in it, so a name that a guest has left is free for every entry of the inbox.

No wake-up is lost. The thread waits only while the inbox is empty, and the caller that fills an empty inbox notifies
it. Callers wait only while the inbox is full, and the thread that empties a full inbox notifies all of them.

``_lock`` guards the inbox and ``_closed``. No other lock of the server is taken, and nothing slow is done,
while it is held.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import structlog
from msgspec import Struct

from chatserver.counters import Counters
from chatserver.journal.apply import StoreLimits
from chatserver.store.disk import DiskReserve
from chatserver.store.errors import StoreError
from chatserver.store.identity import read_highest_id
from chatserver.threads import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from chatserver.journal.entries import Entry
    from chatserver.store.database import Database

_T = TypeVar("_T")

_log = structlog.get_logger()

# Maximum entries in the inbox, where each message counts; callers wait while it is full. At 8 KiB each, 32 MiB of text.
# One append may exceed it.
INBOX_MAX_ENTRIES = 4_096

# Gathering: during its round the sender sends no newer messages, so small commits before the end of the round cost a
# sync each and gain little. An inbox with fewer than GATHER_ENTRIES waits for that end, GATHER_SECONDS at most.
GATHER_SECONDS = 0.005
GATHER_ENTRIES = 256

# Errors of a transaction: the disk fails or is full, or a database file was removed or replaced.
WRITE_ERRORS = (sqlite3.Error, OSError, StoreError)


class JournalClosedError(Exception):
    """The server is shutting down; nothing more is written."""


class UnfinishedError(JournalClosedError):
    """The server is shutting down, and entries are on their way to the log of several servers: it may get them."""


class DiskFullError(OSError):
    """The reserve of the disk is used up: entries that need space are refused."""


class LogUnavailableError(OSError):
    """The shared log can't be written now: entries are refused. The text is the reason."""


class Applied(Struct, frozen=True, gc=False):
    """An entry for the subscribers: it is committed, or its transaction failed."""

    entry: Entry[Any]
    # The outcome of the entry, or the OSError of its transaction.
    outcome: Any
    # The object that was given to ``append``; None for entries without one, and for those of other servers.
    origin: Any
    # The time of the entry, in milliseconds since 1970 UTC.
    time_ms: int


class Appended(Generic[_T]):
    """Entries that were appended together, and their outcomes: a light Future. For any thread.

    The journal calls :meth:`complete` or :meth:`fail`, once.
    """

    __slots__ = ("_completed", "_error", "_outcomes", "entries", "origin")

    def __init__(self, entries: Sequence[Entry[_T]], origin: object) -> None:
        self.entries = entries
        self.origin = origin
        self._outcomes: Sequence[_T] | None = None
        self._error: Exception | None = None
        # Locked until the outcomes are known. A bare lock costs a tenth of an Event or a Future, and most callers
        # never wait. It guards nothing else: the outcomes are written before it is released.
        self._completed = threading.Lock()
        self._completed.acquire()

    @property
    def is_complete(self) -> bool:
        """True if the outcomes are known, or the entries have failed."""
        return self._outcomes is not None or self._error is not None

    @property
    def is_successful(self) -> bool:
        """True if the outcomes are known."""
        return self._outcomes is not None

    def wait(self, timeout_seconds: float | None = None) -> bool:
        """Wait for the outcomes. False after the timeout; None waits without a limit."""
        is_complete = self._completed.acquire(timeout=-1 if timeout_seconds is None else timeout_seconds)
        if is_complete:
            self._completed.release()  # for other threads that wait
        return is_complete

    def result(self) -> Sequence[_T]:
        """Wait for the outcomes, in the order of the entries.

        OSError: the entries can't be stored. JournalClosedError: the journal ended, perhaps without storing them.
        """
        self.wait()
        if self._outcomes is None:
            assert self._error is not None
            raise self._error
        return self._outcomes

    def complete(self, outcomes: Sequence[_T]) -> None:
        self._outcomes = outcomes
        self._release()

    def fail(self, error: Exception) -> None:
        self._error = error
        self._release()

    def _release(self) -> None:
        self.entries = ()  # a session keeps its last append, and the texts may be long
        self._completed.release()


class Inbox:
    """Entries to be applied: the deferred ones by key, then the others in order of arrival."""

    __slots__ = ("appends", "deferred", "is_gathered", "is_probed", "since", "size")

    def __init__(self, deferred: dict[Hashable, Entry[Any]]) -> None:
        self.appends: list[Appended[Any]] = []
        self.deferred = deferred
        # Number of entries, without the deferred ones. A message counts as one, and so does a fence.
        self.size = 0
        # The time of the first append.
        self.since = 0.0
        # True if a commit of these may wait for more.
        self.is_gathered = False
        # True if the commit must write to the disk, to test it.
        self.is_probed = False


class Journal(ABC):
    """Appends entries, and calls subscribers with those that are committed. For any thread.

    ``now_ms`` returns milliseconds since 1970 UTC. The journal calls it in its own thread only.
    """

    def __init__(
        self,
        database: Database,
        now_ms: Callable[[], int],
        on_crash: Callable[[str], None],
        inbox_max_entries: int = INBOX_MAX_ENTRIES,
        *,
        limits: StoreLimits | None = None,
        reserve: DiskReserve | None = None,
        counters: Counters | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``clock`` measures the commits. While ``reserve`` is used up, messages are refused. Raises StoreError."""
        self._limits = limits or StoreLimits()
        self._reserve = reserve or DiskReserve(Path(), 0)
        self._counters = counters or Counters()
        self._clock = clock
        self._inbox_max_entries = inbox_max_entries
        self._database = database
        self._now_ms = now_ms
        self._worker = Worker("journal", self._run, on_crash)
        self._subscribers: list[Callable[[Sequence[Applied]], None]] = []
        self._gathers: list[Callable[[float], None]] = []
        # For the thread that applies. The highest message id of the store.
        with database.reading() as connection:
            self._last_id = read_highest_id(connection)
        # Set by the thread that applies. True while an error lasts, so that it is logged once.
        self.is_failing = False
        # Guards the inbox and the closed flag.
        self._lock = threading.Lock()
        self._filled = threading.Condition(self._lock)
        self._emptied = threading.Condition(self._lock)
        self._inbox = Inbox({})
        self._closed = False
        self._ended = threading.Event()

    @abstractmethod
    def _process(self, taken: Inbox) -> None:
        """Apply or publish what was taken. It may have deferred entries only, at the end."""

    @abstractmethod
    def find_problem(self, timeout_seconds: float) -> str:
        """Return why entries can't be stored now, as in "it can't write to its disk"; empty if they can."""

    @abstractmethod
    def close(self) -> None:
        """Apply the entries that were deferred after the end of the thread, if it is possible.

        For the thread that called stop. No call may follow.
        """

    def subscribe(self, callback: Callable[[Sequence[Applied]], None], gather: Callable[[float], None]) -> None:
        """Call back with the entries of each transaction, in order. Call it before ``start``.

        ``gather`` waits, up to a number of seconds, while it is too early for a small commit. Both are called in the
        journal thread.
        """
        self._subscribers.append(callback)
        self._gathers.append(gather)

    def start(self) -> None:
        self._worker.start()

    def stop(self) -> None:
        """Apply all accepted entries, tell the subscribers, then join the journal thread."""
        with self._lock:
            self._closed = True
            self._filled.notify()
            self._emptied.notify_all()
        self._worker.join()

    @property
    def is_disk_full(self) -> bool:
        """True while the reserve of the disk is used up, and messages are refused. For any thread."""
        return self._reserve.is_used

    @property
    def pending(self) -> int:
        """Number of entries in the inbox. For any thread."""
        with self._lock:
            return self._inbox.size

    def append(self, entries: Sequence[Entry[_T]], origin: object = None) -> Appended[_T]:
        """Accept entries, which stay together. Blocks while the inbox is full. JournalClosedError: it is shut down.

        ``origin`` is for the subscribers of this process; the journal does not look at it.
        """
        appended = Appended(entries, origin)
        size, is_gathered = 0, False
        for entry in entries:
            size += entry.size
            is_gathered = is_gathered or entry.is_gathered
        with self._lock:
            while self._inbox.size >= self._inbox_max_entries and not self._closed:
                self._emptied.wait()
            if self._closed:
                raise JournalClosedError
            inbox = self._inbox
            if not inbox.size:
                inbox.since = self._clock()
                self._filled.notify()
            inbox.appends.append(appended)
            inbox.size += size or 1
            inbox.is_gathered = inbox.is_gathered or is_gathered
        return appended

    def defer(self, key: Hashable, entry: Entry[Any]) -> None:
        """Accept an entry that may wait for the next commit. It replaces a waiting one of the same key.

        Never blocks or raises; accepted until ``close``. For any thread.
        """
        with self._lock:
            self._inbox.deferred[key] = entry

    def wait_for_pending(self) -> None:
        """Wait until the subscribers know of every entry that the database has."""
        try:
            self.append(()).wait()
        except JournalClosedError:
            self._ended.wait()  # the last entries may not be committed yet

    def _take_inbox(self) -> Inbox:
        """Take the whole inbox. It has no appends only after the journal was closed and all of them were taken."""
        with self._lock:
            while not self._inbox.size and not self._closed:
                self._filled.wait()
        return self._take()

    def _take(self) -> Inbox:
        """Take the whole inbox. A small one is given time to grow."""
        with self._lock:
            is_early = self._inbox.is_gathered and self._inbox.size < GATHER_ENTRIES
        if is_early:
            for gather in self._gathers:
                gather(GATHER_SECONDS)
        with self._lock:
            if self._inbox.size >= self._inbox_max_entries:
                self._emptied.notify_all()
            taken, self._inbox = self._inbox, Inbox({})
            return taken

    def _run(self) -> None:
        taken = self._inbox
        try:
            while (taken := self._take_inbox()).appends:
                if self._reserve.check():
                    self._refuse_growth(taken)
                self._process(taken)
            self._process(taken)
        finally:
            self._release_callers(taken)

    def _release_callers(self, taken: Inbox) -> None:
        """Release all waiting threads when the journal thread ends, normally or by a crash.

        ``taken`` are the entries of the last round; some or all of its appends may be complete already.
        """
        with self._lock:
            self._closed = True
            rest, self._inbox = self._inbox, Inbox(self._inbox.deferred)
            self._emptied.notify_all()
        for appended in (*taken.appends, *rest.appends):
            if not appended.is_complete:
                appended.fail(JournalClosedError())
        self._ended.set()

    def _refuse_growth(self, taken: Inbox) -> None:
        """Fail the appends that need space, and remove them from the batch: the others are few, or free space."""
        refused: list[Appended[Any]] = []
        kept: list[Appended[Any]] = []
        for appended in taken.appends:
            (refused if any(entry.needs_space for entry in appended.entries) else kept).append(appended)
        taken.appends = kept
        self._fail(refused, DiskFullError)

    def _fail(self, appends: Sequence[Appended[Any]], make_error: Callable[[], OSError]) -> None:
        failure = make_error()
        applied = [Applied(entry, failure, each.origin, 0) for each in appends for entry in each.entries]
        if applied:
            for callback in self._subscribers:
                callback(applied)
        for appended in appends:
            appended.fail(make_error())
