"""The client's settings as values. Their table is in chatprotocol.settings."""

import math
import ssl
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from chatclient import __version__
from chatclient.links.tls import trusting
from chatclient.session import check_unicode
from chatprotocol.address import Address, read_addresses, split_address
from chatprotocol.encoding import decode_text
from chatprotocol.errors import RequestError
from chatprotocol.rules import check_port, check_username
from chatprotocol.settings import CLIENT_SETTINGS, ConfigError, make_parser, read_settings
from chatprotocol.wire import JSON_DIALECTS, Datagram, Register

# In this protocol the client also asks for the server, and asks again after an invalid name.
_ASKING_PROTOCOL = Register.name
DEFAULT_SERVER = next(setting.default for setting in CLIENT_SETTINGS if setting.name == "server")
_FORMS = "Give HOST PORT USERNAME, HOST:PORT USERNAME (as [::1]:9999 alice), or USERNAME alone."


class FrontendKind(Enum):
    """The kind of user interface."""

    TERMINAL = "a prompt below what happens, for people"
    PLAIN = "lines, for pipes, scripts and simple terminals"
    JSON = "JSON objects, for programs"


@dataclass(frozen=True)
class Config:
    """Every setting of the client."""

    # Empty: the user is asked.
    servers: tuple[Address, ...]
    # Completes a server that the user types.
    port: int
    # None: the user is asked.
    user: str | None
    password: str | None
    protocol: str
    # None: no encryption.
    tls: ssl.SSLContext | None
    register_length: str
    ops: str
    script: Path | None
    retry_seconds: float
    silence_seconds: float
    frontend: FrontendKind
    is_quiet: bool
    shows_joins: bool
    # The code with which a new name registers.
    invitation: str | None = None
    # The session token; a login with it needs no name and no password.
    token: str | None = None


def load_config(arguments: Sequence[str], environment: Mapping[str, str | None]) -> Config:
    """Combine the sources; ``environment`` includes .env. Raises ConfigError.

    Prints and exits for --help and --version.
    """
    parser = make_parser(
        CLIENT_SETTINGS,
        "chatclient",
        __version__,
        usage="chatclient [HOST PORT | HOST:PORT,...] [USERNAME] [flags]",
        description="Join a chat room. In pipes, in scripts and with --plain, each line must be an operation (PM, DM, "
        "CH, EX, /help). At a terminal, any other line is a message, to all users or to your room.",
        epilog="Flags win over variables, and variables over the file .env. Exit codes: 0 after EX or at the end of "
        "the input, 1 if the server can't be reached, the connection is lost for good, a line is not confirmed, "
        "the login is interrupted or the output can't be written, 2 for bad usage, 3 if the login is refused, 4 if "
        "text that a script waits for does not appear.",
    )
    parser.add_argument("WORD", nargs="*", help="HOST PORT USERNAME, HOST:PORT USERNAME, HOST PORT, or USERNAME alone")
    flags = vars(parser.parse_intermixed_args(arguments))
    word_server, word_port, word_user = _split_words(flags.pop("WORD"))
    dialect = flags["dialect"]
    if flags["udp"]:
        if dialect and dialect.lower() != Datagram.name:
            raise ConfigError(f"--udp means --dialect {Datagram.name}, and --dialect is {dialect}; give one of them.")
        flags["dialect"] = Datagram.name
    flags |= {"user": flags["user"] or word_user}
    values = read_settings(CLIENT_SETTINGS, flags, environment)
    protocol, user = values["dialect"], values["user"]
    asks = protocol == _ASKING_PROTOCOL
    try:
        # Flags win over words, and words over the environment. A separate port wins over a port in the address.
        server = flags["server"] or word_server or environment.get("CHAT_SERVER") or ("" if asks else DEFAULT_SERVER)
        separate_port = flags["port"] or word_port
        port = check_port(separate_port or values["port"])
        servers = read_addresses(server, (DEFAULT_SERVER, port), port if separate_port else None) if server else ()
    except RequestError as error:
        raise ConfigError(f"{error.reason} {_FORMS}" if word_port else error.reason) from error
    try:
        if user and not asks:
            check_username(user)
    except RequestError as error:
        raise ConfigError(f"{user!r} can't be a username. {error.reason}") from error
    frontend = _frontend(
        is_json=values["json"], is_plain=values["plain"] or bool(values["script"]), term=environment.get("TERM")
    )
    has_retry_seconds = flags["retry_seconds"] or environment.get("CHAT_RETRY_SECONDS")
    return Config(
        servers=servers,
        port=port,
        user=user,
        password=_password(values),
        invitation=values["invitation"] or None,
        token=_token(values),
        protocol=protocol,
        tls=_tls(values),
        register_length=values["register_length"],
        ops=values["ops"],
        script=values["script"],
        # No limit at a terminal, because a person can end the client.
        retry_seconds=math.inf
        if frontend is FrontendKind.TERMINAL and not has_retry_seconds
        else values["retry_seconds"],
        silence_seconds=values["silence_seconds"] or math.inf,
        frontend=frontend,
        is_quiet=values["quiet"],
        shows_joins=not values["hide_joins"],
    )


def _tls(values: Mapping[str, Any]) -> ssl.SSLContext | None:
    """The settings of TLS; None if the connection is not encrypted. Raises ConfigError."""
    if not values["tls"] and values["ca"] is None:
        return None
    if values["dialect"] == Datagram.name:
        raise ConfigError(f"--tls and --ca need TCP; --udp (--dialect {Datagram.name}) has no encryption.")
    try:
        return trusting(values["ca"])
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _password(values: Mapping[str, Any]) -> str | None:
    """The password. A password file wins over CHAT_PASSWORD. Raises ConfigError."""
    password: str | None = values["password"]
    if path := values["password_file"]:
        password = read_text(path, "password").rstrip("\r\n")
        if not password:
            raise ConfigError(f"The password file {path} is empty.")
    try:
        check_unicode(password or "")
    except RequestError as error:
        raise ConfigError("The password is not text in UTF-8.") from error
    return password


def _token(values: Mapping[str, Any]) -> str | None:
    """The session token in the token file. Raises ConfigError."""
    if not (path := values["token_file"]):
        return None
    if values["dialect"] not in JSON_DIALECTS:
        raise ConfigError(f"--token-file needs the wire format json; --dialect is {values['dialect']}.")
    token = read_text(path, "token").strip()
    if not token:
        raise ConfigError(f"The token file {path} is empty.")
    return token


def _frontend(*, is_json: bool | None, is_plain: bool | None, term: str | None) -> FrontendKind:
    """The requested kind; otherwise TERMINAL if stdin and stdout are a terminal that can move its cursor."""
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


def _split_words(words: Sequence[str]) -> tuple[str | None, str | None, str | None]:
    """Server, port and user from HOST PORT, HOST PORT USERNAME, HOST:PORT USERNAME or USERNAME."""
    match words:
        case []:
            return None, None, None
        case [address] if ":" in address or "," in address:  # usernames have neither
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
        return any(split_address(each)[1] for each in address.split(","))
    except RequestError:
        return True  # the invalid address is reported later
