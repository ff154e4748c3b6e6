"""The example of a client in C, docs/examples/frames_client.c: compiled, and run with pipes."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import struct
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from integration.client_process import ClientProcess
from integration.room import DEADLINE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from integration.room import Room

    # Starts the program: port, name.
    Start = Callable[..., "Person"]

SOURCE: Final = Path(__file__).parents[2] / "docs/examples/frames_client.c"
FLAGS: Final = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]
FRAME_MAX: Final = 65_536
HEADER: Final = 5
LEFT, LOST, USAGE, REFUSED = range(4)

PASSWORD: Final = "password:"
OPERATION: Final = "operation:"
RECIPIENT: Final = "recipient:"
MESSAGE: Final = "message:"
# What the server sends, and the question that follows.
PASSWORD_NEW: Final = ("[PASSWORD new]", PASSWORD)
PASSWORD_EXISTING: Final = ("[PASSWORD existing]", PASSWORD)
MESSAGE_DUE: Final = ("[READY]", MESSAGE)


class Person(ClientProcess):
    """The running program, which writes its errors elsewhere."""

    program = ()
    stderr = subprocess.PIPE

    def expect_online(self, *names: str) -> None:
        """The next line lists these users, in any order."""
        word, *listed = self.line().strip("[]").split()
        assert (word, sorted(listed)) == ("ONLINE", sorted(names))

    def ends(self, code: int) -> tuple[list[str], str]:
        """It exits with this code. Returns the remaining lines, and standard error."""
        lines = list(iter(self.line, ""))
        assert self._process.stderr is not None
        with self._process.stderr as stderr:
            errors = stderr.read().decode()
        assert self._process.wait(DEADLINE_SECONDS) == code, (lines, errors)
        return lines, errors


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The example, compiled as its head says, with every warning an error."""
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
    """Starts the program, and kills it after the test."""
    with ExitStack() as people:

        def start(port: int, name: str) -> Person:
            return people.enter_context(Person(program, "127.0.0.1", str(port), name))

        yield start


@pytest.fixture
def alice(room: Room, start: Start) -> Person:
    """The program, logged in as alice."""
    alice = start(room.server.port, "alice")
    alice.type("secret")
    alice.expect(*PASSWORD_NEW, "[WELCOME new]", OPERATION)
    return alice


# --- login ---


def test_new_name_is_registered_and_returns_with_its_password(room: Room, start: Start) -> None:
    """Operations may be typed in lower case."""
    for prompt, welcome, leave_word in (
        (PASSWORD_NEW, "[WELCOME new]", "EX"),
        (PASSWORD_EXISTING, "[WELCOME existing]", "ex"),
    ):
        alice = start(room.server.port, "alice")
        alice.expect(*prompt)
        alice.type("secret")
        alice.expect(welcome, OPERATION)
        alice.type(leave_word)
        assert alice.ends(LEFT) == (["[BYE]"], "")


def test_wrong_password_is_requested_again_up_to_three_times(room: Room, start: Start) -> None:
    room.enter("alice")
    alice = start(room.server.port, "alice")
    alice.type("", "wrong")
    alice.expect(*PASSWORD_EXISTING)
    assert alice.line().startswith("[ERROR bad_request ")
    alice.expect(PASSWORD, "[DENIED That is not the password of alice.]", PASSWORD)
    alice.type("secret")
    alice.expect("[WELCOME existing]", OPERATION)
    other = start(room.server.port, "alice")
    other.type(*["wrong"] * 4)
    lines, errors = other.ends(REFUSED)
    assert sum(line.startswith("[DENIED ") for line in lines) == 3
    assert errors == "frames_client: the connection has ended\n"


def test_exit_codes_have_their_reasons(open_room: Callable[..., Room], start: Start, program: str) -> None:
    room = open_room(login_seconds=1)
    lines, errors = start(room.server.port, "server").ends(REFUSED)
    assert lines == ["[ERROR bad_username The name server is reserved; choose another one.]"]
    assert errors == "frames_client: you were not let in\n"
    alice = start(room.server.port, "alice")
    alice.expect(*PASSWORD_NEW)
    lines, errors = alice.ends(REFUSED)
    assert [line.split()[0] for line in lines] == ["[ERROR", "[BYE"]
    assert errors == "frames_client: the connection has ended\n"
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # it does not listen, and keeps other tests from the port
        ended_early = start(unused.getsockname()[1], "alice").ends(LOST)
    assert ended_early == ([], "frames_client: can't reach the server\n")
    ended = subprocess.run([program], capture_output=True, timeout=DEADLINE_SECONDS, check=False)
    assert (ended.returncode, ended.stderr) == (USAGE, b"frames_client: expected arguments: HOST PORT USERNAME\n")


# --- operations ---


def test_operations_go_one_step_at_a_time(room: Room, alice: Person) -> None:
    """Messages are shown at every prompt, before the line is typed; half a line stays what it is."""
    bob, carol = room.enter("bob"), room.enter("carol")
    bob.say("at the operation")
    alice.expect("[PUBLIC 1] bob: at the operation")
    alice.type("P", end="")
    bob.say("in half a line")
    alice.expect("[PUBLIC 2] bob: in half a line")
    alice.type("M")
    alice.expect(*MESSAGE_DUE)
    alice.type("hello everybody, ä € 😀")
    alice.expect("[SENT 3]", OPERATION)
    message = bob.next("broadcast")
    assert (message["from"], message["id"], message["message"]) == ("alice", 3, "hello everybody, ä € 😀")
    alice.type("DM")
    alice.expect_online("alice", "bob", "carol")
    alice.expect(RECIPIENT)
    bob.say("at the recipient")
    alice.expect("[PUBLIC 4] bob: at the recipient")
    alice.type("bob")
    alice.expect(MESSAGE)
    bob.ask(command="DM", to="alice", message="at the message")
    alice.expect("[DIRECT 5] bob: at the message")
    alice.type("between us")
    alice.expect("[SENT 6]", OPERATION)
    assert bob.next("direct")["message"] == "between us"
    assert "between us" not in str(carol.until_fence())
    bob.ask(command="EX")
    bob.next("bye")
    alice.type("DM", "bob", "for later")
    alice.expect_online("alice", "carol")
    alice.expect(RECIPIENT, MESSAGE, "[STORED 7]", OPERATION)
    alice.type("DM", "nobody", "hello?")
    alice.expect_online("alice", "carol")
    alice.expect(RECIPIENT, MESSAGE, "[NOUSER nobody]", OPERATION)
    alice.type("CH 1", "USERS", "PING")
    alice.expect("[HISTORY 1]", "[DIRECT 7] alice: for later", OPERATION)
    alice.expect_online("alice", "carol")
    alice.expect(OPERATION, "[PONG]", OPERATION)


def test_rejected_operation_or_message_is_shown(alice: Person) -> None:
    """The next one is asked for, also after a message of the maximum frame size. A longer line ends it with 2."""
    for lines, code in (
        (["hello"], "unknown_command"),
        (["PM", ""], "empty_message"),
        (["PM", "x" * (FRAME_MAX - HEADER)], "too_long"),
    ):
        alice.type(*lines)
        if len(lines) == 2:
            alice.expect(*MESSAGE_DUE)
        assert alice.line().startswith(f"[ERROR {code} ")
        alice.expect(OPERATION)
    alice.type("PM", "hello")
    alice.expect(*MESSAGE_DUE, "[SENT 1]", OPERATION)
    alice.type("x" * (FRAME_MAX - HEADER + 1))
    assert alice.ends(USAGE) == ([], "frames_client: the line is longer than a frame\n")


def test_texts_of_others_are_whole_and_control_nothing(room: Room, alice: Person) -> None:
    bob, text = room.enter("bob"), "€" * 2_730
    bob.say("a\x1b[2Jb\x07c\rd\x00e\x7ff\ng\tä€😀")
    alice.expect("[PUBLIC 1] bob: a?[2Jb?c?d?e?f g?ä€😀")
    for number in range(2, 52):
        bob.say(text)
        alice.expect(f"[PUBLIC {number}] bob: {text}")
    alice.type("CH")
    alice.expect("[HISTORY 50]", *(f"[PUBLIC {number}] bob: {text}" for number in range(2, 52)), OPERATION)


def test_input_may_come_ahead_and_end_at_any_step(room: Room, start: Start) -> None:
    """Lines are used when their step comes, whatever they look like. The end of the input leaves."""
    watcher = room.enter("watcher")
    cases = {
        (): PASSWORD,
        ("secret",): OPERATION,
        ("secret", "PM"): MESSAGE,
        ("secret", "DM"): RECIPIENT,
        ("secret", "DM", "watcher"): MESSAGE,
        ("secret", "PM", "PM", "DM", "watcher", "EX", "CH"): OPERATION,
    }
    for typed, last in cases.items():
        alice = start(room.server.port, "alice")
        alice.type(*typed, end="")
        alice.end_input()
        lines, errors = alice.ends(LEFT)
        assert (lines[-1], errors) == (last, "")
    watcher.ask(command="CH")
    assert [said["message"] for said in watcher.next("history")["messages"]] == ["PM", "EX"]


def test_server_that_shuts_down_ends_it_with_1(room: Room, alice: Person) -> None:
    room.stop()
    assert alice.ends(LOST) == (["[BYE the server is shutting down]"], "frames_client: the connection has ended\n")


# --- a server played by hand ---


class Wire:
    """A server for one client, played by hand, frame by frame. Every read has a deadline."""

    def __init__(self, start: Start) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.settimeout(DEADLINE_SECONDS)
            self.alice: Person = start(listener.getsockname()[1], "alice")
            self.socket, _ = listener.accept()
        self.socket.settimeout(DEADLINE_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def gets(self, expected: bytes) -> None:
        """These bytes are the next."""
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
        self.alice.expect(*PASSWORD_NEW, "[WELCOME new]", OPERATION)


@pytest.fixture
def wire(start: Start) -> Iterator[Wire]:
    wire = Wire(start)
    with wire.socket:
        yield wire


HELLO: Final = b"D\0\0\0\x13PUBLIC bob 17 0\nhey"
HEY: Final = "[PUBLIC 17] bob: hey"


def test_answer_is_found_among_messages_and_unknown_commands(wire: Wire) -> None:
    """Byte by byte, and in a frame of the maximum size."""
    wire.log_in()
    wire.alice.type("PM")
    wire.gets(b"C\0\0\0\2PM")
    wire.send(HELLO, b"C\0\0\0\7WEATHER", b"C\0\0\0\0", *[bytes([byte]) for byte in HELLO + b"C\0\0\0\5READY"])
    wire.alice.expect(HEY, "[WEATHER]", "[]", HEY, *MESSAGE_DUE)
    wire.alice.type("x")
    wire.gets(b"D\0\0\0\1x")
    head = b"PUBLIC bob 17 0\n"
    text = b"x" * (FRAME_MAX - HEADER - len(head))
    longest = b"D" + (len(head) + len(text)).to_bytes(4, "big") + head + text
    wire.send(longest[:1_000], longest[1_000:] + b"C\0\0\0\7SENT 18" + HELLO)
    wire.alice.expect(f"[PUBLIC 17] bob: {text.decode()}", "[SENT 18]", OPERATION, HEY)


@pytest.mark.parametrize("rubbish", [b"X\0\0\0\1x", b"C\0\0\xff\xfc", b"HTTP/1.1 400"], ids=["type", "length", "text"])
def test_bytes_that_are_no_frame_end_it_with_1(wire: Wire, rubbish: bytes) -> None:
    wire.send(rubbish)
    assert wire.alice.ends(LOST) == ([], "frames_client: the server sent something that is no frame\n")


def test_lost_connection_ends_it_with_1_or_after_a_denial_with_3(start: Start) -> None:
    ended = "frames_client: the connection has ended\n"
    for half in (b"", b"D\0", b"D\0\0\0\x13PUBLIC"):
        wire = Wire(start)
        wire.log_in()
        wire.send(half)
        wire.socket.close()
        assert wire.alice.ends(LOST) == ([], ended)
    wire = Wire(start)
    wire.gets(b"C\0\0\0\5alice")
    wire.send(b"C\0\0\0\x11PASSWORD existing")
    wire.alice.type("wrong")
    wire.gets(b"C\0\0\0\5wrong")
    wire.send(b"C\0\0\0\x09DENIED no")
    wire.alice.expect(*PASSWORD_EXISTING, "[DENIED no]", PASSWORD)
    wire.socket.close()
    assert wire.alice.ends(REFUSED) == ([], ended)


def test_messages_before_a_reset_are_shown(wire: Wire) -> None:
    """The client is paused, and its next write fails."""
    wire.log_in()
    wire.alice.type("PM", "hello")
    wire.gets(b"C\0\0\0\2PM")
    pid = wire.alice.pid
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
