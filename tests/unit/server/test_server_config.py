"""The server's settings: their sources, and one line for each invalid value."""

from collections.abc import Iterable
from dataclasses import fields
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

import pytest

from chatserver.config import Config, ConfigError, load_config, read_environment

# Each setting with a value that is not its default, as text and as what it becomes.
VALUES: dict[str, tuple[str, object]] = {
    "host": ("127.0.0.1", "127.0.0.1"),
    "port": ("1234", 1234),
    "data": ("/srv/chat", Path("/srv/chat")),
    "registration": ("Closed", "closed"),
    "guests": ("OFF", "off"),
    "operator": ("alice, Bob", ("alice", "Bob")),
    "tls": ("Required", "required"),
    "tls_cert": ("/etc/chat/cert.pem", Path("/etc/chat/cert.pem")),
    "tls_key": ("/etc/chat/key.pem", Path("/etc/chat/key.pem")),
    "web": ("OFF", "off"),
    "web_origins": (
        "HTTPS://Chat.example.org:443/, http://[::1]:8080",
        ("https://chat.example.org", "http://[::1]:8080"),
    ),
    "irc_name": ("irc.example.org", "irc.example.org"),
    "motd": ("/etc/chat/motd", Path("/etc/chat/motd")),
    "exempt": ("192.0.2.7, 2001:db8::/32", (IPv4Network("192.0.2.7"), IPv6Network("2001:db8::/32"))),
    "trusted_proxies": ("::ffff:192.0.2.0/120", (IPv4Network("192.0.2.0/24"),)),
    "address_connections": ("0", 0),
    "address_new_connections": ("100", 100),
    "address_pages": ("50", 50),
    "waiting_percent": ("50", 50),
    "reserved_percent": ("0", 0),
    "user_connections": ("3", 3),
    "udp_openings": ("5", 5),
    "message_burst": ("20", 20),
    "message_rate": ("0.5", 0.5),
    "message_delay_seconds": ("0", 0.0),
    "query_burst": ("5", 5),
    "query_rate": ("10", 10.0),
    "request_burst": ("9", 9),
    "request_rate": ("3", 3.0),
    "rooms_per_day": ("5", 5),
    "answer_max_bytes": ("65536", 65_536),
    "unread_percent": ("10", 10),
    "waiting_from_sender": ("0", 0),
    "waiting_messages": ("5", 5),
    "disk_reserve": ("1125899906842624", 2**50),
    "address_registrations": ("1", 1),
    "registrations": ("7", 7),
    "retention_days": ("90", 90),
    "metrics": ("[::1]:9464", ("::1", 9464)),
    "log_lines_per_address": ("0", 0),
    "max_connections": ("5", 5),
    "login_seconds": ("0.5", 0.5),
    "rooms": ("Operators", "operators"),
    "users_seconds": ("7", 7.0),
    "lag_max_bytes": ("1048576", 1_048_576),
    "nats": ("a:4222, tls://[::1]:4223", ("nats://a:4222", "tls://[::1]:4223")),
    "nats_stream": ("class-1", "class-1"),
    "server_name": ("a", "a"),
    "nats_user": ("chat", "chat"),
    "nats_password_file": ("/run/secrets/nats", Path("/run/secrets/nats")),
    "nats_credentials": ("/run/secrets/creds", Path("/run/secrets/creds")),
    "nats_ca": ("/etc/nats/ca.pem", Path("/etc/nats/ca.pem")),
    "nats_cert": ("/etc/nats/cert.pem", Path("/etc/nats/cert.pem")),
    "nats_key": ("/etc/nats/key.pem", Path("/etc/nats/key.pem")),
    "nats_monitor": ("https://a:8222", ("https://a:8222",)),
    "nats_replicas": ("5", "5"),
    "nats_unsafe": ("Yes", True),
    "hash_time_cost": ("1", 1),
    "hash_memory_kib": ("8", 8),
    "hash_parallelism": ("2", 2),
    "peer_timeout_seconds": ("12.5", 12.5),
    "register_delivered": ("sent", "SENT"),
    "register_length": ("Characters", "characters"),
    "register_forward_max": ("256", 256),
    "log_level": ("DEBUG", "debug"),
    "log_format": ("json", "json"),
}


def flag_of(setting: str) -> str:
    return f"--{setting.replace('_', '-')}"


def variable_of(setting: str) -> str:
    return f"CHAT_{setting.upper()}"


def test_no_setting_is_required() -> None:
    config = load_config([], {})
    assert (config.host, config.port, config.lag_max_bytes) == ("0.0.0.0", 9999, 8 * 1024 * 1024)
    assert (config.max_connections, config.login_seconds, config.users_seconds) == (10_000, 60.0, 30.0)
    assert (config.hash_time_cost, config.hash_memory_kib, config.hash_parallelism) == (2, 19_456, 1)


def test_table_has_every_setting() -> None:
    assert set(VALUES) >= {setting.name for setting in fields(Config)}


@pytest.mark.parametrize("setting", VALUES)
def test_each_setting_has_a_flag_and_a_variable(setting: str) -> None:
    text, value = VALUES[setting]
    certificate = {"CHAT_TLS_CERT": "cert.pem", "CHAT_TLS_KEY": "key.pem"}  # which --tls required needs
    assert getattr(load_config([flag_of(setting), text], certificate), setting) == value
    assert getattr(load_config([], {**certificate, variable_of(setting): text}), setting) == value


@pytest.mark.parametrize(
    ("guests", "registration", "allowed"),
    [("auto", "open", True), ("auto", "closed", False), ("on", "closed", True), ("off", "open", False)],
)
def test_closed_registration_excludes_guests_unless_allowed(guests: str, registration: str, *, allowed: bool) -> None:
    config = load_config([], {"CHAT_GUESTS": guests, "CHAT_REGISTRATION": registration})
    assert config.guests_allowed is allowed


@pytest.mark.parametrize("arguments", [["1234"], ["-p", "1234"], ["--port", "1234"]])
def test_port_has_three_spellings(arguments: list[str]) -> None:
    assert load_config(arguments, {"CHAT_PORT": "5"}).port == 1234
    assert load_config(["0"], {}).port == 0


USAGE_ERRORS: list[tuple[list[str], dict[str, str | None], str]] = [
    (["x"], {}, "PORT is 'x'; it must be a whole number from 0 to 65535."),
    (["-p", "65536"], {}, "--port is '65536'; it must be"),
    (["1", "-p", "2"], {}, "The port is given twice, as 1 and as 2; give it once."),
    (["--tls", "required"], {}, "--tls is required, and there is no certificate; give --tls-cert and --tls-key."),
    (["--tls-cert", "x"], {}, "--tls-cert is given without --tls-key; a certificate needs its key."),
    ([], {"CHAT_TLS_KEY": "x"}, "--tls-key is given without --tls-cert; a certificate needs its key."),
    (["1", "2"], {}, "Too many arguments: 2; see chatserver --help."),
    (["--potr", "1"], {}, "There is no flag --potr; did you mean --port? See chatserver --help."),
    ([], {"CHAT_PORT": "x"}, "CHAT_PORT is 'x'; it must be a whole number from 0 to 65535."),
    ([], {"CHAT_PORT": "\u0661"}, "CHAT_PORT is"),
    ([], {"CHAT_PORT": "9" * 5000}, "it must be a whole number from 0 to 65535."),
    (["--max-connections", "0"], {}, "--max-connections is '0'; it must be a whole number from 1 to"),
    (["--login-seconds", "0"], {}, "--login-seconds is '0'; it must be a number of seconds, more than 0"),
    (["--login-seconds", "nan"], {}, "--login-seconds is 'nan'"),
    (["--login-seconds", "inf"], {}, "--login-seconds is 'inf'"),
    (["--users-seconds", "soon"], {}, "--users-seconds is 'soon'"),
    (["--lag-max-bytes", "1"], {}, "--lag-max-bytes is '1'; it must be a whole number from 1048576"),
    (["--registration", "half"], {}, "--registration is 'half'; it must be one of open, invite, closed."),
    (["--operator", "alice bob"], {}, "--operator is 'alice bob'; it must be usernames, separated by commas"),
    (
        ["--exempt", "10.0.0.0/33"],
        {},
        "--exempt is '10.0.0.0/33'; it must be addresses and networks, separated by commas",
    ),
    (
        ["--web-origins", "chat.example.org"],
        {},
        "--web-origins is 'chat.example.org'; it must be origins, separated by",
    ),
    (["--web-origins", "https://a/b"], {}, "--web-origins is 'https://a/b'"),
    (["--irc-name", "chat"], {}, "--irc-name is 'chat'; it must be a name such as irc.example.org"),
    (["--message-rate", "-1"], {}, "--message-rate is '-1'; it must be a number from 0 to 1e+06."),
    (["--metrics", "9464"], {}, "--metrics is '9464'; it must be HOST:PORT, such as 127.0.0.1:9464."),
    (["--hash-memory-kib", "7"], {}, "--hash-memory-kib is '7'"),
    ([], {"CHAT_LOG_LEVEL": "loud"}, "CHAT_LOG_LEVEL is 'loud'; it must be one of debug, info, warning, error."),
    (["--unknown"], {}, "There is no flag --unknown; see"),
    (["--dat=x"], {}, "There is no flag --dat; did you mean --data?"),
    (["--data"], {}, "--data needs a value; see chatserver --help."),
]


@pytest.mark.parametrize(("arguments", "environment", "text"), USAGE_ERRORS)
def test_invalid_value_is_one_line_that_names_it(
    arguments: list[str], environment: dict[str, str | None], text: str
) -> None:
    with pytest.raises(ConfigError) as error:
        load_config(arguments, environment)
    assert text in str(error.value)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [["--hash-memory-kib", "8", "--hash-parallelism", "2"], ["--hash-memory-kib", "500", "--hash-parallelism", "64"]],
)
def test_too_little_memory_per_lane_is_refused(arguments: list[str]) -> None:
    """argon2 needs 8 KiB per lane. It would raise in the middle of the start."""
    with pytest.raises(ConfigError):
        load_config(arguments, {})


@pytest.mark.parametrize(("flag", "names"), [("--help", [*map(flag_of, VALUES)]), ("--version", ["chatserver"])])
def test_help_and_version_are_printed_with_exit_code_0(
    flag: str, names: Iterable[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """The help names every flag."""
    with pytest.raises(SystemExit) as end:
        load_config([flag], {})
    assert end.value.code == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in names)


def test_variable_wins_over_dotenv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And flags over variables: see test_settings."""
    (tmp_path / ".env").write_text("CHAT_PORT=1\nCHAT_HOST=127.0.0.1\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CHAT_PORT", "2")
    environment = read_environment()
    assert (environment["CHAT_PORT"], environment["CHAT_HOST"]) == ("2", "127.0.0.1")
