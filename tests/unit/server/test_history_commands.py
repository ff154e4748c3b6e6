"""Logs, active conversations and read marks: sessions, a hub and a store that are real, and the floor of guests."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from types import SimpleNamespace
from typing import Any, cast

import pytest

from chatprotocol.errors import ErrorCode
from chatprotocol.events import (
    AccountKind,
    Active,
    ActiveTarget,
    ChatHistory,
    Event,
    ReadMarked,
    Refused,
    UserUnknown,
)
from chatprotocol.limits import HISTORY_MAX_MESSAGES, ID_MAX, READ_MARKS_MAX
from chatprotocol.requests import (
    AskActive,
    AskChatHistory,
    AskConversations,
    AskHistory,
    Bound,
    Enter,
    HistoryOrder,
    Login,
    MarkRead,
    Request,
    Search,
)
from chatserver.chat.authentication import Proof
from chatserver.chat.delivery import AckedDelivery
from chatserver.chat.history_commands import HistoryCommands
from chatserver.chat.presence import Presence
from chatserver.chat.rate_limit import UserLimits
from chatserver.chat.room import Member
from chatserver.chat.room_commands import RoomCommands
from chatserver.chat.services import Services
from chatserver.chat.session import Session
from chatserver.counters import Counters
from chatserver.journal.apply import Transaction, apply
from chatserver.journal.base import Applied
from chatserver.journal.entries import (
    DeleteAccount,
    DirectMessage,
    Entry,
    GuestClaim,
    InviteUser,
    JoinRoom,
    Marked,
    NewAccount,
    PartRoom,
    Problem,
    PublicMessages,
    ReadMark,
)
from chatserver.store.accounts import Account, Accounts
from chatserver.store.conversation_history import ConversationHistory
from chatserver.store.messages import Messages
from chatserver.store.read_marks import ReadMarks
from chatserver.store.rooms import DIRECT_ID, LOBBY_ID, Rooms

from .helpers import FakeBroadcast, FakeSendQueue, MemoryDatabase, join_hub, make_hub, new_store

ALICE, BOB, CAROL, GUEST = 1, 2, 3, 4
NAMES = ("", "alice", "bob", "carol", "guest")
DEV = 2
BEGIN_MS = 1_000_000


class Finding:
    """In place of the search: notes the first id."""

    def __init__(self) -> None:
        self.first_ids: list[int] = []

    def search(self, *_: object, first_id: int) -> tuple[tuple[()], int]:
        self.first_ids.append(first_id)
        return (), 0


class Chat:
    """Alice and bob are in the private room dev, and carol is invited. All times are those of the ids."""

    def __init__(self) -> None:
        self.connection = new_store()
        self.last_id = 0
        self.now_ms = BEGIN_MS
        self.lobby = FakeBroadcast()
        self.presence = Presence(1_000.0, lambda _: None)
        delivery = AckedDelivery(10_000, lambda _: None)
        self.users, self.hub = make_hub({"json": self.lobby}, self.presence, delivery, last_id=0)
        database: Any = MemoryDatabase(self.connection)
        self.accounts = Accounts(database)
        self.rooms = Rooms(database)
        messages = Messages(database)
        journal: Any = self
        commands = RoomCommands(self.rooms, self.accounts, journal, self.users, "open")
        self.marks = ReadMarks(database)
        history = HistoryCommands(
            ConversationHistory(database, messages), messages, self.marks, self.accounts, commands, journal, self.users
        )
        self.indexer = Finding()
        unused: Any = None
        self.services = Services(
            accounts=self.accounts,
            messages=messages,
            indexer=cast("Any", self.indexer),
            journal=journal,
            users=self.users,
            presence=self.presence,
            authentication=cast("Any", self),
            login=cast("Any", self),
            guests=unused,
            rooms=commands,
            history=history,
            entering=cast("Any", SimpleNamespace(note_session=lambda _: None)),
            directory=unused,
            moderation=unused,
            tokens=unused,
            acked_delivery=delivery,
            limits=UserLimits(),
            counters=Counters(),
        )
        for name in NAMES[1:4]:
            self.do(NewAccount(name, "hash"))
        self.do(GuestClaim("guest"))
        self.do(JoinRoom(ALICE, "alice", "dev", is_private=True, may_create=True))
        for account_id in (BOB, CAROL):
            self.do(InviteUser(DEV, account_id, NAMES[account_id], ALICE, "alice"))
        self.do(JoinRoom(BOB, "bob", "dev", is_private=False, may_create=False))

    def do(self, entry: Entry[Any], origin: Member | None = None) -> Any:
        """Apply and publish an entry."""
        applying = Transaction(self.connection, self.now_ms, self.last_id)
        outcome = apply(applying, entry)
        self.last_id = applying.last_id
        self.hub.handle_applied([Applied(entry, outcome, origin, self.now_ms)])
        return outcome

    def say(self, sender: int, room_id: int = LOBBY_ID, to: int = 0) -> int:
        """The id of a message, whose time is that many milliseconds after the begin."""
        self.now_ms = BEGIN_MS + self.last_id + 1
        entry: Entry[Any] = PublicMessages(sender, NAMES[sender], ["text"], [None], room_id)
        if to:
            entry = DirectMessage(sender, NAMES[sender], ["text"], [None], recipient_id=to, recipient=NAMES[to])
        self.do(entry)
        return self.last_id

    # In place of the journal and the login:

    def append(self, entries: Sequence[Entry[Any]], origin: Member | None = None) -> Any:
        outcomes = [self.do(entry, origin) for entry in entries]
        return SimpleNamespace(result=lambda: outcomes)

    def authenticate(self, login: Login, *_: object) -> Any:
        account_id = NAMES.index(login.username)
        return Proof(Account(account_id, login.username, "", 0), AccountKind.EXISTING)

    def join(self, send_queue: Any, proof: Any, *_: object, **__: object) -> Member:
        is_guest = proof.account.id == GUEST
        enter = Enter(username=proof.account.name, variant=send_queue.protocol)
        member = Member(proof.account.id, proof.account.name, send_queue, enter=enter, is_guest=is_guest)
        member.knows_rooms = True
        if is_guest:
            member.first_id = self.last_id + 1
        join_hub(self.users, member, self.rooms.of_account(member.account_id))
        return member


class User:
    """One connection."""

    def __init__(self, chat: Chat, name: str) -> None:
        self.queue = FakeSendQueue(chat.lobby)
        self._session = Session(chat.services, cast("Any", self.queue), name, "10.0.0.1", is_exempt=True)
        self._session.handle([Login(name, "password")])

    def ask(self, request: Request) -> Event:
        seen = len(self.queue.replies)
        self._session.handle([request])
        (answer,) = self.queue.replies[seen:]
        return answer

    def history(
        self, order: HistoryOrder = HistoryOrder.NEWEST, limit: int = 10, **members: Any
    ) -> list[int] | ErrorCode:
        """The ids of the answer, or its error."""
        answer = self.ask(AskChatHistory(order=order, limit=limit, **members))
        if isinstance(answer, Refused | UserUnknown):
            return answer.code
        assert isinstance(answer, ChatHistory)
        return [each.id for each in answer.messages]

    def told(self) -> list[Event]:
        """The read marks that other connections moved."""
        return [each for each in self.queue.received() if isinstance(each, ReadMarked)]


@pytest.fixture
def chat() -> Iterator[Chat]:
    chat = Chat()
    with closing(chat.connection):
        yield chat


def test_log_is_for_those_who_see_the_history(chat: Chat) -> None:
    """Only its members read a room; a private one can't be told from a missing one. Ignoring the case of names."""
    said = [chat.say(ALICE), chat.say(ALICE, DEV), chat.say(ALICE, to=BOB), chat.say(BOB, to=ALICE), chat.say(CAROL)]
    alice, bob, carol = User(chat, "alice"), User(chat, "bob"), User(chat, "carol")
    for user in (alice, bob, carol):
        assert user.history() == user.history(room="LOBBY") == [said[0], said[4]]
    assert alice.history(room="Dev") == bob.history(room="dev") == [said[1]]
    assert carol.history(room="dev") is ErrorCode.NOT_A_MEMBER
    chat.connection.execute("DELETE FROM membership WHERE account_id = ?", (CAROL,))
    assert carol.history(room="dev") is carol.history(room="nowhere") is ErrorCode.UNKNOWN_ROOM
    assert alice.history(with_user="BOB") == bob.history(with_user="alice") == said[2:4]
    assert carol.history(with_user="alice") == carol.history(with_user="carol") == []
    assert carol.history(with_user="nobody") is ErrorCode.UNKNOWN_USER
    answer = alice.ask(AskChatHistory(order=HistoryOrder.OLDEST, room="DEV", limit=1))
    assert isinstance(answer, ChatHistory)
    assert (answer.room, answer.with_user, answer.messages[0].text) == ("dev", None, "text")
    answer = alice.ask(AskChatHistory(order=HistoryOrder.OLDEST, with_user="BOB", limit=1))
    assert isinstance(answer, ChatHistory)
    assert (answer.room, answer.with_user) == (None, "bob")


def test_log_takes_bounds_of_both_kinds_and_a_limit(chat: Chat) -> None:
    said = [chat.say(ALICE) for _ in range(HISTORY_MAX_MESSAGES + 2)]
    alice = User(chat, "alice")
    assert alice.history(limit=ID_MAX) == said[2:]
    assert alice.history(HistoryOrder.OLDEST, limit=-1) == said[:1]
    assert alice.history(HistoryOrder.OLDEST, 2, after=Bound(time_ms=BEGIN_MS + said[4])) == said[5:7]
    assert alice.history(HistoryOrder.NEWEST, 2, after=Bound(id=said[1]), before=Bound(id=said[3])) == said[2:3]
    assert alice.history(HistoryOrder.AROUND, 3, after=Bound(id=said[9])) == said[8:11]


def test_active_conversations_are_those_of_the_user(chat: Chat) -> None:
    lobby, dev, to_bob = chat.say(CAROL), chat.say(BOB, DEV), chat.say(ALICE, to=BOB)
    everything = AskActive(0, ID_MAX, 10)
    times = (BEGIN_MS + each for each in (lobby, dev, to_bob))
    targets = tuple(
        ActiveTarget(*place, time_ms)
        for place, time_ms in zip([("lobby", None), ("dev", None), (None, "bob")], times, strict=True)
    )
    assert User(chat, "alice").ask(everything) == Active(targets)
    assert User(chat, "carol").ask(everything) == Active(targets[:1])
    alice = User(chat, "alice")
    assert alice.ask(AskActive(BEGIN_MS + lobby, BEGIN_MS + to_bob, 10)) == Active(targets[1:2])
    assert alice.ask(AskActive(0, ID_MAX, 2)) == Active(targets[:2])
    assert alice.ask(AskActive(0, ID_MAX, 2, HistoryOrder.NEWEST)) == Active(targets[1:])


@pytest.mark.parametrize(
    ("place", "answered"),
    [({}, ("lobby", None)), ({"room": "DEV"}, ("dev", None)), ({"with_user": "BOB"}, (None, "bob"))],
)
def test_read_mark_is_stored_and_told_and_never_moves_back(
    chat: Chat, place: dict[str, str], answered: tuple[str | None, str | None]
) -> None:
    """The other connections of the user learn of a change; no other user does."""
    first, second, bob = User(chat, "alice"), User(chat, "alice"), User(chat, "bob")
    assert first.ask(MarkRead(**place)) == ReadMarked(*answered, None)
    for time_ms, expected in ((50, 50), (40, 50), (50, 50), (60, 60)):
        assert first.ask(MarkRead(**place, time_ms=time_ms)) == ReadMarked(*answered, expected)
    assert second.ask(MarkRead(**place)) == ReadMarked(*answered, 60)
    assert second.told() == [ReadMarked(*answered, 50), ReadMarked(*answered, 60)]
    assert first.told() == bob.told() == []
    # Two servers may both have seen the older mark.
    other_id = BOB if "with_user" in place else 0
    room_id = DIRECT_ID if other_id else DEV if "room" in place else LOBBY_ID
    assert chat.do(ReadMark(ALICE, 55, room_id, other_id=other_id)) == Marked(60, is_changed=False)


def test_read_mark_is_not_of_the_future(chat: Chat) -> None:
    """It would never move again."""
    answer = User(chat, "alice").ask(MarkRead(time_ms=ID_MAX))
    assert isinstance(answer, ReadMarked)
    assert answer.time_ms is not None
    assert chat.now_ms <= answer.time_ms <= chat.now_ms + 3_600_000


def test_read_marks_are_of_members_and_accounts(chat: Chat) -> None:
    """And end with them."""
    carol, guest = User(chat, "carol"), User(chat, "guest")
    for request in (MarkRead(room="dev"), MarkRead(room="dev", time_ms=5), MarkRead(room="nowhere", time_ms=5)):
        answer = carol.ask(request)
        assert isinstance(answer, Refused)
        assert answer.code is (ErrorCode.NOT_A_MEMBER if request.room == "dev" else ErrorCode.UNKNOWN_ROOM)
    assert chat.do(ReadMark(CAROL, 5, DEV, "dev")) is Problem.NOT_A_MEMBER
    assert guest.ask(MarkRead()) == ReadMarked("lobby", None, None)
    answer = guest.ask(MarkRead(time_ms=5))
    assert isinstance(answer, Refused)
    assert answer.code is ErrorCode.NOT_PERMITTED
    for account_id, room_id, other_id in (
        *((ALICE, DEV, 0), (BOB, DEV, 0), (BOB, LOBBY_ID, 0)),
        *((BOB, DIRECT_ID, ALICE), (ALICE, DIRECT_ID, BOB), (ALICE, LOBBY_ID, 0)),
    ):
        assert chat.do(ReadMark(account_id, 5, room_id, other_id=other_id)) == Marked(5, is_changed=True)
    chat.do(DeleteAccount(account_id=BOB, username="bob", by_id=0, by="admin"))
    left = {(DEV, 0), (DIRECT_ID, BOB), (LOBBY_ID, 0)}
    assert {(each[1], each[2]) for each in chat.connection.execute("SELECT * FROM read_mark")} == left
    chat.do(PartRoom(ALICE, "alice", DEV))
    assert {each[1] for each in chat.connection.execute("SELECT * FROM read_mark")} == {DIRECT_ID, LOBBY_ID}


def test_account_has_a_limited_number_of_read_marks(chat: Chat) -> None:
    """Those with the lowest times go, and never the one that was just set."""
    for other_id in range(1, READ_MARKS_MAX + 2):
        chat.do(ReadMark(ALICE, 1_000 + other_id, DIRECT_ID, other_id=other_id))
    chat.do(ReadMark(BOB, 1, LOBBY_ID))
    chat.do(ReadMark(ALICE, 7, LOBBY_ID))
    found = [chat.marks.find(ALICE, DIRECT_ID, other_id) for other_id in (1, 2, 3)]
    assert found == [None, None, 1_003]
    assert (chat.marks.find(ALICE, LOBBY_ID, 0), chat.marks.find(BOB, LOBBY_ID, 0)) == (7, 1)


def test_guest_sees_no_message_from_before_its_login(chat: Chat) -> None:
    """A guest has the row of an earlier one of its name."""
    chat.say(ALICE)
    chat.say(ALICE, to=GUEST)
    guest = User(chat, "guest")
    questions: tuple[Request, ...] = (
        *(AskHistory(), AskHistory(after=0), AskHistory(with_user="alice"), AskConversations()),
        *(AskChatHistory(order=order, after=Bound(id=0), limit=9) for order in HistoryOrder),
        *(AskChatHistory(order=HistoryOrder.OLDEST, with_user="alice", after=Bound(time_ms=0), limit=9),),
        AskActive(0, ID_MAX, 9),
    )

    def answers() -> list[int]:
        """The number of messages, users or rooms in each answer."""
        found = []
        for question in questions:
            answer: Any = guest.ask(question)
            lists = (getattr(answer, name, None) for name in ("messages", "conversations", "users", "targets"))
            found.append(len(next(each for each in lists if each is not None)))
        return found

    assert answers() == [0] * len(questions)
    guest.ask(Search("text"))
    assert chat.indexer.first_ids == [chat.last_id + 1]
    chat.say(ALICE)
    chat.say(ALICE, to=GUEST)
    assert answers() == [2, 2, 1, 1, 1, 1, 1, 1, 2]


def test_error_of_the_disk_is_told(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError

    monkeypatch.setattr(chat, "append", lambda *_: SimpleNamespace(result=fail))
    answer = User(chat, "alice").ask(MarkRead(time_ms=5))
    assert isinstance(answer, Refused)
    assert answer.code is ErrorCode.INTERNAL
