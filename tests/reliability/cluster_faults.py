"""Random faults of a cluster: of any one chat server, and of any one NATS server at the same time."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from integration.proxies import TcpProxy
    from reliability.cluster import Cluster

# Shortest time that a fault lasts, and that a repaired server is left alone.
_FAULT_MIN_SECONDS = 0.2
_DELAY_SECONDS = 0.1


class Lane(StrEnum):
    """The kind of server that has the fault. Each lane has one fault at a time."""

    CHAT = "chat"
    NATS = "nats"


class Kind(StrEnum):
    """The effect on the process, or to all its connections between chat servers and NATS servers."""

    KILLED = "killed"
    PAUSED = "paused"
    # Connections end, and new ones are refused.
    CUT = "cut off"
    # Connections stay open and carry nothing; later they carry all that was held back.
    HELD = "held"
    SLOW = "slow"


class Fault(NamedTuple):
    """A fault of the server with this index, after a rest of the lane."""

    lane: Lane
    index: int
    kind: Kind
    rest_seconds: float
    seconds: float

    def __str__(self) -> str:
        return f"{self.lane} server {self.index + 1} is {self.kind} for {self.seconds:.1f} s"


def plan_faults(
    chance: random.Random, lane: Lane, servers: int, rest_max_seconds: float, max_seconds: float
) -> Iterator[Fault]:
    """Faults without end. Each kind comes once, in random order, before one comes again. Short ones are frequent."""
    while True:
        for kind in chance.sample(list(Kind), len(Kind)):
            seconds = _FAULT_MIN_SECONDS + (max_seconds - _FAULT_MIN_SECONDS) * chance.random() ** 2
            rest_seconds = chance.uniform(_FAULT_MIN_SECONDS, rest_max_seconds)
            yield Fault(lane, chance.randrange(servers), kind, rest_seconds, seconds)


class Timeline:
    """Events with their times. For any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._began_at = time.monotonic()
        self._lines: list[tuple[str, bool]] = []

    def note(self, text: str, *, is_main: bool = False) -> None:
        """Add a line. Only the main ones are shown when a test fails."""
        with self._lock:
            self._lines.append((f"{time.monotonic() - self._began_at:8.2f} s  {text}", is_main))

    def main(self) -> str:
        """The main lines."""
        with self._lock:
            return "\n".join(line for line, is_main in self._lines if is_main)

    def __str__(self) -> str:
        with self._lock:
            return "\n".join(line for line, _ in self._lines)


class FaultRunner:
    """Breaks and repairs the servers of a lane, in a thread, until ``stop``. ``fail`` gets each problem."""

    def __init__(
        self, cluster: Cluster, faults: Iterator[Fault], timeline: Timeline, fail: Callable[[str], None]
    ) -> None:
        self.count = 0
        self._fail = fail
        self._cluster = cluster
        self._faults = faults
        self._timeline = timeline
        self._stopping = threading.Event()
        self.thread = threading.Thread(target=self._run, name="faults")

    def stop(self) -> None:
        """The present fault is repaired."""
        self._stopping.set()

    def _run(self) -> None:
        try:
            for fault in self._faults:
                if self._stopping.wait(fault.rest_seconds):
                    return
                self.count += 1
                self._note(str(fault))
                with broken(self._cluster, fault):
                    self._stopping.wait(fault.seconds)
                self._note(f"{fault.lane} server {fault.index + 1} is repaired")
                await_recovery(self._cluster, fault)
                self._note(f"{fault.lane} server {fault.index + 1} is ready")
        except Exception as error:
            self._fail(f"a server was not repaired: {error!r}")

    def _note(self, text: str) -> None:
        self._timeline.note(text, is_main=True)


@contextmanager
def broken(cluster: Cluster, fault: Fault) -> Iterator[None]:
    """Break a server, and repair it at the end."""
    if fault.lane is Lane.CHAT:
        server = cluster.servers[fault.index]
        server.healthy_since = None
        links = server.links
        kill, start, pause, resume = server.program.kill, server.launch, server.pause, server.resume
    else:
        engine = cluster.nats[fault.index]
        links = [server.links[fault.index] for server in cluster.servers]
        for server in cluster.servers:
            server.log_broken_at = time.monotonic()
        kill, start, pause, resume = engine.kill, engine.start, engine.pause, engine.resume
    match fault.kind:
        case Kind.KILLED:
            kill()
        case Kind.PAUSED:
            pause()
        case _:
            _set_faults(cluster, links, fault.lane, fault.kind)
    try:
        yield
    finally:
        match fault.kind:
            case Kind.KILLED:
                start()
            case Kind.PAUSED:
                resume()
            case _:
                _set_faults(cluster, links, fault.lane, None)


def await_recovery(cluster: Cluster, fault: Fault) -> None:
    """Wait until the server that was repaired is as before."""
    if fault.lane is Lane.CHAT:
        server = cluster.servers[fault.index]
        server.await_ready()
        server.healthy_since = time.monotonic()
    else:
        cluster.await_nats()


def _set_faults(cluster: Cluster, links: Sequence[TcpProxy], lane: Lane, kind: Kind | None) -> None:
    """Give these links the fault of a lane, or end it. A link that has faults of both lanes has the worse one."""
    with cluster.lock:
        for link in links:
            faults = cluster.link_faults.setdefault(link, {})
            before = _worst(faults)
            faults[lane] = kind
            if (worst := _worst(faults)) is before:
                continue
            link.mend()
            if worst is Kind.CUT:
                link.cut()
            elif worst is Kind.HELD:
                link.pause()
            elif worst is Kind.SLOW:
                link.delay_seconds = _DELAY_SECONDS


def _worst(faults: Mapping[Lane, Kind | None]) -> Kind | None:
    return next((kind for kind in (Kind.CUT, Kind.HELD, Kind.SLOW) if kind in faults.values()), None)
