"""The load: messages from the senders, and the deliveries to the receivers.

``measure_throughput`` sends as fast as a window of undelivered messages allows, and counts deliveries until the last
message has reached the last receiver. ``measure_latency`` sends at a steady rate; the time of a delivery begins before
the message is sent and ends after it is received. Both raise LoadError if the server closes a connection, loses or
duplicates a message, or makes no progress.

To keep up with servers in C, the load does little work for each message. A sender's messages are slices of one long
block, and a slice may end inside a message. Receivers read large pieces into one buffer, and markers are counted
without parsing (deliveries.py). Inside TLS one receiver is decrypted, and the records of the others are counted. Only
over UDP each datagram is parsed (udp.py).

For a load on a running server: python -m bench.load --help
"""

from __future__ import annotations

import argparse
import gc
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from time import perf_counter
from typing import TYPE_CHECKING, Final

from bench.connections import LIMIT_SECONDS, Connections, LoadError, raise_descriptor_limit
from bench.deliveries import ConfirmationTimes, DeliveryTimes, MarkerCounter, SampledCounter
from bench.protocols import PROTOCOLS, frame_in_room, text
from bench.report import PERCENTILES, percentile_cells, table
from bench.results import percentiles

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Sequence

# Maximum messages that were sent and have not reached all receivers.
WINDOW_MESSAGES: Final = 1_000
# The window starts small and grows with the deliveries. Otherwise a slow server would queue seconds of work.
FIRST_WINDOW_MESSAGES: Final = 16
# A server that delivers nothing for this time has failed.
STALL_SECONDS: Final = 5.0


@dataclass(frozen=True)
class ThroughputResult:
    """Number of deliveries to all receivers together, and the time from the first message to the last delivery."""

    messages: int
    deliveries: int
    seconds: float

    @property
    def deliveries_per_second(self) -> float:
        """The rate of all receivers together."""
        return self.deliveries / self.seconds


@dataclass(frozen=True)
class LatencyResult:
    """The time of each delivery, and of each confirmation if the protocol has a mark of them, in milliseconds."""

    deliveries: Sequence[float]
    confirmations: Sequence[float]


class _LoadSender:
    """Sends the same message repeatedly, as often as the window grants."""

    def __init__(self, connections: Connections, fd: int, frame: bytes) -> None:
        self._connections = connections
        self._fd = fd
        self._frame_bytes = len(frame)
        # One frame more than the window, because a slice may begin anywhere in the first frame.
        self._block = memoryview(frame * (WINDOW_MESSAGES + 1))
        self._offset = 0
        self._granted_bytes = 0

    def grant(self, messages: int) -> None:
        self._granted_bytes += messages * self._frame_bytes

    def send(self) -> None:
        """Send the granted bytes that the socket takes."""
        if self._granted_bytes:
            piece = self._block[self._offset : self._offset + self._granted_bytes]
            sent_bytes = self._connections.send(self._fd, piece)
            self._granted_bytes -= sent_bytes
            self._offset = (self._offset + sent_bytes) % self._frame_bytes


class _Window:
    """Shares the window equally among the senders."""

    def __init__(self, messages: int, receivers: int, senders: Sequence[_LoadSender], stall_seconds: float) -> None:
        self._messages = messages
        # For each message.
        self.receivers = receivers
        self._senders = senders
        self._stall_seconds = stall_seconds
        self._granted = 0
        self._delivered = 0
        self._progress_at = perf_counter()
        self._give_up_at = self._progress_at + LIMIT_SECONDS

    @property
    def expected_deliveries(self) -> int:
        """Deliveries of all granted messages."""
        return self._granted * self.receivers

    def grant(self, delivered: int) -> None:
        """Grant the messages that the window allows after ``delivered`` deliveries."""
        complete = delivered // self.receivers
        # At least one message for each sender.
        width = max(len(self._senders), min(self._messages, FIRST_WINDOW_MESSAGES + complete))
        share = (width + complete - self._granted) // len(self._senders)
        if share > 0:
            self._granted += share * len(self._senders)
            for sender in self._senders:
                sender.grant(share)

    def check_progress(self, delivered: int, now: float) -> None:
        """Raises LoadError if the server has stalled, or at the time limit of the load."""
        if delivered > self._delivered:
            self._delivered, self._progress_at = delivered, now
        if now - self._progress_at > self._stall_seconds or now > self._give_up_at:
            how = "stalled" if now <= self._give_up_at else f"not done after {LIMIT_SECONDS:.0f} s"
            raise LoadError(f"{how}: {delivered:,} of {self.expected_deliveries:,} deliveries arrived")


def measure_throughput(
    connections: Connections,
    seconds: float,
    window: int = WINDOW_MESSAGES,
    stall_seconds: float = STALL_SECONDS,
    *,
    rooms: Sequence[str] = (),
    members: int = 0,
) -> ThroughputResult:
    """Send as much as the window allows for ``seconds``, then wait for all deliveries. Raises LoadError.

    If there are ``rooms``, each sender sends to one of them, which has ``members`` of the receivers.
    """
    frames = [frame_in_room(text(0), room) for room in rooms] or [connections.protocol.frame(text(0))]
    senders = [_LoadSender(connections, fd, frame) for fd, frame in zip(connections.senders, cycle(frames))]
    with _garbage_collection_paused():
        shared = _Window(window, members or len(connections.receivers), senders, stall_seconds)
        return _measure_throughput(connections, senders, shared, seconds)


def _measure_throughput(
    connections: Connections, senders: Sequence[_LoadSender], window: _Window, seconds: float
) -> ThroughputResult:
    receivers, ready, receive = connections.receivers, connections.ready, connections.receive
    sample = connections.decrypt_one()
    count = MarkerCounter(connections.buffer).count
    sampled = SampledCounter(connections.buffer, sample) if sample is not None else None
    delivered = 0
    begin = perf_counter()
    while True:
        now = perf_counter()
        if now - begin < seconds:
            window.grant(delivered)
        elif delivered == window.expected_deliveries:
            return ThroughputResult(delivered // window.receivers, delivered, now - begin)
        for sender in senders:
            sender.send()
        for fd, _ in ready():
            size = receive(fd)
            if fd in receivers:
                delivered += sampled.count(fd, size) if sampled else count(size)
        window.check_progress(delivered, now)


def measure_latency(
    connections: Connections, rate: float, seconds: float, stall_seconds: float = STALL_SECONDS
) -> LatencyResult:
    """Send ``rate`` messages a second for at least ``seconds``, until all logins have ended. Raises LoadError."""
    times = DeliveryTimes()
    marker = connections.protocol.confirmation
    confirmations = ConfirmationTimes(marker, connections.senders, times.sent_at) if marker else None
    with _garbage_collection_paused():
        _measure_latency(connections, times, confirmations, rate, seconds, stall_seconds)
    if connections.pending_logins:
        raise LoadError(f"{connections.pending_logins} logins were not accepted within {LIMIT_SECONDS:.0f} s")
    sent = len(times.sent_at)
    expected = sent * len(connections.receivers)
    if len(times.milliseconds) != expected:
        raise LoadError(f"{len(times.milliseconds):,} of {expected:,} deliveries arrived")
    if confirmations is not None and len(confirmations.milliseconds) != sent:
        raise LoadError(f"{len(confirmations.milliseconds):,} of {sent:,} confirmations arrived")
    return LatencyResult(times.milliseconds, confirmations.milliseconds if confirmations else ())


def _measure_latency(
    connections: Connections,
    times: DeliveryTimes,
    confirmations: ConfirmationTimes | None,
    rate: float,
    seconds: float,
    stall_seconds: float,
) -> None:
    """Return after all has arrived, or after ``stall_seconds`` without input."""
    # Pieces are parsed when no other input waits, so that parsing delays no time stamp.
    unparsed: list[tuple[int, float, bytearray]] = []
    timed = connections.receivers if confirmations is None else {*connections.receivers, *connections.senders}
    begin = progress_at = perf_counter()
    while True:
        now = perf_counter()
        sent = len(times.sent_at)
        if now - begin < (LIMIT_SECONDS if connections.pending_logins else seconds):
            if now - begin >= sent / rate:
                frame = connections.protocol.frame(text(sent))
                times.sent_at.append(perf_counter())
                connections.send_all(connections.senders[sent % len(connections.senders)], frame)
        elif now - progress_at > stall_seconds or (
            len(times.milliseconds) >= sent * len(connections.receivers)
            and (confirmations is None or len(confirmations.milliseconds) >= sent)
        ):
            return
        if _receive_ready(connections, timed, unparsed):
            progress_at = now
        else:
            for fd, at, piece in unparsed:
                if confirmations is None or fd in connections.receivers:
                    times.add(fd, at, piece)
                else:
                    confirmations.add(fd, at, piece)
            unparsed.clear()


def _receive_ready(
    connections: Connections, timed: Container[int], unparsed: list[tuple[int, float, bytearray]]
) -> bool:
    """Receive all input that is ready, that of the ``timed`` connections with its time. False if there was none."""
    events = connections.ready()
    for fd, _ in events:
        if fd in timed:
            size = connections.receive(fd)
            unparsed.append((fd, perf_counter(), connections.buffer[:size]))
        else:
            connections.handle_input(fd)
    return bool(events)


@contextmanager
def _garbage_collection_paused() -> Iterator[None]:
    """Disable garbage collection: a collection would take longer than a delivery."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def main(arguments: Sequence[str] | None = None) -> int:
    """Put one load on a running server."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.load",
        description="Put a load on a running server. The messages and accounts stay in its data folder: use a server "
        "with a data folder of its own.",
    )
    parser.add_argument("--wire", choices=sorted(PROTOCOLS), default="json", help="the protocol of the server (json)")
    parser.add_argument("--port", type=int, required=True, help="its port on 127.0.0.1")
    parser.add_argument("--receivers", type=int, default=100, help="(100)")
    parser.add_argument("--senders", type=int, default=1, help="(1)")
    parser.add_argument("--seconds", type=float, default=3.0, help="how long messages are sent (3)")
    parser.add_argument("--window", type=int, default=WINDOW_MESSAGES, help="most undelivered messages (1000)")
    parser.add_argument("--rate", type=float, default=0.0, help="messages a second: measure latency, not throughput")
    options = parser.parse_args(arguments)
    raise_descriptor_limit()
    try:
        with Connections(PROTOCOLS[options.wire], options.port) as connections:
            names = [f"n{number:05d}" for number in range(options.receivers + options.senders)]
            seconds = connections.log_in(names[: options.receivers], names[options.receivers :])
            print(f"{len(names)} logins in {seconds:.3f} s: {len(names) / seconds:,.0f}/s")
            connections.wait_until_quiet()
            if options.rate:
                times = measure_latency(connections, options.rate, options.seconds)
                found = {"deliveries": times.deliveries, "confirmations": times.confirmations}
                rows = [
                    [f"{len(each):,} {of}", *percentile_cells(percentiles(each))] for of, each in found.items() if each
                ]
                print(*table(["in ms", *PERCENTILES], rows), sep="\n")
            else:
                result = measure_throughput(connections, options.seconds, options.window)
                print(f"{result}: {result.deliveries_per_second:,.0f} deliveries/s")
    except LoadError as error:
        print(f"The server failed: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
