"""The services of a session: a real hub and presence, and fakes of all that uses a disk or much time."""

import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from itertools import count
from typing import Any, NamedTuple

from msgspec.structs import replace

from chatprotocol.errors import ErrorCode
from chatprotocol.events import Conversation, Deleted, Event, Message, Refused, RoomRole
from chatprotocol.requests import GuestLogin, Report, Request, Side
from chatprotocol.rules import name_key
from chatserver.chat.authentication import Authentication
from chatserver.chat.catch_up import CatchUp
from chatserver.chat.delivery import AckedDelivery
from chatserver.chat.delivery_marks import DeliveryMarks
from chatserver.chat.directory import Directory
from chatserver.chat.entering import Entering
from chatserver.chat.guests import Guests
from chatserver.chat.history_commands import HistoryCommands
from chatserver.chat.login import Login
from chatserver.chat.login_throttle import LoginThrottle, ThrottleLimits
from chatserver.chat.missed import MissedMessages
from chatserver.chat.moderation import Moderation
from chatserver.chat.passwords import PasswordsClosedError, Urgency, Verdict
from chatserver.chat.presence import Presence
from chatserver.chat.rate_limit import UserLimits
from chatserver.chat.registration import Registration, RegistrationLimits
from chatserver.chat.room_commands import RoomCommands
from chatserver.chat.services import Services
from chatserver.chat.session import Session
from chatserver.chat.tokens import SessionTokens
from chatserver.counters import Counters
from chatserver.journal.base import Appended, Applied, JournalClosedError
from chatserver.journal.entries import (
    AccountProblem,
    AddToken,
    DeliveryMark,
    Entry,
    GuestClaim,
    GuestRelease,
    GuestRenamed,
    KnownNetwork,
    MessageBatch,
    NewAccount,
    PasswordChange,
    Problem,
    RenameGuest,
    Revoked,
    RevokeTokens,
    UseToken,
)
from chatserver.store.accounts import Account, LoginAccount, Role
from chatserver.store.moderation import ActiveSanction, Standing
from chatserver.store.rooms import RoomView
from chatserver.store.tokens import FoundToken, StoredToken, hash_token

from .helpers import FakeBroadcast, FakeSendQueue, committed, make_hub

LAG_MAX_BYTES = 10_000
HISTORY_ID = "0123456789abcdef"


class FakeAccounts:
    """Accounts in a dict; a password's hash is the password backwards."""

    def __init__(self) -> None:
        self.by_key: dict[str, Account] = {}
        self.guests: dict[str, int] = {}
        self.claimed: set[str] = set()
        # The rows of guests of other servers, by key.
        self.elsewhere: dict[str, Account] = {}
        self._claims = count(1)
        # Known networks of each account, and open invitations.
        self.networks: dict[tuple[int, str], int] = {}
        self.invitations: set[str] = set()

    def find(self, username: str) -> Account | None:
        return self.by_key.get(name_key(username))

    def find_for_login(self, username: str, network: str) -> LoginAccount:
        account = self.find(username)
        last_login_ms = None if account is None else self.networks.get((account.id, network))
        return LoginAccount(account, last_login_ms, has_network_bans=True)

    def has_invitation(self, code_hash: str, _: int) -> bool:
        return code_hash in self.invitations

    def find_writer(self, name: str) -> Account | None:
        return self.find(name)

    def find_claimed(self, name: str) -> Account | None:
        return self.elsewhere.get(name_key(name))

    def has_guest(self, name: str) -> bool:
        return name in self.guests

    def add(
        self,
        name: str,
        password_hash: str,
        delivered_id: int = 0,
        *,
        role: Role = Role.USER,
        must_change_password: bool = False,
    ) -> Account | None:
        if name_key(name) in self.by_key or name_key(name) in self.claimed:
            return None
        account = Account(
            len(self.by_key) + 1,
            name,
            password_hash,
            delivered_id,
            role=role,
            must_change_password=must_change_password,
        )
        self.by_key[name_key(name)] = account
        return account

    def claim(self, name: str) -> Account | None:
        """The row of a guest, of which there is one per name, with a new claim. ``find`` does not return it."""
        if name_key(name) in self.by_key or name_key(name) in self.claimed:
            return None
        self.claimed.add(name_key(name))
        number = self.guests.setdefault(name, 1_000 + len(self.guests))
        return Account(number, name, "", 0, next(self._claims))


class FakeTokens:
    """Tokens in a dict, by their hashes. Each is valid for ever."""

    def __init__(self, accounts: FakeAccounts) -> None:
        self._accounts = accounts
        self.added: dict[str, AddToken] = {}
        self.used_ms: dict[str, int] = {}

    def find(self, token: str, network: str, _: int) -> FoundToken | None:
        entry = self.added.get(hash_token(token))
        if entry is None:
            return None
        (account,) = (each for each in self._accounts.by_key.values() if each.id == entry.account_id)
        last_login_ms = self._accounts.networks.get((account.id, network))
        return FoundToken(entry.token_id, self.used_ms.get(entry.token_id, 0), last_login_ms, account)

    def has(self, account_id: int, token_id: str) -> bool:
        return any((each.account_id, each.token_id) == (account_id, token_id) for each in self.added.values())

    def list_of(self, account_id: int, _: int) -> list[StoredToken]:
        its = (each for each in self.added.values() if each.account_id == account_id)
        return [StoredToken(each.token_id, each.label, 0, 0) for each in its]

    def remove(self, entry: RevokeTokens) -> Revoked:
        its = {key: each for key, each in self.added.items() if each.account_id == entry.account_id}
        gone = [
            key for key, each in its.items() if (entry.token_id or each.token_id) == each.token_id != entry.kept_token
        ]
        return Revoked(tuple(sorted(self.added.pop(key).token_id for key in gone)))


class FakeMessages:
    """Returns what the test has set, and records the queries."""

    def __init__(self) -> None:
        self.stored: tuple[Message, ...] = ()
        self.asked: list[tuple[Any, ...]] = []

    def history(
        self,
        reader_id: int,
        before_id: int,
        limit: int,
        room_id: int | None = None,
        *,
        after_id: int | None = None,
        other_id: int | None = None,
        first_id: int = 0,
    ) -> tuple[Message, ...]:
        assert room_id is None
        options = {"after_id": after_id, "other_id": other_id, "first_id": first_id or None}
        given = {name: value for name, value in options.items() if value is not None}
        self.asked.append(("history", reader_id, before_id, limit, *([given] if given else [])))
        return self.stored

    def conversations(self, *asked: int, first_id: int = 0) -> list[Conversation]:
        self.asked.append(("conversations", *asked, *([first_id] if first_id else [])))
        return [Conversation("Bob", 9)]

    def missed(self, reader_id: int, after_ids: Mapping[int, int], upto_id: int, limit: int) -> tuple[Message, ...]:
        (after_id,) = set(after_ids.values())
        return self._page("missed", reader_id, after_id, upto_id, limit)

    def undelivered(self, *asked: int) -> tuple[Message, ...]:
        return self._page("undelivered", *asked)

    def _page(self, what: str, reader_id: int, after_id: int, upto_id: int, limit: int) -> tuple[Message, ...]:
        self.asked.append((what, reader_id, after_id, upto_id, limit))
        return tuple(message for message in self.stored if after_id < message.id <= upto_id)[:limit]


class FakeRooms:
    """The rooms of all accounts are those that the test has set, one list for each time that they are read."""

    def __init__(self) -> None:
        self.read: list[list[RoomView]] = []

    def of_account(self, _: int) -> list[RoomView]:
        return self.read.pop(0) if self.read else []

    def find(self, _: int, __: str) -> RoomView | None:
        return None

    def roles(self, _: object) -> dict[int, dict[str, RoomRole]]:
        return {}


class FakeRecords:
    """Bans and deletions that the test has set."""

    def __init__(self, accounts: FakeAccounts) -> None:
        self._accounts = accounts
        self.banned: dict[int, ActiveSanction] = {}
        self.silences: dict[int, ActiveSanction] = {}
        # Results of looks for the ban of an address, in order; then none.
        self.bans_of_address: list[ActiveSanction | None] = []
        self.deleted: set[int] = set()
        # The hashes of passwords that an administrator has changed.
        self.changed_hashes: dict[int, str] = {}
        # The accounts whose new password, too, must be changed.
        self.must_change: set[int] = set()
        self.stored: tuple[Deleted, ...] = ()
        # Called after each look at the standing of an account.
        self.when_read: Callable[[], object] = lambda: None

    def standing(self, account_id: int, _: str) -> Standing:
        standing = self._read(account_id)
        self.when_read()
        return standing

    def _read(self, account_id: int) -> Standing:
        operators = {each.id for each in self._accounts.by_key.values() if each.role is Role.OPERATOR}
        is_muted = account_id in self.silences
        if account_id in self._accounts.guests.values():
            return Standing(self.ban_of_address(""), is_operator=False, password_hash="", is_muted=is_muted)
        (found,) = (each for each in self._accounts.by_key.values() if each.id == account_id)
        password_hash = None if account_id in self.deleted else self.changed_hashes.get(account_id, found.password_hash)
        ban = self.banned.get(account_id) or self.ban_of_address("")
        return Standing(ban, account_id in operators, password_hash, is_muted, account_id in self.must_change)

    def silence(self, account_id: int, _: int | None) -> ActiveSanction | None:
        return self.silences.get(account_id)

    def ban_of_address(self, _: str) -> ActiveSanction | None:
        return self.bans_of_address.pop(0) if self.bans_of_address else None

    def deletions(self, _: int, seen_ids: Mapping[int, int]) -> tuple[Deleted, ...]:
        return tuple(each for each in self.stored if each.id <= max(seen_ids.values()))


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

    def search(self, *asked: Any, first_id: int) -> tuple[tuple[Message, ...], int]:
        if self.fault:
            raise self.fault
        self.asked.append((*asked, first_id) if first_id else asked)
        return self.found


class FakeAppended(Appended[Any]):
    """Notes the pauses of a thread that waits for less than a second; for others the journal commits."""

    def __init__(self, entries: Sequence[Entry[Any]], origin: Any, journal: "FakeJournal") -> None:
        super().__init__(entries, origin)
        self._journal = journal

    def wait(self, timeout_seconds: float | None = None) -> bool:
        if timeout_seconds is not None and timeout_seconds < 1:
            self._journal.pauses.append(timeout_seconds)
        elif self.is_complete:  # others may still be in flight
            pass
        elif not self._journal.is_stuck:
            self._journal.wait_for_pending()
        elif timeout_seconds is None:
            raise AssertionError("this wait never ends")
        return self.is_complete


class FakeJournal:
    """Publishes messages at once; with ``holds_back``, when a thread waits for pending ones. For any thread."""

    def __init__(self, accounts: FakeAccounts, tokens: FakeTokens) -> None:
        self._accounts = accounts
        self._tokens = tokens
        self._one_at_a_time = threading.Lock()
        self._ids = count(11)
        self._subscribers: list[Callable[[Sequence[Applied]], None]] = []
        self.batches: list[Sequence[MessageBatch]] = []
        self.deferred: dict[Hashable, Entry[Any]] = {}
        # Number of appends without entries.
        self.fences = 0
        self.changed_hashes: list[tuple[int, str]] = []
        # True if the password was changed while it was checked.
        self.hash_is_another = False
        self.fault: Exception | None = None
        # True while the disk is full: messages are refused.
        self.is_full = False
        self.holds_back = False
        # True if nothing that is held back is ever committed.
        self.is_stuck = False
        self._held: list[tuple[MessageBatch, int, Any]] = []
        self._incomplete: list[Appended[Any]] = []
        # The pauses of sessions before their next read, in seconds.
        self.pauses: list[float] = []
        self.name_was_taken = False
        self.now_ms = 0
        # Called with each entry that is no message, before it is applied.
        self.when_appended: Callable[[Entry[Any]], object] = lambda _: None

    @property
    def appended(self) -> list[MessageBatch]:
        return [batch for batches in self.batches for batch in batches]

    @property
    def marks(self) -> dict[int, int]:
        """The delivery marks to be stored."""
        marks = [entry for entry in self.deferred.values() if isinstance(entry, DeliveryMark)]
        return {mark.account_id: mark.message_id for mark in marks}

    def subscribe(self, callback: Callable[[Sequence[Applied]], None], _: Callable[[float], None]) -> None:
        self._subscribers.append(callback)

    def defer(self, key: Hashable, entry: Entry[Any]) -> None:
        self.deferred[key] = entry
        if isinstance(entry, KnownNetwork):
            self._accounts.networks[entry.account_id, entry.network] = self.now_ms
        if isinstance(entry, UseToken):
            self._tokens.used_ms[entry.token_id] = self.now_ms
        if isinstance(entry, GuestRelease):
            self._accounts.claimed.discard(name_key(entry.name))

    def append(self, entries: Sequence[Entry[Any]], origin: Any = None) -> Appended[Any]:
        if isinstance(self.fault, JournalClosedError):
            raise self.fault
        appended = FakeAppended(entries, origin, self)
        self.fences += not entries
        batches = [entry for entry in entries if isinstance(entry, MessageBatch)]
        with self._one_at_a_time:
            if batches:
                self.batches.append(batches)
                for batch in batches:
                    first_id, *_ = (next(self._ids) for _ in batch.texts)
                    self._held.append((batch, first_id, origin))
                self._incomplete.append(appended)
                if not self.holds_back:
                    self._commit()
            elif self.fault is not None:
                appended.fail(self.fault)
            else:
                outcomes = [self._apply(entry) for entry in entries]
                for callback in self._subscribers:
                    callback([Applied(*each, origin, 0) for each in zip(entries, outcomes, strict=True)])
                appended.complete(outcomes)
        return appended

    def wait_for_pending(self) -> None:
        with self._one_at_a_time:
            self._commit()

    def _commit(self) -> None:
        held, self._held = self._held, []
        applied = [committed(*each) for each in held]
        if self.is_full:
            applied = [replace(each, outcome=OSError("disk full")) for each in applied]
        for callback in self._subscribers:
            callback(applied)
        while self._incomplete:
            self._incomplete.pop().complete([])

    def _apply(self, entry: Entry[Any]) -> object:  # noqa: C901, PLR0912 - one case for each entry
        self.when_appended(entry)
        match entry:
            case NewAccount():
                if self.name_was_taken:
                    self._accounts.add(entry.name.upper(), "rehto")
                if entry.invitation and entry.invitation not in self._accounts.invitations:
                    return AccountProblem.BAD_INVITATION
                self._accounts.invitations.discard(entry.invitation)
                account = self._accounts.add(entry.name, entry.password_hash, role=entry.role)
                if account is not None:
                    self._accounts.networks[account.id, entry.network] = self.now_ms
                return account or AccountProblem.NAME_TAKEN
            case KnownNetwork():
                self._accounts.networks[entry.account_id, entry.network] = self.now_ms
                return None
            case RenameGuest():
                self._accounts.claimed.discard(name_key(entry.name))
                account = self._accounts.claim(entry.new_name)
                if account is None:
                    self._accounts.claimed.add(name_key(entry.name))
                return GuestRenamed(account) if account else Problem.NAME_TAKEN
            case GuestClaim():
                return self._accounts.claim(entry.name)
            case GuestRelease():
                self._accounts.claimed.discard(name_key(entry.name))
                return None
            case PasswordChange():
                self.changed_hashes.append((entry.account_id, entry.new_hash))
                if not (entry.is_rehash or self.hash_is_another):
                    self._tokens.remove(RevokeTokens(entry.account_id, kept_token=entry.kept_token))
                return not self.hash_is_another
            case AddToken():
                self._tokens.added[entry.token_hash] = entry
                return Revoked(())
            case RevokeTokens():
                return self._tokens.remove(entry)
        raise AssertionError(entry)


class FakePasswords:
    """A hash is the password backwards; it is outdated when it begins with an exclamation mark."""

    def __init__(self) -> None:
        self.checked: list[tuple[str | None, str]] = []
        # The passwords that were hashed, and the urgency and the account of each hash and check.
        self.hashed: list[str] = []
        self.urgencies: list[Urgency] = []
        self.accounts: list[str] = []
        self.is_closed = False

    def hash(self, password: str, urgency: Urgency = Urgency.KNOWN, _: object = None, account: str = "") -> str:
        if self.is_closed:
            raise PasswordsClosedError
        self.hashed.append(password)
        self.urgencies.append(urgency)
        self.accounts.append(account)
        return password[::-1]

    def check(
        self,
        password_hash: str | None,
        password: str,
        urgency: Urgency = Urgency.KNOWN,
        _: object = None,
        account: str = "",
    ) -> Verdict:
        if self.is_closed:
            raise PasswordsClosedError
        self.checked.append((password_hash, password))
        self.urgencies.append(urgency)
        self.accounts.append(account)
        if password_hash is None or password_hash.strip("!") != password[::-1]:
            return Verdict.WRONG
        return Verdict.OUTDATED if password_hash.startswith("!") else Verdict.RIGHT


def any_request(kind: type[Any]) -> Request:
    """A valid request of this type, about bob, message 1 or the room dev."""
    values = {"room": "dev", "topic": "", "id": 1, "username": "bob", "password": "x", "text": "x", "to": "bob"}
    values |= {"words": "x", "old": "x", "new": "x"}
    if kind is Report:
        del values["username"]  # a message is reported, or a user
    request: Request = kind(**{name: value for name, value in values.items() if name in kind.__struct_fields__})
    return request


class ChatFixture:
    """The services, and new sessions that use them."""

    def __init__(
        self,
        *,
        registration: str = "open",
        guests_allowed: bool = True,
        last_id: int = 10,
        operators: Sequence[str] = (),
        registration_limits: tuple[int, int] = (0, 0),
        throttle: ThrottleLimits | None = None,
        limits: UserLimits | None = None,
        user_connections: int = 0,
        behind_max_seconds: float = 0.0,
        server: str = "",
    ) -> None:
        """``registration_limits``: new names from a network, and from all; 0 is no limit."""
        self.broadcast = FakeBroadcast()
        self.accounts = FakeAccounts()
        self.messages = FakeMessages()
        self.rooms = FakeRooms()
        self.records = FakeRecords(self.accounts)
        self.identity = FakeIdentity()
        self.indexer = FakeIndexer()
        self.acked_delivery = AckedDelivery(LAG_MAX_BYTES, lambda _: None)
        self.tokens = FakeTokens(self.accounts)
        self.journal = FakeJournal(self.accounts, self.tokens)
        self.presence = Presence(1_000.0, lambda _: None)
        self.passwords = FakePasswords()
        self.now = 0.0
        # Each look of a login at its clock adds this.
        self.tick_seconds = 0.0
        # Number of times that the last user has left.
        self.times_empty = 0
        doubles: Any = self  # its parts, most of which are fakes
        self.counters = Counters()
        new_names = RegistrationLimits(*registration_limits, self.counters, lambda: self.now)
        guests = Guests(
            doubles.accounts,
            doubles.journal,
            self.presence,
            self.acked_delivery,
            self._note_empty,
            limits=new_names,
            allowed=guests_allowed,
            reserved=operators,
            server=server,
            clock=lambda: self.now,
        )
        self.users, self.hub = make_hub(
            {"json": self.broadcast},
            self.presence,
            self.acked_delivery,
            marks=DeliveryMarks(self.journal.defer),
            last_id=last_id,
            user_connections=user_connections,
            changed=[guests.expel],
        )
        self.journal.subscribe(self.hub.handle_applied, self.hub.gather)
        tokens = SessionTokens(doubles.tokens, doubles.journal, lambda: self.journal.now_ms)
        entering = Entering(self.users, doubles.rooms, doubles.messages)
        catch_up = CatchUp(behind_max_seconds, self._tick)
        authentication = Authentication(
            accounts=doubles.accounts,
            journal=doubles.journal,
            passwords=doubles.passwords,
            throttle=LoginThrottle(throttle),
            registration=Registration(
                accounts=doubles.accounts,
                journal=doubles.journal,
                passwords=doubles.passwords,
                limits=new_names,
                is_guest=guests.is_claimed,
                mode=registration,
                operators=operators,
                now_ms=lambda: self.journal.now_ms,
            ),
            counters=self.counters,
            records=doubles.records,
            tokens=tokens,
            catch_up=catch_up,
            clock=self._tick,
        )
        login = Login(
            authentication=authentication,
            missed=MissedMessages(doubles.messages, doubles.identity),
            rooms=doubles.rooms,
            identity=doubles.identity,
            journal=doubles.journal,
            users=self.users,
            records=doubles.records,
            tokens=tokens,
            entering=entering,
            catch_up=catch_up,
            on_empty=self._note_empty,
            now_ms=lambda: self.journal.now_ms,
        )
        rooms = RoomCommands(doubles.rooms, doubles.accounts, doubles.journal, self.users, "open", guests.find)
        self.services = Services(
            accounts=doubles.accounts,
            messages=doubles.messages,
            indexer=doubles.indexer,
            journal=doubles.journal,
            users=self.users,
            presence=self.presence,
            authentication=authentication,
            login=login,
            guests=guests,
            rooms=rooms,
            entering=entering,
            directory=Directory(
                *(self.users, self.presence, doubles.accounts, guests, doubles.rooms, rooms, doubles.records),
                entering.counts,
            ),
            history=HistoryCommands(
                *(doubles.messages, doubles.messages, doubles.messages, doubles.accounts),
                *(rooms, doubles.journal, self.users),
            ),
            moderation=Moderation(doubles.records, doubles.accounts, guests, rooms, doubles.journal),
            tokens=tokens,
            acked_delivery=self.acked_delivery,
            limits=limits or UserLimits(),
            find_refusal=lambda: self.refusal,
        )
        # Why new users are refused; empty if they are not.
        self.refusal = ""

    def _note_empty(self) -> None:
        self.times_empty += 1

    def _tick(self) -> float:
        self.now += self.tick_seconds
        return self.now

    def shut_down(self) -> None:
        self.journal.fault = JournalClosedError()

    def session(self, send_queue: FakeSendQueue, address: str = "10.0.0.1", *, is_exempt: bool = False) -> Session:
        return Session(self.services, send_queue, f"1@{address}", address, is_exempt)

    def connect(self, address: str = "10.0.0.1", *, is_exempt: bool = False) -> "Peer":
        send_queue = FakeSendQueue(self.broadcast)
        return Peer(self.session(send_queue, address, is_exempt=is_exempt), send_queue)

    def guest(self, name: str, address: str = "10.0.0.1") -> "GuestPeers":
        """A guest that is logged in with both connections."""
        guest = GuestPeers(self.connect(address), self.connect(address))
        guest.sending.ask(GuestLogin(Side.SENDING, name))
        guest.receiving.ask(GuestLogin(Side.RECEIVING, name))
        return guest


class Peer:
    """One connection: sends requests to its session, and reads the replies."""

    def __init__(self, session: Session, send_queue: FakeSendQueue) -> None:
        self.session = session
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


class GuestPeers(NamedTuple):
    """The two connections of a guest."""

    sending: Peer
    receiving: Peer


def codes(events: list[Event]) -> list[ErrorCode | type]:
    """The codes of refusals and the types of all other events."""
    return [event.code if isinstance(event, Refused) else type(event) for event in events]
