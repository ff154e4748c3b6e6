"""Requests about rooms: the entry of each, and the errors of its outcome. The hub publishes the changes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import structlog
from msgspec.structs import replace

from chatprotocol import requests
from chatprotocol.events import ModesMoved, RoomModes, RoomRole
from chatprotocol.rules import (
    check_reason,
    check_room_key,
    check_room_name,
    check_topic,
    not_a_member,
    unknown_room,
    unknown_user,
)
from chatserver.chat.problems import append_one, problem_error, sanction_error
from chatserver.journal import entries
from chatserver.journal.entries import Problem
from chatserver.store.moderation import ActiveSanction

if TYPE_CHECKING:
    from collections.abc import Callable

    from chatprotocol.events import Modes, RoomSummary
    from chatserver.chat.local_users import LocalUsers
    from chatserver.chat.rate_limit import RateLimit
    from chatserver.chat.room import Member
    from chatserver.journal.base import Journal
    from chatserver.journal.entries import RoomOutcome
    from chatserver.store.accounts import Account, Accounts
    from chatserver.store.rooms import Rooms, RoomView

_log = structlog.get_logger()

# The role that a request gives to a member, and the one that the member must have; None: any.
_ROLES: Final[dict[type, tuple[RoomRole, RoomRole | None]]] = {
    requests.MakeOperator: (RoomRole.OPERATOR, None),
    requests.MakeMember: (RoomRole.MEMBER, RoomRole.OPERATOR),
    requests.GiveVoice: (RoomRole.VOICE, RoomRole.MEMBER),
    requests.TakeVoice: (RoomRole.MEMBER, RoomRole.VOICE),
}


class RoomCommands:
    """Answers requests about rooms. For any thread.

    A private room that the user is neither a member of nor invited to is *hidden*. It takes the same path as a room
    that does not exist: ``Rooms.find`` returns neither.
    """

    def __init__(
        self,
        rooms: Rooms,
        accounts: Accounts,
        journal: Journal,
        users: LocalUsers,
        makers: str,
        find_guest: Callable[[str], Account | None] = lambda _: None,
    ) -> None:
        """``makers`` may make rooms: ``open`` (all users), ``operators`` (of the server) or ``off`` (none).

        ``find_guest`` returns the guest of a name who is online: see Guests.
        """
        self._find_guest = find_guest
        self._rooms = rooms
        self._accounts = accounts
        self._journal = journal
        self._users = users
        self._makers = makers

    def set_makers(self, makers: str) -> None:
        """Change which users may make rooms, from now on."""
        self._makers = makers

    def visible_to(self, member: Member) -> tuple[RoomSummary, ...]:
        """Return all rooms that the user may know of."""
        return self._rooms.visible_to(member.account_id)

    def joined(self, member: Member) -> list[RoomView]:
        """Return the rooms that the user is in."""
        return self._rooms.of_account(member.account_id)

    def find(self, member: Member, name: str) -> RoomView:
        """Return a room that the user is in. RequestError: the user is not."""
        check_room_name(name)
        room = self._rooms.find(member.account_id, name)
        if room is None:
            raise unknown_room(name)
        if room.role is None:
            raise not_a_member(name)
        return room

    def find_to_run(self, member: Member, name: str) -> RoomView:
        """Return a room that the user may perhaps run: one that it is in; for an operator of the server any room."""
        if not member.is_operator:
            return self.find(member, name)
        check_room_name(name)
        room = self._rooms.find_any(name)
        if room is None:
            raise unknown_room(name)
        return room

    def find_visible(self, member: Member, name: str) -> RoomView:
        """Return a room that the user may know of; for an operator of the server any room."""
        check_room_name(name)
        room = self._rooms.find(member.account_id, name)
        if room is None and member.is_operator:
            room = self._rooms.find_any(name)
        if room is None:
            raise unknown_room(name)
        return room

    def modes(self, member: Member, request: requests.SetModes) -> Modes | None:
        """Answer a request without any mode; None if it has one. RequestError: the user may not know of the room."""
        if _given_modes(request):
            return None
        room = self.find_visible(member, request.room)
        modes = room.modes if room.role is not None else replace(room.modes, key="")
        return ModesMoved(room=room.name, modes=modes, created_ms=room.created_ms)

    def id_for_message(self, member: Member, name: str) -> int:
        """Return the id of a room that the user is in. RequestError: the user is not.

        Usually the hub knows the room. The journal checks the membership again.
        """
        check_room_name(name)
        room_id = self._users.room_id(member, name)
        return room_id if room_id is not None else self.find(member, name).room_id

    def change(
        self, member: Member, request: requests.RoomRequest | requests.Kick, made: RateLimit | None = None
    ) -> None:
        """Change a room; on return the change is committed and published. Raises RequestError.

        ``made`` limits the rooms that the user makes.
        """
        assert request.room is not None
        may_make = made is None or not made.is_empty(member.account_id)
        entry = self._entry(member, request, request.room, may_make=may_make)
        outcome = append_one(self._journal, entry, "nothing was done", member, request.room)
        is_unknown = isinstance(request, requests.Join) and outcome is Problem.UNKNOWN_ROOM
        if made is not None and not may_make and is_unknown:
            made.take(member.account_id)  # raises RequestError, which is the reason
        if isinstance(outcome, Problem):
            raise problem_error(outcome, request.room, getattr(request, "username", None))
        if isinstance(outcome, ActiveSanction):
            raise sanction_error(outcome, request.room)
        if outcome.is_new:
            if made is not None:
                made.take(member.account_id, math.inf)  # another connection may have taken the last token meanwhile
            _log.info("room made", room=outcome.name, user=member.name, private=outcome.is_private)
        if outcome.has_ended:
            _log.info("room ended", room=outcome.name, user=member.name)

    def _entry(
        self, member: Member, request: requests.RoomRequest | requests.Kick, name: str, *, may_make: bool
    ) -> entries.Entry[RoomOutcome]:
        """Return the entry of a request. RequestError: its room or user is unknown, or it is invalid."""
        check_room_name(name)
        by = (member.account_id, member.name)
        if isinstance(request, requests.Join):
            may_create = may_make and self._may_make(member)
            return entries.JoinRoom(*by, request.room, request.private, may_create, request.key or "")
        check_topic(getattr(request, "topic", ""))
        check_reason(getattr(request, "reason", ""))
        check_room_key(getattr(request, "key", None) or "")
        find = self.find if isinstance(request, requests.Part) else self.find_to_run
        room_id = find(member, name).room_id
        match request:
            case requests.Part(reason=reason):
                return entries.PartRoom(*by, room_id, reason)
            case requests.SetTopic(topic=topic):
                return entries.SetTopic(room_id, topic, *by)
            case requests.SetModes():
                return entries.SetRoomModes(room_id, *by, **_given_modes(request))
        account = self._accounts.find(request.username) or self._find_guest(request.username)
        if account is None:
            raise unknown_user(request.username, "nothing was done")
        about = (room_id, account.id, account.name, *by)
        match request:
            case requests.Invite():
                return entries.InviteUser(*about)
            case requests.Kick():
                return entries.KickMember(*about, request.reason)
        return entries.SetRole(*about, *_ROLES[type(request)])

    def _may_make(self, member: Member) -> bool:
        return self._makers == "open" or (self._makers == "operators" and member.is_operator)


def is_voiceless(member: Member, room: RoomView) -> bool:
    """True if the room is moderated, and the user has no role in it that lets it write."""
    return room.modes.moderated and room.role is RoomRole.MEMBER and not member.is_operator


def _given_modes(request: requests.SetModes) -> dict[str, Any]:
    given = {name: getattr(request, name) for name in RoomModes.__struct_fields__}
    return {name: value for name, value in given.items() if value is not None}
