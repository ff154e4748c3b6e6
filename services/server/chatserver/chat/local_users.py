"""The users of this server who are online, with their connections and their rooms: join, leave, and follow rooms.

A *member* is one logged-in connection. All users are in the lobby. The other rooms (``room.py``) of a user are read at
its first login, and then changed with each entry of the journal, in order.

At the first login of a user, the store may have entries that the hub has not seen, and the hub may see more entries
after the rooms were read. Therefore the caller calls :meth:`LocalUsers.begin_join`, reads the rooms, and calls
:meth:`LocalUsers.join`. If an entry changed the rooms between the calls, or other rooms are known than those that were
read, the join fails. The caller then waits until the hub has seen all committed entries, and reads again. A ban and a
change of the user's role on the server count as such changes: see Login.
"""

from __future__ import annotations

import threading
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import structlog

from chatprotocol import events
from chatprotocol.errors import ErrorCode
from chatprotocol.events import RoomRole
from chatprotocol.rules import LOBBY, room_key
from chatserver.chat.room import Member, Room, User
from chatserver.chat.tracking import Tracking
from chatserver.clock import wall_ms
from chatserver.store.rooms import LOBBY_ID

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from chatserver.chat.delivery_marks import DeliveryMarks
    from chatserver.chat.presence import Presence
    from chatserver.chat.tracking import Listing
    from chatserver.net.broadcast import BroadcastBuffer
    from chatserver.store.rooms import RoomView

_log = structlog.get_logger()

_REPLACED = events.Bye("replaced by a newer connection", ErrorCode.REPLACED)

# The id of the room in which nothing is said. No room has it.
_QUIET_ID = -1

# Maximum members of the account that each login checks, newest first: each check takes a few system calls.
_CHECKED_MAX = 4


class JoinState(NamedTuple):
    """What there was when a member joined."""

    # The member receives messages after this one, of the lobby and of its rooms.
    last_id: int
    # The account's mark; 0 if it has not moved since the server started. See DeliveryMarks.
    delivered_id: int
    # Names of all users who are online.
    users: tuple[str, ...] = ()
    # True if the account has no other member, here or on another server.
    is_alone: bool = True
    # For a member that tracks members: the users that were listed in each of its rooms.
    listings: Mapping[int, Listing] = {}


class LobbyEntered(NamedTuple):
    """The lobby when a member entered it."""

    # The member receives messages after this one.
    last_id: int
    listing: Listing
    # True if the member was in it before.
    was_in: bool


class LocalUsers:
    """The users of this server, and who follows which broadcast buffers. For any thread.

    The hub changes the attributes without an underscore, and calls the last methods, under ``lock``. A single value may
    be read without it: the protocols ask ``tracking`` for a name.
    """

    def __init__(
        self,
        buffers: Mapping[str, BroadcastBuffer],
        open_buffer: Callable[[str], BroadcastBuffer],
        close_buffer: Callable[[BroadcastBuffer], None],
        presence: Presence,
        marks: DeliveryMarks,
        newest_id: int,
        wake: Callable[[], None],
        user_connections: int = 0,
        now_ms: Callable[[], int] = wall_ms,
    ) -> None:
        """``buffers`` has the lobby's buffer for each protocol by its name.

        ``open_buffer`` and ``close_buffer`` are for other rooms, and for other variants: see Room. ``newest_id`` is the
        newest message in the store. ``wake`` wakes the sender. ``user_connections``: maximum number of connections of a
        user; 0: no limit.
        """
        self._open_buffer = open_buffer
        self._close_buffer = close_buffer
        self._presence = presence
        self._marks = marks
        self._wake = wake
        self._user_connections = user_connections
        self._now_ms = now_ms
        # The hub's lock. Guards everything below, and the order of writes to broadcast buffers and send queues.
        self.lock = threading.Lock()
        # The newest published message. The hub alone moves it.
        self.newest_id = newest_id
        self.lobby = Room(LOBBY_ID, None, partial(self._open_lobby, buffers), partial(self._close_lobby, buffers))
        # The lobby, and the rooms with users who are online, by id.
        self.rooms = {LOBBY_ID: self.lobby}
        # Nothing is said in it. Members that follow no room can be sent events of their own because they follow it.
        self.quiet = Room(_QUIET_ID, None, open_buffer, close_buffer)
        self.tracking = Tracking(presence, self.lobby, now_ms)
        # By the id of the account; also those who are logging in.
        self.by_account: dict[int, User] = {}
        # The members that are operators of the server.
        self.operators: dict[Member, None] = {}
        # Members by wire protocol.
        self._counts: Counter[str] = Counter()

    def _open_lobby(self, buffers: Mapping[str, BroadcastBuffer], variant: str) -> BroadcastBuffer:
        return buffers[variant] if variant in buffers else self._open_buffer(variant)

    def _close_lobby(self, buffers: Mapping[str, BroadcastBuffer], buffer: BroadcastBuffer) -> None:
        if all(buffer is not each for each in buffers.values()):
            self._close_buffer(buffer)

    # --- join and leave ---

    def check_acknowledged(self, account_id: int) -> None:
        """Update the account's mark from the acknowledgements of its devices. Call it before a login."""
        with self.lock:
            members = self.members_of(account_id)[-_CHECKED_MAX:]
        for member in members:
            member.send_queue.check_acknowledged()

    def begin_join(self, member: Member) -> None:
        """Note changes of the user's rooms from now on. Call it before they are read, and :meth:`join` after it."""
        with self.lock:
            user = self.by_account.setdefault(member.account_id, User(member.name))
            user.logins[member] = False

    def cancel_join(self, member: Member) -> None:
        """Undo :meth:`begin_join`."""
        with self.lock:
            user = self.by_account[member.account_id]
            del user.logins[member]
            self._forget(member.account_id, user)

    def join(self, member: Member, rooms: Sequence[RoomView]) -> JoinState | None:
        """Add a member. Its send queue is held: the caller puts the missed messages and releases it.

        None: the rooms that were read are not those that are known. The caller waits for the journal, reads them again
        and calls again.
        """
        with self.lock:
            user = self.by_account[member.account_id]
            if user.logins[member]:
                user.logins[member] = False
                return None
            if user.is_loaded:
                if {room.id for room in user.rooms.values()} != {room.room_id for room in rooms}:
                    return None
            else:
                user.is_loaded = True
                for room in rooms:
                    self.enter(user, room.room_id, room.name)
            del user.logins[member]
            user.note_login(member, self._now_ms())
            if member.is_operator:
                self.operators[member] = None
            if member.is_counted and self._user_connections:
                self._replace_oldest(user)
            self._presence.add(member.name)
            if len(user.members) == 1:
                self.tracking.came_online(user, {room.room_id: room.role or RoomRole.MEMBER for room in rooms})
                if self.tracking.is_used:
                    self._wake()
            users, version = self._presence.users()
            self._counts[_protocol_of(member)] += 1
            (self.lobby if member.follows_lobby else self.quiet).follow(member, version)
            if member.knows_rooms:
                self._follow_rooms(user, member)
            is_alone = len(user.members) == 1 and not self._presence.is_elsewhere(member.name)
            listed = user.rooms.values() if member.tracks_members else ()
            listings = {room.id: self.tracking.listing(room) for room in listed}
            return JoinState(self.newest_id, self._marks.mark_of(member.account_id), users, is_alone, listings)

    def _replace_oldest(self, user: User) -> None:
        """End the oldest connection of a user that has too many. It may belong to a peer whose network has gone."""
        counted = [member for member in user.members if member.is_counted and not member.is_replaced]
        if len(counted) > self._user_connections:
            counted[0].is_replaced = True
            counted[0].quit_reason = _REPLACED.reason
            counted[0].send_queue.finish([_REPLACED], hang_up=True)
            _log.info("connection replaced", user=user.name)

    def catch_up(self, member: Member, upto_id: int) -> None:
        """Note that the member's send queue has all missed messages up to this one, and is released.

        The member's direct messages count as delivered after its peer has acknowledged them.
        """
        with self.lock:
            member.has_caught_up = True
            self.track(member, max(upto_id, member.newest_direct_id))

    def leave(self, member: Member) -> bool:
        """Remove a member, which receives no later messages. True if no user of this server is online any more.

        After its peer has acknowledged all earlier messages, the account's mark moves to the newest message.
        """
        with self.lock:
            user = self.by_account[member.account_id]
            user.members.remove(member)
            self.operators.pop(member, None)
            for room in user.rooms.values():
                self.unfollow(room, member)
            self._forget(member.account_id, user)
            self._counts[_protocol_of(member)] -= 1
            self.unfollow(self.lobby, member)
            self.quiet.unfollow(member)
            self._track_all(member)
            self.tracking.forget(member)
            is_empty = self._presence.remove(member.name)
            if not user.members:
                self.tracking.went_offline(user, member.quit_reason)
                if self.tracking.is_used:
                    self._wake()
            return is_empty

    def track_newest(self) -> None:
        """Track the newest message for all members at shutdown, as :meth:`leave` does. Nothing is published later."""
        with self.lock:
            for user in self.by_account.values():
                for member in user.members:
                    self._track_all(member)

    def _track_all(self, member: Member) -> None:
        """Track the newest message. The lock is held."""
        if member.has_caught_up:
            self.track(member, self.newest_id)

    # --- what members follow ---

    def enter_lobby(self, member: Member) -> LobbyEntered:
        """Send the member what is said in the lobby from now on.

        Its send queue is held, so that the caller can put the answer before it.
        """
        with self.lock:
            was_in = member.follows_lobby
            member.send_queue.hold()
            if not was_in:
                member.follows_lobby = True
                self.follow(self.lobby, member, self._presence.users()[1])
            return LobbyEntered(self.newest_id, self.tracking.listing(self.lobby), was_in)

    def leave_lobby(self, member: Member, *, tells: bool = True) -> None:
        """Undo :meth:`enter_lobby`. The other members of the lobby are not told."""
        with self.lock:
            member.follows_lobby = False
            self.unfollow(self.lobby, member)
            if tells:
                member.send_queue.insert([events.Parted(LOBBY)])

    def show_rooms(self, member: Member) -> None:
        """Send the member the events of its rooms, from now on."""
        with self.lock:
            member.knows_rooms = True
            self._follow_rooms(self.by_account[member.account_id], member)

    def change_encoding(self, member: Member, variant: str, *, echoes: bool) -> None:
        """Encode what follows for the member in another variant: see requests.ChangeEncoding."""
        with self.lock:
            before, member.variant, member.echoes = member.variant, variant, echoes
            for room in (self.quiet, self.lobby, *self.by_account[member.account_id].rooms.values()):
                room.change_variant(member, before)

    # --- what users say about themselves ---

    def set_away(self, member: Member, text: str) -> None:
        """Note that the user is away, and tell those who share a room with it; empty: the user is back."""
        with self.lock:
            user = self.by_account[member.account_id]
            user.away = text
            self.tracking.tell_about(user, events.AwayChanged(user.name, text))
        self._wake()

    def set_realname(self, member: Member, realname: str) -> None:
        """Replace the description of the user, and tell those who share a room with it."""
        with self.lock:
            user = self.by_account[member.account_id]
            user.realname = member.realname = realname
            self.tracking.tell_about(user, events.RealnameChanged(user.name, realname))
        self._wake()

    def set_bot(self, member: Member, *, is_bot: bool) -> None:
        """Note whether the user is a program."""
        with self.lock:
            self.by_account[member.account_id].is_bot = member.is_bot = is_bot

    def watch(
        self, member: Member, names: Sequence[str], removed: Sequence[str], *, clears: bool, is_extended: bool = False
    ) -> None:
        """Answer requests.Watch. RequestError: too many names."""
        with self.lock:
            watched = self.tracking.watch(member, names, removed, clears=clears, is_extended=is_extended)
            member.send_queue.insert([watched])

    def relay(self, member: Member, event: events.Relayed, target_id: int, *, is_room: bool) -> None:
        """Pass an event on to the tracking connections in a room, or those of an account, but not to this one."""
        with self.lock:
            if is_room:
                room = self.rooms.get(target_id)
                if room is not None and room.listed is not None:
                    room.append_tracking([event], [member], is_for_own=False)
                    room.flush()
            else:
                for each in self.members_of(target_id):
                    if each.tracks_members and each is not member:
                        each.send_queue.insert([event])
        self._wake()

    # --- questions ---

    def last_id(self) -> int:
        """Return the id of the newest published message. Events that are put into a send queue now follow it."""
        with self.lock:
            return self.newest_id

    def room_id(self, member: Member, name: str) -> int | None:
        """Return the id of a room that the user is in, ignoring the case of the name; None if it is not known."""
        with self.lock:
            room = self.by_account[member.account_id].rooms.get(room_key(name))
            return room.id if room else None

    def past(self, name: str, limit: int) -> tuple[events.PastUser, ...]:
        """Return the users of this name who went offline last."""
        with self.lock:
            return self.tracking.past(name, limit)

    def count_members(self) -> dict[str, int]:
        """Return the number of members by wire protocol; guests of register are no members."""
        with self.lock:
            return dict(+self._counts)

    def counts(self, unknown: int) -> events.Counts:
        """Return the numbers of users and rooms. ``unknown``: connections that are not logged in."""
        users = self._presence.count
        with self.lock:
            self.tracking.users_max = users_max = max(users, self.tracking.users_max)
            operators = len({member.account_id for member in self.operators})
            return events.Counts(
                users=users, users_max=users_max, operators=operators, unknown=unknown, rooms=len(self.rooms)
            )

    # --- for the hub: the lock is held ---

    def members_of(self, account_id: int) -> list[Member]:
        """Return the connections of an account, oldest first."""
        user = self.by_account.get(account_id)
        return user.members if user else []

    def track(self, member: Member, message_id: int) -> None:
        """Move the account's mark to this message after the peer has acknowledged all data so far.

        Guests have none: nothing is kept for them.
        """
        if member.is_guest:
            return
        member.send_queue.track(message_id, partial(self._marks.advance, member.account_id))

    def enter(self, user: User, room_id: int, name: str) -> Room:
        """Add a user to a room, once."""
        key = room_key(name)
        if key not in user.rooms:
            room = self.rooms.get(room_id)
            if room is None:
                room = self.rooms[room_id] = Room(room_id, name, self._open_buffer, self._close_buffer)
            user.rooms[key] = room
            self._presence.add(user.name, room_id, name)
        return user.rooms[key]

    def exit(self, user: User, key: str) -> None:
        """Remove a user, whose members no longer follow the room; forget a room without users."""
        room = user.rooms.pop(key)
        if self._presence.remove(user.name, room.id):
            del self.rooms[room.id]

    def follow(self, room: Room, member: Member, version: int) -> None:
        """Let a member follow a room; list the room's users for the first one that tracks them."""
        room.follow(member, version)
        if member.tracks_members:
            self.tracking.begin(room)

    def unfollow(self, room: Room, member: Member) -> None:
        """Undo :meth:`follow`."""
        room.unfollow(member)
        if room.listed is not None and not any(each.tracks_members for each in room.followers.values()):
            self.tracking.end(room)

    def _follow_rooms(self, user: User, member: Member) -> None:
        """Follow all rooms of the user. The first update about each room has news."""
        for room in user.rooms.values():
            self.follow(room, member, 0)

    def rename(self, account_id: int, new_account_id: int, name: str) -> None:
        """Give a user another name, and tell those who share a room with it."""
        user = self.by_account.get(account_id)
        if user is None:
            return
        before, user.name = user.name, name
        if new_account_id != account_id:
            self.by_account[new_account_id] = self.by_account.pop(account_id)
        for member in user.members:
            member.name, member.account_id = name, new_account_id
        rooms = {room.id: room.name for room in user.rooms.values()}
        self._presence.rename(before, name, len(user.members), rooms)
        if user.members:
            self.tracking.renamed(user, before)

    def _forget(self, account_id: int, user: User) -> None:
        """Remove a user that has neither a member nor a login that begins."""
        if not user.members and not user.logins:
            for key in list(user.rooms):
                self.exit(user, key)
            del self.by_account[account_id]


def _protocol_of(member: Member) -> str:
    return member.variant.partition("/")[0]
