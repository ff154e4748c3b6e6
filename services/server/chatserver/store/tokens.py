"""Session tokens, with which devices and programs log in without a password. Only their hashes are stored.

A token expires: one that was not used for TOKEN_DAYS counts as missing, and is removed when the next one of any
account is stored. The use of a token is noted once a day, because each note costs a write.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import TYPE_CHECKING, Final, NamedTuple

from chatprotocol.limits import TOKEN_DAYS, TOKENS_MAX
from chatserver.store.accounts import account_of

if TYPE_CHECKING:
    import sqlite3

    from chatserver.store.accounts import Account
    from chatserver.store.sqlite import Readable

LIFETIME_MS: Final = TOKEN_DAYS * 86_400_000
# 256 bits: no token can be guessed.
_TOKEN_BYTES: Final = 32
# An id is typed by people, and is one of at most TOKENS_MAX.
_ID_BYTES: Final = 4
_FIND: Final = (
    "SELECT token.id, used_ms,"
    " (SELECT last_ms FROM known_network WHERE known_network.account_id = account.id AND network = ?),"
    " account.id, name, password_hash, delivered_id, role, must_change_password"
    " FROM token JOIN account ON account.id = account_id WHERE hash = ? AND used_ms > ?"
)


class NewToken(NamedTuple):
    """A token that is not stored yet."""

    secret: str
    hash: str
    id: str


class FoundToken(NamedTuple):
    """A valid token and its account."""

    id: str
    used_ms: int
    # The time of a login of the account from the network, as in LoginAccount.
    last_login_ms: int | None
    account: Account


class StoredToken(NamedTuple):
    """A token in the list of its user."""

    id: str
    label: str
    created_ms: int
    used_ms: int


def new_token() -> NewToken:
    """Make a token. The secret is for the user alone."""
    secret = secrets.token_urlsafe(_TOKEN_BYTES)
    return NewToken(secret, hash_token(secret), secrets.token_hex(_ID_BYTES))


def hash_token(token: str) -> str:
    """SHA-256 of a token. A slow hash, as for passwords, is not needed: tokens are random."""
    return hashlib.sha256(token.encode()).hexdigest()


class Tokens:
    """Reads tokens, for any thread. The functions below write; only the journal calls them."""

    def __init__(self, database: Readable) -> None:
        self._database = database

    def find(self, token: str, network: str, now_ms: int) -> FoundToken | None:
        """The valid token with this text; None if there is none. Raises StoreError."""
        with self._database.reading() as connection:
            row = connection.execute(_FIND, (network, hash_token(token), now_ms - LIFETIME_MS)).fetchone()
        if row is None:
            return None
        token_id, used_ms, last_login_ms, *account = row
        return FoundToken(token_id, used_ms, last_login_ms, account_of(*account))

    def has(self, account_id: int, token_id: str) -> bool:
        """True if the account has a token of this id. Raises StoreError."""
        with self._database.reading() as connection:
            query = "SELECT 1 FROM token WHERE account_id = ? AND id = ?"
            return connection.execute(query, (account_id, token_id)).fetchone() is not None

    def list_of(self, account_id: int, now_ms: int) -> list[StoredToken]:
        """The valid tokens of the account, the one that was used last first. Raises StoreError."""
        with self._database.reading() as connection:
            rows = connection.execute(
                "SELECT id, label, created_ms, used_ms FROM token WHERE account_id = ? AND used_ms > ?"
                " ORDER BY used_ms DESC, created_ms DESC, id",
                (account_id, now_ms - LIFETIME_MS),
            ).fetchall()
        return [StoredToken(*row) for row in rows]


def insert_token(
    connection: sqlite3.Connection, account_id: int, token_hash: str, token_id: str, label: str, now_ms: int
) -> list[str]:
    """Store a token. Returns the ids of the account's tokens that it replaced: those used least recently."""
    connection.execute("DELETE FROM token WHERE used_ms <= ?", (now_ms - LIFETIME_MS,))
    connection.execute(
        "INSERT OR REPLACE INTO token (hash, account_id, id, label, created_ms, used_ms) VALUES (?, ?, ?, ?, ?, ?)",
        (token_hash, account_id, token_id, label, now_ms, now_ms),
    )
    rows = connection.execute(
        "DELETE FROM token WHERE hash IN (SELECT hash FROM token WHERE account_id = ?1 AND id <> ?2"
        " ORDER BY used_ms DESC, created_ms DESC, id LIMIT -1 OFFSET ?3) RETURNING id",
        (account_id, token_id, TOKENS_MAX - 1),
    ).fetchall()
    return sorted(each for (each,) in rows)


def use_token(connection: sqlite3.Connection, account_id: int, token_id: str, now_ms: int) -> None:
    """Note a use of the token, unless it is over."""
    connection.execute(
        "UPDATE token SET used_ms = max(used_ms, ?3) WHERE account_id = ?1 AND id = ?2 AND used_ms > ?4",
        (account_id, token_id, now_ms, now_ms - LIFETIME_MS),
    )


def delete_tokens(connection: sqlite3.Connection, account_id: int, token_id: str = "", kept_id: str = "") -> list[str]:
    """Remove a token of the account, or without its id all but the kept one. Returns the ids of those removed."""
    rows = connection.execute(
        "DELETE FROM token WHERE account_id = ?1 AND iif(?2 = '', id <> ?3, id = ?2) RETURNING id",
        (account_id, token_id, kept_id),
    ).fetchall()
    return sorted(each for (each,) in rows)
