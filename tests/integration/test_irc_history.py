"""CHATHISTORY and MARKREAD of irc against a server: the messages of users of other protocols, and read marks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from integration.irc import IrcPeer, parse
from integration.room import leave

if TYPE_CHECKING:
    from collections.abc import Callable

    from integration.room import Room


def enter(room: Room, name: str) -> IrcPeer:
    """A client of an account that exists."""
    peer = room.connect(IrcPeer)
    peer.register(name, account=name, caps="message-tags server-time batch draft/chathistory draft/read-marker")
    return peer


def test_history_has_the_messages_of_other_protocols(shared_room: Room, fresh_name: Callable[[str], str]) -> None:
    """With the ids of json: before, after, around and between ids and times, which are excluded."""
    alice, bob = fresh_name("alice"), fresh_name("bob")
    writer = shared_room.enter(bob)
    leave(shared_room.enter(alice))
    said = []
    for number in range(6):
        writer.ask(command="DM", to=alice, message=f"text {number}")
        said.append((str(writer.next("sent")["id"]), f"text {number}"))
    client = enter(shared_room, alice)
    ids = [message_id for message_id, _ in said]
    for command, found in (
        (f"LATEST {bob} * 3", said[3:]),
        (f"LATEST {bob} msgid={ids[3]} 50", said[4:]),
        (f"BEFORE {bob} msgid={ids[3]} 2", said[1:3]),
        (f"AFTER {bob} msgid={ids[1]} 2", said[2:4]),
        (f"AROUND {bob} msgid={ids[2]} 3", said[1:4]),
        (f"BETWEEN {bob} msgid={ids[0]} msgid={ids[5]} 2", said[1:3]),
        (f"BETWEEN {bob} msgid={ids[5]} msgid={ids[0]} 2", said[3:5]),
        (f"AFTER {bob} timestamp=2000-01-01T00:00:00.000Z 2", said[:2]),
        (f"BEFORE {bob} timestamp=2000-01-01T00:00:00.000Z 2", []),
    ):
        client.put(f"CHATHISTORY {command}")
        opening, *messages, closing = map(parse, client.sync())
        assert [opening.params[1:], closing.command] == [["chathistory", bob], "BATCH"]
        assert [(line.tags["msgid"], line.params[1]) for line in messages] == found, command
    client.put("CHATHISTORY TARGETS timestamp=2000-01-01T00:00:00.000Z timestamp=2100-01-01T00:00:00.000Z 50")
    opening, *targets, _ = map(parse, client.sync())
    assert opening.params[1:] == ["draft/chathistory-targets"]
    assert bob in [line.params[1] for line in targets]


def test_guest_with_a_new_name_does_not_read_what_the_last_one_was_told(
    shared_room: Room, fresh_name: Callable[[str], str]
) -> None:
    """Promise: also if it was online at that time, under another name."""
    alice, bob = fresh_name("alice"), fresh_name("bob")
    writer, later, earlier = shared_room.enter(alice), shared_room.connect(IrcPeer), shared_room.connect(IrcPeer)
    later.register(fresh_name("carol"), caps="message-tags batch draft/chathistory")
    earlier.register(bob)
    writer.ask(command="DM", to=bob, message="for the first bob")
    earlier.until("PRIVMSG")
    earlier.put("QUIT")
    earlier.rest()
    later.put(f"NICK {bob}")
    assert later.until("NICK").params == [bob]
    later.put(f"CHATHISTORY LATEST {alice} * 50")
    assert [parse(line).command for line in later.sync()] == ["BATCH", "BATCH"]


def test_read_mark_is_answered_and_told_to_the_other_client(
    shared_room: Room, fresh_name: Callable[[str], str]
) -> None:
    """An older time is answered with the one that is stored."""
    alice, bob = fresh_name("alice"), fresh_name("bob")
    for name in (alice, bob):
        leave(shared_room.enter(name))
    older, newer = "timestamp=2020-01-01T00:00:00.000Z", "timestamp=2020-01-02T00:00:00.123Z"
    phone, laptop = enter(shared_room, alice), enter(shared_room, alice)

    def last_mark(peer: IrcPeer, *asked: str) -> list[str]:
        peer.put(*(f"MARKREAD {bob} {each}" for each in asked))
        return parse(peer.sync()[-1]).params

    assert last_mark(phone, "") == [bob, "*"]
    assert last_mark(phone, newer) == [bob, newer]
    assert last_mark(laptop) == [bob, newer], "told to it"
    assert last_mark(laptop, older) == [bob, newer]
    laptop.put(f"MARKREAD {bob} yesterday")
    assert laptop.until("FAIL").params[:2] == ["MARKREAD", "INVALID_PARAMS"]
