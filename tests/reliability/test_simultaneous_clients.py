"""Thousands of clients do something at the same moment: no other client is delayed."""

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
    from pathlib import Path

MANY = 2_000
DESCRIPTORS = 2 * MANY
ROUNDS = 3
ROUND_SECONDS = 0.6
# 3 to 6 s if all readers wake up at once; 10 to 110 ms if they take turns, and 0.3 s on a busy machine.
WORST_SECONDS = 2.0

# The clients, in a process of their own: a kill closes all of them at the same moment. For each line of input, each
# client completes a request, and begins the next.
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


def talk(speaker: Peer, listener: Peer) -> float:
    """The longest delivery time within a round, in seconds."""
    worst = 0.0
    until = time.monotonic() + ROUND_SECONDS
    while (begin := time.monotonic()) < until:
        speaker.say("hello")
        listener.next("broadcast")
        worst = max(worst, time.monotonic() - begin)
    return worst


@pytest.mark.long
@pytest.mark.parametrize("action", ["ping", "close"])
def test_many_simultaneous_clients_delay_no_other(tmp_path: Path, action: str) -> None:
    """All send a request a few times, or all close."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < DESCRIPTORS:
        pytest.skip(f"the system allows only {hard} open files")
    with ExitStack() as stack:
        resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, hard))
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
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
        talk(speaker, listener)
        if action == "close":
            many.kill()
            worst = talk(speaker, listener)
        else:
            worst = 0.0
            for _ in range(ROUNDS):
                many.stdin.write(b"\n")
                many.stdin.flush()
                worst = max(worst, talk(speaker, listener))
        print(f"the longest took {worst * 1e3:.0f} ms")
        assert worst < WORST_SECONDS
