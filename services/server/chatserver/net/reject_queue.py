"""The doorstep: those who can't come in. Each is told why, in its dialect, and has a moment to read it."""

from __future__ import annotations

import math
import selectors
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

from chatprotocol.wire import SNIFF_MAX_BYTES, Sniff, sniff

if TYPE_CHECKING:
    from chatprotocol.events import Refused
    from chatprotocol.wire import WireProtocol

# How long one has to say something, so that its dialect is known; and then to read the answer, for to close the socket
# at once would destroy what its peer has not read.
_SPEAK_SECONDS = 1.0
_READ_SECONDS = 1.0
# What a flood may cost in descriptors. The oldest go first.
_STANDING_MAX = 64


class RejectQueue:
    """Sockets that were accepted and refused. For the listener's thread, which never waits here.

    Whoever says nothing is told in the first of the dialects. Times are seconds of one clock.
    """

    def __init__(self, protocols: tuple[WireProtocol, ...], error: Refused) -> None:
        self._protocols = protocols
        self._error = error
        self._selector = selectors.DefaultSelector()
        # When the patience with each ends, the oldest first.
        self._silent: dict[socket.socket, float] = {}
        self._told: dict[socket.socket, float] = {}

    def fileno(self) -> int:
        """What a selector looks at: readable when somebody has spoken."""
        return self._selector.fileno()

    @property
    def is_empty(self) -> bool:
        """Is there nobody to be looked after?"""
        return not self._silent and not self._told

    def add(self, sock: socket.socket, now: float) -> None:
        """One more who can't come in."""
        sock.setblocking(False)
        self._selector.register(sock, selectors.EVENT_READ)
        self._silent[sock] = now + _SPEAK_SECONDS
        if len(self._silent) + len(self._told) > _STANDING_MAX:
            oldest = next(iter(self._told or self._silent))
            if oldest in self._silent:
                self._hear(oldest, now)
            self._close(oldest)

    def check(self, now: float) -> None:
        """Tell those who have spoken and those who did not, and close those who had the time to read it."""
        for key, _ in self._selector.select(0):
            self._hear(key.fileobj, now)  # type: ignore[arg-type]
        for sock in _due(self._silent, now):
            self._tell(sock, self._protocols[0], now)
        for sock in _due(self._told, now):
            self._close(sock)

    def close_all(self) -> None:
        """The server ends."""
        self.check(math.inf)  # when everybody's time is over
        self._selector.close()

    def _hear(self, sock: socket.socket, now: float) -> None:
        """What has come must do: to wait for more would keep this thread busy with those who send single bytes."""
        first = b""
        with suppress(OSError):
            first = sock.recv(SNIFF_MAX_BYTES, socket.MSG_PEEK)
        found = sniff(first, self._protocols) if first else Sniff.NO
        self._tell(sock, self._protocols[0] if isinstance(found, Sniff) else found, now)

    def _tell(self, sock: socket.socket, protocol: WireProtocol, now: float) -> None:
        self._selector.unregister(sock)
        del self._silent[sock]
        self._told[sock] = now + _READ_SECONDS
        with suppress(OSError):
            sock.send(protocol.encode(self._error), socket.MSG_NOSIGNAL)
            sock.shutdown(socket.SHUT_WR)

    def _close(self, sock: socket.socket) -> None:
        del self._told[sock]
        sock.close()


def _due(patience_ends: dict[socket.socket, float], now: float) -> list[socket.socket]:
    return [sock for sock, at in patience_ends.items() if at <= now]
