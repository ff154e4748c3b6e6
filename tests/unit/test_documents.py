"""The documents: what they tell readers to paste into a shell."""

from __future__ import annotations

import re
from pathlib import Path

TOP = Path(__file__).parents[2]
# An indented line with a command. Fenced blocks are Python.
COMMAND = re.compile(
    r"    (?:sudo |[A-Z_]+=\S+ )*(?:\(|docker|make|chatclient|chatserver|[./]*\.venv/|curl|git|openssl)"
)


def test_lines_to_paste_have_no_comments() -> None:
    """At its prompt zsh, the shell of macOS, passes # and what follows as arguments."""
    documents = [TOP / name for name in ("README.md", "CONTRIBUTING.md", "bench/README.md")]
    documents += [*TOP.glob("docs/**/*.md"), *TOP.glob("services/*/README.md")]
    lines = [(file.name, line) for file in documents for line in file.read_text(encoding="utf-8").splitlines()]
    commands = [each for each in lines if COMMAND.match(each[1])]
    assert len(commands) > 60
    assert [each for each in commands if re.search(r"\s#(\s|$)", each[1])] == []
