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
from chatserver.room import journal as journal_module
from chatserver.room.deliveries import DeliveryMarks
from chatserver.room.journal import GATHER_MESSAGES, GATHER_SECONDS, JournalClosedError, SqliteJournal
from chatserver.room.post import Post
from chatserver.room.seat import Seat
from chatserver.store.accounts import Account, Accounts
from chatserver.store.database import Database
from chatserver.store.messages import Messages

from .rooms import FakeFeed, Gate, eventually, in_background, must_end, post_of, register, seat_of


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


class House:
    """A journal over a real database, with a fake feed; closed at the end of its test."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.disk = Disk(database)
        self.feed = FakeFeed()
        self.deliveries = DeliveryMarks()
        self.crashes: list[str] = []
        # The names that guests have.
        self.claimed: set[str] = set()
        self.clock = itertools.count(1_000)
        self.messages = Messages(database)
        self.journal = SqliteJournal(
            self.disk,  # type: ignore[arg-type]
            self.feed,  # type: ignore[arg-type]
            self.deliveries,
            self.messages.last_id(),
            lambda: next(self.clock),
            lambda name: name in self.claimed,
            self.crashes.append,
        )

    def seat(self, name: str) -> Seat:
        account = Accounts(self.database).find(name) or register(self.database, name)
        return seat_of(account)

    def stored(self, reader: Seat) -> list[tuple[int, str]]:
        """What the history holds, as ids and texts."""
        return [(message.id, message.text) for message in self.messages.history(reader.account_id, ID_MAX, 500)]

    def hold_first_commit(self) -> Gate:
        """Stop the journal thread in its first transaction: meanwhile its inbox fills."""
        gate = Gate()
        self.disk.before_commit = gate.pass_through
        return gate


@pytest.fixture
def house(database: Database) -> Iterator[House]:
    house = House(database)
    yield house
    with suppress(JournalClosedError):
        house.journal.stop()


# --- order and storing ---


def test_ids_and_times_grow_in_the_order_of_posting(house: House) -> None:
    """Promise: one order."""
    alice, bob = house.seat("alice"), house.seat("bob")
    house.journal.start()
    posts = [post_of(seat, [f"text {number}"]) for number, seat in enumerate([alice, bob, bob, alice, bob])]
    for post in posts:
        house.journal.append([post])
    house.journal.stop()

    assert house.feed.published == posts
    assert [post.id for post in posts] == [1, 2, 3, 4, 5]
    assert sorted(post.time_ms for post in posts) == [post.time_ms for post in posts]
    assert house.stored(alice) == [(post.id, *post.texts) for post in posts]


def test_each_message_of_a_run_has_an_id_and_is_stored(house: House) -> None:
    """Promises: confirmed means stored, and one order."""
    alice, bob = house.seat("alice"), house.seat("bob")
    house.journal.start()
    runs = [post_of(alice, ["one", "two", "three"]), post_of(bob, ["four"]), post_of(alice, ["five", "six"])]
    house.journal.append(runs)
    house.journal.stop()

    assert [(post.id, post.last_id) for post in runs] == [(1, 3), (4, 4), (5, 6)]
    assert house.stored(alice) == list(enumerate(["one", "two", "three", "four", "five", "six"], 1))


def test_ids_go_on_after_a_restart(house: House) -> None:
    alice, bob = house.seat("alice"), register(house.database, "bob")
    house.journal.start()
    house.journal.append([post_of(alice, ["one"])])
    house.journal.append([post_of(alice, ["psst"], None, bob)])
    house.journal.stop()
    again = House(house.database)
    again.journal.start()
    again.journal.append([post_of(alice, ["three"])])
    again.journal.stop()

    assert again.stored(alice) == [(1, "one"), (2, "psst"), (3, "three")]


def test_nothing_is_published_before_its_commit(house: House) -> None:
    """Promises: seen means stored, and confirmed means stored."""
    alice = house.seat("alice")
    missing: list[str] = []

    def look(posts: list[Post]) -> None:
        stored = house.stored(alice)
        missing.extend(post.texts[0] for post in posts if (post.id, post.texts[0]) not in stored)

    house.feed.when_published = look
    house.journal.start()
    for number in range(50):
        house.journal.append([post_of(alice, [f"text {number}"])])
    house.journal.stop()

    assert len(house.feed.published) == 50
    assert missing == []


def test_what_is_still_in_its_transaction_is_not_published(house: House) -> None:
    """Promise: seen means stored."""
    alice = house.seat("alice")
    gate = house.hold_first_commit()
    house.journal.start()
    house.journal.append([post_of(alice, ["one"])])
    gate.await_thread()

    assert house.feed.published == []
    assert house.stored(alice) == []
    gate.open()


def test_what_comes_while_the_courier_goes_round_is_one_transaction(house: House) -> None:
    """A sync for each message would cost much, and nobody would be shown it any sooner."""
    alice = house.seat("alice")
    courier = Gate()
    house.feed.go_round = lambda _: courier.pass_through()
    house.journal.start()
    house.journal.append([post_of(alice, ["first"])])
    courier.await_thread()
    for number in range(10):
        house.journal.append([post_of(alice, [f"text {number}"])])
    assert house.disk.transactions == 0
    courier.open()
    house.journal.stop()

    assert [len(batch) for batch in house.feed.batches] == [11]


def test_a_batch_of_some_size_does_not_wait_for_the_courier(house: House) -> None:
    waits: list[float] = []
    house.feed.go_round = waits.append
    house.journal.append([post_of(house.seat("alice"), ["x"] * GATHER_MESSAGES, None)])
    house.journal.start()
    eventually(lambda: house.feed.published)

    assert waits == []


def test_a_small_batch_waits_for_no_longer_than_it_may(house: House) -> None:
    waits: list[float] = []
    house.feed.go_round = waits.append
    house.journal.start()
    house.journal.append([post_of(house.seat("alice"), ["x"])])
    house.journal.stop()

    assert waits == [GATHER_SECONDS]


def test_who_registers_or_settles_does_not_wait_for_the_courier(house: House) -> None:
    """It has nothing to do with them."""
    waits: list[float] = []
    house.feed.go_round = waits.append
    house.journal.start()
    house.journal.create_account("alice", "hash")
    house.journal.wait_for_pending()

    assert waits == []


def test_all_that_waits_is_one_transaction(house: House) -> None:
    """Group commit."""
    alice = house.seat("alice")
    gate = house.hold_first_commit()
    house.journal.start()
    house.journal.append([post_of(alice, ["first"])])
    gate.await_thread()
    for number in range(100):
        house.journal.append([post_of(alice, [f"text {number}"])])
    before = house.disk.transactions
    gate.open()
    house.journal.wait_for_pending()

    # One for the hundred, and one for the fence if it came too late for that.
    assert house.disk.transactions - before <= 2
    assert [len(batch) for batch in house.feed.batches] == [1, 100]


def test_what_is_posted_together_stays_together_whoever_posts_at_the_same_time(house: House) -> None:
    """Promise: one order. What one client sent in a row is committed in a row."""
    seats = [house.seat(name) for name in ("alice", "bob", "carol")]
    reads = [[post_of(seat, [f"{seat.name} {number}"], f"n{number}") for number in range(50)] for seat in seats]
    gate = house.hold_first_commit()
    house.journal.start()
    house.journal.append([post_of(seats[0], ["first"])])
    gate.await_thread()
    posters = [in_background(lambda read=read: house.journal.append(read)) for read in reads]  # type: ignore[misc]
    for poster in posters:
        must_end(poster)
    gate.open()
    house.journal.stop()

    _, batch = house.feed.batches
    assert sorted([batch[:50], batch[50:100], batch[100:]], key=lambda read: read[0].texts) == reads
    assert [post.id for post in batch] == list(range(2, 152))
    assert house.stored(seats[0])[1:] == [(post.id, *post.texts) for post in batch]


def test_whoever_settles_is_let_go_when_what_it_posted_before_was_published(house: House) -> None:
    """A goodbye comes behind the confirmations, though both may be of the same batch."""
    alice = house.seat("alice")
    order: list[str] = []
    commit, publication = house.hold_first_commit(), Gate()

    def publish(posts: list[Post]) -> None:
        if posts[-1].texts == ["second"]:
            publication.pass_through()
            order.append("published")

    def settle() -> None:
        house.journal.wait_for_pending()
        order.append("settled")

    house.feed.when_published = publish
    house.journal.start()
    house.journal.append([post_of(alice, ["first"])])
    commit.await_thread()
    house.journal.append([post_of(alice, ["second"])])
    settler = in_background(settle)
    eventually(lambda: house.journal._inbox.errands)
    commit.open()
    publication.await_thread()
    settler.join(0.05)  # one that was let go too early has the time to say so
    publication.open()
    must_end(settler)

    assert order == ["published", "settled"]


def test_direct_messages_are_stored_for_both(house: House) -> None:
    alice = house.seat("alice")
    bob, eve = house.seat("bob"), house.seat("eve")
    account = Accounts(house.database).find("bob")
    house.journal.start()
    house.journal.append([post_of(alice, ["psst"], "n1", account)])
    house.journal.stop()

    assert house.stored(alice) == house.stored(bob) == [(1, "psst")]
    assert house.stored(eve) == []


# --- once ---


def repeated(posts: list[Post]) -> list[tuple[int, bool]]:
    return [(post.id, post.repeated) for post in posts]


def test_a_nonce_repeated_in_the_same_batch_makes_one_message(house: House) -> None:
    """Promise: once."""
    alice = house.seat("alice")
    posts = [post_of(alice, ["hello"], nonce) for nonce in ("n1", "n1", "n2", "n1")]
    gate = house.hold_first_commit()
    house.journal.start()
    house.journal.append([post_of(alice, ["first"])])
    gate.await_thread()
    for post in posts:
        house.journal.append([post])
    gate.open()
    house.journal.stop()

    assert len(house.feed.batches) == 2
    assert repeated(posts) == [(2, False), (2, True), (3, False), (2, True)]
    assert house.stored(alice) == [(1, "first"), (2, "hello"), (3, "hello")]


def test_a_nonce_repeated_in_a_later_batch_makes_one_message(house: House) -> None:
    """Promise: once."""
    alice = house.seat("alice")
    house.journal.start()
    posts = [post_of(alice, ["hello"], "n1") for _ in range(3)]
    for post in posts:
        house.journal.append([post])
        house.journal.wait_for_pending()

    assert repeated(posts) == [(1, False), (1, True), (1, True)]
    assert house.stored(alice) == [(1, "hello")]


@pytest.mark.parametrize("is_direct", [False, True])
def test_a_nonce_repeated_after_a_restart_makes_one_message(house: House, is_direct: bool) -> None:
    """Promise: once. The sender may not have heard the confirmation before the server was killed."""
    alice = house.seat("alice")
    recipient = register(house.database, "bob") if is_direct else None
    house.journal.start()
    house.journal.append([post_of(alice, ["hello"], "n1", recipient)])
    house.journal.stop()
    again = House(house.database)
    again.journal.start()
    post = post_of(alice, ["hello"], "n1", recipient)
    again.journal.append([post])
    again.journal.stop()

    assert repeated([post]) == [(1, True)]
    assert again.stored(alice) == [(1, "hello")]


def run_of(seat: Seat, *messages: str) -> Post:
    """The texts are their own nonces, but for those that begin with a dash."""
    return Post(seat, [*messages], [None if message.startswith("-") else message for message in messages])


def test_a_run_of_new_nonces_is_one_post(house: House) -> None:
    alice = house.seat("alice")
    run = run_of(alice, "a", "-", "b")
    house.journal.start()
    house.journal.append([run])
    house.journal.stop()

    assert house.feed.published == [run]
    assert (run.id, run.last_id) == (1, 3)
    assert house.stored(alice) == [(1, "a"), (2, "-"), (3, "b")]


@pytest.mark.parametrize("settles", [False, True])
def test_of_a_run_with_nonces_that_were_used_before_only_the_rest_is_stored(house: House, settles: bool) -> None:
    """Promises: once, and one order. Be it in the same batch or an earlier one, or in the run itself."""
    alice = house.seat("alice")
    house.journal.start()
    gate = house.hold_first_commit()
    house.journal.append([post_of(alice, ["first"])])
    gate.await_thread()
    house.journal.append([run_of(alice, "a", "b")])
    if settles:
        gate.open()
        house.journal.wait_for_pending()
    house.journal.append([run_of(alice, "c", "a", "-d", "e", "e", "b", "f"), run_of(alice, "-g", "-h")])
    gate.open()
    house.journal.stop()

    assert house.stored(alice) == list(enumerate(["first", "a", "b", "c", "-d", "e", "f", "-g", "-h"], 1))
    told = [(post.id, post.texts, post.repeated) for post in house.feed.published[2:]]
    assert told == [
        *((4, ["c"], False), (2, ["a"], True), (5, ["-d"], False), (6, ["e"], False), (6, ["e"], True)),
        *((3, ["b"], True), (7, ["f"], False), (8, ["-g", "-h"], False)),
    ]
    assert [post.nonces for post in house.feed.published[2:4]] == [["c"], ["a"]]


@pytest.mark.parametrize("nonces", [["n1", "n2", "n1"], ["n1", "n1"], ["n3", "n1", "n2", "n3", "n1"]])
@pytest.mark.parametrize("follower", ["public", "run", "direct"])
def test_what_follows_a_run_that_ends_with_a_repetition_has_an_id_of_its_own(
    house: House, nonces: list[str], follower: str
) -> None:
    """Promises: one order, and confirmed means stored."""
    alice, bob = house.seat("alice"), house.seat("bob")
    next_post = {
        "public": post_of(bob, ["hello"]),
        "run": run_of(bob, "x", "y"),
        "direct": post_of(bob, ["psst"], "n1", register(house.database, "carol")),
    }[follower]
    house.journal.start()
    house.journal.append([run_of(alice, *nonces), next_post])
    house.journal.stop()

    new = list(dict.fromkeys(nonces))
    assert next_post.id == len(new) + 1
    assert house.stored(bob) == list(enumerate([*new, *next_post.texts], 1))


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
        house = House(database)
        seats = {name: house.seat(name) for name in SENDERS}
        house.journal.start()
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
            house.journal.append([run_of(seats[name], *texts) for name, texts in batch])
            house.journal.wait_for_pending()
        house.journal.stop()

        assert house.stored(seats["alice"]) == stored
        assert [
            (post.seat.name, text, message_id, post.repeated)
            for post in house.feed.published
            for message_id, text in enumerate(post.texts, post.id)
        ] == expected


def test_two_senders_may_have_the_same_nonce(house: House) -> None:
    posts = [post_of(house.seat(name), ["hello"], "n1") for name in ("alice", "bob")]
    house.journal.start()
    for post in posts:
        house.journal.append([post])
    house.journal.stop()

    assert repeated(posts) == [(1, False), (2, False)]


# --- accounts ---


def test_an_account_is_on_the_disk_when_it_is_given_out(house: House) -> None:
    house.journal.start()
    account = house.journal.create_account("Alice", "hash")

    assert account is not None
    assert Accounts(house.database).find("alice") == account


def test_of_many_who_register_one_name_at_once_one_wins(house: House) -> None:
    first = post_of(house.seat("x"), ["first"])
    gate = house.hold_first_commit()
    house.journal.start()
    house.journal.append([first])
    gate.await_thread()
    won: list[object] = []
    racers = [
        in_background(lambda name=name: won.append(house.journal.create_account(name, f"hash of {name}")))  # type: ignore[misc]
        for name in ("alice", "ALICE", "Alice", "aLICE", "alicE")
    ]
    gate.open()
    for racer in racers:
        must_end(racer)

    winners = [account for account in won if account is not None]
    assert len(won) == 5
    assert winners == [Accounts(house.database).find("alice")]


def test_a_name_that_is_taken_is_not_given_out_again(house: House) -> None:
    house.seat("alice")
    house.journal.start()

    assert house.journal.create_account("ALICE", "another hash") is None


def test_a_guest_posts_as_somebody_who_is_stored_and_whom_nobody_finds(house: House) -> None:
    """Promise: history. What a guest says has its name there."""
    alice = house.seat("alice")
    house.journal.start()
    carol = house.journal.admit_guest("Carol")
    assert carol is not None
    assert (carol.name, carol.is_guest) == ("Carol", True)
    house.journal.append([post_of(seat_of(carol), ["hello"])])
    house.journal.append([post_of(alice, ["psst"], None, carol)])
    house.journal.stop()

    assert [(message.sender, message.text) for message in house.messages.history(alice.account_id, ID_MAX, 500)] == [
        ("Carol", "hello"),
        ("alice", "psst"),
    ]
    assert Accounts(house.database).find("carol") is None


def test_no_guest_is_admitted_with_an_accounts_name(house: House) -> None:
    house.seat("alice")
    house.journal.start()

    assert [house.journal.admit_guest(name) for name in ("alice", "ALICE")] == [None, None]


def test_an_account_cannot_have_a_name_that_a_guest_uses(house: House) -> None:
    house.claimed.add("carol")
    house.journal.start()
    assert house.journal.admit_guest("carol") is not None
    assert house.journal.create_account("carol", "hash") is None
    assert Accounts(house.database).find("carol") is None
    house.claimed.clear()
    account = house.journal.create_account("carol", "hash")

    assert account is not None
    assert Accounts(house.database).find("carol") == account
    assert house.journal.admit_guest("carol") is None


@pytest.mark.parametrize("guest_is_first", [False, True])
def test_of_a_guest_and_an_account_with_one_name_who_comes_first_has_it(house: House, guest_is_first: bool) -> None:
    """Though both wait for the disk together. A guest has the name from when it claimed it: before it is admitted."""
    gate = house.hold_first_commit()
    house.journal.start()
    house.journal.append([post_of(house.seat("alice"), ["first"])])
    gate.await_thread()
    outcomes: dict[str, object] = {}

    def admit() -> None:
        outcomes["guest"] = house.journal.admit_guest("carol")

    def enrol() -> None:
        outcomes["account"] = house.journal.create_account("carol", "hash")

    waiters = []
    if guest_is_first:
        house.claimed.add("carol")
    for number, work in enumerate((admit, enrol) if guest_is_first else (enrol, admit), 1):
        waiters.append(in_background(work))
        eventually(lambda number=number: len(house.journal._inbox.errands) == number)  # type: ignore[misc]
    gate.open()
    for waiter in waiters:
        must_end(waiter)

    assert house.disk.transactions == 2
    assert (outcomes["guest"] is None, outcomes["account"] is None) == (not guest_is_first, guest_is_first)


def test_a_name_that_is_claimed_while_its_account_waits_for_the_disk_is_the_guests(house: House) -> None:
    gate = house.hold_first_commit()
    house.journal.start()
    house.journal.append([post_of(house.seat("alice"), ["first"])])
    gate.await_thread()
    outcomes: list[object] = []
    waiter = in_background(lambda: outcomes.append(house.journal.create_account("carol", "hash")))
    eventually(lambda: house.journal._inbox.errands)
    house.claimed.add("carol")
    gate.open()
    must_end(waiter)

    assert outcomes == [None]


def test_a_hash_is_replaced_unless_it_is_another_one_by_now(house: House) -> None:
    house.seat("alice")
    house.journal.start()
    account = Accounts(house.database).find("alice")
    assert account is not None
    changes = [house.journal.replace_password_hash(account, new) for new in ("new hash", "too late")]
    house.journal.stop()

    assert [each.result() for each in changes] == [account, None]
    found = Accounts(house.database).find("alice")
    assert found is not None
    assert found.password_hash == "new hash"


def test_deliveries_are_written_with_the_next_commit(house: House) -> None:
    alice = house.seat("alice")
    house.deliveries.note(alice.account_id, 7)
    house.journal.start()
    house.journal.wait_for_pending()

    found = Accounts(house.database).find("alice")
    assert found is not None
    assert found.delivered_id == 7
    assert house.deliveries.unsaved() == {}


def test_deliveries_that_nothing_followed_are_written_at_the_end(house: House) -> None:
    alice = house.seat("alice")
    house.journal.start()
    house.journal.wait_for_pending()
    house.deliveries.note(alice.account_id, 7)
    house.journal.stop()

    found = Accounts(house.database).find("alice")
    assert found is not None
    assert found.delivered_id == 7


def test_deliveries_that_are_noted_after_the_end_are_written_when_asked_for(house: House) -> None:
    """The last connections are closed after the journal."""
    alice = house.seat("alice")
    house.journal.start()
    house.journal.stop()
    house.deliveries.note(alice.account_id, 7)
    house.journal.save_deliveries()

    found = Accounts(house.database).find("alice")
    assert found is not None
    assert found.delivered_id == 7


def test_deliveries_that_cannot_be_written_at_the_end_do_not_keep_the_server_from_ending(house: House) -> None:
    house.deliveries.note(house.seat("alice").account_id, 7)
    house.database.path.unlink()
    with capture_logs() as log:
        house.journal.save_deliveries()

    assert [entry["event"] for entry in log] == ["delivered marks not saved"]


# --- a disk that fails ---


def test_while_the_disk_refuses_writes_senders_are_told_and_nothing_is_confirmed(house: House) -> None:
    """Promise: confirmed means stored."""
    alice = house.seat("alice")
    house.disk.before_commit = refuse_to_write
    house.journal.start()
    post = post_of(alice, ["hello"], "n1")
    with capture_logs() as log:
        house.journal.append([post])
        house.journal.wait_for_pending()
        house.journal.append([post])
        house.journal.wait_for_pending()

    assert house.feed.published == []
    assert [(refused, refusal.code) for refused, refusal in house.feed.refused] == [(post, ErrorCode.INTERNAL)] * 2
    assert house.stored(alice) == []
    assert [entry["log_level"] for entry in log] == ["error"]
    assert "hello" not in str(log)


def test_each_message_of_a_read_that_the_disk_refuses_is_refused(house: House) -> None:
    """Promise: confirmed means stored."""
    alice = house.seat("alice")
    house.disk.before_commit = refuse_to_write
    house.journal.start()
    posts = [post_of(alice, ["hello"], f"n{number}") for number in range(100)]
    with capture_logs():
        house.journal.append(posts)
        house.journal.wait_for_pending()

    assert [post for post, _ in house.feed.refused] == posts
    assert house.stored(alice) == []


def test_when_the_disk_accepts_writes_again_everything_goes_on_without_a_gap(house: House) -> None:
    alice = house.seat("alice")
    house.journal.start()
    house.disk.before_commit = refuse_to_write
    house.journal.append([post_of(alice, ["lost"], "n1")])
    house.journal.wait_for_pending()
    house.disk.before_commit = lambda: None
    with capture_logs() as log:
        house.journal.append([post_of(alice, ["hello"], "n1")])
        house.journal.wait_for_pending()

    assert house.stored(alice) == [(1, "hello")]
    assert [post.id for post in house.feed.published] == [1]
    assert [entry["log_level"] for entry in log] == ["info"]
    assert house.crashes == []


def test_a_registration_that_the_disk_refuses_is_an_error_of_the_disk(house: House) -> None:
    house.disk.before_commit = refuse_to_write
    house.journal.start()

    with pytest.raises(OSError, match="full"):
        house.journal.create_account("alice", "hash")
    with pytest.raises(OSError, match="full"):
        house.journal.admit_guest("carol")
    assert Accounts(house.database).find("alice") is None


def test_deliveries_that_the_disk_refused_are_kept_for_later(house: House) -> None:
    alice = house.seat("alice")
    house.deliveries.note(alice.account_id, 7)
    house.disk.before_commit = refuse_to_write
    house.journal.start()
    house.journal.wait_for_pending()

    assert house.deliveries.unsaved() == {alice.account_id: 7}


def test_what_writes_nothing_is_no_sign_that_the_disk_accepts_writes_again(house: House) -> None:
    """Such as the end of a connection."""
    alice = house.seat("alice")
    house.disk.before_commit = refuse_to_write
    house.journal.start()
    with capture_logs() as log:
        house.journal.append([post_of(alice, ["lost"])])
        house.journal.wait_for_pending()
        house.disk.before_commit = lambda: None
        house.journal.wait_for_pending()
        assert [entry["log_level"] for entry in log] == ["error"]
        house.journal.append([post_of(alice, ["hello"])])
        house.journal.wait_for_pending()
    assert [entry["log_level"] for entry in log] == ["error", "info"]


def test_a_probe_says_whether_something_can_be_committed(house: House) -> None:
    house.journal.start()
    with capture_logs() as log:
        assert house.journal.probe(5)
        house.disk.before_commit = refuse_to_write
        assert not house.journal.probe(5)
        assert not house.journal.probe(5)
        house.disk.before_commit = lambda: None
        assert house.journal.probe(5)
        house.journal.stop()
        assert not house.journal.probe(5)
    assert [entry["log_level"] for entry in log] == ["error", "info"]


def test_probes_of_a_journal_that_hangs_end_in_time_and_are_one_write(house: House) -> None:
    gate = house.hold_first_commit()
    house.journal.start()
    house.journal.append([post_of(house.seat("alice"), ["first"])])
    gate.await_thread()
    assert [house.journal.probe(0.01) for _ in range(3)] == [False] * 3
    gate.open()
    house.journal.wait_for_pending()
    assert house.disk.transactions == 2
    assert house.journal.probe(5)


# --- the end ---


def test_what_was_accepted_before_the_end_is_written_and_published(house: House) -> None:
    alice = house.seat("alice")
    gate = house.hold_first_commit()
    house.journal.start()
    for number in range(10):
        house.journal.append([post_of(alice, [f"text {number}"])])
    gate.await_thread()
    stopper = in_background(house.journal.stop)
    gate.open()
    must_end(stopper)

    assert len(house.stored(alice)) == len(house.feed.published) == 10


def test_who_settles_while_the_last_batch_is_written_waits_for_it(house: House) -> None:
    """Promise: shutdown. Who hangs up meanwhile would give up the seat to which the confirmations go."""
    alice = house.seat("alice")
    gate = house.hold_first_commit()
    house.journal.start()
    house.journal.append([post_of(alice, ["hello"])])
    gate.await_thread()
    stopper = in_background(house.journal.stop)
    eventually(lambda: house.journal._closed)
    published: list[int] = []

    def settle() -> None:
        house.journal.wait_for_pending()
        published.append(len(house.feed.published))

    settler = in_background(settle)
    settler.join(0.05)  # one that was let go too early has the time to say so
    gate.open()
    must_end(settler)
    must_end(stopper)

    assert published == [1]
    must_end(in_background(house.journal.wait_for_pending))


def test_after_the_end_nothing_is_accepted(house: House) -> None:
    alice = house.seat("alice")
    house.journal.start()
    house.journal.stop()

    for ask in (
        lambda: house.journal.append([post_of(alice, ["x"])]),
        lambda: house.journal.create_account("bob", "hash"),
        lambda: house.journal.replace_password_hash(Account(1, "alice", "", 0), "hash"),
    ):
        with pytest.raises(JournalClosedError):
            ask()


def test_whoever_posts_faster_than_the_disk_accepts_waits(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: back-pressure. The inbox is bounded."""
    monkeypatch.setattr(journal_module, "INBOX_MAX_MESSAGES", 5)
    alice = house.seat("alice")
    gate = house.hold_first_commit()
    house.journal.start()
    house.journal.append([post_of(alice, ["first"])])
    gate.await_thread()
    house.journal.append([post_of(alice, ["x"] * 4, None)])
    house.journal.append([post_of(alice, ["x"])])
    sixth = in_background(lambda: house.journal.append([post_of(alice, ["sixth"])]))
    eventually(lambda: house.journal._emptied._waiters)  # type: ignore[attr-defined]
    assert house.journal._inbox.size == 5
    gate.open()
    must_end(sixth)
    house.journal.stop()

    assert len(house.stored(alice)) == 7


def test_what_one_read_brings_is_accepted_whole_where_there_is_any_room(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is in memory already; to take it in pieces would let others come in between."""
    monkeypatch.setattr(journal_module, "INBOX_MAX_MESSAGES", 5)
    alice = house.seat("alice")
    gate = house.hold_first_commit()
    house.journal.start()
    house.journal.append([post_of(alice, ["first"])])
    gate.await_thread()
    must_end(in_background(lambda: house.journal.append([post_of(alice, [f"text {number}"]) for number in range(12)])))
    late = in_background(lambda: house.journal.append([post_of(alice, ["late"])]))
    eventually(lambda: house.journal._emptied._waiters)  # type: ignore[attr-defined]
    gate.open()
    must_end(late)
    house.journal.stop()

    assert [len(batch) for batch in house.feed.batches] == [1, 12, 1]


def test_errands_wait_for_room_and_take_it_as_messages_do(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: back-pressure. The inbox is bounded, whatever is put into it."""
    monkeypatch.setattr(journal_module, "INBOX_MAX_MESSAGES", 3)
    alice = house.seat("alice")
    gate = house.hold_first_commit()
    house.journal.start()
    house.journal.append([post_of(alice, ["first"])])
    gate.await_thread()
    house.journal.append([post_of(alice, ["x"])])
    account = Account(alice.account_id, "alice", "hash of alice", 0)
    for number in range(2):
        house.journal.replace_password_hash(Account(alice.account_id, "alice", "another", 0), f"hash {number}")
    waiters = [
        in_background(lambda: house.journal.append([post_of(alice, ["y"])])),
        in_background(lambda: house.journal.replace_password_hash(account, "last hash")),
    ]
    eventually(lambda: len(house.journal._emptied._waiters) == 2)  # type: ignore[attr-defined]
    gate.open()
    for waiter in waiters:
        must_end(waiter)
    house.journal.stop()

    found = Accounts(house.database).find("alice")
    assert found is not None
    assert found.password_hash == "last hash"
    assert len(house.stored(alice)) == 3


def test_whoever_waits_for_room_is_let_go_at_the_end(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "INBOX_MAX_MESSAGES", 1)
    alice = house.seat("alice")
    outcomes: list[str] = []

    def post() -> None:
        try:
            house.journal.append([post_of(alice, ["x"]), post_of(alice, ["y"])])
            outcomes.append("accepted")
        except JournalClosedError:
            outcomes.append("closed")

    gate = house.hold_first_commit()
    house.journal.start()
    house.journal.append([post_of(alice, ["first"])])
    gate.await_thread()
    posters = [in_background(post) for _ in range(5)]
    stopper = in_background(house.journal.stop)
    gate.open()
    for thread in (*posters, stopper):
        must_end(thread)

    assert len(outcomes) == 5
    assert len(house.stored(alice)) == 1 + 2 * outcomes.count("accepted")


def fail_badly(_: list[Post]) -> None:
    raise ZeroDivisionError


def test_nobody_waits_for_ever_for_a_journal_that_died(house: House) -> None:
    alice = house.seat("alice")
    house.feed.when_published = fail_badly
    gate = house.hold_first_commit()
    house.journal.start()
    outcomes: list[str] = []

    def wait(ask: Callable[[], object]) -> None:
        try:
            ask()
            outcomes.append("let go")
        except JournalClosedError:
            outcomes.append("closed")

    house.journal.append([post_of(alice, ["x"])])
    gate.await_thread()
    waiters = [
        in_background(lambda: wait(house.journal.wait_for_pending)),
        in_background(lambda: wait(lambda: house.journal.create_account("bob", "hash"))),
        in_background(lambda: wait(lambda: house.journal.admit_guest("carol"))),
    ]
    with capture_logs():
        gate.open()
        for waiter in waiters:
            must_end(waiter)
        must_end(in_background(house.journal.stop))

    assert len(outcomes) == 3
    assert house.crashes == ["journal"]
    with pytest.raises(JournalClosedError):
        house.journal.append([post_of(alice, ["y"])])


def test_a_fence_in_the_batch_that_kills_the_journal_is_passed(house: House) -> None:
    alice = house.seat("alice")
    gate = house.hold_first_commit()
    house.journal.start()
    house.journal.append([post_of(alice, ["first"])])
    gate.await_thread()
    house.feed.when_published = lambda posts: fail_badly(posts) if posts[0].texts == ["second"] else None
    house.journal.append([post_of(alice, ["second"])])
    settler = in_background(house.journal.wait_for_pending)
    eventually(lambda: house.journal._inbox.posts and house.journal._inbox.errands)
    with capture_logs():
        gate.open()
        must_end(settler)
        house.journal.stop()


def test_a_restart_finds_what_was_confirmed(folder: Path) -> None:
    """Promise: confirmed means stored."""
    database = Database(folder)
    house = House(database)
    alice = house.seat("alice")
    house.journal.start()
    for number in range(20):
        house.journal.append([post_of(alice, [f"text {number}"], f"n{number}")])
    house.journal.stop()
    confirmed = [(post.id, *post.texts) for post in house.feed.published]
    database.close()
    reopened = Database(folder)

    assert House(reopened).stored(alice) == confirmed
    reopened.close()


def test_the_journals_thread_has_a_name_and_ends(house: House) -> None:
    house.journal.start()
    assert "journal" in {thread.name for thread in threading.enumerate()}
    house.journal.stop()
    assert "journal" not in {thread.name for thread in threading.enumerate()}
