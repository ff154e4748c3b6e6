"""Lines of the plain frontend: the documented form of each event, and no text that acts on a terminal."""

import pytest

from chatclient.client_protocol import ClientEvent, DeliveryUnknown, Outcome, PossibleGap
from chatclient.ui.view import lines
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
    PasswordChanged,
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

NOON_MS = 1_769_860_800_123
HELLO = PublicMessage(18, NOON_MS, "bob", "hello")
PSST = DirectMessage(19, NOON_MS, "bob", "alice", "psst")
OLD_LINES = ["[history #18 2026-01-31T12:00:00Z] bob: hello", "[history #19 2026-01-31T12:00:00Z] bob -> alice: psst"]

# Harnesses and grep rely on these forms: see the client's README.
LINES: list[tuple[ClientEvent, list[str]]] = [
    (HELLO, ["[public #18 2026-01-31T12:00:00Z] bob: hello"]),
    (PSST, ["[direct #19 2026-01-31T12:00:00Z] bob -> alice: psst"]),
    (DirectMessage(1, 0, "bob", "", "x"), ["[direct #1 1970-01-01T00:00:00Z] bob -> ?: x"]),
    (PublicMessage(1, 0, "bob", "/me waves"), ["[public #1 1970-01-01T00:00:00Z] * bob waves"]),
    (PublicMessage(1, 0, "bob", "/meet me"), ["[public #1 1970-01-01T00:00:00Z] bob: /meet me"]),
    (PublicMessage(1, 0, "bob", "/me  "), ["[public #1 1970-01-01T00:00:00Z] bob: /me  "]),
    (DirectMessage(1, 0, "bob", "alice", "/me \x1b"), ["[direct #1 1970-01-01T00:00:00Z] * bob -> alice \\x1b"]),
    (Forwarded("bob", "hello"), ["[message] bob: hello"]),
    (Forwarded("bob", "/me waves"), ["[message] * bob waves"]),
    (PasswordChanged(), ["[password changed]"]),
    (
        Welcome(AccountKind.NEW, "alice", ("bob", "alice", "Carol"), 17),
        ["[welcome new] alice; online: alice bob Carol"],
    ),
    (Welcome(AccountKind.GUEST, "alice", (), None), ["[welcome guest] alice"]),
    (Online(("bob", "alice", "Carol")), ["[users 3] alice bob Carol"]),
    (Online(()), ["[users 0]"]),
    (Users(3, ("bob", "alice", "Carol")), []),
    (Users(2, ("alice", "eve"), ("eve", "ian"), ("bob",)), ["[joined] eve", "[joined] ian", "[left] bob"]),
    (Users(501, None, ("eve",), ()), ["[joined] eve"]),
    (Sent(18, SentStatus.SENT, "7f"), ["[sent #18]"]),
    (
        Sent(18, SentStatus.SENT, "7f", looks_public=True),
        ["[sent #18] a guest can't see that this is a direct message"],
    ),
    (Sent(18, SentStatus.STORED, "7f"), ["[stored #18] not online; it is delivered at the next login"]),
    (History(()), ["[history 0]"]),
    (History((HELLO, PSST)), ["[history 2]", *OLD_LINES]),
    (Found("noon*", (HELLO, PSST), 20), ["[found 2] up to #20: noon*", *OLD_LINES]),
    (Refused(ErrorCode.UNKNOWN_USER, "There is no user 'bob'."), ["[error unknown_user] There is no user 'bob'."]),
    (Bye("you left"), ["[bye] you left"]),
    (PossibleGap(), ["[error lost] more may have been missed than this; CH 500 shows more"]),
    (PossibleGap(has_history=False), ["[error lost] messages may have been missed"]),
    (DeliveryUnknown(Say("hello")), ["[error lost] it is not known whether this was stored, look at CH: hello"]),
    (
        DeliveryUnknown(Whisper("bob", "hello"), has_history=False),
        ["[error lost] it is not known whether this was delivered: hello"],
    ),
    (Outcome(Whisper("bob", "hello", "n1"), has_come=True), ["[delivered] @bob"]),
    (Outcome(Say("hello", "n1"), has_come=True), ["[delivered] @ALL"]),
    (
        Outcome(Whisper("bob", "hello"), has_come=False),
        ["[error not_delivered] @bob: no such user, or not acknowledged in time"],
    ),
    (Outcome(Say("x"), has_come=False), ["[error not_delivered] @ALL: not acknowledged by all users in time"]),
    *((step, []) for step in (Ready(), Pong(), PasswordPrompt(AccountKind.NEW), Delivered("bob"), NotDelivered())),
    (Registered(Side.SENDING, "alice"), []),
]


@pytest.mark.parametrize(("event", "expected"), LINES)
def test_event_is_shown_in_its_documented_form(event: ClientEvent, expected: list[str]) -> None:
    assert lines(event) == expected


ATTACK = "x\x1b[2J\r\n\u202e"
MESSAGE = PublicMessage(1, NOON_MS, ATTACK, ATTACK)


@pytest.mark.parametrize(
    "event",
    [
        MESSAGE,
        DirectMessage(1, NOON_MS, ATTACK, ATTACK, ATTACK),
        Welcome(AccountKind.NEW, ATTACK, (ATTACK,), 1),
        Online((ATTACK,)),
        Users(1, None, (ATTACK,), (ATTACK,)),
        History((MESSAGE,)),
        Found(ATTACK, (MESSAGE,), 1),
        Refused(ErrorCode.INTERNAL, ATTACK),
        Bye(ATTACK),
        Forwarded(ATTACK, ATTACK),
        DeliveryUnknown(Say(ATTACK)),
        DeliveryUnknown(Say(ATTACK), has_history=False),
        Outcome(Whisper(ATTACK, ATTACK), has_come=True),
        Outcome(Whisper(ATTACK, ATTACK), has_come=False),
    ],
    ids=lambda event: type(event).__name__,
)
def test_every_text_of_an_event_is_escaped(event: ClientEvent) -> None:
    """Promise: no byte from another user reaches the terminal unsanitised."""
    shown = lines(event)
    assert shown
    assert all(line.isprintable() for line in shown)


@pytest.mark.parametrize("time_ms", [-62_135_596_800_000, 253_402_343_999_000, 10**18])
def test_time_outside_of_the_calendar_is_shown(time_ms: int) -> None:
    (line,) = lines(PublicMessage(1, time_ms, "bob", "hello"))
    assert line.endswith("] bob: hello")
