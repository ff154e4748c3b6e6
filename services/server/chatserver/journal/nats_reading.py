"""Reading records of a stream of NATS: what has arrived, and what NATS is asked. See ``nats_log.py``."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

from chatserver.journal.log import LogError, LogRecord

if TYPE_CHECKING:
    from collections.abc import Callable

# Maximum bytes that wait for take() while more are asked for.
WAITING_MAX_BYTES: Final = 16 * 1024 * 1024
# Memory of a record beside its bytes.
_RECORD_OVERHEAD_BYTES: Final = 200
# Interval in which a consumer sends something, also without records.
_HEARTBEAT_SECONDS: Final = 0.5
# NATS deletes a consumer that nobody reads after this time.
_INACTIVE_SECONDS: Final = 5.0


class Reading:
    """The records from a number on, between the loop, which adds them, and the thread that takes them."""

    def __init__(self, number: int, wake: Callable[[], None]) -> None:
        self.wake = wake
        # The number of the next record to be added. For the loop.
        self.next = number
        self._lock = threading.Lock()  # guards the rest
        self._records: list[LogRecord] = []
        self._bytes = 0
        self._error: LogError | None = None
        # Where flow control is answered after take(); empty if it does not wait.
        self._flow_subject = ""

    def add(self, number: int, data: bytes) -> bool:
        """Add a record, if it is the next one. False: a record before it was lost on the way."""
        if number != self.next:
            return number < self.next  # an earlier one was added before
        with self._lock:
            was_empty = not self._records
            self._records.append(LogRecord(self.next, data))
            self._bytes += len(data) + _RECORD_OVERHEAD_BYTES
        self.next += 1
        if was_empty:
            self.wake()
        return True

    def fail(self, error: LogError) -> None:
        with self._lock:
            self._error = error
        self.wake()

    @property
    def has_failed(self) -> bool:
        return self._error is not None

    @property
    def is_full(self) -> bool:
        """True if take() must come before more is asked for."""
        return self._bytes >= WAITING_MAX_BYTES

    def delays_flow(self, subject: str) -> bool:
        """True if take() must answer flow control."""
        with self._lock:
            self._flow_subject = subject if self.is_full else ""
            return self.is_full

    def take(self) -> tuple[list[LogRecord], str]:
        """Return the records, and where flow control is to be answered. LogError: there are no more."""
        with self._lock:
            if self._error is not None and not self._records:
                raise self._error
            records, self._records, self._bytes = self._records, [], 0
            subject, self._flow_subject = self._flow_subject, ""
            return records, subject


def consumer_config(stream: str, inbox: str, number: int) -> dict[str, Any]:
    """The request for a consumer that pushes the records from a number on."""
    config = {
        "deliver_subject": inbox,
        "deliver_policy": "by_start_sequence",
        "opt_start_seq": number,
        "ack_policy": "none",
        "max_deliver": 1,
        "flow_control": True,
        "idle_heartbeat": int(_HEARTBEAT_SECONDS * 1e9),
        "inactive_threshold": int(_INACTIVE_SECONDS * 1e9),
        "mem_storage": True,
        "num_replicas": 1,
    }
    return {"stream_name": stream, "action": "create", "config": config}


def find_loss(stream: dict[str, Any], created: str, number: int) -> str:
    """Return why the stream can't have this record as its next one, or all records before it; empty if it can.

    ``stream`` is what NATS tells about the stream, and ``created`` the time of its creation when it was opened.
    """
    first, last = stream["state"]["first_seq"], stream["state"]["last_seq"]
    if stream["created"] != created:
        return "The shared log was deleted and made again"
    if last < number - 1:
        return f"The shared log ends with record {last}, and this server has read record {number - 1}"
    if first > number:
        return f"The shared log begins with record {first}, and this server needs record {number}"
    return ""


def place(reply: str) -> tuple[int, int]:
    """The number of a record, and the number of records after it.

    ``$JS.ACK.<stream>.<consumer>.<delivered>.<number>.<in consumer>.<time>.<pending>``; two names come before the
    stream if JetStream has a domain.
    """
    tokens = reply.split(".")
    shift = 0 if len(tokens) < 11 else 2  # noqa: PLR2004 - see above
    return int(tokens[5 + shift]), int(tokens[8 + shift])
