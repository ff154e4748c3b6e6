"""An outbox: what one connection is still to be sent, as a cursor into its dialect's stream and edits to it."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from chatserver.net.broadcast import SPAN_MIN_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from chatprotocol.events import Event, Run
    from chatserver.net.broadcast import BroadcastBuffer, Span
    from chatserver.net.transport import Transport

# One send takes no more pieces than this, so that no connection holds the courier for long.
SEND_MAX_PIECES = 128
# A client that leaves more than this unread is not read any further.
UNREAD_MAX_BYTES = 64 * 1024
# Numbers that wait for their bytes to be sent (see track); a newer one takes the place of the last if there are more.
TRACKED_MAX = 64

# Insertions at one place become one up to this size: an edit is 200 bytes of Python, a direct message may be less.
_JOIN_MAX_BYTES = 4 * 1024
# Stands for a queue that was not needed yet: it can hold nothing.
_NONE: Final[deque[Any]] = deque(maxlen=0)


class _Edit(NamedTuple):
    """When the cursor comes to ``at``: send ``data``, then go on at ``resume``."""

    at: int
    resume: int
    # A view once a part of it was sent: to copy the rest of a large answer each time would take as much memory again.
    data: bytes | memoryview
    is_reply: bool


class _Tracked:
    """Numbers that are reported once the peer's system has acknowledged what they stand for.

    A number waits in ``queued``, with how many bytes had been queued for this connection alone and how far the stream
    went, until all of that was sent. From then on it is reported as soon as nothing is unacknowledged, or, if that does
    not happen because there is always more, as soon as the carrier's position ``mark`` is acknowledged, which was taken
    after it was sent. The outbox's lock guards it.
    """

    __slots__ = ("mark", "marked_number", "on_acknowledged", "queued", "sent_number")

    def __init__(self, on_acknowledged: Callable[[int], None]) -> None:
        self.on_acknowledged = on_acknowledged
        self.queued: deque[tuple[int, int, int]] = deque()
        self.sent_number: int | None = None
        self.marked_number: int | None = None
        self.mark = 0

    def note_sent(self, sent_bytes: int, cursor: int) -> None:
        """So many bytes were sent for this connection alone, and the stream up to the cursor."""
        while self.queued and self.queued[0][1] <= sent_bytes and self.queued[0][2] <= cursor:
            self.sent_number, _, _ = self.queued.popleft()


class SendQueue:
    """What is due: first ``replies``; then, once released, the stream from the cursor on, with the edits to it.

    The courier alone calls :meth:`due` and :meth:`account`, and gives it to the carrier in between, under no lock.
    ``wake`` tells the courier that there is something to send.

    While it is *in step* it is due just what all followers of the stream are offered, and the courier keeps one cursor
    for all who are. Whoever gives it something of its own ends that.
    """

    __slots__ = (
        "_cursor",
        "_drained",
        "_edits",
        "_end",
        "_finishing",
        "_held",
        "_lock",
        "_replies",
        "_replies_bytes",
        "_sent_bytes",
        "_told_bytes",
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
        self, transport: Transport, broadcast: BroadcastBuffer, label: str, wake: Callable[[SendQueue], None]
    ) -> None:
        self.transport = transport
        self.broadcast = broadcast
        self.label = label
        self._wake = wake
        # The courier's own: our side was shut after the last byte; nothing can be sent any more.
        self.shut = False
        self.broken = False
        # After the last byte, does the reader see the end as well?
        self.hangs_up = False
        # Set by the courier, under the lock; it looks without.
        self.caught_up = False
        # Guards everything below.
        self._lock = threading.Lock()
        self._drained: threading.Condition | None = None
        # A queue is made when there is something to put into it, and given up when the outbox falls in step: most are
        # empty most of the time, and there are thousands.
        self._replies: deque[bytes | memoryview] = _NONE
        self._replies_bytes = 0
        self._edits: deque[_Edit] = _NONE
        self._told_bytes = 0
        # What was sent of replies and edits, ever.
        self._sent_bytes = 0
        self._tracked: _Tracked | None = None
        self._held = True
        self._cursor = 0
        self._end: int | None = 0
        self._finishing = False

    # --- for the session: its reader thread, and for guests those of others ---

    def put(self, events: Sequence[Event], *, alone: bool = True) -> None:
        """Say this to the one connection: at once while it is held, else behind what was shown.

        After the end it is forgotten: nobody would read it. What is not alone goes with what is spliced in next.
        """
        data = self.broadcast.encode(events)
        with self._lock:
            self._put(data)
        if alone:
            self._wake(self)

    def release(self, events: Sequence[Event]) -> None:
        """Say this, which is the last of what it missed, and go on to the stream."""
        data = self.broadcast.encode(events)
        with self._lock:
            self._put(data)
            self._held = False
        self._wake(self)

    def finish(self, last: Sequence[Event] = (), *, hang_up: bool = False) -> None:
        """Say this, and nothing more. What is due is sent, then our side of the connection is shut. For any thread.

        Where it hangs up, so is the other side, and the reader sees the end; what the socket does not take is given up.
        """
        data = self.broadcast.encode(last)
        with self._lock:
            if self._end is None:
                self._stop_listening(self.broadcast.end)
            self._put(data)
            self._held = False
            self._finishing = True
            self.hangs_up |= hang_up
            self.caught_up = False
            if self._drained is not None:
                self._drained.notify_all()
        self._wake(self)

    def wait_for_room(self) -> bool:
        """Wait while the peer leaves too many answers unread; false when the connection ends."""
        if self._unread_bytes() <= UNREAD_MAX_BYTES:
            return not self._finishing
        with self._lock:
            if self._drained is None:
                self._drained = threading.Condition(self._lock)
            self._drained.wait_for(lambda: self._finishing or self._unread_bytes() <= UNREAD_MAX_BYTES)
            return not self._finishing

    # --- for the feed, under its lock ---

    def follow(self) -> None:
        """Listen from here on; what is shown is kept back until :meth:`release`."""
        with self._lock:
            self._held = True
            self._cursor = self.broadcast.add_follower()
            self._end = None

    def unfollow(self) -> None:
        """Listen to nothing after what is shown now."""
        end = self.broadcast.remove_follower()
        with self._lock:
            self._cursor = self._sent_upto()
            self.caught_up = False
            if self._end is None:
                self._stop_listening(end)

    def insert(self, start: int, end: int, events: Sequence[Event | Run]) -> None:
        """In the place of the stream's bytes from start to end, say these events."""
        data = self.broadcast.encode(events)
        if start == end and not data:  # the dialect has no word for it
            return
        with self._lock:
            self.caught_up = False
            if self._end is None:
                self._add(_Edit(start, end, data, is_reply=False))
                self._told_bytes += len(data)
        if start == end:
            self.broadcast.note_behind(len(data))
            self._wake(self)

    def track(self, number: int, on_acknowledged: Callable[[int], None]) -> None:
        """Tell ``on_acknowledged`` the number once the peer's system has acknowledged what was put in or shown before.

        Numbers grow, and one may stand for those before it. Nothing is told if the connection ends first. It is called
        by any thread, under no lock. After :meth:`unfollow` it is for what was shown until then. What is queued while
        the outbox is held is sent in another order than it was queued in, so then a number is forgotten.
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
            own_bytes = self._sent_bytes + self._replies_bytes + self._told_bytes
            queued.append((number, own_bytes, self._limit(self.broadcast.end)))
        if is_new:  # otherwise the courier looks after it already
            self._wake(self)

    # --- for the courier, and the reader at its end ---

    @property
    def is_tracked(self) -> bool:
        """True if something is to be told when it is acknowledged."""
        return self._tracked is not None

    def check_acknowledged(self) -> None:
        """Ask the carrier how far the peer's system has acknowledged, and tell of it. For any thread; it never waits.

        The carrier is asked under no lock. The answer is right all the same: the numbers in question were sent before
        it was asked, and what is acknowledged stays so. A carrier that is closed meanwhile may answer anything, but
        then :meth:`stop_tracking` came first.
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
            if self._tracked is not tracked:  # another thread has told of all of it, or the carrier may be closed
                return
            if tracked.marked_number is not None and tracked.marked_number <= number:
                tracked.marked_number = None
            if tracked.sent_number is not None and tracked.sent_number <= number:
                tracked.sent_number = None
            if tracked.sent_number is None and not tracked.queued:
                self._tracked = None
        tracked.on_acknowledged(number)

    # --- for the courier ---

    def stop_tracking(self) -> None:
        """Tell of nothing any more. To be called before the carrier is closed."""
        with self._lock:
            self._tracked = None

    def next_span(self, offered: int) -> list[bytes | memoryview] | Span:
        """What to send next, in pieces or as a long stretch of the stream; nothing when nothing is due.

        A follower gets no further than to what is ``offered``, where the others are. LookupError: the stream has
        forgotten what is due.
        """
        with self._lock:
            if self._replies:  # one at a time: simple clients take what one read returns for one answer
                return [self._replies[0]]
            if self._held:
                return []
            self._pass_skips()
            cursor = self._cursor
            limit = min(self._limit(offered), cursor + self.transport.write_max_bytes)
            stop = min(self._edits[0].at, limit) if self._edits else limit
            if stop - cursor >= SPAN_MIN_BYTES:
                return self.broadcast.span(cursor, stop)
            pieces: list[bytes | memoryview] = []
            for edit in self._edits:
                if len(pieces) >= SEND_MAX_PIECES:
                    return pieces
                stop = min(edit.at, limit)
                if cursor < stop:
                    pieces.append(self.broadcast.slice(cursor, stop))
                if stop < edit.at:
                    return pieces
                if edit.data:
                    pieces.append(edit.data)
                cursor = max(cursor, edit.resume)
            if cursor < limit:
                pieces.append(self.broadcast.slice(cursor, limit))
            return pieces

    def fall_behind(self, cursor: int) -> None:
        """It is not in step any more; this is how far it has come."""
        with self._lock:
            self.caught_up = False
            self._cursor = cursor

    def catch_up(self, offered: int) -> bool:
        """Is it where the others are, and due nothing of its own? Then it is in step from now on."""
        with self._lock:
            self._pass_skips()
            own = self._held or self._replies or self._edits or self._finishing or self._end is not None
            self.caught_up = not own and self._cursor == offered and self.transport.is_socket
            if self.caught_up:
                self._replies = self._edits = _NONE
            return self.caught_up

    @property
    def follows(self) -> bool:
        """Is it due what everybody hears?"""
        return self._end is None

    @property
    def finishing(self) -> bool:
        """Nothing more will be put."""
        return self._finishing

    @property
    def has_unsent_replies(self) -> bool:
        """Is something due that the peer asked for?"""
        return self._replies_bytes > 0

    @property
    def kept_bytes(self) -> int:
        """What is kept for it alone."""
        return self._replies_bytes + self._told_bytes

    def note_sent(self, sent_bytes: int) -> None:
        """So much of what was due has been sent."""
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
            self._pass_skips()
            if self._drained is not None and self._unread_bytes() <= UNREAD_MAX_BYTES:
                self._drained.notify_all()

    def is_drained(self) -> bool:
        """Nothing is due, and nothing more will be."""
        with self._lock:
            self._pass_skips()
            own = self._replies or self._edits
            return self._finishing and not own and self._cursor >= self._limit(self.broadcast.end)

    def lag_bytes(self) -> int:
        """How far the connection is behind with what everybody hears and what others told it."""
        return max(0, self._limit(self.broadcast.end) - self._cursor) + self._told_bytes

    def _put(self, data: bytes) -> None:
        """Locked."""
        if not data or self._finishing:
            return
        self.caught_up = False
        self._replies_bytes += len(data)
        if not self._held:
            here = self._limit(self.broadcast.end)
            self._add(_Edit(here, here, data, is_reply=True))
            return
        if self._replies is _NONE:
            self._replies = deque()
        self._replies.append(data)

    def _stop_listening(self, end: int) -> None:
        """Be due nothing of the stream from here on. Locked."""
        self._end = end
        if self._held:
            # It was not given all that it missed: what is new would hide the gap.
            self._end = self._cursor
            self._edits.clear()
            self._told_bytes = 0

    def _add(self, edit: _Edit) -> None:
        """Put it behind the others, or to the last one where nothing lies between. Locked."""
        if self._edits is _NONE:
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

    def _advance(self, most_bytes: int) -> int:
        """Move on by one edit, or to the next one, by no more than so many bytes; returns by how many. Locked."""
        edit = self._edits[0] if self._edits else None
        if edit is None or self._cursor < edit.at:
            step = most_bytes if edit is None else min(most_bytes, edit.at - self._cursor)
            self._cursor += step
            return step
        self._edits.popleft()
        step = min(most_bytes, len(edit.data))
        self._sent_bytes += step
        if edit.is_reply:
            self._replies_bytes -= step
        else:
            self._told_bytes -= step
        if step < len(edit.data):
            self._edits.appendleft(edit._replace(data=memoryview(edit.data)[step:]))
        else:
            self._cursor = max(self._cursor, edit.resume)
        return step

    def _pass_skips(self) -> None:
        """Go past what is only to be left out. Locked."""
        while self._edits and self._edits[0].at <= self._cursor and not self._edits[0].data:
            self._cursor = max(self._cursor, self._edits.popleft().resume)

    def _sent_upto(self) -> int:
        """How far it was sent the stream, or a little less. While it is in step its own cursor stands still. Locked."""
        return max(self._cursor, self.broadcast.offered_upto) if self.caught_up else self._cursor

    def _limit(self, offered: int) -> int:
        """Where what is due ends. Locked, but for one that only looks."""
        return offered if self._end is None else self._end

    def _unread_bytes(self) -> int:
        """While it is held, what it is told can't be read yet."""
        return self._replies_bytes + (0 if self._held else self._told_bytes)
