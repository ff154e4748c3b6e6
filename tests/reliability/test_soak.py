"""A short soak: the same as ``make soak``, for a few seconds."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from reliability.program import Program
from reliability.soak import SETTINGS, SILENCE_SECONDS, Soak

if TYPE_CHECKING:
    from pathlib import Path

SECONDS = 12.0


def test_after_visitors_of_all_manners_the_server_is_as_it_was(tmp_path: Path) -> None:
    with Program(tmp_path, silence_seconds=SILENCE_SECONDS, **SETTINGS) as server:
        assert Soak(server, SECONDS, seed=os.environ.get("CHAT_TEST_SEED", "0")).run() == []
