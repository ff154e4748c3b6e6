"""Passwords, at a cost that a test can pay."""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from argon2 import PasswordHasher
from argon2.exceptions import VerificationError
from hypothesis import given, settings
from hypothesis import strategies as st

from chatserver.chat.passwords import HashCost, Passwords, PasswordsClosedError, PasswordsFailedError, Verdict

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

    assert passwords.check(password_hash, "secret") is Verdict.RIGHT
    assert passwords.check(password_hash, "Secret") is Verdict.WRONG
    assert passwords.check(password_hash, "") is Verdict.WRONG


@settings(max_examples=20)
@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=40))
def test_any_text_is_a_password(password: str) -> None:
    with working() as passwords:
        assert passwords.check(passwords.hash(password), password) is Verdict.RIGHT


@pytest.mark.parametrize(
    ("registered", "given"),
    [
        ("caf\u00e9 \u1e69", "cafe\u0301 s\u0307\u0323"),
        ("\ud55c\uae00", "\u1112\u1161\u11ab\u1100\u1173\u11af"),
        ("two words", "two\u00a0words"),
        ("two words", "two\u3000words"),
    ],
    ids=["accents", "Hangul", "no-break space", "ideographic space"],
)
def test_the_same_text_in_another_unicode_form_is_the_same_password(
    passwords: Passwords, registered: str, given: str
) -> None:
    for one, other in ((registered, given), (given, registered)):
        assert passwords.check(passwords.hash(one), other) is Verdict.RIGHT


@pytest.mark.parametrize("other", ["CAF\u00c9", "cafe", "caf\u00e9 ", "\uff43af\u00e9"])
def test_case_accents_spaces_and_width_still_count(passwords: Passwords, other: str) -> None:
    assert passwords.check(passwords.hash("caf\u00e9"), other) is Verdict.WRONG


def test_a_password_that_was_hashed_as_it_was_given_still_works_and_is_hashed_anew(passwords: Passwords) -> None:
    """Earlier versions did that."""
    old = PasswordHasher(CHEAP.time_cost, CHEAP.memory_kib, CHEAP.parallelism).hash("cafe\u0301")

    assert passwords.check(old, "cafe\u0301") is Verdict.OUTDATED
    assert passwords.check(old, "caffe\u0301") is Verdict.WRONG


def test_a_hash_is_argon2id_with_a_salt_of_its_own_and_does_not_hold_the_password(passwords: Passwords) -> None:
    first, second = passwords.hash("secret"), passwords.hash("secret")

    assert first.startswith("$argon2id$v=19$m=8,t=1,p=1$")
    assert first != second
    assert "secret" not in first


def test_nobodys_password_is_checked_and_never_right(passwords: Passwords, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong password and an unknown user cost the same time: as many checks."""
    checked: list[str] = []
    verify = passwords._hasher.verify

    def watched(password_hash: str, password: str) -> bool:
        checked.append(password_hash)
        return verify(password_hash, password)

    known = passwords.hash("secret")
    monkeypatch.setattr(type(passwords._hasher), "verify", lambda _, *given: watched(*given))

    for wrong in ("wrong", "wro\u0301ng"):
        checked.clear()
        assert passwords.check(known, wrong) is Verdict.WRONG
        forms = len(checked)
        assert passwords.check(None, wrong) is Verdict.WRONG
        assert [password_hash.split("$")[3] for password_hash in checked] == ["m=8,t=1,p=1"] * 2 * forms
    assert passwords.check(None, "nobody") is Verdict.WRONG


@pytest.mark.parametrize("damaged", ["", "x", "$argon2id$", "$2b$12$abc", "\0"])
def test_a_damaged_hash_matches_nothing(passwords: Passwords, damaged: str) -> None:
    with suppress(PasswordsFailedError):  # as good: nobody comes in
        assert passwords.check(damaged or "broken", "secret") is Verdict.WRONG


def test_a_hash_that_fails_for_want_of_memory_is_no_wrong_password(
    passwords: Passwords, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise VerificationError("Memory allocation error")

    monkeypatch.setattr(type(passwords._hasher), "verify", fail)
    with pytest.raises(PasswordsFailedError):
        passwords.check(None, "secret")


@pytest.mark.parametrize(
    "other", [HashCost(2, 8, 1), HashCost(1, 16, 1), HashCost(1, 16, 2)], ids=["time", "memory", "lanes"]
)
def test_a_hash_is_outdated_when_the_cost_has_changed(passwords: Passwords, other: HashCost) -> None:
    with working(other) as others:
        old = others.hash("secret")

    assert passwords.check(old, "secret") is Verdict.OUTDATED
    assert passwords.check(passwords.hash("secret"), "secret") is Verdict.RIGHT


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
            passwords.check(None, "secret")
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
