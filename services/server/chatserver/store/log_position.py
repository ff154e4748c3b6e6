"""How far a database has applied the log that several servers share, and who writes to that log."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import sqlite3


class LogPosition(NamedTuple):
    """The log that a database follows, its last record there, and the digest of all outcomes up to that record."""

    log_id: str
    number: int
    chain: bytes


class Writer(NamedTuple):
    """The newest run of a server, empty if the server is gone, and the number of its last batch that was applied."""

    run: str
    number: int


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
    """True if the database has nothing that a new one has not: it may follow a log from the beginning."""
    tables = ("account", "audit", "former_identity", "invitation_code", "log_position")  # the others refer to accounts
    return not any(connection.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone() for table in tables)  # noqa: S608


def forget_log(connection: sqlite3.Connection) -> None:
    """Make the database one of a single server again."""
    connection.execute("DELETE FROM log_position")
    connection.execute("DELETE FROM log_writer")
    connection.execute("UPDATE guest_claim SET server = ''")


def read_writer(connection: sqlite3.Connection, server: str) -> Writer | None:
    """The newest run of the server; None if it has written nothing."""
    row = connection.execute("SELECT run, number FROM log_writer WHERE server = ?", (server,)).fetchone()
    return Writer(*row) if row is not None else None


def write_writer(connection: sqlite3.Connection, server: str, writer: Writer) -> None:
    """Replace the run of the server, and its number."""
    connection.execute("INSERT OR REPLACE INTO log_writer VALUES (?, ?, ?)", (server, *writer))
