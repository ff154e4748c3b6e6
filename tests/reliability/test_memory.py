"""Memory is short: large answers and new clients are rejected, members go on, and a dead thread ends the process."""

from __future__ import annotations

import json
import resource
import socket
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

import pytest
from integration.room import DEADLINE_SECONDS, Peer
from reliability.program import Program

if TYPE_CHECKING:
    from pathlib import Path

MEBIBYTE = 1024 * 1024
CLIENTS = 12
# A long history: 1.6 MB of text, 10 MB in json.
MESSAGES = 200
HISTORY = {"command": "CH", "limit": MESSAGES}
# An unread answer takes a page of its messages, and 128 KiB more.
UNREAD_MAX_BYTES = MEBIBYTE


def fill_history(peer: Peer) -> None:
    peer.send(b'{"command":"PM","message":"%s"}\n' % (b"\\u0001" * 8_000) * MESSAGES)
    for _ in range(MESSAGES):
        peer.next("sent")


def test_unread_answers_take_little_memory(tmp_path: Path) -> None:
    """An answer is made as its client reads. The client gets the whole answer, then what was said meanwhile."""
    with Program(tmp_path) as server, ExitStack() as peers:
        alice = peers.enter_context(closing(Peer(server.port)))
        alice.login("alice")
        fill_history(alice)
        before = server.memory_bytes()
        for number in range(CLIENTS):
            peer = peers.enter_context(closing(Peer(server.port)))
            if number < CLIENTS - 1:  # the last one reads in the end
                peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            peer.login(f"client{number}")
            peer.ask(**HISTORY)
            assert peer.socket.recv(1, socket.MSG_PEEK)
        alice.say("I am still here")
        grown = server.memory_bytes() - before
        print(f"{grown / MEBIBYTE:.1f} MiB more")
        assert grown < CLIENTS * UNREAD_MAX_BYTES
        assert len(peer.next("history")["messages"]) == MESSAGES
        assert peer.next("broadcast")["message"] == "I am still here"


def test_large_answers_are_rejected_while_memory_is_short(tmp_path: Path) -> None:
    with Program(tmp_path) as server, closing(Peer(server.port)) as alice:
        alice.login("alice")
        fill_history(alice)
        limit_bytes = server.address_bytes() + 4 * MEBIBYTE  # see below
        resource.prlimit(server.process.pid, resource.RLIMIT_AS, (limit_bytes, resource.RLIM_INFINITY))

        def answer() -> str:
            alice.ask(**HISTORY)
            return str(alice.next("history", "error")["type"])

        server.wait_until(lambda: answer() == "error", "a rejection")
        server.wait_until(lambda: "short of memory" in server.log(), "its log entry")
        alice.say("I am still here")
        resource.prlimit(server.process.pid, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        server.wait_until(lambda: answer() == "history", "an answer")
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
from chatserver import program
from chatserver.app import Server
program.Watchdog = functools.partial(program.Watchdog, 0.5)
Server.stop = lambda _: threading.Event().wait()
"""


@pytest.mark.parametrize("further", ["", SHUTDOWN_HANGS], ids=["shutdown", "watchdog"])
def test_dead_thread_ends_the_process(tmp_path: Path, further: str) -> None:
    """Also if neither the log nor the shutdown works."""
    with Program(tmp_path, prelude=JOURNAL_DIES + further) as server, closing(Peer(server.port)) as alice:
        alice.ask(command="login", username="alice", password="secret")  # writes a new account
        answers = [json.loads(line)["type"] for line in iter(alice.line, b"")]
        assert ("bye" in answers) == (not further), "an orderly shutdown tells it"
        assert server.process.wait(DEADLINE_SECONDS) == 1


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
