"""The interface of a shared log: of :class:`NatsLog`, and of the log of the tests.

A log has records in one order, numbered from 1 without gaps, and keeps them for ever. A record that a reader gets is
stored by a quorum of the log's machines, so it can't be lost any more. The log also has leases, snapshots, and
broadcasts, which may be lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# Maximum size of a record. NATS takes 1 MiB by default.
RECORD_MAX_BYTES: Final = 512 * 1024
# Interval in which a server renews its lease, and the time after which a lease that is not renewed ends.
LEASE_RENEWAL_SECONDS: Final = 3.0
LEASE_SECONDS: Final = 10.0


class LogError(Exception):
    """The log can't be used, and waiting does not help. The text is one sentence: what is wrong and what to do."""


class LogRecord(NamedTuple):
    """A record, and its number in the log."""

    number: int
    data: bytes


class Log(Protocol):
    """A replicated log. For any thread; each method says if it may block."""

    def start(self) -> None:
        """Start to connect, and to reconnect for ever. Does not block."""

    def wait_until_open(self, timeout_seconds: float) -> bool:
        """Wait until the log is there: connected, checked, and made if it was missing. False after the timeout.

        LogError: it can't be used: wrong credentials, a server that is too old or unsafe, a stream of another form.
        """

    def find_problem(self) -> str:
        """Return why nothing can be published now, as in "NATS has no quorum"; empty if it can. Does not block."""

    def read_first(self) -> bytes | None:
        """Return the first record; None if the log is empty. Blocks. OSError: try again."""

    def create_first(self, data: bytes) -> bool:
        """Publish the first record. False if there is one. Blocks. OSError: the result is unknown; try again."""

    def read_after(self, number: int, wake: Callable[[], None]) -> None:
        """Read the records after this one, from now on: ``take`` returns them. Does not block.

        ``wake`` is called, in another thread, when there are records to take, or after an error, or when
        ``find_problem`` changes. It must not block.
        """

    def last_number(self) -> int:
        """Return the number of the newest record that is known to exist; it may lag by seconds. Does not block."""

    def take(self) -> list[LogRecord]:
        """Take the records that were read, in order and without gaps. It may be empty. Does not block.

        LogError: the records can't be read any more: the log was deleted, or records were removed.
        """

    def publish(self, record_id: str, data: bytes) -> None:
        """Publish a record, and repeat it until it is acknowledged. Does not block.

        The log ignores a repeated id for some minutes only, and may store repeated records in another order: the reader
        detects both. See SharedJournal.
        """

    def renew_lease(self, server: str, run: str) -> None:
        """Hold the lease of this server from now on; another call changes the run. Does not block."""

    def find_lease(self, server: str) -> str | None:
        """Return the run that holds the lease of a server; None if it is over. Blocks. OSError: it is unknown."""

    def broadcast(self, data: bytes) -> None:
        """Send bytes to all servers that are connected, also to this one. They may be lost. Does not block."""

    def on_broadcast(self, receive: Callable[[bytes], None]) -> None:
        """Set the function that gets broadcasts, in another thread. Call it before ``start``."""

    def put_snapshot(self, number: int, path: Path) -> None:
        """Store a file that has all records up to this one, in place of older ones. Blocks. OSError."""

    def get_snapshot(self, path: Path) -> int | None:
        """Write the newest snapshot to the file, and return its number; None if there is none. Blocks.

        OSError: try again. UnusableBackupError: it is none of this program.
        """

    def close(self, timeout_seconds: float) -> None:
        """Wait for the acknowledgements of all records, for this time at most; give up the lease, and disconnect.

        Records that are not acknowledged then may be stored or not.
        """
