"""The system has no more descriptors or threads: the log has one line, members go on, and new clients wait."""

from __future__ import annotations

import json
import os
import resource
import subprocess
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

import pytest
from integration.room import DatagramPeer, Peer
from reliability.program import Program

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# New clients, and free descriptors.
NEW = 12
DESCRIPTORS = 8
# Requests of each member at once, so that several members read the disk at the same time.
REQUESTS = 200
PAUSED = "[ERROR] accepting paused error='Too many open files'"


@pytest.fixture
def peers() -> Iterator[ExitStack]:
    """Closes all peers that are entered here."""
    with ExitStack() as stack:
        yield stack


def connect(peers: ExitStack, server: Program, count: int) -> list[Peer]:
    return [peers.enter_context(closing(Peer(server.port))) for _ in range(count)]


def talk(alice: Peer, bob: Peer) -> None:
    """Members notice nothing."""
    message_id = alice.say("are you there?")["id"]
    assert bob.next("broadcast")["id"] == message_id
    bob.ask(command="CH", limit=1)
    assert bob.next("history")["messages"][0]["id"] == message_id


def test_new_clients_wait_for_free_descriptors(tmp_path: Path, peers: ExitStack) -> None:
    with Program(tmp_path) as server:
        alice, bob = connect(peers, server, 2)
        alice.login("alice")
        bob.login("bob")
        before = server.descriptors("socket:")
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (server.descriptors() + DESCRIPTORS, hard))
        new = connect(peers, server, NEW)
        server.wait_until(lambda: PAUSED in server.log(), "the line in the log")
        # The server accepts in order.
        count = server.descriptors("socket:") - before
        accepted, waiting = new[:count], new[count:]
        assert accepted
        assert waiting
        for number, peer in enumerate(accepted):
            peer.login(f"early{number}")
        talk(alice, bob)
        for peer in (alice, bob, *accepted):
            peer.send(b'{"command":"CH","limit":1}\n' * REQUESTS)
        for peer in (alice, bob, *accepted):
            for _ in range(REQUESTS):
                peer.next("history")
        for number, peer in enumerate(waiting):
            accepted.pop(0).close()
            peer.login(f"late{number}")
            accepted.append(peer)
            talk(alice, bob)
        assert server.stop() == 0
    log = server.log()
    assert log.count(PAUSED) == 1
    assert "Traceback" not in log


@pytest.fixture
def ordinary_user() -> list[str]:
    """Runs a command as a user with a limit of threads, which root does not have. It can read all files."""
    root_only = ["setpriv", "--reuid=61234", "--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
    command = root_only if os.geteuid() == 0 else []
    try:
        subprocess.run([*command, "prlimit", "--nproc"], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"threads cannot be limited here: {error}")
    return command


def test_new_clients_are_rejected_without_free_threads(
    tmp_path: Path, peers: ExitStack, ordinary_user: list[str]
) -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    usual = "unlimited" if soft == resource.RLIM_INFINITY else soft
    with Program(tmp_path, under=ordinary_user) as server:
        limit_threads = [*ordinary_user, "prlimit", f"--pid={server.process.pid}"]
        alice, bob = connect(peers, server, 2)
        alice.login("alice")
        bob.login("bob")
        subprocess.run([*limit_threads, "--nproc=1:"], check=True)
        for peer in connect(peers, server, NEW):
            assert json.loads(peer.line())["code"] == "server_full"
            assert peer.is_closed()
            talk(alice, bob)
        with closing(DatagramPeer(server.port)) as extra:
            extra.command("extra")
            assert extra.rest() == ["C ERROR server_full The server is full; try again later."]
        subprocess.run([*limit_threads, f"--nproc={usual}:"], check=True)
        for number, peer in enumerate(connect(peers, server, NEW)):
            peer.login(f"new{number}")
        with closing(DatagramPeer(server.port)) as extra:
            extra.login("extra")
            extra.command("EX")
            assert extra.is_closed()
        talk(alice, bob)
        assert server.stop() == 0
    log = server.log()
    assert log.count("[WARNING] refusing connections reason=no_threads") == 1
    assert "Traceback" not in log
