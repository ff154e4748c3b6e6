"""A peer of HTTP and WebSocket."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any, NamedTuple

from integration.room import Peer
from web_bytes import CLOSE, CONTINUATION, FIN, TEXT, frame, handshake, request

if TYPE_CHECKING:
    from collections.abc import Mapping

    from integration.room import Room


class Answer(NamedTuple):
    """An answer of HTTP. The names of the headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class WebPeer(Peer):
    """A peer of json over WebSocket, and before that of HTTP. It answers pings only if told to."""

    def answer(self, *, has_body: bool = True) -> Answer:
        """The next answer of HTTP."""
        assert self._read_until(lambda: b"\r\n\r\n" in self._buffer), f"no whole answer: {self._buffer!r}"
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        status = int(first.split(" ")[1])
        size = int(headers.get("content-length", "0")) if has_body and status not in (101, 304) else 0
        assert self._read_until(lambda: len(self._buffer) >= size), "the body is cut"
        body, self._buffer = self._buffer[:size], self._buffer[size:]
        return Answer(status, headers, body)

    def get(self, target: str, **headers: str | None) -> Answer:
        self.send(request(target, **headers))
        return self.answer()

    def shake_hands(self, **headers: str | None) -> Answer:
        self.send(handshake(**headers))
        return self.answer()

    def ask(self, **members: Any) -> None:
        self.send(frame(TEXT, json.dumps(members).encode()))

    def frame(self) -> tuple[int, bytes]:
        """Opcode and payload of the next frame; (-1, b"") at the end of the connection."""
        if not self._read_until(lambda: len(self._buffer) >= 2):
            return -1, b""
        assert not self._buffer[1] & 0x80, "a server does not mask its frames"
        size, start = self._buffer[1], 2
        if size == 126:
            assert self._read_until(lambda: len(self._buffer) >= 4)
            (size,), start = struct.unpack(">H", self._buffer[2:4]), 4
        elif size == 127:
            assert self._read_until(lambda: len(self._buffer) >= 10)
            (size,), start = struct.unpack(">Q", self._buffer[2:10]), 10
        assert self._read_until(lambda: len(self._buffer) >= start + size), "the server closed inside a frame"
        first, payload = self._buffer[0], self._buffer[start : start + size]
        self._buffer = self._buffer[start + size :]
        return first, payload

    def line(self) -> bytes:
        """The next text message; empty at the end. Pings are skipped."""
        text = b""
        while True:
            first, payload = self.frame()
            if first in (-1, FIN | CLOSE):
                return b""
            if first & 0x0F in (TEXT, CONTINUATION):
                text += payload
                if first & FIN:
                    return text

    def close_code(self) -> int:
        """The code of the close frame, which must be the server's last one. Other frames before it are skipped."""
        while (got := self.frame())[0] != FIN | CLOSE:
            assert got[0] != -1, "the server closed without a close frame"
        assert self.frame() == (-1, b""), "the close frame is the last one"
        return int.from_bytes(got[1][:2], "big")


def enter_web(room: Room, name: str, address: str | None = None) -> WebPeer:
    """A user over WebSocket."""
    peer = room.connect(WebPeer, address)
    assert peer.shake_hands().status == 101
    peer.login(name)
    return peer
