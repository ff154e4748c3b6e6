"""kill -9 at any moment: what was confirmed is there, what was seen is there, and nothing is there twice."""

from __future__ import annotations

import threading
from collections import Counter, deque
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from integration.room import Peer
from reliability.callers import Callers, UdpSession
from reliability.crowd import Crowd
from reliability.guests import TalkingGuest
from reliability.history import Content, content_of, read_history
from reliability.program import Program

if TYPE_CHECKING:
    import random
    from pathlib import Path

    from reliability.crowd import Answer, Member

KILLS = 20
NAMES = [f"user{number}" for number in range(20)]
# Messages that a sender leaves unconfirmed before it waits: several lie in each place that a kill can hit.
WINDOW = 4
# A life of the server ends somewhere between the first login and this many answers, at most so much later.
ANSWERS_MAX = 8_000
LATER_MAX_SECONDS = 0.01
GUESTS = 6
GUEST_ANSWERS_MAX = 400
CALLERS = 6
CONFIRMATIONS_MAX = 1_000
# Until so many answers have come, on a machine that is busy with something else.
ANSWER_SECONDS = 30.0


@dataclass
class Said:
    content: Content
    nonce: str | None
    is_repeated: bool = False


@dataclass
class Books:
    """What all clients know together, over all lives of the server. Written by the crowd's thread."""

    registered: set[str] = field(default_factory=set)
    # By id: what its sender was told is stored, and what others saw.
    confirmed: dict[int, Content] = field(default_factory=dict)
    delivered: dict[int, Content] = field(default_factory=dict)
    answers: int = 0
    # The newest message when this life of the server began.
    newest_before: int = 0

    def confirm(self, message_id: int, said: Said) -> None:
        assert self.confirmed.setdefault(message_id, said.content) == said.content, f"{message_id} was used again"
        assert said.is_repeated or message_id > self.newest_before, f"{message_id} does not go on from the last life"

    def deliver(self, message_id: int, content: Content) -> None:
        assert self.delivered.setdefault(message_id, content) == content, f"two messages were seen as {message_id}"


class Sender:
    """Somebody who talks, and after each kill sends again what has a nonce and was not confirmed."""

    def __init__(self, name: str, books: Books, chance: random.Random) -> None:
        self.name = name
        self.unconfirmed: deque[Said] = deque()
        self.is_silent = False
        self._books = books
        self._chance = chance
        self._said = 0
        self._last_seen_id = 0

    def come_in(self, crowd: Crowd, port: int) -> None:
        member = crowd.connect(port, self.name)
        member.react = self._react
        member.ask(command="login", username=self.name, password="secret", since=self._last_seen_id)

    def _react(self, member: Member, answer: Answer) -> None:
        self._books.answers += 1
        match answer["type"]:
            case "login":
                self._on_welcome(member, answer)
            case "sent":
                said = self.unconfirmed.popleft()
                assert answer.get("nonce") == said.nonce, "confirmations come in the order of the messages"
                self._books.confirm(answer["id"], said)
                self._last_seen_id = max(self._last_seen_id, answer["id"])
                self._talk(member)
            case "broadcast" | "direct":
                assert answer["id"] > self._last_seen_id, "once, and in order, across the kill"
                self._last_seen_id = answer["id"]
                self._books.deliver(answer["id"], content_of(answer))
            case _:
                assert answer["type"] == "users", answer

    def _on_welcome(self, member: Member, answer: Answer) -> None:
        assert answer["account"] == "existing" or self.name not in self._books.registered, "an account was lost"
        self._books.registered.add(self.name)
        self.unconfirmed = deque(said for said in self.unconfirmed if said.nonce is not None)
        for said in self.unconfirmed:
            said.is_repeated = True
            self._send(member, said)
        while len(self.unconfirmed) < WINDOW and not self.is_silent:
            self._talk(member)

    def _talk(self, member: Member) -> None:
        if self.is_silent:
            return
        self._said += 1
        text = f"{self.name} says {self._said}"
        nonce = f"n{self._said}" if self._chance.random() < 0.5 else None
        recipient = self._chance.choice(sorted(self._books.registered)) if self._chance.random() < 0.2 else None
        said = Said(Content(self.name, recipient, text), nonce)
        self.unconfirmed.append(said)
        self._send(member, said)

    def _send(self, member: Member, said: Said) -> None:
        nonce = {} if said.nonce is None else {"nonce": said.nonce}
        if said.content.recipient is None:
            member.ask(command="PM", message=said.content.text, **nonce)
        else:
            member.ask(command="DM", to=said.content.recipient, message=said.content.text, **nonce)


def check_history(port: int, books: Books, after_id: int) -> dict[int, Content]:
    """Compare what is stored since ``after_id`` with what the clients were told; returns it."""
    stored: dict[int, Content] = {}
    public: list[list[int]] = []
    for name in sorted(books.registered):
        view = read_history(port, name, after_id)
        assert all(stored.setdefault(message_id, content) == content for message_id, content in view.items())
        public.append([message_id for message_id, content in view.items() if content.recipient is None])
    assert all(ids == public[0] for ids in public), "everybody has the same public history"
    for told in (books.confirmed, books.delivered):
        expected = {message_id: content for message_id, content in told.items() if message_id > after_id}
        assert {message_id: stored.get(message_id) for message_id in expected} == expected
    twice = [text for text, count in Counter(content.text for content in stored.values()).items() if count > 1]
    assert twice == []
    return stored


def live(program: Program, senders: list[Sender], books: Books, chance: random.Random) -> None:
    """One life under load, up to a kill somewhere."""
    answers = books.answers + int(chance.random() ** 3 * ANSWERS_MAX)  # often early: there the logins are
    with Crowd() as crowd:
        for sender in senders:
            sender.come_in(crowd, program.port)
        crowd.wait_until(lambda: books.answers >= answers, f"answer {answers}")
        threading.Event().wait(chance.uniform(0, LATER_MAX_SECONDS))
        program.kill()
        crowd.wait_until(lambda: all(member.is_over for member in crowd.members), "the end of all connections")


def test_a_server_that_is_killed_at_any_moment_keeps_what_it_told(tmp_path: Path, chance: random.Random) -> None:
    """Confirmed means stored; seen means stored; once; ids are never used again."""
    books = Books()
    senders = [Sender(name, books, chance) for name in NAMES]
    unconfirmed = 0
    with Program(tmp_path) as program:
        for _ in range(KILLS):
            live(program, senders, books, chance)
            unconfirmed += sum(len(sender.unconfirmed) for sender in senders)
            program.start()
            stored = check_history(program.port, books, books.newest_before)
            books.newest_before = max(stored, default=books.newest_before)
        with Crowd() as crowd:
            for sender in senders:
                sender.is_silent = True
                sender.come_in(crowd, program.port)
            crowd.wait_until(
                lambda: len(books.registered) == len(NAMES) and not any(sender.unconfirmed for sender in senders),
                "the confirmations of all that was sent again",
            )
        stored = check_history(program.port, books, 0)
    assert "WARNING" not in program.log(), "nothing is missing that the server knew of"
    assert unconfirmed > KILLS, "the kills came while much was under way"
    print(f"{len(stored)} messages, {unconfirmed} of them under way when a kill came")


def test_what_was_answered_or_forwarded_to_guests_is_there_after_a_kill(tmp_path: Path, chance: random.Random) -> None:
    """They come again under the same names: nobody has them when the server begins."""
    names = [f"guest{number}" for number in range(GUESTS)]
    newest = 0
    with Program(tmp_path) as program:
        with closing(Peer(program.port)) as carol:
            carol.login("carol")
        for life in range(KILLS // 2):
            answers = threading.Semaphore(0)
            guests = [TalkingGuest(program.port, name, ["ALL", "carol", name], answers.release) for name in names]
            for guest in guests:
                guest.come_in()
            for guest in guests:
                guest.talk()
            for _ in range(int(chance.random() ** 3 * GUEST_ANSWERS_MAX)):
                assert answers.acquire(timeout=ANSWER_SECONDS), f"life {life}"
            threading.Event().wait(chance.uniform(0, LATER_MAX_SECONDS))
            program.kill()
            for guest in guests:
                guest.join()
                guest.close()
            program.start()
            stored = Counter(read_history(program.port, "carol", newest).values())
            told = [
                Content(guest.name, None if to == "ALL" else to, text)
                for guest in guests
                for to, text in guest.confirmed
                if to in ("ALL", "carol")
            ]
            assert [content for content in told if stored[content] != 1] == [], "confirmed, and not there once"
            public = {(content.sender, content.text) for content in stored if content.recipient is None}
            forwarded = {each for guest in guests for each in guest.heard if each[0] != guest.name}
            assert forwarded <= public
            newest = max(read_history(program.port, "carol"), default=0)


def test_what_was_confirmed_or_delivered_over_udp_is_there_after_a_kill(tmp_path: Path, chance: random.Random) -> None:
    """Others come in each life of the server, so that no text is said twice."""
    newest = under_way = 0
    with Program(tmp_path) as program:
        with closing(Peer(program.port)) as carol:
            carol.login("carol")
        for life in range(KILLS // 2):
            with Callers() as crowd:
                callers = crowd.enter(program.port, [f"caller{life}x{number}" for number in range(CALLERS)])
                talks = [UdpSession(caller, [None, "carol", caller.name]) for caller in callers]
                least = int(chance.random() ** 3 * CONFIRMATIONS_MAX)
                crowd.wait_until(lambda: sum(len(each.confirmed) for each in talks) >= least, f"life {life}")  # noqa: B023
                crowd.go_on(chance.uniform(0, LATER_MAX_SECONDS))
                program.kill()
                for caller in callers:
                    caller.command("PING")  # who is only waiting would not notice
                crowd.wait_until(lambda: all(each.is_over for each in callers), "the end of all sessions")  # noqa: B023
            program.start()
            for talk in talks:
                stored = read_history(program.port, talk.caller.name, newest)
                assert max(Counter(stored.values()).values(), default=1) == 1, "something is there twice"
                for told in (talk.confirmed, talk.heard):
                    assert {message_id: stored.get(message_id) for message_id in told} == told
                under_way += len(talk.said) - len(talk.confirmed)
            newest = max(read_history(program.port, "carol"), default=0)
    assert under_way > KILLS, "the kills came while much was under way"
