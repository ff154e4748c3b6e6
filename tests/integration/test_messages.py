"""Public messages, direct messages and history, over a socket."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from integration.room import Peer, Room


def messages_of(answers: list[dict[str, Any]]) -> list[str]:
    return [answer["message"] for answer in answers if answer["type"] in ("broadcast", "direct")]


def test_a_public_message_reaches_everybody_else_once(room: Room) -> None:
    alice, bob, carol = room.enter("alice"), room.enter("bob"), room.enter("carol")
    assert alice.say("hello", nonce="n1") == {"type": "sent", "id": 1, "status": "sent", "nonce": "n1"}
    for peer in (bob, carol):
        message = peer.next("broadcast")
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", message.pop("time"))
        assert message == {"type": "broadcast", "id": 1, "from": "alice", "message": "hello"}
        assert messages_of(peer.until_fence()) == []
    assert messages_of(alice.until_fence()) == []


def test_a_users_other_connections_hear_what_the_user_says(room: Room) -> None:
    here, there = room.enter("alice"), room.enter("alice")
    here.say("hello")
    assert there.next("broadcast")["message"] == "hello"
    room.enter("bob")
    here.ask(command="DM", to="bob", message="psst")
    assert there.next("direct")["message"] == "psst"


def test_a_direct_message_is_seen_by_its_two_users_only(room: Room) -> None:
    alice, bob, carol = room.enter("alice"), room.enter("Bob"), room.enter("carol")
    alice.ask(command="DM", to="bOB", message="psst")
    assert alice.next("sent")["status"] == "sent"
    message = bob.next("direct")
    del message["time"]
    assert message == {"type": "direct", "id": 1, "from": "alice", "to": "Bob", "message": "psst"}
    for peer, seen in ((alice, ["psst"]), (bob, ["psst"]), (carol, [])):
        peer.ask(command="CH")
        assert messages_of(peer.next("history")["messages"]) == seen
    assert messages_of(carol.until_fence()) == []


def test_a_direct_message_to_somebody_offline_is_delivered_at_the_next_login_once(room: Room) -> None:
    room.enter("bob").close()
    alice = room.enter("alice")
    waiting = ["one", "two"]
    while "bob" in alice_sees(alice):
        pass
    for text in waiting:
        alice.ask(command="DM", to="bob", message=text)
        assert alice.next("sent")["status"] == "stored"
    bob = room.enter("bob")
    assert messages_of(bob.until_fence()) == waiting
    bob.close()
    assert messages_of(room.enter("bob").until_fence()) == []


def alice_sees(alice: Peer) -> list[str]:
    alice.ask(command="users")
    users: list[str] = alice.next("users")["users"]
    return users


def test_a_direct_message_to_nobody_is_refused_with_its_nonce(room: Room) -> None:
    alice = room.enter("alice")
    alice.ask(command="DM", to="nobody", message="psst", nonce="n1")
    error = alice.next("error")
    assert (error["code"], error["nonce"]) == ("unknown_user", "n1")
    alice.ask(command="CH")
    assert alice.next("history")["messages"] == []


def test_it_can_be_asked_whether_there_is_a_user(room: Room) -> None:
    room.enter("Bob").close()
    alice = room.enter("alice")
    alice.ask(command="user", username="nobody")
    assert alice.next("error")["code"] == "unknown_user"
    alice.ask(command="USER", username="bob")
    assert alice.next("user")["username"] == "Bob"


def test_a_direct_message_to_oneself_arrives(room: Room) -> None:
    alice = room.enter("alice")
    alice.ask(command="DM", to="alice", message="note")
    assert alice.next("direct")["message"] == "note"
    assert alice.next("sent")["status"] == "sent"


def test_history_has_what_was_said_a_moment_ago_by_the_same_connection(room: Room) -> None:
    alice = room.enter("alice")
    alice.send(b"".join(b'{"command":"PM","message":"%d"}\n' % number for number in range(60)) + b'{"command":"CH"}\n')
    assert messages_of(alice.next("history")["messages"]) == [str(number) for number in range(10, 60)]
    alice.ask(command="CH", limit=3, before=6)
    assert messages_of(alice.next("history")["messages"]) == ["2", "3", "4"]


def test_everything_sent_before_goodbye_is_confirmed_before_it(room: Room) -> None:
    bob = room.enter("bob")
    alice = room.enter("alice")
    alice.send(b'{"command":"PM","message":"x"}\n' * 100 + b'{"command":"EX"}\n')
    assert [alice.next("sent", "bye")["type"] for _ in range(101)] == ["sent"] * 100 + ["bye"]
    assert alice.is_closed()
    assert [bob.next("broadcast")["id"] for _ in range(100)] == list(range(1, 101))


def test_a_peer_that_shuts_its_side_at_once_still_gets_its_answers(room: Room) -> None:
    """As ``printf ... | nc`` does."""
    peer = room.peer()
    peer.send(b'{"command":"login","username":"alice","password":"x"}\n{"command":"PM","message":"hello"}\n')
    peer.socket.shutdown(1)
    assert peer.next("login")
    assert peer.next("sent")["id"] == 1
