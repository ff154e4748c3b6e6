"""The login throttle, as a simulation: guessers and owners with a clock that jumps from event to event."""

from collections import Counter
from collections.abc import Callable
from functools import partial
from heapq import heappop, heappush
from itertools import count

import pytest

from chatserver.chat.login_throttle import LoginThrottle, Pace, ThrottleLimits, Try

# Time of a hash.
HASH_SECONDS = 0.02


class Simulation:
    """Connections that try passwords, and the times at which the passwords were checked."""

    def __init__(self, limits: ThrottleLimits | None = None) -> None:
        self.throttle = LoginThrottle(limits)
        self.now = 0.0
        # Times of checks of wrong passwords, and by account and network.
        self.guesses: list[float] = []
        self.guessed: Counter[tuple[str, str]] = Counter()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()

    def at(self, time: float, event: Callable[[], None]) -> None:
        heappush(self._events, (time, next(self._numbers), event))

    def run(self, until: float) -> None:
        while self._events and self._events[0][0] <= until:
            self.now, _, event = heappop(self._events)
            event()
        self.now = max(self.now, until)

    def guesses_between(self, start: float, end: float) -> int:
        return sum(start <= at < end for at in self.guesses)

    def enter(
        self,
        account: str,
        network: str,
        started: Callable[[Try], None],
        refused: Callable[[], None],
        *,
        is_known: bool,
        failures: int,
    ) -> None:
        """Begin a try; one of the functions is called when it starts, or is refused."""
        has_ended = False

        def poll() -> None:
            nonlocal has_ended
            if has_ended:
                return
            wait = self.throttle.poll(attempt, self.now)
            if wait is not None and self.now < attempt.deadline:
                self.at(self.now + max(wait, 1e-6), poll)
                return
            has_ended = True
            if wait is not None:
                self.throttle.leave(attempt, self.now)
                refused()
            else:
                started(attempt)

        attempt = self.throttle.enter(
            self.now,
            account,
            network,
            is_known=is_known,
            failures=failures,
            wake=lambda: self.at(self.now, poll),
        )
        poll()

    def guess(self, account: str, network: str, *, is_known: bool = False, tries: int = 3) -> None:
        """Guess without end, with this number of tries on each connection."""
        failures = 0

        def begin() -> None:
            self.enter(account, network, start, begin, is_known=is_known, failures=failures)

        def start(attempt: Try) -> None:
            def end() -> None:
                nonlocal failures
                self.throttle.finish(attempt, self.now, was_right=False)
                failures = (failures + 1) % tries
                begin()

            self.guesses.append(self.now)
            self.guessed[account, network] += 1
            self.at(self.now + HASH_SECONDS, end)

        self.at(self.now, begin)

    def wait_of_owner(self, account: str, network: str, *, is_known: bool = False) -> float:
        """Log in with the right password now; return the seconds until it is checked. Fails if it is refused."""
        began_at, waits = self.now, []

        def start(attempt: Try) -> None:
            waits.append(self.now - began_at)
            self.throttle.finish(attempt, self.now, was_right=True)

        def refuse() -> None:
            raise AssertionError("the owner is refused")

        self.enter(account, network, start, refuse, is_known=is_known, failures=0)
        while not waits:
            self.run(self.now + 0.1)
        return waits[0]


def test_owner_logs_in_while_400_networks_guess() -> None:
    """Promise: no lock-out, from a known or an unknown network, also from one that has guessed for other accounts."""
    simulation = Simulation()
    for number in range(400):
        simulation.guess("alice", f"network {number}")
    for minute in range(10):
        simulation.run(minute * 60 + 10)
        assert simulation.wait_of_owner("alice", f"hotel {minute}") == 0
        assert simulation.wait_of_owner("alice", "home", is_known=True) == 0
        assert simulation.wait_of_owner("bob", "network 7") < 2
    assert simulation.guesses_between(0, 60) < 460
    for minute in range(1, 9):
        assert simulation.guesses_between(minute * 60, (minute + 1) * 60) <= 24
    assert max(simulation.guessed.values()) - min(simulation.guessed.values()) <= 2, "the networks take turns"


def test_more_networks_than_first_tries_guess_slowly() -> None:
    simulation = Simulation()
    for number in range(800):
        simulation.guess("alice", f"network {number}")
    simulation.run(180)
    assert simulation.guesses_between(0, 60) < 600
    for minute in range(1, 3):
        assert simulation.guesses_between(minute * 60, (minute + 1) * 60) <= 48
    assert simulation.wait_of_owner("alice", "home", is_known=True) == 0


@pytest.mark.parametrize("is_known", [False, True])
def test_one_network_guesses_slowly_over_all_accounts(*, is_known: bool) -> None:
    """Users of the network whose accounts are not guessed log in at once."""
    simulation = Simulation()
    for number in range(100):
        simulation.guess(f"user {number}", "network", is_known=is_known)
    simulation.run(60)
    assert simulation.guesses_between(0, 60) < 180
    assert simulation.wait_of_owner("bob", "network", is_known=True) == 0
    assert simulation.wait_of_owner("user 7", "home", is_known=True) == 0
    simulation.run(240)
    for minute in range(1, 4):
        assert simulation.guesses_between(minute * 60, (minute + 1) * 60) <= 48


@pytest.mark.parametrize(
    ("connections", "tries", "wait_max_seconds"),
    [(1, 3, 2.5), (1, 1, 2.5), (3, 3, 4), (8, 3, 7.5), (8, 1, 11.3), (15, 1, 20.1)],
)
def test_owner_logs_in_from_an_address_that_guesses_the_password(
    connections: int, tries: int, wait_max_seconds: float
) -> None:
    """A proxy's address is that of all of its users. Promise: no lock-out."""
    simulation = Simulation()
    simulation.run(1_000)
    for _ in range(connections):
        simulation.guess("alice", "proxy", is_known=True, tries=tries)
    waits = []
    for step in range(40):
        simulation.run(1_100 + step * 17.3)
        waits.append(simulation.wait_of_owner("alice", "proxy", is_known=True))
    assert max(waits) <= wait_max_seconds
    assert simulation.guesses_between(1_060, 1_120) <= 48
    assert simulation.wait_of_owner("bob", "proxy", is_known=True) == 0


@pytest.mark.parametrize("tries", [1, 3])
@pytest.mark.parametrize("is_known", [False, True])
def test_known_user_with_a_wrong_try_goes_before_guesses_of_other_accounts(*, is_known: bool, tries: int) -> None:
    """The user has mistyped the password. New users of the address still get in, and guesses are as slow."""
    simulation = Simulation()
    mistyped = simulation.throttle.enter(0, "bob", "proxy", is_known=True, wake=lambda: None)
    simulation.throttle.finish(mistyped, 0, was_right=False)
    for number in range(15):
        simulation.guess(f"user {number}", "proxy", is_known=is_known, tries=tries)
    for step in range(1, 40):
        simulation.run(60 + step * 17.3)
        assert simulation.wait_of_owner("bob", "proxy", is_known=True) <= 1.3
        assert simulation.wait_of_owner(f"new user {step}", "proxy") <= 21.3
    assert simulation.guesses_between(120, 180) <= 48


def test_try_is_overtaken_a_few_times_only() -> None:
    """Known accounts that are guessed keep no other user out."""
    throttle = LoginThrottle(ThrottleLimits(network=Pace(1, 1.0)))
    enter = partial(throttle.enter, network="proxy", wake=lambda: None)
    for number in range(6):
        throttle.finish(enter(0, f"user {number}", is_known=True), 0, was_right=False)
    other = enter(0, "new user", is_known=False)
    known = [enter(0, f"user {number}", is_known=True) for number in range(6)]
    started: list[Try] = []
    for now in range(20):
        started += [each for each in (other, *known) if each not in started and throttle.poll(each, now) is None]
    assert started == [*known[:3], other, *known[3:]]


def test_right_passwords_cost_no_time() -> None:
    """All users of an office log in after a restart: none of them is known, and each waits for hashes only."""
    simulation = Simulation()
    done = []

    def start(attempt: Try) -> None:
        def end() -> None:
            simulation.throttle.finish(attempt, simulation.now, was_right=True)
            done.append(simulation.now)

        simulation.at(simulation.now + HASH_SECONDS, end)

    for number in range(1_000):
        simulation.enter(f"user {number}", "office", start, lambda: None, is_known=False, failures=0)
    simulation.run(5)
    assert len(done) == 1_000
    assert max(done) < 1_000 / 30 * HASH_SECONDS + 0.1


def test_tries_that_give_up_are_taken_back() -> None:
    """Hanging up costs other users nothing."""
    throttle = LoginThrottle()
    for _ in range(100):
        attempt = throttle.enter(0, "alice", "here", is_known=False, wake=lambda: None)
        assert throttle.poll(attempt, 0) is None
        throttle.leave(attempt, 0)
    assert len(throttle) == 0


def test_changes_of_a_password_are_slow_after_a_few_and_apart_from_logins() -> None:
    """A stolen session can't guess, and its user can still log in elsewhere."""
    throttle, woken = LoginThrottle(), []
    for _ in range(5):
        attempt = throttle.enter_change(0, "alice", lambda: None)
        assert throttle.poll(attempt, 0) is None
        throttle.finish(attempt, 0, was_right=False)
    first = throttle.enter_change(0, "alice", lambda: None)
    second = throttle.enter_change(0, "alice", lambda: woken.append("second"))
    assert throttle.poll(first, 0) == pytest.approx(1.25)
    assert throttle.poll(second, 0) == throttle.limits.wait_max_seconds
    assert throttle.leave(second, 0) == pytest.approx(2.5), "the time after which it may pass"
    second = throttle.enter_change(0, "alice", lambda: woken.append("second"))
    assert throttle.poll(first, 1.25) is None
    assert woken == ["second"]
    login = throttle.enter(0, "alice", "here", is_known=False, wake=lambda: None)
    assert throttle.poll(login, 0) is None


def test_memory_is_bounded_and_an_attacked_account_is_not_forgotten() -> None:
    limits = ThrottleLimits(further=Pace(1, 60.0), remembered_max=200)
    throttle = LoginThrottle(limits)

    def fail(account: str, network: str, now: float) -> None:
        attempt = throttle.enter(now, account, network, is_known=False, wake=lambda: None)
        if throttle.poll(attempt, now) is None:
            throttle.finish(attempt, now, was_right=False)
        else:
            throttle.leave(attempt, now)

    for _ in range(3):
        fail("alice", "here", 0)
    for number in range(10_000):
        fail(f"user {number}", f"network {number}", 1)
    assert len(throttle) <= 2 * limits.remembered_max
    fail("alice", "here", 1)  # a first try again: the network was forgotten
    attempt = throttle.enter(1, "alice", "here", is_known=False, wake=lambda: None)
    wait_seconds = throttle.poll(attempt, 1)
    assert wait_seconds is not None
    assert wait_seconds > 50
