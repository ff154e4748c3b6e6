"""``chatserver admin``: the same results with the server running or not, and backups, checks and bad input."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import resource
import shutil
import socket
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import structlog
from integration.room import DEADLINE_SECONDS, Room, wait_for
from structlog.testing import capture_logs

from chatserver.admin import cli, requests, target
from chatserver.admin.requests import AdminError, Answer
from chatserver.config import load_config
from chatserver.control import ADMIN_FILE
from chatserver.log import configure_log
from chatserver.net.admin_socket import AdminSocket
from chatserver.store.database import Database
from chatserver.store.errors import StoreError
from chatserver.store.files import lock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from certificates import Authority
    from integration.room import Peer

SETTINGS = {"CHAT_HASH_TIME_COST": "1", "CHAT_HASH_MEMORY_KIB": "8"}
IS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
NOT_ROOT = 65_534


class Result(NamedTuple):
    """The end of a command: its exit code, its output as objects, and the sentence of its error."""

    code: int
    rows: list[dict[str, Any]]
    error: str


class Admin:
    """Runs commands on a data folder in this process."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self._capsys = capsys
        self._monkeypatch = monkeypatch

    def __call__(self, command: str, *more: str, typed: str = "") -> Result:
        """``typed`` is the standard input."""
        self._monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
        arguments = ["--json", *command.split(), *more]
        code = cli.main([*arguments, "--data", str(self.folder)] if "--data" not in arguments else arguments)
        out, err = self._capsys.readouterr()
        error = json.loads(err.splitlines()[-1])["error"] if code and err else ""
        assert error.count(". ") == error.rstrip(".").count(". "), "an error is a sentence"
        return Result(code, [json.loads(line) for line in out.splitlines()], error)


def config_in(folder: Path) -> Any:
    flags = f"--host 127.0.0.1 --port 0 --data {folder} --hash-time-cost 1 --hash-memory-kib 8"
    return load_config(flags.split(), {})


@contextmanager
def serving(folder: Path) -> Iterator[Room]:
    room = Room(config_in(folder))
    try:
        yield room
    finally:
        room.close()
    assert not room.has_crashed


@pytest.fixture(scope="module")
def used_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with users, a room and messages, whose server has stopped."""
    folder = tmp_path_factory.mktemp("used") / "data"
    with serving(folder) as room:
        alice, bob = room.enter("alice", rooms=True), room.enter("bob", rooms=True)
        alice.ask(command="join", room="dev", private=True)
        alice.next("joined")
        alice.say("hello bob")
        alice.say("only here", room="dev")
        alice.ask(command="DM", to="bob", message="psst")
        alice.next("sent")
        bob.until_fence()
        bob.ask(command="search", words="hello")
        bob.next("found")  # all messages are in the index
    return folder


@pytest.fixture
def admin(
    used_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Admin]:
    """Commands on a copy of that folder."""
    configure_log("warning", "text", io.StringIO())
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    folder = tmp_path / "data"
    shutil.copytree(used_folder, folder)
    folder.chmod(0o700)
    yield Admin(folder, capsys, monkeypatch)
    structlog.reset_defaults()


# Commands in order, with their standard input, exit code and a part of the output or error.
STORY = [
    ("users", "", 0, '"user": "alice", "role": "user"'),
    ("add carol", "secret\n", 0, '"user": "carol"'),
    ("add CAROL", "secret\n", 1, "taken"),
    ("add dave", "", 2, "password"),
    ("add all", "secret\n", 2, "all"),
    ("password bob", "changed\n", 0, '"user": "bob"'),
    ("password nobody", "", 1, "no user nobody"),
    ("password bob --must-change", "again\n", 0, '"user": "bob"'),
    ("token bob --label bot", "", 0, '"token": "'),
    ("token bob", "", 2, "--label"),
    ("token bob --label \n", "", 2, "--label"),
    ("token nobody --label bot", "", 1, "no user nobody"),
    (f"token bob --label {'x' * 65}", "", 2, "64 bytes"),
    ("tokens BOB", "", 0, '"user": "bob", "id": "'),
    ("tokens", "", 0, '"label": "bot"'),
    ("tokens nobody", "", 1, "no user nobody"),
    ("revoke bob x", "", 1, "no token x"),
    ("revoke nobody all", "", 1, "no user nobody"),
    ("revoke bob all", "", 0, '"revoked": 1'),
    ("revoke bob all", "", 0, '"revoked": 0'),
    ("tokens bob", "", 0, "[]"),
    ("operator alice", "", 0, '"role": "operator"'),
    ("operator take alice", "", 2, "revoke NAME"),
    ("operator revoke alice", "", 1, "last operator"),
    ("operator grant nobody", "", 1, "no user nobody"),
    ("ban alice", "", 1, "last operator"),
    ("ban carol --for 1h --reason spam", "", 0, '"banned": "carol", "until": "2'),
    ("users", "", 0, '"banned": true, "banned_until": "2'),
    ("users", "", 0, '"banned": false, "banned_until": null'),
    ("ban 192.0.2.7/24 --for forever", "", 0, '"banned": "192.0.2.0/24", "until": null'),
    ("ban 2001:db8::7", "", 0, '"banned": "2001:db8::/64"'),
    ("ban 192.0.2.300", "", 2, "not an address"),
    ("ban 10.0.0.0/99", "", 2, "not an address"),
    ("ban 0.0.0.0/0", "", 2, "too large"),
    ("ban carol --for 0d", "", 2, "is zero"),
    ("ban carol --for 10000y", "", 2, "100 years"),
    ("ban carol --for soon", "", 2, "not a duration"),
    ("ban nobody", "", 1, "no user nobody"),
    ("bans", "", 0, '"kind": "ban", "target": "carol", "room": null, "by": "the administrator"'),
    ("unban 192.0.2.0/24", "", 0, '"unbanned": "192.0.2.0/24"'),
    ("unban 192.0.2.0/24", "", 1, "is not banned"),
    ("unban carol", "", 0, '"unbanned": "carol"'),
    ("invit", "", 2, "did you mean invite?"),
    ("zzz", "", 2, "There is no command 'zzz'; see chatserver admin --help."),
    ("", "", 2, "COMMAND is missing; see chatserver admin --help."),
    ("unban", "", 2, "TARGET is missing; see chatserver admin unban --help."),
    ("users all", "", 2, "Too many arguments: all; see chatserver admin users --help."),
    ("audit --limti 5", "", 2, "There is no flag --limti; did you mean --limit? See chatserver admin audit --help."),
    ("delete-user alice --messages drop", "", 2, "--messages is 'drop'; it must be keep or erase."),
    ("invite --for 7d", "", 0, '"code": "'),
    ("invite", "", 0, '"until": null'),
    ("invite --for 0s", "", 2, "is zero"),
    ("prune --older-than 1d", "", 0, '"deleted": 0'),
    ("prune --older-than forever", "", 2, "age"),
    ("prune --older-than 0d", "", 2, "is zero"),
    ("rooms", "", 0, '"room": "dev", "members": 1, "invited": 0, "private": true, "owner": "alice"'),
    ("export", "", 0, '"to": "bob", "from": "alice", "message": "psst"'),
    ("export --room lobby", "", 0, '"room": "lobby", "from": "alice", "message": "hello bob"'),
    ("export --room DEV", "", 0, '"room": "dev", "from": "alice", "message": "only here"'),
    ("export --room none", "", 1, "no room none"),
    ("delete-user alice --messages keep", "", 1, "last operator"),
    ("operator grant bob", "", 0, '"user": "bob"'),
    ("delete-user alice --messages keep", "", 0, '"user": "alice"'),
    ("delete-user alice --messages erase", "", 1, "no user alice"),
    ("delete-user deleted-99 --messages erase", "", 1, "no user deleted-99"),
    ("export --room lobby", "", 0, '"message": "hello bob"'),
    ("delete-user deleted-1 --messages erase", "", 0, '"erased": 3'),
    ("export --room lobby", "", 0, '"from": "deleted-1", "deleted": true'),
    ("rooms", "", 0, "[]"),
    ("add ALICE", "secret\n", 0, '"user": "ALICE"'),
    ("delete-user carol --messages erase", "", 0, '"erased": 0'),
    ("audit --limit 2", "", 0, '"action": "erase_messages", "by": "the administrator", "target": "deleted-'),
    ("audit --limit 2", "", 0, '"action": "delete_user", "by": "the administrator", "target": "carol"'),
    ("audit --limit 0", "", 2, "--limit"),
    ("check", "", 0, ""),
    ("users", "", 0, '"user": "bob", "role": "operator"'),
]


# Columns that differ in each run.
RANDOM = {"created", "used", "expires", "time", "since", "until", "banned_until", "code", "token"}


def play(admin: Admin) -> list[Result]:
    """Run the story, and check each result."""
    results = []
    for command, typed, code, expected in STORY:
        result = admin(command, typed=typed)
        assert result.code == code, (command, result)
        assert expected in json.dumps(result.rows) + result.error, (command, result)
        results.append(result)
    return results


def without_times(results: list[Result]) -> list[Result]:
    """The same, also without the ids of tokens, which are texts."""

    def is_same(key: str, value: object) -> bool:
        return key not in RANDOM and not (key == "id" and isinstance(value, str))

    return [
        result._replace(rows=[{key: value for key, value in row.items() if is_same(key, value)} for row in result.rows])
        for result in results
    ]


def test_commands_do_the_same_with_and_without_a_running_server(admin: Admin, tmp_path: Path) -> None:
    """Afterwards the new users log in with their passwords; the log says who did what, without passwords."""
    shutil.copytree(admin.folder, tmp_path / "other")
    offline = play(admin)
    admin.folder = tmp_path / "other"
    with serving(admin.folder) as room:
        running = play(admin)
        room.enter("alice")

        def has_read_all() -> bool:
            (row,) = admin("sessions").rows
            assert (row["user"], row["protocol"]) == ("ALICE", "json")
            return bool(row["unread_bytes"] == 0)

        wait_for(has_read_all, "the session without unread bytes")
        assert admin("kick alice").rows == [{"user": "ALICE", "connections": 1}]
        assert admin("kick bob").error == "bob is not connected."
        assert stat.S_IMODE((admin.folder / ADMIN_FILE).stat().st_mode) == 0o600
    assert without_times(running) == without_times(offline)
    assert not (admin.folder / ADMIN_FILE).exists()
    assert "No server runs" in admin("sessions").error
    assert "No server runs" in admin("kick bob").error


def test_users_are_told_and_disconnected(admin: Admin) -> None:
    """A kick, a ban, another password and the end of an account end the connections; rooms are told of the heir."""
    with serving(admin.folder) as room:
        bob = room.enter("bob", rooms=True, moderation=True)
        bob.ask(command="join", room="open")
        bob.next("joined")
        for command in ("kick carol --reason noise", "ban carol --for 1h", "password carol", "ban 127.0.0.0/8"):
            carol = room.enter("carol")
            assert admin(command, typed="secret\n").code == 0
            assert carol.next("bye")["reason"]
            assert carol.is_closed()
            admin("unban carol")
        admin("unban 127.0.0.0/8")
        bob, alice = room.enter("bob", rooms=True), room.enter("alice", rooms=True)
        alice.ask(command="join", room="open")
        alice.next("joined")
        assert admin("delete-user bob --messages keep").code == 0
        assert alice.next("role")["username"] == "alice"
        assert bob.next("bye")
        assert admin("rooms").rows[1]["owner"] == "alice"
        assert room.enter("bob")  # a new user of this name
        dave = room.enter("dave", moderation=True)
        assert admin("operator dave").code == 0
        told = {"username": "dave", "role": "operator", "by": "the administrator"}
        assert dave.next("role") == {"type": "role", **told}
        assert admin("password dave --must-change", typed="other\n").code == 0
        dave = room.peer()
        dave.ask(command="login", username="dave", password="other")
        assert dave.next("error")["code"] == "password_change_required"
        configure_log("info", "text", io.StringIO())  # the commands before log warnings only
        with capture_logs() as log, target.open_target(admin.folder) as ask:
            ask(requests.Kick("alice", ""))
            ask(requests.Ban("192.0.2.0/24", None, ""))
    logged = [(entry["command"], entry["target"]) for entry in log if entry["event"] == "admin command"]
    assert logged == [("kick", "alice"), ("ban", "192.0.2.0/24")]
    acts = [(row["action"], row["by"], row["target"]) for row in admin("audit").rows]
    assert acts[:3] == [(act, "the administrator", "carol") for act in ("kick", "ban", "unban")]


def test_token_of_a_bot_is_valid_until_it_is_revoked(admin: Admin) -> None:
    """Its connections end then. The password is not replaced by it: one that must be changed must be so still."""
    with serving(admin.folder) as room:

        def enter(token: str) -> Peer:
            peer = room.peer()
            peer.ask(command="login", token=token)
            return peer

        one, other = (admin("token bob --label", label).rows[0] for label in ("bot 1", "bot 2"))
        assert {each["label"] for each in admin("tokens bob").rows} == {"bot 1", "bot 2"}
        first, second = enter(one["token"]), enter(other["token"])
        assert first.next("login")["username"] == second.next("login")["username"] == "bob"
        assert admin(f"revoke bob {one['id']}").rows == [{"user": "bob", "revoked": 1}]
        assert first.next("bye")["code"] == "revoked"
        assert enter(one["token"]).next("error")["code"] == "bad_token"
        assert admin("password bob --must-change", typed="other\n").code == 0
        assert second.next("bye")["code"] == "kicked"
        assert enter(other["token"]).next("error")["code"] == "bad_token"
        again = admin("token bob --label", "bot 3").rows[0]
        assert enter(again["token"]).next("error")["code"] == "password_change_required"
    acts = [(row["action"], row["target"], row["detail"].partition(",")[0]) for row in admin("audit").rows]
    assert ("token", "bob", f"id {one['id']}") in acts
    assert ("revoke", "bob", f"id {one['id']}") in acts


def test_table_of_acts_has_durations_as_ban_reads_them(admin: Admin, capsys: pytest.CaptureFixture[str]) -> None:
    """And JSON, for programs, has seconds."""
    assert admin("ban 192.0.2.7 --for 168h").code == 0
    assert admin("audit").rows[-1]["detail"].startswith("for 604800 s, by")
    assert cli.main(["--data", str(admin.folder), "audit"]) == 0
    assert "  for 7d, by the system user " in capsys.readouterr().out


def test_operations_page_has_a_row_for_each_command() -> None:
    page = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
    table = page.partition("## Administrators' commands")[2].partition("\n## ")[0]
    documented = re.findall(r"^\| `([a-z-]+)[ `]", table, re.MULTILINE)
    listed = re.findall(r"^    ([a-z-]+)(?:  |$)", cli.make_admin_parser().format_help(), re.MULTILINE)
    assert documented == listed


def test_output_has_no_control_characters(admin: Admin, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither tables nor JSON act on the terminal: U+009B is ESC and [ in one, and U+202E reverses a line."""
    text = "red \x1b[31m \x9b31m \u202e\U000e0001 \u00e9"
    with closing(sqlite3.connect(admin.folder / "chat.db")) as connection:
        connection.execute("UPDATE message SET text = ?", (text,))
        connection.execute("UPDATE conversation SET topic = 'red \x1b[31m' WHERE name = 'dev'")
        connection.commit()
    assert cli.main(["export", "--data", str(admin.folder)]) == 0
    first, *_ = capsys.readouterr().out.splitlines()
    assert first.isprintable()
    assert "\u00e9" in first
    assert json.loads(first)["message"] == text
    assert cli.main(["rooms", "--data", str(admin.folder)]) == 0
    heading, row = capsys.readouterr().out.splitlines()
    assert cli.main(["bans", "--data", str(admin.folder)]) == 0
    assert capsys.readouterr().out == "(none)\n"
    assert heading.split() == ["ROOM", "MEMBERS", "INVITED", "PRIVATE", "OWNER", "CREATED", "TOPIC"]
    assert row.endswith("red \\x1b[31m")
    assert cli.main(["rooms", "--data", f"{admin.folder}/\x1b[31m"]) == 1
    assert "/\\x1b[31m" in capsys.readouterr().err


def test_table_says_for_ever(admin: Admin, capsys: pytest.CaptureFixture[str]) -> None:
    """JSON has null there: see the story."""
    assert admin("ban 192.0.2.0/24").code == 0
    capsys.readouterr()
    assert cli.main(["bans", "--data", str(admin.folder)]) == 0
    heading, row = capsys.readouterr().out.splitlines()
    assert row[heading.index("UNTIL") :].rstrip() == "for ever"


def test_lists_exports_and_backups_have_no_secrets(admin: Admin, tmp_path: Path) -> None:
    """Nor the log and the audit table. The database, and so a backup, has hashes."""
    with serving(admin.folder) as room:
        assert admin("add erin", typed="w0nderland\n").code == 0
        assert admin("password bob --must-change", typed="w0nderland\n").code == 0
        (code,) = (row["code"] for row in admin("invite").rows)
        (token,) = (row["token"] for row in admin("token erin --label bot").rows)
        made = room.peer().login("bob", "w0nderland", new_password="w0nderland2", remember="phone")["token"]
        commands = ("users", "tokens", "bans", "rooms", "audit", "sessions", "export", "check", "doctor")
        printed = "".join(str(admin(command)) for command in commands)
        assert admin(f"backup {tmp_path}/backup.db").code == 0
    for text in (printed.encode(), (tmp_path / "backup.db").read_bytes()):
        assert b"bob" in text
        for secret in (b"w0nderland", *(each.encode() for each in (code, code.replace("-", ""), token, made))):
            assert secret not in text
    assert "argon2" not in printed


# --- bad input ---


def in_folder(change: Callable[[Path], object]) -> Callable[[Admin], None]:
    return lambda admin: change(admin.folder) and None


def damage(folder: Path) -> None:
    data = bytearray((folder / "chat.db").read_bytes())
    data[4_096 * 3 : 4_096 * 8] = b"\xff" * 4_096 * 5
    (folder / "chat.db").write_bytes(data)


def link(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).rename(folder / "elsewhere")
        (folder / name).symlink_to(folder / "elsewhere")

    return change


def unknown_schema(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "chat.db")) as connection:
        connection.execute("PRAGMA user_version = 99")
        connection.commit()


def nothing(_: Path) -> None:
    pass


# A change of the folder, a command, its exit code and a part of its error. {folder} and {file} are paths.
BAD = [
    (nothing, "", 2, "COMMAND"),
    (nothing, "frobnicate", 2, "frobnicate"),
    (nothing, "add", 2, "NAME"),
    (nothing, "add no-name", 2, "1 to 32 letters"),
    (nothing, f"ban bob --reason {'x' * 257}", 2, "256 bytes"),
    (nothing, f"kick bob --reason {'x' * 257}", 2, "256 bytes"),
    (nothing, "users --data {folder}/missing", 1, "--data"),
    (lambda folder: (folder / "chat.db").unlink(), "add erin", 1, "no database"),
    (lambda folder: (folder / "chat.db").write_bytes(b"x" * 5_000), "add erin", 1, "damaged"),
    (unknown_schema, "add erin", 1, "schema 99"),
    (damage, "users", 1, "damaged"),
    (damage, "backup {file}", 1, "damaged"),
    (damage, "check", 1, "damaged"),
    (link("chat.db"), "users", 1, "symbolic link"),
    (link("chat.state"), "add erin", 1, "symbolic link"),
    (nothing, "backup {folder}/chat.db", 1, "server's own files"),
    (nothing, "backup {folder}/../data/search.db --replace", 1, "server's own files"),
    (nothing, "backup {folder}", 1, "not a regular file"),
    (nothing, "backup {folder}/missing/file", 1, "No such file"),
    (nothing, "backup /dev/full", 1, "not a regular file"),
    (nothing, "restore {file} --replace", 1, "No such file"),
    (nothing, "restore /dev/null --replace", 1, "not the database of a chat server"),
    (nothing, "restore {folder}/chat.state --replace", 1, "not a database"),
    (nothing, "restore {folder}/chat.db", 1, "--replace"),
]


def contents(folder: Path) -> dict[str, bytes]:
    """The files of the folder, but for those that SQLite makes for readers."""
    return {
        path.name: path.read_bytes()
        for path in folder.iterdir()
        if path.is_file() and not path.name.endswith(("-shm", "-wal"))
    }


@pytest.mark.parametrize(("change", "command", "code", "expected"), BAD, ids=[row[1][:40] for row in BAD])
def test_bad_input_gets_one_sentence_and_changes_nothing(
    admin: Admin, tmp_path: Path, change: Callable[[Path], object], command: str, code: int, expected: str
) -> None:
    change(admin.folder)
    before = contents(admin.folder)
    result = admin(command.format(folder=admin.folder, file=tmp_path / "backup"), typed="secret\n")
    assert result.code == code
    assert expected in (result.error or json.dumps(result.rows))
    assert contents(admin.folder) == before
    assert not (tmp_path / "backup").exists()


def test_commands_at_the_same_time_wait_for_each_other(admin: Admin) -> None:
    """With a server and without one. Only two backups to one file are refused."""

    def ask(name: str) -> Answer:
        with target.open_target(admin.folder, busy_seconds=DEADLINE_SECONDS) as ask:
            return ask(requests.Add(name, "hash"))

    with ThreadPoolExecutor(4) as threads:
        offline = list(threads.map(ask, ["erin", "frank", "grace", "heidi"]))
        with serving(admin.folder):
            running = list(threads.map(ask, ["ivan", "judy", "mallory", "niaj"]))
    assert [answer.error for answer in (*offline, *running)] == [""] * 8
    with lock(admin.folder.parent / "backup.db.new"):
        result = admin(f"backup {admin.folder.parent}/backup.db")
    assert (result.code, "Another command is writing" in result.error) == (1, True), result
    assert admin(f"backup {admin.folder.parent}/backup.db").code == 0


def test_locked_folder_without_an_answer_is_an_error(admin: Admin) -> None:
    """Another command, or a server that hangs, has the locks."""
    busy = target.StoppedServer(admin.folder)
    with pytest.raises(AdminError, match="is in use"), target.open_target(admin.folder, busy_seconds=0.0):
        pass
    assert "Another server uses" in admin(f"restore {admin.folder}/chat.state --replace").error
    busy.close()
    assert admin("add erin", typed="secret\n").code == 0


@IS_ROOT
def test_other_system_users_are_refused(admin: Admin, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the modes of folder and socket; and by their credentials, if the modes are lost."""
    with serving(admin.folder):
        assert admin("users").code == 0  # another system user may not read the modules that this loads
        os.seteuid(NOT_ROOT)
        try:
            denied = admin("users").error
        finally:
            os.seteuid(0)
        monkeypatch.chdir(admin.folder)
        for path in (admin.folder, admin.folder / ADMIN_FILE):
            path.chmod(0o777)
        os.seteuid(NOT_ROOT)
        try:
            with socket.socket(socket.AF_UNIX) as peer, suppress(ConnectionError):
                peer.connect(ADMIN_FILE)
                peer.sendall(b'{"command":"sessions"}\n')
                assert peer.recv(100) == b""
        finally:
            os.seteuid(0)
    assert "Permission denied" in denied


@IS_ROOT
def test_root_leaves_files_that_the_server_can_use(admin: Admin) -> None:
    """In a folder of another user, root acts as that user."""
    with tempfile.TemporaryDirectory(dir="/tmp") as open_folder:
        Path(open_folder).chmod(0o755)
        folder = shutil.move(admin.folder, f"{open_folder}/data")
        for path in (Path(folder), *Path(folder).iterdir()):
            os.chown(path, NOT_ROOT, NOT_ROOT)
        (Path(folder) / "chat.state").unlink()
        run = [sys.executable, "-m", "chatserver", "admin", "--data", folder]
        for command in (["operator", "grant", "bob"], ["restore", "--replace", f"{open_folder}/backup.db"]):
            subprocess.run([*run, "backup", "--replace", f"{open_folder}/backup.db"], check=True, timeout=30)
            subprocess.run([*run, *command], check=True, timeout=30)
        assert {path.stat().st_uid for path in Path(folder).iterdir()} == {NOT_ROOT}


@IS_ROOT
def test_root_reads_nothing_that_the_owner_of_the_folder_could_not(admin: Admin) -> None:
    """The owner could put a link to a file of root there, between the check for links and the use."""
    with tempfile.TemporaryDirectory(dir="/tmp") as open_folder:
        Path(open_folder).chmod(0o755)
        folder = shutil.move(admin.folder, f"{open_folder}/data")
        os.chown(folder, NOT_ROOT, NOT_ROOT)
        run = [sys.executable, "-m", "chatserver", "admin", "--data", folder]
        for command in ("check", "backup -", f"backup {open_folder}/backup.db", "add erin"):
            done = subprocess.run(
                [*run, *command.split()], input="secret\n", capture_output=True, text=True, check=False, timeout=30
            )
            assert (done.returncode, "Permission denied" in done.stderr) == (1, True), (command, done)


def test_silent_and_talkative_peers_are_disconnected(tmp_path: Path) -> None:
    """A peer of the socket that sends nothing, half a line or too much delays others by the time limit only."""
    crashes: list[str] = []
    admin_socket = AdminSocket(tmp_path, lambda line, _: line.strip().upper(), crashes.append, peer_seconds=0.3)
    path = str(tmp_path / ADMIN_FILE)
    peers = []
    for data in (b"", b"half", b"x" * 100_000, b"gone\n", b"last\n"):  # all is sent before the time limits begin
        peers.append(socket.socket(socket.AF_UNIX))
        peers[-1].settimeout(DEADLINE_SECONDS)
        peers[-1].connect(path)
        peers[-1].sendall(data)
    peers[-2].close()
    admin_socket.start()
    assert peers[-1].recv(100) == b"LAST\n"
    for peer in peers:
        peer.close()
    admin_socket.close()
    assert crashes == []


# --- backup, restore, check ---


def test_backup_under_load_has_all_that_was_confirmed_before(admin: Admin, tmp_path: Path) -> None:
    """After the restore a client that saw newer messages learns that some are missing; ids are not used again."""
    file = tmp_path / "backup.db"
    with serving(admin.folder) as room:
        writer = room.enter("alice")
        confirmed = [writer.say(f"before {number}")["id"] for number in range(50)]
        stop = threading.Event()

        def write() -> None:
            while not stop.is_set():
                confirmed.append(writer.say("meanwhile")["id"])

        thread = threading.Thread(target=write)
        thread.start()
        known = len(confirmed)
        result = admin(f"backup {file}")
        after = len(confirmed)
        stop.set()
        thread.join()
    assert result.code == 0, result
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert admin(f"backup {file}").code == 1
    assert admin(f"restore {file} --replace").code == 0
    exported = {row["id"] for row in admin("export").rows}
    assert set(confirmed[:known]) <= exported
    assert len(exported) <= after + 10
    assert (admin.folder / "chat.db.before-restore").exists()
    with serving(admin.folder) as room:
        bob = room.peer()
        welcome = bob.login("bob", since=confirmed[-1])
        assert room.enter("alice").say("after")["id"] > confirmed[-1]
        assert welcome["last_id"] is not None
    assert admin("check").rows == []


@pytest.mark.parametrize(
    "prepare",
    [
        lambda new, used: new.symlink_to(used),
        lambda new, used: new.hardlink_to(used),
        pytest.param(lambda new, _: (new.touch(0o666), os.chown(new, NOT_ROOT, NOT_ROOT)), marks=IS_ROOT),
    ],
)
def test_backup_is_not_written_to_a_file_that_another_prepared(
    admin: Admin, tmp_path: Path, prepare: Callable[[Path, Path], object]
) -> None:
    """In a folder such as /tmp another user could read it, or lead the command to a third file."""
    file, used = tmp_path / "backup.db", tmp_path / "used"
    used.write_text("of another user")
    prepare(tmp_path / "backup.db.new", used)
    result = admin(f"backup {file}")
    assert (result.code, file.exists(), used.read_text()) == (1, False, "of another user")
    assert str(file) in result.error


def test_backup_and_restore_through_pipes(admin: Admin, tmp_path: Path) -> None:
    """The program ``chatserver``, as in a container. A reader that ends early is no error to talk about."""
    run = [sys.executable, "-m", "chatserver", "admin", "--data"]
    users = admin("users").rows
    with serving(admin.folder):
        backup = subprocess.run([*run, admin.folder, "backup", "-"], check=True, capture_output=True, timeout=30)
    assert backup.stderr.startswith(b"Standard output has a backup of")
    subprocess.run([*run, tmp_path / "new", "restore", "-"], input=backup.stdout, check=True, timeout=30)
    admin.folder = tmp_path / "new"
    assert admin("users").rows == users
    ended = subprocess.Popen([*run, admin.folder, "users"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert ended.stdout is not None
    ended.stdout.close()
    assert (ended.wait(30), ended.communicate()[1]) == (1, b"")


def test_restore_needs_no_folder_and_refuses_a_running_server(admin: Admin, tmp_path: Path) -> None:
    admin(f"backup {tmp_path}/backup.db")
    users = admin("users").rows
    admin.folder = tmp_path / "new"
    assert admin(f"restore {tmp_path}/backup.db").code == 0
    assert admin("users").rows == users
    with serving(admin.folder):
        result = admin(f"restore {tmp_path}/backup.db --replace")
    assert "Another server uses" in result.error


def test_database_that_a_restore_replaces_is_kept_with_its_log(admin: Admin, tmp_path: Path) -> None:
    """The server was killed, so its last messages are in the write-ahead log only."""
    admin(f"backup {tmp_path}/backup.db")
    with serving(admin.folder) as room:
        last_id = room.enter("alice").say("before the kill")["id"]
        shutil.copytree(admin.folder, tmp_path / "killed", ignore=shutil.ignore_patterns("*.sock"))
    admin.folder = tmp_path / "killed"
    kept = admin(f"restore {tmp_path}/backup.db --replace").rows[0]["kept"]
    with closing(sqlite3.connect(kept[0])) as connection:
        assert connection.execute("SELECT max(id) FROM message").fetchone() == (last_id,)
    assert last_id not in {row["id"] for row in admin("export").rows}


_CHANGES_OF_FILES = ("os.link", "os.rename", "os.remove", "os.truncate")


def code_with_fault(change: int, arguments: list[str], *, is_killed: bool) -> int:
    """Run a command in a child. At this one of its changes of files it dies (exit code 9), or the disk fails."""
    child = os.fork()
    if not child:
        changes = count(1)

        def fail(event: str, _: object) -> None:
            if event in _CHANGES_OF_FILES and next(changes) == change:
                if is_killed:
                    os._exit(9)
                raise OSError(errno.EIO, os.strerror(errno.EIO))

        sys.addaudithook(fail)
        os._exit(cli.main(arguments))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_restore_that_is_killed_at_any_step_keeps_the_database_with_its_log(admin: Admin, tmp_path: Path) -> None:
    """Promise: a second restore completes it, and the database that the first one replaced has all messages."""
    admin(f"backup {tmp_path}/backup.db")
    with serving(admin.folder) as room:
        last_id = room.enter("alice").say("before the kill")["id"]
        shutil.copytree(admin.folder, tmp_path / "killed", ignore=shutil.ignore_patterns("*.sock"))
    for change in count(1):
        admin.folder = tmp_path / f"killed {change}"
        shutil.copytree(tmp_path / "killed", admin.folder)
        restore = ["restore", f"{tmp_path}/backup.db", "--replace"]
        if code_with_fault(change, ["--data", str(admin.folder), *restore], is_killed=True) != 9:
            break
        assert admin(" ".join(restore)).code == 0, change
        assert last_id not in {row["id"] for row in admin("export").rows}
        found = set()
        for kept in admin.folder.glob("chat.db.before-restore*"):
            if not kept.name.endswith(("-wal", "-shm")):
                with closing(sqlite3.connect(kept)) as connection:
                    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",), (change, kept)
                    found |= set(connection.execute("SELECT max(id) FROM message").fetchone())
        assert last_id in found, change
    assert change > 5


def test_restore_that_fails_at_any_step_changes_nothing(admin: Admin, tmp_path: Path) -> None:
    """But the search index, which is built again."""
    admin(f"backup {tmp_path}/backup.db")
    wal = admin.folder / "chat.db-wal"
    wal.write_bytes(b"the last messages")
    before = contents(admin.folder)
    restore = ["--data", str(admin.folder), "restore", f"{tmp_path}/backup.db", "--replace"]
    for change in range(1, 9):
        assert code_with_fault(change, restore, is_killed=False) == 1, change
        after = contents(admin.folder)
        assert {**after, "search.db": b""} == {**before, "search.db": b""}, change
        assert wal.read_bytes() == b"the last messages"


@contextmanager
def full_disk(size_bytes: int) -> Iterator[None]:
    """No file can become larger than this."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_full_disk_leaves_neither_a_backup_nor_a_change(admin: Admin, tmp_path: Path) -> None:
    assert admin(f"backup {tmp_path}/backup.db").code == 0
    before = contents(admin.folder)
    with full_disk(40_000):
        results = [
            admin(f"backup {tmp_path}/other.db"),
            admin(f"backup {tmp_path}/backup.db --replace"),
            admin(f"restore {tmp_path}/backup.db --replace"),
        ]
    assert [result.code for result in results] == [1, 1, 1], results
    assert sorted(path.name for path in tmp_path.iterdir()) == ["backup.db", "data"]
    assert contents(admin.folder) == before
    assert admin(f"restore {tmp_path}/backup.db --replace").code == 0


_EVENT = "INSERT INTO room_event SELECT id, 0, 999, 1, {}, NULL, NULL, {} FROM conversation WHERE id > 1 LIMIT 1"
_SCHEMA_OF_MESSAGE = "UPDATE sqlite_schema SET sql = replace(sql, 'text            TEXT', '{}') WHERE name = 'message'"


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TRIGGER more AFTER INSERT ON message BEGIN UPDATE account SET role = 'operator'; END",
        "ALTER TABLE read_mark RENAME TO more; CREATE VIEW read_mark AS SELECT * FROM more",
        "CREATE INDEX more ON message (length(zeroblob(100000000)))",
        "CREATE VIRTUAL TABLE more USING fts5(text)",
        "ALTER TABLE account ADD COLUMN more INTEGER AS (length(zeroblob(100000000)))",
        "PRAGMA writable_schema = ON; "
        + _SCHEMA_OF_MESSAGE.format("text /* TEXT */ TEXT CHECK (length(zeroblob(100000000)) > 0)"),
        "DROP INDEX message_nonce",
        "PRAGMA user_version = 0",
    ],
)
def test_backup_with_a_schema_of_its_own_is_refused(admin: Admin, tmp_path: Path, sql: str) -> None:
    """SQLite would run it in the server. It is refused before the file is checked, which would run a part of it."""
    users = admin("users").rows
    admin(f"backup {tmp_path}/backup.db")
    plant(sql, "backup.db")(tmp_path)
    before = contents(admin.folder)
    result = admin(f"restore {tmp_path}/backup.db --replace")
    assert result.code == 1
    assert re.search(r"has the .*'(more|account|message|read_mark)'|has no .*'message_nonce'|not the", result.error)
    assert contents(admin.folder) == before
    assert admin("users").rows == users
    # The same file, in the place of the database without the command.
    admin.folder = tmp_path / "copied"
    admin.folder.mkdir(mode=0o700)
    shutil.copy(tmp_path / "backup.db", admin.folder / "chat.db")
    for command in ("users", "check"):
        assert admin(command).code == 1
    with pytest.raises(StoreError, match=r"has the|has no"):
        Database(admin.folder)


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE history_identity SET highest_id = 9223372036854775807",
        "UPDATE history_identity SET highest_id = 1099511627775",
        "UPDATE message SET time_ms = 9223372036854775807",
        "UPDATE message SET time_ms = -1",
        "UPDATE message SET key = 1099511627776 WHERE id = 1",
        "UPDATE account SET role = 'god'",
        "UPDATE account SET name = 'a' || char(27) || '[2J' WHERE name = 'alice'",
        "UPDATE membership SET role = 'king'",
        _EVENT.format("'coup'", "''"),
        _EVENT.format("'role'", "'member'"),
        _EVENT.format("'role'", "'member king'"),
        _EVENT.format("'modes'", "'{'"),
        _EVENT.format("'modes'", """'{"private":"yes"}'"""),
        _EVENT.format("'modes'", """'{"locked":true}'"""),
    ],
)
def test_backup_with_values_that_no_server_stores_is_refused(admin: Admin, tmp_path: Path, sql: str) -> None:
    """The server would end, or a connection, when it uses them."""
    admin(f"backup {tmp_path}/backup.db")
    plant(sql, "backup.db")(tmp_path)
    before = contents(admin.folder)
    result = admin(f"restore {tmp_path}/backup.db --replace")
    assert (result.code, "that no chat server stores" in result.error) == (1, True), result
    assert contents(admin.folder) == before
    plant(sql)(admin.folder)
    assert any("that no chat server stores" in row["problem"] for row in admin("check").rows)
    with pytest.raises(StoreError, match="that no chat server stores"):
        Database(admin.folder)


def test_backup_with_other_comments_and_statistics_is_restored(admin: Admin, tmp_path: Path) -> None:
    """Servers of earlier versions wrote other comments into the schema."""
    admin(f"backup {tmp_path}/backup.db")
    change = _SCHEMA_OF_MESSAGE.format("text TEXT /* of the message */")
    plant(f"ANALYZE; PRAGMA writable_schema = ON; {change}", "backup.db")(tmp_path)
    assert admin(f"restore {tmp_path}/backup.db --replace").code == 0
    assert admin("check").code == 0


# --- messages that are removed ---


def test_removed_messages_are_gone_and_their_ids_are_not_used_again(admin: Admin) -> None:
    """Promise: after a prune of all messages, and after a restart, the history has the same identity."""
    assert admin("delete-user alice --messages erase").rows[0]["erased"] == 3
    assert [row.get("deleted") for row in admin("export").rows] == [True] * 3
    with serving(admin.folder) as room:
        bob = room.enter("bob")
        last_id = bob.say("newer than an hour")["id"]
    plant("UPDATE message SET time_ms = time_ms - 3700000")(admin.folder)
    before = identity(admin.folder)
    assert admin("prune --older-than 1h").rows == [{"deleted": 4}]
    assert admin("export").rows == []
    assert rows_of(admin.folder, "SELECT count(*) FROM deletion") == [(1,)]
    with serving(admin.folder) as room:
        assert room.enter("bob").say("next")["id"] == last_id + 1
    assert identity(admin.folder) == before
    assert admin("check").rows == []


def rows_of(folder: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(folder / "chat.db")) as connection:
        return connection.execute(query).fetchall()


def identity(folder: Path) -> list[Any]:
    return rows_of(folder, "SELECT history_id FROM history_identity")


def test_retention_deletes_old_messages_and_no_others(admin: Admin) -> None:
    plant("UPDATE message SET time_ms = time_ms - 86400000 * 3 WHERE id = 1")(admin.folder)
    room = Room(replace(config_in(admin.folder), retention_days=2))
    try:
        bob = room.enter("bob")
        while [each["id"] for each in history(bob)] != [3]:
            pass
    finally:
        room.close()
    assert [row["id"] for row in admin("export").rows] == [2, 3]


def history(peer: Any) -> list[dict[str, Any]]:
    peer.ask(command="CH", limit=10)
    found: list[dict[str, Any]] = peer.next("history")["messages"]
    return found


def plant(sql: str, file: str = "chat.db") -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        with closing(sqlite3.connect(folder / file)) as connection:
            connection.executescript(sql)

    return change


def lose_index_entry(folder: Path) -> None:
    """Add a message while SQLite does not know of an index."""
    schema = "type, name, tbl_name, rootpage, sql"
    plant(f"""
        CREATE TABLE hidden AS SELECT {schema} FROM sqlite_schema WHERE name = 'message_recipient';
        PRAGMA writable_schema = ON;
        DELETE FROM sqlite_schema WHERE name = 'message_recipient';
    """)(folder)
    plant(f"""
        INSERT INTO message VALUES (99 - (1 << 40), 0, 1, 2, 'text', NULL, 0);
        PRAGMA writable_schema = ON;
        INSERT INTO sqlite_schema ({schema}) SELECT * FROM hidden;
        DROP TABLE hidden;
    """)(folder)


DAMAGE = {
    "chat.db is damaged (row": lose_index_entry,
    "number of members": plant("UPDATE conversation SET member_count = 7 WHERE name = 'dev'"),
    "exactly one owner": plant("UPDATE membership SET role = 'member'"),
    "tokens of accounts that are closed": plant(
        "INSERT INTO token SELECT 'x', id, 'x', '', 0, 0 FROM account LIMIT 1; "
        "UPDATE account SET deleted_ms = 1, name_key = NULL"
    ),
    "without a recipient": plant("UPDATE message SET recipient_id = NULL"),
    "refer to missing ones": plant("DELETE FROM account WHERE name = 'bob'"),
    "of another database": plant("UPDATE history_identity SET history_id = 'other'"),
    "older than chat.state": plant("DELETE FROM message"),
    "search.db is of another database": plant("UPDATE message SET text = text || 'x'"),
    "search.db lacks messages": plant("INSERT INTO public (public) VALUES ('delete-all')", "search.db"),
    "chat.state is damaged": lambda folder: (folder / "chat.state").write_text("{"),
    "search.db can't be read": lambda folder: (folder / "search.db").write_bytes(b"x" * 9_000),
}


@pytest.mark.parametrize("problem", DAMAGE)
def test_check_finds_planted_damage(admin: Admin, problem: str) -> None:
    DAMAGE[problem](admin.folder)
    result = admin("check")
    assert result.code == 1
    assert any(problem in row["problem"] for row in result.rows), result


def test_check_after_a_restore_into_an_empty_folder_finds_no_problem(admin: Admin, tmp_path: Path) -> None:
    """The restore leaves no chat.state. That is a note, because the next start of the server makes one."""
    assert admin(f"backup {tmp_path}/backup.db").code == 0
    admin.folder = tmp_path / "restored"
    assert admin(f"restore {tmp_path}/backup.db").code == 0
    result = admin("check")
    assert result.code == 0
    assert [list(row) for row in result.rows] == [["note"]]
    with serving(admin.folder):
        assert admin("check").rows == []


def test_doctor_names_problems_and_remedies(
    admin: Admin, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin.folder.chmod(0o755)
    monkeypatch.setenv("CHAT_GEUSTS", "off")
    files = authority.write(admin.folder)
    files.key.chmod(0o644)
    monkeypatch.setenv("CHAT_TLS_CERT", str(files.certificate))
    monkeypatch.setenv("CHAT_TLS_KEY", str(files.key))
    found = {(row["check"], row["verdict"], row["to_do"]) for row in admin("doctor").rows}
    assert found >= {
        ("folder", "warning", f"chmod 700 {admin.folder}"),
        ("certificate", "warning", f"chmod o= {files.key}"),
        ("settings", "warning", "Is it CHAT_GUESTS?"),
    }
    # Those of the tests are not settings either.
    for name in ("CHAT_GEUSTS", "CHAT_TLS_CERT", "CHAT_TLS_KEY", *(each for each in os.environ if "CHAT_TEST" in each)):
        monkeypatch.delenv(name)
    for published, verdict in (("", "warning"), ("0.0.0.0", "warning"), ("127.0.0.1", "ok")):
        monkeypatch.setenv("CHAT_PUBLISH", published)
        assert [row["verdict"] for row in admin("doctor").rows if row["check"] == "settings"] == [verdict]
    monkeypatch.setenv("CHAT_DISK_RESERVE", str(2**50))
    (full,) = (row for row in admin("doctor").rows if row["check"] == "disk space")
    assert (full["verdict"], "refuses messages" in full["state"]) == ("problem", True)
    monkeypatch.setenv("CHAT_PORT", "no")
    plant("UPDATE message SET time_ms = 4000000000000")(admin.folder)
    result = admin("doctor")
    problems = {row["check"] for row in result.rows if row["verdict"] == "problem"}
    assert result.code == 1
    assert problems >= {"settings", "clock"}
