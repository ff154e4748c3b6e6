"""The index of words: which messages hold which words. ``search.db``, and what is not written to it yet."""

from __future__ import annotations

import os
import queue
import sqlite3
import sys
import threading
import time
from array import array
from contextlib import contextmanager, suppress
from enum import IntEnum
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, TypeAlias

from chatserver.store.words import words_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from chatserver.store.messages import Written
    from chatserver.store.words import Term

SEARCH_FILE = "search.db"
# Of the file: what a server finds that was written otherwise is made anew. Places are written as the machine has them.
_VERSION: Final = 1 if sys.byteorder == "little" else 2
_SCHEMA = f"""
CREATE TABLE chunk (
    first_id INTEGER PRIMARY KEY,   -- messages from this id
    last_id  INTEGER NOT NULL,      -- up to this one, which is there
    mark     TEXT    NOT NULL       -- what tells that one from another database's
) STRICT;
CREATE TABLE posting (
    first_id INTEGER NOT NULL,      -- the chunk
    kind     INTEGER NOT NULL,      -- see Kind
    word     TEXT    NOT NULL,
    offsets   BLOB    NOT NULL,      -- see _Offsets
    PRIMARY KEY (first_id, kind, word)
) STRICT, WITHOUT ROWID;
PRAGMA user_version = {_VERSION};
"""

# Ids that a chunk spans. So many messages are read again when the server starts, and one message more or less is a bit
# of a number of 4 KiB: two words are intersected in microseconds.
CHUNK_IDS = 32_768
_MAP_BYTES = CHUNK_IDS // 8
# Up to so many offsets are written one by one; as a map they would take more room.
_LISTED_MAX = 256
# What waits to be written is in memory: about 250 bytes for each word, and 2 for each offset of it. With texts that
# people write a chunk stays far below; with texts of random letters it ends early.
_WORDS_MAX = 200_000
_OFFSETS_MAX = 4_000_000
# Where so few messages are left, it is quicker to look what they say than to look up all words with a beginning: of a
# letter or two there are thousands in a chunk.
_FEW = 50
# Rows of a chunk between two looks whether the server shuts down.
_ROWS = 2_000
# Searches at once. The others wait for their turn: a search is mostly Python, and a flood of them must not hold up
# those who only talk.
_READERS = 2
# What takes longer is given up, for the others wait. Only beginnings that stand for thousands of words each, and are
# hardly ever together, take more than a small part of it.
FIND_SECONDS = 5.0


# Where a word is, counted from the first message: a list in ascending order or, from some length on, a map with a bit
# for each message.
_Offsets: TypeAlias = "array[int] | bytearray"


class Kind(IntEnum):
    """What a word is of."""

    PUBLIC = 0
    DIRECT = 1
    # No word, but the number of an account that sent or got a direct message.
    PARTY = 2


class _VersionError(sqlite3.DatabaseError):
    """The file was written by another server."""


class TooLongError(Exception):
    """It would take too long to find this."""


class IndexClosedError(Exception):
    """The server is shutting down; nothing more is looked for."""


class Source(Protocol):
    """What the index is of: the messages, of which each can be looked at again."""

    def mark(self, message_id: int, /) -> str | None:
        """What tells this message from any other database's message of the same id; None when there is none."""

    def texts(self, ids: Sequence[int], /) -> list[tuple[int, str]]:
        """What these messages say, with their ids."""


class _Part(Protocol):
    """Some of the messages, in the order of their ids."""

    @property
    def first_id(self) -> int:
        """The oldest of them."""

    def offsets(self, kind: Kind, word: str, *, is_prefix: bool = False) -> int:
        """Where a word is, or any that begins so: bit n stands for the message ``first_id`` + n."""


class _Tail:
    """The newest messages. The indexer adds to it; any thread reads."""

    def __init__(self) -> None:
        # Guards all below.
        self._lock = threading.Lock()
        self.first_id = 0
        self.last_id = 0
        self._size = 0
        self._words: tuple[dict[str, _Offsets], ...] = tuple({} for _ in Kind)

    def takes(self, message_id: int) -> bool:
        """Is there room for this message?"""
        if not self.last_id:
            return True
        return (
            message_id - self.first_id < CHUNK_IDS
            and self._size < _OFFSETS_MAX
            and sum(map(len, self._words)) < _WORDS_MAX
        )

    def add(self, message: Written) -> None:
        """The message is newer than all that are in it."""
        words = words_of(message.text)
        parties = () if message.recipient_id is None else {str(message.sender_id), str(message.recipient_id)}
        with self._lock:
            self.first_id = self.first_id or message.id
            offset = message.id - self.first_id
            of_kind = self._words[Kind.PUBLIC if message.recipient_id is None else Kind.DIRECT]
            for word in words:
                _note(of_kind, word, offset)
            for party in parties:
                _note(self._words[Kind.PARTY], party, offset)
            self._size += len(words)
            self.last_id = message.id

    def offsets(self, kind: Kind, word: str, *, is_prefix: bool = False) -> int:
        of_kind = self._words[kind]
        with self._lock:
            words = [found for found in of_kind if found.startswith(word)] if is_prefix else [word]
            found = [bytes(of_kind[word]) for word in words if word in of_kind]
        return _unpack(found)

    def rows(self) -> Iterator[tuple[int, int, str, bytes]]:
        """All that is in it, in the order of the table. For the indexer."""
        for kind, of_kind in zip(Kind, self._words, strict=True):
            for word in sorted(of_kind):
                yield self.first_id, kind.value, word, bytes(of_kind[word])


class _Chunk(NamedTuple):
    """Messages whose words are in the file."""

    reader: sqlite3.Connection
    first_id: int

    def offsets(self, kind: Kind, word: str, *, is_prefix: bool = False) -> int:
        sql = "SELECT offsets FROM posting WHERE first_id = ? AND kind = ? AND word = ?"
        key: tuple[int | str, ...] = (self.first_id, int(kind), word)
        if is_prefix:
            sql = "SELECT offsets FROM posting WHERE first_id = ? AND kind = ? AND word >= ? AND word < ?"
            key = (*key, word + "\U0010ffff")
        return _unpack(offsets for (offsets,) in self.reader.execute(sql, key))


class _View(NamedTuple):
    """What is searched: replaced as a whole, so that whoever searches sees each message once."""

    # The first ids of the chunks, oldest first.
    chunks: tuple[int, ...]
    tail: _Tail


class Index:
    """One thread adds to it, the indexer, which opens and closes it as well; any thread finds.

    All of it can be made again from the messages: what is wrong with the file is never a reason not to start.
    """

    def __init__(self, folder: Path, source: Source, is_stopping: Callable[[], bool]) -> None:
        """Open it, or make it; what does not belong to these messages is dropped.

        Once the server ``is_stopping``, what takes long raises IndexClosedError. Raises sqlite3.Error, OSError, and
        what the source raises.
        """
        self._source = source
        self._is_stopping = is_stopping
        path = folder / SEARCH_FILE
        self._writer = _open(path)
        self._readers: queue.Queue[sqlite3.Connection | None] = queue.Queue()
        try:
            chunks, self._written_id = self._drop_foreign()
            for _ in range(_READERS):
                self._readers.put(_connect_reader(path))
        except BaseException:
            self._writer.close()
            raise
        self._view = _View(chunks, _Tail())

    @property
    def last_id(self) -> int:
        """Messages up to this one are in it."""
        return self._view.tail.last_id or self._written_id

    def _drop_foreign(self) -> tuple[tuple[int, ...], int]:
        """Keep the chunks up to the first one that is not of these messages; their first ids, and the last of all."""
        kept: list[int] = []
        written_id = 0
        rows = self._writer.execute("SELECT first_id, last_id, mark FROM chunk ORDER BY first_id").fetchall()
        for first_id, last_id, mark in rows:
            if not written_id < first_id <= last_id < first_id + CHUNK_IDS or self._source.mark(last_id) != mark:
                break
            kept.append(first_id)
            written_id = last_id
        for first_id, _, _ in reversed(rows[len(kept) :]):
            self._check_stopping()
            with _transaction(self._writer):
                self._writer.execute("DELETE FROM posting WHERE first_id = ?", (first_id,))
                self._writer.execute("DELETE FROM chunk WHERE first_id = ?", (first_id,))
        return tuple(kept), written_id

    def _check_stopping(self) -> None:
        if self._is_stopping():
            raise IndexClosedError

    def add(self, messages: Iterable[Written]) -> None:
        """Take in messages that are newer than all before. Raises sqlite3.Error, IndexClosedError."""
        for message in messages:
            if not self._view.tail.takes(message.id):
                self._write()
            self._view.tail.add(message)

    def _write(self) -> None:
        """Write what is in memory as a chunk, and begin a new one."""
        chunks, tail = self._view
        rows = tail.rows()
        with _transaction(self._writer):
            while part := list(islice(rows, _ROWS)):
                self._check_stopping()
                self._writer.executemany("INSERT INTO posting VALUES (?, ?, ?, ?)", part)
            chunk = (tail.first_id, tail.last_id, self._source.mark(tail.last_id))
            self._writer.execute("INSERT INTO chunk VALUES (?, ?, ?)", chunk)
        self._written_id = tail.last_id
        self._view = _View((*chunks, tail.first_id), _Tail())

    def find(self, terms: Sequence[Term], reader_id: int, before_id: int, limit: int) -> list[int]:
        """The newest messages with all of these words that the account may see, newest first.

        Raises sqlite3.Error, IndexClosedError, TooLongError, and what the source raises.
        """
        found: list[int] = []
        with self._reading() as reader, _as_damage():
            patience_ends = time.monotonic() + FIND_SECONDS
            chunks, tail = self._view
            parts: Iterator[_Part] = (_Chunk(reader, first_id) for first_id in reversed(chunks))
            for part in (tail, *parts):
                if part.first_id < before_id:
                    hits = self._hits(part, terms, str(reader_id)) & _ones(before_id - part.first_id)
                    found += (part.first_id + offset for offset in _newest(hits, limit - len(found)))
                if len(found) == limit:
                    break
                self._check_stopping()
                if time.monotonic() > patience_ends:
                    raise TooLongError
        return found

    def _hits(self, part: _Part, terms: Iterable[Term], party: str) -> int:
        """Where the party sees all of the words: in what was said to everybody, and in what it sent or got itself."""
        hits = self._intersect(part, Kind.PUBLIC, terms, -1)
        own = part.offsets(Kind.PARTY, party)
        return hits | self._intersect(part, Kind.DIRECT, terms, own)

    def _intersect(self, part: _Part, kind: Kind, terms: Iterable[Term], offsets: int) -> int:
        for word, is_prefix in terms:
            if not offsets:
                break
            if is_prefix and offsets > 0 and offsets.bit_count() <= _FEW:
                offsets = self._look(part, offsets, word)
            else:
                offsets &= part.offsets(kind, word, is_prefix=is_prefix)
        return offsets

    def _look(self, part: _Part, offsets: int, beginning: str) -> int:
        """Which of these messages have a word that begins so."""
        ids = [part.first_id + offset for offset in _newest(offsets, _FEW)]
        texts = self._source.texts(ids)
        found = (number for number, text in texts if any(word.startswith(beginning) for word in words_of(text)))
        return sum(1 << number - part.first_id for number in found)

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        reader = self._readers.get()
        try:
            if reader is None:
                raise IndexClosedError
            yield reader
        finally:
            self._readers.put(reader)

    def close(self) -> None:
        """Let those who search end, and close the file. What is in memory alone is read from the messages next time."""
        for reader in [self._readers.get() for _ in range(_READERS)]:
            if reader is not None:
                reader.close()
            self._readers.put(None)
        self._writer.close()


def remove_index(folder: Path) -> None:
    """Away with the file, be it damaged; it will be made anew."""
    for name in (SEARCH_FILE, f"{SEARCH_FILE}-wal", f"{SEARCH_FILE}-shm"):
        (folder / name).unlink(missing_ok=True)


def _open(path: Path) -> sqlite3.Connection:
    """The connection that writes; what is no index of ours is removed."""
    with suppress(sqlite3.Error):
        return _connect_writer(path)
    remove_index(path.parent)
    return _connect_writer(path)


def _connect_writer(path: Path) -> sqlite3.Connection:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    writer = _connect(path)
    try:
        writer.execute("PRAGMA journal_mode = WAL")
        writer.execute("PRAGMA synchronous = NORMAL")  # after a loss of power the last chunks may be missing
        (version,) = writer.execute("PRAGMA user_version").fetchone()
        if version == 0:
            writer.executescript(f"BEGIN IMMEDIATE;\n{_SCHEMA}COMMIT;")
            version = _VERSION
        writer.execute("SELECT first_id, last_id, mark FROM chunk LIMIT 1").fetchone()
        writer.execute("SELECT first_id, kind, word, offsets FROM posting LIMIT 1").fetchone()
        if version != _VERSION:
            raise _VersionError(version)  # noqa: TRY301 -- as if the file could not be read
    except BaseException:
        writer.close()
        raise
    return writer


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False)


def _connect_reader(path: Path) -> sqlite3.Connection:
    reader = _connect(path)
    # The file is opened by the first query. Later it may have been deleted, or there may be no descriptor left.
    reader.execute("SELECT count(*) FROM chunk").fetchone()
    return reader


@contextmanager
def _as_damage() -> Iterator[None]:
    """Offsets of no message can't have been written by us."""
    try:
        yield
    except (ValueError, IndexError) as error:
        raise sqlite3.DatabaseError(f"offsets make no sense: {error}") from error


@contextmanager
def _transaction(writer: sqlite3.Connection) -> Iterator[None]:
    writer.execute("BEGIN IMMEDIATE")
    try:
        yield
        writer.execute("COMMIT")
    except BaseException:
        if writer.in_transaction:
            writer.execute("ROLLBACK")
        raise


def _note(words: dict[str, _Offsets], word: str, offset: int) -> None:
    offsets = words.get(word)
    if offsets is None:
        words[word] = array("H", (offset,))
    elif isinstance(offsets, bytearray):
        offsets[offset >> 3] |= 1 << (offset & 7)
    else:
        offsets.append(offset)
        if len(offsets) > _LISTED_MAX:
            words[word] = _map(offsets)


def _map(offsets: Iterable[int]) -> bytearray:
    bits = bytearray(_MAP_BYTES)
    for offset in offsets:
        bits[offset >> 3] |= 1 << (offset & 7)
    return bits


def _unpack(packed: Iterable[bytes]) -> int:
    """The offsets of several words together."""
    bits = 0
    listed = array("H")
    for offsets in packed:
        if len(offsets) == _MAP_BYTES:
            bits |= int.from_bytes(offsets, "little")
        else:
            listed.frombytes(offsets)
    return bits | int.from_bytes(_map(listed), "little") if listed else bits


def _ones(count: int) -> int:
    """So many bits from the lowest on."""
    return (1 << max(0, min(count, CHUNK_IDS))) - 1


def _newest(hits: int, limit: int) -> Iterator[int]:
    """The highest bits, the highest first."""
    while hits and limit:
        offset = hits.bit_length() - 1
        yield offset
        hits ^= 1 << offset
        limit -= 1
