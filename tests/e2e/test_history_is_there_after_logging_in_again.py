"""Story 7: history after logging out and in again."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .harness.actors import Client
    from .harness.stack import Stack

HISTORY = {
    "alice: one": {"alice", "bob", "carol"},
    "alice -> bob: two": {"alice", "bob"},
    "bob: three": {"alice", "bob", "carol"},
    "carol -> alice: four": {"alice", "carol"},
    "bob -> bob: five": {"bob"},
    "carol: six": {"alice", "bob", "carol"},
}


def test_history_is_there_after_logging_in_again(stack: Stack) -> None:
    """Each sees the public messages and the direct ones that are theirs, sent or received, in one order."""
    stack.start_server()
    everybody = {client.name: client for client in stack.clients("alice", "bob", "carol")}
    for line in HISTORY:
        say(everybody, line)
    for client in everybody.values():
        client.leave()

    for client in stack.clients("alice", "bob", "carol"):
        own = [line for line, readers in HISTORY.items() if client.name in readers]
        check_history(client, "CH", own)
        check_history(client, "CH 2", own[-2:])
        check_history(client, "ch 500", own)
        for line in set(HISTORY) - set(own):
            client.never_saw(line)


def test_history_takes_a_number_from_1_to_500(stack: Stack) -> None:
    """Anything else is a mistake of typing; nothing is shown."""
    stack.start_server()
    alice = stack.client("alice")
    for mistake in ("CH 0", "CH 501", "CH all", "CH -1"):
        alice.type(mistake)
        alice.expect_next("[error usage] CH takes a number from 1 to 500")
    alice.type("CH 1")
    alice.expect_next("[history 0]")


def say(everybody: dict[str, Client], line: str) -> None:
    """Let somebody say what the history should have."""
    head, text = line.split(": ")
    sender, _, recipient = head.partition(" -> ")
    everybody[sender].type(f"DM {recipient} {text}" if recipient else f"PM {text}")
    everybody[sender].expect_sent()


def check_history(client: Client, command: str, lines: list[str]) -> None:
    client.type(command)
    client.expect(f"[history {len(lines)}]")
    for line in lines:
        assert client.expect_next("[history #").string.endswith(f"] {line}")
