"""The results of a run: the figures of each measurement, and the machine. The result files are their JSON."""

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
    """The nearest rank: the smallest value that at least ``percent`` percent of all values do not exceed."""
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


class Percentiles(Struct, frozen=True):
    """Times in milliseconds."""

    count: int
    p50: float
    p90: float
    p99: float
    p99_9: float
    max: float


def percentiles(milliseconds: Sequence[float]) -> Percentiles:
    """The percentiles of at least one value."""
    ordered = sorted(milliseconds)
    p50, p90, p99, p99_9 = (percentile(ordered, percent) for percent in (50, 90, 99, 99.9))
    return Percentiles(len(ordered), p50, p90, p99, p99_9, ordered[-1])


class Throughput(Struct):
    """Deliveries a second of one server; a value for each round.

    ``failure`` is the reason of a failed load, and empty if the load succeeded.
    """

    server: str
    receivers: int
    senders: int
    deliveries_per_second: list[float] = []
    failure: str = ""

    @property
    def median(self) -> float | None:
        """The median of the rounds; None if a load failed."""
        return None if self.failure else median(self.deliveries_per_second)


class Latency(Struct):
    """Times of deliveries at a steady rate, and of confirmations at the sender; a value for each round."""

    server: str
    receivers: int
    messages_per_second: int
    rounds: list[Percentiles] = []
    failure: str = ""
    # Empty if the load does not know the confirmations of the protocol.
    confirmations: list[Percentiles] = []

    @property
    def median(self) -> Percentiles | None:
        """See :func:`medians`; None if a load failed."""
        return None if self.failure else medians(self.rounds)


def medians(rounds: Sequence[Percentiles]) -> Percentiles:
    """The median of each percentile over the rounds."""
    columns = [median(column) for column in zip(*(msgspec.structs.astuple(value) for value in rounds), strict=True)]
    return Percentiles(int(columns[0]), *columns[1:])


class Memory(Struct):
    """Resident memory of a server at a number of connections."""

    connections: int
    resident_bytes: int


class ManyConnections(Struct):
    """Many connections in the room: their memory, and deliveries to all of them."""

    server: str
    memory: list[Memory] = []
    logins_per_second: float = 0.0
    deliveries_per_second: float = 0.0
    after_load_bytes: int = 0
    failure: str = ""

    def bytes_per_connection(self, resident_bytes: int) -> float:
        """Memory of one connection. ``resident_bytes`` is the server's memory with all connections."""
        return (resident_bytes - self.memory[0].resident_bytes) / self.memory[-1].connections


class Logins(Struct):
    """Logins a second, ``count`` in all and ``at_once`` in progress; a value for each round."""

    at_once: int
    count: int
    new_per_second: list[float] = []
    existing_per_second: list[float] = []


class Storm(Struct):
    """Latency without and during ``seconds`` of many simultaneous logins, with the default hash parameters."""

    logins: int
    receivers: int
    seconds: float
    without: Percentiles
    during: Percentiles


class Stopped(Struct):
    """Latency if none, or one, of the receivers does not read; a value for each round."""

    receivers: int
    none: list[Percentiles] = []
    one: list[Percentiles] = []


class Rooms(Struct):
    """Many rooms with receivers in several of them, and a sender in each; a value for each round.

    The memory is that of one connection, before the first message and after the load.
    """

    rooms: int
    members: int
    rooms_each: int
    connections: int
    deliveries_per_second: list[float] = []
    connection_bytes: list[float] = []
    after_load_bytes: list[float] = []


class History(Struct):
    """Figures of a server with many stored messages, and of a server with none."""

    messages: int
    database_bytes: int
    throughput: list[Throughput]
    latency: list[Latency]
    # Requests for the last 50 messages (CH).
    requests: Percentiles


class Cluster(Struct):
    """Servers that share a log, beside one without it: see measure.py. Catching up has a value for each round."""

    throughput: list[Throughput]
    latency: list[Latency]
    # Resident bytes of a server by name, after the load of the latency.
    memory: dict[str, int]
    caught_up_messages: int = 0
    caught_up_per_second: list[float] = []
    # The processors of the chat servers, of NATS and of the load.
    placement: str = ""
    # By server: the time until NATS has stored a record of the size of a message, beside the same chat servers.
    engine: dict[str, list[Percentiles]] = {}


class Engine(Struct):
    """NATS alone: records at a steady rate, and records a second with several in flight; a value for each round."""

    replicas: int
    record_bytes: int
    records_per_second: int
    in_flight: int
    rounds: list[Percentiles] = []
    in_flight_per_second: list[float] = []


class Machine(Struct):
    """The machine that the figures are from."""

    processor: str
    processors: int
    memory_gib: float
    kernel: str
    python: str
    sqlite: str
    # The disk of the data folders. A sync takes longer after the disk has rested for 2 ms.
    file_system: str
    sync_ms: float
    rested_sync_ms: float
    # The processors of the servers and of the load.
    pinning: str


class Results(Struct):
    """One run."""

    date: str
    commit: str
    machine: Machine
    # The version of each server, and the reason for each server that was left out.
    servers: dict[str, str]
    left_out: dict[str, str]
    rounds: int
    seconds: float = 0.0
    throughput: list[Throughput] = []
    latency: list[Latency] = []
    connections: list[ManyConnections] = []
    logins: Logins | None = None
    storm: Storm | None = None
    stopped: Stopped | None = None
    rooms: Rooms | None = None
    history: History | None = None
    cluster: Cluster | None = None
    engine: list[Engine] = []
    # The reason for each failed measurement of our own server.
    failures: dict[str, str] = {}


def read(path: Path) -> Results:
    """Read a result file. Raises OSError and msgspec.MsgspecError."""
    return msgspec.json.decode(path.read_bytes(), type=Results)


def write(results: Results, path: Path) -> None:
    """Write indented JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=1) + b"\n")
