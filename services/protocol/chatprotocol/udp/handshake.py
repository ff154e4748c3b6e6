"""The client's handshake that opens a session over UDP. Pure.

    alice ->   <- COOKIE 0123456789abcdef   alice 0123456789abcdef ->   <- the first datagram of the session

The cookie proves that the client receives datagrams at its address. Until then the server keeps no state for it.
"""

from __future__ import annotations

import math
from typing import Final

from chatprotocol.udp.arq import RESEND_SECONDS, RESENDS_MAX
from chatprotocol.udp.packet import NO_SESSION, OPENING_BYTES, Datagram, pack, read_cookie
from chatprotocol.wire.steps import COMMAND

# Number of the first datagram of a session.
_FIRST: Final = 1
# Maximum cookies used per handshake: a cookie may expire on the way, but a server that sends more is broken.
_COOKIES_MAX: Final = 4


class UdpHandshake:
    """Requests a session, with resends. Not thread-safe."""

    def __init__(self, text: bytes, now: float) -> None:
        """``text`` is the payload of the first command: the username."""
        self._text = text
        self._cookies = 0
        self._payload = text.ljust(OPENING_BYTES)
        self._resends = 0
        self._send_at = now

    @property
    def next_check_at(self) -> float:
        """Before this time nothing needs to be sent."""
        return self._send_at

    def datagrams_to_send(self, now: float) -> list[bytes]:
        """The datagrams to send now; none after the last resend."""
        if now < self._send_at:
            return []
        self._send_at = now + RESEND_SECONDS * 2**self._resends if self._resends < RESENDS_MAX else math.inf
        self._resends += 1
        return [pack(Datagram(COMMAND, NO_SESSION, 0, self._payload))]

    def handle_reply(self, datagram: Datagram, now: float) -> int | bytes | None:
        """Process a datagram of the server.

        Returns the number of the new session, whose first datagram this is; the payload of a rejection; or None to
        continue.
        """
        if datagram.kind != COMMAND:
            return None
        if datagram.session != NO_SESSION:
            # Others may be late ones of an earlier session. The server repeats the first one until it is acknowledged.
            return datagram.session if self._cookies and datagram.sequence == _FIRST else None
        cookie = read_cookie(datagram.payload)
        if cookie is None:
            return datagram.payload
        payload = (self._text + b" " + cookie).ljust(OPENING_BYTES)  # padded because the answer may be another cookie
        if payload != self._payload and self._cookies < _COOKIES_MAX:
            self._cookies += 1
            self._payload = payload
            self._resends = 0
            self._send_at = now
        return None
