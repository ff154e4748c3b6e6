"""The connection to the server: the socket, the thread that collects from it, and connecting again."""

from __future__ import annotations

import random
import socket
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from chatprotocol.errors import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable

    from chatprotocol.dialects import Dialect
    from chatprotocol.events import Event
    from chatprotocol.requests import Request

CONNECT_SECONDS = 10.0
# A try that comes while the server's machine or container is just going may get no answer at all.
_CONNECT_AGAIN_SECONDS = 2.0
# Pauses between two tries to connect again: doubled each time, up to the longest, with a random part so that the
# clients of a server that was restarted do not come all at once.
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0
_READ_BYTES = 256 * 1024


class Up(NamedTuple):
    """The connection stands; nothing was said yet."""


class Down(NamedTuple):
    """The connection is lost; a new one is being tried."""

    reason: str


class Lost(NamedTuple):
    """There is no connection, and no more will be tried."""

    reason: str


Signal = Up | Down | Lost


class Connection:
    """Collects what the server says, in a thread of its own, and connects again when the connection is lost.

    ``report`` is given every event and signal, in order, by the collector thread; it must not wait.
    """

    def __init__(
        self,
        address: tuple[str, int],
        dialect: Dialect,
        retry_seconds: float,
        report: Callable[[Event | Signal], None],
    ) -> None:
        self._address = address
        self._dialect = dialect
        self._retry_seconds = retry_seconds
        self._report = report
        self._closing = threading.Event()
        # Guards the socket: the collector replaces it, others send on it or shut it.
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._collector = threading.Thread(target=self._run, name="collector")

    def start(self) -> None:
        """Start to connect and to collect."""
        self._collector.start()

    def send(self, request: Request) -> None:
        """Send a request; where that fails, the connection is lost, and the collector says so."""
        with self._lock:
            connected = self._socket
        if connected is None:
            return
        try:
            connected.sendall(self._dialect.encode_request(request))
        except OSError:
            _shut(connected)

    def close(self) -> None:
        """End the connection and the collector."""
        self._closing.set()
        with self._lock:
            if self._socket is not None:
                _shut(self._socket)
        self._collector.join()

    def _run(self) -> None:
        try:
            reason = self._connect(CONNECT_SECONDS)
            while not reason:
                reason = self._collect()
                if self._closing.is_set():
                    return
                self._report(Down(reason))
                reason = self._connect_again()
            self._report(Lost(reason))
        except Exception as error:  # a fault of this program; without the report nobody would notice
            self._report(Lost(f"the collector failed: {error!r}"))
            raise

    def _connect(self, seconds: float) -> str:
        """Connect once; returns why it failed, or nothing."""
        host, port = self._address
        try:
            connected = socket.create_connection(self._address, seconds)
        except (OSError, UnicodeError) as error:  # UnicodeError: the name can't be one of the domain name system
            return f"can't reach {host}:{port}: {getattr(error, 'strerror', None) or error}"
        connected.settimeout(None)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        with self._lock:
            self._socket = connected
        if self._closing.is_set():
            _shut(connected)
        self._report(Up())
        return ""

    def _connect_again(self) -> str:
        """Connect, with growing pauses; returns why it failed for good, or nothing."""
        give_up_at = time.monotonic() + self._retry_seconds
        pause_seconds = _FIRST_PAUSE_SECONDS
        while True:
            if self._closing.wait(pause_seconds * random.uniform(0.5, 1.0)):  # noqa: S311 - not a secret
                return "closed"
            reason = self._connect(_CONNECT_AGAIN_SECONDS)
            if not reason or time.monotonic() >= give_up_at:
                return reason
            pause_seconds = min(2 * pause_seconds, _LONGEST_PAUSE_SECONDS)

    def _collect(self) -> str:
        """Report everything that comes until the connection ends; returns why it did."""
        connected = self._socket
        assert connected is not None
        decoder = self._dialect.event_decoder()
        try:
            while data := connected.recv(_READ_BYTES):
                for event in decoder.feed(data):
                    self._report(event)
            reason = "the server closed the connection"
        except OSError as error:
            reason = error.strerror or str(error)
        except ProtocolError as error:
            reason = str(error)
        with self._lock:
            self._socket = None
        connected.close()
        return reason


def _shut(connected: socket.socket) -> None:
    """Let the collector's read end; it closes the socket."""
    with suppress(OSError):
        connected.shutdown(socket.SHUT_RDWR)
