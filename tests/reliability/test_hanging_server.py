"""A server that hangs (it is stopped) is noticed by the real client."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from reliability.program import DEADLINE_SECONDS, Program, own_environment

if TYPE_CHECKING:
    from collections.abc import Iterator

# Above the time of a login on a busy machine, whose limit it sets: a machine may stall for seconds.
SILENCE_SECONDS = 8.0
LONG = pytest.mark.long


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    with Program(tmp_path_factory.mktemp("server")) as program:
        yield program


@contextmanager
def stopped(server: Program) -> Iterator[None]:
    server.suspend()
    try:
        yield
    finally:
        server.resume()


@contextmanager
def client(port: int, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The program, after its login."""
    process = subprocess.Popen(
        [sys.executable, "-m", "chatclient", "127.0.0.1", str(port), *arguments],
        env={**own_environment(), "CHAT_PASSWORD": "x", "CHAT_SILENCE_SECONDS": str(SILENCE_SECONDS)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for(process, "[welcome")
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for(process: subprocess.Popen[str], beginning: str) -> None:
    assert process.stdout is not None
    assert any(line.startswith(beginning) for line in process.stdout), f"it ended without {beginning}"


PROTOCOLS = [
    "json",
    *(pytest.param(name, marks=LONG) for name in ("datagram", "websocket", "frames", "register", "irc")),
]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_client_reports_that_a_message_got_no_answer(server: Program, protocol: str) -> None:
    arguments = (f"pipe{protocol}", "--dialect", protocol, "--retry-seconds", "0")
    with client(server.port, *arguments) as process, stopped(server):
        output, _ = process.communicate("@ALL hello\n", DEADLINE_SECONDS)
    assert process.returncode == 1
    assert "the server gave no answer" in output


@pytest.mark.parametrize(
    "protocol", ["json", *(pytest.param(name, marks=LONG) for name in ("websocket", "frames", "irc"))]
)
def test_listening_client_notices_silence_and_reconnects(server: Program, protocol: str) -> None:
    with client(server.port, f"listens{protocol}", "--dialect", protocol) as process:
        assert process.stdin is not None
        process.stdin.write("CH\n")
        process.stdin.flush()
        wait_for(process, "[history")  # no answer is missing
        with stopped(server):
            wait_for(process, "[lost] the server was silent")
        wait_for(process, "[back]")
