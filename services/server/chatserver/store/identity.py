"""The identity of the history: it changes when messages that clients may have seen are no longer there.

A client remembers the id of the last message that it saw, and the identity of the history that the id belongs to.
After a backup was restored, message 31 may be another message, or none. For each former identity it is known up to
which message the two histories are the same: so such a client is told all that it can't have seen, and nothing twice.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final

from chatserver.store.messages import read_last_id

if TYPE_CHECKING:
    import sqlite3

    from chatserver.store.database import Database

# More than enough to never be the same twice.
_ID_BYTES: Final = 16


class HistoryIdentity:
    """What the server tells and compares at each login. It does not change while the server runs. For any thread."""

    def __init__(self, database: Database) -> None:
        """To be made after ``reconcile``, which may renew the identity. Raises StoreError."""
        with database.reading() as connection:
            (self.history_id,) = connection.execute("SELECT history_id FROM history_identity").fetchone()
            # One for each time that a backup was restored.
            self._shared: dict[str, int] = dict(connection.execute("SELECT history_id, last_id FROM former_identity"))

    def shared_upto(self, history_id: str | None) -> int | None:
        """The last message that this history has in common with that former one; None if it is not a former one."""
        return self._shared.get(history_id) if history_id is not None else None


def read_history_id(connection: sqlite3.Connection) -> str:
    """The identity of this database; it gets one if it has none. The connection must be one that may write."""
    row = connection.execute("SELECT history_id FROM history_identity").fetchone()
    return str(row[0]) if row is not None else renew_history_id(connection)


def renew_history_id(connection: sqlite3.Connection) -> str:
    """Give this database a new identity, because from now on ids may stand for other messages. Returns it.

    To be called in a transaction (or it is several), before the first message is written that the former history may
    have in another form.
    """
    connection.execute(
        "INSERT OR REPLACE INTO former_identity SELECT history_id, ? FROM history_identity", (read_last_id(connection),)
    )
    history_id = secrets.token_hex(_ID_BYTES)
    connection.execute("INSERT OR REPLACE INTO history_identity VALUES (1, ?)", (history_id,))
    return history_id
