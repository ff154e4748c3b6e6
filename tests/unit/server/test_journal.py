"""The journal: one order, one commit for all that waits, and nothing seen before it is stored."""

import itertools
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from chatprotocol.errors import ErrorCode
from chatprotocol.limits import ID_MAX
from chatserver.chat import journal as journal_module
from chatserver.chat.batch import MessageBatch
from chatserver.chat.delivery_marks import DeliveryMarks
from chatserver.chat.journal import GATHER_MESSAGES, GATHER_SECONDS, JournalClosedError, LocalJournal
from chatserver.chat.member import Member
from chatserver.store.accounts import Account, Accounts
from chatserver.store.database import Database
from chatserver.store.messages import Messages

from .rooms import FakeFeed, Gate, batch_of, eventually, in_background, member_of, must_end, register


class Disk:
    """A database whose transactions can be watched, stopped and made to fail."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.transactions = 0
        self.before_commit: Callable[[], None] = lambda: None

    def trim_log(self) -> None:
        self._database.trim_log()

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
    """A journal over a real database, with a fake feed; closed at the end of its test."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.disk = Disk(database)
        self.hub = FakeFeed()
        self.deliveries = DeliveryMarks()
        self.crashes: list[str] = []
        # The names that guests have.
        self.claimed: set[str] = set()
        self.clock = itertools.count(1_000)
        self.messages = Messages(database)
        self.journal = LocalJournal(
            self.disk,  # type: ignore[arg-type]
            self.hub,  # type: ignore[arg-type]
            self.deliveries,
            self.messages.last_id(),
            lambda: next(self.clock),
            lambda name: name in self.claimed,
            self.crashes.append,
        )

    def member(self, name: str) -> Member:
        account = Accounts(self.database).find(name) or register(self.database, name)
        return member_of(account)

    def stored(self, reader: Member) -> list[tuple[int, str]]:
        """What the history holds, as ids and texts."""
        return [(message.id, message.text) for message in self.messages.history(reader.account_id, ID_MAX, 500)]

    def hold_first_commit(self) -> Gate:
        """Stop the journal thread in its first transaction: meanwhile its inbox fills."""
        gate = Gate()
        self.disk.before_commit = gate.pass_through
        return gate


@pytest.fixture
def services(database: Database) -> Iterator[JournalFixture]:
    services = JournalFixture(database)
    yield services
    with suppress(JournalClosedError):
        services.journal.stop()


# --- order and storing ---


def test_ids_and_times_grow_in_the_order_of_posting(services: JournalFixture) -> None:
    """Promise: one order."""
    alice, bob = services.member("alice"), services.member("bob")
    services.journal.start()
    batches = [batch_of(member, [f"text {number}"]) for number, member in enumerate([alice, bob, bob, alice, bob])]
    for batch in batches:
        services.journal.append([batch])
    services.journal.stop()

    assert services.hub.published == batches
    assert [batch.id for batch in batches] == [1, 2, 3, 4, 5]
    assert sorted(batch.time_ms for batch in batches) == [batch.time_ms for batch in batches]
    assert services.stored(alice) == [(batch.id, *batch.texts) for batch in batches]


def test_each_message_of_a_run_has_an_id_and_is_stored(services: JournalFixture) -> None:
    """Promises: confirmed means stored, and one order."""
    alice, bob = services.member("alice"), services.member("bob")
    services.journal.start()
    runs = [batch_of(alice, ["one", "two", "three"]), batch_of(bob, ["four"]), batch_of(alice, ["five", "six"])]
    services.journal.append(runs)
    services.journal.stop()

    assert [(batch.id, batch.last_id) for batch in runs] == [(1, 3), (4, 4), (5, 6)]
    assert services.stored(alice) == list(enumerate(["one", "two", "three", "four", "five", "six"], 1))


def test_ids_go_on_after_a_restart(services: JournalFixture) -> None:
    alice, bob = services.member("alice"), register(services.database, "bob")
    services.journal.start()
    services.journal.append([batch_of(alice, ["one"])])
    services.journal.append([batch_of(alice, ["psst"], None, bob)])
    services.journal.stop()
    again = JournalFixture(services.database)
    again.journal.start()
    again.journal.append([batch_of(alice, ["three"])])
    again.journal.stop()

    assert again.stored(alice) == [(1, "one"), (2, "psst"), (3, "three")]


def test_nothing_is_published_before_its_commit(services: JournalFixture) -> None:
    """Promises: seen means stored, and confirmed means stored."""
    alice = services.member("alice")
    missing: list[str] = []

    def look(batches: list[MessageBatch]) -> None:
        stored = services.stored(alice)
        missing.extend(batch.texts[0] for batch in batches if (batch.id, batch.texts[0]) not in stored)

    services.hub.when_published = look
    services.journal.start()
    for number in range(50):
        services.journal.append([batch_of(alice, [f"text {number}"])])
    services.journal.stop()

    assert len(services.hub.published) == 50
    assert missing == []


def test_what_is_still_in_its_transaction_is_not_published(services: JournalFixture) -> None:
    """Promise: seen means stored."""
    alice = services.member("alice")
    gate = services.hold_first_commit()
    services.journal.start()
    services.journal.append([batch_of(alice, ["one"])])
    gate.await_thread()

    assert services.hub.published == []
    assert services.stored(alice) == []
    gate.open()


def test_what_comes_while_the_courier_goes_round_is_one_transaction(services: JournalFixture) -> None:
    """A sync for each message would cost much, and nobody would be shown it any sooner."""
    alice = services.member("alice")
    sender = Gate()
    services.hub.go_round = lambda _: sender.pass_through()
    services.journal.start()
    services.journal.append([batch_of(alice, ["first"])])
    sender.await_thread()
    for number in range(10):
        services.journal.append([batch_of(alice, [f"text {number}"])])
    assert services.disk.transactions == 0
    sender.open()
    services.journal.stop()

    assert [len(batch) for batch in services.hub.batches] == [11]


def test_a_batch_of_some_size_does_not_wait_for_the_courier(services: JournalFixture) -> None:
    waits: list[float] = []
    services.hub.go_round = waits.append
    services.journal.append([batch_of(services.member("alice"), ["x"] * GATHER_MESSAGES, None)])
    services.journal.start()
    eventually(lambda: services.hub.published)

    assert waits == []


def test_a_small_batch_waits_for_no_longer_than_it_may(services: JournalFixture) -> None:
    waits: list[float] = []
    services.hub.go_round = waits.append
    services.journal.start()
    services.journal.append([batch_of(services.member("alice"), ["x"])])
    services.journal.stop()

    assert waits == [GATHER_SECONDS]


def test_who_registers_or_settles_does_not_wait_for_the_courier(services: JournalFixture) -> None:
    """It has nothing to do with them."""
    waits: list[float] = []
    services.hub.go_round = waits.append
    services.journal.start()
    services.journal.create_account("alice", "hash")
    services.journal.wait_for_pending()

    assert waits == []


def test_all_that_waits_is_one_transaction(services: JournalFixture) -> None:
    """Group commit."""
    alice = services.member("alice")
    gate = services.hold_first_commit()
    services.journal.start()
    services.journal.append([batch_of(alice, ["first"])])
    gate.await_thread()
    for number in range(100):
        services.journal.append([batch_of(alice, [f"text {number}"])])
    before = services.disk.transactions
    gate.open()
    services.journal.wait_for_pending()

    # One for the hundred, and one for the fence if it came too late for that.
    assert services.disk.transactions - before <= 2
    assert [len(batch) for batch in services.hub.batches] == [1, 100]


def test_what_is_posted_together_stays_together_whoever_posts_at_the_same_time(services: JournalFixture) -> None:
    """Promise: one order. What one client sent in a row is committed in a row."""
    members = [services.member(name) for name in ("alice", "bob", "carol")]
    reads = [
        [batch_of(member, [f"{member.name} {number}"], f"n{number}") for number in range(50)] for member in members
    ]
    gate = services.hold_first_commit()
    services.journal.start()
    services.journal.append([batch_of(members[0], ["first"])])
    gate.await_thread()
    posters = [in_background(lambda read=read: services.journal.append(read)) for read in reads]  # type: ignore[misc]
    for poster in posters:
        must_end(poster)
    gate.open()
    services.journal.stop()

    _, batch = services.hub.batches
    assert sorted([batch[:50], batch[50:100], batch[100:]], key=lambda read: read[0].texts) == reads
    assert [batch.id for batch in batch] == list(range(2, 152))
    assert services.stored(members[0])[1:] == [(batch.id, *batch.texts) for batch in batch]


def test_whoever_settles_is_let_go_when_what_it_posted_before_was_published(services: JournalFixture) -> None:
    """A goodbye comes behind the confirmations, though both may be of the same batch."""
    alice = services.member("alice")
    order: list[str] = []
    commit, publication = services.hold_first_commit(), Gate()

    def publish(batches: list[MessageBatch]) -> None:
        if batches[-1].texts == ["second"]:
            publication.pass_through()
            order.append("published")

    def settle() -> None:
        services.journal.wait_for_pending()
        order.append("settled")

    services.hub.when_published = publish
    services.journal.start()
    services.journal.append([batch_of(alice, ["first"])])
    commit.await_thread()
    services.journal.append([batch_of(alice, ["second"])])
    settler = in_background(settle)
    eventually(lambda: services.journal._inbox.errands)
    commit.open()
    publication.await_thread()
    settler.join(0.05)  # one that was let go too early has the time to say so
    publication.open()
    must_end(settler)

    assert order == ["published", "settled"]


def test_direct_messages_are_stored_for_both(services: JournalFixture) -> None:
    alice = services.member("alice")
    bob, eve = services.member("bob"), services.member("eve")
    account = Accounts(services.database).find("bob")
    services.journal.start()
    services.journal.append([batch_of(alice, ["psst"], "n1", account)])
    services.journal.stop()

    assert services.stored(alice) == services.stored(bob) == [(1, "psst")]
    assert services.stored(eve) == []


# --- once ---


def repeated(batches: list[MessageBatch]) -> list[tuple[int, bool]]:
    return [(batch.id, batch.repeated) for batch in batches]


def test_a_nonce_repeated_in_the_same_batch_makes_one_message(services: JournalFixture) -> None:
    """Promise: once."""
    alice = services.member("alice")
    batches = [batch_of(alice, ["hello"], nonce) for nonce in ("n1", "n1", "n2", "n1")]
    gate = services.hold_first_commit()
    services.journal.start()
    services.journal.append([batch_of(alice, ["first"])])
    gate.await_thread()
    for batch in batches:
        services.journal.append([batch])
    gate.open()
    services.journal.stop()

    assert len(services.hub.batches) == 2
    assert repeated(batches) == [(2, False), (2, True), (3, False), (2, True)]
    assert services.stored(alice) == [(1, "first"), (2, "hello"), (3, "hello")]


def test_a_nonce_repeated_in_a_later_batch_makes_one_message(services: JournalFixture) -> None:
    """Promise: once."""
    alice = services.member("alice")
    services.journal.start()
    batches = [batch_of(alice, ["hello"], "n1") for _ in range(3)]
    for batch in batches:
        services.journal.append([batch])
        services.journal.wait_for_pending()

    assert repeated(batches) == [(1, False), (1, True), (1, True)]
    assert services.stored(alice) == [(1, "hello")]


@pytest.mark.parametrize("is_direct", [False, True])
def test_a_nonce_repeated_after_a_restart_makes_one_message(services: JournalFixture, is_direct: bool) -> None:
    """Promise: once. The sender may not have heard the confirmation before the server was killed."""
    alice = services.member("alice")
    recipient = register(services.database, "bob") if is_direct else None
    services.journal.start()
    services.journal.append([batch_of(alice, ["hello"], "n1", recipient)])
    services.journal.stop()
    again = JournalFixture(services.database)
    again.journal.start()
    batch = batch_of(alice, ["hello"], "n1", recipient)
    again.journal.append([batch])
    again.journal.stop()

    assert repeated([batch]) == [(1, True)]
    assert again.stored(alice) == [(1, "hello")]


def run_of(member: Member, *messages: str) -> MessageBatch:
    """The texts are their own nonces, but for those that begin with a dash."""
    return MessageBatch(member, [*messages], [None if message.startswith("-") else message for message in messages])


def test_a_run_of_new_nonces_is_one_post(services: JournalFixture) -> None:
    alice = services.member("alice")
    run = run_of(alice, "a", "-", "b")
    services.journal.start()
    services.journal.append([run])
    services.journal.stop()

    assert services.hub.published == [run]
    assert (run.id, run.last_id) == (1, 3)
    assert services.stored(alice) == [(1, "a"), (2, "-"), (3, "b")]


@pytest.mark.parametrize("settles", [False, True])
def test_of_a_run_with_nonces_that_were_used_before_only_the_rest_is_stored(
    services: JournalFixture, settles: bool
) -> None:
    """Promises: once, and one order. Be it in the same batch or an earlier one, or in the run itself."""
    alice = services.member("alice")
    services.journal.start()
    gate = services.hold_first_commit()
    services.journal.append([batch_of(alice, ["first"])])
    gate.await_thread()
    services.journal.append([run_of(alice, "a", "b")])
    if settles:
        gate.open()
        services.journal.wait_for_pending()
    services.journal.append([run_of(alice, "c", "a", "-d", "e", "e", "b", "f"), run_of(alice, "-g", "-h")])
    gate.open()
    services.journal.stop()

    assert services.stored(alice) == list(enumerate(["first", "a", "b", "c", "-d", "e", "f", "-g", "-h"], 1))
    told = [(batch.id, batch.texts, batch.repeated) for batch in services.hub.published[2:]]
    assert told == [
        *((4, ["c"], False), (2, ["a"], True), (5, ["-d"], False), (6, ["e"], False), (6, ["e"], True)),
        *((3, ["b"], True), (7, ["f"], False), (8, ["-g", "-h"], False)),
    ]
    assert [batch.nonces for batch in services.hub.published[2:4]] == [["c"], ["a"]]


@pytest.mark.parametrize("nonces", [["n1", "n2", "n1"], ["n1", "n1"], ["n3", "n1", "n2", "n3", "n1"]])
@pytest.mark.parametrize("follower", ["public", "run", "direct"])
def test_what_follows_a_run_that_ends_with_a_repetition_has_an_id_of_its_own(
    services: JournalFixture, nonces: list[str], follower: str
) -> None:
    """Promises: one order, and confirmed means stored."""
    alice, bob = services.member("alice"), services.member("bob")
    next_batch = {
        "public": batch_of(bob, ["hello"]),
        "run": run_of(bob, "x", "y"),
        "direct": batch_of(bob, ["psst"], "n1", register(services.database, "carol")),
    }[follower]
    services.journal.start()
    services.journal.append([run_of(alice, *nonces), next_batch])
    services.journal.stop()

    new = list(dict.fromkeys(nonces))
    assert next_batch.id == len(new) + 1
    assert services.stored(bob) == list(enumerate([*new, *next_batch.texts], 1))


SENDERS = ("alice", "bob")
messages = st.tuples(
    st.sampled_from(SENDERS), st.lists(st.sampled_from(["-a", "-b", "n1", "n2", "n3", "n4"]), min_size=1)
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(batches=st.lists(st.lists(messages, min_size=1, max_size=5), min_size=1, max_size=4))
def test_whatever_is_sent_again_is_stored_once_and_confirmed_with_its_first_id(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[tuple[str, list[str]]]]
) -> None:
    """Promises: once, one order, and confirmed means stored."""
    with closing(Database(tmp_path_factory.mktemp("data"))) as database:
        services = JournalFixture(database)
        members = {name: services.member(name) for name in SENDERS}
        services.journal.start()
        stored: list[tuple[int, str]] = []
        first_ids: dict[tuple[str, str], int] = {}
        expected: list[tuple[str, str, int, bool]] = []
        for batch in batches:
            for name, texts in batch:
                for text in texts:
                    message_id = first_ids.get((name, text), len(stored) + 1)
                    is_new = message_id > len(stored)
                    expected.append((name, text, message_id, not is_new))
                    if is_new:
                        stored.append((message_id, text))
                        if not text.startswith("-"):
                            first_ids[name, text] = message_id
            services.journal.append([run_of(members[name], *texts) for name, texts in batch])
            services.journal.wait_for_pending()
        services.journal.stop()

        assert services.stored(members["alice"]) == stored
        assert [
            (batch.member.name, text, message_id, batch.repeated)
            for batch in services.hub.published
            for message_id, text in enumerate(batch.texts, batch.id)
        ] == expected


def test_two_senders_may_have_the_same_nonce(services: JournalFixture) -> None:
    batches = [batch_of(services.member(name), ["hello"], "n1") for name in ("alice", "bob")]
    services.journal.start()
    for batch in batches:
        services.journal.append([batch])
    services.journal.stop()

    assert repeated(batches) == [(1, False), (2, False)]


# --- accounts ---


def test_an_account_is_on_the_disk_when_it_is_given_out(services: JournalFixture) -> None:
    services.journal.start()
    account = services.journal.create_account("Alice", "hash")

    assert account is not None
    assert Accounts(services.database).find("alice") == account


def test_of_many_who_register_one_name_at_once_one_wins(services: JournalFixture) -> None:
    first = batch_of(services.member("x"), ["first"])
    gate = services.hold_first_commit()
    services.journal.start()
    services.journal.append([first])
    gate.await_thread()
    won: list[object] = []
    racers = [
        in_background(lambda name=name: won.append(services.journal.create_account(name, f"hash of {name}")))  # type: ignore[misc]
        for name in ("alice", "ALICE", "Alice", "aLICE", "alicE")
    ]
    gate.open()
    for racer in racers:
        must_end(racer)

    winners = [account for account in won if account is not None]
    assert len(won) == 5
    assert winners == [Accounts(services.database).find("alice")]


def test_a_name_that_is_taken_is_not_given_out_again(services: JournalFixture) -> None:
    services.member("alice")
    services.journal.start()

    assert services.journal.create_account("ALICE", "another hash") is None


def test_a_guest_posts_as_somebody_who_is_stored_and_whom_nobody_finds(services: JournalFixture) -> None:
    """Promise: history. What a guest says has its name there."""
    alice = services.member("alice")
    services.journal.start()
    carol = services.journal.admit_guest("Carol")
    assert carol is not None
    assert (carol.name, carol.is_guest) == ("Carol", True)
    services.journal.append([batch_of(member_of(carol), ["hello"])])
    services.journal.append([batch_of(alice, ["psst"], None, carol)])
    services.journal.stop()

    assert [(message.sender, message.text) for message in services.messages.history(alice.account_id, ID_MAX, 500)] == [
        ("Carol", "hello"),
        ("alice", "psst"),
    ]
    assert Accounts(services.database).find("carol") is None


def test_no_guest_is_admitted_with_an_accounts_name(services: JournalFixture) -> None:
    services.member("alice")
    services.journal.start()

    assert [services.journal.admit_guest(name) for name in ("alice", "ALICE")] == [None, None]


def test_an_account_cannot_have_a_name_that_a_guest_uses(services: JournalFixture) -> None:
    services.claimed.add("carol")
    services.journal.start()
    assert services.journal.admit_guest("carol") is not None
    assert services.journal.create_account("carol", "hash") is None
    assert Accounts(services.database).find("carol") is None
    services.claimed.clear()
    account = services.journal.create_account("carol", "hash")

    assert account is not None
    assert Accounts(services.database).find("carol") == account
    assert services.journal.admit_guest("carol") is None


@pytest.mark.parametrize("guest_is_first", [False, True])
def test_of_a_guest_and_an_account_with_one_name_who_comes_first_has_it(
    services: JournalFixture, guest_is_first: bool
) -> None:
    """Though both wait for the disk together. A guest has the name from when it claimed it: before it is admitted."""
    gate = services.hold_first_commit()
    services.journal.start()
    services.journal.append([batch_of(services.member("alice"), ["first"])])
    gate.await_thread()
    outcomes: dict[str, object] = {}

    def admit() -> None:
        outcomes["guest"] = services.journal.admit_guest("carol")

    def enrol() -> None:
        outcomes["account"] = services.journal.create_account("carol", "hash")

    waiters = []
    if guest_is_first:
        services.claimed.add("carol")
    for number, work in enumerate((admit, enrol) if guest_is_first else (enrol, admit), 1):
        waiters.append(in_background(work))
        eventually(lambda number=number: len(services.journal._inbox.errands) == number)  # type: ignore[misc]
    gate.open()
    for waiter in waiters:
        must_end(waiter)

    assert services.disk.transactions == 2
    assert (outcomes["guest"] is None, outcomes["account"] is None) == (not guest_is_first, guest_is_first)


def test_a_name_that_is_claimed_while_its_account_waits_for_the_disk_is_the_guests(
    services: JournalFixture,
) -> None:
    gate = services.hold_first_commit()
    services.journal.start()
    services.journal.append([batch_of(services.member("alice"), ["first"])])
    gate.await_thread()
    outcomes: list[object] = []
    waiter = in_background(lambda: outcomes.append(services.journal.create_account("carol", "hash")))
    eventually(lambda: services.journal._inbox.errands)
    services.claimed.add("carol")
    gate.open()
    must_end(waiter)

    assert outcomes == [None]


def test_a_hash_is_replaced_unless_it_is_another_one_by_now(services: JournalFixture) -> None:
    services.member("alice")
    services.journal.start()
    account = Accounts(services.database).find("alice")
    assert account is not None
    changes = [services.journal.replace_password_hash(account, new) for new in ("new hash", "too late")]
    services.journal.stop()

    assert [each.result() for each in changes] == [account, None]
    found = Accounts(services.database).find("alice")
    assert found is not None
    assert found.password_hash == "new hash"


def test_deliveries_are_written_with_the_next_commit(services: JournalFixture) -> None:
    alice = services.member("alice")
    services.deliveries.note(alice.account_id, 7)
    services.journal.start()
    services.journal.wait_for_pending()

    found = Accounts(services.database).find("alice")
    assert found is not None
    assert found.delivered_id == 7
    assert services.deliveries.unsaved() == {}


def test_deliveries_that_nothing_followed_are_written_at_the_end(services: JournalFixture) -> None:
    alice = services.member("alice")
    services.journal.start()
    services.journal.wait_for_pending()
    services.deliveries.note(alice.account_id, 7)
    services.journal.stop()

    found = Accounts(services.database).find("alice")
    assert found is not None
    assert found.delivered_id == 7


def test_deliveries_that_are_noted_after_the_end_are_written_when_asked_for(services: JournalFixture) -> None:
    """The last connections are closed after the journal."""
    alice = services.member("alice")
    services.journal.start()
    services.journal.stop()
    services.deliveries.note(alice.account_id, 7)
    services.journal.save_deliveries()

    found = Accounts(services.database).find("alice")
    assert found is not None
    assert found.delivered_id == 7


def test_deliveries_that_cannot_be_written_at_the_end_do_not_keep_the_server_from_ending(
    services: JournalFixture,
) -> None:
    services.deliveries.note(services.member("alice").account_id, 7)
    services.database.path.unlink()
    with capture_logs() as log:
        services.journal.save_deliveries()

    assert [entry["event"] for entry in log] == ["delivery marks not saved"]


# --- a disk that fails ---


def test_while_the_disk_refuses_writes_senders_are_told_and_nothing_is_confirmed(services: JournalFixture) -> None:
    """Promise: confirmed means stored."""
    alice = services.member("alice")
    services.disk.before_commit = refuse_to_write
    services.journal.start()
    batch = batch_of(alice, ["hello"], "n1")
    with capture_logs() as log:
        services.journal.append([batch])
        services.journal.wait_for_pending()
        services.journal.append([batch])
        services.journal.wait_for_pending()

    assert services.hub.published == []
    assert [(refused, error.code) for refused, error in services.hub.refused] == [(batch, ErrorCode.INTERNAL)] * 2
    assert services.stored(alice) == []
    assert [entry["log_level"] for entry in log] == ["error"]
    assert "hello" not in str(log)


def test_each_message_of_a_read_that_the_disk_refuses_is_refused(services: JournalFixture) -> None:
    """Promise: confirmed means stored."""
    alice = services.member("alice")
    services.disk.before_commit = refuse_to_write
    services.journal.start()
    batches = [batch_of(alice, ["hello"], f"n{number}") for number in range(100)]
    with capture_logs():
        services.journal.append(batches)
        services.journal.wait_for_pending()

    assert [batch for batch, _ in services.hub.refused] == batches
    assert services.stored(alice) == []


def test_when_the_disk_accepts_writes_again_everything_goes_on_without_a_gap(services: JournalFixture) -> None:
    alice = services.member("alice")
    services.journal.start()
    services.disk.before_commit = refuse_to_write
    services.journal.append([batch_of(alice, ["lost"], "n1")])
    services.journal.wait_for_pending()
    services.disk.before_commit = lambda: None
    with capture_logs() as log:
        services.journal.append([batch_of(alice, ["hello"], "n1")])
        services.journal.wait_for_pending()

    assert services.stored(alice) == [(1, "hello")]
    assert [batch.id for batch in services.hub.published] == [1]
    assert [entry["log_level"] for entry in log] == ["info"]
    assert services.crashes == []


def test_a_registration_that_the_disk_refuses_is_an_error_of_the_disk(services: JournalFixture) -> None:
    services.disk.before_commit = refuse_to_write
    services.journal.start()

    with pytest.raises(OSError, match="full"):
        services.journal.create_account("alice", "hash")
    with pytest.raises(OSError, match="full"):
        services.journal.admit_guest("carol")
    assert Accounts(services.database).find("alice") is None


def test_deliveries_that_the_disk_refused_are_kept_for_later(services: JournalFixture) -> None:
    alice = services.member("alice")
    services.deliveries.note(alice.account_id, 7)
    services.disk.before_commit = refuse_to_write
    services.journal.start()
    services.journal.wait_for_pending()

    assert services.deliveries.unsaved() == {alice.account_id: 7}


def test_what_writes_nothing_is_no_sign_that_the_disk_accepts_writes_again(services: JournalFixture) -> None:
    """Such as the end of a connection."""
    alice = services.member("alice")
    services.disk.before_commit = refuse_to_write
    services.journal.start()
    with capture_logs() as log:
        services.journal.append([batch_of(alice, ["lost"])])
        services.journal.wait_for_pending()
        services.disk.before_commit = lambda: None
        services.journal.wait_for_pending()
        assert [entry["log_level"] for entry in log] == ["error"]
        services.journal.append([batch_of(alice, ["hello"])])
        services.journal.wait_for_pending()
    assert [entry["log_level"] for entry in log] == ["error", "info"]


def test_a_probe_says_whether_something_can_be_committed(services: JournalFixture) -> None:
    services.journal.start()
    with capture_logs() as log:
        assert services.journal.probe(5)
        services.disk.before_commit = refuse_to_write
        assert not services.journal.probe(5)
        assert not services.journal.probe(5)
        services.disk.before_commit = lambda: None
        assert services.journal.probe(5)
        services.journal.stop()
        assert not services.journal.probe(5)
    assert [entry["log_level"] for entry in log] == ["error", "info"]


def test_probes_of_a_journal_that_hangs_end_in_time_and_are_one_write(services: JournalFixture) -> None:
    gate = services.hold_first_commit()
    services.journal.start()
    services.journal.append([batch_of(services.member("alice"), ["first"])])
    gate.await_thread()
    assert [services.journal.probe(0.01) for _ in range(3)] == [False] * 3
    gate.open()
    services.journal.wait_for_pending()
    assert services.disk.transactions == 2
    assert services.journal.probe(5)


# --- the end ---


def test_what_was_accepted_before_the_end_is_written_and_published(services: JournalFixture) -> None:
    alice = services.member("alice")
    gate = services.hold_first_commit()
    services.journal.start()
    for number in range(10):
        services.journal.append([batch_of(alice, [f"text {number}"])])
    gate.await_thread()
    stopper = in_background(services.journal.stop)
    gate.open()
    must_end(stopper)

    assert len(services.stored(alice)) == len(services.hub.published) == 10


def test_who_settles_while_the_last_batch_is_written_waits_for_it(services: JournalFixture) -> None:
    """Promise: shutdown. Who hangs up meanwhile would give up the seat to which the confirmations go."""
    alice = services.member("alice")
    gate = services.hold_first_commit()
    services.journal.start()
    services.journal.append([batch_of(alice, ["hello"])])
    gate.await_thread()
    stopper = in_background(services.journal.stop)
    eventually(lambda: services.journal._closed)
    published: list[int] = []

    def settle() -> None:
        services.journal.wait_for_pending()
        published.append(len(services.hub.published))

    settler = in_background(settle)
    settler.join(0.05)  # one that was let go too early has the time to say so
    gate.open()
    must_end(settler)
    must_end(stopper)

    assert published == [1]
    must_end(in_background(services.journal.wait_for_pending))


def test_after_the_end_nothing_is_accepted(services: JournalFixture) -> None:
    alice = services.member("alice")
    services.journal.start()
    services.journal.stop()

    for ask in (
        lambda: services.journal.append([batch_of(alice, ["x"])]),
        lambda: services.journal.create_account("bob", "hash"),
        lambda: services.journal.replace_password_hash(Account(1, "alice", "", 0), "hash"),
    ):
        with pytest.raises(JournalClosedError):
            ask()


def test_whoever_posts_faster_than_the_disk_accepts_waits(
    services: JournalFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise: back-pressure. The inbox is bounded."""
    monkeypatch.setattr(journal_module, "INBOX_MAX_MESSAGES", 5)
    alice = services.member("alice")
    gate = services.hold_first_commit()
    services.journal.start()
    services.journal.append([batch_of(alice, ["first"])])
    gate.await_thread()
    services.journal.append([batch_of(alice, ["x"] * 4, None)])
    services.journal.append([batch_of(alice, ["x"])])
    sixth = in_background(lambda: services.journal.append([batch_of(alice, ["sixth"])]))
    eventually(lambda: services.journal._emptied._waiters)  # type: ignore[attr-defined]
    assert services.journal._inbox.size == 5
    gate.open()
    must_end(sixth)
    services.journal.stop()

    assert len(services.stored(alice)) == 7


def test_what_one_read_brings_is_accepted_whole_where_there_is_any_room(
    services: JournalFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is in memory already; to take it in pieces would let others come in between."""
    monkeypatch.setattr(journal_module, "INBOX_MAX_MESSAGES", 5)
    alice = services.member("alice")
    gate = services.hold_first_commit()
    services.journal.start()
    services.journal.append([batch_of(alice, ["first"])])
    gate.await_thread()
    must_end(
        in_background(lambda: services.journal.append([batch_of(alice, [f"text {number}"]) for number in range(12)]))
    )
    late = in_background(lambda: services.journal.append([batch_of(alice, ["late"])]))
    eventually(lambda: services.journal._emptied._waiters)  # type: ignore[attr-defined]
    gate.open()
    must_end(late)
    services.journal.stop()

    assert [len(batch) for batch in services.hub.batches] == [1, 12, 1]


def test_errands_wait_for_room_and_take_it_as_messages_do(
    services: JournalFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise: back-pressure. The inbox is bounded, whatever is put into it."""
    monkeypatch.setattr(journal_module, "INBOX_MAX_MESSAGES", 3)
    alice = services.member("alice")
    gate = services.hold_first_commit()
    services.journal.start()
    services.journal.append([batch_of(alice, ["first"])])
    gate.await_thread()
    services.journal.append([batch_of(alice, ["x"])])
    account = Account(alice.account_id, "alice", "hash of alice", 0)
    for number in range(2):
        services.journal.replace_password_hash(Account(alice.account_id, "alice", "another", 0), f"hash {number}")
    waiters = [
        in_background(lambda: services.journal.append([batch_of(alice, ["y"])])),
        in_background(lambda: services.journal.replace_password_hash(account, "last hash")),
    ]
    eventually(lambda: len(services.journal._emptied._waiters) == 2)  # type: ignore[attr-defined]
    gate.open()
    for waiter in waiters:
        must_end(waiter)
    services.journal.stop()

    found = Accounts(services.database).find("alice")
    assert found is not None
    assert found.password_hash == "last hash"
    assert len(services.stored(alice)) == 3


def test_whoever_waits_for_room_is_let_go_at_the_end(services: JournalFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "INBOX_MAX_MESSAGES", 1)
    alice = services.member("alice")
    outcomes: list[str] = []

    def batch() -> None:
        try:
            services.journal.append([batch_of(alice, ["x"]), batch_of(alice, ["y"])])
            outcomes.append("accepted")
        except JournalClosedError:
            outcomes.append("closed")

    gate = services.hold_first_commit()
    services.journal.start()
    services.journal.append([batch_of(alice, ["first"])])
    gate.await_thread()
    posters = [in_background(batch) for _ in range(5)]
    stopper = in_background(services.journal.stop)
    gate.open()
    for thread in (*posters, stopper):
        must_end(thread)

    assert len(outcomes) == 5
    assert len(services.stored(alice)) == 1 + 2 * outcomes.count("accepted")


def fail_badly(_: list[MessageBatch]) -> None:
    raise ZeroDivisionError


def test_nobody_waits_for_ever_for_a_journal_that_died(services: JournalFixture) -> None:
    alice = services.member("alice")
    services.hub.when_published = fail_badly
    gate = services.hold_first_commit()
    services.journal.start()
    outcomes: list[str] = []

    def wait(ask: Callable[[], object]) -> None:
        try:
            ask()
            outcomes.append("let go")
        except JournalClosedError:
            outcomes.append("closed")

    services.journal.append([batch_of(alice, ["x"])])
    gate.await_thread()
    waiters = [
        in_background(lambda: wait(services.journal.wait_for_pending)),
        in_background(lambda: wait(lambda: services.journal.create_account("bob", "hash"))),
        in_background(lambda: wait(lambda: services.journal.admit_guest("carol"))),
    ]
    with capture_logs():
        gate.open()
        for waiter in waiters:
            must_end(waiter)
        must_end(in_background(services.journal.stop))

    assert len(outcomes) == 3
    assert services.crashes == ["journal"]
    with pytest.raises(JournalClosedError):
        services.journal.append([batch_of(alice, ["y"])])


def test_a_fence_in_the_batch_that_kills_the_journal_is_passed(services: JournalFixture) -> None:
    alice = services.member("alice")
    gate = services.hold_first_commit()
    services.journal.start()
    services.journal.append([batch_of(alice, ["first"])])
    gate.await_thread()
    services.hub.when_published = lambda batches: fail_badly(batches) if batches[0].texts == ["second"] else None
    services.journal.append([batch_of(alice, ["second"])])
    settler = in_background(services.journal.wait_for_pending)
    eventually(lambda: services.journal._inbox.batches and services.journal._inbox.errands)
    with capture_logs():
        gate.open()
        must_end(settler)
        services.journal.stop()


def test_a_restart_finds_what_was_confirmed(folder: Path) -> None:
    """Promise: confirmed means stored."""
    database = Database(folder)
    services = JournalFixture(database)
    alice = services.member("alice")
    services.journal.start()
    for number in range(20):
        services.journal.append([batch_of(alice, [f"text {number}"], f"n{number}")])
    services.journal.stop()
    confirmed = [(batch.id, *batch.texts) for batch in services.hub.published]
    database.close()
    reopened = Database(folder)

    assert JournalFixture(reopened).stored(alice) == confirmed
    reopened.close()


def test_the_journals_thread_has_a_name_and_ends(services: JournalFixture) -> None:
    services.journal.start()
    assert "journal" in {thread.name for thread in threading.enumerate()}
    services.journal.stop()
    assert "journal" not in {thread.name for thread in threading.enumerate()}
