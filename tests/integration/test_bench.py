"""The benchmark against real servers: it measures them, and notices servers that fail."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import sys
import threading
import time
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Final

import pytest
from integration.room import wait_for
from reliability.relay import Faults, Relay

from bench import measure
from bench.connections import Connections, LoadError
from bench.load import measure_latency, measure_throughput
from bench.measure import Environment, Plan
from bench.protocols import PROTOCOLS, Role
from bench.servers import CHEAPEST_HASH, Server, build_baseline, chatserver, running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

TINY: Final = Plan(
    rounds=1,
    loads=((5, 2),),
    throughput_seconds=0.1,
    latency_receivers=5,
    messages_per_second=100,
    latency_seconds=0.1,
    connection_steps=(3, 6),
    irc_connection_steps=(3, 6),
    logins=5,
    storm_logins=3,
    rooms=(4, 4, 2),
    burst_seconds=0.1,
    stored_messages=2_000,
    stored_loads=((5, 1),),
    history_requests=5,
    shared_loads=((5, 1),),
    catch_up_seconds=0.1,
    engine_replicas=(1,),
    engine_seconds=0.1,
)
OURS: Final = chatserver(*CHEAPEST_HASH)
OURS_OVER_UDP: Final = chatserver(*CHEAPEST_HASH, name="chatserver-datagram", protocol="datagram")
OURS_IN_IRC: Final = chatserver(*CHEAPEST_HASH, name="chatserver-irc", protocol="irc")
PATIENCE_SECONDS: Final = 20.0
# A test shares its processors, so the load sleeps if there is no input.
POLL_SECONDS: Final = 0.001


def environment(folder: Path, *servers: Server) -> Environment:
    return Environment(TINY, servers, folder, print, poll_seconds=POLL_SECONDS)


# --- measurements ---


@pytest.mark.long
def test_servers_are_compared(tmp_path: Path) -> None:
    """Throughput, latency and memory of our server over TCP and UDP and in IRC, and throughput of the baseline."""
    ours = environment(tmp_path, OURS, OURS_OVER_UDP, OURS_IN_IRC)
    baseline = build_baseline(tmp_path)  # None without a compiler
    rows = measure.throughput(environment(tmp_path, *ours.servers, *filter(None, [baseline])))
    latencies, connections = measure.latency(ours), measure.many_connections(ours)
    for row in (*rows, *latencies, *connections):
        assert not row.failure, row
    assert all(row.median for row in rows)
    for latency in latencies:
        assert latency.rounds[0].count % 5 == 0
        assert 0 < latency.rounds[0].p50 <= latency.rounds[0].max
    for row in connections:
        assert [value.connections for value in row.memory] == [0, 3, 6]
        assert min(row.logins_per_second, row.deliveries_per_second, row.after_load_bytes) > 0


@pytest.mark.long
def test_our_server_alone_is_measured(tmp_path: Path) -> None:
    """Logins, a login storm, a receiver that does not read, rooms, and a stored history."""
    ours = environment(tmp_path)
    logins = measure.logins(ours)
    assert len(logins.new_per_second) == len(logins.existing_per_second) == 1
    assert measure.storm(ours).during.count > 0
    stopped = measure.stopped(ours)
    assert [value.count % 4 for value in (*stopped.none, *stopped.one)] == [0, 0]
    rooms = measure.rooms(ours)
    assert rooms.connections == 4 * 4 // 2 + 4
    assert min(*rooms.deliveries_per_second, *rooms.connection_bytes, *rooms.after_load_bytes) > 0
    history = measure.stored_history(ours)
    assert [row.failure for row in (*history.throughput, *history.latency)] == [""] * 4
    assert history.requests.count == 5
    assert not list(tmp_path.iterdir())


@pytest.mark.long
def test_servers_that_share_a_log_are_measured(tmp_path: Path) -> None:
    cluster = measure.cluster(environment(tmp_path))
    assert [row.failure for row in (*cluster.throughput, *cluster.latency)] == [""] * 6
    assert len(cluster.memory) == 3
    assert min(cluster.caught_up_messages, *cluster.caught_up_per_second) > 0
    assert not list(tmp_path.iterdir())


def test_nats_alone_is_measured(tmp_path: Path) -> None:
    (row,) = measure.engine(environment(tmp_path))
    assert row.rounds[0].count == 50
    assert min(row.rounds[0].p50, *row.in_flight_per_second) > 0
    assert not list(tmp_path.iterdir())


# --- servers that fail ---


def python(code: str, port: int, folder: Path) -> list[str]:
    (folder / "server.py").write_text(code)
    return [sys.executable, "server.py", str(port)]


CLOSES: Final = """
import socket, sys
with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as listener:
    while True:
        listener.accept()[0].close()
"""


def test_failure_of_one_server_does_not_stop_the_others(tmp_path: Path) -> None:
    broken = [
        Server("closes", "raw", "", partial(python, CLOSES)),
        Server("ends", "raw", "", partial(python, "raise SystemExit('no such file')")),
    ]
    failures = {row.server: row.failure for row in measure.throughput(environment(tmp_path, *broken, OURS))}
    assert "was lost" in failures["closes"]
    assert "no such file" in failures["ends"]
    assert failures[OURS.name] == ""


@contextmanager
def relayed(alter: Callable[[bytes], bytes]) -> Iterator[Connections]:
    """Three receivers and a sender of a server whose receivers get the altered pieces of the sender."""

    def serve() -> None:
        with ExitStack() as stack, suppress(OSError):  # the load closes its connections when the server has failed
            *receivers, sender = (stack.enter_context(listener.accept()[0]) for _ in range(4))
            for sock in (*receivers, sender):
                sock.recv(1)
                sock.send(b".")
            while data := sender.recv(65_536):
                for receiver in receivers:
                    receiver.sendall(alter(data))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE_SECONDS)
        thread = threading.Thread(target=serve, name="server")
        thread.start()
        try:
            with Connections(PROTOCOLS["raw"], listener.getsockname()[1], poll_seconds=POLL_SECONDS) as connections:
                connections.log_in(["a", "b", "c"], ["d"])
                yield connections
        finally:
            thread.join()


ALTERATIONS: Final[dict[str, Callable[[bytes], bytes]]] = {
    "loses": lambda data: data.replace(b"|", b"", 1),
    "duplicates": lambda data: data + b"|0000000000000000",
    "delivers nothing": lambda _: b"",
}


@pytest.mark.parametrize("alter", ALTERATIONS.values(), ids=ALTERATIONS)
def test_load_fails_if_the_server(alter: Callable[[bytes], bytes]) -> None:
    with relayed(alter) as connections, pytest.raises(LoadError, match=r"stalled: .* deliveries arrived"):
        measure_throughput(connections, 0.1, stall_seconds=0.3)
    with relayed(alter) as connections, pytest.raises(LoadError, match="deliveries arrived"):
        measure_latency(connections, 100.0, 0.1, stall_seconds=0.3)


# --- over UDP ---


def online(port: int) -> list[str]:
    with closing(socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS)) as sock:
        sock.sendall(next(PROTOCOLS["json"].log_in("watcher", Role.RECEIVER)))
        users: list[str] = json.loads(sock.makefile().readline())["users"]
        return sorted(users)


@pytest.mark.long
def test_deliveries_over_a_lossy_network_count_once(tmp_path: Path) -> None:
    """At the end the sessions log out."""
    with running(OURS_OVER_UDP, tmp_path / "server") as started:
        with (
            Relay(started.port, random.Random(6), Faults(lost=0.1, repeated=0.1, late=0.0)) as relay,
            Connections(PROTOCOLS["datagram"], relay.port, poll_seconds=POLL_SECONDS) as connections,
        ):
            connections.log_in(["anna", "ben", "cleo"], ["dora"])
            connections.wait_until_quiet()
            result = measure_throughput(connections, 0.1)
            assert result.deliveries == 3 * result.messages > 0
            assert len(measure_latency(connections, 100.0, 0.1).deliveries) % 3 == 0
            assert online(started.port) == ["anna", "ben", "cleo", "dora", "watcher"]
        wait_for(lambda: online(started.port) == ["watcher"], "the end of the sessions")


def test_killed_server_fails_the_load_and_does_not_delay_its_end(tmp_path: Path) -> None:
    with running(OURS_OVER_UDP, tmp_path / "server") as started:
        connections = Connections(PROTOCOLS["datagram"], started.port, logout_seconds=60.0)
        connections.log_in(["anna", "ben"], ["cleo"])
        os.kill(started.pid, signal.SIGKILL)
    with pytest.raises(LoadError, match="was lost: Connection refused"):
        connections.log_in(["dora"], limit_seconds=PATIENCE_SECONDS)
    begin = time.monotonic()
    connections.close()
    assert time.monotonic() - begin < PATIENCE_SECONDS
