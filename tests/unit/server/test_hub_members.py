"""Connections that track members, as those of irc do: their variants, and what they are told about other users."""

import gc
import weakref
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chatprotocol.errors import RequestError
from chatprotocol.events import (
    AwayChanged,
    CameOnline,
    DirectMessage,
    Entered,
    Event,
    EventBatch,
    Invited,
    IsAway,
    Kicked,
    MemberJoined,
    MemberLeft,
    Parted,
    PublicMessage,
    RealnameChanged,
    Relayed,
    Renamed,
    RoleChanged,
    RoomRole,
    Sent,
    SentStatus,
    TimeMs,
    UserQuit,
    Users,
    Watched,
    WentOffline,
    expand_batches,
)
from chatprotocol.limits import WATCHED_MAX
from chatprotocol.requests import Enter
from chatserver.chat.entering import Entering
from chatserver.chat.presence import Presence, RosterChange
from chatserver.chat.room import Member
from chatserver.journal import entries
from chatserver.journal.base import Applied
from chatserver.journal.entries import PublicMessages, RoomChange, Stored
from chatserver.net.broadcast import BroadcastBuffer
from chatserver.net.sendqueue import SendQueue
from chatserver.store.accounts import Account
from chatserver.store.errors import DamagedError
from chatserver.store.rooms import LOBBY_ID, RoomView

from .helpers import FakeBroadcast, FakeSendQueue, join_hub, make_hub

NAMES = ("alice", "bob", "carol", "dave")
DEV = 2
ROOMS = {"dev": DEV, "ops": 3}
# A guest of register, of whom presence alone knows; and one of another server.
GUEST, OTHER_GUEST = "gina", "hans"


class House:
    """A hub whose buffers remember what was appended, by variant."""

    def __init__(self, make_buffer: Callable[[str], Any] = FakeBroadcast) -> None:
        self.lobby = FakeBroadcast()
        self._make_buffer = make_buffer
        # All buffers that were opened, and those that are open.
        self.buffers: list[FakeBroadcast] = []
        self.open: list[FakeBroadcast] = []
        self.presence = Presence(1_000.0, lambda _: None)
        self.users, self.hub = make_hub(
            {"json": self.lobby},
            self.presence,
            open_buffer=self._open,
            close_buffer=self.open.remove,
            read_guests={GUEST, OTHER_GUEST}.intersection,
        )

    def _open(self, variant: str) -> FakeBroadcast:
        buffer: FakeBroadcast = self._make_buffer(variant)
        self.buffers.append(buffer)
        self.open.append(buffer)
        return buffer

    def log_in(self, name: str, variant: str = "toy/", *rooms: RoomView, echoes: bool = False) -> Member:
        """Log in on a connection of json, or on one that tracks members."""
        queue = FakeSendQueue(self.lobby)
        queue.protocol = variant.partition("/")[0]
        enter = None if variant == "json" else Enter(username=name, variant=variant, echoes=echoes)
        member = Member(NAMES.index(name), name, queue, knows_rooms=True, enter=enter)
        join_hub(self.users, member, rooms)
        return member

    def say(self, by: Member, room_id: int, first_id: int, *texts: str) -> None:
        batch = PublicMessages(by.account_id, by.name, list(texts), [None] * len(texts), room_id)
        self.hub.handle_applied([Applied(batch, (Stored(0, len(texts), first_id),), by, 7)])

    def whisper(self, by: Member, to: str, message_id: int) -> None:
        message = entries.DirectMessage(
            by.account_id, by.name, ["psst"], [None], recipient_id=NAMES.index(to), recipient=to
        )
        self.hub.handle_applied([Applied(message, (Stored(0, 1, message_id),), by, 7)])


@pytest.fixture
def house() -> House:
    return House()


def dev() -> RoomView:
    return RoomView(DEV, "dev", "", False, None, False, 0)


def received(member: Member) -> list[Event]:
    queue = member.send_queue
    assert isinstance(queue, FakeSendQueue)
    return queue.received()


def messages(events: list[Event]) -> list[Event]:
    """Only the messages and their confirmations."""
    return [each for each in events if isinstance(each, PublicMessage | DirectMessage | Sent)]


def public(message_id: int, sender: str, text: str, room: str | None = "dev") -> PublicMessage:
    return PublicMessage(message_id, TimeMs(7), sender, text, room)


def test_events_are_encoded_once_for_each_variant(house: House) -> None:
    """The buffer of a variant is open while a connection follows the room in it."""
    plain, tagged, again = (house.log_in(name, variant, dev()) for name, variant in VARIANTS)
    alice = house.log_in("dave", "json", dev())
    house.say(alice, DEV, 11, "hello")
    told = [[buffer.name, messages(buffer.events)] for buffer in house.buffers if messages(buffer.events)]
    assert told == [[variant, [public(11, "dave", "hello")]] for variant in ("toy/", "toy/t", "json")]
    for member in (plain, tagged, again):
        assert messages(received(member)) == [public(11, "dave", "hello")]
        house.users.leave(member)
    assert [buffer.name for buffer in house.open] == ["json"]


VARIANTS = (("alice", "toy/"), ("bob", "toy/t"), ("carol", "toy/t"))


def test_change_of_the_variant_loses_and_repeats_nothing(house: House) -> None:
    """The connection moves from one buffer to another, in all rooms."""
    alice, bob = house.log_in("alice", "toy/", dev()), house.log_in("bob", "json", dev())
    for first_id, variant in enumerate(("toy/t", "toy/t", "toy/"), 11):
        house.say(bob, DEV, first_id, variant)
        house.users.change_encoding(alice, variant, echoes=False)
    house.say(bob, DEV, 14, "last")
    texts = ["toy/t", "toy/t", "toy/", "last"]
    assert messages(received(alice)) == [public(each, "bob", text) for each, text in enumerate(texts, 11)]
    house.users.leave(alice)
    assert [buffer.name for buffer in house.open] == ["json"]


def test_own_messages_follow_their_confirmation_on_a_connection_that_echoes(house: House) -> None:
    """Other connections of the user get them as those of the others do."""
    alice, again = house.log_in("alice", "toy/", dev(), echoes=True), house.log_in("alice", "toy/", dev())
    bob = house.log_in("bob", "toy/", dev())
    house.say(alice, DEV, 11, "one", "two")
    house.whisper(alice, "bob", 13)
    house.say(again, DEV, 14, "three")
    both = [public(11, "alice", "one"), public(12, "alice", "two")]
    direct = DirectMessage(13, TimeMs(7), "alice", "bob", "psst")
    third = public(14, "alice", "three")
    confirmed = [Sent(each, SentStatus.SENT) for each in (11, 12, 13, 14)]
    assert messages(received(alice)) == [*confirmed[:2], *both, confirmed[2], direct, third]
    assert messages(received(again)) == [*both, direct, confirmed[3]]
    assert messages(received(bob)) == [*both, direct, third]


def test_messages_of_a_connection_that_is_a_program_say_so(house: House) -> None:
    alice, bob = house.log_in("alice", "toy/", dev(), echoes=True), house.log_in("bob", "json", dev())
    for first_id, is_bot in ((11, True), (21, False)):
        house.users.set_bot(alice, is_bot=is_bot)
        house.say(alice, DEV, first_id, "one")
        house.whisper(alice, "bob", first_id + 1)
    flags = [True, True, False, False]
    for member in (alice, bob):
        assert [each.bot for each in messages(received(member)) if not isinstance(each, Sent)] == flags


@pytest.mark.parametrize("echoes", [False, True])
def test_message_to_the_lobby_is_confirmed_outside_of_it(house: House, *, echoes: bool) -> None:
    """A connection that has not entered it gets none of its messages, and counts as a member nevertheless."""
    alice, bob = house.log_in("alice", echoes=echoes), house.log_in("bob", "json")
    house.say(alice, LOBBY_ID, 11, "hello")
    house.say(bob, LOBBY_ID, 12, "hi")
    assert received(alice) == [Sent(11, SentStatus.SENT), public(11, "alice", "hello", None)][: 1 + echoes]
    assert house.users.count_members() == {"json": 1, "toy": 1}
    house.users.leave(alice)
    assert house.users.count_members() == {"json": 1}


def test_direct_message_reaches_a_connection_that_is_in_no_room(house: House) -> None:
    alice, bob = house.log_in("alice"), house.log_in("bob", "json")
    house.whisper(bob, "alice", 11)
    assert received(alice) == [DirectMessage(11, TimeMs(7), "bob", "alice", "psst")]


def test_connection_that_tracks_members_gets_no_updates_of_users(house: House) -> None:
    alice, bob = house.log_in("alice", "toy/", dev()), house.log_in("bob", "json", dev())
    update = Users(users=("alice", "bob"), joined=("bob",), room="dev")
    house.hub.announce(DEV, update, 1_000)
    assert received(bob) == [update]
    assert [each for each in received(alice) if isinstance(each, Users)] == []


class Town:
    """A hub and a journal in front of it, and what each tracking connection believes about the members of its rooms."""

    def __init__(self, *, is_all_json: bool = False) -> None:
        self.house = House()
        self.is_all_json = is_all_json
        self.members: dict[str, set[str]] = {room: set() for room in ROOMS}
        self.online: list[Member] = []
        # The users of another server.
        self.elsewhere: set[str] = set()
        # The names by room, and the number of events that are part of them.
        self.views: dict[Member, dict[str, set[str]]] = {}
        self._read: dict[Member, int] = {}

    def play(self, step: tuple[object, ...]) -> None:
        match step:
            case ("log in", str(name), str(variant)):
                self._log_in(name, variant)
            case ("guest",):
                present = self.house.presence
                (present.remove if present.is_online(GUEST) else present.add)(GUEST)
            case ("elsewhere", str(name), bool(is_online)):
                (self.elsewhere.add if is_online else self.elsewhere.discard)(name)
                self._update_elsewhere()
            case ("announce", list(names)):
                self._update_elsewhere()
                self._announce(names)
            case ("kick", str(name), str(room)) if name in self.members[room]:
                self.members[room].remove(name)
                self._publish(
                    entries.KickMember(ROOMS[room], NAMES.index(name), name, 9, "op", "rude"),
                    RoomChange(ROOMS[room], room, "", False, 0, RoomRole.MEMBER),
                )
            case (str(kind), int(who), *rest) if self.online:
                self._act(kind, self.online[who % len(self.online)], rest)
        for member in self.views:
            self._catch_up(member)

    def _update_elsewhere(self) -> None:
        """Take the users of the other server, as it tells them some time after its journal's entries."""
        rosters = [RosterChange(LOBBY_ID, None, sorted(self.elsewhere))]
        rosters += [RosterChange(ROOMS[room], room, sorted(self.elsewhere & self.members[room])) for room in ROOMS]
        self.house.presence.replace_peer("other", rosters)

    def _log_in(self, name: str, variant: str) -> None:
        queue = FakeSendQueue(self.house.lobby)
        is_json = variant == "json"
        enter = None if is_json or self.is_all_json else Enter(username=name, variant=variant)
        member = Member(NAMES.index(name), name, queue, knows_rooms=True, enter=enter)
        rooms = sorted(room for room, members in self.members.items() if name in members)
        views = [RoomView(ROOMS[room], room, "", False, RoomRole.MEMBER, False, 0) for room in rooms]
        joined = join_hub(self.house.users, member, views)
        self.online.append(member)
        if enter is not None:
            names = {room: {listed for listed, _ in joined.listings[ROOMS[room]]} for room in rooms}
            queue.insert([])
            self.views[member], self._read[member] = names, len(received(member))

    def _act(self, kind: str, member: Member, rest: list[object]) -> None:
        match (kind, *rest):
            case ("log out",):
                member.quit_reason = "bye"
                self.house.users.leave(member)
                self.online.remove(member)
                self.views.pop(member, None)
            case ("enter lobby",) if member in self.views and not member.follows_lobby:
                entered = self.house.users.enter_lobby(member)
                self._catch_up(member)
                self.views[member]["lobby"] = {name for name, _ in entered.listing}
            case ("leave lobby",) if member in self.views and member.follows_lobby:
                self.house.users.leave_lobby(member)
            case ("join", str(room)):
                is_new = member.name not in self.members[room]
                self.members[room].add(member.name)
                self._publish(
                    entries.JoinRoom(member.account_id, member.name, room, is_private=False, may_create=True),
                    RoomChange(ROOMS[room], room, "", False, 0, None, RoomRole.MEMBER, is_changed=is_new),
                    member,
                )
            case ("part", str(room)) if member.name in self.members[room]:
                self.members[room].remove(member.name)
                change = RoomChange(ROOMS[room], room, "", False, 0, RoomRole.MEMBER)
                self._publish(entries.PartRoom(member.account_id, member.name, ROOMS[room]), change, member)

    def _publish(self, entry: entries.Entry[object], change: RoomChange, by: Member | None = None) -> None:
        self.house.hub.handle_applied([Applied(entry, change, by, 7)])

    def _announce(self, names: list[str]) -> None:
        """Announce the state of these users, as presence does after a change."""
        for room, room_id in (("lobby", LOBBY_ID), *ROOMS.items()):
            present = set(self.house.presence.names(room_id)) & set(names)
            update = Users(joined=tuple(sorted(present)), left=tuple(sorted({*names} - present)), room=room)
            self.house.hub.announce(room_id, update, 1_000_000)

    def _catch_up(self, member: Member) -> None:
        """Apply the new events to the view of a connection. Each must be news."""
        member.send_queue.insert([])  # what comes later is behind this, in all buffers
        view, events = self.views[member], received(member)
        for event in events[self._read[member] :]:
            match event:
                case Entered():
                    view[event.room] = {each.info.username for each in event.members}
                case MemberJoined():
                    assert event.info.username not in view[event.room]
                    view[event.room].add(event.info.username)
                case MemberLeft() | Kicked(room=str()):
                    view[str(event.room)].remove(event.username)
                case UserQuit():
                    rooms = [names for names in view.values() if event.username in names]
                    assert rooms, "told twice"
                    for names in rooms:
                        names.remove(event.username)
                case Parted():
                    view.pop(event.room, None)
        self._read[member] = len(events)

    def truth(self, room: str) -> set[str]:
        """The members of the room who are online."""
        presence = self.house.presence
        online = {name for name in (*NAMES, GUEST) if presence.is_online(name)}
        return online if room == "lobby" else online & self.members[room]


ROOM = st.sampled_from(["dev", "dev", "ops"])
WHO = st.integers(0, 3)
STEPS = st.one_of(
    st.tuples(st.just("log in"), st.sampled_from(NAMES), st.sampled_from(["toy/", "toy/", "toy/t", "json"])),
    st.tuples(st.sampled_from(["log out", "enter lobby", "enter lobby", "leave lobby"]), WHO),
    st.tuples(st.sampled_from(["join", "join", "part"]), WHO, ROOM),
    st.tuples(st.just("kick"), st.sampled_from(NAMES), ROOM),
    st.tuples(st.just("elsewhere"), st.sampled_from(NAMES), st.booleans()),
    st.just(("guest",)),
    st.tuples(st.just("announce"), st.lists(st.sampled_from([*NAMES, GUEST]))),
)
_FIRST = (("log in", "alice", "toy/"), ("log in", "bob", "toy/t"), ("join", 0, "dev"), ("join", 1, "dev"))
_LAST = (("announce", [*NAMES, GUEST]),)


@given(steps=st.lists(STEPS, min_size=10, max_size=50))
@example(steps=[("enter lobby", 0), ("enter lobby", 1), ("join", 0, "ops"), ("join", 1, "ops"), ("log out", 0)])
@example(steps=[("log in", "alice", "toy/"), ("log out", 0), ("log in", "carol", "json"), ("join", 2, "dev")])
@example(steps=[("log in", "dave", "json"), ("enter lobby", 0), ("elsewhere", "dave", True), ("log out", 2)])
def test_each_view_of_the_members_becomes_the_truth(steps: list[tuple[object, ...]]) -> None:
    """Each event is news when it arrives: a user joins, leaves and quits once, on any number of connections."""
    town = Town()
    for step in (*_FIRST, *steps, *_LAST):
        town.play(step)
    for member, view in town.views.items():
        lobby = {"lobby"} if member.follows_lobby else set()
        assert view.keys() == lobby | {room for room in ROOMS if member.name in town.members[room]}
        assert {room: town.truth(room) for room in view} == view
    for member in [*town.online]:
        town.house.users.leave(member)
    assert town.house.open == []


@given(steps=st.lists(STEPS, min_size=5, max_size=30))
@example(steps=[("join", 2, "dev"), ("kick", "bob", "dev"), ("log out", 0)])
def test_connection_of_json_gets_the_same_beside_tracking_connections(steps: list[tuple[object, ...]]) -> None:
    """As if all others were of json, too."""
    mixed, plain = Town(), Town(is_all_json=True)
    first = (*_FIRST, ("log in", "carol", "json"), ("join", 2, "dev"))
    followed: list[list[Member]] = [[], []]
    for step in (*first, *steps, *_LAST):
        for town, members in zip((mixed, plain), followed, strict=True):
            town.play(step)
            members += [each for each in town.online if each not in members]
    pairs = [pair for pair in zip(*followed, strict=True) if not pair[0].tracks_members]
    assert pairs
    for one, other in pairs:
        assert received(one) == received(other)


@pytest.mark.parametrize("kind", [UserQuit, Renamed])
def test_user_goes_after_all_that_its_rooms_have_told(house: House, kind: type) -> None:
    """Promise: also for a connection that does not read meanwhile. Buffers of rooms have no order among them."""
    alice, bob, *others = map(house.log_in, NAMES)
    for member in (alice, *others):
        house.users.enter_lobby(member)
    change = RoomChange(DEV, "dev", "", False, 0, None, RoomRole.MEMBER)
    for member in (alice, bob):
        entry = entries.JoinRoom(member.account_id, member.name, "dev", is_private=False, may_create=True)
        house.hub.handle_applied([Applied(entry, change, member, 7)])
    if kind is UserQuit:
        house.users.leave(bob)
    else:
        renamed = entries.GuestRenamed(Account(bob.account_id, "rob", "", 0, 1))
        house.hub.handle_applied([Applied(entries.RenameGuest("bob", 1, "rob"), renamed, bob, 7)])
    assert [type(each) for each in told(alice, MemberJoined, kind)] == [MemberJoined, kind]


@pytest.mark.parametrize("is_new_name", [False, True])
def test_renamed_guest_is_not_an_earlier_user_of_another_server(house: House, *, is_new_name: bool) -> None:
    """Promise: nobody is left in a room, although presence has not announced the end of the earlier user."""
    alice = house.log_in("alice", "toy/", dev())
    earlier = "rob" if is_new_name else "bob"
    where = [RosterChange(LOBBY_ID, None, [earlier]), RosterChange(DEV, "dev", [earlier])]
    house.presence.replace_peer("other", where)
    house.hub.announce(DEV, Users(joined=(earlier,)), 1_000)
    house.presence.drop_peer("other")
    bob = house.log_in("bob", "toy/", *([dev()] if is_new_name else []))
    renamed = entries.GuestRenamed(Account(bob.account_id, "rob", "", 0, 1))
    house.hub.handle_applied([Applied(entries.RenameGuest("bob", 1, "rob"), renamed, bob, 7)])
    house.hub.announce(DEV, Users(left=(earlier,)), 1_001)
    if is_new_name:
        change = RoomChange(DEV, "dev", "", False, 0, RoomRole.MEMBER)
        house.hub.handle_applied([Applied(entries.PartRoom(bob.account_id, "rob", DEV), change, bob, 7)])
    house.users.leave(bob)
    kinds = [MemberJoined, MemberJoined, UserQuit, Renamed, MemberLeft] if is_new_name else [MemberJoined, MemberLeft]
    assert [type(each) for each in told(alice, MemberJoined, MemberLeft, Renamed, UserQuit)] == kinds


def told(member: Member, *kinds: type) -> list[Event]:
    return [each for each in received(member) if isinstance(each, kinds)]


def test_watchers_are_told_once_of_each_change(house: House) -> None:
    """Of users of this server and of others, on any number of connections, until the watcher looks away."""
    alice = house.log_in("alice")
    house.users.watch(alice, ["bob", "carol"], [], clears=False)
    bobs = [house.log_in("bob"), house.log_in("bob", "json")]
    house.presence.replace_peer("other", [RosterChange(LOBBY_ID, None, ["carol"])])
    for update in (Users(joined=("bob", "carol")), Users(joined=("bob",), left=("carol",))):
        house.hub.announce(LOBBY_ID, update, 1_000)
    house.users.leave(bobs[0])
    assert told(alice, WentOffline) == []
    house.users.leave(bobs[1])
    house.presence.drop_peer("other")
    house.hub.announce(LOBBY_ID, Users(left=("bob", "carol")), 1_001)
    changes = [CameOnline("bob"), CameOnline("carol"), WentOffline("bob"), WentOffline("carol")]
    assert told(alice, CameOnline, WentOffline) == changes
    house.users.watch(alice, [], ["carol"], clears=False)
    bob = house.log_in("bob")
    house.users.watch(alice, [], [], clears=True)
    house.users.leave(bob)
    assert told(alice, CameOnline, WentOffline) == [*changes, CameOnline("bob")]
    assert told(alice, Watched)[-3:] == [
        Watched((), ("bob", "carol"), ("bob", "carol")),
        Watched((), (), ("bob",)),
        Watched((), (), ()),
    ]
    with pytest.raises(RequestError):
        house.users.watch(alice, [f"user{each}" for each in range(WATCHED_MAX + 1)], [], clears=False)


def test_change_of_a_user_is_told_once_to_all_who_share_a_room(house: House) -> None:
    """The user's own connections get it in the encoding of their own; others get nothing."""
    rooms = [dev(), RoomView(3, "ops", "", False, None, False, 0)]
    alice, both = house.log_in("alice", "toy/", *rooms), house.log_in("bob", "toy/t", *rooms)
    one, other = house.log_in("carol", "toy/", rooms[1]), house.log_in("dave")
    house.users.set_away(alice, "lunch")
    house.users.set_realname(alice, "Alice A.")
    changes = [AwayChanged("alice", "lunch"), RealnameChanged("alice", "Alice A.")]
    for member in (alice, both, one):
        assert told(member, AwayChanged, RealnameChanged) == changes
    assert told(other, AwayChanged, RealnameChanged) == []
    house.whisper(other, "alice", 11)
    assert received(other)[-2:] == [Sent(11, SentStatus.SENT), IsAway("alice", "lunch")]
    info = house.users.tracking.info("alice")
    assert (info.away, info.realname) == ("lunch", "Alice A.")


def test_watcher_is_told_what_a_user_does_if_it_wants_that(house: House) -> None:
    """Once, although it shares a room with the user, and until it no longer wants it, or looks away."""
    alice, again = house.log_in("alice", "toy/", dev()), house.log_in("alice", "toy/", dev())
    watchers = [house.log_in("bob", "toy/", dev()), house.log_in("carol"), house.log_in("dave")]
    for member, is_extended in zip((*watchers, again), (True, True, False, True), strict=True):
        house.users.watch(member, ["alice"], [], clears=False, is_extended=is_extended)
    house.users.set_away(alice, "lunch")
    house.users.set_realname(alice, "Alice A.")
    changes = [AwayChanged("alice", "lunch"), RealnameChanged("alice", "Alice A.")]
    kinds = (AwayChanged, RealnameChanged)
    assert [told(each, *kinds) for each in (*watchers, again)] == [changes, changes, [], changes]
    house.users.watch(watchers[1], [], [], clears=False, is_extended=False)
    house.users.watch(watchers[0], [], ["alice"], clears=False, is_extended=True)
    house.users.watch(watchers[2], [], [], clears=False, is_extended=True)
    house.users.set_away(alice, "")
    back = [AwayChanged("alice", "")]
    assert [told(each, *kinds) for each in watchers] == [changes + back, changes, back]
    house.users.leave(watchers[2])
    house.users.set_away(alice, "again")
    assert told(watchers[2], *kinds) == back


def test_relayed_event_reaches_the_others_that_track_members(house: House) -> None:
    alice, again = house.log_in("alice", "toy/", dev()), house.log_in("alice", "toy/", dev())
    bob, json = house.log_in("bob", "toy/t", dev()), house.log_in("carol", "json", dev())
    typing = Relayed("alice", "dev", None, "TAGMSG", "+typing=active", "")
    house.users.relay(alice, typing, DEV, is_room=True)
    direct = Relayed("alice", None, "bob", "TAGMSG", "+typing=active", "")
    house.users.relay(alice, direct, bob.account_id, is_room=False)
    assert [told(member, Relayed) for member in (alice, again, bob, json)] == [[], [typing], [typing, direct], []]


def test_invitation_is_told_to_members_who_track_members(house: House) -> None:
    """Once, and to no other connection of a member."""
    (alice, bob), json = (house.log_in(name, "toy/", dev()) for name in NAMES[:2]), house.log_in("carol", "json", dev())
    dave = house.log_in("dave", "json")
    entry = entries.InviteUser(DEV, dave.account_id, "dave", alice.account_id, "alice")
    house.hub.handle_applied([Applied(entry, RoomChange(DEV, "dev", "", False, 0), alice, 7)])
    invited = [Invited("dev", "dave", "alice")]
    assert [told(each, Invited) for each in (alice, bob, json, dave)] == [invited, invited, [], invited]


def test_guests_of_register_and_of_other_servers_are_shown_as_guests(house: House) -> None:
    """The hub has no connection of them."""
    alice = house.log_in("alice")
    house.users.enter_lobby(alice)
    house.presence.add(GUEST)
    house.presence.replace_peer("other", [RosterChange(LOBBY_ID, None, ["carol", OTHER_GUEST])])
    house.hub.announce(LOBBY_ID, Users(joined=("carol", GUEST, OTHER_GUEST)), 1_000)
    joined = [each.info for each in told(alice, MemberJoined) if isinstance(each, MemberJoined)]
    assert [each.username for each in joined if each.is_guest] == [GUEST, OTHER_GUEST]
    bob = house.log_in("bob")
    listed = [each.info for each in house.users.tracking.members(house.users.enter_lobby(bob).listing, {})]
    assert {each.username: each.is_guest for each in listed} == {
        "alice": False, "bob": False, "carol": False, GUEST: True, OTHER_GUEST: True,
    }  # fmt: skip
    house.presence.remove(GUEST)
    house.hub.announce(LOBBY_ID, Users(left=(GUEST,)), 1_001)
    assert [house.users.tracking.info(name).is_guest for name in (GUEST, OTHER_GUEST)] == [False, True]


@pytest.mark.parametrize("log_first", [True, False])
def test_guest_of_another_server_joins_changes_its_name_and_quits(house: House, *, log_first: bool) -> None:
    """Another name is told as another guest, once: the log and the other server tell it in any order."""
    alice = house.log_in("alice", "toy/", dev())

    def tell(joined: tuple[str, ...], left: tuple[str, ...]) -> None:
        for room_id, room in ((LOBBY_ID, None), (DEV, "dev")):
            house.presence.change_peer("other", [RosterChange(room_id, room, joined, left)])
            house.hub.announce(room_id, Users(joined=joined, left=left, room=room), 1_000)

    def apply() -> None:
        renamed = entries.GuestRenamed(Account(9, "gas", "", 0, 1), {DEV: RoomRole.OWNER})
        house.hub.handle_applied([Applied(entries.RenameGuest("gus", 1, "gas", "other"), renamed, None, 7)])

    tell(("gus",), ())
    steps = [apply, lambda: tell(("gas",), ("gus",))]
    for step in steps if log_first else reversed(steps):
        step()
    tell((), ("gas",))
    changes = told(alice, MemberJoined, MemberLeft, UserQuit, Renamed)
    assert [getattr(each, "info", each).username for each in changes] == ["gus", "gus", "gas", "gas"]
    assert [type(each) for each in changes] == [MemberJoined, UserQuit, MemberJoined, UserQuit]
    # If the log was first, the new member was told with the role that the store had by then.
    role = [RoleChanged(room="dev", username="gas", role=RoomRole.OWNER)]
    assert told(alice, RoleChanged) == ([] if log_first else role)


def test_room_of_a_guest_who_left_another_server_has_another_owner(house: House) -> None:
    alice, bob = house.log_in("alice", "toy/", dev()), house.log_in("bob", "json", dev())
    heir = RoomChange(DEV, "dev", "", False, 0, RoomRole.OWNER, heir_id=0, heir="alice")
    house.hub.handle_applied([Applied(entries.GuestRelease("gus", 1), entries.GuestsGone((heir,)), None, 7)])
    for member in (alice, bob):
        assert told(member, RoleChanged) == [RoleChanged(room="dev", username="alice", role=RoomRole.OWNER)]


def test_users_who_left_are_remembered(house: House) -> None:
    """Those who were online on another server too, but not those who are online."""
    for name in ("alice", "bob", "alice"):
        house.users.leave(house.log_in(name))
    house.presence.replace_peer("other", [RosterChange(LOBBY_ID, None, ["carol"])])
    house.hub.announce(LOBBY_ID, Users(joined=("alice", "bob", "carol")), 1_000)
    house.presence.drop_peer("other")
    house.hub.announce(LOBBY_ID, Users(left=("alice", "bob", "carol")), 1_000)
    assert [len(house.users.past(name, 9)) for name in ("ALICE", "bob", "carol", "dave")] == [2, 1, 1, 0]
    house.log_in("alice")
    assert house.users.past("alice", 9) == ()


class Store:
    """The messages and rooms that Entering reads. While it reads, the hub publishes another message."""

    def __init__(self, when_read: Callable[[], None]) -> None:
        self.when_read = when_read

    def history(self, _: int, before_id: int, _limit: int, room_id: int) -> list[PublicMessage]:
        self.when_read()
        return [public(each, "bob", "missed", None if room_id == LOBBY_ID else "dev") for each in range(7, before_id)]

    def of_account(self, _: int) -> list[RoomView]:
        return [dev()]

    def roles(self, _: object) -> dict[int, dict[str, RoomRole]]:
        return {DEV: {"bob": RoomRole.OPERATOR}}


def lines(events: Sequence[Event | EventBatch]) -> bytes:
    """The toy encoding: the name of the event, or the id of a message."""
    return b"".join(
        f"{each.id if isinstance(each, PublicMessage) else type(each).__name__} ".encode()
        for each in expand_batches(events)
    )


def entering_lobby(store: Store) -> tuple[Member, Entering, Callable[[int], None]]:
    """The connection of alice, which is not in the lobby yet; and a function with which bob says something."""
    house = House(lambda _: BroadcastBuffer(lines, 1_000_000, is_reserved=False))
    bob = house.log_in("bob", "json")
    queue = SendQueue(cast("Any", Transport()), "toy", lines, "toy", lambda _: None)
    alice = Member(0, "alice", queue, knows_rooms=True, enter=Enter(username="alice", variant="toy/"))
    join_hub(house.users, alice)
    queue.release([])
    entering = Entering(house.users, cast("Any", store), cast("Any", store))
    return alice, entering, lambda message_id: house.say(bob, LOBBY_ID, message_id, "new")


def sent_to(member: Member) -> list[bytes]:
    """The words that were sent since the last call."""
    queue = cast("SendQueue", member.send_queue)
    for buffer in queue.buffers:
        while buffer.position < buffer.end:
            buffer.advance()
    sent = b""
    while data := queue.next_data():
        assert isinstance(data, list)
        sent += b"".join(data)
        queue.note_sent(sum(map(len, data)))
    return sent.split()


def test_missed_messages_come_after_the_answer_and_before_new_ones() -> None:
    """Each once, although others write while they are read; and nothing new comes inside of them."""
    store = Store(lambda: say(11))
    alice, entering, say = entering_lobby(store)
    entering.enter_lobby(alice, replays_after=8)
    say(12)
    assert sent_to(alice) == [b"Entered", b"9", b"10", b"11", b"12"]


def test_watches_end_with_their_connection(house: House) -> None:
    """Promise: memory stays bounded. Nothing refers to the connection any more."""
    alice = house.log_in("alice")
    house.users.watch(alice, ["bob"], (), clears=False)
    queue = weakref.ref(alice.send_queue)
    house.users.leave(alice)
    del alice
    gc.collect()
    assert queue() is None


def test_missed_messages_are_for_who_enters_and_may_see_them() -> None:
    """Promise: a guest sees no message from before its login. Who is in the lobby gets the answer alone."""
    alice, entering, _ = entering_lobby(Store(lambda: None))
    alice.first_id = 9
    for missed in ([b"9", b"10"], []):
        entering.enter_lobby(alice, replays_after=0)
        assert sent_to(alice) == [b"Entered", *missed]


@pytest.mark.parametrize("was_in", [False, True])
def test_connection_is_where_it_was_after_an_error(*, was_in: bool) -> None:
    """The disk may be broken. Nothing is read for a connection that is in the lobby."""

    def fail() -> None:
        raise DamagedError("broken")

    alice, entering, say = entering_lobby(Store(fail))
    if was_in:
        entering.enter_lobby(alice, replays_after=None)
        entering.enter_lobby(alice, replays_after=0)
    else:
        with pytest.raises(DamagedError):
            entering.enter_lobby(alice, replays_after=0)
    sent_to(alice)
    say(11)
    assert sent_to(alice) == [b"11"] * was_in


def test_user_who_is_on_another_server_too_has_not_left(house: House) -> None:
    """Promise: each change is told once, and is true."""
    alice, bob = house.log_in("alice", "toy/", dev()), house.log_in("bob", "toy/", dev())
    house.users.watch(bob, ["alice"], (), clears=False)
    rosters = [RosterChange(LOBBY_ID, None, ["alice"]), RosterChange(DEV, "dev", ["alice"])]
    house.presence.replace_peer("other", rosters)
    house.users.leave(alice)
    assert told(bob, UserQuit, WentOffline) == []
    assert house.users.past("alice", 9) == ()
    house.presence.drop_peer("other")
    for room_id in (LOBBY_ID, DEV):
        house.hub.announce(room_id, Users(left=("alice",)), 1_000)
    assert {type(each) for each in told(bob, UserQuit, WentOffline)} == {UserQuit, WentOffline}


def test_rooms_of_a_login_are_described_with_what_was_missed(house: House) -> None:
    """The members are those that were listed at the login; roles and topics are read after it."""
    house.log_in("bob", "json", dev())
    enter = Enter(username="alice", variant="toy/")
    alice = Member(0, "alice", FakeSendQueue(house.lobby), knows_rooms=True, enter=enter)
    joined = join_hub(house.users, alice, [dev()])
    store = Store(lambda: None)
    ((entered, *missed),) = Entering(house.users, cast("Any", store), cast("Any", store)).after_login(alice, joined, 8)
    assert isinstance(entered, Entered)
    assert {each.info.username: each.role for each in entered.members} == {
        "bob": RoomRole.OPERATOR, "alice": RoomRole.MEMBER,
    }  # fmt: skip
    assert [each.id for each in missed if isinstance(each, PublicMessage)] == [9, 10]


class Transport:
    """A peer that takes everything."""

    is_socket = False
    write_max_bytes = 1_000_000
