"""Cookies: what shows that a peer can be reached at the address that it sends from, with nothing kept of it."""

from __future__ import annotations

import hmac
import secrets
from typing import TYPE_CHECKING, Final

from chatprotocol.udp.packet import COOKIE_BYTES

if TYPE_CHECKING:
    from chatserver.net.udp_transport import Address

# A cookie is good until the end of the next span of time.
_SPAN_SECONDS: Final = 30.0


class Cookies:
    """Signs addresses (as RFC 9147, section 5.1, does it for DTLS). Times are seconds of one clock."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(32)

    def make(self, address: Address, text: bytes, now: float) -> bytes:
        """For this address, and what it said."""
        return self._sign(address, text, int(now / _SPAN_SECONDS))

    def is_good(self, cookie: bytes, address: Address, text: bytes, now: float) -> bool:
        """Is it one that was made for them, not long ago?"""
        span = int(now / _SPAN_SECONDS)
        return any(hmac.compare_digest(cookie, self._sign(address, text, each)) for each in (span, span - 1))

    def _sign(self, address: Address, text: bytes, span: int) -> bytes:
        return hmac.digest(self._secret, b"%r %d %s" % (address, span, text), "sha256")[:COOKIE_BYTES]
