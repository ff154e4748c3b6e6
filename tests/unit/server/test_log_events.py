"""Log events are literals with data as keys, and docs/operations.md has exactly these."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import chatserver

SOURCE = Path(chatserver.__file__).parent
OPERATIONS = Path(__file__).parents[3] / "docs" / "operations.md"


class Logged(NamedTuple):
    """One call of the log."""

    where: str
    event: object
    level: str
    keys: frozenset[str]
    reason: object


def literal(node: ast.expr | None) -> object:
    return node.value if isinstance(node, ast.Constant) else None


def calls_of_the_log() -> Iterator[Logged]:
    for path in SOURCE.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            match node:
                case ast.Call(func=ast.Attribute(value=ast.Name(id="_log"), attr=method)):
                    given = {"exc_info": "exception"}
                    keys = {given.get(str(keyword.arg), str(keyword.arg)) for keyword in node.keywords}
                    keys |= {"exception"} if method == "exception" else set()
                    level = {"exception": "error", "log": "any"}.get(method, method)
                    reason = next((literal(each.value) for each in node.keywords if each.arg == "reason"), None)
                    where = f"{path.relative_to(SOURCE)}:{node.lineno}"
                    yield Logged(where, literal(node.args[method == "log"]), level, frozenset(keys), reason)
                case ast.Dict(keys=[ast.Constant(value="event"), *others]):  # an entry of the log writer itself
                    names = frozenset(str(literal(other)) for other in others)
                    yield Logged(f"{path.name}:{node.lineno}", literal(node.values[0]), "warning", names, None)


LOGGED = list(calls_of_the_log())


class Documented(NamedTuple):
    """The rows of an event: one row, or one for each reason, such as `disconnected reason=lagging`."""

    keys: set[str]
    levels: set[str]
    reasons: set[str]


def documented() -> dict[str, Documented]:
    rows: dict[str, Documented] = defaultdict(lambda: Documented(set(), set(), set()))
    for line in OPERATIONS.read_text(encoding="utf-8").splitlines():
        if line.startswith("| `") and len(cells := line.split("|")) == 7:
            (first,) = re.findall("`(.+)`", cells[1])
            event, _, reason = first.partition(" reason=")
            assert event not in rows or (reason and reason not in rows[event].reasons), first
            rows[event].keys.update(re.findall("`(.+?)`", cells[2]), ["reason"] if reason else [])
            rows[event].levels.update(cells[3].strip().split(", "))
            rows[event].reasons.update([reason] if reason else re.findall("`([a-z0-9_]+)`", cells[4]))
    return rows


def test_each_log_event_is_a_literal_in_lower_case() -> None:
    assert len(LOGGED) > 40
    for call in LOGGED:
        assert isinstance(call.event, str), call.where
        assert re.fullmatch("[a-z0-9 ]+", call.event), call.where
        assert call.reason is None or re.fullmatch("[a-z0-9_]+", str(call.reason)), call.where


def test_each_logger_is_called_directly() -> None:
    """Then the calls above are all that there are, and they show all keys."""
    for path in SOURCE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        created = text.count("\n_log = structlog.get_logger()\n")
        called = re.findall(r"\b_log\.(?:debug|info|warning|error|exception|log)\(", text)
        assert text.count("get_logger") == created, path
        assert len(re.findall(r"\b_log\b", text)) == created + len(called), path


def test_operations_page_lists_each_event_with_its_keys_and_levels() -> None:
    keys, levels = defaultdict(set), defaultdict(set)
    rows = documented()
    for call in LOGGED:
        event = str(call.event)
        keys[event] |= call.keys
        levels[event].add(call.level)
        assert call.reason is None or call.reason in rows[event].reasons, call.where
    assert {event: (row.keys, row.levels) for event, row in rows.items()} == {
        event: (keys[event], levels[event]) for event in keys
    }


def test_reasons_of_rows_are_in_the_source() -> None:
    source = "".join(path.read_text(encoding="utf-8") for path in SOURCE.rglob("*.py"))
    reasons = re.findall(r"^\| `[a-z ]+ reason=(\w+)`", OPERATIONS.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(reasons) > 1
    assert [reason for reason in reasons if f'"{reason}"' not in source] == []
