"""Dialogues with the reactor in a dialect that goes one step at a time: what is asked, sent and shown, in order."""

import pytest

from chatclient.cli.controller import Interrupt
from chatclient.cli.exits import Exit
from chatclient.frames_client import FramesClient
from chatclient.links.connection import LinkDown
from chatprotocol.errors import ErrorCode
from chatprotocol.events import (
    YOU_LEFT,
    AccountKind,
    Bye,
    DirectMessage,
    History,
    Online,
    PasswordPrompt,
    PublicMessage,
    Ready,
    Refused,
    Sent,
    SentStatus,
    Welcome,
)
from chatprotocol.requests import Command, Data

from .dialogue import CONNECTS, HIDES, Dialogue, sends

NOON_MS = 1_769_860_800_123
HELLO = PublicMessage(11, NOON_MS, "bob", "hello")
SHOWS_HELLO = "[public #11 2026-01-31T12:00:00Z] bob: hello"
# As the decoder of frames gives it: the wire has no more.
WELCOME = Welcome(AccountKind.EXISTING, "", (), None)
WELCOMES = "[welcome existing] alice"
PROMPT = "[ask] operation (PM, DM, CH, EX)"
WRONG = Refused(ErrorCode.WRONG_PASSWORD, "That is not the password of alice.")
WRONGS = "[error wrong_password] That is not the password of alice."
EMPTY = Refused(ErrorCode.EMPTY_MESSAGE, "The message is empty; nothing was sent.")
ONLINE = Online(("bob", "alice"))
SHOWS_ONLINE = "[users 2] alice bob"


def udp_session_in_steps(
    username: str | None = "alice", password: str | None = "secret", ops: str = "pm-dm"
) -> Dialogue:
    return Dialogue(username, password, ops, FramesClient(ops))


@pytest.fixture
def inside() -> Dialogue:
    """A client that is logged in and was asked for an operation."""
    udp_session = udp_session_in_steps()
    udp_session.connect(sends(Command("alice history-id")))
    udp_session.give(PasswordPrompt(AccountKind.EXISTING), sends(Command("secret")))
    udp_session.give(WELCOME, WELCOMES, PROMPT)
    return udp_session


# --- coming in ---


def test_a_client_without_a_password_is_asked_for_it() -> None:
    udp_session = udp_session_in_steps(password=None)
    udp_session.connect(sends(Command("alice history-id")))
    udp_session.give(PasswordPrompt(AccountKind.NEW), HIDES, "[ask] password new")
    udp_session.type("  my secret ", sends(Command("  my secret ")))
    udp_session.give(Welcome(AccountKind.NEW, "", (), None), "[welcome new] alice", PROMPT)


def test_the_other_tradition_is_named_behind_the_username() -> None:
    udp_session = udp_session_in_steps(ops="bm-pm")
    udp_session.connect(sends(Command("alice bm-pm history-id")))
    udp_session.give(PasswordPrompt(AccountKind.EXISTING), sends(Command("secret")))
    udp_session.give(WELCOME, WELCOMES, "[ask] operation (BM, PM, CH, EX)")
    udp_session.type("BM", sends(Command("BM")))
    udp_session.give(Ready(), "[ask] message for everybody")
    udp_session.type("hello", sends(Data("hello")))
    udp_session.give(Sent(11, SentStatus.SENT), "[sent #11]", "[ask] operation (BM, PM, CH, EX)")
    udp_session.type("PM", sends(Command("PM")))
    udp_session.give(ONLINE, SHOWS_ONLINE, "[ask] recipient")
    udp_session.type("bob", "[ask] message for bob")
    udp_session.type("psst", sends(Command("bob")), sends(Data("psst")))


def test_a_wrong_password_is_asked_for_again_twice() -> None:
    udp_session = udp_session_in_steps(password=None)
    udp_session.connect(sends(Command("alice history-id")))
    udp_session.give(PasswordPrompt(AccountKind.EXISTING), HIDES, "[ask] password existing")
    for word in ("one", "two"):
        udp_session.type(word, sends(Command(word)))
        udp_session.give(WRONG, WRONGS, HIDES, "[ask] password existing")
    udp_session.type("three", sends(Command("three")))
    udp_session.give(WRONG, WRONGS)
    assert udp_session.exit is Exit.REFUSED


def test_a_server_that_closes_after_fewer_wrong_passwords_has_refused_the_login() -> None:
    udp_session = udp_session_in_steps(password=None)
    udp_session.connect(sends(Command("alice history-id")))
    udp_session.give(PasswordPrompt(AccountKind.EXISTING), HIDES, "[ask] password existing")
    udp_session.type("one", sends(Command("one")))
    udp_session.give(WRONG, WRONGS, HIDES, "[ask] password existing")
    udp_session.give(Bye("too many wrong passwords"), "[bye] too many wrong passwords")
    udp_session.give(LinkDown("the server closed the connection"), "[error lost] the server closed the connection")
    assert udp_session.exit is Exit.REFUSED


def test_a_password_that_is_asked_for_out_of_place_gets_no_typed_line(inside: Dialogue) -> None:
    """And no password a second time."""
    inside.give(PasswordPrompt(AccountKind.EXISTING))
    inside.type("PM hello", sends(Command("PM")))


@pytest.mark.parametrize("ops", ["pm-dm", "bm-pm"])
@pytest.mark.parametrize("name", ["PM", "DM", "BM", "CH", "EX", "PING"])
def test_a_name_that_is_an_operation_is_sent_so_that_it_is_none(name: str, ops: str) -> None:
    """Whichever tradition it is of: names are the same for all."""
    udp_session = udp_session_in_steps(username=name, ops=ops)
    behind = "" if ops == "pm-dm" else " bm-pm"
    udp_session.connect(sends(Command(f"{name.lower()}{behind} history-id")))
    udp_session.give(PasswordPrompt(AccountKind.EXISTING), sends(Command("secret")))
    prompt = PROMPT if ops == "pm-dm" else "[ask] operation (BM, PM, CH, EX)"
    udp_session.give(WELCOME, f"[welcome existing] {name}", prompt)
    # And so it is after a lost connection.
    udp_session.give(LinkDown("reset"), "[lost] reset; connecting again")
    udp_session.connect(sends(Command(f"{name.lower()}{behind} history-id")))


@pytest.mark.parametrize("name", ["Pm", "pING", "eX", "PMS", "ALICE"])
def test_a_name_that_is_no_operation_is_sent_as_it_is(name: str) -> None:
    udp_session_in_steps(username=name).connect(sends(Command(f"{name} history-id")))


@pytest.mark.parametrize("name", ["PM", "DM", "BM", "CH", "EX", "PING"])
def test_a_recipient_who_is_called_like_an_operation_is_named_so_that_it_is_none(inside: Dialogue, name: str) -> None:
    """In one line, and step by step."""
    inside.type(f"DM {name} hello", sends(Command("DM")))
    inside.give(ONLINE, sends(Command(name.lower())), sends(Data("hello")))
    inside.give(Sent(11, SentStatus.SENT), "[sent #11]", PROMPT)
    inside.type("DM", sends(Command("DM")))
    inside.give(ONLINE, SHOWS_ONLINE, "[ask] recipient")
    inside.type(name, f"[ask] message for {name}")
    inside.type(name, sends(Command(name.lower())), sends(Data(name)))


def test_a_password_is_sent_as_it_is_whatever_it_looks_like() -> None:
    """Only the name of somebody is told by what it says."""
    udp_session = udp_session_in_steps(password=None)
    udp_session.connect(sends(Command("alice history-id")))
    udp_session.give(PasswordPrompt(AccountKind.EXISTING), HIDES, "[ask] password existing")
    udp_session.type("EX", sends(Command("EX")))


def test_a_password_that_was_set_and_is_wrong_is_not_asked_for() -> None:
    udp_session = udp_session_in_steps()
    udp_session.connect(sends(Command("alice history-id")))
    udp_session.give(PasswordPrompt(AccountKind.EXISTING), sends(Command("secret")))
    udp_session.give(WRONG, WRONGS)
    assert udp_session.exit is Exit.REFUSED


def test_who_it_is_is_asked_for_before_a_connection_is_made() -> None:
    udp_session = udp_session_in_steps(username=None)
    udp_session.begin("[ask] username")
    error = "[error bad_username] A username is 1 to 32 letters and digits (A-Z, a-z, 0-9)."
    udp_session.type("not a name", error, "[ask] username")
    udp_session.type("", error, "[ask] username")
    udp_session.type(" alice ", CONNECTS)
    udp_session.connect(sends(Command("alice history-id")))


def test_who_it_is_is_not_asked_where_it_is_known() -> None:
    udp_session_in_steps().begin(CONNECTS)


def test_an_input_that_ends_before_the_username_is_bad_usage() -> None:
    udp_session = udp_session_in_steps(username=None)
    udp_session.begin("[ask] username")
    udp_session.end_input("[error usage] the input ended before the username was given")
    assert udp_session.exit is Exit.USAGE


# --- operations, step by step and in one line ---


def test_a_public_message_is_asked_for_when_the_server_is_ready(inside: Dialogue) -> None:
    inside.type("PM", sends(Command("PM")))
    inside.give(Ready(), "[ask] message for everybody")
    inside.type("hello everyone", sends(Data("hello everyone")))
    inside.give(Sent(11, SentStatus.SENT), "[sent #11]", PROMPT)


def test_a_public_message_in_one_line_takes_the_same_steps(inside: Dialogue) -> None:
    inside.type("PM hello everyone", sends(Command("PM")))
    inside.give(Ready(), sends(Data("hello everyone")))
    inside.give(Sent(11, SentStatus.SENT), "[sent #11]", PROMPT)


def test_a_direct_message_step_by_step_goes_on_when_messages_arrive_in_the_middle(inside: Dialogue) -> None:
    inside.type("DM", sends(Command("DM")))
    inside.give(HELLO, SHOWS_HELLO)
    inside.give(ONLINE, SHOWS_ONLINE, "[ask] recipient")
    inside.give(DirectMessage(12, NOON_MS, "bob", "", "psst"), "[direct #12 2026-01-31T12:00:00Z] bob -> alice: psst")
    inside.type("bob", "[ask] message for bob")
    inside.give(PublicMessage(13, NOON_MS, "bob", "more"), "[public #13 2026-01-31T12:00:00Z] bob: more")
    inside.type("hello bob", sends(Command("bob")), sends(Data("hello bob")))
    inside.give(PublicMessage(14, NOON_MS, "bob", "most"), "[public #14 2026-01-31T12:00:00Z] bob: most")
    inside.give(Sent(15, SentStatus.STORED), "[stored #15] not online; it is delivered at the next login", PROMPT)


def test_a_direct_message_in_one_line_takes_the_same_steps_and_shows_no_list(inside: Dialogue) -> None:
    inside.type("DM bob hello", sends(Command("DM")))
    inside.give(ONLINE, sends(Command("bob")), sends(Data("hello")))
    inside.give(Sent(11, SentStatus.SENT), "[sent #11]", PROMPT)


def test_a_direct_message_that_lacks_its_text_only_takes_the_same_steps(inside: Dialogue) -> None:
    inside.type("DM bob", "[ask] message for bob")
    inside.type("hello", sends(Command("DM")))
    inside.give(ONLINE, sends(Command("bob")), sends(Data("hello")))
    inside.give(Sent(11, SentStatus.SENT), "[sent #11]", PROMPT)


def test_an_unknown_user_is_told_and_the_next_operation_asked_for(inside: Dialogue) -> None:
    inside.type("DM zoe hello", sends(Command("DM")))
    inside.give(ONLINE, sends(Command("zoe")), sends(Data("hello")))
    error = Refused(ErrorCode.UNKNOWN_USER, "There is no user 'zoe'; nothing was sent.", about="zoe")
    inside.give(error, "[error unknown_user] There is no user 'zoe'; nothing was sent.", PROMPT)
    assert not inside.model.unconfirmed


@pytest.mark.parametrize(("line", "command"), [("CH", "CH"), ("ch 50", "CH"), ("CH 100", "CH 100")])
def test_the_history_is_asked_for_in_one_step(inside: Dialogue, line: str, command: str) -> None:
    direct = DirectMessage(10, NOON_MS, "alice", "", "psst")
    inside.type(line, sends(Command(command)))
    inside.give(
        History((direct, HELLO)),
        "[history 2]",
        "[history #10 2026-01-31T12:00:00Z] alice -> ?: psst",
        "[history #11 2026-01-31T12:00:00Z] bob: hello",
        PROMPT,
    )


def test_who_is_online_is_asked_for_in_one_step(inside: Dialogue) -> None:
    inside.type("/users", sends(Command("USERS")))
    inside.give(ONLINE, SHOWS_ONLINE, PROMPT)


def test_lines_wait_for_the_end_of_the_operation_before_them(inside: Dialogue) -> None:
    inside.type("PM one", sends(Command("PM")))
    inside.type("PM")
    inside.type("two")
    inside.type("EX")
    inside.give(Ready(), sends(Data("one")))
    inside.give(Sent(11, SentStatus.SENT), "[sent #11]", PROMPT, sends(Command("PM")))
    inside.give(Ready(), "[ask] message for everybody", sends(Data("two")))
    inside.give(Sent(12, SentStatus.SENT), "[sent #12]", PROMPT, sends(Command("EX")))
    inside.give(Bye(YOU_LEFT), "[bye] you left")
    assert inside.exit is Exit.OK


def test_after_a_slip_of_typing_the_operation_is_asked_for_again(inside: Dialogue) -> None:
    usage = "There are PM (to everybody), DM (to one user), CH (history), EX (leave) and /help."
    inside.type("hello", f"[error usage] hello is no operation, so nothing was sent. {usage}", PROMPT)
    inside.type("", PROMPT)


# --- out of a dialogue, and refusals in the middle ---

CANCELLED = "[error usage] Nothing was typed; the operation is cancelled."


def test_a_dialogue_that_was_given_up_is_left_before_the_next_operation(inside: Dialogue) -> None:
    inside.type("PM", sends(Command("PM")))
    inside.give(Ready(), "[ask] message for everybody")
    inside.type("", CANCELLED, PROMPT)
    inside.type("DM", sends(Data("")))
    inside.give(EMPTY, sends(Command("DM")))
    inside.give(ONLINE, SHOWS_ONLINE, "[ask] recipient")
    inside.type("", CANCELLED, PROMPT)
    inside.type("CH", sends(Command("")), sends(Data("")))
    inside.give(EMPTY, sends(Command("CH")))
    inside.give(History(()), "[history 0]", PROMPT)


def test_a_server_that_takes_an_empty_message_is_no_obstacle(inside: Dialogue) -> None:
    inside.type("PM", sends(Command("PM")))
    inside.give(Ready(), "[ask] message for everybody")
    inside.type("", CANCELLED, PROMPT)
    inside.type("CH", sends(Data("")))
    inside.give(Sent(11, SentStatus.SENT), sends(Command("CH")))
    inside.give(Refused(ErrorCode.INTERNAL, "No."), "[error internal] No.", PROMPT)
    # One who goes on with the same operation need not leave it.
    inside.type("PM", sends(Command("PM")))
    inside.give(Ready(), "[ask] message for everybody")
    inside.type("", CANCELLED, PROMPT)
    inside.type("PM hello", sends(Data("hello")))


def test_after_an_error_out_of_place_the_server_waits_for_an_operation(inside: Dialogue) -> None:
    inside.type("PM", sends(Command("PM")))
    inside.give(Ready(), "[ask] message for everybody")
    inside.give(Refused(ErrorCode.INTERNAL, "Something."), "[error internal] Something.")
    inside.type("hello", sends(Command("PM")))
    inside.give(Ready(), sends(Data("hello")))


def test_a_message_to_all_in_a_direct_dialogue_is_public(inside: Dialogue) -> None:
    inside.type("DM", sends(Command("DM")))
    inside.give(ONLINE, SHOWS_ONLINE, "[ask] recipient")
    inside.type("ALL", "[ask] message for ALL")
    inside.type("hello", sends(Command("")), sends(Data("")))
    inside.give(EMPTY, sends(Command("PM")))
    inside.give(Ready(), sends(Data("hello")))
    inside.give(Sent(11, SentStatus.SENT), "[sent #11]", PROMPT)


def test_the_input_ends_in_the_middle_of_a_dialogue(inside: Dialogue) -> None:
    inside.type("PM", sends(Command("PM")))
    inside.give(Ready(), "[ask] message for everybody")
    inside.end_input(sends(Data("")))
    inside.give(EMPTY, sends(Command("EX")))
    inside.give(Bye(""), "[bye] you left")
    assert inside.exit is Exit.OK


def test_an_interrupt_in_the_middle_of_an_operation_leaves_after_it(inside: Dialogue) -> None:
    inside.type("PM hello", sends(Command("PM")))
    inside.give(Interrupt())
    inside.give(Ready(), sends(Data("hello")))
    inside.give(Sent(11, SentStatus.SENT), sends(Command("EX")), "[sent #11]")
    inside.give(Bye(YOU_LEFT), "[bye] you left")
    assert inside.exit is Exit.OK


def test_a_first_step_that_is_refused_asks_for_nothing(inside: Dialogue) -> None:
    inside.type("PM", sends(Command("PM")))
    inside.give(Refused(ErrorCode.SHUTTING_DOWN, "Ending."), "[error shutting_down] Ending.", PROMPT)
    inside.type("PM hello", sends(Command("PM")))


def test_a_message_that_is_refused_is_not_sent_again(inside: Dialogue) -> None:
    inside.type("PM hello", sends(Command("PM")))
    inside.give(Ready(), sends(Data("hello")))
    inside.give(Refused(ErrorCode.TOO_LONG, "Too long."), "[error too_long] Too long.", PROMPT)
    assert not inside.model.unconfirmed


# --- coming back ---

BACK = "[back] alice"
GAP = "[error lost] more may have been missed than this; CH 500 shows more"


def lose_connection(udp_session: Dialogue, name: str = "alice", welcome: Welcome = WELCOME, asks: str = "CH") -> None:
    """The connection is lost, and there again, and the history is asked for."""
    udp_session.give(LinkDown("reset"), "[lost] reset; connecting again")
    udp_session.connect(sends(Command(f"{name} history-id")))
    udp_session.give(PasswordPrompt(AccountKind.EXISTING), sends(Command("secret")))
    udp_session.give(welcome, sends(Command(asks)))


def public(message_id: int, text: str, sender: str = "bob") -> PublicMessage:
    return PublicMessage(message_id, NOON_MS, sender, text)


def shows(*messages: PublicMessage, kind: str = "public") -> list[str]:
    return [f"[{kind} #{each.id} 2026-01-31T12:00:00Z] {each.sender}: {each.text}" for each in messages]


@pytest.fixture
def informed(inside: Dialogue) -> Dialogue:
    """A client that has seen a message."""
    inside.give(HELLO, SHOWS_HELLO)
    return inside


def test_what_was_missed_is_shown_once_and_in_order(informed: Dialogue) -> None:
    """Also what another device of the same user said."""
    lose_connection(informed)
    # What waited for alice comes behind the welcome, and what is new may come before the history.
    waited = DirectMessage(13, NOON_MS, "bob", "", "psst")
    informed.give(waited)
    informed.give(public(15, "new"))
    informed.give(
        History((public(9, "old"), HELLO, public(12, "missed"), waited, public(14, "from my phone", "alice"))),
        BACK,
        *shows(public(12, "missed")),
        "[direct #13 2026-01-31T12:00:00Z] bob -> alice: psst",
        *shows(public(14, "from my phone", "alice"), public(15, "new")),
        PROMPT,
    )
    lose_connection(informed)
    informed.give(
        History((public(14, "x"), public(15, "new"), public(16, "newer"))), BACK, *shows(public(16, "newer")), PROMPT
    )


def test_of_too_much_that_comes_before_the_history_the_oldest_is_dropped_and_a_gap_is_told(informed: Dialogue) -> None:
    lose_connection(informed)
    came = [public(number, "x") for number in range(100, 1_101)]
    for message in came:
        informed.give(message)
    informed.give(History((HELLO,)), BACK, GAP, *shows(*came[1:]), PROMPT)


def test_where_nothing_was_seen_before_the_history_is_shown_as_what_it_is(inside: Dialogue) -> None:
    lose_connection(inside)
    inside.give(public(12, "new"))
    inside.give(public(13, "newer"))
    history = (public(9, "old or missed"), public(12, "new"))
    lines = shows(*history, kind="history")
    inside.give(History(history), BACK, "[history 2]", *lines, *shows(public(13, "newer")), PROMPT)
    # From here on it is known what is new.
    lose_connection(inside)
    inside.give(History((public(13, "newer"), public(14, "newest"))), BACK, *shows(public(14, "newest")), PROMPT)


def test_a_message_that_was_stored_before_the_connection_was_lost_is_confirmed(informed: Dialogue) -> None:
    informed.type("PM hello", sends(Command("PM")))
    informed.give(Ready(), sends(Data("hello")))
    lose_connection(informed)
    history = (public(9, "hello", "alice"), HELLO, public(12, "hello", "alice"))
    informed.give(History(history), BACK, "[sent #12]", PROMPT)
    assert not informed.model.unconfirmed


def test_names_are_compared_without_regard_to_case() -> None:
    """The dialect does not tell how the name was registered."""
    udp_session = udp_session_in_steps(username="Alice")
    udp_session.connect(sends(Command("Alice history-id")))
    udp_session.give(PasswordPrompt(AccountKind.EXISTING), sends(Command("secret")))
    udp_session.give(WELCOME, "[welcome existing] Alice", PROMPT)
    udp_session.give(DirectMessage(11, NOON_MS, "alice", "", "x"), "[direct #11 2026-01-31T12:00:00Z] alice -> ?: x")
    udp_session.type("PM hello", sends(Command("PM")))
    udp_session.give(Ready(), sends(Data("hello")))
    lose_connection(udp_session, "Alice")
    history = (DirectMessage(11, NOON_MS, "alice", "", "x"), public(12, "hello", "alice"))
    udp_session.give(History(history), "[back] Alice", "[sent #12]", PROMPT)


@pytest.mark.parametrize("line", ["PM hello", "DM bob hello"])
def test_a_message_that_was_not_stored_is_sent_again(informed: Dialogue, line: str) -> None:
    word = line.split(maxsplit=1)[0]
    informed.type(line, sends(Command(word)))
    if word == "PM":
        informed.give(Ready(), sends(Data("hello")))
    else:
        informed.give(ONLINE, sends(Command("bob")), sends(Data("hello")))
    lose_connection(informed)
    history = (public(9, "hello", "alice"), HELLO, public(12, "hello"), public(13, "Hello", "alice"))
    informed.give(
        History(history), sends(Command(word)), BACK, *shows(public(12, "hello"), public(13, "Hello", "alice"))
    )


def test_a_message_of_which_the_text_was_not_sent_is_sent_whatever_the_history_says(inside: Dialogue) -> None:
    inside.type("PM hello", sends(Command("PM")))
    lose_connection(inside)
    own = public(9, "hello", "alice")
    inside.give(History((own,)), sends(Command("PM")), BACK, "[history 1]", *shows(own, kind="history"))


def unsettled(text: str) -> str:
    return f"[error lost] it is not known whether this was stored, look at CH: {text}"


def test_a_message_of_which_nobody_can_tell_is_not_sent_again(inside: Dialogue) -> None:
    """Nothing was seen before it, so an equal one in the history may be an older one."""
    inside.type("PM hello", sends(Command("PM")))
    inside.give(Ready(), sends(Data("hello")))
    lose_connection(inside)
    own = public(9, "hello", "alice")
    inside.give(History((own,)), BACK, "[history 1]", *shows(own, kind="history"), unsettled("hello"), PROMPT)
    assert not inside.model.unconfirmed
    inside.type("EX", sends(Command("EX")))
    inside.give(Bye(""), "[bye] you left")
    assert inside.exit is Exit.LOST


@pytest.mark.parametrize("size", [1, 10, 50])
def test_where_the_history_does_not_reach_back_that_is_told_and_nothing_is_sent_again(
    informed: Dialogue, size: int
) -> None:
    informed.type("PM hello", sends(Command("PM")))
    informed.give(Ready(), sends(Data("hello")))
    lose_connection(informed)
    missed = tuple(public(number, f"missed {number}") for number in range(100, 100 + size))
    informed.give(History(missed), BACK, GAP, *shows(*missed), unsettled("hello"), PROMPT)


def test_a_server_that_refuses_the_history_is_no_obstacle(informed: Dialogue) -> None:
    informed.type("PM hello", sends(Command("PM")))
    informed.give(Ready(), sends(Data("hello")))
    lose_connection(informed)
    informed.give(public(15, "new"))
    error = Refused(ErrorCode.UNKNOWN_COMMAND, "No.")
    informed.give(error, BACK, GAP, *shows(public(15, "new")), unsettled("hello"), PROMPT)


def test_a_server_that_began_anew_has_only_what_is_new_and_that_is_told(informed: Dialogue) -> None:
    one, two, three = public(1, "one"), public(2, "two"), public(3, "three")
    lose_connection(informed)
    informed.give(History((one, two)), BACK, GAP, *shows(one, two), PROMPT)
    lose_connection(informed)
    informed.give(History((two, three)), BACK, *shows(three), PROMPT)


BEFORE, RESTORED = (Welcome(AccountKind.EXISTING, "", (), None, history_id) for history_id in ("a1", "b2"))


def test_after_a_restore_what_is_new_is_shown_and_that_more_may_have_been_missed() -> None:
    """Promise: nothing is lost silently. It had gone on beyond what was seen, so that ids alone tell nothing."""
    udp_session = udp_session_in_steps()
    udp_session.connect(sends(Command("alice history-id")))
    udp_session.give(PasswordPrompt(AccountKind.EXISTING), sends(Command("secret")))
    udp_session.give(BEFORE, WELCOMES, PROMPT)
    seen = [public(number, f"text {number}") for number in (10, 11, 12)]
    for each in seen:
        udp_session.give(each, *shows(each))
    udp_session.type("PM 13", sends(Command("PM")))
    udp_session.give(Ready(), sends(Data("13")))
    udp_session.give(Sent(13, SentStatus.SENT), "[sent #13]", PROMPT)

    new = [public(11, "other 11"), public(12, "text 12", "carol"), public(13, "13"), public(14, "new")]
    lose_connection(udp_session, welcome=RESTORED, asks="CH 500")
    udp_session.give(History((seen[0], *new)), BACK, GAP, *shows(*new), PROMPT)
    lose_connection(udp_session, welcome=RESTORED)
    udp_session.give(History((new[-1], public(15, "newer"))), BACK, *shows(public(15, "newer")), PROMPT)


def test_after_a_restore_nobody_can_tell_what_became_of_a_message_that_was_not_confirmed() -> None:
    """The same text may be an older message in the history, which would be taken for it."""
    udp_session = udp_session_in_steps()
    udp_session.connect(sends(Command("alice history-id")))
    udp_session.give(PasswordPrompt(AccountKind.EXISTING), sends(Command("secret")))
    udp_session.give(BEFORE, WELCOMES, PROMPT)
    udp_session.give(HELLO, SHOWS_HELLO)
    udp_session.type("PM ok", sends(Command("PM")))
    udp_session.give(Ready(), sends(Data("ok")))
    old = public(4, "ok", "alice")
    lose_connection(udp_session, welcome=RESTORED, asks="CH 500")
    udp_session.give(History((old,)), BACK, GAP, unsettled("ok"), *shows(old), PROMPT)


def test_who_has_seen_no_message_is_told_of_a_restore_as_well() -> None:
    udp_session = udp_session_in_steps()
    udp_session.connect(sends(Command("alice history-id")))
    udp_session.give(PasswordPrompt(AccountKind.EXISTING), sends(Command("secret")))
    udp_session.give(BEFORE, WELCOMES, PROMPT)
    lose_connection(udp_session, welcome=RESTORED, asks="CH 500")
    udp_session.give(History((HELLO,)), BACK, GAP, "[history 1]", *shows(HELLO, kind="history"), PROMPT)


@pytest.mark.parametrize("code", [ErrorCode.BAD_REQUEST, ErrorCode.BAD_USERNAME])
def test_a_server_that_does_not_know_the_word_for_the_identity_is_told_the_name_alone(code: ErrorCode) -> None:
    udp_session = udp_session_in_steps(ops="bm-pm")
    udp_session.connect(sends(Command("alice bm-pm history-id")))
    udp_session.give(Refused(code, "Nothing else may stand there."), sends(Command("alice bm-pm")))
    udp_session.give(Refused(code, "No."), f"[error {code}] No.")
    assert udp_session.exit is Exit.REFUSED


def test_a_dialogue_that_stood_at_a_prompt_goes_on_after_coming_back(informed: Dialogue) -> None:
    informed.type("PM", sends(Command("PM")))
    informed.give(Ready(), "[ask] message for everybody")
    lose_connection(informed)
    informed.give(History((HELLO,)), BACK, "[ask] message for everybody")
    informed.type("hello", sends(Command("PM")))
    informed.give(Ready(), sends(Data("hello")))
    informed.give(Sent(12, SentStatus.SENT), "[sent #12]", PROMPT)


def test_lines_that_were_typed_before_an_interrupt_are_told_to_be_lost(inside: Dialogue) -> None:
    inside.type("PM one", sends(Command("PM")))
    inside.type("PM two")
    inside.give(Interrupt())
    inside.give(Ready(), sends(Data("one")))
    inside.give(Sent(11, SentStatus.SENT), sends(Command("EX")), "[sent #11]")
    inside.give(Bye(""), "[bye] you left", "[error lost] 1 typed line was not confirmed")
    assert inside.exit is Exit.LOST


def test_they_are_told_as_well_where_the_connection_ends_before_the_goodbye(inside: Dialogue) -> None:
    inside.type("PM one", sends(Command("PM")))
    inside.type("PM two")
    inside.give(Interrupt())
    inside.give(Ready(), sends(Data("one")))
    inside.give(Sent(11, SentStatus.SENT), sends(Command("EX")), "[sent #11]")
    inside.give(LinkDown("reset"), "[error lost] 1 typed line was not confirmed")
    assert inside.exit is Exit.LOST


def test_an_interrupt_before_the_history_has_come_leaves_after_it(informed: Dialogue) -> None:
    lose_connection(informed)
    informed.end_input()
    informed.give(History((HELLO,)), BACK, PROMPT, sends(Command("EX")))
    informed.give(Bye(""), "[bye] you left")
    assert informed.exit is Exit.OK
