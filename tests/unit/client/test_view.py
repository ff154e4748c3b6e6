"""What is shown: the exact line of each event, and that no text of others can do anything to a terminal."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatclient.client_protocol import DeliveryUnknown, Outcome, PossibleGap
from chatclient.ui.text import escape_control_characters
from chatclient.ui.view import doubt_line, event_lines, message_line, outcome_line
from chatprotocol.errors import ErrorCode
from chatprotocol.events import (
    AccountKind,
    Bye,
    Delivered,
    DirectMessage,
    Event,
    Forwarded,
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
HELLO = PublicMessage(18, NOON_MS, "bob", "hello everybody")
PSST = DirectMessage(19, NOON_MS, "bob", "alice", "psst")

# The form of each line, on which harnesses and grep rely: see the client's README.
LINES: list[tuple[Event, list[str]]] = [
    (HELLO, ["[public #18 2026-01-31T12:00:00Z] bob: hello everybody"]),
    (PSST, ["[direct #19 2026-01-31T12:00:00Z] bob -> alice: psst"]),
    (PublicMessage(1, 0, "bob", "/me waves"), ["[public #1 1970-01-01T00:00:00Z] * bob waves"]),
    (PublicMessage(1, 0, "bob", "/meet me"), ["[public #1 1970-01-01T00:00:00Z] bob: /meet me"]),
    (PublicMessage(1, 0, "bob", "/me  "), ["[public #1 1970-01-01T00:00:00Z] bob: /me  "]),
    (DirectMessage(1, 0, "bob", "alice", "/me \x1b"), ["[direct #1 1970-01-01T00:00:00Z] * bob -> alice \\x1b"]),
    (Forwarded("bob", "/me waves"), ["[message] * bob waves"]),
    (PasswordChanged(), ["[password changed]"]),
    (PublicMessage(1, 0, "bob", ""), ["[public #1 1970-01-01T00:00:00Z] bob: "]),
    (PublicMessage(1, 999, "bob", "a: b -> c"), ["[public #1 1970-01-01T00:00:00Z] bob: a: b -> c"]),
    (
        Welcome(AccountKind.NEW, "alice", ("bob", "alice", "Carol"), 17),
        ["[welcome new] alice; online: alice bob Carol"],
    ),
    (Welcome(AccountKind.EXISTING, "Alice", ("Alice",), 17), ["[welcome existing] Alice; online: Alice"]),
    (Welcome(AccountKind.NEW, "alice", (), 0), ["[welcome new] alice"]),
    (Online(("bob", "alice", "Carol")), ["[users 3] alice bob Carol"]),
    (Online(()), ["[users 0]"]),
    (Users(3, ("bob", "alice", "Carol")), []),
    (Ready(), []),
    (Users(2, ("alice", "bob"), ("bob",)), ["[joined] bob"]),
    (Users(1, ("alice",), (), ("bob",)), ["[left] bob"]),
    (Users(2, ("alice", "eve"), ("eve", "ian"), ("bob",)), ["[joined] eve", "[joined] ian", "[left] bob"]),
    (Users(501, None, ("eve",), ()), ["[joined] eve"]),
    (Sent(18, SentStatus.SENT), ["[sent #18]"]),
    (Sent(18, SentStatus.SENT, "7f"), ["[sent #18]"]),
    (
        Sent(18, SentStatus.SENT, "7f", looks_public=True),
        ["[sent #18] a guest can't see that this is a direct message"],
    ),
    (Sent(18, SentStatus.STORED, "7f"), ["[stored #18] not online; it is delivered at the next login"]),
    (History(()), ["[history 0]"]),
    (
        History((HELLO, PSST)),
        [
            "[history 2]",
            "[history #18 2026-01-31T12:00:00Z] bob: hello everybody",
            "[history #19 2026-01-31T12:00:00Z] bob -> alice: psst",
        ],
    ),
    (Refused(ErrorCode.UNKNOWN_USER, "There is no user 'bob'."), ["[error unknown_user] There is no user 'bob'."]),
    (Refused(ErrorCode.TOO_LONG, "Too long.", "7f"), ["[error too_long] Too long."]),
    (Bye("you left"), ["[bye] you left"]),
    (Pong(), []),
    (PasswordPrompt(AccountKind.NEW), []),
    (Welcome(AccountKind.GUEST, "alice", (), None), ["[welcome guest] alice"]),
    (Forwarded("bob", "hello alice"), ["[message] bob: hello alice"]),
    (Forwarded("bob", "a: b"), ["[message] bob: a: b"]),
    (Forwarded("", ""), ["[message] : "]),
    (Forwarded("bob", "two\nlines"), [r"[message] bob: two\nlines"]),
    (Registered(Side.SENDING, "alice"), []),
    (Delivered("bob"), []),
    (NotDelivered(), []),
]

ESCAPE = "\x1b"


@pytest.mark.parametrize(("event", "lines"), LINES)
def test_each_event_is_shown_in_its_documented_form(event: Event, lines: list[str]) -> None:
    assert event_lines(event) == lines


@pytest.mark.parametrize(
    ("attack", "shown"),
    [
        (f"{ESCAPE}[2J", r"\x1b[2J"),
        (f"{ESCAPE}]0;title\x07", r"\x1b]0;title\x07"),
        (f"{ESCAPE}[31mred{ESCAPE}[0m", r"\x1b[31mred\x1b[0m"),
        (f"{ESCAPE}P+q544e{ESCAPE}\\", "\\x1bP+q544e\\x1b\\"),
        ("\x9b2J", r"\x9b2J"),
        ("\x90\x9d\x85\x84", r"\x90\x9d\x85\x84"),
        ("one\rtwo", r"one\rtwo"),
        ("one\n[public #9] eve: two", r"one\n[public #9] eve: two"),
        ("one\r\ntwo", r"one\r\ntwo"),
        ("\t", r"\t"),
        ("\b\b\b\x7f", r"\x08\x08\x08\x7f"),
        ("\0", r"\x00"),
        ("\x0b\x0c\x0e\x0f", r"\x0b\x0c\x0e\x0f"),
        ("\u202eevil", r"\u202eevil"),
        ("\u202a\u202b\u202c\u202d", r"\u202a\u202b\u202c\u202d"),
        ("\u2066\u2067\u2068\u2069", r"\u2066\u2067\u2068\u2069"),
        ("\u200e\u200f\u061c", r"\u200e\u200f\u061c"),
        ("\u2028\u2029", r"\u2028\u2029"),
        ("\u200b\u2060\ufeff\u00ad", r"\u200b\u2060\ufeff\xad"),
        ("\U000e0041\U000e007f", r"\U000e0041\U000e007f"),
        ("\ue000\uffff", r"\ue000\uffff"),
        ("\ud800", r"\ud800"),
    ],
)
def test_what_could_move_a_cursor_reorder_or_hide_text_is_written_out(attack: str, shown: str) -> None:
    assert escape_control_characters(attack) == shown


@pytest.mark.parametrize(
    "text",
    [
        "",
        "plain text ~ \\ \\x1b",
        "Gr\u00fc\u00dfe, \u4f60\u597d, \u05e9\u05dc\u05d5\u05dd",
        "\U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467",
        "\u0646\u200c\u0647",
        "\u3000wide\u3000",
        "10\u00a0000\u202f\u20ac",
        "e\u0301\ufe0f",
    ],
)
def test_text_of_people_stays_as_it_is(text: str) -> None:
    assert escape_control_characters(text) == text


@given(st.text())
def test_nothing_that_is_shown_controls_anything(text: str) -> None:
    shown = escape_control_characters(text)

    kinds = {unicodedata.category(letter) for letter in shown if letter not in "\u200c\u200d"}
    assert not kinds & {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
    assert len(shown.splitlines()) <= 1


ATTACK = f"x{ESCAPE}[2J\r\n\u202e"


@pytest.mark.parametrize(
    "event",
    [
        PublicMessage(1, NOON_MS, ATTACK, ATTACK),
        DirectMessage(1, NOON_MS, ATTACK, ATTACK, ATTACK),
        Welcome(AccountKind.NEW, ATTACK, (ATTACK,), 1),
        Online((ATTACK,)),
        Users(1, None, (ATTACK,), (ATTACK,)),
        History((PublicMessage(1, NOON_MS, ATTACK, ATTACK),)),
        Refused(ErrorCode.INTERNAL, ATTACK),
        Bye(ATTACK),
        Forwarded(ATTACK, ATTACK),
    ],
    ids=lambda event: type(event).__name__,
)
def test_every_text_of_every_event_is_made_harmless(event: Event) -> None:
    lines = event_lines(event)

    assert lines
    assert all(line.isprintable() for line in lines)


OUTCOMES = [
    (Outcome(Whisper("bob", "hello", "n1"), has_come=True), "[delivered] @bob"),
    (Outcome(Say("hello", "n1"), has_come=True), "[delivered] @ALL"),
    (
        Outcome(Whisper("bob", "hello"), has_come=False),
        "[error not_delivered] @bob: there is no such user, or it did not take the message in time",
    ),
    (
        Outcome(Say("hello"), has_come=False),
        "[error not_delivered] @ALL: somebody did not take the message in time",
    ),
    (Outcome(Whisper(f"{ESCAPE}[2J", "hello"), has_come=True), r"[delivered] @\x1b[2J"),
]


@pytest.mark.parametrize(("outcome", "line"), OUTCOMES)
def test_what_became_of_a_message_is_shown_in_its_documented_form(outcome: Outcome, line: str) -> None:
    assert outcome_line(outcome) == line


DOUBTS = [
    (PossibleGap(), "[error lost] more may have been missed than this; CH 500 shows more"),
    (PossibleGap(has_history=False), "[error lost] messages may have been missed"),
    (DeliveryUnknown(Say("hello")), "[error lost] it is not known whether this was stored, look at CH: hello"),
    (
        DeliveryUnknown(Whisper("bob", f"hello{ESCAPE}"), has_history=False),
        r"[error lost] it is not known whether this was delivered: hello\x1b",
    ),
]


@pytest.mark.parametrize(("doubt", "line"), DOUBTS)
def test_what_is_not_known_names_the_history_only_where_there_is_one(
    doubt: PossibleGap | DeliveryUnknown, line: str
) -> None:
    assert doubt_line(doubt) == line


@pytest.mark.parametrize("time_ms", [-62_135_596_800_000, 253_402_300_799_999, 253_402_343_999_000, 10**15, 10**18])
def test_no_time_that_a_server_can_name_breaks_the_view(time_ms: int) -> None:
    assert message_line(PublicMessage(1, time_ms, "bob", "hello")).endswith("] bob: hello")
