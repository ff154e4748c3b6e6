"""Passwords, at a cost that a test can pay."""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from argon2.exceptions import VerificationError
from hypothesis import given, settings
from hypothesis import strategies as st

from chatserver.session.passwords import HashCost, Passwords, PasswordsClosedError, PasswordsFailedError

from .rooms import Gate, eventually, in_background, must_end

CHEAP = HashCost(time_cost=1, memory_kib=8, parallelism=1)


@contextmanager
def working(cost: HashCost = CHEAP) -> Iterator[Passwords]:
    crashes: list[str] = []
    passwords = Passwords(cost, crashes.append)
    passwords.start()
    yield passwords
    passwords.stop()
    assert crashes == []


@pytest.fixture
def passwords() -> Iterator[Passwords]:
    with working() as passwords:
        yield passwords


def test_the_right_password_matches_and_another_does_not(passwords: Passwords) -> None:
    password_hash = passwords.hash("secret")

    assert passwords.matches(password_hash, "secret")
    assert not passwords.matches(password_hash, "Secret")
    assert not passwords.matches(password_hash, "")


@settings(max_examples=20)
@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=40))
def test_any_text_is_a_password(password: str) -> None:
    with working() as passwords:
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
    with working(other) as others:
        old = others.hash("secret")

    assert passwords.is_outdated(old)
    assert passwords.matches(old, "secret")
    assert not passwords.is_outdated(passwords.hash("secret"))


def test_no_more_hash_at_once_than_there_are_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3})
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

    with working() as passwords:
        monkeypatch.setattr(passwords, "_hasher", type("Hasher", (), {"hash": staticmethod(slow_hash)}))
        threads = [in_background(lambda: passwords.hash("secret")) for _ in range(6)]
        eventually(lambda: passwords._tasks.qsize() == 4)
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
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    passwords = Passwords(CHEAP, lambda _: None)
    outcomes: list[str] = []
    gate = Gate()

    def check() -> None:
        try:
            passwords.matches(None, "secret")
            outcomes.append("checked")
        except PasswordsClosedError:
            outcomes.append("closed")

    monkeypatch.setattr(passwords, "_hasher", type("Hasher", (), {"verify": lambda *_: gate.pass_through()}))
    passwords.start()
    one = in_background(check)
    gate.await_thread()
    others = [in_background(check) for _ in range(3)]
    eventually(lambda: passwords._tasks.qsize() == 3)
    end = in_background(passwords.stop)
    eventually(lambda: passwords._closed)
    gate.open()
    for thread in (one, *others, end):
        must_end(thread)

    assert outcomes.count("checked") == 1
    outcomes.remove("checked")
    assert outcomes == ["closed"] * 3
    with pytest.raises(PasswordsClosedError):
        passwords.hash("secret")


@pytest.mark.skipif(sys.platform != "linux", reason="a thread has a priority of its own on Linux only")
@pytest.mark.parametrize("added", [0, 3], ids=["usual", "a server of low priority"])
def test_hashing_gives_way_to_everything_else(added: int) -> None:
    """Those who are in do not feel that others come in, whatever priority the server has."""
    seen: list[bool] = []

    def niceness_of(thread: threading.Thread) -> int:
        assert thread.native_id is not None
        return os.getpriority(os.PRIO_PROCESS, thread.native_id)

    def start_a_server_here() -> None:
        before = set(threading.enumerate())
        expected = min(os.nice(added) + 5, 19)
        with working():
            hashers = set(threading.enumerate()) - before
            eventually(lambda: {niceness_of(hasher) for hasher in hashers} == {expected})
            seen.append(True)

    must_end(in_background(start_a_server_here))  # what it does to its own priority ends with it

    assert seen == [True]
