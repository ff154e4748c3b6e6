"""The server can read the histories that the benchmark writes into a database."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from bench import history, search
from chatserver.store import database as store
from chatserver.store.accounts import insert_account
from chatserver.store.messages import Messages
from chatserver.store.words import terms_of, words_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from chatserver.store.messages import IndexedMessage

MESSAGES = 50_000
READER = 1


def filled(folder: Path, fill: Callable[[Path, int], object], count: int) -> list[IndexedMessage]:
    """All messages of a history that the benchmark writes beside the account of a reader."""
    with closing(store.Database(folder)) as database, database.transaction() as connection:
        account = insert_account(connection, "anna", "hash", 0)
    assert account is not None
    assert account.id == READER
    fill(folder, count)
    with closing(store.Database(folder)) as database:
        messages = Messages(database)
        assert messages.last_id() == count
        assert not messages.undelivered(READER, count, count, 500)
        return messages.after(0, count)


def test_server_reads_the_history_of_the_benchmark(tmp_path: Path) -> None:
    """A tenth is direct, none of it to its sender, and all is delivered."""
    assert store.DATABASE_FILE == history.DATABASE_FILE
    messages = filled(tmp_path, history.fill, 5_000)
    assert len(messages) == 5_000
    assert sum(message.recipient_id is not None for message in messages) == 500
    assert not any(message.recipient_id == message.sender_id for message in messages)


def test_search_history_contains_the_words_of_the_queries(tmp_path: Path) -> None:
    both, own, others = 0, 0, 0
    for message in filled(tmp_path, search.fill, MESSAGES):
        words = words_of(message.text)
        is_own = READER in (message.sender_id, message.recipient_id)
        both += {"left", "right"} <= words
        own += "ours" in words and is_own
        others += "secret" in words
        assert not ("secret" in words and is_own)
    assert (both, own, others) == (3, MESSAGES // 50_000, MESSAGES // 2 - MESSAGES // 500)
    assert all(terms_of(words) for words in search.QUERIES.values())
