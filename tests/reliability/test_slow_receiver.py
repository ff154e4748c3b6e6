"""A receiver that stops reading: it delays no other client, its memory is limited, and it misses nothing."""

from __future__ import annotations

import re
import statistics
import time
from collections import deque
from contextlib import ExitStack, closing
from itertools import chain, cycle, islice
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from integration.room import DatagramPeer, Peer
from reliability.crowd import Crowd
from reliability.peers import NarrowPeer
from reliability.program import Program

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from reliability.crowd import Answer, Member

MEBIBYTE = 1024 * 1024
# The minimum of the setting.
LAG_MAX_BYTES = MEBIBYTE
LAG = {"CHAT_LAG_MAX_BYTES": str(LAG_MAX_BYTES)}
# No receiver is lost for another reason, however busy the machine is.
PATIENCE_SECONDS = 120.0
PATIENT = ("--peer-timeout-seconds", f"{PATIENCE_SECONDS:g}")

# The receiver's socket is full after about 12 messages, and its limit is reached after about 270.
MESSAGES = 320
TEXT = "x" * 4_000
# A busy machine needs more rounds until each side has had a quiet one.
ROUNDS_MIN = 2
ROUNDS_MAX = 8
# The promise: far above the cost of one message, and far below any wait for a client. Other programs on the machine
# move the longest time more than the median.
MEDIAN_GROWTH_MAX_SECONDS = 0.010
LONGEST_GROWTH_MAX_SECONDS = 0.100

SAID_BYTES = 60 * MEBIBYTE
BURST_MESSAGES = 200
# In addition to a broadcast buffer (its limit and 4 MiB): one batch, and what the allocator keeps.
MEMORY_MAX_BYTES = 32 * MEBIBYTE


class Delays(NamedTuple):
    """Delivery times, in seconds."""

    median: float
    longest: float


def grows(without: list[Delays], beside: list[Delays]) -> bool:
    """True if the best rounds beside a stopped receiver are worse than the best ones without it.

    A busy machine has no two equal rounds: up to twice the time is no growth. A quiet one needs 3 ms for a message.
    """
    median, longest = (min(column) for column in zip(*without, strict=True))
    median_beside, longest_beside = (min(column) for column in zip(*beside, strict=True))
    return median_beside > median + MEDIAN_GROWTH_MAX_SECONDS or longest_beside > longest + LONGEST_GROWTH_MAX_SECONDS


class Audience:
    """99 clients that read, and one that sends to all the rooms that the others are spread over.

    The empty name is the lobby.
    """

    def __init__(self, crowd: Crowd, port: int, rooms: Sequence[str]) -> None:
        self._crowd = crowd
        self.rooms = rooms
        self._listeners = crowd.enter(port, [f"listener{number}" for number in range(99)])
        (self._talker,) = crowd.enter(port, ["talker"])
        self._room_of = dict(zip(self._listeners, cycle(rooms), strict=False))
        joins = [(self._talker, room) for room in rooms if room]
        joins += [(listener, room) for listener, room in self._room_of.items() if room]
        for member, room in joins:
            member.ask(command="join", room=room)
        crowd.wait_until(lambda: all(member.of("joined") for member, _ in joins), "all joins")
        self.heard: dict[Member, list[int]] = {listener: [] for listener in self._listeners}
        self.confirmed: dict[str, list[int]] = {room: [] for room in rooms}
        self._unconfirmed: deque[str] = deque()
        self._delivered = 0
        self._talker.react = self._note_confirmation
        for listener in self._listeners:
            listener.react = self._note_delivery

    def _note_confirmation(self, member: Member, answer: Answer) -> None:
        if answer["type"] == "sent":
            self.confirmed[self._unconfirmed.popleft()].append(answer["id"])
        member.seen.clear()

    def _note_delivery(self, member: Member, answer: Answer) -> None:
        if answer["type"] == "broadcast":
            self._delivered += 1
            self.heard[member].append(answer["id"])
        member.seen.clear()

    def measure(self) -> Delays:
        """Send messages, each after all have received the one before, and measure how long that takes.

        At a steady pace, a busy machine would fall behind, and each message would wait for all before it.
        """
        times = []
        for number in range(MESSAGES):
            self._delivered = 0
            sent_at = time.monotonic()
            for room in self.rooms:
                self._unconfirmed.append(room)
                self._talker.ask(command="PM", message=f"{number} {TEXT}", **({"room": room} if room else {}))
            self._crowd.wait_until(
                lambda: not self._unconfirmed and self._delivered == len(self._listeners),
                "all confirmations and deliveries",
            )
            times.append(time.monotonic() - sent_at)
        return Delays(statistics.median(times), max(times))

    def has_heard_all(self) -> bool:
        """True if each client has heard each message of its room once and in order."""
        return all(heard == self.confirmed[self._room_of[listener]] for listener, heard in self.heard.items())


def fall_asleep(sleeper: NarrowPeer | DatagramPeer, room: str) -> int:
    """Log in and join the room. Returns its last id; 0 over UDP."""
    welcome = sleeper.login("sleeper")
    if isinstance(sleeper, DatagramPeer):
        return 0
    if room:
        sleeper.ask(command="join", room=room)
        welcome = sleeper.next("joined")
    return int(welcome["last_id"])


def read_rest(port: int, room: str, last_read_id: int, last_id: int) -> list[int]:
    """Log in with the last id that was read in the room. Returns the ids of its missed messages."""
    ids = [last_read_id]
    with closing(Peer(port)) as peer:
        peer.login("sleeper", since={room: last_read_id} if room else last_read_id)
        while ids[-1] < last_id:
            ids.append(peer.next("broadcast")["id"])
    return ids[1:]


def reasons(server: Program) -> list[str]:
    """The log entries about receivers that lag."""
    return re.findall(r"^\[WARNING\] disconnected reason=lagging .*$", server.log(), re.MULTILINE)


@pytest.mark.long
@pytest.mark.parametrize(
    ("kind", "rooms"),
    [(NarrowPeer, [""]), (NarrowPeer, ["busy", "quiet"]), (DatagramPeer, [""])],
    ids=["lobby", "rooms", "udp"],
)
def test_stopped_receiver_does_not_delay_the_others(
    tmp_path: Path, kind: type[NarrowPeer | DatagramPeer], rooms: list[str]
) -> None:
    """Promises: it is disconnected at its limit, the log has the reason, and after a login it has missed nothing.

    It is in the first room, or in the lobby, and delays neither this room nor the other one. A busy machine makes some
    rounds worse, so the best ones are compared.
    """
    rounds = 0
    with Program(tmp_path, *PATIENT, silence_seconds=PATIENCE_SECONDS, **LAG) as server, Crowd() as crowd:
        audience = Audience(crowd, server.port, rooms)
        without: list[Delays] = []
        beside: list[Delays] = []
        while rounds < ROUNDS_MIN or (rounds < ROUNDS_MAX and grows(without, beside)):
            rounds += 1
            without.append(audience.measure())
            # A new connection each time: the kernel's buffer of a used one may have grown by megabytes.
            with closing(kind(server.port)) as sleeper:
                last_id = fall_asleep(sleeper, rooms[0])
                beside.append(audience.measure())
                if isinstance(sleeper, NarrowPeer):
                    heard = [last_id]
                    heard += [answer["id"] for answer in sleeper.rest() if answer["type"] == "broadcast"]
                    confirmed = audience.confirmed[rooms[0]]
                    heard += read_rest(server.port, rooms[0], heard[-1], confirmed[-1])
                    assert heard == confirmed[-MESSAGES - 1 :]
                server.wait_until(lambda: len(reasons(server)) == rounds, "the reason in the log")  # noqa: B023
                assert f"limit_bytes={LAG_MAX_BYTES} " in reasons(server)[-1]
    print(f"without it: {without}; beside it: {beside}")
    assert not grows(without, beside)
    assert sorted(chain(*audience.confirmed.values())) == list(range(1, 2 * rounds * MESSAGES * len(rooms) + 1))
    assert audience.has_heard_all()


@pytest.mark.parametrize(
    ("kind", "to"),
    [
        (NarrowPeer, "all"),
        pytest.param(NarrowPeer, "each", marks=pytest.mark.long),
        pytest.param(NarrowPeer, "room", marks=pytest.mark.long),
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
        server = stack.enter_context(Program(tmp_path, *PATIENT, silence_seconds=PATIENCE_SECONDS, **LAG))
        for name in names:
            sleeper = stack.enter_context(closing(kind(server.port)))
            sleeper.login(name)
            if to == "room":
                assert isinstance(sleeper, NarrowPeer)
                sleeper.ask(command="join", room="dev")
                sleeper.next("joined")
        crowd = stack.enter_context(Crowd())
        (talker,) = crowd.enter(server.port, ["talker"])
        if to == "room":
            requests[0]["room"] = "dev"
            talker.ask(command="join", room="dev")
            crowd.wait_until(lambda: bool(talker.of("joined")), "the join")
        before = most = server.memory_bytes()
        for _ in range(SAID_BYTES // (BURST_MESSAGES * len(text))):
            talker.seen.clear()
            for request in islice(cycle(requests), BURST_MESSAGES):
                talker.ask(**request)
            crowd.wait_until(lambda: len(talker.seen) == BURST_MESSAGES, "the confirmations")
            most = max(most, server.memory_bytes())
        print(f"{(most - before) / MEBIBYTE:.1f} MiB more at most")
        assert most - before < MEMORY_MAX_BYTES
        server.wait_until(lambda: len(reasons(server)) == len(names), "the reasons in the log")
