"""The journal of a single server: orders all entries, commits them, and tells its subscribers.

Theory of operation
-------------------

Callers append entries to the inbox. Any thread may call; most callers are reader threads. The journal thread takes the
whole inbox and applies it in one transaction (group commit). Until its end it is the only thread that writes to the
database.

States: open, closed, ended.

* open -> closed: ``stop``, or a crash of the journal thread. Every later call raises JournalClosedError.
* closed -> ended: the journal thread has committed the rest of the inbox and the deferred entries. After a crash, it
  fails all entries that are not complete with JournalClosedError instead, and does not tell the subscribers about the
  entries of its last round. ``_ended`` is set in both cases.

One round of the journal thread (``_take_inbox``, ``_commit``):

1. Wait until the inbox is not empty. A small inbox with messages is given a few milliseconds more by ``gather``.
   While the reserve of the disk is used up, fail the appends that need space, and go on with the others.
2. In one transaction, with one time: apply the deferred entries, then those of the inbox (``apply.py``).
3. After the commit: tell the subscribers, then complete the entries.
   If the transaction fails: tell the subscribers, fail the entries with OSError, keep the deferred entries for the next
   commit, and keep ``_last_id``, so that the ids are used again.

An append without entries is a fence: it is over, in both cases, after all entries that were appended before it.

Deferred entries are not urgent: delivery marks, and the ends of guests' claims. A commit for each would cost a sync
each, so they wait for the next one, or for the end of the server. They come first in it, so a name that a guest has
left is free for every entry of the inbox.

Why it is correct:

* All that the subscribers publish is on the disk, because they are called only after the commit.
* There is one order, because one thread applies the entries, and calls the subscribers, in the order of the inbox.
* A fence passes after all entries that were appended before it: these are in the same or an earlier transaction, and
  appends are completed in order, after the subscribers were called for all entries of their transaction.
* No wake-up is lost. The journal thread waits only while the inbox is empty, and the caller that fills an empty inbox
  notifies it. Callers wait only while the inbox is full, and the thread that empties a full inbox notifies all of them.

``_lock`` guards the inbox, ``_probe`` and ``_closed``. No other lock of the server is taken, and nothing slow is done,
while it is held.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import structlog

from chatserver.counters import Counters
from chatserver.journal.apply import StoreLimits, Transaction, apply
from chatserver.journal.base import Appended, Applied, DiskFullError, JournalClosedError
from chatserver.store.database import touch_page
from chatserver.store.disk import DiskReserve
from chatserver.store.errors import StoreError, describe
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
_WRITE_ERRORS = (sqlite3.Error, OSError, StoreError)


class _Inbox:
    """Entries to be applied: the deferred ones by key, then the others in order of arrival."""

    __slots__ = ("appends", "deferred", "is_gathered", "is_probed", "since", "size")

    def __init__(self, deferred: dict[Hashable, Entry[None]]) -> None:
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


class LocalJournal:
    """A journal in one SQLite database, with one thread that commits in groups.

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
        # Journal thread only. The highest message id of the store.
        with database.reading() as connection:
            self._last_id = read_highest_id(connection)
        # Set by the journal thread only. True while an error lasts, so that it is logged once.
        self.is_failing = False
        # Guards the inbox, the probe and the closed flag.
        self._lock = threading.Lock()
        self._filled = threading.Condition(self._lock)
        self._emptied = threading.Condition(self._lock)
        self._inbox = _Inbox({})
        self._probe: Appended[None] | None = None
        self._closed = False
        self._ended = threading.Event()

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

    def save_deferred(self) -> None:
        """Apply the entries that were deferred after the end of the journal thread. For the thread that called stop."""
        with self._lock:
            deferred, self._inbox.deferred = self._inbox.deferred, {}
        if not deferred:
            return
        try:
            with self._database.transaction() as connection:
                transaction = Transaction(connection, self._now_ms(), self._last_id)
                for entry in deferred.values():
                    apply(transaction, entry)
        except _WRITE_ERRORS as error:  # the messages are delivered again at the next login
            _log.error("delivery marks not saved", error=describe(error))

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

    def defer(self, key: Hashable, entry: Entry[None]) -> None:
        """Accept an entry that may wait for the next commit. It replaces a waiting one of the same key.

        Never blocks or raises; accepted until ``save_deferred``. For any thread.
        """
        with self._lock:
            self._inbox.deferred[key] = entry

    def wait_for_pending(self) -> None:
        """Wait until the subscribers know of every entry that was appended before."""
        try:
            self.append(()).wait()
        except JournalClosedError:
            self._ended.wait()  # the last entries may not be committed yet

    def probe(self, timeout_seconds: float) -> bool:
        """True if the disk takes a write that changes no data, within the timeout. For any thread.

        Concurrent callers share one probe: many callers cost one write.
        """
        with self._lock:
            if self._closed:
                return False
            probe = self._probe
            if probe is None or probe.is_complete:
                probe = self._probe = Appended((), None)
                if not self._inbox.size:
                    self._filled.notify()
                self._inbox.appends.append(probe)  # even if the inbox is full: it holds at most one probe
                self._inbox.size += 1
                self._inbox.is_probed = True
        return probe.wait(timeout_seconds) and probe.is_successful

    def _take_inbox(self) -> _Inbox:
        """Take the whole inbox. It has no appends only after the journal was closed and all of them were taken."""
        with self._lock:
            while not self._inbox.size and not self._closed:
                self._filled.wait()
            is_early = self._inbox.is_gathered and self._inbox.size < GATHER_ENTRIES
        if is_early:
            for gather in self._gathers:
                gather(GATHER_SECONDS)
        with self._lock:
            if self._inbox.size >= self._inbox_max_entries:
                self._emptied.notify_all()
            taken, self._inbox = self._inbox, _Inbox({})
            return taken

    def _run(self) -> None:
        taken = self._inbox
        try:
            while (taken := self._take_inbox()).appends:
                if self._reserve.check():
                    self._refuse_growth(taken)
                self._commit(taken)
            self._commit(taken)
        finally:
            self._release_callers(taken)

    def _release_callers(self, taken: _Inbox) -> None:
        """Release all waiting threads when the journal thread ends, normally or by a crash.

        ``taken`` are the entries of the last round; some or all of its appends may be complete already.
        """
        with self._lock:
            self._closed = True
            rest, self._inbox = self._inbox, _Inbox(self._inbox.deferred)
            self._emptied.notify_all()
        for appended in (*taken.appends, *rest.appends):
            if not appended.is_complete:
                appended.fail(JournalClosedError())
        self._ended.set()

    def _commit(self, taken: _Inbox) -> None:
        """Apply the entries in one transaction, then tell the subscribers and complete the appends."""
        outcomes: list[list[Any]] = []
        began_at = self._clock()
        try:
            with self._database.transaction() as connection:
                changes = connection.total_changes
                transaction = Transaction(connection, self._now_ms(), self._last_id, self._limits)
                time_ms = transaction.time_ms
                applied = [Applied(each, apply(transaction, each), None, time_ms) for each in taken.deferred.values()]
                for appended in taken.appends:
                    outcomes.append(its_outcomes := [])
                    for entry in appended.entries:
                        its_outcomes.append(outcome := apply(transaction, entry))
                        applied.append(Applied(entry, outcome, appended.origin, time_ms))
                if taken.is_probed:
                    touch_page(connection)
                # A transaction without writes succeeds even on a full disk, so it does not prove that the disk works.
                wrote = connection.total_changes > changes or taken.is_probed
        except _WRITE_ERRORS as error:
            self._fail_all(taken, error)
            return
        self._counters.commit_seconds.observe(self._clock() - began_at)
        self._database.note_commit(transaction.last_id, transaction.account_id)
        if self.is_failing and wrote:
            self.is_failing = False
            _log.info("journal recovered")
        self._last_id = transaction.last_id
        if applied:
            for callback in self._subscribers:
                callback(applied)
        for appended, its_outcomes in zip(taken.appends, outcomes, strict=True):
            appended.complete(its_outcomes)
        if taken.is_gathered:  # it has messages
            self._counters.confirmation_seconds.observe(self._clock() - taken.since)
        self._database.truncate_log()

    def _fail_all(self, taken: _Inbox, error: Exception) -> None:
        """Fail all entries of a transaction, except the deferred ones. The journal continues: the disk may recover."""
        if not self.is_failing:
            self.is_failing = True
            _log.error("journal failed", error=describe(error))
        with self._lock:
            self._inbox.deferred = {**taken.deferred, **self._inbox.deferred}
        self._fail(taken.appends, lambda: OSError(describe(error)))

    def _refuse_growth(self, taken: _Inbox) -> None:
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
