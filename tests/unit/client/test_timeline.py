"""Timeline and rows: the rows of each event and notice, at any width, and no row that acts on a terminal."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.protocol.samples import held_bytes

from chatclient import notices
from chatclient.model import ConnectionState, UiState, Unread
from chatclient.notices import ASK_RECIPIENT, ASK_USERNAME, Asked, Question
from chatclient.ui.layout import ASCII_GLYPHS, STYLES, Glyphs, Row
from chatclient.ui.printed import PrintedRows
from chatclient.ui.rows import RowFormatter, prompt
from chatclient.ui.text import columns_of, escape_control_characters
from chatclient.ui.timeline import Deletion, Text, Timeline
from chatprotocol import events
from chatprotocol.errors import ErrorCode
from chatprotocol.events import (
    AccountKind,
    Found,
    History,
    PublicMessage,
    Refused,
    RoomRole,
    SanctionKind,
    Sent,
    SentStatus,
    Users,
)
from chatprotocol.requests import Say, Whisper
from chatprotocol.wire.base import ClientEvent, DeliveryUnknown, Forwarded, Online, Outcome, PossibleGap

from .samples import NOON_MS, STEPS, Shown, confirmation, direct, everything_with, in_room, public
from .test_text import SENDABLE_ATTACKS

NOON = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
DAY_MS = 24 * 60 * 60 * 1000
LONGEST_NAME = "N" * 32
WELCOME = events.Welcome(account=AccountKind.EXISTING, username="alice", users=(), last_id=10)
LOST = notices.ConnectionLost("reset")
BACK = notices.Reconnected("alice", 20)
NEW_ACCOUNT = Question(Asked.PASSWORD_NEW_ACCOUNT, "password new")
SAID = notices.MessageQueued(Say("mine", "n1"))
SENT = confirmation(21, "n1")


class Window:
    """A timeline in a window, as text. With ``is_in`` the login and the first day are shown already."""

    def __init__(self, width: int = 80, glyphs: Glyphs | None = None, *, is_in: bool = True, **settings: bool) -> None:
        self.now = NOON
        self.width = width
        self.timeline = Timeline(lambda: self.now, **settings)
        self.formatter = RowFormatter(lambda: self.now, UTC, glyphs or Glyphs())
        if is_in:
            self.rows(WELCOME, History(()))

    def rows(self, *shown: Shown) -> list[Row]:
        """The rows of these events, each shown before the next one arrives."""
        entries = (entry for each in shown for entry in self.timeline.entries([each]))
        username, width = self.timeline.username, self.width
        return [
            row
            for entry in entries
            for row in self.formatter.rows(entry, username, width, shows_ids=self.timeline.shows_ids)
        ]

    def lines(self, *shown: Shown) -> list[str]:
        return [text_of(row).rstrip() for row in self.rows(*shown)]

    def story(self, *shown: Shown) -> str:
        """The texts of messages, and the rules as in ``-now-``, without times, senders and notices."""
        lines = [line for line in self.lines(*shown) if not line.startswith((NOTICE, PROBLEM, MORE))]
        texts = [line.split("\u2502 ")[-1] for line in lines]
        return " ".join(f"-{text.strip(RULE)}-" if text[0] in RULE else text for text in texts)

    def has_rung(self) -> bool:
        needs_bell, self.timeline.needs_bell = self.timeline.needs_bell, False
        return needs_bell


def text_of(row: Row) -> str:
    return "".join(part for _, part in row)


def styles_of(rows: Sequence[Row], text: str = "") -> set[str]:
    """The styles of the pieces with this text."""
    return {style for row in rows for style, part in row if text in part}


def is_highlighted(rows: Sequence[Row]) -> bool:
    return any("class:alert" in style for style in styles_of(rows))


def p(number: int, time_ms: int = NOON_MS) -> PublicMessage:
    """A public message with its number as the text."""
    return public(number, str(number), time_ms=time_ms)


def d(number: int) -> events.DirectMessage:
    return direct(number, str(number))


@pytest.fixture
def window() -> Window:
    return Window()


# --- the rows of each event ---

RULE = "\u2500 "
NOTICE = "12:00                * \u2502 "
PROBLEM = "12:00                ! \u2502 "
MORE = "                       \u2502 "
ROWS: list[tuple[Shown, list[str]]] = [
    (public(11), ["12:00              bob \u2502 hello"]),
    (public(11, time_ms=10**18), ["12:00              bob \u2502 hello"]),  # outside of the calendar: now
    (public(11, "\u65e5\u672c", "\u65e5"), ["12:00               \u65e5 \u2502 \u65e5\u672c"]),
    (public(11, "one\r\ntwo\ta"), ["12:00              bob \u2502 one", MORE + "two a"]),
    (public(11, "hello", LONGEST_NAME), [f"12:00 {LONGEST_NAME} \u2502", MORE + "hello"]),
    (direct(11), ["12:00      bob \u00bb alice \u2502 psst"]),
    (direct(11, recipient=""), ["12:00          bob \u00bb ? \u2502 psst"]),
    (public(11, "/me waves"), [NOTICE + "bob waves"]),
    (direct(11, "/me waves"), ["12:00      bob \u00bb alice \u2502 * bob waves"]),
    (Forwarded("bob", "hello"), ["12:00              bob \u2502 hello"]),
    (Users(2, None, ("eve", "Bob"), ("ian",)), [NOTICE + "Bob, eve joined", NOTICE + "ian left"]),
    (Users(None, ("alice", "bob")), []),
    (Online(("bob", "alice", "Carol")), [NOTICE + "3 online: alice, bob, Carol"]),
    (
        events.Welcome(account=AccountKind.NEW, username="alice", users=("bob", "alice"), last_id=0),
        [NOTICE + "You are alice. This name is registered now.", NOTICE + "2 online: alice, bob"],
    ),
    (
        events.Welcome(account=AccountKind.GUEST, username="alice", users=(), last_id=None),
        [NOTICE + "You are alice, a guest."],
    ),
    (events.Bye("you left"), [NOTICE + "You left."]),
    (events.Bye("the server is shutting down"), []),
    (PossibleGap(), [PROBLEM + "More may have been missed than is shown; CH 500 shows", MORE + "more."]),
    (PossibleGap(has_history=False), [PROBLEM + "More may have been missed than is shown."]),
    (Refused(ErrorCode.TOO_LONG, "Too long.", "other"), [PROBLEM + "Too long."]),
    (History(()), [NOTICE + "There are no messages yet."]),
    (Found("caf\u00e9", (), 11), [NOTICE + "Nothing was found: caf\u00e9"]),
    (notices.ErrorNotice("usage", "No."), [PROBLEM + "No."]),
    (notices.Help(("PM   all", "EX   leave")), [NOTICE + "PM   all", NOTICE + "EX   leave"]),
    (notices.Ask(NEW_ACCOUNT), [NOTICE + "This name is new: choose a password."]),
    (
        notices.Ask(Question(Asked.PASSWORD_AGAIN, "password again")),
        [NOTICE + "The same password again, to be sure of it."],
    ),
    (
        notices.Ask(Question(Asked.PASSWORD, "password existing")),
        [NOTICE + "This name exists; if it is yours, type its password."],
    ),
    (in_room(11), ["12:00         bob #dev \u2502 hello"]),
    (in_room(11, "/me waves"), ["12:00           * #dev \u2502 bob waves"]),
    (in_room(11, room="r" * 32), [f"12:00 bob #{'r' * 32} \u2502", MORE + "hello"]),
    (notices.CurrentRoom("dev", "tea"), [NOTICE + "Your messages go to #dev from now on. Topic: tea"]),
    (notices.CurrentRoom("dev", "tea", was_joined=True), [NOTICE + "Your messages go to #dev from now on."]),
    (
        events.Joined("dev", "tea", ("bob", "alice"), 17, private=True, role=RoomRole.OWNER),
        [NOTICE + "You are in #dev (owner, private). Topic: tea", NOTICE + "2 online in #dev: alice, bob"],
    ),
    (events.Parted("dev"), [NOTICE + "You are no longer in #dev."]),
    (events.Parted("dev", "bob"), [NOTICE + "bob removed you from #dev."]),
    (events.TopicChanged("dev", "tea", "bob"), [NOTICE + "bob changed the topic of #dev: tea"]),
    (events.TopicChanged("dev", "", "bob"), [NOTICE + "bob removed the topic of #dev."]),
    (events.Invited("dev", "Alice", "bob"), [NOTICE + "bob invited you to #dev; /join #dev enters it."]),
    (events.Invited("dev", "eve", "bob"), [NOTICE + "bob invited eve to #dev."]),
    (events.Rooms(()), [NOTICE + "There are no rooms besides the lobby; /join NAME makes", MORE + "one."]),
    (events.Kicked(room="dev", username="eve", by="bob"), [NOTICE + "bob removed eve from #dev."]),
    (
        events.RoleChanged(room="dev", username="eve", role=RoomRole.OPERATOR, by="bob"),
        [NOTICE + "bob made eve an operator of #dev."],
    ),
    (events.RoleChanged(room="dev", username="eve", role=RoomRole.OWNER), [NOTICE + "eve is the owner of #dev now."]),
    (
        events.RoleChanged(username="eve", role=RoomRole.OPERATOR, by="the administrator"),
        [NOTICE + "the administrator made eve an operator of this server."],
    ),
    (
        events.Rooms(
            (events.RoomSummary("dev", "tea", 3, joined=True), events.RoomSummary("ops", "", 1, joined=False))
        ),
        [
            NOTICE + "2 rooms, besides the lobby",
            NOTICE + "#dev (3 members, joined): tea",
            NOTICE + "#ops (1 member)",
        ],
    ),
    (Online(("bob",), "dev"), [NOTICE + "1 online in #dev: bob"]),
    (Users(1, None, ("eve",), (), "dev"), []),  # not the current room
    (History((), "dev"), [NOTICE + "There are no messages in #dev yet."]),
    (Found("x", (), 11, "dev"), [NOTICE + "Nothing was found in #dev: x"]),
    (
        events.Kicked(username="eve", by="bob", reason="spam"),
        [NOTICE + "bob removed eve from the server. Reason: spam"],
    ),
    (
        events.Banned(room="dev", username="eve", by="bob", until=NOON_MS),
        [NOTICE + "bob banned eve from #dev until 2026-01-31 12:01 UTC."],
    ),
    (
        events.Banned(username="ALICE", by="bob", reason="spam"),
        [PROBLEM + "bob banned you from the server. Reason: spam"],
    ),
    (events.Unbanned(address="192.0.2.7", by="bob"), [NOTICE + "bob ended the ban of 192.0.2.7 from the server."]),
    (events.Muted(username="eve", by="bob"), [NOTICE + "bob muted eve."]),
    (events.Muted(room="dev", username="alice", by="bob"), [PROBLEM + "bob muted you in #dev."]),
    (events.Unmuted(room="dev", username="alice", by="bob"), [NOTICE + "bob ended your mute in #dev."]),
    (events.Bans(()), [NOTICE + "There are no bans and mutes."]),
    (
        events.Bans(
            (
                events.SanctionState(kind=SanctionKind.MUTE, username="eve", by="bob", time_ms=NOON_MS),
                events.SanctionState(kind=SanctionKind.BAN, address="::1", by="bob", time_ms=0, until=NOON_MS),
            ),
            "dev",
        ),
        [
            NOTICE + "Bans and mutes in #dev: 2",
            NOTICE + "eve: muted by bob.",
            NOTICE + "::1: banned by bob until 2026-01-31 12:01 UTC.",
        ],
    ),
    (events.Audit(()), [NOTICE + "Operators have done nothing yet."]),
    (
        events.Audit(
            (
                events.AuditRow(
                    number=7, time_ms=NOON_MS, by="bob", action="ban", target="eve", room="dev", detail="for 5400 s"
                ),
            )
        ),
        [
            NOTICE + "The last acts of operators: 1",
            NOTICE + "2026-01-31 12:00 UTC, bob: ban eve in #dev (for 90m).",
        ],
    ),
    (
        events.Reported(id=17, by="eve", reason="spam"),
        [NOTICE + "eve reported message 17 to the operators. Reason: spam"],
    ),
    (events.Reported(username="bob", room="dev", by="eve"), [NOTICE + "eve reported bob in #dev to the operators."]),
    (events.Ignored(("eve", "bob")), [NOTICE + "You ignore: bob, eve"]),
    (events.Ignored(()), [NOTICE + "You ignore no users."]),
    (events.Deleted(17, "bob"), []),  # it was not shown
    (events.Deleted(17, "alice"), [NOTICE + "Message 17 is deleted."]),
    (
        events.Bye("bob ended your connections", ErrorCode.KICKED),
        [PROBLEM + "The server ended this connection: bob ended your", MORE + "connections"],
    ),
    (notices.Toggle("ids"), [NOTICE + "Numbers of messages are shown from now on."]),
    (events.PasswordChanged(), [NOTICE + "Your password is changed."]),
    (notices.Toggle("joins"), [NOTICE + "Joins and leaves are hidden from now on."]),
    (notices.Toggle("quiet"), [NOTICE + "No bell and no highlight from now on."]),
    (notices.Ask(ASK_RECIPIENT), []),
    (SAID, []),
    (confirmation(11, "of another client"), []),
    *((step, []) for step in (*STEPS, events.Pong(), events.PasswordPrompt(account=AccountKind.NEW))),
]


@pytest.mark.parametrize(("shown", "lines"), ROWS)
def test_event_is_shown_in_its_rows(window: Window, shown: Shown, lines: list[str]) -> None:
    assert window.lines(shown) == lines


ODD_TEXTS = [
    "hello everybody " * 30,
    "x" * 1_000,
    "\u65e5\u672c\u8a9e" * 100,
    "e\u0301" * 300,
    "\U0001f468\u200d\U0001f469\u200d\U0001f467 \u2764\ufe0f" * 50,
    "a\n\n\tb\n" * 30,
    " ".join(SENDABLE_ATTACKS),
]
EVERYTHING = [
    *(shown for shown, _ in ROWS),
    Sent(15, SentStatus.STORED, "n1"),
    *(direct(12, text, LONGEST_NAME, "n" * 32) for text in ODD_TEXTS),
    *(shown for text in ODD_TEXTS for shown in everything_with(text)),
]


@pytest.mark.parametrize(("width", "is_in"), [(20, True), (60, False), (80, True)])
def test_every_row_fits_in_the_window_and_acts_on_no_terminal(width: int, is_in: bool) -> None:
    """Promise: no byte from another user reaches the terminal unsanitised. A row has known styles or colours only."""
    styles = {f"class:{name}" for name in STYLES}
    for shown in EVERYTHING:
        window = Window(width, is_in=is_in)
        window.rows(notices.MessageQueued(Whisper(LONGEST_NAME, "\x1b[2J " + "hello " * 20, "n1")))
        window.rows(events.PublicMessage(1, 0, ODD_TEXTS[-1], "x", ODD_TEXTS[-1]))
        for row in window.rows(shown, public(30, "after it")):
            line = text_of(row)
            assert columns_of(line) <= width, (type(shown).__name__, line)
            assert escape_control_characters(line) == line, (type(shown).__name__, line)
            assert all(word in styles or word[0] == "#" for style, _ in row for word in style.split()), row


@given(st.text(max_size=300), st.from_regex("[A-Za-z0-9]{1,10}", fullmatch=True), st.integers(20, 200))
def test_text_stays_in_its_column(text: str, sender: str, width: int) -> None:
    """It can't imitate the row of another user. Below 80 columns, time and name take a quarter of the window."""
    gutter = 23 if width >= 80 else width // 4 - 2
    for shown in (public(11, text, sender), direct(12, text, "b", "c")):
        first, *others = Window(width).lines(shown)
        assert first.startswith("12:00 ")
        assert width < 60 or first.index("\u2502") == max(gutter, 7 + len(sender) if shown.id == 11 else 0)
        for row in others:
            indent = len(row) - len(row.lstrip(" "))
            assert not row or indent >= 2, row
            assert width < 60 or (row[indent] == "\u2502" and indent == gutter)


def test_narrow_window_indents_long_texts_below_time_and_name() -> None:
    window = Window(39)
    lines = ["12:00 bob", "  hello everybody out there in the", "  wide world"]
    assert window.lines(public(11, "hello everybody out there in the wide world")) == lines
    assert window.lines(public(13, "x" * 26)) == ["12:00 bob \u2502 " + "x" * 26]
    assert window.lines(public(14, "x" * 27)) == ["12:00 bob", "  " + "x" * 27]


def test_message_has_at_most_60_lines(window: Window) -> None:
    lines = window.lines(public(11, "\n" * 8_000 + "end"))
    assert len(lines) == 61
    assert lines[-1].endswith("\u2502 (7941 more lines are not shown)")
    lines = window.lines(public(12, "x" * 1_000_000))
    assert (len(lines), lines[-1].endswith("\u2502 (more is not shown)")) == (61, True)


def test_ascii_terminal_gets_ascii_separators() -> None:
    window = Window(glyphs=ASCII_GLYPHS)
    rule = "--- Sunday, 1 February 2026 " + "-" * 48
    assert window.lines(public(11, time_ms=NOON_MS + DAY_MS)) == [rule, "12:00              bob | hello"]
    assert window.lines(direct(12))[-1] == "12:00      bob > alice | psst"
    state = UiState(ConnectionState.LOGGED_IN, "alice", ("localhost", 9999), 2, waiting=(("", "x"),))
    assert text_of(window.formatter.pending(state, 80)[0]) == "... x (waits)"
    status = text_of(window.formatter.status(state, "json", 80))
    assert status == "alice - localhost:9999 - json - 2 online - connected"


def test_new_day_has_a_rule(window: Window) -> None:
    """In the user's time zone."""
    times = [NOON_MS, NOON_MS + DAY_MS, NOON_MS + DAY_MS + 60_000, NOON_MS + 2 * DAY_MS]
    story = window.story(*(p(number, time_ms) for number, time_ms in enumerate(times, 11)))
    assert story == "11 -Sunday, 1 February 2026- 12 13 -Monday, 2 February 2026- 14"
    formatter = RowFormatter(lambda: NOON, timezone(timedelta(hours=14)))
    day, message = formatter.rows(Text("bob", "hello", NOON_MS), "alice", 80)
    assert text_of(day).strip("\u2500 ") == "Sunday, 1 February 2026"
    assert text_of(message).startswith("02:00 ")


# --- mentions, bell and colours ---


MENTIONS = ("ALICE: come", "(@alice's)", "\u65e5alice\u672c")


@pytest.mark.parametrize("text", [*MENTIONS, "alices", "malice", "alice2", "ali ce"])
def test_mention_rings_and_is_highlighted(window: Window, text: str) -> None:
    is_mention = text in MENTIONS
    for shown in (public(11, text), Forwarded("bob", text)):
        assert is_highlighted(window.rows(shown)) == is_mention
        assert window.has_rung() == is_mention


def test_own_messages_and_notices_do_not_ring(window: Window) -> None:
    own = (public(11, "I am alice", "ALICE"), *(direct(11, "alice", "alice", to) for to in ("bob", "alice")))
    rows = window.rows(*own, Users(2, None, ("alice",)), notices.ErrorNotice("usage", "alice"))
    assert not is_highlighted(rows)
    assert not window.has_rung()


def test_missed_messages_ring_and_old_ones_do_not(window: Window) -> None:
    assert window.rows(History((direct(1), public(2, "alice"))), Found("alice", (public(2, "alice"),), 2))
    assert not window.has_rung()
    window.rows(LOST, BACK, direct(15))
    assert window.has_rung()


def test_quiet_switches_bell_and_highlight(window: Window) -> None:
    for is_on in (False, True):
        window.rows(notices.Toggle("quiet"))
        assert is_highlighted(window.rows(direct(11), public(12, "alice!"))) == is_on
        assert window.has_rung() == is_on
    quiet = Window(is_quiet=True)
    quiet.rows(direct(11))
    assert not quiet.has_rung()


def test_name_has_the_same_colour_for_all_users_and_releases() -> None:
    window, other = Window(), Window(40)
    other.rows(events.Welcome(account=AccountKind.NEW, username="carol", users=(), last_id=0), History(()))
    rows = [*window.rows(public(11), direct(12), History((public(1),))), *other.rows(public(11, sender="BOB"))]
    assert styles_of(rows, "bob") | styles_of(rows, "BOB") == {"#875fff"}
    assert styles_of(window.rows(public(13, sender="carol")), "carol") == {"#87875f"}


def test_message_styles_differ_by_kind(window: Window) -> None:
    assert styles_of(window.rows(public(11, sender="Alice")), "Alice") == {"class:own"}
    assert styles_of(window.rows(direct(12, sender="alice", recipient="bob")), "psst") == {"class:direct"}
    assert styles_of(window.rows(direct(13)), "psst") == {"class:direct class:alert"}
    assert styles_of(window.rows(public(14)), "hello") == {""}
    assert styles_of(window.rows(notices.ErrorNotice("usage", "No.")), "No.") == {"class:error"}


# --- the last messages at the login ---

THREE = History((p(7), d(8), p(9)))
LAST = "-the last 3 messages-"
NEW = "-new since you were here-"


def seen(seen_id: int | None) -> events.Welcome:
    return events.Welcome(account=AccountKind.EXISTING, username="alice", users=(), last_id=9, seen_id=seen_id)


OTHERS = [
    notices.ErrorNotice("usage", "x"),
    Refused(ErrorCode.UNKNOWN_USER, "x", "n1"),
    Users(2, None, ("eve",)),
    Online(("alice",)),
]
LOGINS: dict[str, tuple[list[Shown], str]] = {
    "empty": ([WELCOME, History(()), p(3)], "3"),
    "one": ([WELCOME, History((p(1),))], "-the last message- 1 -now-"),
    "before the last stay": ([seen(9), THREE, p(10)], f"{LAST} 7 8 9 -now- 10"),
    "after the last stay": ([seen(7), THREE], f"{LAST} 7 {NEW} 8 9 -now-"),
    "all new": ([seen(0), THREE], f"{NEW} 7 8 9 -now-"),
    "unknown stay": ([seen(None), THREE], f"{LAST} 7 8 9 -now-"),
    # A direct message that waited is new, and so is all that follows it. Each is shown once.
    "waiting": ([WELCOME, d(3), d(8), p(10), THREE], f"{NEW} 3 7 8 9 10 -now-"),
    "waiting in the history": ([WELCOME, d(8), THREE, p(10)], f"{LAST} 7 {NEW} 8 9 -now- 10"),
    "waiting and seen": ([seen(9), d(8), THREE], f"{LAST} 7 {NEW} 8 9 -now-"),
    "other events": ([WELCOME, d(3), *OTHERS, p(12), History((d(3), p(4))), p(13)], f"{NEW} 3 4 12 -now- 13"),
    "no history": ([WELCOME, d(3), Refused(ErrorCode.INTERNAL, "Disk."), p(4)], "3 4"),
    "lost": ([WELCOME, d(3), LOST, p(4)], "3 4"),
    "guest": (
        [
            events.Welcome(account=AccountKind.GUEST, username="alice", users=(), last_id=None),
            Forwarded("bob", "hi"),
        ],
        "hi",
    ),
}


@pytest.mark.parametrize(("shown", "story"), LOGINS.values(), ids=LOGINS)
def test_login_shows_the_last_messages_once_and_marks_the_new_ones(shown: list[Shown], story: str) -> None:
    assert Window(is_in=False).story(*shown).replace("-Saturday, 31 January 2026- ", "") == story


def test_requested_history_has_rules_and_its_day(window: Window) -> None:
    story = window.story(p(11), History((p(1),)), p(12))
    assert story == "11 -the last message- -Saturday, 31 January 2026- 1 -now- 12"


def test_search_in_the_lobby_says_that_rooms_are_not_searched(window: Window) -> None:
    """Only to a user who is in a room."""
    window.rows(events.Joined("dev", "", ("alice",), 3))
    assert window.lines(Found("x", (), 99)) == [NOTICE + "Nothing was found in the lobby and direct messages: x"]


def test_search_result_has_its_number_and_words(window: Window) -> None:
    found = Found("caf\u00e9 \x1b[2J", (p(1), d(2)), 2)
    assert window.story(found) == "-2 messages found: caf\u00e9 \\x1b[2J- -Saturday, 31 January 2026- 1 2 -now-"
    assert window.story(Found("x", (p(1),), 2)).startswith("-1 message found: x- ")
    not_indexed = NOTICE + "The newest messages are not indexed yet; try again."
    for messages in ((), (p(1),)):
        assert window.lines(Found("x", messages, 1))[-1] == not_indexed
    window.rows(SENT)
    assert window.lines(Found("x", (), SENT.id - 1))[-1] == not_indexed


# --- own messages ---


def test_own_message_is_shown_once_when_it_is_confirmed(window: Window) -> None:
    """Promise: confirmed means stored."""
    assert window.lines(SAID, notices.MessageQueued(Whisper("bob", "psst", "n2"))) == []
    assert window.lines(SENT) == ["12:00            alice \u2502 mine"]
    told = ["12:00      alice \u00bb bob \u2502 psst", NOTICE + "not online; it is delivered at the next login"]
    assert window.lines(Sent(22, SentStatus.STORED, "n2")) == told
    assert window.lines(SENT) == []
    window.rows(notices.MessageQueued(Say("hi", "n3")))
    guest = Sent(23, SentStatus.SENT, "n3", looks_public=True)
    assert window.lines(guest)[1:] == [NOTICE + "a guest can't see that this is a direct message"]


@pytest.mark.parametrize(
    ("news", "remark"),
    [
        (Outcome(Say("mine", "n1"), has_come=True), ""),
        (Outcome(Say("mine", "n1"), has_come=False), "not delivered"),
        (DeliveryUnknown(Say("mine", "n1")), "it is not known whether this was sent"),
        (Refused(ErrorCode.UNKNOWN_USER, "There is no user 'eve'.", "n1"), "There is no user 'eve'. It was: mine"),
    ],
)
def test_own_message_is_shown_with_its_outcome(window: Window, news: ClientEvent, remark: str) -> None:
    lines = window.lines(SAID, news)
    assert sum("mine" in line for line in lines) == 1
    assert remark in " ".join(line.split("\u2502 ")[1] for line in lines)


@pytest.mark.parametrize("is_echo_first", [True, False])
def test_own_message_that_is_also_received_is_shown_once(window: Window, is_echo_first: bool) -> None:
    """After a reconnect, the server may take it from the connection that was lost."""
    both = [public(21, "mine", "alice"), SENT]
    assert window.story(SAID, LOST, BACK, *(both if is_echo_first else reversed(both))) == "mine"


# --- rooms ---


def test_messages_of_a_room_have_it_and_those_of_the_lobby_have_none(window: Window) -> None:
    """Also after a change of the current room: rows that were printed before keep their meaning."""
    lines = ["12:00         bob #dev \u2502 hello", "12:00              bob \u2502 hello"]
    assert window.lines(in_room(11), public(12)) == lines
    window.rows(notices.CurrentRoom("dev"))
    assert window.lines(in_room(13), public(14)) == lines
    assert styles_of(window.rows(in_room(15)), "#dev") == {"class:room"}
    own = notices.MessageQueued(Say("mine", "n1", "dev"))
    assert window.lines(own, confirmation(16, "n1")) == ["12:00       alice #dev \u2502 mine"]


def test_text_can_not_imitate_the_mark_of_a_room(window: Window) -> None:
    """The mark stands beside the sender, before the gutter."""
    assert window.lines(public(11, "#dev hello")) == ["12:00              bob \u2502 #dev hello"]


def test_joins_and_leaves_are_shown_of_the_lobby_and_the_current_room(window: Window) -> None:
    """A user who comes online comes online in all rooms."""
    change = [Users(1, None, ("eve",), ("ian",), room) for room in (None, "Dev", "ops")]
    lobby = [NOTICE + "eve joined", NOTICE + "ian left"]
    assert window.lines(*change) == lobby
    window.rows(notices.CurrentRoom("dev"))
    assert window.lines(*change) == [*lobby, NOTICE + "eve joined #Dev", NOTICE + "ian left #Dev"]
    window.rows(notices.Toggle("joins"))
    assert window.lines(*change) == []


def test_only_a_change_of_the_current_room_is_news(window: Window) -> None:
    """/room and /topic ask for the current room and its topic. The answer to a join has the topic already."""
    assert window.lines(notices.CurrentRoom("")) == [NOTICE + "Your messages go to all users."]
    assert window.lines(notices.CurrentRoom("dev", "tea"), notices.CurrentRoom("Dev", "tea")) == [
        NOTICE + "Your messages go to #dev from now on. Topic: tea",
        NOTICE + "The topic of #Dev: tea. Your messages go there.",
    ]
    assert window.lines(notices.CurrentRoom("dev")) == [NOTICE + "#dev has no topic. Your messages go there."]
    assert window.lines(notices.CurrentRoom("")) == [NOTICE + "Your messages go to all users from now on."]


def test_removal_is_told_once(window: Window) -> None:
    """A user who is removed from the current room is told that its messages still go there."""
    window.rows(notices.CurrentRoom("dev"))
    kicked = (events.Kicked(room="dev", username="eve", by="bob"), Users(1, None, (), ("eve", "ian"), "dev"))
    assert window.lines(*kicked) == [NOTICE + "bob removed eve from #dev.", NOTICE + "ian left #dev"]
    assert window.lines(events.Parted("dev", "bob"))[0].startswith(
        PROBLEM + "bob removed you from #dev, and it is still"
    )
    assert window.lines(events.Parted("ops", "bob")) == [NOTICE + "bob removed you from #ops."]


def test_mentions_in_rooms_and_invitations_ring(window: Window) -> None:
    for shown, rings in (
        (in_room(11, "alice?"), True),
        (in_room(12), False),
        (events.Invited("dev", "Alice", "bob"), True),
        (events.Invited("dev", "eve", "bob"), False),
    ):
        window.rows(shown)
        assert window.has_rung() == rings, shown


def test_login_names_the_rooms_with_their_keys_and_new_messages() -> None:
    rooms = (events.RoomState("dev", "", 12), events.RoomState("ops", "", 3))
    welcome = events.Welcome(
        account=AccountKind.EXISTING, username="alice", users=(), last_id=12, seen_id=10, rooms=rooms
    )
    lines = Window(200, is_in=False).lines(welcome)
    told = "Your rooms: [2] #dev (new messages), [3] #ops. Alt-NUMBER or /room NAME changes to one."
    assert lines[-1] == NOTICE + told


def test_history_of_a_room_is_a_block_with_its_name(window: Window) -> None:
    story = window.story(History((in_room(3, "3"),), "dev"), p(12))
    assert story == "-the last message in #dev- -Saturday, 31 January 2026- 3 -now- 12"


# --- deleted messages ---


def test_deletion_of_a_shown_message_is_told_once_and_has_its_tombstone(window: Window) -> None:
    window.rows(public(11), in_room(12), SAID, SENT)
    assert window.lines(events.Deleted(11, "eve"), events.Deleted(12, "bob", "dev"), events.Deleted(21, "alice")) == [
        NOTICE + "eve deleted the message of bob from 12:00.",
        NOTICE + "bob deleted the message of bob from 12:00 in #dev.",
        NOTICE + "alice deleted the message of alice from 12:00.",
    ]
    assert window.lines(events.Deleted(11, "eve")) == []


def test_deleted_message_that_waits_for_the_history_is_not_shown() -> None:
    window = Window(is_in=False)
    story = window.story(WELCOME, p(11), p(12), events.Deleted(11, "eve"), History(()))
    assert story == "-Saturday, 31 January 2026- -new since you were here- 12 -now-"


def test_tombstone_replaces_the_rows_of_its_message(window: Window) -> None:
    """Its text is gone; a rule with the date above it stays. A tombstone has none of the text."""
    printed, tomorrow = PrintedRows(), NOON_MS + DAY_MS
    for shown in (public(11), in_room(12, "one\ntwo"), public(13, "later", time_ms=tomorrow)):
        for entry in window.timeline.entries([shown]):
            printed.add(entry, window.formatter.rows(entry, "alice", 80))
    assert printed.count == 5
    for number, rows_below in ((12, 2), (13, 0)):
        (deletion,) = window.timeline.entries([events.Deleted(number, "eve")])
        assert isinstance(deletion, Deletion)
        again = partial(window.formatter.rows_again, username="alice", width=80)
        assert not printed.replace(deletion.tombstone, again, rows_below)  # it is above the window
        assert printed.replace(deletion.tombstone, again, 24)
        assert not printed.replace(deletion.tombstone, again, 24)
    assert [text_of(row).rstrip() for row in printed.last(10)] == [
        "12:00              bob \u2502 hello",
        "12:00         bob #dev \u2502 (deleted by eve)",
        "\u2500\u2500\u2500 Sunday, 1 February 2026 " + "\u2500" * 48,
        "12:00              bob \u2502 (deleted by eve)",
    ]
    assert styles_of(printed.last(1), "deleted") == {"class:notice"}
    printed.forget()
    assert printed.last(10) == []


def test_numbers_of_messages_are_shown_on_demand(window: Window) -> None:
    """They stand before the sender: in the text, senders could imitate them."""
    window.rows(notices.Toggle("ids"))
    assert window.lines(public(11), direct(12), SAID, SENT) == [
        "12:00           11 bob \u2502 hello",
        "12:00   12 bob \u00bb alice \u2502 psst",
        "12:00         21 alice \u2502 mine",
    ]


def test_message_to_a_room_that_the_user_is_not_in_is_refused_in_plain_words(window: Window) -> None:
    window.rows(notices.MessageQueued(Say("mine", "n1", "dev")))
    refused = Refused(ErrorCode.UNKNOWN_ROOM, "There is no room 'dev' that you may enter.", "n1", "dev")
    assert window.lines(refused) == [PROBLEM + "You are not in #dev; /join #dev enters it. It was:", MORE + "mine"]


# --- a lost connection ---


def test_lost_connection_is_one_notice_and_the_return_another(window: Window) -> None:
    rows = window.rows(notices.ConnectionLost("the server closed the connection"))
    assert text_of(rows[0]) == PROBLEM + "The connection is lost (the server closed the"
    assert styles_of(rows, "lost") == {"class:error"}
    window.now += timedelta(seconds=3.2)
    assert window.lines(BACK) == [NOTICE + "Connected again, after 3 s."]


def test_change_of_the_server_is_one_notice(window: Window) -> None:
    """The loss was told only if no server could be reached."""
    moved = notices.Reconnected("alice", 20, "b:9999", "a:9999")
    window.rows(events.Bye("the server is shutting down"))
    assert window.lines(moved) == [NOTICE + "Connected to b:9999; a:9999 is gone."]
    assert window.lines(BACK) == [NOTICE + "Connected again."]
    assert "(reset)" in "".join(window.lines(LOST)), "not the goodbye of an earlier connection"
    window.now += timedelta(seconds=3)
    assert window.lines(moved) == [NOTICE + "Connected to b:9999, after 3 s; a:9999 is gone."]


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "1 s"), (1.4, "1 s"), (99, "99 s"), (100, "2 min"), (3_600, "60 min"), (6_000, "2 h")]
)
def test_duration_has_a_fitting_unit(window: Window, seconds: float, words: str) -> None:
    window.rows(LOST)
    window.now += timedelta(seconds=seconds)
    assert window.lines(BACK)[-1].endswith(f"after {words}.")


MISSED = "-what you missed-"
RETURNS: dict[str, tuple[list[Shown], str]] = {
    "missed": ([p(15), d(20), p(21), p(22)], f"{MISSED} 15 20 -now- 21 22"),
    "nothing": ([p(21)], "21"),
    "own after it": ([p(15), SENT, p(22)], f"{MISSED} 15 -now- mine 22"),
    "twice": ([p(15), LOST, notices.Reconnected("alice", 30), p(25), p(31)], f"{MISSED} 15 {MISSED} 25 -now- 31"),
    "other day": ([p(15, NOON_MS - DAY_MS)], f"{MISSED} -Friday, 30 January 2026- 15"),
    # Another device sent it, and the restored server has more messages than before: the id is used again.
    "restored": ([PossibleGap(), public(11, "after", "alice")], f"{MISSED} after"),
}


@pytest.mark.parametrize(("shown", "story"), RETURNS.values(), ids=RETURNS)
def test_reconnect_shows_missed_messages_between_rules(window: Window, shown: list[Shown], story: str) -> None:
    window.rows(notices.MessageQueued(Say("before", "n0")), confirmation(11, "n0"), SAID, LOST, BACK)
    assert window.story(*shown) == story


def test_missed_messages_and_mentions_must_be_shown_in_a_flood(window: Window) -> None:
    window.rows(LOST, BACK)
    flood = [p(20), public(22, "alice!"), *(p(number) for number in range(23, 623))]
    entries = list(window.timeline.entries(flood))
    assert [entry.text for entry in entries[:5]] == [
        "what you missed",
        "20",
        "now",
        "alice!",
        "500 messages came too fast to be shown; CH shows the newest.",
    ]
    assert [entry.text for entry in entries[5:]] == [str(number) for number in range(523, 623)]
    assert len(list(window.timeline.entries(flood[-500:]))) == 500


def test_new_message_after_many_missed_ones_is_shown(window: Window) -> None:
    """Messages that must be shown are no reason to leave out the last ones."""
    missed = [p(number) for number in range(1, 802)]
    entries = list(window.timeline.entries([LOST, notices.Reconnected("alice", 801), *missed, p(802)]))
    assert [entry.text for entry in entries if entry.text.isdecimal()] == [str(number) for number in range(1, 803)]


# --- pending messages, status and prompt ---


def pending(width: int = 80, state: ConnectionState = ConnectionState.LOGGED_IN, **given: object) -> list[str]:
    ui_state = UiState(state, "alice", **given)  # type: ignore[arg-type]
    return [text_of(row) for row in Window().formatter.pending(ui_state, width)]


def test_pending_messages_and_lines_say_what_they_wait_for() -> None:
    said = (Say("one", "n1"), Whisper("bob", "two", "n2"))
    assert pending() == []
    assert pending(unconfirmed=(Say("one", "n1", "dev"),)) == ["\u2026 #dev one (not confirmed yet)"]
    told = ["\u2026 one (not confirmed yet)", "\u2026 @bob two (not confirmed yet)", "\u2026 three (waits)"]
    assert pending(unconfirmed=said, waiting=(("", "three"),)) == told
    lost = ["\u2026 #dev x (waits for the connection)"]
    assert pending(state=ConnectionState.DISCONNECTED, waiting=(("dev", "x"),)) == lost
    newest = [f"\u2026 {number} (waits)" for number in range(6, 10)]
    assert pending(waiting=tuple(("", str(number)) for number in range(10))) == ["\u2026 6 more", *newest]
    (row,) = pending(30, unconfirmed=(Say("hello everybody out there", "n1"),))
    assert row.startswith("\u2026 hello")
    assert row.endswith("(not confirmed yet)")


STATES = {
    ConnectionState.DISCONNECTED: "connecting",
    ConnectionState.LOGGING_IN: "logging in",
    ConnectionState.PASSWORD_REQUESTED: "logging in",
    ConnectionState.LOGGED_IN: "connected",
}
WAITING = ("x" * 100, "\u65e5" * 100, "\x1b[2J\nnext\u202e", "hello everybody " * 10)


@pytest.mark.parametrize(("state", "words"), STATES.items())
def test_pending_and_status_rows_fit_in_every_window(state: ConnectionState, words: str) -> None:
    """The state of the connection is always visible."""
    formatter = Window().formatter
    for name in ("", "alice", LONGEST_NAME):
        said = tuple(Whisper(name, text, str(number)) for number, text in enumerate(WAITING))
        for kind in ({"waiting": tuple(("", text) for text in WAITING)}, {"unconfirmed": said}):
            ui_state = UiState(state, name, ("chat.example.org", 9999), 12, None, **kind)  # type: ignore[arg-type]
            for width in range(20, 201, 3):
                status = formatter.status(ui_state, "datagram", width)
                assert text_of(status).endswith(words)
                assert status[-1][0] == ("class:status.up" if words == "connected" else "class:status.down")
                for row in (*formatter.pending(ui_state, width), status):
                    assert columns_of(text_of(row)) <= width, (width, text_of(row))
                    assert escape_control_characters(text_of(row)) == text_of(row)


@pytest.mark.parametrize(
    ("question", "words"),
    [
        (ASK_USERNAME, "not connected"),
        (Question(Asked.SERVER, "server"), "not connected"),
        (NEW_ACCOUNT, "logging in"),  # the connection was lost while the password is typed
    ],
)
def test_status_before_the_connection_follows_the_question(window: Window, question: Question, words: str) -> None:
    state = UiState(ConnectionState.DISCONNECTED, "alice", question=question)
    assert text_of(window.formatter.status(state, "json", 80)).endswith(words)


def test_status_reports_a_lost_connection(window: Window) -> None:
    away = UiState(ConnectionState.DISCONNECTED, "alice", was_logged_in=True)
    assert text_of(window.formatter.status(away, "json", 80)).endswith("connection lost, trying again")
    back = away._replace(connection_state=ConnectionState.LOGGED_IN)
    assert text_of(window.formatter.status(back, "json", 80)).endswith(" connected")


@pytest.mark.parametrize(
    ("width", "status"),
    [
        (80, "alice \u00b7 localhost:9999 \u00b7 json \u00b7 2 online \u00b7 quiet \u00b7 connected"),
        (57, "alice \u00b7 localhost:9999 \u00b7 json \u00b7 2 online \u00b7 connected"),
        (48, "alice \u00b7 localhost:9999 \u00b7 2 online \u00b7 connected"),
        (38, "alice \u00b7 2 online \u00b7 connected"),
        (22, "alice \u00b7 connected"),
    ],
)
def test_narrow_window_omits_words_of_the_status(width: int, status: str) -> None:
    ui_state = UiState(ConnectionState.LOGGED_IN, "alice", ("localhost", 9999), 2)
    assert text_of(Window().formatter.status(ui_state, "json", width, is_quiet=True)) == status


def test_status_has_the_current_room_and_unread_messages_of_others() -> None:
    unread = (Unread(1, "lobby", 2), Unread(3, "ops", 5))
    ui_state = UiState(
        ConnectionState.LOGGED_IN, "alice", ("localhost", 9999), 2, room="dev", room_number=2, unread=unread
    )
    unread_told = "[1] lobby (2 new), [3] #ops (5 new)"
    for width, status in (
        (100, f"alice \u00b7 localhost:9999 \u00b7 2 online \u00b7 [2] #dev \u00b7 {unread_told} \u00b7 connected"),
        (90, f"alice \u00b7 2 online \u00b7 [2] #dev \u00b7 {unread_told} \u00b7 connected"),
        (70, f"alice \u00b7 [2] #dev \u00b7 {unread_told} \u00b7 connected"),
        (50, f"{unread_told} \u00b7 connected"),
        (20, "connected"),
    ):
        assert text_of(Window().formatter.status(ui_state, "json", width)) == status
    removed = ui_state._replace(room_number=None, unread=())
    assert " \u00b7 #dev (not a member) \u00b7 connected" in text_of(Window().formatter.status(removed, "json", 200))
    many = tuple(Unread(number, f"room{number}", 1) for number in range(2, 10))
    row = text_of(Window().formatter.status(ui_state._replace(unread=many), "json", 200))
    assert "[2] #room2 (1 new), [3] #room3 (1 new), [4] #room4 (1 new), 5 more" in row


@pytest.mark.parametrize(
    ("username", "room", "width", "text"),
    [
        ("alice", "dev", 80, "alice #dev> "),
        ("alice", "d" * 32, 80, f"#{'d' * 32}> "),
        ("n" * 32, "dev", 60, "#dev> "),
        ("n" * 32, "d" * 32, 60, f"#{'d' * 27}> "),
        ("alice", "\x1b[2J", 80, "alice #\\x1b[2J> "),
    ],
)
def test_prompt_with_a_room_leaves_half_of_the_window(username: str, room: str, width: int, text: str) -> None:
    assert prompt(UiState(ConnectionState.LOGGED_IN, username, room=room), width) == text


@pytest.mark.parametrize(
    ("ui_state", "text"),
    [
        (UiState(ConnectionState.LOGGED_IN, "a\x1b[2J"), "a\\x1b[2J> "),
        (
            UiState(ConnectionState.LOGGED_IN, "alice", question=Question(Asked.TEXT, "message for \x9b")),
            "message for \\x9b: ",
        ),
        (UiState(ConnectionState.LOGGING_IN, "alice", is_secret=True), ""),
        (UiState(ConnectionState.PASSWORD_REQUESTED, "alice", question=NEW_ACCOUNT, is_secret=True), "password: "),
    ],
)
def test_prompt_is_the_question_or_the_username(ui_state: UiState, text: str) -> None:
    assert prompt(ui_state, 80) == text


def test_names_and_rows_of_any_length_are_kept_up_to_a_limit(window: Window) -> None:
    """Promise: memory stays bounded, whatever a server sends."""
    for number in range(11, 311):
        assert len([*window.timeline.entries([public(number, "x", "b" * 100_000)])]) == 1
    assert held_bytes(window.timeline) < 1_000_000
    printed, (entry,) = PrintedRows(), window.timeline.entries([public(2_000, "x" * 10_000)])
    rows = window.formatter.rows(entry, "alice", 20)
    for _ in range(100):
        printed.add(entry, rows)
    assert 4_000 < printed.count < 6_000
    printed.add(entry, rows * 100)
    assert printed.count == 100 * len(rows)


def test_messages_that_wait_for_the_history_are_shown_if_they_are_many() -> None:
    """A server that never sends the history does not fill the memory."""
    timeline = Window(is_in=False).timeline
    received = [public(number, "x" * 50_000) for number in range(11, 150)]
    entries = [entry for event in (WELCOME, *received) for entry in timeline.entries([event])]
    assert held_bytes(timeline) < 5_000_000
    assert [entry.id for entry in entries if isinstance(entry, Text)] == [event.id for event in received]
