"""The dialect register, over two sockets for a user: transactions, one room with the others, and bad input."""

from __future__ import annotations

import json
import random
import socket
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest
from integration.room import (
    DEADLINE_SECONDS,
    INCOMPLETE,
    MALFORMED,
    NOT_REGISTERED,
    NOT_SENT,
    Guest,
    RegisterPeer,
    deadline,
    message_to,
    sent,
    wait_for,
)
from reliability.peers import reset
from reliability.program import Program

if TYPE_CHECKING:
    import io
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from integration.room import Peer, Room

SIDES = ("TOSEND", "TORECV")
HEADER_MAX = 1_024
BODY_MAX = 65_536
# Well below the time that a receiver has for its answer.
AT_ONCE_SECONDS = 3.0
# For seeing that nothing comes, where no fence can be sent.
MOMENT_SECONDS = 0.3


def registered(side: str, name: str) -> bytes:
    return f"REGISTERED {side} {name}\n\n".encode()


def users(peer: Peer) -> list[str]:
    """Who is online, when all who asked for it before are in."""
    peer.until_fence()
    peer.ask(command="users")
    found: list[str] = peer.next("users")["users"]
    return found


def wait_until_gone(peer: Peer, name: str) -> None:
    """Until this user of json has been told."""
    while name not in peer.next("users")["left"]:
        pass


def messages(peer: Peer) -> list[str]:
    """What was said to a user of json."""
    return [each["message"] for each in peer.until_fence() if each["type"] in ("broadcast", "direct")]


def hears_nothing(peer: RegisterPeer) -> bool:
    """For one that can't be sent a fence to, for it waits."""
    peer.socket.settimeout(MOMENT_SECONDS)
    with pytest.raises(TimeoutError):
        peer.section()
    peer.socket.settimeout(DEADLINE_SECONDS)
    return True


@contextmanager
def answering(guest: Guest) -> Iterator[list[tuple[str, str]]]:
    """A guest who confirms whatever comes; gives what has come, which is all of it at the end of the block."""
    heard: list[tuple[str, str]] = []

    def confirm_all() -> None:
        while section := guest.receiving.section():
            header, _, body = section.partition(b"\n\n")
            sender = header.split()[1].decode()
            heard.append((sender, body.decode()))
            guest.confirm(sender)

    thread = threading.Thread(target=confirm_all, name=f"{guest.name} confirms")
    thread.start()
    try:
        yield heard
    finally:
        guest.sending.close()  # the server closes the other one
        thread.join()


# --- texts in parts ---


@pytest.mark.parametrize("length", ["bytes", "characters"])
def test_a_text_that_is_too_long_for_one_forward_comes_in_several(open_room: Callable[..., Room], length: str) -> None:
    room = open_room(register_forward_max=256, register_length=length)
    alice, bob, carol = room.enter_guest("alice"), room.enter_guest("bob"), room.enter("carol")
    text = "\u20ac" * 100 + "\r\nnext line"

    def section(first: str, body: str) -> bytes:
        return f"{first}\nContent-length: {len(body if length == 'characters' else body.encode())}\n\n{body}".encode()

    alice.sending.send(section("SEND ALL", text))
    for part in ("\u20ac" * 73, "\u20ac" * 27, "next line"):
        assert bob.receiving.piece() == section("FORWARD alice", part)
        bob.confirm("alice")
    assert alice.sending.section() == sent("ALL")
    assert carol.next("broadcast")["message"] == text, "in other dialects nothing is cut"


# --- registration ---


@pytest.mark.parametrize(("first", "second"), [SIDES, SIDES[::-1]])
def test_each_connection_is_registered_at_once_and_the_user_is_here_with_the_second(
    room: Room, first: str, second: str
) -> None:
    alice, one, other = room.enter("alice"), room.register_peer(), room.register_peer()
    assert one.register(first, "Bob") == registered(first, "Bob")
    assert users(alice) == ["alice"]
    alice.ask(command="DM", to="bob", message="too early")
    assert alice.next("error")["code"] == "unknown_user"
    assert other.register(second, "bOB") == registered(second, "bOB"), "each is told the name as it wrote it"
    while "Bob" not in (update := alice.next("users"))["joined"]:
        pass
    assert update["users"] == ["alice", "Bob"], "the name is spelled as it came first"


def test_both_connections_may_register_at_the_same_moment(room: Room) -> None:
    alice = room.enter("alice")
    guests = [room.guest(f"guest{number}") for number in range(20)]
    for guest in guests:
        guest.sending.send(f"REGISTER TOSEND {guest.name}\n\n".encode())
        guest.receiving.send(f"REGISTER TORECV {guest.name}\n\n".encode())
    for guest in guests:
        assert guest.sending.piece() == registered("TOSEND", guest.name)
        assert guest.receiving.piece() == registered("TORECV", guest.name)
    assert set(users(alice)) == {"alice", *(guest.name for guest in guests)}


MALFORMED_NAMES = {
    "none": "",
    "two": "bob carol",
    "other letters": "алиса",
    "over the limit": "b" * 33,
    "an escape": "\x1b[2J",
    "reserved": "All",
    "the server's": "SERVER",
}


@pytest.mark.parametrize("name", MALFORMED_NAMES.values(), ids=MALFORMED_NAMES)
@pytest.mark.parametrize("side", SIDES)
def test_a_name_that_can_not_be_one_is_refused_and_another_may_be_tried(room: Room, side: str, name: str) -> None:
    alice, peer = room.enter("alice"), room.register_peer()
    for _ in range(3):
        assert peer.register(side, name) == MALFORMED
    assert users(alice) == ["alice"]
    assert peer.register(side, "b" * 32) == registered(side, "b" * 32)


@pytest.mark.parametrize("side", SIDES)
def test_a_name_that_a_guest_has_is_refused_while_the_guest_has_it(room: Room, side: str) -> None:
    half = room.register_peer()
    half.register(side, "bob")
    late = room.register_peer()
    assert late.register(side, "BOB") == MALFORMED, "the other connection may still come, but not this one again"
    carol = room.enter_guest("carol")
    for each in SIDES:
        assert room.register_peer().register(each, "Carol") == MALFORMED
    assert carol.sending.until_fence() == b""
    carol.close()
    room.wait_for_connections(4)
    assert late.register(side, "carol") == registered(side, "carol"), "the name is free"


def test_both_connections_must_come_from_one_address(room: Room) -> None:
    one, stranger, other = room.register_peer(), room.register_peer("127.0.0.2"), room.register_peer()
    assert one.register("TOSEND", "bob") == registered("TOSEND", "bob")
    assert stranger.register("TORECV", "bob") == MALFORMED
    assert other.register("TORECV", "bob") == registered("TORECV", "bob")
    assert stranger.register("TORECV", "carol") == registered("TORECV", "carol")
    elsewhere = room.enter_guest("dave", "127.0.0.2")
    elsewhere.send("dave", "hello")
    assert elsewhere.take() == ("dave", "hello")
    assert elsewhere.sending.section() == sent("dave")


@pytest.mark.parametrize("side", SIDES)
def test_a_guest_can_not_have_the_name_of_an_account(room: Room, side: str) -> None:
    alice = room.enter("alice")
    peer = room.register_peer()
    assert peer.register(side, "ALICE") == MALFORMED
    alice.close()
    room.wait_for_connections(1)
    assert peer.register(side, "alice") == MALFORMED, "she is not online, and it is hers"
    assert peer.register(side, "bob") == registered(side, "bob")


def test_an_account_can_not_have_the_name_of_a_guest_while_it_is_here(room: Room) -> None:
    half, bob = room.register_peer(), room.enter_guest("bob")
    half.register("TORECV", "carol")
    json_peer, frames_peer = room.peer(), room.frames_peer()
    for name in ("BOB", "Carol"):
        for members in ({}, {"password": "secret"}):
            json_peer.ask(command="login", username=name, **members)
            assert json_peer.next("error")["code"] == "bad_username"
        frames_peer.command(name)
        assert frames_peer.next_command().startswith("ERROR bad_username ")
    assert bob.sending.until_fence() == b""
    bob.close()
    room.wait_for_connections(3)
    assert json_peer.login("bob")["account"] == "new"
    assert room.register_peer().register("TOSEND", "bob") == MALFORMED


def test_a_connection_is_registered_once(room: Room) -> None:
    bob, half = room.enter_guest("bob"), room.register_peer()
    half.register("TOSEND", "carol")
    for peer in (bob.sending, bob.receiving, half):
        for side in SIDES:
            assert peer.register(side, "dave") == MALFORMED
    assert room.register_peer().register("TOSEND", "dave") == registered("TOSEND", "dave")
    assert bob.say("nobody", "still bob") == NOT_SENT


CLOSED_TO_GUESTS = [{"guests": "off"}, {"registration": "closed"}, {"registration": "closed", "guests": "off"}]


@pytest.mark.parametrize("settings", CLOSED_TO_GUESTS)
def test_where_no_guests_are_let_in_nobody_is_registered(
    open_room: Callable[..., Room], settings: dict[str, str]
) -> None:
    room = open_room(**settings)
    peer = room.register_peer()
    for side in SIDES:
        assert peer.register(side, "bob") == NOT_REGISTERED
    assert peer.register("TOSEND", "") == MALFORMED


@pytest.mark.parametrize("settings", [{"guests": "on"}, {"guests": "on", "registration": "closed"}, {}])
def test_where_guests_are_let_in_they_are(open_room: Callable[..., Room], settings: dict[str, str]) -> None:
    assert open_room(**settings).enter_guest("bob").say("bob", "") == NOT_SENT


@pytest.mark.parametrize("side", SIDES)
def test_half_a_user_is_told_and_closed_when_its_time_is_over(open_room: Callable[..., Room], side: str) -> None:
    room = open_room(login_seconds=0.4)
    alice, half, refused = room.enter("alice"), room.register_peer(), room.register_peer()
    assert half.register(side, "bob") == registered(side, "bob")
    assert refused.register(side, "all") == MALFORMED
    assert half.rest() == NOT_REGISTERED
    assert refused.rest() == NOT_REGISTERED
    half.close()
    refused.close()
    room.wait_for_connections(1)
    assert room.enter_guest("bob").say("nobody", "the name is free") == NOT_SENT
    assert [each for each in alice.until_fence() if each["type"] != "users"] == []


def test_who_is_here_may_be_silent_for_longer_than_registering_may_take(open_room: Callable[..., Room]) -> None:
    """Also on the connection that waited for the other one, and had not been here in time but for that one."""
    room = open_room(login_seconds=0.5)
    guest = room.enter_guest("bob")
    for peer in (guest.sending, guest.receiving):
        peer.socket.settimeout(1.2)
        with pytest.raises(TimeoutError):
            peer.section()
        peer.socket.settimeout(DEADLINE_SECONDS)
    assert guest.say("nobody", "hello") == NOT_SENT
    assert guest.receiving.until_fence() == b""


# --- transactions ---


def test_a_message_to_one_is_answered_when_it_has_come(room: Room) -> None:
    """Promise of the wire, to the byte, for peers that read once for each answer."""
    alice, bob, carol = room.enter_guest("alice"), room.enter_guest("bob"), room.enter_guest("carol")
    alice.sending.send(b"SEND BoB\nContent-length: 7\n\nh\xc3\xa9llo!")
    assert bob.receiving.piece() == b"FORWARD alice\nContent-length: 7\n\nh\xc3\xa9llo!"
    assert hears_nothing(alice.sending), "he has not answered"
    bob.receiving.send(b"RECEIVED alice\n\n")
    assert alice.sending.piece() == b"SEND BoB\n\n"
    for peer in (alice.sending, alice.receiving, bob.sending, bob.receiving, carol.sending, carol.receiving):
        assert peer.until_fence() == b""


@pytest.mark.parametrize("name", ["ALL", "all", "All"])
def test_a_message_to_all_is_answered_once_when_it_has_come_to_everybody(room: Room, name: str) -> None:
    alice, dave, erin = room.enter_guest("alice"), room.enter("dave"), room.enter_frames("erin")
    others = [room.enter_guest("bob"), room.enter_guest("carol")]
    alice.send(name, "hello")
    assert [other.forwarded() for other in others] == [("alice", "hello")] * 2
    assert dave.next("broadcast")["message"] == "hello"
    assert erin.next_message()[-1] == "hello"
    others[1].confirm("alice")
    assert others[1].receiving.until_fence() == b""
    assert hears_nothing(alice.sending), "one has not answered"
    others[0].confirm("alice")
    assert alice.sending.piece() == sent(name)
    assert alice.sending.until_fence() == alice.receiving.until_fence() == b"", "what she said is not for herself"


def test_a_message_to_nobody_but_oneself_has_come_to_all(room: Room) -> None:
    alice = room.enter_guest("alice")
    with deadline(AT_ONCE_SECONDS, "an answer that waits for nobody"):
        assert alice.say("ALL", "is anybody here?") == sent("ALL")
    room.enter("bob")
    room.register_peer().register("TORECV", "half")
    assert alice.say("ALL", "and now?") == sent("ALL")
    assert alice.receiving.until_fence() == b""


def test_a_message_to_oneself_comes_and_is_answered(room: Room) -> None:
    alice = room.enter_guest("alice")
    alice.send("alice", "note")
    assert alice.take() == ("alice", "note")
    assert alice.sending.section() == sent("alice")


def test_a_receiver_is_given_one_message_at_a_time(room: Room) -> None:
    alice, carol, bob = room.enter("alice"), room.enter_guest("carol"), room.enter_guest("bob")
    for number in range(10):
        alice.say(f"public {number}")
        assert carol.take() == ("alice", f"public {number}")
    carol.send("bob", "direct")
    for number in range(10):
        assert bob.forwarded() == ("alice", f"public {number}")
        assert bob.receiving.until_fence() == b"", "the next one comes behind the answer"
        bob.confirm("alice")
    assert bob.take() == ("carol", "direct")
    assert carol.sending.section() == sent("bob")


def test_each_message_comes_in_one_piece_and_alone(room: Room) -> None:
    """For a receiver that reads once, and compares what it gets."""
    alice, bob = room.enter("alice"), room.enter_guest("bob")
    texts = [f"{number} ".ljust(number * 3, "x") for number in range(300)]
    alice.send(b"".join(json.dumps({"command": "PM", "message": text}).encode() + b"\n" for text in texts))
    for text in texts:
        assert bob.receiving.piece() == f"FORWARD alice\nContent-length: {len(text)}\n\n{text}".encode()
        bob.confirm("alice")
    assert bob.receiving.until_fence() == b""


def test_many_send_to_one_at_the_same_time_and_each_is_answered(room: Room) -> None:
    """A thread each, a peer that answers each message, and nothing that is lost, doubled or out of a sender's order."""
    bob = room.enter_guest("bob")
    guests = [room.enter_guest(f"guest{number}") for number in range(10)]
    each = 30
    answers: dict[str, list[bytes]] = {}

    def talk(guest: Guest) -> None:
        answers[guest.name] = [guest.say("bob", f"text {number}") for number in range(each)]

    threads = [threading.Thread(target=talk, args=(guest,), name=guest.name) for guest in guests]
    for thread in threads:
        thread.start()
    heard = [bob.take() for _ in range(each * len(guests))]
    for thread in threads:
        thread.join()
    assert answers == {guest.name: [sent("bob")] * each for guest in guests}
    for guest in guests:
        assert [text for sender, text in heard if sender == guest.name] == [f"text {number}" for number in range(each)]
    assert bob.receiving.until_fence() == b""


def test_all_send_to_all_at_the_same_time_and_nobody_waits_for_ever(room: Room) -> None:
    guests = [room.enter_guest(f"guest{number}") for number in range(5)]
    listener = room.enter("listener")
    answers: dict[str, list[bytes]] = {}

    def talk(guest: Guest) -> None:
        with answering(guest) as heard:
            answers[guest.name] = [guest.say("ALL", f"{guest.name} says {number}") for number in range(10)]
            wait_for(lambda: len(heard) == 10 * (len(guests) - 1), f"{guest.name} hears all")
            everybody_heard.wait(DEADLINE_SECONDS)
        hears[guest.name] = [text for _, text in heard]

    hears: dict[str, list[str]] = {}
    everybody_heard = threading.Barrier(len(guests))
    threads = [threading.Thread(target=talk, args=(guest,), name=guest.name) for guest in guests]
    for thread in threads:
        thread.start()
    said = [listener.next("broadcast")["message"] for _ in range(10 * len(guests))]
    for thread in threads:
        thread.join()
    assert answers == {guest.name: [sent("ALL")] * 10 for guest in guests}
    for guest in guests:
        assert hears[guest.name] == [text for text in said if not text.startswith(guest.name)], "in the room's order"


def test_two_who_send_to_each_other_at_the_same_time_are_both_answered(room: Room) -> None:
    alice, bob = room.enter_guest("alice"), room.enter_guest("bob")
    for number in range(50):
        alice.send("bob", f"ping {number}")
        bob.send("alice", f"pong {number}")
        assert alice.take() == ("bob", f"pong {number}")
        assert bob.take() == ("alice", f"ping {number}")
        assert [alice.sending.section(), bob.sending.section()] == [sent("bob"), sent("alice")]


def test_what_is_sent_ahead_is_answered_in_order(room: Room) -> None:
    """Also behind the registration, in one piece."""
    bob, alice = room.enter_guest("bob"), room.guest("alice")
    alice.receiving.register("TORECV", "alice")
    alice.sending.send(
        b"REGISTER TOSEND alice\n\n"
        + message_to("bob", "one")
        + message_to("nobody", "two")
        + message_to("bob", "three")
        + message_to("ALL", "four")
        + b"REGISTER TOSEND alice\n\n"
        + message_to("bob", "")
    )
    assert [bob.take() for _ in range(3)] == [("alice", "one"), ("alice", "three"), ("alice", "four")]
    assert [alice.sending.section() for _ in range(7)] == [
        registered("TOSEND", "alice"),
        sent("bob"),
        NOT_SENT,
        sent("bob"),
        sent("ALL"),
        MALFORMED,
        NOT_SENT,
    ]


def test_who_says_all_and_ends_its_side_is_answered_all(room: Room) -> None:
    """As from a shell."""
    alice, bob = room.enter_guest("alice"), room.enter_guest("bob")
    with answering(bob) as heard:
        alice.sending.send(b"".join(message_to("bob", f"text {number}") for number in range(20)))
        alice.sending.socket.shutdown(socket.SHUT_WR)
        assert alice.sending.rest() == sent("bob") * 20
        assert alice.receiving.rest() == b"", "with the one the other ends"
    assert heard == [("alice", f"text {number}") for number in range(20)]


# --- one room with json and frames ---


def test_json_and_frames_users_and_guests_hear_each_other(room: Room) -> None:
    alice, bob, carol = room.enter("alice"), room.enter_frames("bob"), room.enter_guest("Carol")
    assert alice.say("from json")["id"] == 1
    assert carol.take() == ("alice", "from json")
    assert bob.next_message()[-1] == "from json"
    assert bob.say("from\nframes") == 2
    assert carol.take() == ("bob", "from\nframes")
    assert alice.next("broadcast")["message"] == "from\nframes"
    assert carol.say("all", "from register") == sent("all")
    heard = alice.next("broadcast")
    assert (heard["from"], heard["id"], heard["message"]) == ("Carol", 3, "from register")
    kind, sender, number, _, text = bob.next_message()
    assert [kind, sender, number, text] == ["PUBLIC", "Carol", "3", "from register"]
    assert carol.receiving.until_fence() == b""


def test_direct_messages_go_both_ways_and_to_nobody_else(room: Room) -> None:
    alice, bob, carol, dave = (
        room.enter("alice"),
        room.enter_frames("bob"),
        room.enter_guest("carol"),
        room.enter_guest("dave"),
    )
    alice.ask(command="DM", to="CAROL", message="psst", nonce="n")
    confirmation = {"type": "sent", "id": 1, "status": "sent", "nonce": "n", "looks_public": True}
    assert alice.next("sent") == confirmation, "whether she answers is not her sender's business"
    alice.ask(command="DM", to="CAROL", message="psst", nonce="n")
    assert alice.next("sent") == confirmation
    alice.ask(command="DM", to="bob", message="psst")
    assert bob.next_message()[:2] == ["DIRECT", "alice"]
    assert "looks_public" not in alice.next("sent"), "he can see it"
    assert carol.forwarded() == ("alice", "psst")
    carol.confirm("alice")
    assert bob.whisper("carol", "psst from frames") == 3
    assert carol.take() == ("bob", "psst from frames")
    assert carol.say("ALICE", "psst yourself") == sent("ALICE")
    heard = alice.next("direct")
    assert (heard["from"], heard["to"], heard["id"], heard["message"]) == ("carol", "alice", 4, "psst yourself")
    assert carol.say("bob", "you too") == sent("bob")
    assert bob.next_message()[-1] == "you too"
    assert dave.receiving.until_fence() == b""
    assert messages(alice) == []


def test_a_message_to_somebody_who_has_an_account_and_is_not_online_counts_when_it_is_stored(room: Room) -> None:
    alice = room.enter("alice")
    bob = room.enter_guest("bob")
    alice.close()
    room.wait_for_connections(2)
    assert bob.say("alice", "while you were away") == sent("alice")
    heard = room.enter("alice").next("direct")
    assert (heard["from"], heard["message"]) == ("bob", "while you were away")


def test_json_and_frames_users_see_guests_come_and_go(room: Room) -> None:
    alice, bob = room.enter("alice"), room.enter_frames("bob")
    carol = room.enter_guest("carol")
    while "carol" not in (update := alice.next("users"))["joined"]:
        pass
    assert update["users"] == ["alice", "bob", "carol"]
    bob.command("USERS")
    assert bob.next_command() == "ONLINE alice bob carol"
    assert carol.receiving.until_fence() == b"", "nobody tells a guest"
    carol.receiving.close()
    wait_until_gone(alice, "carol")
    assert bob.until_fence() == []
    bob.command("USERS")
    assert bob.next_command() == "ONLINE alice bob"


def test_a_guest_who_is_not_here_can_not_be_written_to(room: Room) -> None:
    alice, bob, carol = room.enter("alice"), room.enter_guest("bob"), room.enter_guest("carol")
    room.register_peer().register("TORECV", "half")
    carol.close()
    wait_until_gone(alice, "carol")
    for name in ("carol", "half", "nobody"):
        assert bob.say(name, "hello") == NOT_SENT
        alice.ask(command="DM", to=name, message="hello")
        assert alice.next("error")["code"] == "unknown_user"
    room.wait_for_connections(4)
    assert room.enter_guest("carol").receiving.until_fence() == b"", "nothing waits for a guest"


def test_what_guests_say_is_in_the_history(room: Room) -> None:
    alice, bob = room.enter("alice"), room.enter_guest("Bob")
    bob.say("ALL", "public")
    bob.say("alice", "direct")
    bob.close()
    room.wait_for_connections(1)
    other = room.enter_guest("BOB")
    other.say("ALL", "another bob")
    room.enter("carol").ask(command="CH")
    alice.ask(command="CH")
    told = alice.next("history")["messages"]
    assert [(each["type"], each["from"], each["message"]) for each in told] == [
        ("broadcast", "Bob", "public"),
        ("direct", "Bob", "direct"),
        ("broadcast", "BOB", "another bob"),
    ]


# --- receivers who do not confirm ---


@pytest.mark.usefixtures("hasty")
def test_a_receiver_that_answers_nothing_is_disconnected_and_the_sender_is_told(
    open_room: Callable[..., Room], log: io.StringIO
) -> None:
    room = open_room()
    dave, alice, bob = room.enter("dave"), room.enter_guest("alice"), room.enter_guest("bob")
    alice.send("bob", "hello")
    assert bob.forwarded() == ("alice", "hello")
    assert bob.receiving.section() == b"", "closed"
    assert bob.sending.section() == b"", "and the other one with it"
    assert alice.sending.piece() == NOT_SENT
    wait_until_gone(dave, "bob")
    assert "disconnected reason=ack_timeout user=bob" in log.getvalue()
    bob.close()
    room.wait_for_connections(3)
    again = room.enter_guest("bob")
    alice.send("bob", "hello again")
    assert again.take() == ("alice", "hello again"), "not what was sent to him before"
    assert alice.sending.section() == sent("bob")


@pytest.mark.usefixtures("hasty")
def test_who_does_not_answer_a_message_of_json_is_disconnected_as_well(open_room: Callable[..., Room]) -> None:
    room = open_room()
    alice, bob = room.enter("alice"), room.enter_guest("bob")
    assert alice.say("hello")["id"] == 1
    wait_until_gone(alice, "bob")
    assert bob.receiving.rest() == b"FORWARD alice\nContent-length: 5\n\nhello"
    assert bob.sending.rest() == b""


@pytest.mark.usefixtures("hasty")
def test_of_many_receivers_only_the_deaf_one_is_disconnected(open_room: Callable[..., Room]) -> None:
    room = open_room()
    alice, bob, deaf = room.enter_guest("alice"), room.enter_guest("bob"), room.enter_guest("deaf")
    alice.send("ALL", "hello")
    assert bob.take() == ("alice", "hello")
    assert alice.sending.section() == NOT_SENT
    assert deaf.is_over()
    alice.send("ALL", "hello again")
    assert bob.take() == ("alice", "hello again")
    assert alice.sending.section() == sent("ALL")


@pytest.mark.usefixtures("hasty")
def test_a_message_that_waits_behind_others_for_too_long_is_answered_with_an_error(
    open_room: Callable[..., Room],
) -> None:
    """A receiver who is slow, but answers each in time, stays; a sender does not wait for longer than for one."""
    room = open_room()
    carol, alice, bob = room.enter("carol"), room.enter_guest("alice"), room.enter_guest("bob")
    for number in range(3):
        carol.ask(command="DM", to="bob", message=f"{number}")
        carol.next("sent")
    alice.send("bob", "the fourth")
    for number in range(3):
        assert bob.forwarded() == ("carol", f"{number}")
        bob.receiving.socket.settimeout(0.5)
        with pytest.raises(TimeoutError):
            bob.receiving.section()
        bob.receiving.socket.settimeout(DEADLINE_SECONDS)
        bob.confirm("carol")
    assert alice.sending.section() == NOT_SENT
    assert bob.take() == ("alice", "the fourth")
    alice.send("bob", "the fifth")
    assert bob.take() == ("alice", "the fifth")
    assert alice.sending.section() == sent("bob")


@pytest.mark.parametrize("answer", [b"ERROR 103 Header Incomplete\n\n", b"ERROR 103 Header incomplete\n\n"])
def test_a_receiver_that_answers_an_error_stays_and_the_sender_is_told_at_once(room: Room, answer: bytes) -> None:
    alice, bob, carol = room.enter_guest("alice"), room.enter_guest("bob"), room.enter_guest("carol")
    alice.send("ALL", "hello")
    assert bob.forwarded() == carol.forwarded() == ("alice", "hello")
    bob.receiving.send(answer)
    with deadline(AT_ONCE_SECONDS, "the answer"):
        assert alice.sending.piece() == NOT_SENT
    carol.confirm("alice")
    assert bob.receiving.until_fence() == carol.receiving.until_fence() == b""
    alice.send("bob", "hello again")
    assert bob.take() == ("alice", "hello again")
    assert alice.sending.piece() == sent("bob")


@pytest.mark.parametrize("end", [RegisterPeer.close, reset])
@pytest.mark.parametrize("half", ["sending", "receiving"])
def test_when_a_receiver_vanishes_before_its_answer_the_sender_is_told_at_once(
    room: Room, half: str, end: Callable[[RegisterPeer], None]
) -> None:
    alice, bob, carol = room.enter_guest("alice"), room.enter_guest("bob"), room.enter_guest("carol")
    alice.send("ALL", "hello")
    assert bob.forwarded() == ("alice", "hello")
    assert carol.take() == ("alice", "hello")
    end(getattr(bob, half))
    with deadline(AT_ONCE_SECONDS, "the answer"):
        assert alice.sending.piece() == NOT_SENT
    alice.send("carol", "hello again")
    assert carol.take() == ("alice", "hello again")
    assert alice.sending.section() == sent("carol")


@pytest.mark.parametrize("half", ["sending", "receiving"])
def test_a_sender_that_vanishes_before_its_answer_has_sent_all_the_same(room: Room, half: str) -> None:
    alice, bob, carol = room.enter_guest("alice"), room.enter_guest("bob"), room.enter("carol")
    alice.send("bob", "hello")
    assert bob.forwarded() == ("alice", "hello")
    getattr(alice, half).close()
    bob.confirm("alice")
    wait_until_gone(carol, "alice")
    assert bob.receiving.until_fence() == b""
    carol.ask(command="DM", to="bob", message="next")
    assert bob.take() == ("carol", "next")


@pytest.mark.parametrize("answer", ["RECEIVED ALICE\n\n", "RECEIVED \n\n", "RECEIVED\n\n", "received alice \r\n\r\n"])
def test_an_answer_may_have_the_name_in_any_case_or_none(room: Room, answer: str) -> None:
    alice, bob = room.enter_guest("alice"), room.enter_guest("bob")
    alice.send("bob", "hello")
    bob.forwarded()
    bob.receiving.send(answer.encode())
    assert alice.sending.section() == sent("bob")


def test_an_answer_that_nobody_waits_for_is_passed_over(room: Room, log: io.StringIO) -> None:
    """To answer it would make two peers answer each other for ever."""
    alice, bob = room.enter_guest("alice"), room.enter_guest("bob")
    for peer in (alice.sending, alice.receiving, bob.receiving):
        peer.send(b"RECEIVED bob\n\nERROR 103 Header Incomplete\n\nRECEIVED\n\n")
        assert peer.until_fence() == b""
    alice.send("bob", "hello")
    bob.forwarded()
    bob.confirm("carol")
    bob.sending.send(b"RECEIVED alice\n\n")
    assert bob.sending.until_fence() == bob.receiving.until_fence() == b""
    assert hears_nothing(alice.sending), "neither was his answer"
    bob.confirm("alice")
    bob.confirm("alice")
    assert alice.sending.section() == sent("bob")
    assert bob.receiving.until_fence() == b""
    alice.send("bob", "hello again")
    assert bob.forwarded() == ("alice", "hello again")
    bob.receiving.send(b"ERROR 103 Header Incomplete\n\n")
    assert alice.sending.section() == NOT_SENT
    assert log.getvalue().count("ack ignored") == 12


def test_nothing_is_sent_on_the_connection_for_receiving(room: Room) -> None:
    alice, bob = room.enter_guest("alice"), room.enter_guest("bob")
    alice.receiving.send(message_to("bob", "hello") + message_to("ALL", "hello"))
    assert alice.receiving.section() + alice.receiving.section() == NOT_SENT * 2
    assert bob.receiving.until_fence() == b""


# --- sending before the other connection is there ---


def test_who_sends_before_the_other_connection_is_there_is_waited_for(room: Room) -> None:
    bob, alice = room.enter_guest("bob"), room.guest("alice")
    assert alice.sending.register("TOSEND", "alice") == registered("TOSEND", "alice")
    alice.sending.send(message_to("bob", "early") + message_to("bob", "also early"))
    assert hears_nothing(alice.sending)
    assert bob.receiving.until_fence() == b""
    assert alice.receiving.register("TORECV", "alice") == registered("TORECV", "alice")
    assert [bob.take(), bob.take()] == [("alice", "early"), ("alice", "also early")]
    assert alice.sending.section() + alice.sending.section() == sent("bob") * 2


@pytest.mark.usefixtures("hasty")
def test_who_sends_and_never_registers_the_other_connection_is_told_and_may_go_on(
    open_room: Callable[..., Room],
) -> None:
    room = open_room()
    bob, alice = room.enter_guest("bob"), room.guest("alice")
    alice.sending.register("TOSEND", "alice")
    alice.send("bob", "in vain")
    assert alice.sending.section() == NOT_REGISTERED
    assert bob.receiving.until_fence() == b""
    assert alice.receiving.register("TORECV", "alice") == registered("TORECV", "alice")
    alice.send("bob", "now")
    assert bob.take() == ("alice", "now")
    assert alice.sending.section() == sent("bob")


# --- the end of a user ---


@pytest.mark.parametrize("end", [RegisterPeer.close, reset])
@pytest.mark.parametrize("half", ["sending", "receiving"])
def test_with_either_connection_the_other_ends_and_the_name_is_free(
    room: Room, half: str, end: Callable[[RegisterPeer], None]
) -> None:
    alice, bob = room.enter("alice"), room.enter_guest("bob")
    end(getattr(bob, half))
    other = bob.receiving if half == "sending" else bob.sending
    assert other.rest() == b""
    wait_until_gone(alice, "bob")
    room.wait_for_connections(1)
    assert room.enter_guest("bob", "127.0.0.2")


def test_names_are_freed_however_often_they_are_used(room: Room) -> None:
    """Each end is another one: of this side, of that one, of both at once, in the middle of a word."""
    alice = room.enter("alice")
    for number in range(40):
        bob = room.enter_guest("bob")
        alice.ask(command="DM", to="bob", message="hello")
        alice.next("sent")
        if number % 4 == 1:
            bob.sending.send(b"SEND alice\nContent-le")
            bob.sending.close()
        if number % 4 == 2:
            bob.take()
            bob.receiving.close()
        if number % 4 == 3:
            reset(bob.receiving)
            bob.sending.close()
        bob.close()
        room.wait_for_connections(1)
    assert room.server._acked_delivery._windows == set()
    assert room.server._acked_delivery._due == {}


@pytest.mark.usefixtures("hasty")
def test_those_who_fight_for_one_name_leave_nothing_behind(
    open_room: Callable[..., Room], chance: random.Random
) -> None:
    """Of each side one at a time has it, whoever that is, and whatever is under way when it ends."""
    room = open_room()
    answers: set[bytes] = set()

    def fight(own: random.Random) -> None:
        for _ in range(20):
            bob = Guest(room.server.port, "bob")
            halves = [("TOSEND", bob.sending), ("TORECV", bob.receiving)]
            own.shuffle(halves)
            for side, peer in halves:
                peer.send(f"REGISTER {side} bob\n\n".encode())
                if own.random() < 0.7:
                    answers.add(peer.section())
            bob.send(own.choice(["bob", "ALL"]), "hello")
            for _, peer in halves:
                own.choice([RegisterPeer.close, reset])(peer)

    threads = [threading.Thread(target=fight, args=(random.Random(chance.random()),)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    room.wait_for_connections(0)
    assert {registered("TOSEND", "bob"), registered("TORECV", "bob"), MALFORMED} <= answers
    assert not room.server._journal._is_claimed("bob")
    assert room.server._acked_delivery._windows == set()
    assert room.server._acked_delivery._due == {}
    assert room.server._presence.names() == ()
    assert room.enter_guest("bob").sending.until_fence() == b""


def test_half_a_user_that_ends_frees_its_name(room: Room) -> None:
    for _ in range(20):
        for side in SIDES:
            half = room.register_peer()
            assert half.register(side, "bob") == registered(side, "bob")
            half.close()
            room.wait_for_connections(0)


def test_when_the_last_guest_has_left_the_server_says_that_it_waits(room: Room, log: io.StringIO) -> None:
    bob = room.enter_guest("bob")
    bob.sending.close()
    wait_for(lambda: log.getvalue().count("Waiting for connection on port ") == 2, "it waits again")
    *_, left, _ = log.getvalue().splitlines()
    assert left.startswith("[INFO] logout user=bob")


# --- how it is cut into pieces, and written ---


def test_everything_may_come_byte_by_byte(room: Room) -> None:
    alice, bob = room.guest("alice"), room.enter_guest("bob")
    alice.receiving.register("TORECV", "alice")
    for byte in b"REGISTER TOSEND alice\n\n" + message_to("bob", "héllo"):
        alice.sending.send(bytes([byte]))
    assert bob.forwarded() == ("alice", "héllo")
    for byte in b"RECEIVED alice\n\n":
        bob.receiving.send(bytes([byte]))
    assert alice.sending.section() + alice.sending.section() == registered("TOSEND", "alice") + sent("bob")


# What is sent, and the text that comes.
FORGIVEN = {
    "white space in the empty line": (b"SEND bob\nContent-length: 5\n \nhello", "hello"),
    "line ends of two bytes": (b"SEND bob\r\nContent-length: 5\r\n\r\nhello", "hello"),
    "a space behind the name": (b"SEND bob \nContent-length: 5\n\nhello", "hello"),
    "a newline that is not counted": (b"SEND bob\nContent-length: 5\n\nhello\n", "hello"),
    "several of them": (b"\n\r\n \nSEND bob\nContent-length: 5\n\nhello\r\n\n", "hello"),
    "a newline that is counted": (b"SEND bob\nContent-length: 6\n\nhello\n", "hello\n"),
    "a space before the length, and one before the body": (b"SEND bob\n Content-length: 5\n\n hello", "hello"),
    "another case": (b"send bob\nCONTENT-LENGTH:5\n\nhello", "hello"),
    "usual case": (b"SEND bob\nContent-Length: 5\n\nhello", "hello"),
    "the same length twice": (b"SEND bob\nContent-length: 5\nContent-length: 5\n\nhello", "hello"),
    "other lines": (b"SEND bob\nDate: today\nContent-length: 5\nX: y\n\nhello", "hello"),
    "a header in the body": (b"SEND bob\nContent-length: 22\n\nRECEIVED bob\n\nSEND bob", "RECEIVED bob\n\nSEND bob"),
}


@pytest.mark.parametrize(("written", "text"), FORGIVEN.values(), ids=FORGIVEN)
def test_what_is_written_in_other_ways_is_read_too(room: Room, written: bytes, text: str) -> None:
    alice, bob = room.enter_guest("alice"), room.enter_guest("bob")
    for _ in range(2):
        alice.sending.send(written)
        assert bob.take() == ("alice", text)
        assert alice.sending.section() == sent("bob")
    assert alice.sending.until_fence() == bob.receiving.until_fence() == b""


def test_registration_may_be_written_in_other_ways_too(room: Room) -> None:
    for number, form in enumerate((b"REGISTER %b %b \n \n", b"REGISTER %b %b\r\n\r\n", b"REGISTER %b  %b\n\n\n")):
        for side in SIDES:
            peer = room.register_peer()
            peer.send(form % (side.encode(), b"bob%d" % number))
            assert peer.section() == registered(side, f"bob{number}")


def test_a_message_of_exactly_the_limit_passes(room: Room) -> None:
    alice, bob = room.enter_guest("alice"), room.enter_guest("bob")
    text = "é" * 4_096
    alice.send("bob", text)
    assert bob.take() == ("alice", text)
    assert alice.sending.section() == sent("bob")


# --- settings ---


def test_the_word_that_confirms_may_be_set(open_room: Callable[..., Room]) -> None:
    room = open_room(register_delivered="SENT")
    alice, bob = room.enter_guest("alice"), room.enter_guest("bob")
    for name in ("bob", "ALL"):
        alice.send(name, "hello")
        bob.take()
        assert alice.sending.piece() == f"SENT {name}\n\n".encode()
    assert alice.say("nobody", "hello") == NOT_SENT


def test_lengths_may_count_characters(open_room: Callable[..., Room]) -> None:
    room = open_room(register_length="characters")
    alice, bob, carol = room.enter_guest("alice"), room.enter_guest("bob"), room.enter("carol")
    # Of one to four bytes.
    text = "aé€😀"
    alice.sending.send(f"SEND bob\nContent-length: 4\n\n{text}".encode() * 2)
    for _ in range(2):
        assert bob.receiving.piece() == f"FORWARD alice\nContent-length: 4\n\n{text}".encode()
        bob.confirm("alice")
        assert alice.sending.piece() == sent("bob")
    carol.say("€" * 2_000)
    assert bob.receiving.socket.recv(1_024, socket.MSG_PEEK).startswith(b"FORWARD carol\nContent-length: 2000\n\n")


# --- bad input ---

# What is sent on the connection for sending, whose user is here. It lives on after each of them.
UNSENT: dict[str, bytes] = {
    "an empty message": b"SEND bob\nContent-length: 0\n\n",
    "white space alone": b"SEND bob\nContent-length: 4\n\n \n\t ",
    "over the limit": b"SEND bob\nContent-length: 8193\n\n" + b"x" * 8_193,
    "over the limit in letters of two bytes": b"SEND bob\nContent-length: 8194\n\n" + "é".encode() * 4_097,
    "the longest that is read": b"SEND ALL\nContent-length: 65536\n\n" + b"x" * BODY_MAX,
    "not UTF-8": b"SEND bob\nContent-length: 2\n\n\xff\xfe",
    "a cut letter": b"SEND bob\nContent-length: 1\n\n\xc3",
    "half a surrogate": b"SEND bob\nContent-length: 3\n\n\xed\xa0\x80",
    "to nobody": b"SEND nobody\nContent-length: 5\n\nhello",
    "to no name": b"SEND \nContent-length: 5\n\nhello",
    "to two names": b"SEND bob bob\nContent-length: 5\n\nhello",
    "to a name that is not UTF-8": b"SEND \xff\nContent-length: 5\n\nhello",
    "to a name that is no name": b"SEND " + b"x" * 900 + b"\nContent-length: 5\n\nhello",
    "an unknown word": b"LIST bob\n\n",
    "an unknown word with a body": b"SHOUT bob\nContent-length: 5\n\nhello",
    "what only the server says": b"FORWARD bob\nContent-length: 5\n\nhello",
    "json": b'{"command":"PM","message":"hello"}\n\n',
}

# The next header can't be found: the connection is closed.
CLOSED: dict[str, bytes] = {
    "no length": b"SEND bob\n\nhello",
    "an empty length": b"SEND bob\nContent-length:\n\nhello",
    "a negative length": b"SEND bob\nContent-length: -5\n\nhello",
    "a signed length": b"SEND bob\nContent-length: +5\n\nhello",
    "a length that is no number": b"SEND bob\nContent-length: five\n\nhello",
    "a length in other digits": "SEND bob\nContent-length: \u0665\n\nhello".encode(),
    "a length with a point": b"SEND bob\nContent-length: 5.0\n\nhello",
    "a length in hexadecimal": b"SEND bob\nContent-length: 0x5\n\nhello",
    "a length without end": b"SEND bob\nContent-length: " + b"9" * 900 + b"\n\nhello",
    "two lengths": b"SEND bob\nContent-length: 5\nContent-length: 4\n\nhello",
    "another word": b"SEND bob\nLength: 5\n\nhello",
    "a length just over the limit": b"SEND bob\nContent-length: 65537\n\nhello",
    "an endless header": b"SEND bob\n" + b"x" * HEADER_MAX,
    "an endless name": b"SEND " + b"b" * 70_000,
    "more than was counted": b"SEND bob\nContent-length: 5\n\nhello" + b"x" * (HEADER_MAX + 1),
    "a header over the limit": b"SEND bob\nContent-length: 5\n" + b"x" * HEADER_MAX + b"\n\nhello",
}

# Before a registration. The connection lives on after each of them.
OUTSIDE: dict[str, bytes] = {
    "a message": b"SEND bob\nContent-length: 5\n\nhello",
    "an empty message": b"SEND bob\nContent-length: 0\n\n",
    "a message that is not UTF-8": b"SEND bob\nContent-length: 1\n\n\xff",
    "a message over the limit": b"SEND bob\nContent-length: 8193\n\n" + b"x" * 8_193,
    "an answer": b"RECEIVED bob\n\n",
    "an error": b"ERROR 103 Header Incomplete\n\n",
    "a side that is none": b"REGISTER BOTH bob\n\n",
    "no side": b"REGISTER bob\n\n",
}


def check_nobody_noticed(bob: Guest, carol: Peer) -> None:
    """And nothing was stored."""
    assert bob.receiving.until_fence() == bob.sending.until_fence() == b""
    assert messages(carol) == []
    assert carol.say("nothing was stored")["id"] == 1
    assert bob.take() == ("carol", "nothing was stored")


@pytest.mark.parametrize("written", UNSENT.values(), ids=UNSENT)
def test_what_can_not_be_sent_is_refused_and_the_connection_lives_on(room: Room, written: bytes) -> None:
    alice, bob, carol = room.enter_guest("alice"), room.enter_guest("bob"), room.enter("carol")
    alice.sending.send(written)
    assert alice.sending.section() == NOT_SENT
    assert alice.sending.until_fence() == b"", "one error is enough"
    check_nobody_noticed(bob, carol)
    assert alice.take() == ("carol", "nothing was stored")
    alice.send("bob", "still here")
    assert bob.take() == ("alice", "still here")
    assert alice.sending.section() == sent("bob")


@pytest.mark.parametrize("written", CLOSED.values(), ids=CLOSED)
@pytest.mark.parametrize("half", ["sending", "receiving"])
def test_what_can_not_be_read_is_told_and_both_connections_are_closed(room: Room, written: bytes, half: str) -> None:
    alice, bob, carol = room.enter_guest("alice"), room.enter_guest("bob"), room.enter("carol")
    if written == CLOSED["more than was counted"]:
        alice.sending.send(b"SEND nobody" + written.removeprefix(b"SEND bob"))
        assert alice.sending.section() == NOT_SENT
        half = "sending"
    else:
        getattr(alice, half).send(written)
    other = alice.receiving if half == "sending" else alice.sending
    assert getattr(alice, half).rest() == INCOMPLETE
    assert other.rest() == b""
    wait_until_gone(carol, "alice")
    check_nobody_noticed(bob, carol)
    alice.close()
    room.wait_for_connections(3)
    assert room.enter_guest("alice"), "the name is free"


@pytest.mark.parametrize("written", OUTSIDE.values(), ids=OUTSIDE)
def test_before_a_registration_everything_else_is_refused_and_the_connection_lives_on(
    room: Room, written: bytes
) -> None:
    bob, carol, stranger = room.enter_guest("bob"), room.enter("carol"), room.register_peer()
    for _ in range(2):
        stranger.send(written)
        assert stranger.section() == NOT_REGISTERED
    check_nobody_noticed(bob, carol)
    assert stranger.register("TOSEND", "alice") == registered("TOSEND", "alice")


@pytest.mark.parametrize("written", CLOSED.values(), ids=CLOSED)
def test_before_a_registration_what_can_not_be_read_is_refused_and_closed(room: Room, written: bytes) -> None:
    bob, carol, stranger = room.enter_guest("bob"), room.enter("carol"), room.register_peer()
    stranger.send(written)
    answers = stranger.rest()
    assert answers == NOT_REGISTERED * (2 if written == CLOSED["more than was counted"] else 1)
    check_nobody_noticed(bob, carol)


def test_after_a_registration_was_refused_what_is_none_is_refused_as_well(room: Room) -> None:
    stranger = room.register_peer()
    assert stranger.register("TOSEND", "all") == MALFORMED
    for nonsense in (b"HELLO\n\n", b'{"command":"PM"}\n\n', b"FORWARD bob\nContent-length: 5\n\nhello"):
        stranger.send(nonsense)
        assert stranger.section() == NOT_REGISTERED
    assert stranger.register("TOSEND", "bob") == registered("TOSEND", "bob")


@pytest.mark.parametrize("size", [70_000, 1_000_000])
@pytest.mark.parametrize("is_in", [True, False])
def test_who_goes_on_writing_what_is_too_long_is_told_all_the_same(room: Room, size: int, is_in: bool) -> None:
    """To close over what still comes would destroy the answer that is on its way."""
    alice = room.enter_guest("alice") if is_in else room.guest("alice")
    alice.sending.send(b"SEND bob\nContent-length: %d\n\n" % size)
    with suppress(ConnectionError):  # it was closed long ago
        alice.sending.send(b"x" * size)
    assert alice.sending.section() == (INCOMPLETE if is_in else NOT_REGISTERED)


@pytest.mark.parametrize(
    "begun", [b"S", b"SEND bob\n", b"SEND bob\nContent-length: 5\n", b"SEND bob\nContent-length: 5\n\nhell"]
)
def test_who_leaves_something_unfinished_is_told_and_closed(open_room: Callable[..., Room], begun: bytes) -> None:
    room = open_room(login_seconds=0.4)
    alice, bob, carol = room.enter_guest("alice"), room.enter_guest("bob"), room.enter("carol")
    alice.sending.send(begun)
    assert alice.sending.rest() == INCOMPLETE
    assert alice.receiving.rest() == b""
    wait_until_gone(carol, "alice")
    check_nobody_noticed(bob, carol)


@pytest.mark.parametrize("begun", [b"SEND bob\nContent-length: 5\n", b"SEND bob\nContent-length: 5\n\nhell"])
def test_half_a_message_and_the_end_is_told_and_closed(room: Room, begun: bytes) -> None:
    alice, bob, carol = room.enter_guest("alice"), room.enter_guest("bob"), room.enter("carol")
    alice.sending.send(begun)
    alice.sending.socket.shutdown(socket.SHUT_WR)
    assert alice.sending.rest() == INCOMPLETE
    wait_until_gone(carol, "alice")
    check_nobody_noticed(bob, carol)


@pytest.mark.parametrize("begun", [b"R", b"REGISTER TOSEND bo", b"REGISTER TOSEND bob\n"])
def test_half_a_registration_is_told_and_closed(open_room: Callable[..., Room], begun: bytes) -> None:
    room = open_room(login_seconds=0.4)
    stranger = room.register_peer()
    stranger.send(begun)
    if begun == b"R":
        assert b"Nothing was said" in stranger.piece(), "it could still be nothing of ours"
    else:
        assert stranger.rest() == NOT_REGISTERED
    assert room.enter_guest("bob").sending.until_fence() == b""


# --- limits ---


def test_over_the_limit_of_connections_it_is_told_in_its_dialect(open_room: Callable[..., Room]) -> None:
    room = open_room(max_connections=2)
    alice, extra = room.enter_guest("alice"), room.register_peer()
    extra.send(b"REGISTER TOSEND bob\n\n")
    assert extra.rest() == NOT_REGISTERED
    assert alice.sending.until_fence() == b""
    alice.close()
    room.wait_for_connections(0)
    assert room.enter_guest("bob"), "there is room again"


def test_where_there_is_no_room_for_its_other_connection_a_user_is_told(open_room: Callable[..., Room]) -> None:
    room = open_room(max_connections=1)
    alice = room.guest("alice")
    assert alice.sending.register("TOSEND", "alice") == registered("TOSEND", "alice")
    assert alice.receiving.register("TORECV", "alice") == NOT_REGISTERED
    assert alice.receiving.section() == b""


def test_a_guest_who_answers_nothing_costs_the_others_nothing(room: Room) -> None:
    alice, bob, deaf = room.enter("alice"), room.enter_frames("bob"), room.enter_guest("deaf")
    with deadline(AT_ONCE_SECONDS, "100 messages"):
        for number in range(100):
            assert alice.say(f"text {number}")["id"] == number + 1
            assert bob.next_message()[-1] == f"text {number}"
    assert deaf.forwarded() == ("alice", "text 0")
    assert deaf.receiving.until_fence() == b""
    assert "deaf" in users(alice)


def test_a_guest_who_is_too_far_behind_is_disconnected_and_nobody_waits(
    open_room: Callable[..., Room], log: io.StringIO
) -> None:
    room = open_room(lag_max_bytes=256 * 1024)
    alice, bob, carol, slow = (
        room.enter("alice"),
        room.enter("bob"),
        room.enter_guest("carol"),
        room.enter_guest("slow"),
    )
    count, left = 0, False
    with answering(carol) as heard:
        with deadline(AT_ONCE_SECONDS, "a megabyte"):
            while not left:
                count += 1
                alice.say(f"{count} ".ljust(8_000, "x"))
                while (answer := bob.next("broadcast", "users"))["type"] == "users":
                    left = left or "slow" in answer["left"]
                wait_for(lambda at=count: len(heard) == at, "who answers is not behind")
                assert count < 1_000, "it was never disconnected"
        assert count > 256 / 8
        assert slow.sending.rest() == b""
    assert log.getvalue().count("disconnected reason=lagging") == 1
    assert slow.receiving.rest().count(b"FORWARD ") == 1


def test_a_sender_is_told_when_its_receiver_falls_too_far_behind(open_room: Callable[..., Room]) -> None:
    room = open_room(lag_max_bytes=256 * 1024)
    alice, bob, slow = room.enter("alice"), room.enter_guest("bob"), room.enter_guest("slow")
    bob.send("slow", "hello")
    assert slow.forwarded() == ("bob", "hello")
    with answering(bob), deadline(AT_ONCE_SECONDS, "the answer"):
        for _ in range(40):
            alice.say("x" * 8_000)
        assert bob.sending.section() == NOT_SENT


def test_who_never_reads_the_answers_is_read_no_further(room: Room) -> None:
    """Back-pressure: memory stays bounded by what one connection may leave unread."""
    greedy = room.enter_guest("greedy")
    for peer in (greedy.sending, greedy.receiving):
        peer.socket.settimeout(0.5)
        with pytest.raises(TimeoutError):
            peer.socket.sendall(message_to("nobody", "x") * 1_000_000)
    with deadline(AT_ONCE_SECONDS, "what nobody else waits for"):
        assert room.enter("alice").say("hello")["id"] == 1


# --- the end of the server, and the log ---


def test_when_the_server_stops_every_connection_is_closed(room: Room) -> None:
    alice, half, stranger = room.enter_guest("alice"), room.register_peer(), room.register_peer()
    half.register("TOSEND", "bob")
    half.send(message_to("alice", "waits for the other connection"))
    stranger.register("TOSEND", "all")
    with deadline(AT_ONCE_SECONDS, "the end"):
        assert room.stop()
    assert [peer.rest() for peer in (alice.sending, alice.receiving, half, stranger)] == [b""] * 4


def test_what_is_under_way_when_the_server_stops_is_answered(room: Room) -> None:
    alice, bob, carol = room.enter_guest("alice"), room.enter_guest("bob"), room.enter("carol")
    alice.send("ALL", "hello")
    assert bob.forwarded() == ("alice", "hello")
    stopping = threading.Thread(target=room.stop, name="stop")
    stopping.start()
    carol.next("bye")
    bob.confirm("alice")
    assert alice.sending.rest() == sent("ALL")
    assert [peer.rest() for peer in (alice.receiving, bob.sending, bob.receiving)] == [b""] * 3
    stopping.join()


def test_who_does_not_answer_when_the_server_stops_is_not_waited_for(room: Room) -> None:
    alice, bob = room.enter_guest("alice"), room.enter_guest("bob")
    alice.send("bob", "hello")
    assert bob.forwarded() == ("alice", "hello")
    with deadline(5.0, "the end"):
        assert room.stop()
    assert alice.sending.rest() == NOT_SENT
    assert [peer.rest() for peer in (alice.receiving, bob.sending, bob.receiving)] == [b""] * 3


def test_a_signal_ends_the_program_and_its_guests_are_told(tmp_path: Path) -> None:
    with Program(tmp_path) as server:
        alice = Guest(server.port, "alice")
        alice.come_in()
        server.process.terminate()
        assert alice.is_over()
        alice.close()
        assert server.process.wait(DEADLINE_SECONDS) == 0


@pytest.mark.parametrize("written", UNSENT.values(), ids=UNSENT)
def test_each_refusal_is_one_line_in_the_log_without_messages(room: Room, log: io.StringIO, written: bytes) -> None:
    alice = room.enter_guest("alice")
    assert alice.say("ALL", "a private thought") == sent("ALL")
    alice.sending.send(written)
    assert alice.sending.section() == NOT_SENT
    (refusal,) = [line for line in log.getvalue().splitlines() if line.startswith("[WARNING]")]
    assert "user=alice" in refusal
    assert "code=" in refusal
    assert "private thought" not in log.getvalue()
    assert "hello" not in log.getvalue()


def test_what_is_typed_in_the_wrong_place_is_not_logged(room: Room, log: io.StringIO) -> None:
    alice, stranger = room.enter_guest("alice"), room.register_peer()
    for text in ("REGISTER hunter2\n\n", "REGISTER TOSEND my hunter2\n\n", "REGISTER TORECV hunter2!\n\n"):
        stranger.send(text.encode())
        assert stranger.section() in (NOT_REGISTERED, MALFORMED)
    for text in ("hunter2\n\n", "SEND hunter2\nContent-length: 1\n\nx", "SEND alice hunter2\nContent-length: 0\n\n"):
        alice.sending.send(text.encode())
        assert alice.sending.section() == NOT_SENT
    alice.receiving.send(b"RECEIVED hunter2\n\nERROR hunter2\n\n")
    assert alice.receiving.until_fence() == b""
    assert "hunter2" not in log.getvalue()


def test_who_answers_and_answers_though_nobody_waits_is_disconnected(room: Room) -> None:
    """Nothing else would hold it back. Promise: bad input never hurts another user."""
    alice, bob = room.enter_guest("alice"), room.enter_guest("bob")
    alice.receiving.send(b"RECEIVED bob\n\n" * 1_000)
    assert alice.receiving.rest() == b"ERROR 103 Header incomplete\n\n"
    assert alice.sending.rest() == b""
    bob.send("bob", "is anybody hurt?")
    assert bob.forwarded() == ("bob", "is anybody hurt?")


def test_refusals_of_one_connection_do_not_fill_the_log(room: Room, log: io.StringIO) -> None:
    alice = room.enter_guest("alice")
    alice.receiving.send(b"RECEIVED bob\n\n" * 900)
    assert alice.receiving.until_fence() == b""
    assert len([line for line in log.getvalue().splitlines() if line.startswith("[WARNING]")]) == 101
