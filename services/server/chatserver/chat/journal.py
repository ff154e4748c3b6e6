"""The journal: orders all messages, and commits each one before it is published.

Theory of operation
-------------------

Callers put batches of messages and other writes ("tasks": accounts, guests, password hashes, fences, probes) into
the inbox. Any thread may call; most callers are reader threads. The journal thread takes the whole inbox and commits it
in one transaction (group commit). Until its end it is the only thread that writes to the database.

States: open, closed, ended.

* open -> closed: ``stop``, or a crash of the journal thread. Every later call raises JournalClosedError.
* closed -> ended: the journal thread has committed the rest of the inbox and, in one last transaction, the delivery
  marks. After a crash, it completes the waiting tasks with JournalClosedError instead, and the batches in its hands are
  neither confirmed nor rejected. ``_ended`` is set in both cases.

One round of the journal thread (``_take_inbox``, ``_commit``):

1. Wait until the inbox is not empty. A small inbox is given a few milliseconds more while the sender is busy.
2. In one transaction: assign ids and times, insert the messages, execute the tasks, save the delivery marks.
3. After the commit: publish the messages through the hub, then complete the tasks.
   If the transaction fails: reject the messages through the hub, then complete the tasks with OSError, and keep
   ``_last_id``, so that the ids are used again. Fences pass in both cases.

Why it is correct:

* All published messages are on the disk, because the hub is called only after the commit.
* There is one order, because one thread assigns ids and publishes in the order of the inbox.
* A fence passes after all batches that were put before it: these are in the same or an earlier transaction, and tasks
  are completed after the batches of their transaction.
* A name belongs to an account or to a guest, never to both. A guest claims its name before its task is put. If an
  account with the name was created before that task, the task finds the account. For a later account, the journal
  thread finds the claim and creates nothing.
* No wake-up is lost. The journal thread waits only while the inbox is empty, and the caller that fills an empty inbox
  notifies it. Callers wait only while the inbox is full, and the thread that empties a full inbox notifies all of them.

``_lock`` guards the inbox, ``_probe`` and ``_closed``. No other lock of the server is taken, and nothing slow is done,
while it is held.
"""

from __future__ import annotations

import sqlite3
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, NamedTuple, Protocol

import structlog

from chatprotocol.errors import ErrorCode
from chatprotocol.events import Refused
from chatserver.chat.batch import MessageBatch
from chatserver.store.accounts import admit_guest, insert_account, replace_password_hash, update_delivered
from chatserver.store.database import touch_page
from chatserver.store.errors import StoreError, describe
from chatserver.store.messages import find_direct_nonce, find_public_nonce, insert_direct, insert_public
from chatserver.threads import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from chatserver.chat.delivery_marks import DeliveryMarks
    from chatserver.chat.hub import Hub
    from chatserver.store.accounts import Account
    from chatserver.store.database import Database

_log = structlog.get_logger()

# Maximum entries in the inbox; callers wait while it is full. At 8 KiB each, 32 MiB of text. One batch may exceed it.
INBOX_MAX_MESSAGES = 4_096

# Gathering: during its round the sender sends no newer messages, so small commits before the end of the round cost a
# sync each and gain little. An inbox with fewer than GATHER_MESSAGES waits for that end, GATHER_SECONDS at most.
GATHER_SECONDS = 0.005
GATHER_MESSAGES = 256

# Errors of a transaction: the disk fails or is full, or a database file was removed or replaced.
_WRITE_ERRORS = (sqlite3.Error, OSError, StoreError)


class JournalClosedError(Exception):
    """The server is shutting down; nothing more is written."""


class Journal(Protocol):
    """Durable storage of messages and accounts. :class:`LocalJournal` implements it with SQLite."""

    def append(self, batches: Sequence[MessageBatch]) -> None:
        """Accept messages. Blocks while the inbox is full. JournalClosedError: it is shut down."""

    def wait_for_pending(self) -> None:
        """Wait until every message appended before has been published or refused."""

    def create_account(self, name: str, password_hash: str) -> Account | None:
        """Create an account and return it after the commit; None if the name is taken.

        OSError: it can't be stored. JournalClosedError: the journal is shut down.
        """

    def admit_guest(self, name: str) -> Account | None:
        """Return the account that stands for a guest; None if the name belongs to a registered account.

        The caller must have claimed the name before: see ``is_claimed`` of :class:`LocalJournal`. No account can be
        created with the name while the claim lasts. OSError: it can't be stored. JournalClosedError: it is shut down.
        """

    def replace_password_hash(self, account: Account, password_hash: str) -> Future[Account | None]:
        """Replace the password hash of ``account``, which holds the hash that the password was checked against.

        The result is None if the hash has changed since. The future fails with OSError if the hash can't be stored, and
        with JournalClosedError if the journal thread ends first. Raises JournalClosedError if it is shut down already.
        """


class _NewAccount(NamedTuple):
    name: str
    password_hash: str
    outcome: Future[Account | None]


class _GuestAdmission(NamedTuple):
    name: str
    outcome: Future[Account | None]


class _HashChange(NamedTuple):
    account: Account
    password_hash: str
    outcome: Future[Account | None]


class _Fence(NamedTuple):
    passed: threading.Event


class _Probe(NamedTuple):
    outcome: Future[Account | None]


_Task = _NewAccount | _GuestAdmission | _HashChange | _Fence | _Probe


class _Inbox:
    """Entries to be written. Both lists are in order of arrival; tasks are completed after the batches."""

    __slots__ = ("batches", "size", "tasks")

    def __init__(self) -> None:
        self.batches: list[MessageBatch] = []
        self.tasks: list[_Task] = []
        self.size = 0

    def add(self, batches: Sequence[MessageBatch], tasks: Sequence[_Task]) -> None:
        self.batches.extend(batches)
        self.tasks.extend(tasks)
        self.size += sum(len(batch.texts) for batch in batches) + len(tasks)


class LocalJournal:
    """A journal in one SQLite database, with one thread that commits in groups.

    ``now_ms`` returns milliseconds since 1970 UTC. ``is_claimed`` returns whether a guest uses a name. The journal
    calls both in its own thread only.
    """

    def __init__(
        self,
        database: Database,
        hub: Hub,
        marks: DeliveryMarks,
        last_id: int,
        now_ms: Callable[[], int],
        is_claimed: Callable[[str], bool],
        on_crash: Callable[[str], None],
        inbox_max_messages: int = INBOX_MAX_MESSAGES,
    ) -> None:
        self._inbox_max_messages = inbox_max_messages
        self._database = database
        self._hub = hub
        self._marks = marks
        self._now_ms = now_ms
        self._is_claimed = is_claimed
        self._worker = Worker("journal", self._run, on_crash)
        # Journal thread only. The id of the last committed message.
        self._last_id = last_id
        # Journal thread only. True while an error lasts, so that it is logged once.
        self._failing = False
        self._checkpoint_failing = False
        self._state_file_failing = False
        # Guards the inbox, the probe and the closed flag.
        self._lock = threading.Lock()
        self._filled = threading.Condition(self._lock)
        self._emptied = threading.Condition(self._lock)
        self._inbox = _Inbox()
        self._probe: Future[Account | None] | None = None
        self._closed = False
        self._ended = threading.Event()

    def start(self) -> None:
        self._worker.start()

    def stop(self) -> None:
        """Write and publish all accepted entries, then join the journal thread."""
        with self._lock:
            self._closed = True
            self._filled.notify()
            self._emptied.notify_all()
        self._worker.join()

    def save_marks(self) -> None:
        """Save the delivery marks that moved after the end of the journal thread. For the thread that called stop."""
        marks = self._marks.unsaved()
        if not marks:
            return
        try:
            with self._database.transaction() as connection:
                update_delivered(connection, marks.items())
        except _WRITE_ERRORS as error:  # the messages are delivered again at the next login
            _log.error("delivery marks not saved", error=describe(error))

    @property
    def pending(self) -> int:
        """Number of messages and tasks in the inbox. For any thread."""
        with self._lock:
            return self._inbox.size

    def append(self, batches: Sequence[MessageBatch]) -> None:
        """Accept messages. Blocks while the inbox is full. JournalClosedError: it is shut down."""
        self._put(batches, ())

    def wait_for_pending(self) -> None:
        """Wait until every message appended before has been published or refused."""
        passed = threading.Event()
        try:
            self._put((), [_Fence(passed)])
        except JournalClosedError:
            passed = self._ended  # the last batches may not be committed yet
        passed.wait()

    def create_account(self, name: str, password_hash: str) -> Account | None:
        """Create an account and return it after the commit; None if the name is taken.

        OSError: it can't be stored. JournalClosedError: the journal is shut down.
        """
        outcome: Future[Account | None] = Future()
        self._put((), [_NewAccount(name, password_hash, outcome)])
        return outcome.result()

    def admit_guest(self, name: str) -> Account | None:
        """Return the account that stands for a guest; None if the name belongs to a registered account."""
        outcome: Future[Account | None] = Future()
        self._put((), [_GuestAdmission(name, outcome)])
        return outcome.result()

    def replace_password_hash(self, account: Account, password_hash: str) -> Future[Account | None]:
        """Replace the password hash of ``account``; see :class:`Journal`."""
        outcome: Future[Account | None] = Future()
        self._put((), [_HashChange(account, password_hash, outcome)])
        return outcome

    def probe(self, timeout_seconds: float) -> bool:
        """True if the disk takes a write that changes no data, within the timeout. For any thread.

        Concurrent callers share one probe: many callers cost one write.
        """
        with self._lock:
            if self._closed:
                return False
            if self._probe is None or self._probe.done():
                self._probe = Future()
                if not self._inbox.size:
                    self._filled.notify()
                self._inbox.add((), [_Probe(self._probe)])  # even if the inbox is full: it holds at most one probe
            outcome = self._probe
        try:
            outcome.result(timeout_seconds)
        except (TimeoutError, OSError, JournalClosedError):
            return False
        return True

    def _put(self, batches: Sequence[MessageBatch], tasks: Sequence[_Task]) -> None:
        with self._lock:
            while self._inbox.size >= self._inbox_max_messages and not self._closed:
                self._emptied.wait()
            if self._closed:
                raise JournalClosedError
            if not self._inbox.size:
                self._filled.notify()
            self._inbox.add(batches, tasks)

    def _take_inbox(self) -> _Inbox:
        """Take the whole inbox. The result is empty only after the journal was closed and all entries were taken."""
        with self._lock:
            while not self._inbox.size and not self._closed:
                self._filled.wait()
            gathers = self._inbox.batches and self._inbox.size < GATHER_MESSAGES
        if gathers:
            self._hub.wait_for_sender(GATHER_SECONDS)
        with self._lock:
            if self._inbox.size >= self._inbox_max_messages:
                self._emptied.notify_all()
            taken, self._inbox = self._inbox, _Inbox()
            return taken

    def _run(self) -> None:
        taken = _Inbox()
        try:
            while (taken := self._take_inbox()).size:
                self._commit(taken)
            self._commit(taken)
        finally:
            self._release_callers(taken)

    def _release_callers(self, taken: _Inbox) -> None:
        """Release all waiting threads when the journal thread ends, normally or by a crash.

        ``taken`` are the entries of the current round; some of its tasks may be complete already.
        """
        with self._lock:
            self._closed = True
            rest, self._inbox = self._inbox, _Inbox()
            self._emptied.notify_all()
        for task in [*taken.tasks, *rest.tasks]:
            self._complete_task(task, JournalClosedError())
        self._ended.set()

    def _commit(self, taken: _Inbox) -> None:
        """Commit the entries in one transaction, then publish the messages and complete the tasks."""
        batches, tasks = taken.batches, taken.tasks
        marks = self._marks.unsaved()
        try:
            with self._database.transaction() as connection:
                changes = connection.total_changes
                stored, last_id = self._store_batches(connection, batches)
                outcomes = [self._run_task(connection, task) for task in tasks]
                update_delivered(connection, marks.items())
                # A transaction without writes succeeds even on a full disk, so it does not prove that the disk works.
                wrote = connection.total_changes > changes or any(isinstance(task, _Probe) for task in tasks)
        except _WRITE_ERRORS as error:
            self._refuse_all(taken, error)
            return
        self._note_commit(last_id, outcomes)
        if self._failing and wrote:
            self._failing = False
            _log.info("journal recovered")
        self._last_id = last_id
        self._marks.mark_saved(marks)
        if stored:
            self._hub.publish(stored)
        for task, outcome in zip(tasks, outcomes, strict=True):
            self._complete_task(task, outcome)
        self._truncate_log()

    def _note_commit(self, last_id: int, outcomes: Sequence[Account | None]) -> None:
        """Record the commit in chat.state, for the check at the next start. Called before anything is published."""
        try:
            self._database.note_commit(last_id, max((each.id for each in outcomes if each is not None), default=0))
            self._state_file_failing = False
        except OSError as error:
            if not self._state_file_failing:  # retried after each commit
                _log.error("state file write failed", error=str(error))
            self._state_file_failing = True

    def _truncate_log(self) -> None:
        try:
            self._database.truncate_log()
            self._checkpoint_failing = False
        except (sqlite3.Error, OSError) as error:
            if not self._checkpoint_failing:  # retried after each commit
                _log.error("checkpoint failed", error=describe(error))
            self._checkpoint_failing = True

    def _store_batches(
        self, connection: sqlite3.Connection, batches: Sequence[MessageBatch]
    ) -> tuple[list[MessageBatch], int]:
        """Assign ids and a time and insert the batches; return the batches to publish and the last id."""
        time_ms = self._now_ms()
        last_id = self._last_id
        stored: list[MessageBatch] = []
        for batch in batches:
            parts = _store(connection, batch, last_id + 1, time_ms)
            last_id = max(last_id, *(part.last_id for part in parts))  # a repeated message has its old id
            stored += parts
        return stored, last_id

    def _run_task(self, connection: sqlite3.Connection, task: _Task) -> Account | None:
        match task:
            case _NewAccount(name, password_hash) if not self._is_claimed(name):
                return insert_account(connection, name, password_hash, self._now_ms())
            case _GuestAdmission(name):
                return admit_guest(connection, name, self._now_ms())
            case _HashChange(account, password_hash):
                return account if replace_password_hash(connection, account, password_hash) else None
            case _Probe():
                touch_page(connection)
        return None

    def _complete_task(self, task: _Task, outcome: Account | Exception | None) -> None:
        if isinstance(task, _Fence):
            task.passed.set()
        elif not task.outcome.done():
            if isinstance(outcome, Exception):
                task.outcome.set_exception(outcome)
            else:
                task.outcome.set_result(outcome)

    def _refuse_all(self, taken: _Inbox, error: Exception) -> None:
        """Reject all entries of a failed transaction. The journal continues, because the disk may recover."""
        if not self._failing:
            self._failing = True
            _log.error("journal failed", error=describe(error))
        if taken.batches:
            reason = "The server can't write to its disk; the message was not stored."
            self._hub.refuse(taken.batches, Refused(ErrorCode.INTERNAL, reason))
        for task in taken.tasks:
            self._complete_task(task, OSError(describe(error)))


def _store(connection: sqlite3.Connection, batch: MessageBatch, first_id: int, time_ms: int) -> list[MessageBatch]:
    """Insert a batch and return the batches to publish.

    The batch is inserted as a whole if none of its nonces was used before, else message by message.
    """
    batch.id, batch.time_ms = first_id, time_ms
    if _insert(connection, batch):
        return [batch]
    if len(batch.texts) == 1:
        batch.id, batch.repeated = _find_earlier(connection, batch), True
        return [batch]
    stored: list[MessageBatch] = []
    for text, nonce in zip(batch.texts, batch.nonces, strict=True):
        single = MessageBatch(batch.member, [text], [nonce])
        stored += _store(connection, single, first_id, time_ms)
        first_id += not single.repeated
    return stored


def _insert(connection: sqlite3.Connection, batch: MessageBatch) -> bool:
    """Insert the batch. Returns False, and inserts nothing, if a nonce was used before."""
    sender_id = batch.member.account_id
    if batch.recipient is None:
        return insert_public(connection, batch.id, batch.time_ms, sender_id, batch.texts, batch.nonces)
    (text,), (nonce,) = batch.texts, batch.nonces
    return insert_direct(connection, batch.id, batch.time_ms, sender_id, batch.recipient.id, text, nonce)


def _find_earlier(connection: sqlite3.Connection, batch: MessageBatch) -> int:
    """Return the id of the sender's earlier message with the same nonce."""
    (nonce,) = batch.nonces
    assert nonce is not None
    find = find_public_nonce if batch.recipient is None else find_direct_nonce
    return find(connection, batch.member.account_id, nonce)
