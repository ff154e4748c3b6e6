"""Story 10: a client that ends without a goodbye."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .harness.stack import Stack


def test_a_killed_client_leaves_the_list(stack: Stack) -> None:
    """The others are told, the list is right, and the name can come back."""
    stack.start_server()
    alice, bob, carol = stack.clients("alice", "bob", "carol")
    alice.type("/users")
    alice.expect("[users 3] alice bob carol")

    bob.kill()

    for other in (alice, carol):
        other.expect("[left] bob")
        other.type("/users")
        other.expect("[users 2] alice carol")
    alice.type("DM bob where are you?")
    alice.expect("[stored #")

    bob = stack.client("bob")
    bob.expect_next("alice -> bob: where are you?")
    alice.expect("[joined] bob")


def test_a_user_with_two_clients_stays_until_the_last_one_ends(stack: Stack) -> None:
    """A name is on the list from the first login to the last leave, and its clients all get what is for it."""
    stack.start_server()
    alice, laptop = stack.clients("alice", "bob")
    phone = stack.client("bob")
    alice.type("DM bob to all of you")
    for client in (laptop, phone):
        client.expect("alice -> bob: to all of you")

    laptop.kill()
    stack.client("carol")
    alice.expect("[joined] carol")
    alice.never_saw("[left] bob")
    alice.type("/users")
    alice.expect("[users 3] alice bob carol")
    phone.kill()
    alice.expect("[left] bob")


def test_whoever_was_shown_as_online_is_told_to_have_left(stack: Stack) -> None:
    """However short somebody was there: who has seen the name is told that it is gone."""
    stack.start_server()
    clients = stack.start_clients(["carol", "alice", "bob"])
    for client in clients:
        client.transcript.expect_somewhere("[ask] password new")
    for client in clients:
        client.log_in("wonderland")
    _, alice, bob = clients
    bob.knows("alice")
    alice.leave()
    bob.expect("[left] alice")
