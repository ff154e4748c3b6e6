"""The indexer: a search finds what was stored before it, and an error of the index affects searches only."""

import random
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from chatprotocol.errors import ErrorCode, RequestError
from chatprotocol.events import DirectMessage, PublicMessage, RoomRole
from chatserver.store.database import Database
from chatserver.store.errors import StoreError
from chatserver.store.indexer import Indexer, IndexerTimes, Pace, SearchClosedError, SearchFailedError
from chatserver.store.message_table import find_stored, insert_direct, insert_in_room
from chatserver.store.messages import IndexedMessage, Messages
from chatserver.store.moderation import insert_deletion
from chatserver.store.rooms import LOBBY_ID, end_room, insert_invitation, insert_room, set_role
from chatserver.store.search_index import SEARCH_FILE, Index, IndexClosedError
from chatserver.store.words import terms_of

from .helpers import DEADLINE_SECONDS, Gate, assert_waits, eventually, in_background, must_end, register

FAR = 10**9


class GatedMessages(Messages):
    """The indexer can be stopped where it reads, and told that the disk can't be read."""

    gate: Gate | None = None
    fault: StoreError | None = None
    reads = 0

    def after(self, after_id: int, limit: int) -> list[IndexedMessage]:
        self.reads += 1
        if self.gate is not None:
            self.gate.pass_through()
        if self.fault is not None:
            raise self.fault
        return super().after(after_id, limit)


class Library:
    """A database with two users, and an indexer that looks for new messages only when it is called."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database = database
        self.folder = folder
        self.messages = GatedMessages(database)
        self.alice, self.bob = (register(database, name) for name in ("alice", "bob"))
        self.crashes: list[str] = []
        self.started = ExitStack()
        self.opened: list[Index] = []

    def start(
        self,
        open_index: Callable[[Path, Callable[[int], str | None]], Index] = Index,
        timeout_seconds: float = DEADLINE_SECONDS,
        **times: float,
    ) -> None:
        def open_and_note(folder: Path, fingerprint: Callable[[int], str | None]) -> Index:
            self.opened.append(open_index(folder, fingerprint))
            return self.opened[-1]

        limits = IndexerTimes(timeout_seconds, **{"poll_seconds": 1_000.0, **times})
        self.indexer = Indexer(self.folder, self.messages, self.crashes.append, limits, open_and_note)
        self.indexer.start()
        self.started.callback(self.indexer.stop)

    def publish(self, *texts: str) -> int:
        """Messages of alice; returns the id of the last one."""
        first_id = self.messages.last_id() + 1
        with self.database.transaction() as connection:
            insert_in_room(connection, LOBBY_ID, first_id, 1_000, self.alice.id, texts, [None] * len(texts))
        return first_id + len(texts) - 1

    def whisper(self, text: str) -> int:
        """A direct message of alice to bob."""
        message_id = self.messages.last_id() + 1
        with self.database.transaction() as connection:
            insert_direct(connection, message_id, 1_000, self.alice.id, self.bob.id, text, None)
        return message_id

    def delete(self, message_id: int, *, is_told: bool = True) -> IndexedMessage:
        """Delete a message of alice to the lobby. The indexer is told its text, or the process ends before."""
        with self.database.transaction() as connection:
            stored = find_stored(connection, LOBBY_ID, message_id)
            assert stored is not None
            insert_deletion(connection, message_id, LOBBY_ID, "alice", 1_000)
        message = IndexedMessage(message_id, LOBBY_ID, stored.sender_id, None, stored.text)
        if is_told:
            self.indexer.note_deleted(message)
        return message

    def search(self, query: str, newest_id: int | None = None, limit: int = 50) -> tuple[list[int], int]:
        """As bob."""
        newest_id = self.messages.last_id() if newest_id is None else newest_id
        found, upto_id = self.indexer.search(terms_of(query), self.bob.id, FAR, limit, newest_id)
        return [message.id for message in found], upto_id

    def searched_id(self) -> int | None:
        """The newest message that is searched; None if a search fails."""
        try:
            return self.search("word")[1]
        except SearchFailedError:
            return None

    def fails(self) -> bool:
        return self.searched_id() is None

    @property
    def path(self) -> Path:
        return self.folder / SEARCH_FILE


@pytest.fixture
def library(database: Database, folder: Path) -> Iterator[Library]:
    library = Library(database, folder)
    with library.started:
        yield library
    assert library.crashes == []


def test_search_finds_messages_that_were_stored_before_it(library: Library) -> None:
    """An id that no message has is not waited for, and ids that are not published are not reported."""
    library.start(timeout_seconds=1_000.0)
    for number in range(1, 4):
        library.publish("word")
        assert library.search("word") == (list(range(1, number + 1)), number)
    assert library.search("word", newest_id=7) == ([1, 2, 3], 7)
    assert library.search("word", newest_id=1)[1] == 1


def test_search_returns_whole_messages_oldest_first(library: Library) -> None:
    library.start()
    library.publish("one word", "two words", "three")
    library.whisper("a direct word")
    found, _ = library.indexer.search(terms_of("word*"), library.bob.id, FAR, 2, 4)
    assert found == (
        PublicMessage(2, 1_000, "alice", "two words"),
        DirectMessage(4, 1_000, "alice", "bob", "a direct word"),
    )


def test_database_decides_who_may_see_a_found_message(library: Library) -> None:
    library.whisper("word")
    library.publish("word")
    carol = register(library.database, "carol")
    assert [message.id for message in library.messages.visible(library.bob.id, [1, 2])] == [1, 2]
    assert [message.id for message in library.messages.visible(carol.id, [2, 1])] == [2]


def test_search_has_no_message_before_the_first_id(library: Library) -> None:
    library.publish("old word", "new word", "newest word")
    library.start()
    found, upto_id = library.indexer.search(terms_of("word"), library.bob.id, FAR, 50, 3, first_id=2)
    assert ([message.id for message in found], upto_id) == ([2, 3], 3)


def test_messages_of_a_room_are_found_with_that_room_by_its_members_only(library: Library) -> None:
    library.publish("lobby word")
    library.whisper("direct word")
    with library.database.transaction() as connection:
        rooms = [insert_room(connection, name, 0, is_private=True) for name in ("dev", "plans", "left")]
        dev, plans, left = (room_id for room_id in rooms if room_id)
        for room_id in (dev, left):
            set_role(connection, room_id, library.bob.id, RoomRole.MEMBER)
        insert_invitation(connection, plans, library.bob.id)
        for message_id, room_id in enumerate((dev, plans, left, dev), 3):
            insert_in_room(connection, room_id, message_id, 0, library.alice.id, ["room word"], [None])
    library.start()

    def search(query: str, room_id: int) -> list[int]:
        found, _ = library.indexer.search(terms_of(query), library.bob.id, FAR, 50, 6, room_id)
        return [message.id for message in found]

    assert search("word", LOBBY_ID) == [1, 2]
    assert [search("word", room_id) for room_id in (dev, plans, left)] == [[3, 6], [], [5]]
    assert search("lobby", dev) == search("direct", dev) == search("room", LOBBY_ID) == []
    with library.database.transaction() as connection:
        set_role(connection, left, library.bob.id, None)
        end_room(connection, left)
    assert search("word", left) == []


def test_search_reports_how_far_a_slow_index_is(library: Library) -> None:
    library.publish("word")
    library.start(timeout_seconds=0.05)
    eventually(lambda: not library.fails() and library.search("word") == ([1], 1))
    library.messages.gate = gate = Gate()
    library.search("word", newest_id=2)
    gate.await_thread()
    library.publish("word")
    assert library.search("word") == ([1], 1)
    gate.open()


def test_concurrent_searches_wait_for_more_than_one_slice(library: Library) -> None:
    library.start()
    last_id = library.publish(*["word"] * 1_000)
    found: list[tuple[list[int], int]] = []
    searches = [in_background(lambda: found.append(library.search("word", limit=500))) for _ in range(8)]
    for search in searches:
        must_end(search)
    assert found == [(list(range(501, 1_001)), last_id)] * 8


def test_long_search_is_refused_with_advice(library: Library) -> None:
    """Promise: an absurd search does not hold up the searches of others."""
    library.start(partial(Index, find_seconds=-1.0, find_steps=1))
    library.publish("word")
    with pytest.raises(RequestError, match="too long to find") as refused:
        library.search("w* o*")
    assert refused.value.code is ErrorCode.BAD_REQUEST


def test_damaged_file_is_rebuilt_after_a_search_found_the_damage(library: Library) -> None:
    library.publish(*(f"word {number}" for number in range(1, 2_001)))
    library.start()
    library.search("word")
    library.indexer.stop()
    library.start()
    eventually(lambda: len(library.opened) == 2)  # a search would leave pages in the reader's cache
    with library.path.open("r+b") as file:
        file.seek(4_096)
        file.write(random.Random(1).randbytes(library.path.stat().st_size - 4_096))
    with pytest.raises(SearchFailedError):
        library.search("word")
    with capture_logs() as log:
        eventually(lambda: len(library.opened) == 3)
        eventually(lambda: not library.fails())
    assert library.search("word", limit=2) == ([1_999, 2_000], 2_000)
    assert sum(line["log_level"] == "error" for line in log) <= 1


@pytest.mark.parametrize("fault", ["read", "write"])
def test_searches_work_again_after_an_error_has_passed(library: Library, fault: str) -> None:
    """No message is lost or found twice."""
    failures = [fault == "write"]

    class Failing(Index):
        def add(self, messages: Sequence[IndexedMessage]) -> None:
            if len(messages) > 1 and failures.pop() if failures else False:
                raise sqlite3.OperationalError("attempt to write a readonly database")
            super().add(messages)

    library.start(Failing, retry_seconds=0.01)
    library.publish("word 1")
    library.search("word")
    with capture_logs() as log:
        library.messages.fault = StoreError("The disk is away.") if fault == "read" else None
        library.publish(*(f"word {number}" for number in range(2, 7)))
        eventually(lambda: library.fails() or log)
        library.messages.fault = None
        eventually(lambda: library.searched_id() == 6)  # a search before the index is closed finds the first message
    assert library.search("word") == (list(range(1, 7)), 6)
    assert "error" in [line["log_level"] for line in log]


def test_sqlite_without_fts5_refuses_searches_with_the_reason(library: Library) -> None:
    library.publish("word")
    with capture_logs() as log:
        library.start(partial(Index, schema="CREATE VIRTUAL TABLE public USING fts99(words);"))
        for _ in range(2):
            with pytest.raises(RequestError, match="FTS5") as refused:
                library.search("word")
            assert refused.value.code is ErrorCode.INTERNAL
        library.indexer.stop()
    assert [line["log_level"] for line in log] == ["warning"]


def test_stop_releases_waiting_searches(library: Library) -> None:
    library.messages.gate = gate = Gate()
    library.publish("word")
    library.start(timeout_seconds=1_000.0)
    gate.await_thread()
    told: list[Exception] = []

    def search() -> None:
        try:
            library.search("word")
        except SearchClosedError as error:
            told.append(error)

    searching = in_background(search)
    assert_waits(searching)
    stopping = in_background(library.indexer.stop)
    must_end(searching)
    gate.open()
    must_end(stopping)
    assert len(told) == 1
    with pytest.raises(SearchClosedError):
        library.search("word")


@pytest.mark.parametrize("is_stopping", [True, False])
def test_search_in_a_closed_index_raises_by_the_state_of_the_indexer(library: Library, *, is_stopping: bool) -> None:
    """The server stops, or the index is about to be rebuilt."""
    ending = []

    class Closed(Index):
        def find(self, *_: object) -> list[int]:
            if is_stopping:
                ending.append(in_background(library.indexer.stop))
                must_end(ending[0])
            raise IndexClosedError

    library.start(Closed)
    library.publish("word")
    with pytest.raises(SearchClosedError if is_stopping else SearchFailedError):
        library.search("word")


def test_search_in_a_stale_index_continues_in_the_next_one(library: Library) -> None:
    class Slow(Index):
        def find(self, *arguments: Any) -> list[int]:
            if self is library.opened[0]:
                library.delete(1, is_told=False)
                eventually(lambda: self.closed)
            return super().find(*arguments)

    library.start(Slow, stale_seconds=0.0, poll_seconds=0.01)
    library.publish("word one", "word two")
    assert library.search("word") == ([2], 2)


def test_stop_does_not_wait_until_all_is_indexed(library: Library) -> None:
    """Promise: the server ends within 8 s."""
    library.publish(*["word"] * 2_000)
    library.start(pause=1_000.0, pause_max_seconds=1_000.0)
    eventually(lambda: library.opened and library.opened[0].last_id)
    must_end(in_background(library.indexer.stop))
    assert 0 < library.opened[0].last_id < 2_000


def test_busy_server_makes_the_indexer_pause_longer() -> None:
    """Promise: messages are not delayed by the indexer. A waiting search shortens the pause."""
    now, last_id = 100.0, 0
    pace = Pace(lambda: last_id, clock=lambda: now)
    assert pace.pause(0.001, search_waits=False) == 0.02
    now, last_id = 100.2, 100
    assert pace.pause(0.001, search_waits=False) == 0.001
    assert pace.pause(0.001, search_waits=True) == 0.0
    now, last_id = 101.2, 10_000
    assert pace.pause(0.001, search_waits=False) == 0.02
    assert pace.pause(0.001, search_waits=True) == 0.001
    assert pace.pause(1.0, search_waits=False) == 0.2
    now, last_id = 102.2, 10_100
    assert pace.pause(0.001, search_waits=False) == 0.001


def test_deleted_message_leaves_the_index(library: Library) -> None:
    """Promise: a deleted message is in no search. It takes no place in a result, and its words are not in the file.

    It is deleted before it was indexed, after that, or while the indexer does not run.
    """
    library.start(poll_seconds=0.01)
    library.publish("word one", "word two", "word three", "word four")
    library.delete(4)
    assert library.search("word")[0] == [1, 2, 3]
    library.delete(3)
    eventually(lambda: library.search("word", limit=1) == ([2], 4))
    assert library.opened[0] is library.opened[-1], "the index was not built again"
    library.started.close()
    library.delete(2, is_told=False)
    library.start(stale_seconds=0.0, poll_seconds=0.01)
    eventually(lambda: library.search("word", limit=1)[0] == [1])
    library.publish("word five")
    assert library.search("word")[0] == [1, 5]
    library.started.close()
    with closing(sqlite3.connect(library.path)) as index:
        found = index.execute("SELECT rowid FROM public WHERE public MATCH 'word' ORDER BY rowid").fetchall()
    assert found == [(1,), (5,)]


@pytest.mark.parametrize("is_indexed", [False, True], ids=["told late", "another text is missing"])
def test_deleted_texts_that_wait_do_not_keep_the_indexer_busy(library: Library, *, is_indexed: bool) -> None:
    """The text of a deleted message is told when the deletion is done already, or while that of an earlier is missing.

    The first happens if a message is deleted before it is indexed, and the indexer looks right after the commit.
    """
    library.publish("word one", "word two")
    if is_indexed:
        library.start()
        assert library.search("word")[1] == 2
    deleted = library.delete(1, is_told=False)
    if is_indexed:
        deleted = library.delete(2, is_told=False)
    else:
        library.start()
        assert library.search("word")[0] == [2]
    before = library.messages.reads
    library.indexer.note_deleted(deleted)
    eventually(lambda: library.messages.reads > before)
    before = library.messages.reads
    time.sleep(0.05)  # the time to see that nothing happens
    assert library.messages.reads <= before + 1, "the indexer looks again and again"


def test_index_is_rebuilt_after_half_of_its_messages_were_pruned(library: Library) -> None:
    """A smaller prune leaves words in the index, which no search shows."""

    def prune(upto_id: int) -> None:
        with library.database.transaction() as connection:
            connection.execute("DELETE FROM message WHERE id <= ?", (upto_id,))
        library.indexer.note_pruned()

    library.start()
    library.publish(*["word"] * 10)
    assert library.search("word")[0] == list(range(1, 11))
    prune(4)
    library.publish("word")
    assert library.search("word")[0] == list(range(5, 12))
    assert len(library.opened) == 1
    prune(6)
    eventually(lambda: len(library.opened) == 2 and library.opened[1].first_id == 7)
    assert library.search("word")[0] == list(range(7, 12))
