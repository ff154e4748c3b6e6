"""Cookies prove that a peer receives datagrams at its address, without any state per peer.

The server answers the first datagram of an address with a cookie, and opens a session only for a datagram that returns
the cookie. A peer with a forged address never sees it. This is the cookie exchange of DTLS: RFC 9147, section 5.1.
"""

from __future__ import annotations

import hmac
import secrets
from typing import TYPE_CHECKING, Final

from chatprotocol.udp.packet import COOKIE_BYTES

if TYPE_CHECKING:
    from chatserver.net.udp_transport import Address

# Period of a signature. A cookie is valid in the period in which it was made and in the next one.
_PERIOD_SECONDS: Final = 30.0


class Cookies:
    """Makes and checks cookies. The times are seconds of one clock."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(32)

    def make(self, address: Address, text: bytes, now: float) -> bytes:
        """Return the cookie for this address and the text of its first datagram."""
        return self._sign(address, text, int(now / _PERIOD_SECONDS))

    def is_valid(self, cookie: bytes, address: Address, text: bytes, now: float) -> bool:
        """True if the cookie was made for this address and text, and is still valid."""
        period = int(now / _PERIOD_SECONDS)
        return any(hmac.compare_digest(cookie, self._sign(address, text, each)) for each in (period, period - 1))

    def _sign(self, address: Address, text: bytes, period: int) -> bytes:
        return hmac.digest(self._secret, b"%r %d %s" % (address, period, text), "sha256")[:COOKIE_BYTES]
