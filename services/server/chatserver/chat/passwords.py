"""Passwords: hashed and checked outside every lock, by as many threads as there are processors."""

from __future__ import annotations

import os
import re
import sys
import threading
import unicodedata
from concurrent.futures import Future
from contextlib import suppress
from enum import Enum
from queue import SimpleQueue
from typing import TYPE_CHECKING, TypeVar

import argon2
from argon2.exceptions import HashingError, InvalidHashError, VerificationError, VerifyMismatchError
from msgspec import Struct

from chatserver.threads import Worker

if TYPE_CHECKING:
    from collections.abc import Callable

    _Result = TypeVar("_Result")

# A hash is meant to cost much, and whoever is in the room must not feel that others come in: the threads that hash give
# way to the server's others by this much, whatever priority the server itself has (the system stops at 19). With 10,
# half of 500 who came at once to a busy server on one processor were not let in within a minute.
_NICENESS_ADDED = 5


# Spaces that are not the ASCII one: the category Zs of Unicode, which has had no new member since 2016.
_OTHER_SPACES = re.compile("[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")


class Verdict(Enum):
    """What a password is to a hash."""

    WRONG = "another one"
    RIGHT = "the one"
    OUTDATED = "the one, and to be hashed anew: the hash was made with other parameters, or of another Unicode form"


class HashCost(Struct, frozen=True):
    """What one argon2id hash costs."""

    time_cost: int
    memory_kib: int
    parallelism: int


class PasswordsClosedError(Exception):
    """The server is shutting down; no more passwords are checked."""


class PasswordsFailedError(Exception):
    """A password could not be hashed or checked: there is not enough memory."""


class Passwords:
    """Hashes new passwords and checks given ones. For any thread; the work is done by threads of its own.

    So no more is hashed at once than there are processors, at a low priority, and the thousands of readers' stacks stay
    small, for hashing needs more of a stack than all else that they do.
    """

    def __init__(self, cost: HashCost, on_crash: Callable[[str], None]) -> None:
        """Raises PasswordsFailedError if there is no memory for one hash."""
        self._hasher = argon2.PasswordHasher(
            time_cost=cost.time_cost, memory_cost=cost.memory_kib, parallelism=cost.parallelism
        )
        # What an unknown user's password is checked against, so that it takes as long as a known one's.
        try:
            self._no_session = self._hasher.hash("nobody")
        except HashingError as error:
            raise PasswordsFailedError(str(error)) from error
        # What is to be done, in order; None ends a worker.
        self._tasks: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._workers = [
            Worker(f"hasher {number}", self._run, on_crash) for number in range(1, _count_processors() + 1)
        ]
        # Guards what is said of the end.
        self._lock = threading.Lock()
        self._closed = False

    def start(self) -> None:
        """Start to work."""
        for worker in self._workers:
            worker.start()

    def stop(self) -> None:
        """Let nobody begin any more, refuse those who wait for their turn, and wait for the threads' end."""
        with self._lock:
            self._closed = True
            for _ in self._workers:
                self._tasks.put(None)
        for worker in self._workers:
            worker.join()

    def hash(self, password: str) -> str:
        """A hash with its own salt and parameters. Waits for its turn; raises PasswordsClosedError."""
        try:
            return self._do(lambda: self._hasher.hash(_prepare(password)))
        except HashingError as error:
            raise PasswordsFailedError(str(error)) from error

    def check(self, password_hash: str | None, password: str) -> Verdict:
        """Is it the password? None, for a user that is not known, takes the same time and is WRONG."""
        try:
            form = self._do(lambda: self._matching_form(password_hash or self._no_session, password))
        except VerificationError as error:
            raise PasswordsFailedError(str(error)) from error
        if password_hash is None or form is None:
            return Verdict.WRONG
        is_outdated = form != _prepare(password) or self._hasher.check_needs_rehash(password_hash)
        return Verdict.OUTDATED if is_outdated else Verdict.RIGHT

    def _matching_form(self, password_hash: str, password: str) -> str | None:
        """The prepared password, or the one that was given: earlier versions hashed that.

        How many are tried depends on the password alone, so that it does not show whether the user is known.
        """
        for form in dict.fromkeys((_prepare(password), password)):
            with suppress(VerifyMismatchError, InvalidHashError):
                self._hasher.verify(password_hash, form)
                return form
        return None

    def _do(self, work: Callable[[], _Result]) -> _Result:
        outcome: Future[_Result] = Future()

        def task() -> None:
            if self._closed:
                outcome.set_exception(PasswordsClosedError())
                return
            try:
                outcome.set_result(work())
            except Exception as error:
                outcome.set_exception(error)

        with self._lock:
            if self._closed:
                raise PasswordsClosedError
            self._tasks.put(task)
        return outcome.result()

    def _run(self) -> None:
        if sys.platform == "linux":  # elsewhere a priority is a whole process's
            with suppress(OSError):
                os.nice(_NICENESS_ADDED)
        while task := self._tasks.get():
            task()


def _prepare(password: str) -> str:
    """The form in which a password is hashed: the same text in another Unicode form is the same password.

    As in RFC 8265, section 4.2 (OpaqueString), except that no character is forbidden.
    """
    if password.isascii():
        return password
    return unicodedata.normalize("NFC", _OTHER_SPACES.sub(" ", password))


def _count_processors() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
