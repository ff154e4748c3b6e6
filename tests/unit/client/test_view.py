"""Lines of the plain frontend: the documented form of each event, and no text that acts on a terminal."""

import pytest

from chatclient import notices
from chatclient.ui.view import lines
from chatprotocol import events
from chatprotocol.errors import ErrorCode
from chatprotocol.events import AccountKind, RoomRole, SanctionKind, SentStatus
from chatprotocol.requests import Say, Whisper
from chatprotocol.wire.base import ClientEvent, DeliveryUnknown, Forwarded, Online, Outcome, PossibleGap

from .samples import NOON_MS, STEPS, direct, everything_with, in_room, public
from .test_text import SENDABLE_ATTACKS

HELLO = public(18)
PSST = direct(19)
OLD_LINES = ["[history #18 2026-01-31T12:00:00Z] bob: hello", "[history #19 2026-01-31T12:00:00Z] bob -> alice: psst"]
NOON = "2026-01-31T12:00:00Z"
BAN = events.SanctionState(
    kind=SanctionKind.BAN, username="eve", by="bob", time_ms=NOON_MS, until=NOON_MS, reason="spam"
)
NOT_DELIVERED = "[error not_delivered]"

# Harnesses and grep rely on these forms: see the client's README.
LINES: list[tuple[ClientEvent, list[str]]] = [
    (HELLO, ["[public #18 2026-01-31T12:00:00Z] bob: hello"]),
    (PSST, ["[direct #19 2026-01-31T12:00:00Z] bob -> alice: psst"]),
    (direct(1, "x", recipient=""), ["[direct #1 2026-01-31T12:00:00Z] bob -> ?: x"]),
    (public(1, "/me waves"), ["[public #1 2026-01-31T12:00:00Z] * bob waves"]),
    (public(1, "/meet me"), ["[public #1 2026-01-31T12:00:00Z] bob: /meet me"]),
    (public(1, "/me  "), ["[public #1 2026-01-31T12:00:00Z] bob: /me  "]),
    (direct(1, "/me \x1b", recipient="alice"), ["[direct #1 2026-01-31T12:00:00Z] * bob -> alice \\x1b"]),
    (Forwarded("bob", "hello"), ["[message] bob: hello"]),
    (events.PasswordChanged(), ["[password changed]"]),
    (
        events.Welcome(account=AccountKind.NEW, username="alice", users=("bob", "alice"), last_id=17),
        ["[welcome new] alice; online: alice bob"],
    ),
    (events.Welcome(account=AccountKind.GUEST, username="alice", users=(), last_id=None), ["[welcome guest] alice"]),
    (Online(("bob", "alice", "Carol")), ["[users 3] alice bob Carol"]),
    (Online(()), ["[users 0]"]),
    (events.Users(None, ("bob", "alice", "Carol")), []),
    (events.Users(None, ("alice", "eve"), ("eve", "ian"), ("bob",)), ["[joined] eve", "[joined] ian", "[left] bob"]),
    (events.Sent(18, SentStatus.SENT, "7f"), ["[sent #18]"]),
    (
        events.Sent(18, SentStatus.SENT, "7f", looks_public=True),
        ["[sent #18] a guest can't see that this is a direct message"],
    ),
    (events.Sent(18, SentStatus.STORED, "7f"), ["[stored #18] not online; it is delivered at the next login"]),
    (events.History(()), ["[history 0]"]),
    (events.History((HELLO, PSST)), ["[history 2]", *OLD_LINES]),
    (events.Found("noon*", (HELLO, PSST), 20), ["[found 2] up to #20: noon*", *OLD_LINES]),
    (events.Refused(ErrorCode.UNKNOWN_USER, "No bob."), ["[error unknown_user] No bob."]),
    (events.Bye("you left"), ["[bye] you left"]),
    # Lines of rooms have the room in the brackets.
    (in_room(18), ["[public #18 2026-01-31T12:00:00Z #dev] bob: hello"]),
    (in_room(18, "/me waves"), ["[public #18 2026-01-31T12:00:00Z #dev] * bob waves"]),
    (
        events.History((in_room(18),), "dev"),
        ["[history 1 #dev]", "[history #18 2026-01-31T12:00:00Z #dev] bob: hello"],
    ),
    (events.Found("noon*", (), 20, "dev"), ["[found 0 #dev] up to #20: noon*"]),
    (Online(("bob", "alice"), "dev"), ["[users 2 #dev] alice bob"]),
    (events.Users(None, ("eve",), ("eve",), ("bob",), "dev"), ["[joined #dev] eve", "[left #dev] bob"]),
    (events.Refused(ErrorCode.NOT_A_MEMBER, "No.", None, "dev"), ["[error not_a_member #dev] No."]),
    (
        events.Joined("dev", "tea", ("bob", "alice"), 17, private=True, role=RoomRole.OWNER),
        ["[entered #dev owner private] topic: tea; online: alice bob"],
    ),
    (events.Joined("dev", "", ("alice",), 17), ["[entered #dev] online: alice"]),
    (
        events.Welcome(
            account=AccountKind.EXISTING,
            username="alice",
            users=(),
            last_id=17,
            rooms=(events.RoomState("dev", "tea", 17), events.RoomState("ops", "", 3, role=RoomRole.OPERATOR)),
        ),
        ["[welcome existing] alice", "[entered #dev] topic: tea", "[entered #ops operator]"],
    ),
    (events.Parted("dev"), ["[parted #dev]"]),
    (events.Parted("dev", "bob"), ["[parted #dev] by bob"]),
    (events.TopicChanged("dev", "tea", "bob"), ["[topic #dev] bob: tea"]),
    (events.Invited("dev", "eve", "bob"), ["[invited #dev] eve by bob"]),
    (events.Kicked(room="dev", username="eve", by="bob"), ["[kicked #dev] eve by bob"]),
    (
        events.RoleChanged(room="dev", username="eve", role=RoomRole.OPERATOR, by="bob"),
        ["[role #dev] eve operator by bob"],
    ),
    (events.RoleChanged(room="dev", username="eve", role=RoomRole.OWNER), ["[role #dev] eve owner"]),
    (
        events.RoleChanged(username="eve", role=RoomRole.MEMBER, by="the settings"),
        ["[role] eve member by the settings"],
    ),
    (
        events.Rooms(
            (
                events.RoomSummary("dev", "tea", 3, joined=True, private=True, role=RoomRole.OWNER),
                events.RoomSummary("ops", "", 1, joined=False, invited=True, has_key=True),
            )
        ),
        ["[rooms 2]", "[listed #dev 3 joined owner private] tea", "[listed #ops 1 invited key]"],
    ),
    (
        events.Welcome(account=AccountKind.EXISTING, username="alice", users=(), last_id=1, operator=True),
        ["[welcome existing operator] alice"],
    ),
    (events.Kicked(username="eve", by="bob", reason="spam"), ["[kicked] eve by bob: spam"]),
    (events.Parted("dev", "bob", "spam"), ["[parted #dev] by bob: spam"]),
    (
        events.Banned(username="eve", by="bob", until=NOON_MS, reason="spam"),
        [f"[banned] eve by bob until {NOON}: spam"],
    ),
    (events.Banned(room="dev", username="eve", by="bob"), ["[banned #dev] eve by bob"]),
    (events.Unbanned(address="192.0.2.0/24", by="bob"), ["[unbanned] 192.0.2.0/24 by bob"]),
    (events.Muted(room="dev", username="eve", by="bob", until=NOON_MS), [f"[muted #dev] eve by bob until {NOON}"]),
    (events.Unmuted(username="eve", by="bob"), ["[unmuted] eve by bob"]),
    (
        events.Bans((BAN, events.SanctionState(kind=SanctionKind.MUTE, address="::1", by="bob", time_ms=NOON_MS))),
        ["[bans 2]", f"[ban {NOON}] eve by bob until {NOON}: spam", f"[mute {NOON}] ::1 by bob"],
    ),
    (events.Bans((), "dev"), ["[bans 0 #dev]"]),
    (events.Deleted(18, "bob"), ["[deleted #18] by bob"]),
    (events.Deleted(18, "bob", "dev"), ["[deleted #18 #dev] by bob"]),
    (events.Reported(id=18, room="dev", by="bob", reason="spam"), ["[reported #18 #dev] by bob: spam"]),
    (events.Reported(username="eve", by="bob"), ["[reported] eve by bob"]),
    (
        events.Audit(
            (
                events.AuditRow(
                    number=7,
                    time_ms=NOON_MS,
                    action="ban",
                    by="bob",
                    target="eve",
                    room="dev",
                    reason="spam",
                    detail="for 604800 s",
                ),
            )
        ),
        ["[audit 1]", f"[act 7 {NOON} #dev] bob: ban eve (for 7d): spam"],
    ),
    (events.Ignored(("eve", "bob")), ["[ignored 2] bob eve"]),
    (events.Ignored(()), ["[ignored 0]"]),
    (events.Bye("kicked by bob", ErrorCode.KICKED), ["[bye kicked] kicked by bob"]),
    (PossibleGap(), ["[error lost] more may have been missed than this; CH 500 shows more"]),
    (PossibleGap(has_history=False), ["[error lost] messages may have been missed"]),
    (DeliveryUnknown(Say("hello")), ["[error lost] it is not known whether this was stored, look at CH: hello"]),
    (DeliveryUnknown(Say("x"), has_history=False), ["[error lost] it is not known whether this was delivered: x"]),
    (Outcome(Whisper("bob", "hello", "n1"), has_come=True), ["[delivered] @bob"]),
    (Outcome(Say("hello", "n1"), has_come=True), ["[delivered] @ALL"]),
    (
        Outcome(Whisper("bob", "x"), has_come=False),
        [f"{NOT_DELIVERED} @bob: no such user, or not acknowledged in time"],
    ),
    (Outcome(Say("x"), has_come=False), [f"{NOT_DELIVERED} @ALL: not acknowledged by all users in time"]),
    *((step, []) for step in (*STEPS, events.Pong(), events.PasswordPrompt(account=AccountKind.NEW))),
]


@pytest.mark.parametrize(("event", "expected"), LINES)
def test_event_is_shown_in_its_documented_form(event: ClientEvent, expected: list[str]) -> None:
    assert lines(event) == expected


def test_change_of_the_current_room_is_a_line() -> None:
    assert lines(notices.CurrentRoom("dev", "tea")) == ["[room #dev] tea"]
    assert lines(notices.CurrentRoom("")) == ["[room #lobby]"]


def test_every_text_of_an_event_is_escaped() -> None:
    """Promise: no byte from another user reaches the terminal unsanitised."""
    for event in everything_with(" ".join(SENDABLE_ATTACKS)):
        assert lines(event)
        assert all(line.isprintable() for line in lines(event)), event


@pytest.mark.parametrize("time_ms", [-62_135_596_800_000, 253_402_343_999_000, 10**18])
def test_time_outside_of_the_calendar_is_shown(time_ms: int) -> None:
    (line,) = lines(events.PublicMessage(1, time_ms, "bob", "hello"))
    assert line.endswith("] bob: hello")
