"""What a client can ask. A dialect turns bytes into these, the session answers them."""

from typing import TypeAlias

from msgspec import Struct

from chatprotocol.errors import ErrorCode
from chatprotocol.limits import HISTORY_DEFAULT_MESSAGES


class Login(Struct, frozen=True, gc=False):
    """Come in as ``username``; an unknown name is registered. Without a password, one is asked for.

    ``since`` is the id of the last message that the client saw: what came after it is sent again.
    """

    username: str
    password: str | None = None
    since: int | None = None


class Password(Struct, frozen=True, gc=False):
    """The answer to a :class:`~chatprotocol.events.PasswordPrompt`."""

    password: str


class Say(Struct, frozen=True, gc=False):
    """A public message. The same sender's same ``nonce`` makes one message, however often it is sent."""

    text: str
    nonce: str | None = None


class Whisper(Struct, frozen=True, gc=False):
    """A direct message to the user ``to``."""

    to: str
    text: str
    nonce: str | None = None


class AskUsers(Struct, frozen=True, gc=False):
    """Who is online?"""


class AskHistory(Struct, frozen=True, gc=False):
    """The last ``limit`` messages that the client may see, of those with an id below ``before``."""

    limit: int = HISTORY_DEFAULT_MESSAGES
    before: int | None = None


class Ping(Struct, frozen=True, gc=False):
    """Is the server alive?"""


class Leave(Struct, frozen=True, gc=False):
    """Say goodbye and close."""


class Unreadable(Struct, frozen=True, gc=False):
    """Bytes that were no request. The dialect says what was wrong; the session answers, and logs it.

    ``closes`` is true where the dialect can't tell any more where the next request begins.
    """

    code: ErrorCode
    reason: str
    nonce: str | None = None
    closes: bool = False


Request: TypeAlias = Login | Password | Say | Whisper | AskUsers | AskHistory | Ping | Leave | Unreadable
