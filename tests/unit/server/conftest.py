"""Fixtures of the server's unit tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from chatserver.store.database import Database

from .chat_fixture import ChatFixture


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The path of a data folder that does not exist yet."""
    return tmp_path / "data"


@pytest.fixture
def database(folder: Path) -> Iterator[Database]:
    opened = Database(folder)
    yield opened
    opened.close()


@pytest.fixture
def services() -> ChatFixture:
    """The services of a session, with two accounts."""
    services = ChatFixture()
    services.accounts.add("Alice", "terces")
    services.accounts.add("bob", "terces")
    return services
