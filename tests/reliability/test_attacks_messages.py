"""Attacks by users who are logged in, with a server on one processor: see bystanders.py for the bounds.

Each test has the numbers of a known attack if it is run with ``-m long``.
"""

from __future__ import annotations

import json
import random
import socket
import statistics
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

import pytest
from integration.irc import IrcPeer
from integration.room import NOT_SENT, Peer, sent
from reliability.attackers import Attacker, address_of, flood, reject, send_direct
from reliability.bystanders import (
    ATTACKER,
    KNOWN_MAX_SECONDS,
    MEBIBYTE,
    MEMORY_MAX_BYTES,
    NO_CONNECTION_LIMITS,
    NO_REGISTRATION_LIMITS,
    Bystanders,
    attacked,
)
from reliability.guests import AckingGuest

if TYPE_CHECKING:
    from pathlib import Path

TEXT = "x" * 8_100
REJECTION = "ERROR 103 Header Incomplete\n\n"
# Such limits have tests of their own.
NO_ADDRESS_LIMITS = {**NO_CONNECTION_LIMITS, **NO_REGISTRATION_LIMITS}
LONG = [pytest.mark.long, pytest.mark.timeout(300)]


class DeafPeer(Peer):
    """A peer that reads only what its system buffers."""

    def __init__(self, port: int) -> None:
        super().__init__(port, ATTACKER)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)


class DeafIrcPeer(IrcPeer):
    """The same of irc."""

    def __init__(self, port: int) -> None:
        super().__init__(port, ATTACKER)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)


def send_and_wait(peer: Peer, texts: list[str], **members: str) -> None:
    """Send the texts, 50 at a time."""
    for at in range(0, len(texts), 50):
        part = texts[at : at + 50]
        peer.send(b"".join(json.dumps({"message": text, **members}).encode() + b"\n" for text in part))
        for _ in part:
            peer.next("sent")


def login_line(name: str) -> str:
    return json.dumps({"command": "login", "username": name, "password": "secret"}) + "\n"


@pytest.mark.parametrize("asks", ["history", "since", "irc"])
@pytest.mark.parametrize(
    ("connections", "seconds", "memory_max_bytes"),
    [(10, 0.5, 32 * MEBIBYTE), pytest.param(40, 10, MEMORY_MAX_BYTES, marks=LONG)],
)
def test_peers_ask_for_long_answers_and_read_nothing(
    tmp_path: Path, asks: str, connections: int, seconds: float, memory_max_bytes: int
) -> None:
    """An answer is made as its peer reads; its memory is given back."""
    with attacked(tmp_path, **NO_ADDRESS_LIMITS) as server:
        with closing(Peer(server.port)) as alice:
            alice.login("alice")
            send_and_wait(alice, [TEXT] * 500, command="PM")
        with Bystanders(server, memory_max_bytes) as bystanders, ExitStack() as peers:
            for number in range(connections):
                if asks == "irc":
                    with closing(Peer(server.port, ATTACKER)) as registering:
                        registering.login(f"mallory{number}")
                    irc = peers.enter_context(closing(DeafIrcPeer(server.port)))
                    irc.register(f"mallory{number}", caps="batch draft/multiline", account=f"mallory{number}")
                    irc.put("CHATHISTORY LATEST #lobby * 500")
                    continue
                peer = peers.enter_context(closing(DeafPeer(server.port)))
                if asks == "history":
                    peer.login(f"mallory{number}")
                    peer.ask(command="CH", limit=500)
                else:
                    peer.ask(command="login", username=f"mallory{number}", password="secret", since=0)
            bystanders.chat(seconds)


@pytest.mark.parametrize(
    ("connections", "messages", "limit"),
    [(20, 100, "0"), *(pytest.param(120, 1_000, limit, marks=LONG) for limit in ("0", "8"))],
)
def test_connections_of_one_user_do_not_read_their_direct_messages(
    tmp_path: Path, connections: int, messages: int, limit: str
) -> None:
    """Only eight of them stay. Without that limit, what they don't read is stored once for all of them.

    Each message is encoded for each connection. An accomplice with the usual rate would send two in a second.
    """
    settings = {"CHAT_USER_CONNECTIONS": limit, "CHAT_MESSAGE_RATE": "100", "CHAT_REQUEST_RATE": "0"}
    with attacked(tmp_path, **NO_ADDRESS_LIMITS, **settings) as server:
        with Bystanders(server) as bystanders, closing(Peer(server.port, ATTACKER)) as alice, ExitStack() as peers:
            alice.login("alice")
            for _ in range(connections):
                peers.enter_context(closing(DeafPeer(server.port))).login("mallory")
            with ThreadPoolExecutor(1) as pool:
                sending = pool.submit(send_and_wait, alice, [TEXT] * messages, command="DM", to="mallory")
                bystanders.chat(messages / 100)
                sending.result()
        assert server.log().count("connection replaced") == (connections - 8 if limit == "8" else 0)


@pytest.mark.parametrize("count", [1_000, pytest.param(82_000, marks=LONG)])
def test_direct_messages_to_an_offline_user(tmp_path: Path, count: int) -> None:
    """200 of a sender wait, and the next login gets exactly these, at once.

    With the usual rate, 82,000 would take eleven hours; without one, the sender could delay others.
    """
    with attacked(tmp_path, **NO_ADDRESS_LIMITS, CHAT_MESSAGE_RATE="3000") as server:
        with closing(Peer(server.port)) as victim:
            victim.login("victim")
        with Bystanders(server) as bystanders:
            arguments = {"address": ATTACKER, "name": "mallory", "to": "victim", "count": count}
            with Attacker(send_direct, port=server.port, **arguments) as attacker:
                bystanders.chat(1 if count == 1_000 else 20)
                assert attacker.result() == {"sent": 200, "mailbox_full": count - 200}
            with closing(Peer(server.port)) as victim:
                before = server.processor_seconds()
                victim.login("victim")
                waiting = victim.until_fence()
                assert server.processor_seconds() - before < KNOWN_MAX_SECONDS
            texts = [each["message"] for each in waiting if each["type"] == "direct"]
            assert texts == [f"message {number}" for number in range(200)]


@pytest.mark.parametrize(
    ("answer", "reason", "failures_each", "guests", "seconds"),
    [
        (REJECTION, "rejects_messages", 3, 3, 1),
        pytest.param(REJECTION, "rejects_messages", 3, 30, 10, marks=LONG),
        pytest.param("", "ack_timeout", 1, 30, 10, marks=LONG),
    ],
)
def test_guests_acknowledge_no_message(
    tmp_path: Path, answer: str, reason: str, failures_each: int, guests: int, seconds: int
) -> None:
    """They are disconnected, and return until their addresses may not. Messages of others to all fail only with them.

    Five of each address reject each message, or leave it unanswered.
    """
    names = [(address_of(number // 5), f"mallory{number}") for number in range(guests)]
    with attacked(tmp_path, CHAT_REGISTRATIONS="0") as server, ExitStack() as stack:
        alice, bob = (AckingGuest(server.port, name) for name in ("alice", "bob"))
        for guest in (alice, bob):
            guest.register()
            stack.callback(guest.stop)
        answers: Counter[bytes] = Counter()

        def say() -> None:
            while not attacker.is_over():
                answers[alice.say("ALL", "hello")] += 1
                time.sleep(0.05)

        with Bystanders(server) as bystanders:
            with (
                ThreadPoolExecutor(1) as pool,
                Attacker(reject, port=server.port, guests=names, answer=answer) as attacker,
            ):
                saying = pool.submit(say)
                bystanders.chat(seconds)
                returned = attacker.result()
                saying.result()
            server.wait_until(lambda: server.log().count(f"reason={reason}") == guests + returned, "the log")
            assert answers[NOT_SENT] <= failures_each * (guests + returned)
            assert [alice.say("ALL", "hello") for _ in range(20)] == [sent("ALL")] * 20


@pytest.mark.parametrize("size", [8_000, pytest.param(20, marks=pytest.mark.long)])
@pytest.mark.parametrize("seconds", [1, pytest.param(30, marks=LONG)])
def test_ten_connections_of_one_user_flood_with_messages(tmp_path: Path, size: int, seconds: int) -> None:
    """Two messages a second are stored, and the others wait in the network. Others don't notice."""
    line = json.dumps({"command": "PM", "message": "x" * size}) + "\n"
    with attacked(tmp_path, **NO_ADDRESS_LIMITS, CHAT_USER_CONNECTIONS="10") as server:
        with Bystanders(server) as bystanders:
            flooders = [(ATTACKER, login_line("mallory"), line)] * 10
            began_at = time.monotonic()
            with Attacker(flood, port=server.port, flooders=flooders):
                bystanders.chat(seconds)
        with closing(Peer(server.port)) as alice:
            alice.login("alice")
            alice.ask(command="CH", limit=500)
            senders = [each["from"] for each in alice.next("history")["messages"]]
            passed_seconds = time.monotonic() - began_at
        assert senders.count("mallory") <= 10 + 2 * passed_seconds + 1, "the messages that wait are stored as well"


@pytest.mark.parametrize(
    ("connections", "messages", "seconds"), [(4, 1_000, 1), pytest.param(20, 50_000, 25, marks=LONG)]
)
def test_many_users_search_without_a_pause(tmp_path: Path, connections: int, messages: int, seconds: int) -> None:
    """A search of another user is next, after each attacker had one. They may search as often as they like.

    So its wait is compared with one search of an attacker, in processor time of the server: that does not depend on
    what else the machine runs, now and then.
    """
    chance = random.Random(0)
    letters = "abcdefghijklmno"
    words = [f"{letter * 8}{number}" for number in range(20_000) for letter in letters]
    slow = {"command": "search", "words": " ".join(f"{letter * 8}*" for letter in letters) + " zzz"}
    quick = {"command": "search", "words": "aaaaaaaa1 bbbbbbbb2"}
    settings = {**NO_ADDRESS_LIMITS, "CHAT_QUERY_BURST": "1000000", "CHAT_REQUEST_RATE": "0"}
    with attacked(tmp_path, **settings) as server, ExitStack() as peers:
        alice, bob = (peers.enter_context(closing(Peer(server.port))) for _ in range(2))
        alice.login("alice")
        send_and_wait(alice, [" ".join(chance.sample(words, 100)) for _ in range(messages)], command="PM")

        def seconds_of(peer: Peer, request: dict[str, str]) -> float:
            began_at = server.processor_seconds()
            peer.ask(**request)
            peer.next("found", "error")
            return server.processor_seconds() - began_at

        bob.login("bob")
        seconds_of(alice, slow)  # waits for the index
        slow_seconds = seconds_of(alice, slow)
        flooders = [
            (ATTACKER, login_line(f"mallory{number}"), json.dumps(slow) + "\n") for number in range(connections)
        ]
        with Bystanders(server) as bystanders, Attacker(flood, port=server.port, flooders=flooders):
            bystanders.chat(seconds)
            seconds_of(bob, quick)  # waits for the index
            waits = [seconds_of(bob, quick) for _ in range(5)]
        print(f"a slow search takes {slow_seconds:.2f} s; those of bob waited {statistics.median(waits):.2f} s")
        # The server also searches for attackers while this process stalls before it sends its request.
        assert statistics.median(waits) < 3 * slow_seconds + 0.2
