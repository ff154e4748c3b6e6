"""Attacks by connections and datagrams, with a server on one processor: see bystanders.py for the bounds.

Each test has the numbers of a known attack if it is run with ``-m long``.
"""

from __future__ import annotations

import json
import re
import resource
import time
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

import pytest
from integration.room import DatagramPeer, Peer
from reliability.attackers import Attacker, address_of, flood, hold, open_sessions
from reliability.bystanders import ATTACKER, NEW_MAX_SECONDS, Bystanders, Stopwatch, attacked

from chatprotocol.udp.packet import NO_SESSION

if TYPE_CHECKING:
    from pathlib import Path

# Rates of requests have tests of their own.
NO_RATE = {"CHAT_REQUEST_RATE": "0"}
LOG_LINES = {"CHAT_LOG_LINES_PER_ADDRESS": "5"}


@pytest.mark.parametrize(
    ("addresses", "seconds"), [(20, 1), pytest.param(125, 16, marks=[pytest.mark.long, pytest.mark.timeout(300)])]
)
def test_silent_connections_that_act_at_once_delay_no_user(tmp_path: Path, addresses: int, seconds: int) -> None:
    """Sixteen of each address send a byte in the same moment, once a second, and close in the same moment."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < addresses * 40:
        pytest.skip(f"the system allows only {hard} open files")
    with attacked(tmp_path, "--max-connections", "8400", **NO_RATE) as server, Bystanders(server) as bystanders:
        with Attacker(hold, port=server.port, addresses=addresses, each=16, pulse_seconds=1.0):
            server.wait_until(lambda: server.threads() > addresses * 16, "a thread for each")
            bystanders.chat(seconds)
        bystanders.chat(min(seconds, 2))


@pytest.mark.parametrize(
    ("addresses", "seconds"), [(99, 1), *(pytest.param(count, 20, marks=pytest.mark.long) for count in (1, 99))]
)
def test_silent_connections_keep_no_user_out(tmp_path: Path, addresses: int, seconds: int) -> None:
    """They try to hold 198 of 200 slots, and reconnect each time."""
    with attacked(tmp_path, "--max-connections", "200", **NO_RATE, **LOG_LINES) as server:
        with (
            Bystanders(server) as bystanders,
            Attacker(hold, port=server.port, addresses=addresses, each=198 // addresses),
        ):
            bystanders.chat(seconds)
        assert server.stop() == 0
    assert server.log().count("connection rejected") <= 2 * 6 * addresses


@pytest.mark.parametrize("seconds", [1, pytest.param(20, marks=pytest.mark.long)])
def test_account_keeps_no_user_out(tmp_path: Path, seconds: int) -> None:
    """It logs in 195 times, with thirteen addresses, and stays."""
    login = json.dumps({"command": "login", "username": "mallory", "password": "secret"}) + "\n"
    flooders = [(address_of(number % 13), login, "") for number in range(13 * 15)]
    with (
        attacked(tmp_path, "--max-connections", "200") as server,
        Bystanders(server) as bystanders,
        Attacker(flood, port=server.port, flooders=flooders),
    ):
        bystanders.chat(seconds)


@pytest.mark.parametrize(("rate", "seconds"), [(10_000, 1.0), pytest.param(40_000, 10.0, marks=pytest.mark.long)])
def test_openings_over_udp_delay_no_user(tmp_path: Path, rate: int, seconds: float) -> None:
    """A user over UDP pings as fast as others chat, and new ones get in."""
    with attacked(tmp_path, **NO_RATE) as server, Bystanders(server) as bystanders, ExitStack() as stack:
        user, *new = (
            stack.enter_context(closing(DatagramPeer(server.port, f"127.2.0.{number}"))) for number in range(2, 6)
        )
        user.login("user")
        threads = server.threads()
        with Attacker(open_sessions, port=server.port, rate=rate, seconds=seconds) as attacker:
            bystanders.chat(0.8 * seconds, user.until_fence)
            logins = []
            for number, peer in enumerate(new):
                watch = Stopwatch(server)
                peer.login(f"udp{number}")
                logins.append(watch.seconds())
            assert min(logins) < NEW_MAX_SECONDS, logins
            sent, answers, passed_seconds = attacker.result()
        print(f"{sent} openings, {answers} answers in {passed_seconds:.1f} s")
        assert answers <= 20 * (passed_seconds + 2)
        # Those of the new users; those of the last logins over TCP may just be ending.
        server.wait_until(lambda: server.threads() <= threads + len(new), "the end of all other threads")


def test_socket_opens_sixteen_sessions_over_udp(tmp_path: Path) -> None:
    with attacked(tmp_path, CHAT_UDP_OPENINGS="1000") as server:
        before = server.threads()
        with closing(DatagramPeer(server.port, ATTACKER)) as peer:
            sessions: set[int] = set()
            while True:
                text = b"user%d" % len(sessions)
                peer.throw(b"C", NO_SESSION, 0, text + b" " + peer.cookie_for(text))
                while (answer := peer.catch()).session in sessions:  # it came before, and was not acknowledged
                    pass
                if answer.session == NO_SESSION:
                    break
                sessions.add(answer.session)
            assert answer.payload.startswith(b"ERROR rate_limited ")
            assert len(sessions) == 16
        server.wait_until(lambda: server.threads() == before + 16, "a thread for each session")


@pytest.mark.parametrize("requests", [400, pytest.param(2_625, marks=pytest.mark.long)])
def test_refused_requests_do_not_fill_the_log(tmp_path: Path, requests: int) -> None:
    """Sixteen connections of one address send them. The log has five a minute, and the number of the others.

    Without a limit of the rate, which is off here, sixteen busy readers share the interpreter with all others: for a
    second or two, some messages wait for 0.15 s.
    """
    with attacked(tmp_path, **NO_RATE, **LOG_LINES) as server:
        began_at = time.monotonic()
        with Bystanders(server, one_late_of=10) as bystanders, ExitStack() as stack:
            peers = [stack.enter_context(closing(Peer(server.port, ATTACKER))) for _ in range(16)]
            for peer in peers:
                peer.send(b'{"command":"PM","message":"x"}\n' * requests)
            bystanders.chat(1 if requests == 400 else 10)
            for peer in peers:
                peer.until_fence()
        minutes = 1 + (time.monotonic() - began_at) // 60  # one, unless the machine is very busy
        assert server.stop() == 0
    lines = [line for line in server.log().splitlines() if ATTACKER in line]
    assert sum(map(len, lines)) < 5_000 * minutes
    refused = [line for line in lines if "not_logged_in" in line]
    assert len(refused) <= 6 * minutes
    like = r"like='request refused' reason=not_logged_in address=127\.1\.0\.1 count=(\d+)"
    left_out = [int(found[1]) for line in refused if (found := re.search(like, line))]
    assert len(refused) - len(left_out) + sum(left_out) == 16 * requests
