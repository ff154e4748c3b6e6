"""Limits of connections by address."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from chatserver.net.limits import ConnectionLimits


@pytest.mark.parametrize(
    ("address", "is_exempt"),
    [
        ("192.0.2.7", True),
        ("::ffff:192.0.2.7", True),
        ("2001:db8::1", True),
        ("fe80::1%eth0", True),
        ("192.0.3.1", False),
        ("::1", False),
    ],
)
def test_addresses_of_exempt_networks_are_exempt(address: str, *, is_exempt: bool) -> None:
    networks = [ip_network(each) for each in ("192.0.2.0/24", "2001:db8::/32", "fe80::/10")]
    assert ConnectionLimits(networks).is_exempt(address) is is_exempt


def test_own_machine_is_exempt_by_default() -> None:
    limits = ConnectionLimits()
    assert [limits.is_exempt(each) for each in ("127.0.0.2", "::1", "192.0.2.1")] == [True, True, False]
