"""Reconnecting with ``since``, over sockets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from integration.room import Room

    Name = Callable[[str], str]


def messages(answers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [answer for answer in answers if answer["type"] in ("broadcast", "direct")]


def test_since_sends_missed_messages_once(shared_room: Room, fresh_name: Name) -> None:
    """Promise: once. Also the messages of the user's other devices, exactly as those that stayed connected saw them."""
    alice_name, bob_name = fresh_name("alice"), fresh_name("bob")
    alice, bob, witness = shared_room.enter(alice_name), shared_room.enter(bob_name), shared_room.enter(bob_name)
    alice.say("seen")
    seen = bob.next("broadcast")["id"]
    bob.close()
    alice.say("to all")
    alice.ask(command="DM", to=bob_name, message="to bob")
    alice.ask(command="DM", to=alice_name, message="not for bob")
    alice.until_fence()
    phone = shared_room.enter(bob_name)
    phone.say("by bob")
    phone.ask(command="DM", to=bob_name, message="to myself")
    phone.next("sent")
    back = shared_room.peer()
    assert back.login(bob_name, since=seen)["last_id"] == seen + 5
    alice.say("new")

    heard = [back.next("broadcast", "direct") for _ in range(5)]
    assert [each["message"] for each in heard] == ["to all", "to bob", "by bob", "to myself", "new"]
    assert [witness.next("broadcast", "direct") for _ in range(6)][1:] == heard
    assert messages(back.until_fence()) == []
