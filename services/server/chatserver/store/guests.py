"""Guests: rows of the account table that stand for them, and the names that they have now.

There is one row for each spelling of a name, without a key, so no login finds it. The row outlives its guest, because
messages refer to it. A claim of a name ends when its guest leaves. Its number tells the guest from other guests of the
same name. Memberships of rooms end with the claim: see ``apply.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from chatprotocol.rules import name_key
from chatserver.store.accounts import Account

if TYPE_CHECKING:
    import sqlite3


def claim_name(connection: sqlite3.Connection, name: str, now_ms: int, server: str = "") -> Account | None:
    """Give the name to a new guest of a server; return its row. None if an account or another guest has the name."""
    if not is_free(connection, name):
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


def is_free(connection: sqlite3.Connection, name: str) -> bool:
    """True if neither an account nor a guest has the name."""
    if is_claimed(connection, name):
        return False
    return connection.execute("SELECT 1 FROM account WHERE name_key = ?", (name_key(name),)).fetchone() is None


def find_row(connection: sqlite3.Connection, name: str) -> int | None:
    """The row for guests of this name, in this spelling; None if there was no such guest."""
    row = connection.execute("SELECT id FROM account WHERE name = ? AND kind = 'guest'", (name,)).fetchone()
    return None if row is None else int(row[0])


def is_claimed(connection: sqlite3.Connection, name: str) -> bool:
    """True if a guest has the name now."""
    query = "SELECT 1 FROM guest_claim WHERE name_key = ? AND account_id IS NOT NULL"
    return connection.execute(query, (name_key(name),)).fetchone() is not None


def is_present(connection: sqlite3.Connection, account_id: int) -> bool:
    """True if the row is that of a guest who has a name now."""
    query = (
        "SELECT 1 FROM account JOIN guest_claim ON guest_claim.name_key = lower(account.name)"
        " AND guest_claim.account_id = account.id WHERE account.id = ?"
    )
    return connection.execute(query, (account_id,)).fetchone() is not None


def find_claim(connection: sqlite3.Connection, name: str, number: int) -> int | None:
    """The row of the guest with the claim of this number; None if the claim has ended."""
    query = "SELECT account_id FROM guest_claim WHERE name_key = ? AND number = ?"
    row = connection.execute(query, (name_key(name), number)).fetchone()
    return None if row is None else row[0]


def release_name(connection: sqlite3.Connection, name: str, number: int) -> list[int]:
    """End the claim of this number; return the row of its guest. Empty if the claim has ended already."""
    account_id = find_claim(connection, name, number)
    if account_id is None:
        return []
    connection.execute("UPDATE guest_claim SET account_id = NULL WHERE name_key = ?", (name_key(name),))
    return [account_id]


def release_all_names(connection: sqlite3.Connection, server: str = "") -> list[int]:
    """End all claims of a server's guests; return the rows of those who are in rooms or invited, sorted."""
    query = (
        "SELECT DISTINCT account_id FROM membership WHERE account_id IN ("
        "SELECT account_id FROM guest_claim WHERE account_id IS NOT NULL AND server = ?) ORDER BY account_id"
    )
    account_ids = [account_id for (account_id,) in connection.execute(query, (server,))]
    connection.execute(
        "UPDATE guest_claim SET account_id = NULL WHERE account_id IS NOT NULL AND server = ?", (server,)
    )
    return account_ids
