"""The index of words: what is found, by whom; and the file, whatever happened to it."""

import random
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from chatserver.store import search_index as index_module
from chatserver.store.errors import StoreError
from chatserver.store.messages import Written
from chatserver.store.search_index import SEARCH_FILE, Index, IndexClosedError, NoFtsError, TooLongError
from chatserver.store.words import terms_of, words_of

from .rooms import Gate, eventually, in_background, must_end

ALICE, BOB, CAROL = 1, 2, 12
FAR = 10**9


def public(number: int, text: str) -> Written:
    return Written(number, ALICE, None, text)


def direct(number: int, sender: int, recipient: int, text: str) -> Written:
    return Written(number, sender, recipient, text)


class Shelf:
    """Messages, and indexes of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.messages: list[Written] = []
        self.opened = ExitStack()

    def open(self) -> Index:
        index = Index(self.folder, self)
        self.opened.callback(index.close)
        return index

    def store(self, *messages: Written) -> None:
        self.messages += messages

    def mark(self, message_id: int) -> str | None:
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


def find(index: Index, query: str, reader: int = ALICE, before: int = FAR, limit: int = 50) -> list[int]:
    return index.find(terms_of(query), reader, before, limit)


TALK = (
    public(1, "Good morning everybody"),
    public(2, "good night"),
    direct(3, ALICE, BOB, "a good secret"),
    direct(4, BOB, CAROL, "another secret, good one"),
    direct(5, CAROL, CAROL, "secret diary"),
    public(6, "Gooding and goodwill"),
)

FOUND: list[tuple[str, int, list[int]]] = [
    ("good", ALICE, [3, 2, 1]),
    ("good", BOB, [4, 3, 2, 1]),
    ("good", CAROL, [4, 2, 1]),
    ("GOOD Night", ALICE, [2]),
    ("night morning", ALICE, []),
    ("good*", ALICE, [6, 3, 2, 1]),
    ("good* n*", ALICE, [2]),
    ("secret", ALICE, [3]),
    ("secret", BOB, [4, 3]),
    ("secret", CAROL, [5, 4]),
    ("secret", 99, []),
    ("sec*", 99, []),
    # an account is no word, and its number no beginning of another's
    ("12", CAROL, []),
    ("1* 2*", BOB, []),
    ("nowhere", ALICE, []),
    ("g", ALICE, []),
]


@pytest.mark.parametrize(("query", "reader", "ids"), FOUND)
def test_what_is_found_has_all_the_words_and_is_for_the_reader(
    shelf: Shelf, query: str, reader: int, ids: list[int]
) -> None:
    """Promise: nobody finds what was said between others."""
    index = shelf.open()
    shelf.store(*TALK)
    shelf.fill(index)

    assert find(index, query, reader) == ids


def test_no_text_passes_for_an_account(shelf: Shelf) -> None:
    """Promise: what somebody writes to another decides for nobody who finds it."""
    index = shelf.open()
    shelf.store(direct(1, ALICE, BOB, "word _12 12 \uff3f12"), public(2, "word _1"))
    shelf.fill(index)

    assert find(index, "word", CAROL) == [2]
    assert find(index, "12", ALICE) == [1]


@pytest.mark.parametrize(
    ("before", "limit", "ids"),
    [(FAR, 2, [9, 8]), (9, 2, [8, 7]), (4, 50, [3, 2, 1]), (1, 50, []), (0, 50, []), (FAR, 50, list(range(9, 0, -1)))],
)
def test_the_newest_come_first_and_only_those_below_the_id(
    shelf: Shelf, before: int, limit: int, ids: list[int]
) -> None:
    index = shelf.open()
    for number in range(1, 10):
        shelf.store(public(number, "a word") if number % 2 else direct(number, ALICE, BOB, "a word"))
    shelf.fill(index)

    assert find(index, "word", before=before, limit=limit) == ids


def test_ids_may_have_gaps_of_any_size(shelf: Shelf) -> None:
    index = shelf.open()
    numbers = [7, 8, 32_774, 10**7, 2**62]
    shelf.store(*(public(number, "word") for number in numbers))
    shelf.fill(index)

    assert find(index, "word", before=2**63 - 1) == numbers[::-1]


def test_any_words_are_found_as_a_plain_look_through_all_messages_finds_them(shelf: Shelf) -> None:
    """Beginnings that FTS5 keeps a list of, and longer ones."""
    chance = random.Random(7)
    names = ["a", "ab", "abc", "b", "bc", "\u010de\u0161tina", "lengthy", "lengthier", "rare"]
    accounts = [ALICE, BOB, CAROL]
    index = shelf.open()
    for number in range(1, 2_001):
        text = " ".join(chance.choices(names, weights=[9, 6, 3, 9, 3, 5, 5, 5, 0.02], k=3))
        recipient = chance.choice(accounts) if chance.random() < 0.5 else None
        shelf.store(Written(number, chance.choice(accounts), recipient, text))
        if number % 100 == 0:
            shelf.fill(index)

    for query in ("a", "a*", "a b", "ab* bc", "b* a*", "cest*", "length*", "lengthi* a", "rare", "a ab abc b bc rare"):
        for reader in accounts:
            expected = [
                message.id
                for message in reversed(shelf.messages)
                if message.recipient_id is None or reader in (message.sender_id, message.recipient_id)
                if all(
                    any(word.startswith(term) if is_prefix else word == term for word in words_of(message.text))
                    for term, is_prefix in terms_of(query)
                )
            ]
            assert find(index, query, reader, limit=10_000) == expected
            assert find(index, query, reader, before=1_000, limit=7) == [each for each in expected if each < 1_000][:7]


# --- the file ---


def is_whole(shelf: Shelf) -> bool:
    """Does an index that is opened now find everything, once it was filled?"""
    index = shelf.open()
    shelf.fill(index)
    return find(index, "word", limit=1_000) == [message.id for message in reversed(shelf.messages)]


def stored(shelf: Shelf, count: int = 10) -> None:
    """So many messages in an index that was closed."""
    shelf.store(*(public(number, f"word {number}") for number in range(1, count + 1)))
    index = shelf.open()
    shelf.fill(index)
    index.close()


def test_what_was_written_is_not_read_again(shelf: Shelf) -> None:
    stored(shelf)
    index = shelf.open()

    assert index.last_id == 10
    assert find(index, "word") == list(range(10, 0, -1))


def test_what_was_added_is_there_after_the_server_was_killed(shelf: Shelf, tmp_path: Path) -> None:
    shelf.store(*(public(number, "word") for number in range(1, 11)))
    shelf.fill(shelf.open())
    shelf.folder = Path(shutil.copytree(shelf.folder, tmp_path / "as it was left"))
    index = shelf.open()

    assert index.last_id == 10
    assert find(index, "word") == list(range(10, 0, -1))


def test_the_file_is_for_nobody_else(shelf: Shelf) -> None:
    """It tells what was said between two."""
    stored(shelf)
    shelf.open()

    files = list(shelf.folder.glob(f"{SEARCH_FILE}*"))
    assert len(files) == 3
    assert {each.stat().st_mode & 0o777 for each in files} == {0o600}


def fill_with_rubbish(path: Path) -> None:
    path.write_bytes(random.Random(1).randbytes(path.stat().st_size))


def empty(path: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5_000])


def be_of_another_version(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")


def have_other_tables(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("CREATE TABLE reached (x); CREATE TABLE other (y);")


def lack_a_column(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("ALTER TABLE reached RENAME COLUMN mark TO spot")


def have_a_schema_that_is_no_text(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"'_'\"", b"'_'\xff"))


def lack_a_table(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE direct")


def lack_the_row(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DELETE FROM reached")
        connection.commit()


@pytest.mark.parametrize(
    "harm",
    [
        Path.unlink,
        empty,
        cut,
        fill_with_rubbish,
        be_of_another_version,
        have_other_tables,
        lack_a_column,
        have_a_schema_that_is_no_text,
        lack_a_table,
        lack_the_row,
    ],
)
def test_a_file_that_is_no_index_is_made_anew(shelf: Shelf, harm: Callable[[Path], None]) -> None:
    """Promise: what is wrong with the index is no reason not to start."""
    stored(shelf)
    harm(shelf.path)

    assert shelf.open().last_id == 0
    assert is_whole(shelf)


def test_an_index_of_other_messages_is_made_anew(shelf: Shelf) -> None:
    stored(shelf)
    shelf.messages = []
    shelf.store(*(public(number, f"word but another {number}") for number in range(1, 12)))

    assert shelf.open().last_id == 0
    assert is_whole(shelf)


def test_an_index_that_is_ahead_of_the_messages_is_made_anew(shelf: Shelf) -> None:
    """After a backup was put back, from where it was then on other things are said."""
    stored(shelf, 20)
    shelf.messages = shelf.messages[:10]
    index = shelf.open()
    assert index.last_id == 0

    shelf.store(*(public(number, f"word of later {number}") for number in range(11, 14)))
    shelf.fill(index)
    assert find(index, "word") == list(range(13, 0, -1))
    assert find(index, "later") == [13, 12, 11]


def test_a_disk_that_is_full_for_a_while_loses_nothing_and_takes_nothing_twice(shelf: Shelf) -> None:
    """Promise: messages are in it all, with how far it got, or none of them."""
    index = shelf.open()
    shelf.store(*(public(number, "word") for number in range(1, 4)))
    shelf.fill(index)
    (pages,) = index._writer.execute("PRAGMA page_count").fetchone()
    index._writer.execute(f"PRAGMA max_page_count = {pages}")
    shelf.store(*(public(number, f"word {number}" * 20) for number in range(4, 2_000)))
    with pytest.raises(sqlite3.OperationalError, match="full"):
        shelf.fill(index)
    assert index.last_id == 3
    assert find(index, "word") == [3, 2, 1]
    index._writer.execute(f"PRAGMA max_page_count = {2**30}")
    shelf.fill(index)

    assert find(index, "word", limit=3_000) == list(range(1_999, 0, -1))


def test_what_can_not_be_marked_is_not_taken(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> str:
        raise StoreError("The disk is away.")

    index = shelf.open()
    shelf.store(public(1, "word"))
    with monkeypatch.context() as broken:
        broken.setattr(shelf, "mark", fail)
        with pytest.raises(StoreError):
            shelf.fill(index)
    assert find(index, "word") == []

    shelf.fill(index)
    assert find(index, "word") == [1]


def test_a_search_that_finds_the_file_damaged_says_so(shelf: Shelf) -> None:
    stored(shelf, 2_000)
    index = shelf.open()
    with shelf.path.open("r+b") as file:
        file.seek(4_096)
        file.write(random.Random(1).randbytes(shelf.path.stat().st_size - 4_096))

    with pytest.raises(sqlite3.DatabaseError):
        find(index, "word")


@pytest.mark.parametrize("is_there", [False, True])
def test_an_sqlite_without_fts5_is_told_from_a_fault(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, is_there: bool
) -> None:
    if is_there:
        stored(shelf)
    monkeypatch.setattr(index_module, "_VERSION", 99)
    monkeypatch.setattr(index_module, "_SCHEMA", "CREATE VIRTUAL TABLE public USING fts99(words);")

    with pytest.raises(NoFtsError):
        shelf.open()


# --- the end ---


def many(shelf: Shelf) -> Index:
    """An index with so much in it that a search can be interrupted."""
    index = shelf.open()
    shelf.store(*(public(number, "left" if number % 2 else "right") for number in range(1, 20_001)))
    shelf.fill(index)
    return index


def test_what_takes_too_long_is_given_up(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: who searches for something absurd does not hold up others who search."""
    index = many(shelf)
    assert find(index, "left right") == []
    monkeypatch.setattr(index_module, "FIND_SECONDS", -1.0)
    monkeypatch.setattr(index_module, "_STEPS", 1)
    with pytest.raises(TooLongError):
        find(index, "left right")
    monkeypatch.undo()

    assert find(index, "left", limit=1) == [19_999]


class GatedTime:
    """Who searches stops where it looks whether it may go on."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._looks = 0

    def monotonic(self) -> float:
        self._looks += 1
        if self._looks == 2:
            self._gate.pass_through()
        return 0.0


def test_to_close_it_is_not_waited_until_a_search_has_ended(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: the server ends within 8 s, whoever searches for whatever."""
    index = many(shelf)
    gate = Gate()
    monkeypatch.setattr(index_module, "_STEPS", 1)
    monkeypatch.setattr(index_module, "time", GatedTime(gate))
    told: list[list[int] | IndexClosedError] = []

    def search() -> None:
        try:
            told.append(find(index, "left right"))
        except IndexClosedError as error:
            told.append(error)

    asking = in_background(search)
    gate.await_thread()
    closing_it = in_background(index.close)
    eventually(lambda: index._is_closed)
    gate.open()
    must_end(asking)
    must_end(closing_it)
    assert [type(each) for each in told] == [IndexClosedError]


def test_who_searches_a_closed_index_is_told(shelf: Shelf) -> None:
    index = shelf.open()
    index.close()
    index.close()

    with pytest.raises(IndexClosedError):
        find(index, "word")


def test_who_searches_while_messages_are_added_finds_each_once(shelf: Shelf) -> None:
    index = shelf.open()
    shelf.store(*(public(number, f"word {number}") for number in range(1, 600)))
    is_over = threading.Event()
    faults: list[list[int]] = []

    def look() -> None:
        while not is_over.is_set():
            known = index.last_id
            found = find(index, "word", limit=1_000)
            if len(found) < known or found != list(range(len(found), 0, -1)):
                faults.append(found)

    threads = [threading.Thread(target=look) for _ in range(3)]
    for thread in threads:
        thread.start()
    for message in shelf.messages:
        index.add([message])
    is_over.set()
    for thread in threads:
        thread.join()
    assert faults == []
