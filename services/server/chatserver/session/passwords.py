"""Passwords: hashed and checked outside every lock, by no more threads at once than there are processors."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import argon2
from argon2.exceptions import HashingError, InvalidHashError, VerificationError, VerifyMismatchError
from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterator


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
    """Hashes new passwords and checks given ones. For any thread."""

    def __init__(self, cost: HashCost) -> None:
        self._hasher = argon2.PasswordHasher(
            time_cost=cost.time_cost, memory_cost=cost.memory_kib, parallelism=cost.parallelism
        )
        # What an unknown user's password is checked against, so that it takes as long as a known one's.
        self._nobody = self._hasher.hash("nobody")
        # Guards the two below; notified when a processor is free, and at the end.
        self._turn = threading.Condition()
        self._free = os.cpu_count() or 1
        self._closed = False

    def close(self) -> None:
        """Let nobody begin any more."""
        with self._turn:
            self._closed = True
            self._turn.notify_all()

    def hash(self, password: str) -> str:
        """A hash with its own salt and parameters. May wait for its turn; raises PasswordsClosedError."""
        with self._processor():
            try:
                return self._hasher.hash(password)
            except HashingError as error:
                raise PasswordsFailedError(str(error)) from error

    def matches(self, password_hash: str | None, password: str) -> bool:
        """Is it the password? None, for a user that is not known, takes the same time and is False."""
        with self._processor():
            try:
                self._hasher.verify(password_hash or self._nobody, password)
            except (VerifyMismatchError, InvalidHashError):
                return False
            except VerificationError as error:
                raise PasswordsFailedError(str(error)) from error
        return password_hash is not None

    def is_outdated(self, password_hash: str) -> bool:
        """Was it made with other parameters than today's?"""
        return self._hasher.check_needs_rehash(password_hash)

    @contextmanager
    def _processor(self) -> Iterator[None]:
        with self._turn:
            self._turn.wait_for(lambda: self._free or self._closed)
            if self._closed:
                raise PasswordsClosedError
            self._free -= 1
        try:
            yield
        finally:
            with self._turn:
                self._free += 1
                self._turn.notify()
