"""The index of words: which messages hold which words. ``search.db``, on SQLite's FTS5."""

from __future__ import annotations

import queue
import sqlite3
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, Protocol

from chatserver.store.database import transaction
from chatserver.store.files import touch_private
from chatserver.store.words import words_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from chatserver.store.messages import Written
    from chatserver.store.words import Term

SEARCH_FILE = "search.db"
# Of the file: what a server finds that was written otherwise is made anew.
_VERSION: Final = 4
# The row of a message has its id, and its words as ``words_of`` gives them; that of a direct message has a token for
# each of the two accounts behind them. Only which word is in which message is kept, and the same for beginnings of up
# to seven letters: longer ones stand for few words. No word has an underscore, so that nobody can write such a token.
_TABLE = """fts5(
    words, content = '', columnsize = 0, detail = none, prefix = '1 2 3 4 5 6 7', tokenize = "ascii tokenchars '_'"
)"""
_SCHEMA = f"""
CREATE VIRTUAL TABLE public USING {_TABLE};
CREATE VIRTUAL TABLE direct USING {_TABLE};
CREATE TABLE reached (  -- one row
    id   INTEGER NOT NULL,  -- messages up to this one are in it
    mark TEXT               -- what tells that one from another database's
) STRICT;
INSERT INTO reached VALUES (0, NULL);
PRAGMA user_version = {_VERSION};
"""  # noqa: S608 -- made of nothing but what stands here
_ADD_PUBLIC = "INSERT INTO public (rowid, words) VALUES (?, ?)"
_ADD_DIRECT = "INSERT INTO direct (rowid, words) VALUES (?, ?)"
_FIND_PUBLIC = "SELECT rowid FROM public WHERE public MATCH ? AND rowid < ? ORDER BY rowid DESC LIMIT ?"
_FIND_DIRECT = "SELECT rowid FROM direct WHERE direct MATCH ? AND rowid < ? ORDER BY rowid DESC LIMIT ?"

# Searches at once. The others wait for their turn: a flood of them must not take every processor from those who talk.
_READERS = 2
# What takes longer is given up, for the others wait. FTS5 walks its lists message by message: common words that hardly
# meet take a tenth of it in a history of millions, long beginnings that stand for thousands of words all of it.
FIND_SECONDS = 1.0
# So often, in steps of SQLite's machine, it is looked whether that is over: some hundred times a second.
_STEPS = 100


class NoFtsError(Exception):
    """SQLite was built without FTS5."""


class TooLongError(Exception):
    """It would take too long to find this."""


class IndexClosedError(Exception):
    """Nothing more is looked for in this index."""


class Source(Protocol):
    """What the index is of: the messages."""

    def mark(self, message_id: int, /) -> str | None:
        """What tells this message from any other database's message of the same id; None when there is none."""


class Index:
    """One thread adds to it, the indexer, which opens and closes it as well; any thread finds.

    All of it can be made again from the messages: what is wrong with the file is never a reason not to start.
    """

    def __init__(self, folder: Path, source: Source) -> None:
        """Open it, or make it; what is not of these messages is made anew.

        Raises NoFtsError, sqlite3.Error, OSError, and what the source raises.
        """
        self._source = source
        self._is_closed = False
        path = folder / SEARCH_FILE
        self._writer = _open(path)
        self._readers: queue.Queue[sqlite3.Connection] = queue.Queue()
        try:
            # Messages up to this one are in it.
            self.last_id, mark = self._writer.execute("SELECT id, mark FROM reached").fetchone()
            if self.last_id and source.mark(self.last_id) != mark:
                self._writer.close()
                remove_index(folder)
                self._writer = _open(path)
                self.last_id = 0
            for _ in range(_READERS):
                self._readers.put(_connect_reader(path))
        except BaseException:
            self._writer.close()
            raise

    def add(self, messages: Sequence[Written]) -> None:
        """Take in messages that are newer than all before; all of them or none.

        Raises sqlite3.Error, and what the source raises.
        """
        if not messages:
            return
        last_id = messages[-1].id
        with transaction(self._writer):
            self._writer.executemany(_ADD_PUBLIC, (_row(each) for each in messages if each.recipient_id is None))
            self._writer.executemany(_ADD_DIRECT, (_row(each) for each in messages if each.recipient_id is not None))
            self._writer.execute("UPDATE reached SET id = ?, mark = ?", (last_id, self._source.mark(last_id)))
        self.last_id = last_id

    def find(self, terms: Sequence[Term], reader_id: int, before_id: int, limit: int) -> list[int]:
        """The newest messages with all of these words that the account may see, newest first.

        Raises sqlite3.Error, IndexClosedError, TooLongError.
        """
        words = " ".join(f'"{word}"*' if is_prefix else f'"{word}"' for word, is_prefix in terms)
        with self._reading() as reader:
            rows = reader.execute(_FIND_PUBLIC, (words, before_id, limit)).fetchall()
            rows += reader.execute(_FIND_DIRECT, (f'{words} "{_party(reader_id)}"', before_id, limit)).fetchall()
        return sorted((message_id for (message_id,) in rows), reverse=True)[:limit]

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """A connection that reads for so long as is allowed, once it is one's turn."""
        reader = self._readers.get()
        try:
            if self._is_closed:
                raise IndexClosedError
            patience_ends = time.monotonic() + FIND_SECONDS
            reader.set_progress_handler(lambda: self._is_closed or time.monotonic() > patience_ends, _STEPS)
            yield reader
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
                raise
            raise (IndexClosedError if self._is_closed else TooLongError) from error
        finally:
            self._readers.put(reader)

    def close(self) -> None:
        """Interrupt those who search, and close the file."""
        self._is_closed = True
        readers = [self._readers.get() for _ in range(_READERS)]
        for reader in readers:
            reader.close()
            self._readers.put(reader)  # for those who still wait for their turn, and are told
        self._writer.close()


def remove_index(folder: Path) -> None:
    """Away with the file, be it damaged; it will be made anew."""
    for name in (SEARCH_FILE, f"{SEARCH_FILE}-wal", f"{SEARCH_FILE}-shm"):
        (folder / name).unlink(missing_ok=True)


def _row(message: Written) -> tuple[int, str]:
    words = words_of(message.text)
    if message.recipient_id is not None:
        words |= {_party(message.sender_id), _party(message.recipient_id)}
    return message.id, " ".join(words)


def _party(account_id: int) -> str:
    """The token of an account that sent or got a direct message."""
    return f"_{account_id}"


def _open(path: Path) -> sqlite3.Connection:
    """The connection that writes; what is no index of ours is removed."""
    try:
        with suppress(sqlite3.Error, UnicodeError):  # what is wrong with it may be told in its own bytes
            return _connect_writer(path)
        remove_index(path.parent)
        return _connect_writer(path)
    except sqlite3.OperationalError as error:
        if "no such module" in str(error):
            raise NoFtsError from error
        raise


def _connect_writer(path: Path) -> sqlite3.Connection:
    touch_private(path)
    writer = _connect(path)
    try:
        writer.execute("PRAGMA journal_mode = WAL")
        writer.execute("PRAGMA synchronous = NORMAL")  # after a loss of power the last messages may be missing
        (version,) = writer.execute("PRAGMA user_version").fetchone()
        if version == 0:
            writer.executescript(f"BEGIN IMMEDIATE;\n{_SCHEMA}COMMIT;")
            version = _VERSION
        if version != _VERSION or not _is_readable(writer):
            raise sqlite3.DatabaseError(f"version {version}")  # noqa: TRY301 -- as if it could not be read
    except BaseException:
        writer.close()
        raise
    return writer


def _is_readable(connection: sqlite3.Connection) -> bool:
    for find in (_FIND_PUBLIC, _FIND_DIRECT):
        connection.execute(find, ('"a"', 0, 1)).fetchall()
    return len(connection.execute("SELECT id, mark FROM reached").fetchall()) == 1


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False)


def _connect_reader(path: Path) -> sqlite3.Connection:
    reader = _connect(path)
    # The file is opened by the first query. Later it may have been deleted, or there may be no descriptor left.
    reader.execute("SELECT count(*) FROM reached").fetchone()
    return reader
