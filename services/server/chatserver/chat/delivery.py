"""Acked delivery, for guests: one message at a time, and the next one after the acknowledgement.

Theory of operation
-------------------

AckedDelivery holds one list of public deliveries. Each DeliveryWindow has a position in that list, and a queue of
direct deliveries. A direct delivery has the position of the public delivery that follows it, so each user gets one
order. For the hub, AckedDelivery is a BroadcastBuffer, and each window is a Follower.

States of a window: new -> held (``follow``) -> idle (``release``) <-> in flight (one part was sent) -> closed.
``handle_ack`` leads from in flight to the next part, the next delivery, or idle. ``unfollow`` closes a window. A lag
above the limit and a missing answer close it too, and then the watcher disconnects the user. A closed window is never
opened again.

States of an Ack: pending -> complete, with success or failure; the first outcome counts.

1. ``begin_send`` creates the Ack, and the session appends the message to the journal.
2. The hub stages the delivery and confirms the batch. ``_confirm`` links the Ack to the delivery.
3. ``flush`` counts the recipients (``_enqueue``).
4. The last positive answer completes the Ack. So does the first failure: a negative answer, a closed window, or the
   timeout.

Threads. The reader of a guest's sending connection calls ``begin_send`` and ``end_send``, and waits for the Ack. The
reader of the receiving connection calls ``handle_ack``. The hub calls ``append``, ``handle_own_event``, ``flush``,
``open`` and ``close`` under its lock, in the journal thread, the presence thread or a reader. The watcher (thread
"delivery") handles timeouts and disconnects.

Locks. Order: guests, hub, ``_lock``. ``_lock`` guards all windows, deliveries and acks. Parts are put into send queues
after its release. The order of parts stays correct, because a window has at most one part in flight. Only a peer that
acknowledges a part before it arrives can get parts in another order.

``_deadlines`` is ordered by time, because all entries are appended with the same timeout. ``shorten_timeouts`` keeps
the order: it runs after the end of the journal, so no entry that it adds is set again. Therefore the watcher checks the
first entries only. It is woken only if it sleeps without a timeout or must disconnect a user.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from itertools import takewhile
from typing import TYPE_CHECKING

import structlog
from msgspec import Struct

from chatprotocol.events import DirectMessage, PublicBatch, Refused, Sent, SentBatch, SentStatus
from chatprotocol.rules import name_key
from chatserver.threads import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from chatprotocol.events import Event, EventBatch, Message
    from chatserver.chat.member import SendQueue

_log = structlog.get_logger()

# Acknowledgement timeout: for the recipient of each part, and for the sender that waits for all recipients.
ACK_SECONDS = 5.0
# Per-message overhead.
_DELIVERY_BYTES = 100


class Ack:
    """The outcome of one message: acknowledged by all recipients that have a window, or failed.

    AckedDelivery writes it under its lock. The sender calls :meth:`wait` and reads :attr:`is_complete` without the
    lock, and reads the other fields only after :meth:`wait`.
    """

    __slots__ = ("_completed", "acks_expected", "has_failed", "is_stored_only")

    def __init__(self) -> None:
        self._completed = threading.Event()
        self.acks_expected = 0
        self.has_failed = False
        # True for a direct message if the recipient is not online.
        self.is_stored_only = False

    def wait(self) -> bool:
        """Wait for the outcome. True if all recipients acknowledged. Takes ACK_SECONDS at most after the commit."""
        self._completed.wait()
        # Read without the lock: has_failed is written only before the event is set.
        return not self.has_failed

    @property
    def is_complete(self) -> bool:
        """True if the outcome is known. Read without the lock: the event is set once and never cleared."""
        return self._completed.is_set()

    def complete(self) -> None:
        self._completed.set()


class Delivery(Struct, gc=False, eq=False):
    """One message, to one window or to all windows except its sender's."""

    # Parts of the message, sent one after the other; usually one part, the message itself.
    parts: Sequence[Message]
    size_bytes: int
    # ``to`` is None for a public message. ``sender`` is None if the sender has no window.
    to: DeliveryWindow | None = None
    sender: DeliveryWindow | None = None
    ack: Ack | None = None
    # Position in the list, -1 before the flush. A direct delivery precedes the public delivery at the same position.
    # ``offset_bytes``: size of all earlier public deliveries; not set for direct deliveries.
    position: int = -1
    offset_bytes: int = 0


class DeliveryWindow:
    """The undelivered messages of one user: the public ones from ``position`` on, and a queue of direct ones.

    The lock of AckedDelivery guards all attributes except ``broadcast``, ``send_queue`` and ``name``, which never
    change.
    """

    __slots__ = (
        "ack",
        "broadcast",
        "direct",
        "direct_bytes",
        "in_flight",
        "is_held",
        "is_open",
        "name",
        "on_idle",
        "own_bytes",
        "parts_given",
        "position",
        "send_queue",
    )

    def __init__(self, acked_delivery: AckedDelivery, send_queue: SendQueue, name: str) -> None:
        """``send_queue`` belongs to the receiving connection."""
        self.broadcast = acked_delivery
        self.send_queue = send_queue
        self.name = name
        self.position = 0
        # Size of the user's own public messages after the position. Own messages are skipped.
        self.own_bytes = 0
        self.direct: deque[Delivery] = deque()
        self.direct_bytes = 0
        # The current delivery until all its parts are acknowledged, and the number of its parts that were sent.
        self.in_flight: Delivery | None = None
        self.parts_given = 0
        # The user's own message that awaits its outcome.
        self.ack: Ack | None = None
        self.is_open = False
        self.is_held = True
        # Called when nothing is in flight to or from the user; None until shutdown.
        self.on_idle: Callable[[], None] | None = None

    # --- for the hub, under its lock ---

    def follow(self) -> None:
        """Start to queue deliveries. No delivery is sent before :meth:`AckedDelivery.release`."""
        self.broadcast.open(self)

    def unfollow(self) -> None:
        """Close the window."""
        self.broadcast.close(self)

    def insert(self, _: int, __: int, events: Sequence[Event | EventBatch], /) -> None:
        """Pass on direct messages and confirmations. Own public messages are skipped on delivery."""
        for event in events:
            self.broadcast.handle_own_event(self, event)

    def track(self, _: int, __: Callable[[int], None]) -> None:
        """Do nothing: guests acknowledge each message, and have no delivery mark."""

    def check_acknowledged(self) -> None:
        """Do nothing: nothing is tracked."""


class AckedDelivery:
    """All delivery windows, and the watcher thread. See the module's theory of operation."""

    # For the hub. Positions in a broadcast buffer have no meaning here.
    tail = 0

    def __init__(
        self,
        lag_max_bytes: int,
        on_crash: Callable[[str], None],
        split: Callable[[Message], Sequence[Message]] = lambda message: (message,),
        ack_seconds: float = ACK_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``split`` divides a message into parts that are sent one after the other.

        ``ack_seconds`` is the acknowledgement timeout; ``clock`` returns seconds.
        """
        self._lag_max_bytes = lag_max_bytes
        self._split = split
        self._worker = Worker("delivery", self._run, on_crash)
        # Guards everything below, and all windows, deliveries and acks. Taken after the hub's lock.
        self._lock = threading.Lock()
        self._windows: set[DeliveryWindow] = set()
        # Deliveries that are appended and not flushed yet.
        self._staged: list[Delivery] = []
        # Public deliveries, the position of the first of them, and the size of all public deliveries since the start.
        self._deliveries: list[Delivery] = []
        self._first = 0
        self._total_bytes = 0
        # Pending acks with their deliveries.
        self._pending: dict[Ack, Delivery] = {}
        # Deadlines of windows in flight and of pending acks, ordered by time (dict insertion order).
        self._deadlines: dict[DeliveryWindow | Ack, float] = {}
        self._ack_seconds = ack_seconds
        self._clock = clock
        # Windows to disconnect, with the reason.
        self._to_disconnect: list[tuple[DeliveryWindow, str]] = []
        self._changed = threading.Condition(self._lock)
        self._watcher_sleeps = False
        self._stopping = False
        # True after the watcher ended: acks fail at once, because no timeout would be noticed.
        self._watcher_ended = False

    def start(self) -> None:
        self._worker.start()

    def stop(self) -> None:
        """Stop and join the watcher thread."""
        with self._lock:
            self._stopping = True
            self._changed.notify()
        self._worker.join()

    def check_deadlines(self) -> None:
        """Fail the acks whose deadline has passed; disconnect users that are late or lag too far. For the watcher."""
        with self._lock:
            self._expire_deadlines(self._clock())
            disconnected, self._to_disconnect = self._to_disconnect, []
        for window, reason in disconnected:
            # The reader of this connection sees the end and closes the other connection.
            _log.warning("disconnected", reason=reason, user=window.name)
            window.send_queue.finish(hang_up=True)
            self._call_if_idle(window)

    def shorten_timeouts(self, ack_seconds: float) -> None:
        """Shorten all timeouts, at shutdown. Call it after the end of the journal."""
        latest = self._clock() + ack_seconds
        with self._lock:
            self._ack_seconds = ack_seconds
            self._deadlines = {key: min(deadline, latest) for key, deadline in self._deadlines.items()}
            for window in self._windows:
                # If the journal crashed, an appended message is never confirmed or rejected.
                if window.ack is not None and not window.ack.is_complete:
                    self._deadlines.setdefault(window.ack, latest)
            self._changed.notify()

    # --- for the hub, under its lock: BroadcastBuffer ---

    @property
    def has_followers(self) -> bool:
        """True if there is a window."""
        # Read without ``_lock``: the set changes only in open and close, under the hub's lock, which the caller holds.
        return bool(self._windows)

    def append(self, events: Sequence[Event | EventBatch]) -> tuple[int, int]:
        """Stage a delivery for each public message, until :meth:`flush`. Other events are ignored."""
        batches = [event for event in events if isinstance(event, PublicBatch)]
        deliveries = [self._make_delivery(message) for batch in batches for message in batch]
        with self._lock:
            self._staged += deliveries
        return self.tail, self.tail

    def flush(self) -> None:
        """Queue the staged deliveries, send the next parts, and close windows that lag too far."""
        with self._lock:
            deliveries, self._staged = self._staged, []
            for delivery in deliveries:
                self._enqueue(delivery)
            to_send = [(window, self._start_next(window)) for window in self._windows if not self._is_lagging(window)]
            self._drop_delivered()
        for window, part in to_send:
            _send_part(window, part)

    def wait_for_sender(self, ahead_max_bytes: int = 0, limit_seconds: float | None = None) -> None:
        """Return at once: guests are limited by their lag instead."""

    # --- for windows, under the hub's lock ---

    def open(self, window: DeliveryWindow) -> None:
        with self._lock:
            window.is_open = True
            window.position = self._end
            self._windows.add(window)

    def close(self, window: DeliveryWindow) -> None:
        """Close the window; the pending acks of its undelivered messages fail."""
        with self._lock:
            self._windows.discard(window)
            self._close_window(window)

    def handle_own_event(self, window: DeliveryWindow, event: Event | EventBatch) -> None:
        """Handle a direct message to the user, or the confirmation or rejection of the user's own message."""
        with self._lock:
            match event:
                case DirectMessage():
                    self._staged.append(self._make_delivery(event, to=window))
                case SentBatch() | Sent():
                    self._confirm(window, event)
                case Refused():
                    self._fail(window.ack)

    # --- for the reader threads of a guest's two connections ---

    def release(self, window: DeliveryWindow) -> None:
        """Start to send deliveries."""
        with self._lock:
            window.is_held = False
            part = self._start_next(window)
        _send_part(window, part)

    def begin_send(self, window: DeliveryWindow) -> Ack:
        """Return the ack for the user's next message. If the window is closed, the ack has failed already.

        Call :meth:`end_send` after the reply was sent.
        """
        with self._lock:
            window.ack = Ack()
            if self._watcher_ended or not window.is_open:
                self._fail(window.ack)
            return window.ack

    def end_send(self, window: DeliveryWindow) -> None:
        """End the request that :meth:`begin_send` began."""
        with self._lock:
            window.ack = None
        self._call_if_idle(window)

    def handle_ack(self, window: DeliveryWindow, sender: str | None) -> bool:
        """Acknowledge the current part; ``sender`` None rejects it. False if no message of ``sender`` is in flight."""
        with self._lock:
            answered = window.in_flight
            if answered is None or (sender and name_key(sender) != name_key(answered.parts[0].sender)):
                return False
            del self._deadlines[window]
            if sender is not None and window.parts_given < len(answered.parts):
                part: Message | None = self._next_part(window, answered)
            else:  # a rejected part fails the whole message
                window.in_flight = None
                self._count_ack(answered, is_positive=sender is not None)
                part = self._start_next(window)
        _send_part(window, part)
        self._call_if_idle(window)
        return True

    def drain(self, window: DeliveryWindow, on_idle: Callable[[], None]) -> None:
        """At shutdown, call ``on_idle`` when nothing is in flight for this user; once or more, in any thread."""
        with self._lock:
            window.on_idle = on_idle
        self._call_if_idle(window)

    def _call_if_idle(self, window: DeliveryWindow) -> None:
        """Call ``on_idle`` if it is set and nothing is in flight."""
        # Read without the lock: if this read misses a concurrent drain, that drain calls this method after the write.
        if window.on_idle is None:
            return
        with self._lock:
            is_idle = window.in_flight is None and window.ack is None and not self._lag_bytes(window)
        if is_idle:
            window.on_idle()

    # --- deliveries: the lock is held ---

    @property
    def _end(self) -> int:
        """Position of the next public delivery. The lock is held."""
        return self._first + len(self._deliveries)

    def _enqueue(self, delivery: Delivery) -> None:
        """Queue a staged delivery and count the answers that its ack needs. The lock is held."""
        delivery.position = self._end
        if delivery.to is None:
            delivery.offset_bytes = self._total_bytes
            self._total_bytes += delivery.size_bytes
            self._deliveries.append(delivery)
            if delivery.sender is not None and delivery.sender.is_open:
                delivery.sender.own_bytes += delivery.size_bytes
        elif delivery.to.is_open:
            delivery.to.direct.append(delivery)
            delivery.to.direct_bytes += delivery.size_bytes
        ack = delivery.ack
        if ack is not None:
            addressed = self._windows - {delivery.sender} if delivery.to is None else {delivery.to}
            ack.acks_expected = sum(window.is_open for window in addressed)
            if not ack.acks_expected:
                self._complete(ack, has_failed=delivery.to is not None)

    def _make_delivery(self, message: Message, to: DeliveryWindow | None = None) -> Delivery:
        parts = self._split(message)
        return Delivery(parts, sum(_size_bytes(part.text) for part in parts), to)

    def _start_next(self, window: DeliveryWindow) -> Message | None:
        """Start the next delivery if the window is idle; return its first part. The lock is held."""
        if window.is_held or window.in_flight is not None or not window.is_open:
            return None
        window.in_flight = delivery = self._take_next(window)
        window.parts_given = 0
        return self._next_part(window, delivery) if delivery is not None else None

    def _next_part(self, window: DeliveryWindow, delivery: Delivery) -> Message:
        """The lock is held."""
        window.parts_given += 1
        self._add_deadline(window)
        return delivery.parts[window.parts_given - 1]

    def _take_next(self, window: DeliveryWindow) -> Delivery | None:
        """Take the next delivery of the window, and skip the user's own messages. The lock is held."""
        while True:
            if window.direct and window.direct[0].position <= window.position:
                delivery = window.direct.popleft()
                window.direct_bytes -= delivery.size_bytes
                return delivery
            if window.position == self._end:
                return None
            delivery = self._deliveries[window.position - self._first]
            window.position += 1
            if delivery.sender is not window:
                return delivery
            window.own_bytes -= delivery.size_bytes

    def _lag_bytes(self, window: DeliveryWindow) -> int:
        """Size of all undelivered messages; 0 if closed. The lock is held."""
        if not window.is_open:
            return 0
        if window.position == self._end:
            return window.direct_bytes
        first = self._deliveries[window.position - self._first]
        return self._total_bytes - first.offset_bytes - window.own_bytes + window.direct_bytes

    def _is_lagging(self, window: DeliveryWindow) -> bool:
        """True if the lag exceeds the limit; the user is then disconnected. The lock is held."""
        if self._lag_bytes(window) <= self._lag_max_bytes:
            return False
        self._disconnect(window, "lagging")
        return True

    def _drop_delivered(self) -> None:
        """Drop the delivered entries if they are at least half of the list (amortized cost). The lock is held."""
        needed = min((window.position for window in self._windows if window.is_open), default=self._end)
        if 2 * (needed - self._first) >= len(self._deliveries):
            del self._deliveries[: needed - self._first]
            self._first = needed

    def _close_window(self, window: DeliveryWindow) -> None:
        """Close the window; fail the user's own ack and the acks of undelivered messages. The lock is held."""
        if not window.is_open:
            return
        window.is_open = False
        self._deadlines.pop(window, None)
        # Scan the pending acks, not the undelivered messages: there are fewer of them.
        for ack, delivery in [*self._pending.items()]:
            is_undelivered = (
                delivery.to is None and delivery.position >= window.position and delivery.sender is not window
            )
            if is_undelivered or delivery is window.in_flight or delivery.to is window:
                self._fail(ack)
        window.in_flight = None
        window.direct.clear()
        window.direct_bytes = window.own_bytes = 0
        window.position = self._end
        self._fail(window.ack)

    # --- acks: the lock is held ---

    def _confirm(self, sender: DeliveryWindow, confirmed: Sent | SentBatch) -> None:
        """Link the ack to the staged delivery; without a delivery, complete the ack. The lock is held."""
        ack = sender.ack
        if ack is None or ack.is_complete:
            return
        ack.is_stored_only = isinstance(confirmed, Sent) and confirmed.status is SentStatus.STORED
        if not self._staged or self._staged[-1].parts[0].id != confirmed.id:
            self._complete(ack)
            return
        delivery = self._staged[-1]
        delivery.sender, delivery.ack = sender, ack
        self._pending[ack] = delivery
        self._add_deadline(ack)

    def _count_ack(self, delivery: Delivery, *, is_positive: bool) -> None:
        """Count one answer. The lock is held."""
        ack = delivery.ack
        if ack is None:
            return
        ack.acks_expected -= 1
        if not is_positive or ack.acks_expected == 0:
            self._complete(ack, has_failed=not is_positive)

    def _fail(self, ack: Ack | None) -> None:
        """The lock is held."""
        if ack is not None:
            self._complete(ack, has_failed=True)

    def _complete(self, ack: Ack, *, has_failed: bool = False) -> None:
        """Complete the ack; the first outcome counts. The lock is held."""
        self._deadlines.pop(ack, None)
        self._pending.pop(ack, None)
        if not ack.is_complete:
            ack.has_failed = has_failed
            ack.complete()

    def _add_deadline(self, key: DeliveryWindow | Ack) -> None:
        """Append a deadline, later than all others. The lock is held."""
        self._deadlines[key] = self._clock() + self._ack_seconds
        if self._watcher_sleeps:
            self._changed.notify()

    def _disconnect(self, window: DeliveryWindow, reason: str) -> None:
        """Close the window and let the watcher disconnect the user. The lock is held."""
        self._close_window(window)
        self._to_disconnect.append((window, reason))
        self._changed.notify()

    # --- the watcher ---

    def _run(self) -> None:
        try:
            self._watch()
        finally:
            with self._lock:
                self._watcher_ended = True
                for window in self._windows:
                    self._fail(window.ack)

    def _watch(self) -> None:
        # _stopping is read without the lock: _sleep reads it again under the lock, so the wake-up by stop is not lost.
        while not self._stopping:
            self.check_deadlines()
            with self._lock:
                self._sleep()

    def _sleep(self) -> None:
        """Sleep until the first deadline or a notification; without deadlines there is no limit. The lock is held."""
        if self._stopping or self._to_disconnect:
            return
        first = next(iter(self._deadlines.values()), None)
        self._watcher_sleeps = first is None
        self._changed.wait(None if first is None else first - self._clock())
        self._watcher_sleeps = False

    def _expire_deadlines(self, now: float) -> None:
        """Fail the acks and disconnect the users whose deadline has passed. The lock is held."""
        for key in list(takewhile(lambda each: self._deadlines[each] <= now, self._deadlines)):
            if isinstance(key, Ack):
                self._fail(key)
            elif key.is_open:
                self._disconnect(key, "ack_timeout")


def _send_part(window: DeliveryWindow, part: Message | None) -> None:
    if part is not None:
        window.send_queue.put([part])


def _size_bytes(text: str) -> int:
    return _DELIVERY_BYTES + (len(text) if text.isascii() else len(text.encode()))
