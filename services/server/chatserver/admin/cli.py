"""The command line of ``chatserver admin``: its parser, its output and its exit codes."""

from __future__ import annotations

import argparse
import json
import os
import sys
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TextIO

from chatprotocol.interrupts import exit_on_interrupt
from chatprotocol.settings import SERVER_SETTINGS, CommandParser, ConfigError, make_parser, read_settings
from chatserver import __version__
from chatserver.config import NATS_SETTINGS, read_environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from chatserver.admin.commands import Report

EXIT_OK: Final = 0
EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2

PROGRAM: Final = "chatserver admin"
_FOLDER: Final = tuple(
    replace(setting, meaning="data folder of the server") for setting in SERVER_SETTINGS if setting.name == "data"
)
_POSITIONALS: Final = {
    "NAME": "the user",
    "TARGET": "a user, an address, or a network such as 192.0.2.0/24",
    "FILE": "the backup; - is standard input or output",
}
_EPILOG: Final = """
Exit codes: 0 done; 1 refused or failed, and nothing was changed; 2 the command, a value in it or a setting is wrong.
Passwords are read from the terminal, or from the first line of standard input. FILE may be - for standard input or
output. The commands work with the server running or stopped, except for sessions and kick (only running) and restore,
share and unshare (only stopped). If several servers share a log, those that change something need the server running.
"""


def make_admin_parser() -> argparse.ArgumentParser:
    """The parser of all commands. It raises ConfigError, and prints and exits for --help."""
    parser = make_parser(
        _FOLDER,
        PROGRAM,
        __version__,
        description="Administer a chat server: its users, rooms and files.",
        epilog=_EPILOG,
        usage=f"{PROGRAM} [--data DIR] [--json] COMMAND ...",
    )
    parser.add_argument("--json", action="store_true", help="print JSON objects, one per line, also for errors")
    commands = parser.add_subparsers(
        dest="command", metavar="COMMAND", required=True, prog=PROGRAM, parser_class=CommandParser
    )

    def add(name: str, meaning: str, *positionals: str) -> argparse.ArgumentParser:
        command: argparse.ArgumentParser = commands.add_parser(
            name, help=meaning, description=f"{meaning[0].upper()}{meaning[1:]}.", allow_abbrev=False
        )
        for each in positionals:
            command.add_argument(each.lower(), metavar=each, help=_POSITIONALS[each])
        # Also after the command. Without SUPPRESS the default would replace a value that was given before it.
        command.add_argument("--data", metavar="DIR", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        command.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        return command

    def add_for(command: argparse.ArgumentParser) -> None:
        meaning = "such as 10m, 2h or 7d; default: for ever"
        command.add_argument("--for", dest="duration", metavar="TIME", default="forever", help=meaning)

    add("users", "list the registered users")
    add("add", "register a user; the password is asked for, or read from standard input", "NAME")
    password = add(
        "password",
        "replace the password of a user, and end the user's connections; the password is read as for add",
        "NAME",
    )
    _add_switch(password, "--must-change", "the next login must replace this password")
    operator = add("operator", "make a user an operator of the server, or take the role back")
    # Not choices of an optional argument: argparse would lose the name in `operator --json revoke alice`.
    operator.add_argument("words", nargs="+", metavar="NAME", help="the user; grant is the default")
    operator.usage = f"{PROGRAM} operator [-h] [grant | revoke] NAME"
    ban = add("ban", "keep a user, an address or a network out of the server", "TARGET")
    add_for(ban)
    ban.add_argument("--reason", metavar="TEXT", default="", help="one line, which the target reads")
    add("unban", "end a ban", "TARGET")
    add("bans", "list the bans and mutes")
    kick = add("kick", "end the connections of a user", "NAME")
    kick.add_argument("--reason", metavar="TEXT", default="", help="one line, which the user reads")
    delete = add("delete-user", "close an account and free its name", "NAME")
    delete.add_argument("--messages", metavar="{keep,erase}", required=True, help="keep or erase the user's messages")
    token = add("token", "print a token with which a bot or device of a user logs in without the password", "NAME")
    token.add_argument("--label", metavar="TEXT", required=True, help="names the bot or device in lists")
    tokens = add("tokens", "list the tokens of a user, or of all users")
    tokens.add_argument("name", metavar="NAME", nargs="?", help="the user; default: all")
    revoke = add("revoke", "revoke a token of a user, and end the connections that use it", "NAME")
    revoke.add_argument("id", metavar="ID", help="the token, as `tokens` lists it, or all")
    add_for(add("invite", "make an invitation code, with which one name can be registered"))
    add("rooms", "list the rooms")
    add("sessions", "list the connections of the running server")
    audit = add("audit", "list the acts of moderation and administration, oldest first")
    audit.add_argument("--limit", metavar="N", default="100", help="the newest N acts; default 100")
    export = add("export", "print the messages of a room, or all messages, as JSON lines, oldest first")
    export.add_argument("--room", metavar="ROOM", help="this room only; lobby is the room of all users")
    prune = add("prune", "delete old messages; CHAT_RETENTION_DAYS does so daily")
    prune.add_argument("--older-than", metavar="TIME", required=True, help="age of the messages, such as 90d")
    _add_file_commands(add)
    return parser


def _add_file_commands(add: Callable[..., argparse.ArgumentParser]) -> None:
    backup = add("backup", "write a consistent copy of the database to a new file, also while the server runs", "FILE")
    _add_switch(backup, "--replace", "replace an existing file")
    restore = add("restore", "replace the database with a backup; the server must be stopped", "FILE")
    _add_switch(restore, "--replace", "replace an existing database, which is kept as chat.db.before-restore")
    snapshot = add(
        "snapshot", "write a copy of the database, with which another server joins the shared log (see restore)", "FILE"
    )
    _add_switch(snapshot, "--replace", "replace an existing file")
    share = add("share", "make the data of this server the beginning of a shared log; the server must be stopped")
    for setting in NATS_SETTINGS:
        metavar = setting.metavar or setting.name.upper()
        share.add_argument(setting.flag, dest=setting.name, metavar=metavar, help=setting.meaning)
    unshare = add("unshare", "leave the shared log, and be a single server again; the server must be stopped")
    _add_switch(unshare, "--incomplete", "other servers had newer messages; clients fetch again what there is")
    add("check", "check the database, the search index and the state file, and that they agree")
    add("doctor", "examine settings, disk, limits, clock, version and NATS; print problems and remedies")


def _add_switch(command: argparse.ArgumentParser, flag: str, meaning: str) -> None:
    command.add_argument(flag, action="store_true", help=meaning)


def main(arguments: Sequence[str]) -> int:
    """Run a command. Returns the exit code."""
    as_json = "--json" in arguments
    try:
        options = make_admin_parser().parse_args(arguments)
        environment = read_environment()
        folder: Path = read_settings(_FOLDER, {"data": options.data}, environment)["data"]
        with exit_on_interrupt(EXIT_FAILED):
            from chatserver.admin.commands import run  # noqa: PLC0415 -- --help needs none of it, and it takes 0.15 s

        return _print(run(options, folder, environment), as_json=as_json)
    except ConfigError as error:
        return _print_error(str(error), EXIT_USAGE, as_json=as_json)
    except BrokenPipeError:
        # The reader has ended, as in `chatserver admin export | head`. Python would complain at its exit.
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except KeyboardInterrupt:
        return _print_error("Interrupted.", EXIT_FAILED, as_json=as_json)


def _print(report: Report, *, as_json: bool) -> int:
    if report.error:
        return _print_error(report.error, EXIT_FAILED, as_json=as_json)
    # Standard output may have a backup, which is not to be mixed with text.
    output = sys.stderr if report.is_output_taken else sys.stdout
    try:
        if as_json or report.is_stream:
            output.writelines(f"{_json_of(row)}\n" for row in report.rows)
        elif report.done:
            print(_cell(report.done), file=output)
        else:
            _print_table(report.rows, output)
        output.flush()
        if report.note and not as_json:
            print(_cell(report.note), file=sys.stderr)
    except report.errors as error:  # rows of an export are read while they are printed
        return _print_error(str(error), EXIT_FAILED, as_json=as_json)
    return EXIT_FAILED if report.has_problems else EXIT_OK


def _print_error(sentence: str, code: int, *, as_json: bool) -> int:
    text = _json_of({"error": sentence}) if as_json else f"{PROGRAM}: {_cell(sentence)}"
    print(text, file=sys.stderr)
    return code


def _print_table(rows: Iterable[dict[str, Any]], output: TextIO) -> None:
    """Print columns with a heading. None is an empty cell, but in the column ``until`` it means for ever."""
    texts = [
        [(key, "for ever" if key == "until" and value is None else _cell(value)) for key, value in row.items()]
        for row in rows
    ]
    if not texts:
        print("(none)", file=output)
        return
    widths = [max(len(column[0][0]), *(len(cell) for _, cell in column)) for column in zip(*texts, strict=True)]
    heading = [(key, key.upper().replace("_", " ")) for key, _ in texts[0]]
    for line in (heading, *texts):
        cells = (cell.ljust(width) for (_, cell), width in zip(line, widths, strict=True))
        print("  ".join(cells).rstrip(), file=output)


def _json_of(row: dict[str, Any]) -> str:
    """A JSON object in which all that could act on a terminal is escaped."""
    text = json.dumps(row, ensure_ascii=False)
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else json.dumps(each)[1:-1] for each in text)


def _cell(value: Any) -> str:
    """A value as text without control characters, which could rewrite the terminal."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = "" if value is None else str(value)
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
