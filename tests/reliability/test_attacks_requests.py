"""Attacks by cheap requests at full speed, with a server on one processor: see bystanders.py for the bounds.

Attackers have sixteen connections for each address, and as users eight connections each. With ``-m long`` there are
400 connections.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from reliability.attackers import Attacker, address_of, flood
from reliability.bystanders import NO_REGISTRATION_LIMITS, Bystanders, attacked

if TYPE_CHECKING:
    from pathlib import Path

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
# Their answers are long, or many, or they ask about many users.
IRC_FLOOD = "".join(
    f"{command}\r\n"
    for command in (
        *("CAP LS 302", "HELP", "WHO *a*b*c*", "JOIN #lobby,#flood", "PART #lobby", "AWAY :x", "NICK x", " ", "\0"),
        *(f"MODE #flood +{'x' * 480}", f"MODE #flood {'b' * 480}", "CHATHISTORY LATEST #lobby * 500", "BATCH +1"),
        f"ISON {' '.join(f'user{number}' for number in range(60))}",
        f"MONITOR + {','.join(f'user{number}' for number in range(60))}",
    )
)


@pytest.mark.parametrize(
    ("connections", "seconds"), [(48, 1), pytest.param(400, 15, marks=[pytest.mark.long, pytest.mark.timeout(300)])]
)
@pytest.mark.parametrize("are_logged_in", [False, True], ids=["strangers", "users"])
def test_flood_of_requests_delays_no_user(
    tmp_path: Path, connections: int, seconds: int, *, are_logged_in: bool
) -> None:
    """Each connection sends one of the floods. Without a rate, no other user gets a message for seconds."""

    def flooder(number: int) -> tuple[str, str, str]:
        if number % 8 == 7:
            login = f"NICK irc{number}\r\nUSER u 0 * :u\r\nJOIN #lobby\r\n"
            return address_of(number // 16), login if are_logged_in else "CAP LS 302\r\n", IRC_FLOOD
        repeated = [*FLOODS.values()][number // 8 % len(FLOODS)]
        login = {"command": "login", "username": f"mallory{number // 8}", "password": "secret"}
        return address_of(number // 16), json.dumps(login) + "\n" if are_logged_in else PING, repeated

    with (
        attacked(tmp_path, **NO_REGISTRATION_LIMITS, CHAT_LOG_LINES_PER_ADDRESS="5") as server,
        Bystanders(server) as bystanders,
    ):
        log = len(server.log())
        with Attacker(flood, port=server.port, flooders=[flooder(number) for number in range(connections)]):
            bystanders.chat(seconds)
        assert len(server.log()) - log < connections * LOG_MAX_BYTES_EACH
