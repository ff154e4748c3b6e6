"""Bad input over sockets: its sender gets an error, and no other user notices. The unit tests have all its classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from integration.irc import IrcPeer, WebIrcPeer, parse, plain
from integration.room import FramesPeer, Peer, c, d, leave, typed_frame

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


# Each line, and the command and the first words of its answers. "$taken" is the nick of another user.
IRC_BEFORE_LOGIN = [
    ("NICK \x1b[2J", ["432"]),
    ("PRIVMSG #lobby :x", ["451"]),
    ("NICK " + "x" * 33, ["432"]),
    ("USER x", ["461"]),
    ("CAP REQ :sasl nonsense", ["CAP"]),
    ("AUTHENTICATE PLAIN", ["AUTHENTICATE"]),
    *[("AUTHENTICATE " + "QUFB" * 100, [])] * 3,
    ("AUTHENTICATE " + "QUFB" * 100, ["905"]),
    ("AUTHENTICATE QUFB", ["908", "904"]),
]
IRC_ERRORS = [
    ("x" * 60_000, ["417"]),
    ("PRIVMSG #lobby :" + "x" * 500, ["417"]),
    ("@+typing=" + "x" * 8_191 + " TAGMSG #lobby", ["417"]),
    ("@+typing=" + "x" * 4_086 + " PING 1", ["PONG"]),
    ("PRIVMSG nobody\0body :x", ["412"]),
    ("PRIVMSG nobody\rbody :x", ["412"]),
    ("\0\0", []),
    ("JOIN " + ",".join(f"#room{number}" for number in range(1_000)), ["417"]),
    ("JOIN " + ",".join(["#"] * 200), ["403"] * 100),
    ("NICK $taken", ["433"]),
    ("MONITOR + " + ",".join(f"nick{number}" for number in range(50)), ["731"]),
    ("MONITOR + " + ",".join(f"another{number}" for number in range(40)), ["731"]),
    ("MONITOR + " + ",".join(f"third{number}" for number in range(40)), ["734"]),
    ("BATCH +1 draft/multiline #lobby", []),
    ("@batch=1 PRIVMSG #lobby", []),
    *[("@batch=1 PRIVMSG #lobby :" + "x" * 400, [])] * 20,
    ("@batch=1 PRIVMSG #lobby :" + "x" * 400, ["FAIL"]),
    ("BATCH -1", []),
    ("BATCH -1", ["FAIL"]),
    ("MODE #lobby " + "+k" * 200, ["696"]),
    ("MODE #lobby " + "+xo" * 100 + "+y", ["472", "696", "472"]),
    ("NONSENSE", ["421"]),
    ("PRIVMSG #a!b :x", ["403"]),
    ("PRIVMSG #a!b :\1PING\1", ["403"]),
    ("TOPIC #a!b :x", ["403"]),
]
# A text message of WebSocket is UTF-8, and a message has 65,536 bytes at most.
NOT_UTF8 = [("PRIVMSG #lobby :\udcff", ["FAIL"]), ("@+typing=\udcff TAGMSG #lobby", ["FAIL"])]
OVER = {"tcp": [*NOT_UTF8, ("x" * 100_000, ["417"])], "text.ircv3.net": [], "binary.ircv3.net": NOT_UTF8}


@pytest.mark.parametrize("over", OVER)
def test_invalid_line_of_irc_has_its_numeric(shared_room: Room, fresh_name: Name, over: str) -> None:
    """And no other answer; the connection goes on, and others see nothing."""
    taken = fresh_name("witness")
    witness = shared_room.enter(taken)
    if over == "tcp":
        sender = shared_room.connect(IrcPeer)
    else:
        web = shared_room.connect(WebIrcPeer)
        assert web.shake_hands(over) == over
        sender = web
    for line, answers in IRC_BEFORE_LOGIN:
        sender.put(line)
        assert [parse(said).command for said in sender.sync()] == answers, line
    name = fresh_name("sender")
    sender.register(name, caps="batch draft/multiline message-tags standard-replies")
    for line, answers in [*IRC_ERRORS, *OVER[over]]:
        sender.put(line.replace("$taken", taken))
        assert [parse(said).command for said in sender.sync()] == answers, line[:60]
    assert_unnoticed([witness])
    sender.put("JOIN #lobby", "PRIVMSG #lobby :still here")
    assert witness.next("broadcast")["message"] == "still here"


@pytest.mark.parametrize("proves", [False, True], ids=["nick", "password"])
def test_registration_of_irc_that_never_ends_is_closed(open_room: Callable[..., Room], *, proves: bool) -> None:
    """Promise: a connection that does not log in is closed, whatever it has sent: also the right password."""
    room = open_room()
    leave(room.enter("alice"))
    room.close()
    room = open_room(login_seconds=0.5)
    peer = room.connect(IrcPeer)
    proof = ["AUTHENTICATE PLAIN", f"AUTHENTICATE {plain('alice')}"] if proves else []
    peer.put("CAP LS 302", "CAP REQ :sasl", "NICK bob", "USER b 0 * :b", *proof)
    *_, told, last = peer.rest()
    assert parse(told).params[-1].startswith("Nobody logged in within 0.5 s")
    assert parse(last)[2:] == ("ERROR", ["Closing Link: bob (not logged in)"])
    room.wait_for_connections(0)


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
