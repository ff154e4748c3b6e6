"""The timestamps of messages while the system clock is set."""

import pytest
from structlog.testing import capture_logs

from chatserver.clock import Clock

DAY_MS = 86_400_000


@pytest.mark.parametrize(
    ("wall", "times", "jumps"),
    [
        # One message per second; the first value of the system clock is read at the start.
        ([0, 1_000, 2_000, 3_000], [1_000, 2_000, 3_000], []),
        ([0, 1_000, 400 * DAY_MS, 3_000, 4_000], [1_000, 400 * DAY_MS, 3_000, 4_000], [34_559_998, -34_559_998]),
        ([9_000_000, 5_401_000, 5_402_000], [5_401_000, 5_402_000], [-3_600]),
        ([0, 5_000, 2_000, 3_000, 4_000, 5_000, 6_000], [5_000] * 5 + [6_000], []),
    ],
    ids=["as it should", "a year ahead and back", "an hour back", "some seconds ahead and back"],
)
def test_timestamps_go_back_only_if_the_clock_jumped(wall: list[int], times: list[int], jumps: list[int]) -> None:
    clock = Clock(iter(wall).__next__, iter(range(0, 100_000, 1_000)).__next__)
    with capture_logs() as log:
        given = [clock.now_ms() for _ in wall[1:]]
    assert given == times
    assert [entry["seconds"] for entry in log] == jumps


def test_default_clock_is_the_system_clock() -> None:
    clock = Clock()
    with capture_logs() as log:
        first = clock.now_ms()
        assert first <= clock.now_ms() < first + DAY_MS
    assert first > 20_000 * DAY_MS
    assert log == []
