"""Hypothesis profiles; and the stacks of the end-to-end stories, checked at the start and reported at the end."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from .e2e.harness.choice import ChoiceError, check, choose

if TYPE_CHECKING:
    from collections.abc import Iterator


# Examples of each property: a few seconds for all properties, or what `make test-long` has time for.
settings.register_profile("normal", max_examples=60, deadline=None, database=None)
settings.register_profile("long", settings.get_profile("normal"), max_examples=1000)
settings.load_profile("long" if os.environ.get("CHAT_TEST_LONG") else "normal")


def pytest_configure() -> None:
    """Containers that are required and can't run end the session before it begins."""
    try:
        check()
    except ChoiceError as error:
        raise pytest.UsageError(str(error)) from error


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Iterator[None]:
    """The last lines before the count."""
    yield
    counts = _count_stories(terminalreporter)
    if not counts:
        return
    choice = choose()
    stacks = ", ".join(f"{name} ({_verdict(counts[name])})" for name in choice.stacks if name in counts)
    terminalreporter.write_line(f"stacks: {stacks}")
    if choice.left_out:
        terminalreporter.write_line(choice.left_out)


def _count_stories(terminalreporter: pytest.TerminalReporter) -> dict[str, Counter[str]]:
    """How many stories came out how, by stack."""
    counts: dict[str, Counter[str]] = {}
    for outcome in ("passed", "failed", "error", "skipped", "xfailed", "xpassed"):
        for report in terminalreporter.getreports(outcome):
            stack = dict(getattr(report, "user_properties", ())).get("stack")
            if stack is not None:
                counts.setdefault(stack, Counter())[outcome] += 1
    return counts


def _verdict(count: Counter[str]) -> str:
    """``12 stories passed``, or what else came of them."""
    if set(count) == {"passed"}:
        return f"{count['passed']} {'story' if count['passed'] == 1 else 'stories'} passed"
    return f"{', '.join(f'{number} {outcome}' for outcome, number in count.items())}, of {count.total()} stories"
