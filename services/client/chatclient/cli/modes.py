"""Parses the arguments of /join and /modes. Pure.

    /join dev sesame                        the word that the room demands
    /modes moderated key sesame limit 20    set these modes of the current room
    /modes -private -key                    end these
    /modes                                  ask for them

A mode may also have a + before it. All functions raise InputError.
"""

from typing import Any, Final

from chatclient.cli.words import InputError, checked
from chatprotocol import requests, rules
from chatprotocol.limits import MEMBERS_MAX

_PRIVATE: Final = "private"
# The modes that are on or off, and those with a value, with the members of the request.
_SWITCHES: Final = {_PRIVATE: "private", "moderated": "moderated", "open-topic": "open_topic"}
_VALUES: Final = ("key", "limit")
MODE_WORDS: Final = (*_SWITCHES, *_VALUES)


def join(room: str, option: str) -> requests.Join:
    """The join of a room, perhaps with a key.

    The word ``private`` has a meaning only for a new room, and a key only for an old one, so it can be both.
    """
    is_private = option.lower() == _PRIVATE
    return requests.Join(room, is_private, checked(rules.check_room_key, option) if option else None)


def set_modes(room: str, rest: str) -> requests.SetModes:
    words = rest.split()
    changes: dict[str, Any] = {}
    while words:
        word = words.pop(0)
        name, is_set = word.lstrip("+-").lower(), not word.startswith("-")
        if name in _SWITCHES:
            changes[_SWITCHES[name]] = is_set
        elif name == "key":
            changes["key"] = checked(rules.check_room_key, _value(words, "key WORD")) if is_set else ""
        elif name == "limit":
            changes["members_max"] = _limit(_value(words, "limit NUMBER")) if is_set else 0
        else:
            raise InputError(
                f"There is no mode {word[:32]!r}. The modes are {', '.join(_SWITCHES)}, key WORD and limit NUMBER; "
                "a - before one ends it. Nothing was done."
            )
    return requests.SetModes(room=room, **changes)


def _value(words: list[str], form: str) -> str:
    """The word after a mode."""
    if not words:
        raise InputError(f"Type /modes {form}, or -{form.split(maxsplit=1)[0]} to end it. Nothing was done.")
    return words.pop(0)


def _limit(word: str) -> int:
    number = int(word) if word.isascii() and word.isdigit() and len(word) <= len(str(MEMBERS_MAX)) else 0
    if not 1 <= number <= MEMBERS_MAX:
        raise InputError(f"A limit is a number from 1 to {MEMBERS_MAX:,}, not {word[:32]!r}. Nothing was done.")
    return number
