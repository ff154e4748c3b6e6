"""Requests of a client. A wire protocol decodes them from bytes, and the server's session answers them.

The structs with a tag are the wire format json (docs/wire/json.md): the tag is the member ``command``, and the fields
are the other members, in this order.
"""

from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Annotated, TypeAlias

from msgspec import Meta, Struct, field
from msgspec.structs import force_setattr

from chatprotocol.errors import ErrorCode
from chatprotocol.limits import HISTORY_DEFAULT_MESSAGES, HISTORY_MAX_MESSAGES, ID_MAX
from chatprotocol.rules import name_key

_Id: TypeAlias = Annotated[int, Meta(ge=0, le=ID_MAX)]
_Limit: TypeAlias = Annotated[int, Meta(ge=1, le=HISTORY_MAX_MESSAGES)]


class _Tagged(Struct, frozen=True, gc=False, omit_defaults=True, repr_omit_defaults=True, tag_field="command", tag=""):
    """A request of json."""


class Login(_Tagged, frozen=True, tag="login"):
    """Log in as ``username``; an unknown name is registered. Without a password the server prompts for one.

    ``since`` is the id of the last message that the client saw; the server sends the later ones. ``history_id``
    identifies the history of that id.
    """

    username: str
    password: str | None = None
    since: _Id | None = None
    history_id: str | None = None


class Password(_Tagged, frozen=True, tag="password"):
    """The answer to a :class:`~chatprotocol.events.PasswordPrompt`."""

    password: str


class Say(_Tagged, frozen=True, tag="PM"):
    """A public message. A repeated ``nonce`` of the same sender makes no second message."""

    text: str = field(name="message")
    nonce: str | None = None


class SayBatch(Struct, frozen=True, gc=False):
    """Several public messages without nonces, equivalent to several Say; all texts are valid (rules.check_text).

    Server only: the wire has single messages.
    """

    texts: Sequence[str]

    def __iter__(self) -> Iterator[Say]:
        return map(Say, self.texts)


class Whisper(_Tagged, frozen=True, tag="DM"):
    """A direct message to the user ``to``."""

    to: str
    text: str = field(name="message")
    nonce: str | None = None
    # Other names of the member ``to``. They are checked and then forgotten.
    recipient: str | None = None
    target: str | None = None

    def __post_init__(self) -> None:
        """Raise ValueError if the other names of ``to`` differ from it."""
        if self.recipient is None and self.target is None:
            return
        if len({name_key(name) for name in (self.to, self.recipient, self.target) if name is not None}) > 1:
            raise ValueError("`to` and its other names, `recipient` and `target`, differ")
        force_setattr(self, "recipient", None)
        force_setattr(self, "target", None)


class AskUsers(_Tagged, frozen=True, tag="users"):
    """Request the list of online users."""


class AskUser(_Tagged, frozen=True, tag="user"):
    """Request the status of one user, online or not."""

    username: str


class AskHistory(_Tagged, frozen=True, tag="CH"):
    """Request the last ``limit`` messages that the user may see, with ids below ``before``."""

    limit: _Limit = HISTORY_DEFAULT_MESSAGES
    before: _Id | None = None


class Search(_Tagged, frozen=True, tag="search"):
    """Request the last ``limit`` messages that contain all words and that the user may see, with ids below ``before``.

    ``word*`` matches a prefix.
    """

    words: str
    limit: _Limit = HISTORY_DEFAULT_MESSAGES
    before: _Id | None = None


class ChangePassword(_Tagged, frozen=True, tag="change_password"):
    """Replace the password of the logged-in account. ``old`` is its current password."""

    old: str
    new: str


class Ping(_Tagged, frozen=True, tag="ping"):
    """Keep-alive request; the reply is Pong."""


class Leave(_Tagged, frozen=True, tag="EX"):
    """Log out; the server replies Bye and closes the connection."""


TaggedRequest: TypeAlias = (
    Login | Password | Say | Whisper | AskUsers | AskUser | AskHistory | Search | ChangePassword | Ping | Leave
)


class StepLogin(Login, frozen=True):
    """A Login of a client that would take any error for the reply to its next step.

    The server sends such a client no unsolicited error.
    """


# --- requests of guests, who have two connections ---


class Side(StrEnum):
    """One of a user's two connections, named from the user's side."""

    SENDING = "TOSEND"
    RECEIVING = "TORECV"


class GuestLogin(Struct, frozen=True, gc=False):
    """Register this connection for the guest ``username``. The guest is online after both are registered."""

    side: Side
    username: str


class Acknowledge(Struct, frozen=True, gc=False):
    """Acknowledgement of a message from ``sender``, which some clients leave empty. None: the client could not read it.

    It has no answer.
    """

    sender: str | None


class Unreadable(Struct, frozen=True, gc=False):
    """Invalid input. The session replies with the error and logs it.

    ``closes`` is True if the decoder can't find the beginning of the next request.
    """

    code: ErrorCode
    reason: str
    nonce: str | None = None
    closes: bool = False


Request: TypeAlias = TaggedRequest | SayBatch | GuestLogin | Acknowledge | Unreadable
