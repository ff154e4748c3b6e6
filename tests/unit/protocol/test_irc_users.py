"""Commands of irc about users and the history. Sections are those of modern.ircdocs.horse and IRCv3."""

from __future__ import annotations

import pytest

from chatprotocol import events, requests
from chatprotocol.errors import ErrorCode
from chatprotocol.events import Refused, RoomMember, RoomRole, UserInfo
from chatprotocol.limits import HISTORY_MAX_MESSAGES
from chatprotocol.requests import AskChatHistory, Bound, HistoryOrder
from chatprotocol.wire.irc_commands import MARKS_MAX

from .irc_dialogue import Dialogue

BOB = UserInfo(
    username="bob",
    is_online=True,
    is_operator=True,
    is_bot=True,
    realname="Bob B.",
    away="lunch",
    login_ms=5_000,
    idle_seconds=7,
    rooms=(("dev", RoomRole.OWNER), ("ops", RoomRole.VOICE)),
)
GUEST = UserInfo(username="carol", is_online=True, is_guest=True)
OFFLINE = UserInfo(username="dave", is_online=False)
TIME = "timestamp=1970-01-01T00:00:05.000Z"
LATER = "timestamp=1970-01-01T00:00:09.000Z"
END = "End of /WHO list"


def refused(code: ErrorCode) -> Refused:
    return Refused(code, "A reason.")


def test_whois() -> None:
    """WHOIS message: rooms have the prefixes of the roles, and nobody's address is shown."""
    said = Dialogue().say("WHOIS bob", events.Infos((BOB,)))
    assert said.requests == [requests.AskInfo(("bob",))]
    assert said.lines == [
        ":chat.test 311 alice bob bob chat.test * :Bob B.",
        ":chat.test 319 alice bob :@#dev +#ops",
        ":chat.test 312 alice bob chat.test :A chat server",
        ":chat.test 313 alice bob :is an IRC operator",
        ":chat.test 335 alice bob :is a bot",
        ":chat.test 330 alice bob bob :is logged in as",
        ":chat.test 301 alice bob lunch",
        ":chat.test 317 alice bob 7 5 :seconds idle, signon time",
        ":chat.test 318 alice bob :End of /WHOIS list",
    ]


@pytest.mark.parametrize("info", [None, OFFLINE])
def test_whois_of_a_user_who_is_not_online(info: UserInfo | None) -> None:
    """ERR_NOSUCHNICK (401), also for an account."""
    assert Dialogue().say("WHOIS chat.test dave", events.Infos((info,))).lines == [
        ":chat.test 401 alice dave :No such nick/channel",
        ":chat.test 318 alice dave :End of /WHOIS list",
    ]


def test_whois_of_a_guest_has_neither_account_nor_rooms() -> None:
    lines = Dialogue().say("WHOIS carol", events.Infos((GUEST,))).lines
    assert [line.split()[1] for line in lines] == ["311", "312", "318"]


@pytest.mark.parametrize(
    ("line", "request_", "expected"),
    [
        (
            "WHO bob",
            requests.AskInfo(("bob",), has_rooms=False),
            ["352 alice * bob chat.test chat.test bob G*B :0 Bob B."],
        ),
        ("WHO b* o", requests.AskWho("b*"), ["352 alice * bob chat.test chat.test bob G*B :0 Bob B."]),
        ("WHO bob %tcnfa,42", requests.AskInfo(("bob",), has_rooms=False), ["354 alice 42 * bob G*B bob"]),
        ("WHO bob %afnct,42", requests.AskInfo(("bob",), has_rooms=False), ["354 alice 42 * bob G*B bob"]),
        ("WHO bob %hir", requests.AskInfo(("bob",), has_rooms=False), ["354 alice 255.255.255.255 chat.test :Bob B."]),
    ],
)
def test_who(line: str, request_: requests.Request, expected: list[str]) -> None:
    """WHO message, and WHOX: exactly the fields that were asked for, in the order of the specification."""
    said = Dialogue().say(line, events.Infos((BOB,)))
    assert said.requests == [request_]
    mask = line.split()[1]
    assert said.lines == [f":chat.test {each}" for each in (*expected, f"315 alice {mask} :{END}")]


def test_who_of_a_channel() -> None:
    """The channel is that of the answer, and the flags have the role. A guest's account is 0."""
    members = events.Members("dev", (RoomMember(BOB, RoomRole.OPERATOR), RoomMember(GUEST, RoomRole.VOICE)))
    assert Dialogue().say("WHO #DEV %cnfa", members).lines == [
        ":chat.test 354 alice #dev bob G*B@ bob",
        ":chat.test 354 alice #dev carol H+ 0",
        f":chat.test 315 alice #DEV :{END}",
    ]


def test_who_shows_only_users_who_are_online() -> None:
    assert Dialogue().say("WHO dave", events.Infos((OFFLINE,))).lines == [f":chat.test 315 alice dave :{END}"]


@pytest.mark.parametrize(
    ("users", "expected"),
    [
        (
            (events.PastUser("bob", "Bob B.", 5_000),),
            ["314 alice bob bob chat.test * :Bob B.", "312 alice bob chat.test 1970-01-01T00:00:05.000Z"],
        ),
        ((), ["406 alice bob :There was no such nickname"]),
    ],
)
def test_whowas(users: tuple[events.PastUser, ...], expected: list[str]) -> None:
    """WHOWAS message. A count that is not positive means all."""
    said = Dialogue().say("WHOWAS bob -1", events.Past("bob", users))
    assert said.requests == [requests.AskPast("bob", 10)]
    assert said.lines == [*(f":chat.test {each}" for each in expected), ":chat.test 369 alice bob :End of WHOWAS"]


def test_userhost_and_ison() -> None:
    """USERHOST and ISON messages: users who are online; "*" marks an operator, and "-" a user who is away."""
    infos = events.Infos((BOB, None, GUEST, OFFLINE))
    alice = Dialogue()
    assert alice.say("USERHOST bob x carol dave", infos).lines == [
        ":chat.test 302 alice :bob*=-bob@chat.test carol=+carol@chat.test"
    ]
    assert alice.say("ISON bob x carol dave", infos).lines == [":chat.test 303 alice :bob carol"]


def test_away() -> None:
    """AWAY message: RPL_NOWAWAY (306) and RPL_UNAWAY (305)."""
    alice = Dialogue()
    said = alice.say("AWAY :at lunch", events.AwayChanged("alice", "at lunch"))
    assert said == ([requests.SetAway("at lunch")], [":chat.test 306 alice :You have been marked as being away"])
    said = alice.say("AWAY", events.AwayChanged("alice", ""))
    assert said == ([requests.SetAway("")], [":chat.test 305 alice :You are no longer marked as being away"])


def test_monitor() -> None:
    """IRCv3, monitor: masks are no targets, and a target that is watched is not added again."""
    alice = Dialogue()
    said = alice.say("MONITOR + bob,carol,*!u@h", events.Watched(("bob",), ("carol",), ("bob", "carol")))
    assert said.requests == [requests.Watch(("bob", "carol"))]
    assert said.lines == [":chat.test 730 alice bob!bob@chat.test", ":chat.test 731 alice carol"]
    assert alice.say("MONITOR + BOB") == ([], [])
    assert alice.say("MONITOR L").lines == [
        ":chat.test 732 alice bob,carol",
        ":chat.test 733 alice :End of MONITOR list",
    ]
    assert alice.say("MONITOR S").requests == [requests.Watch(("bob", "carol"))]
    assert alice.say("MONITOR - bob", events.Watched((), (), ("carol",))) == ([requests.Watch(removed=("bob",))], [])
    assert alice.say("MONITOR C", events.Watched((), (), ())) == ([requests.Watch(clears=True)], [])
    assert alice.say("MONITOR L").lines == [":chat.test 733 alice :End of MONITOR list"]
    assert alice.say("MONITOR + bob", refused(ErrorCode.TOO_LONG)).lines == [
        ":chat.test 734 alice 100 bob :Monitor list is full."
    ]


def test_extended_monitor() -> None:
    """IRCv3, extended-monitor: also for the names that were watched before the capability."""
    alice = Dialogue("away-notify")
    assert alice.say("CAP REQ extended-monitor").requests == []
    assert alice.say("MONITOR + bob", events.Watched(("bob",), (), ("bob",))).requests == [
        requests.Watch(("bob",), is_extended=True)
    ]
    assert alice.hear(events.AwayChanged("bob", "lunch")) == [":bob!bob@chat.test AWAY lunch"]
    for request, is_extended in (("-extended-monitor", False), ("extended-monitor", True)):
        said = alice.say(f"CAP REQ :{request} away-notify", events.Watched((), (), ("bob",)))
        assert said.requests == [requests.Watch(is_extended=is_extended)]
        assert said.lines == [f":chat.test CAP alice ACK :{request} away-notify"]


def test_operators_of_the_server() -> None:
    """OPER message: the account has the role, or not. KILL message: a kick from the server."""
    alice, operator = Dialogue(), Dialogue(is_operator=True)
    assert alice.say("OPER x y").lines == [":chat.test 491 alice :No O-lines for your host"]
    assert operator.say("OPER x y").lines == [":chat.test 381 alice :You are now an IRC operator"]
    denied = ":chat.test 481 alice :Permission Denied- You're not an IRC operator"
    assert alice.say("KILL bob") == ([], [denied])
    kick = requests.Kick(username="bob", reason="spam")
    assert operator.say("KILL bob :spam", events.Kicked(username="bob", by="alice", reason="spam")) == (
        [kick],
        [":chat.test NOTICE alice :alice ended the connections of bob: spam"],
    )
    assert operator.say("KILL bob :spam", refused(ErrorCode.UNKNOWN_USER)).lines == [
        ":chat.test 401 alice bob :No such nick/channel"
    ]


def test_setname() -> None:
    """IRCv3, setname: a realname over the limit is INVALID_REALNAME."""
    alice = Dialogue("setname")
    said = alice.say("SETNAME :Alice B.", events.RealnameChanged("alice", "Alice B."))
    assert said == ([requests.SetRealname("Alice B.")], [":alice!alice@chat.test SETNAME :Alice B."])
    assert alice.say(f"SETNAME :{'x' * 129}").lines == [
        ":chat.test FAIL SETNAME INVALID_REALNAME :Realname is too long"
    ]


def test_tagmsg() -> None:
    """IRCv3, message-tags: the sender with echo-message gets it back; tags that the server denies are not passed on."""
    alice = Dialogue("message-tags echo-message")
    echo = events.RelayedBack("alice", "dev", None, "TAGMSG", "+typing=active", "")
    said = alice.say("@+typing=active;+x=y;label=1 TAGMSG #dev", echo)
    assert said.requests == [requests.Relay(room="dev", kind="TAGMSG", tags="+typing=active")]
    assert said.lines == ["@+typing=active :alice!alice@chat.test TAGMSG #dev"]
    assert alice.say("@+x=y TAGMSG bob") == ([], [])
    assert alice.say("@+typing=done TAGMSG bob", refused(ErrorCode.UNKNOWN_USER)).lines == []
    assert alice.say("@+typing=done TAGMSG #lobby") == ([], []), "it has not joined the lobby"


def test_label_of_what_is_passed_on_is_answered_by_its_echo() -> None:
    """IRCv3, labeled-response: not by what another device of the user passes on at the same time."""
    alice = Dialogue("message-tags echo-message labeled-response batch")
    other = events.Relayed("alice", "dev", None, "TAGMSG", "+typing=done", "")
    probe = events.RelayedBack("alice", None, "bob", "PRIVMSG", "", "\x01PING 1\x01")
    assert alice.say("@label=1 PRIVMSG bob :\x01PING 1\x01", [other, probe]).lines == [
        "@+typing=done :alice!alice@chat.test TAGMSG #dev",
        "@label=1 :alice!alice@chat.test PRIVMSG bob :\x01PING 1\x01",
    ]
    assert alice.say("@label=2;+typing=done TAGMSG bob", refused(ErrorCode.UNKNOWN_USER)).lines == [
        "@label=2 :chat.test ACK"
    ]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("LATEST #dev * 50", AskChatHistory(room="dev", order=HistoryOrder.NEWEST, limit=50)),
        (
            f"LATEST #dev {TIME} 5",
            AskChatHistory(room="dev", order=HistoryOrder.NEWEST, after=Bound(time_ms=5_000), limit=5),
        ),
        (
            "BEFORE bob msgid=9 5",
            AskChatHistory(with_user="bob", order=HistoryOrder.NEWEST, before=Bound(id=9), limit=5),
        ),
        ("AFTER #lobby msgid=9 5", AskChatHistory(room="lobby", order=HistoryOrder.OLDEST, after=Bound(id=9), limit=5)),
        ("AROUND #dev msgid=9 5", AskChatHistory(room="dev", order=HistoryOrder.AROUND, after=Bound(id=9), limit=5)),
        (
            "BETWEEN #dev msgid=3 msgid=9 5",
            AskChatHistory(room="dev", order=HistoryOrder.OLDEST, after=Bound(id=3), before=Bound(id=9), limit=5),
        ),
        (
            "BETWEEN #dev msgid=9 msgid=3 5",
            AskChatHistory(room="dev", order=HistoryOrder.NEWEST, after=Bound(id=3), before=Bound(id=9), limit=5),
        ),
        (
            "BETWEEN #dev msgid=9.12.7 msgid=9.3 5",
            AskChatHistory(
                room="dev",
                order=HistoryOrder.NEWEST,
                after=Bound(id=9, number=3),
                before=Bound(id=9, number=12),
                limit=5,
            ),
        ),
        ("LATEST #dev * 9999", AskChatHistory(room="dev", order=HistoryOrder.NEWEST, limit=HISTORY_MAX_MESSAGES)),
        (f"TARGETS {TIME} {LATER} 5", requests.AskActive(5_000, 9_000, 5)),
        (f"TARGETS {LATER} {TIME} 5", requests.AskActive(5_000, 9_000, 5, HistoryOrder.NEWEST)),
    ],
)
def test_chathistory(line: str, expected: requests.Request) -> None:
    """IRCv3, chathistory: all subcommands. BETWEEN and TARGETS may go back in time."""
    assert Dialogue().say(f"CHATHISTORY {line}").requests == [expected]


def test_event_playback_asks_for_the_events() -> None:
    """IRCv3, chathistory: only clients that have negotiated it may get other lines than messages."""
    asked = AskChatHistory(room="dev", order=HistoryOrder.NEWEST, limit=5, has_events=True)
    assert Dialogue("draft/event-playback").say("CHATHISTORY LATEST #dev * 5").requests == [asked]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", "INVALID_PARAMS * :Missing parameters"),
        ("LATEST #dev", "INVALID_PARAMS LATEST :Missing parameters"),
        ("NEXT #dev * 5", "INVALID_PARAMS NEXT :Unknown command"),
        ("BEFORE #dev * 5", "INVALID_PARAMS BEFORE #dev :Invalid parameters"),
        ("LATEST #dev msgid=x 5", "INVALID_PARAMS LATEST #dev :Invalid parameters"),
        ("LATEST #dev msgid=9. 5", "INVALID_PARAMS LATEST #dev :Invalid parameters"),
        ("LATEST #dev msgid=9.1.1.1 5", "INVALID_PARAMS LATEST #dev :Invalid parameters"),
        ("LATEST #dev timestamp=1970-99-01T00:00:05.000Z 5", "INVALID_PARAMS LATEST #dev :Invalid parameters"),
        ("LATEST #dev * -1", "INVALID_PARAMS LATEST #dev :Invalid parameters"),
        ("LATEST # * 5", "INVALID_PARAMS LATEST # :Invalid parameters"),
    ],
)
def test_chathistory_that_is_not_valid(line: str, expected: str) -> None:
    said = Dialogue().say(f"CHATHISTORY {line}")
    assert said == ([], [f":chat.test FAIL CHATHISTORY {expected}"])


def test_targets_are_a_batch() -> None:
    """IRCv3, chathistory: TARGETS."""
    targets = (events.ActiveTarget("dev", None, 5_000), events.ActiveTarget(None, "bob", 6_000))
    line = f"CHATHISTORY TARGETS {TIME} {LATER} 5"
    plain = Dialogue().say(line, events.Active(targets)).lines
    assert plain == [
        ":chat.test CHATHISTORY TARGETS #dev 1970-01-01T00:00:05.000Z",
        ":chat.test CHATHISTORY TARGETS bob 1970-01-01T00:00:06.000Z",
    ]
    start, *inner, end = Dialogue("batch").say(line, events.Active(targets)).lines
    assert (start[:19], start.split()[-1]) == (":chat.test BATCH +r", "draft/chathistory-targets")
    assert [each.partition(" ")[2] for each in inner] == plain
    assert end.startswith(":chat.test BATCH -r")


@pytest.mark.parametrize(
    ("line", "code", "expected"),
    [
        ("CHATHISTORY LATEST #dev * 5", "unknown_room", "CHATHISTORY INVALID_TARGET LATEST #dev"),
        ("CHATHISTORY LATEST #dev * 5", "not_a_member", "CHATHISTORY INVALID_TARGET LATEST #dev"),
        ("CHATHISTORY LATEST bob * 5", "unknown_user", "CHATHISTORY INVALID_TARGET LATEST bob"),
        ("CHATHISTORY LATEST bob * 5", "unavailable", "CHATHISTORY MESSAGE_ERROR LATEST bob"),
        (f"MARKREAD #dev {TIME}", "unknown_room", "MARKREAD INVALID_PARAMS #dev"),
        (f"MARKREAD #dev {TIME}", "disk_full", "MARKREAD INTERNAL_ERROR #dev"),
        ("REDACT bob 9", "unknown_message", "REDACT UNKNOWN_MSGID bob 9"),
        ("REDACT bob 9", "not_permitted", "REDACT REDACT_FORBIDDEN bob 9"),
    ],
)
def test_refusals_of_standard_replies(line: str, code: str, expected: str) -> None:
    assert Dialogue().say(line, refused(ErrorCode(code))).lines == [f":chat.test FAIL {expected} :A reason."]


def test_markread() -> None:
    """IRCv3, read-marker."""
    alice = Dialogue("draft/read-marker")
    said = alice.say(f"MARKREAD #dev {TIME}", events.ReadMarked("dev", None, 5_000))
    assert said == ([requests.MarkRead("dev", None, 5_000)], [f":chat.test MARKREAD #dev {TIME}"])
    said = alice.say("MARKREAD bob", events.ReadMarked(None, "bob", None))
    assert said == ([requests.MarkRead(None, "bob")], [":chat.test MARKREAD bob *"])
    assert alice.say("MARKREAD #nothing", refused(ErrorCode.UNKNOWN_ROOM)).lines == [":chat.test MARKREAD #nothing *"]
    assert alice.say("MARKREAD").lines == [":chat.test FAIL MARKREAD NEED_MORE_PARAMS :Missing parameters"]
    for time in ("*", "timestamp=x"):
        assert alice.say(f"MARKREAD #dev {time}") == (
            [],
            [f":chat.test FAIL MARKREAD INVALID_PARAMS #dev {time} :Invalid parameters"],
        )


def test_read_marks_of_a_guest_never_move_back() -> None:
    """The server stores none for guests. Their number is limited."""
    guest = Dialogue("draft/read-marker", is_guest=True)
    assert guest.say("MARKREAD #dev").lines == [":chat.test MARKREAD #dev *"]
    for time in (LATER, TIME):
        assert guest.say(f"MARKREAD #dev {time}") == ([], [f":chat.test MARKREAD #dev {LATER}"])
    for number in range(1, MARKS_MAX):
        guest.say(f"MARKREAD user{number} {TIME}")
    assert guest.say(f"MARKREAD another {TIME}").lines == [":chat.test MARKREAD another *"]
    assert guest.say(f"MARKREAD user1 {LATER}").lines == [f":chat.test MARKREAD user1 {LATER}"]


@pytest.mark.parametrize(
    ("time", "read"),
    [
        ("0001-01-01T00:00:00.000Z", "1970-01-01T00:00:00.000Z"),
        ("9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999Z"),
        ("2026-01-31T12:00:00.1239Z", "2026-01-31T12:00:00.123Z"),
        ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00.000Z"),
        *(
            (time, None)
            for time in ("0000-01-01T00:00:00.000Z", "2026-02-30T00:00:00.000Z", "2016-12-31T23:59:60.000Z")
        ),
        *((time, None) for time in ("\u0662\u0660\u0662\u0666-01-31T12:00:00.000Z", "2026-01-31T12:00:00.000")),
    ],
)
def test_any_time_of_the_calendar_is_read(time: str, read: str | None) -> None:
    """Promise: no time ends the connection. One that can't be shown is not accepted."""
    guest = Dialogue("draft/read-marker", is_guest=True)
    refused_ = f"FAIL MARKREAD INVALID_PARAMS #dev timestamp={time} :Invalid parameters"
    expected = refused_ if read is None else f"MARKREAD #dev timestamp={read}"
    assert guest.say(f"MARKREAD #dev timestamp={time}") == ([], [f":chat.test {expected}"])


def test_redact() -> None:
    """IRCv3, message-redaction: only in rooms that the connection is in."""
    alice = Dialogue("draft/message-redaction message-tags")
    assert alice.say("REDACT #dev 9").lines == [
        ":chat.test FAIL REDACT INVALID_TARGET #dev :You cannot delete messages from this channel"
    ]
    alice.enter("dev")
    said = alice.say("REDACT #dev 9", events.Deleted(9, "alice", "dev"))
    assert said == ([requests.Delete(9, "dev")], [":alice!alice@chat.test REDACT #dev 9"])
    assert alice.say("REDACT #dev abc").lines == [
        ":chat.test FAIL REDACT UNKNOWN_MSGID #dev abc :This message does not exist or is too old"
    ]
    direct = events.DirectDeleted(9, "alice", sender="alice", recipient="bob")
    said = alice.say("REDACT bob 9", direct)
    assert said == ([requests.Delete(9)], [":alice!alice@chat.test REDACT bob 9"])
    said = alice.say("REDACT #dev 9 :a \x02bold word", events.Deleted(9, "alice", "dev", "a bold word"))
    assert said == ([requests.Delete(9, "dev", "a bold word")], [":alice!alice@chat.test REDACT #dev 9 :a bold word"])


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("WHOIS", "431 alice :No nickname given"),
        ("WHOWAS", "431 alice :No nickname given"),
        ("ISON", "461 alice ISON :Not enough parameters"),
        ("MONITOR", "461 alice MONITOR :Not enough parameters"),
        ("MONITOR +", "461 alice MONITOR :Not enough parameters"),
        ("OPER x", "461 alice OPER :Not enough parameters"),
        ("SETNAME", "461 alice SETNAME :Not enough parameters"),
        ("REDACT bob", "461 alice REDACT :Not enough parameters"),
    ],
)
def test_missing_parameters(line: str, expected: str) -> None:
    assert Dialogue().say(line) == ([], [f":chat.test {expected}"])
