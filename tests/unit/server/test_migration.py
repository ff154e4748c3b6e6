"""The migration of a database of schema 2: nothing is lost or doubled, whenever the process is killed."""

import os
import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from structlog.testing import capture_logs

from chatprotocol.limits import ID_MAX
from chatserver.store.accounts import Account, Accounts
from chatserver.store.conversation_history import BLOCK_IDS
from chatserver.store.database import Database, schema_files
from chatserver.store.errors import StoreError
from chatserver.store.guests import claim_name, release_name
from chatserver.store.identity import read_history_id
from chatserver.store.message_table import find_nonce
from chatserver.store.messages import RECEIVED_ID, Messages
from chatserver.store.migration import migrate
from chatserver.store.reconcile import reconcile
from chatserver.store.rooms import DIRECT_ID, LOBBY_ID

from .helpers import all_missed

NEWEST = max(schema_files())
OLD_SCHEMA = {number: sql for number, sql in schema_files().items() if number <= 2}
CHUNK_MESSAGES = 4
# More than the schema needs, and fewer than that and the first chunks: the process is killed between them.
SCHEMA_STATEMENTS = 58


class OldAccount(NamedTuple):
    """A row of the old table."""

    id: int
    name: str
    key: str
    password_hash: str
    created_ms: int
    delivered_id: int


class OldMessage(NamedTuple):
    """A row of one of the old tables. ``recipient`` is None for a public message."""

    id: int
    time_ms: int
    sender: int
    recipient: int | None
    text: str
    nonce: str | None


class Old(NamedTuple):
    """The content of a database of schema 2."""

    accounts: list[OldAccount]
    messages: list[OldMessage]

    def write(self, folder: Path) -> None:
        with closing(Database(folder, OLD_SCHEMA)) as database:
            with database.transaction() as connection:
                history_id = read_history_id(connection)
                connection.executemany("INSERT INTO account VALUES (?, ?, ?, ?, ?, ?)", self.accounts)
                for number, time_ms, sender, recipient, text, nonce in self.messages:
                    if recipient is None:
                        row: tuple[object, ...] = (number, time_ms, sender, text, nonce)
                        connection.execute("INSERT INTO public_message VALUES (?, ?, ?, ?, ?)", row)
                    else:
                        row = (number, time_ms, sender, recipient, text, nonce)
                        connection.execute("INSERT INTO direct_message VALUES (?, ?, ?, ?, ?, ?)", row)
            last_id, account_id = self.last_ids()
            state = replace(database.state_file.state, history_id=history_id, last_id=last_id, account_id=account_id)
            database.state_file.write(replace(state, highest_id=last_id))

    def last_ids(self) -> tuple[int, int]:
        return max((each.id for each in self.messages), default=0), max((each.id for each in self.accounts), default=0)

    def assert_same(self, folder: Path) -> None:
        """The migrated database answers every query as the old one did, and chat.state finds nothing missing."""
        with closing(Database(folder)) as database:
            with capture_logs() as log:
                assert reconcile(database) == self.last_ids()[0]
            assert log == []
            messages, accounts = Messages(database), Accounts(database)
            for each in self.accounts:
                reader = each.id
                if each.password_hash:
                    found = accounts.find(each.name)
                    assert found is not None
                    assert found == Account(each.id, each.name, each.password_hash, each.delivered_id)
                seen = [m for m in self.messages if m.recipient is None or reader in (m.sender, m.recipient)]
                names = {account.id: account.name for account in self.accounts}
                answers = [(m.id, m.time_ms, names[m.sender], names.get(m.recipient or 0), m.text) for m in seen]
                for found_messages in (
                    messages.history(reader, ID_MAX, 500),
                    all_missed(messages, reader, {LOBBY_ID: 0, DIRECT_ID: 0}),
                    messages.visible(reader, [m.id for m in self.messages]),
                ):
                    assert [
                        (m.id, m.time_ms, m.sender, getattr(m, "recipient", None), m.text) for m in found_messages
                    ] == answers
                waiting = [m.id for m in seen if m.recipient == reader and m.id > each.delivered_id]
                undelivered = all_missed(messages, reader, {RECEIVED_ID: each.delivered_id})
                assert [m.id for m in undelivered] == waiting
            indexed = [
                (m.id, LOBBY_ID if m.recipient is None else DIRECT_ID, m.sender, m.recipient, m.text)
                for m in self.messages
            ]
            assert messages.after(0, 500) == indexed
            with database.transaction() as connection:
                for m in self.messages:
                    if m.nonce:
                        assert find_nonce(connection, indexed[self.messages.index(m)][1], m.sender, m.nonce) == m.id
                for guest in self.accounts:
                    if not guest.password_hash:
                        claimed = claim_name(connection, guest.name, 0)
                        is_taken = any(each.password_hash and each.key == guest.name.lower() for each in self.accounts)
                        assert (claimed.id if claimed else None) == (None if is_taken else guest.id)
                        if claimed:
                            release_name(connection, guest.name, claimed.claim)
                tables = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
                assert not {name for (name,) in tables} & {"public_message", "direct_message", "new_account"}
                assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@st.composite
def old_databases(draw: st.DrawFn) -> Old:
    """Guests in two spellings, one with the name of a later account; ids with gaps; the same nonce in both tables."""
    accounts = [
        OldAccount(
            number, name, name.lower() if has_password else f"GUEST:{name}", f"hash {name}" * has_password, number, 0
        )
        for number, (name, has_password) in enumerate(
            [("Alice", True), ("bob", False), ("BOB", False), ("Bob", True), ("carol", False)], 1
        )
    ]
    accounts = [each._replace(delivered_id=draw(st.integers(0, 30))) for each in accounts]
    account = st.sampled_from([each.id for each in accounts])
    messages: list[OldMessage] = []
    used: set[tuple[bool, int, str]] = set()
    for _ in range(draw(st.integers(0, 20))):
        number = (messages[-1].id if messages else 0) + draw(st.sampled_from([1, 1, 1, 2, CHUNK_MESSAGES, 10_000]))
        sender, recipient = draw(account), draw(st.none() | account)
        nonce = draw(st.none() | st.sampled_from("xy"))
        key = (recipient is None, sender, nonce or "")
        nonce = None if key in used else nonce
        used.add(key)
        text = draw(st.sampled_from(["text", "a\0b", "\U0001f600", "x" * 6_000]))
        messages.append(OldMessage(number, number * 7, sender, recipient, text, nonce))
    return Old(accounts, messages)


# Twenty messages, public and direct, in six chunks.
FIXED = Old(
    [OldAccount(1, "Alice", "alice", "hash", 5, 3), OldAccount(2, "bob", "GUEST:bob", "", 6, 0)],
    [OldMessage(n, n, 1 + n % 2, 1 if n % 3 == 0 else None, f"text {n}", f"n{n}") for n in range(1, 21)],
)


@given(old_databases())
@settings(max_examples=60)
def test_migrated_database_gives_the_same_answers(old: Old) -> None:
    """Promise: confirmed means stored. Ids, times, nonces, delivery marks and the identity of the history stay."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        old.write(folder)
        with closing(sqlite3.connect(folder / "chat.db", isolation_level=None)) as connection:
            identity = connection.execute("SELECT history_id FROM history_identity").fetchall()
            migrate(connection, folder / "chat.db", schema_files(), CHUNK_MESSAGES)
            assert connection.execute("SELECT history_id FROM history_identity").fetchall() == identity
            times: dict[int, list[int]] = {}
            for each in old.messages:
                times.setdefault(each.id // BLOCK_IDS, []).append(each.time_ms)
            noted = [(block, min(its), max(its)) for block, its in times.items()][:-1]
            assert connection.execute("SELECT * FROM message_times").fetchall() == noted
        old.assert_same(folder)


def migrate_and_die(folder: Path, statements: int) -> bool:
    """Migrate in a process that is killed before this statement. Returns True if it has fewer."""
    child = os.fork()
    if not child:
        left = statements

        def count(_: str) -> None:
            nonlocal left
            left -= 1
            if not left:
                os._exit(9)

        connection = sqlite3.connect(folder / "chat.db", isolation_level=None)
        connection.set_trace_callback(count)
        migrate(connection, folder / "chat.db", schema_files(), CHUNK_MESSAGES)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("step", [3, pytest.param(1, marks=pytest.mark.long)])
def test_migration_killed_at_any_statement_continues(folder: Path, tmp_path: Path, step: int) -> None:
    """Promise: confirmed means stored. An older server refuses the file, until its copy is put back."""
    FIXED.write(folder)
    begun, number, is_over = 0, 1, False
    copies: set[bytes] = set()
    while not is_over:
        killed = Path(shutil.copytree(folder, tmp_path / f"killed {number}"))
        is_over = migrate_and_die(killed, number)
        with closing(sqlite3.connect(killed / "chat.db")) as connection:
            begun += connection.execute("PRAGMA user_version").fetchone() == (NEWEST,)
        FIXED.assert_same(killed)
        copy = killed / f"chat.db.before-{NEWEST:04d}"
        if copy.exists() and copy.read_bytes() not in copies:
            copies.add(copy.read_bytes())
            shutil.copy(copy, killed / "chat.db")
            FIXED.assert_same(killed)
        number += step
    assert begun * step > 6 * 4, "each statement of each chunk"


def test_migration_that_is_killed_again_and_again_ends(folder: Path) -> None:
    """Each attempt commits one chunk."""
    FIXED.write(folder)
    assert not migrate_and_die(folder, SCHEMA_STATEMENTS)
    attempts = 1
    while not migrate_and_die(folder, 12):
        attempts += 1
        assert attempts < 20
    assert attempts > 2
    FIXED.assert_same(folder)


def test_migration_without_space_is_refused_at_once(folder: Path) -> None:
    FIXED.write(folder)
    path = folder / "chat.db"
    before = path.read_bytes()
    text = r"needs 1\.\d MB on the disk of .*, which has 0\.1 MB left\. Nothing was changed"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection, pytest.raises(StoreError, match=text):
        migrate(connection, path, schema_files(), free_bytes=lambda _: 100_000)
    assert path.read_bytes() == before
    assert not (folder / f"chat.db.before-{NEWEST:04d}").exists()
    FIXED.assert_same(folder)


def test_disk_that_fills_up_stops_the_migration_between_two_chunks(folder: Path) -> None:
    large = FIXED._replace(messages=[each._replace(text="x" * 6_000) for each in FIXED.messages])
    large.write(folder)
    assert not migrate_and_die(folder, SCHEMA_STATEMENTS)
    with closing(sqlite3.connect(folder / "chat.db", isolation_level=None)) as connection:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(StoreError, match=r"stopped: database or disk is full\. No message is lost"):
            migrate(connection, folder / "chat.db", schema_files(), CHUNK_MESSAGES * 2)
    large.assert_same(folder)
