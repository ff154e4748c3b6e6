"""Passwords, at a cost that a test can pay."""

import os
import threading
from contextlib import suppress

import pytest
from argon2.exceptions import VerificationError
from hypothesis import given, settings
from hypothesis import strategies as st

from chatserver.session.passwords import HashCost, Passwords, PasswordsClosedError, PasswordsFailedError

from .rooms import Gate, eventually, in_background, must_end

CHEAP = HashCost(time_cost=1, memory_kib=8, parallelism=1)


@pytest.fixture
def passwords() -> Passwords:
    return Passwords(CHEAP)


def test_the_right_password_matches_and_another_does_not(passwords: Passwords) -> None:
    password_hash = passwords.hash("secret")

    assert passwords.matches(password_hash, "secret")
    assert not passwords.matches(password_hash, "Secret")
    assert not passwords.matches(password_hash, "")


@settings(max_examples=20)
@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=40))
def test_any_text_is_a_password(password: str) -> None:
    passwords = Passwords(CHEAP)

    assert passwords.matches(passwords.hash(password), password)


def test_a_hash_is_argon2id_with_a_salt_of_its_own_and_does_not_hold_the_password(passwords: Passwords) -> None:
    first, second = passwords.hash("secret"), passwords.hash("secret")

    assert first.startswith("$argon2id$v=19$m=8,t=1,p=1$")
    assert first != second
    assert "secret" not in first


def test_nobodys_password_is_checked_and_never_right(passwords: Passwords, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong password and an unknown user cost the same time: one check each."""
    checked: list[str] = []
    verify = passwords._hasher.verify

    def watched(password_hash: str, password: str) -> bool:
        checked.append(password_hash)
        return verify(password_hash, password)

    known = passwords.hash("secret")
    monkeypatch.setattr(type(passwords._hasher), "verify", lambda _, *given: watched(*given))

    assert not passwords.matches(known, "wrong")
    assert not passwords.matches(None, "wrong")
    assert not passwords.matches(None, "nobody")
    assert [password_hash.split("$")[3] for password_hash in checked] == ["m=8,t=1,p=1"] * 3


@pytest.mark.parametrize("damaged", ["", "x", "$argon2id$", "$2b$12$abc", "\0"])
def test_a_damaged_hash_matches_nothing(passwords: Passwords, damaged: str) -> None:
    with suppress(PasswordsFailedError):  # as good: nobody comes in
        assert not passwords.matches(damaged or "broken", "secret")


def test_a_hash_that_fails_for_want_of_memory_is_no_wrong_password(
    passwords: Passwords, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise VerificationError("Memory allocation error")

    monkeypatch.setattr(type(passwords._hasher), "verify", fail)
    with pytest.raises(PasswordsFailedError):
        passwords.matches(None, "secret")


@pytest.mark.parametrize(
    "other", [HashCost(2, 8, 1), HashCost(1, 16, 1), HashCost(1, 16, 2)], ids=["time", "memory", "lanes"]
)
def test_a_hash_is_outdated_when_the_cost_has_changed(passwords: Passwords, other: HashCost) -> None:
    old = Passwords(other).hash("secret")

    assert passwords.is_outdated(old)
    assert passwords.matches(old, "secret")
    assert not passwords.is_outdated(passwords.hash("secret"))


def test_no_more_hash_at_once_than_there_are_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    passwords = Passwords(CHEAP)
    gate = Gate()
    running: list[int] = []
    most: list[int] = []
    lock = threading.Lock()

    def slow_hash(_: str) -> str:
        with lock:
            running.append(1)
            most.append(len(running))
        gate.pass_through()
        with lock:
            running.pop()
        return "hash"

    monkeypatch.setattr(passwords, "_hasher", type("Hasher", (), {"hash": staticmethod(slow_hash)}))
    threads = [in_background(lambda: passwords.hash("secret")) for _ in range(6)]
    eventually(lambda: len(passwords._turn._waiters) == 4)  # type: ignore[attr-defined]
    gate.open()
    for thread in threads:
        must_end(thread)

    assert len(most) == 6
    assert max(most) == 2


def test_a_hash_that_fails_gives_its_turn_back(passwords: Passwords) -> None:
    for _ in range(2 * (os.cpu_count() or 1)):
        with pytest.raises(UnicodeEncodeError):
            passwords.hash("\ud800")

    assert passwords.hash("secret")


def test_closing_frees_whoever_waits_and_lets_nobody_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: shutdown. Every thread is joined."""
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    passwords = Passwords(CHEAP)
    outcomes: list[str] = []

    def check() -> None:
        try:
            passwords.matches(None, "secret")
        except PasswordsClosedError:
            outcomes.append("closed")

    with passwords._processor():
        waiters = [in_background(check) for _ in range(3)]
        eventually(lambda: len(passwords._turn._waiters) == 3)  # type: ignore[attr-defined]
        passwords.close()
        for waiter in waiters:
            must_end(waiter)

    assert outcomes == ["closed"] * 3
    with pytest.raises(PasswordsClosedError):
        passwords.hash("secret")
