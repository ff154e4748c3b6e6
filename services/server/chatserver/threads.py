"""The server's long-lived threads: each has a name, one owner who joins it, and one place that catches all."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable

_log = structlog.get_logger()


class Worker:
    """A thread that must not die: when its work raises, ``on_crash`` is told, and the server ends with an error."""

    def __init__(self, name: str, work: Callable[[], None], on_crash: Callable[[str], None]) -> None:
        self._work = work
        self._on_crash = on_crash
        self._thread = threading.Thread(target=self._run, name=name)

    def start(self) -> None:
        """Begin. Whoever starts it joins it."""
        self._thread.start()

    def join(self) -> None:
        """Wait for its end; at once where it was never started."""
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            self._work()
        except Exception:
            _log.exception("A thread of the server died", thread=self._thread.name)
            self._on_crash(self._thread.name)
