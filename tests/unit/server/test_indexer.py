"""The indexer: a search finds what was stored before it, and no fault of the index costs more than searches."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from chatprotocol.errors import ErrorCode, RequestError
from chatprotocol.events import DirectMessage, PublicMessage
from chatserver.store import indexer as indexer_module
from chatserver.store import search_index as index_module
from chatserver.store.database import Database
from chatserver.store.errors import StoreError
from chatserver.store.indexer import Indexer, SearchClosedError, SearchFailedError
from chatserver.store.messages import Messages, Written, insert_direct, insert_public
from chatserver.store.search_index import SEARCH_FILE, Index, IndexClosedError
from chatserver.store.words import terms_of

from .rooms import Gate, eventually, in_background, must_end, register

FAR = 10**9


class GatedMessages(Messages):
    """The indexer can be stopped where it reads, and told that the disk can't be read."""

    gate: Gate | None = None
    fault: StoreError | None = None

    def after(self, after_id: int, limit: int) -> list[Written]:
        if self.gate is not None:
            self.gate.pass_through()
        if self.fault is not None:
            raise self.fault
        return super().after(after_id, limit)


class Library:
    """A database with two users, and an indexer that can be started again."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database = database
        self.folder = folder
        self.messages = GatedMessages(database)
        self.alice, self.bob = (register(database, name) for name in ("alice", "bob"))
        self.crashes: list[str] = []
        self.indexer = self.make()
        self.started = ExitStack()

    def make(self) -> Indexer:
        return Indexer(self.folder, self.messages, self.crashes.append)

    def start(self) -> None:
        self.indexer.start()
        self.started.callback(self.indexer.stop)

    def restart(self) -> None:
        self.indexer.stop()
        self.indexer = self.make()
        self.start()

    def say(self, *texts: str) -> int:
        """Returns the id of the last one."""
        first_id = self.messages.last_id() + 1
        with self.database.transaction() as connection:
            insert_public(connection, first_id, 1_000, self.alice.id, texts, [None] * len(texts))
        return first_id + len(texts) - 1

    def whisper(self, text: str) -> int:
        """Alice to Bob."""
        message_id = self.messages.last_id() + 1
        with self.database.transaction() as connection:
            insert_direct(connection, message_id, 1_000, self.alice.id, self.bob.id, text, None)
        return message_id

    def search(self, query: str, newest_id: int | None = None, limit: int = 50) -> tuple[list[int], int]:
        """As bob."""
        newest_id = self.messages.last_id() if newest_id is None else newest_id
        found, upto_id = self.indexer.search(terms_of(query), self.bob.id, FAR, limit, newest_id)
        return [message.id for message in found], upto_id

    @property
    def path(self) -> Path:
        return self.folder / SEARCH_FILE

    def fill_with_rubbish(self, from_page: int = 0) -> None:
        with self.path.open("r+b") as file:
            file.seek(from_page * 4_096)
            file.write(random.Random(1).randbytes(self.path.stat().st_size - from_page * 4_096))


@pytest.fixture
def library(database: Database, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Library]:
    """The indexer looks for news only when it is called."""
    monkeypatch.setattr(indexer_module, "LOOK_SECONDS", 1_000.0)
    library = Library(database, folder)
    with library.started:
        yield library
    assert library.crashes == []


def test_a_search_finds_what_was_stored_before_it_without_waiting_for_the_next_look(library: Library) -> None:
    library.start()
    for number in range(1, 4):
        library.say("word")
        assert library.search("word") == (list(range(1, number + 1)), number)


def test_what_is_found_comes_oldest_first_with_all_that_a_message_has(library: Library) -> None:
    library.start()
    library.say("one word", "two words", "three")
    library.whisper("a direct word")

    found, _ = library.indexer.search(terms_of("word*"), library.bob.id, FAR, 2, 4)
    assert found == (
        PublicMessage(2, 1_000, "alice", "two words"),
        DirectMessage(4, 1_000, "alice", "bob", "a direct word"),
    )


def test_an_id_that_no_message_has_is_not_waited_for(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexer_module, "PATIENCE_SECONDS", 1_000.0)
    library.start()
    library.say("word")

    assert library.search("word", newest_id=7) == ([1], 7)


def test_what_the_index_has_not_reached_in_time_is_told(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    library.say("word")
    library.start()
    library.search("word")
    library.messages.gate = gate = Gate()
    library.say("word")
    monkeypatch.setattr(indexer_module, "PATIENCE_SECONDS", 0.05)

    assert library.search("word") == ([1], 1)
    gate.open()


def test_a_search_does_not_tell_of_ids_that_are_not_published(library: Library) -> None:
    library.start()
    library.say("word", "word")
    library.search("word")

    assert library.search("word", newest_id=1)[1] == 1


def test_nobody_is_shown_what_is_not_for_them_even_if_the_index_says_so(library: Library) -> None:
    """Promise: the index finds, the database decides."""
    library.whisper("word")
    library.say("word")
    carol = register(library.database, "carol")

    assert [message.id for message in library.messages.seen(library.bob.id, [1, 2])] == [1, 2]
    assert [message.id for message in library.messages.seen(carol.id, [2, 1])] == [2]


def test_more_than_one_slice_is_indexed(library: Library) -> None:
    library.start()
    last_id = library.say(*["word"] * 1_000)

    assert library.search("word", limit=500) == (list(range(501, 1_001)), last_id)


# --- what goes wrong ---


def test_what_takes_too_long_is_given_up_with_what_to_do(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: who searches for something absurd does not hold up others who search."""
    library.start()
    library.say("word")
    library.search("word")
    monkeypatch.setattr(index_module, "FIND_SECONDS", -1.0)
    monkeypatch.setattr(index_module, "_STEPS", 1)

    with pytest.raises(RequestError, match="too long to find") as refused:
        library.search("w* o*")
    assert refused.value.code is ErrorCode.BAD_REQUEST


def test_a_file_that_is_found_damaged_by_a_search_is_made_anew(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexer_module, "PATIENCE_SECONDS", 20.0)
    library.say(*(f"word {number}" for number in range(1, 2_001)))
    library.start()
    library.search("word")
    library.restart()
    library.search("word", newest_id=0)
    damaged = library.indexer._index
    library.fill_with_rubbish(from_page=1)

    with pytest.raises(SearchFailedError):
        library.search("word")
    with capture_logs() as log:
        eventually(lambda: library.indexer._index not in (damaged, None))
    assert library.search("word", limit=2) == ([1_999, 2_000], 2_000)
    assert sum(line["log_level"] == "error" for line in log) <= 1


def fails(library: Library) -> bool:
    try:
        library.search("word")
    except SearchFailedError:
        return True
    return False


@pytest.mark.parametrize("harm", [Path.unlink, lambda path: path.write_bytes(b"rubbish" * 1_000)])
def test_a_file_that_was_deleted_or_filled_with_rubbish_is_made_anew_at_the_next_start(
    library: Library, harm: Callable[[Path], object]
) -> None:
    library.say(*(f"word {number}" for number in range(1, 101)))
    library.start()
    library.search("word")
    library.indexer.stop()
    harm(library.path)
    library.restart()

    assert library.search("word", limit=500) == (list(range(1, 101)), 100)


def test_where_there_can_be_no_file_searches_are_refused_and_nothing_else(library: Library) -> None:
    library.path.mkdir()
    library.say("word")
    with capture_logs() as log:
        library.start()
        eventually(lambda: log)
        with pytest.raises(SearchFailedError):
            library.search("word")

    assert [(line["log_level"], line["event"]) for line in log] == [("error", "search index failed")]


def test_after_a_fault_that_has_passed_searches_work_again(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexer_module, "_RETRY_SECONDS", 0.01)
    library.say("word")
    library.messages.fault = StoreError("The disk is away.")
    library.start()
    eventually(lambda: fails(library))
    library.messages.fault = None

    eventually(lambda: not fails(library))
    assert library.search("word") == ([1], 1)


def test_while_the_disk_takes_nothing_searches_are_refused_and_nothing_is_lost(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexer_module, "_RETRY_SECONDS", 0.01)
    library.start()
    library.say("word 1")
    library.search("word")
    index = library.indexer._index
    assert index is not None
    index._writer.execute("PRAGMA query_only = ON")
    with capture_logs() as log:
        library.say(*(f"word {number}" for number in range(2, 7)))
        eventually(lambda: fails(library) or library.search("word")[1] == 6)
        eventually(lambda: not fails(library))
    assert library.search("word") == (list(range(1, 7)), 6)
    assert "readonly" in str([line for line in log if line["log_level"] == "error"])


def test_where_sqlite_has_no_fts5_searches_are_refused_with_the_reason_and_one_warning_is_logged(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_module, "_SCHEMA", "CREATE VIRTUAL TABLE public USING fts99(words);")
    library.say("word")
    with capture_logs() as log:
        library.start()
        for _ in range(2):
            with pytest.raises(RequestError, match="FTS5") as refused:
                library.search("word")
            assert refused.value.code is ErrorCode.INTERNAL
        library.indexer.stop()

    assert [(line["event"], line["reason"]) for line in log] == [("search unavailable", "no_fts5")]


# --- the end ---


def test_who_waits_for_the_index_when_the_server_stops_is_told(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexer_module, "PATIENCE_SECONDS", 1_000.0)
    library.messages.gate = gate = Gate()
    library.say("word")
    library.start()
    gate.await_thread()
    told: list[Exception] = []

    def ask() -> None:
        try:
            library.search("word")
        except SearchClosedError as error:
            told.append(error)

    asker = in_background(ask)
    eventually(lambda: library.indexer._wanted_id)
    stopping = in_background(library.indexer.stop)
    must_end(asker)
    gate.open()
    must_end(stopping)
    assert len(told) == 1
    with pytest.raises(SearchClosedError):
        library.search("word")


@pytest.mark.parametrize("is_stopping", [True, False])
def test_a_search_whose_index_is_closed_is_told_whether_the_server_stops(
    library: Library, monkeypatch: pytest.MonkeyPatch, is_stopping: bool
) -> None:
    """Or whether the index is about to be made again."""
    library.start()
    library.say("word")
    library.search("word")

    def find(*_: object) -> list[int]:
        library.indexer._closed = is_stopping
        raise IndexClosedError

    monkeypatch.setattr(Index, "find", find)
    with pytest.raises(SearchClosedError if is_stopping else SearchFailedError):
        library.search("word")


def test_to_stop_does_not_wait_until_everything_is_indexed(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: the server ends within 8 s, whatever it does."""
    monkeypatch.setattr(indexer_module, "_PAUSE", 1_000.0)
    monkeypatch.setattr(indexer_module, "_PAUSE_MAX_SECONDS", 1_000.0)
    library.say(*["word"] * 2_000)
    library.start()
    eventually(lambda: library.indexer._reached_id)
    must_end(in_background(library.indexer.stop))
    assert 0 < library.indexer._reached_id + 1 < 2_000


def test_to_stop_what_was_never_started_is_nothing(library: Library) -> None:
    library.indexer.stop()


def test_two_can_search_at_once(library: Library) -> None:
    library.say(*(f"word {number}" for number in range(500)))
    library.start()
    library.search("word")
    found: list[tuple[list[int], int]] = []
    askers = [threading.Thread(target=lambda: found.append(library.search("word"))) for _ in range(8)]
    for asker in askers:
        asker.start()
    for asker in askers:
        must_end(asker)
    assert found == [(list(range(451, 501)), 500)] * 8


# --- its pace ---


def test_in_a_busy_room_it_rests_most_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: who talks does not feel that it works."""
    now = 100.0
    last_id = 0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    pace = indexer_module._Pace(lambda: last_id)

    assert pace.pause(0.001, is_wanted=False) == 0.02
    now, last_id = 100.2, 100
    assert pace.pause(0.001, is_wanted=False) == 0.001
    assert pace.pause(0.001, is_wanted=True) == 0.0
    now, last_id = 101.2, 10_000
    assert pace.pause(0.001, is_wanted=False) == 0.02
    assert pace.pause(0.001, is_wanted=True) == 0.001
    assert pace.pause(1.0, is_wanted=False) == 0.2
    now, last_id = 102.2, 10_100
    assert pace.pause(0.001, is_wanted=False) == 0.001
