"""A sender that never reads its confirmations: it is read no further, costs little, and gets all that it is owed."""

from __future__ import annotations

import json
import select
import threading
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

import pytest
from integration.room import DEADLINE_SECONDS, Peer
from reliability.peers import NarrowPeer
from reliability.program import Program

if TYPE_CHECKING:
    from pathlib import Path

    from reliability.crowd import Answer

MEBIBYTE = 1024 * 1024
# What one connection may leave unread is 64 KiB (see the outbox); the journal's inbox has room for 4,096 messages, and
# the kernel holds requests that nobody has read yet: 1.5 MB were seen in all. Who is read on and on is soon over this.
ACCEPTED_MAX_BYTES = 8 * MEBIBYTE
# Nobody is read no further just because its reader had to wait for its turn while somebody else said so much.
PATIENCE_MESSAGES = 50
DEAF = 4
MEMORY_MAX_BYTES = 24 * MEBIBYTE


class DeafSender:
    """It sends one request again and again, numbered by its nonce, and reads nothing until it is told to."""

    def __init__(self, peer: NarrowPeer, name: str, **request: str) -> None:
        self._peer = peer
        self._request = request
        self._unsent = b""
        self.requests = 0
        self.accepted_bytes = 0
        peer.login(name)
        peer.socket.setblocking(False)

    def send_until_blocked(self, bystander: Peer) -> None:
        """Until nothing more is accepted from it, for as long as others are served."""
        waited = 0
        while waited < PATIENCE_MESSAGES:
            if select.select([], [self._peer.socket], [], 0)[1]:
                waited = 0
                self._send_some()
                assert self.accepted_bytes < ACCEPTED_MAX_BYTES, "it is read on and on"
            else:
                waited += 1
                bystander.say("I am not deaf")

    def _send_some(self) -> None:
        while len(self._unsent) < 65_536:
            self.requests += 1
            self._unsent += json.dumps({**self._request, "nonce": f"n{self.requests}"}).encode() + b"\n"
        accepted = self._peer.socket.send(self._unsent)
        self._unsent = self._unsent[accepted:]
        self.accepted_bytes += accepted

    def hear_everything(self) -> list[Answer]:
        """Read again, and send what is left; returns all that comes up to the last confirmation."""
        self._peer.socket.settimeout(DEADLINE_SECONDS)
        rest = threading.Thread(target=self._peer.send, args=(self._unsent,), name="the rest of the requests")
        rest.start()
        answers = []
        unconfirmed = self.requests
        try:
            while unconfirmed:
                answers.append(self._peer.next("sent", "broadcast", "direct"))
                unconfirmed -= answers[-1]["type"] == "sent"
        finally:
            rest.join()
        return answers


REQUESTS = {
    "to everybody": {"command": "PM", "message": "hello"},
    "to itself": {"command": "DM", "to": "deaf0", "message": "hello"},
}


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
def test_who_never_reads_its_confirmations_is_read_no_further(tmp_path: Path, request_: dict[str, str]) -> None:
    """Back-pressure: its sending blocks, memory stays bounded, others go on, and nothing that it is owed is lost."""
    with ExitStack() as stack:
        server = stack.enter_context(Program(tmp_path))
        bystander = stack.enter_context(closing(Peer(server.port)))
        bystander.login("bystander")
        peers = [stack.enter_context(closing(NarrowPeer(server.port))) for _ in range(DEAF)]
        deaf = [DeafSender(peer, f"deaf{number}", **request_) for number, peer in enumerate(peers)]
        before = server.memory_bytes()
        for sender in deaf:
            sender.send_until_blocked(bystander)
        grown = server.memory_bytes() - before
        print(f"{grown / MEBIBYTE:.1f} MiB more", [sender.accepted_bytes for sender in deaf])
        assert grown < MEMORY_MAX_BYTES
        for sender in deaf:
            answers = sender.hear_everything()
            confirmed = [answer["nonce"] for answer in answers if answer["type"] == "sent"]
            assert confirmed == [f"n{number}" for number in range(1, sender.requests + 1)]
            ids = [answer["id"] for answer in answers]
            assert ids == sorted(ids)
