"""The errors of entries that changed nothing, or can't be stored, for the users who asked for them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, TypeVar

from chatprotocol.errors import ErrorCode, RequestError
from chatprotocol.events import SanctionKind
from chatprotocol.limits import (
    IGNORED_MAX,
    MEMBERS_MAX,
    ROOMS_JOINED_MAX,
    ROOMS_MAX,
    SANCTIONS_MAX,
    SANCTIONS_OF_ROOM_MAX,
)
from chatprotocol.rules import not_a_member, unknown_room, unknown_user
from chatserver.journal.base import DiskFullError, LogUnavailableError
from chatserver.journal.entries import Problem

if TYPE_CHECKING:
    from chatserver.journal.base import Journal
    from chatserver.journal.entries import Entry
    from chatserver.store.moderation import ActiveSanction

_T = TypeVar("_T")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


# {username} is the user of the request, {where} its room or the server.
_REASONS: Final = {
    Problem.USER_NOT_A_MEMBER: (ErrorCode.NOT_A_MEMBER, "{username} is not in {where}; nothing was done."),
    Problem.ONESELF: (ErrorCode.NOT_PERMITTED, "You can't do this to yourself; nothing was done."),
    Problem.LAST_OPERATOR: (
        ErrorCode.NOT_PERMITTED,
        "{username} is the last operator of the server; make another user an operator first.",
    ),
    Problem.UNKNOWN_MESSAGE: (
        ErrorCode.UNKNOWN_MESSAGE,
        "There is no such message, or you may not see it; nothing was done.",
    ),
    Problem.USER_BANNED: (ErrorCode.BAD_REQUEST, "{username} is banned from {where}; end the ban first."),
    Problem.NOT_SANCTIONED: (
        ErrorCode.BAD_REQUEST,
        "{username} has no such ban or mute here; nothing was done.",
    ),
    Problem.MAILBOX_FULL_OF_SENDER: (
        ErrorCode.MAILBOX_FULL,
        "Too many of your messages wait for {username}, who must log in first; the message was not stored.",
    ),
    Problem.MAILBOX_FULL: (
        ErrorCode.MAILBOX_FULL,
        "Too many messages wait for {username}, who must log in first; the message was not stored.",
    ),
    Problem.WRONG_KEY: (
        ErrorCode.WRONG_KEY,
        "One needs a key, or an invitation, to join {where}; join it with the right key.",
    ),
    Problem.ROOM_FULL: (
        ErrorCode.ROOM_FULL,
        "As many users are in {where} as its operators allow; ask one of them for an invitation.",
    ),
    Problem.MODERATED: (
        ErrorCode.MUTED,
        "Only operators and members with a voice write in {where}; ask an operator for a voice.",
    ),
    Problem.TOO_MANY_ROOMS: (
        ErrorCode.TOO_MANY_ROOMS,
        (
            f"A user can be in {ROOMS_JOINED_MAX:,} rooms at most, a server can have {ROOMS_MAX:,} rooms, and a room "
            f"{MEMBERS_MAX:,} members and invitations; nothing was done."
        ),
    ),
    Problem.TOO_MANY_IGNORED: (
        ErrorCode.BAD_REQUEST,
        f"You ignore {IGNORED_MAX:,} users, which is the maximum; end some first.",
    ),
}


def problem_error(problem: Problem, room: str | None = None, username: str | None = None) -> RequestError:
    """Make the error for a request, perhaps about a room, in the spelling of the request, and about a user."""
    match problem:
        case Problem.UNKNOWN_ROOM:
            return unknown_room(room or "")
        case Problem.NOT_A_MEMBER:
            return not_a_member(room or "")
        case Problem.UNKNOWN_USER:
            return unknown_user(username or "", "nothing was done")
        case Problem.TOO_MANY_SANCTIONS:
            where = "The server" if room is None else f"The room {room}"
            count = SANCTIONS_MAX if room is None else SANCTIONS_OF_ROOM_MAX
            reason = f"{where} has {count:,} bans and mutes, which is the maximum; end some first."
            return RequestError(ErrorCode.BAD_REQUEST, reason, room=room)
        case Problem.NOT_PERMITTED:
            who = "operators of the server"
            if room is not None:
                who = f"the owner and the operators of the room {room}"
            target = "" if room is None or username is None else ", but not to the owner"
            return RequestError(
                ErrorCode.NOT_PERMITTED, f"Only {who} may do this{target}; nothing was done.", room=room
            )
        case _:
            code, reason = _REASONS[problem]
            where = "the server" if room is None else f"the room {room}"
            return RequestError(code, reason.format(username=username, where=where), room=room)


def append_one(
    journal: Journal, entry: Entry[_T], consequence: str, origin: object = None, room: str | None = None
) -> _T:
    """Append an entry; return its outcome after it is committed and published.

    RequestError: it can't be stored; see write_error. JournalClosedError: the server is shutting down.
    """
    try:
        (outcome,) = journal.append([entry], origin).result()
    except OSError as error:
        raise write_error(error, consequence, room) from error
    return outcome


def write_error(error: OSError, consequence: str, room: str | None = None) -> RequestError:
    """Make the error for a request that can't be stored; the consequence is the rest of the sentence."""
    if isinstance(error, DiskFullError):
        return RequestError(ErrorCode.DISK_FULL, f"The server's disk is nearly full; {consequence}.", room=room)
    if isinstance(error, LogUnavailableError):
        return RequestError(ErrorCode.UNAVAILABLE, f"{error}; {consequence}.", room=room)
    return RequestError(ErrorCode.INTERNAL, f"The server can't write to its disk; {consequence}.", room=room)


def sanction_error(sanction: ActiveSanction, room: str | None = None) -> RequestError:
    """Make the error for a user who is banned or muted. ``room`` is the room of the request, in its spelling."""
    code = ErrorCode.BANNED if sanction.kind is SanctionKind.BAN else ErrorCode.MUTED
    return RequestError(code, f"{sanction_text(sanction)}.", room=room)


def sanction_text(sanction: ActiveSanction) -> str:
    """The sanction as half a sentence for its target: "You are banned until 2026-01-31 12:00 UTC: flooding"."""
    what = "banned" if sanction.kind is SanctionKind.BAN else "muted"
    where = "" if sanction.room is None else f" in the room {sanction.room}"
    until = "" if sanction.until_ms is None else f" until {format_time(sanction.until_ms)}"
    reason = f": {sanction.reason.rstrip('.')}" if sanction.reason else ""
    return f"You are {what}{where}{until}{reason}"


def format_time(time_ms: int) -> str:
    """A time in UTC, in minutes, rounded up: it is over then."""
    return f"{_EPOCH + timedelta(minutes=-(-time_ms // 60_000)):%Y-%m-%d %H:%M} UTC"
