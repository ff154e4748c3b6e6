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
    def is_complete(self) -> bool:
        """Is there nothing more to wait for?"""
        return self._settled.is_set()

    def complete(self) -> None:
        """There is nothing more to wait for."""
        self._settled.set()


class Letter(Struct, gc=False, eq=False):
    """One message on its way: to one user, or to all who are here but its sender."""

    # What is given out, one after the other; usually the message as it is, else its parts.
    parts: Sequence[Message]
    size_bytes: int
    # None: to everybody but ``sender``, which is None where that is none of ours.
    to: Mailbox | None = None
    sender: Mailbox | None = None
    receipt: Receipt | None = None
    # Of one to everybody, its position, once it has one, and the bytes of all before it. One to a user comes before the
    # one to everybody at that position.
    position: int = -1
    offset_bytes: int = 0


class Mailbox:
    """What one user is still to be given: the public letters from a position on, and those to this user alone.

    Everything in it is the mailroom's, under its lock, but :attr:`stream`. As a follower it is for the feed; what it is
    told of its own messages goes into a receipt.
    """

    __slots__ = (
        "direct",
        "direct_bytes",
        "in_flight",
        "is_held",
        "is_open",
        "name",
        "on_part",
        "outbox",
        "own_bytes",
        "parts_given",
        "position",
        "receipt",
        "stream",
    )

    def __init__(self, mailroom: Mailroom, outbox: Outbox, name: str) -> None:
        """``outbox`` is of the connection that messages go to."""
        self.stream = mailroom
        self.outbox = outbox
        self.name = name
        self.position = 0
        # Of the user's own letters behind that position, which it is not given.
        self.own_bytes = 0
        self.direct: deque[Letter] = deque()
        self.direct_bytes = 0
        # The one that was given out, until all of its parts are answered; and how many of them were given out.
        self.in_flight: Letter | None = None
        self.parts_given = 0
        # Of the message that the user has sent and that has no answer yet.
        self.receipt: Receipt | None = None
        self.is_open = False
        self.is_held = True
        # To be called once nothing is under way to the user or from it; None while it need not go.
        self.on_part: Callable[[], None] | None = None

    # --- for the feed, under its lock ---

    def follow(self) -> None:
        """Take letters from here on; none is given out until :meth:`Mailroom.release`."""
        self.stream.open(self)

    def unfollow(self) -> None:
        """Take no more, and give out no more."""
        self.stream.close(self)

    def insert(self, _: int, __: int, events: Sequence[Event | Run], /) -> None:
        """One's own messages are left out by the mailroom; the rest comes as a letter, or goes into the receipt."""
        for event in events:
            self.stream.tell(self, event)

    def track(self, _: int, __: Callable[[int], None]) -> None:
        """A guest acknowledges each message itself, and nothing waits for one who is away."""

    def check_acknowledged(self) -> None:
        """Nothing is tracked here."""


class Mailroom:
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
        self._worker = Worker("mailroom", self._run, on_crash)
        # Guards everything below, and what is in mailboxes, letters and receipts. Taken behind the feed's lock.
        self._lock = threading.Lock()
        self._mailboxes: set[Mailbox] = set()
        # Not shown yet.
        self._hidden: list[Letter] = []
        # Those to everybody which somebody was not given yet, the first one's position, and the bytes of all ever.
        self._letters: list[Letter] = []
        self._first = 0
        self._total_bytes = 0
        # What senders wait for, each with its letter.
        self._unsettled: dict[Receipt, Letter] = {}
        # Whose answer is due, and when: a user's, and all of them for a receipt. The first is due first.
        self._due: dict[Mailbox | Receipt, float] = {}
        self._answer_seconds = ANSWER_SECONDS
        # Who is to be disconnected, and why.
        self._unwanted: list[tuple[Mailbox, str]] = []
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
            for mailbox in self._mailboxes:
                # Should the journal have died, nothing more will be heard of what was posted.
                if mailbox.receipt is not None and not mailbox.receipt.is_complete:
                    self._due.setdefault(mailbox.receipt, latest)
            self._changed.notify()

    # --- for the feed, under its lock: a stream ---

    @property
    def followed(self) -> bool:
        """Is anybody here?"""
        return bool(self._mailboxes)

    def append(self, events: Sequence[Event | Run]) -> tuple[int, int]:
        """A letter for each public message, unseen until :meth:`show`. Users here are told of nothing else."""
        runs = [event for event in events if isinstance(event, PublicRun)]
        letters = [self._letter(message) for run in runs for message in run]
        with self._lock:
            self._hidden += letters
        return self.tail, self.tail

    def flush(self) -> None:
        """Put every letter where it belongs, and give out what can be."""
        with self._lock:
            letters, self._hidden = self._hidden, []
            for letter in letters:
                self._put(letter)
            given = [(mailbox, self._next(mailbox)) for mailbox in self._mailboxes if not self._is_lagging(mailbox)]
            self._forget_letters()
        for mailbox, due in given:
            _give_out(mailbox, due)

    def wait_for_sender(self, ahead_max_bytes: int = 0, limit_seconds: float | None = None) -> None:
        """Nobody waits for those who are given one message at a time."""

    # --- for mailboxes, under the feed's lock ---

    def open(self, mailbox: Mailbox) -> None:
        """One more is here."""
        with self._lock:
            mailbox.is_open = True
            mailbox.position = self._end
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
                case DirectMessage():
                    self._hidden.append(self._letter(event, to=mailbox))
                case SentRun() | Sent():
                    self._confirm(mailbox, event)
                case Refused():
                    self._fail(mailbox.receipt)

    # --- for the readers of a user's two connections ---

    def release(self, mailbox: Mailbox) -> None:
        """Begin to give out letters."""
        with self._lock:
            mailbox.is_held = False
            part = self._next(mailbox)
        _give_out(mailbox, part)

    def expect(self, mailbox: Mailbox) -> Receipt:
        """The user is about to post a message: its receipt, failed already if the user is here no more.

        When the sender has its answer, call :meth:`forget_receipt`.
        """
        with self._lock:
            mailbox.receipt = Receipt()
            if self._abandoned or not mailbox.is_open:
                self._fail(mailbox.receipt)
            return mailbox.receipt

    def forget_receipt(self, mailbox: Mailbox) -> None:
        """The sender has its answer."""
        with self._lock:
            mailbox.receipt = None
        self._part_if_idle(mailbox)

    def take_answer(self, mailbox: Mailbox, sender: str | None) -> bool:
        """The user has what this sender said, or (None) could not read it. False: it was given no such message."""
        with self._lock:
            answered = mailbox.in_flight
            if answered is None or (sender and name_key(sender) != name_key(answered.parts[0].sender)):
                return False
            del self._due[mailbox]
            if sender is not None and mailbox.parts_given < len(answered.parts):
                part: Message | None = self._next_part(mailbox, answered)
            else:  # one part that could not be read is a message that has not come
                mailbox.in_flight = None
                self._note_answer(answered, has_come=sender is not None)
                part = self._next(mailbox)
        _give_out(mailbox, part)
        self._part_if_idle(mailbox)
        return True

    def drain(self, mailbox: Mailbox, on_part: Callable[[], None]) -> None:
        """The server ends: call ``on_part`` when nothing is under way to or from this user. For any thread."""
        with self._lock:
            mailbox.on_part = on_part
        self._part_if_idle(mailbox)

    def _part_if_idle(self, mailbox: Mailbox) -> None:
        """Let a user go who is to go, once nothing is under way to it or from it."""
        if mailbox.on_part is None:
            return
        with self._lock:
            is_idle = mailbox.in_flight is None and mailbox.receipt is None and not self._lag_bytes(mailbox)
        if is_idle:
            mailbox.on_part()

    # --- letters: the lock is held ---

    @property
    def _end(self) -> int:
        """Where the next letter to everybody will be. Locked."""
        return self._first + len(self._letters)

    def _put(self, letter: Letter) -> None:
        """Where it is for everybody, or where it is for one. Locked."""
        letter.position = self._end
        if letter.to is None:
            letter.offset_bytes = self._total_bytes
            self._total_bytes += letter.size_bytes
            self._letters.append(letter)
            if letter.sender is not None and letter.sender.is_open:
                letter.sender.own_bytes += letter.size_bytes
        elif letter.to.is_open:
            letter.to.direct.append(letter)
            letter.to.direct_bytes += letter.size_bytes
        receipt = letter.receipt
        if receipt is not None:
            addressed = self._mailboxes - {letter.sender} if letter.to is None else {letter.to}
            receipt.answers_due = sum(mailbox.is_open for mailbox in addressed)
            if not receipt.answers_due:
                self._settle(receipt, has_failed=letter.to is not None)

    def _letter(self, message: Message, to: Mailbox | None = None) -> Letter:
        parts = self._split(message)
        return Letter(parts, sum(_size_bytes(part.text) for part in parts), to)

    def _next(self, mailbox: Mailbox) -> Message | None:
        """What can be given out now of the next letter, if there is one. Locked."""
        if mailbox.is_held or mailbox.in_flight is not None or not mailbox.is_open:
            return None
        mailbox.in_flight = letter = self._take(mailbox)
        mailbox.parts_given = 0
        return self._next_part(mailbox, letter) if letter is not None else None

    def _next_part(self, mailbox: Mailbox, letter: Letter) -> Message:
        """Locked."""
        mailbox.parts_given += 1
        self._note_due(mailbox)
        return letter.parts[mailbox.parts_given - 1]

    def _take(self, mailbox: Mailbox) -> Letter | None:
        """The first letter that the user was not given; its own are passed over. Locked."""
        while True:
            if mailbox.direct and mailbox.direct[0].position <= mailbox.position:
                letter = mailbox.direct.popleft()
                mailbox.direct_bytes -= letter.size_bytes
                return letter
            if mailbox.position == self._end:
                return None
            letter = self._letters[mailbox.position - self._first]
            mailbox.position += 1
            if letter.sender is not mailbox:
                return letter
            mailbox.own_bytes -= letter.size_bytes

    def _lag_bytes(self, mailbox: Mailbox) -> int:
        """How far the user is behind. Locked."""
        if not mailbox.is_open:
            return 0
        if mailbox.position == self._end:
            return mailbox.direct_bytes
        first = self._letters[mailbox.position - self._first]
        return self._total_bytes - first.offset_bytes - mailbox.own_bytes + mailbox.direct_bytes

    def _is_lagging(self, mailbox: Mailbox) -> bool:
        """Is the user too far behind? Then it is to be disconnected. Locked."""
        if self._lag_bytes(mailbox) <= self._lag_max_bytes:
            return False
        self._give_up(mailbox, "it reads too slowly")
        return True

    def _forget_letters(self) -> None:
        """Those that everybody was given; not before that is half of all, so that it costs little. Locked."""
        needed = min((mailbox.position for mailbox in self._mailboxes if mailbox.is_open), default=self._end)
        if 2 * (needed - self._first) >= len(self._letters):
            del self._letters[: needed - self._first]
            self._first = needed

    def _clear(self, mailbox: Mailbox) -> None:
        """It takes no more letters; those that it has do not come, nor any answer to its own. Locked."""
        if not mailbox.is_open:
            return
        mailbox.is_open = False
        self._due.pop(mailbox, None)
        # It may be behind by many letters; few of them have a sender who waits.
        for receipt, letter in [*self._unsettled.items()]:
            is_to_come = letter.to is None and letter.position >= mailbox.position and letter.sender is not mailbox
            if is_to_come or letter is mailbox.in_flight or letter.to is mailbox:
                self._fail(receipt)
        mailbox.in_flight = None
        mailbox.direct.clear()
        mailbox.direct_bytes = mailbox.own_bytes = 0
        mailbox.position = self._end
        self._fail(mailbox.receipt)

    # --- receipts: the lock is held ---

    def _confirm(self, sender: Mailbox, confirmed: Sent | SentRun) -> None:
        """The sender's message is on the disk, and among what is hidden if it is for somebody here. Locked."""
        receipt = sender.receipt
        if receipt is None or receipt.is_complete:
            return
        receipt.is_stored_only = isinstance(confirmed, Sent) and confirmed.status is SentStatus.STORED
        if not self._hidden or self._hidden[-1].parts[0].id != confirmed.id:
            self._settle(receipt)
            return
        letter = self._hidden[-1]
        letter.sender, letter.receipt = sender, receipt
        self._unsettled[receipt] = letter
        self._note_due(receipt)

    def _note_answer(self, letter: Letter, *, has_come: bool) -> None:
        """One of those who the letter is for has answered, or never will. Locked."""
        receipt = letter.receipt
        if receipt is None:
            return
        receipt.answers_due -= 1
        if not has_come or receipt.answers_due == 0:
            self._settle(receipt, has_failed=not has_come)

    def _fail(self, receipt: Receipt | None) -> None:
        """Locked."""
        if receipt is not None:
            self._settle(receipt, has_failed=True)

    def _settle(self, receipt: Receipt, *, has_failed: bool = False) -> None:
        """The first outcome counts. Locked."""
        self._due.pop(receipt, None)
        self._unsettled.pop(receipt, None)
        if not receipt.is_complete:
            receipt.has_failed = has_failed
            receipt.complete()

    def _note_due(self, whose: Mailbox | Receipt) -> None:
        """Its answer is due, later than all the others. Locked."""
        self._due[whose] = time.monotonic() + self._answer_seconds
        if self._watcher_sleeps:
            self._changed.notify()

    def _give_up(self, mailbox: Mailbox, reason: str) -> None:
        """Give it nothing more, and let the watcher disconnect it. Locked."""
        self._clear(mailbox)
        self._unwanted.append((mailbox, reason))
        self._changed.notify()

    # --- the watcher ---

    def _run(self) -> None:
        try:
            self._watch()
        finally:
            with self._lock:
                self._abandoned = True
                for mailbox in self._mailboxes:
                    self._fail(mailbox.receipt)

    def _watch(self) -> None:
        while not self._stopping:
            with self._lock:
                self._give_up_late(time.monotonic())
                unwanted, self._unwanted = self._unwanted, []
                if not unwanted:
                    self._sleep()
            for mailbox, reason in unwanted:
                # The reader of its connection sees the end, and closes the other one.
                _log.warning(f"Disconnected: {reason}", user=mailbox.name)
                mailbox.outbox.finish(hang_up=True)
                self._part_if_idle(mailbox)

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
            if isinstance(whose, Receipt):
                self._fail(whose)
            elif whose.is_open:
                self._give_up(whose, f"it did not answer a message within {self._answer_seconds:g} s")


def _give_out(mailbox: Mailbox, part: Message | None) -> None:
    if part is not None:
        mailbox.outbox.put([part])


def _size_bytes(text: str) -> int:
    return _LETTER_BYTES + (len(text) if text.isascii() else len(text.encode()))
