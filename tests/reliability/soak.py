"""The soak: visitors of all manners for as long as you like, and whether the server is the same afterwards.

    python -m reliability.soak --minutes 30

It goes in rounds, of a minute each where there is time. At the end of a round all have left but one who only listens,
and the server comes to rest: it must have as many threads and descriptors as before the first visitor came. In the end
its memory is compared with what it was after the first rounds, and what was confirmed and heard with what is stored.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
from array import array
from bisect import bisect_left, bisect_right
from collections import Counter
from contextlib import ExitStack, closing
from pathlib import Path
from typing import NamedTuple

import msgspec
from integration.room import Peer
from reliability.history import Content
from reliability.program import DEADLINE_SECONDS, Program
from reliability.visitors import LOCKED, NAMES, PASSWORD, TEXT_MAX_BYTES, Ledger, Visitor, key

MEBIBYTE = 1024 * 1024
VISITORS = 8
LAG_MAX_BYTES = MEBIBYTE
SETTINGS = {"CHAT_LAG_MAX_BYTES": str(LAG_MAX_BYTES), "CHAT_LOGIN_SECONDS": "5", "CHAT_USERS_SECONDS": "1"}
# Who vanishes over UDP is noticed by the silence; all have left when it is judged what is left of them.
SILENCE_SECONDS = 3.0
# A stream keeps its limit and 4 MiB more. If it were not filled at first, its filling up would look like a leak.
FILLING_BYTES = LAG_MAX_BYTES + 5 * MEBIBYTE
_FILLING_MESSAGES = 100
# Mostly it is 0 to 1.3 MiB, after 12 s as after 5 minutes. But when everybody comes back at once (see TEXT_MAX_BYTES),
# the allocator may keep 8 MiB from then on.
MEMORY_GROWTH_MAX_BYTES = 10 * MEBIBYTE
_ROUND_SECONDS = 60.0
# For the first and the last fifth.
_ROUNDS_MIN = 5
_SAMPLE_SECONDS = 2.0
# A fault may have thousands of consequences.
_PROBLEMS_TOLD_MAX = 20


class Sample(NamedTuple):
    """What the server holds."""

    memory_bytes: int
    threads: int
    descriptors: int

    @classmethod
    def take(cls, server: Program) -> Sample:
        return cls(server.memory_bytes(), server.threads(), server.descriptors())


class Witness:
    """It stays from the first to the last, hears everything, and says nothing."""

    def __init__(self, port: int) -> None:
        self.heard = array("Q")
        self.failure = ""
        self._peer = Peer(port)
        self._peer.login("witness", PASSWORD)
        self._thread = threading.Thread(target=self._run, name="witness")
        self._thread.start()

    def join(self) -> None:
        """Wait until the server has closed."""
        self._thread.join()
        self._peer.close()

    def _run(self) -> None:
        try:
            while line := self._peer.line():
                answer = msgspec.json.decode(line)
                if answer["type"] == "broadcast":
                    self.heard.append(answer["id"])
        except Exception as error:
            self.failure = f"the witness: {error!r}"


class Soak:
    """A soak of one server. ``seconds`` are those of all rounds together."""

    def __init__(self, server: Program, seconds: float, seed: str) -> None:
        self._server = server
        self._seed = seed
        self._rounds = max(_ROUNDS_MIN, round(seconds / _ROUND_SECONDS))
        self._round_seconds = seconds / self._rounds
        self._ledger = Ledger()
        # At the end of each round.
        self._rests: list[Sample] = []

    def run(self) -> list[str]:
        """All of it, to the end of the server; prints a line for each round. Returns what is wrong."""
        print(f"CHAT_TEST_SEED={self._seed}: {self._rounds} rounds of {self._round_seconds:g} s, {VISITORS} at a time")
        witness = Witness(self._server.port)
        try:
            self._play()
            code = self._server.stop()
        finally:
            self._server.kill()  # nobody waits for it any more
            witness.join()
        problems = [*self._ledger.failures, witness.failure, f"it ended with {code}" if code else ""]
        problems += [self._judge_memory(), self._judge_log(), *self._judge_messages(witness)]
        return [problem for problem in problems if problem][:_PROBLEMS_TOLD_MAX]

    def _play(self) -> None:
        before = Sample.take(self._server)
        self._furnish()
        print(f"before: {_describe(self._rest(before))}")
        while len(self._rests) < self._rounds and not self._ledger.failures:
            busy = self._play_round()
            self._rests.append(self._rest(before))
            self._tell(busy)

    def _furnish(self) -> None:
        """Let the server have from the first all that it keeps for good."""
        for name in (LOCKED, *NAMES):
            with closing(Peer(self._server.port)) as peer:
                peer.login(name, PASSWORD)
        line = b'{"command":"PM","message":"%s"}\n' % (b"x" * TEXT_MAX_BYTES)
        with closing(Peer(self._server.port)) as peer:
            peer.login(NAMES[0], PASSWORD)
            for _ in range(FILLING_BYTES // (_FILLING_MESSAGES * TEXT_MAX_BYTES)):
                peer.send(line * _FILLING_MESSAGES)
                for _ in range(_FILLING_MESSAGES):
                    peer.next("sent")
        # The most that it ever needs at once: all come back after all of this.
        with ExitStack() as stack:
            peers = [stack.enter_context(closing(Peer(self._server.port))) for _ in range(VISITORS)]
            for peer in peers:
                peer.ask(command="login", username=NAMES[1], password=PASSWORD, since=0)
            for peer in peers:
                peer.until_fence()

    def _rest(self, before: Sample) -> Sample:
        """All have left: wait until there is nothing of them."""
        self._server.wait_until(
            lambda: Sample.take(self._server)[1:] == before[1:],
            f"{before.threads} threads and {before.descriptors} descriptors, as before",
        )
        return Sample.take(self._server)

    def _play_round(self) -> list[Sample]:
        """Let visitors come and go; returns what was seen of the server meanwhile."""
        ends_at = time.monotonic() + self._round_seconds
        visitors = [self._invite(place, ends_at) for place in range(VISITORS)]
        samples = []
        for visitor in visitors:
            visitor.thread.start()
        for visitor in visitors:
            while visitor.thread.is_alive():
                visitor.thread.join(_SAMPLE_SECONDS)
                samples.append(Sample.take(self._server))
                overdue = time.monotonic() > ends_at + DEADLINE_SECONDS
                assert not overdue, f"{visitor.thread.name} waits for ever; it wanted to {visitor.role}"
        return samples

    def _invite(self, place: int, ends_at: float) -> Visitor:
        number = f"{len(self._rests) + 1}.{place}"
        return Visitor(number, self._server.port, self._ledger, random.Random(f"{self._seed} {number}"), ends_at)

    def _tell(self, busy: list[Sample]) -> None:
        most = Sample(*map(max, zip(*busy, strict=True)))
        print(
            f"round {len(self._rests)}: {self._ledger.visits.total()} visits, {len(self._ledger.confirmed)} confirmed; "
            f"at rest {_describe(self._rests[-1])}; at most {_describe(most)}",
            flush=True,
        )

    def _judge_memory(self) -> str:
        """The median of the last fifth of the rests against that of the second one."""
        fifth = len(self._rests) // 5
        if not fifth:
            return ""
        memory = [rest.memory_bytes for rest in self._rests]
        growth = statistics.median(memory[-fifth:]) - statistics.median(memory[fifth : 2 * fifth])
        print(f"memory: {growth / MEBIBYTE:+.2f} MiB from the second fifth to the last")
        return "its memory has grown" if growth > MEMORY_GROWTH_MAX_BYTES else ""

    def _judge_log(self) -> str:
        log = self._server.log()
        laggards = log.count("disconnected reason=lagging")
        print(f"{laggards} were disconnected for reading too slowly; visits: {dict(self._ledger.visits)}")
        if "[ERROR]" in log or "Traceback" in log:
            return "there are errors in its log"
        return "" if laggards else "nobody was disconnected for reading too slowly"

    def _judge_messages(self, witness: Witness) -> list[str]:
        """What was confirmed is stored once, and everybody heard what is stored."""
        stored = _read_messages(self._server.data / "chat.db")
        times = Counter(content.text for content in stored.values())
        problems = [
            f"message {message_id} was confirmed, and is not stored once as it was said"
            for message_id, content in self._ledger.confirmed.items()
            if stored.get(message_id) != content or times[content.text] != 1
        ]
        public = [message_id for message_id, content in stored.items() if content.recipient is None]
        if list(witness.heard) != public:
            problems.append("the witness did not hear what is stored")
        problems += [
            f"a laggard did not hear what is stored between {view.after_id} and {view.upto_id}"
            for view in self._ledger.views
            if list(view.ids) != public[bisect_right(public, view.after_id) : bisect_right(public, view.upto_id)]
        ]
        return [*problems, *self._judge_guests(stored)]

    def _judge_guests(self, stored: dict[int, Content]) -> list[str]:
        """What guests were told has come is stored once, and they heard what is stored while they were here."""
        times = Counter(stored.values())
        problems = [
            f"{content.sender} was told that {key(content.text)} has come, and it is not stored once"
            for content in self._ledger.delivered
            if times[content] != 1
        ]
        # Some say the same again and again: there nobody can tell which of it was heard.
        keys = Counter(key(content.text) for content in stored.values())
        told_apart = {
            key(content.text): message_id for message_id, content in stored.items() if keys[key(content.text)] == 1
        }
        in_order = list(told_apart.values())
        for overheard in self._ledger.overheard:
            ids = [told_apart.get(each, 0) for each in overheard.keys if keys[each] < 2]
            if ids != _due_to(overheard.name, ids, in_order, stored):
                problems.append(f"{overheard.name} did not hear what is stored, in its order")
        return problems


def _due_to(name: str, heard: list[int], ids: list[int], stored: dict[int, Content]) -> list[int]:
    """All of these that others said to this guest, between the first and the last that it heard."""
    if not heard:
        return []
    return [
        message_id
        for message_id in ids[bisect_left(ids, heard[0]) : bisect_right(ids, heard[-1])]
        if stored[message_id].sender != name and stored[message_id].recipient in (None, name)
    ]


def _describe(sample: Sample) -> str:
    return f"{sample.memory_bytes / MEBIBYTE:.1f} MiB, {sample.threads} threads, {sample.descriptors} descriptors"


def _read_messages(database: Path) -> dict[int, Content]:
    """Everything that is stored, by id, in the order of the ids."""
    query = """
    SELECT message.id, sender.name, recipient.name, text FROM (
        SELECT id, sender_id, NULL AS recipient_id, text FROM public_message
        UNION ALL SELECT id, sender_id, recipient_id, text FROM direct_message
    ) AS message
    JOIN account AS sender ON sender.id = sender_id
    LEFT JOIN account AS recipient ON recipient.id = recipient_id
    ORDER BY message.id
    """
    with closing(sqlite3.connect(database)) as connection:
        return {message_id: Content(*content) for message_id, *content in connection.execute(query)}


def main() -> int:
    """Soak a server of its own; 1 when something is wrong."""
    parser = argparse.ArgumentParser(prog="soak", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", default=os.environ.get("CHAT_TEST_SEED", "0"))
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    print(f"The server's log and data are in {folder}", flush=True)
    server = Program(folder, silence_seconds=SILENCE_SECONDS, **SETTINGS)
    try:
        server.start()
        problems = Soak(server, 60 * arguments.minutes, arguments.seed).run()
    finally:
        server.kill()
    if problems:
        print("\n".join(problems))
        return 1
    shutil.rmtree(folder)
    print("All is well; the log and the data were removed.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
