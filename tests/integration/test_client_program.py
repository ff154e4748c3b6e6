"""The program ``chatclient`` against servers that misbehave, and its exit codes."""

from __future__ import annotations

import fcntl
import os
import re
import select
import selectors
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest
from integration.room import (
    DEADLINE_SECONDS,
    MALFORMED,
    NOT_REGISTERED,
    NOT_SENT,
    Peer,
    deadline,
    message_to,
    sent,
    wait_for,
)
from reliability.program import Program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from integration.room import Room

WELCOME = b'{"type":"login","status":"ok","account":"new","username":"alice","users":["alice"],"last_id":0}\n'


def run(port: int, *arguments: str, typed: str = "", **settings: str) -> subprocess.CompletedProcess[str]:
    """Play the client to its end."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("CHAT_")}
    return subprocess.run(
        [sys.executable, "-m", "chatclient", "127.0.0.1", str(port), "alice", *arguments],
        env={**inherited, **settings},
        input=typed,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@contextmanager
def serving(answer: Callable[[socket.socket], None]) -> Iterator[tuple[int, list[int]]]:
    """A server that treats each connection so, and closes it; its port, and how many have come."""
    count = [0]
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                count[0] += 1
                with connection:
                    answer(connection)

        thread = threading.Thread(target=serve, name="a server that misbehaves")
        thread.start()
        try:
            yield listening.getsockname()[1], count
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


def _has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(not _has_ipv6(), reason="this machine has no IPv6")
def test_a_session_over_ipv6(tmp_path: Path) -> None:
    with Program(tmp_path, "--host", "[::1]") as server:
        whole = f"[::1]:{server.port}"
        for words in (("::1", f"{server.port}", "alice"), (whole, "alice"), ("-hn", whole, "alice", "--udp")):
            ended = subprocess.run(
                [sys.executable, "-m", "chatclient", *words],
                env={**os.environ, "CHAT_PASSWORD": "x"},
                input="PM hello\n",
                capture_output=True,
                text=True,
                timeout=30,
                check=False,
            )
            assert (ended.returncode, ended.stderr) == (0, "")
            assert "[sent #" in ended.stdout
        logins = [line for line in server.log().splitlines() if line.startswith("[INFO] login ")]
        assert ["@::1 " in line for line in logins] == [True] * 3


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "script"
    path.write_text("%wait 10 never said\n")
    return path


def test_two_interrupts_end_it_also_when_nobody_takes_its_output(room: Room) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "chatclient", "127.0.0.1", str(room.server.port), "carl"],
        env={**os.environ, "CHAT_PASSWORD": "x"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.read(9) == b"[welcome "
        process.stdin.write(b"/help\n" * 500)
        process.stdin.flush()
        _wait_until_full(process.stdout.fileno())
        for _ in range(2):
            process.send_signal(signal.SIGINT)
            time.sleep(0.2)  # two that come together are one
        assert process.wait(4) == 1
        assert process.stderr is not None
        assert b"the output is not read" in process.stderr.read()


def _wait_until_full(descriptor: int) -> None:
    """Until a pipe takes no more, or nobody writes to it."""
    held = -1
    while (holds := struct.unpack("i", fcntl.ioctl(descriptor, termios.FIONREAD, b"\0" * 4))[0]) != held or not held:
        held = holds
        time.sleep(0.3)


def _make_env_folder(path: Path) -> None:
    (path / "bin").mkdir(parents=True)


def _make_env_latin(path: Path) -> None:
    path.write_bytes("NAME=Jürgen\n".encode("latin-1"))


def _make_env_foreign(path: Path) -> None:
    path.write_text("if true; then\n  echo 'hello\nfi\n")


def _make_env_large(path: Path) -> None:
    path.write_text("A=b\n" * 50_000)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (_make_env_folder, "it is not a file of at most 65,536 bytes"),
        (os.mkfifo, "it is not a file of at most 65,536 bytes"),
        (_make_env_large, "it is not a file of at most 65,536 bytes"),
        (_make_env_latin, "it is not text in UTF-8"),
        (_make_env_foreign, "line 1 is not NAME=VALUE"),
    ],
)
def test_a_foreign_env_file_is_passed_over(tmp_path: Path, make: Callable[[Path], None], why: str) -> None:
    make(tmp_path / ".env")

    ended = subprocess.run(
        [sys.executable, "-m", "chatclient", "--version"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert (ended.returncode, ended.stderr) == (0, f"chatclient: The file .env in this folder is not used; {why}.\n")


def test_a_byte_order_mark_is_no_part_of_what_is_read(room: Room, tmp_path: Path) -> None:
    mark = b"\xef\xbb\xbf"
    (tmp_path / "password").write_bytes(mark + b"secret\r\n")
    (tmp_path / "script").write_bytes(mark + b"PM from a script\n")

    script = run(room.server.port, "--password-file", str(tmp_path / "password"), "--script", str(tmp_path / "script"))
    piped = run(room.server.port, typed="\ufeffPM from a pipe\nCH 3\n", CHAT_PASSWORD="secret")

    assert (script.returncode, piped.returncode) == (0, 0)
    texts = [line.partition("alice: ")[2] for line in piped.stdout.splitlines() if line.startswith("[history #")]
    assert texts[-2:] == ["from a script", "from a pipe"]


def test_a_script_that_finds_no_server_ends_with_1(script: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    ended = run(port, "--script", str(script), CHAT_PASSWORD="x")
    assert (ended.returncode, ended.stderr) == (1, "")
    assert "'never said' did not appear before the client ended" in ended.stdout


def test_a_setting_that_is_misspelt_is_told(room: Room, script: Path) -> None:
    script.write_text("EX\n")
    ended = run(room.server.port, "--script", str(script), CHAT_PASSWORD="x", CHAT_DIALEKT="frames", CHAT_GUESTS="off")
    assert ended.returncode == 0
    assert ended.stderr == (
        "chatclient: the variable CHAT_DIALEKT is no setting and is ignored; did you mean CHAT_DIALECT?\n"
    )


def test_a_script_whose_login_is_refused_ends_with_3(room: Room, script: Path) -> None:
    room.enter("alice")
    ended = run(room.server.port, "--script", str(script), CHAT_PASSWORD="wrong")
    assert ended.returncode == 3


def test_a_script_that_waits_in_vain_before_the_login_ends_with_4_too(room: Room, tmp_path: Path) -> None:
    """It waits for a line that the client does not say while it asks for the password."""
    script = tmp_path / "script"
    script.write_text("%wait 0.1 never said\n")
    ended = run(room.server.port, "--script", str(script))
    assert ended.returncode == 4, ended.stdout


def test_a_script_that_waits_in_vain_says_where_and_ends_with_4(room: Room, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("# nothing\nPM hello\n%wait 0.1 never said\n")
    ended = run(room.server.port, "--script", str(script), CHAT_PASSWORD="x")
    assert ended.returncode == 4
    assert "[error script] line 3: 'never said' did not appear within 0.1 s" in ended.stdout


def test_a_password_in_a_script_is_not_shown(room: Room, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("very secret\nPM hello\n")
    ended = run(room.server.port, "--script", str(script))
    assert ended.returncode == 0
    assert "> ***\n" in ended.stdout
    assert "> PM hello\n" in ended.stdout
    assert "very secret" not in ended.stdout


def test_a_server_that_accepts_and_serves_nobody_is_given_up() -> None:
    """A proxy without a server behind it takes connections and closes them."""
    answers = iter([WELCOME])

    def answer(connection: socket.socket) -> None:
        connection.recv(4_096)  # the login: closing over it would destroy the answer
        connection.sendall(next(answers, b""))

    with (
        serving(answer) as (port, count),
        subprocess.Popen(
            [sys.executable, "-m", "chatclient", "127.0.0.1", str(port), "alice", "--retry-seconds", "1"],
            env={**os.environ, "CHAT_PASSWORD": "x"},
            stdin=subprocess.PIPE,  # stays open: somebody sits there and waits
            stdout=subprocess.PIPE,
        ) as client,
    ):
        try:
            assert client.wait(15) == 1
        finally:
            client.kill()
        assert 2 <= count[0] < 12


@pytest.mark.parametrize(
    "rubbish",
    [b"no json\n", b"[" * 100_000 + b"\n", b'{"type":"login"}\n', b'{"type":"broadcast","id":"x"}\n', b"\xff\xfe\n"],
)
def test_a_server_that_makes_no_sense_is_given_up_with_one_line(rubbish: bytes) -> None:
    def answer(connection: socket.socket) -> None:
        connection.recv(4_096)
        connection.sendall(rubbish)

    with serving(answer) as (port, _):
        ended = run(port, CHAT_PASSWORD="x")
    assert (ended.returncode, ended.stderr) == (1, "")
    assert ended.stdout.count("\n") == 1
    assert ended.stdout.startswith("[error lost] ")


def test_a_closed_input_is_the_end_of_the_input(room: Room) -> None:
    command = f"'{sys.executable}' -m chatclient 127.0.0.1 {room.server.port} alice <&-"
    ended = subprocess.run(
        ["sh", "-c", command], env={**os.environ, "CHAT_PASSWORD": "x"}, capture_output=True, check=False, timeout=30
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == b""


def test_an_output_that_is_full_is_one_line(room: Room) -> None:
    command = f"'{sys.executable}' -m chatclient 127.0.0.1 {room.server.port} alice >/dev/full"
    ended = subprocess.run(
        ["sh", "-c", command],
        env={**os.environ, "CHAT_PASSWORD": "x"},
        input="PM hello\n",
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert ended.returncode == 1
    assert ended.stderr == "chatclient: can't write the output: No space left on device\n"


def test_a_reader_that_goes_away_is_no_traceback(room: Room) -> None:
    client = f"'{sys.executable}' -m chatclient 127.0.0.1 {room.server.port} alice"
    command = f"printf 'PM 1\\nPM 2\\nPM 3\\n' | {client} | head -1"
    ended = subprocess.run(
        ["sh", "-c", command],
        env={**os.environ, "CHAT_PASSWORD": "x"},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert ended.stdout.startswith("[welcome new] alice")
    assert ended.stderr == ""


def test_a_million_bytes_of_input_are_all_said_in_order(room: Room) -> None:
    lines = [f"PM {number} {'x' * 200}" for number in range(5_000)]
    ended = run(room.server.port, typed="\n".join(lines), CHAT_PASSWORD="x")
    assert ended.returncode == 0
    assert ended.stdout.count("[sent #") == 5_000
    late = room.peer()
    late.login("bob", since=0)
    assert [late.next("broadcast")["message"].split()[0] for _ in range(5_000)] == [str(n) for n in range(5_000)]


def test_a_signal_while_a_confirmation_is_waited_for_leaves_and_says_what_is_lost() -> None:
    """The input has ended: nobody types, and the program would have ended by itself."""
    has_said = threading.Event()

    def answer(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(WELCOME)
        said = b""
        while b'"EX"' not in said:
            said += connection.recv(4096)
            if b'"PM"' in said:
                has_said.set()
        # The first one is that of the end of the input.
        while said.count(b'"EX"') < 2:
            said += connection.recv(4096)
        connection.sendall(b'{"type":"bye","reason":"you left"}\n')

    with (
        serving(answer) as (port, _),
        subprocess.Popen(
            [sys.executable, "-m", "chatclient", "127.0.0.1", str(port), "alice"],
            env={**os.environ, "CHAT_PASSWORD": "secret"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as client,
    ):
        assert client.stdin is not None
        client.stdin.write("PM hello\n")
        client.stdin.close()
        assert has_said.wait(10)
        client.send_signal(signal.SIGINT)
        assert client.wait(10) == 1
        assert client.stdout is not None
        shown = client.stdout.read()
    assert "[error lost] 1 typed line was not confirmed" in shown
    assert "Traceback" not in shown


# --- as a guest ---


class Half:
    """One of a guest's two connections, on the side of a server that plays its part by hand."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(DEADLINE_SECONDS)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = connection

    def hears(self, expected: bytes) -> None:
        """These bytes and no others come next."""
        heard = b""
        while expected.startswith(heard) and heard != expected:
            part = self.socket.recv(len(expected) - len(heard))
            assert part, f"the client closed after {heard!r}; {expected!r} was expected"
            heard += part
        assert heard == expected

    def says(self, data: bytes, *, bytewise: bool = False) -> None:
        for piece in [data[index : index + 1] for index in range(len(data))] if bytewise else [data]:
            self.socket.sendall(piece)

    def is_over(self) -> bool:
        """Wait for the client to close; nothing comes before that."""
        return self.socket.recv(65_536) == b""

    def close(self) -> None:
        self.socket.close()


class Stage:
    """Where a client meets a server that plays its part by hand."""

    def __init__(self, listening: socket.socket, connections: ExitStack) -> None:
        listening.settimeout(DEADLINE_SECONDS)
        self._listening = listening
        self._connections = connections
        self.port: int = listening.getsockname()[1]

    def halves(self) -> tuple[Half, Half]:
        """The next two connections; nothing was said yet."""
        sockets = [self._connections.enter_context(self._listening.accept()[0]) for _ in range(2)]
        sending_half, receiving_half = map(Half, sockets)
        return sending_half, receiving_half

    def admit(self, name: str = "alice", *, bytewise: bool = False) -> tuple[Half, Half]:
        """The next two connections, registered in the order in which the protocol's text has it."""
        halves = self.halves()
        for half, side in zip(halves, ("TOSEND", "TORECV"), strict=True):
            half.hears(f"REGISTER {side} {name}\n\n".encode())
            half.says(f"REGISTERED {side} {name}\n\n".encode(), bytewise=bytewise)
        return halves


@pytest.fixture
def stage() -> Iterator[Stage]:
    with ExitStack() as connections:
        yield Stage(connections.enter_context(socket.create_server(("127.0.0.1", 0))), connections)


# When a message was stored.
_TIME = re.compile(r" 20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ")


class Client:
    """The program, and somebody who types and reads: each line that it shows is one that was expected."""

    def __init__(self, *arguments: str, **settings: str) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("CHAT_")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "chatclient", *arguments],
            env={**inherited, **settings},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._input, self._output = self.process.stdin, self.process.stdout
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._output, selectors.EVENT_READ)
        self._shown = b""

    def types(self, *lines: str) -> None:
        """All at once."""
        self._input.write("".join(f"{line}\n" for line in lines).encode())
        self._input.flush()

    def shows(self, *lines: str) -> None:
        """These lines come next."""
        for expected in lines:
            assert self.line() == expected

    def shows_undated(self, *lines: str) -> None:
        """These lines come next, but for the times in them."""
        for expected in lines:
            assert _TIME.sub("", self.line()) == expected

    def until(self, last: str) -> list[str]:
        """All lines until this one, without the times in them."""
        lines = [self.line()]
        while lines[-1] != last:
            assert lines[-1], f"it ended; before that it showed {lines}"
            lines.append(self.line())
        return [_TIME.sub("", each) for each in lines]

    def ends(self, exit_code: int, *lines: str) -> None:
        """It shows these lines and ends by itself."""
        self.shows(*lines)
        assert self.line() == ""
        assert self.process.wait(DEADLINE_SECONDS) == exit_code

    def leaves(self, exit_code: int = 0) -> None:
        self.types("EX")
        self.ends(exit_code, "[bye] you left")

    def gets(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def ends_input(self) -> None:
        self._input.close()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._selector.close()
        self._output.close()
        self._input.close()

    def line(self) -> str:
        """The next line that it shows; nothing when it has ended."""
        patience_ends = time.monotonic() + DEADLINE_SECONDS
        while b"\n" not in self._shown:
            waited_for = self._selector.select(patience_ends - time.monotonic())
            assert waited_for, f"it shows nothing more than {self._shown!r}"
            part = os.read(self._output.fileno(), 65_536)
            if not part:
                return self._shown.decode()
            self._shown += part
        line, _, self._shown = self._shown.partition(b"\n")
        return line.decode()


@pytest.fixture
def start() -> Iterator[Callable[..., Client]]:
    """Starts the program as a guest."""
    with ExitStack() as clients:

        def start(*arguments: str, **settings: str) -> Client:
            client = Client(*arguments, CHAT_DIALECT="register", **settings)
            clients.callback(client.close)
            return client

        yield start


@pytest.fixture
def enter(stage: Stage, start: Callable[..., Client]) -> Callable[..., tuple[Client, Half, Half]]:
    """Starts the program as alice, and lets it in: the program and its two connections."""

    def enter(*arguments: str, bytewise: bool = False, **settings: str) -> tuple[Client, Half, Half]:
        client = start("127.0.0.1", str(stage.port), "alice", *arguments, **settings)
        halves = stage.admit(bytewise=bytewise)
        client.shows(*WELCOMES_ALICE)
        return client, *halves

    return enter


PROMPT = "[ask] @USER MESSAGE or @ALL MESSAGE"
WELCOMES_ALICE = ("[welcome guest] alice", PROMPT)
ASKS_NAME = "[ask] username"
BAD_NAME = "[error bad_username] A username is 1 to 32 letters and digits (A-Z, a-z, 0-9)."
TAKEN = "[error bad_username] The name {} is taken or not allowed; choose another one."
NOT_LET_IN = "The server rejected alice ({}); it may be full, or accept no guests."
NOT_DELIVERED = "[error not_delivered] @bob: no such user, or not acknowledged in time"
LOST = "[lost] the server closed the connection; connecting again"
BACK = ("[back] alice", "[error lost] messages may have been missed")
DOUBT = "[error lost] it is not known whether this was delivered: hello"
INPUT_ENDED = "[error usage] the input ended before the {} was given"


def asks_server(port: int) -> str:
    return f"[ask] server, HOST or HOST PORT (localhost {port})"


def forward(sender: str, text: str) -> bytes:
    return message_to(sender, text).replace(b"SEND", b"FORWARD", 1)


@pytest.mark.parametrize("line", ["127.0.0.1 {}", "127.0.0.1:{}", " localhost  {} "])
def test_a_guest_is_asked_for_the_server_and_the_name(room: Room, start: Callable[..., Client], line: str) -> None:
    client = start()
    client.shows(asks_server(9999))
    client.types(line.format(room.server.port))
    client.shows(ASKS_NAME)
    client.types("alice")
    client.shows(*WELCOMES_ALICE)
    client.leaves()


@pytest.mark.parametrize("line", ["", "127.0.0.1", "localhost"])
def test_a_port_that_was_set_is_the_one_that_is_offered(room: Room, start: Callable[..., Client], line: str) -> None:
    client = start("-p", str(room.server.port), "-u", "alice")
    client.shows(asks_server(room.server.port))
    client.types(line)
    client.shows(*WELCOMES_ALICE)
    client.leaves()


def test_a_server_or_a_name_that_cannot_be_one_is_asked_for_again(room: Room, start: Callable[..., Client]) -> None:
    client = start()
    client.shows(asks_server(9999))
    client.types("localhost 65536")
    client.shows("[error usage] The port is '65536'; it must be a whole number from 1 to 65535.", asks_server(9999))
    client.types("localhost:port")
    client.shows("[error usage] The port is 'port'; it must be a whole number from 1 to 65535.", asks_server(9999))
    client.types(f"localhost {room.server.port}")
    client.shows(ASKS_NAME)
    client.types("not a name")
    client.shows(BAD_NAME, ASKS_NAME)
    client.types("server")
    client.shows("[error bad_username] The name server is reserved; choose another one.", ASKS_NAME)
    client.types("alice")
    client.shows(*WELCOMES_ALICE)
    client.leaves()


def test_a_server_that_is_not_there_ends_a_guest_with_1(start: Callable[..., Client]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    start("127.0.0.1", str(port), "alice").ends(1, f"[error lost] can't reach 127.0.0.1:{port}: Connection refused")


def test_a_name_that_somebody_has_is_told_and_another_one_asked_for(room: Room, start: Callable[..., Client]) -> None:
    room.enter("alice")
    room.enter_guest("bob")
    client = start("127.0.0.1", str(room.server.port), "alice")
    client.shows(TAKEN.format("alice"), ASKS_NAME)
    client.types("BOB")
    client.shows(TAKEN.format("BOB"), ASKS_NAME)
    client.types("carol")
    client.shows("[welcome guest] carol", PROMPT)
    client.leaves()


@pytest.mark.parametrize("refused_side", ["TOSEND", "TORECV"])
@pytest.mark.parametrize("closes", [True, False])
def test_a_refused_name_is_asked_for_again_whoever_ends_the_connection(
    stage: Stage, start: Callable[..., Client], refused_side: str, closes: bool
) -> None:
    client = start("127.0.0.1", str(stage.port), "alice")
    first, second = halves = stage.halves()
    first.hears(b"REGISTER TOSEND alice\n\n")
    if refused_side == "TORECV":
        first.says(b"REGISTERED TOSEND alice\n\n")
        second.hears(b"REGISTER TORECV alice\n\n")
    (first if refused_side == "TOSEND" else second).says(MALFORMED)
    for half in halves:
        if closes:
            half.close()
        else:
            assert half.is_over()
    client.shows(TAKEN.format("alice"), ASKS_NAME)
    client.types("alice2")
    stage.admit("alice2")
    client.shows("[welcome guest] alice2", PROMPT)
    client.leaves()


def test_names_are_refused_for_as_long_as_somebody_tries(stage: Stage, start: Callable[..., Client]) -> None:
    """And each try has connections of its own."""
    names = [f"name{number}" for number in range(20)]
    client = start("127.0.0.1", str(stage.port), "first")
    client.types(*names)
    for name in ["first", *names]:
        one, other = stage.halves()
        one.hears(f"REGISTER TOSEND {name}\n\n".encode())
        one.says(MALFORMED)
        assert one.is_over()
        assert other.is_over()
        client.shows(TAKEN.format(name), ASKS_NAME)
    client.types("last")
    stage.admit("last")
    client.shows("[welcome guest] last", PROMPT)
    client.leaves()


def test_the_connection_for_receiving_says_nothing_before_the_other_one_has_its_answer(
    stage: Stage, start: Callable[..., Client]
) -> None:
    """Some servers want them in that order."""
    start("127.0.0.1", str(stage.port), "alice")
    first, second = stage.halves()
    first.hears(b"REGISTER TOSEND alice\n\n")
    first.says(NOT_REGISTERED)
    assert second.is_over()


@pytest.mark.parametrize(
    ("answer", "code", "reason"),
    [
        (b"ERROR 101 No user registered\n\n", "not_logged_in", "No user registered"),
        (b"ERROR 103 Header Incomplete\n\n", "bad_request", "Header Incomplete"),
        (b"ERROR 102 Unable to send\n\n", "internal", "unable to send"),
    ],
)
def test_a_server_that_lets_a_guest_not_in_ends_it_with_3(
    stage: Stage, start: Callable[..., Client], answer: bytes, code: str, reason: str
) -> None:
    client = start("127.0.0.1", str(stage.port), "alice")
    first, _ = stage.halves()
    first.hears(b"REGISTER TOSEND alice\n\n")
    first.says(answer)
    client.ends(3, f"[error {code}] {NOT_LET_IN.format(reason)}")


def test_a_server_without_guests_ends_a_guest_with_3(
    open_room: Callable[..., Room], start: Callable[..., Client]
) -> None:
    room = open_room(guests="off")
    start("127.0.0.1", str(room.server.port), "alice").ends(
        3, f"[error not_logged_in] {NOT_LET_IN.format('No user registered')}"
    )


def test_an_input_that_ends_too_early_is_bad_usage_before_a_name_was_refused(
    room: Room, start: Callable[..., Client]
) -> None:
    room.enter_guest("alice")
    host = ("127.0.0.1", str(room.server.port))
    cases: list[tuple[tuple[str, ...], int, list[str]]] = [
        ((), 2, [asks_server(9999), INPUT_ENDED.format("server")]),
        (host, 2, [ASKS_NAME, INPUT_ENDED.format("username")]),
        ((*host, "no name"), 2, [BAD_NAME, ASKS_NAME, INPUT_ENDED.format("username")]),
        ((*host, "alice"), 3, [TAKEN.format("alice"), ASKS_NAME, INPUT_ENDED.format("username")]),
    ]
    for arguments, exit_code, lines in cases:
        client = start(*arguments)
        client.ends_input()
        client.ends(exit_code, *lines)


def test_two_guests_talk_with_each_other(room: Room, start: Callable[..., Client]) -> None:
    alice, bob = (start("127.0.0.1", str(room.server.port), name) for name in ("alice", "bob"))
    alice.shows(*WELCOMES_ALICE)
    bob.shows("[welcome guest] bob", PROMPT)
    carol = room.enter_guest("carol")
    alice.types("@Bob hello bob")
    bob.shows("[message] alice: hello bob")
    alice.shows("[delivered] @Bob", PROMPT)
    bob.types("@ALL Gr\u00fc\u00dfe an alle")
    alice.shows("[message] bob: Gr\u00fc\u00dfe an alle")
    assert carol.take() == ("bob", "Gr\u00fc\u00dfe an alle")
    bob.shows("[delivered] @ALL", PROMPT)
    alice.types("@nobody hello")
    alice.shows("[error not_delivered] @nobody: no such user, or not acknowledged in time", PROMPT)
    alice.leaves()
    bob.leaves()


@pytest.mark.parametrize("bytewise", [False, True])
@pytest.mark.parametrize(
    ("answer", "line"),
    [
        (b"SEND bob\n\n", "[delivered] @bob"),
        (b"SENT bob\n\n", "[delivered] @bob"),
        (b"SENT bob \r\n \n", "[delivered] @bob"),
        (NOT_SENT, NOT_DELIVERED),
        (b"ERROR 103 Header Incomplete\n\n", "[error bad_request] Header Incomplete"),
        (b"ERROR 103 Header incomplete\n\n", "[error bad_request] Header incomplete"),
    ],
)
def test_the_answers_of_every_server_are_read(
    enter: Callable[..., tuple[Client, Half, Half]], answer: bytes, line: str, bytewise: bool
) -> None:
    client, to_send, _ = enter(bytewise=bytewise)
    for _ in range(2):
        client.types("@bob hello")
        to_send.hears(message_to("bob", "hello"))
        to_send.says(answer, bytewise=bytewise)
        client.shows(line, *([NOT_DELIVERED] if b"103" in answer else []), PROMPT)
    client.leaves()


@pytest.mark.parametrize("bytewise", [False, True])
@pytest.mark.parametrize(
    "message",
    [
        b"FORWARD bob\nContent-length: 6\n\nGr\xc3\xbc\xc3\x9f",
        b"FORWARD bob \nContent-Length: 6\n \nGr\xc3\xbc\xc3\x9f",
        b"FORWARD bob\r\ncontent-length:6\r\n\r\nGr\xc3\xbc\xc3\x9f\n",
        b"FORWARD bob\n Content-length: 6\n\n Gr\xc3\xbc\xc3\x9f",
    ],
)
def test_a_message_is_answered_on_the_connection_for_receiving(
    enter: Callable[..., tuple[Client, Half, Half]], message: bytes, bytewise: bool
) -> None:
    client, to_send, to_receive = enter(bytewise=bytewise)
    for _ in range(2):
        to_receive.says(message, bytewise=bytewise)
        to_receive.hears(b"RECEIVED bob\n\n")
        client.shows("[message] bob: Gr\u00fc\u00df")
    client.leaves()
    assert to_send.is_over()
    assert to_receive.is_over()


def test_messages_that_come_while_an_answer_is_due_are_answered_at_once(
    enter: Callable[..., tuple[Client, Half, Half]],
) -> None:
    """Two guests who write to each other at the same time must not wait for each other."""
    client, to_send, to_receive = enter()
    client.types("@bob hello", "@carol hello")
    to_send.hears(message_to("bob", "hello"))
    for sender in ("bob", "carol", "alice"):
        to_receive.says(forward(sender, "hello alice"))
        to_receive.hears(f"RECEIVED {sender}\n\n".encode())
        client.shows(f"[message] {sender}: hello alice")
    to_send.says(sent("bob"))
    to_send.hears(message_to("carol", "hello"))
    client.shows("[delivered] @bob", PROMPT)
    to_send.says(sent("carol"))
    client.shows("[delivered] @carol", PROMPT)
    client.leaves()


def test_an_answer_may_come_in_the_middle_of_a_message(
    enter: Callable[..., tuple[Client, Half, Half]],
) -> None:
    """Each connection is read for itself."""
    client, to_send, to_receive = enter()
    message = forward("bob", "hello alice")
    for cut in (3, len(message) - 5):
        to_receive.says(message[:cut])
        client.types("@bob hello")
        to_send.hears(message_to("bob", "hello"))
        to_send.says(sent("bob"))
        client.shows("[delivered] @bob", PROMPT)
        to_receive.says(message[cut:])
        to_receive.hears(b"RECEIVED bob\n\n")
        client.shows("[message] bob: hello alice")
    client.leaves()


def test_answers_to_nothing_are_passed_over(enter: Callable[..., tuple[Client, Half, Half]]) -> None:
    client, to_send, to_receive = enter()
    for half in (to_send, to_receive):
        half.says(NOT_SENT + sent("bob") + b"HELLO\n\n" + forward("bob", "fence"))
        to_receive.hears(b"RECEIVED bob\n\n")
        client.shows("[message] bob: fence")
    client.types("@bob hello")
    to_send.hears(message_to("bob", "hello"))
    to_send.says(sent("bob"))
    client.shows("[delivered] @bob", PROMPT)
    client.leaves()


def test_any_other_line_is_rejected_and_asked_for_again(
    enter: Callable[..., tuple[Client, Half, Half]],
) -> None:
    client, to_send, _ = enter()
    for line in ("hello", "@bob", "PM hello", "DM bob hello", "CH", "/users"):
        client.types(line)
        client.shows("[error usage] Type @USER MESSAGE or @ALL MESSAGE; nothing was sent. EX leaves.", PROMPT)
    client.types("")
    client.shows(PROMPT)
    client.types("@two,names hello")
    client.shows(f"{BAD_NAME.replace('bad_username', 'usage')} Nothing was sent.", PROMPT)
    client.types("@bob " + "\u20ac" * 2_731)
    client.shows("[error too_long] A message has 8,192 bytes at most in UTF-8; nothing was done.", PROMPT)
    client.types("/help")
    for word in ("@USER", "@ALL", "EX", "/help", "/quit"):
        assert client.line().startswith(f"[help] {word} ")
    client.shows(PROMPT)
    client.types("/quit")
    client.ends(0, "[bye] you left")
    assert to_send.is_over()


@pytest.mark.parametrize(
    ("arguments", "settings", "length"),
    [
        ((), {}, 7),
        (("--register-length", "bytes"), {"CHAT_REGISTER_LENGTH": "characters"}, 7),
        (("--register-length", "characters"), {}, 5),
        ((), {"CHAT_REGISTER_LENGTH": "characters"}, 5),
    ],
)
def test_a_length_counts_bytes_or_characters(
    enter: Callable[..., tuple[Client, Half, Half]],
    arguments: tuple[str, ...],
    settings: dict[str, str],
    length: int,
) -> None:
    client, to_send, to_receive = enter(*arguments, **settings)
    text = "Gr\u00fc\u00dfe"
    client.types(f"@bob {text}")
    to_send.hears(f"SEND bob\nContent-length: {length}\n\n{text}".encode())
    to_send.says(sent("bob"))
    client.shows("[delivered] @bob", PROMPT)
    for _ in range(2):
        to_receive.says(f"FORWARD bob\nContent-length: {length}\n\n{text}".encode())
        to_receive.hears(b"RECEIVED bob\n\n")
        client.shows(f"[message] bob: {text}")
    client.leaves()


@pytest.mark.parametrize("ended", [0, 1], ids=["TOSEND", "TORECV"])
def test_a_server_that_ends_one_connection_has_ended_both(
    stage: Stage, enter: Callable[..., tuple[Client, Half, Half]], ended: int
) -> None:
    client, *halves = enter()
    halves[ended].close()
    assert halves[1 - ended].is_over()
    client.shows(LOST)
    client.types("@bob typed meanwhile")
    to_send, _ = stage.admit()
    client.shows(*BACK, PROMPT)
    to_send.hears(message_to("bob", "typed meanwhile"))
    to_send.says(sent("bob"))
    client.shows("[delivered] @bob", PROMPT)
    client.leaves()


def test_who_comes_back_waits_for_the_name_to_be_free_and_tells_what_is_not_known(
    stage: Stage, enter: Callable[..., tuple[Client, Half, Half]]
) -> None:
    client, *halves = enter()
    client.types("@bob hello", "@bob typed behind it")
    halves[0].hears(message_to("bob", "hello"))
    for half in halves:
        half.close()
    client.shows(LOST)
    for _ in range(2):
        first, second = stage.halves()
        first.hears(b"REGISTER TOSEND alice\n\n")
        first.says(MALFORMED)
        assert first.is_over()
        assert second.is_over()
    client.shows("[error bad_username] The name alice is taken now; trying again.")
    to_send, _ = stage.admit()
    client.shows(*BACK, DOUBT, PROMPT)
    to_send.hears(message_to("bob", "typed behind it"))
    to_send.says(sent("bob"))
    client.shows("[delivered] @bob", PROMPT)
    client.leaves(1)


def test_who_finds_no_way_back_says_what_is_lost_and_ends_with_1(
    enter: Callable[..., tuple[Client, Half, Half]],
) -> None:
    client, *halves = enter("--retry-seconds", "0")
    client.types("@bob hello", "@bob never sent")
    halves[0].hears(message_to("bob", "hello"))
    for half in halves:
        half.close()
    why = "the server closed the connection"
    client.ends(1, LOST, f"[error lost] {why}", "[error lost] 2 typed lines were not confirmed")


def test_leaving_waits_for_the_answer_that_is_due(enter: Callable[..., tuple[Client, Half, Half]]) -> None:
    for types_ex in (True, False):
        client, to_send, to_receive = enter()
        client.types("@bob hello", *(["EX"] if types_ex else []))
        if not types_ex:
            client.ends_input()
        to_send.hears(message_to("bob", "hello"))
        to_receive.says(forward("bob", "wait"))
        to_receive.hears(b"RECEIVED bob\n\n")
        to_send.says(sent("bob"))
        client.ends(0, "[message] bob: wait", "[delivered] @bob", PROMPT, "[bye] you left")
        assert to_send.is_over()
        assert to_receive.is_over()


# Whoever runs the tests under nohup lets their programs ignore the end of the terminal, too.
@pytest.mark.parametrize(
    "number",
    [
        number
        for number in (
            signal.SIGINT,
            signal.SIGTERM,
            signal.SIGHUP,
            signal.SIGQUIT,
            signal.SIGUSR1,
            signal.SIGUSR2,
            signal.SIGALRM,
            signal.SIGXCPU,
        )
        if signal.getsignal(number) is not signal.SIG_IGN
    ],
    ids=lambda number: number.name,
)
def test_an_interrupt_leaves(enter: Callable[..., tuple[Client, Half, Half]], number: signal.Signals) -> None:
    client, to_send, to_receive = enter()
    to_receive.says(forward("bob", "hello"))
    to_receive.hears(b"RECEIVED bob\n\n")
    client.shows("[message] bob: hello")
    client.gets(number)
    client.ends(0, "[bye] you left")
    assert to_send.is_over()
    assert to_receive.is_over()


def test_an_interrupt_waits_only_a_little_for_an_answer_that_never_comes(
    enter: Callable[..., tuple[Client, Half, Half]],
) -> None:
    client, to_send, to_receive = enter()
    client.types("@bob hello")
    to_send.hears(message_to("bob", "hello"))
    to_receive.says(forward("bob", "wait"))
    client.shows("[message] bob: wait")
    client.gets(signal.SIGINT)
    why = "[error lost] the client closed the connection"
    client.ends(1, why, "[error lost] 1 typed line was not confirmed")


def test_a_script_plays_a_guest(room: Room, tmp_path: Path, start: Callable[..., Client]) -> None:
    bob = room.enter_guest("bob")
    script = tmp_path / "script"
    script.write_text("@bob hello\n%wait delivered\nEX\n")
    client = start("127.0.0.1", str(room.server.port), "alice", "--script", str(script))
    assert bob.take() == ("alice", "hello")
    client.ends(0, *WELCOMES_ALICE, "> @bob hello", "[delivered] @bob", PROMPT, "> EX", "[bye] you left")


@pytest.mark.parametrize("known", [0, 2], ids=["no server", "no name"])
def test_an_interrupt_at_a_question_ends_with_1(stage: Stage, start: Callable[..., Client], known: int) -> None:
    client = start(*["127.0.0.1", str(stage.port)][:known])
    question = ASKS_NAME if known else asks_server(9999)
    client.shows(question)
    client.types("no name, no server")
    assert client.line().startswith("[error ")
    client.shows(question)
    client.gets(signal.SIGINT)
    client.ends(1)


def test_an_interrupt_waits_for_the_answer_that_is_due(enter: Callable[..., tuple[Client, Half, Half]]) -> None:
    client, to_send, to_receive = enter()
    client.types("@bob hello")
    to_send.hears(message_to("bob", "hello"))
    client.gets(signal.SIGINT)
    for _ in range(30):  # which takes longer than to hear of the signal
        to_receive.says(forward("bob", "wait"))
        to_receive.hears(b"RECEIVED bob\n\n")
        client.shows("[message] bob: wait")
    to_send.says(sent("bob"))
    shown = client.until("[bye] you left")
    # On a busy machine the program may notice the answer first.
    assert [line for line in shown if line != PROMPT] == ["[delivered] @bob", "[bye] you left"]
    client.ends(0)


# --- step by step, over TCP and over UDP ---

WIRES = ("--dialect=frames", "--udp")
STEP = "[ask] operation (PM, DM, CH, EX)"
NEW = "[ask] password new"
EXISTING = "[ask] password existing"
WRONG = "[error wrong_password] That is not the password of alice."
FOR_ALL = "[ask] message for all users"
NO_PING = "[error bad_request] In the wire format datagram, PING is the keepalive request; it can't be a password."
FORGOTTEN = "[lost] the server no longer knows this session; connecting again"
# Long before anybody runs out of patience with a server that is silent.
SOON_SECONDS = 6.0


@pytest.fixture(params=WIRES, ids=["frames", "datagram"])
def wire(request: pytest.FixtureRequest) -> str:
    """The flag for the dialect."""
    flag: str = request.param
    return flag


@pytest.fixture
def sit() -> Iterator[Callable[..., Client]]:
    """Starts the program where somebody types."""
    with ExitStack() as clients:

        def sit(port: int, *arguments: str, name: str = "alice", **settings: str) -> Client:
            client = Client("127.0.0.1", str(port), name, *arguments, **settings)
            clients.callback(client.close)
            return client

        yield sit


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    """A server that can be killed."""
    with Program(tmp_path) as server:
        yield server


def come_in(client: Client, kind: str = "new") -> None:
    """With the password from the environment."""
    client.shows(f"[welcome {kind}] alice", STEP)


def freeze(program: Program) -> None:
    """From now on the server says nothing; its sockets are there."""
    program.process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, program.process.pid, os.WSTOPPED | os.WNOWAIT)


def restart_with(program: Program, *texts: str) -> None:
    """The server is gone; while nobody else finds it, bob says this; then it is where it was."""
    port = program.port
    program.start()
    bob = Peer(program.port)
    bob.login("bob")
    for text in texts:
        bob.say(text)
    bob.close()
    program.kill()
    program.start(port)


def texts_of(port: int, sender: str) -> list[str]:
    """What the room has of that user, oldest first."""
    peer = Peer(port)
    peer.login("historian")
    peer.ask(command="CH", limit=500)
    messages = peer.next("history")["messages"]
    peer.close()
    return [each["message"] for each in messages if each["from"] == sender]


def test_a_conversation_goes_one_step_at_a_time(room: Room, sit: Callable[..., Client], wire: str) -> None:
    client = sit(room.server.port, wire)
    client.shows(NEW)
    client.types("secret")
    client.shows("[welcome new] alice", STEP)
    bob = room.enter("bob")
    client.types("PM")
    client.shows(FOR_ALL)
    client.types("Gr\u00fc\u00dfe an alle")
    client.shows("[sent #1]", STEP)
    assert bob.next("broadcast")["message"] == "Gr\u00fc\u00dfe an alle"
    client.types("DM")
    client.shows("[users 2] alice bob", "[ask] recipient")
    client.types("bob")
    client.shows("[ask] message for bob")
    bob.say("in between")
    client.shows_undated("[public #2] bob: in between")
    client.types("psst")
    client.shows("[sent #3]", STEP)
    assert bob.next("direct")["message"] == "psst"
    bob.ask(command="DM", to="alice", message="psst yourself")
    client.shows_undated("[direct #4] bob -> alice: psst yourself")
    client.types("CH")
    client.shows_undated(
        "[history 4]",
        "[history #1] alice: Gr\u00fc\u00dfe an alle",
        "[history #2] bob: in between",
        "[history #3] alice -> ?: psst",
        "[history #4] bob -> alice: psst yourself",
        STEP,
    )
    client.types("DM nobody hello")
    client.shows("[error unknown_user] There is no user 'nobody'; nothing was sent.", STEP)
    client.types("/users")
    client.shows("[users 2] alice bob", STEP)
    client.leaves()
    assert bob.next("users")["left"] == ["alice"]


def test_the_longest_message_comes_and_goes_whole(room: Room, sit: Callable[..., Client], wire: str) -> None:
    client = sit(room.server.port, wire, CHAT_PASSWORD="x")
    come_in(client)
    bob = room.enter("bob")
    text = "\u20ac" * 2_730 + "xx"
    client.types(f"PM {text}")
    client.shows("[sent #1]", STEP)
    assert bob.next("broadcast")["message"] == text
    bob.say(text[::-1])
    client.shows_undated(f"[public #2] bob: {text[::-1]}")
    client.leaves()


def test_lines_of_a_pipe_are_all_said_in_order(room: Room, wire: str) -> None:
    """The end of the input is as good as EX."""
    texts = [f"{number} {'x' * 200}" for number in range(300)]
    ended = run(room.server.port, wire, typed="secret\n" + "".join(f"PM {text}\n" for text in texts))
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.splitlines()[-1] == "[bye] you left"
    assert ended.stdout.count("[sent #") == len(texts)
    assert texts_of(room.server.port, "alice") == texts


def test_an_end_of_the_input_in_the_middle_of_a_dialogue_leaves(
    room: Room, sit: Callable[..., Client], wire: str
) -> None:
    client = sit(room.server.port, wire, CHAT_PASSWORD="x")
    come_in(client)
    client.types("PM")
    client.shows(FOR_ALL)
    client.ends_input()
    client.ends(0, "[bye] you left")
    assert texts_of(room.server.port, "alice") == []


def test_an_interrupt_leaves_and_everybody_is_told(room: Room, sit: Callable[..., Client], wire: str) -> None:
    bob = room.enter("bob")
    client = sit(room.server.port, wire, CHAT_PASSWORD="x")
    come_in(client)
    with deadline(SOON_SECONDS, "the end"):
        client.gets(signal.SIGINT)
        client.ends(0, "[bye] you left")
        while "alice" not in bob.next("users")["left"]:
            pass


def test_a_name_that_is_an_operation_can_come_in_and_be_written_to(
    room: Room, sit: Callable[..., Client], wire: str
) -> None:
    """It is sent in lower case: so is it seen, if it was not there before."""
    names = ("PING", "EX", "PM")
    ping, ex, pm = clients = [sit(room.server.port, wire, name=name, CHAT_PASSWORD="x") for name in names]
    for name, client in zip(names, clients, strict=True):
        client.shows(f"[welcome new] {name}", STEP)
    ex.types("DM PING hello")
    ex.shows("[sent #1]", STEP)
    ping.shows_undated("[direct #1] ex -> PING: hello")
    pm.types("/users")
    pm.shows("[users 3] ex ping pm", STEP)
    for client in clients:
        client.leaves()


# --- who is not let in ---


@pytest.fixture
def known(program: Program) -> int:
    """The port of a server that knows alice. It does not wait at the end for clients that have left it alone."""
    peer = Peer(program.port)
    peer.login("alice")
    peer.close()
    return program.port


def test_three_wrong_passwords_end_it_with_3(known: int, sit: Callable[..., Client], wire: str) -> None:
    client = sit(known, wire)
    client.shows(EXISTING)
    for number in range(2):
        client.types(f"wrong {number}")
        client.shows(WRONG, EXISTING)
    client.types("wrong")
    client.ends(3, f"{WRONG} That was try 3; the connection is closed.")


def test_a_wrong_password_that_was_set_ends_it_with_3(known: int, sit: Callable[..., Client], wire: str) -> None:
    sit(known, wire, CHAT_PASSWORD="wrong").ends(3, WRONG)


def test_over_udp_a_sign_of_life_cannot_be_a_password(known: int, sit: Callable[..., Client]) -> None:
    client = sit(known, "--udp")
    client.shows(EXISTING)
    client.types("PING")
    client.shows(NO_PING, EXISTING)
    client.types("secret")
    come_in(client, "existing")
    client.leaves()
    sit(known, "--udp", CHAT_PASSWORD="PING").ends(3, NO_PING)


def test_a_server_that_is_full_ends_it_with_1(
    open_room: Callable[..., Room], sit: Callable[..., Client], wire: str
) -> None:
    room = open_room(max_connections=1)
    room.enter("bob")
    sit(room.server.port, wire).ends(1, "[error server_full] The server is full; try again later.")


def test_over_udp_a_port_where_nobody_is_ends_it_with_1(sit: Callable[..., Client]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with deadline(SOON_SECONDS, "the end"):
        sit(port, "--udp").ends(1, f"[error lost] can't reach 127.0.0.1:{port} over UDP: Connection refused")


@pytest.mark.parametrize("flag", ["--udp", "--dialect=datagram"])
def test_a_script_that_waits_in_vain_over_udp_ends_with_4(room: Room, tmp_path: Path, flag: str) -> None:
    script = tmp_path / "script"
    script.write_text("PM hello\n%wait 10 sent\n%wait 0.1 never said\n")
    ended = run(room.server.port, flag, "--script", str(script), CHAT_PASSWORD="x")
    assert ended.returncode == 4
    assert "[error script] line 3: 'never said' did not appear within 0.1 s" in ended.stdout


def test_udp_and_another_dialect_are_bad_usage() -> None:
    ended = run(9_999, "--udp", "--dialect", "json")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "chatclient: --udp means --dialect datagram, and --dialect is json; give one of them.\n"


def test_over_udp_an_interrupt_while_nobody_answers_ends_it_with_1(sit: Callable[..., Client]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        silent.settimeout(DEADLINE_SECONDS)
        client = sit(silent.getsockname()[1], "--udp")
        silent.recv(2_048)
        with deadline(SOON_SECONDS, "the end"):
            client.gets(signal.SIGINT)
            client.ends(1)


# --- a server that ends, is killed, or is started again ---


class Relay:
    """Between one client and a server over UDP. It can lose everything that goes one way."""

    def __init__(self, server_port: int) -> None:
        self._front = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._front.bind(("127.0.0.1", 0))
        self._back = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._back.bind(("127.0.0.1", 0))
        self.port: int = self._front.getsockname()[1]
        self._server = ("127.0.0.1", server_port)
        self._stop_here, self._stop_there = socket.socketpair()
        self.loses_requests = self.loses_answers = False
        # What was lost of the requests.
        self.lost: list[bytes] = []
        self._thread = threading.Thread(target=self._run, name="a relay")
        self._thread.start()

    def _run(self) -> None:
        client = None
        while True:
            ready, _, _ = select.select([self._front, self._back, self._stop_here], [], [])
            if self._stop_here in ready:
                return
            if self._front in ready:
                datagram, client = self._front.recvfrom(2_048)
                if self.loses_requests:
                    self.lost.append(datagram)
                else:
                    self._back.sendto(datagram, self._server)
            if self._back in ready:
                datagram = self._back.recv(2_048)
                if client is not None and not self.loses_answers:
                    self._front.sendto(datagram, client)

    def close(self) -> None:
        self._stop_there.send(b"\0")
        self._thread.join()
        for each in (self._front, self._back, self._stop_here, self._stop_there):
            each.close()


@pytest.fixture
def relay(program: Program) -> Iterator[Relay]:
    relay = Relay(program.port)
    yield relay
    relay.close()


def without_prompts(lines: list[str]) -> list[str]:
    """Whether one is asked for the next operation depends on what was noticed first."""
    return [line for line in lines if line != STEP]


def test_what_was_missed_while_the_server_was_away_is_shown(
    program: Program, sit: Callable[..., Client], wire: str
) -> None:
    """And what was typed meanwhile is said once."""
    client = sit(program.port, wire, CHAT_PASSWORD="x")
    come_in(client)
    client.types("PM before")
    client.shows("[sent #1]", STEP)
    bob = Peer(program.port)
    bob.login("bob")
    bob.say("seen")
    client.shows_undated("[public #2] bob: seen")
    bob.close()
    program.kill()
    client.types("PM hello")  # over UDP it is noticed now
    assert client.line().startswith("[lost] ")
    restart_with(program, "missed", "missed too")
    back = ["[back] alice", "[public #3] bob: missed", "[public #4] bob: missed too"]
    assert without_prompts(client.until("[sent #5]")) == [*back, "[sent #5]"]
    client.shows(STEP)
    client.leaves()
    assert texts_of(program.port, "alice") == ["before", "hello"]


def test_over_udp_a_server_that_is_gone_is_noticed_with_the_next_operation(
    program: Program, sit: Callable[..., Client]
) -> None:
    client = sit(program.port, "--udp", CHAT_PASSWORD="x")
    come_in(client)
    program.kill()
    with deadline(SOON_SECONDS, "to notice it"):
        client.types("PM hello")
        client.shows("[lost] Connection refused; connecting again")


def test_over_udp_a_server_that_was_started_again_meanwhile_is_noticed_with_the_next_operation(
    program: Program, sit: Callable[..., Client]
) -> None:
    client = sit(program.port, "--udp", CHAT_PASSWORD="x")
    come_in(client)
    client.types("PM before")
    client.shows("[sent #1]", STEP)
    program.kill()
    restart_with(program, "missed")
    with deadline(SOON_SECONDS, "to come back"):
        client.types("PM hello")
        client.shows(FORGOTTEN)
        client.shows_undated("[back] alice", "[public #2] bob: missed", "[sent #3]", STEP)
    client.leaves()
    assert texts_of(program.port, "alice") == ["before", "hello"]


def come_in_and_begin(client: Client) -> None:
    """The server waits for the text of a message, and all that was shown is confirmed."""
    come_in(client)
    client.types("PM before")
    client.shows("[sent #1]", STEP)
    client.types("PM")
    client.shows(FOR_ALL)


def test_over_udp_a_message_that_did_not_arrive_before_the_server_was_killed_is_said_once(
    program: Program, relay: Relay, sit: Callable[..., Client]
) -> None:
    client = sit(relay.port, "--udp", CHAT_PASSWORD="x")
    come_in_and_begin(client)
    relay.loses_requests = True
    client.types("hello")
    wait_for(lambda: any(each.endswith(b"hello") for each in relay.lost), "the message is on its way")
    program.kill()
    restart_with(program, "missed")
    relay.loses_requests = False
    client.shows(FORGOTTEN)
    client.shows_undated("[back] alice", "[public #2] bob: missed", "[sent #3]", STEP)
    client.leaves()
    assert texts_of(program.port, "alice") == ["before", "hello"]


def test_over_udp_a_message_that_arrived_and_was_not_confirmed_before_the_server_was_killed_is_said_once(
    program: Program, relay: Relay, sit: Callable[..., Client]
) -> None:
    client = sit(relay.port, "--udp", CHAT_PASSWORD="x")
    come_in_and_begin(client)
    bob = Peer(program.port)
    bob.login("bob")
    relay.loses_answers = True
    client.types("hello")
    assert bob.next("broadcast")["message"] == "hello"
    bob.close()
    program.kill()
    restart_with(program, "missed")
    relay.loses_answers = False
    client.shows(FORGOTTEN)
    client.shows_undated("[back] alice", "[public #3] bob: missed", "[sent #2]", STEP)
    client.leaves()
    assert texts_of(program.port, "alice") == ["before", "hello"]


def test_a_client_that_finds_no_way_back_says_what_is_lost_and_ends_with_1(
    program: Program, sit: Callable[..., Client], wire: str
) -> None:
    client = sit(program.port, wire, "--retry-seconds", "0", CHAT_PASSWORD="x")
    come_in(client)
    client.types("PM")
    client.shows(FOR_ALL)
    freeze(program)
    client.types("hello", "PM never sent")
    program.kill()
    lost, why, unconfirmed = (client.line() for _ in range(3))
    assert lost.startswith("[lost] ")
    assert why.startswith("[error lost] ")
    assert unconfirmed == "[error lost] 2 typed lines were not confirmed"
    client.ends(1)


def test_a_server_that_ends_politely_says_so(program: Program, sit: Callable[..., Client], wire: str) -> None:
    client = sit(program.port, wire, "--retry-seconds", "0", CHAT_PASSWORD="x")
    come_in(client)
    with deadline(SOON_SECONDS, "the shutdown"):
        assert program.stop() == 0
    client.shows("[bye] the server is shutting down")
    what = "session" if wire == "--udp" else "connection"
    client.shows(f"[lost] the server closed the {what}; connecting again")
    assert client.line().startswith("[error lost] ")
    client.ends(1)


def test_over_udp_an_interrupt_waits_only_a_little_for_the_goodbye_of_a_server_that_says_nothing(
    program: Program, sit: Callable[..., Client]
) -> None:
    client = sit(program.port, "--udp", CHAT_PASSWORD="x")
    come_in(client)
    freeze(program)
    with deadline(DEADLINE_SECONDS / 2, "the end"):
        client.gets(signal.SIGINT)
        assert client.line().startswith("[error lost] ")
        client.ends(1)


def test_an_interrupt_after_the_server_is_gone_ends_it(program: Program, sit: Callable[..., Client], wire: str) -> None:
    """Over UDP it was not noticed before."""
    client = sit(program.port, wire, CHAT_PASSWORD="x")
    come_in(client)
    program.kill()
    if wire != "--udp":
        assert client.line().startswith("[lost] ")
    with deadline(SOON_SECONDS, "the end"):
        client.gets(signal.SIGINT)
        client.ends(0)
