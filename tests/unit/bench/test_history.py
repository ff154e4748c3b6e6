"""A long history that is written past the server is what the server would have written."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from bench.history import ACCOUNTS, DATABASE_FILE, fill
from chatserver.store import database as store
from chatserver.store.accounts import insert_account
from chatserver.store.messages import Messages

if TYPE_CHECKING:
    from pathlib import Path

MESSAGES = 25_000


def test_a_server_finds_its_history_as_long_as_it_was_asked_for(tmp_path: Path) -> None:
    assert store.DATABASE_FILE == DATABASE_FILE
    with closing(store.Database(tmp_path)) as database, database.transaction() as connection:
        insert_account(connection, "anna", "hash", 0)
    assert fill(tmp_path, MESSAGES) > MESSAGES * 60
    with closing(store.Database(tmp_path)) as database:
        messages = Messages(database)
        assert messages.last_id() == MESSAGES
        assert len(messages.history(1, MESSAGES + 1, 50)) == 50
        assert not messages.waiting(1, MESSAGES, MESSAGES, 500)
        with database.reading() as connection:
            (public,) = connection.execute("SELECT count(*) FROM public_message").fetchone()
            direct, talking_to_oneself, talkers, first_delivered = connection.execute(
                "SELECT count(*), sum(sender_id = recipient_id), count(DISTINCT sender_id),"
                " (SELECT min(delivered_id) FROM account) FROM direct_message"
            ).fetchone()
    assert (public, direct) == (MESSAGES * 9 // 10, MESSAGES // 10)
    assert (talking_to_oneself, talkers, first_delivered) == (0, ACCOUNTS, MESSAGES)
