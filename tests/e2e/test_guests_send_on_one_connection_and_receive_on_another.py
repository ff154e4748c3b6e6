"""Story 13: guests, who have a name, two connections and no password, among themselves and beside others."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .harness.actors import Client
    from .harness.stack import Stack

REGISTER = ("--dialect", "register")
PROMPT = "@USER MESSAGE or @ALL MESSAGE"

ARABIC = "\u0645\u0631\u062d\u0628\u0627 \u0628\u0643\u0645"
EMOJI = "\U0001f600\U0001f44d\U0001f3fd"


def come_in(stack: Stack, name: str) -> Client:
    """A guest who was asked for the first message."""
    guest = stack.start_client(name, *REGISTER)
    guest.expect_next(f"[welcome guest] {name}")
    guest.asked(PROMPT)
    return guest


def say(guest: Client, to: str, text: str, outcome: str = "[delivered]") -> None:
    """A message, and what became of it."""
    guest.type(f"@{to} {text}")
    guest.expect(f"{outcome} @{to}")
    guest.asked(PROMPT)


def test_two_guests_talk_to_each_other_and_to_everybody(stack: Stack) -> None:
    """Each is told after each message that it was delivered; one's own does not come back."""
    stack.start_server()
    alice, bob = come_in(stack, "alice"), come_in(stack, "bob")

    say(alice, "bob", "hello bob")
    bob.expect_next("[message] alice: hello bob")
    say(bob, "alice", "hello alice")
    alice.expect_next("[message] bob: hello alice")
    say(alice, "ALL", "hello everybody")
    bob.expect_next("[message] alice: hello everybody")
    bob.type("@all so am I")
    bob.expect("[delivered] @ALL")
    alice.expect_next("[message] bob: so am I")
    say(alice, "BOB", "names have no case")
    bob.expect("[message] alice: names have no case")

    alice.never_saw("alice: ")
    alice.leave()
    bob.leave()


def test_of_three_guests_only_those_get_a_message_whom_it_is_for(stack: Stack) -> None:
    """To one, and to everybody; with nobody else there, everybody is nobody, and that is no failure."""
    stack.start_server()
    alice = come_in(stack, "alice")
    say(alice, "ALL", "anybody there?")
    bob, carol = come_in(stack, "bob"), come_in(stack, "carol")

    say(alice, "bob", "psst bob")
    say(carol, "ALL", "hello from carol")
    for guest in (alice, bob):
        guest.expect("[message] carol: hello from carol")
    say(bob, "ALL", "hello from bob")
    for guest in (alice, carol):
        guest.expect("[message] bob: hello from bob")

    bob.saw_once("psst bob")
    carol.never_saw("psst bob")
    for guest in (alice, bob, carol):
        guest.never_saw("anybody there?")


def test_a_message_to_nobody_is_not_delivered(stack: Stack) -> None:
    """A name that nobody has, and one whose user has left."""
    stack.start_server()
    alice, bob = come_in(stack, "alice"), come_in(stack, "bob")
    say(alice, "zoe", "are you there?", "[error not_delivered]")

    bob.leave()
    say(alice, "bob", "are you still there?", "[error not_delivered]")
    say(come_in(stack, "bob"), "alice", "now I am")
    alice.expect_next("[message] bob: now I am")


def test_any_other_line_is_rejected_and_asked_for_again(stack: Stack) -> None:
    """Nothing was sent, and the next message goes its way."""
    stack.start_server()
    alice, bob = come_in(stack, "alice"), come_in(stack, "bob")

    for line in ("hello", "@bob", "@bob ", "@", "@not-a-name hello", "PM hello", "DM bob hello", "CH"):
        alice.type(line)
        alice.expect_next("[error usage]")
        alice.expect_next(f"[ask] {PROMPT}")
    say(alice, "bob", "the first one")
    bob.expect_next("[message] alice: the first one")


def test_a_recipient_that_vanishes_before_it_has_answered(stack: Stack) -> None:
    """The sender is told at once, the others are not disturbed, and the name is free."""
    stack.start_server()
    alice, carol = come_in(stack, "alice"), come_in(stack, "carol")
    bob = stack.stranger("bob")

    alice.type("@bob are you there?")
    bob.take("alice", "are you there?", answers=False)
    bob.close()
    alice.expect_next("[error not_delivered] @bob")
    alice.asked(PROMPT)
    come_in(stack, "bob")
    say(alice, "ALL", "so is everybody else")
    carol.expect_next("[message] alice: so is everybody else")


def test_a_recipient_that_answers_nothing_costs_its_sender_a_moment_and_nobody_else_anything(stack: Stack) -> None:
    """After 5 s the sender is told, and who has not answered is disconnected; meanwhile the others talk."""
    stack.start_server()
    alice, carol, dave = come_in(stack, "alice"), come_in(stack, "carol"), come_in(stack, "dave")
    bob = stack.stranger("bob")

    alice.type("@bob are you there?")
    bob.take("alice", "are you there?", answers=False)
    say(carol, "dave", "nobody waits for bob")
    dave.expect_next("[message] carol: nobody waits for bob")
    alice.never_saw("[error")
    alice.expect_next("[error not_delivered] @bob")
    assert bob.is_cut_off()
    come_in(stack, "bob")


def test_a_name_that_is_taken_malformed_reserved_or_an_accounts_is_asked_for_again(stack: Stack) -> None:
    """Each with what is wrong with it; with one that is free the guest comes in."""
    stack.start_server()
    stack.client("Carol").leave()
    come_in(stack, "alice")
    guest = stack.start_nameless_client(*REGISTER)

    for name, reason in {
        "not a name": "letters and digits",
        "x" * 33: "letters and digits",
        "Server": "reserved",
        "all": "reserved",
        "alice": "The name alice is taken",
        "ALICE": "The name ALICE is taken",
        "carol": "The name carol is taken",
    }.items():
        guest.asked("username")
        guest.type(name)
        guest.expect_next("[error bad_username]")
        guest.transcript.expect_somewhere(reason)
    guest.asked("username")
    guest.type("bob")
    guest.expect_next("[welcome guest] bob")
    guest.leave()


def test_a_name_that_is_refused_at_the_start_is_asked_for_again_too(stack: Stack) -> None:
    """Given as an argument; and whoever gives no other one leaves with exit code 3."""
    stack.start_server()
    come_in(stack, "alice")
    for name in ("alice", "all", "no-name"):
        guest = stack.start_client(name, *REGISTER)
        guest.expect_next("[error bad_username]")
        guest.asked("username")
        guest.end_input()
        assert guest.wait_exit() == (3 if name == "alice" else 2)


def test_nobody_can_register_an_account_by_the_name_of_a_guest(stack: Stack) -> None:
    """While the guest is there; afterwards the name is free."""
    stack.start_server()
    guest = come_in(stack, "alice")
    json = stack.start_client("alice")
    json.expect_next("[error bad_username]")
    assert json.wait_exit() == 3

    guest.leave()
    stack.client("alice")


def test_a_message_of_several_lines_and_one_in_arabic_with_emoji(stack: Stack) -> None:
    """Lengths are bytes, so every letter arrives, in both directions and in every dialect."""
    stack.start_server()
    alice, json = come_in(stack, "alice"), stack.client("json")
    bob = stack.stranger("bob")
    lines = "one\n\ntwo\nContent-length: 3\n\n  three  "

    for to in ("alice", "json"):
        assert bob.send(to, lines) == f"SEND {to}\n\n"
    # What could move the cursor is shown as an escape.
    shown = lines.replace("\n", "\\n")
    alice.expect(f"[message] bob: {shown}")
    json.expect(f"bob -> json: {shown}")

    for text in (ARABIC, f"{ARABIC} {EMOJI}"):
        alice.type(f"@bob {text}")
        bob.take("alice", text)
        alice.expect("[delivered] @bob")
        assert bob.send("alice", text) == "SEND alice\n\n"
        alice.expect(f"[message] bob: {text}")
    json.type(f"PM {ARABIC} {EMOJI}")
    bob.take("json", f"{ARABIC} {EMOJI}")


def test_guests_and_the_users_of_other_dialects_sit_in_one_room(stack: Stack) -> None:
    """Public and direct messages in both directions; guests are on the list, and their words are in the history."""
    stack.start_server()
    json = stack.client("json")
    frames = stack.client("frames", "--dialect", "frames")
    guest = come_in(stack, "guest")
    json.expect("[joined] guest")

    say(guest, "ALL", "hello from guest")
    for other in (json, frames):
        other.expect("guest: hello from guest")
    json.say("hello from json")
    guest.expect_next("[message] json: hello from json")
    frames.type("PM hello from frames")
    guest.expect_next("[message] frames: hello from frames")
    for other in (json, frames):
        say(guest, other.name, f"psst {other.name}")
        other.expect(f"psst {other.name}")
        other.type(f"DM guest psst from {other.name}")
        guest.expect_next(f"[message] {other.name}: psst from {other.name}")
    json.never_saw("psst frames")

    # An account that is not there gets it at the next login.
    frames.leave()
    say(guest, "frames", "see you later")
    guest.leave()
    json.expect("[left] guest")
    json.type("DM guest are you there?")
    json.expect("[error unknown_user]")
    stack.client("frames").expect("guest -> frames: see you later")
    json.type("CH")
    json.expect("guest: hello from guest")
    json.expect("guest -> json: psst json")


def test_the_server_and_the_username_are_asked_for_where_they_are_not_given(stack: Stack) -> None:
    """A server that can't be one is told, and asked for again."""
    stack.start_server()
    host, port = stack.server_address
    lost = stack.start_lost_client(*REGISTER)

    lost.asked("server")
    lost.type(f"{host} one")
    lost.expect_next("[error usage]")
    lost.asked("server")
    lost.type(f"{host} {port}")
    lost.asked("username")
    lost.type("alice")
    lost.expect_next("[welcome guest] alice")
    lost.asked(PROMPT)
    lost.leave()


def test_the_server_goes_away_and_comes_back_under_a_guest(stack: Stack) -> None:
    """The guest comes in again, says that something may have been missed, and goes on."""
    server = stack.start_server()
    alice, bob = come_in(stack, "alice"), come_in(stack, "bob")
    server.restart()
    for guest in (alice, bob):
        guest.expect("[lost]")
        guest.expect(f"[back] {guest.name}")
        guest.expect("[error lost] messages may have been missed")
        guest.asked(PROMPT)

    say(alice, "bob", "there we are again")
    bob.expect("[message] alice: there we are again")


def test_a_guest_that_is_killed_leaves_the_room(stack: Stack) -> None:
    """The others are told, and the name is free."""
    stack.start_server()
    json, alice = stack.client("json"), come_in(stack, "alice")
    json.expect("[joined] alice")

    alice.kill()
    json.expect("[left] alice")
    come_in(stack, "alice")
    json.expect("[joined] alice")
