"""Coming back after a lost connection: ``since`` and ``nonce``."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

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


def test_since_tells_a_second_device_what_the_user_said_on_the_first_one(room: Room) -> None:
    """As the other connections of the user hear it at once, and as the history has it."""
    alice, bob = room.enter("alice"), room.enter("bob")
    witness = room.peer()
    last_id = witness.login("alice")["last_id"]
    alice.say("to everybody")
    bob.say("his")
    alice.ask(command="DM", to="bob", message="to bob")
    alice.ask(command="DM", to="alice", message="to myself")
    heard = [witness.next("broadcast", "direct") for _ in range(4)]
    again = room.peer()
    again.login("alice", since=last_id)
    assert [again.next("broadcast", "direct") for _ in range(4)] == heard
    assert [each["message"] for each in heard] == ["to everybody", "his", "to bob", "to myself"]
    assert [answer for answer in again.until_fence() if answer["type"] != "users"] == []


def restored(room: Room, open_room: Callable[..., Room], *, is_noticed: bool) -> Room:
    """The room after its server was restored to message 2 of four, and one more was said."""
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
    if not is_noticed:  # as when the whole folder is put back
        (room.config.data / "chat.state").write_bytes(state)
    room = open_room(data=room.config.data)
    room.enter("alice").say("new 3")
    return room


@pytest.mark.parametrize("is_noticed", [True, False])
def test_who_saw_messages_that_a_restored_server_lost_is_told_so_and_gets_what_is_new(
    open_room: Callable[..., Room], is_noticed: bool
) -> None:
    """Promise: nothing is lost silently. If the server can't notice, a ``since`` beyond its last message does."""
    room = open_room()
    known = room.peer().login("bob")["history_id"]
    room = restored(room, open_room, is_noticed=is_noticed)
    bob = room.peer()
    welcome = bob.login("bob", since=4, history_id=known)
    assert (welcome["history_id"] == known) is not is_noticed
    assert welcome["since"] == (2 if is_noticed else 0)
    assert welcome["last_id"] == (5 if is_noticed else 3), "ids that clients saw are not given out again"
    texts = [answer["message"] for answer in bob.until_fence() if answer["type"] == "broadcast"]
    assert texts == (["new 3"] if is_noticed else ["1", "2", "new 3"])
    # from here on all is as usual
    assert "since" not in room.peer().login("bob", since=welcome["last_id"], history_id=welcome["history_id"])


def test_frames_tell_the_identity_of_the_history_to_who_asks(room: Room) -> None:
    known = room.peer().login("alice")["history_id"]
    for peer in (room.frames_peer(), room.datagram_peer()):
        peer.command("alice history-id")
        assert peer.next_command() == "PASSWORD existing"
        peer.command("secret")
        assert peer.next_command() == f"WELCOME existing {known}"
    assert room.frames_peer().login("alice") == "WELCOME existing"


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
