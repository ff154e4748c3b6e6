"""Public messages, direct messages and history over sockets, between users of all protocols."""

from __future__ import annotations

import re
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest
from integration.room import Peer, c, d, leave

if TYPE_CHECKING:
    from collections.abc import Callable

    from integration.room import FramesPeer, Room

    Name = Callable[[str], str]


def heard(peer: Peer | FramesPeer, count: int) -> list[tuple[str, str]]:
    """Kind and text of the next messages. Nothing else may follow them."""
    if isinstance(peer, Peer):
        found = [(each["type"], each["message"]) for each in (peer.next("broadcast", "direct") for _ in range(count))]
        assert {each["type"] for each in peer.until_fence()} <= {"users"}
    else:
        words = [peer.next_message() for _ in range(count)]
        found = [({"PUBLIC": "broadcast", "DIRECT": "direct"}[each[0]], each[-1]) for each in words]
        assert peer.until_fence() == []
    return found


def test_messages_reach_users_of_every_protocol(room: Room) -> None:
    """A public message reaches all others, a direct one its recipient only; the sender gets the confirmation."""
    alice, bob, carol = room.enter("alice"), room.enter_frames("bob"), room.enter_frames("carol bm-pm")
    dave, erin = room.enter_datagram("dave"), room.enter_guest("erin")
    users = [alice, bob, carol, dave]
    for sender in (alice, bob, dave):
        sender.say("hello")
        assert erin.take()[1] == "hello"
        for peer in users:
            assert heard(peer, int(peer is not sender)) == [("broadcast", "hello")] * (peer is not sender)
    assert erin.say("ALL", "from register") == b"SEND ALL\n\n"
    for peer in users:
        assert heard(peer, 1) == [("broadcast", "from register")]

    alice.ask(command="DM", to="BOB", message="json to frames")
    assert alice.next("sent")["status"] == "sent"
    assert heard(bob, 1) == [("direct", "json to frames")]
    bob.whisper("dave", "frames to datagram")
    assert heard(dave, 1) == [("direct", "frames to datagram")]
    dave.whisper("erin", "datagram to register")
    assert erin.take() == ("dave", "datagram to register")
    assert erin.say("alice", "register to json") == b"SEND alice\n\n"
    assert heard(alice, 1) == [("direct", "register to json")]
    for peer in users:
        assert heard(peer, 0) == []


def test_message_has_its_sender_id_and_time(shared_room: Room, fresh_name: Name) -> None:
    names = fresh_name("alice"), fresh_name("Bob"), fresh_name("carol")
    alice, bob, carol = shared_room.enter(names[0]), shared_room.enter(names[1]), shared_room.enter_frames(names[2])
    number = alice.say("hello")["id"]
    message = bob.next("broadcast")
    time = message.pop("time")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", time)
    assert message == {"type": "broadcast", "id": number, "from": names[0], "message": "hello"}
    kind, sender, same_number, time_ms, text = carol.next_message()
    assert [kind, sender, same_number, text] == ["PUBLIC", names[0], str(number), "hello"]
    assert time.endswith(f".{int(time_ms) % 1000:03d}Z")
    alice.ask(command="DM", to=names[1].upper(), message="psst")
    message = bob.next("direct")
    del message["time"]
    assert message == {"type": "direct", "id": number + 1, "from": names[0], "to": names[1], "message": "psst"}


def test_other_connections_of_a_user_hear_its_messages(shared_room: Room, fresh_name: Name) -> None:
    bob, carol = fresh_name("bob"), fresh_name("carol")
    shared_room.enter(carol)
    one, other, third = shared_room.enter_frames(bob), shared_room.enter(bob), shared_room.enter_frames(bob)
    one.say("hello")
    one.whisper(carol, "psst")
    one.command("DM")
    one.next_command()
    one.send(c(bob) + d("note"))
    assert {one.frame().split(" ")[1] for _ in range(2)} == {"DIRECT", "SENT"}
    for peer in (other, third):
        assert heard(peer, 3) == [("broadcast", "hello"), ("direct", "psst"), ("direct", "note")]


def test_direct_message_to_an_offline_user_is_delivered_once(shared_room: Room, fresh_name: Name) -> None:
    alice, bob = fresh_name("alice"), fresh_name("bob")
    leave(shared_room.enter_frames(alice))
    sender = shared_room.enter_frames(bob)
    sender.whisper(alice, "one", "STORED")
    sender.whisper(alice, "two", "STORED")
    receiver = shared_room.enter(alice)
    assert heard(receiver, 2) == [("direct", "one"), ("direct", "two")]
    leave(receiver)
    assert heard(shared_room.enter_frames(alice), 0) == []


def test_history_is_the_same_in_every_protocol(room: Room) -> None:
    """It contains the user's own direct messages and no others, and ends with the last message of the connection."""
    alice, bob, carol = room.enter("alice"), room.enter_frames("bob"), room.enter_frames("carol")
    alice.send(b"".join(b'{"command":"PM","message":"%d"}\n' % number for number in range(60)) + b'{"command":"CH"}\n')
    assert [each["message"] for each in alice.next("history")["messages"]] == [str(number) for number in range(10, 60)]
    bob.whisper("alice", "for alice")
    carol.whisper("bob", "for bob")

    def in_json(peer: Peer, **limits: int) -> list[tuple[Any, ...]]:
        peer.ask(command="CH", **limits)
        return [(each["from"], str(each["id"]), each["message"]) for each in peer.next("history")["messages"]]

    def in_frames(peer: FramesPeer, asked: str) -> list[tuple[Any, ...]]:
        return [(sender, number, text) for _, sender, number, _, text in peer.history(asked)]

    for peer in (alice, bob, carol):
        peer.until_fence()
    assert in_frames(bob, "CH 200") == in_json(room.enter("bob"), limit=200)
    assert in_frames(room.enter_frames("alice"), "CH") == in_json(alice)
    assert [text for *_, text in in_json(alice, limit=3)] == ["58", "59", "for alice"]
    assert [text for *_, text in in_json(alice, limit=3, before=6)] == ["2", "3", "4"]
    assert [text for *_, text in in_frames(carol, "CH 2")] == ["59", "for bob"]


def test_history_during_a_flood_has_no_gap(room: Room) -> None:
    """It ends with the last message before it, so that a client can continue from there."""
    alice, bob = room.enter_frames("alice"), room.enter("bob")
    messages, histories, newest = 4_000, 0, 0
    flood = b"".join(b'{"command":"PM","message":"%d"}\n' % number for number in range(1, messages + 1))
    sending = threading.Thread(target=bob.send, args=(flood,), name="bob sends")
    sending.start()
    try:
        alice.command("CH 20")
        while newest < messages:
            frame = alice.frame()
            if frame.startswith("C HISTORY "):
                histories += 1
                shown = [int(alice.next_message()[2]) for _ in range(int(frame.removeprefix("C HISTORY ")))]
                last = shown[-1] if shown else 0
                assert shown == list(range(max(1, last - 19), last + 1))
                assert last <= newest
                alice.command("CH 20")
            else:
                newest += 1
                assert frame.split()[3] == str(newest)
    finally:
        sending.join()
    assert histories > 1


def test_confirmed_message_is_in_the_history_of_all(shared_room: Room, fresh_name: Name) -> None:
    """Promise: confirmed means stored."""
    alice, carol = shared_room.enter_frames(fresh_name("alice")), shared_room.enter_frames(fresh_name("carol"))
    for number in range(10):
        alice.say(f"text {number}")
        assert [carol.next_message()[-1], *(each[-1] for each in carol.history("CH 1"))] == [f"text {number}"] * 2


@pytest.mark.parametrize("protocol", ["json", "frames"])
def test_everything_before_the_end_of_input_is_answered(shared_room: Room, fresh_name: Name, protocol: str) -> None:
    """As with ``printf ... | nc``. Confirmations precede the goodbye."""
    name, bob = fresh_name("alice"), shared_room.enter(fresh_name("bob"))
    if protocol == "json":
        peer = shared_room.peer()
        login = b'{"command":"login","username":"%b","password":"x"}\n' % name.encode()
        peer.send(login + b'{"command":"PM","message":"x"}\n' * 100 + b'{"command":"EX"}\n')
        peer.socket.shutdown(socket.SHUT_WR)
        answers = [peer.next("login", "sent", "bye")["type"] for _ in range(102)]
        assert answers == ["login", *["sent"] * 100, "bye"]
    else:
        frames = shared_room.frames_peer()
        frames.send(c(name) + c("secret") + (c("PM") + d("x")) * 100 + c("EX"))
        frames.socket.shutdown(socket.SHUT_WR)
        answers = [text for text in frames.rest() if text != "C READY"]
        assert [each.split(" ")[1] for each in answers] == ["PASSWORD", "WELCOME", *["SENT"] * 100, "BYE"]
    assert [bob.next("broadcast")["message"] for _ in range(100)] == ["x"] * 100
