"""Users over UDP on a network that loses, repeats and reorders packets."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import pytest
from integration.room import c, d
from reliability.callers import Callers
from reliability.history import read_history
from reliability.program import Program
from reliability.relay import Faults, Relay

if TYPE_CHECKING:
    import random
    from pathlib import Path

    from reliability.callers import Caller

FAULTS = Faults(lost=0.2, repeated=0.1, late=0.2)
NAMES = [f"user{number}" for number in range(5)]
# Each user hears 500 messages of the others.
MESSAGES_EACH = 125
HEARD_EACH = MESSAGES_EACH * (len(NAMES) - 1)
# Long messages: the loss of one piece must not lose the rest.
LONG_EVERY = 25
LONG_BYTES = 5_000
# It takes 40 s, most of it waiting for resends.
TIME_MAX_SECONDS = 100.0
# Deviation of the shares of faults that is not chance.
SHARE_TOLERANCE = 0.05


def text_of(name: str, number: int) -> str:
    text = f"{name} says {number} "
    return text if number % LONG_EVERY else text.ljust(LONG_BYTES, "x")


def heard_by(caller: Caller) -> list[tuple[int, str, str]]:
    """Id, sender and text of each message, in the order of arrival."""
    found = []
    for frame in caller.of("D "):
        header = re.match(r"D PUBLIC (\w+) (\d+) \d+\n", frame)
        assert header is not None, frame
        found.append((int(header[2]), header[1], frame[header.end() :]))
    return found


@pytest.mark.long
@pytest.mark.timeout(150)
def test_messages_arrive_once_and_in_order_on_a_lossy_network(tmp_path: Path, chance: random.Random) -> None:
    """Promise: users do not notice the losses."""
    with Program(tmp_path) as program, Relay(program.port, chance, FAULTS) as relay, Callers() as crowd:
        started = time.monotonic()
        callers = crowd.enter(relay.port, NAMES)
        for caller in callers:
            caller.send(b"".join(c("PM") + d(text_of(caller.name, number)) for number in range(MESSAGES_EACH)))
        crowd.wait_until(
            lambda: all(len(each.of("C SENT")) + len(each.of("D ")) == MESSAGES_EACH + HEARD_EACH for each in callers),
            "all messages and confirmations",
            TIME_MAX_SECONDS,
        )
        for caller in callers:
            caller.command("EX")
        crowd.wait_until(lambda: all(caller.is_over for caller in callers), "the goodbyes")
        print(f"{time.monotonic() - started:.1f} s for {relay.carried} packets, {relay.lost} of them lost")
        stored = read_history(program.port, NAMES[0])
        log = program.log()
        for count, share in ((relay.lost, FAULTS.lost), (relay.repeated, FAULTS.repeated), (relay.late, FAULTS.late)):
            assert count > relay.carried * max(0.0, share * (1 - FAULTS.lost) - SHARE_TOLERANCE)
    assert "peer_lost" not in log
    in_order = [(message_id, content.sender, content.text) for message_id, content in stored.items()]
    assert len(in_order) == MESSAGES_EACH * len(NAMES)
    for caller in callers:
        assert heard_by(caller) == [each for each in in_order if each[1] != caller.name]
        own = [(message_id, text) for message_id, sender, text in in_order if sender == caller.name]
        assert [text for _, text in own] == [text_of(caller.name, number) for number in range(MESSAGES_EACH)]
        assert caller.of("C SENT", "C STORED") == [f"C SENT {message_id}" for message_id, _ in own]
        assert caller.of("C ERROR") == []
