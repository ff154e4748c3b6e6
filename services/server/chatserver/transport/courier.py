"""The courier: the one thread that writes to all sockets, and waits for none of them."""

from __future__ import annotations

import os
import selectors
import threading
import time
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any

import structlog

from chatserver.threads import Worker
from chatserver.transport.stream import SPAN_MIN_BYTES, Span

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from chatserver.transport.outbox import Outbox
    from chatserver.transport.stream import Stream

_log = structlog.get_logger()

# A peer that does not take the last of its bytes gets this long, once its reader has ended.
LINGER_SECONDS = 5.0
# A peer that is due an answer and takes not a byte for so long is not there any more, or means harm: an answer may be
# megabytes. (What everybody hears is limited by how far it is behind.)
STALL_SECONDS = 60.0
# Who leaves less than this unread is not disconnected because memory is short: it would not help.
_GREEDY_BYTES = 1024 * 1024
# Visits in a row, before the streams are looked at again: thousands may ask something in the same moment, and a visit
# costs 10 to 50 microseconds.
_VISITS_MAX = 500
# How often the retired, the full and the tracked are looked at while there are any.
_TICK_SECONDS = 0.5
# Of the tracked, so many at a time: two system calls each.
_CHECKED_MAX = 1_000


class _Followers:
    """The followers of one stream, as the courier sees them. Its own."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        # What lies before this position was offered to everybody.
        self.offered = 0
        # Those who were sent all of that and are due nothing else, with their sockets' descriptors.
        self.in_step: dict[Outbox, int] = {}
        # All others: they are logging in, are behind, or are due something of their own.
        self.astray: set[Outbox] = set()

    @property
    def have_unsent(self) -> bool:
        """Is there something that was not offered yet?"""
        return self.stream.end > self.offered

    def next_span(self) -> Span:
        """What is offered next."""
        return self.stream.span(self.offered, self.stream.end)

    def add(self, outbox: Outbox) -> None:
        """It is in step now."""
        self.astray.discard(outbox)
        self.in_step[outbox] = outbox.carrier.descriptor

    def remove(self, outbox: Outbox, cursor: int) -> None:
        """It is in step no more; this is how far it has come."""
        del self.in_step[outbox]
        outbox.fall_behind(cursor)
        if outbox.follows:
            self.astray.add(outbox)

    def forget(self, outbox: Outbox) -> None:
        """Nothing more is sent to it."""
        self.in_step.pop(outbox, None)
        self.astray.discard(outbox)


class Courier:
    """Sends each outbox what it is due, round after round.

    While it goes round, the streams grow: under load a round takes longer, and each send of it carries more. It alone
    closes the sockets, so that a descriptor is never used by one thread and closed by another.
    """

    def __init__(
        self,
        streams: Sequence[Stream],
        lag_max_bytes: int,
        on_crash: Callable[[str], None],
        is_memory_short: Callable[[], bool] = lambda: False,
        visits_max: int = _VISITS_MAX,
    ) -> None:
        self._visits_max = visits_max
        self._is_memory_short = is_memory_short
        self._followers = {stream: _Followers(stream) for stream in streams}
        self._lag_max_bytes = lag_max_bytes
        self._worker = Worker("courier", self._run, on_crash)
        self._selector = selectors.DefaultSelector()
        self._doorbell, self._bell_rope = os.pipe()
        os.set_blocking(self._doorbell, False)
        os.set_blocking(self._bell_rope, False)
        self._selector.register(self._doorbell, selectors.EVENT_READ)
        # Those whose readers have ended, with the time at which patience does. The courier thread's own.
        self._retired: dict[Outbox, float] = {}
        # Those whose sockets are full, and since when. The courier thread's own.
        self._full: dict[Outbox, float] = {}
        # Those that wait for an acknowledgement, the one that was looked at last at the end. The courier thread's own.
        self._tracked: dict[Outbox, None] = {}
        self._look_at = 0.0
        # Guards everything below.
        self._lock = threading.Lock()
        self._dirty: dict[Outbox, None] = {}
        self._retiring: list[Outbox] = []
        self._open = 0
        self._rung = False
        self._stop_at: float | None = None

    def start(self) -> None:
        """Start to send."""
        self._worker.start()

    def stop(self, patience_seconds: float) -> None:
        """Send what is due to those that are finished and retired, close every socket, end."""
        with self._lock:
            self._stop_at = time.monotonic() + patience_seconds
        self.wake()
        self._worker.join()
        self._selector.close()
        self._rung = True  # nobody rings what is closed
        os.close(self._doorbell)
        os.close(self._bell_rope)

    def add(self) -> None:
        """A peer was accepted, whose outbox will be retired some day."""
        with self._lock:
            self._open += 1

    def mark_ready(self, outbox: Outbox) -> None:
        """There is something to send to one connection. For any thread."""
        with self._lock:
            self._dirty[outbox] = None
        self.wake()

    def close_when_drained(self, outbox: Outbox) -> None:
        """Its reader has ended: close its socket once what is due was sent, or patience has ended."""
        with self._lock:
            self._retiring.append(outbox)
        self.wake()

    def wake(self) -> None:
        """There is something to do. For any thread, under any lock: it never waits."""
        if self._rung:
            return
        self._rung = True
        with suppress(BlockingIOError):  # a bell that can't be rung any louder is heard
            os.write(self._bell_rope, b"\0")

    def _run(self) -> None:
        try:
            self._deliver()
        finally:
            for stream in self._followers:
                stream.abandon()

    def _deliver(self) -> None:
        while True:
            self._wait()
            self._go_round()
            self._look_after(time.monotonic())
            self._close_retired()
            with self._lock:
                if self._stop_at is not None and (not self._open or time.monotonic() > self._stop_at + _TICK_SECONDS):
                    return

    def _wait(self) -> None:
        """Until somebody rings, or a full socket takes bytes again."""
        busy = bool(self._dirty) or any(followers.have_unsent for followers in self._followers.values())
        ticks = self._retired or self._full or self._tracked or self._stop_at is not None
        patience = _TICK_SECONDS if ticks else None
        for key, _ in self._selector.select(0 if busy else patience):
            if key.fd == self._doorbell:
                os.read(self._doorbell, 64)
                self._rung = False
            else:
                self._selector.unregister(key.fileobj)
                del self._full[key.data]
                with self._lock:
                    self._dirty[key.data] = None

    def _go_round(self) -> None:
        # First what the streams hold, then who has something else: what comes in between is for the next round. So are
        # those that are left when there are too many; they are the first then, so that each gets its visit. Followers
        # that are astray don't count: if they were left out while the stream goes on, they would fall behind.
        news = [followers for followers in self._followers.values() if followers.have_unsent]
        with self._lock:
            targets, self._dirty = self._dirty, {}
        for followers in news:
            self._advance(followers)
            for outbox in list(followers.astray):
                targets.pop(outbox, None)
                self._visit(outbox)
        left = iter(targets)
        for outbox in islice(left, self._visits_max):
            self._visit(outbox)
        if len(targets) > self._visits_max:
            with self._lock:
                self._dirty = dict.fromkeys(left) | self._dirty
        for followers in self._followers.values():
            followers.stream.offered(followers.offered)

    def _advance(self, followers: _Followers) -> None:
        """Send the next of the stream to all who are in step: one system call each, and nothing else."""
        span = followers.next_span()
        followers.offered = span.end
        if not followers.in_step:
            return
        size = span.end - span.start
        send: Callable[[int, Any], int] = followers.stream.send if size >= SPAN_MIN_BYTES else os.write
        what = span if size >= SPAN_MIN_BYTES else followers.stream.slice(*span)
        out: list[tuple[Outbox, int]] = []
        gone: list[Outbox] = []
        for outbox, descriptor in followers.in_step.items():
            sent_bytes = 0
            if outbox.in_step:
                try:
                    sent_bytes = send(descriptor, what)
                except BlockingIOError:
                    pass
                except OSError:
                    gone.append(outbox)
                    continue
                if sent_bytes == size:
                    continue
                self._note_full(outbox)
            out.append((outbox, sent_bytes))
        for outbox, sent_bytes in out:
            followers.remove(outbox, span.start + sent_bytes)
        for outbox in gone:
            self._give_up(outbox)

    def _visit(self, outbox: Outbox) -> None:
        """Look after one that is due something of its own."""
        if outbox.broken:
            return
        followers = self._followers[outbox.stream]
        if outbox in followers.in_step:
            followers.remove(outbox, followers.offered)
        elif outbox.follows:
            followers.astray.add(outbox)
        if outbox.is_tracked:
            outbox.check_acknowledged()  # before more is sent
            self._tracked[outbox] = None
        if outbox.lag_bytes() > self._lag_max_bytes:
            self._give_up_lagging(outbox)
        elif outbox not in self._full:
            self._serve(outbox, followers)
        if outbox.hangs_up and outbox in self._full:  # it does not read, and is not waited for
            self._give_up(outbox)

    def _serve(self, outbox: Outbox, followers: _Followers) -> None:
        """What one send takes, at most: who is due more than that is visited again when the others were."""
        try:
            outbox.carrier.flush()
            due = outbox.next_span(followers.offered)
            if due and not self._send(outbox, due):
                return
        except LookupError:
            self._give_up_lagging(outbox)
            return
        except (OSError, MemoryError):
            self._give_up(outbox)
            return
        if outbox.catch_up(followers.offered):
            followers.add(outbox)
        elif due:  # perhaps there is more
            with self._lock:
                self._dirty[outbox] = None
        elif outbox.is_drained() and not outbox.shut:
            outbox.shut = True
            outbox.carrier.end()
            if outbox.hangs_up:
                outbox.carrier.hang_up()

    def _send(self, outbox: Outbox, due: list[bytes | memoryview] | Span) -> bool:
        """Did the carrier take all of it? OSError. LookupError: the stream has forgotten what is due."""
        try:
            if isinstance(due, Span):
                size = due.end - due.start
                sent_bytes = outbox.stream.send(outbox.carrier.descriptor, due)
            else:
                size = sum(map(len, due))
                sent_bytes = outbox.carrier.write(due)
        except BlockingIOError:
            sent_bytes = 0
        outbox.note_sent(sent_bytes)
        if sent_bytes < size:
            self._note_full(outbox)
        return sent_bytes == size

    def _note_full(self, outbox: Outbox) -> None:
        """It takes no more for now."""
        if outbox.carrier.is_socket:
            self._full[outbox] = time.monotonic()
            self._selector.register(outbox.carrier.descriptor, selectors.EVENT_WRITE, outbox)

    def _look_after(self, now: float) -> None:
        """What is due now and then."""
        if now < self._look_at:
            return
        self._look_at = now + _TICK_SECONDS
        self._check_tracked()
        self._give_up_stalled(now)
        if self._is_memory_short():
            self._give_up_greediest()

    def _check_tracked(self) -> None:
        for outbox in list(islice(self._tracked, _CHECKED_MAX)):
            del self._tracked[outbox]
            outbox.check_acknowledged()
            if outbox.is_tracked and not outbox.broken:
                self._tracked[outbox] = None

    def _give_up_stalled(self, now: float) -> None:
        """Who is full is in the order of since when."""
        for outbox, since in list(self._full.items()):
            if now - since < STALL_SECONDS:
                return
            if outbox.has_unsent_replies and not outbox.broken:
                _log.warning("Disconnected: it does not read its answers", connection=outbox.label)
                self._give_up(outbox)

    def _give_up_greediest(self) -> None:
        """While memory is short, disconnect who keeps most of it by not reading, one in each tick."""
        astray = [outbox for followers in self._followers.values() for outbox in followers.astray]
        greediest = max(astray, key=lambda outbox: outbox.kept_bytes, default=None)
        if greediest is not None and greediest.kept_bytes >= _GREEDY_BYTES:
            _log.warning("disconnected while memory is short", connection=greediest.label, unread=greediest.kept_bytes)
            self._give_up(greediest)

    def _give_up_lagging(self, outbox: Outbox) -> None:
        _log.warning("Disconnected: it reads too slowly", connection=outbox.label, limit_bytes=self._lag_max_bytes)
        self._give_up(outbox)

    def _give_up(self, outbox: Outbox) -> None:
        """Send nothing more, and let the reader see the end."""
        outbox.broken = True
        outbox.finish()
        self._followers[outbox.stream].forget(outbox)
        outbox.carrier.hang_up()

    def _close_retired(self) -> None:
        now = time.monotonic()
        with self._lock:
            retiring, self._retiring = self._retiring, []
            give_up_at = self._stop_at
        self._retired.update((outbox, now + LINGER_SECONDS) for outbox in retiring)
        # The tracked are asked about at the next look, and once more before they are closed: not in each round.
        for outbox, patience_ends in list(self._retired.items()):
            is_told = outbox.shut and outbox.carrier.can_be_closed and not outbox.is_tracked
            if outbox.broken or is_told or now >= min(patience_ends, give_up_at or patience_ends):
                self._close(outbox)

    def _close(self, outbox: Outbox) -> None:
        del self._retired[outbox]
        outbox.check_acknowledged()
        outbox.stop_tracking()
        self._tracked.pop(outbox, None)
        if self._full.pop(outbox, None) is not None:
            self._selector.unregister(outbox.carrier.descriptor)
        outbox.broken = True
        self._followers[outbox.stream].forget(outbox)
        outbox.carrier.close()
        with self._lock:
            self._open -= 1
