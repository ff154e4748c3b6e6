"""Checks of both database files, each for itself and against each other. Nothing is written."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Final

from chatprotocol.limits import TOKENS_MAX
from chatserver.store.accounts import read_last_account_id
from chatserver.store.database import DATABASE_FILE
from chatserver.store.errors import describe
from chatserver.store.identity import read_highest_id
from chatserver.store.log_position import read_position
from chatserver.store.message_table import read_bulk
from chatserver.store.messages import Messages
from chatserver.store.moderation import read_last_deletion
from chatserver.store.rooms import LOBBY_ID
from chatserver.store.schema_check import find_foreign_value
from chatserver.store.search_index import SEARCH_FILE, finds, is_current, read_reached
from chatserver.store.sqlite import connect
from chatserver.store.state import STATE_FILE, State, StateFile
from chatserver.store.words import words_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from chatserver.store.database import ReadOnlyDatabase

# Errors of one kind that are reported.
_ERRORS_MAX: Final = 10
# Messages that are looked up in the search index, in groups spread over the history: about a second.
_GROUPS: Final = 20
_GROUP_MESSAGES: Final = 250

# Each finds rows that no entry of the journal makes, and their number.
_CONTRADICTIONS: Final = {
    "rooms whose number of members is wrong": """
        SELECT count(*) FROM conversation WHERE id > 1 AND member_count <> (
            SELECT count(*) FROM membership WHERE conversation_id = conversation.id AND role <> 'invited')""",
    "rooms whose number of invitations is wrong": """
        SELECT count(*) FROM conversation WHERE id > 1 AND invited_count <> (
            SELECT count(*) FROM membership WHERE conversation_id = conversation.id AND role = 'invited')""",
    "rooms without exactly one owner": """
        SELECT count(*) FROM conversation WHERE id > 1 AND name_key NOTNULL AND 1 <> (
            SELECT count(*) FROM membership WHERE conversation_id = conversation.id AND role = 'owner')""",
    "guests who have left and are still in rooms": """
        SELECT count(*) FROM membership WHERE account_id IN (SELECT id FROM account WHERE kind = 'guest')
            AND account_id NOT IN (SELECT account_id FROM guest_claim WHERE account_id NOTNULL)""",
    "tokens of accounts that are closed": """
        SELECT count(*) FROM token WHERE account_id NOT IN (
            SELECT id FROM account WHERE kind = 'person' AND deleted_ms ISNULL)""",
    "accounts with too many tokens": f"""
        SELECT count(*) FROM (SELECT 1 FROM token GROUP BY account_id HAVING count(*) > {TOKENS_MAX})""",  # noqa: S608
    "messages of a conversation that does not exist": """
        SELECT count(*) FROM message WHERE conversation_id NOT IN (SELECT id FROM conversation)""",
    "events of rooms that do not exist": """
        SELECT count(*) FROM room_event WHERE conversation_id NOT IN (
            SELECT id FROM conversation WHERE name_key NOTNULL AND id > 1)""",
    "rooms whose number of events is wrong": """
        SELECT count(*) FROM conversation WHERE event_count <> (
            SELECT count(*) FROM room_event WHERE conversation_id = conversation.id)""",
    "direct messages without a recipient, or others with one": """
        SELECT count(*) FROM message WHERE (recipient_id ISNULL) = (conversation_id = 1)""",
}


def check_files(database: ReadOnlyDatabase) -> Iterator[str]:
    """Find the problems of chat.db, chat.state and search.db: each a sentence. Raises StoreError."""
    folder = database.path.parent
    # Read before the database, because the server writes the state after each commit.
    state = StateFile(folder / STATE_FILE).state
    with database.reading() as connection:
        for (verdict,) in connection.execute(f"PRAGMA integrity_check({_ERRORS_MAX})").fetchall():
            if verdict != "ok":
                yield f"{DATABASE_FILE} is damaged ({' '.join(verdict.split())}): restore a backup."
                return
        if problem := find_foreign_value(connection):
            yield f"{DATABASE_FILE} can't be used: {problem}. Restore a backup."
            return
        orphans = connection.execute("PRAGMA foreign_key_check").fetchmany(_ERRORS_MAX)
        for table in sorted({row[0] for row in orphans}):
            yield f"{DATABASE_FILE} has rows in the table {table} that refer to missing ones: restore a backup."
        for what, query in _CONTRADICTIONS.items():
            (number,) = connection.execute(query).fetchone()
            if number:
                yield f"{DATABASE_FILE} has {what}: {number}. Restore a backup, or report it as a defect."
        highest_id, account_id = read_highest_id(connection), read_last_account_id(connection)
        history_id = connection.execute("SELECT history_id FROM history_identity").fetchone()
        follows_log = read_position(connection) is not None  # which has what is missing
    if not follows_log and (folder / STATE_FILE).exists():  # see find_missing_state
        yield from _check_state(state, history_id, highest_id, account_id)
    yield from _check_index(database, folder / SEARCH_FILE)


def _check_state(state: State, history_id: tuple[str] | None, highest_id: int, account_id: int) -> Iterator[str]:
    if not state.history_id:
        yield f"{STATE_FILE} is damaged: the next start gives the history a new identity."
    elif history_id != (state.history_id,):
        yield f"{STATE_FILE} is of another database: the next start gives the history a new identity."
    elif highest_id < state.last_id or account_id < state.account_id:
        yield (
            f"{DATABASE_FILE} is older than {STATE_FILE}: message {highest_id} is its newest, and {state.last_id} was "
            "confirmed. Restore a newer backup, if there is one."
        )


def find_missing_state(database: ReadOnlyDatabase) -> str:
    """A sentence if there is no chat.state: no problem after a restore into an empty folder. Otherwise empty."""
    with database.reading() as connection:
        position = read_position(connection)
    if position is not None or (database.path.parent / STATE_FILE).exists():
        return ""
    return (
        f"There is no {STATE_FILE}, as after a restore into an empty folder: after the next start of the server, "
        "clients fetch the history again."
    )


def _check_index(database: ReadOnlyDatabase, path: Path) -> Iterator[str]:
    remedy = f"stop the server and delete {SEARCH_FILE}*, and it is rebuilt."
    if not path.exists():
        return  # the server makes it
    try:
        with closing(connect(path, "ro")) as index:
            if not is_current(index):
                return
            (verdict,) = index.execute("PRAGMA integrity_check(1)").fetchone()
            if verdict != "ok":
                yield f"{SEARCH_FILE} is damaged ({' '.join(verdict.split())}): {remedy}"
                return
            reached_id, mark = read_reached(index)
            (done,) = index.execute("SELECT deletions FROM reached").fetchone()
            with database.reading() as connection:
                is_waiting = read_last_deletion(connection) > done
                is_beyond = reached_id > read_highest_id(connection)
            # A message that was deleted or removed a moment ago has another fingerprint than the index knows.
            found = Messages(database).fingerprint(reached_id)
            if is_beyond or (reached_id and found not in (None, mark) and not is_waiting):
                yield f"{SEARCH_FILE} is of another database: the next start of the server rebuilds it."
                return
            missing = _count_missing(database, index, reached_id)
    except sqlite3.Error as error:
        yield f"{SEARCH_FILE} can't be read ({describe(error)}): {remedy}"
        return
    if missing:
        yield f"{SEARCH_FILE} lacks messages ({missing} of those that were looked up): {remedy}"


def _count_missing(database: ReadOnlyDatabase, index: sqlite3.Connection, reached_id: int) -> int:
    """Look up stored messages in the index, by their longest word."""
    missing = 0
    step = max(reached_id // _GROUPS, _GROUP_MESSAGES)
    for after_id in range(0, reached_id, step):
        upto_id = min(after_id + step, reached_id)
        with database.reading() as connection:
            rows = read_bulk(connection, after_id, upto_id, _GROUP_MESSAGES, None)
        for message_id, _, conversation_id, _, _, recipient, text in rows:
            words = words_of(text)
            is_public = recipient is None and conversation_id == LOBBY_ID
            if words and not finds(index, max(words, key=len), message_id, is_public=is_public):
                missing += 1
    return missing
