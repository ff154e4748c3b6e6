"""Presence: the online users, and the updates about them."""

import queue
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatprotocol.events import Users
from chatprotocol.limits import USERS_LISTED_MAX
from chatserver.chat.presence import UPDATE_MAX_NAMES, Presence, RosterChange
from chatserver.store.rooms import LOBBY_ID

from .helpers import DEADLINE_SECONDS, eventually

NEVER_SECONDS = 1_000_000.0
StartFixture = Callable[..., "PresenceFixture"]


class PresenceFixture:
    """A presence whose updates can be waited for. Updates follow each other without a pause."""

    def __init__(self, repeat_seconds: float = NEVER_SECONDS, per_user: float = 0.0, coalesce: float = 0.0) -> None:
        self._updates: queue.SimpleQueue[tuple[int, Users, int]] = queue.SimpleQueue()
        self.crashes: list[str] = []
        self.presence = Presence(
            repeat_seconds,
            self.crashes.append,
            coalesce_seconds=coalesce,
            coalesce_seconds_per_user=per_user,
        )
        self.presence.on_update(lambda *update: self._updates.put(update))

    def next(self, within_seconds: float = DEADLINE_SECONDS, room_id: int = LOBBY_ID) -> tuple[Users, int]:
        """The next update, which must be about this room; and its version."""
        found_id, update, version = self._updates.get(timeout=within_seconds)
        assert found_id == room_id
        return update, version

    def enter(self, name: str) -> int:
        """Add a user; return the version of the list that it gets."""
        self.presence.add(name)
        return self.presence.users()[1]


@pytest.fixture
def start() -> Iterator[StartFixture]:
    """Fixtures that are stopped at the end."""
    started: list[PresenceFixture] = []

    def start(**options: float) -> PresenceFixture:
        started.append(PresenceFixture(**options))
        return started[-1]

    yield start
    for each in started:
        each.presence.stop()
        assert each.crashes == []


def test_user_is_online_from_the_first_login_to_the_last_leave(start: StartFixture) -> None:
    """Names are in the order of arrival. The last one of all to leave is told so."""
    fixture = start()
    presence = fixture.presence
    for name in ("carol", "carol", "bob", "alice"):
        fixture.enter(name)
    assert presence.names() == ("carol", "bob", "alice")
    assert not presence.remove("carol")
    assert presence.is_online("carol")
    assert not presence.remove("carol")
    assert not presence.is_online("carol")
    assert presence.names() == ("bob", "alice")
    assert not presence.remove("bob")
    assert presence.remove("alice")


def test_updates_list_joined_and_left_users_since_the_last_one(start: StartFixture) -> None:
    fixture = start()
    fixture.enter("carol")
    fixture.enter("alice")
    fixture.presence.start()
    assert fixture.next()[0] == Users(None, ("carol", "alice"), ("alice", "carol"), ())
    fixture.enter("bob")
    assert fixture.next()[0] == Users(None, ("carol", "alice", "bob"), ("bob",), ())
    fixture.presence.remove("bob")
    assert fixture.next()[0] == Users(None, ("carol", "alice"), (), ("bob",))


def test_last_change_of_a_user_between_two_updates_counts(start: StartFixture) -> None:
    """It is told even if nothing changed: another user may have logged in meanwhile and seen the list."""
    fixture = start()
    for name in ("bob", "alice"):
        fixture.enter(name)
        fixture.presence.remove(name)
    fixture.enter("alice")
    fixture.presence.start()
    assert fixture.next()[0] == Users(None, ("alice",), ("alice",), ("bob",))


def test_repetition_is_for_all_and_names_no_changes(start: StartFixture) -> None:
    fixture = start(repeat_seconds=0.0)
    alice = fixture.enter("alice")
    fixture.presence.start()
    fixture.next()
    update, version = fixture.next()
    assert update == Users(None, ("alice",), (), ())
    assert version > alice


@pytest.mark.parametrize(("count", "is_listed"), [(USERS_LISTED_MAX, True), (USERS_LISTED_MAX + 1, False)])
def test_update_about_many_users_only_counts_them(start: StartFixture, count: int, *, is_listed: bool) -> None:
    fixture = start()
    for number in range(count):
        fixture.enter(f"user{number}")
    fixture.presence.start()
    update, _ = fixture.next()
    assert update.count == len(fixture.presence.names()) == count
    assert (update.users is not None) is is_listed


def test_many_changes_are_told_in_order_in_several_updates(start: StartFixture) -> None:
    """A simple client reads an update at once. Each is for the members to whom any of it is news."""
    fixture = start()
    names = [f"user{number}" for number in range(2 * UPDATE_MAX_NAMES + 1)]
    versions = [fixture.enter(name) for name in names]
    fixture.presence.remove(names[0])
    fixture.presence.start()
    updates = [fixture.next() for _ in range(3)]
    first, second = names[1 : 1 + UPDATE_MAX_NAMES], names[1 + UPDATE_MAX_NAMES :]
    assert [set(update.joined) for update, _ in updates] == [set(first), set(second), set()]
    assert [update.left for update, _ in updates] == [(), (), ("user0",)]
    # The last to enter within an update knows all of it from its login; the one before does not.
    for (_, version), last in zip(updates, [UPDATE_MAX_NAMES, 2 * UPDATE_MAX_NAMES], strict=False):
        assert versions[last] >= version > versions[last - 1]
    assert all(version < updates[2][1] for version in versions)


@pytest.mark.parametrize("per_user", [0.0, DEADLINE_SECONDS])
def test_changes_are_coalesced_for_longer_in_a_large_room(start: StartFixture, per_user: float) -> None:
    """An update costs a system call per member. It is sent when its names are full."""
    fixture = start(per_user=per_user, coalesce=0.1)
    fixture.presence.start()
    fixture.enter("alice")
    fixture.next()
    for number in range(UPDATE_MAX_NAMES - 1):
        fixture.enter(f"user{number}")
    if per_user:
        with pytest.raises(queue.Empty):
            fixture.next(within_seconds=0.3)
        fixture.enter("the last one that fits")
        assert len(fixture.next()[0].joined) == UPDATE_MAX_NAMES
    else:
        joined = 0
        while joined < UPDATE_MAX_NAMES - 1:
            joined += len(fixture.next()[0].joined)


def test_large_rooms_do_not_delay_the_lobby(start: StartFixture) -> None:
    """A user may be in a hundred rooms, and its logins and logouts change all of them."""
    fixture = start(per_user=DEADLINE_SECONDS)
    for number in range(5):
        fixture.presence.add("alice", 5 + number, f"dev{number}")
    fixture.presence.start()
    for number in range(5):
        fixture.next(room_id=5 + number)
    fixture.enter("alice")
    assert fixture.next()[0].joined == ("alice",)
    fixture.presence.remove("alice", 5)
    with pytest.raises(queue.Empty):
        fixture.next(within_seconds=0.3)


def test_each_room_has_its_users_and_updates(start: StartFixture) -> None:
    """Only the lobby's are repeated. A room without users has no update, and nothing is left of it."""
    fixture = start()
    presence = fixture.presence
    fixture.enter("alice")
    presence.add("alice", 5, "dev")
    presence.add("bob", 5, "dev")
    presence.add("carol", 7, "ops")
    assert presence.remove("carol", 7)
    assert (presence.names(5), presence.names(7), presence.names()) == (("alice", "bob"), (), ("alice",))
    seen = presence.users(5)[1]
    presence.start()
    assert fixture.next()[0] == Users(None, ("alice",), ("alice",), ())
    update, version = fixture.next(room_id=5)
    assert update == Users(None, ("alice", "bob"), ("alice", "bob"), (), "dev")
    assert version <= seen
    assert not presence.remove("alice", 5)
    assert fixture.next(room_id=5)[0] == Users(None, ("bob",), (), ("alice",), "dev")


ROOMS = {LOBBY_ID: None, 5: "dev", 7: "ops"}
HERE = "a"
# A server, and the users who are on it now: of each room.
STEPS = st.tuples(
    st.sampled_from([HERE, "b", "c"]),
    st.dictionaries(st.sampled_from(sorted(ROOMS)), st.sets(st.sampled_from(["alice", "bob", "carol"])), min_size=1),
    st.sampled_from(["replace", "change", "drop"]),
)


@given(st.lists(STEPS, max_size=12))
def test_users_are_those_of_all_servers(steps: list[tuple[str, dict[int, set[str]], str]]) -> None:
    """A user is online while it is on any server. The other servers learn of the own users only.

    The version rises with each change that users see, and not otherwise.
    """
    presence = Presence(NEVER_SECONDS, lambda _: None)
    assert presence.own_rosters() == []
    truth: dict[int, set[str]] = {room_id: set() for room_id in ROOMS}
    on: dict[str, dict[int, set[str]]] = defaultdict(lambda: {room_id: set() for room_id in ROOMS})
    taken: dict[int, set[str]] = {room_id: set() for room_id in ROOMS}
    for server, rooms, how in steps:
        before, after = on[server], dict(on[server])
        earlier_version = presence.users()[1]
        after |= rooms if how != "drop" else {room_id: set[str]() for room_id in ROOMS}
        changes = [
            RosterChange(each, ROOMS[each], after[each] - before[each], before[each] - after[each]) for each in after
        ]
        if server == HERE:
            for room_id, room, joined, left in changes:
                for name in joined:
                    presence.add(name, room_id, room)
                assert [presence.remove(name, room_id) for name in left][-1:] in ([], [not after[room_id]])
            for room_id, _, joined, left in presence.take_changes():
                taken[room_id] = (taken[room_id] | set(joined)) - set(left)
        elif how == "replace":
            presence.replace_peer(server, [RosterChange(each, ROOMS[each], after[each]) for each in after])
        elif how == "change":
            presence.change_peer(server, changes * 2)
        else:
            presence.drop_peer(server)
        on[server] = after
        seen = truth
        truth = {room_id: set().union(*(each[room_id] for each in on.values())) for room_id in ROOMS}
        assert {room_id: set(presence.names(room_id)) for room_id in ROOMS} == truth
        assert presence.users()[1] - earlier_version == sum(len(truth[each] ^ seen[each]) for each in ROOMS)
        assert presence.count == len(truth[LOBBY_ID])
        assert all(presence.is_online(name) == (name in truth[LOBBY_ID]) for name in ("alice", "bob", "carol"))
        assert taken == on[HERE]
    rosters: dict[int, Any] = {each.room_id: each.joined for each in presence.own_rosters()}
    assert {room_id: set(rosters.get(room_id, ())) for room_id in ROOMS} == on[HERE]


def test_updates_are_about_the_users_of_all_servers(start: StartFixture) -> None:
    fixture = start()
    presence = fixture.presence
    fixture.enter("alice")
    presence.change_peer("b", [RosterChange(LOBBY_ID, None, ["alice", "bob"])])
    presence.start()
    assert fixture.next()[0] == Users(None, ("alice", "bob"), ("alice", "bob"), ())
    presence.remove("alice")
    presence.add("carol")
    assert fixture.next()[0] == Users(None, ("carol", "alice", "bob"), ("carol",), ())
    presence.drop_peer("b")
    assert fixture.next()[0] == Users(None, ("carol",), (), ("alice", "bob"))


def test_user_of_another_server_who_went_offline_leaves_the_lobby_before_its_rooms(start: StartFixture) -> None:
    """So whoever is told that it left a room knows that it is offline. Versions are in the order of the changes."""
    fixture = start()
    fixture.presence.add("alice", 2, "dev")
    rosters = [(2, "dev", ["bob"]), (LOBBY_ID, None, ["bob"])]
    fixture.presence.change_peer("b", [RosterChange(*each) for each in rosters])
    fixture.presence.change_peer("b", [RosterChange(room_id, room, (), left) for room_id, room, left in rosters])
    fixture.presence.start()
    (lobby, first_version), (room, second_version) = fixture.next(), fixture.next(room_id=2)
    assert (lobby.left, room.left) == (("bob",), ("bob",))
    assert first_version < second_version


def test_user_of_another_server_who_joined_and_left_meanwhile_is_announced(start: StartFixture) -> None:
    """The log may have told its join already. The list of users is the same, and so is its version."""
    fixture = start()
    version = fixture.enter("alice")
    fixture.presence.change_peer("b", [RosterChange(LOBBY_ID, None, (), ["alice", "bob"])])
    assert fixture.presence.users() == (("alice",), version)
    fixture.presence.start()
    assert fixture.next() == (Users(None, ("alice",), ("alice",), ("bob",)), version)


def test_crashed_presence_is_reported() -> None:
    crashes: list[str] = []

    def announce(*_: object) -> None:
        raise ZeroDivisionError

    presence = Presence(NEVER_SECONDS, crashes.append)
    presence.on_update(announce)
    presence.start()
    presence.add("alice")
    eventually(lambda: crashes == ["presence"])
    presence.stop()


def test_nobody_sees_both_names_of_a_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """A guest takes another name, here and on another server: who looks meanwhile sees one of the names, or none."""
    presence = PresenceFixture().presence
    seen = []

    def look(_: object = None) -> None:
        seen.extend({*presence.names(room_id)} for room_id in (LOBBY_ID, 7))

    monkeypatch.setattr("chatserver.chat.presence.time.sleep", look)
    presence.change_peer("b", [RosterChange(room_id, None, ["ira"]) for room_id in (LOBBY_ID, 7)])
    moved = [(["iris"], []), ([], ["ira"])]  # as Peers sends them
    presence.change_peer("b", [RosterChange(room_id, None, *each) for room_id in (7, LOBBY_ID) for each in moved])
    presence.change_peer("b", [RosterChange(room_id, None, ["ira"], ["iris"]) for room_id in (7, LOBBY_ID)])
    presence.drop_peer("b")
    assert {"iris"} in seen
    assert {"ira", "iris"} not in seen
    assert presence.own_rosters() == []
    for room_id in (LOBBY_ID, 7):
        presence.add("ann", room_id)
    presence.take_changes()
    note = presence._note_change
    monkeypatch.setattr(presence, "_note_change", lambda *args, **options: (note(*args, **options), look()))
    presence.rename("ann", "anna", 1, {7: "dev"})
    assert {"ann", "anna"} not in seen
    assert presence.names() == presence.names(7) == ("anna",)
    assert sorted(presence.take_changes()) == [
        RosterChange(LOBBY_ID, None, ["anna"], ["ann"]),
        RosterChange(7, "dev", ["anna"], ["ann"]),
    ]
