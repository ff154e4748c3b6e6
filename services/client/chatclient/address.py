"""Where a server is."""

from __future__ import annotations

from typing import TypeAlias

from chatprotocol.errors import ErrorCode, Refusal
from chatprotocol.rules import check_port

# Its host and port.
Address: TypeAlias = tuple[str, int]


def read_address(line: str, default: Address) -> Address:
    """HOST, HOST PORT or HOST:PORT; what is missing is the default. Raises Refusal."""
    # An address of IPv6 has more colons than one.
    words = line.split(":") if line.count(":") == 1 else line.split()
    match [word.strip() for word in words]:
        case []:
            return default
        case [host]:
            return host, default[1]
        case [host, port] if " " not in host + port:
            return host or default[0], check_port(port) if port else default[1]
        case _:
            raise Refusal(ErrorCode.BAD_REQUEST, "A server is HOST, or HOST PORT.")
