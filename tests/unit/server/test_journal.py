"""The journal: one order, one commit for all that waits, and nothing published before it is stored."""

import itertools
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from structlog.testing import capture_logs

from chatprotocol.limits import ID_MAX
from chatserver.chat.room import Member
from chatserver.journal.base import GATHER_ENTRIES, GATHER_SECONDS, INBOX_MAX_ENTRIES, Applied, JournalClosedError
from chatserver.journal.entries import (
    AccountProblem,
    DeliveryMark,
    Entry,
    GuestClaim,
    GuestRelease,
    MessageBatch,
    NewAccount,
    PasswordChange,
    ServerStart,
)
from chatserver.journal.local import LocalJournal
from chatserver.store.accounts import Account, Accounts
from chatserver.store.database import Database
from chatserver.store.messages import Messages

from .helpers import (
    DEADLINE_SECONDS,
    Gate,
    assert_waits,
    direct,
    eventually,
    in_background,
    member_of,
    must_end,
    public,
    register,
)


class Disk:
    """A database whose transactions can be counted, stopped and made to fail."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.transactions = 0
        self.before_commit: Callable[[], None] = lambda: None

    def reading(self) -> AbstractContextManager[sqlite3.Connection]:
        return self._database.reading()

    def truncate_log(self) -> None:
        self._database.truncate_log()

    def note_commit(self, last_id: int, account_id: int) -> None:
        self._database.note_commit(last_id, account_id)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        with self._database.transaction() as connection:
            yield connection
            self.transactions += 1
            self.before_commit()


def refuse_to_write() -> None:
    raise sqlite3.OperationalError("database or disk is full")


class JournalFixture:
    """A journal over a real database, with a subscriber that records the messages."""

    _clock = itertools.count(1_000)

    def __init__(self, database: Database, inbox_max_entries: int = INBOX_MAX_ENTRIES) -> None:
        self.database = database
        self.disk = Disk(database)
        self.crashes: list[str] = []
        self.messages = Messages(database)
        self.accounts = Accounts(database)
        # Messages of each call of the subscriber, and the function that it calls before it records them.
        self.batches: list[list[Applied]] = []
        self.when_applied: Callable[[list[Applied]], None] = lambda _: None
        self.journal = LocalJournal(
            self.disk,  # type: ignore[arg-type]
            lambda: next(self._clock),
            self.crashes.append,
            inbox_max_entries,
        )
        self.gather: Callable[[float], None] = lambda _: None
        self.journal.subscribe(self._note_applied, lambda seconds: self.gather(seconds))  # noqa: PLW0108 - it changes later

    def _note_applied(self, applied: Sequence[Applied]) -> None:
        batches = [each for each in applied if isinstance(each.entry, MessageBatch)]
        if batches:
            self.when_applied(batches)
            self.batches.append(batches)

    @property
    def applied(self) -> list[Applied]:
        """The messages of all calls of the subscriber."""
        return [each for batch in self.batches for each in batch]

    def member(self, name: str) -> Member:
        return member_of(self.accounts.find(name) or register(self.database, name))

    def append(self, name: str, *texts: str) -> None:
        """Append one batch for each text."""
        member = self.member(name)
        self.journal.append([public(member, text) for text in texts], member)

    def defer_mark(self, account: Account, message_id: int) -> None:
        self.journal.defer(account.id, DeliveryMark(account.id, message_id))

    def ask(self, entry: Entry[Any]) -> Any:
        """The outcome of a single entry."""
        (outcome,) = self.journal.append([entry]).result()
        return outcome

    def stored(self, reader: str = "alice") -> list[tuple[int, str]]:
        """The history of one account, as ids and texts."""
        history = self.messages.history(self.member(reader).account_id, ID_MAX, 500)
        return [(message.id, message.text) for message in history]

    def texts(self) -> list[str]:
        return [text for _, text in self.stored()]

    def start_with_held_commit(self) -> Gate:
        """Start, and stop the journal thread in its first transaction. Meanwhile its inbox fills."""
        gate = Gate()
        self.disk.before_commit = gate.pass_through
        self.journal.start()
        self.append("alice", "first")
        gate.await_thread()
        return gate

    def stop(self) -> None:
        with suppress(JournalClosedError):
            self.journal.stop()


@pytest.fixture
def fixture(database: Database) -> Iterator[JournalFixture]:
    fixture = JournalFixture(database)
    yield fixture
    fixture.stop()


SENDERS = ("alice", "bob")
# Texts are their own nonces, except for those that begin with a dash.
messages = st.tuples(
    st.sampled_from(SENDERS), st.booleans(), st.lists(st.sampled_from(["-a", "-b", "n1", "n2", "n3"]), min_size=1)
)
rounds = st.tuples(st.lists(messages, min_size=1, max_size=5), st.booleans())


def batch_of(member: Member, texts: list[str], recipient: Account | None = None) -> MessageBatch:
    nonces = [None if text.startswith("-") else text for text in texts]
    if recipient is None:
        return public(member, *texts, nonces=nonces)
    return direct(member, recipient, texts[0], nonces[0])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(rounds=st.lists(rounds, min_size=1, max_size=4))
def test_repeated_messages_are_stored_once_and_confirmed_with_their_first_id(
    database: Database, rounds: list[tuple[list[tuple[str, bool, list[str]]], bool]]
) -> None:
    """Promises: once, one order, and confirmed means stored. After a restart as well.

    The examples share a database, with accounts of their own.
    """
    fixture = JournalFixture(database)
    next_id = before_id = fixture.messages.last_id() + 1
    carol = register(database, f"carol{before_id}")
    fixture.journal.start()
    stored: list[tuple[int, str]] = []
    first_ids: dict[tuple[str, bool, str], int] = {}
    for batches, restarts in rounds:
        expected: list[tuple[str, str, int, bool]] = []
        entries: list[MessageBatch] = []
        whole: list[bool] = []
        for sender, is_direct, all_texts in batches:
            name = f"{sender}{before_id}"
            texts = all_texts[:1] if is_direct else all_texts
            entries.append(batch_of(fixture.member(name), texts, carol if is_direct else None))
            is_whole = True
            for text in texts:
                message_id = first_ids.get((name, is_direct, text), next_id)
                is_new = message_id == next_id
                is_whole &= is_new
                expected.append((name, text, message_id, not is_new))
                if is_new:
                    next_id += 1
                    stored.append((message_id, text))
                    if not text.startswith("-"):
                        first_ids[name, is_direct, text] = message_id
            whole.append(is_whole)
        appended = fixture.journal.append(entries, "origin")
        fixture.journal.wait_for_pending()

        assert [
            (batch.entry.sender, text, message_id, part.is_repeated)
            for batch in fixture.applied
            for part in batch.outcome
            for message_id, text in enumerate(batch.entry.texts[part.start : part.stop], part.id)
        ] == expected
        assert [batch.entry for batch in fixture.applied] == entries
        assert [batch.outcome for batch in fixture.applied] == appended.result()
        assert {batch.origin for batch in fixture.applied} == {"origin"}
        for is_whole, batch in zip(whole, fixture.applied, strict=True):
            assert len(batch.outcome) == 1 or not is_whole, "a new batch is published as it is"
        fixture.batches.clear()
        if restarts:
            fixture.stop()
            fixture = JournalFixture(database)
            fixture.journal.start()
    fixture.stop()

    history = [message for message in fixture.messages.history(carol.id, ID_MAX, 500) if message.id >= before_id]
    assert [(message.id, message.text) for message in history] == stored[-500:]
    assert fixture.messages.last_id() == next_id - 1
    times = [message.time_ms for message in history]
    assert times == sorted(times)


def test_appended_batches_stay_together_despite_concurrent_senders(fixture: JournalFixture) -> None:
    """Promise: one order. Messages that one client sent in a row are committed in a row."""
    reads = [
        [public(fixture.member(name), f"{name} {number}", nonces=[f"n{number}"]) for number in range(50)]
        for name in ("alice", "bob", "carol")
    ]
    gate = fixture.start_with_held_commit()
    for thread in [in_background(lambda read=read: fixture.journal.append(read)) for read in reads]:  # type: ignore[misc]
        must_end(thread)
    gate.open()
    fixture.stop()
    _, applied = fixture.batches
    batch = [each.entry for each in applied]
    assert sorted([batch[:50], batch[50:100], batch[100:]], key=lambda read: read[0].texts) == reads
    assert fixture.stored()[1:] == [(number, *each.texts) for number, each in enumerate(batch, 2)]


def test_subscriber_is_called_after_the_commit(fixture: JournalFixture) -> None:
    """Promises: seen means stored, and confirmed means stored."""
    missing: list[str] = []
    fixture.when_applied = lambda batches: missing.extend(
        text for batch in batches for text in batch.entry.texts if text not in fixture.texts()
    )
    gate = fixture.start_with_held_commit()
    assert fixture.applied == []
    assert fixture.stored() == []
    gate.open()
    for number in range(50):
        fixture.append("alice", f"text {number}")
    fixture.stop()
    assert len(fixture.applied) == 51
    assert missing == []


def test_small_commit_waits_for_the_end_of_the_senders_round(fixture: JournalFixture) -> None:
    """A sync for each message would cost much and show none of them any sooner. It does not matter to other entries."""
    waits: list[float] = []
    sender = Gate()

    def end_round(limit_seconds: float) -> None:
        waits.append(limit_seconds)
        sender.pass_through()

    fixture.gather = end_round
    fixture.journal.start()
    fixture.ask(NewAccount("alice", "hash"))
    fixture.journal.wait_for_pending()
    assert waits == []
    before = fixture.disk.transactions
    fixture.append("alice", "first")
    sender.await_thread()
    fixture.append("alice", *(f"text {number}" for number in range(10)))
    assert fixture.disk.transactions == before
    sender.open()
    eventually(lambda: fixture.applied)
    fixture.journal.append([public(fixture.member("alice"), *["x"] * GATHER_ENTRIES)])
    fixture.stop()
    assert [len(batch) for batch in fixture.batches] == [11, 1]
    assert waits == [GATHER_SECONDS]


def test_wait_for_pending_ends_after_the_publication(fixture: JournalFixture) -> None:
    """A goodbye follows the confirmations, even if both are in the same round."""
    order: list[str] = []
    publication = Gate()

    def publish(batches: list[Applied]) -> None:
        if batches[-1].entry.texts == ["second"]:
            publication.pass_through()
            order.append("published")

    def wait_for_pending() -> None:
        fixture.journal.wait_for_pending()
        order.append("waited")

    fixture.when_applied = publish
    gate = fixture.start_with_held_commit()
    fixture.append("alice", "second")
    waiter = in_background(wait_for_pending)
    eventually(lambda: fixture.journal.pending == 2)
    gate.open()
    publication.await_thread()
    assert_waits(waiter)
    publication.open()
    must_end(waiter)
    assert order == ["published", "waited"]


@pytest.mark.parametrize("end", ["release", "restart"])
def test_name_is_free_after_the_guest(fixture: JournalFixture, end: str) -> None:
    """Nothing but the next commit is needed: leaving costs no sync."""
    fixture.journal.start()
    carol = fixture.ask(GuestClaim("Carol"))
    assert fixture.ask(NewAccount("carol", "hash")) is AccountProblem.NAME_TAKEN
    assert fixture.ask(GuestClaim("CAROL")) is None
    if end == "release":
        fixture.journal.defer("carol", GuestRelease(carol.name, carol.claim))
    else:
        fixture.journal.defer("start", ServerStart())
    transactions = fixture.disk.transactions
    assert fixture.ask(NewAccount("carol", "hash")) == fixture.accounts.find("carol") is not None
    assert fixture.disk.transactions == transactions + 1
    assert fixture.ask(GuestClaim("Carol")) is None


@pytest.mark.parametrize("first", ["guest", "account"])
def test_first_of_guest_and_account_gets_the_name(fixture: JournalFixture, first: str) -> None:
    """Both wait for the disk together."""
    gate = fixture.start_with_held_commit()
    entries: dict[str, Entry[Any]] = {"guest": GuestClaim("carol"), "account": NewAccount("Carol", "hash")}
    order = ["guest", "account"] if first == "guest" else ["account", "guest"]
    waiting = {name: fixture.journal.append([entries[name]]) for name in order}
    gate.open()
    outcomes = {name: appended.result()[0] for name, appended in waiting.items()}
    assert fixture.disk.transactions == 2
    assert [name for name in order if isinstance(outcomes[name], Account)] == [first]


def test_password_hash_is_replaced_unless_it_has_changed(fixture: JournalFixture) -> None:
    account, bob = register(fixture.database, "alice"), register(fixture.database, "bob")
    fixture.journal.start()
    changes = [PasswordChange(account.id, account.password_hash, new) for new in ("new hash", "too late")]
    assert fixture.journal.append(changes).result() == [True, False]
    assert fixture.accounts.find("alice") == replace(account, password_hash="new hash")
    assert fixture.accounts.find("bob") == bob


@pytest.mark.parametrize("when", ["with the next commit", "at the end", "after the end"])
def test_deferred_entries_are_applied(fixture: JournalFixture, when: str) -> None:
    """The last connections are closed after the journal. Of two entries of one key the newer one counts."""
    alice = register(fixture.database, "alice")
    fixture.journal.start()
    if when == "after the end":
        fixture.journal.stop()
    fixture.defer_mark(alice, 8)
    fixture.defer_mark(alice, 7)
    assert fixture.disk.transactions == (when == "after the end"), "a mark alone costs no commit"
    if when == "with the next commit":
        fixture.journal.wait_for_pending()
    elif when == "at the end":
        fixture.journal.stop()
    else:
        fixture.journal.close()
    assert fixture.accounts.find("alice") == replace(alice, delivered_id=7)


def test_unsaved_delivery_marks_do_not_block_the_shutdown(fixture: JournalFixture) -> None:
    fixture.defer_mark(register(fixture.database, "alice"), 7)
    fixture.database.path.unlink()
    with capture_logs() as log:
        fixture.journal.close()
    assert [entry["event"] for entry in log] == ["delivery marks not saved"]


def test_failed_commit_refuses_its_messages_and_the_next_one_goes_on(fixture: JournalFixture) -> None:
    """Promise: confirmed means stored. The log says it once, and once that the disk works again."""
    alice = fixture.member("alice")
    fixture.disk.before_commit = refuse_to_write
    fixture.journal.start()
    batches = [public(alice, "secret", nonces=[f"n{number}"]) for number in range(100)]
    with capture_logs() as log:
        for _ in range(2):
            fixture.journal.append(batches, alice)
            fixture.journal.wait_for_pending()
        fixture.disk.before_commit = lambda: None
        fixture.journal.wait_for_pending()  # writes nothing, so it proves nothing
        levels = [entry["log_level"] for entry in log]
        fixture.append("alice", "hello")
        fixture.journal.wait_for_pending()
    assert levels == ["error"]
    assert [entry["log_level"] for entry in log] == ["error", "info"]
    assert "secret" not in str(log)
    *failed, hello = fixture.applied
    assert [(each.entry, type(each.outcome), each.origin) for each in failed] == [
        (batch, OSError, alice) for batch in batches * 2
    ]
    assert fixture.stored() == [(1, "hello")]
    assert hello.outcome[0].id == 1
    assert fixture.crashes == []


def test_failed_commit_fails_its_entries_and_keeps_the_deferred_ones(fixture: JournalFixture) -> None:
    alice = register(fixture.database, "alice")
    fixture.defer_mark(alice, 7)
    fixture.disk.before_commit = refuse_to_write
    fixture.journal.start()
    for entry in (NewAccount("bob", "hash"), GuestClaim("carol")):
        with pytest.raises(OSError, match="full"):
            fixture.ask(entry)
    assert fixture.accounts.find("bob") is None
    fixture.disk.before_commit = lambda: None
    fixture.journal.wait_for_pending()
    assert fixture.accounts.find("alice") == replace(alice, delivered_id=7)


def test_probe_reports_whether_a_write_can_be_committed(fixture: JournalFixture) -> None:
    fixture.journal.start()
    with capture_logs() as log:
        assert fixture.journal.probe(DEADLINE_SECONDS)
        fixture.disk.before_commit = refuse_to_write
        assert [fixture.journal.probe(DEADLINE_SECONDS) for _ in range(2)] == [False] * 2
        fixture.disk.before_commit = lambda: None
        assert fixture.journal.probe(DEADLINE_SECONDS)
        fixture.journal.stop()
        assert not fixture.journal.probe(DEADLINE_SECONDS)
    assert [entry["log_level"] for entry in log] == ["error", "info"]


def test_probes_of_a_hanging_journal_time_out_and_are_one_write(fixture: JournalFixture) -> None:
    gate = fixture.start_with_held_commit()
    assert [fixture.journal.probe(0.01) for _ in range(3)] == [False] * 3
    assert fixture.journal.pending == 1
    gate.open()
    fixture.journal.wait_for_pending()
    assert fixture.disk.transactions == 2
    assert fixture.journal.probe(DEADLINE_SECONDS)


@pytest.mark.parametrize("fills", ["messages", "entries", "one read"])
def test_append_waits_while_the_inbox_is_full(database: Database, fills: str) -> None:
    """Promise: back-pressure. The messages of one read are in memory already, so they are accepted as a whole."""
    fixture = JournalFixture(database, inbox_max_entries=3)
    gate = fixture.start_with_held_commit()
    account = Account(1, "alice", "hash of alice", 0)
    match fills:
        case "messages":
            fixture.append("alice", "1", "2")
            fixture.append("alice", "3")
        case "entries":
            for _ in range(3):
                fixture.journal.append([PasswordChange(account.id, "another", "hash")])
        case _:
            fixture.append("alice", *map(str, range(12)))
    waiters = [
        in_background(lambda: fixture.append("alice", "late")),
        in_background(lambda: fixture.journal.append([PasswordChange(1, account.password_hash, "last hash")])),
    ]
    for waiter in waiters:
        assert_waits(waiter)
    gate.open()
    for waiter in waiters:
        must_end(waiter)
    fixture.stop()

    assert fixture.accounts.find("alice") == replace(account, password_hash="last hash")
    before = {"messages": ["1", "2", "3"], "entries": []}.get(fills, [*map(str, range(12))])
    assert fixture.texts() == ["first", *before, "late"]


def test_stop_releases_callers_that_wait_for_room(database: Database) -> None:
    fixture = JournalFixture(database, inbox_max_entries=1)
    outcomes: list[str] = []

    def append() -> None:
        try:
            fixture.append("alice", "x", "y")
            outcomes.append("accepted")
        except JournalClosedError:
            outcomes.append("closed")

    gate = fixture.start_with_held_commit()
    appenders = [in_background(append) for _ in range(5)]
    stopper = in_background(fixture.journal.stop)
    gate.open()
    for thread in (*appenders, stopper):
        must_end(thread)
    assert len(outcomes) == 5
    assert len(fixture.stored()) == 1 + 2 * outcomes.count("accepted")


def test_stop_writes_and_publishes_accepted_messages(fixture: JournalFixture) -> None:
    """Promise: shutdown. A connection that ended meanwhile would miss the confirmations, so it waits for them."""
    gate = fixture.start_with_held_commit()
    fixture.append("alice", *map(str, range(9)))
    stopper = in_background(fixture.journal.stop)
    published: list[int] = []

    def is_closed() -> bool:
        try:
            fixture.journal.append([PasswordChange(1, "another", "hash")])
        except JournalClosedError:
            return True
        return False

    def wait_for_pending() -> None:
        fixture.journal.wait_for_pending()
        published.append(len(fixture.applied))

    eventually(is_closed)
    waiter = in_background(wait_for_pending)
    assert_waits(waiter)
    gate.open()
    must_end(waiter)
    must_end(stopper)

    assert published == [10]
    assert len(fixture.stored()) == 10
    must_end(in_background(fixture.journal.wait_for_pending))


def test_crashed_journal_releases_all_waiting_threads(fixture: JournalFixture) -> None:
    """Those of the round in which it crashed, and those of the inbox."""
    outcomes: list[str] = []
    publication = Gate()

    def crash(batches: list[Applied]) -> None:
        if batches[0].entry.texts == ["second"]:
            publication.pass_through()
            raise ZeroDivisionError

    def wait(call: Callable[[], object]) -> None:
        try:
            call()
            outcomes.append("released")
        except JournalClosedError:
            outcomes.append("closed")

    calls: list[Callable[[], object]] = [
        fixture.journal.wait_for_pending,
        lambda: fixture.ask(NewAccount("bob", "hash")),
        lambda: fixture.ask(GuestClaim("carol")),
    ]
    fixture.when_applied = crash
    gate = fixture.start_with_held_commit()
    fixture.append("alice", "second")
    waiters = [in_background(lambda call=call: wait(call)) for call in calls]  # type: ignore[misc]
    eventually(lambda: fixture.journal.pending == 4)
    with capture_logs():
        gate.open()
        publication.await_thread()
        waiters += [in_background(lambda call=call: wait(call)) for call in calls]  # type: ignore[misc]
        eventually(lambda: fixture.journal.pending == 3)
        publication.open()
        for waiter in waiters:
            must_end(waiter)
        eventually(lambda: fixture.crashes)
        with pytest.raises(JournalClosedError):
            fixture.append("alice", "third")
        must_end(in_background(fixture.journal.stop))

    assert sorted(outcomes) == ["closed"] * 4 + ["released"] * 2
    assert fixture.crashes == ["journal"]
