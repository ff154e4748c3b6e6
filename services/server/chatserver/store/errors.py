"""Errors of the store, and their texts."""

from __future__ import annotations

import sqlite3
from typing import Final

_DAMAGED: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class StoreError(Exception):
    """The data folder or the database can't be used. The text is one line for the operator."""


class InUseError(StoreError):
    """Another process has locked the data folder. ``holder`` is a suffix that names it, or empty."""

    def __init__(self, text: str, holder: str) -> None:
        super().__init__(text)
        self.holder = holder


class DamagedError(StoreError):
    """A part of the database is damaged. Other parts may still be readable."""


class RemovedError(Exception):
    """Messages were removed while they were read, or the account left their room. Nothing is wrong with the store."""


def is_damage(error: Exception) -> bool:
    """True if the content of the file is damaged, rather than the disk failing or the error being temporary."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is not None:
        return code & 0xFF in _DAMAGED
    # Errors of Python's sqlite3 module for a text that is not UTF-8; they have no code.
    return isinstance(error, UnicodeError) or str(error).startswith("Could not decode")


def describe(error: Exception) -> str:
    """The error as one line without stored data.

    The text of an error about a damaged file is left out: SQLite and Python quote the data, which may be a message.
    """
    if is_damage(error):
        return f"the file is damaged ({getattr(error, 'sqlite_errorname', 'a text in it is not UTF-8')})"
    return " ".join(str(error).split())
