"""Passwords, with hashes that a test can pay for."""

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import pytest
from argon2 import PasswordHasher
from argon2.exceptions import VerificationError
from hypothesis import given
from hypothesis import strategies as st

from chatserver.chat.passwords import (
    AbandonedError,
    HashCost,
    Passwords,
    PasswordsBusyError,
    PasswordsClosedError,
    PasswordsFailedError,
    Urgency,
    Verdict,
    never_abandoned,
)

from .helpers import DEADLINE_SECONDS, Gate, assert_waits, eventually, in_background, must_end

CHEAP = HashCost(time_cost=1, memory_kib=8, parallelism=1)


@contextmanager
def started(cost: HashCost = CHEAP, **options: Any) -> Iterator[Passwords]:
    crashes: list[str] = []
    passwords = Passwords(cost, crashes.append, **options)
    passwords.start()
    yield passwords
    passwords.stop(DEADLINE_SECONDS)
    assert crashes == []


@pytest.fixture(scope="module")
def passwords() -> Iterator[Passwords]:
    with started() as passwords:
        yield passwords


class Hasher(PasswordHasher):
    """Notes the hashes that it verifies, and may be stopped or fail."""

    def __init__(self, **cost: int) -> None:
        super().__init__(**cost)
        self.verified: list[str] = []
        self.gate: Gate | None = None
        self.running = 0
        # The number of running ones at the start of each.
        self.counts: list[int] = []
        self.fault: Exception | None = None

    def verify(self, hash: str | bytes, password: str | bytes) -> Any:  # noqa: A002
        if self.fault:
            raise self.fault
        self.verified.append(str(hash))
        self.running += 1
        self.counts.append(self.running)
        if self.gate:
            self.gate.pass_through()
        self.running -= 1
        return super().verify(hash, password)

    @property
    def named(self) -> list[str]:
        """The words that the tests check instead of hashes; a check with a real hash follows each."""
        return [word for word in self.verified if not word.startswith("$")]


@contextmanager
def started_with_hasher(threads: int = 1, **options: Any) -> Iterator[tuple[Passwords, Hasher]]:
    hashers: list[Hasher] = []

    def new(**cost: int) -> Hasher:
        hashers.append(Hasher(**cost))
        return hashers[-1]

    with started(threads=threads, new_hasher=new, **options) as passwords:
        yield passwords, hashers[0]


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=40))
def test_any_text_is_a_password_and_no_other_text_matches(passwords: Passwords, password: str) -> None:
    password_hash = passwords.hash(password)
    assert passwords.check(password_hash, password) is Verdict.RIGHT
    assert passwords.check(password_hash, password + "x") is Verdict.WRONG
    assert passwords.check(password_hash, "") is Verdict.WRONG


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("caf\u00e9 \u1e69", "cafe\u0301 s\u0307\u0323"),
        ("\ud55c\uae00", "\u1112\u1161\u11ab\u1100\u1173\u11af"),
        ("two words", "two\u00a0words"),
        ("two words", "two\u3000words"),
    ],
)
def test_unicode_forms_of_one_text_are_one_password(passwords: Passwords, one: str, other: str) -> None:
    assert passwords.check(passwords.hash(one), other) is Verdict.RIGHT
    assert passwords.check(passwords.hash(other), one) is Verdict.RIGHT


@pytest.mark.parametrize("other", ["CAF\u00c9", "cafe", "caf\u00e9 ", "\uff43af\u00e9"])
def test_case_accents_spaces_and_width_count(passwords: Passwords, other: str) -> None:
    assert passwords.check(passwords.hash("caf\u00e9"), other) is Verdict.WRONG


def test_unnormalized_hash_of_earlier_versions_is_outdated(passwords: Passwords) -> None:
    old = PasswordHasher(CHEAP.time_cost, CHEAP.memory_kib, CHEAP.parallelism).hash("cafe\u0301")
    assert passwords.check(old, "cafe\u0301") is Verdict.OUTDATED
    assert passwords.check(old, "caffe\u0301") is Verdict.WRONG


@pytest.mark.parametrize("other", [HashCost(2, 8, 1), HashCost(1, 16, 1), HashCost(1, 16, 2)])
def test_hash_with_another_cost_is_outdated(passwords: Passwords, other: HashCost) -> None:
    with started(other) as others:
        old = others.hash("secret")
    assert passwords.check(old, "secret") is Verdict.OUTDATED
    assert passwords.check(passwords.hash("secret"), "secret") is Verdict.RIGHT


def test_hash_is_salted_argon2id(passwords: Passwords) -> None:
    first, second = passwords.hash("secret"), passwords.hash("secret")
    assert first.startswith("$argon2id$v=19$m=8,t=1,p=1$")
    assert first != second
    assert "secret" not in first


def test_unknown_user_costs_as_many_checks_as_a_known_one() -> None:
    """Otherwise the time of a login would tell which users exist. Some hashes are older than the settings."""
    older = PasswordHasher(time_cost=2, memory_cost=16, parallelism=1).hash("secret")
    stored_costs = [older.rsplit("$", 2)[0]]
    with started_with_hasher(stored_costs=stored_costs) as (passwords, hasher):
        known = passwords.hash("secret")
        for wrong in ("wrong", "wro\u0301ng"):
            costs = []
            for password_hash in (known, older, None):
                hasher.verified.clear()
                assert passwords.check(password_hash, wrong) is Verdict.WRONG
                costs.append(sorted(verified.split("$")[3] for verified in hasher.verified))
            assert costs[0] == costs[1] == costs[2]
        assert passwords.check(None, "nobody") is Verdict.WRONG
        assert passwords.check(older, "secret") is Verdict.OUTDATED


def test_damaged_hash_matches_nothing(passwords: Passwords) -> None:
    for damaged in ("x", "$argon2id$", "$2b$12$abc", "\0"):
        with suppress(PasswordsFailedError):
            assert passwords.check(damaged, "secret") is Verdict.WRONG


def test_lack_of_memory_is_no_wrong_password_and_frees_the_thread() -> None:
    with started_with_hasher() as (passwords, hasher):
        hasher.fault = VerificationError("Memory allocation error")
        with pytest.raises(PasswordsFailedError):
            passwords.check(None, "secret")
        with pytest.raises(UnicodeEncodeError):
            passwords.hash("\ud800")
        assert passwords.hash("secret")


def test_concurrent_hashes_are_limited_to_the_threads() -> None:
    """There is one thread per processor."""
    with started_with_hasher(threads=2) as (passwords, hasher):
        hasher.gate = Gate()
        threads = [in_background(lambda: passwords.check(None, "secret")) for _ in range(6)]
        eventually(lambda: hasher.running == 2)
        assert_waits(threads[0])
        hasher.gate.open()
        for thread in threads:
            must_end(thread)
    assert len(hasher.verified) == 6
    assert max(hasher.counts) == 2
    before = set(threading.enumerate())
    with started():
        assert len(set(threading.enumerate()) - before) == len(os.sched_getaffinity(0))


def test_stop_refuses_waiting_and_new_tasks() -> None:
    """Promise: shutdown. Every thread is joined."""
    outcomes: list[str] = []

    def check() -> None:
        try:
            passwords.check(None, "secret")
            outcomes.append("checked")
        except PasswordsClosedError:
            outcomes.append("closed")

    with started_with_hasher() as (passwords, hasher):
        hasher.gate = gate = Gate()
        threads = [in_background(check)]
        gate.await_thread()
        threads += [in_background(check) for _ in range(3)]
        for thread in threads:
            assert_waits(thread)
        threads.append(in_background(lambda: passwords.stop(DEADLINE_SECONDS)))
        eventually(lambda: "closed" in outcomes)
        with pytest.raises(PasswordsClosedError):
            passwords.hash("secret")
        gate.open()
        for thread in threads:
            must_end(thread)
    assert outcomes.count("checked") == 1
    with pytest.raises(PasswordsClosedError):
        passwords.hash("secret")


def test_stop_refuses_a_hash_that_takes_too_long() -> None:
    """Promise: shutdown. A hash can't be interrupted, and may take minutes. The next one does not wait for it."""
    with started_with_hasher() as (passwords, hasher):
        hasher.gate = gate = Gate()
        check = partial(pytest.raises, PasswordsClosedError, passwords.check, None, "secret")
        running = in_background(check)
        gate.await_thread()
        waiting = in_background(check)
        assert_waits(waiting)
        passwords.stop(0)
        for thread in (running, waiting):
            thread.join(DEADLINE_SECONDS / 2)  # the gate gives up after DEADLINE_SECONDS
            assert not thread.is_alive()
        gate.open()


@pytest.mark.skipif(sys.platform != "linux", reason="a thread has a priority of its own on Linux only")
@pytest.mark.parametrize("added", [0, 3])
def test_hasher_threads_have_a_low_priority(added: int) -> None:
    """Logins do not slow down the chat, whatever priority the server has."""
    seen: list[bool] = []

    def niceness_of(thread: threading.Thread) -> int:
        assert thread.native_id is not None
        return os.getpriority(os.PRIO_PROCESS, thread.native_id)

    def start_here() -> None:
        before = set(threading.enumerate())
        expected = min(os.nice(added) + 5, 19)
        with started():
            hashers = {each for each in set(threading.enumerate()) - before if each.name.startswith("hasher")}
            eventually(lambda: {niceness_of(hasher) for hasher in hashers} == {expected})
            seen.append(bool(hashers))

    must_end(in_background(start_here))  # a changed priority ends with its thread
    assert seen == [True]


def test_urgent_tasks_are_next_and_abandoned_ones_are_dropped() -> None:
    """2,000 registrations that hang up at once delay no login, and are not hashed."""
    done: list[str] = []
    waited: list[float] = []

    def check(name: str, urgency: Urgency, is_abandoned: Callable[[float], bool] = never_abandoned) -> None:
        try:
            passwords.check(name, "secret", urgency, is_abandoned)
        except AbandonedError:
            done.append(f"{name} dropped")
        else:
            done.append(name)

    def hung_up(seconds: float) -> bool:
        waited.append(seconds)
        return True

    now = 100.0
    with started_with_hasher(clock=lambda: now) as (passwords, hasher):
        hasher.gate = gate = Gate()
        threads = [in_background(lambda: check("first", Urgency.LOGIN))]
        gate.await_thread()
        for number, (name, urgency, is_abandoned) in enumerate(
            [
                ("gone", Urgency.REGISTRATION, hung_up),
                ("new", Urgency.REGISTRATION, never_abandoned),
                ("stranger", Urgency.LOGIN, never_abandoned),
                ("owner", Urgency.KNOWN, never_abandoned),
                ("gone owner", Urgency.KNOWN, hung_up),
            ],
            1,
        ):
            threads.append(in_background(partial(check, name, urgency, is_abandoned)))
            eventually(lambda number=number: passwords.waiting == number)
        now = 107.0
        gate.open()
        for thread in threads:
            must_end(thread)
    assert hasher.named == ["first", "owner", "stranger", "new"]
    assert {each for each in done if each.endswith("dropped")} == {"gone dropped", "gone owner dropped"}
    assert waited == [7.0, 7.0]


def test_known_users_who_log_in_all_the_time_keep_no_others_out() -> None:
    """A login from a new place and a registration are among the next four. Known users have half of the time."""
    with started_with_hasher() as (passwords, hasher):
        hasher.gate = gate = Gate()
        threads = [in_background(lambda: passwords.check("first", "secret"))]
        gate.await_thread()
        tasks = [*(("known", Urgency.KNOWN) for _ in range(6)), ("login", Urgency.LOGIN), ("new", Urgency.REGISTRATION)]
        for number, (name, urgency) in enumerate(tasks, 1):
            threads.append(in_background(partial(passwords.check, name, "secret", urgency)))
            eventually(lambda number=number: passwords.waiting == number)
        gate.open()
        for thread in threads:
            must_end(thread)
    assert hasher.named == ["first", "known", "login", "new", *["known"] * 5]


def test_accounts_take_turns() -> None:
    """A user waits for one login of each other account at most."""
    with started_with_hasher() as (passwords, hasher):
        hasher.gate = gate = Gate()
        threads = [in_background(lambda: passwords.check("first", "secret"))]
        gate.await_thread()
        for number, account in enumerate("mmmnmna", 1):
            threads.append(in_background(partial(passwords.check, f"{account}{number}", "secret", account=account)))
            eventually(lambda number=number: passwords.waiting == number)
        gate.open()
        for thread in threads:
            must_end(thread)
        assert passwords.waiting == 0
    assert hasher.named == ["first", "m1", "n4", "a7", "m2", "n6", "m3", "m5"]


def test_waiting_tasks_are_limited_except_those_of_known_users() -> None:
    with started_with_hasher(waiting_max=2) as (passwords, hasher):
        hasher.gate = gate = Gate()
        threads = [in_background(lambda: passwords.check(None, "secret", Urgency.LOGIN))]
        gate.await_thread()
        for number in (1, 2):
            threads.append(in_background(lambda: passwords.check(None, "secret", Urgency.LOGIN)))
            eventually(lambda number=number: passwords.waiting == number)
        for urgency in (Urgency.LOGIN, Urgency.REGISTRATION):
            with pytest.raises(PasswordsBusyError):
                passwords.hash("secret", urgency)
        threads.append(in_background(lambda: passwords.check(None, "secret", Urgency.KNOWN)))
        eventually(lambda: passwords.waiting == 3)
        gate.open()
        for thread in threads:
            must_end(thread)
