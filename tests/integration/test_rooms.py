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
    assert texts(bob) == [("dev", "first"), ("dev", "second"), (None, "to all")]
    assert texts(join_again) == [("dev", "second"), (None, "to all")]
    assert texts(old) == [(None, "to all")]
    for peer in (frames, datagram):
        assert peer.next_message()[-1] == "to all"
        assert peer.until_fence() == []
        assert [each[-1] for each in peer.history()] == ["to all"]
    assert guest.take() == ("alice", "to all")
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


def test_invited_user_may_join_once_and_is_told(room: Room) -> None:
    alice, bob = room.enter("alice"), room.enter("bob")
    rooms_of(bob)
    join(alice, "plans", private=True)
    invited = {"type": "invited", "room": "plans", "username": "bob", "by": "alice"}
    assert answer(alice, command="invite", room="plans", username="BOB") == invited
    assert bob.next("invited") == invited
    assert rooms_of(bob)["plans"] == {"topic": "", "members": 1, "joined": False, "private": True, "invited": True}
    assert refusal(bob, command="CH", room="plans") == ("not_a_member", "plans")
    assert refusal(bob, command="invite", room="plans", username="bob") == ("not_a_member", "plans")
    join(bob, "plans")
    assert answer(alice, command="kick", room="plans", username="bob")["type"] == "kicked"
    assert bob.next("parted") == {"type": "parted", "room": "plans", "by": "alice"}
    assert refusal(bob, command="join", room="plans") == ("unknown_room", "plans")
    assert refusal(bob, command="PM", room="plans", message="still here") == ("unknown_room", "plans")
    answer(alice, command="invite", room="plans", username="bob")
    assert bob.next("invited") == invited
    assert answer(alice, command="kick", room="plans", username="bob")["type"] == "kicked"  # takes it back
    assert refusal(bob, command="join", room="plans") == ("unknown_room", "plans")
    assert refusal(alice, command="invite", room="plans", username="nobody") == ("unknown_user", None)


def test_owner_and_operators_run_their_room(room: Room) -> None:
    """Topic, invite, kick, op and deop need a role; the owner keeps its own."""
    alice, bob, carol = room.enter("alice"), room.enter("bob"), room.enter("carol")
    for peer in (alice, bob, carol):
        join(peer, "dev")
    for request in (
        {"command": "topic", "topic": "x"},
        *({"command": each, "username": "carol"} for each in ("invite", "kick", "op", "deop")),
    ):
        assert refusal(bob, **request, room="dev") == ("not_permitted", "dev")
    operator = {"type": "role", "room": "dev", "username": "bob", "role": "operator", "by": "alice"}
    assert answer(alice, command="op", room="dev", username="bob") == operator
    assert bob.next("role") == operator
    assert carol.next("role") == operator
    topic = {"type": "topic", "room": "dev", "topic": "tea", "by": "bob"}
    assert answer(bob, command="topic", room="dev", topic="tea") == topic
    assert alice.next("topic") == topic
    for command in ("kick", "deop"):
        assert refusal(bob, command=command, room="dev", username="alice") == ("not_permitted", "dev")
    assert answer(bob, command="kick", room="dev", username="carol")["type"] == "kicked"
    assert alice.next("kicked") == {"type": "kicked", "room": "dev", "username": "carol", "by": "bob"}
    assert carol.next("parted") == {"type": "parted", "room": "dev", "by": "bob"}
    assert refusal(carol, command="PM", room="dev", message="still here") == ("not_a_member", "dev")
    assert refusal(bob, command="kick", room="dev", username="carol") == ("not_a_member", "dev")
    assert join(carol, "dev")["topic"] == "tea"
    assert answer(alice, command="deop", room="dev", username="bob")["role"] == "member"
    assert bob.next("role")["role"] == "member"
    assert refusal(bob, command="topic", room="dev", topic="x") == ("not_permitted", "dev")


def test_operator_follows_the_owner_and_an_empty_room_ends(room: Room) -> None:
    alice, bob, carol = room.enter("alice"), room.enter("bob"), room.enter("carol")
    for peer in (alice, bob, carol):
        join(peer, "dev")
    answer(alice, command="op", room="dev", username="carol")
    say_in(alice, "dev", "old")
    assert answer(alice, command="part", room="dev") == {"type": "parted", "room": "dev"}
    heir = bob.next("role")
    while heir["role"] != "owner":
        heir = bob.next("role")
    assert heir == {"type": "role", "room": "dev", "username": "carol", "role": "owner"}
    for peer in (carol, bob):
        peer.ask(command="part", room="dev")
        assert peer.next("parted") == {"type": "parted", "room": "dev"}
    assert rooms_of(alice) == {}
    assert join(bob, "dev")["role"] == "owner"
    assert answer(bob, command="CH", room="dev")["messages"] == []


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


def test_presence_of_a_room_is_told_to_its_members_only(room: Room) -> None:
    alice, bob, carol = room.enter("alice"), room.enter("bob"), room.enter("carol")
    join(alice, "plans", private=True)
    answer(alice, command="invite", room="plans", username="bob")
    join(bob, "plans")

    def next_change(peer: Peer) -> dict[str, Any]:
        while (found := peer.next("users", "joined", "invited")).get("room") != "plans" or "joined" not in found:
            pass
        return found

    change = next_change(alice)
    assert ("bob" in change["joined"], change["left"], sorted(change["users"])) == (True, [], ["alice", "bob"])
    leave(bob)
    change = next_change(alice)
    assert (change["joined"], change["left"], change["users"]) == ([], ["bob"], ["alice"])
    alice.ask(command="users", room="plans")
    answers = [each for each in alice.until_fence() if each.get("room") == "plans"]
    assert answers == [{"type": "users", "room": "plans", "users": ["alice"], "joined": [], "left": []}]
    bob = room.enter("bob")
    assert next_change(alice)["joined"] == ["bob"]
    answer(bob, command="part", room="plans")
    assert next_change(alice)["left"] == ["bob"]
    assert not [each for each in carol.until_fence() if each.get("room")]


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ({"command": "join", "room": ""}, "bad_request"),
        ({"command": "join", "room": "a b"}, "bad_request"),
        ({"command": "join", "room": "-dev"}, "bad_request"),
        ({"command": "join", "room": "ü"}, "bad_request"),
        ({"command": "join", "room": "d" * 33}, "bad_request"),
        ({"command": "join"}, "bad_request"),
        ({"command": "join", "room": 7}, "bad_request"),
        ({"command": "join", "room": "Direct"}, "bad_request"),
        ({"command": "join", "room": "LOBBY"}, "bad_request"),
        ({"command": "part", "room": "lobby"}, "bad_request"),
        ({"command": "topic", "room": "lobby", "topic": "x"}, "bad_request"),
        ({"command": "kick", "room": "lobby", "username": "bob"}, "bad_request"),
        ({"command": "topic", "room": "dev", "topic": "a\nb"}, "bad_request"),
        ({"command": "topic", "room": "dev", "topic": "\x1b[2J"}, "bad_request"),
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


@pytest.mark.parametrize("since", [{"dev": -1}, {"dev": "3"}, {"dev": None}, {"dev": 2**63}, [], "3"])
def test_bad_since_is_refused(shared_room: Room, fresh_name: Name, since: Any) -> None:
    peer = shared_room.peer()
    peer.ask(command="login", username=fresh_name("alice"), password="secret", since=since)
    assert peer.next("error")["code"] == "bad_request"


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


def test_messages_before_a_kick_arrive_and_messages_after_it_are_refused(room: Room) -> None:
    """A message that the journal orders after its sender's kick is not stored."""
    alice, bob = room.enter("alice"), room.enter("bob")
    for peer in (alice, bob):
        join(peer, "dev")
    lines = [json.dumps({"command": "PM", "room": "dev", "message": f"m{number}"}).encode() for number in range(200)]
    bob.send(b"\n".join(lines) + b"\n")
    answer(alice, command="kick", room="dev", username="bob")
    outcomes = [bob.next("sent", "error")["type"] for _ in lines]
    count = outcomes.count("sent")
    assert outcomes == ["sent"] * count + ["error"] * (200 - count)
    stored = [each["message"] for each in answer(alice, command="CH", room="dev", limit=500)["messages"]]
    assert stored == [f"m{number}" for number in range(count)]


def test_nonce_of_a_room_prevents_a_second_message(room: Room) -> None:
    alice, bob = room.enter("alice"), room.enter("bob")
    for peer in (alice, bob):
        join(peer, "dev")
    number = say_in(alice, "dev", "once", nonce="n1")
    assert say_in(alice, "dev", "once", nonce="n1") == number
    assert texts(bob) == [("dev", "once")]


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
    """Whether they part or log out. A room with members who know no rooms has no buffer either."""
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


def test_members_join_all_at_once(room: Room) -> None:
    """Twenty connections join, write and part at the same time; each member gets each message once, in order."""
    peers = [room.enter(f"user{number}") for number in range(20)]
    for peer in peers:
        peer.ask(command="join", room="dev")
    for peer in peers:
        peer.next("joined")
    for peer in peers:
        for number in range(5):
            peer.ask(command="PM", room="dev", message=f"{number}")
    numbers = set()
    for peer in peers:
        own, others = [], []
        while len(own) < 5 or len(others) < 95:
            found = peer.next("sent", "broadcast")
            (own if found["type"] == "sent" else others).append(found["id"])
        assert others == sorted(others)
        assert len({*own, *others}) == 100
        numbers |= {*own, *others}
        assert texts(peer) == []
    assert len(numbers) == 100
