"""Requests about other users: who they are, where they are, and whether they are online.

All users may know of all others, as in the list of the lobby. A private room is shown to those who may know of it.
"""

from __future__ import annotations

import fnmatch
import re
from typing import TYPE_CHECKING, Final, assert_never

from msgspec.structs import astuple, replace

from chatprotocol import requests
from chatprotocol.errors import ErrorCode, RequestError
from chatprotocol.events import (
    Bans,
    Counts,
    Infos,
    Members,
    Past,
    Relayed,
    RelayedBack,
    RoomMember,
    RoomRole,
    SanctionKind,
    Topic,
    UserInfo,
)
from chatprotocol.limits import AWAY_MAX_BYTES, PAST_USERS_MAX, REALNAME_MAX_BYTES
from chatprotocol.rules import LOBBY, is_lobby, unknown_user
from chatserver.chat.problems import problem_error, sanction_error
from chatserver.chat.room_commands import is_voiceless
from chatserver.clock import wall_ms
from chatserver.journal.entries import Problem
from chatserver.store.rooms import LOBBY_ID

if TYPE_CHECKING:
    from collections.abc import Callable

    from chatprotocol.events import Event
    from chatserver.chat.guests import Guests
    from chatserver.chat.local_users import LocalUsers
    from chatserver.chat.presence import Presence
    from chatserver.chat.room import Member
    from chatserver.chat.room_commands import RoomCommands
    from chatserver.store.accounts import Account, Accounts
    from chatserver.store.moderation import ModerationRecords
    from chatserver.store.rooms import Rooms


_STARS: Final = re.compile(r"\*+")
# Maximum stars of a mask: it takes 80 ms of the processor to compile one with as many as a line of irc may have.
_STARS_MAX: Final = 10


class Directory:
    """Answers requests about other users. For any thread; raises RequestError and StoreError."""

    def __init__(
        self,
        users: LocalUsers,
        presence: Presence,
        accounts: Accounts,
        guests: Guests,
        rooms: Rooms,
        commands: RoomCommands,
        records: ModerationRecords,
        count: Callable[[], Counts],
        now_ms: Callable[[], int] = wall_ms,
    ) -> None:
        """``count`` returns the numbers of users and rooms."""
        self._users = users
        self._presence = presence
        self._accounts = accounts
        self._guests = guests
        self._rooms = rooms
        self._commands = commands
        self._records = records
        self._count = count
        self._now_ms = now_ms

    def answer(self, member: Member, request: requests.DirectoryRequest) -> Event | None:
        """Return the answer; None if the hub has answered, or there is none."""
        match request:
            case requests.AskMembers():
                return self._list_members(member, request.room)
            case requests.AskTopic():
                room = self._commands.find_visible(member, request.room)
                return Topic(room.name, room.topic, room.topic_by, room.topic_ms)
            case requests.AskRoomBans():
                return self._list_bans(member, request.room)
            case requests.AskInfo():
                return Infos(tuple(self._info(member, name, has_rooms=request.has_rooms) for name in request.usernames))
            case requests.AskWho():
                return self._find_matching(request.mask)
            case requests.AskPast():
                return Past(request.username, self._users.past(request.username, min(request.limit, PAST_USERS_MAX)))
            case requests.AskCounts():
                return self._count()
            case requests.Relay():
                relayed = self._relay(member, request)
                return RelayedBack(*astuple(relayed)) if member.echoes else None
        self._change(member, request)
        return None

    def _change(
        self,
        member: Member,
        request: requests.SetAway | requests.SetRealname | requests.SetBot | requests.Watch,
    ) -> None:
        """Do what is asked. The hub answers, if there is an answer."""
        match request:
            case requests.SetAway():
                _check_bytes("The text", request.text, AWAY_MAX_BYTES)
                if request.text:  # others may be told
                    self._check_silence(member, LOBBY_ID, None)
                self._users.set_away(member, request.text)
            case requests.SetRealname():
                _check_bytes("The description", request.realname, REALNAME_MAX_BYTES)
                self._check_silence(member, LOBBY_ID, None)
                self._users.set_realname(member, request.realname)
            case requests.SetBot():
                self._users.set_bot(member, is_bot=request.is_bot)
            case requests.Watch():
                names = [self._spelling(name) for name in request.usernames]
                is_extended = request.is_extended
                self._users.watch(member, names, request.removed, clears=request.clears, is_extended=is_extended)
            case _:
                assert_never(request)

    def _list_members(self, member: Member, name: str | None) -> Members:
        """The members of the lobby, or of a room that the user is in, who are online."""
        if name is None or is_lobby(name):
            room_id, label, is_private = LOBBY_ID, LOBBY, False
            roles: dict[str, RoomRole] = {}
        else:
            room = self._commands.find(member, name)
            room_id, label, is_private = room.room_id, room.name, room.modes.private
            roles = self._rooms.roles([room_id]).get(room_id, {})
        infos = self._infos(room_id)
        members = tuple(RoomMember(info, roles.get(info.username, RoomRole.MEMBER)) for info in infos)
        return Members(label, members, is_private)

    def _infos(self, room_id: int) -> list[UserInfo]:
        """What is known of those who are online in a room.

        Without the lock: 10,000 take 30 ms, and the lock delays the messages of all.
        """
        return [self._users.tracking.info(name) for name in self._presence.members(room_id)]

    def _list_bans(self, member: Member, name: str) -> Bans:
        """What all members of a room may know of its bans."""
        room = self._commands.find_to_run(member, name)
        sanctions = self._records.sanctions(room.room_id)
        return Bans(tuple(replace(each, reason="") for each in sanctions if each.kind is SanctionKind.BAN), room.name)

    def _info(self, member: Member, name: str, *, has_rooms: bool) -> UserInfo | None:
        account = self._find(name)
        if account is None:
            return None
        rooms = self._rooms.shared(member.account_id, account.id) if has_rooms else ()
        if not self._presence.is_online(account.name):
            return UserInfo(username=account.name, is_online=False, is_guest=account.is_guest, rooms=rooms)
        return replace(self._users.tracking.info(account.name), is_guest=account.is_guest, rooms=rooms)

    def _find_matching(self, mask: str) -> Infos:
        """The users who are online and whose name or description matches; none if the mask has too many stars."""
        mask = _STARS.sub("*", mask)
        if mask.count("*") > _STARS_MAX:
            return Infos(())
        # The translation of ? and * takes no exponential time; [ has no meaning here.
        matches = re.compile(fnmatch.translate(mask.lower().replace("[", "[[]"))).match
        infos = self._infos(LOBBY_ID)
        return Infos(tuple(info for info in infos if matches(info.username.lower()) or matches(info.realname.lower())))

    def _relay(self, member: Member, request: requests.Relay) -> Relayed:
        """Pass something on, if a message would be passed on as well. Return what was passed on."""
        room = request.room
        what = (request.kind, request.tags, request.text, self._now_ms(), member.is_guest, member.is_bot)
        if room is not None:
            found = None if is_lobby(room) else self._commands.find(member, room)
            room_id, label = (LOBBY_ID, LOBBY) if found is None else (found.room_id, found.name)
            self._check_silence(member, room_id, None if found is None else room)
            if found is not None and is_voiceless(member, found):
                raise problem_error(Problem.MODERATED, room)
            event = Relayed(member.name, label, None, *what)
            self._users.relay(member, event, room_id, is_room=True)
            return event
        recipient = self._find(request.to or "")
        if recipient is None:
            raise unknown_user(request.to or "")
        self._check_silence(member, LOBBY_ID, None)
        event = Relayed(member.name, None, recipient.name, *what)
        if not self._records.is_ignored(recipient.id, member.account_id):
            self._users.relay(member, event, recipient.id, is_room=False)
        return event

    def _check_silence(self, member: Member, room_id: int, room: str | None) -> None:
        silence = self._records.silence(member.account_id, None if room_id == LOBBY_ID else room_id)
        if silence is not None:
            raise sanction_error(silence, room)

    def _find(self, name: str) -> Account | None:
        return self._accounts.find(name) or self._guests.find(name)

    def _spelling(self, name: str) -> str:
        """The registered spelling of a name, or that of the guest who has it."""
        account = self._find(name)
        return name if account is None else account.name


def _check_bytes(what: str, value: str, limit_bytes: int) -> None:
    if len(value.encode()) > limit_bytes:
        raise RequestError(ErrorCode.TOO_LONG, f"{what} has {limit_bytes} bytes at most in UTF-8; nothing was done.")
