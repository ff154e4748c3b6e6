"""The exchange: how wishes become requests, and what the server says becomes news. Pure.

In most dialects each request stands for itself; where they are dialogues, see steps.py, and for guests guest.py.
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
    """Somebody is about to say something to everybody. The answer is Ready."""


class OpenDirect(NamedTuple):
    """Somebody is about to write to one user. The answer is Online: who is there to be written to."""


class PossibleGap(NamedTuple):
    """There may be more that was missed than can be told."""

    # Does the dialect let us look at the history?
    has_history: bool = True


class DeliveryUnknown(NamedTuple):
    """Nobody can tell whether this message, which was sent and not confirmed, was stored. It is not sent again."""

    said: Say | Whisper
    has_history: bool = True


class Outcome(NamedTuple):
    """Whether everybody for whom this message was has taken it, where a dialect tells that."""

    said: Say | Whisper
    has_come: bool


Action: TypeAlias = "Request | OpenPublic | OpenDirect"
ClientEvent: TypeAlias = "Event | PossibleGap | DeliveryUnknown | Outcome"


class Effects(NamedTuple):
    """What follows from a wish or from what the server said: what to send, and what there is to be known."""

    send: tuple[Request, ...] = ()
    news: tuple[ClientEvent, ...] = ()


class ClientProtocol(Protocol):
    """Serves one client on one connection after the other."""

    @property
    def is_stepwise(self) -> bool:
        """Is one operation done before the next one begins?"""

    @property
    def is_guest(self) -> bool:
        """Is it enough to have a name? Then another one is asked for where one is refused."""

    @property
    def is_busy(self) -> bool:
        """Is there an answer that the next wish has to wait for?"""

    @property
    def ping(self) -> Request | None:
        """What a user who is in can ask for a sign of life, if it disturbs nothing now. The collector reads it, too."""

    def connect(self, login: Login, unconfirmed: Sequence[Say | Whisper]) -> Effects:
        """A connection stands: come in, and then send what was not confirmed on the one before, each once."""

    def request(self, action: Action) -> Effects:
        """Somebody wants something."""

    def handle_event(self, event: Event) -> Effects:
        """The server said something."""


def is_other_history(login: Login, welcome: Welcome) -> bool:
    """Does the server have another history than the one that the client knew? Some servers tell no identity of it."""
    known_id, history_id = login.history_id, welcome.history_id
    return known_id is not None and history_id is not None and known_id != history_id


class JsonClient:
    """Every request stands for itself, and many may be under way."""

    is_stepwise = False
    is_guest = False
    ping = Ping()

    def __init__(self) -> None:
        # The answer that the next wish has to wait for.
        self._awaited: type[Online | User] | None = None
        self._login = Login("")
        self._unconfirmed: tuple[Say | Whisper, ...] = ()

    @property
    def is_busy(self) -> bool:
        """True until a list of users, or one that was asked for by name, has come."""
        return self._awaited is not None

    def connect(self, login: Login, unconfirmed: Sequence[Say | Whisper]) -> Effects:
        """A login says it all: the server sends what was missed. Nonces keep it from storing anything twice."""
        self._awaited = None
        self._login = login
        self._unconfirmed = (*unconfirmed,)
        return Effects((login,))

    def request(self, action: Action) -> Effects:
        """Who is about to speak needs no permission; who is about to write to one user is shown who is there."""
        match action:
            case OpenPublic():
                return Effects(news=(Ready(),))
            case OpenDirect() | AskUsers():
                self._awaited = Online
                return Effects((AskUsers(),))
            case AskUser():
                self._awaited = User
                return Effects((action,))
            case _:
                return Effects((action,))

    def handle_event(self, event: Event) -> Effects:
        """Who is online is said from time to time; where it was asked for, it is the answer."""
        match event:
            case Users(users=tuple(users), joined=(), left=()) if self._awaited is Online:
                self._awaited = None
                return Effects(news=(Online(users),))
            case User() | Refused(code=ErrorCode.UNKNOWN_COMMAND, nonce=None) if self._awaited is User:
                # A server of before doesn't know the question. It will refuse the message, if it must.
                self._awaited = None
                return Effects(news=(Ready(),))
            case Welcome():
                return Effects(self._unconfirmed, (event, PossibleGap()) if self._has_gap(event) else (event,))
            case Refused(nonce=None):
                self._awaited = None
        return Effects(news=(event,))

    def _has_gap(self, welcome: Welcome) -> bool:
        """May messages be lost to this client, because the server began anew or was restored from a backup?"""
        since, last_id = self._login.since, welcome.last_id
        if since is None:
            return False
        is_beyond = last_id is not None and last_id < since
        return welcome.since is not None or is_beyond or is_other_history(self._login, welcome)
