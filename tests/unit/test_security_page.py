"""docs/security.md: each row of the table names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "docs" / "security.md").read_text(encoding="utf-8")


def test_each_row_names_tests_that_exist() -> None:
    table = PAGE.partition("## Attacks and defences")[2].partition("\n## ")[0]
    rows = [line.split(" | ") for line in table.splitlines() if line.startswith("| ")][2:]
    assert len(rows) > 30
    missing: list[str] = []
    for row in rows:
        assert len(row) == 5, row
        named = re.findall(r"`([\w/]+\.py)::(\w+)`", row[-1])
        assert named, row
        for file, test in named:
            path = TESTS / file
            if not path.is_file() or not re.search(rf"^def {test}\(", path.read_text(encoding="utf-8"), re.MULTILINE):
                missing.append(f"{file}::{test}")
    assert missing == []
