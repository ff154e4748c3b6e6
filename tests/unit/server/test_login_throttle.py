"""The login throttle: wrong passwords per address and name, with a clock that the tests move."""

from chatserver.chat.login_throttle import FAILURES_MAX, WINDOW_SECONDS, LoginThrottle

from .udp_line import Clock


def fail(throttle: LoginThrottle, times: int, name: str = "alice") -> None:
    for _ in range(times):
        throttle.note_failure("here", name)


def test_too_many_failures_block_one_name_from_one_address() -> None:
    """A person may fail a few times. A user can't be locked out from another address."""
    throttle = LoginThrottle(Clock())
    fail(throttle, FAILURES_MAX - 1)
    assert not throttle.is_blocked("here", "alice")
    for times in (1, 1_000):
        fail(throttle, times)
        assert throttle.is_blocked("here", "alice")
    assert not throttle.is_blocked("there", "alice")
    assert not throttle.is_blocked("here", "bob")


def test_block_ends_with_the_window() -> None:
    clock = Clock()
    throttle = LoginThrottle(clock)
    fail(throttle, FAILURES_MAX)
    clock.now += WINDOW_SECONDS - 0.1
    assert throttle.is_blocked("here", "alice")
    clock.now += 0.2
    assert not throttle.is_blocked("here", "alice")
    for _ in range(FAILURES_MAX):  # the window slides
        fail(throttle, 1)
        clock.now += WINDOW_SECONDS / 5
    assert not throttle.is_blocked("here", "alice")


def test_number_of_remembered_names_is_bounded() -> None:
    """Promise: memory stays bounded. The name that failed longest ago is forgotten."""
    throttle = LoginThrottle(Clock(), remembered_max=5)
    names = ["oldest", "alice", "user0", "user1", "user2"]
    for name in names:
        fail(throttle, FAILURES_MAX, name)
    fail(throttle, 1, "oldest")
    fail(throttle, 1, "one more")
    assert [name for name in names if not throttle.is_blocked("here", name)] == ["alice"]
