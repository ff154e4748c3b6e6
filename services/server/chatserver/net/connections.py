"""The set of all connections: gives each one a slot, drains them at shutdown, and joins their threads.

Slots. There are ``max_connections`` of them. Each connection has one until its thread ends. Peers that don't log in
must not keep others out, so there are three rules; the last two do not hold for exempt peers:

1. If all slots are taken, or if the peers without a login have their share (``waiting_max``), a new connection
   displaces another one that is not logged in: the oldest that has been *silent* (waits for input) for a while; if
   there is none, the oldest whose login *waits for its turn* among other tries, for up to 25 s; then the oldest silent
   one. So a peer that logs in right after it has connected is never displaced by peers that guess passwords. A peer
   whose password is being checked is not displaced, so logins that wait for a hash do not displace each other.
2. If there is no such connection, the server refuses the new one.
3. The last slots (``reserved``) are for known users: a connection that gets one of them must log in soon, and neither
   registrations nor guests are accepted (:meth:`Connections.is_reserved`).

``_waiting`` has the connections that had not logged in at the last cleanup. It is cleaned up when the share seems to be
taken, so a login does nothing here.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import structlog

from chatprotocol.errors import ErrorCode
from chatprotocol.events import Refused
from chatserver.memory import ShortOfMemoryError, no_limit, trim_heap
from chatserver.net.connection import Connection
from chatserver.net.limits import RefusedError

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
# Time for the login of a connection that has one of the reserved slots. A program needs less than a second.
_RESERVED_SECONDS = 10.0
# Time for the first request of a connection, over a slow line. A silent one is then the first to be displaced.
_SILENT_SECONDS = 1.0
# Maximum displaced connections whose threads have not ended yet.
_DISPLACED_MAX = 64
# Maximum connections that are examined to find one to displace. All are examined if an eighth of them is new.
_LOOKED_AT_MAX = 64
_CLEANED_UP_PART = 8
# Peak of the number of connections from which on the memory is trimmed after it: 2,000 leave 20 MiB in malloc's holes.
_TRIM_CONNECTIONS = 256

_FULL = Refused(ErrorCode.SERVER_FULL, "The server is full; try again later.")
_SHUTTING_DOWN = Refused(ErrorCode.SHUTTING_DOWN, "The server is shutting down.")


class Slots(NamedTuple):
    """The numbers of slots: all, the share of peers without a login, and the reserve for known users."""

    total: int
    waiting_max: int
    reserved: int

    @classmethod
    def of(cls, total: int, waiting_percent: int = 100, reserved_percent: int = 0) -> Slots:
        """Divide the slots; at least one is for peers without a login."""
        return cls(total, max(1, total * waiting_percent // 100), total * reserved_percent // 100)


class Connections:
    """All accepted connections, over TCP and UDP. ``add`` is for the two listeners' threads."""

    def __init__(
        self,
        services: ConnectionServices,
        slots: Slots,
        claim: Callable[[int], None] = no_limit,
        looked_at_max: int = _LOOKED_AT_MAX,
        trim: Callable[[], None] = trim_heap,
        trim_connections: int = _TRIM_CONNECTIONS,
    ) -> None:
        """``claim`` raises ShortOfMemoryError if there is no memory for one more."""
        self._trim = trim
        self._trim_connections = trim_connections
        self._services = services
        self._claim = claim
        self._slots = slots
        self._looked_at_max = looked_at_max
        self._numbers = itertools.count(1)
        # True after a refusal was logged: a flood is logged once. Both listeners may set it at the same time: harmless.
        self._is_refusing = False
        # Guards everything below. The condition is notified after each end; only ``drain`` waits for it.
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._draining = False
        self._connections: set[Connection] = set()
        # Their highest number since the memory was last trimmed.
        self._peak = 0
        # Not exempt, and not logged in at the last cleanup; oldest first.
        self._waiting: dict[Connection, None] = {}
        # Connections that were added to _waiting since its last cleanup.
        self._unchecked = 0
        # Displaced connections: their slots are free, and their threads have not ended yet.
        self._displaced: set[Connection] = set()
        # Threads to join: they have ended or are about to end.
        self._ended: list[threading.Thread] = []

    def __len__(self) -> int:
        """Number of open connections. For any thread."""
        with self._lock:
            return len(self._connections)

    def count(self) -> Counter[str]:
        """Return the numbers of open connections by wire protocol. For any thread."""
        with self._lock:
            connections = list(self._connections)
        return Counter(each.protocol for each in connections)

    def is_reserved(self) -> bool:
        """True if the free slots are for known users only. For any thread."""
        with self._lock:
            return self._free() < self._slots.reserved

    def add(
        self, open_transport: Callable[[], Transport], address: str, protocol: WireProtocol | None = None
    ) -> Connection:
        """Start a connection. Without a protocol, its first bytes decide. Raises RefusedError.

        ``open_transport`` is called if the address may have another connection.
        """
        self._join_ended()
        limits = self._services.limits
        is_proxied = protocol is None and limits.is_trusted_proxy(address)
        try:
            network = None if is_proxied else limits.admit(address)
        except RefusedError as error:
            self._services.counters.limits_hit[error.limit] += 1
            if not error.is_repeated:
                _log.warning("connection rejected", reason=error.limit, address=address)
            raise
        connection = Connection(
            open_transport(),
            address,
            next(self._numbers),
            self._services,
            self._note_end,
            protocol,
            network=network,
            is_proxied=is_proxied,
        )
        try:
            displaced = self._take_slot(connection, is_exempt=network is None and not is_proxied)
        except RefusedError as error:
            limits.release(network)
            if error.limit != "shutting_down":
                self._log_refusing(error.limit)
            raise
        if displaced is not None:
            self._log_refusing("waiting_limit")
            displaced.displace()
        try:
            self._claim(_CONNECTION_BYTES)
            connection.start()
        except (RuntimeError, MemoryError, ShortOfMemoryError) as error:
            self._forget(connection)
            limit = "no_threads" if isinstance(error, RuntimeError) else "memory_short"
            self._log_refusing(limit)
            raise RefusedError(limit, _FULL) from error
        if displaced is None:
            self._is_refusing = False
        return connection

    def infos(self) -> list[ConnectionInfo]:
        """The open connections, oldest first. For any thread."""
        with self._lock:
            connections = list(self._connections)
        return sorted((each.info() for each in connections), key=lambda info: info.number)

    def _take_slot(self, connection: Connection, *, is_exempt: bool) -> Connection | None:
        """Give the connection a slot; returns the displaced connection, if any. Raises RefusedError."""
        slots = self._slots
        with self._lock:
            if self._draining:
                raise RefusedError("shutting_down", _SHUTTING_DOWN)
            displaced: Connection | None = None
            if self._free() <= 0 or (not is_exempt and len(self._waiting) >= slots.waiting_max):
                displaced = self._find_displaceable()  # removes those that have logged in from _waiting
                has_share = is_exempt or len(self._waiting) < slots.waiting_max
                if self._free() > 0 and has_share:
                    displaced = None
                elif displaced is None or len(self._displaced) >= _DISPLACED_MAX:
                    raise RefusedError("waiting_limit" if self._free() > 0 else "connection_limit", _FULL)
                else:
                    del self._waiting[displaced]
                    self._displaced.add(displaced)
            if not is_exempt:
                if self._free() <= slots.reserved:
                    connection.shorten_login(_RESERVED_SECONDS)
                self._waiting[connection] = None
                self._unchecked += 1
            self._connections.add(connection)
            self._peak = max(self._peak, len(self._connections))
        self._services.counters.accepted_connections += 1
        return displaced

    def _free(self) -> int:
        """Number of free slots. The lock is held."""
        return self._slots.total - len(self._connections) + len(self._displaced)

    def _find_displaceable(self) -> Connection | None:
        """Find the connection that rule 1 names, and remove those that have logged in. The lock is held.

        In a flood this runs once for each new connection, so it usually examines the oldest ones only, and all of them
        once in a while. Connections that are not silent become the newest.
        """
        if self._unchecked >= len(self._waiting) // _CLEANED_UP_PART:
            self._unchecked = 0
            self._waiting = {each: None for each in self._waiting if not each.is_logged_in}
        silent: Connection | None = None
        awaits_turn: Connection | None = None
        for connection in list(itertools.islice(self._waiting, self._looked_at_max)):
            if connection.is_silent:
                if connection.seconds >= _SILENT_SECONDS:
                    return connection
                silent = silent or connection
                continue
            del self._waiting[connection]
            if not connection.is_logged_in:
                self._waiting[connection] = None
                if connection.awaits_turn:
                    awaits_turn = awaits_turn or connection
        return awaits_turn or silent

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

    def _log_refusing(self, reason: str) -> None:
        self._services.counters.limits_hit[reason] += 1
        if not self._is_refusing:
            self._is_refusing = True
            _log.warning("refusing connections", reason=reason, connections=len(self._connections))

    def _forget(self, connection: Connection) -> None:
        """Free the connection's slot."""
        with self._lock:
            self._connections.discard(connection)
            self._waiting.pop(connection, None)
            self._displaced.discard(connection)
        self._services.limits.release(connection.network, only_files=connection.files_sent > 0)

    def _note_end(self, connection: Connection) -> None:
        """Remove a connection. Called by its reader thread, which is about to end."""
        self._forget(connection)
        with self._lock:
            self._ended.append(connection.thread)  # the thread only, so that the connection's memory is freed
            self._changed.notify()
            was_crowd = self._peak >= self._trim_connections and len(self._connections) < self._peak // 4
            if was_crowd:
                self._peak = 0
        if was_crowd:
            self._trim()

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
