"""The example of a client in C, docs/examples/frames_client.c: compiled, and run with pipes."""

from __future__ import annotations

import shutil
import socket
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
# Commands of the server, each with the question that follows.
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
    room = open_room()
    lines, errors = start(room.server.port, "server").ends(REFUSED)
    assert lines == ["[ERROR bad_username The name server is reserved; choose another one.]"]
    assert errors == "frames_client: you were not let in\n"
    room.close()
    room = open_room(login_seconds=2)
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
    bob.say("a\x1b[2Jb\x07c\rd\x00e\x7ff\ng\tä€😀\x9b2J\u00a0")
    alice.expect("[PUBLIC 1] bob: a?[2Jb?c?d?e?f g?ä€😀??2J\u00a0")
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
