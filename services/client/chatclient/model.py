"""The client's state that survives a connection: identity, rooms, seen and unconfirmed messages. Pure.

Rooms. `rooms` has the rooms that the user is in, each with the id of its newest message that was seen. Messages of the
lobby and direct messages arrive in the order of their ids, so they share last_seen_id. A confirmation has no
room; the unconfirmed message has it. With rooms, the next login has an id for each of them, and the server's answer has
the rooms that the user is then in. Names from the server are kept only if they are valid, because they become part of
the next login and of typed lines.

Moderation. A login with ``since`` repeats the deletions of seen messages: was_deleted() tells which are known. Messages
of ignored users arrive, except direct ones; is_hidden() tells which the user should not see.
"""

from bisect import insort
from collections.abc import Callable
from enum import Enum
from functools import partial
from typing import Any, NamedTuple

from chatclient.notices import Question
from chatprotocol import events, requests
from chatprotocol.address import Address
from chatprotocol.errors import ErrorCode, RequestError
from chatprotocol.limits import HISTORY_ID_MAX_CHARACTERS, IGNORED_MAX, ROOMS_MAX, SINCE_MAX_NAMES, TOPIC_MAX_BYTES
from chatprotocol.rules import LOBBY, check_room_name, check_username, is_lobby, name_key, room_key
from chatprotocol.wire.base import ClientEvent, DeliveryUnknown, Online, Outcome

# Temporary errors: the same message is sent again later.
_TEMPORARY_ERRORS = frozenset({ErrorCode.NOT_LOGGED_IN, ErrorCode.SHUTTING_DOWN})

# Number of seen messages to remember: a server that does not know the new messages sends up to 500 again.
_SEEN_MAX_MESSAGES = 1_000

# Number of deletions to remember: a login repeats up to 500.
_DELETED_MAX_MESSAGES = 1_000

# Number of own messages to remember in each room: /delete without an id deletes the last one.
_OWN_MAX_MESSAGES = 50

# Maximum number of names kept for completion: the server's default limit of connections.
_ONLINE_MAX_USERS = 10_000

# Number of users to remember as speakers of each room: completion names them first.
_SPEAKERS_MAX_USERS = 50

# Maximum number of rooms: the next login names each of them, the lobby and direct messages.
_ROOMS_MAX = SINCE_MAX_NAMES - 2
_DIRECT = "direct"


def _is_valid(check: Callable[[str], object], name: str) -> bool:
    """True if the name is valid. A server may send other names; they are shown, but not kept."""
    try:
        check(name)
    except RequestError:
        return False
    return True


_is_username = partial(_is_valid, check_username)
_is_room_name = partial(_is_valid, check_room_name)


def _key(room: str | None) -> str:
    """The key of a room; empty for the lobby."""
    return "" if not room or is_lobby(room) else room_key(room)


def _usernames(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(filter(_is_username, names[-_ONLINE_MAX_USERS:]))


class ConnectionState(Enum):
    """State of the connection and the login. For transitions see session.py."""

    DISCONNECTED = "not connected"
    LOGGING_IN = "login sent"
    PASSWORD_REQUESTED = "password requested"  # noqa: S105 - a state, not a secret
    LOGGED_IN = "logged in"


class MyRoom(NamedTuple):
    """A room that the user is in. ``last_seen_id`` is its newest message that this client has seen."""

    name: str
    topic: str
    last_seen_id: int


class Unread(NamedTuple):
    """Number of messages in a room that is not the current one. ``key_number`` is the room's for Alt-1 to Alt-9."""

    key_number: int
    room: str
    messages: int


class UiState(NamedTuple):
    """Everything that the prompt and the status line show."""

    connection_state: ConnectionState
    username: str = ""
    server: Address | None = None
    # Number of users online, if the server reports it.
    online_count: int | None = None
    # The question that the next line answers, if any.
    question: Question | None = None
    # True if the input may be a password and is hidden.
    is_secret: bool = False
    # Lines that were typed and not used, with their rooms, and messages that were sent and not confirmed.
    waiting: tuple[tuple[str, str], ...] = ()
    unconfirmed: tuple[requests.Say | requests.Whisper, ...] = ()
    # True after the first login.
    was_logged_in: bool = False
    # The room that the next message goes to; empty for the lobby. Its number, if the user is in it. Unread messages.
    room: str = ""
    room_number: int | None = 1
    unread: tuple[Unread, ...] = ()


class _Fingerprint(NamedTuple):
    """Distinguishes messages of different histories that have the same id."""

    # None for the user's own messages: a confirmation has no time.
    time_ms: int | None
    # Hash of sender and text. The text may be long.
    content_hash: int


def _content_hash(sender: str, text: str) -> int:
    return hash((name_key(sender), text))


class Model:
    """Everything that survives a lost connection. One thread changes it: see ClientSession."""

    def __init__(self, servers: tuple[Address, ...], username: str | None, password: str | None) -> None:
        """Arguments that are empty or None are requested from the user. All servers have the same history."""
        self.servers = servers
        # The server of the current or last connection; None before the first one.
        self.connected_to: Address | None = None
        self.username = username or ""
        self.password = password
        # The code with which a new name registers, if the server needs one.
        self.invitation: str | None = None
        # The session token; a login with it needs no name and no password.
        self.token: str | None = None
        self.connection_state = ConnectionState.DISCONNECTED
        self.was_logged_in = False
        # Known users online, valid names only; and the number of users online, if the server sent it.
        self.online: tuple[str, ...] = ()
        self.online_count: int | None = None
        # Sender of the last direct message.
        self.last_sender = ""
        # True if the server knows rooms, according to its last welcome. No earlier server knows moderation.
        self.knows_rooms = False
        # The rooms that the user is in, by key, in the order in which they became known.
        self.rooms: dict[str, MyRoom] = {}
        # Names of other rooms, for completion: those that the server listed, and those of invitations.
        self.other_rooms: tuple[str, ...] = ()
        # Id of the newest message seen in the lobby or direct, including the user's own. A reconnect resumes after it.
        self.last_seen_id: int | None = None
        # Id of the server's history, if the server sends it.
        self.history_id: str | None = None
        self._seen: dict[int, _Fingerprint] = {}
        # Ids of deleted messages, oldest deletion first; and the keys of the users whom this user ignores.
        self._deleted: dict[int, None] = {}
        self._ignored: frozenset[str] = frozenset()
        # Ids of the user's own messages, ascending, by room key; the lobby and direct messages have the empty key.
        self._own_ids: dict[str, list[int]] = {}
        # Id of the last public message of each speaker, by the key of the name, by room key.
        self._speakers: dict[str, dict[str, int]] = {}
        # Messages that are neither confirmed nor finally rejected, by nonce, in the order of typing.
        self.unconfirmed: dict[str, requests.Say | requests.Whisper] = {}

    @property
    def server(self) -> Address | None:
        """The server to show: that of the connection, or the only one that is tried."""
        return self.connected_to or (self.servers[0] if len(self.servers) == 1 else None)

    @property
    def is_logged_in(self) -> bool:
        """True if the user is logged in on the current connection."""
        return self.connection_state is ConnectionState.LOGGED_IN

    def login(self) -> requests.Login:
        """The login to send on a new connection."""
        since: int | dict[str, int] | None = self.last_seen_id
        if self.last_seen_id is not None and self.rooms:
            rooms = {room.name: room.last_seen_id for room in self.rooms.values()}
            since = {LOBBY: self.last_seen_id, _DIRECT: self.last_seen_id, **rooms}
        known: dict[str, Any] = {"since": since, "history_id": self.history_id, "rooms": True, "moderation": True}
        if self.token is not None:
            named: dict[str, Any] = {"username": self.username} if self.username else {}
            return requests.Login(token=self.token, **named, **known)
        return requests.Login(self.username, self.password, invitation=self.invitation, **known)

    def has_seen(self, message: events.Message) -> bool:
        """True if this message is remembered as seen. A different message with the same id does not count."""
        seen = self._seen.get(message.id)
        if seen is None or seen.time_ms not in (None, message.time_ms):
            return False
        return seen.content_hash == _content_hash(message.sender, message.text)

    def has_seen_id(self, message_id: int) -> bool:
        """True if a message with this id is remembered as seen."""
        return message_id in self._seen

    def was_deleted(self, message_id: int) -> bool:
        """True if the deletion of this message is known."""
        return message_id in self._deleted

    def is_hidden(self, message: ClientEvent) -> bool:
        """True for a public message of a user whom this user ignores."""
        return (
            bool(self._ignored)
            and isinstance(message, events.PublicMessage)
            and name_key(message.sender) in self._ignored
        )

    def last_own_id(self, room: str) -> int | None:
        """Id of the user's last message in this room; in the lobby it may be a direct message."""
        ids = self._own_ids.get(_key(room))
        return ids[-1] if ids else None

    def speakers(self, room: str) -> tuple[str, ...]:
        """Keys of the names of others who spoke in this room, the last one first."""
        ids = self._speakers.get(_key(room), {})
        return tuple(sorted(ids, key=ids.__getitem__, reverse=True))

    def is_me(self, username: str) -> bool:
        return name_key(username) == name_key(self.username)

    def is_own(self, message: events.Message) -> bool:
        """True if this user sent it, from here or from another device."""
        return self.is_me(message.sender)

    def apply(self, event: ClientEvent) -> None:  # noqa: C901, PLR0912 - one case for each event
        match event:
            case DeliveryUnknown(own_message) | Outcome(own_message):
                self.unconfirmed.pop(own_message.nonce or "", None)
            case events.Welcome():
                self._on_welcome(event)
            case events.PublicMessage() | events.DirectMessage():
                self._note_seen(event)
                is_direct = isinstance(event, events.DirectMessage) and not self.is_own(event)
                if is_direct and _is_username(event.sender):
                    self.last_sender = event.sender
            case events.History():
                for each in event.messages:
                    self._note_seen(each)
            case Online(room=None) | events.Users(room=None):
                self._update_online(event)
            case events.Sent(message_id, nonce=nonce):
                message = self.unconfirmed.pop(nonce or "", None)
                sent = None if message is None else _Fingerprint(None, _content_hash(self.username, message.text))
                room = message.room if isinstance(message, requests.Say) else None
                self._remember(message_id, sent, room)
                if message is not None:
                    self._note_own(message_id, room)
            case events.Refused() if event.code not in _TEMPORARY_ERRORS:
                self.unconfirmed.pop(event.nonce or "", None)
            case events.Joined(room, topic, last_id=last_id):
                known = self.rooms.get(room_key(room))
                self._note_room(MyRoom(room, topic, known.last_seen_id if known else last_id))
            case events.Parted(room):
                self.rooms.pop(room_key(room), None)
                self._own_ids.pop(room_key(room), None)
                self._speakers.pop(room_key(room), None)
            case events.Deleted(message_id, room=room):
                self._deleted[message_id] = None
                if len(self._deleted) > _DELETED_MAX_MESSAGES:
                    del self._deleted[next(iter(self._deleted))]
                if message_id in (own_ids := self._own_ids.get(_key(room), [])):
                    own_ids.remove(message_id)
            case events.Ignored(users):
                self._ignored = frozenset(map(name_key, users[:IGNORED_MAX]))
            case events.TopicChanged(room, topic) if known := self.rooms.get(room_key(room)):
                self._note_room(known._replace(topic=topic))
            case events.Rooms(rooms):
                listed = tuple(each.room for each in rooms if not each.joined)
                self.other_rooms = tuple(filter(_is_room_name, listed[:ROOMS_MAX]))
            case events.Invited(room, username) if self.is_me(username) and _is_room_name(room):
                others = [each for each in self.other_rooms if room_key(each) != room_key(room)]
                self.other_rooms = (*others[1 - ROOMS_MAX :], room)

    def _on_welcome(self, event: events.Welcome) -> None:
        self.username = event.username
        self.connection_state = ConnectionState.LOGGED_IN
        self.was_logged_in = True
        self.knows_rooms = event.rooms is not None
        self._update_online(Online(event.users))
        history_id = event.history_id
        if history_id is not None and len(history_id) > HISTORY_ID_MAX_CHARACTERS:
            history_id = None  # it would not fit into the next login
        is_other = self.history_id is not None and history_id not in (None, self.history_id)
        self.history_id = history_id
        is_reset = event.last_id is not None and event.last_id < (self.last_seen_id or 0)
        if is_other or is_reset or event.since is not None:  # the ids may belong to other messages now
            self._deleted.clear()
            self._own_ids.clear()
            self._speakers.clear()
        if event.since is not None:
            self.last_seen_id = event.since
        # A smaller id means that the server's history was reset and has none of the seen messages.
        elif event.last_id is not None and (is_other or self.last_seen_id is None or event.last_id < self.last_seen_id):
            self.last_seen_id = event.last_id
        known, self.rooms = self.rooms, {}
        states = {room_key(state.room): state for state in event.rooms or ()}
        for key in (*(key for key in known if key in states), *(key for key in states if key not in known)):
            # The server sends the messages after the least of these ids: `since` is one id for all rooms.
            ids = [states[key].last_id, *((known[key].last_seen_id,) if key in known else ())]
            last_seen_id = min(ids) if event.since is None else min(*ids, event.since)
            self._note_room(MyRoom(states[key].room, states[key].topic, last_seen_id))

    def _note_room(self, room: MyRoom) -> None:
        key = room_key(room.name)
        if key in self.rooms or (len(self.rooms) < _ROOMS_MAX and _is_room_name(room.name)):
            # A server may send more of a topic; it is shown, but not kept.
            self.rooms[key] = room._replace(topic=room.topic[:TOPIC_MAX_BYTES])

    def _update_online(self, event: Online | events.Users) -> None:
        """Update the users online from a full list, or from those who joined and left."""
        if isinstance(event, Online) or event.users is not None:
            users = _usernames(event.users or ())
        else:
            moved = {*event.joined, *event.left}
            users = (*(name for name in self.online if name not in moved), *_usernames(event.joined))
        self.online = users[-_ONLINE_MAX_USERS:]  # recent users are likelier recipients
        self.online_count = event.count if isinstance(event, events.Users) else len(event.users) or None

    def _note_seen(self, message: events.Message) -> None:
        fingerprint = _Fingerprint(message.time_ms, _content_hash(message.sender, message.text))
        room = message.room if isinstance(message, events.PublicMessage) else None
        self._remember(message.id, fingerprint, room)
        if self.is_own(message):
            self._note_own(message.id, room)
        elif isinstance(message, events.PublicMessage):
            self._note_speaker(message)

    def _note_speaker(self, message: events.PublicMessage) -> None:
        key = _key(message.room)
        if key and key not in self.rooms:
            return
        ids = self._speakers.setdefault(key, {})
        name = name_key(message.sender)
        ids[name] = max(message.id, ids.get(name, 0))
        if len(ids) > _SPEAKERS_MAX_USERS:
            del ids[min(ids, key=ids.__getitem__)]

    def _note_own(self, message_id: int, room: str | None) -> None:
        key = _key(room)
        if key and key not in self.rooms:
            return
        ids = self._own_ids.setdefault(key, [])
        if message_id not in ids:
            insort(ids, message_id)
        del ids[:-_OWN_MAX_MESSAGES]

    def _remember(self, message_id: int, fingerprint: _Fingerprint | None, room: str | None) -> None:
        if room is None or is_lobby(room):
            self.last_seen_id = max(message_id, self.last_seen_id or 0)
        elif known := self.rooms.get(room_key(room)):
            self._note_room(known._replace(last_seen_id=max(message_id, known.last_seen_id)))
        if fingerprint is not None:
            self._seen.pop(message_id, None)
            self._seen[message_id] = fingerprint
        if len(self._seen) > _SEEN_MAX_MESSAGES:
            del self._seen[next(iter(self._seen))]
