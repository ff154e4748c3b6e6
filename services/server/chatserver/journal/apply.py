"""Applying entries to the store.

Theory of operation
-------------------

Applying is deterministic: the entries, their order and their times decide the content of every table and all outcomes.
Servers that apply the same log therefore have the same store, and one server has the same store after a restart.

* A decision depends on the entry, its time and the store, and on nothing else: no clock, random number, locale,
  setting or object in memory. The tables say if a name is free, a nonce was used or a password has changed; they are
  read inside the transaction.
* Ids count up from the highest one in the store. A transaction that is rolled back leaves no trace, so its ids are
  used again. ``Transaction.last_id`` saves a query for each entry; between transactions its value is that of
  ``read_highest_id``.
* The division into transactions has no effect: an entry sees those before it, whether they are committed or not.

To add an entry: its class in ``entries.py``, a function here, and its line in ``_APPLY``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from msgspec.structs import replace

from chatprotocol.events import RoomRole
from chatprotocol.limits import MEMBERS_MAX, ROOMS_JOINED_MAX, ROOMS_MAX
from chatserver.journal import entries
from chatserver.journal.entries import RoomChange, RoomProblem, Stored
from chatserver.store import rooms
from chatserver.store.accounts import insert_account, is_person, replace_password_hash, update_delivered
from chatserver.store.guests import claim_name, is_claimed, release_all_names, release_name
from chatserver.store.messages import find_nonce, insert_direct, insert_in_room
from chatserver.store.rooms import DIRECT_ID, LOBBY_ID, ROOM_ID_MAX

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

    from chatserver.journal.entries import Entry, RoomOutcome
    from chatserver.store.accounts import Account
    from chatserver.store.rooms import RoomView

_T = TypeVar("_T")


class RoomLimits(NamedTuple):
    """Limits of rooms. They are the same on all servers: they decide outcomes."""

    joined: int = ROOMS_JOINED_MAX
    rooms: int = ROOMS_MAX
    # Invitations count.
    members: int = MEMBERS_MAX
    # The greatest id. The ids of rooms that have ended are not used again.
    room_id: int = ROOM_ID_MAX


_LIMITS: Final = RoomLimits()


class Transaction:
    """An open transaction in which entries are applied."""

    __slots__ = ("account_id", "connection", "last_id", "limits", "time_ms")

    def __init__(
        self, connection: sqlite3.Connection, time_ms: int, last_id: int, limits: RoomLimits = _LIMITS
    ) -> None:
        self.connection = connection
        self.limits = limits
        # The time of the entries, in milliseconds since 1970 UTC.
        self.time_ms = time_ms
        # The highest message id in the store.
        self.last_id = last_id
        # The highest id of the accounts of this transaction's outcomes; 0 if there are none.
        self.account_id = 0


def apply(transaction: Transaction, entry: Entry[_T]) -> _T:
    """Apply the entry and return its outcome. Errors of SQLite mean that the transaction must be rolled back."""
    outcome: _T = _APPLY[type(entry)](transaction, entry)
    return outcome


def _add_public(transaction: Transaction, entry: entries.PublicMessages) -> tuple[Stored, ...] | RoomProblem:
    """Insert the messages as a whole if none of their nonces was used before, else one by one."""
    connection, time_ms, sender_id = transaction.connection, transaction.time_ms, entry.sender_id
    room_id = entry.room_id
    if room_id != LOBBY_ID and not rooms.is_member(connection, sender_id, room_id):
        room = rooms.find_room_by_id(connection, sender_id, room_id)
        return RoomProblem.UNKNOWN_ROOM if room is None else RoomProblem.NOT_A_MEMBER
    first_id = transaction.last_id + 1
    if insert_in_room(connection, room_id, first_id, time_ms, sender_id, entry.texts, entry.nonces):
        transaction.last_id += len(entry.texts)
        return (Stored(0, len(entry.texts), first_id),)
    parts = []
    for start, (text, nonce) in enumerate(zip(entry.texts, entry.nonces, strict=True)):
        if insert_in_room(connection, room_id, transaction.last_id + 1, time_ms, sender_id, [text], [nonce]):
            transaction.last_id += 1
            parts.append(Stored(start, start + 1, transaction.last_id))
        else:
            assert nonce is not None
            earlier_id = find_nonce(connection, room_id, sender_id, nonce)
            parts.append(Stored(start, start + 1, earlier_id, is_repeated=True))
    return tuple(parts)


def _add_direct(transaction: Transaction, entry: entries.DirectMessage) -> tuple[Stored, ...]:
    connection, time_ms, sender_id = transaction.connection, transaction.time_ms, entry.sender_id
    message_id = transaction.last_id + 1
    (text,), (nonce,) = entry.texts, entry.nonces
    if insert_direct(connection, message_id, time_ms, sender_id, entry.recipient_id, text, nonce):
        transaction.last_id = message_id
        return (Stored(0, 1, message_id),)
    assert nonce is not None
    return (Stored(0, 1, find_nonce(connection, DIRECT_ID, sender_id, nonce), is_repeated=True),)


def _move_mark(transaction: Transaction, entry: entries.DeliveryMark) -> None:
    update_delivered(transaction.connection, entry.account_id, entry.message_id)


def _register(transaction: Transaction, entry: entries.NewAccount) -> Account | None:
    if is_claimed(transaction.connection, entry.name):
        return None
    account = insert_account(transaction.connection, entry.name, entry.password_hash, transaction.time_ms)
    return _note_account(transaction, account)


def _change_password(transaction: Transaction, entry: entries.PasswordChange) -> bool:
    return replace_password_hash(transaction.connection, entry.account_id, entry.old_hash, entry.new_hash)


def _claim(transaction: Transaction, entry: entries.GuestClaim) -> Account | None:
    return _note_account(transaction, claim_name(transaction.connection, entry.name, transaction.time_ms))


def _release(transaction: Transaction, entry: entries.GuestRelease) -> None:
    release_name(transaction.connection, entry.name, entry.claim)


def _start(transaction: Transaction, _: entries.ServerStart) -> None:
    release_all_names(transaction.connection)


def _note_account(transaction: Transaction, account: Account | None) -> Account | None:
    if account is not None:
        transaction.account_id = max(transaction.account_id, account.id)
    return account


def _join(transaction: Transaction, entry: entries.JoinRoom) -> RoomOutcome:
    """A hidden room is answered like a missing one, except if a missing one would be made."""
    connection, limits = transaction.connection, transaction.limits
    room = rooms.find_room(connection, entry.account_id, entry.room)
    if room is not None and room.role is not None:
        return _change(room, room.role, room.role, is_changed=False)
    if not is_person(connection, entry.account_id):
        return RoomProblem.NOT_PERMITTED
    if room is None and not entry.may_create:
        return RoomProblem.UNKNOWN_ROOM
    if rooms.count_rooms_of(connection, entry.account_id) >= limits.joined:
        return RoomProblem.TOO_MANY_ROOMS
    if room is not None:
        if not room.is_invited and _is_full(transaction, room.room_id):
            return RoomProblem.TOO_MANY_ROOMS
        rooms.set_role(connection, room.room_id, entry.account_id, RoomRole.MEMBER)
        return _change(room, None, RoomRole.MEMBER)
    if rooms.count_rooms(connection) >= limits.rooms or rooms.read_last_room_id(connection) >= limits.room_id:
        return RoomProblem.TOO_MANY_ROOMS
    room_id = rooms.insert_room(connection, entry.room, transaction.time_ms, is_private=entry.is_private)
    if room_id is None:
        return RoomProblem.UNKNOWN_ROOM
    rooms.set_role(connection, room_id, entry.account_id, RoomRole.OWNER)
    return RoomChange(room_id, entry.room, "", entry.is_private, 0, None, RoomRole.OWNER, is_new=True)


def _part(transaction: Transaction, entry: entries.PartRoom) -> RoomOutcome:
    connection, room_id = transaction.connection, entry.room_id
    room = rooms.find_room_by_id(connection, entry.account_id, room_id)
    if room is None:
        return RoomProblem.UNKNOWN_ROOM
    if room.role is None:
        return RoomProblem.NOT_A_MEMBER
    rooms.set_role(connection, room_id, entry.account_id, None)
    change = _change(room, room.role, None)
    if not rooms.read_counts(connection, room_id).members:
        rooms.end_room(connection, room_id)
        return replace(change, has_ended=True)
    heir = rooms.find_heir(connection, room_id) if room.role is RoomRole.OWNER else None
    if heir is None:
        return change
    heir_id, name = heir
    rooms.set_role(connection, room_id, heir_id, RoomRole.OWNER)
    return replace(change, heir_id=heir_id, heir=name)


def _kick(transaction: Transaction, entry: entries.KickMember, room: RoomView) -> RoomOutcome:
    connection = transaction.connection
    role, is_invited = rooms.read_standing(connection, entry.account_id, room.room_id)
    if role is None and not is_invited:
        return RoomProblem.USER_NOT_A_MEMBER
    if role is RoomRole.OWNER or entry.account_id == entry.by_id:
        return RoomProblem.NOT_PERMITTED
    rooms.set_role(connection, room.room_id, entry.account_id, None)
    return _change(room, role, None)


def _set_topic(transaction: Transaction, entry: entries.SetTopic, room: RoomView) -> RoomOutcome:
    rooms.update_topic(transaction.connection, room.room_id, entry.topic)
    change = _change(room, room.role, room.role, is_changed=room.topic != entry.topic)
    return replace(change, topic=entry.topic)


def _invite(transaction: Transaction, entry: entries.InviteUser, room: RoomView) -> RoomOutcome:
    connection = transaction.connection
    role, is_invited = rooms.read_standing(connection, entry.account_id, room.room_id)
    if role is not None or is_invited:
        return _change(room, role, role, is_changed=False)
    if not is_person(connection, entry.account_id):
        return RoomProblem.NOT_PERMITTED
    if _is_full(transaction, room.room_id):
        return RoomProblem.TOO_MANY_ROOMS
    rooms.insert_invitation(connection, room.room_id, entry.account_id)
    return _change(room, None, None)


def _set_role(transaction: Transaction, entry: entries.SetRole, room: RoomView) -> RoomOutcome:
    connection = transaction.connection
    role, _ = rooms.read_standing(connection, entry.account_id, room.room_id)
    if role is None:
        return RoomProblem.USER_NOT_A_MEMBER
    if RoomRole.OWNER in (role, entry.role):
        return RoomProblem.NOT_PERMITTED
    rooms.set_role(connection, room.room_id, entry.account_id, entry.role)
    return _change(room, role, entry.role, is_changed=role is not entry.role)


def _by_operator(change: Callable[[Transaction, Any, RoomView], RoomOutcome]) -> Callable[..., RoomOutcome]:
    """A change that only the owner and the operators of a room may make."""

    def apply_change(transaction: Transaction, entry: Any) -> RoomOutcome:
        room = rooms.find_room_by_id(transaction.connection, entry.by_id, entry.room_id)
        if room is None:
            return RoomProblem.UNKNOWN_ROOM
        if room.role is None:
            return RoomProblem.NOT_A_MEMBER
        return change(transaction, entry, room) if room.role is not RoomRole.MEMBER else RoomProblem.NOT_PERMITTED

    return apply_change


def _is_full(transaction: Transaction, room_id: int) -> bool:
    counts = rooms.read_counts(transaction.connection, room_id)
    return counts.members + counts.invited >= transaction.limits.members


def _change(room: RoomView, old_role: RoomRole | None, role: RoomRole | None, *, is_changed: bool = True) -> RoomChange:
    where = (room.room_id, room.name, room.topic, room.is_private, room.last_id)
    return RoomChange(*where, old_role, role, is_changed=is_changed)


_APPLY: Final[dict[type, Callable[[Transaction, Any], Any]]] = {
    entries.PublicMessages: _add_public,
    entries.DirectMessage: _add_direct,
    entries.DeliveryMark: _move_mark,
    entries.NewAccount: _register,
    entries.PasswordChange: _change_password,
    entries.GuestClaim: _claim,
    entries.GuestRelease: _release,
    entries.ServerStart: _start,
    entries.JoinRoom: _join,
    entries.PartRoom: _part,
    entries.KickMember: _by_operator(_kick),
    entries.SetTopic: _by_operator(_set_topic),
    entries.InviteUser: _by_operator(_invite),
    entries.SetRole: _by_operator(_set_role),
}
