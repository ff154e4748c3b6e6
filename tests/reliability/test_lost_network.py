"""A client without network: its user leaves in time, and undelivered messages wait for the next login."""

from __future__ import annotations

from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

import pytest
from integration.room import DatagramPeer, FramesPeer, Peer
from reliability.peers import lose_what_arrives
from reliability.program import Program

if TYPE_CHECKING:
    from pathlib import Path

# A user over UDP is silent while the test does something else: on a busy machine that takes seconds.
PATIENCE_SECONDS = 10.0


def heard_by(peer: Peer | FramesPeer, last: str) -> list[str]:
    """The texts of the next direct messages, up to this one."""
    texts: list[str] = []
    while last not in texts:
        texts.append(peer.next("direct")["message"] if isinstance(peer, Peer) else peer.next_message()[-1])
    return texts


@pytest.mark.long
@pytest.mark.parametrize("bob_type", [Peer, FramesPeer, DatagramPeer])
def test_user_without_network_leaves_and_misses_nothing(
    tmp_path: Path, bob_type: type[Peer | FramesPeer | DatagramPeer]
) -> None:
    """Promise: no confirmed message is lost. Carol has no unacknowledged data, and bob has: both are noticed."""
    seconds = f"{PATIENCE_SECONDS:g}"
    with (
        Program(tmp_path, "--peer-timeout-seconds", seconds, silence_seconds=PATIENCE_SECONDS) as server,
        ExitStack() as peers,
    ):
        alice, carol, bob = (peers.enter_context(closing(each(server.port))) for each in (Peer, FramesPeer, bob_type))
        for name, peer in (("carol", carol), ("bob", bob), ("alice", alice)):
            peer.login(name)
        alice.ask(command="DM", to="bob", message="heard")
        heard = alice.next("sent")
        assert heard["status"] == "sent"
        heard_by(bob, "heard")
        for peer in (bob, carol):
            lose_what_arrives(peer.socket)
        alice.ask(command="DM", to="bob", message="missed")
        assert alice.next("sent")["status"] == "sent"
        left: set[str] = set()
        while left < {"bob", "carol"}:
            left |= set(alice.next("users")["left"])

        again = peers.enter_context(closing(bob_type(server.port)))
        welcome = again.login("bob")
        if isinstance(welcome, dict):  # json has the last delivered message
            assert welcome["seen_id"] == heard["id"]
        assert heard_by(again, "missed") == ["missed"]
