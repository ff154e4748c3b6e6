"""The history."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .harness.programs import Client
    from .harness.stack import Stack

HISTORY = {
    "alice: one": {"alice", "bob", "carol"},
    "alice -> bob: two": {"alice", "bob"},
    "bob: three": {"alice", "bob", "carol"},
    "carol -> alice: four": {"alice", "carol"},
    "bob -> bob: five": {"bob"},
    "carol: six": {"alice", "bob", "carol"},
}


def test_history_has_own_and_public_messages(stack: Stack) -> None:
    """Story 7: after a new login each user sees the public messages and the own direct ones, in one order."""
    stack.start_server()
    clients = {client.name: client for client in stack.clients("alice", "bob", "carol")}
    for line in HISTORY:
        head, text = line.split(": ")
        sender, _, recipient = head.partition(" -> ")
        clients[sender].type(f"DM {recipient} {text}" if recipient else f"PM {text}")
        clients[sender].expect_sent()
    for client in clients.values():
        client.leave()
    for client in stack.clients("alice", "bob", "carol"):
        own = [line for line, readers in HISTORY.items() if client.name in readers]
        check_history(client, "CH", own)
        check_history(client, "CH 2", own[-2:])
        check_history(client, "ch 500", own)
        for line in set(HISTORY) - set(own):
            client.assert_never(line)


def check_history(client: Client, command: str, lines: list[str]) -> None:
    client.type(command)
    client.expect(f"[history {len(lines)}]")
    for line in lines:
        assert client.expect_next("[history #").string.endswith(f"] {line}")
