"""Direct messages."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .harness.stack import Stack


def test_only_the_recipient_sees_a_direct_message(stack: Stack) -> None:
    """Story 4: the recipient sees it once, its sender is told its id, and a third user sees nothing."""
    stack.start_server()
    alice, bob, carol = stack.clients("alice", "bob", "carol")
    for line in ("DM bob meet me at noon", "@bob meet me at ten"):
        alice.type(line)
        number = alice.expect_sent()
        bob.expect_next(f"[direct #{number} ")
    stack.fence(bob, alice, carol)
    stack.fence(carol, alice, bob)
    bob.assert_once("alice -> bob: meet me at noon")
    bob.assert_once("alice -> bob: meet me at ten")
    alice.assert_never("meet me")
    carol.assert_never("meet me")


def test_direct_message_waits_for_an_offline_user(stack: Stack) -> None:
    """Story 5: it is delivered at the next login, and at no later one, also after a restart of the server."""
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
    dave.assert_once("call your mother")
    server.restart()
    dave, alice = stack.clients("dave", "alice")
    stack.fence(alice, dave)
    dave.assert_never("call your mother")
