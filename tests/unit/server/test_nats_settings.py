"""The settings of NATS: each file that can't be used is one sentence with its name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from certificates import Authority

from chatprotocol.settings import ConfigError
from chatserver.config import load_config
from chatserver.journal.nats_settings import nats_settings

if TYPE_CHECKING:
    from pathlib import Path

URLS = ["--nats", "nats://a:4222,nats://[::1]:4223"]


def test_settings_name_the_pages_and_have_the_contents_of_the_files(tmp_path: Path) -> None:
    files = Authority().write(tmp_path)
    (tmp_path / "password").write_text("secret\n")
    flags = f"--nats-user chat --nats-password-file {tmp_path}/password --nats-replicas 1"
    pair = ["--nats-cert", str(files.certificate), "--nats-key", str(files.key)]
    settings = nats_settings(load_config([*URLS, *pair, *flags.split()], {}))
    assert (settings.urls, settings.stream) == (("nats://a:4222", "nats://[::1]:4223"), "chat")
    assert (settings.user, settings.password, settings.replicas) == ("chat", "secret", 1)
    assert settings.monitors == ("http://a:8222", "http://[::1]:8222")
    assert settings.tls is not None
    assert nats_settings(load_config(URLS, {})).tls is None
    assert nats_settings(load_config(["--nats", "tls://a:4222"], {})).tls is not None


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        ("", "CHAT_NATS is missing"),
        ("--nats-user chat", "CHAT_NATS_USER is given without CHAT_NATS_PASSWORD_FILE"),
        ("--nats-password-file missing", "missing (CHAT_NATS_PASSWORD_FILE) can't be read: No such file"),
        ("--nats-password-file empty", "empty (CHAT_NATS_PASSWORD_FILE) is empty"),
        ("--nats-password-file binary", "binary (CHAT_NATS_PASSWORD_FILE) can't be read: it is not UTF-8"),
        ("--nats-credentials text", "text (CHAT_NATS_CREDENTIALS) has no user JWT"),
        ("--nats-ca missing", "missing (CHAT_NATS_CA) can't be read"),
        ("--nats-ca text", "text (CHAT_NATS_CA) has no certificates"),
        ("--nats-cert text", "CHAT_NATS_CERT is given without CHAT_NATS_KEY"),
        ("--nats-cert text --nats-key text", "(CHAT_NATS_KEY) can't be used"),
    ],
)
def test_files_that_can_not_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str, text: str) -> None:
    for name, data in (("empty", b"\n"), ("binary", b"\xff"), ("text", b"hello\n")):
        (tmp_path / name).write_bytes(data)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as error:
        nats_settings(load_config([*(URLS if flags else ()), *flags.split()], {}))
    assert text in str(error.value)
    assert str(error.value).endswith(".")
