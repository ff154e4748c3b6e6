"""The search index: which messages a query finds for which reader; and the file, damaged in any way."""

import itertools
import random
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from chatserver.store.errors import StoreError
from chatserver.store.messages import IndexedMessage
from chatserver.store.rooms import DIRECT_ID, LOBBY_ID
from chatserver.store.search_index import SEARCH_FILE, Index, IndexClosedError, NoFtsError, TooLongError
from chatserver.store.words import terms_of, words_of

from .helpers import Gate, eventually, in_background, must_end

ALICE, BOB, CAROL = 1, 2, 12
FAR = 10**9


def public(number: int, text: str) -> IndexedMessage:
    return IndexedMessage(number, LOBBY_ID, ALICE, None, text)


def direct(number: int, sender: int, recipient: int, text: str) -> IndexedMessage:
    return IndexedMessage(number, DIRECT_ID, sender, recipient, text)


class Shelf:
    """Messages, and indexes of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.messages: list[IndexedMessage] = []
        self.fault: StoreError | None = None
        self.opened = ExitStack()

    def open(self, **options: Any) -> Index:
        index = Index(self.folder, self.fingerprint, **options)
        self.opened.callback(index.close)
        return index

    def store(self, *messages: IndexedMessage) -> None:
        self.messages += messages

    def fingerprint(self, message_id: int) -> str | None:
        if self.fault:
            raise self.fault
        return next((message.text for message in self.messages if message.id == message_id), None)

    def fill(self, index: Index) -> None:
        index.add([message for message in self.messages if message.id > index.last_id])

    @property
    def path(self) -> Path:
        return self.folder / SEARCH_FILE


@pytest.fixture
def shelf(folder: Path) -> Iterator[Shelf]:
    shelf = Shelf(folder)
    with shelf.opened:
        yield shelf


def find(
    index: Index,
    query: str,
    reader: int = ALICE,
    before: int = FAR,
    limit: int = 50,
    room: int = LOBBY_ID,
    other: int | None = None,
) -> list[int]:
    return index.find(terms_of(query), reader, before, limit, room, other)


def is_direct_of(reader: int, message: IndexedMessage) -> bool:
    return message.conversation_id == DIRECT_ID and reader in (message.sender_id, message.recipient_id)


def test_text_can_not_pass_for_an_account(shelf: Shelf) -> None:
    """Promise: direct messages are found by their sender and recipient only. An account number is no word."""
    index = shelf.open()
    shelf.store(direct(1, ALICE, BOB, "word _12 12 \uff3f12"), public(2, "word _1"), direct(3, CAROL, CAROL, "WORD"))
    shelf.fill(index)
    assert [find(index, "word", reader) for reader in (ALICE, BOB, CAROL, 99)] == [[2, 1], [2, 1], [3, 2], [2]]
    assert find(index, "12", ALICE) == [1]
    assert find(index, "12", CAROL) == find(index, "1* 2*", BOB) == find(index, "wo* nowhere") == []


def test_find_returns_the_newest_below_an_id(shelf: Shelf) -> None:
    """Ids may have gaps of any size."""
    numbers = [1, 2, 7, 8, 32_774, 10**7, 2**62]
    index = shelf.open()
    for number in numbers:
        shelf.store(public(number, "a word") if number % 2 else direct(number, ALICE, BOB, "a word"))
    shelf.fill(index)
    for before, limit in ((2**63 - 1, 50), (2**63 - 1, 2), (32_774, 2), (2, 50), (1, 50), (0, 50)):
        expected = [number for number in numbers[::-1] if number < before][:limit]
        assert find(index, "word", before=before, limit=limit) == expected


def test_find_agrees_with_a_scan_of_all_messages(shelf: Shelf) -> None:
    """In a room, or in the lobby and the reader's direct messages.

    Also with prefixes that are longer than those that FTS5 keeps lists of.
    """
    chance = random.Random(7)
    names = ["a", "ab", "abc", "b", "bc", "\u010de\u0161tina", "lengthy", "lengthier", "rare"]
    accounts = [ALICE, BOB, CAROL]
    index = shelf.open()
    for number in range(1, 2_001):
        text = " ".join(chance.choices(names, weights=[9, 6, 3, 9, 3, 5, 5, 5, 0.02], k=3))
        room = chance.choice([DIRECT_ID, LOBBY_ID, ALICE + 1, BOB + 10])  # rooms with the numbers of accounts
        recipient = chance.choice(accounts) if room == DIRECT_ID else None
        shelf.store(IndexedMessage(number, room, chance.choice(accounts), recipient, text))
        if number % 100 == 0:
            shelf.fill(index)
    for query in ("a", "a*", "a b", "ab* bc", "b* a*", "cest*", "length*", "lengthi* a", "rare", "a ab abc b bc rare"):
        for reader, room in itertools.product(accounts, (LOBBY_ID, ALICE + 1, BOB + 10)):
            expected = [
                message.id
                for message in reversed(shelf.messages)
                if message.conversation_id == room or (room == LOBBY_ID and is_direct_of(reader, message))
                if all(
                    any(word.startswith(term) if is_prefix else word == term for word in words_of(message.text))
                    for term, is_prefix in terms_of(query)
                )
            ]
            assert find(index, query, reader, limit=10_000, room=room) == expected
            page = [each for each in expected if each < 1_000][:7]
            assert find(index, query, reader, before=1_000, limit=7, room=room) == page
        for reader, other in itertools.product(accounts, accounts):
            pair = {
                message.id for message in shelf.messages if {message.sender_id, message.recipient_id} == {reader, other}
            }
            expected = [each for each in find(index, query, reader, limit=10_000) if each in pair]
            assert find(index, query, reader, limit=10_000, other=other) == expected, "also the messages to oneself"


def store_words(shelf: Shelf, count: int = 10) -> None:
    """Index this many messages, and close the index."""
    shelf.store(*(public(number, f"word {number}") for number in range(1, count + 1)))
    index = shelf.open()
    shelf.fill(index)
    index.close()


@pytest.mark.parametrize("is_killed", [False, True])
def test_index_is_kept_over_a_restart(shelf: Shelf, tmp_path: Path, *, is_killed: bool) -> None:
    """Its files are private: they tell what two users wrote to each other."""
    shelf.store(*(public(number, "word") for number in range(1, 11)))
    index = shelf.open()
    shelf.fill(index)
    files = list(shelf.folder.glob(f"{SEARCH_FILE}*"))
    assert [each.stat().st_mode & 0o777 for each in files] == [0o600] * 3
    if is_killed:
        shelf.folder = Path(shutil.copytree(shelf.folder, tmp_path / "as it was left"))
    else:
        index.close()
    index = shelf.open()
    assert index.last_id == 10
    assert find(index, "word") == list(range(10, 0, -1))


def execute(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def replace_tables(path: Path) -> None:
    path.unlink()
    execute(path, "CREATE TABLE reached (x)", "CREATE TABLE other (y)")


harms: dict[str, Callable[[Path], object]] = {
    "deleted": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:5_000]),
    "rubbish": lambda path: path.write_bytes(random.Random(1).randbytes(path.stat().st_size)),
    "a trigger": lambda path: execute(path, "CREATE TRIGGER t AFTER UPDATE ON reached BEGIN SELECT 1; END"),
    "another version": lambda path: execute(path, "PRAGMA user_version = 99"),
    "other tables": replace_tables,
    "a column is missing": lambda path: execute(path, "ALTER TABLE reached RENAME COLUMN mark TO spot"),
    "a table is missing": lambda path: execute(path, "DROP TABLE direct"),
    "the row is missing": lambda path: execute(path, "DELETE FROM reached"),
    "the schema is not UTF-8": lambda path: path.write_bytes(path.read_bytes().replace(b"'_'\"", b"'_'\xff")),
}


@pytest.mark.parametrize("harm", harms)
def test_file_that_is_no_index_is_rebuilt(shelf: Shelf, harm: str) -> None:
    """Promise: a broken index does not prevent the start."""
    store_words(shelf)
    harms[harm](shelf.path)
    index = shelf.open()
    assert index.last_id == 0
    shelf.fill(index)
    assert find(index, "word") == list(range(10, 0, -1))


@pytest.mark.parametrize("kept", [0, 10])
def test_index_of_other_messages_is_rebuilt(shelf: Shelf, kept: int) -> None:
    """Such as of a database that was replaced, or restored from a backup that is older than the index."""
    store_words(shelf, 20)
    shelf.messages = shelf.messages[:kept]
    if not kept:
        shelf.store(*(public(number, f"other {number}") for number in range(1, 22)))
    index = shelf.open()
    assert index.last_id == 0
    shelf.store(public(30, "later word"))
    shelf.fill(index)
    assert find(index, "word") == [30, *range(kept, 0, -1)]


def test_failed_add_indexes_none_of_its_messages(shelf: Shelf) -> None:
    """Promise: messages are in the index with their position, or not at all. None is lost or taken twice."""
    index = shelf.open()
    shelf.store(public(1, "word"))
    shelf.fill(index)
    shelf.store(public(2, "word"), direct(3, ALICE, BOB, "word"))
    shelf.fault = StoreError("The disk is away.")
    with pytest.raises(StoreError):
        shelf.fill(index)
    assert index.last_id == 1
    assert find(index, "word") == [1]
    shelf.fault = None
    shelf.fill(index)
    assert find(index, "word") == [3, 2, 1]


@pytest.mark.parametrize("is_there", [False, True])
def test_sqlite_without_fts5_raises_its_own_error(shelf: Shelf, *, is_there: bool) -> None:
    if is_there:
        store_words(shelf)
        execute(shelf.path, "PRAGMA user_version = 99")
    with pytest.raises(NoFtsError):
        shelf.open(schema="CREATE VIRTUAL TABLE public USING fts99(words);")


def fill_with_many(shelf: Shelf, index: Index) -> None:
    """So many messages that a search takes some time."""
    shelf.store(*(public(number, "left" if number % 2 else "right") for number in range(1, 20_001)))
    shelf.fill(index)


def test_long_search_is_interrupted(shelf: Shelf) -> None:
    """Promise: an absurd search does not hold up the searches of others."""
    now, step = 0.0, 10.0

    def clock() -> float:
        nonlocal now
        now += step
        return now

    index = shelf.open(clock=clock, find_steps=1)
    fill_with_many(shelf, index)
    with pytest.raises(TooLongError):
        find(index, "left right")
    step = 0.0
    assert find(index, "left", limit=1) == [19_999]


def test_close_interrupts_running_searches(shelf: Shelf) -> None:
    """Promise: the server ends within 8 s."""
    gate = Gate()
    looks: list[float] = []

    def clock() -> float:
        looks.append(0.0)
        if len(looks) == 2:
            gate.pass_through()
        return 0.0

    index = shelf.open(clock=clock, find_steps=1)
    fill_with_many(shelf, index)
    outcomes: list[list[int] | IndexClosedError] = []

    def search() -> None:
        try:
            outcomes.append(find(index, "left right"))
        except IndexClosedError as error:
            outcomes.append(error)

    searching = in_background(search)
    gate.await_thread()
    closing_it = in_background(index.close)
    eventually(lambda: index.closed)
    gate.open()
    must_end(searching)
    must_end(closing_it)
    assert [type(each) for each in outcomes] == [IndexClosedError]
    index.close()
    with pytest.raises(IndexClosedError):
        find(index, "word")


def test_search_during_add_finds_each_message_once(shelf: Shelf) -> None:
    index = shelf.open()
    shelf.store(*(public(number, f"word {number}") for number in range(1, 300)))
    is_over = threading.Event()
    faults: list[list[int]] = []

    def search() -> None:
        while not is_over.is_set():
            known = index.last_id
            found = find(index, "word", limit=1_000)
            if len(found) < known or found != list(range(len(found), 0, -1)):
                faults.append(found)

    threads = [in_background(search) for _ in range(3)]
    for message in shelf.messages:
        index.add([message])
    is_over.set()
    for thread in threads:
        must_end(thread)
    assert faults == []
