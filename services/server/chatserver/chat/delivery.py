"""Acked delivery, for guests: one message at a time, and the next one after the acknowledgement.

Theory of operation
-------------------

Each online guest has a DeliveryWindow: a queue of references to messages, and at most one message in flight. A message
that is split into parts is in flight until its last part is acknowledged. A guest waits for each message that it sends;
the Ack of that message travels through the journal to the hub, as the origin of the entry, and then in the windows'
queues.

States of a window: held (after ``join``) -> open (``release``) -> closed. Only an open window sends. A lag above the
limit, a late answer and too many rejected messages close a window and disconnect the guest, and ``leave`` closes it. A
closed window is not in ``_windows``, receives nothing, and is never opened again.

States of an Ack: pending -> complete, with success or failure; the first outcome counts.

1. ``begin_send`` creates the Ack. The session appends the message to the journal and waits.
2. The hub calls ``publish`` or ``tell`` after the commit. ``acks_expected`` becomes the number of windows that take the
   message. If there is none, the Ack is complete. ``complete`` covers messages that no guest of this server receives.
3. The last positive answer completes the Ack. So does the first failure: a negative answer, a closed window, or the
   timeout.

Threads. The reader of a guest's sending connection calls ``begin_send`` and ``end_send``, and waits for the Ack. The
reader of the receiving connection calls ``handle_ack``. The hub calls ``publish``, ``tell`` and ``complete`` under its
lock. The watcher (thread "delivery") handles timeouts.

Locks. ``_lock`` guards all windows and acks. Order: guests, hub, ``_lock``, send queue. Parts are put into send queues
under ``_lock``, which keeps them in order; a send queue never blocks.

``_deadlines`` is ordered by time, because all entries are appended with the same timeout. ``shorten_timeouts`` keeps
the order: it runs after the end of the journal, so no entry that it adds is set again. Therefore the watcher checks the
first entries only. It is woken only if it sleeps without a limit: otherwise it wakes in time for every deadline.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from enum import Enum
from itertools import takewhile
from typing import TYPE_CHECKING

import structlog

from chatprotocol.rules import name_key
from chatserver.threads import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from chatprotocol.events import Message
    from chatserver.net.sendqueue import SendQueue
    from chatserver.store.accounts import Account

_log = structlog.get_logger()

# Acknowledgement timeout: for the recipient of each part, and for the sender that waits for all recipients.
ACK_SECONDS = 5.0
# Points of a guest that rejects messages: a rejected one adds REJECTED_POINTS, an acknowledged one removes a point. A
# guest that reaches REJECTED_MAX_POINTS is disconnected: after three in a row, or if it often rejects one. While it is
# there, others can send nothing to all users.
REJECTED_POINTS = 10
REJECTED_MAX_POINTS = 30
# Per-message overhead.
_MESSAGE_BYTES = 100


class Ack:
    """The outcome of a guest's message: acknowledged by all guests that it is for, or failed.

    AckedDelivery writes it under its lock. The sender calls :meth:`wait`, without the lock.
    """

    __slots__ = ("acks_expected", "completed", "message_id", "sender")

    def __init__(self, sender: DeliveryWindow) -> None:
        self.sender = sender
        self.completed = threading.Event()
        # Guests that have not acknowledged yet.
        self.acks_expected = 0
        self.message_id: int | None = None

    def wait(self) -> int | None:
        """Wait for the outcome, ACK_SECONDS at most after the commit: the message's id, or None if the ack failed."""
        self.completed.wait()
        # Read without the lock: message_id is written only before the event is set.
        return self.message_id

    @property
    def is_complete(self) -> bool:
        """True if the outcome is known. Read without the lock: the event is set once and never cleared."""
        return self.completed.is_set()


class WindowState(Enum):
    """The state of a window."""

    HELD = "messages are queued, and none is sent yet"
    OPEN = "messages are sent"
    CLOSED = "the guest has left or was disconnected"


class DeliveryWindow:
    """The undelivered messages of one guest. The lock of AckedDelivery guards all attributes, except the first two."""

    def __init__(self, guest: Account, send_queue: SendQueue) -> None:
        """``send_queue`` belongs to the receiving connection."""
        self.guest = guest
        self.send_queue = send_queue
        self.state = WindowState.HELD
        # Messages that wait, each with the ack of its sender; None if the sender waits for no ack.
        self.queue: deque[tuple[Message, Ack | None]] = deque()
        self.queued_bytes = 0
        # The message that was taken from the queue and not acknowledged yet, and its parts that were not sent yet.
        self.in_flight: tuple[Message, Ack | None] | None = None
        self.parts: Sequence[Message] = ()
        self.rejected_points = 0
        # The acks of the messages in the queue and in flight.
        self.awaited: set[Ack] = set()
        # The ack of the guest's own message that awaits its outcome.
        self.ack: Ack | None = None
        # Called when nothing is in flight to or from the guest; None until shutdown.
        self.on_idle: Callable[[], None] | None = None


class AckedDelivery:
    """All delivery windows, and the watcher thread. See the module's theory of operation."""

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
        self._clock = clock
        self._worker = Worker("delivery", self._run, on_crash)
        # Guards everything below, and all windows and acks. Taken after the hub's lock.
        self._lock = threading.Lock()
        self._ack_seconds = ack_seconds
        # All windows that are not closed, by account id.
        self._windows: dict[int, DeliveryWindow] = {}
        # Deadlines of windows in flight and of published acks, ordered by time (dict insertion order).
        self._deadlines: dict[DeliveryWindow | Ack, float] = {}
        self._changed = threading.Condition(self._lock)
        # True while the watcher sleeps without a limit, because it found no deadline.
        self._watcher_is_idle = False
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

    def shorten_timeouts(self, ack_seconds: float) -> None:
        """Shorten all timeouts, at shutdown. Call it after the end of the journal."""
        latest = self._clock() + ack_seconds
        with self._lock:
            self._ack_seconds = ack_seconds
            self._deadlines = {key: min(deadline, latest) for key, deadline in self._deadlines.items()}
            for window in self._windows.values():
                # If the journal crashed, an appended message is never published or refused.
                if window.ack is not None and not window.ack.is_complete:
                    self._deadlines.setdefault(window.ack, latest)
            self._changed.notify()

    # --- for the hub, under its lock ---

    @property
    def guests(self) -> int:
        """Number of guests online. Read without the lock: a guest that joins meanwhile gets later messages only."""
        return len(self._windows)

    def publish(self, messages: Iterable[Message], ack: Ack | None) -> None:
        """Deliver public messages to all guests, except the sender of the ack. An ack is for a single message."""
        with self._lock:
            sender = ack.sender if ack is not None else None
            self._queue([window for window in self._windows.values() if window is not sender], messages, ack)

    def tell(self, account_id: int, claim: int, message: Message, ack: Ack | None) -> bool:
        """Deliver a direct message to the guest of this claim. False if it is not here: nothing was done."""
        with self._lock:
            window = self._windows.get(account_id)
            if window is not None and window.guest.claim == claim:
                self._queue([window], [message], ack)
                return True
            return False

    def complete(self, ack: Ack, message_id: int | None) -> None:
        """Complete the ack of a message that is delivered to no guest. None: the message is not stored."""
        with self._lock:
            self._complete(ack, message_id)

    # --- for the reader threads of a guest's two connections ---

    def join(self, window: DeliveryWindow) -> None:
        """Queue all messages from now on. None is sent before :meth:`release`."""
        with self._lock:
            self._windows[window.guest.id] = window

    def release(self, window: DeliveryWindow) -> None:
        """Start to send messages."""
        with self._lock:
            if window.state is WindowState.HELD:
                window.state = WindowState.OPEN
                self._send_next(window)

    def leave(self, window: DeliveryWindow) -> None:
        """Close the window; the acks of its undelivered messages fail."""
        with self._lock:
            self._close(window)

    def begin_send(self, window: DeliveryWindow) -> Ack:
        """Return the ack for the guest's next message. If the window is closed, the ack has failed already.

        Call :meth:`end_send` after the reply was sent.
        """
        with self._lock:
            window.ack = Ack(window)
            if self._watcher_ended or window.state is WindowState.CLOSED:
                self._complete(window.ack, None)
            return window.ack

    def end_send(self, window: DeliveryWindow) -> None:
        """End the request that :meth:`begin_send` began."""
        with self._lock:
            window.ack = None
            self._call_if_idle(window)

    def handle_ack(self, window: DeliveryWindow, sender: str | None) -> bool:
        """Acknowledge the current part; ``sender`` None rejects it. False if no message of ``sender`` is in flight."""
        with self._lock:
            if window.in_flight is None:
                return False
            message, ack = window.in_flight
            if sender and name_key(sender) != name_key(message.sender):
                return False
            del self._deadlines[window]
            if sender is None or not window.parts:  # a rejected part fails the whole message
                window.in_flight, window.parts = None, ()
                window.rejected_points = max(0, window.rejected_points + (REJECTED_POINTS if sender is None else -1))
                if ack is not None:
                    window.awaited.discard(ack)
                    ack.acks_expected -= 1
                    if sender is None or ack.acks_expected == 0:
                        self._complete(ack, None if sender is None else message.id)
            if window.rejected_points >= REJECTED_MAX_POINTS:
                self._disconnect(window, "rejects_messages")
            else:
                self._send_next(window)
                self._call_if_idle(window)
            return True

    def drain(self, window: DeliveryWindow, on_idle: Callable[[], None]) -> None:
        """At shutdown, call ``on_idle`` when nothing is in flight to or from this guest; once or more. Any thread."""
        with self._lock:
            window.on_idle = on_idle
            self._call_if_idle(window)

    # --- the watcher ---

    def check_deadlines(self) -> None:
        """Fail the acks and disconnect the guests whose deadline has passed. For the watcher."""
        now = self._clock()
        with self._lock:
            for key in list(takewhile(lambda key: self._deadlines[key] <= now, self._deadlines)):
                if isinstance(key, Ack):
                    self._complete(key, None)
                else:
                    self._disconnect(key, "ack_timeout")

    def _run(self) -> None:
        try:
            while not self._stopping:  # read again under the lock before each sleep
                self.check_deadlines()
                with self._lock:
                    self._sleep()
        finally:
            with self._lock:
                self._watcher_ended = True
                for window in self._windows.values():
                    if window.ack is not None:
                        self._complete(window.ack, None)

    def _sleep(self) -> None:
        """Sleep until the first deadline or a notification. The lock is held."""
        if not self._stopping:
            first = next(iter(self._deadlines.values()), None)
            self._watcher_is_idle = first is None
            self._changed.wait(None if first is None else first - self._clock())
            self._watcher_is_idle = False

    # --- the lock is held ---

    def _queue(self, windows: Sequence[DeliveryWindow], messages: Iterable[Message], ack: Ack | None) -> None:
        """Queue the messages in these windows; send to the idle ones, and disconnect guests that lag too far."""
        if ack is not None and ack.is_complete:  # the sender left before the commit
            ack = None
        if not windows and ack is None:
            return
        entries = [(message, ack) for message in messages]
        if ack is not None:
            ack.acks_expected = len(windows)
            if windows:
                self._add_deadline(ack)
            else:
                self._complete(ack, entries[0][0].id)
        size_bytes = sum(_size_bytes(message) for message, _ in entries)
        for window in windows:
            window.queue.extend(entries)
            window.queued_bytes += size_bytes
            if ack is not None:
                window.awaited.add(ack)
            if window.queued_bytes > self._lag_max_bytes:
                self._disconnect(window, "lagging")
            elif window.in_flight is None:
                self._send_next(window)

    def _send_next(self, window: DeliveryWindow) -> None:
        """Send the next part of the message in flight, or of the next message. No part waits for an answer."""
        if not window.parts:
            if window.state is not WindowState.OPEN or not window.queue:
                return
            window.in_flight = message, _ = window.queue.popleft()
            window.queued_bytes -= _size_bytes(message)
            window.parts = self._split(message)
        part, *window.parts = window.parts
        self._add_deadline(window)
        window.send_queue.put([part])

    def _disconnect(self, window: DeliveryWindow, reason: str) -> None:
        """Disconnect the guest. The reader of this connection sees the end and closes the other connection."""
        self._close(window)
        _log.warning("disconnected", reason=reason, user=window.guest.name)
        window.send_queue.finish(hang_up=True)
        self._call_if_idle(window)

    def _close(self, window: DeliveryWindow) -> None:
        """Close the window; fail the guest's own ack and the acks of undelivered messages."""
        if window.state is WindowState.CLOSED:
            return
        window.state = WindowState.CLOSED
        del self._windows[window.guest.id]
        self._deadlines.pop(window, None)
        for ack in [*window.awaited, window.ack]:
            if ack is not None:
                self._complete(ack, None)
        window.awaited.clear()
        # The queue is freed with the window and not under the locks: a full one takes 5 ms.
        window.in_flight, window.parts, window.queued_bytes = None, (), 0

    def _call_if_idle(self, window: DeliveryWindow) -> None:
        """Call ``on_idle`` if it is set and nothing is in flight."""
        has_undelivered = window.state is not WindowState.CLOSED and (window.in_flight or window.queue)
        if window.on_idle is not None and window.ack is None and not has_undelivered:
            window.on_idle()

    def _complete(self, ack: Ack, message_id: int | None) -> None:
        self._deadlines.pop(ack, None)
        if not ack.is_complete:
            ack.message_id = message_id
            ack.completed.set()

    def _add_deadline(self, key: DeliveryWindow | Ack) -> None:
        """Append a deadline, later than all others."""
        self._deadlines[key] = self._clock() + self._ack_seconds
        if self._watcher_is_idle:
            self._watcher_is_idle = False
            self._changed.notify()


def _size_bytes(message: Message) -> int:
    text = message.text
    return _MESSAGE_BYTES + (len(text) if text.isascii() else len(text.encode()))
