"""How far users have read: for each room, and for the direct messages with each other user, a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from chatprotocol.limits import READ_MARKS_MAX

if TYPE_CHECKING:
    import sqlite3

    from chatserver.store.sqlite import Readable

_FIND: Final = "SELECT time_ms FROM read_mark WHERE account_id = ? AND conversation_id = ? AND other_id = ?"


class ReadMarks:
    """Reads marks, for any thread. The functions below write; only the journal calls them."""

    def __init__(self, database: Readable) -> None:
        self._database = database

    def find(self, account_id: int, conversation_id: int, other_id: int) -> int | None:
        """The mark of a room (``other_id`` is 0), or with DIRECT_ID of another user; None if there is none.

        Raises StoreError.
        """
        with self._database.reading() as connection:
            return read_mark(connection, account_id, conversation_id, other_id)


def read_mark(connection: sqlite3.Connection, account_id: int, conversation_id: int, other_id: int) -> int | None:
    """See :meth:`ReadMarks.find`."""
    row = connection.execute(_FIND, (account_id, conversation_id, other_id)).fetchone()
    return None if row is None else int(row[0])


def set_mark(
    connection: sqlite3.Connection, account_id: int, conversation_id: int, other_id: int, time_ms: int
) -> None:
    """Set a mark. If the account has too many, those with the lowest times go, and not this one."""
    key = (account_id, conversation_id, other_id)
    connection.execute("INSERT OR REPLACE INTO read_mark VALUES (?, ?, ?, ?)", (*key, time_ms))
    connection.execute(
        "DELETE FROM read_mark WHERE account_id = ?1 AND (conversation_id, other_id) IN ("
        "SELECT conversation_id, other_id FROM read_mark"
        " WHERE account_id = ?1 AND (conversation_id, other_id) <> (?2, ?3)"
        " ORDER BY time_ms DESC, conversation_id, other_id LIMIT -1 OFFSET ?4)",
        (*key, READ_MARKS_MAX - 1),
    )
