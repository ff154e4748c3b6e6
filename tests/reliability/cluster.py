"""Several chat servers that share a log: real processes, each with a proxy of its own to each NATS server."""

from __future__ import annotations

import http.client
import math
import sqlite3
import threading
import time
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from integration.proxies import TcpProxy
from reliability.program import DEADLINE_SECONDS, Program

from ops.nats_servers import NatsServers, bind_free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from reliability.cluster_faults import Kind, Lane

# Deadline until a server that was repaired is ready: elections and leases take seconds, on a busy machine more.
READY_SECONDS = 60.0
# A server that is killed refuses the question at once.
_ANSWER_SECONDS = 10.0
_POLL_SECONDS = 0.02
_LOG_TAIL_LINES = 40


class Tables(NamedTuple):
    """The content of a database at one moment."""

    # The number of the last record that was applied.
    position: int
    # All rows of each table, sorted.
    rows: dict[str, list[str]]


class ChatServer:
    """A chat server with ports that it keeps when it is started again. ``links`` are its ways to NATS."""

    def __init__(self, folder: Path, name: str, nats: NatsServers, **settings: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.name = name
        self.links = [TcpProxy(each.port) for each in nats.servers]
        self._reserved = [bind_free_port() for _ in range(2)]
        self.port, self._metrics_port = (int(each.getsockname()[1]) for each in self._reserved)
        own = {
            "CHAT_NATS": ",".join(f"nats://127.0.0.1:{link.port}" for link in self.links),
            "CHAT_NATS_REPLICAS": str(len(self.links)),
            "CHAT_SERVER_NAME": name,
            "CHAT_METRICS": f"127.0.0.1:{self._metrics_port}",
        }
        self.program = Program(folder, **{**own, **settings})
        # On the monotonic clock; None while the server is broken.
        self.healthy_since: float | None = None
        # When a NATS server had its last fault, on the same clock.
        self.log_broken_at = -math.inf

    @property
    def data(self) -> Path:
        return self.program.data

    @property
    def is_running(self) -> bool:
        """True if its process has not ended; also if it is paused."""
        return self.program.process.poll() is None

    def launch(self) -> None:
        """Start it, and do not wait."""
        self.program.launch(self.port)

    def administer(self, *words: str) -> str:
        """Run ``chatserver admin`` with the settings of the server. Returns the output."""
        done = self.program.administer(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def pause(self) -> None:
        """Stop it with SIGSTOP: its connections stay open."""
        self.program.suspend()

    def resume(self) -> None:
        self.program.resume()

    def ask(self, path: str) -> tuple[int, str]:
        """Status and text of a page of the metrics' port; 0 if it does not answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self._metrics_port, timeout=_ANSWER_SECONDS)
        with closing(connection):
            try:
                connection.request("GET", path)
                answer = connection.getresponse()
                return answer.status, answer.read().decode()
            except (OSError, http.client.HTTPException):
                return 0, ""

    def is_ready(self) -> bool:
        return self.ask("/readyz")[0] == http.HTTPStatus.OK

    def await_ready(self, seconds: float = READY_SECONDS) -> None:
        """Wait until it is ready for clients. Fails if its process ends."""

        def is_ready() -> bool:
            self.assert_running()
            return self.is_ready()

        await_(is_ready, f"{self.name} to be ready", seconds)

    def await_end(self) -> int:
        """Wait until it ends by itself. Returns its exit code."""
        return self.program.process.wait(DEADLINE_SECONDS)

    def read_tables(self) -> Tables:
        """All tables of the database."""
        with closing(sqlite3.connect(self.data / "chat.db", isolation_level=None)) as database:
            database.execute("BEGIN")
            (position,) = database.execute("SELECT number FROM log_position").fetchone() or (0,)
            names = [name for (name,) in database.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
            rows = {name: sorted(map(repr, database.execute(f'SELECT * FROM "{name}"'))) for name in sorted(names)}
        return Tables(position, rows)

    def read_position(self) -> int:
        """The number of the last record that was applied."""
        with closing(sqlite3.connect(self.data / "chat.db")) as database:
            return int(database.execute("SELECT number FROM log_position").fetchone()[0])

    def log_tail(self) -> str:
        return "\n".join(self.program.log().splitlines()[-_LOG_TAIL_LINES:])

    def close(self) -> None:
        self.program.close()
        for each in self._reserved:
            each.close()

    def assert_running(self) -> None:
        """Fail if its process has ended."""
        assert self.is_running, f"{self.name} has ended with {self.program.process.poll()}:\n{self.log_tail()}"


class Cluster:
    """Chat servers, NATS servers, and the proxies between them. The context starts all, and kills them at its end."""

    def __init__(self, folder: Path, servers: int = 3, nats: int = 3, **settings: str) -> None:
        self.folder = folder
        self.nats = NatsServers(folder / "nats", nats)
        self._settings = settings
        self._stack = ExitStack()
        self._count = servers
        self.servers: list[ChatServer] = []
        self.lock = threading.Lock()  # guards what follows
        self.link_faults: dict[TcpProxy, dict[Lane, Kind | None]] = {}

    def __enter__(self) -> Self:
        try:
            self._stack.enter_context(self.nats)
            for number in range(1, self._count + 1):
                self.add(f"s{number}").launch()
            self.await_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        print(f"The logs and the data of all servers are in {self.folder}")  # shown when the test fails
        for server in self.servers:
            print(f"--- the end of the log of {server.name}\n{server.log_tail()}")

    def add(self, name: str, folder: str = "", **settings: str) -> ChatServer:
        """Another server, which is not started. ``folder`` is by default the name."""
        server = ChatServer(self.folder / (folder or name), name, self.nats, **{**self._settings, **settings})
        self._stack.callback(server.close)
        for link in server.links:
            self._stack.enter_context(link)
        self.servers.append(server)
        return server

    @property
    def ports(self) -> list[int]:
        return [server.port for server in self.servers]

    def await_ready(self) -> None:
        """Wait until all servers are ready."""
        for server in self.servers:
            server.await_ready()
            server.healthy_since = time.monotonic()

    def await_nats(self) -> None:
        """Wait until each NATS server that is not broken has all records."""
        self.nats.await_ready()
        if len(self.nats.servers) > 1:
            await_(self._has_current_replicas, "current replicas of the log", READY_SECONDS)

    def read_equal_tables(self) -> dict[str, Tables]:
        """The tables of all servers at the same position. No client may write. Fails after a deadline."""
        tables: dict[str, Tables] = {}

        def read() -> bool:
            for server in self.servers:
                server.assert_running()
            tables.update((server.name, server.read_tables()) for server in self.servers)
            return len({each.position for each in tables.values()}) == 1

        def describe() -> str:
            return f"equal positions: { ({name: each.position for name, each in tables.items()}) }"

        await_(read, describe, READY_SECONDS)
        return tables

    def _has_current_replicas(self) -> bool:
        try:
            stream = self.nats.leader("chat").stream("chat")
        except OSError:
            return False
        # It may have ceased to be the leader meanwhile.
        replicas = stream["cluster"].get("replicas") if stream is not None else None
        return bool(replicas) and all(each["current"] for each in replicas)


def wait(holds: Callable[[], bool], seconds: float) -> bool:
    """Poll until the condition holds. False after the time."""
    give_up_at = time.monotonic() + seconds
    never = threading.Event()
    while not holds():
        if time.monotonic() > give_up_at:
            return False
        never.wait(_POLL_SECONDS)
    return True


def await_(holds: Callable[[], bool], what: str | Callable[[], str], seconds: float) -> None:
    """Poll until the condition holds. Fails after the time."""
    assert wait(holds, seconds), f"waited {seconds:g} s in vain for {what if isinstance(what, str) else what()}"


def compare_tables(tables: dict[str, Tables]) -> list[str]:
    """The differences of the tables, as sentences."""
    (first, reference), *others = tables.items()
    problems = []
    for name, (_, rows) in others:
        for table in sorted(rows.keys() | reference.rows.keys()):
            here, there = set(rows.get(table, ())), set(reference.rows.get(table, ()))
            if here != there:
                only_here, only_there = sorted(here - there)[:5], sorted(there - here)[:5]
                problems.append(f"table {table}: {name} has {only_here}, and {first} has {only_there}")
    return problems


@contextmanager
def running(thread: threading.Thread, stop: Callable[[], Any]) -> Iterator[None]:
    """Start the thread; at the end tell it to stop, and join it."""
    thread.start()
    try:
        yield
    finally:
        stop()
        thread.join()
