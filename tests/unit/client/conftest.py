"""Fixtures of the client's tests."""

import pytest

from .dialogue import Dialogue


@pytest.fixture
def new_client() -> Dialogue:
    """A client that knows its password, before its first connection."""
    return Dialogue()


@pytest.fixture
def client(new_client: Dialogue) -> Dialogue:
    """A client that is logged in."""
    new_client.log_in()
    return new_client
