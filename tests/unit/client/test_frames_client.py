"""The client in the protocols frames and datagram, one step at a time: what is asked, sent and shown, in order."""

import sys
from types import FrameType
from typing import Any, NamedTuple, TypeAlias

import pytest
from raw_steps import Command, Data

from chatclient.cli.exits import Exit
from chatclient.cli.frontend import Interrupt
from chatclient.links.connection import LinkDown, LinkLost
from chatprotocol.errors import ErrorCode
from chatprotocol.events import (
    AccountKind,
    Bye,
    DirectMessage,
    Event,
    History,
    PasswordPrompt,
    PublicMessage,
    Refused,
    UserUnknown,
    Welcome,
)
from chatprotocol.requests import AskHistory, Login, Password, Say, Whisper
from chatprotocol.wire import Datagram, Frames
from chatprotocol.wire.base import Action, Effects, Online, OpenDirect, OpenPublic, Outgoing, Ready

from .dialogue import HANGS_UP, HIDES, Dialogue, sends
from .samples import HELLO, SHOWS_HELLO, confirmation, direct, public

# As the decoder of frames returns it: the wire has no more.
WELCOME = Welcome(account=AccountKind.EXISTING, username="", users=(), last_id=None)
WELCOMES = "[welcome existing] alice"
PROMPT = "[ask] operation (PM, DM, CH, EX)"
ASKS_PASSWORD = (HIDES, "[ask] password existing")
ASKS_TEXT = "[ask] message for all users"
WRONG = Refused(ErrorCode.WRONG_PASSWORD, "That is not the password of alice.")
WRONGS = "[error wrong_password] That is not the password of alice."
EMPTY = Refused(ErrorCode.EMPTY_MESSAGE, "The message is empty; nothing was sent.")
ONLINE = Online(("bob", "alice"))
SHOWS_ONLINE = "[users 2] alice bob"
SENT = confirmation(11)


def frames(username: str | None = "alice", password: str | None = "secret", ops: str = "pm-dm") -> Dialogue:
    return Dialogue(username, password, ops, "frames")


@pytest.fixture
def asked() -> Dialogue:
    """A client that was asked for its password."""
    client = frames(password=None)
    client.connect(sends(Command("alice history-id")))
    client.give(PasswordPrompt(account=AccountKind.EXISTING), *ASKS_PASSWORD)
    return client


def log_in(client: Dialogue, welcome: Welcome = WELCOME, name: str = "alice") -> Dialogue:
    client.connect(sends(Command(f"{name} history-id")))
    client.give(PasswordPrompt(account=AccountKind.EXISTING), sends(Command("secret")))
    client.give(welcome, f"[welcome existing] {name}", PROMPT)
    return client


@pytest.fixture
def client() -> Dialogue:
    """A client that is logged in and was asked for an operation."""
    return log_in(frames())


# --- login ---


def test_password_is_sent_as_typed(asked: Dialogue) -> None:
    """Only names are changed if they look like an operation."""
    asked.type("  EX ", sends(Command("  EX ")))
    asked.give(Welcome(account=AccountKind.NEW, username="", users=(), last_id=None), "[welcome new] alice", PROMPT)


def test_keyword_set_is_named_after_the_username() -> None:
    client = frames(ops="bm-pm")
    client.connect(sends(Command("alice bm-pm history-id")))
    client.give(PasswordPrompt(account=AccountKind.EXISTING), sends(Command("secret")))
    prompt = "[ask] operation (BM, PM, CH, EX)"
    client.give(WELCOME, WELCOMES, prompt)
    client.type("BM hello", sends(Command("BM")))
    client.give(Ready(), sends(Data("hello")))
    client.give(SENT, "[sent #11]", prompt)
    client.type("PM bob psst", sends(Command("PM")))
    client.give(ONLINE, sends(Command("bob")), sends(Data("psst")))


@pytest.mark.parametrize("is_closed", [False, True])
def test_third_wrong_password_or_a_server_that_closes_is_a_rejected_login(asked: Dialogue, is_closed: bool) -> None:
    for word in ("one", "two"):
        asked.type(word, sends(Command(word)))
        asked.give(WRONG, WRONGS, *ASKS_PASSWORD)
    if is_closed:
        asked.give(Bye("too many"), "[bye] too many")
        asked.give(LinkDown("closed"))
        asked.give(LinkLost("closed"), "[error lost] closed")
    else:
        asked.type("three", sends(Command("three")))
        asked.give(WRONG, WRONGS)
    assert asked.exit is Exit.REFUSED


def test_password_prompt_after_the_login_gets_neither_line_nor_password(client: Dialogue) -> None:
    client.give(PasswordPrompt(account=AccountKind.EXISTING))
    client.type("PM hello", sends(Command("PM")))


@pytest.mark.parametrize(
    ("name", "sent"),
    [("PM", "pm"), ("BM", "bm"), ("PING", "ping"), ("COOKIE", "cookie"), ("Pm", "Pm"), ("ALICE", "ALICE")],
)
def test_name_equal_to_a_keyword_is_sent_in_lower_case(client: Dialogue, name: str, sent: str) -> None:
    """This holds for all keyword sets, at each login and for recipients. Names are case-insensitive."""
    other = frames(username=name)
    other.connect(sends(Command(f"{sent} history-id")))
    other.give(PasswordPrompt(account=AccountKind.EXISTING), sends(Command("secret")))
    other.give(WELCOME, f"[welcome existing] {name}", PROMPT)
    other.give(LinkDown("reset"), "[lost] reset; connecting again")
    other.connect(sends(Command(f"{sent} history-id")))

    client.type(f"DM {name} {name}", sends(Command("DM")))
    client.give(ONLINE, sends(Command(sent)), sends(Data(name)))


@pytest.mark.parametrize("code", [ErrorCode.BAD_REQUEST, ErrorCode.BAD_USERNAME])
def test_server_that_does_not_know_history_ids_gets_the_name_alone(code: ErrorCode) -> None:
    client = frames(ops="bm-pm")
    client.connect(sends(Command("alice bm-pm history-id")))
    client.give(Refused(code, "Unknown word."), sends(Command("alice bm-pm")))
    client.give(Refused(code, "No."), f"[error {code}] No.")
    assert client.exit is Exit.REFUSED


# --- operations ---


def test_message_in_steps(client: Dialogue) -> None:
    """It goes on when other messages arrive."""
    client.type("PM", sends(Command("PM")))
    client.give(Ready(), ASKS_TEXT)
    client.type("hello everyone", sends(Data("hello everyone")))
    client.give(SENT, "[sent #11]", PROMPT)
    client.type("DM", sends(Command("DM")))
    client.give(HELLO, SHOWS_HELLO)
    client.give(ONLINE, SHOWS_ONLINE, "[ask] recipient")
    client.give(direct(12, recipient=""), "[direct #12 2026-01-31T12:00:00Z] bob -> alice: psst")
    client.type("bob", "[ask] message for bob")
    client.type("hello bob", sends(Command("bob")), sends(Data("hello bob")))
    client.give(public(14, "most"), *shows(public(14, "most")))
    client.give(confirmation(15), "[sent #15]", PROMPT)


def test_rejected_step_ends_the_operation(client: Dialogue) -> None:
    """A rejected message is not sent again."""
    client.type("DM zoe hello", sends(Command("DM")))
    client.give(ONLINE, sends(Command("zoe")), sends(Data("hello")))
    client.give(UserUnknown(ErrorCode.UNKNOWN_USER, "No zoe.", about="zoe"), "[error unknown_user] No zoe.", PROMPT)
    assert not client.model.unconfirmed
    client.type("PM", sends(Command("PM")))
    client.give(Refused(ErrorCode.BAD_REQUEST, "No."), "[error bad_request] No.", PROMPT)
    client.type("PM hello", sends(Command("PM")))


def test_queries_take_one_step(client: Dialogue) -> None:
    client.type("/users", sends(Command("USERS")))
    client.give(ONLINE, SHOWS_ONLINE, PROMPT)
    client.type("ch 50", sends(Command("CH")))
    client.give(History(()), "[history 0]", PROMPT)
    client.type("CH 100", sends(Command("CH 100")))
    own, other = direct(9, "x", "alice", ""), direct(10, "y", recipient="")
    shown = [
        f"[history #{number} 2026-01-31T12:00:00Z] {text}"
        for number, text in ((9, "alice -> ?: x"), (10, "bob -> alice: y"))
    ]
    client.give(History((own, other)), "[history 2]", *shown, PROMPT)


def test_lines_wait_for_the_end_of_the_running_operation(client: Dialogue) -> None:
    client.type("PM one", sends(Command("PM")))
    client.type("PM")
    client.type("two")
    client.type("EX")
    client.give(Ready(), sends(Data("one")))
    client.give(SENT, "[sent #11]", PROMPT, sends(Command("PM")))
    client.give(Ready(), ASKS_TEXT, sends(Data("two")))
    client.give(confirmation(12), "[sent #12]", PROMPT, sends(Command("EX")))
    client.give(Bye("you left"), "[bye] you left")
    assert client.exit is Exit.OK


CANCELLED = "[error usage] Nothing was typed; the operation is cancelled."


def test_opened_message_is_left_with_an_empty_one_before_the_next_operation(client: Dialogue) -> None:
    client.type("PM", sends(Command("PM")))
    client.give(Ready(), ASKS_TEXT)
    client.type("", CANCELLED, PROMPT)
    client.type("DM", sends(Data("")))
    client.give(EMPTY, sends(Command("DM")))
    client.give(ONLINE, SHOWS_ONLINE, "[ask] recipient")
    client.type("", CANCELLED, PROMPT)
    client.type("CH", sends(Command("")), sends(Data("")))
    client.give(SENT, sends(Command("CH")))  # a server may accept an empty message
    client.give(History(()), "[history 0]", PROMPT)
    # The same operation uses it.
    client.type("PM", sends(Command("PM")))
    client.give(Ready(), ASKS_TEXT)
    client.type("", CANCELLED, PROMPT)
    client.type("PM hello", sends(Data("hello")))


def test_error_closes_the_opened_message(client: Dialogue) -> None:
    client.type("PM", sends(Command("PM")))
    client.give(Ready(), ASKS_TEXT)
    client.give(Refused(ErrorCode.INTERNAL, "Something."), "[error internal] Something.")
    client.type("hello", sends(Command("PM")))
    client.give(Ready(), sends(Data("hello")))


def test_direct_message_to_all_becomes_a_public_one(client: Dialogue) -> None:
    client.type("DM", sends(Command("DM")))
    client.give(ONLINE, SHOWS_ONLINE, "[ask] recipient")
    client.type("ALL", "[ask] message for ALL")
    client.type("hello", sends(Command("")), sends(Data("")))
    client.give(EMPTY, sends(Command("PM")))
    client.give(Ready(), sends(Data("hello")))


def test_end_of_input_leaves_an_opened_message(client: Dialogue) -> None:
    client.type("PM", sends(Command("PM")))
    client.give(Ready(), ASKS_TEXT)
    client.end_input(sends(Data("")))
    client.give(EMPTY, sends(Command("EX")))
    client.give(Bye(""), "[bye] you left")
    assert client.exit is Exit.OK


@pytest.mark.parametrize("end", [Bye(""), LinkDown("reset")], ids=["goodbye", "lost"])
def test_interrupt_leaves_after_the_operation_and_reports_unused_lines(client: Dialogue, end: Event | LinkDown) -> None:
    client.type("PM one", sends(Command("PM")))
    client.type("PM two")
    client.give(Interrupt())
    client.give(Ready(), sends(Data("one")))
    client.give(SENT, sends(Command("EX")), "[sent #11]")
    goodbye = ["[bye] you left"] if isinstance(end, Bye) else []
    client.give(end, *goodbye, "[error lost] 1 typed line was not confirmed")
    assert client.exit is Exit.LOST


Step: TypeAlias = "Action | Event"
# Operations: the first action, what follows while the server waits for a step, and the answer that ends it.
OPERATIONS: list[tuple[Action, list[Step], Event]] = [
    (OpenPublic(), [Ready(), Say("hello")], SENT),
    (OpenPublic(), [Ready(), AskHistory(50)], EMPTY),
    (OpenDirect(), [ONLINE, Whisper("bob", "psst")], SENT),
    (Whisper("bob", "psst"), [ONLINE], SENT),
]


@pytest.mark.parametrize(("first", "steps", "end"), OPERATIONS)
def test_ping_is_never_offered_between_two_steps(first: Action, steps: list[Step], end: Event) -> None:
    """The server would take it as the recipient or the text.

    The receiver thread may ask at any moment, so a trace function asks before each line that the client executes.
    """
    client = Frames().client()
    client.connect(Login("alice"), ())
    client.handle_event(WELCOME)
    assert client.ping == Outgoing(b"C\0\0\0\4PING")
    client.request(first)
    offered: list[str] = []

    def trace(frame: FrameType, *_: Any) -> Any:
        if frame.f_code.co_filename.endswith("steps.py") and client.ping is not None:
            offered.append(f"{frame.f_code.co_name}:{frame.f_lineno}")
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    for step in steps:
        client.handle_event(step) if isinstance(step, Ready | Online) else client.request(step)
    sys.settrace(before)
    assert not offered
    client.handle_event(end)
    assert client.ping is None if end is EMPTY else client.ping


@pytest.mark.parametrize("text", ["PING", " PING", "\tPING\n"])
def test_ping_is_not_a_password_of_datagram(text: str) -> None:
    """The server would answer it. Nothing is sent."""
    client = Datagram().client()
    reason = "In the wire format datagram, PING is the keepalive request; it can't be a password."
    refused = Effects(events=(Refused(ErrorCode.BAD_REQUEST, reason),))
    assert client.request(Password(text)) == refused
    client.connect(Login("alice", text), ())
    assert client.handle_event(PasswordPrompt(account=AccountKind.NEW)) == refused
    assert client.request(Password("PINGS")) == Effects((Outgoing(b"C\0\0\0\5PINGS"),))


# --- reconnecting ---

BACK = "[back] alice"
GAP = "[error lost] more may have been missed than this; CH 500 shows more"


def reconnect(
    client: Dialogue, name: str = "alice", welcome: Welcome = WELCOME, asks: str = "CH", *, is_first: bool = True
) -> None:
    """The connection is lost and open again, and the history is requested. A loss is shown once per outage."""
    client.give(LinkDown("reset"), *(["[lost] reset; connecting again"] if is_first else []))
    client.connect(sends(Command(f"{name} history-id")))
    client.give(PasswordPrompt(account=AccountKind.EXISTING), sends(Command("secret")))
    client.give(welcome, sends(Command(asks)))


def shows(*messages: PublicMessage, kind: str = "public") -> list[str]:
    return [f"[{kind} #{each.id} 2026-01-31T12:00:00Z] {each.sender}: {each.text}" for each in messages]


def unknown(text: str) -> str:
    return f"[error lost] it is not known whether this was stored, look at CH: {text}"


def test_too_many_messages_before_the_history_make_a_gap(client: Dialogue) -> None:
    client.give(HELLO, SHOWS_HELLO)
    reconnect(client)
    came = [public(number, "x") for number in range(100, 1_101)]
    for message in came:
        client.give(message)
    client.give(History((HELLO,)), BACK, GAP, *shows(*came[1:]), PROMPT)


OWN = public(9, "hello", "alice")
SHOWS_OWN = ["[history 1]", *shows(OWN, kind="history")]
OTHERS = (public(12, "hello"), public(13, "Hello", "alice"))
PHONE = public(14, "hello", "alice")  # from another device
LATER = (public(100, "later"), public(101, "more"))
# The steps of an unconfirmed message, whether message 11 was seen before, the answer to CH, and what follows.
UNCONFIRMED: dict[str, tuple[str, bool, Event, list[str]]] = {
    "stored": ("PM Ready", True, History((OWN, HELLO, public(12, "hello", "alice"))), [BACK, "[sent #12]", PROMPT]),
    "not stored": ("PM Ready", True, History((OWN, HELLO, *OTHERS)), [sends(Command("PM")), BACK, *shows(*OTHERS)]),
    "direct": ("DM Ready", True, History((HELLO, PHONE)), [sends(Command("DM")), BACK, *shows(PHONE)]),
    # The text was not sent, so it can't be stored.
    "not sent": ("PM", False, History((OWN,)), [sends(Command("PM")), BACK, *SHOWS_OWN]),
    # An equal message may be an older one.
    "nothing seen": ("PM Ready", False, History((OWN,)), [BACK, *SHOWS_OWN, unknown("hello"), PROMPT]),
    "gap": ("PM Ready", True, History(LATER), [BACK, GAP, *shows(*LATER), unknown("hello"), PROMPT]),
    "no history": ("PM Ready", True, Refused(ErrorCode.UNKNOWN_COMMAND, "No."), [BACK, GAP, unknown("hello"), PROMPT]),
}


@pytest.mark.parametrize(("steps", "is_informed", "answer", "outcome"), UNCONFIRMED.values(), ids=UNCONFIRMED)
def test_unconfirmed_message_is_looked_up_in_the_history(
    client: Dialogue, steps: str, is_informed: bool, answer: Event, outcome: list[str]
) -> None:
    """Promise: once. It is confirmed, sent again, or of unknown delivery."""
    word = steps[:2]
    if is_informed:
        client.give(HELLO, SHOWS_HELLO)
    client.type("PM hello" if word == "PM" else "DM bob hello", sends(Command(word)))
    if steps == "PM Ready":
        client.give(Ready(), sends(Data("hello")))
    elif steps == "DM Ready":
        client.give(ONLINE, sends(Command("bob")), sends(Data("hello")))
    client.give(LinkDown("reset"), "[lost] reset; connecting again")
    client.connect(sends(Command("alice history-id")))
    client.give(Refused(ErrorCode.SERVER_FULL, "Full."), HANGS_UP, "[error server_full] Full.")
    reconnect(client, is_first=False)
    client.give(answer, *outcome)
    assert bool(client.model.unconfirmed) == (PROMPT not in outcome)
    if unknown("hello") in outcome:
        client.end_input(sends(Command("EX")))
        client.give(Bye(""), "[bye] you left")
        assert client.exit is Exit.LOST


def test_names_in_the_history_are_compared_without_case() -> None:
    """The protocol does not say how the name was registered."""
    client = log_in(frames(username="Alice"), name="Alice")
    psst = direct(11, "x", "alice", "")
    client.give(psst, "[direct #11 2026-01-31T12:00:00Z] alice -> ?: x")
    client.type("PM hello", sends(Command("PM")))
    client.give(Ready(), sends(Data("hello")))
    reconnect(client, "Alice")
    client.give(History((psst, public(12, "hello", "alice"))), "[back] Alice", "[sent #12]", PROMPT)


BEFORE, RESTORED = (
    Welcome(account=AccountKind.EXISTING, username="", users=(), last_id=None, history_id=history_id)
    for history_id in ("a1", "b2")
)
WAITED = direct(13, recipient="")
SHOWS_WAITED = "[direct #13 2026-01-31T12:00:00Z] bob -> alice: psst"
OLD, MISSED, LAST = public(9, "old"), public(12, "missed"), public(15, "x")
REUSED = public(11, "another 11")


class Return(NamedTuple):
    """A reconnect: the messages seen before it, the history, and what is shown."""

    seen: list[PublicMessage]
    history: list[PublicMessage | DirectMessage]
    shown: list[str]
    # Messages that arrive before the history.
    early: list[PublicMessage | DirectMessage] = []  # noqa: RUF012 - it is not changed
    welcome: Welcome = BEFORE


RETURNS = {
    # A message that waited for alice follows the welcome, and a new one may arrive before the history.
    "missed": Return(
        [HELLO],
        [OLD, HELLO, MISSED, WAITED, PHONE],
        [*shows(MISSED), SHOWS_WAITED, *shows(PHONE, LAST)],
        [WAITED, LAST],
    ),
    # Old and new messages can't be told apart, so the history is shown as a history.
    "nothing seen": Return(
        [], [OLD, MISSED], ["[history 2]", *shows(OLD, MISSED, kind="history"), *shows(LAST)], [MISSED, LAST]
    ),
    "reset": Return([HELLO], [public(1, "one"), public(2, "two")], [GAP, *shows(public(1, "one"), public(2, "two"))]),
    # The server has more messages than the client saw, so ids don't show the restore.
    "restored": Return(
        [OLD, HELLO], [OLD, REUSED, MISSED, LAST], [GAP, *shows(REUSED, MISSED, LAST)], welcome=RESTORED
    ),
    "restored, nothing seen": Return(
        [], [HELLO], [GAP, "[history 1]", *shows(HELLO, kind="history")], welcome=RESTORED
    ),
}


@pytest.mark.parametrize("case", RETURNS.values(), ids=RETURNS)
def test_missed_messages_are_shown_once_and_in_order(case: Return) -> None:
    """Promises: once; nothing is lost silently. After the next reconnect only the newest message is new."""
    client = log_in(frames(), BEFORE)
    for message in case.seen:
        client.give(message, *shows(message))
    reconnect(client, welcome=case.welcome, asks="CH" if case.welcome is BEFORE else "CH 500")
    for message in case.early:
        client.give(message)
    client.give(History((*case.history,)), BACK, *case.shown, PROMPT)
    reconnect(client, welcome=case.welcome)
    last = case.early[-1] if case.early else case.history[-1]
    newest = public(50, "newest")
    client.give(History((last, newest)), BACK, *shows(newest), PROMPT)


def test_message_is_of_unknown_delivery_after_a_restore() -> None:
    """The history may have an older message with the same text."""
    client = log_in(frames(), BEFORE)
    client.give(HELLO, SHOWS_HELLO)
    client.type("PM ok", sends(Command("PM")))
    client.give(Ready(), sends(Data("ok")))
    old = public(4, "ok", "alice")
    reconnect(client, welcome=RESTORED, asks="CH 500")
    client.give(History((old,)), BACK, GAP, unknown("ok"), *shows(old), PROMPT)
