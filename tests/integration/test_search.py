"""Search over sockets: confirmed messages are found by the users who may see them, whatever happens to the index."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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


def whisper(peer: Peer, to: str, text: str) -> None:
    peer.ask(command="DM", to=to, message=text)
    peer.next("sent")


def test_direct_messages_of_others_are_not_found(shared_room: Room, fresh_name: Name) -> None:
    """Promise: only messages that the user may see."""
    names = [fresh_name(name) for name in ("alice", "bob", "eve")]
    alice, bob, eve = map(shared_room.enter, names)
    secret = fresh_name("secret")
    whisper(alice, names[1], f"the {secret} plan")
    whisper(bob, names[0], f"a {secret} answer")
    whisper(eve, names[2], f"my own {secret}")
    alice.say(f"no {secret} at all")

    assert texts(alice, secret) == texts(bob, secret)
    assert texts(bob, secret) == [f"the {secret} plan", f"a {secret} answer", f"no {secret} at all"]
    assert texts(eve, f"{secret[:-1]}*")[-2:] == [f"my own {secret}", f"no {secret} at all"]
    assert texts(eve, f"plan {secret}") == texts(eve, f"pla* {secret}") == []


# Operators and special characters of full-text search and of SQL.
SYNTAX = [*"\"'-^(){}+*:%\0;", "AND", "OR", "NOT", "NEAR(a b)", "text:", "word"]


@pytest.fixture
def asker(shared_room: Room, fresh_name: Name) -> Peer:
    peer = shared_room.enter(fresh_name("alice"))
    peer.say("word AND text NEAR(a b)")
    return peer


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=st.lists(st.sampled_from(SYNTAX) | st.text(max_size=5), max_size=8), glue=st.sampled_from(["", " "]))
def test_query_has_no_syntax_of_the_search_engine(asker: Peer, parts: list[str], glue: str) -> None:
    """Every query is answered, or refused for its length or its lack of words."""
    words = glue.join(parts)
    answer = search(asker, words)

    assert answer["type"] == "found" or answer["code"] in ("bad_request", "too_long"), answer
    if answer["type"] == "found":
        assert answer["words"] == words


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


def test_index_deleted_at_run_time_is_still_used(room: Room) -> None:
    alice = room.enter("alice")
    said = [f"word {number}" for number in range(1, 21)]
    for text in said[:10]:
        alice.say(text)
    texts(alice, "word")
    for path in room.config.data.glob(f"{SEARCH_FILE}*"):
        path.unlink()
    for text in said[10:]:
        alice.say(text)

    assert texts(alice, "word") == said


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
