"""The controller of a person at a terminal: lines that need no server, lines that wait, passwords, and UiState."""

from typing import Any

import pytest
from msgspec.structs import replace

from chatclient.cli.exits import Exit
from chatclient.cli.frontend import Line
from chatclient.cli.input import InputParser
from chatclient.links.connection import LinkDown, LinkLost
from chatclient.model import ConnectionState, UiState
from chatclient.notices import MessageQueued, Toggle
from chatprotocol.errors import ErrorCode
from chatprotocol.events import (
    AccountKind,
    Event,
    History,
    PasswordChanged,
    PasswordPrompt,
    Refused,
    Tokens,
    TokenState,
    User,
    Users,
    Welcome,
)
from chatprotocol.keywords import KEYWORD_SETS
from chatprotocol.limits import LOGIN_ATTEMPTS_MAX
from chatprotocol.requests import (
    AskHistory,
    AskTokens,
    AskUser,
    AskUsers,
    ChangePassword,
    Login,
    Password,
    Revoke,
    Say,
    Search,
    Whisper,
)

from .dialogue import CONNECTS, HANGS_UP, HIDES, Command, Dialogue, login, sends
from .samples import HELLO, NOON_MS, SHOWS_HELLO, Shown, confirmation, direct

SERVER = ("localhost", 9999)
HINT = "[help] Type a message to all users, or DM USER MESSAGE to one; /help lists the commands."
WELCOME = Welcome(account=AccountKind.EXISTING, username="alice", users=("alice", "bob"), last_id=10)
WELCOMES = ("[welcome existing] alice; online: alice bob", HINT, sends(AskHistory(20)))
BACK = Welcome(account=AccountKind.EXISTING, username="alice", users=("alice", "bob"), last_id=20)
DOWN = LinkDown("reset")
ASKS = (HIDES, "[ask] password existing")
WRONG = Refused(ErrorCode.WRONG_PASSWORD, "Wrong.")
WRONGS = "[error wrong_password] Wrong."


class TerminalDialogue(Dialogue):
    """A person at a terminal."""

    is_person = True
    is_terminal = True

    def __init__(self, password: str | None = "secret", protocol: str = "json") -> None:
        self.shown: list[Shown] = []
        parser = InputParser(KEYWORD_SETS["pm-dm"], sends_plain_lines=True, is_json=True)
        super().__init__("alice", password, parser=parser, protocol=protocol)

    def display(self, shown: Shown) -> None:
        self.shown.append(shown)
        super().display(shown)

    def type_password(self, text: str, *outcome: str) -> None:
        self.give(Line(text, is_secret=True), *outcome)

    def log_in(self) -> None:
        self.connect(sends(login("alice", "secret")))
        self.give(WELCOME, *WELCOMES)
        self.give(History(()), "[history 0]")

    def lose(self) -> None:
        self.give(DOWN, "[lost] reset; connecting again")

    def reconnect(self, *outcome: str, since: int = 10, password: str = "secret") -> None:
        self.connect(sends(login("alice", password, since)))
        self.give(BACK, *outcome)


@pytest.fixture
def person() -> TerminalDialogue:
    """A person before the first connection."""
    return TerminalDialogue()


@pytest.fixture
def inside(person: TerminalDialogue) -> TerminalDialogue:
    """A person who is logged in and has seen the last messages."""
    person.log_in()
    return person


@pytest.fixture
def away(inside: TerminalDialogue) -> TerminalDialogue:
    """A person whose connection is lost."""
    inside.lose()
    return inside


@pytest.fixture
def asked() -> TerminalDialogue:
    """A person who is asked for the password of an existing account."""
    client = TerminalDialogue(password=None)
    client.connect(sends(login("alice")))
    client.give(PasswordPrompt(account=AccountKind.EXISTING), *ASKS)
    return client


@pytest.fixture
def new() -> TerminalDialogue:
    """A person who has typed the password of a new account once."""
    client = TerminalDialogue(password=None)
    client.connect(sends(login("alice")))
    client.give(PasswordPrompt(account=AccountKind.NEW), HIDES, "[ask] password new")
    client.type_password("my secret", HIDES, "[ask] password again")
    return client


# --- the password ---


@pytest.mark.parametrize("is_secret", [False, True])
def test_line_before_the_password_prompt_is_the_password(is_secret: bool) -> None:
    """The frontend may not have shown the prompt yet."""
    client = TerminalDialogue(password=None)
    client.model.username = ""
    client.begin("[ask] username")
    client.type("alice", CONNECTS)
    client.give(Line("EX", is_secret=is_secret))
    assert client.ui_state.waiting == ()
    assert client.exit is None
    client.connect(sends(login("alice")))
    client.give(PasswordPrompt(account=AccountKind.EXISTING), *ASKS, sends(Password("EX")))
    client.give(WELCOME, *WELCOMES)
    assert client.ui_state.unconfirmed == ()


def test_password_is_never_a_message_nor_shown_among_waiting_lines() -> None:
    """The prompt may end at the moment when the password is typed."""
    client = TerminalDialogue(password=None)
    client.connect(sends(login("alice")))
    client.give(WELCOME, *WELCOMES)
    client.type_password("my secret")
    client.lose()
    client.type_password("my secret")
    assert "my secret" not in str(client.ui_state)
    client.connect(sends(login("alice", None, 10)))
    client.give(BACK, sends(AskHistory(20)), "[back] alice")
    assert "my secret" not in str(client.shown)


def test_wrong_password_is_asked_for_again(asked: TerminalDialogue) -> None:
    assert asked.ui_state.is_secret
    asked.type_password("one", sends(Password("one")))
    asked.give(WRONG, WRONGS, *ASKS)
    asked.type_password("EX", sends(Password("EX")))
    asked.give(WRONG, WRONGS, *ASKS)
    asked.type_password("three", sends(Password("three")))
    asked.give(WRONG, WRONGS)
    assert asked.exit is Exit.REFUSED


@pytest.mark.parametrize("is_told", [False, True])
def test_password_typed_too_late_is_used_on_a_new_connection(asked: TerminalDialogue, is_told: bool) -> None:
    if is_told:
        asked.give(Refused(ErrorCode.NOT_LOGGED_IN, "Too late."))
    asked.give(LinkDown("closed"))
    asked.give(LinkLost("closed"))
    assert asked.question == "password existing"
    asked.type_password("my secret", CONNECTS)
    asked.connect(sends(login("alice")))
    asked.give(PasswordPrompt(account=AccountKind.EXISTING), *ASKS, sends(Password("my secret")))
    asked.give(WELCOME, *WELCOMES)


@pytest.mark.parametrize("count", [1, 2])
def test_typed_password_is_used_at_another_server(asked: TerminalDialogue, count: int) -> None:
    """The server was killed before its answer. With one server the client ends."""
    asked.model.servers = (SERVER, ("other", 9999))[:count]
    asked.type_password("secret", sends(Password("secret")))
    asked.give(DOWN)
    if count == 1:
        asked.give(LinkLost("reset"), "[error lost] reset")
        return
    asked.give(LinkLost("reset"), CONNECTS)
    asked.connect(sends(login("alice", "secret")))
    asked.give(LinkLost("all failed"), "[error lost] all failed")


def test_password_of_a_new_account_is_typed_twice(new: TerminalDialogue) -> None:
    """It was hidden, so a typing error would lock the user out."""
    assert new.question == "password again"
    differ = "[error usage] The two passwords differ; choose one again."
    new.type_password("my sceret", differ, HIDES, "[ask] password new")
    new.type_password("other", HIDES, "[ask] password again")
    new.type_password("other", sends(Password("other")))
    new.give(WELCOME, *WELCOMES)


def test_first_input_of_a_new_password_survives_a_lost_connection(new: TerminalDialogue) -> None:
    new.give(DOWN)
    new.give(LinkLost("closed"))
    new.type_password("my secret", CONNECTS)
    new.connect(sends(login("alice")))
    new.give(PasswordPrompt(account=AccountKind.NEW), HIDES, "[ask] password again", sends(Password("my secret")))


# --- a session token ---


def token_login(**members: Any) -> str:
    return sends(Login(token="secret token", rooms=True, moderation=True, **members))


def test_token_logs_in_without_questions() -> None:
    """Not even the name is needed. A line that is typed meanwhile is no password, and is not hidden."""
    client = TerminalDialogue(password=None)
    client.model.username, client.model.token = "", "secret token"
    client.begin(CONNECTS)
    assert not client.ui_state.is_secret
    client.connect(token_login())
    client.give(WELCOME, *WELCOMES)
    client.give(History(()), "[history 0]")
    client.lose()
    client.connect(token_login(username="alice", since=10))
    client.give(BACK, "[back] alice")


def test_token_that_is_not_valid_ends_the_client() -> None:
    client = TerminalDialogue(password=None)
    client.model.token = "secret token"
    client.connect(token_login(username="alice"))
    client.give(Refused(ErrorCode.BAD_TOKEN, "It was revoked."), "[error bad_token] It was revoked.")
    assert client.exit is Exit.REFUSED


def test_sessions_are_listed_and_revoked(inside: TerminalDialogue) -> None:
    here = TokenState(id="5f3a90c1", label="laptop", created=NOON_MS, used=NOON_MS, expires=NOON_MS, current=True)
    there = replace(here, id="0b1e", label="a\x1b[2J", current=False)
    inside.type("/sessions", sends(AskTokens()))
    row = "[session 0b1e 2026-01-31T12:00:00Z] a\\x1b[2J"
    inside.give(Tokens((here, there)), "[sessions 2]", "[session 5f3a90c1 2026-01-31T12:00:00Z] laptop (this one)", row)
    inside.type("/revoke 0b1e", sends(Revoke("0b1e")))
    inside.give(Tokens(()), "[sessions 0]")


# --- an invitation, and a password that must be changed ---


INVITED = Refused(ErrorCode.INVITATION_REQUIRED, "New names need a code.")
NEEDS = "[error invitation_required] New names need a code."
OUTDATED = Refused(ErrorCode.PASSWORD_CHANGE_REQUIRED, "Choose a new one.")
ASKS_NEW = ("[error password_change_required] Choose a new one.", HIDES, "[ask] new password")


def test_missing_invitation_is_asked_for_and_sent_with_the_login() -> None:
    client = TerminalDialogue(password=None)
    client.connect(sends(login("alice")))
    client.give(INVITED, NEEDS, "[ask] invitation code")
    client.type(" WRONG ", sends(replace(login("alice"), invitation="WRONG")))
    client.give(INVITED, NEEDS, "[ask] invitation code")
    # The server's time for the login is over.
    client.give(Refused(ErrorCode.NOT_LOGGED_IN, "Too late."))
    client.give(DOWN)
    client.give(LinkLost("closed"))
    assert client.question == "invitation code"
    client.type("CODE", CONNECTS)
    client.connect(sends(replace(login("alice"), invitation="CODE")))
    client.give(PasswordPrompt(account=AccountKind.NEW), HIDES, "[ask] password new")
    client.type_password("secret", HIDES, "[ask] password again")
    client.type_password("secret", sends(Password("secret")))
    client.give(WELCOME, *WELCOMES)
    assert client.model.invitation is None, "it is used up"


def test_wrong_invitation_ends_the_client_after_some_tries() -> None:
    client = TerminalDialogue(password=None)
    client.connect(sends(login("alice")))
    for _ in range(LOGIN_ATTEMPTS_MAX):
        client.give(INVITED, NEEDS, "[ask] invitation code")
        client.type("WRONG", sends(replace(login("alice"), invitation="WRONG")))
    client.give(INVITED, NEEDS)
    assert client.exit is Exit.REFUSED


def test_password_that_must_be_changed_is_replaced_with_the_login(asked: TerminalDialogue) -> None:
    asked.type_password("old", sends(Password("old")))
    asked.give(OUTDATED, *ASKS_NEW)
    asked.type_password("new", HIDES, "[ask] password again")
    differ = "[error usage] The two passwords differ; choose one again."
    asked.type_password("other", differ, HIDES, "[ask] new password")
    asked.type_password("new", HIDES, "[ask] password again")
    asked.type_password("new", sends(replace(login("alice", "old"), new_password="new")))
    asked.give(WELCOME, *WELCOMES)
    asked.lose()
    asked.connect(sends(login("alice", "new", 10)))


@pytest.mark.parametrize("refused", [INVITED, OUTDATED])
@pytest.mark.parametrize("protocol", ["json", "frames"])
def test_scripts_and_other_protocols_are_told_and_not_asked(refused: Refused, protocol: str) -> None:
    """A script has the setting CHAT_INVITATION; the other protocols can't send a code or a new password."""
    client, sent = Dialogue(), sends(login("alice", "secret"))
    if protocol == "frames":
        client, sent = TerminalDialogue(protocol=protocol), sends(Command("alice history-id"))
    client.connect(sent)
    client.give(refused, f"[error {refused.code}] {refused.reason}")
    assert client.exit is Exit.REFUSED


# --- a password change ---

CHANGE = (HIDES, "[ask] old password"), (HIDES, "[ask] new password"), (HIDES, "[ask] new password again")


@pytest.fixture
def changing(inside: TerminalDialogue) -> TerminalDialogue:
    """A person who has typed all but the last password of a change."""
    inside.type("/password", *CHANGE[0])
    inside.type_password("secret", *CHANGE[1])
    inside.type_password("new", *CHANGE[2])
    assert inside.ui_state.is_secret
    assert inside.question == "new password again"
    return inside


@pytest.mark.parametrize(
    ("answer", "shown", "password"), [(PasswordChanged(), "[password changed]", "new"), (WRONG, WRONGS, "secret")]
)
def test_changed_password_is_used_later(changing: TerminalDialogue, answer: Event, shown: str, password: str) -> None:
    changing.type_password("new", sends(ChangePassword("secret", "new")))
    assert not changing.ui_state.is_secret
    changing.give(answer, shown)
    changing.lose()
    changing.reconnect("[back] alice", password=password)


@pytest.mark.parametrize(
    ("last", "why"), [("", "Nothing was typed"), ("nwe", "The two new passwords differ"), (None, ""), (None, "told")]
)
def test_password_change_is_cancelled(changing: TerminalDialogue, last: str | None, why: str) -> None:
    """By an empty line, by a typing error, and by a lost connection, told or not."""
    if last is None:
        changing.give(LinkDown("reset", not why), *["[lost] reset; connecting again"] * bool(why))
        changing.reconnect("[back] alice")
    else:
        changing.type_password(last, f"[error usage] {why}; the password was not changed.")
    assert not changing.ui_state.is_secret
    changing.type("hello", sends(Say("hello", "n1")))


def test_new_password_is_tried_too_if_its_confirmation_was_lost(changing: TerminalDialogue) -> None:
    changing.type_password("new", sends(ChangePassword("secret", "new")))
    changing.lose()
    changing.connect(sends(login("alice", "secret", 10)))
    changing.give(WRONG, HANGS_UP)
    changing.give(DOWN)
    changing.reconnect("[back] alice", password="new")


def test_password_change_in_a_script_takes_two_lines_and_shows_none(person: TerminalDialogue) -> None:
    """The new password is visible in the script, so it is not repeated. No terminal echoes the lines of a script."""
    person.log_in()
    person.is_terminal = False
    person.give(Line("/password", is_from_script=True), "> /password", *CHANGE[0])
    person.give(Line("secret", is_from_script=True), "> ***", *CHANGE[1])
    person.give(Line("new", is_from_script=True), "> ***", sends(ChangePassword("secret", "new")))


# --- while the connection is lost ---


@pytest.mark.parametrize("line", ["ex", "/QUIT", None])
@pytest.mark.parametrize("is_underway", [False, True])
def test_leaving_does_not_wait_for_the_connection(away: TerminalDialogue, line: str | None, is_underway: bool) -> None:
    if is_underway:
        away.connect(sends(login("alice", "secret", 10)))
    away.end_input() if line is None else away.type(line)
    assert away.exit is Exit.OK


@pytest.mark.parametrize("end", ["EX", None, LinkLost("no more")])
def test_lost_lines_are_reported_at_the_end(inside: TerminalDialogue, end: str | LinkLost | None) -> None:
    inside.type("one", sends(Say("one", "n1")))
    inside.lose()
    inside.type("two")
    lost = "[error lost] 2 typed lines were not confirmed\\none\\ntwo"
    if isinstance(end, LinkLost):
        inside.give(end, "[error lost] no more", lost)
    else:
        inside.end_input(lost) if end is None else inside.type(end, lost)
    assert inside.exit is Exit.LOST


def test_local_commands_work_while_the_connection_is_lost(away: TerminalDialogue) -> None:
    away.type("/help", *(f"[help] {line}" for line in away.parser.help()))
    away.type("/quiet")
    away.type("/joins")
    assert away.shown[-2:] == [Toggle("quiet"), Toggle("joins")]
    assert away.ui_state.waiting == ()


def test_lines_that_need_the_server_wait_and_are_sent_once_in_order(away: TerminalDialogue) -> None:
    """A command that needs no server does not wait behind them."""
    lines = ("hello", "DM bob psst", "/search x", "/history 5", "DM", "bob")
    for line in lines:
        away.type(line)
    away.type("/quiet")
    assert away.shown[-1] == Toggle("quiet")
    assert away.ui_state.waiting == tuple(("", line) for line in lines)
    sent = (Say("hello", "n1"), Whisper("bob", "psst", "n2"), Search("x"), AskHistory(5), AskUsers())
    away.reconnect("[back] alice", *map(sends, sent))
    assert away.ui_state.waiting == (("", "bob"),)


FINAL = [
    ErrorCode.BAD_REQUEST,
    ErrorCode.BAD_TOKEN,
    ErrorCode.BAD_USERNAME,
    ErrorCode.BANNED,
    ErrorCode.INVITATION_REQUIRED,
    ErrorCode.PASSWORD_CHANGE_REQUIRED,
    ErrorCode.TLS_REQUIRED,
    ErrorCode.TOO_LONG,
    ErrorCode.WRONG_PASSWORD,
]


@pytest.mark.parametrize("code", ErrorCode)
def test_rejected_reconnect_is_final_or_tried_again(away: TerminalDialogue, code: ErrorCode) -> None:
    """A temporary error is shown once per outage."""
    if code in FINAL:
        away.connect(sends(login("alice", "secret", 10)))
        away.give(Refused(code, "No."), f"[error {code}] No.")
        assert away.exit is Exit.REFUSED
        return
    away.type("hello")
    for told in ([f"[error {code}] Later."], []):
        away.connect(sends(login("alice", "secret", 10)))
        away.give(Refused(code, "Later."), HANGS_UP, *told)
        away.give(DOWN)
    away.reconnect("[back] alice", sends(Say("hello", "n1")))


# --- UiState: the prompt and the status line ---


def test_ui_state_follows_the_connection_and_the_users_online(person: TerminalDialogue) -> None:
    person.connect(sends(login("alice", "secret")))
    assert person.ui_state == UiState(ConnectionState.LOGGING_IN, "alice", SERVER)
    person.give(WELCOME, *WELCOMES)
    assert person.ui_state == UiState(ConnectionState.LOGGED_IN, "alice", SERVER, 2, was_logged_in=True)
    person.give(Users(None, ("alice", "bob", "eve"), ("eve",)), "[joined] eve")
    assert person.ui_state.online_count == 3
    person.lose()
    assert person.ui_state.connection_state is ConnectionState.DISCONNECTED


def test_question_stands_until_it_is_answered_or_cancelled(inside: TerminalDialogue) -> None:
    inside.type("DM", sends(AskUsers()))
    inside.give(Users(None, ("alice", "bob")), "[users 2] alice bob", "[ask] recipient")
    inside.give(HELLO, SHOWS_HELLO)
    assert inside.question == "recipient"
    inside.type("bob", "[ask] message for bob")
    inside.lose()
    assert inside.question == "message for bob"
    inside.type("EX")  # the answer, although it looks like a keyword
    inside.reconnect("[back] alice", "[ask] message for bob", sends(Whisper("bob", "EX", "n1")), since=11)
    inside.type("PM", "[ask] message for all users")
    inside.type("", "[error usage] Nothing was typed; the operation is cancelled.")
    assert inside.question == ""


def test_unconfirmed_messages_and_waiting_lines_are_told(inside: TerminalDialogue) -> None:
    inside.type("one", sends(Say("one", "n1")))
    assert inside.shown[-1] == MessageQueued(Say("one", "n1"))
    inside.give(Refused(ErrorCode.SHUTTING_DOWN, "It stops.", "n1"))  # temporary: still unconfirmed
    inside.lose()
    inside.type("two")
    assert (inside.ui_state.unconfirmed, inside.ui_state.waiting) == ((Say("one", "n1"),), (("", "two"),))
    inside.reconnect(sends(Say("one", "n1")), "[back] alice", sends(Say("two", "n2")))
    assert (inside.ui_state.unconfirmed, inside.ui_state.waiting) == ((Say("one", "n1"), Say("two", "n2")), ())
    inside.give(confirmation(21, "n1"), "[sent #21]")
    inside.give(Refused(ErrorCode.INTERNAL, "Disk.", "n2"), "[error internal] Disk.")
    assert inside.ui_state.unconfirmed == ()


# --- recipients ---

UNKNOWN = Refused(ErrorCode.UNKNOWN_USER, "There is no user 'eve'.")
SHOWS_UNKNOWN = "[error unknown_user] There is no user 'eve'."


def test_unknown_recipient_is_asked_for_again(inside: TerminalDialogue) -> None:
    """A text that was typed before the answer is sent to no other user."""
    unusable = "[error usage] A username is 1 to 32 letters and digits (A-Z, a-z, 0-9). Nothing was sent."
    inside.type("DM eve", sends(AskUser("eve")))
    inside.type("only for you")
    inside.give(UNKNOWN, SHOWS_UNKNOWN, "[ask] recipient", unusable)
    inside.type("DM eve", sends(AskUser("eve")))
    inside.give(UNKNOWN, SHOWS_UNKNOWN, "[ask] recipient")
    inside.give(Refused(ErrorCode.INTERNAL, "Other."), "[error internal] Other.")
    inside.type("bob", "[ask] message for bob")
    inside.type("psst", sends(Whisper("bob", "psst", "n1")))


@pytest.mark.parametrize(
    "answer", [User("Eve", online=False), Refused(ErrorCode.UNKNOWN_COMMAND, "?"), DOWN], ids=["yes", "old", "lost"]
)
def test_text_is_asked_for_if_the_recipient_may_exist(inside: TerminalDialogue, answer: Event | LinkDown) -> None:
    """An older server does not know the query, and a lost connection leaves it unanswered."""
    inside.type("DM eve", sends(AskUser("eve")))
    inside.give(Users(None, ("alice", "bob")))  # repeated every 30 s
    if isinstance(answer, LinkDown):
        inside.lose()
        inside.reconnect("[back] alice", "[ask] message for eve")
    else:
        inside.give(answer, "[ask] message for eve")
    inside.type("psst", sends(Whisper("eve", "psst", "n1")))


def test_parser_knows_users_online_and_the_correspondent(inside: TerminalDialogue) -> None:
    inside.type("dn eve psst", sends(Say("dn eve psst", "n1")))
    inside.give(Users(None, ("alice", "bob", "eve"), ("eve",)), "[joined] eve")
    error = "[error usage] Nothing was sent. DM eve ... writes to eve, PM dn eve ... sends it to all users."
    inside.type("dn eve psst", error)
    inside.give(direct(11), "[direct #11 2026-01-31T12:00:00Z] bob -> alice: psst")
    inside.type("/reply hi", sends(Whisper("bob", "hi", "n2")))
