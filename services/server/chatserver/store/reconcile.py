"""Checks at the start that no data is missing."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import structlog
from msgspec.structs import replace

from chatserver.store.accounts import read_last_account_id
from chatserver.store.errors import StoreError, describe
from chatserver.store.identity import raise_highest_id, read_highest_id, read_history_id, renew_history_id
from chatserver.store.log_position import forget_log

if TYPE_CHECKING:
    from chatserver.store.database import Database
    from chatserver.store.state import State

_log = structlog.get_logger()


def reconcile(database: Database) -> int:
    """Compare the database with ``chat.state``, and renew the identity of the history if messages may be missing.

    Stores and returns the highest id that a message ever had. The next id must be higher, so that no client mistakes a
    new message for a lost one that it saw. Call it once, before anything else is written. Raises StoreError.
    """
    try:
        return _reconcile(database)
    except (sqlite3.Error, UnicodeError, OSError) as error:
        raise StoreError(f"The database {database.path} can't be used: {describe(error)}.") from error


def find_missing(database: Database) -> str:
    """Return why the database may lack confirmed data, as a part of a sentence; empty if not."""
    with database.reading() as connection:
        last_id, account_id = read_highest_id(connection), read_last_account_id(connection)
    state = database.state_file.state
    if last_id < state.last_id:
        return f"lacks messages: {last_id} is the newest, and it had {state.last_id}"
    if account_id < state.account_id:
        return f"lacks accounts: {account_id} is the newest, and it had {state.account_id}"
    if account_id and not state.account_id:
        return "is a copy that no server has used since"
    return ""


def note_use(database: Database) -> int:
    """Record in chat.state that a server uses a database that follows a log. Returns the highest id of a message ever.

    Raises StoreError.
    """
    with database.reading() as connection:
        last_id, account_id = read_highest_id(connection), read_last_account_id(connection)
    database.note_commit(last_id, account_id)
    return last_id


def leave_log(database: Database, *, is_complete: bool) -> None:
    """Make the database, which follows a log, that of a single server. Raises StoreError.

    ``is_complete``: clients have seen no messages but those in it. Otherwise the next ``reconcile`` renews the identity
    of the history. ``chat.state`` is written first: while the database follows a log, it is not compared.
    """
    try:
        with database.reading() as connection:
            history_id = read_history_id(connection)
            last_id, account_id = read_highest_id(connection), read_last_account_id(connection)
        state = database.state_file.state
        database.state_file.write(
            replace(
                state,
                history_id=history_id if is_complete else "",
                last_id=last_id,
                account_id=account_id,
                highest_id=last_id if is_complete else max(last_id, state.highest_id),
            )
        )
        database.state_file.sync()
        with database.transaction() as connection:
            forget_log(connection)
    except (sqlite3.Error, OSError) as error:
        raise StoreError(f"The database {database.path} can't be used: {describe(error)}.") from error


def _reconcile(database: Database) -> int:
    state = database.state_file.state
    with database.transaction() as connection:
        history_id = read_history_id(connection)
        # The newest message that was ever stored here. It may have been removed because of its age.
        last_id, account_id = read_highest_id(connection), read_last_account_id(connection)
        highest_id = max(last_id, state.highest_id)
        reason = _renewal_reason(state, history_id, last_id, account_id)
        if reason is not None:
            _log.warning(
                "history renewed",
                reason=reason,
                last_id=last_id,
                expected_last_id=state.last_id,
                next_id=highest_id + 1,
                accounts=account_id,
                expected_accounts=state.account_id,
            )
            history_id = renew_history_id(connection)
        if highest_id > read_highest_id(connection):
            raise_highest_id(connection, highest_id)
    # If this write fails, the next start repeats the comparison.
    database.state_file.write(
        replace(state, history_id=history_id, last_id=last_id, account_id=account_id, highest_id=highest_id)
    )
    database.state_file.sync()
    return highest_id


def _renewal_reason(state: State, history_id: str, last_id: int, account_id: int) -> str | None:
    """The reason why clients must fetch the history again; None if nothing that a client saw can be missing."""
    if not state.history_id:
        # The database may be a copy that is older than the messages that clients saw, unless it is empty.
        return "state_missing" if last_id else None
    if history_id != state.history_id:
        return "database_replaced"
    if last_id < state.last_id or account_id < state.account_id:
        return "database_older"
    return None
