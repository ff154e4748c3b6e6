"""Fixtures: chance, which can be repeated."""

from __future__ import annotations

import os
import random

import pytest


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    """Where faults come from. Each test has its own; CHAT_TEST_SEED gives all of them another one."""
    seed = os.environ.get("CHAT_TEST_SEED", "0")
    print(f"CHAT_TEST_SEED={seed}")  # shown when the test fails
    return random.Random(f"{seed} {request.node.name}")
