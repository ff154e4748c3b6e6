"""The protocols of the servers: the login of a connection, and the bytes of a message. No sockets, no clock."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

import msgspec

# Each text contains the marker once, and servers send it nowhere else, so the number of markers is that of messages.
MARKER: Final = b"|"
TEXT_BYTES: Final = 64
# The number of the message follows the marker.
NUMBER_DIGITS: Final = 16

# A login: a generator that yields the bytes to send, gets the bytes received, and returns when the login is accepted.
# Raises RefusedError.
Login = Generator[bytes, bytes, None]


class Role(Enum):
    """The use of a connection. The value is the first byte to baseline.c."""

    RECEIVER = b"R"
    SENDER = b"S"


class RefusedError(Exception):
    """The server rejected a login. The text is the server's."""


class Transport(Enum):
    """The transport of the bytes."""

    TCP = "tcp"
    # The same inside TLS: tls.py.
    TLS = "tls"
    # One frame in each datagram of a session: udp.py.
    UDP = "udp"


@dataclass(frozen=True)
class WireProtocol:
    """``log_in`` starts the login of a name; ``frame`` returns the bytes that send a text to all.

    ``confirmation`` is in each confirmation of a message, and in nothing else that a sender gets. It is empty if the
    load does not look for confirmations.
    """

    name: str
    log_in: Callable[[str, Role], Login]
    frame: Callable[[bytes], bytes]
    transport: Transport = Transport.TCP
    # Bytes that a silent receiver sends from time to time, so that the server keeps its connection.
    keep_alive: bytes = b""
    confirmation: bytes = b""


def text(number: int) -> bytes:
    """The text of the message with this number."""
    return (MARKER + b"%0*d" % (NUMBER_DIGITS, number)).ljust(TEXT_BYTES, b"x")


class LineBuffer:
    """Splits a byte stream into lines."""

    def __init__(self) -> None:
        self._rest = b""

    def split(self, data: bytes) -> list[bytes]:
        """The lines that ``data`` completes, without their line ends."""
        *whole, self._rest = (self._rest + data).split(b"\n")
        return [line.rstrip(b"\r") for line in whole]


# MQTT 5.0, section 1.5.5: a length has seven bits in each byte, the lowest first; this bit means that more follow.
_LENGTH_CONTINUES: Final = 0x80


class PacketBuffer:
    """Splits a byte stream into MQTT control packets."""

    def __init__(self) -> None:
        self._rest = b""

    def split(self, data: bytes) -> list[tuple[int, bytes]]:
        """The packets that ``data`` completes: type (the upper four bits) and the bytes after the length."""
        self._rest += data
        found = []
        while (packet := self._next_packet()) is not None:
            found.append(packet)
        return found

    def _next_packet(self) -> tuple[int, bytes] | None:
        length = 0
        for position, byte in enumerate(self._rest[1:5]):
            length |= (byte & ~_LENGTH_CONTINUES) << 7 * position
            if not byte & _LENGTH_CONTINUES:
                begin = 2 + position
                break
        else:
            return None
        if len(self._rest) < begin + length:
            return None
        packet = self._rest[0] >> 4, self._rest[begin : begin + length]
        self._rest = self._rest[begin + length :]
        return packet


# --- json: docs/wire/json.md ---


class _Reply(msgspec.Struct):
    type: str
    code: str = ""
    reason: str = ""


_REPLY: Final = msgspec.json.Decoder(_Reply)


def _log_in_json(name: str, _role: Role, rooms: Sequence[str] = ()) -> Login:
    """Log in, and join the rooms."""
    lines = LineBuffer()
    login = {"command": "login", "username": name, "password": f"secret of {name}"}
    joins = [{"command": "join", "room": room} for room in rooms]
    data = yield b"".join(json.dumps(request).encode() + b"\n" for request in (login, *joins))
    missing = 1 + len(rooms)
    while True:
        for line in lines.split(data):
            reply = _REPLY.decode(line)
            missing -= reply.type in ("login", "joined")
            if not missing:
                return
            if reply.type in ("error", "bye"):
                raise RefusedError(reply.code or reply.reason)
        data = yield b""


def json_in_rooms(rooms_of: Callable[[str], Sequence[str]]) -> WireProtocol:
    """The protocol json, in which each user also joins its rooms: ``rooms_of`` returns those of a name."""
    return WireProtocol("json", lambda name, role: _log_in_json(name, role, rooms_of(name)), _frame_json)


def frame_in_room(message: bytes, room: str) -> bytes:
    """The bytes that send a text to a room, in json."""
    return b'{"command":"PM","room":"%s","message":"%s"}\n' % (room.encode(), message)


def _frame_json(message: bytes) -> bytes:
    return b'{"command":"PM","message":"' + message + b'"}\n'


# --- websocket: docs/wire/websocket.md; the same objects in messages ---

_HANDSHAKE: Final = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
_HEAD_END: Final = b"\r\n\r\n"
# RFC 6455, section 5.2: the last fragment of a message, a text, a control frame; a mask; a size of two more bytes.
_IS_LAST, _TEXT_FRAME, _CONTROL_FRAME, _IS_MASKED, _TWO_BYTES = 0x80, 1, 8, 0x80, 126
# A mask that changes nothing costs a server as much as any other.
_MASK: Final = bytes(4)
_PONG: Final = b"\x8a\x80" + _MASK


class MessageBuffer:
    """Splits the bytes of a server into the messages of a WebSocket, after its answer to the handshake."""

    def __init__(self) -> None:
        self._rest = b""
        self._message = b""

    def skip_head(self, data: bytes) -> bool:
        """Add a piece of the answer. True if the answer is complete."""
        head, end, self._rest = (self._rest + data).partition(_HEAD_END)
        if not end:
            self._rest = head
        elif not head.startswith(b"HTTP/1.1 101 "):
            raise RefusedError(head.partition(b"\r\n")[0].decode(errors="replace"))
        return bool(end)

    def split(self, data: bytes) -> list[bytes]:
        """The text messages that ``data`` completes."""
        self._rest += data
        found = []
        while len(self._rest) > 1:
            size, begin = self._rest[1], 2
            if size >= _TWO_BYTES:
                begin = 4 if size == _TWO_BYTES else 10
                size = int.from_bytes(self._rest[2:begin], "big")
            if len(self._rest) < begin + size:
                break
            if not self._rest[0] & _CONTROL_FRAME:
                self._message += self._rest[begin : begin + size]
                if self._rest[0] & _IS_LAST:
                    found.append(self._message)
                    self._message = b""
            self._rest = self._rest[begin + size :]
        return found


def _log_in_websocket(name: str, _role: Role) -> Login:
    messages = MessageBuffer()
    data = yield _HANDSHAKE
    while not messages.skip_head(data):
        data = yield b""
    login = {"command": "login", "username": name, "password": f"secret of {name}"}
    data = yield _masked(json.dumps(login).encode())
    while True:
        for message in messages.split(data):
            reply = _REPLY.decode(message)
            if reply.type == "login":
                return
            if reply.type in ("error", "bye"):
                raise RefusedError(reply.code or reply.reason)
        data = yield b""


def _masked(payload: bytes) -> bytes:
    assert len(payload) < _TWO_BYTES, "the size has one byte"
    return bytes([_IS_LAST | _TEXT_FRAME, _IS_MASKED | len(payload)]) + _MASK + payload


def _frame_websocket(message: bytes) -> bytes:
    return _masked(_frame_json(message).rstrip())


# --- frames: docs/wire/frames.md; datagrams contain the same: docs/wire/datagram.md ---

_HEADER: Final = struct.Struct(">cI")


class FrameBuffer:
    """Splits a byte stream into frames."""

    def __init__(self) -> None:
        self._rest = b""

    def split(self, data: bytes) -> list[bytes]:
        """The payloads of the frames that ``data`` completes."""
        self._rest += data
        found = []
        while len(self._rest) >= _HEADER.size:
            _, size = _HEADER.unpack_from(self._rest)
            end = _HEADER.size + size
            if len(self._rest) < end:
                break
            found.append(self._rest[_HEADER.size : end])
            self._rest = self._rest[end:]
        return found


def _typed(kind: bytes, payload: bytes) -> bytes:
    return _HEADER.pack(kind, len(payload)) + payload


def _log_in_frames(name: str, _role: Role) -> Login:
    frames = FrameBuffer()
    data = yield _typed(b"C", name.encode())
    while True:
        answer = b""
        for payload in frames.split(data):
            word = payload.split(b" ")[0]
            if word == b"PASSWORD":
                answer = _typed(b"C", f"secret of {name}".encode())
            elif word == b"WELCOME":
                return
            elif word in (b"DENIED", b"ERROR", b"BYE"):
                raise RefusedError(payload.decode(errors="replace"))
        data = yield answer


def _frame_frames(message: bytes) -> bytes:
    """Both steps at once: the load does not wait for READY."""
    return _typed(b"C", b"PM") + _typed(b"D", message)


# --- raw: baseline.c ---


def _log_in_raw(_name: str, role: Role) -> Login:
    yield role.value


def _frame_raw(message: bytes) -> bytes:
    return message + b"\n"


# --- nats: the text protocol of nats-server, with one subject ---


def _log_in_nats(_name: str, _role: Role) -> Login:
    lines = LineBuffer()
    data = yield b'CONNECT {"verbose":false,"pedantic":false,"echo":false}\r\nSUB c 1\r\nPING\r\n'
    while True:
        for line in lines.split(data):
            if line == b"PONG":
                return
            if line.startswith(b"-ERR"):
                raise RefusedError(line.decode(errors="replace"))
        data = yield b""


def _frame_nats(message: bytes) -> bytes:
    return b"PUB c %d\r\n%b\r\n" % (len(message), message)


# --- irc: RFC 2812, with one channel, which is the room of all users in our server ---

_MOTD_ENDS: Final = (b"376", b"422")
_NAMES_END: Final = b"366"


def _log_in_irc(name: str, _role: Role) -> Login:
    lines = LineBuffer()
    data = yield f"NICK {name}\r\nUSER {name} 0 * :{name}\r\n".encode()
    while True:
        answer = b""
        for line in lines.split(data):
            words = [*line.split(b" "), b""]
            if words[0] == b"PING":
                answer += b"PONG " + words[1] + b"\r\n"
            elif words[0] == b"ERROR":
                raise RefusedError(line.decode(errors="replace"))
            elif words[1] in _MOTD_ENDS:
                answer += b"JOIN #lobby\r\n"
            elif words[1] == _NAMES_END:
                return
        data = yield answer


def _frame_irc(message: bytes) -> bytes:
    return b"PRIVMSG #lobby :" + message + b"\r\n"


# --- mqtt: MQTT 5.0, with one topic and quality of service 0 ---

_CONNECT, _CONNACK, _PUBLISH, _SUBSCRIBE, _SUBACK = 0x10, 2, 0x30, 0x82, 9
_REASON_FAILURE: Final = 0x80
# A sender does not receive its own messages. Version 3 has no such option.
_NO_LOCAL: Final = 0x04


def _packet(first: int, body: bytes) -> bytes:
    assert len(body) < _LENGTH_CONTINUES, "the length has one byte"
    return bytes([first, len(body)]) + body


def _string(data: bytes) -> bytes:
    return len(data).to_bytes(2, "big") + data


def _log_in_mqtt(name: str, _role: Role) -> Login:
    packets = PacketBuffer()
    # Protocol and version, a clean start, no keep-alive, no properties.
    data = yield _packet(_CONNECT, _string(b"MQTT") + b"\5\2\0\0\0" + _string(name.encode()))
    while True:
        answer = b""
        for kind, body in packets.split(data):
            if kind == _CONNACK and body[1] < _REASON_FAILURE:
                answer = _packet(_SUBSCRIBE, b"\0\1\0" + _string(b"c") + bytes([_NO_LOCAL]))
            elif kind == _SUBACK and body[-1] < _REASON_FAILURE:
                return
            elif kind in (_CONNACK, _SUBACK):
                raise RefusedError(f"reason {body.hex()}")
        data = yield answer


def _frame_mqtt(message: bytes) -> bytes:
    return _packet(_PUBLISH, _string(b"c") + b"\0" + message)


PROTOCOLS: Final = {
    protocol.name: protocol
    for protocol in (
        WireProtocol("json", _log_in_json, _frame_json, confirmation=b'"type":"sent"'),
        WireProtocol("json-tls", _log_in_json, _frame_json, Transport.TLS),
        WireProtocol("websocket", _log_in_websocket, _frame_websocket, keep_alive=_PONG),
        WireProtocol("frames", _log_in_frames, _frame_frames),
        WireProtocol("datagram", _log_in_frames, _frame_frames, Transport.UDP),
        WireProtocol("raw", _log_in_raw, _frame_raw),
        WireProtocol("nats", _log_in_nats, _frame_nats),
        WireProtocol("irc", _log_in_irc, _frame_irc),
        WireProtocol("mqtt", _log_in_mqtt, _frame_mqtt),
    )
}
