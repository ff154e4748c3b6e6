"""Connections that track members, as those of irc do: their variants, and what they are told about other users."""

import pytest

from chatprotocol.events import DirectMessage, Event, PublicMessage, Sent, SentStatus, TimeMs, Users
from chatprotocol.requests import Enter
from chatserver.chat.delivery import AckedDelivery
from chatserver.chat.delivery_marks import DeliveryMarks
from chatserver.chat.hub import Hub
from chatserver.chat.presence import Presence
from chatserver.chat.room import Member
from chatserver.journal import entries
from chatserver.journal.base import Applied
from chatserver.journal.entries import PublicMessages, Stored
from chatserver.store.rooms import LOBBY_ID, RoomView

from .helpers import FakeBroadcast, FakeSendQueue, join_hub

NAMES = ("alice", "bob", "carol", "dave")
DEV = 2


class House:
    """A hub whose buffers remember what was appended, by variant."""

    def __init__(self) -> None:
        self.lobby = FakeBroadcast()
        # All buffers that were opened, and those that are open.
        self.buffers: list[FakeBroadcast] = []
        self.open: list[FakeBroadcast] = []
        self.presence = Presence(1_000.0, lambda _: None)
        self.hub = Hub(
            {"json": self.lobby},
            self._open,
            self.open.remove,
            AckedDelivery(10_000, lambda _: None),
            self.presence,
            10,
            DeliveryMarks(lambda *_: None),
            lambda: None,
        )

    def _open(self, variant: str) -> FakeBroadcast:
        buffer = FakeBroadcast(variant)
        self.buffers.append(buffer)
        self.open.append(buffer)
        return buffer

    def log_in(self, name: str, variant: str = "toy/", *rooms: RoomView, echoes: bool = False) -> Member:
        """Log in on a connection of json, or on one that tracks members."""
        queue = FakeSendQueue(self.lobby)
        queue.protocol = variant.partition("/")[0]
        enter = None if variant == "json" else Enter(username=name, variant=variant, echoes=echoes)
        member = Member(NAMES.index(name), name, queue, knows_rooms=True, enter=enter)
        join_hub(self.hub, member, rooms)
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


def public(message_id: int, sender: str, text: str, room: str | None = "dev") -> PublicMessage:
    return PublicMessage(message_id, TimeMs(7), sender, text, room)


def test_events_are_encoded_once_for_each_variant(house: House) -> None:
    """The buffer of a variant is open while a connection follows the room in it."""
    plain, tagged, again = (house.log_in(name, variant, dev()) for name, variant in VARIANTS)
    alice = house.log_in("dave", "json", dev())
    house.say(alice, DEV, 11, "hello")
    told = [[buffer.name, *buffer.appended] for buffer in house.buffers if buffer.events]
    assert told == [["toy/", 1], ["toy/t", 1], ["json", 1]]
    for member in (plain, tagged, again):
        assert received(member) == [public(11, "dave", "hello")]
        house.hub.leave(member)
    assert [buffer.name for buffer in house.open] == ["json"]


VARIANTS = (("alice", "toy/"), ("bob", "toy/t"), ("carol", "toy/t"))


def test_change_of_the_variant_loses_and_repeats_nothing(house: House) -> None:
    """The connection moves from one buffer to another, in all rooms."""
    alice, bob = house.log_in("alice", "toy/", dev()), house.log_in("bob", "json", dev())
    for first_id, variant in enumerate(("toy/t", "toy/t", "toy/"), 11):
        house.say(bob, DEV, first_id, variant)
        house.hub.change_encoding(alice, variant, echoes=False)
    house.say(bob, DEV, 14, "last")
    texts = ["toy/t", "toy/t", "toy/", "last"]
    assert received(alice) == [public(each, "bob", text) for each, text in enumerate(texts, 11)]
    house.hub.leave(alice)
    assert [buffer.name for buffer in house.open] == ["json"]


def test_own_messages_follow_their_confirmation_on_a_connection_that_echoes(house: House) -> None:
    """Other connections of the user get them as those of the others do."""
    alice, again = house.log_in("alice", "toy/", dev(), echoes=True), house.log_in("alice", "toy/", dev())
    bob = house.log_in("bob", "toy/", dev())
    house.say(alice, DEV, 11, "one", "two")
    house.whisper(alice, "bob", 13)
    house.say(again, DEV, 14, "three")
    messages = [public(11, "alice", "one"), public(12, "alice", "two")]
    direct = DirectMessage(13, TimeMs(7), "alice", "bob", "psst")
    third = public(14, "alice", "three")
    confirmed = [Sent(each, SentStatus.SENT) for each in (11, 12, 13, 14)]
    assert received(alice) == [*confirmed[:2], *messages, confirmed[2], direct, third]
    assert received(again) == [*messages, direct, confirmed[3]]
    assert received(bob) == [*messages, direct, third]


@pytest.mark.parametrize("echoes", [False, True])
def test_message_to_the_lobby_is_confirmed_outside_of_it(house: House, *, echoes: bool) -> None:
    """A connection that has not entered it gets none of its messages, and counts as a member nevertheless."""
    alice, bob = house.log_in("alice", echoes=echoes), house.log_in("bob", "json")
    house.say(alice, LOBBY_ID, 11, "hello")
    house.say(bob, LOBBY_ID, 12, "hi")
    assert received(alice) == [Sent(11, SentStatus.SENT), public(11, "alice", "hello", None)][: 1 + echoes]
    assert house.hub.count_members() == {"json": 1, "toy": 1}
    house.hub.leave(alice)
    assert house.hub.count_members() == {"json": 1}


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
