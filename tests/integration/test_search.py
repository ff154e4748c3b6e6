"""Search over sockets: a damaged index is made again, and searches delay no message."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chatserver.store.search_index import SEARCH_FILE

if TYPE_CHECKING:
    from collections.abc import Callable

    from integration.room import Peer, Room


def texts(peer: Peer, words: str) -> list[str]:
    """The texts that are found."""
    peer.ask(command="search", words=words)
    return [message["message"] for message in peer.next("found")["messages"]]


def test_restart_repairs_the_index(open_room: Callable[..., Room]) -> None:
    room = open_room()
    alice = room.enter("alice")
    said = [f"word {number}" for number in range(1, 41)]
    for text in said:
        alice.say(text)
    assert texts(alice, "word") == said
    room.stop()
    path = room.config.data / SEARCH_FILE
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_bytes(b"rubbish" * 1_000)

    again = open_room().enter("alice")
    assert texts(again, "word") == said
    again.say("word 41")
    assert texts(again, "word") == [*said, "word 41"]


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
