"""The check at the start that the database is the one that the server left."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import structlog
from msgspec.structs import replace

from chatserver.store.accounts import read_last_account_id
from chatserver.store.errors import StoreError, describe
from chatserver.store.identity import read_history_id, renew_history_id
from chatserver.store.messages import read_last_id

if TYPE_CHECKING:
    from chatserver.store.database import Database

_log = structlog.get_logger()


def reconcile(database: Database) -> int:
    """Compare the database with ``chat.state``, and renew the identity of the history if messages may be missing.

    Returns the highest id that a message ever had. The next id must be higher, so that no client mistakes a new message
    for a lost one that it saw. The caller calls it once, before anything else is written. Raises StoreError.
    """
    try:
        return _reconcile(database)
    except (sqlite3.Error, UnicodeError, OSError) as error:
        raise StoreError(f"The database {database.path} can't be used: {describe(error)}.") from error


def _reconcile(database: Database) -> int:
    state = database.state_file.state
    with database.transaction() as connection:
        history_id = read_history_id(connection)
        last_id, account_id = read_last_id(connection), read_last_account_id(connection)
        highest_id = max(last_id, state.highest_id)
        found = {"last_id": last_id, "expected_last_id": state.last_id, "next_id": highest_id + 1}
        problem = None
        if not state.history_id:
            if last_id:  # in an empty database there was nothing to see
                # The database may be a copy that is older than the messages that clients saw.
                _log.info("chat.state missing or damaged; clients fetch the history again", **found)
                history_id = renew_history_id(connection)
        elif history_id != state.history_id:
            problem = "database is another one than the server left; clients fetch the history again"
        elif last_id < state.last_id or account_id < state.account_id:
            found |= {"accounts": account_id, "expected_accounts": state.account_id}
            problem = "database is older than the server left it, confirmed data is missing; clients fetch it again"
        if problem:
            _log.warning(problem, **found)
            history_id = renew_history_id(connection)
    # If this write fails, the next start repeats the comparison.
    database.state_file.write(
        replace(state, history_id=history_id, last_id=last_id, account_id=account_id, highest_id=highest_id)
    )
    database.state_file.sync()
    return highest_id
