"""The address of a client, as a trusted proxy announces it.

PROXY protocol, version 2: a header before the first byte of the connection, which :func:`read_address` reads. A proxy
of HTTP adds the header X-Forwarded-For to the request instead, which :func:`forwarded_address` reads.

Source: https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt, section 2.2. The header is binary: a signature of
12 bytes, version and command, family and transport, the length of the rest; then addresses and ports, then extensions
(TLVs), which are skipped. Version 1, a line of text, is not read.

The reader asks :func:`missing_bytes` how much to read next, so it never takes a byte of what follows the header.
"""

from __future__ import annotations

import re
import struct
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, Final

from chatprotocol.errors import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
# Signature, version and command, family and transport, length of the rest.
_FIXED: Final = struct.Struct(">12sBBH")
# Maximum length of the rest. Addresses take 36 bytes. Extensions of common proxies take some hundred bytes; a client's
# certificate is the longest, about 1,500 bytes.
REST_MAX_BYTES: Final = 4_096
_VERSION: Final = 2
# Commands: a connection of the proxy itself, such as a health check; a connection of a client.
_LOCAL: Final = 0
_PROXY: Final = 1
# Families with an address: the type and length of the source address. The destination's address has the same length,
# and two ports of two bytes follow.
_FAMILIES: Final[dict[int, tuple[type[IPv4Address | IPv6Address], int]]] = {
    1: (IPv4Address, 4),
    2: (IPv6Address, 16),
}
_PORTS_BYTES: Final = 4
# An address in X-Forwarded-For. Some proxies add the port: 192.0.2.1:443, [2001:db8::1]:443.
_FORWARDED: Final = re.compile(r"(?:([0-9.]+)|\[([0-9A-Fa-f:.]+)\])(?::[0-9]+)?|([0-9A-Fa-f:.]+)")


def missing_bytes(received: bytes) -> int:
    """Return the number of bytes to read next; 0 if the header is complete. ProtocolError: it is not a header."""
    if received[: len(SIGNATURE)] != SIGNATURE[: len(received)]:
        raise ProtocolError("the connection does not begin with a header of the PROXY protocol, version 2")
    if len(received) < _FIXED.size:
        return _FIXED.size - len(received)
    rest_bytes = _FIXED.unpack_from(received)[3]
    if rest_bytes > REST_MAX_BYTES:
        raise ProtocolError(f"the header has {rest_bytes} bytes after its length; {REST_MAX_BYTES} are allowed")
    return max(0, _FIXED.size + int(rest_bytes) - len(received))


def read_address(header: bytes) -> str | None:
    """Return the client's address from a complete header. ProtocolError: the header is invalid or incomplete.

    None: the proxy does not announce one, because it opened the connection itself or does not know the address.
    """
    if missing_bytes(header):
        raise ProtocolError("the header is incomplete")
    _, version_and_command, family_and_transport, rest_bytes = _FIXED.unpack_from(header)
    version, command = divmod(version_and_command, 16)
    if version != _VERSION or command not in (_LOCAL, _PROXY):
        raise ProtocolError(f"the header has version {version} and command {command}; 2 and 0 or 1 are valid")
    family = family_and_transport // 16
    if command == _LOCAL or family not in _FAMILIES:
        return None
    address_type, size_bytes = _FAMILIES[family]
    if rest_bytes < 2 * size_bytes + _PORTS_BYTES:
        raise ProtocolError(
            f"the header has {rest_bytes} bytes of addresses; {2 * size_bytes + _PORTS_BYTES} are needed"
        )
    return str(address_type(header[_FIXED.size : _FIXED.size + size_bytes]))


def forwarded_address(values: Iterable[str], is_trusted: Callable[[str], bool]) -> str | None:
    """Return the client's address from the values of X-Forwarded-For; None if there is none.

    Each proxy adds the address of its own client at the end. So the last address that is not a trusted proxy's is the
    client's. The client may have sent what is before it.
    """
    for item in reversed(",".join(values).split(",")):
        found = _FORWARDED.fullmatch(item.strip())
        try:
            address = str(ip_address(next(filter(None, found.groups())))) if found else None
        except ValueError:
            address = None
        if address is None or not is_trusted(address):
            return address
    return None
