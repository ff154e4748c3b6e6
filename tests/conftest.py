"""Examples of the properties; chooses the stacks for the end-to-end tests, and reports them at the end."""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.internal.conjecture import providers
from hypothesis.internal.constants_ast import Constants

from ops.nats_servers import NatsServers

from .e2e.harness.choice import VARIABLE, ChoiceError, choose

if TYPE_CHECKING:
    from collections.abc import Iterator


# Examples of each property: few for `make test`, because all properties must take only seconds; many for
# `make test-long`. A failure does not depend on the machine's speed, and prints a line that repeats it.
settings.register_profile(
    "normal",
    max_examples=60,
    deadline=None,
    database=None,
    print_blob=True,
    derandomize=False,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("long", settings.get_profile("normal"), max_examples=500)
settings.load_profile("long" if os.environ.get("CHAT_TEST_LONG") else "normal")


# Limit of the time of a test in `make test-long`: twenty starts of a server on a busy machine take two minutes.
_TIMEOUT_LONG_SECONDS = 300.0
# Limit of the time of a test above which it starts first.
_LONG_SECONDS = 600.0


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Choose the examples of the properties; and the stacks, once, before xdist's workers start.

    All workers must collect the same tests.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it in commands that end with &
    # The tests start some hundred programs: each would compile all its modules again.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    if os.environ.get("CHAT_TEST_LONG") and config.option.timeout is None:
        config.option.timeout = _TIMEOUT_LONG_SECONDS
    seed = os.environ.get("CHAT_TEST_SEED")
    if seed is not None and config.option.hypothesis_seed is None:
        config.option.hypothesis_seed = seed
        # Hypothesis also draws literals of all loaded modules. With them, the examples of a property would depend on
        # the other tests of the process, and would change with any module.
        no_literals = Constants()
        pytest.MonkeyPatch().setattr(providers, "_get_local_constants", lambda: no_literals)
    if hasattr(config, "workerinput"):
        return
    try:
        os.environ[VARIABLE] = choose().stacks[-1]
    except ChoiceError as error:
        raise pytest.UsageError(str(error)) from error


def pytest_xdist_auto_num_workers() -> int:
    """More workers than processors, because many tests wait. The tests of `make test-long` measure times."""
    processors = len(os.sched_getaffinity(0))
    return processors if os.environ.get("CHAT_TEST_LONG") else processors + (processors + 1) // 2


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the test that takes ten minutes first: the other workers run all other tests meanwhile."""
    items.sort(key=_timeout_seconds, reverse=True)


def _timeout_seconds(item: pytest.Item) -> float:
    """The time limit of a test that may take more than ten minutes; 0 for all others, which keep their order."""
    marker = item.get_closest_marker("timeout")
    seconds = float(marker.args[0]) if marker is not None and marker.args else 0.0
    return seconds if seconds > _LONG_SECONDS else 0.0


@pytest.fixture(scope="session")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServers]:
    """A NATS server for all tests of a process. Streams of earlier tests are in it."""
    with NatsServers(tmp_path_factory.mktemp("nats")) as servers:
        yield servers


@pytest.fixture(scope="module")
def nats3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServers]:
    """A cluster of three for a module. A test that kills or pauses servers starts or resumes them again."""
    with NatsServers(tmp_path_factory.mktemp("nats3"), 3) as servers:
        yield servers


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Iterator[None]:
    """Report the stacks in the last lines before the totals."""
    yield
    counts = _count_stories(terminalreporter)
    if not counts:
        return
    choice = choose()
    stacks = ", ".join(f"{name} ({_describe(counts[name])})" for name in choice.stacks if name in counts)
    terminalreporter.write_line(f"stacks: {stacks}")
    if choice.left_out:
        terminalreporter.write_line(choice.left_out)


def _count_stories(terminalreporter: pytest.TerminalReporter) -> dict[str, Counter[str]]:
    """The number of stories by stack and outcome."""
    counts: dict[str, Counter[str]] = {}
    for outcome in ("passed", "failed", "error", "skipped", "xfailed", "xpassed"):
        for report in terminalreporter.getreports(outcome):
            stack = dict(getattr(report, "user_properties", ())).get("stack")
            if stack is not None:
                counts.setdefault(stack, Counter())[outcome] += 1
    return counts


def _describe(count: Counter[str]) -> str:
    if set(count) == {"passed"}:
        return f"{count['passed']} {'story' if count['passed'] == 1 else 'stories'} passed"
    return f"{', '.join(f'{number} {outcome}' for outcome, number in count.items())}, of {count.total()} stories"
