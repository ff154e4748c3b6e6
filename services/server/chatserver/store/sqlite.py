"""SQLite: connections, transactions, and a pool of connections that read."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path


# Maximum wait for a lock of another program.
_BUSY_SECONDS = 5


class Readable(Protocol):
    """A database to read: that of the server, or the same one in another process."""

    def reading(self) -> AbstractContextManager[sqlite3.Connection]:
        """A connection for one query. Raises StoreError if the disk can't be read, DamagedError if it is damaged."""


def connect(path: Path, mode: str = "rw") -> sqlite3.Connection:
    """Open an existing file. Raises sqlite3.Error."""
    # isolation_level=None: BEGIN and COMMIT are explicit. Threads share a connection, one at a time.
    address = f"{path.absolute().as_uri()}?mode={mode}"
    connection = sqlite3.connect(address, _BUSY_SECONDS, isolation_level=None, check_same_thread=False, uri=True)
    # Large results are sorted in memory: a temporary file may not be writable (read-only container) or not private.
    connection.execute("PRAGMA temp_store = MEMORY")
    return connection


@contextmanager
def transaction(writer: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """A transaction on this connection: committed at the end, rolled back if it raises."""
    writer.execute("BEGIN IMMEDIATE")
    try:
        yield writer
        writer.execute("COMMIT")
    except BaseException:
        if writer.in_transaction:
            writer.execute("ROLLBACK")
        raise


@contextmanager
def not_waiting(connection: sqlite3.Connection) -> Iterator[None]:
    """Do not wait for locks of other programs."""
    connection.execute("PRAGMA busy_timeout = 0")
    try:
        yield
    finally:
        connection.execute(f"PRAGMA busy_timeout = {_BUSY_SECONDS * 1000}")


class ReaderPool:
    """Connections that read one file. For any thread; a thread waits until one is free.

    Taking a free one is a pop from a list, because each login reads three times. A thread that finds none counts itself
    as waiting before it looks again, and a thread that returns one looks for waiting threads after that: so one of the
    two sees the other. A pause comes before all threads that take one later: otherwise it would wait as long as there
    are more reads than connections.
    """

    def __init__(self, path: Path, size: int) -> None:
        """Raises sqlite3.Error."""
        self._size = size
        # The last one that was returned is the next to be used: its pages are cached.
        self._free: list[sqlite3.Connection] = []
        # Guards the number of waiting threads and the pause. One of the two conditions is notified for each connection
        # that is returned while threads wait: during a pause the second.
        lock = threading.Lock()
        self._returned = threading.Condition(lock)
        self._returned_to_pause = threading.Condition(lock)
        self._waiting = 0
        self._is_paused = False
        for _ in range(size):
            reader = connect(path, "ro")
            # The first query opens the file and its WAL. Later they may be deleted, or there may be no descriptor left.
            reader.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            self._free.append(reader)

    def take(self) -> sqlite3.Connection:
        """A free connection; the caller gives it back."""
        try:
            return self._wait() if self._is_paused else self._free.pop()
        except IndexError:
            return self._wait()

    def _wait(self) -> sqlite3.Connection:
        with self._returned:
            self._waiting += 1
            try:
                while True:
                    if not self._is_paused:
                        with suppress(IndexError):  # another thread may take it before this one wakes up
                            return self._free.pop()
                    self._returned.wait()
            finally:
                self._waiting -= 1

    def give_back(self, reader: sqlite3.Connection) -> None:
        """Return a connection that was taken."""
        self._free.append(reader)
        if self._waiting:
            with self._returned:
                (self._returned_to_pause if self._is_paused else self._returned).notify()

    @contextmanager
    def paused(self) -> Iterator[list[sqlite3.Connection]]:
        """All connections. Other threads wait until the end of the block."""
        readers: list[sqlite3.Connection] = []
        with self._returned:
            while self._is_paused:  # by another thread
                self._returned.wait()
            self._is_paused = True
            self._waiting += 1
            while len(readers) < self._size:
                try:
                    readers.append(self._free.pop())
                except IndexError:
                    self._returned_to_pause.wait()
            self._waiting -= 1
        try:
            yield readers
        finally:
            with self._returned:
                self._is_paused = False
                self._free += readers
                self._returned.notify_all()

    def close(self) -> None:
        """Close all connections. A waiting thread gets a closed one."""
        with self.paused() as readers:
            for reader in readers:
                reader.close()
