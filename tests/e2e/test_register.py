"""Guests, who have two connections and no password, among themselves and beside other clients."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .harness.programs import Client
    from .harness.stack import Stack

REGISTER = ("--dialect", "register")
PROMPT = "@USER MESSAGE or @ALL MESSAGE"

ARABIC = "\u0645\u0631\u062d\u0628\u0627 \u0628\u0643\u0645"
EMOJI = "\U0001f600\U0001f44d\U0001f3fd"


def join(stack: Stack, name: str) -> Client:
    """A guest that was asked for the first message."""
    guest = stack.start_client(name, *REGISTER)
    guest.expect_next(f"[welcome guest] {name}")
    guest.expect_question(PROMPT)
    return guest


def say(guest: Client, to: str, text: str, outcome: str = "[delivered]") -> None:
    """Send a message, and check its outcome."""
    guest.type(f"@{to} {text}")
    guest.expect(f"{outcome} @{to}")
    guest.expect_question(PROMPT)


def test_only_recipients_get_a_message(stack: Stack) -> None:
    """Story 13: to one guest, and to all others; the sender is told when all recipients have it."""
    stack.start_server()
    alice = join(stack, "alice")
    say(alice, "ALL", "is anyone there?")  # with no other user it counts as delivered
    bob, carol = join(stack, "bob"), join(stack, "carol")
    say(alice, "BOB", "psst bob")
    bob.expect_next("[message] alice: psst bob")
    for speaker in (alice, bob, carol):
        say(speaker, "ALL", f"hello from {speaker.name}")
        for other in (alice, bob, carol):
            if other is not speaker:
                other.expect_next(f"[message] {speaker.name}: hello from {speaker.name}")
    bob.assert_once("psst bob")
    carol.assert_never("psst bob")
    for guest in (alice, bob, carol):
        guest.assert_never(f"[message] {guest.name}: ")
        guest.assert_never("[message] alice: is anyone there?")
        guest.leave()


@pytest.mark.docker
def test_lengths_are_bytes_of_any_text(stack: Stack) -> None:
    """Several lines, Arabic and emoji, between a third-party guest on the published port, a guest and a json client."""
    stack.start_server()
    alice, json = join(stack, "alice"), stack.client("json")
    bob = stack.raw_guest("bob")
    lines = "one\n\ntwo\nContent-length: 3\n\n  three  "
    for to in ("alice", "json"):
        assert bob.send(to, lines) == f"SEND {to}\n\n"
    # Line breaks are printed as escapes.
    printed = lines.replace("\n", "\\n")
    alice.expect(f"[message] bob: {printed}")
    json.expect(f"bob -> json: {printed}")
    text = f"{ARABIC} {EMOJI}"
    alice.type(f"@bob {text}")
    bob.receive("alice", text)
    alice.expect("[delivered] @bob")
    assert bob.send("alice", text) == "SEND alice\n\n"
    alice.expect(f"[message] bob: {text}")
    json.type(f"PM {text}")
    bob.receive("json", text)
