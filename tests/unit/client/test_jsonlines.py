"""JSON lines: one object for each event or notice. It decodes to the same texts and acts on no terminal."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatclient import notices
from chatclient.ui.jsonlines import lines
from chatclient.ui.text import escape_control_characters
from chatprotocol import events
from chatprotocol.errors import ErrorCode
from chatprotocol.events import AccountKind, SentStatus
from chatprotocol.requests import Say, Whisper
from chatprotocol.wire.base import DeliveryUnknown, Forwarded, Online, Outcome, PossibleGap

from .samples import STEPS, Shown, direct, everything_with, public
from .test_text import SENDABLE_ATTACKS

TIME = "2026-01-31T12:00:00.123Z"
HELLO = public(18, "Gr\u00fc\u00dfe \u65e5\u672c")
PSST = direct(19)
HELLOS = f'{{"type":"broadcast","id":18,"time":"{TIME}","from":"bob","message":"Gr\u00fc\u00dfe \u65e5\u672c"}}'
PSSTS = f'{{"type":"direct","id":19,"time":"{TIME}","from":"bob","to":"alice","message":"psst"}}'

# Events of the protocol json have its form; the others are the client's own.
OBJECTS: list[tuple[Shown, str]] = [
    (HELLO, HELLOS),
    (PSST, PSSTS),
    (events.Sent(18, SentStatus.SENT, "n1"), '{"type":"sent","id":18,"status":"sent","nonce":"n1"}'),
    (
        events.Welcome(account=AccountKind.NEW, username="alice", users=("alice", "bob"), last_id=17),
        '{"type":"login","status":"ok","account":"new","username":"alice","users":["alice","bob"],"last_id":17}',
    ),
    (events.Users(2, None, ("bob",), ("eve",)), '{"type":"users","count":2,"joined":["bob"],"left":["eve"]}'),
    (Online(("alice", "bob")), '{"type":"users","users":["alice","bob"],"joined":[],"left":[]}'),
    (events.History((HELLO, PSST)), f'{{"type":"history","messages":[{HELLOS},{PSSTS}]}}'),
    (events.Found("hi", (HELLO,), 19), f'{{"type":"found","words":"hi","messages":[{HELLOS}],"upto":19}}'),
    (
        events.Refused(ErrorCode.INTERNAL, "No.", "n1"),
        '{"type":"error","code":"internal","message":"No.","nonce":"n1"}',
    ),
    (
        events.PublicMessage(18, HELLO.time_ms, "bob", "x", "dev"),
        f'{{"type":"broadcast","id":18,"time":"{TIME}","from":"bob","message":"x","room":"dev"}}',
    ),
    (Online(("bob",), "dev"), '{"type":"users","users":["bob"],"joined":[],"left":[],"room":"dev"}'),
    (events.Parted("dev", "bob"), '{"type":"parted","room":"dev","by":"bob"}'),
    (events.Deleted(18, "bob", "dev"), '{"type":"deleted","id":18,"by":"bob","room":"dev"}'),
    (
        events.Banned(username="eve", by="bob", until=HELLO.time_ms, reason="spam"),
        f'{{"type":"banned","username":"eve","by":"bob","until":"{TIME}","reason":"spam"}}',
    ),
    (notices.CurrentRoom("dev", "tea"), '{"type":"room","room":"dev","topic":"tea"}'),
    (notices.CurrentRoom(""), '{"type":"room","room":"lobby","topic":""}'),
    (events.Bye("you left"), '{"type":"bye","reason":"you left"}'),
    (events.PasswordPrompt(account=AccountKind.NEW), '{"type":"prompt","field":"password","account":"new"}'),
    (events.Pong(), '{"type":"pong"}'),
    (Forwarded("bob", "hello"), '{"type":"message","from":"bob","message":"hello"}'),
    (PossibleGap(has_history=False), '{"type":"gap"}'),
    (DeliveryUnknown(Say("x", "n1")), '{"type":"unsettled","to":"ALL","message":"x"}'),
    (DeliveryUnknown(Whisper("bob", "x", "n1")), '{"type":"unsettled","to":"bob","message":"x"}'),
    (Outcome(Say("x"), has_come=True), '{"type":"outcome","to":"ALL","message":"x","delivered":true}'),
    (notices.Ask(notices.ASK_RECIPIENT), '{"type":"ask","question":"recipient"}'),
    (notices.ErrorNotice("usage", "No."), '{"type":"error","code":"usage","message":"No."}'),
    (notices.Help(("PM", "DM")), '{"type":"help","lines":["PM","DM"]}'),
    (notices.ConnectionLost("reset"), '{"type":"lost","reason":"reset"}'),
    (notices.Reconnected("alice", 20), '{"type":"back","username":"alice"}'),
    (
        notices.Reconnected("alice", 20, "b:1", "a:1"),
        '{"type":"back","username":"alice","server":"b:1","gone":"a:1"}',
    ),
    (notices.ScriptLine("PM x"), '{"type":"typed","line":"PM x"}'),
]


@pytest.mark.parametrize(("shown", "expected"), OBJECTS)
def test_event_is_one_object_in_its_documented_form(shown: Shown, expected: str) -> None:
    """Characters that do not act on a terminal are not escaped."""
    (line,) = lines(shown)
    assert json.loads(line) == json.loads(expected)
    assert ("\u00fc" in line) == ("\u00fc" in expected)


def test_step_of_an_operation_is_no_object() -> None:
    for step in (*STEPS, notices.MessageQueued(Say("x", "n1")), notices.Toggle("quiet")):
        assert lines(step) == []


@pytest.mark.parametrize(
    ("time_ms", "time"),
    [
        (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
        (253_402_300_800_000, "9999-12-31T23:59:59.999Z"),
        (10**30, "9999-12-31T23:59:59.999Z"),
        (-1, "1970-01-01T00:00:00.000Z"),
    ],
)
def test_time_is_limited_to_the_calendar(time_ms: int, time: str) -> None:
    """In some wire formats it can be any number."""
    public = events.PublicMessage(1, time_ms, "bob", "hello")
    direct = events.DirectMessage(2, time_ms, "bob", "alice", "psst")
    for shown in (public, direct, events.History((public, direct)), events.Found("x", (public, direct), 2)):
        (line,) = lines(shown)
        members = json.loads(line)
        assert {each["time"] for each in members.get("messages", [members])} == {time}


def texts_in(members: Any) -> set[str]:
    """All texts among the values, at any depth."""
    if isinstance(members, dict | list):
        values = members.values() if isinstance(members, dict) else members
        return {text for value in values for text in texts_in(value)}
    return {members} if isinstance(members, str) else set()


@given(st.sampled_from(SENDABLE_ATTACKS) | st.text(st.characters(codec="utf-8")))
def test_no_object_acts_on_a_terminal_and_each_text_is_decoded_unchanged(text: str) -> None:
    """Promise: no byte from another user reaches the terminal unsanitised."""
    for shown in [*everything_with(text), notices.Help((text,))]:
        (line,) = lines(shown)
        assert escape_control_characters(line) == line, shown
        assert text in texts_in(json.loads(line)), shown
