"""A long history, written directly into the database, and requests for its last messages."""

from __future__ import annotations

import json
import socket
import sqlite3
from contextlib import closing
from time import perf_counter
from typing import TYPE_CHECKING, Final

from bench.connections import LoadError
from bench.protocols import PROTOCOLS, LineBuffer, Role

if TYPE_CHECKING:
    from pathlib import Path

DATABASE_FILE: Final = "chat.db"
# Senders of the messages. Their password hash is empty, so they cannot log in.
ACCOUNTS: Final = 1_000
# Every tenth message is direct.
_DIRECT_EACH: Final = 10
_REQUEST: Final = b'{"command":"CH","limit":50}\n'
_ANSWER_SECONDS: Final = 10.0
_RECEIVE_BYTES: Final = 64 * 1024

# In SQL only: inserting rows from Python takes several times as long.
_ACCOUNTS: Final = """
WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < :accounts)
INSERT INTO account (name, name_key, password_hash, created_ms, delivered_id)
SELECT 'past' || n, 'past' || n, '', :first_ms, :messages FROM number
"""
_PUBLIC: Final = """
WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < :messages)
INSERT INTO message (key, time_ms, sender_id, text)
SELECT n, :first_ms + n, 1 + n * 7919 % :accounts,
       printf('message %07d, and the rest of a line of a usual length', n)
FROM number WHERE n % :direct_each <> 0
"""
# Sender and recipient differ: the recipient is 1 to 997 accounts after the sender, modulo 1,000.
_DIRECT: Final = """
WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < :messages / :direct_each)
INSERT INTO message (key, time_ms, sender_id, recipient_id, text)
SELECT n * :direct_each - (1 << 40), :first_ms + n * :direct_each, 1 + n * 7919 % :accounts,
       1 + (n * 7919 + 1 + n % 997) % :accounts, printf('message %07d, and the rest of a direct one of it', n)
FROM number
"""


def fill(folder: Path, messages: int) -> int:
    """Store ``messages`` messages in the data folder of a stopped server. Returns the database's size in bytes.

    Existing accounts are kept. They are senders and recipients of some messages.
    """
    path = folder / DATABASE_FILE
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        # The file need not survive a crash.
        for pragma in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -262144"):
            connection.execute(f"PRAGMA {pragma}")
        values = {
            "accounts": ACCOUNTS,
            "messages": messages,
            "direct_each": _DIRECT_EACH,
            "first_ms": 1_700_000_000_000,
        }
        connection.execute("BEGIN")
        connection.execute("UPDATE account SET delivered_id = :messages", values)
        for statement in (_ACCOUNTS, _PUBLIC, _DIRECT):
            connection.execute(statement, values)
        connection.execute("COMMIT")
    return path.stat().st_size


def time_requests(port: int, name: str, count: int) -> list[float]:
    """Log in and request the last 50 messages, ``count`` times. Returns the milliseconds of each. Raises LoadError."""
    lines = LineBuffer()
    with socket.create_connection(("127.0.0.1", port), _ANSWER_SECONDS) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def wait_for(kind: str) -> float:
            """Return the time at which the answer arrived, before parsing."""
            while data := sock.recv(_RECEIVE_BYTES):
                at = perf_counter()
                if any(json.loads(line)["type"] == kind for line in lines.split(data)):
                    return at
            raise LoadError(f"closed by the server before an answer of type {kind}")

        sock.sendall(next(PROTOCOLS["json"].log_in(name, Role.RECEIVER)))
        wait_for("login")
        milliseconds = []
        for _ in range(count):
            begin = perf_counter()
            sock.sendall(_REQUEST)
            milliseconds.append((wait_for("history") - begin) * 1_000)
    return milliseconds
