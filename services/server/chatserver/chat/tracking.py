"""Tracking: connections that are shown the members of their rooms, one by one.

Theory of operation
-------------------

A connection of json gets an update of all users now and then (``presence.py``). A connection that *tracks* members gets
a list when it enters a room, and then each change: a user joined, left, was renamed or went offline. Both must agree
with the truth, which is in Presence: the users who are online in each room.

**Listings.** ``Room.listed`` has the names that the tracking followers of a room have been told. All of them have been
told the same: a follower gets the names that are listed when it enters, and each change of the listing is appended to
the buffers that it follows. A room without such followers has no listing, and costs nothing.

**Changes.** The hub tells a change of its own users at once, in the journal's order. Users of other servers, and guests
of register, change in Presence without the hub. Each of their changes is announced by Presence a moment later. For each
name of an announcement, :meth:`Tracking.reconcile` compares the listing with the truth, and tells the difference. The
announcement itself is no more than a hint, so a late or repeated one does no harm.

**Once.** A user who goes offline leaves many rooms, and a connection may be in several of them. The event is appended
to the buffers of the biggest room, and inserted for the followers of the others, who do not get it in the biggest one:
buffers have no order, and the room in which a user has just joined must not tell that after the user has gone. The same
holds for a new name, or for a user who is away. ``_listings`` has the rooms that list a name, because the rooms of a
user of another server are not known.

**Watches.** For each watched name there is one note of what its watchers have been told, online or offline. After each
change of the name it is compared with the truth.

The hub's lock guards everything here. Presence is a leaf below it.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from chatprotocol.errors import ErrorCode, RequestError
from chatprotocol.events import (
    CameOnline,
    MemberJoined,
    MemberLeft,
    PastUser,
    Placed,
    Renamed,
    RoomMember,
    RoomRole,
    UserInfo,
    UserQuit,
    Watched,
    WentOffline,
)
from chatprotocol.limits import PAST_USERS_MAX, WATCHED_MAX
from chatprotocol.rules import LOBBY, name_key
from chatserver.store.rooms import LOBBY_ID

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from chatprotocol.events import Event, EventPlace, Users
    from chatserver.chat.presence import Presence
    from chatserver.chat.room import Member, Room, User

# The listed users of a room, each with its user of this server, if it has one.
Listing: TypeAlias = "Sequence[tuple[str, User | None]]"


def placed(event: Event, place: EventPlace | None) -> Event:
    """The event for connections that track members, with its place in the history of the room if it has one."""
    return event if place is None else Placed(event, place)


class _Watch(NamedTuple):
    """The watchers of one name."""

    members: dict[Member, None]
    # Its spelling when they were told that the user is online; empty if they were told that it is offline.
    online: list[str]


class Tracking:
    """What tracking connections have been told about other users. For the hub, under its lock."""

    def __init__(self, presence: Presence, lobby: Room, now_ms: Callable[[], int]) -> None:
        self._presence = presence
        self._lobby = lobby
        self._now_ms = now_ms
        # The users of this server who are online, by name.
        self._users: dict[str, User] = {}
        # The rooms other than the lobby that list a name.
        self._listings: dict[str, list[Room]] = {}
        # By the key of the name; and the names that each member watches, by key.
        self._watches: dict[str, _Watch] = {}
        self._watched: dict[Member, dict[str, str]] = {}
        # The members that are told of what the users whom they watch do, too: see requests.Watch.
        self._extended: set[Member] = set()
        # The users who went offline last, oldest first.
        self._past: deque[PastUser] = deque(maxlen=PAST_USERS_MAX)
        # Names of guests who are online and are no users of this server: those of register, and of other servers.
        self._guests: set[str] = set()
        # Users of this server who went offline, and of whom presence has not told yet.
        self._left_here: set[str] = set()
        self.users_max = 0

    @property
    def is_used(self) -> bool:
        """True if a connection tracks the members of a room, or watches a user."""
        return bool(self._listings or self._watches) or self._lobby.listed is not None

    # --- what is known of users ---

    def info(self, name: str) -> UserInfo:
        """What is known of a user who is online. Also without the lock: each value is read by itself."""
        return self._info(name, self._users.get(name), self._now_ms())

    def _info(self, name: str, user: User | None, now_ms: int) -> UserInfo:
        if user is None:  # of a user of another server only the name is known
            return UserInfo(username=name, is_online=True, is_guest=name in self._guests)
        return _info_of(name, user, now_ms)

    def is_user(self, name: str) -> bool:
        """True for a user of this server who is online and has a connection of the hub. For any thread."""
        return name in self._users

    def note_guests(self, update: Users, guests: Collection[str], *, is_lobby: bool) -> None:
        """Note that some of the users who joined are guests. ``is_lobby``: those who left are offline."""
        self._guests.difference_update(update.left if is_lobby else (), update.joined)
        self._guests.update(guests)

    def listing(self, room: Room) -> Listing:
        """The users that are listed in a room that is tracked."""
        return [(name, self._users.get(name)) for name in room.listed or ()]

    def members(self, listing: Listing, roles: Mapping[str, RoomRole]) -> tuple[RoomMember, ...]:
        """Describe listed users. Also without the lock: later changes of a user are told by later events."""
        now_ms = self._now_ms()
        return tuple(
            RoomMember(self._info(name, user, now_ms), roles.get(name, RoomRole.MEMBER)) for name, user in listing
        )

    def ident_of(self, name: str) -> str:
        """The ident of a user of this server who is online, or the name. For any thread."""
        user = self._users.get(name)
        return (user and user.ident) or name

    def is_account(self, name: str) -> bool:
        """True for a user of this server who is online, and no guest. For any thread."""
        user = self._users.get(name)
        return user is not None and not user.is_guest

    def is_bot(self, name: str) -> bool:
        """True for a user of this server who is online, and has said that it is a program. For any thread."""
        user = self._users.get(name)
        return user is not None and user.is_bot

    def past(self, name: str, limit: int) -> tuple[PastUser, ...]:
        """The users of this name who went offline last, newest first; none if there is one who is online."""
        key = name_key(name)
        found = [each for each in reversed(self._past) if name_key(each.username) == key]
        return tuple(each for each in found if not self._presence.is_online(each.username))[:limit]

    # --- rooms ---

    def begin(self, room: Room) -> None:
        """List the users of a room that has its first tracking follower."""
        if room.listed is None:
            room.listed = {}
            for name in self._presence.members(room.id):
                self._add(room, name)

    def end(self, room: Room) -> None:
        """Forget the listing of a room whose last tracking follower has left."""
        for name in list(room.listed or ()):
            self._discard(room, name)
        room.listed = None

    def joined(self, room: Room, name: str, role: RoomRole, place: EventPlace | None = None) -> None:
        """Tell that a user is in the room now, if that is news. ``place``: where the history has it."""
        if room.listed is not None and name not in room.listed:
            self._add(room, name)
            room.append_tracking([placed(MemberJoined(room=_label(room), info=self.info(name), role=role), place)])
            room.flush()

    def left(self, room: Room, name: str, reason: str = "", place: EventPlace | None = None) -> None:
        """Tell that a user is no longer in the room, if that is news. ``place``: where the history has it."""
        if self.note_left(room, name):
            room.append_tracking([placed(MemberLeft(_label(room), name, reason), place)])
            room.flush()

    def note_left(self, room: Room, name: str) -> bool:
        """Note that the followers are told by another event. False if they do not know of this member."""
        if room.listed is None or name not in room.listed:
            return False
        self._discard(room, name)
        return True

    def reconcile(self, room: Room, update: Users, roles: Mapping[str, RoomRole]) -> None:
        """Compare what was told with the truth, for the users that an update is about."""
        for name in (*update.left, *update.joined):
            if room is self._lobby:
                self._note_presence(name, has_left=name in update.left)
            if room.listed is None:
                continue
            if self._presence.is_in(name, room.id):
                self.joined(room, name, roles.get(name, RoomRole.MEMBER))
            elif self._presence.is_online(name):
                self.left(room, name)
            elif name in room.listed:
                self._quit(name, "")

    # --- users ---

    def came_online(self, user: User, roles: Mapping[int, RoomRole]) -> None:
        """Tell that a user of this server is online, with its role in each of its rooms."""
        self._users[user.name] = user
        self._left_here.discard(user.name)
        self.users_max = max(self.users_max, self._presence.count)
        self.joined(self._lobby, user.name, RoomRole.MEMBER)
        for room in user.rooms.values():
            self.joined(room, user.name, roles.get(room.id, RoomRole.MEMBER))
        self._tell_watchers(user.name)

    def went_offline(self, user: User, reason: str) -> None:
        """Tell that the last connection of a user of this server has ended. The user may be on another server."""
        if not self._presence.is_online(user.name):
            self._left_here.add(user.name)
            self._past.append(PastUser(user.name, user.realname, self._now_ms(), user.ident))
            self._quit(user.name, reason)
            self._tell_watchers(user.name)
        if self._users.get(user.name) is user:
            del self._users[user.name]

    def renamed(self, user: User, before: str) -> None:
        """Tell that a user has another name.

        Rooms may list an earlier user of either name, of another server, whose end presence has not announced yet.
        """
        self._quit(user.name, "")
        for room in self._rooms_of(before):
            if not self._presence.is_in(user.name, room.id):
                self.left(room, before)
        self._users[user.name] = user
        rooms = self._rooms_of(before)
        self._tell(rooms, Renamed(before, user.name), user)
        del self._users[before]
        for room in rooms:
            self._discard(room, before)
            self._add(room, user.name)
        self._left_here.discard(user.name)
        self._left_here.add(before)
        self._past.append(PastUser(before, user.realname, self._now_ms(), user.ident))
        if name_key(before) != name_key(user.name):
            self._tell_watchers(before)
            self._tell_watchers(user.name)
        elif (watch := self._watches.get(name_key(before))) is not None:
            watch.online[:] = [user.name]  # for the watchers it is the same name

    def tell_about(self, user: User, event: Event) -> None:
        """Send an event once to each connection that shares a room with the user or watches it, and to its own."""
        rooms = self._rooms_of(user.name)
        self._tell(rooms, event, user)
        watch = self._watches.get(name_key(user.name)) if self._extended else None
        for member in watch.members if watch is not None else ():
            is_told = member in user.members or any(room.is_followed_by(member) for room in rooms)
            if member in self._extended and not is_told:
                member.send_queue.insert([event])

    # --- watches ---

    def watch(
        self, member: Member, names: Sequence[str], removed: Iterable[str], *, clears: bool, is_extended: bool = False
    ) -> Watched:
        """See requests.Watch. RequestError: too many names. Then nothing has changed."""
        watched = {} if clears else dict(self._watched.get(member, {}))
        for name in removed:
            watched.pop(name_key(name), None)
        watched |= {name_key(name): name for name in names}
        if len(watched) > WATCHED_MAX:
            raise RequestError(ErrorCode.TOO_LONG, f"A connection watches {WATCHED_MAX} users at most.")
        before = self._watched.get(member, {})
        for key in before.keys() - watched.keys():
            self._unwatch(member, key)
        for key, name in watched.items():
            watch = self._watches.get(key)
            if watch is None:
                online = [name] if self._presence.is_online(name) else []
                watch = self._watches[key] = _Watch({}, online)
            watch.members[member] = None
        self._watched[member] = watched
        (self._extended.add if is_extended else self._extended.discard)(member)
        told = {name: self._watches[name_key(name)].online for name in names}
        return Watched(
            tuple(online[0] for online in told.values() if online),
            tuple(name for name, online in told.items() if not online),
            tuple(watched.values()),
        )

    def forget(self, member: Member) -> None:
        """Forget the watches of a connection that has ended."""
        self._extended.discard(member)
        for key in self._watched.pop(member, ()):
            self._unwatch(member, key)

    def _unwatch(self, member: Member, key: str) -> None:
        watch = self._watches[key]
        del watch.members[member]
        if not watch.members:
            del self._watches[key]

    def _tell_watchers(self, name: str) -> None:
        """Tell the watchers of a name if it came online or went offline since they were told last."""
        watch = self._watches.get(name_key(name)) if self._watches else None
        if watch is None:
            return
        is_online = self._presence.is_online(name)
        if is_online == bool(watch.online) or (watch.online and watch.online != [name]):
            return
        watch.online[:] = [name] if is_online else []
        for member in watch.members:
            member.send_queue.insert([CameOnline(name) if is_online else WentOffline(name)])

    # --- helpers ---

    def _note_presence(self, name: str, *, has_left: bool) -> None:
        """Note that a user came online or went offline, perhaps on another server or as a guest of register."""
        if self._presence.is_online(name):
            self._left_here.discard(name)
        elif name in self._left_here:
            if has_left:
                self._left_here.remove(name)
        elif has_left:
            self._past.append(PastUser(name, "", self._now_ms()))
        self._tell_watchers(name)

    def _quit(self, name: str, reason: str) -> None:
        rooms = self._rooms_of(name)
        for room in rooms:
            self._discard(room, name)
        self._tell(rooms, UserQuit(name, reason))

    def _rooms_of(self, name: str) -> list[Room]:
        """The rooms that list the user."""
        rooms = list(self._listings.get(name, ()))
        if self._lobby.listed is not None and name in self._lobby.listed:
            rooms.append(self._lobby)
        return rooms

    def _tell(self, rooms: Sequence[Room], event: Event, user: User | None = None) -> None:
        """Send an event once to each tracking follower of the rooms, and to the connections of ``user``.

        These get it in the encoding of their own: for them it means something else. So do the followers of several of
        the rooms: an insertion alone comes after what the other rooms have told of the user.
        """
        biggest = max(rooms, key=_count_tracking, default=None)
        inserted = [member for member in user.members if member.tracks_members] if user is not None else []
        for room in rooms:
            if room is not biggest:
                inserted += room.tracking_members()
        inserted = list(dict.fromkeys(inserted))
        for member in inserted:
            member.send_queue.insert([event])
        if biggest is not None:
            biggest.append_tracking([event], inserted, is_for_own=False)
            biggest.flush()

    def _add(self, room: Room, name: str) -> None:
        assert room.listed is not None
        room.listed[name] = None
        if room.id != LOBBY_ID:
            self._listings.setdefault(name, []).append(room)

    def _discard(self, room: Room, name: str) -> None:
        assert room.listed is not None
        del room.listed[name]
        if room.id != LOBBY_ID:
            rooms = self._listings[name]
            rooms.remove(room)
            if not rooms:
                del self._listings[name]


def _info_of(name: str, user: User, now_ms: int) -> UserInfo:
    """What is known of a user of this server who is online, under this name."""
    members = list(user.members)
    active_ms = max((member.said_ms for member in members), default=0) or user.login_ms
    return UserInfo(
        username=name,
        is_online=True,
        is_guest=user.is_guest,
        is_operator=any(member.is_operator for member in members),
        is_bot=user.is_bot,
        realname=user.realname,
        ident=user.ident,
        away=user.away,
        login_ms=user.login_ms,
        idle_seconds=max(0, now_ms - active_ms) // 1000,
    )


def _label(room: Room) -> str:
    return room.name or LOBBY


def _count_tracking(room: Room) -> int:
    return sum(len(each.seen_versions) for each in room.followers.values() if each.tracks_members)
