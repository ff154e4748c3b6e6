"""The commands, as functions of the command line: lists, files, and requests for the server."""

from __future__ import annotations

import getpass
import os
import sys
import time
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from chatprotocol.address import is_address, new_ban_network
from chatprotocol.duration import detail_for_people, read_duration
from chatprotocol.errors import RequestError
from chatprotocol.limits import TOKEN_DAYS
from chatprotocol.rules import check_label, check_password, check_reason, check_username, room_key
from chatprotocol.settings import SERVER_SETTINGS, ConfigError, read_settings
from chatserver.admin import cluster, doctor, requests
from chatserver.admin.requests import AdminError
from chatserver.admin.target import as_owner, become_owner, check_folder, open_stopped, open_target
from chatserver.chat.passwords import HashCost, PasswordsFailedError, hash_password
from chatserver.clock import wall_ms
from chatserver.config import NATS_SETTINGS, load_config
from chatserver.journal.log import LogError
from chatserver.journal.nats_settings import nats_settings
from chatserver.log import configure_log
from chatserver.store import reports
from chatserver.store.accounts import Accounts
from chatserver.store.backup import restore_backup, stream_backup, write_backup
from chatserver.store.check import check_files, find_missing_state
from chatserver.store.database import DATABASE_FILE, ReadOnlyDatabase, schema_files
from chatserver.store.errors import StoreError
from chatserver.store.invitations import hash_code, new_code
from chatserver.store.log_position import read_position
from chatserver.store.tokens import new_token

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from chatserver.admin.requests import Answer, ChangeRequest
    from chatserver.store.reports import Row

_STANDARD_STREAM: Final = "-"
# Rows of the audit table that are listed at most: all of them fit into memory.
_AUDIT_MAX: Final = 1_000_000
# Pause between the steps of a removal.
STEP_PAUSE_SECONDS: Final = 0.02
# Commands that only read the data folder. Changes have their own way: see open_target.
_READING: Final = frozenset({"users", "tokens", "bans", "rooms", "audit", "export", "check", "doctor"})
_HASHING: Final = ("hash_time_cost", "hash_memory_kib", "hash_parallelism")


@dataclass
class Report:
    """The result of a command."""

    rows: Iterable[Row] = ()
    # For people, in place of the rows.
    done: str = ""
    error: str = ""
    # True if the command did its work, and found something that is wrong.
    has_problems: bool = False
    # True if the rows are printed as JSON in any case.
    is_stream: bool = False
    # True if standard output has a backup.
    is_output_taken: bool = False
    # Errors of reading the rows.
    errors: tuple[type[Exception], ...] = (StoreError,)
    # For people, on standard error after the result.
    note: str = ""


class _Call:
    """A command line, with the data folder and the variables of the settings."""

    def __init__(self, options: argparse.Namespace, folder: Path, environment: Mapping[str, str | None]) -> None:
        self.options = options
        self.folder = folder
        self.environment = environment


def run(options: argparse.Namespace, folder: Path, environment: Mapping[str, str | None]) -> Report:
    """Run the command. Raises ConfigError; other errors are in the report."""
    configure_log("warning", "text", sys.stderr)
    command: Callable[[_Call], Report] = _COMMANDS[options.command]
    try:
        if command is not _doctor and (command is not _restore or os.path.lexists(folder)):
            check_folder(folder)
        if options.command in _READING and os.path.lexists(folder):
            become_owner(folder)
        return command(_Call(options, folder, environment))
    except RequestError as error:  # a name, label, reason or password that no server would accept
        raise ConfigError(str(error)) from error
    except (AdminError, LogError, StoreError) as error:
        return Report(error=str(error))
    except PasswordsFailedError as error:
        return Report(error=f"The password can't be hashed: {error}; allow more memory, or lower CHAT_HASH_MEMORY_KIB.")
    except BrokenPipeError:
        raise
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        return Report(error=f"The command failed: {error.strerror or error}{where}.")


# --- lists ---


def _list_of(read: Callable[[Any, int], Iterator[Row]]) -> Callable[[_Call], Report]:
    def command(call: _Call) -> Report:
        with closing(ReadOnlyDatabase(call.folder)) as database, database.reading() as connection:
            return Report(list(read(connection, wall_ms())))

    return command


def _audit(call: _Call) -> Report:
    limit = call.options.limit
    if not limit.isascii() or not limit.isdigit() or not 0 < int(limit) <= _AUDIT_MAX:
        raise ConfigError(f"--limit is {limit!r}; it must be a whole number from 1 to {_AUDIT_MAX:,}.")
    with closing(ReadOnlyDatabase(call.folder)) as database, database.reading() as connection:
        rows = list(reports.read_audit(connection, int(limit)))
    if not call.options.json:
        rows = [{**row, "detail": detail_for_people(row["detail"])} for row in rows]
    return Report(rows)


def _export(call: _Call) -> Report:
    database, room_id = ReadOnlyDatabase(call.folder), None
    if call.options.room is not None:
        with database.reading() as connection:
            room_id = reports.find_room_id(connection, room_key(call.options.room))
        if room_id is None:
            raise AdminError(f"There is no room {call.options.room}.")

    def rows() -> Iterator[Row]:
        with closing(database):
            yield from reports.read_messages(database, room_id)

    return Report(rows(), is_stream=True)


# --- changes ---


def _ask(call: _Call, request: ChangeRequest) -> Report:
    with open_target(call.folder) as ask:
        answer = ask(request)
    return Report(answer.rows, answer.done, answer.error)


def _add(call: _Call) -> Report:
    check_username(call.options.name)
    return _ask(call, requests.Add(call.options.name, _read_hash(call)))


def _password(call: _Call) -> Report:
    # The change checks the name again. But a person is to know before typing a password twice.
    with closing(ReadOnlyDatabase(call.folder)) as database:
        if Accounts(database).find(call.options.name) is None:
            raise AdminError(f"There is no user {call.options.name}.")
    return _ask(call, requests.Password(call.options.name, _read_hash(call), call.options.must_change))


def _operator(call: _Call) -> Report:
    match call.options.words:
        case [name] | ["grant", name]:
            return _ask(call, requests.Operator(name, is_operator=True))
        case ["revoke", name]:
            return _ask(call, requests.Operator(name, is_operator=False))
    raise ConfigError("The arguments are NAME, grant NAME or revoke NAME; see chatserver admin operator --help.")


def _ban(call: _Call) -> Report:
    seconds = _read_duration(call.options.duration)
    try:
        if is_address(call.options.target):
            new_ban_network(call.options.target)
    except ValueError as error:
        raise ConfigError(f"{error}.") from error
    check_reason(call.options.reason)
    return _ask(call, requests.Ban(call.options.target, seconds, call.options.reason))


def _unban(call: _Call) -> Report:
    return _ask(call, requests.Unban(call.options.target))


def _kick(call: _Call) -> Report:
    check_reason(call.options.reason)
    return _ask(call, requests.Kick(call.options.name, call.options.reason))


def _delete_user(call: _Call) -> Report:
    if call.options.messages not in ("keep", "erase"):
        raise ConfigError(f"--messages is {call.options.messages!r}; it must be keep or erase.")
    erases = call.options.messages == "erase"
    with open_target(call.folder) as ask:
        answer = ask(requests.DeleteUser(call.options.name, erases))
        if not erases or answer.error:
            return Report(answer.rows, answer.done, answer.error)
        account_id, name = answer.rows[0]["account_id"], answer.rows[0]["user"]
        count, error = _repeat(ask, lambda after_id: requests.EraseStep(account_id, after_id))
    if error:
        rest = f"delete-user deleted-{account_id} --messages erase continues"
        return Report(error=f"{name} is deleted, but only {count:,} messages are erased ({error}); {rest}.")
    return Report([{**answer.rows[0], "erased": count}], f"{name} is deleted, and {count:,} messages are erased.")


def _prune(call: _Call) -> Report:
    seconds = _read_duration(call.options.older_than)
    if seconds is None:
        raise ConfigError("No message is that old; name an age such as 90d.")
    before_ms = max(0, wall_ms() - seconds * 1000)
    with open_target(call.folder) as ask:
        count, error = _repeat(ask, lambda after_id: requests.PruneStep(before_ms, after_id))
    if error:
        return Report(error=f"Only {count:,} messages were deleted: {error}")
    return Report([{"deleted": count}], f"{count:,} messages are deleted.")


def _repeat(ask: Callable[[ChangeRequest], Answer], step: Callable[[int], ChangeRequest]) -> tuple[int, str]:
    """Ask for steps of a removal until nothing is left. Returns the number of messages, and an error or nothing.

    The pauses let the server commit the messages of its users.
    """
    count, after_id = 0, 0
    while True:
        answer = ask(step(after_id))
        if answer.error:
            return count, answer.error
        count += answer.rows[0]["messages"]
        if answer.rows[0]["after_id"] is None:
            return count, ""
        after_id = answer.rows[0]["after_id"]
        time.sleep(STEP_PAUSE_SECONDS)


def _token(call: _Call) -> Report:
    """The token leaves this process on standard output only; the server gets its hash."""
    check_label(call.options.label)
    made = new_token()
    report = _ask(call, requests.AddToken(call.options.name, made.hash, made.id, call.options.label))
    if report.error:
        return report
    rows = [{"token": made.secret, **row} for row in report.rows]
    note = f"It logs in without the password, until {TOKEN_DAYS} days after its last use. It is not shown again."
    return Report(rows, made.secret, note=note)


def _tokens(call: _Call) -> Report:
    name = call.options.name
    with closing(ReadOnlyDatabase(call.folder)) as database, database.reading() as connection:
        if name is not None and Accounts(database).find(name) is None:
            raise AdminError(f"There is no user {name}.")
        return Report(list(reports.read_tokens(connection, wall_ms(), name)))


def _revoke(call: _Call) -> Report:
    token_id = "" if call.options.id == "all" else call.options.id
    return _ask(call, requests.Revoke(call.options.name, token_id))


def _invite(call: _Call) -> Report:
    """The code leaves this process on standard output only; the server gets its hash."""
    code = new_code()
    report = _ask(call, requests.Invite(hash_code(code), _read_duration(call.options.duration)))
    if report.error:
        return report
    rows = [{"code": code, **row} for row in report.rows]
    valid = f"until {rows[0]['until']}" if rows[0]["until"] else "for ever"
    note = f"One new name can be registered with this code, {valid}. Clients ask for it if CHAT_REGISTRATION is invite."
    return Report(rows, code, note=note)


def _read_duration(text: str) -> int | None:
    """Seconds, or None for ever. Raises ConfigError."""
    try:
        return read_duration(text)
    except ValueError as error:
        raise ConfigError(f"{error}.") from error


def _sessions(call: _Call) -> Report:
    return _ask(call, requests.Sessions())


def _read_hash(call: _Call) -> str:
    """Read a new password from the terminal, twice, or from standard input; return its hash. Raises AdminError."""
    try:
        if sys.stdin.isatty():
            password = getpass.getpass(f"New password of {call.options.name}: ")
            if getpass.getpass("Again: ") != password:
                raise AdminError("The two passwords differ; nothing was changed.")
        else:
            password = sys.stdin.readline().removesuffix("\n").removesuffix("\r")
    except (EOFError, UnicodeDecodeError) as error:
        raise AdminError("No password could be read; nothing was changed.") from error
    check_password(password)
    settings = [setting for setting in SERVER_SETTINGS if setting.name in _HASHING]
    values = read_settings(settings, {}, call.environment)
    return hash_password(HashCost(*(values[name] for name in _HASHING)), password)


# --- files ---


def _backup(call: _Call) -> Report:
    with as_owner(call.folder):
        database = ReadOnlyDatabase(call.folder)
    with closing(database):
        if call.options.file == _STANDARD_STREAM:
            if sys.stdout.isatty():
                raise AdminError(
                    "A backup can't be written to a terminal; name a file, or pipe the output to a program."
                )
            become_owner(call.folder)  # the file is in the data folder first
            copy = stream_backup(database, sys.stdout.buffer)
        else:
            copy = write_backup(database, Path(call.options.file), may_replace=call.options.replace)
    is_stream = call.options.file == _STANDARD_STREAM
    row: Row = {"file": call.options.file, "bytes": copy.size_bytes}
    done = f"{'Standard output' if is_stream else call.options.file} has a backup of {copy.size_bytes:,} bytes."
    if copy.position is not None:
        row["record"] = copy.position.number
        done = f"{done} It has the shared log up to record {copy.position.number:,}."
    return Report([row], done, is_output_taken=is_stream)


def _snapshot(call: _Call) -> Report:
    with as_owner(call.folder), closing(ReadOnlyDatabase(call.folder)) as database, database.reading() as connection:
        if read_position(connection) is None:
            raise AdminError(
                f"The data folder {call.folder} is of a single server; see `chatserver admin backup`, or "
                "`chatserver admin share`, which begins a shared log."
            )
    return _backup(call)


def _restore(call: _Call) -> Report:
    with _open_backup(call.options.file) as source:
        if os.path.lexists(call.folder):
            become_owner(call.folder)
        kept = restore_backup(call.folder, source, schema_files(), may_replace=call.options.replace)
    files = [str(path) for path in kept]
    aside = f" The former files are kept: {', '.join(files)}." if kept else ""
    done = f"The backup is restored to {call.folder / DATABASE_FILE}; start the server.{aside}"
    return Report([{"database": str(call.folder / DATABASE_FILE), "kept": files}], done)


@contextmanager
def _open_backup(file: str) -> Iterator[BinaryIO]:
    if file == _STANDARD_STREAM:
        yield sys.stdin.buffer
        return
    try:
        source = Path(file).open("rb")  # noqa: SIM115 -- an error of the block is not one of this file
    except OSError as error:
        raise AdminError(f"The backup {file} can't be read: {error.strerror}.") from error
    with source:
        yield source


def _check(call: _Call) -> Report:
    with closing(ReadOnlyDatabase(call.folder)) as database:
        problems = list(check_files(database))
        note = find_missing_state(database)
    rows = [{"problem": problem} for problem in problems]
    done = "" if problems else "No problem was found."
    return Report(rows + [{"note": note}] * bool(note), done, note=note, has_problems=bool(problems))


# --- several servers ---


def _share(call: _Call) -> Report:
    given = {setting.flag: getattr(call.options, setting.name) for setting in NATS_SETTINGS}
    flags = [f"{flag}={text}" for flag, text in given.items() if text is not None]
    config = load_config([f"--data={call.folder}", *flags], call.environment)
    if config.nats is None:
        raise ConfigError(
            "CHAT_NATS is missing, which names the NATS servers of the shared log; set it, or give --nats."
        )
    from chatserver.journal.nats_log import NatsLog  # noqa: PLC0415 -- other commands start faster without it

    log = NatsLog(nats_settings(config), "share", lambda _: None)
    with closing(open_stopped(call.folder)) as database:
        position = cluster.share_folder(database, log)
    row = {"stream": config.nats_stream, "log_id": position.log_id, "record": position.number}
    done = f"The stream {config.nats_stream} begins with the data of {call.folder}; start the server with CHAT_NATS."
    return Report([row], done)


def _unshare(call: _Call) -> Report:
    with closing(open_stopped(call.folder)) as database:
        position = cluster.unshare_folder(database, is_complete=not call.options.incomplete)
    done = (
        f"The data folder {call.folder} is that of a single server, with all records up to {position.number:,}; start "
        "the server without CHAT_NATS."
    )
    return Report([{"record": position.number}], done)


def _doctor(call: _Call) -> Report:
    findings = doctor.examine(call.folder, call.environment)
    has_problems = any(finding.verdict is doctor.Verdict.PROBLEM for finding in findings)
    return Report([finding.as_row() for finding in findings], has_problems=has_problems)


_COMMANDS: Final[dict[str, Callable[[_Call], Report]]] = {
    "users": _list_of(reports.read_users),
    "add": _add,
    "password": _password,
    "operator": _operator,
    "ban": _ban,
    "unban": _unban,
    "bans": _list_of(reports.read_bans),
    "kick": _kick,
    "delete-user": _delete_user,
    "token": _token,
    "tokens": _tokens,
    "revoke": _revoke,
    "invite": _invite,
    "rooms": _list_of(reports.read_rooms),
    "sessions": _sessions,
    "audit": _audit,
    "export": _export,
    "prune": _prune,
    "backup": _backup,
    "restore": _restore,
    "snapshot": _snapshot,
    "share": _share,
    "unshare": _unshare,
    "check": _check,
    "doctor": _doctor,
}
