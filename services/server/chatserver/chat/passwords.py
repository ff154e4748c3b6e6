"""Password hashing in one thread per processor, outside all locks.

Tasks wait in one queue for each :class:`Urgency`, and the most urgent is next. But one of four tasks is a login from a
new place, and one is a registration, if any waits: users who log in again and again keep no others out. In a queue the
accounts take turns: a login waits for one task of each other account at most, however many logins they have begun. A
task that was given up meanwhile is dropped when its turn comes: after 2,000 logins that hang up at once, the next one
is not behind 2,000 hashes.
"""

from __future__ import annotations

import os
import re
import sys
import threading
import time
import unicodedata
from collections import deque
from contextlib import suppress
from enum import Enum, IntEnum
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import argon2
from argon2.exceptions import HashingError, InvalidHashError, VerificationError, VerifyMismatchError
from msgspec import Struct

from chatserver.threads import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    _Result = TypeVar("_Result")

# Niceness of the hasher threads relative to the server's (the system stops at 19): logins must not slow down the chat.
# With 10, half of 500 simultaneous logins to a busy server on one processor took more than a minute.
_NICENESS_ADDED = 5


# Maximum waiting tasks that are not urgent: 20 s of one processor at the default cost. More are refused.
_WAITING_MAX = 1_000

# Spaces except the ASCII space: the category Zs of Unicode, which has had no new member since 2016.
_OTHER_SPACES = re.compile("[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")


class Verdict(Enum):
    """The result of a check."""

    WRONG = "wrong"
    RIGHT = "right"
    OUTDATED = "right, but the hash has other parameters or another Unicode form and must be replaced"


class Urgency(IntEnum):
    """The order of waiting tasks."""

    # Users who were logged in before from the same network.
    KNOWN = 0
    LOGIN = 1
    REGISTRATION = 2
    # A user may change the password again and again, with two hashes for each change.
    CHANGE = 3


# The order of the queues for four tasks in a row.
_ORDERS = (
    tuple(Urgency),
    tuple(Urgency),
    (Urgency.LOGIN, *Urgency),
    (Urgency.REGISTRATION, *Urgency),
)


class HashCost(Struct, frozen=True):
    """The parameters of argon2id."""

    time_cost: int
    memory_kib: int
    parallelism: int


class PasswordsClosedError(Exception):
    """The server is shutting down; no more passwords are checked."""


class PasswordsFailedError(Exception):
    """A password could not be hashed or checked: there is not enough memory."""


class PasswordsBusyError(Exception):
    """Too many tasks wait already."""


class AbandonedError(Exception):
    """The task was cancelled while it waited; nothing was hashed."""


class _Task(NamedTuple):
    """A hash or a check that waits, or runs."""

    work: Callable[[], Any]
    # Gets the result, or the exception. A second outcome, after a stop, has no reader.
    outcome: SimpleQueue[Any]
    queued_at: float
    # True if the outcome is not needed any more, given the seconds that the task has waited.
    is_abandoned: Callable[[float], bool]


class _Queue:
    """Waiting tasks. The accounts take turns; the tasks of one account are in order."""

    def __init__(self) -> None:
        # The account whose turn is next is first.
        self._tasks: dict[str, deque[_Task]] = {}

    def append(self, account: str, task: _Task) -> None:
        self._tasks.setdefault(account, deque()).append(task)

    def pop(self) -> _Task:
        account = next(iter(self._tasks))
        tasks = self._tasks.pop(account)
        task = tasks.popleft()
        if tasks:
            self._tasks[account] = tasks
        return task

    def clear(self) -> list[_Task]:
        """Remove all tasks, and return them."""
        removed = [task for tasks in self._tasks.values() for task in tasks]
        self._tasks.clear()
        return removed

    def __bool__(self) -> bool:
        return bool(self._tasks)


def never_abandoned(_: float) -> bool:
    """The caller waits for the outcome in any case."""
    return False


class Passwords:
    """Hashes new passwords and checks received ones, in its own threads. For any thread.

    The hasher threads limit concurrent hashes to the number of processors, at a low priority. They also keep the stacks
    of thousands of reader threads small, because hashing needs the largest stack.

    A ThreadPoolExecutor is no replacement: it starts threads late, when memory may be short, does not report that one
    has died, and joins them at the interpreter's exit, even after a crash.
    """

    def __init__(
        self,
        cost: HashCost,
        on_crash: Callable[[str], None],
        *,
        threads: int | None = None,
        waiting_max: int = _WAITING_MAX,
        stored_costs: Iterable[str] = (),
        new_hasher: Callable[..., argon2.PasswordHasher] = argon2.PasswordHasher,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``threads`` is one per processor by default. ``stored_costs``: see Accounts.hash_costs.

        Raises PasswordsFailedError if there is no memory for a hash.
        """
        self._hasher = new_hasher(time_cost=cost.time_cost, memory_cost=cost.memory_kib, parallelism=cost.parallelism)
        # A hash of each cost in use, that of new hashes included. A wrong password is checked once with each cost, so
        # that the time does not tell whether there is such a user, nor whether its hash is older than the settings.
        try:
            hashed = self._hasher.hash("nobody")
        except HashingError as error:
            raise PasswordsFailedError(str(error)) from error
        rest = hashed.removeprefix(_cost_of(hashed))
        self._costs = {cost: cost + rest for cost in (_cost_of(hashed), *stored_costs)}
        self._new_hash = hashed
        self._waiting_max = waiting_max
        self._clock = clock
        self._workers = [
            Worker(f"hasher {number}", self._run, on_crash, daemon=True)  # a hash can't be interrupted
            for number in range(1, (threads or _count_processors()) + 1)
        ]
        # An item for each waiting task, and at the end one for each hasher. Not a condition: a login waits for no other
        # thread as often as for a hasher, and a condition takes four times as long to wake it.
        self._wakeups: SimpleQueue[None] = SimpleQueue()
        # Guards everything below.
        self._lock = threading.Lock()
        self._closed = False
        # By urgency, and the number of their tasks.
        self._queues = [_Queue() for _ in Urgency]
        self._waiting = 0
        self._running: list[_Task] = []
        self._taken = 0

    def start(self) -> None:
        for worker in self._workers:
            worker.start()

    def stop(self, timeout_seconds: float) -> None:
        """Reject new and waiting tasks, then join the hasher threads.

        After the timeout, the tasks that still run are rejected.
        """
        deadline = time.monotonic() + timeout_seconds
        with self._lock:
            self._closed = True
            waiting = [task for queue in self._queues for task in queue.clear()]
            self._waiting = 0
        for _ in self._workers:
            self._wakeups.put(None)
        _reject(waiting)
        for worker in self._workers:
            worker.join(max(0.0, deadline - time.monotonic()))
        with self._lock:
            running = list(self._running)
        _reject(running)

    @property
    def waiting(self) -> int:
        """Number of waiting tasks. For any thread."""
        # Without the lock: a single look.
        return self._waiting

    def hash(
        self,
        password: str,
        urgency: Urgency = Urgency.KNOWN,
        is_abandoned: Callable[[float], bool] = never_abandoned,
        account: str = "",
    ) -> str:
        """Hash with a new salt. Blocks until a hasher is free.

        ``is_abandoned`` is asked when it is, with the seconds that the task has waited. The keys of accounts take
        turns; the empty one is that of all new accounts. Raises AbandonedError, PasswordsBusyError,
        PasswordsClosedError, PasswordsFailedError.
        """
        try:
            return self._run_in_hasher(lambda: self._hasher.hash(_prepare(password)), urgency, is_abandoned, account)
        except HashingError as error:
            raise PasswordsFailedError(str(error)) from error

    def check(
        self,
        password_hash: str | None,
        password: str,
        urgency: Urgency = Urgency.KNOWN,
        is_abandoned: Callable[[float], bool] = never_abandoned,
        account: str = "",
    ) -> Verdict:
        """Check a password; see ``hash``. A hash of None, for an unknown user, takes the same time and gives WRONG."""
        try:
            form = self._run_in_hasher(
                lambda: self._check_with_all_costs(password_hash, password),
                urgency,
                is_abandoned,
                account,
            )
        except VerificationError as error:
            raise PasswordsFailedError(str(error)) from error
        if password_hash is None or form is None:
            return Verdict.WRONG
        # The lengths of salt and digest are parameters as well. argon2.extract_parameters takes 20 us.
        is_outdated = (
            form != _prepare(password)
            or _cost_of(password_hash) != _cost_of(self._new_hash)
            or len(password_hash) != len(self._new_hash)
        )
        return Verdict.OUTDATED if is_outdated else Verdict.RIGHT

    def _check_with_all_costs(self, password_hash: str | None, password: str) -> str | None:
        """Return the form that matches; None for a wrong password, after a check with each cost in use."""
        form = None if password_hash is None else self._matching_form(password_hash, password)
        if form is None:
            done = "" if password_hash is None else _cost_of(password_hash)
            for cost, other_hash in self._costs.items():
                if cost != done:
                    self._matching_form(other_hash, password)
        return form

    def _matching_form(self, password_hash: str, password: str) -> str | None:
        """Return the form that matches: the prepared password or, as in earlier versions, the given one.

        The number of tries depends on the password only, so that it does not reveal whether the user exists.
        """
        for form in dict.fromkeys((_prepare(password), password)):
            with suppress(VerifyMismatchError, InvalidHashError):
                self._hasher.verify(password_hash, form)
                return form
        return None

    def _run_in_hasher(
        self, work: Callable[[], _Result], urgency: Urgency, is_abandoned: Callable[[float], bool], account: str
    ) -> _Result:
        outcome: SimpleQueue[Any] = SimpleQueue()
        with self._lock:
            if self._closed:
                raise PasswordsClosedError
            if urgency is not Urgency.KNOWN and self._waiting >= self._waiting_max:
                raise PasswordsBusyError
            self._queues[urgency].append(account, _Task(work, outcome, self._clock(), is_abandoned))
            self._waiting += 1
        self._wakeups.put(None)
        result: _Result | Exception = outcome.get()
        if isinstance(result, Exception):
            raise result
        return result

    def _run(self) -> None:
        if sys.platform == "linux":  # elsewhere the priority applies to the whole process
            with suppress(OSError):
                os.nice(_NICENESS_ADDED)
        while task := self._take():
            try:
                is_abandoned = task.is_abandoned(self._clock() - task.queued_at)
                outcome = AbandonedError() if is_abandoned else task.work()
            except Exception as error:
                outcome = error
            task.outcome.put(outcome)
            with self._lock:
                self._running.remove(task)

    def _take(self) -> _Task | None:
        """Wait for the next task. None: no more tasks follow."""
        self._wakeups.get()
        with self._lock:
            order = _ORDERS[self._taken % len(_ORDERS)]
            queue = next((self._queues[urgency] for urgency in order if self._queues[urgency]), None)
            if queue is None:  # closed
                return None
            self._taken += 1
            self._waiting -= 1
            task = queue.pop()
            self._running.append(task)
            return task


def _cost_of(password_hash: str) -> str:
    """The algorithm and the parameters of a hash, without its salt."""
    return password_hash.rsplit("$", 2)[0]


def _reject(tasks: Iterable[_Task]) -> None:
    for task in tasks:
        task.outcome.put(PasswordsClosedError())


def hash_password(cost: HashCost, password: str) -> str:
    """Hash a password in this thread. Raises PasswordsFailedError."""
    hasher = argon2.PasswordHasher(time_cost=cost.time_cost, memory_cost=cost.memory_kib, parallelism=cost.parallelism)
    try:
        return hasher.hash(_prepare(password))
    except HashingError as error:
        raise PasswordsFailedError(str(error)) from error


def _prepare(password: str) -> str:
    """Normalize a password, so that equal texts in different Unicode forms are the same password.

    As in RFC 8265, section 4.2 (OpaqueString), except that no character is forbidden.
    """
    if password.isascii():
        return password
    return unicodedata.normalize("NFC", _OTHER_SPACES.sub(" ", password))


def _count_processors() -> int:
    """Number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
