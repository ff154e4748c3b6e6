"""Which stacks a session of the tests uses: CHAT_TEST_STACK is auto, docker or process."""

from __future__ import annotations

import os
from functools import cache
from typing import NamedTuple

from .engine import engine_answers

VARIABLE = "CHAT_TEST_STACK"


class ChoiceError(Exception):
    """The tests can't run on what was asked for. The text is one line."""


class Choice(NamedTuple):
    """The stacks by name, and why one of them is left out."""

    stacks: tuple[str, ...]
    left_out: str = ""


def check() -> None:
    """See at once that what was asked for can be done. Raises ChoiceError."""
    if _wanted() != "auto":
        choose()


@cache
def choose() -> Choice:
    """Read the setting, and look for a Docker engine where one is wanted. Raises ChoiceError."""
    wanted = _wanted()
    if wanted not in ("auto", "docker", "process"):
        raise ChoiceError(f"{VARIABLE} is {wanted!r}; it must be auto, docker or process.")
    if wanted == "process":
        return Choice(("process",), f"docker: not run, {VARIABLE} is process")
    if engine_answers():
        return Choice(("process", "docker"))
    if wanted == "docker":
        raise ChoiceError(f"{VARIABLE} is docker, but no Docker engine answers.")
    return Choice(("process",), "docker: not run, no engine answers")


def _wanted() -> str:
    return os.environ.get(VARIABLE) or "auto"
