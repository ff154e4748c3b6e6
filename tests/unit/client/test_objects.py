"""What is shown as JSON: one object for each thing that happens, which reads back as it was and harms no terminal."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatclient import notices
from chatclient.client_protocol import DeliveryUnknown, Outcome, PossibleGap
from chatclient.ui.jsonlines import lines
from chatclient.ui.text import escape_control_characters
from chatprotocol.errors import ErrorCode
from chatprotocol.events import (
    AccountKind,
    Bye,
    Delivered,
    DirectMessage,
    Forwarded,
    Found,
    History,
    NotDelivered,
    Online,
    PasswordPrompt,
    Pong,
    PublicMessage,
    Ready,
    Refused,
    Registered,
    Sent,
    SentStatus,
    Users,
    Welcome,
)
from chatprotocol.requests import Say, Side, Whisper

from .test_text import ATTACKS

if TYPE_CHECKING:
    from chatclient.client_protocol import ClientEvent
    from chatclient.notices import UiNotice

NOON_MS = 1_769_860_800_123
TIME = "2026-01-31T12:00:00.123Z"
HELLO = PublicMessage(18, NOON_MS, "bob", "hello")
PSST = DirectMessage(19, NOON_MS, "bob", "alice", "psst")
HELLOS = {"type": "broadcast", "id": 18, "time": TIME, "from": "bob", "message": "hello"}
PSSTS = {"type": "direct", "id": 19, "time": TIME, "from": "bob", "to": "alice", "message": "psst"}

# What the dialect json has a word for looks as it does there; the rest is the client's own.
OBJECTS: list[tuple[ClientEvent | UiNotice, dict[str, Any]]] = [
    (HELLO, HELLOS),
    (PSST, PSSTS),
    (Sent(18, SentStatus.SENT, "n1"), {"type": "sent", "id": 18, "status": "sent", "nonce": "n1"}),
    (Sent(18, SentStatus.STORED), {"type": "sent", "id": 18, "status": "stored"}),
    (
        Welcome(AccountKind.NEW, "alice", ("alice", "bob"), 17),
        {
            "type": "login",
            "status": "ok",
            "account": "new",
            "username": "alice",
            "users": ["alice", "bob"],
            "last_id": 17,
        },
    ),
    (
        Users(2, None, ("bob",), ("eve",)),
        {"type": "users", "count": 2, "joined": ["bob"], "left": ["eve"]},
    ),
    (Online(("alice", "bob")), {"type": "users", "users": ["alice", "bob"], "joined": [], "left": []}),
    (History((HELLO, PSST)), {"type": "history", "messages": [HELLOS, PSSTS]}),
    (Found("hello", (HELLO,), 19), {"type": "found", "words": "hello", "messages": [HELLOS], "upto": 19}),
    (
        Refused(ErrorCode.UNKNOWN_USER, "There is none.", "n1"),
        {"type": "error", "code": "unknown_user", "message": "There is none.", "nonce": "n1"},
    ),
    (Bye("you left"), {"type": "bye", "reason": "you left"}),
    (PasswordPrompt(AccountKind.NEW), {"type": "prompt", "field": "password", "account": "new"}),
    (Pong(), {"type": "pong"}),
    (Forwarded("bob", "hello"), {"type": "message", "from": "bob", "message": "hello"}),
    (PossibleGap(), {"type": "gap"}),
    (PossibleGap(has_history=False), {"type": "gap"}),
    (DeliveryUnknown(Say("x", "n1")), {"type": "unsettled", "to": "ALL", "message": "x"}),
    (DeliveryUnknown(Whisper("bob", "x", "n1")), {"type": "unsettled", "to": "bob", "message": "x"}),
    (Outcome(Say("x"), has_come=True), {"type": "outcome", "to": "ALL", "message": "x", "delivered": True}),
    (
        Outcome(Whisper("bob", "x"), has_come=False),
        {"type": "outcome", "to": "bob", "message": "x", "delivered": False},
    ),
    (notices.Ask("recipient"), {"type": "ask", "question": "recipient"}),
    (notices.ErrorNotice("usage", "No."), {"type": "error", "code": "usage", "message": "No."}),
    (notices.Help(("PM", "DM")), {"type": "help", "lines": ["PM", "DM"]}),
    (notices.ConnectionLost("reset"), {"type": "lost", "reason": "reset"}),
    (notices.Reconnected("alice", 20), {"type": "back", "username": "alice"}),
    (notices.ScriptLine("PM x"), {"type": "typed", "line": "PM x"}),
]


@pytest.mark.parametrize(("shown", "members"), OBJECTS)
def test_each_thing_that_happens_is_one_object(shown: ClientEvent | UiNotice, members: dict[str, Any]) -> None:
    (line,) = lines(shown)

    assert json.loads(line) == members


@pytest.mark.parametrize(
    "shown",
    [
        Ready(),
        Registered(Side.SENDING, "alice"),
        Delivered("bob"),
        NotDelivered(),
        notices.MessageQueued(Say("x", "n1")),
        notices.Toggle("quiet"),
    ],
)
def test_what_is_a_step_of_something_alone_is_no_object(shown: ClientEvent | UiNotice) -> None:
    assert lines(shown) == []


@pytest.mark.parametrize(
    ("time_ms", "time"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
        (253_402_300_800_000, "9999-12-31T23:59:59.999Z"),
        (10**18, "9999-12-31T23:59:59.999Z"),
        (10**30, "9999-12-31T23:59:59.999Z"),
        (-1, "1970-01-01T00:00:00.000Z"),
        (-(10**18), "1970-01-01T00:00:00.000Z"),
    ],
)
def test_a_time_that_no_calendar_has_is_the_nearest_that_one_has(time_ms: int, time: str) -> None:
    """Some dialects carry any number."""
    public = PublicMessage(1, time_ms, "bob", "hello")
    direct = DirectMessage(2, time_ms, "bob", "alice", "psst")
    for shown in (public, direct, History((public, direct)), Found("x", (public, direct), 2)):
        (line,) = lines(shown)
        members = json.loads(line)
        assert [each["time"] for each in members.get("messages", [members])] in ([time], [time, time])


def with_text(text: str) -> list[ClientEvent | UiNotice]:
    """Everything in which somebody else's words may be."""
    return [
        PublicMessage(1, 0, text, text),
        DirectMessage(1, 0, text, text, text),
        Forwarded(text, text),
        Welcome(AccountKind.NEW, text, (text,), 0),
        Users(1, (text,), (text,), (text,)),
        Online((text,)),
        History((PublicMessage(1, 0, text, text),)),
        Found(text, (PublicMessage(1, 0, text, text),), 1),
        Refused(ErrorCode.INTERNAL, text),
        Bye(text),
        DeliveryUnknown(Whisper(text, text)),
        Outcome(Say(text), has_come=False),
        notices.Ask(text),
        notices.ErrorNotice("lost", text),
        notices.Help((text,)),
        notices.ConnectionLost(text),
        notices.Reconnected(text, 1),
        notices.ScriptLine(text),
    ]


def texts_in(members: Any) -> set[str]:
    """All texts among the values, however deep."""
    if isinstance(members, dict):
        return {text for value in members.values() for text in texts_in(value)}
    if isinstance(members, list):
        return {text for value in members for text in texts_in(value)}
    return {members} if isinstance(members, str) else set()


def check(text: str) -> None:
    for shown in with_text(text):
        (line,) = lines(shown)
        assert escape_control_characters(line) == line, shown
        assert text in texts_in(json.loads(line)), shown


@pytest.mark.parametrize("what", [what for what, _, _ in ATTACKS if what != "half a letter"])
def test_no_letter_of_an_object_does_anything_to_a_terminal_and_none_is_lost(what: str) -> None:
    """Promise: safety. An escape of JSON means the same."""
    check(next(written for name, written, _ in ATTACKS if name == what))


@given(st.text(st.characters(codec="utf-8")))
def test_every_text_is_read_back_as_it_was(text: str) -> None:
    check(text)


@pytest.mark.parametrize("text", ["Gr\u00fc\u00dfe", "\u65e5\u672c", "\U0001f468\u200d\U0001f469"])
def test_what_does_no_harm_is_readable(text: str) -> None:
    (line,) = lines(PublicMessage(1, 0, "bob", text))

    assert text in line
