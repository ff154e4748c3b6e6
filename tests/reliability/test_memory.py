"""Memory runs short: those who ask for much are refused, others go on, and the process never stays half dead."""

from __future__ import annotations

import resource
import socket
import time
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

import pytest
from integration.room import Peer, deadline
from reliability.program import Program

from chatserver.memory import READING_SECONDS

if TYPE_CHECKING:
    from pathlib import Path

# Answers of 25 MB for each of them would be all of it.
ADDRESS_BYTES = 600_000_000
GREEDY = 24
MESSAGES = 500


def test_those_who_ask_for_much_and_do_not_read_are_refused(tmp_path: Path) -> None:
    with Program(tmp_path, under=("prlimit", f"--as={ADDRESS_BYTES}")) as server, ExitStack() as peers:
        alice = peers.enter_context(closing(Peer(server.port)))
        alice.login("alice")
        alice.send(b'{"command":"PM","message":"%s"}\n' % (b"\\u0001" * 8_000) * MESSAGES)
        for _ in range(MESSAGES):
            alice.next("sent")
        for number in range(GREEDY):
            peer = peers.enter_context(closing(Peer(server.port)))
            peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            peer.ask(command="login", username=f"greedy{number}", password="secret")
            peer.ask(command="CH", limit=MESSAGES)
        server.wait_until(lambda: "short of memory" in server.log(), "a refusal")
        alice.say("I am still here")
        assert server.stop() == 0
        assert "Traceback" not in server.log()


# The journal's thread dies, and so does whoever logs that.
JOURNAL_DIES = """
from chatserver import threads
from chatserver.chat.journal import LocalJournal

def fail(*_):
    threads._log = None
    raise MemoryError

LocalJournal._write = fail
"""
# The orderly end does not come either.
AND_THE_END_FAILS = """
import functools, threading
from chatserver import __main__ as program
from chatserver.app import Server
program.Watchdog = functools.partial(program.Watchdog, 0.5)
Server.stop = lambda _: threading.Event().wait()
"""


@pytest.mark.parametrize("further", ["", AND_THE_END_FAILS], ids=["orderly end", "hard end"])
def test_a_thread_that_dies_ends_the_process_whatever_else_fails(tmp_path: Path, further: str) -> None:
    with Program(tmp_path, prelude=JOURNAL_DIES + further) as server, closing(Peer(server.port)) as alice:
        alice.ask(command="login", username="alice", password="secret")  # which is to be written
        with deadline(8.0, "the end"):
            assert alice.is_closed()
            assert server.process.wait() == 1


def test_while_memory_is_short_those_who_come_are_told_that_it_is_full(tmp_path: Path) -> None:
    with Program(tmp_path) as server, closing(Peer(server.port)) as alice:
        alice.login("alice")
        # Some memory is left: less than an eighth.
        limit_bytes = server.address_bytes() + 4 * 2**20
        resource.prlimit(server.process.pid, resource.RLIMIT_AS, (limit_bytes, resource.RLIM_INFINITY))
        time.sleep(READING_SECONDS)
        for _ in range(2):
            with closing(Peer(server.port)) as late:
                assert late.next("error")["code"] == "server_full"
        alice.say("I am still here")
        resource.prlimit(server.process.pid, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        time.sleep(READING_SECONDS)
        with closing(Peer(server.port)) as bob:
            bob.login("bob")
        assert server.stop() == 0
        assert server.log().count("[WARNING] refusing connections reason=memory_short") == 1
