"""A stop signal for a thread that waits in a selector."""

from __future__ import annotations

import socket


class StopSignal:
    """Wakes a thread that has registered this object for reading. After :meth:`send` it stays readable.

    For any thread, except ``close``: only the owner of the waiting thread calls it, after that thread has ended.
    """

    __slots__ = ("_reader", "_writer")

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()

    def fileno(self) -> int:
        """Return the descriptor that becomes readable."""
        return self._reader.fileno()

    def send(self) -> None:
        """Make the descriptor readable."""
        self._writer.send(b"\0")

    def close(self) -> None:
        """Close both ends."""
        self._reader.close()
        self._writer.close()
