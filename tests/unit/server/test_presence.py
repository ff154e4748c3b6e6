"""Presence: who is online, and what is told of it when."""

import queue
import threading
from collections.abc import Iterator

import pytest

from chatprotocol.events import Users
from chatprotocol.limits import USERS_LISTED_MAX
from chatserver.chat import presence as presence_module
from chatserver.chat.member import Member
from chatserver.chat.presence import UPDATE_MAX_NAMES, Presence

from .rooms import DEADLINE_SECONDS, FakeOutbox, FakeStream

NEVER_SECONDS = 1_000_000.0


class Watched:
    """A presence whose announcements can be waited for."""

    def __init__(self, repeat_seconds: float = NEVER_SECONDS) -> None:
        self._said: queue.SimpleQueue[tuple[Users, int]] = queue.SimpleQueue()
        self.crashes: list[str] = []
        self.presence = Presence(lambda *said: self._said.put(said), repeat_seconds, self.crashes.append)

    def next(self, within_seconds: float = DEADLINE_SECONDS) -> tuple[Users, int]:
        return self._said.get(timeout=within_seconds)

    def is_silent(self) -> bool:
        return self._said.empty()

    def enter(self, name: str) -> Member:
        member = Member(1, name, FakeOutbox(FakeStream()))
        self.presence.enter(member)
        return member


@pytest.fixture
def watched() -> Iterator[Watched]:
    watched = Watched()
    yield watched
    watched.presence.stop()


@pytest.fixture
def _no_coalescing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence_module, "COALESCE_SECONDS", 0.0)


def test_a_user_is_present_from_the_first_login_to_the_last_leave(watched: Watched) -> None:
    first, second = watched.enter("alice"), watched.enter("alice")
    assert watched.presence.names() == ("alice",)
    watched.presence.leave(first)
    assert watched.presence.names() == ("alice",)
    watched.presence.leave(second)
    assert watched.presence.names() == ()


def test_it_is_told_when_the_last_seat_was_given_up(watched: Watched) -> None:
    alice, again, bob = watched.enter("alice"), watched.enter("alice"), watched.enter("bob")

    assert [watched.presence.leave(member) for member in (alice, bob, again)] == [False, False, True]
    assert watched.presence.leave(watched.enter("alice"))


def test_users_are_named_in_the_order_in_which_they_came(watched: Watched) -> None:
    for name in ("carol", "alice", "bob"):
        watched.enter(name)

    assert watched.presence.names() == ("carol", "alice", "bob")


def test_whoever_comes_is_told_who_is_there_with_the_own_name(watched: Watched) -> None:
    watched.enter("alice")

    assert watched.presence.enter(Member(2, "bob", FakeOutbox(FakeStream()))) == ("alice", "bob")


def test_all_changes_since_the_last_update_are_told_together(watched: Watched) -> None:
    """Coalescing: a hundred logins at once are one update, not a hundred."""
    for name in ("bob", "alice", "carol"):
        watched.enter(name)
    watched.presence.start()

    update, _ = watched.next()
    assert update == Users(3, ("bob", "alice", "carol"), ("alice", "bob", "carol"), ())


@pytest.mark.usefixtures("_no_coalescing")
def test_updates_tell_who_came_and_who_left_since_the_one_before(watched: Watched) -> None:
    watched.presence.start()
    bob = watched.enter("bob")
    assert watched.next()[0] == Users(1, ("bob",), ("bob",), ())
    watched.enter("alice")
    assert watched.next()[0] == Users(2, ("bob", "alice"), ("alice",), ())
    watched.presence.leave(bob)
    assert watched.next()[0] == Users(1, ("alice",), (), ("bob",))


def test_of_who_comes_and_goes_between_two_updates_the_last_is_told(watched: Watched) -> None:
    """Somebody who logged in meanwhile may have seen the name in the list."""
    watched.presence.leave(watched.enter("bob"))
    watched.enter("alice")
    watched.presence.start()

    assert watched.next()[0] == Users(1, ("alice",), ("alice",), ("bob",))


@pytest.mark.usefixtures("_no_coalescing")
def test_of_who_goes_and_comes_back_between_two_updates_the_last_is_told(watched: Watched) -> None:
    bob = watched.enter("bob")
    watched.presence.leave(bob)
    watched.enter("bob")
    watched.presence.start()

    assert watched.next()[0] == Users(1, ("bob",), ("bob",), ())


def test_an_update_after_ones_own_login_is_not_for_oneself(watched: Watched) -> None:
    first = watched.enter("alice")
    last = watched.enter("bob")
    watched.presence.start()

    _, version = watched.next()
    assert first.presence_version < version
    assert last.presence_version >= version


@pytest.mark.usefixtures("_no_coalescing")
def test_the_next_update_is_for_those_whose_login_showed_the_last_one(watched: Watched) -> None:
    watched.presence.start()
    alice = watched.enter("alice")
    watched.next()
    watched.enter("bob")

    assert alice.presence_version < watched.next()[1]


@pytest.mark.usefixtures("_no_coalescing")
def test_a_repetition_is_for_everybody_and_names_nobody_who_came_or_went() -> None:
    watched = Watched(repeat_seconds=0.0)
    alice = watched.enter("alice")
    watched.presence.start()
    watched.next()
    update, version = watched.next()
    watched.presence.stop()

    assert update == Users(1, ("alice",), (), ())
    assert version > alice.presence_version


@pytest.mark.parametrize(("count", "is_listed"), [(USERS_LISTED_MAX, True), (USERS_LISTED_MAX + 1, False)])
def test_above_500_users_an_update_counts_them(watched: Watched, count: int, is_listed: bool) -> None:
    for number in range(count):
        watched.enter(f"user{number}")
    watched.presence.start()
    update, _ = watched.next()

    assert update.count == count
    assert (update.users is not None) is is_listed
    assert len(watched.presence.names()) == count


@pytest.mark.usefixtures("_no_coalescing")
def test_many_changes_are_told_in_their_order_a_few_at_a_time(watched: Watched) -> None:
    """An update stays so short that a simple client reads it at once; each is for those to whom any of it is news."""
    names = [f"user{number}" for number in range(2 * UPDATE_MAX_NAMES + 1)]
    members = [watched.enter(name) for name in names]
    watched.presence.leave(members[0])
    watched.presence.start()
    told = [watched.next() for _ in range(3)]

    assert [len(update.joined) + len(update.left) for update, _ in told] == [UPDATE_MAX_NAMES, UPDATE_MAX_NAMES, 1]
    assert [set(update.joined) for update, _ in told] == [
        set(names[1 : 1 + UPDATE_MAX_NAMES]),
        set(names[1 + UPDATE_MAX_NAMES :]),
        set(),
    ]
    assert told[2][0].left == ("user0",)
    # Who came last in an update knows all of it from the login; who came just before does not.
    for (_, version), last in zip(told, [UPDATE_MAX_NAMES, 2 * UPDATE_MAX_NAMES], strict=False):
        assert members[last].presence_version >= version > members[last - 1].presence_version
    assert all(member.presence_version < told[2][1] for member in members)


def test_a_large_room_is_told_less_often(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """An update is a system call for each who is in: telling each of each would leave time for nothing else."""
    monkeypatch.setattr(presence_module, "COALESCE_SECONDS_PER_USER", DEADLINE_SECONDS)
    watched.presence.start()
    watched.enter("alice")
    watched.next()
    for number in range(UPDATE_MAX_NAMES - 1):
        watched.enter(f"user{number}")
    with pytest.raises(queue.Empty):
        watched.next(within_seconds=0.3)
    watched.enter("the last one that fits")

    assert len(watched.next()[0].joined) == UPDATE_MAX_NAMES


def test_after_the_end_nothing_is_told(watched: Watched) -> None:
    watched.presence.start()
    watched.presence.stop()
    watched.enter("alice")

    assert watched.is_silent()
    assert watched.crashes == []


def test_a_presence_that_dies_is_reported() -> None:
    crashes: list[str] = []
    reported = threading.Event()

    def announce(_: Users, __: int) -> None:
        raise ZeroDivisionError

    def on_crash(thread: str) -> None:
        crashes.append(thread)
        reported.set()

    presence = Presence(announce, NEVER_SECONDS, on_crash)
    presence.start()
    presence.enter(Member(1, "alice", FakeOutbox(FakeStream())))

    assert reported.wait(DEADLINE_SECONDS)
    presence.stop()
    assert crashes == ["presence"]
