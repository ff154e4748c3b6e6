"""InputParser and Addressing: what typed lines mean, in one line and in several, in a pipe and at a terminal."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatclient.cli.input import GuestInputParser, InputParser, LineMeaning, ParsedInput
from chatclient.notices import ASK_RECIPIENT, Asked, Question
from chatprotocol.keywords import KEYWORD_SETS
from chatprotocol.requests import (
    AskAudit,
    AskBans,
    AskHistory,
    AskIgnored,
    AskRooms,
    AskTokens,
    AskUser,
    AskUsers,
    Ban,
    Delete,
    GiveVoice,
    Ignore,
    Invite,
    Join,
    Kick,
    Leave,
    MakeMember,
    MakeOperator,
    Mute,
    Part,
    Report,
    Request,
    Revoke,
    Say,
    Search,
    SetModes,
    SetTopic,
    TakeVoice,
    Unban,
    Unignore,
    Unmute,
    Whisper,
)
from chatprotocol.wire.base import OpenDirect, OpenPublic

USAGE = "Type @USER MESSAGE or @ALL MESSAGE; nothing was sent. EX leaves."


def text_for(recipients: str) -> Question:
    return Question(Asked.TEXT, f"message for {recipients}")


def parser(ops: str = "pm-dm") -> InputParser:
    """The parser of a pipe."""
    return InputParser(KEYWORD_SETS[ops])


def at_terminal(ops: str = "pm-dm", *steps: str, is_json: bool = True, last_sender: str = "bob") -> InputParser:
    """The parser of a person who sees alice, bob and Carol online, after these lines."""
    made = InputParser(KEYWORD_SETS[ops], sends_plain_lines=True, is_json=is_json)
    made.names = ("bob", "alice", "Carol")
    made.last_sender = last_sender
    for step in steps:
        made.parse_line(step)
    return made


def guest() -> GuestInputParser:
    return GuestInputParser(KEYWORD_SETS["pm-dm"])


# --- operations in one line ---


@pytest.mark.parametrize(
    ("ops", "line", "action"),
    [
        ("pm-dm", "DM bob hello bob", Whisper("bob", "hello bob")),
        ("pm-dm", "dm @bob hello", Whisper("bob", "hello")),
        ("pm-dm", "DM @all hello", Say("hello")),
        ("bm-pm", "bm   @bob  two ", Say("@bob  two")),
        ("bm-pm", "PM bob hello", Whisper("bob", "hello")),
        ("pm-dm", "@Bob  two  blanks ", Whisper("Bob", "two  blanks")),
        ("pm-dm", "@ALLY hello", Whisper("ALLY", "hello")),
        ("pm-dm", "@Bob: hello", Whisper("Bob", "hello")),
        ("pm-dm", "CH", AskHistory(50)),
        ("pm-dm", "Ch  007 ", AskHistory(7)),
        ("pm-dm", " ex now", Leave()),
        ("pm-dm", "/QUIT", Leave()),
        ("pm-dm", "/Users", AskUsers()),
        ("pm-dm", " ", None),
    ],
)
def test_line_is_an_operation(ops: str, line: str, action: Request | None) -> None:
    assert parser(ops).parse_line(line) == ParsedInput(action)


@pytest.mark.parametrize(
    ("ops", "line", "error"),
    [
        ("pm-dm", "hello everybody", "hello is not an operation, so nothing was sent."),
        ("pm-dm", "PMhello", "There are PM (to all users), DM (to one user), CH (history), EX (leave) and /help."),
        ("bm-pm", "DM bob hello", "There are BM (to all users), PM (to one user), CH"),
        ("pm-dm", "\u0130", "is not an operation"),
        ("pm-dm", "/QUIET", "/QUIET works only at a terminal; nothing was done."),  # not: do you mean /quit?
        ("pm-dm", "DM b\u00f6b hello", "A username is 1 to 32 letters"),
        ("pm-dm", f"@{'x' * 33} hello", "A username is 1 to 32 letters"),
        ("pm-dm", "CH 0", "CH takes a number from 1 to 500, not '0'."),
        ("pm-dm", "CH 501", "CH takes a number from 1 to 500, not '501'."),
        ("pm-dm", "CH \u0665", "CH takes a number from 1 to 500"),
        ("pm-dm", "CH " + "9" * 5_000, f"not '{'9' * 32}'."),
    ],
)
def test_line_that_is_no_operation_sends_nothing_and_names_the_error(ops: str, line: str, error: str) -> None:
    parsed = parser(ops).parse_line(line)
    assert error in (parsed.error or "")
    assert parsed == ParsedInput(error=parsed.error)


# --- operations in several lines ---


@pytest.mark.parametrize(("ops", "public", "direct"), [("pm-dm", "PM", "dm"), ("bm-pm", "bm", "PM")])
def test_operation_in_steps(ops: str, public: str, direct: str) -> None:
    """Each answer is taken as typed, even if it looks like an operation."""
    steps = parser(ops)
    assert steps.parse_line(public) == ParsedInput(OpenPublic(), question=text_for("all users"))
    assert steps.parse_line("DM bob /quit") == ParsedInput(Say("DM bob /quit"))
    assert steps.parse_line(direct) == ParsedInput(OpenDirect(), question=ASK_RECIPIENT)
    assert steps.parse_line(" @bob ") == ParsedInput(question=text_for("bob"))
    assert steps.parse_line("  EX ") == ParsedInput(Whisper("bob", "  EX "))
    assert steps.parse_line(f"{direct} ALL") == ParsedInput(question=text_for("ALL"))
    assert steps.parse_line("hello") == ParsedInput(Say("hello"))
    assert steps.parse_line("@bob  ") == ParsedInput(question=text_for("bob"))
    assert steps.parse_line("hello") == ParsedInput(Whisper("bob", "hello"))
    assert steps.next_line is LineMeaning.OPERATION


NO_NAME = "A username is 1 to 32 letters and digits (A-Z, a-z, 0-9). Nothing was sent."


@pytest.mark.parametrize(
    ("lines", "answer", "error"),
    [
        (["PM"], " \t", "Nothing was typed; the operation is cancelled."),
        (["DM"], "", "Nothing was typed; the operation is cancelled."),
        (["DM", "bob"], "", "Nothing was typed; the operation is cancelled."),
        (["DM"], "two names", NO_NAME),
    ],
)
def test_empty_line_and_invalid_recipient_cancel_an_operation(lines: list[str], answer: str, error: str) -> None:
    steps = parser()
    for line in lines:
        steps.parse_line(line)
    assert steps.parse_line(answer) == ParsedInput(error=error)
    assert steps.parse_line("EX") == ParsedInput(Leave())


@pytest.mark.parametrize(
    ("recipient", "sends_plain_lines", "is_json", "action"),
    [
        ("@eve", True, True, AskUser("eve")),
        ("BOB", True, True, None),  # is online
        ("dave", True, True, None),  # wrote a direct message
        ("all", True, True, None),
        ("eve", False, True, None),
        ("eve", True, False, None),
    ],
)
def test_unknown_recipient_is_looked_up_at_a_terminal(
    recipient: str, sends_plain_lines: bool, is_json: bool, action: AskUser | None
) -> None:
    for lines in (["DM", recipient], [f"DM {recipient}"]):
        steps = InputParser(KEYWORD_SETS["pm-dm"], sends_plain_lines=sends_plain_lines, is_json=is_json)
        steps.names, steps.last_sender = ("bob",), "dave"
        parsed = [steps.parse_line(line) for line in lines][-1]
        assert parsed == ParsedInput(action, question=text_for(recipient.removeprefix("@")))


LINES = st.lists(st.text(max_size=30) | st.sampled_from(["PM", "DM", "CH", "@bob", "DM bob", "@ALL"]), max_size=6)


@given(LINES, st.booleans())
def test_every_line_has_at_most_one_result(lines: list[str], is_guest: bool) -> None:
    """A guest's lines are never part of a longer operation."""
    steps = guest() if is_guest else parser()
    for line in lines:
        parsed = steps.parse_line(line)
        assert sum(map(bool, (parsed.error, parsed.wants_help, parsed.action or parsed.question))) <= 1
        assert not is_guest or (steps.next_line is LineMeaning.OPERATION and parsed.question is None)


# --- guests ---


@pytest.mark.parametrize(
    ("line", "parsed"),
    [
        (" @Bob  two  blanks ", ParsedInput(Whisper("Bob", "two  blanks"))),
        ("@bob @carol EX", ParsedInput(Whisper("bob", "@carol EX"))),
        ("@EX\thello", ParsedInput(Whisper("EX", "hello"))),
        ("@all hello", ParsedInput(Say("hello"))),
        (" ex ", ParsedInput(Leave())),
        (" ", ParsedInput()),
    ],
)
def test_guest_names_the_recipient_in_each_line(line: str, parsed: ParsedInput) -> None:
    assert guest().parse_line(line) == parsed


@pytest.mark.parametrize(
    ("line", "error"),
    [
        *((line, USAGE) for line in ("hello @bob", "PM hello", "CH", "EX now", "/help me", "@", "@bob  ", "@ALL")),
        ("\uff20bob hello", USAGE),
        ("@b\u00f6b hello", NO_NAME),
        ("@ hello", NO_NAME),
        ("@server hello", "The name server is reserved; choose another one. Nothing was sent."),
    ],
)
def test_other_line_of_a_guest_sends_nothing(line: str, error: str) -> None:
    assert guest().parse_line(line) == ParsedInput(error=error)


# --- at a terminal ---


@pytest.mark.parametrize(
    "line",
    ["PMs are fine", "one\n/quit", "bob hello", "exit the room now", "?!", "a/b", "md carl secret", "Pm works for me"],
)
def test_other_line_at_a_terminal_is_a_public_message(line: str) -> None:
    assert at_terminal().parse_line(f" {line} ") == ParsedInput(Say(line))


@pytest.mark.parametrize(
    ("ops", "line", "error"),
    [
        ("pm-dm", "/unknown", "/help"),
        ("pm-dm", "/\nsecret", "/help"),
        ("pm-dm", "/histroy 5", "Do you mean /history?"),
        ("pm-dm", "bm hello", "PM (to all users)"),
        ("bm-pm", "DM bob hello", "PM (to one user)"),
        ("pm-dm", " Logout ", "Type /quit"),
        ("pm-dm", "?", "Type /help"),
        ("bm-pm", "exit", "BM exit"),
        ("pm-dm", "MD carl secret", "DM carl ... writes to carl"),
        ("pm-dm", "DN bob secret", "DM bob"),
        ("bm-pm", "MP bob secret", "PM bob ... writes to bob"),
        ("pm-dm", "ex and so on", "ex takes no text, so nothing was done; PM ex ..."),
        ("pm-dm", "/quiet please", "/quiet takes no text"),
        ("pm-dm", "/password secret", "it asks for the passwords"),
        ("pm-dm", "ch is a country", "CH takes a number"),
    ],
)
def test_typing_error_at_a_terminal_is_not_sent(ops: str, line: str, error: str) -> None:
    parsed = at_terminal(ops).parse_line(line)
    assert error in (parsed.error or "")
    assert parsed == ParsedInput(error=parsed.error)


@pytest.mark.parametrize("steps", [["PM"], ["DM", "bob"], ["@bob"]])
@pytest.mark.parametrize("line", ["/unknown", "exit", "MD bob secret", "EX now"])
def test_answer_at_a_terminal_is_no_typing_error(steps: list[str], line: str) -> None:
    parsed = at_terminal("pm-dm", *steps).parse_line(line)
    assert parsed == ParsedInput(Say(line) if steps == ["PM"] else Whisper("bob", line))


@given(line=st.text(max_size=30))
def test_every_line_at_a_terminal_is_sent_unchanged_or_answered(line: str) -> None:
    parsed = at_terminal().parse_line(line)
    if isinstance(parsed.action, Say) and line.strip().split(maxsplit=1)[0].upper() not in ("PM", "@ALL"):
        assert parsed == ParsedInput(Say(line.strip()))
    elif line.strip():
        assert parsed != ParsedInput()


def test_capitalised_keyword_begins_a_sentence_only_if_the_message_is_public_anyway() -> None:
    """A direct message must not become public by a capital letter."""
    assert at_terminal("bm-pm").parse_line("Bm works for me") == ParsedInput(Say("Bm works for me"))
    assert at_terminal("bm-pm").parse_line("Pm bob psst") == ParsedInput(Whisper("bob", "psst"))
    assert at_terminal().parse_line("Pm").action == OpenPublic()


# --- commands ---


@pytest.mark.parametrize("sends_plain_lines", [True, False])
@pytest.mark.parametrize(
    ("line", "parsed"),
    [
        ("/History 5", ParsedInput(AskHistory(5))),
        ("/history 0", ParsedInput(error="/history takes a number from 1 to 500, not '0'.")),
        ("/SEARCH caf\u00e9 noon*", ParsedInput(Search("caf\u00e9 noon*"))),
        ("/search  ", ParsedInput(error="Nothing was searched for; type /search WORDS.")),
        ("/reply", ParsedInput(question=text_for("bob"))),
        ("/Reply /quit", ParsedInput(Whisper("bob", "/quit"))),
        ("/password", ParsedInput(changes_password=True)),
    ],
)
def test_command_is_parsed(sends_plain_lines: bool, line: str, parsed: ParsedInput) -> None:
    made = InputParser(KEYWORD_SETS["pm-dm"], sends_plain_lines=sends_plain_lines, is_json=True)
    made.last_sender = "bob"
    assert made.parse_line(line) == parsed


# Lines, and what they mean in the lobby and in the room dev, for a user who is in dev and Ops.
ROOM_LINES: list[tuple[str, ParsedInput, ParsedInput | None]] = [
    ("/rooms", ParsedInput(AskRooms()), None),
    ("/join new", ParsedInput(Join("new")), None),
    ("/JOIN #new PRIVATE", ParsedInput(Join("new", private=True, key="PRIVATE")), None),
    ("/join #new Sesame", ParsedInput(Join("new", key="Sesame")), None),
    ("/join lobby", ParsedInput(enters=""), None),
    ("/room #ops", ParsedInput(enters="Ops"), None),
    ("/room Lobby", ParsedInput(enters=""), None),
    ("/room", ParsedInput(enters=""), ParsedInput(enters="dev")),
    ("/part OPS", ParsedInput(Part("OPS")), None),
    ("/invite bob #ops", ParsedInput(Invite("ops", "bob")), None),
    ("/kick @bob ops", ParsedInput(Kick(room="Ops", username="bob")), None),
    ("/kick bob", ParsedInput(Kick(username="bob")), ParsedInput(Kick(room="dev", username="bob"))),
    ("/kick bob #new", ParsedInput(Kick(room="new", username="bob")), None),
    ("/kick bob lobby spam", ParsedInput(Kick(username="bob", reason="spam")), None),
    (
        "/ban bob 7d  spam  7d",
        ParsedInput(Ban(username="bob", seconds=604_800, reason="spam  7d")),
        ParsedInput(Ban(room="dev", username="bob", seconds=604_800, reason="spam  7d")),
    ),
    ("/ban bob ops 1H", ParsedInput(Ban(room="Ops", username="bob", seconds=3_600)), None),
    ("/ban bob forever #ops spam", ParsedInput(Ban(room="Ops", username="bob", reason="spam")), None),
    ("/ban 192.0.2.7/24 2h spam", ParsedInput(Ban(address="192.0.2.0/24", seconds=7_200, reason="spam")), None),
    ("/ban 2001:db8::1", ParsedInput(Ban(address="2001:db8::/64")), None),
    ("/unban bob ops", ParsedInput(Unban(room="ops", username="bob")), None),
    ("/unban bob lobby", ParsedInput(Unban(username="bob")), None),
    ("/unban 192.0.2.7", ParsedInput(Unban(address="192.0.2.7")), None),
    (
        "/mute bob 10m be kind",
        ParsedInput(Mute(username="bob", seconds=600, reason="be kind")),
        ParsedInput(Mute(room="dev", username="bob", seconds=600, reason="be kind")),
    ),
    ("/unmute bob", ParsedInput(Unmute(username="bob")), ParsedInput(Unmute(room="dev", username="bob"))),
    ("/bans", ParsedInput(AskBans()), ParsedInput(AskBans(room="dev"))),
    ("/delete", ParsedInput(Delete(16)), ParsedInput(Delete(16, "dev"))),
    ("/delete #17", ParsedInput(Delete(17)), ParsedInput(Delete(17, "dev"))),
    (
        "/report 17 spam",
        ParsedInput(Report(id=17, reason="spam")),
        ParsedInput(Report(id=17, room="dev", reason="spam")),
    ),
    ("/report @17", ParsedInput(Report(username="17")), ParsedInput(Report(username="17", room="dev"))),
    ("/audit 5", ParsedInput(AskAudit(5)), None),
    ("/ignore @bob", ParsedInput(Ignore("bob")), None),
    ("/unignore bob", ParsedInput(Unignore("bob")), None),
    ("/ignored", ParsedInput(AskIgnored()), None),
    ("/sessions", ParsedInput(AskTokens()), None),
    ("/revoke 5f3a90c1", ParsedInput(Revoke("5f3a90c1")), None),
    ("/REVOKE all", ParsedInput(Revoke("all")), None),
    ("/op bob ops", ParsedInput(MakeOperator("ops", "bob")), None),
    ("/deop bob ops", ParsedInput(MakeMember("ops", "bob")), None),
    ("/voice bob ops", ParsedInput(GiveVoice("ops", "bob")), None),
    ("/devoice bob ops", ParsedInput(TakeVoice("ops", "bob")), None),
    ("PM hello", ParsedInput(Say("hello")), ParsedInput(Say("hello", room="dev"))),
    ("@ALL hello", ParsedInput(Say("hello")), ParsedInput(Say("hello", room="dev"))),
    ("/me waves", ParsedInput(Say("/me waves")), ParsedInput(Say("/me waves", room="dev"))),
    ("CH 5", ParsedInput(AskHistory(5)), ParsedInput(AskHistory(5, room="dev"))),
    ("/search x", ParsedInput(Search("x")), ParsedInput(Search("x", room="dev"))),
    ("/who", ParsedInput(AskUsers()), ParsedInput(AskUsers("dev"))),
    ("DM bob hello", ParsedInput(Whisper("bob", "hello")), None),
]
LOBBY_ERRORS = {
    "/part": "Every user is in the lobby",
    "/topic tea": "The lobby has no topic",
    "/op bob": "name a room after the user",
    "/modes private": "The lobby has no modes",
    "/kick": "name a user",
    "/ban": "name a user",
    "/ban bob.": "'bob.' is not an address or a network",
    "/ban 192.0.2.7/33": "is not an address or a network",
    "/ban 192.0.2.7 #dev": "from the whole server only",
    "/unban 192.0.2.7 #dev": "from the whole server only",
    "/revoke": "Nothing was done; type /revoke ID, as /sessions lists it, or /revoke all.",
    "/revoke my phone": "Nothing was done; type /revoke ID, as /sessions lists it, or /revoke all.",
    "/ban bob 10": "'10' is not a duration; type 10m, 2h, 7d or forever. Nothing was done.",
    "/ban bob 0d": "'0d' is zero; type",
    "/mute bob 10000y": "is longer than 100 years; type",
    "/mute bob 7d " + "x" * 257: "A reason has 256 bytes at most",
    "/kick bob a\x1bb": "A reason is one line",
    "/delete last": "takes the number of a message",
    "/report no/name": "A username is",
    "/audit 501": "/audit takes a number from 1 to 500",
    "/ignore": "name a user",
    "/leave": "/part leaves a room",
    "/whisper bob hello": "DM USER MESSAGE writes to one user",
    "/nick eve": "A name can't be changed",
}
REMOVED_ERRORS = dict.fromkeys(("/room", "/topic"), "You are not in #gone; /join enters it")
ROOM_ERRORS = {
    "/join": "type /join ROOM",
    "/join a b c": "type /join ROOM [KEY]",
    "/join a b,c": "The key of a room is a word",
    "/modes secret": "no mode 'secret'. The modes are private, moderated, open-topic, key WORD and limit NUMBER",
    "/modes private key": "Type /modes key WORD, or -key to end it",
    "/modes key " + "x" * 33: "The key of a room has 32 bytes at most",
    "/modes limit 0": "A limit is a number from 1 to 10,000, not '0'",
    "/modes limit ten": "A limit is a number from 1 to 10,000, not 'ten'",
    "/join a/b": "A room's name is",
    "/join direct": "reserved",
    "/room nosuch": "You are not in #nosuch",
    "/part lobby": "Every user is in the lobby",
    "/part a/b": "A room's name is",
    "/topic a\x1bb": "A topic is one line",
    "/op": "name a user",
    "/op no/name": "A username is",
    "/op bob lobby": "name a room after the user",
    "/op bob a b": "A room's name is",
}


def in_rooms(room: str = "", *, sends_plain_lines: bool = True, is_json: bool = True) -> InputParser:
    made = InputParser(KEYWORD_SETS["pm-dm"], sends_plain_lines=sends_plain_lines, is_json=is_json)
    made.room, made.rooms, made.other_rooms, made.names = room, ("dev", "Ops"), ("other",), ("bob", "eve")
    made.last_own_id = 16
    return made


@pytest.mark.parametrize("sends_plain_lines", [True, False])
@pytest.mark.parametrize(("line", "in_lobby", "in_dev"), ROOM_LINES)
def test_line_is_about_the_current_room(
    sends_plain_lines: bool, line: str, in_lobby: ParsedInput, in_dev: ParsedInput | None
) -> None:
    assert in_rooms(sends_plain_lines=sends_plain_lines).parse_line(line) == in_lobby
    assert in_rooms("dev", sends_plain_lines=sends_plain_lines).parse_line(line) == (in_dev or in_lobby)


def test_own_last_message_is_known_only_after_its_confirmation() -> None:
    made = in_rooms()
    assert [
        line for line in ("/delete", " /Delete ", "/delete 17", "PM /delete") if made.needs_confirmations(line)
    ] == [
        "/delete",
        " /Delete ",
    ]
    made.last_own_id = None
    assert "You have sent no message here" in (made.parse_line("/delete").error or "")
    made.parse_line("PM")
    assert not made.needs_confirmations("/delete")


def test_operation_in_steps_goes_to_the_room_in_which_it_began() -> None:
    """The question names it."""
    for first, question in (("PM", "#dev"), ("DM ALL", "ALL")):
        made = in_rooms("dev")
        assert made.parse_line(first).question == text_for(question)
        made.room = "Ops"
        assert made.parse_line("hello") == ParsedInput(Say("hello", room="dev"))


def test_topic_is_shown_changed_and_removed() -> None:
    assert in_rooms("dev").parse_line("/topic") == ParsedInput(enters="dev")
    assert in_rooms("dev").parse_line("/topic tea at  5") == ParsedInput(SetTopic("dev", "tea at  5"))
    assert in_rooms("dev").parse_line("/topic -") == ParsedInput(SetTopic("dev", ""))


@pytest.mark.parametrize(
    ("changes", "request_"),
    [
        ("", SetModes(room="dev")),
        ("Moderated -private", SetModes(room="dev", moderated=True, private=False)),
        ("+open-topic key Sesame limit 20", SetModes(room="dev", open_topic=True, key="Sesame", members_max=20)),
        ("key -x -limit -key", SetModes(room="dev", key="", members_max=0)),
    ],
)
def test_modes_are_asked_for_and_changed(changes: str, request_: SetModes) -> None:
    assert in_rooms("dev").parse_line(f"/modes {changes}") == ParsedInput(request_)


@pytest.mark.parametrize(
    ("room", "line", "error"),
    [
        *(("", *each) for each in LOBBY_ERRORS.items()),
        *(("dev", *each) for each in ROOM_ERRORS.items()),
        *(("gone", *each) for each in REMOVED_ERRORS.items()),
    ],
)
def test_bad_command_about_rooms_names_the_error(room: str, line: str, error: str) -> None:
    parsed = in_rooms(room).parse_line(line)
    assert error in (parsed.error or "")
    assert parsed == ParsedInput(error=parsed.error)


def test_rooms_need_json() -> None:
    for line in ("/join dev", "/rooms", "/room dev"):
        error = in_rooms(is_json=False).parse_line(line).error
        assert error == f"There is no {line.split()[0]} in this wire format, so nothing was sent; json has it."


@pytest.mark.parametrize(
    ("before", "found"),
    [
        ("/join ", ["dev", "Ops", "other"]),
        ("/join #o", ["#Ops", "#other"]),
        ("/join dev ", []),
        ("/room ", ["dev", "lobby", "Ops"]),
        ("/ROOM o", ["Ops"]),
        ("/part d", ["dev"]),
        ("/kick ", ["bob ", "eve "]),
        ("/part ", ["dev", "Ops"]),
        ("/invite bob ", ["dev", "Ops"]),
        ("/kick bob ", ["dev", "lobby", "Ops"]),
        ("/report ", ["bob", "eve"]),
        ("/ignore e", ["eve"]),
        ("/op bob dev ", []),
        ("/voice b", ["bob "]),
        ("/modes m", ["moderated "]),
        ("/modes -P", ["-private "]),
        ("/modes key x -k", ["-key "]),
        ("/topic d", []),
    ],
)
def test_rooms_and_users_are_completed_in_commands_of_rooms(before: str, found: list[str]) -> None:
    assert in_rooms().completions(before) == (len(before.rpartition(" ")[2]), found)


def test_reply_goes_to_the_user_that_the_question_named() -> None:
    """Not to a user who writes in between."""
    made = at_terminal("pm-dm", "/reply")
    made.last_sender = "Carol"
    assert made.parse_line("secret") == ParsedInput(Whisper("bob", "secret"))
    error = "You have received no direct message yet; nothing was sent."
    assert at_terminal(last_sender="").parse_line("/reply hello") == ParsedInput(error=error)


@pytest.mark.parametrize(
    ("alias", "word"),
    [("/msg", "DM"), ("/W", "DM"), ("/who", "/users"), ("/names", "/users"), ("/r", "/reply"), ("/exit", "/quit")],
)
def test_alias_does_the_same_and_is_in_the_help(alias: str, word: str) -> None:
    assert at_terminal().parse_line(alias) == at_terminal().parse_line(word)
    (line,) = (line for line in at_terminal().help() if line.split()[0] == word)
    assert alias.lower() in re.split("[ ,()]+", line)


OWN_COMMANDS = ["/password", "/sessions", "/revoke"]
ROOM_COMMANDS = [
    *("/rooms", "/join", "/room", "/part", "/topic", "/invite", "/op", "/deop"),
    *("/voice", "/devoice", "/modes"),
]
MODERATION_COMMANDS = [
    *("/kick", "/ban", "/unban", "/mute", "/unmute", "/bans", "/delete", "/report", "/audit"),
    *("/ignore", "/unignore", "/ignored"),
]


@pytest.mark.parametrize("sends_plain_lines", [True, False])
@pytest.mark.parametrize("is_json", [True, False])
@pytest.mark.parametrize("ops", KEYWORD_SETS)
def test_help_and_completions_name_every_command(ops: str, is_json: bool, sends_plain_lines: bool) -> None:
    """It is made from the table. Beside the gutter of a window of 100 columns there is room for 75."""
    made = InputParser(KEYWORD_SETS[ops], sends_plain_lines=sends_plain_lines, is_json=is_json)
    lines = made.help()
    search, json_only = (["/search"], [*OWN_COMMANDS, *ROOM_COMMANDS, *MODERATION_COMMANDS]) if is_json else ([], [])
    switches = ["/ids", "/joins", "/quiet"] if sends_plain_lines else []
    middle = ["/me", "/users", "/history", *search, "/reply", *json_only, *switches]
    commands = [*KEYWORD_SETS[ops], *middle, "/help", "/quit"]
    assert [line.split()[0] for line in lines[:-1]] == [*(["MESSAGE"] if sends_plain_lines else []), *commands]
    assert "an empty line" in lines[-1]
    assert any("to your room" in line for line in lines) == is_json
    assert all(line[19] == " " and line[20] != " " and len(line) <= 75 for line in lines)
    for word in commands:
        assert "is not an operation" not in (made.parse_line(word).error or "")
        made.parse_line("")
    assert made.completions("") == (0, [f"{word} " for word in commands])


@pytest.mark.parametrize("line", ["/HELP me", " /quiet ", "/unknown"])
def test_local_command_needs_no_server(line: str) -> None:
    assert at_terminal().is_local(line)
    assert not at_terminal("pm-dm", "PM").is_local(line)
    assert at_terminal().parse_line("/QUIET") == ParsedInput(toggle="quiet")
    assert not any(at_terminal().is_local(other) for other in ("/history 5", "/reply", "/quit", "PM x", "hello", ""))


# --- completions and hints ---

NAMES = ["alice", "bob", "Carol"]


@pytest.mark.parametrize(
    ("steps", "before", "found"),
    [
        ([], "p", ["PM "]),
        ([], "C", ["CH ", "Carol: "]),
        ([], "/Q", ["/quiet ", "/quit "]),
        ([], "DM ", ["alice ", "bob ", "Carol "]),
        ([], "dm c", ["Carol "]),
        ([], "DM bob al", ["alice"]),
        ([], "PM b", ["bob"]),
        ([], "@", ["@ALL ", "@alice ", "@bob ", "@Carol "]),
        ([], "hello al", ["alice"]),
        ([], "hello @al", []),
        ([], "/me hugs c", ["Carol"]),
        ([], "/nosuch c", []),
        (["DM"], "", NAMES),
        (["DM"], "bob c", []),
        (["PM"], "hello c", ["Carol"]),
        (["PM"], "/q", []),
    ],
)
def test_commands_and_names_are_completed(steps: list[str], before: str, found: list[str]) -> None:
    length = len(before.rpartition(" ")[2])
    assert at_terminal("pm-dm", *steps).completions(before) == (length, found)


def test_last_speakers_are_completed_first() -> None:
    made = at_terminal()
    made.speakers = ("carol", "gone", "bob")
    for before, found in (("@", ["@Carol ", "@bob ", "@alice "]), ("hello ", ["Carol", "bob", "alice"])):
        assert [each for each in made.completions(before)[1] if each != "@ALL "] == found


@pytest.mark.parametrize("line", ["", "/repl", "/reply ", " /reply", "hello /reply", "/users"])
def test_reply_alone_is_expanded_to_its_recipient(line: str) -> None:
    """The recipient is visible before the message is sent."""
    assert at_terminal().expansion("/reply") == "DM bob "
    assert at_terminal("bm-pm").expansion("/r") == "PM bob "
    assert at_terminal().expansion(line) is None
    assert at_terminal("pm-dm", "PM").expansion("/reply") is None
    assert at_terminal(last_sender="").expansion("/reply") is None


def test_hint_names_the_operations() -> None:
    assert at_terminal().hint() == "Type a message to all users, or DM USER MESSAGE to one; /help lists the commands."
    assert "PM USER MESSAGE" in at_terminal("bm-pm").hint()
    assert parser().hint() == "Type PM, DM, CH or EX; /help lists the commands."
