"""The dialect frames, over a socket: one room with json, and bad input that nobody else notices."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from integration.room import DEADLINE_SECONDS, FramesPeer, Peer, typed_frame, wait_for
from integration.steps import FRAME_MAX, REFUSED, REFUSED_ASKED, REFUSED_OUTSIDE, c, d, leave, without_sentences
from reliability.program import Program

if TYPE_CHECKING:
    import io
    from collections.abc import Callable
    from pathlib import Path

    from integration.room import Room

BYE_UNREADABLE = "C BYE the connection can't be read any further"


def header(kind: bytes, size_bytes: int) -> bytes:
    return kind + struct.pack(">I", size_bytes)


# --- one room with json ---


def test_public_messages_reach_everybody_in_every_dialect(room: Room) -> None:
    alice, bob = room.enter("alice"), room.enter_frames("bob")
    carol = room.enter_frames("carol bm-pm")
    assert bob.say("hello\nfrom frames") == 1
    heard = alice.next("broadcast")
    assert (heard["from"], heard["id"], heard["message"]) == ("bob", 1, "hello\nfrom frames")
    assert alice.say("hello from json")["id"] == 2

    kind, sender, number, time_ms, text = bob.next_message()
    assert [kind, sender, number, text] == ["PUBLIC", "alice", "2", "hello from json"]
    assert abs(int(time_ms) / 1000 - time.time()) < 60
    first = carol.next_message()
    assert [*first[:3], first[4]] == ["PUBLIC", "bob", "1", "hello\nfrom frames"]
    assert carol.next_message() == [kind, sender, number, time_ms, text]
    assert [peer.until_fence() for peer in (bob, carol)] == [[], []], "who speaks hears the confirmation alone"


def test_direct_messages_reach_one_user_and_nobody_else(room: Room) -> None:
    alice, bob, carol = room.enter("alice"), room.enter_frames("bob"), room.enter_frames("carol")
    assert bob.whisper("ALICE", "psst") == 1
    heard = alice.next("direct")
    assert (heard["from"], heard["to"], heard["id"], heard["message"]) == ("bob", "alice", 1, "psst")
    alice.ask(command="DM", to="Bob", message="psst yourself")
    assert alice.next("sent")["status"] == "sent"
    kind, sender, number, _, text = bob.next_message()
    assert [kind, sender, number, text] == ["DIRECT", "alice", "2", "psst yourself"]
    assert carol.whisper("bob", "between frames") == 3
    assert bob.next_message()[1] == "carol"
    assert carol.until_fence() == []


def test_a_users_other_connections_hear_what_one_of_them_says(room: Room) -> None:
    room.enter_frames("carol")
    one, other, third = room.enter_frames("bob"), room.enter("bob"), room.enter_frames("bob")
    one.say("hello")
    one.whisper("carol", "psst")
    assert [other.next("broadcast", "direct")["message"] for _ in range(2)] == ["hello", "psst"]
    assert [third.next_message()[-1] for _ in range(2)] == ["hello", "psst"]
    assert one.whisper("bob", "note") == 3
    assert third.next_message()[-1] == "note"


def test_a_message_to_oneself_comes_and_is_confirmed(room: Room) -> None:
    bob = room.enter_frames("bob")
    bob.command("DM")
    assert bob.frame() == "C ONLINE bob"
    bob.command("bob")
    bob.data("note")
    both = {bob.frame().partition(" 1")[0], bob.frame().partition(" 1")[0]}
    assert both == {"D DIRECT bob", "C SENT"}


def test_what_waits_for_somebody_comes_at_the_next_login_in_the_other_dialect(room: Room) -> None:
    bob = room.enter_frames("bob")
    leave(room.enter_frames("alice"))
    assert bob.whisper("alice", "while you were away", "STORED") == 1
    leave(bob)
    alice = room.enter_frames("alice")
    kind, sender, number, _, text = alice.next_message()
    assert [kind, sender, number, text] == ["DIRECT", "bob", "1", "while you were away"]
    alice.whisper("bob", "and you", "STORED")
    assert room.enter("bob").next("direct")["message"] == "and you"
    leave(alice)
    assert room.enter_frames("alice").until_fence() == [], "once"


def test_json_sees_frames_users_come_and_go_and_frames_are_told_when_they_ask(room: Room) -> None:
    alice = room.enter("alice")
    bob = room.enter_frames("bob")
    assert "bob" in alice.next("users")["joined"]
    assert bob.until_fence() == [], "nobody asked"
    for operation in ("DM", "USERS"):
        bob.command(operation)
        assert bob.next_command() == "ONLINE alice bob"
        bob.data("")
        assert bob.next_command().startswith("ERROR ")
    leave(bob)
    while "bob" not in (update := alice.next("users"))["left"]:
        pass
    assert update["users"] == ["alice"]


def test_the_history_is_the_same_in_every_dialect(room: Room) -> None:
    alice, bob, carol = room.enter("alice"), room.enter_frames("bob"), room.enter_frames("carol")
    for number in range(30):
        alice.say(f"json {number}")
        bob.say(f"frames {number}")
    bob.whisper("alice", "for her")
    carol.whisper("bob", "for him")

    def as_json(peer: Peer, limit: int) -> list[tuple[Any, ...]]:
        peer.ask(command="CH", limit=limit)
        told = peer.next("history")["messages"]
        return [(each["from"], str(each["id"]), each["message"]) for each in told]

    def as_frames(peer: FramesPeer, asked: str) -> list[tuple[Any, ...]]:
        return [(sender, number, text) for _, sender, number, _, text in peer.history(asked)]

    for peer in (alice, bob, carol):
        peer.until_fence()
    bob_in_json, alice_in_frames = room.enter("bob"), room.enter_frames("alice")
    assert as_frames(bob, "CH 200") == as_json(bob_in_json, 200)
    assert as_frames(bob, "CH") == as_json(bob_in_json, 50)
    assert as_frames(alice_in_frames, "CH 200") == as_json(alice, 200)
    assert [each[-1] for each in as_frames(alice_in_frames, "ch 2")] == ["frames 29", "for her"]
    assert len(as_frames(carol, "CH 200")) == 61


# --- bad input ---

# Nobody can tell where the next frame begins: what comes besides is BYE, and the connection is closed.
CLOSED: dict[str, tuple[bytes, str]] = {
    "another type": (b"X\0\0\0\0", "bad_request"),
    "another type, behind a good frame": (c("PM") + b"X", "bad_request"),
    "a type in lower case": (b"c\0\0\0\4PING", "bad_request"),
    "a zero byte": (b"\0", "bad_request"),
    "text": (b"hello everybody\n", "bad_request"),
    "json": (b'{"command":"PM","message":"x"}\n', "bad_request"),
    "a length just beyond the limit": (header(b"D", FRAME_MAX - 4), "too_long"),
    "the greatest length": (header(b"C", 0xFFFFFFFF) + b"x" * 100_000, "too_long"),
    "a length that would be negative": (header(b"D", 0x80000000), "too_long"),
    "a length in the other byte order": (b"C\4\0\0\0PING", "too_long"),
}


@pytest.mark.parametrize(("sent", "told"), REFUSED.values(), ids=REFUSED)
def test_it_is_refused_and_the_connection_lives_on(room: Room, sent: bytes, told: list[str]) -> None:
    alice, bob, carol = room.enter_frames("alice"), room.enter("bob"), room.enter_frames("carol")
    bob.next("users")
    alice.send(sent)
    assert without_sentences([alice.frame() for _ in told]) == told
    assert alice.until_fence() == [], "one error is enough, and an operation is due"
    assert [each for each in bob.until_fence() if each["type"] != "users"] == []
    assert carol.until_fence() == []
    assert alice.say("still here") == 1, "nothing of it was stored"


@pytest.mark.parametrize(("sent", "code"), CLOSED.values(), ids=CLOSED)
@pytest.mark.parametrize("is_in", [True, False])
def test_what_is_no_frame_ends_the_connection(room: Room, sent: bytes, code: str, is_in: bool) -> None:
    bob, carol = room.enter("bob"), room.enter_frames("carol")
    alice = room.enter_frames("alice") if is_in else room.frames_peer()
    if not is_in:
        alice.command("alice")
        assert alice.next_command() == "PASSWORD new"
        sent = sent.removeprefix(c("PM"))
    alice.send(sent)
    told = without_sentences(alice.rest())
    assert told[-2:] == [f"C ERROR {code}", BYE_UNREADABLE]
    assert told[:-2] == (["C READY"] if sent.startswith(c("PM")) else [])
    if is_in:
        while "alice" not in bob.next("users")["left"]:
            pass
    assert [each for each in bob.until_fence() if each["type"] != "users"] == []
    assert carol.until_fence() == []
    assert carol.say("nothing was stored") == 1


@pytest.mark.parametrize(("sent", "told"), REFUSED_OUTSIDE.values(), ids=REFUSED_OUTSIDE)
def test_it_is_refused_before_the_login(room: Room, sent: bytes, told: list[str]) -> None:
    alice, carol, stranger = room.enter("alice"), room.enter_frames("carol"), room.frames_peer()
    alice.next("users")
    stranger.send(sent)
    assert without_sentences([stranger.frame() for _ in told]) == told
    assert [alice.until_fence(), carol.until_fence()] == [[], []]
    assert stranger.login("bob") == "WELCOME new"


@pytest.mark.parametrize(("sent", "told"), REFUSED_ASKED.values(), ids=REFUSED_ASKED)
def test_it_is_refused_where_a_password_is_due(room: Room, sent: bytes, told: list[str]) -> None:
    alice, carol, stranger = room.enter("alice"), room.enter_frames("carol"), room.frames_peer()
    alice.next("users")
    stranger.command("bob")
    assert stranger.next_command() == "PASSWORD new"
    stranger.send(sent)
    assert without_sentences([stranger.frame() for _ in told]) == told
    assert [alice.until_fence(), carol.until_fence()] == [[], []]
    stranger.command("secret")
    assert stranger.next_command() == "WELCOME new"


def test_the_third_wrong_password_closes_the_connection_and_nobody_else_hears_of_it(room: Room) -> None:
    alice, carol, guesser = room.enter("alice"), room.enter_frames("carol"), room.frames_peer()
    alice.next("users")
    guesser.command("alice")
    assert guesser.next_command() == "PASSWORD existing"
    for guess in ("a", "b", "c"):
        guesser.command(guess)
        assert guesser.next_command().startswith("DENIED ")
    assert guesser.rest() == ["C BYE too many wrong passwords"]
    assert [alice.until_fence(), carol.until_fence()] == [[], []]


def test_half_a_frame_and_the_end_is_told_and_closed(room: Room) -> None:
    alice, bob, carol = room.enter_frames("alice"), room.enter("bob"), room.enter_frames("carol")
    alice.send(c("PM") + d("the whole text")[:-1])
    alice.socket.shutdown(socket.SHUT_WR)
    told = without_sentences(alice.rest())
    assert told == ["C READY", "C ERROR bad_request"]
    while "alice" not in bob.next("users")["left"]:
        pass
    assert carol.until_fence() == []
    assert carol.history() == [], "of what is not finished nothing is sent"


def test_who_goes_in_the_middle_of_a_dialogue_has_sent_nothing(room: Room) -> None:
    bob, carol = room.enter("bob"), room.enter_frames("carol")
    for steps in (c("PM"), c("DM"), c("DM") + c("bob"), c("PM") + d("text")[:-2]):
        alice = room.enter_frames("alice")
        alice.send(steps)
        alice.close()
        while "alice" not in bob.next("users")["left"]:
            pass
    assert carol.until_fence() == []
    assert carol.history() == []


def test_who_says_nothing_or_gives_no_password_is_told_and_closed(open_room: Callable[..., Room]) -> None:
    room = open_room(login_seconds=0.5)
    alice = room.enter_frames("alice")
    silent = room.peer()
    slow, begun = room.frames_peer(), room.frames_peer()
    slow.command("bob")
    assert slow.next_command() == "PASSWORD new"
    begun.send(c("bob")[:-1])
    assert "Nothing was said" in silent.line().decode()
    for peer in (slow, begun):
        assert without_sentences(peer.rest()) == ["C ERROR not_logged_in", "C BYE not logged in"]
    assert alice.say("who is in may be silent") == 1


@pytest.mark.parametrize("begun", [b"D", b"C\0\0", c("PING")[:-1], c("PM") + d("x" * 8_000)[:-1]])
def test_who_leaves_a_frame_unfinished_is_told_and_closed(open_room: Callable[..., Room], begun: bytes) -> None:
    room = open_room(login_seconds=0.4)
    alice, bob, carol = room.enter_frames("alice"), room.enter("bob"), room.enter_frames("carol")
    alice.send(begun)
    told = [text for text in without_sentences(alice.rest()) if text != "C READY"]
    assert told == ["C ERROR bad_request", BYE_UNREADABLE]
    while "alice" not in bob.next("users")["left"]:
        pass
    assert carol.until_fence() == []
    assert carol.say("silent for longer than that between two frames") == 1
    assert bob.next("broadcast")["id"] == 1


def test_who_leaves_an_object_unfinished_is_told_and_closed(open_room: Callable[..., Room]) -> None:
    """The same in json."""
    room = open_room(login_seconds=0.4)
    alice, carol = room.enter("alice"), room.enter_frames("carol")
    alice.send(b'{"command":"PM","message":"half')
    assert alice.next("error")["code"] == "bad_request"
    assert alice.next("bye")
    assert alice.is_closed()
    assert carol.until_fence() == []


def test_a_frame_that_comes_in_time_ends_the_time_for_it(open_room: Callable[..., Room]) -> None:
    room = open_room(login_seconds=0.4)
    alice = room.enter_frames("alice")
    alice.send(c("PING") + c("PING")[:3])
    assert alice.frame() == "C PONG"
    alice.send(c("PING")[3:])
    assert alice.frame() == "C PONG"
    alice.socket.settimeout(1.0)
    with pytest.raises(TimeoutError):
        alice.frame()
    alice.socket.settimeout(DEADLINE_SECONDS)
    assert alice.say("still here") == 1


# --- how it is cut into pieces ---


def test_a_dialogue_may_come_byte_by_byte(room: Room) -> None:
    alice, carol = room.enter("alice"), room.frames_peer()
    for byte in c("carol") + c("secret") + c("PM") + d("héllo") + c("CH"):
        carol.send(bytes([byte]))
    told = [carol.frame() for _ in range(6)]
    assert told[:5] == ["C PASSWORD new", "C WELCOME new", "C READY", "C SENT 1", "C HISTORY 1"]
    assert alice.next("broadcast")["message"] == "héllo"


@pytest.mark.parametrize("piece", [1_000_003, 4_999, 7])
def test_many_frames_at_once_lose_nothing(room: Room, piece: int) -> None:
    alice, bob, carol = room.enter_frames("alice"), room.enter("bob"), room.enter_frames("carol")
    count = 300 if piece < 100 else 3_000
    asked = b"".join(c("PM") + d(f"text {number}") for number in range(count)) + c("EX")
    for start in range(0, len(asked), piece):
        alice.send(asked[start : start + piece])
    told = alice.rest()
    assert told.count("C READY") == count
    assert [text for text in told if text != "C READY"] == [f"C SENT {number + 1}" for number in range(count)] + [
        "C BYE"
    ]
    expected = [(number + 1, f"text {number}") for number in range(count)]
    assert [(heard["id"], heard["message"]) for heard in (bob.next("broadcast") for _ in range(count))] == expected
    heard_in_frames = [carol.next_message() for _ in range(count)]
    assert [(int(number), text) for _, _, number, _, text in heard_in_frames] == expected


def test_of_many_at_once_each_bad_one_is_told_at_its_place(room: Room) -> None:
    alice, carol = room.enter_frames("alice"), room.enter_frames("carol")
    texts = ["one", "", "two", "three", "x" * 8_193, "four"] + ["more"] * 20
    alice.send(b"".join(c("PM") + d(text) for text in texts) + c("PM") + typed_frame(b"D", b"\xff") + c("EX"))
    told = [text for text in without_sentences(alice.rest()) if text != "C READY"]
    assert told[:6] == [
        "C SENT 1",
        "C ERROR empty_message",
        "C SENT 2",
        "C SENT 3",
        "C ERROR too_long",
        "C SENT 4",
    ]
    assert told[6:] == [f"C SENT {number}" for number in range(5, 25)] + ["C ERROR bad_request", "C BYE"]
    good = ["one", "two", "three", "four"] + ["more"] * 20
    assert [carol.next_message()[-1] for _ in good] == good


def test_steps_sent_ahead_are_answered_in_order(room: Room) -> None:
    room.enter("bob").close()
    alice = room.frames_peer()
    alice.send(
        c("alice")
        + c("secret")
        + c("PM")
        + d("one")
        + c("DM")
        + c("alice")
        + d("two")
        + c("DM")
        + c("nobody")
        + d("x")
        + c("NOPE")
        + c("CH 1")
        + c("PM")
        + d("three")
        + c("EX")
    )
    told = without_sentences(alice.rest())
    in_order = [text.partition("\n")[0] for text in told if not text.startswith(("C READY", "C ONLINE"))]
    assert [text for text in in_order if not text.startswith("D ")] == [
        "C PASSWORD new",
        "C WELCOME new",
        "C SENT 1",
        "C SENT 2",
        "C NOUSER nobody",
        "C ERROR unknown_command",
        "C HISTORY 1",
        "C SENT 3",
        "C BYE",
    ]


def test_who_sends_all_at_once_and_closes_its_side_is_answered_all(room: Room) -> None:
    """As from a shell: everything is written, and then what comes is read."""
    carol, alice = room.enter_frames("carol"), room.frames_peer()
    alice.send(c("alice") + c("secret") + (c("PM") + d("hello")) * 20)
    alice.socket.shutdown(socket.SHUT_WR)
    told = alice.rest()
    assert [text for text in told if "READY" not in text] == [
        "C PASSWORD new",
        "C WELCOME new",
        *(f"C SENT {number}" for number in range(1, 21)),
    ]
    assert [carol.next_message()[-1] for _ in range(20)] == ["hello"] * 20


def test_a_confirmed_message_is_in_the_history_of_everybody(room: Room) -> None:
    """Promise of the wire: SENT comes after the message is on the disk."""
    alice, carol = room.enter_frames("alice"), room.enter_frames("carol")
    for number in range(1, 20):
        assert alice.say(f"text {number}") == number
        assert [carol.next_message()[-1], *(each[-1] for each in carol.history("CH 1"))] == [f"text {number}"] * 2


# --- limits ---


@pytest.mark.parametrize("first", [c("alice"), b"C\0"])
def test_over_the_limit_of_connections_it_is_told_in_its_dialect(open_room: Callable[..., Room], first: bytes) -> None:
    room = open_room(max_connections=1)
    alice = room.enter_frames("alice")
    extra, silent = room.frames_peer(), room.peer()
    extra.send(first)
    assert without_sentences(extra.rest()) == ["C ERROR server_full"]
    assert json.loads(silent.line())["code"] == "server_full"
    assert silent.is_closed()
    assert alice.until_fence() == []
    leave(alice)
    alice.close()
    room.wait_for_connections(0)
    assert room.enter_frames("carol"), "there is room again"


def test_who_reads_nothing_is_disconnected_and_nobody_waits(open_room: Callable[..., Room], log: io.StringIO) -> None:
    room = open_room(lag_max_bytes=256 * 1024)
    alice, bob, sleeper = room.enter_frames("alice"), room.enter("bob"), room.enter_frames("sleeper")
    count, left = 0, False
    while not left:
        count += 1
        alice.command("PM")
        alice.data(f"{count} " + "x" * 8_000)
        while (answer := bob.next("broadcast", "users"))["type"] == "users":
            left = left or "sleeper" in answer["left"]
        assert answer["id"] == count
        assert count < 5_000, "it was never disconnected"
    while alice.next_command() != f"SENT {count}":
        pass
    assert "disconnected reason=lagging" in log.getvalue()
    sleeper.close()
    back = room.enter_frames("sleeper")
    assert [int(number) for _, _, number, _, _ in back.history("CH 10")] == list(range(count - 9, count + 1))


def test_who_never_reads_the_answers_is_read_no_further(room: Room) -> None:
    """Back-pressure: memory stays bounded by what one connection may leave unread."""
    greedy = room.enter_frames("greedy")
    greedy.socket.settimeout(0.5)
    with pytest.raises(TimeoutError):
        greedy.socket.sendall((c("USERS") + c("PM")) * 2_000_000)
    assert room.enter_frames("alice").say("nobody else waits") == 1


# --- the end, and the log ---


def test_when_the_server_stops_each_client_is_told(room: Room) -> None:
    peers = [room.frames_peer() for _ in range(4)]
    peers[0].login("alice")
    peers[1].login("bob bm-pm")
    peers[1].command("PM")
    assert peers[1].next_command() == "ONLINE alice bob"
    peers[2].command("carol")
    assert peers[2].next_command() == "PASSWORD new"
    peers[3].login("dave")
    peers[3].command("PM")
    assert peers[3].next_command() == "READY"
    assert room.stop()
    assert [peer.rest() for peer in peers] == [["C BYE the server is shutting down"]] * 4


def test_a_signal_ends_the_program_and_each_client_is_told(tmp_path: Path) -> None:
    with Program(tmp_path) as server:
        alice = FramesPeer(server.port)
        alice.login("alice")
        server.process.terminate()
        assert alice.rest() == ["C BYE the server is shutting down"]
        alice.close()
        assert server.process.wait(DEADLINE_SECONDS) == 0


def waiting_lines(log: io.StringIO) -> int:
    return log.getvalue().count("Waiting for connection on port ")


def test_when_the_last_user_has_left_the_server_says_that_it_waits(room: Room, log: io.StringIO) -> None:
    wait_for(lambda: waiting_lines(log) == 1, "it waits at the start")
    assert f"Waiting for connection on port {room.server.port}..." in log.getvalue()
    alice, again, bob = room.enter_frames("alice"), room.enter("alice"), room.enter("bob")
    stranger = room.frames_peer()
    leave(stranger)
    leave(alice)
    again.close()
    while "alice" not in bob.next("users")["left"]:
        pass
    assert waiting_lines(log) == 1, "somebody is left"
    bob.close()
    wait_for(lambda: waiting_lines(log) == 2, "it waits again")
    *_, left, waits = log.getvalue().splitlines()
    assert left.startswith("[INFO] logout user=bob ")
    assert waits.startswith(f"[INFO] Waiting for connection on port {room.server.port}... ")
    carol = room.enter_frames("carol")
    carol.close()
    wait_for(lambda: waiting_lines(log) == 3, "and again")


def test_a_server_that_stops_does_not_say_that_it_waits(room: Room, log: io.StringIO) -> None:
    alice = room.enter_frames("alice")
    room.enter("bob")
    assert room.stop()
    assert alice.rest() == ["C BYE the server is shutting down"]
    room.server._say_waiting()  # a reader that ends at this moment

    assert waiting_lines(log) == 1


@pytest.mark.parametrize(("sent", "told"), REFUSED.values(), ids=REFUSED)
def test_each_refusal_is_one_line_in_the_log_without_passwords_or_messages(
    room: Room, log: io.StringIO, sent: bytes, told: list[str]
) -> None:
    room.enter("bob")
    room.enter("carol")
    alice = room.enter_frames("alice", "verysecret")
    alice.say("a private thought")
    alice.send(sent)
    for _ in told:
        alice.frame()
    assert alice.until_fence() == []
    text = log.getvalue()
    (refusal,) = [line for line in text.splitlines() if line.startswith("[WARNING]")]
    assert "user=alice" in refusal
    assert f"code={told[-1].split()[2] if 'ERROR' in told[-1] else 'unknown_user'}" in refusal
    assert "verysecret" not in text
    assert "private thought" not in text


def test_what_is_typed_in_the_wrong_place_is_not_logged(room: Room, log: io.StringIO) -> None:
    stranger = room.frames_peer()
    for step in (c(""), d("hunter2"), c("my password is hunter2"), c("carol"), d("hunter2"), c("hunter2")):
        stranger.send(step)
    for step in (c("hunter2"), d("hunter2"), c("PM"), c("hunter2"), c("DM"), c("hunter2"), d("x"), c("CH hunter2")):
        stranger.send(step)
    stranger.until_fence()
    stranger.send(b"hunter2")
    assert stranger.rest()[-1] == BYE_UNREADABLE
    guesser = room.frames_peer()
    guesser.send(c("carol") + c("hunter22") * 3)
    assert guesser.rest()[-1] == "C BYE too many wrong passwords"
    assert log.getvalue().count("request refused") >= 10
    assert "hunter2" not in log.getvalue()


def test_a_history_in_the_middle_of_a_pour_is_whole_and_nothing_of_it_comes_again(room: Room) -> None:
    """It follows its number without a gap, and shows nothing that is still to come: a client can go on from there."""
    alice, bob = room.enter_frames("alice"), room.enter("bob")
    messages, histories, newest = 4_000, 0, 0
    block = b"".join(b'{"command":"PM","message":"%d"}\n' % number for number in range(1, messages + 1))
    pouring = threading.Thread(target=bob.send, args=(block,), name="bob pours")
    pouring.start()
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
        pouring.join()
    assert histories > 1
