"""Acknowledged delivery: one message at a time for each guest, and one outcome for each message.

A model under hypothesis plays random steps of four guests and compares after each: what was given to whom, which acks
are complete, who is disconnected. The other tests are single promises that the model does not see: log lines, memory,
the cost of a disconnect, threads.
"""

import itertools
import queue
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any

import pytest
from hypothesis import given, note
from hypothesis import strategies as st
from msgspec.structs import replace
from structlog.testing import capture_logs

from chatprotocol.events import DirectMessage, Event, Message, PublicMessage, Users
from chatserver.chat.delivery import ACK_SECONDS, Ack, AckedDelivery, DeliveryWindow
from chatserver.chat.presence import Presence
from chatserver.chat.room import Member
from chatserver.journal.base import Applied
from chatserver.store.accounts import Account
from chatserver.store.rooms import LOBBY_ID

from .helpers import (
    FakeBroadcast,
    FakeSendQueue,
    committed,
    direct,
    eventually,
    in_background,
    join_hub,
    make_hub,
    must_end,
    public,
)

LAG_MAX_BYTES = 1_000
# Size of a message without text.
MESSAGE_BYTES = 100


class GuestQueue(FakeSendQueue):
    """The send queue of a guest's receiving connection. ``arrived`` is for threads that wait for messages."""

    def __init__(self) -> None:
        super().__init__(FakeBroadcast("register"))
        self.arrived: queue.SimpleQueue[tuple[int, str]] = queue.SimpleQueue()

    def put(self, events: Sequence[Event]) -> None:
        super().put(events)
        for event in events:
            assert isinstance(event, PublicMessage | DirectMessage)
            self.arrived.put((event.id, event.sender))


class Text(str):
    """The text of a message. Supports weak references."""

    __slots__ = ("__weakref__",)


class User:
    """A guest with a delivery window."""

    def __init__(self, room: "Room", number: int, name: str) -> None:
        self._room = room
        self.account = Account(number, name, "", 0, claim=number)
        self.send_queue = GuestQueue()
        self.window = DeliveryWindow(self.account, self.send_queue)
        self.member = Member(number, name, self.send_queue)
        self.is_drained = False
        self._seen = 0
        room.delivery.join(self.window)

    def given(self) -> list[str]:
        """The texts given since the last call."""
        new = self.send_queue.replies[self._seen :]
        self._seen += len(new)
        return [event.text for event in new if isinstance(event, PublicMessage | DirectMessage)]

    def answer(self, sender: str | None) -> bool:
        return self._room.delivery.handle_ack(self.window, sender)

    def take(self, sender: str, text: str) -> None:
        """Expect this message and no other; acknowledge it."""
        assert self.given() == [text]
        assert self.answer(sender)

    def drain(self) -> None:
        def note_drained() -> None:
            self.is_drained = True

        self._room.delivery.drain(self.window, note_drained)


class Room:
    """AckedDelivery at a real hub, beside the buffer of another protocol. Each word of a message is a part.

    Its clock is ``now``. The watcher thread runs only after ``delivery.start``; other tests call ``check_deadlines``.
    """

    def __init__(self, lag_max_bytes: int = LAG_MAX_BYTES, ack_seconds: float = ACK_SECONDS) -> None:
        self.now = 0.0
        self.crashes: list[str] = []
        self.broadcast = FakeBroadcast()
        self.delivery = AckedDelivery(lag_max_bytes, self.crashes.append, self._split, ack_seconds, lambda: self.now)
        presence = Presence(1_000.0, lambda _: None)
        self._local_users, self.hub = make_hub({"json": self.broadcast}, presence, self.delivery)
        self._ids = itertools.count(11)
        self._numbers = itertools.count(1)
        self._texts: list[weakref.ref[Text]] = []

    @staticmethod
    def _split(message: Message) -> list[Message]:
        return [replace(message, text=word) for word in message.text.split(" ")]

    @property
    def kept_messages(self) -> int:
        return sum(text() is not None for text in self._texts)

    def user(self, name: str) -> User:
        user = User(self, next(self._numbers), name)
        self.delivery.release(user.window)
        return user

    def users(self, *names: str) -> list[User]:
        return [self.user(name) for name in names]

    def json_user(self, name: str) -> Member:
        member = Member(next(self._numbers), name, FakeSendQueue(self.broadcast))
        join_hub(self._local_users, member)
        return member

    def batch(self, member: Member, *texts: str, to: Account | None = None, ack: Ack | None = None) -> Applied:
        numbers = [next(self._ids) for _ in texts]
        kept = [Text(text) for text in texts]
        self._texts += map(weakref.ref, kept)
        batch = public(member, *kept) if to is None else direct(member, to, *kept)
        return committed(batch, numbers[0], ack or member)

    def send(self, user: User, text: str, to: Account | None = None) -> Ack:
        """Send a message and publish it, as the session and the journal do."""
        ack = self.delivery.begin_send(user.window)
        self.hub.handle_applied([self.batch(user.member, text, to=to, ack=ack)])
        return ack

    def close(self) -> None:
        self.delivery.stop()


@pytest.fixture
def room() -> Iterator[Room]:
    with closing(Room()) as room:
        yield room


def outcome(ack: Ack) -> bool | None:
    """None: pending."""
    return ack.wait() is not None if ack.is_complete else None


# --- the model ---
@dataclass(eq=False)
class Said:
    """A message in the model."""

    id: int
    sender: "Player | None"
    sender_name: str
    words: list[str]
    to: "Player | None"
    ack: Ack | None
    outcome: bool | None = None
    due: float | None = None
    waiting_for: set["Player"] = field(default_factory=set)

    @property
    def size_bytes(self) -> int:
        return MESSAGE_BYTES + len(" ".join(self.words).encode())

    def complete(self, *, success: bool) -> None:
        """The first outcome counts."""
        if self.outcome is None:
            self.outcome, self.due = success, None


@dataclass(eq=False)
class Player:
    """A guest in the model: the undelivered messages, the first of which is in flight if ``due`` is set."""

    user: User
    is_held: bool
    is_member: bool = True
    is_open: bool = True
    was_late: bool = False
    queue: list[Said] = field(default_factory=list)
    part: int = 0
    due: float | None = None
    own: Said | None = None
    points: int = 0
    given: list[tuple[int, str]] = field(default_factory=list)

    @property
    def lag_bytes(self) -> int:
        return sum(said.size_bytes for said in self.queue[self.due is not None :])


class Model:
    """The promises of acknowledged delivery, as plain lists."""

    def __init__(self) -> None:
        self.room = Room()
        self._ack_seconds = ACK_SECONDS
        self._json_user = self.room.json_user("json")
        self._names = itertools.count()
        self.players = [self._new_player(is_held=is_held) for is_held in (False, False, True, True)]
        self._said: list[Said] = []
        self._uncommitted: list[tuple[Applied, list[Said]]] = []

    def _new_player(self, *, is_held: bool) -> Player:
        user = User(self.room, 100 + (number := next(self._names)), f"u{number}")
        if not is_held:
            self.room.delivery.release(user.window)
        return Player(user, is_held)

    def play(self, step: tuple[Any, ...]) -> None:
        match step:
            case "join", who, is_held if not self.players[who].is_member:
                self.players[who] = self._new_player(is_held=is_held)
            case "release", who:
                player = self.players[who]
                self.room.delivery.release(player.user.window)
                player.is_held = False
                self._give(player)
            case "send", who, to, text if self.players[who].is_member and self.players[who].own is None:
                self._send(self.players[who], None if to is None else self.players[to], text)
            case "json", texts:
                batch = self.room.batch(self._json_user, *texts)
                said = [self._note_said(batch.outcome[0].id + at, text) for at, text in enumerate(texts)]
                self._uncommitted.append((batch, said))
            case "commit", is_refused:
                self._commit(is_refused=is_refused)
            case "answer", who, kind:
                self._answer(self.players[who], kind)
            case "leave", who if self.players[who].is_member:
                self.room.delivery.leave(self.players[who].user.window)
                self.players[who].is_member = False
                self._close(self.players[who])
            case "wait", seconds:
                self.room.now += seconds
                self.room.hub.announce(LOBBY_ID, Users(None, ("alice",)), 10**9)  # guests are not told
        self.room.delivery.check_deadlines()
        self._expire()

    def _note_said(self, number: int, text: str, sender: Player | None = None, to: Player | None = None) -> Said:
        name = "json" if sender is None else sender.user.account.name
        ack = None if sender is None else sender.user.window.ack
        said = Said(number, sender, name, text.split(" "), to, ack)
        self._said.append(said)
        return said

    def _send(self, sender: Player, to: Player | None, text: str) -> None:
        ack = self.room.delivery.begin_send(sender.user.window)
        batch = self.room.batch(sender.user.member, text, to=None if to is None else to.user.account, ack=ack)
        sender.own = said = self._note_said(batch.outcome[0].id, text, sender, to)
        if not sender.is_open:
            said.complete(success=False)
        self._uncommitted.append((batch, [said]))

    def _commit(self, *, is_refused: bool) -> None:
        uncommitted, self._uncommitted = self._uncommitted, []
        batches = [batch for batch, _ in uncommitted]
        everything = [each for _, said in uncommitted for each in said]
        if is_refused:
            self.room.hub.handle_applied([replace(batch, outcome=OSError("disk full")) for batch in batches])
            for said in everything:
                said.complete(success=False)
            return
        self.room.hub.handle_applied(batches)
        for _, said_together in uncommitted:
            for said in said_together:
                self._publish(said)
            for player in self.players:
                if player.lag_bytes > LAG_MAX_BYTES:
                    self._disconnect(player)
                self._give(player)

    def _publish(self, said: Said) -> None:
        addressed = [player for player in self.players if player is not said.sender] if said.to is None else [said.to]
        said.waiting_for = {player for player in addressed if player.is_open}
        for player in said.waiting_for:
            player.queue.append(said)
        if not said.waiting_for:
            said.complete(success=said.to is None)
        elif said.outcome is None:
            said.due = self.room.now + self._ack_seconds

    def _give(self, player: Player) -> None:
        if player.is_open and not player.is_held and player.due is None and player.queue:
            player.part = 0
            self._give_part(player)

    def _give_part(self, player: Player) -> None:
        said = player.queue[0]
        player.given.append((said.id, said.words[player.part]))
        player.part += 1
        player.due = self.room.now + self._ack_seconds

    def _answer(self, player: Player, kind: str) -> None:
        is_due = player.due is not None
        name = player.queue[0].sender_name if is_due else "u0"
        names = {"name": name, "capitals": name.upper(), "no name": "", "reject": None, "other": "somebody"}
        is_valid = is_due and kind != "other"
        assert player.user.answer(names[kind]) == is_valid
        if not is_valid:
            return
        said = player.queue[0]
        if kind != "reject" and player.part < len(said.words):
            self._give_part(player)
            return
        player.queue.pop(0)
        player.due = None
        said.waiting_for.remove(player)
        player.points = max(0, player.points + (10 if kind == "reject" else -1))
        if kind == "reject":
            said.complete(success=False)
        elif not said.waiting_for:
            said.complete(success=True)
        if player.points >= 30:
            self._disconnect(player)
        self._give(player)

    def _close(self, player: Player) -> None:
        for said in player.queue:
            said.complete(success=False)
        player.queue.clear()
        player.due = None
        player.is_open = False
        if player.own is not None:
            player.own.complete(success=False)

    def _disconnect(self, player: Player) -> None:
        self._close(player)
        player.was_late = True

    def _expire(self) -> None:
        for said in self._said:
            if said.due is not None and said.due <= self.room.now:
                said.complete(success=False)
        for player in self.players:
            if player.due is not None and player.due <= self.room.now:
                self._disconnect(player)

    def hurry(self, seconds: float) -> None:
        """Shutdown: the journal has ended, so messages that are not published now never will be."""
        self.room.delivery.shorten_timeouts(seconds)
        self._ack_seconds = seconds
        latest = self.room.now + seconds
        for said in self._said:
            is_lost = said is getattr(said.sender, "own", None) and said.outcome is None
            if said.due is not None or is_lost:
                said.due = latest if said.due is None else min(said.due, latest)
        for player in self.players:
            if player.due is not None:
                player.due = min(player.due, latest)
            player.user.drain()

    def check(self) -> None:
        for player in self.players:
            assert [(event.id, event.text) for event in player.user.send_queue.replies] == player.given  # type: ignore[union-attr]
            assert player.user.send_queue.hangs_up == player.was_late
            if player.own is not None and player.own.outcome is not None:  # its reader has sent the reply
                self.room.delivery.end_send(player.user.window)
                player.own = None
        for said in self._said:
            assert said.ack is None or outcome(said.ack) == said.outcome

    def check_drained(self) -> None:
        for player in self.players:
            is_idle = player.due is None and player.own is None and not player.lag_bytes
            assert player.user.is_drained == is_idle or not player.is_member


def user_step(dice: Random) -> tuple[Any, ...]:
    """A step that may follow the end of the journal."""
    who = dice.randrange(4)
    (what,) = dice.choices(["answer", "wait", "release", "leave"], [20, 5, 3, 2])
    match what:
        case "answer":
            (kind,) = dice.choices(["name", "capitals", "no name", "reject", "other"], [8, 1, 1, 2, 2])
            return what, who, kind
        case "wait":
            return what, dice.choice([0.5, 1.0, 2.0, 4.5, 5.0])
        case _:
            return what, who


def any_step(dice: Random) -> tuple[Any, ...]:
    who = dice.randrange(4)
    (what,) = dice.choices(["send", "json", "commit", "join", "user"], [10, 2, 8, 3, 25])
    match what:
        case "send":
            return what, who, dice.choice([None, None, 0, 1, 2, 3]), text(dice)
        case "json":
            return what, [text(dice) for _ in range(dice.randint(1, 3))]
        case "commit":
            return what, dice.random() < 0.1
        case "join":
            return what, who, dice.random() < 0.5
        case _:
            return user_step(dice)


def text(dice: Random) -> str:
    """Words whose sizes can add up to exactly the lag limit."""
    return " ".join(dice.choice(["", "", "x" * 100, "\u20ac" * 100]) for _ in range(dice.choice([1, 1, 1, 3])))


@given(st.randoms(use_true_random=True), st.integers(1, 120), st.integers(0, 20))
def test_delivery_agrees_with_the_model(dice: Random, length: int, last: int) -> None:
    """Promises: one order; one message at a time; each sender gets one outcome; silent and slow users are disconnected.

    After ``length`` steps the server shuts down, and users go on for ``last`` steps.
    """
    model = Model()
    script = [any_step(dice) for _ in range(length)]
    script_of_shutdown = [user_step(dice) for _ in range(last)]
    note("\n".join(map(str, [*script, "hurry", *script_of_shutdown])))
    with closing(model.room), capture_logs():
        for step in script:
            model.play(step)
            model.check()
        model.hurry(2.0)
        for step in script_of_shutdown:
            model.play(step)
            model.check()
            model.check_drained()


# --- what the model does not see ---
def test_next_message_follows_the_answer(room: Room) -> None:
    """Promise: one message at a time. Simple clients treat the result of one read as one message."""
    alice, bob = room.users("alice", "bob")
    public, direct = room.send(alice, "one two"), room.send(alice, "three", bob.account)
    bob.take("alice", "one")
    bob.take("alice", "two")
    assert outcome(public) is True
    assert outcome(direct) is None
    bob.take("alice", "three")
    assert outcome(direct) is True
    assert alice.given() == bob.given() == []


def test_stored_message_is_delivered_to_an_account_and_not_to_a_guest_that_left(room: Room) -> None:
    """An absent account gets it at the next login. A later guest of the same name is another person."""
    alice, bob = room.users("alice", "bob")
    json_user = room.json_user("json")
    room.delivery.leave(bob.window)
    assert outcome(room.send(alice, "psst", Account(99, "eve", "hash", 0))) is True
    assert outcome(room.send(alice, "psst", Account(json_user.account_id, "json", "hash", 0))) is True
    assert outcome(room.send(alice, "psst", bob.account)) is False
    new_bob = DeliveryWindow(replace(bob.account, claim=bob.account.claim + 1), GuestQueue())
    room.delivery.join(new_bob)
    assert outcome(room.send(alice, "psst", bob.account)) is False


def test_disconnects_are_logged_with_reason_and_user(room: Room) -> None:
    alice, _, slow = room.users("alice", "silent", "slow")
    room.send(alice, "hello")
    slow.answer("alice")
    room.now += ACK_SECONDS
    with capture_logs() as log:
        room.delivery.check_deadlines()
        room.send(alice, "x" * LAG_MAX_BYTES)
        room.delivery.check_deadlines()
    assert [(entry["event"], entry["reason"], entry["user"]) for entry in log] == [
        ("disconnected", "ack_timeout", "silent"),
        ("disconnected", "lagging", "slow"),
    ]


def test_delivered_messages_are_forgotten(room: Room) -> None:
    """Memory grows with the lag of the slowest user, not with the number of messages."""
    alice, bob, slow = room.users("alice", "bob", "slow")
    for number in range(100):
        room.send(alice, f"{number}")
        bob.take("alice", f"{number}")
        if number % 20:
            slow.answer("alice")
    for user in (bob, slow):
        user.send_queue.replies.clear()
    assert room.kept_messages == 5
    while slow.answer("alice"):
        pass
    slow.send_queue.replies.clear()
    assert room.kept_messages == 0


def test_disconnect_does_not_scan_the_queue() -> None:
    """It may happen under the hub's lock: many silent users would delay all others."""
    costs = []
    for count in (10, 2_000):
        with closing(Room(lag_max_bytes=10**9)) as room:
            json_user, silent = room.json_user("json"), room.user("silent")
            room.hub.handle_applied([room.batch(json_user, *map(str, range(count)))])
            costs.append(lines_run(partial(room.delivery.leave, silent.window)))
    assert costs[0] == costs[1]


def lines_run(work: Callable[[], object]) -> int:
    """The number of lines of Python that this runs."""
    events: list[str] = []

    def trace(_: object, event: str, __: object) -> Any:
        events.append(event)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    work()
    sys.settrace(before)
    return events.count("line")


# --- threads ---
def test_first_message_wakes_the_idle_watcher() -> None:
    """Each round begins with a watcher that has nothing to watch."""
    with closing(Room(ack_seconds=0.0)) as room:
        room.delivery.start()
        for number in range(20):
            sender, receiver = room.users(f"sender{number}", f"receiver{number}")
            ack = room.send(sender, "hello", receiver.account)
            assert ack.wait() is None
            eventually(lambda receiver=receiver: receiver.send_queue.hangs_up)  # type: ignore[misc]
        assert room.crashes == []


@pytest.mark.parametrize("is_published", [True, False])
def test_hurry_wakes_the_watcher(is_published: bool) -> None:
    """Promise: shutdown within 8 s. A journal that died publishes nothing more."""
    for _ in range(20):
        with closing(Room(ack_seconds=1_000.0)) as room:
            alice, _ = room.users("alice", "bob")
            room.delivery.start()
            ack = room.send(alice, "hello") if is_published else room.delivery.begin_send(alice.window)
            room.delivery.shorten_timeouts(0.0)
            must_end(in_background(ack.wait))
            assert outcome(ack) is False


def test_stop_ends_the_watcher_while_an_answer_is_due(room: Room) -> None:
    alice, _ = room.users("alice", "bob")
    room.send(alice, "hello")
    room.delivery.start()
    assert "delivery" in {thread.name for thread in threading.enumerate()}
    must_end(in_background(room.delivery.stop))
    assert "delivery" not in {thread.name for thread in threading.enumerate()}


def test_acks_fail_after_the_watcher_died() -> None:
    """Promise: no sender waits forever."""
    room = Room(ack_seconds=0.0)
    alice, bob, carol = room.users("alice", "bob", "carol")

    def fail(**_: object) -> None:
        raise OSError("the log can't be written")

    bob.send_queue.finish = fail  # type: ignore[method-assign, assignment]
    waiting = room.delivery.begin_send(carol.window)
    ack = room.send(alice, "hello", bob.account)
    room.delivery.start()
    eventually(lambda: room.crashes)
    for each in (ack, waiting, room.delivery.begin_send(alice.window)):
        must_end(in_background(each.wait))
        assert outcome(each) is False
    room.close()


def test_many_senders_at_once_get_an_outcome_each() -> None:
    """Promise: no sender waits forever. All hear all others in one order."""
    journal = threading.Lock()  # one thread publishes at a time

    def send(room: Room, user: User, outcomes: list[bool]) -> None:
        for number in range(3):
            ack = room.delivery.begin_send(user.window)
            with journal:
                room.hub.handle_applied([room.batch(user.member, f"{number}", ack=ack)])
            outcomes.append(ack.wait() is not None)
            room.delivery.end_send(user.window)

    def receive(user: User) -> None:
        for _ in range(9):
            message_id, sender = user.send_queue.arrived.get()
            assert user.answer(None if message_id == 15 else sender)

    for _ in range(50):
        outcomes: list[bool] = []
        with closing(Room(1_000_000)) as room:
            users = room.users("alice", "bob", "carol", "dave")
            threads = [in_background(partial(send, room, user, outcomes)) for user in users]
            threads += [in_background(partial(receive, user)) for user in users]
            for thread in threads:
                must_end(thread)
        assert sorted(outcomes) == [False] + [True] * 11
        for user in users:
            ids = [message.id for message in user.send_queue.replies if isinstance(message, PublicMessage)]
            assert ids == sorted(set(ids))
            assert len(ids) == 9
