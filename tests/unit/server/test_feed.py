"""The feed: what each connection hears of what was committed, in which order."""

import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatprotocol.errors import ErrorCode
from chatprotocol.events import DirectMessage, Event, PublicMessage, Refused, Sent, SentStatus, Users
from chatserver.chat.batch import MessageBatch
from chatserver.chat.delivery_marks import DeliveryMarks
from chatserver.chat.hub import Hub, Joined
from chatserver.chat.member import Member
from chatserver.store.accounts import Account

from .rooms import FakeOutbox, FakeStream, eventually

UPDATE = Users(2, ("alice", "bob"), ("bob",), ())
ALICE, BOB, CAROL = (Account(number, name, "hash", 0) for number, name in enumerate(("alice", "bob", "carol"), 1))


NONCES = {1: "n2"}


class Room:
    """A feed over fake streams, and the posts that are published to it."""

    def __init__(self, *broadcasts: FakeStream) -> None:
        self.broadcasts = broadcasts or (FakeStream(),)
        self.wakes = 0
        self.deliveries = DeliveryMarks()
        self.hub = Hub(self.broadcasts, 10, self.deliveries, self._wake)
        self._ids = itertools.count(11)

    def _wake(self) -> None:
        self.wakes += 1

    def join(self, account: Account, broadcast: FakeStream | None = None) -> Member:
        member = Member(account.id, account.name, FakeOutbox(broadcast or self.broadcasts[0]))
        self.hub.join(member)
        return member

    def batch(self, member: Member, text: str, nonce: str | None = None, to: Account | None = None) -> MessageBatch:
        return MessageBatch(member, [text], [nonce], to, id=next(self._ids))

    def run(self, member: Member, *texts: str) -> MessageBatch:
        """What one seat said in a row; the second message has a nonce."""
        first_id, *_ = (next(self._ids) for _ in texts)
        return MessageBatch(member, list(texts), [NONCES.get(number) for number in range(len(texts))], id=first_id)

    def say(self, member: Member, text: str, nonce: str | None = None, to: Account | None = None) -> None:
        self.hub.publish([self.batch(member, text, nonce, to)])


@pytest.fixture
def room() -> Room:
    return Room()


def send_queue(member: Member) -> FakeOutbox:
    assert isinstance(member.send_queue, FakeOutbox)
    return member.send_queue


def heard(member: Member) -> list[Event]:
    return send_queue(member).heard()


def test_everybody_hears_a_public_message_and_the_sender_its_confirmation(room: Room) -> None:
    alice, bob, carol = map(room.join, (ALICE, BOB, CAROL))
    room.say(alice, "hello", "n1")

    assert heard(bob) == heard(carol) == [PublicMessage(11, 0, "alice", "hello")]
    assert heard(alice) == [Sent(11, SentStatus.SENT, "n1")]


def test_a_message_is_encoded_once_however_many_hear_it(room: Room) -> None:
    members = [room.join(Account(number, f"user{number}", "", 0)) for number in range(50)]
    room.say(members[0], "hello")

    assert room.broadcasts[0].events == [PublicMessage(11, 0, "user0", "hello")]


def test_everybody_hears_the_messages_of_a_batch_in_the_order_of_their_ids(room: Room) -> None:
    """Promise: one order."""
    alice, bob, carol = map(room.join, (ALICE, BOB, CAROL))
    batch = [
        room.batch(alice, "one"),
        room.batch(bob, "two", to=CAROL),
        room.batch(alice, "three", to=BOB),
        room.batch(carol, "four"),
    ]
    room.hub.publish(batch)

    for member in (alice, bob, carol):
        ids = [event.id for event in heard(member)]  # type: ignore[union-attr]
        assert ids == sorted(ids)
    assert heard(carol) == [
        PublicMessage(11, 0, "alice", "one"),
        DirectMessage(12, 0, "bob", "carol", "two"),
        Sent(14, SentStatus.SENT),
    ]


def test_nothing_of_a_batch_is_shown_before_its_edits_are_in_place(room: Room) -> None:
    """Otherwise the courier could send a sender its own message."""
    alice, bob = room.join(ALICE), room.join(BOB)
    broadcast = room.broadcasts[0]
    shown: list[int] = []
    splice = FakeOutbox.insert

    def watched(send_queue: FakeOutbox, start: int, end: int, events: list[Event]) -> None:
        shown.append(broadcast.shown)
        splice(send_queue, start, end, events)

    alice.send_queue.insert = watched.__get__(alice.send_queue)  # type: ignore[method-assign]
    room.hub.publish([room.batch(alice, "one"), room.batch(bob, "two"), room.batch(alice, "three")])

    assert shown == [0, 0]
    assert broadcast.shown == 3


def test_the_courier_is_woken_once_a_batch(room: Room) -> None:
    alice = room.join(ALICE)
    room.hub.publish([room.batch(alice, "one"), room.batch(alice, "two")])

    assert room.wakes == 1


def test_a_batch_waits_for_the_courier_before_it_takes_the_lock(room: Room) -> None:
    """Promise: back-pressure. Memory stays bounded when the courier has much to do."""
    alice = room.join(ALICE)
    room.say(alice, "one")

    assert room.broadcasts[0].waits == 1


def test_a_large_batch_is_shown_in_portions_that_wait_for_the_courier_each(room: Room) -> None:
    """Promise: nobody waits for the slow, and nobody is called slow for what came all at once."""
    alice, bob = room.join(ALICE), room.join(BOB)
    room.hub.publish([room.batch(alice, "x" * 8192) for _ in range(100)])

    assert room.broadcasts[0].waits >= 10
    assert [event.id for event in heard(bob)] == list(range(11, 111))  # type: ignore[union-attr]
    assert len(heard(alice)) == 100


def test_whoever_joins_between_two_portions_hears_the_rest(room: Room) -> None:
    """Promise: once. Where the login says that the room stands, there the stream goes on."""
    alice = room.join(ALICE)
    broadcast = room.broadcasts[0]
    joined: list[tuple[Member, Joined]] = []

    def join_then(count: int) -> None:
        if count == 2:
            member = Member(BOB.id, BOB.name, FakeOutbox(broadcast))
            joined.append((member, room.hub.join(member)))

    waits = itertools.count(1)
    broadcast.wait_for_sender = lambda: join_then(next(waits))  # type: ignore[method-assign]
    room.hub.publish([room.batch(alice, "x" * 8192) for _ in range(20)])

    ((bob, where),) = joined
    assert 11 <= where.last_id < 30
    assert [event.id for event in heard(bob)] == list(range(where.last_id + 1, 31))  # type: ignore[union-attr]


def test_the_wait_for_a_round_is_one_for_all_streams() -> None:
    """Promise: nobody waits for the slow. Another dialect in use makes the wait no longer."""
    slow, other = FakeStream("slow"), FakeStream("other")
    began = time.monotonic()
    slow.wait_for_sender = lambda _, limit: eventually(lambda: time.monotonic() > began + limit)  # type: ignore[method-assign, assignment, misc]
    Room(slow, other).hub.wait_for_sender(0.01)

    ahead_max_bytes, patience_seconds = other.last_wait
    assert ahead_max_bytes == 0
    assert patience_seconds is not None
    assert patience_seconds <= 0


def test_a_direct_message_is_heard_by_both_and_nobody_else(room: Room) -> None:
    alice, bob, carol = map(room.join, (ALICE, BOB, CAROL))
    room.say(alice, "psst", "n1", BOB)

    assert heard(bob) == [DirectMessage(11, 0, "alice", "bob", "psst")]
    assert heard(alice) == [Sent(11, SentStatus.SENT, "n1")]
    assert heard(carol) == []
    assert room.broadcasts[0].events == []


def test_a_direct_message_is_heard_on_all_connections_of_both(room: Room) -> None:
    alice, other_alice, bob, other_bob = (room.join(account) for account in (ALICE, ALICE, BOB, BOB))
    room.say(alice, "psst", "n1", BOB)

    message = DirectMessage(11, 0, "alice", "bob", "psst")
    assert heard(bob) == heard(other_bob) == heard(other_alice) == [message]
    assert heard(alice) == [Sent(11, SentStatus.SENT, "n1")]


def test_a_public_message_is_heard_on_the_senders_other_connections(room: Room) -> None:
    alice, other = room.join(ALICE), room.join(ALICE)
    room.say(alice, "hello")

    assert heard(other) == [PublicMessage(11, 0, "alice", "hello")]


def test_a_note_to_oneself_is_heard_once_on_each_connection(room: Room) -> None:
    alice, other = room.join(ALICE), room.join(ALICE)
    room.say(alice, "remember", "n1", ALICE)

    message = DirectMessage(11, 0, "alice", "alice", "remember")
    assert heard(other) == [message]
    assert heard(alice) == [message, Sent(11, SentStatus.SENT, "n1")]


def test_a_direct_message_to_somebody_who_is_away_is_called_stored(room: Room) -> None:
    alice = room.join(ALICE)
    room.say(alice, "psst", "n1", BOB)

    assert heard(alice) == [Sent(11, SentStatus.STORED, "n1")]


def test_a_message_that_was_sent_before_is_confirmed_and_not_heard_again(room: Room) -> None:
    """Promise: once."""
    alice, bob = room.join(ALICE), room.join(BOB)
    for to in (None, BOB):
        batch = room.batch(alice, "hello", "n1", to)
        batch.id, batch.repeated = 5, True
        room.hub.publish([batch])

    assert heard(bob) == []
    assert heard(alice) == [Sent(5, SentStatus.SENT, "n1")] * 2


def test_a_refusal_is_heard_by_its_sender_with_the_nonce(room: Room) -> None:
    alice, bob = room.join(ALICE), room.join(BOB)
    batches = [room.batch(alice, "one", "n1"), room.batch(bob, "two")]
    room.hub.refuse(batches, Refused(ErrorCode.INTERNAL, "Disk."))

    assert heard(alice) == [Refused(ErrorCode.INTERNAL, "Disk.", "n1")]
    assert heard(bob) == [Refused(ErrorCode.INTERNAL, "Disk.")]
    assert room.wakes == 1


def test_each_dialect_in_use_has_a_stream_and_the_others_cost_nothing() -> None:
    json, frames, unused = FakeStream("json"), FakeStream("frames"), FakeStream("unused")
    frames.append([UPDATE])  # a position in one stream is none in the other
    frames.flush()
    room = Room(json, frames, unused)
    alice, bob, carol = room.join(ALICE, json), room.join(BOB, frames), room.join(CAROL, frames)
    room.say(alice, "one")
    room.say(bob, "two")

    assert heard(alice) == [Sent(11, SentStatus.SENT), PublicMessage(12, 0, "bob", "two")]
    assert heard(bob) == [PublicMessage(11, 0, "alice", "one"), Sent(12, SentStatus.SENT)]
    assert heard(carol) == [PublicMessage(11, 0, "alice", "one"), PublicMessage(12, 0, "bob", "two")]
    assert unused.events == []


# --- runs: neighbours that one sender said to everybody ---


def test_what_one_sender_says_in_a_row_is_encoded_together_and_confirmed_in_one_edit(room: Room) -> None:
    """Neither is paid for each message."""
    alice, bob = room.join(ALICE), room.join(BOB)
    room.hub.publish([room.run(alice, "one", "two", "three")])

    assert room.broadcasts[0].appended == [3]
    assert send_queue(alice).splices == [(0, 3, [Sent(11 + nr, SentStatus.SENT, NONCES.get(nr)) for nr in range(3)])]
    assert heard(bob) == [
        PublicMessage(11 + number, 0, "alice", text) for number, text in enumerate(("one", "two", "three"))
    ]


@pytest.mark.parametrize("between", ["of another sender", "of another connection", "direct", "repeated"])
def test_whatever_else_stands_between_two_messages_of_a_sender_keeps_its_place(room: Room, between: str) -> None:
    """Promise: one order."""
    alice, other_alice, bob = room.join(ALICE), room.join(ALICE), room.join(BOB)
    first = room.batch(alice, "first", "n1")
    second = {
        "of another sender": lambda: room.batch(bob, "second", "n2"),
        "of another connection": lambda: room.batch(other_alice, "second", "n2"),
        "direct": lambda: room.batch(alice, "second", "n2", BOB),
        "repeated": lambda: room.batch(alice, "second", "n2"),
    }[between]()
    second.repeated = between == "repeated"
    room.hub.publish([first, second, room.batch(alice, "third", "n3")])

    assert room.broadcasts[0].appended == ([1, 1, 1] if "another" in between else [1, 1])
    ids = [[event.id for event in heard(member)] for member in (alice, other_alice, bob)]  # type: ignore[union-attr]
    of_others = [11, 13] if between == "repeated" else [11, 12, 13]
    assert ids == [[11, 12, 13], of_others, of_others]


def test_what_is_shown_at_once_is_counted_with_what_is_around_the_texts(room: Room) -> None:
    """Promise: nobody is called slow for what came all at once. A letter is a hundred bytes on its way."""
    alice = room.join(ALICE)
    room.hub.publish([room.run(alice, *["x"] * 400) for _ in range(4)])

    assert room.broadcasts[0].waits == 2


def test_what_is_shown_at_once_is_counted_in_all_texts_of_a_run(room: Room) -> None:
    """Promise: nobody waits for the slow, and nobody is called slow for what came all at once."""
    alice, bob = room.join(ALICE), room.join(BOB)
    room.hub.publish([room.run(alice, *["x" * 8192] * 4) for _ in range(5)])

    assert room.broadcasts[0].waits == 3
    assert [event.id for event in heard(alice)] == [event.id for event in heard(bob)] == list(range(11, 31))  # type: ignore[union-attr]


def test_who_joins_after_a_run_hears_what_comes_after_its_last_message(room: Room) -> None:
    """Promise: once."""
    alice = room.join(ALICE)
    room.hub.publish([room.run(alice, "one", "two", "three")])

    assert room.hub.join(Member(BOB.id, BOB.name, FakeOutbox(room.broadcasts[0]))).last_id == 13


def test_each_message_of_a_run_is_refused(room: Room) -> None:
    """A sender counts its answers."""
    alice = room.join(ALICE)
    error = Refused(ErrorCode.INTERNAL, "no room")
    room.hub.refuse([room.run(alice, "one", "two"), room.batch(alice, "three", "n3")], error)

    assert heard(alice) == [error, *(Refused(ErrorCode.INTERNAL, "no room", nonce) for nonce in ("n2", "n3"))]


MEMBERS = 4  # two of alice, one of bob, one of carol, who listens in another dialect
said = st.tuples(st.integers(0, MEMBERS - 1), st.sampled_from(["public", "run", "direct", "repeated"]))


@given(batches=st.lists(st.lists(st.tuples(said, st.integers(0, 2)), max_size=8), max_size=4))
def test_a_batch_is_heard_as_if_each_message_had_come_alone(
    batches: list[list[tuple[tuple[int, str], int]]],
) -> None:
    """Promises: one order, and once. Whatever is encoded together, nobody hears the difference."""
    together, alone = (Room(FakeStream("json"), FakeStream("frames")) for _ in range(2))
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
                batches.append(
                    room.batch(member, "text", None, (ALICE, BOB, CAROL)[whom] if kind == "direct" else None)
                )
                batches[-1].repeated = kind == "repeated"
            for part in [batches] if room is together else [[batch] for batch in batches]:
                room.hub.publish(part)

    assert [heard(member) for member in members[together]] == [heard(member) for member in members[alone]]


# --- joining and leaving ---


def test_whoever_joins_hears_what_comes_after_the_last_message(room: Room) -> None:
    """Promise: once. What came before is the history's, nothing is in both and nothing in neither."""
    alice = room.join(ALICE)
    room.say(alice, "before")
    bob = Member(BOB.id, BOB.name, FakeOutbox(room.broadcasts[0]))
    joined = room.hub.join(bob)
    room.say(alice, "after")

    assert joined == Joined(11, 0)
    assert heard(bob) == [PublicMessage(12, 0, "alice", "after")]


def test_a_repeated_message_does_not_turn_the_last_id_back(room: Room) -> None:
    alice = room.join(ALICE)
    room.say(alice, "hello")
    batch = room.batch(alice, "again", "n1")
    batch.id, batch.repeated = 3, True
    room.hub.publish([batch])

    assert room.hub.join(Member(BOB.id, BOB.name, FakeOutbox(room.broadcasts[0]))).last_id == 11


def test_whoever_left_hears_nothing_more(room: Room) -> None:
    alice, bob = room.join(ALICE), room.join(BOB)
    room.say(alice, "one")
    room.hub.leave(bob)
    room.say(alice, "two")
    room.say(alice, "psst", to=BOB)

    assert heard(bob) == [PublicMessage(11, 0, "alice", "one")]
    assert heard(alice)[-1] == Sent(13, SentStatus.STORED)


def test_a_message_of_somebody_who_has_left_is_still_heard(room: Room) -> None:
    alice, bob = room.join(ALICE), room.join(BOB)
    batch = room.batch(alice, "last words")
    room.hub.leave(alice)
    room.hub.publish([batch])

    assert heard(bob) == [PublicMessage(11, 0, "alice", "last words")]
    assert heard(alice) == []


# --- what was delivered ---


def test_a_direct_message_that_was_heard_is_noted_as_delivered(room: Room) -> None:
    """Promise: once. The next login is not given it again."""
    alice, bob = room.join(ALICE), room.join(BOB)
    room.hub.catch_up(bob, 0)
    room.say(alice, "psst", to=BOB)
    room.say(alice, "to nobody here", to=CAROL)

    assert room.deliveries.unsaved() == {BOB.id: 11}
    room.hub.leave(bob)
    assert room.hub.join(bob) == Joined(12, 12)


def test_deliveries_are_unsaved_until_the_disk_knows_them(room: Room) -> None:
    bob = room.join(BOB)
    room.hub.catch_up(bob, 5)
    taken = room.deliveries.unsaved()
    room.hub.catch_up(bob, 6)
    room.deliveries.note_saved(taken)

    assert room.deliveries.unsaved() == {BOB.id: 6}
    room.deliveries.note_saved({BOB.id: 6})
    assert room.deliveries.unsaved() == {}


def test_deliveries_never_go_back(room: Room) -> None:
    bob = room.join(BOB)
    room.hub.catch_up(bob, 6)
    room.hub.catch_up(bob, 5)

    assert room.deliveries.unsaved() == {BOB.id: 6}


def test_nothing_is_noted_while_older_messages_are_still_on_their_way(room: Room) -> None:
    """A mark is for all that is older: were it set now, what waits would be lost with this connection."""
    alice, bob = room.join(ALICE), room.join(BOB)
    room.say(alice, "psst", to=BOB)
    assert room.deliveries.unsaved() == {}
    room.hub.catch_up(bob, 10)

    assert room.deliveries.unsaved() == {BOB.id: 11}


@pytest.mark.parametrize("is_shutdown", [False, True])
def test_who_leaves_has_got_the_newest_message_of_all(room: Room, is_shutdown: bool) -> None:
    """What came after it is new at the next login."""
    alice, bob = room.join(ALICE), room.join(BOB)
    room.hub.catch_up(bob, 10)
    room.say(alice, "hello")
    if is_shutdown:
        room.hub.end()
    else:
        room.hub.leave(bob)
    room.say(alice, "bob has gone")

    assert room.deliveries.unsaved() == {BOB.id: 11}


@pytest.mark.parametrize("why", ["not acknowledged", "not caught up", "guest"])
def test_who_leaves_and_may_not_have_got_all_has_got_what_was_noted_before(room: Room, why: str) -> None:
    alice, bob = room.join(ALICE), room.join(BOB)
    if why != "not caught up":
        room.hub.catch_up(bob, 10)
    bob.guest = BOB if why == "guest" else None
    send_queue(bob).acknowledges = why != "not acknowledged"
    before = room.deliveries.unsaved()
    room.say(alice, "hello")
    room.hub.leave(bob)

    assert room.deliveries.unsaved() == before


def test_who_joins_is_told_whether_another_device_is_there(room: Room) -> None:
    bob = room.join(BOB)
    other = Member(BOB.id, BOB.name, FakeOutbox(room.broadcasts[0]))
    assert not room.hub.join(other).is_alone
    room.hub.leave(bob)
    room.hub.leave(other)
    assert room.hub.join(bob).is_alone


# --- announcements ---


def test_an_update_is_heard_by_everybody_whose_login_did_not_show_it(room: Room) -> None:
    alice, bob = room.join(ALICE), room.join(BOB)
    alice.presence_version, bob.presence_version = 1, 2
    room.hub.announce(UPDATE, 2)

    assert heard(alice) == [UPDATE]
    assert heard(bob) == []
    assert room.wakes == 1


def test_an_update_is_not_for_one_whose_login_is_not_answered_yet(room: Room) -> None:
    """Its list of users will show as much, and more; the older one would follow it."""
    alice = room.join(ALICE)
    room.hub.announce(UPDATE, 2)

    assert heard(alice) == []


def test_an_update_is_heard_in_every_dialect() -> None:
    json, frames = FakeStream("json"), FakeStream("frames")
    room = Room(json, frames)
    alice, bob, carol = room.join(ALICE, json), room.join(BOB, frames), room.join(CAROL, frames)
    alice.presence_version, bob.presence_version, carol.presence_version = 1, 2, 1
    room.hub.announce(UPDATE, 2)

    assert (heard(alice), heard(bob), heard(carol)) == ([UPDATE], [], [UPDATE])


def test_an_update_to_an_empty_room_is_encoded_for_nobody(room: Room) -> None:
    room.hub.announce(UPDATE, 2)

    assert room.broadcasts[0].events == []
