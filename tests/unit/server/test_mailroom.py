"""The mailroom: one message at a time for each user, who answers for it, and what its sender is told of that."""

import itertools
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from random import Random
from types import SimpleNamespace

import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from structlog.testing import capture_logs

from chatprotocol.errors import ErrorCode
from chatprotocol.events import DirectMessage, Event, Message, PublicMessage, Refused, Users
from chatserver.chat import delivery as acked_delivery_module
from chatserver.chat.batch import MessageBatch
from chatserver.chat.delivery import ANSWER_SECONDS, Ack, AckedDelivery, DeliveryWindow
from chatserver.chat.delivery_marks import DeliveryMarks
from chatserver.chat.hub import Hub
from chatserver.chat.member import Member
from chatserver.store.accounts import Account

from .rooms import FakeOutbox, FakeStream, eventually, in_background, must_end

LAG_MAX_BYTES = 1_000
# Of a message without text: see the mailroom.
DELIVERY_BYTES = 100
UPDATE = Users(2, ("alice", "bob"), ("bob",), ())


class Postbox(FakeOutbox):
    """One whose messages can be waited for."""

    def __init__(self) -> None:
        super().__init__(FakeStream("register"))
        self.came: queue.SimpleQueue[PublicMessage | DirectMessage | None] = queue.SimpleQueue()

    def put(self, events: Sequence[Event], *, alone: bool = True) -> None:
        super().put(events, alone=alone)
        for event in events:
            assert isinstance(event, PublicMessage | DirectMessage)
            self.came.put(event)


class User:
    """One user who is given one message at a time, over a fake outbox."""

    def __init__(self, office: "Office", number: int, name: str) -> None:
        self._office = office
        self.account = Account(number, name, "", 0)
        self.send_queue = Postbox()
        self.times_parted = 0
        self.window = DeliveryWindow(office.acked_delivery, self.send_queue, name)
        self.member = Member(number, name, self.window)
        self._seen = 0
        office.hub.join(self.member)

    def part(self) -> None:
        self.times_parted += 1

    def release(self) -> None:
        self._office.acked_delivery.release(self.window)

    def given(self) -> list[str]:
        """The texts of what it was given since this was asked before."""
        new = self.send_queue.replies[self._seen :]
        self._seen += len(new)
        return [event.text for event in new if isinstance(event, PublicMessage | DirectMessage)]

    def answer(self, sender: str | None) -> bool:
        """It has the message of that sender; None: it could not read it."""
        return self._office.acked_delivery.take_answer(self.window, sender)

    def takes(self, sender: str, text: str) -> None:
        """It was given this message and no other since, and says that it got it."""
        assert self.given() == [text]
        assert self.answer(sender)

    def leave(self) -> None:
        self._office.hub.leave(self.member)


class Office:
    """A mailroom behind a real feed, with a stream of another dialect beside it. Its watcher rests at first."""

    def __init__(
        self,
        lag_max_bytes: int = LAG_MAX_BYTES,
        split: Callable[[Message], Sequence[Message]] = lambda message: (message,),
    ) -> None:
        self.crashes: list[str] = []
        self.broadcast = FakeStream()
        self.acked_delivery = AckedDelivery(lag_max_bytes, self.crashes.append, split)
        self.hub = Hub([self.broadcast, self.acked_delivery], 10, DeliveryMarks(), lambda: None)
        self._ids = itertools.count(11)
        self._numbers = itertools.count(1)

    def user(self, name: str, *, is_held: bool = False) -> User:
        """One more who is here."""
        user = User(self, next(self._numbers), name)
        if not is_held:
            user.release()
        return user

    def users(self, *names: str) -> list[User]:
        return [self.user(name) for name in names]

    def listener(self, name: str) -> Member:
        """Somebody with an account, who is told everything at once."""
        member = Member(next(self._numbers), name, FakeOutbox(self.broadcast))
        self.hub.join(member)
        return member

    def batch(self, member: Member, text: str, to: Account | None = None) -> MessageBatch:
        return MessageBatch(member, [text], [None], to, id=next(self._ids))

    def send(self, user: User, text: str, to: Account | None = None) -> Ack:
        """What a user sends is on the disk; what it waits for."""
        ack = self.acked_delivery.expect(user.window)
        self.hub.publish([self.batch(user.member, text, to)])
        return ack

    def close(self) -> None:
        self.acked_delivery.stop()

    @property
    def is_idle(self) -> bool:
        """Is nobody's answer due, and does nobody wait for one?"""
        return not self.acked_delivery._due and not self.acked_delivery._unsettled


@pytest.fixture
def office() -> Iterator[Office]:
    with closing(Office()) as office:
        yield office


def outcome(ack: Ack) -> bool | None:
    """Has everybody got it? None: that is not known yet."""
    return ack.wait() if ack.is_complete else None


def hurry(office: Office) -> None:
    """From now on nobody's answer is waited for."""
    office.acked_delivery.hurry(0.0)


# --- who is given what ---


def test_a_public_message_is_given_to_everybody_but_its_sender(office: Office) -> None:
    alice, bob, carol = office.users("alice", "bob", "carol")
    dave = office.listener("dave")
    office.send(alice, "hello")

    assert [user.given() for user in (alice, bob, carol)] == [[], ["hello"], ["hello"]]
    assert isinstance(dave.send_queue, FakeOutbox)
    assert dave.send_queue.heard() == [PublicMessage(11, 0, "alice", "hello")]


def test_what_is_given_is_the_message_itself(office: Office) -> None:
    alice, bob = office.users("alice", "bob")
    office.send(alice, "hello")
    bob.answer("alice")
    office.send(alice, "psst", bob.account)

    assert bob.send_queue.replies == [
        PublicMessage(11, 0, "alice", "hello"),
        DirectMessage(12, 0, "alice", "bob", "psst"),
    ]


def test_a_direct_message_is_given_to_its_recipient_and_nobody_else(office: Office) -> None:
    alice, bob, carol = office.users("alice", "bob", "carol")
    ack = office.send(alice, "psst", bob.account)

    assert [user.given() for user in (alice, bob, carol)] == [[], ["psst"], []]
    assert outcome(ack) is None
    bob.answer("alice")
    assert outcome(ack) is True


def test_a_message_to_oneself_comes(office: Office) -> None:
    (alice,) = office.users("alice")
    ack = office.send(alice, "note", alice.account)
    alice.takes("alice", "note")

    assert outcome(ack) is True


def test_the_next_message_is_given_when_the_one_before_was_answered(office: Office) -> None:
    """Promise: one message at a time. Simple clients take what one read returns for one message."""
    alice, bob = office.users("alice", "bob")
    for text in ("one", "two", "three"):
        office.send(alice, text)
    for text in ("one", "two", "three"):
        bob.takes("alice", text)

    assert bob.given() == []
    assert office.is_idle


def test_messages_of_one_batch_are_given_one_at_a_time_too(office: Office) -> None:
    alice, bob, carol = office.users("alice", "bob", "carol")
    office.hub.publish(
        [
            office.batch(alice.member, "one"),
            office.batch(bob.member, "two", carol.account),
            MessageBatch(alice.member, ["three", "four"], [None, None], id=20),
        ]
    )
    for user, expected in ((bob, ["one", "three", "four"]), (carol, ["one", "two", "three", "four"])):
        for text in expected:
            user.takes("bob" if text == "two" else "alice", text)
        assert user.given() == []


def test_ones_own_messages_are_left_out_wherever_they_stand(office: Office) -> None:
    alice, bob = office.users("alice", "bob")
    office.acked_delivery.expect(alice.window)
    office.acked_delivery.expect(bob.window)
    office.hub.publish(
        [office.batch(bob.member, "b1"), office.batch(alice.member, "a1"), office.batch(bob.member, "b2")]
    )

    alice.takes("bob", "b1")
    alice.takes("bob", "b2")
    bob.takes("alice", "a1")
    assert alice.given() == bob.given() == []


def test_nobody_is_told_who_comes_and_goes(office: Office) -> None:
    (alice,) = office.users("alice")
    office.hub.announce(UPDATE, 10**9)

    assert alice.send_queue.replies == []


def test_nothing_is_given_out_until_it_is_released(office: Office) -> None:
    """Promise: nothing comes before REGISTERED."""
    (alice,) = office.users("alice")
    bob = office.user("bob", is_held=True)
    acks = [office.send(alice, "one"), office.send(alice, "two")]
    assert bob.given() == []
    assert not bob.answer("alice")
    bob.release()

    for text in ("one", "two"):
        bob.takes("alice", text)
    assert [outcome(ack) for ack in acks] == [True, True]


def test_who_comes_later_is_given_nothing_from_before(office: Office) -> None:
    (alice,) = office.users("alice")
    ack = office.send(alice, "hello")
    (bob,) = office.users("bob")

    assert bob.given() == []
    assert outcome(ack) is True


def test_who_has_left_is_given_nothing_more(office: Office) -> None:
    alice, bob, carol = office.users("alice", "bob", "carol")
    for text in ("one", "two"):
        office.send(alice, text)
    bob.given()
    bob.leave()
    ack = office.send(alice, "three")

    assert not bob.answer("alice")
    assert bob.given() == []
    for text in ("one", "two", "three"):
        carol.takes("alice", text)
    assert outcome(ack) is True


def test_when_the_last_one_has_left_no_letters_are_written(office: Office) -> None:
    alice, bob = office.users("alice", "bob")
    dave = office.listener("dave")
    assert office.acked_delivery.followed
    for user in (alice, bob):
        user.leave()
    before = office.acked_delivery.tail
    office.hub.publish([office.batch(dave, "hello")])

    assert not office.acked_delivery.followed
    assert office.acked_delivery.tail == before


# --- answers ---


@pytest.mark.parametrize("name", ["alice", "Alice", "ALICE", ""])
def test_an_answer_names_the_sender_in_any_case_or_nobody(office: Office, name: str) -> None:
    alice, bob = office.users("alice", "bob")
    ack = office.send(alice, "hello")

    assert bob.answer(name)
    assert outcome(ack) is True


def test_an_answer_with_another_name_is_passed_over(office: Office) -> None:
    alice, bob = office.users("alice", "bob")
    ack = office.send(alice, "one")
    office.send(alice, "two")
    bob.given()

    assert not bob.answer("carol")
    assert outcome(ack) is None
    assert bob.given() == []
    assert bob.answer("alice")
    assert bob.given() == ["two"]


@pytest.mark.parametrize("sender", ["alice", "", None])
def test_an_answer_that_nobody_waits_for_is_passed_over(office: Office, sender: str | None) -> None:
    alice, bob = office.users("alice", "bob")
    assert not bob.answer(sender)
    ack = office.send(alice, "hello")
    assert bob.answer("alice")
    assert not bob.answer(sender)

    assert outcome(ack) is True


# --- messages in parts ---


def words_of(message: Message) -> list[Message]:
    return [replace(message, text=word) for word in message.text.split()]


@pytest.fixture
def wordy() -> Iterator[Office]:
    """Each word of a message is a part."""
    with closing(Office(split=words_of)) as office:
        yield office


@pytest.mark.parametrize("is_direct", [False, True])
def test_the_next_part_is_given_when_the_one_before_was_answered_and_the_message_has_come_with_the_last(
    wordy: Office, *, is_direct: bool
) -> None:
    alice, bob = wordy.users("alice", "bob")
    ack = wordy.send(alice, "one two three", bob.account if is_direct else None)
    wordy.send(alice, "next")
    for text in ("one", "two"):
        bob.takes("alice", text)
        assert outcome(ack) is None
    bob.takes("alice", "three")

    assert outcome(ack) is True
    bob.takes("alice", "next")
    assert wordy.is_idle


def test_one_part_that_cannot_be_read_is_a_message_that_has_not_come(wordy: Office) -> None:
    alice, bob, carol = wordy.users("alice", "bob", "carol")
    ack = wordy.send(alice, "one two three")
    wordy.send(alice, "next")
    bob.takes("alice", "one")
    assert bob.given() == ["two"]
    assert bob.answer(None)

    assert outcome(ack) is False
    bob.takes("alice", "next")
    for text in ("one", "two", "three", "next"):
        carol.takes("alice", text)
    assert wordy.is_idle


def test_who_answers_one_part_and_not_the_next_is_disconnected(wordy: Office) -> None:
    alice, bob = wordy.users("alice", "bob")
    ack = wordy.send(alice, "one two")
    bob.takes("alice", "one")
    hurry(wordy)
    wordy.acked_delivery.start()
    eventually(lambda: bob.send_queue.hangs_up)

    assert outcome(ack) is False


# --- receipts ---


def test_a_receipt_is_settled_when_the_last_one_has_answered(office: Office) -> None:
    alice, *others = office.users("alice", "bob", "carol", "dave")
    ack = office.send(alice, "hello")
    for user in others:
        assert outcome(ack) is None
        user.answer("alice")

    assert outcome(ack) is True
    assert office.is_idle


def test_a_receipt_fails_with_the_first_who_could_not_read_it_and_nothing_mends_it(office: Office) -> None:
    alice, bob, carol, dave = office.users("alice", "bob", "carol", "dave")
    ack = office.send(alice, "hello")
    bob.answer("alice")
    assert outcome(ack) is None
    carol.answer(None)
    assert outcome(ack) is False
    dave.answer("alice")

    assert outcome(ack) is False
    assert office.is_idle


def test_who_could_not_read_one_is_given_the_next(office: Office) -> None:
    alice, bob = office.users("alice", "bob")
    failed, ack = office.send(alice, "one"), office.send(alice, "two")
    bob.given()
    bob.answer(None)
    bob.takes("alice", "two")

    assert (outcome(failed), outcome(ack)) == (False, True)


@pytest.mark.parametrize("was_given", [True, False])
def test_a_receipt_fails_when_one_leaves_before_it_answered(office: Office, was_given: bool) -> None:
    alice, bob, carol = office.users("alice", "bob", "carol")
    if not was_given:
        office.send(carol, "one", bob.account)
    ack = office.send(alice, "two")
    bob.leave()

    assert outcome(ack) is False
    carol.takes("alice", "two")
    assert outcome(ack) is False


def test_a_receipt_is_settled_at_once_where_nobody_here_has_to_answer(office: Office) -> None:
    """Promise: users of other dialects count once it is stored."""
    (alice,) = office.users("alice")
    dave = office.listener("dave")
    acks = [
        office.send(alice, "to all"),
        office.send(alice, "to one who is here", Account(dave.account_id, "dave", "hash", 0)),
    ]

    assert [outcome(ack) for ack in acks] == [True, True]
    assert [ack.is_stored_only for ack in acks] == [False, False]
    assert office.is_idle


def test_of_a_message_to_somebody_who_is_away_the_receipt_says_so(office: Office) -> None:
    (alice,) = office.users("alice")
    ack = office.send(alice, "psst", Account(99, "eve", "hash", 0))

    assert outcome(ack) is True
    assert ack.is_stored_only


def test_a_receipt_that_the_disk_refuses_fails(office: Office) -> None:
    alice, bob = office.users("alice", "bob")
    ack = office.acked_delivery.expect(alice.window)
    office.hub.refuse([office.batch(alice.member, "hello")], Refused(ErrorCode.INTERNAL, "The disk is full."))

    assert outcome(ack) is False
    assert bob.given() == []


def test_of_a_sender_who_is_not_here_any_more_nothing_is_waited_for(office: Office) -> None:
    """Promise: nobody waits for ever."""
    alice, bob = office.users("alice", "bob")
    pending = office.send(alice, "one")
    alice.leave()
    assert outcome(pending) is False
    assert outcome(office.acked_delivery.expect(alice.window)) is False
    bob.takes("alice", "one")

    assert bob.given() == []


def test_what_a_sender_who_has_left_had_posted_comes_all_the_same(office: Office) -> None:
    alice, bob = office.users("alice", "bob")
    office.acked_delivery.expect(alice.window)
    batch = office.batch(alice.member, "last words")
    alice.leave()
    office.hub.publish([batch])

    bob.takes("alice", "last words")


def test_what_is_said_by_others_is_for_nobodys_receipt(office: Office) -> None:
    alice, bob = office.users("alice", "bob")
    dave = office.listener("dave")
    ack = office.acked_delivery.expect(alice.window)
    office.hub.publish([office.batch(dave, "hello"), office.batch(dave, "psst", alice.account)])
    for text in ("hello", "psst"):
        alice.takes("dave", text)
    bob.takes("dave", "hello")

    assert outcome(ack) is None


@pytest.mark.parametrize("is_one_batch", [False, True])
def test_receipts_of_many_senders_to_one_receiver_do_not_mix(office: Office, is_one_batch: bool) -> None:
    bob, *senders = office.users("bob", "u1", "u2", "u3", "u4")
    recipient = bob.account
    acks = [office.acked_delivery.expect(sender.window) for sender in senders]
    batches = [office.batch(sender.member, f"text of {sender.account.name}", recipient) for sender in senders]
    for batch in [batches] if is_one_batch else [[batch] for batch in batches]:
        office.hub.publish(batch)
    outcomes: list[bool | None] = [None] * 4
    for number, sender in enumerate(senders):
        assert bob.given() == [f"text of {sender.account.name}"]
        assert [outcome(ack) for ack in acks] == outcomes
        assert not bob.answer("somebody else")
        bob.answer(sender.account.name if number % 2 else None)
        outcomes[number] = bool(number % 2)

    assert [outcome(ack) for ack in acks] == outcomes


def test_receipts_of_public_and_direct_messages_of_one_batch_do_not_mix(office: Office) -> None:
    alice, bob, carol, dave = office.users("alice", "bob", "carol", "dave")
    to_all = office.acked_delivery.expect(alice.window)
    to_dave = office.acked_delivery.expect(bob.window)
    to_nobody = office.acked_delivery.expect(carol.window)
    office.hub.publish(
        [
            office.batch(alice.member, "one"),
            office.batch(bob.member, "two", dave.account),
            office.batch(carol.member, "three", Account(99, "eve", "hash", 0)),
        ]
    )
    assert (outcome(to_all), outcome(to_dave), outcome(to_nobody)) == (None, None, True)
    assert not to_all.is_stored_only
    dave.takes("alice", "one")
    dave.answer(None)
    assert (outcome(to_all), outcome(to_dave)) == (None, False)
    bob.answer("alice")
    carol.answer("alice")

    assert outcome(to_all) is True


# --- who is too far behind ---


def test_who_has_more_than_the_limit_before_it_is_disconnected_and_the_others_go_on(office: Office) -> None:
    """Promise: nobody waits for the slow, and memory stays bounded. What it was given does not count."""
    alice, slow, quick = office.users("alice", "slow", "quick")
    office.acked_delivery.start()
    text = "x" * (LAG_MAX_BYTES // 2 - DELIVERY_BYTES)
    acks = []
    for _ in range(3):
        acks.append(office.send(alice, text))
        quick.takes("alice", text)
    assert not slow.send_queue.is_finished
    with capture_logs() as log:
        acks.append(office.send(alice, ""))
        eventually(lambda: slow.send_queue.is_finished)

    assert slow.send_queue.hangs_up
    assert not quick.send_queue.is_finished
    assert [outcome(ack) for ack in acks] == [False] * 4
    (entry,) = log
    assert (entry["event"], entry["reason"], entry["user"]) == ("disconnected", "lagging", "slow")
    quick.takes("alice", "")
    last = office.send(alice, "to who is left")
    quick.takes("alice", "to who is left")
    assert outcome(last) is True
    assert len(slow.given()) == 1


def test_ones_own_messages_do_not_count(office: Office) -> None:
    """They are not given to their sender, who may have one in hand meanwhile."""
    alice, bob, carol = office.users("alice", "bob", "carol")
    office.acked_delivery.start()
    office.send(bob, "x")
    assert alice.given() == ["x"]
    for _ in range(3):
        ack = office.send(alice, "x" * LAG_MAX_BYTES)
        for user in (bob, carol):
            while user.given():
                user.answer(None)
        assert ack.is_complete

    office.send(bob, "y")
    assert not alice.send_queue.is_finished
    alice.answer("bob")
    alice.takes("bob", "y")


def test_who_is_far_behind_is_given_up_without_going_through_all_of_that() -> None:
    """Else many who are silent would hold everybody up, for it is done while nothing else can be."""
    with closing(Office(lag_max_bytes=10**9)) as office:
        talker = office.listener("talker")
        silent = office.user("silent")

        class Watched(list[object]):
            looked_at = 0

            def __iter__(self) -> Iterator[object]:
                Watched.looked_at += len(self)
                return super().__iter__()

        for number in range(2_000):
            office.hub.publish([office.batch(talker, f"{number}")])
        office.acked_delivery._deliveries = Watched(office.acked_delivery._deliveries)  # type: ignore[assignment]
        silent.leave()
        assert Watched.looked_at == 0


def test_what_everybody_was_given_is_forgotten(office: Office) -> None:
    """Memory does not grow with what was said, but with how far the slowest is behind."""
    alice, bob, slow = office.users("alice", "bob", "slow")
    for number in range(100):
        office.send(alice, f"{number}")
        bob.takes("alice", f"{number}")
        if number % 10:
            slow.answer("alice")
    assert len(office.acked_delivery._deliveries) <= 2 * 10
    for _ in range(10):
        slow.answer("alice")
    office.send(alice, "the last one")

    assert len(office.acked_delivery._deliveries) <= 1


def test_what_has_come_stays_come(office: Office) -> None:
    """Though its sender is disconnected before it has looked."""
    alice, bob = office.users("alice", "bob")
    ack = office.send(alice, "hello")
    bob.takes("alice", "hello")
    office.send(bob, "one")
    office.send(bob, "x" * 2 * LAG_MAX_BYTES)

    assert outcome(ack) is True


def test_when_the_watcher_dies_nobody_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    office = Office()
    alice, bob, carol = office.users("alice", "bob", "carol")
    ack = office.send(alice, "hello", bob.account)

    def fail(*_: object, **__: object) -> None:
        raise OSError("the log can't be written")

    monkeypatch.setattr(bob.send_queue, "finish", fail)
    hurry(office)
    waiting = office.acked_delivery.expect(carol.window)
    office.acked_delivery.start()
    eventually(lambda: office.crashes)

    assert outcome(ack) is False
    assert outcome(waiting) is False
    assert outcome(office.send(alice, "hello", carol.account)) is False
    office.close()


def test_the_limit_counts_bytes(office: Office) -> None:
    alice, bob = office.users("alice", "bob")
    office.acked_delivery.start()
    text = "\u20ac" * ((LAG_MAX_BYTES - DELIVERY_BYTES) // 3)
    office.send(alice, "one")
    office.send(alice, text)
    assert not bob.send_queue.is_finished
    bob.answer("alice")
    office.send(alice, text + "\u20ac")

    eventually(lambda: bob.send_queue.is_finished)


def test_a_message_to_one_who_was_disconnected_and_has_not_left_yet_does_not_come(office: Office) -> None:
    """To all it comes: it is not waited for."""
    alice, bob = office.users("alice", "bob")
    office.acked_delivery.start()
    office.send(alice, "one")
    office.send(alice, "x" * LAG_MAX_BYTES)
    eventually(lambda: bob.send_queue.is_finished)
    direct, public = office.send(alice, "two", bob.account), office.send(alice, "three")

    assert (outcome(direct), outcome(public)) == (False, True)
    assert not direct.is_stored_only
    assert bob.given() == ["one"]


def test_who_was_disconnected_leaves_as_others_do(office: Office) -> None:
    alice, bob = office.users("alice", "bob")
    office.acked_delivery.start()
    office.send(alice, "one")
    office.send(alice, "x" * LAG_MAX_BYTES)
    eventually(lambda: bob.send_queue.is_finished)
    assert outcome(office.acked_delivery.expect(bob.window)) is False
    bob.leave()
    alice.leave()

    assert not office.acked_delivery.followed
    assert office.is_idle


# --- who does not answer in time; the watcher's hours pass without anybody waiting ---


class Hours:
    """A clock for the mailroom that goes on when the watcher waits, and what happens in the meantime."""

    def __init__(self, office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self._acked_delivery = office.acked_delivery
        self._plans: deque[tuple[float, Callable[[], object]]] = deque()
        monkeypatch.setattr(acked_delivery_module, "time", SimpleNamespace(monotonic=lambda: self.now))
        monkeypatch.setattr(office.acked_delivery, "_changed", self)

    def at(self, seconds: float, *what: Callable[[], object]) -> None:
        """In the order of time."""
        self._plans += ((seconds, each) for each in what)

    def pass_by(self) -> None:
        """Watch until nothing more will happen."""
        self._acked_delivery._watch()
        assert not self._plans

    def notify(self) -> None:
        """The watcher looks after each plan in any case."""

    def wait(self, seconds: float | None) -> None:
        """The watcher holds the lock when it calls this, as with a condition."""
        if self._plans and (seconds is None or self._plans[0][0] <= self.now + seconds):
            self.now, plan = self._plans.popleft()
            self._acked_delivery._lock.release()
            plan()
            self._acked_delivery._lock.acquire()
        elif seconds is None:
            self._acked_delivery._stopping = True
        else:
            self.now += seconds


@pytest.fixture
def hours(office: Office, monkeypatch: pytest.MonkeyPatch) -> Hours:
    return Hours(office, monkeypatch)


def test_a_user_has_five_seconds_for_an_answer() -> None:
    assert ANSWER_SECONDS == 5.0


def test_who_does_not_answer_in_time_is_disconnected_and_its_senders_are_told(office: Office, hours: Hours) -> None:
    alice, bob, carol = office.users("alice", "bob", "carol")
    acks: list[Ack] = []
    hours.at(1.0, lambda: acks.append(office.send(alice, "one")))
    hours.at(1.5, lambda: carol.takes("alice", "one"))
    hours.at(3.0, lambda: acks.append(office.send(carol, "two", bob.account)))
    hours.at(5.9, lambda: acks.append(office.send(carol, "three", alice.account)))
    ended: list[list[bool | None]] = []
    hours.at(5.99, lambda: ended.append([outcome(ack) for ack in acks] + [bob.send_queue.is_finished]))
    hours.at(6.01, lambda: ended.append([outcome(ack) for ack in acks] + [bob.send_queue.is_finished]))
    hours.at(6.02, lambda: alice.takes("carol", "three"))
    with capture_logs() as log:
        hours.pass_by()

    assert ended == [[None, None, None, False], [False, False, None, True]]
    assert outcome(acks[2]) is True
    assert bob.send_queue.hangs_up
    assert not carol.send_queue.is_finished
    assert [(entry["event"], entry["reason"], entry["user"]) for entry in log] == [
        ("disconnected", "ack_timeout", "bob")
    ]
    assert office.is_idle


def test_who_answers_in_time_is_not_disconnected(office: Office, hours: Hours) -> None:
    alice, bob = office.users("alice", "bob")
    acks: list[Ack] = []
    for second in range(0, 50, 10):
        hours.at(second, lambda: acks.append(office.send(alice, "hello")))
        hours.at(second + 4.99, lambda: bob.takes("alice", "hello"))
    hours.pass_by()

    assert [outcome(ack) for ack in acks] == [True] * 5
    assert not bob.send_queue.is_finished


def test_an_answer_with_another_name_gives_no_more_time(office: Office, hours: Hours) -> None:
    alice, bob = office.users("alice", "bob")
    hours.at(1.0, lambda: office.send(alice, "hello"))
    hours.at(5.0, lambda: bob.answer("carol"))
    hours.at(6.01, lambda: bob.send_queue.is_finished or pytest.fail("it has more time"))
    hours.pass_by()


def test_the_time_for_an_answer_begins_when_the_message_is_given(office: Office, hours: Hours) -> None:
    """Not when it was sent: the one before may have taken as long."""
    alice, bob = office.users("alice", "bob")
    hours.at(0.0, lambda: office.send(alice, "one"), lambda: office.send(alice, "two"))
    hours.at(4.0, lambda: bob.takes("alice", "one"))
    hours.at(8.9, lambda: bob.takes("alice", "two"))
    hours.pass_by()

    assert not bob.send_queue.is_finished


def test_a_sender_waits_no_longer_than_its_own_time_for_one_who_has_others_before_it(
    office: Office, hours: Hours
) -> None:
    """Who takes its time is not late, and gets the message nevertheless."""
    alice, bob, carol = office.users("alice", "bob", "carol")
    acks: list[Ack] = []
    hours.at(0.0, lambda: office.send(alice, "one", bob.account))
    hours.at(0.5, lambda: acks.append(office.send(carol, "two", bob.account)))
    hours.at(4.0, lambda: bob.takes("alice", "one"))
    ended: list[bool | None] = []
    for second in (5.49, 5.51):
        hours.at(second, lambda: ended.append(outcome(acks[0])))
    hours.at(8.0, lambda: bob.takes("carol", "two"))
    hours.pass_by()

    assert ended == [None, False]
    assert outcome(acks[0]) is False
    assert not bob.send_queue.is_finished


def test_who_is_disconnected_waits_for_no_answer_itself(office: Office, hours: Hours) -> None:
    alice, bob = office.users("alice", "bob")
    acks: list[Ack] = []
    hours.at(0.0, lambda: office.send(alice, "hello"))
    hours.at(4.0, lambda: acks.append(office.send(bob, "hello")))
    hours.at(5.01, lambda: acks.append(office.acked_delivery.expect(bob.window)))
    hours.at(5.02, lambda: alice.takes("bob", "hello"))
    hours.pass_by()

    assert [outcome(ack) for ack in acks] == [False, False]


def test_all_who_are_late_are_disconnected_though_one_receipt_waits_for_them(office: Office, hours: Hours) -> None:
    """Its receipt is settled by the first of them, and late in the same moment."""
    alice, *others = office.users("alice", "bob", "carol", "dave")
    acks: list[Ack] = []
    hours.at(0.0, lambda: acks.append(office.send(alice, "hello")))
    hours.pass_by()

    assert outcome(acks[0]) is False
    assert [user.send_queue.is_finished for user in (alice, *others)] == [False, True, True, True]
    assert office.is_idle


def test_a_receipt_that_one_who_is_late_has_settled_already_is_passed_over(office: Office, hours: Hours) -> None:
    """Bob and, in the same round behind him, the receipt of what he was sent meanwhile."""
    alice, bob, carol = office.users("alice", "bob", "carol")
    acks: list[Ack] = []
    hours.at(0.0, lambda: office.send(alice, "one", bob.account))
    hours.at(0.0, lambda: acks.append(office.send(carol, "two", bob.account)))
    hours.at(0.0, lambda: acks.append(office.send(bob, "three", carol.account)))
    hours.at(0.0, lambda: carol.takes("bob", "three"))
    hours.pass_by()

    assert outcome(acks[0]) is False
    assert bob.send_queue.is_finished
    assert office.is_idle


def test_at_the_end_nobody_is_waited_for_longer_than_the_hurry_allows(office: Office, hours: Hours) -> None:
    """Promise: shutdown. For those who were given something, and for those who are given the next one."""
    alice, bob, carol = office.users("alice", "bob", "carol")
    acks: list[Ack] = []
    hours.at(10.0, lambda: acks.append(office.send(alice, "one")))
    hours.at(10.0, lambda: acks.append(office.send(carol, "two", bob.account)))
    hours.at(11.0, lambda: office.acked_delivery.hurry(2.0))
    hours.at(12.0, lambda: bob.takes("alice", "one"))
    states: list[list[bool]] = []
    for second in (12.99, 13.01, 13.99, 14.01):
        hours.at(second, lambda: states.append([user.send_queue.is_finished for user in (bob, carol)]))
    hours.pass_by()

    assert states == [[False, False], [False, True], [False, True], [True, True]]
    assert [outcome(ack) for ack in acks] == [False, False]


def test_the_hurry_gives_nobody_more_time(office: Office, hours: Hours) -> None:
    alice, bob = office.users("alice", "bob")
    hours.at(0.0, lambda: office.send(alice, "one"))
    hours.at(4.0, lambda: office.acked_delivery.hurry(2.0))
    hours.at(5.01, lambda: bob.send_queue.is_finished or pytest.fail("it has more time"))
    hours.pass_by()


def test_at_the_end_a_journal_that_died_is_waited_for_no_longer_than_the_hurry_allows(
    office: Office, hours: Hours
) -> None:
    """Promise: nobody waits for ever. What was posted, and is heard of no more, has not come."""
    alice, bob = office.users("alice", "bob")
    ack = office.acked_delivery.expect(alice.window)
    ended: list[bool | None] = []
    hours.at(100.0, lambda: ended.append(outcome(ack)))
    hours.at(100.0, lambda: office.acked_delivery.hurry(2.0))
    for second in (101.99, 102.01):
        hours.at(second, lambda: ended.append(outcome(ack)))
    hours.pass_by()

    assert ended == [None, None, False]
    assert not alice.send_queue.is_finished
    assert not bob.send_queue.is_finished


# --- the watcher's thread ---


def watcher_sleeps(office: Office) -> Callable[[], bool]:
    return lambda: office.acked_delivery._watcher_sleeps


def test_a_watcher_with_nothing_to_watch_is_woken_by_the_first_who_has_to_answer(office: Office) -> None:
    alice, bob = office.users("alice", "bob")
    hurry(office)
    office.acked_delivery.start()
    for user, name in ((alice, "alice"), (bob, "bob")):
        eventually(watcher_sleeps(office))
        (other,) = office.users(f"{name}s friend")
        ack = office.send(user, "hello", other.account)
        assert not ack.wait()
        eventually(lambda other=other: other.send_queue.is_finished)  # type: ignore[misc]

    assert office.crashes == []


def test_a_watcher_that_waits_for_somebody_is_woken_by_the_hurry(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise: shutdown within 8 s."""
    monkeypatch.setattr(office.acked_delivery, "_answer_seconds", 1_000.0)
    alice, bob = office.users("alice", "bob")
    ack = office.send(alice, "hello")
    office.acked_delivery.start()
    hurry(office)

    assert not ack.wait()
    eventually(lambda: bob.send_queue.is_finished)


def test_a_watcher_with_nothing_to_watch_is_woken_by_the_hurry_for_a_journal_that_died(office: Office) -> None:
    (alice,) = office.users("alice")
    office.acked_delivery.start()
    ack = office.acked_delivery.expect(alice.window)
    eventually(watcher_sleeps(office))
    hurry(office)

    assert not ack.wait()


def test_a_sender_that_waits_is_let_go_by_the_last_answer(office: Office) -> None:
    alice, bob = office.users("alice", "bob")
    ack = office.send(alice, "hello")
    outcomes: list[bool] = []
    sender = in_background(lambda: outcomes.append(ack.wait()))
    assert bob.answer("alice")
    must_end(sender)

    assert outcomes == [True]


def test_the_watchers_thread_has_a_name_and_ends(office: Office) -> None:
    office.acked_delivery.start()
    assert "delivery" in {thread.name for thread in threading.enumerate()}
    office.acked_delivery.stop()

    assert "delivery" not in {thread.name for thread in threading.enumerate()}


def test_a_watcher_ends_though_somebody_has_not_answered(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(office.acked_delivery, "_answer_seconds", 1_000.0)
    alice, _ = office.users("alice", "bob")
    office.send(alice, "hello")
    office.acked_delivery.start()

    must_end(in_background(office.acked_delivery.stop))


# --- parting ---


def test_who_parts_with_nothing_under_way_may_go_at_once(office: Office) -> None:
    """Promise: shutdown."""
    alice, bob = office.users("alice", "bob")
    office.acked_delivery.drain(alice.window, alice.part)

    assert (alice.times_parted, bob.times_parted) == (1, 0)


def test_who_parts_may_go_when_its_last_message_was_answered(office: Office) -> None:
    """Promise: shutdown. What was stored is given out."""
    alice, bob = office.users("alice", "bob")
    for text in ("one", "two"):
        office.send(alice, text)
    office.acked_delivery.drain(bob.window, bob.part)
    for text in ("one", "two"):
        assert bob.times_parted == 0
        bob.takes("alice", text)

    assert bob.times_parted == 1


def test_who_parts_before_it_was_released_may_go_when_its_messages_were_answered(office: Office) -> None:
    (alice,) = office.users("alice")
    bob = office.user("bob", is_held=True)
    office.send(alice, "hello")
    office.acked_delivery.drain(bob.window, bob.part)
    assert bob.times_parted == 0
    bob.release()
    bob.takes("alice", "hello")

    assert bob.times_parted == 1


@pytest.mark.parametrize("answer", ["bob", None])
def test_who_parts_may_go_when_its_own_message_has_its_answer(office: Office, answer: str | None) -> None:
    """Promise: shutdown. The sender is told what became of it."""
    alice, bob = office.users("alice", "bob")
    ack = office.send(bob, "hello")
    office.acked_delivery.drain(bob.window, bob.part)
    alice.answer(answer)
    assert outcome(ack) is (answer is not None)
    assert bob.times_parted == 0, "it was not told yet"
    office.acked_delivery.forget_ack(bob.window)

    assert bob.times_parted == 1


def test_who_parts_may_go_when_it_is_disconnected(office: Office, hours: Hours) -> None:
    """Promise: shutdown within 8 s."""
    alice, bob = office.users("alice", "bob")
    hours.at(0.0, lambda: office.send(alice, "one"), lambda: office.send(alice, "two"))
    hours.at(1.0, lambda: office.acked_delivery.drain(bob.window, bob.part))
    hours.at(4.9, lambda: bob.times_parted == 0 or pytest.fail("it was let go too early"))
    hours.pass_by()

    assert bob.times_parted == 1


def test_nobody_is_let_go_who_does_not_part(office: Office) -> None:
    alice, bob = office.users("alice", "bob")
    office.send(alice, "hello")
    bob.answer("alice")
    office.acked_delivery.forget_ack(alice.window)

    assert alice.times_parted == bob.times_parted == 0


# --- many at once ---


def test_many_senders_at_once_get_an_answer_each() -> None:
    """Promise: nobody waits for ever. Some answer, some can't read it, one leaves in the middle."""
    for repetition in range(200):
        with closing(Office(1_000_000)) as office:
            crowd = Crowd(office, Random(repetition))
            crowd.play()
            crowd.check()


class Crowd:
    """Users who all send at once, each message when the one before has its answer, and answer what they are given."""

    SENDERS, MESSAGES = 4, 3

    def __init__(self, office: Office, dice: Random) -> None:
        self._office = office
        self._dice = dice
        self._users = office.users(*(f"u{number}" for number in range(self.SENDERS)))
        self._leaver = office.user("leaver")
        # Whoever publishes is one thread.
        self._journal = threading.Lock()
        self._outcomes: list[bool] = []
        self._bad = {dice.randrange(11, 11 + self.SENDERS * self.MESSAGES) for _ in range(dice.randrange(3))}

    def play(self) -> None:
        senders = [in_background(partial(self._send, user)) for user in self._users]
        receivers = [in_background(partial(self._receive, user)) for user in self._users]
        leaver = in_background(self._leave)
        for thread in (*senders, leaver):
            must_end(thread)
        eventually(lambda: self._office.is_idle)
        for user in self._users:
            user.send_queue.came.put(None)
        for thread in receivers:
            must_end(thread)

    def check(self) -> None:
        assert len(self._outcomes) == self.SENDERS * self.MESSAGES
        assert self._outcomes.count(False) >= len(self._bad)
        for user in self._users:
            came = [event for event in user.send_queue.replies if isinstance(event, PublicMessage)]
            others = [other.account.name for other in self._users if other is not user]
            assert sorted(event.text for event in came) == sorted(
                f"{number} of {other}" for number in range(self.MESSAGES) for other in others
            )
            assert [event.id for event in came] == sorted(event.id for event in came)

    def _send(self, user: User) -> None:
        for number in range(self.MESSAGES):
            ack = self._office.acked_delivery.expect(user.window)
            with self._journal:
                self._office.hub.publish([self._office.batch(user.member, f"{number} of {user.account.name}")])
            self._outcomes.append(ack.wait())
            self._office.acked_delivery.forget_ack(user.window)

    def _receive(self, user: User) -> None:
        while (message := user.send_queue.came.get()) is not None:
            assert user.answer(None if message.id in self._bad else message.sender)

    def _leave(self) -> None:
        """Perhaps it answers, and perhaps it leaves with messages before it."""
        message = self._leaver.send_queue.came.get()
        assert message is not None
        if self._dice.random() < 0.5:
            self._leaver.answer(message.sender)
        self._leaver.leave()


# --- against a simple model, under hypothesis ---


class Model:
    """What each user is to be given, and of each message who has still to answer it: plain lists."""

    def __init__(self, count: int) -> None:
        self.office = Office(1_000_000)
        self.users = self.office.users(*(f"u{number}" for number in range(count)))
        self.is_here = [True] * count
        # Numbers of messages, the first of which it was given.
        self.queues: list[list[int]] = [[] for _ in range(count)]
        self.acks: list[Ack] = []
        self.senders: list[int] = []
        self.expected: list[bool | None] = []

    def play(self, step: tuple[object, ...]) -> None:
        match step:
            case ("batch", list(batch)):
                self._publish(batch)
            case ("answer", int(who), bool(is_good)):
                is_due = bool(self.queues[who])
                name = f"U{self.senders[self.queues[who][0]]}" if is_due else "u0"
                assert self.users[who].answer(name if is_good else None) == is_due
                self._take(who, is_good=is_good)
            case ("wrong", int(who)):
                assert not self.users[who].answer("nobody")
            case ("leave", int(who)) if self.is_here[who]:
                self.users[who].leave()
                self.is_here[who] = False
                while self.queues[who]:
                    self._take(who, is_good=False)
                self._settle(who)

    def _publish(self, batch: list[tuple[int, int | None]]) -> None:
        batches = []
        senders = [sender for sender, _ in batch]
        for sender, to in ((s, t) for number, (s, t) in enumerate(batch) if s not in senders[:number]):
            self.acks.append(self.office.acked_delivery.expect(self.users[sender].window))
            recipient = None if to is None else self.users[to].account
            number = len(self.senders)
            batches.append(self.office.batch(self.users[sender].member, str(number), recipient))
            self.senders.append(sender)
            addressed = [who for who in range(len(self.users)) if who != sender] if to is None else [to]
            targets = [who for who in addressed if self.is_here[who]]
            for who in targets:
                self.queues[who].append(number)
            self.expected.append(None if targets else True)
            if not self.is_here[sender]:
                self.expected[number] = False
        self.office.hub.publish(batches)

    def _take(self, who: int, *, is_good: bool) -> None:
        if not self.queues[who]:
            return
        number = self.queues[who].pop(0)
        if self.expected[number] is None and not is_good:
            self.expected[number] = False
        if self.expected[number] is None and not any(number in queue for queue in self.queues):
            self.expected[number] = True

    def _settle(self, who: int) -> None:
        """It waits for nothing more: of its last message it will not be told."""
        mine = [number for number, sender in enumerate(self.senders) if sender == who]
        if mine and self.expected[mine[-1]] is None:
            self.expected[mine[-1]] = False

    def check(self) -> None:
        for who, user in enumerate(self.users):
            expected = [str(number) for number in self.queues[who]]
            given = user.window.in_flight
            assert (given.parts[0].text if given else None) == (expected[0] if expected else None)
            if given is not None:
                assert user.send_queue.replies[-1] == given.parts[0]
        assert [outcome(ack) for ack in self.acks] == self.expected


def step(dice: Random) -> tuple[object, ...]:
    who = dice.randrange(4)
    (what,) = dice.choices(["batch", "answer", "error", "wrong", "leave"], [10, 14, 2, 2, 1])
    match what:
        case "batch":
            return what, [(dice.randrange(4), dice.choice([None, None, 0, 1, 2, 3])) for _ in range(dice.randint(1, 3))]
        case "answer" | "error":
            return "answer", who, what == "answer"
        case _:
            return what, who


@settings(max_examples=200, deadline=None)
@given(st.randoms(use_true_random=True), st.integers(1, 80))
def test_whatever_is_sent_and_answered_each_is_given_its_own_in_order_and_each_sender_its_own_answer(
    dice: Random, length: int
) -> None:
    model = Model(4)
    script = [step(dice) for _ in range(length)]
    note("\n".join(map(str, script)))
    with closing(model.office), capture_logs():
        for each in script:
            model.play(each)
            model.check()
