"""The journal: gives every message its place in the one order, and puts it on the disk before anybody sees it."""

from __future__ import annotations

import sqlite3
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, NamedTuple, Protocol

import structlog

from chatprotocol.errors import ErrorCode
from chatprotocol.events import Refused
from chatserver.room.post import Post
from chatserver.store.accounts import insert_account, update_delivered, update_password_hash
from chatserver.store.messages import find_direct_nonce, find_public_nonce, insert_direct, insert_public
from chatserver.threads import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from chatserver.room.feed import Feed
    from chatserver.store.accounts import Account
    from chatserver.store.database import Database

_log = structlog.get_logger()

# Posts that may wait for the disk before their senders do: at 8 KiB each, 32 MiB of text at most.
INBOX_MAX_POSTS = 4_096


class JournalClosedError(Exception):
    """The server is shutting down; nothing more is written."""


class Journal(Protocol):
    """Where messages and accounts are made to last. One implementation writes SQLite; others may follow."""

    def post(self, post: Post) -> None:
        """Take a message. Waits while too many do; raises JournalClosedError."""

    def settle(self) -> None:
        """Wait until everything that was posted before has been published or refused."""

    def enrol(self, name: str, password_hash: str) -> Account | None:
        """Register an account, or None when the name is taken. On return it is on the disk; raises OSError."""

    def change_password_hash(self, account_id: int, password_hash: str) -> None:
        """Replace a hash, some time soon."""


class _Enrolment(NamedTuple):
    name: str
    password_hash: str
    outcome: Future[Account | None]


class _HashChange(NamedTuple):
    account_id: int
    password_hash: str


class _Fence(NamedTuple):
    passed: threading.Event


_Entry = Post | _Enrolment | _HashChange | _Fence


class SqliteJournal:
    """One thread takes all that waits in the inbox and commits it in one transaction: group commit.

    ``now_ms`` is the clock: milliseconds since 1970 UTC.
    """

    def __init__(
        self,
        database: Database,
        feed: Feed,
        last_id: int,
        now_ms: Callable[[], int],
        on_crash: Callable[[str], None],
    ) -> None:
        self._database = database
        self._feed = feed
        self._now_ms = now_ms
        self._worker = Worker("journal", self._run, on_crash)
        # The journal thread's own: the last id that was committed, and the time it had.
        self._last_id = last_id
        self._last_time_ms = 0
        self._failing = False
        # Guards the inbox and what is said of it below.
        self._lock = threading.Lock()
        self._filled = threading.Condition(self._lock)
        self._emptied = threading.Condition(self._lock)
        self._inbox: list[_Entry] = []
        self._closed = False

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

    def post(self, post: Post) -> None:
        """Take a message. Waits while too many do; raises JournalClosedError."""
        self._put(post)

    def settle(self) -> None:
        """Wait until everything that was posted before has been published or refused."""
        passed = threading.Event()
        self._put(_Fence(passed))
        passed.wait()

    def enrol(self, name: str, password_hash: str) -> Account | None:
        """Register an account, or None when the name is taken. On return it is on the disk; raises OSError."""
        outcome: Future[Account | None] = Future()
        self._put(_Enrolment(name, password_hash, outcome))
        return outcome.result()

    def change_password_hash(self, account_id: int, password_hash: str) -> None:
        """Replace a hash, some time soon."""
        self._put(_HashChange(account_id, password_hash))

    def _put(self, entry: _Entry) -> None:
        with self._lock:
            while len(self._inbox) >= INBOX_MAX_POSTS and not self._closed:
                self._emptied.wait()
            if self._closed:
                raise JournalClosedError
            self._inbox.append(entry)
            if len(self._inbox) == 1:
                self._filled.notify()

    def _take(self) -> list[_Entry]:
        """All that waits; nothing at the end."""
        with self._lock:
            while not self._inbox and not self._closed:
                self._filled.wait()
            taken, self._inbox = self._inbox, []
            if len(taken) >= INBOX_MAX_POSTS:
                self._emptied.notify_all()
            return taken

    def _run(self) -> None:
        entries: Sequence[_Entry] = ()
        try:
            while entries := self._take():
                self._write(entries)
            self._write([])
        finally:
            self._abandon(entries)

    def _abandon(self, entries: Sequence[_Entry]) -> None:
        """Let nobody wait for a thread that has ended, were it by a fault in the middle of its work."""
        with self._lock:
            self._closed = True
            left, self._inbox = self._inbox, []
            self._emptied.notify_all()
        for entry in [*entries, *left]:
            self._answer(entry, JournalClosedError())

    def _write(self, entries: Sequence[_Entry]) -> None:
        """One group commit; then, and only then, what it held is published."""
        posts = [entry for entry in entries if isinstance(entry, Post)]
        rest = [entry for entry in entries if not isinstance(entry, Post)]
        deliveries = self._feed.unsaved_deliveries()
        try:
            with self._database.transaction() as connection:
                last_id = self._store_posts(connection, posts)
                outcomes = [self._store_other(connection, entry) for entry in rest]
                update_delivered(connection, deliveries.items())
        except (sqlite3.Error, OSError) as error:
            self._fail(posts, rest, error)
            return
        if self._failing:
            self._failing = False
            _log.info("The disk accepts writes again")
        self._last_id = last_id
        self._feed.saved_deliveries(deliveries)
        if posts:
            self._feed.publish(posts)
        for entry, outcome in zip(rest, outcomes, strict=True):
            self._answer(entry, outcome)
        self._trim_log()

    def _trim_log(self) -> None:
        try:
            self._database.trim_log()
        except (sqlite3.Error, OSError) as error:
            _log.error("The write-ahead log can't be folded into the database", error=str(error))

    def _store_posts(self, connection: sqlite3.Connection, posts: Sequence[Post]) -> int:
        """Give each post its id and time and insert it; returns the last id that is used."""
        self._last_time_ms = time_ms = max(self._now_ms(), self._last_time_ms)
        last_id = self._last_id
        known: dict[tuple[bool, int, str], int] = {}
        public = []
        direct = []
        for post in posts:
            sender_id = post.seat.account_id
            if post.nonce is not None:
                find = find_public_nonce if post.recipient is None else find_direct_nonce
                mark = (post.recipient is None, sender_id, post.nonce)
                earlier = known.get(mark) or find(connection, sender_id, post.nonce)
                if earlier is not None:
                    post.id, post.repeated = earlier, True
                    continue
                known[mark] = last_id + 1
            last_id += 1
            post.id, post.time_ms = last_id, time_ms
            if post.recipient is None:
                public.append((last_id, time_ms, sender_id, post.text, post.nonce))
            else:
                direct.append((last_id, time_ms, sender_id, post.recipient.id, post.text, post.nonce))
        insert_public(connection, public)
        insert_direct(connection, direct)
        return last_id

    def _store_other(self, connection: sqlite3.Connection, entry: _Enrolment | _HashChange | _Fence) -> Account | None:
        if isinstance(entry, _Enrolment):
            return insert_account(connection, entry.name, entry.password_hash, self._now_ms())
        if isinstance(entry, _HashChange):
            update_password_hash(connection, entry.account_id, entry.password_hash)
        return None

    def _answer(self, entry: _Entry, outcome: Account | Exception | None) -> None:
        """Let the thread that waits for the entry go on."""
        if isinstance(entry, _Fence):
            entry.passed.set()
        elif isinstance(entry, _Enrolment) and not entry.outcome.done():
            if isinstance(outcome, Exception):
                entry.outcome.set_exception(outcome)
            else:
                entry.outcome.set_result(outcome)

    def _fail(self, posts: Sequence[Post], rest: Sequence[_Entry], error: Exception) -> None:
        """Nothing was stored: say so to everybody who waits, and go on; there may be room again soon."""
        if not self._failing:
            self._failing = True
            _log.error("The disk refuses writes; senders are told so, and nothing is confirmed", error=str(error))
        if posts:
            self._feed.refuse(
                posts, Refused(ErrorCode.INTERNAL, "The server can't write to its disk; the message was not stored.")
            )
        for entry in rest:
            self._answer(entry, OSError(str(error)))
