"""Bytes of HTTP and WebSocket as a client sends them, valid and not."""

from __future__ import annotations

import struct

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
FIN = 0x80
MASK = b"\x11\x22\x33\x44"
# RFC 6455, section 1.3.
KEY, ACCEPTED = "dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
HANDSHAKE = {
    "Host": "chat.test",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Version": "13",
}


def request(target: str, method: str = "GET", version: str = "HTTP/1.1", **headers: str | None) -> bytes:
    """The head of a request. ``headers``: X_Forwarded_For is X-Forwarded-For; None leaves one out."""
    fields = {"Host": "chat.test", **{name.replace("_", "-"): value for name, value in headers.items()}}
    lines = [f"{name}: {value}\r\n" for name, value in fields.items() if value is not None]
    return f"{method} {target} {version}\r\n{''.join(lines)}\r\n".encode()


def handshake(**headers: str | None) -> bytes:
    """The handshake of a program, which sends no Origin, with other headers."""
    return request("/", **{**{name.replace("-", "_"): value for name, value in HANDSHAKE.items()}, **headers})


def frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, reserved: int = 0, mask: bytes | None = MASK
) -> bytes:
    """A frame of a client. ``mask`` None: it is not masked, as only a server may."""
    size = len(payload)
    length = (
        struct.pack(">B", size | (FIN if mask else 0))
        if size < 126
        else struct.pack(">BH", 126 | (FIN if mask else 0), size)
        if size < 65_536
        else struct.pack(">BQ", 127 | (FIN if mask else 0), size)
    )
    if mask is not None:
        repeated = (mask * (size // 4 + 1))[:size]
        payload = mask + (int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")).to_bytes(size, "big")
    return bytes([(FIN if fin else 0) | reserved | opcode]) + length + payload
