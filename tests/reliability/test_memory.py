"""Memory is short: large answers and new clients are rejected, members go on, and a dead thread ends the process."""

from __future__ import annotations

import json
import resource
import socket
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

import pytest
from integration.room import Peer, deadline
from reliability.program import Program

if TYPE_CHECKING:
    from pathlib import Path

# An answer of 25 MB for each client exceeds this.
ADDRESS_BYTES = 600_000_000
CLIENTS = 24
MESSAGES = 500


def test_large_answers_are_rejected_while_memory_is_short(tmp_path: Path) -> None:
    """The clients do not read them."""
    with Program(tmp_path, under=("prlimit", f"--as={ADDRESS_BYTES}")) as server, ExitStack() as peers:
        alice = peers.enter_context(closing(Peer(server.port)))
        alice.login("alice")
        alice.send(b'{"command":"PM","message":"%s"}\n' % (b"\\u0001" * 8_000) * MESSAGES)
        for _ in range(MESSAGES):
            alice.next("sent")
        for number in range(CLIENTS):
            peer = peers.enter_context(closing(Peer(server.port)))
            peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            peer.ask(command="login", username=f"client{number}", password="secret")
            peer.ask(command="CH", limit=MESSAGES)
        server.wait_until(lambda: "short of memory" in server.log(), "a rejection")
        alice.say("I am still here")
        assert server.stop() == 0
        assert "Traceback" not in server.log()


# The journal's thread dies, and so does the thread that would log it.
JOURNAL_DIES = """
from chatserver import threads
from chatserver.store.database import Database

def fail(*_):
    threads._log = None
    raise MemoryError

Database.note_commit = fail
"""
# The shutdown hangs, too.
SHUTDOWN_HANGS = """
import functools, threading
from chatserver import __main__ as program
from chatserver.app import Server
program.Watchdog = functools.partial(program.Watchdog, 0.5)
Server.stop = lambda _: threading.Event().wait()
"""


@pytest.mark.parametrize("further", ["", SHUTDOWN_HANGS], ids=["shutdown", "watchdog"])
def test_dead_thread_ends_the_process(tmp_path: Path, further: str) -> None:
    """Also if neither the log nor the shutdown works."""
    with Program(tmp_path, prelude=JOURNAL_DIES + further) as server, closing(Peer(server.port)) as alice:
        alice.ask(command="login", username="alice", password="secret")  # writes a new account
        with deadline(8.0, "the end"):
            assert alice.is_closed()
            assert server.process.wait() == 1


def login_result(port: int, name: str) -> str:
    """The type of the answer, or the code of the error."""
    with closing(Peer(port)) as peer:
        peer.ask(command="login", username=name, password="secret")
        answer = json.loads(peer.line())
        return str(answer.get("code", answer["type"]))


def test_new_clients_are_rejected_while_memory_is_short(tmp_path: Path) -> None:
    with Program(tmp_path) as server, closing(Peer(server.port)) as alice:
        alice.login("alice")
        # Less than the margin, which is an eighth of the limit, is left.
        limit_bytes = server.address_bytes() + 4 * 2**20
        resource.prlimit(server.process.pid, resource.RLIMIT_AS, (limit_bytes, resource.RLIM_INFINITY))
        # The server reads its memory from time to time.
        server.wait_until(lambda: login_result(server.port, "alice") == "server_full", "a rejection")
        assert login_result(server.port, "alice") == "server_full"
        alice.say("I am still here")
        resource.prlimit(server.process.pid, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        server.wait_until(lambda: login_result(server.port, "alice") == "login", "a login")
        assert server.stop() == 0
        assert server.log().count("[WARNING] refusing connections reason=memory_short") == 1
