"""``chatserver admin``: from one server to several and back, with all data."""

from __future__ import annotations

import io
import json
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from integration.room import Room
from unit.server.fake_log import FakeLog, FakeStream

from chatserver.admin import cli, requests
from chatserver.admin.changes import answer_request
from chatserver.admin.cluster import share_folder
from chatserver.config import load_config
from chatserver.journal.joining import adopt_log, prepare_folder
from chatserver.journal.local import LocalJournal
from chatserver.log import configure_log
from chatserver.store.database import Database
from chatserver.store.errors import StoreError
from chatserver.store.identity import HistoryIdentity
from chatserver.store.log_position import read_position

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from chatserver.journal.log import Log
    from chatserver.store.log_position import LogPosition
    from ops.nats_servers import NatsServers

FLAGS = "--host 127.0.0.1 --port 0 --hash-time-cost 1 --hash-memory-kib 8 --data"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """The data folder of a single server that has stopped."""
    configure_log("warning", "text", io.StringIO())
    serve(tmp_path / "data", "one")
    yield tmp_path / "data"
    structlog.reset_defaults()


def serve(folder: Path, text: str) -> tuple[str, int]:
    """Start a single server, and let a user send a message. Returns the identity of the history and the id."""
    room = Room(load_config([*FLAGS.split(), str(folder)], {}))
    try:
        message_id: int = room.enter("alice").say(text)["id"]
    finally:
        room.close()
    with closing(Database(folder)) as database:
        return HistoryIdentity(database).history_id, message_id


@pytest.fixture
def admin(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, Any]]:
    """Run a command on a folder. Returns its exit code, and its row, or the sentence of its error."""

    def run(folder: Path, *words: str) -> tuple[int, Any]:
        monkeypatch.setattr(sys, "stdin", io.StringIO("secret\n"))
        code = cli.main(["--json", *words, "--data", str(folder)])
        out, err = capsys.readouterr()
        return code, json.loads(err.splitlines()[-1])["error"] if code else json.loads(out or "null")

    return run


def share(folder: Path, log: Log) -> LogPosition:
    with closing(Database(folder)) as database:
        return share_folder(database, log, nats_seconds=0)


def position_of(folder: Path) -> LogPosition | None:
    with closing(Database(folder)) as database, database.reading() as connection:
        return read_position(connection)


def test_server_becomes_one_of_several_and_a_single_one_again(
    tmp_path: Path, folder: Path, admin: Callable[..., tuple[int, Any]]
) -> None:
    """All ids, accounts, and the identity of the history stay: no client fetches anything again."""
    history_id, message_id = serve(folder, "two")
    stream = FakeStream()
    assert share(folder, FakeLog(stream)).number == 1
    assert stream.snapshot is not None
    for command in ("add carol", "password alice", "ban alice", "prune --older-than 1d"):
        code, error = admin(folder, *command.split())
        assert (code, "start the server, and try again" in error) == (1, True), command
    with pytest.raises(StoreError, match="set CHAT_NATS, or run `chatserver admin unshare`"):
        serve(folder, "three")
    code, row = admin(folder, "snapshot", str(tmp_path / "copy.db"))
    assert (code, row["record"]) == (0, 1)
    assert admin(tmp_path / "other", "restore", str(tmp_path / "copy.db"))[0] == 0
    assert position_of(tmp_path / "other") == position_of(folder)
    assert admin(folder, "check") == (0, None)
    assert admin(folder, "unshare") == (0, {"record": 1})
    assert admin(folder, "check") == (0, None)
    assert serve(folder, "three") == (history_id, message_id + 1)
    assert admin(folder, "unshare")[1] == f"The data folder {folder} is that of a single server already."
    assert "is of a single server" in admin(folder, "snapshot", str(tmp_path / "again.db"))[1]


def test_copy_of_unknown_age_gets_a_new_history(
    tmp_path: Path, folder: Path, admin: Callable[..., tuple[int, Any]]
) -> None:
    """It was restored, and no server has used it: clients may have seen newer messages."""
    history_id, _ = serve(folder, "two")
    share(folder, FakeLog(FakeStream()))
    admin(folder, "backup", str(tmp_path / "copy.db"))
    other = tmp_path / "other"
    admin(other, "restore", str(tmp_path / "copy.db"))
    code, error = admin(other, "unshare")
    assert (code, "is a copy that no server has used since" in error) == (1, True)
    assert admin(other, "unshare", "--incomplete") == (0, {"record": 1})
    assert serve(other, "three")[0] != history_id


def test_folder_that_left_the_log_behind_others_gets_a_new_history(
    folder: Path, admin: Callable[..., tuple[int, Any]]
) -> None:
    """Clients may have seen messages that are not in it. If the server itself has confirmed them, it is noticed."""
    history_id, message_id = serve(folder, "two")
    share(folder, FakeLog(FakeStream()))
    with closing(Database(folder)) as database:
        state = database.state_file.state
        database.note_commit(state.last_id + 1, state.account_id)
    code, error = admin(folder, "unshare")
    assert code == 1
    assert f"lacks messages: {message_id} is the newest, and it had {message_id + 1}" in error
    assert admin(folder, "unshare", "--incomplete") == (0, {"record": 1})
    new_history_id, new_id = serve(folder, "three")
    assert new_history_id != history_id
    assert new_id > message_id + 1


def test_share_says_why_it_can_not_begin_a_log(folder: Path, admin: Callable[..., tuple[int, Any]]) -> None:
    assert "CHAT_NATS is missing" in admin(folder, "share")[1]
    stream = FakeStream()
    log = FakeLog(stream)
    log.cut()
    with pytest.raises(Exception, match=r"can't reach NATS.*nothing was changed"):
        share(folder, log)
    assert position_of(folder) is None
    assert serve(folder, "two")


def test_upload_that_fails_is_repeated_by_the_next_call(folder: Path) -> None:
    class FullLog(FakeLog):
        def put_snapshot(self, number: int, path: Path) -> None:
            raise OSError(28, f"No space left for {number} {path}")

    stream = FakeStream()
    with pytest.raises(Exception, match=r"NATS failed: .*run this command again, which continues"):
        share(folder, FullLog(stream))
    position = share(folder, FakeLog(stream))
    assert len(stream.records) == 1
    assert stream.snapshot is not None
    joined = folder.parent / "joined"
    prepare_folder(joined, FakeLog(stream))
    with closing(Database(joined)) as database:
        assert adopt_log(database, FakeLog(stream)) == position


def test_commands_on_nats(
    folder: Path, nats: NatsServers, admin: Callable[..., tuple[int, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stream is named by a flag, NATS by a variable. An interrupted command is repeated, and changes nothing."""
    monkeypatch.setenv("CHAT_NATS", nats.url)
    monkeypatch.setenv("CHAT_NATS_REPLICAS", "1")
    code, row = admin(folder, "share", "--nats-stream", "shared")
    assert (code, row["stream"], row["record"]) == (0, "shared", 1)
    assert admin(folder, "share", "--nats-stream", "shared") == (0, row)
    code, error = admin(folder, "share", "--nats-stream", "other")
    assert (code, "The shared log is empty, and the data folder" in error) == (1, True)
    assert admin(folder, "unshare")[0] == 0
    code, error = admin(folder, "share", "--nats-stream", "shared")
    assert (code, "has 1 records already" in error) == (1, True)
    assert admin(folder, "share", "--nats-user", "alice")[0] == 2


class ServerWithoutClients:
    """A target of commands; alice is on another server."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.journal = LocalJournal(database, lambda: 0, lambda _: None)

    def sessions(self) -> list[dict[str, Any]]:
        return []

    def is_elsewhere(self, name: str) -> bool:
        return name == "alice"


def test_user_on_another_server_is_kicked(folder: Path) -> None:
    """The entry reaches the other server through the log."""
    with closing(Database(folder)) as database:
        target = ServerWithoutClients(database)
        target.journal.start()
        answer = answer_request(target, requests.Kick("ALICE", "noise"), "root")
        assert (answer.error, answer.rows) == ("", [{"user": "alice", "connections": 0}])
        target.journal.stop()
