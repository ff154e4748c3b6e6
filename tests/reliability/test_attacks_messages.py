"""Attacks by users who are logged in, with a server on one processor: others chat, and memory stays bounded.

Attackers have addresses in 127.1.0.0/16. Each test has the numbers of a known attack if it is run with ``-m long``.
"""

from __future__ import annotations

import json
import random
import socket
import threading
import time
from contextlib import ExitStack, closing, suppress
from typing import TYPE_CHECKING, Self

import pytest
from integration.room import Peer
from reliability.bystanders import ONE_PROCESSOR, Bystanders
from reliability.program import Program

if TYPE_CHECKING:
    from pathlib import Path

MEBIBYTE = 1024 * 1024
# The bystanders; limits of connections and registrations have tests of their own.
HERE, ATTACKER = "127.0.0.1", "127.1.0.1"
SETTINGS = {
    "CHAT_EXEMPT": HERE,
    "CHAT_ADDRESS_CONNECTIONS": "0",
    "CHAT_ADDRESS_NEW_CONNECTIONS": "0",
    "CHAT_ADDRESS_REGISTRATIONS": "0",
    "CHAT_REGISTRATIONS": "0",
}
MEMORY_MAX_BYTES = 100 * MEBIBYTE
# Maximum memory that the server keeps after an attack.
KEPT_MAX_BYTES = 25 * MEBIBYTE
TEXT = "x" * 8_100


class DeafPeer(Peer):
    """A peer that reads only what its system buffers."""

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


class MemoryWatch:
    """Watches by how much the memory of a server grows."""

    def __init__(self, server: Program) -> None:
        self._server = server
        self._before = server.memory_bytes()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory watch")
        self.peak_bytes = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()
        print(f"{self.peak_bytes / MEBIBYTE:.1f} MiB more at the peak")

    def grown_bytes(self) -> int:
        return self._server.memory_bytes() - self._before

    def _watch(self) -> None:
        while not self._is_over.wait(0.02):
            self.peak_bytes = max(self.peak_bytes, self.grown_bytes())


@pytest.mark.parametrize("asks", ["history", "since"])
@pytest.mark.parametrize(
    ("connections", "messages", "seconds"),
    [(10, 300, 0.5), pytest.param(40, 1_000, 10, marks=[pytest.mark.long, pytest.mark.timeout(120)])],
)
def test_peers_ask_for_long_answers_and_read_nothing(
    tmp_path: Path, asks: str, connections: int, messages: int, seconds: float
) -> None:
    """An answer is made as its peer reads; its memory is given back."""
    with Program(tmp_path, under=ONE_PROCESSOR, **SETTINGS) as server, Bystanders(server.port) as bystanders:
        with closing(Peer(server.port)) as alice:
            alice.login("alice")
            send_and_wait(alice, [TEXT] * messages, command="PM")
        with MemoryWatch(server) as memory, ExitStack() as peers:
            for number in range(connections):
                peer = peers.enter_context(closing(DeafPeer(server.port)))
                if asks == "history":
                    peer.login(f"mallory{number}")
                    peer.ask(command="CH", limit=500)
                else:
                    peer.ask(command="login", username=f"mallory{number}", password="secret", since=0)
            bystanders.chat(time.monotonic() + seconds)
        assert memory.peak_bytes < MEMORY_MAX_BYTES * max(connections / 40, 0.4)
        bystanders.assert_quick()
        server.wait_until(lambda: memory.grown_bytes() < KEPT_MAX_BYTES, "the memory")


@pytest.mark.parametrize("limit", ["0", pytest.param("8", marks=pytest.mark.long)])
@pytest.mark.parametrize(
    ("connections", "messages"),
    [(20, 250), pytest.param(120, 1_000, marks=[pytest.mark.long, pytest.mark.timeout(120)])],
)
def test_connections_of_one_user_do_not_read_their_direct_messages(
    tmp_path: Path, limit: str, connections: int, messages: int
) -> None:
    """Only eight of them stay. Without that limit, what they don't read is stored once for all of them."""
    settings = {**SETTINGS, "CHAT_USER_CONNECTIONS": limit}
    with Program(tmp_path, under=ONE_PROCESSOR, **settings) as server, Bystanders(server.port) as bystanders:
        with closing(Peer(server.port)) as alice, ExitStack() as peers:
            alice.login("alice")
            with MemoryWatch(server) as memory:
                for _ in range(connections):
                    peers.enter_context(closing(DeafPeer(server.port))).login("mallory")
                send_and_wait(alice, [TEXT] * messages, command="DM", to="mallory")
                bystanders.chat(time.monotonic() + 1)
            assert server.log().count("connection replaced") == (connections - 8 if limit == "8" else 0)
        assert memory.peak_bytes < MEMORY_MAX_BYTES
        if limit != "0":  # each message is encoded for each connection
            bystanders.assert_quick()
        server.wait_until(lambda: memory.grown_bytes() < KEPT_MAX_BYTES, "the memory")


@pytest.mark.parametrize("size", [8_000, pytest.param(20, marks=pytest.mark.long)])
@pytest.mark.parametrize("seconds", [1, pytest.param(30, marks=[pytest.mark.long, pytest.mark.timeout(120)])])
def test_ten_connections_of_one_user_flood_with_messages(tmp_path: Path, size: int, seconds: int) -> None:
    """Two messages a second are stored, and the others wait in the network. Others don't notice."""
    line = json.dumps({"command": "PM", "message": "x" * size}).encode() + b"\n"
    settings = {**SETTINGS, "CHAT_USER_CONNECTIONS": "10"}
    with Program(tmp_path, under=ONE_PROCESSOR, **settings) as server, Bystanders(server.port) as bystanders:
        with ExitStack() as peers:
            for _ in range(10):
                peer = peers.enter_context(closing(Peer(server.port, ATTACKER)))
                peer.login("mallory")
                peers.callback(must_end, pour(peer, line))
                peers.callback(peer.socket.shutdown, socket.SHUT_RDWR)
            bystanders.chat(time.monotonic() + seconds)
        bystanders.assert_quick()
        with closing(Peer(server.port)) as alice:
            alice.login("alice")
            alice.ask(command="CH", limit=500)
            senders = [each["from"] for each in alice.next("history")["messages"]]
        assert senders.count("mallory") <= 10 + 2 * (seconds + 6), "the messages that wait are stored as well"


def pour(peer: Peer, line: bytes) -> threading.Thread:
    def send() -> None:
        with suppress(OSError):
            while True:
                peer.send(line * 100)

    thread = threading.Thread(target=send, name="pour")
    thread.start()
    return thread


def must_end(thread: threading.Thread) -> None:
    thread.join(10)
    assert not thread.is_alive()


@pytest.mark.parametrize(
    ("connections", "messages", "seconds"),
    [(4, 1_000, 1), pytest.param(20, 50_000, 25, marks=[pytest.mark.long, pytest.mark.timeout(200)])],
)
def test_many_users_search_without_a_pause(tmp_path: Path, connections: int, messages: int, seconds: int) -> None:
    """A search of another user is next, after each attacker had one. They may search as often as they like."""
    chance = random.Random(0)
    letters = "abcdefghijklmno"
    words = [f"{letter * 8}{number}" for number in range(20_000) for letter in letters]
    slow = {"command": "search", "words": " ".join(f"{letter * 8}*" for letter in letters) + " zzz"}
    settings = {**SETTINGS, "CHAT_QUERY_BURST": "1000000", "CHAT_REQUEST_RATE": "0"}
    with Program(tmp_path, under=ONE_PROCESSOR, **settings) as server, ExitStack() as peers:
        alice, bob = (peers.enter_context(closing(Peer(server.port))) for _ in range(2))
        alice.login("alice")
        send_and_wait(alice, [" ".join(chance.sample(words, 100)) for _ in range(messages)], command="PM")

        def seconds_of(peer: Peer, **request: str) -> float:
            began_at = time.monotonic()
            peer.ask(**request)
            peer.next("found", "error")
            return time.monotonic() - began_at

        bystanders = peers.enter_context(Bystanders(server.port))
        bob.login("bob")
        seconds_of(alice, **slow)  # waits for the index
        slow_seconds = seconds_of(alice, **slow)
        for number in range(connections):
            peer = peers.enter_context(closing(Peer(server.port, ATTACKER)))
            peer.login(f"mallory{number}")
            peers.callback(must_end, ask_often(peer, slow))
            peers.callback(peer.socket.shutdown, socket.SHUT_RDWR)
        bystanders.chat(time.monotonic() + seconds)
        quick = {"command": "search", "words": "aaaaaaaa1 bbbbbbbb2"}
        seconds_of(bob, **quick)  # waits for the index
        waits = [seconds_of(bob, **quick) for _ in range(5)]
        print(f"a slow search takes {slow_seconds:.2f} s; those of bob waited {max(waits):.2f} s at most")
        assert max(waits) < 3 * slow_seconds + 0.2
        bystanders.assert_quick()


def ask_often(peer: Peer, request: dict[str, object]) -> threading.Thread:
    """Ask again after each answer."""

    def ask() -> None:
        with suppress(OSError, ValueError, pytest.fail.Exception):
            while True:
                peer.ask(**request)
                peer.next("found", "error")

    thread = threading.Thread(target=ask, name="searches")
    thread.start()
    return thread
