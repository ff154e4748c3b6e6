"""The identity of the history: of one database, in it and in its copies, until it is renewed."""

import sqlite3
from contextlib import closing
from pathlib import Path

from chatserver.store.database import Database
from chatserver.store.identity import read_history_id, renew_history_id


def identity_of(folder: Path) -> str:
    """Open the database as a server does at its start."""
    database = Database(folder)
    with database.transaction() as connection:
        history_id = read_history_id(connection)
    database.close()
    return history_id


def test_the_identity_stays_with_the_database_and_another_one_has_another(tmp_path: Path) -> None:
    first = identity_of(tmp_path / "a")
    assert len(first) >= 16
    assert identity_of(tmp_path / "a") == first
    assert identity_of(tmp_path / "b") != first


def test_a_copy_has_the_identity_of_its_original_until_it_is_renewed(tmp_path: Path) -> None:
    first = identity_of(tmp_path / "a")
    (tmp_path / "copy").mkdir()
    with closing(sqlite3.connect(tmp_path / "a" / "chat.db")) as connection:
        connection.execute(f"VACUUM INTO '{tmp_path}/copy/chat.db'")
    assert identity_of(tmp_path / "copy") == first

    database = Database(tmp_path / "copy")
    with database.transaction() as connection:
        renewed = renew_history_id(connection)
    database.close()
    assert identity_of(tmp_path / "copy") == renewed != first


def test_an_identity_that_is_missing_is_made(folder: Path) -> None:
    first = identity_of(folder)
    with closing(sqlite3.connect(folder / "chat.db", isolation_level=None)) as connection:
        connection.execute("DELETE FROM history_identity")
    made = identity_of(folder)
    assert made != first
    assert identity_of(folder) == made
