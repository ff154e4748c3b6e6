"""Fakes of the broadcast buffer, the send queue and the session; entries; threads; and rows in a database."""

import os
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any, cast

from msgspec import structs

from chatprotocol.events import Bye, Event, EventBatch, Message, Pong, expand_batches
from chatprotocol.limits import ID_MAX
from chatprotocol.requests import Leave, Request
from chatserver.chat.changes import ChangePublisher
from chatserver.chat.delivery import AckedDelivery
from chatserver.chat.delivery_marks import DeliveryMarks
from chatserver.chat.hub import Hub
from chatserver.chat.local_users import JoinState, LocalUsers
from chatserver.chat.presence import Presence
from chatserver.chat.room import Member
from chatserver.journal.base import Applied
from chatserver.journal.entries import DirectMessage, MessageBatch, PublicMessages, Stored
from chatserver.net.broadcast import BroadcastBuffer, SendLimits
from chatserver.net.sendqueue import SendQueue
from chatserver.store.accounts import Account, insert_account
from chatserver.store.database import Database, schema_files
from chatserver.store.messages import Messages
from chatserver.store.rooms import RoomView
from chatserver.store.sqlite import Readable, transaction

# Time limit of every wait: a thread that waits longer is stuck.
DEADLINE_SECONDS = 20.0


class FakeBroadcast:
    """The broadcast buffer of one protocol as a list of events; an event is one byte long."""

    def __init__(self, name: str = "json") -> None:
        self.name = name
        self.events: list[Event] = []
        # The number of events of each call of append.
        self.appended: list[int] = []
        self.flushed = 0
        self.send_queues: list[FakeSendQueue] = []
        self.waits = 0
        self.last_wait: tuple[int | None, float | None] = (None, None)

    def append(self, events: Sequence[Event | EventBatch]) -> tuple[int, int]:
        start = len(self.events)
        self.events += expand_batches(events)
        self.appended.append(len(self.events) - start)
        return start, len(self.events)

    def flush(self) -> None:
        self.flushed = len(self.events)

    def wait_for_sender(self, ahead_max_bytes: int | None = None, limit_seconds: float | None = None) -> None:
        self.waits += 1
        self.last_wait = (ahead_max_bytes, limit_seconds)


class FakeSendQueue:
    """A send queue that keeps events: replies in ``replies``, and the rest in :meth:`received`."""

    def __init__(self, broadcast: FakeBroadcast) -> None:
        """``broadcast`` is the first buffer that it follows."""
        self.broadcast = broadcast
        self.protocol = broadcast.name
        self.held = False
        self.replies: list[Event] = []
        self.insertions: list[tuple[int, int, list[Event]]] = []
        # Replies and insertions, in order.
        self.told: list[Event] = []
        # Bytes that the protocol sends by itself, and that wait for a reply or an insertion.
        self.waiting: list[bytes] = []
        # The encoder of this connection, and its bytes in order.
        self.encode: Callable[[Sequence[Event | EventBatch]], bytes] = lambda _: b""
        self.sent: list[bytes] = []
        # The number of replies at each wait_for_room, and its result.
        self.waits: list[int] = []
        self.has_room = True
        self.is_finished = False
        self.hangs_up = False
        # The pauses of the reader thread, in seconds.
        self.pauses: list[float] = []
        # True if the peer has hung up, and the time for which its requests may wait is over.
        self.is_gone = False
        # True if the peer's system acknowledges all data at once; otherwise the callbacks wait in ``tracked``.
        self.acknowledges = True
        self.tracked: list[Callable[[], None]] = []
        # Spans of buffers and insertions, in order; and the start of the open span of each buffer that is followed.
        self._segments: list[tuple[FakeBroadcast, int, int] | list[Event]] = []
        self._open: dict[FakeBroadcast, int] = {}

    def follow(self, buffer: FakeBroadcast) -> None:
        if buffer not in self._open:
            self.held = True
            buffer.send_queues.append(self)
            self._open[buffer] = buffer.flushed

    def unfollow(self, buffer: FakeBroadcast) -> None:
        buffer.send_queues.remove(self)
        self._close_span(buffer, buffer.flushed)
        del self._open[buffer]

    def release(self, events: Sequence[Event]) -> None:
        self.put(events)
        self.held = False

    def hold(self) -> None:
        self.held = True

    def go_on(self, *, is_complete: bool = True) -> None:
        self.held = not is_complete

    def put(self, events: Sequence[Event]) -> None:
        if not self.is_finished:
            self.sent.append(self.encode(events))
            self.replies += events
            self.told += events
            self.waiting.clear()

    def put_long(self, event: Any, messages: Collection[Message]) -> None:
        self.put([structs.replace(event, messages=tuple(messages))])

    def put_bytes(self, data: bytes, *, wake: bool = True) -> None:
        self.sent.append(data)
        self.waiting = [] if wake else [*self.waiting, data]

    def finish(self, last: Sequence[Event] = (), *, hang_up: bool = False) -> None:
        self.put(last)
        self.hangs_up |= hang_up
        self.is_finished = True

    def pause(self, seconds: float) -> bool:
        self.pauses.append(seconds)
        return not self.is_finished

    def is_abandoned(self, _: float) -> bool:
        return self.is_gone or self.is_finished

    def wait_for_room(self, _: float | None = None) -> bool:
        self.waits.append(len(self.replies))
        return self.has_room and not self.is_finished

    def insert(self, events: Sequence[Event | EventBatch]) -> None:
        if self._open:
            for buffer in self._open:
                self._close_span(buffer, len(buffer.events))
            tail = len(self.broadcast.events)
            self._add(tail, tail, events)

    def replace(self, buffer: FakeBroadcast, start: int, end: int, events: Sequence[Event | EventBatch] = ()) -> None:
        if buffer in self._open:
            self._close_span(buffer, start)
            self._open[buffer] = end
            self._add(start, end, events)

    def _close_span(self, buffer: FakeBroadcast, end: int) -> None:
        self._segments.append((buffer, self._open[buffer], end))
        self._open[buffer] = end

    def _add(self, start: int, end: int, events: Sequence[Event | EventBatch]) -> None:
        inserted = list(expand_batches(events))
        self._segments.append(inserted)
        self.insertions.append((start, end, inserted))
        self.sent.append(self.encode(events))
        self.told += inserted
        self.waiting.clear()

    def track(self, number: int, on_acknowledged: Callable[[int], None]) -> None:
        self.tracked.append(partial(on_acknowledged, number))
        self.check_acknowledged()

    def check_acknowledged(self) -> None:
        while self.acknowledges and self.tracked:
            self.tracked.pop(0)()

    def received(self) -> list[Event]:
        """The buffers with the edits of this queue; without the replies."""
        received: list[Event] = []
        for each in [*self._segments, *((buffer, start, buffer.flushed) for buffer, start in self._open.items())]:
            received += each if isinstance(each, list) else each[0].events[each[1] : each[2]]
        return received


@dataclass
class FakeSession:
    """Answers each request with a pong, and the last one with a goodbye."""

    send_queue: SendQueue
    is_logged_in: bool = False
    awaits_commit: bool = False
    takes_large_reads: bool = True
    is_paused: bool = False
    awaits_turn: bool = False
    # The requests of each read.
    reads: list[Sequence[Request]] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    answer: Callable[["FakeSession"], None] = lambda self: self.send_queue.put([Pong()])

    @property
    def handled(self) -> list[Request]:
        return [request for asked in self.reads for request in asked]

    def handle(self, asked: Iterable[Request]) -> bool:
        read: list[Request] = []
        self.reads.append(read)
        for request in asked:
            read.append(request)
            if request == Leave():
                self.send_queue.put([Bye("x")])
                return False
            self.answer(self)
        return True

    def time_out(self, _: float) -> None:
        self.calls.append("time_out")
        self.send_queue.put([Bye("x")])

    def end(self) -> None:
        self.calls.append("end")

    def send_bye(self) -> None:
        self.calls.append("say_bye")
        self.send_queue.finish([Bye("x")])

    def give_way(self) -> None:
        self.calls.append("give_way")
        self.send_queue.finish([Bye("give way")])


def memory_descriptors() -> int:
    """The number of open files in memory. The garbage collector may close descriptors of other kinds at any time."""
    return sum(os.path.realpath(each).startswith("/memfd:") for each in Path("/dev/fd").iterdir())


def read_all(peer: socket.socket) -> bytes:
    """Everything until the peer's end."""
    data = b""
    while part := peer.recv(1_000_000):
        data += part
    return data


class Gate:
    """Stops a thread until the test opens it."""

    def __init__(self) -> None:
        self._reached = threading.Event()
        self._opened = threading.Event()

    def pass_through(self) -> None:
        """The thread waits here."""
        self._reached.set()
        assert self._opened.wait(DEADLINE_SECONDS)

    def await_thread(self) -> None:
        """Wait until a thread is here."""
        assert self._reached.wait(DEADLINE_SECONDS)

    def open(self) -> None:
        self._opened.set()


def in_background(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def eventually(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "the condition never held"
        time.sleep(0)  # lets the other threads run


def must_end(thread: threading.Thread) -> None:
    thread.join(DEADLINE_SECONDS)
    assert not thread.is_alive(), "the thread still waits"


def assert_waits(thread: threading.Thread) -> None:
    """The thread does not end for a while."""
    thread.join(0.05)
    assert thread.is_alive(), "the thread has not waited"


def bytes_broadcast(kept_bytes: int = 1_000_000, limits: SendLimits = SendLimits()) -> BroadcastBuffer:  # noqa: B008
    """A broadcast buffer whose events are bytes already. Close it."""
    return BroadcastBuffer(b"".join, kept_bytes, limits)  # type: ignore[arg-type]


def publish(broadcast: BroadcastBuffer, *events: bytes) -> None:
    broadcast.append(events)  # type: ignore[arg-type]
    broadcast.flush()


def release(send_queue: SendQueue, *events: bytes) -> None:
    send_queue.release(events)  # type: ignore[arg-type]


def all_missed(messages: Messages, reader_id: int, after_ids: Mapping[int, int]) -> list[Message]:
    """All pages of Messages.missed."""
    found: list[Message] = []
    while page := messages.missed(reader_id, after_ids, ID_MAX, 500):
        found += page
        after_ids = dict.fromkeys(after_ids, page[-1].id)
    return found


def given_pieces(pieces: Any, _: object) -> Iterator[bytes]:
    """In place of ServerProtocol.encode_long: the event is the pieces."""
    return iter(pieces)


def put(send_queue: SendQueue, *events: bytes, wake: bool = True) -> None:
    send_queue.put_bytes(b"".join(events), wake=wake)


def insert(send_queue: SendQueue, *events: bytes) -> None:
    send_queue.insert(events)  # type: ignore[arg-type]


def replace(send_queue: SendQueue, buffer: BroadcastBuffer, start: int, end: int, *events: bytes) -> None:
    """Send one connection events in place of a part of the buffer."""
    send_queue.replace(buffer, start, end, events)  # type: ignore[arg-type]


def new_store() -> sqlite3.Connection:
    """The tables of a new server, in memory. All have the same identity of the history."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.deserialize(_serialized_store())
    return connection


@cache
def _serialized_store() -> bytes:
    """The file of a new store. It is copied, because its migrations take longer than most examples of a property."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        for _, sql in sorted(schema_files().items()):
            connection.executescript(sql)
        return connection.serialize()


class MemoryDatabase:
    """A database without files, for thousands of examples."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        yield self._connection

    def transaction(self) -> AbstractContextManager[sqlite3.Connection]:
        return transaction(self._connection)


class CountingDatabase:
    """A database that counts the instructions of its queries."""

    def __init__(self, database: Readable) -> None:
        self._database = database
        self.instructions = 0

    def _count(self) -> int:
        self.instructions += 1
        return 0

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        with self._database.reading() as connection:
            connection.set_progress_handler(self._count, 1)
            try:
                yield connection
            finally:
                connection.set_progress_handler(None, 0)


@contextmanager
def memory_database() -> Iterator[Database]:
    with closing(new_store()) as connection:
        yield cast("Database", MemoryDatabase(connection))


def register(database: Database, name: str) -> Account:
    with database.transaction() as connection:
        account = insert_account(connection, name, f"hash of {name}", 0)
    assert account is not None
    return account


def public(sender: Member, *texts: str, nonces: Sequence[str | None] | None = None) -> PublicMessages:
    return PublicMessages(sender.account_id, sender.name, [*texts], [*(nonces or [None] * len(texts))])


def direct(sender: Member, recipient: Account, text: str, nonce: str | None = None) -> DirectMessage:
    return DirectMessage(
        sender.account_id,
        sender.name,
        [text],
        [nonce],
        recipient_id=recipient.id,
        recipient=recipient.name,
        recipient_claim=recipient.claim,
    )


def make_hub(
    lobbies: Mapping[str, FakeBroadcast],
    presence: Presence,
    delivery: AckedDelivery | None = None,
    *,
    open_buffer: Callable[[str], Any] | None = None,
    close_buffer: Callable[[Any], None] = lambda _: None,
    marks: DeliveryMarks | None = None,
    last_id: int = 10,
    wake: Callable[[], None] = lambda: None,
    user_connections: int = 0,
    changed: Sequence[Callable[..., None]] = (),
    read_guests: Callable[[Sequence[str]], Collection[str]] = lambda _: (),
) -> tuple[LocalUsers, Hub]:
    """A hub over fake broadcast buffers. ``changed``: see ChangePublisher."""
    buffers: Any = lobbies
    users = LocalUsers(
        *(buffers, open_buffer or FakeBroadcast, close_buffer, presence, marks or DeliveryMarks(lambda *_: None)),
        *(last_id, wake, user_connections),
    )
    delivery = delivery or AckedDelivery(10_000, lambda _: None)
    changes = ChangePublisher(users, presence, *changed)
    return users, Hub(users, changes, delivery, presence, wake, read_guests=read_guests)


def join_hub(users: LocalUsers, member: Member, rooms: Sequence[RoomView] = ()) -> JoinState:
    """Join as a login does, with these rooms."""
    users.begin_join(member)
    joined = users.join(member, rooms)
    assert joined is not None
    return joined


def committed(batch: MessageBatch, first_id: int, origin: object) -> Applied:
    """The batch as the journal reports it to the hub: all of it is new."""
    return Applied(batch, (Stored(0, len(batch.texts), first_id),), origin, 0)


def member_of(account: Account) -> Member:
    return Member(account.id, account.name, FakeSendQueue(FakeBroadcast()))
