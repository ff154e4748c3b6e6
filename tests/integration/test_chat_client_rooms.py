"""The class ChatClient in rooms, against the real server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from integration.test_chat_client import TCP_PROTOCOLS, next_of

from chatclient import ChatClient, RefusedError, UsageError
from chatprotocol.events import (
    Invited,
    Joined,
    Parted,
    PublicMessage,
    RoleChanged,
    RoomModes,
    RoomRole,
    RoomSummary,
    TopicChanged,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from integration.room import Room

    Enter = Callable[..., ChatClient]

pytest_plugins = ["integration.test_chat_client"]


def test_calls_about_rooms_return_their_answers(room: Room, enter: Enter) -> None:
    alice, bob, phone = (enter(room.server.port, name) for name in ("alice", "bob", "bob"))
    assert alice.rooms() == ()
    assert alice.join("Dev") == Joined("Dev", "", ("alice",), 0, role=RoomRole.OWNER)
    alice.set_topic("dev", "tea")
    found = bob.join("DEV")
    assert (found.room, found.topic, sorted(found.users), found.role) == (
        "Dev",
        "tea",
        ["alice", "bob"],
        RoomRole.MEMBER,
    )
    number = alice.say("hello", room="dev")
    assert bob.history(room="dev") == bob.search("hello", room="Dev") == (next_of(bob, PublicMessage),)
    assert alice.history() == alice.search("hello") == ()
    assert [(each.id, each.sender) for each in bob.history(room="dev")] == [(number, "alice")]
    assert sorted(bob.users("dev")) == ["alice", "bob"]
    assert bob.rooms() == (RoomSummary("Dev", "tea", 2, joined=True),)
    alice.op("dev", "bob")
    assert next_of(bob, RoleChanged) == RoleChanged(room="Dev", username="bob", role=RoomRole.OPERATOR, by="alice")
    bob.set_topic("dev", "coffee")
    assert next_of(alice, TopicChanged) == TopicChanged("Dev", "coffee", "bob")
    alice.deop("dev", "bob")
    alice.kick("dev", "bob")
    assert next_of(bob, Parted) == Parted("Dev", "alice")
    with pytest.raises(RefusedError) as refused:
        bob.say("still here", room="dev")
    assert refused.value.code == "not_a_member"
    alice.join("secret", private=True)
    alice.invite("secret", "bob")
    assert next_of(bob, Invited) == Invited("secret", "bob", "alice")
    bob.join("secret")
    assert [next_of(phone, Joined).room for _ in range(2)] == ["Dev", "secret"]
    bob.part("SECRET")
    assert next_of(phone, Parted) == Parted("secret")


def test_modes_of_a_room_decide_who_joins_and_writes(room: Room, enter: Enter) -> None:
    """A key, a limit, moderation; and voices in a moderated room."""
    alice, bob = (enter(room.server.port, name) for name in ("alice", "bob"))
    alice.join("dev")
    modes = RoomModes(key="sesame", moderated=True, members_max=2)
    assert alice.modes("dev", key="sesame", moderated=True, members_max=2) == modes

    def assert_refused(code: str, call: Callable[[], object]) -> None:
        with pytest.raises(RefusedError) as refused:
            call()
        assert refused.value.code == code

    assert [each.has_key for each in bob.rooms()] == [True]
    assert_refused("wrong_key", lambda: bob.join("dev"))
    assert_refused("wrong_key", lambda: bob.join("dev", key="open"))
    bob.join("dev", key="sesame")
    assert bob.modes("dev") == modes
    assert_refused("muted", lambda: bob.say("hello", room="dev"))
    alice.voice("dev", "bob")
    bob.say("hello", room="dev")
    alice.devoice("dev", "bob")
    assert_refused("not_permitted", lambda: bob.modes("dev", key=""))
    assert_refused("bad_request", lambda: alice.modes("dev", key="two words"))
    assert alice.modes("dev", key="", members_max=0, moderated=False) == RoomModes()


def test_websocket_has_all_that_json_has(room: Room, enter: Enter) -> None:
    """Rooms, parts of the history, search and sessions."""
    alice = enter(room.server.port, "alice", "websocket")
    bob = enter(room.server.port, "bob", "websocket")
    for client in (alice, bob):
        client.join("dev")
    number = alice.say("in the room", "dev")
    assert next_of(bob, PublicMessage).id == number
    assert [each.text for each in bob.search("room", room="dev")] == ["in the room"]
    assert bob.history(before=number, room="dev") == ()
    assert [each.current for each in bob.tokens()] == []


@TCP_PROTOCOLS
def test_bad_arguments_about_rooms_are_refused(room: Room, enter: Enter, protocol: str) -> None:
    """Frames have no rooms, and the client none with irc."""
    has_rooms = protocol not in ("frames", "irc")
    alice: Any = enter(room.server.port, "alice", protocol)
    for call in (
        lambda room: alice.say("x", room),
        alice.users,
        lambda room: alice.history(room=room),
        alice.join,
        lambda room: alice.kick(room, "bob"),
    ):
        with pytest.raises(RefusedError) as refused:
            call("a b" if has_rooms else "dev")
        assert refused.value.code == ("bad_request" if has_rooms else "unknown_command")
        with pytest.raises(UsageError, match="room is of the type int"):
            call(7)
    with pytest.raises(RefusedError):
        alice.set_topic("dev", "a\nb") if has_rooms else alice.rooms()
    alice.say("still here")
