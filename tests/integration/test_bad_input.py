"""Bad input over sockets: its sender gets an error, and no other user notices. The unit tests have all its classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from integration.room import FramesPeer, Peer, c, d, typed_frame

if TYPE_CHECKING:
    from collections.abc import Callable

    from integration.room import Room

    Name = Callable[[str], str]

every_protocol = pytest.mark.parametrize("protocol", ["json", "frames", "datagram"])

JSON_ERRORS = [
    (b'{"command":"PM","message":"\xff\xfe"}\n', ["bad_json"]),
    (b'{"a":' * 10_000 + b"1" + b"}" * 10_000 + b"\n", ["bad_json"]),
    (b'{"command":"PM","message":"' + b"x" * 65_536 + b'"}\n', ["too_long"]),
    (b'{"command":"PM","message":""}\n', ["empty_message"]),
    (
        b'nonsense\n{"command":"CH","limit":501}\n{"command":"nonsense"}\n',
        ["bad_json", "bad_request", "unknown_command"],
    ),
]
FRAMES_ERRORS = [
    (c("PM") + typed_frame(b"D", b"\xff\xfe"), ["bad_request"]),
    (c("DM") + d("unexpected"), ["bad_request"]),
    (c("PM") + d("x" * 65_531), ["too_long"]),
    (c("PM") + d(" \n\t "), ["empty_message"]),
    (c("CH 501") + c("SHUTDOWN"), ["bad_request", "unknown_command"]),
]
ERRORS = {"json": JSON_ERRORS, "frames": FRAMES_ERRORS, "datagram": FRAMES_ERRORS}
BEFORE_LOGIN = {
    "json": [
        (b'{"command":"PM","message":"x"}\n', ["not_logged_in"]),
        (b'{"command":"login","username":"\\u001b[2J","password":"x"}\n', ["bad_username"]),
        (b'{"command":"login","username":"bob","password":""}\n', ["bad_request"]),
    ],
    "frames": [(c("PM"), ["not_logged_in"]), (c("\x1b[2J"), ["bad_username"]), (c("bob dm-pm"), ["bad_request"])],
}


def codes(peer: Peer | FramesPeer, count: int) -> list[str]:
    """The codes of the next errors. READY and ONLINE are skipped."""
    if isinstance(peer, Peer):
        return [peer.next("error")["code"] for _ in range(count)]
    found: list[str] = []
    while len(found) < count:
        word, *rest = peer.next_command().split(" ")
        if word not in ("READY", "ONLINE"):
            assert word == "ERROR", (word, rest)
            found.append(rest[0])
    return found


def connect(room: Room, protocol: str) -> Peer | FramesPeer:
    return {"json": room.peer, "frames": room.frames_peer, "datagram": room.datagram_peer}[protocol]()


def assert_unnoticed(witnesses: list[Peer]) -> None:
    """Nothing but updates of the users has arrived."""
    for witness in witnesses:
        assert {each["type"] for each in witness.until_fence()} <= {"users"}


@every_protocol
def test_invalid_request_is_one_error_for_its_sender(shared_room: Room, fresh_name: Name, protocol: str) -> None:
    witness, sender = shared_room.enter(fresh_name("witness")), connect(shared_room, protocol)
    for sent, expected in BEFORE_LOGIN.get(protocol, []):
        sender.send(sent)
        assert codes(sender, len(expected)) == expected
    sender.login(fresh_name("sender"))
    for sent, expected in ERRORS[protocol]:
        sender.send(sent)
        assert codes(sender, len(expected)) == expected
        assert [each for each in sender.until_fence() if "users" not in each] == [], "one error is enough"
    assert_unnoticed([witness])
    sender.say("still here")
    assert witness.next("broadcast")["message"] == "still here"


@pytest.mark.parametrize("first", [b"DELETE / HTTP/1.1\r\n\r\n", b"\n", b"\x00" * 70_000])
def test_unknown_protocol_is_rejected_in_plain_text(shared_room: Room, first: bytes) -> None:
    """The text names the openings of all protocols over TCP."""
    stranger = shared_room.peer()
    stranger.send(first)
    line = stranger.line().decode()
    assert line.startswith("This is a chat room server.")
    for opening in ('{"command":"login"', "GET / HTTP/1.1", r"C\x00\x00\x00\x05alice", r"REGISTER TOSEND alice\n\n"):
        assert opening in line
    assert stranger.is_closed()
