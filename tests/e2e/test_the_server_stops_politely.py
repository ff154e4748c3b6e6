"""Story 12, the server's part: SIGTERM with people in the room."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .harness.stack import Stack

STOP_SECONDS = 2.0


def test_the_server_stops_politely_and_quickly(stack: Stack) -> None:
    """Everybody is told, whoever is still at the door as well, and the exit code is 0 in less than two seconds."""
    server = stack.start_server()
    alice, bob = stack.clients("alice", "bob")
    carol = stack.start_client("carol")
    carol.asked("password new")
    alice.say("a last word")

    assert server.stop_within(STOP_SECONDS) == 0

    bob.expect("alice: a last word")
    for client in (alice, bob, carol):
        client.expect("[bye] the server is shutting down")
    for client in (alice, bob):
        client.expect("[lost]")
    assert carol.wait_exit() == 1
    assert "Traceback" not in server.log()


def test_the_server_stops_when_nobody_is_there(stack: Stack) -> None:
    """The same without anybody to tell."""
    server = stack.start_server()
    assert server.stop_within(STOP_SECONDS) == 0
