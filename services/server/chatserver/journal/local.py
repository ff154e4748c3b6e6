"""The journal of a single server: orders all entries, commits them, and tells its subscribers.

Theory of operation
-------------------

The inbox is that of base.py. The journal's thread applies it in one transaction (group commit). Until its end it is the
only thread that writes to the database.

One round of the thread:

1. Take the inbox (``base.py``).
2. In one transaction, with one time: apply the deferred entries, then those of the inbox (``apply.py``).
3. After the commit: tell the subscribers, then complete the entries.
   If the transaction fails: tell the subscribers, fail the entries with OSError, keep the deferred entries for the next
   commit, and keep ``_last_id``, so that the ids are used again.

After a crash of the thread, the subscribers are not told about the entries of its last round.

Why it is correct:

* All that the subscribers publish is on the disk, because they are called only after the commit.
* There is one order, because one thread applies the entries, and calls the subscribers, in the order of the inbox.
* A fence passes after all entries that were appended before it: these are in the same or an earlier transaction, and
  appends are completed in order, after the subscribers were called for all entries of their transaction.
"""

from __future__ import annotations

from typing import Any

import structlog

from chatserver.journal.apply import Transaction, apply
from chatserver.journal.base import WRITE_ERRORS, Appended, Applied, Inbox, Journal
from chatserver.store.database import touch_page
from chatserver.store.errors import describe

_log = structlog.get_logger()


class LocalJournal(Journal):
    """A journal in one SQLite database, with one thread that commits in groups."""

    # The last write that tests the disk; the lock of the journal guards it.
    _probe: Appended[None] | None = None

    def close(self) -> None:
        with self._lock:
            deferred, self._inbox.deferred = self._inbox.deferred, {}
        if not deferred:
            return
        try:
            with self._database.transaction() as connection:
                transaction = Transaction(connection, self._now_ms(), self._last_id)
                for entry in deferred.values():
                    apply(transaction, entry)
        except WRITE_ERRORS as error:  # the messages are delivered again at the next login
            _log.error("delivery marks not saved", error=describe(error))

    def find_problem(self, timeout_seconds: float) -> str:
        return "" if self.probe(timeout_seconds) else "it can't write to its disk"

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

    def _process(self, taken: Inbox) -> None:
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
        except WRITE_ERRORS as error:
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

    def _fail_all(self, taken: Inbox, error: Exception) -> None:
        """Fail all entries of a transaction, except the deferred ones. The journal continues: the disk may recover."""
        if not self.is_failing:
            self.is_failing = True
            _log.error("journal failed", error=describe(error))
        with self._lock:
            self._inbox.deferred = {**taken.deferred, **self._inbox.deferred}
        self._fail(taken.appends, lambda: OSError(describe(error)))
