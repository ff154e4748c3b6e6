"""Guests in rooms: what the journal decides about their memberships."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chatprotocol.events import RoomRole, SanctionKind
from chatserver.journal.apply import Transaction, apply
from chatserver.journal.entries import (
    Entry,
    GuestClaim,
    GuestRelease,
    GuestRenamed,
    GuestsGone,
    InviteUser,
    JoinRoom,
    NewAccount,
    Problem,
    RenameGuest,
    RoomChange,
    Sanction,
    ServerGone,
    ServerStart,
    SetRole,
)
from chatserver.store.accounts import Account
from chatserver.store.log_position import begin_run

from .helpers import new_store

# The only account, and guests of two servers.
ERIN = 1
HERE, THERE = "a", "b"


class Store:
    """A store with one account, to which entries are applied at time 0."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.apply(NewAccount("erin", "hash"))

    def apply(self, entry: Entry[Any]) -> Any:
        return apply(Transaction(self.connection, 0, 0), entry)

    def guest(self, name: str, server: str = HERE) -> Account:
        account = self.apply(GuestClaim(name, server))
        assert isinstance(account, Account)
        return account

    def join(self, account_id: int, room: str = "dev") -> Any:
        return self.apply(JoinRoom(account_id, "", room, is_private=False, may_create=True))

    def roles(self) -> dict[str, str]:
        query = "SELECT name, membership.role FROM membership JOIN account ON account.id = account_id ORDER BY number"
        return dict(self.connection.execute(query).fetchall())

    def count(self, query: str) -> int:
        return int(self.connection.execute(f"SELECT count(*) FROM {query}").fetchone()[0])


@pytest.fixture
def store() -> Iterator[Store]:
    with closing(new_store()) as connection:
        yield Store(connection)


def leave(guest: Account) -> GuestRelease:
    return GuestRelease(guest.name, guest.claim)


def test_membership_of_a_guest_ends_with_its_claim(store: Store) -> None:
    """Promise: the next guest of the name has none of its rooms. The owner has an heir."""
    bob = store.guest("bob")
    assert store.join(bob.id).role is RoomRole.OWNER
    store.join(ERIN)
    outcome = store.apply(leave(bob))
    assert isinstance(outcome, GuestsGone)
    assert [(each.name, each.heir, each.heir_id) for each in outcome.rooms] == [("dev", "erin", ERIN)]
    assert store.roles() == {"erin": "owner"}
    assert store.join(bob.id) is Problem.NOT_PERMITTED, "it has left"
    assert store.guest("bob").id == bob.id
    assert store.roles() == {"erin": "owner"}


def test_invitation_of_a_guest_ends_with_its_claim(store: Store) -> None:
    store.join(ERIN)
    bob = store.guest("bob")
    (room_id,) = store.connection.execute("SELECT max(id) FROM conversation").fetchone()
    invite = InviteUser(room_id, bob.id, "bob", ERIN, "erin")
    assert isinstance(store.apply(invite), RoomChange)
    assert store.apply(leave(bob)) is None
    assert store.roles() == {"erin": "owner"}
    assert store.apply(invite) is Problem.NOT_PERMITTED


@pytest.mark.parametrize("end", [ServerStart(HERE), ServerGone(HERE, "run")])
def test_guests_of_a_server_leave_together(store: Store, end: Entry[Any]) -> None:
    """None of them is the heir of another one. Guests of other servers stay, and a room without members ends."""
    begin_run(store.connection, HERE, "run")
    for name, server in (("bob", HERE), ("carol", HERE), ("dora", THERE)):
        guest = store.guest(name, server)
        store.join(guest.id)
        if server == HERE:
            store.join(guest.id, "short")
    outcome = store.apply(end)
    assert [(each.name, each.heir) for each in outcome.rooms] == [("dev", "dora")]
    assert store.roles() == {"dora": "owner"}
    assert store.count("conversation WHERE id > 1 AND name_key NOTNULL") == 1


# --- another name ---
def test_renamed_guest_keeps_its_rooms_and_roles(store: Store) -> None:
    bob = store.guest("bob")
    store.join(bob.id)
    store.join(ERIN)
    outcome = store.apply(RenameGuest("bob", bob.claim, "Rob", HERE))
    assert isinstance(outcome, GuestRenamed)
    assert list(outcome.roles.values()) == [RoomRole.OWNER]
    assert store.roles() == {"Rob": "owner", "erin": "member"}
    assert isinstance(store.apply(NewAccount("bob", "hash")), Account), "the old name is free"
    assert store.apply(leave(bob)) is None, "the old claim is over"
    store.apply(leave(outcome.account))
    assert store.roles() == {"erin": "owner"}


def test_guest_takes_another_spelling_of_its_name(store: Store) -> None:
    bob = store.guest("bob")
    store.join(bob.id)
    outcome = store.apply(RenameGuest("bob", bob.claim, "BOB", HERE))
    assert (outcome.account.name, outcome.account.claim) == ("BOB", bob.claim + 1)
    assert store.roles() == {"BOB": "owner"}
    back = store.apply(RenameGuest("BOB", outcome.account.claim, "BOB", HERE))
    assert back.account.id == outcome.account.id
    assert store.roles() == {"BOB": "owner"}


@pytest.mark.parametrize(
    ("new_name", "problem"),
    [("ERIN", Problem.NAME_TAKEN), ("Carol", Problem.NAME_TAKEN), ("villain", Problem.NOT_PERMITTED)],
)
def test_rename_that_is_refused_changes_nothing(store: Store, new_name: str, problem: Problem) -> None:
    """The name of an account, of another guest, and one that is muted."""
    villain = store.guest("villain")
    store.apply(leave(villain))
    mute = Sanction(kind=SanctionKind.MUTE, account_id=villain.id, username="villain", by_id=0, by="")
    store.apply(mute)
    bob, _ = store.guest("bob"), store.guest("carol")
    store.join(bob.id)
    before = list(store.connection.iterdump())
    assert store.apply(RenameGuest("bob", bob.claim, new_name, HERE)) is problem
    assert list(store.connection.iterdump()) == before


def test_muted_guest_keeps_its_name(store: Store) -> None:
    """Else each mute would be over at once."""
    bob = store.guest("bob")
    store.apply(Sanction(kind=SanctionKind.MUTE, account_id=bob.id, username="bob", by_id=0, by=""))
    assert store.apply(RenameGuest("bob", bob.claim, "rob", HERE)) is Problem.NOT_PERMITTED


names = st.sampled_from(["bob", "BOB", "carol"])
servers = st.sampled_from([HERE, THERE])
accounts = st.integers(1, 4)
room_ids = st.integers(2, 3)
claims = st.integers(1, 2)
steps = st.one_of(
    st.builds(GuestClaim, names, servers),
    st.builds(JoinRoom, accounts, names, st.sampled_from(["dev", "ops"]), st.booleans(), st.just(value=True)),
    st.builds(InviteUser, room_ids, accounts, names, st.integers(0, 5), names),
    st.builds(SetRole, room_ids, accounts, names, st.integers(0, 5), names, st.sampled_from(RoomRole)),
    st.builds(GuestRelease, names, claims),
    st.builds(RenameGuest, names, claims, names, servers),
    st.builds(ServerStart, servers),
)


@given(st.lists(steps, max_size=40))
@example([GuestClaim("bob", HERE), JoinRoom(2, "", "dev", False, True), GuestRelease("bob", 1)])
def test_only_guests_who_are_there_are_in_rooms(entries: list[Entry[Any]]) -> None:
    """After any entries: no room has a guest who has left, and each has one owner and the right counts."""
    with closing(new_store()) as connection:
        store = Store(connection)
        for entry in entries:
            store.apply(entry)
        present = "SELECT account_id FROM guest_claim WHERE account_id NOTNULL"
        assert store.count(f"membership WHERE account_id <> {ERIN} AND account_id NOT IN ({present})") == 0
        its = "SELECT count(*) FROM membership WHERE conversation_id = conversation.id AND role"
        living = "conversation WHERE id > 1 AND name_key NOTNULL AND"
        assert store.count(f"{living} 1 <> ({its} = 'owner')") == 0
        assert store.count(f"{living} member_count <> ({its} <> 'invited')") == 0
        assert store.count(f"{living} invited_count <> ({its} = 'invited')") == 0
