"""The measurements, one function each.

Each load has its own server, just started, with an empty data folder; no other server runs meanwhile. The servers have
one processor, the load has another. The servers take turns in each of several rounds, so that other work of the machine
affects all of them. The figures are medians; the value of each round is kept.

throughput   One or ten senders and 10, 100 or 1,000 receivers in one room; texts of 64 bytes, at most 1,000 messages
             undelivered. Deliveries a second, from the first message to the last delivery.
latency      500 messages a second to 100 receivers. The time of each delivery, which begins before the message is sent
             and ends after it is received.
connections  Up to 9,000 connections, opened in steps, all logged in and receiving. The server's resident memory at each
             step, before the first message; then deliveries a second to all connections, and the memory after that.
             In IRC up to 1,000: each join is sent to all users, which is 40 million lines for 9,000 users. Over UDP a
             session counts as a connection.
logins       Logins a second, 32 at a time, with the cheapest hash parameters: first new names, then the same names on
             new connections. All stay until the last login is accepted.
storm        Latency as above, without and with 500 simultaneous logins of new names, with the default hash parameters.
stopped      Latency of 99 receivers while one more receiver does not read, after a burst that has filled all buffers of
             that receiver; and the same while it reads. The server's lag limit is set so high that it keeps the
             receiver.
rooms        100 rooms of 100 receivers, each of which is in ten rooms and in the lobby, and a sender in each room.
             Deliveries a second of all rooms together, and the memory of a connection before and after them.
history      Throughput and latency of a server with five million stored messages, a tenth of them direct, and of a
             server with none; and the time of a request for the last 50 messages (CH).
cluster      One server alone, one that has its log on NATS, and three that share one on three NATS servers: throughput
             and latency as above, with the connections spread over the servers; and the memory of a server after that.
             The chat servers have the processor of the servers. NATS, which has a machine of its own in a real cluster,
             has the other one, with the load; it runs first, if root runs the benchmark. For each latency also the time
             of each confirmation, at the sender; and after that load, beside the same servers and from their processor,
             the time until NATS has stored a record, as in engine.
             Messages a second that a new server reads from the log until it is ready.
engine       NATS alone, one server and a cluster of three, each with as many replicas: the time until a record is
             acknowledged, at a steady rate; and records a second with several in flight. The confirmation of a message
             by chat servers that share a log takes at least that long. NATS has the processor of the servers.

The measurements from logins to cluster are for our own server only. A server that closes a connection, loses or
duplicates a message, or stalls has failed the load, and does not get the same load again.
"""

from __future__ import annotations

import shutil
from contextlib import ExitStack, contextmanager
from copy import copy
from dataclasses import dataclass, replace
from itertools import count
from time import perf_counter
from typing import TYPE_CHECKING, Final

from bench import history
from bench.connections import LOGINS_AT_ONCE, Connections, LoadError
from bench.engine import measure_engine, measure_engine_at_rate
from bench.load import measure_latency, measure_throughput
from bench.machine import may_prefer, on_processor, prefer
from bench.protocols import PROTOCOLS, json_in_rooms
from bench.results import (
    Cluster,
    Engine,
    History,
    Latency,
    Logins,
    ManyConnections,
    Memory,
    Percentiles,
    Rooms,
    Stopped,
    Storm,
    Throughput,
    percentiles,
)
from bench.servers import (
    CHEAPEST_HASH,
    OURS,
    OURS_ON_NATS,
    OURS_ON_NATS_3,
    ServerError,
    chatserver,
    on_nats,
    resident_bytes,
    running,
)
from ops.nats_servers import NatsError, NatsServers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from bench.protocols import WireProtocol
    from bench.servers import Running, Server

# Flags with which the server keeps a receiver that does not read.
_HUGE_LAG: Final = ("--lag-max-bytes", str(1024**3))
_SMALL_BUFFER_BYTES: Final = 4 * 1024
_HISTORY_READER: Final = "reader"
# Sleep of a load without input that shares its processor with servers.
SHARED_POLL_SECONDS: Final = 0.001


@dataclass(frozen=True)
class Plan:
    """The size of each measurement."""

    rounds: int = 3
    # Receivers and senders of each load.
    loads: tuple[tuple[int, int], ...] = ((10, 1), (100, 1), (1_000, 1), (100, 10))
    throughput_seconds: float = 0.8
    latency_receivers: int = 100
    messages_per_second: int = 500
    latency_seconds: float = 1.5
    connection_steps: tuple[int, ...] = (1_000, 3_000, 6_000, 9_000)
    irc_connection_steps: tuple[int, ...] = (300, 1_000)
    # Time limit of all logins together. With TLS on a busy machine they took 40 s.
    connection_seconds: float = 90.0
    logins: int = 2_000
    storm_logins: int = 500
    # Rooms, receivers in each, and rooms of each receiver, which divides the receivers.
    rooms: tuple[int, int, int] = (100, 100, 10)
    # Load that fills the buffers of a receiver that does not read.
    burst_seconds: float = 0.5
    stored_messages: int = 5_000_000
    stored_loads: tuple[tuple[int, int], ...] = ((100, 1), (1_000, 1))
    history_requests: int = 500
    shared_loads: tuple[tuple[int, int], ...] = ((100, 1), (1_000, 1))
    # Load whose messages a new server reads.
    catch_up_seconds: float = 5.0
    # Replicas of the log. Records: one message of 64 bytes each, at the rate of latency; and as many in flight as our
    # server has.
    engine_replicas: tuple[int, ...] = (1, 3)
    record_bytes: int = 300
    records_per_second: int = 500
    records_in_flight: int = 4
    engine_seconds: float = 4.0


QUICK: Final = Plan(
    rounds=1,
    loads=((10, 1), (100, 1), (100, 10)),
    throughput_seconds=0.3,
    latency_seconds=0.5,
    connection_steps=(100, 300, 1_000),
    irc_connection_steps=(100, 300),
    connection_seconds=5.0,
    logins=200,
    storm_logins=40,
    rooms=(20, 20, 4),
    stored_messages=100_000,
    stored_loads=((100, 1),),
    history_requests=100,
    shared_loads=((100, 1),),
    catch_up_seconds=0.3,
    engine_seconds=1.0,
)


class Environment:
    """The plan, the servers to compare, a scratch folder, the servers' processor, and an output for progress.

    ``nats_processor`` is that of NATS beside chat servers.
    """

    def __init__(
        self,
        plan: Plan,
        servers: Sequence[Server],
        scratch: Path,
        show: Callable[[str], None],
        *,
        processor: int | None = None,
        nats_processor: int | None = None,
        poll_seconds: float = 0.0,
    ) -> None:
        self.plan = plan
        self.servers = servers
        self.scratch = scratch
        self.show = show
        self.processor = processor
        self.nats_processor = nats_processor
        self._poll_seconds = poll_seconds
        self._numbers = count()

    def polling(self, seconds: float) -> Environment:
        """Return this environment for a load that waits for input for some time."""
        other = copy(self)
        other._poll_seconds = seconds  # noqa: SLF001 -- of the same class
        return other

    @property
    def placement(self) -> str:
        """The processors of chat servers, NATS and load, for the table of the cluster."""
        if self.processor is None:
            return "no processors are assigned"
        nats = "NATS with priority" if may_prefer() else "NATS"
        return f"chat servers on processor {self.processor}; {nats} and the load on processor {self.nats_processor}"

    @contextmanager
    def running(self, server: Server) -> Iterator[Running]:
        """Start the server in a new folder; end the server and remove the folder afterwards.

        A server that shares its log is started with the others, and with NATS.
        """
        if not server.sharing:
            with self._running_one(server) as started:
                yield started
            return
        with self.running_nats(server.sharing, self.nats_processor) as nats, ExitStack() as stack:
            for each in nats.servers:
                prefer(each.pid)
            one, *others = [
                stack.enter_context(self._running_one(on_nats(server, number, nats)))
                for number in range(server.sharing)
            ]
            yield replace(one, others=tuple(others), nats_url=nats.url)

    @contextmanager
    def _running_one(self, server: Server) -> Iterator[Running]:
        folder = self.scratch / f"server-{next(self._numbers)}"
        try:
            with running(server, folder, self.processor) as started:
                yield started
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def joining(self, server: Server, nats: NatsServers, number: int) -> Iterator[Running]:
        """Start one more server on the log of these NATS servers."""
        with self._running_one(on_nats(server, number, nats)) as started:
            yield started

    @contextmanager
    def running_nats(self, count: int, processor: int | None) -> Iterator[NatsServers]:
        """Start NATS servers in a new folder; end them and remove the folder afterwards. Raises ServerError."""
        folder = self.scratch / f"nats-{next(self._numbers)}"
        try:
            with ExitStack() as stack:
                with on_processor(processor):
                    servers = stack.enter_context(NatsServers(folder, count))
                yield servers
        except NatsError as error:
            raise ServerError(str(error)) from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def connected(self, server: Server) -> Iterator[tuple[Connections, Running]]:
        """Start the server, and prepare connections to it."""
        protocol = PROTOCOLS[server.protocol]
        with self.running(server) as started, self.connect(protocol, started, server.logins_at_once) as connections:
            yield connections, started

    def connect(self, protocol: WireProtocol, started: Running, logins_at_once: int = LOGINS_AT_ONCE) -> Connections:
        """Prepare connections to a running server, and the others of its log."""
        ports = [each.port for each in (started, *started.others)]
        return Connections(protocol, *ports, poll_seconds=self._poll_seconds, logins_at_once=logins_at_once)


def _names(number: int) -> list[str]:
    """Names of the same length, so that messages have the same length; short enough for every server."""
    return [f"n{index:05d}" for index in range(number)]


@contextmanager
def _recording_failure(row: Throughput | Latency | ManyConnections) -> Iterator[None]:
    try:
        yield
    except (LoadError, ServerError) as error:
        row.failure = str(error)


# --- for all servers ---


def throughput(environment: Environment) -> list[Throughput]:
    """See the top of this file."""
    return _throughput(environment, environment.servers, environment.plan.loads)


def _throughput(
    environment: Environment, servers: Sequence[Server], loads: Sequence[tuple[int, int]]
) -> list[Throughput]:
    plan = environment.plan
    rows = {(server.name, load): Throughput(server.name, *load) for load in loads for server in servers}
    for number in range(1, plan.rounds + 1):
        for server in servers:
            environment.show(f"throughput, round {number} of {plan.rounds}: {server.name}")
            for receivers, senders in loads:
                row = rows[server.name, (receivers, senders)]
                if row.failure:
                    continue
                names = _names(receivers + senders)
                with _recording_failure(row), environment.connected(server) as (connections, _):
                    connections.log_in(names[:receivers], names[receivers:])
                    connections.wait_until_quiet()
                    result = measure_throughput(connections, plan.throughput_seconds)
                    row.deliveries_per_second.append(result.deliveries_per_second)
    return list(rows.values())


def latency(environment: Environment) -> list[Latency]:
    """See the top of this file."""
    return _latency(environment, environment.servers)


def _latency(environment: Environment, servers: Sequence[Server]) -> list[Latency]:
    plan = environment.plan
    rows = [Latency(server.name, plan.latency_receivers, plan.messages_per_second) for server in servers]
    for number in range(1, plan.rounds + 1):
        for server, row in zip(servers, rows, strict=True):
            environment.show(f"latency, round {number} of {plan.rounds}: {server.name}")
            if row.failure:
                continue
            with _recording_failure(row), environment.connected(server) as (connections, _):
                _log_in_and_measure_latency(plan, connections, row)
    return rows


def _log_in_and_measure_latency(plan: Plan, connections: Connections, row: Latency) -> None:
    sender, *receivers = _names(plan.latency_receivers + 1)
    connections.log_in(receivers, [sender])
    connections.wait_until_quiet()
    times = measure_latency(connections, plan.messages_per_second, plan.latency_seconds)
    row.rounds.append(percentiles(times.deliveries))
    if times.confirmations:
        row.confirmations.append(percentiles(times.confirmations))


def many_connections(environment: Environment) -> list[ManyConnections]:
    """See the top of this file."""
    plan = environment.plan
    rows = [ManyConnections(server.name) for server in environment.servers]
    for server, row in zip(environment.servers, rows, strict=True):
        environment.show(f"many connections: {server.name}")
        with _recording_failure(row), environment.connected(server) as (connections, started):
            steps = plan.irc_connection_steps if server.protocol == "irc" else plan.connection_steps
            _connect_in_steps(steps, plan.connection_seconds, row, connections, started)
            result = measure_throughput(connections, plan.throughput_seconds)
            row.deliveries_per_second = result.deliveries_per_second
            row.after_load_bytes = resident_bytes(started.pid)
    return rows


def _connect_in_steps(
    steps: Sequence[int], limit_seconds: float, row: ManyConnections, connections: Connections, started: Running
) -> None:
    sender, *receivers = _names(steps[-1])
    row.memory.append(Memory(0, resident_bytes(started.pid)))
    seconds = connections.log_in([], [sender])
    done = 0
    for step in steps:
        seconds += connections.log_in(receivers[done : step - 1], limit_seconds=limit_seconds - seconds)
        done = step - 1
        connections.wait_until_quiet()
        row.memory.append(Memory(step, resident_bytes(started.pid)))
    row.logins_per_second = steps[-1] / seconds


# --- for our own server: these raise LoadError and ServerError ---


def logins(environment: Environment) -> Logins:
    """See the top of this file."""
    plan = environment.plan
    result = Logins(LOGINS_AT_ONCE, plan.logins)
    server = chatserver(*CHEAPEST_HASH)
    names = _names(plan.logins)
    for number in range(1, plan.rounds + 1):
        environment.show(f"logins, round {number} of {plan.rounds}")
        with environment.connected(server) as (watcher, started):
            watcher.log_in(["watcher"])
            for values in (result.new_per_second, result.existing_per_second):
                with environment.connect(PROTOCOLS[server.protocol], started) as connections:
                    values.append(len(names) / connections.log_in(names))
                watcher.wait_until_quiet()
    return result


def storm(environment: Environment) -> Storm:
    """See the top of this file."""
    plan = environment.plan
    environment.show("login storm")
    with environment.connected(chatserver()) as (connections, _):
        row = Latency(OURS, plan.latency_receivers, plan.messages_per_second)
        _log_in_and_measure_latency(plan, connections, row)
        for number in range(plan.storm_logins):
            connections.begin_login(f"storm{number:05d}")
        during = percentiles(measure_latency(connections, plan.messages_per_second, 0.0).deliveries)
    seconds = during.count / plan.latency_receivers / plan.messages_per_second
    return Storm(plan.storm_logins, plan.latency_receivers, seconds, row.rounds[0], during)


def stopped(environment: Environment) -> Stopped:
    """See the top of this file."""
    plan = environment.plan
    result = Stopped(plan.latency_receivers)
    for number in range(1, plan.rounds + 1):
        environment.show(f"stopped receiver, round {number} of {plan.rounds}")
        for values, is_stopped in ((result.none, False), (result.one, True)):
            values.append(_latency_with_idle_receiver(environment, is_stopped=is_stopped))
    return result


def _latency_with_idle_receiver(environment: Environment, *, is_stopped: bool) -> Percentiles:
    """Latency of the other receivers. The idle one reads and drops its input, or has stopped reading."""
    plan = environment.plan
    sender, *receivers = _names(plan.latency_receivers)
    with environment.connected(chatserver(*CHEAPEST_HASH, *_HUGE_LAG)) as (connections, _):
        fd = connections.begin_login("idle", receive_bytes=_SMALL_BUFFER_BYTES)
        connections.log_in(receivers, [sender])
        connections.wait_until_quiet()
        if is_stopped:
            connections.stop_reading(fd)
        measure_throughput(connections, plan.burst_seconds)
        connections.wait_until_quiet()
        return percentiles(measure_latency(connections, plan.messages_per_second, plan.latency_seconds).deliveries)


def rooms(environment: Environment) -> Rooms:
    """See the top of this file."""
    plan = environment.plan
    room_count, members, rooms_each = plan.rooms
    names = _names(room_count * members // rooms_each + room_count)
    receivers, senders = names[:-room_count], names[-room_count:]
    rooms = [f"room{number}" for number in range(room_count)]
    # Two receivers of one room share few other rooms: each step has the next triangular number.
    rooms_of = {
        name: [rooms[(number + step * (step + 1) // 2) % room_count] for step in range(rooms_each)]
        for number, name in enumerate(receivers)
    } | {name: [room] for name, room in zip(senders, rooms, strict=True)}
    result = Rooms(room_count, members, rooms_each, len(names))
    for number in range(1, plan.rounds + 1):
        environment.show(f"rooms, round {number} of {plan.rounds}")
        with (
            environment.running(chatserver(*CHEAPEST_HASH)) as started,
            environment.connect(json_in_rooms(rooms_of.__getitem__), started) as connections,
        ):
            before_bytes = resident_bytes(started.pid)
            connections.log_in(receivers, senders)
            connections.wait_until_quiet()
            result.connection_bytes.append((resident_bytes(started.pid) - before_bytes) / len(names))
            load = measure_throughput(connections, plan.throughput_seconds, rooms=rooms, members=members)
            result.deliveries_per_second.append(load.deliveries_per_second)
            result.after_load_bytes.append((resident_bytes(started.pid) - before_bytes) / len(names))
    return result


def stored_history(environment: Environment) -> History:
    """See the top of this file."""
    plan = environment.plan
    data = environment.scratch / "stored"
    try:
        environment.show(f"history: storing {plan.stored_messages:,} messages")
        empty = chatserver(*CHEAPEST_HASH)
        full = chatserver(*CHEAPEST_HASH, data=data, name=f"{empty.name} with history")
        # The server creates its schema, and the account of the user that will read the history.
        with environment.connected(full) as (connections, _):
            connections.log_in([_HISTORY_READER])
        database_bytes = history.fill(data, plan.stored_messages)
        throughputs = _throughput(environment, (empty, full), plan.stored_loads)
        latencies = _latency(environment, (empty, full))
        environment.show("history: requesting the last messages")
        with environment.running(full) as started:
            times = history.time_requests(started.port, _HISTORY_READER, plan.history_requests)
    finally:
        shutil.rmtree(data, ignore_errors=True)
    return History(plan.stored_messages, database_bytes, throughputs, latencies, percentiles(times))


def cluster(environment: Environment) -> Cluster:
    """See the top of this file."""
    plan = environment.plan
    # NATS needs the processor of the load now and then.
    environment = environment.polling(SHARED_POLL_SECONDS)
    alone, one, three = (
        chatserver(*CHEAPEST_HASH, name=name, sharing=sharing)
        for name, sharing in ((OURS, 0), (OURS_ON_NATS, 1), (OURS_ON_NATS_3, 3))
    )
    servers = (alone, one, three)
    throughputs = _throughput(environment, servers, plan.shared_loads)
    result = Cluster(throughputs, [], {}, placement=environment.placement, engine={one.name: [], three.name: []})
    result.latency = [Latency(server.name, plan.latency_receivers, plan.messages_per_second) for server in servers]
    for number in range(1, plan.rounds + 1):
        for server, row in zip(servers, result.latency, strict=True):
            environment.show(f"latency and confirmations, round {number} of {plan.rounds}: {server.name}")
            with _recording_failure(row), environment.connected(server) as (connections, started):
                _log_in_and_measure_latency(plan, connections, row)
                result.memory[server.name] = resident_bytes(started.pid)
                if server.sharing:
                    with on_processor(environment.processor):
                        times = measure_engine_at_rate(
                            started.nats_url,
                            server.sharing,
                            record_bytes=plan.record_bytes,
                            rate=plan.messages_per_second,
                            seconds=plan.latency_seconds,
                        )
                    result.engine[server.name].append(percentiles(times))
    for number in range(1, plan.rounds + 1):
        environment.show(f"catching up, round {number} of {plan.rounds}")
        with environment.running_nats(1, environment.nats_processor) as nats:
            with (
                environment.joining(one, nats, 0) as first,
                environment.connect(PROTOCOLS["json"], first) as connections,
            ):
                connections.log_in(_names(1), ["sender"])
                connections.wait_until_quiet()
                messages = measure_throughput(connections, plan.catch_up_seconds).messages
            begin = perf_counter()
            with environment.joining(one, nats, 1):
                result.caught_up_per_second.append(messages / (perf_counter() - begin))
            result.caught_up_messages = messages
    return result


# --- for NATS ---


def engine(environment: Environment) -> list[Engine]:
    """See the top of this file."""
    plan = environment.plan
    rows = [
        Engine(replicas, plan.record_bytes, plan.records_per_second, plan.records_in_flight)
        for replicas in plan.engine_replicas
    ]
    for number in range(1, plan.rounds + 1):
        for row in rows:
            environment.show(f"engine, round {number} of {plan.rounds}: {row.replicas} replicas")
            with environment.running_nats(row.replicas, environment.processor) as servers:
                figures = measure_engine(
                    servers.url,
                    row.replicas,
                    record_bytes=row.record_bytes,
                    rate=row.records_per_second,
                    in_flight=row.in_flight,
                    seconds=plan.engine_seconds,
                )
            row.rounds.append(percentiles(figures.milliseconds))
            row.in_flight_per_second.append(figures.records_per_second)
    return rows
