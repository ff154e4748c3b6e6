"""Changes that an administrator asks for, and the answer: the lines of JSON on the socket."""

from __future__ import annotations

from typing import Any, TypeAlias

from msgspec import Struct


class AdminError(Exception):
    """A command is refused, and nothing has changed. The text is one sentence with the reason."""


class _Change(Struct, frozen=True, tag_field="command", forbid_unknown_fields=True):
    """Base of all requests."""


class Add(_Change, frozen=True, tag="add"):
    """Register a user."""

    user: str
    password_hash: str


class Password(_Change, frozen=True, tag="password"):
    """Replace a password."""

    user: str
    password_hash: str


class Sessions(_Change, frozen=True, tag="sessions"):
    """List the connections. It changes nothing, but only a running server knows them."""


ChangeRequest: TypeAlias = Add | Password | Sessions


class Answer(Struct, frozen=True, omit_defaults=True):
    """The answer to a request: its rows and a sentence, or an error."""

    rows: list[dict[str, Any]] = []
    # For people: what was done. Empty if the rows are the answer.
    done: str = ""
    error: str = ""
