"""The benchmark, for a moment each against real servers: that it measures, not what."""

from __future__ import annotations

import json
import os
import random
import select
import signal
import socket
import sys
import threading
import time
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Final

import pytest

from bench import crowd, load, measure
from bench.crowd import Crowd, LoadError
from bench.measure import Ground, Plan
from bench.protocols import WIRES, Part
from bench.servers import CHEAPEST_HASH, Server, ServerError, build_floor, chatserver, running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

TINY: Final = Plan(
    rounds=1,
    loads=((5, 1), (5, 2)),
    load_seconds=0.1,
    paced_receivers=5,
    messages_per_second=100,
    pace_seconds=0.1,
    crowd_steps=(3, 6),
    logins=5,
    storm_logins=3,
    stored_messages=2_000,
    stored_loads=((5, 1),),
    asks=5,
)
OURS: Final = chatserver(*CHEAPEST_HASH)
OURS_IN_DATAGRAMS: Final = chatserver(*CHEAPEST_HASH, name="chatserver-datagram", wire="datagram")
BOTH: Final = pytest.mark.parametrize("server", [OURS, OURS_IN_DATAGRAMS], ids=lambda server: server.wire)
PATIENCE_SECONDS: Final = 5.0


def ground(folder: Path, *servers: Server) -> Ground:
    """Unpinned, and asleep when there is nothing to do: a test shares the processors with others."""
    return Ground(TINY, servers, folder, print, patience_seconds=0.001)


def test_throughput_is_measured_of_our_server_and_of_the_floor(tmp_path: Path) -> None:
    floor = build_floor(tmp_path)  # nothing where there is no compiler
    rows = measure.throughput(ground(tmp_path, OURS, OURS_IN_DATAGRAMS, *filter(None, [floor])))
    for name in ("chatserver", "chatserver-datagram"):
        assert [(row.receivers, row.senders) for row in rows if row.server == name] == [(5, 1), (5, 2)]
    for row in rows:
        assert not row.failure, row
        assert row.median


@BOTH
def test_latency_is_measured_of_every_delivery(server: Server, tmp_path: Path) -> None:
    (row,) = measure.latency(ground(tmp_path, server))
    assert not row.failure, row
    assert row.rounds[0].count % 5 == 0
    assert 0 < row.rounds[0].p50 <= row.rounds[0].p99 <= row.rounds[0].max


@BOTH
def test_a_crowd_comes_in_steps_and_is_weighed_at_each(server: Server, tmp_path: Path) -> None:
    (row,) = measure.crowds(ground(tmp_path, server))
    assert not row.failure, row
    assert [value.connections for value in row.memory] == [0, 3, 6]
    assert min(row.logins_per_second, row.deliveries_per_second, row.after_load_bytes) > 0


def test_logins_are_measured_of_new_and_of_existing_names(tmp_path: Path) -> None:
    result = measure.logins(ground(tmp_path))
    assert len(result.new_per_second) == len(result.existing_per_second) == 1


def test_latency_is_measured_in_a_storm_until_the_last_one_is_in(tmp_path: Path) -> None:
    result = measure.storm(ground(tmp_path))
    assert result.during.count > 0


def test_latency_is_measured_beside_one_who_does_not_read(tmp_path: Path) -> None:
    result = measure.stopped(ground(tmp_path))
    assert [value.count % 4 for value in (*result.none, *result.one)] == [0, 0]


def test_who_has_stopped_reading_is_not_read(tmp_path: Path) -> None:
    with ground(tmp_path).crowd(OURS) as (people, _):
        fd = people.begin_entering("deaf")
        people.enter(["hears"], ["speaks"])
        people.settle()
        people.stop_reading(fd)
        load.flow(people, 0.1)
        assert people.sockets[fd].recv_into(people.buffer) > 0
        assert b"|" in people.buffer


def test_a_history_is_stored_and_asked_for(tmp_path: Path) -> None:
    result = measure.stored(ground(tmp_path))
    assert [row.failure for row in result.throughput] == [row.failure for row in result.latency] == ["", ""]
    assert result.ask.count == 5
    assert not list(tmp_path.iterdir())


# --- servers that fail ---


def python(code: str, port: int, folder: Path) -> list[str]:
    (folder / "server.py").write_text(code)
    return [sys.executable, "server.py", str(port)]


REFUSES: Final = """
import socket, sys
with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as listener:
    while True:
        listener.accept()[0].close()
"""


def test_a_server_that_fails_has_its_failure_noted_and_the_others_are_measured(tmp_path: Path) -> None:
    broken = [
        Server("closes", "raw", "", partial(python, REFUSES)),
        Server("ends", "raw", "", partial(python, "raise SystemExit('no such luck')")),
    ]
    rows = measure.throughput(ground(tmp_path, *broken, OURS))
    failures = {row.server: row.failure for row in rows}
    assert "closed by the server" in failures["closes"] or "was lost" in failures["closes"]
    assert "no such luck" in failures["ends"]
    assert failures["chatserver"] == ""


def test_a_server_ends_with_the_benchmark(tmp_path: Path) -> None:
    def interrupt() -> None:
        with running(OURS, tmp_path / "server") as started:
            pids.append(started.pid)
            raise KeyboardInterrupt

    pids: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        interrupt()
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


def test_a_server_that_does_not_begin_to_listen_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.servers._START_SECONDS", 0.3)
    deaf = Server("deaf", "raw", "", partial(python, "import time; time.sleep(60)"))
    with pytest.raises(ServerError, match="did not start"), running(deaf, tmp_path / "server"):
        pytest.fail("it started")


def relay(listener: socket.socket, alter: Callable[[bytes], bytes]) -> None:
    """A floor for three receivers and a sender; ``alter`` makes of each piece what the receivers get."""
    with ExitStack() as stack, suppress(OSError):  # they leave when they have seen enough
        *receivers, sender = (stack.enter_context(listener.accept()[0]) for _ in range(4))
        for sock in (*receivers, sender):
            sock.recv(1)
            sock.send(b".")
        while data := sender.recv(65_536):
            for receiver in receivers:
                receiver.sendall(alter(data))


@contextmanager
def relayed(alter: Callable[[bytes], bytes]) -> Iterator[Crowd]:
    """Three receivers and a sender, and between them a relay."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10.0)
        thread = threading.Thread(target=relay, args=(listener, alter), name="relay")
        thread.start()
        try:
            with Crowd(WIRES["raw"], listener.getsockname()[1], patience_seconds=0.001) as people:
                people.enter(["a", "b", "c"], ["d"])
                yield people
        finally:
            thread.join()


ALTERATIONS: Final[dict[str, Callable[[bytes], bytes]]] = {
    "loses": lambda data: data.replace(b"|", b"", 1),
    "doubles": lambda data: data + b"|0000000000000000",
    "delivers nothing": lambda _: b"",
}


@pytest.mark.parametrize("alter", ALTERATIONS.values(), ids=ALTERATIONS)
def test_a_server_fails_the_load_when_it(alter: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "STALL_SECONDS", 0.3)
    with relayed(alter) as people, pytest.raises(LoadError, match=r"stalled: .* deliveries came"):
        load.flow(people, 0.1)
    with relayed(alter) as people, pytest.raises(LoadError, match="deliveries came"):
        load.pace(people, 100.0, 0.1)


def test_a_load_that_is_borne_well_counts_all_deliveries() -> None:
    with relayed(bytes) as people:
        result = load.flow(people, 0.1)
        assert result.deliveries == 3 * result.messages > 0
        assert len(load.pace(people, 100.0, 0.1)) % 3 == 0


def test_who_is_not_let_in_in_time_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crowd, "_ENTERING_SECONDS", 0.01)
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        Crowd(WIRES["json"], listener.getsockname()[1]) as people,
        pytest.raises(LoadError, match="2 were not let in"),
    ):
        people.enter(["a", "b"], limit_seconds=0.1)


# --- over UDP ---


def lose(listening: socket.socket, port: int, end: socket.socket) -> None:
    """Between clients and a server, until ``end`` is closed: lose a tenth both ways, and send a tenth twice."""
    chance = random.Random(6)
    ways: dict[socket.socket, tuple[str, int]] = {}
    there: dict[tuple[str, int], socket.socket] = {}

    def pass_on(sock: socket.socket, data: bytes, address: tuple[str, int]) -> None:
        for _ in range(chance.choice((0, 2, 1, 1, 1, 1, 1, 1, 1, 1))):
            sock.sendto(data, address)

    with ExitStack() as stack:
        while end not in (ready := select.select([end, listening, *ways], [], [])[0]):
            for sock in ready:
                data, address = sock.recvfrom(2_048)
                if sock is not listening:
                    pass_on(listening, data, ways[sock])
                    continue
                if address not in there:
                    there[address] = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
                    ways[there[address]] = address
                pass_on(there[address], data, ("127.0.0.1", port))


@contextmanager
def losing(port: int) -> Iterator[int]:
    """The port of a way to a server on which datagrams are lost."""
    here, there = socket.socketpair()
    with there, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
        listening.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=lose, args=(listening, port, there), name="loses")
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            here.close()
            thread.join()


def test_deliveries_are_counted_once_each_where_datagrams_are_lost_and_come_twice(tmp_path: Path) -> None:
    with (
        running(OURS_IN_DATAGRAMS, tmp_path / "server") as started,
        losing(started.port) as port,
        Crowd(WIRES["datagram"], port, patience_seconds=0.001) as people,
    ):
        people.enter(["anna", "ben", "cleo"], ["dora"])
        people.settle()
        result = load.flow(people, 0.1)
        assert result.deliveries == 3 * result.messages > 0
        assert len(load.pace(people, 100.0, 0.1)) % 3 == 0


def online(port: int) -> list[str]:
    """Who is, as one is told who comes in."""
    with closing(socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS)) as sock:
        sock.sendall(next(WIRES["json"].enter("looks", Part.HEARS)))
        users: list[str] = json.loads(sock.makefile().readline())["users"]
        return users


def test_a_crowd_that_leaves_is_not_kept_in_the_room(tmp_path: Path) -> None:
    with running(OURS_IN_DATAGRAMS, tmp_path / "server") as started:
        with Crowd(WIRES["datagram"], started.port) as people:
            people.enter(["anna", "ben"], ["cleo"])
            assert sorted(online(started.port)) == ["anna", "ben", "cleo", "looks"]
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (left := online(started.port)) != ["looks"]:
            assert time.monotonic() < deadline, left


def test_a_crowd_does_not_wait_for_a_server_that_has_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crowd, "_LEAVING_SECONDS", 60.0)
    with ExitStack() as stack:
        started = stack.enter_context(running(OURS_IN_DATAGRAMS, tmp_path / "server"))
        people = Crowd(WIRES["datagram"], started.port)
        people.enter(["anna", "ben"], ["cleo"])
        os.kill(started.pid, signal.SIGKILL)
        stack.close()
        begin = time.monotonic()
        people.close()
        assert time.monotonic() - begin < PATIENCE_SECONDS


def test_a_server_that_is_not_there_fails_the_load_when_it_is_told_something_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
    monkeypatch.setattr(crowd, "perf_counter", lambda: time.perf_counter() + 1.0)
    with Crowd(WIRES["datagram"], port) as people:
        people.begin_entering("anna")
        with pytest.raises(LoadError, match="was lost: Connection refused"):
            people.ready()


def test_a_server_that_ends_fails_the_load(tmp_path: Path) -> None:
    with (
        running(OURS_IN_DATAGRAMS, tmp_path / "server") as started,
        Crowd(WIRES["datagram"], started.port, patience_seconds=0.001) as people,
    ):
        people.enter(["anna", "ben"], ["cleo"])
        os.kill(started.pid, signal.SIGTERM)
        with pytest.raises(LoadError, match="was lost: closed by the server"):
            load.flow(people, PATIENCE_SECONDS)
