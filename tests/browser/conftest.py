"""Fixtures: browsers, and a server in a process of its own."""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING

import pytest
from browser.browsers import ENGINE, Browsers
from reliability.program import Program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from browser.page import Page

_numbers = itertools.count(1)
_HERE = "tests/browser/"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all tests of this folder ``browser``. Without the browser they are skipped, unless it is required."""
    for item in items:
        if _HERE in item.path.as_posix():
            item.add_marker(pytest.mark.browser)
            if not ENGINE.is_installed() and os.environ.get("CHAT_TEST_BROWSER") != "required":
                item.add_marker(pytest.mark.skip(reason="the browser or its driver is missing: see `make browser`"))


@pytest.fixture(scope="session")
def browsers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browsers]:
    """The browsers of this process."""
    with Browsers(tmp_path_factory.mktemp("browsers")) as browsers:
        yield browsers


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """A server for the tests of a module. They take new names, and leave no messages that matter to others."""
    with Program(tmp_path_factory.mktemp("server")) as program:
        yield program


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Program]:
    """A server for one test, with an empty lobby; it may be killed."""
    with Program(tmp_path) as program:
        yield program


@pytest.fixture
def open_page(browsers: Browsers) -> Iterator[Callable[[int], Page]]:
    """Opens the page of the server with this port, each in another browser. An error in the console fails the test."""
    yield lambda port: browsers.open(f"http://127.0.0.1:{port}/")
    assert browsers.release() == []


@pytest.fixture
def fresh_name() -> Callable[[str], str]:
    """Makes a name that no other test has."""
    return lambda name: f"{name}{next(_numbers)}"
