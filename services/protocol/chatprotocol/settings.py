"""Names of all environment settings. Server, client and containers use one list, because they may share a .env file."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

_SERVER: Final = """
    CHAT_HOST CHAT_PORT CHAT_DATA CHAT_REGISTRATION CHAT_GUESTS CHAT_MAX_CONNECTIONS CHAT_LOGIN_SECONDS
    CHAT_USERS_SECONDS CHAT_LAG_MAX_BYTES CHAT_HASH_TIME_COST CHAT_HASH_MEMORY_KIB CHAT_HASH_PARALLELISM
    CHAT_PEER_TIMEOUT_SECONDS CHAT_REGISTER_DELIVERED CHAT_REGISTER_LENGTH CHAT_REGISTER_FORWARD_MAX CHAT_LOG_LEVEL
    CHAT_LOG_FORMAT
"""
_CLIENT: Final = """
    CHAT_SERVER CHAT_PORT CHAT_USER CHAT_PASSWORD CHAT_PASSWORD_FILE CHAT_DIALECT CHAT_REGISTER_LENGTH CHAT_OPS
    CHAT_SCRIPT CHAT_RETRY_SECONDS CHAT_SILENCE_SECONDS CHAT_QUIET CHAT_HIDE_JOINS
"""
# Settings of compose.yaml and of the tests.
_AROUND: Final = "CHAT_PUBLISH CHAT_TEST_SEED CHAT_TEST_STACK"

SETTINGS: Final = frozenset(f"{_SERVER} {_CLIENT} {_AROUND}".split())

_PREFIX: Final = "CHAT_"
_OURS: Final = re.compile("chat[_-]", re.IGNORECASE)


class UnknownSetting(NamedTuple):
    """A variable that looks like a setting but is not one."""

    name: str
    # The most similar setting; empty if there is none.
    similar: str


def unknown_settings(names: Iterable[str]) -> list[UnknownSetting]:
    """Find misspelt settings among the names of variables. They would otherwise be ignored silently."""
    known = {setting.removeprefix(_PREFIX): setting for setting in SETTINGS}
    found = []
    for name in sorted(names):
        if _OURS.match(name) and name not in SETTINGS:
            # Compare without the prefix: it would make all names similar.
            like = difflib.get_close_matches(name[len(_PREFIX) :].upper(), sorted(known), 1)
            found.append(UnknownSetting(name, known[like[0]] if like else ""))
    return found
