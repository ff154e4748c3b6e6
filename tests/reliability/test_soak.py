"""A short soak: ``make soak`` for a few seconds."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from reliability.program import Program
from reliability.soak import SETTINGS, SILENCE_SECONDS, Soak

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.long
@pytest.mark.timeout(300)
def test_server_is_as_before_after_random_clients(tmp_path: Path) -> None:
    with Program(tmp_path, silence_seconds=SILENCE_SECONDS, **SETTINGS) as server:
        assert Soak(server, 12.0, seed=os.environ.get("CHAT_TEST_SEED", "0")).run() == []
