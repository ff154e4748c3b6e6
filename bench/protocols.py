"""The wires that the load speaks: how one comes in, and how a message looks. Pure: no sockets, no clock."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Generator
from dataclasses import dataclass
from enum import Enum
from typing import Final

import msgspec

# Each text has it once, and nothing else that a server sends has it at all: counting it counts messages.
MARKER: Final = b"|"
TEXT_BYTES: Final = 64
# Behind the marker stands the message's number, so that what arrives can be known again.
NUMBER_DIGITS: Final = 16

# What a connection says until it is in: yields what is to be sent, is sent what has come, and returns when it is in.
# Raises RefusedError when it is not let in.
Entrance = Generator[bytes, bytes, None]


class Part(Enum):
    """What a connection is for. Its value is what floor.c is told."""

    HEARS = b"R"
    SPEAKS = b"S"


class RefusedError(Exception):
    """The server does not let a connection in. The text is what it said."""


class Transport(Enum):
    """What carries the bytes."""

    TCP = "tcp"
    # Frames, each in a datagram of a session: datagrams.py.
    UDP = "udp"


@dataclass(frozen=True)
class Wire:
    """One protocol. ``enter`` begins the entrance of a name; ``frame`` makes of a text the bytes that say it to all."""

    name: str
    enter: Callable[[str, Part], Entrance]
    frame: Callable[[bytes], bytes]
    carrier: Transport = Transport.TCP


def text(number: int) -> bytes:
    """A message's text, which tells its number."""
    return (MARKER + b"%0*d" % (NUMBER_DIGITS, number)).ljust(TEXT_BYTES, b"x")


class Lines:
    """Puts what arrives together to lines."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that are whole now, without their ends."""
        *whole, self._rest = (self._rest + data).split(b"\n")
        return [line.rstrip(b"\r") for line in whole]


# MQTT's mark of a length that goes on in the next byte.
_MORE: Final = 0x80


class Packets:
    """Puts what arrives together to MQTT's control packets."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """The packets that are whole now: type (the upper four bits), and what is behind the length."""
        self._rest += data
        found = []
        while (packet := self._take()) is not None:
            found.append(packet)
        return found

    def _take(self) -> tuple[int, bytes] | None:
        # MQTT 5.0, section 1.5.5: seven bits a byte, the lowest first; the highest bit says that one more follows.
        length = 0
        for position, byte in enumerate(self._rest[1:5]):
            length |= (byte & ~_MORE) << 7 * position
            if not byte & _MORE:
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


def _enter_json(name: str, _part: Part) -> Entrance:
    lines = Lines()
    login = {"command": "login", "username": name, "password": f"secret of {name}"}
    data = yield json.dumps(login).encode() + b"\n"
    while True:
        for line in lines.feed(data):
            reply = _REPLY.decode(line)
            if reply.type == "login":
                return
            if reply.type in ("error", "bye"):
                raise RefusedError(reply.code or reply.reason)
        data = yield b""


def _frame_json(message: bytes) -> bytes:
    return b'{"command":"PM","message":"' + message + b'"}\n'


# --- frames: docs/wire/frames.md; and what datagrams hold: docs/wire/datagram.md ---

_HEADER: Final = struct.Struct(">cI")


class TypedFrames:
    """Puts what arrives together to frames."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The payloads that are whole now."""
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


def _enter_frames(name: str, _part: Part) -> Entrance:
    frames = TypedFrames()
    data = yield _typed(b"C", name.encode())
    while True:
        answer = b""
        for payload in frames.feed(data):
            word = payload.split(b" ")[0]
            if word == b"PASSWORD":
                answer = _typed(b"C", f"secret of {name}".encode())
            elif word == b"WELCOME":
                return
            elif word in (b"DENIED", b"ERROR", b"BYE"):
                raise RefusedError(payload.decode(errors="replace"))
        data = yield answer


def _frame_frames(message: bytes) -> bytes:
    """Both steps at once: whoever pours does not wait for READY."""
    return _typed(b"C", b"PM") + _typed(b"D", message)


# --- raw: floor.c ---


def _enter_raw(_name: str, part: Part) -> Entrance:
    yield part.value


def _frame_raw(message: bytes) -> bytes:
    return message + b"\n"


# --- nats: the text protocol of nats-server, with one subject ---


def _enter_nats(_name: str, _part: Part) -> Entrance:
    lines = Lines()
    data = yield b'CONNECT {"verbose":false,"pedantic":false,"echo":false}\r\nSUB c 1\r\nPING\r\n'
    while True:
        for line in lines.feed(data):
            if line == b"PONG":
                return
            if line.startswith(b"-ERR"):
                raise RefusedError(line.decode(errors="replace"))
        data = yield b""


def _frame_nats(message: bytes) -> bytes:
    return b"PUB c %d\r\n%b\r\n" % (len(message), message)


# --- irc: RFC 2812, with one channel ---

_MOTD_ENDS: Final = (b"376", b"422")
_NAMES_END: Final = b"366"


def _enter_irc(name: str, _part: Part) -> Entrance:
    lines = Lines()
    data = yield f"NICK {name}\r\nUSER {name} 0 * :{name}\r\n".encode()
    while True:
        answer = b""
        for line in lines.feed(data):
            words = [*line.split(b" "), b""]
            if words[0] == b"PING":
                answer += b"PONG " + words[1] + b"\r\n"
            elif words[0] == b"ERROR":
                raise RefusedError(line.decode(errors="replace"))
            elif words[1] in _MOTD_ENDS:
                answer += b"JOIN #c\r\n"
            elif words[1] == _NAMES_END:
                return
        data = yield answer


def _frame_irc(message: bytes) -> bytes:
    return b"PRIVMSG #c :" + message + b"\r\n"


# --- mqtt: MQTT 5.0, with one topic and quality of service 0. Version 5, for there one need not hear oneself ---

_CONNECT, _CONNACK, _PUBLISH, _SUBSCRIBE, _SUBACK = 0x10, 2, 0x30, 0x82, 9
_REASON_FAILURE: Final = 0x80
_NO_LOCAL: Final = 0x04


def _packet(first: int, body: bytes) -> bytes:
    assert len(body) < _MORE, "the length has one byte"
    return bytes([first, len(body)]) + body


def _string(data: bytes) -> bytes:
    return len(data).to_bytes(2, "big") + data


def _enter_mqtt(name: str, _part: Part) -> Entrance:
    packets = Packets()
    # Protocol and version, a clean start, no keep-alive, no properties.
    data = yield _packet(_CONNECT, _string(b"MQTT") + b"\5\2\0\0\0" + _string(name.encode()))
    while True:
        answer = b""
        for kind, body in packets.feed(data):
            if kind == _CONNACK and body[1] < _REASON_FAILURE:
                answer = _packet(_SUBSCRIBE, b"\0\1\0" + _string(b"c") + bytes([_NO_LOCAL]))
            elif kind == _SUBACK and body[-1] < _REASON_FAILURE:
                return
            elif kind in (_CONNACK, _SUBACK):
                raise RefusedError(f"reason {body.hex()}")
        data = yield answer


def _frame_mqtt(message: bytes) -> bytes:
    return _packet(_PUBLISH, _string(b"c") + b"\0" + message)


WIRES: Final = {
    wire.name: wire
    for wire in (
        Wire("json", _enter_json, _frame_json),
        Wire("frames", _enter_frames, _frame_frames),
        Wire("datagram", _enter_frames, _frame_frames, Transport.UDP),
        Wire("raw", _enter_raw, _frame_raw),
        Wire("nats", _enter_nats, _frame_nats),
        Wire("irc", _enter_irc, _frame_irc),
        Wire("mqtt", _enter_mqtt, _frame_mqtt),
    )
}
