"""The load: what a crowd says, and what arrives.

A flow measures deliveries a second: senders say as much as they may, with a window of messages under way, and what the
receivers get is counted until the last message has come to the last of them. A pace measures latency: messages are said
at a steady rate, and for each delivery the time from before it was sent to after it was received is kept. Both fail
(LoadError) when the server closes a connection, loses or doubles a message, or makes no progress.

To keep up with servers that are written in C it does little itself: a sender's messages are slices of one long block,
which may end in the middle of a message; what arrives is received in large pieces into one buffer; and messages are
counted without reading them (arrivals.py). Over UDP it has to look at each datagram (datagrams.py).

By itself, against a server that runs: python -m bench.load --help
"""

from __future__ import annotations

import argparse
import gc
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Final

from bench.arrivals import Delays, MarkerCount
from bench.crowd import LIMIT_SECONDS, Crowd, LoadError, allow_descriptors
from bench.protocols import WIRES, text
from bench.report import PERCENTILES, percentile_cells, table
from bench.results import percentiles

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# Messages that are said and have not come to all receivers yet.
WINDOW_MESSAGES: Final = 1_000
# The window is opened as the server shows what it can: a slow one would else have seconds of work in its queues.
FIRST_WINDOW_MESSAGES: Final = 16
# No delivery for so long is a failure.
STALL_SECONDS: Final = 5.0


@dataclass(frozen=True)
class Flow:
    """What a flow came to."""

    messages: int
    deliveries: int
    seconds: float

    @property
    def deliveries_per_second(self) -> float:
        """Of all receivers together."""
        return self.deliveries / self.seconds


class _Tap:
    """What one sender may still say, of a stream that is the same message over and over."""

    def __init__(self, crowd: Crowd, fd: int) -> None:
        frame = crowd.wire.frame(text(0))
        self._crowd = crowd
        self._fd = fd
        self._frame_bytes = len(frame)
        self._block = memoryview(frame * (WINDOW_MESSAGES + 1))
        self._offset = 0
        self._due_bytes = 0

    def open(self, messages: int) -> None:
        self._due_bytes += messages * self._frame_bytes

    def pour(self) -> None:
        """Say what the socket takes."""
        if self._due_bytes:
            sent_bytes = self._crowd.send(self._fd, self._block[self._offset : self._offset + self._due_bytes])
            self._due_bytes -= sent_bytes
            self._offset = (self._offset + sent_bytes) % self._frame_bytes


class _Window:
    """How many messages may be under way, shared out among the taps."""

    def __init__(self, messages: int, receivers: int, taps: Sequence[_Tap]) -> None:
        self._messages = messages
        self._receivers = receivers
        self._taps = taps
        self._said = 0
        self._delivered = 0
        self._progress_at = perf_counter()
        self._give_up_at = self._progress_at + LIMIT_SECONDS

    @property
    def expected(self) -> int:
        """Deliveries of all that was said."""
        return self._said * self._receivers

    def open(self, delivered: int) -> None:
        """Let more be said, for so much has come."""
        passed = delivered // self._receivers
        # Each sender says at least one.
        width = max(len(self._taps), min(self._messages, FIRST_WINDOW_MESSAGES + passed))
        share = (width + passed - self._said) // len(self._taps)
        if share > 0:
            self._said += share * len(self._taps)
            for tap in self._taps:
                tap.open(share)

    def check(self, delivered: int, now: float) -> None:
        """Raises LoadError where nothing comes any more, or all of it takes too long."""
        if delivered > self._delivered:
            self._delivered, self._progress_at = delivered, now
        if now - self._progress_at > STALL_SECONDS or now > self._give_up_at:
            how = "stalled" if now <= self._give_up_at else f"not done after {LIMIT_SECONDS:.0f} s"
            raise LoadError(f"{how}: {delivered:,} of {self.expected:,} deliveries came")


def flow(crowd: Crowd, seconds: float, window: int = WINDOW_MESSAGES) -> Flow:
    """Say as much as the window allows for so long, and wait until all of it was delivered."""
    with _undisturbed():
        return _flow(crowd, seconds, window)


def _flow(crowd: Crowd, seconds: float, messages: int) -> Flow:
    receivers, ready, receive = crowd.receivers, crowd.ready, crowd.receive
    taps = [_Tap(crowd, fd) for fd in crowd.senders]
    window = _Window(messages, len(receivers), taps)
    count = MarkerCount(crowd.buffer).count
    delivered = 0
    begin = perf_counter()
    while True:
        now = perf_counter()
        if now - begin < seconds:
            window.open(delivered)
        elif delivered == window.expected:
            return Flow(delivered // len(receivers), delivered, now - begin)
        for tap in taps:
            tap.pour()
        for fd, _ in ready():
            size = receive(fd)
            if fd in receivers:
                delivered += count(size)
        window.check(delivered, now)


def pace(crowd: Crowd, rate: float, seconds: float) -> Sequence[float]:
    """Say ``rate`` messages a second for so long, and until nobody is entering any more.

    Returns the milliseconds that each delivery took.
    """
    with _undisturbed():
        delays = _pace(crowd, rate, seconds)
    if crowd.entering:
        raise LoadError(f"{crowd.entering} were not let in within {LIMIT_SECONDS:.0f} s")
    expected = len(delays.sent_at) * len(crowd.receivers)
    if len(delays.milliseconds) != expected:
        raise LoadError(f"{len(delays.milliseconds):,} of {expected:,} deliveries came")
    return delays.milliseconds


def _pace(crowd: Crowd, rate: float, seconds: float) -> Delays:
    """Ends in any case: when all has come, when nothing comes any more, when it takes too long."""
    delays = Delays()
    # What came is looked at when nothing else waits, so that its parsing delays nobody's time stamp.
    unread: list[tuple[int, float, bytearray]] = []
    begin = progress_at = perf_counter()
    while True:
        now = perf_counter()
        said = len(delays.sent_at)
        if now - begin < (LIMIT_SECONDS if crowd.entering else seconds):
            if now - begin >= said / rate:
                _say_next(crowd, delays)
        elif len(delays.milliseconds) >= said * len(crowd.receivers) or now - progress_at > STALL_SECONDS:
            return delays
        if _listen(crowd, unread):
            progress_at = now
        else:
            for arrival in unread:
                delays.note(*arrival)
            unread.clear()


def _say_next(crowd: Crowd, delays: Delays) -> None:
    """The next message of the next sender."""
    number = len(delays.sent_at)
    frame = crowd.wire.frame(text(number))
    delays.sent_at.append(perf_counter())
    crowd.say(crowd.senders[number % len(crowd.senders)], frame)


def _listen(crowd: Crowd, unread: list[tuple[int, float, bytearray]]) -> bool:
    """Take what has come, and note when; false when it was nothing."""
    events = crowd.ready()
    for fd, _ in events:
        if fd in crowd.receivers:
            size = crowd.receive(fd)
            unread.append((fd, perf_counter(), crowd.buffer[:size]))
        else:
            crowd.hear(fd)
    return bool(events)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """No garbage is looked for meanwhile: it would take longer than a delivery does."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def main(arguments: Sequence[str] | None = None) -> int:
    """One load, against a server that runs already."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.load",
        description="Put a load on a server that runs. What it says and the names that it takes stay there for good: "
        "give the server a data folder of its own.",
    )
    parser.add_argument("--wire", choices=sorted(WIRES), default="json", help="what it speaks (json)")
    parser.add_argument("--port", type=int, required=True, help="where it listens, on 127.0.0.1")
    parser.add_argument("--receivers", type=int, default=100, help="(100)")
    parser.add_argument("--senders", type=int, default=1, help="(1)")
    parser.add_argument("--seconds", type=float, default=3.0, help="how long messages are sent (3)")
    parser.add_argument("--window", type=int, default=WINDOW_MESSAGES, help="messages under way at most (1000)")
    parser.add_argument("--rate", type=float, default=0.0, help="messages a second: measure latency, not throughput")
    options = parser.parse_args(arguments)
    allow_descriptors()
    try:
        with Crowd(WIRES[options.wire], options.port) as crowd:
            names = [f"n{number:05d}" for number in range(options.receivers + options.senders)]
            seconds = crowd.enter(names[: options.receivers], names[options.receivers :])
            print(f"{len(names)} came in within {seconds:.3f} s: {len(names) / seconds:,.0f}/s")
            crowd.settle()
            if options.rate:
                found = percentiles(pace(crowd, options.rate, options.seconds))
                rows = [[f"{found.count:,}", *percentile_cells(found)]]
                print(*table(["deliveries, in ms", *PERCENTILES], rows), sep="\n")
            else:
                result = flow(crowd, options.seconds, options.window)
                print(f"{result}: {result.deliveries_per_second:,.0f} deliveries/s")
    except LoadError as error:
        print(f"The server failed: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
