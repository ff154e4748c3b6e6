"""What is measured, and how: each part of the benchmark is a function here.

Every load has a server of its own, just started, with an empty data folder, and no other server runs meanwhile. The
servers have one processor, the load has another one. Servers take turns in each of several rounds, so that whatever
else the machine does meanwhile hits all of them; the figures are medians, and each round's value is kept.

throughput   One or ten senders and 10, 100 or 1,000 receivers, all in one room; texts of 64 bytes, at most 1,000 of
             them under way. Deliveries a second, from the first message sent to the last one delivered.
latency      500 messages a second to 100 receivers: for each delivery the time from before the message was sent to
             after it was received.
crowd        Connections are made in steps up to 9,000, all of them logged in and receiving: the server's resident
             memory at each step, before any message was sent; then deliveries a second to all of them, and the
             memory after that. Not of the IRC servers: each tells all of each who comes, 40 million lines for 9,000.
             Over UDP sessions count as connections.
logins       Logins a second, 32 under way at once, with the cheapest hash parameters: first of new names, then of the
             same ones on new connections. All stay until the last one is in.
storm        Latency, as above, without and with 500 logins of new names meanwhile, all begun at once, with the default
             hash parameters.
stopped      Latency of 99 receivers, after a burst that fills every buffer of the one who does not read; and the same
             without that one. The limit at which it would be disconnected is far away.
history      Throughput and latency of a server that has stored five million messages, a tenth of them direct ones,
             beside one that has stored none; and how long the last 50 take then (CH).

The last four are of our own server alone. A server that closes a connection, loses or doubles a message or stands still
has failed the load, and is not given the same load again.
"""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Final

from bench import history
from bench.crowd import LOGINS_AT_ONCE, Crowd, LoadError
from bench.load import flow, pace
from bench.protocols import WIRES
from bench.results import Crowd as CrowdResult
from bench.results import History, Latency, Logins, Memory, Percentiles, Stopped, Storm, Throughput, percentiles
from bench.servers import CHEAPEST_HASH, ServerError, chatserver, resident_bytes, running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from bench.servers import Running, Server

# A receiver that stops is to be far behind, and to stay.
_FAR: Final = ("--lag-max-bytes", str(1024**3))
_SMALL_BUFFER_BYTES: Final = 4 * 1024
_BURST_SECONDS: Final = 0.5
# Who asks for the history.
_ASKER: Final = "asker"


@dataclass(frozen=True)
class Plan:
    """How much is measured. The names of the parts are the functions' below."""

    rounds: int = 3
    # Receivers and senders of each load.
    loads: tuple[tuple[int, int], ...] = ((10, 1), (100, 1), (1_000, 1), (100, 10))
    load_seconds: float = 0.8
    paced_receivers: int = 100
    messages_per_second: int = 500
    pace_seconds: float = 1.5
    crowd_steps: tuple[int, ...] = (1_000, 3_000, 6_000, 9_000)
    # Servers that have not let all in by then, have failed.
    crowd_enter_seconds: float = 40.0
    logins: int = 2_000
    storm_logins: int = 500
    stored_messages: int = 5_000_000
    stored_loads: tuple[tuple[int, int], ...] = ((100, 1), (1_000, 1))
    asks: int = 500


QUICK: Final = Plan(
    rounds=1,
    loads=((10, 1), (100, 1), (100, 10)),
    load_seconds=0.3,
    pace_seconds=0.5,
    crowd_steps=(100, 300, 1_000),
    crowd_enter_seconds=5.0,
    logins=200,
    storm_logins=40,
    stored_messages=100_000,
    stored_loads=((100, 1),),
    asks=100,
)


class Ground:
    """Where it is measured: a folder to write in, a processor for the servers, and who is told how far it is."""

    def __init__(
        self,
        plan: Plan,
        servers: Sequence[Server],
        scratch: Path,
        say: Callable[[str], None],
        *,
        processor: int | None = None,
        patience_seconds: float = 0.0,
    ) -> None:
        self.plan = plan
        self.servers = servers
        self.scratch = scratch
        self.say = say
        self._processor = processor
        self._patience_seconds = patience_seconds
        self._numbers = count()

    @contextmanager
    def running(self, server: Server) -> Iterator[Running]:
        """The server, just started, in a folder that is removed afterwards."""
        folder = self.scratch / f"server-{next(self._numbers)}"
        try:
            with running(server, folder, self._processor) as started:
                yield started
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def crowd(self, server: Server) -> Iterator[tuple[Crowd, Running]]:
        """The server, just started, and connections to it."""
        with self.running(server) as started, self.connect(server, started) as crowd:
            yield crowd, started

    def connect(self, server: Server, started: Running) -> Crowd:
        """Connections to a server that runs."""
        return Crowd(
            WIRES[server.wire],
            started.port,
            patience_seconds=self._patience_seconds,
            logins_at_once=server.logins_at_once,
        )


def _names(number: int) -> list[str]:
    """Equally long, so that messages are; and short enough for every server."""
    return [f"n{index:05d}" for index in range(number)]


@contextmanager
def _noting_failure(row: Throughput | Latency | CrowdResult) -> Iterator[None]:
    try:
        yield
    except (LoadError, ServerError) as error:
        row.failure = str(error)


# --- of all servers ---


def throughput(ground: Ground) -> list[Throughput]:
    """See above."""
    return _throughput(ground, ground.servers, ground.plan.loads)


def _throughput(ground: Ground, servers: Sequence[Server], loads: Sequence[tuple[int, int]]) -> list[Throughput]:
    rows = {(server.name, load): Throughput(server.name, *load) for load in loads for server in servers}
    for number in range(1, ground.plan.rounds + 1):
        for server in servers:
            ground.say(f"throughput, round {number} of {ground.plan.rounds}: {server.name}")
            for load in loads:
                row = rows[server.name, load]
                with _noting_failure(row):
                    if not row.failure:
                        row.deliveries_per_second.append(_flow(ground, server, *load))
    return list(rows.values())


def _flow(ground: Ground, server: Server, receivers: int, senders: int) -> float:
    names = _names(receivers + senders)
    with ground.crowd(server) as (crowd, _):
        crowd.enter(names[:receivers], names[receivers:])
        crowd.settle()
        return flow(crowd, ground.plan.load_seconds).deliveries_per_second


def latency(ground: Ground) -> list[Latency]:
    """See above."""
    return _latency(ground, ground.servers)


def _latency(ground: Ground, servers: Sequence[Server]) -> list[Latency]:
    plan = ground.plan
    rows = [Latency(server.name, plan.paced_receivers, plan.messages_per_second) for server in servers]
    for number in range(1, plan.rounds + 1):
        for server, row in zip(servers, rows, strict=True):
            ground.say(f"latency, round {number} of {plan.rounds}: {server.name}")
            with _noting_failure(row):
                if not row.failure:
                    row.rounds.append(_pace(ground, server))
    return rows


def _pace(ground: Ground, server: Server) -> Percentiles:
    with ground.crowd(server) as (crowd, _):
        return _pace_crowd(ground, crowd)


def _pace_crowd(ground: Ground, crowd: Crowd) -> Percentiles:
    names = _names(ground.plan.paced_receivers + 1)
    crowd.enter(names[1:], names[:1])
    crowd.settle()
    return _keep_pace(ground, crowd)


def _keep_pace(ground: Ground, crowd: Crowd) -> Percentiles:
    return percentiles(pace(crowd, ground.plan.messages_per_second, ground.plan.pace_seconds))


def crowds(ground: Ground) -> list[CrowdResult]:
    """See above."""
    servers = [server for server in ground.servers if server.wire != "irc"]
    rows = [CrowdResult(server.name) for server in servers]
    for server, row in zip(servers, rows, strict=True):
        ground.say(f"crowd: {server.name}")
        with _noting_failure(row), ground.crowd(server) as (crowd, started):
            _gather(ground.plan, row, crowd, started)
    return rows


def _gather(plan: Plan, row: CrowdResult, crowd: Crowd, started: Running) -> None:
    sender, *receivers = _names(plan.crowd_steps[-1])
    row.memory.append(Memory(0, resident_bytes(started.pid)))
    seconds = crowd.enter([], [sender])
    inside = 0
    for step in plan.crowd_steps:
        seconds += crowd.enter(receivers[inside : step - 1], limit_seconds=plan.crowd_enter_seconds - seconds)
        inside = step - 1
        crowd.settle()
        row.memory.append(Memory(step, resident_bytes(started.pid)))
    row.logins_per_second = plan.crowd_steps[-1] / seconds
    row.deliveries_per_second = flow(crowd, plan.load_seconds).deliveries_per_second
    row.after_load_bytes = resident_bytes(started.pid)


# --- of our own server ---


def logins(ground: Ground) -> Logins:
    """See above. Raises LoadError and ServerError, as the following do."""
    result = Logins(LOGINS_AT_ONCE, ground.plan.logins)
    server = chatserver(*CHEAPEST_HASH)
    names = _names(ground.plan.logins)
    for number in range(1, ground.plan.rounds + 1):
        ground.say(f"logins, round {number} of {ground.plan.rounds}")
        with ground.crowd(server) as (watcher, started):
            watcher.enter(["watcher"])
            for values in (result.new_per_second, result.existing_per_second):
                with ground.connect(server, started) as crowd:
                    values.append(len(names) / crowd.enter(names))
                watcher.settle()
    return result


def storm(ground: Ground) -> Storm:
    """See above."""
    plan = ground.plan
    ground.say("storm of logins")
    with ground.crowd(chatserver()) as (crowd, _):
        without = _pace_crowd(ground, crowd)
        for number in range(plan.storm_logins):
            crowd.begin_entering(f"storm{number:05d}")
        milliseconds = pace(crowd, plan.messages_per_second, 0.0)
        during = percentiles(milliseconds)
    seconds = during.count / plan.paced_receivers / plan.messages_per_second
    return Storm(plan.storm_logins, plan.paced_receivers, seconds, without, during)


def stopped(ground: Ground) -> Stopped:
    """See above."""
    result = Stopped(ground.plan.paced_receivers)
    for number in range(1, ground.plan.rounds + 1):
        ground.say(f"stopped receiver, round {number} of {ground.plan.rounds}")
        for values, is_stopped in ((result.none, False), (result.one, True)):
            values.append(_pace_beside(ground, is_stopped=is_stopped))
    return result


def _pace_beside(ground: Ground, *, is_stopped: bool) -> Percentiles:
    """Latency of the others, with one that has stopped reading or without."""
    sender, *receivers = _names(ground.plan.paced_receivers)
    with ground.crowd(chatserver(*CHEAPEST_HASH, *_FAR)) as (crowd, _):
        fd = crowd.begin_entering("deaf", receive_bytes=_SMALL_BUFFER_BYTES)
        crowd.enter(receivers, [sender])
        crowd.settle()
        if is_stopped:
            crowd.stop_reading(fd)
        flow(crowd, _BURST_SECONDS)
        crowd.settle()
        return _keep_pace(ground, crowd)


def stored(ground: Ground) -> History:
    """See above."""
    plan = ground.plan
    data = ground.scratch / "stored"
    try:
        ground.say(f"history: storing {plan.stored_messages:,} messages")
        empty = chatserver(*CHEAPEST_HASH)
        full = chatserver(*CHEAPEST_HASH, data=data, name=f"{empty.name} with history")
        # The server makes its schema by itself, and the account of one who will have a part in it.
        with ground.crowd(full) as (crowd, _):
            crowd.enter([_ASKER])
        size_bytes = history.fill(data, plan.stored_messages)
        rows = _throughput(ground, (empty, full), plan.stored_loads)
        delays = _latency(ground, (empty, full))
        ground.say("history: asking for the last messages")
        with ground.running(full) as started:
            asked = percentiles(history.ask(started.port, _ASKER, plan.asks))
    finally:
        shutil.rmtree(data, ignore_errors=True)
    return History(plan.stored_messages, size_bytes, rows, delays, asked)
