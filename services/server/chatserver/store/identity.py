"""The identity of the history: it changes when messages that clients may have seen are no longer there."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import sqlite3

# More than enough to never be the same twice.
_ID_BYTES: Final = 16


def read_history_id(connection: sqlite3.Connection) -> str:
    """The identity of this database; it gets one if it has none. The connection must be one that may write."""
    row = connection.execute("SELECT history_id FROM history_identity").fetchone()
    return str(row[0]) if row is not None else renew_history_id(connection)


def renew_history_id(connection: sqlite3.Connection) -> str:
    """Give this database a new identity, because ids may stand for other messages than before. Returns it.

    One statement: it is a transaction of its own, or a part of the one that the connection is in.
    """
    history_id = secrets.token_hex(_ID_BYTES)
    connection.execute("INSERT OR REPLACE INTO history_identity VALUES (1, ?)", (history_id,))
    return history_id
