"""The stacks that a test run uses: CHAT_TEST_STACK is auto, docker or process."""

from __future__ import annotations

import os
from functools import cache
from typing import NamedTuple

VARIABLE = "CHAT_TEST_STACK"


class ChoiceError(Exception):
    """The tests can't run on the requested stack. The text is one line."""


class Choice(NamedTuple):
    """The names of the stacks, and the reason if one is left out."""

    stacks: tuple[str, ...]
    left_out: str = ""


@cache
def choose() -> Choice:
    """Read the setting, and look for a Docker engine if one is wanted. Raises ChoiceError."""
    wanted = os.environ.get(VARIABLE) or "auto"
    if wanted not in ("auto", "docker", "process"):
        raise ChoiceError(f"{VARIABLE} is {wanted!r}; it must be auto, docker or process.")
    if wanted == "process":
        return Choice(("process",), f"docker: not run, {VARIABLE} is process")
    from .engine import engine_answers  # noqa: PLC0415 -- the SDK takes a third of a second to import

    if engine_answers():
        return Choice(("process", "docker"))
    if wanted == "docker":
        raise ChoiceError(f"{VARIABLE} is docker, but no Docker engine answers.")
    return Choice(("process",), "docker: not run, no engine answers")
