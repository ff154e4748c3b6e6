"""The class ChatClient in rooms, against the real server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from integration.proxies import TcpProxy
from integration.room import DEADLINE_SECONDS
from integration.test_chat_client import TCP_PROTOCOLS, meanwhile, next_of, texts

from chatclient import ChatClient, RefusedError, UsageError
from chatclient.notices import ConnectionLost, Reconnected
from chatprotocol.events import (
    Invited,
    Joined,
    Kicked,
    Parted,
    PublicMessage,
    RoleChanged,
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
    assert next_of(bob, RoleChanged) == RoleChanged("Dev", "bob", RoomRole.OPERATOR, "alice")
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


def test_other_members_events_do_not_answer_a_call(room: Room, enter: Enter) -> None:
    """bob and carol remove members and change topics at the same time; each call returns its own answer."""
    names = [f"user{number}" for number in range(20)]
    alice, bob = enter(room.server.port, "alice"), enter(room.server.port, "bob")
    for client in (alice, bob):
        client.join("dev")
    alice.op("dev", "bob")
    for name in names:
        peer = room.enter(name)
        peer.ask(command="join", room="dev")
        peer.next("joined")

    def remove(client: ChatClient, mine: list[str]) -> None:
        for name in mine:
            client.set_topic("dev", f"without {name}")
            client.kick("dev", name)

    with meanwhile(lambda: remove(bob, names[::2])) as outcome:
        remove(alice, names[1::2])
        assert outcome.get(timeout=DEADLINE_SECONDS) is None
    assert sorted(alice.users("dev")) == ["alice", "bob"]
    told = {event.username for event in alice.events(0.2) if isinstance(event, Kicked)}
    assert told == {*names[::2]}


@TCP_PROTOCOLS
def test_bad_arguments_about_rooms_are_refused(room: Room, enter: Enter, protocol: str) -> None:
    """Other wire formats than json have no rooms."""
    alice: Any = enter(room.server.port, "alice", protocol)
    for call in (
        lambda room: alice.say("x", room),
        alice.users,
        lambda room: alice.history(room=room),
        alice.join,
        lambda room: alice.kick(room, "bob"),
    ):
        with pytest.raises(RefusedError) as refused:
            call("a b" if protocol == "json" else "dev")
        assert refused.value.code == ("bad_request" if protocol == "json" else "unknown_command")
        with pytest.raises(UsageError, match="room is of the type int"):
            call(7)
    with pytest.raises(RefusedError):
        alice.rooms() if protocol == "frames" else alice.set_topic("dev", "a\nb")
    alice.say("still here")


def test_missed_messages_of_all_rooms_follow_the_reconnect_once(room: Room, enter: Enter) -> None:
    """Promise: once. A message to a room whose confirmation was lost is stored once, in its room."""
    rooms = (None, "dev", "ops")
    with TcpProxy(room.server.port) as proxy:
        alice, bob = enter(proxy.port, "alice"), enter(room.server.port, "bob")
        for name in ("dev", "ops"):
            for client in (alice, bob):
                client.join(name)
        for turn in range(3):
            said = [(each, f"{each} {turn} {number}") for number in range(5) for each in rooms]
            proxy.loses_answers = True
            with meanwhile(lambda turn=turn: alice.say(f"mine {turn}", room="dev")) as outcome:  # type: ignore[misc]
                while next_of(bob, PublicMessage).text != f"mine {turn}":
                    pass
                proxy.cut()
                for name, text in said:
                    bob.say(text, name)
                proxy.mend()
                assert isinstance(outcome.get(timeout=DEADLINE_SECONDS), int)
            bob.say(f"end {turn}")
            heard = []
            for event in alice.events(DEADLINE_SECONDS):
                if isinstance(event, PublicMessage):
                    if event.text == f"end {turn}":
                        break
                    heard.append((event.room, event.text))
            assert heard == said
        assert [each.text for each in bob.history(room="dev") if each.sender == "alice"] == [
            "mine 0",
            "mine 1",
            "mine 2",
        ]
        assert [each.text for each in bob.history() if each.sender == "alice"] == []
        alice.close()


def test_room_that_the_user_was_removed_from_meanwhile_is_told(room: Room, enter: Enter) -> None:
    with TcpProxy(room.server.port) as proxy:
        alice, bob = enter(proxy.port, "alice"), enter(room.server.port, "bob")
        for name in ("dev", "ops"):
            bob.join(name)
            alice.join(name)
        proxy.cut()
        next_of(alice, ConnectionLost)
        bob.kick("dev", "alice")
        bob.say("for members", room="dev")
        bob.say("hello", room="ops")
        proxy.mend()
        assert next_of(alice, Reconnected, Parted, PublicMessage).username == "alice"
        assert next_of(alice, Reconnected, Parted, PublicMessage) == Parted("dev")
        assert texts(alice, "hello") == ["hello"]
        assert [each.room for each in alice.rooms() if each.joined] == ["ops"]
        alice.close()
