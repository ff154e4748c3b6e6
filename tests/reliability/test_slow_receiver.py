"""A receiver that stops reading: it delays no other client, its memory is limited, and it misses nothing."""

from __future__ import annotations

import re
import statistics
import threading
import time
from contextlib import ExitStack, closing
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from integration.room import DatagramPeer, Peer
from reliability.crowd import Crowd
from reliability.peers import NarrowPeer
from reliability.program import Program

if TYPE_CHECKING:
    from pathlib import Path

    from reliability.crowd import Answer, Member

MEBIBYTE = 1024 * 1024
# The minimum of the setting.
LAG_MAX_BYTES = MEBIBYTE

# The receiver's socket is full after about 12 messages, and its limit is reached after about 270.
MESSAGES_A_SECOND = 125
MESSAGES = 320
TEXT = "x" * 4_000
# A busy machine needs more rounds until each side has had a quiet one.
ROUNDS_MIN = 4
ROUNDS_MAX = 16
# The promise: far above the cost of one message, and far below any wait for a client. Other programs on the machine
# move the 99th percentile more than the median.
MEDIAN_GROWTH_MAX_SECONDS = 0.010
P99_GROWTH_MAX_SECONDS = 0.100

SAID_BYTES = 60 * MEBIBYTE
BURST_MESSAGES = 200
# In addition to a broadcast buffer (its limit and 4 MiB): one batch, and what the allocator keeps.
MEMORY_MAX_BYTES = 32 * MEBIBYTE


class Delays(NamedTuple):
    """Delivery times, in seconds."""

    median: float
    p99: float


def grows(without: list[Delays], beside: list[Delays]) -> bool:
    """True if the best rounds beside a stopped receiver are worse than the best ones without it."""
    median, p99 = (min(column) for column in zip(*without, strict=True))
    median_beside, p99_beside = (min(column) for column in zip(*beside, strict=True))
    return median_beside > median + MEDIAN_GROWTH_MAX_SECONDS or p99_beside > p99 + P99_GROWTH_MAX_SECONDS


class Audience:
    """99 clients that read, and one that sends at a steady pace."""

    def __init__(self, crowd: Crowd, port: int) -> None:
        self._crowd = crowd
        self._listeners = crowd.enter(port, [f"listener{number}" for number in range(99)])
        (self._talker,) = crowd.enter(port, ["talker"])
        self.heard: dict[Member, list[int]] = {listener: [] for listener in self._listeners}
        self.confirmed: list[int] = []
        self._delays: list[float] = []
        self._talker.react = self._note_confirmation
        for listener in self._listeners:
            listener.react = self._note_delivery

    def _note_confirmation(self, member: Member, answer: Answer) -> None:
        if answer["type"] == "sent":
            self.confirmed.append(answer["id"])
        member.seen.clear()

    def _note_delivery(self, member: Member, answer: Answer) -> None:
        if answer["type"] == "broadcast":
            self._delays.append(time.monotonic() - float(answer["message"].split()[0]))
            self.heard[member].append(answer["id"])
        member.seen.clear()

    def measure(self) -> Delays:
        """Send at a steady pace, and measure the delivery times."""
        before = len(self.confirmed)
        self._delays.clear()
        pace = threading.Event()
        send_at = time.monotonic()
        for _ in range(MESSAGES):
            pace.wait(max(0.0, send_at - time.monotonic()))
            self._talker.ask(command="PM", message=f"{time.monotonic()} {TEXT}")
            send_at += 1 / MESSAGES_A_SECOND
        self._crowd.wait_until(
            lambda: len(self.confirmed) == before + MESSAGES and len(self._delays) == MESSAGES * len(self._listeners),
            "all confirmations and deliveries",
        )
        percentiles = statistics.quantiles(self._delays, n=100)
        return Delays(percentiles[49], percentiles[98])


def read_rest(port: int, last_read_id: int, last_id: int) -> list[int]:
    """Log in with the last id that was read. Returns the ids of the missed messages."""
    ids = [last_read_id]
    with closing(Peer(port)) as peer:
        peer.login("sleeper", since=last_read_id)
        while ids[-1] < last_id:
            ids.append(peer.next("broadcast")["id"])
    return ids[1:]


@pytest.mark.long
@pytest.mark.parametrize("kind", [NarrowPeer, DatagramPeer])
def test_stopped_receiver_does_not_delay_the_others(tmp_path: Path, kind: type[NarrowPeer | DatagramPeer]) -> None:
    """Promises: it is disconnected at its limit, the log has the reason, and after a login it has missed nothing.

    A busy machine makes all percentiles worse for a while, so the best rounds are compared.
    """
    rounds = 0
    with Program(tmp_path, CHAT_LAG_MAX_BYTES=str(LAG_MAX_BYTES)) as server, Crowd() as crowd:
        audience = Audience(crowd, server.port)
        without: list[Delays] = []
        beside: list[Delays] = []
        while rounds < ROUNDS_MIN or (rounds < ROUNDS_MAX and grows(without, beside)):
            rounds += 1
            without.append(audience.measure())
            # A new connection each time: the kernel's buffer of a used one may have grown by megabytes.
            with closing(kind(server.port)) as sleeper:
                welcome = sleeper.login("sleeper")
                beside.append(audience.measure())
                if isinstance(sleeper, NarrowPeer):
                    heard = [welcome["last_id"]]
                    heard += [answer["id"] for answer in sleeper.rest() if answer["type"] == "broadcast"]
                    heard += read_rest(server.port, heard[-1], audience.confirmed[-1])
                    assert heard == audience.confirmed[-MESSAGES - 1 :]
                reasons = re.findall(r"^\[WARNING\] disconnected reason=lagging .*$", server.log(), re.MULTILINE)
                assert len(reasons) == rounds
                assert f"limit_bytes={LAG_MAX_BYTES} " in reasons[-1]
    print(f"without it: {without}; beside it: {beside}")
    assert not grows(without, beside)
    assert audience.confirmed == list(range(1, 2 * rounds * MESSAGES + 1))
    assert all(heard == audience.confirmed for heard in audience.heard.values())


@pytest.mark.parametrize(
    ("kind", "to"),
    [
        (NarrowPeer, "all"),
        pytest.param(NarrowPeer, "each", marks=pytest.mark.long),
        pytest.param(DatagramPeer, "all", marks=pytest.mark.long),
        pytest.param(DatagramPeer, "each", marks=pytest.mark.long),
    ],
)
def test_memory_for_stopped_receivers_is_limited(
    tmp_path: Path, kind: type[NarrowPeer | DatagramPeer], to: str
) -> None:
    """60 MiB of messages to ten clients that do not read."""
    text = "x" * 8_000
    names = [f"sleeper{number}" for number in range(10)]
    requests: list[dict[str, Any]] = [{"command": "PM", "message": text}]
    if to == "each":
        requests = [{"command": "DM", "to": name, "message": text} for name in names]
    with ExitStack() as stack:
        server = stack.enter_context(Program(tmp_path, CHAT_LAG_MAX_BYTES=str(LAG_MAX_BYTES)))
        for name in names:
            stack.enter_context(closing(kind(server.port))).login(name)
        crowd = stack.enter_context(Crowd())
        (talker,) = crowd.enter(server.port, ["talker"])
        before = most = server.memory_bytes()
        for _ in range(SAID_BYTES // (BURST_MESSAGES * len(text))):
            talker.seen.clear()
            for request in islice(cycle(requests), BURST_MESSAGES):
                talker.ask(**request)
            crowd.wait_until(lambda: len(talker.seen) == BURST_MESSAGES, "the confirmations")
            most = max(most, server.memory_bytes())
        print(f"{(most - before) / MEBIBYTE:.1f} MiB more at most")
        assert most - before < MEMORY_MAX_BYTES
        assert server.log().count("disconnected reason=lagging") == len(names)
