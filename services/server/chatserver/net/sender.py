"""The sender: one thread that writes to all transports and never waits for one of them.

Each round (:meth:`Sender.run_round`) has four steps: wait for work, send, run the periodic checks, close connections.
While a round runs, the broadcast buffers grow. Under load a round takes longer and each send carries more, so the
number of system calls per message falls.

The sender's view of a send queue:

* caught up: in ``_Followers.caught_up`` of each buffer that it follows, or in ``caught_up_tls``. Everything up to the
  positions of the buffers was sent, and the queue has no segments. :meth:`_advance` moves the position of a buffer and
  sends the next span to all caught-up queues, with one system call each. For TLS the span is read once, and encrypted
  for each queue.
* behind: in ``_Followers.behind`` of each buffer that it follows, or has unsent data of. :meth:`_visit` serves it after
  each growth of one of them.
* full: also in ``_full``. The socket took less than was offered; the selector reports when it is writable again.
* closing: also in ``_closing``. The reader has ended. The transport is closed once all data was sent, or after
  LINGER_SECONDS.
* CLOSED: in no set. Nothing more is sent; the queue waits only for its reader to end.

A queue that is not logged in is in no set; ``mark_ready`` adds it to the next round. ``_placed`` has the buffers in
whose sets a queue is. :meth:`_place` updates them at each visit; :meth:`_serve` moves a queue from behind to caught up,
in all its buffers. :meth:`_take_out` moves it back, from all its buffers, each at its position: after a short send, if
another thread has cleared ``caught_up``, or if it was marked ready. :meth:`_disconnect` closes a queue, and
:meth:`_close` its transport.

Buffers. A buffer that has grown is in ``_growing`` until everything was offered; others cost nothing in a round. A
buffer that was removed is closed when no queue has unsent data of it.

Threads. ``add_buffer``, ``remove_buffer``, ``add``, ``mark_ready``, ``close_when_drained`` and ``wake`` may be called
from any thread. All other methods except ``start`` and ``stop`` run in the sender's thread. The sender alone closes the
transport of a connection with a send queue, so a descriptor is never closed, and never reused for another peer, while
it is in use.

Locks. ``_lock`` guards the hand-over fields and is a leaf: no other lock is taken and no system call is made under it,
so callers may hold the hub's lock. The sender holds no lock while it writes.

The sender reads ``caught_up`` of a queue without its lock. If another thread clears it after this read, the span that
is sent is still right: bytes that are inserted now are at the flushed end or later, and the span ends there or earlier.
A segment inside the span was added before the flush, so ``caught_up`` was cleared before this thread saw the end.

No wake-up is lost. A caller first publishes its work (``_ready``, ``_growing``, ``_to_close``, ``_stop_at``) and then
calls ``wake``. The sender first reads the pipe, then clears ``_woken``, then looks for work. If a caller finds
``_woken`` set, the byte is unread, or the sender has not looked for work yet. Either way the sender finds the work.
"""

from __future__ import annotations

import os
import selectors
import sys
import threading
import time
from contextlib import suppress
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import structlog

from chatserver.counters import Counters
from chatserver.memory import trim_heap
from chatserver.net.broadcast import Span
from chatserver.net.sendqueue import CLOSED, HANGING_UP, SHUT, Shared
from chatserver.threads import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from chatserver.net.broadcast import BroadcastBuffer
    from chatserver.net.sendqueue import SendQueue
    from chatserver.net.transport import Transport

_log = structlog.get_logger()

# Time limit for sending the last bytes after the reader of a connection has ended.
LINGER_SECONDS = 5.0
# Time limit for a peer that takes no byte of its unsent replies: it is lost or hostile, and replies may take megabytes.
# Broadcast data needs no such limit, because the lag limit covers it.
STALL_SECONDS = 60.0
# Minimum unsent data for a disconnect while memory is short: with less, a disconnect would free too little.
_SHORT_MEMORY_UNSENT_BYTES = 64 * 1024
# Peak of the unread bytes from which on the memory is trimmed after it: less is soon used again.
_TRIM_BYTES = 2 * 1024 * 1024
# Maximum visits per round: thousands of clients may send requests at once, a visit takes 10 to 50 microseconds, and
# broadcast data must not wait for all of them.
_VISITS_MAX = 500
# Interval of the periodic checks while a queue is closing, full or tracked.
_TICK_SECONDS = 0.5
# Maximum tracked queues per check: each takes two system calls.
_CHECKED_MAX = 1_000


class _Followers:
    """The followers of one broadcast buffer, by state. For the sender's thread."""

    __slots__ = ("behind", "caught_up", "caught_up_tls")

    def __init__(self) -> None:
        # Caught-up queues (see the module's docstring), each with the descriptor of its socket; and those with TLS,
        # each with its transport.
        self.caught_up: dict[SendQueue, int] = {}
        self.caught_up_tls: dict[SendQueue, Transport] = {}
        # All others: lagging, or with segments, or over UDP; also queues that left and have unsent data of the buffer.
        self.behind: dict[SendQueue, None] = {}

    def add_caught_up(self, send_queue: SendQueue) -> None:
        """Move a queue from those behind to the caught-up ones."""
        self.behind.pop(send_queue, None)
        transport = send_queue.transport
        if transport.is_plain:
            self.caught_up[send_queue] = transport.descriptor
        else:
            self.caught_up_tls[send_queue] = transport

    def is_caught_up(self, send_queue: SendQueue) -> bool:
        return send_queue in self.caught_up or send_queue in self.caught_up_tls

    def discard_caught_up(self, send_queue: SendQueue) -> None:
        """Remove a queue from the caught-up ones, if it is there."""
        self.caught_up.pop(send_queue, None)
        self.caught_up_tls.pop(send_queue, None)

    @property
    def is_empty(self) -> bool:
        """True if no queue needs the buffer."""
        return not (self.caught_up or self.caught_up_tls or self.behind)


class Sender:
    """Sends the data of all send queues, in rounds, and closes their transports. See the module's docstring."""

    def __init__(
        self,
        lag_max_bytes: int,
        on_crash: Callable[[str], None],
        is_memory_short: Callable[[], bool] = lambda: False,
        *,
        unread_max_bytes: int = sys.maxsize,
        trim: Callable[[], None] = trim_heap,
        visits_max: int = _VISITS_MAX,
        write: Callable[[int, bytes], int] = os.write,
        clock: Callable[[], float] = time.monotonic,
        counters: Counters | None = None,
    ) -> None:
        self._counters = counters or Counters()
        self._visits_max = visits_max
        # The system calls for caught-up sockets and for time.
        self._write = write
        self._clock = clock
        self._is_memory_short = is_memory_short
        self._lag_max_bytes = lag_max_bytes
        self._unread_max_bytes = unread_max_bytes
        self._trim = trim
        # Unread bytes of all queues at the last check, and their peak since the memory was last trimmed.
        self.unread_bytes = 0
        self._unread_peak_bytes = 0
        self._worker = Worker("sender", self._run, on_crash)
        self._selector = selectors.DefaultSelector()
        self._wakeup_reader, self._wakeup_writer = os.pipe()
        os.set_blocking(self._wakeup_reader, False)
        os.set_blocking(self._wakeup_writer, False)
        self._selector.register(self._wakeup_reader, selectors.EVENT_READ)
        # The buffers in whose sets each queue is; for those that are in any. For the sender's thread.
        self._placed: dict[SendQueue, tuple[BroadcastBuffer, ...]] = {}
        # Queues whose readers have ended, each with its deadline. For the sender's thread.
        self._closing: dict[SendQueue, float] = {}
        # Queues whose sockets are full, each with the time when it became full; oldest first. For the sender's thread.
        self._full: dict[SendQueue, float] = {}
        # Queues that wait for an acknowledgement, least recently checked first. For the sender's thread.
        self._tracked: dict[SendQueue, None] = {}
        self._next_check_at = 0.0
        # Guards everything below.
        self._lock = threading.Lock()
        self._ready: dict[SendQueue, None] = {}
        # All buffers; other threads only add to it. Those that have grown, and those to close after their last byte.
        self._followers: dict[BroadcastBuffer, _Followers] = {}
        self._growing: dict[BroadcastBuffer, None] = {}
        # The time since which one of them grows.
        self._growing_since = 0.0
        self._removed: dict[BroadcastBuffer, None] = {}
        self._has_ended = False
        self._to_close: list[SendQueue] = []
        self._open_count = 0
        self._woken = False
        self._stop_at: float | None = None

    def start(self) -> None:
        self._worker.start()

    def stop(self, timeout_seconds: float) -> None:
        """Send the data of finished queues within the time limit, close every transport and buffer, join the thread."""
        with self._lock:
            self._stop_at = self._clock() + timeout_seconds
        self.wake()
        self._worker.join()
        self._selector.close()
        self._woken = True  # wake must not write to a closed pipe
        os.close(self._wakeup_reader)
        os.close(self._wakeup_writer)
        for buffer in self._followers:
            buffer.close()

    def add(self) -> None:
        """Count an open send queue; the caller must pass it to :meth:`close_when_drained` later."""
        with self._lock:
            self._open_count += 1

    def add_buffer(self, buffer: BroadcastBuffer) -> None:
        """Send the data of this buffer from now on. Call it before the first flush. For any thread."""
        with self._lock:
            self._followers[buffer] = _Followers()
            has_ended = self._has_ended
        buffer.on_growth(self._note_growth)
        if has_ended:
            buffer.note_sender_end()

    def remove_buffer(self, buffer: BroadcastBuffer) -> None:
        """Close this buffer after its last byte was sent. The caller no longer uses it. For any thread."""
        with self._lock:
            self._removed[buffer] = None
        self.wake()

    def _note_growth(self, buffer: BroadcastBuffer) -> None:
        """Offer the data of this buffer in the next round. For any thread; the caller wakes the sender."""
        with self._lock:
            if not self._growing:
                self._growing_since = self._clock()
            self._growing[buffer] = None

    def mark_ready(self, send_queue: SendQueue) -> None:
        """Visit this queue in the next round. For any thread."""
        with self._lock:
            self._ready[send_queue] = None
        self.wake()

    def close_when_drained(self, send_queue: SendQueue) -> None:
        """Close the transport once its data was sent, or after LINGER_SECONDS. The reader thread's last call."""
        with self._lock:
            self._to_close.append(send_queue)
        self.wake()

    def wake(self) -> None:
        """Wake the sender. For any thread, under any lock: it never waits.

        Call it after the work was published.
        """
        # _woken is read without a lock. If it is set, the sender will still look for work (see the module's docstring).
        # If two threads find it clear, both write a byte, and the sender makes at most one empty round.
        if self._woken:
            return
        self._woken = True
        with suppress(BlockingIOError):  # the pipe is full, so the sender will wake up
            os.write(self._wakeup_writer, b"\0")

    def slow_peers(self) -> tuple[int, int]:
        """Return the number of peers whose sockets are full, and the bytes that wait for them. For any thread."""
        full = list(self._full)
        return len(full), sum(send_queue.unread_bytes() for send_queue in full)

    def _run(self) -> None:
        try:
            self._run_rounds()
        finally:
            with self._lock:
                self._has_ended = True
                buffers = list(self._followers)
            for buffer in buffers:
                buffer.note_sender_end()

    def _run_rounds(self) -> None:
        while True:
            self.run_round()
            with self._lock:
                if self._stop_at is not None and (
                    not self._open_count or self._clock() > self._stop_at + _TICK_SECONDS
                ):
                    return

    def run_round(self, *, wait: bool = True) -> bool:
        """Wait for work and run one round. Without ``wait``, return false if there is no work. For one thread."""
        if not self._await_work(wait=wait) and not wait:
            return False
        self._send_all()
        self._run_checks(self._clock())
        self._close_drained()
        if self._removed:
            self._close_removed()
        return True

    def _await_work(self, *, wait: bool) -> bool:
        """Wait until another thread calls :meth:`wake`, a full socket is writable, or a check is pending.

        False if there is no work, but perhaps a check.
        """
        # Read without the lock: a change of these makes the pipe readable, so select returns.
        busy = bool(self._ready or self._growing)
        has_checks = self._closing or self._full or self._tracked or self._stop_at is not None or self._awaits_trim
        timeout = _TICK_SECONDS if has_checks else None
        ready = self._selector.select(timeout if wait and not busy else 0)
        for key, _ in ready:
            if key.fd == self._wakeup_reader:
                os.read(self._wakeup_reader, 64)
                self._woken = False
            else:
                self._selector.unregister(key.fileobj)
                del self._full[key.data]
                with self._lock:
                    self._ready[key.data] = None
        return busy or bool(ready)

    def _send_all(self) -> None:
        # Broadcast data first, then queues that were marked ready. Queues beyond the limit of visits are first in the
        # next round, so each gets its visit. Followers that are behind do not count for the limit: if they were skipped
        # while the buffers grow, their lag would grow.
        with self._lock:
            targets, self._ready = self._ready, {}
            growing, self._growing = self._growing, {}
            growing_since = self._growing_since
        behind: dict[SendQueue, None] = {}
        for buffer in growing:
            if buffer.end > buffer.position:
                self._advance(buffer)
                behind |= self._followers[buffer].behind
        for send_queue in behind:
            targets.pop(send_queue, None)
            self._visit(send_queue)
        remaining = iter(targets)
        for send_queue in islice(remaining, self._visits_max):
            self._visit(send_queue)
        unfinished = [buffer for buffer in growing if buffer.end > buffer.position]
        if len(targets) > self._visits_max or unfinished:
            with self._lock:
                self._ready = dict.fromkeys(remaining) | self._ready
                self._growing |= dict.fromkeys(unfinished)
                if unfinished:
                    self._growing_since = growing_since
        for buffer in growing:
            buffer.note_offered(self._needed_from(buffer))
        if growing and not unfinished:
            self._counters.delivery_seconds.observe(self._clock() - growing_since)

    def _needed_from(self, buffer: BroadcastBuffer) -> int:
        """Position from which on followers need the data of a buffer; 0 if that is not known, or not worth the search.

        Another thread may change everything meanwhile. A follower that is missing in the sets, because it is new or
        has left, makes the numbers differ. One that comes after the first line begins at the end.
        """
        count = buffer.followers
        followers = self._followers[buffer]
        # The lobby may have thousands that are behind, and its descriptors are reserved. There may be many rooms.
        if not count or (buffer.is_reserved and followers.behind) or not buffer.has_old_data:
            return 0
        starts = [start for send_queue in followers.behind if (start := send_queue.start_of(buffer)) is not None]
        for send_queue in chain(followers.caught_up, followers.caught_up_tls):
            start = buffer.position if send_queue.caught_up else send_queue.start_of(buffer)
            if start is not None:
                starts.append(start)
        return min(starts) if count == len(starts) else 0

    def _discard_sent(self, buffers: Iterable[BroadcastBuffer]) -> None:
        """Discard what all followers have, after the last one has caught up or was closed: a room may be quiet now."""
        for buffer in buffers:
            if buffer.has_old_data and not self._followers[buffer].behind:
                buffer.discard_before(self._needed_from(buffer))

    def _advance(self, buffer: BroadcastBuffer) -> None:
        """Move the position of the buffer to the end of a later message, and send the data to all caught-up queues.

        Usually this is one span, and one system call for each queue. There are several spans if one flush is larger
        than a send, or at the end of a segment.
        """
        followers = self._followers[buffer]
        before = start = buffer.advance()
        lost: list[SendQueue] = []
        while start < buffer.position and (followers.caught_up or followers.caught_up_tls):
            span = buffer.span(start, buffer.position)
            size = span.end - start
            is_long = size >= buffer.limits.span_min_bytes
            data = b"" if is_long and not followers.caught_up_tls else buffer.slice(*span)
            if is_long:
                incomplete = self._offer(followers.caught_up, buffer.send, span, size)
            else:
                incomplete = self._offer(followers.caught_up, self._write, data, size)
            if followers.caught_up_tls:
                incomplete += self._offer(followers.caught_up_tls, _encrypt, data, size)
            complete = len(followers.caught_up) + len(followers.caught_up_tls) - len(incomplete)
            self._counters.sent_bytes += size * complete
            for send_queue, sent_bytes in incomplete:
                if sent_bytes < 0:
                    followers.discard_caught_up(send_queue)
                    lost.append(send_queue)
                    continue
                self._counters.sent_bytes += sent_bytes
                sent_upto = start + sent_bytes
                self._take_out(send_queue, Shared(buffer, sent_upto, buffer.position), is_begun=sent_upto > before)
            start = span.end
        # Not before: a disconnect discards what all others have, and until here some have less than it appears.
        for send_queue in lost:
            self._disconnect(send_queue)

    def _offer(
        self, targets: dict[SendQueue, Any], send: Callable[[Any, Any], int], data: bytes | Span, size: int
    ) -> list[tuple[SendQueue, int]]:
        """Send data of ``size`` bytes to caught-up queues; returns those that did not take all of it.

        Each has the number of bytes that it took; -1 if the peer is lost.
        """
        incomplete: list[tuple[SendQueue, int]] = []
        for send_queue, target in targets.items():
            sent_bytes = 0
            if send_queue.caught_up:  # read without its lock: see the module's docstring
                try:
                    sent_bytes = send(target, data)
                except BlockingIOError:
                    pass
                except (OSError, MemoryError):  # TLS allocates
                    incomplete.append((send_queue, -1))
                    continue
                if sent_bytes == size:
                    continue
                self._note_full(send_queue)
            incomplete.append((send_queue, sent_bytes))
        return incomplete

    def _take_out(self, send_queue: SendQueue, unsent: Shared | None = None, *, is_begun: bool = False) -> None:
        """Move a queue from the caught-up ones to those behind, in all its buffers. See SendQueue.fall_behind."""
        buffers = self._placed[send_queue]
        send_queue.fall_behind(buffers, unsent, is_begun=is_begun)
        for buffer in buffers:
            followers = self._followers[buffer]
            followers.discard_caught_up(send_queue)
            followers.behind[send_queue] = None

    def _place(self, send_queue: SendQueue) -> tuple[BroadcastBuffer, ...]:
        """Put a queue that is behind into the sets of its buffers, which are returned, and into no others."""
        buffers = send_queue.buffers
        placed = self._placed.get(send_queue, ())
        if buffers is placed:
            return buffers
        for buffer in set(placed).difference(buffers):
            self._followers[buffer].behind.pop(send_queue, None)
        for buffer in set(buffers).difference(placed):
            self._followers[buffer].behind[send_queue] = None
        if buffers:
            self._placed[send_queue] = buffers
        elif placed:
            del self._placed[send_queue]
        return buffers

    def _forget(self, send_queue: SendQueue) -> None:
        """Remove a queue from all sets."""
        buffers = self._placed.pop(send_queue, ())
        for buffer in buffers:
            self._followers[buffer].discard_caught_up(send_queue)
            self._followers[buffer].behind.pop(send_queue, None)
        self._discard_sent(buffers)

    def _visit(self, send_queue: SendQueue) -> None:
        """Serve a queue that is behind, was marked ready, or is not logged in."""
        if send_queue.state is CLOSED:
            return
        placed = self._placed.get(send_queue)
        if placed and self._followers[placed[0]].is_caught_up(send_queue):
            self._take_out(send_queue)
        if send_queue.buffers is not placed:
            self._place(send_queue)
        if send_queue.is_tracked:
            send_queue.check_acknowledged()  # before more data is sent
            self._tracked[send_queue] = None
        if send_queue.lag_bytes() > self._lag_max_bytes:
            self._disconnect_lagging(send_queue)
        elif send_queue not in self._full:
            self._serve(send_queue)
        if send_queue.state is HANGING_UP and send_queue in self._full:  # a peer that does not read
            self._disconnect(send_queue)

    def _serve(self, send_queue: SendQueue) -> None:
        """Make one send at most. A queue with more data is visited again in the next round."""
        try:
            send_queue.transport.flush()
            data = send_queue.next_data()
            if data and not self._send(send_queue, data):
                return
        except BlockingIOError:  # from flush
            self._note_full(send_queue)
            return
        except LookupError:
            self._disconnect_lagging(send_queue)
            return
        except (OSError, MemoryError):
            self._disconnect(send_queue)
            return
        buffers = send_queue.buffers
        if buffers is not self._placed.get(send_queue):
            buffers = self._place(send_queue)
        if send_queue.catch_up(buffers):
            for buffer in buffers:
                self._followers[buffer].add_caught_up(send_queue)
            self._discard_sent(buffers)
        elif data and send_queue.has_more:
            with self._lock:
                self._ready[send_queue] = None
        else:
            self._shut_if_done(send_queue)

    def _shut_if_done(self, send_queue: SendQueue) -> None:
        """Shut our side of a connection whose queue has sent its last bytes."""
        before = send_queue.shut()
        if before is not None:
            send_queue.transport.end()
        if before is HANGING_UP:
            send_queue.transport.hang_up()

    def _send(self, send_queue: SendQueue, data: list[bytes | memoryview] | Shared) -> bool:
        """True if the transport took everything. LookupError: the data was discarded. OSError: the peer is lost."""
        transport = send_queue.transport
        if isinstance(data, Shared) and not transport.is_plain:
            data = [data.buffer.slice(data.start, data.end)]
        try:
            if isinstance(data, Shared):
                size = data.end - data.start
                sent_bytes = data.buffer.send(transport.descriptor, Span(data.start, data.end))
            else:
                size = sum(map(len, data))
                sent_bytes = transport.write(data)
        except BlockingIOError:
            sent_bytes = 0
        self._counters.sent_bytes += sent_bytes
        send_queue.note_sent(sent_bytes)
        if sent_bytes < size:
            self._note_full(send_queue)
        return sent_bytes == size

    def _note_full(self, send_queue: SendQueue) -> None:
        """Wait until the socket is writable. A transport without a socket wakes the sender instead."""
        if send_queue.transport.is_socket:
            self._full[send_queue] = self._clock()
            self._selector.register(send_queue.transport.descriptor, selectors.EVENT_WRITE, send_queue)

    def _run_checks(self, now: float) -> None:
        """Run the periodic checks, once per tick."""
        if now < self._next_check_at:
            return
        self._next_check_at = now + _TICK_SECONDS
        self._check_tracked()
        self._disconnect_stalled(now)
        self._limit_unread()
        if self._is_memory_short():
            self._disconnect_largest()

    def _check_tracked(self) -> None:
        for send_queue in list(islice(self._tracked, _CHECKED_MAX)):
            del self._tracked[send_queue]
            send_queue.check_acknowledged()
            if send_queue in self._closing:
                self._close_if_lost(send_queue)
            if send_queue.is_tracked and send_queue.state is not CLOSED:
                self._tracked[send_queue] = None

    def _close_if_lost(self, send_queue: SendQueue) -> None:
        """Close a queue that waits for acknowledgements after a reset, which would take LINGER_SECONDS."""
        if send_queue.is_tracked and send_queue.transport.is_lost:
            send_queue.close()

    def _disconnect_stalled(self, now: float) -> None:
        """Disconnect peers that read no replies. ``_full`` is ordered by time: dicts keep insertion order."""
        for send_queue, since in list(self._full.items()):
            if now - since < STALL_SECONDS:
                return
            if send_queue.has_unsent_replies:
                _log.warning("disconnected", reason="replies_unread", connection=send_queue.label)
                self._disconnect(send_queue)

    def _limit_unread(self) -> None:
        """Disconnect the peers with the most unread bytes if those of all together exceed the limit.

        The bytes of a room count once, however many do not read them. Those of the lobby are bounded and reserved.
        """
        queues = {*self._placed, *self._full}
        with self._lock:
            rooms = [buffer for buffer in self._followers if not buffer.is_reserved]
        self.unread_bytes = sum(each.kept_bytes for each in queues) + sum(each.held_bytes for each in rooms)
        if self.unread_bytes > self._unread_max_bytes:
            kept = {send_queue: self._kept_bytes(send_queue) for send_queue in queues}
            for send_queue in sorted(kept, key=kept.__getitem__, reverse=True):
                if self.unread_bytes <= self._unread_max_bytes:
                    break
                self._counters.limits_hit["unread_percent"] += 1
                self._disconnect_holding("unread_limit", send_queue, kept[send_queue])
        self._unread_peak_bytes = max(self._unread_peak_bytes, self.unread_bytes)
        if self._awaits_trim and self.unread_bytes < self._unread_peak_bytes // 4:
            self._unread_peak_bytes = 0
            self._trim()

    @property
    def _awaits_trim(self) -> bool:
        """True if many bytes were unread: malloc keeps their memory after they were sent or dropped."""
        return self._unread_peak_bytes >= _TRIM_BYTES

    def _disconnect_largest(self) -> None:
        """While memory is short, disconnect the peer with the most unsent data, one per tick."""
        kept = {send_queue: self._kept_bytes(send_queue) for send_queue in self._placed}
        largest = max(kept, key=kept.__getitem__, default=None)
        if largest is not None and kept[largest] >= _SHORT_MEMORY_UNSENT_BYTES:
            self._disconnect_holding("memory_short", largest, kept[largest])

    def _kept_bytes(self, send_queue: SendQueue) -> int:
        """Bytes kept for this peer, alone or with others of its rooms."""
        if send_queue.caught_up:  # its starts are too small
            return send_queue.kept_bytes
        rooms = [buffer for buffer in send_queue.buffers if not buffer.is_reserved and buffer.held_bytes]
        starts = [(buffer, start) for buffer in rooms if (start := send_queue.start_of(buffer)) is not None]
        return send_queue.kept_bytes + sum(max(0, buffer.position - start) for buffer, start in starts)

    def _disconnect_holding(self, reason: str, send_queue: SendQueue, kept_bytes: int) -> None:
        """Disconnect a peer that does not read, and discard what was kept for it."""
        _log.warning("disconnected", reason=reason, connection=send_queue.label, unsent_bytes=kept_bytes)
        rooms = [buffer for buffer in send_queue.buffers if not buffer.is_reserved]
        self.unread_bytes -= send_queue.kept_bytes + sum(buffer.held_bytes for buffer in rooms)
        self._disconnect(send_queue)
        for buffer in rooms:
            buffer.discard_before(self._needed_from(buffer))
        self.unread_bytes += sum(buffer.held_bytes for buffer in rooms)

    def _disconnect_lagging(self, send_queue: SendQueue) -> None:
        _log.warning("disconnected", reason="lagging", connection=send_queue.label, limit_bytes=self._lag_max_bytes)
        self._disconnect(send_queue)

    def _disconnect(self, send_queue: SendQueue) -> None:
        """Stop sending to this peer, and let its reader see the end of the connection."""
        send_queue.close()
        self._forget(send_queue)
        send_queue.transport.hang_up()

    def _close_drained(self) -> None:
        now = self._clock()
        with self._lock:
            to_close, self._to_close = self._to_close, []
            stop_at = self._stop_at
        for send_queue in to_close:
            self._closing[send_queue] = now + LINGER_SECONDS
            self._close_if_lost(send_queue)
        # Tracked queues are polled at the next tick and once more before the close, not in each round.
        for send_queue, deadline in list(self._closing.items()):
            state = send_queue.state
            is_done = state is SHUT and send_queue.transport.can_be_closed and not send_queue.is_tracked
            if state is CLOSED or is_done or now >= min(deadline, stop_at or deadline):
                self._close(send_queue)

    def _close(self, send_queue: SendQueue) -> None:
        del self._closing[send_queue]
        send_queue.check_acknowledged()
        send_queue.stop_tracking()
        self._tracked.pop(send_queue, None)
        if self._full.pop(send_queue, None) is not None:
            self._selector.unregister(send_queue.transport.descriptor)
        send_queue.close()
        self._forget(send_queue)
        send_queue.transport.close()
        with self._lock:
            self._open_count -= 1

    def _close_removed(self) -> None:
        """Close the removed buffers that no queue needs."""
        for buffer in list(self._removed):
            followers = self._followers[buffer]
            if not buffer.followers and followers.is_empty:
                with self._lock:
                    del self._removed[buffer], self._followers[buffer]
                    self._growing.pop(buffer, None)
                buffer.note_sender_end()
                buffer.close()


def _encrypt(transport: Transport, data: bytes) -> int:
    """Send to a caught-up queue with TLS; returns the number of bytes that the transport took."""
    return transport.write((data,))
