"""Attacks on logins and registrations, with a server on one processor: see bystanders.py for the bounds.

Each test has the numbers of a known attack if it is run with ``-m long``.
"""

from __future__ import annotations

import re
import resource
import statistics
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

import pytest
from integration.room import Peer
from reliability.attackers import Attacker, address_of, guess
from reliability.bystanders import (
    ATTACKER,
    DEFAULT_HASHES,
    HOME,
    KNOWN_MAX_SECONDS,
    NEW_MAX_SECONDS,
    NO_CONNECTION_LIMITS,
    NO_REGISTRATION_LIMITS,
    Bystanders,
    Stopwatch,
    attacked,
    longest,
    seconds_to_log_in,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from reliability.program import Program

LONG = [pytest.mark.long, pytest.mark.timeout(300)]


def logins_of(server: Program) -> Sequence[str]:
    """The users who have logged in, in the order of the log."""
    return re.findall(r"\[INFO\] login user=(\S+)", server.log())


@pytest.mark.parametrize(("addresses", "seconds"), [(40, 1), pytest.param(400, 75, marks=LONG)])
def test_owner_logs_in_while_many_addresses_guess_the_password(tmp_path: Path, addresses: int, seconds: int) -> None:
    """Each address has one try at once; then all of them together have 24 a minute."""
    guessers = [(address_of(number), "known") for number in range(addresses)]
    with attacked(tmp_path, **NO_CONNECTION_LIMITS) as server, Bystanders(server) as bystanders:
        with Attacker(guess, port=server.port, guessers=guessers, seconds=seconds) as attacker:
            bystanders.chat(0.8 * seconds)
            times = attacker.result()
        assert all(number <= addresses + 5 + at / 2.5 for number, at in enumerate(times, 1)), times


@pytest.mark.parametrize(("accounts", "seconds"), [(10, 1), pytest.param(100, 75, marks=LONG)])
def test_one_address_guesses_passwords_of_many_accounts(tmp_path: Path, accounts: int, seconds: int) -> None:
    """After 30 tries it has 48 a minute. Its own users log in at once."""
    guessers = [(ATTACKER, f"user{number}") for number in range(accounts)]
    with attacked(tmp_path, **NO_CONNECTION_LIMITS, **NO_REGISTRATION_LIMITS) as server:
        for _, name in guessers:
            seconds_to_log_in(server, name, HOME)
        seconds_to_log_in(server, "alice", ATTACKER)
        with Bystanders(server) as bystanders:
            with Attacker(guess, port=server.port, guessers=guessers, seconds=seconds) as attacker:
                bystanders.chat(0.8 * seconds)
                logins = [seconds_to_log_in(server, "alice", ATTACKER) for _ in range(3)]
                assert min(logins) < KNOWN_MAX_SECONDS, logins
                times = attacker.result()
            assert all(number <= 30 + at / 1.25 for number, at in enumerate(times, 1)), times


@pytest.mark.parametrize(
    ("connections", "reconnects", "seconds"),
    [(3, False, 1), pytest.param(10, False, 60, marks=LONG), pytest.param(10, True, 60, marks=LONG)],
)
def test_owner_logs_in_from_the_address_that_guesses(
    tmp_path: Path, connections: int, seconds: int, *, reconnects: bool
) -> None:
    """All users have the address of a proxy, or of Docker's port. Only the owner waits: once for each connection."""
    guessers = [(HOME, "alice")] * connections
    with attacked(tmp_path, **NO_CONNECTION_LIMITS, **NO_REGISTRATION_LIMITS) as server:
        seconds_to_log_in(server, "alice", HOME)
        with (
            Bystanders(server) as bystanders,
            Attacker(guess, port=server.port, guessers=guessers, seconds=seconds, reconnects=reconnects),
        ):
            waits = []
            for _ in range(1 if seconds == 1 else 5):
                bystanders.chat(seconds / 10)
                waits.append(seconds_to_log_in(server, "alice", HOME))
            assert longest(waits, 5, 1) < (connections + 1) * 1.25 + 0.5, waits


@pytest.mark.parametrize(("accounts", "seconds"), [(4, 1), pytest.param(10, 10, marks=pytest.mark.long)])
def test_accounts_that_log_in_all_the_time_delay_no_known_user(tmp_path: Path, accounts: int, seconds: int) -> None:
    """Their passwords are right, so no limit of tries holds. Each has eight connections; the accounts take turns.

    So a known user waits for one login of each account, and a further login of an attacker for all eight.

    The server hashes all the time, but not with the default cost: eighty such hashes take minutes on a busy machine.
    """
    hashes = {"CHAT_HASH_TIME_COST": "2", "CHAT_HASH_MEMORY_KIB": "4096"}
    users = [(address_of(number), f"user{number}") for number in range(accounts)]
    with attacked(tmp_path, **NO_CONNECTION_LIMITS, **hashes, CHAT_REGISTRATIONS="0") as server:

        def logins_before(address: str, name: str) -> int:
            """How many others are let in while this login waits. A time would depend on what else the machine runs."""
            earlier = len(logins_of(server))
            seconds_to_log_in(server, name, address)
            server.wait_until(lambda: name in logins_of(server)[earlier:], "its line of the log")
            later = logins_of(server)[earlier:]
            return len(later) - 1 - later[::-1].index(name)

        for address, name in users:
            seconds_to_log_in(server, name, address)
        with (
            Bystanders(server) as bystanders,
            Attacker(guess, port=server.port, guessers=users * 8, seconds=600, password="secret"),
        ):
            bystanders.chat(seconds)
            server.wait_until(lambda: logins_before(*users[0]) > 4 * accounts, "an attack with all its connections")
            known = [logins_before(HOME, "known") for _ in range(5)]
        # Others also log in while this process stalls before it sends its login.
        assert statistics.median(known) <= 2 * accounts, known


@pytest.mark.parametrize("seconds", [1, pytest.param(10, marks=pytest.mark.long)])
def test_tries_that_wait_keep_no_user_out(tmp_path: Path, seconds: int) -> None:
    """Forty addresses guess one password. Their waiting tries hold the 50 slots of peers without a login."""
    guessers = [(address_of(number % 40), "known") for number in range(160)]
    refused = "connection rejected reason=address_new_connections"
    with (
        attacked(tmp_path, "--max-connections", "200", CHAT_ADDRESS_NEW_CONNECTIONS="16") as server,
        Bystanders(server) as bystanders,
        Attacker(guess, port=server.port, guessers=guessers, seconds=600),
    ):
        server.wait_until(lambda: server.log().count(refused) >= 40, "all connections that they may make")
        bystanders.chat(seconds)


@pytest.mark.parametrize(("connections", "seconds"), [(20, 1), pytest.param(100, 30, marks=LONG)])
def test_one_address_registers_names(tmp_path: Path, connections: int, seconds: int) -> None:
    """Five at most are registered. The others are refused before they cost a hash."""
    guessers = [(ATTACKER, f"mallory{number}") for number in range(connections)]
    with attacked(tmp_path, **NO_CONNECTION_LIMITS, **DEFAULT_HASHES) as server, Bystanders(server) as bystanders:
        with Attacker(guess, port=server.port, guessers=guessers, seconds=seconds):
            bystanders.chat(0.8 * seconds)
        assert len(re.findall(r"user=mallory\d+ account=new", server.log())) <= 5


@pytest.mark.parametrize("count", [200, pytest.param(2_000, marks=LONG)])
def test_many_register_and_hang_up_at_once(tmp_path: Path, count: int) -> None:
    """Their hashes are dropped, and a login does not wait for them. Without any limit of registrations."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2 * count:
        pytest.skip(f"the system allows only {hard} open files")
    settings = {**NO_CONNECTION_LIMITS, **NO_REGISTRATION_LIMITS, **DEFAULT_HASHES}

    def registered() -> int:
        return len(re.findall(r"user=mallory\d+ account=new", server.log()))

    with attacked(tmp_path, **settings) as server, Bystanders(server) as bystanders:
        threads = server.threads()
        with ExitStack() as stack:
            stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            peers = [stack.enter_context(closing(Peer(server.port, ATTACKER))) for _ in range(count)]
            for number, peer in enumerate(peers):
                peer.ask(command="login", username=f"mallory{number}", password="secret")
        before = registered()
        watch = Stopwatch(server)
        server.wait_until(lambda: server.threads() <= threads + 10, "the end of their threads")
        print(f"hashes dropped after {watch.seconds():.1f} s")
        assert watch.seconds() < 1 + NEW_MAX_SECONDS  # those of the first second are not dropped
        bystanders.chat(1 if count == 200 else 10)
        # Those of the first second are hashed: a peer that closed its side may still read.
        assert registered() - before < 100
