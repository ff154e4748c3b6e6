"""The timeline: the entries that the user sees, in their order, with each message once. Pure.

Timeline turns events and notices into entries. rows.py turns entries into rows of styled text.

Order. After the login the client requests the recent messages. Messages that arrive before this history are held, and
shown with it in the order of ids; an error or a lost connection releases them. After a reconnect the missed messages,
up to the server's newest id at that time, stand between two rules.

Rooms. A message in a room shows the room; a message without one is in the lobby, for any current room. So rows that
were printed before a change of the current room keep their meaning. Joins and leaves are shown for the lobby and the
current room only, because a user who comes online joins all of its rooms at once.

Deletions. A message that was not shown yet is dropped. For one that was shown there is a Deletion, with the tombstone
that takes its place. The terminal replaces the rows that are still in the window; above it, nothing can be changed.

Once. An own message is shown when it is confirmed, from the unconfirmed ones. If it is received as well, the second one
is dropped by its id.
"""

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Final, NamedTuple, TypeAlias

from chatclient import notices
from chatclient.notices import Asked, UiNotice
from chatclient.ui import view
from chatclient.ui.text import escape_control_characters
from chatprotocol import events
from chatprotocol.duration import detail_for_people
from chatprotocol.errors import ErrorCode
from chatprotocol.events import Message
from chatprotocol.requests import Say, Whisper
from chatprotocol.rules import LOBBY, name_key, room_key
from chatprotocol.wire.base import ClientEvent, DeliveryUnknown, Forwarded, Online, Outcome, PossibleGap

# Maximum number of public messages shown at once: of more, only the last _FLOOD_SHOWN_MESSAGES are shown.
_FLOOD_MESSAGES: Final = 500
_FLOOD_SHOWN_MESSAGES: Final = 100
# Number of own messages whose ids are remembered: one may be both confirmed and received.
_OWN_IDS_MAX: Final = 256
# Number of shown messages to remember, without their texts, for their tombstones.
_SHOWN_MAX: Final = 2_000
# Maximum length of the names of a message that is remembered: a server may send any.
_NAMES_MAX_CHARACTERS: Final = 256
# Size of the messages that wait for the history: a server that does not send it can't fill the memory.
_HELD_MAX_CHARACTERS: Final = 4 * 1024 * 1024
_HELD_MESSAGE_CHARACTERS: Final = 200
_PASSWORD_REMARKS: Final = {
    Asked.PASSWORD: "This name exists; if it is yours, type its password.",
    Asked.PASSWORD_NEW_ACCOUNT: "This name is new: choose a password.",
    Asked.PASSWORD_AGAIN: "The same password again, to be sure of it.",
    Asked.INVITATION: "Type the invitation code that an operator of the server gave you.",
}


class Text(NamedTuple):
    """A message. ``time_ms`` is None for the present. ``recipient`` is set for a direct message."""

    sender: str
    text: str
    time_ms: int | None = None
    recipient: str = ""
    # True if it mentions this user or is a direct message to this user, unless the client is quiet.
    is_alert: bool = False
    # Empty for the lobby and for direct messages.
    room: str = ""
    # None if the wire format has no ids.
    id: int | None = None
    # The name of the user who deleted the message, if it is only a tombstone.
    deleted_by: str = ""


class Deletion(NamedTuple):
    """A message that was shown is deleted. ``tombstone`` takes its place."""

    tombstone: Text


class Remark(NamedTuple):
    """A line of the client itself. It may contain names and texts of others."""

    text: str
    is_error: bool = False


class Rule(NamedTuple):
    """A boundary between messages. At the beginning of a block of old messages their day is repeated."""

    text: str
    begins_block: bool = False


Entry: TypeAlias = Text | Deletion | Remark | Rule
_NOW: Final = Rule("now")
_IN_LOBBY: Final = " in the lobby and direct messages"
_RoomEvent: TypeAlias = (
    events.Joined
    | events.Parted
    | events.TopicChanged
    | events.Modes
    | events.Invited
    | events.Kicked
    | events.RoleChanged
)
_Sanction: TypeAlias = events.Banned | events.Muted | events.Unbanned | events.Unmuted


class Timeline:
    """Turns events, in order, into entries. ``now`` is the clock. For one thread."""

    def __init__(self, now: Callable[[], datetime], *, is_quiet: bool = False, shows_joins: bool = True) -> None:
        self._now = now
        self.is_quiet = is_quiet
        self.shows_joins = shows_joins
        # True if the numbers of messages are shown: /delete and /report take them.
        self.shows_ids = False
        # True if a mention or direct message was shown. The caller resets it.
        self.needs_bell = False
        self.username = ""
        self._mention = re.compile("(?!)")
        self._newest_id = 0
        # Sent messages without outcome, by nonce.
        self._unconfirmed: dict[str, Say | Whisper] = {}
        # Messages that arrived after the login and before the recent history. None after that.
        self._held: dict[int, Message] | None = None
        self._held_characters = 0
        # The seen id of the welcome, if the server sent it: messages with a greater id are new to the user.
        self._seen_id: int | None = None
        self._own_ids: deque[int] = deque(maxlen=_OWN_IDS_MAX)
        # The shown messages without their texts, by id, oldest first.
        self._shown: dict[int, Text] = {}
        # After a reconnect: the highest id of a missed message, and true if a missed message was shown.
        self._missed_upto = 0
        self._has_missed = False
        self._lost_at: datetime | None = None
        # Reason of the server for ending the connection.
        self._goodbye = ""
        # The current room; empty for the lobby. And the lobby in the answer to a search, if the user was in rooms.
        self._room = ""
        self._lobby = ""
        # Room and name of the last user who was removed from a room. The event that this user left is not shown.
        self._kicked = ("", "")

    def entries(self, shown: Sequence[ClientEvent | UiNotice]) -> Iterator[Entry]:
        """The entries for events and notices. In a flood, some public messages are left out, but not the last ones."""
        count = sum(isinstance(each, events.PublicMessage) for each in shown)
        spare = count - _FLOOD_SHOWN_MESSAGES if count > _FLOOD_MESSAGES else 0
        left_out = 0
        for each in shown:
            if isinstance(each, events.PublicMessage):
                if spare > 0 and not self._must_show(each):
                    spare -= 1
                    left_out += 1
                    continue
                if spare <= 0 and left_out:
                    yield _left_out(left_out)
                    left_out = 0
                spare -= 1
            yield from self._entries_of(each)

    def _must_show(self, message: events.PublicMessage) -> bool:
        """True if the message must be shown even in a flood: it was missed, or mentions the user."""
        return message.id <= self._missed_upto or self._is_mention(message.sender, message.text)

    def _entries_of(self, shown: ClientEvent | UiNotice) -> Iterable[Entry]:  # noqa: C901, PLR0912 - one case each
        match shown:
            case events.PublicMessage() | events.DirectMessage():
                return self._received(shown)
            case Forwarded(sender, text):
                is_alert = self._is_mention(sender, text) and not self.is_quiet
                self.needs_bell |= is_alert
                return [Text(sender, text, is_alert=is_alert)]
            case events.Sent(message_id, nonce=nonce):
                self._newest_id = max(self._newest_id, message_id)
                own_message = self._unconfirmed.pop(nonce or "", None)
                if not self._is_first(message_id, self.username):
                    return []
                own = self._own(own_message, view.sent_remark(shown), message_id)
                return [*self._end_of_missed(message_id), *own]
            case Outcome(own_message, has_come):
                self._unconfirmed.pop(own_message.nonce or "", None)
                failure = "not delivered: no such user, or not acknowledged in time"
                return self._own(own_message, "" if has_come else failure)
            case DeliveryUnknown(own_message):
                self._unconfirmed.pop(own_message.nonce or "", None)
                return self._own(own_message, "the connection was lost: it is not known whether this was sent")
            case events.Refused(nonce=nonce):
                # An error without a nonce may be the answer to the history request, so the held messages are shown.
                return [*([] if nonce else self._release_held()), self._refused(shown)]
            case events.History(messages, room):
                return self._history(messages) if room is None else self._history_of(room, messages)
            case events.Found():
                return self._found(shown)
            case events.Welcome():
                return self._welcome(shown)
            case notices.Reconnected():
                return [*self._release_held(), self._reconnected(shown)]
            case notices.ConnectionLost(reason):
                self._lost_at = self._now()
                goodbye, self._goodbye = self._goodbye, ""
                lost = f"The connection is lost ({goodbye or reason}). Reconnecting; lines that you type wait."
                return [*self._release_held(), Remark(lost, is_error=True)]
            case events.Bye(events.YOU_LEFT):
                return [Remark("You left.")]
            case events.Bye(reason, ErrorCode()):
                return [Remark(f"The server ended this connection: {reason}", is_error=True)]
            case events.Bye(reason):
                self._goodbye = reason  # shown with the lost connection that follows
            case PossibleGap(has_history):
                self._own_ids.clear()  # after a restore the ids may belong to other messages
                self._shown.clear()
                more = "; CH 500 shows more" if has_history else ""
                return [Remark(f"More may have been missed than is shown{more}.", is_error=True)]
            case Online(users, room):
                return [_online(users, room)]
            case events.Users() if self.shows_joins:
                return self._changes(shown)
            case notices.CurrentRoom(room):
                is_change, self._room = room_key(room) != room_key(self._room), room
                return [_current(shown, is_change=is_change)]
            case (
                events.Joined()
                | events.Parted()
                | events.TopicChanged()
                | events.Modes()
                | events.Invited()
                | events.Kicked()
                | events.RoleChanged()
                | events.Rooms()
            ):
                return self._of_rooms(shown)
            case events.Deleted():
                return self._deleted(shown)
            case events.Banned() | events.Muted() | events.Unbanned() | events.Unmuted():
                return [self._sanction_remark(shown)]
            case events.Tokens(tokens):
                head = f"Your sessions: {len(tokens)}" if tokens else "No device stays logged in."
                return [Remark(head), *map(_session_row, tokens)]
            case events.Reported() | events.Bans() | events.Audit() | events.Ignored():
                return _moderation_remarks(shown)
            case notices.ErrorNotice(code, text):
                return [*(self._release_held() if code == "lost" else []), Remark(text, is_error=True)]
            case notices.Help(lines):
                return map(Remark, lines)
            case notices.MessageQueued(own_message):
                self._unconfirmed[own_message.nonce or ""] = own_message
            case notices.Toggle(what):
                return [Remark(self._toggle(what))]
            case notices.Ask(question) if question.kind in _PASSWORD_REMARKS:
                return [Remark(_PASSWORD_REMARKS[question.kind])]
            case events.PasswordChanged():
                return [Remark("Your password is changed.")]
        return []

    # --- users and rooms ---

    def _changes(self, event: events.Users) -> list[Entry]:
        room = event.room
        if room is not None and room_key(room) != room_key(self._room):
            return []
        where = f" {_named(room)}" if room else ""
        left = [name for name in event.left if (room, name) != self._kicked]
        return [
            Remark(f"{_names(names)} {verb}{where}")
            for names, verb in ((event.joined, "joined"), (left, "left"))
            if names
        ]

    def _of_rooms(self, event: _RoomEvent | events.Rooms) -> list[Entry]:
        match event:
            case events.Rooms(rooms):
                return _listed(rooms)
            case events.Joined(room, users=users):
                self._lobby = _IN_LOBBY
                return [_room_remark(event), _online(users, room)]
            case events.Parted(room, str(by), reason) if room_key(room) == room_key(self._room):
                told = f"{_names([by])} removed you from {_named(room)}, and it is still the room that you write to."
                return [Remark(f"{told} /room {LOBBY} changes that.{_because(reason)}", is_error=True)]
            case events.Invited(room, username, by) if self._is_own(username):
                self.needs_bell |= not self.is_quiet
                return [Remark(f"{_names([by])} invited you to {_named(room)}; /join {_named(room)} enters it.")]
            case events.Kicked(room=str(room), username=username):
                self._kicked = (room, username)
        return [_room_remark(event)]

    # --- moderation ---

    def _refused(self, error: events.Refused) -> Remark:
        rejected = self._unconfirmed.pop(error.nonce or "", None)
        reason = error.reason
        if rejected and error.room and error.code in (ErrorCode.UNKNOWN_ROOM, ErrorCode.NOT_A_MEMBER):
            reason = f"You are not in {_named(error.room)}; /join {_named(error.room)} enters it."
        if error.room and error.code is ErrorCode.WRONG_KEY:
            reason = f"{_named(error.room)} needs a key, or an invitation: type /join {_named(error.room)} KEY."
        return Remark(f"{reason} It was: {rejected.text}" if rejected else reason, is_error=True)

    def _deleted(self, event: events.Deleted) -> list[Entry]:
        if self._held is not None and self._held.pop(event.id, None) is not None:
            return []
        if (shown := self._shown.pop(event.id, None)) is not None:
            return [Deletion(shown._replace(deleted_by=event.by))]
        return [Remark(f"Message {event.id} is deleted.")] if self._is_own(event.by) else []

    def _sanction_remark(self, event: _Sanction) -> Remark:
        """``bob banned eve from #dev until 2026-01-31 12:00 UTC. Reason: spam``."""
        by, whom = _names([event.by]), escape_control_characters(event.username or event.address or "")
        is_me = event.username is not None and self._is_own(event.username)
        whom = "you" if is_me else whom
        where = _named(event.room) if event.room else "the server"
        end = _until(event.until)
        match event:
            case events.Banned():
                text = f"{by} banned {whom} from {where}{end}."
            case events.Muted():
                text = f"{by} muted {whom}{f' in {where}' if event.room else ''}{end}."
            case events.Unbanned():
                text = f"{by} ended {'your ban' if is_me else f'the ban of {whom}'} from {where}."
            case events.Unmuted():
                mute = "your mute" if is_me else f"the mute of {whom}"
                text = f"{by} ended {mute}{f' in {where}' if event.room else ''}."
        return Remark(text + _because(event.reason), is_error=is_me and isinstance(event, events.Banned | events.Muted))

    # --- messages ---

    def _received(self, message: Message) -> list[Entry]:
        if self._held is not None:
            self._held[message.id] = message
            self._held_characters += len(message.text) + len(message.sender) + _HELD_MESSAGE_CHARACTERS
            return self._history(()) if self._held_characters > _HELD_MAX_CHARACTERS else []
        if not self._is_first(message.id, message.sender):
            return []
        begin: list[Entry] = []
        if message.id <= self._missed_upto and not self._has_missed:
            self._has_missed = True
            begin.append(Rule("what you missed"))
        return [*begin, *self._end_of_missed(message.id), self._message(message, is_new=True)]

    def _end_of_missed(self, message_id: int) -> list[Entry]:
        """The rule after missed messages, before the first new one."""
        if not self._has_missed or message_id <= self._missed_upto:
            return []
        self._has_missed = False
        return [_NOW]

    def _is_first(self, message_id: int, sender: str) -> bool:
        """True if this message was not shown yet. Only own messages may arrive twice."""
        if not self._is_own(sender):
            return True
        is_first = message_id not in self._own_ids
        self._own_ids.append(message_id)
        return is_first

    def _message(self, message: Message, *, is_new: bool) -> Text:
        self._newest_id = max(self._newest_id, message.id)
        if isinstance(message, events.DirectMessage):
            recipient, room, is_alert = message.recipient or "?", "", not self._is_own(message.sender)
        else:
            recipient, room, is_alert = "", message.room or "", self._is_mention(message.sender, message.text)
        is_alert = is_alert and not self.is_quiet
        self.needs_bell |= is_alert and is_new
        return self._note_shown(
            Text(message.sender, message.text, message.time_ms, recipient, is_alert, room, message.id)
        )

    def _note_shown(self, text: Text) -> Text:
        """Remember a message that is shown, for its tombstone."""
        if text.id is not None and len(text.sender + text.recipient + text.room) <= _NAMES_MAX_CHARACTERS:
            self._shown[text.id] = Text(text.sender, "", text.time_ms, text.recipient, False, text.room, text.id)
            if len(self._shown) > _SHOWN_MAX:
                del self._shown[next(iter(self._shown))]
        return text

    def _own(self, own_message: Say | Whisper | None, remark: str, message_id: int | None = None) -> list[Entry]:
        """An own message, and a remark about its outcome."""
        if own_message is None:
            return []
        recipient, room = (own_message.to, "") if isinstance(own_message, Whisper) else ("", own_message.room or "")
        time_ms = round(self._now().timestamp() * 1000)
        text = self._note_shown(
            Text(self.username, own_message.text, time_ms, recipient=recipient, room=room, id=message_id)
        )
        return [text, Remark(remark)] if remark else [text]

    def _is_own(self, sender: str) -> bool:
        return name_key(sender) == name_key(self.username)

    def _is_mention(self, sender: str, text: str) -> bool:
        return not self._is_own(sender) and self._mention.search(text) is not None

    # --- blocks of messages ---

    def _history(self, history: Sequence[Message]) -> list[Entry]:
        """Old messages between two rules. The first history after the login includes the held messages."""
        messages = {message.id: message for message in history}
        held, self._held = self._held, None
        what = _last(len(messages))
        if held is None:
            return self._block(what, messages.values()) if messages else [Remark("There are no messages yet.")]
        everything = {**held, **messages}
        # Without a seen id, the held messages are new. A held direct message was stored while the user was offline, so
        # all later messages are new as well.
        new_ids = set(held) if self._seen_id is None else {*held, *(each for each in messages if each > self._seen_id)}
        first_new_id = min(new_ids, default=None)
        entries: list[Entry] = []
        for message_id in sorted(everything):
            if message_id == first_new_id:
                entries.append(Rule("new since you were here"))
            elif not entries:
                entries.append(Rule(what))
            entries.append(self._message(everything[message_id], is_new=message_id in held))
        return [*entries, _NOW] if everything else []

    def _history_of(self, room: str, messages: Sequence[Message]) -> list[Entry]:
        if not messages:
            return [Remark(f"There are no messages in {_named(room)} yet.")]
        return self._block(f"{_last(len(messages))} in {_named(room)}", messages)

    def _found(self, answer: events.Found) -> list[Entry]:
        count = len(answer.messages)
        words = escape_control_characters(answer.words)
        where = f" in {_named(answer.room)}" if answer.room else self._lobby
        found: list[Entry] = [Remark(f"Nothing was found{where}: {words}")]
        if count:
            found = self._block(f"{count} message{'s' if count > 1 else ''} found{where}: {words}", answer.messages)
        if answer.upto < self._newest_id:
            found.append(Remark("The newest messages are not indexed yet; try again."))
        return found

    def _block(self, what: str, messages: Iterable[Message]) -> list[Entry]:
        return [Rule(what, begins_block=True), *(self._message(each, is_new=False) for each in messages), _NOW]

    def _release_held(self) -> list[Entry]:
        """The messages held for a history that does not arrive."""
        held, self._held = self._held or {}, None
        return [self._message(held[message_id], is_new=True) for message_id in sorted(held)]

    # --- the connection ---

    def _welcome(self, welcome: events.Welcome) -> list[Entry]:
        self._set_username(welcome.username)
        is_guest = welcome.account is events.AccountKind.GUEST
        self._held = None if is_guest else {}
        self._held_characters = 0
        self._seen_id = welcome.seen_id
        kind = ", a guest" if is_guest else ", an operator of this server" if welcome.operator else ""
        new = " This name is registered now." if welcome.account is events.AccountKind.NEW else ""
        remark = Remark(f"You are {welcome.username}{kind}.{new}")
        online = [_online(welcome.users)] if welcome.users else []
        rooms = [_rooms_of(welcome.rooms, welcome.seen_id)] if welcome.rooms else []
        self._lobby = _IN_LOBBY if welcome.rooms else ""
        return [remark, *online, *rooms]

    def _reconnected(self, event: notices.Reconnected) -> Remark:
        self._set_username(event.username)
        last_id = event.last_id or 0
        if last_id < self._newest_id:  # the server's history was reset, and ids start again
            self._own_ids.clear()
            self._newest_id = last_id
        self._missed_upto = last_id
        self._has_missed = False
        # The loss was not told if another server was there at once; nor was the goodbye of the lost one.
        lost_at, self._lost_at, self._goodbye = self._lost_at, None, ""
        after = f", after {_duration((self._now() - lost_at).total_seconds())}" if lost_at else ""
        if event.server:
            return Remark(f"Connected to {event.server}{after}; {event.gone} is gone.")
        return Remark(f"Connected again{after}.")

    def _set_username(self, username: str) -> None:
        self.username = username
        self._mention = re.compile(rf"(?<![A-Za-z0-9]){re.escape(username)}(?![A-Za-z0-9])", re.IGNORECASE)

    def _toggle(self, what: str) -> str:
        if what == "quiet":
            self.is_quiet = not self.is_quiet
            return "No bell and no highlight from now on." if self.is_quiet else "Bell and highlight are on."
        if what == "ids":
            self.shows_ids = not self.shows_ids
            return f"Numbers of messages are {'shown' if self.shows_ids else 'hidden'} from now on."
        self.shows_joins = not self.shows_joins
        return f"Joins and leaves are {'shown' if self.shows_joins else 'hidden'} from now on."


def _left_out(count: int) -> Remark:
    messages = "message" if count == 1 else "messages"
    return Remark(f"{count:,} {messages} came too fast to be shown; CH shows the newest.")


def _last(count: int) -> str:
    return f"the last {count} messages" if count != 1 else "the last message"


def _online(users: Sequence[str], room: str | None = None) -> Remark:
    return Remark(f"{len(users)} online{f' in {_named(room)}' if room else ''}: {_names(users)}")


def _named(room: str) -> str:
    return f"#{escape_control_characters(room)}"


def _rooms_of(rooms: Sequence[events.RoomState], seen_id: int | None) -> Remark:
    """The user's rooms with their numbers for Alt-2, Alt-3..."""
    told = []
    for number, room in enumerate(rooms, 2):
        new = " (new messages)" if seen_id is not None and room.last_id > seen_id else ""
        told.append(f"[{number}] {_named(room.room)}{new}")
    return Remark(f"Your rooms: {', '.join(told)}. Alt-NUMBER or /room NAME changes to one.")


def _current(notice: notices.CurrentRoom, *, is_change: bool) -> Remark:
    """The current room: a new one, or the answer to /room and /topic."""
    where = _named(notice.room) if notice.room else "all users"
    topic = escape_control_characters(notice.topic)
    if notice.room and not is_change and not notice.was_joined:
        told = f"The topic of {where}: {topic}." if topic else f"{where} has no topic."
        return Remark(f"{told} Your messages go there.")
    end = f" Topic: {topic}" if topic and not notice.was_joined else ""
    return Remark(f"Your messages go to {where}{' from now on' if is_change else ''}.{end}")


def _listed(rooms: Sequence[events.RoomSummary]) -> list[Entry]:
    """The list of rooms, one line for each."""
    if not rooms:
        return [Remark("There are no rooms besides the lobby; /join NAME makes one.")]
    remarks: list[Entry] = [Remark(f"{len(rooms)} room{'' if len(rooms) == 1 else 's'}, besides the lobby")]
    for room in rooms:
        members = f"{room.members} member{'' if room.members == 1 else 's'}"
        traits = ", ".join([members, *(["joined"] if room.joined else []), *view.room_traits(room)])
        topic = f": {escape_control_characters(room.topic)}" if room.topic else ""
        remarks.append(Remark(f"{_named(room.room)} ({traits}){topic}"))
    return remarks


_ROLES: Final = {
    events.RoomRole.OWNER: "the owner",
    events.RoomRole.OPERATOR: "an operator",
    events.RoomRole.VOICE: "a member with a voice",
    events.RoomRole.MEMBER: "an ordinary member",
}


def _until(time_ms: int | None) -> str:
    """The end of a ban or mute, in minutes, rounded up as in the server's errors: it is over then."""
    return "" if time_ms is None else f" until {view.minute(time_ms + 59_999)}"


def _because(reason: str) -> str:
    return f" Reason: {escape_control_characters(reason)}" if reason else ""


def _moderation_remarks(event: events.Reported | events.Bans | events.Audit | events.Ignored) -> list[Entry]:
    """The answers to /report, /bans, /audit and /ignore, one line for each row; and a report for operators."""
    match event:
        case events.Reported(username=username, room=room, by=by, reason=reason):
            what = f"message {event.id}" if username is None else escape_control_characters(username)
            where = f" in {_named(room)}" if room else ""
            return [Remark(f"{_names([by])} reported {what}{where} to the operators.{_because(reason)}")]
        case events.Ignored(users):
            return [Remark(f"You ignore: {_names(users)}" if users else "You ignore no users.")]
        case events.Bans(bans, room):
            where = f" in {_named(room)}" if room else ""
            if not bans:
                return [Remark(f"There are no bans and mutes{where}.")]
            return [Remark(f"Bans and mutes{where}: {len(bans)}"), *map(_sanction_row, bans)]
        case events.Audit(acts):
            head = f"The last acts of operators: {len(acts)}" if acts else "Operators have done nothing yet."
            return [Remark(head), *map(_act_row, acts)]


def _sanction_row(ban: events.SanctionState) -> Remark:
    """``eve: muted by bob until 2026-01-31 12:00 UTC. Reason: spam``."""
    whom = escape_control_characters(ban.username or ban.address or "")
    what = "banned" if ban.kind is events.SanctionKind.BAN else "muted"
    return Remark(f"{whom}: {what} by {_names([ban.by])}{_until(ban.until)}.{_because(ban.reason)}")


def _session_row(token: events.TokenState) -> Remark:
    """``5f3a90c1: Firefox on Linux, used 2026-01-31 12:00 UTC, this session``."""
    token_id, label = escape_control_characters(token.id), escape_control_characters(token.label)
    return Remark(f"{token_id}: {label}, used {view.minute(token.used)}{', this session' * token.current}")


def _act_row(act: events.AuditRow) -> Remark:
    """``2026-01-31 12:00 UTC, alice: ban bob (for 1h). Reason: spam``."""
    words = " ".join(escape_control_characters(each) for each in (act.action, act.target) if each)
    where = f" in {_named(act.room)}" if act.room else ""
    detail = f" ({escape_control_characters(detail_for_people(act.detail))})" if act.detail else ""
    return Remark(f"{view.minute(act.time_ms)}, {_names([act.by])}: {words}{where}{detail}.{_because(act.reason)}")


def _room_remark(event: _RoomEvent) -> Remark:
    room, by = _named(event.room or LOBBY), escape_control_characters(getattr(event, "by", None) or "")
    name, topic = (escape_control_characters(getattr(event, each, "")) for each in ("username", "topic"))
    match event:
        case events.Joined():
            traits = [*view.room_traits(event), *([] if event.private else ["public"])]  # perhaps not as was requested
            text = f"You are in {room} ({', '.join(traits)}).{f' Topic: {topic}' if topic else ''}"
        case events.Parted():
            text = f"{by} removed you from {room}." if by else f"You are no longer in {room}."
            text += _because(event.reason)
        case events.TopicChanged():
            text = f"{by} changed the topic of {room}: {topic}" if topic else f"{by} removed the topic of {room}."
        case events.Modes(modes=modes):
            words = ", ".join(view.mode_words(modes))
            text = f"{room} is now: {words} ({by})." if by else f"{room} is: {words}."
        case events.Invited():
            text = f"{by} invited {name} to {room}."
        case events.Kicked():
            text = f"{by} removed {name} from {room if event.room else 'the server'}.{_because(event.reason)}"
        case events.RoleChanged(role=role):
            whole = f"{_ROLES[role]} of {room if event.room else 'this server'}"
            text = f"{by} made {name} {whole}." if by else f"{name} is {whole} now."
    return Remark(text)


def _names(names: Iterable[str]) -> str:
    return ", ".join(sorted(map(escape_control_characters, names), key=str.lower))


def _duration(seconds: float) -> str:
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    if seconds < 100:  # noqa: PLR2004 - then minutes say enough
        return f"{max(1, round(seconds))} s"
    return f"{minutes} min" if minutes < 100 else f"{hours} h"  # noqa: PLR2004 - the same
