"""Peers for whom the kernel keeps little, so that what they don't read is soon the server's business; and resets."""

from __future__ import annotations

import ctypes
import json
import socket
import struct
from contextlib import suppress
from typing import Any

from integration.room import DEADLINE_SECONDS, Peer

# With these the kernel holds about 45 KB between the server and one who does not read, in place of 4 MB: how much the
# sender's side may hold grows with the size of a segment, and loopback's is 64 KiB.
_WINDOW_BYTES = 4_096
_SEGMENT_BYTES = 536
_SO_ATTACH_FILTER = 26


class NarrowPeer(Peer):
    """A peer that is behind as soon as it stops reading."""

    def __init__(self, port: int) -> None:
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _WINDOW_BYTES)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _WINDOW_BYTES)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, _SEGMENT_BYTES)
        self.socket.settimeout(DEADLINE_SECONDS)
        self.socket.connect(("127.0.0.1", port))
        self._buffer = b""

    def rest(self, until: bytes = b"") -> list[dict[str, Any]]:
        """What still comes until the server closes, but for a line that was cut; or until something like this comes."""
        data = self._buffer
        with suppress(ConnectionError):
            while piece := self.socket.recv(65_536):
                data += piece
                if until and until in data[-len(piece) - len(until) :]:
                    break
        return [json.loads(line) for line in data.split(b"\n")[:-1]]


def reset(peer: Peer) -> None:
    """End the connection as a crash of the peer's machine is noticed: without a goodbye."""
    peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


def lose_what_arrives(sock: socket.socket) -> None:
    """As a network that is gone: the system drops every segment for this socket (a filter that keeps 0 bytes)."""
    instruction = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", 1, ctypes.addressof(instruction)))
