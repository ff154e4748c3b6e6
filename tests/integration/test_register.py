"""Guests at a whole server, to the byte: two sockets for a user, ends at any moment, and shutdown.

The tests share one server. All peers are closed after each test, so the names of guests are free again. Guests among
users of other protocols are in the end-to-end tests.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from integration.room import (
    INCOMPLETE,
    MALFORMED,
    NOT_SENT,
    Guest,
    deadline,
    message_to,
    sent,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from integration.room import Room, ServerLog

# Below the time that a recipient has for its answer, which is 5 s.
AT_ONCE_SECONDS = 4.5


@pytest.fixture
def room(shared_room: Room) -> Iterator[Room]:
    yield shared_room
    shared_room.close_peers()


def registered(side: str, name: str) -> bytes:
    return f"REGISTERED {side} {name}\n\n".encode()


def guests(room: Room, *names: str) -> list[Guest]:
    return [room.enter_guest(name) for name in names]


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


# --- recipients that do not acknowledge ---


def test_sender_is_told_at_once_that_a_recipient_vanished(room: Room) -> None:
    """The recipient's other connection ends too, and its name is free for a guest at another address."""
    alice, bob, carol = guests(room, "alice", "bob", "carol")
    alice.send("ALL", "hello")
    assert bob.forwarded() == ("alice", "hello")
    assert carol.take() == ("alice", "hello")
    bob.receiving.close()
    with deadline(AT_ONCE_SECONDS, "the answer"):
        assert alice.sending.piece() == NOT_SENT
    assert bob.sending.rest() == b""
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


def test_guest_that_rejects_messages_is_disconnected(room: Room) -> None:
    """Promise: it can't keep others from sending to all. Success means that all others have the message."""
    alice, bob, mallory = guests(room, "alice", "bob", "mallory")
    for number in range(3):
        alice.send("ALL", f"message {number}")
        assert mallory.forwarded() == bob.take() == ("alice", f"message {number}")
        mallory.receiving.send(b"ERROR 103 Header Incomplete\n\n")
        assert alice.sending.section() == NOT_SENT
    assert mallory.is_over()
    alice.send("ALL", "hello")
    assert bob.take() == ("alice", "hello")
    assert alice.sending.section() == sent("ALL")


def test_lagging_guest_is_disconnected(open_room: Callable[..., Room], log: ServerLog) -> None:
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
    log.wait_for("disconnected reason=lagging user=slow")
    assert log.getvalue().count("reason=lagging") == 1


# --- bad input ---


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
