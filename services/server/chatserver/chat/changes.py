"""Changes: tells the members of what was committed, apart from messages: of rooms, of users, and of moderation.

For each entry of the journal there is one method, which gets the entry and its outcome. It changes what the hub knows,
and sends the events to those whom they concern. So a member gets exactly the messages between the begin and the end of
its membership, and the events about both in the same order.

Acts of moderation end connections. The connections end after the rest of the portion, with the reason as the last
event.
"""

from __future__ import annotations

from functools import partial
from operator import ne
from types import NoneType
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from msgspec.structs import replace

from chatprotocol import events
from chatprotocol.address import is_in_network
from chatprotocol.errors import ErrorCode
from chatprotocol.events import Bye, RoomRole, SanctionKind, TimeMs
from chatprotocol.rules import LOBBY, room_key
from chatserver.chat.problems import sanction_text
from chatserver.chat.room import Member
from chatserver.chat.tracking import placed
from chatserver.journal import entries
from chatserver.journal.entries import (
    DeletedMessage,
    GuestRenamed,
    GuestsGone,
    Marked,
    Moderated,
    Problem,
    Removed,
    Revoked,
    RoomChange,
)
from chatserver.store.accounts import Role
from chatserver.store.messages import IndexedMessage
from chatserver.store.moderation import ActiveSanction
from chatserver.store.rooms import DIRECT_ID

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from chatprotocol.events import Event, EventPlace
    from chatserver.chat.delivery import Ack
    from chatserver.chat.local_users import LocalUsers
    from chatserver.chat.presence import Presence
    from chatserver.chat.room import User

# The sender of an entry; None: another server's.
Origin: TypeAlias = "Member | Ack | None"

_REVOKED = Bye("the session was revoked", ErrorCode.REVOKED)

# Outcomes of entries that changed nothing that is told: the session answers them.
_UNCHANGED = (OSError, Problem, ActiveSanction, NoneType)


class ChangePublisher:
    """Tells the members of changes. For the journal's thread, which holds the lock of ``users``."""

    def __init__(
        self,
        users: LocalUsers,
        presence: Presence,
        expel_guests: Callable[[entries.KickFromServer | entries.Sanction], None] = lambda _: None,
        note_deleted: Callable[[IndexedMessage], None] = lambda _: None,
        note_removal: Callable[[], None] = lambda: None,
    ) -> None:
        """``expel_guests`` ends the connections of guests; ``note_deleted`` gets each deleted message as it was.

        ``note_removal`` follows the removal of many messages. All three are called without the lock, also for entries
        of other servers.
        """
        self._users = users
        self._presence = presence
        self._expel_guests, self._note_deleted, self._note_removal = expel_guests, note_deleted, note_removal
        # What remains to be done without the lock.
        self._later: list[Callable[[], None]] = []

    def is_published(self, entry: entries.Entry[Any]) -> bool:
        """True if :meth:`publish` takes the entry."""
        return type(entry) in self._CHANGES

    def publish(self, entry: entries.Entry[Any], outcome: object, origin: Origin) -> None:
        """Tell those whom an entry concerns. Call :meth:`finish` after the portion."""
        if not isinstance(outcome, _UNCHANGED):
            self._CHANGES[type(entry)](self, entry, outcome, origin)

    def finish(self) -> None:
        """Do what the published entries need after their portion. Without the lock."""
        later, self._later = self._later, []
        for call in later:
            call()

    # --- rooms ---

    def _publish_join(self, entry: entries.JoinRoom, change: RoomChange, origin: Origin) -> None:
        """All connections of the user are told of a change, else the one that asked."""
        user = self._users.by_account.get(entry.account_id)
        role = change.role or RoomRole.MEMBER
        room = None
        if user is not None:
            user.note_change()
            if change.is_changed and user.is_loaded:
                room = self._users.enter(user, change.room_id, change.name)
        if change.is_changed and self._presence.is_online(entry.username) and change.room_id in self._users.rooms:
            self._users.tracking.joined(self._users.rooms[change.room_id], entry.username, role, change.place)
        if user is None:  # it has gone offline, or is on another server
            return
        users, version = self._presence.users(change.room_id)
        joined = events.Joined(change.name, change.topic, users, change.last_id, change.is_private, role)
        entered: Event | None = None
        for member in user.members:
            if not (member is origin or (room is not None and member.knows_rooms)):
                continue
            if room is not None and member.knows_rooms:
                self._users.follow(room, member, version)
            if member.tracks_members:
                entered = entered or placed(self._entered(entry, change), change.place)
            member.send_queue.insert([entered if member.tracks_members and entered else joined])

    def _entered(self, entry: entries.JoinRoom, change: RoomChange) -> events.Entered:
        """The answer for a tracking connection, which follows the room by now."""
        room = self._users.rooms[change.room_id]
        return events.Entered(
            room=change.name,
            username=entry.username,
            topic=change.topic,
            topic_by=change.topic_by,
            topic_ms=change.topic_ms,
            created_ms=change.created_ms,
            modes=change.modes,
            last_id=change.last_id,
            members=self._users.tracking.members(self._users.tracking.listing(room), change.roles),
        )

    def _publish_part(self, entry: entries.PartRoom, change: RoomChange, _: Origin) -> None:
        room = self._users.rooms.get(change.room_id)
        self._end_membership(entry.account_id, change, reason=entry.reason)
        if room is not None and change.old_role is not None:
            self._users.tracking.left(room, entry.username, entry.reason, change.place)
        self._tell_heir(change)

    def _publish_kick(self, entry: entries.KickMember, change: RoomChange, origin: Origin) -> None:
        kicked = events.Kicked(room=change.name, username=entry.username, by=entry.by, reason=entry.reason)
        if change.old_role is None:  # an invitation, of which the other members don't know
            self._tell_origin(origin, kicked)
            return
        self._end_membership(entry.account_id, change, entry.by, entry.reason)
        room = self._users.rooms.get(change.room_id)
        if room is None or room.listed is None or self._users.tracking.note_left(room, entry.username):
            self._tell_room(change, kicked, change.place, origin)
        else:  # the tracking followers don't know of the member, who is offline
            room.append_untracked([kicked])
            room.flush()
            if isinstance(origin, Member) and (origin.tracks_members or not room.is_followed_by(origin)):
                _insert(origin, kicked, change.place)
        self._tell_heir(change)
        for member in self._users.operators:
            if member.knows_moderation and member is not origin and not (room and room.is_followed_by(member)):
                member.send_queue.insert([kicked])

    def _publish_topic(self, entry: entries.SetTopic, change: RoomChange, origin: Origin) -> None:
        kind = events.TopicChanged if change.is_changed else events.TopicUnchanged
        self._tell_changed(change, kind(change.name, change.topic, entry.by), origin)

    def _publish_role(self, entry: entries.SetRole, change: RoomChange, origin: Origin) -> None:
        about = {"room": change.name, "username": entry.username, "by": entry.by}
        role, old_role = change.role or RoomRole.MEMBER, change.old_role or RoomRole.MEMBER
        self._tell_changed(change, events.RoleMoved(**about, role=role, old_role=old_role), origin)
        if (user := self._users.by_account.get(entry.account_id)) is not None:
            user.note_change()  # the others are told the role of a user who logs in

    def _publish_modes(self, entry: entries.SetRoomModes, change: RoomChange, origin: Origin) -> None:
        moved = events.ModesMoved(
            room=change.name, modes=change.modes, by=entry.by, old=change.old_modes, created_ms=change.created_ms
        )
        self._tell_changed(change, moved, origin)

    def _publish_invitation(self, entry: entries.InviteUser, change: RoomChange, origin: Origin) -> None:
        """Tell the one who invited, the user, and those of the members who track members."""
        kind = events.Invited if change.role is None else events.InvitedMember
        invited = kind(change.name, entry.username, entry.by)
        self._tell_origin(origin, invited)
        if not change.is_changed:
            return
        for member in () if change.is_ignored else self._users.members_of(entry.account_id):
            if member.knows_rooms:
                member.send_queue.insert([invited])
        room = self._users.rooms.get(change.room_id)
        if room is not None:
            room.append_tracking([invited], [origin] if isinstance(origin, Member) else (), is_for_own=False)
            room.flush()

    def _publish_rename(self, _: entries.RenameGuest, renamed: GuestRenamed, origin: Origin) -> None:
        account = renamed.account
        if not isinstance(origin, Member):  # a guest of another server, whose presence comes from there
            for room_id, role in renamed.roles.items():
                room = self._users.rooms.get(room_id)
                if room is not None and account.name in (room.listed or ()):  # its presence came first
                    room.append_tracking([events.RoleChanged(room=room.name, username=account.name, role=role)])
                    room.flush()
            return
        origin.claim = account.claim
        origin.first_id = self._users.newest_id + 1  # messages to an earlier guest of the name have the same row
        self._users.rename(origin.account_id, account.id, account.name)

    def _publish_heirs(self, _: entries.GuestsLeave, gone: GuestsGone, __: Origin) -> None:
        """The guests are offline already: their server has said so, or is gone itself."""
        for change in gone.rooms:
            self._tell_heir(change)

    def _end_membership(self, account_id: int, change: RoomChange, by: str | None = None, reason: str = "") -> None:
        """End the membership of a user, and tell its connections. The room is told by the caller."""
        if change.old_role is None:  # an invitation
            return
        user = self._users.by_account.get(account_id)
        if user is not None:
            user.note_change()
            room = user.rooms.get(room_key(change.name))
            for member in user.members:
                if member.knows_rooms:
                    if room is not None:
                        self._users.unfollow(room, member)
                    _insert(member, events.Parted(change.name, by, reason), change.place)
            if room is not None:
                self._users.exit(user, room_key(change.name))

    def _tell_heir(self, change: RoomChange) -> None:
        """Tell the room who owns it now, if its owner left."""
        if not change.heir:
            return
        event = events.RoleChanged(room=change.name, username=change.heir, role=RoomRole.OWNER)
        self._tell_room(change, event, change.heir_place)

    # --- moderation ---

    def _publish_sanction(self, entry: entries.Sanction, done: Moderated, origin: Origin) -> None:
        if done.change is not None:
            self._end_membership(entry.account_id, done.change, entry.by, entry.reason)
            room = self._users.rooms.get(done.change.room_id)
            if room is not None and self._users.tracking.note_left(room, entry.username):
                kicked = events.Kicked(room=done.change.name, username=entry.username, by=entry.by, reason=entry.reason)
                room.append_tracking([placed(kicked, done.change.place)])
                room.flush()
            self._tell_heir(done.change)
        kind = events.Banned if entry.kind is SanctionKind.BAN else events.Muted
        until = None if done.until_ms is None else TimeMs(done.until_ms)
        event = kind(**_target(entry, done), by=entry.by, until=until, reason=entry.reason)
        target_id = 0 if done.is_hidden else entry.account_id
        self._tell_concerned(event, target_id, entry.room_id, origin, done.place)
        if entry.kind is SanctionKind.BAN and entry.room_id is None:
            for user in self._users_of(entry):
                user.note_change()
            text = sanction_text(ActiveSanction(entry.kind, done.until_ms, entry.reason))
            self._later.append(partial(self._expel, entry, Bye(text[0].lower() + text[1:], ErrorCode.BANNED)))

    def _publish_lift(self, entry: entries.LiftSanction, done: Moderated, origin: Origin) -> None:
        kind = events.Unbanned if entry.kind is SanctionKind.BAN else events.Unmuted
        target_id = 0 if done.is_hidden else entry.account_id
        event = kind(**_target(entry, done), by=entry.by)
        self._tell_concerned(event, target_id, entry.room_id, origin, done.place)

    def _publish_kick_off(self, entry: entries.KickFromServer, _: Moderated, origin: Origin) -> None:
        kicked = events.Kicked(username=entry.username, by=entry.by, reason=entry.reason)
        self._tell_concerned(kicked, entry.account_id, None, origin)
        if (user := self._users.by_account.get(entry.account_id)) is not None:
            user.note_change()  # perhaps the account is deleted
        reason = f": {entry.reason}" if entry.reason else ""
        bye = Bye(f"{entry.by} ended your connections{reason}", ErrorCode.KICKED)
        self._later.append(partial(self._expel, entry, bye))

    def _publish_server_role(self, entry: entries.SetServerRole, _: Moderated, origin: Origin) -> None:
        role = RoomRole.OPERATOR if entry.role is Role.OPERATOR else RoomRole.MEMBER
        changed = events.RoleChanged(username=entry.username, role=role, by=entry.by)
        self._tell_concerned(changed, entry.account_id, None, origin)
        user = self._users.by_account.get(entry.account_id)
        if user is None:
            return
        user.note_change()
        for member in user.members:
            member.is_operator = entry.role is Role.OPERATOR
            if member.is_operator:
                self._users.operators[member] = None
            else:
                self._users.operators.pop(member, None)

    def _publish_deletion(self, entry: entries.DeleteMessage, message: DeletedMessage, origin: Origin) -> None:
        deleted = events.Deleted(entry.message_id, entry.by, message.room, entry.reason)
        if message.recipient:
            users = {"sender": message.sender, "recipient": message.recipient}
            deleted = events.DirectDeleted(entry.message_id, entry.by, reason=entry.reason, **users)
        if not message.text:  # it was deleted before
            self._tell_origin(origin, deleted)
            return
        recipient_id = message.recipient_id
        was = IndexedMessage(entry.message_id, message.conversation_id, message.sender_id, recipient_id, message.text)
        self._later.append(partial(self._note_deleted, was))
        if message.conversation_id == DIRECT_ID and message.is_ignored:
            self._tell(deleted, origin, message.sender_id)
            self._tell(replace(deleted, reason=""), None, recipient_id or 0)
        elif message.conversation_id == DIRECT_ID:
            self._tell(deleted, origin, message.sender_id, recipient_id or 0)
        else:
            room = self._users.rooms.get(message.conversation_id)
            self._tell(deleted, origin, members=room.members() if room else ())

    def _publish_removal(self, _: entries.Prune | entries.EraseMessages, removed: Removed, __: Origin) -> None:
        if removed.after_id is None:
            self._later.append(self._note_removal)

    def _publish_report(self, entry: entries.Report, done: Moderated, origin: Origin) -> None:
        about: dict[str, Any] = {"id": entry.message_id} if entry.message_id else {"username": entry.username}
        reported = events.Reported(room=done.room, by=entry.by, reason=entry.reason, **about)
        self._tell(reported, origin, members=self._users.operators)

    # --- accounts ---

    def _publish_password(self, entry: entries.PasswordChange, has_changed: bool, _: Origin) -> None:  # noqa: FBT001
        if has_changed and not entry.is_rehash:
            self._end_sessions(entry.account_id, partial(ne, entry.kept_token))

    def _publish_revocation(self, entry: entries.AddToken | entries.RevokeTokens, revoked: Revoked, _: Origin) -> None:
        if revoked.token_ids:
            self._end_sessions(entry.account_id, revoked.token_ids.__contains__)

    def _publish_read_mark(self, entry: entries.ReadMark, marked: Marked, origin: Origin) -> None:
        """Tell the other connections of the user; the session answers the one that asked."""
        if not marked.is_changed:
            return
        room = None if entry.other_id else entry.room or LOBBY
        event = events.ReadMarked(room, entry.other or None, marked.time_ms)
        for member in self._users.members_of(entry.account_id):
            if member.tracks_members and member is not origin:
                member.send_queue.insert([event])

    # --- to whom events are sent ---

    def _tell_concerned(
        self, event: Event, account_id: int, room_id: int | None, origin: Origin, place: EventPlace | None = None
    ) -> None:
        """Send the event to the target (0: none), the operators of the server, and the members of the room."""
        room = self._users.rooms.get(room_id) if room_id is not None else None
        members = room.members() if room is not None else []
        self._tell(event, origin, account_id, members=[*self._users.operators, *members], place=place)

    def _tell(
        self,
        event: Event,
        origin: Origin,
        *account_ids: int,
        members: Iterable[Member] = (),
        place: EventPlace | None = None,
    ) -> None:
        """Send the event once to these members, those of the accounts (if they know moderation), and the origin."""
        told = dict.fromkeys(members)
        for account_id in account_ids:
            told |= dict.fromkeys(self._users.members_of(account_id))
        for member in told:
            if member.knows_moderation and member is not origin:
                _insert(member, event, place)
        self._tell_origin(origin, event, place)

    def _tell_changed(self, change: RoomChange, event: Event, origin: Origin) -> None:
        """Tell the room of a change; if nothing changed, answer the request."""
        if change.is_changed:
            self._tell_room(change, event, change.place, origin)
        else:
            self._tell_origin(origin, event)

    def _tell_room(
        self, change: RoomChange, event: Event, place: EventPlace | None = None, origin: Origin = None
    ) -> None:
        """Send the event to the followers of the room, and to the origin, which may be an operator outside of it.

        An origin that tracks members gets it encoded for itself, as the answer to its request.
        """
        room = self._users.rooms.get(change.room_id)
        if isinstance(origin, Member) and not (room and room.is_followed_by(origin)):
            _insert(origin, event, place)
        if room is not None:
            room.append_untracked([event])
            room.append_tracking([placed(event, place)], [origin] if isinstance(origin, Member) else ())
            room.flush()

    def _tell_origin(self, origin: Origin, event: Event, place: EventPlace | None = None) -> None:
        if isinstance(origin, Member):
            _insert(origin, event, place)

    # --- the end of connections ---

    def _end_sessions(self, account_id: int, is_revoked: Callable[[str], bool]) -> None:
        """End the connections of the account whose tokens are revoked. Logins look for theirs again."""
        user = self._users.by_account.get(account_id)
        if user is None:
            return
        user.note_change()
        members = [member for member in user.members if member.token_id and is_revoked(member.token_id)]
        if members:
            self._later.append(partial(_hang_up, members, _REVOKED))

    def _users_of(self, entry: entries.KickFromServer | entries.Sanction) -> Collection[User]:
        """The users who may be concerned: the one of the account, or all if the entry is about a network."""
        if isinstance(entry, entries.Sanction) and entry.network:
            return self._users.by_account.values()
        user = self._users.by_account.get(entry.account_id)
        return [] if user is None else [user]

    def _expel(self, entry: entries.KickFromServer | entries.Sanction, bye: Bye) -> None:
        """End the connections of the account, or those from the network. Without the lock."""
        network = entry.network if isinstance(entry, entries.Sanction) else ""
        with self._users.lock:
            members = [member for user in self._users_of(entry) for member in user.members]
        if network:  # 10,000 take 0.1 s
            members = [member for member in members if is_in_network(member.address, network)]
        _hang_up(members, bye)
        self._expel_guests(entry)  # the lock of the guests comes before that of the users

    _CHANGES: ClassVar[dict[type, Callable[[ChangePublisher, Any, Any, Origin], None]]] = {
        entries.JoinRoom: _publish_join,
        entries.PartRoom: _publish_part,
        entries.KickMember: _publish_kick,
        entries.SetTopic: _publish_topic,
        entries.SetRole: _publish_role,
        entries.SetRoomModes: _publish_modes,
        entries.InviteUser: _publish_invitation,
        entries.Sanction: _publish_sanction,
        entries.LiftSanction: _publish_lift,
        entries.KickFromServer: _publish_kick_off,
        entries.SetServerRole: _publish_server_role,
        entries.DeleteMessage: _publish_deletion,
        entries.Report: _publish_report,
        entries.RenameGuest: _publish_rename,
        entries.GuestRelease: _publish_heirs,
        entries.ServerStart: _publish_heirs,
        entries.ServerGone: _publish_heirs,
        entries.Prune: _publish_removal,
        entries.EraseMessages: _publish_removal,
        entries.PasswordChange: _publish_password,
        entries.AddToken: _publish_revocation,
        entries.RevokeTokens: _publish_revocation,
        entries.ReadMark: _publish_read_mark,
    }


def _insert(member: Member, event: Event, place: EventPlace | None) -> None:
    """Send an event to one connection, which gets the place if it tracks members."""
    member.send_queue.insert([placed(event, place) if member.tracks_members else event])


def _hang_up(members: Iterable[Member], bye: Bye) -> None:
    """End these connections. Without the lock."""
    for member in members:
        member.quit_reason = bye.reason
        member.send_queue.finish([bye], hang_up=True)


def _target(entry: entries.Sanction | entries.LiftSanction, done: Moderated) -> dict[str, Any]:
    """The members of an event that say what it is about."""
    return {"room": done.room, "username": entry.username or None, "address": entry.network or None}
