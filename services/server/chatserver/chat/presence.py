"""Presence: who is online, and telling everybody when that changes."""

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

# Changes that come closer together than this are told together.
COALESCE_SECONDS = 0.1
# An update is a system call for everybody who is in. Where thousands come together, telling each of each would leave
# time for nothing else: so changes are collected for longer, but for no more names than simple clients read at once.
COALESCE_SECONDS_PER_USER = 0.0002
UPDATE_MAX_NAMES = 256


class Presence:
    """A user is present from the first login to the last leave.

    ``announce`` is the feed's. Every change raises the version by one; an update carries the version up to which it
    tells, and is not for those whose login showed that version already.
    """

    def __init__(
        self,
        announce: Callable[[Users, int], None],
        repeat_seconds: float,
        on_crash: Callable[[str], None],
    ) -> None:
        self._announce = announce
        self._repeat_seconds = repeat_seconds
        self._worker = Worker("presence", self._run, on_crash)
        # Guards everything below; notified when somebody came or went, and at the end.
        self._changed = threading.Condition()
        self._members_of: Counter[str] = Counter()
        # Who came (true) or went and was not told of yet, with the version of that; the oldest first.
        self._changes: dict[str, tuple[int, bool]] = {}
        self._version = 0
        self._stopping = False

    def start(self) -> None:
        """Start to announce."""
        self._worker.start()

    def stop(self) -> None:
        """Announce nothing more, and wait for the thread's end."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._worker.join()

    def enter(self, member: Member) -> tuple[str, ...]:
        """A seat was taken; returns everybody who is online now."""
        with self._changed:
            self._members_of[member.name] += 1
            if self._members_of[member.name] == 1:
                self._note_change(member.name, came=True)
            member.presence_version = self._version
            return self._names()

    def leave(self, member: Member) -> bool:
        """A seat was given up. Was it the last one?"""
        with self._changed:
            self._members_of[member.name] -= 1
            if self._members_of[member.name] == 0:
                del self._members_of[member.name]
                self._note_change(member.name, came=False)
            return not self._members_of

    def names(self) -> tuple[str, ...]:
        """Everybody who is online, in the order in which they came."""
        with self._changed:
            return self._names()

    def is_online(self, name: str) -> bool:
        """True if this user, spelled as it was registered, is online."""
        with self._changed:
            return name in self._members_of

    def _names(self) -> tuple[str, ...]:
        """The lock is held."""
        return tuple(self._members_of)

    def _note_change(self, name: str, *, came: bool) -> None:
        """An update tells of each user what it did last, for somebody may have seen what was before. Locked."""
        self._version += 1
        self._changes.pop(name, None)
        self._changes[name] = (self._version, came)
        if len(self._changes) in (1, UPDATE_MAX_NAMES):
            self._changed.notify()

    def _run(self) -> None:
        repeat_at = time.monotonic() + self._repeat_seconds
        while True:
            with self._changed:
                news = self._changed.wait_for(self._has_news, timeout=max(0.0, repeat_at - time.monotonic()))
                if self._stopping:
                    return
                update, version = self._take_update()
                pause_seconds = COALESCE_SECONDS_PER_USER * len(self._members_of) - COALESCE_SECONDS
            if not news:
                repeat_at += self._repeat_seconds
            self._announce(update, version)
            with self._changed:
                self._changed.wait_for(lambda: self._stopping, timeout=COALESCE_SECONDS)
                self._changed.wait_for(self._has_much_news, timeout=max(0.0, pause_seconds))

    def _has_news(self) -> bool:
        """The lock is held."""
        return self._stopping or bool(self._changes)

    def _has_much_news(self) -> bool:
        """The lock is held."""
        return self._stopping or len(self._changes) >= UPDATE_MAX_NAMES

    def _take_update(self) -> tuple[Users, int]:
        """The oldest changes, as many as one update tells, and the version up to which that is. The lock is held.

        With no changes it is a repetition, which is for everybody, whatever their login showed.
        """
        version = self._version + 1
        told: dict[bool, list[str]] = {True: [], False: []}
        for name in list(islice(self._changes, UPDATE_MAX_NAMES)):
            version, came = self._changes.pop(name)
            told[came].append(name)
        count = len(self._members_of)
        users = self._names() if count <= USERS_LISTED_MAX else None
        return Users(count, users, tuple(sorted(told[True])), tuple(sorted(told[False]))), version
