"""The send queue of one connection: a list of segments, and the broadcast buffers that it follows.

Public messages are encoded once for each room and protocol and stored once, in a broadcast buffer. A send queue holds
*segments*: ``Own`` has bytes for this connection alone, ``Shared`` is a span of a broadcast buffer. After the segments
comes one *open span* for each buffer that the queue follows. It has a start, which is in ``_open``, and no end: it
grows with the buffer. Segments are sent in order. Open spans of different buffers have no order.

Bytes of its own enter a live queue in one way: the open spans are *closed*, which makes segments of them, the bytes are
appended, and the open spans continue after them. So each reply and direct message has its place in each room. A reply
closes the spans at the flushed ends of the buffers, an insertion of the hub at their tails, after everything staged. A
message that its own sender must not get is a gap: the open span is closed before it and goes on after it.

States:

    BUFFERING  Before the login, and while missed messages are read. Replies are sent at once, one per send. Segments of
               the buffers and insertions wait in ``_waiting``, after all replies.
    LIVE       After :meth:`release`. What waited follows the replies.
    ANSWERING  A long answer is queued, piece by piece, from :meth:`hold` to :meth:`go_on`. All else waits as in
               BUFFERING; an end waits for the answer's.
    DRAINING   After :meth:`finish`. Nothing new is queued; what is queued is still sent. What waited is dropped: the
               missed messages are incomplete, and newer messages would hide the gap.
    HANGING_UP DRAINING, then the reader is made to see the end. Does not wait for a peer that does not read.
    SHUT       Everything was sent, and our side of the connection is shut.
    CLOSED     Nothing more is sent: the peer is lost or was disconnected, or the transport is closed.

    BUFFERING -> LIVE <-> ANSWERING, LIVE -> DRAINING -> SHUT -> CLOSED. ``finish`` leads from BUFFERING and LIVE to
    DRAINING, and with ``hang_up`` from any but CLOSED to HANGING_UP. ``shut`` leads from these two to SHUT. ``close``
    leads to CLOSED.

A live queue is *caught up* if it has no segments and each of its open spans starts at the position of its buffer.
The sender then sends it the same spans as all others, and does not update the starts. :meth:`catch_up` alone sets
``caught_up``. Every method that adds data or changes ``_open`` clears it. The sender then corrects the starts with
:meth:`fall_behind` before it uses them; meanwhile they are too small, but never beyond the data that was sent.

No message is cut. The position of a buffer and the ends of closed spans are ends of messages. Only the first segment
can be sent in part, and its rest stays the first: also the rest of a send to caught-up queues, see ``fall_behind``.

Threads. The connection's reader, and for guests the readers of others, call ``put``, ``release``, ``finish`` and
``wait_for_room``. The hub calls ``follow``, ``unfollow``, ``insert`` and ``replace`` under its lock. The sender alone
calls ``next_data``, passes the result to the transport without a lock, and reports with ``note_sent``. Meanwhile other
threads only append to the segments, so the data that is being sent stays first.

Locks. ``_lock`` guards the state and is a leaf except for the lock of a buffer: hub, then queue, then buffer.
``mark_ready`` and ``on_acknowledged`` are called after ``_lock`` was released. No socket is used under it.

A closed span is right for any position of the sender. The hub inserts before it flushes, and replies close the spans
at the flushed ends. The sender sends flushed data only, so a send that runs meanwhile can't pass the end of the span.
The hub's order also means that a thread that sees the new end of a buffer sees ``caught_up`` cleared.
"""

from __future__ import annotations

import threading
from enum import Enum, IntEnum
from typing import TYPE_CHECKING, Final

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from chatprotocol.events import ChatHistoryItem, Event, EventBatch
    from chatserver.net.broadcast import BroadcastBuffer
    from chatserver.net.transport import Transport

# Maximum bytes of its own that wait in a queue until the peer reads. A quarter of it are replies: above that, no more
# requests are read, and no more of an answer is made. Half of it are insertions: more are spans of
# the overflow buffer, which all queues share. The last quarter is the page of an answer that is being made.
ANSWER_MAX_BYTES = 256 * 1024
# Memory of a page of an answer, and of the piece that is made of it. The reader thread has it, not the queue.
_PAGE_BYTES = 64 * 1024
# Maximum size of a span that carries a number and is still extended.
_NUMBERED_MAX_BYTES = 64 * 1024
# Maximum pieces per send: one connection must not occupy the sender for long.
_PIECES_MAX = 128
# Maximum size for joining bytes of its own: a segment and its bytes object take 100 bytes beside the data.
_JOIN_MAX_BYTES = 4 * 1024
# Time that a request may wait in the queue of hashes after its peer has closed its side.
HALF_CLOSED_SECONDS = 1.0
# A segment that carries no number: see SendQueue.track.
_NO_NUMBER: Final = -1


class State(IntEnum):
    """The state of a send queue. See the module's docstring."""

    BUFFERING = 0
    ANSWERING = 1
    LIVE = 2
    DRAINING = 3
    HANGING_UP = 4
    SHUT = 5
    CLOSED = 6


class Kind(Enum):
    """The origin of bytes of the queue's own."""

    # A reply before the release, in a send of its own: simple clients treat the result of one read as one reply.
    SINGLE_REPLY = "single reply"
    REPLY = "reply"
    INSERTION = "insertion"


# The sender and its queues use these names: in CPython 3.11 each access of a member through its enum runs Python code,
# 0.1 us, and one send takes ten.
BUFFERING, ANSWERING, LIVE, DRAINING, HANGING_UP, SHUT, CLOSED = State
_SINGLE_REPLY, _REPLY, _INSERTION = Kind


class Own(Struct, gc=False, eq=False):
    """Bytes for this connection alone."""

    # A view after a partial send: copying the rest of a large reply would double its memory.
    data: bytes | memoryview
    kind: Kind
    # The number to report when everything up to the end of this segment is acknowledged.
    number: int = _NO_NUMBER


class Shared(Struct, gc=False, eq=False):
    """The bytes of a broadcast buffer from ``start`` to ``end``."""

    buffer: BroadcastBuffer
    start: int
    end: int
    number: int = _NO_NUMBER


class _Tracked(Struct, gc=False, eq=False):
    """Numbers to report once the peer's system has acknowledged all data that was queued before them.

    A number waits in the last segment that was queued before it. After that was sent, it becomes ``sent``, and is
    reported when no sent data is unacknowledged. Under constant traffic that may never happen, so it is also reported
    when the transport's position ``mark``, read after the send, is acknowledged. The queue's lock guards all fields.
    """

    on_acknowledged: Callable[[int], None]
    newest: int = _NO_NUMBER
    sent: int = _NO_NUMBER
    marked: int = _NO_NUMBER
    mark: int = 0


class SendQueue:
    """The unsent data of one connection. The module's docstring has the states, the threads and the lock rules.

    ``mark_ready`` lets the sender visit the queue; it is called from any thread, without the queue's lock.
    """

    __slots__ = (
        "_encode",
        "_encode_long",
        "_inserted_bytes",
        "_inserted_max_bytes",
        "_last",
        "_leaving",
        "_lock",
        "_mark_ready",
        "_open",
        "_overflow",
        "_pieces_max",
        "_reply_bytes",
        "_room_available",
        "_segments",
        "_shared_bytes",
        "_tracked",
        "_unread_max_bytes",
        "_waiting",
        "buffers",
        "caught_up",
        "label",
        "protocol",
        "state",
        "transport",
    )

    def __init__(
        self,
        transport: Transport,
        protocol: str,
        encode: Callable[[Sequence[Event | EventBatch]], bytes],
        label: str,
        mark_ready: Callable[[SendQueue], None],
        encode_long: Callable[[Event, Collection[ChatHistoryItem]], Iterator[bytes]] = lambda *_: iter(()),
        overflow: BroadcastBuffer | None = None,
        answer_max_bytes: int = ANSWER_MAX_BYTES,
        pieces_max: int = _PIECES_MAX,
    ) -> None:
        """``protocol`` is the name of the wire protocol.

        ``encode`` encodes the events for this connection alone, and ``encode_long`` a long answer in pieces.
        ``overflow`` takes the insertions above half of ``answer_max_bytes``; its position is that of a buffer without
        followers.
        """
        self.transport = transport
        self.label = label
        self.protocol = protocol
        self._encode = encode
        self._encode_long = encode_long
        self._overflow = overflow
        self._mark_ready = mark_ready
        self._unread_max_bytes = answer_max_bytes // 4
        self._inserted_max_bytes = answer_max_bytes // 2
        self._pieces_max = pieces_max
        # Guards everything below. ``state``, ``caught_up`` and ``buffers`` may be read without it.
        self._lock = threading.Lock()
        self._room_available: threading.Condition | None = None
        self.state = BUFFERING
        self.caught_up = False
        # The buffers that the queue follows or has unsent spans of; and those of them that it does not follow.
        self.buffers: tuple[BroadcastBuffer, ...] = ()
        self._leaving: tuple[BroadcastBuffer, ...] = ()
        # Lists, because an empty one is small, and thousands of queues have nothing to send.
        self._segments: list[Own | Shared] = []
        self._waiting: list[Own | Shared] = []
        self._open: dict[BroadcastBuffer, int] = {}
        self._reply_bytes = 0
        self._inserted_bytes = 0
        self._shared_bytes = 0
        # The last events, if the queue is to finish after the answer.
        self._last: bytes | None = None
        self._tracked: _Tracked | None = None

    # --- for the session: its reader thread, and for guests the reader threads of others ---

    def put(self, events: Sequence[Event]) -> None:
        """Queue a reply to this connection: after the replies while BUFFERING, else after all flushed data.

        A reply after :meth:`finish` is dropped.
        """
        self.put_bytes(self._encode(events))

    def put_bytes(self, data: bytes, *, wake: bool = True) -> None:
        """Queue bytes that the protocol sends without the session, like :meth:`put`.

        With ``wake=False`` the sender is not woken: the bytes are sent with the next reply or insertion.
        """
        with self._lock:
            self._put(data)
        if wake:
            self._mark_ready(self)

    def put_long(self, event: Event, messages: Collection[ChatHistoryItem]) -> None:
        """Queue a long answer piece by piece, as the peer reads: ``event`` with these messages. For the reader thread.

        Returns after the last piece was queued, or after the end of the connection. If the pieces can't be made, the
        error leaves this method, and the connection ends after the pieces so far.
        """
        self.hold()
        is_complete = False
        try:
            for piece in self._encode_long(event, messages):
                self.put_bytes(piece)
                if not self.wait_for_room():
                    return
            is_complete = True
        finally:
            self.go_on(is_complete=is_complete)

    def hold(self) -> None:
        """Begin an answer in several pieces: until :meth:`go_on`, all else waits. For the reader thread.

        The hub's lock may be held: the answer then comes before all that is published later.
        """
        with self._lock:
            if self.state is LIVE:
                self._close_spans()
                self.state = ANSWERING

    def go_on(self, *, is_complete: bool = True) -> None:
        """End an answer. If it is not complete, the connection ends, because the rest would hide the gap."""
        with self._lock:
            if self.state is ANSWERING:
                self._end_answer(is_complete=is_complete)
        self._mark_ready(self)

    def release(self, events: Sequence[Event]) -> None:
        """Queue the last of the missed messages, then what waited for it: the queue is LIVE."""
        data = self._encode(events)
        with self._lock:
            self._put(data)
            if self.state is BUFFERING:
                self._go_live()
        self._mark_ready(self)

    def finish(self, last: Sequence[Event] = (), *, hang_up: bool = False) -> None:
        """Queue the last events. Pending data is sent, then our side of the connection is shut. For any thread.

        With ``hang_up`` both sides are shut, so that the reader sees the end. Data that does not fit into the socket is
        then discarded. Without it a long answer is completed first.
        """
        data = self._encode(last)
        with self._lock:
            if self.state is ANSWERING and not hang_up:
                self._last = data
            else:
                self._finish(b"" if self.state is ANSWERING else data)  # inside the answer it would be a part of it
            if hang_up and self.state is not CLOSED:
                self.state = HANGING_UP
            if self._room_available is not None:
                self._room_available.notify_all()
        self._mark_ready(self)

    def wait_for_room(self, timeout_seconds: float | None = None) -> bool:
        """Wait while too many bytes of replies are unsent; false if the queue takes no more, or after the timeout."""
        # Read without the lock: a stale value admits the requests of one more read, or costs a check under the lock.
        if self._unread_bytes() <= self._unread_max_bytes:
            return self.state < DRAINING
        with self._lock:
            if self._room_available is None:
                self._room_available = threading.Condition(self._lock)
            has_ended = self._room_available.wait_for(
                lambda: self.state >= DRAINING or self._unread_bytes() <= self._unread_max_bytes, timeout_seconds
            )
            return has_ended and self.state < DRAINING

    def pause(self, seconds: float) -> bool:
        """Let the reader thread wait for this time; false, at once, if the queue takes no more."""
        with self._lock:
            if self._room_available is None:
                self._room_available = threading.Condition(self._lock)
            return not self._room_available.wait_for(lambda: self.state >= DRAINING, seconds)

    def is_abandoned(self, waited_seconds: float) -> bool:
        """True if a request that has waited for this number of seconds need not be answered.

        The peer is lost, the queue takes nothing more, or the peer has closed its side and a second has passed: it may
        still read, as ``nc`` at the end of its input, but most such peers are gone. For any thread.
        """
        if self.state >= DRAINING or self.transport.is_lost:
            return True
        return waited_seconds > HALF_CLOSED_SECONDS and self.transport.has_ended

    # --- for the hub, under its lock ---

    def follow(self, buffer: BroadcastBuffer) -> None:
        """Follow a broadcast buffer from its end on. A queue that takes no more does not follow."""
        with self._lock:
            if self.state >= DRAINING or buffer in self._open:
                return
            self._stop_sharing()
            if buffer in self._leaving:
                self._leaving = tuple(each for each in self._leaving if each is not buffer)
                self._open[buffer] = buffer.end
            else:
                self._open[buffer] = buffer.add_follower()
            self.buffers = (*self._open, *self._leaving)
            is_live = self.state is LIVE
        if is_live:
            self._mark_ready(self)

    def unfollow(self, buffer: BroadcastBuffer) -> None:
        """Stop following a broadcast buffer at its end; data up to there is still sent.

        If nothing else is followed while BUFFERING, the missed messages are incomplete, and what waited is dropped.
        """
        with self._lock:
            if buffer not in self._open:
                return
            self._close_spans()
            if self.state is BUFFERING and len(self._open) == 1:
                self._drop_waiting()
            self._leave([buffer])
        self._mark_ready(self)

    def insert(self, events: Sequence[Event | EventBatch]) -> None:
        """Send these events on this connection alone, after everything staged in the buffers that it follows."""
        data = self._encode(events)
        if not data:  # the protocol can't express these events
            return
        with self._lock:
            first = next(iter(self._open), None)
            if first is None:
                return
            self._close_spans(is_staged=True)
            if self._overflow is not None and self._inserted_bytes + len(data) > self._inserted_max_bytes:
                self._add_overflow(self._overflow, data)
            else:
                self._add(data, _INSERTION)
        first.note_inserted(len(data))
        self._mark_ready(self)

    def replace(self, buffer: BroadcastBuffer, start: int, end: int, events: Sequence[Event | EventBatch] = ()) -> None:
        """Send these events instead of the staged bytes of a buffer from start to end. The flush wakes the sender."""
        data = self._encode(events)
        with self._lock:
            if buffer not in self._open:
                return
            if self.caught_up:
                self._stop_sharing()
            open_start = self._open[buffer]
            if open_start < start:
                self._add_span(buffer, open_start, start)
            if data:
                self._add(data, _INSERTION)
            self._open[buffer] = end

    def track(self, number: int, on_acknowledged: Callable[[int], None]) -> None:
        """Report the number to ``on_acknowledged`` once the peer's system has acknowledged all data queued before.

        Numbers grow, and one report covers all smaller numbers. There is no report if the connection ends first.
        ``on_acknowledged`` is called from any thread, without the queue's lock. After :meth:`unfollow`, only data up to
        the end of following counts. After :meth:`finish` numbers are ignored.
        """
        with self._lock:
            if self.state >= DRAINING:
                return
            needs_visit = self._tracked is None  # otherwise the sender polls this queue already
            if self._tracked is None:
                self._tracked = _Tracked(on_acknowledged)
            self._tracked.newest = number
            if not self.caught_up or any(buffer.offered_end < buffer.end for buffer in self._open):
                needs_visit |= self.caught_up  # the sender may have sent these spans, and must note that
                self._close_spans()
            last = self._waiting or self._segments
            if last:
                last[-1].number = number
            else:
                self._tracked.sent = number
        if needs_visit:
            self._mark_ready(self)

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
            number, marked, mark = tracked.sent, tracked.marked, tracked.mark
        if number == _NO_NUMBER:
            return
        if self.transport.unacknowledged_bytes():
            if marked == _NO_NUMBER:
                mark = self.transport.written()
                with self._lock:
                    tracked.marked, tracked.mark = number, mark
                return
            if self.transport.acknowledged() < mark:
                return
            number = marked
        with self._lock:
            if self._tracked is not tracked:  # another thread reported everything, or the transport may be closed
                return
            if tracked.marked <= number:
                tracked.marked = _NO_NUMBER
            if tracked.sent <= number:
                tracked.sent = _NO_NUMBER
            if tracked.newest <= number:
                self._tracked = None
        tracked.on_acknowledged(number)

    # --- for the sender ---

    def stop_tracking(self) -> None:
        """Discard all numbers. Call it before the transport is closed."""
        with self._lock:
            self._tracked = None

    def next_data(self) -> list[bytes | memoryview] | Shared:
        """The next data to send: pieces, or one long span of a buffer; empty if there is nothing to send.

        Of a buffer that is followed, it has the data up to the buffer's position. LookupError: the buffer has discarded
        data that this queue still needs.
        """
        with self._lock:
            if self.state is LIVE:
                self._close_spans_at_positions()
            pieces: list[bytes | memoryview] = []
            room = self.transport.write_max_bytes
            for segment in self._segments:
                if isinstance(segment, Shared):
                    buffer, start = segment.buffer, segment.start
                    end = min(segment.end, buffer.end, start + room)
                    if not pieces and end - start >= buffer.limits.span_min_bytes:
                        return Shared(buffer, *buffer.span(start, end))
                    if start < end:
                        pieces.append(buffer.slice(start, end))
                    if end < segment.end:  # not flushed yet, or no room
                        break
                    room -= end - start
                elif segment.kind is _SINGLE_REPLY:
                    return pieces or [segment.data]
                else:
                    pieces.append(segment.data)
                if len(pieces) >= self._pieces_max:
                    break
            return pieces

    def note_sent(self, sent_bytes: int) -> None:
        """Record that the transport took the first ``sent_bytes`` bytes of the last :meth:`next_data`."""
        with self._lock:
            if self._tracked is None and sent_bytes == self._reply_bytes + self._inserted_bytes + self._shared_bytes:
                self._segments.clear()  # the common case: everything was sent
                self._reply_bytes = self._inserted_bytes = self._shared_bytes = 0
            else:
                self._drop_sent(sent_bytes)
            if self._leaving:
                self._release_buffers()
            if self._room_available is not None and self._unread_bytes() <= self._unread_max_bytes:
                self._room_available.notify_all()

    def catch_up(self, buffers: tuple[BroadcastBuffer, ...]) -> bool:
        """Become caught up if these are its buffers and nothing is unsent up to their positions. True if it is now.

        Only a queue whose transport is a socket can be caught up, because the sender then waits for the descriptor.
        """
        if not self.transport.is_socket:
            return False
        with self._lock:
            is_follower = bool(buffers) and self.buffers is buffers and self.state is LIVE
            self.caught_up = is_follower and not self._has_more()
            return self.caught_up

    @property
    def has_more(self) -> bool:
        """True if there may be data for another send."""
        with self._lock:
            return self._has_more()

    def start_of(self, buffer: BroadcastBuffer) -> int | None:
        """The position from which on this queue needs the data of a buffer; None if it needs none."""
        with self._lock:
            for segments in (self._segments, self._waiting):
                for segment in segments:
                    if isinstance(segment, Shared) and segment.buffer is buffer:
                        return segment.start
            return self._open.get(buffer)

    def fall_behind(
        self, buffers: Sequence[BroadcastBuffer], unsent: Shared | None = None, *, is_begun: bool = False
    ) -> None:
        """Leave the caught-up state, with everything sent up to the positions of the buffers, except ``unsent``.

        If the data of which ``unsent`` is the rest is begun, the rest becomes the first segment, before any other
        buffer. Nothing was inserted into it: the queue was still caught up when the sender had seen the end of it.
        """
        with self._lock:
            self._stop_sharing()
            begun = unsent if is_begun else None
            if begun is not None:
                self._segments.insert(0, begun)
                self._shared_bytes += begun.end - begun.start
            for buffer in buffers:
                position = buffer.position
                if unsent is not None and buffer is unsent.buffer:
                    position = unsent.end if is_begun else unsent.start
                self._skip_to(buffer, position, begun)
            if self._leaving:
                self._release_buffers()

    def shut(self) -> State | None:
        """If the queue takes no more and everything was sent, it is SHUT; returns the state before."""
        with self._lock:
            if self._segments or not DRAINING <= self.state <= HANGING_UP:
                return None
            before, self.state = self.state, SHUT
            return before

    def close(self) -> None:
        """Drop all data: nothing more is sent."""
        with self._lock:
            self.state = CLOSED
            self.caught_up = False
            self._segments, self._waiting = [], []
            self._reply_bytes = self._inserted_bytes = self._shared_bytes = 0
            for buffer in self.buffers:
                buffer.remove_follower()
            self._open.clear()
            self._leaving = self.buffers = ()
            if self._room_available is not None:
                self._room_available.notify_all()

    @property
    def has_unsent_replies(self) -> bool:
        """True if replies are unsent."""
        # Read without the lock: one integer, which is used only after a peer was stalled for STALL_SECONDS.
        return self._reply_bytes > 0

    @property
    def kept_bytes(self) -> int:
        """Bytes kept for this connection alone, with the page of an answer that is being made, and in the transport."""
        # Read without the lock: an estimate, compared with a limit in megabytes.
        page_bytes = _PAGE_BYTES if self._reply_bytes and self.state <= ANSWERING else 0
        return self._reply_bytes + self._inserted_bytes + page_bytes + self.transport.unsent_bytes

    def unread_bytes(self) -> int:
        """Unsent bytes of all kinds, if the queue is not caught up. For any thread; an estimate."""
        return self._reply_bytes + self.lag_bytes()

    def lag_bytes(self) -> int:
        """Unsent bytes of all buffers and of insertions; replies do not count."""
        with self._lock:
            unsent_bytes = self._shared_bytes + self._inserted_bytes
            for buffer, start in self._open.items():
                if start < buffer.end:
                    unsent_bytes += buffer.end - start
            return unsent_bytes

    # --- the lock is held, except for the callers above that read without it ---

    def _has_more(self) -> bool:
        """True if there are segments, or an open span that can be sent does not start at its buffer's position."""
        if self._segments:
            return True
        if self.state is LIVE:
            for buffer, start in self._open.items():  # each send runs this loop; a generator would take 0.3 us
                if start != buffer.position:
                    return True
        return False

    def _put(self, data: bytes) -> None:
        if not data or self.state >= DRAINING:
            return
        if self.state <= ANSWERING:
            self._segments.append(Own(data, _SINGLE_REPLY))
            self._reply_bytes += len(data)
        else:
            self._close_spans()
            self._add(data, _REPLY)

    def _go_live(self) -> None:
        self._segments += self._waiting
        self._waiting = []
        self.state = LIVE

    def _end_answer(self, *, is_complete: bool) -> None:
        """Continue after an answer, and end if that was requested meanwhile or a part of the answer is missing."""
        if is_complete:
            self._go_live()
        if not is_complete or self._last is not None:
            self._finish(self._last or b"")

    def _finish(self, last: bytes) -> None:
        """Queue the last bytes, and nothing after them."""
        if self.state >= DRAINING:
            return
        self._put(last)
        if self.state is LIVE:
            self._close_spans()
        else:
            self._drop_waiting()
        self._leave(self._open)
        self.state = DRAINING

    def _add(self, data: bytes, kind: Kind) -> None:
        """Append bytes of the queue's own, or join them to the last ones."""
        segments = self._waiting if self.state <= ANSWERING else self._segments
        last = segments[-1] if segments else None
        if isinstance(last, Own) and last.kind is kind and len(last.data) < _JOIN_MAX_BYTES:
            last.data = bytes(last.data) + data
        else:
            segments.append(Own(data, kind))
        if kind is _INSERTION:
            self._inserted_bytes += len(data)
        else:
            self._reply_bytes += len(data)

    def _add_overflow(self, overflow: BroadcastBuffer, data: bytes) -> None:
        """Append an insertion as a span of the overflow buffer."""
        start, end = overflow.append_bytes(data)
        overflow.flush()
        self._add_span(overflow, start, end)

    def _stop_sharing(self) -> None:
        """Leave the caught-up state. The true starts are these or later: see fall_behind."""
        if self.caught_up:
            self.caught_up = False
            for buffer, start in self._open.items():
                self._open[buffer] = max(start, buffer.offered_end)

    def _close_spans(self, *, is_staged: bool = False) -> None:
        """Close the open spans at the flushed ends of their buffers, or after the staged data."""
        self._stop_sharing()
        for buffer, start in self._open.items():
            end = buffer.tail if is_staged else buffer.end
            if start < end:
                self._add_span(buffer, start, end)
                self._open[buffer] = end

    def _close_spans_at_positions(self) -> None:
        """Close the open spans at the positions of their buffers, to send them."""
        if len(self._segments) < self._pieces_max:
            for buffer, start in self._open.items():
                if start < buffer.position:
                    self._add_span(buffer, start, buffer.position)
                    self._open[buffer] = buffer.position

    def _add_span(self, buffer: BroadcastBuffer, start: int, end: int) -> None:
        """Append a span, or extend the last one. A number is then reported later, so there is a limit."""
        segments = self._waiting if self.state <= ANSWERING else self._segments
        last = segments[-1] if segments else None
        if (
            isinstance(last, Shared)
            and last.buffer is buffer
            and last.end == start
            and (last.number == _NO_NUMBER or start - last.start < _NUMBERED_MAX_BYTES)
        ):
            last.end = end
        else:
            segments.append(Shared(buffer, start, end))
        self._shared_bytes += end - start

    def _drop_sent(self, sent_bytes: int) -> None:
        """Drop the first ``sent_bytes`` bytes of the segments."""
        complete = 0
        for segment in self._segments:
            if not sent_bytes:
                break
            size = _size(segment)
            if size > sent_bytes:
                self._shorten(segment, sent_bytes)
                break
            self._count_sent(segment, size)
            if segment.number != _NO_NUMBER:
                self._note_complete(segment)
            sent_bytes -= size
            complete += 1
        del self._segments[:complete]

    def _skip_to(self, buffer: BroadcastBuffer, position: int, begun: Shared | None) -> None:
        """Drop the data of the first span of a buffer, except ``begun``, that was sent up to this position."""
        before: Own | Shared | None = None
        for segments in (self._segments, self._waiting):
            for index, segment in enumerate(segments):
                if isinstance(segment, Shared) and segment.buffer is buffer and segment is not begun:
                    if segment.start < position:
                        self._shorten(segment, position - segment.start)
                    if segment.start == segment.end:
                        if before is None:
                            self._note_complete(segment)
                        elif segment.number != _NO_NUMBER:  # the data before it is unsent
                            before.number = segment.number
                        del segments[index]
                    return
                before = segment
        if self._open.get(buffer, position) < position:
            self._open[buffer] = position

    def _shorten(self, segment: Own | Shared, max_bytes: int) -> None:
        """Remove up to ``max_bytes`` from the start of a segment."""
        taken = min(max_bytes, _size(segment))
        if isinstance(segment, Shared):
            segment.start += taken
        else:
            segment.data = memoryview(segment.data)[taken:]
        self._count_sent(segment, taken)

    def _count_sent(self, segment: Own | Shared, size_bytes: int) -> None:
        if isinstance(segment, Shared):
            self._shared_bytes -= size_bytes
        elif segment.kind is _INSERTION:
            self._inserted_bytes -= size_bytes
        else:
            self._reply_bytes -= size_bytes

    def _note_complete(self, segment: Own | Shared) -> None:
        """Note that a segment was sent, which may carry a number."""
        if segment.number != _NO_NUMBER and self._tracked is not None:
            self._tracked.sent = segment.number

    def _drop_waiting(self) -> None:
        """Drop the segments of buffers and the insertions that wait for the release."""
        for segment in self._waiting:
            self._shorten(segment, _size(segment))
        self._waiting = []
        if self._tracked is not None:  # the numbers in what waited are never reported
            kept = (segment.number for segment in self._segments)
            self._tracked.newest = max(self._tracked.sent, self._tracked.marked, *kept)
            if self._tracked.newest == _NO_NUMBER:
                self._tracked = None

    def _leave(self, buffers: Sequence[BroadcastBuffer] | Mapping[BroadcastBuffer, int]) -> None:
        """Stop following these buffers."""
        self._leaving += tuple(buffers)
        for buffer in [*buffers]:
            del self._open[buffer]
        self._release_buffers()

    def _release_buffers(self) -> None:
        """Release the buffers that are not followed and have no span here."""
        if self._leaving:
            needed = {segment.buffer for segment in (*self._segments, *self._waiting) if isinstance(segment, Shared)}
            for buffer in self._leaving:
                if buffer not in needed:
                    buffer.remove_follower()
            self._leaving = tuple(buffer for buffer in self._leaving if buffer in needed)
            self.buffers = (*self._open, *self._leaving)

    def _unread_bytes(self) -> int:
        """Bytes that the peer has not read. Insertions do not count while they wait and can't be sent."""
        return self._reply_bytes + (0 if self.state <= ANSWERING else self._inserted_bytes)


def _size(segment: Own | Shared) -> int:
    return len(segment.data) if isinstance(segment, Own) else segment.end - segment.start
