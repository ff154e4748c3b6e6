"""The client's state that survives a connection: identity, seen messages and unconfirmed messages. Pure."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from chatprotocol.errors import ErrorCode, RequestError
from chatprotocol.events import DirectMessage, History, Online, PublicMessage, Refused, Sent, Users, Welcome
from chatprotocol.limits import HISTORY_ID_MAX_CHARACTERS
from chatprotocol.requests import Login
from chatprotocol.rules import check_username, name_key
from chatprotocol.wire.base import DeliveryUnknown, Outcome

if TYPE_CHECKING:
    from chatclient.notices import Question
    from chatprotocol.address import Address
    from chatprotocol.events import Message
    from chatprotocol.requests import Say, Whisper
    from chatprotocol.wire.base import ClientEvent


# Temporary errors: the same message is sent again later.
_TEMPORARY_ERRORS = frozenset({ErrorCode.NOT_LOGGED_IN, ErrorCode.SHUTTING_DOWN})

# Number of seen messages to remember: a server that does not know the new messages sends up to 500 again.
_SEEN_MAX_MESSAGES = 1_000


# Maximum number of names kept for completion: the server's default limit of connections.
_ONLINE_MAX_USERS = 10_000


def is_username(name: str) -> bool:
    """True if the name is valid. A server may send other names; they are not offered for completion."""
    try:
        check_username(name)
    except RequestError:
        return False
    return True


def _usernames(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(filter(is_username, names[-_ONLINE_MAX_USERS:]))


class ConnectionState(Enum):
    """State of the connection and the login. For transitions see session.py."""

    DISCONNECTED = "not connected"
    LOGGING_IN = "login sent"
    PASSWORD_REQUESTED = "password requested"  # noqa: S105 - a state, not a secret
    LOGGED_IN = "logged in"


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
    # Lines that were typed and not used, and messages that were sent and not confirmed.
    waiting: tuple[str, ...] = ()
    unconfirmed: tuple[Say | Whisper, ...] = ()
    # True after the first login.
    was_logged_in: bool = False


class _Fingerprint(NamedTuple):
    """Distinguishes messages of different histories that have the same id."""

    # None for the user's own messages: a confirmation has no time.
    time_ms: int | None
    # Hash of sender and text. The text may be long.
    content_hash: int

    def matches(self, message: Message) -> bool:
        """True if the fingerprint is that of this message."""
        is_same_time = self.time_ms in (None, message.time_ms)
        return is_same_time and self.content_hash == _content_hash(message.sender, message.text)


def _content_hash(sender: str, text: str) -> int:
    return hash((name_key(sender), text))


class Model:
    """Everything that survives a lost connection. One thread changes it: see ClientSession."""

    def __init__(self, server: Address | None, username: str | None, password: str | None) -> None:
        """Arguments that are None are requested from the user."""
        self.server = server
        self.username = username or ""
        self.password = password
        self.connection_state = ConnectionState.DISCONNECTED
        self.was_logged_in = False
        # Known users online, valid names only; and the number of users online, if the server sent it.
        self.online: tuple[str, ...] = ()
        self.online_count: int | None = None
        # Sender of the last direct message.
        self.last_sender = ""
        # Id of the newest message seen, including the user's own. A reconnect resumes after it.
        self.last_seen_id: int | None = None
        # Id of the server's history, if the server sends it.
        self.history_id: str | None = None
        self._seen: dict[int, _Fingerprint] = {}
        # Messages that are neither confirmed nor finally rejected, by nonce, in the order of typing.
        self.unconfirmed: dict[str, Say | Whisper] = {}

    def login(self) -> Login:
        """The login to send on a new connection."""
        return Login(self.username, self.password, self.last_seen_id, self.history_id)

    def has_seen(self, message: Message) -> bool:
        """True if this message is remembered as seen. A different message with the same id does not count."""
        seen = self._seen.get(message.id)
        return seen is not None and seen.matches(message)

    def is_own(self, message: Message) -> bool:
        """True if this user sent it, from here or from another device."""
        return name_key(message.sender) == name_key(self.username)

    def apply(self, event: ClientEvent) -> None:
        """Update the state with an event."""
        match event:
            case DeliveryUnknown(own_message) | Outcome(own_message):
                self.unconfirmed.pop(own_message.nonce or "", None)
            case Welcome():
                self._on_welcome(event)
            case PublicMessage() | DirectMessage():
                self._note_seen(event)
                self._note_direct_sender(event)
            case History():
                for message in event.messages:
                    self._note_seen(message)
            case Online() | Users():
                self._update_online(event)
            case Sent():
                self._note_confirmed(event)
            case Refused() if event.code not in _TEMPORARY_ERRORS:
                self.unconfirmed.pop(event.nonce or "", None)

    def _on_welcome(self, event: Welcome) -> None:
        self.username = event.username
        self.connection_state = ConnectionState.LOGGED_IN
        self.was_logged_in = True
        self._update_online(Online(event.users))
        history_id = event.history_id
        if history_id is not None and len(history_id) > HISTORY_ID_MAX_CHARACTERS:
            history_id = None  # it would not fit into the next login
        is_other = self.history_id is not None and history_id not in (None, self.history_id)
        self.history_id = history_id
        if event.since is not None:
            self.last_seen_id = event.since
        # A smaller id means that the server's history was reset and has none of the seen messages.
        elif event.last_id is not None and (is_other or self.last_seen_id is None or event.last_id < self.last_seen_id):
            self.last_seen_id = event.last_id

    def _note_direct_sender(self, message: Message) -> None:
        if isinstance(message, DirectMessage) and not self.is_own(message) and is_username(message.sender):
            self.last_sender = message.sender

    def _update_online(self, event: Online | Users) -> None:
        """Update the users online from a full list, or from those who joined and left."""
        if isinstance(event, Online) or event.users is not None:
            users = _usernames(event.users or ())
        else:
            moved = {*event.joined, *event.left}
            users = (*(name for name in self.online if name not in moved), *_usernames(event.joined))
        self.online = users[-_ONLINE_MAX_USERS:]  # recent users are likelier recipients
        self.online_count = event.count if isinstance(event, Users) else len(event.users) or None

    def _note_seen(self, message: Message) -> None:
        self._remember(message.id, _Fingerprint(message.time_ms, _content_hash(message.sender, message.text)))

    def _note_confirmed(self, event: Sent) -> None:
        message = self.unconfirmed.pop(event.nonce or "", None)
        fingerprint = None if message is None else _Fingerprint(None, _content_hash(self.username, message.text))
        self._remember(event.id, fingerprint)

    def _remember(self, message_id: int, fingerprint: _Fingerprint | None) -> None:
        self.last_seen_id = max(message_id, self.last_seen_id or 0)
        if fingerprint is not None:
            self._seen.pop(message_id, None)
            self._seen[message_id] = fingerprint
        if len(self._seen) > _SEEN_MAX_MESSAGES:
            del self._seen[next(iter(self._seen))]
