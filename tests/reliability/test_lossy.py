"""A network that loses, repeats and reorders datagrams: nobody notices."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import pytest
from integration.room import c, d
from reliability.callers import Callers
from reliability.history import Content, read_history
from reliability.program import Program
from reliability.relay import Faults, Relay

if TYPE_CHECKING:
    import random
    from pathlib import Path

    from reliability.callers import Caller

FAULTS = Faults(lost=0.2, repeated=0.1, late=0.2)
NAMES = [f"user{number}" for number in range(5)]
# Each hears 500 of the others.
MESSAGES_EACH = 125
HEARD_EACH = MESSAGES_EACH * (len(NAMES) - 1)
# In pieces, so that losing one of them is losing all.
LONG_EVERY = 25
LONG_BYTES = 5_000
# It takes 40 s, most of it waiting to send again: longer if the same datagram is lost again and again.
TIME_MAX_SECONDS = 100.0
# Much less than a twentieth is so unlikely that it is not chance.
SHARE_TOLERANCE = 0.05


def text_of(name: str, number: int) -> str:
    text = f"{name} says {number} "
    return text if number % LONG_EVERY else text.ljust(LONG_BYTES, "x")


def heard_by(caller: Caller) -> list[tuple[int, str, str]]:
    """Id, sender and text of all, in the order in which they came."""
    found = []
    for frame in caller.of("D "):
        header = re.match(r"D PUBLIC (\w+) (\d+) \d+\n", frame)
        assert header is not None, frame
        found.append((int(header[2]), header[1], frame[header.end() :]))
    return found


@pytest.mark.timeout(150)
def test_through_a_network_that_loses_repeats_and_reorders_all_comes_once_and_in_order(
    tmp_path: Path, chance: random.Random
) -> None:
    """Promise: whoever sits at a client does not notice."""
    with Program(tmp_path) as program, Relay(program.port, chance, FAULTS) as relay, Callers() as crowd:
        started = time.monotonic()
        callers = crowd.enter(relay.port, NAMES)
        for caller in callers:
            caller.send(b"".join(c("PM") + d(text_of(caller.name, number)) for number in range(MESSAGES_EACH)))
        crowd.wait_until(
            lambda: all(len(each.of("C SENT")) + len(each.of("D ")) == MESSAGES_EACH + HEARD_EACH for each in callers),
            "all that was said and confirmed",
            TIME_MAX_SECONDS,
        )
        for caller in callers:
            caller.command("EX")
        crowd.wait_until(lambda: all(caller.is_over for caller in callers), "the goodbyes")
        print(f"{time.monotonic() - started:.1f} s for {relay.carried} datagrams, {relay.lost} of them lost")
        stored = read_history(program.port, NAMES[0])
        log = program.log()
        for count, share in ((relay.lost, FAULTS.lost), (relay.repeated, FAULTS.repeated), (relay.late, FAULTS.late)):
            assert count > relay.carried * max(0.0, share * (1 - FAULTS.lost) - SHARE_TOLERANCE)
    assert "disconnected" not in log
    in_order = [(message_id, content.sender, content.text) for message_id, content in stored.items()]
    assert len(in_order) == MESSAGES_EACH * len(NAMES)
    for caller in callers:
        assert heard_by(caller) == [each for each in in_order if each[1] != caller.name]
        own = [(message_id, text) for message_id, sender, text in in_order if sender == caller.name]
        assert [text for _, text in own] == [text_of(caller.name, number) for number in range(MESSAGES_EACH)]
        assert caller.of("C SENT", "C STORED") == [f"C SENT {message_id}" for message_id, _ in own]
        assert caller.of("C ERROR") == []
    assert Content(NAMES[0], None, text_of(NAMES[0], 1)) in stored.values()
