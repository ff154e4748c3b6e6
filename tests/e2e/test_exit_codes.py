"""The ends of clients and of the server: exit codes, and what the other users see."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .harness.stack import Stack

STOP_SECONDS = 2.0


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
def test_server_stops_within_two_seconds(stack: Stack) -> None:
    """Story 12: all clients are told, also one that is not logged in, and the exit code is 0."""
    server = stack.start_server()
    alice, bob = stack.clients("alice", "bob")
    carol = stack.start_client("carol")
    carol.expect_question("password new")
    alice.say("a last word")
    assert server.stop_within(STOP_SECONDS) == 0
    bob.expect("alice: a last word")
    for client in (alice, bob, carol):
        client.expect("[bye] the server is shutting down")
    for client in (alice, bob):
        client.expect("[lost]")
    assert carol.wait_exit() == 1
    assert "Traceback" not in server.log()


def test_lost_server_is_exit_code_1(stack: Stack) -> None:
    """A server that can't be reached; and one that is lost, if the client has no time to reconnect."""
    server = stack.start_server()
    # Port 1 has no listener.
    stranded = stack.start_client("bob", "--hostname", "127.0.0.1", "--port", "1", password="x")
    stranded.expect_next("[error lost] can't reach 127.0.0.1:1")
    assert stranded.wait_exit() == 1
    alice = stack.client("alice", "--retry-seconds", "0")
    assert server.stop() == 0
    alice.expect("[bye] the server is shutting down")
    alice.expect("[lost]")
    alice.expect("[error lost]")
    assert alice.wait_exit() == 1


def test_client_leaves_while_the_server_is_away(stack: Stack) -> None:
    """With no unconfirmed message it does not wait for the server, and the exit code is 0."""
    server = stack.start_server()
    alice, bob, carol = stack.clients("alice", "bob", "carol")
    server.kill()
    for client in (alice, bob, carol):
        client.expect("[lost]")
    alice.type("EX")
    bob.end_input()
    carol.send_signal(signal.SIGTERM)
    for client in (alice, bob, carol):
        assert client.wait_exit(5) == 0


def test_missing_password_is_exit_code_3(stack: Stack) -> None:
    """Standard input ends at the question for the password."""
    stack.start_server()
    alice = stack.start_client("alice")
    alice.expect_question("password new")
    alice.end_input()
    assert alice.wait_exit() == 3
