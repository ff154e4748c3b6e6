"""Story 4: a direct message."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .harness.stack import Stack


@pytest.mark.parametrize("line", ["DM bob meet me at noon", "@bob meet me at noon"])
def test_a_direct_message_is_seen_by_nobody_else(stack: Stack, line: str) -> None:
    """The recipient sees it once, the sender is told its id, a third one never hears of it."""
    stack.start_server()
    alice, bob, carol = stack.clients("alice", "bob", "carol")

    alice.type(line)
    number = alice.expect_sent()

    bob.expect_next(f"[direct #{number} ")
    stack.fence(bob, alice, carol)
    stack.fence(carol, alice, bob)
    bob.saw_once("alice -> bob: meet me at noon")
    alice.never_saw("meet me at noon")
    carol.never_saw("meet me at noon")


def test_people_of_both_traditions_understand_each_other(stack: Stack) -> None:
    """With --ops bm-pm, BM is what PM is to the others, and PM is what DM is to them."""
    stack.start_server()
    alice = stack.client("alice", "--ops", "bm-pm")
    bob, carol = stack.clients("bob", "carol")

    alice.type("BM hello from the other side", "PM bob just between us")
    bob.expect("alice: hello from the other side")
    bob.expect_next("alice -> bob: just between us")
    carol.expect("alice: hello from the other side")
    bob.type("DM alice all right")
    alice.expect("bob -> alice: all right")
    alice.type("PM")
    alice.asked("recipient")
    alice.type("carol")
    alice.asked("message for carol")
    alice.type("and to you")
    carol.expect_next("alice -> carol: and to you")

    alice.type("DM bob this is no operation here")
    alice.expect("[error usage] DM is no operation")
    stack.fence(carol, bob)
    bob.never_saw("this is no operation here")
    for other in (bob, carol):
        other.saw_once("hello from the other side")
    carol.never_saw("between us")
