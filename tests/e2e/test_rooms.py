"""Rooms."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .harness.stack import Stack


def in_dev(text: str) -> re.Pattern[str]:
    return re.compile(rf"^\[public #\d+ \S+ #dev\] {re.escape(text)}$")


@pytest.mark.docker
def test_private_room_lasts_over_restarts(stack: Stack) -> None:
    """Story 15: an invited user joins and talks, until the owner removes it; other users see nothing of the room."""
    server = stack.start_server()
    alice, bob, carol = stack.clients("alice", "bob", "carol")
    alice.type("/join dev private")
    alice.expect("[entered #dev owner private] online: alice")
    alice.type("/topic tea", "/invite bob")
    alice.expect("[topic #dev] alice: tea")
    bob.expect("[invited #dev] bob by alice")
    bob.type("/join dev")
    bob.expect("[entered #dev private] topic: tea; online: ")
    alice.expect("[joined #dev] bob")
    bob.say("is there any left?")
    alice.expect(in_dev("bob: is there any left?"))

    assert server.stop() == 0
    alice.expect("[lost]")
    bob.expect("[lost]")
    alice.type("PM said while the server was away")
    server.start()
    alice.expect_sent()
    bob.expect(in_dev("alice: said while the server was away"))
    carol.expect("[back] carol")
    carol.type("/join dev", "/rooms")
    carol.expect("[error unknown_room #dev]")
    carol.expect("[rooms 0]")

    alice.type("/kick bob")
    bob.expect("[parted #dev] by alice")
    alice.say("without bob")
    bob.type("PM am I alone?")
    bob.expect("[error unknown_room #dev]")
    server.kill()
    for client in (alice, bob, carol):
        client.expect("[lost]")
    server.start()
    alice.expect("[back] alice")
    alice.type("CH")
    alice.expect("[history 3 #dev]")
    alice.type("/rooms")
    alice.expect("[listed #dev 1 joined owner private] tea")
    bob.expect("[back] bob")
    bob.type("/rooms")
    bob.expect("[rooms 0]")

    alice.type("/room lobby")
    alice.expect("[room #lobby]")
    stack.fence(alice, bob, carol)
    alice.assert_never("am I alone?")
    alice.assert_once(in_dev("bob: is there any left?"))
    bob.assert_once(in_dev("alice: said while the server was away"))
    bob.assert_never("without bob")
    carol.assert_never(re.compile(r"^\[public .* #dev\]|^\[(?:joined|topic|invited|entered|parted)\b.*#dev"))
