"""Writes the lists of settings into docs/settings.md, .env.example and compose.yaml, from chatprotocol.settings."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from chatprotocol.settings import CLIENT_SETTINGS, SERVER_SETTINGS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from chatprotocol.settings import Setting

TOP = Path(__file__).resolve().parent.parent
# Variables that compose.yaml fixes for the server's container, by hand.
_FIXED = ("CHAT_HOST", "CHAT_PORT", "CHAT_DATA")


def main() -> None:
    """Write all files."""
    for name in LISTS:
        (TOP / name).write_text(with_settings(name))


def with_settings(name: str) -> str:
    """The text of a file with new lists. A list is all lines of one pattern after a given line: see LISTS."""
    text = (TOP / name).read_text()
    for before, kind, lines in LISTS[name]:
        listed = re.compile(f"({before}\n)(?:{kind}\n)*")
        found = listed.search(text)
        if found is None:
            raise ValueError(f"{name} has no list of settings after {before!r}.")
        text = text[: found.end(1)] + "".join(f"{line}\n" for line in lines) + text[found.end() :]
    return text


def _rows(settings: Iterable[Setting]) -> list[str]:
    """The rows of a table in Markdown. A setting without a flag has no row: that of another setting describes it."""
    return [
        f"| {', '.join(map(_code, setting.flags.split()))} | {_code(setting.variable)}| {_code(setting.default)}| "
        f"{setting.meaning} |".replace("`|", "` |")
        for setting in settings
        if setting.flags
    ]


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def _defaults(settings: Iterable[Setting]) -> list[str]:
    return [f"# {each.variable}={each.default}" for each in settings if each.variable]


def _passed(settings: Iterable[Setting]) -> list[str]:
    return [f"      {each.variable}: ${{{each.variable}:-}}" for each in settings if each.variable not in _FIXED]


_SERVER_VARIABLES = {setting.variable for setting in SERVER_SETTINGS}
_CLIENT_ONLY = [setting for setting in CLIENT_SETTINGS if setting.variable not in _SERVER_VARIABLES]
_HEAD = r"\| flag \| environment \| default \| meaning \|\n\| --- \| --- \| --- \| --- \|"
# Lists by file. Each has the pattern of the text before the list, the pattern of a line, and the lines to write.
LISTS = {
    "docs/settings.md": [
        (rf"## Server\n[^|]*\n{_HEAD}", r"\|.*", _rows(SERVER_SETTINGS)),
        (rf"## Client\n[^|]*\n{_HEAD}", r"\|.*", _rows(CLIENT_SETTINGS)),
    ],
    ".env.example": [
        (r"# --- server .* ---", "# CHAT_.*", _defaults(SERVER_SETTINGS)),
        (r"# --- client .* ---", "# CHAT_.*", _defaults(_CLIENT_ONLY)),
    ],
    "compose.yaml": [
        ('      CHAT_PASSWORD: ""', r"      CHAT_\w+: \$\{CHAT_\w+:-\}", _passed(SERVER_SETTINGS)),
    ],
}
