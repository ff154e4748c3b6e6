"""Failed logins, with a clock of the test's own."""

import pytest

from chatserver.chat import login_throttle
from chatserver.chat.login_throttle import FAILURES_MAX, WINDOW_SECONDS, LoginThrottle


class Clock:
    def __init__(self) -> None:
        self.seconds = 1_000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def failed(clock: Clock) -> LoginThrottle:
    return LoginThrottle(clock)


def fail(failed: LoginThrottle, times: int, address: str = "here", name: str = "alice") -> None:
    for _ in range(times):
        failed.note_failure(address, name)


def test_a_person_may_fail_a_few_times(failed: LoginThrottle) -> None:
    assert not failed.is_blocked("here", "alice")
    fail(failed, FAILURES_MAX - 1)
    assert not failed.is_blocked("here", "alice")


def test_a_program_that_guesses_is_slowed_down(failed: LoginThrottle) -> None:
    fail(failed, FAILURES_MAX)
    assert failed.is_blocked("here", "alice")
    fail(failed, 1_000)
    assert failed.is_blocked("here", "alice")


def test_nobody_locks_a_user_out_from_elsewhere(failed: LoginThrottle) -> None:
    fail(failed, FAILURES_MAX)

    assert not failed.is_blocked("there", "alice")
    assert not failed.is_blocked("here", "bob")


def test_after_a_minute_there_is_another_chance(failed: LoginThrottle, clock: Clock) -> None:
    fail(failed, FAILURES_MAX)
    clock.seconds += WINDOW_SECONDS - 0.1
    assert failed.is_blocked("here", "alice")
    clock.seconds += 0.2
    assert not failed.is_blocked("here", "alice")


def test_the_window_slides(failed: LoginThrottle, clock: Clock) -> None:
    for _ in range(FAILURES_MAX):
        failed.note_failure("here", "alice")
        clock.seconds += WINDOW_SECONDS / 5
    assert not failed.is_blocked("here", "alice")


def test_what_is_remembered_is_bounded_and_the_oldest_is_forgotten_first(
    failed: LoginThrottle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory stays bounded, whoever tries whatever names."""
    monkeypatch.setattr(login_throttle, "_REMEMBERED_MAX", 5)
    fail(failed, FAILURES_MAX, name="oldest")
    fail(failed, FAILURES_MAX, name="alice")
    for number in range(3):
        fail(failed, FAILURES_MAX, name=f"user{number}")
    fail(failed, 1, name="oldest")
    fail(failed, 1, name="one more")

    assert len(failed._failures) == 5
    assert failed.is_blocked("here", "oldest")
    assert not failed.is_blocked("here", "alice")
