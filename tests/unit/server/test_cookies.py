"""Cookies: what was made for one address and text is good for them alone, and not for long."""

import pytest

from chatserver.net.cookies import Cookies

ADDRESS = ("10.0.0.1", 4_711)
SIX = ("fe80::1", 4_711, 0, 2)
# A span of 30 s begins.
NOW = 30_000.0


@pytest.mark.parametrize("address", [ADDRESS, SIX])
@pytest.mark.parametrize("text", [b"", b"alice", b"alice bm-pm", bytes(range(256))])
def test_a_cookie_is_good_for_the_address_and_the_text_that_it_was_made_for(
    address: tuple[object, ...], text: bytes
) -> None:
    cookies = Cookies()
    cookie = cookies.make(address, text, NOW)

    assert len(cookie) == 8
    assert cookies.is_good(cookie, address, text, NOW)


@pytest.mark.parametrize(
    ("address", "text"),
    [
        (("10.0.0.2", 4_711), b"alice"),
        (("10.0.0.1", 4_712), b"alice"),
        (("10.0.0.1", 4_711, 0, 0), b"alice"),
        (ADDRESS, b"Alice"),
        (ADDRESS, b"alice "),
        (ADDRESS, b"alice bm-pm"),
        (ADDRESS, b""),
    ],
)
def test_it_is_good_for_no_other(address: tuple[object, ...], text: bytes) -> None:
    """Promise: a forged address gets no session."""
    cookies = Cookies()
    cookie = cookies.make(ADDRESS, b"alice", NOW)

    assert not cookies.is_good(cookie, address, text, NOW)


@pytest.mark.parametrize(
    ("made_at", "shown_at", "is_good"),
    [
        (NOW, NOW + 29.9, True),
        (NOW, NOW + 30.0, True),
        (NOW, NOW + 59.9, True),
        (NOW, NOW + 60.0, False),
        (NOW + 29.9, NOW + 30.0, True),
        (NOW + 29.9, NOW + 59.9, True),
        (NOW + 29.9, NOW + 60.0, False),
        (NOW, NOW - 0.1, False),
        (NOW, NOW + 1_000_000.0, False),
    ],
)
def test_it_is_good_for_thirty_to_sixty_seconds(made_at: float, shown_at: float, is_good: bool) -> None:
    cookies = Cookies()
    cookie = cookies.make(ADDRESS, b"alice", made_at)

    assert cookies.is_good(cookie, ADDRESS, b"alice", shown_at) == is_good


def test_who_asks_again_is_given_the_same_for_a_while() -> None:
    """So that it does not matter which of several answers comes back."""
    cookies = Cookies()
    cookie = cookies.make(ADDRESS, b"alice", NOW)

    assert cookies.make(ADDRESS, b"alice", NOW + 29.9) == cookie
    assert cookies.make(ADDRESS, b"alice", NOW + 30.0) != cookie


@pytest.mark.parametrize("at", range(8))
def test_one_bit_makes_it_a_bad_one(at: int) -> None:
    cookies = Cookies()
    cookie = bytearray(cookies.make(ADDRESS, b"alice", NOW))
    cookie[at] ^= 1

    assert not cookies.is_good(bytes(cookie), ADDRESS, b"alice", NOW)


@pytest.mark.parametrize("size", [0, 1, 7, 9])
def test_a_part_of_it_or_more_than_it_is_a_bad_one(size: int) -> None:
    cookies = Cookies()
    cookie = cookies.make(ADDRESS, b"alice", NOW) + b"\0"

    assert not cookies.is_good(cookie[:size], ADDRESS, b"alice", NOW)


def test_another_server_makes_others() -> None:
    """Nobody can make one without the secret."""
    cookie = Cookies().make(ADDRESS, b"alice", NOW)
    other = Cookies()

    assert other.make(ADDRESS, b"alice", NOW) != cookie
    assert not other.is_good(cookie, ADDRESS, b"alice", NOW)
