"""Requests about stored messages that json has no form of: chat histories, active conversations, and read marks.

Permissions are those of the history. A guest sees no messages from before it took its name, and has no read marks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from chatprotocol.errors import ErrorCode, RequestError
from chatprotocol.events import Active, ChatHistory, ReadMarked
from chatprotocol.limits import HISTORY_MAX_MESSAGES
from chatprotocol.requests import HistoryOrder
from chatprotocol.rules import LOBBY, is_lobby, unknown_user
from chatserver.chat.problems import append_one, problem_error
from chatserver.journal.entries import Problem, ReadMark
from chatserver.store.rooms import DIRECT_ID, LOBBY_ID

if TYPE_CHECKING:
    from collections.abc import Collection

    from chatprotocol import requests
    from chatprotocol.events import ChatHistoryItem
    from chatserver.chat.local_users import LocalUsers
    from chatserver.chat.room import Member
    from chatserver.chat.room_commands import RoomCommands
    from chatserver.journal.base import Journal
    from chatserver.store.accounts import Accounts
    from chatserver.store.conversation_history import ConversationHistory
    from chatserver.store.messages import Messages
    from chatserver.store.read_marks import ReadMarks


class _Place(NamedTuple):
    """A room, or the direct messages with another user, whose id is 0 in a room."""

    room_id: int
    room: str | None
    other_id: int = 0
    other: str | None = None


class HistoryCommands:
    """Answers these requests, for any thread. Every method raises RequestError and StoreError."""

    def __init__(
        self,
        history: ConversationHistory,
        messages: Messages,
        marks: ReadMarks,
        accounts: Accounts,
        rooms: RoomCommands,
        journal: Journal,
        users: LocalUsers,
    ) -> None:
        self._history = history
        self._messages = messages
        self._marks = marks
        self._accounts = accounts
        self._rooms = rooms
        self._journal = journal
        self._users = users

    def read(self, member: Member, request: requests.AskChatHistory) -> tuple[ChatHistory, Collection[ChatHistoryItem]]:
        """Return the answer without its messages, and these."""
        place = self._find_place(member, request.room, request.with_user)
        found = self._history.read(
            member.account_id,
            *(LOBBY_ID if place.other_id else place.room_id, self._ids(member), _limit(request.limit)),
            order=request.order,
            after=request.after,
            before=request.before,
            other_id=place.other_id or None,
            has_events=request.has_events and not place.other_id,
        )
        return ChatHistory((), place.room, place.other), found

    def list_active(self, member: Member, request: requests.AskActive) -> Active:
        """The rooms and users whose newest message is between two times, the oldest first."""
        found = self._messages.active(
            member.account_id,
            *(self._ids(member), (request.after_ms, request.before_ms), _limit(request.limit)),
            newest_first=request.order is HistoryOrder.NEWEST,
        )
        return Active(tuple(found))

    def mark(self, member: Member, request: requests.MarkRead) -> ReadMarked:
        """Move a read mark, or only return it. The hub has told the other connections of the user."""
        place = self._find_place(member, request.room, request.with_user)
        time_ms = self._marks.find(member.account_id, place.room_id, place.other_id)
        if request.time_ms is not None and (time_ms is None or request.time_ms > time_ms):
            time_ms = self._move(member, place, request.time_ms)
        return ReadMarked(place.room, place.other, time_ms)

    def _move(self, member: Member, place: _Place, time_ms: int) -> int:
        """Wait until the mark is stored; return its time."""
        room = "" if place.room_id in (LOBBY_ID, DIRECT_ID) else place.room or ""
        entry = ReadMark(member.account_id, time_ms, place.room_id, room, place.other_id, place.other or "")
        outcome = append_one(self._journal, entry, "the read mark was not moved", member, place.room)
        if outcome is Problem.NOT_PERMITTED:
            raise RequestError(ErrorCode.NOT_PERMITTED, "Guests have no read marks; register to have some.")
        if isinstance(outcome, Problem):
            raise problem_error(outcome, place.room)
        return outcome.time_ms

    def _find_place(self, member: Member, room: str | None, with_user: str | None) -> _Place:
        """Return the conversation of a request. RequestError: the user is not in the room, or the other is unknown."""
        if with_user is not None:
            other = self._accounts.find_writer(with_user)
            if other is None:
                raise unknown_user(with_user)
            return _Place(DIRECT_ID, None, other.id, other.name)
        if room is None or is_lobby(room):
            return _Place(LOBBY_ID, LOBBY)
        found = self._rooms.find(member, room)
        return _Place(found.room_id, found.name)

    def _ids(self, member: Member) -> range:
        """The ids of all published messages that the user may see."""
        return range(member.first_id, self._users.last_id() + 1)


def _limit(limit: int) -> int:
    return min(max(limit, 1), HISTORY_MAX_MESSAGES)
