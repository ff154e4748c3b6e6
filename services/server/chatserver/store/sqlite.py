"""SQLite: connections, transactions, and a pool of connections that read."""

from __future__ import annotations

import queue
import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def connect(path: Path, mode: str = "rw") -> sqlite3.Connection:
    """Open an existing file. Raises sqlite3.Error."""
    # isolation_level=None: BEGIN and COMMIT are explicit. Threads share a connection, one at a time.
    address = f"{path.absolute().as_uri()}?mode={mode}"
    connection = sqlite3.connect(address, isolation_level=None, check_same_thread=False, uri=True)
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


class ReaderPool:
    """Connections that read one file. For any thread; a thread waits until one is free."""

    def __init__(self, path: Path, size: int) -> None:
        """Raises sqlite3.Error."""
        self._size = size
        self._free: queue.LifoQueue[sqlite3.Connection] = queue.LifoQueue()
        for _ in range(size):
            reader = connect(path, "ro")
            # The first query opens the file and its WAL. Later they may be deleted, or there may be no descriptor left.
            reader.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            self._free.put(reader)

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A free connection."""
        reader = self._free.get()
        try:
            yield reader
        finally:
            self._free.put(reader)

    @contextmanager
    def paused(self) -> Iterator[list[sqlite3.Connection]]:
        """All connections. Other threads wait until the end of the block."""
        readers = [self._free.get() for _ in range(self._size)]
        try:
            yield readers
        finally:
            for reader in readers:
                self._free.put(reader)

    def close(self) -> None:
        """Close all connections. A waiting thread gets a closed one."""
        with self.paused() as readers:
            for reader in readers:
                reader.close()
