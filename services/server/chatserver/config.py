"""The settings. Precedence: flags, environment, ``.env``, defaults."""

from __future__ import annotations

import argparse
import io
import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from dotenv import dotenv_values
from dotenv.parser import parse_stream

from chatprotocol.address import check_host
from chatprotocol.encoding import DOTENV_MAX_BYTES, decode_text
from chatprotocol.errors import RequestError
from chatprotocol.wire.register import DELIVERED_WORDS, FORWARD_MAX_LEAST_BYTES, LENGTH_UNITS
from chatserver import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_DAY_SECONDS = 86_400
# Minimum memory of a hash per lane: RFC 9106, section 3.1.
_LANE_KIB = 8
# A bad .env prevents the start, because it may close the registration.
_DOTENV_HINT = "Correct or remove it, or start the server in another folder (with --data)."


class ConfigError(Exception):
    """A setting can't be used. The text is one line that names the setting."""


def _integer(least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not (re.fullmatch("[0-9]{1,12}", text) and least <= int(text) <= most):
            raise ValueError(f"a whole number from {least} to {most}")
        return int(text)

    return parse


def _host(text: str) -> str:
    try:
        return check_host(text)
    except RequestError as error:
        raise ValueError("an address or a host name, such as 127.0.0.1, :: or [::1]") from error


def _integer_or_0(least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            return 0 if text == "0" else _integer(least, most)(text)
        except ValueError as error:
            raise ValueError(f"0, or {error}") from error

    return parse


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= _DAY_SECONDS:
        raise ValueError(f"a number of seconds, more than 0 and at most {_DAY_SECONDS}")
    return seconds


def _choice(*words: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        found = [word for word in words if word.lower() == text.lower()]
        if not found:
            raise ValueError(" or ".join(words))
        return found[0]

    return parse


def _setting(default: Any, flags: str, parse: Callable[[str], Any], text: str) -> Any:
    return field(default=default, metadata={"flags": flags.split(), "parse": parse, "text": text})


@dataclass(frozen=True)
class Config:
    """All settings of the server. The setting ``name`` has the environment variable ``CHAT_NAME``."""

    host: str = _setting("0.0.0.0", "--host", _host, "address to listen on; :: listens on IPv6 and IPv4")
    port: int = _setting(9999, "-p --port", _integer(0, 65_535), "port to listen on, TCP and UDP; 0 picks a free one")
    data: Path = _setting(Path("chat-data"), "--data", Path, "folder of the database; created if missing")
    registration: str = _setting(
        "open", "--registration", _choice("open", "closed"), "open, or closed: new names can't register"
    )
    guests: str = _setting(
        "auto",
        "--guests",
        _choice("auto", "on", "off"),
        "users without a password (wire format register): on, off, or auto: on while registration is open",
    )
    max_connections: int = _setting(
        10_000, "--max-connections", _integer(1, 10**6), "maximum number of connections, including sessions over UDP"
    )
    login_seconds: float = _setting(
        60.0, "--login-seconds", _seconds, "timeout for the login, and for the rest of an incomplete request"
    )
    peer_timeout_seconds: float = _setting(
        90.0,
        "--peer-timeout-seconds",
        _seconds,
        "disconnect a TCP client whose machine acknowledges nothing for this time",
    )
    users_seconds: float = _setting(30.0, "--users-seconds", _seconds, "interval between lists of online users")
    # Minimum 1 MiB: with less, one burst would disconnect receivers before the sender runs.
    lag_max_bytes: int = _setting(
        8 * 1024 * 1024,
        "--lag-max-bytes",
        _integer(2**20, 2**31),
        "disconnect a client that is more than this many bytes behind; at least 1048576",
    )
    # Defaults from OWASP's Password Storage Cheat Sheet for argon2id.
    hash_time_cost: int = _setting(2, "--hash-time-cost", _integer(1, 100), "argon2id: passes over the memory")
    hash_memory_kib: int = _setting(19_456, "--hash-memory-kib", _integer(8, 2**22), "argon2id: memory of one hash")
    hash_parallelism: int = _setting(1, "--hash-parallelism", _integer(1, 64), "argon2id: lanes")
    register_delivered: str = _setting(
        DELIVERED_WORDS[0],
        "--register-delivered",
        _choice(*DELIVERED_WORDS),
        "wire format register: word that confirms a delivery, SEND or SENT",
    )
    register_length: str = _setting(
        LENGTH_UNITS[0],
        "--register-length",
        _choice(*LENGTH_UNITS),
        "wire format register: unit of Content-length, bytes or characters",
    )
    register_forward_max: int = _setting(
        0,
        "--register-forward-max",
        _integer_or_0(FORWARD_MAX_LEAST_BYTES, 65_536),
        "wire format register: maximum size of a FORWARD in bytes, at least 256; longer texts and texts of several "
        "lines are split; 0: never split",
    )
    log_level: str = _setting(
        "info",
        "--log-level",
        _choice("debug", "info", "warning", "error"),
        "lowest level to log: debug, info, warning or error",
    )
    log_format: str = _setting(
        "text", "--log-format", _choice("text", "json"), "text, or json: one JSON object per line"
    )

    @property
    def guests_allowed(self) -> bool:
        """True if a login without an account is allowed. With closed registration it needs ``--guests on``."""
        return self.guests == "on" or (self.guests == "auto" and self.registration == "open")


def load_config(arguments: Sequence[str], environment: Mapping[str, str | None]) -> Config:
    """Combine the sources; ``environment`` includes the variables of ``.env``. Raises ConfigError.

    Prints and exits for --help and --version.
    """
    flags = vars(_parser().parse_args(arguments))
    port = flags.pop("PORT")
    if port is not None and flags["port"] is not None:
        raise ConfigError(f"The port is given twice, as {port} and as {flags['port']}; give it once.")
    flags["port"] = port or flags["port"]
    values = {}
    for setting in fields(Config):
        flag, variable = setting.metadata["flags"][-1], f"CHAT_{setting.name.upper()}"
        given = ((flag, flags[setting.name]), (variable, environment.get(variable)))
        source, text = next(((source, text) for source, text in given if text), ("", None))
        if text is not None:
            values[setting.name] = _parse(source, text, setting.metadata["parse"])
    config = Config(**values)
    if config.hash_memory_kib < _LANE_KIB * config.hash_parallelism:
        raise ConfigError(
            f"--hash-memory-kib is {config.hash_memory_kib}; for {config.hash_parallelism} lanes (--hash-parallelism) "
            f"argon2 needs {_LANE_KIB * config.hash_parallelism} at least."
        )
    return config


def read_dotenv() -> dict[str, str | None]:
    """The variables of ``.env`` in the current folder; empty if it does not exist. Raises ConfigError."""
    path = Path(".env")
    try:
        if not path.exists():
            return {}
        # Reading a pipe would block, and a very large file is not a settings file.
        if not path.is_file() or path.stat().st_size > DOTENV_MAX_BYTES:
            raise ConfigError(f".env is not a file of at most {DOTENV_MAX_BYTES:,} bytes. {_DOTENV_HINT}")
        text = decode_text(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"The file .env can't be read: {error.strerror}. {_DOTENV_HINT}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"The file .env can't be read: it is not text in UTF-8. {_DOTENV_HINT}") from error
    for binding in parse_stream(io.StringIO(text)):
        if binding.error:
            raise ConfigError(f"Line {binding.original.line} of the file .env is not NAME=VALUE. {_DOTENV_HINT}")
    return dotenv_values(stream=io.StringIO(text))


def _parse(source: str, text: str, parse: Callable[[str], Any]) -> Any:
    try:
        return parse(text)
    except ValueError as error:
        raise ConfigError(f"{source} is {text!r}; it must be {error}.") from error


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message[0].upper()}{message[1:]}; see {self.prog} --help.")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="chatserver",
        allow_abbrev=False,
        description="A chat room: many clients, one room, accounts and history on the disk.",
        epilog="Each setting is also an environment variable: --max-connections is CHAT_MAX_CONNECTIONS. Flags "
        "win over variables, and variables over the file .env.",
    )
    parser.add_argument("--version", action="version", version=f"chatserver {__version__}")
    parser.add_argument("PORT", nargs="?", help="same as --port")
    for setting in fields(Config):
        default = f"{setting.default:g}" if isinstance(setting.default, float) else setting.default
        parser.add_argument(
            *setting.metadata["flags"],
            dest=setting.name,
            metavar=setting.name.upper(),
            help=f"{setting.metadata['text']} ({default})",
        )
    return parser
