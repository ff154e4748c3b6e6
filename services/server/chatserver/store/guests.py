"""Guests: rows of the account table that stand for them, and the names that they have now.

There is one row for each spelling of a name, without a key, so no login finds it. The row outlives its guest, because
messages refer to it. A claim of a name ends when its guest leaves. Its number tells the guest from other guests of the
same name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from chatprotocol.rules import name_key
from chatserver.store.accounts import Account

if TYPE_CHECKING:
    import sqlite3


def claim_name(connection: sqlite3.Connection, name: str, now_ms: int, server: str = "") -> Account | None:
    """Give the name to a new guest of a server; return its row. None if an account or another guest has the name."""
    if is_claimed(connection, name):
        return None
    if connection.execute("SELECT 1 FROM account WHERE name_key = ?", (name_key(name),)).fetchone():
        return None
    (account_id,) = connection.execute(
        "INSERT INTO account (id, name, kind, password_hash, created_ms)"
        " VALUES ((SELECT coalesce(max(id), 0) + 1 FROM account), ?, 'guest', '', ?)"
        # Changes nothing: RETURNING is empty after DO NOTHING.
        " ON CONFLICT (name) WHERE kind = 'guest' DO UPDATE SET name = name RETURNING id",
        (name, now_ms),
    ).fetchone()
    (number,) = connection.execute(
        "INSERT INTO guest_claim VALUES (?, 1, ?, ?) ON CONFLICT (name_key) DO UPDATE"
        " SET number = number + 1, account_id = excluded.account_id, server = excluded.server RETURNING number",
        (name_key(name), account_id, server),
    ).fetchone()
    return Account(account_id, name, "", 0, number)


def is_claimed(connection: sqlite3.Connection, name: str) -> bool:
    """True if a guest has the name now."""
    query = "SELECT 1 FROM guest_claim WHERE name_key = ? AND account_id IS NOT NULL"
    return connection.execute(query, (name_key(name),)).fetchone() is not None


def release_name(connection: sqlite3.Connection, name: str, number: int) -> None:
    """End the claim of this number. Does nothing if it has ended already."""
    connection.execute(
        "UPDATE guest_claim SET account_id = NULL WHERE name_key = ? AND number = ?", (name_key(name), number)
    )


def release_all_names(connection: sqlite3.Connection, server: str = "") -> None:
    """End all claims of a server's guests."""
    connection.execute(
        "UPDATE guest_claim SET account_id = NULL WHERE account_id IS NOT NULL AND server = ?", (server,)
    )
