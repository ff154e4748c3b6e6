"""Events and notices as lines ``[kind ...] text``. Pure. The client's README describes the format."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from chatclient import notices
from chatclient.notices import UiNotice
from chatclient.ui.text import action_of
from chatclient.ui.text import escape_control_characters as escape
from chatprotocol import events
from chatprotocol.duration import detail_for_people
from chatprotocol.events import Message
from chatprotocol.limits import HISTORY_MAX_MESSAGES
from chatprotocol.requests import Whisper
from chatprotocol.rules import EVERYONE, LOBBY
from chatprotocol.wire.base import ClientEvent, DeliveryUnknown, Forwarded, Online, Outcome, PossibleGap

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def lines(shown: ClientEvent | UiNotice) -> list[str]:
    """The lines for an event or notice. Control characters are escaped."""
    match shown:
        case events.History(messages, room):
            head = f"[history {len(messages)}{_in_room(room)}]"
            return [head, *(message_line(each, "history") for each in messages)]
        case events.Found(words, messages, upto, room):
            head = f"[found {len(messages)}{_in_room(room)}] up to #{upto}: {escape(words)}"
            return [head, *(message_line(each, "history") for each in messages)]
        case events.Users(joined=joined, left=left, room=room):
            changes = ((joined, "joined"), (left, "left"))
            return [f"[{verb}{_in_room(room)}] {escape(name)}" for names, verb in changes for name in names]
        case events.Welcome(rooms=rooms):
            return [_welcome(shown), *(_entered(each) for each in rooms or ())]
        case events.Rooms(rooms):
            return [f"[rooms {len(rooms)}]", *map(_listed, rooms)]
        case events.Bans(bans, room):
            return [f"[bans {len(bans)}{_in_room(room)}]", *(_sanction(each, room) for each in bans)]
        case events.Tokens(tokens):
            return [f"[sessions {len(tokens)}]", *map(_session, tokens)]
        case events.Audit(acts):
            return [f"[audit {len(acts)}]", *map(_act, acts)]
        case notices.Help(help_lines):
            return [f"[help] {line}" for line in help_lines]
        case _:
            line = _line(shown)
            return [] if line is None else [line]


def _line(shown: ClientEvent | UiNotice) -> str | None:  # noqa: C901, PLR0912 - one case for each event
    match shown:
        case events.PublicMessage() | events.DirectMessage():
            return message_line(shown)
        case Forwarded(sender, text):
            return f"[message] {_sender_and_text(sender, text)}"
        case Online(users, room):
            return f"[users {len(users)}{_in_room(room)}] {_names(users)}".rstrip()
        case events.Sent(message_id, status):
            return f"[{status} #{message_id}] {sent_remark(shown)}".rstrip()
        case events.Refused(code, reason, room=room):
            return f"[error {code}{_in_room(room)}] {escape(reason)}"
        case events.Joined():
            return _entered(shown)
        case events.Parted(room, by, reason):
            return f"[parted{_in_room(room)}]{f' by {escape(by)}' if by else ''}{_because(reason)}"
        case events.TopicChanged(room, topic, by):
            return f"[topic{_in_room(room)}] {escape(by)}: {escape(topic)}".rstrip()
        case events.Modes(room=room, modes=modes, by=by):
            return f"[modes{_in_room(room)}] {', '.join(mode_words(modes))}{f' by {escape(by)}' if by else ''}"
        case events.Invited(room, username, by):
            return f"[invited{_in_room(room)}] {escape(username)} by {escape(by)}"
        case events.Kicked(room=room, username=username, by=by, reason=reason):
            return f"[kicked{_in_room(room)}] {escape(username)} by {escape(by)}{_because(reason)}"
        case events.Banned() | events.Muted() | events.Unbanned() | events.Unmuted():
            whom = escape(shown.username or shown.address or "")
            end = "" if shown.until is None else f" until {_time(shown.until)}"
            kind = f"{type(shown).__name__.lower()}{_in_room(shown.room)}"
            return f"[{kind}] {whom} by {escape(shown.by)}{end}{_because(shown.reason)}"
        case events.Deleted(message_id, by, room):
            return f"[deleted #{message_id}{_in_room(room)}] by {escape(by)}"
        case events.Reported(username=username, room=room, by=by, reason=reason):
            number = "" if shown.id is None else f" #{shown.id}"
            whom = "" if username is None else f"{escape(username)} "
            return f"[reported{number}{_in_room(room)}] {whom}by {escape(by)}{_because(reason)}"
        case events.Ignored(users):
            return f"[ignored {len(users)}] {_names(users)}".rstrip()
        case events.RoleChanged(room=room, username=username, role=role, by=by):
            return f"[role{_in_room(room)}] {escape(username)} {role}{f' by {escape(by)}' if by else ''}"
        case notices.CurrentRoom(room, topic):
            return f"[room{_in_room(room or LOBBY)}] {escape(topic)}".rstrip()
        case events.PasswordChanged():
            return "[password changed]"
        case events.Bye(reason, code):
            return f"[bye{f' {code}' if code else ''}] {escape(reason)}".rstrip()
        case PossibleGap(has_history=True):
            return f"[error lost] more may have been missed than this; CH {HISTORY_MAX_MESSAGES} shows more"
        case PossibleGap():
            return "[error lost] messages may have been missed"
        case DeliveryUnknown(message, has_history):
            how = "stored, look at CH" if has_history else "delivered"
            return f"[error lost] it is not known whether this was {how}: {escape(message.text)}"
        case Outcome(message, has_come):
            to = f"@{escape(message.to)}" if isinstance(message, Whisper) else f"@{EVERYONE}"
            if has_come:
                return f"[delivered] {to}"
            is_direct = isinstance(message, Whisper)
            why = "no such user, or not acknowledged" if is_direct else "not acknowledged by all users"
            return f"[error not_delivered] {to}: {why} in time"
        case notices.Ask(question):
            return f"[ask] {escape(question.text)}"
        case notices.ErrorNotice(code, text):
            return f"[error {code}] {escape(text)}"
        case notices.ConnectionLost(reason):
            return f"[lost] {escape(reason)}; connecting again"
        case notices.Reconnected(username, server=str(server), gone=gone) if server:
            return f"[back] {escape(username)}: connected to {escape(server)}; {escape(gone)} is gone"
        case notices.Reconnected(username):
            return f"[back] {escape(username)}"
        case notices.ScriptLine(text):
            return f"> {escape(text)}"
        case _:
            return None


def _welcome(event: events.Welcome) -> str:
    online = f"; online: {_names(event.users)}" if event.users else ""
    operator = " operator" if event.operator else ""
    return f"[welcome {event.account}{operator}] {escape(event.username)}{online}"


def _in_room(room: str | None) -> str:
    """The room in the brackets of a line; nothing for the lobby of an event."""
    return f" #{escape(room)}" if room is not None else ""


def room_traits(room: events.Joined | events.RoomState | events.RoomSummary) -> list[str]:
    """The user's role, ``private``, ``invited`` and ``key``, as far as they differ from those of most rooms."""
    role = [] if room.role is events.RoomRole.MEMBER else [str(room.role)]
    traits = [*role, *(["private"] if room.private else [])]
    if isinstance(room, events.RoomSummary):
        traits += [*(["invited"] if room.invited else []), *(["key"] if room.has_key else [])]
    return traits


def mode_words(modes: events.RoomModes) -> list[str]:
    """The modes of a room in words, with its key; ``public`` if it has none."""
    words = {
        "private": modes.private,
        "moderated": modes.moderated,
        "topic open to all": modes.open_topic,
        f"key {escape(modes.key)}": bool(modes.key),
        f"{modes.members_max} members at most": modes.members_max > 0,
    }
    return [word for word, is_set in words.items() if is_set] or ["public"]


def _entered(room: events.Joined | events.RoomState) -> str:
    """``[entered #dev owner private] topic: tea; online: alice bob``; after a login without the users."""
    words = ["entered", f"#{escape(room.room)}", *room_traits(room)]
    topic = [f"topic: {escape(room.topic)}"] if room.topic else []
    online = [f"online: {_names(room.users)}"] if isinstance(room, events.Joined) else []
    return f"[{' '.join(words)}] {'; '.join([*topic, *online])}".rstrip()


def _listed(room: events.RoomSummary) -> str:
    """``[listed #dev 3 joined owner private] tea``."""
    joined = ["joined"] if room.joined else []
    words = ["listed", f"#{escape(room.room)}", str(room.members), *joined, *room_traits(room)]
    return f"[{' '.join(words)}] {escape(room.topic)}".rstrip()


def _sanction(ban: events.SanctionState, room: str | None) -> str:
    """``[ban 2026-01-31T12:00:00Z] bob by alice until 2026-02-01T12:00:00Z: spam``; or ``mute``."""
    end = "" if ban.until is None else f" until {_time(ban.until)}"
    whom = escape(ban.username or ban.address or "")
    return f"[{ban.kind} {_time(ban.time_ms)}{_in_room(room)}] {whom} by {escape(ban.by)}{end}{_because(ban.reason)}"


def _session(token: events.TokenState) -> str:
    """``[session 5f3a90c1 2026-01-31T12:00:00Z] Firefox on Linux (this one)``; the time is that of the last use."""
    return f"[session {escape(token.id)} {_time(token.used)}] {escape(token.label)}{' (this one)' * token.current}"


def _act(act: events.AuditRow) -> str:
    """``[act 7 2026-01-31T12:00:00Z #dev] alice: ban bob (for 1h): spam``."""
    words = " ".join(filter(None, (escape(act.action), escape(act.target))))
    detail = f" ({escape(detail_for_people(act.detail))})" if act.detail else ""
    head = f"[act {act.number} {_time(act.time_ms)}{_in_room(act.room)}]"
    return f"{head} {escape(act.by)}: {words}{detail}{_because(act.reason)}"


def _because(reason: str) -> str:
    return f": {escape(reason)}" if reason else ""


def sent_remark(event: events.Sent) -> str:
    """Remark about a confirmation, or ""."""
    if event.status is events.SentStatus.STORED:
        return "not online; it is delivered at the next login"
    return "a guest can't see that this is a direct message" if event.looks_public else ""


def message_line(message: Message, kind: str | None = None) -> str:
    """``[public #18 2026-01-31T12:00:00Z] bob: hello``; a direct message also has its recipient.

    A message of a room has the room: ``[public #18 2026-01-31T12:00:00Z #dev] bob: hello``.
    """
    time = _time(message.time_ms)
    if isinstance(message, events.DirectMessage):
        # Some protocols omit the recipient of the user's own messages.
        to = escape(message.recipient) or "?"
        return (
            f"[{kind or 'direct'} #{message.id} {time}] {_sender_and_text(message.sender, message.text, f' -> {to}')}"
        )
    head = f"[{kind or 'public'} #{message.id} {time}{_in_room(message.room)}]"
    return f"{head} {_sender_and_text(message.sender, message.text)}"


def _sender_and_text(sender: str, text: str, to: str = "") -> str:
    """``bob: hello``, ``bob -> alice: hello``; for ``/me waves``: ``* bob waves``, ``* bob -> alice waves``."""
    if (action := action_of(text)) is not None:
        return f"* {escape(sender)}{to} {escape(action)}"
    return f"{escape(sender)}{to}: {escape(text)}"


def _time(time_ms: int) -> str:
    """The time in seconds. A time outside of the calendar is shown as the number that the server sent."""
    try:
        return f"{_EPOCH + timedelta(seconds=time_ms // 1000):%Y-%m-%dT%H:%M:%SZ}"
    except OverflowError:
        return f"{time_ms}ms"


def minute(time_ms: int) -> str:
    """The time in minutes, for people: ``2026-01-31 12:00 UTC``."""
    text = _time(time_ms)
    return text if text.endswith("ms") else f"{text[:10]} {text[11:16]} UTC"


def _names(names: Iterable[str]) -> str:
    return " ".join(sorted(map(escape, names), key=str.lower))
