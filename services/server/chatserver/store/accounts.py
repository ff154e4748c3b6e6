"""Accounts of registered users. Guests have rows in the same table: see ``guests.py``."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple

from msgspec import Struct

from chatprotocol.rules import name_key
from chatserver.store.invitations import is_open

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable

    from chatserver.store.sqlite import Readable


# Networks from which an account is known to log in: home, work, a phone and some journeys.
NETWORKS_MAX = 16


class Role(StrEnum):
    """Roles on the whole server."""

    USER = "user"
    OPERATOR = "operator"


# Without the call of the enum, which takes 0.5 us.
_ROLES: Final = {role.value: role for role in Role}
_FIND: Final = (
    "SELECT id, name, password_hash, delivered_id, role, must_change_password FROM account WHERE name_key = ?"
)
# Only the ban of a network has no account. The index sanction_target finds it: rooms may have a million sanctions.
HAS_NETWORK_BANS: Final = "EXISTS (SELECT 1 FROM sanction WHERE ifnull(account_id, 0) = 0)"
_FIND_AT: Final = (
    f"SELECT {HAS_NETWORK_BANS},"  # noqa: S608 -- a constant
    " (SELECT last_ms FROM known_network WHERE account_id = account.id AND network = ?),"
    " id, name, password_hash, delivered_id, role, must_change_password"
    " FROM (SELECT 1) LEFT JOIN account ON name_key = ?"
)
# Salt and hash have 22 and 43 characters in base64. Hashes with others are left out: of a part of their text, no hash
# can be made. Users of a few former settings may not have logged in since.
_HASH_COSTS: Final = (
    "SELECT DISTINCT substr(password_hash, 1, length(password_hash) - 67) FROM account"  # noqa: S608 -- constants
    f" WHERE password_hash GLOB '$argon2*${'[^$]' * 22}${'[^$]' * 43}' LIMIT 8"
)
# Each part has an index. The name of a deleted account has its id: see close_account.
_FIND_WRITER: Final = (
    "SELECT id, name FROM account WHERE name_key = :key"
    " UNION ALL SELECT id, name FROM account WHERE name = :name AND kind = 'guest'"
    " UNION ALL SELECT id, name FROM account WHERE id = CAST(substr(:name, 9) AS INTEGER) AND name = :name"
    " AND deleted_ms NOTNULL LIMIT 1"
)


class Account(Struct, frozen=True, gc=False):
    """A registered user, or a guest. ``name`` has the spelling of the registration."""

    id: int
    name: str
    # Empty for a guest.
    password_hash: str
    # The newest direct message that the account received.
    delivered_id: int
    # Number of the claim by which a guest has its name; 0 for a registered user.
    claim: int = 0
    role: Role = Role.USER
    # True if the next login must bring a new password.
    must_change_password: bool = False

    @property
    def is_guest(self) -> bool:
        """True if the user has no password, and keeps the name only while connected."""
        return self.claim > 0


class LoginAccount(NamedTuple):
    """What a login needs to know before it checks the password."""

    account: Account | None
    # The time of the account's last login from this network, at most a day too early; None if it is not known there.
    last_login_ms: int | None
    # True if any network is banned: the caller looks whether this one is.
    has_network_bans: bool


class Accounts:
    """Reads accounts, for any thread. The functions below write; only the journal calls them."""

    def __init__(self, database: Readable) -> None:
        self._database = database

    def hash_costs(self) -> list[str]:
        """The algorithms and parameters of all stored hashes, such as ``$argon2id$v=19$m=19456,t=2,p=1``.

        It reads all accounts: 0.1 s for 100,000. Raises StoreError.
        """
        with self._database.reading() as connection:
            return [cost for (cost,) in connection.execute(_HASH_COSTS)]

    def find(self, username: str) -> Account | None:
        """The account of this name, ignoring case; None if there is none. Raises StoreError."""
        with self._database.reading() as connection:
            row = connection.execute(_FIND, (name_key(username),)).fetchone()
        return None if row is None else account_of(*row)

    def find_for_login(self, username: str, network: str) -> LoginAccount:
        """The same, for a login from this network: one query, because each login makes it."""
        with self._database.reading() as connection:
            has_bans, last_login_ms, *row = connection.execute(_FIND_AT, (network, name_key(username))).fetchone()
        return LoginAccount(None if row[0] is None else account_of(*row), last_login_ms, bool(has_bans))

    def find_writer(self, name: str) -> Account | None:
        """The account of a name in a message: also that of a guest who has left (in this spelling), or a deleted one.

        None if there is none. Raises StoreError.
        """
        with self._database.reading() as connection:
            row = connection.execute(_FIND_WRITER, {"key": name_key(name), "name": name}).fetchone()
        return Account(row[0], row[1], "", 0) if row else None

    def has_guest(self, name: str) -> bool:
        """True if there is a row for guests of this name, in this spelling. Raises StoreError."""
        with self._database.reading() as connection:
            query = "SELECT 1 FROM account WHERE name = ? AND kind = 'guest'"
            return connection.execute(query, (name,)).fetchone() is not None

    def find_claimed(self, name: str) -> Account | None:
        """The row of the guest who has the name now, ignoring case; None if there is none. Raises StoreError."""
        with self._database.reading() as connection:
            row = connection.execute(
                "SELECT account.id, name, number FROM guest_claim JOIN account ON account.id = account_id"
                " WHERE guest_claim.name_key = ?",
                (name_key(name),),
            ).fetchone()
        return Account(row[0], row[1], "", 0, row[2]) if row else None

    def guests_among(self, names: Iterable[str]) -> frozenset[str]:
        """Those of the names, as they are spelled, that guests have now. Raises StoreError."""
        with self._database.reading() as connection:
            keys = json.dumps([name_key(name) for name in names])
            rows = connection.execute(
                "SELECT name FROM json_each(?) CROSS JOIN guest_claim ON guest_claim.name_key = value"
                " CROSS JOIN account ON account.id = account_id",
                (keys,),
            ).fetchall()
        return frozenset(name for (name,) in rows).intersection(names)

    def has_invitation(self, code_hash: str, now_ms: int) -> bool:
        """True if the invitation can be used. Raises StoreError."""
        with self._database.reading() as connection:
            return is_open(connection, code_hash, now_ms)


def account_of(
    account_id: int, name: str, password_hash: str, delivered_id: int, role: str, must_change: int
) -> Account:
    """A registered user, of these columns."""
    return Account(
        account_id, name, password_hash, delivered_id, role=_ROLES[role], must_change_password=bool(must_change)
    )


def read_last_account_id(connection: sqlite3.Connection) -> int:
    """The id of the newest account; 0 if there are no accounts."""
    (last_id,) = connection.execute("SELECT coalesce(max(id), 0) FROM account").fetchone()
    return int(last_id)


def is_person(connection: sqlite3.Connection, account_id: int) -> bool:
    """True if the account is a registered user, not a guest and not deleted."""
    query = "SELECT 1 FROM account WHERE id = ? AND kind = 'person' AND deleted_ms ISNULL"
    return connection.execute(query, (account_id,)).fetchone() is not None


def read_delivered(connection: sqlite3.Connection, account_id: int) -> int | None:
    """The newest direct message that the account received, or 0; None if there is no account."""
    row = connection.execute("SELECT delivered_id FROM account WHERE id = ?", (account_id,)).fetchone()
    return int(row[0]) if row else None


def read_name(connection: sqlite3.Connection, account_id: int) -> str | None:
    """The name of the account, also of a guest; None if there is none, or it is deleted."""
    query = "SELECT name FROM account WHERE id = ? AND deleted_ms ISNULL"
    row = connection.execute(query, (account_id,)).fetchone()
    return None if row is None else str(row[0])


# Operators of the server who are not banned from it. The plus takes the type from the id: else no index is used.
_OPERATORS = (
    "SELECT id FROM account WHERE role = 'operator' AND kind = 'person' AND deleted_ms ISNULL AND NOT EXISTS ("
    "SELECT 1 FROM sanction WHERE sanction.kind = 'ban' AND ifnull(account_id, 0) = +account.id"
    " AND ifnull(conversation_id, -1) = -1 AND (until_ms ISNULL OR until_ms > :now))"
)


def is_operator(connection: sqlite3.Connection, account_id: int, now_ms: int) -> bool:
    """True if the account is an operator of the server who is not banned from it."""
    row = connection.execute(f"{_OPERATORS} AND id = :id", {"now": now_ms, "id": account_id}).fetchone()
    return row is not None


def is_last_operator(connection: sqlite3.Connection, account_id: int, now_ms: int) -> bool:
    """True if the account is the only operator of the server who is not banned from it."""
    if not is_operator(connection, account_id, now_ms):  # the query below reads all accounts
        return False
    return len(connection.execute(f"{_OPERATORS} LIMIT 2", {"now": now_ms}).fetchall()) == 1


def update_role(connection: sqlite3.Connection, account_id: int, role: Role) -> None:
    """Store the account's role on the server."""
    connection.execute("UPDATE account SET role = ? WHERE id = ?", (role, account_id))


def insert_account(
    connection: sqlite3.Connection, name: str, password_hash: str, now_ms: int, role: Role = Role.USER
) -> Account | None:
    """Register a name. Returns None if the name is taken."""
    row = connection.execute(
        "INSERT INTO account (id, name, name_key, password_hash, created_ms, role)"
        " VALUES ((SELECT coalesce(max(id), 0) + 1 FROM account), ?, ?, ?, ?, ?)"
        " ON CONFLICT (name_key) DO NOTHING RETURNING id",
        (name, name_key(name), password_hash, now_ms, role.value),
    ).fetchone()
    return Account(row[0], name, password_hash, 0, role=role) if row else None


def insert_network(connection: sqlite3.Connection, account_id: int, network: str, now_ms: int) -> None:
    """Note that the account logged in from this network. The oldest of too many are forgotten."""
    connection.execute(
        "INSERT INTO known_network VALUES (?1, ?2, ?3)"
        " ON CONFLICT (account_id, network) DO UPDATE SET last_ms = max(last_ms, ?3)",
        (account_id, network, now_ms),
    )
    connection.execute(
        "DELETE FROM known_network WHERE account_id = ?1 AND network NOT IN (SELECT network FROM known_network"
        " WHERE account_id = ?1 ORDER BY last_ms DESC, network LIMIT ?2)",
        (account_id, NETWORKS_MAX),
    )


def replace_password_hash(connection: sqlite3.Connection, account_id: int, old_hash: str, new_hash: str) -> bool:
    """Replace the account's hash. Returns False, and changes nothing, if the present one is not ``old_hash``."""
    cursor = connection.execute(
        "UPDATE account SET password_hash = ?, must_change_password = 0 WHERE id = ? AND password_hash = ?",
        (new_hash, account_id, old_hash),
    )
    return cursor.rowcount == 1


def set_password_hash(connection: sqlite3.Connection, account_id: int, new_hash: str, *, must_change: bool) -> bool:
    """Give a registered user another password. False if there is no such account."""
    cursor = connection.execute(
        "UPDATE account SET password_hash = ?, must_change_password = ?"
        " WHERE id = ? AND kind = 'person' AND deleted_ms ISNULL",
        (new_hash, must_change, account_id),
    )
    return cursor.rowcount == 1


def close_account(connection: sqlite3.Connection, account_id: int, now_ms: int) -> str:
    """Free the name, and forget all that only a login needs. Returns the new name; no username contains a hyphen."""
    row = connection.execute(
        "UPDATE account SET name = 'deleted-' || id, name_key = NULL, role = 'user', password_hash = '',"
        " must_change_password = 0, deleted_ms = ? WHERE id = ? RETURNING name",
        (now_ms, account_id),
    ).fetchone()
    return str(row[0])


def find_closed(connection: sqlite3.Connection, name: str) -> int | None:
    """The id of the closed account with this name; None if there is none."""
    row = connection.execute("SELECT id FROM account WHERE name = ? AND deleted_ms NOTNULL", (name,)).fetchone()
    return int(row[0]) if row else None


def update_delivered(connection: sqlite3.Connection, account_id: int, message_id: int) -> None:
    """Store the newest direct message that the account received; it never goes back."""
    connection.execute(
        "UPDATE account SET delivered_id = max(delivered_id, ?2) WHERE id = ?1", (account_id, message_id)
    )
