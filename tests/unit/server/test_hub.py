"""The hub: which members receive a committed message, in which order, and how they are confirmed."""

import itertools
import time
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from chatprotocol.errors import ErrorCode
from chatprotocol.events import (
    DirectMessage,
    Event,
    EventBatch,
    PublicMessage,
    RoomRole,
    Sent,
    SentStatus,
    TimeMs,
    Users,
)
from chatserver.chat.delivery_marks import DeliveryMarks
from chatserver.chat.local_users import JoinState
from chatserver.chat.presence import Presence
from chatserver.chat.room import Member
from chatserver.journal.base import Applied
from chatserver.journal.entries import KickMember, RoomChange, Stored
from chatserver.store.accounts import Account
from chatserver.store.rooms import LOBBY_ID, RoomView

from .helpers import FakeBroadcast, FakeSendQueue, committed, direct, eventually, join_hub, make_hub, public

UPDATE = Users(None, ("alice", "bob"), ("bob",), ())
ALICE, BOB, CAROL = (Account(number, name, "hash", 0) for number, name in enumerate(("alice", "bob", "carol"), 1))
# Nonces by position in a batch.
NONCES = {1: "n2"}


class Room:
    """A hub over fake broadcast buffers; it publishes what the tests say."""

    def __init__(self, *broadcasts: FakeBroadcast) -> None:
        self.broadcasts = broadcasts or (FakeBroadcast(),)
        self.wakes = 0
        buffers = {broadcast.name: broadcast for broadcast in self.broadcasts}
        # The marks that were handed over to be stored.
        self.marks: dict[int, int] = {}
        marks = DeliveryMarks(lambda account_id, mark: self.marks.update({account_id: mark.message_id}))
        self.presence = Presence(1_000.0, lambda _: None)
        # The buffers of rooms that are open.
        self.opened: list[FakeBroadcast] = []
        self.users, self.hub = make_hub(
            buffers,
            self.presence,
            open_buffer=self._open,
            close_buffer=self.opened.remove,
            marks=marks,
            wake=self._wake,
        )
        self._ids = itertools.count(11)

    def _wake(self) -> None:
        self.wakes += 1

    def _open(self, protocol: str) -> FakeBroadcast:
        self.opened.append(FakeBroadcast(protocol))
        return self.opened[-1]

    def join(self, account: Account, broadcast: FakeBroadcast | None = None) -> Member:
        member = Member(account.id, account.name, FakeSendQueue(broadcast or self.broadcasts[0]))
        join_hub(self.users, member)
        return member

    def batch(self, member: Member, text: str, nonce: str | None = None, to: Account | None = None) -> Applied:
        batch = public(member, text, nonces=[nonce]) if to is None else direct(member, to, text, nonce)
        return committed(batch, next(self._ids), member)

    def run(self, member: Member, *texts: str) -> Applied:
        """A batch of several messages; the second one has a nonce."""
        first_id, *_ = (next(self._ids) for _ in texts)
        nonces = [NONCES.get(number) for number in range(len(texts))]
        return committed(public(member, *texts, nonces=nonces), first_id, member)

    def say(self, member: Member, text: str, nonce: str | None = None, to: Account | None = None) -> None:
        self.hub.handle_applied([self.batch(member, text, nonce, to)])


def repeated(batch: Applied, message_id: int) -> Applied:
    """The same single message, which had this id before."""
    return replace(batch, outcome=(Stored(0, 1, message_id, is_repeated=True),))


@pytest.fixture
def room() -> Room:
    return Room()


def queue_of(member: Member) -> FakeSendQueue:
    assert isinstance(member.send_queue, FakeSendQueue)
    return member.send_queue


def received(member: Member) -> list[Event]:
    return queue_of(member).received()


def ids(member: Member) -> list[int]:
    return [event.id for event in received(member)]  # type: ignore[union-attr]


def test_public_message_reaches_all_connections_and_confirms_its_sender(room: Room) -> None:
    """It is encoded once for all of them."""
    alice, other_alice, bob, carol = map(room.join, (ALICE, ALICE, BOB, CAROL))
    room.say(alice, "hello", "n1")
    assert received(other_alice) == received(bob) == received(carol) == [PublicMessage(11, 0, "alice", "hello")]
    assert received(alice) == [Sent(11, SentStatus.SENT, "n1")]
    assert room.broadcasts[0].events == [PublicMessage(11, 0, "alice", "hello")]


def test_direct_message_reaches_all_connections_of_both_and_no_other(room: Room) -> None:
    alice, other_alice, bob, other_bob, carol = map(room.join, (ALICE, ALICE, BOB, BOB, CAROL))
    room.say(alice, "psst", "n1", BOB)
    room.say(alice, "note", "n2", ALICE)
    direct, note = DirectMessage(11, 0, "alice", "bob", "psst"), DirectMessage(12, 0, "alice", "alice", "note")
    assert received(bob) == received(other_bob) == [direct]
    assert received(other_alice) == [direct, note]
    assert received(alice) == [Sent(11, SentStatus.SENT, "n1"), note, Sent(12, SentStatus.SENT, "n2")]
    assert received(carol) == []
    assert room.broadcasts[0].events == []


@pytest.mark.parametrize("to", [None, BOB])
def test_repeated_message_is_confirmed_and_not_delivered_again(room: Room, to: Account | None) -> None:
    """Promise: once. The position of the room does not go back."""
    alice, bob = room.join(ALICE), room.join(BOB)
    room.hub.handle_applied([repeated(room.batch(alice, "hello", "n1", to), 5)])
    assert received(bob) == []
    assert received(alice) == [Sent(5, SentStatus.SENT, "n1")]
    assert room.users.last_id() == 10


def test_new_messages_of_a_batch_with_repeated_ones_are_delivered(room: Room) -> None:
    """Promise: once. The journal divides such a batch into parts."""
    alice, bob = room.join(ALICE), room.join(BOB)
    batch = room.run(alice, "new", "old", "newer", "newest")
    parts = (Stored(0, 1, 11), Stored(1, 2, 5, is_repeated=True), Stored(2, 4, 12))
    room.hub.handle_applied([replace(batch, outcome=parts)])
    texts = ("new", "newer", "newest")
    assert received(bob) == [PublicMessage(number, TimeMs(0), "alice", text) for number, text in enumerate(texts, 11)]
    confirmed = ((11, None), (5, "n2"), (12, None), (13, None))
    assert received(alice) == [Sent(number, SentStatus.SENT, nonce) for number, nonce in confirmed]
    assert room.users.last_id() == 13


def test_message_of_another_server_is_delivered_and_confirmed_to_nobody(room: Room) -> None:
    """Its entry has no origin here."""
    alice, bob = room.join(ALICE), room.join(BOB)
    batches = [room.batch(alice, "hello"), room.batch(alice, "psst", to=BOB), repeated(room.batch(alice, "x"), 5)]
    room.hub.handle_applied([replace(batch, origin=None) for batch in batches])
    assert ids(bob) == [11, 12]
    assert ids(alice) == [11, 12]


def test_refusal_answers_each_message_of_its_sender(room: Room) -> None:
    """A client counts the replies to its messages."""
    alice, bob = room.join(ALICE), room.join(BOB)
    batches = [room.run(alice, "one", "two"), room.batch(bob, "three", "n3")]
    room.hub.handle_applied([replace(batch, outcome=OSError("disk full")) for batch in batches])
    answers = [(each.code, each.nonce) for member in (alice, bob) for each in received(member)]  # type: ignore[union-attr]
    assert answers == [(ErrorCode.INTERNAL, nonce) for nonce in (None, "n2", "n3")]
    assert room.users.last_id() == 10
    assert room.wakes == 1


def test_each_protocol_in_use_has_its_buffer_and_unused_ones_cost_nothing() -> None:
    json, frames, unused = FakeBroadcast("json"), FakeBroadcast("frames"), FakeBroadcast("unused")
    frames.append([UPDATE])  # positions differ between buffers
    frames.flush()
    room = Room(json, frames, unused)
    alice, bob, carol = room.join(ALICE, json), room.join(BOB, frames), room.join(CAROL, frames)
    room.say(alice, "one")
    room.say(bob, "two")
    assert received(alice) == [Sent(11, SentStatus.SENT), PublicMessage(12, 0, "bob", "two")]
    assert received(bob) == [PublicMessage(11, 0, "alice", "one"), Sent(12, SentStatus.SENT)]
    assert received(carol) == [PublicMessage(11, 0, "alice", "one"), PublicMessage(12, 0, "bob", "two")]
    assert unused.events == []


MEMBERS = 4  # two of alice, one of bob, one of carol, who uses another protocol
said = st.tuples(st.integers(0, MEMBERS - 1), st.sampled_from(["public", "run", "direct", "repeated"]))


@given(batches=st.lists(st.lists(st.tuples(said, st.integers(0, 2)), max_size=8), max_size=4))
def test_round_is_received_as_if_each_message_had_come_alone(batches: list[list[tuple[tuple[int, str], int]]]) -> None:
    """Promises: one order, and once. Batches are encoded together, and no member sees the difference."""
    together, alone = (Room(FakeBroadcast("json"), FakeBroadcast("frames")) for _ in range(2))
    accounts = (ALICE, ALICE, BOB, CAROL)
    members = {
        room: [room.join(account, room.broadcasts[account is CAROL]) for account in accounts]
        for room in (together, alone)
    }
    for batch in batches:
        for room in (together, alone):
            batches = []
            for (who, kind), whom in batch:
                member = members[room][who]
                if kind == "run":
                    texts = ["one", "two"]
                    alone_batches = (room.batch(member, text, NONCES.get(number)) for number, text in enumerate(texts))
                    batches += [room.run(member, *texts)] if room is together else alone_batches
                    continue
                one = room.batch(member, "text", None, (ALICE, BOB, CAROL)[whom] if kind == "direct" else None)
                batches.append(repeated(one, one.outcome[0].id) if kind == "repeated" else one)
            for part in [batches] if room is together else [[batch] for batch in batches]:
                room.hub.handle_applied(part)
    assert [received(member) for member in members[together]] == [received(member) for member in members[alone]]


def test_batch_is_one_piece_of_the_buffer_and_one_edit(room: Room) -> None:
    """The cost of both is per batch, not per message."""
    alice, bob = room.join(ALICE), room.join(BOB)
    room.hub.handle_applied([room.run(alice, "one", "two", "three")])
    assert room.broadcasts[0].appended == [3]
    assert queue_of(alice).insertions == [(0, 3, [Sent(11 + nr, SentStatus.SENT, NONCES.get(nr)) for nr in range(3)])]
    assert ids(bob) == [11, 12, 13]
    assert room.users.last_id() == 13


def test_edits_are_in_place_before_the_flush(room: Room) -> None:
    """Otherwise the sender could send a user its own message. It is woken once."""
    alice, bob = room.join(ALICE), room.join(BOB)
    broadcast = room.broadcasts[0]
    shown: list[int] = []

    class Watched(FakeSendQueue):
        def replace(
            self, buffer: FakeBroadcast, start: int, end: int, events: Sequence[Event | EventBatch] = ()
        ) -> None:
            shown.append(broadcast.flushed)
            super().replace(buffer, start, end, events)

        def insert(self, events: Sequence[Event | EventBatch]) -> None:
            shown.append(broadcast.flushed)
            super().insert(events)

    watched = Member(CAROL.id, CAROL.name, Watched(broadcast))
    join_hub(room.users, watched)
    room.hub.handle_applied(
        [room.batch(watched, "one"), room.batch(bob, "two"), room.batch(watched, "three", to=ALICE)]
    )
    assert shown == [0, 0]
    assert broadcast.flushed == 2
    assert ids(alice) == [11, 12, 13]
    assert room.wakes == 1


@pytest.mark.parametrize(
    ("batches", "texts", "size", "waits"), [(1, 1, 1, 1), (100, 1, 8192, 13), (5, 4, 8192, 3), (4, 400, 1, 2)]
)
def test_large_round_is_flushed_in_portions_that_wait_for_the_sender(
    room: Room, batches: int, texts: int, size: int, waits: int
) -> None:
    """Promise: no client waits for a slow one, or counts as slow for data that came all at once.

    Portions are counted in characters, with about a hundred more for each message.
    """
    alice, bob = room.join(ALICE), room.join(BOB)
    room.hub.handle_applied([room.run(alice, *["x" * size] * texts) for _ in range(batches)])
    assert room.broadcasts[0].waits == waits
    assert ids(alice) == ids(bob) == list(range(11, 11 + batches * texts))


def test_gathering_has_one_limit_for_all_buffers() -> None:
    """Promise: no client waits for a slow one. Another protocol in use makes the wait no longer."""

    class Slow(FakeBroadcast):
        def wait_for_sender(self, _: int | None = None, limit_seconds: float | None = None) -> None:
            ends = time.monotonic() + (limit_seconds or 0)
            eventually(lambda: time.monotonic() > ends)

    other = FakeBroadcast("other")
    room = Room(Slow(), other)
    alice, _ = room.join(ALICE), room.join(BOB, other)
    room.say(alice, "hello")
    room.hub.gather(0.01)
    ahead_max_bytes, limit_seconds = other.last_wait
    assert ahead_max_bytes == 0
    assert limit_seconds is not None
    assert limit_seconds <= 0


def test_member_receives_what_follows_the_last_id_of_its_join() -> None:
    """Promise: once. Earlier messages are in the history: none is in both, none in neither. Also between portions."""
    joined: list[tuple[Member, JoinState]] = []

    class Joining(FakeBroadcast):
        def wait_for_sender(self, *_: object) -> None:
            member = Member(BOB.id, BOB.name, FakeSendQueue(self))
            joined.append((member, join_hub(room.users, member)))

    room = Room(Joining())
    alice = room.join(ALICE)
    room.hub.handle_applied([room.run(alice, "x" * 8192, "y") for _ in range(20)])
    assert [where.last_id for _, where in joined] == [10, 26, 42]
    assert [where.is_alone for _, where in joined] == [True, False, False]
    for bob, where in joined:
        assert ids(bob) == list(range(where.last_id + 1, 51))


def test_member_that_left_receives_nothing_more_and_its_last_words_are_delivered(room: Room) -> None:
    alice, bob = room.join(ALICE), room.join(BOB)
    last_words = room.batch(bob, "bye")
    room.users.leave(bob)
    room.hub.handle_applied([last_words])
    room.say(alice, "psst", to=BOB)
    assert received(bob) == []
    assert received(alice) == [PublicMessage(11, 0, "bob", "bye"), Sent(12, SentStatus.STORED)]
    assert join_hub(room.users, bob).is_alone


def test_received_direct_message_moves_the_mark(room: Room) -> None:
    """Promise: once. The next login does not get it again. A mark never goes back."""
    alice, bob = room.join(ALICE), room.join(BOB)
    room.say(alice, "psst", to=BOB)
    assert room.marks == {}, "older messages may still be unsent, and the mark would cover them"
    room.users.catch_up(bob, 10)
    assert room.marks == {BOB.id: 11}
    room.say(alice, "psst", to=BOB)
    room.say(alice, "absent", to=CAROL)
    room.users.catch_up(bob, 5)
    assert room.marks == {BOB.id: 12}
    room.users.leave(bob)
    assert join_hub(room.users, bob) == JoinState(13, 13, ("alice", "bob"))


@pytest.mark.parametrize("case", ["leave", "shutdown", "not acknowledged", "not caught up"])
def test_mark_moves_to_the_newest_message_when_a_member_leaves(room: Room, case: str) -> None:
    """Messages after that are new at the next login. The peer must have acknowledged everything."""
    alice, bob = room.join(ALICE), room.join(BOB)
    if case != "not caught up":
        room.users.catch_up(bob, 10)
    queue_of(bob).acknowledges = case != "not acknowledged"
    before = {**room.marks}
    room.say(alice, "hello")
    if case == "shutdown":
        room.users.track_newest()
    else:
        room.users.leave(bob)
    room.say(alice, "bob has left")
    assert room.marks == ({BOB.id: 11} if case in ("leave", "shutdown") else before)


def test_each_of_two_first_logins_reads_the_rooms_again_after_a_kick(room: Room) -> None:
    """One of them must not take a room from which the user was kicked while both read."""
    dev = RoomView(7, "dev", "", is_private=True, role=RoomRole.MEMBER, is_invited=False, last_id=0)
    kick = KickMember(dev.room_id, BOB.id, BOB.name, ALICE.id, ALICE.name)
    change = RoomChange(dev.room_id, dev.name, "", is_private=True, last_id=0, old_role=RoomRole.MEMBER, role=None)
    devices = [Member(BOB.id, BOB.name, FakeSendQueue(room.broadcasts[0]), knows_rooms=True) for _ in range(2)]
    for each in devices:
        room.users.begin_join(each)
    room.hub.handle_applied([Applied(kick, change, None, 0)])
    assert [room.users.join(each, [dev]) for each in devices] == [None, None]
    assert all(room.users.join(each, []) for each in devices)
    assert room.opened == []


def test_update_reaches_members_whose_login_showed_less() -> None:
    """Also those that are still logging in, after their list of users."""
    json, frames, unused = FakeBroadcast("json"), FakeBroadcast("frames"), FakeBroadcast("unused")
    room = Room(json, frames, unused)
    members = [room.join(account, frames if account is CAROL else json) for account in (ALICE, CAROL, BOB, ALICE)]
    room.hub.announce(LOBBY_ID, UPDATE, 3)
    assert [received(member) for member in members] == [[UPDATE], [UPDATE], [], []]
    assert unused.events == []
    assert room.wakes == 1
