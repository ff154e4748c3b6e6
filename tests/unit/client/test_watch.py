"""Watch: when a silent server gets a ping, and when it counts as lost. The clock is the test's."""

import math

import pytest

from chatclient.links.watch import ExpectedAnswer, Watch
from chatprotocol.events import AccountKind, Event, PasswordPrompt, Pong, Users

from .samples import HELLO
from .watches import PING, FakeSession

LIST = Users(None, ("alice",), (), ())
PROMPT = PasswordPrompt(account=AccountKind.NEW)


def watch(due: ExpectedAnswer = ExpectedAnswer.NOTHING, silence_seconds: float = 60.0) -> Watch:
    return Watch(FakeSession(due), silence_seconds, 0.0)


def test_silent_server_gets_one_ping_and_is_lost_without_an_answer() -> None:
    silent = watch()
    assert not silent.check(39.9)
    assert silent.check(40.0) == PING
    silent.note_ping(40.0)
    assert not silent.check(59.9)
    with pytest.raises(TimeoutError, match="was silent for 60 s"):
        silent.check(60.0)


@pytest.mark.parametrize("events", [[Pong()], [LIST], [HELLO], []], ids=["pong", "users", "message", "part of one"])
def test_any_byte_answers_a_ping(events: list[Event]) -> None:
    silent = watch()
    silent.note_ping(40.0)
    silent.note_received(events, 59.0)
    assert not silent.check(98.0)
    assert silent.check(99.0) == PING


def test_server_without_pings_may_be_silent() -> None:
    assert not Watch(FakeSession(ping=None), 60.0, 0.0).check(1_000_000.0)


# Limit of an answer or a login: the event that arrives at 50 s, and the time of the loss.
LIMITS: list[tuple[ExpectedAnswer, list[Event], float, str]] = [
    (ExpectedAnswer.ANSWER, [LIST], 60.0, "gave no answer for 60 s"),  # a server whose disk hangs sends these
    (ExpectedAnswer.ANSWER, [Pong()], 60.0, "gave no answer for 60 s"),
    (ExpectedAnswer.ANSWER, [LIST, HELLO], 110.0, "gave no answer for 60 s"),
    (ExpectedAnswer.ANSWER, [], 110.0, "gave no answer for 60 s"),  # part of a long answer
    (ExpectedAnswer.LOGIN, [PROMPT], 125.0, "does not answer the login"),  # each step has its own limit
    (ExpectedAnswer.LOGIN, [], 75.0, "does not answer the login"),
]


@pytest.mark.parametrize(("due", "events", "lost_at", "reason"), LIMITS)
def test_answer_or_login_has_a_limit_that_only_some_events_restart(
    due: ExpectedAnswer, events: list[Event], lost_at: float, reason: str
) -> None:
    waiting = watch(due)
    waiting.check(0.0)
    waiting.note_received(events, 50.0)
    assert not waiting.check(lost_at - 0.1)
    with pytest.raises(TimeoutError, match=reason):
        waiting.check(lost_at)


def test_server_that_says_nothing_is_left_soon_for_another_one() -> None:
    """Without another server, and after any byte, the login has its own limit."""
    waiting = Watch(FakeSession(ExpectedAnswer.LOGIN, has_other_server=True), 60.0, 0.0)
    assert waiting.next_check_at(0.0) <= 1.0
    assert not waiting.check(0.0)
    assert not waiting.check(4.9)
    with pytest.raises(TimeoutError, match=r"says nothing \(within 5 s\)"):
        waiting.check(5.0)
    waiting.note_received([Pong()], 5.0)
    assert not waiting.check(74.9)


def test_limit_begins_when_the_answer_becomes_due() -> None:
    session = FakeSession()
    waiting = Watch(session, 60.0, 0.0)
    waiting.note_received([HELLO], 500.0)
    session.expected_answer = ExpectedAnswer.ANSWER
    assert not waiting.check(530.0)
    assert not waiting.check(589.9)
    with pytest.raises(TimeoutError):
        waiting.check(590.0)


def test_short_unknown_states_do_not_extend_the_limit() -> None:
    session = FakeSession(ExpectedAnswer.ANSWER)
    waiting = Watch(session, 60.0, 0.0)
    for now in range(60):
        session.expected_answer = ExpectedAnswer.UNKNOWN if now % 2 else ExpectedAnswer.ANSWER
        waiting.check(float(now))
    session.expected_answer = ExpectedAnswer.ANSWER
    with pytest.raises(TimeoutError):
        waiting.check(60.0)


def test_limit_restarts_after_a_long_unknown_state() -> None:
    """The program did not read for a long time, and the answer may be among what it reads now."""
    session = FakeSession(ExpectedAnswer.ANSWER)
    waiting = Watch(session, 60.0, 0.0)
    waiting.check(0.0)
    session.expected_answer = ExpectedAnswer.UNKNOWN
    assert not waiting.check(1.0)
    assert not waiting.check(500.0)
    session.expected_answer = ExpectedAnswer.ANSWER
    assert not waiting.check(501.0)


def test_endless_limit_loses_no_server() -> None:
    for session in (FakeSession(ExpectedAnswer.ANSWER), FakeSession(ExpectedAnswer.LOGIN, has_other_server=True)):
        endless = Watch(session, math.inf, 0.0)
        endless.check(0.0)
        assert not endless.check(1e9)
    assert endless.next_check_at(1e9) < 1e9 + 100
