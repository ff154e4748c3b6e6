"""Cookies: valid for one address and one text, for 30 to 60 seconds, and only at the server that made them."""

import pytest

from chatserver.net.cookies import Cookies

ADDRESS = ("10.0.0.1", 4_711)
# The start of a time span of 30 s.
NOW = 30_000.0


def test_cookie_is_good_for_its_address_and_text() -> None:
    """Promise: a forged address gets no session."""
    cookies = Cookies()
    cookie = cookies.make(ADDRESS, b"alice", NOW)
    assert len(cookie) == 8
    assert not Cookies().is_valid(cookie, ADDRESS, b"alice", NOW), "it is of another server"
    assert cookies.is_valid(cookie, ADDRESS, b"alice", NOW)
    for address in (("10.0.0.2", 4_711), ("10.0.0.1", 4_712), ("10.0.0.1", 4_711, 0, 0)):
        assert not cookies.is_valid(cookie, address, b"alice", NOW)
    for text in (b"Alice", b"alice ", b""):
        assert not cookies.is_valid(cookie, ADDRESS, text, NOW)


@pytest.mark.parametrize("address", [ADDRESS, ("fe80::1", 4_711, 0, 2)])
def test_changed_cookie_is_bad(address: tuple[object, ...]) -> None:
    cookies = Cookies()
    text = bytes(range(256))
    cookie = cookies.make(address, text, NOW)
    changed = [bytes([*cookie[:at], cookie[at] ^ 1, *cookie[at + 1 :]]) for at in range(8)]
    assert cookies.is_valid(cookie, address, text, NOW)
    assert not any(cookies.is_valid(bad, address, text, NOW) for bad in (*changed, b"", cookie[:7], cookie + b"\0"))


@pytest.mark.parametrize(
    ("made_at", "shown_at", "is_good"),
    [
        (NOW, NOW + 59.9, True),
        (NOW, NOW + 60.0, False),
        (NOW + 29.9, NOW + 59.9, True),
        (NOW + 29.9, NOW + 60.0, False),
        (NOW, NOW - 0.1, False),
        (NOW, NOW + 1_000_000.0, False),
    ],
)
def test_cookie_is_good_for_30_to_60_seconds(made_at: float, shown_at: float, is_good: bool) -> None:
    cookies = Cookies()
    cookie = cookies.make(ADDRESS, b"alice", made_at)
    assert cookies.is_valid(cookie, ADDRESS, b"alice", shown_at) is is_good
    assert (cookies.make(ADDRESS, b"alice", shown_at) == cookie) is (made_at // 30 == shown_at // 30)
