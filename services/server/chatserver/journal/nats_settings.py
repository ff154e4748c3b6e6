"""The settings of NATS, with the contents of the files that they name."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from msgspec import Struct

from chatprotocol.settings import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from chatserver.config import Config

# The port of a NATS server's monitoring pages that its documentation proposes.
_MONITOR_PORT = 8222


class NatsSettings(Struct, frozen=True):
    """How to reach NATS, and what the stream is if this server makes it."""

    urls: tuple[str, ...]
    stream: str = "chat"
    user: str | None = None
    # With a user the password, otherwise a token.
    password: str | None = None
    # The text of a file with a JWT and a seed.
    credentials: str | None = None
    # Given if the connection must be encrypted.
    tls: ssl.SSLContext | None = None
    # The monitoring pages, which tell if the servers sync.
    monitors: tuple[str, ...] = ()
    replicas: int = 3
    # True: accept servers that are too old, or do not sync always.
    unsafe: bool = False


def nats_settings(config: Config) -> NatsSettings:
    """Read the files that the settings name. ConfigError: one can't be used, or settings are missing."""
    urls = config.nats or ()
    if not urls:
        raise ConfigError("CHAT_NATS is missing; give the URLs of the NATS servers, such as nats://a:4222.")
    if (config.nats_cert is None) != (config.nats_key is None):
        given, missing = ("CERT", "KEY") if config.nats_cert else ("KEY", "CERT")
        raise ConfigError(f"CHAT_NATS_{given} is given without CHAT_NATS_{missing}; a certificate needs its key.")
    if config.nats_user is not None and config.nats_password_file is None:
        raise ConfigError("CHAT_NATS_USER is given without CHAT_NATS_PASSWORD_FILE; give the file with its password.")
    return NatsSettings(
        urls,
        config.nats_stream,
        config.nats_user,
        _read(config.nats_password_file, "PASSWORD_FILE"),
        _read_credentials(config.nats_credentials),
        _tls_context(config, urls),
        config.nats_monitor or tuple(f"http://{_host(url)}:{_MONITOR_PORT}" for url in urls),
        int(config.nats_replicas),
        config.nats_unsafe,
    )


def _read(path: Path | None, setting: str) -> str | None:
    if path is None:
        return None
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError(f"The file {path} (CHAT_NATS_{setting}) can't be read: {reason}.") from error
    if not text:
        raise ConfigError(f"The file {path} (CHAT_NATS_{setting}) is empty.")
    return text


def _read_credentials(path: Path | None) -> str | None:
    text = _read(path, "CREDENTIALS")
    if text is not None and not ("BEGIN NATS USER JWT" in text and "BEGIN USER NKEY SEED" in text):
        raise ConfigError(f"The file {path} (CHAT_NATS_CREDENTIALS) has no user JWT and seed; nsc makes such files.")
    return text


def _tls_context(config: Config, urls: tuple[str, ...]) -> ssl.SSLContext | None:
    """A context for all connections, or None if none need be encrypted."""
    if not any(url.startswith("tls://") for url in urls) and not (config.nats_ca or config.nats_cert):
        return None
    _read(config.nats_ca, "CA")
    try:
        context = ssl.create_default_context(cafile=config.nats_ca)
    except ssl.SSLError as error:
        raise ConfigError(f"The file {config.nats_ca} (CHAT_NATS_CA) has no certificates in the format PEM.") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if config.nats_cert is not None and config.nats_key is not None:
        _read(config.nats_cert, "CERT")
        _read(config.nats_key, "KEY")

        def refuse_passphrase() -> str:
            raise ConfigError(f"The key in {config.nats_key} (CHAT_NATS_KEY) has a passphrase; store it without one.")

        try:
            context.load_cert_chain(config.nats_cert, config.nats_key, refuse_passphrase)
        except ssl.SSLError as error:
            raise ConfigError(
                f"The certificate in {config.nats_cert} (CHAT_NATS_CERT) and the key in {config.nats_key} "
                f"(CHAT_NATS_KEY) can't be used: {(error.reason or 'damaged').replace('_', ' ').lower()}."
            ) from error
    return context


def _host(url: str) -> str:
    host = urlsplit(url).hostname or ""
    return f"[{host}]" if ":" in host else host
