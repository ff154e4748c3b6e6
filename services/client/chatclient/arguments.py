"""Checks of a program's arguments. Pure. Each check raises UsageError.

Without these checks a wrong type would fail later, with an error that names neither the argument nor the call.
"""

import reprlib
from collections.abc import Collection
from typing import TypeGuard

from chatclient.errors import UsageError
from chatprotocol.limits import ID_MAX
from chatprotocol.rules import PORT_MAX


def check_str(name: str, value: object) -> None:
    """Check for str. The error does not show the value, because it may be a password."""
    if not isinstance(value, str):
        advice = "; decode it first" if isinstance(value, bytes | bytearray) else ""
        raise UsageError(f"{name} is of the type {type(value).__name__}; it must be str{advice}.")


def check_servers(name: str, value: object) -> str:
    """Check for a text, or a list of at least one. Returns the list as a text with commas."""
    items = value if isinstance(value, list | tuple) else [value]
    for item in items:
        check_str(name, item)
    texts = [str(item) for item in items]
    if not texts or not all(texts):
        raise UsageError(f"{name} is {_short_repr(value)}; it must name a server, or a list of servers.")
    return ",".join(texts)


def check_flag(name: str, value: object) -> None:
    """Check for bool."""
    if not isinstance(value, bool):
        raise UsageError(f"{name} is {_short_repr(value)}; it must be True or False.")


def check_whole(name: str, value: object) -> None:
    """Check for an int that every protocol can send. The server checks its range."""
    if not _is_number(value, int) or not -ID_MAX <= value <= ID_MAX:
        raise UsageError(f"{name} is {_short_repr(value)}; it must be a whole number (int) of 64 bits at most.")


def check_port(name: str, value: object) -> None:
    """Check for a valid port number."""
    if not _is_number(value, int) or not 1 <= value <= PORT_MAX:
        raise UsageError(f"{name} is {_short_repr(value)}; it must be a whole number (int) from 1 to {PORT_MAX}.")


def check_seconds(name: str, value: object, most: float) -> None:
    """Check for a number of seconds. NaN is rejected."""
    if not _is_number(value, int, float) or not 0 <= value <= most:
        raise UsageError(f"{name} is {_short_repr(value)}; it must be a number of seconds from 0 to {most:g}.")


def check_choice(name: str, value: object, choices: Collection[str]) -> None:
    """Check for one of the choices."""
    if not isinstance(value, str) or value not in choices:
        raise UsageError(f"{name} is {_short_repr(value)}; it must be one of {', '.join(map(repr, choices))}.")


def _is_number(value: object, *kinds: type) -> TypeGuard[float]:
    """True for a number of these types, except bool."""
    return isinstance(value, kinds) and not isinstance(value, bool)


def _short_repr(value: object) -> str:
    """A short representation of any value."""
    try:
        return reprlib.repr(value)
    except ValueError:  # an int with thousands of digits
        return f"an {type(value).__name__} that is too long to be shown"
