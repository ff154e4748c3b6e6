"""The example of a client in C, docs/examples/frames_client.c: compiled, and used by people who type."""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from integration.room import Peer, Room

    # Somebody with the program at a port, under a name.
    Start = Callable[..., "Person"]

SOURCE: Final = Path(__file__).parents[2] / "docs/examples/frames_client.c"
FLAGS: Final = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]
DEADLINE_SECONDS: Final = 20.0
FRAME_MAX: Final = 65_536
HEADER: Final = 5
LEFT, LOST, USAGE, REFUSED = range(4)

PASSWORD: Final = "password:"
OPERATION: Final = "operation:"
RECIPIENT: Final = "recipient:"
MESSAGE: Final = "message:"
# Where a line is asked for, behind what the server said.
PASSWORD_NEW: Final = ("[PASSWORD new]", PASSWORD)
PASSWORD_EXISTING: Final = ("[PASSWORD existing]", PASSWORD)
MESSAGE_DUE: Final = ("[READY]", MESSAGE)


class Person:
    """Somebody at the program: types lines, and reads what it prints. Every read has a deadline."""

    def __init__(self, *command: str) -> None:
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe)
        self._buffer = b""

    def type(self, *lines: str, end: str = "\n") -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(("\n".join(lines) + end).encode())
        self.process.stdin.flush()

    def type_no_more(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.stdin = None  # communicate() would flush it

    def line(self) -> str:
        """The next line; fails when there is none."""
        until = time.monotonic() + DEADLINE_SECONDS
        while b"\n" not in self._buffer:
            if not self._read(until):
                pytest.fail(f"the output ended with {self._buffer!r} where a line was waited for")
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode()

    def _read(self, until: float) -> bool:
        """More of the output; false at its end."""
        assert self.process.stdout is not None
        left_seconds = until - time.monotonic()
        if left_seconds < 0 or not select.select([self.process.stdout], [], [], left_seconds)[0]:
            pytest.fail(f"it did not come within {DEADLINE_SECONDS} s; the last that came: {self._buffer[-1_000:]!r}")
        data = os.read(self.process.stdout.fileno(), FRAME_MAX)
        self._buffer += data
        return bool(data)

    def sees(self, *lines: str) -> None:
        """These are the next lines, and nothing stands between them."""
        assert [self.line() for _ in lines] == list(lines)

    def sees_online(self, *names: str) -> None:
        """They are listed, in whatever order."""
        word, *listed = self.line().strip("[]").split()
        assert (word, sorted(listed)) == ("ONLINE", sorted(names))

    def ends(self, code: int) -> tuple[list[str], str]:
        """It ends with this code, while its input is open; what it printed before, and to standard error."""
        until = time.monotonic() + DEADLINE_SECONDS
        while self._read(until):
            pass
        assert self.process.stderr is not None
        errors = self.process.stderr.read().decode()
        assert self.process.wait(DEADLINE_SECONDS) == code, (self._buffer, errors)
        return self._buffer.decode().splitlines(), errors

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The example, compiled as its head says, and with every warning an error."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip(f"there is no C compiler (cc or gcc) for {SOURCE.name}")
    path = str(tmp_path_factory.mktemp("example") / "frames_client")
    compiled = subprocess.run(
        [compiler, *FLAGS, "-o", path, str(SOURCE)], capture_output=True, text=True, timeout=100, check=False
    )
    assert (compiled.returncode, compiled.stderr) == (0, "")
    return path


@pytest.fixture
def start(program: str) -> Iterator[Start]:
    """Starts the program, and ends it after the test."""
    with ExitStack() as people:

        def start(port: int, name: str) -> Person:
            person = Person(program, "127.0.0.1", str(port), name)
            people.callback(person.close)
            return person

        yield start


@pytest.fixture
def alice(room: Room, start: Start) -> Person:
    """Somebody who has come into the room with the program, and may choose an operation."""
    alice = start(room.server.port, "alice")
    alice.type("secret")
    alice.sees(*PASSWORD_NEW, "[WELCOME new]", OPERATION)
    return alice


# --- coming in ---


def test_a_new_name_is_registered_and_comes_back_with_its_password(room: Room, start: Start) -> None:
    for prompt, welcome in ((PASSWORD_NEW, "[WELCOME new]"), (PASSWORD_EXISTING, "[WELCOME existing]")):
        alice = start(room.server.port, "alice")
        alice.sees(*prompt)
        alice.type("secret")
        alice.sees(welcome, OPERATION)
        alice.type("EX")
        assert alice.ends(LEFT) == (["[BYE]"], "")


def test_a_wrong_password_is_asked_for_again_and_the_right_one_lets_in(room: Room, start: Start) -> None:
    room.enter("alice")
    alice = start(room.server.port, "alice")
    alice.type("wrong")
    alice.sees(*PASSWORD_EXISTING, "[DENIED That is not the password of alice.]", PASSWORD)
    alice.type("secret")
    alice.sees("[WELCOME existing]", OPERATION)
    room.stop()
    alice.ends(LOST)


def test_an_empty_password_is_asked_for_again(room: Room, start: Start) -> None:
    alice = start(room.server.port, "alice")
    alice.type("", "secret")
    alice.sees(*PASSWORD_NEW)
    assert alice.line().startswith("[ERROR bad_request ")
    alice.sees(PASSWORD, "[WELCOME new]")


@pytest.mark.parametrize("more", [0, 1], ids=["nothing is typed after it", "a fourth one lies ready"])
def test_the_third_wrong_password_ends_it_with_3(room: Room, start: Start, more: int) -> None:
    room.enter("alice")
    alice = start(room.server.port, "alice")
    alice.type(*["wrong"] * (3 + more))
    lines, errors = alice.ends(REFUSED)
    assert sum(line.startswith("[DENIED ") for line in lines) == 3
    assert errors == "frames_client: the connection has ended\n"


def test_a_name_that_can_not_be_ends_it_with_3(room: Room, start: Start) -> None:
    lines, errors = start(room.server.port, "server").ends(REFUSED)
    assert lines == ["[ERROR bad_username The name server is reserved; choose another one.]"]
    assert errors == "frames_client: you were not let in\n"


def test_who_gives_no_password_in_time_is_not_let_in(open_room: Callable[..., Room], start: Start) -> None:
    alice = start(open_room(login_seconds=1).server.port, "alice")
    alice.sees(*PASSWORD_NEW)
    lines, errors = alice.ends(REFUSED)
    assert lines == ["[ERROR not_logged_in Nobody logged in within 1 s of connecting.]", "[BYE not logged in]"]
    assert errors == "frames_client: the connection has ended\n"


def test_what_was_said_to_somebody_who_was_away_comes_with_the_welcome(room: Room, start: Start) -> None:
    alice, bob = room.enter("alice"), room.enter("bob")
    leave(alice)
    bob.ask(command="DM", to="alice", message="are you there?")
    assert bob.next("sent")["status"] == "stored"
    back = start(room.server.port, "alice")
    back.type("secret")
    back.sees(*PASSWORD_EXISTING, "[WELCOME existing]", OPERATION, "[DIRECT 1] bob: are you there?")


def leave(peer: Peer) -> None:
    """And wait until the server has noticed."""
    peer.ask(command="EX")
    peer.next("bye")


# --- the operations ---


def test_a_public_message_reaches_a_client_of_another_dialect(room: Room, alice: Person) -> None:
    bob = room.enter("bob")
    alice.type("PM")
    alice.sees(*MESSAGE_DUE)
    alice.type("hello everybody, ä € 😀")
    alice.sees("[SENT 1]", OPERATION)
    message = bob.next("broadcast")
    assert (message["from"], message["id"], message["message"]) == ("alice", 1, "hello everybody, ä € 😀")


def test_a_direct_message_shows_who_is_online_and_reaches_one_user(room: Room, alice: Person) -> None:
    bob, carol = room.enter("bob"), room.enter("carol")
    alice.type("DM")
    alice.sees_online("alice", "bob", "carol")
    alice.sees(RECIPIENT)
    alice.type("bob")
    alice.sees(MESSAGE)
    alice.type("between us")
    alice.sees("[SENT 1]", OPERATION)
    message = bob.next("direct")
    assert (message["from"], message["to"], message["message"]) == ("alice", "bob", "between us")
    assert "between us" not in str(carol.until_fence())


def test_a_direct_message_to_a_user_who_is_away_is_stored(room: Room, alice: Person) -> None:
    leave(room.enter("bob"))
    alice.type("DM", "bob", "for later")
    alice.sees("[ONLINE alice]", RECIPIENT, MESSAGE, "[STORED 1]", OPERATION)
    assert room.enter("bob").next("direct")["message"] == "for later"


def test_a_direct_message_to_nobody_is_said_to_be_one(alice: Person) -> None:
    alice.type("DM", "nobody", "hello?")
    alice.sees("[ONLINE alice]", RECIPIENT, MESSAGE, "[NOUSER nobody]", OPERATION)


def test_the_history_has_what_was_said_before_in_its_order(room: Room, start: Start) -> None:
    bob, carol = room.enter("bob"), room.enter("carol")
    bob.say("first")
    carol.say("second\nof two lines")
    alice = start(room.server.port, "alice")
    alice.type("secret", "PM", "third", "CH")
    alice.sees(*PASSWORD_NEW, "[WELCOME new]", OPERATION, *MESSAGE_DUE, "[SENT 3]", OPERATION)
    alice.sees("[HISTORY 3]", "[PUBLIC 1] bob: first", "[PUBLIC 2] carol: second of two lines")
    alice.sees("[PUBLIC 3] alice: third", OPERATION)


def test_a_history_of_nothing_is_one_line(alice: Person) -> None:
    alice.type("CH")
    alice.sees("[HISTORY 0]", OPERATION)


def test_operations_may_be_typed_in_any_case(alice: Person) -> None:
    alice.type("pm", "hi", "ex")
    alice.sees(*MESSAGE_DUE, "[SENT 1]", OPERATION)
    assert alice.ends(LEFT) == (["[BYE]"], "")


def test_an_operation_that_the_server_does_not_know_is_refused(alice: Person) -> None:
    alice.type("hello", "PM", "hi")
    assert alice.line().startswith("[ERROR unknown_command ")
    alice.sees(OPERATION, *MESSAGE_DUE, "[SENT 1]", OPERATION)


def test_operations_of_this_server_alone_can_be_used_too(alice: Person) -> None:
    alice.type("PM", "first", "PM", "second", "CH 1", "USERS", "PING", "EX")
    alice.sees(*MESSAGE_DUE, "[SENT 1]", OPERATION, *MESSAGE_DUE, "[SENT 2]", OPERATION)
    alice.sees("[HISTORY 1]", "[PUBLIC 2] alice: second", OPERATION)
    alice.sees("[ONLINE alice]", OPERATION, "[PONG]", OPERATION)
    assert alice.ends(LEFT) == (["[BYE]"], "")


def test_the_other_words_for_the_operations_can_be_chosen(room: Room, start: Start) -> None:
    bob = room.enter("bob")
    alice = start(room.server.port, "alice bm-pm")
    alice.type("secret", "BM", "to all", "PM", "bob", "to bob")
    alice.sees(*PASSWORD_NEW, "[WELCOME new]", OPERATION, *MESSAGE_DUE, "[SENT 1]", OPERATION)
    alice.sees_online("alice", "bob")
    alice.sees(RECIPIENT, MESSAGE, "[SENT 2]", OPERATION)
    assert bob.next("broadcast")["message"] == "to all"
    assert bob.next("direct")["message"] == "to bob"


def test_a_message_that_is_refused_ends_its_dialogue_only(alice: Person) -> None:
    alice.type("PM", "", "PM", "hello")
    alice.sees(*MESSAGE_DUE)
    assert alice.line().startswith("[ERROR empty_message ")
    alice.sees(OPERATION, *MESSAGE_DUE, "[SENT 1]", OPERATION)


# --- what arrives ---


def test_a_message_is_shown_at_every_prompt_before_anything_is_typed(room: Room, alice: Person) -> None:
    bob = room.enter("bob")
    bob.say("at the operation")
    alice.sees("[PUBLIC 1] bob: at the operation")
    alice.type("DM")
    alice.sees_online("alice", "bob")
    alice.sees(RECIPIENT)
    bob.say("at the recipient")
    alice.sees("[PUBLIC 2] bob: at the recipient")
    alice.type("bob")
    alice.sees(MESSAGE)
    bob.ask(command="DM", to="alice", message="at the message")
    alice.sees("[DIRECT 3] bob: at the message")
    alice.type("and the dialogue goes on")
    alice.sees("[SENT 4]", OPERATION)
    assert bob.next("direct")["message"] == "and the dialogue goes on"


def test_half_a_line_stays_what_it_is_while_messages_arrive(room: Room, alice: Person) -> None:
    bob = room.enter("bob")
    alice.type("P", end="")
    bob.say("hello")
    alice.sees("[PUBLIC 1] bob: hello")
    alice.type("M")
    alice.sees(*MESSAGE_DUE)


def test_control_characters_of_others_do_nothing_to_the_terminal(room: Room, alice: Person) -> None:
    room.enter("bob").say("a\x1b[2Jb\x07c\rd\x00e\x7ff\ng\tä€😀")
    alice.sees("[PUBLIC 1] bob: a?[2Jb?c?d?e?f g?ä€😀")


def test_long_messages_are_whole(room: Room, alice: Person) -> None:
    """The longest ones that there are, many of them at once."""
    bob, text = room.enter("bob"), "€" * 2_730
    for number in range(1, 51):
        bob.say(text)
        alice.sees(f"[PUBLIC {number}] bob: {text}")
    alice.type("PM", text, "CH")
    alice.sees(*MESSAGE_DUE, "[SENT 51]", OPERATION, "[HISTORY 50]")
    assert bob.next("broadcast")["message"] == text
    assert [alice.line() for _ in range(50)] == [
        *(f"[PUBLIC {number}] bob: {text}" for number in range(2, 51)),
        f"[PUBLIC 51] alice: {text}",
    ]


def test_a_message_that_is_too_long_is_refused_and_the_next_one_is_sent(room: Room, alice: Person) -> None:
    bob = room.enter("bob")
    alice.type("PM", "x" * (FRAME_MAX - HEADER), "PM", "short")
    alice.sees(*MESSAGE_DUE)
    assert alice.line().startswith("[ERROR too_long ")
    alice.sees(OPERATION, *MESSAGE_DUE, "[SENT 1]", OPERATION)
    assert bob.next("broadcast")["message"] == "short"


# --- the end ---


def test_lines_that_come_ahead_are_used_when_their_step_is_due(room: Room, start: Start) -> None:
    leave(room.enter("bob"))
    alice = start(room.server.port, "alice")
    alice.type("secret", "PM", "PM", "DM", "bob", "EX", "CH", "EX", end="")
    alice.type_no_more()
    lines, errors = alice.ends(LEFT)
    steps = [*PASSWORD_NEW, "[WELCOME new]", OPERATION, *MESSAGE_DUE, "[SENT 1]"]
    steps += [OPERATION, "[ONLINE alice]", RECIPIENT, MESSAGE, "[STORED 2]"]
    steps += [OPERATION, "[HISTORY 2]", "[PUBLIC 1] alice: PM", "[DIRECT 2] alice: EX"]
    assert (lines, errors) == ([*steps, OPERATION, "[BYE]"], "")


@pytest.mark.parametrize(
    ("typed", "last"),
    [
        ([], PASSWORD),
        (["secret"], OPERATION),
        (["secret", "PM"], MESSAGE),
        (["secret", "DM"], RECIPIENT),
        (["secret", "DM", "bob"], MESSAGE),
        (["secret", "PM", "hello"], OPERATION),
    ],
    ids=["the password", "an operation", "the public message", "the recipient", "the direct message", "another one"],
)
def test_the_input_ends_where_this_is_due_and_it_leaves(room: Room, start: Start, typed: list[str], last: str) -> None:
    bob = room.enter("bob")
    alice = start(room.server.port, "alice")
    alice.type(*typed, end="")
    alice.type_no_more()
    lines, errors = alice.ends(LEFT)
    assert (lines[-1], errors) == (last, "")
    bob.ask(command="CH")
    assert [said["message"] for said in bob.next("history")["messages"]] == ["hello"] * ("hello" in typed)


def test_a_server_that_shuts_down_is_told_and_ends_it_with_1(room: Room, alice: Person) -> None:
    room.stop()
    assert alice.ends(LOST) == (
        ["[BYE the server is shutting down]"],
        "frames_client: the connection has ended\n",
    )


def test_no_server_ends_it_with_1(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert start(port, "alice").ends(LOST) == ([], "frames_client: can't reach the server\n")


def test_wrong_arguments_end_it_with_2(program: str) -> None:
    ended = subprocess.run([program], capture_output=True, timeout=DEADLINE_SECONDS, check=False)
    assert (ended.returncode, ended.stderr) == (USAGE, b"frames_client: expected arguments: HOST PORT USERNAME\n")


def test_a_line_that_no_frame_can_hold_ends_it_with_2(alice: Person) -> None:
    alice.type("x" * (FRAME_MAX - HEADER + 1))
    assert alice.ends(USAGE) == ([], "frames_client: the line is longer than a frame\n")


# --- servers of other manners ---


class Wire:
    """A server that is played by hand, frame by frame, for one client. Every read has a deadline."""

    def __init__(self, start: Start) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.settimeout(DEADLINE_SECONDS)
            self.alice: Person = start(listener.getsockname()[1], "alice")
            self.socket, _ = listener.accept()
        self.socket.settimeout(DEADLINE_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def gets(self, expected: bytes) -> None:
        """This comes next; the last byte that was asked for is the last one that there is."""
        data = b""
        while len(data) < len(expected) and (piece := self.socket.recv(len(expected) - len(data))):
            data += piece
        assert data == expected

    def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.socket.sendall(piece)

    def log_in(self) -> None:
        self.gets(b"C\0\0\0\5alice")
        self.send(b"C\0\0\0\x0cPASSWORD new")
        self.alice.type("secret")
        self.gets(b"C\0\0\0\6secret")
        self.send(b"C\0\0\0\x0bWELCOME new")
        self.alice.sees(*PASSWORD_NEW, "[WELCOME new]", OPERATION)


@pytest.fixture
def wire(start: Start) -> Iterator[Wire]:
    wire = Wire(start)
    with wire.socket:
        yield wire


HELLO: Final = b"D\0\0\0\x13PUBLIC bob 17 0\nhey"
HEY: Final = "[PUBLIC 17] bob: hey"


def test_messages_between_a_step_and_its_answer_are_shown_and_the_answer_is_waited_for(wire: Wire) -> None:
    wire.log_in()
    wire.alice.type("PM")
    wire.gets(b"C\0\0\0\2PM")
    wire.send(HELLO, HELLO)
    wire.alice.sees(HEY, HEY)
    wire.send(b"C\0\0\0\5READY")
    wire.alice.sees(*MESSAGE_DUE)
    wire.alice.type("x")
    wire.gets(b"D\0\0\0\1x")
    wire.send(HELLO + b"C\0\0\0\7SENT 18" + HELLO)
    wire.alice.sees(HEY, "[SENT 18]", OPERATION, HEY)


def test_frames_may_come_byte_by_byte(wire: Wire) -> None:
    wire.log_in()
    wire.alice.type("CH")
    wire.gets(b"C\0\0\0\2CH")
    answer = b"C\0\0\0\x09HISTORY 2" + HELLO + HELLO
    for byte in answer:
        wire.send(bytes([byte]))
    wire.alice.sees("[HISTORY 2]", HEY, HEY, OPERATION)


def test_a_frame_may_be_as_long_as_a_frame_can_be(wire: Wire) -> None:
    wire.log_in()
    head = b"PUBLIC bob 17 0\n"
    text = b"x" * (FRAME_MAX - HEADER - len(head))
    frame = b"D" + (len(head) + len(text)).to_bytes(4, "big") + head + text
    wire.send(frame[:1_000], frame[1_000:] + HELLO)
    wire.alice.sees(f"[PUBLIC 17] bob: {text.decode()}", HEY)


def test_commands_that_it_does_not_know_are_shown_and_passed_over(wire: Wire) -> None:
    wire.log_in()
    wire.alice.type("PM")
    wire.gets(b"C\0\0\0\2PM")
    wire.send(b"C\0\0\0\7WEATHER", b"C\0\0\0\0", b"C\0\0\0\5READY")
    wire.alice.sees("[WEATHER]", "[]", *MESSAGE_DUE)


@pytest.mark.parametrize("rubbish", [b"X\0\0\0\1x", b"C\0\0\xff\xfc", b"HTTP/1.1 400"], ids=["type", "length", "text"])
def test_what_is_no_frame_ends_it_with_1(wire: Wire, rubbish: bytes) -> None:
    wire.send(rubbish)
    assert wire.alice.ends(LOST) == ([], "frames_client: the server sent something that is no frame\n")


@pytest.mark.parametrize("half", [b"", b"D\0", b"D\0\0\0\x13PUBLIC"], ids=["frames", "its head", "its payload"])
def test_a_connection_that_breaks_after_this_is_lost(wire: Wire, half: bytes) -> None:
    wire.log_in()
    wire.send(half)
    wire.socket.close()
    assert wire.alice.ends(LOST) == ([], "frames_client: the connection has ended\n")


def test_who_was_denied_and_is_cut_off_was_not_let_in(wire: Wire) -> None:
    wire.gets(b"C\0\0\0\5alice")
    wire.send(b"C\0\0\0\x11PASSWORD existing")
    wire.alice.type("wrong")
    wire.gets(b"C\0\0\0\5wrong")
    wire.send(b"C\0\0\0\x09DENIED no")
    wire.alice.sees(*PASSWORD_EXISTING, "[DENIED no]", PASSWORD)
    wire.socket.close()
    assert wire.alice.ends(REFUSED) == ([], "frames_client: the connection has ended\n")


def test_what_was_said_before_the_connection_broke_is_shown_when_a_step_fails(wire: Wire) -> None:
    """It sleeps through the end, and then writes to a connection that is gone. Before it has read its line, it has not
    read so many messages."""
    wire.log_in()
    wire.alice.type("PM", "hello")
    wire.gets(b"C\0\0\0\2PM")
    pid = wire.alice.process.pid
    os.kill(pid, signal.SIGSTOP)
    os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOWAIT)
    wire.send(b"C\0\0\0\5READY" + 20 * HELLO + b"C\0\0\0\x0aBYE enough")
    wire.socket.shutdown(socket.SHUT_WR)
    wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wire.socket.close()  # not politely: with a reset
    os.kill(pid, signal.SIGCONT)
    assert wire.alice.ends(LOST) == (
        [*MESSAGE_DUE, *[HEY] * 20, "[BYE enough]"],
        "frames_client: the connection has ended\n",
    )
