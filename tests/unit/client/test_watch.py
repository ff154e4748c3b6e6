"""When a silent server is asked for a sign of life, and when it is lost. The clock is the test's."""

import math

import pytest

from chatclient.links.watch import Due, Watch
from chatprotocol.events import AccountKind, PasswordPrompt, Pong, PublicMessage, Users
from chatprotocol.requests import Ping

from .debts import Debts

HELLO = PublicMessage(11, 0, "bob", "hello")
LIST = Users(1, ("alice",), (), ())
PROMPT = PasswordPrompt(AccountKind.NEW)


def watch(due: Due = Due.NOTHING) -> Watch:
    return Watch(Debts(due), 60.0, 0.0)


def test_after_silence_a_ping_is_sent_once_and_without_an_answer_the_server_is_lost() -> None:
    silent = watch()

    assert not silent.check(39.9)
    assert silent.check(40.0) == Ping()
    silent.pinged(40.0)
    assert not silent.check(59.9)
    with pytest.raises(TimeoutError, match="was silent for 60 s"):
        silent.check(60.0)


@pytest.mark.parametrize("events", [[Pong()], [LIST], [HELLO], []], ids=["pong", "users", "message", "part of one"])
def test_any_byte_is_a_sign_of_life(events: list[Pong | Users | PublicMessage]) -> None:
    silent = watch()
    silent.pinged(40.0)

    silent.heard(events, 59.0)

    assert not silent.check(98.0)
    assert silent.check(99.0) == Ping()


def test_a_server_that_cannot_be_pinged_may_be_silent() -> None:
    silent = Watch(Debts(ping=None), 60.0, 0.0)

    assert not silent.check(1_000_000.0)


@pytest.mark.parametrize("event", [LIST, Pong()], ids=["users", "pong"])
def test_what_a_server_sends_whose_disk_hangs_is_no_answer(event: Users | Pong) -> None:
    waiting = watch(Due.ANSWER)
    assert not waiting.check(10.0)

    waiting.heard([event], 65.0)

    assert not waiting.check(69.9)
    with pytest.raises(TimeoutError, match="gave no answer for 60 s"):
        waiting.check(70.0)


@pytest.mark.parametrize("events", [[LIST, HELLO], []], ids=["message", "part of one"])
def test_an_answer_has_its_time_from_the_last_thing_that_came(events: list[Users | PublicMessage]) -> None:
    waiting = watch(Due.ANSWER)
    waiting.check(0.0)

    waiting.heard(events, 50.0)

    assert not waiting.check(109.9)
    with pytest.raises(TimeoutError):
        waiting.check(110.0)


def test_the_time_of_an_answer_does_not_begin_before_it_is_due() -> None:
    debts = Debts()
    waiting = Watch(debts, 60.0, 0.0)
    waiting.heard([HELLO], 500.0)

    debts.due = Due.ANSWER

    assert not waiting.check(530.0)
    assert not waiting.check(589.9)
    with pytest.raises(TimeoutError):
        waiting.check(590.0)


def test_short_times_in_which_nobody_knows_what_is_due_are_no_excuse() -> None:
    debts = Debts(Due.ANSWER)
    waiting = Watch(debts, 60.0, 0.0)
    for now in range(60):
        debts.due = Due.UNKNOWN if now % 2 else Due.ANSWER
        waiting.check(float(now))
    debts.due = Due.ANSWER
    with pytest.raises(TimeoutError):
        waiting.check(60.0)


def test_a_program_that_did_something_else_may_still_find_the_answer() -> None:
    debts = Debts(Due.ANSWER)
    waiting = Watch(debts, 60.0, 0.0)
    waiting.check(0.0)
    debts.due = Due.UNKNOWN
    assert not waiting.check(1.0)
    assert not waiting.check(500.0)
    debts.due = Due.ANSWER
    assert not waiting.check(501.0)


def test_a_part_of_an_answer_answers_no_login() -> None:
    waiting = watch(Due.LOGIN)
    waiting.check(0.0)

    waiting.heard([], 70.0)

    assert not waiting.check(74.9)
    with pytest.raises(TimeoutError, match="does not answer the login"):
        waiting.check(75.0)


def test_each_step_of_a_login_has_its_time() -> None:
    waiting = watch(Due.LOGIN)
    waiting.check(0.0)

    waiting.heard([PROMPT], 70.0)

    assert not waiting.check(144.0)
    with pytest.raises(TimeoutError):
        waiting.check(145.0)


def test_nobody_is_given_up_where_that_is_wanted() -> None:
    endless = Watch(Debts(Due.ANSWER), math.inf, 0.0)

    assert not endless.check(1e9)
    assert endless.look_at(1e9) < 1e9 + 100
