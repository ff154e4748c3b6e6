"""Attacks by connections and datagrams, with a server on one processor: others chat, and users get in.

Attackers have addresses in 127.1.0.0/16. Each test has the numbers of a known attack if it is run with ``-m long``.
"""

from __future__ import annotations

import re
import resource
import subprocess
import sys
import time
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING

import pytest
from integration.room import DatagramPeer, Peer
from reliability.bystanders import (
    NEW_MAX_SECONDS,
    ONE_PROCESSOR,
    Bystanders,
    assert_known_user_gets_in,
    assert_quick,
    seconds_to_log_in,
)
from reliability.program import Program

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MEBIBYTE = 1024 * 1024
# The bystanders, and users with limits.
HERE, HOME = "127.0.0.1", "127.2.0.1"
# Rates of requests have tests of their own.
SETTINGS = {"CHAT_EXEMPT": HERE, "CHAT_LOG_LINES_PER_ADDRESS": "5", "CHAT_REQUEST_RATE": "0"}
MEMORY_MAX_BYTES = 100 * MEBIBYTE
# Maximum memory that the server keeps after an attack.
KEPT_MAX_BYTES = 25 * MEBIBYTE

# Each of a number of addresses keeps the same number of connections open, and opens refused or closed ones again. For
# each line of input, all of them send a byte.
_CONNECTIONS = """
import resource, selectors, socket, sys
port, addresses, each = map(int, sys.argv[1:])
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 5_000), hard))
selector = selectors.DefaultSelector()
selector.register(sys.stdin, selectors.EVENT_READ)
def connect(address):
    sock = socket.socket()
    sock.bind((address, 0))
    try:
        sock.connect(("127.0.0.1", port))
    except OSError:
        return
    selector.register(sock, selectors.EVENT_READ, address)
for number in range(addresses * each):
    number %= addresses
    connect(f"127.1.{number // 200}.{number % 200 + 1}")
print("ready", flush=True)
while True:
    for key, _ in selector.select():
        if key.fileobj is sys.stdin:
            if not sys.stdin.readline():
                sys.exit()
            for sock in list(selector.get_map().values()):
                if sock.data:
                    try:
                        sock.fileobj.send(b"{")
                    except OSError:
                        pass
        else:
            try:
                data = key.fileobj.recv(1_000)
            except OSError:
                data = b""
            if not data:
                selector.unregister(key.fileobj)
                key.fileobj.close()
                connect(key.data)
"""

# Openings from one address, at a rate. The last line of output is the number of answers.
_OPENINGS = """
import socket, sys, time
port, rate, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind(("127.1.0.1", 0))
sock.connect(("127.0.0.1", port))
sock.setblocking(False)
print("ready", flush=True)
began_at, sent, answers = time.monotonic(), 0, 0
while (passed := time.monotonic() - began_at) < seconds:
    while sent < passed * rate:
        sent += 1
        try:
            sock.send(b"C" + bytes(12) + b"flood%d" % sent + b" " * 18)
        except OSError:
            pass
    try:
        while sock.recv(2_000):
            answers += 1
    except OSError:
        pass
    time.sleep(0.0005)
print(sent, answers, flush=True)
"""


@contextmanager
def attack(program: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Start the attacker, and wait until it is ready. It is killed at the end."""
    command = [sys.executable, "-c", program, *map(str, arguments)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as attacker:
        try:
            assert attacker.stdout is not None
            assert attacker.stdout.readline() == "ready\n"
            yield attacker
        finally:
            attacker.kill()


def assert_users_get_in(server: Program, number: int) -> None:
    """A known one at once, and a new one soon."""
    assert_known_user_gets_in(server.port, "known", HOME)
    assert seconds_to_log_in(server.port, f"new{number}", f"127.2.1.{number}") < NEW_MAX_SECONDS


@pytest.mark.parametrize(
    ("addresses", "rounds"), [(20, 1), pytest.param(125, 16, marks=[pytest.mark.long, pytest.mark.timeout(120)])]
)
def test_silent_connections_that_act_at_once_delay_no_user(tmp_path: Path, addresses: int, rounds: int) -> None:
    """Sixteen of each address send a byte in the same moment, once a second, and close in the same moment."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < addresses * 40:
        pytest.skip(f"the system allows only {hard} open files")
    with Program(tmp_path, "--max-connections", "8400", under=ONE_PROCESSOR, **SETTINGS) as server:
        seconds_to_log_in(server.port, "known", HOME)
        with Bystanders(server.port) as bystanders:
            before = server.memory_bytes()
            with attack(_CONNECTIONS, server.port, addresses, 16) as attacker:
                server.wait_until(lambda: server.threads() > addresses * 16, "a thread for each")
                assert attacker.stdin is not None
                for number in range(rounds):
                    attacker.stdin.write("\n")
                    attacker.stdin.flush()
                    bystanders.chat(time.monotonic() + 1.0)
                    assert_users_get_in(server, number)
                assert server.memory_bytes() - before < MEMORY_MAX_BYTES
            bystanders.chat(time.monotonic() + min(rounds, 2))
            bystanders.assert_quick()
            server.wait_until(lambda: server.memory_bytes() - before < KEPT_MAX_BYTES, "the memory")


@pytest.mark.parametrize(
    ("addresses", "seconds"),
    [(99, 1), *(pytest.param(count, 20, marks=pytest.mark.long) for count in (1, 18, 99))],
)
def test_silent_connections_keep_no_user_out(tmp_path: Path, addresses: int, seconds: int) -> None:
    """They try to hold 198 of 200 slots, and reconnect each time."""
    with Program(tmp_path, "--max-connections", "200", under=ONE_PROCESSOR, **SETTINGS) as server:
        seconds_to_log_in(server.port, "known", HOME)
        with Bystanders(server.port) as bystanders, attack(_CONNECTIONS, server.port, addresses, 198 // addresses):
            for number in range(seconds):
                bystanders.chat(time.monotonic() + 1.0)
                assert_users_get_in(server, number)
            bystanders.assert_quick()
        assert server.stop() == 0
    assert server.log().count("connection rejected") <= 2 * 6 * addresses


def test_account_keeps_no_user_out(tmp_path: Path) -> None:
    """It logs in 195 times, with thirteen addresses, and stays."""
    with Program(tmp_path, "--max-connections", "200", under=ONE_PROCESSOR, **SETTINGS) as server:
        seconds_to_log_in(server.port, "known", HOME)
        with ExitStack() as peers:
            for number in range(13 * 15):
                peer = peers.enter_context(closing(Peer(server.port, f"127.1.0.{number % 13 + 1}")))
                peer.login("mallory")
            assert_users_get_in(server, 1)
            assert_users_get_in(server, 2)


@pytest.mark.parametrize(("rate", "seconds"), [(10_000, 1.0), pytest.param(40_000, 10.0, marks=pytest.mark.long)])
def test_openings_over_udp_delay_no_user(tmp_path: Path, rate: int, seconds: float) -> None:
    """A user over UDP pings as fast as before, and a new one gets in."""
    with Program(tmp_path, under=ONE_PROCESSOR, **SETTINGS) as server, Bystanders(server.port) as bystanders:
        user, new = (DatagramPeer(server.port, f"127.2.0.{number}") for number in (1, 2))
        with closing(user), closing(new):
            user.login("user")
            before, threads = server.memory_bytes(), server.threads()
            with attack(_OPENINGS, server.port, rate, seconds) as attacker:
                delays = []
                until = time.monotonic() + 0.7 * seconds
                while (began_at := time.monotonic()) < until:
                    user.until_fence()
                    delays.append(time.monotonic() - began_at)
                    time.sleep(0.01)
                bystanders.chat(time.monotonic() + 0.1 * seconds)
                began_at = time.monotonic()
                new.login("new")
                assert time.monotonic() - began_at < NEW_MAX_SECONDS
                assert attacker.stdout is not None
                sent, answers = map(int, attacker.stdout.readline().split())
            print(f"{sent} openings, {answers} answers")
            assert answers <= 20 * (seconds + 2)  # the attacker may end late
            assert_quick(delays)
            bystanders.assert_quick()
            assert server.memory_bytes() - before < KEPT_MAX_BYTES
            assert server.threads() <= threads + 1


def test_socket_opens_sixteen_sessions_over_udp(tmp_path: Path) -> None:
    with Program(tmp_path, CHAT_UDP_OPENINGS="1000", **SETTINGS) as server:
        before = server.threads()
        with closing(DatagramPeer(server.port, "127.1.0.1")) as peer:
            for number in range(40):
                text = b"user%d" % number
                peer.throw(b"C", 0, 0, text + b" " + peer.cookie_for(text))
                answers = peer.catch()
                if answers[3].startswith(b"ERROR rate_limited "):
                    break
            assert number == 16
        server.wait_until(lambda: server.threads() == before + 16, "a thread for each session")


@pytest.mark.parametrize("requests", [400, pytest.param(2_625, marks=pytest.mark.long)])
def test_refused_requests_do_not_fill_the_log(tmp_path: Path, requests: int) -> None:
    """Sixteen connections of one address send them."""
    with Program(tmp_path, under=ONE_PROCESSOR, **SETTINGS) as server:
        with Bystanders(server.port) as bystanders, ExitStack() as stack:
            peers = [stack.enter_context(closing(Peer(server.port, "127.1.0.1"))) for _ in range(16)]
            before = len(server.log())
            for peer in peers:
                peer.send(b'{"command":"PM","message":"x"}\n' * requests)
            bystanders.chat(time.monotonic() + 1.0)
            for peer in peers:
                peer.until_fence()
            assert len(server.log()) - before < 2_000
            bystanders.assert_quick()
        assert server.stop() == 0
    lines = [line for line in server.log().splitlines() if "not_logged_in" in line]
    assert len(lines) == 6
    count = re.search(r"like='request refused' reason=not_logged_in address=127\.1\.0\.1 count=(\d+)", lines[-1])
    assert count is not None
    assert int(count[1]) == 16 * requests - 5
