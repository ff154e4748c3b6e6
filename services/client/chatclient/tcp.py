"""The link over TCP: one socket, or as many as the dialect has."""

from __future__ import annotations

import math
import selectors
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from chatprotocol.address import Address
    from chatprotocol.dialects import Dialect
    from chatprotocol.events import Event
    from chatprotocol.requests import Request

_READ_BYTES = 256 * 1024
# When one socket of several has come to its end, how long the others may be silent: they end at the same moment.
_OTHERS_SECONDS = 0.2
# A network that has gone without a word is noticed within two minutes, and within one where something was sent.
_PATIENCE = (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4), ("TCP_USER_TIMEOUT", 60_000))
# Whoever answers nothing for so long is no chat server, or one that hangs.
_FIRST_ANSWER_SECONDS = 30.0


class TcpLink:
    """Connected sockets. One thread collects, another one sends."""

    def __init__(self, sockets: Sequence[socket.socket], dialect: Dialect) -> None:
        self._sockets = sockets
        self._dialect = dialect
        # When something was asked for the first time; for the collector to look at.
        self._asked_at = math.inf

    def send(self, request: Request) -> None:
        """Send a request; where that fails, the connection is lost, and the collector says so."""
        self._asked_at = min(self._asked_at, time.monotonic())
        try:
            self._sockets[self._dialect.connection_for(request)].sendall(self._dialect.encode_request(request))
        except OSError:
            self.shut()

    def shut(self) -> None:
        """Let the collecting end."""
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def collect(self, report: Callable[[Event], None]) -> str:
        """Report what comes until one of the sockets has come to its end; and what the others still have to say.

        Returns why it has ended. Raises OSError, ProtocolError.
        """
        with selectors.DefaultSelector() as selector:
            for each in self._sockets:
                selector.register(each, selectors.EVENT_READ, self._dialect.event_decoder())
            self._wait_for_first_answer(selector)
            patience: float | None = None
            while selector.get_map() and (ready := selector.select(patience)):
                for key, _ in ready:
                    data = key.fileobj.recv(_READ_BYTES)  # type: ignore[union-attr]
                    if not data:
                        selector.unregister(key.fileobj)
                        patience = _OTHERS_SECONDS
                    for event in key.data.feed(data):
                        report(event)
        return "the server closed the connection"

    def _wait_for_first_answer(self, selector: selectors.BaseSelector) -> None:
        """Until there is one, or the end. Raises TimeoutError."""
        while not selector.select(_FIRST_ANSWER_SECONDS):
            if time.monotonic() >= self._asked_at + _FIRST_ANSWER_SECONDS:
                raise TimeoutError("the server accepts connections and answers nothing")

    def close(self) -> None:
        """For the collector, when nobody uses it any more."""
        for each in self._sockets:
            each.close()


def connect(dialect: Dialect, address: Address, seconds: float) -> TcpLink:
    """As many sockets as the dialect has. OSError, UnicodeError."""
    sockets: list[socket.socket] = []
    try:
        while len(sockets) < dialect.connections:
            sockets.append(_connect(address, seconds))
    except (OSError, UnicodeError):
        for each in sockets:
            each.close()
        raise
    return TcpLink(sockets, dialect)


def _connect(address: Address, seconds: float) -> socket.socket:
    connected = socket.create_connection(address, seconds)
    connected.settimeout(None)
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _PATIENCE:
        if option := getattr(socket, name, 0):  # not every system has them all
            connected.setsockopt(socket.IPPROTO_TCP, option, value)
    return connected
