"""Guests at a whole server, to the byte: two sockets for a user, ends at any moment, and bad input.

The tests share one server. All peers are closed after each test, so the names of guests are free again. Guests among
users of other protocols are in the end-to-end tests.
"""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from integration.room import (
    INCOMPLETE,
    MALFORMED,
    NOT_REGISTERED,
    NOT_SENT,
    Guest,
    RegisterPeer,
    deadline,
    message_to,
    sent,
)
from reliability.guests import AckingGuest
from reliability.peers import reset

if TYPE_CHECKING:
    import io
    from collections.abc import Callable, Iterator

    from integration.room import Room

SIDES = ("TOSEND", "TORECV")
# Well below the time that a recipient has for its answer.
AT_ONCE_SECONDS = 3.0

either_half = pytest.mark.parametrize("half", ["sending", "receiving"])
either_end = pytest.mark.parametrize("end", [RegisterPeer.close, reset])


@pytest.fixture
def room(shared_room: Room) -> Iterator[Room]:
    yield shared_room
    shared_room.close_peers()


def registered(side: str, name: str) -> bytes:
    return f"REGISTERED {side} {name}\n\n".encode()


def guests(room: Room, *names: str) -> list[Guest]:
    return [room.enter_guest(name) for name in names]


# --- registration ---


def test_server_may_refuse_guests(open_room: Callable[..., Room]) -> None:
    peer = open_room(guests="off").register_peer()
    assert peer.register("TOSEND", "bob") == NOT_REGISTERED
    assert peer.register("TOSEND", "") == MALFORMED


def test_login_timeout_and_incomplete_requests(open_room: Callable[..., Room]) -> None:
    """A registered guest may be silent, but not inside a request."""
    room = open_room(login_seconds=0.5)
    silent, unfinished = guests(room, "silent", "unfinished")
    half, refused, begun = (room.register_peer() for _ in range(3))
    assert half.register("TOSEND", "half") == registered("TOSEND", "half")
    assert refused.register("TOSEND", "all") == MALFORMED
    begun.send(b"REGISTER TOSEND bo")
    unfinished.sending.send(b"SEND silent\nContent-length: 5\n\nhell")
    assert half.rest() == refused.rest() == begun.rest() == NOT_REGISTERED
    assert unfinished.sending.rest() == INCOMPLETE
    assert unfinished.receiving.rest() == b""
    assert silent.say("unfinished", "hello") == NOT_SENT
    assert silent.receiving.until_fence() == b""


# --- messages ---


def test_exchange_to_the_byte(room: Room) -> None:
    """Each section is the result of one read: simple clients expect that. Requests may be sent ahead."""
    bob, alice = room.enter_guest("bob"), room.guest("alice")
    alice.sending.send(
        b"REGISTER TOSEND alice\n\n"
        b"SEND BoB\nContent-length: 7\n\nh\xc3\xa9llo!"
        + message_to("nobody", "two")
        + message_to("ALL", "x" * 900)
        + b"REGISTER TOSEND alice\n\n"
    )
    assert alice.sending.piece() == registered("TOSEND", "alice")
    assert room.register_peer("127.0.0.2").register("TORECV", "alice") == MALFORMED, "it has another address"
    assert alice.receiving.register("TORECV", "alice") == registered("TORECV", "alice")
    assert bob.receiving.piece() == b"FORWARD alice\nContent-length: 7\n\nh\xc3\xa9llo!"
    assert bob.receiving.until_fence() == b"", "one message at a time"
    bob.receiving.send(b"RECEIVED alice\n\n")
    assert bob.receiving.piece() == b"FORWARD alice\nContent-length: 900\n\n" + b"x" * 900
    assert alice.sending.section() == b"SEND BoB\n\n"
    assert alice.sending.section() == b"ERROR 102 Unable to send\n\n"
    bob.receiving.send(b"RECEIVED alice\n\n")
    assert alice.sending.section() == b"SEND ALL\n\n"
    assert alice.sending.section() == b"ERROR 100 Malformed username\n\n"
    for peer in (alice.sending, alice.receiving, bob.sending, bob.receiving):
        assert peer.until_fence() == b""


def test_settings_of_the_wire_format(open_room: Callable[..., Room]) -> None:
    """Lengths in characters, another word for a delivery, long texts in parts; other protocols are not affected."""
    room = open_room(register_forward_max=256, register_length="characters", register_delivered="SENT")
    (alice, bob), carol = guests(room, "alice", "bob"), room.enter("carol")
    text = "\u20ac" * 100 + "\r\nnext line"
    alice.sending.send(f"SEND ALL\nContent-length: {len(text)}\n\n{text}".encode())
    for part in ("\u20ac" * 73, "\u20ac" * 27, "next line"):
        assert bob.receiving.piece() == f"FORWARD alice\nContent-length: {len(part)}\n\n{part}".encode()
        bob.confirm("alice")
    assert alice.sending.piece() == b"SENT ALL\n\n"
    assert carol.next("broadcast")["message"] == text


def test_guest_may_end_its_side_after_the_last_message(room: Room) -> None:
    """As from a shell: all messages are answered."""
    bob, alice = AckingGuest(room.server.port, "bob"), room.enter_guest("alice")
    bob.register()
    alice.sending.send(b"".join(message_to("bob", f"text {number}") for number in range(20)))
    alice.sending.socket.shutdown(socket.SHUT_WR)
    assert alice.sending.rest() == sent("bob") * 20
    assert alice.receiving.rest() == b""
    bob.sending.close()
    bob.join()
    bob.close()
    assert bob.heard == [("alice", f"text {number}") for number in range(20)]


# --- recipients that do not acknowledge ---


@either_end
@either_half
def test_sender_is_told_at_once_that_a_recipient_vanished(
    room: Room, half: str, end: Callable[[RegisterPeer], None]
) -> None:
    """The recipient's other connection ends too, and its name is free for a guest at another address."""
    alice, bob, carol = guests(room, "alice", "bob", "carol")
    alice.send("ALL", "hello")
    assert bob.forwarded() == ("alice", "hello")
    assert carol.take() == ("alice", "hello")
    end(getattr(bob, half))
    with deadline(AT_ONCE_SECONDS, "the answer"):
        assert alice.sending.piece() == NOT_SENT
    assert (bob.receiving if half == "sending" else bob.sending).rest() == b""
    room.wait_for_connections(4)
    new_bob = room.enter_guest("bob", "127.0.0.2")
    alice.send("ALL", "hello again")
    assert carol.take() == new_bob.take() == ("alice", "hello again")
    assert alice.sending.section() == sent("ALL")


@pytest.mark.long
def test_silent_guest_is_disconnected_after_five_seconds(room: Room) -> None:
    alice, bob, silent = guests(room, "alice", "bob", "silent")
    alice.send("ALL", "hello")
    assert bob.take() == ("alice", "hello")
    assert alice.sending.section() == NOT_SENT
    assert silent.is_over()
    alice.send("ALL", "hello again")
    assert bob.take() == ("alice", "hello again")
    assert alice.sending.section() == sent("ALL")


def test_lagging_guest_is_disconnected(open_room: Callable[..., Room], log: io.StringIO) -> None:
    """Promises: memory stays bounded; others do not wait; the sender of an undelivered message is told at once."""
    room = open_room(lag_max_bytes=64 * 1024)
    alice, bob, slow = room.enter("alice"), room.enter_guest("bob"), room.enter_guest("slow")
    bob.send("slow", "hello")
    assert slow.forwarded() == ("bob", "hello")
    with deadline(AT_ONCE_SECONDS, "the answer"):
        for _ in range(10):
            alice.say("x" * 8_000)
            bob.take()
        assert bob.sending.section() == NOT_SENT
    assert slow.is_over()
    assert log.getvalue().count("disconnected reason=lagging user=slow") == 1


# --- names ---


# --- bad input ---


@pytest.mark.parametrize(
    "written",
    [b"SEND bob\n\nhello", b"SEND bob\nContent-length: 65537\n\nhello", b"SEND " + b"b" * 70_000],
    ids=lambda written: repr(written[:30]),
)
@either_half
def test_broken_header_closes_both_connections(room: Room, written: bytes, half: str) -> None:
    """Promise: bad input never hurts another user."""
    alice, bob = guests(room, "alice", "bob")
    stranger = room.register_peer()
    stranger.send(written)
    assert stranger.rest() == NOT_REGISTERED
    getattr(alice, half).send(written)
    assert getattr(alice, half).rest() == INCOMPLETE
    assert (alice.receiving if half == "sending" else alice.sending).rest() == b""
    assert bob.receiving.until_fence() == bob.sending.until_fence() == b""


def test_refusal_reaches_a_peer_that_still_writes(room: Room) -> None:
    """A close with unread input would reset the connection, and the reply would be lost."""
    alice = room.enter_guest("alice")
    alice.sending.send(b"SEND bob\nContent-length: 1000000\n\n")
    with suppress(ConnectionError):
        alice.sending.send(b"x" * 1_000_000)
    assert alice.sending.section() == INCOMPLETE


# --- shutdown ---


def test_shutdown_answers_and_closes(open_room: Callable[..., Room]) -> None:
    """Promise: shutdown. A message in flight, a message that waits for the second connection, and a stranger."""
    room = open_room()
    (alice, bob), carol = guests(room, "alice", "bob"), room.enter("carol")
    half, stranger = room.register_peer(), room.register_peer()
    half.register("TOSEND", "half")
    half.send(message_to("alice", "waits for the other connection"))
    stranger.register("TOSEND", "all")
    alice.send("ALL", "hello")
    assert bob.forwarded() == ("alice", "hello")
    stopping = threading.Thread(target=room.stop, name="stop")
    stopping.start()
    carol.next("bye")
    bob.confirm("alice")
    assert alice.sending.rest() == sent("ALL")
    assert [peer.rest() for peer in (alice.receiving, bob.sending, bob.receiving, half, stranger)] == [b""] * 5
    stopping.join()
