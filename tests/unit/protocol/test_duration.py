"""Durations: what people type, and what they read."""

import pytest

from chatprotocol.duration import detail_for_people, format_duration, format_wait, read_duration
from chatprotocol.limits import SANCTION_MAX_SECONDS


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (1, "1s"),
        (90, "90s"),
        (5_400, "90m"),
        (7_200, "2h"),
        (7 * 86_400, "7d"),
        (365 * 86_400, "1y"),
        (SANCTION_MAX_SECONDS, "100y"),
    ],
)
def test_duration_that_is_read_can_be_typed(seconds: int, text: str) -> None:
    assert format_duration(seconds) == text
    assert read_duration(text) == seconds


@pytest.mark.parametrize(
    ("detail", "shown"),
    [
        ("for 604800 s", "for 7d"),
        ("for 3600 s, by the system user root", "for 1h, by the system user root"),
        ("", ""),
        ("now deleted-3", "now deleted-3"),
    ],
)
def test_detail_of_an_act_has_a_duration_for_people(detail: str, shown: str) -> None:
    assert detail_for_people(detail) == shown


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(2.5, "2.5 s"), (99, "99 s"), (100, "2 minutes"), (3_600, "60 minutes"), (7_201, "3 hours")],
)
def test_wait_is_rounded_up(seconds: float, text: str) -> None:
    assert format_wait(seconds) == text
