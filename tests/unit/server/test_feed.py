"""The feed: what each connection hears of what was committed, in which order."""

import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatprotocol.errors import ErrorCode
from chatprotocol.events import DirectMessage, Event, PublicMessage, Refused, Sent, SentStatus, Users
from chatserver.room.deliveries import DeliveryMarks
from chatserver.room.feed import Feed, Joined
from chatserver.room.post import Post
from chatserver.room.seat import Seat
from chatserver.store.accounts import Account

from .rooms import FakeOutbox, FakeStream, eventually

UPDATE = Users(2, ("alice", "bob"), ("bob",), ())
ALICE, BOB, CAROL = (Account(number, name, "hash", 0) for number, name in enumerate(("alice", "bob", "carol"), 1))


NONCES = {1: "n2"}


class Room:
    """A feed over fake streams, and the posts that are published to it."""

    def __init__(self, *streams: FakeStream) -> None:
        self.streams = streams or (FakeStream(),)
        self.wakes = 0
        self.deliveries = DeliveryMarks()
        self.feed = Feed(self.streams, 10, self.deliveries, self._wake)
        self._ids = itertools.count(11)

    def _wake(self) -> None:
        self.wakes += 1

    def join(self, account: Account, stream: FakeStream | None = None) -> Seat:
        seat = Seat(account.id, account.name, FakeOutbox(stream or self.streams[0]))
        self.feed.join(seat)
        return seat

    def post(self, seat: Seat, text: str, nonce: str | None = None, to: Account | None = None) -> Post:
        return Post(seat, [text], [nonce], to, id=next(self._ids))

    def run(self, seat: Seat, *texts: str) -> Post:
        """What one seat said in a row; the second message has a nonce."""
        first_id, *_ = (next(self._ids) for _ in texts)
        return Post(seat, list(texts), [NONCES.get(number) for number in range(len(texts))], id=first_id)

    def say(self, seat: Seat, text: str, nonce: str | None = None, to: Account | None = None) -> None:
        self.feed.publish([self.post(seat, text, nonce, to)])


@pytest.fixture
def room() -> Room:
    return Room()


def outbox(seat: Seat) -> FakeOutbox:
    assert isinstance(seat.outbox, FakeOutbox)
    return seat.outbox


def heard(seat: Seat) -> list[Event]:
    return outbox(seat).heard()


def test_everybody_hears_a_public_message_and_the_sender_its_confirmation(room: Room) -> None:
    alice, bob, carol = map(room.join, (ALICE, BOB, CAROL))
    room.say(alice, "hello", "n1")

    assert heard(bob) == heard(carol) == [PublicMessage(11, 0, "alice", "hello")]
    assert heard(alice) == [Sent(11, SentStatus.SENT, "n1")]


def test_a_message_is_encoded_once_however_many_hear_it(room: Room) -> None:
    seats = [room.join(Account(number, f"user{number}", "", 0)) for number in range(50)]
    room.say(seats[0], "hello")

    assert room.streams[0].events == [PublicMessage(11, 0, "user0", "hello")]


def test_everybody_hears_the_messages_of_a_batch_in_the_order_of_their_ids(room: Room) -> None:
    """Promise: one order."""
    alice, bob, carol = map(room.join, (ALICE, BOB, CAROL))
    batch = [
        room.post(alice, "one"),
        room.post(bob, "two", to=CAROL),
        room.post(alice, "three", to=BOB),
        room.post(carol, "four"),
    ]
    room.feed.publish(batch)

    for seat in (alice, bob, carol):
        ids = [event.id for event in heard(seat)]  # type: ignore[union-attr]
        assert ids == sorted(ids)
    assert heard(carol) == [
        PublicMessage(11, 0, "alice", "one"),
        DirectMessage(12, 0, "bob", "carol", "two"),
        Sent(14, SentStatus.SENT),
    ]


def test_nothing_of_a_batch_is_shown_before_its_edits_are_in_place(room: Room) -> None:
    """Otherwise the courier could send a sender its own message."""
    alice, bob = room.join(ALICE), room.join(BOB)
    stream = room.streams[0]
    shown: list[int] = []
    splice = FakeOutbox.insert

    def watched(outbox: FakeOutbox, start: int, end: int, events: list[Event]) -> None:
        shown.append(stream.shown)
        splice(outbox, start, end, events)

    alice.outbox.insert = watched.__get__(alice.outbox)  # type: ignore[method-assign]
    room.feed.publish([room.post(alice, "one"), room.post(bob, "two"), room.post(alice, "three")])

    assert shown == [0, 0]
    assert stream.shown == 3


def test_the_courier_is_woken_once_a_batch(room: Room) -> None:
    alice = room.join(ALICE)
    room.feed.publish([room.post(alice, "one"), room.post(alice, "two")])

    assert room.wakes == 1


def test_a_batch_waits_for_the_courier_before_it_takes_the_lock(room: Room) -> None:
    """Promise: back-pressure. Memory stays bounded when the courier has much to do."""
    alice = room.join(ALICE)
    room.say(alice, "one")

    assert room.streams[0].waits == 1


def test_a_large_batch_is_shown_in_portions_that_wait_for_the_courier_each(room: Room) -> None:
    """Promise: nobody waits for the slow, and nobody is called slow for what came all at once."""
    alice, bob = room.join(ALICE), room.join(BOB)
    room.feed.publish([room.post(alice, "x" * 8192) for _ in range(100)])

    assert room.streams[0].waits >= 10
    assert [event.id for event in heard(bob)] == list(range(11, 111))  # type: ignore[union-attr]
    assert len(heard(alice)) == 100


def test_whoever_joins_between_two_portions_hears_the_rest(room: Room) -> None:
    """Promise: once. Where the login says that the room stands, there the stream goes on."""
    alice = room.join(ALICE)
    stream = room.streams[0]
    joined: list[tuple[Seat, Joined]] = []

    def join_then(count: int) -> None:
        if count == 2:
            seat = Seat(BOB.id, BOB.name, FakeOutbox(stream))
            joined.append((seat, room.feed.join(seat)))

    waits = itertools.count(1)
    stream.wait_for_sender = lambda: join_then(next(waits))  # type: ignore[method-assign]
    room.feed.publish([room.post(alice, "x" * 8192) for _ in range(20)])

    ((bob, where),) = joined
    assert 11 <= where.last_id < 30
    assert [event.id for event in heard(bob)] == list(range(where.last_id + 1, 31))  # type: ignore[union-attr]


def test_the_wait_for_a_round_is_one_for_all_streams() -> None:
    """Promise: nobody waits for the slow. Another dialect in use makes the wait no longer."""
    slow, other = FakeStream("slow"), FakeStream("other")
    began = time.monotonic()
    slow.wait_for_sender = lambda _, limit: eventually(lambda: time.monotonic() > began + limit)  # type: ignore[method-assign, assignment, misc]
    Room(slow, other).feed.wait_for_sender(0.01)

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
    assert room.streams[0].events == []


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
        post = room.post(alice, "hello", "n1", to)
        post.id, post.repeated = 5, True
        room.feed.publish([post])

    assert heard(bob) == []
    assert heard(alice) == [Sent(5, SentStatus.SENT, "n1")] * 2


def test_a_refusal_is_heard_by_its_sender_with_the_nonce(room: Room) -> None:
    alice, bob = room.join(ALICE), room.join(BOB)
    posts = [room.post(alice, "one", "n1"), room.post(bob, "two")]
    room.feed.refuse(posts, Refused(ErrorCode.INTERNAL, "Disk."))

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
    room.feed.publish([room.run(alice, "one", "two", "three")])

    assert room.streams[0].appended == [3]
    assert outbox(alice).splices == [(0, 3, [Sent(11 + nr, SentStatus.SENT, NONCES.get(nr)) for nr in range(3)])]
    assert heard(bob) == [
        PublicMessage(11 + number, 0, "alice", text) for number, text in enumerate(("one", "two", "three"))
    ]


@pytest.mark.parametrize("between", ["of another sender", "of another connection", "direct", "repeated"])
def test_whatever_else_stands_between_two_messages_of_a_sender_keeps_its_place(room: Room, between: str) -> None:
    """Promise: one order."""
    alice, other_alice, bob = room.join(ALICE), room.join(ALICE), room.join(BOB)
    first = room.post(alice, "first", "n1")
    second = {
        "of another sender": lambda: room.post(bob, "second", "n2"),
        "of another connection": lambda: room.post(other_alice, "second", "n2"),
        "direct": lambda: room.post(alice, "second", "n2", BOB),
        "repeated": lambda: room.post(alice, "second", "n2"),
    }[between]()
    second.repeated = between == "repeated"
    room.feed.publish([first, second, room.post(alice, "third", "n3")])

    assert room.streams[0].appended == ([1, 1, 1] if "another" in between else [1, 1])
    ids = [[event.id for event in heard(seat)] for seat in (alice, other_alice, bob)]  # type: ignore[union-attr]
    of_others = [11, 13] if between == "repeated" else [11, 12, 13]
    assert ids == [[11, 12, 13], of_others, of_others]


def test_what_is_shown_at_once_is_counted_with_what_is_around_the_texts(room: Room) -> None:
    """Promise: nobody is called slow for what came all at once. A letter is a hundred bytes on its way."""
    alice = room.join(ALICE)
    room.feed.publish([room.run(alice, *["x"] * 400) for _ in range(4)])

    assert room.streams[0].waits == 2


def test_what_is_shown_at_once_is_counted_in_all_texts_of_a_run(room: Room) -> None:
    """Promise: nobody waits for the slow, and nobody is called slow for what came all at once."""
    alice, bob = room.join(ALICE), room.join(BOB)
    room.feed.publish([room.run(alice, *["x" * 8192] * 4) for _ in range(5)])

    assert room.streams[0].waits == 3
    assert [event.id for event in heard(alice)] == [event.id for event in heard(bob)] == list(range(11, 31))  # type: ignore[union-attr]


def test_who_joins_after_a_run_hears_what_comes_after_its_last_message(room: Room) -> None:
    """Promise: once."""
    alice = room.join(ALICE)
    room.feed.publish([room.run(alice, "one", "two", "three")])

    assert room.feed.join(Seat(BOB.id, BOB.name, FakeOutbox(room.streams[0]))).last_id == 13


def test_each_message_of_a_run_is_refused(room: Room) -> None:
    """A sender counts its answers."""
    alice = room.join(ALICE)
    refusal = Refused(ErrorCode.INTERNAL, "no room")
    room.feed.refuse([room.run(alice, "one", "two"), room.post(alice, "three", "n3")], refusal)

    assert heard(alice) == [refusal, *(Refused(ErrorCode.INTERNAL, "no room", nonce) for nonce in ("n2", "n3"))]


SEATS = 4  # two of alice, one of bob, one of carol, who listens in another dialect
said = st.tuples(st.integers(0, SEATS - 1), st.sampled_from(["public", "run", "direct", "repeated"]))


@given(batches=st.lists(st.lists(st.tuples(said, st.integers(0, 2)), max_size=8), max_size=4))
def test_a_batch_is_heard_as_if_each_message_had_come_alone(
    batches: list[list[tuple[tuple[int, str], int]]],
) -> None:
    """Promises: one order, and once. Whatever is encoded together, nobody hears the difference."""
    together, alone = (Room(FakeStream("json"), FakeStream("frames")) for _ in range(2))
    accounts = (ALICE, ALICE, BOB, CAROL)
    seats = {
        room: [room.join(account, room.streams[account is CAROL]) for account in accounts] for room in (together, alone)
    }
    for batch in batches:
        for room in (together, alone):
            posts = []
            for (who, kind), whom in batch:
                seat = seats[room][who]
                if kind == "run":
                    texts = ["one", "two"]
                    alone_posts = (room.post(seat, text, NONCES.get(number)) for number, text in enumerate(texts))
                    posts += [room.run(seat, *texts)] if room is together else alone_posts
                    continue
                posts.append(room.post(seat, "text", None, (ALICE, BOB, CAROL)[whom] if kind == "direct" else None))
                posts[-1].repeated = kind == "repeated"
            for part in [posts] if room is together else [[post] for post in posts]:
                room.feed.publish(part)

    assert [heard(seat) for seat in seats[together]] == [heard(seat) for seat in seats[alone]]


# --- joining and leaving ---


def test_whoever_joins_hears_what_comes_after_the_last_message(room: Room) -> None:
    """Promise: once. What came before is the history's, nothing is in both and nothing in neither."""
    alice = room.join(ALICE)
    room.say(alice, "before")
    bob = Seat(BOB.id, BOB.name, FakeOutbox(room.streams[0]))
    joined = room.feed.join(bob)
    room.say(alice, "after")

    assert joined == Joined(11, 0)
    assert heard(bob) == [PublicMessage(12, 0, "alice", "after")]


def test_a_repeated_message_does_not_turn_the_last_id_back(room: Room) -> None:
    alice = room.join(ALICE)
    room.say(alice, "hello")
    post = room.post(alice, "again", "n1")
    post.id, post.repeated = 3, True
    room.feed.publish([post])

    assert room.feed.join(Seat(BOB.id, BOB.name, FakeOutbox(room.streams[0]))).last_id == 11


def test_whoever_left_hears_nothing_more(room: Room) -> None:
    alice, bob = room.join(ALICE), room.join(BOB)
    room.say(alice, "one")
    room.feed.leave(bob)
    room.say(alice, "two")
    room.say(alice, "psst", to=BOB)

    assert heard(bob) == [PublicMessage(11, 0, "alice", "one")]
    assert heard(alice)[-1] == Sent(13, SentStatus.STORED)


def test_a_message_of_somebody_who_has_left_is_still_heard(room: Room) -> None:
    alice, bob = room.join(ALICE), room.join(BOB)
    post = room.post(alice, "last words")
    room.feed.leave(alice)
    room.feed.publish([post])

    assert heard(bob) == [PublicMessage(11, 0, "alice", "last words")]
    assert heard(alice) == []


# --- what was delivered ---


def test_a_direct_message_that_was_heard_is_noted_as_delivered(room: Room) -> None:
    """Promise: once. The next login is not given it again."""
    alice, bob = room.join(ALICE), room.join(BOB)
    room.feed.catch_up(bob, 0)
    room.say(alice, "psst", to=BOB)
    room.say(alice, "to nobody here", to=CAROL)

    assert room.deliveries.unsaved() == {BOB.id: 11}
    room.feed.leave(bob)
    assert room.feed.join(bob) == Joined(12, 12)


def test_deliveries_are_unsaved_until_the_disk_knows_them(room: Room) -> None:
    bob = room.join(BOB)
    room.feed.catch_up(bob, 5)
    taken = room.deliveries.unsaved()
    room.feed.catch_up(bob, 6)
    room.deliveries.note_saved(taken)

    assert room.deliveries.unsaved() == {BOB.id: 6}
    room.deliveries.note_saved({BOB.id: 6})
    assert room.deliveries.unsaved() == {}


def test_deliveries_never_go_back(room: Room) -> None:
    bob = room.join(BOB)
    room.feed.catch_up(bob, 6)
    room.feed.catch_up(bob, 5)

    assert room.deliveries.unsaved() == {BOB.id: 6}


def test_nothing_is_noted_while_older_messages_are_still_on_their_way(room: Room) -> None:
    """A mark is for all that is older: were it set now, what waits would be lost with this connection."""
    alice, bob = room.join(ALICE), room.join(BOB)
    room.say(alice, "psst", to=BOB)
    assert room.deliveries.unsaved() == {}
    room.feed.catch_up(bob, 10)

    assert room.deliveries.unsaved() == {BOB.id: 11}


@pytest.mark.parametrize("is_shutdown", [False, True])
def test_who_leaves_has_got_the_newest_message_of_all(room: Room, is_shutdown: bool) -> None:
    """What came after it is new at the next login."""
    alice, bob = room.join(ALICE), room.join(BOB)
    room.feed.catch_up(bob, 10)
    room.say(alice, "hello")
    if is_shutdown:
        room.feed.end()
    else:
        room.feed.leave(bob)
    room.say(alice, "bob has gone")

    assert room.deliveries.unsaved() == {BOB.id: 11}


@pytest.mark.parametrize("why", ["not acknowledged", "not caught up", "guest"])
def test_who_leaves_and_may_not_have_got_all_has_got_what_was_noted_before(room: Room, why: str) -> None:
    alice, bob = room.join(ALICE), room.join(BOB)
    if why != "not caught up":
        room.feed.catch_up(bob, 10)
    bob.guest = BOB if why == "guest" else None
    outbox(bob).acknowledges = why != "not acknowledged"
    before = room.deliveries.unsaved()
    room.say(alice, "hello")
    room.feed.leave(bob)

    assert room.deliveries.unsaved() == before


def test_who_joins_is_told_whether_another_device_is_there(room: Room) -> None:
    bob = room.join(BOB)
    other = Seat(BOB.id, BOB.name, FakeOutbox(room.streams[0]))
    assert not room.feed.join(other).is_alone
    room.feed.leave(bob)
    room.feed.leave(other)
    assert room.feed.join(bob).is_alone


# --- announcements ---


def test_an_update_is_heard_by_everybody_whose_login_did_not_show_it(room: Room) -> None:
    alice, bob = room.join(ALICE), room.join(BOB)
    alice.presence_version, bob.presence_version = 1, 2
    room.feed.announce(UPDATE, 2)

    assert heard(alice) == [UPDATE]
    assert heard(bob) == []
    assert room.wakes == 1


def test_an_update_is_not_for_one_whose_login_is_not_answered_yet(room: Room) -> None:
    """Its list of users will show as much, and more; the older one would follow it."""
    alice = room.join(ALICE)
    room.feed.announce(UPDATE, 2)

    assert heard(alice) == []


def test_an_update_is_heard_in_every_dialect() -> None:
    json, frames = FakeStream("json"), FakeStream("frames")
    room = Room(json, frames)
    alice, bob, carol = room.join(ALICE, json), room.join(BOB, frames), room.join(CAROL, frames)
    alice.presence_version, bob.presence_version, carol.presence_version = 1, 2, 1
    room.feed.announce(UPDATE, 2)

    assert (heard(alice), heard(bob), heard(carol)) == ([UPDATE], [], [UPDATE])


def test_an_update_to_an_empty_room_is_encoded_for_nobody(room: Room) -> None:
    room.feed.announce(UPDATE, 2)

    assert room.streams[0].events == []
