"""Parse and format server addresses."""

from __future__ import annotations

import re
from ipaddress import IPv6Address
from typing import TypeAlias

from chatprotocol.errors import ErrorCode, RequestError
from chatprotocol.rules import check_port

# Host without brackets, port.
Address: TypeAlias = tuple[str, int]

_FORMS = "A server is HOST, HOST PORT or HOST:PORT; an IPv6 address with a port is written [::1]:9999 or ::1 9999."
_BRACKETED = re.compile(r"\[([^\[\]]*)\](?:\s*:\s*|\s+|$)(.*)")


def read_address(text: str, default: Address) -> Address:
    """Parse one of the forms in ``_FORMS``; missing parts are taken from ``default``. Raises RequestError."""
    host, port = split_address(text)
    return host or default[0], check_port(port) if port else default[1]


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


def _is_ipv6(host: str) -> bool:
    """True for an IPv6 address, with or without an interface (fe80::1%eth0)."""
    try:
        IPv6Address(host)
    except ValueError:
        return False
    return True
