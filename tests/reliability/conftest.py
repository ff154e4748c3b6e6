"""A random generator for faults."""

from __future__ import annotations

import os
import random

import pytest


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    """A generator of its own for each test. CHAT_TEST_SEED changes all of them."""
    seed = os.environ.get("CHAT_TEST_SEED", "0")
    print(f"CHAT_TEST_SEED={seed}")  # shown when the test fails
    return random.Random(f"{seed} {request.node.name}")
