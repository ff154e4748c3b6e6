"""What a run of the benchmark keeps: the figures of each part, and the machine that they are of."""

from __future__ import annotations

import math
from statistics import median
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The smallest value that is not below this many percent of all (the nearest rank)."""
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


class Percentiles(Struct, frozen=True):
    """How long something took, in milliseconds."""

    count: int
    p50: float
    p90: float
    p99: float
    p99_9: float
    max: float


def percentiles(milliseconds: Sequence[float]) -> Percentiles:
    """Of at least one value."""
    ordered = sorted(milliseconds)
    p50, p90, p99, p99_9 = (percentile(ordered, percent) for percent in (50, 90, 99, 99.9))
    return Percentiles(len(ordered), p50, p90, p99, p99_9, ordered[-1])


class Throughput(Struct):
    """Deliveries a second of one server, with so many receivers and senders; a value for each round.

    A load that failed has no value. ``failure`` says why, and stays empty when all went well.
    """

    server: str
    receivers: int
    senders: int
    deliveries_per_second: list[float] = []
    failure: str = ""

    @property
    def median(self) -> float | None:
        """Of the rounds; nothing when a load failed."""
        return None if self.failure else median(self.deliveries_per_second)


class Latency(Struct):
    """How long deliveries took at a steady rate; a value for each round."""

    server: str
    receivers: int
    messages_per_second: int
    rounds: list[Percentiles] = []
    failure: str = ""

    @property
    def median(self) -> Percentiles | None:
        """Each percentile is the median of that of the rounds; nothing when a load failed."""
        return None if self.failure else medians(self.rounds)


def medians(rounds: Sequence[Percentiles]) -> Percentiles:
    """Each percentile is the median of that of the rounds."""
    columns = [median(column) for column in zip(*(msgspec.structs.astuple(value) for value in rounds), strict=True)]
    return Percentiles(int(columns[0]), *columns[1:])


class Memory(Struct):
    """Resident memory of a server that has so many connections."""

    connections: int
    resident_bytes: int


class Crowd(Struct):
    """Many connections at once, all in the room: what they cost, and deliveries to all of them."""

    server: str
    memory: list[Memory] = []
    logins_per_second: float = 0.0
    deliveries_per_second: float = 0.0
    after_load_bytes: int = 0
    failure: str = ""

    def bytes_per_connection(self, resident_bytes: int) -> float:
        """What a connection costs, when all of them together with the empty server take so much."""
        return (resident_bytes - self.memory[0].resident_bytes) / self.memory[-1].connections


class Logins(Struct):
    """Logins a second with the cheapest hash parameters; a value for each round."""

    at_once: int
    count: int
    new_per_second: list[float] = []
    existing_per_second: list[float] = []


class Storm(Struct):
    """Latency of those who are in while many log in at once, with the default hash parameters."""

    logins: int
    receivers: int
    seconds: float
    without: Percentiles
    during: Percentiles


class Stopped(Struct):
    """Latency of the others while one receiver does not read; a value for each round."""

    receivers: int
    none: list[Percentiles] = []
    one: list[Percentiles] = []


class History(Struct):
    """What a server does that has stored many messages, beside one that has stored none."""

    messages: int
    database_bytes: int
    throughput: list[Throughput]
    latency: list[Latency]
    # An answer to CH with the last 50 messages.
    ask: Percentiles


class Machine(Struct):
    """Where the figures are from."""

    processor: str
    processors: int
    memory_gib: float
    kernel: str
    python: str
    sqlite: str
    # Of the folder in which the servers keep their data. A sync takes longer when the disk had 2 ms of rest.
    file_system: str
    sync_ms: float
    rested_sync_ms: float
    # How the processors are shared out.
    pinning: str


class Results(Struct):
    """One run."""

    date: str
    commit: str
    machine: Machine
    # Servers and their versions; and those that were left out, and why.
    servers: dict[str, str]
    left_out: dict[str, str]
    rounds: int
    seconds: float = 0.0
    throughput: list[Throughput] = []
    latency: list[Latency] = []
    crowds: list[Crowd] = []
    logins: Logins | None = None
    storm: Storm | None = None
    stopped: Stopped | None = None
    history: History | None = None
    # Parts of our own server's that failed, and why.
    failures: dict[str, str] = {}


def read(path: Path) -> Results:
    """Raises OSError and msgspec.MsgspecError."""
    return msgspec.json.decode(path.read_bytes(), type=Results)


def write(results: Results, path: Path) -> None:
    """As JSON that people can read, too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=1) + b"\n")
