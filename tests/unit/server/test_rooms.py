"""Rooms in the store: entries against a plain model, limits at their edges, and reads of what a model holds."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace

from chatprotocol.errors import ErrorCode
from chatprotocol.events import PublicMessage, RoomModes, RoomRole, RoomSummary
from chatprotocol.events import Rooms as RoomsEvent
from chatprotocol.limits import ID_MAX, MEMBERS_MAX, ROOMS_JOINED_MAX, ROOMS_MAX, TOPIC_MAX_BYTES
from chatprotocol.wire import Json
from chatserver.chat.problems import problem_error
from chatserver.journal.apply import StoreLimits, Transaction, apply
from chatserver.journal.entries import (
    Entry,
    GuestClaim,
    GuestRelease,
    InviteUser,
    JoinRoom,
    KickMember,
    NewAccount,
    PartRoom,
    Problem,
    PublicMessages,
    RoomChange,
    SetRole,
    SetRoomModes,
    SetTopic,
    Stored,
)
from chatserver.memory import ShortOfMemoryError
from chatserver.store.database import Database
from chatserver.store.messages import Messages
from chatserver.store.rooms import DIRECT_ID, LOBBY_ID, Rooms, RoomView

from .helpers import memory_database

NAMES = ["", "alice", "bob", "carol", "dave"]
PERSONS = range(1, 5)
GUEST_ID, NOBODY_ID = 5, 6
LIMITS = StoreLimits(joined=2, rooms=3, members=3, room_id=9)
RUN = (RoomRole.OWNER, RoomRole.OPERATOR)
TIME_MS = 7


class ModelRoom:
    """A room of the model. ``roles`` has the members in the order of their joins."""

    def __init__(self, room_id: int, name: str, *, is_private: bool) -> None:
        self.id = room_id
        self.name = name
        self.topic = ""
        self.topic_by, self.topic_ms = "", 0
        self.modes = RoomModes(private=is_private)
        self.roles: dict[int, RoomRole] = {}
        self.invited: set[int] = set()
        self.sent: list[int] = []

    @property
    def last_id(self) -> int:
        return self.sent[-1] if self.sent else 0

    def is_known_to(self, account_id: int) -> bool:
        return not self.modes.private or account_id in self.roles or account_id in self.invited

    def change(self, old_role: RoomRole | None, role: RoomRole | None, **changes: Any) -> RoomChange:
        about = {"created_ms": TIME_MS, "topic_by": self.topic_by, "topic_ms": self.topic_ms, "modes": self.modes}
        where = (self.id, self.name, self.topic, self.modes.private, self.last_id)
        return RoomChange(*where, old_role, role, **about, **changes)

    def joined(self, old_role: RoomRole | None, role: RoomRole, **changes: Any) -> RoomChange:
        return self.change(old_role, role, roles=self.named_roles(), **changes)

    def named_roles(self) -> dict[str, RoomRole]:
        return {NAMES[each]: role for each, role in self.roles.items() if role is not RoomRole.MEMBER}


class Model:
    """Rooms that exist, by id. Each method gets an entry and returns its outcome."""

    def __init__(self) -> None:
        self.rooms: dict[int, ModelRoom] = {}
        self.lobby: list[int] = []
        self.newest_room_id = 1
        self.last_id = 0

    def find(self, name: str) -> ModelRoom | None:
        return next((room for room in self.rooms.values() if room.name.lower() == name.lower()), None)

    def rooms_of(self, account_id: int) -> list[ModelRoom]:
        return [room for room in self.rooms.values() if account_id in room.roles]

    def join(self, entry: JoinRoom) -> RoomChange | Problem:  # noqa: C901 - one case for each limit
        account_id, found = entry.account_id, self.find(entry.room)
        if found and account_id in found.roles:
            return found.joined(found.roles[account_id], found.roles[account_id], is_changed=False)
        room = found if found and found.is_known_to(account_id) else None
        if account_id not in PERSONS:
            return Problem.NOT_PERMITTED
        if room is None and not entry.may_create:
            return Problem.UNKNOWN_ROOM
        if len(self.rooms_of(account_id)) == LIMITS.joined:
            return Problem.TOO_MANY_ROOMS
        if room is not None:
            if account_id not in room.invited:
                if len(room.roles) + len(room.invited) == LIMITS.members:
                    return Problem.TOO_MANY_ROOMS
                if room.modes.key not in ("", entry.key):
                    return Problem.WRONG_KEY
                if room.modes.members_max and len(room.roles) >= room.modes.members_max:
                    return Problem.ROOM_FULL
            room.invited.discard(account_id)
            room.roles[account_id] = RoomRole.MEMBER
            return room.joined(None, RoomRole.MEMBER)
        if len(self.rooms) == LIMITS.rooms or self.newest_room_id == LIMITS.room_id:
            return Problem.TOO_MANY_ROOMS
        if found or entry.room.lower() == "lobby":
            return Problem.UNKNOWN_ROOM
        self.newest_room_id += 1
        room = self.rooms[self.newest_room_id] = ModelRoom(self.newest_room_id, entry.room, is_private=entry.is_private)
        room.roles[account_id] = RoomRole.OWNER
        return room.joined(None, RoomRole.OWNER, is_new=True)

    def part(self, entry: PartRoom) -> RoomChange | Problem:
        room = self._find_as_member(entry.room_id, entry.account_id)
        if isinstance(room, Problem):
            return room
        old_role = room.roles.pop(entry.account_id)
        if not room.roles:
            del self.rooms[room.id]
            return room.change(old_role, None, has_ended=True)
        if old_role is not RoomRole.OWNER:
            return room.change(old_role, None)
        operators = [each for each, role in room.roles.items() if role is RoomRole.OPERATOR]
        heir_id = (operators or list(room.roles))[0]
        room.roles[heir_id] = RoomRole.OWNER
        return room.change(old_role, None, heir_id=heir_id, heir=NAMES[heir_id])

    def kick(self, entry: KickMember) -> RoomChange | Problem:
        room = self._find_run_by(entry.room_id, entry.by_id)
        if isinstance(room, Problem):
            return room
        target = entry.account_id
        if target in room.invited:
            room.invited.remove(target)
            return room.change(None, None)
        if target not in room.roles:
            return Problem.USER_NOT_A_MEMBER
        if target == entry.by_id:
            return Problem.ONESELF
        if room.roles[target] is RoomRole.OWNER:
            return Problem.NOT_PERMITTED
        return room.change(room.roles.pop(target), None)

    def set_topic(self, entry: SetTopic) -> RoomChange | Problem:
        room = self._find_as_member(entry.room_id, entry.by_id)
        if isinstance(room, Problem):
            return room
        role = room.roles[entry.by_id]
        if role not in RUN and not room.modes.open_topic:
            return Problem.NOT_PERMITTED
        if room.topic == entry.topic:
            return room.change(role, role, is_changed=False)
        room.topic, room.topic_by, room.topic_ms = entry.topic, entry.by, TIME_MS
        return room.change(role, role)

    def set_modes(self, entry: SetRoomModes) -> RoomChange | Problem:
        room = self._find_run_by(entry.room_id, entry.by_id)
        if isinstance(room, Problem):
            return room
        old, role = room.modes, room.roles[entry.by_id]
        given = {name: getattr(entry, name) for name in ("private", "moderated", "open_topic", "key", "members_max")}
        room.modes = replace(old, **{name: value for name, value in given.items() if value is not None})
        return room.change(role, role, old_modes=old, is_changed=room.modes != old)

    def invite(self, entry: InviteUser) -> RoomChange | Problem:
        room = self._find_run_by(entry.room_id, entry.by_id)
        if isinstance(room, Problem):
            return room
        role = room.roles.get(entry.account_id)
        if role or entry.account_id in room.invited:
            return room.change(role, role, is_changed=False)
        if entry.account_id not in PERSONS:
            return Problem.NOT_PERMITTED
        if len(room.roles) + len(room.invited) == LIMITS.members:
            return Problem.TOO_MANY_ROOMS
        room.invited.add(entry.account_id)
        return room.change(None, None)

    def set_role(self, entry: SetRole) -> RoomChange | Problem:
        room = self._find_run_by(entry.room_id, entry.by_id)
        if isinstance(room, Problem):
            return room
        if (old_role := room.roles.get(entry.account_id)) is None:
            return Problem.USER_NOT_A_MEMBER
        if RoomRole.OWNER in (old_role, entry.role):
            return Problem.NOT_PERMITTED
        if entry.old_role is not None and entry.old_role is not old_role:
            return room.change(old_role, old_role, is_changed=False)
        room.roles[entry.account_id] = entry.role
        return room.change(old_role, entry.role, is_changed=old_role is not entry.role)

    def say(self, entry: PublicMessages) -> tuple[Stored, ...] | Problem:
        sent = self.lobby
        if entry.room_id != LOBBY_ID:
            room = self._find_as_member(entry.room_id, entry.sender_id)
            if isinstance(room, Problem):
                return room
            if room.modes.moderated and room.roles[entry.sender_id] is RoomRole.MEMBER:
                return Problem.MODERATED
            sent = room.sent
        first_id = self.last_id + 1
        self.last_id += len(entry.texts)
        sent += range(first_id, self.last_id + 1)
        return (Stored(0, len(entry.texts), first_id),)

    def _find_as_member(self, room_id: int, account_id: int) -> ModelRoom | Problem:
        room = self.rooms.get(room_id)
        if room is None or not room.is_known_to(account_id):
            return Problem.UNKNOWN_ROOM
        return room if account_id in room.roles else Problem.NOT_A_MEMBER

    def _find_run_by(self, room_id: int, account_id: int) -> ModelRoom | Problem:
        room = self._find_as_member(room_id, account_id)
        if isinstance(room, Problem) or room.roles[account_id] in RUN:
            return room
        return Problem.NOT_PERMITTED

    def apply(self, entry: Entry[Any]) -> Any:
        return {
            JoinRoom: self.join,
            PartRoom: self.part,
            KickMember: self.kick,
            SetTopic: self.set_topic,
            InviteUser: self.invite,
            SetRole: self.set_role,
            SetRoomModes: self.set_modes,
            PublicMessages: self.say,
        }[type(entry)](entry)  # type: ignore[operator]


accounts = st.sampled_from([*(1, 2, 3) * 5, 4, 4, GUEST_ID, NOBODY_ID])
rooms = st.sampled_from([*(2, 3) * 4, 4, 4, 5, LOBBY_ID, DIRECT_ID, 99])
room_names = st.sampled_from(["dev", "DEV", "plans", "ops", "x.y", "lobby"])
# A public room of alice and bob, and a private one that bob owns and carol may join.
FIRST: list[Entry[Any]] = [
    JoinRoom(1, "alice", "dev", is_private=False, may_create=True),
    JoinRoom(2, "bob", "DEV", is_private=False, may_create=True),
    JoinRoom(2, "bob", "Plans", is_private=True, may_create=True),
    InviteUser(3, 3, "", 2, "bob"),
]


def say(sender_id: int, texts: list[str], room_id: int) -> PublicMessages:
    return PublicMessages(sender_id, "", texts, [None] * len(texts), room_id)


joins = st.builds(
    lambda account_id, *rest, **modes: JoinRoom(account_id, (*NAMES, "erin", "")[account_id], *rest, **modes),
    accounts,
    room_names,
    is_private=st.booleans(),
    may_create=st.sampled_from([True, True, True, False]),
    key=st.sampled_from(["", "", "key", "other"]),
)
by = {"username": st.just(""), "by_id": accounts, "by": st.just("")}
room_entries: list[st.SearchStrategy[Entry[Any]]] = [
    joins,
    joins,
    st.builds(PartRoom, accounts, st.just(""), rooms),
    st.builds(KickMember, rooms, accounts, **by),
    st.builds(SetTopic, rooms, st.sampled_from(["", "tea"]), by_id=accounts, by=st.sampled_from(NAMES)),
    st.builds(
        SetRoomModes,
        rooms,
        accounts,
        st.just(""),
        private=st.none() | st.booleans(),
        moderated=st.none() | st.booleans(),
        open_topic=st.none() | st.booleans(),
        key=st.sampled_from([None, None, "", "key"]),
        members_max=st.sampled_from([None, None, 0, 1, 2, 3]),
    ),
    st.builds(InviteUser, rooms, accounts, **by),
    st.builds(
        SetRole,
        rooms,
        accounts,
        role=st.sampled_from(RoomRole),
        old_role=st.none() | st.sampled_from(RoomRole),
        **by,
    ),
    # Every account that writes exists.
    st.builds(
        say, accounts.filter(lambda each: each != NOBODY_ID), st.lists(st.just("text"), min_size=1, max_size=2), rooms
    ),
]


def start(database: Database, limits: StoreLimits, entries: Sequence[Entry[Any]] = ()) -> list[Any]:
    """Make the accounts, then apply the entries in one transaction; return the outcomes."""
    with database.transaction() as connection:
        applying = Transaction(connection, TIME_MS, 0, limits)
        for name in NAMES[1:]:
            assert apply(applying, NewAccount(name, "hash")) is not None
        guest = apply(applying, GuestClaim("erin"))
        assert guest is not None
        assert guest.id == GUEST_ID
        apply(applying, GuestRelease("erin", guest.claim))  # one who is there: see test_guest_rooms.py
        return [apply(applying, entry) for entry in entries]


# The operator is the heir before an older member; then the oldest member, until the room ends.
SUCCESSION: list[Entry[Any]] = [
    JoinRoom(3, "", "dev", is_private=False, may_create=False),
    SetRole(2, 3, "", 1, "", RoomRole.OPERATOR),
    KickMember(2, 3, "", 3, ""),
    KickMember(2, 1, "", 3, ""),
    *(PartRoom(account_id, "", 2) for account_id in (1, 3, 2)),
]
# An invitation holds a place in a full room; after it was taken back, there is one.
FULL: list[Entry[Any]] = [
    InviteUser(3, 1, "", 2, ""),
    InviteUser(3, 4, "", 2, ""),
    JoinRoom(3, "", "plans", is_private=False, may_create=False),
    KickMember(3, 1, "", 2, ""),
    JoinRoom(1, "", "plans", is_private=False, may_create=True),
    InviteUser(3, 4, "", 2, ""),
    JoinRoom(4, "", "plans", is_private=False, may_create=False),
]
# Carol needs the key, or an invitation; it opens a room that is full.
KEY: list[Entry[Any]] = [
    SetRoomModes(2, 1, "", key="key"),
    *(JoinRoom(3, "carol", "dev", is_private=False, may_create=False, key=key) for key in ("", "other", "key")),
    PartRoom(3, "", 2),
    SetRoomModes(2, 1, "", members_max=2),
    JoinRoom(3, "carol", "dev", is_private=False, may_create=False, key="key"),
    InviteUser(2, 3, "", 1, ""),
    JoinRoom(3, "carol", "dev", is_private=False, may_create=False),
]
# Bob has no voice, gets one, and does not become an operator by it; and the topic is opened for all.
MODERATED: list[Entry[Any]] = [
    SetRoomModes(2, 1, "", moderated=True),
    PublicMessages(2, "", ["text"], [None], 2),
    SetRole(2, 2, "", 1, "", RoomRole.VOICE, RoomRole.MEMBER),
    PublicMessages(2, "", ["text"], [None], 2),
    SetRole(2, 2, "", 2, "", RoomRole.OPERATOR),
    SetTopic(2, "tea", 2, "bob"),
    SetRoomModes(2, 1, "", open_topic=True),
    SetTopic(2, "tea", 2, "bob"),
    SetRole(2, 2, "", 1, "", RoomRole.MEMBER, RoomRole.OPERATOR),
    SetRole(2, 2, "", 1, "", RoomRole.MEMBER, RoomRole.VOICE),
    PublicMessages(2, "", ["text"], [None], 2),
    PublicMessages(1, "", ["text"], [None], 2),
]

# The owner neither gives its role to another one nor loses it.
OWNER: list[Entry[Any]] = [
    SetRole(2, 2, "", 1, "", RoomRole.OWNER),
    SetRole(2, 1, "", 1, "", RoomRole.OPERATOR),
]


@example(SUCCESSION)
@example(FULL)
@example(KEY)
@example(MODERATED)
@example(OWNER)
@given(st.lists(st.one_of(room_entries), min_size=20, max_size=60))
def test_rooms_behave_like_the_model(entries: list[Entry[Any]]) -> None:
    """Promises: outcome of any entry, whoever sends it; and afterwards every read, for each account.

    A private room is unknown to those who are neither in it nor invited, and nobody else reads its messages.
    """
    entries = FIRST + entries
    model = Model()
    with memory_database() as database, database.reading() as connection:
        for entry, outcome in zip(entries, start(database, LIMITS, entries), strict=True):
            if isinstance(outcome, RoomChange):  # its places: see test_room_events.py
                outcome = replace(outcome, place=None, heir_place=None)  # noqa: PLW2901
            assert outcome == model.apply(entry), entry
        for account_id in (*PERSONS, GUEST_ID, NOBODY_ID):
            assert_reads(database, model, account_id)
        assert Rooms(database).roles(range(LIMITS.room_id)) == {
            room_id: room.named_roles() for room_id, room in model.rooms.items() if room.named_roles()
        }
        for room_id, room in model.rooms.items():
            query = "SELECT account_id, role FROM membership WHERE conversation_id = ? AND role <> 'invited'"
            assert dict(connection.execute(query, (room_id,))) == room.roles
        count = sum(len(room.roles) + len(room.invited) for room in model.rooms.values())
        query = "SELECT (SELECT count(*) FROM membership), sum(member_count + invited_count) FROM conversation"
        assert connection.execute(query).fetchone() == (count, count), "nothing is left of rooms that have ended"


def assert_reads(database: Database, model: Model, account_id: int) -> None:
    reads, messages = Rooms(database), Messages(database)
    by_name = sorted(model.rooms.values(), key=lambda room: room.name.lower())
    known = [room for room in by_name if room.is_known_to(account_id)]
    views = {
        room.name: RoomView(
            room.id,
            room.name,
            room.topic,
            room.modes.private,
            room.roles.get(account_id),
            account_id in room.invited,
            room.last_id,
            room.modes,
            TIME_MS,
            room.topic_by,
            room.topic_ms,
        )
        for room in known
    }
    for room in by_name:
        assert reads.find(account_id, room.name.swapcase()) == views.get(room.name)
    assert reads.find(account_id, "lobby") is reads.find(account_id, "nosuch") is None
    joined = [room for room in by_name if account_id in room.roles]
    assert reads.of_account(account_id) == [views[room.name] for room in joined]
    assert reads.visible_to(account_id) == tuple(
        RoomSummary(
            room.name,
            room.topic,
            len(room.roles),
            account_id in room.roles,
            room.modes.private,
            room.roles.get(account_id, RoomRole.MEMBER),
            account_id in room.invited,
            bool(room.modes.key),
        )
        for room in known
    )
    readable = {room.id: room.sent for room in joined}
    for room_id in range(2, LIMITS.room_id + 1):
        sent = readable.get(room_id, [])
        found = messages.history(account_id, ID_MAX, 500, room_id)
        assert [each.id for each in found] == sent
        assert [each.id for each in messages.missed(account_id, {room_id: 0}, ID_MAX, 500)] == sent
        assert [each.id for each in messages.visible(account_id, range(200), room_id)] == sent
        name = model.rooms[room_id].name if sent else ""
        assert all(isinstance(each, PublicMessage) and each.room == name for each in found)
    assert [each.id for each in messages.history(account_id, ID_MAX, 500)] == model.lobby
    merged = sorted([*model.lobby, *(each for sent in readable.values() for each in sent)])
    found = messages.missed(account_id, dict.fromkeys(range(LIMITS.room_id + 1), 0), ID_MAX, 500)
    assert [each.id for each in found] == merged


def join(account_id: int, room: str) -> JoinRoom:
    return JoinRoom(account_id, "", room, is_private=False, may_create=True)


def too_many(outcomes: Sequence[Any]) -> list[int]:
    """Places of the outcomes that are TOO_MANY_ROOMS; the others are no problems."""
    assert {each for each in outcomes if isinstance(each, Problem)} <= {Problem.TOO_MANY_ROOMS}
    return [number for number, each in enumerate(outcomes) if each is Problem.TOO_MANY_ROOMS]


def test_account_is_in_100_rooms_at_most(database: Database) -> None:
    """A place that becomes free can be taken; joining a room again needs none."""
    joins = [join(1, f"room{number}") for number in range(ROOMS_JOINED_MAX + 1)]
    later = [joins[0], PartRoom(1, "alice", 2), joins[-1], joins[0]]
    assert too_many(start(database, StoreLimits(), [*joins, *later])) == [ROOMS_JOINED_MAX, ROOMS_JOINED_MAX + 4]


def test_server_has_1000_rooms_at_most(database: Database) -> None:
    people = [NewAccount(f"user{number}", "hash") for number in range(ROOMS_MAX // ROOMS_JOINED_MAX)]
    first_id = GUEST_ID + 1
    joins = [join(first_id + number % len(people), f"room{number}") for number in range(ROOMS_MAX)]
    later = [join(1, "another"), join(1, "room0"), PartRoom(first_id + 1, "", 3), join(1, "another"), join(2, "more")]
    outcomes = start(database, StoreLimits(), [*people, *joins, *later])
    assert too_many(outcomes) == [len(people) + ROOMS_MAX, len(outcomes) - 1]


def test_list_of_rooms_claims_its_memory_first(database: Database) -> None:
    """Promise: a request for which there is no memory is refused. A thousand topics take a megabyte."""
    topics = [SetTopic(number, '"' * TOPIC_MAX_BYTES, 1, "alice") for number in range(2, 102)]
    start(database, StoreLimits(), [*(join(1, f"room{number}") for number in range(100)), *topics])
    claimed: list[int] = []
    found = Rooms(database, claimed.append).visible_to(2)
    assert len(found) == 100
    assert claimed[0] > len(Json().encode_all([RoomsEvent(found)])) + 100 * 3 * TOPIC_MAX_BYTES

    def refuse(_: int) -> None:
        raise ShortOfMemoryError

    with pytest.raises(ShortOfMemoryError):
        Rooms(database, refuse).visible_to(2)


def test_room_has_10000_members_and_invitations_at_most(database: Database) -> None:
    people = [NewAccount(f"user{number}", "hash") for number in range(MEMBERS_MAX)]
    first_id = GUEST_ID + 1
    invitations = [InviteUser(2, first_id + number, "", 1, "alice") for number in range(MEMBERS_MAX)]
    last_id = first_id + MEMBERS_MAX - 1
    later = [join(first_id, "dev"), join(last_id, "dev"), KickMember(2, first_id, "", 1, "alice"), join(last_id, "dev")]
    outcomes = start(database, StoreLimits(), [*people, join(1, "dev"), *invitations, *later])
    assert too_many(outcomes) == [2 * MEMBERS_MAX, 2 * MEMBERS_MAX + 2]
    assert outcomes[-1].role is RoomRole.MEMBER


def test_ids_of_rooms_are_not_used_again(database: Database) -> None:
    """Nobody reads or writes in a later room of the same name, or of the same id, what was meant for the first one."""
    entries = [join(1, "dev"), say(1, ["old"], 2), PartRoom(1, "alice", 2), join(1, "dev"), say(1, ["lost"], 2)]
    outcomes = start(database, StoreLimits(room_id=3), [*entries, PartRoom(1, "alice", 3), join(1, "dev")])
    assert outcomes[2].has_ended
    assert (outcomes[3].room_id, outcomes[3].last_id, outcomes[3].is_new) == (3, 0, True)
    assert outcomes[4] is Problem.UNKNOWN_ROOM
    assert outcomes[-1] is Problem.TOO_MANY_ROOMS, "the ids are used up"
    assert Messages(database).history(1, ID_MAX, 10, 2) == ()


def test_error_tells_who_is_not_in_the_room() -> None:
    """The one who asks may have been removed between the check and the commit."""
    errors = [problem_error(each, "dev", "bob") for each in (Problem.NOT_A_MEMBER, Problem.USER_NOT_A_MEMBER)]
    assert [each.reason.split(";")[0] for each in errors] == [
        "You are not in the room dev", "bob is not in the room dev",
    ]  # fmt: skip
    assert {(each.code, each.room) for each in errors} == {(ErrorCode.NOT_A_MEMBER, "dev")}
