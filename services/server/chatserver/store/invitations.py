"""Invitation codes, with which one name each may be registered. Only their hashes are stored."""

from __future__ import annotations

import hashlib
import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3

# Letters and digits that can't be mistaken for others when they are read aloud or typed: base 32 of Crockford.
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
# Letters that are read as digits.
_READ_AS = str.maketrans("OIL", "011")
# 100 bits: no code can be guessed.
_GROUPS, _GROUP_CHARACTERS = 4, 5


def new_code() -> str:
    """Make a code, such as 7KQ2M-9XW4T-C0H5R-N8ZBD."""
    groups = ("".join(secrets.choice(_ALPHABET) for _ in range(_GROUP_CHARACTERS)) for _ in range(_GROUPS))
    return "-".join(groups)


def hash_code(code: str) -> str:
    """SHA-256 of a code as it was typed: case, spaces and hyphens don't count.

    A slow hash, as for passwords, is not needed: codes are random.
    """
    typed = "".join(code.upper().replace("-", " ").split()).translate(_READ_AS)
    return hashlib.sha256(typed.encode()).hexdigest()


def insert_invitation(
    connection: sqlite3.Connection, code_hash: str, by: str, now_ms: int, until_ms: int | None
) -> None:
    """Store an unused invitation."""
    connection.execute(
        "INSERT INTO invitation_code VALUES (?, ?, ?, ?, NULL) ON CONFLICT (code_hash) DO NOTHING",
        (code_hash, by, now_ms, until_ms),
    )


def is_open(connection: sqlite3.Connection, code_hash: str, now_ms: int) -> bool:
    """True if the invitation exists, was not used, and is not over."""
    query = "SELECT 1 FROM invitation_code WHERE code_hash = ? AND account_id IS NULL AND ifnull(until_ms > ?, TRUE)"
    return connection.execute(query, (code_hash, now_ms)).fetchone() is not None


def use_invitation(connection: sqlite3.Connection, code_hash: str, account_id: int) -> None:
    """Note the account that the invitation registered."""
    connection.execute("UPDATE invitation_code SET account_id = ? WHERE code_hash = ?", (account_id, code_hash))
