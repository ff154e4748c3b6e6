"""Dialogues with the reactor of somebody at a terminal: what needs no waiting, what waits, and what is seen of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from chatclient.cli.controller import Interrupt, Line
from chatclient.cli.exits import Exit
from chatclient.cli.input import Addressing, InputParser
from chatclient.frames_client import FramesClient
from chatclient.links.connection import LinkDown, LinkLost
from chatclient.model import ConnectionState, UiState
from chatclient.notices import ConnectionLost, ErrorNotice, MessageQueued, Reconnected, Toggle
from chatclient.register_client import RegisterClient
from chatprotocol.errors import ErrorCode
from chatprotocol.events import (
    AccountKind,
    Bye,
    DirectMessage,
    History,
    PasswordChanged,
    PasswordPrompt,
    PublicMessage,
    Refused,
    Registered,
    Sent,
    SentStatus,
    User,
    Users,
    Welcome,
)
from chatprotocol.keywords import KEYWORD_SETS
from chatprotocol.requests import (
    AskHistory,
    AskUser,
    AskUsers,
    ChangePassword,
    Command,
    Leave,
    Login,
    Password,
    Register,
    Say,
    Search,
    Side,
    Whisper,
)

from .dialogue import CONNECTS, HANGS_UP, HIDES, Dialogue, sends

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chatclient.client_protocol import ClientEvent, ClientProtocol
    from chatclient.notices import UiNotice
    from chatprotocol.events import Event

SERVER = ("localhost", 9999)
HINT = "[help] What you type goes to everybody, DM USER MESSAGE to one; /help tells more."
WELCOME = Welcome(AccountKind.EXISTING, "alice", ("alice", "bob"), 10)
WELCOMES = "[welcome existing] alice; online: alice bob"
BACK = Welcome(AccountKind.EXISTING, "alice", ("alice", "bob"), 20)
RECENT = sends(AskHistory(20))
LOSS = LinkDown("reset")
LOST = "[lost] reset; connecting again"


class PersonDialogue(Dialogue):
    """Somebody at a terminal."""

    is_person = True
    recent_messages = 20
    tells_secrets = True

    def __init__(
        self,
        password: str | None = "secret",
        client_protocol: ClientProtocol | None = None,
        parser: InputParser | None = None,
    ) -> None:
        self.shown: list[ClientEvent | UiNotice] = []
        parser = parser or InputParser(KEYWORD_SETS["pm-dm"], talks=True, is_json=True)
        super().__init__("alice", password, client_protocol=client_protocol, parser=parser)

    def display(self, shown: Sequence[ClientEvent | UiNotice]) -> None:
        self.shown += shown
        super().display(shown)

    def tell_secret(self, text: str, *outcome: str) -> None:
        """Somebody types it where the password is asked for."""
        self.give(Line(text, is_secret=True), *outcome)

    def come_in(self) -> None:
        self.connect(sends(Login("alice", "secret")))
        self.give(WELCOME, WELCOMES, HINT, RECENT)
        self.give(History(()), "[history 0]")

    def lose(self) -> None:
        self.give(LOSS, LOST)


@pytest.fixture
def person() -> PersonDialogue:
    """Somebody who has not done anything yet."""
    return PersonDialogue()


@pytest.fixture
def inside(person: PersonDialogue) -> PersonDialogue:
    """Somebody who is in, and has seen the last messages."""
    person.come_in()
    return person


@pytest.fixture
def away(inside: PersonDialogue) -> PersonDialogue:
    """Somebody whose connection is lost."""
    inside.lose()
    return inside


# --- coming in ---


def test_the_last_messages_are_asked_for_and_a_hint_is_given_after_the_first_login_alone(away: PersonDialogue) -> None:
    away.connect(sends(Login("alice", "secret", 10)))
    away.give(BACK, "[back] alice")
    assert away.shown[-1] == Reconnected("alice", 20)


def test_a_plain_face_asks_for_no_messages() -> None:
    udp_session = PersonDialogue()
    udp_session.recent_messages = 0
    udp_session.connect(sends(Login("alice", "secret")))
    udp_session.give(WELCOME, WELCOMES, HINT)


def test_in_a_dialogue_dialect_the_last_messages_are_the_first_operation() -> None:
    udp_session = PersonDialogue(
        client_protocol=FramesClient("pm-dm"), parser=InputParser(KEYWORD_SETS["pm-dm"], talks=True)
    )
    udp_session.connect(sends(Command("alice history-id")))
    udp_session.give(PasswordPrompt(AccountKind.EXISTING), sends(Command("secret")))
    udp_session.give(
        Welcome(AccountKind.EXISTING, "", (), None), "[welcome existing] alice", HINT, sends(Command("CH 20"))
    )


def test_a_guest_has_no_messages_of_before() -> None:
    guest = PersonDialogue(None, RegisterClient(), Addressing(KEYWORD_SETS["pm-dm"], talks=True))
    guest.connect(sends(Register(Side.SENDING, "alice")))
    guest.give(Registered(Side.SENDING, "alice"), sends(Register(Side.RECEIVING, "alice")))
    guest.give(
        Registered(Side.RECEIVING, "alice"),
        "[welcome guest] alice",
        "[help] Type @USER MESSAGE, @ALL MESSAGE or EX.",
        "[ask] @USER MESSAGE or @ALL MESSAGE",
    )


def test_who_wants_to_leave_before_being_in_leaves_at_once(person: PersonDialogue) -> None:
    person.end_input()
    assert person.exit is Exit.LOST


@pytest.mark.parametrize("line", ["EX", "/quit"])
def test_who_types_leave_while_the_login_is_under_way_leaves_at_once(person: PersonDialogue, line: str) -> None:
    person.connect(sends(Login("alice", "secret")))
    person.type(line)
    assert person.exit is Exit.LOST


# --- the password ---


@pytest.fixture
def asked() -> PersonDialogue:
    """Somebody who is asked for a password."""
    udp_session = PersonDialogue(password=None)
    udp_session.connect(sends(Login("alice")))
    udp_session.give(PasswordPrompt(AccountKind.EXISTING), HIDES, "[ask] password existing")
    return udp_session


@pytest.mark.parametrize("is_secret", [False, True])
def test_what_is_typed_before_the_password_is_asked_for_is_the_password_and_no_message(is_secret: bool) -> None:
    """The face may not know yet that a password is next, when somebody types fast, or lets a program type."""
    udp_session = PersonDialogue(password=None)
    udp_session.connect(sends(Login("alice")))
    udp_session.give(Line("my secret", is_secret=is_secret))
    assert udp_session.ui_state.waiting == ()
    udp_session.give(
        PasswordPrompt(AccountKind.EXISTING), HIDES, "[ask] password existing", sends(Password("my secret"))
    )
    udp_session.give(WELCOME, WELCOMES, HINT, RECENT)
    udp_session.give(History(()), "[history 0]")


def test_a_name_and_a_password_in_one_go_are_never_a_message() -> None:
    """The face has not heard yet that the name was taken, when the next line is typed."""
    udp_session = PersonDialogue(password=None)
    udp_session.model.username = ""
    udp_session.begin("[ask] username")
    udp_session.type("alice", CONNECTS)
    udp_session.type("my secret")
    assert udp_session.ui_state.waiting == ()
    udp_session.connect(sends(Login("alice")))
    udp_session.give(
        PasswordPrompt(AccountKind.EXISTING), HIDES, "[ask] password existing", sends(Password("my secret"))
    )
    udp_session.give(WELCOME, WELCOMES, HINT, RECENT)
    assert "my secret" not in str(udp_session.shown)


def test_who_has_a_password_already_may_type_messages_ahead(person: PersonDialogue) -> None:
    person.connect(sends(Login("alice", "secret")))
    person.type("hello everybody")
    assert person.ui_state.waiting == ("hello everybody",)
    person.give(WELCOME, WELCOMES, HINT, RECENT, sends(Say("hello everybody", "n1")))


def test_a_password_is_never_a_message_nor_seen_among_what_waits() -> None:
    """The server may end the connection in the very moment in which it is typed."""
    udp_session = PersonDialogue(password=None)
    udp_session.connect(sends(Login("alice")))
    udp_session.give(WELCOME, WELCOMES, HINT, RECENT)
    udp_session.tell_secret("my secret")
    assert udp_session.ui_state.waiting == ()
    udp_session.lose()
    udp_session.tell_secret("my secret")
    assert "my secret" not in str(udp_session.ui_state)
    udp_session.connect(sends(Login("alice", None, 10)))
    udp_session.give(BACK, RECENT, "[back] alice")  # asked again, for there was no answer
    assert "my secret" not in str(udp_session.shown)


def test_a_wrong_password_is_asked_for_again(asked: PersonDialogue) -> None:
    wrong = Refused(ErrorCode.WRONG_PASSWORD, "Wrong.")
    asked.tell_secret("one", sends(Password("one")))
    asked.give(wrong, "[error wrong_password] Wrong.", HIDES, "[ask] password existing")
    asked.tell_secret("two", sends(Password("two")))


@pytest.mark.parametrize("is_told", [False, True])
def test_who_thinks_of_a_password_for_longer_than_the_server_waits_comes_in_all_the_same(
    asked: PersonDialogue, is_told: bool
) -> None:
    if is_told:
        asked.give(Refused(ErrorCode.NOT_LOGGED_IN, "Too late."))
    asked.give(LinkDown("closed"))
    asked.give(LinkLost("closed"))
    assert asked.ui_state.question == "password"
    asked.tell_secret("my secret", CONNECTS)
    asked.connect(sends(Login("alice")))
    asked.give(PasswordPrompt(AccountKind.EXISTING), HIDES, "[ask] password existing", sends(Password("my secret")))
    asked.give(WELCOME, WELCOMES, HINT, RECENT)


@pytest.fixture
def new() -> PersonDialogue:
    """Somebody who is asked for the password of a new name, and has typed one."""
    udp_session = PersonDialogue(password=None)
    udp_session.connect(sends(Login("alice")))
    udp_session.give(PasswordPrompt(AccountKind.NEW), HIDES, "[ask] password new")
    udp_session.tell_secret("my secret", HIDES, "[ask] password again")
    return udp_session


def test_the_password_of_a_new_name_is_asked_for_twice(new: PersonDialogue) -> None:
    """Nobody saw it being typed: misspelt, it would shut its user out."""
    assert new.ui_state.question == "password again"
    new.tell_secret("my secret", sends(Password("my secret")))
    new.give(WELCOME, WELCOMES, HINT, RECENT)


def test_two_passwords_that_differ_are_none_and_one_is_asked_for_anew(new: PersonDialogue) -> None:
    differ = "[error usage] The two passwords differ; choose one again."
    new.tell_secret("my sceret", differ, HIDES, "[ask] password new")
    new.tell_secret("other", HIDES, "[ask] password again")
    new.tell_secret("other", sends(Password("other")))


def test_the_first_of_two_passwords_outlives_a_lost_connection(new: PersonDialogue) -> None:
    new.give(LOSS)
    new.tell_secret("my secret", CONNECTS)
    new.connect(sends(Login("alice")))
    new.give(PasswordPrompt(AccountKind.NEW), HIDES, "[ask] password new", sends(Password("my secret")))


# --- another password ---

CHANGE = (HIDES, "[ask] old password"), (HIDES, "[ask] new password"), (HIDES, "[ask] new password again")
WRONG = Refused(ErrorCode.WRONG_PASSWORD, "Wrong.")


@pytest.fixture
def changing(inside: PersonDialogue) -> PersonDialogue:
    """Somebody who has typed all but the last password of a change."""
    inside.type("/password", *CHANGE[0])
    inside.tell_secret("secret", *CHANGE[1])
    inside.tell_secret("new", *CHANGE[2])
    return inside


def test_a_password_is_changed_and_used_when_coming_back(changing: PersonDialogue) -> None:
    assert changing.ui_state.is_secret
    assert changing.ui_state.question == "new password again"
    changing.tell_secret("new", sends(ChangePassword("secret", "new")))
    assert not changing.ui_state.is_secret
    changing.give(PasswordChanged(), "[password changed]")
    changing.lose()
    changing.connect(sends(Login("alice", "new", 10)))


def test_a_password_that_is_refused_stays_what_it_was(changing: PersonDialogue) -> None:
    changing.tell_secret("new", sends(ChangePassword("secret", "new")))
    changing.give(WRONG, "[error wrong_password] Wrong.")
    changing.lose()
    changing.connect(sends(Login("alice", "secret", 10)))


@pytest.mark.parametrize(
    ("last", "why"),
    [
        ("", "Nothing was typed; the password was not changed."),
        ("nwe", "The two new passwords differ; the password was not changed."),
    ],
)
def test_a_change_of_the_password_is_cancelled(changing: PersonDialogue, last: str, why: str) -> None:
    changing.tell_secret(last, f"[error usage] {why}")
    assert not changing.ui_state.is_secret
    changing.type("hello", sends(Say("hello", "n1")))


def test_a_lost_connection_cancels_a_change_of_the_password(changing: PersonDialogue) -> None:
    changing.lose()
    assert not changing.ui_state.is_secret


def test_when_the_connection_is_lost_before_the_answer_the_new_password_is_tried_too(changing: PersonDialogue) -> None:
    """Nobody knows which of the two it is."""
    changing.tell_secret("new", sends(ChangePassword("secret", "new")))
    changing.lose()
    changing.connect(sends(Login("alice", "secret", 10)))
    changing.give(WRONG, HANGS_UP)
    changing.give(LOSS)
    changing.connect(sends(Login("alice", "new", 10)))
    changing.give(BACK, "[back] alice")


def test_in_a_pipe_the_lines_behind_are_the_old_password_and_the_new_one() -> None:
    """Whoever writes a script sees what it says."""
    udp_session = PersonDialogue()
    udp_session.tells_secrets = False
    udp_session.come_in()
    udp_session.type("/password", *CHANGE[0])
    udp_session.type("secret", *CHANGE[1])
    udp_session.type("new", sends(ChangePassword("secret", "new")))


def test_who_leaves_instead_of_telling_the_password_leaves(asked: PersonDialogue) -> None:
    asked.end_input("[error refused] the input ended before the password was given")
    assert asked.exit is Exit.REFUSED


# --- while the connection is lost ---


@pytest.mark.parametrize("line", ["EX", "ex", "/quit", "/QUIT"])
def test_who_leaves_while_the_connection_is_lost_need_not_wait(away: PersonDialogue, line: str) -> None:
    away.type(line)
    assert away.exit is Exit.OK


def test_the_end_of_the_input_leaves_while_the_connection_is_lost(away: PersonDialogue) -> None:
    away.end_input()
    assert away.exit is Exit.OK


def test_who_leaves_behind_lines_that_wait_is_told_how_many_are_lost(inside: PersonDialogue) -> None:
    inside.type("one", sends(Say("one", "n1")))
    inside.lose()
    inside.type("two")
    inside.type("three")
    inside.type("EX", "[error lost] 3 typed lines were not confirmed\\none\\ntwo\\nthree")
    assert inside.exit is Exit.LOST


def test_who_leaves_with_a_message_that_is_not_confirmed_is_told(inside: PersonDialogue) -> None:
    inside.type("one", sends(Say("one", "n1")))
    inside.lose()
    inside.end_input("[error lost] 1 typed line was not confirmed\\none")
    assert inside.exit is Exit.LOST


def test_who_leaves_while_the_new_login_is_under_way_need_not_wait_either(away: PersonDialogue) -> None:
    away.connect(sends(Login("alice", "secret", 10)))
    away.end_input()
    assert away.exit is Exit.OK


def test_a_goodbye_that_the_server_does_not_answer_is_over_when_the_connection_is(inside: PersonDialogue) -> None:
    inside.type("EX", sends(Leave()))
    inside.give(LOSS)
    assert inside.exit is Exit.OK


def test_an_interrupt_in_the_room_says_goodbye(inside: PersonDialogue) -> None:
    inside.give(Interrupt(), sends(Leave()))
    inside.give(Bye("you left"), "[bye] you left")
    assert inside.exit is Exit.OK


def test_leave_as_the_answer_to_a_question_waits_as_a_message(inside: PersonDialogue) -> None:
    inside.type("PM", "[ask] message for everybody")
    inside.lose()
    inside.type("EX")
    assert inside.exit is None
    inside.connect(sends(Login("alice", "secret", 10)))
    inside.give(BACK, "[back] alice", "[ask] message for everybody", sends(Say("EX", "n1")))


def test_what_needs_no_server_is_done_while_the_connection_is_lost(away: PersonDialogue) -> None:
    away.type(
        "/help", *(f"[help] {line}" for line in InputParser(KEYWORD_SETS["pm-dm"], talks=True, is_json=True).help())
    )
    away.type("/quiet")
    away.type("/joins")
    assert away.shown[-2:] == [Toggle("quiet"), Toggle("joins")]
    away.type(
        "/uesrs",
        "[error usage] There is no /uesrs, so nothing was sent. Do you mean /users? /help tells what there is.",
    )
    assert away.ui_state.waiting == ()


def test_behind_a_line_that_waits_everything_waits(away: PersonDialogue) -> None:
    """What was typed first is used first."""
    away.type("hello")
    away.type("/quiet")
    assert away.ui_state.waiting == ("hello", "/quiet")
    away.connect(sends(Login("alice", "secret", 10)))
    away.give(BACK, "[back] alice", sends(Say("hello", "n1")))
    assert away.shown[-2:] == [MessageQueued(Say("hello", "n1")), Toggle("quiet")]


@pytest.mark.parametrize("line", ["hello", "DM bob psst", "/users", "/search x", "/history 5", "DM"])
def test_what_needs_the_server_waits_and_goes_out_once(away: PersonDialogue, line: str) -> None:
    outcome = {
        "hello": Say("hello", "n1"),
        "DM bob psst": Whisper("bob", "psst", "n1"),
        "/users": AskUsers(),
        "/search x": Search("x"),
        "/history 5": AskHistory(5),
        "DM": AskUsers(),
    }
    away.type(line)
    assert away.ui_state.waiting == (line,)
    away.connect(sends(Login("alice", "secret", 10)))
    away.give(BACK, "[back] alice", sends(outcome[line]))
    assert away.ui_state.waiting == ()


def test_a_lost_connection_is_told_once_however_often_it_is_tried(away: PersonDialogue) -> None:
    for _ in range(3):
        away.connect(sends(Login("alice", "secret", 10)))
        away.give(LOSS)
    away.connect(sends(Login("alice", "secret", 10)))
    away.give(BACK, "[back] alice")
    away.lose()
    assert [each for each in away.shown if isinstance(each, ConnectionLost)] == [ConnectionLost("reset")] * 2


def test_who_is_refused_at_the_return_is_told_why(away: PersonDialogue) -> None:
    away.connect(sends(Login("alice", "secret", 10)))
    away.give(Refused(ErrorCode.WRONG_PASSWORD, "Wrong."), "[error wrong_password] Wrong.")
    assert away.exit is Exit.REFUSED


@pytest.mark.parametrize(
    "code", sorted(set(ErrorCode) - {"bad_request", "bad_username", "too_long", "wrong_password"}, key=str)
)
def test_a_return_that_is_refused_with_what_passes_goes_on_and_is_told_once(
    away: PersonDialogue, code: ErrorCode
) -> None:
    away.type("hello")
    for told in ([f"[error {code}] Later."], [], []):
        away.connect(sends(Login("alice", "secret", 10)))
        away.give(Refused(code, "Later."), *told, HANGS_UP)
        away.give(LOSS)
    away.connect(sends(Login("alice", "secret", 10)))
    away.give(BACK, "[back] alice", sends(Say("hello", "n1")))
    assert away.exit is None


def test_a_message_that_is_put_off_is_sent_again_and_nobody_is_told_that_it_was_not(inside: PersonDialogue) -> None:
    inside.type("hello", sends(Say("hello", "n1")))
    inside.give(Refused(ErrorCode.SHUTTING_DOWN, "It stops.", "n1"))
    assert inside.ui_state.unconfirmed == (Say("hello", "n1"),)
    inside.lose()
    inside.connect(sends(Login("alice", "secret", 10)))
    inside.give(BACK, sends(Say("hello", "n1")), "[back] alice")
    inside.give(Sent(21, SentStatus.SENT, "n1"), "[sent #21]")
    assert inside.ui_state.unconfirmed == ()


def test_the_last_messages_are_asked_for_again_where_the_connection_was_lost_before_they_came(
    person: PersonDialogue,
) -> None:
    person.connect(sends(Login("alice", "secret")))
    person.give(WELCOME, WELCOMES, HINT, RECENT)
    person.lose()
    person.connect(sends(Login("alice", "secret", 10)))
    person.give(BACK, RECENT, "[back] alice")
    person.give(History(()), "[history 0]")


def test_names_that_nobody_can_have_are_not_offered_to_who_types(inside: PersonDialogue) -> None:
    parser = inside.controller._parser
    evil = ("x\u202eevil", "x\x1b[2J", "x y", "")
    inside.controller.react(Users(7, ("alice", "bob", *evil)))
    inside.controller.react(DirectMessage(11, 0, "bob", "alice", "psst"))
    for number, name in enumerate(evil):
        inside.controller.react(DirectMessage(12 + number, 0, name, "alice", "psst"))
    assert parser.names == ("alice", "bob")
    assert parser.correspondent == "bob"


def test_a_connection_that_is_lost_for_good_tells_what_is_lost_with_it(away: PersonDialogue) -> None:
    away.type("hello")
    away.give(LinkLost("no more"), "[error lost] no more", "[error lost] 1 typed line was not confirmed\\nhello")
    assert away.exit is Exit.LOST


# --- how it is now ---


def test_the_situation_tells_where_one_stands(person: PersonDialogue) -> None:
    person.connect(sends(Login("alice", "secret")))
    assert person.ui_state == UiState(ConnectionState.KNOCKING, "alice", SERVER)
    person.give(WELCOME, WELCOMES, HINT, RECENT)
    assert person.ui_state == UiState(ConnectionState.IN, "alice", SERVER, 2)
    person.give(Users(3, ("alice", "bob", "eve"), ("eve",)), "[joined] eve")
    assert person.ui_state.online_count == 3
    person.lose()
    assert person.ui_state.connection_state is ConnectionState.AWAY


def test_the_situation_tells_what_is_asked_until_it_is_answered(inside: PersonDialogue) -> None:
    assert inside.ui_state.question == ""
    inside.type("DM", sends(AskUsers()))
    inside.give(Users(2, ("alice", "bob")), "[users 2] alice bob", "[ask] recipient")
    assert inside.ui_state.question == "recipient"
    inside.give(PublicMessage(11, 0, "bob", "x"), "[public #11 1970-01-01T00:00:00Z] bob: x")
    assert inside.ui_state.question == "recipient"
    inside.type("bob", "[ask] message for bob")
    inside.lose()
    assert inside.ui_state.question == "message for bob"
    inside.connect(sends(Login("alice", "secret", 11)))
    inside.give(BACK, "[back] alice", "[ask] message for bob")
    inside.type("psst", sends(Whisper("bob", "psst", "n1")))
    assert inside.ui_state.question == ""


NOBODY = Refused(ErrorCode.UNKNOWN_USER, "There is no user 'eve'.")
NOBODY_IS_EVE = "[error unknown_user] There is no user 'eve'."


def test_a_recipient_who_does_not_exist_is_refused_before_the_text_is_typed(inside: PersonDialogue) -> None:
    inside.type("DM eve", sends(AskUser("eve")))
    inside.give(NOBODY, NOBODY_IS_EVE, "[ask] recipient")
    assert inside.ui_state.question == "recipient"
    inside.type("bob", "[ask] message for bob")
    inside.type("psst", sends(Whisper("bob", "psst", "n1")))


def test_what_was_typed_for_somebody_who_does_not_exist_is_said_to_nobody(inside: PersonDialogue) -> None:
    inside.type("DM eve", sends(AskUser("eve")))
    inside.type("only for you")  # before the answer
    unusable = "[error usage] A username is 1 to 32 letters and digits (A-Z, a-z, 0-9). Nothing was sent."
    inside.give(NOBODY, NOBODY_IS_EVE, "[ask] recipient", unusable)
    assert inside.ui_state.unconfirmed == ()


@pytest.mark.parametrize("answer", [User("Eve", online=False), Refused(ErrorCode.UNKNOWN_COMMAND, "There is no user.")])
def test_the_text_for_somebody_who_exists_or_may_exist_is_asked_for(inside: PersonDialogue, answer: Event) -> None:
    """Servers of before don't know the question."""
    inside.type("DM eve", sends(AskUser("eve")))
    inside.give(Users(2, ("alice", "bob")))  # repeated every 30 s
    inside.type("psst")
    inside.give(answer, "[ask] message for eve", sends(Whisper("eve", "psst", "n1")))


def test_a_connection_that_is_lost_before_it_is_known_whether_there_is_a_user_asks_for_the_text(
    inside: PersonDialogue,
) -> None:
    inside.type("DM eve", sends(AskUser("eve")))
    inside.lose()
    inside.connect(sends(Login("alice", "secret", 10)))
    inside.give(BACK, "[back] alice", "[ask] message for eve")
    inside.type("psst", sends(Whisper("eve", "psst", "n1")))


def test_an_empty_line_leads_out_of_a_question(inside: PersonDialogue) -> None:
    inside.type("PM", "[ask] message for everybody")
    inside.type("", "[error usage] Nothing was typed; the operation is cancelled.")
    assert inside.ui_state.question == ""


def test_the_situation_tells_what_waits_and_what_is_not_confirmed(inside: PersonDialogue) -> None:
    inside.type("one", sends(Say("one", "n1")))
    assert inside.ui_state.unconfirmed == (Say("one", "n1"),)
    inside.lose()
    inside.type("two")
    assert (inside.ui_state.unconfirmed, inside.ui_state.waiting) == ((Say("one", "n1"),), ("two",))
    inside.connect(sends(Login("alice", "secret", 10)))
    inside.give(BACK, sends(Say("one", "n1")), "[back] alice", sends(Say("two", "n2")))
    assert (inside.ui_state.unconfirmed, inside.ui_state.waiting) == ((Say("one", "n1"), Say("two", "n2")), ())
    inside.give(Sent(21, SentStatus.SENT, "n1"), "[sent #21]")
    inside.give(Refused(ErrorCode.INTERNAL, "Disk.", "n2"), "[error internal] Disk.")
    assert inside.ui_state.unconfirmed == ()


def test_an_own_message_is_announced_with_its_nonce_before_it_is_confirmed(inside: PersonDialogue) -> None:
    inside.type("hello", sends(Say("hello", "n1")))
    assert inside.shown[-1] == MessageQueued(Say("hello", "n1"))


def test_the_last_who_wrote_is_the_one_who_is_replied_to(inside: PersonDialogue) -> None:
    inside.type("/reply hi", "[error usage] Nobody has written you a direct message yet; nothing was sent.")
    psst = DirectMessage(11, 0, "bob", "alice", "psst")
    inside.give(psst, "[direct #11 1970-01-01T00:00:00Z] bob -> alice: psst")
    inside.type("/reply hi", sends(Whisper("bob", "hi", "n1")))


def test_a_slip_before_a_name_of_somebody_online_is_not_sent(inside: PersonDialogue) -> None:
    inside.type("dn eve psst", sends(Say("dn eve psst", "n1")))
    inside.give(Users(3, ("alice", "bob", "eve"), ("eve",)), "[joined] eve")
    inside.type(
        "dn eve psst",
        "[error usage] Nothing was sent. DM eve ... writes to eve, PM dn eve ... says it to everybody.",
    )


@pytest.mark.parametrize("text", ["\udce9", "caf\udce9 noon"])
def test_bytes_that_are_no_text_are_not_sent_and_end_nothing(inside: PersonDialogue, text: str) -> None:
    """A terminal in another encoding."""
    inside.controller.react(Line(text))
    assert isinstance(inside.shown[-1], ErrorNotice)
    assert inside.exit is None
    assert not inside.model.unconfirmed


def test_a_password_that_looks_like_an_operation_is_a_password(asked: PersonDialogue) -> None:
    asked.tell_secret("EX", sends(Password("EX")))
    assert asked.exit is None


def test_a_password_that_is_typed_too_early_is_no_wish_to_leave() -> None:
    udp_session = PersonDialogue(password=None)
    udp_session.connect(sends(Login("alice")))
    udp_session.tell_secret("EX")
    assert udp_session.exit is None
