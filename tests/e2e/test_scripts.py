"""Scripts: lines to type, waits and pauses."""

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


def test_script_waits_and_answers_questions(stack: Stack) -> None:
    """Story 13: a script waits for messages of others, answers questions, and ends with exit code 0."""
    stack.start_server()
    bob = stack.client("bob")
    script = stack.script(SCRIPT)
    alice = stack.start_client("alice", "--script", script, password="wonderland")
    bob.expect("alice: hello, who is there?")
    bob.expect_online("alice")
    alice.expect("> PM hello, who is there?")
    alice.expect("[sent #1]")
    alice.assert_never("> DM")
    bob.say("I am")
    bob.expect_next("alice -> bob: nice to meet you")
    bob.expect("[left] alice")
    assert alice.wait_exit() == 0
    alice.expect("bob: I am")
    alice.expect("> EX")
    alice.expect_next("[bye] you left")
    alice.assert_never("# A script")
