"""A client that sends and never reads its confirmations: the server stops reading it, and owes it nothing."""

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
# Limit of the bytes that the server reads: 64 KiB of unread confirmations, 4,096 messages in the journal's queue, and
# the kernel's buffers come to 1.5 MB. A server that reads on passes this soon.
ACCEPTED_MAX_BYTES = 8 * MEBIBYTE
# Messages of another client without progress of the sender: its reader may only wait for its turn.
PATIENCE_MESSAGES = 50
SENDERS = 2
MEMORY_MAX_BYTES = 24 * MEBIBYTE


class Sender:
    """Sends one request repeatedly, with a new nonce each time, and reads nothing until told to."""

    def __init__(self, peer: NarrowPeer, name: str, request: dict[str, str]) -> None:
        self._peer = peer
        self._request = request
        self._unsent = b""
        self.requests = 0
        self.accepted_bytes = 0
        peer.login(name)
        peer.socket.setblocking(False)

    def send_until_blocked(self, other: Peer) -> None:
        """Returns when the server accepts nothing more, although it serves another client."""
        waited = 0
        while waited < PATIENCE_MESSAGES:
            if select.select([], [self._peer.socket], [], 0)[1]:
                waited = 0
                self._send_some()
                assert self.accepted_bytes < ACCEPTED_MAX_BYTES, "the server reads on"
            else:
                waited += 1
                other.say("I read")

    def _send_some(self) -> None:
        while len(self._unsent) < 65_536:
            self.requests += 1
            self._unsent += json.dumps({**self._request, "nonce": f"n{self.requests}"}).encode() + b"\n"
        accepted = self._peer.socket.send(self._unsent)
        self._unsent = self._unsent[accepted:]
        self.accepted_bytes += accepted

    def read_all(self) -> list[Answer]:
        """Send the rest, and read up to the last confirmation."""
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


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param({"command": "PM", "message": "hello"}, id="to all", marks=pytest.mark.long),
        pytest.param({"command": "DM", "to": "sender0", "message": "hello"}, id="to one of them"),
    ],
)
def test_client_that_never_reads_is_not_read_either(tmp_path: Path, request_: dict[str, str]) -> None:
    """Promises: memory is limited, other clients are served, and no confirmation is lost."""
    with ExitStack() as stack:
        server = stack.enter_context(Program(tmp_path))
        other = stack.enter_context(closing(Peer(server.port)))
        other.login("other")
        peers = [stack.enter_context(closing(NarrowPeer(server.port))) for _ in range(SENDERS)]
        senders = [Sender(peer, f"sender{number}", request_) for number, peer in enumerate(peers)]
        before = server.memory_bytes()
        for sender in senders:
            sender.send_until_blocked(other)
        grown = server.memory_bytes() - before
        print(f"{grown / MEBIBYTE:.1f} MiB more", [sender.accepted_bytes for sender in senders])
        assert grown < MEMORY_MAX_BYTES
        for sender in senders:
            answers = sender.read_all()
            confirmed = [answer["nonce"] for answer in answers if answer["type"] == "sent"]
            assert confirmed == [f"n{number}" for number in range(1, sender.requests + 1)]
            ids = [answer["id"] for answer in answers]
            assert ids == sorted(ids)
