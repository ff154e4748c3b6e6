"""Rooms and their members.

A room begins with its first join and ends when its last member leaves. The row of a room that has ended stays, because
the keys of its messages have its id; its name is free for a new room, with another id.

The counts of a room follow its rows of the table membership. The functions that write these rows keep both the same:
:func:`set_role`, :func:`insert_invitation`, :func:`move_memberships` and :func:`end_room`.
"""

# ruff: noqa: S608 -- the queries are built of constants

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from chatprotocol.events import RoomModes, RoomRole, RoomSummary
from chatprotocol.rules import room_key
from chatserver.memory import no_limit
from chatserver.store.room_events import end_events

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable

    from chatserver.store.sqlite import Readable

# Conversations that every database has. All users are in the lobby; all direct messages are one conversation.
LOBBY_ID: Final = 0
DIRECT_ID: Final = 1
# The greatest id of a room: the key of a message has 23 bits for it.
ROOM_ID_MAX: Final = 2**23 - 1
_INVITED: Final = "invited"
# Memory of one room in the list of all rooms, with the longest topic, before and after it is encoded.
_SUMMARY_BYTES: Final = 2048


class RoomView(NamedTuple):
    """A room, as one account sees it."""

    room_id: int
    name: str
    topic: str
    is_private: bool
    # None if the account is not a member.
    role: RoomRole | None
    # True if the account is not a member, but was invited.
    is_invited: bool
    # The newest message in the room; 0 if there is none.
    last_id: int
    # With ``is_private``, and with the key, which only members may see.
    modes: RoomModes = RoomModes()
    created_ms: int = 0
    # The user who set the topic, and the time; empty and 0 if nobody did, or before this was stored.
    topic_by: str = ""
    topic_ms: int = 0


class RoomCounts(NamedTuple):
    """Members and invitations of a room."""

    members: int
    invited: int


_LAST_ID: Final = (
    "coalesce((SELECT message.id FROM message WHERE key BETWEEN 0 - (room.id << 40)"
    " AND (1 << 40) - 1 - (room.id << 40) ORDER BY key DESC LIMIT 1), 0)"
)
_VIEW: Final = (
    f"SELECT room.id, room.name, topic, is_private, role, {_LAST_ID}, is_moderated, is_topic_open, join_key,"
    " members_max, room.created_ms, topic_by, topic_ms FROM"
)
_OF_READER: Final = "membership ON account_id = :reader AND conversation_id = room.id"
# Rooms other than the lobby that have not ended.
_VISIBLE: Final = f"conversation AS room LEFT JOIN {_OF_READER} WHERE room.id > 1 AND (is_private = 0 OR role NOTNULL)"
# The room of a name. For a missing room it reads the lobby and a membership of it, and then refuses them. That is the
# same work as for a hidden room, so both answers take the same time.
_FIND: Final = (
    f"{_VIEW} (SELECT coalesce((SELECT id FROM conversation WHERE name_key = :key), 0) AS id) AS found"
    f" CROSS JOIN conversation AS room ON room.id = found.id LEFT JOIN {_OF_READER}"
    " WHERE iif(role ISNULL, is_private = 0 AND room.id > 1, 1)"
)
_FIND_ID: Final = f"{_VIEW} {_VISIBLE} AND name_key NOTNULL AND room.id = :id"
_ALL: Final = (
    f"SELECT room.name, topic, member_count, is_private, role, join_key <> '' FROM {_VISIBLE} AND name_key NOTNULL"
    " ORDER BY name_key"
)
_OF_ACCOUNT: Final = (
    f"{_VIEW} membership CROSS JOIN conversation AS room ON room.id = conversation_id"
    " WHERE account_id = :reader AND role <> 'invited'"
)
# In the index membership_conversation: members without a role are not read.
_ROLES: Final = (
    "SELECT conversation_id, name, membership.role FROM json_each(:ids) CROSS JOIN membership"
    " ON conversation_id = value AND membership.role IN ('owner', 'operator', 'voice')"
    " CROSS JOIN account ON account.id = account_id ORDER BY conversation_id, number"
)


class Rooms:
    """Reads rooms, for any thread. The functions below write; only the journal calls them.

    The lobby is not among the rooms. Every method raises StoreError if the database can't be read.
    """

    def __init__(self, database: Readable, claim: Callable[[int], None] = no_limit) -> None:
        """``claim`` gets the size of a list of all rooms in bytes, before the list is made. It may raise."""
        self._database = database
        self._claim = claim

    def find(self, account_id: int, name: str) -> RoomView | None:
        """The room of this name, ignoring case; None if there is none, or the account may not know of it."""
        with self._database.reading() as connection:
            return find_room(connection, account_id, name)

    def find_any(self, name: str) -> RoomView | None:
        """The room of this name for an operator of the server, who has the rights of its owner."""
        with self._database.reading() as connection:
            query = "SELECT id FROM conversation WHERE name_key = ? AND id > 1"
            row = connection.execute(query, (room_key(name),)).fetchone()
            return find_any_room(connection, row[0]) if row else None

    def of_account(self, account_id: int) -> list[RoomView]:
        """The rooms that the account is a member of, sorted by name."""
        with self._database.reading() as connection:
            rows = connection.execute(_OF_ACCOUNT, {"reader": account_id}).fetchall()
        # Not sorted by SQLite: each login runs this query, and malloc would keep the memory of the sort for its thread.
        return sorted((_view(*row) for row in rows), key=lambda room: room_key(room.name))

    def roles(self, room_ids: Iterable[int]) -> dict[int, dict[str, RoomRole]]:
        """The roles above MEMBER in these rooms, by name. A room that has none is left out."""
        with self._database.reading() as connection:
            return read_roles(connection, room_ids)

    def shared(self, reader_id: int, account_id: int) -> tuple[tuple[str, RoomRole], ...]:
        """The rooms of an account that the reader may know of, with the account's roles, sorted by name."""
        query = (
            "SELECT room.name, other.role, room.name_key FROM membership AS other"
            " CROSS JOIN conversation AS room ON room.id = other.conversation_id"
            " LEFT JOIN membership AS own ON own.account_id = :reader AND own.conversation_id = room.id"
            " WHERE other.account_id = :account AND other.role <> 'invited'"
            " AND (room.is_private = 0 OR own.role NOTNULL) ORDER BY room.name_key"
        )
        with self._database.reading() as connection:
            rows = connection.execute(query, {"reader": reader_id, "account": account_id}).fetchall()
        return tuple((name, RoomRole(role)) for name, role, _ in rows)

    def visible_to(self, account_id: int) -> tuple[RoomSummary, ...]:
        """All rooms that the account may know of, sorted by name."""
        with self._database.reading() as connection:
            rows = connection.execute(_ALL, {"reader": account_id}).fetchall()
        self._claim(_SUMMARY_BYTES * len(rows))
        return tuple(_summary(*row) for row in rows)


def _view(
    room_id: int,
    name: str,
    topic: str,
    is_private: int,
    role: str | None,
    last_id: int,
    is_moderated: int,
    is_topic_open: int,
    key: str,
    members_max: int,
    created_ms: int,
    topic_by: str,
    topic_ms: int,
) -> RoomView:
    modes = RoomModes(
        private=is_private > 0,
        moderated=is_moderated > 0,
        open_topic=is_topic_open > 0,
        key=key,
        members_max=members_max,
    )
    where = (room_id, name, topic, modes.private)
    return RoomView(*where, _role(role), role == _INVITED, last_id, modes, created_ms, topic_by, topic_ms)


def _summary(name: str, topic: str, members: int, is_private: int, role: str | None, has_key: int) -> RoomSummary:
    own = _role(role)
    traits = (bool(is_private), own or RoomRole.MEMBER, role == _INVITED, bool(has_key))
    return RoomSummary(name, topic, members, own is not None, *traits)


def _role(role: str | None) -> RoomRole | None:
    return None if role is None or role == _INVITED else RoomRole(role)


def find_room(connection: sqlite3.Connection, account_id: int, name: str) -> RoomView | None:
    """See :meth:`Rooms.find`."""
    row = connection.execute(_FIND, {"reader": account_id, "key": room_key(name)}).fetchone()
    return _view(*row) if row else None


def find_room_by_id(connection: sqlite3.Connection, account_id: int, room_id: int) -> RoomView | None:
    """The same by its id. None also if the room has ended."""
    row = connection.execute(_FIND_ID, {"reader": account_id, "id": room_id}).fetchone()
    return _view(*row) if row else None


def find_any_room(connection: sqlite3.Connection, room_id: int) -> RoomView | None:
    """See :meth:`Rooms.find_any`. None also if the room has ended."""
    query = f"{_VIEW} (SELECT 'owner' AS role), conversation AS room WHERE name_key NOTNULL AND room.id = ? AND id > 1"
    row = connection.execute(query, (room_id,)).fetchone()
    return _view(*row) if row else None


def is_member(connection: sqlite3.Connection, account_id: int, room_id: int) -> bool:
    """True if the account is a member of the room; an invited user is not one."""
    query = "SELECT 1 FROM membership WHERE account_id = ? AND conversation_id = ? AND role <> 'invited'"
    return connection.execute(query, (account_id, room_id)).fetchone() is not None


def read_writer(connection: sqlite3.Connection, account_id: int, room_id: int) -> tuple[bool, bool]:
    """True if the account is a member; and True if it can't write, because the room is moderated."""
    query = (
        "SELECT role = 'member' AND (SELECT is_moderated FROM conversation WHERE id = conversation_id) FROM membership"
        " WHERE account_id = ? AND conversation_id = ? AND role <> 'invited'"
    )
    row = connection.execute(query, (account_id, room_id)).fetchone()
    return row is not None, row is not None and row[0] > 0


def read_roles(connection: sqlite3.Connection, room_ids: Iterable[int]) -> dict[int, dict[str, RoomRole]]:
    """See :meth:`Rooms.roles`."""
    roles: dict[int, dict[str, RoomRole]] = {}
    for room_id, name, role in connection.execute(_ROLES, {"ids": str([*room_ids])}):
        roles.setdefault(room_id, {})[name] = RoomRole(role)
    return roles


def read_standing(connection: sqlite3.Connection, account_id: int, room_id: int) -> tuple[RoomRole | None, bool]:
    """The role of the account in the room, None if it is not a member; and True if it is invited."""
    query = "SELECT role FROM membership WHERE account_id = ? AND conversation_id = ?"
    (role,) = connection.execute(query, (account_id, room_id)).fetchone() or (None,)
    return _role(role), role == _INVITED


def count_rooms_of(connection: sqlite3.Connection, account_id: int) -> int:
    """Number of rooms that the account is a member of."""
    query = "SELECT count(*) FROM membership WHERE account_id = ? AND role <> 'invited'"
    return int(connection.execute(query, (account_id,)).fetchone()[0])


def list_rooms_of(connection: sqlite3.Connection, account_id: int) -> list[int]:
    """The ids of the rooms that the account is a member of, or invited to."""
    query = "SELECT conversation_id FROM membership WHERE account_id = ? ORDER BY conversation_id"
    return [room_id for (room_id,) in connection.execute(query, (account_id,))]


def read_roles_of(connection: sqlite3.Connection, account_id: int) -> dict[int, RoomRole]:
    """The roles of an account that are more than that of a member, by room."""
    query = (
        "SELECT conversation_id, role FROM membership WHERE account_id = ? AND role NOT IN ('member', 'invited')"
        " ORDER BY conversation_id"
    )
    return {room_id: RoomRole(role) for room_id, role in connection.execute(query, (account_id,))}


def count_rooms(connection: sqlite3.Connection) -> int:
    """Number of rooms, without the lobby."""
    return int(connection.execute("SELECT count(*) - 1 FROM conversation WHERE name_key NOTNULL").fetchone()[0])


def read_last_room_id(connection: sqlite3.Connection) -> int:
    """The greatest id of a room, also of one that has ended."""
    return int(connection.execute("SELECT max(id) FROM conversation").fetchone()[0])


def read_counts(connection: sqlite3.Connection, room_id: int) -> RoomCounts:
    query = "SELECT member_count, invited_count FROM conversation WHERE id = ?"
    return RoomCounts(*connection.execute(query, (room_id,)).fetchone())


def insert_room(connection: sqlite3.Connection, name: str, now_ms: int, *, is_private: bool) -> int | None:
    """Make a room without members; return its id. None if the name is taken."""
    row = connection.execute(
        "INSERT INTO conversation (id, kind, name, name_key, is_private, created_ms)"
        " VALUES ((SELECT max(id) + 1 FROM conversation), 'room', ?, ?, ?, ?)"
        " ON CONFLICT (name_key) DO NOTHING RETURNING id",
        (name, room_key(name), is_private, now_ms),
    ).fetchone()
    return int(row[0]) if row else None


def set_role(connection: sqlite3.Connection, room_id: int, account_id: int, role: RoomRole | None) -> None:
    """Give the account a role in the room, or end its membership or invitation.

    A new member is the last one to join.
    """
    old, was_invited = read_standing(connection, account_id, room_id)
    key = (account_id, room_id)
    if role is None:
        connection.execute("DELETE FROM membership WHERE account_id = ? AND conversation_id = ?", key)
    elif old is not None:
        connection.execute(
            "UPDATE membership SET role = ?3 WHERE account_id = ?1 AND conversation_id = ?2", (*key, role)
        )
    else:
        connection.execute(
            "INSERT OR REPLACE INTO membership SELECT ?1, ?2, ?3, joined_count + 1 FROM conversation WHERE id = ?2",
            (*key, role),
        )
        connection.execute("UPDATE conversation SET joined_count = joined_count + 1 WHERE id = ?", (room_id,))
    connection.execute(
        "UPDATE conversation SET member_count = member_count + ?, invited_count = invited_count - ? WHERE id = ?",
        ((role is not None) - (old is not None), was_invited, room_id),
    )


def move_memberships(connection: sqlite3.Connection, old_id: int, account_id: int) -> None:
    """Give the memberships and invitations of one account to another one, which has none."""
    connection.execute("UPDATE membership SET account_id = ? WHERE account_id = ?", (account_id, old_id))


def insert_invitation(connection: sqlite3.Connection, room_id: int, account_id: int) -> None:
    """Let the account join. It is neither a member nor invited."""
    connection.execute("INSERT INTO membership VALUES (?, ?, 'invited', 0)", (account_id, room_id))
    connection.execute("UPDATE conversation SET invited_count = invited_count + 1 WHERE id = ?", (room_id,))


def update_topic(connection: sqlite3.Connection, room_id: int, topic: str, by: str, now_ms: int) -> None:
    connection.execute(
        "UPDATE conversation SET topic = ?, topic_by = ?, topic_ms = ? WHERE id = ?", (topic, by, now_ms, room_id)
    )


def rename_topics(connection: sqlite3.Connection, old_name: str, name: str) -> None:
    """Give present topics the new name of the account that has set them: another one may get the old name."""
    connection.execute("UPDATE conversation SET topic_by = ? WHERE topic_by = ?", (name, old_name))


def erase_topics(connection: sqlite3.Connection, account_id: int) -> None:
    """Remove present topics that the account has set. Who set them, and when, stays."""
    query = "UPDATE conversation SET topic = '' WHERE topic_by = (SELECT name FROM account WHERE id = ?)"
    connection.execute(query, (account_id,))


def update_modes(connection: sqlite3.Connection, room_id: int, modes: RoomModes) -> None:
    connection.execute(
        "UPDATE conversation SET is_private = ?, is_moderated = ?, is_topic_open = ?, join_key = ?, members_max = ?"
        " WHERE id = ?",
        (modes.private, modes.moderated, modes.open_topic, modes.key, modes.members_max, room_id),
    )


def find_heir(connection: sqlite3.Connection, room_id: int) -> tuple[int, str] | None:
    """Id and name of the operator, or else the member, who joined first. None if the room is empty."""
    query = (
        "SELECT number, account.id, account.name FROM membership JOIN account ON account.id = account_id"
        " WHERE conversation_id = ? AND membership.role = ? ORDER BY number LIMIT 1"
    )
    for roles in ((RoomRole.OPERATOR,), (RoomRole.VOICE, RoomRole.MEMBER)):
        first = [connection.execute(query, (room_id, role)).fetchone() for role in roles]
        if any(first):
            _, account_id, name = min(filter(None, first))
            return int(account_id), str(name)
    return None


def end_room(connection: sqlite3.Connection, room_id: int) -> None:
    """Free the name of a room without members, and end its invitations, bans, mutes, read marks and events."""
    connection.execute("DELETE FROM membership WHERE conversation_id = ?", (room_id,))
    connection.execute("DELETE FROM sanction WHERE conversation_id = ?", (room_id,))
    connection.execute("DELETE FROM read_mark WHERE conversation_id = ? AND conversation_id > 1", (room_id,))
    end_events(connection, room_id)
    connection.execute(
        f"UPDATE conversation AS room SET name_key = NULL, invited_count = 0, ended_id = {_LAST_ID} WHERE id = ?",
        (room_id,),
    )
