"""Thousands of connections do something in the same moment: nobody else waits for them."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

import pytest
from integration.room import Peer
from reliability.program import Program

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MANY = 2_000
DESCRIPTORS = 2 * MANY
ROUNDS = 3
ROUND_SECONDS = 0.6
# If all readers wake up at once it is 3 to 6 s; if they take turns 10 to 110 ms, and 0.3 s on a busy machine.
WORST_SECONDS = 1.0


@pytest.fixture(autouse=True)
def descriptors() -> Iterator[None]:
    """As many as the test and the server need."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < DESCRIPTORS:
        pytest.skip(f"the system allows {hard} open files only")
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class UdpSession:
    """A user who talks to another one, and notes the longest that it took."""

    def __init__(self, speaker: Peer, listener: Peer) -> None:
        self._speaker = speaker
        self._listener = listener
        self.worst_seconds = 0.0

    def go_on(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (begin := time.monotonic()) < until:
            self._speaker.say("hello")
            self._listener.next("broadcast")
            self.worst_seconds = max(self.worst_seconds, time.monotonic() - begin)


# The many, in a process of their own: when it is killed, all of them close in the same moment. For each line that it
# reads, each of them completes a request, and begins the next.
_MANY = """
import socket, sys
many = [socket.create_connection(("127.0.0.1", int(sys.argv[1]))) for _ in range(int(sys.argv[2]))]
for sock in many:
    sock.send(b"{")
print("ready", flush=True)
for _ in sys.stdin:
    for sock in many:
        sock.send(b'"command":"ping"}\\n{')
"""


@pytest.mark.parametrize("do", ["ping", "close"])
def test_what_many_do_at_once_holds_nobody_up(tmp_path: Path, do: str) -> None:
    """Each asks something a few times, or all close: what others say arrives as fast as before."""
    with ExitStack() as stack:
        server = stack.enter_context(Program(tmp_path, "--max-connections", str(2 * MANY)))
        speaker, listener = (stack.enter_context(closing(Peer(server.port))) for _ in range(2))
        speaker.login("speaker")
        listener.login("listener")
        many = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-c", _MANY, str(server.port), str(MANY)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        )
        stack.callback(many.kill)
        assert many.stdin is not None
        assert many.stdout is not None
        assert many.stdout.readline() == b"ready\n"
        server.wait_until(lambda: server.threads() > MANY, "a thread for each")
        talk = UdpSession(speaker, listener)
        talk.go_on(ROUND_SECONDS)
        talk.worst_seconds = 0.0
        if do == "close":
            many.kill()
            talk.go_on(ROUND_SECONDS)
        else:
            for _ in range(ROUNDS):
                many.stdin.write(b"\n")
                many.stdin.flush()
                talk.go_on(ROUND_SECONDS)
        print(f"the longest took {talk.worst_seconds * 1e3:.0f} ms")
        assert talk.worst_seconds < WORST_SECONDS
