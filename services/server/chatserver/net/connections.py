"""All connections: keeps their number within the limit, sees them out, and joins their threads."""

from __future__ import annotations

import itertools
import threading
import time
from typing import TYPE_CHECKING

import structlog

from chatserver.memory import ShortOfMemoryError, no_limit
from chatserver.net.connection import Connection

if TYPE_CHECKING:
    from collections.abc import Callable

    from chatprotocol.wire import WireProtocol
    from chatserver.net.connection import ConnectionServices
    from chatserver.net.transport import Transport

_log = structlog.get_logger()

# At the end peers that have got everything have this long to close their side first.
_SEEING_OUT_SECONDS = 0.2
_LOOK_SECONDS = 0.02
# What one takes of memory: its thread's stack is 256 KiB of addresses, of which a part is used.
_CONNECTION_BYTES = 128 * 1024


class FullError(Exception):
    """One more can't come in: the limit is reached, the system has no thread to give, or the server is about to end."""


class Connections:
    """Everybody who was let in, through whichever door."""

    def __init__(
        self, services: ConnectionServices, max_connections: int, claim: Callable[[int], None] = no_limit
    ) -> None:
        """``claim`` raises ShortOfMemoryError if there is no memory for one more."""
        self._services = services
        self._claim = claim
        self._max_connections = max_connections
        self._numbers = itertools.count(1)
        # Was it said that nobody can come in? Once in a row, or nearly: there may be thousands.
        self._full = False
        # Guards what is below. Somebody waits for those who leave only while the server shuts down.
        self._lock = threading.Lock()
        self._left = threading.Condition(self._lock)
        self._parting = False
        self._connections: set[Connection] = set()
        self._ended: list[threading.Thread] = []

    def add(self, transport: Transport, address: str, protocol: WireProtocol | None = None) -> Connection:
        """One more; without a dialect, it shows in what the peer says first. Raises FullError."""
        self._join_ended()
        connection = Connection(transport, address, next(self._numbers), self._services, self._note_end, protocol)
        with self._lock:
            is_full = len(self._connections) >= self._max_connections
            if not is_full and not self._parting:
                self._connections.add(connection)
        if self._parting:
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
        self._full = False
        return connection

    def drain(self, patience_seconds: float) -> int:
        """Say goodbye to everybody who is left, and see them out; returns how many they were.

        Whoever has not got all that is due to it when patience ends is cut off.
        """
        with self._lock:
            self._parting = True  # a door may just be letting somebody in
            left = list(self._connections)
        for connection in left:
            connection.drain()
        self._wait_until(lambda: all(connection.has_been_told() for connection in left), patience_seconds)
        self._wait_until(lambda: not self._connections, _SEEING_OUT_SECONDS)
        for connection in left:
            connection.disconnect()
        for connection in left:
            connection.join()
        self._join_ended()
        return len(left)

    def _refuse(self, reason: str, detail: str) -> FullError:
        if not self._full:
            self._full = True
            _log.warning("refusing connections", reason=reason, connections=len(self._connections))
        return FullError(detail)

    def _note_end(self, connection: Connection) -> None:
        """A reader thread is about to end. Called by that thread."""
        with self._lock:
            self._connections.discard(connection)
            self._ended.append(connection.thread)  # and not all that it holds
            self._left.notify()

    def _wait_until(self, condition: Callable[[], bool], patience_seconds: float) -> None:
        """Look whenever somebody has left, and now and then: what a peer's system has got, nobody tells."""
        patience_ends = time.monotonic() + patience_seconds
        while not condition() and time.monotonic() < patience_ends:
            with self._lock:
                self._left.wait(_LOOK_SECONDS)

    def _join_ended(self) -> None:
        with self._lock:
            ended, self._ended = self._ended, []
        for thread in ended:
            thread.join()
