"""What the server's tests share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from chatserver.store.database import Database

from .chat_fixture import ChatFixture


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data folder that is not there yet."""
    return tmp_path / "data"


@pytest.fixture
def database(folder: Path) -> Iterator[Database]:
    """A new database."""
    opened = Database(folder)
    yield opened
    opened.close()


@pytest.fixture
def services() -> ChatFixture:
    """What sessions work with, and two who are registered."""
    services = ChatFixture()
    services.accounts.add("Alice", "terces")
    services.accounts.add("bob", "terces")
    return services
