"""Search over sockets: confirmed messages are found by the users who may see them, whatever happens to the index."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from chatserver.store.search_index import SEARCH_FILE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from integration.room import Peer, Room

    Name = Callable[[str], str]


def search(peer: Peer, words: str, **members: Any) -> dict[str, Any]:
    """The answer, found or error."""
    peer.ask(command="search", words=words, **members)
    return peer.next("found", "error")


def texts(peer: Peer, words: str, **members: Any) -> list[str]:
    """The texts that are found."""
    answer = search(peer, words, **members)
    assert answer["type"] == "found", answer
    return [message["message"] for message in answer["messages"]]


# --- the index file ---


def nothing(_: Path) -> None:
    pass


@pytest.mark.parametrize(
    "harm", [nothing, lambda path: path.write_bytes(b"rubbish" * 1_000), lambda path: path.unlink()]
)
def test_restart_repairs_the_index(open_room: Callable[..., Room], harm: Callable[[Path], None]) -> None:
    room = open_room()
    alice = room.enter("alice")
    said = [f"word {number}" for number in range(1, 41)]
    for text in said:
        alice.say(text)
    assert texts(alice, "word") == said
    room.stop()
    path = room.config.data / SEARCH_FILE
    assert path.stat().st_mode & 0o777 == 0o600
    harm(path)

    again = open_room().enter("alice")
    assert texts(again, "word") == said
    again.say("word 41")
    assert texts(again, "word") == [*said, "word 41"]


def test_server_works_without_an_index(open_room: Callable[..., Room], config: Any) -> None:
    (config.data / SEARCH_FILE).mkdir(parents=True)
    room = open_room()
    alice, bob = room.enter("alice"), room.enter("bob")

    assert search(alice, "word")["code"] == "internal"
    alice.say("word")
    assert bob.next("broadcast")["message"] == "word"
    assert not room.has_crashed


def test_searches_do_not_delay_messages(room: Room) -> None:
    alice, bob = room.enter("alice"), room.enter("bob")
    askers = [room.enter(f"asker{number}") for number in range(10)]
    for asker in askers:
        asker.send(b'{"command":"search","words":"word"}\n' * 100)
    alice.say("word")
    assert bob.next("broadcast")["message"] == "word"
    for asker in askers:
        for _ in range(100):
            asker.next("found")
        assert texts(asker, "word") == ["word"]
