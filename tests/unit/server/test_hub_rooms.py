"""Rooms in the hub: which connections get the messages and events of a room, between which entries, and its buffers."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import count

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace

from chatprotocol.errors import ErrorCode
from chatprotocol.events import (
    Banned,
    Bye,
    Deleted,
    DirectDeleted,
    Event,
    EventPlace,
    Invited,
    InvitedMember,
    Joined,
    Kicked,
    ModesMoved,
    Parted,
    PublicMessage,
    Refused,
    Reported,
    RoleChanged,
    RoleMoved,
    RoomModes,
    RoomRole,
    SanctionKind,
    Sent,
    SentStatus,
    TimeMs,
    TopicChanged,
    TopicUnchanged,
    Users,
)
from chatserver.chat.presence import Presence
from chatserver.chat.room import Member
from chatserver.journal import entries
from chatserver.journal.base import Applied
from chatserver.journal.entries import (
    DeletedMessage,
    Entry,
    Moderated,
    Problem,
    PublicMessages,
    Removed,
    RoomChange,
    Stored,
)
from chatserver.store.accounts import Role
from chatserver.store.messages import IndexedMessage
from chatserver.store.rooms import DIRECT_ID, LOBBY_ID, RoomView

from .helpers import FakeBroadcast, FakeSendQueue, join_hub, make_hub

NAMES = ("alice", "bob", "carol")
# Ids of the rooms, by name.
ROOMS = {"dev": 2, "ops": 3}


class Journal:
    """A hub, and a journal in front of it: memberships, ids, and what each connection should have received."""

    def __init__(self) -> None:
        self.lobby = FakeBroadcast()
        # The buffers of rooms that are open.
        self.opened: list[FakeBroadcast] = []
        self.presence = Presence(1_000.0, lambda _: None)
        self.wakes: list[None] = []
        # What guests, and the search index, were told of.
        self.expelled: list[object] = []
        self.deleted: list[object] = []
        self.removals: list[object] = []
        self.users, self.hub = make_hub(
            {"json": self.lobby},
            self.presence,
            open_buffer=self._open,
            close_buffer=self.opened.remove,
            wake=partial(self.wakes.append, None),
            changed=[partial(self._note, noted) for noted in (self.expelled, self.deleted, self.removals)],
        )
        self.members: dict[str, set[str]] = {room: set() for room in ROOMS}
        self.online: list[Connection] = []
        self._ids = count(11)
        self._portion: list[Applied] = []

    def _note(self, noted: list[object], value: object = None) -> None:
        self.users.last_id()  # takes the lock
        noted.append(value)

    def _open(self, protocol: str) -> FakeBroadcast:
        self.opened.append(FakeBroadcast(protocol))
        return self.opened[-1]

    def append(self, entry: Entry[object], outcome: object, origin: "Connection | None") -> None:
        self._portion.append(Applied(entry, outcome, origin.member if origin else None, 0))

    def commit(self) -> None:
        """Publish what was appended."""
        portion, self._portion = self._portion, []
        self.hub.handle_applied(portion)

    def rooms_of(self, name: str) -> list[RoomView]:
        rooms = sorted(room for room, members in self.members.items() if name in members)
        return [RoomView(ROOMS[room], room, "", False, RoomRole.MEMBER, False, 0) for room in rooms]

    def log_in(self, name: str, *, knows_rooms: bool) -> "Connection":
        connection = Connection(self, name, knows_rooms=knows_rooms)
        self.online.append(connection)
        return connection

    def log_out(self, connection: "Connection") -> None:
        self.users.leave(connection.member)
        self.online.remove(connection)

    def aware(self, name: str) -> "Iterator[Connection]":
        return (each for each in self.online if each.name == name and each.member.knows_rooms)

    def followers(self, room: str) -> "list[Connection]":
        return [each for name in self.members[room] for each in self.aware(name)]

    def say(self, by: "Connection", room: str, texts: list[str]) -> None:
        if not by.member.knows_rooms:
            self.users.show_rooms(by.member)
        batch = PublicMessages(by.member.account_id, by.name, texts, [None] * len(texts), ROOMS[room], room)
        if by.name not in self.members[room]:
            self.append(batch, Problem.NOT_A_MEMBER, by)
            by.note(room, *["refused"] * len(texts))
            return
        first_id, *_ = (next(self._ids) for _ in texts)
        self.append(batch, (Stored(0, len(texts), first_id),), by)
        for each in self.followers(room):
            each.note(room, *((first_id + at, "sent" if each is by else text) for at, text in enumerate(texts)))

    def join(self, by: "Connection", room: str) -> None:
        if not by.member.knows_rooms:
            self.users.show_rooms(by.member)
        is_new = by.name not in self.members[room]
        self.members[room].add(by.name)
        entry = entries.JoinRoom(by.member.account_id, by.name, room, is_private=False, may_create=True)
        change = RoomChange(ROOMS[room], room, "", False, 0, None, RoomRole.MEMBER, is_changed=is_new)
        self.append(entry, change, by)
        for each in self.aware(by.name) if is_new else [by]:
            each.note(room, "joined")

    def part(self, name: str, room: str, by: "str | None") -> None:
        """Another member kicks the user, or it parts."""
        if name not in self.members[room]:
            return
        self.members[room].remove(name)
        change = RoomChange(ROOMS[room], room, "", False, 0, RoomRole.MEMBER)
        account_id, room_id = NAMES.index(name), ROOMS[room]
        if by is None:
            self.append(entries.PartRoom(account_id, name, room_id), change, None)
        else:
            self.append(entries.KickMember(room_id, account_id, name, NAMES.index(by), by), change, None)
            for each in self.followers(room):
                each.note(room, f"kicked {name}")
        for each in self.aware(name):
            each.note(room, "parted")


class Connection:
    """A connection of a user, and what it should have received of each room."""

    def __init__(self, journal: Journal, name: str, *, knows_rooms: bool) -> None:
        self.name = name
        self.queue = FakeSendQueue(journal.lobby)
        self.member = Member(NAMES.index(name), name, self.queue, knows_rooms=knows_rooms)
        self.expected: dict[str, list[object]] = {room: [] for room in ROOMS}
        self._rooms_of_sent: dict[int, str] = {}
        join_hub(journal.users, self.member, journal.rooms_of(name))

    def note(self, room: str, *events: object) -> None:
        self.expected[room] += events
        self._rooms_of_sent |= {each[0]: room for each in events if isinstance(each, tuple)}

    def received(self) -> dict[str, list[object]]:
        """The events of each room, in short."""
        received: dict[str, list[object]] = {room: [] for room in ROOMS}
        for event in self.queue.received():
            match event:
                case PublicMessage(room=str(room)):
                    received[room].append((event.id, event.text))
                case Sent():
                    received[self._rooms_of_sent[event.id]].append((event.id, "sent"))
                case Refused(code=ErrorCode.NOT_A_MEMBER, room=str(room)):
                    received[room].append("refused")
                case Joined():
                    received[event.room].append("joined")
                case Parted():
                    received[event.room].append("parted")
                case Kicked():
                    received[event.room].append(f"kicked {event.username}")
                case _:
                    pytest.fail(f"{event}")
        return received


ROOM = st.sampled_from(["dev", "dev", "ops"])
WHO = st.integers(0, 2)
STEPS = st.one_of(
    st.tuples(st.just("log in"), st.sampled_from(NAMES), st.booleans()),
    st.tuples(st.just("log out"), WHO),
    st.tuples(st.just("join"), WHO, ROOM),
    st.tuples(st.just("join"), WHO, ROOM),
    st.tuples(st.just("part"), WHO, ROOM),
    st.tuples(st.just("kick"), WHO, ROOM, st.sampled_from(NAMES)),
    st.tuples(st.just("say"), WHO, ROOM, st.lists(st.sampled_from("abc"), min_size=1, max_size=3)),
    st.tuples(st.just("say"), WHO, ROOM, st.lists(st.sampled_from("abc"), min_size=1, max_size=3)),
    st.just(("commit",)),
)


def play(journal: Journal, step: tuple[object, ...]) -> None:
    """Play a step. Logins and first requests about rooms happen between commits only."""
    match step:
        case ("log in", str(name), bool(knows_rooms)):
            journal.commit()
            journal.log_in(name, knows_rooms=knows_rooms)
        case ("commit",):
            journal.commit()
        case (str(kind), int(who), *rest) if journal.online:
            connection = journal.online[who % len(journal.online)]
            if kind == "log out" or not connection.member.knows_rooms:
                journal.commit()
            match (kind, *rest):
                case ("log out",):
                    journal.log_out(connection)
                case ("join", str(room)):
                    journal.join(connection, room)
                case ("part", str(room)):
                    journal.part(connection.name, room, None)
                case ("kick", str(room), str(name)):
                    journal.part(name, room, connection.name)
                case ("say", str(room), list(texts)):
                    journal.say(connection, room, texts)


@given(steps=st.lists(STEPS, min_size=10, max_size=40))
@example(steps=[("join", 0, "dev"), ("say", 0, "dev", ["a"]), ("join", 1, "dev"), ("say", 0, "dev", ["b"])])
@example(steps=[("join", 0, "dev"), ("join", 1, "dev"), ("say", 0, "dev", ["a"]), ("part", 1, "dev")])
def test_each_member_gets_the_messages_of_its_memberships_in_order_and_once(steps: list[tuple[object, ...]]) -> None:
    """Whatever is committed together. A room has a buffer while a connection that knows rooms follows it."""
    journal = Journal()
    everybody: list[Connection] = []
    for step in (("log in", "alice", True), ("log in", "bob", True), ("log in", "alice", False), *steps, ("commit",)):
        play(journal, step)
        everybody += [each for each in journal.online if each not in everybody]
    for connection in everybody:
        if connection in journal.online:
            assert connection.received() == connection.expected
    assert len(journal.opened) == sum(bool(journal.followers(room)) for room in ROOMS)
    for room, room_id in ROOMS.items():
        online = {each.name for each in journal.online}
        assert set(journal.presence.names(room_id)) == journal.members[room] & online
    for connection in [*journal.online]:
        journal.log_out(connection)
    assert journal.opened == []
    journal.wakes.clear()
    for room_id in ROOMS.values():
        journal.hub.announce(room_id, Users(), 1)
    assert journal.wakes == [], "the hub has forgotten the rooms"


@pytest.fixture
def journal() -> Journal:
    return Journal()


@pytest.fixture
def join(journal: Journal) -> Callable[..., Connection]:
    """Log a user in, on a connection that is in dev."""

    def join(name: str) -> Connection:
        connection = journal.log_in(name, knows_rooms=True)
        journal.join(connection, "dev")
        journal.commit()
        return connection

    return join


def new_events(connection: Connection, skipped: int) -> list[Event]:
    return connection.queue.received()[skipped:]


def change(role: RoomRole | None = None, *, is_changed: bool = True, old_role: RoomRole | None = None) -> RoomChange:
    """It has a place, which these connections are not told: they don't track members."""
    place = EventPlace(17, 1, 2, TimeMs(5))
    return RoomChange(ROOMS["dev"], "dev", "tea", False, 17, old_role, role, is_changed=is_changed, place=place)


@pytest.mark.parametrize(
    ("entry", "outcome", "alices", "bobs"),
    [
        (entries.SetTopic(2, "tea", 0, "alice"), change(), "same", [TopicChanged("dev", "tea", "alice")]),
        (entries.SetTopic(2, "tea", 0, "alice"), change(is_changed=False), [TopicUnchanged("dev", "tea", "alice")], []),
        (
            entries.SetRole(2, 1, "bob", 0, "alice", RoomRole.OPERATOR),
            change(RoomRole.OPERATOR, old_role=RoomRole.VOICE),
            "same",
            [RoleMoved(room="dev", username="bob", role=RoomRole.OPERATOR, by="alice", old_role=RoomRole.VOICE)],
        ),
        (
            entries.SetRoomModes(2, 0, "alice", moderated=True),
            replace(change(), modes=RoomModes(moderated=True), old_modes=RoomModes(), created_ms=5),
            "same",
            [ModesMoved(room="dev", modes=RoomModes(moderated=True), by="alice", old=RoomModes(), created_ms=5)],
        ),
        (
            entries.SetRoomModes(2, 0, "alice", moderated=True),
            replace(change(is_changed=False), modes=RoomModes(moderated=True), old_modes=RoomModes(moderated=True)),
            [ModesMoved(room="dev", modes=RoomModes(moderated=True), by="alice", old=RoomModes(moderated=True))],
            [],
        ),
        (
            entries.SetRole(2, 1, "bob", 0, "alice", RoomRole.MEMBER),
            change(RoomRole.MEMBER, is_changed=False),
            [RoleMoved(room="dev", username="bob", role=RoomRole.MEMBER, by="alice")],
            [],
        ),
        (entries.InviteUser(2, 1, "bob", 0, "alice"), change(), "same", [Invited("dev", "bob", "alice")]),
        (
            entries.InviteUser(2, 1, "bob", 0, "alice"),
            change(RoomRole.MEMBER, is_changed=False),
            [InvitedMember("dev", "bob", "alice")],
            [],
        ),
        (
            entries.InviteUser(2, 1, "bob", 0, "alice"),
            replace(change(), is_ignored=True),
            [Invited("dev", "bob", "alice")],
            [],
        ),
        (
            entries.KickMember(2, 1, "bob", 0, "alice"),
            change(old_role=RoomRole.MEMBER),
            [Kicked(room="dev", username="bob", by="alice")],
            [Parted("dev", "alice")],
        ),
        (
            entries.KickMember(2, 2, "carol", 0, "alice"),
            change(),
            [Kicked(room="dev", username="carol", by="alice")],
            [],
        ),
        (
            entries.PartRoom(2, "carol", 2),
            RoomChange(2, "dev", "", False, 0, RoomRole.OWNER, None, heir_id=1, heir="bob"),
            "same",
            [RoleChanged(room="dev", username="bob", role=RoomRole.OWNER)],
        ),
        (entries.SetTopic(2, "tea", 0, "alice"), Problem.NOT_PERMITTED, [], []),
        (entries.SetTopic(2, "tea", 0, "alice"), OSError("disk full"), [], []),
    ],
)
def test_change_is_told_to_those_that_it_concerns(
    journal: Journal,
    join: Callable[[str], Connection],
    entry: Entry[object],
    outcome: object,
    alices: list[Event] | str,
    bobs: list[Event],
) -> None:
    """A request that changes nothing is answered on its connection alone; a refused one by the session."""
    alice, bob = join("alice"), join("bob")
    old = journal.log_in("bob", knows_rooms=False)
    before = [len(each.queue.received()) for each in (alice, bob)]
    journal.append(entry, outcome, alice)
    journal.commit()
    assert new_events(bob, before[1]) == bobs
    assert new_events(alice, before[0]) == (bobs if alices == "same" else alices)
    assert old.queue.received() == []


def test_refused_message_names_the_room_as_its_sender_did(journal: Journal, join: Callable[[str], Connection]) -> None:
    """The confirmations before it come first."""
    bob = join("bob")
    before = len(bob.queue.received())
    batch = PublicMessages(1, "bob", ["one"], ["n1"], 2, "DEV")
    journal.append(batch, (Stored(0, 1, 11),), bob)
    journal.append(batch, Problem.UNKNOWN_ROOM, bob)
    journal.append(batch, OSError("disk full"), bob)
    journal.commit()
    sent, unknown, full = new_events(bob, before)
    assert sent == Sent(11, SentStatus.SENT, "n1")
    assert [(each.code, each.nonce, each.room) for each in (unknown, full)] == [  # type: ignore[union-attr]
        (ErrorCode.UNKNOWN_ROOM, "n1", "DEV"), (ErrorCode.INTERNAL, "n1", "DEV"),
    ]  # fmt: skip


@pytest.mark.parametrize("is_online", [False, True])
def test_login_reads_again_if_the_rooms_changed_meanwhile(journal: Journal, *, is_online: bool) -> None:
    """Also if the store is ahead of the hub, which knows the rooms of a user who is online. Else a room is missed."""
    if is_online:
        journal.log_in("alice", knows_rooms=True)
    carol = journal.log_in("carol", knows_rooms=True)
    journal.join(carol, "dev")
    journal.commit()
    queue = FakeSendQueue(journal.lobby)
    late = Member(0, "alice", queue, knows_rooms=True)
    journal.users.begin_join(late)
    read = journal.rooms_of("alice")
    journal.append(
        entries.JoinRoom(0, "alice", "dev", is_private=False, may_create=True), change(RoomRole.MEMBER), None
    )
    journal.members["dev"].add("alice")
    if is_online:
        assert journal.users.join(late, journal.rooms_of("alice")) is None
    journal.commit()
    assert journal.users.join(late, read) is None
    assert journal.users.join(late, journal.rooms_of("alice")) is not None
    journal.say(carol, "dev", ["hello"])
    journal.commit()
    assert [each for each in queue.received() if isinstance(each, PublicMessage)] == [
        PublicMessage(11, 0, "carol", "hello", "dev")  # type: ignore[arg-type]
    ]


def test_kick_during_a_login_lets_it_read_again(journal: Journal) -> None:
    """Perhaps the account was deleted after the password was checked."""
    late = Member(0, "alice", FakeSendQueue(journal.lobby))
    journal.users.begin_join(late)
    kick = entries.KickFromServer(by_id=0, by="admin", account_id=0, username="alice")
    journal.append(kick, entries.Moderated(), None)
    journal.commit()
    assert journal.users.join(late, []) is None
    assert journal.users.join(late, []) is not None


def test_login_that_fails_leaves_nothing(journal: Journal) -> None:
    member = Member(0, "alice", FakeSendQueue(journal.lobby), knows_rooms=True)
    journal.members["dev"].add("alice")
    journal.users.begin_join(member)
    journal.users.cancel_join(member)
    alice = journal.log_in("alice", knows_rooms=True)
    assert journal.presence.names(ROOMS["dev"]) == ("alice",)
    journal.log_out(alice)
    assert journal.presence.names(ROOMS["dev"]) == ()


def test_update_of_a_room_reaches_followers_that_have_seen_less(
    journal: Journal, join: Callable[[str], Connection]
) -> None:
    """``joined`` shows the users of the room; a login does not."""
    alice, bob = join("alice"), join("bob")
    again, old = journal.log_in("alice", knows_rooms=True), journal.log_in("alice", knows_rooms=False)
    _, version = journal.presence.users()
    before = [len(each.queue.received()) for each in (alice, bob)]
    update = Users(None, ("alice", "bob"), ("bob",), (), "dev")
    journal.hub.announce(ROOMS["dev"], update, version - 1)
    assert new_events(alice, before[0]) == [update]
    assert new_events(bob, before[1]) == []
    assert (again.queue.received(), old.queue.received()) == ([update], [])
    for each in (alice, bob, again, old):
        journal.log_out(each)
    journal.hub.announce(ROOMS["dev"], update, version)


@pytest.mark.parametrize(
    ("entry", "outcome"),
    [
        (entries.Sanction(kind=SanctionKind.BAN, account_id=1, username="bob", by_id=0, by="admin"), Moderated()),
        (entries.Sanction(kind=SanctionKind.BAN, network="192.0.2.0/24", by_id=0, by="admin"), Moderated()),
        (entries.SetServerRole(account_id=1, username="bob", role=Role.OPERATOR, by_id=0, by="admin"), Moderated()),
        (entries.RevokeTokens(1, "id"), entries.Revoked(("id",))),
        (entries.AddToken(1, "hash", "new", "phone"), entries.Revoked(("id",))),
        (entries.PasswordChange(1, "old", "new"), True),
    ],
)
@pytest.mark.parametrize("is_online", [False, True])
def test_login_reads_again_if_the_rights_of_its_user_changed_meanwhile(
    journal: Journal, entry: Entry[object], outcome: object, *, is_online: bool
) -> None:
    """Else a ban between the check of a login and its join would have no effect; or the end of its session."""
    if is_online:
        journal.log_in("bob", knows_rooms=True)
    member = Member(1, "bob", FakeSendQueue(journal.lobby))
    journal.users.begin_join(member)
    journal.append(entry, outcome, None)
    journal.commit()
    assert journal.users.join(member, []) is None
    assert journal.users.join(member, []) is not None


def test_deleted_direct_message_is_told_to_both_with_their_names(journal: Journal) -> None:
    """Protocols such as irc show a deletion in the conversation. Who ignores the other one gets no reason."""
    alice, bob = (journal.log_in(name, knows_rooms=True) for name in ("alice", "bob"))
    bob.member.knows_moderation = True
    delete = entries.DeleteMessage(message_id=11, by_id=0, by="alice", reason="typo")
    for is_ignored in (False, True):
        outcome = DeletedMessage(DIRECT_ID, 0, 1, "text", None, "alice", "bob", is_ignored=is_ignored)
        journal.append(delete, outcome, alice)
    journal.commit()
    deleted = DirectDeleted(11, "alice", reason="typo", sender="alice", recipient="bob")
    assert alice.queue.received() == [deleted, deleted]
    assert bob.queue.received() == [deleted, replace(deleted, reason="")]


def test_banned_user_gets_what_came_before_and_then_the_reason(journal: Journal) -> None:
    """All of its connections end, and no other one. Guests and the search index are told without the hub's lock."""
    bobs = [journal.log_in("bob", knows_rooms=True) for _ in range(2)]
    alice = journal.log_in("alice", knows_rooms=True)
    for each in (*bobs, alice):
        each.member.knows_moderation = True
    batch = PublicMessages(0, "alice", ["before"], [None])
    ban = entries.Sanction(
        kind=SanctionKind.BAN, account_id=1, username="bob", reason="spam", seconds=60, by_id=0, by="alice"
    )
    journal.append(batch, (Stored(0, 1, 11),), alice)
    journal.append(ban, Moderated(None, 60_000), alice)
    delete = entries.DeleteMessage(message_id=11, by_id=0, by="alice")
    journal.append(delete, DeletedMessage(LOBBY_ID, 0, None, "before"), alice)
    journal.append(delete, DeletedMessage(LOBBY_ID, 0, None, ""), alice)
    journal.commit()
    banned = Banned(username="bob", by="alice", until=TimeMs(60_000), reason="spam")
    for bob in bobs:
        message, *told = bob.queue.received()
        assert (message.text, told) == ("before", [banned, Deleted(11, "alice")])  # type: ignore[union-attr]
        assert bob.queue.replies == [Bye("you are banned until 1970-01-01 00:01 UTC: spam", ErrorCode.BANNED)]
        assert bob.queue.hangs_up
    assert alice.queue.received()[1:] == [banned, Deleted(11, "alice"), Deleted(11, "alice")]
    assert not alice.queue.is_finished
    assert journal.expelled == [ban]
    assert journal.deleted == [IndexedMessage(11, LOBBY_ID, 0, None, "before")]


@pytest.mark.parametrize("step", [entries.Prune(0, 0, 9), entries.EraseMessages(0, "alice", 0, 9)])
def test_search_index_is_told_of_a_removal_after_its_last_step(journal: Journal, step: Entry[object]) -> None:
    """Promise: it shrinks on all servers, not only on the one that removes old messages."""
    for outcome in (Removed(9, 9), OSError("disk full"), Removed(0, None)):
        journal.append(step, outcome, None)
        journal.commit()
        assert bool(journal.removals) == (outcome == Removed(0, None))


def test_ban_of_a_network_looks_at_addresses_without_the_lock(journal: Journal) -> None:
    """Promise: no client waits for another one. Ten thousand addresses take a tenth of a second."""

    class Address(str):
        __slots__ = ()

        def partition(self, sep: str) -> tuple[str, str, str]:
            journal.users.last_id()  # takes the lock
            return super().partition(sep)

    bob, alice = (journal.log_in(name, knows_rooms=True) for name in ("bob", "alice"))
    bob.member.address, alice.member.address = Address("192.0.2.7"), Address("192.0.3.7")
    ban = entries.Sanction(kind=SanctionKind.BAN, network="192.0.2.0/24", by_id=0, by="alice")
    journal.append(ban, Moderated(), alice)
    journal.commit()
    assert (bob.queue.hangs_up, alice.queue.hangs_up) == (True, False)


def test_operators_of_the_server_are_told_from_their_appointment_on(journal: Journal) -> None:
    """The appointment itself is the first event. Other users, and connections without moderation, get none."""
    alice, old, bob = (journal.log_in(name, knows_rooms=True) for name in ("alice", "alice", "bob"))
    alice.member.knows_moderation = bob.member.knows_moderation = True
    report = entries.Report(account_id=2, username="carol", reason="rude", by_id=1, by="bob")
    for role in (Role.OPERATOR, Role.USER):
        journal.append(report, Moderated(), bob)
        appointed = entries.SetServerRole(account_id=0, username="alice", role=role, by_id=0, by="the administrator")
        journal.append(appointed, Moderated(), None)
    journal.append(report, Moderated(), bob)
    journal.commit()
    reported = Reported(username="carol", by="bob", reason="rude")
    appointed_and_dismissed = [
        RoleChanged(username="alice", role=role, by="the administrator")
        for role in (RoomRole.OPERATOR, RoomRole.MEMBER)
    ]
    assert alice.queue.received() == [appointed_and_dismissed[0], reported, appointed_and_dismissed[1]]
    assert old.queue.received() == []
    assert bob.queue.received() == [reported] * 3
    assert not alice.member.is_operator
