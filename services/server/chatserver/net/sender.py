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

from chatserver.net.broadcast import SPAN_MIN_BYTES, Span
from chatserver.threads import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from chatserver.net.broadcast import BroadcastBuffer
    from chatserver.net.sendqueue import SendQueue

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

    def __init__(self, broadcast: BroadcastBuffer) -> None:
        self.broadcast = broadcast
        # What lies before this position was offered to everybody.
        self.offered = 0
        # Those who were sent all of that and are due nothing else, with their sockets' descriptors.
        self.caught_up: dict[SendQueue, int] = {}
        # All others: they are logging in, are behind, or are due something of their own.
        self.behind: set[SendQueue] = set()

    @property
    def have_unsent(self) -> bool:
        """Is there something that was not offered yet?"""
        return self.broadcast.end > self.offered

    def next_span(self) -> Span:
        """What is offered next."""
        return self.broadcast.span(self.offered, self.broadcast.end)

    def add(self, send_queue: SendQueue) -> None:
        """It is in step now."""
        self.behind.discard(send_queue)
        self.caught_up[send_queue] = send_queue.transport.descriptor

    def remove(self, send_queue: SendQueue, cursor: int) -> None:
        """It is in step no more; this is how far it has come."""
        del self.caught_up[send_queue]
        send_queue.fall_behind(cursor)
        if send_queue.follows:
            self.behind.add(send_queue)

    def forget(self, send_queue: SendQueue) -> None:
        """Nothing more is sent to it."""
        self.caught_up.pop(send_queue, None)
        self.behind.discard(send_queue)


class Sender:
    """Sends each outbox what it is due, round after round.

    While it goes round, the streams grow: under load a round takes longer, and each send of it carries more. It alone
    closes the sockets, so that a descriptor is never used by one thread and closed by another.
    """

    def __init__(
        self,
        broadcasts: Sequence[BroadcastBuffer],
        lag_max_bytes: int,
        on_crash: Callable[[str], None],
        is_memory_short: Callable[[], bool] = lambda: False,
        visits_max: int = _VISITS_MAX,
    ) -> None:
        self._visits_max = visits_max
        self._is_memory_short = is_memory_short
        self._followers = {broadcast: _Followers(broadcast) for broadcast in broadcasts}
        self._lag_max_bytes = lag_max_bytes
        self._worker = Worker("sender", self._run, on_crash)
        self._selector = selectors.DefaultSelector()
        self._wakeup, self._bell_rope = os.pipe()
        os.set_blocking(self._wakeup, False)
        os.set_blocking(self._bell_rope, False)
        self._selector.register(self._wakeup, selectors.EVENT_READ)
        # Those whose readers have ended, with the time at which patience does. The courier thread's own.
        self._retired: dict[SendQueue, float] = {}
        # Those whose sockets are full, and since when. The courier thread's own.
        self._full: dict[SendQueue, float] = {}
        # Those that wait for an acknowledgement, the one that was looked at last at the end. The courier thread's own.
        self._tracked: dict[SendQueue, None] = {}
        self._look_at = 0.0
        # Guards everything below.
        self._lock = threading.Lock()
        self._dirty: dict[SendQueue, None] = {}
        self._retiring: list[SendQueue] = []
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
        os.close(self._wakeup)
        os.close(self._bell_rope)

    def add(self) -> None:
        """A peer was accepted, whose outbox will be retired some day."""
        with self._lock:
            self._open += 1

    def mark_ready(self, send_queue: SendQueue) -> None:
        """There is something to send to one connection. For any thread."""
        with self._lock:
            self._dirty[send_queue] = None
        self.wake()

    def close_when_drained(self, send_queue: SendQueue) -> None:
        """Its reader has ended: close its socket once what is due was sent, or patience has ended."""
        with self._lock:
            self._retiring.append(send_queue)
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
            for broadcast in self._followers:
                broadcast.abandon()

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
            if key.fd == self._wakeup:
                os.read(self._wakeup, 64)
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
            for send_queue in list(followers.behind):
                targets.pop(send_queue, None)
                self._visit(send_queue)
        left = iter(targets)
        for send_queue in islice(left, self._visits_max):
            self._visit(send_queue)
        if len(targets) > self._visits_max:
            with self._lock:
                self._dirty = dict.fromkeys(left) | self._dirty
        for followers in self._followers.values():
            followers.broadcast.offered(followers.offered)

    def _advance(self, followers: _Followers) -> None:
        """Send the next of the stream to all who are in step: one system call each, and nothing else."""
        span = followers.next_span()
        followers.offered = span.end
        if not followers.caught_up:
            return
        size = span.end - span.start
        send: Callable[[int, Any], int] = followers.broadcast.send if size >= SPAN_MIN_BYTES else os.write
        what = span if size >= SPAN_MIN_BYTES else followers.broadcast.slice(*span)
        out: list[tuple[SendQueue, int]] = []
        gone: list[SendQueue] = []
        for send_queue, descriptor in followers.caught_up.items():
            sent_bytes = 0
            if send_queue.caught_up:
                try:
                    sent_bytes = send(descriptor, what)
                except BlockingIOError:
                    pass
                except OSError:
                    gone.append(send_queue)
                    continue
                if sent_bytes == size:
                    continue
                self._note_full(send_queue)
            out.append((send_queue, sent_bytes))
        for send_queue, sent_bytes in out:
            followers.remove(send_queue, span.start + sent_bytes)
        for send_queue in gone:
            self._give_up(send_queue)

    def _visit(self, send_queue: SendQueue) -> None:
        """Look after one that is due something of its own."""
        if send_queue.broken:
            return
        followers = self._followers[send_queue.broadcast]
        if send_queue in followers.caught_up:
            followers.remove(send_queue, followers.offered)
        elif send_queue.follows:
            followers.behind.add(send_queue)
        if send_queue.is_tracked:
            send_queue.check_acknowledged()  # before more is sent
            self._tracked[send_queue] = None
        if send_queue.lag_bytes() > self._lag_max_bytes:
            self._give_up_lagging(send_queue)
        elif send_queue not in self._full:
            self._serve(send_queue, followers)
        if send_queue.hangs_up and send_queue in self._full:  # it does not read, and is not waited for
            self._give_up(send_queue)

    def _serve(self, send_queue: SendQueue, followers: _Followers) -> None:
        """What one send takes, at most: who is due more than that is visited again when the others were."""
        try:
            send_queue.transport.flush()
            due = send_queue.next_span(followers.offered)
            if due and not self._send(send_queue, due):
                return
        except LookupError:
            self._give_up_lagging(send_queue)
            return
        except (OSError, MemoryError):
            self._give_up(send_queue)
            return
        if send_queue.catch_up(followers.offered):
            followers.add(send_queue)
        elif due:  # perhaps there is more
            with self._lock:
                self._dirty[send_queue] = None
        elif send_queue.is_drained() and not send_queue.shut:
            send_queue.shut = True
            send_queue.transport.end()
            if send_queue.hangs_up:
                send_queue.transport.hang_up()

    def _send(self, send_queue: SendQueue, due: list[bytes | memoryview] | Span) -> bool:
        """Did the carrier take all of it? OSError. LookupError: the stream has forgotten what is due."""
        try:
            if isinstance(due, Span):
                size = due.end - due.start
                sent_bytes = send_queue.broadcast.send(send_queue.transport.descriptor, due)
            else:
                size = sum(map(len, due))
                sent_bytes = send_queue.transport.write(due)
        except BlockingIOError:
            sent_bytes = 0
        send_queue.note_sent(sent_bytes)
        if sent_bytes < size:
            self._note_full(send_queue)
        return sent_bytes == size

    def _note_full(self, send_queue: SendQueue) -> None:
        """It takes no more for now."""
        if send_queue.transport.is_socket:
            self._full[send_queue] = time.monotonic()
            self._selector.register(send_queue.transport.descriptor, selectors.EVENT_WRITE, send_queue)

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
        for send_queue in list(islice(self._tracked, _CHECKED_MAX)):
            del self._tracked[send_queue]
            send_queue.check_acknowledged()
            if send_queue.is_tracked and not send_queue.broken:
                self._tracked[send_queue] = None

    def _give_up_stalled(self, now: float) -> None:
        """Who is full is in the order of since when."""
        for send_queue, since in list(self._full.items()):
            if now - since < STALL_SECONDS:
                return
            if send_queue.has_unsent_replies and not send_queue.broken:
                _log.warning("Disconnected: it does not read its answers", connection=send_queue.label)
                self._give_up(send_queue)

    def _give_up_greediest(self) -> None:
        """While memory is short, disconnect who keeps most of it by not reading, one in each tick."""
        behind = [send_queue for followers in self._followers.values() for send_queue in followers.behind]
        greediest = max(behind, key=lambda send_queue: send_queue.kept_bytes, default=None)
        if greediest is not None and greediest.kept_bytes >= _GREEDY_BYTES:
            _log.warning("disconnected while memory is short", connection=greediest.label, unread=greediest.kept_bytes)
            self._give_up(greediest)

    def _give_up_lagging(self, send_queue: SendQueue) -> None:
        _log.warning("Disconnected: it reads too slowly", connection=send_queue.label, limit_bytes=self._lag_max_bytes)
        self._give_up(send_queue)

    def _give_up(self, send_queue: SendQueue) -> None:
        """Send nothing more, and let the reader see the end."""
        send_queue.broken = True
        send_queue.finish()
        self._followers[send_queue.broadcast].forget(send_queue)
        send_queue.transport.hang_up()

    def _close_retired(self) -> None:
        now = time.monotonic()
        with self._lock:
            retiring, self._retiring = self._retiring, []
            give_up_at = self._stop_at
        self._retired.update((send_queue, now + LINGER_SECONDS) for send_queue in retiring)
        # The tracked are asked about at the next look, and once more before they are closed: not in each round.
        for send_queue, patience_ends in list(self._retired.items()):
            is_told = send_queue.shut and send_queue.transport.can_be_closed and not send_queue.is_tracked
            if send_queue.broken or is_told or now >= min(patience_ends, give_up_at or patience_ends):
                self._close(send_queue)

    def _close(self, send_queue: SendQueue) -> None:
        del self._retired[send_queue]
        send_queue.check_acknowledged()
        send_queue.stop_tracking()
        self._tracked.pop(send_queue, None)
        if self._full.pop(send_queue, None) is not None:
            self._selector.unregister(send_queue.transport.descriptor)
        send_queue.broken = True
        self._followers[send_queue.broadcast].forget(send_queue)
        send_queue.transport.close()
        with self._lock:
            self._open -= 1
