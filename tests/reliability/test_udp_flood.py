"""A flood of UDP packets: users over TCP notice nothing, and the server uses no more memory."""

from __future__ import annotations

import statistics
import struct
import threading
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

import pytest
from integration.room import DatagramPeer, Peer
from reliability.bystanders import STALLED_MESSAGES, Stopwatch, attacked, longest

if TYPE_CHECKING:
    import random
    from pathlib import Path

    from reliability.program import Program

MESSAGES = 1_000
FLOODS = 2
# The median is 2 ms.
MEDIAN_MAX_SECONDS = 0.1
# Of all but those that wait while the machine stalls.
MOST_MAX_SECONDS = 2.0
MEBIBYTE = 1024 * 1024
MEMORY_GROWTH_MAX_BYTES = 4 * MEBIBYTE


def packet(chance: random.Random) -> bytes:
    """Random bytes, an opening, or a packet of an unknown session."""
    match chance.randrange(3):
        case 0:
            return chance.randbytes(chance.choice((1, 12, 13, 40, 1_213, 1_400)))
        case 1:
            cookie = chance.choice((b"", b" " + chance.randbytes(8).hex().encode()))
            return b"C" + bytes(12) + (b"flood%d" % chance.randrange(1_000) + cookie).ljust(23)
        case _:
            header = struct.pack(">BQI", chance.choice(b"CDdA"), chance.getrandbits(64), chance.getrandbits(32))
            return header + b"PING".ljust(chance.choice((4, 16, 1_200)))


def flood(port: int, packets: list[bytes], is_over: threading.Event) -> None:
    """Sends as fast as a thread can."""
    with closing(DatagramPeer(port)) as peer:
        while not is_over.is_set():
            for data in packets:
                peer.throw_bytes(data)
            peer.take_all()


def chat(server: Program, alice: Peer, bob: Peer) -> list[float]:
    """The delay of each message, in seconds of a Stopwatch."""
    delays = []
    for number in range(MESSAGES):
        one, other = (alice, bob) if number % 2 else (bob, alice)
        watch = Stopwatch(server)
        one.ask(command="PM", message=f"message {number}")
        assert other.next("broadcast")["message"] == f"message {number}"
        delays.append(watch.seconds())
        one.next("sent")
    return delays


@pytest.mark.long
def test_flood_of_packets_does_not_delay_users(tmp_path: Path, chance: random.Random) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(attacked(tmp_path))
        alice, bob = (stack.enter_context(closing(Peer(server.port))) for _ in range(2))
        alice.login("alice")
        bob.login("bob")
        chat(server, alice, bob)
        before_bytes, threads = server.memory_bytes(), server.threads()
        is_over = threading.Event()
        packets = [packet(chance) for _ in range(2_000)]
        floods = [threading.Thread(target=flood, args=(server.port, packets, is_over)) for _ in range(FLOODS)]
        try:
            for each in floods:
                each.start()
            delays = chat(server, alice, bob)
            growth_bytes = server.memory_bytes() - before_bytes
        finally:
            is_over.set()
            for each in floods:
                each.join()
        median, most = statistics.median(delays), longest(delays, MESSAGES, STALLED_MESSAGES)
        print(f"median {1_000 * median:.1f} ms, at most {1_000 * most:.0f} ms; {growth_bytes / MEBIBYTE:+.1f} MiB")
        assert median < MEDIAN_MAX_SECONDS
        assert most < MOST_MAX_SECONDS
        assert growth_bytes < MEMORY_GROWTH_MAX_BYTES
        assert server.threads() == threads
        with closing(DatagramPeer(server.port)) as carol:
            carol.login("carol")
            carol.say("the flood is over")
            assert alice.next("broadcast")["from"] == "carol"
        assert server.stop() == 0
        assert "Traceback" not in server.log()
