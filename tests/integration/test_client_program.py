"""The program ``chatclient`` against servers that misbehave, and its exit codes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

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


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "script"
    path.write_text("%wait 10 never said\n")
    return path


def test_a_script_that_finds_no_server_ends_with_1(script: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    ended = run(port, "--script", str(script), CHAT_PASSWORD="x")
    assert (ended.returncode, ended.stderr) == (1, "")
    assert "the client ended before it saw 'never said'" in ended.stdout


def test_a_script_whose_login_is_refused_ends_with_3(room: Room, script: Path) -> None:
    room.enter("alice")
    ended = run(room.server.port, "--script", str(script), CHAT_PASSWORD="wrong")
    assert ended.returncode == 3


def test_a_script_that_waits_in_vain_says_where_and_ends_with_4(room: Room, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("# nothing\nPM hello\n%wait 0.1 never said\n")
    ended = run(room.server.port, "--script", str(script), CHAT_PASSWORD="x")
    assert ended.returncode == 4
    assert "[error script] line 3: waited 0.1 s in vain for 'never said'" in ended.stdout


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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM] * 2, ids=lambda number: number.name)
def test_a_signal_while_a_confirmation_is_waited_for_leaves_and_says_what_is_lost(number: signal.Signals) -> None:
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
        client.send_signal(number)
        assert client.wait(10) == 1
        assert client.stdout is not None
        shown = client.stdout.read()
    assert "[error lost] 1 typed line was not confirmed" in shown
    assert "Traceback" not in shown
