"""The identity of the history: it belongs to one database and its copies, until it is renewed."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from chatserver.store.database import Database
from chatserver.store.identity import read_history_id, renew_history_id


def identity_of(folder: Path) -> str:
    with closing(Database(folder)) as database, database.transaction() as connection:
        return read_history_id(connection)


def test_identity_stays_with_a_database_and_its_copies_until_renewed(tmp_path: Path) -> None:
    first = identity_of(tmp_path / "a")
    assert len(first) >= 16
    assert identity_of(tmp_path / "a") == first != identity_of(tmp_path / "b")
    shutil.copytree(tmp_path / "a", tmp_path / "copy")
    with closing(Database(tmp_path / "copy")) as database, database.transaction() as connection:
        assert read_history_id(connection) == first
        renewed = renew_history_id(connection)
    assert identity_of(tmp_path / "copy") == renewed != first


def test_missing_identity_is_created(folder: Path) -> None:
    first = identity_of(folder)
    with closing(sqlite3.connect(folder / "chat.db", isolation_level=None)) as connection:
        connection.execute("DELETE FROM history_identity")
    created = identity_of(folder)
    assert identity_of(folder) == created != first
