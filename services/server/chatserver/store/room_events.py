"""Changes of rooms that irc shows in the history: joins, parts, kicks, topics, modes, roles and bans.

Theory of operation
-------------------

An event has no message id: other wire formats would see gaps. Its place is behind the newest message that the server
had when the entry was applied, in any conversation: (``after_id``, ``number``), where the number counts the events of
the room with the same ``after_id``. A message has the place (``id``, 0). So all places of a room are different, and new
messages and events come after all older ones.

* The place and the time follow from the entries alone, so they are the same on all servers.
* A place is not used again: of the events after the newest message, none is deleted but by newer ones.
* A room has the newest EVENTS_MAX; each further one deletes the oldest. The row of the room has their number: to count
  them took 0.2 ms for each. A room that ends has none, because nobody can read them.
* Names are read from the accounts, as those of messages: a guest's is that of the row it had then, and a deleted
  account has its new name.
* The key of a room is not stored, only that there is one.
"""

# ruff: noqa: S608 -- the queries are built of constants

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from chatprotocol.events import EventPlace, RoomEvent, RoomEventKind, RoomModes, RoomRole, TimeMs

if TYPE_CHECKING:
    import sqlite3

# Events of a room: 100 kB, with the longest topics 400 kB. All rooms together have 1,000 times as many.
EVENTS_MAX: Final = 1000
# In place of a topic whose author's messages were erased. The row keeps its place.
ERASED: Final = "erased"
# In place of a key.
_SOME_KEY: Final = "*"
_ENCODER: Final = msgspec.json.Encoder()
_CHANGES: Final = msgspec.json.Decoder(dict[str, bool | int | str])

_INSERT: Final = (
    "INSERT INTO room_event SELECT :room, :after, 1 + coalesce((SELECT max(number) FROM room_event"
    " WHERE conversation_id = :room AND after_id = :after), 0), :time, :kind, :actor, :target, :text RETURNING number"
)
_DELETE_OLDEST: Final = (
    "DELETE FROM room_event WHERE conversation_id = ?1 AND (after_id, number) = (SELECT after_id, number"
    " FROM room_event WHERE conversation_id = ?1 ORDER BY after_id, number LIMIT 1)"
)
_CHANGE_COUNT: Final = "UPDATE conversation SET event_count = event_count + ? WHERE id = ?"
# Rooms that have not ended: only these have events. The rest of the condition uses the primary key.
_IN_ROOMS: Final = (
    "conversation_id IN (SELECT id FROM conversation WHERE name_key NOTNULL) AND after_id BETWEEN :low AND :high"
)
_READ: Final = (
    "SELECT after_id, number, time_ms, room_event.kind, coalesce(actor.name, ''), actor.kind = 'guest',"
    " coalesce(target.name, ''), room.name, text FROM room_event"
    " CROSS JOIN conversation AS room ON room.id = conversation_id"
    " LEFT JOIN account AS actor ON actor.id = actor_id LEFT JOIN account AS target ON target.id = target_id"
    " WHERE conversation_id = :room AND after_id BETWEEN :low - 1 AND :high"
    # A guest sees the messages from :low on, and events from its JOIN on, also before the first message.
    " AND (after_id >= :low OR (after_id, number) >= (SELECT after_id, number FROM room_event"
    " WHERE conversation_id = :room AND kind IN ('join', 'nick') AND iif(kind = 'join', actor_id, target_id) = :reader"
    " ORDER BY after_id DESC, number DESC LIMIT 1))"
    " AND (after_id, number) > (:after_id, :after_number) AND (after_id, number) < (:before_id, :before_number)"
    " AND time_ms > :after_ms AND time_ms < :before_ms AND room_event.kind <> 'erased'"
    # Only members see them, as the messages of the room.
    " AND EXISTS (SELECT 1 FROM membership"
    " WHERE account_id = :reader AND conversation_id = :room AND role <> 'invited')"
    " ORDER BY after_id {order}, number {order} LIMIT :limit"
)


class Place(NamedTuple):
    """The place of an event, or with the number 0 that of a message."""

    id: int
    number: int = 0


class Between(NamedTuple):
    """Bounds of a query, all of which are excluded."""

    after: Place
    before: Place
    after_ms: int
    before_ms: int


def read_events(
    connection: sqlite3.Connection,
    reader_id: int,
    room_id: int,
    ids: range,
    between: Between,
    limit: int,
    *,
    newest_first: bool = False,
) -> list[RoomEvent]:
    """The oldest or newest events of a room that the account is a member of, with an ``after_id`` in ``ids``."""
    values = {
        "reader": reader_id,
        "room": room_id,
        "low": ids.start,
        "high": ids.stop - 1,
        "after_id": between.after.id,
        "after_number": between.after.number,
        "before_id": between.before.id,
        "before_number": between.before.number,
        "after_ms": between.after_ms,
        "before_ms": between.before_ms,
        "limit": limit,
    }
    rows = connection.execute(_READ.format(order="DESC" if newest_first else "ASC"), values)
    return [_event(room_id, *row) for row in rows]


def _event(
    room_id: int,
    after_id: int,
    number: int,
    time_ms: int,
    kind: str,
    actor: str,
    is_guest: int | None,
    target: str,
    room: str,
    text: str,
) -> RoomEvent:
    values: dict[str, Any] = {"text": text}
    match kind:
        case RoomEventKind.ROLE:
            old_role, role = _read_roles(text)
            values = {"old_role": old_role, "role": role}
        case RoomEventKind.MODES:
            old_modes, modes = _read_modes(text)
            values = {"old_modes": old_modes, "modes": modes}
    return RoomEvent(
        after_id=after_id,
        number=number,
        room_id=room_id,
        time_ms=TimeMs(time_ms),
        kind=RoomEventKind(kind),
        room=room,
        actor=actor,
        is_guest=bool(is_guest),
        target=target,
        **values,
    )


def encode_roles(old_role: RoomRole, role: RoomRole) -> str:
    """The text of a change of a role."""
    return f"{old_role} {role}"


def _read_roles(text: str) -> tuple[RoomRole, RoomRole]:
    old_role, role = text.split()
    return RoomRole(old_role), RoomRole(role)


def encode_modes(old: RoomModes, new: RoomModes) -> str:
    """The text of a change of modes: the new values of those that changed, in JSON, without the key."""
    changed = {}
    for name in RoomModes.__struct_fields__:
        value = getattr(new, name)
        if value != getattr(old, name):
            changed[name] = _SOME_KEY if name == "key" and value else value
    return _ENCODER.encode(changed).decode()


def _read_modes(text: str) -> tuple[RoomModes, RoomModes]:
    """Modes before and after the change. They differ as much as it did, and else have the defaults."""
    changed: dict[str, Any] = _CHANGES.decode(text)
    before: dict[str, Any] = {}
    for name, value in changed.items():
        match value:
            case bool():
                before[name] = not value
            case str():
                before[name] = "" if value else _SOME_KEY
            case _:
                before[name] = 0 if value else 1
    return msgspec.convert(before, RoomModes), msgspec.convert(changed, RoomModes)


def has_foreign_text(connection: sqlite3.Connection) -> bool:
    """True if an event has roles or modes in its text that no server stores. It reads all rows."""
    rows = connection.execute("SELECT DISTINCT kind, text FROM room_event WHERE kind IN ('modes', 'role')")
    return any(_is_foreign(kind, text) for kind, text in rows)


def _is_foreign(kind: str, text: str) -> bool:
    try:
        if kind == RoomEventKind.ROLE:
            return encode_roles(*_read_roles(text)) != text
        return encode_modes(*_read_modes(text)) != text
    except ValueError:  # also the errors of msgspec
        return True


def insert_event(
    connection: sqlite3.Connection,
    room_id: int,
    after_id: int,
    time_ms: int,
    kind: RoomEventKind,
    actor_id: int | None,
    target_id: int | None = None,
    text: str = "",
) -> EventPlace:
    """Append an event, and delete the oldest one if there are too many."""
    values = {"room": room_id, "after": after_id, "time": time_ms, "kind": kind}
    values |= {"actor": actor_id, "target": target_id, "text": text}
    (number,) = connection.execute(_INSERT, values).fetchone()
    (count,) = connection.execute("SELECT event_count FROM conversation WHERE id = ?", (room_id,)).fetchone()
    if count < EVENTS_MAX:
        connection.execute(_CHANGE_COUNT, (1, room_id))
    else:
        connection.execute(_DELETE_OLDEST, (room_id,))
    return EventPlace(after_id, number, room_id, TimeMs(time_ms))


def delete_events(connection: sqlite3.Connection, ids: range, before_ms: int) -> None:
    """Delete the events that are older, of those with an ``after_id`` in ``ids``."""
    values = {"low": ids.start, "high": ids.stop - 1, "before_ms": before_ms}
    query = f"DELETE FROM room_event WHERE {_IN_ROOMS} AND time_ms < :before_ms RETURNING conversation_id"
    counts = Counter(room_id for (room_id,) in connection.execute(query, values))
    connection.executemany(_CHANGE_COUNT, [(-count, room_id) for room_id, count in counts.items()])


def erase_events(connection: sqlite3.Connection, ids: range, actor_id: int) -> None:
    """Remove the texts that an account wrote: reasons and topics."""
    values = {"low": ids.start, "high": ids.stop - 1, "actor": actor_id, "erased": ERASED}
    connection.execute(
        f"UPDATE room_event SET kind = iif(kind = 'topic', :erased, kind), text = '' WHERE {_IN_ROOMS}"
        " AND actor_id = :actor AND kind IN ('part', 'kick', 'topic')",
        values,
    )


def end_events(connection: sqlite3.Connection, room_id: int) -> None:
    """Delete all events of a room that has ended."""
    connection.execute("DELETE FROM room_event WHERE conversation_id = ?", (room_id,))
    connection.execute("UPDATE conversation SET event_count = 0 WHERE id = ?", (room_id,))
