"""Accounts: who may come in as whom."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from chatprotocol.rules import name_key

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable

    from chatserver.store.database import Database


class Account(Struct, frozen=True, gc=False):
    """A registered user, or a guest. ``name`` is spelled as it was given first."""

    id: int
    name: str
    # A guest has none.
    password_hash: str
    delivered_id: int

    @property
    def is_guest(self) -> bool:
        """Is it known by nothing but its name, and only as long as it is here?"""
        return not self.password_hash


class Accounts:
    """Reads accounts, for any thread. Writing is the journal's: see the functions below."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, username: str) -> Account | None:
        """The account of that name, in whatever case it is written."""
        with self._database.reading() as connection:
            row = connection.execute(
                "SELECT id, name, password_hash, delivered_id FROM account WHERE name_key = ?", (name_key(username),)
            ).fetchone()
        return Account(*row) if row else None


def read_last_account_id(connection: sqlite3.Connection) -> int:
    """The newest account's id; 0 when there is none."""
    (last_id,) = connection.execute("SELECT coalesce(max(id), 0) FROM account").fetchone()
    return int(last_id)


def insert_account(connection: sqlite3.Connection, name: str, password_hash: str, now_ms: int) -> Account | None:
    """Register a name, or None when it is taken."""
    row = connection.execute(
        "INSERT INTO account (name, name_key, password_hash, created_ms) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (name_key) DO NOTHING RETURNING id",
        (name, name_key(name), password_hash, now_ms),
    ).fetchone()
    return Account(row[0], name, password_hash, 0) if row else None


# What a guest says has a sender, as all messages have: a row for each spelling of a name. Names are compared in lower
# case, so this key is none that anybody finds, or logs in with.
_GUEST_KEY = "GUEST:"


def admit_guest(connection: sqlite3.Connection, name: str, now_ms: int) -> Account | None:
    """What stands for a guest of this name, or None when there is an account of that name."""
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
    """Replace the hash that the account had when its password was checked; False if it has another one by now."""
    cursor = connection.execute(
        "UPDATE account SET password_hash = ? WHERE id = ? AND password_hash = ?",
        (password_hash, account.id, account.password_hash),
    )
    return cursor.rowcount == 1


def update_delivered(connection: sqlite3.Connection, delivered: Iterable[tuple[int, int]]) -> None:
    """Remember the newest direct message that each account got: pairs of account id and message id."""
    connection.executemany("UPDATE account SET delivered_id = max(delivered_id, ?2) WHERE id = ?1", list(delivered))
