"""What the client knows: who it is, what it has seen, and what it has sent and not seen confirmed. Pure."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from chatclient.client_protocol import DeliveryUnknown, Outcome
from chatprotocol.errors import ErrorCode, RequestError
from chatprotocol.events import DirectMessage, History, Online, PublicMessage, Refused, Sent, Users, Welcome
from chatprotocol.limits import HISTORY_ID_MAX_CHARACTERS
from chatprotocol.requests import Login
from chatprotocol.rules import check_username, name_key

if TYPE_CHECKING:
    from chatclient.client_protocol import ClientEvent
    from chatprotocol.address import Address
    from chatprotocol.events import Message
    from chatprotocol.requests import Say, Whisper


# Refusals of a moment, after which the same message may be sent again.
_LATER = frozenset({ErrorCode.NOT_LOGGED_IN, ErrorCode.SHUTTING_DOWN})

# Messages that are remembered as seen: a server that does not know which of them a client has sends the last 500 again.
_SEEN_MAX_MESSAGES = 1_000


# Names for completion. A server takes 10,000 connections unless it is set otherwise.
_ONLINE_MAX_USERS = 10_000


def is_username(name: str) -> bool:
    """Can anybody have this name? Servers may tell others, which nobody should type, nor see in a menu."""
    try:
        check_username(name)
    except RequestError:
        return False
    return True


def _usernames(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(filter(is_username, names[-_ONLINE_MAX_USERS:]))


class ConnectionState(Enum):
    """Where the client stands with the server."""

    UNPLACED = "is asked where the server is"
    UNNAMED = "is asked who it is"
    AWAY = "not connected"
    KNOCKING = "has sent its login"
    ASKED = "is asked for a password"
    IN = "is logged in"


class UiState(NamedTuple):
    """What a person sees all the time: who and where they are, what is due, and what is on its way."""

    connection_state: ConnectionState
    username: str = ""
    server: Address | None = None
    # How many are online, where the server says so by itself.
    online_count: int | None = None
    # What the next line is, where something was asked.
    question: str = ""
    # May it be a password, which nobody is to see?
    is_secret: bool = False
    # What was typed and waits, and what was sent and waits for its confirmation.
    waiting: tuple[str, ...] = ()
    unconfirmed: tuple[Say | Whisper, ...] = ()


class _Mark(NamedTuple):
    """What tells a message from another one that has its id in another history."""

    # Of a message of one's own that was confirmed it is not known.
    time_ms: int | None
    # Of the sender and the text, which may be long.
    content_hash: int

    def matches(self, message: Message) -> bool:
        """Is it this message?"""
        is_then = self.time_ms in (None, message.time_ms)
        return is_then and self.content_hash == _content_hash(message.sender, message.text)


def _content_hash(sender: str, text: str) -> int:
    return hash((name_key(sender), text))


class Model:
    """Everything that must survive a lost connection."""

    def __init__(self, server: Address | None, username: str | None, password: str | None) -> None:
        """What is None is asked for."""
        self.server = server
        self.username = username or ""
        self.password = password
        self.connection_state = ConnectionState.AWAY
        self.has_been_in = False
        # Who is online as far as it is known, of those who can be written to; and how many, where that was said.
        self.online: tuple[str, ...] = ()
        self.online_count: int | None = None
        # Who wrote to this user alone last.
        self.correspondent = ""
        # The newest message that was seen, own ones included: where to go on after a reconnect.
        self.last_seen_id: int | None = None
        # The identity of the history that it belongs to, where the server tells one.
        self.history_id: str | None = None
        self._seen: dict[int, _Mark] = {}
        # What was sent and is neither confirmed nor refused, by nonce, in the order in which it was typed.
        self.unconfirmed: dict[str, Say | Whisper] = {}

    def login(self) -> Login:
        """The login to send on a new connection."""
        return Login(self.username, self.password, self.last_seen_id, self.history_id)

    def has_seen(self, message: Message) -> bool:
        """Was this message told before, as far as it is remembered? Not one that had its id before a restore."""
        seen = self._seen.get(message.id)
        return seen is not None and seen.matches(message)

    def is_own(self, message: Message) -> bool:
        """Did this user say it, here or on another device?"""
        return name_key(message.sender) == name_key(self.username)

    def apply(self, event: ClientEvent) -> None:
        """Learn from what the server said."""
        match event:
            case DeliveryUnknown(said) | Outcome(said):
                self.unconfirmed.pop(said.nonce or "", None)
            case Welcome():
                self._come_in(event)
            case PublicMessage() | DirectMessage():
                self._see(event)
                self._note_writer(event)
            case History():
                for message in event.messages:
                    self._see(message)
            case Online() | Users():
                self._learn_who_is_online(event)
            case Sent():
                self._learn_own_id(event)
            case Refused() if event.code not in _LATER:
                self.unconfirmed.pop(event.nonce or "", None)

    def _come_in(self, event: Welcome) -> None:
        self.username = event.username
        self.connection_state = ConnectionState.IN
        self._learn_who_is_online(Online(event.users))
        history_id = event.history_id
        if history_id is not None and len(history_id) > HISTORY_ID_MAX_CHARACTERS:
            history_id = None  # it would not fit into the next login
        is_other = self.history_id is not None and history_id not in (None, self.history_id)
        self.history_id = history_id
        if event.since is not None:
            self.last_seen_id = event.since
        # A smaller one says that the server began anew, with none of what was seen.
        elif event.last_id is not None and (is_other or self.last_seen_id is None or event.last_id < self.last_seen_id):
            self.last_seen_id = event.last_id

    def _note_writer(self, message: Message) -> None:
        if isinstance(message, DirectMessage) and not self.is_own(message) and is_username(message.sender):
            self.correspondent = message.sender

    def _learn_who_is_online(self, event: Online | Users) -> None:
        """From a list, or from who came and went. A dialect that does not tell it at the login tells nobody then."""
        if isinstance(event, Online) or event.users is not None:
            users = _usernames(event.users or ())
        else:
            moved = {*event.joined, *event.left}
            users = (*(name for name in self.online if name not in moved), *_usernames(event.joined))
        self.online = users[-_ONLINE_MAX_USERS:]  # who came last is likelier to be written to
        self.online_count = event.count if isinstance(event, Users) else len(event.users) or None

    def _see(self, message: Message) -> None:
        self._remember(message.id, _Mark(message.time_ms, _content_hash(message.sender, message.text)))

    def _learn_own_id(self, event: Sent) -> None:
        said = self.unconfirmed.pop(event.nonce or "", None)
        mark = None if said is None else _Mark(None, _content_hash(self.username, said.text))
        self._remember(event.id, mark)

    def _remember(self, message_id: int, mark: _Mark | None) -> None:
        self.last_seen_id = max(message_id, self.last_seen_id or 0)
        if mark is not None:
            self._seen.pop(message_id, None)
            self._seen[message_id] = mark
        if len(self._seen) > _SEEN_MAX_MESSAGES:
            del self._seen[next(iter(self._seen))]
