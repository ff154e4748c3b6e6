"""What a client can ask. A dialect turns bytes into these, the session answers them."""

from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import TypeAlias

from msgspec import Struct

from chatprotocol.errors import ErrorCode
from chatprotocol.limits import HISTORY_DEFAULT_MESSAGES


class Login(Struct, frozen=True, gc=False):
    """Come in as ``username``; an unknown name is registered. Without a password, one is asked for.

    ``since`` is the id of the last message that the client saw: what came after it is sent again. ``history_id`` is the
    identity of the history that it saw it in. Where a dialect tells that only to clients that ask for it,
    ``wants_history_id`` says whether this one does. If the client goes one step at a time, it takes an error for the
    answer to its next step, so none may be sent unasked.
    """

    username: str
    password: str | None = None
    since: int | None = None
    history_id: str | None = None
    wants_history_id: bool = True
    is_stepwise: bool = False


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


class AskUser(Struct, frozen=True, gc=False):
    """Is there a user of this name, online or not?"""

    username: str


class AskHistory(Struct, frozen=True, gc=False):
    """The last ``limit`` messages that the client may see, of those with an id below ``before``."""

    limit: int = HISTORY_DEFAULT_MESSAGES
    before: int | None = None


class Search(Struct, frozen=True, gc=False):
    """The last ``limit`` messages with all of these words that the client may see, below ``before``.

    ``word*`` stands for all words that begin so.
    """

    words: str
    limit: int = HISTORY_DEFAULT_MESSAGES
    before: int | None = None


class ChangePassword(Struct, frozen=True, gc=False):
    """Replace the password of the account that is logged in. ``old`` is its password until now."""

    old: str
    new: str


class Ping(Struct, frozen=True, gc=False):
    """Is the server alive?"""


class Leave(Struct, frozen=True, gc=False):
    """Say goodbye and close."""


# --- where a request is made step by step ---


class Command(Struct, frozen=True, gc=False):
    """One step of a dialogue: a name, a password, an operation or a recipient, depending on what went before."""

    text: str


class Data(Struct, frozen=True, gc=False):
    """One step of a dialogue: the text of a message."""

    text: str


class CommandBatch(Struct, frozen=True, gc=False):
    """The same command several times, each time with data right behind it.

    For the server: on the wire they are single steps.
    """

    text: str
    data: Sequence[str]

    def __iter__(self) -> Iterator[Command | Data]:
        command = Command(self.text)
        for text in self.data:
            yield command
            yield Data(text)


# --- where a user has two connections ---


class Side(StrEnum):
    """Which of its two connections it is, seen from the user."""

    SENDING = "TOSEND"
    RECEIVING = "TORECV"


class Register(Struct, frozen=True, gc=False):
    """Come in as the guest ``username`` with this connection; once both are there, the user is."""

    side: Side
    username: str


class Send(Struct, frozen=True, gc=False):
    """A message to the user ``to``, or to everybody."""

    to: str
    text: str


class Received(Struct, frozen=True, gc=False):
    """The message that ``sender`` wrote has come. Some don't say whose it was."""

    sender: str


class NotReceived(Struct, frozen=True, gc=False):
    """The message that was given to this user could not be read."""


class Unreadable(Struct, frozen=True, gc=False):
    """What was no request, or not in its place: the session answers what was wrong, and logs it.

    ``closes`` is true where the dialect can't tell any more where the next request begins.
    """

    code: ErrorCode
    reason: str
    nonce: str | None = None
    closes: bool = False


Request: TypeAlias = (
    Login
    | Password
    | Say
    | Whisper
    | AskUsers
    | AskUser
    | AskHistory
    | Search
    | ChangePassword
    | Ping
    | Leave
    | Command
    | Data
    | CommandBatch
    | Register
    | Send
    | Received
    | NotReceived
    | Unreadable
)
