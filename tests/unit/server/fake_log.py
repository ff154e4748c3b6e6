"""A log in memory for the tests of the shared journal: its servers share a FakeStream, and the test decides what fails.

Nothing waits, and nothing happens by itself: a record is stored and can be taken in the call of ``publish``, in its
thread, unless the test holds it back.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from chatserver.journal.log import LogError, LogRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path


class FakeStream:
    """The records, leases and the snapshot of all logs on it. For any thread; ``lock`` guards all of them."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.records: list[bytes] = []
        self.leases: dict[str, str] = {}
        self.snapshot: tuple[int, bytes] | None = None
        self.logs: list[FakeLog] = []
        # True: the records can't be read any more.
        self.is_deleted = False
        self._numbers: dict[str, int] = {}

    def store(self, record_id: str, data: bytes) -> None:
        """Store a record, unless its id is known. All logs read it."""
        with self.lock:
            if record_id in self._numbers:
                return
            self.records.append(data)
            self._numbers[record_id] = len(self.records)
        self._wake_all()

    def forget_ids(self) -> None:
        """Store repeated records again, as NATS does after some minutes."""
        with self.lock:
            self._numbers.clear()

    def delete(self) -> None:
        self.is_deleted = True
        self._wake_all()

    def end_lease(self, server: str, run: str) -> None:
        """End the lease, unless it has gone to another run."""
        with self.lock:
            if self.leases.get(server) == run:
                del self.leases[server]

    def _wake_all(self) -> None:
        for log in tuple(self.logs):
            log.wake()


class FakeLog:
    """The log as one server sees it. For any thread."""

    def __init__(self, stream: FakeStream) -> None:
        self.stream = stream
        self.wake: Callable[[], None] = lambda: None
        # Raised by wait_until_open.
        self.open_error: LogError | None = None
        # Published records that are not stored, in order: those of hold() and cut().
        self.held: list[tuple[str, bytes]] = []
        # Stored records whose acknowledgements were lost.
        self.unacknowledged: list[tuple[str, bytes]] = []
        self.is_holding = False
        self.loses_acknowledgements = False
        # Records after this one are not read yet; None: all are read.
        self.reads_until: int | None = None
        self.is_cut = False
        self._problem = ""
        self._read: int | None = None
        self._lease = ("", "")
        self._receive: Callable[[bytes], None] = lambda _: None

    # For the test.

    def set_problem(self, problem: str) -> None:
        self._problem = problem
        self.wake()

    def hold(self) -> None:
        """Keep published records in ``held``, until release()."""
        self.is_holding = True

    def release(self, order: Iterable[int] | None = None) -> None:
        """Store the held records, in the order of these indexes; the others are lost. None: all, as published."""
        self.is_holding = False
        with self.stream.lock:
            held, self.held = self.held, []
        for index in range(len(held)) if order is None else order:
            self._send(*held[index])

    def repeat(self) -> None:
        """Publish the records whose acknowledgements were lost again; none are lost any more."""
        self.loses_acknowledgements = False
        with self.stream.lock:
            repeated, self.unacknowledged = self.unacknowledged, []
        for each in repeated:
            self._send(*each)

    def cut(self) -> None:
        """Lose the connection: records are neither stored nor read, and broadcasts are lost."""
        self.is_cut = True
        self.set_problem("it can't reach NATS")

    def mend(self) -> None:
        """Connect again; what was published meanwhile is stored."""
        self.is_cut = False
        self.release()
        self.set_problem("")

    def read_until(self, number: int | None) -> None:
        """Read no records after this one; None reads all."""
        self.reads_until = number
        self.wake()

    def _send(self, record_id: str, data: bytes) -> None:
        self.stream.store(record_id, data)
        if self.loses_acknowledgements:
            with self.stream.lock:
                self.unacknowledged.append((record_id, data))

    # The interface: see Log.

    def start(self) -> None:
        self.stream.logs.append(self)

    def wait_until_open(self, timeout_seconds: float) -> bool:  # noqa: ARG002 - nothing waits
        if self.open_error is not None:
            raise self.open_error
        return not self.is_cut

    def find_problem(self) -> str:
        return self._problem

    def read_first(self) -> bytes | None:
        self._require_connection()
        with self.stream.lock:
            return self.stream.records[0] if self.stream.records else None

    def create_first(self, data: bytes) -> bool:
        self._require_connection()
        with self.stream.lock:
            is_first = not self.stream.records
            if is_first:
                self.stream.store("first", data)
            return is_first

    def read_after(self, number: int, wake: Callable[[], None]) -> None:
        self._read = number
        self.wake = wake
        self.wake()

    def last_number(self) -> int:
        return len(self.stream.records)

    def take(self) -> list[LogRecord]:
        if self.stream.is_deleted:
            raise LogError("The stream was deleted.")
        with self.stream.lock:
            if self.is_cut or self._read is None:
                return []
            begin, self._read = self._read, max(self._read, len(self.stream.records[: self.reads_until]))
            return [LogRecord(number, self.stream.records[number - 1]) for number in range(begin + 1, self._read + 1)]

    def publish(self, record_id: str, data: bytes) -> None:
        if self.is_holding or self.is_cut:
            with self.stream.lock:
                self.held.append((record_id, data))
        else:
            self._send(record_id, data)

    def renew_lease(self, server: str, run: str) -> None:
        with self.stream.lock:
            self._lease = server, run
            self.stream.leases[server] = run

    def find_lease(self, server: str) -> str | None:
        self._require_connection()
        return self.stream.leases.get(server)

    def broadcast(self, data: bytes) -> None:
        if not self.is_cut:
            for log in tuple(self.stream.logs):
                if not log.is_cut:
                    log._receive(data)

    def on_broadcast(self, receive: Callable[[bytes], None]) -> None:
        self._receive = receive

    def put_snapshot(self, number: int, path: Path) -> None:
        self._require_connection()
        self.stream.snapshot = (number, path.read_bytes())

    def get_snapshot(self, path: Path) -> int | None:
        self._require_connection()
        if self.stream.snapshot is None:
            return None
        number, data = self.stream.snapshot
        path.write_bytes(data)
        return number

    def close(self, timeout_seconds: float) -> None:  # noqa: ARG002 - nothing waits
        self.stream.end_lease(*self._lease)
        self.stream.logs.remove(self)

    def _require_connection(self) -> None:
        if self.is_cut:
            raise ConnectionError("it can't reach NATS")
