"""Requests of moderation: the entry of each, the errors of its outcome, and the lists. The hub sends the events.

Without a room, or with the lobby, a request is about the whole server. The journal decides who may do what; this module
looks up names, and checks the same for lists, which need no entry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, assert_never

import structlog
from msgspec.structs import replace

from chatprotocol import requests
from chatprotocol.address import ban_network, is_in_network, new_ban_network
from chatprotocol.errors import ErrorCode, RequestError
from chatprotocol.events import Audit, Bans, Ignored, RoomRole, SanctionKind
from chatprotocol.rules import check_reason, is_lobby, unknown_user
from chatserver.chat.problems import append_one, problem_error
from chatserver.chat.room_commands import is_voiceless
from chatserver.journal import entries
from chatserver.journal.entries import Problem
from chatserver.store.errors import StoreError
from chatserver.store.rooms import LOBBY_ID

if TYPE_CHECKING:
    from chatserver.chat.guests import Guests
    from chatserver.chat.room import Member
    from chatserver.chat.room_commands import RoomCommands
    from chatserver.journal.base import Journal
    from chatserver.store.accounts import Account, Accounts
    from chatserver.store.moderation import ModerationRecords

_log = structlog.get_logger()

# Requests whose reason others read, like a message: who may not write there gives none.
_TOLD_WITH_REASON: Final = (requests.Kick, requests.Ban, requests.Mute, requests.Delete)


class Moderation:
    """Answers requests about the conduct of users. For any thread."""

    def __init__(
        self,
        records: ModerationRecords,
        accounts: Accounts,
        guests: Guests,
        rooms: RoomCommands,
        journal: Journal,
    ) -> None:
        self._records = records
        self._accounts = accounts
        self._guests = guests
        self._rooms = rooms
        self._journal = journal

    def may_say_why(self, member: Member, room: str | None = None) -> bool:
        """True if others may be told why the user leaves the room or the server: it may write wherever it leaves.

        Raises no errors.
        """
        try:
            rooms = self._rooms.joined(member) if room is None else [self._rooms.find(member, room)]
            places = {None, *(each.room_id for each in rooms)}
            is_muted = any(self._records.silence(member.account_id, place) is not None for place in places)
            return not (is_muted or any(is_voiceless(member, each) for each in rooms))
        except (RequestError, StoreError):
            return False

    def answer(self, member: Member, request: requests.ModerationRequest) -> Bans | Audit | Ignored | None:
        """Return a list; or do what is asked. The hub has then answered. Raises RequestError."""
        room: str | None = getattr(request, "room", None)
        if isinstance(request, _TOLD_WITH_REASON) and request.reason and not self._may_write(member, room):
            check_reason(request.reason)
            request = replace(request, reason="")
        match request:
            case requests.AskBans():
                if room is None or is_lobby(room):
                    _check_operator(member)
                    return Bans(self._records.sanctions(None))
                found = self._rooms.find_to_run(member, room)
                if found.role not in (RoomRole.OWNER, RoomRole.OPERATOR):
                    raise problem_error(Problem.NOT_PERMITTED, room)
                return Bans(self._records.sanctions(found.room_id), found.name)
            case requests.AskAudit(limit=limit, before=before):
                _check_operator(member)
                return Audit(self._records.audit(limit, before))
            case requests.AskIgnored():
                return Ignored(self._records.ignored_by(member.account_id))
            case requests.Ignore(username=username) | requests.Unignore(username=username):
                is_ignored = isinstance(request, requests.Ignore)
                entry = entries.SetIgnored(member.account_id, self._find_user(username).id, is_ignored)
                self._append(member, entry, room=None, username=username)
                return Ignored(self._records.ignored_by(member.account_id))
            case requests.Kick(room=str()) if not is_lobby(room):
                self._rooms.change(member, request)
            case _:
                self._act(member, request, room)
        return None

    def _act(self, member: Member, request: Any, room: str | None) -> None:
        check_reason(getattr(request, "reason", ""))
        message_id = getattr(request, "id", None)
        if message_id is not None and message_id < member.first_id:  # perhaps of an earlier guest of the name
            raise problem_error(Problem.UNKNOWN_MESSAGE)
        entry = self._entry(member, request, self._find_room_id(member, room))
        target = getattr(request, "username", None) or getattr(request, "address", None) or str(request.id)
        room = None if is_lobby(room) else room
        self._append(member, entry, room, target)
        _log.info("moderated", action=type(request).__name__.lower(), user=member.name, target=target[:64], room=room)

    def _entry(
        self,
        member: Member,
        request: requests.Kick
        | requests.Ban
        | requests.Unban
        | requests.Mute
        | requests.Unmute
        | requests.Delete
        | requests.Report,
        room_id: int | None,
    ) -> entries.ModerationEntry[Any]:
        """Return the entry of a request. Raises RequestError if its user is unknown or its address is not valid."""
        by: dict[str, Any] = {"by_id": member.account_id, "by": member.name}
        target: dict[str, Any]
        match request:
            case requests.Delete():
                target = {"message_id": request.id, "room_id": room_id or LOBBY_ID, "reason": request.reason}
                return entries.DeleteMessage(**target, **by)
            case requests.Report(id=int(message_id)):
                return entries.Report(message_id=message_id, room_id=room_id or LOBBY_ID, reason=request.reason, **by)
            case requests.Ban(address=str(address)) | requests.Unban(address=str(address)):
                target = {"network": _read_network(member, request, address, room_id)}
            case requests.Ban(username=str(name)) if (
                room_id is None and (guest_address := self._guests.address_of(name)) is not None
            ):  # a guest has no account that could be banned from the server
                target = {"network": _read_network(member, request, guest_address, room_id)}
            case _:
                is_end = isinstance(request, requests.Unban | requests.Unmute)
                account = self._find_user(request.username or "", may_have_left=is_end)
                if isinstance(request, requests.Ban) and account.is_guest and member.is_operator and room_id is None:
                    raise RequestError(
                        ErrorCode.BAD_REQUEST,
                        f"{account.name} is a guest on another server, which alone knows the address: kick "
                        f"{account.name}, or ban the address, or log in to that server; nothing was done.",
                    )
                target = {"account_id": account.id, "username": account.name}
        match request:
            case requests.Kick():
                return entries.KickFromServer(reason=request.reason, **target, **by)
            case requests.Report():
                return entries.Report(reason=request.reason, **target, **by)
            case requests.Ban() | requests.Mute():
                kind = SanctionKind.BAN if isinstance(request, requests.Ban) else SanctionKind.MUTE
                target |= {"seconds": request.seconds, "reason": request.reason}
                return entries.Sanction(kind=kind, room_id=room_id, **target, **by)
            case requests.Unban() | requests.Unmute():
                kind = SanctionKind.BAN if isinstance(request, requests.Unban) else SanctionKind.MUTE
                return entries.LiftSanction(kind=kind, room_id=room_id, **target, **by)
        assert_never(request)

    def _may_write(self, member: Member, room: str | None) -> bool:
        """True if the user may write in a room, or in the lobby."""
        found = None if room is None or is_lobby(room) else self._rooms.find_to_run(member, room)
        if found is not None and is_voiceless(member, found):
            return False
        return self._records.silence(member.account_id, None if found is None else found.room_id) is None

    def _append(self, member: Member, entry: entries.Entry[Any], room: str | None, username: str) -> None:
        """Wait until the entry is committed and published. Raises RequestError."""
        outcome = append_one(self._journal, entry, "nothing was done", member, room)
        if isinstance(outcome, Problem):
            raise problem_error(outcome, room, username)

    def _find_room_id(self, member: Member, room: str | None) -> int | None:
        return None if room is None or is_lobby(room) else self._rooms.find_to_run(member, room).room_id

    def _find_user(self, username: str, *, may_have_left: bool = False) -> Account:
        """Return the account or the guest. ``may_have_left``: also a guest who is not online, in this spelling."""
        account = self._accounts.find(username) or self._guests.find(username)
        if account is None and may_have_left:
            account = self._accounts.find_writer(username)
        if account is None:
            raise unknown_user(username, "nothing was done")
        return account


def _check_operator(member: Member) -> None:
    if not member.is_operator:
        raise problem_error(Problem.NOT_PERMITTED)


def _read_network(member: Member, request: requests.Ban | requests.Unban, address: str, room_id: int | None) -> str:
    """Return the network to ban: not the operator's own, nor too large. Others don't learn if a guest is near them."""
    if room_id is not None:
        reason = "Addresses can be banned from the whole server only; leave the room out."
        raise RequestError(ErrorCode.BAD_REQUEST, reason, room=request.room)
    try:
        network = new_ban_network(address) if isinstance(request, requests.Ban) else ban_network(address)
    except ValueError as error:
        raise RequestError(ErrorCode.BAD_REQUEST, f"{str(error)[:200]}; nothing was done.") from error
    if isinstance(request, requests.Ban) and member.is_operator and is_in_network(member.address, network):
        raise problem_error(Problem.ONESELF)
    return network
