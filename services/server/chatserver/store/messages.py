"""Messages: appended by the journal, read as history and as what somebody missed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from chatprotocol.events import DirectMessage, PublicMessage

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from chatprotocol.events import Message
    from chatserver.store.database import Database

# Each part of a UNION ALL finds its newest (or oldest) rows by index; only those are merged and get their names.
_HISTORY = """
SELECT message.id, time_ms, sender.name, recipient.name, text FROM (
    SELECT * FROM (SELECT id, time_ms, sender_id, NULL AS recipient_id, text FROM public_message
                   WHERE id < :before ORDER BY id DESC LIMIT :limit)
    UNION ALL
    SELECT * FROM (SELECT id, time_ms, sender_id, recipient_id, text FROM direct_message
                   WHERE sender_id = :reader AND id < :before ORDER BY id DESC LIMIT :limit)
    UNION ALL
    SELECT * FROM (SELECT id, time_ms, sender_id, recipient_id, text FROM direct_message
                   WHERE recipient_id = :reader AND sender_id <> :reader AND id < :before
                   ORDER BY id DESC LIMIT :limit)
) AS message
JOIN account AS sender ON sender.id = sender_id
LEFT JOIN account AS recipient ON recipient.id = recipient_id
ORDER BY message.id DESC LIMIT :limit
"""

_MISSED = """
SELECT message.id, time_ms, sender.name, recipient.name, text FROM (
    SELECT * FROM (SELECT id, time_ms, sender_id, NULL AS recipient_id, text FROM public_message
                   WHERE id > :after AND id <= :upto AND sender_id <> :reader ORDER BY id LIMIT :limit)
    UNION ALL
    SELECT * FROM (SELECT id, time_ms, sender_id, recipient_id, text FROM direct_message
                   WHERE recipient_id = :reader AND id > :after AND id <= :upto ORDER BY id LIMIT :limit)
) AS message
JOIN account AS sender ON sender.id = sender_id
LEFT JOIN account AS recipient ON recipient.id = recipient_id
ORDER BY message.id LIMIT :limit
"""

_WAITING = """
SELECT direct_message.id, time_ms, sender.name, recipient.name, text
FROM direct_message
JOIN account AS sender ON sender.id = sender_id
JOIN account AS recipient ON recipient.id = recipient_id
WHERE recipient_id = :reader AND direct_message.id > :after AND direct_message.id <= :upto
ORDER BY direct_message.id LIMIT :limit
"""


class Messages:
    """Reads messages, for any thread. ``reader_id`` is the account that asks: it sees what it may see."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def last_id(self) -> int:
        """The newest message's id; 0 when there is none."""
        with self._database.reading() as connection:
            (last_id,) = connection.execute(
                "SELECT max(coalesce((SELECT max(id) FROM public_message), 0),"
                " coalesce((SELECT max(id) FROM direct_message), 0))"
            ).fetchone()
        return int(last_id)

    def history(self, reader_id: int, before_id: int, limit: int) -> tuple[Message, ...]:
        """The newest messages with an id below ``before_id``, oldest first."""
        rows = self._query(_HISTORY, reader=reader_id, before=before_id, limit=limit)
        return rows[::-1]

    def missed(self, reader_id: int, after_id: int, upto_id: int, limit: int) -> tuple[Message, ...]:
        """What others said to everybody or to this account, oldest first; its own words it knows."""
        return self._query(_MISSED, reader=reader_id, after=after_id, upto=upto_id, limit=limit)

    def waiting(self, reader_id: int, after_id: int, upto_id: int, limit: int) -> tuple[Message, ...]:
        """Direct messages to this account, oldest first."""
        return self._query(_WAITING, reader=reader_id, after=after_id, upto=upto_id, limit=limit)

    def _query(self, sql: str, **values: int) -> tuple[Message, ...]:
        with self._database.reading() as connection:
            rows = connection.execute(sql, values).fetchall()
        return tuple(_message(*row) for row in rows)


def _message(message_id: int, time_ms: int, sender: str, recipient: str | None, text: str) -> Message:
    if recipient is None:
        return PublicMessage(message_id, time_ms, sender, text)
    return DirectMessage(message_id, time_ms, sender, recipient, text)


def find_public_nonce(connection: sqlite3.Connection, sender_id: int, nonce: str) -> int | None:
    """The id of the public message that this sender sent with this nonce before."""
    query = "SELECT id FROM public_message WHERE sender_id = ? AND nonce = ?"
    row = connection.execute(query, (sender_id, nonce)).fetchone()
    return row[0] if row else None


def find_direct_nonce(connection: sqlite3.Connection, sender_id: int, nonce: str) -> int | None:
    """The same for direct messages."""
    query = "SELECT id FROM direct_message WHERE sender_id = ? AND nonce = ?"
    row = connection.execute(query, (sender_id, nonce)).fetchone()
    return row[0] if row else None


_INSERT_PUBLIC = "INSERT INTO public_message VALUES (?, ?, ?, ?, ?)"
# A row of its own for each text costs two or three times as much, most of it to bind its values.
_INSERT_PUBLIC_RUN = "INSERT INTO public_message SELECT ?1 + key, ?2, ?3, value, ?5 FROM json_each(?4)"
_ENCODER: Final = msgspec.json.Encoder()


def insert_public(
    connection: sqlite3.Connection, first_id: int, time_ms: int, sender_id: int, texts: Sequence[str], nonce: str | None
) -> None:
    """Append public messages of one sender, with the ids from ``first_id`` on. The nonce is of one text."""
    array = _ENCODER.encode(texts).decode()
    if "\\u0000" not in array:
        connection.execute(_INSERT_PUBLIC_RUN, (first_id, time_ms, sender_id, array, nonce))
    else:  # SQLite's own JSON ends a text there
        rows = [(message_id, time_ms, sender_id, text, nonce) for message_id, text in enumerate(texts, first_id)]
        connection.executemany(_INSERT_PUBLIC, rows)


def insert_direct(
    connection: sqlite3.Connection,
    message_id: int,
    time_ms: int,
    sender_id: int,
    recipient_id: int,
    text: str,
    nonce: str | None,
) -> None:
    """Append a direct message."""
    row = (message_id, time_ms, sender_id, recipient_id, text, nonce)
    connection.execute("INSERT INTO direct_message VALUES (?, ?, ?, ?, ?, ?)", row)
