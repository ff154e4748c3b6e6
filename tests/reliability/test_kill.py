"""kill -9 at any moment: confirmed and visible messages are stored, and none is stored twice."""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from integration.room import Peer
from reliability.crowd import Crowd
from reliability.history import read_database
from reliability.program import Program
from reliability.senders import Record, Sender, check_stored
from reliability.talkers import GuestTalkers, IrcTalkers, UdpTalkers

if TYPE_CHECKING:
    import random
    from pathlib import Path

NAMES = [f"user{number}" for number in range(20)]
# Each run of the server ends after a random number of answers below this, and a random time.
ANSWERS_MAX = 8_000
LATER_MAX_SECONDS = 0.01
TALKERS = 6
CONFIRMATIONS_MAX = {GuestTalkers: 400, UdpTalkers: 1_000, IrcTalkers: 1_000}


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.long)])
def test_kill_at_any_moment_loses_no_message(tmp_path: Path, chance: random.Random, kills: int) -> None:
    """Promises: a confirmed message is stored; a visible message is stored; once; no id is used twice."""
    record = Record()
    senders = [Sender(name, record, chance) for name in NAMES]
    unconfirmed = 0
    with Program(tmp_path) as program:
        for _ in range(kills):
            answers = record.answers + int(chance.random() ** 3 * ANSWERS_MAX)  # often early, during the logins
            with Crowd() as crowd:
                for sender in senders:
                    sender.log_in(crowd, program.port)
                crowd.wait_until(lambda: record.answers >= answers, f"answer {answers}")  # noqa: B023
                threading.Event().wait(chance.uniform(0, LATER_MAX_SECONDS))
                program.kill()
                crowd.wait_until_all_are_over()
            unconfirmed += sum(len(sender.unconfirmed) for sender in senders)
            program.start()
            record.newest_before = check_stored(program, record, record.newest_before)
        with Crowd() as crowd:
            for sender in senders:
                sender.is_silent = True
                sender.log_in(crowd, program.port)
            crowd.wait_until(
                lambda: len(record.registered) == len(NAMES) and not any(sender.unconfirmed for sender in senders),
                "the confirmations of all repeated messages",
            )
        check_stored(program, record, 0)
    assert "WARNING" not in program.log(), "no loss is reported"
    assert unconfirmed > kills, "the kills hit messages that were in progress"


@pytest.mark.long
@pytest.mark.parametrize("kind", [GuestTalkers, UdpTalkers, IrcTalkers])
def test_kill_loses_no_message_of_guests_udp_and_irc(
    tmp_path: Path, chance: random.Random, kind: type[GuestTalkers | UdpTalkers | IrcTalkers]
) -> None:
    """The names of guests are free again at once. Users of datagram are new each time."""
    newest = in_progress = 0
    with Program(tmp_path) as program:
        with closing(Peer(program.port)) as carol:
            carol.login("carol")
        for life in range(10):
            names = [f"user{number}x{life}" if kind is UdpTalkers else f"user{number}" for number in range(TALKERS)]
            with kind(program.port, names, f"{life}: ") as talkers:
                talkers.wait_for_confirmations(int(chance.random() ** 3 * CONFIRMATIONS_MAX[kind]))
                threading.Event().wait(chance.uniform(0, LATER_MAX_SECONDS))
                program.kill()
                talkers.wait_for_end()
            program.start()
            stored = read_database(program.data, newest)
            times = Counter(stored.values())
            heard = {(content.sender, content.text) for content in stored.values()}
            for talker in talkers.members:
                assert [content for content in talker.confirmed if times[content] != 1] == []
                assert set(talker.heard) <= heard
                assert talker.ids.items() <= stored.items()
                in_progress += len(talker.said) - len(talker.confirmed)
            newest = max(stored, default=newest)
    assert in_progress > 10, "the kills hit messages that were in progress"
