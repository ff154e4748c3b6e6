"""Reconnecting: ``since``, history ids and nonces, over sockets."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

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
    phone.until_fence()
    back = shared_room.peer()
    assert back.login(bob_name, since=seen)["last_id"] == seen + 5
    alice.say("new")

    heard = [back.next("broadcast", "direct") for _ in range(5)]
    assert [each["message"] for each in heard] == ["to all", "to bob", "by bob", "to myself", "new"]
    assert [witness.next("broadcast", "direct") for _ in range(6)][1:] == heard
    assert messages(back.until_fence()) == []


def restored(room: Room, open_room: Callable[..., Room], *, is_noticed: bool) -> Room:
    """A server that was restored to message 2 of four, and accepted one more."""
    alice = room.enter("alice")
    for text in ("1", "2"):
        alice.say(text)
    database = room.config.data / "chat.db"
    with closing(sqlite3.connect(database)) as connection:
        connection.execute(f"VACUUM INTO '{room.config.data}/backup.db'")
    state = (room.config.data / "chat.state").read_bytes()
    for text in ("lost 3", "lost 4"):
        alice.say(text)
    room.stop()
    (room.config.data / "backup.db").rename(database)
    if not is_noticed:  # the whole folder was restored
        (room.config.data / "chat.state").write_bytes(state)
    room = open_room(data=room.config.data)
    room.enter("alice").say("new 3")
    return room


@pytest.mark.parametrize("is_noticed", [True, False])
def test_client_ahead_of_a_restored_server_is_told(open_room: Callable[..., Room], is_noticed: bool) -> None:
    """Promise: nothing is lost silently. A server that can't notice the restore sees that ``since`` is too high."""
    room = open_room()
    known = room.peer().login("bob")["history_id"]
    room = restored(room, open_room, is_noticed=is_noticed)
    bob = room.peer()
    welcome = bob.login("bob", since=4, history_id=known)
    assert (welcome["history_id"] == known) is not is_noticed
    assert welcome["since"] == (2 if is_noticed else 0)
    assert welcome["last_id"] == (5 if is_noticed else 3), "ids that clients saw are not used again"
    texts = [answer["message"] for answer in messages(bob.until_fence())]
    assert texts == (["new 3"] if is_noticed else ["1", "2", "new 3"])
    assert "since" not in room.peer().login("bob", since=welcome["last_id"], history_id=welcome["history_id"])


def test_pages_of_missed_messages_are_followed_by_new_ones(shared_room: Room, fresh_name: Name) -> None:
    name = fresh_name("bob")
    since = shared_room.peer().login(name)["last_id"]
    alice = shared_room.enter(fresh_name("alice"))
    count = 1_700
    alice.send(b"".join(b'{"command":"PM","message":"%d"}\n' % number for number in range(count)))
    alice.ask(command="CH")
    alice.next("history")
    bob = shared_room.peer()
    bob.ask(command="login", username=name, password="secret", since=since)
    alice.send(b"".join(b'{"command":"PM","message":"%d"}\n' % number for number in range(count, 2 * count)))
    assert [bob.next("broadcast")["message"] for _ in range(2 * count)] == [str(number) for number in range(2 * count)]


def test_ids_and_nonces_survive_a_restart(open_room: Callable[..., Room]) -> None:
    """A repeated nonce of the same sender is the same message."""
    room = open_room()
    alice, bob = room.enter("alice"), room.enter("bob")
    first = alice.say("hello", nonce="n1")
    assert alice.say("hello", nonce="n1") == first
    last = bob.say("hello", nonce="n1")["id"]
    assert last == first["id"] + 1
    room.stop()
    room = open_room(data=room.config.data)
    alice = room.peer()
    assert alice.login("alice")["last_id"] == last
    assert alice.say("hello", nonce="n1") == first
    assert alice.say("more")["id"] == last + 1
    alice.ask(command="CH")
    assert len(alice.next("history")["messages"]) == 3
