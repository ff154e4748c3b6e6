"""The base image of the Dockerfiles, for programs that ignore all other settings in .env."""

from __future__ import annotations

from pathlib import Path

from dotenv import dotenv_values

_DOTENV = Path(__file__).resolve().parent.parent / ".env"


def base_image() -> dict[str, str]:
    """``PYTHON_IMAGE`` of .env, which `make engine` or the user sets; empty if it is not set."""
    image = dotenv_values(_DOTENV).get("PYTHON_IMAGE") if _DOTENV.is_file() else None
    return {"PYTHON_IMAGE": image} if image else {}
