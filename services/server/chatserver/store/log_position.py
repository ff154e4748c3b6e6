"""The position in the shared log that a database has reached, and the runs of the servers that write to the log."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import sqlite3

    from chatserver.store.sqlite import Readable


class LogPosition(NamedTuple):
    """The log that a database follows, its last record there, and the digest of all outcomes up to that record."""

    log_id: str
    number: int
    chain: bytes


def read_position(connection: sqlite3.Connection) -> LogPosition | None:
    """The position; None if the database belongs to a single server."""
    row = connection.execute("SELECT log_id, number, chain FROM log_position").fetchone()
    return LogPosition(*row) if row is not None else None


def write_position(connection: sqlite3.Connection, position: LogPosition) -> None:
    """Replace the position, in the transaction that applies the record."""
    connection.execute(
        "INSERT INTO log_position VALUES (1, ?, ?, ?) ON CONFLICT (one)"
        " DO UPDATE SET log_id = excluded.log_id, number = excluded.number, chain = excluded.chain",
        position,
    )


def is_empty(connection: sqlite3.Connection) -> bool:
    """True if the database has no more than a new one: it may follow a log from the beginning."""
    tables = ("account", "audit", "former_identity", "invitation_code", "log_position")  # the others refer to accounts
    return not any(connection.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone() for table in tables)  # noqa: S608


def forget_log(connection: sqlite3.Connection) -> None:
    """Make the database one of a single server again."""
    connection.execute("DELETE FROM log_position")
    connection.execute("DELETE FROM log_run")
    connection.execute("UPDATE guest_claim SET server = ''")


def begin_run(connection: sqlite3.Connection, server: str, run: str) -> bool:
    """Begin a run of the server with its first batch, and end the run before it. False if this run has begun before."""
    begun = connection.execute("INSERT OR IGNORE INTO log_run VALUES (?, ?, 1)", (server, run)).rowcount > 0
    if begun:
        connection.execute("UPDATE log_run SET number = NULL WHERE server = ? AND run <> ?", (server, run))
    return begun


def count_batch(connection: sqlite3.Connection, server: str, run: str, number: int) -> bool:
    """Count a batch. False if it is not the next one of a run that is not over."""
    query = "UPDATE log_run SET number = number + 1 WHERE server = ? AND run = ? AND number = ?"
    return connection.execute(query, (server, run, number - 1)).rowcount > 0


def end_run(connection: sqlite3.Connection, server: str, run: str) -> bool:
    """End a run. False if it is over, or has not begun."""
    query = "UPDATE log_run SET number = NULL WHERE server = ? AND run = ? AND number IS NOT NULL"
    return connection.execute(query, (server, run)).rowcount > 0


def read_runs(connection: sqlite3.Connection, server: str) -> dict[str, int | None]:
    """All runs of the server, and the numbers of their last batches; None for those that are over."""
    return dict(connection.execute("SELECT run, number FROM log_run WHERE server = ?", (server,)))


def count_servers(database: Readable) -> int:
    """Number of servers with a run that is not over. Raises StoreError."""
    with database.reading() as connection:
        (count,) = connection.execute("SELECT count(*) FROM log_run WHERE number IS NOT NULL").fetchone()
        return int(count)


def current_runs(database: Readable) -> dict[str, str]:
    """The run of each server that is not over. Raises StoreError."""
    with database.reading() as connection:
        return dict(connection.execute("SELECT server, run FROM log_run WHERE number IS NOT NULL").fetchall())
