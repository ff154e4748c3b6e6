"""The controller without a terminal: login, operations, lost connections, and the end."""

import pytest

from chatclient.cli.exits import Exit
from chatclient.cli.frontend import Interrupt
from chatclient.links.connection import LinkDown, LinkLost
from chatprotocol.errors import ErrorCode
from chatprotocol.events import AccountKind, Bye, History, PasswordPrompt, Pong, Refused, Users, Welcome
from chatprotocol.requests import AskHistory, AskUsers, Leave, Password, Say, Whisper

from .dialogue import HANGS_UP, HIDES, Dialogue, login, sends
from .samples import HELLO, SHOWS_HELLO, confirmation, direct

WELCOME = Welcome(account=AccountKind.NEW, username="alice", users=("alice",), last_id=10)
WELCOMES = "[welcome new] alice; online: alice"
ONLINE = Users(None, ("bob", "alice"))
SHOWS_ONLINE = "[users 2] alice bob"
BACK = Welcome(account=AccountKind.EXISTING, username="alice", users=("alice",), last_id=20)
DOWN = LinkDown("reset")
LOST = "[lost] reset; connecting again"
WRONG = Refused(ErrorCode.WRONG_PASSWORD, "Wrong.")
WRONGS = "[error wrong_password] Wrong."
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


def test_wrong_password_is_asked_for_again_until_the_server_ends_it(asked: Dialogue) -> None:
    asked.type("", sends(Password("")))
    asked.give(Refused(ErrorCode.BAD_REQUEST, "Empty."), "[error bad_request] Empty.", *ASKS)
    asked.type("one", sends(Password("one")))
    asked.give(WRONG, WRONGS, *ASKS)
    asked.type("two", sends(Password("two")))
    asked.give(Refused(ErrorCode.TOO_MANY_ATTEMPTS, "Closed."), "[error too_many_attempts] Closed.")
    assert asked.exit is Exit.REFUSED


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


def test_connection_lost_before_the_login_ends_the_client(new_client: Dialogue) -> None:
    new_client.connect(sends(login("alice", "secret")))
    new_client.type("PM hello")
    new_client.give(LinkDown("\x1b[2J"))
    new_client.give(LinkLost("\x1b[2J"), r"[error lost] \x1b[2J", "[error lost] 1 typed line was not confirmed")
    assert new_client.exit is Exit.LOST


def test_lines_before_the_login_wait_for_it(new_client: Dialogue) -> None:
    new_client.type("PM one")
    new_client.connect(sends(login("alice", "secret")))
    new_client.end_input()
    new_client.give(WELCOME, WELCOMES, sends(Say("one", "n1")), sends(Leave()))
    new_client.give(confirmation(11, "n1"), "[sent #11]")
    new_client.give(Bye("you left"), "[bye] you left")
    assert new_client.exit is Exit.OK


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


def test_lines_typed_before_the_list_of_users_wait_for_it(client: Dialogue) -> None:
    client.type("DM", sends(AskUsers()))
    client.type("bob")
    client.type("hello bob")
    client.type("CH 5")
    sent = map(sends, (Whisper("bob", "hello bob", "n1"), AskHistory(5)))
    client.give(ONLINE, SHOWS_ONLINE, "[ask] recipient", "[ask] message for bob", *sent)
    client.give(History((HELLO,)), "[history 1]", "[history #11 2026-01-31T12:00:00Z] bob: hello")


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


def test_rejected_request_is_shown_and_not_waited_for(client: Dialogue) -> None:
    client.type("@eve hello", sends(Whisper("eve", "hello", "n1")))
    client.give(Refused(ErrorCode.UNKNOWN_USER, "No eve.", "n1"), "[error unknown_user] No eve.")
    assert not client.model.unconfirmed
    client.type("/users", sends(AskUsers()))
    client.give(Refused(ErrorCode.SHUTTING_DOWN, "Ending."), "[error shutting_down] Ending.")
    client.type("PM hello", sends(Say("hello", "n2")))
    assert client.exit is None


def test_error_of_an_earlier_message_does_not_cancel_an_operation(client: Dialogue) -> None:
    client.type("DM eve hi", sends(Whisper("eve", "hi", "n1")))
    client.type("DM", sends(AskUsers()))
    client.give(Refused(ErrorCode.UNKNOWN_USER, "No eve.", "n1"), "[error unknown_user] No eve.")
    client.give(ONLINE, SHOWS_ONLINE, "[ask] recipient")
    client.type("bob", "[ask] message for bob")
    client.type("EX", sends(Whisper("bob", "EX", "n2")))


def test_reconnect_resumes_after_the_last_message_and_sends_unconfirmed_ones_again(client: Dialogue) -> None:
    """Promise: once. The login names the last id; unconfirmed messages keep their nonces."""
    client.type("PM one", sends(Say("one", "n1")))
    client.type("@bob two", sends(Whisper("bob", "two", "n2")))
    client.type("PM three", sends(Say("three", "n3")))
    client.give(HELLO, SHOWS_HELLO)
    client.give(confirmation(12, "n2"), "[sent #12]")
    client.give(DOWN, LOST)
    client.type("PM four")
    client.connect(sends(login("alice", "secret", 12)))
    client.give(BACK, sends(Say("one", "n1")), sends(Say("three", "n3")), "[back] alice", sends(Say("four", "n4")))
    client.give(confirmation(11, "n1"), "[sent #11]")
    client.give(confirmation(21, "n3"), "[sent #21]")
    assert list(client.model.unconfirmed) == ["n4"]


def test_server_that_stops_or_is_full_is_tried_again(client: Dialogue) -> None:
    client.give(Bye("the server is shutting down"), "[bye] the server is shutting down")
    client.give(DOWN, LOST)
    client.connect(sends(login("alice", "secret", 10)))
    client.give(Refused(ErrorCode.SERVER_FULL, "Full."), HANGS_UP, "[error server_full] Full.")
    client.give(LinkDown("closed"))
    assert client.exit is None
    client.give(LinkLost("can't reach it"), "[error lost] can't reach it")
    assert client.exit is Exit.LOST


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


def test_leaving_with_unconfirmed_messages_goes_on_after_a_lost_connection(client: Dialogue) -> None:
    client.type("PM hello", sends(Say("hello", "n1")))
    client.end_input(sends(Leave()))
    client.give(DOWN, LOST)
    client.connect(sends(login("alice", "secret", 10)))
    client.give(BACK, sends(Say("hello", "n1")), sends(Leave()), "[back] alice")
    client.give(confirmation(11, "n1"), "[sent #11]")
    client.give(Bye("you left"), "[bye] you left")
    assert client.exit is Exit.OK


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
