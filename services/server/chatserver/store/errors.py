"""What can be wrong with the store, and how it is said."""

from __future__ import annotations

import sqlite3
from typing import Final

_DAMAGED: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class StoreError(Exception):
    """The data folder or the database can't be used. The text is one line for the person who runs the server."""


class DamagedError(StoreError):
    """Something in the database can't be read, now or ever. What stands elsewhere in it can be."""


def is_damage(error: Exception) -> bool:
    """True if the file is wrong, and not the disk or the moment."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is not None:
        return code & 0xFF in _DAMAGED
    # Python's own: it quotes the text.
    return isinstance(error, UnicodeError) or str(error).startswith("Could not decode")


def describe(error: Exception) -> str:
    """What went wrong, without anything of what is stored.

    Where a file is damaged, SQLite and Python quote what they found there, which may be a message.
    """
    if is_damage(error):
        return f"the file is damaged ({getattr(error, 'sqlite_errorname', 'a text in it is not UTF-8')})"
    return " ".join(str(error).split())
