"""Packets: the header and payload in one UDP datagram, and the payloads of the handshake.

Wire format: docs/wire/datagram.md.
"""

import re
import struct
from typing import Final, NamedTuple

from chatprotocol.limits import DATAGRAM_PAYLOAD_MAX_BYTES

# Kind, session, sequence number; in network byte order.
_HEADER: Final = struct.Struct(">BQI")
HEADER_BYTES: Final = _HEADER.size
# Read size: one byte more than the limit, so that a longer datagram is detected.
READ_BYTES: Final = HEADER_BYTES + DATAGRAM_PAYLOAD_MAX_BYTES + 1

# Kinds in addition to COMMAND and DATA: data that the next datagram continues, and an acknowledgement.
PIECE: Final = ord("d")
ACK: Final = ord("A")

COOKIE_BYTES: Final = 8
COOKIE_WORD: Final = b"COOKIE"
# Session numbers are random and secret, because a third party with the number could inject datagrams.
SESSION_MAX: Final = 2**64 - 1
# Session number of datagrams outside of a session.
NO_SESSION: Final = 0


class Datagram(NamedTuple):
    """A packet: the decoded content of one UDP datagram. ``session`` has 64 bits, ``sequence`` 32 bits, unsigned."""

    kind: int
    session: int
    sequence: int
    payload: bytes = b""


# datagram_header(kind, session, sequence) -> bytes
datagram_header: Final = _HEADER.pack


def pack(datagram: Datagram) -> bytes:
    """Encode a packet."""
    kind, session, sequence, payload = datagram
    return _HEADER.pack(kind, session, sequence) + payload


def unpack(data: bytes) -> Datagram | None:
    """Decode a packet; None if ``data`` is shorter than a header."""
    if len(data) < HEADER_BYTES:
        return None
    kind, session, sequence = _HEADER.unpack_from(data)
    return Datagram(kind, session, sequence, data[HEADER_BYTES:])


class Opening(NamedTuple):
    """A client's request for a session: the username, and the cookie once it has one."""

    text: bytes
    cookie: bytes | None


_WITH_COOKIE: Final = re.compile(rb"(.*\S)\s+([0-9a-f]{%d})\s*" % (2 * COOKIE_BYTES), re.DOTALL)


def read_opening(payload: bytes) -> Opening:
    """Parse an opening. A cookie is never the first word. Some clients pad with zero bytes instead of spaces."""
    payload = payload.replace(b"\0", b" ")
    found = _WITH_COOKIE.fullmatch(payload)
    if found is None:
        return Opening(payload.strip(), None)
    return Opening(found[1].strip(), bytes.fromhex(found[2].decode()))


def cookie_payload(cookie: bytes) -> bytes:
    """The server's answer to an opening without a valid cookie."""
    return COOKIE_WORD + b" " + cookie.hex().encode()


def read_cookie(payload: bytes) -> bytes | None:
    """The word that the client appends to its opening; None if the payload is not a cookie."""
    word, _, cookie = payload.partition(b" ")
    return cookie if word == COOKIE_WORD and cookie else None


# Minimum length of an opening without a cookie: the answer is never longer than the request (no amplification).
OPENING_BYTES: Final = len(cookie_payload(bytes(COOKIE_BYTES)))
