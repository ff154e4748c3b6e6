"""Bad input, over a socket: who sends it is told, and nobody else notices."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import io
    from collections.abc import Callable

    from integration.room import Room

LINE_MAX = 65_536
DEEP = 10_000

# What is sent, and the code of the answer. The connection lives on after each of them.
REFUSED: dict[str, tuple[bytes, str]] = {
    "not JSON": (b"{hello}", "bad_json"),
    "JSON that is no object": (b'["PM"]', "bad_json"),
    "not UTF-8": (b'{"command":"PM","message":"\xff\xfe"}', "bad_json"),
    "half a surrogate": (b'{"command":"PM","message":"\\ud800"}', "bad_json"),
    "nested arrays": (b'{"command":"PM","message":"x","y":' + b"[" * DEEP + b"]" * DEEP + b"}", "bad_json"),
    "nested objects": (b'{"a":' * DEEP + b"1" + b"}" * DEEP, "bad_json"),
    "nested and unfinished": (b'{"a":' * DEEP, "bad_json"),
    "a line over the limit": (b'{"command":"PM","message":"' + b"x" * LINE_MAX + b'"}', "too_long"),
    "no command": (b'{"message":"hello"}', "bad_request"),
    "a command that is no string": (b'{"command":5}', "bad_request"),
    "an unknown command": (b'{"command":"SHUTDOWN"}', "unknown_command"),
    "a missing member": (b'{"command":"PM"}', "bad_request"),
    "a wrongly typed member": (b'{"command":"PM","message":["x"]}', "bad_request"),
    "a direct message to nobody": (b'{"command":"DM","message":"x"}', "bad_request"),
    "an empty message": (b'{"command":"PM","message":""}', "empty_message"),
    "a message of white space": (b'{"command":"PM","message":" \\n\\t "}', "empty_message"),
    "a message over the limit": (b'{"command":"PM","message":"' + "é".encode() * 4_097 + b'"}', "too_long"),
    "a nonce over the limit": (b'{"command":"PM","message":"x","nonce":"' + b"n" * 65 + b'"}', "too_long"),
    "an empty nonce": (b'{"command":"PM","message":"x","nonce":""}', "bad_request"),
    "history without end": (b'{"command":"CH","limit":501}', "bad_request"),
    "history of nothing": (b'{"command":"CH","limit":0}', "bad_request"),
    "a number that no database holds": (b'{"command":"CH","before":99999999999999999999}', "bad_request"),
    "a second login": (b'{"command":"login","username":"mallory","password":"x"}', "bad_request"),
    "a password that nobody asked for": (b'{"command":"password","password":"x"}', "bad_request"),
}

# The same before the login.
REFUSED_OUTSIDE: dict[str, tuple[bytes, str]] = {
    "a public message": (b'{"command":"PM","message":"x"}', "not_logged_in"),
    "a direct message": (b'{"command":"DM","to":"alice","message":"x"}', "not_logged_in"),
    "history": (b'{"command":"CH"}', "not_logged_in"),
    "users": (b'{"command":"users"}', "not_logged_in"),
    "a name with a space": (b'{"command":"login","username":"al ice","password":"x"}', "bad_username"),
    "a name with an escape": (b'{"command":"login","username":"\\u001b[2J","password":"x"}', "bad_username"),
    "a name of other letters": ('{"command":"login","username":"алиса","password":"x"}'.encode(), "bad_username"),
    "no name": (b'{"command":"login","username":"","password":"x"}', "bad_username"),
    "a name over the limit": (b'{"command":"login","username":"' + b"a" * 33 + b'","password":"x"}', "bad_username"),
    "a reserved name": (b'{"command":"login","username":"aLL","password":"x"}', "bad_username"),
    "the server's name": (b'{"command":"login","username":"Server"}', "bad_username"),
    "an empty password": (b'{"command":"login","username":"bob","password":""}', "bad_request"),
    "a password over the limit": (
        b'{"command":"login","username":"bob","password":"' + b"p" * 1_025 + b'"}',
        "too_long",
    ),
    "a negative since": (b'{"command":"login","username":"bob","password":"x","since":-1}', "bad_request"),
    "a password out of place": (b'{"command":"password","password":"x"}', "bad_request"),
}


@pytest.mark.parametrize(("sent", "code"), REFUSED.values(), ids=REFUSED)
def test_it_is_refused_and_the_connection_lives_on(room: Room, sent: bytes, code: str) -> None:
    alice, victim = room.enter("alice"), room.enter("bob")
    alice.next("users")
    alice.send(sent + b"\n")
    assert alice.next("error")["code"] == code
    assert alice.until_fence() == [], "one error is enough"
    assert victim.until_fence() == []
    assert alice.say("still here")["id"] == 1, "nothing of it was stored"


@pytest.mark.parametrize(("sent", "code"), REFUSED_OUTSIDE.values(), ids=REFUSED_OUTSIDE)
def test_it_is_refused_before_the_login(room: Room, sent: bytes, code: str) -> None:
    alice, stranger = room.enter("alice"), room.peer()
    stranger.send(sent + b"\n")
    assert stranger.next("error")["code"] == code
    assert alice.until_fence() == []
    assert stranger.login("bob")["status"] == "ok"


def test_a_refusal_has_the_nonce_that_was_given(room: Room) -> None:
    alice = room.enter("alice")
    alice.ask(command="PM", message="", nonce="n1")
    assert alice.next("error")["nonce"] == "n1"
    alice.ask(command="PM", message=5, nonce="n2")
    assert alice.next("error")["nonce"] == "n2"


def test_the_error_names_the_limit(room: Room) -> None:
    alice = room.enter("alice")
    alice.ask(command="PM", message="x" * 8_193)
    assert "8,192" in alice.next("error")["message"]
    alice.send(b"{" + b"x" * LINE_MAX + b"\n")
    assert "65,536" in alice.next("error")["message"]


def test_a_message_of_exactly_the_limit_passes(room: Room) -> None:
    alice, bob = room.enter("alice"), room.enter("bob")
    text = "é" * 4_096
    alice.send(json.dumps({"command": "PM", "message": text}).encode() + b"\n")
    assert bob.next("broadcast")["message"] == text


def test_a_good_line_between_two_bad_ones_counts(room: Room) -> None:
    alice = room.enter("alice")
    alice.send(b'nonsense\n{"command":"PM","message":"good"}\n{"command":"nonsense"}\n')
    types = [alice.next("error", "sent")["type"] for _ in range(3)]
    assert sorted(types) == ["error", "error", "sent"]


@pytest.mark.parametrize(
    "first",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00",
        b"\n",
        b"hello",
        b"\x00" * 70_000,
        b"REGISTERED TOSEND alice\n\n",
        b"FORWARD alice\nContent-length: 5\n\nhello",
    ],
)
def test_an_unknown_first_byte_gets_one_line_of_text_and_the_end(room: Room, first: bytes) -> None:
    alice, stranger = room.enter("alice"), room.peer()
    stranger.send(first)
    line = stranger.line().decode()
    assert line.startswith("This is a chat room server.")
    for opening in ('{"command":"login"', r"C\x00\x00\x00\x05alice", r"REGISTER TOSEND alice\n\n"):
        assert opening in line
    assert stranger.is_closed()
    assert alice.until_fence() == []


def test_a_connection_that_says_nothing_is_closed_with_a_reason(open_room: Callable[..., Room]) -> None:
    room = open_room(login_seconds=0.2)
    assert "Nothing was said" in room.peer().line().decode()


def test_a_connection_that_never_logs_in_is_closed_with_a_reason(open_room: Callable[..., Room]) -> None:
    room = open_room(login_seconds=0.3)
    alice, slow = room.enter("alice"), room.peer()
    slow.send(b'{"command":"ping"}{"command":')
    assert slow.next("pong")
    assert slow.next("error")["code"] == "not_logged_in"
    assert slow.next("bye")
    assert slow.is_closed()
    assert alice.say("who is in may be silent for longer")["id"] == 1


def test_dripping_bytes_does_not_stretch_the_time_to_log_in(open_room: Callable[..., Room]) -> None:
    slow = open_room(login_seconds=0.3).peer()
    slow.socket.settimeout(0.02)
    line = b""
    slow.send(b"{")
    while not line:
        try:
            slow.send(b" ")
            line = slow.socket.recv(4_096)
        except TimeoutError:
            continue
        except (BrokenPipeError, ConnectionResetError):
            break
    assert b"not_logged_in" in line


def test_a_connection_that_ends_in_the_middle_of_a_line_leaves_the_room(room: Room, log: io.StringIO) -> None:
    alice, bob = room.enter("alice"), room.enter("bob")
    alice.next("users")
    bob.send(b'{"command":"PM","message":"half a li')
    bob.close()
    assert alice.next("users")["left"] == ["bob"]
    assert alice.until_fence() == []
    assert "The connection ended inside an object" in log.getvalue()


@pytest.mark.parametrize(("sent", "code"), REFUSED.values(), ids=REFUSED)
def test_each_is_one_line_in_the_log_without_passwords_or_messages(
    room: Room, log: io.StringIO, sent: bytes, code: str
) -> None:
    alice = room.enter("alice", password="verysecret")
    alice.say("a private thought")
    alice.send(sent + b"\n")
    alice.next("error")
    text = log.getvalue()
    refusals = [line for line in text.splitlines() if line.startswith("[WARNING]")]
    assert len(refusals) == 1
    assert f"code={code}" in refusals[0]
    assert "user=alice" in refusals[0]
    assert "verysecret" not in text
    assert "private thought" not in text


def test_refusals_of_one_connection_do_not_fill_the_log(room: Room, log: io.StringIO) -> None:
    alice = room.enter("alice")
    alice.send(b"nonsense\n" * 1_000)
    answers: list[dict[str, Any]] = alice.until_fence()
    assert len([answer for answer in answers if answer["type"] == "error"]) == 1_000
    lines = log.getvalue().splitlines()
    assert len([line for line in lines if line.startswith("[WARNING]")]) == 101


def test_talking_without_pause_does_not_stretch_the_time_to_log_in(open_room: Callable[..., Room]) -> None:
    talker = open_room(login_seconds=0.3).peer()
    code = ""
    while code != "not_logged_in":
        talker.ask(command="ping")
        code = talker.next("pong", "error").get("code", "")
    assert talker.next("bye")


def test_what_is_typed_in_the_wrong_place_is_not_logged(room: Room, log: io.StringIO) -> None:
    alice = room.enter("alice")
    alice.ask(command="DM", to="my password is hunter2", message="x")
    alice.next("error")
    alice.ask(command="hunter2")
    alice.next("error")
    room.peer().send(b"hunter2\n")
    stranger = room.peer()
    stranger.send(b"hunter2\n")
    assert stranger.is_closed()
    assert "hunter2" not in log.getvalue()
