"""Lists for administrators: accounts, rooms, and messages in bulk.

Each row is a dict of texts, numbers and booleans, in the order of its columns. Queries read all accounts and rooms,
without the access control that users have.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from chatprotocol.rules import name_key
from chatserver.store.message_table import read_bulk, read_last_id
from chatserver.store.rooms import LOBBY_ID
from chatserver.store.tokens import LIFETIME_MS

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

    from chatserver.store.database import ReadOnlyDatabase

Row = dict[str, Any]

_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001 -- the Z is added to the text
# Messages per query of an export. Each query is a short read, so that the write-ahead log can be emptied between them.
_EXPORT_MESSAGES: Final = 1_000

_USERS: Final = """
SELECT name, role, created_ms, must_change_password, (
    SELECT coalesce(until_ms, 0) FROM sanction
    WHERE kind = 'ban' AND account_id = account.id AND conversation_id ISNULL AND (until_ms ISNULL OR until_ms > :now)
)
FROM account WHERE kind = 'person' AND name_key NOTNULL ORDER BY name_key
"""
_ROOMS: Final = """
SELECT room.name, member_count, invited_count, is_private, account.name, room.created_ms, topic
FROM conversation AS room
LEFT JOIN membership ON conversation_id = room.id AND membership.role = 'owner'
LEFT JOIN account ON account.id = account_id
WHERE room.id > 1 AND room.name_key NOTNULL
ORDER BY room.name_key
"""

_BANS: Final = """
SELECT kind, coalesce((SELECT name FROM account WHERE account.id = account_id), network),
    (SELECT name FROM conversation WHERE conversation.id = conversation_id),
    by_name, created_ms, until_ms, reason
FROM sanction WHERE until_ms ISNULL OR until_ms > :now ORDER BY id
"""
_TOKENS: Final = """
SELECT name, token.id, label, token.created_ms, used_ms FROM token JOIN account ON account.id = account_id
WHERE used_ms > :over AND (:key ISNULL OR name_key = :key) ORDER BY name_key, used_ms DESC, token.id
"""
_AUDIT: Final = """
SELECT * FROM (
    SELECT id, time_ms, action, by_name, target, room, reason, detail FROM audit ORDER BY id DESC LIMIT :limit
) ORDER BY id
"""


def read_users(connection: sqlite3.Connection, now_ms: int) -> Iterator[Row]:
    """Registered users, sorted by name. ``banned_until`` is None if ``banned`` is False, and for ever."""
    for name, role, created_ms, must_change, until_ms in connection.execute(_USERS, {"now": now_ms}):
        yield {
            "user": name,
            "role": role,
            "created": to_iso(created_ms),
            "must_change_password": bool(must_change),
            "banned": until_ms is not None,
            "banned_until": to_iso(until_ms) if until_ms else None,
        }


def read_rooms(connection: sqlite3.Connection, _: int) -> Iterator[Row]:
    """Rooms that have not ended, without the lobby, sorted by name."""
    for name, members, invited, is_private, owner, created_ms, topic in connection.execute(_ROOMS):
        yield {
            "room": name,
            "members": members,
            "invited": invited,
            "private": bool(is_private),
            "owner": owner,
            "created": to_iso(created_ms),
            "topic": topic,
        }


def read_bans(connection: sqlite3.Connection, now_ms: int) -> Iterator[Row]:
    """Bans and mutes that are not over, oldest first. ``room`` is None on the server; ``until`` is None for ever."""
    for kind, target, room, by, created_ms, until_ms, reason in connection.execute(_BANS, {"now": now_ms}):
        yield {
            "kind": kind,
            "target": target,
            "room": room,
            "by": by,
            "since": to_iso(created_ms),
            "until": None if until_ms is None else to_iso(until_ms),
            "reason": reason,
        }


def read_tokens(connection: sqlite3.Connection, now_ms: int, name: str | None) -> Iterator[Row]:
    """The tokens of a user, or of all users by name, that are not over; the one that was used last first."""
    values = {"key": None if name is None else name_key(name), "over": now_ms - LIFETIME_MS}
    for user, token_id, label, created_ms, used_ms in connection.execute(_TOKENS, values):
        yield {
            "user": user,
            "id": token_id,
            "label": label,
            "created": to_iso(created_ms),
            "used": to_iso(used_ms),
            "expires": to_iso(used_ms + LIFETIME_MS),
        }


def read_audit(connection: sqlite3.Connection, limit: int) -> Iterator[Row]:
    """The newest acts, oldest first. ``target`` and ``room`` are None if the act has none."""
    for number, time_ms, action, by, target, room, reason, detail in connection.execute(_AUDIT, {"limit": limit}):
        yield {
            "number": number,
            "time": to_iso(time_ms),
            "action": action,
            "by": by,
            "target": target or None,
            "room": room or None,
            "reason": reason,
            "detail": detail,
        }


def find_room_id(connection: sqlite3.Connection, key: str) -> int | None:
    """The id of the room with this key, or of the lobby; None if there is none."""
    row = connection.execute("SELECT id FROM conversation WHERE name_key = ?", (key,)).fetchone()
    return int(row[0]) if row else None


def read_messages(database: ReadOnlyDatabase, room_id: int | None = None) -> Iterator[Row]:
    """All messages of a room, or of all rooms and all direct messages, oldest first.

    Messages that are stored after the call are left out. A deleted one has no text. Raises StoreError.
    """
    with database.reading() as connection:
        upto_id = read_last_id(connection)
    after_id = 0
    while True:
        with database.reading() as connection:
            rows = read_bulk(connection, after_id, upto_id, _EXPORT_MESSAGES, room_id)
        if not rows:
            return
        for message_id, time_ms, conversation_id, room, sender, recipient, text in rows:
            where = (
                {"room": room if conversation_id != LOBBY_ID else "lobby"} if recipient is None else {"to": recipient}
            )
            content = {"message": text} if text else {"deleted": True}
            yield {"id": message_id, "time": to_iso(time_ms), **where, "from": sender, **content}
        after_id = rows[-1][0]


def to_iso(time_ms: int) -> str:
    """A time as on the wire of json: RFC 3339, UTC, with milliseconds."""
    return f"{(_EPOCH + timedelta(milliseconds=time_ms)).isoformat(timespec='milliseconds')}Z"
