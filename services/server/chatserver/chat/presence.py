"""Presence: the users who are online in each room, and announcements of changes.

If several servers share a log, a user is online if one of the servers has a connection of the user. ``Peers`` sets the
users of each other server (``peers.py``). Their changes are announced like those of the users of this server.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Collection  # noqa: TC003 -- msgspec evaluates it: see peers.py
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from chatprotocol.events import Users
from chatprotocol.limits import USERS_LISTED_MAX
from chatserver.store.rooms import LOBBY_ID
from chatserver.threads import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

# Interval in which changes are combined into one update.
COALESCE_SECONDS = 0.1
# Minimum interval per member: an update takes a system call per member, so in a large room changes are collected for
# longer, or until there are UPDATE_MAX_NAMES of them, the number of names that simple clients read at once. All rooms
# other than the lobby share one interval, because a login may change a hundred of them.
COALESCE_SECONDS_PER_USER = 0.0002
UPDATE_MAX_NAMES = 256
# Maximum names of another server that are changed under the lock at once: logins may wait for a millisecond.
_NAMES_AT_ONCE = 256


class RosterChange(NamedTuple):
    """Users of one server who came online in a room, or went offline. ``room`` is None for the lobby."""

    room_id: int
    room: str | None
    joined: Collection[str]
    left: Collection[str] = ()


class _Roster:
    """The users who are online in one room. The lock of Presence guards it."""

    __slots__ = ("changes", "counts", "elsewhere", "room")

    def __init__(self, room: str | None) -> None:
        # The room's name in updates; None for the lobby.
        self.room = room
        # The users of this server by name, in order of arrival.
        self.counts: Counter[str] = Counter()
        # The number of other servers that a user is on, by name.
        self.elsewhere: Counter[str] = Counter()
        # Unannounced changes by name: version, and true if the user came online; oldest first.
        self.changes: dict[str, tuple[int, bool]] = {}

    def names(self) -> tuple[str, ...]:
        """Names of the users: those of this server in order of arrival, then the others."""
        if not self.elsewhere:
            return tuple(self.counts)
        return tuple(dict.fromkeys([*self.counts, *self.elsewhere]))


class _Pace:
    """The rooms that share an interval between updates: the lobby, or all others. The lock of Presence guards it."""

    __slots__ = ("changed", "full_at", "next_at")

    def __init__(self) -> None:
        # The rooms with unannounced changes, in order.
        self.changed: dict[int, _Roster] = {}
        # Times of the next update: if one of the rooms has UPDATE_MAX_NAMES changes, and otherwise.
        self.full_at = 0.0
        self.next_at = 0.0

    def due_at(self) -> float:
        """The time of the next update; infinite without changes."""
        if not self.changed:
            return math.inf
        is_full = any(len(roster.changes) >= UPDATE_MAX_NAMES for roster in self.changed.values())
        return self.full_at if is_full else self.next_at


class Presence:
    """The users who are online in each room. In the lobby that is from the first login to the last logout.

    Every change raises the version by one. An update has the version of its last change, and is not sent to members who
    have seen the users of that version. Only updates of the lobby are repeated.
    """

    def __init__(
        self,
        repeat_seconds: float,
        on_crash: Callable[[str], None],
        *,
        coalesce_seconds: float = COALESCE_SECONDS,
        coalesce_seconds_per_user: float = COALESCE_SECONDS_PER_USER,
    ) -> None:
        self._coalesce_seconds = coalesce_seconds
        self._coalesce_seconds_per_user = coalesce_seconds_per_user
        self._announce: Callable[[int, Users, int], None] = lambda *_: None
        self._repeat_seconds = repeat_seconds
        self._worker = Worker("presence", self._run, on_crash)
        # Guards everything below, and is reentrant; notified after each change and at the end.
        self._changed = threading.Condition()
        # The lobby, and each room with users who are online.
        self._rosters = {LOBBY_ID: _Roster(None)}
        # The names on each other server, by room. The thread of Peers alone changes them.
        self._peers: dict[str, dict[int, set[str]]] = {}
        # True if a user of this server came online, by room and name, for take_changes; None before own_rosters.
        self._own_changes: dict[tuple[int, str], bool] | None = None
        self._lobby_pace, self._rooms_pace = _Pace(), _Pace()
        self._repeat_at = math.inf
        self._version = 0
        # Users in the lobby, on all servers.
        self._count = 0
        self._stopping = False

    def on_update(self, call: Callable[[int, Users, int], None]) -> None:
        """Set the function that gets the id of a room, the update and its version. Call it before :meth:`start`."""
        self._announce = call

    def start(self) -> None:
        self._worker.start()

    def stop(self) -> None:
        """Stop and join the presence thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._worker.join()

    def add(self, name: str, room_id: int = LOBBY_ID, room: str | None = None) -> None:
        """Add a connection of the user to the lobby, or the user to a room."""
        with self._changed:
            roster = self._roster(room_id, room)
            roster.counts[name] += 1
            if roster.counts[name] == 1:
                if self._own_changes is not None:
                    self._own_changes[room_id, name] = True
                if name not in roster.elsewhere:
                    self._note_change(roster, room_id, name, is_online=True)

    def remove(self, name: str, room_id: int = LOBBY_ID) -> bool:
        """Undo :meth:`add`. True if no user of this server is left."""
        with self._changed:
            roster = self._rosters[room_id]
            roster.counts[name] -= 1
            if roster.counts[name] == 0:
                del roster.counts[name]
                if self._own_changes is not None:
                    self._own_changes[room_id, name] = False
                if name not in roster.elsewhere:
                    self._note_change(roster, room_id, name, is_online=False)
            self._forget_empty(roster, room_id)
            return not roster.counts

    def rename(self, before: str, name: str, connections: int, rooms: Mapping[int, str | None]) -> None:
        """Replace a name in the lobby and in these rooms (their names, by id) at once: nobody sees both names."""
        with self._changed:
            for _ in range(connections):
                self.remove(before)
            for room_id in rooms:
                self.remove(before, room_id)
            for _ in range(connections):
                self.add(name)
            for room_id, room in rooms.items():
                self.add(name, room_id, room)

    def names(self, room_id: int = LOBBY_ID) -> tuple[str, ...]:
        """Names of the users: those of this server in order of arrival, then the others."""
        return self.users(room_id)[0]

    def users(self, room_id: int = LOBBY_ID) -> tuple[tuple[str, ...], int]:
        """Names of the users, and the version: updates up to it have nothing new."""
        with self._changed:
            roster = self._rosters.get(room_id)
            return roster.names() if roster else (), self._version

    def members(self, room_id: int) -> tuple[str, ...]:
        """Names of the users of a room who are online. For a moment, a room has a user whose login is not complete."""
        with self._changed:
            roster, lobby = self._rosters.get(room_id), self._rosters[LOBBY_ID]
            names = roster.names() if roster else ()
            return tuple(name for name in names if name in lobby.counts or name in lobby.elsewhere)

    def is_in(self, name: str, room_id: int) -> bool:
        """True if :meth:`members` has the name."""
        with self._changed:
            roster, lobby = self._rosters.get(room_id), self._rosters[LOBBY_ID]
            return all(each is not None and (name in each.counts or name in each.elsewhere) for each in (roster, lobby))

    @property
    def count(self) -> int:
        """Number of users who are online, on all servers."""
        return self._count

    def is_online(self, name: str) -> bool:
        """True if this user is online, on any server. ``name`` has the registered spelling."""
        with self._changed:
            lobby = self._rosters[LOBBY_ID]
            return name in lobby.counts or name in lobby.elsewhere

    def is_elsewhere(self, name: str) -> bool:
        """True if this user is online on another server."""
        # Without the lock: a single look into a dict.
        return name in self._rosters[LOBBY_ID].elsewhere

    @property
    def own_count(self) -> int:
        """Number of users of this server who are online."""
        # Without the lock: the length of a dict.
        return len(self._rosters[LOBBY_ID].counts)

    # --- for the thread of Peers ---

    def own_rosters(self) -> list[RosterChange]:
        """Return all users of this server. After the first call, :meth:`take_changes` has what changes."""
        with self._changed:
            if self._own_changes is None:
                self._own_changes = {}
            rosters = [(room_id, roster.room, tuple(roster.counts)) for room_id, roster in self._rosters.items()]
        return [RosterChange(*each) for each in rosters if each[2]]

    def take_changes(self) -> list[RosterChange]:
        """Return what changed among the users of this server since the last call, or since :meth:`own_rosters`."""
        with self._changed:
            changes, self._own_changes = self._own_changes or {}, {}
            by_room: dict[int, tuple[list[str], list[str]]] = {}
            for (room_id, name), is_online in changes.items():
                by_room.setdefault(room_id, ([], []))[0 if is_online else 1].append(name)
            names = {room_id: roster.room for room_id, roster in self._rosters.items() if room_id in by_room}
        return [RosterChange(room_id, names.get(room_id), *each) for room_id, each in by_room.items()]

    def replace_peer(self, server: str, rosters: Iterable[RosterChange]) -> None:
        """Replace the users of another server. Several rosters may be parts of one room."""
        rooms: dict[int, str | None] = {}
        now: dict[int, set[str]] = {}
        for room_id, room, joined, _ in rosters:
            rooms[room_id] = room
            now.setdefault(room_id, set()).update(joined)
        before = self._peers.get(server, {})
        changes = [
            RosterChange(room_id, rooms.get(room_id), sorted(new - old), sorted(old - new))
            for room_id in now.keys() | before.keys()
            if (new := now.get(room_id, set())) != (old := before.get(room_id, set()))
        ]
        self.change_peer(server, changes)

    def change_peer(self, server: str, changes: Iterable[RosterChange]) -> None:
        """Change the users of another server. A change that was made already has no effect, but an end is announced.

        The lobby comes first: else a user who went offline would be seen to leave a room only. In each room those who
        left come first: else a user who has another name now would be there twice.
        """
        for room_id, room, joined, left in sorted(changes, key=lambda change: (change.room_id, bool(change.joined))):
            for is_joined, names in enumerate((list(left), list(joined))):
                for start in range(0, len(names), _NAMES_AT_ONCE):
                    some = names[start : start + _NAMES_AT_ONCE]
                    with self._changed:
                        self._change_peer(server, room_id, room, *((some, ()) if is_joined else ((), some)))
                    time.sleep(0)  # logins may wait for the lock

    def drop_peer(self, server: str) -> None:
        """Remove all users of another server."""
        self.replace_peer(server, ())

    # --- the lock is held, except in _run ---

    def _change_peer(
        self, server: str, room_id: int, room: str | None, joined: Collection[str], left: Collection[str]
    ) -> None:
        rooms = self._peers.setdefault(server, {})
        names = rooms.setdefault(room_id, set())
        new = [name for name in dict.fromkeys(joined) if name not in names]
        gone = names & set(left)
        names.update(new)
        names -= gone
        roster = self._roster(room_id, room)
        for name in new:
            roster.elsewhere[name] += 1
            if roster.elsewhere[name] == 1 and name not in roster.counts:
                self._note_change(roster, room_id, name, is_online=True)
        for name in gone:
            roster.elsewhere[name] -= 1
            if roster.elsewhere[name] == 0:
                del roster.elsewhere[name]
                if name not in roster.counts:
                    self._note_change(roster, room_id, name, is_online=False)
        # They joined and left between two changes of the server. The log may have told their join already.
        for name in set(left) - gone - roster.counts.keys() - roster.elsewhere.keys() - roster.changes.keys():
            self._note_change(roster, room_id, name, is_online=False, is_news=False)
        self._forget_empty(roster, room_id)
        if not names:
            del rooms[room_id]
        if not rooms:
            del self._peers[server]

    def _roster(self, room_id: int, room: str | None) -> _Roster:
        roster = self._rosters.get(room_id)
        if roster is None:
            roster = self._rosters[room_id] = _Roster(room)
        return roster

    def _forget_empty(self, roster: _Roster, room_id: int) -> None:
        """Forget a room without users, and its changes. The lobby stays."""
        if not (roster.counts or roster.elsewhere) and room_id != LOBBY_ID:
            del self._rosters[room_id]
            self._rooms_pace.changed.pop(room_id, None)

    def _note_change(self, roster: _Roster, room_id: int, name: str, *, is_online: bool, is_news: bool = True) -> None:
        """Record the last change of a user, in place of an earlier one. ``is_news``: it changes the list of users."""
        if is_news:
            self._version += 1
            if room_id == LOBBY_ID:
                self._count += 1 if is_online else -1
        roster.changes.pop(name, None)
        roster.changes[name] = (self._version, is_online)
        self._pace_of(room_id).changed[room_id] = roster
        if len(roster.changes) in (1, UPDATE_MAX_NAMES):
            self._changed.notify()

    def _pace_of(self, room_id: int) -> _Pace:
        return self._lobby_pace if room_id == LOBBY_ID else self._rooms_pace

    def _run(self) -> None:
        self._repeat_at = time.monotonic() + self._repeat_seconds
        while True:
            with self._changed:
                while not self._stopping and (pause_seconds := self._next_at() - time.monotonic()) > 0:
                    self._changed.wait(min(pause_seconds, threading.TIMEOUT_MAX))
                if self._stopping:
                    return
                updates = [(room_id, *self._take_update(room_id)) for room_id in self._due_rooms(time.monotonic())]
            for update in updates:
                self._announce(*update)

    def _next_at(self) -> float:
        """The time of the next update."""
        lobby_at = self._lobby_pace.due_at() if self._lobby_pace.changed else self._repeat_at
        return min(lobby_at, self._rooms_pace.due_at())

    def _due_rooms(self, now: float) -> list[int]:
        """The rooms whose updates must be sent now. Their next updates follow after the interval."""
        due: list[int] = []
        for pace in (self._lobby_pace, self._rooms_pace):
            room_ids = list(pace.changed) if pace.due_at() <= now else []
            if pace is self._lobby_pace and not pace.changed and self._repeat_at <= now:
                room_ids = [LOBBY_ID]
                self._repeat_at += self._repeat_seconds
            if room_ids:
                count = sum(len(self._rosters[room_id].counts) for room_id in room_ids)
                pace.full_at = now + self._coalesce_seconds
                pace.next_at = now + max(self._coalesce_seconds, self._coalesce_seconds_per_user * count)
            due += room_ids
        return due

    def _take_update(self, room_id: int) -> tuple[Users, int]:
        """Take the oldest changes, up to the limit of one update, and their last version.

        Without changes the update is a repetition, which is sent to all members.
        """
        roster = self._rosters[room_id]
        version = self._version + 1
        by_change: dict[bool, list[str]] = {True: [], False: []}
        for name in list(islice(roster.changes, UPDATE_MAX_NAMES)):
            version, is_online = roster.changes.pop(name)
            by_change[is_online].append(name)
        if not roster.changes:
            self._pace_of(room_id).changed.pop(room_id, None)
        users = roster.names()
        joined, left = tuple(sorted(by_change[True])), tuple(sorted(by_change[False]))
        if len(users) <= USERS_LISTED_MAX:
            return Users(users=users, joined=joined, left=left, room=roster.room), version
        return Users(unlisted_count=len(users), joined=joined, left=left, room=roster.room), version
