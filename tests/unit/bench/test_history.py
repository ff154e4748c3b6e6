"""The histories that the benchmark writes into a database can be read by the server."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from bench import history, search
from chatserver.store import database as store
from chatserver.store.accounts import insert_account
from chatserver.store.messages import Messages
from chatserver.store.words import terms_of, words_of

if TYPE_CHECKING:
    from pathlib import Path

MESSAGES = 25_000
READER = 1


def create_reader(folder: Path) -> None:
    with closing(store.Database(folder)) as database, database.transaction() as connection:
        account = insert_account(connection, "anna", "hash", 0)
    assert account is not None
    assert account.id == READER


def test_server_reads_the_history_of_the_benchmark(tmp_path: Path) -> None:
    """It has the messages asked for, a tenth direct and none to its sender, all of them delivered."""
    assert store.DATABASE_FILE == history.DATABASE_FILE
    create_reader(tmp_path)
    assert history.fill(tmp_path, MESSAGES) > MESSAGES * 60
    with closing(store.Database(tmp_path)) as database:
        messages = Messages(database)
        assert messages.last_id() == MESSAGES
        assert len(messages.history(READER, MESSAGES + 1, 50)) == 50
        assert not messages.waiting(READER, MESSAGES, MESSAGES, 500)
        everything = messages.after(0, MESSAGES)
    assert len(everything) == MESSAGES
    assert sum(message.recipient_id is not None for message in everything) == MESSAGES // 10
    assert not any(message.recipient_id == message.sender_id for message in everything)


def test_search_history_contains_the_words_of_the_queries(tmp_path: Path) -> None:
    create_reader(tmp_path)
    search.fill(tmp_path, MESSAGES * 4)
    with closing(store.Database(tmp_path)) as database:
        everything = Messages(database).after(0, MESSAGES * 4)
    assert len(everything) == MESSAGES * 4
    both, own, others = 0, 0, 0
    for message in everything:
        words = words_of(message.text)
        is_own = READER in (message.sender_id, message.recipient_id)
        both += {"left", "right"} <= words
        own += "ours" in words and is_own
        others += "secret" in words
        assert not ("secret" in words and is_own)
    assert (both, own, others) == (3, MESSAGES * 4 // 50_000, MESSAGES * 4 // 2 - MESSAGES * 4 // 500)
    assert all(terms_of(words) for words in search.QUERIES.values())
