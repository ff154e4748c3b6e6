"""The services of a session: a real hub and presence, and fakes of all that uses a disk or much time."""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from itertools import count
from typing import Any, Generic, NamedTuple, TypeVar

from chatprotocol.errors import ErrorCode
from chatprotocol.events import Event, Message, Refused
from chatprotocol.requests import Register, Request, Side
from chatprotocol.rules import name_key
from chatserver.chat.batch import MessageBatch
from chatserver.chat.delivery import AckedDelivery
from chatserver.chat.delivery_marks import DeliveryMarks
from chatserver.chat.guest_session import GuestSession
from chatserver.chat.guests import Guests
from chatserver.chat.hub import Hub
from chatserver.chat.journal import JournalClosedError
from chatserver.chat.login_throttle import LoginThrottle
from chatserver.chat.passwords import PasswordsClosedError, Verdict
from chatserver.chat.presence import Presence
from chatserver.chat.services import Services
from chatserver.chat.session import Session
from chatserver.store.accounts import Account

from .helpers import FakeBroadcast, FakeSendQueue

LAG_MAX_BYTES = 10_000
HISTORY_ID = "0123456789abcdef"

AnySession = TypeVar("AnySession", Session, GuestSession)


class FakeAccounts:
    """Accounts in a dict; a password's hash is the password backwards."""

    def __init__(self) -> None:
        self.by_key: dict[str, Account] = {}
        self.guests: dict[str, int] = {}

    def find(self, username: str) -> Account | None:
        return self.by_key.get(name_key(username))

    def add(self, name: str, password_hash: str, delivered_id: int = 0) -> Account | None:
        if name_key(name) in self.by_key:
            return None
        account = Account(len(self.by_key) + 1, name, password_hash, delivered_id)
        self.by_key[name_key(name)] = account
        return account

    def admit(self, name: str) -> Account | None:
        """The account of a guest: ``find`` does not return it. There is one per name."""
        if name_key(name) in self.by_key:
            return None
        number = self.guests.setdefault(name, 1_000 + len(self.guests))
        return Account(number, name, "", 0)


class FakeMessages:
    """Returns what the test has set, and records the queries."""

    def __init__(self) -> None:
        self.stored: tuple[Message, ...] = ()
        self.asked: list[tuple[Any, ...]] = []

    def history(self, *asked: int) -> tuple[Message, ...]:
        self.asked.append(("history", *asked))
        return self.stored

    def missed(self, *asked: int) -> tuple[Message, ...]:
        return self._page("missed", *asked)

    def undelivered(self, *asked: int) -> tuple[Message, ...]:
        return self._page("undelivered", *asked)

    def _page(self, what: str, reader_id: int, after_id: int, upto_id: int, limit: int) -> tuple[Message, ...]:
        self.asked.append((what, reader_id, after_id, upto_id, limit))
        return tuple(message for message in self.stored if after_id < message.id <= upto_id)[:limit]


class FakeIdentity:
    """One identity, and the former ones that the test has set."""

    history_id = HISTORY_ID

    def __init__(self) -> None:
        self.shared: dict[str | None, int] = {}

    def shared_upto(self, history_id: str | None) -> int | None:
        return self.shared.get(history_id)


class FakeIndexer:
    """Returns what the test has set, and records the queries."""

    def __init__(self) -> None:
        self.found: tuple[tuple[Message, ...], int] = ((), 0)
        self.asked: list[tuple[Any, ...]] = []
        self.fault: Exception | None = None

    def search(self, *asked: Any) -> tuple[tuple[Message, ...], int]:
        if self.fault:
            raise self.fault
        self.asked.append(asked)
        return self.found


class FakeJournal:
    """Publishes at once; with ``holds_back``, when a thread waits for pending messages. For any thread."""

    def __init__(self, accounts: FakeAccounts, hub: Hub) -> None:
        self._accounts = accounts
        self._hub = hub
        self._one_at_a_time = threading.Lock()
        self._ids = count(11)
        self.batches: list[list[MessageBatch]] = []
        self.settled = 0
        self.changed_hashes: list[tuple[int, str]] = []
        # True if the password was changed while it was checked.
        self.hash_is_another = False
        self.fault: Exception | None = None
        # The refusal of all messages, while the disk is full.
        self.disk_refuses: Refused | None = None
        self.holds_back = False
        self._held: list[MessageBatch] = []
        self.name_was_taken = False

    def _check(self) -> None:
        if self.fault:
            raise self.fault

    @property
    def appended(self) -> list[MessageBatch]:
        return [batch for batches in self.batches for batch in batches]

    def append(self, batches: Sequence[MessageBatch]) -> None:
        self._check()
        with self._one_at_a_time:
            for batch in batches:
                batch.id, *_ = (next(self._ids) for _ in batch.texts)
            self.batches.append(list(batches))
            self._held += batches
            if not self.holds_back:
                self._commit()

    def wait_for_pending(self) -> None:
        with self._one_at_a_time:
            self.settled += 1
            self._commit()

    def _commit(self) -> None:
        batches, self._held = self._held, []
        if self.disk_refuses is not None:
            self._hub.refuse(batches, self.disk_refuses)
        else:
            self._hub.publish(batches)

    def create_account(self, name: str, password_hash: str) -> Account | None:
        self._check()
        if self.name_was_taken:
            self._accounts.add(name.upper(), "rehto")
        return self._accounts.add(name, password_hash)

    def admit_guest(self, name: str) -> Account | None:
        self._check()
        with self._one_at_a_time:
            return self._accounts.admit(name)

    def replace_password_hash(self, account: Account, password_hash: str) -> Future[Account | None]:
        outcome: Future[Account | None] = Future()
        if isinstance(self.fault, OSError):
            outcome.set_exception(self.fault)
            return outcome
        self._check()
        self.changed_hashes.append((account.id, password_hash))
        outcome.set_result(None if self.hash_is_another else account)
        return outcome


class FakePasswords:
    """A hash is the password backwards; it is outdated when it begins with an exclamation mark."""

    def __init__(self) -> None:
        self.checked: list[tuple[str | None, str]] = []
        self.is_closed = False

    def hash(self, password: str) -> str:
        if self.is_closed:
            raise PasswordsClosedError
        return password[::-1]

    def check(self, password_hash: str | None, password: str) -> Verdict:
        if self.is_closed:
            raise PasswordsClosedError
        self.checked.append((password_hash, password))
        if password_hash is None or password_hash.strip("!") != password[::-1]:
            return Verdict.WRONG
        return Verdict.OUTDATED if password_hash.startswith("!") else Verdict.RIGHT


class ChatFixture:
    """The services, and new sessions that use them."""

    def __init__(self, *, registration_open: bool = True, guests_allowed: bool = True, last_id: int = 10) -> None:
        self.broadcast = FakeBroadcast()
        self.accounts = FakeAccounts()
        self.messages = FakeMessages()
        self.identity = FakeIdentity()
        self.indexer = FakeIndexer()
        self.acked_delivery = AckedDelivery(LAG_MAX_BYTES, lambda _: None)
        self.deliveries = DeliveryMarks()
        self.hub = Hub({"json": self.broadcast}, self.acked_delivery, last_id, self.deliveries, lambda: None)
        self.journal = FakeJournal(self.accounts, self.hub)
        self.presence = Presence(lambda *_: None, 1_000.0, lambda _: None)
        self.passwords = FakePasswords()
        self.now = 0.0
        parts: dict[str, Any] = {
            "accounts": self.accounts,
            "messages": self.messages,
            "identity": self.identity,
            "indexer": self.indexer,
            "journal": self.journal,
            "hub": self.hub,
            "presence": self.presence,
            "passwords": self.passwords,
            "login_throttle": LoginThrottle(lambda: self.now),
            "guests": Guests(lambda: time.monotonic() + self.now),
            "acked_delivery": self.acked_delivery,
        }
        # Number of times that the last user has left.
        self.times_empty = 0
        self.services = Services(
            **parts,
            registration_open=registration_open,
            guests_allowed=guests_allowed,
            login_seconds=60.0,
            on_empty=self._note_empty,
        )

    def _note_empty(self) -> None:
        self.times_empty += 1

    def shut_down(self) -> None:
        self.journal.fault = JournalClosedError()

    def connect(self, address: str = "10.0.0.1") -> "UserPeer":
        send_queue = FakeSendQueue(self.broadcast)
        return UserPeer(Session(self.services, send_queue, f"1@{address}", address), send_queue)

    def connect_guest(self, address: str = "10.0.0.1") -> "GuestPeer":
        """A connection of the guest protocol: one of the two of a guest."""
        send_queue = FakeSendQueue(FakeBroadcast("register"))
        return GuestPeer(GuestSession(self.services, send_queue, f"1@{address}", address), send_queue)

    def guest(self, name: str, address: str = "10.0.0.1") -> "GuestPeers":
        """A guest that is logged in with both connections."""
        guest = GuestPeers(self.connect_guest(address), self.connect_guest(address))
        guest.sending.ask(Register(Side.SENDING, name))
        guest.receiving.ask(Register(Side.RECEIVING, name))
        return guest


class Peer(Generic[AnySession]):
    """One connection: sends requests to its session, and reads the replies."""

    def __init__(self, session: AnySession, send_queue: FakeSendQueue) -> None:
        self.session: AnySession = session
        self.send_queue = send_queue
        self._seen = 0

    def ask(self, *requests: Request) -> list[Event]:
        """The replies to the requests of one read."""
        self.session.handle(requests)
        return self.new_replies()

    def new_replies(self) -> list[Event]:
        new = self.send_queue.replies[self._seen :]
        self._seen += len(new)
        return new

    @property
    def has_new_replies(self) -> bool:
        return len(self.send_queue.replies) > self._seen

    def next(self) -> Event:
        """The first of the new replies."""
        self._seen += 1
        return self.send_queue.replies[self._seen - 1]

    def received(self) -> list[Event]:
        return self.send_queue.received()


UserPeer = Peer[Session]
GuestPeer = Peer[GuestSession]


class GuestPeers(NamedTuple):
    """The two connections of a guest."""

    sending: GuestPeer
    receiving: GuestPeer


def codes(events: list[Event]) -> list[ErrorCode | type]:
    """The codes of refusals and the types of all other events."""
    return [event.code if isinstance(event, Refused) else type(event) for event in events]
