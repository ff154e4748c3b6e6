"""Joins, leaves, and the list of online users."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .harness.stack import Stack


def test_killed_client_leaves_user_list(stack: Stack) -> None:
    """Story 10: the others are told, the list is right, and the user can log in again."""
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


def test_user_stays_online_until_the_last_client_ends(stack: Stack) -> None:
    """A user is online from the first login to the end of the last client, and each client gets every message."""
    stack.start_server()
    alice = stack.client("alice")
    laptop, phone = stack.client("bob"), stack.client("bob")
    alice.type("DM bob to both of you")
    for client in (laptop, phone):
        client.expect("alice -> bob: to both of you")
    laptop.kill()
    stack.client("carol")
    alice.expect("[joined] carol")
    alice.assert_once("[joined] bob")
    alice.assert_never("[left] bob")
    alice.type("/users")
    alice.expect("[users 3] alice bob carol")
    phone.kill()
    alice.expect("[left] bob")
