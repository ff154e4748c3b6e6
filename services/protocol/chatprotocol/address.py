"""Parse and format server addresses."""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, TypeAlias

from chatprotocol.errors import ErrorCode, RequestError
from chatprotocol.rules import check_port

if TYPE_CHECKING:
    from collections.abc import Collection

# A network, or a single address as a network of one.
Network: TypeAlias = IPv4Network | IPv6Network
# The part of an IPv6 address that one customer of a provider has (RFC 6177).
_CUSTOMER_BITS = 64
# Shortest prefixes of networks that are banned, by version of IP: a typing error must not ban all users.
_BANNED_BITS_MIN = {4: 8, 6: 16}
# Number of cached results of network_of, and of parsed addresses, at about 300 bytes each. One takes 20 us, and
# attackers reconnect.
_CACHED_MAX = 4_096
# Number of cached networks: a ban of a network is compared with the addresses of all users.
_BANS_CACHED_MAX = 16
# Maximum number of servers in a list: a client tries them one after the other.
SERVERS_MAX = 16
# Host without brackets, port.
Address: TypeAlias = tuple[str, int]

_FORMS = "A server is HOST, HOST PORT or HOST:PORT; an IPv6 address with a port is written [::1]:9999 or ::1 9999."
_BRACKETED = re.compile(r"\[([^\[\]]*)\](?:\s*:\s*|\s+|$)(.*)")


def read_address(text: str, default: Address) -> Address:
    """Parse one of the forms in ``_FORMS``; missing parts are taken from ``default``. Raises RequestError."""
    host, port = split_address(text)
    return host or default[0], check_port(port) if port else default[1]


def read_addresses(text: str, default: Address, port: int | None = None) -> tuple[Address, ...]:
    """Parse a list of servers, separated by commas; one server is a list, too. Raises RequestError with one line.

    ``port``, if given, wins over the ports in the list.
    """
    items = text.split(",")
    if len(items) > SERVERS_MAX:
        reason = f"The list has {len(items)} servers; name at most {SERVERS_MAX}."
        raise RequestError(ErrorCode.BAD_REQUEST, reason)
    found: dict[str, Address] = {}
    for number, item in enumerate(items, 1):
        is_alone = len(items) == 1
        if not item.strip() and not is_alone:
            raise RequestError(ErrorCode.BAD_REQUEST, f"Server {number} in the list {text!r} is empty.")
        try:
            host, own_port = read_address(item, default)
        except RequestError as error:
            where = "" if is_alone else f"Server {number} in the list, {item.strip()!r}: "
            raise RequestError(error.code, f"{where}{error.reason}") from None
        address = (host, port or own_port)
        key = format_address((_canonical(host), address[1]))
        if key in found:
            raise RequestError(ErrorCode.BAD_REQUEST, f"The server {format_address(address)} is in the list twice.")
        found[key] = address
    return tuple(found.values())


def split_address(text: str) -> tuple[str, str]:
    """Split into host and port, each empty if missing. Raises RequestError, but does not check the port."""
    text = text.strip()
    if bracketed := _BRACKETED.fullmatch(text):
        words = [f"[{bracketed[1]}]", bracketed[2]]
    elif text.count(":") == 1:
        words = text.split(":")
    else:  # an IPv6 address has several colons
        words = text.split(maxsplit=1)
    host, port = (word.strip() for word in (*words, "", "")[:2])
    if " " in host + port or "\t" in host + port:
        raise RequestError(ErrorCode.BAD_REQUEST, _FORMS)
    return check_host(host) if host else "", port


def check_host(text: str) -> str:
    """Check a host name or address; returns it without the brackets of an IPv6 address. Raises RequestError."""
    is_bracketed = text.startswith("[") and text.endswith("]")
    host = text[1:-1] if is_bracketed else text
    if not host or not host.isprintable() or set(host) & set("[]/ ") or (":" in host and not _is_ipv6(host)):
        raise RequestError(ErrorCode.BAD_REQUEST, f"{text!r} is not a host name or an address. {_FORMS}")
    return host


def format_address(address: Address) -> str:
    """``host:port``, with brackets around an IPv6 address."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@lru_cache(_CACHED_MAX)
def network_of(address: str) -> str:
    """The network that counts as one origin: an IPv4 address itself, the /64 of an IPv6 address.

    An IPv4 address in IPv6 form (::ffff:192.0.2.1) counts as IPv4. Other texts are returned unchanged.
    """
    try:
        ip = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(ip, IPv6Address):
        if ip.ipv4_mapped is None:
            rest = ip.max_prefixlen - _CUSTOMER_BITS
            return f"{IPv6Address(int(ip) >> rest << rest)}/{_CUSTOMER_BITS}"
        ip = ip.ipv4_mapped
    return str(ip)


def is_address(target: str) -> bool:
    """True if the target of a ban is meant as an address or a network: a username has none of these characters."""
    return any(mark in target for mark in ".:/")


def read_network(text: str) -> Network:
    """Parse an address, or a network such as 192.0.2.0/24 or 2001:db8::/32. Raises ValueError with one sentence."""
    try:
        network = ip_network(text.strip(), strict=False)
    except ValueError as error:
        raise ValueError(
            f"{text.strip()!r} is not an address or a network, such as 192.0.2.7 or 192.0.2.0/24"
        ) from error
    mapped = network.network_address.ipv4_mapped if isinstance(network, IPv6Network) else None
    if mapped is not None and network.prefixlen >= 96:  # noqa: PLR2004 - ::ffff:0:0/96
        return IPv4Network((mapped, network.prefixlen - 96))
    return network


def read_networks(text: str) -> tuple[Network, ...]:
    """Parse a list of networks, separated by commas; ``none`` is the empty list. Raises ValueError."""
    return () if text.strip().lower() == "none" else tuple(read_network(part) for part in text.split(","))


def ban_network(text: str) -> str:
    """The network that a ban of this address or network keeps out, in the form in which bans are stored.

    A single address counts as its origin: see :func:`network_of`. Raises ValueError with one sentence.
    """
    return format_network(read_network(network_of(text.strip())))


def new_ban_network(text: str) -> str:
    """Like :func:`ban_network`. Raises ValueError also for networks larger than a /8, or a /16 of IPv6."""
    network = ban_network(text)
    parsed = ip_network(network)
    if parsed.prefixlen < _BANNED_BITS_MIN[parsed.version]:
        raise ValueError(f"{network} is too large to ban; name a /8 or a smaller network, or in IPv6 a /16")
    return network


def format_network(network: Network) -> str:
    """As in 192.0.2.0/24; a network of a single address is that address."""
    return str(network.network_address) if network.num_addresses == 1 else str(network)


def is_in_network(address: str, network: str) -> bool:
    """True if the address is in the network, of :func:`ban_network`."""
    return is_in_any(address, (_parsed(network),))


def is_in_any(address: str, networks: Collection[Network]) -> bool:
    """True if the address is in one of the networks. An IPv4 address in IPv6 form counts as IPv4."""
    ip = _parsed_address(address) if networks else None
    return ip is not None and any(ip in network for network in networks)


@lru_cache(_CACHED_MAX)
def _parsed_address(address: str) -> IPv4Address | IPv6Address | None:
    """None: the text is not an address. An IPv4 address in IPv6 form is IPv4."""
    try:
        ip = ip_address(address.partition("%")[0])
    except ValueError:
        return None
    return getattr(ip, "ipv4_mapped", None) or ip


@lru_cache(_BANS_CACHED_MAX)
def _parsed(network: str) -> Network:
    return ip_network(network)


def _canonical(host: str) -> str:
    """The same text for all spellings of a host."""
    return str(IPv6Address(host)) if _is_ipv6(host) else host.lower()


def _is_ipv6(host: str) -> bool:
    """True for an IPv6 address, with or without an interface (fe80::1%eth0)."""
    try:
        IPv6Address(host)
    except ValueError:
        return False
    return True
