"""Password hashing in one thread per processor, outside all locks."""

from __future__ import annotations

import os
import re
import sys
import threading
import time
import unicodedata
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from enum import Enum
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

import argon2
from argon2.exceptions import HashingError, InvalidHashError, VerificationError, VerifyMismatchError
from msgspec import Struct

from chatserver.threads import Worker

if TYPE_CHECKING:
    from collections.abc import Callable

    _Result = TypeVar("_Result")

# Niceness of the hasher threads relative to the server's (the system stops at 19): logins must not slow down the chat.
# With 10, half of 500 simultaneous logins to a busy server on one processor took more than a minute.
_NICENESS_ADDED = 5


# Spaces except the ASCII space: the category Zs of Unicode, which has had no new member since 2016.
_OTHER_SPACES = re.compile("[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")


class Verdict(Enum):
    """The result of a check."""

    WRONG = "wrong"
    RIGHT = "right"
    OUTDATED = "right, but the hash has other parameters or another Unicode form and must be replaced"


class HashCost(Struct, frozen=True):
    """The parameters of argon2id."""

    time_cost: int
    memory_kib: int
    parallelism: int


class PasswordsClosedError(Exception):
    """The server is shutting down; no more passwords are checked."""


class PasswordsFailedError(Exception):
    """A password could not be hashed or checked: there is not enough memory."""


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
        new_hasher: Callable[..., argon2.PasswordHasher] = argon2.PasswordHasher,
    ) -> None:
        """``threads`` is one per processor by default. Raises PasswordsFailedError if there is no memory for a hash."""
        self._hasher = new_hasher(time_cost=cost.time_cost, memory_cost=cost.memory_kib, parallelism=cost.parallelism)
        # Hash for the check of unknown users, so that their check takes the same time.
        try:
            self._unknown_user_hash = self._hasher.hash("nobody")
        except HashingError as error:
            raise PasswordsFailedError(str(error)) from error
        # Tasks in order; None ends a worker.
        self._tasks: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._workers = [
            Worker(f"hasher {number}", self._run, on_crash, daemon=True)  # a hash can't be interrupted
            for number in range(1, (threads or _count_processors()) + 1)
        ]
        # Guards the closed flag, the order of tasks and end marks, and the tasks that wait or run.
        self._lock = threading.Lock()
        self._closed = False
        self._unfinished: set[Future[Any]] = set()

    def start(self) -> None:
        for worker in self._workers:
            worker.start()

    def stop(self, timeout_seconds: float) -> None:
        """Reject new and waiting tasks, then join the hasher threads.

        After the timeout, the tasks that still run are rejected, and those that wait behind them.
        """
        deadline = time.monotonic() + timeout_seconds
        with self._lock:
            self._closed = True
            for _ in self._workers:
                self._tasks.put(None)
        for worker in self._workers:
            worker.join(max(0.0, deadline - time.monotonic()))
        with self._lock:
            for outcome in self._unfinished:
                with suppress(InvalidStateError):  # it has just ended
                    outcome.set_exception(PasswordsClosedError())

    def hash(self, password: str) -> str:
        """Hash with a new salt. Blocks until a hasher is free. Raises PasswordsClosedError, PasswordsFailedError."""
        try:
            return self._run_in_hasher(lambda: self._hasher.hash(_prepare(password)))
        except HashingError as error:
            raise PasswordsFailedError(str(error)) from error

    def check(self, password_hash: str | None, password: str) -> Verdict:
        """Check a password. A hash of None, for an unknown user, takes the same time and gives WRONG."""
        try:
            form = self._run_in_hasher(lambda: self._matching_form(password_hash or self._unknown_user_hash, password))
        except VerificationError as error:
            raise PasswordsFailedError(str(error)) from error
        if password_hash is None or form is None:
            return Verdict.WRONG
        is_outdated = form != _prepare(password) or self._hasher.check_needs_rehash(password_hash)
        return Verdict.OUTDATED if is_outdated else Verdict.RIGHT

    def _matching_form(self, password_hash: str, password: str) -> str | None:
        """Return the form that matches: the prepared password or, as in earlier versions, the given one.

        The number of tries depends on the password only, so that it does not reveal whether the user exists.
        """
        for form in dict.fromkeys((_prepare(password), password)):
            with suppress(VerifyMismatchError, InvalidHashError):
                self._hasher.verify(password_hash, form)
                return form
        return None

    def _run_in_hasher(self, work: Callable[[], _Result]) -> _Result:
        outcome: Future[_Result] = Future()

        def task() -> None:
            with suppress(InvalidStateError):  # it took too long, and was rejected
                try:
                    # Read without the lock: it changes once, and a missed change lets one more task run per worker.
                    if self._closed:
                        outcome.set_exception(PasswordsClosedError())
                    else:
                        outcome.set_result(work())
                except Exception as error:
                    outcome.set_exception(error)
            with self._lock:
                self._unfinished.discard(outcome)

        with self._lock:
            if self._closed:
                raise PasswordsClosedError
            self._unfinished.add(outcome)
            self._tasks.put(task)
        return outcome.result()

    def _run(self) -> None:
        if sys.platform == "linux":  # elsewhere the priority applies to the whole process
            with suppress(OSError):
                os.nice(_NICENESS_ADDED)
        while task := self._tasks.get():
            task()


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
