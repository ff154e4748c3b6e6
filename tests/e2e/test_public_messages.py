"""Public messages."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

import pytest

from .harness.stack import in_parallel, password_of

if TYPE_CHECKING:
    from .harness.programs import Client
    from .harness.stack import Stack

CLIENTS = 8
MESSAGES = 10
SEEN = re.compile(r"^\[(?:public #(?P<id>\d+) \S+\] (?P<sender>\w+): (?P<text>.*)|sent #(?P<own_id>\d+)\]$)")
STORED = re.compile(r"^\[history #(?P<id>\d+) \S+\] (?P<sender>\w+): (?P<text>.*)$")


@pytest.mark.docker
def test_public_message_reaches_the_others_once(stack: Stack) -> None:
    """Story 3: the others see it once, with the id that its sender is told; the sender sees the confirmation only."""
    stack.start_server()
    alice, bob, carol = stack.clients("alice", "bob", "carol")

    for way, text in enumerate(["Hello! Grüße 🌍", "step by step", "with a prefix"]):
        match way:
            case 0:
                alice.type(f"pm {text}")
            case 1:
                alice.type("PM")
                alice.expect_question("message for all users")
                alice.type(text)
            case _:
                alice.type(f"@all {text}")
        number = alice.expect_sent()
        for other in (bob, carol):
            other.expect_next(f"[public #{number} ")
            other.assert_once(f"alice: {text}")

    # After this all of them have had an answer that was sent after the messages.
    stack.fence(bob, alice, carol)
    stack.fence(carol, bob)
    alice.assert_never("alice: ")
    for other in (bob, carol):
        assert len(other.transcript.matches("alice: ")) == 3


class Message(NamedTuple):
    number: int
    sender: str
    text: str


def test_all_clients_see_one_order(stack: Stack) -> None:
    """Story 11: many register and write at the same moment; all see the ids, order and texts of the history."""
    stack.start_server()
    clients = in_parallel(stack.start_client, [f"user{number}" for number in range(CLIENTS)])
    for client in clients:
        client.expect_question("password new")
    for client in clients:
        client.type(password_of(client.name))
    for client in clients:
        client.expect(f"[welcome new] {client.name}; online:")
    for client in clients:
        client.type(*(f"PM {text}" for text in texts_of(client)))
    for client in clients:
        for _ in range(CLIENTS * MESSAGES):
            client.expect(SEEN)
    history = read_history(clients[0])
    assert len({message.number for message in history}) == CLIENTS * MESSAGES
    assert [message.number for message in history] == sorted(message.number for message in history)
    for client in clients:
        assert seen_messages(client) == history, client.name


def texts_of(client: Client) -> list[str]:
    return [f"word {number} of {client.name}" for number in range(MESSAGES)]


def read_history(client: Client) -> list[Message]:
    client.type("CH 500")
    client.expect(f"[history {CLIENTS * MESSAGES}]")
    lines = [client.expect_next(STORED) for _ in range(CLIENTS * MESSAGES)]
    return [Message(int(line["id"]), line["sender"], line["text"]) for line in lines]


def seen_messages(client: Client) -> list[Message]:
    """The messages of others and the confirmations of its own, in the order in which the client printed them."""
    own = iter(texts_of(client))
    return [
        Message(int(seen["id"]), seen["sender"], seen["text"])
        if seen["id"]
        else Message(int(seen["own_id"]), client.name, next(own))
        for seen in client.transcript.matches(SEEN)
    ]
