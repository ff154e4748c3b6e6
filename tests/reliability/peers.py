"""Peers with small kernel buffers; resets; dead networks."""

from __future__ import annotations

import ctypes
import json
import socket
import struct
from contextlib import suppress
from typing import Any

from integration.room import DEADLINE_SECONDS, Peer

# Kernel buffers: about 45 KB for a peer that does not read, instead of 4 MB. The sender's buffer grows with the segment
# size, which is 64 KiB on loopback.
_WINDOW_BYTES = 4_096
_SEGMENT_BYTES = 536
_SO_ATTACH_FILTER = 26


class NarrowPeer(Peer):
    """A peer that lags as soon as it stops reading."""

    def __init__(self, port: int) -> None:
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _WINDOW_BYTES)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _WINDOW_BYTES)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, _SEGMENT_BYTES)
        self.socket.settimeout(DEADLINE_SECONDS)
        self.socket.connect(("127.0.0.1", port))
        self._buffer = b""

    def rest(self, until: bytes = b"") -> list[dict[str, Any]]:
        """The remaining complete lines until the server closes, or until these bytes have arrived."""
        data = self._buffer
        with suppress(ConnectionError):
            while piece := self.socket.recv(65_536):
                data += piece
                if until and until in data[-len(piece) - len(until) :]:
                    break
        return [json.loads(line) for line in data.split(b"\n")[:-1]]


def reset(peer: Peer) -> None:
    """Reset the connection, as after a crash of the peer's machine."""
    peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


def lose_what_arrives(sock: socket.socket) -> None:
    """Let the system drop every packet for this socket, by a filter that keeps 0 bytes."""
    instruction = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", 1, ctypes.addressof(instruction)))
