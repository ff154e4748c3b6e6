"""Dialogues with the reactor: coming in."""

import pytest

from chatclient.cli.exits import Exit
from chatclient.links.connection import LinkDown, LinkLost
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
    udp_session = Dialogue(password=None)
    udp_session.connect(sends(Login("alice")))
    udp_session.give(PasswordPrompt(AccountKind.EXISTING), HIDES, "[ask] password existing")
    return udp_session


def test_a_client_with_a_password_comes_in_at_once(udp_session: Dialogue) -> None:
    udp_session.connect(sends(Login("alice", "secret")))
    udp_session.give(WELCOME, WELCOMES)
    assert udp_session.exit is None


def test_a_client_without_a_password_is_asked_for_a_new_one() -> None:
    udp_session = Dialogue(password=None)
    udp_session.connect(sends(Login("alice")))
    udp_session.give(PasswordPrompt(AccountKind.NEW), HIDES, "[ask] password new")
    udp_session.type("my secret", sends(Password("my secret")))
    udp_session.give(WELCOME, WELCOMES)


def test_a_password_is_taken_as_it_was_typed(asked: Dialogue) -> None:
    asked.type("  PM EX @bob  ", sends(Password("  PM EX @bob  ")))


def test_a_password_is_asked_for_once_for_all_connections(asked: Dialogue) -> None:
    asked.type("my secret", sends(Password("my secret")))
    asked.give(WELCOME, WELCOMES)
    asked.give(LinkDown("reset"), "[lost] reset; connecting again")
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


def test_a_password_that_was_set_and_is_wrong_is_not_asked_for(udp_session: Dialogue) -> None:
    udp_session.connect(sends(Login("alice", "secret")))
    udp_session.give(WRONG, WRONGS)
    assert udp_session.exit is Exit.REFUSED


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
def test_a_login_that_is_refused_ends_with_the_code_for_why(udp_session: Dialogue, code: ErrorCode, end: Exit) -> None:
    udp_session.connect(sends(Login("alice", "secret")))
    udp_session.give(Refused(code, "No."), f"[error {code}] No.")
    assert udp_session.exit is end


def test_a_server_that_cannot_be_reached_is_lost(udp_session: Dialogue) -> None:
    udp_session.give(
        LinkLost("can't reach localhost:9999: refused"), "[error lost] can't reach localhost:9999: refused"
    )
    assert udp_session.exit is Exit.LOST


def test_a_connection_that_is_lost_before_the_login_is_lost_for_good(udp_session: Dialogue) -> None:
    udp_session.connect(sends(Login("alice", "secret")))
    udp_session.give(LinkDown("the server closed the connection"), "[error lost] the server closed the connection")
    assert udp_session.exit is Exit.LOST


def test_what_a_server_says_of_itself_is_made_harmless(udp_session: Dialogue) -> None:
    udp_session.give(LinkLost("\x1b[2J"), r"[error lost] \x1b[2J")


def test_lines_that_are_typed_before_the_login_wait_for_it(udp_session: Dialogue) -> None:
    udp_session.type("PM one")
    udp_session.connect(sends(Login("alice", "secret")))
    udp_session.type("PM two")
    assert udp_session.lines_used == 0
    udp_session.give(WELCOME, WELCOMES, sends(Say("one", "n1")), sends(Say("two", "n2")))
    assert udp_session.lines_used == 2


def test_lines_of_a_pipe_are_the_password_first_and_operations_then() -> None:
    udp_session = Dialogue(password=None)
    udp_session.type("secret")
    udp_session.type("PM hello")
    udp_session.connect(sends(Login("alice")))
    udp_session.give(PasswordPrompt(AccountKind.NEW), HIDES, "[ask] password new", sends(Password("secret")))
    assert udp_session.lines_used == 1
    udp_session.give(WELCOME, WELCOMES, sends(Say("hello", "n1")))


def test_the_input_ends_while_a_password_is_asked_for(asked: Dialogue) -> None:
    asked.end_input("[error refused] the input ended before the password was given")
    assert asked.exit is Exit.REFUSED


def test_an_input_that_ended_before_the_login_waits_for_it_and_then_leaves(udp_session: Dialogue) -> None:
    udp_session.type("PM hello")
    udp_session.end_input()
    udp_session.connect(sends(Login("alice", "secret")))
    udp_session.give(WELCOME, WELCOMES, sends(Say("hello", "n1")), sends(Leave()))
    udp_session.give(Sent(11, SentStatus.SENT, "n1"), "[sent #11]")
    udp_session.give(Bye("you left"), "[bye] you left")
    assert udp_session.exit is Exit.OK
