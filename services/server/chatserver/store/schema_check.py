"""Finds what a database has beside the tables of a chat server, and values that no server stores.

SQLite runs the triggers, views, generated columns, checks and indexes of a file while a statement uses a table of that
file. So the author of a backup, or of a snapshot, could let the server change rows: make an operator with the next
message, or never end a commit. Reading the table sqlite_schema runs nothing. It is compared before anything else is
read, because a check of the file would compute its expressions.

The server relies on what it has stored: a number that is too large, or an unknown role, would end it or a connection.
"""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Final

from chatprotocol.events import RoomEventKind
from chatserver.store.room_events import ERASED, has_foreign_text

if TYPE_CHECKING:
    from collections.abc import Mapping

# A comment, a quoted text or name, a word, or any other character: enough to compare SQL without its layout.
_TOKEN: Final = re.compile(r"--[^\n]*|/\*.*?(?:\*/|$)|'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|\w+|\S", re.DOTALL)
_COMMENTS: Final = ("--", "/*")
# Tables until migration.py has moved their messages.
_OLD_TABLES: Final = ("public_message", "direct_message")
# Tables of the command ANALYZE, which an administrator may have given.
_STATISTICS: Final = {
    ("table", "sqlite_stat1"): "CREATE TABLE sqlite_stat1(tbl,idx,stat)",
    ("table", "sqlite_stat4"): "CREATE TABLE sqlite_stat4(tbl,idx,neq,nlt,ndlt,sample)",
}
# Largest number that is no time: half of the ids that fit into the key of a message, so that more can follow.
_NUMBER_MAX: Final = 1 << 39
# The end of the year 9999, in milliseconds since 1970.
_TIME_MAX: Final = 253_402_300_799_999
# Not compared: the key of a message has an id and a conversation, which are columns as well.
_KEYS: Final = frozenset({("message", "key")})
_WORDS: Final = {
    ("account", "kind"): ("person", "guest"),
    ("account", "role"): ("user", "operator"),
    ("conversation", "kind"): ("room", "direct"),
    ("membership", "role"): ("owner", "operator", "voice", "member", "invited"),
    ("sanction", "kind"): ("ban", "mute"),
    ("room_event", "kind"): (*map(str, RoomEventKind), ERASED),
}
# Control characters, which no name has.
_NAMES: Final = frozenset({("account", "name"), ("conversation", "name")})
_CONTROL: Final = "GLOB '*[' || char(1) || '-' || char(31) || char(127) || ']*'"


def find_foreign_schema(connection: sqlite3.Connection, steps: Mapping[int, str]) -> str:
    """A part of a sentence if the schema is not the one that the steps make up to its version; otherwise empty.

    The version is not above that of the last step. Raises sqlite3.Error.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    with closing(sqlite3.connect(":memory:")) as model:
        model.executescript("\n".join(steps[number] for number in sorted(steps) if number <= version))
        expected = _read_schema(model)
    known = {each: _normalize(sql) for each, sql in (expected | _STATISTICS).items()}
    found = _read_schema(connection)
    for (kind, name), sql in found.items():
        if known.get((kind, name)) != _normalize(sql):
            return f"it has the {kind} {name!r}, which no chat server has made"
    for kind, name in expected:
        if (kind, name) not in found and name not in _OLD_TABLES:
            return f"it has no {kind} {name!r}"
    return ""


def find_foreign_value(connection: sqlite3.Connection) -> str:
    """A part of a sentence if a table has a value that no server stores; otherwise empty. It reads all rows.

    Call it after find_foreign_schema. Raises sqlite3.Error.
    """
    for (table,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall():
        columns = connection.execute("SELECT name, type FROM pragma_table_xinfo(?)", (table,)).fetchall()
        conditions = [each for name, kind in columns if (each := _is_foreign(table, name, kind))]
        query = f"SELECT 1 FROM {table} WHERE {' OR '.join(conditions)} LIMIT 1"  # noqa: S608 -- names of our schema
        is_foreign = conditions and connection.execute(query).fetchone()
        if is_foreign or (table == "room_event" and has_foreign_text(connection)):
            return f"it has a value in the table {table} that no chat server stores"
    return ""


def _is_foreign(table: str, column: str, kind: str) -> str:
    """The condition in SQL that a column has such a value; empty if any value is possible."""
    if kind == "INTEGER" and (table, column) not in _KEYS:
        return f"{column} NOT BETWEEN 0 AND {_TIME_MAX if column.endswith('_ms') else _NUMBER_MAX}"
    if words := _WORDS.get((table, column)):
        return f"{column} NOT IN {words}"
    return f"{column} {_CONTROL}" if (table, column) in _NAMES else ""


def _read_schema(connection: sqlite3.Connection) -> dict[tuple[str, str], str]:
    """The SQL of each object by its type and name, without the indexes that are a part of a table."""
    query = "SELECT type, name, sql FROM sqlite_schema WHERE type <> 'index' OR sql IS NOT NULL"
    return {(kind, name): sql or "" for kind, name, sql in connection.execute(query)}


def _normalize(sql: str) -> list[str]:
    """The tokens of the SQL without comments: former servers had other comments, and other layouts."""
    return [token for token in _TOKEN.findall(sql) if not token.startswith(_COMMENTS)]
