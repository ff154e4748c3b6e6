"""Story 5: direct messages to somebody who is offline, and to nobody."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .harness.stack import Stack


def test_a_direct_message_waits_for_a_user_who_is_not_there(stack: Stack) -> None:
    """It is stored, delivered at the next login, and not at those after it, not even by another server process."""
    server = stack.start_server()
    alice, dave = stack.clients("alice", "dave")
    dave.leave()
    alice.expect("[left] dave")

    alice.type("DM dave call your mother")
    number = int(alice.expect(re.compile(r"\[stored #(\d+)\]"))[1])
    alice.leave()

    dave = stack.client("dave")
    dave.expect_next(re.compile(rf"\[direct #{number} [^]]*\] alice -> dave: call your mother$"))
    dave.leave()
    dave.saw_once("call your mother")

    server.restart()

    dave, alice = stack.clients("dave", "alice")
    stack.fence(alice, dave)
    dave.never_saw("call your mother")


def test_a_direct_message_to_nobody_is_refused(stack: Stack) -> None:
    """A name that nobody has registered gets an error, and nothing is kept for whoever registers it."""
    stack.start_server()
    alice = stack.client("alice")

    alice.type("DM erin are you there?")
    alice.expect_next("[error unknown_user]")
    alice.say("nobody there")
    alice.never_saw("[stored")

    erin = stack.client("erin")
    stack.fence(alice, erin)
    erin.never_saw("are you there?")
    alice.type("CH")
    alice.expect("[history 2]")
    alice.expect_next("alice: nobody there")
