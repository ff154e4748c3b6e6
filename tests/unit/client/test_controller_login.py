"""The controller before and during the login, without a terminal."""

import pytest

from chatclient.cli.exits import Exit
from chatclient.links.connection import LinkDown, LinkLost
from chatprotocol.errors import ErrorCode
from chatprotocol.events import AccountKind, Bye, PasswordPrompt, Refused, Sent, SentStatus, Welcome
from chatprotocol.requests import Leave, Login, Password, Say

from .dialogue import CONNECTS, HIDES, Dialogue, sends

WELCOME = Welcome(AccountKind.NEW, "alice", ("alice",), 10)
WELCOMES = "[welcome new] alice; online: alice"
WRONG = Refused(ErrorCode.WRONG_PASSWORD, "Wrong.")
WRONGS = "[error wrong_password] Wrong."
ASKS = (HIDES, "[ask] password existing")


@pytest.fixture
def asked() -> Dialogue:
    """A client that was asked for its password."""
    client = Dialogue(password=None)
    client.connect(sends(Login("alice")))
    client.give(PasswordPrompt(AccountKind.EXISTING), *ASKS)
    return client


def test_missing_username_is_asked_for_before_connecting() -> None:
    client = Dialogue(None)
    client.begin("[ask] username")
    error = "[error bad_username] A username is 1 to 32 letters and digits (A-Z, a-z, 0-9)."
    client.type("not a name", error, "[ask] username")
    client.type("", error, "[ask] username")
    client.type(" alice ", CONNECTS)
    client.connect(sends(Login("alice", "secret")))


def test_known_username_is_not_asked_for(new_client: Dialogue) -> None:
    new_client.begin(CONNECTS)
    assert new_client.addresses == [("localhost", 9999)]


def test_end_of_input_before_the_username_is_bad_usage() -> None:
    client = Dialogue(None)
    client.begin("[ask] username")
    client.end_input("[error usage] the input ended before the username was given")
    assert client.exit is Exit.USAGE


def test_password_is_sent_as_typed_and_used_for_all_connections(asked: Dialogue) -> None:
    asked.type("  PM EX @bob  ", sends(Password("  PM EX @bob  ")))
    asked.give(WELCOME, WELCOMES)
    asked.give(LinkDown("reset"), "[lost] reset; connecting again")
    asked.connect(sends(Login("alice", "  PM EX @bob  ", 10)))


def test_wrong_password_is_asked_for_again_until_the_server_ends_it(asked: Dialogue) -> None:
    asked.type("", sends(Password("")))
    asked.give(Refused(ErrorCode.BAD_REQUEST, "Empty."), "[error bad_request] Empty.", *ASKS)
    asked.type("one", sends(Password("one")))
    asked.give(WRONG, WRONGS, *ASKS)
    asked.type("two", sends(Password("two")))
    asked.give(Refused(ErrorCode.TOO_MANY_ATTEMPTS, "Closed."), "[error too_many_attempts] Closed.")
    assert asked.exit is Exit.REFUSED


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
def test_rejected_login_ends_with_the_exit_code_of_its_reason(new_client: Dialogue, code: ErrorCode, end: Exit) -> None:
    """A configured password is not asked for."""
    new_client.connect(sends(Login("alice", "secret")))
    new_client.give(Refused(code, "No."), f"[error {code}] No.")
    assert new_client.exit is end


@pytest.mark.parametrize("signal", [LinkLost("\x1b[2J"), LinkDown("\x1b[2J")])
def test_connection_lost_before_the_login_ends_the_client(new_client: Dialogue, signal: LinkDown | LinkLost) -> None:
    new_client.connect(sends(Login("alice", "secret")))
    new_client.give(signal, r"[error lost] \x1b[2J")
    assert new_client.exit is Exit.LOST


def test_lines_before_the_login_wait_for_it(new_client: Dialogue) -> None:
    new_client.type("PM one")
    new_client.connect(sends(Login("alice", "secret")))
    new_client.end_input()
    assert new_client.lines_used == 0
    new_client.give(WELCOME, WELCOMES, sends(Say("one", "n1")), sends(Leave()))
    new_client.give(Sent(11, SentStatus.SENT, "n1"), "[sent #11]")
    new_client.give(Bye("you left"), "[bye] you left")
    assert new_client.exit is Exit.OK


def test_first_line_of_a_pipe_is_the_password() -> None:
    client = Dialogue(password=None)
    client.type("secret")
    client.type("PM hello")
    client.connect(sends(Login("alice")))
    client.give(PasswordPrompt(AccountKind.NEW), HIDES, "[ask] password new", sends(Password("secret")))
    assert client.lines_used == 1
    client.give(WELCOME, WELCOMES, sends(Say("hello", "n1")))


def test_end_of_input_at_the_password_prompt_is_a_rejected_login(asked: Dialogue) -> None:
    asked.end_input("[error refused] the input ended before the password was given")
    assert asked.exit is Exit.REFUSED
