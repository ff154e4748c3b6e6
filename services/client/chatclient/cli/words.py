"""The words of a typed line, and their checks. Pure."""

from collections.abc import Callable

from chatprotocol import rules
from chatprotocol.errors import RequestError


class InputError(Exception):
    """A line that can't be used. The text says why, and that nothing was done."""


def first_word(line: str) -> tuple[str, str]:
    """The first word and the rest, which may have several lines."""
    word, *rest = line.split(maxsplit=1)[:2] or [""]
    return word, rest[0] if rest else ""


def checked(check: Callable[[str], object], text: str, outcome: str = "") -> str:
    """The text, if ``check`` raises no RequestError. The InputError has its reason, and then the outcome."""
    try:
        check(text)
    except RequestError as refused:
        raise InputError(f"{refused.reason} {outcome}".rstrip()) from None
    return text


def checked_room(room: str) -> str:
    return checked(rules.check_room_name, room, "Nothing was done.")


def checked_recipient(name: str) -> str:
    """The name, if it can be a username. ALL is valid: it means all users."""
    return name if rules.is_everyone(name) else checked(rules.check_username, name, "Nothing was sent.")


def checked_user(word: str) -> str:
    """The name of a user, typed as ``bob`` or ``@bob``."""
    name = word.removeprefix("@")
    if not name:
        raise InputError("Nothing was done; name a user.")
    return checked(rules.check_username, name, "Nothing was done.")
