"""Story 2: a wrong password lets nobody in, and the others notice nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .harness.actors import Client
    from .harness.stack import Stack


@pytest.fixture
def bob(stack: Stack) -> Client:
    """Somebody who sits in the room, and saw alice register and leave."""
    stack.start_server()
    bob = stack.client("bob")
    alice = stack.start_client("alice")
    alice.log_in("right", account="new")
    bob.expect("[joined] alice")
    alice.leave()
    bob.expect("[left] alice")
    return bob


def test_a_wrong_password_is_asked_again_three_times(stack: Stack, bob: Client) -> None:
    """Three tries, exit code 3, and nobody sees an alice who is none."""
    intruder = stack.start_client("alice")
    intruder.asked("password existing")
    for guess in ("wrong", "Right"):
        intruder.type(guess)
        intruder.expect_next("[error wrong_password]")
        intruder.expect_next("[ask] password existing")
    intruder.type("right ")
    intruder.expect_next("[error too_many_attempts]")
    assert intruder.wait_exit() == 3
    intruder.never_saw("[welcome")
    nobody_came(stack, bob)


def test_a_wrong_password_that_was_not_typed_is_refused_at_once(stack: Stack, bob: Client) -> None:
    """Nobody is there to correct a password from the environment: exit code 3, and no question."""
    intruder = stack.start_client("alice", password="wrong")
    intruder.expect_next("[error wrong_password]")
    assert intruder.wait_exit() == 3
    intruder.never_saw("[ask]")
    intruder.never_saw("[welcome")
    nobody_came(stack, bob)


def test_after_wrong_passwords_the_right_one_opens(stack: Stack, bob: Client) -> None:
    """Whoever types right at last is in."""
    alice = stack.start_client("alice")
    alice.asked("password existing")
    alice.type("wrong")
    alice.expect_next("[error wrong_password]")
    alice.log_in("right", account="existing")
    bob.expect("[joined] alice")


def nobody_came(stack: Stack, bob: Client) -> None:
    """Comings and goings are told in order: with carol's, all before it were told."""
    stack.client("carol")
    bob.expect("[joined] carol")
    bob.saw_once("[joined] alice")
    bob.saw_once("[left] alice")
