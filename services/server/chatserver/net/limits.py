"""Limits of addresses: which peers they apply to."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

Network: TypeAlias = IPv4Network | IPv6Network

# Programs on the same machine have no limits.
LOOPBACK: Final[tuple[Network, ...]] = (ip_network("127.0.0.0/8"), ip_network("::1"))


class ConnectionLimits:
    """The limits of connections by address. For any thread."""

    def __init__(self, exempt: Iterable[Network] = LOOPBACK) -> None:
        """``exempt``: networks without limits."""
        self._exempt = tuple(exempt)

    def is_exempt(self, address: str) -> bool:
        """True if the limits don't apply to the address."""
        peer = ip_address(address)
        mapped = peer.ipv4_mapped if isinstance(peer, IPv6Address) else None
        return any((mapped or peer) in network for network in self._exempt)
