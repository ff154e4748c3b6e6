"""A server that hangs, stopped in the middle or with a disk that does not answer, is noticed by the real client."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from reliability.program import DEADLINE_SECONDS, Program, own_environment

from chatclient import ChatClient
from chatclient.client import LostError
from chatclient.notices import ConnectionLost, Reconnected

if TYPE_CHECKING:
    from collections.abc import Iterator

SILENCE_SECONDS = 0.6


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    with Program(tmp_path_factory.mktemp("server")) as program:
        yield program


@contextmanager
def stopped(server: Program) -> Iterator[None]:
    server.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        server.process.send_signal(signal.SIGCONT)


@contextmanager
def client(port: int, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "chatclient", "127.0.0.1", str(port), *arguments],
        env={**own_environment(), "CHAT_PASSWORD": "x", "CHAT_SILENCE_SECONDS": str(SILENCE_SECONDS)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for(process: subprocess.Popen[str], beginning: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(beginning):
            return
    raise AssertionError(f"it ended without {beginning}")


@pytest.mark.parametrize("protocol", ["json", "frames", "register", "datagram"])
def test_a_line_from_a_pipe_is_told_to_be_lost(server: Program, protocol: str) -> None:
    name = f"pipe{protocol}"
    with client(server.port, name, "--dialect", protocol, "--retry-seconds", "0") as process:
        wait_for(process, "[welcome")
        with stopped(server):
            output, _ = process.communicate("@ALL hello\n", DEADLINE_SECONDS)
    assert process.returncode == 1
    assert "the server gave no answer" in output


@pytest.mark.parametrize("protocol", ["json", "frames"])
def test_a_client_that_only_listens_notices_it_and_comes_back(server: Program, protocol: str) -> None:
    with client(server.port, f"listens{protocol}", "--dialect", protocol) as process:
        wait_for(process, "[welcome")
        with stopped(server):
            wait_for(process, "[lost] the server was silent")
        wait_for(process, "[back]")


@pytest.mark.parametrize("protocol", ["json", "frames"])
def test_what_a_program_says_is_stored_once(server: Program, protocol: str) -> None:
    with ChatClient("127.0.0.1", server.port, dialect=protocol, silence_seconds=SILENCE_SECONDS) as program:
        program.login(f"says{protocol}", "x")
        server.process.send_signal(signal.SIGSTOP)
        goes_on = threading.Timer(2 * SILENCE_SECONDS, server.process.send_signal, [signal.SIGCONT])
        goes_on.start()
        message_id = program.say(f"once {protocol}")
        goes_on.join()
        happened = [type(event) for event in program.events(0.1)]
        assert [message.id for message in program.history() if message.text == f"once {protocol}"] == [message_id]
    assert happened[:2] == [ConnectionLost, Reconnected]


def test_a_program_is_told_that_nobody_answers(server: Program) -> None:
    with ChatClient("127.0.0.1", server.port, silence_seconds=SILENCE_SECONDS, retry_seconds=0.0) as program:
        program.login("told", "x")
        with stopped(server), pytest.raises(LostError, match="the server gave no answer"):
            program.say("hello")


@contextmanager
def fake(*said: bytes) -> Iterator[int]:
    """A server that says this on each connection, and then the last of it again and again."""
    is_over = threading.Event()

    def serve(connection: socket.socket) -> None:
        with connection:
            connection.recv(1_000)
            try:
                for each in said:
                    connection.sendall(each)
                while not is_over.wait(SILENCE_SECONDS / 4):
                    connection.sendall(said[-1])
            except OSError:
                pass

    def listen() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            serving.append(threading.Thread(target=serve, args=[connection], name="a server that hangs"))
            serving[-1].start()

    serving: list[threading.Thread] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listener = threading.Thread(target=listen, name="its listener")
        listener.start()
        try:
            yield listening.getsockname()[1]
        finally:
            is_over.set()
            listening.shutdown(socket.SHUT_RDWR)
            listener.join()
            for each in serving:
                each.join()


WELCOME = b'{"type":"login","status":"ok","account":"new","username":"alice","users":["alice"],"last_id":0}\n'
USERS = b'{"type":"users","users":["alice"],"count":1}\n'


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ((b'{"type":', b'"lo', b" "), "does not answer the login"),  # half of an answer, and a byte from time to time
        ((WELCOME, USERS), "the server gave no answer"),  # as with a disk that hangs
    ],
)
def test_what_is_no_answer_does_not_count_as_one(said: tuple[bytes, ...], reason: str) -> None:
    with fake(*said) as port, client(port, "alice", "--retry-seconds", "0") as process:
        output, _ = process.communicate("PM hello\n", DEADLINE_SECONDS)
    assert process.returncode == 1
    assert reason in output
