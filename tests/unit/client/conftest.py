"""What the client's tests share."""

import itertools

import pytest

from chatclient import session

from .dialogue import Dialogue


@pytest.fixture(autouse=True)
def _countable_nonces(monkeypatch: pytest.MonkeyPatch) -> None:
    """The nonces of messages are n1, n2, n3..."""
    numbers = itertools.count(1)
    monkeypatch.setattr(session.secrets, "token_hex", lambda _: f"n{next(numbers)}")


@pytest.fixture
def udp_session() -> Dialogue:
    """A client that knows its password and has done nothing yet."""
    return Dialogue()


@pytest.fixture
def inside(udp_session: Dialogue) -> Dialogue:
    """A client that is logged in."""
    udp_session.come_in()
    return udp_session
