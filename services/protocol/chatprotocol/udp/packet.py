"""Datagrams: what one packet of UDP holds, and how a session is opened. The wire: docs/wire/datagram.md."""

import re
import struct
from typing import Final, NamedTuple

from chatprotocol.limits import DATAGRAM_PAYLOAD_MAX_BYTES

# The kind, the session, the sequence number; in network byte order.
_HEADER: Final = struct.Struct(">BQI")
HEADER_BYTES: Final = _HEADER.size
# One byte more than a datagram may have shows that it has too many.
READ_BYTES: Final = HEADER_BYTES + DATAGRAM_PAYLOAD_MAX_BYTES + 1

# Kinds, beside those of the steps of a dialogue: data that the next datagram continues, and an acknowledgement.
PIECE: Final = ord("d")
ACK: Final = ord("A")

COOKIE_BYTES: Final = 8
COOKIE_WORD: Final = b"COOKIE"
# A session's number is a secret between the two who have it: whoever could guess it could speak in it.
SESSION_MAX: Final = 2**64 - 1
# Stands for no session: what is said before there is one.
NO_SESSION: Final = 0


class Datagram(NamedTuple):
    """One packet. Session and sequence are unsigned, of 64 and 32 bits."""

    kind: int
    session: int
    sequence: int
    payload: bytes = b""


# The header of a datagram, from its kind, which is the value of a byte, its session and its sequence number.
datagram_header: Final = _HEADER.pack


def pack(datagram: Datagram) -> bytes:
    """The bytes of a datagram."""
    kind, session, sequence, payload = datagram
    return _HEADER.pack(kind, session, sequence) + payload


def unpack(data: bytes) -> Datagram | None:
    """The datagram of these bytes; None when they are too few for one."""
    if len(data) < HEADER_BYTES:
        return None
    kind, session, sequence = _HEADER.unpack_from(data)
    return Datagram(kind, session, sequence, data[HEADER_BYTES:])


class Opening(NamedTuple):
    """What a client says to get a session: who it is, and the cookie once it has one."""

    text: bytes
    cookie: bytes | None


_WITH_COOKIE: Final = re.compile(rb"(.*\S)\s+([0-9a-f]{%d})\s*" % (2 * COOKIE_BYTES), re.DOTALL)


def read_opening(payload: bytes) -> Opening:
    """As the server reads it. A cookie is never the first word. Some fill up with zero bytes in the place of spaces."""
    payload = payload.replace(b"\0", b" ")
    found = _WITH_COOKIE.fullmatch(payload)
    if found is None:
        return Opening(payload.strip(), None)
    return Opening(found[1].strip(), bytes.fromhex(found[2].decode()))


def cookie_payload(cookie: bytes) -> bytes:
    """What the server answers to somebody without a cookie."""
    return COOKIE_WORD + b" " + cookie.hex().encode()


def read_cookie(payload: bytes) -> bytes | None:
    """The word that the client has to send behind its own; None when this is no cookie."""
    word, _, cookie = payload.partition(b" ")
    return cookie if word == COOKIE_WORD and cookie else None


# An opening without a cookie that is as long as this is answered: no answer is longer than what it answers.
OPENING_BYTES: Final = len(cookie_payload(bytes(COOKIE_BYTES)))
