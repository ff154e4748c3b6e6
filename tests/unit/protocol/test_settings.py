"""The settings of both programs: their documents, their precedence, and misspelt variables."""

from dataclasses import fields
from pathlib import Path

import pytest

from chatclient.cli.config import load_config as load_client_config
from chatclient.links.watch import SILENCE_SECONDS
from chatprotocol.settings import (
    CLIENT_SETTINGS,
    SERVER_SETTINGS,
    ConfigError,
    Setting,
    UnknownSetting,
    read_dotenv,
    read_settings,
    unknown_settings,
)
from chatserver.config import Config
from ops import settings as documents

SPEED = Setting("speed", "-s --speed", "how fast", "7", int)


@pytest.mark.parametrize("name", documents.LISTS)
def test_documents_list_all_settings(name: str) -> None:
    """`make settings` writes the lists."""
    assert documents.with_settings(name) == (documents.TOP / name).read_text()


def test_every_field_of_server_config_is_a_setting() -> None:
    assert [field.name for field in fields(Config)] == [setting.name for setting in SERVER_SETTINGS]


def test_program_and_library_have_same_silence_default() -> None:
    assert load_client_config(["alice"], {}).silence_seconds == SILENCE_SECONDS


@pytest.mark.parametrize("setting", [*SERVER_SETTINGS, *CLIENT_SETTINGS], ids=lambda setting: setting.name)
def test_default_is_valid(setting: Setting) -> None:
    read_settings([setting], {}, {})


@pytest.mark.parametrize(
    ("flag", "variable", "value"),
    [("1", "2", 1), ("1", "rubbish", 1), (None, "2", 2), ("", "2", 2), (None, "", 7), (None, None, 7)],
)
def test_flag_wins_over_variable_and_variable_over_default(flag: str | None, variable: str | None, value: int) -> None:
    assert read_settings([SPEED], {"speed": flag}, {"CHAT_SPEED": variable}) == {"speed": value}


def test_setting_without_variable_has_only_flag() -> None:
    """The name of a variable may be empty."""
    setting = Setting("fast", "--fast", "be fast", own_variable="", switch="yes")
    assert read_settings([setting], {"fast": None}, {"": "yes"}) == {"fast": None}


@pytest.mark.parametrize(("flag", "source"), [("x", "--speed"), (None, "CHAT_SPEED")])
def test_error_names_source_of_bad_value(flag: str | None, source: str) -> None:
    with pytest.raises(ConfigError, match=f"^{source} is 'x'; it must be "):
        read_settings([SPEED], {"speed": flag}, {"CHAT_SPEED": "x"})


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"CHAT_PORT=1\nh\xfc=1\n", "it is not text in UTF-8"),
        (b"CHAT_PORT=1\n= what is this\n", "line 2 is not NAME=VALUE"),
        (b"#" * 65_537, "it is not a file of at most 65,536 bytes"),
        (None, "it is not a file of at most"),
    ],
)
def test_bad_dotenv_is_rejected(
    data: bytes | None, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert read_dotenv() == {}
    if data is None:
        Path(".env").mkdir()
    else:
        Path(".env").write_bytes(data)
    with pytest.raises(ValueError, match=reason):
        read_dotenv()


def test_dotenv_of_a_windows_editor_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(".env").write_bytes('CHAT_USER="bj\u00f6rn"\r\n'.encode("utf-8-sig"))
    assert read_dotenv() == {"CHAT_USER": "bj\u00f6rn"}


@pytest.mark.parametrize(
    ("name", "similar"),
    [
        ("CHAT_REGISTRATON", "CHAT_REGISTRATION"),
        ("chat_registration", "CHAT_REGISTRATION"),
        ("CHAT-PORT", "CHAT_PORT"),
        ("CHAT_PROT", "CHAT_PORT"),
        ("CHAT_FOO", ""),
    ],
)
def test_misspelt_variable_is_found(name: str, similar: str) -> None:
    assert unknown_settings([name, "CHAT_PORT", "PATH", "CHATTY"]) == [UnknownSetting(name, similar)]
