"""Attacks by cheap requests at full speed, with a server on one processor: others chat, and users get in.

Attackers have addresses in 127.1.0.0/16, sixteen connections each, and as users eight connections each. With
``-m long`` there are 400 connections.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest
from reliability.bystanders import (
    NEW_MAX_SECONDS,
    ONE_PROCESSOR,
    Bystanders,
    assert_known_user_gets_in,
    seconds_to_log_in,
)
from reliability.flooders import Flood, Flooder
from reliability.program import Program

if TYPE_CHECKING:
    from pathlib import Path

MEBIBYTE = 1024 * 1024
# The bystanders, and users with limits.
HERE, HOME = "127.0.0.1", "127.2.0.1"
SETTINGS = {
    "CHAT_EXEMPT": HERE,
    "CHAT_ADDRESS_REGISTRATIONS": "0",
    "CHAT_REGISTRATIONS": "0",
    "CHAT_LOG_LINES_PER_ADDRESS": "5",
}
MEMORY_MAX_BYTES = 100 * MEBIBYTE
LOG_MAX_BYTES_EACH = 1_000
PING = '{"command":"ping"}\n'
FLOODS = {
    "pings": PING,
    "names without passwords": '{"command":"login","username":"known"}\n',
    "unknown commands": '{"command":"what"}\n',
    "histories": '{"command":"CH"}\n',
    "empty lines": "\n",
    "a line without an end": "x",
    "objects without lines": "{}",
}


@pytest.mark.parametrize(
    ("connections", "seconds"), [(48, 1), pytest.param(400, 15, marks=[pytest.mark.long, pytest.mark.timeout(120)])]
)
@pytest.mark.parametrize("are_logged_in", [False, True], ids=["strangers", "users"])
def test_flood_of_requests_delays_no_user(
    tmp_path: Path, connections: int, seconds: int, *, are_logged_in: bool
) -> None:
    """Each connection sends one of the floods. Without a rate, no other user gets a message for seconds."""

    def flooder(number: int) -> Flooder:
        repeated = [*FLOODS.values()][number // 8 % len(FLOODS)]
        login = {"command": "login", "username": f"mallory{number // 8}", "password": "secret"}
        return Flooder(f"127.1.0.{number // 16 + 1}", json.dumps(login) + "\n" if are_logged_in else PING, repeated)

    with Program(tmp_path, under=ONE_PROCESSOR, **SETTINGS) as server, Bystanders(server.port) as bystanders:
        seconds_to_log_in(server.port, "known", HOME)
        memory, log = server.memory_bytes(), len(server.log())
        with Flood(server.port, [flooder(number) for number in range(connections)]):
            for number in range(seconds):
                bystanders.chat(time.monotonic() + 1.0)
                assert_known_user_gets_in(server.port, "known", HOME)
                assert seconds_to_log_in(server.port, f"new{number}", f"127.2.1.{number}") < NEW_MAX_SECONDS
                assert server.memory_bytes() - memory < MEMORY_MAX_BYTES
        bystanders.assert_quick()
        assert len(server.log()) - log < connections * LOG_MAX_BYTES_EACH
