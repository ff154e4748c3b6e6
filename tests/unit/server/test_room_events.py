"""Changes of rooms among their messages: where they are, who sees them, and what stays of them."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chatprotocol.events import (
    ChatHistoryItem,
    EventPlace,
    PublicMessage,
    RoomEvent,
    RoomEventKind,
    RoomModes,
    RoomRole,
    SanctionKind,
)
from chatprotocol.requests import Bound, HistoryOrder
from chatserver.journal.apply import Transaction, apply
from chatserver.journal.entries import (
    DeleteAccount,
    DirectMessage,
    Entry,
    EraseMessages,
    GuestClaim,
    GuestRelease,
    InviteUser,
    JoinRoom,
    KickMember,
    LiftSanction,
    Moderated,
    NewAccount,
    PartRoom,
    Prune,
    PublicMessages,
    RenameGuest,
    RoomChange,
    Sanction,
    SetRole,
    SetRoomModes,
    SetTopic,
)
from chatserver.store.accounts import Account
from chatserver.store.conversation_history import ConversationHistory
from chatserver.store.identity import read_highest_id
from chatserver.store.messages import Messages
from chatserver.store.room_events import EVENTS_MAX, Place

from .helpers import MemoryDatabase, new_store

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

    from chatserver.store.database import Database

ANN, BOB, CAROL = 1, 2, 3
NAMES = {ANN: "ann", BOB: "bob", CAROL: "carol"}
DEV_ID = 2
KINDS = RoomEventKind


class Store:
    """A store whose entries have the times 1, 2, 3 and so on, unless one is given. Ann owns the room dev."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.time_ms = 0
        for name in NAMES.values():
            self.apply(NewAccount(name, "hash"))
        self.apply(JoinRoom(ANN, "ann", "dev", is_private=False, may_create=True))

    def apply(self, entry: Entry[Any], time_ms: int | None = None) -> Any:
        self.time_ms = self.time_ms + 1 if time_ms is None else time_ms
        return apply(Transaction(self.connection, self.time_ms, read_highest_id(self.connection)), entry)

    def join(self, account_id: int, time_ms: int | None = None) -> Any:
        name = NAMES.get(account_id, "guest")
        return self.apply(JoinRoom(account_id, name, "dev", is_private=False, may_create=False), time_ms)

    def say(self, room_id: int = DEV_ID, time_ms: int | None = None) -> None:
        assert isinstance(self.apply(PublicMessages(ANN, "ann", ["text"], [None], room_id), time_ms), tuple)

    def read(
        self,
        order: HistoryOrder = HistoryOrder.OLDEST,
        after: Bound | None = None,
        before: Bound | None = None,
        limit: int = 500,
        reader: int = ANN,
        first_id: int = 0,
    ) -> list[ChatHistoryItem]:
        database = cast("Database", MemoryDatabase(self.connection))
        log = ConversationHistory(database, Messages(database))
        ids = range(first_id, read_highest_id(self.connection) + 1)
        found = log.read(*(reader, DEV_ID, ids, limit), order=order, after=after, before=before, has_events=True)
        items = list(found)
        assert len(items) == len(found)
        return items

    def events(self, **options: Any) -> list[RoomEvent]:
        return [each for each in self.read(**options) if isinstance(each, RoomEvent)]

    def count(self) -> int:
        """The number of events that the row of the room has."""
        query = "SELECT event_count FROM conversation WHERE id = ?"
        return int(self.connection.execute(query, (DEV_ID,)).fetchone()[0])

    def told(self) -> list[tuple[str, str, str, str]]:
        return [(each.kind.value, each.actor, each.target, each.text) for each in self.events()]


@pytest.fixture
def store() -> Iterator[Store]:
    with closing(new_store()) as connection:
        yield Store(connection)


def place_of(item: ChatHistoryItem) -> Place:
    return Place(item.after_id, item.number) if isinstance(item, RoomEvent) else Place(item.id)


# --- the place ---


class Item(NamedTuple):
    """A message or event of the room, in the model."""

    place: Place
    time_ms: int
    what: str


class Step(NamedTuple):
    """Something that happens, if it changes anything: a message, or a change of the room."""

    what: str
    who: int
    flag: bool
    time_ms: int


steps = st.builds(
    Step,
    st.sampled_from(["say", "say", "elsewhere", "join", "join", "part", "kick", "topic", "moderated", "voice"]),
    st.sampled_from([BOB, CAROL]),
    st.booleans(),
    st.integers(1, 6),
)


def fill(store: Store, history: list[Step]) -> list[Item]:
    """Apply the steps; return what the history of the room has then."""
    items = [Item(Place(0, 1), store.time_ms, "join")]
    last_id, members, state = 0, set[int](), {"topic": "", "moderated": "", **{f"voice{who}": "" for who in NAMES}}
    for what, who, flag, time_ms in history:
        entry: Entry[Any]
        name, value = NAMES[who], "yes" if flag else ""
        match what:
            case "say" | "elsewhere":
                store.say(DEV_ID if what == "say" else 0, time_ms)
                last_id += 1
                if what == "say":
                    items.append(Item(Place(last_id), time_ms, "say"))
                continue
            case "join":
                entry = JoinRoom(who, name, "dev", is_private=False, may_create=False)
                is_change = who not in members
                members.add(who)
            case "part" | "kick":
                entry = PartRoom(who, name, DEV_ID) if what == "part" else KickMember(DEV_ID, who, name, ANN, "ann")
                is_change = who in members
                members.discard(who)
                state[f"voice{who}"] = ""
            case "topic":
                entry = SetTopic(DEV_ID, value, ANN, "ann")
                is_change, state["topic"] = state["topic"] != value, value
            case "moderated":
                entry = SetRoomModes(DEV_ID, ANN, "ann", moderated=flag)
                is_change, state["moderated"] = state["moderated"] != value, value
            case _:
                entry = SetRole(DEV_ID, who, name, ANN, "ann", RoomRole.VOICE if flag else RoomRole.MEMBER)
                is_change = who in members and state[f"voice{who}"] != value
                if is_change:
                    state[f"voice{who}"] = value
        store.apply(entry, time_ms)
        if is_change:
            count = sum(each.place.id == last_id and each.place.number > 0 for each in items)
            kind = {"moderated": "modes", "voice": "role"}.get(what, what)
            items.append(Item(Place(last_id, count + 1), time_ms, kind))
    return items


def is_after(item: Item, bound: Bound | None) -> bool:
    if bound is None:
        return True
    if bound.time_ms is not None:
        return item.time_ms > bound.time_ms
    return item.place > Place(bound.id or 0, bound.number)


def is_before(item: Item, bound: Bound | None) -> bool:
    if bound is None:
        return True
    if bound.time_ms is not None:
        return item.time_ms < bound.time_ms
    return item.place < Place(bound.id or 0, bound.number)


def expected(
    items: list[Item], order: HistoryOrder, after: Bound | None, before: Bound | None, limit: int
) -> list[Item]:
    if order is HistoryOrder.AROUND:
        older = [each for each in items if is_before(each, after)]
        newer = [each for each in items if each not in older]
        count = max(limit // 2, limit - len(newer))
        older = older[-count:] if count else []
        return sorted(older + newer[: limit - len(older)])
    found = [each for each in items if is_after(each, after) and is_before(each, before)]
    return found[-limit:] if order is HistoryOrder.NEWEST else found[:limit]


places = st.builds(lambda id_, number: Bound(id_, number=number), st.integers(0, 8), st.integers(0, 4))
bounds = places | st.builds(Bound, time_ms=st.integers(0, 7))


@given(
    st.lists(steps, max_size=20),
    st.sampled_from(HistoryOrder),
    st.none() | bounds,
    st.none() | bounds,
    st.integers(1, 6),
)
@example([], HistoryOrder.AROUND, Bound(0, number=1), None, 1)
@example([Step("say", BOB, True, 3)], HistoryOrder.AROUND, Bound(1), None, 6)
@example([Step("say", BOB, True, 3), Step("join", BOB, True, 3)], HistoryOrder.NEWEST, None, None, 1)
# A message and an event of the same time, and a bound between them.
@example([Step("say", BOB, True, 3), Step("join", BOB, True, 3)], HistoryOrder.OLDEST, Bound(1), None, 1)
@example([Step("say", BOB, True, 3), Step("join", BOB, True, 3)], HistoryOrder.NEWEST, None, Bound(1, number=1), 1)
def test_history_has_messages_and_events_in_one_order(
    history: list[Step], order: HistoryOrder, after: Bound | None, before: Bound | None, limit: int
) -> None:
    """Promise: between any bounds each once, in the order of the entries, and ``limit`` of both together."""
    with closing(new_store()) as connection:
        store = Store(connection)
        items = fill(store, history)
        if order is HistoryOrder.AROUND:
            after, before = after or Bound(0), None
        found = store.read(order, after, before, limit)
        wanted = expected(items, order, after, before, limit)
        shown = [
            Item(place_of(each), each.time_ms, each.kind.value if isinstance(each, RoomEvent) else "say")
            for each in found
        ]
        assert shown == wanted


@given(st.lists(steps, max_size=20), st.integers(1, 4))
def test_pages_neither_skip_nor_repeat(history: list[Step], limit: int) -> None:
    """Promise: a client that asks for what is before its first line, or after its last one, sees each once."""
    with closing(new_store()) as connection:
        store = Store(connection)
        wanted = [each.place for each in fill(store, history)]
        forwards: list[Place] = []
        while page := store.read(HistoryOrder.OLDEST, _bound(forwards[-1]) if forwards else None, None, limit):
            forwards += map(place_of, page)
        assert forwards == wanted
        backwards: list[Place] = []
        while page := store.read(HistoryOrder.NEWEST, None, _bound(backwards[0]) if backwards else None, limit):
            backwards = [*map(place_of, page), *backwards]
        assert backwards == wanted


def _bound(place: Place) -> Bound:
    return Bound(place.id, number=place.number)


def test_events_use_no_message_ids(store: Store) -> None:
    """Promise: other wire formats see no gaps, and no events."""
    store.say()
    store.join(BOB)
    store.say()
    assert [place_of(each) for each in store.read()] == [(0, 1), (1, 0), (1, 1), (2, 0)]
    database = cast("Database", MemoryDatabase(store.connection))
    ids = range(read_highest_id(store.connection) + 1)
    plain = ConversationHistory(database, Messages(database)).read(ANN, DEV_ID, ids, 500, order=HistoryOrder.OLDEST)
    assert [cast("PublicMessage", each).id for each in plain] == [1, 2]


# --- what is told ---


def test_each_change_is_an_event(store: Store) -> None:
    """With its actor, target and text; not what changes nothing, an invitation, nor a mute."""
    about_bob = (DEV_ID, BOB, "bob", ANN, "ann")
    acting: dict[str, Any] = {"by_id": ANN, "by": "ann", "room_id": DEV_ID, "account_id": BOB, "username": "bob"}
    places: list[EventPlace] = []
    for entry in (
        InviteUser(*about_bob),
        KickMember(*about_bob, "the invitation"),
        JoinRoom(BOB, "bob", "dev", is_private=False, may_create=False),
        JoinRoom(BOB, "bob", "dev", is_private=False, may_create=False),
        SetRole(*about_bob, RoomRole.OPERATOR),
        SetRole(*about_bob, RoomRole.OPERATOR),
        SetTopic(DEV_ID, "plans", ANN, "ann"),
        SetTopic(DEV_ID, "plans", ANN, "ann"),
        SetRoomModes(DEV_ID, ANN, "ann", moderated=True, key="sesame", members_max=5),
        SetRoomModes(DEV_ID, ANN, "ann", moderated=True),
        KickMember(*about_bob, "spam"),
        JoinRoom(BOB, "bob", "dev", is_private=False, may_create=False, key="sesame"),
        PartRoom(BOB, "bob", DEV_ID, "bye"),
        JoinRoom(BOB, "bob", "dev", is_private=False, may_create=False, key="sesame"),
        Sanction(kind=SanctionKind.MUTE, reason="loud", **acting),
        Sanction(kind=SanctionKind.BAN, reason="again", **acting),
        LiftSanction(kind=SanctionKind.BAN, **acting),
    ):
        places += _places_of(store.apply(entry))
    modes = '{"moderated":true,"key":"*","members_max":5}'
    assert store.told() == [
        ("join", "ann", "", ""),
        ("join", "bob", "", ""),
        ("role", "ann", "bob", ""),
        ("topic", "ann", "", "plans"),
        ("modes", "ann", "", ""),
        ("kick", "ann", "bob", "spam"),
        ("join", "bob", "", ""),
        ("part", "bob", "", "bye"),
        ("join", "bob", "", ""),
        ("kick", "ann", "bob", "again"),
        ("ban", "ann", "bob", ""),
        ("unban", "ann", "bob", ""),
    ]
    # The first join is that of the fixture.
    assert places == [EventPlace(each.after_id, each.number, DEV_ID, each.time_ms) for each in store.events()][1:]
    found = {each.kind: each for each in store.events()}
    assert (found[KINDS.ROLE].old_role, found[KINDS.ROLE].role) == (RoomRole.MEMBER, RoomRole.OPERATOR)
    changed = found[KINDS.MODES]
    assert changed.modes == RoomModes(moderated=True, key="*", members_max=5)
    assert changed.old_modes == RoomModes(members_max=0)
    stored = "\n".join(store.connection.iterdump())
    assert modes in stored
    assert stored.count("sesame") == 1, "the key that opens the room, and no copy of it"


def _places_of(outcome: RoomChange | Moderated) -> list[EventPlace]:
    """The places that an outcome has, in the order of the events."""
    change = outcome.change if isinstance(outcome, Moderated) else outcome
    places = [change.place, change.heir_place] if change is not None else []
    places += [outcome.place] if isinstance(outcome, Moderated) else []
    return [each for each in places if each is not None]


def test_modes_that_end_are_told_as_such(store: Store) -> None:
    store.apply(SetRoomModes(DEV_ID, ANN, "ann", private=True, open_topic=True, key="k", members_max=5))
    store.apply(SetRoomModes(DEV_ID, ANN, "ann", private=False, open_topic=False, key="", members_max=0))
    last = store.events()[-1]
    assert last.modes == RoomModes()
    assert last.old_modes == RoomModes(private=True, open_topic=True, key="*", members_max=1)


def test_new_owner_and_guests_are_told(store: Store) -> None:
    """A guest's membership ends with its connection. A new name is told in each of its rooms."""
    guest = store.apply(GuestClaim("gus"))
    assert isinstance(guest, Account)
    store.join(BOB)
    store.join(guest.id)
    places = _places_of(store.apply(PartRoom(ANN, "ann", DEV_ID)))
    renamed = store.apply(RenameGuest("gus", guest.claim, "gil")).account
    store.apply(GuestRelease("gil", renamed.claim))
    assert [(*each, event.is_guest) for each, event in zip(_told(store), store.events(reader=BOB), strict=True)] == [
        ("join", "ann", "", False),
        ("join", "bob", "", False),
        ("join", "gus", "", True),
        ("part", "ann", "", False),
        ("heir", "", "bob", False),
        ("nick", "gus", "gil", True),
        ("quit", "gil", "", True),
    ]
    parted, heir = store.events(reader=BOB)[3:5]
    assert places == [EventPlace(each.after_id, each.number, DEV_ID, each.time_ms) for each in (parted, heir)]


def _told(store: Store) -> list[tuple[str, str, str]]:
    return [(each.kind.value, each.actor, each.target) for each in store.events(reader=BOB)]


# --- who sees it ---


def test_events_are_for_those_who_see_the_messages(store: Store) -> None:
    """Promise: members, also those who joined later; nobody who is invited, banned, or has left."""
    store.apply(SetTopic(DEV_ID, "plans", ANN, "ann"))
    assert store.events(reader=BOB) == []
    store.apply(InviteUser(DEV_ID, BOB, "bob", ANN, "ann"))
    assert store.events(reader=BOB) == []
    store.join(BOB)
    assert len(store.events(reader=BOB)) == 3
    acting: dict[str, Any] = {"by_id": ANN, "by": "ann", "room_id": DEV_ID, "account_id": BOB, "username": "bob"}
    store.apply(Sanction(kind=SanctionKind.BAN, **acting))
    assert store.events(reader=BOB) == []


def test_guest_sees_events_from_its_join_on(store: Store) -> None:
    """Promise: also before the first message, and not those that an earlier guest of the name saw."""
    store.say()
    for topic in ("first", "second"):
        guest = store.apply(GuestClaim("gus"))
        store.apply(SetTopic(DEV_ID, f"before {topic}", ANN, "ann"))
        store.join(guest.id)
        store.apply(SetTopic(DEV_ID, topic, ANN, "ann"))
        assert [each.text for each in store.events(reader=guest.id, first_id=2)] == ["", topic]
        renamed = store.apply(RenameGuest("gus", guest.claim, "gil")).account
        assert [each.kind for each in store.events(reader=renamed.id, first_id=2)] == [KINDS.NICK]
        store.apply(GuestRelease("gil", renamed.claim))
    guest = store.apply(GuestClaim("gus"))
    store.say()
    store.join(guest.id)
    assert [place_of(each) for each in store.events(reader=guest.id, first_id=2)] == [Place(2, 1)]


# --- what stays ---


def test_room_has_its_newest_events(store: Store) -> None:
    """Promise: a user who joins and parts again and again does not fill the disk. Places are not used again."""
    for number in range(EVENTS_MAX + 3):
        store.apply(SetTopic(DEV_ID, str(number), ANN, "ann"))
    stored = store.connection.execute("SELECT number FROM room_event ORDER BY number").fetchall()
    assert stored == [(number,) for number in range(5, EVENTS_MAX + 5)]
    assert store.count() == EVENTS_MAX


def test_old_events_are_removed_with_the_messages(store: Store) -> None:
    """Those after the newest message stay, because the places after it must not be used again."""
    store.apply(SetTopic(DEV_ID, "one", ANN, "ann"), 10)
    store.say(time_ms=11)
    store.apply(SetTopic(DEV_ID, "two", ANN, "ann"), 12)
    store.say(time_ms=20)
    store.apply(SetTopic(DEV_ID, "three", ANN, "ann"), 13)
    store.apply(Prune(15, 0, 100), 30)
    assert [place_of(each) for each in store.read()] == [(2, 0), (2, 1)]
    store.apply(Prune(25, 0, 100), 30)
    assert [place_of(each) for each in store.read()] == [(2, 1)]
    assert store.count() == 1
    store.apply(SetTopic(DEV_ID, "four", ANN, "ann"))
    assert [place_of(each) for each in store.read()] == [(2, 1), (2, 2)]
    store.say(time_ms=40)
    store.apply(Prune(35, 0, 100), 50)
    assert [place_of(each) for each in store.read()] == [(3, 0)]


def test_erased_user_leaves_no_texts(store: Store) -> None:
    """Promise: topics and reasons go with the messages; the name is that of the deleted account."""
    store.join(BOB)
    store.apply(SetRole(DEV_ID, BOB, "bob", ANN, "ann", RoomRole.OPERATOR))
    store.join(CAROL)
    store.say()
    store.apply(SetTopic(DEV_ID, "mine", BOB, "bob"))
    store.apply(KickMember(DEV_ID, CAROL, "carol", BOB, "bob", "rude"))
    store.apply(SetTopic(DEV_ID, "ours", ANN, "ann"))
    store.apply(SetTopic(DEV_ID, "mine again", BOB, "bob"))
    store.apply(PartRoom(BOB, "bob", DEV_ID, "bye"))
    store.apply(DeleteAccount(account_id=BOB, username="BOB", by_id=0, by="the administrator"))
    query = "SELECT topic, topic_by, detail FROM conversation, audit WHERE name = 'dev' AND action = 'delete_user'"
    assert store.connection.execute(query).fetchall() == [("mine again", "deleted-2", "now deleted-2")]
    after_id: int | None = 0
    while after_id is not None:
        after_id = store.apply(EraseMessages(BOB, "the administrator", after_id, 1)).after_id
    assert store.told()[4:] == [
        ("kick", "deleted-2", "carol", ""),
        ("topic", "ann", "", "ours"),
        ("part", "deleted-2", "", ""),
    ]
    assert store.connection.execute(query).fetchall() == [("", "deleted-2", "now deleted-2")]


def test_room_that_ends_has_no_events(store: Store) -> None:
    store.apply(PartRoom(ANN, "ann", DEV_ID, "the last one"))
    assert store.connection.execute("SELECT count(*) FROM room_event").fetchone() == (0,)
    assert store.count() == 0


def test_direct_messages_have_no_events(store: Store) -> None:
    """Also if they are asked for."""
    entry = DirectMessage(ANN, "ann", ["hello"], [None], recipient_id=BOB, recipient="bob")
    store.apply(entry)
    assert len(store.read()) == 1, "the join"
