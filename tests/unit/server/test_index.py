"""The index of words: what is found, by whom; and the file, whatever happened to it."""

import random
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from chatserver.store import index as index_module
from chatserver.store.index import SEARCH_FILE, Index, IndexClosedError
from chatserver.store.messages import Written
from chatserver.store.words import terms_of, words_of

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
        self.is_stopping = False
        # Called while a chunk is being written.
        self.when_marked: Callable[[], object] = lambda: None
        self.opened = ExitStack()

    def open(self) -> Index:
        index = Index(self.folder, self, lambda: self.is_stopping)
        self.opened.callback(index.close)
        return index

    def store(self, *messages: Written) -> None:
        self.messages += messages

    def mark(self, message_id: int) -> str | None:
        self.when_marked()
        return dict(self.texts([message_id])).get(message_id)

    def texts(self, ids: Sequence[int]) -> list[tuple[int, str]]:
        return [(message.id, message.text) for message in self.messages if message.id in ids]

    def fill(self, index: Index) -> None:
        index.add(message for message in self.messages if message.id > index.last_id)

    @property
    def path(self) -> Path:
        return self.folder / SEARCH_FILE

    def chunks(self) -> list[tuple[int, int]]:
        with closing(sqlite3.connect(self.path)) as connection:
            return connection.execute("SELECT first_id, last_id FROM chunk ORDER BY first_id").fetchall()


@pytest.fixture
def shelf(folder: Path) -> Iterator[Shelf]:
    shelf = Shelf(folder)
    with shelf.opened:
        yield shelf


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of three words."""
    monkeypatch.setattr(index_module, "_WORDS_MAX", 3)


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


@pytest.mark.parametrize("are_written", [False, True])
@pytest.mark.parametrize(("query", "reader", "ids"), FOUND)
def test_what_is_found_has_all_the_words_and_is_for_the_reader(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, are_written: bool, query: str, reader: int, ids: list[int]
) -> None:
    """Promise: nobody finds what was said between others. In memory and in the file."""
    if are_written:
        monkeypatch.setattr(index_module, "_WORDS_MAX", 3)
    index = shelf.open()
    shelf.store(*TALK)
    shelf.fill(index)

    assert find(index, query, reader) == ids
    assert len(shelf.chunks()) == (4 if are_written else 0)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("before", "limit", "ids"),
    [(FAR, 2, [9, 8]), (9, 2, [8, 7]), (4, 50, [3, 2, 1]), (1, 50, []), (0, 50, []), (FAR, 50, list(range(9, 0, -1)))],
)
def test_the_newest_come_first_and_only_those_below_the_id(
    shelf: Shelf, before: int, limit: int, ids: list[int]
) -> None:
    index = shelf.open()
    shelf.store(*(public(number, f"word and {number}") for number in range(1, 10)))
    shelf.fill(index)

    assert find(index, "word", before=before, limit=limit) == ids


def test_ids_may_have_gaps_of_any_size(shelf: Shelf) -> None:
    index = shelf.open()
    numbers = [7, 8, 32_774, 32_775, 10**7, 2**62]
    shelf.store(*(public(number, "word") for number in numbers))
    shelf.fill(index)

    assert find(index, "word", before=2**63 - 1) == numbers[::-1]
    assert shelf.chunks() == [(7, 32_774), (32_775, 32_775), (10**7, 10**7)]


def test_any_words_are_found_as_a_plain_look_through_all_messages_finds_them(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lists and maps, in memory and written, must agree."""
    monkeypatch.setattr(index_module, "CHUNK_IDS", 1_500)
    chance = random.Random(7)
    names = ["a", "ab", "abc", "b", "bc", "rare"]
    accounts = [ALICE, BOB, CAROL]
    for number in range(1, 4_001):
        text = " ".join(chance.choices(names, weights=[9, 6, 3, 9, 3, 0.02], k=3))
        recipient = chance.choice(accounts) if chance.random() < 0.5 else None
        shelf.store(Written(number, chance.choice(accounts), recipient, text))
    index = shelf.open()
    shelf.fill(index)
    assert len(shelf.chunks()) == 2

    for query in ("a", "a*", "a b", "ab* bc", "b* a*", "rare", "rare a*", "a ab abc b bc rare"):
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
            assert find(index, query, reader, before=2_000, limit=7) == [each for each in expected if each < 2_000][:7]


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


@pytest.mark.usefixtures("small")
def test_what_was_written_is_not_read_again(shelf: Shelf) -> None:
    stored(shelf)
    index = shelf.open()

    assert index.last_id == shelf.chunks()[-1][1] >= 8
    assert find(index, "word") == list(range(index.last_id, 0, -1))


@pytest.mark.usefixtures("small")
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
        connection.executescript("CREATE TABLE chunk (x); CREATE TABLE other (y);")


def lack_a_column(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("ALTER TABLE chunk RENAME COLUMN mark TO spot")


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    "harm", [Path.unlink, empty, cut, fill_with_rubbish, be_of_another_version, have_other_tables, lack_a_column]
)
def test_a_file_that_is_no_index_is_made_anew(shelf: Shelf, harm: Callable[[Path], None]) -> None:
    """Promise: what is wrong with the index is no reason not to start."""
    stored(shelf)
    harm(shelf.path)

    assert shelf.open().last_id == 0
    assert is_whole(shelf)


@pytest.mark.usefixtures("small")
def test_an_index_of_other_messages_is_dropped(shelf: Shelf) -> None:
    stored(shelf)
    shelf.messages = []
    shelf.store(*(public(number, f"word but another {number}") for number in range(1, 8)))

    assert shelf.open().last_id == 0
    assert shelf.chunks() == []
    assert is_whole(shelf)


@pytest.mark.usefixtures("small")
def test_an_index_that_is_ahead_of_the_messages_keeps_what_is_theirs(shelf: Shelf) -> None:
    """After a backup was put back, from where it was then on other things were said."""
    stored(shelf, 20)
    shelf.messages = shelf.messages[:10]
    shelf.store(*(public(number, f"word of later {number}") for number in range(11, 14)))
    index = shelf.open()

    assert 8 <= index.last_id <= 10
    shelf.fill(index)
    assert find(index, "word") == list(range(13, 0, -1))
    assert find(index, "later") == [13, 12, 11]


@pytest.mark.usefixtures("small")
def test_behind_a_message_that_is_another_one_nothing_is_kept(shelf: Shelf) -> None:
    stored(shelf, 20)
    _, last_id = shelf.chunks()[2]
    shelf.messages[last_id - 1] = public(last_id, "word and other")
    index = shelf.open()

    assert index.last_id == shelf.chunks()[1][1] == last_id - 2
    shelf.fill(index)
    assert find(index, "word") == list(range(20, 0, -1))


@pytest.mark.usefixtures("small")
def test_a_disk_that_is_full_for_a_while_loses_nothing(shelf: Shelf) -> None:
    index = shelf.open()
    shelf.store(*(public(number, f"word {number}") for number in range(1, 4)))
    index._writer.execute("PRAGMA query_only = ON")
    with pytest.raises(sqlite3.OperationalError):
        shelf.fill(index)
    assert find(index, "word") == list(range(index.last_id, 0, -1))
    index._writer.execute("PRAGMA query_only = OFF")
    shelf.fill(index)

    assert find(index, "word") == [3, 2, 1]


@pytest.mark.usefixtures("small")
def test_a_search_that_finds_the_file_damaged_says_so(shelf: Shelf) -> None:
    stored(shelf, 2_000)
    index = shelf.open()
    with shelf.path.open("r+b") as file:
        file.seek(8 * 4_096)
        file.write(random.Random(1).randbytes(shelf.path.stat().st_size - 8 * 4_096))

    with pytest.raises(sqlite3.DatabaseError):
        find(index, "nowhere")


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("offsets", [b"x", b"\xff\xff"])
def test_offsets_that_make_no_sense_are_damage(shelf: Shelf, offsets: bytes) -> None:
    stored(shelf)
    with closing(sqlite3.connect(shelf.path)) as connection:
        connection.execute("UPDATE posting SET offsets = ?", (offsets,))
        connection.commit()

    with pytest.raises(sqlite3.DatabaseError):
        find(shelf.open(), "word")


# --- the end ---


@pytest.mark.usefixtures("small")
def test_a_server_that_stops_waits_neither_for_a_chunk_nor_for_a_search(shelf: Shelf) -> None:
    index = shelf.open()
    shelf.store(*(public(number, f"word {number}") for number in range(1, 4)))
    shelf.is_stopping = True

    with pytest.raises(IndexClosedError):
        shelf.fill(index)
    with pytest.raises(IndexClosedError):
        find(index, "word")
    assert shelf.chunks() == []


def test_who_searches_a_closed_index_is_told(shelf: Shelf) -> None:
    index = shelf.open()
    index.close()
    index.close()

    with pytest.raises(IndexClosedError):
        find(index, "word")


@pytest.mark.usefixtures("small")
def test_what_is_being_written_is_found(shelf: Shelf) -> None:
    index = shelf.open()
    found: list[list[int]] = []
    shelf.when_marked = lambda: found.append(find(index, "word"))
    shelf.store(*(public(number, f"word {number}") for number in range(1, 6)))
    shelf.fill(index)

    assert found == [[2, 1], [4, 3, 2, 1]]


@pytest.mark.usefixtures("small")
def test_who_searches_while_chunks_are_written_finds_each_message_once(shelf: Shelf) -> None:
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
    shelf.fill(index)
    is_over.set()
    for thread in threads:
        thread.join()
    assert faults == []
