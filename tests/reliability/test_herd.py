"""Thousands of connections do something in the same moment: nobody else waits for them."""

from __future__ import annotations

import resource
import socket
import time
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

import pytest
from integration.room import DEADLINE_SECONDS, Peer
from reliability.program import Program

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MANY = 2_000
DESCRIPTORS = 2 * MANY
ROUNDS = 3
ROUND_SECONDS = 0.6
# With a thread for each that wants the interpreter at once it is 2 to 5 s; without, 20 ms, or 100 on a busy machine.
WORST_SECONDS = 0.5


@pytest.fixture(autouse=True)
def descriptors() -> Iterator[None]:
    """As many as the test and the server need."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < DESCRIPTORS:
        pytest.skip(f"the system allows {hard} open files only")
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Talk:
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


@pytest.mark.parametrize("what", [b" ", b'{"command":"ping"}\n', b""], ids=["a byte", "a ping", "the end"])
def test_what_many_do_at_once_holds_nobody_up(tmp_path: Path, what: bytes) -> None:
    """Each sends one byte, or a whole request, or all close: what others say arrives as fast as before."""
    with ExitStack() as stack:
        server = stack.enter_context(Program(tmp_path, "--max-connections", str(2 * MANY)))
        speaker, listener = (stack.enter_context(closing(Peer(server.port))) for _ in range(2))
        speaker.login("speaker")
        listener.login("listener")
        address = ("127.0.0.1", server.port)
        many = [stack.enter_context(closing(socket.create_connection(address, DEADLINE_SECONDS))) for _ in range(MANY)]
        talk = Talk(speaker, listener)
        for _ in range(ROUNDS if what else 1):
            for sock in many:
                if what:
                    sock.send(what)
                else:
                    sock.close()
            talk.go_on(ROUND_SECONDS)
        print(f"the longest took {talk.worst_seconds * 1e3:.0f} ms")
        assert talk.worst_seconds < WORST_SECONDS
