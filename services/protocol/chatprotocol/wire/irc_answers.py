"""Answers to the commands of irc_commands.py. Wire format: docs/wire/irc.md.

An answer depends on the command and on the request that the connection waits for: one command may have several.
A refused request is answered with the numeric of its command, or with the code that its specification defines.
"""

from __future__ import annotations

import re
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from chatprotocol import events, requests
from chatprotocol.errors import ErrorCode
from chatprotocol.events import SanctionKind
from chatprotocol.limits import WATCHED_MAX
from chatprotocol.rules import is_lobby, room_key
from chatprotocol.wire.irc_events import (
    PREFIXES,
    ban_mask,
    channel,
    end_of_names,
    filled,
    is_inside,
    mark_line,
    name_lines,
    topic_lines,
)
from chatprotocol.wire.irc_lines import add_tag, format_line
from chatprotocol.wire.json import to_iso

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from chatprotocol.events import RoomRole, UserInfo
    from chatprotocol.wire.irc_connection import IrcConnection

# The fields of WHOX, in the order of an answer. "d" and "o" are not standard, but old clients ask for them.
_WHOX_FIELDS: Final = "tcuihsnfdlaor"
_TOKEN: Final = re.compile("[0-9]{1,3}")
_SERVER_INFO: Final = "A chat server"


def answer_lines(event: object, connection: IrcConnection) -> list[str]:
    """The lines of an event that is an answer in any case; none for other events."""
    answer = _ANSWERS.get(type(event))
    return answer(connection, event) if answer is not None else []


# --- users ---


def _infos(connection: IrcConnection, event: events.Infos) -> list[str]:
    online = [info for info in event.infos if info is not None and info.is_online]
    match connection.command.name:
        case "WHOIS":
            asked = connection.asked
            nicks = asked.usernames if isinstance(asked, requests.AskInfo) else ()
            return [line for nick, info in zip_longest(nicks, event.infos) for line in _whois(connection, nick, info)]
        case "USERHOST":
            return [connection.numeric("302", " ".join(_userhost(connection, info) for info in online))]
        case "ISON":
            return [connection.numeric("303", " ".join(info.username for info in online))]
        case _:
            return _who(connection, ((info, None) for info in online), "*")


def _whois(connection: IrcConnection, nick: str, info: UserInfo | None) -> Iterator[str]:
    numeric = connection.numeric
    if info is None or not info.is_online:
        yield numeric("401", nick, "No such nick/channel")
    else:
        name, server = info.username, connection.settings.name
        yield numeric("311", name, info.ident or name, server, "*", info.realname or name)
        yield from filled(connection, ("319", name), (PREFIXES[role] + channel(room) for room, role in info.rooms))
        yield numeric("312", name, server, _SERVER_INFO)
        if info.is_operator:
            yield numeric("313", name, "is an IRC operator")
        if info.is_bot:
            yield numeric("335", name, "is a bot")
        if not info.is_guest:
            yield numeric("330", name, name, "is logged in as")
        if info.away:
            yield numeric("301", name, info.away)
        if info.idle_seconds is not None and info.login_ms is not None:
            times = (str(info.idle_seconds), str(info.login_ms // 1000))
            yield numeric("317", name, *times, "seconds idle, signon time")
    yield numeric("318", nick, "End of /WHOIS list")


def _userhost(connection: IrcConnection, info: UserInfo) -> str:
    name = info.username
    flags = f"{'*' * info.is_operator}={'-' if info.away else '+'}"
    return f"{name}{flags}{info.ident or name}@{connection.settings.name}"


class _WhoQuery(NamedTuple):
    """The parameters of WHO. ``fields`` are those of WHOX, or None."""

    mask: str
    fields: str | None
    token: str
    has_operators_only: bool


def _who_query(connection: IrcConnection) -> _WhoQuery:
    command = connection.command
    flags, percent, fields = command.param(1).partition("%")
    fields, _, token = fields.partition(",")
    is_token = _TOKEN.fullmatch(token) is not None
    return _WhoQuery(command.param(0, "*"), fields if percent else None, token if is_token else "0", "o" in flags)


def _who(connection: IrcConnection, found: Iterable[tuple[UserInfo, RoomRole | None]], room: str) -> list[str]:
    query = _who_query(connection)
    lines = [
        _who_line(connection, query, info, role, room)
        for info, role in found
        if info.is_operator or not query.has_operators_only
    ]
    return [*lines, end_of_who(connection)]


def _who_line(connection: IrcConnection, query: _WhoQuery, info: UserInfo, role: RoomRole | None, room: str) -> str:
    name, server = info.username, connection.settings.name
    realname = info.realname or name
    flags = ("G" if info.away else "H") + "*" * info.is_operator + "B" * info.is_bot
    if role is not None:
        flags += PREFIXES[role]
    if query.fields is None:
        return connection.numeric("352", room, info.ident or name, server, server, name, flags, f"0 {realname}")
    values = {
        "t": query.token,
        "c": room,
        "u": info.ident or name,
        "i": "255.255.255.255",
        "h": server,
        "s": server,
        "n": name,
        "f": flags,
        "d": "0",
        "l": str(info.idle_seconds or 0),
        "a": "0" if info.is_guest else name,
        "o": "n/a",
        "r": realname,
    }
    return connection.numeric("354", *(values[field] for field in _WHOX_FIELDS if field in query.fields))


def end_of_who(connection: IrcConnection) -> str:
    """RPL_ENDOFWHO (315), with the mask as it was sent."""
    return connection.numeric("315", connection.command.param(0, "*"), "End of /WHO list")


def _past(connection: IrcConnection, event: events.Past) -> list[str]:
    asked = connection.asked
    nick = asked.username if isinstance(asked, requests.AskPast) else event.username
    server = connection.settings.name
    lines = []
    for user in event.users:
        realname = user.realname or user.username
        lines.append(connection.numeric("314", user.username, user.ident or user.username, server, "*", realname))
        lines.append(connection.numeric("312", user.username, server, to_iso(user.logout_ms)))
    return lines or [connection.numeric("406", nick, "There was no such nickname")]


def _watched(connection: IrcConnection, event: events.Watched) -> list[str]:
    """RPL_MONONLINE (730) and RPL_MONOFFLINE (731), and nothing for names that are no longer watched."""
    connection.watched = event.watched
    online = map(connection.encoding.prefix, event.online)
    return [*filled(connection, ("730",), online, ","), *filled(connection, ("731",), event.offline, ",")]


def _counts(connection: IrcConnection, event: events.Counts) -> list[str]:
    """The line of LIST for the lobby, in which all users are."""
    is_listed = _is_listed(connection, None, event.users)
    return [connection.numeric("322", channel(None), str(event.users), "")] if is_listed else []


# --- rooms ---


def _members(connection: IrcConnection, event: events.Members) -> list[str]:
    """The answer to NAMES, or to WHO with a channel."""
    if connection.command.name == "WHO":
        return _who(connection, ((each.info, each.role) for each in event.members), channel(event.room))
    return [
        *name_lines(connection, event.room, event.members, is_private=event.is_private),
        end_of_names(connection, channel(event.room)),
    ]


def _rooms(connection: IrcConnection, event: events.Rooms) -> list[str]:
    """The answer to LIST, or to INVITE without parameters."""
    if connection.command.name == "INVITE":
        return [connection.numeric("336", channel(each.room)) for each in event.rooms if each.invited]
    return [
        connection.numeric("322", channel(each.room), str(each.members), each.topic)
        for each in event.rooms
        if _is_listed(connection, each.room, each.members)
    ]


def _topic(connection: IrcConnection, event: events.Topic) -> list[str]:
    """RPL_TOPIC (332) and RPL_TOPICWHOTIME (333), or RPL_NOTOPIC (331)."""
    lines = topic_lines(connection, event.room, event.topic, event.by, event.time_ms)
    return lines or [connection.numeric("331", channel(event.room), "No topic is set")]


def _is_listed(connection: IrcConnection, room: str | None, users: int) -> bool:
    """True if a room is one that a LIST asks for (ELIST=MNU: masks, negated masks, and numbers of users)."""
    key = room_key(channel(room))
    masks = [each for each in connection.command.param(0).split(",") if each]
    wanted = [each for each in masks if each[0] not in "<>!"]
    if wanted and not any(_matches(mask, key) for mask in wanted):
        return False
    for mask in masks:
        if mask[0] == "!" and _matches(mask[1:], key):
            return False
        if mask[0] in "<>" and mask[1:].isdecimal():
            limit = int(mask[1:10])
            if (users >= limit) if mask[0] == "<" else (users <= limit):
                return False
    return True


def _matches(mask: str, key: str) -> bool:
    """True if a mask with * and ? matches. In linear time, because the mask comes from a client."""
    mask = room_key(mask)
    start, star, retry = 0, -1, 0
    position = 0
    while position < len(key):
        if start < len(mask) and mask[start] == "*":
            star, retry = start, position
            start += 1
        elif start < len(mask) and mask[start] in (key[position], "?"):
            start += 1
            position += 1
        elif star >= 0:
            retry += 1
            start, position = star + 1, retry
        else:
            return False
    return not mask[start:].strip("*")


def _bans(connection: IrcConnection, event: events.Bans) -> list[str]:
    """RPL_BANLIST (367) and RPL_ENDOFBANLIST (368). Mutes have no form here."""
    room = channel(event.room)
    lines = [
        connection.numeric("367", room, ban_mask(ban.username, ban.address), ban.by, str(ban.time_ms // 1000))
        for ban in event.bans
        if ban.kind is SanctionKind.BAN
    ]
    return [*lines, connection.numeric("368", room, "End of channel ban list")]


# --- history ---


def _active(connection: IrcConnection, event: events.Active) -> list[str]:
    """The answer to CHATHISTORY TARGETS, as a batch if the client knows batches."""
    server = connection.settings.name
    targets = ((each.with_user or channel(each.room), to_iso(each.time_ms)) for each in event.targets)
    lines = [format_line(server, "CHATHISTORY", "TARGETS", *target) for target in targets]
    if "batch" not in connection.enabled:
        return lines
    batch = connection.new_batch()
    start = format_line(server, "BATCH", f"+{batch}", "draft/chathistory-targets")
    return [start, *(add_tag(line, f"batch={batch}") for line in lines), connection.close_batch(batch)]


def _mark_target(connection: IrcConnection, asked: requests.MarkRead) -> str:
    """The target of a mark as the client wrote it, or the room that it has entered."""
    return connection.command.param(0) if connection.command.name == "MARKREAD" else channel(asked.room)


# --- errors ---


class _Numeric(NamedTuple):
    """A numeric of an error. ``about`` says which parameters come before the text."""

    code: str
    text: str
    about: str = "room"


_NO_NICK: Final = _Numeric("401", "No such nick/channel", "nick")
_NO_CHANNEL: Final = _Numeric("403", "No such channel")
_NOT_IN_CHANNEL: Final = _Numeric("441", "They aren't on that channel", "nick room")
_NOT_ON_CHANNEL: Final = _Numeric("442", "You're not on that channel")
_NO_PRIVILEGES: Final = _Numeric("481", "Permission Denied- You're not an IRC operator", "")
_NOT_ABOVE: Final = _Numeric("482", "You're not channel operator, or they own the channel")
_NOT_CHANNEL_OPERATOR: Final = _Numeric("482", "You're not channel operator")
# Errors of all requests.
_ERRORS: Final[dict[str, _Numeric]] = {
    ErrorCode.UNKNOWN_USER: _NO_NICK,
    ErrorCode.BAD_USERNAME: _NO_NICK,
    ErrorCode.UNKNOWN_ROOM: _NO_CHANNEL,
    ErrorCode.NOT_A_MEMBER: _NOT_ON_CHANNEL,
    ErrorCode.NOT_PERMITTED: _NOT_CHANNEL_OPERATOR,
    ErrorCode.RATE_LIMITED: _Numeric("263", "Please wait a while and try again.", "command"),
}
# Those of one request that differ. A room that a user may not enter can't be told from one that it may not know of.
_ERRORS_OF: Final[dict[type, dict[str, _Numeric]]] = {
    requests.Join: {
        ErrorCode.UNKNOWN_ROOM: _Numeric("473", "Cannot join channel (+i)"),
        ErrorCode.NOT_PERMITTED: _Numeric("473", "Cannot join channel (+i)"),
        ErrorCode.BAD_REQUEST: _NO_CHANNEL,
        ErrorCode.TOO_MANY_ROOMS: _Numeric("405", "You have joined too many channels"),
        ErrorCode.BANNED: _Numeric("474", "Cannot join channel (+b)"),
        ErrorCode.ROOM_FULL: _Numeric("471", "Cannot join channel (+l)"),
        ErrorCode.WRONG_KEY: _Numeric("475", "Cannot join channel (+k)"),
    },
    requests.Part: {ErrorCode.BAD_REQUEST: _NO_CHANNEL},
    requests.SetModes: {},
    requests.SetTopic: {},
    requests.Invite: {},
}
# Requests about a user who must be in the room.
_ABOUT_MEMBERS: Final = (
    requests.Kick,
    requests.MakeOperator,
    requests.MakeMember,
    requests.GiveVoice,
    requests.TakeVoice,
)
# The codes of standard replies, by command, and the code for all others.
_FAILURES: Final[dict[str, tuple[dict[str, str], str]]] = {
    "CHATHISTORY": (
        {
            ErrorCode.UNKNOWN_ROOM: "INVALID_TARGET",
            ErrorCode.NOT_A_MEMBER: "INVALID_TARGET",
            ErrorCode.UNKNOWN_USER: "INVALID_TARGET",
            ErrorCode.BAD_USERNAME: "INVALID_TARGET",
            ErrorCode.BAD_REQUEST: "INVALID_TARGET",
        },
        "MESSAGE_ERROR",
    ),
    "MARKREAD": (
        {
            ErrorCode.UNKNOWN_ROOM: "INVALID_PARAMS",
            ErrorCode.NOT_A_MEMBER: "INVALID_PARAMS",
            ErrorCode.UNKNOWN_USER: "INVALID_PARAMS",
            ErrorCode.BAD_USERNAME: "INVALID_PARAMS",
            ErrorCode.BAD_REQUEST: "INVALID_PARAMS",
        },
        "INTERNAL_ERROR",
    ),
    "REDACT": (
        {
            ErrorCode.UNKNOWN_ROOM: "INVALID_TARGET",
            ErrorCode.NOT_A_MEMBER: "INVALID_TARGET",
            ErrorCode.BAD_REQUEST: "INVALID_TARGET",
            ErrorCode.UNKNOWN_MESSAGE: "UNKNOWN_MSGID",
        },
        "REDACT_FORBIDDEN",
    ),
    "SETNAME": (
        {ErrorCode.TOO_LONG: "INVALID_REALNAME", ErrorCode.BAD_REQUEST: "INVALID_REALNAME"},
        "CANNOT_CHANGE_REALNAME",
    ),
}


def _refused(connection: IrcConnection, event: events.Refused) -> list[str]:
    """The lines of an error, which answers the request that the connection waits for."""
    asked, name = connection.asked, connection.command.name
    if isinstance(asked, requests.AskMembers | requests.AskWho):  # these have no errors, only ends
        if name == "WHO":
            return [end_of_who(connection)]
        return [end_of_names(connection, channel(asked.room if isinstance(asked, requests.AskMembers) else None))]
    if isinstance(asked, requests.MarkRead) and asked.time_ms is None:  # nothing is known to be read
        return [mark_line(connection, _mark_target(connection, asked), None)]
    if isinstance(asked, requests.Watch) and event.code is ErrorCode.TOO_LONG:
        names = ",".join(asked.usernames)
        return [connection.numeric("734", str(WATCHED_MAX), names, "Monitor list is full.")]
    if name in _FAILURES:
        return [_failure(connection, event)]
    return [_error_line(connection, event)]


def _failure(connection: IrcConnection, event: events.Refused) -> str:
    command = connection.command
    codes, default = _FAILURES[command.name]
    code = codes.get(event.code, default)
    match command.name:
        case "SETNAME":
            about: tuple[str, ...] = ()
        case "REDACT" if code == "INVALID_TARGET":
            about = command.params[:1]
        case "MARKREAD":
            about = command.params[:1]
        case _:  # the subcommand or the target, and the target or the message
            about = command.params[:2]
    return format_line(connection.settings.name, "FAIL", command.name, code, *about, event.reason)


def _error_line(connection: IrcConnection, event: events.Refused) -> str:
    asked = connection.asked
    room = getattr(asked, "room", None)
    nick = getattr(asked, "username", None) or getattr(event, "about", "") or "*"
    error = _ERRORS_OF.get(type(asked), {}).get(event.code) or _ERRORS.get(event.code)
    if isinstance(asked, _ABOUT_MEMBERS):
        if event.code is ErrorCode.NOT_A_MEMBER and is_inside(connection, room):
            error = _NOT_IN_CHANNEL
        if error is _NOT_CHANNEL_OPERATOR:
            error = _NOT_ABOVE
        if isinstance(asked, requests.Kick) and is_lobby(room) and event.code is ErrorCode.NOT_PERMITTED:
            error = _NO_PRIVILEGES
    if error is None:
        return connection.numeric("400", connection.command.name or "*", event.reason)
    words = {"room": channel(room), "nick": nick, "command": connection.command.name}
    text = f"{error.text}: {event.reason}" if event.code is ErrorCode.BANNED else error.text
    return connection.numeric(error.code, *(words[each] for each in error.about.split()), text)


_ANSWERS: Final[dict[type, Callable[[IrcConnection, Any], list[str]]]] = {
    events.Infos: _infos,
    events.Past: _past,
    events.Watched: _watched,
    events.Counts: _counts,
    events.Members: _members,
    events.Rooms: _rooms,
    events.Topic: _topic,
    events.Bans: _bans,
    events.Active: _active,
    events.Refused: _refused,
    events.UserUnknown: _refused,
}
