"""Events of a server. The server encodes them in the wire protocol of each connection, and the client decodes them."""

from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from typing import Final, TypeAlias

from msgspec import Struct

from chatprotocol.errors import ErrorCode
from chatprotocol.requests import Side

# Reason of a Bye that replies to Leave.
YOU_LEFT: Final = "you left"


class AccountKind(StrEnum):
    """Kind of a name: registered by this login, registered before, or not registered."""

    NEW = "new"
    EXISTING = "existing"
    GUEST = "guest"


class SentStatus(StrEnum):
    """``stored``: the recipient is offline and gets the message at the next login."""

    SENT = "sent"
    STORED = "stored"


class PasswordPrompt(Struct, frozen=True, gc=False):
    """The server asks for the password of the account that the login named."""

    account: AccountKind


class Welcome(Struct, frozen=True):
    """The login succeeded. ``username`` has the registered spelling; ``last_id`` is the newest message (0 if none).

    Protocols that do not send these fields leave ``username`` and ``users`` empty and ``last_id`` None.

    ``history_id`` identifies the history that all ids belong to. ``since`` is set only if the login's ``since`` could
    not be used: the messages after this id follow, and earlier ones may be missing. ``seen_id`` is the newest message
    at the time when the user was last online; None if unknown.
    """

    account: AccountKind
    username: str
    users: tuple[str, ...]
    last_id: int | None
    history_id: str | None = None
    since: int | None = None
    seen_id: int | None = None


class PublicMessage(Struct, frozen=True, gc=False):
    """A message to all users. ``time_ms`` is milliseconds since 1970-01-01 UTC."""

    id: int
    time_ms: int
    sender: str
    text: str


class DirectMessage(Struct, frozen=True, gc=False):
    """A message to one user. ``recipient`` is empty in protocols that don't send it."""

    id: int
    time_ms: int
    sender: str
    recipient: str
    text: str


Message: TypeAlias = PublicMessage | DirectMessage


class PublicBatch(Struct, frozen=True, gc=False):
    """Consecutive public messages of one user, with consecutive ids from ``id``.

    Server only: the wire has single messages.
    """

    id: int
    time_ms: int
    sender: str
    texts: Sequence[str]

    def __iter__(self) -> Iterator[PublicMessage]:
        for message_id, text in enumerate(self.texts, self.id):
            yield PublicMessage(message_id, self.time_ms, self.sender, text)


class Users(Struct, frozen=True):
    """The online users, and the changes since the last update. In updates of a large room ``users`` is None."""

    count: int
    users: tuple[str, ...] | None
    joined: tuple[str, ...] = ()
    left: tuple[str, ...] = ()


class Online(Struct, frozen=True):
    """The answer to AskUsers: all online users."""

    users: tuple[str, ...]


class User(Struct, frozen=True, gc=False):
    """The answer to AskUser. ``username`` has the registered spelling."""

    username: str
    online: bool


class Ready(Struct, frozen=True, gc=False):
    """The server expects the text of a public message, in protocols that send it in two steps."""


class Sent(Struct, frozen=True, gc=False):
    """The answer to Say and Whisper: the message has its id and is on the disk."""

    id: int
    status: SentStatus
    nonce: str | None = None
    # True for a direct message if the recipient's protocol does not mark direct messages.
    looks_public: bool = False


class SentBatch(Struct, frozen=True, gc=False):
    """The confirmations of a batch: one for each nonce (or None), with consecutive ids from ``id``."""

    id: int
    nonces: Sequence[str | None]

    def __iter__(self) -> Iterator[Sent]:
        for message_id, nonce in enumerate(self.nonces, self.id):
            yield Sent(message_id, SentStatus.SENT, nonce)


class History(Struct, frozen=True):
    """The answer to AskHistory, oldest first."""

    messages: tuple[Message, ...]


class Found(Struct, frozen=True):
    """The answer to Search, oldest first. ``words`` repeats the request; ids up to ``upto`` were searched."""

    words: str
    messages: tuple[Message, ...]
    upto: int


class PasswordChanged(Struct, frozen=True, gc=False):
    """The answer to ChangePassword: the new password is on the disk, and the next login needs it."""


class Registered(Struct, frozen=True, gc=False):
    """The answer to Register."""

    side: Side
    username: str


class Forwarded(Struct, frozen=True, gc=False):
    """A message in a protocol that sends only sender and text. The client must reply with requests.Received."""

    sender: str
    text: str


class Delivered(Struct, frozen=True, gc=False):
    """The answer to Send: all recipients have the message. ``to`` repeats the request."""

    to: str


class NotDelivered(Struct, frozen=True, gc=False):
    """The answer to Send: a recipient does not have the message, or the name is unknown."""


class Refused(Struct, frozen=True, gc=False):
    """A request was rejected. ``about`` is the rejected name, if the error is about one."""

    code: ErrorCode
    reason: str
    nonce: str | None = None
    about: str | None = None


class Pong(Struct, frozen=True, gc=False):
    """The answer to Ping."""


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
# A batch, equivalent to several events.
EventBatch: TypeAlias = PublicBatch | SentBatch


def expand_batches(items: Iterable[Event | EventBatch]) -> Iterator[Event]:
    """The same events, with each batch replaced by its events."""
    for event in items:
        if isinstance(event, PublicBatch | SentBatch):
            yield from event
        else:
            yield event
