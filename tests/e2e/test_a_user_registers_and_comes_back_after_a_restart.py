"""Story 1: an account outlives the server's process."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .harness.stack import Stack


def test_a_user_registers_and_comes_back_after_a_restart_of_the_server(stack: Stack) -> None:
    """Accounts and messages are on the disk: name, password and history are known to the next process."""
    server = stack.start_server()
    alice = stack.start_client("alice")
    assert alice.log_in("wonderland", account="new")["online"] == "alice"
    alice.say("is anybody here?")
    alice.leave()

    server.restart()

    again = stack.start_client("alice")
    again.log_in("wonderland", account="existing")
    again.type("CH")
    again.expect_next("[history 1]")
    again.expect_next("alice: is anybody here?")
    again.leave()
