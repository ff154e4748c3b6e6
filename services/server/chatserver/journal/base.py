"""Values that callers and subscribers of a journal see."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chatserver.journal.entries import Entry

_T = TypeVar("_T")


class JournalClosedError(Exception):
    """The server is shutting down; nothing more is written."""


class DiskFullError(OSError):
    """The reserve of the disk is used up: entries that need space are refused."""


class Applied(Struct, frozen=True, gc=False):
    """An entry for the subscribers: it is committed, or its transaction failed."""

    entry: Entry[Any]
    # The outcome of the entry, or the OSError of its transaction.
    outcome: Any
    # The object that was given to ``append``; None for entries without one, and for those of other servers.
    origin: Any
    # The time of the entry, in milliseconds since 1970 UTC.
    time_ms: int


class Appended(Generic[_T]):
    """Entries that were appended together, and their outcomes: a light Future. For any thread.

    The journal calls :meth:`complete` or :meth:`fail`, once.
    """

    __slots__ = ("_completed", "_error", "_outcomes", "entries", "origin")

    def __init__(self, entries: Sequence[Entry[_T]], origin: object) -> None:
        self.entries = entries
        self.origin = origin
        self._outcomes: Sequence[_T] | None = None
        self._error: Exception | None = None
        # Locked until the outcomes are known. A bare lock costs a tenth of an Event or a Future, and most callers
        # never wait. It guards nothing else: the outcomes are written before it is released.
        self._completed = threading.Lock()
        self._completed.acquire()

    @property
    def is_complete(self) -> bool:
        """True if the outcomes are known, or the entries have failed."""
        return self._outcomes is not None or self._error is not None

    @property
    def is_successful(self) -> bool:
        """True if the outcomes are known."""
        return self._outcomes is not None

    def wait(self, timeout_seconds: float | None = None) -> bool:
        """Wait for the outcomes. False after the timeout; None waits without a limit."""
        is_complete = self._completed.acquire(timeout=-1 if timeout_seconds is None else timeout_seconds)
        if is_complete:
            self._completed.release()  # for other threads that wait
        return is_complete

    def result(self) -> Sequence[_T]:
        """Wait for the outcomes, in the order of the entries.

        OSError: the entries can't be stored. JournalClosedError: the journal ended, perhaps without storing them.
        """
        self.wait()
        if self._outcomes is None:
            assert self._error is not None
            raise self._error
        return self._outcomes

    def complete(self, outcomes: Sequence[_T]) -> None:
        self._outcomes = outcomes
        self._release()

    def fail(self, error: Exception) -> None:
        self._error = error
        self._release()

    def _release(self) -> None:
        self.entries = ()  # a session keeps its last append, and the texts may be long
        self._completed.release()
