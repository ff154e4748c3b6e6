"""Searching: what was confirmed is found, by those who may see it, whatever happened to the index."""

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


def search(peer: Peer, words: str, **members: Any) -> dict[str, Any]:
    """The answer, found or error."""
    peer.ask(command="search", words=words, **members)
    return peer.next("found", "error")


def texts(peer: Peer, words: str, **members: Any) -> list[str]:
    """What is found, as texts."""
    answer = search(peer, words, **members)
    assert answer["type"] == "found", answer
    return [message["message"] for message in answer["messages"]]


def whisper(peer: Peer, to: str, text: str) -> None:
    peer.ask(command="DM", to=to, message=text)
    peer.next("sent")


def test_what_was_confirmed_is_found_as_history_would_show_it(room: Room) -> None:
    alice, bob = room.enter("alice"), room.enter("bob")
    alice.say("Caf\u00e9 at noon?")
    bob.say("which cafe")
    whisper(alice, "bob", "the old CAFE")
    bob.ask(command="CH")
    history = bob.next("history")["messages"]

    assert search(bob, "cafe") == {"type": "found", "words": "cafe", "messages": history, "upto": 3}
    assert [message["type"] for message in history] == ["broadcast", "broadcast", "direct"]


def test_what_the_user_has_just_posted_is_found_before_it_is_confirmed(room: Room) -> None:
    alice = room.enter("alice")
    for number in range(1, 21):
        alice.ask(command="PM", message=f"number {number}")
        assert len(texts(alice, "number")) == number


def test_nobody_finds_what_was_said_between_others(room: Room) -> None:
    """Promise: only what the user may see."""
    alice, bob, eve = (room.enter(name) for name in ("alice", "bob", "eve"))
    whisper(alice, "bob", "the secret plan")
    whisper(bob, "alice", "a secret answer")
    whisper(eve, "eve", "my own secret")
    alice.say("no secret at all")
    both = ["the secret plan", "a secret answer", "no secret at all"]

    assert texts(alice, "secret") == texts(bob, "secret") == both
    assert texts(eve, "secret") == ["my own secret", "no secret at all"]
    assert texts(eve, "plan") == texts(eve, "pla*") == texts(room.enter("new"), "answer") == []


def test_every_word_must_be_there_and_a_star_stands_for_any_end(room: Room) -> None:
    alice = room.enter("alice")
    for text in ("red apples", "green apple", "red apple pie"):
        alice.say(text)

    assert texts(alice, "apple") == ["green apple", "red apple pie"]
    assert texts(alice, "APPLE red") == ["red apple pie"]
    assert texts(alice, "app* r*") == ["red apples", "red apple pie"]
    assert texts(alice, "blue apple") == []


def test_the_newest_are_found_and_one_can_go_back_from_there(room: Room) -> None:
    alice = room.enter("alice")
    for number in range(1, 61):
        alice.say(f"word {number}")

    everything = [f"word {number}" for number in range(1, 61)]
    assert texts(alice, "word") == everything[10:]
    assert texts(alice, "word", limit=500) == everything
    assert texts(alice, "word", limit=3) == everything[-3:]
    assert texts(alice, "word", limit=3, before=58) == everything[54:57]
    assert texts(alice, "word", limit=3, before=2) == everything[:1]
    assert texts(alice, "word", before=1) == texts(alice, "word", before=0) == []


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("", "bad_request"),
        (" \t", "bad_request"),
        ('"*" -()', "bad_request"),
        ("x" * 257, "too_long"),
        (" ".join("abcdefghijklmnopq"), "too_long"),
    ],
)
def test_a_query_that_can_not_be_used_is_refused_and_the_connection_goes_on(room: Room, words: str, code: str) -> None:
    alice = room.enter("alice")

    assert search(alice, words)["code"] == code
    alice.say("still here")
    assert texts(alice, "here") == ["still here"]


def test_who_is_not_logged_in_finds_nothing(room: Room) -> None:
    assert search(room.peer(), "word")["code"] == "not_logged_in"


SYNTAX = [
    "AND",
    "OR",
    "NOT",
    "NEAR(a b)",
    '"',
    "'",
    "text:",
    "-",
    "^",
    "(",
    ")",
    "{",
    "+",
    "*",
    ":",
    "%",
    "\0",
    ";",
    "word",
]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=st.lists(st.sampled_from(SYNTAX) | st.text(max_size=5), max_size=8), glue=st.sampled_from(["", " "]))
def test_whatever_is_asked_is_answered_or_refused(asker: Peer, parts: list[str], glue: str) -> None:
    """Promise: no engine's syntax leaks through."""
    words = glue.join(parts)
    answer = search(asker, words)

    assert answer["type"] == "found" or answer["code"] in ("bad_request", "too_long"), answer
    if answer["type"] == "found":
        assert answer["words"] == words


@pytest.fixture
def asker(room: Room) -> Peer:
    peer = room.enter("alice")
    peer.say("word AND text NEAR(a b)")
    return peer


# --- the file ---


def nothing(_: Path) -> None:
    pass


def fill_with_rubbish(path: Path) -> None:
    path.write_bytes(b"rubbish" * 1_000)


@pytest.mark.parametrize("harm", [nothing, fill_with_rubbish, lambda path: path.unlink()])
def test_after_a_restart_everything_is_found_whatever_became_of_the_index(
    open_room: Callable[..., Room], config: Any, harm: Callable[[Path], None]
) -> None:
    room = open_room()
    alice = room.enter("alice")
    said = [f"word {number}" for number in range(1, 41)]
    for text in said:
        alice.say(text)
    assert texts(alice, "word") == said
    room.stop()
    path = config.data / SEARCH_FILE
    assert path.stat().st_mode & 0o777 == 0o600
    harm(path)

    again = open_room().enter("alice")
    assert texts(again, "word") == said
    again.say("word 41")
    assert texts(again, "word") == [*said, "word 41"]


def test_an_index_of_another_database_finds_nothing_of_it(open_room: Callable[..., Room], config: Any) -> None:
    """As after a backup was put back."""
    room = open_room()
    alice = room.enter("alice")
    for number in range(40):
        alice.say(f"old word {number}")
    texts(alice, "word")
    room.stop()
    for name in ("chat.db", "chat.state"):
        (config.data / name).unlink()

    bob = open_room().enter("bob")
    bob.say("new word")
    assert texts(bob, "word") == ["new word"]
    assert texts(bob, "old") == []


def test_a_file_that_is_deleted_while_the_server_runs_costs_nothing(room: Room) -> None:
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


def test_where_there_can_be_no_index_the_room_goes_on_without(open_room: Callable[..., Room], config: Any) -> None:
    (config.data / SEARCH_FILE).mkdir(parents=True)
    room = open_room()
    alice, bob = room.enter("alice"), room.enter("bob")

    assert search(alice, "word")["code"] == "internal"
    alice.say("word")
    assert bob.next("broadcast")["message"] == "word"
    assert not room.has_crashed


def test_where_sqlite_has_no_fts5_the_room_goes_on_without(
    open_room: Callable[..., Room], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_index, "_SCHEMA", "CREATE VIRTUAL TABLE public USING fts99(words);")
    room = open_room()
    alice, bob = room.enter("alice"), room.enter("bob")

    refused = search(alice, "word")
    assert (refused["code"], "FTS5" in refused["message"]) == ("internal", True)
    alice.say("word")
    assert bob.next("broadcast")["message"] == "word"
    assert not room.has_crashed


def test_many_who_search_do_not_hold_up_those_who_talk(room: Room) -> None:
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
