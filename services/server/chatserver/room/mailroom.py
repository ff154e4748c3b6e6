"""The mailroom: for users who are given one message at a time, and say that they got it before the next one comes."""

from __future__ import annotations

import threading
import time
from collections import deque
from itertools import takewhile
from typing import TYPE_CHECKING

import structlog
from msgspec import Struct

from chatprotocol.events import DirectMessage, PublicRun, Refused, Sent, SentRun, SentStatus
from chatprotocol.rules import name_key
from chatserver.threads import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from chatprotocol.events import Event, Message, Run
    from chatserver.room.seat import Outbox

_log = structlog.get_logger()

# So long a user has for saying that a message has come; and so long a sender waits for everybody to have said so.
ANSWER_SECONDS = 5.0
# Of a letter beside its text.
_LETTER_BYTES = 100


class Receipt:
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
    def is_settled(self) -> bool:
        """Is there nothing more to wait for?"""
        return self._settled.is_set()

    def settle(self) -> None:
        """There is nothing more to wait for."""
        self._settled.set()


class Letter(Struct, gc=False, eq=False):
    """One message on its way to one user, or to all who are here but its sender."""

    message: Message
    size_bytes: int
    # None: for everybody but ``sender``, which is None where that is none of ours.
    to: Mailbox | None = None
    sender: Mailbox | None = None
    receipt: Receipt | None = None


class Mailbox:
    """What one user is still to be given. Everything in it is the mailroom's, under its lock, but :attr:`stream`.

    As a follower it is for the feed; what it is told of its own messages goes into a receipt.
    """

    __slots__ = (
        "awaited",
        "is_held",
        "is_open",
        "is_parting",
        "letters",
        "name",
        "on_part",
        "outbox",
        "receipt",
        "size_bytes",
        "stream",
    )

    def __init__(self, mailroom: Mailroom, outbox: Outbox, name: str, on_part: Callable[[], None]) -> None:
        """``outbox`` is of the connection that messages go to. ``on_part``: the last was answered, the user can go."""
        self.stream = mailroom
        self.outbox = outbox
        self.name = name
        self.on_part = on_part
        self.letters: deque[Letter] = deque()
        self.size_bytes = 0
        # The one that was given out, until it is answered.
        self.awaited: Letter | None = None
        # Of the message that the user has sent and that has no answer yet.
        self.receipt: Receipt | None = None
        self.is_open = False
        self.is_held = True
        self.is_parting = False

    # --- for the feed, under its lock ---

    def follow(self) -> None:
        """Take letters from here on; none is given out until :meth:`Mailroom.release`."""
        self.stream.open(self)

    def unfollow(self) -> None:
        """Take no more, and give out no more."""
        self.stream.close(self)

    def splice(self, _: int, __: int, events: Sequence[Event | Run], /) -> None:
        """One's own messages are left out by the mailroom; the rest comes as a letter, or goes into the receipt."""
        for event in events:
            self.stream.tell(self, event)


class Mailroom:
    """All mailboxes: to the feed a stream that they follow, whose positions count letters.

    No thread waits here but a sender for its receipt. A watcher notices who does not answer.
    """

    def __init__(self, lag_max_bytes: int, on_crash: Callable[[str], None]) -> None:
        self._lag_max_bytes = lag_max_bytes
        self._worker = Worker("mailroom", self._watch, on_crash)
        # Guards everything below, and what is in mailboxes, letters and receipts. Taken behind the feed's lock.
        self._lock = threading.Lock()
        self._mailboxes: set[Mailbox] = set()
        # Not shown yet.
        self._hidden: list[Letter] = []
        self._tail = 0
        # Whose answer is due, and when: a user's, and all of them for a receipt. The first is due first.
        self._due: dict[Mailbox | Receipt, float] = {}
        self._answer_seconds = ANSWER_SECONDS
        self._changed = threading.Condition(self._lock)
        self._watcher_sleeps = False
        self._stopping = False

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
            for mailbox in self._mailboxes:
                # Should the journal have died, nothing more will be heard of what was posted.
                if mailbox.receipt is not None and not mailbox.receipt.is_settled:
                    self._due.setdefault(mailbox.receipt, latest)
            self._changed.notify()

    # --- for the feed, under its lock: a stream ---

    @property
    def followed(self) -> bool:
        """Is anybody here?"""
        return bool(self._mailboxes)

    @property
    def tail(self) -> int:
        """Where the next letter will be."""
        return self._tail

    def append(self, events: Sequence[Event | Run]) -> tuple[int, int]:
        """A letter for each public message, unseen until :meth:`show`. Users here are told of nothing else."""
        runs = [event for event in events if isinstance(event, PublicRun)]
        letters = [Letter(message, _size_bytes(message.text)) for run in runs for message in run]
        with self._lock:
            start = self._tail
            self._hidden += letters
            self._tail += len(letters)
        return start, start + len(letters)

    def show(self) -> None:
        """Put every letter where it belongs, and give out what can be."""
        with self._lock:
            letters, self._hidden = self._hidden, []
            targets = {mailbox for letter in letters for mailbox in self._put(letter)}
            lagging = [mailbox for mailbox in targets if mailbox.size_bytes > self._lag_max_bytes]
            for mailbox in lagging:
                self._clear(mailbox)
            given = [(mailbox, self._next(mailbox)) for mailbox in targets]
        for mailbox in lagging:
            self._disconnect(mailbox, "it reads too slowly", limit_bytes=self._lag_max_bytes)
        for mailbox, letter in given:
            _give_out(mailbox, letter)

    def wait_for_courier(self, ahead_max_bytes: int = 0, limit_seconds: float | None = None) -> None:
        """Nobody waits for those who are given one message at a time."""

    # --- for mailboxes, under the feed's lock ---

    def open(self, mailbox: Mailbox) -> None:
        """One more is here."""
        with self._lock:
            mailbox.is_open = True
            self._mailboxes.add(mailbox)

    def close(self, mailbox: Mailbox) -> None:
        """One is here no more: what it was not given, it will not get, and its senders are told so."""
        with self._lock:
            self._mailboxes.discard(mailbox)
            self._clear(mailbox)

    def tell(self, mailbox: Mailbox, event: Event | Run) -> None:
        """What the feed says to one user: a message to it, or what became of its own."""
        with self._lock:
            match event:
                case DirectMessage(text=text):
                    self._hidden.append(Letter(event, _size_bytes(text), to=mailbox))
                    self._tail += 1
                case SentRun() | Sent():
                    self._confirm(mailbox, event)
                case Refused():
                    self._fail(mailbox.receipt)

    # --- for the readers of a user's two connections ---

    def release(self, mailbox: Mailbox) -> None:
        """Begin to give out letters."""
        with self._lock:
            mailbox.is_held = False
            letter = self._next(mailbox)
        _give_out(mailbox, letter)

    def expect(self, mailbox: Mailbox) -> Receipt:
        """The user is about to post a message: its receipt. When it is answered, call :meth:`forget_receipt`."""
        with self._lock:
            mailbox.receipt = Receipt()
            if not mailbox.is_open:
                self._fail(mailbox.receipt)
            return mailbox.receipt

    def forget_receipt(self, mailbox: Mailbox) -> None:
        """The sender has its answer."""
        with self._lock:
            mailbox.receipt = None
        self._part_if_idle(mailbox)

    def take_answer(self, mailbox: Mailbox, sender: str | None) -> bool:
        """The user has the message of this sender, or (None) could not read it. False: it was given no such message."""
        with self._lock:
            letter = mailbox.awaited
            if letter is None or (sender and name_key(sender) != name_key(letter.message.sender)):
                return False
            mailbox.awaited = None
            self._due.pop(mailbox, None)
            self._note_answer(letter, has_come=sender is not None)
            letter = self._next(mailbox)
        _give_out(mailbox, letter)
        self._part_if_idle(mailbox)
        return True

    def part(self, mailbox: Mailbox) -> None:
        """The server ends: call ``on_part`` when nothing is under way to or from this user. For any thread."""
        with self._lock:
            mailbox.is_parting = True
        self._part_if_idle(mailbox)

    def _part_if_idle(self, mailbox: Mailbox) -> None:
        """Let a user go who is to go, once nothing is under way to it or from it."""
        if not mailbox.is_parting:
            return
        with self._lock:
            is_idle = not mailbox.awaited and not mailbox.letters and mailbox.receipt is None
        if is_idle:
            mailbox.on_part()

    # --- the lock is held ---

    def _put(self, letter: Letter) -> list[Mailbox]:
        """Into the mailboxes that it is for; returns those. Locked."""
        addressed = self._mailboxes if letter.to is None else {letter.to}
        targets = [each for each in addressed if each.is_open and (letter.to or each is not letter.sender)]
        for mailbox in targets:
            mailbox.letters.append(letter)
            mailbox.size_bytes += letter.size_bytes
        receipt = letter.receipt
        if receipt is not None:
            receipt.answers_due = len(targets)
            if letter.to is not None and not targets:
                self._fail(receipt)
            elif not targets:
                self._settle(receipt)
        return targets

    def _next(self, mailbox: Mailbox) -> Letter | None:
        """The letter that can be given out now, if there is one. Locked."""
        if mailbox.is_held or mailbox.awaited is not None or not mailbox.letters:
            return None
        mailbox.awaited = letter = mailbox.letters.popleft()
        mailbox.size_bytes -= letter.size_bytes
        self._note_due(mailbox)
        return letter

    def _confirm(self, sender: Mailbox, confirmed: Sent | SentRun) -> None:
        """The sender's message is on the disk, and among what is hidden if it is for somebody here. Locked."""
        receipt = sender.receipt
        if receipt is None:
            return
        letters = list(takewhile(lambda letter: letter.message.id >= confirmed.id, reversed(self._hidden)))
        for letter in letters:
            letter.sender, letter.receipt = sender, receipt
        receipt.is_stored_only = isinstance(confirmed, Sent) and confirmed.status is SentStatus.STORED
        self._note_due(receipt)
        if not letters:
            self._settle(receipt)

    def _note_answer(self, letter: Letter, *, has_come: bool) -> None:
        """One of those who the letter is for has answered, or never will. Locked."""
        receipt = letter.receipt
        if receipt is None:
            return
        receipt.answers_due -= 1
        if not has_come:
            self._fail(receipt)
        elif receipt.answers_due == 0:
            self._settle(receipt)

    def _fail(self, receipt: Receipt | None) -> None:
        """Locked."""
        if receipt is not None:
            receipt.has_failed = True
            self._settle(receipt)

    def _settle(self, receipt: Receipt) -> None:
        """Locked."""
        self._due.pop(receipt, None)
        receipt.settle()

    def _clear(self, mailbox: Mailbox) -> None:
        """It takes no more letters; those that it has do not come, nor any answer to its own. Locked."""
        mailbox.is_open = False
        self._due.pop(mailbox, None)
        left = [mailbox.awaited] if mailbox.awaited is not None else []
        for letter in [*left, *mailbox.letters]:
            self._note_answer(letter, has_come=False)
        mailbox.awaited = None
        mailbox.letters.clear()
        mailbox.size_bytes = 0
        self._fail(mailbox.receipt)

    def _note_due(self, whose: Mailbox | Receipt) -> None:
        """Its answer is due, later than all the others. Locked."""
        self._due[whose] = time.monotonic() + self._answer_seconds
        if self._watcher_sleeps:
            self._changed.notify()

    # --- the watcher ---

    def _watch(self) -> None:
        while True:
            with self._lock:
                self._sleep()
                if self._stopping:
                    return
                late = self._take_late(time.monotonic())
            for mailbox in late:
                self._disconnect(mailbox, f"it did not answer a message within {self._answer_seconds:g} s")

    def _sleep(self) -> None:
        """Until somebody's answer is due, or somebody wakes it. Locked.

        Without anybody whose answer is due it sleeps until there is one; whoever comes behind the first is due later.
        """
        first = next(iter(self._due.values()), None)
        self._watcher_sleeps = first is None
        if not self._stopping:
            self._changed.wait(None if first is None else first - time.monotonic())
        self._watcher_sleeps = False

    def _take_late(self, now: float) -> list[Mailbox]:
        """Who should have answered by now. For receipts that is the end, too. Locked."""
        late = list(takewhile(lambda whose: self._due[whose] <= now, self._due))
        for whose in late:
            self._due.pop(whose, None)  # those who are late may have been the last that a receipt waits for
            if isinstance(whose, Receipt):
                self._fail(whose)
            else:
                self._clear(whose)
        return [whose for whose in late if isinstance(whose, Mailbox)]

    def _disconnect(self, mailbox: Mailbox, reason: str, **more: object) -> None:
        """The reader of its connection sees the end, and closes the other one."""
        _log.warning(f"Disconnected: {reason}", user=mailbox.name, **more)
        mailbox.outbox.finish(hang_up=True)
        self._part_if_idle(mailbox)


def _give_out(mailbox: Mailbox, letter: Letter | None) -> None:
    if letter is not None:
        mailbox.outbox.put([letter.message])


def _size_bytes(text: str) -> int:
    return _LETTER_BYTES + (len(text) if text.isascii() else len(text.encode()))
