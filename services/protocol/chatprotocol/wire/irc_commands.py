"""Commands about rooms, users and the history, as requests. Wire format: docs/wire/irc.md.

A handler takes the command and yields its requests. What answers them is in irc_answers.py; other lines are put by the
handler itself. After each ``yield`` the request has been answered.
"""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import zip_longest
from typing import TYPE_CHECKING, Final

from chatprotocol import requests
from chatprotocol.address import ban_network
from chatprotocol.errors import RequestError
from chatprotocol.limits import (
    AWAY_MAX_BYTES,
    HISTORY_MAX_MESSAGES,
    ID_MAX,
    MEMBERS_MAX,
    REALNAME_MAX_BYTES,
    REASON_MAX_BYTES,
    ROOM_KEY_MAX_BYTES,
    ROOMS_JOINED_MAX,
    TOPIC_MAX_BYTES,
)
from chatprotocol.requests import Bound, HistoryOrder
from chatprotocol.rules import LOBBY, check_room_name, check_username, is_lobby, name_key, room_key
from chatprotocol.wire.irc_answers import end_of_who
from chatprotocol.wire.irc_capabilities import EVENT_PLAYBACK, EXTENDED_MONITOR
from chatprotocol.wire.irc_events import (
    READ_MARKER,
    channel,
    end_of_names,
    filled,
    is_inside,
    is_me,
    mark_line,
)
from chatprotocol.wire.irc_info import MODES_MAX
from chatprotocol.wire.irc_lines import format_line, remove_formatting
from chatprotocol.wire.irc_messages import may_send, relayed_tags

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from chatprotocol.requests import Request
    from chatprotocol.wire.irc_connection import Handler, IrcConnection
    from chatprotocol.wire.irc_lines import Command


# Targets of one command; further ones are ignored. Each is a request of its own.
TARGETS_MAX: Final = 10
# Channels of JOIN and PART, as many as a user may be in.
_CHANNELS_MAX: Final = ROOMS_JOINED_MAX
# Nicks in USERHOST (modern.ircdocs.horse) and ISON, which has as many as a line.
_USERHOST_MAX: Final = 5
_ISON_MAX: Final = 100
# Answers of WHOWAS.
_PAST_MAX: Final = 10

_KEY: Final = re.compile(r"[!-+\--~\u0080-\U0010ffff]+")  # one word without a comma
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
# Of a message, or with a number behind a dot of an event: see irc_events.event_line.
_MESSAGE_ID: Final = re.compile(r"msgid=(\d{1,19})(?:\.(\d{1,18})(?:\.\d{1,18})?)?", re.ASCII)
_TIME: Final = re.compile(r"timestamp=(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?)Z")


# --- channels ---


def _room_of(connection: IrcConnection, name: str) -> str | None:
    """The room of a channel; None after ERR_NOSUCHCHANNEL (403) if the name is not that of a channel."""
    if name.startswith("#") and is_lobby(name[1:]):
        return LOBBY
    if name.startswith("#"):
        with suppress(RequestError):
            check_room_name(name[1:])
            return name[1:]
    connection.reply("403", name or "*", "No such channel")
    return None


def _needs(connection: IrcConnection, command: Command, count: int) -> bool:
    """True if the command has this many parameters; otherwise ERR_NEEDMOREPARAMS (461) was sent."""
    if len(command.params) >= count and all(command.params[:count]):
        return True
    connection.reply("461", command.name, "Not enough parameters")
    return False


def _enter_lobby(connection: IrcConnection) -> Request:
    """The first time, the user also gets what it missed, unless the client asks for the history by itself."""
    seen_id, connection.seen_id = connection.seen_id, None
    return requests.EnterLobby(None if "draft/chathistory" in connection.enabled else seen_id)


def _split(names: str, most: int = TARGETS_MAX) -> list[str]:
    """The targets of a command, each once."""
    return list(dict.fromkeys(name for name in names.split(",") if name))[:most]


def _join(connection: IrcConnection, command: Command) -> Iterator[Request]:
    if not _needs(connection, command, 1):
        return
    if command.params[0] == "0":
        yield from _part_all(connection)
        return
    names, keys = command.params[0].split(",")[:_CHANNELS_MAX], command.param(1).split(",")
    if len(names) > 1 or READ_MARKER in connection.enabled:
        connection.answer_in_batch()
    for name, key in zip_longest(names, keys[: len(names)]):
        room = _room_of(connection, name) if name else None
        if room is None or is_inside(connection, room):
            continue
        yield _enter_lobby(connection) if room == LOBBY else requests.Join(room=room, key=key or None)
        if is_inside(connection, room):
            yield from finish_entering(connection, room)


def finish_entering(connection: IrcConnection, room: str) -> Iterator[Request]:
    """Send the read mark of a room, and then the end of the names (IRCv3, read-marker); the events have the rest.

    Call it for each room after a login, too.
    """
    if READ_MARKER not in connection.enabled:
        return
    if connection.is_guest:
        connection.put(mark_line(connection, channel(room), connection.marks.get(room_key(channel(room)))))
    else:
        yield requests.AskMark(room=room)
    connection.put(end_of_names(connection, channel(room)))


def _part_all(connection: IrcConnection) -> Iterator[Request]:
    rooms = sorted(connection.rooms)
    if len(rooms) > 1:
        connection.answer_in_batch()
    for room in rooms:
        yield requests.LeaveLobby() if room == LOBBY else requests.Part(room)


def _part(connection: IrcConnection, command: Command) -> Iterator[Request]:
    if not _needs(connection, command, 1):
        return
    names = _split(command.params[0], _CHANNELS_MAX)
    if len(names) > 1:
        connection.answer_in_batch()
    for name in names:
        room = _room_of(connection, name)
        if room == LOBBY:
            if is_inside(connection, room):
                yield requests.LeaveLobby()
            else:
                connection.reply("442", name, "You're not on that channel")
        elif room is not None:
            yield requests.Part(room, _cut(command.param(1), REASON_MAX_BYTES))


def _names(connection: IrcConnection, command: Command) -> Iterator[Request]:
    names = _split(command.param(0))
    if not names:
        connection.put(end_of_names(connection, "*"))
    if len(names) > 1:
        connection.answer_in_batch()
    for name in names:
        if len(name) > 1 and name[0] == "#":
            yield requests.AskMembers(None if is_lobby(name[1:]) else name[1:])
        else:
            connection.put(end_of_names(connection, name))


def _list(connection: IrcConnection, _: Command) -> Iterator[Request]:
    connection.answer_in_batch()
    connection.reply("321", "Channel", "Users  Name")
    yield requests.AskCounts()
    yield requests.AskRooms()
    connection.reply("323", "End of /LIST")


def _topic(connection: IrcConnection, command: Command) -> Iterator[Request]:
    if not _needs(connection, command, 1):
        return
    name = command.params[0]
    room = _room_of(connection, name)
    if room is None:
        return
    if len(command.params) == 1:
        if room == LOBBY:
            connection.reply("331", name, "No topic is set")
        else:
            yield requests.AskTopic(room)
    elif room == LOBBY:
        connection.reply("482", name, "You're not channel operator")
    else:
        yield requests.SetTopic(room, _cut(command.params[1], TOPIC_MAX_BYTES))


def _invite(connection: IrcConnection, command: Command) -> Iterator[Request]:
    """INVITE; without parameters the list of own invitations."""
    if not command.params:
        connection.answer_in_batch()
        yield requests.AskRooms()
        connection.reply("337", "End of /INVITE list")
        return
    if not _needs(connection, command, 2):
        return
    nick, name = command.params[:2]
    room = _room_of(connection, name)
    if room == LOBBY:
        connection.reply("443", nick, name, "is already on channel")
    elif room is not None:
        yield requests.Invite(room, nick)


def _kick(connection: IrcConnection, command: Command) -> Iterator[Request]:
    """KICK: one channel and some nicks, or as many channels as nicks."""
    if not _needs(connection, command, 2):
        return
    names, nicks = command.params[0].split(",")[:TARGETS_MAX], command.params[1].split(",")[:TARGETS_MAX]
    if len(names) == 1:
        names *= len(nicks)
    if len(nicks) > 1:
        connection.answer_in_batch()
    for name, nick in zip(names, nicks, strict=False):
        room = _room_of(connection, name)
        if room == LOBBY:
            connection.reply("482", name, "Nobody is kicked from this channel; an IRC operator may KILL")
        elif room is not None:
            yield requests.Kick(room=room, username=nick, reason=_cut(command.param(2), REASON_MAX_BYTES))


# --- modes ---


def _mode(connection: IrcConnection, command: Command) -> Iterator[Request]:
    if not _needs(connection, command, 1):
        return
    if not command.params[0].startswith("#"):
        yield from _user_mode(connection, command)
        return
    name = command.params[0]
    room = _room_of(connection, name)
    if room is None:
        return
    if len(command.params) > 1:
        yield from _ModeChange(connection, command, room).read()
    elif room == LOBBY:
        connection.reply("324", name, "+nt")
    else:
        yield requests.SetModes(room=room)


def _user_mode(connection: IrcConnection, command: Command) -> Iterator[Request]:
    """The modes of the user itself: o, which only the server gives, B for bots, and i, which has no effect."""
    if not is_me(connection, command.params[0]):
        connection.reply("502", "Can't change mode for other users")
        return
    if len(command.params) == 1:
        modes = "".join(sorted(connection.modes)) + "o" * connection.is_operator
        connection.reply("221", f"+{modes}")
        return
    sign, changes, has_unknown = "+", "", False
    for letter in command.params[1]:
        if letter in "+-":
            sign = letter
        elif letter not in "iBo":
            has_unknown = True
        elif letter != "o" and (letter in connection.modes) != (sign == "+"):
            connection.modes.symmetric_difference_update(letter)
            changes += sign + letter
            if letter == "B":
                connection.answer_in_batch()
                yield requests.SetBot(is_bot=sign == "+")
    if has_unknown:
        connection.reply("501", "Unknown MODE flag")
    if changes:
        connection.put(format_line(connection.prefix, "MODE", connection.nick, _joined(changes)))


def _joined(changes: str) -> str:
    """Join changes such as +i+B-w to +iB-w."""
    joined, last = "", ""
    for sign, letter in zip(changes[::2], changes[1::2], strict=True):
        joined += (sign if sign != last else "") + letter
        last = sign
    return joined


class _ModeChange:
    """The changes of a MODE for a channel. All settings together are one request, and come first."""

    def __init__(self, connection: IrcConnection, command: Command, room: str) -> None:
        self._connection = connection
        self._room = room
        self._letters = command.params[1]
        self._params = list(command.params[2 : 2 + MODES_MAX])
        self._settings: dict[str, bool | str | int] = {}
        self._others: list[Request] = []
        self._told: set[tuple[str, ...]] = set()

    def read(self) -> Iterator[Request]:
        """Read the letters, and yield the requests."""
        sign = "+"
        for letter in self._letters:
            if letter in "+-":
                sign = letter
            else:
                self._read_mode(letter, is_set=sign == "+")
        found = list(self._others)
        if self._settings and self._room != LOBBY:
            found.insert(0, requests.SetModes(room=self._room, **self._settings))  # type: ignore[arg-type]
        elif self._settings:
            self._refuse("482", channel(self._room), "You're not channel operator")
        if len(found) > 1:
            self._connection.answer_in_batch()
        yield from found

    def _read_mode(self, letter: str, *, is_set: bool) -> None:
        match letter:
            case "i" | "s":
                self._settings["private"] = is_set
            case "m":
                self._settings["moderated"] = is_set
            case "t":
                self._settings["open_topic"] = not is_set
            case "n":
                if not is_set:
                    self._refuse("742", channel(self._room), "n", "n", "This mode is always set")
            case "k":
                self._read_key(is_set=is_set)
            case "l":
                self._read_limit(is_set=is_set)
            case "o" | "v":
                self._read_role(letter, is_set=is_set)
            case "b":
                self._read_ban(is_set=is_set)
            case _:
                self._refuse("472", letter, "is unknown mode char to me")

    def _take(self) -> str:
        return self._params.pop(0) if self._params else ""

    def _refuse(self, *words: str) -> None:
        """Tell an error once: a line has hundreds of letters."""
        if words not in self._told:
            self._told.add(words)
            self._connection.reply(*words)

    def _refuse_value(self, letter: str, value: str, text: str) -> None:
        self._refuse("696", channel(self._room), letter, value if value and " " not in value else "*", text)

    def _read_key(self, *, is_set: bool) -> None:
        key = self._take()
        if not is_set:
            self._settings["key"] = ""
        elif _KEY.fullmatch(key) and key[0] != ":" and len(key.encode()) <= ROOM_KEY_MAX_BYTES:
            self._settings["key"] = key
        else:
            self._refuse_value("k", "", f"A key is a word without commas, of {ROOM_KEY_MAX_BYTES} bytes at most")

    def _read_limit(self, *, is_set: bool) -> None:
        if not is_set:
            self._settings["members_max"] = 0
            return
        limit = self._take()
        if limit.isascii() and limit.isdecimal() and 0 < int(limit[:9]) <= MEMBERS_MAX:
            self._settings["members_max"] = int(limit[:9])
        else:
            self._refuse_value("l", limit, f"A limit is a number from 1 to {MEMBERS_MAX}")

    def _read_role(self, letter: str, *, is_set: bool) -> None:
        nick = self._take()
        if not nick:
            self._refuse_value(letter, "", "A nick is needed")
        elif self._room == LOBBY:
            self._refuse("482", channel(self._room), "You're not channel operator")
        elif letter == "o":
            kind = requests.MakeOperator if is_set else requests.MakeMember
            self._others.append(kind(self._room, nick))
        else:
            self._others.append((requests.GiveVoice if is_set else requests.TakeVoice)(self._room, nick))

    def _read_ban(self, *, is_set: bool) -> None:
        """A ban of an account; in the lobby, where it is one from the server, also of an address."""
        mask = self._take()
        room = None if self._room == LOBBY else self._room
        if not mask:
            if room is None and not self._connection.is_operator:  # no error: some clients ask whenever they join
                self._connection.reply("368", channel(self._room), "Operators of the server see the bans")
                return
            asked = requests.AskBans() if room is None else requests.AskRoomBans(room)
            if asked not in self._others:
                self._others.append(asked)
            return
        kind = requests.Ban if is_set else requests.Unban
        name, _, host = mask.partition("@")
        if name == "*!*" and room is None and _is_network(host):
            self._others.append(kind(room=room, address=host))
        elif (nick := _banned_nick(mask, self._connection.settings.name)) is not None:
            self._others.append(kind(room=room, username=nick))
        else:
            self._refuse_value("b", mask, "Only nicks can be banned, as nick!*@*")


def _banned_nick(mask: str, server_name: str) -> str | None:
    """The nick that a mask begins with; None if it is about more than one user, or none.

    The ident proves nothing, so it is ignored. The host of all users is the name of the server.
    """
    nick, _, rest = mask.partition("!")
    host = rest.partition("@")[2].lower()
    server = server_name.lower()
    is_here = host in ("", "*", server) or (host[0] == "*" and server.endswith(host[1:]))
    return nick if is_here and _is_nick(nick) else None


def _is_nick(nick: str) -> bool:
    try:
        check_username(nick)
    except RequestError:
        return False
    return True


def _is_network(address: str) -> bool:
    try:
        ban_network(address)
    except ValueError:
        return False
    return True


# --- users ---


def _who(connection: IrcConnection, command: Command) -> Iterator[Request]:
    mask = command.param(0, "*")
    if mask.startswith("#"):
        if len(mask) > 1:
            yield requests.AskMembers(None if is_lobby(mask[1:]) else mask[1:])
        else:
            connection.put(end_of_who(connection))
    elif _is_nick(mask) and mask != "0":
        yield requests.AskInfo((mask,), has_rooms=False)
    else:
        yield requests.AskWho("*" if mask in ("", "0") else mask)


def _whois(connection: IrcConnection, command: Command) -> Iterator[Request]:
    nicks = _split(command.params[-1] if len(command.params) < 3 else command.params[1]) if command.params else []  # noqa: PLR2004
    if not nicks:
        connection.reply("431", "No nickname given")
        return
    yield requests.AskInfo(tuple(nicks))


def _whowas(connection: IrcConnection, command: Command) -> Iterator[Request]:
    nicks = _split(command.param(0))
    if not nicks:
        connection.reply("431", "No nickname given")
        return
    count = command.param(1)
    limit = min(int(count[:9]), _PAST_MAX) if count.isascii() and count.isdecimal() else 0
    connection.answer_in_batch()
    for nick in nicks:
        yield requests.AskPast(nick, limit or _PAST_MAX)
    connection.reply("369", command.params[0], "End of WHOWAS")


def _away(_: IrcConnection, command: Command) -> Iterator[Request]:
    yield requests.SetAway(_cut(command.param(0), AWAY_MAX_BYTES))


def _userhost(connection: IrcConnection, command: Command) -> Iterator[Request]:
    if _needs(connection, command, 1):
        yield requests.AskInfo(command.params[:_USERHOST_MAX], has_rooms=False)


def _ison(connection: IrcConnection, command: Command) -> Iterator[Request]:
    if _needs(connection, command, 1):
        nicks = [nick for param in command.params for nick in param.split()]
        yield requests.AskInfo(tuple(nicks[:_ISON_MAX]), has_rooms=False)


def _monitor(connection: IrcConnection, command: Command) -> Iterator[Request]:
    """MONITOR (IRCv3). Targets that are no nicks can never come online; they are ignored."""
    action = command.param(0).upper()
    if not _needs(connection, command, 2 if action in ("+", "-") else 1):
        return
    nicks = tuple(nick for nick in dict.fromkeys(command.param(1).split(",")) if _is_nick(nick))
    watched = set(map(name_key, connection.watched))
    is_extended = EXTENDED_MONITOR in connection.enabled
    added = tuple(nick for nick in nicks if name_key(nick) not in watched)
    if action == "+" and added:
        yield requests.Watch(usernames=added, is_extended=is_extended)
    elif action == "-" and nicks:
        yield requests.Watch(removed=nicks, is_extended=is_extended)
    elif action == "C":
        yield requests.Watch(clears=True, is_extended=is_extended)
    elif action == "L":
        connection.put(*filled(connection, ("732",), connection.watched, ","))
        connection.reply("733", "End of MONITOR list")
    elif action == "S" and watched:
        yield requests.Watch(usernames=connection.watched, is_extended=is_extended)


def _lusers(_: IrcConnection, __: Command) -> Iterator[Request]:
    yield requests.AskCounts()


def _links(connection: IrcConnection, _: Command) -> Iterator[Request]:
    """LINKS: the servers of a cluster are not shown."""
    connection.reply("365", "*", "End of /LINKS list")
    yield from ()


def _oper(connection: IrcConnection, command: Command) -> Iterator[Request]:
    """OPER: the role of an account decides, which its password has proved."""
    if _needs(connection, command, 2):
        if connection.is_operator:
            connection.reply("381", "You are now an IRC operator")
        else:
            connection.reply("491", "No O-lines for your host")
    yield from ()


def _kill(connection: IrcConnection, command: Command) -> Iterator[Request]:
    if not connection.is_operator:
        connection.reply("481", "Permission Denied- You're not an IRC operator")
    elif _needs(connection, command, 1):
        yield requests.Kick(username=command.params[0], reason=_cut(command.param(1), REASON_MAX_BYTES))


def _setname(connection: IrcConnection, command: Command) -> Iterator[Request]:
    if not _needs(connection, command, 1):
        return
    if len(command.params[0].encode()) > REALNAME_MAX_BYTES:
        connection.fail("SETNAME", "INVALID_REALNAME", "Realname is too long")
    else:
        yield requests.SetRealname(command.params[0])


# --- the history ---


def _chathistory(connection: IrcConnection, command: Command) -> Iterator[Request]:
    """CHATHISTORY (IRCv3), with all subcommands."""
    subcommand = command.param(0).upper()
    needed = {"TARGETS": 4, "LATEST": 4, "BEFORE": 4, "AFTER": 4, "AROUND": 4, "BETWEEN": 5}.get(subcommand)
    if not subcommand:
        connection.fail("CHATHISTORY", "INVALID_PARAMS", "*", "Missing parameters")
    elif needed is None:
        connection.fail("CHATHISTORY", "INVALID_PARAMS", subcommand, "Unknown command")
    elif len(command.params) < needed:
        connection.fail("CHATHISTORY", "INVALID_PARAMS", subcommand, "Missing parameters")
    else:
        request = _targets(command) if subcommand == "TARGETS" else _chat_history(connection, subcommand, command)
        if request is None:
            connection.fail("CHATHISTORY", "INVALID_PARAMS", subcommand, *command.params[1:2], "Invalid parameters")
        else:
            yield request


def _targets(command: Command) -> Request | None:
    first_ms, second_ms, limit = _time_ms(command.params[1]), _time_ms(command.params[2]), _limit(command.params[3])
    if first_ms is None or second_ms is None or limit is None:
        return None
    order = HistoryOrder.NEWEST if first_ms > second_ms else HistoryOrder.OLDEST
    return requests.AskActive(min(first_ms, second_ms), max(first_ms, second_ms), limit, order)


def _chat_history(connection: IrcConnection, subcommand: str, command: Command) -> Request | None:
    """The request for messages; None if a parameter is not valid."""
    target = command.params[1]
    place = {"room": target[1:]} if target.startswith("#") else {"with_user": target}
    has_events = EVENT_PLAYBACK in connection.enabled
    limit = _limit(command.params[-1] if subcommand != "BETWEEN" else command.params[4])
    first = _bound(command.params[2])
    is_latest = subcommand == "LATEST" and command.params[2] == "*"
    if limit is None or (first is None and not is_latest) or len(target) < 1 + target.startswith("#"):
        return None
    order, after, before = HistoryOrder.NEWEST, first, None
    match subcommand:
        case "BEFORE":
            after, before = None, first
        case "AFTER":
            order = HistoryOrder.OLDEST
        case "AROUND":
            order = HistoryOrder.AROUND
        case "BETWEEN":
            second = _bound(command.params[3])
            if first is None or second is None:
                return None
            if _is_backwards(first, second):
                after, before = second, first
            else:
                order, before = HistoryOrder.OLDEST, second
    return requests.AskChatHistory(order=order, after=after, before=before, limit=limit, has_events=has_events, **place)


def _is_backwards(first: Bound, second: Bound) -> bool:
    """True if a range goes back in time. A message and a time can't be compared: such a range goes forwards."""
    if first.id is not None and second.id is not None:
        return (first.id, first.number) > (second.id, second.number)
    return first.time_ms is not None and second.time_ms is not None and first.time_ms > second.time_ms


def _bound(text: str) -> Bound | None:
    """Read msgid=... or timestamp=...; None if it is neither."""
    found = _MESSAGE_ID.fullmatch(text)
    if found is not None:
        return Bound(int(found[1]), number=int(found[2] or 0)) if int(found[1]) <= ID_MAX else None
    time_ms = _time_ms(text)
    return Bound(time_ms=time_ms) if time_ms is not None else None


def _time_ms(text: str) -> int | None:
    """Read timestamp=YYYY-MM-DDThh:mm:ss.sssZ; None if it is not valid. A time before 1970 is 1970.

    Parts of milliseconds are dropped: rounded, the last moment of the calendar would be outside of it.
    """
    found = _TIME.fullmatch(text)
    if found is None:
        return None
    try:
        moment = datetime.fromisoformat(found[1]).replace(tzinfo=UTC)
    except ValueError:
        return None
    return max(0, (moment - _EPOCH) // timedelta(milliseconds=1))


def _limit(text: str) -> int | None:
    """Read a number of messages; more than the maximum is the maximum."""
    if not (text.isascii() and text.isdecimal()):
        return None
    return min(int(text[:9]), HISTORY_MAX_MESSAGES) or None


def _markread(connection: IrcConnection, command: Command) -> Iterator[Request]:
    """MARKREAD (IRCv3, read-marker). The marks of a guest end with its connection."""
    if not command.param(0):
        connection.fail("MARKREAD", "NEED_MORE_PARAMS", "Missing parameters")
        return
    target = command.params[0]
    time_ms = _time_ms(command.params[1]) if len(command.params) > 1 else None
    if len(command.params) > 1 and time_ms is None:
        connection.fail("MARKREAD", "INVALID_PARAMS", target, command.params[1] or "*", "Invalid parameters")
    elif connection.is_guest:
        key = room_key(target)
        if time_ms is not None and _may_mark(connection, key):
            connection.marks[key] = max(time_ms, connection.marks.get(key, 0))
        connection.put(mark_line(connection, target, connection.marks.get(key)))
    elif target.startswith("#"):
        yield requests.MarkRead(room=target[1:], time_ms=time_ms)
    else:
        yield requests.MarkRead(with_user=target, time_ms=time_ms)


# Read marks of a guest: its rooms, and those who write to it.
MARKS_MAX: Final = 1_000


def _may_mark(connection: IrcConnection, key: str) -> bool:
    """True if a guest may have a mark of this target: their number is limited."""
    return key in connection.marks or len(connection.marks) < MARKS_MAX


def _redact(connection: IrcConnection, command: Command) -> Iterator[Request]:
    """REDACT (IRCv3, message-redaction)."""
    if not _needs(connection, command, 2):
        return
    target, message_id = command.params[:2]
    is_room = target.startswith("#")
    room = target[1:] if is_room and not is_lobby(target[1:]) else None
    if is_room and not is_inside(connection, room) and not connection.is_operator:
        connection.fail("REDACT", "INVALID_TARGET", target, "You cannot delete messages from this channel")
    elif not (message_id.isascii() and message_id.isdecimal()) or int(message_id[:20]) > ID_MAX:
        connection.fail("REDACT", "UNKNOWN_MSGID", target, message_id, "This message does not exist or is too old")
    else:
        yield requests.Delete(int(message_id[:20]), room, _cut(command.param(2), REASON_MAX_BYTES))


# --- other messages ---


def _tagmsg(connection: IrcConnection, command: Command) -> Iterator[Request]:
    """TAGMSG (IRCv3, message-tags): client-only tags for those who know them. They are not stored."""
    if not _needs(connection, command, 1):
        return
    tags = relayed_tags(command)
    if not tags:
        return
    targets = _split(command.params[0])
    if len(targets) > 1:
        connection.answer_in_batch()
    for target in targets:
        if not may_send(connection, target):
            continue
        if target.startswith("#"):
            yield requests.Relay(room=target[1:], kind="TAGMSG", tags=tags)
        else:
            yield requests.Relay(to=target, kind="TAGMSG", tags=tags)


def _cut(text: str, limit_bytes: int) -> str:
    """Remove formatting codes, and cut a text to a length in UTF-8."""
    return remove_formatting(text).encode()[:limit_bytes].decode(errors="ignore")


COMMANDS: Final[Mapping[str, Handler]] = {
    "AWAY": _away,
    "CHATHISTORY": _chathistory,
    "INVITE": _invite,
    "ISON": _ison,
    "JOIN": _join,
    "KICK": _kick,
    "KILL": _kill,
    "LINKS": _links,
    "LIST": _list,
    "LUSERS": _lusers,
    "MARKREAD": _markread,
    "MODE": _mode,
    "MONITOR": _monitor,
    "NAMES": _names,
    "OPER": _oper,
    "PART": _part,
    "REDACT": _redact,
    "SETNAME": _setname,
    "TAGMSG": _tagmsg,
    "TOPIC": _topic,
    "USERHOST": _userhost,
    "WHO": _who,
    "WHOIS": _whois,
    "WHOWAS": _whowas,
}
