"""The server's settings as values. Their table is in chatprotocol.settings."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Final

from chatprotocol.settings import SERVER_SETTINGS, ConfigError, make_parser, read_dotenv, read_settings
from chatserver import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from chatprotocol.address import Address, Network

# Minimum memory of a hash per lane: RFC 9106, section 3.1.
_LANE_KIB = 8

# The settings of the shared log, for commands that use it.
NATS_SETTINGS: Final = tuple(setting for setting in SERVER_SETTINGS if setting.name.startswith("nats"))

# Settings that SIGHUP changes in a running server. All others need a restart: they size its parts, or clients rely on
# them.
RELOADABLE: Final = frozenset(
    {
        "registration",
        "guests",
        "rooms",
        "exempt",
        "address_connections",
        "address_new_connections",
        "address_pages",
        "message_burst",
        "message_rate",
        "query_burst",
        "query_rate",
        "request_burst",
        "request_rate",
        "address_registrations",
        "registrations",
        "log_level",
    }
)


@dataclass(frozen=True)
class Config:
    """All settings of the server, under the names of SERVER_SETTINGS."""

    host: str
    port: int
    data: Path
    registration: str
    operator: tuple[str, ...] | None
    guests: str
    rooms: str
    max_connections: int
    login_seconds: float
    peer_timeout_seconds: float
    users_seconds: float
    lag_max_bytes: int
    tls: str
    tls_cert: Path | None
    tls_key: Path | None
    web: str
    web_origins: tuple[str, ...] | None
    irc_name: str
    motd: Path | None
    exempt: tuple[Network, ...]
    trusted_proxies: tuple[Network, ...]
    address_connections: int
    address_new_connections: int
    address_pages: int
    waiting_percent: int
    reserved_percent: int
    user_connections: int
    udp_openings: int
    message_burst: int
    message_rate: float
    message_delay_seconds: float
    query_burst: int
    query_rate: float
    request_burst: int
    request_rate: float
    rooms_per_day: int
    answer_max_bytes: int
    unread_percent: int
    waiting_from_sender: int
    waiting_messages: int
    disk_reserve: int
    address_registrations: int
    registrations: int
    retention_days: int
    metrics: Address | None
    nats: tuple[str, ...] | None
    nats_stream: str
    server_name: str | None
    nats_user: str | None
    nats_password_file: Path | None
    nats_credentials: Path | None
    nats_ca: Path | None
    nats_cert: Path | None
    nats_key: Path | None
    nats_monitor: tuple[str, ...] | None
    nats_replicas: str
    nats_unsafe: bool
    hash_time_cost: int
    hash_memory_kib: int
    hash_parallelism: int
    register_delivered: str
    register_length: str
    register_forward_max: int
    log_level: str
    log_lines_per_address: int
    log_format: str

    @property
    def guests_allowed(self) -> bool:
        """True if a login without an account is allowed. With closed registration it needs ``--guests on``."""
        return self.guests == "on" or (self.guests == "auto" and self.registration == "open")


def load_config(arguments: Sequence[str], environment: Mapping[str, str | None]) -> Config:
    """Combine the sources; ``environment`` includes the variables of ``.env``. Raises ConfigError.

    Prints and exits for --help and --version.
    """
    parser = make_parser(
        SERVER_SETTINGS,
        "chatserver",
        __version__,
        usage="chatserver [PORT] [flags]\n       chatserver admin COMMAND ...",
        description="A chat server: accounts, rooms and their history on the disk. chatserver admin --help lists the "
        "commands of administrators.",
        epilog="Flags win over variables, and variables over the file .env.",
    )
    parser.add_argument("PORT", nargs="?", help="same as --port")
    flags = vars(parser.parse_args(arguments))
    port = flags.pop("PORT")
    if port is not None and flags["port"] is not None:
        raise ConfigError(f"The port is given twice, as {port} and as {flags['port']}; give it once.")
    flags["port"] = port or flags["port"]
    config = Config(**read_settings(SERVER_SETTINGS, flags, environment, {"port": "PORT"} if port else None))
    if config.tls != "off" and (config.tls_cert is None) != (config.tls_key is None):
        given, missing = ("--tls-cert", "--tls-key") if config.tls_cert else ("--tls-key", "--tls-cert")
        raise ConfigError(f"{given} is given without {missing}; a certificate needs its key.")
    if config.tls == "required" and config.tls_cert is None:
        raise ConfigError("--tls is required, and there is no certificate; give --tls-cert and --tls-key.")
    if config.hash_memory_kib < _LANE_KIB * config.hash_parallelism:
        raise ConfigError(
            f"--hash-memory-kib is {config.hash_memory_kib}; for {config.hash_parallelism} lanes (--hash-parallelism) "
            f"argon2 needs {_LANE_KIB * config.hash_parallelism} at least."
        )
    return config


def changed_settings(old: Config, new: Config) -> list[str]:
    """The names of the settings that differ, in the order of the table."""
    return [each.name for each in fields(Config) if getattr(old, each.name) != getattr(new, each.name)]


def read_environment() -> dict[str, str | None]:
    """The environment variables, and those of ``.env`` in the current folder that are not set. Raises ConfigError.

    A bad ``.env`` prevents the start, because it may close the registration.
    """
    try:
        return {**read_dotenv(), **os.environ}
    except ValueError as error:
        raise ConfigError(
            f"The file .env can't be used: {error}. Correct or remove it, or start the server in another folder (with "
            "--data)."
        ) from error
