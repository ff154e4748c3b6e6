"""The PROXY protocol: headers as a proxy writes them, in pieces of any size, and rubbish. X-Forwarded-For."""

from __future__ import annotations

import struct
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatprotocol.errors import ProtocolError
from chatprotocol.wire import PROTOCOLS, Sniff, sniff
from chatprotocol.wire.proxy import REST_MAX_BYTES, SIGNATURE, forwarded_address, missing_bytes, read_address

if TYPE_CHECKING:
    import ipaddress

LOCAL, PROXY = 0x20, 0x21
TCP4, TCP6, UNIX, UNKNOWN = 0x11, 0x21, 0x31, 0x00


def header(command: int, family: int, rest: bytes) -> bytes:
    return SIGNATURE + struct.pack(">BBH", command, family, len(rest)) + rest


def announced(address: ipaddress.IPv4Address | ipaddress.IPv6Address, extensions: bytes = b"") -> bytes:
    """The header for a client with this address."""
    family = TCP4 if address.version == 4 else TCP6
    return header(PROXY, family, address.packed + address.packed[::-1] + struct.pack(">HH", 4_711, 443) + extensions)


def read(data: bytes, piece_bytes: int = 1_000_000) -> tuple[str | None, bytes]:
    """Read a header as a connection does, at most ``piece_bytes`` at once. Returns the address and the rest."""
    received = b""
    while missing := missing_bytes(received):
        piece = data[len(received) :][: min(missing, piece_bytes)]
        if not piece:
            raise EOFError
        received += piece
    return read_address(received), data[len(received) :]


@given(st.ip_addresses(), st.binary(max_size=300), st.binary(max_size=50), st.integers(1, 40))
def test_address_is_read_and_nothing_after_the_header(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address, extensions: bytes, after: bytes, piece_bytes: int
) -> None:
    assert read(announced(address, extensions) + after, piece_bytes) == (str(address), after)


@pytest.mark.parametrize(
    "data",
    [
        header(LOCAL, UNKNOWN, b""),
        header(LOCAL, TCP4, b"\1" * 12),
        header(PROXY, UNKNOWN, b"abc"),
        header(PROXY, UNIX, b"/" * 216),
    ],
)
def test_header_without_a_client_address_is_valid(data: bytes) -> None:
    """A health check of the proxy, and a client whose address the proxy does not know."""
    assert read(data + b"after") == (None, b"after")


@pytest.mark.parametrize(
    "data",
    [
        b'{"command":"ping"}\n',
        b"PROXY TCP4 192.0.2.1 192.0.2.2 4711 443\r\n",
        SIGNATURE[:-1] + b"X" + b"\0" * 20,
        header(0x11, TCP4, b"\1" * 12),
        header(0x22, TCP4, b"\1" * 12),
        header(PROXY, TCP4, b"\1" * 11),
        header(PROXY, TCP6, b"\1" * 35),
        SIGNATURE + struct.pack(">BBH", PROXY, TCP4, REST_MAX_BYTES + 1),
    ],
)
def test_invalid_header_is_rejected(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        read(data)


@given(st.one_of(st.binary(max_size=80), st.binary(max_size=80).map(lambda rest: SIGNATURE + rest)))
def test_rubbish_is_rejected_or_waits_for_a_bounded_rest(data: bytes) -> None:
    """It raises nothing else, and never asks for more than a header has."""
    with suppress(ProtocolError, EOFError):
        read(data)
    with suppress(ProtocolError):
        assert missing_bytes(data) <= 16 + REST_MAX_BYTES


def test_header_is_no_opening_of_a_protocol() -> None:
    """A peer that is not trusted has an unknown protocol."""
    assert sniff(SIGNATURE, PROTOCOLS) is Sniff.NO


@pytest.mark.parametrize(
    ("values", "address"),
    [
        (["192.0.2.7"], "192.0.2.7"),
        (["192.0.2.7:4711"], "192.0.2.7"),
        (["2001:DB8::7"], "2001:db8::7"),
        (["[2001:db8::7]:443"], "2001:db8::7"),
        # A client may send the header itself, and a proxy may be the client of another one.
        (["203.0.113.9, 192.0.2.7"], "192.0.2.7"),
        (["203.0.113.9", "192.0.2.7", "10.0.0.1"], "192.0.2.7"),
        (["203.0.113.9, 192.0.2.7 , 10.0.0.1,10.0.0.2"], "192.0.2.7"),
        (["192.0.2.7, unknown"], None),
        (["192.0.2.7, 192.0.2.300"], None),
        (["192.0.2.7,"], None),
        (["10.0.0.1"], None),
        ([], None),
    ],
)
def test_last_address_that_is_no_proxy_is_that_of_the_client(values: list[str], address: str | None) -> None:
    assert forwarded_address(values, lambda each: each.startswith("10.")) == address
