"""The listener: accepts connections, keeps their number within the limit, and joins their threads."""

from __future__ import annotations

import errno
import selectors
import socket
import threading
import time
from typing import TYPE_CHECKING

import structlog

from chatserver.threads import Worker
from chatserver.transport.connection import Connection
from chatserver.transport.doorstep import Doorstep

if TYPE_CHECKING:
    from collections.abc import Callable

    from chatprotocol.events import Refused
    from chatserver.transport.connection import House

_log = structlog.get_logger()

_BACKLOG = 4_096
# Accepted in a row, before it is looked whether to stop: under a flood of connections there is always one more.
_ACCEPT_MAX = 64
# How long accepting rests when the system has no descriptors or memory for one more connection.
_REST_SECONDS = 0.2
_OUT_OF_RESOURCES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
# How often it is looked after those who were refused, while there are any.
_DOORSTEP_SECONDS = 0.25
# At the end peers that have got everything have this long to close their side first.
_SEEING_OUT_SECONDS = 0.2
_LOOK_SECONDS = 0.02
# A peer that has gone without a word is noticed within KEEPIDLE + KEEPCNT * KEEPINTVL = 2 minutes.
_KEEPALIVE = (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4))


class Listener:
    """Owns the listening socket and all connections."""

    def __init__(
        self,
        host: str,
        port: int,
        house: House,
        full: Refused,
        max_connections: int,
        on_crash: Callable[[str], None],
    ) -> None:
        """Bind at once. Raises OSError. ``full`` is what the connection over the limit is told."""
        self._house = house
        self._max_connections = max_connections
        self._worker = Worker("listener", self._run, on_crash)
        self._socket = _bind(host, port)
        self._stop_here, self._stop_there = socket.socketpair()
        self._accepted = 0
        # Said once in a row each: there may be thousands.
        self._full = False
        self._exhausted = False
        self._doorstep = Doorstep(house.dialects, full)
        # Guards what is below. Somebody waits for those who leave only while the server shuts down.
        self._lock = threading.Lock()
        self._left = threading.Condition(self._lock)
        self._connections: set[Connection] = set()
        self._ended: list[Connection] = []

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._socket.getsockname()[1])

    def start(self) -> None:
        """Start to accept."""
        self._worker.start()

    def close(self) -> None:
        """Let nobody in any more."""
        self._stop_there.send(b"\0")
        self._worker.join()
        self._socket.close()
        self._stop_here.close()
        self._stop_there.close()

    def part(self, patience_seconds: float) -> int:
        """Say goodbye to everybody who is left, and see them out; returns how many they were.

        Whoever has not got all that is due to it when patience ends is cut off.
        """
        with self._lock:
            left = list(self._connections)
        for connection in left:
            connection.part()
        self._wait_until(lambda: all(connection.has_been_told() for connection in left), patience_seconds)
        self._wait_until(lambda: not self._connections, _SEEING_OUT_SECONDS)
        for connection in left:
            connection.cut_off()
        for connection in left:
            connection.join()
        self._join_ended()
        return len(left)

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._socket, selectors.EVENT_READ)
            selector.register(self._stop_here, selectors.EVENT_READ)
            selector.register(self._doorstep, selectors.EVENT_READ)
            while True:
                patience = None if self._doorstep.is_empty else _DOORSTEP_SECONDS
                ready = [key.fileobj for key, _ in selector.select(patience)]
                self._doorstep.look(time.monotonic())
                if self._stop_here in ready:
                    self._doorstep.clear()
                    return
                if not self._accept_all():
                    selector.unregister(self._socket)
                    selector.select(_REST_SECONDS)
                    selector.register(self._socket, selectors.EVENT_READ)

    def _accept_all(self) -> bool:
        """Those who wait at the door, if not too many; false when the system can take no more for now."""
        for _ in range(_ACCEPT_MAX):
            try:
                sock, peer = self._socket.accept()
            except BlockingIOError:
                self._exhausted = False
                return True
            except OSError as error:
                if error.errno in _OUT_OF_RESOURCES:
                    if not self._exhausted:
                        self._exhausted = True
                        _log.error("No connection can be accepted for now", error=error.strerror)
                    return False
                continue  # the peer has gone before it was accepted
            self._join_ended()
            self._welcome(sock, str(peer[0]))
        return True

    def _welcome(self, sock: socket.socket, address: str) -> None:
        self._accepted += 1
        connection = Connection(sock, address, self._accepted, self._house, self._note_end)
        with self._lock:
            is_full = len(self._connections) >= self._max_connections
            if not is_full:
                self._connections.add(connection)
        if is_full:
            self._refuse(sock, f"the limit of {self._max_connections} connections is reached")
            return
        try:
            connection.start()
        except RuntimeError as error:
            with self._lock:
                self._connections.discard(connection)
            self._refuse(sock, str(error))
            return
        self._full = False

    def _refuse(self, sock: socket.socket, why: str) -> None:
        """Tell one that can't come in."""
        if not self._full:
            self._full = True
            _log.warning("Refusing connections", reason=why)
        self._doorstep.put(sock, time.monotonic())

    def _note_end(self, connection: Connection) -> None:
        """A reader thread is about to end. Called by that thread."""
        with self._lock:
            self._connections.discard(connection)
            self._ended.append(connection)
            self._left.notify()

    def _wait_until(self, condition: Callable[[], bool], patience_seconds: float) -> None:
        """Look whenever somebody has left, and now and then: what a peer's system has got, nobody tells."""
        patience_ends = time.monotonic() + patience_seconds
        with self._lock:
            while not condition() and time.monotonic() < patience_ends:
                self._left.wait(_LOOK_SECONDS)

    def _join_ended(self) -> None:
        with self._lock:
            ended, self._ended = self._ended, []
        for connection in ended:
            connection.join()


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.create_server(
        (host, port), family=family, backlog=_BACKLOG, dualstack_ipv6=family == socket.AF_INET6
    )
    listening.setblocking(False)
    # Each connection has these from the socket that accepts it: to set them anew would be five system calls a login.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE:
        if hasattr(socket, name):
            listening.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return listening
