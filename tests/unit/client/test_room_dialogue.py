"""Dialogues with the reactor: in the room."""

import pytest

from chatclient.cli.exits import Exit
from chatclient.cli.input import InputParser
from chatclient.links.connection import LinkDown, LinkLost
from chatprotocol.errors import ErrorCode
from chatprotocol.events import (
    AccountKind,
    Bye,
    DirectMessage,
    History,
    Pong,
    PublicMessage,
    Refused,
    Sent,
    SentStatus,
    Users,
    Welcome,
)
from chatprotocol.keywords import KEYWORD_SETS
from chatprotocol.requests import AskHistory, AskUsers, Leave, Login, Say, Whisper

from .dialogue import HANGS_UP, Dialogue, sends

NOON_MS = 1_769_860_800_123
HELLO = PublicMessage(11, NOON_MS, "bob", "hello")
SHOWS_HELLO = "[public #11 2026-01-31T12:00:00Z] bob: hello"
ONLINE = Users(2, ("bob", "alice"))
SHOWS_ONLINE = "[users 2] alice bob"
BACK = Welcome(AccountKind.EXISTING, "alice", ("alice",), 20)


def test_a_public_message_is_sent_with_a_nonce_and_confirmed(inside: Dialogue) -> None:
    inside.type("PM hello everyone", sends(Say("hello everyone", "n1")))
    inside.give(Sent(11, SentStatus.SENT, "n1"), "[sent #11]")


def test_each_message_has_a_nonce_of_its_own(inside: Dialogue) -> None:
    inside.type("PM hello", sends(Say("hello", "n1")))
    inside.type("PM hello", sends(Say("hello", "n2")))
    inside.type("@bob hello", sends(Whisper("bob", "hello", "n3")))


def test_a_public_message_step_by_step(inside: Dialogue) -> None:
    inside.type("PM", "[ask] message for everybody")
    inside.type("hello", sends(Say("hello", "n1")))


def test_a_direct_message_step_by_step_goes_on_when_a_message_arrives_in_the_middle(inside: Dialogue) -> None:
    inside.type("DM", sends(AskUsers()))
    inside.give(HELLO, SHOWS_HELLO)
    inside.give(ONLINE, SHOWS_ONLINE, "[ask] recipient")
    inside.give(
        DirectMessage(12, NOON_MS, "bob", "alice", "psst"), "[direct #12 2026-01-31T12:00:00Z] bob -> alice: psst"
    )
    inside.type("bob", "[ask] message for bob")
    inside.give(Users(1, ("alice",), (), ("bob",)), "[left] bob")
    inside.type("hello bob", sends(Whisper("bob", "hello bob", "n1")))
    inside.give(Sent(13, SentStatus.STORED, "n1"), "[stored #13] not online; it is delivered at the next login")


def test_the_other_tradition_has_the_same_dialogue() -> None:
    udp_session = Dialogue(ops="bm-pm")
    udp_session.come_in()
    udp_session.type("PM", sends(AskUsers()))
    udp_session.give(ONLINE, SHOWS_ONLINE, "[ask] recipient")
    udp_session.type("bob", "[ask] message for bob")
    udp_session.type("hello", sends(Whisper("bob", "hello", "n1")))
    udp_session.type("BM hello", sends(Say("hello", "n2")))


def test_lines_that_are_typed_before_the_users_are_shown_wait(inside: Dialogue) -> None:
    inside.type("DM", sends(AskUsers()))
    inside.type("bob")
    inside.type("hello bob")
    inside.type("CH 5")
    inside.give(
        ONLINE,
        SHOWS_ONLINE,
        "[ask] recipient",
        "[ask] message for bob",
        sends(Whisper("bob", "hello bob", "n1")),
        sends(AskHistory(5)),
    )


def test_a_cancelled_step_sends_nothing(inside: Dialogue) -> None:
    inside.type("DM", sends(AskUsers()))
    inside.give(ONLINE, SHOWS_ONLINE, "[ask] recipient")
    inside.type("", "[error usage] Nothing was typed; the operation is cancelled.")
    inside.type("PM hello", sends(Say("hello", "n1")))


def test_a_complaint_about_what_was_typed_is_made_harmless(inside: Dialogue) -> None:
    step = InputParser(KEYWORD_SETS["pm-dm"]).parse_line("\\x1b[2J")
    inside.type("\x1b[2J", f"[error usage] {step.error}")


def test_help_is_shown_and_nothing_sent(inside: Dialogue) -> None:
    inside.type("/help", *(f"[help] {line}" for line in InputParser(KEYWORD_SETS["pm-dm"]).help()))


@pytest.mark.parametrize("line", ["", "   "])
def test_an_empty_line_is_used_up_and_does_nothing(inside: Dialogue, line: str) -> None:
    inside.type(line)
    assert inside.lines_used == 1


def test_a_text_over_the_limit_is_refused_before_it_is_sent(inside: Dialogue) -> None:
    reason = "A message has 8,192 bytes at most in UTF-8; nothing was done."
    inside.type("PM " + "\u20ac" * 2731, f"[error too_long] {reason}")
    inside.type("PM " + "x" * 8192, sends(Say("x" * 8192, "n1")))


def test_who_is_online_is_shown_when_it_was_asked_for(inside: Dialogue) -> None:
    inside.type("/users", sends(AskUsers()))
    inside.give(ONLINE, SHOWS_ONLINE)


def test_what_the_server_repeats_every_half_minute_is_not_shown(inside: Dialogue) -> None:
    inside.give(ONLINE)
    inside.give(Users(501, None))


def test_an_update_of_a_large_room_is_no_answer(inside: Dialogue) -> None:
    inside.type("/users", sends(AskUsers()))
    inside.give(Users(501, None))
    inside.give(Users(501, None, ("bob",)), "[joined] bob")
    inside.give(ONLINE, SHOWS_ONLINE)


def test_who_comes_and_goes_is_shown(inside: Dialogue) -> None:
    inside.give(Users(2, ("alice", "bob"), ("bob",), ()), "[joined] bob")
    inside.give(Users(1, ("alice",), (), ("bob",)), "[left] bob")


def test_history_is_shown_oldest_first(inside: Dialogue) -> None:
    inside.type("CH 2", sends(AskHistory(2)))
    inside.give(History((HELLO,)), "[history 1]", "[history #11 2026-01-31T12:00:00Z] bob: hello")


def test_a_pong_is_not_worth_a_line(inside: Dialogue) -> None:
    inside.give(Pong())


def test_a_refusal_in_the_room_is_shown_and_nothing_ends(inside: Dialogue) -> None:
    inside.type("@eve hello", sends(Whisper("eve", "hello", "n1")))
    inside.give(
        Refused(ErrorCode.UNKNOWN_USER, "There is no user 'eve'.", "n1"), "[error unknown_user] There is no user 'eve'."
    )
    assert inside.exit is None
    assert not inside.model.unconfirmed


def test_the_65th_message_waits_until_one_of_64_is_confirmed(inside: Dialogue) -> None:
    """Promise: back-pressure. What is sent and not confirmed has a limit."""
    for number in range(1, 65):
        inside.type(f"PM {number}", sends(Say(str(number), f"n{number}")))
    inside.type("PM 65")
    inside.type("PM 66")
    assert inside.lines_used == 64
    inside.give(Sent(11, SentStatus.SENT, "n1"), "[sent #11]", sends(Say("65", "n65")))
    inside.give(Refused(ErrorCode.INTERNAL, "Disk.", "n2"), "[error internal] Disk.", sends(Say("66", "n66")))


# --- lost connections ---


def test_a_lost_connection_is_taken_up_where_it_ended(inside: Dialogue) -> None:
    """Promise: once. The login names the last id; what is unconfirmed is sent again with the same nonces."""
    inside.type("PM one", sends(Say("one", "n1")))
    inside.type("@bob two", sends(Whisper("bob", "two", "n2")))
    inside.type("PM three", sends(Say("three", "n3")))
    inside.give(HELLO, SHOWS_HELLO)
    inside.give(Sent(12, SentStatus.SENT, "n2"), "[sent #12]")
    inside.give(LinkDown("reset"), "[lost] reset; connecting again")
    inside.type("PM four")
    inside.connect(sends(Login("alice", "secret", 12)))
    inside.give(BACK, sends(Say("one", "n1")), sends(Say("three", "n3")), "[back] alice", sends(Say("four", "n4")))
    inside.give(Sent(11, SentStatus.SENT, "n1"), "[sent #11]")
    inside.give(Sent(21, SentStatus.SENT, "n3"), "[sent #21]")
    assert list(inside.model.unconfirmed) == ["n4"]


def test_the_question_is_asked_again_after_a_lost_connection(inside: Dialogue) -> None:
    inside.type("DM", sends(AskUsers()))
    inside.give(ONLINE, SHOWS_ONLINE, "[ask] recipient")
    inside.type("bob", "[ask] message for bob")
    inside.give(LinkDown("reset"), "[lost] reset; connecting again")
    inside.connect(sends(Login("alice", "secret", 10)))
    inside.give(BACK, "[back] alice", "[ask] message for bob")
    inside.type("hello", sends(Whisper("bob", "hello", "n1")))


def test_a_connection_that_is_lost_before_the_users_came_asks_for_the_recipient(inside: Dialogue) -> None:
    inside.type("DM", sends(AskUsers()))
    inside.give(LinkDown("reset"), "[lost] reset; connecting again")
    inside.connect(sends(Login("alice", "secret", 10)))
    inside.give(BACK, "[back] alice", "[ask] recipient")
    inside.type("bob", "[ask] message for bob")


def test_a_server_that_says_goodbye_by_itself_is_connected_to_again(inside: Dialogue) -> None:
    inside.give(Bye("the server is shutting down"), "[bye] the server is shutting down")
    inside.give(
        LinkDown("the server closed the connection"), "[lost] the server closed the connection; connecting again"
    )
    assert inside.exit is None


def test_a_full_server_after_a_lost_connection_is_tried_again(inside: Dialogue) -> None:
    inside.give(LinkDown("reset"), "[lost] reset; connecting again")
    inside.connect(sends(Login("alice", "secret", 10)))
    inside.give(Refused(ErrorCode.SERVER_FULL, "Full."), "[error server_full] Full.", HANGS_UP)
    inside.give(LinkDown("closed"))
    assert inside.exit is None
    inside.give(LinkLost("can't reach it"), "[error lost] can't reach it")
    assert inside.exit is Exit.LOST


# --- the end ---


@pytest.mark.parametrize("line", ["EX", "ex", "/quit"])
def test_leaving_waits_for_the_servers_goodbye(inside: Dialogue, line: str) -> None:
    inside.type(line, sends(Leave()))
    assert inside.exit is None
    inside.give(Bye("you left"), "[bye] you left")
    assert inside.exit is Exit.OK


def test_the_end_of_the_input_leaves(inside: Dialogue) -> None:
    inside.end_input(sends(Leave()))
    inside.give(HELLO, SHOWS_HELLO)
    inside.give(Bye("you left"), "[bye] you left")
    assert inside.exit is Exit.OK


def test_after_leaving_nothing_that_was_typed_is_sent(inside: Dialogue) -> None:
    inside.type("EX", sends(Leave()))
    inside.type("PM too late")
    inside.end_input()
    inside.give(Bye("you left"), "[bye] you left")
    assert inside.lines_used == 1


def test_a_connection_that_ends_after_leaving_is_a_goodbye_too(inside: Dialogue) -> None:
    inside.type("EX", sends(Leave()))
    inside.give(LinkDown("the server closed the connection"))
    assert inside.exit is Exit.OK


def test_a_goodbye_before_a_confirmation_is_a_loss(inside: Dialogue) -> None:
    """Promise: confirmed means stored. What was not confirmed is not called sent."""
    inside.type("PM hello", sends(Say("hello", "n1")))
    inside.type("PM again", sends(Say("again", "n2")))
    inside.type("EX", sends(Leave()))
    inside.give(Bye("x"), "[bye] x", "[error lost] 2 typed lines were not confirmed")
    assert inside.exit is Exit.LOST


def test_leaving_goes_on_after_a_connection_that_was_lost_with_unconfirmed_messages(inside: Dialogue) -> None:
    inside.type("PM hello", sends(Say("hello", "n1")))
    inside.end_input(sends(Leave()))
    inside.give(LinkDown("reset"), "[lost] reset; connecting again")
    inside.connect(sends(Login("alice", "secret", 10)))
    inside.give(BACK, sends(Say("hello", "n1")), "[back] alice", sends(Leave()))
    inside.give(Sent(11, SentStatus.SENT, "n1"), "[sent #11]")
    inside.give(Bye("you left"), "[bye] you left")
    assert inside.exit is Exit.OK


def test_the_end_of_the_input_in_the_middle_of_a_dialogue_leaves(inside: Dialogue) -> None:
    inside.type("DM", sends(AskUsers()))
    inside.end_input()
    inside.give(ONLINE, SHOWS_ONLINE, "[ask] recipient", sends(Leave()))


def test_a_refusal_of_an_earlier_message_does_not_end_a_dialogue_that_was_opened_after_it(inside: Dialogue) -> None:
    inside.type("DM nobody hi", sends(Whisper("nobody", "hi", "n1")))
    inside.type("DM", sends(AskUsers()))
    inside.give(Refused(ErrorCode.UNKNOWN_USER, "There is none.", "n1"), "[error unknown_user] There is none.")
    inside.give(ONLINE, SHOWS_ONLINE, "[ask] recipient")
    inside.type("bob", "[ask] message for bob")
    inside.type("EX", sends(Whisper("bob", "EX", "n2")))


def test_an_answer_that_is_refused_is_not_waited_for(inside: Dialogue) -> None:
    inside.type("/users", sends(AskUsers()))
    inside.give(Refused(ErrorCode.SHUTTING_DOWN, "Ending."), "[error shutting_down] Ending.")
    inside.type("PM hello", sends(Say("hello", "n1")))
