"""The screen: what a person sees of each thing that happens, at any width, and nothing that harms a terminal."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatclient import notices
from chatclient.client_protocol import DeliveryUnknown, Outcome, PossibleGap
from chatclient.model import ConnectionState, UiState
from chatclient.ui.layout import ASCII_GLYPHS, STYLES, Glyphs
from chatclient.ui.text import columns_of, escape_control_characters
from chatclient.ui.timeline import Timeline
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

from .test_text import ATTACKS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chatclient.client_protocol import ClientEvent
    from chatclient.notices import UiNotice
    from chatclient.ui.layout import Row

NOON = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
NOON_MS = 1_769_860_800_123
DAY_MS = 24 * 60 * 60 * 1000
LONGEST_NAME = "N" * 32
TODAY = "\u2500\u2500\u2500 Saturday, 31 January 2026 "
WELCOME = Welcome(AccountKind.EXISTING, "alice", (), 10)


class Watcher:
    """Somebody before a screen: what is shown, as text."""

    def __init__(self, width: int = 80, glyphs: Glyphs | None = None, *, is_in: bool = True, **settings: bool) -> None:
        self.now = NOON
        self.width = width
        self.timeline = Timeline(lambda: self.now, UTC, glyphs or Glyphs(), **settings)
        if is_in:
            self.timeline.rows_of(WELCOME, width)
            self.timeline.rows_of(History(()), width)

    def rows(self, shown: ClientEvent | UiNotice) -> list[Row]:
        return self.timeline.rows_of(shown, self.width)

    def sees(self, *shown: ClientEvent | UiNotice) -> list[str]:
        """What is seen of all of it."""
        return [text_of(row).rstrip() for each in shown for row in self.rows(each)]

    def is_rung(self) -> bool:
        rings, self.timeline.rings = self.timeline.rings, False
        return rings


def text_of(row: Row) -> str:
    return "".join(part for _, part in row)


def styles_of(rows: Sequence[Row], text: str) -> set[str]:
    """How the pieces with this text in them look."""
    return {style for row in rows for style, part in row if text in part}


def public(message_id: int, text: str = "hello", sender: str = "bob", time_ms: int = NOON_MS) -> PublicMessage:
    return PublicMessage(message_id, time_ms, sender, text)


def direct(message_id: int, text: str = "psst", sender: str = "bob", recipient: str = "alice") -> DirectMessage:
    return DirectMessage(message_id, NOON_MS, sender, recipient, text)


@pytest.fixture
def watcher() -> Watcher:
    """Somebody who is in, and has seen the day."""
    return Watcher()


# --- what each thing looks like ---

NOTICE = "12:00                * \u2502 "
PROBLEM = "12:00                ! \u2502 "
ROWS: list[tuple[ClientEvent | UiNotice, list[str]]] = [
    (public(11), ["12:00              bob \u2502 hello"]),
    (public(11, "\u65e5\u672c\u8a9e"), ["12:00              bob \u2502 \u65e5\u672c\u8a9e"]),
    (public(11, "one\ntwo"), ["12:00              bob \u2502 one", "                       \u2502 two"]),
    (public(11, "one\r\ntwo"), ["12:00              bob \u2502 one", "                       \u2502 two"]),
    (public(11, "a\tb"), ["12:00              bob \u2502 a   b"]),
    (
        public(11, "hello", LONGEST_NAME),
        [f"12:00 {LONGEST_NAME} \u2502", "                       \u2502 hello"],
    ),
    (public(11, "hello", "alice"), ["12:00            alice \u2502 hello"]),
    (direct(11), ["12:00      bob \u00bb alice \u2502 psst"]),
    (direct(11, sender="alice", recipient="bob"), ["12:00      alice \u00bb bob \u2502 psst"]),
    (direct(11, recipient=""), ["12:00          bob \u00bb ? \u2502 psst"]),
    (public(11, "/me waves"), [NOTICE + "bob waves"]),
    (direct(11, "/me waves"), ["12:00      bob \u00bb alice \u2502 * bob waves"]),
    (Forwarded("bob", "/me waves"), [NOTICE + "bob waves"]),
    (Forwarded("bob", "hello"), ["12:00              bob \u2502 hello"]),
    (Users(2, ("alice", "bob"), ("bob",)), [NOTICE + "bob joined"]),
    (Users(2, None, ("eve", "Bob"), ("ian",)), [NOTICE + "Bob, eve joined", NOTICE + "ian left"]),
    (Users(2, ("alice", "bob")), []),
    (Online(("bob", "alice", "Carol")), [NOTICE + "3 online: alice, bob, Carol"]),
    (Welcome(AccountKind.NEW, "alice", (), 0), [NOTICE + "You are alice, which is your name from now on."]),
    (Welcome(AccountKind.EXISTING, "alice", (), 0), [NOTICE + "You are alice."]),
    (Welcome(AccountKind.GUEST, "alice", (), None), [NOTICE + "You are alice, a guest."]),
    (
        Welcome(AccountKind.EXISTING, "alice", ("bob", "alice"), 0),
        [NOTICE + "You are alice.", NOTICE + "2 online: alice, bob"],
    ),
    (Bye("you left"), [NOTICE + "You left."]),
    (Bye("the server is shutting down"), []),
    (
        PossibleGap(),
        [PROBLEM + "More may have been missed than is shown; CH 500 shows", "                       \u2502 more."],
    ),
    (PossibleGap(has_history=False), [PROBLEM + "More may have been missed than is shown."]),
    (Refused(ErrorCode.TOO_LONG, "Too long."), [PROBLEM + "Too long."]),
    (Refused(ErrorCode.TOO_LONG, "Too long.", "other"), [PROBLEM + "Too long."]),
    (History(()), [NOTICE + "There are no messages yet."]),
    (Found("caf\u00e9", (), 11), [NOTICE + "Nothing was found: caf\u00e9"]),
    (notices.ErrorNotice("usage", "No."), [PROBLEM + "No."]),
    (notices.Help(("PM   all", "EX   leave")), [NOTICE + "PM   all", NOTICE + "EX   leave"]),
    (notices.Ask("password new"), [NOTICE + "Nobody has this name yet: choose a password."]),
    (notices.Ask("password again"), [NOTICE + "The same password again, to be sure of it."]),
    (PasswordChanged(), [NOTICE + "Your password is changed."]),
    (notices.Ask("password existing"), [NOTICE + "This name has a password."]),
    (notices.Ask("recipient"), []),
    (notices.Ask("message for bob"), []),
    (notices.MessageQueued(Say("x", "n1")), []),
    (notices.Toggle("joins"), [NOTICE + "Who comes and goes is hidden from now on."]),
    (notices.Toggle("quiet"), [NOTICE + "No bell and no highlight from now on."]),
    (Sent(11, SentStatus.SENT), []),
    (Sent(11, SentStatus.SENT, "somebody else's"), []),
    (Ready(), []),
    (Pong(), []),
    (Registered(Side.SENDING, "alice"), []),
    (Delivered("bob"), []),
    (NotDelivered(), []),
    (PasswordPrompt(AccountKind.NEW), []),
]


@pytest.mark.parametrize(("shown", "rows"), ROWS)
def test_each_thing_that_happens_has_its_rows(watcher: Watcher, shown: ClientEvent | UiNotice, rows: list[str]) -> None:
    assert watcher.sees(shown) == rows


# Between two lines, or only in its place.
BLOCKS: list[ClientEvent | UiNotice] = [
    History((public(1), direct(2))),
    Found("hello", (public(1),), 1),
    notices.ConnectionLost("reset"),
    notices.Reconnected("alice", 20),
]
# After they were posted.
SETTLED: list[ClientEvent | UiNotice] = [
    Sent(11, SentStatus.STORED, "n1"),
    Outcome(Whisper(LONGEST_NAME, "hello", "n1"), has_come=False),
    DeliveryUnknown(Say("hello", "n1")),
    Refused(ErrorCode.UNKNOWN_USER, "There is none.", "n1"),
]
EVERYTHING = [shown for shown, _ in ROWS] + BLOCKS + SETTLED
ODD_TEXTS = [
    "hello everybody " * 30,
    "x" * 1_000,
    "\u65e5\u672c\u8a9e" * 100,
    "e\u0301" * 300,
    "\U0001f468\u200d\U0001f469\u200d\U0001f467 \u2764\ufe0f" * 50,
    "a\n\n\tb\n" * 30,
    *(written for what, written, _ in ATTACKS if what != "half a letter"),  # which no wire can carry
]
ODD_THINGS = [
    thing
    for text in ODD_TEXTS
    for thing in (
        public(11, text),
        direct(12, text, LONGEST_NAME, "n" * 32),
        Forwarded(text, text),
        public(13, "hello", text),
        direct(14, "hello", text, text),
        Users(3, None, (text,), (text,)),
        Online((text, "alice")),
        History((public(1, text), direct(2, text, text))),
        Found(text, (public(1, text, text),), 1),
        Found(text, (), 1),
        Refused(ErrorCode.BAD_REQUEST, text, "n1"),
        Bye(text),
        DeliveryUnknown(Whisper(text, text, "n1")),
        Outcome(Say(text, "n1"), has_come=True),
        Sent(15, SentStatus.STORED, "n1"),
        notices.ErrorNotice("lost", text),
        notices.Help((text,)),
        notices.ConnectionLost(text),
        Welcome(AccountKind.NEW, text, (text,), 0),
        notices.Reconnected(text, 20),
    )
]


def all_rows(shown: ClientEvent | UiNotice, width: int, *, is_in: bool = True) -> list[Row]:
    watcher = Watcher(width, is_in=is_in)
    watcher.rows(notices.MessageQueued(Whisper(LONGEST_NAME, "\x1b[2J " + "hello " * 20, "n1")))
    return [*watcher.rows(shown), *watcher.rows(public(30, "after it"))]


@pytest.mark.parametrize("width", [20, 21, 29, 30, 39, 40, 41, 59, 60, 61, 79, 80, 120, 200])
@pytest.mark.parametrize("is_in", [True, False])
def test_no_row_is_wider_than_the_window(width: int, is_in: bool) -> None:
    """The terminal would break it anywhere, and the next row would begin at the left edge."""
    for shown in [*EVERYTHING, *ODD_THINGS]:
        for row in all_rows(shown, width, is_in=is_in):
            assert columns_of(text_of(row)) <= width, (type(shown).__name__, text_of(row))


def test_no_row_has_anything_in_it_that_does_something_to_a_terminal() -> None:
    """Promise: safety, from live messages and stored history alike, and from names."""
    for width in (20, 40, 60, 80):
        for shown in [*EVERYTHING, *ODD_THINGS]:
            for row in all_rows(shown, width):
                assert escape_control_characters(text_of(row)) == text_of(row), (type(shown).__name__, text_of(row))


def test_every_piece_of_a_row_is_text_with_a_style() -> None:
    names = {f"class:{name}" for name in STYLES}
    for shown in [*EVERYTHING, *ODD_THINGS]:
        for row in all_rows(shown, 80):
            for style, text in row:
                assert isinstance(text, str)
                assert all(word in names or word.startswith("#") for word in style.split()), style


@given(
    text=st.text(max_size=300), sender=st.from_regex("[A-Za-z0-9]{1,10}", fullmatch=True), width=st.integers(20, 200)
)
def test_whatever_is_written_stays_in_its_columns(text: str, sender: str, width: int) -> None:
    for shown in (public(11, text, sender), direct(12, text, "b", "c")):
        first, *others = Watcher(width).sees(shown)
        assert first.startswith("12:00 ")
        for row in others:
            indent = len(row) - len(row.lstrip(" "))
            assert not row or indent >= 2, row
            assert width < 60 or row[indent] == "\u2502"


@pytest.mark.parametrize(("width", "gutter"), [(60, 13), (67, 14), (79, 17), (80, 23), (133, 23)])
def test_the_gutter_is_in_the_same_column_whoever_writes_whatever(width: int, gutter: int) -> None:
    """Below 80 columns what stands before the text takes a quarter of the window."""
    names = ["b", "alice", "Bob7", "x" * 6, "\u65e5\u672c\u8a9e", "e\u0301"]
    texts = [
        "hello " * 40,
        "\u65e5\u672c\u8a9e " * 20,
        "e\u0301 " * 40,
        "\u2764\ufe0f \U0001f600 " * 20,
        "a\nb\n\nc",
        "",
    ]
    rows = [row for name in names for text in texts for row in Watcher(width).sees(public(11, text, name))]
    rows += Watcher(width).sees(Bye("you left"), notices.ErrorNotice("usage", "No. " * 40), Online(("bob", "eve")))

    assert {columns_of(row[: row.index("\u2502")]) for row in rows} == {gutter}


def test_a_name_that_is_too_long_for_its_column_has_a_row_of_its_own() -> None:
    watcher = Watcher(60)

    assert watcher.sees(public(11, "hello", "letters")) == [
        "12:00 letters \u2502",
        "             \u2502 hello",
    ]
    assert watcher.sees(public(12, "hello", "letter")) == ["12:00 letter \u2502 hello"]


def test_below_sixty_columns_a_text_of_several_rows_is_indented_under_time_and_name() -> None:
    watcher = Watcher(39)

    assert watcher.sees(public(11, "hello everybody out there in the wide world")) == [
        "12:00 bob",
        "  hello everybody out there in the",
        "  wide world",
    ]
    assert watcher.sees(direct(12)) == ["12:00 bob \u00bb alice \u2502 psst"]
    assert watcher.sees(public(13, "x" * 26)) == ["12:00 bob \u2502 " + "x" * 26]
    assert watcher.sees(public(14, "x" * 27)) == ["12:00 bob", "  " + "x" * 27]


def test_a_message_of_very_many_lines_does_not_push_everything_away(watcher: Watcher) -> None:
    rows = watcher.sees(public(11, "\n" * 8_000 + "end"))

    assert len(rows) == 61
    assert rows[-1].endswith("\u2502 (7941 more lines are not shown)")


def test_where_there_is_only_ascii_the_signs_are_ascii_too() -> None:
    watcher = Watcher(glyphs=ASCII_GLYPHS)

    assert watcher.sees(public(11, time_ms=NOON_MS + DAY_MS)) == [
        "--- Sunday, 1 February 2026 " + "-" * 48,
        "12:00              bob | hello",
    ]
    assert watcher.sees(direct(12))[-1] == "12:00      bob > alice | psst"
    ui_state = UiState(ConnectionState.IN, "alice", ("localhost", 9999), 2, waiting=("x",))
    assert text_of(watcher.timeline.pending(ui_state, 80)[0]) == "... x (waits)"
    assert (
        text_of(watcher.timeline.status(ui_state, "json", 80)) == "alice - localhost:9999 - json - 2 online - connected"
    )


# --- days and times ---


def test_each_new_day_is_named_once(watcher: Watcher) -> None:
    rows = watcher.sees(
        public(11),
        public(12, time_ms=NOON_MS + DAY_MS),
        public(13, time_ms=NOON_MS + DAY_MS + 60_000),
        public(14, time_ms=NOON_MS + 2 * DAY_MS),
    )

    assert [row.strip("\u2500 ") for row in rows] == [
        "12:00              bob \u2502 hello",
        "Sunday, 1 February 2026",
        "12:00              bob \u2502 hello",
        "12:01              bob \u2502 hello",
        "Monday, 2 February 2026",
        "12:00              bob \u2502 hello",
    ]


def test_the_day_changes_at_the_persons_midnight() -> None:
    timeline = Timeline(lambda: NOON, timezone(timedelta(hours=14)))
    rows = [text_of(row) for row in timeline.rows_of(public(11), 80)]

    assert [row[:29].strip("\u2500 ") for row in rows] == [
        "Sunday, 1 February 2026",
        "02:00              bob \u2502 hell",
    ]


@pytest.mark.parametrize("time_ms", [10**18, -(10**18), 253_402_300_800_000, 2**63 - 1])
def test_a_time_that_no_calendar_has_is_now(watcher: Watcher, time_ms: int) -> None:
    assert watcher.sees(public(11, time_ms=time_ms))[-1] == "12:00              bob \u2502 hello"


# --- who is meant ---


@pytest.mark.parametrize(
    ("text", "is_meant"),
    [
        ("alice", True),
        ("hello Alice!", True),
        ("ALICE: come", True),
        ("@alice", True),
        ("(alice)", True),
        ("\u65e5alice\u672c", True),
        ("alice's", True),
        ("alices", False),
        ("malice", False),
        ("alice2", False),
        ("ali ce", False),
        ("", False),
    ],
)
def test_a_bell_and_a_highlight_tell_whose_name_is_a_word_of_a_message(
    watcher: Watcher, text: str, is_meant: bool
) -> None:
    for shown in (public(11, text), Forwarded("bob", text)):
        rows = watcher.rows(shown)
        assert watcher.is_rung() == is_meant
        assert any("class:alert" in style for row in rows for style, _ in row) == is_meant


def test_a_direct_message_from_somebody_else_is_a_matter_of_its_own(watcher: Watcher) -> None:
    rows = watcher.rows(direct(11))

    assert watcher.is_rung()
    assert styles_of(rows, "psst") == {"class:direct class:alert"}


@pytest.mark.parametrize(
    "shown",
    [
        public(11, "I am alice", "alice"),
        public(11, "I am alice", "ALICE"),
        direct(11, "alice", "alice", "bob"),
        direct(11, "alice", "alice", "alice"),
        Users(2, None, ("alice",)),
        Online(("alice",)),
        notices.ErrorNotice("usage", "alice"),
    ],
)
def test_nobody_is_alerted_by_themselves_or_by_the_server(watcher: Watcher, shown: ClientEvent | UiNotice) -> None:
    rows = watcher.rows(shown)

    assert rows
    assert not watcher.is_rung()
    assert not any("class:alert" in style for row in rows for style, _ in row)


@pytest.mark.parametrize("shown", [History((direct(1), public(2, "alice"))), Found("alice", (public(2, "alice"),), 2)])
def test_what_was_said_before_rings_no_bell(watcher: Watcher, shown: History | Found) -> None:
    assert watcher.rows(shown)
    assert not watcher.is_rung()


def test_what_was_missed_does_ring(watcher: Watcher) -> None:
    watcher.sees(notices.ConnectionLost("reset"), notices.Reconnected("alice", 20), direct(15))

    assert watcher.is_rung()


def test_who_wants_quiet_has_no_bell_and_no_highlight_until_it_is_switched_back(watcher: Watcher) -> None:
    for is_meant in (False, True):
        watcher.rows(notices.Toggle("quiet"))
        rows = watcher.rows(direct(11)) + watcher.rows(public(12, "alice!"))
        assert watcher.is_rung() == is_meant
        assert any("class:alert" in style for row in rows for style, _ in row) == is_meant
    quiet = Watcher(is_quiet=True)
    quiet.rows(direct(11))
    assert not quiet.is_rung()


def test_who_comes_and_goes_can_be_hidden_and_shown_again(watcher: Watcher) -> None:
    comes = Users(2, None, ("bob",))
    assert watcher.sees(notices.Toggle("joins"))[-1].endswith("hidden from now on.")
    assert watcher.sees(comes, Users(1, None, (), ("bob",))) == []
    assert watcher.sees(notices.Toggle("joins"))[-1].endswith("shown from now on.")
    assert watcher.sees(comes) == [NOTICE + "bob joined"]
    assert Watcher(shows_joins=False).sees(comes) == []


# --- colours ---


def test_a_name_has_the_same_colour_everywhere_and_for_everybody() -> None:
    one, other = Watcher(), Watcher(40)
    other.rows(Welcome(AccountKind.NEW, "carol", (), 0))
    other.rows(History(()))
    rows = [*one.rows(public(11)), *one.rows(direct(12)), *other.rows(public(11, sender="BOB"))]
    rows += [*one.rows(History((public(1),))), *other.rows(Forwarded("bob", "x")), *other.rows(direct(9))]

    assert len(styles_of(rows, "bob") | styles_of(rows, "BOB")) == 1


def test_the_colour_of_a_name_never_changes_from_one_release_to_the_next() -> None:
    colours = {name: styles_of(Watcher().rows(public(11, "x", name)), name).pop() for name in ("bob", "carol", "dave")}

    assert colours == {"bob": "#875fff", "carol": "#87875f", "dave": "#875fff"}


def test_names_have_a_good_number_of_colours() -> None:
    names = [f"user{number}" for number in range(100)]

    assert len({styles_of(Watcher().rows(public(11, "x", name)), name).pop() for name in names}) >= 10


def test_ones_own_name_and_direct_messages_look_otherwise(watcher: Watcher) -> None:
    assert styles_of(watcher.rows(public(11, sender="Alice")), "Alice") == {"class:own"}
    assert "class:direct" in styles_of(watcher.rows(direct(12, sender="alice", recipient="bob")), "psst").pop()
    assert styles_of(watcher.rows(public(13)), "hello") == {""}
    assert styles_of(watcher.rows(notices.ErrorNotice("usage", "No.")), "No.") == {"class:error"}


# --- coming in ---


def entering(watcher: Watcher, *shown: ClientEvent | UiNotice) -> list[str]:
    """What is seen of the messages, and the lines between them."""
    rows = watcher.sees(*shown)
    return [row.split("\u2502 ")[-1].strip("\u2500 ") for row in rows if "*" not in row]


def test_a_login_shows_the_last_messages_between_two_lines() -> None:
    watcher = Watcher(is_in=False)

    assert entering(watcher, WELCOME, History((public(1, "one"), public(2, "two"))), public(3, "three")) == [
        "Saturday, 31 January 2026",
        "the last 2 messages",
        "one",
        "two",
        "now",
        "three",
    ]


def test_direct_messages_that_waited_are_among_the_last_ones_and_each_is_there_once() -> None:
    watcher = Watcher(is_in=False)
    history = History((public(7, "seven"), direct(8, "eight"), public(9, "nine")))

    assert entering(watcher, WELCOME, direct(3, "three"), direct(8, "eight"), public(10, "ten"), history) == [
        "Saturday, 31 January 2026",
        "new since you were here",
        "three",
        "seven",
        "eight",
        "nine",
        "ten",
        "now",
    ]
    assert watcher.is_rung()


def test_a_line_marks_what_is_new_after_a_login() -> None:
    """Nobody was there for a message that waited, so all that came after it is new, too."""
    watcher = Watcher(is_in=False)
    history = History((public(7, "seven"), direct(8, "eight"), public(9, "nine")))

    assert entering(watcher, WELCOME, direct(8, "eight"), history, public(10, "ten")) == [
        "Saturday, 31 January 2026",
        "the last 3 messages",
        "seven",
        "new since you were here",
        "eight",
        "nine",
        "now",
        "ten",
    ]


@pytest.mark.parametrize(
    ("seen_id", "marked"),
    [(None, None), (6, "seven"), (7, "eight"), (8, "nine"), (9, None), (0, "seven")],
)
def test_the_line_stands_before_the_first_message_after_the_last_visit(seen_id: int | None, marked: str | None) -> None:
    watcher = Watcher(is_in=False)
    welcome = Welcome(AccountKind.EXISTING, "alice", (), 9, seen_id=seen_id)
    told = entering(watcher, welcome, History((public(7, "seven"), public(8, "eight"), public(9, "nine"))))

    line = "new since you were here"
    assert (told[told.index(line) + 1] if line in told else None) == marked
    assert told[-1] == "now"


def test_a_direct_message_that_waited_is_new_whatever_was_seen() -> None:
    watcher = Watcher(is_in=False)
    welcome = Welcome(AccountKind.EXISTING, "alice", (), 9, seen_id=9)
    told = entering(watcher, welcome, direct(8, "eight"), History((public(7, "seven"), direct(8, "eight"))))

    assert told[-4:] == ["seven", "new since you were here", "eight", "now"]


def test_a_room_without_messages_has_no_lines_around_nothing() -> None:
    assert entering(Watcher(is_in=False), WELCOME, History(()), public(1)) == ["Saturday, 31 January 2026", "hello"]


def test_one_message_is_the_last_message() -> None:
    assert entering(Watcher(is_in=False), WELCOME, History((public(1),)))[1] == "the last message"


@pytest.mark.parametrize(
    "instead", [Refused(ErrorCode.INTERNAL, "Disk."), notices.ConnectionLost("reset")], ids=["refused", "lost"]
)
def test_what_waited_is_shown_where_the_history_does_not_come(instead: ClientEvent | UiNotice) -> None:
    watcher = Watcher(is_in=False)
    rows = watcher.sees(WELCOME, direct(3, "three"), instead, public(11, "eleven"))

    assert [row.split("\u2502 ")[1] for row in rows if "three" in row or "eleven" in row] == ["three", "eleven"]


@pytest.mark.parametrize(
    "between",
    [
        notices.ErrorNotice("usage", "x"),
        notices.Help(("x",)),
        notices.Toggle("quiet"),
        Refused(ErrorCode.UNKNOWN_USER, "x", "n1"),
        Sent(11, SentStatus.SENT, "n1"),
        Users(2, None, ("eve",)),
        Online(("alice",)),
    ],
)
def test_each_message_is_there_once_whatever_happens_before_the_last_ones_have_come(
    between: ClientEvent | UiNotice,
) -> None:
    watcher = Watcher(is_in=False)
    watcher.rows(notices.MessageQueued(Say("typed ahead", "n1")))
    rows = watcher.sees(WELCOME, direct(3, "three"), between, public(12, "twelve"))
    rows += watcher.sees(History((direct(3, "three"), public(4, "four"))), public(13, "thirteen"))

    for text in ("three", "four", "twelve", "thirteen"):
        assert sum(row.endswith(f"\u2502 {text}") for row in rows) == 1, rows


def test_a_guest_has_no_last_messages_and_waits_for_none() -> None:
    watcher = Watcher(is_in=False)
    watcher.sees(Welcome(AccountKind.GUEST, "alice", (), None))

    assert watcher.sees(Forwarded("bob", "hello")) == ["12:00              bob \u2502 hello"]


def test_history_that_was_asked_for_stands_between_two_lines_with_its_day(watcher: Watcher) -> None:
    assert entering(watcher, public(11), History((public(1, "one"),)), public(12)) == [
        "hello",
        "the last message",
        "Saturday, 31 January 2026",
        "one",
        "now",
        "hello",
    ]


def test_what_was_found_says_how_much_and_for_which_words(watcher: Watcher) -> None:
    found = Found("caf\u00e9 \x1b[2J", (public(1, "caf\u00e9"), direct(2, "cafe")), 2)

    assert entering(watcher, found)[0] == "2 messages found: caf\u00e9 \\x1b[2J"
    assert entering(watcher, Found("x", (public(1),), 2))[0] == "1 message found: x"


def test_who_searches_is_told_when_the_newest_messages_were_not_looked_through(watcher: Watcher) -> None:
    watcher.rows(public(11))

    assert watcher.sees(Found("x", (), 11)) == [NOTICE + "Nothing was found: x"]
    assert watcher.sees(Found("x", (), 10))[-1] == NOTICE + "What came last is not searched yet; try again."
    assert watcher.sees(Found("x", (public(1),), 10))[-1].endswith("not searched yet; try again.")


# --- what one says oneself ---


def test_an_own_message_is_shown_when_it_is_confirmed_and_not_before(watcher: Watcher) -> None:
    """Promise: confirmed means stored."""
    assert (
        watcher.sees(notices.MessageQueued(Say("hello", "n1")), notices.MessageQueued(Whisper("bob", "psst", "n2")))
        == []
    )
    assert watcher.sees(Sent(11, SentStatus.SENT, "n1")) == ["12:00            alice \u2502 hello"]
    assert watcher.sees(Sent(12, SentStatus.STORED, "n2")) == [
        "12:00      alice \u00bb bob \u2502 psst",
        NOTICE + "not online; it is delivered at the next login",
    ]
    assert watcher.sees(Sent(11, SentStatus.SENT, "n1")) == []


def test_who_writes_to_a_guest_is_told_that_it_looks_public_there(watcher: Watcher) -> None:
    watcher.rows(notices.MessageQueued(Whisper("bob", "psst", "n1")))

    assert watcher.sees(Sent(11, SentStatus.SENT, "n1", looks_public=True)) == [
        "12:00      alice \u00bb bob \u2502 psst",
        NOTICE + "a guest can't see that this is a direct message",
    ]


def test_an_own_message_that_is_refused_is_shown_with_the_reason(watcher: Watcher) -> None:
    watcher.rows(notices.MessageQueued(Whisper("eve", "my words", "n1")))
    (row,) = watcher.sees(Refused(ErrorCode.UNKNOWN_USER, "There is no user 'eve'.", "n1"))

    assert row.startswith(PROBLEM + "There is no user 'eve'. It was: my words")


@pytest.mark.parametrize(
    ("news", "remark"),
    [
        (Outcome(Say("hello", "n1"), has_come=True), ""),
        (Outcome(Say("hello", "n1"), has_come=False), "not delivered"),
        (DeliveryUnknown(Say("hello", "n1")), "it is not known whether this was sent"),
    ],
)
def test_what_became_of_an_own_message_is_said_below_it(
    watcher: Watcher, news: Outcome | DeliveryUnknown, remark: str
) -> None:
    watcher.rows(notices.MessageQueued(Say("hello", "n1")))
    first, *others = watcher.sees(news)

    assert first == "12:00            alice \u2502 hello"
    assert remark in " ".join(row.split("\u2502 ")[1] for row in others)
    assert bool(remark) == bool(others)


@pytest.mark.parametrize("first", ["echo", "confirmation"])
def test_an_own_message_that_comes_back_over_the_new_connection_is_there_once(watcher: Watcher, first: str) -> None:
    """The server may take it from the connection that was lost when its user is back already."""
    echo, sent = public(21, "my words", "alice"), Sent(21, SentStatus.SENT, "n1")
    rows = watcher.sees(
        notices.MessageQueued(Say("my words", "n1")), notices.ConnectionLost("reset"), notices.Reconnected("alice", 20)
    )
    rows += watcher.sees(*((echo, sent) if first == "echo" else (sent, echo)))

    assert sum("my words" in row for row in rows) == 1, rows


# --- a lost connection ---


def test_a_lost_connection_is_one_line_and_the_return_says_how_long_it_took(watcher: Watcher) -> None:
    rows = watcher.rows(notices.ConnectionLost("the server closed the connection"))
    assert text_of(rows[0]) == PROBLEM + "The connection is lost (the server closed the"
    assert styles_of(rows, "lost") == {"class:error"}
    watcher.now += timedelta(seconds=3.2)
    assert watcher.sees(notices.Reconnected("alice", 10)) == [NOTICE + "Connected again, after 3 s."]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "1 s"),
        (1.4, "1 s"),
        (59, "59 s"),
        (99, "99 s"),
        (100, "2 min"),
        (3_600, "60 min"),
        (6_000, "2 h"),
        (90_000, "25 h"),
    ],
)
def test_how_long_it_took_is_said_in_a_unit_that_fits(watcher: Watcher, seconds: float, words: str) -> None:
    watcher.rows(notices.ConnectionLost("reset"))
    watcher.now += timedelta(seconds=seconds)

    assert watcher.sees(notices.Reconnected("alice", 10))[-1].endswith(f"after {words}.")


def returning(watcher: Watcher, *shown: ClientEvent | UiNotice) -> list[str]:
    """What is seen of the messages since the first return, and the lines between them."""
    watcher.width = 160
    rows = watcher.sees(*shown)
    at = next(index for index, row in enumerate(rows) if "Connected again" in row)
    return [row.split("\u2502 ")[-1].strip("\u2500 ") for row in rows[at:] if not row.startswith((NOTICE, PROBLEM))]


CUT = notices.ConnectionLost("reset")


def test_what_was_missed_stands_between_two_lines_and_once(watcher: Watcher) -> None:
    shown = (CUT, notices.Reconnected("alice", 20), public(15, "a"), direct(20, "b"), public(21, "c"), public(22, "d"))

    assert returning(watcher, *shown) == ["what you missed", "a", "b", "now", "c", "d"]


def test_who_missed_nothing_sees_no_lines(watcher: Watcher) -> None:
    assert returning(watcher, CUT, notices.Reconnected("alice", 20), public(21, "c")) == ["c"]
    assert returning(watcher, CUT, notices.Reconnected("alice", None), public(22, "d")) == ["d"]


def test_what_one_says_after_coming_back_was_not_missed(watcher: Watcher) -> None:
    shown = (CUT, notices.Reconnected("alice", 20), public(15, "a"), Sent(21, SentStatus.SENT, "n1"), public(22, "c"))

    assert returning(watcher, notices.MessageQueued(Say("mine", "n1")), *shown) == [
        "what you missed",
        "a",
        "now",
        "mine",
        "c",
    ]


def test_what_was_missed_twice_is_said_twice(watcher: Watcher) -> None:
    back = notices.Reconnected
    shown = (CUT, back("alice", 20), public(15, "a"), CUT, back("alice", 30), public(25, "b"), public(31, "c"))

    assert returning(watcher, *shown) == ["what you missed", "a", "what you missed", "b", "now", "c"]


def test_an_own_message_that_has_the_id_of_one_before_a_restore_is_shown(watcher: Watcher) -> None:
    """Another device sent it, and the server has got further than it was before."""
    watcher.sees(notices.MessageQueued(Say("before", "n1")), Sent(11, SentStatus.SENT, "n1"))

    assert (
        returning(watcher, CUT, notices.Reconnected("alice", 20), PossibleGap(), public(11, "after", "alice"))[-1]
        == "after"
    )


def test_what_was_missed_on_an_earlier_day_is_dated(watcher: Watcher) -> None:
    missed = public(15, "a", time_ms=NOON_MS - DAY_MS)

    assert returning(watcher, CUT, notices.Reconnected("alice", 20), missed)[-3:] == [
        "what you missed",
        "Friday, 30 January 2026",
        "a",
    ]


# --- what stands still ---


def pending(width: int = 80, **ui_state: object) -> list[str]:
    given = {"connection_state": ConnectionState.IN, "username": "alice", **ui_state}
    return [text_of(row) for row in Watcher().timeline.pending(UiState(**given), width)]  # type: ignore[arg-type]


def test_what_waits_and_what_is_not_confirmed_is_marked_so() -> None:
    said = (Say("one", "n1"), Whisper("bob", "two", "n2"))

    assert pending() == []
    assert pending(unconfirmed=said, waiting=("three",)) == [
        "\u2026 one (not confirmed yet)",
        "\u2026 @bob two (not confirmed yet)",
        "\u2026 three (waits)",
    ]
    assert pending(connection_state=ConnectionState.AWAY, waiting=("three",)) == [
        "\u2026 three (waits for the connection)"
    ]


def test_of_much_that_waits_the_newest_is_shown_and_the_number_of_the_rest() -> None:
    assert pending(waiting=tuple(map(str, range(10)))) == [
        "\u2026 6 more",
        *(f"\u2026 {number} (waits)" for number in range(6, 10)),
    ]


def test_of_a_long_text_that_waits_the_beginning_is_shown() -> None:
    (row,) = pending(30, unconfirmed=(Say("hello everybody out there", "n1"),))

    assert row.startswith("\u2026 hello")
    assert row.endswith("(not confirmed yet)")


WAITING = ("x" * 100, "\u65e5" * 100, "\x1b[2J\nnext\u202e", "hello everybody " * 10)


@pytest.mark.parametrize("connection_state", ConnectionState)
def test_what_waits_and_the_status_fit_into_every_window_and_are_harmless(connection_state: ConnectionState) -> None:
    timeline = Watcher().timeline
    timeline.rows_of(CUT, 80)
    for name in ("alice", LONGEST_NAME):
        said = tuple(Whisper(name, text, str(number)) for number, text in enumerate(WAITING))
        for kind in ({"waiting": WAITING}, {"unconfirmed": said}, {"waiting": WAITING, "unconfirmed": said}):
            ui_state = UiState(connection_state, name, ("chat.example.org", 9999), 12, "", **kind)  # type: ignore[arg-type]
            for width in range(20, 201):
                for row in (*timeline.pending(ui_state, width), timeline.status(ui_state, "datagram", width)):
                    assert columns_of(text_of(row)) <= width, (width, text_of(row))
                    assert escape_control_characters(text_of(row)) == text_of(row)


STATES = {
    ConnectionState.UNPLACED: "not connected",
    ConnectionState.UNNAMED: "not connected",
    ConnectionState.AWAY: "connecting",
    ConnectionState.KNOCKING: "logging in",
    ConnectionState.ASKED: "logging in",
    ConnectionState.IN: "connected",
}


@pytest.mark.parametrize(("connection_state", "words"), STATES.items())
def test_the_state_of_the_connection_is_always_there(connection_state: ConnectionState, words: str) -> None:
    for name in ("", "alice", LONGEST_NAME):
        for width in range(20, 201):
            row = Watcher().timeline.status(UiState(connection_state, name, ("localhost", 9999), 3), "json", width)
            assert text_of(row).endswith(words)
            assert columns_of(text_of(row)) <= width
            assert row[-1][0] == ("class:status.up" if connection_state is ConnectionState.IN else "class:status.down")


def test_a_lost_connection_is_in_the_status_until_it_is_back(watcher: Watcher) -> None:
    watcher.rows(CUT)
    away = UiState(ConnectionState.AWAY, "alice")

    assert text_of(watcher.timeline.status(away, "json", 80)).endswith("connection lost, trying again")
    assert text_of(watcher.timeline.status(away._replace(connection_state=ConnectionState.IN), "json", 80)).endswith(
        " connected"
    )


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
def test_narrow_windows_leave_words_of_the_status_out(width: int, status: str) -> None:
    timeline = Watcher(is_quiet=True).timeline
    ui_state = UiState(ConnectionState.IN, "alice", ("localhost", 9999), 2)

    assert text_of(timeline.status(ui_state, "json", width)) == status


@pytest.mark.parametrize(
    ("ui_state", "prompt"),
    [
        (UiState(ConnectionState.IN, "alice"), "alice> "),
        (UiState(ConnectionState.IN, "alice", question="recipient"), "recipient: "),
        (UiState(ConnectionState.IN, "alice", question="message for bob"), "message for bob: "),
        (UiState(ConnectionState.ASKED, "alice", question="password"), "password: "),
        (UiState(ConnectionState.UNNAMED, question="username"), "username: "),
        (UiState(ConnectionState.IN, "a\x1b[2J\nb"), "a\\x1b[2J\\nb> "),
        (UiState(ConnectionState.IN, "alice", question="message for \x9b"), "message for \\x9b: "),
    ],
)
def test_the_prompt_says_what_is_asked_or_who_types(ui_state: UiState, prompt: str) -> None:
    assert Watcher().timeline.prompt(ui_state) == prompt
