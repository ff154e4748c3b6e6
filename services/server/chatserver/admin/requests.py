"""Changes that an administrator asks for, and the answer: the lines of JSON on the socket.

The bounds of the numbers are those of the store: an entry with a larger one could not be applied, and would end the
journal.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

from msgspec import Meta, Struct

from chatprotocol.limits import ID_MAX, SANCTION_MAX_SECONDS

_Seconds: TypeAlias = Annotated[int, Meta(ge=1, le=SANCTION_MAX_SECONDS)]
# The next id exists.
_Id: TypeAlias = Annotated[int, Meta(ge=0, lt=ID_MAX)]
# Up to the year 9999, the last that can be written.
_Milliseconds: TypeAlias = Annotated[int, Meta(ge=0, lt=253_402_300_800_000)]


class AdminError(Exception):
    """A command is refused, and nothing has changed. The text is one sentence with the reason."""


class _Change(Struct, frozen=True, tag_field="command", forbid_unknown_fields=True):
    """Base of all requests."""


class Add(_Change, frozen=True, tag="add"):
    """Register a user."""

    user: str
    password_hash: str


class Password(_Change, frozen=True, tag="password"):
    """Replace a password, and end the connections of the user."""

    user: str
    password_hash: str
    # True if the next login must bring a new one.
    must_change: bool


class Operator(_Change, frozen=True, tag="operator"):
    """Make a user an operator of the server, or a user without a role."""

    user: str
    is_operator: bool


class Ban(_Change, frozen=True, tag="ban"):
    """Keep a user, or an address or a network, out of the server. ``seconds`` is None for ever."""

    target: str
    seconds: _Seconds | None
    reason: str


class Unban(_Change, frozen=True, tag="unban"):
    """End a ban."""

    target: str


class Kick(_Change, frozen=True, tag="kick"):
    """End the connections of a user."""

    user: str
    reason: str


class DeleteUser(_Change, frozen=True, tag="delete-user"):
    """Close an account. ``erases`` is for the audit table: the messages are erased by EraseStep."""

    user: str
    erases: bool


class EraseStep(_Change, frozen=True, tag="erase-step"):
    """Erase some messages of a closed account. The row of the answer has ``after_id`` for the next step."""

    account_id: _Id
    after_id: _Id


class PruneStep(_Change, frozen=True, tag="prune-step"):
    """Delete some messages that are older than this. The row of the answer has ``after_id`` for the next step."""

    before_ms: _Milliseconds
    after_id: _Id


class AddToken(_Change, frozen=True, tag="token"):
    """Add a session token to a user."""

    user: str
    token_hash: str
    token_id: str
    label: str


class Revoke(_Change, frozen=True, tag="revoke"):
    """Revoke a session token of a user, or without an id all of them."""

    user: str
    token_id: str


class Invite(_Change, frozen=True, tag="invite"):
    """Add an invitation. ``seconds`` is None for ever."""

    code_hash: str
    seconds: _Seconds | None


class Sessions(_Change, frozen=True, tag="sessions"):
    """List the connections. It changes nothing, but only a running server knows them."""


ChangeRequest: TypeAlias = (
    Add
    | Password
    | Operator
    | Ban
    | Unban
    | Kick
    | DeleteUser
    | EraseStep
    | PruneStep
    | AddToken
    | Revoke
    | Invite
    | Sessions
)


class Answer(Struct, frozen=True, omit_defaults=True):
    """The answer to a request: its rows and a sentence, or an error."""

    rows: list[dict[str, Any]] = []
    # For people: what was done. Empty if the rows are the answer.
    done: str = ""
    error: str = ""
