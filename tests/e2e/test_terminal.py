"""A client in a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ops.window import ENTER, TAB, control

if TYPE_CHECKING:
    from .harness.stack import Stack

PASSWORD = "not for any eyes"


@pytest.mark.docker
def test_person_talks_at_a_terminal(stack: Stack) -> None:
    """Story 14: the password is not shown, a half-typed line stays intact, Tab completes names, Ctrl-D leaves."""
    stack.start_server()
    bob = stack.client("bob")
    bob.say("who will come?")
    dave = stack.window("dave")
    dave.until_line("password: ")
    dave.type(PASSWORD, ENTER)
    dave.until_line("password again: ")
    dave.type(PASSWORD, ENTER)
    dave.until_shows("You are dave", "│ who will come?", "2 online", "connected")
    bob.expect_online("dave")

    dave.type("hello every")
    bob.say("hello dave")
    dave.until_shows("│ hello dave")
    dave.until_line("dave> hello every")
    dave.type("body", ENTER)
    bob.expect("dave: hello everybody")

    dave.type("DM b", TAB)
    dave.until_line("dave> DM bob")
    dave.type("only for you", ENTER)
    bob.expect("dave -> bob: only for you")
    dave.until_shows("dave » bob │ only for you")
    assert dave.bells == 1  # for bob's message to dave

    dave.type(control("D"))
    assert dave.until_end() == 0
    assert "You left." in dave.text()
    assert PASSWORD.encode() not in dave.raw
