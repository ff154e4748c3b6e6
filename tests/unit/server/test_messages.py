"""Accounts and messages in the database: which of them a query returns for which reader, and in which order."""

import itertools
import sqlite3

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chatprotocol.events import DirectMessage, Message, PublicMessage
from chatprotocol.limits import ID_MAX
from chatserver.memory import ShortOfMemoryError
from chatserver.store.accounts import Account, Accounts, insert_account, update_delivered
from chatserver.store.database import Database
from chatserver.store.guests import claim_name, is_claimed, release_all_names, release_name
from chatserver.store.messages import Messages, find_direct_nonce, find_public_nonce, insert_direct, insert_public

from .helpers import register

TIME_MS = 1_769_860_800_123


class Room:
    """A database with three users and seven messages.

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


@pytest.fixture
def room(database: Database) -> Room:
    return Room(database)


def ids(messages: tuple[Message, ...]) -> list[int]:
    return [message.id for message in messages]


def test_account_is_found_in_any_case_and_registered_once(database: Database) -> None:
    registered = register(database, "Alice")
    with database.transaction() as connection:
        assert insert_account(connection, "aLICE", "another hash", 0) is None
    assert {Accounts(database).find(name) for name in ("Alice", "alice", "ALICE")} == {registered}
    assert registered.name == "Alice"
    for name in ("", "alic", "alice2", "a'; DROP TABLE account; --", "%", "\0", "\U0001f600"):
        assert Accounts(database).find(name) is None


def test_delivery_mark_never_goes_back(database: Database) -> None:
    alice = register(database, "alice")
    with database.transaction() as connection:
        for account_id, message_id in ((alice.id, 7), (999, 5), (alice.id, 3)):
            update_delivered(connection, account_id, message_id)
    assert Accounts(database).find("alice") == Account(alice.id, "alice", alice.password_hash, 7)


def test_guest_has_a_row_per_spelling_and_is_no_account(database: Database) -> None:
    """The history shows the name as it was spelled. A guest has no password, so it must not be found at a login."""
    with database.transaction() as connection:
        guests = []
        for name in ("Carol", "CAROL", "Carol", "dave"):
            guests.append(guest := claim_name(connection, name, 0))
            assert guest is not None
            assert claim_name(connection, name.swapcase(), 0) is None
            release_name(connection, name.swapcase(), guest.claim)
    assert [(each.name, each.is_guest, each.claim) for each in guests] == [
        ("Carol", True, 1),
        ("CAROL", True, 2),
        ("Carol", True, 3),
        ("dave", True, 1),
    ]
    assert guests[0].id == guests[2].id
    assert len({guest.id for guest in guests}) == 3
    for name in ("carol", "Carol", "CAROL", "GUEST:Carol", "guest:carol", "", "guest:"):
        assert Accounts(database).find(name) is None


def test_name_is_free_after_its_last_claim(database: Database) -> None:
    """A late release of an earlier claim ends no later one. A claimed name can't be registered, and the reverse."""
    with database.transaction() as connection:
        first = claim_name(connection, "carol", 0)
        assert first is not None
        release_name(connection, "carol", first.claim)
        assert claim_name(connection, "carol", 0) is not None
        release_name(connection, "carol", first.claim)
        assert is_claimed(connection, "CAROL")
        release_all_names(connection)
        assert not is_claimed(connection, "carol")
        assert insert_account(connection, "carol", "hash", 0) is not None
        assert claim_name(connection, "CAROL", 0) is None


# The messages that each may see, and the direct ones to each.
VISIBLE = {"alice": [1, 2, 3, 4, 5], "bob": [1, 2, 3, 4, 5, 7], "carol": [1, 2, 5, 6, 7]}
RECEIVED = {"alice": [4], "bob": [3], "carol": [6, 7]}


@pytest.mark.parametrize("reader", VISIBLE)
def test_queries_return_what_the_reader_may_see_oldest_first(room: Room, reader: str) -> None:
    """Promises: once; direct messages are private. History is the newest below an id.

    Missed messages, own ones included, and waiting direct messages are the oldest after an id, up to another.
    """
    reader_id = getattr(room, reader).id
    for bound, limit, upto in itertools.product((0, 1, 2, 5, 7, 8, ID_MAX), (1, 2, 500), (6, 7)):
        visible, received = VISIBLE[reader], RECEIVED[reader]
        history = [each for each in visible if each < bound][-limit:]
        assert ids(room.messages.history(reader_id, bound, limit)) == history
        missed = [each for each in visible if bound < each <= upto][:limit]
        assert ids(room.messages.missed(reader_id, bound, upto, limit)) == missed
        waiting = [each for each in received if bound < each <= upto][:limit]
        assert ids(room.messages.undelivered(reader_id, bound, upto, limit)) == waiting


def test_history_has_names_times_and_texts(room: Room) -> None:
    assert room.messages.history(room.alice.id, ID_MAX, 3) == (
        DirectMessage(3, TIME_MS, "alice", "bob", "text 3"),
        DirectMessage(4, TIME_MS, "bob", "alice", "text 4"),
        PublicMessage(5, TIME_MS, "carol", "text 5"),
    )


# What a database or its JSON could take for something else.
TEXTS = [
    *("a\0b", "\0", "\\u0000", "\U0001f600", "\ud7ff\ue000\uffff", "x" * 8192, "'; --", "\x1b[2J", " ", '"', "\\"),
    *("[1, 2]", '{"a": 1}', "null", "true", "17", "1e5", "\ufeff", "\u2028", "\r\n\t"),
]


@given(
    texts=st.lists(st.one_of(st.sampled_from(TEXTS), st.text(st.characters(codec="utf-8"))), min_size=1),
    has_nonces=st.booleans(),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_texts_come_back_as_they_were_stored(room: Room, texts: list[str], has_nonces: bool) -> None:
    """Promise: confirmed means stored."""
    first_id = room.messages.last_id() + 1
    with room.database.transaction() as connection:
        nonces = [f"n{first_id}-{number}" if has_nonces else None for number in range(len(texts))]
        assert insert_public(connection, first_id, TIME_MS, room.bob.id, texts, nonces)
    assert room.messages.history(room.alice.id, ID_MAX, len(texts)) == tuple(
        PublicMessage(message_id, TIME_MS, "bob", text) for message_id, text in enumerate(texts, first_id)
    )


def test_query_claims_memory_for_its_result_first(room: Room) -> None:
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


def test_nonce_belongs_to_its_sender_and_kind(room: Room) -> None:
    """Promise: once. The same nonce of the same sender is the same message."""
    with room.database.transaction() as connection:
        assert find_public_nonce(connection, room.alice.id, "n1") == 1
        assert find_direct_nonce(connection, room.alice.id, "n3") == 3
        for sender, nonce in ((room.alice, "n3"), (room.alice, "n2"), (room.bob, "n1")):
            with pytest.raises(LookupError):
                find_public_nonce(connection, sender.id, nonce)


@pytest.mark.parametrize(("first_id", "texts"), [(9, ["w"]), (9, ["v", "w"] * 2), (6, ["v", "w"] * 2)])
@pytest.mark.parametrize("has_nonces", [False, True])
def test_batch_with_a_used_id_is_not_inserted_at_all(
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
def test_batch_with_a_used_nonce_is_not_inserted_at_all(room: Room, nonces: list[str | None]) -> None:
    """Promise: once. Earlier writes of the same transaction stay."""
    with room.database.transaction() as connection:
        assert insert_public(connection, 8, TIME_MS, room.alice.id, ["x", "y"], [None, None])
        assert not insert_public(connection, 10, TIME_MS, room.alice.id, ["z"] * len(nonces), nonces)
    assert room.messages.last_id() == 9


def test_direct_message_with_a_used_nonce_is_not_inserted(room: Room) -> None:
    """Promise: once."""
    with room.database.transaction() as connection:
        assert not insert_direct(connection, 8, TIME_MS, room.alice.id, room.carol.id, "x", "n3")
    assert room.messages.last_id() == 7
