"""Events of rooms and of other users as lines of irc. Wire format: docs/wire/irc.md.

``shared_lines`` encodes the events that all connections of one variant share, as far as they are not messages;
``own_lines`` those for one connection, which also gets numerics with the user's nick. Answers to commands are in
irc_answers.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from chatprotocol import events
from chatprotocol.events import RoomRole
from chatprotocol.limits import IRC_LINE_MAX_BYTES
from chatprotocol.rules import LOBBY, name_key, room_key
from chatprotocol.wire.irc_capabilities import MESSAGE_REDACTION
from chatprotocol.wire.irc_lines import add_tag, escape_tag, format_line
from chatprotocol.wire.json import to_iso

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from chatprotocol.wire.irc_capabilities import Encoding
    from chatprotocol.wire.irc_connection import IrcConnection

# The prefix of a member's name, which says what it may do in the room.
PREFIXES: Final = {RoomRole.OWNER: "@", RoomRole.OPERATOR: "@", RoomRole.VOICE: "+", RoomRole.MEMBER: ""}
_MODES_OF_ROLES: Final = {RoomRole.OWNER: "o", RoomRole.OPERATOR: "o", RoomRole.VOICE: "v", RoomRole.MEMBER: ""}
_NO_NAMES: Final = frozenset({"no-implicit-names", "draft/no-implicit-names"})
READ_MARKER: Final = "draft/read-marker"
# The commands of lines of one room that its history has.
_PLAYED: Final = frozenset({"JOIN", "PART", "KICK", "TOPIC", "MODE"})


def channel(room: str | None) -> str:
    """The name of a room as a channel; None is the lobby."""
    return f"#{LOBBY if room is None else room}"


def shared_lines(event: object, encoding: Encoding) -> list[str]:
    """The lines of an event that are the same for all connections of a variant in the room; none if it has no form."""
    encode = _SHARED.get(type(event))
    return encode(encoding, event) if encode is not None else []


def own_lines(event: object, connection: IrcConnection) -> list[str]:
    """The lines of an event for one connection, as far as it is not the answer to a command."""
    encode = _OWN.get(type(event))
    return encode(connection, event) if encode is not None else shared_lines(event, connection.encoding)


def is_me(connection: IrcConnection, username: str) -> bool:
    """True if this is the user of the connection."""
    return name_key(username) == name_key(connection.nick)


def is_inside(connection: IrcConnection, room: str | None) -> bool:
    """True if the connection is in the room; None is the lobby."""
    return room_key(LOBBY if room is None else room) in connection.rooms


def _notice(connection: IrcConnection, text: str, room: str | None = None) -> str:
    """A notice of the server: in a room that the connection is in, or else to its user."""
    target = connection.target if room is None or not is_inside(connection, room) else channel(room)
    return format_line(connection.settings.name, "NOTICE", target, text)


# --- coming and going ---


def _join(room: str, info: events.UserInfo, encoding: Encoding) -> str:
    account = "*" if info.is_guest else info.username
    params = (account, info.realname or info.username) if encoding.has_extended_join else ()
    tags = [f"account={escape_tag(account)}"] if encoding.has_account and not info.is_guest else []
    tags += ["bot"] if info.is_bot and encoding.has_tags else []
    return format_line(encoding.prefix(info.username), "JOIN", channel(room), *params, tags=";".join(tags))


def _part(room: str, username: str, reason: str, encoding: Encoding) -> str:
    return encoding.line_of(username, "PART", channel(room), *([reason] if reason else []))


def _kick(room: str, username: str, by: str, reason: str, encoding: Encoding) -> str:
    return encoding.line_of(by, "KICK", channel(room), username, reason or by)


def _entered(connection: IrcConnection, event: events.Entered) -> list[str]:
    """JOIN, the topic and the names. With draft/read-marker the end of the names follows the mark: see irc_commands."""
    infos = [each.info for each in event.members if is_me(connection, each.info.username)]
    own = events.UserInfo(
        username=connection.nick, is_online=True, is_guest=connection.is_guest, realname=connection.realname
    )
    lines = [_join(event.room, infos[0] if infos else own, connection.encoding)]
    lines += topic_lines(connection, event.room, event.topic, event.topic_by, event.topic_ms)
    if _NO_NAMES.isdisjoint(connection.enabled):
        lines += name_lines(connection, event.room, event.members, is_private=event.modes.private)
        if READ_MARKER not in connection.enabled:
            lines.append(end_of_names(connection, channel(event.room)))
    return lines


def _member_joined(encoding: Encoding, event: events.MemberJoined) -> list[str]:
    """JOIN, and MODE for a member with a role, because JOIN does not say it."""
    lines = [_join(event.room, event.info, encoding)]
    mode = _MODES_OF_ROLES[event.role]
    if mode:
        lines.append(format_line(encoding.server_name, "MODE", channel(event.room), f"+{mode}", event.info.username))
    if event.info.away and encoding.has_away_notify:
        lines.append(encoding.line_of(event.info.username, "AWAY", event.info.away))
    return lines


def _member_left(encoding: Encoding, event: events.MemberLeft) -> list[str]:
    return [_part(event.room, event.username, event.reason, encoding)]


def _parted(connection: IrcConnection, event: events.Parted) -> list[str]:
    if event.by is None:
        return [_part(event.room, connection.nick, event.reason, connection.encoding)]
    return [_kick(event.room, connection.nick, event.by, event.reason, connection.encoding)]


def _kicked(encoding: Encoding, event: events.Kicked) -> list[str]:
    if event.room is None:
        return []
    return [_kick(event.room, event.username, event.by, event.reason, encoding)]


def _own_kicked(connection: IrcConnection, event: events.Kicked) -> list[str]:
    reason = _because(event.reason)
    if event.room is None:
        return [_notice(connection, f"{event.by} ended the connections of {event.username}{reason}")]
    if is_inside(connection, event.room):
        return _kicked(connection.encoding, event)
    return [_notice(connection, f"{event.by} removed {event.username} from {channel(event.room)}{reason}")]


def _user_quit(encoding: Encoding, event: events.UserQuit) -> list[str]:
    return [encoding.line_of(event.username, "QUIT", *([event.reason] if event.reason else []))]


def _renamed(encoding: Encoding, event: events.Renamed) -> list[str]:
    return [encoding.line_of(event.username, "NICK", event.new_username)]


# --- names and topics ---


def topic_lines(connection: IrcConnection, room: str, topic: str, by: str, time_ms: int) -> list[str]:
    """RPL_TOPIC (332), and RPL_TOPICWHOTIME (333) if it is known when it was set; none without a topic."""
    if not topic:
        return []
    lines = [connection.numeric("332", channel(room), topic)]
    if time_ms:
        setter = connection.encoding.prefix(by) if by else connection.settings.name
        lines.append(connection.numeric("333", channel(room), setter, str(time_ms // 1000)))
    return lines


def name_lines(
    connection: IrcConnection, room: str, members: Iterable[events.RoomMember], *, is_private: bool = False
) -> list[str]:
    """RPL_NAMREPLY (353), as many as it takes."""
    with_host = "userhost-in-names" in connection.enabled
    names = (
        PREFIXES[each.role] + (connection.encoding.prefix(each.info.username) if with_host else each.info.username)
        for each in members
    )
    return list(filled(connection, ("353", "@" if is_private else "=", channel(room)), names))


def end_of_names(connection: IrcConnection, target: str) -> str:
    """RPL_ENDOFNAMES (366)."""
    return connection.numeric("366", target, "End of /NAMES list")


def filled(
    connection: IrcConnection, start: tuple[str, ...], words: Iterable[str], separator: str = " "
) -> Iterator[str]:
    """Numerics that begin with ``start`` and end with as many of the words as fit; none for no words."""
    room_bytes = IRC_LINE_MAX_BYTES - len(connection.numeric(*start, "a b").encode())
    line: list[str] = []
    size_bytes = 0
    for word in words:
        if line and size_bytes + len(word) > room_bytes:
            yield connection.numeric(*start, separator.join(line))
            line, size_bytes = [], 0
        line.append(word)
        size_bytes += len(word) + len(separator)
    if line:
        yield connection.numeric(*start, separator.join(line))


def _topic_changed(encoding: Encoding, event: events.TopicChanged) -> list[str]:
    return [encoding.line_of(event.by, "TOPIC", channel(event.room), event.topic)]


def _invited(encoding: Encoding, event: events.Invited) -> list[str]:
    """INVITE for members with invite-notify."""
    return [_invite(encoding, event)] if encoding.has_invite_notify else []


def _own_invited(connection: IrcConnection, event: events.Invited) -> list[str]:
    """INVITE for the user; RPL_INVITING (341) or ERR_USERONCHANNEL (443) for the one who invited."""
    if isinstance(event, events.InvitedMember):
        return [connection.numeric("443", event.username, channel(event.room), "is already on channel")]
    if is_me(connection, event.by):
        return [connection.numeric("341", event.username, channel(event.room))]
    return [_invite(connection.encoding, event)]


def _invite(encoding: Encoding, event: events.Invited) -> str:
    return encoding.line_of(event.by, "INVITE", event.username, channel(event.room))


# --- modes ---


def mode_params(modes: events.RoomModes) -> tuple[str, ...]:
    """The modes that are set, with their parameters. A private room has the mode i, which stands for s as well."""
    letters = "+n"
    params = []
    for letter, is_set in (("t", not modes.open_topic), ("i", modes.private), ("m", modes.moderated)):
        letters += letter * is_set
    if modes.key:
        letters += "k"
        params.append(modes.key)
    if modes.members_max:
        letters += "l"
        params.append(str(modes.members_max))
    return (letters, *params)


def _modes(encoding: Encoding, event: events.Modes) -> list[str]:
    """MODE after a change."""
    changes = _mode_changes(event.old if isinstance(event, events.ModesMoved) else None, event.modes)
    if event.by is None or not changes:
        return []
    return [encoding.line_of(event.by, "MODE", channel(event.room), *changes)]


def _own_modes(connection: IrcConnection, event: events.Modes) -> list[str]:
    """RPL_CHANNELMODEIS (324) and RPL_CREATIONTIME (329) for a question."""
    if event.by is not None:
        return _modes(connection.encoding, event)
    room = channel(event.room)
    lines = [connection.numeric("324", room, *mode_params(event.modes))]
    if isinstance(event, events.ModesMoved) and event.created_ms:
        lines.append(connection.numeric("329", room, str(event.created_ms // 1000)))
    return lines


def _mode_changes(old: events.RoomModes | None, new: events.RoomModes) -> tuple[str, ...]:
    """The parameters of MODE for a change; all modes if the old ones are not known. Empty if nothing has changed."""
    added, removed = "", ""
    params: list[str] = []
    for letter, was_set, is_set in (
        ("t", old and not old.open_topic, not new.open_topic),
        ("i", old and old.private, new.private),
        ("m", old and old.moderated, new.moderated),
    ):
        if was_set is not is_set:
            added, removed = added + letter * is_set, removed + letter * (not is_set)
    if new.key and (old is None or new.key != old.key):
        added += "k"
        params.append(new.key)
    if new.members_max and (old is None or new.members_max != old.members_max):
        added += "l"
        params.append(str(new.members_max))
    if not new.key and (old is None or old.key):
        removed += "k"
        params.append("*")  # clients expect a parameter
    if not new.members_max and (old is None or old.members_max):
        removed += "l"
    letters = (f"+{added}" if added else "") + (f"-{removed}" if removed else "")
    return (letters, *params) if letters else ()


def _role_changed(encoding: Encoding, event: events.RoleChanged) -> list[str]:
    old_role = event.old_role if isinstance(event, events.RoleMoved) else None
    changes = _role_changes(event.username, old_role, event.role)
    if event.room is None or not changes:
        return []
    params = ("MODE", channel(event.room), *changes)
    return [format_line(encoding.server_name, *params) if event.by is None else encoding.line_of(event.by, *params)]


def _role_changes(username: str, old_role: RoomRole | None, role: RoomRole) -> tuple[str, ...]:
    """The parameters of MODE for a change of a role; empty if both have the same mode. None: it is not known."""
    new = _MODES_OF_ROLES[role]
    if old_role is not None:
        old = _MODES_OF_ROLES[old_role]
        changes = [("-", old), ("+", new)] if old != new else []
    else:
        changes = [("+", new)] if new else [("-", "ov")]
    letters = "".join(sign + modes for sign, modes in changes if modes)
    return (letters, *(username for _, modes in changes for _ in modes)) if letters else ()


def _own_role_changed(connection: IrcConnection, event: events.RoleChanged) -> list[str]:
    """A mode of the user, if it is an operator of the server now, or no longer."""
    if event.room is not None:
        return _role_changed(connection.encoding, event)
    is_operator = event.role is RoomRole.OPERATOR
    if is_me(connection, event.username):
        connection.is_operator = is_operator
        mode = format_line(connection.settings.name, "MODE", connection.nick, "+o" if is_operator else "-o")
        return [mode, connection.numeric("381", "You are now an IRC operator")] if is_operator else [mode]
    what = "an operator" if is_operator else "no longer an operator"
    return [_notice(connection, f"{event.username} is {what} of the server, by {event.by}")]


# --- the history ---


def event_line(encoding: Encoding, event: events.RoomEvent) -> str:
    """The line of a change of a room in an answer to CHATHISTORY: what its members got then, with an id and a time.

    ``draft/event-playback`` demands that the client does not take it for a change of now.
    """
    tags = _place_tags(encoding, event)
    has_account = encoding.has_account and event.actor and not event.is_guest
    tags += [f"account={escape_tag(event.actor)}"] if has_account else []
    source = encoding.prefix(event.actor) if event.actor else encoding.server_name
    return format_line(source, *_event_words(encoding, event), tags=";".join(tags))


def placed_lines(encoding: Encoding, place: events.EventPlace, lines: list[str]) -> list[str]:
    """The lines of an event of now, with the id and time that its line in the history has.

    These are for the first line. Those after it say what was so before, such as the topic after JOIN; and who is not in
    the room may have a notice in its place.
    """
    tags = _place_tags(encoding, place)
    if not tags or not lines:
        return lines
    first, *others = lines
    command = first.split(" ", 3)[2 if first.startswith("@") else 1]
    return [add_tag(first, ";".join(tags)) if command in _PLAYED else first, *others]


def _place_tags(encoding: Encoding, place: events.RoomEvent | events.EventPlace) -> list[str]:
    """The time, and an id that is unique: places are so in one room only, and ids of rooms are not used again."""
    tags = [f"time={to_iso(place.time_ms)}"] if encoding.has_time else []
    return [*tags, f"msgid={place.after_id}.{place.number}.{place.room_id}"] if encoding.has_tags else tags


def _event_words(encoding: Encoding, event: events.RoomEvent) -> tuple[str, ...]:
    """The command of the line, and its parameters."""
    room, kind = channel(event.room), events.RoomEventKind
    reason = [event.text] if event.text else []
    match event.kind:
        case kind.JOIN:
            account = "*" if event.is_guest else event.actor
            return ("JOIN", room, *((account, event.actor) if encoding.has_extended_join else ()))
        case kind.PART:
            return ("PART", room, *reason)
        case kind.QUIT:
            return ("QUIT",)
        case kind.NICK:
            return ("NICK", event.target)
        case kind.KICK:
            return ("KICK", room, event.target, event.text or event.actor or encoding.server_name)
        case kind.TOPIC:
            return ("TOPIC", room, event.text)
        case _:
            return ("MODE", room, *_event_modes(event))


def _event_modes(event: events.RoomEvent) -> tuple[str, ...]:
    """The parameters of MODE for a change of modes, a role or a ban."""
    kind = events.RoomEventKind
    if event.kind is kind.MODES and event.modes is not None:
        return _mode_changes(event.old_modes, event.modes)
    if event.kind is kind.ROLE and event.role is not None:
        return _role_changes(event.target, event.old_role, event.role)
    if event.kind is kind.HEIR:
        return _role_changes(event.target, None, RoomRole.OWNER)
    return ("+b" if event.kind is kind.BAN else "-b", ban_mask(event.target, None))


# --- moderation ---


def ban_mask(username: str | None, address: str | None) -> str:
    """The mask of a ban: of an account, or of an address or network."""
    return f"{username}!*@*" if username is not None else f"*!*@{address}"


def _sanctioned(connection: IrcConnection, event: events.Banned | events.Unbanned) -> list[str]:
    """MODE for the others in the room. Operators outside of it get a notice, and the user itself about the server.

    About a room the user gets nothing, as from other servers: if it was inside, KICK, and at the next JOIN an error.
    """
    is_target = event.username is not None and is_me(connection, event.username)
    if is_target and event.room is not None:
        return []
    if is_target or not is_inside(connection, event.room):
        return [_notice(connection, _sanction_text(event))]
    change = "+b" if isinstance(event, events.Banned) else "-b"
    mask = ban_mask(event.username, event.address)
    return [connection.encoding.line_of(event.by, "MODE", channel(event.room), change, mask)]


def _muted(connection: IrcConnection, event: events.Muted | events.Unmuted) -> list[str]:
    return [_notice(connection, _sanction_text(event), event.room)]


_ACTS: Final[dict[type, str]] = {
    events.Banned: "banned",
    events.Unbanned: "ended the ban of",
    events.Muted: "muted",
    events.Unmuted: "ended the mute of",
}


def _sanction_text(event: events.Banned | events.Unbanned | events.Muted | events.Unmuted) -> str:
    where = "" if event.room is None else f" in {channel(event.room)}"
    until = "" if event.until is None else f" until {_minute(event.until)}"
    return f"{event.by} {_ACTS[type(event)]} {event.username or event.address}{where}{until}{_because(event.reason)}"


def _minute(time_ms: int) -> str:
    """The next full minute, as in the errors of those who are banned or muted: ``2026-01-31 12:00 UTC``."""
    return to_iso(-(-time_ms // 60_000) * 60_000)[: len("2026-01-31T12:00")].replace("T", " ") + " UTC"


def _because(reason: str) -> str:
    return f": {reason}" if reason else ""


def _deleted(connection: IrcConnection, event: events.Deleted) -> list[str]:
    """REDACT, or a notice for clients that don't know it. Nothing about a room that the connection is not in."""
    is_direct = isinstance(event, events.DirectDeleted)
    room = None if is_direct else event.room or LOBBY
    if room is not None and not is_inside(connection, room):
        return []
    if MESSAGE_REDACTION not in connection.enabled:
        return [_notice(connection, f"{event.by} deleted the message {event.id}{_because(event.reason)}", room)]
    target = event.recipient if isinstance(event, events.DirectDeleted) else channel(room)
    reason = [event.reason] if event.reason else []
    return [connection.encoding.line_of(event.by, "REDACT", target, str(event.id), *reason)]


def _reported(connection: IrcConnection, event: events.Reported) -> list[str]:
    about = event.username if event.id is None else f"the message {event.id} in {channel(event.room)}"
    return [_notice(connection, f"{event.by} reported {about}{_because(event.reason)}")]


# --- states of users ---


def _away_changed(encoding: Encoding, event: events.AwayChanged) -> list[str]:
    if not encoding.has_away_notify:
        return []
    return [encoding.line_of(event.username, "AWAY", *([event.text] if event.text else []))]


def _own_away_changed(connection: IrcConnection, event: events.AwayChanged) -> list[str]:
    """RPL_NOWAWAY (306) or RPL_UNAWAY (305) for the user itself."""
    if not is_me(connection, event.username):
        return _away_changed(connection.encoding, event)
    if event.text:
        return [connection.numeric("306", "You have been marked as being away")]
    return [connection.numeric("305", "You are no longer marked as being away")]


def _realname_changed(encoding: Encoding, event: events.RealnameChanged) -> list[str]:
    if not encoding.has_setname:
        return []
    return [encoding.line_of(event.username, "SETNAME", event.realname)]


def _is_away(connection: IrcConnection, event: events.IsAway) -> list[str]:
    return [connection.numeric("301", event.username, event.text)]


def _came_online(connection: IrcConnection, event: events.CameOnline) -> list[str]:
    return [connection.numeric("730", connection.encoding.prefix(event.username))]


def _went_offline(connection: IrcConnection, event: events.WentOffline) -> list[str]:
    return [connection.numeric("731", event.username)]


def _read_marked(connection: IrcConnection, event: events.ReadMarked) -> list[str]:
    if READ_MARKER not in connection.enabled:
        return []
    target = event.with_user if event.with_user is not None else channel(event.room)
    return [mark_line(connection, target, event.time_ms)]


def mark_line(connection: IrcConnection, target: str, time_ms: int | None) -> str:
    """MARKREAD (IRCv3, read-marker)."""
    time = "*" if time_ms is None else f"timestamp={to_iso(time_ms)}"
    return format_line(connection.settings.name, "MARKREAD", target, time)


# Events that are the same for all connections of a variant that are in the room.
_SHARED: Final[dict[type, Callable[[Encoding, Any], list[str]]]] = {
    events.MemberJoined: _member_joined,
    events.MemberLeft: _member_left,
    events.Kicked: _kicked,
    events.UserQuit: _user_quit,
    events.Renamed: _renamed,
    events.TopicChanged: _topic_changed,
    events.Invited: _invited,
    events.Modes: _modes,
    events.ModesMoved: _modes,
    events.RoleChanged: _role_changed,
    events.RoleMoved: _role_changed,
    events.AwayChanged: _away_changed,
    events.RealnameChanged: _realname_changed,
}
# Events that one connection gets in another form than all of a variant.
_OWN: Final[dict[type, Callable[[IrcConnection, Any], list[str]]]] = {
    events.Entered: _entered,
    events.Parted: _parted,
    events.Kicked: _own_kicked,
    events.Invited: _own_invited,
    events.InvitedMember: _own_invited,
    events.Modes: _own_modes,
    events.ModesMoved: _own_modes,
    events.RoleChanged: _own_role_changed,
    events.RoleMoved: _own_role_changed,
    events.Banned: _sanctioned,
    events.Unbanned: _sanctioned,
    events.Muted: _muted,
    events.Unmuted: _muted,
    events.Deleted: _deleted,
    events.DirectDeleted: _deleted,
    events.Reported: _reported,
    events.AwayChanged: _own_away_changed,
    events.IsAway: _is_away,
    events.CameOnline: _came_online,
    events.WentOffline: _went_offline,
    events.ReadMarked: _read_marked,
}
