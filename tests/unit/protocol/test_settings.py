"""The names of settings: all are known, and what is nearly one is found."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from chatprotocol.settings import SETTINGS, UnknownSetting, unknown_settings
from chatserver.config import Config

REPOSITORY = Path(__file__).parents[3]


def test_every_setting_of_the_server_is_known() -> None:
    assert {f"CHAT_{setting.name.upper()}" for setting in fields(Config)} <= SETTINGS


def test_every_setting_of_the_server_reaches_its_container() -> None:
    passed = set(re.findall(r"^      (CHAT_\w+):", (REPOSITORY / "compose.yaml").read_text(), re.MULTILINE))
    assert {f"CHAT_{setting.name.upper()}" for setting in fields(Config)} <= passed


@pytest.mark.parametrize(
    "file",
    ["docs/settings.md", "README.md", ".env.example", "compose.yaml", "services/client/chatclient/cli/config.py"],
)
def test_every_name_that_is_documented_or_read_is_known(file: str) -> None:
    assert set(re.findall(r"CHAT_[A-Z_]*[A-Z]", (REPOSITORY / file).read_text())) <= SETTINGS


@pytest.mark.parametrize(
    ("name", "similar"),
    [
        ("CHAT_REGISTRATON", "CHAT_REGISTRATION"),
        ("chat_registration", "CHAT_REGISTRATION"),
        ("CHAT-PORT", "CHAT_PORT"),
        ("CHAT_PROT", "CHAT_PORT"),
        ("CHAT_FOO", ""),  # though CHAT_OPS has as many letters of it in the same places
    ],
)
def test_a_name_that_is_none_is_found_with_the_one_that_is_meant(name: str, similar: str) -> None:
    assert unknown_settings([name, "CHAT_PORT", "PATH", "CHATTY"]) == [UnknownSetting(name, similar)]
