"""Accounts: known networks, invitations, roles, passwords that must be changed, and the claims of guests."""

from collections.abc import Iterator
from typing import Any

import pytest
from argon2 import PasswordHasher

from chatserver.journal.apply import Transaction, apply
from chatserver.journal.entries import (
    AccountProblem,
    AddInvitation,
    Entry,
    GuestClaim,
    GuestRelease,
    KnownNetwork,
    NewAccount,
    PasswordChange,
)
from chatserver.store.accounts import NETWORKS_MAX, Account, Accounts, Role
from chatserver.store.database import Database
from chatserver.store.invitations import hash_code, new_code

from .helpers import memory_database, register


@pytest.fixture
def database() -> Iterator[Database]:
    with memory_database() as database:
        yield database


@pytest.fixture
def accounts(database: Database) -> Accounts:
    return Accounts(database)


def apply_at(database: Database, time_ms: int, entry: Entry[Any]) -> Any:
    with database.transaction() as connection:
        return apply(Transaction(connection, time_ms, 0), entry)


def test_known_networks_are_limited_and_the_oldest_is_forgotten(database: Database, accounts: Accounts) -> None:
    alice, bob = register(database, "alice"), register(database, "bob")
    for number in range(NETWORKS_MAX):
        apply_at(database, number, KnownNetwork(alice.id, f"network {number}"))
    apply_at(database, 100, KnownNetwork(alice.id, "network 0"))
    apply_at(database, 101, KnownNetwork(alice.id, "another"))
    assert accounts.find_for_login(alice.name, "network 0").last_login_ms == 100
    assert accounts.find_for_login(alice.name, "network 1").last_login_ms is None
    assert accounts.find_for_login(alice.name, "network 2").last_login_ms == 2
    assert accounts.find_for_login(alice.name, "another").last_login_ms == 101
    assert accounts.find_for_login(bob.name, "another").last_login_ms is None


def test_costs_of_all_hashes_are_known(database: Database, accounts: Accounts) -> None:
    """A hash of other lengths is left out. All wrong passwords would fail with its cost, instead of being counted."""
    for name, time_cost, salt_length in (("alice", 1, 16), ("bob", 2, 16), ("carol", 2, 16), ("erin", 3, 8)):
        user = register(database, name)
        hasher = PasswordHasher(time_cost=time_cost, memory_cost=8, parallelism=1, salt_len=salt_length)
        password_hash = hasher.hash("secret")
        assert apply_at(database, 0, PasswordChange(user.id, user.password_hash, password_hash))
    register(database, "dave")
    assert sorted(accounts.hash_costs()) == [f"$argon2id$v=19$m=8,t={time_cost},p=1" for time_cost in (1, 2)]


def test_invitation_registers_one_name_in_time(database: Database, accounts: Accounts) -> None:
    code = new_code()
    forever, over = AddInvitation(hash_code(code), "root"), AddInvitation(hash_code(new_code()), "root", 1_000)
    for entry in (forever, over):
        apply_at(database, 0, entry)
    assert accounts.has_invitation(hash_code(code), 10**15)
    assert accounts.has_invitation(over.code_hash, 999)
    assert not accounts.has_invitation(over.code_hash, 1_000)
    assert apply_at(database, 1_000, NewAccount("carol", "hash", "", over.code_hash)) is AccountProblem.BAD_INVITATION
    # A name that is taken does not use the invitation up.
    register(database, "bob")
    assert apply_at(database, 1_000, NewAccount("bob", "hash", "home", forever.code_hash)) is AccountProblem.NAME_TAKEN
    carol = apply_at(database, 1_000, NewAccount("carol", "hash", "home", forever.code_hash, Role.OPERATOR))
    assert isinstance(carol, Account)
    assert carol == accounts.find("carol")
    assert carol.role is Role.OPERATOR
    assert accounts.find_for_login(carol.name, "home").last_login_ms == 1_000
    assert (
        apply_at(database, 1_000, NewAccount("dora", "hash", "home", forever.code_hash))
        is AccountProblem.BAD_INVITATION
    )
    assert not accounts.has_invitation(forever.code_hash, 0)
    # A code that is added again stays used.
    apply_at(database, 2_000, AddInvitation(forever.code_hash, "root"))
    assert not accounts.has_invitation(forever.code_hash, 0)


def test_codes_are_random_and_may_be_typed_in_any_case() -> None:
    codes = {new_code() for _ in range(100)}
    assert len(codes) == 100
    assert all(len(code.replace("-", "")) == 20 for code in codes)  # 100 bits
    assert hash_code("7kq2m 9xw4t-coh5rn8zbd ") == hash_code("7KQ2M-9XW4T-C0H5R-N8ZBD")
    assert hash_code("7KQ2M-9XW4T-C0H5R-N8ZBE") != hash_code("7KQ2M-9XW4T-C0H5R-N8ZBD")


def test_chosen_password_need_not_be_changed_again(database: Database, accounts: Accounts) -> None:
    alice = register(database, "alice")
    with database.transaction() as connection:
        connection.execute("UPDATE account SET must_change_password = 1")
    assert not apply_at(database, 0, PasswordChange(alice.id, "another", "new"))
    found = accounts.find("alice")
    assert found is not None
    assert found.must_change_password
    assert apply_at(database, 0, PasswordChange(alice.id, alice.password_hash, "new"))
    found = accounts.find("alice")
    assert found is not None
    assert (found.password_hash, found.must_change_password) == ("new", False)


def test_each_guest_of_a_name_has_its_own_claim(database: Database) -> None:
    """Messages are for a claim. The late end of an earlier one does not end the next."""
    first = apply_at(database, 0, GuestClaim("carol"))
    assert apply_at(database, 0, GuestClaim("CAROL")) is None
    apply_at(database, 0, GuestRelease("carol", first.claim))
    second = apply_at(database, 0, GuestClaim("carol"))
    assert second.claim != first.claim
    apply_at(database, 0, GuestRelease("carol", first.claim))
    assert apply_at(database, 0, GuestClaim("carol")) is None


def test_guest_is_found_while_the_claim_lasts(database: Database) -> None:
    """By any spelling. A registered user is no guest."""
    accounts = Accounts(database)
    register(database, "alice")
    claimed = apply_at(database, 0, GuestClaim("Carol", "a"))
    assert accounts.find_claimed("cAROL") == claimed
    assert accounts.find_claimed("alice") is None
    assert accounts.guests_among(["alice", "Carol", "nobody"]) == {"Carol"}
    apply_at(database, 0, GuestRelease("carol", claimed.claim))
    assert accounts.find_claimed("carol") is None
    assert accounts.guests_among(["Carol"]) == set()
