"""The words of a typed line, and their checks. Pure."""

from chatprotocol import rules
from chatprotocol.errors import RequestError


class InputError(Exception):
    """A line that can't be used. The text says why, and that nothing was done."""


def first_word(line: str) -> tuple[str, str]:
    """The first word and the rest, which may have several lines."""
    word, *rest = line.split(maxsplit=1)[:2] or [""]
    return word, rest[0] if rest else ""


def checked_room(room: str) -> str:
    try:
        rules.check_room_name(room)
    except RequestError as refused:
        raise InputError(f"{refused.reason} Nothing was done.") from None
    return room


def checked_recipient(name: str) -> str:
    """The name, if it can be a username. ALL is valid: it means all users."""
    try:
        if not rules.is_everyone(name):
            rules.check_username(name)
    except RequestError as refused:
        raise InputError(f"{refused.reason} Nothing was sent.") from None
    return name


def checked_user(word: str) -> str:
    """The name of a user, typed as ``bob`` or ``@bob``."""
    name = word.removeprefix("@")
    if not name:
        raise InputError("Nothing was done; name a user.")
    try:
        rules.check_username(name)
    except RequestError as refused:
        raise InputError(f"{refused.reason} Nothing was done.") from None
    return name
