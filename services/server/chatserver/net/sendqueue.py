"""The send queue of one connection: a position in the broadcast buffer, and edits to the data after it.

Public messages are encoded once per protocol and stored once, in the broadcast buffer. A send queue keeps only the
position up to which the buffer was sent on its connection (``_position``) and the differences (``_edits``). An edit
``(at, resume, data)`` means: at position ``at``, send ``data``, then continue at ``resume``. A reply is an insertion
(``at == resume``). A sender's own message is replaced by its confirmation (``at < resume``).

Phases. All positions are positions in the broadcast buffer:

1. Not logged in: the queue is held from the start (``_held``), and ``_end`` is 0, so nothing of the buffer is pending.
   While the queue is held, replies go to ``_replies`` and are sent at once.
2. Logging in: :meth:`follow` sets ``_position`` to the end of the buffer and ``_end`` to None. The missed messages go
   to ``_replies``. The buffer and insertions wait.
3. Following: :meth:`release` ends the hold. After ``_replies``, the buffer and the edits are sent from ``_position``
   on. New replies are edits.
4. Not following again: :meth:`unfollow` fixes ``_end`` at the flushed end of the buffer; if held, at ``_position``.
5. Finishing: :meth:`finish` stops following, ends the hold and drops later replies. Pending data is still sent. The
   sender shuts the connection once :meth:`is_drained` is true.

A following queue is either *caught up* or *behind*. A caught-up queue has no edits and no replies; the sender keeps one
position for all caught-up queues and does not update ``_position``. :meth:`catch_up` alone sets ``caught_up``. Every
method that adds data clears it. The sender then sets ``_position`` with :meth:`fall_behind` before it uses the value.

Threads. The connection's reader, and for guests the readers of others, call ``put``, ``release``, ``finish`` and
``wait_for_room``. The hub calls ``follow``, ``unfollow`` and ``insert`` under its lock. The sender alone calls
``next_span``, passes the result to the transport without a lock, and reports with ``note_sent``. Meanwhile other
threads only append edits and replies, so the data that is being sent stays first.

Locks. ``_lock`` guards the state and is a leaf except for the buffer's lock: hub, then queue, then buffer. ``wake`` and
``on_acknowledged`` are called after ``_lock`` was released. No socket is used under it.

An edit is correct wherever ``_position`` is, because an edit is never inside data that was flushed before: the hub
inserts before it flushes, and replies go to the end of the flushed data. The sender sends flushed data only, so a send
that runs while an edit is added can't pass the edit. The hub's order (edit, then flush) also means that a thread that
sees the new end of the buffer sees ``caught_up`` cleared.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from chatprotocol.events import Event, EventBatch
    from chatserver.net.broadcast import BroadcastBuffer, Span
    from chatserver.net.transport import Transport

# Maximum unsent replies per connection: above it, the server stops reading requests from this client.
UNREAD_MAX_BYTES = 64 * 1024
# Maximum numbers that wait for their data to be sent (see track). At the maximum, a new number replaces the last one.
TRACKED_MAX = 64

# Maximum size for joining insertions at one position: an edit takes 200 bytes, more than a short direct message.
_JOIN_MAX_BYTES = 4 * 1024
# Placeholder for an unused deque: most deques are empty most of the time. It can hold nothing.
_EMPTY: Final[deque[Any]] = deque(maxlen=0)


class _Edit(NamedTuple):
    """At position ``at``: send ``data``, then continue at ``resume``."""

    at: int
    resume: int
    # A view after a partial send: copying the rest of a large reply would double its memory.
    data: bytes | memoryview
    is_reply: bool


class _Tracked:
    """Numbers to report once the peer's system has acknowledged all data that was queued before them.

    A number waits in ``queued`` together with two ends: the count of bytes queued for this connection alone, and the
    end of the broadcast buffer. After the data up to both ends was sent, the number becomes ``sent_number``. It is
    reported when no sent data is unacknowledged. Under constant traffic that may never happen, so the number is also
    reported when the transport's position ``mark``, read after the send, is acknowledged. The queue's lock guards all
    fields.
    """

    __slots__ = ("mark", "marked_number", "on_acknowledged", "queued", "sent_number")

    def __init__(self, on_acknowledged: Callable[[int], None]) -> None:
        self.on_acknowledged = on_acknowledged
        self.queued: deque[tuple[int, int, int]] = deque()
        self.sent_number: int | None = None
        self.marked_number: int | None = None
        self.mark = 0

    def note_sent(self, sent_bytes: int, position: int) -> None:
        """Record progress: bytes sent for this connection alone, and the position in the broadcast buffer."""
        while self.queued and self.queued[0][1] <= sent_bytes and self.queued[0][2] <= position:
            self.sent_number, _, _ = self.queued.popleft()


class SendQueue:
    """The unsent data of one connection: replies first, then the broadcast buffer with the edits to it.

    ``wake`` marks the queue as ready to send; it is called from any thread, without the queue's lock.
    The module's docstring has the phases, the threads and the lock rules.
    """

    __slots__ = (
        "_edits",
        "_encode",
        "_end",
        "_finishing",
        "_held",
        "_inserted_bytes",
        "_lock",
        "_position",
        "_replies",
        "_replies_bytes",
        "_room_available",
        "_sent_bytes",
        "_tracked",
        "_wake",
        "broadcast",
        "broken",
        "caught_up",
        "hangs_up",
        "label",
        "shut",
        "transport",
    )

    def __init__(
        self,
        transport: Transport,
        broadcast: BroadcastBuffer,
        label: str,
        wake: Callable[[SendQueue], None],
        encode: Callable[[Sequence[Event | EventBatch]], bytes] | None = None,
    ) -> None:
        """``encode`` encodes the events for this connection alone; by default as ``broadcast`` does."""
        self._encode = encode or broadcast.encode
        self.transport = transport
        self.broadcast = broadcast
        self.label = label
        self._wake = wake
        # Written by the sender alone. shut: our side was shut after the last byte. broken: nothing more is sent.
        self.shut = False
        self.broken = False
        # True if the reader must see the end of the connection after the last byte. Set under the lock, never cleared.
        self.hangs_up = False
        # Written under the lock; set to true by the sender alone. The sender reads it without the lock (see above).
        self.caught_up = False
        # Guards everything below.
        self._lock = threading.Lock()
        self._room_available: threading.Condition | None = None
        # Both deques are created on first use and dropped when the queue has caught up: there are thousands of queues.
        self._replies: deque[bytes | memoryview] = _EMPTY
        self._replies_bytes = 0
        self._edits: deque[_Edit] = _EMPTY
        self._inserted_bytes = 0
        # Bytes of replies and edits sent so far.
        self._sent_bytes = 0
        self._tracked: _Tracked | None = None
        self._held = True
        self._position = 0
        self._end: int | None = 0
        self._finishing = False

    # --- for the session: its reader thread, and for guests the reader threads of others ---

    def put(self, events: Sequence[Event]) -> None:
        """Queue a reply to this connection. It is sent at once while the queue is held, else after the flushed data.

        A reply after :meth:`finish` is dropped.
        """
        self.put_bytes(self._encode(events))

    def put_bytes(self, data: bytes, *, wake: bool = True) -> None:
        """Queue bytes that the protocol sends by itself, like :meth:`put`.

        With ``wake=False`` the sender is not woken: the bytes are sent with the next reply or insertion.
        """
        with self._lock:
            self._put(data)
        if wake:
            self._wake(self)

    def release(self, events: Sequence[Event]) -> None:
        """Queue the last of the missed messages, end the hold and continue with the broadcast buffer."""
        data = self._encode(events)
        with self._lock:
            self._put(data)
            self._held = False
        self._wake(self)

    def finish(self, last: Sequence[Event] = (), *, hang_up: bool = False) -> None:
        """Queue the last events. Pending data is sent, then our side of the connection is shut. For any thread.

        With ``hang_up`` both sides are shut, so that the reader sees the end. Data that does not fit into the socket is
        then discarded.
        """
        data = self._encode(last)
        with self._lock:
            if self._end is None:
                self._stop_following(self.broadcast.end)
            self._put(data)
            self._held = False
            self._finishing = True
            self.hangs_up |= hang_up
            self.caught_up = False
            if self._room_available is not None:
                self._room_available.notify_all()
        self._wake(self)

    def wait_for_room(self) -> bool:
        """Wait while more than UNREAD_MAX_BYTES of replies are unsent; false if the connection is finishing."""
        # Read without the lock: a stale value admits the requests of one more read, or costs a check under the lock.
        if self._unread_bytes() <= UNREAD_MAX_BYTES:
            return not self._finishing
        with self._lock:
            if self._room_available is None:
                self._room_available = threading.Condition(self._lock)
            self._room_available.wait_for(lambda: self._finishing or self._unread_bytes() <= UNREAD_MAX_BYTES)
            return not self._finishing

    # --- for the hub, under its lock ---

    def follow(self) -> None:
        """Follow the broadcast buffer from its current end on. No data of the buffer is sent before :meth:`release`."""
        with self._lock:
            self._held = True
            self._position = self.broadcast.add_follower()
            self._end = None

    def unfollow(self) -> None:
        """Stop following at the current end of the broadcast buffer; data up to there is still sent."""
        end = self.broadcast.remove_follower()
        with self._lock:
            self._position = self._sent_upto()
            self.caught_up = False
            if self._end is None:
                self._stop_following(end)

    def insert(self, start: int, end: int, events: Sequence[Event | EventBatch]) -> None:
        """Send these events instead of the buffer's bytes from start to end; insert them if both are equal."""
        data = self._encode(events)
        if start == end and not data:  # the protocol can't express these events
            return
        with self._lock:
            self.caught_up = False
            if self._end is None:
                self._add(_Edit(start, end, data, is_reply=False))
                self._inserted_bytes += len(data)
        if start == end:
            self.broadcast.note_inserted(len(data))
            self._wake(self)

    def track(self, number: int, on_acknowledged: Callable[[int], None]) -> None:
        """Report the number to ``on_acknowledged`` once the peer's system has acknowledged all data queued before.

        Numbers grow, and one report covers all smaller numbers. There is no report if the connection ends first.
        ``on_acknowledged`` is called from any thread, without the queue's lock. After :meth:`unfollow`, only data up to
        the end of following counts. While the queue is held, numbers are ignored, because data is then not sent in the
        order in which it was queued.
        """
        with self._lock:
            if self._held or self._finishing:
                return
            is_new = self._tracked is None
            if self._tracked is None:
                self._tracked = _Tracked(on_acknowledged)
            queued = self._tracked.queued
            if len(queued) >= TRACKED_MAX:
                queued.pop()
            own_bytes = self._sent_bytes + self._replies_bytes + self._inserted_bytes
            queued.append((number, own_bytes, self._limit(self.broadcast.end)))
        if is_new:  # otherwise the sender polls this queue already
            self._wake(self)

    # --- for the sender, and for the hub before a login ---

    @property
    def is_tracked(self) -> bool:
        """True if a number waits for an acknowledgement."""
        # Read without the lock: track wakes the sender after the first number, so the sender reads it again.
        return self._tracked is not None

    def check_acknowledged(self) -> None:
        """Poll the transport for acknowledgements and report numbers. For any thread; never waits for the peer.

        The transport is polled without the queue's lock. Its answer stays valid: the data was sent before the poll, and
        acknowledged data stays acknowledged. If the transport is closed meanwhile, its answer means nothing. But
        :meth:`stop_tracking` runs before the close, and the check under the lock below detects that.
        """
        with self._lock:
            tracked = self._tracked
            if tracked is None:
                return
            tracked.note_sent(self._sent_bytes, self._sent_upto())
            number, marked_number, mark = tracked.sent_number, tracked.marked_number, tracked.mark
        if number is None:
            return
        if self.transport.unacknowledged_bytes():
            if marked_number is None:
                mark = self.transport.written()
                with self._lock:
                    tracked.marked_number, tracked.mark = number, mark
                return
            if self.transport.acknowledged() < mark:
                return
            number = marked_number
        with self._lock:
            if self._tracked is not tracked:  # another thread reported everything, or the transport may be closed
                return
            if tracked.marked_number is not None and tracked.marked_number <= number:
                tracked.marked_number = None
            if tracked.sent_number is not None and tracked.sent_number <= number:
                tracked.sent_number = None
            if tracked.sent_number is None and not tracked.queued:
                self._tracked = None
        tracked.on_acknowledged(number)

    # --- for the sender ---

    def stop_tracking(self) -> None:
        """Discard all numbers. Call it before the transport is closed."""
        with self._lock:
            self._tracked = None

    def next_span(self, offered: int) -> list[bytes | memoryview] | Span:
        """The next data to send: pieces, or one long span of the broadcast buffer; empty if there is nothing to send.

        A follower gets data up to ``offered``, the position of the caught-up queues. LookupError: the buffer has
        discarded data that this queue still needs.
        """
        with self._lock:
            if self._replies:  # one per send: simple clients treat the result of one read as one reply
                return [self._replies[0]]
            if self._held:
                return []
            self._skip_empty_edits()
            position = self._position
            limit = min(self._limit(offered), position + self.transport.write_max_bytes)
            stop = min(self._edits[0].at, limit) if self._edits else limit
            if stop - position >= self.broadcast.limits.span_min_bytes:
                return self.broadcast.span(position, stop)
            pieces: list[bytes | memoryview] = []
            for edit in self._edits:
                if len(pieces) >= self.broadcast.limits.send_max_pieces:
                    return pieces
                stop = min(edit.at, limit)
                if position < stop:
                    pieces.append(self.broadcast.slice(position, stop))
                if stop < edit.at:
                    return pieces
                if edit.data:
                    pieces.append(edit.data)
                position = max(position, edit.resume)
            if position < limit:
                pieces.append(self.broadcast.slice(position, limit))
            return pieces

    def fall_behind(self, position: int) -> None:
        """Leave the caught-up state at this position."""
        with self._lock:
            self.caught_up = False
            self._position = position

    def catch_up(self, offered: int) -> bool:
        """Become caught up if the queue has no replies and edits, and its position is ``offered``. True if it is now.

        Only a queue whose transport is a socket can be caught up, because the sender then writes to the descriptor.
        """
        with self._lock:
            self._skip_empty_edits()
            own = self._held or self._replies or self._edits or self._finishing or self._end is not None
            self.caught_up = not own and self._position == offered and self.transport.is_socket
            if self.caught_up:
                self._replies = self._edits = _EMPTY
            return self.caught_up

    @property
    def follows(self) -> bool:
        """True if the connection follows the broadcast buffer."""
        # Read without the lock: follow sets _end while the queue is held, and release wakes the sender later.
        return self._end is None

    @property
    def finishing(self) -> bool:
        """True after :meth:`finish`: nothing more is queued."""
        return self._finishing

    @property
    def has_unsent_replies(self) -> bool:
        """True if replies are unsent."""
        # Read without the lock: one integer, which is used only after a peer was stalled for STALL_SECONDS.
        return self._replies_bytes > 0

    @property
    def kept_bytes(self) -> int:
        """Bytes kept for this connection alone."""
        # Read without the lock: an estimate, compared with a limit in megabytes.
        return self._replies_bytes + self._inserted_bytes

    def note_sent(self, sent_bytes: int) -> None:
        """Record that the transport took the first ``sent_bytes`` bytes of the last :meth:`next_span`."""
        with self._lock:
            while self._replies and sent_bytes:
                reply = self._replies.popleft()
                self._replies_bytes -= min(sent_bytes, len(reply))
                self._sent_bytes += min(sent_bytes, len(reply))
                if sent_bytes < len(reply):
                    self._replies.appendleft(memoryview(reply)[sent_bytes:])
                sent_bytes -= min(sent_bytes, len(reply))
            while sent_bytes:
                sent_bytes -= self._advance(sent_bytes)
            self._skip_empty_edits()
            if self._room_available is not None and self._unread_bytes() <= UNREAD_MAX_BYTES:
                self._room_available.notify_all()

    def is_drained(self) -> bool:
        """True if the queue is finishing and everything was sent."""
        with self._lock:
            self._skip_empty_edits()
            own = self._replies or self._edits
            return self._finishing and not own and self._position >= self._limit(self.broadcast.end)

    def lag_bytes(self) -> int:
        """Unsent bytes of the broadcast buffer and of insertions; replies do not count."""
        # Read without the lock: an estimate for a limit. The end is read before the position, which may move meanwhile.
        # The difference is then too small or negative, therefore max().
        return max(0, self._limit(self.broadcast.end) - self._position) + self._inserted_bytes

    # --- the lock is held, except for the callers above that read without it ---

    def _put(self, data: bytes) -> None:
        if not data or self._finishing:
            return
        self.caught_up = False
        self._replies_bytes += len(data)
        if not self._held:
            here = self._limit(self.broadcast.end)
            self._add(_Edit(here, here, data, is_reply=True))
            return
        if self._replies is _EMPTY:
            self._replies = deque()
        self._replies.append(data)

    def _stop_following(self, end: int) -> None:
        """End following at this position."""
        self._end = end
        if self._held:
            # The missed messages are incomplete: newer messages would hide the gap.
            self._end = self._position
            self._edits.clear()
            self._inserted_bytes = 0

    def _add(self, edit: _Edit) -> None:
        """Append an edit, or join it to the last one if both insert at the same position."""
        if self._edits is _EMPTY:
            self._edits = deque()
        last = self._edits[-1] if self._edits else None
        if (
            last is not None
            and last.at == last.resume == edit.at == edit.resume
            and last.is_reply == edit.is_reply
            and len(last.data) < _JOIN_MAX_BYTES
        ):
            self._edits[-1] = last._replace(data=bytes(last.data) + edit.data)
        else:
            self._edits.append(edit)

    def _advance(self, max_bytes: int) -> int:
        """Advance over one edit or up to the next one, by ``most_bytes`` at most; returns the number of bytes."""
        edit = self._edits[0] if self._edits else None
        if edit is None or self._position < edit.at:
            step = max_bytes if edit is None else min(max_bytes, edit.at - self._position)
            self._position += step
            return step
        self._edits.popleft()
        step = min(max_bytes, len(edit.data))
        self._sent_bytes += step
        if edit.is_reply:
            self._replies_bytes -= step
        else:
            self._inserted_bytes -= step
        if step < len(edit.data):
            self._edits.appendleft(edit._replace(data=memoryview(edit.data)[step:]))
        else:
            self._position = max(self._position, edit.resume)
        return step

    def _skip_empty_edits(self) -> None:
        """Advance over edits without data: they only omit a part of the buffer."""
        while self._edits and self._edits[0].at <= self._position and not self._edits[0].data:
            self._position = max(self._position, self._edits.popleft().resume)

    def _sent_upto(self) -> int:
        """The position up to which the buffer was sent, or a smaller one.

        While the queue is caught up, ``_position`` is stale, and the buffer has the position of the last round.
        """
        return max(self._position, self.broadcast.offered_end) if self.caught_up else self._position

    def _limit(self, offered: int) -> int:
        """End of the data to send: ``offered`` for a follower, otherwise ``_end``."""
        return offered if self._end is None else self._end

    def _unread_bytes(self) -> int:
        """Bytes that the peer has not read. Insertions do not count while the queue is held: they can't be sent."""
        return self._replies_bytes + (0 if self._held else self._inserted_bytes)
