"""The indexer: a thread that keeps the search index up to date, and ``search`` for all other threads.

The thread opens the index, then indexes new messages in slices until all are indexed. Then it sleeps until a search
needs a newer message or reports an error, at most POLL_SECONDS. After an error the thread closes the index, deletes a
damaged file or waits _RETRY_SECONDS, and opens the index again; meanwhile searches fail. If SQLite lacks FTS5, the
thread ends and every search is rejected.

Deletions have numbers, and are done in this order before later messages are indexed. The thread removes the words of a
deleted message if :meth:`Indexer.note_deleted` has told its text. An indexed message whose text is not known makes the
index stale: the process ended before, or the messages of a user are erased in bulk. The file is then deleted and built
again. Meanwhile no search finds the message, because the store decides what is visible.

Messages that are removed because of their age leave their words in the index, which no search shows. When half of the
indexed ids are gone, the index is stale as well. So all rebuilding together costs no more than indexing did.

A search runs in its caller's thread. The search waits until the index contains the newest message, at most
WAIT_SECONDS, then queries the index without the lock. If the index is stale and is closed meanwhile, the search waits
for the next one. If the query fails, the search stores the error in ``_fault``, and the thread repairs the index.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import structlog

from chatprotocol.errors import ErrorCode, RequestError
from chatserver.store.errors import StoreError, describe
from chatserver.store.rooms import LOBBY_ID
from chatserver.store.search_index import Index, IndexClosedError, NoFtsError, TooLongError, remove_index
from chatserver.store.search_turns import WAIT_SECONDS as TURN_SECONDS
from chatserver.store.search_turns import NoTurnError, SearchTurns, TurnsClosedError
from chatserver.threads import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence
    from pathlib import Path

    from chatprotocol.events import Message
    from chatserver.store.messages import IndexedMessage, Messages
    from chatserver.store.words import Term

_log = structlog.get_logger()

# Maximum wait of a search for the index to contain all messages that were published before it.
WAIT_SECONDS = 2.0
# Poll interval for new messages while no search waits.
POLL_SECONDS = 1.0
# Messages per transaction: about 10 ms, most of it in SQLite, which releases the GIL.
_SLICE_MESSAGES = 500
# New messages per second above which the server counts as busy, and the interval of that measurement.
_BUSY_MESSAGES = 5_000
_BUSY_INTERVAL_SECONDS = 0.2
# Pause after a slice, as a multiple of the slice's time: on a busy server without a waiting search, and otherwise.
_BUSY_PAUSE = 20.0
_PAUSE = 1.0
_PAUSE_MAX_SECONDS = 0.2
# Deletions per transaction, and texts of deleted messages that are kept for them.
_SLICE_DELETIONS = 500
_DELETED_MAX_MESSAGES = 1_000
# Time after which a deletion without a text makes the index stale: the text arrives right after the commit.
_STALE_SECONDS = 5.0
# Delay of the next attempt if the file can't be used.
_RETRY_SECONDS = 30.0


class IndexerTimes(NamedTuple):
    """Time limits and pauses of the indexer."""

    timeout_seconds: float = WAIT_SECONDS
    poll_seconds: float = POLL_SECONDS
    retry_seconds: float = _RETRY_SECONDS
    pause: float = _PAUSE
    pause_max_seconds: float = _PAUSE_MAX_SECONDS
    stale_seconds: float = _STALE_SECONDS


_TIMES = IndexerTimes()
_FAULTS = (sqlite3.Error, OSError, StoreError)


class _StaleError(Exception):
    """The index has a deleted message that it can't forget."""


class SearchFailedError(Exception):
    """The index can't be used now. The reason is in the log."""


class SearchClosedError(Exception):
    """The server is shutting down and answers no more searches."""


class Indexer:
    """One thread reads stored messages and indexes their words, with pauses so that delivery does not slow down.

    An error of the index affects searches only, and only until the index is rebuilt.
    """

    def __init__(
        self,
        folder: Path,
        messages: Messages,
        on_crash: Callable[[str], None],
        times: IndexerTimes = _TIMES,
        open_index: Callable[[Path, Callable[[int], str | None]], Index] = Index,
    ) -> None:
        self._times = times
        self._open_index = open_index
        self._folder = folder
        self._messages = messages
        self._worker = Worker("indexer", self._run, on_crash)
        self._turns = SearchTurns()
        # Guards all attributes below. The thread reads some without it; see _index_messages.
        self._lock = threading.Lock()
        # Wakes the thread: a search waits for a newer message or has failed, or the indexer stops.
        self._work_available = threading.Condition(self._lock)
        # Wakes searches: the index grew, was closed or failed, or the indexer stops.
        self._index_changed = threading.Condition(self._lock)
        self._index: Index | None = None
        # The last error; None while the index is usable.
        self._fault: Exception | None = None
        self._closed = False
        # Deleted messages as they were, by id; true if one came since the thread looked; and the time since which the
        # text of the next deletion is missing.
        self._deleted: dict[int, IndexedMessage] = {}
        self._was_deleted = False
        self._missing_since: float | None = None
        # True if messages were removed because of their age, perhaps before the start.
        self._was_pruned = True
        # True if the file must be built again. Only the indexer thread uses it.
        self._is_stale = False
        # The newest message that a search waits for, and the newest message that is indexed.
        self._requested_id = 0
        self._indexed_id = 0

    def start(self) -> None:
        self._worker.start()

    def stop(self) -> None:
        """Make searches fail with SearchClosedError and join the thread. The next start indexes the rest."""
        with self._lock:
            self._closed = True
            self._work_available.notify_all()
            self._index_changed.notify_all()
        self._turns.close()
        self._worker.join()

    def note_deleted(self, message: IndexedMessage) -> None:
        """Forget a deleted message, which is given as it was. For any thread; it does not wait."""
        with self._lock:
            if len(self._deleted) < _DELETED_MAX_MESSAGES:  # without the others, the index is stale
                self._deleted[message.id] = message
                self._was_deleted = True
                self._work_available.notify()

    def note_pruned(self) -> None:
        """Let the indexer check for messages that were removed because of their age. For any thread; does not wait."""
        with self._lock:
            self._was_pruned = True
            self._work_available.notify()

    def search(
        self,
        terms: Sequence[Term],
        reader_id: int,
        before_id: int,
        limit: int,
        newest_id: int,
        room_id: int = LOBBY_ID,
        other_id: int | None = None,
        first_id: int = 0,
    ) -> tuple[Collection[Message], int]:
        """The newest messages with these terms that the account may see, oldest first; and the last id searched.

        The messages are those of the room, or of the lobby and the account's direct messages, or only the direct
        messages between the account and ``other_id``. None is older than ``first_id``.
        Waits at most WAIT_SECONDS for the index to contain ``newest_id``. Raises SearchFailedError,
        SearchClosedError, StoreError; RequestError if the search takes too long or SQLite lacks FTS5. For any thread.
        """
        index, reached_id = self._wait_for(newest_id)
        try:
            with self._turns.turn(reader_id):
                try:
                    ids = index.find(terms, reader_id, before_id, limit, room_id, other_id)
                except IndexClosedError:  # it is built again, or has failed
                    index, reached_id = self._wait_for(newest_id)
                    ids = index.find(terms, reader_id, before_id, limit, room_id, other_id)
        except TurnsClosedError as error:
            raise SearchClosedError from error
        except NoTurnError as error:
            reason = "Too many searches wait; try again in a few seconds."
            raise RequestError(ErrorCode.RATE_LIMITED, reason, retry_seconds=TURN_SECONDS) from error
        except IndexClosedError as error:
            raise (SearchClosedError if self._closed else SearchFailedError) from error
        except TooLongError as error:
            reason = "That takes too long to find; send fewer words, or such as are rarer."
            raise RequestError(ErrorCode.BAD_REQUEST, reason) from error
        except sqlite3.Error as error:
            self._report_failure(index, error)
            raise SearchFailedError from error
        ids = [each for each in ids if each >= first_id]
        return self._messages.visible(reader_id, ids, room_id, other_id), min(reached_id, newest_id)

    def _wait_for(self, newest_id: int) -> tuple[Index, int]:
        deadline = time.monotonic() + self._times.timeout_seconds
        with self._lock:
            if newest_id > self._indexed_id:
                self._requested_id = max(self._requested_id, newest_id)
                self._work_available.notify()
            while not self._closed and self._fault is None and (self._index is None or self._indexed_id < newest_id):
                left_seconds = deadline - time.monotonic()
                if left_seconds <= 0:
                    break
                self._index_changed.wait(left_seconds)
            if self._closed:
                raise SearchClosedError
            if isinstance(self._fault, NoFtsError):
                raise RequestError(ErrorCode.INTERNAL, "This server can't search: its SQLite was built without FTS5.")
            if self._index is None:
                raise SearchFailedError
            return self._index, self._indexed_id

    def _run(self) -> None:
        while not self._closed:
            try:
                self._index_messages(self._open())
            except _StaleError:
                _log.info("search index outdated")
                self._is_stale = True
            except NoFtsError as error:
                _log.warning("search unavailable", reason="no_fts5")
                self._note_fault(error)
                return
            except _FAULTS as error:
                self._log_fault(error)
            finally:
                self._close_index()
            self._repair()

    def _open(self) -> Index:
        index = self._open_index(self._folder, self._messages.fingerprint)
        with self._lock:
            self._index = index
            self._indexed_id = index.last_id
            self._fault = None
        return index

    def _index_messages(self, index: Index) -> None:
        """Index new messages in slices until the indexer stops. Also raises the errors that searches stored in _fault.

        ``_closed``, ``_fault`` and ``_requested_id`` are read without the lock: each read is atomic, a stale value is
        corrected in the next round, and the waits check again under the lock. Only this thread writes ``_indexed_id``.
        """
        pace = Pace(self._messages.last_id, self._times)
        while not self._closed:
            if self._fault is not None:
                raise self._fault
            began = time.monotonic()
            # Read before the query: the message was committed before a search asked for it, so the query finds it.
            wanted_id = self._requested_id
            self._remove_deleted(index)
            self._check_pruned(index)
            messages = self._messages.after(index.last_id, _SLICE_MESSAGES)
            index.add(messages)
            is_behind = len(messages) == _SLICE_MESSAGES
            self._set_indexed(index.last_id if is_behind else max(index.last_id, wanted_id))
            if is_behind:
                self._pause(pace.pause(time.monotonic() - began, search_waits=self._requested_id > self._indexed_id))
            else:
                self._wait_for_messages()

    def _remove_deleted(self, index: Index) -> None:
        """Remove deleted messages from the index. Raises _StaleError if the text of one is not known."""
        while True:
            with self._lock:
                known = dict(self._deleted)
                self._was_deleted = False
            # Read after the texts, which arrive after the commits of their deletions.
            deletions = self._messages.deletions(index.deletions, _SLICE_DELETIONS)
            if not deletions:
                self._forget_deleted(known)  # told after the deletion was done, because the message was not indexed
                return
            removed, done = [], index.deletions
            for number, message_id in deletions:
                message = known.get(message_id)
                if message is not None:
                    removed.append(message)
                elif message_id <= index.last_id:
                    break
                done = number
            if done == index.deletions:
                self._check_missing()
                return
            index.remove(removed, done)
            self._forget_deleted(message.id for message in removed)
            self._missing_since = None

    def _forget_deleted(self, ids: Iterable[int]) -> None:
        with self._lock:
            for message_id in ids:
                self._deleted.pop(message_id, None)

    def _check_pruned(self, index: Index) -> None:
        """Raise _StaleError if half of the indexed ids are gone because of their age."""
        if not self._was_pruned:
            return
        with self._lock:
            self._was_pruned = False
        first_id = self._messages.first_id() or index.last_id + 1
        if first_id - index.first_id > index.last_id + 1 - first_id and index.last_id:
            raise _StaleError

    def _check_missing(self) -> None:
        """Raise _StaleError if a text is missing for a while: it arrives right after the commit of the deletion."""
        if self._missing_since is None:
            self._missing_since = time.monotonic()
        elif time.monotonic() - self._missing_since >= self._times.stale_seconds:
            self._missing_since = None
            raise _StaleError

    def _set_indexed(self, reached_id: int) -> None:
        with self._lock:
            self._indexed_id = reached_id
            self._index_changed.notify_all()

    def _pause(self, pause_seconds: float) -> None:
        with self._lock:
            self._work_available.wait_for(lambda: self._closed, pause_seconds)

    def _wait_for_messages(self) -> None:
        with self._lock:
            self._work_available.wait_for(
                lambda: (
                    self._closed
                    or self._fault is not None
                    or self._was_deleted
                    or self._was_pruned
                    or self._requested_id > self._indexed_id
                ),
                self._times.poll_seconds,
            )

    def _close_index(self) -> None:
        with self._lock:
            index, self._index = self._index, None
            self._indexed_id = 0
            self._index_changed.notify_all()
        if index is not None:
            with suppress(*_FAULTS):
                index.close()

    def _report_failure(self, index: Index, error: sqlite3.Error) -> None:
        """Tell the thread that a search could not read the index."""
        with self._lock:
            if self._index is index and self._fault is None:
                self._fault = error
                self._work_available.notify()

    def _note_fault(self, error: Exception) -> None:
        with self._lock:
            self._fault = error
            self._index_changed.notify_all()

    def _log_fault(self, error: Exception) -> None:
        self._note_fault(error)
        _log.error("search index failed", error=describe(error))

    def _repair(self) -> None:
        """Delete a damaged or outdated file; after any other error wait, because it may be temporary."""
        is_damaged = isinstance(self._fault, sqlite3.DatabaseError)
        if self._is_stale or (is_damaged and not isinstance(self._fault, sqlite3.OperationalError)):
            self._is_stale = False
            try:
                remove_index(self._folder)
            except OSError as error:
                self._log_fault(error)
            else:
                return
        self._pause(self._times.retry_seconds)


class Pace:
    """Chooses the pauses of the indexer, so that it does not delay messages."""

    def __init__(
        self,
        last_id: Callable[[], int],
        times: IndexerTimes = _TIMES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._last_id = last_id
        self._times = times
        self._clock = clock
        self._measured_at = clock()
        self._seen_id = last_id()
        self._is_busy = True  # until the first measurement

    def pause(self, worked_seconds: float, *, search_waits: bool) -> float:
        """The pause after a slice that took ``worked_seconds``, in seconds. ``search_waits``: a search waits."""
        passed = self._clock() - self._measured_at
        if passed >= _BUSY_INTERVAL_SECONDS:
            last_id = self._last_id()
            self._is_busy = last_id - self._seen_id > _BUSY_MESSAGES * passed
            self._measured_at, self._seen_id = self._clock(), last_id
        if search_waits:
            return worked_seconds * self._times.pause if self._is_busy else 0.0
        pause = _BUSY_PAUSE if self._is_busy else self._times.pause
        return min(worked_seconds * pause, self._times.pause_max_seconds)
