"""Dialogues with the reactor as a guest: a name, two connections, and one message after the other."""

import pytest

from chatclient.cli.controller import Interrupt
from chatclient.cli.exits import Exit
from chatclient.cli.input import Addressing
from chatclient.links.connection import LinkDown, LinkLost
from chatclient.register_client import RegisterClient
from chatprotocol.address import Address
from chatprotocol.errors import ErrorCode
from chatprotocol.events import Delivered, Forwarded, NotDelivered, Refused, Registered
from chatprotocol.keywords import KEYWORD_SETS
from chatprotocol.requests import Received, Register, Send, Side

from .dialogue import CONNECTS, HANGS_UP, Dialogue, sends

WELCOMES = "[welcome guest] alice"
PROMPT = "[ask] @USER MESSAGE or @ALL MESSAGE"
USAGE = "[error usage] Type @USER MESSAGE or @ALL MESSAGE; nothing was sent. EX leaves."
FORMS = "A server is HOST, HOST PORT or HOST:PORT; an IPv6 address with a port is written [::1]:9999 or ::1 9999."
ASKS_SERVER = "[ask] server, HOST or HOST PORT (localhost 9999)"
ASKS_NAME = "[ask] username"
BYE = "[bye] you left"
CLOSED = LinkDown("the server closed the connection")
LOST = "[lost] the server closed the connection; connecting again"
MAY_HAVE_MISSED = "[error lost] messages may have been missed"
NOT_DELIVERED = "[error not_delivered] @bob: there is no such user, or it did not take the message in time"
# As the decoder of register gives them.
TAKEN = Refused(ErrorCode.BAD_USERNAME, "Malformed username")
SHOWS_TAKEN = "[error bad_username] The name alice is taken, or none that this server allows; choose another one."
NOT_REGISTERED = Refused(ErrorCode.NOT_LOGGED_IN, "No user registered")
INCOMPLETE = Refused(ErrorCode.BAD_REQUEST, "Header Incomplete")


def udp_session_as_guest(username: str | None = "alice", server: Address | None = ("localhost", 9999)) -> Dialogue:
    return Dialogue(
        username, None, client_protocol=RegisterClient(), parser=Addressing(KEYWORD_SETS["pm-dm"]), server=server
    )


def registers(side: Side, name: str = "alice") -> str:
    return sends(Register(side, name))


def come_in(udp_session: Dialogue, *outcome: str, name: str = "alice") -> None:
    """Connect, and register one side after the other."""
    udp_session.connect(registers(Side.SENDING, name))
    udp_session.give(Registered(Side.SENDING, name), registers(Side.RECEIVING, name))
    udp_session.give(Registered(Side.RECEIVING, name), *outcome)


@pytest.fixture
def guest() -> Dialogue:
    """One who is in, and was asked for a message."""
    udp_session = udp_session_as_guest()
    come_in(udp_session, WELCOMES, PROMPT)
    return udp_session


# --- where and who ---


def test_a_guest_registers_the_second_connection_when_the_first_one_has_its_answer() -> None:
    udp_session = udp_session_as_guest()
    udp_session.begin(CONNECTS)
    udp_session.connect(registers(Side.SENDING))
    udp_session.give(Registered(Side.SENDING, "alice"), registers(Side.RECEIVING))
    udp_session.give(Registered(Side.RECEIVING, "alice"), WELCOMES, PROMPT)


def test_the_server_is_asked_for_before_the_username() -> None:
    udp_session = udp_session_as_guest(username=None, server=None)
    udp_session.begin(ASKS_SERVER)
    udp_session.type("chat.example 1234", ASKS_NAME)
    udp_session.type("alice", CONNECTS)
    assert udp_session.addresses == [("chat.example", 1234)]


def test_an_empty_line_is_the_server_that_is_offered() -> None:
    udp_session = udp_session_as_guest(server=None)
    udp_session.begin(ASKS_SERVER)
    udp_session.type("", CONNECTS)
    assert udp_session.addresses == [("localhost", 9999)]


def test_a_server_that_cannot_be_one_is_asked_for_again() -> None:
    udp_session = udp_session_as_guest(server=None)
    udp_session.begin(ASKS_SERVER)
    udp_session.type(
        "localhost 99999", "[error usage] The port is '99999'; it must be a whole number from 1 to 65535.", ASKS_SERVER
    )
    udp_session.type(
        "not a server",
        f"[error usage] {FORMS}",
        ASKS_SERVER,
    )
    udp_session.type("localhost:1234", CONNECTS)
    assert udp_session.addresses == [("localhost", 1234)]


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("not a name", "A username is 1 to 32 letters and digits (A-Z, a-z, 0-9)."),
        ("", "A username is 1 to 32 letters and digits (A-Z, a-z, 0-9)."),
        ("b\u00f6b", "A username is 1 to 32 letters and digits (A-Z, a-z, 0-9)."),
        ("all", "The name all is reserved; choose another one."),
        ("Server", "The name Server is reserved; choose another one."),
    ],
)
def test_a_name_that_nobody_can_have_is_told_without_a_server_and_asked_for_again(name: str, error: str) -> None:
    udp_session = udp_session_as_guest(username=None)
    udp_session.begin(ASKS_NAME)
    udp_session.type(name, f"[error bad_username] {error}", ASKS_NAME)
    udp_session.type("alice", CONNECTS)


def test_so_is_one_that_was_set() -> None:
    udp_session = udp_session_as_guest(username="no name")
    error = "[error bad_username] A username is 1 to 32 letters and digits (A-Z, a-z, 0-9)."
    udp_session.begin(error, ASKS_NAME)
    udp_session.type("alice", CONNECTS)
    udp_session.connect(registers(Side.SENDING))


def test_a_name_that_the_server_refuses_is_asked_for_again_when_the_connection_has_ended() -> None:
    """The next one is on a connection of its own: some servers close it with the refusal."""
    udp_session = udp_session_as_guest()
    udp_session.begin(CONNECTS)
    udp_session.connect(registers(Side.SENDING))
    udp_session.give(TAKEN, SHOWS_TAKEN, HANGS_UP)
    udp_session.type("bob")
    udp_session.give(CLOSED)
    udp_session.give(LinkLost("the server closed the connection"), ASKS_NAME, CONNECTS)
    come_in(udp_session, "[welcome guest] bob", PROMPT, name="bob")
    udp_session.type("@carol hello", sends(Send("carol", "hello")))


def test_a_refusal_of_the_second_connection_is_one_of_the_name_as_well() -> None:
    udp_session = udp_session_as_guest()
    udp_session.begin(CONNECTS)
    udp_session.connect(registers(Side.SENDING))
    udp_session.give(Registered(Side.SENDING, "alice"), registers(Side.RECEIVING))
    udp_session.give(TAKEN, SHOWS_TAKEN, HANGS_UP)
    udp_session.give(CLOSED)
    udp_session.give(LinkLost("the server closed the connection"), ASKS_NAME)
    udp_session.type("alice", CONNECTS)
    come_in(udp_session, WELCOMES, PROMPT)


def rename(udp_session: Dialogue, name: str) -> None:
    """The first name is refused, and another one typed."""
    udp_session.begin(CONNECTS)
    udp_session.connect(registers(Side.SENDING))
    udp_session.give(TAKEN, SHOWS_TAKEN, HANGS_UP)
    udp_session.give(CLOSED)
    udp_session.give(LinkLost("the server closed the connection"), ASKS_NAME)
    udp_session.type(name, CONNECTS)


def test_after_another_name_a_lost_connection_is_lost_as_ever() -> None:
    udp_session = udp_session_as_guest()
    rename(udp_session, "bob")
    come_in(udp_session, "[welcome guest] bob", PROMPT, name="bob")
    udp_session.give(CLOSED, LOST)
    come_in(udp_session, "[back] bob", MAY_HAVE_MISSED, PROMPT, name="bob")


def test_after_another_name_a_server_that_is_not_there_is_lost_as_ever() -> None:
    udp_session = udp_session_as_guest()
    rename(udp_session, "bob")
    udp_session.give(
        LinkLost("can't reach localhost:9999: refused"), "[error lost] can't reach localhost:9999: refused"
    )
    assert udp_session.exit is Exit.LOST


@pytest.mark.parametrize("error", [NOT_REGISTERED, INCOMPLETE])
def test_a_server_that_lets_nobody_in_has_refused_the_login(error: Refused) -> None:
    udp_session = udp_session_as_guest()
    udp_session.connect(registers(Side.SENDING))
    why = f"The server does not let alice in ({error.reason}); it may be full, or take no guests."
    udp_session.give(error, f"[error {error.code}] {why}")
    assert udp_session.exit is Exit.REFUSED


def test_another_error_than_there_is_for_it_is_a_refusal_too() -> None:
    """ERROR 102, or a number that nobody knows."""
    udp_session = udp_session_as_guest()
    udp_session.connect(registers(Side.SENDING))
    why = "The server does not let alice in (unable to send); it may be full, or take no guests."
    udp_session.give(NotDelivered(), f"[error internal] {why}")
    assert udp_session.exit is Exit.REFUSED


def test_what_else_comes_on_a_connection_that_is_given_up_for_its_name_is_passed_over() -> None:
    udp_session = udp_session_as_guest()
    udp_session.connect(registers(Side.SENDING))
    udp_session.give(TAKEN, SHOWS_TAKEN, HANGS_UP)
    udp_session.give(NOT_REGISTERED)
    assert udp_session.exit is None


@pytest.mark.parametrize("side", Side)
def test_a_connection_is_registered_once(guest: Dialogue, side: Side) -> None:
    guest.give(Registered(side, "alice"))


@pytest.mark.parametrize("line", ["EX", "/quit", " EX "])
def test_where_a_name_is_asked_for_one_can_leave(line: str) -> None:
    """Nothing was wrong but that there is no name; in small letters it is one."""
    udp_session = udp_session_as_guest()
    udp_session.connect(registers(Side.SENDING))
    udp_session.give(TAKEN, SHOWS_TAKEN, HANGS_UP)
    udp_session.give(LinkLost("gone"), "[ask] username")
    udp_session.type(line, "[error usage] the input ended before the username was given")
    assert udp_session.exit is Exit.REFUSED


def test_a_connection_that_is_lost_before_the_guest_is_in_is_lost_for_good() -> None:
    udp_session = udp_session_as_guest()
    udp_session.connect(registers(Side.SENDING))
    udp_session.give(Registered(Side.SENDING, "alice"), registers(Side.RECEIVING))
    udp_session.give(CLOSED, "[error lost] the server closed the connection")
    assert udp_session.exit is Exit.LOST


def test_an_input_that_ends_before_the_server_is_bad_usage() -> None:
    udp_session = udp_session_as_guest(server=None)
    udp_session.begin(ASKS_SERVER)
    udp_session.end_input("[error usage] the input ended before the server was given")
    assert udp_session.exit is Exit.USAGE


def test_an_input_that_ends_before_the_username_is_bad_usage() -> None:
    udp_session = udp_session_as_guest(username=None)
    udp_session.begin(ASKS_NAME)
    udp_session.end_input("[error usage] the input ended before the username was given")
    assert udp_session.exit is Exit.USAGE


def test_an_input_that_ends_after_a_refused_name_is_a_refused_login() -> None:
    udp_session = udp_session_as_guest()
    udp_session.begin(CONNECTS)
    udp_session.end_input()
    udp_session.connect(registers(Side.SENDING))
    udp_session.give(TAKEN, SHOWS_TAKEN, HANGS_UP)
    udp_session.give(CLOSED)
    end = "[error usage] the input ended before the username was given"
    udp_session.give(LinkLost("the server closed the connection"), ASKS_NAME, end)
    assert udp_session.exit is Exit.REFUSED


@pytest.mark.parametrize("server", [None, ("localhost", 9999)])
def test_an_interrupt_at_a_question_ends_at_once(server: Address | None) -> None:
    udp_session = udp_session_as_guest(username=None, server=server)
    udp_session.begin(ASKS_NAME if server else ASKS_SERVER)
    udp_session.give(Interrupt())
    assert udp_session.exit is Exit.LOST


# --- messages ---


def test_a_message_is_sent_and_told_to_be_delivered(guest: Dialogue) -> None:
    guest.type("@bob hello bob", sends(Send("bob", "hello bob")))
    guest.give(Delivered("bob"), "[delivered] @bob", PROMPT)
    guest.type("@all hello", sends(Send("ALL", "hello")))
    guest.give(Delivered("ALL"), "[delivered] @ALL", PROMPT)
    assert not guest.model.unconfirmed


def test_a_message_that_did_not_come_is_told(guest: Dialogue) -> None:
    guest.type("@bob hello", sends(Send("bob", "hello")))
    guest.give(NotDelivered(), NOT_DELIVERED, PROMPT)
    guest.type("@ALL hello", sends(Send("ALL", "hello")))
    why = "somebody did not take the message in time"
    guest.give(NotDelivered(), f"[error not_delivered] @ALL: {why}", PROMPT)
    assert not guest.model.unconfirmed
    guest.type("EX", BYE)
    assert guest.exit is Exit.OK


def test_a_message_that_is_refused_is_told_and_not_sent_again(guest: Dialogue) -> None:
    guest.type("@bob hello", sends(Send("bob", "hello")))
    guest.give(INCOMPLETE, "[error bad_request] Header Incomplete", NOT_DELIVERED, PROMPT)
    assert not guest.model.unconfirmed


def test_each_message_waits_for_the_answer_to_the_one_before(guest: Dialogue) -> None:
    guest.type("@bob one", sends(Send("bob", "one")))
    guest.type("@bob two")
    guest.type("EX")
    guest.give(Delivered("bob"), "[delivered] @bob", PROMPT, sends(Send("bob", "two")))
    guest.give(NotDelivered(), NOT_DELIVERED, PROMPT, BYE)
    assert guest.exit is Exit.OK


def test_a_message_that_arrives_is_shown_and_answered(guest: Dialogue) -> None:
    guest.give(Forwarded("bob", "hello\nalice"), sends(Received("bob")), r"[message] bob: hello\nalice")


def test_so_is_one_that_comes_while_an_answer_is_due(guest: Dialogue) -> None:
    guest.type("@bob hello", sends(Send("bob", "hello")))
    guest.give(Forwarded("bob", "hello"), sends(Received("bob")), "[message] bob: hello")
    guest.give(Forwarded("alice", "to me"), sends(Received("alice")), "[message] alice: to me")
    guest.give(Delivered("bob"), "[delivered] @bob", PROMPT)


def test_so_is_one_that_comes_before_the_guest_was_told_to_be_in() -> None:
    udp_session = udp_session_as_guest()
    udp_session.connect(registers(Side.SENDING))
    udp_session.give(Registered(Side.SENDING, "alice"), registers(Side.RECEIVING))
    udp_session.give(Forwarded("bob", "hello"), sends(Received("bob")), "[message] bob: hello")
    udp_session.give(Registered(Side.RECEIVING, "alice"), WELCOMES, PROMPT)


@pytest.mark.parametrize("answer", [Delivered("bob"), NotDelivered()])
def test_an_answer_to_nothing_is_passed_over(guest: Dialogue, answer: Delivered | NotDelivered) -> None:
    guest.give(answer)
    guest.type("@carol hello", sends(Send("carol", "hello")))
    guest.give(Delivered("carol"), "[delivered] @carol", PROMPT)


def test_a_complaint_about_nothing_is_shown(guest: Dialogue) -> None:
    guest.give(INCOMPLETE, "[error bad_request] Header Incomplete")
    guest.type("@carol hello", sends(Send("carol", "hello")))


@pytest.mark.parametrize("line", ["hello", "@bob", "@bob  ", "@", "PM hello", "DM bob hello", "CH", "/users", "EX now"])
def test_any_other_line_is_rejected_and_asked_for_again(guest: Dialogue, line: str) -> None:
    guest.type(line, USAGE, PROMPT)
    guest.type("@bob hello", sends(Send("bob", "hello")))


def test_an_empty_line_is_nothing_and_the_next_one_is_asked_for(guest: Dialogue) -> None:
    guest.type("", PROMPT)


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("@ hello", "A username is 1 to 32 letters and digits (A-Z, a-z, 0-9). Nothing was sent."),
        ("@b\u00f6b hello", "A username is 1 to 32 letters and digits (A-Z, a-z, 0-9). Nothing was sent."),
        ("@server hello", "The name server is reserved; choose another one. Nothing was sent."),
    ],
)
def test_a_message_to_somebody_who_cannot_be_is_not_sent(guest: Dialogue, line: str, error: str) -> None:
    guest.type(line, f"[error usage] {error}", PROMPT)
    assert not guest.model.unconfirmed


def test_a_message_that_is_too_long_is_not_sent(guest: Dialogue) -> None:
    text = "A message has 8,192 bytes at most in UTF-8; nothing was done."
    guest.type("@bob " + "x" * 8_193, f"[error too_long] {text}", PROMPT)
    assert not guest.model.unconfirmed


def test_help_tells_what_can_be_typed(guest: Dialogue) -> None:
    guest.type(
        "/help",
        "[help] @USER MESSAGE       a message to one user",
        "[help] @ALL MESSAGE        a message to everybody",
        "[help] EX                  leave",
        "[help] /help               this list",
        "[help] /quit               the same as EX (also: /exit)",
        PROMPT,
    )


# --- leaving ---


@pytest.mark.parametrize("line", ["EX", "ex", " Ex ", "/quit"])
def test_who_leaves_is_gone_at_once_for_there_is_no_word_for_it(guest: Dialogue, line: str) -> None:
    guest.type(line, BYE)
    assert guest.exit is Exit.OK


def test_the_end_of_the_input_waits_for_the_answer_that_is_due(guest: Dialogue) -> None:
    guest.type("@bob hello", sends(Send("bob", "hello")))
    guest.end_input()
    guest.give(Forwarded("bob", "hi"), sends(Received("bob")), "[message] bob: hi")
    guest.give(Delivered("bob"), "[delivered] @bob", PROMPT, BYE)
    assert guest.exit is Exit.OK


def test_an_interrupt_leaves_after_the_answer_that_is_due(guest: Dialogue) -> None:
    guest.type("@bob hello", sends(Send("bob", "hello")))
    guest.give(Interrupt())
    guest.give(Interrupt())
    guest.give(Delivered("bob"), "[delivered] @bob", BYE)
    assert guest.exit is Exit.OK


def test_an_interrupt_where_nothing_is_due_leaves_at_once(guest: Dialogue) -> None:
    guest.give(Interrupt(), BYE)
    assert guest.exit is Exit.OK


def test_what_was_typed_behind_a_message_is_told_to_be_lost_by_an_interrupt(guest: Dialogue) -> None:
    guest.type("@bob one", sends(Send("bob", "one")))
    guest.type("@bob two")
    guest.give(Interrupt())
    guest.give(Delivered("bob"), "[delivered] @bob", BYE, "[error lost] 1 typed line was not confirmed")
    assert guest.exit is Exit.LOST


# --- coming back ---


def test_who_comes_back_is_told_that_messages_may_have_been_missed(guest: Dialogue) -> None:
    guest.give(CLOSED, LOST)
    guest.type("@bob typed meanwhile")
    come_in(guest, "[back] alice", MAY_HAVE_MISSED, PROMPT, sends(Send("bob", "typed meanwhile")))
    guest.give(Delivered("bob"), "[delivered] @bob", PROMPT)
    guest.type("EX", BYE)
    assert guest.exit is Exit.OK


def test_a_message_without_an_answer_is_not_sent_again_and_the_doubt_is_told(guest: Dialogue) -> None:
    """Sent twice it could be delivered twice: nobody can tell."""
    guest.type("@bob hello\x1b", sends(Send("bob", "hello\x1b")))
    guest.give(CLOSED, LOST)
    doubt = r"[error lost] it is not known whether this was delivered: hello\x1b"
    come_in(guest, "[back] alice", MAY_HAVE_MISSED, doubt, PROMPT)
    assert not guest.model.unconfirmed
    # Once: it is not told again.
    guest.give(CLOSED, LOST)
    come_in(guest, "[back] alice", MAY_HAVE_MISSED, PROMPT)
    guest.type("EX", BYE)
    assert guest.exit is Exit.LOST


TAKEN_NOW = "[error bad_username] The name alice is taken now; trying again."
NOT_NOW = (
    "[error not_logged_in] The server does not let alice in (No user registered); it may be full, or take no guests."
)


@pytest.mark.parametrize(("error", "line"), [(TAKEN, TAKEN_NOW), (NOT_REGISTERED, NOT_NOW)])
def test_who_is_refused_when_coming_back_tries_again_and_is_told_once(
    guest: Dialogue, error: Refused, line: str
) -> None:
    """The server may not know yet that the connection before was lost."""
    for _ in range(2):
        guest.give(CLOSED, LOST)
        guest.connect(registers(Side.SENDING))
        guest.give(error, line, HANGS_UP)
        guest.give(CLOSED)
        guest.connect(registers(Side.SENDING))
        guest.give(error, HANGS_UP)
        guest.give(CLOSED)
        come_in(guest, "[back] alice", MAY_HAVE_MISSED, PROMPT)


def test_who_is_refused_until_patience_ends_has_lost_the_connection(guest: Dialogue) -> None:
    guest.type("@bob hello", sends(Send("bob", "hello")))
    guest.give(CLOSED, LOST)
    guest.connect(registers(Side.SENDING))
    guest.give(TAKEN, TAKEN_NOW, HANGS_UP)
    guest.give(CLOSED)
    why = "the server closed the connection"
    guest.give(LinkLost(why), f"[error lost] {why}", "[error lost] 1 typed line was not confirmed")
    assert guest.exit is Exit.LOST


def test_nobody_comes_back_only_to_leave(guest: Dialogue) -> None:
    guest.give(CLOSED, LOST)
    guest.type("EX")
    assert guest.exit is Exit.OK


def test_who_wants_to_leave_comes_back_for_the_doubt(guest: Dialogue) -> None:
    guest.type("@bob hello", sends(Send("bob", "hello")))
    guest.type("EX")
    guest.give(CLOSED, LOST)
    doubt = "[error lost] it is not known whether this was delivered: hello"
    come_in(guest, "[back] alice", MAY_HAVE_MISSED, doubt, PROMPT, BYE)
    assert guest.exit is Exit.LOST
