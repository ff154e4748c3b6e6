"""The history that is searched has in it what the searches are about."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from bench.search import QUERIES, fill
from chatserver.store.accounts import insert_account
from chatserver.store.database import Database
from chatserver.store.messages import Messages
from chatserver.store.words import terms_of, words_of

if TYPE_CHECKING:
    from pathlib import Path

MESSAGES = 200_000
ASKER = 1


def test_a_history_that_is_searched_has_what_is_looked_for(tmp_path: Path) -> None:
    with closing(Database(tmp_path)) as database, database.transaction() as connection:
        insert_account(connection, "asker", "hash", 0)
    fill(tmp_path, MESSAGES)
    with closing(Database(tmp_path)) as database:
        messages = Messages(database)
        assert messages.last_id() == MESSAGES
        everything = messages.after(0, MESSAGES)
    both, own, others = 0, 0, 0
    for message in everything:
        words = words_of(message.text)
        both += {"left", "right"} <= words
        own += "ours" in words and ASKER in (message.sender_id, message.recipient_id)
        others += "secret" in words
        assert not ("secret" in words and ASKER in (message.sender_id, message.recipient_id))
    assert (both, own, others) == (3, MESSAGES // 50_000, MESSAGES // 2 - MESSAGES // 500)


def test_every_search_can_be_asked() -> None:
    assert all(terms_of(words) for words in QUERIES.values())
