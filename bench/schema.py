"""Compares database schemas for messages: insertion, queries and size with a history of millions.

Each candidate holds the same history: 80 % of the messages in the lobby, 10 % in 50 other rooms, 10 % direct. One
account in the direct messages has thousands of partners, like a bot. The files are written as the server writes them:
with a write-ahead log, synchronous=FULL, one transaction for each group of messages.
"""

# ruff: noqa: S608, E501 -- statements of constants, some long

from __future__ import annotations

import argparse
import json
import random
import sqlite3
import statistics
import tempfile
from contextlib import closing
from itertools import count
from pathlib import Path
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ACCOUNTS: Final = 10_000
LOBBY: Final = 1
# Rooms have the ids 1 (the lobby) to 51. Room 51 has no message in the younger half of the history.
ROOMS: Final = 51
QUIET_ROOM: Final = 51
# Takes part in every tenth direct message.
BOT: Final = 17
READER: Final = 4_242
# Part of a thousand messages: the first 800 are in the lobby, those from the 900th on are direct.
_ROOM_PART: Final = 800
_DIRECT_PART: Final = 900
# Messages of one sender that the server inserts with one statement.
_RUN: Final = 16
_GROUPS: Final = {1: 100, 64: 60, 1_000: 20}

_SOURCE: Final = f"""
CREATE TABLE source (id INTEGER PRIMARY KEY, room_id INTEGER, time_ms INTEGER, sender_id INTEGER,
                     recipient_id INTEGER, text TEXT, nonce TEXT);
WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < {{messages}})
INSERT INTO source
SELECT n, CASE WHEN part < 800 THEN {LOBBY} WHEN part < 900 THEN room END, 1700000000000 + n,
       sender, CASE WHEN part >= 900 THEN recipient END,
       printf('message %07d, and the rest of a line of a usual length', n), CASE WHEN n % 10 = 3 THEN 'n' || n END
FROM (
    SELECT n, n * 7919 % 1000 AS part,
           CASE WHEN n < {{messages}} / 2 THEN 2 + n / 7 % {ROOMS - 1} ELSE 2 + n / 7 % {ROOMS - 2} END AS room,
           CASE WHEN n * 7919 % 1000 BETWEEN 900 AND 904 THEN {BOT} ELSE 1 + n * 7907 % {ACCOUNTS} END AS sender,
           CASE WHEN n * 7919 % 1000 BETWEEN 905 AND 909 THEN {BOT}
                ELSE 1 + (n * 7907 + n / 1000 % 97 * 31 + 1) % {ACCOUNTS} END AS recipient
    FROM number
);
"""
_ACCOUNT: Final = "CREATE TABLE account (id INTEGER PRIMARY KEY, name TEXT NOT NULL) STRICT;"
_FILL_ACCOUNTS: Final = f"""
WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < {ACCOUNTS})
INSERT INTO account SELECT n, 'past' || n FROM number;
"""
_NAMED: Final = """
SELECT message.id, time_ms, sender.name, recipient.name, text FROM ({0}) AS message
JOIN account AS sender ON sender.id = sender_id LEFT JOIN account AS recipient ON recipient.id = recipient_id
ORDER BY message.id {1} LIMIT :limit
"""


class Candidate(NamedTuple):
    """A schema, and the statements that the server would use with it."""

    schema: str
    fill: str
    insert_room: str
    insert_direct: str
    queries: dict[str, str]
    has_pairs: bool = False


def _union(*parts: str) -> str:
    return " UNION ALL ".join(f"SELECT * FROM ({part})" for part in parts)


def _queries(
    room: str, direct: Sequence[str], undelivered: str, visible: str, nonce: str, after: str
) -> dict[str, str]:
    """Fields of a part: 0 is the condition on the id, 1 the order, 2 and 3 the ids above and below the wanted ones."""
    newest, since = ("id < :before", "DESC", ":before", "0"), ("id > :after", "", "(1 << 40)", ":after")
    lobby = room.replace(":room", str(LOBBY))
    return {
        "lobby": _NAMED.format(room.format(*newest), "DESC"),
        "room": _NAMED.format(room.format(*newest), "DESC"),
        "everything": _NAMED.format(_union(lobby, *direct).format(*newest), "DESC"),
        "since": _NAMED.format(_union(lobby, *direct).format(*since), ""),
        "since_room": _NAMED.format(room.format(*since), ""),
        "undelivered": _NAMED.format(undelivered.format(*since), ""),
        "visible": _NAMED.format(visible, ""),
        "nonce": nonce,
        "after": after,
    }


# The conversation of all direct messages, in candidates without a conversation for each pair.
_DIRECT: Final = 1_000
_IDS: Final = "id IN (SELECT value FROM json_each(:ids))"
_DIRECT_COLUMNS: Final = "id, time_ms, sender_id, recipient_id, text"
_PUBLIC_COLUMNS: Final = "id, time_ms, sender_id, NULL AS recipient_id, text"
_MEMBER: Final = (
    "EXISTS (SELECT 1 FROM membership WHERE account_id = :reader AND conversation_id = {0}.conversation_id)"
)
_MEMBERSHIP: Final = f"""
CREATE TABLE membership (account_id INTEGER, conversation_id INTEGER, PRIMARY KEY (account_id, conversation_id))
    STRICT, WITHOUT ROWID;
WITH RECURSIVE number (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM number WHERE n < {ACCOUNTS} * 10 - 1)
INSERT INTO membership SELECT 1 + n / 10, 2 + (n / 10 + n % 10 * 5) % {ROOMS - 1} FROM number;
"""

TWO_TABLES: Final = Candidate(
    schema="""
CREATE TABLE public_message (id INTEGER PRIMARY KEY, time_ms INTEGER NOT NULL, sender_id INTEGER NOT NULL,
                             text TEXT NOT NULL, nonce TEXT) STRICT;
CREATE UNIQUE INDEX public_message_nonce ON public_message (sender_id, nonce) WHERE nonce IS NOT NULL;
CREATE TABLE direct_message (id INTEGER PRIMARY KEY, time_ms INTEGER NOT NULL, sender_id INTEGER NOT NULL,
                             recipient_id INTEGER NOT NULL, text TEXT NOT NULL, nonce TEXT) STRICT;
CREATE UNIQUE INDEX direct_message_nonce ON direct_message (sender_id, nonce) WHERE nonce IS NOT NULL;
CREATE INDEX direct_message_sender ON direct_message (sender_id, id);
CREATE INDEX direct_message_recipient ON direct_message (recipient_id, id);
""",
    fill="""
INSERT INTO public_message SELECT id, time_ms, sender_id, text, nonce FROM source WHERE recipient_id IS NULL ORDER BY id;
INSERT INTO direct_message SELECT id, time_ms, sender_id, recipient_id, text, nonce FROM source
WHERE recipient_id IS NOT NULL ORDER BY id;
""",
    insert_room="INSERT INTO public_message SELECT :first + key, :time, :sender, value, NULL FROM json_each(:texts)",
    insert_direct="INSERT INTO direct_message VALUES (:first, :time, :sender, :recipient, :text, :nonce)",
    queries=_queries(
        # There are no rooms: the lobby has their messages.
        room=f"SELECT {_PUBLIC_COLUMNS} FROM public_message WHERE {{0}} ORDER BY id {{1}} LIMIT :limit",
        direct=[
            f"SELECT {_DIRECT_COLUMNS} FROM direct_message WHERE sender_id = :reader AND {{0}} ORDER BY id {{1}} LIMIT :limit",
            (
                f"SELECT {_DIRECT_COLUMNS} FROM direct_message WHERE recipient_id = :reader AND sender_id <> :reader AND {{0}}"
                " ORDER BY id {1} LIMIT :limit"
            ),
        ],
        undelivered=f"SELECT {_DIRECT_COLUMNS} FROM direct_message WHERE recipient_id = :reader AND {{0}}"
        " ORDER BY id {1} LIMIT :limit",
        visible=f"SELECT {_PUBLIC_COLUMNS} FROM public_message WHERE {_IDS} UNION ALL "
        f"SELECT {_DIRECT_COLUMNS} FROM direct_message WHERE {_IDS} AND :reader IN (sender_id, recipient_id)",
        nonce="SELECT id FROM public_message WHERE sender_id = :sender AND nonce = :nonce",
        after="SELECT * FROM (SELECT id, sender_id, NULL, text FROM public_message WHERE id > :after ORDER BY id LIMIT :limit)"
        " UNION ALL SELECT * FROM (SELECT id, sender_id, recipient_id, text FROM direct_message WHERE id > :after"
        " ORDER BY id LIMIT :limit) ORDER BY id LIMIT :limit",
    ),
)

_PAIRS: Final = """
CREATE TABLE conversation (id INTEGER PRIMARY KEY, kind TEXT NOT NULL, low_id INTEGER, high_id INTEGER) STRICT;
CREATE UNIQUE INDEX conversation_low ON conversation (low_id, high_id) WHERE kind = 'direct';
CREATE INDEX conversation_high ON conversation (high_id) WHERE kind = 'direct';
"""
_FILL_PAIRS: Final = f"""
WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < {ROOMS})
INSERT INTO conversation SELECT n, 'room', NULL, NULL FROM number;
INSERT INTO conversation (kind, low_id, high_id)
SELECT 'direct', min(sender_id, recipient_id) AS low, max(sender_id, recipient_id) AS high FROM source
WHERE recipient_id IS NOT NULL GROUP BY low, high ORDER BY min(id);
"""
_ROOM_OR_PAIR: Final = """
coalesce(room_id, (SELECT conversation.id FROM conversation WHERE kind = 'direct' AND low_id = min(sender_id, recipient_id)
                   AND high_id = max(sender_id, recipient_id)))
"""
# Every message of each of the reader's pairs: SQLite merges them by sorting.
_OF_PAIRS: Final = [
    "SELECT message.id, time_ms, sender_id, CASE sender_id WHEN low_id THEN high_id ELSE low_id END AS recipient_id, text"
    f" FROM conversation CROSS JOIN message ON conversation_id = conversation.id WHERE kind = 'direct' AND {own} AND message.{{0}}"
    " ORDER BY message.id {1} LIMIT :limit"
    for own in ("low_id = :reader", "high_id = :reader AND low_id <> :reader")
]
_WITH_PAIR: Final = (
    "SELECT message.id, time_ms, sender_id, CASE sender_id WHEN low_id THEN high_id ELSE low_id END AS recipient_id, text"
    " FROM message JOIN conversation ON conversation.id = conversation_id"
)
_OF_ROOM: Final = (
    f"SELECT {_PUBLIC_COLUMNS} FROM message WHERE conversation_id = :room AND {{0}} ORDER BY id {{1}} LIMIT :limit"
)
_PAIR_QUERIES: Final = _queries(
    room=_OF_ROOM,
    direct=_OF_PAIRS,
    undelivered=_union(*_OF_PAIRS) + " WHERE recipient_id = :reader",
    visible=f"{_WITH_PAIR} WHERE message.{_IDS} AND (conversation_id = {LOBBY} OR :reader IN (low_id, high_id) OR "
    f"{_MEMBER.format('message')})",
    nonce="SELECT id FROM message WHERE sender_id = :sender AND conversation_id = :room AND nonce = :nonce",
    after="SELECT id, sender_id, conversation_id, text FROM message WHERE id > :after ORDER BY id LIMIT :limit",
)
_INSERT_ROOM: Final = (
    "INSERT INTO message (id, conversation_id, time_ms, sender_id, text)"
    " SELECT :first + key, :room, :time, :sender, value FROM json_each(:texts)"
)
_INSERT_OF_PAIR: Final = (
    "INSERT INTO message (id, conversation_id, time_ms, sender_id, text, nonce)"
    " VALUES (:first, :pair, :time, :sender, :text, :nonce)"
)
_FILL_PAIR_MESSAGES: Final = (
    "INSERT INTO message (id, conversation_id, time_ms, sender_id, text, nonce)"
    f" SELECT id, {_ROOM_OR_PAIR}, time_ms, sender_id, text, nonce FROM source ORDER BY id;"
)
_NONCE: Final = (
    "CREATE UNIQUE INDEX message_nonce ON message (sender_id, nonce, conversation_id) WHERE nonce IS NOT NULL;"
)

CLUSTERED: Final = Candidate(
    schema=_PAIRS
    + f"""
CREATE TABLE message (conversation_id INTEGER NOT NULL, id INTEGER NOT NULL, time_ms INTEGER NOT NULL,
    sender_id INTEGER NOT NULL, text TEXT NOT NULL, nonce TEXT, PRIMARY KEY (conversation_id DESC, id)) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX message_id ON message (id);
{_NONCE}
""",
    fill=_FILL_PAIRS + _FILL_PAIR_MESSAGES,
    insert_room=_INSERT_ROOM,
    insert_direct=_INSERT_OF_PAIR,
    queries=_PAIR_QUERIES,
    has_pairs=True,
)

BY_CONVERSATION: Final = Candidate(
    schema=_PAIRS
    + f"""
CREATE TABLE message (id INTEGER PRIMARY KEY, conversation_id INTEGER NOT NULL, time_ms INTEGER NOT NULL,
    sender_id INTEGER NOT NULL, text TEXT NOT NULL, nonce TEXT) STRICT;
CREATE INDEX message_conversation ON message (conversation_id DESC, id);
{_NONCE}
""",
    fill=_FILL_PAIRS + _FILL_PAIR_MESSAGES,
    insert_room=_INSERT_ROOM,
    insert_direct=_INSERT_OF_PAIR,
    queries=_PAIR_QUERIES,
    has_pairs=True,
)


BY_MEMBER: Final = Candidate(
    schema="""
CREATE TABLE message (id INTEGER PRIMARY KEY, conversation_id INTEGER NOT NULL, time_ms INTEGER NOT NULL,
    sender_id INTEGER NOT NULL, recipient_id INTEGER, text TEXT NOT NULL, nonce TEXT) STRICT;
CREATE INDEX message_conversation ON message (conversation_id, id) WHERE recipient_id IS NULL;
CREATE INDEX message_sender ON message (sender_id, id) WHERE recipient_id IS NOT NULL;
CREATE INDEX message_recipient ON message (recipient_id, id) WHERE recipient_id IS NOT NULL;
CREATE UNIQUE INDEX message_nonce ON message (sender_id, conversation_id, nonce) WHERE nonce IS NOT NULL;
""",
    fill="INSERT INTO message SELECT id, ifnull(room_id, 0), time_ms, sender_id, recipient_id, text, nonce FROM source ORDER BY id;",
    insert_room=_INSERT_ROOM,
    insert_direct="INSERT INTO message VALUES (:first, 0, :time, :sender, :recipient, :text, :nonce)",
    queries=_queries(
        room=_OF_ROOM.replace("AND", "AND recipient_id IS NULL AND", 1),
        direct=[
            f"SELECT {_DIRECT_COLUMNS} FROM message WHERE {own} AND recipient_id IS NOT NULL AND {{0}}"
            " ORDER BY id {1} LIMIT :limit"
            for own in ("sender_id = :reader", "recipient_id = :reader AND sender_id <> :reader")
        ],
        undelivered=f"SELECT {_DIRECT_COLUMNS} FROM message WHERE recipient_id = :reader AND {{0}}"
        " ORDER BY id {1} LIMIT :limit",
        visible=f"SELECT {_DIRECT_COLUMNS} FROM message WHERE {_IDS} AND (conversation_id = {LOBBY} OR"
        f" :reader IN (sender_id, recipient_id) AND recipient_id IS NOT NULL OR {_MEMBER.format('message')})",
        nonce="SELECT id FROM message WHERE sender_id = :sender AND nonce = :nonce AND conversation_id = :room",
        after="SELECT id, sender_id, recipient_id, text FROM message WHERE id > :after ORDER BY id LIMIT :limit",
    ),
)

BY_ROOM: Final = Candidate(
    schema="""
CREATE TABLE message (conversation_id INTEGER NOT NULL, id INTEGER NOT NULL, time_ms INTEGER NOT NULL,
    sender_id INTEGER NOT NULL, recipient_id INTEGER, text TEXT NOT NULL, nonce TEXT,
    PRIMARY KEY (conversation_id DESC, id)) STRICT, WITHOUT ROWID;
CREATE INDEX message_sender ON message (sender_id, id) WHERE recipient_id IS NOT NULL;
CREATE INDEX message_recipient ON message (recipient_id, id) WHERE recipient_id IS NOT NULL;
CREATE UNIQUE INDEX message_nonce ON message (sender_id, conversation_id, nonce) WHERE nonce IS NOT NULL;
""",
    fill="INSERT INTO message (conversation_id, id, time_ms, sender_id, recipient_id, text, nonce)"
    f" SELECT ifnull(room_id, {_DIRECT}), id, time_ms, sender_id, recipient_id, text, nonce FROM source ORDER BY id;",
    insert_room=_INSERT_ROOM,
    insert_direct=f"INSERT INTO message VALUES ({_DIRECT}, :first, :time, :sender, :recipient, :text, :nonce)",
    queries=_queries(
        room=_OF_ROOM,
        direct=[
            f"SELECT {_DIRECT_COLUMNS} FROM message WHERE {own} AND recipient_id IS NOT NULL AND {{0}} ORDER BY id {{1}} LIMIT :limit"
            for own in ("sender_id = :reader", "recipient_id = :reader AND sender_id <> :reader")
        ],
        undelivered=f"SELECT {_DIRECT_COLUMNS} FROM message WHERE recipient_id = :reader AND {{0}}"
        " ORDER BY id {1} LIMIT :limit",
        visible=f"SELECT {_PUBLIC_COLUMNS} FROM message WHERE conversation_id = {LOBBY} AND {_IDS} UNION ALL"
        f" SELECT {_DIRECT_COLUMNS} FROM message WHERE conversation_id = {_DIRECT} AND {_IDS} AND :reader IN (sender_id, recipient_id)",
        nonce="SELECT id FROM message WHERE sender_id = :sender AND nonce = :nonce AND conversation_id = :room",
        after="SELECT message.id, sender_id, recipient_id, text FROM"
        f" (WITH RECURSIVE number (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM number WHERE n < {ROOMS}) SELECT n FROM number)"
        " CROSS JOIN message ON conversation_id = n AND message.id > :after AND message.id <= :after + :limit"
        " ORDER BY message.id LIMIT :limit",
    ),
)

# As the server has it: the lobby is conversation 0, so that its messages are at the end of the table.
KEYED: Final = Candidate(
    schema="""
CREATE TABLE message (key INTEGER PRIMARY KEY, conversation_id INTEGER NOT NULL AS (-(key >> 40)),
    id INTEGER NOT NULL AS (key & 0xFFFFFFFFFF), time_ms INTEGER NOT NULL, sender_id INTEGER NOT NULL,
    recipient_id INTEGER, text TEXT NOT NULL, nonce TEXT) STRICT;
CREATE INDEX message_sender ON message (sender_id, key) WHERE recipient_id IS NOT NULL;
CREATE INDEX message_recipient ON message (recipient_id, key) WHERE recipient_id IS NOT NULL;
CREATE UNIQUE INDEX message_nonce ON message (sender_id, conversation_id, nonce) WHERE nonce IS NOT NULL;
""",
    fill="INSERT INTO message SELECT id - (ifnull(room_id - 1, 1000) << 40), time_ms, sender_id, recipient_id, text, nonce"
    " FROM source ORDER BY id;",
    insert_room="INSERT INTO message SELECT :first - ((:room - 1) << 40) + key, :time, :sender, NULL, value, NULL"
    " FROM json_each(:texts)",
    insert_direct="INSERT INTO message VALUES (:first - (1000 << 40), :time, :sender, :recipient, :text, :nonce)",
    queries=_queries(
        room=f"SELECT {_PUBLIC_COLUMNS} FROM message WHERE key < {{2}} - ((:room - 1) << 40) AND key > {{3}} - ((:room - 1) << 40)"
        " ORDER BY key {1} LIMIT :limit",
        direct=[
            f"SELECT {_DIRECT_COLUMNS} FROM message WHERE {own} AND recipient_id IS NOT NULL AND"
            " key < {2} - (1000 << 40) AND key > {3} - (1000 << 40) ORDER BY key {1} LIMIT :limit"
            for own in ("sender_id = :reader", "recipient_id = :reader AND sender_id <> :reader")
        ],
        undelivered=f"SELECT {_DIRECT_COLUMNS} FROM message WHERE recipient_id = :reader"
        " AND key < {2} - (1000 << 40) AND key > {3} - (1000 << 40) ORDER BY key {1} LIMIT :limit",
        visible=f"SELECT {_DIRECT_COLUMNS} FROM message WHERE key IN (SELECT value FROM json_each(:ids) UNION ALL"
        " SELECT value - (1000 << 40) FROM json_each(:ids)) AND (recipient_id IS NULL OR :reader IN (sender_id, recipient_id))",
        nonce="SELECT id FROM message WHERE sender_id = :sender AND nonce = :nonce AND conversation_id = :room - 1",
        after="SELECT id, sender_id, recipient_id, text FROM"
        f" (WITH RECURSIVE number (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM number WHERE n < {ROOMS}) SELECT n FROM number"
        " UNION ALL SELECT 1000) CROSS JOIN message ON key BETWEEN :after - (n << 40) + 1 AND :after - (n << 40) + :limit"
        " ORDER BY id LIMIT :limit",
    ),
)

CANDIDATES: Final = {
    "two tables": TWO_TABLES,
    "clustered, pairs": CLUSTERED,
    "rowid, pairs": BY_CONVERSATION,
    "clustered, rooms": BY_ROOM,
    "rowid, rooms": BY_MEMBER,
    "key": KEYED,
}


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(prog="python -m bench.schema", description=__doc__)
    parser.add_argument("--messages", type=int, default=5_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="a folder to keep the databases in; used again if they exist")
    parser.add_argument("--only", nargs="+", choices=CANDIDATES, default=list(CANDIDATES))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        folder.mkdir(exist_ok=True)
        paths = {name: _build(folder, name, options.messages) for name in options.only}
        figures: dict[str, dict[str, list[float]]] = {name: {} for name in paths}
        for _ in range(options.rounds):
            for name in random.sample(list(paths), len(paths)):
                _measure(paths[name], CANDIDATES[name], options.messages, figures[name])
        _print(figures, paths)


def _build(folder: Path, name: str, messages: int) -> Path:
    source = folder / "source.db"
    if not source.exists():
        with closing(sqlite3.connect(source, isolation_level=None)) as connection:
            connection.executescript(f"PRAGMA synchronous = OFF; BEGIN; {_SOURCE.format(messages=messages)} COMMIT;")
    path = folder / f"{name.replace(' ', '-')}.db"
    if not path.exists():
        candidate = CANDIDATES[name]
        begin = perf_counter()
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.executescript(
                f"PRAGMA synchronous = OFF; PRAGMA cache_size = -262144; ATTACH '{source}' AS old; BEGIN;"
                f"{_ACCOUNT}{_FILL_ACCOUNTS}{candidate.schema}{_MEMBERSHIP}{candidate.fill} COMMIT; PRAGMA journal_mode = WAL;"
            )
        print(f"{name}: built in {perf_counter() - begin:.0f} s, {path.stat().st_size / 1e6:,.0f} MB", flush=True)
    return path


def _measure(path: Path, candidate: Candidate, messages: int, figures: dict[str, list[float]]) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = FULL")
        _measure_queries(connection, candidate, messages, figures)
        _measure_inserts(connection, candidate, figures)


def _measure_queries(
    connection: sqlite3.Connection, candidate: Candidate, messages: int, figures: dict[str, list[float]]
) -> None:
    before = messages + 1
    # A page of search hits, spread over the whole history.
    ids = json.dumps([n * (messages // 50) + 1 for n in range(50)])
    newest = {"before": before, "limit": 50}
    missed = {"after": messages - 10_000, "limit": 500}
    cases: dict[str, tuple[str, dict[str, int | str]]] = {
        "last 50 of the lobby": ("lobby", {**newest, "room": LOBBY}),
        "last 50 of a room": ("room", {**newest, "room": 7}),
        "last 50 of a quiet room": ("room", {**newest, "room": QUIET_ROOM}),
        "last 50 for a user": ("everything", {**newest, "reader": READER}),
        "last 50 for a bot with many partners": ("everything", {**newest, "reader": BOT}),
        "since, 500 for a user": ("since", {**missed, "reader": READER}),
        "since, 500 for a bot": ("since", {**missed, "reader": BOT}),
        "since, 500 of a room": ("since_room", {"after": messages // 2, "limit": 500, "room": 7}),
        "undelivered to a user": ("undelivered", {"after": messages // 2, "limit": 500, "reader": READER}),
        "undelivered to a bot": ("undelivered", {"after": messages - 10_000, "limit": 500, "reader": BOT}),
        "50 search hits": ("visible", {"ids": ids, "limit": 50, "reader": READER}),
        "nonce": ("nonce", {"sender": 1 + 13 * 7907 % ACCOUNTS, "nonce": "n13", "room": LOBBY}),
        "500 for the indexer": ("after", {"after": messages // 3, "limit": 500}),
    }
    for label, (query, values) in cases.items():
        sql = candidate.queries[query]
        used = {name: value for name, value in values.items() if f":{name}" in sql}
        best = min(_time(lambda: connection.execute(sql, used).fetchall()) for _ in range(7))  # noqa: B023
        figures.setdefault(f"{label}, ms", []).append(best * 1_000)


def _time(act: Callable[[], object]) -> float:
    begin = perf_counter()
    act()
    return perf_counter() - begin


def _measure_inserts(connection: sqlite3.Connection, candidate: Candidate, figures: dict[str, list[float]]) -> None:
    tables = ("public_message", "direct_message") if candidate is TWO_TABLES else ("message",)
    last_ids = (connection.execute(f"SELECT max(id) FROM {table}").fetchone()[0] for table in tables)
    ids = count(max(last_ids) + 1_000)
    for mix, text_bytes in (("mixed", 60), ("lobby only", 60), ("long texts", 2_000), ("direct only", 60)):
        for group, groups in _GROUPS.items():
            begin, cpu = perf_counter(), process_time()
            for _ in range(groups):
                connection.execute("BEGIN")
                _insert_group(connection, candidate, ids, group, mix, "x" * text_bytes)
                connection.execute("COMMIT")
            stored = group * groups
            figures.setdefault(f"insert, {mix}, {group:,} a commit, µs a message", []).append(
                (perf_counter() - begin) / stored * 1e6
            )
            figures.setdefault(f"insert, {mix}, {group:,} a commit, µs of processor", []).append(
                (process_time() - cpu) / stored * 1e6
            )
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _insert_group(
    connection: sqlite3.Connection, candidate: Candidate, ids: Any, group: int, mix: str, text: str
) -> None:
    left = group
    while left:
        first = next(ids)
        part = first * 7919 % 1000 if mix == "mixed" else 999 if mix == "direct only" else 0
        sender = 1 + first * 7907 % ACCOUNTS
        values: dict[str, Any] = {"first": first, "time": 1_800_000_000_000, "sender": sender}
        if part >= _DIRECT_PART:
            recipient = 1 + (sender + first % 97 * 31) % ACCOUNTS
            values |= {"recipient": recipient, "text": text, "nonce": None}
            if candidate.has_pairs:
                values["pair"] = _pair(connection, sender, recipient)
                del values["recipient"]
            connection.execute(candidate.insert_direct, values)
            left -= 1
            continue
        run = min(left, _RUN)
        for _ in range(run - 1):
            next(ids)
        values |= {"texts": json.dumps([text] * run), "room": LOBBY if part < _ROOM_PART else 2 + first % 49}
        if ":room" not in candidate.insert_room:
            del values["room"]
        connection.execute(candidate.insert_room, values)
        left -= run


def _pair(connection: sqlite3.Connection, sender: int, recipient: int) -> int:
    pair = (min(sender, recipient), max(sender, recipient))
    find = "SELECT id FROM conversation WHERE kind = 'direct' AND low_id = ? AND high_id = ?"
    row = connection.execute(find, pair).fetchone()
    if row is None:
        insert = "INSERT INTO conversation (kind, low_id, high_id) VALUES ('direct', ?, ?) RETURNING id"
        row = connection.execute(insert, pair).fetchone()
    return int(row[0])


def _print(figures: dict[str, dict[str, list[float]]], paths: dict[str, Path]) -> None:
    labels = list(next(iter(figures.values())))
    print(f"| {'':52} | {' | '.join(figures)} |")
    for label in labels:
        print(f"| {label:52} | {' | '.join(f'{statistics.median(rows[label]):.2f}' for rows in figures.values())} |")
    print(f"| {'file, MB':52} | {' | '.join(f'{path.stat().st_size / 1e6:,.0f}' for path in paths.values())} |")


if __name__ == "__main__":
    main()
