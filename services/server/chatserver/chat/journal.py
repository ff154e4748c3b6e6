"""The journal: gives every message its place in the one order, and puts it on the disk before anybody sees it."""

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
from chatserver.store.database import write_nothing_new
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

# Messages that may wait for the disk before their senders do: at 8 KiB each, 32 MiB of text, and what one read brings.
INBOX_MAX_MESSAGES = 4_096

# While the courier goes round, nobody is sent anything newer: to commit a few messages at a time meanwhile costs a sync
# each and gains little. So a small batch gathers more until the courier is back, but for no longer than this.
GATHER_SECONDS = 0.005
GATHER_MESSAGES = 256

# What a transaction raises: the disk refuses it, or the files are not those that were opened.
_NOT_STORED = (sqlite3.Error, OSError, StoreError)


class JournalClosedError(Exception):
    """The server is shutting down; nothing more is written."""


class Journal(Protocol):
    """Where messages and accounts are made to last. One implementation writes SQLite; others may follow."""

    def append(self, batches: Sequence[MessageBatch]) -> None:
        """Take messages. Waits while too many do; raises JournalClosedError when it takes no more."""

    def wait_for_pending(self) -> None:
        """Wait until everything that was posted before has been published or refused."""

    def create_account(self, name: str, password_hash: str) -> Account | None:
        """Register an account, or None when the name is taken. On return it is on the disk; raises OSError."""

    def admit_guest(self, name: str) -> Account | None:
        """What a guest posts as, or None when the name is an account's. From now on it is no account's; raises OSError.

        The guest has claimed the name before: see ``is_claimed``.
        """

    def replace_password_hash(self, account: Account, password_hash: str) -> Future[Account | None]:
        """Replace the hash that the account had when its password was checked.

        The outcome is None if it has another one by now; OSError or JournalClosedError if it can't be stored.
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


_Entry = _NewAccount | _GuestAdmission | _HashChange | _Fence | _Probe


class _Inbox:
    """What waits to be written. Both lists are in the order in which things came; errands are answered after posts."""

    __slots__ = ("batches", "errands", "size")

    def __init__(self) -> None:
        self.batches: list[MessageBatch] = []
        self.errands: list[_Entry] = []
        self.size = 0

    def add(self, batches: Sequence[MessageBatch], errands: Sequence[_Entry]) -> None:
        self.batches.extend(batches)
        self.errands.extend(errands)
        self.size += sum(len(batch.texts) for batch in batches) + len(errands)


class LocalJournal:
    """One thread takes all that waits in the inbox and commits it in one transaction: group commit.

    ``now_ms`` is the clock: milliseconds since 1970 UTC. It is asked in this thread alone. ``is_claimed`` says whether
    a guest uses a name: what comes first, the account or the guest, has it, and that is decided in this thread.
    """

    def __init__(
        self,
        database: Database,
        hub: Hub,
        deliveries: DeliveryMarks,
        last_id: int,
        now_ms: Callable[[], int],
        is_claimed: Callable[[str], bool],
        on_crash: Callable[[str], None],
    ) -> None:
        self._database = database
        self._hub = hub
        self._deliveries = deliveries
        self._now_ms = now_ms
        self._is_claimed = is_claimed
        self._worker = Worker("journal", self._run, on_crash)
        # The journal thread's own: the last id that was committed.
        self._last_id = last_id
        self._failing = False
        self._overgrown = False
        self._forgetful = False
        # Guards the inbox and what is said of it below.
        self._lock = threading.Lock()
        self._filled = threading.Condition(self._lock)
        self._emptied = threading.Condition(self._lock)
        self._inbox = _Inbox()
        self._probe: Future[Account | None] | None = None
        self._closed = False
        self._ended = threading.Event()

    def start(self) -> None:
        """Start to write."""
        self._worker.start()

    def stop(self) -> None:
        """Write and publish everything that was accepted, then end."""
        with self._lock:
            self._closed = True
            self._filled.notify()
            self._emptied.notify_all()
        self._worker.join()

    def save_deliveries(self) -> None:
        """Write what was delivered after the journal had ended. For the thread that stopped it."""
        deliveries = self._deliveries.unsaved()
        if not deliveries:
            return
        try:
            with self._database.transaction() as connection:
                update_delivered(connection, deliveries.items())
        except _NOT_STORED as error:  # those messages are delivered once more
            _log.error("delivered marks not saved", error=describe(error))

    def append(self, batches: Sequence[MessageBatch]) -> None:
        """Take messages. Waits while too many do; raises JournalClosedError when it takes no more."""
        self._put(batches, ())

    def wait_for_pending(self) -> None:
        """Wait until everything that was posted before has been published or refused."""
        passed = threading.Event()
        try:
            self._put((), [_Fence(passed)])
        except JournalClosedError:
            passed = self._ended  # the last batches may be on their way to the disk
        passed.wait()

    def create_account(self, name: str, password_hash: str) -> Account | None:
        """Register an account, or None when the name is taken. On return it is on the disk; raises OSError."""
        outcome: Future[Account | None] = Future()
        self._put((), [_NewAccount(name, password_hash, outcome)])
        return outcome.result()

    def admit_guest(self, name: str) -> Account | None:
        """What a guest posts as, or None when the name is an account's; raises OSError."""
        outcome: Future[Account | None] = Future()
        self._put((), [_GuestAdmission(name, outcome)])
        return outcome.result()

    def replace_password_hash(self, account: Account, password_hash: str) -> Future[Account | None]:
        """Replace the hash that the account had when its password was checked."""
        outcome: Future[Account | None] = Future()
        self._put((), [_HashChange(account, password_hash, outcome)])
        return outcome

    def probe(self, timeout_seconds: float) -> bool:
        """True if something can be committed now: it is tried, with a write that changes nothing. For any thread.

        Those who ask at the same time share one try, so that many of them cost no more than one.
        """
        with self._lock:
            if self._closed:
                return False
            if self._probe is None or self._probe.done():
                self._probe = Future()
                if not self._inbox.size:
                    self._filled.notify()
                self._inbox.add((), [_Probe(self._probe)])  # whether there is room or not: there is one at most
            outcome = self._probe
        try:
            outcome.result(timeout_seconds)
        except (TimeoutError, OSError, JournalClosedError):
            return False
        return True

    def _put(self, batches: Sequence[MessageBatch], errands: Sequence[_Entry]) -> None:
        with self._lock:
            while self._inbox.size >= INBOX_MAX_MESSAGES and not self._closed:
                self._emptied.wait()
            if self._closed:
                raise JournalClosedError
            if not self._inbox.size:
                self._filled.notify()
            self._inbox.add(batches, errands)

    def _take(self) -> _Inbox:
        """All that waits; nothing at the end."""
        with self._lock:
            while not self._inbox.size and not self._closed:
                self._filled.wait()
            gathers = self._inbox.batches and self._inbox.size < GATHER_MESSAGES
        if gathers:
            self._hub.wait_for_sender(GATHER_SECONDS)
        with self._lock:
            if self._inbox.size >= INBOX_MAX_MESSAGES:
                self._emptied.notify_all()
            taken, self._inbox = self._inbox, _Inbox()
            return taken

    def _run(self) -> None:
        taken = _Inbox()
        try:
            while (taken := self._take()).size:
                self._write(taken)
            self._write(taken)
        finally:
            self._abandon(taken)

    def _abandon(self, taken: _Inbox) -> None:
        """Let nobody wait for a thread that has ended, were it by a fault in the middle of its work."""
        with self._lock:
            self._closed = True
            left, self._inbox = self._inbox, _Inbox()
            self._emptied.notify_all()
        for errand in [*taken.errands, *left.errands]:
            self._answer(errand, JournalClosedError())
        self._ended.set()

    def _write(self, taken: _Inbox) -> None:
        """One group commit; then, and only then, what it held is published."""
        batches, errands = taken.batches, taken.errands
        deliveries = self._deliveries.unsaved()
        try:
            with self._database.transaction() as connection:
                changes = connection.total_changes
                stored, last_id = self._store_batches(connection, batches)
                outcomes = [self._do(connection, errand) for errand in errands]
                update_delivered(connection, deliveries.items())
                # A transaction that wrote nothing succeeds on a full disk, too.
                wrote = connection.total_changes > changes or any(isinstance(errand, _Probe) for errand in errands)
        except _NOT_STORED as error:
            self._fail(taken, error)
            return
        self._note_commit(last_id, outcomes)
        if self._failing and wrote:
            self._failing = False
            _log.info("The disk accepts writes again")
        self._last_id = last_id
        self._deliveries.note_saved(deliveries)
        if stored:
            self._hub.publish(stored)
        for errand, outcome in zip(errands, outcomes, strict=True):
            self._answer(errand, outcome)
        self._trim_log()

    def _note_commit(self, last_id: int, outcomes: Sequence[Account | None]) -> None:
        """For the next start, before anybody is told."""
        try:
            self._database.note_commit(last_id, max((each.id for each in outcomes if each is not None), default=0))
            self._forgetful = False
        except OSError as error:
            if not self._forgetful:  # it is tried again after each commit
                _log.error("chat.state can't be written; losses of data may go unnoticed", error=str(error))
            self._forgetful = True

    def _trim_log(self) -> None:
        try:
            self._database.trim_log()
            self._overgrown = False
        except (sqlite3.Error, OSError) as error:
            if not self._overgrown:  # it is tried again after each commit
                _log.error("The write-ahead log can't be folded into the database", error=describe(error))
            self._overgrown = True

    def _store_batches(
        self, connection: sqlite3.Connection, batches: Sequence[MessageBatch]
    ) -> tuple[list[MessageBatch], int]:
        """Give each post its id and time and insert it; returns what is to be published, and the last id."""
        time_ms = self._now_ms()
        last_id = self._last_id
        stored: list[MessageBatch] = []
        for batch in batches:
            parts = _store(connection, batch, last_id + 1, time_ms)
            last_id = max(last_id, *(part.last_id for part in parts))  # what is repeated has an id from before
            stored += parts
        return stored, last_id

    def _do(self, connection: sqlite3.Connection, errand: _Entry) -> Account | None:
        match errand:
            case _NewAccount(name, password_hash) if not self._is_claimed(name):
                return insert_account(connection, name, password_hash, self._now_ms())
            case _GuestAdmission(name):
                return admit_guest(connection, name, self._now_ms())
            case _HashChange(account, password_hash):
                return account if replace_password_hash(connection, account, password_hash) else None
            case _Probe():
                write_nothing_new(connection)
        return None

    def _answer(self, errand: _Entry, outcome: Account | Exception | None) -> None:
        """Let the thread that waits for the errand go on."""
        if isinstance(errand, _Fence):
            errand.passed.set()
        elif not errand.outcome.done():
            if isinstance(outcome, Exception):
                errand.outcome.set_exception(outcome)
            else:
                errand.outcome.set_result(outcome)

    def _fail(self, taken: _Inbox, error: Exception) -> None:
        """Nothing was stored: say so to everybody who waits, and go on; there may be room again soon."""
        if not self._failing:
            self._failing = True
            _log.error("The disk refuses writes; senders are told so, and nothing is confirmed", error=describe(error))
        if taken.batches:
            reason = "The server can't write to its disk; the message was not stored."
            self._hub.refuse(taken.batches, Refused(ErrorCode.INTERNAL, reason))
        for errand in taken.errands:
            self._answer(errand, OSError(describe(error)))


def _store(connection: sqlite3.Connection, batch: MessageBatch, first_id: int, time_ms: int) -> list[MessageBatch]:
    """Insert a post, as a whole where none of its messages was sent before, else one by one."""
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
    """False, and nothing was inserted: a nonce was used before."""
    sender_id = batch.member.account_id
    if batch.recipient is None:
        return insert_public(connection, batch.id, batch.time_ms, sender_id, batch.texts, batch.nonces)
    (text,), (nonce,) = batch.texts, batch.nonces
    return insert_direct(connection, batch.id, batch.time_ms, sender_id, batch.recipient.id, text, nonce)


def _find_earlier(connection: sqlite3.Connection, batch: MessageBatch) -> int:
    """The id of the message that the sender sent with the same nonce before."""
    (nonce,) = batch.nonces
    assert nonce is not None
    find = find_public_nonce if batch.recipient is None else find_direct_nonce
    return find(connection, batch.member.account_id, nonce)
