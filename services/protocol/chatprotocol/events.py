"""What a server can say. The server encodes these in each connection's dialect, the client decodes them."""

from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from typing import Final, TypeAlias

from msgspec import Struct

from chatprotocol.errors import ErrorCode
from chatprotocol.requests import Side

# The reason of the goodbye to somebody who said goodbye.
YOU_LEFT: Final = "you left"


class AccountKind(StrEnum):
    """Whether a name was registered by this login, or before it, or not at all."""

    NEW = "new"
    EXISTING = "existing"
    GUEST = "guest"


class SentStatus(StrEnum):
    """``stored`` says that the recipient is not online, and gets the message at the next login."""

    SENT = "sent"
    STORED = "stored"


class PasswordPrompt(Struct, frozen=True, gc=False):
    """The server asks for the password of the account that the login named."""

    account: AccountKind


class Welcome(Struct, frozen=True):
    """Logged in. ``username`` is spelled as it was registered; ``last_id`` is the room's newest message (0: none).

    A dialect that does not tell these leaves the first two empty, and the last one None.

    ``history_id`` is the identity of the history that ids belong to. ``since`` is None, unless the login's ``since``
    could not be used: then what came after this message follows, and more may have been missed. ``seen_id`` is the
    newest message of the time when the user was last in the room; None if that is not known.
    """

    account: AccountKind
    username: str
    users: tuple[str, ...]
    last_id: int | None
    history_id: str | None = None
    since: int | None = None
    seen_id: int | None = None


class PublicMessage(Struct, frozen=True, gc=False):
    """A message to everybody. ``time_ms`` is milliseconds since 1970-01-01 UTC."""

    id: int
    time_ms: int
    sender: str
    text: str


class DirectMessage(Struct, frozen=True, gc=False):
    """A message to one user. A dialect that does not tell the recipient leaves it empty."""

    id: int
    time_ms: int
    sender: str
    recipient: str
    text: str


Message: TypeAlias = PublicMessage | DirectMessage


class PublicBatch(Struct, frozen=True, gc=False):
    """Public messages that one user said in a row: ``id`` is of the first, the others have those that follow.

    For the server: on the wire there are single messages.
    """

    id: int
    time_ms: int
    sender: str
    texts: Sequence[str]

    def __iter__(self) -> Iterator[PublicMessage]:
        for message_id, text in enumerate(self.texts, self.id):
            yield PublicMessage(message_id, self.time_ms, self.sender, text)


class Users(Struct, frozen=True):
    """Who is online, and who came and went since the last update. In a large room ``users`` is None in updates."""

    count: int
    users: tuple[str, ...] | None
    joined: tuple[str, ...] = ()
    left: tuple[str, ...] = ()


class Online(Struct, frozen=True):
    """The answer to AskUsers: who is online."""

    users: tuple[str, ...]


class User(Struct, frozen=True, gc=False):
    """The answer to AskUser: there is this user, spelled as it was registered."""

    username: str
    online: bool


class Ready(Struct, frozen=True, gc=False):
    """Where a public message takes two steps: go on with its text."""


class Sent(Struct, frozen=True, gc=False):
    """The confirmation: the message has its id and is on the disk."""

    id: int
    status: SentStatus
    nonce: str | None = None
    # A direct message, to somebody whose dialect does not say which messages are direct.
    looks_public: bool = False


class SentBatch(Struct, frozen=True, gc=False):
    """The confirmations of a run: of a message for each nonce (or None), with the ids from ``id`` on."""

    id: int
    nonces: Sequence[str | None]

    def __iter__(self) -> Iterator[Sent]:
        for message_id, nonce in enumerate(self.nonces, self.id):
            yield Sent(message_id, SentStatus.SENT, nonce)


class History(Struct, frozen=True):
    """The answer to AskHistory, oldest first."""

    messages: tuple[Message, ...]


class Found(Struct, frozen=True):
    """The answer to Search, oldest first. ``words`` is as it was sent.

    Messages up to the id ``upto`` were looked through.
    """

    words: str
    messages: tuple[Message, ...]
    upto: int


class PasswordChanged(Struct, frozen=True, gc=False):
    """The answer to ChangePassword: the new one is on the disk, and the next login needs it."""


class Registered(Struct, frozen=True, gc=False):
    """The answer to Register: this connection is the user's."""

    side: Side
    username: str


class Forwarded(Struct, frozen=True, gc=False):
    """A message, in a dialect that tells no more of it than who wrote what. It is answered: see requests.Received."""

    sender: str
    text: str


class Delivered(Struct, frozen=True, gc=False):
    """The answer to Send: all that it was for have it. ``to`` is spelled as it was sent."""

    to: str


class NotDelivered(Struct, frozen=True, gc=False):
    """The answer to Send: not all that it was for have it, or there is nobody of that name."""


class Refused(Struct, frozen=True, gc=False):
    """A request was refused. ``about`` is the name that it was refused for, where it was one."""

    code: ErrorCode
    reason: str
    nonce: str | None = None
    about: str | None = None


class Pong(Struct, frozen=True, gc=False):
    """Alive."""


class Bye(Struct, frozen=True, gc=False):
    """The server is about to close the connection."""

    reason: str


Event: TypeAlias = (
    PasswordPrompt
    | Welcome
    | PublicMessage
    | DirectMessage
    | Users
    | Online
    | User
    | Ready
    | Sent
    | History
    | Found
    | PasswordChanged
    | Registered
    | Forwarded
    | Delivered
    | NotDelivered
    | Refused
    | Pong
    | Bye
)
# What stands for several events.
Run: TypeAlias = PublicBatch | SentBatch


def one_by_one(said: Iterable[Event | Run]) -> Iterator[Event]:
    """The same events, each message of a run by itself."""
    for event in said:
        if isinstance(event, PublicBatch | SentBatch):
            yield from event
        else:
            yield event
