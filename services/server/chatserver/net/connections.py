"""The set of all connections: limits their number, drains them at shutdown, and joins their threads."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING

import structlog

from chatserver.memory import ShortOfMemoryError, no_limit
from chatserver.net.connection import Connection

if TYPE_CHECKING:
    from collections.abc import Callable

    from chatprotocol.wire import WireProtocol
    from chatserver.net.connection import ConnectionInfo, ConnectionServices
    from chatserver.net.transport import Transport

_log = structlog.get_logger()

# Time for peers to close their side first, after all data was acknowledged at shutdown.
_CLOSE_SECONDS = 0.2
# Poll interval at shutdown: no event reports what a peer's system has acknowledged.
_POLL_SECONDS = 0.02
# Memory of one connection: a part of its thread's stack of 256 KiB, and its buffers.
_CONNECTION_BYTES = 128 * 1024


class FullError(Exception):
    """A connection is refused: the limit is reached, threads or memory are short, or the server is shutting down."""


class Connections:
    """All accepted connections, over TCP and UDP. ``add`` is for the two listeners' threads."""

    def __init__(
        self, services: ConnectionServices, max_connections: int, claim: Callable[[int], None] = no_limit
    ) -> None:
        """``claim`` raises ShortOfMemoryError if there is no memory for one more."""
        self._services = services
        self._claim = claim
        self._max_connections = max_connections
        self._numbers = itertools.count(1)
        # True after a refusal was logged: a flood is logged once. Both listeners may set it at the same time: harmless.
        self._is_refusing = False
        # Guards everything below. The condition is notified after each end; only ``drain`` waits for it.
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._draining = False
        self._connections: set[Connection] = set()
        # Threads to join: they have ended or are about to end.
        self._ended: list[threading.Thread] = []

    def __len__(self) -> int:
        """Number of open connections. For any thread."""
        with self._lock:
            return len(self._connections)

    def count(self) -> tuple[Counter[str], int]:
        """Return the open connections by wire protocol, and the bytes that they have not read. For any thread."""
        with self._lock:
            connections = list(self._connections)
        return Counter(each.protocol for each in connections), sum(each.unread_bytes() for each in connections)

    def add(self, transport: Transport, address: str, protocol: WireProtocol | None = None) -> Connection:
        """Start a connection. Without a protocol, its first bytes decide. Raises FullError."""
        self._join_ended()
        connection = Connection(transport, address, next(self._numbers), self._services, self._note_end, protocol)
        with self._lock:
            is_full = len(self._connections) >= self._max_connections
            is_draining = self._draining
            if not is_full and not is_draining:
                self._connections.add(connection)
                self._services.counters.accepted_connections += 1
        if is_draining:
            raise FullError("the server is shutting down")
        if is_full:
            raise self._refuse("connection_limit", f"the limit of {self._max_connections} connections is reached")
        try:
            self._claim(_CONNECTION_BYTES)
            connection.start()
        except (RuntimeError, MemoryError, ShortOfMemoryError) as error:
            with self._lock:
                self._connections.discard(connection)
            reason = "no_threads" if isinstance(error, RuntimeError) else "memory_short"
            raise self._refuse(reason, str(error) or "memory is short") from error
        self._is_refusing = False
        return connection

    def infos(self) -> list[ConnectionInfo]:
        """The open connections, oldest first. For any thread."""
        with self._lock:
            connections = list(self._connections)
        return sorted((each.info() for each in connections), key=lambda info: info.number)

    def drain(self, timeout_seconds: float) -> int:
        """End all connections at shutdown, and refuse new ones; returns how many there were.

        A peer that has not received everything within ``timeout_seconds`` is disconnected.
        """
        with self._lock:
            self._draining = True  # a listener may be about to add a connection
            connections = list(self._connections)
        for connection in connections:
            connection.drain()
        self._wait_until(lambda: all(each.has_received_all() for each in connections), timeout_seconds)
        self._wait_until(lambda: not self._connections, _CLOSE_SECONDS)
        for connection in connections:
            connection.disconnect()
        for connection in connections:
            connection.join()
        self._join_ended()
        return len(connections)

    def _refuse(self, reason: str, detail: str) -> FullError:
        if not self._is_refusing:
            self._is_refusing = True
            _log.warning("refusing connections", reason=reason, connections=len(self._connections))
        return FullError(detail)

    def _note_end(self, connection: Connection) -> None:
        """Remove a connection. Called by its reader thread, which is about to end."""
        with self._lock:
            self._connections.discard(connection)
            self._ended.append(connection.thread)  # the thread only, so that the connection's memory is freed
            self._changed.notify()

    def _wait_until(self, condition: Callable[[], bool], timeout_seconds: float) -> None:
        """Check the condition after each end of a connection, and once per poll interval."""
        deadline = time.monotonic() + timeout_seconds
        while not condition() and time.monotonic() < deadline:
            with self._lock:
                self._changed.wait(_POLL_SECONDS)

    def _join_ended(self) -> None:
        with self._lock:
            ended, self._ended = self._ended, []
        for thread in ended:
            thread.join()
