"""Where a server is."""

from __future__ import annotations

from typing import TypeAlias

from chatprotocol.errors import ErrorCode, Refusal
from chatprotocol.rules import check_port

# Its host and port.
Address: TypeAlias = tuple[str, int]


def read_address(line: str, default: Address) -> Address:
    """HOST, HOST PORT or HOST:PORT; nothing is the default. Raises Refusal."""
    # An address of IPv6 has more colons than one.
    match line.replace(":", " ").split() if line.count(":") == 1 else line.split():
        case []:
            return default
        case [host]:
            return host, default[1]
        case [host, port]:
            return host, check_port(port)
        case _:
            raise Refusal(ErrorCode.BAD_REQUEST, "A server is HOST, or HOST PORT.")
