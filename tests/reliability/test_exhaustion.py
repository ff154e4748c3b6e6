"""The system gives no more descriptors, or no more threads: the log says so once, those inside go on, others wait."""

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

# So many come where there is room for so many.
COMING = 20
ROOM = 8
# Each of those inside asks for so much at once, so that some of them read the disk at the same time.
QUESTIONS = 200
COMPLAINT = "[ERROR] accepting paused error='Too many open files'"


@pytest.fixture
def peers() -> Iterator[ExitStack]:
    """Closes every peer that is entered here."""
    with ExitStack() as stack:
        yield stack


def come(peers: ExitStack, server: Program, count: int) -> list[Peer]:
    """Connect so many, who wait to be let in."""
    return [peers.enter_context(closing(Peer(server.port))) for _ in range(count)]


def talk(alice: Peer, bob: Peer) -> None:
    """Those inside notice nothing."""
    said = alice.say("are you there?")["id"]
    assert bob.next("broadcast")["id"] == said
    bob.ask(command="CH", limit=1)
    assert bob.next("history")["messages"][0]["id"] == said


def ask_much(inside: list[Peer]) -> None:
    """Whatever those inside ask is answered."""
    for peer in inside:
        peer.send(b'{"command":"CH","limit":1}\n' * QUESTIONS)
    for peer in inside:
        for _ in range(QUESTIONS):
            peer.next("history")


def test_without_descriptors_those_at_the_door_wait_until_somebody_leaves(tmp_path: Path, peers: ExitStack) -> None:
    with Program(tmp_path) as server:
        alice, bob = come(peers, server, 2)
        alice.login("alice")
        bob.login("bob")
        before = server.descriptors("socket:")
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (server.descriptors() + ROOM, hard))
        coming = come(peers, server, COMING)
        server.wait_until(lambda: COMPLAINT in server.log(), "the server's complaint")
        # They are let in in the order in which they came.
        count = server.descriptors("socket:") - before
        inside, waiting = coming[:count], coming[count:]
        assert inside
        assert waiting
        for number, peer in enumerate(inside):
            peer.login(f"early{number}")
        talk(alice, bob)
        ask_much([alice, bob, *inside])
        for number, peer in enumerate(waiting):
            inside.pop(0).close()
            peer.login(f"late{number}")
            inside.append(peer)
            talk(alice, bob)
        log = server.log()
        assert server.stop() == 0
    assert log.count(COMPLAINT) == 1
    assert "Traceback" not in log


@pytest.fixture
def ordinary_user() -> list[str]:
    """What runs a command as a user whose threads can be limited: root's can't be. All files are open to it, too."""
    root_only = ["setpriv", "--reuid=61234", "--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
    command = root_only if os.geteuid() == 0 else []
    try:
        subprocess.run([*command, "prlimit", "--nproc"], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"threads can't be limited here: {error}")
    return command


def test_without_threads_those_who_come_are_told_that_it_is_full(
    tmp_path: Path, peers: ExitStack, ordinary_user: list[str]
) -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    usual = "unlimited" if soft == resource.RLIM_INFINITY else soft
    with Program(tmp_path, under=ordinary_user) as server:
        limit_threads = [*ordinary_user, "prlimit", f"--pid={server.process.pid}"]
        alice, bob = come(peers, server, 2)
        alice.login("alice")
        bob.login("bob")
        subprocess.run([*limit_threads, "--nproc=1:"], check=True)
        for peer in come(peers, server, COMING):
            assert json.loads(peer.line())["code"] == "server_full"
            assert peer.is_closed()
            talk(alice, bob)
        with closing(DatagramPeer(server.port)) as extra:
            extra.command("extra")
            assert extra.rest() == ["C ERROR server_full The server is full; try again later."]
        subprocess.run([*limit_threads, f"--nproc={usual}:"], check=True)
        for number, peer in enumerate(come(peers, server, COMING)):
            peer.login(f"guest{number}")
        with closing(DatagramPeer(server.port)) as extra:
            extra.login("extra")
            extra.command("EX")
            assert extra.is_closed()
        talk(alice, bob)
        log = server.log()
        assert server.stop() == 0
    assert log.count("[WARNING] refusing connections reason=no_threads") == 1
    assert "Traceback" not in log
