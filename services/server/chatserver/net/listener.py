"""The TCP listener: accepts connections in its own thread."""

from __future__ import annotations

import errno
import selectors
import time
from functools import partial
from typing import TYPE_CHECKING

import structlog

from chatserver.net.limits import RefusedError
from chatserver.net.reject_queue import RejectQueue
from chatserver.net.selector_thread import SelectorThread
from chatserver.net.transport import TcpTransport

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from chatprotocol.wire import WireProtocol
    from chatserver.net.connections import Connections
    from chatserver.net.read_turns import ReadTurns

_log = structlog.get_logger()

# Maximum connections accepted in a row: the stop signal must be seen during a flood of connections.
_ACCEPT_MAX = 64
# Time without accepting while the system has no descriptor or memory for another connection.
_PAUSE_SECONDS = 0.2
_OUT_OF_RESOURCES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
# Interval of checks of the reject queue while it is not empty.
_REJECT_QUEUE_SECONDS = 0.25


class Listener:
    """Owns the listening socket, and passes each accepted socket to Connections, or to the reject queue."""

    def __init__(
        self,
        listening: socket.socket,
        connections: Connections,
        protocols: tuple[WireProtocol, ...],
        on_crash: Callable[[str], None],
        turns: ReadTurns | None = None,
    ) -> None:
        self._turns = turns
        self._connections = connections
        self._thread = SelectorThread("listener", self._run, on_crash)
        self._socket = listening
        # True after a pause was logged, until accepting works again.
        self._exhausted = False
        self._reject_queue = RejectQueue(protocols)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Stop accepting, join the thread and close the socket."""
        self._thread.stop()
        self._socket.close()

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._socket, selectors.EVENT_READ)
            selector.register(self._thread, selectors.EVENT_READ)
            selector.register(self._reject_queue, selectors.EVENT_READ)
            while True:
                timeout = None if self._reject_queue.is_empty else _REJECT_QUEUE_SECONDS
                ready = [key.fileobj for key, _ in selector.select(timeout)]
                self._reject_queue.check(time.monotonic())
                if self._thread in ready:
                    self._reject_queue.close_all()
                    return
                if not self._accept_all():
                    selector.unregister(self._socket)
                    selector.select(_PAUSE_SECONDS)
                    selector.register(self._socket, selectors.EVENT_READ)

    def _accept_all(self) -> bool:
        """Accept pending connections, _ACCEPT_MAX at most. False if the system can't accept more for now."""
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
                        _log.error("accepting paused", error=error.strerror)
                    return False
                continue  # the peer closed the connection before it was accepted
            try:
                self._connections.add(partial(TcpTransport, sock, self._turns), str(peer[0]))
            except RefusedError as error:
                if error.is_repeated:
                    sock.close()
                else:
                    self._reject_queue.add(sock, error.refused, time.monotonic())
        return True
