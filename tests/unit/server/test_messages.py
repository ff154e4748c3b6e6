"""Accounts and messages in the database: what is found, by whom, and in which order."""

import sqlite3

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chatprotocol.events import DirectMessage, Message, PublicMessage
from chatprotocol.limits import ID_MAX
from chatserver.memory import ShortOfMemoryError
from chatserver.store.accounts import (
    Account,
    Accounts,
    admit_guest,
    insert_account,
    replace_password_hash,
    update_delivered,
)
from chatserver.store.database import Database
from chatserver.store.messages import Messages, find_direct_nonce, find_public_nonce, insert_direct, insert_public

from .rooms import register

TIME_MS = 1_769_860_800_123


class Room:
    """A database with three users, and a row of messages among them.

    1 alice to all, 2 bob to all, 3 alice to bob, 4 bob to alice, 5 carol to all, 6 carol to carol, 7 bob to carol.
    """

    def __init__(self, database: Database) -> None:
        self.database = database
        self.messages = Messages(database)
        self.alice, self.bob, self.carol = (register(database, name) for name in ("alice", "bob", "carol"))
        with database.transaction() as connection:
            for number, who, nonce in ((1, self.alice, "n1"), (2, self.bob, None), (5, self.carol, None)):
                insert_public(connection, number, TIME_MS, who.id, [f"text {number}"], [nonce])
            for number, who, whom, nonce in (
                (3, self.alice, self.bob, "n3"),
                (4, self.bob, self.alice, None),
                (6, self.carol, self.carol, None),
                (7, self.bob, self.carol, None),
            ):
                insert_direct(connection, number, TIME_MS, who.id, whom.id, f"text {number}", nonce)


def test_an_answer_that_takes_too_much_memory_is_not_made(room: Room) -> None:
    claimed: list[int] = []
    messages = Messages(room.database, claimed.append)
    found = messages.history(room.alice.id, 100, 10)
    before_it_is_read, before_it_is_encoded = claimed
    assert before_it_is_read == 0, "fails while memory is short"
    assert before_it_is_encoded >= 9 * sum(len(message.text) for message in found)

    def refuse(size_bytes: int) -> None:
        if size_bytes:
            raise ShortOfMemoryError

    messages = Messages(room.database, refuse)
    with pytest.raises(ShortOfMemoryError):
        messages.missed(room.alice.id, 0, 100, 10)


@pytest.fixture
def room(database: Database) -> Room:
    return Room(database)


def ids(messages: tuple[Message, ...]) -> list[int]:
    return [message.id for message in messages]


def account_of(room: Room, name: str) -> Account:
    found: Account = getattr(room, name)
    return found


# --- accounts ---


@pytest.mark.parametrize("spelling", ["Alice", "alice", "ALICE", "aLiCe"])
def test_an_account_is_found_in_any_case_and_shown_as_registered(database: Database, spelling: str) -> None:
    registered = register(database, "Alice")

    assert Accounts(database).find(spelling) == registered
    assert registered.name == "Alice"


@pytest.mark.parametrize("name", ["", "alic", "alice2", "a'; DROP TABLE account; --", "%", "\0", "\U0001f600"])
def test_a_name_that_nobody_registered_is_not_found(database: Database, name: str) -> None:
    register(database, "alice")

    assert Accounts(database).find(name) is None


def test_a_name_is_registered_once_in_whatever_case(database: Database) -> None:
    register(database, "Alice")
    with database.transaction() as connection:
        assert insert_account(connection, "aLICE", "another hash", 0) is None

    found = Accounts(database).find("alice")
    assert found is not None
    assert found.password_hash == "hash of Alice"


def test_a_password_hash_is_replaced(database: Database) -> None:
    alice, bob = register(database, "alice"), register(database, "bob")
    with database.transaction() as connection:
        assert replace_password_hash(connection, alice, "new")
        # Who checked the password against the hash of before was too slow.
        assert not replace_password_hash(connection, alice, "newer")

    assert Accounts(database).find("alice") == Account(alice.id, "alice", "new", 0)
    assert Accounts(database).find("bob") == bob


def admit(database: Database, name: str) -> Account | None:
    with database.transaction() as connection:
        return admit_guest(connection, name, 0)


def test_a_guest_has_a_row_for_each_spelling_of_its_name_whenever_it_comes(database: Database) -> None:
    """What it said is shown under the name as it was spelled then."""
    carol, shouted, again, dave = (admit(database, name) for name in ("Carol", "CAROL", "Carol", "dave"))

    assert carol is not None
    assert shouted is not None
    assert dave is not None
    assert (carol.name, shouted.name) == ("Carol", "CAROL")
    assert carol == again
    assert len({carol.id, shouted.id, dave.id}) == 3
    assert carol.is_guest


@pytest.mark.parametrize("name", ["carol", "Carol", "CAROL", "GUEST:carol", "guest:carol", "GUEST:Carol", "", "guest:"])
def test_nobody_finds_a_guest_as_an_account(database: Database, name: str) -> None:
    """Or logs in with the password that it has not."""
    admit(database, "carol")
    admit(database, "Carol")

    assert Accounts(database).find(name) is None


@pytest.mark.parametrize("name", ["Alice", "alice", "ALICE"])
def test_an_accounts_name_in_whatever_case_is_no_guests(database: Database, name: str) -> None:
    alice = register(database, "Alice")

    assert admit(database, name) is None
    assert not alice.is_guest
    assert Accounts(database).find("alice") == alice


def test_a_name_that_a_guest_had_can_be_registered(database: Database) -> None:
    guest = admit(database, "carol")
    account = register(database, "carol")

    assert guest is not None
    assert account.id != guest.id
    assert Accounts(database).find("carol") == account
    assert admit(database, "carol") is None


def test_what_was_delivered_never_goes_back(database: Database) -> None:
    alice = register(database, "alice")
    with database.transaction() as connection:
        update_delivered(connection, {alice.id: 7, 999: 5}.items())
        update_delivered(connection, {alice.id: 3}.items())

    found = Accounts(database).find("alice")
    assert found is not None
    assert found.delivered_id == 7


# --- history ---


@pytest.mark.parametrize(
    ("reader", "seen"), [("alice", [1, 2, 3, 4, 5]), ("bob", [1, 2, 3, 4, 5, 7]), ("carol", [1, 2, 5, 6, 7])]
)
def test_history_holds_public_messages_and_those_from_and_to_the_reader(
    room: Room, reader: str, seen: list[int]
) -> None:
    assert ids(room.messages.history(account_of(room, reader).id, ID_MAX, 500)) == seen


def test_history_has_names_times_and_texts(room: Room) -> None:
    assert room.messages.history(room.alice.id, ID_MAX, 3) == (
        DirectMessage(3, TIME_MS, "alice", "bob", "text 3"),
        DirectMessage(4, TIME_MS, "bob", "alice", "text 4"),
        PublicMessage(5, TIME_MS, "carol", "text 5"),
    )


@pytest.mark.parametrize(
    ("before", "limit", "seen"),
    [
        (ID_MAX, 2, [5, 7]),
        (5, 2, [3, 4]),
        (3, 2, [1, 2]),
        (2, 5, [1]),
        (1, 5, []),
        (0, 5, []),
        (8, 1, [7]),
        (7, 1, [5]),
    ],
)
def test_history_is_the_newest_below_an_id_oldest_first(room: Room, before: int, limit: int, seen: list[int]) -> None:
    assert ids(room.messages.history(room.bob.id, before, limit)) == seen


def test_pages_of_history_hold_everything_once(room: Room) -> None:
    pages: list[list[int]] = []
    before = ID_MAX
    while page := ids(room.messages.history(room.bob.id, before, 2)):
        pages.insert(0, page)
        before = page[0]

    assert pages == [[1, 2], [3, 4], [5, 7]]


# What a database or its JSON could take for something else.
TEXTS = [
    *("a\0b", "\0", "\\u0000", "\U0001f600", "\ud7ff\ue000\uffff", "x" * 8192, "'; --", "\x1b[2J", " ", '"', "\\"),
    *("[1, 2]", '{"a": 1}', "null", "true", "17", "1e5", "\ufeff", "\u2028", "\r\n\t"),
]


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_comes_back_as_it_was_stored(room: Room, text: str) -> None:
    with room.database.transaction() as connection:
        insert_public(connection, 8, TIME_MS, room.bob.id, [text], [None])

    assert room.messages.history(room.alice.id, ID_MAX, 1) == (PublicMessage(8, TIME_MS, "bob", text),)


@given(
    texts=st.lists(st.one_of(st.sampled_from(TEXTS), st.text(st.characters(codec="utf-8"))), min_size=1),
    has_nonces=st.booleans(),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_all_texts_of_a_run_come_back_in_order_whatever_is_in_them(
    room: Room, texts: list[str], has_nonces: bool
) -> None:
    """Promise: confirmed means stored."""
    first_id = room.messages.last_id() + 1
    with room.database.transaction() as connection:
        nonces = [f"n{first_id}-{number}" if has_nonces else None for number in range(len(texts))]
        assert insert_public(connection, first_id, TIME_MS, room.bob.id, texts, nonces)

    assert room.messages.history(room.alice.id, ID_MAX, len(texts)) == tuple(
        PublicMessage(message_id, TIME_MS, "bob", text) for message_id, text in enumerate(texts, first_id)
    )


# --- what somebody missed ---


@pytest.mark.parametrize(
    ("reader", "after", "upto", "limit", "seen"),
    [
        ("alice", 0, 7, 500, [1, 2, 3, 4, 5]),
        ("alice", 2, 7, 1, [3]),
        ("bob", 0, 7, 500, [1, 2, 3, 4, 5, 7]),
        ("carol", 0, 7, 500, [1, 2, 5, 6, 7]),
        ("carol", 2, 6, 500, [5, 6]),
        ("carol", 0, 7, 2, [1, 2]),
        ("carol", 5, 7, 1, [6]),
        ("carol", 7, 7, 500, []),
        ("carol", ID_MAX, 7, 500, []),
    ],
)
def test_missed_is_what_the_reader_may_see_own_messages_included(
    room: Room, reader: str, after: int, upto: int, limit: int, seen: list[int]
) -> None:
    """Promise: once. A client that reconnects gets what it missed, and what its user said on another device."""
    assert ids(room.messages.missed(account_of(room, reader).id, after, upto, limit)) == seen


@pytest.mark.parametrize(
    ("reader", "after", "upto", "limit", "seen"),
    [
        ("alice", 0, 7, 500, [4]),
        ("bob", 0, 7, 500, [3]),
        ("carol", 0, 7, 500, [6, 7]),
        ("carol", 6, 7, 500, [7]),
        ("carol", 0, 6, 500, [6]),
        ("carol", 0, 7, 1, [6]),
    ],
)
def test_waiting_are_the_direct_messages_to_the_reader(
    room: Room, reader: str, after: int, upto: int, limit: int, seen: list[int]
) -> None:
    assert ids(room.messages.waiting(account_of(room, reader).id, after, upto, limit)) == seen


# --- ids and nonces ---


def test_the_last_id_is_that_of_either_kind_of_message(database: Database) -> None:
    assert Messages(database).last_id() == 0
    room = Room(database)
    assert room.messages.last_id() == 7
    with database.transaction() as connection:
        insert_public(connection, 8, TIME_MS, room.bob.id, ["x"], [None])
    assert room.messages.last_id() == 8


def test_a_nonce_is_found_for_its_own_sender_only(room: Room) -> None:
    """Promise: once. The same nonce of the same sender is the same message."""
    with room.database.transaction() as connection:
        assert find_public_nonce(connection, room.alice.id, "n1") == 1
        assert find_direct_nonce(connection, room.alice.id, "n3") == 3
        for sender, nonce in ((room.alice, "n3"), (room.alice, "n2"), (room.bob, "n1")):
            with pytest.raises(LookupError):
                find_public_nonce(connection, sender.id, nonce)


@pytest.mark.parametrize(("first_id", "texts"), [(9, ["w"]), (9, ["v", "w"] * 2), (6, ["v", "w"] * 2)])
@pytest.mark.parametrize("has_nonces", [False, True])
def test_an_id_that_is_there_already_keeps_all_of_them_out(
    room: Room, first_id: int, texts: list[str], has_nonces: bool
) -> None:
    """Promise: confirmed means stored. A batch is on the disk as a whole, or not at all."""
    before = room.messages.history(room.alice.id, ID_MAX, 500)

    def append() -> None:
        with room.database.transaction() as connection:
            insert_public(connection, 8, TIME_MS, room.alice.id, ["x", "y"], [None] * 2)
            nonces = [f"m{number}" if has_nonces else None for number in range(len(texts))]
            insert_public(connection, first_id, TIME_MS, room.alice.id, texts, nonces)

    with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
        append()
    assert room.messages.history(room.alice.id, ID_MAX, 500) == before


@pytest.mark.parametrize("nonces", [["n1"], ["n8", "n9", "n1", "n10"], ["n8", None, "n8"]])
def test_of_a_run_with_a_nonce_that_was_used_before_nothing_is_appended(room: Room, nonces: list[str | None]) -> None:
    """Promise: once. What the same transaction has written before stays."""
    with room.database.transaction() as connection:
        assert insert_public(connection, 8, TIME_MS, room.alice.id, ["x", "y"], [None, None])
        assert not insert_public(connection, 10, TIME_MS, room.alice.id, ["z"] * len(nonces), nonces)

    assert room.messages.last_id() == 9


def test_a_direct_message_with_a_nonce_that_was_used_before_is_not_appended(room: Room) -> None:
    """Promise: once."""
    with room.database.transaction() as connection:
        assert not insert_direct(connection, 8, TIME_MS, room.alice.id, room.carol.id, "x", "n3")

    assert room.messages.last_id() == 7
