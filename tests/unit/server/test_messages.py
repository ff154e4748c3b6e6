"""Accounts and messages in the database: which of them a query returns for which reader, and in which order."""

import sqlite3
import sys
from collections.abc import Iterable
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chatprotocol.events import DirectMessage, Message, PublicMessage, RoomRole
from chatprotocol.limits import ID_MAX
from chatserver.memory import ShortOfMemoryError
from chatserver.store.accounts import Account, Accounts, close_account, insert_account, update_delivered
from chatserver.store.database import Database
from chatserver.store.errors import RemovedError
from chatserver.store.guests import claim_name, is_claimed, release_all_names, release_name
from chatserver.store.message_table import insert_direct, insert_in_room
from chatserver.store.messages import Messages
from chatserver.store.moderation import insert_deletion
from chatserver.store.rooms import DIRECT_ID, LOBBY_ID, end_room, insert_invitation, insert_room, set_role

from .helpers import CountingDatabase, memory_database, register

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
                insert_in_room(connection, LOBBY_ID, number, TIME_MS, who.id, [f"text {number}"], [nonce])
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


def ids(messages: Iterable[Message]) -> list[int]:
    return [message.id for message in messages]


def test_account_is_found_in_any_case_and_registered_once(database: Database) -> None:
    registered = register(database, "Alice")
    with database.transaction() as connection:
        assert insert_account(connection, "aLICE", "another hash", 0) is None
    assert {Accounts(database).find(name) for name in ("Alice", "alice", "ALICE")} == {registered}
    assert registered.name == "Alice"
    for name in ("", "alic", "alice2", "a'; DROP TABLE account; --", "%", "\0", "\U0001f600"):
        assert Accounts(database).find(name) is None


def test_account_of_a_writer_is_found_after_it_has_gone(database: Database) -> None:
    """A guest has a row for each spelling, and a registered user of that name goes before it."""
    alice, bob = register(database, "Alice"), register(database, "bob")
    with database.transaction() as connection:
        carol, dave = claim_name(connection, "Carol", 0), claim_name(connection, "Dave", 0)
        assert carol is not None
        assert dave is not None
        release_all_names(connection)
        assert insert_account(connection, "dave", "hash", 0) is not None
        close_account(connection, bob.id, 0)
    accounts = Accounts(database)
    names = ("ALICE", "Carol", "carol", "bob", f"deleted-{bob.id}", f"deleted-{alice.id}", "deleted-", "Dave")
    found = [accounts.find_writer(name) for name in names]
    assert [each and each.id for each in found[:7]] == [alice.id, carol.id, None, None, bob.id, None, None]
    assert found[0] is not None
    assert found[0].name == "Alice"
    assert found[7] is not None
    assert found[7].name == "dave"


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
    for name in ("carol", "Carol", "CAROL", "", "None"):
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


ACCOUNTS = range(1, 5)
# Two rooms beside the lobby. The first has the id of an account.
DEV_ID, SECRET_ID = 2, 3
MESSAGES_MAX = 25
GAP_MAX = 3


class Sent(NamedTuple):
    """A message of the model."""

    id: int
    room_id: int
    sender: int
    recipient: int | None


@st.composite
def conversations(draw: st.DrawFn) -> tuple[dict[tuple[int, int], bool], list[Sent]]:
    """Pairs of account and room, True for a member and False if invited; and messages in order of ids, with gaps."""
    account = st.sampled_from(ACCOUNTS)
    members = draw(st.dictionaries(st.tuples(account, st.sampled_from([DEV_ID, SECRET_ID])), st.booleans()))
    sent: list[Sent] = []
    for _ in range(draw(st.integers(0, MESSAGES_MAX))):
        room_id = draw(st.sampled_from([DIRECT_ID, LOBBY_ID, DEV_ID, SECRET_ID]))
        message_id = (sent[-1].id if sent else 0) + draw(st.integers(1, GAP_MAX))
        recipient = draw(account) if room_id == DIRECT_ID else None
        sent.append(Sent(message_id, room_id, draw(account), recipient))
    return members, sent


def fill(database: Database, members: dict[tuple[int, int], bool], sent: list[Sent]) -> None:
    for number in ACCOUNTS:
        assert register(database, f"user{number}").id == number
    with database.transaction() as connection:
        assert insert_room(connection, "dev", 0, is_private=False) == DEV_ID
        assert insert_room(connection, "secret", 0, is_private=True) == SECRET_ID
        for (account_id, room_id), is_member in members.items():
            if is_member:
                set_role(connection, room_id, account_id, RoomRole.MEMBER)
            else:
                insert_invitation(connection, room_id, account_id)
        for message_id, room_id, sender, recipient in sent:
            if recipient is None:
                assert insert_in_room(connection, room_id, message_id, TIME_MS, sender, ["text"], [None])
            else:
                assert insert_direct(connection, message_id, TIME_MS, sender, recipient, "text", None)


@given(
    conversations(),
    st.integers(0, 50),
    st.integers(0, 50),
    st.integers(1, 12),
    st.dictionaries(st.sampled_from([DIRECT_ID, LOBBY_ID, DEV_ID, SECRET_ID, 99]), st.integers(0, 50)),
)
def test_queries_return_what_the_reader_may_see_oldest_first(
    made: tuple[dict[tuple[int, int], bool], list[Sent]],
    bound: int,
    upto: int,
    limit: int,
    after: dict[int, int],
) -> None:
    """Promises: once; direct messages and rooms are private. History is the newest below an id.

    Missed messages, own ones included, and waiting direct messages are the oldest after an id, up to another.
    """
    members, sent = made
    with memory_database() as database:
        messages = Messages(database)
        fill(database, members, sent)
        for reader in ACCOUNTS:
            direct = [each for each in sent if each.recipient and reader in (each.sender, each.recipient)]
            lobby = [each for each in sent if each.room_id == LOBBY_ID or each in direct]
            views: dict[int | None, list[int]] = {None: [each.id for each in lobby]}
            for room_id in (LOBBY_ID, DEV_ID, SECRET_ID):
                is_member = room_id == LOBBY_ID or members.get((reader, room_id), False)
                views[room_id] = [each.id for each in sent if each.room_id == room_id and is_member]
            for room, view in views.items():
                older = [each for each in view if each < bound][-limit:]
                assert ids(messages.history(reader, bound, limit, room)) == older
                newer = [each for each in view if bound < each < upto][:limit]
                assert ids(messages.history(reader, upto, limit, room, after_id=bound)) == newer
            views[DIRECT_ID] = [each.id for each in direct]
            expected = sorted(each for room, low in after.items() for each in views.get(room, ()) if low < each <= upto)
            assert ids(messages.missed(reader, after, upto, limit)) == expected[:limit]
            waiting = [each.id for each in direct if each.recipient == reader and bound < each.id <= upto][:limit]
            assert ids(messages.undelivered(reader, bound, upto, limit)) == waiting
            newest: dict[str, int] = {}
            for other in ACCOUNTS:
                pair = [each.id for each in direct if {each.sender, each.recipient} == {reader, other}]
                older = [each for each in pair if each < bound][-limit:]
                assert ids(messages.history(reader, bound, limit, other_id=other)) == older
                newer = [each for each in pair if bound < each < upto][:limit]
                assert ids(messages.history(reader, upto, limit, after_id=bound, other_id=other)) == newer
                found = messages.visible(reader, range(51), other_id=other)
                assert ids(found) == [each for each in pair if each <= 50]
                newest[f"user{other}"] = max((each for each in pair if each <= upto), default=0)
            listed = sorted(((name, last_id) for name, last_id in newest.items() if last_id), key=lambda each: -each[1])
            assert [(each.username, each.last_id) for each in messages.conversations(reader, upto, 3)] == listed[:3]
            views[LOBBY_ID] = views.pop(None)
            del views[DIRECT_ID]
            for room_id, view in views.items():
                assert ids(messages.visible(reader, range(51), room_id)) == [each for each in view if each <= 50]
            own = [each.id for each in direct if each.id <= 50]
            assert ids(messages.visible(reader, range(51), DIRECT_ID)) == own, "also if asked as for a room"
        found = messages.missed(1, dict.fromkeys((LOBBY_ID, DIRECT_ID, DEV_ID, SECRET_ID), 0), 100, 100)
        names = {each.id: {DEV_ID: "dev", SECRET_ID: "secret"}.get(each.room_id) for each in sent}
        assert [getattr(each, "room", None) for each in found] == [names[each.id] for each in found]
        newer = [each.id for each in sent if each.id > bound][:limit]
        assert [each.id for each in messages.after(bound, limit)] == newer
        with database.transaction() as connection:
            end_room(connection, SECRET_ID)
        assert [each.id for each in messages.after(bound, limit)] == newer
        numbers = range(MESSAGES_MAX * GAP_MAX + 1)
        assert [number for number in numbers if messages.fingerprint(number)] == [each.id for each in sent]
        assert messages.last_id() == max((each.id for each in sent), default=0)
        assert all(not messages.history(reader, ID_MAX, 500, SECRET_ID) for reader in ACCOUNTS)


def test_conversations_leave_out_deleted_messages_and_ignored_users(room: Room) -> None:
    """As the history does."""
    messages = room.messages

    def listed(reader: Account) -> list[tuple[str, int]]:
        return [(each.username, each.last_id) for each in messages.conversations(reader.id, ID_MAX, 10)]

    assert [listed(reader) for reader in (room.alice, room.bob, room.carol)] == [
        [("bob", 4)],
        [("carol", 7), ("alice", 4)],
        [("bob", 7), ("carol", 6)],
    ]
    with room.database.transaction() as connection:
        insert_deletion(connection, 4, DIRECT_ID, "bob", TIME_MS)
        connection.execute("INSERT INTO ignored VALUES (?, ?)", (room.carol.id, room.bob.id))
    assert [listed(reader) for reader in (room.alice, room.bob, room.carol)] == [
        [("bob", 3)],
        [("carol", 7), ("alice", 3)],
        [("carol", 6)],
    ]
    assert ids(messages.history(room.carol.id, ID_MAX, 10, other_id=room.bob.id)) == []
    assert ids(messages.history(room.bob.id, ID_MAX, 10, other_id=room.carol.id)) == [7]


def test_direct_messages_of_two_users_cost_no_look_at_those_of_others(room: Room) -> None:
    """Each part of the history is found by an index: its cost depends on what is found, not on what there is."""
    counting = CountingDatabase(room.database)
    messages = Messages(counting)
    alice, bob, carol = room.alice.id, room.bob.id, room.carol.id
    queries = (
        lambda: messages.history(bob, ID_MAX, 5, other_id=alice),
        lambda: messages.history(bob, ID_MAX, 5, other_id=alice, after_id=0),
        lambda: messages.history(bob, ID_MAX, 5, after_id=3),
        lambda: messages.conversations(bob, ID_MAX, 10),
    )

    def cost() -> list[int]:
        costs = []
        for query in queries:
            counting.instructions = 0
            query()
            costs.append(counting.instructions)
        return costs

    def send(first_id: int, count: int) -> None:
        with room.database.transaction() as connection:
            for number in range(first_id, first_id + 2 * count, 2):
                assert insert_direct(connection, number, TIME_MS, bob, carol, "text", None)
                assert insert_direct(connection, number + 1, TIME_MS, carol, bob, "text", None)

    send(10, 10)
    before = cost()
    send(100, 2_000)
    assert all(now < 1.5 * then for now, then in zip(cost(), before, strict=True))


def test_history_has_names_times_and_texts(room: Room) -> None:
    assert room.messages.history(room.alice.id, ID_MAX, 3) == (
        DirectMessage(3, TIME_MS, "alice", "bob", "text 3"),
        DirectMessage(4, TIME_MS, "bob", "alice", "text 4"),
        PublicMessage(5, TIME_MS, "carol", "text 5"),
    )


def test_history_tells_notices_and_messages_of_guests(room: Room) -> None:
    """The rows of a batch with and without nonces, and of direct messages, are written by different statements."""
    with room.database.transaction() as connection:
        guest = claim_name(connection, "dave", TIME_MS)
        assert guest is not None
        for first_id, nonces in ((8, [None, None]), (10, ["n1", None])):
            sender_id = room.bob.id if first_id == 8 else guest.id
            texts = ["notice"] * 2
            assert insert_in_room(connection, LOBBY_ID, first_id, TIME_MS, sender_id, texts, nonces, is_notice=True)
        values = (TIME_MS, room.bob.id, room.alice.id, "notice", None)
        assert insert_direct(connection, 12, *values, is_notice=True)
        assert insert_direct(connection, 13, TIME_MS, guest.id, room.alice.id, "text", None)
    expected = (
        *(PublicMessage(message_id, TIME_MS, "bob", "notice", notice=True) for message_id in (8, 9)),
        *(PublicMessage(message_id, TIME_MS, "dave", "notice", guest=True, notice=True) for message_id in (10, 11)),
        DirectMessage(12, TIME_MS, "bob", "alice", "notice", notice=True),
        DirectMessage(13, TIME_MS, "dave", "alice", "text", guest=True),
    )
    messages, reader_id = room.messages, room.alice.id
    assert messages.history(reader_id, ID_MAX, 6) == expected
    assert messages.missed(reader_id, {LOBBY_ID: 7, DIRECT_ID: 7}, ID_MAX, 100) == expected
    assert messages.visible(reader_id, range(8, 14)) == expected
    assert messages.history(reader_id, 8, 1) == (PublicMessage(5, TIME_MS, "carol", "text 5"),)


# Texts that a database or its JSON could misread.
TEXTS = [
    *("a\0b", "\0", "\\u0000", "\U0001f600", "\ud7ff\ue000\uffff", "x" * 8192, "'; --", "\x1b[2J", " ", '"', "\\"),
    *("[1, 2]", '{"a": 1}', "null", "true", "17", "1e5", "\ufeff", "\u2028", "\r\n\t"),
]


@given(
    texts=st.lists(st.one_of(st.sampled_from(TEXTS), st.text(st.characters(codec="utf-8"), min_size=1)), min_size=1),
    has_nonces=st.booleans(),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_texts_come_back_as_they_were_stored(room: Room, texts: list[str], has_nonces: bool) -> None:
    """Promise: confirmed means stored."""
    first_id = room.messages.last_id() + 1
    with room.database.transaction() as connection:
        nonces = [f"n{first_id}-{number}" if has_nonces else None for number in range(len(texts))]
        assert insert_in_room(connection, LOBBY_ID, first_id, TIME_MS, room.bob.id, texts, nonces)
    assert room.messages.history(room.alice.id, ID_MAX, len(texts)) == tuple(
        PublicMessage(message_id, TIME_MS, "bob", text) for message_id, text in enumerate(texts, first_id)
    )


def test_long_answer_is_read_in_pages(room: Room) -> None:
    """Promise: memory stays bounded. All ids are known before the first page is sent.

    A message that is deleted meanwhile has its place without its text. One that is removed makes the number wrong that
    was sent: the answer fails.
    """
    claimed: list[int] = []
    messages = Messages(room.database, claimed.append)
    with room.database.transaction() as connection:
        assert insert_in_room(connection, LOBBY_ID, 8, TIME_MS, room.bob.id, ["x" * 8_192] * 20, [None] * 20)
    visible = [1, 2, 3, 4, 5, *range(8, 28)]  # 6 and 7 are to carol
    for found, expected in (
        (messages.history(room.alice.id, 27, 22), visible[2:24]),
        (messages.history(room.alice.id, 27, 22, LOBBY_ID), [1, 2, 5, *range(8, 27)]),
        (messages.visible(room.alice.id, range(1, 28)), visible),
        (messages.history(room.alice.id, 27, 22, after_id=4), [5, *range(8, 27)]),
        (messages.history(room.alice.id, 28, 11, LOBBY_ID, after_id=5), [*range(8, 19)]),
    ):
        assert len(found) == len(expected)
        assert ids(found) == expected
    assert not any(claimed), "only a page is in memory"
    histories = [messages.history(room.alice.id, 27, 22), messages.visible(room.alice.id, range(1, 28))]
    with room.database.transaction() as connection:
        insert_deletion(connection, 20, LOBBY_ID, "bob", TIME_MS)
    for found in histories:
        texts = {each.id: each.text for each in found}
        assert (len(texts), texts[20], texts[21]) == (len(found), "(deleted)", "x" * 8_192)
    assert 20 not in ids(messages.history(room.alice.id, 27, 22))
    found = messages.history(room.alice.id, 27, 22)
    with room.database.transaction() as connection:
        connection.execute("DELETE FROM message WHERE id = 21")
    with pytest.raises(RemovedError):
        ids(found)


def test_query_claims_memory_for_its_result_first(room: Room) -> None:
    claimed: list[int] = []
    messages = Messages(room.database, claimed.append)
    found = messages.history(room.alice.id, 100, 10)
    before_it_is_read, after_it = claimed
    assert before_it_is_read == 0, "fails while memory is short"
    assert after_it >= sum(sys.getsizeof(each) + sys.getsizeof(each.text) for each in found)
    wide = "x" * 1_000 + "\U0001f600"
    with room.database.transaction() as connection:
        assert insert_in_room(connection, LOBBY_ID, 6, TIME_MS, room.bob.id, [wide], [None])
    messages.history(room.alice.id, 100, 1)
    assert claimed[-1] >= sys.getsizeof(wide) + len(wide.encode()), "the encoder keeps the text in UTF-8 as well"

    def refuse(size_bytes: int) -> None:
        if size_bytes:
            raise ShortOfMemoryError

    messages = Messages(room.database, refuse)
    with pytest.raises(ShortOfMemoryError):
        messages.missed(room.alice.id, {LOBBY_ID: 0}, 100, 10)


@pytest.mark.parametrize(("first_id", "texts"), [(9, ["w"]), (9, ["v", "w"] * 2), (6, ["v", "w"] * 2)])
@pytest.mark.parametrize("has_nonces", [False, True])
def test_batch_with_a_used_id_is_not_inserted_at_all(
    room: Room, first_id: int, texts: list[str], has_nonces: bool
) -> None:
    """Promise: confirmed means stored. A batch is on the disk as a whole, or not at all."""
    before = room.messages.history(room.alice.id, ID_MAX, 500)

    def append() -> None:
        with room.database.transaction() as connection:
            insert_in_room(connection, LOBBY_ID, 8, TIME_MS, room.alice.id, ["x", "y"], [None] * 2)
            nonces = [f"m{number}" if has_nonces else None for number in range(len(texts))]
            insert_in_room(connection, LOBBY_ID, first_id, TIME_MS, room.alice.id, texts, nonces)

    with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
        append()
    assert room.messages.history(room.alice.id, ID_MAX, 500) == before
