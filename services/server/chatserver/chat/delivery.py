"""The mailroom: for users who are given one message at a time, and say that they got it before the next one comes."""

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

    from chatprotocol.events import Event, Message, Run
    from chatserver.chat.member import SendQueue

_log = structlog.get_logger()

# So long a user has for saying that a message has come; and so long a sender waits for everybody to have said so.
ANSWER_SECONDS = 5.0
# Of a letter beside its text.
_DELIVERY_BYTES = 100


class Ack:
    """What a sender waits for: the answers of all to whom a message is delivered here.

    Everything but :meth:`wait` is the mailroom's, under its lock.
    """

    __slots__ = ("_settled", "answers_due", "has_failed", "is_stored_only")

    def __init__(self) -> None:
        self._settled = threading.Event()
        self.answers_due = 0
        self.has_failed = False
        # The recipient of a direct message is not online.
        self.is_stored_only = False

    def wait(self) -> bool:
        """Has everybody got it? It takes as long as the disk does, and ANSWER_SECONDS at most behind that."""
        self._settled.wait()
        return not self.has_failed

    @property
    def is_complete(self) -> bool:
        """Is there nothing more to wait for?"""
        return self._settled.is_set()

    def complete(self) -> None:
        """There is nothing more to wait for."""
        self._settled.set()


class Delivery(Struct, gc=False, eq=False):
    """One message on its way: to one user, or to all who are here but its sender."""

    # What is given out, one after the other; usually the message as it is, else its parts.
    parts: Sequence[Message]
    size_bytes: int
    # None: to everybody but ``sender``, which is None where that is none of ours.
    to: DeliveryWindow | None = None
    sender: DeliveryWindow | None = None
    ack: Ack | None = None
    # Of one to everybody, its position, once it has one, and the bytes of all before it. One to a user comes before the
    # one to everybody at that position.
    position: int = -1
    offset_bytes: int = 0


class DeliveryWindow:
    """What one user is still to be given: the public letters from a position on, and those to this user alone.

    Everything in it is the mailroom's, under its lock, but :attr:`stream`. As a follower it is for the feed; what it is
    told of its own messages goes into a receipt.
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
        "on_part",
        "own_bytes",
        "parts_given",
        "position",
        "send_queue",
    )

    def __init__(self, acked_delivery: AckedDelivery, send_queue: SendQueue, name: str) -> None:
        """``outbox`` is of the connection that messages go to."""
        self.broadcast = acked_delivery
        self.send_queue = send_queue
        self.name = name
        self.position = 0
        # Of the user's own letters behind that position, which it is not given.
        self.own_bytes = 0
        self.direct: deque[Delivery] = deque()
        self.direct_bytes = 0
        # The one that was given out, until all of its parts are answered; and how many of them were given out.
        self.in_flight: Delivery | None = None
        self.parts_given = 0
        # Of the message that the user has sent and that has no answer yet.
        self.ack: Ack | None = None
        self.is_open = False
        self.is_held = True
        # To be called once nothing is under way to the user or from it; None while it need not go.
        self.on_part: Callable[[], None] | None = None

    # --- for the feed, under its lock ---

    def follow(self) -> None:
        """Take letters from here on; none is given out until :meth:`Mailroom.release`."""
        self.broadcast.open(self)

    def unfollow(self) -> None:
        """Take no more, and give out no more."""
        self.broadcast.close(self)

    def insert(self, _: int, __: int, events: Sequence[Event | Run], /) -> None:
        """One's own messages are left out by the mailroom; the rest comes as a letter, or goes into the receipt."""
        for event in events:
            self.broadcast.tell(self, event)

    def track(self, _: int, __: Callable[[int], None]) -> None:
        """A guest acknowledges each message itself, and nothing waits for one who is away."""

    def check_acknowledged(self) -> None:
        """Nothing is tracked here."""


class AckedDelivery:
    """All mailboxes. To the feed it is a stream that they follow, without positions: letters know whom they are for.

    No thread waits here but a sender for its receipt. A watcher notices who does not answer, and disconnects.
    """

    # For the feed.
    tail = 0

    def __init__(
        self,
        lag_max_bytes: int,
        on_crash: Callable[[str], None],
        split: Callable[[Message], Sequence[Message]] = lambda message: (message,),
    ) -> None:
        """``split`` makes a message into the parts in which it is given out."""
        self._lag_max_bytes = lag_max_bytes
        self._split = split
        self._worker = Worker("delivery", self._run, on_crash)
        # Guards everything below, and what is in mailboxes, letters and receipts. Taken behind the feed's lock.
        self._lock = threading.Lock()
        self._windows: set[DeliveryWindow] = set()
        # Not shown yet.
        self._staged: list[Delivery] = []
        # Those to everybody which somebody was not given yet, the first one's position, and the bytes of all ever.
        self._deliveries: list[Delivery] = []
        self._first = 0
        self._total_bytes = 0
        # What senders wait for, each with its letter.
        self._unsettled: dict[Ack, Delivery] = {}
        # Whose answer is due, and when: a user's, and all of them for a receipt. The first is due first.
        self._due: dict[DeliveryWindow | Ack, float] = {}
        self._answer_seconds = ANSWER_SECONDS
        # Who is to be disconnected, and why.
        self._unwanted: list[tuple[DeliveryWindow, str]] = []
        self._changed = threading.Condition(self._lock)
        self._watcher_sleeps = False
        self._stopping = False
        # The watcher has ended: nobody may wait for what it would notice.
        self._abandoned = False

    def start(self) -> None:
        """Start to watch."""
        self._worker.start()

    def stop(self) -> None:
        """Watch no more, and wait for the thread's end."""
        with self._lock:
            self._stopping = True
            self._changed.notify()
        self._worker.join()

    def hurry(self, answer_seconds: float) -> None:
        """The server ends: wait for no answer any longer than this."""
        latest = time.monotonic() + answer_seconds
        with self._lock:
            self._answer_seconds = answer_seconds
            self._due = {whose: min(due, latest) for whose, due in self._due.items()}
            for window in self._windows:
                # Should the journal have died, nothing more will be heard of what was posted.
                if window.ack is not None and not window.ack.is_complete:
                    self._due.setdefault(window.ack, latest)
            self._changed.notify()

    # --- for the feed, under its lock: a stream ---

    @property
    def followed(self) -> bool:
        """Is anybody here?"""
        return bool(self._windows)

    def append(self, events: Sequence[Event | Run]) -> tuple[int, int]:
        """A letter for each public message, unseen until :meth:`show`. Users here are told of nothing else."""
        runs = [event for event in events if isinstance(event, PublicBatch)]
        deliveries = [self._delivery(message) for run in runs for message in run]
        with self._lock:
            self._staged += deliveries
        return self.tail, self.tail

    def flush(self) -> None:
        """Put every letter where it belongs, and give out what can be."""
        with self._lock:
            deliveries, self._staged = self._staged, []
            for delivery in deliveries:
                self._put(delivery)
            given = [(window, self._next(window)) for window in self._windows if not self._is_lagging(window)]
            self._forget_deliveries()
        for window, due in given:
            _give_out(window, due)

    def wait_for_sender(self, ahead_max_bytes: int = 0, limit_seconds: float | None = None) -> None:
        """Nobody waits for those who are given one message at a time."""

    # --- for mailboxes, under the feed's lock ---

    def open(self, window: DeliveryWindow) -> None:
        """One more is here."""
        with self._lock:
            window.is_open = True
            window.position = self._end
            self._windows.add(window)

    def close(self, window: DeliveryWindow) -> None:
        """One is here no more: what it was not given, it will not get, and its senders are told so."""
        with self._lock:
            self._windows.discard(window)
            self._clear(window)

    def tell(self, window: DeliveryWindow, event: Event | Run) -> None:
        """What the feed says to one user: a message to it, or what became of its own."""
        with self._lock:
            match event:
                case DirectMessage():
                    self._staged.append(self._delivery(event, to=window))
                case SentBatch() | Sent():
                    self._confirm(window, event)
                case Refused():
                    self._fail(window.ack)

    # --- for the readers of a user's two connections ---

    def release(self, window: DeliveryWindow) -> None:
        """Begin to give out letters."""
        with self._lock:
            window.is_held = False
            part = self._next(window)
        _give_out(window, part)

    def expect(self, window: DeliveryWindow) -> Ack:
        """The user is about to post a message: its receipt, failed already if the user is here no more.

        When the sender has its answer, call :meth:`forget_receipt`.
        """
        with self._lock:
            window.ack = Ack()
            if self._abandoned or not window.is_open:
                self._fail(window.ack)
            return window.ack

    def forget_ack(self, window: DeliveryWindow) -> None:
        """The sender has its answer."""
        with self._lock:
            window.ack = None
        self._part_if_idle(window)

    def take_answer(self, window: DeliveryWindow, sender: str | None) -> bool:
        """The user has what this sender said, or (None) could not read it. False: it was given no such message."""
        with self._lock:
            answered = window.in_flight
            if answered is None or (sender and name_key(sender) != name_key(answered.parts[0].sender)):
                return False
            del self._due[window]
            if sender is not None and window.parts_given < len(answered.parts):
                part: Message | None = self._next_part(window, answered)
            else:  # one part that could not be read is a message that has not come
                window.in_flight = None
                self._note_answer(answered, has_come=sender is not None)
                part = self._next(window)
        _give_out(window, part)
        self._part_if_idle(window)
        return True

    def drain(self, window: DeliveryWindow, on_part: Callable[[], None]) -> None:
        """The server ends: call ``on_part`` when nothing is under way to or from this user. For any thread."""
        with self._lock:
            window.on_part = on_part
        self._part_if_idle(window)

    def _part_if_idle(self, window: DeliveryWindow) -> None:
        """Let a user go who is to go, once nothing is under way to it or from it."""
        if window.on_part is None:
            return
        with self._lock:
            is_idle = window.in_flight is None and window.ack is None and not self._lag_bytes(window)
        if is_idle:
            window.on_part()

    # --- letters: the lock is held ---

    @property
    def _end(self) -> int:
        """Where the next letter to everybody will be. Locked."""
        return self._first + len(self._deliveries)

    def _put(self, delivery: Delivery) -> None:
        """Where it is for everybody, or where it is for one. Locked."""
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
            ack.answers_due = sum(window.is_open for window in addressed)
            if not ack.answers_due:
                self._settle(ack, has_failed=delivery.to is not None)

    def _delivery(self, message: Message, to: DeliveryWindow | None = None) -> Delivery:
        parts = self._split(message)
        return Delivery(parts, sum(_size_bytes(part.text) for part in parts), to)

    def _next(self, window: DeliveryWindow) -> Message | None:
        """What can be given out now of the next letter, if there is one. Locked."""
        if window.is_held or window.in_flight is not None or not window.is_open:
            return None
        window.in_flight = delivery = self._take(window)
        window.parts_given = 0
        return self._next_part(window, delivery) if delivery is not None else None

    def _next_part(self, window: DeliveryWindow, delivery: Delivery) -> Message:
        """Locked."""
        window.parts_given += 1
        self._note_due(window)
        return delivery.parts[window.parts_given - 1]

    def _take(self, window: DeliveryWindow) -> Delivery | None:
        """The first letter that the user was not given; its own are passed over. Locked."""
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
        """How far the user is behind. Locked."""
        if not window.is_open:
            return 0
        if window.position == self._end:
            return window.direct_bytes
        first = self._deliveries[window.position - self._first]
        return self._total_bytes - first.offset_bytes - window.own_bytes + window.direct_bytes

    def _is_lagging(self, window: DeliveryWindow) -> bool:
        """Is the user too far behind? Then it is to be disconnected. Locked."""
        if self._lag_bytes(window) <= self._lag_max_bytes:
            return False
        self._give_up(window, "it reads too slowly")
        return True

    def _forget_deliveries(self) -> None:
        """Those that everybody was given; not before that is half of all, so that it costs little. Locked."""
        needed = min((window.position for window in self._windows if window.is_open), default=self._end)
        if 2 * (needed - self._first) >= len(self._deliveries):
            del self._deliveries[: needed - self._first]
            self._first = needed

    def _clear(self, window: DeliveryWindow) -> None:
        """It takes no more letters; those that it has do not come, nor any answer to its own. Locked."""
        if not window.is_open:
            return
        window.is_open = False
        self._due.pop(window, None)
        # It may be behind by many letters; few of them have a sender who waits.
        for ack, delivery in [*self._unsettled.items()]:
            is_to_come = delivery.to is None and delivery.position >= window.position and delivery.sender is not window
            if is_to_come or delivery is window.in_flight or delivery.to is window:
                self._fail(ack)
        window.in_flight = None
        window.direct.clear()
        window.direct_bytes = window.own_bytes = 0
        window.position = self._end
        self._fail(window.ack)

    # --- receipts: the lock is held ---

    def _confirm(self, sender: DeliveryWindow, confirmed: Sent | SentBatch) -> None:
        """The sender's message is on the disk, and among what is hidden if it is for somebody here. Locked."""
        ack = sender.ack
        if ack is None or ack.is_complete:
            return
        ack.is_stored_only = isinstance(confirmed, Sent) and confirmed.status is SentStatus.STORED
        if not self._staged or self._staged[-1].parts[0].id != confirmed.id:
            self._settle(ack)
            return
        delivery = self._staged[-1]
        delivery.sender, delivery.ack = sender, ack
        self._unsettled[ack] = delivery
        self._note_due(ack)

    def _note_answer(self, delivery: Delivery, *, has_come: bool) -> None:
        """One of those who the letter is for has answered, or never will. Locked."""
        ack = delivery.ack
        if ack is None:
            return
        ack.answers_due -= 1
        if not has_come or ack.answers_due == 0:
            self._settle(ack, has_failed=not has_come)

    def _fail(self, ack: Ack | None) -> None:
        """Locked."""
        if ack is not None:
            self._settle(ack, has_failed=True)

    def _settle(self, ack: Ack, *, has_failed: bool = False) -> None:
        """The first outcome counts. Locked."""
        self._due.pop(ack, None)
        self._unsettled.pop(ack, None)
        if not ack.is_complete:
            ack.has_failed = has_failed
            ack.complete()

    def _note_due(self, whose: DeliveryWindow | Ack) -> None:
        """Its answer is due, later than all the others. Locked."""
        self._due[whose] = time.monotonic() + self._answer_seconds
        if self._watcher_sleeps:
            self._changed.notify()

    def _give_up(self, window: DeliveryWindow, reason: str) -> None:
        """Give it nothing more, and let the watcher disconnect it. Locked."""
        self._clear(window)
        self._unwanted.append((window, reason))
        self._changed.notify()

    # --- the watcher ---

    def _run(self) -> None:
        try:
            self._watch()
        finally:
            with self._lock:
                self._abandoned = True
                for window in self._windows:
                    self._fail(window.ack)

    def _watch(self) -> None:
        while not self._stopping:
            with self._lock:
                self._give_up_late(time.monotonic())
                unwanted, self._unwanted = self._unwanted, []
                if not unwanted:
                    self._sleep()
            for window, reason in unwanted:
                # The reader of its connection sees the end, and closes the other one.
                _log.warning(f"Disconnected: {reason}", user=window.name)
                window.send_queue.finish(hang_up=True)
                self._part_if_idle(window)

    def _sleep(self) -> None:
        """Until somebody's answer is due, or somebody wakes it. Locked.

        Without anybody whose answer is due it sleeps until there is one; whoever comes behind the first is due later.
        """
        if self._stopping:
            return
        first = next(iter(self._due.values()), None)
        self._watcher_sleeps = first is None
        self._changed.wait(None if first is None else first - time.monotonic())
        self._watcher_sleeps = False

    def _give_up_late(self, now: float) -> None:
        """Those who should have answered by now. A receipt fails then, too. Locked."""
        for whose in list(takewhile(lambda each: self._due[each] <= now, self._due)):
            if isinstance(whose, Ack):
                self._fail(whose)
            elif whose.is_open:
                self._give_up(whose, f"it did not answer a message within {self._answer_seconds:g} s")


def _give_out(window: DeliveryWindow, part: Message | None) -> None:
    if part is not None:
        window.send_queue.put([part])


def _size_bytes(text: str) -> int:
    return _DELIVERY_BYTES + (len(text) if text.isascii() else len(text.encode()))
