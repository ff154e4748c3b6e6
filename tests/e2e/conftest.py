"""The stories' fixture, a stack, and what is printed when a story fails."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .harness.choice import choose
from .harness.docker_stack import DockerStack
from .harness.engine import Engine
from .harness.process_stack import ProcessStack

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

    from .harness.stack import Stack

# A story's time is limited; building the images, which the first one in containers waits for, is not its fault.
_STORY_SECONDS = 120


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each story runs on each stack, one stack after the other; what only docker compose does runs in containers."""
    if "stack" in metafunc.fixturenames:
        metafunc.parametrize("engine", choose().stacks, indirect=True, scope="session")
    elif "engine" in metafunc.fixturenames:
        only_docker = [name for name in choose().stacks if name == "docker"]
        metafunc.parametrize("engine", only_docker, indirect=True, scope="session")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Reports say on which stack a story ran."""
    if isinstance(item, pytest.Function) and "engine" in item.fixturenames and hasattr(item, "callspec"):
        item.user_properties.append(("stack", item.callspec.params["engine"]))
        item.add_marker(pytest.mark.timeout(_STORY_SECONDS, func_only=True))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failing story shows what everybody typed and saw, and the server's log."""
    report = yield
    stack = getattr(item, "funcargs", {}).get("stack")
    if report.when == "call" and report.failed and stack is not None:
        report.sections += [(f"transcript of {actor.name}", str(actor.transcript)) for actor in stack.actors]
    return report


@pytest.fixture(scope="session")
def engine(request: pytest.FixtureRequest) -> Iterator[Engine | None]:
    """The Docker engine with the images built, for the docker stack; None for the process stack."""
    if request.param == "process":
        yield None
        return
    engine = Engine()
    try:
        engine.build()
        yield engine
    finally:
        engine.close()


@pytest.fixture
def stack(engine: Engine | None, tmp_path: Path) -> Iterator[Stack]:
    """Where a story runs; everything that it started is gone afterwards."""
    stack: Stack = ProcessStack(tmp_path) if engine is None else DockerStack(engine, tmp_path)
    try:
        yield stack
    finally:
        stack.close()
