"""The settings. Precedence: flags, environment, .env, defaults."""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from chatclient import __version__
from chatclient.links.watch import SILENCE_SECONDS
from chatprotocol.address import split_address
from chatprotocol.encoding import decode_text
from chatprotocol.errors import RequestError
from chatprotocol.keywords import DEFAULT_KEYWORDS, KEYWORD_SETS
from chatprotocol.rules import check_port, check_username
from chatprotocol.wire import PROTOCOLS, Datagram, Register
from chatprotocol.wire.register import LENGTH_UNITS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# The protocol whose users are asked for the server, too, and again after an invalid name.
_ASKING_PROTOCOL = Register.name
DEFAULT_SERVER = "localhost"
# Default of --retry-seconds, except at a terminal: a person can end the client.
_RETRY_SECONDS = 60.0
_YES_NO = ("no", "yes")
_FORMS = "Give HOST PORT USERNAME, HOST:PORT USERNAME (as [::1]:9999 alice), or USERNAME alone."


class FrontendKind(Enum):
    """The kind of user interface."""

    TERMINAL = "a prompt below what happens, for people"
    PLAIN = "lines, for pipes, scripts and simple terminals"
    JSON = "JSON objects, for programs"


class ConfigError(Exception):
    """A setting is invalid. The text is one line that names it."""


@dataclass(frozen=True)
class Config:
    """Every setting of the client."""

    # None: the user is asked.
    server: str | None
    port: int
    # None: the user is asked.
    user: str | None
    password: str | None
    protocol: str
    register_length: str
    ops: str
    script: Path | None
    retry_seconds: float
    silence_seconds: float
    frontend: FrontendKind
    is_quiet: bool
    shows_joins: bool


def load_config(arguments: Sequence[str], environment: Mapping[str, str | None]) -> Config:
    """Combine the sources; ``environment`` includes .env. Raises ConfigError.

    Prints and exits for --help and --version.
    """
    flags = _parser().parse_intermixed_args(arguments)
    word_server, word_port, user = _positionals(flags.WORD)
    try:
        server, port = _server(flags, word_server, word_port, environment)
    except RequestError as error:
        raise ConfigError(f"{error.reason} {_FORMS}" if word_port else error.reason) from error
    password = environment.get("CHAT_PASSWORD")
    if password_file := flags.password_file or environment.get("CHAT_PASSWORD_FILE"):
        password = read_text(password_file, "password").rstrip("\r\n")
        if not password:
            raise ConfigError(f"The password file {password_file} is empty.")
    if password and not _is_text(password):
        raise ConfigError("The password is not text in UTF-8.")
    script = flags.script or environment.get("CHAT_SCRIPT")
    user = flags.username or user or environment.get("CHAT_USER")
    if flags.udp and flags.dialect and flags.dialect.lower() != Datagram.name:
        raise ConfigError(f"--udp is the dialect {Datagram.name}, and --dialect is {flags.dialect}; give one of them.")
    protocol = Datagram.name if flags.udp else _choice("dialect", flags, environment, [each.name for each in PROTOCOLS])
    try:
        if user and protocol != _ASKING_PROTOCOL:
            check_username(user)
    except RequestError as error:
        raise ConfigError(f"{user!r} can't be a username. {error.reason}") from error
    frontend = _frontend(is_json=flags.json, is_plain=flags.plain or bool(script), term=environment.get("TERM"))
    default_seconds = math.inf if frontend is FrontendKind.TERMINAL else _RETRY_SECONDS
    return Config(
        server=server or (None if protocol == _ASKING_PROTOCOL else DEFAULT_SERVER),
        port=port,
        user=user or None,
        password=password or None,
        protocol=protocol,
        register_length=_choice("register_length", flags, environment, LENGTH_UNITS),
        ops=_choice("ops", flags, environment, list(KEYWORD_SETS)),
        script=Path(script) if script else None,
        retry_seconds=_seconds("retry_seconds", flags, environment, default_seconds),
        silence_seconds=_seconds("silence_seconds", flags, environment, SILENCE_SECONDS) or math.inf,
        frontend=frontend,
        is_quiet=_choice("quiet", flags, environment, _YES_NO) == "yes",
        shows_joins=_choice("hide_joins", flags, environment, _YES_NO) == "no",
    )


def _frontend(*, is_json: bool, is_plain: bool, term: str | None) -> FrontendKind:
    """The requested one; otherwise the terminal's, if stdin and stdout are a terminal that can move its cursor."""
    if is_json:
        return FrontendKind.JSON
    is_terminal = all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout))
    if is_plain or not is_terminal or (term or "dumb") in ("dumb", "unknown"):
        return FrontendKind.PLAIN
    return FrontendKind.TERMINAL


def read_text(path: str | Path, what: str) -> str:
    """Read a text file. Raises ConfigError if that fails."""
    try:
        return decode_text(Path(path).read_bytes())
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        raise ConfigError(f"The {what} file {path} can't be read: {reason}.") from error


def _positionals(words: Sequence[str]) -> tuple[str | None, str | None, str | None]:
    """Server, port and user from HOST PORT, HOST PORT USERNAME, HOST:PORT USERNAME or USERNAME."""
    match words:
        case []:
            return None, None, None
        case [address] if ":" in address:  # usernames have no colon
            return address, None, None
        case [user]:
            return None, None, user
        case [address, user] if _has_port(address):
            return address, None, user
        case [host, port]:
            return host, port, None
        case [host, port, user]:
            return host, port, user
        case _:
            raise ConfigError(f"{len(words)} words are too many. {_FORMS}")


def _has_port(address: str) -> bool:
    try:
        return bool(split_address(address)[1])
    except RequestError:
        return True  # the invalid address is reported later


def _server(
    flags: argparse.Namespace, server: str | None, port: str | None, environment: Mapping[str, str | None]
) -> tuple[str | None, int]:
    """Host (None if not given) and port. Flags win over words, words over the environment. Raises RequestError."""
    host, port_behind = split_address(flags.hostname or server or environment.get("CHAT_SERVER") or "")
    return host or None, check_port(flags.port or port or port_behind or environment.get("CHAT_PORT") or "9999")


def _is_text(value: str) -> bool:
    """False if the value has surrogates: bytes of a variable that are not UTF-8, which can't be sent."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _given(name: str, flags: argparse.Namespace, environment: Mapping[str, str | None]) -> tuple[str, str | None]:
    """The name of the setting's source, for errors, and its text, if set. The flag wins over the variable."""
    if text := getattr(flags, name):
        return f"--{name.replace('_', '-')}", text
    variable = f"CHAT_{name.upper()}"
    return variable, environment.get(variable)


def _seconds(
    name: str, flags: argparse.Namespace, environment: Mapping[str, str | None], default_seconds: float
) -> float:
    source, text = _given(name, flags, environment)
    if not text:
        return default_seconds
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not seconds >= 0:  # also true for NaN
        raise ConfigError(f"{source} is {text!r}; it must be a number of seconds, 0 or more.")
    return seconds


def _choice(name: str, flags: argparse.Namespace, environment: Mapping[str, str | None], words: Sequence[str]) -> str:
    """One of these words, case-insensitive. The first one is the default."""
    source, text = _given(name, flags, environment)
    if not text:
        return words[0]
    if text.lower() not in words:
        raise ConfigError(f"{source} is {text!r}; it must be one of {', '.join(words)}.")
    return text.lower()


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message[0].upper()}{message[1:]}; see {self.prog} --help.")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="chatclient",
        usage="chatclient [HOST PORT] [USERNAME] [flags]",
        allow_abbrev=False,
        description="Join a chat room. In pipes, in scripts and with --plain each line is an operation (PM, DM, CH, "
        "EX, /help), and any other line is an error. At a terminal any other line is a message to everybody.",
        epilog="Flags win over variables, and variables over the file .env. Exit codes: 0 after EX or at the end of "
        "the input, 1 if the server can't be reached or the connection is lost for good, 2 for bad usage, 3 if the "
        "login is refused, 4 if a script waited in vain.",
    )
    parser.add_argument("--version", action="version", version=f"chatclient {__version__}")
    parser.add_argument("WORD", nargs="*", help="HOST PORT USERNAME, HOST:PORT USERNAME, HOST PORT, or USERNAME alone")

    def add(flags: str, meaning: str, variable: str = "", default: str = "", **options: str) -> None:
        source = "; ".join(filter(None, (variable, default)))
        text = f"{meaning} ({source})" if source else meaning
        parser.add_argument(*flags.split(), help=text, **options)  # type: ignore[arg-type]

    add(
        "-hn --hostname",
        "server, as HOST or HOST:PORT; in the wire format register the client asks for it",
        "CHAT_SERVER",
        DEFAULT_SERVER,
        metavar="HOST",
    )
    add("-p --port", "port of the server", "CHAT_PORT", "9999", metavar="PORT")
    add("-u --username", "your name; the client asks if it is missing", "CHAT_USER", metavar="NAME")
    add(
        "--password-file",
        "file with your password; CHAT_PASSWORD holds the password itself; the client asks if both are missing",
        "CHAT_PASSWORD_FILE",
        metavar="FILE",
    )
    names = [each.name for each in PROTOCOLS]
    add(
        "--dialect",
        f"wire format: {', '.join(names[:-1])} or {names[-1]}",
        "CHAT_DIALECT",
        names[0],
        metavar="NAME",
    )
    add("--udp", f"same as --dialect {Datagram.name}", action="store_true")
    add(
        "--register-length",
        "wire format register: unit of Content-length, bytes or characters",
        "CHAT_REGISTER_LENGTH",
        LENGTH_UNITS[0],
        metavar="UNIT",
    )
    add(
        "--ops",
        "keywords of the operations: pm-dm, or bm-pm for BM and PM instead of PM and DM",
        "CHAT_OPS",
        DEFAULT_KEYWORDS,
        metavar="WORDS",
    )
    add("--script", "file of lines to play instead of standard input", "CHAT_SCRIPT", metavar="FILE")
    add(
        "--retry-seconds",
        "time to try to reconnect after a lost connection; at a terminal the default has no limit",
        "CHAT_RETRY_SECONDS",
        f"{_RETRY_SECONDS:g}",
        metavar="N",
    )
    add(
        "--silence-seconds",
        "treat the connection as lost if the server is silent for this time; 0: never",
        "CHAT_SILENCE_SECONDS",
        f"{SILENCE_SECONDS:g}",
        metavar="N",
    )
    add("--json", "print events as JSON objects, one per line", action="store_true")
    add("--plain", "print lines as in a pipe, also at a terminal", action="store_true")
    add(
        "--quiet",
        "no bell and no bold text for messages that mention you",
        "CHAT_QUIET",
        _YES_NO[0],
        action="store_const",
        const="yes",
    )
    add("--hide-joins", "hide joins and leaves", "CHAT_HIDE_JOINS", _YES_NO[0], action="store_const", const="yes")
    return parser
