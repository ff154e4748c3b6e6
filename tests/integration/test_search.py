"""Search over sockets: confirmed messages are found by the users who may see them, whatever happens to the index."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chatserver.store import search_index
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


def test_found_messages_look_like_history(room: Room) -> None:
    """Case and accents do not matter."""
    alice, bob = room.enter("alice"), room.enter("bob")
    alice.say("Caf\u00e9 at noon?")
    bob.say("which cafe")
    whisper(alice, "bob", "the old CAFE")
    bob.ask(command="CH")
    history = bob.next("history")["messages"]

    assert search(bob, "cafe") == {"type": "found", "words": "cafe", "messages": history, "upto": 3}
    assert [message["type"] for message in history] == ["broadcast", "broadcast", "direct"]


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


def test_all_words_must_match_and_star_matches_a_prefix(shared_room: Room, fresh_name: Name) -> None:
    alice, word = shared_room.enter(fresh_name("alice")), fresh_name("red")
    for text in (f"{word} apples", "green apple", f"{word} apple pie"):
        alice.say(text)

    assert texts(alice, f"APPLE {word.upper()}") == [f"{word} apple pie"]
    assert texts(alice, f"app* {word}") == [f"{word} apples", f"{word} apple pie"]
    assert texts(alice, f"blue {word}") == []


def test_search_goes_back_from_the_newest(shared_room: Room, fresh_name: Name) -> None:
    alice, word = shared_room.enter(fresh_name("alice")), fresh_name("page")
    ids = [alice.say(f"{word} {number}")["id"] for number in range(1, 61)]

    everything = [f"{word} {number}" for number in range(1, 61)]
    assert texts(alice, word) == everything[10:]
    assert texts(alice, word, limit=500) == everything
    assert texts(alice, word, limit=3, before=ids[57]) == everything[54:57]
    assert texts(alice, word, limit=3, before=ids[1]) == everything[:1]
    assert texts(alice, word, before=ids[0]) == texts(alice, word, before=0) == []


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


@pytest.mark.parametrize("reason", ["no file", "no FTS5"])
def test_server_works_without_an_index(
    open_room: Callable[..., Room], config: Any, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    if reason == "no file":
        (config.data / SEARCH_FILE).mkdir(parents=True)
    else:
        monkeypatch.setattr(search_index, "_SCHEMA", "CREATE VIRTUAL TABLE public USING fts99(words);")
    room = open_room()
    alice, bob = room.enter("alice"), room.enter("bob")

    refused = search(alice, "word")
    assert refused["code"] == "internal"
    assert ("FTS5" in refused["message"]) is (reason == "no FTS5")
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
