"""Story 12, the clients' part: exit codes, and what the others see."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .harness.stack import Stack

# Nothing listens on the first of all ports.
NOWHERE = ("--hostname", "127.0.0.1", "--port", "1")


@pytest.mark.parametrize("way", ["EX", "/quit", "end of input", "SIGTERM", "SIGINT"])
def test_a_client_that_leaves_ends_with_0(stack: Stack, way: str) -> None:
    """What it said before is delivered, it gets a goodbye, and the others see it leave."""
    stack.start_server()
    alice, bob = stack.clients("alice", "bob")
    alice.type("PM I must go")
    match way:
        case "end of input":
            alice.end_input()
        case "SIGTERM" | "SIGINT":
            alice.expect_sent()
            alice.send_signal(signal.Signals[way])
        case _:
            alice.type(way)
    assert alice.wait_exit() == 0
    alice.saw_once("[sent #1]")
    alice.saw_once("[bye]")
    bob.expect("alice: I must go")
    bob.expect("[left] alice")


def test_a_server_that_can_not_be_reached_is_exit_code_1(stack: Stack) -> None:
    """One line says where nobody answered."""
    alice = stack.start_client("alice", *NOWHERE, password="x")
    alice.expect_next("[error lost] can't reach 127.0.0.1:1")
    assert alice.wait_exit() == 1


def test_a_connection_that_is_lost_for_good_is_exit_code_1(stack: Stack) -> None:
    """With no time to try again, the end of the server is the end of the client."""
    server = stack.start_server()
    alice = stack.client("alice", "--retry-seconds", "0")
    # She does not try until the server is gone for good: a container that is about to go may just be silent.
    alice.send_signal(signal.SIGSTOP)
    assert server.stop() == 0
    alice.send_signal(signal.SIGCONT)
    alice.expect("[bye] the server is shutting down")
    alice.expect("[lost]")
    alice.expect("[error lost]")
    assert alice.wait_exit() == 1


def test_a_client_leaves_while_the_server_is_away(stack: Stack) -> None:
    """With nothing left to send there is nothing to wait for."""
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


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["no/name"], "'no/name' can't be a username"),
        (["all"], "'all' can't be a username"),
        (["alice", "--port", "70000"], "The port is '70000'"),
        (["alice", "--script", "/no/such/file"], "The script file /no/such/file can't be read"),
        (["alice", "--no-such-flag"], "--no-such-flag"),
    ],
)
def test_bad_usage_is_exit_code_2(stack: Stack, arguments: list[str], complaint: str) -> None:
    """One line says what to give instead."""
    client = stack.start_client(*arguments)
    assert client.wait_exit() == 2
    client.saw_once(complaint)
    assert len(client.transcript.matches("")) == 1


def test_a_password_that_nobody_types_is_exit_code_3(stack: Stack) -> None:
    """Without a password there is no login."""
    stack.start_server()
    alice = stack.start_client("alice")
    alice.asked("password new")
    alice.end_input()
    assert alice.wait_exit() == 3
