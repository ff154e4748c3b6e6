"""Client side of a protocol: translates actions to requests, and server events to client events. Pure.

JsonClient serves the protocol json, where requests are independent of each other. frames_client.py serves frames and
datagram, register_client.py serves register.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

from chatprotocol.errors import ErrorCode
from chatprotocol.events import Online, Ready, Refused, User, Users, Welcome
from chatprotocol.requests import AskUser, AskUsers, Login, Ping

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chatprotocol.events import Event
    from chatprotocol.requests import Request, Say, Whisper


class OpenPublic(NamedTuple):
    """The user begins a public message. The answer is Ready."""


class OpenDirect(NamedTuple):
    """The user begins a direct message. The answer is Online, with the possible recipients."""


class PossibleGap(NamedTuple):
    """Some missed messages may not be shown."""

    # True if the protocol can request the history.
    has_history: bool = True


class DeliveryUnknown(NamedTuple):
    """It is unknown whether this unconfirmed message was stored. It is not sent again."""

    said: Say | Whisper
    has_history: bool = True


class Outcome(NamedTuple):
    """Result of a message in a protocol that confirms delivery: has_come is true if all recipients received it."""

    said: Say | Whisper
    has_come: bool


Action: TypeAlias = "Request | OpenPublic | OpenDirect"
ClientEvent: TypeAlias = "Event | PossibleGap | DeliveryUnknown | Outcome"


class Effects(NamedTuple):
    """Result of an action or a server event: requests to send, in order, and client events to show."""

    send: tuple[Request, ...] = ()
    events: tuple[ClientEvent, ...] = ()


class ClientProtocol(Protocol):
    """State of one client, over all of its connections. For the owner's thread, except `ping`."""

    @property
    def is_stepwise(self) -> bool:
        """True if the protocol runs one operation at a time."""

    @property
    def is_guest(self) -> bool:
        """True if a login needs only a name. A rejected name is then replaced by another one."""

    @property
    def is_busy(self) -> bool:
        """True if the next action has to wait for an answer."""

    @property
    def ping(self) -> Request | None:
        """The request that tests a silent server, or None if it would disturb an operation. For the receiver thread."""

    def connect(self, login: Login, unconfirmed: Sequence[Say | Whisper]) -> Effects:
        """Log in on a new connection. After the login, send each unconfirmed message once."""

    def request(self, action: Action) -> Effects:
        """Translate an action of the user."""

    def handle_event(self, event: Event) -> Effects:
        """Handle an event of the server."""


def is_other_history(login: Login, welcome: Welcome) -> bool:
    """True if the history id differs from the id that the client knows. False if the server sends no id."""
    known_id, history_id = login.history_id, welcome.history_id
    return known_id is not None and history_id is not None and known_id != history_id


class JsonClient:
    """Requests are independent, and many may be unanswered at a time."""

    is_stepwise = False
    is_guest = False
    ping = Ping()

    def __init__(self) -> None:
        # Type of the answer that the next action has to wait for.
        self._awaited: type[Online | User] | None = None
        self._login = Login("")
        self._unconfirmed: tuple[Say | Whisper, ...] = ()

    @property
    def is_busy(self) -> bool:
        """True until the requested list of users, or the requested user, has arrived."""
        return self._awaited is not None

    def connect(self, login: Login, unconfirmed: Sequence[Say | Whisper]) -> Effects:
        """Send the login. The server then sends missed messages; nonces prevent duplicates of unconfirmed messages."""
        self._awaited = None
        self._login = login
        self._unconfirmed = (*unconfirmed,)
        return Effects((login,))

    def request(self, action: Action) -> Effects:
        """A public message needs no permission. Before a direct message the list of users is requested."""
        match action:
            case OpenPublic():
                return Effects(events=(Ready(),))
            case OpenDirect() | AskUsers():
                self._awaited = Online
                return Effects((AskUsers(),))
            case AskUser():
                self._awaited = User
                return Effects((action,))
            case _:
                return Effects((action,))

    def handle_event(self, event: Event) -> Effects:
        """Handle an event. A periodic list of users also counts as the answer to a request for the list."""
        match event:
            case Users(users=tuple(users), joined=(), left=()) if self._awaited is Online:
                self._awaited = None
                return Effects(events=(Online(users),))
            case User() | Refused(code=ErrorCode.UNKNOWN_COMMAND, nonce=None) if self._awaited is User:
                # Older servers don't know this request. They check the recipient when the message arrives.
                self._awaited = None
                return Effects(events=(Ready(),))
            case Welcome():
                return Effects(self._unconfirmed, (event, PossibleGap()) if self._has_gap(event) else (event,))
            case Refused(nonce=None):
                self._awaited = None
        return Effects(events=(event,))

    def _has_gap(self, welcome: Welcome) -> bool:
        """True if messages may be missing, because the server's history was reset or restored from a backup."""
        since, last_id = self._login.since, welcome.last_id
        if since is None:
            return False
        is_beyond = last_id is not None and last_id < since
        return welcome.since is not None or is_beyond or is_other_history(self._login, welcome)
