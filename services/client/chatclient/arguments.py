"""Checks of what a program hands in, before anything is done with it. Pure. Each raises UsageError.

Without them a wrong type would fail far below, with an error that names neither the argument nor the call.
"""

from __future__ import annotations

import reprlib
from typing import TYPE_CHECKING, TypeGuard

from chatclient.errors import UsageError
from chatprotocol.limits import ID_MAX
from chatprotocol.rules import PORT_MAX

if TYPE_CHECKING:
    from collections.abc import Collection


def check_str(name: str, value: object) -> None:
    """The error shows no value: it may be a password."""
    if not isinstance(value, str):
        cure = "; decode it first" if isinstance(value, bytes | bytearray) else ""
        raise UsageError(f"{name} is of the type {type(value).__name__}; it must be str{cure}.")


def check_whole(name: str, value: object) -> None:
    """Of the size that every dialect carries; which numbers make sense is for the server to say."""
    if not _is_number(value, int) or not -ID_MAX <= value <= ID_MAX:
        raise UsageError(f"{name} is {_shown(value)}; it must be a whole number (int) of 64 bits at most.")


def check_port(name: str, value: object) -> None:
    """A number that one can connect to."""
    if not _is_number(value, int) or not 1 <= value <= PORT_MAX:
        raise UsageError(f"{name} is {_shown(value)}; it must be a whole number (int) from 1 to {PORT_MAX}.")


def check_seconds(name: str, value: object, most: float) -> None:
    """Not a number (NaN) is none, either."""
    if not _is_number(value, int, float) or not 0 <= value <= most:
        raise UsageError(f"{name} is {_shown(value)}; it must be a number of seconds from 0 to {most:g}.")


def check_choice(name: str, value: object, choices: Collection[str]) -> None:
    """One of these words."""
    if not isinstance(value, str) or value not in choices:
        raise UsageError(f"{name} is {_shown(value)}; it must be one of {', '.join(map(repr, choices))}.")


def _is_number(value: object, *kinds: type) -> TypeGuard[float]:
    """True and False are no numbers here."""
    return isinstance(value, kinds) and not isinstance(value, bool)


def _shown(value: object) -> str:
    """Short, whatever it is."""
    try:
        return reprlib.repr(value)
    except ValueError:  # a number of thousands of digits
        return f"an {type(value).__name__} that is too long to be shown"
