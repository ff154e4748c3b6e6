"""The journal of a server that shares its log with others: all of them apply the same records in the same order.

Theory of operation
-------------------

The log (``log.py``) has records in one order, stored by a quorum. A record is a batch of entries of one server
(``records.py``). Each server applies all records to its own store. The position in the log is stored in the transaction
that applies a record, so a server continues where it stopped. SQLite need not sync: after a crash of the machine, the
server reads the lost records from the log again.

The thread of the journal publishes what is in the inbox, and does not wait: up to IN_FLIGHT_MAX batches are on their
way. It takes the records that have come back, its own and those of others, applies them in one transaction, tells the
subscribers, and completes the entries. A record comes back only after a quorum has stored it. So a
confirmed entry is stored by a quorum, and applied here.

**Each batch is applied once, in order.** A publication may be lost, repeated or overtaken. So batches are numbered, as
in TCP: the table ``log_run`` has the last number of each run, and a batch is applied if it has the next one. All
servers skip the others, because they decide from the table and the record alone:

* A number that was applied: the batch is a repetition.
* A number after a gap: an earlier batch was overtaken. Its server sees the skipped record, and publishes all batches
  that are in flight again, in order, as a new attempt with new record ids, because the log ignores repeated ids.
* Another run than the server's current one: see below.

**Runs.** Each start of a server is a run with a random name, which begins with a batch number 1 that has the entry
ServerStart. A server whose lease is over is taken for gone: another one appends ServerGone, which ends the run. From
this record on, all servers skip its batches. If it was only paused, it finds this record, begins a new run, and
publishes what is in flight in the new one: nothing is lost, and nothing is applied twice. The ServerStart of a run that
it has given up may come late, and then ends its new run: it begins another one. A ServerStart of any other run under
its own name means that another process has taken its place: it stops.

**Ready.** At its start a server publishes ServerStart. When this record comes back and is applied, it has applied all
that was confirmed before, and may serve clients.

**No quorum.** While the log has a problem, appends fail with LogUnavailableError at once. Those in flight stay there:
they may be stored, so they are neither confirmed nor failed until their records come back. Failed appends of an origin
that has some in flight wait for these, because a user gets the answers in the order of the messages. Nothing else waits
for them: a fence is over as soon as the subscribers know of all that the store has.

An entry that can't be applied because of its values is skipped by all servers alike (see ``_apply_one_by_one``); an
error of the disk is not skipped: the transaction is repeated until the disk works. Until then, appends fail.

**The end.** After it was closed, the journal applies records only as long as batches of its own are in flight, and for
_CLOSING_SECONDS at most: the other servers may write for ever. The next start reads the rest.

Locks: those of base.py. All other attributes belong to the thread of the journal, except those that are read only.
"""

from __future__ import annotations

import secrets
import sqlite3
import threading
from bisect import bisect_right
from collections import deque
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import structlog
from msgspec import Raw

from chatserver.journal import records
from chatserver.journal.apply import Transaction, apply
from chatserver.journal.base import (
    WRITE_ERRORS,
    Appended,
    Applied,
    Inbox,
    Journal,
    LogUnavailableError,
    UnfinishedError,
)
from chatserver.journal.entries import Entry, ServerGone, ServerStart
from chatserver.journal.log import LEASE_SECONDS, RECORD_MAX_BYTES, Log, LogError, LogRecord
from chatserver.journal.records import Batch, encode_entry
from chatserver.store.errors import describe
from chatserver.store.log_position import (
    LogPosition,
    begin_run,
    count_batch,
    read_position,
    read_runs,
    write_position,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence

_log = structlog.get_logger()

# Batches that may be in flight. More would be smaller, and each costs all servers a transaction.
IN_FLIGHT_MAX: Final = 4
# Maximum records in one transaction: a server catches up three times as fast with small records, and a group takes
# some tens of milliseconds at most.
GROUP_MAX_RECORDS: Final = 32
# Servers compare their digests after each of these records.
CHECKPOINT_RECORDS: Final = 1_000
# Checkpoints that are kept for the comparison with servers that are behind.
_CHECKPOINTS_MAX: Final = 16
# Bytes of a random name of a run.
_RUN_BYTES: Final = 8
# Time for the batches in flight at shutdown; clients send those again that are not confirmed then.
_CLOSING_SECONDS: Final = 2.0
# Maximum deferred entries in a batch, and their size with the header of a record, at most.
_DEFERRED_MAX: Final = 1_000
_HEADER_BYTES: Final = 128 * 1024
# Deferred entries get a batch of their own after this time. Until then the name of a guest who has left is not free on
# the other servers, and a direct message may be delivered there again.
_DEFER_SECONDS: Final = 1.0
# Interval between tries while the disk fails.
_RETRY_SECONDS: Final = 1.0
# Errors of an entry, and not of the disk: its values are wrong, and would be on every server.
_VALUE_ERRORS: Final = (
    sqlite3.DataError,
    sqlite3.IntegrityError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
    ArithmeticError,
    AssertionError,
    LookupError,
    TypeError,
    ValueError,
)


class _Flight(NamedTuple):
    """A batch that is in flight: its number in the run, and what it is made of."""

    number: int
    # All entries, as they are published, also again. Those without a caller come first.
    encoded: list[Raw]
    deferred: int
    appends: list[Appended[Any]]
    # The time of the first append; 0 without messages.
    since: float
    # The time of the first publication; 0 for the start of a run.
    published_at: float = 0.0


class _Failure(NamedTuple):
    """An append that fails after the batch with this number."""

    number: int
    appended: Appended[Any]
    error: OSError


class _Result(NamedTuple):
    """A batch, the number of its record, and its outcomes; None if it was skipped."""

    number: int
    batch: Batch
    outcomes: list[Any] | None
    # True if it was skipped because earlier ones of its run are missing.
    is_overtaking: bool


class SharedJournal(Journal):
    """A journal over a log that several servers share. The database has a position in this log: see joining.py."""

    def __init__(
        self,
        *arguments: Any,
        log: Log,
        server: str,
        on_lost: Callable[[], None],
        retry_seconds: float = _RETRY_SECONDS,
        defer_seconds: float = _DEFER_SECONDS,
        **options: Any,
    ) -> None:
        """``server`` is this server's name; ``on_lost`` is called, once, if the journal can't go on.

        The other arguments are those of Journal. Raises StoreError.
        """
        super().__init__(*arguments, **options)
        self.server = server
        self._shared_log = log
        self._on_lost = on_lost
        self._retry_seconds = retry_seconds
        self._defer_seconds = defer_seconds
        self._on_new_run: list[Callable[[str], None]] = []
        self._note_own_record: Callable[[int], None] = lambda _: None
        # The run of this server; set by the thread of the journal, read by any thread.
        self.run = ""
        # The runs that this process has given up, because it was taken for gone.
        self._lost_runs: set[str] = set()
        with self._database.reading() as connection:
            position = read_position(connection)
        # The last run of this folder, which is over. Other servers of this name may have had the runs in the database.
        self._former_run = self._database.state_file.state.log_run
        assert position is not None, "the log was not joined"
        # Set by the thread of the journal, read by any thread.
        self.position: LogPosition = position
        # True while the lease of another server with this name keeps this one from its start.
        self.awaits_name = False
        self._checkpoints: dict[int, bytes] = {}
        self._number = self._attempt = 0
        self._in_flight: deque[_Flight] = deque()
        # The appends that fail after a batch in flight.
        self._failures: deque[_Failure] = deque()
        # The reason why nothing can be published, as it was last seen.
        self._problem = ""
        # After the journal was closed: the time at which it stops to wait for the batches in flight.
        self._closing_at: float | None = None
        # Under the lock: true if the log has news; and the time at which deferred entries are published.
        self._has_news = False
        self._deferred_until: float | None = None
        self._ready = threading.Event()

    # --- for any thread ---

    def on_new_run(self, callback: Callable[[str], None]) -> None:
        """Call back with the new run after this server was taken for gone. Call it before ``start``.

        The claims of the guests of this server are over. It is called in the thread of the journal.
        """
        self._on_new_run.append(callback)

    def on_own_record(self, callback: Callable[[int], None]) -> None:
        """Set the function that gets the number of each record of this server after it was applied.

        Call it before ``start``. The function is called in the thread of the journal.
        """
        self._note_own_record = callback

    def defer(self, key: Hashable, entry: Entry[Any]) -> None:
        super().defer(key, entry)
        with self._lock:
            if self._inbox.deferred and self._deferred_until is None:
                self._deferred_until = self._clock() + self._defer_seconds
                self._filled.notify()

    def wait_until_ready(self, timeout_seconds: float) -> bool:
        """Wait until all that was confirmed before the start is applied. False after the timeout."""
        return self._ready.wait(timeout_seconds)

    @property
    def is_ready(self) -> bool:
        """True if all that was confirmed before the start is applied."""
        return self._ready.is_set()

    @property
    def in_flight(self) -> int:
        """Number of batches in flight."""
        return len(self._in_flight)

    def checkpoints(self) -> Mapping[int, bytes]:
        """The digests of the last checkpoints, by the number of their records."""
        return dict(self._checkpoints)

    def find_problem(self, timeout_seconds: float) -> str:  # noqa: ARG002 -- nothing is tried
        if self.is_failing:
            return "it can't write to its disk"
        if not self.is_ready:
            return "it is catching up with the shared log"
        return self._shared_log.find_problem()

    def close(self) -> None:
        """Publish the deferred entries and the end of the run if the log accepts them, and close the log."""
        with self._lock:
            deferred, self._inbox.deferred = self._inbox.deferred, {}
        closing_seconds = 0.0
        if self.is_ready and not self._in_flight and not self._shared_log.find_problem():
            self._number += 1
            entries = [*deferred.values(), ServerGone(self.server, self.run)]
            self._publish(_Flight(self._number, list(map(encode_entry, entries)), len(entries), [], 0))
            closing_seconds = _CLOSING_SECONDS
        self._shared_log.close(closing_seconds)

    # --- the thread of the journal ---

    def _run(self) -> None:
        taken = Inbox({})
        try:
            if not self._claim_name():
                return
            self._shared_log.read_after(self.position.number, self.wake)
            self._begin_run()
            while self._wait():
                self._problem = self._shared_log.find_problem()
                taken_records = self._shared_log.take()
                for start in range(0, len(taken_records), GROUP_MAX_RECORDS):
                    if self._has_ended() or not self._apply(taken_records[start : start + GROUP_MAX_RECORDS]):
                        return  # the next start applies the rest
                if self._may_publish():
                    taken = self._take()
                    self._process(taken)
                    taken = Inbox({})
        except LogError as error:
            _log.error("shared log lost", error=str(error))
            self._on_lost()
        finally:
            for flight in self._in_flight:
                for appended in flight.appends:
                    appended.fail(UnfinishedError())
            taken.appends += [failure.appended for failure in self._failures]
            self._release_callers(taken)

    def wake(self) -> None:
        """Let the journal look at the log. For the thread of the log."""
        with self._lock:
            self._has_news = True
            self._filled.notify()

    def _wait(self) -> bool:
        """Wait until there is something to do. False at the end."""
        with self._lock:
            while not self._is_over():
                if self._has_news:
                    self._has_news = False
                    return True
                if self._has_work():
                    return True
                until = self._closing_at
                if until is None and self._has_room():
                    until = self._deferred_until
                self._filled.wait(None if until is None else until - self._clock())
            return False

    def _is_over(self) -> bool:
        """True if it was closed, and nothing is in flight, or the time for that is over. The lock is held."""
        if not self._closed:
            return False
        if self._closing_at is None:
            self._closing_at = self._clock() + _CLOSING_SECONDS
        is_idle = not (self._in_flight or self._inbox.appends)
        return is_idle or not self.is_ready or self._clock() >= self._closing_at

    def _has_ended(self) -> bool:
        with self._lock:
            return self._is_over()

    def _has_room(self) -> bool:
        """True if the inbox may be taken: not too much is in flight, or it would fail.

        Failed appends may have to wait, too; when they are many, the inbox fills up, and its callers wait.
        """
        has_failed_few = len(self._failures) < self._inbox_max_entries
        return has_failed_few if self._problem else len(self._in_flight) < IN_FLIGHT_MAX

    def _has_work(self) -> bool:
        """True if the inbox should be taken. The lock is held."""
        return (bool(self._inbox.appends) or self._is_due()) and self._has_room()

    def _is_due(self) -> bool:
        """True if deferred entries wait for no other ones any more. The lock is held."""
        return self._deferred_until is not None and self._clock() >= self._deferred_until

    def _may_publish(self) -> bool:
        with self._lock:
            return self._has_work()

    def _process(self, taken: Inbox) -> None:
        """Publish what was taken, as one batch or several; or fail it, if the log can't take it."""
        if self._reserve.check():
            self._refuse_growth(taken)
        for fence in (each for each in taken.appends if not each.entries):
            fence.complete(())  # the subscribers know of all that was applied before this call
        appends = [each for each in taken.appends if each.entries]
        deferred = dict(islice(taken.deferred.items(), _DEFERRED_MAX))
        with self._lock:
            is_due = self._is_due()
        if self._problem:
            self._fail(appends, lambda: LogUnavailableError(f"The server can't store anything now: {self._problem}"))
        elif appends or is_due:
            since = taken.since if taken.is_gathered else 0.0
            for part, encoded in self._parts(appends) if appends else [(list[Appended[Any]](), list[Raw]())]:
                self._number += 1
                encoded[:0] = map(encode_entry, deferred.values())
                flight = _Flight(self._number, encoded, len(deferred), part, since, self._clock())
                self._in_flight.append(flight)
                self._publish(flight)
                for key in deferred:
                    del taken.deferred[key]
                deferred = {}
        with self._lock:
            self._inbox.deferred = {**taken.deferred, **self._inbox.deferred}  # those that were not published
            self._deferred_until = self._clock() + self._defer_seconds if self._inbox.deferred else None

    def _parts(self, appends: Iterable[Appended[Any]]) -> Iterator[tuple[list[Appended[Any]], list[Raw]]]:
        """Divide the appends, and their encoded entries, into batches that fit into a record.

        Those that fit into none fail.
        """
        part: list[Appended[Any]] = []
        encoded: list[Raw] = []
        size = _HEADER_BYTES
        for appended in appends:
            try:
                its_entries = list(map(encode_entry, appended.entries))
            except (OverflowError, ValueError) as error:  # a number of more than 64 bits, or half of a surrogate pair
                self._fail([appended], partial(OSError, f"an entry can't be encoded: {error}"))
                continue
            needed = sum(memoryview(each).nbytes for each in its_entries)
            if _HEADER_BYTES + needed > RECORD_MAX_BYTES:
                self._fail([appended], partial(OSError, "the entries are too large for a record"))
                continue
            if size + needed > RECORD_MAX_BYTES:
                yield part, encoded
                part, encoded, size = [], [], _HEADER_BYTES
            part.append(appended)
            encoded += its_entries
            size += needed
        if part:
            yield part, encoded

    def _publish(self, flight: _Flight) -> None:
        batch = Batch(
            self.server,
            self.run,
            flight.number,
            self._attempt,
            self._now_ms(),
            self._limits,
            flight.encoded,
        )
        record_id = f"{self.run}-{flight.number}-{self._attempt}"
        self._shared_log.publish(record_id, records.encode(batch))

    def _claim_name(self) -> bool:
        """Wait until no other server has the lease of this name. LogError: another one keeps it.

        False: it was closed meanwhile. It must not begin a run then, which would stop the other server.
        """
        give_up_at = self._clock() + 2 * LEASE_SECONDS
        while not self._is_closed():
            try:
                holder = self._shared_log.find_lease(self.server)
            except OSError:  # it is unknown; the records will tell
                give_up_at = self._clock() + 2 * LEASE_SECONDS
                holder = "unknown"
            if holder in (None, self._former_run):
                self.awaits_name = False
                return True
            self.awaits_name = holder != "unknown"
            if holder != "unknown" and self._clock() >= give_up_at:
                raise LogError(f"Another server uses the name {self.server}; give each one its own --server-name.")
            self._pause(self._retry_seconds)
        return False

    def _begin_run(self) -> None:
        """Begin a new run, in which the batches in flight are published again."""
        self.run = secrets.token_hex(_RUN_BYTES)
        self._database.note_log_run(self.run)
        self._number, self._attempt = 1, 0
        flights = [flight for flight in self._in_flight if flight.number != 1]  # 1 is the start of the former run
        self._in_flight = deque([_Flight(1, [encode_entry(ServerStart(self.server))], 1, [], 0)])
        for flight in flights:
            self._number += 1
            self._in_flight.append(flight._replace(number=self._number))
        before = [flight.number for flight in flights]
        self._failures = deque(each._replace(number=1 + bisect_right(before, each.number)) for each in self._failures)
        for flight in self._in_flight:
            self._publish(flight)
        self._shared_log.renew_lease(self.server, self.run)

    def _publish_again(self) -> None:
        """Publish all batches in flight as a new attempt, after one of them was overtaken."""
        self._attempt += 1
        for flight in self._in_flight:
            self._publish(flight)

    def _apply(self, group: Sequence[LogRecord]) -> bool:
        """Apply records in one transaction, then tell the subscribers.

        False if the journal was closed while its disk failed. LogError: they can't be applied.
        """
        batches: list[tuple[int, Batch]] = []
        for number, record in enumerate(group, self.position.number + 1):
            batch = records.decode(*record)
            if not isinstance(batch, Batch) or record.number != number:
                raise LogError(f"Record {record.number} of the shared log is out of order; start from a snapshot.")
            batches.append((number, batch))
        began_at = self._clock()
        while True:
            try:
                results = self._commit(batches)
                break
            except WRITE_ERRORS as error:
                if not self.is_failing:
                    self.is_failing = True
                    _log.error("journal failed", error=describe(error))
                if self._is_closed():
                    return False
                self._refuse(error)
                self._pause(self._retry_seconds)
        if self.is_failing:
            self.is_failing = False
            _log.info("journal recovered")
        self._counters.commit_seconds.observe(self._clock() - began_at)
        self._tell(results)
        self._react(results)
        self._database.truncate_log()
        return True

    def _refuse(self, error: Exception) -> None:
        """Fail the appends in the inbox while the disk fails. Those in flight may be stored already."""
        if len(self._failures) >= self._inbox_max_entries:
            return
        with self._lock:
            appends, self._inbox.appends = self._inbox.appends, []
            self._inbox.size = 0
            self._emptied.notify_all()
        self._fail(appends, lambda: OSError(describe(error)))

    def _commit(self, batches: Sequence[tuple[int, Batch]]) -> list[_Result]:
        """Apply batches in one transaction."""
        try:
            return self._commit_with(batches, _apply_all)
        except _VALUE_ERRORS as error:
            _log.error("entry rejected", records=f"{batches[0][0]}-{batches[-1][0]}", error=repr(error))
            return self._commit_with(batches, _apply_one_by_one)

    def _commit_with(
        self,
        batches: Sequence[tuple[int, Batch]],
        apply_entries: Callable[[Transaction, Iterable[Entry[Any]]], list[Any]],
    ) -> list[_Result]:
        log_id, _, digest = self.position
        last_id, account_id = self._last_id, 0
        results: list[_Result] = []
        checkpoints: dict[int, bytes] = {}
        with self._database.transaction() as connection:
            for number, batch in batches:
                outcomes: list[Any] | None = None
                if _accept(connection, batch):
                    transaction = Transaction(connection, batch.time_ms, last_id, batch.limits)
                    outcomes = apply_entries(transaction, batch.entries)
                    last_id, account_id = transaction.last_id, max(account_id, transaction.account_id)
                results.append(_Result(number, batch, outcomes, _is_overtaking(connection, batch, outcomes)))
                digest = records.chain(digest, number, outcomes or ())
                if number % CHECKPOINT_RECORDS == 0:
                    checkpoints[number] = digest
            position = LogPosition(log_id, number, digest)
            write_position(connection, position)
        self._database.note_commit(last_id, account_id)
        self._last_id, self.position = last_id, position
        if checkpoints:
            self._checkpoints = dict(list({**self._checkpoints, **checkpoints}.items())[-_CHECKPOINTS_MAX:])
        return results

    def _tell(self, results: Sequence[_Result]) -> None:
        """Tell subscribers and callers of applied batches: all at once, unless a refusal comes between two of them."""
        step = 1 if self._failures else len(results)
        for start in range(0, len(results), step):
            self._tell_at_once(results[start : start + step])

    def _tell_at_once(self, results: Sequence[_Result]) -> None:
        """Tell the subscribers of batches that were applied, then complete the entries of this server."""
        applied: list[Applied] = []
        flights: list[tuple[int, _Flight, list[Any]]] = []
        for number, batch, outcomes, _ in results:
            if outcomes is None:
                continue
            origins: list[object] = [None] * len(outcomes)
            if self._is_own(batch):
                flight = self._in_flight.popleft()
                assert flight.number == batch.number, "batches are applied in order"
                origins = [None] * flight.deferred
                origins += [each.origin for each in flight.appends for _ in each.entries]
                flights.append((number, flight, outcomes))
            applied += map(Applied, batch.entries, outcomes, origins, [batch.time_ms] * len(outcomes))
        if applied:
            for callback in self._subscribers:
                callback(applied)
        for number, flight, outcomes in flights:
            _complete(flight, outcomes)
            self._note_own_record(number)
            if flight.since:
                self._counters.confirmation_seconds.observe(self._clock() - flight.since)
            if flight.published_at:
                self._counters.publish_seconds.observe(self._clock() - flight.published_at)
        self._report_failures()

    def _react(self, results: Sequence[_Result]) -> None:
        """React to batches and entries that are about this server."""
        for _, batch, outcomes, is_overtaking in results:
            if is_overtaking and self._is_own(batch) and batch.attempt == self._attempt:
                self._publish_again()
            for entry in batch.entries if outcomes is not None else ():
                if isinstance(entry, (ServerStart, ServerGone)) and entry.server == self.server:
                    self._note_run(batch, entry)

    def _is_own(self, batch: Batch) -> bool:
        """True if this server wrote the batch, in its present run."""
        return batch.server == self.server and batch.run == self.run

    def _note_run(self, batch: Batch, entry: ServerStart | ServerGone) -> None:
        """React to an entry about this server."""
        if isinstance(entry, ServerGone):
            if entry.run == self.run and self.is_ready and not self._is_closed():
                self._lose_run()
        elif self._is_own(batch):
            if not self.is_ready:
                _log.info("shared log joined", server=self.server, record=self.position.number)
                self._ready.set()
        elif batch.run in self._lost_runs:
            if self._is_run_over():
                self._lose_run()
        elif self.is_ready:
            raise LogError(f"Another server has started under the name {self.server}; give each one its own name.")

    def _is_run_over(self) -> bool:
        """True if the present run has begun in the store, and another one has ended it."""
        with self._database.reading() as connection:
            return read_runs(connection, self.server).get(self.run, 0) is None

    def _lose_run(self) -> None:
        """Begin a new run: the other servers took this one for gone."""
        _log.warning("taken for gone", server=self.server)
        self._lost_runs.add(self.run)
        self._begin_run()
        for callback in self._on_new_run:
            callback(self.run)

    def _fail(self, appends: Sequence[Appended[Any]], make_error: Callable[[], OSError]) -> None:
        """Fail appends: those of an origin that has something in flight after it, because answers come in order."""
        busy = {id(each.origin) for flight in self._in_flight for each in flight.appends}
        busy.update(id(failure.appended.origin) for failure in self._failures)
        busy.discard(id(None))
        super()._fail([each for each in appends if id(each.origin) not in busy], make_error)
        self._failures += [_Failure(self._number, each, make_error()) for each in appends if id(each.origin) in busy]

    def _report_failures(self) -> None:
        """Fail the appends that come before the first batch in flight."""
        first = self._in_flight[0].number if self._in_flight else None
        while self._failures and (first is None or self._failures[0].number < first):
            _, appended, error = self._failures.popleft()
            super()._fail([appended], partial(_same, error))

    def _is_closed(self) -> bool:
        with self._lock:
            return self._closed

    def _pause(self, seconds: float) -> None:
        """Wait for some time, or until the journal is closed."""
        deadline = self._clock() + seconds
        with self._lock:
            while not self._closed and (remaining_seconds := deadline - self._clock()) > 0:
                self._filled.wait(remaining_seconds)


def _accept(connection: sqlite3.Connection, batch: Batch) -> bool:
    """Count the batch, and return true, if it is the next one of its run. The same on all servers."""
    if batch.number == 1:
        return begin_run(connection, batch.server, batch.run)
    return count_batch(connection, batch.server, batch.run, batch.number)


def _is_overtaking(connection: sqlite3.Connection, batch: Batch, outcomes: list[Any] | None) -> bool:
    """True if the batch was skipped because earlier ones of its run are missing, perhaps its start."""
    if outcomes is not None:
        return False
    runs = read_runs(connection, batch.server)
    return batch.run not in runs or batch.number > (runs[batch.run] or batch.number)


def _same(error: OSError) -> OSError:
    return error


def _complete(flight: _Flight, outcomes: Sequence[Any]) -> None:
    """Complete the appends of a batch, or fail those that have an entry with wrong values."""
    start = flight.deferred
    for appended in flight.appends:
        its_outcomes = outcomes[start : start + len(appended.entries)]
        start += len(its_outcomes)
        rejected = [each for each in its_outcomes if isinstance(each, OSError)]
        if rejected:
            appended.fail(rejected[0])
        else:
            appended.complete(its_outcomes)


def _apply_all(transaction: Transaction, entries: Iterable[Entry[Any]]) -> list[Any]:
    return [apply(transaction, entry) for entry in entries]


def _apply_one_by_one(transaction: Transaction, entries: Iterable[Entry[Any]]) -> list[Any]:
    """Apply a batch that has an entry with wrong values: all servers skip this entry. Its outcome is an OSError."""
    outcomes: list[Any] = []
    for entry in entries:
        transaction.connection.execute("SAVEPOINT entry")
        last_id, account_id = transaction.last_id, transaction.account_id
        try:
            outcomes.append(apply(transaction, entry))
        except _VALUE_ERRORS:
            transaction.connection.execute("ROLLBACK TO entry")
            transaction.last_id, transaction.account_id = last_id, account_id
            transaction.forget_waiting()
            transaction.note_moderation()
            outcomes.append(OSError("the entry can't be applied"))
        transaction.connection.execute("RELEASE entry")
    return outcomes
