"""Requests of a client. A wire protocol decodes them from bytes, and the server's session answers them."""

from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import TypeAlias

from msgspec import Struct

from chatprotocol.errors import ErrorCode
from chatprotocol.limits import HISTORY_DEFAULT_MESSAGES


class Login(Struct, frozen=True, gc=False):
    """Log in as ``username``; an unknown name is registered. Without a password the server prompts for one.

    ``since`` is the id of the last message that the client saw; the server sends the later ones. ``history_id``
    identifies the history of that id. ``is_stepwise`` is True if the client would take any error for the reply to its
    next step. The server sends such a client no unsolicited error.
    """

    username: str
    password: str | None = None
    since: int | None = None
    history_id: str | None = None
    is_stepwise: bool = False


class Password(Struct, frozen=True, gc=False):
    """The answer to a :class:`~chatprotocol.events.PasswordPrompt`."""

    password: str


class Say(Struct, frozen=True, gc=False):
    """A public message. A repeated ``nonce`` of the same sender makes no second message."""

    text: str
    nonce: str | None = None


class SayBatch(Struct, frozen=True, gc=False):
    """Several public messages without nonces, equivalent to several Say; all texts are valid (rules.check_text).

    Server only: the wire has single messages.
    """

    texts: Sequence[str]

    def __iter__(self) -> Iterator[Say]:
        return map(Say, self.texts)


class Whisper(Struct, frozen=True, gc=False):
    """A direct message to the user ``to``."""

    to: str
    text: str
    nonce: str | None = None


class AskUsers(Struct, frozen=True, gc=False):
    """Request the list of online users."""


class AskUser(Struct, frozen=True, gc=False):
    """Request the status of one user, online or not."""

    username: str


class AskHistory(Struct, frozen=True, gc=False):
    """Request the last ``limit`` messages that the user may see, with ids below ``before``."""

    limit: int = HISTORY_DEFAULT_MESSAGES
    before: int | None = None


class Search(Struct, frozen=True, gc=False):
    """Request the last ``limit`` messages that contain all words and that the user may see, with ids below ``before``.

    ``word*`` matches a prefix.
    """

    words: str
    limit: int = HISTORY_DEFAULT_MESSAGES
    before: int | None = None


class ChangePassword(Struct, frozen=True, gc=False):
    """Replace the password of the logged-in account. ``old`` is its current password."""

    old: str
    new: str


class Ping(Struct, frozen=True, gc=False):
    """Keep-alive request; the reply is Pong."""


class Leave(Struct, frozen=True, gc=False):
    """Log out; the server replies Bye and closes the connection."""


# --- requests of register, with two connections per user ---


class Side(StrEnum):
    """One of a user's two connections, named from the user's side."""

    SENDING = "TOSEND"
    RECEIVING = "TORECV"


class Register(Struct, frozen=True, gc=False):
    """Register this connection for the guest ``username``. The guest is online after both are registered."""

    side: Side
    username: str


class Send(Struct, frozen=True, gc=False):
    """A message to the user ``to``, or to all users."""

    to: str
    text: str


class Received(Struct, frozen=True, gc=False):
    """Acknowledgement of a message from ``sender``, which some clients leave empty."""

    sender: str


class NotReceived(Struct, frozen=True, gc=False):
    """Negative acknowledgement: the client could not read the message."""


class Unreadable(Struct, frozen=True, gc=False):
    """Invalid input. The session replies with the error and logs it.

    ``closes`` is True if the decoder can't find the beginning of the next request.
    """

    code: ErrorCode
    reason: str
    nonce: str | None = None
    closes: bool = False


Request: TypeAlias = (
    Login
    | Password
    | Say
    | SayBatch
    | Whisper
    | AskUsers
    | AskUser
    | AskHistory
    | Search
    | ChangePassword
    | Ping
    | Leave
    | Register
    | Send
    | Received
    | NotReceived
    | Unreadable
)
