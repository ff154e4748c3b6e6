"""The search index ``search.db``: which messages contain which words. Uses SQLite's FTS5."""

from __future__ import annotations

import sqlite3
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from chatserver.store.files import touch_private
from chatserver.store.rooms import LOBBY_ID
from chatserver.store.schema_check import find_foreign_schema
from chatserver.store.sqlite import ReaderPool, connect, transaction
from chatserver.store.words import words_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from chatserver.store.messages import IndexedMessage
    from chatserver.store.words import Term

SEARCH_FILE = "search.db"
# The format version of the file. A file of another version is rebuilt.
_VERSION: Final = 7
# The row of a message has its id and the words of ``words_of``. The table ``public`` has the messages of the lobby,
# ``direct`` all others, with tokens that say whose they are: one for each account of a direct message, one more if they
# are the same, or one for the room. A user can't write a token: no word contains an underscore. detail=none stores only
# which message contains a word. Prefixes of up to seven letters have an index; longer ones match few words.
_TABLE = """fts5(
    words, content = '', columnsize = 0, detail = none, prefix = '1 2 3 4 5 6 7', tokenize = "ascii tokenchars '_'"
)"""
_SCHEMA = f"""
CREATE VIRTUAL TABLE public USING {_TABLE};
CREATE VIRTUAL TABLE direct USING {_TABLE};
CREATE TABLE reached (  -- one row
    id        INTEGER NOT NULL,  -- messages up to this id are indexed
    mark      TEXT,              -- fingerprint of the message with this id
    first_id  INTEGER NOT NULL,  -- the oldest message that is indexed
    deletions INTEGER NOT NULL   -- deletions up to this number are done
) STRICT;
INSERT INTO reached VALUES (0, NULL, 0, 0);
PRAGMA user_version = {_VERSION};
"""  # noqa: S608 -- only constants of this module
_ADD_PUBLIC = "INSERT INTO public (rowid, words) VALUES (?, ?)"
_ADD_DIRECT = "INSERT INTO direct (rowid, words) VALUES (?, ?)"
# A contentless table forgets a row if it gets the words of the row. Words of another one would damage it.
_REMOVE = "INSERT INTO {table} ({table}, rowid, words) VALUES ('delete', ?, ?)"
_FIND_PUBLIC = "SELECT rowid FROM public WHERE public MATCH ? AND rowid < ? ORDER BY rowid DESC LIMIT ?"
_FIND_DIRECT = "SELECT rowid FROM direct WHERE direct MATCH ? AND rowid < ? ORDER BY rowid DESC LIMIT ?"

# Concurrent searches; the others wait. A flood of searches must not take all processors from message delivery.
_READERS = 2
# Time limit of one search, because others wait for its reader. FTS5 scans its lists message by message: common words
# that rarely occur together take 0.1 s in a history of millions, prefixes of thousands of words reach the limit.
FIND_SECONDS = 1.0
# SQLite VM instructions between two checks of the time limit: a few hundred checks per second.
_STEPS = 100


class NoFtsError(Exception):
    """SQLite was built without FTS5."""


class TooLongError(Exception):
    """The search exceeded its time limit."""


class IndexClosedError(Exception):
    """The index was closed; no search runs on it any more."""


class Index:
    """The index file. Only the indexer thread opens, extends and closes it; any thread may call ``find``.

    The whole file can be rebuilt from the messages, so a damaged file never prevents the start of the server.
    """

    def __init__(
        self,
        folder: Path,
        fingerprint: Callable[[int], str | None],
        *,
        find_seconds: float = FIND_SECONDS,
        find_steps: int = _STEPS,
        clock: Callable[[], float] = time.monotonic,
        schema: str = _SCHEMA,
    ) -> None:
        """Open or create the file; rebuild it if it belongs to other messages.

        ``fingerprint`` identifies a stored message, to detect another database with the same ids; None if it does not
        exist. Raises NoFtsError, sqlite3.Error, OSError, and errors of ``fingerprint``.
        """
        self._fingerprint = fingerprint
        self._find_seconds = find_seconds
        self._find_steps = find_steps
        self._clock = clock
        # True from the start of close() on.
        self.closed = False
        path = folder / SEARCH_FILE
        self._writer = _open(path, schema)
        try:
            # Messages up to last_id are indexed, from first_id on, and deletions up to this number done. For the
            # indexer thread.
            self.last_id, mark = read_reached(self._writer)
            query = "SELECT first_id, deletions FROM reached"
            self.first_id, self.deletions = self._writer.execute(query).fetchone()
            if self.last_id and fingerprint(self.last_id) != mark:
                self._writer.close()
                remove_index(folder)
                self._writer = _open(path, schema)
                self.last_id = self.first_id = self.deletions = 0
            self._readers = ReaderPool(path, _READERS)
        except BaseException:
            self._writer.close()
            raise

    def add(self, messages: Sequence[IndexedMessage]) -> None:
        """Index messages, all or none. They must be newer than all indexed ones, in the order of their ids.

        Raises sqlite3.Error, and errors of ``fingerprint``.
        """
        if not messages:
            return
        last_id = messages[-1].id
        first_id = self.first_id or messages[0].id
        with transaction(self._writer):
            self._writer.executemany(_ADD_PUBLIC, (_row(each) for each in messages if each.conversation_id == LOBBY_ID))
            self._writer.executemany(_ADD_DIRECT, (_row(each) for each in messages if each.conversation_id != LOBBY_ID))
            reached = (last_id, self._fingerprint(last_id), first_id)
            self._writer.execute("UPDATE reached SET id = ?, mark = ?, first_id = ?", reached)
        self.last_id, self.first_id = last_id, first_id

    def remove(self, messages: Sequence[IndexedMessage], number: int) -> None:
        """Forget messages, with the texts that they had; ``number`` is the newest deletion that is done then.

        A message that is not indexed has no effect. Raises sqlite3.Error, and errors of ``fingerprint``.
        """
        with transaction(self._writer):
            for message in messages:
                is_public = message.conversation_id == LOBBY_ID
                message_id, words = _row(message)
                word = words.partition(" ")[0]
                if word and finds(self._writer, word, message_id, is_public=is_public):
                    self._writer.execute(_REMOVE.format(table="public" if is_public else "direct"), (message_id, words))
            mark = self._fingerprint(self.last_id) if self.last_id else None
            self._writer.execute("UPDATE reached SET mark = ?, deletions = ?", (mark, number))
        self.deletions = number

    def find(
        self,
        terms: Sequence[Term],
        reader_id: int,
        before_id: int,
        limit: int,
        room_id: int = LOBBY_ID,
        other_id: int | None = None,
    ) -> list[int]:
        """Ids of the newest messages that contain all terms, newest first: of a room, or of the lobby and direct.

        ``other_id``: only direct messages between the two accounts. The caller checks which of them the account may
        see. Waits for a free reader. Raises sqlite3.Error, IndexClosedError, TooLongError.
        """
        words = " ".join(f'"{word}"*' if is_prefix else f'"{word}"' for word, is_prefix in terms)
        tokens = {_account_token(reader_id) if room_id == LOBBY_ID else _room_token(room_id)}
        if other_id is not None:
            tokens = _tokens_between(reader_id, other_id)
        whose = " ".join(f'"{token}"' for token in sorted(tokens))
        with self._reading() as reader:
            rows = reader.execute(_FIND_DIRECT, (f"{words} {whose}", before_id, limit)).fetchall()
            if room_id == LOBBY_ID and other_id is None:
                rows += reader.execute(_FIND_PUBLIC, (words, before_id, limit)).fetchall()
        return sorted((message_id for (message_id,) in rows), reverse=True)[:limit]

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """A reader from the pool; its queries are interrupted after FIND_SECONDS or by ``close``."""
        reader = self._readers.take()
        try:
            # Read without a lock: close() sets the flag before it closes the readers.
            if self.closed:
                raise IndexClosedError
            deadline = self._clock() + self._find_seconds
            reader.set_progress_handler(lambda: self.closed or self._clock() > deadline, self._find_steps)
            yield reader
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
                raise
            raise (IndexClosedError if self.closed else TooLongError) from error
        finally:
            self._readers.give_back(reader)

    def close(self) -> None:
        """Interrupt all searches and close the file."""
        self.closed = True
        self._readers.close()  # wakes waiting searches, which then raise IndexClosedError
        self._writer.close()


def is_current(connection: sqlite3.Connection, schema: str = _SCHEMA) -> bool:
    """True if the file has the present format, and nothing else in it; the server rebuilds any other one."""
    is_of_version = connection.execute("PRAGMA user_version").fetchone() == (_VERSION,)
    return is_of_version and not find_foreign_schema(connection, {_VERSION: schema})


def read_reached(connection: sqlite3.Connection) -> tuple[int, str | None]:
    """The id up to which messages are indexed, and the fingerprint of that message."""
    message_id, mark = connection.execute("SELECT id, mark FROM reached").fetchone()
    return int(message_id), mark


def finds(connection: sqlite3.Connection, word: str, message_id: int, *, is_public: bool) -> bool:
    """True if the index knows that this message, of the lobby if ``is_public``, contains the word."""
    table = "public" if is_public else "direct"
    query = f"SELECT 1 FROM {table} WHERE {table} MATCH ? AND rowid = ?"  # noqa: S608 -- one of two names
    return connection.execute(query, (f'"{word}"', message_id)).fetchone() is not None


def remove_index(folder: Path) -> None:
    """Delete the file and its WAL. The next ``Index`` creates the file again. Raises OSError."""
    for name in (SEARCH_FILE, f"{SEARCH_FILE}-wal", f"{SEARCH_FILE}-shm"):
        (folder / name).unlink(missing_ok=True)


def _row(message: IndexedMessage) -> tuple[int, str]:
    words = words_of(message.text)
    if message.recipient_id is None and message.conversation_id != LOBBY_ID:
        words |= {_room_token(message.conversation_id)}
    elif message.recipient_id is not None:
        words |= _tokens_between(message.sender_id, message.recipient_id)
    return message.id, " ".join(words)


def _account_token(account_id: int) -> str:
    """The token of an account that sent or received a direct message."""
    return f"_{account_id}"


def _tokens_between(sender_id: int, recipient_id: int) -> set[str]:
    """The tokens of a direct message. One to oneself has one more, by which it is told from all others."""
    tokens = {_account_token(sender_id), _account_token(recipient_id)}
    return tokens if len(tokens) > 1 else tokens | {f"_{sender_id}_{sender_id}"}


def _room_token(room_id: int) -> str:
    """The token of a message in a room other than the lobby."""
    return f"_r{room_id}"


def _open(path: Path, schema: str) -> sqlite3.Connection:
    """The writing connection. A file that is not an index of this version is deleted first."""
    try:
        with suppress(
            sqlite3.Error, UnicodeError
        ):  # UnicodeError: an error message may quote bytes of the damaged file
            return _connect_writer(path, schema)
        remove_index(path.parent)
        return _connect_writer(path, schema)
    except sqlite3.OperationalError as error:
        if "no such module" in str(error):
            raise NoFtsError from error
        raise


def _connect_writer(path: Path, schema: str) -> sqlite3.Connection:
    touch_private(path)
    writer = connect(path)
    try:
        writer.execute("PRAGMA journal_mode = WAL")
        writer.execute(
            "PRAGMA synchronous = NORMAL"
        )  # a power failure may lose the last messages; they are indexed again
        (version,) = writer.execute("PRAGMA user_version").fetchone()
        if version == 0:
            writer.executescript(f"BEGIN IMMEDIATE;\n{schema}COMMIT;")
        if not is_current(writer, schema) or not _is_readable(writer):
            raise sqlite3.DatabaseError(f"version {version}")  # noqa: TRY301 -- handled like a damaged file
    except BaseException:
        writer.close()
        raise
    return writer


def _is_readable(connection: sqlite3.Connection) -> bool:
    for find in (_FIND_PUBLIC, _FIND_DIRECT):
        connection.execute(find, ('"a"', 0, 1)).fetchall()
    return len(connection.execute("SELECT id, mark, first_id, deletions FROM reached").fetchall()) == 1
