"""The breaks fit the product, name existing tests, and cover the promises of the documents."""

from __future__ import annotations

import re

import pytest
from mutants.__main__ import DOCUMENT, REPOSITORY, TABLE, mutated, table
from mutants.breaks import BREAKS, Break

PROMISES = {broken.promise for broken in BREAKS}


@pytest.mark.parametrize("broken", BREAKS, ids=lambda broken: broken.file)
def test_break_fits_the_product_and_its_tests_exist(broken: Break) -> None:
    """``make mutants`` takes minutes, so this says early that a break is out of date."""
    source = (REPOSITORY / "services" / broken.file).read_text(encoding="utf-8")
    changed = mutated(broken, source)
    if broken.file.endswith(".py"):
        compile(changed, broken.file, "exec")
    assert broken.tests
    for test in broken.tests:
        file, _, name = test.partition("::")
        text = (REPOSITORY / "tests" / file).read_text(encoding="utf-8")
        assert re.search(rf"\bdef {name or 'test_'}", text) or f"{name} = " in text, test


def test_each_promise_of_the_readme_has_a_break() -> None:
    """The list below "The server promises"."""
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    promises = text.partition("The server promises:\n\n")[2].partition("\n\n")[0]
    sentences = re.findall(r"[A-Z][^.]*\.", promises)
    assert len(sentences) >= 5
    assert set(sentences) <= PROMISES


def test_each_promise_of_the_architecture_has_a_break() -> None:
    """The first column of the table "Promises"."""
    text = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([A-Z][^|]*\.) \|", text.partition("## Promises")[2].partition("\n## ")[0], re.MULTILINE)
    assert len(rows) >= 15
    assert set(rows) <= PROMISES


def test_document_lists_the_tests_of_each_promise() -> None:
    """If this fails, run ``make mutants ARGS=--table``."""
    assert TABLE.search(DOCUMENT.read_text(encoding="utf-8"))[0] == table()  # type: ignore[index]
