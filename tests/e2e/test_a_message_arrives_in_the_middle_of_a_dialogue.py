"""Story 6: somebody is typing a direct message step by step while others talk."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .harness.stack import Stack


def test_a_message_arrives_in_the_middle_of_a_dialogue_which_goes_on(stack: Stack) -> None:
    """After each question something arrives and is shown; the dialogue stands where it stood."""
    stack.start_server()
    alice, bob, carol = stack.clients("alice", "bob", "carol")

    bob.type("DM")
    bob.expect_next("[users 3] alice bob carol")
    bob.expect_next("[ask] recipient")
    alice.say("while bob thinks whom to write to")
    bob.expect_next("alice: while bob thinks whom to write to")

    bob.type("carol")
    bob.expect_next("[ask] message for carol")
    alice.type("DM bob while bob thinks what to write")
    alice.expect_sent()
    bob.expect_next("alice -> bob: while bob thinks what to write")
    # The one who is being written to speaks as well.
    carol.say("hello bob")
    bob.expect_next("carol: hello bob")

    bob.type("at last")
    number = int(bob.expect_next("[sent #").string.split("#")[1].rstrip("]"))
    carol.expect(f"[direct #{number} ")
    carol.saw_once("bob -> carol: at last")
    stack.fence(bob, alice, carol)
    alice.never_saw("at last")
