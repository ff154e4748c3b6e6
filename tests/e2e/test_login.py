"""Wrong passwords."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .harness.stack import Stack


def test_third_wrong_password_ends_the_client(stack: Stack) -> None:
    """Story 2: three attempts, exit code 3, and the room is not told."""
    stack.start_server()
    bob = stack.client("bob")
    alice = stack.start_client("alice")
    alice.log_in("right", account="new")
    bob.expect("[joined] alice")
    alice.leave()
    bob.expect("[left] alice")
    intruder = stack.start_client("alice")
    intruder.expect_question("password existing")
    for guess in ("wrong", "Right"):
        intruder.type(guess)
        intruder.expect_next("[error wrong_password]")
        intruder.expect_next("[ask] password existing")
    intruder.type("right ")
    intruder.expect_next("[error too_many_attempts]")
    assert intruder.wait_exit() == 3
    intruder.assert_never("[welcome")
    # Joins and leaves are announced in order: all before carol's have been announced.
    stack.client("carol")
    bob.expect("[joined] carol")
    bob.assert_once("[joined] alice")
    bob.assert_once("[left] alice")
