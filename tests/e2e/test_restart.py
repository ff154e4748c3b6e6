"""The server ends and is started again while clients are connected."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .harness.stack import Stack


@pytest.mark.docker
@pytest.mark.parametrize("way", ["restarted", "killed"])
def test_no_message_is_missed_over_a_restart(stack: Stack, way: str) -> None:
    """Story 8: the clients reconnect; messages sent before the slower one is back reach it, once."""
    server = stack.start_server()
    alice, bob = stack.clients("alice", "bob")
    alice.say("before the restart")
    bob.expect("alice: before the restart")
    # Bob's client is paused, so that it reconnects after alice.
    bob.send_signal(signal.SIGSTOP)
    alice.say("bob does not read this yet")

    if way == "restarted":
        assert server.stop() == 0
        alice.expect("[bye] the server is shutting down")
    else:
        server.kill()
    alice.expect("[lost]")
    alice.type("PM said while the server was away")
    server.start()
    alice.expect("[back] alice")
    alice.expect_sent()
    alice.say("I was quicker")
    alice.type("DM bob for you alone")
    alice.expect_sent()

    bob.send_signal(signal.SIGCONT)
    if way == "restarted":
        bob.expect("alice: bob does not read this yet")
    # A killed server may have confirmed this message and not sent it to bob: then it arrives after the reconnect.
    bob.expect("[lost]")
    bob.expect_next("[back] bob")
    bob.expect("alice: said while the server was away")
    bob.expect_next("alice: I was quicker")
    bob.expect_next("alice -> bob: for you alone")

    stack.fence(bob, alice)
    stack.fence(alice, bob)
    for text in ("before the restart", "does not read", "was away", "quicker", "for you alone"):
        bob.assert_once(text)
        alice.assert_never(f"alice: {text}")
    alice.type("CH")
    alice.expect("[history 7]")


def test_unconfirmed_messages_are_stored_once(stack: Stack) -> None:
    """The server is killed before it reads a message, then amid sixty: each is stored once, in order."""
    server = stack.start_server()
    alice, bob = stack.clients("alice", "bob")
    server.send_signal(signal.SIGSTOP)
    alice.type("PM word 0.", "/help")
    alice.expect("[help]")  # so the line before it has been sent
    server.kill()
    server.start()
    bob.expect("alice: word 0.")

    words = [f"word {number}." for number in range(60)]
    alice.type(*(f"PM {word}" for word in words[1:]))
    bob.expect("alice: word 5.")
    server.kill()
    server.start()
    bob.expect("alice: word 59.")

    stack.fence(alice, bob)
    alice.type("CH 500")
    alice.expect("[history 61]")
    for word in words:
        alice.expect_next(f"alice: {word}")
        bob.assert_once(word)


def test_operation_continues_after_a_reconnect(stack: Stack) -> None:
    """A client that was at a step of an operation asks again, and continues."""
    server = stack.start_server()
    alice, bob = stack.clients("alice", "bob")
    bob.leave()
    alice.expect("[left] bob")
    alice.type("DM", "bob")
    alice.expect_question("message for bob")
    server.kill()
    alice.expect("[lost]")
    server.start()
    alice.expect("[back] alice")
    alice.expect_question("message for bob")
    alice.type("still here")
    alice.expect("[stored #1]")
