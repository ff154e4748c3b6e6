"""Presence: the users who are online in each room, and announcements of changes."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING

from chatprotocol.events import Users
from chatprotocol.limits import USERS_LISTED_MAX
from chatserver.store.rooms import LOBBY_ID
from chatserver.threads import Worker

if TYPE_CHECKING:
    from collections.abc import Callable

# Interval in which changes are combined into one update.
COALESCE_SECONDS = 0.1
# Minimum interval per member: an update takes a system call per member, so in a large room changes are collected for
# longer, or until there are UPDATE_MAX_NAMES of them, the number of names that simple clients read at once. All rooms
# other than the lobby share one interval, because a login may change a hundred of them.
COALESCE_SECONDS_PER_USER = 0.0002
UPDATE_MAX_NAMES = 256


class _Roster:
    """The users who are online in one room. The lock of Presence guards it."""

    __slots__ = ("changes", "counts", "room")

    def __init__(self, room: str | None) -> None:
        # The room's name in updates; None for the lobby.
        self.room = room
        # By name, in order of arrival.
        self.counts: Counter[str] = Counter()
        # Unannounced changes by name: version, and true if the user came online; oldest first.
        self.changes: dict[str, tuple[int, bool]] = {}


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
        # Guards everything below; notified after each change and at the end.
        self._changed = threading.Condition()
        # The lobby, and each room with users who are online.
        self._rosters = {LOBBY_ID: _Roster(None)}
        self._lobby_pace, self._rooms_pace = _Pace(), _Pace()
        self._repeat_at = math.inf
        self._version = 0
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
            roster = self._rosters.get(room_id)
            if roster is None:
                roster = self._rosters[room_id] = _Roster(room)
            roster.counts[name] += 1
            if roster.counts[name] == 1:
                self._note_change(roster, room_id, name, is_online=True)

    def remove(self, name: str, room_id: int = LOBBY_ID) -> bool:
        """Undo :meth:`add`. True if no user is left."""
        with self._changed:
            roster = self._rosters[room_id]
            roster.counts[name] -= 1
            if roster.counts[name] == 0:
                del roster.counts[name]
                self._note_change(roster, room_id, name, is_online=False)
            if not roster.counts and room_id != LOBBY_ID:
                del self._rosters[room_id]
                del self._rooms_pace.changed[room_id]
            return not roster.counts

    def names(self, room_id: int = LOBBY_ID) -> tuple[str, ...]:
        """Names of the users in order of arrival."""
        return self.users(room_id)[0]

    def users(self, room_id: int = LOBBY_ID) -> tuple[tuple[str, ...], int]:
        """Names of the users, and the version: updates up to it have nothing new."""
        with self._changed:
            roster = self._rosters.get(room_id)
            return tuple(roster.counts) if roster else (), self._version

    def is_online(self, name: str) -> bool:
        """True if this user is online. ``name`` has the registered spelling."""
        with self._changed:
            return name in self._rosters[LOBBY_ID].counts

    @property
    def online(self) -> int:
        """Number of users who are online. For any thread."""
        with self._changed:
            return len(self._rosters[LOBBY_ID].counts)

    def _note_change(self, roster: _Roster, room_id: int, name: str, *, is_online: bool) -> None:
        """Record the last change of a user, in place of an earlier one. The lock is held."""
        self._version += 1
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
        """The time of the next update. The lock is held."""
        lobby_at = self._lobby_pace.due_at() if self._lobby_pace.changed else self._repeat_at
        return min(lobby_at, self._rooms_pace.due_at())

    def _due_rooms(self, now: float) -> list[int]:
        """The rooms whose updates must be sent now. Their next updates follow after the interval. The lock is held."""
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
        """Take the oldest changes, up to the limit of one update, and their last version. The lock is held.

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
        count = len(roster.counts)
        joined, left = tuple(sorted(by_change[True])), tuple(sorted(by_change[False]))
        if count <= USERS_LISTED_MAX:
            return Users(users=tuple(roster.counts), joined=joined, left=left, room=roster.room), version
        return Users(unlisted_count=count, joined=joined, left=left, room=roster.room), version
