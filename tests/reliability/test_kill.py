"""kill -9 at any moment: confirmed and visible messages are stored, and none is stored twice."""

from __future__ import annotations

import threading
from collections import Counter, deque
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from integration.room import Peer
from reliability.crowd import Crowd
from reliability.history import Content, content_of, read_database
from reliability.program import Program
from reliability.talkers import GuestTalkers, UdpTalkers

if TYPE_CHECKING:
    import random
    from pathlib import Path

    from reliability.crowd import Answer, Member

NAMES = [f"user{number}" for number in range(20)]
# Unconfirmed messages of a sender: a kill hits several in each state.
WINDOW = 4
# Each run of the server ends after a random number of answers below this, and a random time.
ANSWERS_MAX = 8_000
LATER_MAX_SECONDS = 0.01
TALKERS = 6
CONFIRMATIONS_MAX = {GuestTalkers: 400, UdpTalkers: 1_000}


@dataclass
class Said:
    content: Content
    nonce: str | None
    is_repeated: bool = False


@dataclass
class Record:
    """Answers of the server in all runs. Written by the crowd's thread."""

    registered: set[str] = field(default_factory=set)
    # By id: messages whose sender got a confirmation, and messages that others saw.
    confirmed: dict[int, Content] = field(default_factory=dict)
    delivered: dict[int, Content] = field(default_factory=dict)
    answers: int = 0
    # The newest message at the start of this run.
    newest_before: int = 0

    def confirm(self, message_id: int, said: Said) -> None:
        assert self.confirmed.setdefault(message_id, said.content) == said.content, f"{message_id} was used twice"
        assert said.is_repeated or message_id > self.newest_before, f"{message_id} is older than this run"

    def deliver(self, message_id: int, content: Content) -> None:
        assert self.delivered.setdefault(message_id, content) == content, f"two messages were seen as {message_id}"


class Sender:
    """A user that sends without a pause, and after each kill repeats unconfirmed messages that have a nonce."""

    def __init__(self, name: str, record: Record, chance: random.Random) -> None:
        self.name = name
        self.unconfirmed: deque[Said] = deque()
        self.is_silent = False
        self._record = record
        self._chance = chance
        self._said = 0
        self._last_seen_id = 0

    def log_in(self, crowd: Crowd, port: int) -> None:
        member = crowd.connect(port, self.name)
        member.react = self._react
        member.ask(command="login", username=self.name, password="secret", since=self._last_seen_id)

    def _react(self, member: Member, answer: Answer) -> None:
        self._record.answers += 1
        match answer["type"]:
            case "login":
                assert answer["account"] == "existing" or self.name not in self._record.registered, "an account is lost"
                self._record.registered.add(self.name)
                self.unconfirmed = deque(said for said in self.unconfirmed if said.nonce is not None)
                for said in self.unconfirmed:
                    said.is_repeated = True
                    self._send(member, said)
                while len(self.unconfirmed) < WINDOW and not self.is_silent:
                    self._say_next(member)
            case "sent":
                said = self.unconfirmed.popleft()
                assert answer.get("nonce") == said.nonce, "confirmations have the order of the messages"
                self._record.confirm(answer["id"], said)
                self._last_seen_id = max(self._last_seen_id, answer["id"])
                if not self.is_silent:
                    self._say_next(member)
            case "broadcast" | "direct":
                assert answer["id"] > self._last_seen_id, "messages come once and in order, also after a kill"
                self._last_seen_id = answer["id"]
                self._record.deliver(answer["id"], content_of(answer))
            case other:
                assert other == "users", answer

    def _say_next(self, member: Member) -> None:
        self._said += 1
        nonce = f"n{self._said}" if self._chance.random() < 0.5 else None
        recipient = self._chance.choice(sorted(self._record.registered)) if self._chance.random() < 0.2 else None
        said = Said(Content(self.name, recipient, f"{self.name} says {self._said}"), nonce)
        self.unconfirmed.append(said)
        self._send(member, said)

    def _send(self, member: Member, said: Said) -> None:
        nonce = {} if said.nonce is None else {"nonce": said.nonce}
        to = {"command": "PM"} if said.content.recipient is None else {"command": "DM", "to": said.content.recipient}
        member.ask(**to, message=said.content.text, **nonce)


def check_stored(program: Program, record: Record, after_id: int) -> int:
    """Compares the stored messages after this id with the record. Returns the newest id."""
    stored = read_database(program.data, after_id)
    for told in (record.confirmed, record.delivered):
        assert {message_id: content for message_id, content in told.items() if message_id > after_id}.items() <= (
            stored.items()
        )
    assert max(Counter(content.text for content in stored.values()).values(), default=1) == 1, "stored twice"
    return max(stored, default=after_id)


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
@pytest.mark.parametrize("kind", [GuestTalkers, UdpTalkers])
def test_kill_loses_no_message_of_guests_and_udp(
    tmp_path: Path, chance: random.Random, kind: type[GuestTalkers | UdpTalkers]
) -> None:
    """The names of guests are free again at once. Users of datagram are new each time."""
    newest = in_progress = 0
    with Program(tmp_path) as program:
        with closing(Peer(program.port)) as carol:
            carol.login("carol")
        for life in range(10):
            names = [f"user{number}" if kind is GuestTalkers else f"user{number}x{life}" for number in range(TALKERS)]
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
