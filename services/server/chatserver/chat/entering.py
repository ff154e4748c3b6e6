"""How a connection that tracks members enters rooms: the answer first, then missed messages, then new ones.

The hub has listed the members at the moment from which on the connection gets the events of a room. The store is read
after that moment: topics and roles are at least as new, and events about later changes follow. A missed message is one
up to the last id of that moment, a new one is later; so each comes once.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from chatprotocol.events import Entered
from chatprotocol.limits import REPLAYED_MAX
from chatprotocol.rules import LOBBY
from chatserver.store.errors import DamagedError
from chatserver.store.rooms import LOBBY_ID

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from chatprotocol.events import Counts, Event
    from chatserver.chat.local_users import JoinState, LocalUsers
    from chatserver.chat.room import Member
    from chatserver.store.messages import Messages
    from chatserver.store.rooms import Rooms


class Entering:
    """Lets connections enter the lobby, and after a login their rooms. For any thread; raises StoreError."""

    def __init__(self, users: LocalUsers, rooms: Rooms, messages: Messages) -> None:
        self._users = users
        self._rooms = rooms
        self._messages = messages
        # Sessions that have not ended, guarded by the lock. Their connections may be open for a moment longer.
        self._sessions = 0
        self._lock = threading.Lock()

    def note_session(self, change: int) -> None:
        """Count a session that begins, with 1, or that ends, with -1."""
        with self._lock:
            self._sessions += change

    def counts(self) -> Counts:
        """The numbers of users and rooms."""
        members = sum(self._users.count_members().values())
        return self._users.counts(unknown=max(0, self._sessions - members))

    def enter_lobby(self, member: Member, replays_after: int | None) -> None:
        """Answer requests.EnterLobby. After an error the connection has not entered."""
        entered = self._users.enter_lobby(member)
        try:
            is_replayed = replays_after is not None and not entered.was_in
            after_id = replays_after if is_replayed else None
            missed = self._missed(member, LOBBY_ID, after_id, entered.last_id)
        except BaseException:
            if not entered.was_in:
                self._users.leave_lobby(member, tells=False)
            member.send_queue.go_on()
            raise
        answer = Entered(
            room=LOBBY,
            username=member.name,
            last_id=entered.last_id,
            members=self._users.tracking.members(entered.listing, {}),
        )
        member.send_queue.put([answer, *missed])
        member.send_queue.go_on()

    def after_login(self, member: Member, joined: JoinState, after_id: int | None) -> Iterator[list[Event]]:
        """The events about each room of the user: Entered, and the messages after ``after_id``, if it is given.

        The rooms are read before the first ones are returned.
        """
        rooms = [room for room in self._rooms.of_account(member.account_id) if room.room_id in joined.listings]
        roles = self._rooms.roles([room.room_id for room in rooms])
        for room in rooms:
            room_id = room.room_id
            entered = Entered(
                room=room.name,
                username=member.name,
                topic=room.topic,
                topic_by=room.topic_by,
                topic_ms=room.topic_ms,
                created_ms=room.created_ms,
                modes=room.modes,
                last_id=min(room.last_id, joined.last_id),
                members=self._users.tracking.members(joined.listings[room_id], roles.get(room_id, {})),
            )
            missed: Sequence[Event] = ()
            with suppress(DamagedError):  # it is reported when the user asks for the history
                missed = self._missed(member, room_id, after_id, joined.last_id)
            yield [entered, *missed]

    def _missed(self, member: Member, room_id: int, after_id: int | None, upto_id: int) -> Sequence[Event]:
        """The newest messages after an id, at most REPLAYED_MAX, oldest first; none without an id."""
        if after_id is None:
            return []
        found = self._messages.history(member.account_id, upto_id + 1, REPLAYED_MAX, room_id)
        first_id = max(after_id + 1, member.first_id)
        return [message for message in found if message.id >= first_id]
