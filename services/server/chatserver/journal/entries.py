"""Entries of the journal: what happened, in ids, names, texts, nonces and hashes.

An entry is a value: it can be stored, sent to another server and applied there, so it refers to nothing in memory. It
does not change after it was appended. What comes of it, the outcome, is decided when it is applied (``apply.py``); the
type argument of its base is the type of the outcome.

The tag is the name of an entry outside of Python. It never changes.
"""

from __future__ import annotations

from typing import ClassVar, Generic, TypeVar

from msgspec import Struct

from chatserver.store.accounts import Account

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


class MessageBatch(Entry[tuple[Stored, ...]], frozen=True, gc=False):
    """Consecutive messages of one sender. Outcome: all of them, in parts."""

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
    """Messages to all users."""


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
