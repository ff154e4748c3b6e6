"""SIGTERM during a conversation: every accepted message is stored, delivered and confirmed.

The clients read and acknowledge as soon as they can, which on a busy machine may take seconds. So the server waits for
them for longer than it promises: its limits have tests in integration/test_server_program.py.
"""

from __future__ import annotations

import json
import socket
import threading
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from integration.room import DEADLINE_SECONDS, Peer
from reliability.crowd import Crowd
from reliability.history import Content, content_of, read_database
from reliability.peers import NarrowPeer
from reliability.program import Program
from reliability.talkers import GuestTalkers, UdpTalkers

if TYPE_CHECKING:
    import random
    from pathlib import Path

    from reliability.crowd import Answer, Member

PATIENT = """
from chatserver import app
app._DRAIN_SECONDS, app._ACK_SECONDS = 20.0, 15.0
"""
SENDERS = 20
RECEIVERS = 50
# Unanswered messages of a sender: at the signal several hundred are in progress.
WINDOW = 20
TALKERS = 8
# A time that a slow reader is waited for.
LATE_SECONDS = 1.0
# Maximum time from a confirmation to the signal.
LATER_MAX_SECONDS = 0.005
BYE = {"type": "bye", "reason": "the server is shutting down"}


class Sender:
    """Sends as fast as it gets answers, to all and sometimes to one user.

    Each message has a nonce, and a ping after it: a pong proves that the message before it was accepted.
    """

    def __init__(self, member: Member, others: list[str], chance: random.Random) -> None:
        self.member = member
        self.said: dict[str, Content] = {}
        self.confirmed: dict[int, Content] = {}
        self.refused: set[str] = set()
        self.pongs = 0
        self._others = others
        self._chance = chance
        member.react = self._react
        for _ in range(WINDOW):
            self._say_next()

    def _react(self, _: Member, answer: Answer) -> None:
        if answer["type"] == "sent":
            self.confirmed[answer["id"]] = self.said[answer["nonce"]]
            self._say_next()
        elif answer["type"] == "pong":
            self.pongs += 1
        elif answer["type"] == "error":
            assert answer["code"] == "shutting_down", answer
            self.refused.add(answer["nonce"])

    def _say_next(self) -> None:
        nonce = f"n{len(self.said)}"
        recipient = self._chance.choice(self._others) if self._chance.random() < 0.1 else None
        self.said[nonce] = Content(self.member.name, recipient, f"{self.member.name} says {len(self.said)}")
        to = {"command": "PM"} if recipient is None else {"command": "DM", "to": recipient}
        self.member.ask(**to, message=self.said[nonce].text, nonce=nonce)
        self.member.ask(command="ping")


def heard_by(name: str, stored: dict[int, Content]) -> dict[int, Content]:
    """The messages of others to all or to this user."""
    return {key: each for key, each in stored.items() if each.sender != name and each.recipient in (None, name)}


def start_senders(crowd: Crowd, port: int, chance: random.Random) -> list[Sender]:
    """Log in all users; the first of them send."""
    members = crowd.enter(port, [f"user{number}" for number in range(SENDERS + RECEIVERS)])
    names = [member.name for member in members]
    with crowd.changed:  # no reaction before all have begun
        return [Sender(member, [name for name in names if name != member.name], chance) for member in members[:SENDERS]]


def check_all_is_told(members: list[Member], senders: list[Sender], data: Path) -> None:
    stored = read_database(data)
    for member in members:
        assert member.seen[-1] == BYE, member.name
        heard = {answer["id"]: content_of(answer) for answer in member.of("broadcast", "direct")}
        assert heard == heard_by(member.name, stored), member.name
        ids = [answer["id"] for answer in member.of("broadcast", "direct", "sent")]
        assert ids == sorted(set(ids)), f"{member.name} saw a message twice or too early"
    for sender in senders:
        own = {key: content for key, content in stored.items() if content.sender == sender.member.name}
        assert sender.confirmed == own
        refused = {sender.said[nonce] for nonce in sender.refused}
        assert not refused & set(own.values())
        accepted = set(list(sender.said.values())[: sender.pongs])
        assert accepted - refused - set(own.values()) == set(), "accepted and lost"
    assert sum(len(sender.said) for sender in senders) > len(stored), "the signal hit messages that were in progress"


def is_open(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), DEADLINE_SECONDS).close()
    except ConnectionError:
        return False
    return True


@pytest.mark.parametrize("confirmations", [300, *(pytest.param(count, marks=pytest.mark.long) for count in (1, 1_500))])
def test_shutdown_delivers_every_accepted_message(tmp_path: Path, chance: random.Random, confirmations: int) -> None:
    with Program(tmp_path, prelude=PATIENT) as program, Crowd() as crowd:
        senders = start_senders(crowd, program.port, chance)
        crowd.wait_until(
            lambda: sum(len(sender.confirmed) for sender in senders) >= confirmations, f"{confirmations} confirmations"
        )
        threading.Event().wait(chance.uniform(0, LATER_MAX_SECONDS))
        assert program.stop() == 0
        crowd.wait_until_all_are_over()
    check_all_is_told(crowd.members, senders, program.data)


def test_shutdown_waits_for_a_slow_reader(tmp_path: Path) -> None:
    """Its last requests are read and discarded: a close over unread input would destroy what it has not read yet."""
    with (
        Program(tmp_path, prelude=PATIENT) as program,
        closing(NarrowPeer(program.port)) as late,
        closing(Peer(program.port)) as other,
    ):
        late.login("late")
        other.login("other")
        for _ in range(100):
            other.say("x" * 4_000)
        program.process.terminate()
        program.wait_until(lambda: not is_open(program.port), "the closed port")
        late.send(b'{"command":"ping"}\n' * 1_000)
        threading.Event().wait(LATE_SECONDS)
        answers = late.rest()
        assert program.process.wait(DEADLINE_SECONDS) == 0
    assert sum(answer["type"] == "broadcast" for answer in answers) == 100
    assert answers[-1] == BYE


@pytest.mark.parametrize("confirmations", [200, *(pytest.param(count, marks=pytest.mark.long) for count in (1, 1_000))])
@pytest.mark.parametrize("kind", [GuestTalkers, UdpTalkers])
def test_shutdown_delivers_messages_of_guests_and_udp(
    tmp_path: Path, chance: random.Random, confirmations: int, kind: type[GuestTalkers | UdpTalkers]
) -> None:
    """A message is stored if and only if it is confirmed."""
    with Program(tmp_path, prelude=PATIENT) as program, closing(Peer(program.port)) as carol:
        carol.login("carol")
        with kind(program.port, [f"user{number}" for number in range(TALKERS)]) as talkers:
            talkers.wait_for_confirmations(confirmations)
            threading.Event().wait(chance.uniform(0, LATER_MAX_SECONDS))
            program.process.terminate()
            talkers.wait_for_end()
            assert program.process.wait(DEADLINE_SECONDS) == 0
        heard_by_carol = {content_of(answer) for answer in map(json.loads, iter(carol.line, b"")) if "id" in answer}
    stored = read_database(program.data)
    for talker in talkers.members:
        own = [content for content in stored.values() if content.sender == talker.name]
        assert own == talker.said[: len(own)]
        assert talker.confirmed == own, "all recipients acknowledge, so every stored message is confirmed"
        assert talker.heard == [(each.sender, each.text) for each in heard_by(talker.name, stored).values()]
        assert talker.ids.items() <= stored.items()
    assert heard_by_carol == set(heard_by("carol", stored).values())
    assert len(stored) < sum(len(talker.said) for talker in talkers.members), "the signal hit messages in progress"
