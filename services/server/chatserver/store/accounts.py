"""Accounts of registered users, and rows for guests, because every message needs a sender."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from chatprotocol.rules import name_key

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable

    from chatserver.store.database import Database


class Account(Struct, frozen=True, gc=False):
    """A registered user, or a guest. ``name`` has the spelling of the registration."""

    id: int
    name: str
    # Empty for a guest.
    password_hash: str
    # The newest direct message that the account received.
    delivered_id: int

    @property
    def is_guest(self) -> bool:
        """True if the user has no password, and keeps the name only while connected."""
        return not self.password_hash


class Accounts:
    """Reads accounts, for any thread. The functions below write; only the journal calls them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, username: str) -> Account | None:
        """The account of this name, ignoring case; None if there is none. Raises StoreError."""
        with self._database.reading() as connection:
            row = connection.execute(
                "SELECT id, name, password_hash, delivered_id FROM account WHERE name_key = ?", (name_key(username),)
            ).fetchone()
        return Account(*row) if row else None


def read_last_account_id(connection: sqlite3.Connection) -> int:
    """The id of the newest account; 0 if there are no accounts."""
    (last_id,) = connection.execute("SELECT coalesce(max(id), 0) FROM account").fetchone()
    return int(last_id)


def insert_account(connection: sqlite3.Connection, name: str, password_hash: str, now_ms: int) -> Account | None:
    """Register a name. Returns None if the name is taken."""
    row = connection.execute(
        "INSERT INTO account (name, name_key, password_hash, created_ms) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (name_key) DO NOTHING RETURNING id",
        (name, name_key(name), password_hash, now_ms),
    ).fetchone()
    return Account(row[0], name, password_hash, 0) if row else None


# Prefix of the keys of guests. Every message needs a sender, so there is a row for each spelling of a guest's name.
# Keys of accounts are lower case, so no login and no lookup finds a guest's key.
_GUEST_KEY = "GUEST:"


def admit_guest(connection: sqlite3.Connection, name: str, now_ms: int) -> Account | None:
    """The row of a guest of this name, inserted if it is new; None if an account has the name."""
    if connection.execute("SELECT 1 FROM account WHERE name_key = ?", (name_key(name),)).fetchone():
        return None
    key = _GUEST_KEY + name
    row = connection.execute("SELECT id FROM account WHERE name_key = ?", (key,)).fetchone()
    if row is None:
        row = connection.execute(
            "INSERT INTO account (name, name_key, password_hash, created_ms) VALUES (?, ?, '', ?) RETURNING id",
            (name, key, now_ms),
        ).fetchone()
    return Account(row[0], name, "", 0)


def replace_password_hash(connection: sqlite3.Connection, account: Account, password_hash: str) -> bool:
    """Replace the hash of ``account``. Returns False if the hash has changed since ``account`` was read."""
    cursor = connection.execute(
        "UPDATE account SET password_hash = ? WHERE id = ? AND password_hash = ?",
        (password_hash, account.id, account.password_hash),
    )
    return cursor.rowcount == 1


def update_delivered(connection: sqlite3.Connection, delivered: Iterable[tuple[int, int]]) -> None:
    """Store the newest direct message that each account received: pairs of account id and message id."""
    connection.executemany("UPDATE account SET delivered_id = max(delivered_id, ?2) WHERE id = ?1", list(delivered))
