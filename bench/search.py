"""Writes a long history into a data folder, lets a server index it, and measures the time of searches."""

from __future__ import annotations

import argparse
import json
import random
import socket
import sqlite3
import statistics
import tempfile
from contextlib import closing
from itertools import accumulate
from pathlib import Path
from time import perf_counter, sleep
from typing import TYPE_CHECKING, Any, Final

from bench.history import ACCOUNTS, DATABASE_FILE
from bench.servers import CHEAPEST_HASH, chatserver, resident_bytes, running

if TYPE_CHECKING:
    from collections.abc import Iterator

SCRATCH: Final = Path(__file__).resolve().parent / "scratch"
SEARCH_FILE: Final = "search.db"
# The words of the texts: the n-th word is 1/n times as frequent as the first.
_VOCABULARY: Final = [f"word{number}" for number in range(1, 50_001)]
_WEIGHTS: Final = list(accumulate(1 / rank for rank in range(1, len(_VOCABULARY) + 1)))
_TEXT_WORDS: Final = 8
# Messages per insertion.
_BATCH: Final = 10_000
# One message in 500 is a direct message from the searching user.
_OWN_EACH: Final = 500
_FIRST_MS: Final = 1_700_000_000_000
_ANSWER_SECONDS: Final = 60.0
_INDEX_POLL_SECONDS: Final = 1.0

# Direct messages have even ids, public ones odd ids: see _rows.
QUERIES: Final = {
    "a word of nearly every message": "word1",
    "a common word": "word30",
    "a rare word": "word40000",
    "a word of no message": "nowhere",
    "three common words": "word1 word2 word3",
    "a common and a rare word": "word1 word20000",
    "two common words, together in 3 messages": "left right",
    "millions of others' direct messages, none of mine": "secret",
    "one of my direct messages in a hundred": "ours",
    "a prefix of many words": "word1*",
    "a prefix of a thousand words": "word12*",
    "a prefix of many words, and a rare word": "word40000 word1*",
    "two prefixes and a word of no message": "nowhere word1* word2*",
    "prefixes of two words that are rarely together": "lef* righ*",
    "sixteen common words": " ".join(f"word{number}" for number in range(1, 17)),
}


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(prog="python -m bench.search", description=__doc__)
    parser.add_argument("--messages", type=int, default=5_000_000)
    parser.add_argument("--times", type=int, default=100, help="repetitions of each search")
    parser.add_argument("--data", type=Path, help="a data folder to keep; made if it does not exist")
    options = parser.parse_args()
    SCRATCH.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=SCRATCH) as folder:
        _measure(options, Path(folder), options.data or Path(folder) / "data")


def _measure(options: argparse.Namespace, folder: Path, data: Path) -> None:
    server = chatserver(*CHEAPEST_HASH, data=data)
    if not (data / DATABASE_FILE).exists():
        with running(server, folder / "first") as first:
            _SearchClient(first.port).close()
        begin = perf_counter()
        fill(data, options.messages)
        _show(f"{options.messages:,} messages written in {perf_counter() - begin:.0f} s")
    with running(server, folder / "second") as second:
        client = _SearchClient(second.port)
        begin = perf_counter()
        while client.search("nowhere")["upto"] < client.last_id:
            sleep(_INDEX_POLL_SECONDS)
        _show(f"indexed in {perf_counter() - begin:.0f} s; {_sizes(data)}")
        _show(f"resident memory {resident_bytes(second.pid) / 2**20:.0f} MiB")
        print(f"{'':56}  found   p50 ms  worst ms")
        for label, words in QUERIES.items():
            client.search(words)
            times = [_time(client, words) for _ in range(options.times)]
            found = len(client.search(words)["messages"])
            print(f"{label:56} {found:6} {statistics.median(times):8.2f} {max(times):9.2f}")
        client.close()


class _SearchClient:
    """A client that searches, in the protocol json."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), _ANSWER_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._lines = self._socket.makefile("rb")
        self._send("login", username="asker", password="secret")  # noqa: S106 - of a scratch server
        self.last_id: int = self._wait_for("login")["last_id"]

    def search(self, words: str) -> dict[str, Any]:
        self._send("search", words=words, limit=50)
        return self._wait_for("found")

    def close(self) -> None:
        self._lines.close()
        self._socket.close()

    def _send(self, command: str, **members: Any) -> None:
        self._socket.sendall(json.dumps({"command": command, **members}).encode() + b"\n")

    def _wait_for(self, kind: str) -> dict[str, Any]:
        for line in self._lines:
            answer: dict[str, Any] = json.loads(line)
            if answer["type"] == kind:
                return answer
            if answer["type"] == "error":
                raise SystemExit(f"refused: {answer}")
        raise SystemExit(f"closed by the server before an answer of type {kind}")


def _time(client: _SearchClient, words: str) -> float:
    begin = perf_counter()
    client.search(words)
    return (perf_counter() - begin) * 1_000


def fill(folder: Path, messages: int) -> None:
    """Store messages in the data folder of a stopped server. Its first account is the searching user."""
    with closing(sqlite3.connect(folder / DATABASE_FILE, isolation_level=None)) as connection:
        for pragma in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -262144"):
            connection.execute(f"PRAGMA {pragma}")
        connection.execute("BEGIN")
        connection.executemany(
            "INSERT INTO account (name, name_key, password_hash, created_ms) VALUES (?1, ?1, '', 0)",
            ((f"past{number}",) for number in range(1, ACCOUNTS + 1)),
        )
        connection.execute("UPDATE account SET delivered_id = ?", (messages,))
        for first in range(1, messages + 1, _BATCH):
            rows = _rows(first, min(first + _BATCH, messages + 1))
            insert = (
                "INSERT INTO message (key, time_ms, sender_id, recipient_id, text)"
                " VALUES (?1 - ((?4 IS NOT NULL) << 40), ?2, ?3, ?4, ?5)"
            )
            connection.executemany(insert, rows)
        connection.execute("COMMIT")


def _rows(first: int, end: int) -> Iterator[tuple[int, int, int, int | None, str]]:
    """Messages as id, time, sender, recipient and text. Every second message is direct."""
    chance = random.Random(first)  # noqa: S311 - the same texts in each run
    for number in range(first, end):
        words = chance.choices(_VOCABULARY, cum_weights=_WEIGHTS, k=_TEXT_WORDS)
        sender = 2 + chance.randrange(ACCOUNTS)
        if number % 2:
            # Each of the two words is in half of the public messages; three old messages contain both.
            words.append("left right" if number in (1, 3, 5) else ("left", "right")[number // 2 % 2])
            yield number, _FIRST_MS + number, sender, None, " ".join(words)
        elif number % _OWN_EACH == 0:
            if number % (_OWN_EACH * 100) == 0:
                words.append("ours")
            yield number, _FIRST_MS + number, 1, sender, " ".join(words)
        else:
            words.append("secret")
            recipient = 2 + chance.randrange(ACCOUNTS)
            yield number, _FIRST_MS + number, sender, recipient, " ".join(words)


def _sizes(data: Path) -> str:
    sizes = ((name, (data / name).stat().st_size) for name in (DATABASE_FILE, SEARCH_FILE))
    return ", ".join(f"{name} {size / 1e6:,.0f} MB" for name, size in sizes)


def _show(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    main()
