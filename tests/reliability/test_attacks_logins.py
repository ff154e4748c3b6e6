"""Attacks on logins and registrations, with a server on one processor: owners log in, and others chat.

Attackers have addresses in 127.1.0.0/16. Each test has the numbers of a known attack if it is run with ``-m long``.
"""

from __future__ import annotations

import resource
import time
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

import pytest
from integration.room import Peer
from reliability.bystanders import (
    NEW_MAX_SECONDS,
    ONE_PROCESSOR,
    Bystanders,
    assert_known_user_gets_in,
    seconds_to_log_in,
)
from reliability.guessers import Guessers
from reliability.program import Program

if TYPE_CHECKING:
    from pathlib import Path

# The bystanders, and the settings of the server. Limits of connections have tests of their own.
HERE, HOME, HOTEL = "127.0.0.1", "127.2.0.1", "127.2.0.2"
SETTINGS = {
    "CHAT_EXEMPT": HERE,
    "CHAT_ADDRESS_CONNECTIONS": "0",
    "CHAT_ADDRESS_NEW_CONNECTIONS": "0",
    "CHAT_WAITING_PERCENT": "100",
}
DEFAULT_HASHES = {"CHAT_HASH_TIME_COST": "", "CHAT_HASH_MEMORY_KIB": ""}
MANY = 2_000


def guessers_of_many_addresses(count: int) -> list[tuple[str, str]]:
    return [(f"127.1.{number // 200}.{number % 200 + 1}", "alice") for number in range(count)]


@pytest.mark.parametrize(
    ("addresses", "seconds"), [(40, 1), pytest.param(400, 75, marks=[pytest.mark.long, pytest.mark.timeout(200)])]
)
def test_owner_logs_in_while_many_addresses_guess_the_password(tmp_path: Path, addresses: int, seconds: int) -> None:
    """Each address has one try at once; then all of them together have 24 a minute."""
    with Program(tmp_path, under=ONE_PROCESSOR, **SETTINGS) as server:
        seconds_to_log_in(server.port, "alice", HOME)
        with Bystanders(server.port) as bystanders:
            with Guessers(server.port, guessers_of_many_addresses(addresses), seconds) as guessers:
                began_at, step = time.monotonic(), seconds / 5
                for number in range(1, 5):
                    bystanders.chat(began_at + number * step)
                    assert_known_user_gets_in(server.port, "alice", HOME)
                    assert seconds_to_log_in(server.port, "alice", f"127.2.1.{number}") < NEW_MAX_SECONDS, "a new one"
                times = guessers.times()
            bystanders.assert_quick()
            assert len(times) <= addresses + 5 + (seconds + 2) / 2.5
            assert sum(at > seconds / 2 for at in times) <= seconds / 2 / 2.5 + 3


@pytest.mark.parametrize(
    ("accounts", "seconds"), [(10, 1), pytest.param(100, 75, marks=[pytest.mark.long, pytest.mark.timeout(200)])]
)
def test_one_address_guesses_passwords_of_many_accounts(tmp_path: Path, accounts: int, seconds: int) -> None:
    """After 30 tries it has 48 a minute. Its own users log in at once."""
    with Program(tmp_path, under=ONE_PROCESSOR, **{**SETTINGS, "CHAT_EXEMPT": "127.0.0.0/8"}) as server:
        for number in range(accounts):
            seconds_to_log_in(server.port, f"user{number}", HOME)
        seconds_to_log_in(server.port, "alice", "127.1.0.1")
        with Bystanders(server.port) as bystanders:
            guesses = [("127.1.0.1", f"user{number}") for number in range(accounts)]
            with Guessers(server.port, guesses, seconds) as guessers:
                bystanders.chat(time.monotonic() + seconds / 2)
                assert_known_user_gets_in(server.port, "alice", "127.1.0.1")
                assert_known_user_gets_in(server.port, "user1", HOME)
                times = guessers.times()
            bystanders.assert_quick()
            assert len(times) <= 30 + (seconds + 2) / 1.25
            assert sum(at > seconds / 2 for at in times) <= seconds / 2 / 1.25 + 3


@pytest.mark.parametrize(
    ("connections", "reconnects", "seconds"),
    [
        (3, False, 1),
        pytest.param(10, False, 60, marks=[pytest.mark.long, pytest.mark.timeout(200)]),
        pytest.param(10, True, 60, marks=[pytest.mark.long, pytest.mark.timeout(200)]),
    ],
)
def test_owner_logs_in_from_the_address_that_guesses(
    tmp_path: Path, connections: int, seconds: int, *, reconnects: bool
) -> None:
    """All users have the address of a proxy, or of Docker's port. The owner waits for each connection at most once."""
    with Program(tmp_path, under=ONE_PROCESSOR, **SETTINGS) as server:
        seconds_to_log_in(server.port, "alice", HOME)
        seconds_to_log_in(server.port, "bob", HOME)
        with Guessers(server.port, [(HOME, "alice")] * connections, seconds, reconnects=reconnects):
            waits = []
            for _ in range(1 if seconds == 1 else 5):
                time.sleep(seconds / 10)
                waits.append(seconds_to_log_in(server.port, "alice", HOME))
                assert_known_user_gets_in(server.port, "bob", HOME)
            assert max(waits) < (connections + 1) * 1.25 + 0.5, waits


@pytest.mark.parametrize(("accounts", "rounds"), [(6, 1), pytest.param(20, 10, marks=pytest.mark.long)])
def test_accounts_that_log_in_all_the_time_delay_no_known_user(tmp_path: Path, accounts: int, rounds: int) -> None:
    """Their passwords are right, so no limit of tries holds. Each has eight connections; the accounts take turns.

    A further login of one of them waits for all others, and so eight times as long as the known user.
    """
    with Program(tmp_path, under=ONE_PROCESSOR, **SETTINGS, **DEFAULT_HASHES, CHAT_REGISTRATIONS="0") as server:
        users = [(f"127.1.0.{number}", f"user{number}") for number in range(accounts)]
        for address, name in [*users, (HOME, "alice")]:
            seconds_to_log_in(server.port, name, address)
        with Bystanders(server.port) as bystanders:
            with Guessers(server.port, users * 8, 60, password="secret"):
                for _ in range(rounds):
                    bystanders.chat(time.monotonic() + 1)
                    known, further = (
                        min(seconds_to_log_in(server.port, name, address) for _ in range(3))
                        for address, name in [(HOME, "alice"), users[0]]
                    )
                    assert known < further / 2
            bystanders.assert_quick()


@pytest.mark.parametrize("seconds", [1, pytest.param(10, marks=pytest.mark.long)])
def test_tries_that_wait_keep_no_user_out(tmp_path: Path, seconds: int) -> None:
    """Forty addresses guess one password. Their waiting tries hold the 50 slots of peers without a login."""
    settings = {"CHAT_EXEMPT": HERE, "CHAT_ADDRESS_NEW_CONNECTIONS": "16"}
    with Program(tmp_path, "--max-connections", "200", under=ONE_PROCESSOR, **settings) as server:
        seconds_to_log_in(server.port, "alice", HOME)
        seconds_to_log_in(server.port, "bob", HOTEL)
        guesses = guessers_of_many_addresses(40) * 4
        with Bystanders(server.port) as bystanders, Guessers(server.port, guesses, 60):
            refused = "connection rejected reason=address_new_connections"
            server.wait_until(lambda: server.log().count(refused) >= 40, "all connections that they may make")
            for number in range(seconds):
                bystanders.chat(time.monotonic() + 0.5)
                assert_known_user_gets_in(server.port, "alice", HOME)
                assert_known_user_gets_in(server.port, "bob", HOTEL)
                assert seconds_to_log_in(server.port, f"new{number}", f"127.2.1.{number}") < NEW_MAX_SECONDS
            bystanders.assert_quick()


@pytest.mark.parametrize(
    ("connections", "seconds"), [(20, 1), pytest.param(100, 30, marks=[pytest.mark.long, pytest.mark.timeout(200)])]
)
def test_one_address_registers_names(tmp_path: Path, connections: int, seconds: int) -> None:
    """Five at most are registered. The others are refused before they cost a hash."""
    with Program(tmp_path, under=ONE_PROCESSOR, **SETTINGS, **DEFAULT_HASHES) as server:
        seconds_to_log_in(server.port, "alice", HOME)
        with Bystanders(server.port) as bystanders:
            registering = [("127.1.0.1", f"new{number}") for number in range(connections)]
            with Guessers(server.port, registering, seconds, reconnects=True):
                bystanders.chat(time.monotonic() + seconds / 2)
                assert_known_user_gets_in(server.port, "alice", HOME)
            bystanders.assert_quick()
            # Alice, the bystanders, and five of the attacker, if these have not hung up before their hash.
            assert server.log().count("account=new") <= 3 + 5


@pytest.mark.parametrize("many", [200, pytest.param(MANY, marks=[pytest.mark.long, pytest.mark.timeout(200)])])
def test_many_register_and_hang_up_at_once(tmp_path: Path, many: int) -> None:
    """Their hashes are dropped, and a login does not wait for them. Without any limit of registrations."""
    limits = {"CHAT_ADDRESS_REGISTRATIONS": "0", "CHAT_REGISTRATIONS": "0"}
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2 * many:
        pytest.skip(f"the system allows only {hard} open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with Program(tmp_path, under=ONE_PROCESSOR, **SETTINGS, **DEFAULT_HASHES, **limits) as server:
        seconds_to_log_in(server.port, "alice", HOME)
        with Bystanders(server.port) as bystanders:
            with ExitStack() as stack:
                peers = [stack.enter_context(closing(Peer(server.port, "127.1.0.1"))) for _ in range(many)]
                for number, peer in enumerate(peers):
                    peer.ask(command="login", username=f"new{number}", password="secret")
            # The server reads what the others sent first: 2 s for 2,000, and not 45 s, as for their hashes.
            assert seconds_to_log_in(server.port, "alice", HOME) < NEW_MAX_SECONDS * (1 if many < MANY else 2)
            bystanders.chat(time.monotonic() + 1)
            bystanders.assert_quick()
            assert seconds_to_log_in(server.port, "new", HOTEL) < NEW_MAX_SECONDS
        # Those of the first second are hashed: a peer that closed its side may still read.
        assert server.log().count("account=new") < 4 + 100
