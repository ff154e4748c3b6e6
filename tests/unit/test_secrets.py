"""Secrets are in no process list, no image and no environment of a client's container."""

from __future__ import annotations

import re
from pathlib import Path

from chatprotocol.settings import CLIENT_SETTINGS, SERVER_SETTINGS

TOP = Path(__file__).parents[2]
# Settings that hold a secret themselves, and not the name of its file.
SECRET = re.compile("password|secret|token|key$")


def test_no_flag_takes_a_secret() -> None:
    """Every user of the machine can read the flags of a process. An invitation code is used up at once."""
    secrets = [each for each in (*SERVER_SETTINGS, *CLIENT_SETTINGS) if SECRET.search(each.name)]
    assert {each.name for each in secrets} >= {"password", "password_file", "tls_key"}
    assert [each.name for each in secrets if each.flags and each.metavar != "FILE"] == []


def test_images_are_built_without_settings_and_data() -> None:
    """Neither a build context nor a build argument has them, so no layer can."""
    ignored = (TOP / ".dockerignore").read_text(encoding="utf-8").splitlines()
    patterns = [line for line in ignored if line and not line.startswith("#")]
    assert patterns[0] == "*"
    assert patterns.index("**/.env") > max(i for i, line in enumerate(patterns) if line.startswith("!"))
    assert {"**/.env", "**/chat-data"} <= set(patterns)
    for file in TOP.glob("*/*/Dockerfile"):
        given = re.findall(r"^ARG (\w+)", file.read_text(encoding="utf-8"), re.MULTILINE)
        assert set(given) == {"PYTHON_IMAGE"}, file


def test_no_container_gets_a_password() -> None:
    """The server's has an empty one, because it reads .env, which may be a client's too."""
    compose = (TOP / "compose.yaml").read_text(encoding="utf-8")
    assert re.findall(r"^ +(CHAT_PASSWORD\w*): (.*)$", compose, re.MULTILINE) == [("CHAT_PASSWORD", '""')]
    services = dict(re.findall(r"^  (\w+):\n((?:(?:    .*)?\n)+)", compose.partition("\nservices:\n")[2], re.MULTILINE))
    assert [name for name, text in services.items() if "env_file" in text] == ["server"]
