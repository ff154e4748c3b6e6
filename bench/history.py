"""A long history: messages written straight into a database, as a server would have left it; and asking for its end."""

from __future__ import annotations

import json
import socket
import sqlite3
from contextlib import closing
from time import perf_counter
from typing import TYPE_CHECKING, Final

from bench.crowd import LoadError
from bench.protocols import WIRES, Lines, Part

if TYPE_CHECKING:
    from pathlib import Path

DATABASE_FILE: Final = "chat.db"
# Those who have said all of it. Nobody can log in as one of them.
ACCOUNTS: Final = 1_000
# Every tenth message is a direct one.
_DIRECT_EACH: Final = 10
_ASK: Final = b'{"command":"CH","limit":50}\n'
_ANSWER_SECONDS: Final = 10.0
_RECEIVE_BYTES: Final = 64 * 1024

# In SQL alone, for a row that passes through Python takes several times as long.
_ACCOUNTS: Final = """
WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < :accounts)
INSERT INTO account (name, name_key, password_hash, created_ms, delivered_id)
SELECT 'past' || n, 'past' || n, '', :first_ms, :messages FROM number
"""
_PUBLIC: Final = """
WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < :messages)
INSERT INTO public_message (id, time_ms, sender_id, text)
SELECT n, :first_ms + n, 1 + n * 7919 % :accounts, printf('message %07d, and what else somebody has said that day', n)
FROM number WHERE n % :direct_each <> 0
"""
# Nobody talks to themselves: the recipient stands 1 to 997 places behind the sender, in a circle of 1,000.
_DIRECT: Final = """
WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < :messages / :direct_each)
INSERT INTO direct_message (id, time_ms, sender_id, recipient_id, text)
SELECT n * :direct_each, :first_ms + n * :direct_each, 1 + n * 7919 % :accounts,
       1 + (n * 7919 + 1 + n % 997) % :accounts, printf('message %07d, and what else one has told another', n)
FROM number
"""


def fill(folder: Path, messages: int) -> int:
    """Store so many messages in the data folder of a server that has stopped. Returns the database's size in bytes.

    The accounts that are there already have their part in it.
    """
    path = folder / DATABASE_FILE
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        # Nobody needs this file after a crash.
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


def ask(port: int, name: str, times: int) -> list[float]:
    """Log in, and ask for the last 50 messages, one time after the other. Returns the milliseconds that each took."""
    lines = Lines()
    with socket.create_connection(("127.0.0.1", port), _ANSWER_SECONDS) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def answer(kind: str) -> float:
            """Wait for it; returns when it was there, and not yet parsed."""
            while data := sock.recv(_RECEIVE_BYTES):
                at = perf_counter()
                if any(json.loads(line)["type"] == kind for line in lines.feed(data)):
                    return at
            raise LoadError(f"closed by the server, instead of an answer of the type {kind}")

        sock.sendall(next(WIRES["json"].enter(name, Part.HEARS)))
        answer("login")
        took = []
        for _ in range(times):
            begin = perf_counter()
            sock.sendall(_ASK)
            took.append((answer("history") - begin) * 1_000)
    return took
