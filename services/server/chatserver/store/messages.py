"""Messages: inserts for the journal, queries for history, missed messages and the search index."""

from __future__ import annotations

import sqlite3
import zlib
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from chatprotocol.events import DirectMessage, PublicMessage, TimeMs
from chatserver.memory import no_limit

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from chatprotocol.events import Message
    from chatserver.store.database import Database

# Each part of the UNION ALL finds its newest (or oldest) rows by index; only these are merged and joined with names.
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
                   WHERE id > :after AND id <= :upto ORDER BY id LIMIT :limit)
    UNION ALL
    SELECT * FROM (SELECT id, time_ms, sender_id, recipient_id, text FROM direct_message
                   WHERE sender_id = :reader AND id > :after AND id <= :upto ORDER BY id LIMIT :limit)
    UNION ALL
    SELECT * FROM (SELECT id, time_ms, sender_id, recipient_id, text FROM direct_message
                   WHERE recipient_id = :reader AND sender_id <> :reader AND id > :after AND id <= :upto
                   ORDER BY id LIMIT :limit)
) AS message
JOIN account AS sender ON sender.id = sender_id
LEFT JOIN account AS recipient ON recipient.id = recipient_id
ORDER BY message.id LIMIT :limit
"""

_UNDELIVERED = """
SELECT direct_message.id, time_ms, sender.name, recipient.name, text
FROM direct_message
JOIN account AS sender ON sender.id = sender_id
JOIN account AS recipient ON recipient.id = recipient_id
WHERE recipient_id = :reader AND direct_message.id > :after AND direct_message.id <= :upto
ORDER BY direct_message.id LIMIT :limit
"""


_AFTER = """
SELECT * FROM (SELECT id, sender_id, NULL AS recipient_id, text FROM public_message
               WHERE id > :after ORDER BY id LIMIT :limit)
UNION ALL
SELECT * FROM (SELECT id, sender_id, recipient_id, text FROM direct_message
               WHERE id > :after ORDER BY id LIMIT :limit)
ORDER BY id LIMIT :limit
"""

_FINGERPRINT = """
SELECT time_ms, sender_id, NULL, text FROM public_message WHERE id = :id
UNION ALL
SELECT time_ms, sender_id, recipient_id, text FROM direct_message WHERE id = :id
"""

# This query decides which messages an account may see; the search index is not trusted for that.
_VISIBLE = """
SELECT message.id, time_ms, sender.name, recipient.name, text FROM (
    SELECT id, time_ms, sender_id, NULL AS recipient_id, text FROM public_message
    WHERE id IN (SELECT value FROM json_each(:ids))
    UNION ALL
    SELECT id, time_ms, sender_id, recipient_id, text FROM direct_message
    WHERE id IN (SELECT value FROM json_each(:ids)) AND :reader IN (sender_id, recipient_id)
) AS message
JOIN account AS sender ON sender.id = sender_id
LEFT JOIN account AS recipient ON recipient.id = recipient_id
ORDER BY message.id
"""


# Memory of an encoded message: a fixed part, and a part per character. An escaped character has six bytes, and the
# encoder's buffer grows by half when it is full.
_ENCODED_BYTES = 256
_ENCODED_BYTES_PER_CHARACTER = 9


class IndexedMessage(NamedTuple):
    """A message for the search index. ``recipient_id`` is None for a public message."""

    id: int
    sender_id: int
    recipient_id: int | None
    text: str


class Messages:
    """Queries, for any thread. A query with ``reader_id`` returns only messages that this account may see.

    Every method raises StoreError or DamagedError if the database can't be read.
    """

    def __init__(self, database: Database, claim: Callable[[int], None] = no_limit) -> None:
        """``claim`` gets the bytes that a result takes, before it is encoded; its errors leave the query."""
        self._database = database
        self._claim = claim

    def last_id(self) -> int:
        """The id of the newest message; 0 if there are no messages."""
        with self._database.reading() as connection:
            return read_last_id(connection)

    def history(self, reader_id: int, before_id: int, limit: int) -> tuple[Message, ...]:
        """The newest messages with an id below ``before_id``, oldest first."""
        rows = self._query(_HISTORY, reader=reader_id, before=before_id, limit=limit)
        return rows[::-1]

    def missed(self, reader_id: int, after_id: int, upto_id: int, limit: int) -> tuple[Message, ...]:
        """Messages after ``after_id`` up to ``upto_id``, the account's own included, oldest first."""
        return self._query(_MISSED, reader=reader_id, after=after_id, upto=upto_id, limit=limit)

    def undelivered(self, reader_id: int, after_id: int, upto_id: int, limit: int) -> tuple[Message, ...]:
        """Direct messages to this account after ``after_id`` up to ``upto_id``, oldest first."""
        return self._query(_UNDELIVERED, reader=reader_id, after=after_id, upto=upto_id, limit=limit)

    def visible(self, reader_id: int, ids: Sequence[int]) -> tuple[Message, ...]:
        """The messages of these ids, without those that the account may not see, oldest first."""
        return self._query(_VISIBLE, reader=reader_id, ids=str(list(ids)))

    def after(self, after_id: int, limit: int) -> list[IndexedMessage]:
        """All messages after ``after_id``, oldest first, without access control. For the search index only."""
        with self._database.reading() as connection:
            rows = connection.execute(_AFTER, {"after": after_id, "limit": limit}).fetchall()
        return [IndexedMessage(*row) for row in rows]

    def fingerprint(self, message_id: int) -> str | None:
        """A fingerprint of the message, to detect another database with the same ids; None if it does not exist."""
        with self._database.reading() as connection:
            row = connection.execute(_FINGERPRINT, {"id": message_id}).fetchone()
        if row is None:
            return None
        time_ms, sender_id, recipient_id, text = row
        return f"{time_ms} {sender_id} {recipient_id or 0} {zlib.crc32(text.encode())}"

    def _query(self, sql: str, **values: int | str) -> tuple[Message, ...]:
        with self._database.reading() as connection:
            self._claim(0)
            rows = connection.execute(sql, values).fetchall()
        # Claim before the encoding, which takes most of the memory of a large answer.
        self._claim(_ENCODED_BYTES * len(rows) + _ENCODED_BYTES_PER_CHARACTER * sum(len(row[-1]) for row in rows))
        return tuple(_message(*row) for row in rows)


def _message(message_id: int, time_ms: int, sender: str, recipient: str | None, text: str) -> Message:
    if recipient is None:
        return PublicMessage(message_id, TimeMs(time_ms), sender, text)
    return DirectMessage(message_id, TimeMs(time_ms), sender, recipient, text)


def find_public_nonce(connection: sqlite3.Connection, sender_id: int, nonce: str) -> int:
    """The id of the public message that this sender sent with this nonce. Raises LookupError if there is none."""
    return _find_nonce(connection, "SELECT id FROM public_message WHERE sender_id = ? AND nonce = ?", sender_id, nonce)


def find_direct_nonce(connection: sqlite3.Connection, sender_id: int, nonce: str) -> int:
    """The id of the direct message that this sender sent with this nonce. Raises LookupError if there is none."""
    return _find_nonce(connection, "SELECT id FROM direct_message WHERE sender_id = ? AND nonce = ?", sender_id, nonce)


def _find_nonce(connection: sqlite3.Connection, query: str, sender_id: int, nonce: str) -> int:
    row = connection.execute(query, (sender_id, nonce)).fetchone()
    if row is None:
        raise LookupError(nonce)
    return int(row[0])


_INSERT_PUBLIC = "INSERT INTO public_message VALUES (?, ?, ?, ?, ?)"
# Inserts a batch in one statement. Binding values dominates the cost of a row, so this is cheaper from two texts on;
# with 16 texts it takes a quarter of the time.
_INSERT_PUBLIC_BATCH = "INSERT INTO public_message SELECT ?1 + key, ?2, ?3, value, NULL FROM json_each(?4)"
_ENCODER: Final = msgspec.json.Encoder()


def insert_public(
    connection: sqlite3.Connection,
    first_id: int,
    time_ms: int,
    sender_id: int,
    texts: Sequence[str],
    nonces: Sequence[str | None],
) -> bool:
    """Append public messages of one sender, with ids from ``first_id`` upwards.

    Appends nothing and returns False if the sender used one of the nonces before.
    """
    if len(texts) > 1 and not any(nonces):
        array = _ENCODER.encode(texts).decode()
        if "\\u0000" not in array:  # SQLite's JSON functions cut a text at a NUL
            connection.execute(_INSERT_PUBLIC_BATCH, (first_id, time_ms, sender_id, array))
            return True
    pairs = enumerate(zip(texts, nonces, strict=True), first_id)
    rows = ((message_id, time_ms, sender_id, text, nonce) for message_id, (text, nonce) in pairs)
    try:
        connection.executemany(_INSERT_PUBLIC, rows)
    except sqlite3.IntegrityError as error:
        if not _is_nonce_conflict(error):
            raise
        connection.execute("DELETE FROM public_message WHERE id >= ?", (first_id,))
        return False
    return True


def insert_direct(
    connection: sqlite3.Connection,
    message_id: int,
    time_ms: int,
    sender_id: int,
    recipient_id: int,
    text: str,
    nonce: str | None,
) -> bool:
    """Append a direct message. Appends nothing and returns False if the sender used the nonce before."""
    row = (message_id, time_ms, sender_id, recipient_id, text, nonce)
    try:
        connection.execute("INSERT INTO direct_message VALUES (?, ?, ?, ?, ?, ?)", row)
    except sqlite3.IntegrityError as error:
        if not _is_nonce_conflict(error):
            raise
        return False
    return True


def _is_nonce_conflict(error: sqlite3.IntegrityError) -> bool:
    """True if a nonce is not unique. A primary key conflict has another code, and is a bug of the server."""
    return error.sqlite_errorcode == sqlite3.SQLITE_CONSTRAINT_UNIQUE


def read_last_id(connection: sqlite3.Connection) -> int:
    """The id of the newest message; 0 if there are no messages."""
    (last_id,) = connection.execute(
        "SELECT max(coalesce((SELECT max(id) FROM public_message), 0),"
        " coalesce((SELECT max(id) FROM direct_message), 0))"
    ).fetchone()
    return int(last_id)
