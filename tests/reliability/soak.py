"""A soak test: random clients of all protocols for any time; afterwards the server must be as before.

    python -m reliability.soak --minutes 30

It has rounds, of a minute each if there is time. At the end of a round all clients but one listener have left, and the
server must have as many threads and descriptors as before the first client. At the end its memory is compared with that
after the first rounds, and the confirmed messages with the stored ones.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from array import array
from collections import Counter
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from integration.room import Peer
from reliability.crowd import Crowd
from reliability.history import read_database
from reliability.peers import NarrowPeer
from reliability.program import DEADLINE_SECONDS, Program
from reliability.random_clients import LOCKED, NAMES, PASSWORD, TEXT_MAX_BYTES, RandomClient, Record

if TYPE_CHECKING:
    from reliability.crowd import Answer, Member

MEBIBYTE = 1024 * 1024
CLIENTS = 8
LAG_MAX_BYTES = MEBIBYTE
SETTINGS = {"CHAT_LAG_MAX_BYTES": str(LAG_MAX_BYTES), "CHAT_LOGIN_SECONDS": "20", "CHAT_USERS_SECONDS": "1"}
# A UDP client that vanishes is noticed after this time.
SILENCE_SECONDS = 3.0
# A full broadcast buffer: its limit and 4 MiB. Filled before the first round, because filling would look like a leak.
FILLING_BYTES = LAG_MAX_BYTES + 5 * MEBIBYTE
_FILLING_MESSAGES = 100
# Mostly 0 to 1.3 MiB, after 12 s as after 5 minutes. After simultaneous logins of all clients (see TEXT_MAX_BYTES) the
# allocator may keep 8 MiB.
MEMORY_GROWTH_MAX_BYTES = 10 * MEBIBYTE
_ROUND_SECONDS = 60.0
# For the first and the last fifth.
_ROUNDS_MIN = 5
_SAMPLE_SECONDS = 2.0
# One fault may have thousands of consequences.
_PROBLEMS_MAX = 20


class Sample(NamedTuple):
    """Resources of the server."""

    memory_bytes: int
    threads: int
    descriptors: int

    @classmethod
    def take(cls, server: Program) -> Sample:
        return cls(server.memory_bytes(), server.threads(), server.descriptors())

    def __str__(self) -> str:
        return f"{self.memory_bytes / MEBIBYTE:.1f} MiB, {self.threads} threads, {self.descriptors} descriptors"


class Soak:
    """A soak of one server. ``seconds`` is the sum of all rounds."""

    def __init__(self, server: Program, seconds: float, seed: str) -> None:
        self._server = server
        self._seed = seed
        self._rounds = max(_ROUNDS_MIN, round(seconds / _ROUND_SECONDS))
        self._round_seconds = seconds / self._rounds
        self._record = Record()
        # At the end of each round.
        self._rests: list[Sample] = []
        # Ids of the messages that a client heard which stays all the time.
        self._heard = array("Q")

    def run(self) -> list[str]:
        """Run to the end of the server. Prints a line for each round. Returns the problems."""
        print(f"CHAT_TEST_SEED={self._seed}: {self._rounds} rounds of {self._round_seconds:g} s, {CLIENTS} at a time")
        with Crowd() as crowd:
            (listener,) = crowd.enter(self._server.port, ["listener"])
            listener.react = self._note_heard
            self._run_rounds()
            code = self._server.stop()
            crowd.wait_until_all_are_over()
        problems = [*self._record.failures, f"it ended with {code}" if code else ""]
        problems += [self._check_memory(), self._check_log(), *self._check_messages()]
        return [problem for problem in problems if problem][:_PROBLEMS_MAX]

    def _note_heard(self, listener: Member, answer: Answer) -> None:
        listener.seen.clear()
        if answer["type"] == "broadcast":
            self._heard.append(answer["id"])

    def _run_rounds(self) -> None:
        threads, sockets = self._server.threads(), self._server.descriptors("socket:")
        self._warm_up()
        self._server.wait_until(
            lambda: (self._server.threads(), self._server.descriptors("socket:")) == (threads, sockets),
            "the end of all connections",
        )
        before = Sample.take(self._server)
        print(f"before: {before}")
        while len(self._rests) < self._rounds and not self._record.failures:
            most = self._run_round()
            self._server.wait_until(
                lambda: Sample.take(self._server)[1:] == before[1:],
                f"{before.threads} threads and {before.descriptors} descriptors, as before",
            )
            self._rests.append(Sample.take(self._server))
            print(
                f"round {len(self._rests)}: {self._record.visits.total()} visits, {len(self._record.confirmed)} "
                f"confirmed; at rest {self._rests[-1]}; at most {most}",
                flush=True,
            )

    def _warm_up(self) -> None:
        """Let the server allocate what it keeps."""
        for name in (LOCKED, *NAMES):
            with closing(Peer(self._server.port)) as peer:
                peer.login(name, PASSWORD)
        line = b'{"command":"PM","message":"%s"}\n' % (b"x" * TEXT_MAX_BYTES)
        # The first who lags for sure. Of the random ones, few lag in a short soak, and perhaps none.
        with closing(NarrowPeer(self._server.port)) as sleeper, closing(Peer(self._server.port)) as peer:
            sleeper.login(NAMES[1], PASSWORD)
            peer.login(NAMES[0], PASSWORD)
            for _ in range(FILLING_BYTES // (_FILLING_MESSAGES * TEXT_MAX_BYTES)):
                peer.send(line * _FILLING_MESSAGES)
                for _ in range(_FILLING_MESSAGES):
                    peer.next("sent")
        # The maximum that it ever needs: simultaneous logins that get all of this.
        with ExitStack() as stack:
            peers = [stack.enter_context(closing(Peer(self._server.port))) for _ in range(CLIENTS)]
            for peer in peers:
                peer.ask(command="login", username=NAMES[1], password=PASSWORD, since=0)
            for peer in peers:
                peer.until_fence()

    def _run_round(self) -> Sample:
        """Returns the maxima of the round."""
        ends_at = time.monotonic() + self._round_seconds
        numbers = [f"{len(self._rests) + 1}.{place}" for place in range(CLIENTS)]
        clients = [
            RandomClient(number, self._server.port, self._record, random.Random(f"{self._seed} {number}"), ends_at)
            for number in numbers
        ]
        samples = [Sample.take(self._server)]
        for client in clients:
            client.thread.start()
        for client in clients:
            while client.thread.is_alive():
                client.thread.join(_SAMPLE_SECONDS)
                samples.append(Sample.take(self._server))
                is_late = time.monotonic() > ends_at + DEADLINE_SECONDS
                assert not is_late, f"{client.thread.name} waits for ever; its role is: {client.role}"
        return Sample(*map(max, zip(*samples, strict=True)))

    def _check_memory(self) -> str:
        """The median of the last fifth of the rounds, compared with that of the second."""
        fifth = len(self._rests) // 5
        if not fifth:
            return ""
        memory = [rest.memory_bytes for rest in self._rests]
        growth = statistics.median(memory[-fifth:]) - statistics.median(memory[fifth : 2 * fifth])
        print(f"memory: {growth / MEBIBYTE:+.2f} MiB from the second fifth to the last")
        return "its memory has grown" if growth > MEMORY_GROWTH_MAX_BYTES else ""

    def _check_log(self) -> str:
        log = self._server.log()
        lagging = log.count("disconnected reason=lagging")
        print(f"{lagging} were disconnected because they lagged; visits: {dict(self._record.visits)}")
        if "[ERROR]" in log or "Traceback" in log:
            return "there are errors in its log"
        return "" if lagging else "no client was disconnected because it lagged"

    def _check_messages(self) -> list[str]:
        """Confirmed messages are stored once, and the listener has heard all those of the lobby."""
        stored = read_database(self._server.data)
        times = Counter(content.text for content in stored.values())
        problems = [
            f"message {message_id} was confirmed, and is not stored once as it was sent"
            for message_id, content in self._record.confirmed.items()
            if stored.get(message_id) != content or times[content.text] != 1
        ]
        if list(self._heard) != [key for key, (_, to, _, room) in stored.items() if to is room is None]:
            problems.append("the listener did not hear the stored messages")
        return problems


def main() -> int:
    """Soak a server of its own. Returns 1 if there are problems."""
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
        server.close()
    if problems:
        print("\n".join(problems))
        return 1
    shutil.rmtree(folder)
    print("No problems. The log and the data were removed.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
