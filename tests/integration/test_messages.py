"""Public messages, direct messages and history over sockets, between users of all protocols."""

from __future__ import annotations

import socket
import threading
from collections import defaultdict
from typing import TYPE_CHECKING

import pytest
from integration.irc import IrcPeer, enter_irc, parse
from integration.room import FramesPeer, Guest, Peer, c, d, leave
from integration.web import enter_web

if TYPE_CHECKING:
    from collections.abc import Callable

    from integration.room import Room

    Name = Callable[[str], str]


AnyPeer = Peer | FramesPeer | IrcPeer | Guest


def received(peer: AnyPeer, count: int) -> list[tuple[str, str]]:
    """Kind and text of the next messages; of a guest of register all are ``any``. Nothing else may follow."""
    match peer:
        case Peer():
            objects = [peer.next("broadcast", "direct") for _ in range(count)]
            found = [(each["type"], each["message"]) for each in objects]
            assert {each["type"] for each in peer.until_fence()} <= {"users", "sent"}
        case IrcPeer():
            lines = [peer.until("PRIVMSG") for _ in range(count)]
            assert {parse(line).command for line in peer.sync()} <= {"JOIN"}
            found = [("broadcast" if each.params[0] == "#lobby" else "direct", each.params[1]) for each in lines]
        case Guest():
            found = [("any", peer.take()[1]) for _ in range(count)]
        case _:
            frames: list[str] = []
            while len(frames) < count:
                text = peer.frame()
                assert text, f"the server closed after {frames}"
                frames += [text] * text.startswith("D ")
            assert all(text.split(" ")[1] in ("READY", "SENT", "ONLINE") for text in peer.until_fence())
            kinds = {"PUBLIC": "broadcast", "DIRECT": "direct"}
            found = [(kinds[text.split(" ")[1]], text.partition("\n")[2]) for text in frames]
    return found


def send(peer: AnyPeer, text: str, to: str | None = None, *, keywords: tuple[str, str] = ("PM", "DM")) -> None:
    """Send a message to all or to a user, without waiting. ``keywords`` are those of frames."""
    match peer:
        case Peer():
            peer.ask(command="PM", message=text) if to is None else peer.ask(command="DM", to=to, message=text)
        case IrcPeer():
            peer.put(f"PRIVMSG {to or '#lobby'} :{text}")
        case Guest():
            peer.send(to or "ALL", text)
        case _:
            peer.send(c(keywords[0]) + d(text) if to is None else c(keywords[1]) + c(to) + d(text))


@pytest.mark.parametrize("has_tls", [False, True])
def test_messages_reach_users_of_every_protocol(
    open_room: Callable[..., Room], open_tls_room: Callable[..., Room], *, has_tls: bool
) -> None:
    """A public message reaches all others, each once and in one order; a direct one its recipient only.

    With TLS the same, also between encrypted and other users.
    """
    room = open_tls_room() if has_tls else open_room()
    leave(room.enter("gina"))
    users: dict[str, AnyPeer] = {
        "erin": room.enter_guest("erin"),  # reads first: a guest has 5 s to acknowledge
        "alice": room.enter("alice"),
        "bob": room.enter_frames("bob"),
        "carol": room.enter_frames("carol bm-pm"),
        "dave": room.enter_datagram("dave"),
        "fred": enter_web(room, "fred"),
        "gina": enter_irc(room, "gina", account="gina"),
        "hugo": enter_irc(room, "hugo", over="text.ircv3.net"),
    }
    keywords = defaultdict(lambda: ("PM", "DM"), carol=("BM", "PM"))

    for name, peer in users.items():
        for number in range(3):
            send(peer, f"{name} {number}", keywords=keywords[name])
    seen = {name: received(peer, 3 * (len(users) - 1)) for name, peer in users.items()}
    alice = users["alice"]
    assert isinstance(alice, Peer)
    alice.ask(command="CH")
    history = [each["message"] for each in alice.next("history")["messages"]]
    assert len(history) == 3 * len(users)
    for name, messages in seen.items():
        kind = "any" if name == "erin" else "broadcast"
        assert messages == [(kind, text) for text in history if not text.startswith(name)], name

    for name, peer in users.items():
        for other in users.keys() - {name}:
            send(peer, f"{name} to {other}", other, keywords=keywords[name])
    for name, peer in users.items():
        kind = "any" if name == "erin" else "direct"
        wanted = [(kind, f"{other} to {name}") for other in users if other != name]
        assert sorted(received(peer, len(wanted))) == sorted(wanted), name


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
