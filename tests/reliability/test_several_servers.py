"""A client whose server is killed goes on at another one, and misses nothing.

Two servers of one log are here one data folder, which two servers on two ports use in turn.
"""

from __future__ import annotations

import threading
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from reliability.history import read_history
from reliability.program import Program

from chatclient import ChatClient, ConnectionLost, PublicMessage, Reconnected
from ops.nats_servers import bind_free_port

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator
    from pathlib import Path

DEADLINE_SECONDS = 30.0
# Messages before a kill, and during it.
MESSAGES_MAX = 20


@pytest.mark.parametrize(
    ("kills", "protocol"),
    [(2, "datagram"), *(pytest.param(20, each, marks=pytest.mark.long) for each in ("json", "frames", "datagram"))],
)
def test_client_of_a_killed_server_goes_on_at_another(
    tmp_path: Path, chance: random.Random, kills: int, protocol: str
) -> None:
    """Promise: nothing lost, nothing twice. The third server of the list never runs."""
    confirmed: dict[int, str] = {}
    with Program(tmp_path) as program, ExitStack() as clients:
        reserved = [clients.enter_context(bind_free_port()) for _ in range(3)]
        ports = [int(each.getsockname()[1]) for each in reserved]
        servers = [f"127.0.0.1:{port}" for port in ports]
        program.kill()
        program.start(ports[0])
        listener, sender = (clients.enter_context(ChatClient(servers, dialect=protocol)) for _ in range(2))
        listener.login("listener", "secret")
        sender.login("sender", "secret")

        events: dict[ChatClient, list[Any]] = {listener: [], sender: []}
        for kill in range(1, kills + 1):
            for index in range(chance.randrange(5, MESSAGES_MAX)):
                text = f"{kill}: {index}"
                confirmed[sender.say(text) or 0] = text
            with killing(program, ports[kill % 2]):
                for index in range(chance.randrange(5, MESSAGES_MAX)):
                    text = f"{kill}, while the server is killed: {index}"
                    confirmed[sender.say(text) or 0] = text
            events[listener] += events_until(listener, text)
            events[sender] += events_until(sender)
        stored = read_history(program.port, "listener")
    heard = [(event.id, event.text) for event in events[listener] if isinstance(event, PublicMessage)]
    assert heard == [*confirmed.items()]
    assert heard == [(message_id, content.text) for message_id, content in stored.items()]
    moves = [(servers[kill % 2], servers[1 - kill % 2]) for kill in range(1, kills + 1)]
    for told in events.values():
        assert [(each.server, each.gone) for each in told if isinstance(each, Reconnected)] == moves
        assert sum(isinstance(each, ConnectionLost) for each in told) <= kills


@contextmanager
def killing(program: Program, port: int) -> Iterator[None]:
    """Kill the server at any moment, and start the other one."""

    def replace() -> None:
        program.kill()
        program.start(port)

    thread = threading.Thread(target=replace)
    thread.start()
    yield
    thread.join()


def events_until(client: ChatClient, last: str | None = None) -> list[Any]:
    """The events up to the next reconnect and the message with this text, if there is one, in any order."""
    client.users()  # it notices a dead server, which over UDP says nothing
    found: list[Any] = []
    awaited: set[object] = {Reconnected, last} - {None}
    for event in client.events(DEADLINE_SECONDS):
        found.append(event)
        awaited -= {type(event), getattr(event, "text", None)}
        if not awaited:
            break
    return found
