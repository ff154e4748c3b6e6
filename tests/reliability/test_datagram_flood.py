"""A flood of datagrams: all others go on talking."""

from __future__ import annotations

import statistics
import struct
import threading
import time
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Self

from integration.room import DatagramPeer, Peer
from reliability.program import Program

if TYPE_CHECKING:
    import random
    from collections.abc import Callable
    from pathlib import Path

MESSAGES = 1_000
FLOODS = 2
# It takes 2 ms in the median, on two processors which the flood has as well.
MEDIAN_MAX_SECONDS = 0.1
MOST_MAX_SECONDS = 2.0
MEBIBYTE = 1024 * 1024
MEMORY_GROWTH_MAX_BYTES = 4 * MEBIBYTE


def random_bytes(chance: random.Random) -> bytes:
    return chance.randbytes(chance.choice((1, 12, 13, 40, 1_213, 1_400)))


def opening(chance: random.Random) -> bytes:
    cookie = chance.choice((b"", b" " + chance.randbytes(8).hex().encode()))
    return b"C" + bytes(12) + (b"flood%d" % chance.randrange(1_000) + cookie).ljust(23)


def stray(chance: random.Random) -> bytes:
    """A datagram of some session that there is not."""
    header = struct.pack(">BQI", chance.choice(b"CDdA"), chance.getrandbits(64), chance.getrandbits(32))
    return header + b"PING".ljust(chance.choice((4, 16, 1_200)))


KINDS: list[Callable[[random.Random], bytes]] = [random_bytes, opening, stray]


class Flood:
    """As many datagrams as a thread can send, until the context is left."""

    def __init__(self, port: int, chance: random.Random) -> None:
        self.sent = 0
        self._peer = DatagramPeer(port)
        self._block = [chance.choice(KINDS)(chance) for _ in range(2_000)]
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="flood")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()
        self._peer.close()

    def _run(self) -> None:
        while not self._is_over.is_set():
            for data in self._block:
                self._peer.throw_bytes(data)
            self.sent += len(self._block)
            self._peer.take_all()


def chat(alice: Peer, bob: Peer) -> list[float]:
    """From saying something to the other one's hearing it, in seconds, for each message."""
    delays = []
    for number in range(MESSAGES):
        one, other = (alice, bob) if number % 2 else (bob, alice)
        said_at = time.monotonic()
        one.ask(command="PM", message=f"message {number}")
        assert other.next("broadcast")["message"] == f"message {number}"
        delays.append(time.monotonic() - said_at)
        one.next("sent")
    return delays


def test_a_flood_of_datagrams_holds_up_nobody(tmp_path: Path, chance: random.Random) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(Program(tmp_path))
        alice, bob = (stack.enter_context(closing(Peer(server.port))) for _ in range(2))
        alice.login("alice")
        bob.login("bob")
        chat(alice, bob)
        before_bytes, threads = server.memory_bytes(), server.threads()
        with ExitStack() as floods:
            flooding = [floods.enter_context(Flood(server.port, chance)) for _ in range(FLOODS)]
            delays = chat(alice, bob)
            growth_bytes = server.memory_bytes() - before_bytes
        median, most = statistics.median(delays), max(delays)
        sent = sum(flood.sent for flood in flooding)
        print(f"median {1_000 * median:.1f} ms, at most {1_000 * most:.0f} ms; {sent} datagrams meanwhile")
        print(f"{growth_bytes / MEBIBYTE:+.1f} MiB")
        assert median < MEDIAN_MAX_SECONDS
        assert most < MOST_MAX_SECONDS
        assert growth_bytes < MEMORY_GROWTH_MAX_BYTES
        assert server.threads() == threads
        with closing(DatagramPeer(server.port)) as carol:
            carol.login("carol")
            carol.say("the flood is over")
            assert alice.next("broadcast")["from"] == "carol"
            carol.command("EX")
            assert carol.is_closed()
        assert server.stop() == 0
        assert "Traceback" not in server.log()
