"""Entries of the journal: changes of the store, as ids, names, texts, nonces and hashes.

An entry is a value. It can be stored, sent to another server and applied there, so it refers to no object in memory,
and does not change after it was appended. Its *outcome* is decided when it is applied (``apply.py``). The type argument
of its base is the type of the outcome.

The tag is the name of an entry outside of Python. It never changes.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar, Generic, TypeAlias, TypeVar

from msgspec import Struct

from chatprotocol.events import RoomRole  # noqa: TC001 -- msgspec evaluates it
from chatserver.store.accounts import Account
from chatserver.store.rooms import LOBBY_ID

_OutcomeT_co = TypeVar("_OutcomeT_co", covariant=True)


class Entry(Struct, Generic[_OutcomeT_co], frozen=True, gc=False, omit_defaults=True):
    """Base of all entries."""

    # True if a commit may wait a few milliseconds for more of these.
    is_gathered: ClassVar[bool] = False

    @property
    def size(self) -> int:
        """Number of messages in the entry; 1 if it has none."""
        return 1


class Stored(Struct, frozen=True, gc=False):
    """Consecutive messages of an entry, from ``start`` to before ``stop``, and the id of the first of them."""

    start: int
    stop: int
    id: int
    # True if the sender used the nonce before: a single message, with the id of the earlier one.
    is_repeated: bool = False


class RoomProblem(StrEnum):
    """The reason why an entry about a room changed nothing."""

    # There is no such room, or it is private and the acting account is neither a member nor invited.
    UNKNOWN_ROOM = "unknown_room"
    # The acting account is not a member.
    NOT_A_MEMBER = "not_a_member"
    # The account that the entry is about is not a member.
    USER_NOT_A_MEMBER = "user_not_a_member"
    # The acting account has no role for this, or it can't be done to the other one.
    NOT_PERMITTED = "not_permitted"
    # The account has too many rooms, the room too many members, or the server too many rooms.
    TOO_MANY_ROOMS = "too_many_rooms"


class MessageBatch(Entry[tuple[Stored, ...] | RoomProblem], frozen=True, gc=False):
    """Consecutive messages of one sender. Outcome: all of them, in parts; or why none was stored."""

    is_gathered: ClassVar[bool] = True

    sender_id: int
    sender: str
    texts: list[str]
    # One for each text; None if the client sent no nonce.
    nonces: list[str | None]

    @property
    def size(self) -> int:
        """Number of messages."""
        return len(self.texts)


class PublicMessages(MessageBatch, frozen=True, gc=False, tag="public"):
    """Messages to the members of a room, whose sender must be one; all users are in the lobby."""

    room_id: int = LOBBY_ID
    # The name of the room in the sender's spelling, repeated in errors. Empty for the lobby.
    room: str = ""


class DirectMessage(MessageBatch, frozen=True, gc=False, tag="direct", kw_only=True):
    """A single message to one user."""

    recipient_id: int
    recipient: str
    # The recipient's claim of its name if it is a guest: see Account. It is not for a later guest of that name.
    recipient_claim: int = 0


class DeliveryMark(Entry[None], frozen=True, gc=False, tag="mark"):
    """A device of the user has all direct messages up to this one."""

    account_id: int
    message_id: int


class NewAccount(Entry[Account | None], frozen=True, gc=False, tag="account"):
    """A name is registered. Outcome: the account; None if an account or a guest has the name."""

    name: str
    password_hash: str


class PasswordChange(Entry[bool], frozen=True, gc=False, tag="password"):
    """A password hash is replaced. Outcome: False if the account's hash is no longer the old one."""

    account_id: int
    old_hash: str
    new_hash: str


class GuestClaim(Entry[Account | None], frozen=True, gc=False, tag="guest"):
    """A guest takes a name. Outcome: its row and claim; None if an account or another guest has the name."""

    name: str


class GuestRelease(Entry[None], frozen=True, gc=False, tag="guest_gone"):
    """A guest has left: the claim of this number ends."""

    name: str
    claim: int


class ServerStart(Entry[None], frozen=True, gc=False, tag="start"):
    """The server starts: the guests of its former run have left."""


class RoomChange(Struct, frozen=True, gc=False):
    """A room after an entry, and what the entry changed. The target is the account that the entry is about."""

    room_id: int
    name: str
    topic: str
    is_private: bool
    # The newest message in the room; 0 if there is none.
    last_id: int
    # Roles of the target, before and now; None if it is not a member, but perhaps invited.
    old_role: RoomRole | None = None
    role: RoomRole | None = None
    # True if the entry made the room.
    is_new: bool = False
    # False if all was so before.
    is_changed: bool = True
    # The account that became the owner, because the owner left.
    heir_id: int = 0
    heir: str = ""
    # True if the last member left. The name is free now.
    has_ended: bool = False


RoomOutcome: TypeAlias = RoomChange | RoomProblem


class RoomEntry(Entry[RoomOutcome], frozen=True, gc=False):
    """A change of a room or its members, which the hub publishes."""


class JoinRoom(RoomEntry, frozen=True, gc=False, tag="join"):
    """An account becomes a member of the room of this name. A new name makes a room if ``may_create``."""

    account_id: int
    username: str
    room: str
    # Used only if the room is new.
    is_private: bool
    may_create: bool


class PartRoom(RoomEntry, frozen=True, gc=False, tag="part"):
    """A member leaves. The room ends with its last member."""

    account_id: int
    username: str
    room_id: int


class SetTopic(RoomEntry, frozen=True, gc=False, tag="topic"):
    """The topic is replaced, by the owner or an operator."""

    room_id: int
    topic: str
    by_id: int
    by: str


class _AboutUser(RoomEntry, frozen=True, gc=False):
    """A change by the owner or an operator that is about one account."""

    room_id: int
    account_id: int
    username: str
    by_id: int
    by: str


class KickMember(_AboutUser, frozen=True, gc=False, tag="kick"):
    """A member or an invitation is removed."""


class InviteUser(_AboutUser, frozen=True, gc=False, tag="invite"):
    """An account may join, and learns of the room."""


class SetRole(_AboutUser, frozen=True, gc=False, tag="role"):
    """A member becomes an operator, or a member without a role."""

    role: RoomRole
