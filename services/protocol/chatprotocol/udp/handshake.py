"""The opener: how a client gets a session over UDP. Pure.

    alice ->   <- COOKIE 0123456789abcdef   alice 0123456789abcdef ->   <- the first datagram of the session

The server keeps nothing of a client that has not shown, with the cookie, that what is sent to its address reaches it.
"""

from __future__ import annotations

import math
from typing import Final

from chatprotocol.udp.arq import RESEND_SECONDS, RESENDS_MAX, Arq
from chatprotocol.udp.packet import NO_SESSION, OPENING_BYTES, Datagram, pack, read_cookie
from chatprotocol.wire.frames_text import COMMAND

# A cookie may be too old when it comes back; who is given one after the other is not wanted.
_COOKIES_MAX: Final = 4


class UdpHandshake:
    """Asks for a session until there is one. Not to be used by several threads at once."""

    def __init__(self, text: bytes, now: float) -> None:
        """``text`` is the payload of the first command: who it is."""
        self._text = text
        self._cookies = 0
        self._payload = text.ljust(OPENING_BYTES)
        self._resends = 0
        self._send_at = now

    @property
    def look_at(self) -> float:
        """Before this time there is nothing to be sent."""
        return self._send_at

    def due(self, now: float) -> list[bytes]:
        """What is to be sent now. After the last time nothing more is."""
        if now < self._send_at:
            return []
        self._send_at = now + RESEND_SECONDS * 2**self._resends if self._resends < RESENDS_MAX else math.inf
        self._resends += 1
        return [pack(Datagram(COMMAND, NO_SESSION, 0, self._payload))]

    def receive_reply(self, datagram: Datagram, now: float) -> Arq | bytes | None:
        """A datagram has come: it begins the session, or says why there is none, or helps to get one."""
        if datagram.session != NO_SESSION:
            return Arq(datagram.session, now) if self._cookies else None
        if datagram.kind != COMMAND:
            return None
        cookie = read_cookie(datagram.payload)
        if cookie is None:
            return datagram.payload
        payload = (self._text + b" " + cookie).ljust(OPENING_BYTES)  # the answer may be another cookie
        if payload != self._payload and self._cookies < _COOKIES_MAX:
            self._cookies += 1
            self._payload = payload
            self._resends = 0
            self._send_at = now
        return None
