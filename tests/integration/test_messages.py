"""Public messages, direct messages and history over sockets, between users of all protocols."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING

import pytest
from integration.room import Peer, c, d

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


@pytest.mark.parametrize("has_tls", [False, True])
def test_messages_reach_users_of_every_protocol(
    open_room: Callable[..., Room], open_tls_room: Callable[..., Room], *, has_tls: bool
) -> None:
    """A public message reaches all others, a direct one its recipient only; the sender gets the confirmation.

    With TLS the same, also between encrypted and other users.
    """
    room = open_tls_room() if has_tls else open_room()
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


def test_history_during_a_flood_has_no_gap(room: Room) -> None:
    """It ends with the last message before it, so that a client can continue from there."""
    alice, bob = room.enter_frames("alice"), room.enter("bob")
    histories, newest, sent = 0, 0, 0
    is_enough = threading.Event()

    def flood() -> None:
        nonlocal sent
        while not is_enough.is_set():
            numbers = range(sent + 1, sent + 501)
            bob.send(b"".join(b'{"command":"PM","message":"%d"}\n' % number for number in numbers))
            for _ in numbers:
                bob.next("sent")
            sent = numbers[-1]

    sending = threading.Thread(target=flood, name="bob sends")
    sending.start()
    try:
        alice.command("CH 20")
        while sending.is_alive() or newest < sent:
            frame = alice.frame()
            if frame.startswith("C HISTORY "):
                histories += 1
                shown = [int(alice.next_message()[2]) for _ in range(int(frame.removeprefix("C HISTORY ")))]
                last = shown[-1] if shown else 0
                assert shown == list(range(max(1, last - 19), last + 1))
                assert last <= newest
                if histories == 5:
                    is_enough.set()
                    sending.join()
                else:
                    alice.command("CH 20")
            else:
                newest += 1
                assert frame.split()[3] == str(newest)
    finally:
        is_enough.set()
        sending.join()


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
