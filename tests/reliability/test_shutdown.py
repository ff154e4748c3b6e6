"""SIGTERM in the middle of a conversation: whatever was accepted is stored, delivered and confirmed."""

from __future__ import annotations

import json
import socket
import sqlite3
import threading
from contextlib import closing, suppress
from typing import TYPE_CHECKING

import pytest
from integration.room import NOT_SENT, DatagramPeer, Guest, Peer, deadline
from reliability.callers import Callers, UdpSession
from reliability.crowd import Crowd
from reliability.guests import TalkingGuest
from reliability.history import Content, content_of
from reliability.peers import NarrowPeer
from reliability.program import Program

if TYPE_CHECKING:
    import random
    from pathlib import Path

    from reliability.crowd import Answer, Member

# The promise, from the signal to the exit.
SHUTDOWN_SECONDS = 8.0
SENDERS = 20
RECEIVERS = 50
# Messages that a sender leaves unanswered before it waits: at the signal several hundred are under way.
WINDOW = 20
# Messages that somebody sends at once: the server can't have read them all at the signal.
BURST = 30_000
# Each waits for an answer when the signal comes.
GUESTS = 8
CALLERS = 8
# From the door to the journal, where nothing more is accepted.
CLOSING_SECONDS = 0.2
# A reader that does not read for so long is not called gone.
LATE_SECONDS = 1.0
# The signal comes so long after one of the confirmations at most.
LATER_MAX_SECONDS = 0.005
DATABASE = "chat.db"


class Sender:
    """Talks as fast as it is answered, to all and now and then to one.

    Each message has a nonce, and a ping behind it: a pong says that the message before it was accepted.
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
            self._talk()

    def _react(self, _: Member, answer: Answer) -> None:
        if answer["type"] == "sent":
            self.confirmed[answer["id"]] = self.said[answer["nonce"]]
            self._talk()
        elif answer["type"] == "pong":
            self.pongs += 1
        elif answer["type"] == "error":
            assert answer["code"] == "shutting_down", answer
            self.refused.add(answer["nonce"])

    def _talk(self) -> None:
        nonce = f"n{len(self.said)}"
        recipient = self._chance.choice(self._others) if self._chance.random() < 0.1 else None
        content = Content(self.member.name, recipient, f"{self.member.name} says {len(self.said)}")
        self.said[nonce] = content
        if recipient is None:
            self.member.ask(command="PM", message=content.text, nonce=nonce)
        else:
            self.member.ask(command="DM", to=recipient, message=content.text, nonce=nonce)
        self.member.ask(command="ping")


def read_database(path: Path) -> dict[int, Content]:
    """Every message that is stored, in the order of the ids."""
    query = """
        SELECT message.id, sender.name, recipient.name, text
        FROM (SELECT id, sender_id, NULL AS recipient_id, text FROM public_message
              UNION ALL SELECT id, sender_id, recipient_id, text FROM direct_message) AS message
        JOIN account AS sender ON sender.id = sender_id LEFT JOIN account AS recipient ON recipient.id = recipient_id
        ORDER BY message.id
    """
    with closing(sqlite3.connect(path)) as database:
        return {message_id: Content(*content) for message_id, *content in database.execute(query)}


def seen_by(member: Member) -> dict[int, Content]:
    return {answer["id"]: content_of(answer) for answer in member.of("broadcast", "direct")}


def due_to(member: Member, stored: dict[int, Content]) -> dict[int, Content]:
    """What others said, to everybody or to this member."""
    return {
        message_id: content
        for message_id, content in stored.items()
        if content.sender != member.name and content.recipient in (None, member.name)
    }


def begin_to_talk(crowd: Crowd, port: int, chance: random.Random) -> list[Sender]:
    """Everybody comes in, and the first of them talk."""
    members = crowd.enter(port, [f"user{number}" for number in range(SENDERS + RECEIVERS)])
    names = [member.name for member in members]
    with crowd.changed:  # the first answers may come before the last have begun
        return [Sender(member, [name for name in names if name != member.name], chance) for member in members[:SENDERS]]


def check_all_is_told(members: list[Member], senders: list[Sender], database: Path) -> None:
    stored = read_database(database)
    for member in members:
        assert member.seen[-1] == {"type": "bye", "reason": "the server is shutting down"}, member.name
        assert seen_by(member) == due_to(member, stored), member.name
        ids = [answer["id"] for answer in member.of("broadcast", "direct", "sent")]
        assert ids == sorted(set(ids)), f"{member.name} saw a message twice, or too early"
    for sender in senders:
        own = {key: content for key, content in stored.items() if content.sender == sender.member.name}
        assert sender.confirmed == own
        refused = {sender.said[nonce] for nonce in sender.refused}
        assert not refused & set(own.values())
        accepted = set(list(sender.said.values())[: sender.pongs])
        assert accepted - refused - set(own.values()) == set(), "accepted, and lost"
    assert sum(len(sender.said) for sender in senders) > len(stored), "the signal came while much was under way"


def is_open(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), SHUTDOWN_SECONDS).close()
    except ConnectionError:
        return False
    return True


class Burst(Peer):
    """Somebody who says much at once, and reads what comes until the server closes."""

    def __init__(self, port: int, name: str) -> None:
        super().__init__(port)
        self.name = name
        self.login(name)
        self._heard = bytearray(self._buffer)
        self._threads = [threading.Thread(target=target) for target in (self._talk, self._listen)]
        for thread in self._threads:
            thread.start()

    def _talk(self) -> None:
        with suppress(ConnectionError):
            self.send(b"".join(b'{"command":"PM","message":"%d"}\n' % number for number in range(BURST)))

    def _listen(self) -> None:
        while data := self.socket.recv(65_536):
            self._heard += data

    def is_confirmed(self) -> bool:
        return b'"sent"' in self._heard

    def all_heard(self) -> list[Answer]:
        for thread in self._threads:
            thread.join()
        self.close()
        return [json.loads(line) for line in self._heard.splitlines()]


@pytest.mark.parametrize("least", [1, 300, 1_500])
def test_what_was_accepted_before_the_signal_is_stored_delivered_and_confirmed(
    tmp_path: Path, chance: random.Random, least: int
) -> None:
    with Program(tmp_path) as program, Crowd() as crowd:
        senders = begin_to_talk(crowd, program.port, chance)
        crowd.wait_until(lambda: sum(len(sender.confirmed) for sender in senders) >= least, f"{least} confirmations")
        threading.Event().wait(chance.uniform(0, LATER_MAX_SECONDS))
        with deadline(SHUTDOWN_SECONDS, "the shutdown"):
            assert program.stop() == 0
        crowd.wait_until(lambda: all(member.is_over for member in crowd.members), "the end of all connections")
    check_all_is_told(crowd.members, senders, program.data / DATABASE)


def test_what_waits_for_the_disk_at_the_signal_is_stored_delivered_and_confirmed(
    tmp_path: Path, chance: random.Random
) -> None:
    with Program(tmp_path) as program, Crowd() as crowd:
        senders = begin_to_talk(crowd, program.port, chance)
        with closing(sqlite3.connect(program.data / DATABASE)) as disk:
            disk.execute("BEGIN IMMEDIATE")  # nobody else can write now
            crowd.wait_until(lambda: all(sender.pongs == len(sender.said) for sender in senders), "accepting all")
            program.process.terminate()
            program.wait_until(lambda: not is_open(program.port), "letting nobody in any more")
            disk.rollback()
        assert program.process.wait(SHUTDOWN_SECONDS) == 0
        crowd.wait_until(lambda: all(member.is_over for member in crowd.members), "the end of all connections")
    check_all_is_told(crowd.members, senders, program.data / DATABASE)


def test_who_says_more_than_is_read_hears_all_the_same_what_is_due(tmp_path: Path) -> None:
    """To close over what was not read, or over what still comes, would destroy what is on its way to the sender."""
    with Program(tmp_path) as program:
        bursts = [Burst(program.port, f"user{number}") for number in range(3)]
        program.wait_until(lambda: all(burst.is_confirmed() for burst in bursts), "a confirmation for each")
        with deadline(SHUTDOWN_SECONDS, "the shutdown"):
            assert program.stop() == 0
        heard = [burst.all_heard() for burst in bursts]
    stored = read_database(program.data / DATABASE)
    assert len(stored) < len(bursts) * BURST, "the signal came while much was under way"
    for burst, answers in zip(bursts, heard, strict=True):
        assert answers[-1] == {"type": "bye", "reason": "the server is shutting down"}, burst.name
        confirmed = [answer["id"] for answer in answers if answer["type"] == "sent"]
        assert confirmed == [key for key, content in stored.items() if content.sender == burst.name]
        seen = [answer["id"] for answer in answers if answer["type"] == "broadcast"]
        told = sorted(seen + confirmed)
        assert told == list(stored)[-len(told) :], "what others said since the login"


def test_who_hangs_up_while_the_last_messages_are_written_is_confirmed_all_the_same(tmp_path: Path) -> None:
    """The seat is given up when they are on the disk, not before; and what is refused is refused behind them."""
    with Program(tmp_path) as program, closing(Peer(program.port)) as peer:
        peer.login("alice")
        with closing(sqlite3.connect(program.data / DATABASE)) as disk:
            disk.execute("BEGIN IMMEDIATE")  # nobody else can write now
            for number in range(10):
                peer.ask(command="PM", message="hello", nonce=f"n{number}")
            assert peer.until_fence() == []
            program.process.terminate()
            program.wait_until(lambda: not is_open(program.port), "letting nobody in any more")
            threading.Event().wait(CLOSING_SECONDS)
            peer.ask(command="PM", message="too late", nonce="late")
            peer.socket.shutdown(socket.SHUT_WR)
            disk.rollback()
        answers = [json.loads(line) for line in iter(peer.line, b"")]
        assert program.process.wait(SHUTDOWN_SECONDS) == 0
    nonces = [answer["nonce"] for answer in answers if answer["type"] in ("sent", "error")]
    assert nonces[:10] == [f"n{number}" for number in range(10)]
    assert nonces[10:] in (["late"], []), "where the goodbye comes first there is no refusal"
    assert len(read_database(program.data / DATABASE)) == 10


def test_who_reads_late_hears_what_is_due(tmp_path: Path) -> None:
    """What the peer's system has not taken yet is waited for, and the peer has a moment to take it."""
    with Program(tmp_path) as program, closing(NarrowPeer(program.port)) as late, closing(Peer(program.port)) as other:
        late.login("late")
        other.login("other")
        for _ in range(100):
            other.say("x" * 4_000)
        program.process.terminate()
        program.wait_until(lambda: not is_open(program.port), "letting nobody in any more")
        threading.Event().wait(LATE_SECONDS)
        assert late.rest()[-1] == {"type": "bye", "reason": "the server is shutting down"}
        assert program.process.wait(SHUTDOWN_SECONDS) == 0


@pytest.mark.parametrize("least", [1, 200, 1_000])
def test_what_guests_send_at_the_signal_is_stored_forwarded_and_answered(
    tmp_path: Path, chance: random.Random, least: int
) -> None:
    """Of what is stored nothing is without its answer, and what was not stored has none that says so."""
    answers = threading.Semaphore(0)
    names = [f"guest{number}" for number in range(GUESTS)]
    with Program(tmp_path) as program, closing(Peer(program.port)) as carol:
        carol.login("carol")
        guests = [
            TalkingGuest(program.port, name, ["ALL", "carol", names[number - 1]], answers.release)
            for number, name in enumerate(names)
        ]
        for guest in guests:
            guest.come_in()
        for guest in guests:
            guest.talk()
        for _ in range(least):
            assert answers.acquire(timeout=SHUTDOWN_SECONDS)
        threading.Event().wait(chance.uniform(0, LATER_MAX_SECONDS))
        with deadline(SHUTDOWN_SECONDS, "the shutdown"):
            assert program.stop() == 0
        for guest in guests:
            guest.join()
            guest.close()
        heard_by_carol = {content_of(answer) for answer in map(json.loads, iter(carol.line, b"")) if "id" in answer}
    stored = list(read_database(program.data / DATABASE).values())
    for guest in guests:
        own = [(content.recipient or "ALL", content.text) for content in stored if content.sender == guest.name]
        assert own == guest.said[: len(own)]
        assert guest.confirmed == own, "everybody confirmed, so all that was stored is answered"
        others = [each for each in stored if each.sender != guest.name and each.recipient in (None, guest.name)]
        assert guest.heard == [(each.sender, each.text) for each in others]
    assert heard_by_carol == {each for each in stored if each.recipient in (None, "carol")}
    assert len(stored) < sum(len(guest.said) for guest in guests), "the signal came while something was under way"


def test_who_confirms_nothing_does_not_hold_up_the_end(tmp_path: Path) -> None:
    with Program(tmp_path) as program, closing(Guest(program.port, "alice")) as alice:
        alice.come_in()
        deaf = [Guest(program.port, f"deaf{number}") for number in range(GUESTS)]
        for guest in deaf:
            guest.come_in()
        alice.send("ALL", "hello")
        assert [guest.forwarded() for guest in deaf] == [("alice", "hello")] * GUESTS
        with deadline(SHUTDOWN_SECONDS, "the shutdown"):
            assert program.stop() == 0
        assert alice.sending.rest() == NOT_SENT
        for guest in deaf:
            assert guest.is_over()
            guest.close()
    assert [content.text for content in read_database(program.data / DATABASE).values()] == ["hello"]


@pytest.mark.parametrize("least", [1, 200, 1_000])
def test_what_users_of_datagram_send_at_the_signal_is_stored_delivered_and_confirmed(
    tmp_path: Path, chance: random.Random, least: int
) -> None:
    """Nothing is stored without its confirmation, and what was not stored has none."""
    with Program(tmp_path) as program, Callers() as crowd, closing(Peer(program.port)) as carol:
        carol.login("carol")
        callers = crowd.enter(program.port, [f"caller{number}" for number in range(CALLERS)])
        talks = [UdpSession(caller, [None, "carol", callers[number - 1].name]) for number, caller in enumerate(callers)]
        crowd.wait_until(lambda: sum(len(talk.confirmed) for talk in talks) >= least, f"{least} confirmations")
        crowd.go_on(chance.uniform(0, LATER_MAX_SECONDS))
        with deadline(SHUTDOWN_SECONDS, "the shutdown"):
            program.process.terminate()
            crowd.wait_until(lambda: all(caller.is_over for caller in callers), "the goodbyes")
            assert program.process.wait() == 0
        heard_by_carol = {content_of(answer) for answer in map(json.loads, iter(carol.line, b"")) if "id" in answer}
    stored = read_database(program.data / DATABASE)
    for talk in talks:
        assert talk.caller.seen[-1] == "C BYE the server is shutting down"
        own = {message_id: content for message_id, content in stored.items() if content.sender == talk.caller.name}
        assert list(own.values()) == talk.said[: len(own)]
        assert talk.confirmed == own
        others = {
            message_id: content
            for message_id, content in stored.items()
            if content.sender != talk.caller.name and content.recipient in (None, talk.caller.name)
        }
        assert talk.heard == others
    assert heard_by_carol == {each for each in stored.values() if each.recipient in (None, "carol")}
    assert len(stored) < sum(len(talk.said) for talk in talks), "the signal came while something was under way"


def test_who_acknowledges_nothing_does_not_hold_up_the_end(tmp_path: Path) -> None:
    with Program(tmp_path) as program, closing(DatagramPeer(program.port)) as alice:
        deaf = [DatagramPeer(program.port) for _ in range(CALLERS)]
        for number, peer in enumerate(deaf):
            peer.login(f"deaf{number}")
        alice.login("alice")
        for _ in range(10):
            alice.say("x" * 8_000)
        with deadline(SHUTDOWN_SECONDS, "the shutdown"):
            program.process.terminate()
            assert alice.rest() == ["C BYE the server is shutting down"]
            assert program.process.wait() == 0
        for peer in deaf:
            peer.close()
    assert len(read_database(program.data / DATABASE)) == 10


def test_after_a_shutdown_everybody_is_told_the_newest_message_of_before(tmp_path: Path) -> None:
    """Those who were online have left then; also who was told nothing but what everybody heard."""
    with Program(tmp_path) as server:
        with closing(Peer(server.port)) as alice, closing(Peer(server.port)) as bob:
            alice.login("alice")
            bob.login("bob")
            bob.ask(command="PM", message="seen")
            seen = bob.next("sent")["id"]
            assert alice.next("broadcast")["id"] == seen
            assert server.stop() == 0
        server.start()
        with closing(Peer(server.port)) as bob, closing(Peer(server.port)) as alice:
            bob.login("bob")
            bob.ask(command="PM", message="missed")
            assert bob.next("sent")["id"] > seen
            assert alice.login("alice")["seen_id"] == seen
