"""Story 8: the server goes away and comes back while people sit in the room."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .harness.stack import Stack


@pytest.mark.parametrize("way", ["restarted", "killed"])
def test_the_server_restarts_and_nobody_misses_anything(stack: Stack, way: str) -> None:
    """The clients come back by themselves; what the quicker one says meanwhile reaches the other, once."""
    server = stack.start_server()
    alice, bob = stack.clients("alice", "bob")
    alice.say("before the restart")
    bob.expect("alice: before the restart")
    # Bob's client stands still, so that it is the slower one.
    bob.send_signal(signal.SIGSTOP)
    alice.say("bob does not read this yet")

    if way == "restarted":
        assert server.stop() == 0
        alice.expect("[bye] the server is shutting down")
    else:
        server.kill()
    alice.expect("[lost]")
    alice.type("PM said to a server that is not there")
    server.start()
    alice.expect("[back] alice")
    alice.expect_sent()
    alice.say("I was quicker")
    alice.type("DM bob for you alone")
    alice.expect_sent()

    bob.send_signal(signal.SIGCONT)
    if way == "restarted":
        bob.expect("alice: bob does not read this yet")
    # A server that is killed may have confirmed it to alice and not sent it to bob yet: then it comes after the return.
    bob.expect("[lost]")
    bob.expect_next("[back] bob")
    bob.expect("alice: said to a server that is not there")
    bob.expect_next("alice: I was quicker")
    bob.expect_next("alice -> bob: for you alone")

    stack.fence(bob, alice)
    stack.fence(alice, bob)
    for text in ("before the restart", "does not read", "not there", "quicker", "for you alone"):
        bob.saw_once(text)
        alice.never_saw(f"alice: {text}")
    alice.type("CH")
    alice.expect("[history 7]")


def test_what_was_not_confirmed_is_sent_again_and_stored_once(stack: Stack) -> None:
    """A server is killed before it reads a message, then in the middle of sixty: each is there once, in order."""
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
        bob.saw_once(f"alice: {word}")


def test_a_dialogue_outlives_the_server(stack: Stack) -> None:
    """Whoever was asked for a recipient is asked again after the connection is back, and goes on."""
    server = stack.start_server()
    alice, bob = stack.clients("alice", "bob")
    bob.leave()
    alice.expect("[left] bob")
    alice.type("DM", "bob")
    alice.asked("message for bob")

    server.kill()
    alice.expect("[lost]")
    server.start()
    alice.expect("[back] alice")
    alice.asked("message for bob")
    alice.type("still here")
    alice.expect("[stored #1]")
