"""The controller without a terminal: login, operations, lost connections, and the end."""

import pytest

from chatclient.cli.exits import Exit
from chatclient.cli.frontend import Interrupt
from chatclient.links.connection import LinkDown, LinkLost
from chatprotocol.errors import ErrorCode
from chatprotocol.events import AccountKind, Bye, PasswordPrompt, Pong, Refused, Users, Welcome
from chatprotocol.requests import AskUsers, Leave, Password, Say, Whisper

from .dialogue import HIDES, Dialogue, login, sends
from .samples import HELLO, SHOWS_HELLO, confirmation, direct

WELCOME = Welcome(account=AccountKind.NEW, username="alice", users=("alice",), last_id=10)
WELCOMES = "[welcome new] alice; online: alice"
ONLINE = Users(None, ("bob", "alice"))
SHOWS_ONLINE = "[users 2] alice bob"
DOWN = LinkDown("reset")
LOST = "[lost] reset; connecting again"
ASKS = (HIDES, "[ask] password existing")


@pytest.fixture
def asked() -> Dialogue:
    """A client that was asked for its password."""
    client = Dialogue(password=None)
    client.connect(sends(login("alice")))
    client.give(PasswordPrompt(account=AccountKind.EXISTING), *ASKS)
    return client


def test_password_is_sent_as_typed_and_used_for_all_connections(asked: Dialogue) -> None:
    asked.type("  PM EX @bob  ", sends(Password("  PM EX @bob  ")))
    asked.give(WELCOME, WELCOMES)
    asked.give(DOWN, LOST)
    asked.connect(sends(login("alice", "  PM EX @bob  ", 10)))


def test_end_of_input_at_the_password_is_a_rejected_login(asked: Dialogue) -> None:
    asked.end_input("[error refused] the input ended before the password was given")
    assert asked.exit is Exit.REFUSED


@pytest.mark.parametrize(
    ("code", "end"),
    [
        (ErrorCode.WRONG_PASSWORD, Exit.REFUSED),
        (ErrorCode.BAD_USERNAME, Exit.REFUSED),
        (ErrorCode.TOO_LONG, Exit.REFUSED),
        (ErrorCode.SERVER_FULL, Exit.LOST),
        (ErrorCode.INTERNAL, Exit.LOST),
    ],
)
def test_rejected_login_ends_with_the_exit_code_of_its_reason(new_client: Dialogue, code: ErrorCode, end: Exit) -> None:
    """A configured password is not asked for."""
    new_client.connect(sends(login("alice", "secret")))
    new_client.give(Refused(code, "No."), f"[error {code}] No.")
    assert new_client.exit is end


def test_first_line_of_a_pipe_is_the_password() -> None:
    client = Dialogue(password=None)
    client.type("secret")
    client.type("PM hello")
    client.connect(sends(login("alice")))
    client.give(PasswordPrompt(account=AccountKind.NEW), HIDES, "[ask] password new", sends(Password("secret")))
    client.give(WELCOME, WELCOMES, sends(Say("hello", "n1")))


@pytest.mark.parametrize("ops", ["pm-dm", "bm-pm"])
def test_direct_message_in_steps_goes_on_when_messages_arrive(ops: str) -> None:
    client = Dialogue(ops=ops)
    client.log_in()
    client.type(ops[-2:].upper(), sends(AskUsers()))
    client.give(HELLO, SHOWS_HELLO)
    client.give(ONLINE, SHOWS_ONLINE, "[ask] recipient")
    client.give(direct(12), "[direct #12 2026-01-31T12:00:00Z] bob -> alice: psst")
    client.type("bob", "[ask] message for bob")
    client.give(Users(None, ("alice",), (), ("bob",)), "[left] bob")
    client.type("hello bob", sends(Whisper("bob", "hello bob", "n1")))
    client.give(confirmation(13, "n1"), "[sent #13]")


def test_lines_that_send_nothing_are_used_and_answered(client: Dialogue) -> None:
    client.type("   ")
    error = client.parser.parse_line("\\x1b[2J").error
    client.type("\x1b[2J", f"[error usage] {error}")
    client.type("/help", *(f"[help] {line}" for line in client.parser.help()))
    client.type("PM " + "x" * 8193, "[error too_long] A message has 8,192 bytes at most in UTF-8; nothing was done.")


def test_list_of_users_is_shown_only_as_an_answer(client: Dialogue) -> None:
    """The server repeats it every 30 s. A large room repeats the number alone."""
    client.give(ONLINE)
    client.give(Pong())
    client.type("/users", sends(AskUsers()))
    client.give(Users(501, None))
    client.give(Users(501, None, ("bob",)), "[joined] bob")
    client.give(ONLINE, SHOWS_ONLINE)
    client.give(ONLINE)


@pytest.mark.parametrize("end", ["goodbye", "lost"])
@pytest.mark.parametrize("line", ["ex", "/quit", None])
def test_leaving_ends_with_the_servers_goodbye_or_the_connection(client: Dialogue, line: str | None, end: str) -> None:
    if line is None:
        client.end_input(sends(Leave()))
    else:
        client.type(line, sends(Leave()))
        client.type("PM too late")
        client.end_input()
    client.give(HELLO, SHOWS_HELLO)
    assert client.exit is None
    if end == "lost":
        client.give(DOWN)
    else:
        client.give(Bye("you left"), "[bye] you left")
    assert client.exit is Exit.OK


def test_goodbye_before_a_confirmation_is_a_loss(client: Dialogue) -> None:
    """Promise: confirmed means stored. An unconfirmed message is not called sent."""
    client.type("PM hello", sends(Say("hello", "n1")))
    client.type("PM again", sends(Say("again", "n2")))
    client.type("EX", sends(Leave()))
    client.give(Bye("x"), "[bye] x", "[error lost] 2 typed lines were not confirmed")
    assert client.exit is Exit.LOST


def test_goodbye_after_an_interrupt_has_a_time_limit(client: Dialogue) -> None:
    """A goodbye that was typed has none: it waits for the confirmations."""
    client.type("EX", sends(Leave()))
    assert client.controller.deadline is None
    client.give(Interrupt(), sends(Leave()))
    assert client.controller.deadline == client.now + 5.0
    client.controller.on_deadline()
    assert client.connection.is_closed
    client.give(LinkLost("the client closed it"), "[error lost] the client closed it")
    assert client.exit is Exit.LOST


def test_second_interrupt_ends_the_wait_for_the_goodbye(client: Dialogue) -> None:
    """A third of them, or the time for the end of the connection, ends the client."""
    client.give(Interrupt(), sends(Leave()))
    client.now += 0.5
    client.give(Interrupt())
    assert client.connection.is_closed
    assert client.controller.deadline == client.now + 1.0
    assert client.exit is None
    client.controller.on_deadline()
    assert client.exit is Exit.LOST
