"""Dialogues with the reactor: coming in."""

import pytest

from chatclient.connection import Down, Lost
from chatclient.exits import Exit
from chatprotocol.errors import ErrorCode
from chatprotocol.events import AccountKind, Bye, PasswordPrompt, Refused, Sent, SentStatus, Welcome
from chatprotocol.requests import Leave, Login, Password, Say

from .dialogue import HIDES, Dialogue, sends

WELCOME = Welcome(AccountKind.NEW, "alice", ("alice",), 10)
WELCOMES = "[welcome new] alice; online: alice"
WRONG = Refused(ErrorCode.WRONG_PASSWORD, "That is not the password of alice.")
WRONGS = "[error wrong_password] That is not the password of alice."


@pytest.fixture
def asked() -> Dialogue:
    """A client that knows no password and was asked for one."""
    talk = Dialogue(password=None)
    talk.connect(sends(Login("alice")))
    talk.give(PasswordPrompt(AccountKind.EXISTING), HIDES, "[ask] password existing")
    return talk


def test_a_client_with_a_password_comes_in_at_once(talk: Dialogue) -> None:
    talk.connect(sends(Login("alice", "secret")))
    talk.give(WELCOME, WELCOMES)
    assert talk.exit is None


def test_a_client_without_a_password_is_asked_for_a_new_one() -> None:
    talk = Dialogue(password=None)
    talk.connect(sends(Login("alice")))
    talk.give(PasswordPrompt(AccountKind.NEW), HIDES, "[ask] password new")
    talk.type("my secret", sends(Password("my secret")))
    talk.give(WELCOME, WELCOMES)


def test_a_password_is_taken_as_it_was_typed(asked: Dialogue) -> None:
    asked.type("  PM EX @bob  ", sends(Password("  PM EX @bob  ")))


def test_a_password_is_asked_for_once_for_all_connections(asked: Dialogue) -> None:
    asked.type("my secret", sends(Password("my secret")))
    asked.give(WELCOME, WELCOMES)
    asked.give(Down("reset"), "[lost] reset; connecting again")
    asked.connect(sends(Login("alice", "my secret", 10)))


def test_a_wrong_password_is_asked_for_again_and_then_refused_for_good(asked: Dialogue) -> None:
    asked.type("one", sends(Password("one")))
    asked.give(WRONG, WRONGS, HIDES, "[ask] password existing")
    asked.type("two", sends(Password("two")))
    asked.give(WRONG, WRONGS, HIDES, "[ask] password existing")
    asked.type("three", sends(Password("three")))
    asked.give(Refused(ErrorCode.TOO_MANY_ATTEMPTS, "Closed."), "[error too_many_attempts] Closed.")
    assert asked.exit is Exit.REFUSED


def test_an_empty_password_is_asked_for_again(asked: Dialogue) -> None:
    asked.type("", sends(Password("")))
    asked.give(Refused(ErrorCode.BAD_REQUEST, "Empty."), "[error bad_request] Empty.", HIDES, "[ask] password existing")
    asked.type("secret", sends(Password("secret")))


def test_a_password_that_was_set_and_is_wrong_is_not_asked_for(talk: Dialogue) -> None:
    talk.connect(sends(Login("alice", "secret")))
    talk.give(WRONG, WRONGS)
    assert talk.exit is Exit.REFUSED


@pytest.mark.parametrize(
    ("code", "end"),
    [
        (ErrorCode.WRONG_PASSWORD, Exit.REFUSED),
        (ErrorCode.TOO_MANY_ATTEMPTS, Exit.REFUSED),
        (ErrorCode.BAD_USERNAME, Exit.REFUSED),
        (ErrorCode.BAD_REQUEST, Exit.REFUSED),
        (ErrorCode.TOO_LONG, Exit.REFUSED),
        (ErrorCode.SERVER_FULL, Exit.LOST),
        (ErrorCode.SHUTTING_DOWN, Exit.LOST),
        (ErrorCode.INTERNAL, Exit.LOST),
    ],
)
def test_a_login_that_is_refused_ends_with_the_code_for_why(talk: Dialogue, code: ErrorCode, end: Exit) -> None:
    talk.connect(sends(Login("alice", "secret")))
    talk.give(Refused(code, "No."), f"[error {code}] No.")
    assert talk.exit is end


def test_a_server_that_cannot_be_reached_is_lost(talk: Dialogue) -> None:
    talk.give(Lost("can't reach localhost:9999: refused"), "[error lost] can't reach localhost:9999: refused")
    assert talk.exit is Exit.LOST


def test_a_connection_that_is_lost_before_the_login_is_lost_for_good(talk: Dialogue) -> None:
    talk.connect(sends(Login("alice", "secret")))
    talk.give(Down("the server closed the connection"), "[error lost] the server closed the connection")
    assert talk.exit is Exit.LOST


def test_what_a_server_says_of_itself_is_made_harmless(talk: Dialogue) -> None:
    talk.give(Lost("\x1b[2J"), r"[error lost] \x1b[2J")


def test_lines_that_are_typed_before_the_login_wait_for_it(talk: Dialogue) -> None:
    talk.type("PM one")
    talk.connect(sends(Login("alice", "secret")))
    talk.type("PM two")
    assert talk.lines_used == 0
    talk.give(WELCOME, WELCOMES, sends(Say("one", "n1")), sends(Say("two", "n2")))
    assert talk.lines_used == 2


def test_lines_of_a_pipe_are_the_password_first_and_operations_then() -> None:
    talk = Dialogue(password=None)
    talk.type("secret")
    talk.type("PM hello")
    talk.connect(sends(Login("alice")))
    talk.give(PasswordPrompt(AccountKind.NEW), HIDES, "[ask] password new", sends(Password("secret")))
    assert talk.lines_used == 1
    talk.give(WELCOME, WELCOMES, sends(Say("hello", "n1")))


def test_the_input_ends_while_a_password_is_asked_for(asked: Dialogue) -> None:
    asked.end_input("[error refused] the input ended before the password was given")
    assert asked.exit is Exit.REFUSED


def test_an_input_that_ended_before_the_login_waits_for_it_and_then_leaves(talk: Dialogue) -> None:
    talk.type("PM hello")
    talk.end_input()
    talk.connect(sends(Login("alice", "secret")))
    talk.give(WELCOME, WELCOMES, sends(Say("hello", "n1")), sends(Leave()))
    talk.give(Sent(11, SentStatus.SENT, "n1"), "[sent #11]")
    talk.give(Bye("you left"), "[bye] you left")
    assert talk.exit is Exit.OK
