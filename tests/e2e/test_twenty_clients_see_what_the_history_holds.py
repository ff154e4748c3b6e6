"""Story 11: a crowd that registers at the same moment and speaks all at once."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from .harness.transcript import StoryError

if TYPE_CHECKING:
    from .harness.actors import Client
    from .harness.stack import Stack

CLIENTS = 20
MESSAGES = 10
SEEN = re.compile(r"^\[(?:public #(?P<id>\d+) \S+\] (?P<sender>\w+): (?P<text>.*)|sent #(?P<own_id>\d+)\]$)")
KEPT = re.compile(r"^\[history #(?P<id>\d+) \S+\] (?P<sender>\w+): (?P<text>.*)$")


class Message(NamedTuple):
    number: int
    sender: str
    text: str


def test_twenty_clients_see_what_the_history_holds(stack: Stack) -> None:
    """All views have the same ids, in one order, with the same texts: those of the history."""
    stack.start_server()
    names = [f"guest{number}" for number in range(CLIENTS)]
    crowd = stack.start_clients(names)
    for client in crowd:
        client.asked("password new")
    for client in crowd:
        client.type(f"password of {client.name}")
    for client in crowd:
        client.expect(f"[welcome new] {client.name}; online:")

    for client in crowd:
        client.type(*(f"PM {text}" for text in texts_of(client)))
    for client in crowd:
        for _ in range(CLIENTS * MESSAGES):
            client.expect(SEEN)

    history = history_as_seen_by(crowd[0])
    assert len({message.number for message in history}) == CLIENTS * MESSAGES
    assert [message.number for message in history] == sorted(message.number for message in history)
    for client in crowd:
        check_view(client, history)


def texts_of(client: Client) -> list[str]:
    return [f"word {number} of {client.name}" for number in range(MESSAGES)]


def history_as_seen_by(client: Client) -> list[Message]:
    client.type("CH 500")
    client.expect(f"[history {CLIENTS * MESSAGES}]")
    lines = [client.expect_next(KEPT) for _ in range(CLIENTS * MESSAGES)]
    return [Message(int(line["id"]), line["sender"], line["text"]) for line in lines]


def check_view(client: Client, history: list[Message]) -> None:
    """What a client saw of the others, and the ids that it was told of its own, in the order in which they came."""
    own = iter(texts_of(client))
    view = [
        Message(int(seen["id"]), seen["sender"], seen["text"])
        if seen["id"]
        else Message(int(seen["own_id"]), client.name, next(own))
        for seen in client.transcript.matches(SEEN)
    ]
    if view != history:
        raise StoryError(f"{client.name} saw\n    {view}\nbut the history holds\n    {history}")
