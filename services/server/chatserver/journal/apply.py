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

import sys
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from msgspec.structs import replace

from chatprotocol.events import RoomEventKind, RoomModes, RoomRole, SanctionKind
from chatprotocol.limits import (
    IGNORED_MAX,
    MEMBERS_MAX,
    ROOMS_JOINED_MAX,
    ROOMS_MAX,
    SANCTION_MAX_SECONDS,
    SANCTIONS_MAX,
    SANCTIONS_OF_ROOM_MAX,
)
from chatprotocol.rules import name_key
from chatserver.journal import entries
from chatserver.journal.entries import (
    AccountProblem,
    DeletedMessage,
    GuestRenamed,
    GuestsGone,
    Marked,
    Moderated,
    Problem,
    Removed,
    Revoked,
    RoomChange,
    Stored,
)
from chatserver.store import moderation, rooms
from chatserver.store.accounts import (
    Role,
    close_account,
    insert_account,
    insert_network,
    is_last_operator,
    is_operator,
    is_person,
    read_delivered,
    read_name,
    replace_password_hash,
    set_password_hash,
    update_delivered,
    update_role,
)
from chatserver.store.conversation_history import BLOCK_IDS, note_times
from chatserver.store.guests import (
    claim_name,
    find_claim,
    find_row,
    is_claimed,
    is_free,
    is_present,
    release_all_names,
    release_name,
)
from chatserver.store.identity import raise_highest_id
from chatserver.store.invitations import insert_invitation, is_open, use_invitation
from chatserver.store.log_position import end_run
from chatserver.store.message_table import (
    count_waiting,
    delete_direct,
    delete_range,
    find_nonce,
    find_range,
    find_sent,
    find_stored,
    insert_direct,
    insert_in_room,
)
from chatserver.store.moderation import ActiveSanction
from chatserver.store.read_marks import read_mark, set_mark
from chatserver.store.room_events import delete_events, encode_modes, encode_roles, erase_events, insert_event
from chatserver.store.rooms import DIRECT_ID, LOBBY_ID, ROOM_ID_MAX
from chatserver.store.tokens import delete_tokens, insert_token, use_token

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Sequence

    from chatprotocol.events import EventPlace
    from chatserver.journal.entries import Entry, RoomOutcome
    from chatserver.store.accounts import Account
    from chatserver.store.message_table import StoredMessage
    from chatserver.store.rooms import RoomView

_T = TypeVar("_T")


class StoreLimits(NamedTuple):
    """Limits of rooms and mailboxes. They are the same on all servers: they decide outcomes."""

    joined: int = ROOMS_JOINED_MAX
    rooms: int = ROOMS_MAX
    # Invitations count.
    members: int = MEMBERS_MAX
    # The greatest id. The ids of rooms that have ended are not used again.
    room_id: int = ROOM_ID_MAX
    # Direct messages that wait for a user who is offline: of one sender, and in all. 0: no limit.
    waiting_from_sender: int = 0
    waiting_messages: int = 0


_LIMITS: Final = StoreLimits()
# How far a read mark may be after the time of its entry: the clocks of several servers differ. A mark that is years
# ahead would never move again.
_AHEAD_MAX_MS: Final = 60_000


class Transaction:
    """An open transaction in which entries are applied."""

    def __init__(
        self, connection: sqlite3.Connection, time_ms: int, last_id: int, limits: StoreLimits = _LIMITS
    ) -> None:
        self.connection = connection
        self.limits = limits
        # The time of the entries, in milliseconds since 1970 UTC.
        self.time_ms = time_ms
        # The highest message id in the store.
        self.last_id = last_id
        # The highest id of the accounts of this transaction's outcomes; 0 if there are none.
        self.account_id = 0
        # True if the tables have rows; None: not read yet. They save the queries for each message on a server that has
        # no sanctions, and on which users ignore each other.
        self._has_sanctions: bool | None = None
        self._has_ignored: bool | None = None
        # By recipient: see count_waiting.
        self._waiting: dict[int, dict[int, int]] = {}

    def use_ids(self, count: int) -> None:
        """Note that messages with the next ids were inserted."""
        before_id, self.last_id = self.last_id, self.last_id + count
        if before_id // BLOCK_IDS != self.last_id // BLOCK_IDS:
            note_times(self.connection, self.last_id)

    def add_event(
        self, room_id: int, kind: RoomEventKind, actor_id: int | None, target_id: int | None = None, text: str = ""
    ) -> EventPlace:
        """Append an event to the history of a room. An actor of 0 is the administrator."""
        where = (room_id, self.last_id, self.time_ms)
        return insert_event(self.connection, *where, kind, actor_id or None, target_id, text=text)

    def find_silence(self, account_id: int, room_id: int) -> ActiveSanction | None:
        """The sanction that keeps the account from sending to the room, the lobby, or (DIRECT_ID) another user."""
        if self._has_sanctions is None:
            self._has_sanctions = moderation.has_sanctions(self.connection)
        if not self._has_sanctions:
            return None
        return moderation.find_silence(self.connection, account_id, self.time_ms, _room_or_server(room_id))

    def ignores(self, account_id: int, ignored_id: int) -> bool:
        """True if the account ignores the other one."""
        if self._has_ignored is None:
            self._has_ignored = moderation.has_ignored(self.connection)
        return self._has_ignored and moderation.is_ignored(self.connection, account_id, ignored_id)

    def count_waiting(self, recipient_id: int) -> dict[int, int]:
        """The number of direct messages that wait for a user, by sender. It is counted once: 1,000 take 0.7 ms."""
        if recipient_id not in self._waiting:
            limit = self.limits.waiting_messages or sys.maxsize
            self._waiting[recipient_id] = count_waiting(self.connection, recipient_id, limit)
        return self._waiting[recipient_id]

    def note_direct(self, entry: entries.DirectMessage, message_id: int) -> None:
        """Count a direct message that was stored, as another count would."""
        waiting = self._waiting.get(entry.recipient_id)
        if waiting is None or sum(waiting.values()) >= (self.limits.waiting_messages or sys.maxsize):
            return
        delivered_id = read_delivered(self.connection, entry.recipient_id)
        if delivered_id is not None and message_id > delivered_id:
            waiting[entry.sender_id] = waiting.get(entry.sender_id, 0) + 1

    def forget_waiting(self) -> None:
        """Count again: a delivery mark has moved, messages were removed, or there is a new account."""
        self._waiting.clear()

    def note_moderation(self) -> None:
        """Read the tables again, after one of them got a row."""
        self._has_sanctions = self._has_ignored = None


def apply(transaction: Transaction, entry: Entry[_T]) -> _T:
    """Apply the entry and return its outcome. Errors of SQLite mean that the transaction must be rolled back."""
    outcome: _T = _APPLY[type(entry)](transaction, entry)
    return outcome


def _add_public(
    transaction: Transaction, entry: entries.PublicMessages
) -> tuple[Stored, ...] | Problem | ActiveSanction:
    """Insert the messages as a whole if none of their nonces was used before, else one by one."""
    connection, time_ms, sender_id = transaction.connection, transaction.time_ms, entry.sender_id
    room_id = entry.room_id
    if (silence := transaction.find_silence(sender_id, room_id)) is not None:
        return silence
    if room_id != LOBBY_ID and (problem := _find_writing_problem(transaction, sender_id, room_id)) is not None:
        return problem
    first_id = transaction.last_id + 1
    is_notice = entry.is_notice
    if insert_in_room(
        connection, room_id, first_id, time_ms, sender_id, entry.texts, entry.nonces, is_notice=is_notice
    ):
        transaction.use_ids(len(entry.texts))
        return (Stored(0, len(entry.texts), first_id),)
    parts = []
    for start, (text, nonce) in enumerate(zip(entry.texts, entry.nonces, strict=True)):
        values = (transaction.last_id + 1, time_ms, sender_id, [text], [nonce])
        if insert_in_room(connection, room_id, *values, is_notice=is_notice):
            transaction.use_ids(1)
            parts.append(Stored(start, start + 1, transaction.last_id))
        else:
            assert nonce is not None
            earlier_id = find_nonce(connection, room_id, sender_id, nonce)
            parts.append(Stored(start, start + 1, earlier_id, is_repeated=True))
    return tuple(parts)


def _find_writing_problem(transaction: Transaction, account_id: int, room_id: int) -> Problem | None:
    """The reason why the account can't write in a room; None if it can."""
    is_member, is_kept_silent = rooms.read_writer(transaction.connection, account_id, room_id)
    if not is_member:
        return _outsider_problem(transaction, account_id, room_id)
    return Problem.MODERATED if is_kept_silent and not _is_administrator(transaction, account_id) else None


def _outsider_problem(transaction: Transaction, account_id: int, room_id: int) -> Problem:
    """The problem of an account that is not a member of the room: it may not know of a private one."""
    room = rooms.find_room_by_id(transaction.connection, account_id, room_id)
    return Problem.UNKNOWN_ROOM if room is None else Problem.NOT_A_MEMBER


def _add_direct(
    transaction: Transaction, entry: entries.DirectMessage
) -> tuple[Stored, ...] | Problem | ActiveSanction:
    connection, time_ms, sender_id = transaction.connection, transaction.time_ms, entry.sender_id
    if (silence := transaction.find_silence(sender_id, DIRECT_ID)) is not None:
        return silence
    message_id = transaction.last_id + 1
    (text,), (nonce,) = entry.texts, entry.nonces
    problem = _find_full_mailbox(transaction, entry) if entry.is_waiting else None
    values = (message_id, time_ms, sender_id, entry.recipient_id, text, nonce)
    if insert_direct(connection, *values, is_notice=entry.is_notice):
        if problem is not None:  # not before, because a message that is repeated is confirmed
            delete_direct(connection, message_id)
            return problem
        transaction.note_direct(entry, message_id)
        transaction.use_ids(1)
        return (Stored(0, 1, message_id, is_ignored=transaction.ignores(entry.recipient_id, sender_id)),)
    assert nonce is not None
    return (Stored(0, 1, find_nonce(connection, DIRECT_ID, sender_id, nonce), is_repeated=True),)


def _find_full_mailbox(transaction: Transaction, entry: entries.DirectMessage) -> Problem | None:
    """The limit that the messages that wait for the recipient have reached."""
    limits = transaction.limits
    if not (limits.waiting_messages or limits.waiting_from_sender):
        return None
    waiting = transaction.count_waiting(entry.recipient_id)
    if 0 < limits.waiting_messages <= sum(waiting.values()):  # first: of a full mailbox not all senders are counted
        return Problem.MAILBOX_FULL
    is_full = 0 < limits.waiting_from_sender <= waiting.get(entry.sender_id, 0)
    return Problem.MAILBOX_FULL_OF_SENDER if is_full else None


def _move_mark(transaction: Transaction, entry: entries.DeliveryMark) -> None:
    update_delivered(transaction.connection, entry.account_id, entry.message_id)
    transaction.forget_waiting()


def _register(transaction: Transaction, entry: entries.NewAccount) -> Account | AccountProblem:
    connection, time_ms = transaction.connection, transaction.time_ms
    if entry.invitation and not is_open(connection, entry.invitation, time_ms):
        return AccountProblem.BAD_INVITATION
    if is_claimed(connection, entry.name):
        return AccountProblem.NAME_TAKEN
    account = insert_account(connection, entry.name, entry.password_hash, time_ms, entry.role)
    if account is None:
        return AccountProblem.NAME_TAKEN
    if entry.invitation:
        use_invitation(connection, entry.invitation, account.id)
    if entry.network:
        insert_network(connection, account.id, entry.network, time_ms)
    _note_account(transaction, account)
    return account


def _add_invitation(transaction: Transaction, entry: entries.AddInvitation) -> None:
    insert_invitation(transaction.connection, entry.code_hash, entry.by, transaction.time_ms, entry.until_ms)


def _note_network(transaction: Transaction, entry: entries.KnownNetwork) -> None:
    insert_network(transaction.connection, entry.account_id, entry.network, transaction.time_ms)


def _change_password(transaction: Transaction, entry: entries.PasswordChange) -> bool:
    connection, account_id = transaction.connection, entry.account_id
    has_changed = replace_password_hash(connection, account_id, entry.old_hash, entry.new_hash)
    if has_changed and not entry.is_rehash:
        delete_tokens(connection, account_id, kept_id=entry.kept_token)
    return has_changed


def _add_token(transaction: Transaction, entry: entries.AddToken) -> Revoked | Problem:
    connection, account_id = transaction.connection, entry.account_id
    if not is_person(connection, account_id):
        return Problem.UNKNOWN_USER
    replaced = insert_token(connection, account_id, entry.token_hash, entry.token_id, entry.label, transaction.time_ms)
    return Revoked(tuple(replaced))


def _use_token(transaction: Transaction, entry: entries.UseToken) -> None:
    use_token(transaction.connection, entry.account_id, entry.token_id, transaction.time_ms)


def _revoke(transaction: Transaction, entry: entries.RevokeTokens) -> Revoked:
    return Revoked(tuple(delete_tokens(transaction.connection, entry.account_id, entry.token_id, entry.kept_token)))


def _claim(transaction: Transaction, entry: entries.GuestClaim) -> Account | None:
    return _note_account(transaction, claim_name(transaction.connection, entry.name, transaction.time_ms, entry.server))


def _release(transaction: Transaction, entry: entries.GuestRelease) -> GuestsGone | None:
    return end_memberships(transaction, release_name(transaction.connection, entry.name, entry.claim))


def _start(transaction: Transaction, entry: entries.ServerStart) -> GuestsGone | None:
    return end_memberships(transaction, release_all_names(transaction.connection, entry.server))


def _end_run(transaction: Transaction, entry: entries.ServerGone) -> GuestsGone | None:
    if not end_run(transaction.connection, entry.server, entry.run):
        return None
    return end_memberships(transaction, release_all_names(transaction.connection, entry.server))


def _rename(transaction: Transaction, entry: entries.RenameGuest) -> GuestRenamed | Problem:
    """Move the memberships to the row of the new name, with their roles and order."""
    connection = transaction.connection
    old_id = find_claim(connection, entry.name, entry.claim)
    if old_id is None:
        return Problem.UNKNOWN_USER
    if name_key(entry.new_name) != name_key(entry.name) and not is_free(connection, entry.new_name):
        return Problem.NAME_TAKEN
    places = (None, *rooms.list_rooms_of(connection, old_id))
    for account_id in (old_id, find_row(connection, entry.new_name)):
        if account_id is not None and any(
            moderation.find_silence(connection, account_id, transaction.time_ms, place) for place in places
        ):
            return Problem.NOT_PERMITTED
    release_name(connection, entry.name, entry.claim)
    account = claim_name(connection, entry.new_name, transaction.time_ms, entry.server)
    assert account is not None
    _note_account(transaction, account)
    if account.id != old_id:
        rooms.move_memberships(connection, old_id, account.id)
        for room_id in rooms.list_rooms_of(connection, account.id):
            if rooms.is_member(connection, account.id, room_id):
                transaction.add_event(room_id, RoomEventKind.NICK, old_id, account.id)
    return GuestRenamed(account, rooms.read_roles_of(connection, account.id))


def _note_account(transaction: Transaction, account: Account | None) -> Account | None:
    if account is not None:
        transaction.account_id = max(transaction.account_id, account.id)
        transaction.forget_waiting()
    return account


def _may_have_rooms(connection: sqlite3.Connection, account_id: int) -> bool:
    """True for a registered user, and for a guest who has not left."""
    return is_person(connection, account_id) or is_present(connection, account_id)


def _join(transaction: Transaction, entry: entries.JoinRoom) -> RoomOutcome:
    """A hidden room is answered like a missing one, except if a missing one would be made."""
    connection, limits = transaction.connection, transaction.limits
    room = rooms.find_room(connection, entry.account_id, entry.room)
    if room is not None and room.role is not None:
        return _with_roles(transaction, _change(room, room.role, room.role, is_changed=False))
    if not _may_have_rooms(connection, entry.account_id):
        return Problem.NOT_PERMITTED
    if room is not None and (ban := _find_room_ban(transaction, entry.account_id, room.room_id)) is not None:
        return ban
    if room is None and not entry.may_create:
        return Problem.UNKNOWN_ROOM
    if rooms.count_rooms_of(connection, entry.account_id) >= limits.joined:
        return Problem.TOO_MANY_ROOMS
    if room is not None:
        if not room.is_invited and (problem := _find_entry_problem(transaction, room, entry.key)) is not None:
            return problem
        rooms.set_role(connection, room.room_id, entry.account_id, RoomRole.MEMBER)
        place = transaction.add_event(room.room_id, RoomEventKind.JOIN, entry.account_id)
        return _with_roles(transaction, replace(_change(room, None, RoomRole.MEMBER), place=place))
    if rooms.count_rooms(connection) >= limits.rooms or rooms.read_last_room_id(connection) >= limits.room_id:
        return Problem.TOO_MANY_ROOMS
    room_id = rooms.insert_room(connection, entry.room, transaction.time_ms, is_private=entry.is_private)
    if room_id is None:
        return Problem.UNKNOWN_ROOM
    rooms.set_role(connection, room_id, entry.account_id, RoomRole.OWNER)
    place = transaction.add_event(room_id, RoomEventKind.JOIN, entry.account_id)
    return RoomChange(
        *(room_id, entry.room, "", entry.is_private, 0, None, RoomRole.OWNER),
        is_new=True,
        modes=RoomModes(private=entry.is_private),
        created_ms=transaction.time_ms,
        roles={entry.username: RoomRole.OWNER},
        place=place,
    )


def _find_entry_problem(transaction: Transaction, room: RoomView, key: str) -> Problem | None:
    """The reason why an account that is not invited can't join the room; None if it can."""
    if _is_full(transaction, room.room_id):
        return Problem.TOO_MANY_ROOMS
    if room.modes.key and key != room.modes.key:
        return Problem.WRONG_KEY
    members = rooms.read_counts(transaction.connection, room.room_id).members
    return Problem.ROOM_FULL if 0 < room.modes.members_max <= members else None


def _with_roles(transaction: Transaction, change: RoomChange) -> RoomChange:
    roles = rooms.read_roles(transaction.connection, [change.room_id])
    return replace(change, roles=roles.get(change.room_id, {}))


def _part(transaction: Transaction, entry: entries.PartRoom) -> RoomOutcome:
    connection, room_id = transaction.connection, entry.room_id
    room = rooms.find_room_by_id(connection, entry.account_id, room_id)
    if room is None:
        return Problem.UNKNOWN_ROOM
    if room.role is None:
        return Problem.NOT_A_MEMBER
    return _end_membership(transaction, room, entry.account_id, room.role, reason=entry.reason)


def _end_membership(
    transaction: Transaction,
    room: RoomView,
    account_id: int,
    role: RoomRole | None,
    *,
    by_id: int | None = None,
    reason: str = "",
) -> RoomChange:
    """Remove a member with this role, or an invitation. An owner has an heir; the last member ends the room.

    ``by_id`` is the account that removes the member, or 0 for the administrator; None: it parts by itself.
    """
    connection, room_id = transaction.connection, room.room_id
    rooms.set_role(connection, room_id, account_id, None)
    change = _change(room, role, None)
    if role is None:
        return change
    if by_id is None:
        place = transaction.add_event(room_id, RoomEventKind.PART, account_id, text=reason)
    else:
        place = transaction.add_event(room_id, RoomEventKind.KICK, by_id, account_id, reason)
    return _settle(transaction, replace(change, place=place), has_lost_owner=role is RoomRole.OWNER)


def end_memberships(transaction: Transaction, account_ids: Sequence[int]) -> GuestsGone | None:
    """Remove these guests from all rooms. All of them first, so that none is the heir of another one."""
    connection = transaction.connection
    # By room, if a member left: true if it was the owner.
    left: dict[int, bool] = {}
    for account_id in account_ids:
        for room_id in rooms.list_rooms_of(connection, account_id):
            role, _ = rooms.read_standing(connection, account_id, room_id)
            rooms.set_role(connection, room_id, account_id, None)
            if role is not None:
                transaction.add_event(room_id, RoomEventKind.QUIT, account_id)
                left[room_id] = left.get(room_id, False) or role is RoomRole.OWNER
    inherited = []
    for room_id, has_lost_owner in sorted(left.items()):
        room = rooms.find_any_room(connection, room_id)
        assert room is not None
        change = _settle(transaction, _change(room, None, None), has_lost_owner=has_lost_owner)
        if change.heir_id:
            inherited.append(change)
    return GuestsGone(tuple(inherited)) if inherited else None


def _settle(transaction: Transaction, change: RoomChange, *, has_lost_owner: bool) -> RoomChange:
    """End a room without members, or find a new owner, after members were removed."""
    connection, room_id = transaction.connection, change.room_id
    if not rooms.read_counts(connection, room_id).members:
        rooms.end_room(connection, room_id)
        return replace(change, has_ended=True, place=None)
    heir = rooms.find_heir(connection, room_id) if has_lost_owner else None
    if heir is None:
        return change
    heir_id, name = heir
    rooms.set_role(connection, room_id, heir_id, RoomRole.OWNER)
    place = transaction.add_event(room_id, RoomEventKind.HEIR, None, heir_id)
    return replace(change, heir_id=heir_id, heir=name, heir_place=place)


def _kick(transaction: Transaction, entry: entries.KickMember, room: RoomView) -> RoomOutcome:
    role, is_invited = rooms.read_standing(transaction.connection, entry.account_id, room.room_id)
    if role is None and not is_invited:
        return Problem.USER_NOT_A_MEMBER
    problem = _find_problem(transaction, entry.by_id, entry.account_id, room.room_id)
    if problem is not None:
        return problem
    change = _end_membership(transaction, room, entry.account_id, role, by_id=entry.by_id, reason=entry.reason)
    _audit(transaction, entry, "kick", entry.username, room=room.name, reason=entry.reason)
    return change


def _set_topic(transaction: Transaction, entry: entries.SetTopic) -> RoomOutcome:
    """All members read it, like a message."""
    room = _find_room_run_by(transaction, entry.by_id, entry.room_id)
    if room is Problem.NOT_PERMITTED:
        seen = rooms.find_room_by_id(transaction.connection, entry.by_id, entry.room_id)
        room = seen if seen is not None and seen.modes.open_topic else room
    if isinstance(room, Problem):
        return room
    if (silence := transaction.find_silence(entry.by_id, room.room_id)) is not None:
        return silence
    if room.topic == entry.topic:
        return _change(room, room.role, room.role, is_changed=False)
    rooms.update_topic(transaction.connection, room.room_id, entry.topic, entry.by, transaction.time_ms)
    place = transaction.add_event(room.room_id, RoomEventKind.TOPIC, entry.by_id, text=entry.topic)
    change = _change(room, room.role, room.role)
    return replace(change, topic=entry.topic, topic_by=entry.by, topic_ms=transaction.time_ms, place=place)


def _set_modes(transaction: Transaction, entry: entries.SetRoomModes, room: RoomView) -> RoomOutcome:
    given = {name: getattr(entry, name) for name in RoomModes.__struct_fields__}
    modes = replace(room.modes, **{name: value for name, value in given.items() if value is not None})
    rooms.update_modes(transaction.connection, room.room_id, modes)
    change = _change(room, room.role, room.role, is_changed=modes != room.modes)
    place = None
    if change.is_changed:
        changes = encode_modes(room.modes, modes)
        place = transaction.add_event(room.room_id, RoomEventKind.MODES, entry.by_id, text=changes)
    return replace(change, is_private=modes.private, modes=modes, old_modes=room.modes, place=place)


def _invite(transaction: Transaction, entry: entries.InviteUser, room: RoomView) -> RoomOutcome:
    connection = transaction.connection
    role, is_invited = rooms.read_standing(connection, entry.account_id, room.room_id)
    if role is not None or is_invited:
        return _change(room, role, role, is_changed=False)
    if not _may_have_rooms(connection, entry.account_id):
        return Problem.NOT_PERMITTED
    if _find_room_ban(transaction, entry.account_id, room.room_id) is not None:
        return Problem.USER_BANNED
    if _is_full(transaction, room.room_id):
        return Problem.TOO_MANY_ROOMS
    rooms.insert_invitation(connection, room.room_id, entry.account_id)
    return replace(_change(room, None, None), is_ignored=transaction.ignores(entry.account_id, entry.by_id))


def _set_role(transaction: Transaction, entry: entries.SetRole, room: RoomView) -> RoomOutcome:
    connection = transaction.connection
    role, _ = rooms.read_standing(connection, entry.account_id, room.room_id)
    if role is None:
        return Problem.USER_NOT_A_MEMBER
    if RoomRole.OWNER in (role, entry.role):
        return Problem.NOT_PERMITTED
    if entry.old_role not in (None, role):
        return _change(room, role, role, is_changed=False)
    rooms.set_role(connection, room.room_id, entry.account_id, entry.role)
    change = _change(room, role, entry.role, is_changed=role is not entry.role)
    if not change.is_changed:
        return change
    roles = encode_roles(role, entry.role)
    place = transaction.add_event(room.room_id, RoomEventKind.ROLE, entry.by_id, entry.account_id, roles)
    return replace(change, place=place)


def _by_operator(change: Callable[[Transaction, Any, RoomView], RoomOutcome]) -> Callable[..., RoomOutcome]:
    """A change that only the owner and the operators of a room, and the operators of the server, may make."""

    def apply_change(transaction: Transaction, entry: Any) -> RoomOutcome:
        room = _find_room_run_by(transaction, entry.by_id, entry.room_id)
        return room if isinstance(room, Problem) else change(transaction, entry, room)

    return apply_change


def _find_room_run_by(transaction: Transaction, by_id: int, room_id: int) -> RoomView | Problem:
    """The room, if the account may run it; as its role it has that of the account, or else OWNER."""
    connection = transaction.connection
    room = rooms.find_room_by_id(connection, by_id, room_id)
    if room is not None and room.role in (RoomRole.OWNER, RoomRole.OPERATOR):
        return room
    if _is_administrator(transaction, by_id):
        return rooms.find_any_room(connection, room_id) or Problem.UNKNOWN_ROOM
    if room is None:
        return Problem.UNKNOWN_ROOM
    return Problem.NOT_A_MEMBER if room.role is None else Problem.NOT_PERMITTED


def _is_full(transaction: Transaction, room_id: int) -> bool:
    counts = rooms.read_counts(transaction.connection, room_id)
    return counts.members + counts.invited >= transaction.limits.members


def _change(room: RoomView, old_role: RoomRole | None, role: RoomRole | None, *, is_changed: bool = True) -> RoomChange:
    where = (room.room_id, room.name, room.topic, room.is_private, room.last_id)
    return RoomChange(
        *(*where, old_role, role),
        is_changed=is_changed,
        modes=room.modes,
        created_ms=room.created_ms,
        topic_by=room.topic_by,
        topic_ms=room.topic_ms,
    )


# --- moderation ---


def _is_administrator(transaction: Transaction, account_id: int) -> bool:
    """True for an operator of the server who is not banned, and for the command of the administrator."""
    return account_id == 0 or is_operator(transaction.connection, account_id, transaction.time_ms)


def _find_problem(transaction: Transaction, by_id: int, target_id: int, room_id: int | None) -> Problem | None:
    """The reason why an account may not act against another one, or (0) a network; None if it may.

    ``room_id`` is None for the whole server. Of a room the caller has found that the account may run it.
    """
    if by_id == 0:
        return None
    if by_id == target_id:
        return Problem.ONESELF
    if _is_administrator(transaction, by_id):
        return None
    if room_id is None:
        return Problem.NOT_PERMITTED
    role, _ = rooms.read_standing(transaction.connection, target_id, room_id)
    is_protected = role is RoomRole.OWNER or is_operator(transaction.connection, target_id, transaction.time_ms)
    return Problem.NOT_PERMITTED if is_protected else None


def _find_place(transaction: Transaction, by_id: int, room_id: int | None) -> RoomView | Problem | None:
    """The room of an act, or None for the whole server; Problem if the account may not act there."""
    if room_id is not None:
        return _find_room_run_by(transaction, by_id, room_id)
    return None if _is_administrator(transaction, by_id) else Problem.NOT_PERMITTED


def _sanction(transaction: Transaction, entry: entries.Sanction) -> Moderated | Problem:
    connection, time_ms, room_id = transaction.connection, transaction.time_ms, entry.room_id
    room = _find_place(transaction, entry.by_id, room_id)
    if isinstance(room, Problem):
        return room
    problem = _find_target_problem(transaction, entry)
    if problem is not None:
        return problem
    is_ban = entry.kind is SanctionKind.BAN
    if is_ban and room_id is None and is_last_operator(connection, entry.account_id, time_ms):
        return Problem.LAST_OPERATOR
    moderation.delete_expired(connection, time_ms)
    count_max = SANCTIONS_MAX if room_id is None else SANCTIONS_OF_ROOM_MAX
    if moderation.count_sanctions(connection, room_id) >= count_max:
        return Problem.TOO_MANY_SANCTIONS
    until_ms = None if entry.seconds is None else time_ms + min(entry.seconds, SANCTION_MAX_SECONDS) * 1000
    sanction = ActiveSanction(entry.kind, until_ms, entry.reason)
    moderation.replace_sanction(connection, sanction, room_id, entry.account_id, entry.network, entry.by, time_ms)
    transaction.note_moderation()
    is_hidden, change, place = _is_hidden(transaction, room, entry.account_id), None, None
    if room is not None and is_ban:
        role, is_invited = rooms.read_standing(connection, entry.account_id, room.room_id)
        if role is not None or is_invited:
            change = _end_membership(transaction, room, entry.account_id, role, by_id=entry.by_id, reason=entry.reason)
    if room is not None and is_ban and not (change and change.has_ended):
        place = transaction.add_event(room.room_id, RoomEventKind.BAN, entry.by_id, entry.account_id)
    name = room.name if room else None
    detail = "" if entry.seconds is None else f"for {entry.seconds} s"
    target = entry.username or entry.network
    _audit(transaction, entry, entry.kind, target, room=name, reason=entry.reason, detail=detail)
    return Moderated(name, until_ms, change, is_hidden, place)


def _lift(transaction: Transaction, entry: entries.LiftSanction) -> Moderated | Problem:
    room = _find_place(transaction, entry.by_id, entry.room_id)
    if isinstance(room, Problem):
        return room
    problem = _find_target_problem(transaction, entry)
    if problem is not None:
        return problem
    target = (entry.room_id, entry.account_id, entry.network)
    if not moderation.delete_sanction(transaction.connection, entry.kind, *target, transaction.time_ms):
        return Problem.NOT_SANCTIONED
    place = None
    if room is not None and entry.kind is SanctionKind.BAN:
        place = transaction.add_event(room.room_id, RoomEventKind.UNBAN, entry.by_id, entry.account_id)
    name = room.name if room else None
    _audit(transaction, entry, f"un{entry.kind}", entry.username or entry.network, room=name)
    return Moderated(name, is_hidden=_is_hidden(transaction, room, entry.account_id), place=place)


def _is_hidden(transaction: Transaction, room: RoomView | None, account_id: int) -> bool:
    """True if the account may not know of the room."""
    return room is not None and rooms.find_room_by_id(transaction.connection, account_id, room.room_id) is None


def _find_target_problem(transaction: Transaction, entry: entries.Sanction | entries.LiftSanction) -> Problem | None:
    """The reason why the account or network can't be the target, or None; exactly one of both is given."""
    if entry.network:
        is_possible = not entry.account_id and entry.room_id is None and entry.kind is SanctionKind.BAN
        return None if is_possible else Problem.NOT_PERMITTED
    if read_name(transaction.connection, entry.account_id) is None:
        return Problem.UNKNOWN_USER
    return _find_problem(transaction, entry.by_id, entry.account_id, entry.room_id)


def _kick_off(transaction: Transaction, entry: entries.KickFromServer) -> Moderated | Problem:
    if read_name(transaction.connection, entry.account_id) is None:
        return Problem.UNKNOWN_USER
    problem = _find_problem(transaction, entry.by_id, entry.account_id, None)
    if problem is not None:
        return problem
    _audit(transaction, entry, "kick", entry.username, reason=entry.reason)
    return Moderated()


def _set_server_role(transaction: Transaction, entry: entries.SetServerRole) -> Moderated | Problem:
    connection = transaction.connection
    if not is_person(connection, entry.account_id):
        return Problem.UNKNOWN_USER
    problem = _find_problem(transaction, entry.by_id, entry.account_id, None)
    if problem is not None:
        return problem
    if entry.role is not Role.OPERATOR and is_last_operator(connection, entry.account_id, transaction.time_ms):
        return Problem.LAST_OPERATOR
    update_role(connection, entry.account_id, entry.role)
    _audit(transaction, entry, "role", entry.username, detail=entry.role)
    return Moderated()


def _delete(transaction: Transaction, entry: entries.DeleteMessage) -> DeletedMessage | Problem:
    """The author may delete a message; users who may act against the author may delete a public one."""
    connection = transaction.connection
    message = _find_seen(transaction, entry)
    if isinstance(message, Problem):
        return message
    conversation_id = message.conversation_id
    if message.sender_id != entry.by_id:
        if conversation_id == DIRECT_ID and entry.by_id:
            return Problem.NOT_PERMITTED
        room_id = _room_or_server(conversation_id)
        room = _find_place(transaction, entry.by_id, room_id)
        problem = _find_problem(transaction, entry.by_id, message.sender_id, room_id)
        if isinstance(room, Problem) or problem is not None:
            return Problem.NOT_PERMITTED
    name = message.room
    if message.text:
        moderation.insert_deletion(connection, entry.message_id, conversation_id, entry.by, transaction.time_ms)
        target, detail = str(entry.message_id), f"of {message.sender}"
        _audit(transaction, entry, "delete", target, room=name, reason=entry.reason, detail=detail)
    deleted = DeletedMessage(conversation_id, message.sender_id, message.recipient_id, message.text, name)
    if message.recipient_id is None:
        return deleted
    recipient = read_name(connection, message.recipient_id) or ""
    is_ignored = transaction.ignores(message.recipient_id, entry.by_id)
    return replace(deleted, sender=message.sender, recipient=recipient, is_ignored=is_ignored)


def _find_seen(transaction: Transaction, entry: entries.DeleteMessage | entries.Report) -> StoredMessage | Problem:
    """The message that the entry is about, if the account may see it or runs its room."""
    connection, by_id, room_id = transaction.connection, entry.by_id, entry.room_id
    if room_id != LOBBY_ID:
        if not rooms.is_member(connection, by_id, room_id) and not _is_administrator(transaction, by_id):
            return _outsider_problem(transaction, by_id, room_id)
        return find_stored(connection, room_id, entry.message_id) or Problem.UNKNOWN_MESSAGE
    message = find_stored(connection, LOBBY_ID, entry.message_id)
    if message is None:
        message = find_stored(connection, DIRECT_ID, entry.message_id)
        if message is not None and by_id and by_id not in (message.sender_id, message.recipient_id):
            message = None
    return message or Problem.UNKNOWN_MESSAGE


def _report(transaction: Transaction, entry: entries.Report) -> Moderated | Problem:
    if not entry.message_id:
        if read_name(transaction.connection, entry.account_id) is None:
            return Problem.UNKNOWN_USER
        _audit(transaction, entry, "report", entry.username, reason=entry.reason)
        return Moderated()
    message = _find_seen(transaction, entry)
    if isinstance(message, Problem):
        return message
    if not message.text:
        return Problem.UNKNOWN_MESSAGE
    target, detail = str(entry.message_id), f"of {message.sender}"
    _audit(transaction, entry, "report", target, room=message.room, reason=entry.reason, detail=detail)
    return Moderated(message.room)


def _set_ignored(transaction: Transaction, entry: entries.SetIgnored) -> Problem | None:
    connection, account_id, ignored_id = transaction.connection, entry.account_id, entry.ignored_id
    if account_id == ignored_id:
        return Problem.ONESELF
    if read_name(connection, account_id) is None or read_name(connection, ignored_id) is None:
        return Problem.UNKNOWN_USER
    if entry.is_ignored and moderation.count_ignored(connection, account_id) >= IGNORED_MAX:
        return Problem.TOO_MANY_IGNORED
    moderation.set_ignored(connection, account_id, ignored_id, is_ignored=entry.is_ignored)
    transaction.note_moderation()
    return None


def _mark_read(transaction: Transaction, entry: entries.ReadMark) -> Marked | Problem:
    connection, account_id, room_id = transaction.connection, entry.account_id, entry.room_id
    if not is_person(connection, account_id):
        return Problem.NOT_PERMITTED
    if room_id not in (LOBBY_ID, DIRECT_ID) and not rooms.is_member(connection, account_id, room_id):
        return _outsider_problem(transaction, account_id, room_id)
    place = (account_id, room_id, entry.other_id)
    before_ms = read_mark(connection, *place)
    time_ms = min(entry.time_ms, transaction.time_ms + _AHEAD_MAX_MS)
    if before_ms is not None and before_ms >= time_ms:
        return Marked(before_ms, is_changed=False)
    set_mark(connection, *place, time_ms)
    return Marked(time_ms, is_changed=True)


def _add_account(transaction: Transaction, entry: entries.AddAccount) -> Account | AccountProblem:
    outcome = _register(transaction, entries.NewAccount(entry.name, entry.password_hash))
    if not isinstance(outcome, AccountProblem):
        _audit(transaction, entry, "add", entry.name)
    return outcome


def _set_password(transaction: Transaction, entry: entries.SetPassword) -> Problem | None:
    changed = set_password_hash(
        transaction.connection, entry.account_id, entry.password_hash, must_change=entry.must_change
    )
    if not changed:
        return Problem.UNKNOWN_USER
    delete_tokens(transaction.connection, entry.account_id)
    _audit(transaction, entry, "password", entry.username, detail="must be changed" if entry.must_change else "")
    return None


def _delete_account(transaction: Transaction, entry: entries.DeleteAccount) -> Problem | None:
    connection, account_id = transaction.connection, entry.account_id
    old_name = read_name(connection, account_id)
    if old_name is None or not is_person(connection, account_id):
        return Problem.UNKNOWN_USER
    if is_last_operator(connection, account_id, transaction.time_ms):
        return Problem.LAST_OPERATOR
    for room_id in rooms.list_rooms_of(connection, account_id):
        room = rooms.find_room_by_id(connection, account_id, room_id)
        if room is not None:
            _end_membership(transaction, room, account_id, room.role)
    moderation.forget_account(connection, account_id)
    delete_tokens(connection, account_id)
    name = close_account(connection, account_id, transaction.time_ms)
    rooms.rename_topics(connection, old_name, name)
    _audit(transaction, entry, "delete_user", entry.username, detail=f"now {name}")
    return None


def _note_act(transaction: Transaction, entry: entries.NoteAct) -> None:
    _audit(transaction, entry, entry.action, entry.target, detail=entry.detail)


def _prune(transaction: Transaction, entry: entries.Prune) -> Removed:
    """The highest id is stored, because the newest message may go, and ids are not used again."""
    connection = transaction.connection
    found = find_range(connection, entry.after_id, entry.limit)
    # The places of events after the newest message must not be used again.
    stop_id = transaction.last_id if found is None else min(found.last_id + 1, transaction.last_id)
    delete_events(connection, range(entry.after_id, stop_id), entry.before_ms)
    if found is None:
        return Removed(0, None)
    count = delete_range(connection, found, entry.before_ms)
    transaction.forget_waiting()
    raise_highest_id(connection, transaction.last_id)
    # Ids are in the order of time, but for a clock that was set: the first range of newer messages is the end.
    return Removed(count, found.last_id if count else None)


def _erase(transaction: Transaction, entry: entries.EraseMessages) -> Removed:
    connection = transaction.connection
    found = find_range(connection, entry.after_id, entry.limit)
    stop_id = transaction.last_id if found is None else found.last_id
    erase_events(connection, range(entry.after_id, stop_id + 1), entry.account_id)
    if found is None:  # the last step
        rooms.erase_topics(connection, entry.account_id)
        return Removed(0, None)
    ids = find_sent(connection, found, entry.account_id)
    for conversation_id, message_id in ids:
        moderation.insert_deletion(connection, message_id, conversation_id, entry.by, transaction.time_ms)
    return Removed(len(ids), found.last_id)


def _find_room_ban(transaction: Transaction, account_id: int, room_id: int) -> ActiveSanction | None:
    return moderation.find_ban(transaction.connection, account_id, transaction.time_ms, room_id)


def _room_or_server(conversation_id: int) -> int | None:
    """The room of a conversation, as sanctions name it: the lobby and direct messages belong to the whole server."""
    return None if conversation_id in (LOBBY_ID, DIRECT_ID) else conversation_id


def _audit(
    transaction: Transaction,
    entry: Any,
    action: str,
    target: str,
    *,
    room: str | None = None,
    reason: str = "",
    detail: str = "",
) -> None:
    """Add a row about the act of ``entry.by``."""
    if system_user := getattr(entry, "system_user", ""):
        detail = f"{detail}, " if detail else ""
        detail += f"by the system user {system_user}"
    moderation.insert_audit(
        transaction.connection, transaction.time_ms, action, entry.by, target, room=room, reason=reason, detail=detail
    )


_APPLY: Final[dict[type, Callable[[Transaction, Any], Any]]] = {
    entries.PublicMessages: _add_public,
    entries.DirectMessage: _add_direct,
    entries.DeliveryMark: _move_mark,
    entries.NewAccount: _register,
    entries.PasswordChange: _change_password,
    entries.AddToken: _add_token,
    entries.UseToken: _use_token,
    entries.RevokeTokens: _revoke,
    entries.AddInvitation: _add_invitation,
    entries.KnownNetwork: _note_network,
    entries.GuestClaim: _claim,
    entries.GuestRelease: _release,
    entries.RenameGuest: _rename,
    entries.ServerStart: _start,
    entries.ServerGone: _end_run,
    entries.JoinRoom: _join,
    entries.PartRoom: _part,
    entries.KickMember: _by_operator(_kick),
    entries.SetTopic: _set_topic,
    entries.SetRoomModes: _by_operator(_set_modes),
    entries.InviteUser: _by_operator(_invite),
    entries.SetRole: _by_operator(_set_role),
    entries.Sanction: _sanction,
    entries.LiftSanction: _lift,
    entries.KickFromServer: _kick_off,
    entries.SetServerRole: _set_server_role,
    entries.DeleteMessage: _delete,
    entries.Report: _report,
    entries.AddAccount: _add_account,
    entries.SetPassword: _set_password,
    entries.DeleteAccount: _delete_account,
    entries.NoteAct: _note_act,
    entries.Prune: _prune,
    entries.EraseMessages: _erase,
    entries.SetIgnored: _set_ignored,
    entries.ReadMark: _mark_read,
}
