"""The table of messages, without access control: for entries of the journal, and for administrators.

What a user may see is in messages.py.
"""

# ruff: noqa: S608 -- the queries are built of constants

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from chatserver.store.rooms import DIRECT_ID

if TYPE_CHECKING:
    from collections.abc import Sequence

# The key of a message is id - conversation_id * 2^40: see schema/0004_conversations.sql. A query for a range of ids has
# the first and the last one as :low and :high.
_KEY_BITS: Final = 40
LAST_ID: Final = (1 << _KEY_BITS) - 1
IN_ANY: Final = "key BETWEEN :low - (conversation.id << 40) AND :high - (conversation.id << 40)"
# The conversations that may have messages from :low on. Rooms end, and their number grows; few end after a recent id.
ACTIVE: Final = (
    "(SELECT id FROM conversation WHERE name_key IS NOT NULL"
    " UNION ALL SELECT 1 UNION ALL SELECT id FROM conversation WHERE ended_id >= :low) AS conversation"
)
# The room of a query, unless it is the lobby. SQLite looks it up once.
ROOM_NAME: Final = "(SELECT name FROM conversation WHERE id = :room AND id > 1)"
LOWEST_ID: Final = f"SELECT min((SELECT message.id FROM message WHERE {IN_ANY} ORDER BY key LIMIT 1)) FROM {ACTIVE}"
# With the highest id as :low, so that of the rooms that have ended it reads only the greatest ended_id.
_HIGHEST_ID: Final = (
    "SELECT max(coalesce((SELECT max(ended_id) FROM conversation WHERE ended_id IS NOT NULL), 0), coalesce(max(("
    "SELECT message.id FROM message WHERE key BETWEEN 0 - (conversation.id << 40) AND :high - (conversation.id << 40)"
    f" ORDER BY key DESC LIMIT 1)), 0)) FROM {ACTIVE}"
)
_ONE: Final = "(SELECT :room AS id) AS conversation"
_BULK, _BULK_OF_ROOM = (
    "SELECT message.id, time_ms, conversation.id,"
    " (SELECT name FROM conversation AS named WHERE named.id = conversation.id),"
    " (SELECT name FROM account WHERE account.id = sender_id),"
    " (SELECT name FROM account WHERE account.id = recipient_id), text"
    f" FROM {source} CROSS JOIN message ON {IN_ANY} ORDER BY message.id"
    for source in (ACTIVE, _ONE)
)
_LOWEST_ID_OF_ROOM: Final = LOWEST_ID.replace(ACTIVE, _ONE)


def read_last_id(connection: sqlite3.Connection) -> int:
    """The id of the newest message; 0 if there are no messages."""
    (last_id,) = connection.execute(_HIGHEST_ID, {"low": LAST_ID + 1, "high": LAST_ID}).fetchone()
    return int(last_id)


def read_last_time_ms(connection: sqlite3.Connection) -> int:
    """The time of the newest message; 0 if there are no messages."""
    values = {"low": (last_id := read_last_id(connection)), "high": last_id}
    row = connection.execute(f"SELECT time_ms FROM {ACTIVE} CROSS JOIN message ON {IN_ANY}", values).fetchone()
    return int(row[0]) if row else 0


def read_bulk(
    connection: sqlite3.Connection, after_id: int, upto_id: int, limit: int, room_id: int | None
) -> list[tuple[Any, ...]]:
    """The next messages after ``after_id`` up to ``upto_id``, oldest first: see the columns.

    They are those of a room, or of all conversations. Empty if there are no more. There are at most ``limit``, and
    perhaps fewer: a step reads the messages of a range of ids.
    """
    bulk, lowest_id = (_BULK, LOWEST_ID) if room_id is None else (_BULK_OF_ROOM, _LOWEST_ID_OF_ROOM)
    values = {"low": after_id + 1, "high": upto_id, "room": room_id}
    (low,) = connection.execute(lowest_id, values).fetchone()
    if low is None:
        return []
    return connection.execute(bulk, values | {"low": low, "high": min(low + limit - 1, upto_id)}).fetchall()


class IdRange(NamedTuple):
    """Ids from the first to the last one. There is a message with the first id."""

    first_id: int
    last_id: int


def find_range(connection: sqlite3.Connection, after_id: int, limit: int) -> IdRange | None:
    """The range of ``limit`` ids that begins with the oldest message after ``after_id``; None if there is none."""
    (low,) = connection.execute(LOWEST_ID, {"low": after_id + 1, "high": LAST_ID}).fetchone()
    return None if low is None else IdRange(low, low + limit - 1)


def read_times(connection: sqlite3.Connection, found: IdRange) -> tuple[int, int]:
    """The lowest and the highest time of the messages of the range."""
    query = f"SELECT min(time_ms), max(time_ms) FROM {ACTIVE} CROSS JOIN message ON {IN_ANY}"
    first_ms, last_ms = connection.execute(query, {"low": found.first_id, "high": found.last_id}).fetchone()
    return int(first_ms), int(last_ms)


def delete_range(connection: sqlite3.Connection, found: IdRange, before_ms: int) -> int:
    """Delete the messages of the range that are older, with the notes of deletions. Returns their number."""
    values = {"low": found.first_id, "high": found.last_id, "before": before_ms}
    cursor = connection.execute(
        f"DELETE FROM message WHERE key IN (SELECT message.key FROM {ACTIVE} CROSS JOIN message ON {IN_ANY})"
        " AND time_ms < :before",
        values,
    )
    connection.execute(
        # The newest one stays: its number is not used again.
        "DELETE FROM deletion WHERE id BETWEEN :low AND :high AND number < (SELECT max(number) FROM deletion)"
        " AND NOT EXISTS (SELECT 1 FROM message WHERE key = deletion.id - (deletion.conversation_id << 40))",
        values,
    )
    return cursor.rowcount


def find_sent(connection: sqlite3.Connection, found: IdRange, sender_id: int) -> list[tuple[int, int]]:
    """Conversation and id of each message in the range that the account sent and that is not deleted."""
    values = {"low": found.first_id, "high": found.last_id, "sender": sender_id}
    query = (
        f"SELECT conversation.id, message.id FROM {ACTIVE} CROSS JOIN message ON {IN_ANY}"
        # The plus keeps SQLite from an index that begins with the sender, and has all messages.
        " WHERE +sender_id = :sender AND text <> '' ORDER BY message.id"
    )
    return connection.execute(query, values).fetchall()


def find_nonce(connection: sqlite3.Connection, conversation_id: int, sender_id: int, nonce: str) -> int:
    """The id of the message that this sender sent to this conversation with this nonce. LookupError: there is none."""
    row = connection.execute(
        "SELECT id FROM message WHERE sender_id = ? AND conversation_id = ? AND nonce = ?",
        (sender_id, conversation_id, nonce),
    ).fetchone()
    if row is None:
        raise LookupError(nonce)
    return int(row[0])


class StoredMessage(NamedTuple):
    """A message, or what is left of a deleted one: its text is empty. ``room`` is None in the lobby."""

    conversation_id: int
    sender_id: int
    sender: str
    recipient_id: int | None
    room: str | None
    text: str


def find_stored(connection: sqlite3.Connection, conversation_id: int, message_id: int) -> StoredMessage | None:
    """The message of this id, if it is in the conversation."""
    if not 0 < message_id <= LAST_ID:
        return None
    row = connection.execute(
        "SELECT sender_id, (SELECT name FROM account WHERE account.id = sender_id), recipient_id,"
        f" {ROOM_NAME}, text FROM message WHERE key = :id - (:room << 40)",
        {"id": message_id, "room": conversation_id},
    ).fetchone()
    return None if row is None else StoredMessage(conversation_id, *row)


def _key(conversation_id: int, message_id: int) -> int:
    return message_id - (conversation_id << _KEY_BITS)


_INSERT: Final = "INSERT INTO message VALUES (?, ?, ?, ?, ?, ?, ?)"
# Inserts a batch in one statement. Binding values dominates the cost of a row, so this is cheaper from two texts on;
# with 16 texts it takes a quarter of the time.
_INSERT_BATCH: Final = "INSERT INTO message SELECT ?1 + key, ?2, ?3, NULL, value, NULL, ?5 FROM json_each(?4)"
_ENCODER: Final = msgspec.json.Encoder()


def insert_in_room(
    connection: sqlite3.Connection,
    room_id: int,
    first_id: int,
    time_ms: int,
    sender_id: int,
    texts: Sequence[str],
    nonces: Sequence[str | None],
    *,
    is_notice: bool = False,
) -> bool:
    """Append messages of one sender to a room, with ids from ``first_id`` upwards.

    Appends nothing and returns False if the sender used one of the nonces before in this room.
    """
    first_key = _key(room_id, first_id)
    if len(texts) > 1 and not any(nonces):
        array = _ENCODER.encode(texts).decode()
        if "\\u0000" not in array:  # SQLite's JSON functions cut a text at a NUL
            connection.execute(_INSERT_BATCH, (first_key, time_ms, sender_id, array, is_notice))
            return True
    pairs = enumerate(zip(texts, nonces, strict=True), first_key)
    rows = [(key, time_ms, sender_id, None, text, nonce, is_notice) for key, (text, nonce) in pairs]
    try:
        connection.executemany(_INSERT, rows)
    except sqlite3.IntegrityError as error:
        if not _is_nonce_conflict(error):
            raise
        connection.execute("DELETE FROM message WHERE key >= ? AND key < ?", (first_key, first_key + len(texts)))
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
    *,
    is_notice: bool = False,
) -> bool:
    """Append a direct message. Appends nothing and returns False if the sender used the nonce in another one."""
    row = (_key(DIRECT_ID, message_id), time_ms, sender_id, recipient_id, text, nonce, is_notice)
    try:
        connection.execute(_INSERT, row)
    except sqlite3.IntegrityError as error:
        if not _is_nonce_conflict(error):
            raise
        return False
    return True


def delete_direct(connection: sqlite3.Connection, message_id: int) -> None:
    """Delete the newest direct message, which was inserted in the same transaction."""
    connection.execute("DELETE FROM message WHERE key = ?", (_key(DIRECT_ID, message_id),))


# The delivery mark is read here: it moves in the same order of entries.
_WAITING: Final = (
    "SELECT sender_id, count(*) FROM (SELECT sender_id FROM message"
    " WHERE recipient_id = :recipient AND key BETWEEN (SELECT delivered_id + 1 FROM account WHERE id = :recipient)"
    " - (1 << 40) AND -1 LIMIT :limit) GROUP BY sender_id"
)


def count_waiting(connection: sqlite3.Connection, recipient_id: int, limit: int) -> dict[int, int]:
    """The number of direct messages that wait for the recipient, by sender; the oldest ``limit`` are counted."""
    return dict(connection.execute(_WAITING, {"recipient": recipient_id, "limit": limit}))


def _is_nonce_conflict(error: sqlite3.IntegrityError) -> bool:
    """True if a nonce is not unique. A primary key conflict has another code, and is a bug of the server."""
    return error.sqlite_errorcode == sqlite3.SQLITE_CONSTRAINT_UNIQUE
