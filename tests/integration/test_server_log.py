"""The log of a running server: no passwords and no messages in it, and the line for the first user."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from integration.irc import IrcPeer, plain
from integration.room import c, d, leave, message_to, typed_frame, wait_for
from integration.web import WebPeer
from web_bytes import PING, TEXT, frame, handshake, request

if TYPE_CHECKING:
    import io

    from integration.room import Room

# Secrets in the right place and in the wrong one. Before the login, the steps of it, and after it.
JSON = [
    b'{"command":"hunter2"}\nhunter2\n{"command":"PM","message":"publ1c"}\n',
    b'{"command":"password","password":"hunter2"}\n',
    b'{"command":"login","username":"hunter2 hunter2"}\n{"command":"login","username":"carol","password":"hunter2"}\n',
    b'{"command":"PM","message":"publ1c","nonce":"n1"}\n{"command":"PM","message":"%b"}\n' % (b"publ1c" * 2_000),
    b'{"command":"DM","to":"carol","message":"pr1vate"}\n{"command":"DM","to":"it is hunter2","message":"x"}\n',
    b'{"command":"login","username":"carol","password":"hunter2"}\n{"command":"PM","message":"publ1c"\n',
    b'{"command":"change_password","old":"wr0ng","new":"hunter2"}\n{"command":"search","words":"pr1vate %b"}\n'
    % (b"x" * 300),
    b'{"command":"login","username":"dave","password":"hunter2","new_password":"hunter2","invitation":"hunter2"}\n',
    b'{"command":"report","username":"carol","reason":"pr1vate"}\n{"command":"topic","room":"x","topic":"pr1vate"}\n',
]
FRAMES = [
    c("no name: hunter2") + d("hunter2") + c("hunter2!") + c("") + c("carol") + d("hunter2") + c("hunter2"),
    c("hunter2") + d("hunter2") + c("PM hunter2") + c("PM") + d("publ1c") + d("publ1c") + c("PM") + c("publ1c"),
    c("PM") + d("publ1c" * 2_000) + c("PM") + typed_frame(b"D", b"publ1c\xff") + c("CH pr1vate"),
    c("DM") + c("carol") + d("pr1vate") + c("DM") + c("hunter2") + d("pr1vate") + c("DM") + c("carol") + c("pr1vate"),
]
REGISTER = [b"REGISTER TOSEND hunter2!\n\n" + message_to("carol", "pr1vate") + b"REGISTER TOSEND carol\n\nhunter2\n\n"]
IRC = [
    b"CAP LS 302\r\nAUTHENTICATE PLAIN\r\nAUTHENTICATE hunter2\r\nREGISTER x * hunter2\r\nOPER hunter2 hunter2\r\n",
    b"NICK hunter2!\r\nNICK carol\r\nUSER hunter2 hunter2 * :hunter2\r\nREGISTER * * hunter2\r\nhunter2\r\nCAP END\r\n",
    b"PASS hunter2\r\nAUTHENTICATE PLAIN\r\nAUTHENTICATE hunter2\r\nOPER carol hunter2\r\nNICK hunter2!\r\n",
    b"JOIN #dev,#pr1vate! pr1vate,pr1vate\r\nMODE #dev +k pr1vate\r\nTOPIC #x :pr1vate\r\nTOPIC #dev :pr1vate\r\n",
    b"PRIVMSG #lobby :publ1c\r\nPRIVMSG #dev :\1publ1c\1\r\nPRIVMSG nobody :pr1vate\r\nPRIVMSG #x :pr1vate\r\n",
    b"PRIVMSG #lobby :publ1c\xff\r\nPRIVMSG #lobby :" + b"publ1c" * 100 + b"\r\nNOTICE carol :pr1vate\r\n",
    b"@label=pr1vate;+typing=pr1vate TAGMSG nobody\r\nAWAY :pr1vate\r\nSETNAME :pr1vate\r\nWHO pr1vate*\r\n",
    b"KICK #dev x :pr1vate\r\nREDACT #dev pr1vate :pr1vate\r\nCHATHISTORY LATEST #x pr1vate\r\nMODE #x +k pr1vate\r\n",
]
GUESSES = {
    "json": b'{"command":"login","username":"carol","password":"wr0ng"}\n' * 3,
    "websocket": handshake() + frame(TEXT, b'{"command":"login","username":"carol","password":"wr0ng"}') * 3,
    "frames": c("carol") + c("wr0ng") * 3,
    "datagram": c("carol") + c("wr0ng") * 3,
    "irc": f"AUTHENTICATE PLAIN\r\nAUTHENTICATE {plain('carol', 'wr0ng')}\r\n".encode() * 3,
}
WEBSOCKET = [
    handshake(X_Password="hunter2"),
    *(frame(TEXT, line) for each in JSON for line in each.splitlines()),
    frame(TEXT, b"hunter2") + frame(PING, b"hunter2"),
]
SENT = {"json": JSON, "websocket": WEBSOCKET, "frames": FRAMES, "datagram": FRAMES, "register": REGISTER, "irc": IRC}


@pytest.mark.parametrize("protocol", SENT)
def test_log_has_no_passwords_and_no_messages(room: Room, log: io.StringIO, protocol: str) -> None:
    """Not even those in the wrong place, in an error or in the first bytes."""
    connect = {
        "json": room.peer,
        "websocket": partial(room.connect, WebPeer),
        "frames": room.frames_peer,
        "datagram": room.datagram_peer,
        "register": room.register_peer,
        "irc": partial(room.connect, IrcPeer),
    }[protocol]
    peer: Any = connect()
    for sent in SENT[protocol]:
        peer.send(sent)
    if protocol == "websocket":
        peer.answer()
    if protocol == "register":
        receiver = room.register_peer()
        receiver.register("TORECV", "carol")
        peer.send(message_to("pr1vate", "publ1c") + message_to("carol", "pr1vate") + b"SEND carol\npr1vate: x\n\n")
        guesser = connect()
        guesser.send(b"REGISTER TOSEND dave\n\nSEND carol\nContent-length: 7 pr1vate\n\n")
        assert guesser.is_closed()
    else:
        (peer.sync if protocol == "irc" else peer.until_fence)()
        peer.send(b"hunter2\n" if protocol != "datagram" else c("EX"))
        if protocol not in ("json", "websocket", "irc"):
            peer.rest()
        guesser = connect()
        guesser.send(GUESSES[protocol])
        assert guesser.is_closed()
    for first in (b"hunter2\n", request("/hunter2?hunter2", "POST", Cookie="hunter2")):
        stranger = room.peer()
        stranger.send(first)
        assert stranger.is_closed()
    wait_for(lambda: log.getvalue().count("code=") >= (1 if protocol == "register" else 8), "the refusals in the log")
    text = log.getvalue()
    for secret in ("hunter2", "wr0ng", "pr1vate", "publ1c"):
        assert secret not in text


def waiting_lines(log: io.StringIO) -> int:
    return log.getvalue().count("Waiting for connection on port ")


def test_server_logs_that_it_waits_after_the_last_user_has_left(room: Room, log: io.StringIO) -> None:
    """At the start as well, and not at the end. Connections without a login don't count."""
    waiting = f"Waiting for connection on port {room.server.port}..."
    wait_for(lambda: waiting in log.getvalue(), "it waits at the start")
    alice, again, bob = room.enter_frames("alice"), room.enter("alice"), room.enter("bob")
    leave(room.frames_peer())
    leave(alice)
    leave(again)
    while "alice" not in bob.next("users")["left"]:
        pass
    assert waiting_lines(log) == 1, "a user is left"
    bob.close()
    wait_for(lambda: waiting_lines(log) == 2, "it waits again")
    carol = room.enter_frames("carol")
    assert room.stop()
    assert carol.rest() == ["C BYE the server is shutting down"]
    assert waiting_lines(log) == 2
