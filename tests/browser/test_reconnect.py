"""The page when the server is gone and comes back."""

from __future__ import annotations

import json
import random
import threading
from typing import TYPE_CHECKING

import pytest
from browser.test_accessibility import assert_accessible
from integration.room import Peer
from reliability.program import Program

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from browser.page import Page

# Errors that chromium logs about a server that is gone.
GONE = ("WebSocket connection to", "net::ERR_CONNECTION_", "net::ERR_EMPTY_RESPONSE", "net::ERR_SOCKET_NOT_CONNECTED")


def stored(port: int) -> list[str]:
    """The texts of the lobby."""
    peer = Peer(port)
    peer.login("reader")
    peer.ask(command="CH", limit=500)
    texts = [each["message"] for each in peer.next("history")["messages"]]
    peer.close()
    return texts


def test_page_resumes_after_the_server_was_killed(own_server: Program, open_page: Callable[[int], Page]) -> None:
    """Promise: no message is lost or shown twice, and the page says that it has no connection.

    One message is under way when the server is killed, and one is typed while there is none.
    """
    port = own_server.port
    alice, bob = open_page(port), open_page(port)
    for page, name in ((alice, "alice"), (bob, "bob")):
        page.expect_errors(*GONE)
        page.log_in(name)
    alice.send("one")
    bob.until_last("one")
    own_server.suspend()
    alice.send("two")
    alice.until_last("two")
    own_server.kill()
    alice.until(lambda: "kept and sent later" in alice.status(), "it says that there is no connection")
    assert_accessible(alice, "no connection")
    alice.send("three")
    assert alice.until_last("three").state == "pending"
    own_server.start(port)
    peer = Peer(port)
    peer.login("carol")
    for page in (alice, bob):
        page.until(lambda page=page: "Connected" in page.status(), "it is connected")
        page.until(lambda page=page: {"one", "two", "three"} <= {*page.texts()}, "all have arrived")
    peer.say("four")
    for page in (alice, bob):
        page.until_texts("one", "two", "three", "four")
        page.until_sent()
        ids = [each.id for each in page.messages()]
        assert ids == sorted(ids)
    assert stored(port) == ["one", "two", "three", "four"]
    peer.close()


def test_unsent_message_is_sent_after_a_reload(own_server: Program, open_page: Callable[[int], Page]) -> None:
    alice = open_page(own_server.port)
    alice.expect_errors(*GONE)
    alice.log_in("alice", stays=True)
    alice.send("one")
    alice.until_sent()
    own_server.kill()
    alice.send("typed before the reload")
    assert alice.until_last("typed before the reload").state == "pending"
    alice.reload()
    alice.until(lambda: alice.run("return location.protocol") != "http:", "the browser shows its own page of errors")
    own_server.start(own_server.port)
    alice.reload()
    alice.find("textbox", "Message")
    alice.until_texts("one", "typed before the reload")
    alice.until_sent()
    assert stored(own_server.port) == ["one", "typed before the reload"]


def test_page_says_why_its_connection_is_refused(tmp_path: Path, open_page: Callable[[int], Page]) -> None:
    """A browser hides the answer to a refused WebSocket. It is shown, and the user can try again."""
    limit = 12
    with Program(
        tmp_path, CHAT_EXEMPT="none", CHAT_ADDRESS_CONNECTIONS=str(limit), CHAT_ADDRESS_NEW_CONNECTIONS="0"
    ) as server:
        idle_sockets = server.descriptors("socket:")
        page = open_page(server.port)
        page.expect_errors(*GONE, "429")
        others: list[Peer] = []

        def is_refused() -> bool:
            """Fill the places that the browser has left, and log in with a name that does not exist."""
            page.fill_in("alice", "secret")
            while is_accepted(peer := Peer(server.port)):
                others.append(peer)
            page.click("button", "Log in")
            alert = "return document.querySelector('[role=alert]').textContent"
            return f"Your address has {limit} connections" in page.until(lambda: page.run(alert), "there is an answer")

        page.until(is_refused, "it says why")
        for each in others:
            each.close()
        server.wait_until(lambda: server.descriptors("socket:") < idle_sockets + limit, "there are places again")
        page.log_in("alice")


def is_accepted(peer: Peer) -> bool:
    """True if the server serves this connection; it is closed if it was refused."""
    peer.ask(command="ping")
    answer = json.loads(peer.line() or "{}")
    if answer.get("type") == "pong":
        return True
    peer.close()
    return False


@pytest.mark.long
@pytest.mark.timeout(300)
def test_page_resumes_after_many_kills(own_server: Program, open_page: Callable[[int], Page]) -> None:
    """The server is killed at any moment while two users write."""
    chance = random.Random(22)
    port = own_server.port
    alice, bob = open_page(port), open_page(port)
    for page, name in ((alice, "alice"), (bob, "bob")):
        page.expect_errors(*GONE)
        page.log_in(name)
    said = []
    for round_ in range(12):
        killer = threading.Timer(chance.uniform(0.0, 0.4), own_server.kill)
        killer.start()
        for number in range(6):
            for page, name in ((alice, "a"), (bob, "b")):
                said.append(f"{name} {round_}.{number}")
                page.send(said[-1])
        killer.join()
        own_server.start(port)
        for page in (alice, bob):
            page.run("document.querySelector('[role=status] button')?.click()")  # try now
            page.until(lambda page=page: "Connected" in page.status(), "it is connected")
            page.until_sent()
    for page in (alice, bob):
        page.until(lambda page=page: len(page.messages()) == len(said), "all have arrived")
        assert sorted(page.texts()) == sorted(said)
    assert alice.texts() == bob.texts() == stored(port)
    for name in "ab":
        assert [each for each in alice.texts() if each.startswith(name)] == [
            each for each in said if each.startswith(name)
        ]
