"""A thread that waits in a selector, and can be stopped."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from chatserver.threads import Worker

if TYPE_CHECKING:
    from collections.abc import Callable


class SelectorThread(Worker):
    """A Worker whose ``work`` registers this object for reading, and returns after it has become readable."""

    def __init__(self, name: str, work: Callable[[], None], on_crash: Callable[[str], None]) -> None:
        super().__init__(name, work, on_crash)
        self._reader, self._writer = socket.socketpair()

    def fileno(self) -> int:
        """Return the descriptor that becomes readable in :meth:`stop`."""
        return self._reader.fileno()

    def stop(self) -> None:
        """Stop and join the thread, or do nothing if it was never started."""
        self._writer.send(b"\0")
        self.join()
        self._reader.close()
        self._writer.close()
