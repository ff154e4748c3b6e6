"""The identity of the history: it changes when messages that clients may have seen are no longer there.

A client remembers the id of the last message that it saw, and the identity of the history that the id belongs to.
After a backup was restored, message 31 may be another message, or may not exist. For each former identity the database
stores the last message that both histories share. So a client of a former identity gets all messages that it has not
seen, and none twice.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final

from chatserver.store.message_table import read_last_id

if TYPE_CHECKING:
    import sqlite3

    from chatserver.store.sqlite import Readable

# Bytes of a random identity: 128 bits never repeat.
_ID_BYTES: Final = 16


class HistoryIdentity:
    """The identity that each login sends and compares. Constant while the server runs. For any thread."""

    def __init__(self, database: Readable) -> None:
        """Read the identity. Call ``reconcile`` first, because it may renew the identity. Raises StoreError."""
        with database.reading() as connection:
            (self.history_id,) = connection.execute("SELECT history_id FROM history_identity").fetchone()
            # Former identity to last shared message; one entry for each restored backup.
            self._shared: dict[str, int] = dict(connection.execute("SELECT history_id, last_id FROM former_identity"))

    def shared_upto(self, history_id: str | None) -> int | None:
        """The last message shared with the history ``history_id``; None if that is not a former identity."""
        return self._shared.get(history_id) if history_id is not None else None


def read_history_id(connection: sqlite3.Connection) -> str:
    """The identity of this database; created if it is missing, so the connection must be the writer."""
    row = connection.execute("SELECT history_id FROM history_identity").fetchone()
    return str(row[0]) if row is not None else renew_history_id(connection)


def renew_history_id(connection: sqlite3.Connection) -> str:
    """Give this database a new identity, because from now on ids may mean other messages. Returns it.

    The caller has a transaction open, and writes no message of the new history before the call.
    """
    connection.execute(
        "INSERT OR REPLACE INTO former_identity SELECT history_id, ? FROM history_identity", (read_last_id(connection),)
    )
    history_id = secrets.token_hex(_ID_BYTES)
    connection.execute(
        "INSERT INTO history_identity (one, history_id) VALUES (1, ?)"
        " ON CONFLICT (one) DO UPDATE SET history_id = excluded.history_id",
        (history_id,),
    )
    return history_id


def adopt_history_id(connection: sqlite3.Connection, history_id: str) -> None:
    """Give an empty database the identity of the log that it is going to follow."""
    connection.execute("UPDATE history_identity SET history_id = ?", (history_id,))


def read_highest_id(connection: sqlite3.Connection) -> int:
    """The highest id that a message ever had, in this database or in a newer one that it replaced."""
    (lost_id,) = connection.execute("SELECT coalesce(max(highest_id), 0) FROM history_identity").fetchone()
    return max(int(lost_id), read_last_id(connection))


def raise_highest_id(connection: sqlite3.Connection, highest_id: int) -> None:
    """Record that messages up to this id were lost, so that the next message gets a higher one."""
    connection.execute("UPDATE history_identity SET highest_id = ?", (highest_id,))
