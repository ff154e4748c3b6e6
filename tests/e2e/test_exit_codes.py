"""The ends of clients and of the server: exit codes, and what the other users see."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .harness.stack import Stack


@pytest.mark.docker
def test_client_that_leaves_ends_with_0(stack: Stack) -> None:
    """Story 12: its last message is delivered, it prints a goodbye, and the others see it leave."""
    stack.start_server()
    bob, *leavers = stack.clients("bob", "ex", "quit", "eof", "sigterm", "sigint")
    for client in leavers:
        client.type("PM I must go")
        match client.name:
            case "ex":
                client.type("EX")
            case "quit":
                client.type("/quit")
            case "eof":
                client.end_input()
            case name:
                client.expect_sent()
                client.send_signal(signal.Signals[name.upper()])
        assert client.wait_exit() == 0
        client.assert_once("[sent #")
        client.assert_once("[bye]")
        bob.expect(f"{client.name}: I must go")
        bob.expect(f"[left] {client.name}")


@pytest.mark.docker
def test_clients_are_told_that_the_server_stops(stack: Stack) -> None:
    """Story 12: all clients are told, also one that is not logged in, and the exit code is 0."""
    server = stack.start_server()
    alice, bob = stack.clients("alice", "bob")
    carol = stack.start_client("carol")
    carol.expect_question("password new")
    alice.say("a last word")
    assert server.stop() == 0
    bob.expect("alice: a last word")
    for client in (alice, bob, carol):
        client.expect("[bye] the server is shutting down")
    for client in (alice, bob):
        client.expect("[lost]")
    assert carol.wait_exit() == 1
    assert "Traceback" not in server.log()
