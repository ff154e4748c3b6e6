"""docs/architecture.md has a row for each file and table, and no file or name that does not exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

from chatserver.store.database import Database

TOP: Final = Path(__file__).parents[2]
PAGE: Final = (TOP / "docs" / "architecture.md").read_text(encoding="utf-8")
PACKAGES: Final = ("services/protocol/chatprotocol", "services/server/chatserver", "services/client/chatclient")
FILES: Final = [
    path.relative_to(TOP).as_posix()
    for folder in ("services", "tests", "docs")
    for path in (TOP / folder).rglob("*.*")
    if path.suffix in {".py", ".md", ".sql", ".toml"}
]


@pytest.mark.parametrize("package", PACKAGES)
def test_each_file_has_a_row(package: str) -> None:
    rows = PAGE.partition(f"## The files of {package}\n")[2].partition("\n## ")[0]
    named = {Path(name).name for name in re.findall(r"`([\w/]+\.py)`", rows)}
    present = {Path(file).name for file in FILES if file.startswith(package) and file.endswith(".py")}
    assert named == present - {"__init__.py"}


def test_each_file_and_name_exists() -> None:
    code = "\n".join((TOP / file).read_text(encoding="utf-8") for file in FILES if file.endswith(".py"))
    words = set(re.findall(r"\w+", code))
    quoted = re.findall(r"`([^`\n]+)`", PAGE)
    missing_files = [name for name in quoted if re.fullmatch(r"[\w/]+\.(py|md|sql)", name) if not _is_file(name)]
    names = [name for name in quoted if re.fullmatch(r"[A-Za-z_]\w*(\.\w+)*(\(\))?", name) and not _is_file(name)]
    missing_names = [name for name in names if not words.issuperset(re.findall(r"\w+", name))]
    assert missing_files == []
    assert missing_names == []


def test_each_table_has_a_row(tmp_path: Path) -> None:
    database = Database(tmp_path)
    with database.reading() as connection:
        present = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    database.close()
    rows = PAGE.partition("| table | content |\n")[2].partition("\n\n")[0]
    assert {name for row in rows.splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1])} == present


def _is_file(name: str) -> bool:
    return any(f"/{file}".endswith(f"/{name}") for file in FILES) or (TOP / name).exists()
