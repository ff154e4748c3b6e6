"""Story 13: scripts, which type, wait and pause."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .harness.stack import Stack

SCRIPT = """\
# A script says hello, waits for an answer, and says goodbye.
PM hello, who is there?
%wait 20 bob: I am
%pause 0.05
DM
%wait recipient
bob
%wait message for bob
nice to meet you
%wait [sent #3]
EX
"""


def test_a_script_is_played_from_the_first_line_to_the_last(stack: Stack) -> None:
    """It waits for what others say, answers questions, and ends with exit code 0."""
    stack.start_server()
    bob = stack.client("bob")
    script = stack.script(SCRIPT)
    alice = stack.start_client("alice", "--script", script, password="wonderland")

    bob.expect("alice: hello, who is there?")
    bob.knows("alice")
    alice.expect("> PM hello, who is there?")
    alice.expect("[sent #1]")
    alice.never_saw("> DM")
    bob.say("I am")
    bob.expect_next("alice -> bob: nice to meet you")
    bob.expect("[left] alice")
    assert alice.wait_exit() == 0
    alice.expect("bob: I am")
    alice.expect("> EX")
    alice.expect_next("[bye] you left")
    alice.never_saw("# A script")


def test_a_script_that_waits_in_vain_is_exit_code_4(stack: Stack) -> None:
    """It says which line, and types nothing more."""
    stack.start_server()
    bob = stack.client("bob")
    script = stack.script("PM anybody?\n%wait 0.1 nobody says this\nPM not typed\n")
    alice = stack.start_client("alice", "--script", script, password="wonderland")
    alice.expect("[error script] line 2: waited 0.1 s in vain for 'nobody says this'")
    assert alice.wait_exit() == 4
    bob.expect("alice: anybody?")
    stack.fence(bob)
    bob.never_saw("not typed")


def test_a_script_with_a_mistake_is_exit_code_2(stack: Stack) -> None:
    """It is read before anything is done."""
    script = stack.script("PM hello\n%wiat hello\n")
    alice = stack.start_client("alice", "--script", script, password="wonderland")
    assert alice.wait_exit() == 2
    alice.saw_once("line 2: '%wiat hello' is neither %wait")
