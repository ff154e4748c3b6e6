"""Rooms in json, over sockets: membership, who may see and do what, and what stays hidden."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from integration.room import Peer, leave, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from integration.room import Room

    Name = Callable[[str], str]
    OpenRoom = Callable[..., Room]


def answer(peer: Peer, **request: Any) -> dict[str, Any]:
    """The first object after the request that is no presence and no message. Nothing is skipped but these."""
    peer.ask(**request)
    while (found := json.loads(peer.line()))["type"] in ("users", "broadcast", "direct"):
        if found["type"] == request["command"]:
            break
    return found  # type: ignore[no-any-return]


def refusal(peer: Peer, **request: Any) -> tuple[str, str | None]:
    """Code and room of the error that answers the request."""
    found = answer(peer, **request)
    assert found["type"] == "error", found
    assert found["message"]
    return found["code"], found.get("room")


def join(peer: Peer, room: str, **members: Any) -> dict[str, Any]:
    found = answer(peer, command="join", room=room, **members)
    assert (found["type"], found["room"].lower()) == ("joined", room.lower()), found
    return found


def say_in(peer: Peer, room: str, text: str, **members: Any) -> int:
    peer.ask(command="PM", room=room, message=text, **members)
    return int(peer.next("sent")["id"])


def texts(peer: Peer) -> list[tuple[str | None, str]]:
    """Room and text of the messages that arrived before a fence."""
    found = peer.until_fence()
    assert not [each for each in found if each["type"] == "error"], found
    return [(each.get("room"), each["message"]) for each in found if each["type"] in ("broadcast", "direct")]


def rooms_of(peer: Peer) -> dict[str, dict[str, Any]]:
    return {each.pop("room"): each for each in answer(peer, command="rooms")["rooms"]}


def test_members_of_a_room_talk_to_each_other_only(room: Room) -> None:
    """A message in a room reaches its members, with the room's name, and no other user."""
    alice, bob, carol = room.enter("alice"), room.enter("bob"), room.enter("carol")
    assert join(alice, "Dev") == {
        "type": "joined", "room": "Dev", "topic": "", "users": ["alice"], "last_id": 0, "role": "owner",
    }  # fmt: skip
    found = join(bob, "dev")
    assert (found["room"], sorted(found["users"]), found.get("role")) == ("Dev", ["alice", "bob"], None)
    number = say_in(alice, "DEV", "inside")
    assert alice.say("outside")["id"] == number + 1
    broadcast = bob.next("broadcast")
    assert (broadcast["room"], broadcast["id"], broadcast["from"], broadcast["message"]) == (
        "Dev", number, "alice", "inside",
    )  # fmt: skip
    assert texts(bob) == [(None, "outside")]
    assert texts(carol) == [(None, "outside")]
    assert texts(alice) == []
    assert answer(bob, command="CH", room="dev")["messages"] == [broadcast]
    assert [each["message"] for each in answer(bob, command="CH")["messages"]] == ["outside"]
    assert answer(bob, command="search", words="inside")["messages"] == []
    assert answer(bob, command="search", words="inside", room="dev")["messages"] == [broadcast]
    assert rooms_of(carol) == {"Dev": {"topic": "", "members": 2, "joined": False}}


def test_other_protocols_and_older_json_clients_see_the_lobby_only(room: Room) -> None:
    """A user who is in a room with one device gets nothing of it on connections that don't know rooms."""
    alice, bob = room.enter("alice"), room.enter("bob")
    for peer in (alice, bob):
        join(peer, "dev")
    old, frames = room.enter("bob"), room.enter_frames("bob")
    join_again, datagram, guest = room.enter("bob"), room.enter_datagram("bob"), room.enter_guest("erin")
    say_in(alice, "dev", "first")
    rooms_of(join_again)  # any request about rooms shows that the client knows them
    say_in(alice, "dev", "second")
    alice.say("to all")
    assert guest.take() == ("alice", "to all")  # first: a guest has 5 s to acknowledge
    assert texts(bob) == [("dev", "first"), ("dev", "second"), (None, "to all")]
    assert texts(join_again) == [("dev", "second"), (None, "to all")]
    assert texts(old) == [(None, "to all")]
    for peer in (frames, datagram):
        assert peer.next_message()[-1] == "to all"
        assert peer.until_fence() == []
        assert [each[-1] for each in peer.history()] == ["to all"]
    assert guest.receiving.until_fence() == b""


def test_private_room_can_not_be_told_from_none(room: Room) -> None:
    """Every request about a private room gets the answer that a room that does not exist gets."""
    alice, bob, mallory = room.enter("alice"), room.enter("bob"), room.enter("mallory")
    assert join(alice, "plans", private=True)["private"] is True
    answer(alice, command="topic", room="plans", topic="the secret topic")
    answer(alice, command="invite", room="plans", username="bob")
    join(bob, "plans")
    say_in(alice, "plans", "xyzzy")
    requests: list[dict[str, Any]] = [
        {"command": "PM", "message": "hello"},
        {"command": "CH"},
        {"command": "CH", "before": 5},
        {"command": "search", "words": "xyzzy"},
        {"command": "users"},
        {"command": "part"},
        {"command": "topic", "topic": "mine"},
        *({"command": each, "username": name} for each in ("invite", "kick", "op", "deop") for name in ("bob", "no1")),
    ]
    for request in requests:
        mallory.ask(**request, room="plans")
        hidden = mallory.next("error")
        mallory.ask(**request, room="nosuch")
        missing = mallory.next("error")
        assert hidden.pop("room") == "plans"
        assert missing.pop("room") == "nosuch"
        assert {**hidden, "message": hidden["message"].replace("plans", "nosuch")} == missing
        assert hidden["code"] == "unknown_room"
    assert refusal(mallory, command="join", room="PLANS") == ("unknown_room", "PLANS")
    assert refusal(mallory, command="join", room="plans", private=True) == ("unknown_room", "plans")
    assert rooms_of(mallory) == {}
    assert answer(mallory, command="search", words="xyzzy")["messages"] == []
    assert answer(mallory, command="CH")["messages"] == []
    again = room.peer()
    login = again.login("mallory", since={"lobby": 0, "plans": 0, "nosuch": 0, "direct": 0})
    assert login["rooms"] == []
    errors = [each for each in again.until_fence() if each["type"] != "users"]
    assert [(each["type"], each["code"], each["room"]) for each in errors] == [
        ("error", "unknown_room", "plans"), ("error", "unknown_room", "nosuch"),
    ]  # fmt: skip
    seen = mallory.until_fence()
    assert not [each for each in seen if "room" in each], seen
    assert rooms_of(bob)["plans"] == {"topic": "the secret topic", "members": 2, "joined": True, "private": True}


def test_rooms_survive_a_restart_and_since_names_each_room(open_room: OpenRoom) -> None:
    """Each member gets what it missed of each room that it names, in the order of ids, once."""
    room = open_room()
    alice, bob = room.enter("alice"), room.enter("bob")
    for name in ("dev", "ops"):
        join(alice, name)
        join(bob, name)
    answer(alice, command="topic", room="dev", topic="tea")
    first = say_in(alice, "dev", "d1")
    leave(bob)
    say_in(alice, "dev", "d2")
    say_in(alice, "ops", "o1")
    alice.say("l1")
    alice.ask(command="DM", to="bob", message="x1")
    alice.next("sent")
    say_in(alice, "dev", "d3")
    room.close()
    room = open_room()
    bob = room.peer()
    login = bob.login("bob", since={"dev": first, "lobby": 0, "direct": 0})
    newest = login["last_id"]
    assert login["rooms"] == [
        {"room": "dev", "topic": "tea", "last_id": newest}, {"room": "ops", "topic": "", "last_id": newest - 3},
    ]  # fmt: skip
    assert texts(bob) == [("dev", "d2"), (None, "l1"), (None, "x1"), ("dev", "d3")]
    plain = room.peer()
    assert "rooms" not in plain.login("bob", since=0)
    assert texts(plain) == [(None, "l1"), (None, "x1")]
    aware = room.peer()
    assert [each["room"] for each in aware.login("bob", rooms=True)["rooms"]] == ["dev", "ops"]
    assert texts(aware) == []


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ({"command": "join", "room": "a b"}, "bad_request"),
        ({"command": "join", "room": "LOBBY"}, "bad_request"),
        ({"command": "topic", "room": "lobby", "topic": "x"}, "bad_request"),
        ({"command": "topic", "room": "dev", "topic": "a\nb"}, "bad_request"),
        ({"command": "topic", "room": "dev", "topic": "é" * 129}, "too_long"),
        ({"command": "op", "room": "dev", "username": "nobody"}, "unknown_user"),
        ({"command": "op", "room": "dev", "username": "stranger"}, "not_a_member"),
        ({"command": "PM", "room": "nosuch", "message": "x"}, "unknown_room"),
        ({"command": "PM", "room": "dev", "message": " "}, "empty_message"),
        ({"command": "CH", "room": ["dev"]}, "bad_request"),
    ],
)
def test_bad_request_about_a_room_gets_its_error(
    shared_room: Room, fresh_name: Name, request_: dict[str, Any], code: str
) -> None:
    """Nothing changes, and the connection continues."""
    owner = shared_room.enter(fresh_name("alice"))
    stranger, dev = shared_room.enter(fresh_name("bob")), fresh_name("dev")
    join(owner, dev)
    before = rooms_of(owner)[dev]
    names = {"dev": dev, "stranger": fresh_name("carol")}
    shared_room.enter(names["stranger"])
    asked = {key: names.get(value, value) if isinstance(value, str) else value for key, value in request_.items()}
    assert refusal(owner, **asked)[0] == code
    assert rooms_of(owner)[dev] == before
    assert texts(stranger) == []


def test_joins_and_parts_of_one_write_are_done_in_order(room: Room) -> None:
    alice, bob = room.enter("alice"), room.enter("bob")
    join(alice, "dev")
    requests = [("join", "dev"), ("part", "dev"), ("join", "dev"), ("part", "dev"), ("part", "dev"), ("join", "ops")]
    bob.send(b"".join(json.dumps({"command": each, "room": name}).encode() + b"\n" for each, name in requests))
    found = [bob.next("joined", "parted", "error") for _ in requests]
    assert [(each["type"], each["room"]) for each in found] == [
        ("joined", "dev"), ("parted", "dev"), ("joined", "dev"), ("parted", "dev"), ("error", "dev"), ("joined", "ops"),
    ]  # fmt: skip
    say_in(alice, "dev", "not for bob")
    assert texts(bob) == []


def test_messages_of_one_write_reach_the_rooms_that_they_name(room: Room) -> None:
    """In the order of each room. Members of another room get none of them."""
    alice, bob, carol = room.enter("alice"), room.enter("bob"), room.enter("carol")
    for peer, name in ((alice, "dev"), (alice, "ops"), (bob, "dev"), (carol, "ops")):
        join(peer, name)
    named = ["dev", None, None, "ops", "DEV", "dev", "lobby", "ops"]
    members = [{"command": "PM", "message": f"m{number}", "room": name} for number, name in enumerate(named)]
    alice.send(b"".join(json.dumps(each).encode() + b"\n" for each in members))
    numbers = [alice.next("sent")["id"] for _ in named]
    assert numbers == list(range(numbers[0], numbers[0] + len(named)))
    for peer, name, in_room in ((bob, "dev", ["m0", "m4", "m5"]), (carol, "ops", ["m3", "m7"])):
        found = texts(peer)
        assert [text for where, text in found if where is None] == ["m1", "m2", "m6"]
        assert [text for where, text in found if where == name] == in_room
        assert len(found) == 3 + len(in_room)


@pytest.mark.parametrize("rooms", ["operators", "off"])
def test_setting_limits_who_makes_rooms(open_room: OpenRoom, rooms: str) -> None:
    """A room that was made before can still be joined."""
    room = open_room()
    join(room.enter("alice"), "dev")
    room.close()
    room = open_room(rooms=rooms)
    bob = room.enter("bob")
    assert refusal(bob, command="join", room="new") == ("unknown_room", "new")
    join(bob, "dev")


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="needs files in memory")
def test_room_without_members_online_costs_no_descriptor(room: Room) -> None:
    """The members part, or log out. A room with members who know no rooms has no buffer either."""
    alice, bob = room.enter("alice"), room.enter("bob")
    before = descriptors()
    for number in range(20):
        join(alice, f"room{number}")
        say_in(alice, f"room{number}", "hello")
    join(bob, "room0")
    leave(bob)
    bob = room.enter("bob")
    assert descriptors() == before + 20
    for number in range(19):
        alice.ask(command="part", room=f"room{number}")
        alice.next("parted")
    wait_for(lambda: descriptors() == before + 1, "buffers of rooms are closed")
    leave(alice)
    wait_for(lambda: descriptors() == before, "the last buffer of a room is closed")
    assert texts(bob) == []


def descriptors() -> int:
    """Open files in memory of this process, in which the server is."""
    count = 0
    for path in Path("/dev/fd").iterdir():
        with suppress(FileNotFoundError):  # that of the directory
            count += "memfd:" in str(path.readlink())
    return count
