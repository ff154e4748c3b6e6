"""Story 3: three clients and a public message."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .harness.stack import Stack


@pytest.mark.parametrize("way", ["in one line", "step by step", "addressed to all"])
def test_a_public_message_reaches_everybody_else_once(stack: Stack, way: str) -> None:
    """The others see it once, with the id that the sender is told; the sender sees the confirmation alone."""
    stack.start_server()
    alice, bob, carol = stack.clients("alice", "bob", "carol")

    match way:
        case "in one line":
            alice.type("pm Hello, everybody! Grüße 🌍")
        case "step by step":
            alice.type("PM")
            alice.asked("message for everybody")
            alice.type("Hello, everybody! Grüße 🌍")
        case _:
            alice.type("@all Hello, everybody! Grüße 🌍")
    number = alice.expect_sent()

    for other in (bob, carol):
        other.expect_next(f"[public #{number} ")
        other.saw_once("alice: Hello, everybody! Grüße 🌍")
    # Everybody has an answer now that was sent after the message: nothing else came before it.
    stack.fence(bob, alice, carol)
    stack.fence(carol, bob)
    alice.never_saw("Hello, everybody!")
    alice.saw_once("[sent #")
    for other in (bob, carol):
        other.saw_once("Hello, everybody!")
