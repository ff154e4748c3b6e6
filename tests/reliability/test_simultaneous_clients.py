"""Thousands of clients do something at the same moment: no other client is delayed."""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

import pytest
from integration.room import Peer
from reliability.bystanders import Stopwatch, attacked

if TYPE_CHECKING:
    from pathlib import Path

    from reliability.program import Program

ROUNDS = 5
CROWD = 400
MANY = ROUNDS * CROWD
DESCRIPTORS = 2 * MANY
ROUND_SECONDS = 0.6
# The median of the rounds' longest deliveries, in seconds of a Stopwatch: 15 to 50 ms on a quiet machine.
WORST_SECONDS = 0.3

# A crowd of clients, in a process of its own. For each line of input, each client completes a request, and begins the
# next.
_CROWD = """
import socket, sys
many = [socket.create_connection(("127.0.0.1", int(sys.argv[1]))) for _ in range(int(sys.argv[2]))]
for sock in many:
    sock.send(b"{")
print("ready", flush=True)
for _ in sys.stdin:
    for sock in many:
        sock.send(b'"command":"ping"}\\n{')
"""


def talk(server: Program, speaker: Peer, listener: Peer) -> float:
    """The longest delivery time within a round, in seconds of a Stopwatch."""
    worst = 0.0
    until = time.monotonic() + ROUND_SECONDS
    while time.monotonic() < until:
        watch = Stopwatch(server)
        speaker.say("hello")
        listener.next("broadcast")
        worst = max(worst, watch.seconds())
    return worst


@pytest.mark.long
def test_many_simultaneous_clients_delay_no_other(tmp_path: Path) -> None:
    """All send a request, a few times. If all their readers woke up at once, the longest delivery took 0.3 to 2 s."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < DESCRIPTORS:
        pytest.skip(f"the system allows only {hard} open files")
    with ExitStack() as stack:
        resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, hard))
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        # The requests stay incomplete while the crowds enter one by one.
        options = ("--max-connections", str(2 * MANY), "--login-seconds", "600")
        server = stack.enter_context(attacked(tmp_path, *options))
        speaker, listener = (stack.enter_context(closing(Peer(server.port))) for _ in range(2))
        speaker.login("speaker")
        listener.login("listener")
        crowds = [connect_crowd(server.port, stack) for _ in range(ROUNDS)]
        server.wait_until(lambda: server.threads() > MANY, "a thread for each")
        talk(server, speaker, listener)
        worst = []
        for _ in range(ROUNDS):
            for crowd in crowds:
                act(crowd)
            worst.append(talk(server, speaker, listener))
        print(f"the longest of each round took {', '.join(f'{each * 1e3:.0f} ms' for each in worst)}")
        assert statistics.median(worst) < WORST_SECONDS


def connect_crowd(port: int, stack: ExitStack) -> subprocess.Popen[bytes]:
    """Start a crowd, and wait until all its clients are connected."""
    command = [sys.executable, "-c", _CROWD, str(port), str(CROWD)]
    crowd = stack.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
    stack.callback(crowd.kill)
    assert crowd.stdout is not None
    assert crowd.stdout.readline() == b"ready\n"
    return crowd


def act(crowd: subprocess.Popen[bytes]) -> None:
    """Let each client of a crowd complete a request."""
    assert crowd.stdin is not None
    crowd.stdin.write(b"\n")
    crowd.stdin.flush()
