"""The login throttle: slows down guesses of passwords, and never locks an owner out.

Theory of operation
-------------------

A *try* is one password for one account from one network (an IPv4 address, the /64 of an IPv6 address). Before its
password is checked it passes up to two *queues*, one after the other. A queue lets a number of tries through at once,
and then one in each interval. The charge of a try whose password was right is taken back, so only wrong passwords cost
time. A try is charged when it starts, so tries that run at the same time can't exceed the pace of a queue either.

The queues of a try depend on two facts: whether the account has logged in from this network before (*known*: an entry
of the journal says so), and whether it is the *first* try of this network for this account within an hour.

    known, first        none: the try is charged to the network and starts at once
    known, further      the network's queue
    unknown, first      the network's queue, then the account's queue for first tries
    unknown, further    the network's queue, then the account's queue for further tries

Why an owner gets in while strangers guess:

* From a known network, strangers elsewhere are not in any queue of the try. If they share the network, because it is a
  proxy, the owner waits in the network's queue. Tries for other accounts do not come before it: see *order*.
* From a new network, the try is a first one, and the first tries of 500 networks start at once. Attackers with 400
  networks use up 400 of them, once in an hour. With more networks they delay an owner in an unknown network, whose try
  then waits among first tries only.

Why guessing is slow, by the constants below: an account takes 24 first and 24 further tries a minute from unknown
networks; one network makes 48 tries a minute over all accounts. In addition there are at most 500 first tries for an
account, 30 tries of a network, and one for each account that is known in it.

Order. The try with the lowest number is first in a queue; of two equal ones, the older. The number is that of the tries
*of the same source* that waited in the queue when it arrived, plus the wrong passwords on its connection. The source is
the account in the queue of a network, and the network in the queues of an account. So the sources alternate: 16
connections of one network are not served 16 times as often as an owner's single one, and a connection that has just
failed comes after one that has not.

An account that is known in the network, and has had at most two wrong tries from there within an hour, goes before the
tries with an equal number: a user who has mistyped a password does not wait for guesses of other accounts. Each try is
overtaken three times at most, so nobody waits much longer, however many known accounts are guessed. The pace of the
queue stays the same.

A try does not wait for more than 25 s; it is then refused with the time after which it may pass. A refusal at once
would let a program ask in a loop.

Memory. A queue exists while a try waits in it, or its charges are not over. A failed try costs a hash and leaves at
most two queues for 2.5 s, so there are hundreds. Beyond a limit, the queues whose charges are over soonest are dropped:
an attacker can't flush the queue of an account by failing for others. The networks that have tried an account are
remembered by time, and the oldest are dropped. Their next tries are then first ones, of which an account takes 24 a
minute.

Several servers. A wrong password is charged on the others, too, a moment later (``peers.py``). Tries that pass on all
servers at the same time are all charged, so the next ones wait longer: the pace is the same, and only the number of
tries that pass at once is multiplied. A right password was never charged there.

The class has no thread and reads no clock. The reader thread of each connection waits for its own try, in
``authentication.py``: it asks :meth:`LoginThrottle.poll` until the answer is None, and sleeps meanwhile. ``wake`` of
the try is called when it should ask earlier. The lock guards everything, and nothing slow is done while it is held.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable


class Pace(NamedTuple):
    """The speed of a queue."""

    # Tries that pass at once.
    burst: int
    # Time for each further one.
    interval_seconds: float


class ThrottleLimits(NamedTuple):
    """The limits of the throttle."""

    # First tries of unknown networks for one account: more networks than most attackers have.
    first: Pace = Pace(500, 2.5)
    # Their further tries. A person needs a few until the right password comes to mind.
    further: Pace = Pace(5, 2.5)
    # Tries of one network over all accounts: an office of people who come back from a holiday.
    network: Pace = Pace(30, 1.25)
    # Wrong tries of an account from a network where it is known, within ``remembered_seconds``, after which it goes
    # before others no more.
    preferred_failures_max: int = 2
    # How often a try is overtaken: 16 connections of one address then wait for 24 s at most.
    overtaken_max: int = 3
    # Changes of the password by a logged-in user.
    change: Pace = Pace(5, 1.25)
    # Maximum wait of a try: 16 connections of one address, each with a try, and less than a client's patience
    # (docs/decisions/0020).
    wait_max_seconds: float = 25.0
    # How long a network counts as one that has tried an account.
    remembered_seconds: float = 3_600.0
    # Maximum remembered pairs of account and network, at about 250 bytes, and queues, at about 400 bytes.
    remembered_max: int = 20_000


class Failure(NamedTuple):
    """A wrong password, for the other servers: its account and network, and the kinds of queues it was charged to."""

    account: str
    # Empty for a change of the password.
    network: str
    queues: tuple[str, ...]


class _Queue:
    """Tries that wait, in order, and the time at which all charges are over."""

    __slots__ = ("over_at", "pace", "waiting", "waiting_of")

    def __init__(self, pace: Pace) -> None:
        self.pace = pace
        self.over_at = 0.0
        self.waiting: list[Try] = []
        # Number of waiting tries by their source.
        self.waiting_of: dict[Hashable, int] = {}

    def seconds_until_free(self, now: float) -> float:
        return max(0.0, self.over_at - now - (self.pace.burst - 1) * self.pace.interval_seconds)

    def charge(self, now: float) -> None:
        self.over_at = max(self.over_at, now) + self.pace.interval_seconds

    def take_back(self) -> None:
        self.over_at -= self.pace.interval_seconds


class Try:
    """One password of one connection. For the throttle, except ``deadline``."""

    __slots__ = (
        *("charged", "deadline", "failures", "is_preferred", "number", "order"),
        *("overtaken", "pair", "queues", "wake"),
    )

    def __init__(
        self, pair: tuple[str, str], number: int, failures: int, deadline: float, wake: Callable[[], None]
    ) -> None:
        self.pair = pair
        # The older try has the lower number.
        self.number = number
        # Wrong passwords on this connection.
        self.failures = failures
        # The latest time at which it may start.
        self.deadline = deadline
        self.wake = wake
        # The queues that it must still pass, by key, each with the source of the try in it. It waits in the first.
        self.queues: list[tuple[tuple[str, str], Pace, Hashable]] = []
        # The keys of the queues that it was charged to.
        self.charged: list[tuple[str, str]] = []
        # Its position in the present queue.
        self.order = (0, 0)
        # True if it goes before others with an equal number; and how many have gone before this one.
        self.is_preferred = False
        self.overtaken = 0


_ORDER = attrgetter("order")


class LoginThrottle:
    """Decides when each try may start. See the module's docstring. For any thread; ``now`` is in seconds."""

    def __init__(self, limits: ThrottleLimits | None = None) -> None:
        self.limits = limits or ThrottleLimits()
        self._on_failure: Callable[[Failure], None] = lambda _: None
        # Guards everything below.
        self._lock = threading.Lock()
        self._number = 0
        # By kind, and the network or the account.
        self._queues: dict[tuple[str, str], _Queue] = {}
        # Tries by account and network, wrong ones and those that have not ended, and the time of the newest; the pair
        # with the newest try is last.
        self._tries: dict[tuple[str, str], tuple[int, float]] = {}

    def on_failure(self, call: Callable[[Failure], None]) -> None:
        """Set the function that gets each wrong password of this server."""
        self._on_failure = call

    def enter(
        self,
        now: float,
        account: str,
        network: str,
        *,
        is_known: bool,
        failures: int = 0,
        wake: Callable[[], None],
    ) -> Try:
        """A try begins. Call :meth:`poll` next, and in the end :meth:`leave` or :meth:`finish`.

        ``account`` is the key of its name, whether the account exists or not. ``failures`` are the wrong passwords on
        this connection.
        """
        limits = self.limits
        with self._lock:
            attempt = self._new_try((account, network), failures, now, wake)
            count = self._count(attempt.pair, now)
            is_first = count == 0
            self._remember(attempt.pair, now, 1)
            network_queue = (("network", network), limits.network, account)
            if is_known and is_first:
                self._charge(network_queue[0], limits.network, attempt, now)
            elif is_known:
                attempt.queues = [network_queue]
                attempt.is_preferred = count <= limits.preferred_failures_max
            else:
                key, pace = ("first", limits.first) if is_first else ("further", limits.further)
                attempt.queues = [network_queue, ((key, account), pace, network)]
            self._join_queue(attempt)
        return attempt

    def enter_change(self, now: float, account: str, wake: Callable[[], None]) -> Try:
        """Like ``enter``, for a logged-in user who changes the password. All of its connections share a queue."""
        with self._lock:
            attempt = self._new_try((account, ""), 0, now, wake)
            self._remember(attempt.pair, now, 1)
            attempt.queues = [(("change", account), self.limits.change, None)]
            self._join_queue(attempt)
        return attempt

    def poll(self, attempt: Try, now: float) -> float | None:
        """None: the password may be checked now. Otherwise ask again after these seconds, or when ``wake`` is called.

        After its deadline the caller gives the try up.
        """
        with self._lock:
            while attempt.queues:
                key, pace, _ = attempt.queues[0]
                queue = self._queues[key]
                if queue.waiting[0] is not attempt:
                    return max(0.0, attempt.deadline - now)
                wait_seconds = queue.seconds_until_free(now)
                if wait_seconds > 0:
                    return wait_seconds
                self._leave_queue(attempt)
                self._charge(key, pace, attempt, now)
                self._join_queue(attempt)
        return None

    def leave(self, attempt: Try, now: float) -> float:
        """End a try without a check of its password: it is taken back. Returns the time until a next one may pass."""
        with self._lock:
            wait_seconds = 0.0
            if attempt.queues:
                queue = self._queues[attempt.queues[0][0]]
                ahead = queue.waiting.index(attempt)
                wait_seconds = queue.seconds_until_free(now) + ahead * queue.pace.interval_seconds
                self._leave_queue(attempt)
            self._take_back(attempt, now)
            return wait_seconds

    def finish(self, attempt: Try, now: float, *, was_right: bool) -> None:
        """The password was checked. A right one is taken back."""
        if was_right:
            with self._lock:
                self._take_back(attempt, now)
        else:
            self._on_failure(Failure(*attempt.pair, tuple(kind for kind, _ in attempt.charged)))

    def charge_failure(self, failure: Failure, now: float) -> None:
        """Charge a wrong password of another server. It may be charged to several servers at once, so all slow down."""
        limits = self.limits
        paces = {"network": limits.network, "first": limits.first, "further": limits.further, "change": limits.change}
        with self._lock:
            self._remember((failure.account, failure.network), now, 1)
            for kind, pace in paces.items():
                if kind in failure.queues:
                    key = (kind, failure.network if kind == "network" else failure.account)
                    self._charge_queue(key, pace, now)

    def wake_all(self) -> None:
        """Wake all tries that wait."""
        with self._lock:
            for queue in self._queues.values():
                for attempt in queue.waiting:
                    attempt.wake()

    def __len__(self) -> int:
        """Number of queues and remembered pairs."""
        with self._lock:
            return len(self._queues) + len(self._tries)

    # --- the lock is held ---

    def _new_try(self, pair: tuple[str, str], failures: int, now: float, wake: Callable[[], None]) -> Try:
        self._number += 1
        return Try(pair, self._number, failures, now + self.limits.wait_max_seconds, wake)

    def _join_queue(self, attempt: Try) -> None:
        """Wait in the next queue, if there is one."""
        if not attempt.queues:
            return
        key, pace, source = attempt.queues[0]
        queue = self._queues.get(key) or self._queues.setdefault(key, _Queue(pace))
        ahead = queue.waiting_of.get(source, 0)
        queue.waiting_of[source] = ahead + 1
        attempt.order = (ahead + attempt.failures, attempt.number)
        position = bisect_right(queue.waiting, attempt.order, key=_ORDER)
        if attempt.is_preferred:
            position = self._overtake(attempt, queue.waiting, position)
        queue.waiting.insert(position, attempt)

    def _overtake(self, attempt: Try, waiting: list[Try], position: int) -> int:
        """Return the position of a preferred try, which goes before some of the tries with an equal number."""
        number = attempt.order[0]
        while position:
            other = waiting[position - 1]
            if other.order[0] < number or other.is_preferred or other.overtaken >= self.limits.overtaken_max:
                break
            other.overtaken += 1
            attempt.order = other.order
            position -= 1
        return position

    def _leave_queue(self, attempt: Try) -> None:
        """Leave the present queue. The next try is woken if it is the first now."""
        key, _, source = attempt.queues.pop(0)
        queue = self._queues[key]
        was_first = queue.waiting[0] is attempt
        queue.waiting.remove(attempt)
        queue.waiting_of[source] -= 1
        if not queue.waiting_of[source]:
            del queue.waiting_of[source]
        if was_first and queue.waiting:
            queue.waiting[0].wake()

    def _charge(self, key: tuple[str, str], pace: Pace, attempt: Try, now: float) -> None:
        attempt.charged.append(key)
        self._charge_queue(key, pace, now)

    def _charge_queue(self, key: tuple[str, str], pace: Pace, now: float) -> None:
        queue = self._queues.get(key) or self._queues.setdefault(key, _Queue(pace))
        queue.charge(now)
        if len(self._queues) > self.limits.remembered_max:
            self._drop_queues(now)

    def _take_back(self, attempt: Try, now: float) -> None:
        for key in attempt.charged:
            queue = self._queues.get(key)
            if queue is None:  # its charges are over
                continue
            queue.take_back()
            if queue.waiting:
                queue.waiting[0].wake()
            elif queue.over_at <= now:
                del self._queues[key]
        self._remember(attempt.pair, now, -1)

    def _drop_queues(self, now: float) -> None:
        """Drop queues without a waiting try: those whose charges are over, or the half that are over soonest."""
        over_at = {key: queue.over_at for key, queue in self._queues.items() if not queue.waiting}
        for key in sorted(over_at, key=over_at.__getitem__):
            if over_at[key] > now and len(self._queues) <= self.limits.remembered_max // 2:
                return
            del self._queues[key]

    def _count(self, pair: tuple[str, str], now: float) -> int:
        """Tries of this network for this account that were wrong or have not ended."""
        count, newest_at = self._tries.get(pair, (0, now))
        return count if now < newest_at + self.limits.remembered_seconds else 0

    def _remember(self, pair: tuple[str, str], now: float, change: int) -> None:
        """Change the number of tries. The pair with the newest try is last, so the oldest are dropped first."""
        count = self._count(pair, now) + change
        self._tries.pop(pair, None)
        if count > 0:
            self._tries[pair] = (count, now)
            if len(self._tries) > self.limits.remembered_max:
                del self._tries[next(iter(self._tries))]
