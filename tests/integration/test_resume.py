"""Coming back after a lost connection: ``since`` and ``nonce``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from integration.room import Room


def test_since_sends_what_was_missed_in_order_and_nothing_twice(room: Room) -> None:
    """Once: a client that reconnects names the last id that it saw and gets what it missed, nothing twice."""
    alice, bob = room.enter("alice"), room.enter("bob")
    alice.say("seen")
    seen = bob.next("broadcast")["id"]
    bob.close()
    alice.say("missed")
    alice.ask(command="DM", to="bob", message="missed too")
    alice.next("sent")
    room.enter("carol").ask(command="DM", to="alice", message="not for bob")
    bob = room.peer()
    assert bob.login("bob", since=seen)["last_id"] >= 3
    alice.say("new")
    seen_texts = [bob.next("broadcast", "direct")["message"] for _ in range(3)]
    assert seen_texts == ["missed", "missed too", "new"]
    assert [answer for answer in bob.until_fence() if answer["type"] != "users"] == []


def test_since_skips_the_clients_own_messages(room: Room) -> None:
    alice = room.enter("alice")
    alice.say("mine")
    alice.close()
    room.enter("bob").say("his")
    again = room.peer()
    again.login("alice", since=0)
    assert again.next("broadcast")["message"] == "his"


def test_more_than_one_page_is_missed_while_others_go_on_talking(room: Room) -> None:
    alice = room.enter("alice")
    room.enter("bob").close()
    count = 1_700
    alice.send(b"".join(b'{"command":"PM","message":"%d"}\n' % number for number in range(count)))
    while alice.next("sent")["id"] < count:
        pass
    bob = room.peer()
    bob.ask(command="login", username="bob", password="secret", since=0)
    alice.send(b"".join(b'{"command":"PM","message":"%d"}\n' % number for number in range(count, 2 * count)))
    assert [bob.next("broadcast")["message"] for _ in range(2 * count)] == [str(number) for number in range(2 * count)]


def test_the_same_nonce_makes_one_message_even_after_a_restart(open_room: Callable[..., Room]) -> None:
    room = open_room()
    alice, bob = room.enter("alice"), room.enter("bob")
    first = alice.say("hello", nonce="n1")
    assert alice.say("hello", nonce="n1") == first
    assert bob.say("hello", nonce="n1")["id"] != first["id"], "another sender's nonce is another message"
    room.stop()
    room = open_room(data=room.config.data)
    alice = room.enter("alice")
    assert alice.say("hello", nonce="n1") == first
    alice.ask(command="CH")
    assert len(alice.next("history")["messages"]) == 2


def test_ids_go_on_growing_after_a_restart(open_room: Callable[..., Room]) -> None:
    room = open_room()
    last = room.enter("alice").say("one")["id"]
    room.stop()
    room = open_room(data=room.config.data)
    alice = room.peer()
    assert alice.login("alice")["last_id"] == last
    assert alice.say("two")["id"] == last + 1
