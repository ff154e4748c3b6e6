"""A guest at the client, as dialogues: a name, two connections, and one message after the other."""

import pytest

from chatclient.cli.exits import Exit
from chatclient.cli.frontend import Interrupt
from chatclient.cli.input import GuestInputParser
from chatclient.links.connection import LinkDown, LinkLost
from chatprotocol.address import Address
from chatprotocol.errors import ErrorCode
from chatprotocol.events import AccountKind, Refused, Sent, SentStatus, Welcome
from chatprotocol.keywords import KEYWORD_SETS
from chatprotocol.requests import Acknowledge, GuestLogin, Side, Whisper
from chatprotocol.wire.base import Forwarded, Ready

from .dialogue import CONNECTS, HANGS_UP, Dialogue, sends

WELCOME = "[welcome guest] alice"
PROMPT = "[ask] @USER MESSAGE or @ALL MESSAGE"
USAGE = "[error usage] Type @USER MESSAGE or @ALL MESSAGE; nothing was sent. EX leaves."
FORMS = "A server is HOST, HOST PORT or HOST:PORT; an IPv6 address with a port is written [::1]:9999 or ::1 9999."
NAME_RULE = "A username is 1 to 32 letters and digits (A-Z, a-z, 0-9)."
ASKS_SERVER = "[ask] server, HOST or HOST PORT (localhost 9999)"
ASKS_NAME = "[ask] username"
BYE = "[bye] you left"
CLOSED_TEXT = "the server closed the connection"
CLOSED = LinkDown(CLOSED_TEXT)
LOST = f"[lost] {CLOSED_TEXT}; connecting again"
GAP = "[error lost] messages may have been missed"
UNCONFIRMED = "[error lost] 1 typed line was not confirmed"
# As the decoder of register returns them.
TAKEN = Refused(ErrorCode.BAD_USERNAME, "Malformed username")
SHOWS_TAKEN = "[error bad_username] The name alice is taken or not allowed; choose another one."
NOT_REGISTERED = Refused(ErrorCode.NOT_LOGGED_IN, "No user registered")
DELIVERED = Sent(0, SentStatus.SENT)


def new_client(username: str | None = "alice", server: Address | None = ("localhost", 9999)) -> Dialogue:
    parser = GuestInputParser(KEYWORD_SETS["pm-dm"])
    return Dialogue(username, None, protocol="register", parser=parser, server=server)


def registers(side: Side, name: str = "alice") -> str:
    return sends(GuestLogin(side, name))


def registered(name: str = "alice") -> Welcome:
    """Both connections are registered."""
    return Welcome(account=AccountKind.GUEST, username=name, users=(), last_id=None)


def connect(client: Dialogue, name: str = "alice") -> None:
    client.connect(registers(Side.SENDING, name))


def come_in(client: Dialogue, *outcome: str, name: str = "alice") -> None:
    """Connect, and register one side after the other."""
    connect(client, name)
    client.give(Ready(), registers(Side.RECEIVING, name))
    client.give(registered(name), *outcome)


@pytest.fixture
def guest() -> Dialogue:
    """A registered guest at its prompt."""
    client = new_client()
    client.begin(CONNECTS)
    come_in(client, WELCOME, PROMPT)
    return client


def test_server_and_name_are_asked_for() -> None:
    client = new_client(username=None, server=None)
    client.begin(ASKS_SERVER)
    port = "[error usage] The port is '99999'; it must be a whole number from 1 to 65535."
    client.type("localhost 99999", port, ASKS_SERVER)
    client.type("not a server", f"[error usage] {FORMS}", ASKS_SERVER)
    client.type("chat.example 1234", ASKS_NAME)
    client.type("not a name", f"[error bad_username] {NAME_RULE}", ASKS_NAME)
    client.type("all", "[error bad_username] The name all is reserved; choose another one.", ASKS_NAME)
    client.type(" alice ", CONNECTS)
    assert client.connection.addresses == [("chat.example", 1234)]


def test_empty_line_chooses_the_default_server() -> None:
    client = new_client(server=None)
    client.begin(ASKS_SERVER)
    client.type("", CONNECTS)
    assert client.connection.addresses == [("localhost", 9999)]


def test_refused_name_is_asked_for_again_on_a_new_connection() -> None:
    """Some servers close the connection with the refusal. Either side may be refused; a lost connection stays lost."""
    client = new_client()
    client.begin(CONNECTS)
    connect(client)
    client.give(TAKEN, SHOWS_TAKEN, HANGS_UP)
    client.give(NOT_REGISTERED)
    client.give(CLOSED)
    client.give(LinkLost(CLOSED_TEXT), ASKS_NAME)
    client.type("alice", CONNECTS)
    connect(client)
    client.give(Ready(), registers(Side.RECEIVING))
    client.give(TAKEN, SHOWS_TAKEN, HANGS_UP)
    client.type("bob")  # before the question
    client.give(CLOSED)
    client.give(LinkLost(CLOSED_TEXT), ASKS_NAME, CONNECTS)
    come_in(client, "[welcome guest] bob", PROMPT, name="bob")
    client.give(CLOSED, LOST)
    client.give(LinkLost("refused"), "[error lost] refused")
    assert client.exit is Exit.LOST


@pytest.mark.parametrize("line", ["EX", " /quit "])
def test_leaving_at_the_question_for_another_name(line: str) -> None:
    client = new_client()
    connect(client)
    client.give(TAKEN, SHOWS_TAKEN, HANGS_UP)
    client.give(LinkLost("gone"), ASKS_NAME)
    client.type(line, "[error usage] the input ended before the username was given")
    assert client.exit is Exit.REFUSED


@pytest.mark.parametrize(("server", "question"), [(None, "server"), (("localhost", 9999), "username")])
def test_end_of_input_and_interrupt_at_a_question(server: Address | None, question: str) -> None:
    client, interrupted = new_client(None, server), new_client(None, server)
    client.begin(ASKS_NAME if server else ASKS_SERVER)
    client.end_input(f"[error usage] the input ended before the {question} was given")
    assert client.exit is Exit.USAGE
    interrupted.begin(ASKS_NAME if server else ASKS_SERVER)
    interrupted.give(Interrupt())
    assert interrupted.exit is Exit.LOST


def test_received_message_is_shown_and_acknowledged(guest: Dialogue) -> None:
    """Also while an answer is due, and before the registration is confirmed."""
    guest.give(Forwarded("bob", "hello\nalice"), sends(Acknowledge("bob")), r"[message] bob: hello\nalice")
    guest.type("@bob hello", sends(Whisper("bob", "hello")))
    guest.give(Forwarded("alice", "to me"), sends(Acknowledge("alice")), "[message] alice: to me")
    guest.give(DELIVERED, "[delivered] @bob", PROMPT)
    client = new_client()
    connect(client)
    client.give(Ready(), registers(Side.RECEIVING))
    client.give(Forwarded("bob", "hello"), sends(Acknowledge("bob")), "[message] bob: hello")
    client.give(registered(), WELCOME, PROMPT)


def test_invalid_line_is_not_sent(guest: Dialogue) -> None:
    guest.type("hello", USAGE, PROMPT)
    guest.type("", PROMPT)
    too_long = "[error too_long] A message has 8,192 bytes at most in UTF-8; nothing was done."
    guest.type("@bob " + "x" * 8_193, too_long, PROMPT)
    assert not guest.model.unconfirmed


def test_help_lists_the_input_of_a_guest(guest: Dialogue) -> None:
    guest.type(
        "/help",
        "[help] @USER MESSAGE       a message to one user",
        "[help] @ALL MESSAGE        a message to all users",
        "[help] EX                  leave",
        "[help] /help               this list",
        "[help] /quit               the same as EX (also: /exit)",
        PROMPT,
    )


@pytest.mark.parametrize("line", ["EX", " ex ", "/quit", None])
def test_idle_guest_leaves_at_once(guest: Dialogue, line: str | None) -> None:
    """None: with an interrupt. The protocol has no goodbye."""
    if line is None:
        guest.give(Interrupt(), BYE)
    else:
        guest.type(line, BYE)
    assert guest.exit is Exit.OK


@pytest.mark.parametrize("is_more_typed", [False, True])
def test_interrupt_waits_for_the_answer_and_drops_later_lines(guest: Dialogue, *, is_more_typed: bool) -> None:
    guest.type("@bob one", sends(Whisper("bob", "one")))
    if is_more_typed:
        guest.type("@bob two")
    guest.give(Interrupt())
    guest.give(Interrupt())
    guest.give(DELIVERED, "[delivered] @bob", BYE, *[UNCONFIRMED] * is_more_typed)
    assert guest.exit is (Exit.LOST if is_more_typed else Exit.OK)


def test_unanswered_message_is_reported_once_and_not_sent_again(guest: Dialogue) -> None:
    """It could be delivered twice."""
    guest.type("@bob hello\x1b", sends(Whisper("bob", "hello\x1b")))
    guest.give(CLOSED, LOST)
    unknown = r"[error lost] it is not known whether this was delivered: hello\x1b"
    come_in(guest, "[back] alice", GAP, unknown, PROMPT)
    assert not guest.model.unconfirmed
    guest.give(CLOSED, LOST)
    come_in(guest, "[back] alice", GAP, PROMPT)
    guest.type("EX", BYE)
    assert guest.exit is Exit.LOST


NOT_NOW = (
    "The server rejected alice (No user registered); it may be full, accept no guests or new names, or require --tls."
)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (TAKEN, "[error bad_username] The name alice is taken now; trying again."),
        (NOT_REGISTERED, f"[error not_logged_in] {NOT_NOW}"),
    ],
)
def test_refusal_while_reconnecting_is_shown_once(guest: Dialogue, error: Refused, line: str) -> None:
    """The server may not yet know that the last connection was lost."""
    for _ in range(2):
        guest.give(CLOSED, LOST)
        connect(guest)
        guest.give(error, HANGS_UP, line)
        guest.give(CLOSED)
        connect(guest)
        guest.give(error, HANGS_UP)
        guest.give(CLOSED)
        come_in(guest, "[back] alice", GAP, PROMPT)
    guest.type("@bob hello", sends(Whisper("bob", "hello")))
    guest.give(CLOSED, LOST)
    connect(guest)
    guest.give(error, HANGS_UP, line)
    guest.give(CLOSED)
    guest.give(LinkLost(CLOSED_TEXT), f"[error lost] {CLOSED_TEXT}", UNCONFIRMED)
    assert guest.exit is Exit.LOST


@pytest.mark.parametrize("is_unanswered", [False, True])
def test_leaving_while_reconnecting(guest: Dialogue, *, is_unanswered: bool) -> None:
    """At once, unless a message is unanswered: its outcome is reported after the reconnect."""
    if is_unanswered:
        guest.type("@bob hello", sends(Whisper("bob", "hello")))
    guest.give(CLOSED, LOST)
    guest.type("EX")
    if is_unanswered:
        unknown = "[error lost] it is not known whether this was delivered: hello"
        come_in(guest, "[back] alice", GAP, unknown, PROMPT, BYE)
    assert guest.exit is (Exit.LOST if is_unanswered else Exit.OK)
