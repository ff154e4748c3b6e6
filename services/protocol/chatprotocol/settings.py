"""The settings of both programs, described once: flags, variable, default, meaning, values.

Each program takes its parser, defaults and help from its table. Both tables are here because server, client and
containers may share a ``.env``: each program must know the variables of the others. docs/settings.md, .env.example and
compose.yaml repeat the tables; ``make settings`` writes them there, and a test compares them.

Precedence: flags, environment, ``.env``, defaults. An empty text counts as not set.
"""

from __future__ import annotations

import argparse
import difflib
import io
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn
from urllib.parse import urlsplit

from dotenv import dotenv_values
from dotenv.parser import parse_stream

from chatprotocol.address import check_host, read_networks, split_address
from chatprotocol.encoding import decode_text
from chatprotocol.errors import RequestError
from chatprotocol.keywords import KEYWORD_SETS
from chatprotocol.limits import IRC_NAME_MAX_BYTES
from chatprotocol.rules import check_port, check_username
from chatprotocol.wire import PROTOCOLS, Datagram
from chatprotocol.wire.register import DELIVERED_WORDS, FORWARD_MAX_LEAST_BYTES, LENGTH_UNITS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from chatprotocol.address import Address, Network

_DAY_SECONDS: Final = 86_400
# Maximum size of a .env: a larger file is not a settings file.
_DOTENV_MAX_BYTES: Final = 65_536
_PREFIX: Final = "CHAT_"


class ConfigError(Exception):
    """A setting can't be used. The text is one line that names the setting."""


@dataclass(frozen=True)
class Setting:
    """A row of the table of settings."""

    name: str
    # Separated by a space, the long one last; empty if the setting has only a variable.
    flags: str
    meaning: str
    # In the user's notation; empty if there is none.
    default: str = ""
    # From text to value. Raises ValueError with the valid values, as in "it must be ...".
    parse: Callable[[str], Any] = str
    # The argument's name in the help; upper case ``name`` if empty.
    metavar: str = ""
    # ``CHAT_`` and ``name`` if None; empty if the setting has only flags.
    own_variable: str | None = None
    # The value that the flag has without an argument; empty if it takes an argument.
    switch: str = ""

    @property
    def flag(self) -> str:
        """The long flag."""
        return self.flags.split()[-1]

    @property
    def variable(self) -> str:
        """The name of the environment variable; empty if there is none."""
        return f"{_PREFIX}{self.name.upper()}" if self.own_variable is None else self.own_variable

    @property
    def help(self) -> str:
        """The meaning, with variable and default in parentheses."""
        source = "; ".join(filter(None, (self.variable, self.default)))
        return f"{self.meaning} ({source})" if source else self.meaning


def _integer(least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not (re.fullmatch("[0-9]{1,18}", text) and least <= int(text) <= most):
            raise ValueError(f"a whole number from {least} to {most}")
        return int(text)

    return parse


def _integer_or_0(least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            return 0 if text == "0" else _integer(least, most)(text)
        except ValueError as error:
            raise ValueError(f"0, or {error}") from error

    return parse


def _host(text: str) -> str:
    try:
        return check_host(text)
    except RequestError as error:
        raise ValueError("an address or a host name, such as 127.0.0.1, :: or [::1]") from error


def _number(least: float, most: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        number = _float(text)
        if not least <= number <= most:
            raise ValueError(f"a number from {least:g} to {most:g}")
        return number

    return parse


def _networks(text: str) -> tuple[Network, ...]:
    try:
        return read_networks(text)
    except ValueError as error:
        raise ValueError(
            "addresses and networks, separated by commas, such as 192.0.2.7,2001:db8::/32, or none"
        ) from error


def _names(text: str) -> tuple[str, ...]:
    """Usernames, separated by commas."""
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    try:
        for name in names:
            check_username(name)
    except RequestError as error:
        raise ValueError("usernames, separated by commas, such as alice,bob") from error
    return names


def _irc_name(text: str) -> str:
    """A name of a server. With the dot, it is not taken for a nick."""
    if not re.fullmatch(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+", text) or len(text) > IRC_NAME_MAX_BYTES:
        raise ValueError(f"a name such as irc.example.org, of at most {IRC_NAME_MAX_BYTES} characters")
    return text


def _listen_address(text: str) -> Address:
    """HOST:PORT; port 0 picks a free one."""
    try:
        host, port = split_address(text)
        return check_host(host), 0 if port == "0" else check_port(port)
    except RequestError as error:
        raise ValueError("HOST:PORT, such as 127.0.0.1:9464") from error


def _interval(text: str) -> float:
    """Seconds of an interval or timeout of the server."""
    seconds = _float(text)
    if not 0 < seconds <= _DAY_SECONDS:
        raise ValueError(f"a number of seconds, more than 0 and at most {_DAY_SECONDS}")
    return seconds


def _wait_seconds(text: str) -> float:
    """Seconds that the client waits; infinity is allowed."""
    seconds = _float(text)
    if not seconds >= 0:  # also true for NaN
        raise ValueError("a number of seconds, 0 or more")
    return seconds


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return -1.0


def _choice(*words: str) -> Callable[[str], str]:
    """One of the words, case-insensitive."""

    def parse(text: str) -> str:
        found = [word for word in words if word.lower() == text.lower()]
        if not found:
            raise ValueError(f"one of {', '.join(words)}")
        return found[0]

    return parse


def _yes_no(text: str) -> bool:
    return _choice("no", "yes")(text) == "yes"


def _token(text: str) -> str:
    """A name of a stream or a server: NATS allows no dots, spaces and wildcards in it."""
    if not re.fullmatch("[A-Za-z0-9_-]{1,32}", text):
        raise ValueError("1 to 32 letters of a to z, digits, - and _")
    return text


_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


def _origins(text: str) -> tuple[str, ...]:
    """Origins as browsers send them (RFC 6454): lower case, without a default port; or ``*``."""
    if text.strip() == "*":
        return ("*",)
    origins = []
    for item in filter(None, map(str.strip, text.split(","))):
        try:
            parts = urlsplit(item.lower())
            host, port = parts.hostname or "", parts.port
        except ValueError:
            host = ""
        if not host or parts.scheme not in _DEFAULT_PORTS or parts.netloc.rpartition("@")[0] or parts.path.strip("/"):
            raise ValueError(
                "origins, separated by commas, such as https://chat.example.org,http://localhost:8080, or *"
            )
        host = f"[{host}]" if ":" in host else host
        is_default = port in (None, _DEFAULT_PORTS[parts.scheme])
        origins.append(f"{parts.scheme}://{host}" if is_default else f"{parts.scheme}://{host}:{port}")
    return tuple(origins)


def _urls(schemes: tuple[str, ...], example: str) -> Callable[[str], tuple[str, ...]]:
    """URLs of servers, separated by commas. Names and passwords are not allowed in them: logs show the URLs."""

    def parse(text: str) -> tuple[str, ...]:
        urls = []
        for item in filter(None, map(str.strip, text.split(","))):
            url = item if "://" in item else f"{schemes[0]}://{item}"
            try:
                parts = urlsplit(url)
                is_valid = parts.scheme in schemes and bool(parts.hostname) and parts.port is not None
            except ValueError:
                is_valid = False
            if not is_valid or parts.username is not None or parts.path not in ("", "/"):
                raise ValueError(f"addresses with a port and without a password, such as {example}")
            urls.append(url.rstrip("/"))
        if not urls or len(set(urls)) < len(urls):
            raise ValueError(f"different addresses, separated by commas, such as {example}")
        return tuple(urls)

    return parse


_nats_urls = _urls(("nats", "tls"), "nats://a:4222,nats://b:4222")
_http_urls = _urls(("http", "https"), "http://a:8222,http://b:8222")


_PROTOCOL_NAMES: Final = [each.name for each in PROTOCOLS]

_REGISTER_LENGTH: Final = Setting(
    "register_length",
    "--register-length",
    "wire format register: unit of Content-length, bytes or characters",
    LENGTH_UNITS[0],
    _choice(*LENGTH_UNITS),
)

SERVER_SETTINGS: Final = (
    Setting("host", "--host", "address to listen on; :: listens on IPv6 and IPv4", "0.0.0.0", _host),
    Setting("port", "-p --port", "port to listen on, TCP and UDP; 0 picks a free one", "9999", _integer(0, 65_535)),
    Setting("data", "--data", "folder of the database; created if missing", "chat-data", Path),
    Setting(
        "registration",
        "--registration",
        "users who may register: open (all), invite (those with an invitation code), or closed (none)",
        "open",
        _choice("open", "invite", "closed"),
    ),
    Setting(
        "operator",
        "--operator",
        "names of the server's operators, separated by commas; such a name can't be registered without an invitation",
        parse=_names,
        metavar="NAMES",
    ),
    Setting(
        "guests",
        "--guests",
        "users without a password (wire format register): on, off, or auto (on while registration is open)",
        "auto",
        _choice("auto", "on", "off"),
    ),
    Setting(
        "rooms",
        "--rooms",
        "users who may make rooms: open (all), operators (of the server), or off (none); all users may join",
        "open",
        _choice("open", "operators", "off"),
    ),
    Setting(
        "max_connections",
        "--max-connections",
        "maximum number of connections, including sessions over UDP; 1 to 1000000",
        "10000",
        _integer(1, 10**6),
    ),
    Setting(
        "login_seconds",
        "--login-seconds",
        "timeout for the login, and for the rest of an incomplete request",
        "60",
        _interval,
    ),
    Setting(
        "peer_timeout_seconds",
        "--peer-timeout-seconds",
        "disconnect a TCP client whose machine acknowledges nothing for this time",
        "90",
        _interval,
    ),
    Setting("users_seconds", "--users-seconds", "interval between lists of online users", "30", _interval),
    # Minimum 1 MiB: with less, one burst would disconnect receivers before the sender runs.
    Setting(
        "lag_max_bytes",
        "--lag-max-bytes",
        "maximum unsent bytes of a client; above it the client is disconnected; 1048576 to 2147483648",
        "8388608",
        _integer(2**20, 2**31),
    ),
    Setting(
        "tls",
        "--tls",
        "encryption of TCP connections, on the same port: off, optional (if there is a certificate), or required",
        "optional",
        _choice("off", "optional", "required"),
    ),
    Setting("tls_cert", "--tls-cert", "file with the certificate and its chain, PEM", parse=Path, metavar="FILE"),
    Setting("tls_key", "--tls-key", "file with the private key of the certificate, PEM", parse=Path, metavar="FILE"),
    Setting("web", "--web", "web page on the same port: on or off", "on", _choice("on", "off")),
    Setting(
        "web_origins",
        "--web-origins",
        "other web sites whose pages may connect, as https://chat.example.org, separated by commas; *: all",
        parse=_origins,
        metavar="ORIGINS",
    ),
    Setting(
        "irc_name",
        "--irc-name",
        "name of the server and its network in the protocol irc, with a dot in it",
        "chat.local",
        _irc_name,
        metavar="NAME",
    ),
    Setting(
        "motd",
        "--motd",
        "file with the message of the day, which clients of the protocol irc get",
        parse=Path,
        metavar="FILE",
    ),
    Setting(
        "exempt",
        "--exempt",
        "networks without limits of connections, rates and registrations, separated by commas; none: no network",
        "127.0.0.0/8,::1",
        _networks,
        metavar="NETWORKS",
    ),
    Setting(
        "trusted_proxies",
        "--trusted-proxies",
        "networks of proxies, whose connections begin with a header of the PROXY protocol, version 2, or with an HTTP "
        "request that has X-Forwarded-For; none: no network",
        "none",
        _networks,
        metavar="NETWORKS",
    ),
    # 16 devices behind one router; ergo and ejabberd have similar limits.
    Setting(
        "address_connections",
        "--address-connections",
        "maximum number of connections from an address (IPv4) or a /64 network (IPv6); 0: no limit",
        "16",
        _integer_or_0(1, 10**6),
    ),
    Setting(
        "address_new_connections",
        "--address-new-connections",
        "maximum number of new connections from an address in ten minutes; 0: no limit",
        "32",
        _integer_or_0(1, 10**6),
    ),
    # A page and its files are some connections; 300 are a page every 10 s, for ten minutes.
    Setting(
        "address_pages",
        "--address-pages",
        "maximum number of connections from an address in ten minutes that only fetch files of the web page; further "
        "ones count as new connections",
        "300",
        _integer_or_0(1, 10**6),
    ),
    Setting(
        "waiting_percent",
        "--waiting-percent",
        "maximum share of the connections that have not logged in, in percent; 1 to 100",
        "25",
        _integer(1, 100),
    ),
    Setting(
        "reserved_percent",
        "--reserved-percent",
        "share of the connections that is reserved for logins of known users, in percent; 0 to 90",
        "10",
        _integer_or_0(1, 90),
    ),
    Setting(
        "user_connections",
        "--user-connections",
        "maximum number of connections of a user, on each server of a shared log; 0: no limit",
        "8",
        _integer_or_0(1, 10**6),
    ),
    Setting(
        "udp_openings",
        "--udp-openings",
        "maximum number of new UDP sessions from an address in a second; 0: no limit",
        "20",
        _integer_or_0(1, 10**6),
    ),
    Setting("message_burst", "--message-burst", "messages that a user may send at once", "10", _integer(1, 10**6)),
    Setting(
        "message_rate",
        "--message-rate",
        "messages that a user may send in a second, over all connections; more are delayed, then refused; 0: no limit",
        "2",
        _number(0, 10**6),
    ),
    Setting(
        "message_delay_seconds",
        "--message-delay-seconds",
        "maximum delay of a message over the rate; the server refuses those that would wait longer; 0: refuse at once",
        "5",
        _number(0, 60),
    ),
    Setting(
        "query_burst",
        "--query-burst",
        "requests other than messages (CH, search, users, rooms) that a user may send at once",
        "30",
        _integer(1, 10**6),
    ),
    Setting(
        "query_rate",
        "--query-rate",
        "such requests that a user may send in a second; further ones are refused; 0: no limit",
        "1",
        _number(0, 10**6),
    ),
    # A client sends one when its user does something, and a ping now and then.
    Setting(
        "request_burst",
        "--request-burst",
        "requests other than messages that a user, or an address before a login, may send at once",
        "30",
        _integer(1, 10**6),
    ),
    Setting(
        "request_rate",
        "--request-rate",
        "such requests that the server answers in a second; further ones are delayed; 0: no limit",
        "5",
        _number(0, 10**6),
    ),
    Setting(
        "rooms_per_day",
        "--rooms-per-day",
        "rooms that a user may make in a day; 0: no limit",
        "20",
        _integer_or_0(1, 10**6),
    ),
    Setting(
        "answer_max_bytes",
        "--answer-max-bytes",
        "maximum bytes of answers that wait until a client reads; the server makes the rest later; 65536 to 67108864",
        "262144",
        _integer(2**16, 2**26),
    ),
    Setting(
        "unread_percent",
        "--unread-percent",
        "maximum percentage of the memory for unread bytes of all clients; above it the slowest are disconnected; "
        "1 to 90",
        "25",
        _integer(1, 90),
    ),
    Setting(
        "waiting_from_sender",
        "--waiting-from-sender",
        "direct messages of one sender that may wait for a user who is offline; 0: no limit",
        "200",
        _integer_or_0(1, 10**6),
    ),
    Setting(
        "waiting_messages",
        "--waiting-messages",
        "direct messages of all senders that may wait for a user who is offline; 0: no limit",
        "1000",
        _integer_or_0(1, 10**6),
    ),
    Setting(
        "disk_reserve",
        "--disk-reserve",
        "bytes to keep free on the disk; with less, the server refuses messages; 0: no reserve",
        "1073741824",
        _integer_or_0(1, 2**50),
    ),
    Setting(
        "address_registrations",
        "--address-registrations",
        "maximum number of new names from an address in an hour; 0: no limit",
        "5",
        _integer_or_0(1, 10**6),
    ),
    Setting(
        "registrations",
        "--registrations",
        "maximum number of new names from all addresses in ten minutes; 0: no limit",
        "30",
        _integer_or_0(1, 10**6),
    ),
    Setting(
        "retention_days",
        "--retention-days",
        "days after which messages are deleted; 0: never",
        "0",
        _integer_or_0(1, 36_500),
    ),
    Setting(
        "metrics",
        "--metrics",
        "address of the metrics and health pages, such as 127.0.0.1:9464; without it there are no pages",
        parse=_listen_address,
        metavar="HOST:PORT",
    ),
    Setting(
        "nats",
        "--nats",
        "NATS servers with the log that several chat servers share, as nats://a:4222,nats://b:4222; "
        "tls:// encrypts; without it this is the only chat server",
        parse=_nats_urls,
        metavar="URLS",
    ),
    Setting(
        "nats_stream",
        "--nats-stream",
        "name of the stream with the shared log; chat servers with the same one are one cluster",
        "chat",
        _token,
        metavar="NAME",
    ),
    Setting(
        "server_name",
        "--server-name",
        "name of this server in its cluster: each server needs its own; by default the name of the machine",
        parse=_token,
        metavar="NAME",
    ),
    Setting("nats_user", "--nats-user", "user name for NATS", metavar="NAME"),
    Setting(
        "nats_password_file",
        "--nats-password-file",
        "file with the password or token for NATS",
        parse=Path,
        metavar="FILE",
    ),
    Setting(
        "nats_credentials",
        "--nats-credentials",
        "file with credentials for NATS (JWT and seed)",
        parse=Path,
        metavar="FILE",
    ),
    Setting(
        "nats_ca", "--nats-ca", "file with the certificate authority of the NATS servers", parse=Path, metavar="FILE"
    ),
    Setting(
        "nats_cert", "--nats-cert", "file with the certificate for NATS, if it asks for one", parse=Path, metavar="FILE"
    ),
    Setting("nats_key", "--nats-key", "file with the key of that certificate", parse=Path, metavar="FILE"),
    Setting(
        "nats_monitor",
        "--nats-monitor",
        "monitoring pages of the NATS servers, which tell if they sync; by default port 8222 of each",
        parse=_http_urls,
        metavar="URLS",
    ),
    Setting(
        "nats_replicas",
        "--nats-replicas",
        "number of NATS machines that store each record, if this server makes the stream: 1, 3 or 5",
        "3",
        _choice("1", "3", "5"),
    ),
    Setting(
        "nats_unsafe",
        "--nats-unsafe",
        "yes accepts a NATS server that is too old, or may lose confirmed messages because it does not sync them",
        "no",
        _yes_no,
    ),
    # Defaults from OWASP's Password Storage Cheat Sheet for argon2id.
    Setting("hash_time_cost", "--hash-time-cost", "argon2id: passes over the memory; 1 to 100", "2", _integer(1, 100)),
    Setting(
        "hash_memory_kib",
        "--hash-memory-kib",
        "argon2id: memory of one hash; 8 to 4194304",
        "19456",
        _integer(8, 2**22),
    ),
    Setting("hash_parallelism", "--hash-parallelism", "argon2id: lanes; 1 to 64", "1", _integer(1, 64)),
    Setting(
        "register_delivered",
        "--register-delivered",
        "wire format register: word that confirms a delivery, SEND or SENT",
        DELIVERED_WORDS[0],
        _choice(*DELIVERED_WORDS),
    ),
    _REGISTER_LENGTH,
    Setting(
        "register_forward_max",
        "--register-forward-max",
        "wire format register: maximum size of a FORWARD in bytes, 256 to 65536; longer texts and texts of several "
        "lines are split; 0: never split",
        "0",
        _integer_or_0(FORWARD_MAX_LEAST_BYTES, 65_536),
    ),
    Setting(
        "log_level",
        "--log-level",
        "lowest level to log: debug, info, warning or error",
        "info",
        _choice("debug", "info", "warning", "error"),
    ),
    Setting(
        "log_lines_per_address",
        "--log-lines-per-address",
        "log entries of one kind about an address in a minute; further ones are only counted; 0: no limit",
        "5",
        _integer_or_0(1, 10**6),
    ),
    Setting("log_format", "--log-format", "text, or json: one JSON object per line", "text", _choice("text", "json")),
)

CLIENT_SETTINGS: Final = (
    Setting(
        "server",
        "-hn --hostname",
        "server, as HOST or HOST:PORT, or several servers of one cluster, as HOST:PORT,HOST:PORT; in the wire format "
        "register the client asks for it",
        "localhost",
        metavar="HOST",
    ),
    # Checked together with the port that the server's address may contain.
    Setting("port", "-p --port", "port of the server", "9999"),
    Setting("user", "-u --username", "your name; the client asks if it is missing", metavar="NAME"),
    # No flag: every user of the machine can read the flags of a process.
    Setting("password", "", "your password"),
    Setting(
        "password_file",
        "--password-file",
        "file with your password; CHAT_PASSWORD holds the password itself; the client asks if both are missing",
        metavar="FILE",
    ),
    Setting(
        "token_file",
        "--token-file",
        "file with a session token, with which you log in without name and password",
        metavar="FILE",
    ),
    Setting(
        "dialect",
        "--dialect",
        f"wire format: {', '.join(_PROTOCOL_NAMES[:-1])} or {_PROTOCOL_NAMES[-1]}",
        _PROTOCOL_NAMES[0],
        _choice(*_PROTOCOL_NAMES),
        metavar="NAME",
    ),
    Setting(
        "tls",
        "--tls",
        "encrypt the connection, and check the server's certificate",
        "no",
        _yes_no,
        own_variable="CHAT_USE_TLS",
        switch="yes",
    ),
    Setting(
        "ca",
        "--ca",
        "file with the certificates to trust instead of the system's, PEM; implies --tls",
        parse=Path,
        metavar="FILE",
    ),
    # No flag, as for the password.
    Setting("invitation", "", "invitation code, to register a new name; the client asks if it is missing"),
    Setting("udp", "--udp", f"same as --dialect {Datagram.name}", parse=_yes_no, own_variable="", switch="yes"),
    replace(_REGISTER_LENGTH, metavar="UNIT"),
    Setting(
        "ops",
        "--ops",
        "keywords of the operations: pm-dm, or bm-pm for BM and PM instead of PM and DM",
        next(iter(KEYWORD_SETS)),
        _choice(*KEYWORD_SETS),
        metavar="WORDS",
    ),
    Setting("script", "--script", "file of lines to play instead of standard input", parse=Path, metavar="FILE"),
    Setting(
        "retry_seconds",
        "--retry-seconds",
        "time to try to reconnect after a lost connection; at a terminal the default has no limit",
        "60",
        _wait_seconds,
        metavar="N",
    ),
    Setting(
        "silence_seconds",
        "--silence-seconds",
        "treat the connection as lost if the server is silent for this time; 0: never",
        "60",
        _wait_seconds,
        metavar="N",
    ),
    Setting(
        "json",
        "--json",
        "print events as JSON objects, one per line",
        parse=_yes_no,
        own_variable="",
        switch="yes",
    ),
    Setting(
        "plain",
        "--plain",
        "print lines as in a pipe, also at a terminal",
        parse=_yes_no,
        own_variable="",
        switch="yes",
    ),
    Setting("quiet", "--quiet", "no bell and no bold text for messages that mention you", "no", _yes_no, switch="yes"),
    Setting("hide_joins", "--hide-joins", "hide joins and leaves", "no", _yes_no, switch="yes"),
)

# Variables of compose.yaml and of the tests.
_OTHER_VARIABLES: Final = (
    "CHAT_CERTIFICATES",
    "CHAT_PUBLISH",
    "CHAT_TEST_LONG",
    "CHAT_TEST_SEED",
    "CHAT_TEST_STACK",
    "CHAT_TRUSTED",
)

VARIABLES: Final = frozenset(_OTHER_VARIABLES) | {
    setting.variable for setting in (*SERVER_SETTINGS, *CLIENT_SETTINGS) if setting.variable
}


# Messages of argparse, and the sentences in their place; %s are the groups. A flag is shown by its last name.
_SENTENCES: Final = (
    (r"argument (?:\S+/)?(\S+): expected (?:one|at least one) argument", "%s needs a value"),
    (r"argument (?:\S+/)?(\S+): ignored explicit argument '(.*)'", "%s takes no value, and is given %r"),
    (r"argument [A-Z]+: invalid choice: '(.*)' \(choose from .*\)", "There is no command %r"),
    (r"the following arguments are required: (.*)", "%s is missing"),
    (r"unrecognized arguments: (-[^\s=]*).*", "There is no flag %s"),
    (r"unrecognized arguments: (.*)", "Too many arguments: %s"),
)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Raises ConfigError, with the flag or command that is most like a wrong one."""
        sentence, wrong = f"{message[0].upper()}{message[1:]}", ""
        for form, text in _SENTENCES:
            if match := re.fullmatch(form, message, re.DOTALL):
                sentence, wrong = text % match.groups(), match[1]
                break
        commands = [each for action in self._actions if isinstance(action.choices, dict) for each in action.choices]
        like = difflib.get_close_matches(wrong, [*self._option_string_actions, *commands], 1)
        end = f"did you mean {like[0]}? See" if like and like[0] != wrong else "see"
        raise ConfigError(f"{sentence}; {end} {self.prog} --help.")


class CommandParser(_Parser):
    """The parser of one command of a program. The program would refuse its arguments without its name."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown


def make_parser(settings: Sequence[Setting], program: str, version: str, **options: Any) -> argparse.ArgumentParser:
    """A parser that has all flags, stores their texts under the settings' names, and raises ConfigError.

    ``options`` are for ArgumentParser. The parser prints and exits for --help and --version.
    """
    parser = _Parser(prog=program, allow_abbrev=False, **options)
    parser.add_argument("--version", action="version", version=f"{program} {version}")
    for setting in settings:
        if setting.switch:
            kind: dict[str, Any] = {"action": "store_const", "const": setting.switch}
        else:
            kind = {"metavar": setting.metavar or setting.name.upper()}
        if setting.flags:
            parser.add_argument(*setting.flags.split(), dest=setting.name, help=setting.help, **kind)
    return parser


def read_settings(
    settings: Sequence[Setting],
    flags: Mapping[str, str | None],
    environment: Mapping[str, str | None],
    words: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """All values by name: from the flags (by name), else from the variables, else the default.

    ``words`` names those of ``flags`` that were given without a flag. The value is None if it is not given and has no
    default. Raises ConfigError.
    """
    values = {}
    for setting in settings:
        if text := flags.get(setting.name):
            source = (words or {}).get(setting.name, setting.flag)
        elif setting.variable and (text := environment.get(setting.variable)):
            source = setting.variable
        else:
            source, text = "The default", setting.default
        try:
            values[setting.name] = setting.parse(text) if text else None
        except ValueError as error:
            raise ConfigError(f"{source} is {text!r}; it must be {error}.") from error
    return values


def read_dotenv() -> dict[str, str | None]:
    """The variables of ``.env`` in the current folder; empty if it does not exist.

    Raises ValueError with the reason, as in "the file can't be used: ...".
    """
    path = Path(".env")
    try:
        if not path.exists():
            return {}
        # Reading a pipe would block.
        data = path.read_bytes() if path.is_file() and path.stat().st_size <= _DOTENV_MAX_BYTES else None
    except OSError as error:
        raise ValueError(f"it can't be read: {error.strerror}") from error
    if data is None:
        raise ValueError(f"it is not a file of at most {_DOTENV_MAX_BYTES:,} bytes")
    try:
        text = decode_text(data)
    except UnicodeDecodeError as error:
        raise ValueError("it is not text in UTF-8") from error
    for binding in parse_stream(io.StringIO(text)):
        if binding.error:
            raise ValueError(f"line {binding.original.line} is not NAME=VALUE")
    return dotenv_values(stream=io.StringIO(text))


class UnknownSetting(NamedTuple):
    """A variable that looks like a setting but is not one."""

    name: str
    # The most similar setting; empty if there is none.
    similar: str


def unknown_settings(names: Iterable[str]) -> list[UnknownSetting]:
    """Find misspelt settings among the names of variables. They would otherwise be ignored silently."""
    known = {variable.removeprefix(_PREFIX): variable for variable in VARIABLES}
    found = []
    for name in sorted(names):
        if re.match("chat[_-]", name, re.IGNORECASE) and name not in VARIABLES:
            # Compare without the prefix: with it all names are similar.
            like = difflib.get_close_matches(name[len(_PREFIX) :].upper(), sorted(known), 1)
            found.append(UnknownSetting(name, known[like[0]] if like else ""))
    return found
