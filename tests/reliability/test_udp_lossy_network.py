"""Users over UDP on a network that loses, repeats and reorders packets."""

from __future__ import annotations

import random
import re
from functools import partial
from typing import TYPE_CHECKING

import pytest
from integration.room import c, d
from reliability.crowd import Crowd
from reliability.history import read_history
from reliability.program import Program
from reliability.relay import Faults, Relay

if TYPE_CHECKING:
    from pathlib import Path

    from reliability.crowd import UdpMember

FAULTS = Faults(lost=0.2, repeated=0.1, late=0.2)
NAMES = [f"user{number}" for number in range(5)]
# Each user hears 500 messages of the others.
MESSAGES_EACH = 125
SEEN_EACH = MESSAGES_EACH * len(NAMES)
# Long messages: the loss of one piece must not lose the rest.
LONG_EVERY = 25
LONG_BYTES = 5_000
# A deadline. It takes 40 s, most of it waiting for retransmissions.
TIME_MAX_SECONDS = 250.0
# Deviation of the shares of faults that is not chance.
SHARE_TOLERANCE = 0.05


def text_of(name: str, number: int) -> str:
    text = f"{name} says {number} "
    return text if number % LONG_EVERY else text.ljust(LONG_BYTES, "x")


def leave_at_the_end(member: UdpMember, _: str) -> None:
    """Leave after the last message or confirmation."""
    if len(member.of("C SENT", "D ")) == SEEN_EACH and not member.of("C BYE"):
        member.command("EX")


def test_relay_loses_a_packet_three_times_at_most() -> None:
    """Otherwise chance alone ends a session, once in a few hundred runs."""
    with Relay(1, random.Random(0), Faults(lost=1.0, repeated=0.0, late=0.0)) as relay:
        to = ("127.0.0.1", 2)
        assert [relay.loses(to, b"one") for _ in range(5)] == [True, True, True, False, False]
        assert relay.loses(to, b"another")


@pytest.mark.long
@pytest.mark.timeout(300)
def test_messages_arrive_once_and_in_order_on_a_lossy_network(tmp_path: Path, chance: random.Random) -> None:
    """Promise: users do not notice the losses."""
    with Program(tmp_path) as program, Relay(program.port, chance, FAULTS) as relay, Crowd() as crowd:
        members = crowd.enter_udp(relay.port, NAMES)
        for member in members:
            # It leaves at once: an idle client would have to send pings.
            member.react = partial(leave_at_the_end, member)
            member.send(b"".join(c("PM") + d(text_of(member.name, number)) for number in range(MESSAGES_EACH)))
        crowd.wait_until(lambda: all(each.is_over for each in members), "all messages and ends", TIME_MAX_SECONDS)
        stored = read_history(program.port, NAMES[0])
        log = program.log()
        for count, share in ((relay.lost, FAULTS.lost), (relay.repeated, FAULTS.repeated), (relay.late, FAULTS.late)):
            assert count > relay.carried * max(0.0, share * (1 - FAULTS.lost) - SHARE_TOLERANCE)
    assert "peer_lost" not in log
    assert len(stored) == SEEN_EACH
    for member in members:
        heard = [re.fullmatch(r"D PUBLIC (\w+) (\d+) \d+\n(.*)", frame) for frame in member.of("D ")]
        assert [(int(each[2]), each[1], each[3]) for each in heard] == [
            (message_id, content.sender, content.text)
            for message_id, content in stored.items()
            if content.sender != member.name
        ]
        own = {message_id: content.text for message_id, content in stored.items() if content.sender == member.name}
        assert list(own.values()) == [text_of(member.name, number) for number in range(MESSAGES_EACH)]
        assert member.of("C SENT", "C STORED") == [f"C SENT {message_id}" for message_id in own]
        assert member.of("C ERROR") == []
