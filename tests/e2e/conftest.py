"""The fixture ``stack``, which runs a story on processes or in containers, and the report of a failed story."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .harness.choice import choose
from .harness.process_stack import ProcessStack

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

    from .harness.engine import Engine
    from .harness.stack import Stack

# Only the story counts: the first one in containers also waits for the images.
_STORY_SECONDS = 120


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each story on processes. Run those marked ``docker`` in containers as well, if there is an engine."""
    if "stack" in metafunc.fixturenames:
        has_docker = metafunc.definition.get_closest_marker("docker") and "docker" in choose().stacks
        metafunc.parametrize("stack", ["process", "docker"] if has_docker else ["process"], indirect=True)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Note in the reports on which stack a story ran."""
    if not isinstance(item, pytest.Function):
        return
    if hasattr(item, "callspec") and "stack" in item.callspec.params:
        stack = item.callspec.params["stack"]
    elif "engine" in item.fixturenames:
        stack = "docker"
        if "docker" not in choose().stacks:
            item.add_marker(pytest.mark.skip("no Docker engine"))
    else:
        return
    item.user_properties.append(("stack", stack))
    item.add_marker(pytest.mark.timeout(_STORY_SECONDS, func_only=True))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the transcripts of all programs to the report of a failed story."""
    report = yield
    stack = getattr(item, "funcargs", {}).get("stack")
    if report.when == "call" and report.failed and stack is not None:
        report.sections += [(f"transcript of {program.name}", str(program.transcript)) for program in stack.programs]
    return report


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """The Docker engine, with the images built."""
    from .harness.engine import Engine  # noqa: PLC0415 -- the SDK takes a third of a second to import

    engine = Engine()
    try:
        # The parent of the workers' folders.
        engine.build(tmp_path_factory.getbasetemp().parent / "images.lock")
        yield engine
    finally:
        engine.close()


@pytest.fixture
def stack(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stack]:
    """A stack for one story. Everything that it started is gone afterwards."""
    stack: Stack
    if request.param == "process":
        stack = ProcessStack(tmp_path)
    else:
        from .harness.docker_stack import DockerStack  # noqa: PLC0415 -- see engine

        stack = DockerStack(request.getfixturevalue("engine"))
    try:
        yield stack
    finally:
        stack.close()
