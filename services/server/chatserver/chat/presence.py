"""Presence: the online users, and announcements of changes."""

from __future__ import annotations

import threading
import time
from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING

from chatprotocol.events import Users
from chatprotocol.limits import USERS_LISTED_MAX
from chatserver.threads import Worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from chatserver.chat.member import Member

# Interval in which changes are combined into one update.
COALESCE_SECONDS = 0.1
# Minimum interval per member: an update takes a system call per member, so in a large room changes are collected for
# longer, or until there are UPDATE_MAX_NAMES of them, the number of names that simple clients read at once.
COALESCE_SECONDS_PER_USER = 0.0002
UPDATE_MAX_NAMES = 256


class Presence:
    """The online users: a user is online from the first login to the last logout.

    ``announce`` is Hub.announce. Every change raises the version by one. An update has the version of its last change,
    and is not sent to members whose user list at the login included that version.
    """

    def __init__(
        self,
        announce: Callable[[Users, int], None],
        repeat_seconds: float,
        on_crash: Callable[[str], None],
        *,
        coalesce_seconds: float = COALESCE_SECONDS,
        coalesce_seconds_per_user: float = COALESCE_SECONDS_PER_USER,
    ) -> None:
        self._coalesce_seconds = coalesce_seconds
        self._coalesce_seconds_per_user = coalesce_seconds_per_user
        self._announce = announce
        self._repeat_seconds = repeat_seconds
        self._worker = Worker("presence", self._run, on_crash)
        # Guards everything below; notified after each change and at the end.
        self._changed = threading.Condition()
        self._member_counts: Counter[str] = Counter()
        # Unannounced changes by name: version, and true if the user came online; oldest first.
        self._changes: dict[str, tuple[int, bool]] = {}
        self._version = 0
        self._stopping = False

    def start(self) -> None:
        self._worker.start()

    def stop(self) -> None:
        """Stop and join the presence thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._worker.join()

    def add(self, member: Member) -> tuple[str, ...]:
        """Add a member; return the names of all online users."""
        with self._changed:
            self._member_counts[member.name] += 1
            if self._member_counts[member.name] == 1:
                self._note_change(member.name, is_online=True)
            member.presence_version = self._version
            return self._names()

    def remove(self, member: Member) -> bool:
        """Remove a member. True if it was the last one."""
        with self._changed:
            self._member_counts[member.name] -= 1
            if self._member_counts[member.name] == 0:
                del self._member_counts[member.name]
                self._note_change(member.name, is_online=False)
            return not self._member_counts

    def names(self) -> tuple[str, ...]:
        """Names of all online users, in order of arrival."""
        with self._changed:
            return self._names()

    def is_online(self, name: str) -> bool:
        """True if this user is online. ``name`` has the registered spelling."""
        with self._changed:
            return name in self._member_counts

    def _names(self) -> tuple[str, ...]:
        """The lock is held."""
        return tuple(self._member_counts)

    def _note_change(self, name: str, *, is_online: bool) -> None:
        """Record the last change of a user, in place of an earlier one. The lock is held."""
        self._version += 1
        self._changes.pop(name, None)
        self._changes[name] = (self._version, is_online)
        if len(self._changes) in (1, UPDATE_MAX_NAMES):
            self._changed.notify()

    def _run(self) -> None:
        repeat_at = time.monotonic() + self._repeat_seconds
        while True:
            with self._changed:
                has_changed = self._changed.wait_for(self._has_changes, timeout=max(0.0, repeat_at - time.monotonic()))
                if self._stopping:
                    return
                update, version = self._take_update()
                pause_seconds = self._coalesce_seconds_per_user * len(self._member_counts) - self._coalesce_seconds
            if not has_changed:
                repeat_at += self._repeat_seconds
            self._announce(update, version)
            with self._changed:
                self._changed.wait_for(lambda: self._stopping, timeout=self._coalesce_seconds)
                self._changed.wait_for(self._has_full_update, timeout=max(0.0, pause_seconds))

    def _has_changes(self) -> bool:
        """The lock is held."""
        return self._stopping or bool(self._changes)

    def _has_full_update(self) -> bool:
        """The lock is held."""
        return self._stopping or len(self._changes) >= UPDATE_MAX_NAMES

    def _take_update(self) -> tuple[Users, int]:
        """Take the oldest changes, up to the limit of one update, and their last version. The lock is held.

        Without changes the update is a repetition, which is sent to all members.
        """
        version = self._version + 1
        by_change: dict[bool, list[str]] = {True: [], False: []}
        for name in list(islice(self._changes, UPDATE_MAX_NAMES)):
            version, is_online = self._changes.pop(name)
            by_change[is_online].append(name)
        count = len(self._member_counts)
        joined, left = tuple(sorted(by_change[True])), tuple(sorted(by_change[False]))
        if count <= USERS_LISTED_MAX:
            return Users(users=self._names(), joined=joined, left=left), version
        return Users(unlisted_count=count, joined=joined, left=left), version
